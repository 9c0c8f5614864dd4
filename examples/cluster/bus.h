/* What the servers tell each other: messages of one Redis channel, in both directions.
 *
 * A bus has two threads. The subscriber receives what any server publishes, its own messages
 * included. The publisher sends, so that nobody who publishes waits for the network. Each has a
 * connection of its own, since Redis takes no other command on one that is subscribed, and each
 * connects again when it has lost it. It knows neither websockets nor what a message says.
 *
 * A message is delivered to a server once at most. It is lost where Redis or a connection to it is
 * away: then whoever sent it is told.
 */
#ifndef BUS_H
#define BUS_H

#include <stddef.h>

enum { BUS_ID_SIZE = 40 };

struct bus;

struct bus_message {
  const char *data;
  size_t len;
};

struct bus_config {
  /* A name or address, or the path of a Unix domain socket, which begins with a slash. */
  const char *host;
  int port;
  /* NULL if Redis asks for none. */
  const char *password;
  const char *channel;
  /* For the error messages: which server this is. */
  const char *name;

  /* The subscriber calls this with messages that have come. */
  void (*deliver)(const struct bus_message *messages, int count);
  /* The publisher calls this: nobody has this message, as far as it is known. */
  void (*lost)(void *sender, const char *id, const char *reason);
  /* Either thread calls this when bus_is_up() has changed. */
  void (*changed)(void);
};

/* The strings of the configuration must outlive the bus. NULL: it failed, and standard error says
 * why. */
struct bus *bus_create(const struct bus_config *config);

/* Starts the threads, which call the functions of the configuration from now on. 0: it failed, and
 * standard error says why. */
int bus_start(struct bus *bus);

/* Queues a message; the bytes are copied. NULL, or why it is not taken: then lost() is not called.
 * For a message that nobody will ask about, `sender` may be NULL. */
const char *bus_publish(struct bus *bus, void *sender, const char *id, const char *data,
                        size_t len);

/* Whether both connections are there. */
int bus_is_up(struct bus *bus);

/* Asks the threads to end, once what is queued has been published. Nothing is taken any more. */
void bus_stop(struct bus *bus);

/* Whether they have ended. Until then they may call the functions of the configuration. */
int bus_has_ended(struct bus *bus);

/* Waits for the threads, if they were started, and frees all. */
void bus_free(struct bus *bus);

#endif
