/* A world's servers: what its files share. Every byte that is written here stands in a record, which carries the
 * name of its owner (a connection, by a number that its client has chosen), of its stream (the thread that wrote it)
 * and its running number in that stream:
 *
 *   <OWNER.STREAM.NUMBER.LENGTH:FILL>    FILL repeats OWNER.STREAM.NUMBER;
 *
 * What the library says it has taken is counted in the ledger, a file that the driver of the world reads. */
#ifndef WORLD_H
#define WORLD_H

#include <mongoose.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum {
  MOST_OWNERS = 65536,
  STREAMS = 24, /* of a process: one for each thread */
  FIRST_POLLER = 0,
  FIRST_WRITER = 6,
  FIRST_WALKER = 12,
  FIRST_CHANGER = 18,
  /* Streams that are not counted: a request has one answer. */
  UPWARDS = 98,
  ANSWER = 99,
  MOST_SERVERS = 3,
  MOST_PROCESSES = 16
};

/* The ledger. */
struct owner {
  atomic_uint taken[STREAMS];
  atomic_uint abandoned; /* an answer that was not taken, or not all of it */
  uint32_t spare[7];
};
struct ledger {
  atomic_uint quiet; /* no counted record may be written */
  atomic_uint writing[MOST_PROCESSES];
  uint32_t spare[1024 - 1 - MOST_PROCESSES];
  struct owner owners[MOST_OWNERS];
};
extern struct ledger *ledger;
extern int process_number;

/* How the stream of a connection is framed. */
enum framing { EVENTS, CHUNKS, FRAMES };

/* What is known of a client, by its number: nobody says when a connection has closed. */
struct guest {
  unsigned owner, messages;
  /* Any thread may write to its connection, which is framed so. */
  int is_stream;
  enum framing framing;
};

/* A connection that any thread may write to, for ever. */
struct known {
  struct mg_connection *conn;
  unsigned owner;
  enum framing framing;
};

struct slot {
  struct mg_server *_Atomic server;
  atomic_int leave;  /* its pollers are to end */
  atomic_int doomed; /* the next handler destroys it */
  pthread_t pollers[2];
  int poller_count, number;
};
extern struct slot slots[MOST_SERVERS];

/* How much of everything there is. */
struct wishes {
  uint64_t seed;
  unsigned writers, walkers, changers, pollers, longest;
  const char *folder;
};
extern struct wishes wishes;

/* records.c */
uint64_t draw(uint64_t *state);
unsigned below(uint64_t *state, unsigned bound);
size_t make_record(char *buf, unsigned owner, unsigned stream, unsigned number, unsigned len);
size_t record_size(unsigned owner, unsigned stream, unsigned number, unsigned len);
int is_record(const char *bytes, size_t len, unsigned owner, unsigned stream, unsigned number);
int may_write(void);
void has_written(void);
void know(struct mg_connection *conn, enum framing framing);
const struct known *some_known(uint64_t *random);
void write_record(const struct known *known, unsigned stream, uint64_t *random);

/* handlers.c */
void equip(struct slot *slot);
void answer_later_jobs(uint64_t *random);

/* threads.c */
extern atomic_int over;
extern _Thread_local unsigned my_stream;
extern _Thread_local uint64_t my_random;
void start_threads(void);
void join_threads(void);
void start_pollers(struct slot *slot);
void join_pollers(struct slot *slot);
void walk(struct mg_server *server);
void change_something(struct mg_server *server, uint64_t *random);
void begin_call(const char *what);
void end_call(void);
void look_for_stuck_threads(void);
void on_signal_destroy(int number);
void destroy_by_signal(struct slot *slot);

/* clock.c: jumps of the clocks, in milliseconds. */
extern atomic_llong monotonic_offset, realtime_offset;
double real_seconds(void);

/* Says what a promise was broken by, once it is certain. */
void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
