/* Records: how they look, who may be written to, and what has been taken. */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ledger *ledger;
int process_number;

static struct known all[MOST_OWNERS];
static atomic_uint count;

/* SplitMix64. */
uint64_t draw(uint64_t *state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

unsigned below(uint64_t *state, unsigned bound) { return bound == 0 ? 0 : (unsigned) (draw(state) % bound); }

size_t record_size(unsigned owner, unsigned stream, unsigned number, unsigned len) {
  return (size_t) snprintf(NULL, 0, "<%u.%u.%u.%u:>", owner, stream, number, len) + len;
}

size_t make_record(char *buf, unsigned owner, unsigned stream, unsigned number, unsigned len) {
  char name[40];
  size_t name_len = (size_t) snprintf(name, sizeof name, "%u.%u.%u;", owner, stream, number), done;
  size_t at = (size_t) sprintf(buf, "<%u.%u.%u.%u:", owner, stream, number, len);
  for (done = 0; done < len; done++) buf[at + done] = name[done % name_len];
  buf[at + len] = '>';
  return at + len + 1;
}

/* Whether this is one whole record with that name. */
int is_record(const char *bytes, size_t len, unsigned owner, unsigned stream, unsigned number) {
  unsigned a, b, c, fill;
  char *expected, head[64];
  int same;
  snprintf(head, sizeof head, "%.*s", (int) (len < 63 ? len : 63), bytes);
  if (sscanf(head, "<%u.%u.%u.%u:", &a, &b, &c, &fill) != 4) return 0;
  if (record_size(owner, stream, number, fill) != len || (expected = malloc(len + 1)) == NULL) return 0;
  make_record(expected, owner, stream, number, fill);
  same = memcmp(expected, bytes, len) == 0;
  free(expected);
  return same;
}

int may_write(void) {
  atomic_fetch_add(&ledger->writing[process_number], 1);
  if (!atomic_load(&ledger->quiet)) return 1;
  has_written();
  return 0;
}

void has_written(void) { atomic_fetch_sub(&ledger->writing[process_number], 1); }

/* From now on every thread may write to this connection. Its head has been written. */
void know(struct mg_connection *conn, enum framing framing) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  struct guest *guest = conn->connection_param;
  guest->framing = framing;
  guest->is_stream = 1;
  pthread_mutex_lock(&lock);
  if (count < MOST_OWNERS) {
    struct known known = {conn, guest->owner, framing};
    all[count] = known;
    atomic_fetch_add(&count, 1);
  }
  pthread_mutex_unlock(&lock);
}

/* Mostly one of late, sometimes one that has long gone. */
const struct known *some_known(uint64_t *random) {
  unsigned known = atomic_load(&count), back;
  if (known == 0) return NULL;
  back = below(random, 8) == 0 ? below(random, known) : below(random, known < 24 ? known : 24);
  return &all[known - 1 - back];
}

static unsigned some_length(uint64_t *random) {
  unsigned way = below(random, 100);
  if (way < 70) return below(random, 60);
  if (way < 95) return below(random, 3000 < wishes.longest ? 3000 : wishes.longest);
  return below(random, wishes.longest);
}

/* Writes the next record of this thread's stream to a connection. What is refused, is refused whole: its number is
 * that of the next one, which then comes for the first time. */
void write_record(const struct known *known, unsigned stream, uint64_t *random) {
  atomic_uint *taken = &ledger->owners[known->owner].taken[stream];
  unsigned number = *taken, len = some_length(random);
  size_t size = record_size(known->owner, stream, number, len), at = 0, whole;
  char *buf = malloc(size + 32);
  int result;
  if (buf == NULL) return;
  if (!may_write()) {
    free(buf);
    return;
  }
  if (known->framing == CHUNKS) at = (size_t) sprintf(buf, "%zx\r\n", size);
  whole = at + make_record(buf + at, known->owner, stream, number, len);
  if (known->framing == CHUNKS) whole += (size_t) sprintf(buf + whole, "\r\n");
  if (known->framing == FRAMES) {
    begin_call("mg_websocket_write");
    result = mg_websocket_write(known->conn, 1 + (int) below(random, 2), buf, whole);
    end_call();
    /* It may have been compressed. */
    if (result != -1 && (result < 2 || result > (int) whole + 14))
      wrong("mg_websocket_write of %zu bytes returns %d", whole, result);
  } else if (below(random, 3) == 0) {
    buf[whole] = 0;
    begin_call("mg_printf");
    result = mg_printf(known->conn, "%s", buf);
    end_call();
    if (result != 0 && result != (int) whole) wrong("mg_printf of %zu bytes returns %d", whole, result);
  } else {
    begin_call("mg_write");
    result = mg_write(known->conn, buf, (int) whole);
    end_call();
    if (result != 0 && result != (int) whole) wrong("mg_write of %zu bytes returns %d", whole, result);
  }
  if (result > 0) atomic_fetch_add(taken, 1);
  has_written();
  free(buf);
}
