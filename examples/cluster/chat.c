/* The chat of examples/chat.c, served by many processes at once, on one machine or on several. What
 * a guest says goes through Redis to all of them, and each passes it on to its own guests.
 *
 *   cc chat.c bus.c -o chat -lmongoose -lhiredis -lpthread
 *   ./chat NAME [PORT [PAGE [REDIS_HOST [REDIS_PORT]]]]     with REDIS_PASSWORD, if Redis wants one
 *
 * `run` in this folder starts it all on one machine.
 *
 * The page opens a websocket at /chat. Messages are texts with fields that a tab ends:
 *
 *   page:    ROOM NAME                    the first one
 *            ID TEXT                      ID is the page's own
 *   server:  welcome SERVER up|down       to the first one; whether Redis is there
 *            redis up|down                that has changed
 *            say NAME SERVER ID TEXT
 *            join NAME SERVER, leave NAME SERVER
 *            lost ID REASON               to whoever sent it: it was not delivered
 *            missed NUMBER                the page was too slow for that many messages
 */
#define _POSIX_C_SOURCE 200809L /* sigaction */

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus.h"
#include "mongoose.h"

enum { MAX_TEXT = 2000, MAX_NAME = 80, MAX_LINE = MAX_TEXT + 4 * MAX_NAME + BUS_ID_SIZE };

/* What we know of a guest. It hangs on connection_param, and in a list. Guests belong to the thread
 * that polls: others reach them by mg_iterate_over_connections(). */
struct guest {
  char room[MAX_NAME + 1];
  char name[MAX_NAME + 1];
  int is_here;
  int was_told_up;
  long missed;
  struct guest *next;
};

/* A part of a text that a tab or its end ends. */
struct field {
  const char *start;
  int len;
};

struct batch {
  const struct bus_message *messages;
  int count;
};

/* Read by several threads, and set by a signal handler: a lock-free atomic may be both. */
static atomic_int stop;
static int is_draining;
static struct mg_server *server;
static struct bus *bus;
static const char *server_name;
static struct guest *guests;

static void on_signal(int number) {
  (void) number;
  atomic_store(&stop, 1);
}

static struct field take_field(const char **at, const char *end) {
  struct field field;
  const char *tab = memchr(*at, '\t', (size_t) (end - *at));
  field.start = *at;
  field.len = (int) ((tab != NULL ? tab : end) - *at);
  *at = tab != NULL ? tab + 1 : end;
  return field;
}

/* 0 if it is empty, too long, or would break a line. */
static int copy_name(struct field field, char *name, int size) {
  int i;
  if (field.len <= 0 || field.len >= size) return 0;
  for (i = 0; i < field.len; i++) {
    if ((unsigned char) field.start[i] < ' ') return 0;
  }
  memcpy(name, field.start, (size_t) field.len);
  name[field.len] = '\0';
  return 1;
}

/* --- what the bus calls, in its own threads --- */

/* What does not fit into the queue of a page that is too slow is counted, and told when it fits. */
static void hand_to(struct mg_connection *conn, struct guest *guest, const char *text, size_t len) {
  char line[40];
  if (guest->missed > 0) {
    int line_len = snprintf(line, sizeof(line), "missed\t%ld", guest->missed);
    if (mg_websocket_write(conn, 1, line, (size_t) line_len) > 0) guest->missed = 0;
  }
  if (guest->missed > 0 || mg_websocket_write(conn, 1, text, len) <= 0) guest->missed++;
}

static void hand_out(struct mg_connection *conn, void *param) {
  const struct batch *batch = param;
  struct guest *guest = conn->connection_param;
  int i;
  if (guest == NULL) return;
  for (i = 0; i < batch->count; i++) {
    const char *at = batch->messages[i].data, *end = at + batch->messages[i].len;
    struct field room = take_field(&at, end);
    if ((size_t) room.len == strlen(guest->room) &&
        memcmp(room.start, guest->room, (size_t) room.len) == 0) {
      hand_to(conn, guest, at, (size_t) (end - at));
    }
  }
}

static void tell_if_changed(struct mg_connection *conn, void *unused) {
  struct guest *guest = conn->connection_param;
  int is_up = bus_is_up(bus);
  const char *line = is_up ? "redis\tup" : "redis\tdown";
  (void) unused;
  if (guest == NULL || guest->was_told_up == is_up) return;
  if (mg_websocket_write(conn, 1, line, strlen(line)) > 0) guest->was_told_up = is_up;
}

/* -1: the thread that polls was busy for long, and none was visited. It polls until the bus has
 * ended, so that it will be done. */
static void visit_guests(void (*visit)(struct mg_connection *, void *), void *param) {
  while (mg_iterate_over_connections(server, visit, param) < 0) {
    fprintf(stderr, "%s: the server is busy\n", server_name);
  }
}

static void on_messages(const struct bus_message *messages, int count) {
  struct batch batch = {messages, count};
  visit_guests(hand_out, &batch);
}

static void on_change(void) { visit_guests(tell_if_changed, NULL); }

/* Any thread may write to any connection, also if it has closed. */
static void on_lost(void *sender, const char *id, const char *reason) {
  char line[BUS_ID_SIZE + 100];
  int len = snprintf(line, sizeof(line), "lost\t%s\t%s", id, reason);
  if (len < 0 || len >= (int) sizeof(line)) return;
  /* -1 means that the guest has gone meanwhile. */
  (void) mg_websocket_write((struct mg_connection *) sender, 1, line, (size_t) len);
}

/* --- what the server calls, in the thread that polls --- */

/* NULL, or why nobody will hear of it. */
static const char *tell_room(struct mg_connection *conn, const struct guest *guest,
                             const char *kind, const char *id, struct field text) {
  char line[MAX_LINE];
  int len = snprintf(line, sizeof(line), "%s\t%s\t%s\t%s\t%s\t%.*s", guest->room, kind, guest->name,
                     server_name, id, text.len, text.start);
  if (len < 0 || len >= (int) sizeof(line)) return "it is too long";
  return bus_publish(bus, conn, id, line, (size_t) len);
}

/* Who comes and goes is told if it can be: nobody waits for it. */
static void announce(const struct guest *guest, const char *kind) {
  static const struct field nothing = {"", 0};
  const char *problem = tell_room(NULL, guest, kind, "", nothing);
  if (problem != NULL && bus_is_up(bus)) {
    fprintf(stderr, "%s: %s is not told: %s\n", server_name, kind, problem);
  }
}

/* The names come in a message and not in the query of the address: messages are checked to be
 * UTF-8, and what is not would end the connections of all others in the room. */
static struct guest *welcome(struct mg_connection *conn) {
  struct guest *guest = calloc(1, sizeof(*guest));
  const char *at = conn->content, *end = at + conn->content_len;
  char line[MAX_NAME + 40];
  int len;
  if (guest == NULL) return NULL;
  if (!copy_name(take_field(&at, end), guest->room, sizeof(guest->room)) ||
      !copy_name(take_field(&at, end), guest->name, sizeof(guest->name))) {
    free(guest);
    return NULL;
  }
  guest->was_told_up = bus_is_up(bus);
  len = snprintf(line, sizeof(line), "welcome\t%s\t%s", server_name,
                 guest->was_told_up ? "up" : "down");
  if (mg_websocket_write(conn, 1, line, (size_t) len) < 0) {
    free(guest);
    return NULL;
  }
  conn->connection_param = guest;
  guest->next = guests;
  guests = guest;
  announce(guest, "join");
  return guest;
}

static void say(struct mg_connection *conn, const struct guest *guest) {
  const char *at = conn->content, *end = at + conn->content_len, *problem;
  char id[BUS_ID_SIZE];
  struct field text;
  if (!copy_name(take_field(&at, end), id, sizeof(id))) return;
  text.start = at;
  text.len = (int) (end - at);
  problem = text.len > MAX_TEXT ? "it is too long" : tell_room(conn, guest, "say", id, text);
  if (problem != NULL) on_lost(conn, id, problem);
}

static int on_chat(struct mg_connection *conn) {
  struct guest *guest = conn->connection_param;
  int opcode = conn->wsbits & 0x0f;
  if (!conn->is_websocket) {
    mg_send_status(conn, 426);
    mg_printf_data(conn, "This address speaks websocket.\n");
    return 1;
  }
  if (opcode == 8) conn->connection_param = NULL;
  if (opcode != 1) return 1;
  if (guest == NULL) return welcome(conn) == NULL;
  say(conn, guest);
  return 0;
}

/* haproxy asks. A server without Redis stays: if Redis is away it is so for all, and this page can
 * still say it. */
static int on_health(struct mg_connection *conn) {
  mg_send_status(conn, is_draining ? 503 : 200);
  mg_send_header(conn, "Content-Type", "text/plain; charset=utf-8");
  mg_printf_data(conn, "server %s %s, Redis %s\n", server_name, is_draining ? "ends" : "serves",
                 bus_is_up(bus) ? "up" : "down");
  return 1;
}

static void mark_as_here(struct mg_connection *conn, void *unused) {
  struct guest *guest = conn->connection_param;
  (void) unused;
  if (guest != NULL) guest->is_here = 1;
}

/* A guest may leave without a word, when his battery is empty: so we look who is still there. */
static void forget_those_who_left(void) {
  struct guest **link = &guests, *guest;
  if (mg_iterate_over_connections(server, mark_as_here, NULL) < 0) return;
  while ((guest = *link) != NULL) {
    if (guest->is_here) {
      guest->is_here = 0;
      link = &guest->next;
    } else {
      *link = guest->next;
      if (!is_draining) announce(guest, "leave");
      free(guest);
    }
  }
}

/* --- the life of the server --- */

/* 1001: the server goes away. Pages connect again at once. */
static void send_away(struct mg_connection *conn, void *unused) {
  (void) unused;
  if (mg_websocket_write(conn, 8, "\x03\xe9", 2) < 0) conn->connection_param = NULL;
}

/* First the port is closed, so that nobody who is sent away can come back here. What was queued is
 * published. The guests have 2 seconds at least. */
static void drain(void) {
  unsigned int now, end = 0;
  const char *problem;
  is_draining = 1;
  problem = mg_set_option(server, "listening_port", NULL);
  if (problem != NULL) fprintf(stderr, "%s: %s\n", server_name, problem);
  if (mg_iterate_over_connections(server, send_away, NULL) < 0) {
    fprintf(stderr, "%s: the guests are not sent away\n", server_name);
  }
  bus_stop(bus);
  for (;;) {
    now = mg_poll_server(server, 20);
    if (end == 0) end = now + 3;
    if (bus_has_ended(bus) && (now >= end || mg_iterate_over_connections(server, NULL, NULL) <= 0)) {
      return;
    }
  }
}

static int set(const char *name, const char *value) {
  const char *problem = mg_set_option(server, name, value);
  if (problem != NULL) fprintf(stderr, "%s=%s: %s\n", name, value, problem);
  return problem == NULL;
}

static int handle(int number) {
  struct sigaction action;
  memset(&action, 0, sizeof(action));
  action.sa_handler = on_signal;
  if (sigaction(number, &action, NULL) == 0) return 1;
  perror("sigaction");
  return 0;
}

static int serve(const char *port, const char *page) {
  unsigned int now, then = 0;
  if (!set("document_root", page) || !set("max_send_queue_bytes", "1048576") ||
      !set("listening_port", port) || !handle(SIGINT) || !handle(SIGTERM)) {
    return 0;
  }
  mg_add_uri_handler(server, "/chat", on_chat);
  mg_add_uri_handler(server, "/health", on_health);
  /* From here on this is the thread that polls, also for what the bus is about to ask. */
  mg_poll_server(server, 0);
  if (!bus_start(bus)) {
    drain();
    return 0;
  }
  printf("Listening on http://127.0.0.1:%s/\n", mg_get_option(server, "listening_port"));
  if (fflush(stdout) != 0) atomic_store(&stop, 1);
  while (!atomic_load(&stop)) {
    now = mg_poll_server(server, 200);
    if (now != then) forget_those_who_left();
    then = now;
  }
  drain();
  return 1;
}

int main(int argc, char *argv[]) {
  struct bus_config config = {0};
  char name[MAX_NAME / 2];
  struct field given;
  int is_good;
  if (argc < 2 || argc > 6) {
    fprintf(stderr, "%s NAME [PORT [PAGE [REDIS_HOST [REDIS_PORT]]]]\n", argv[0]);
    return EXIT_FAILURE;
  }
  given.start = argv[1];
  given.len = (int) strlen(argv[1]);
  if (!copy_name(given, name, sizeof(name))) {
    fprintf(stderr, "Not a name for a server: %s\n", argv[1]);
    return EXIT_FAILURE;
  }
  server_name = name;
  config.name = name;
  config.host = argc > 4 ? argv[4] : "127.0.0.1";
  config.port = argc > 5 ? atoi(argv[5]) : 6379;
  config.password = getenv("REDIS_PASSWORD");
  if (config.password != NULL && config.password[0] == '\0') config.password = NULL;
  config.channel = "chat";
  config.deliver = on_messages;
  config.lost = on_lost;
  config.changed = on_change;
  server = mg_create_server(NULL);
  bus = bus_create(&config);
  is_good = server != NULL && bus != NULL &&
            serve(argc > 2 ? argv[2] : "8080", argc > 3 ? argv[3] : "examples/cluster/page");
  if (bus != NULL) bus_free(bus);
  mg_destroy_server(&server);
  while (guests != NULL) {
    struct guest *next = guests->next;
    free(guests);
    guests = next;
  }
  return is_good ? EXIT_SUCCESS : EXIT_FAILURE;
}
