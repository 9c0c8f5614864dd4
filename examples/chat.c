/* A chat with rooms over websockets. Open it in two windows.
 *
 *   cc chat.c -o chat -lmongoose && ./chat 8080 examples/chat
 *
 * The page opens a websocket at /chat and sends texts: first "room TAB name", then what its guest
 * says. Everybody in the room is sent lines of the form "kind TAB name TAB text".
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mongoose.h"

enum { MAX_TEXT = 2000, MAX_NAME = 80 };

/* What we know of a guest. It hangs on connection_param, and in a list. */
struct guest {
  char room[MAX_NAME + 1];
  char name[MAX_NAME + 1];
  int is_here;
  struct guest *next;
};

struct line {
  const char *room;
  char text[MAX_TEXT + MAX_NAME + 16];
  int len;
};

static volatile sig_atomic_t stop;
static struct mg_server *server;
static struct guest *guests;

static void on_signal(int number) {
  (void) number;
  stop = 1;
}

static void send_if_in_room(struct mg_connection *conn, void *param) {
  const struct line *line = (const struct line *) param;
  const struct guest *guest = (const struct guest *) conn->connection_param;
  if (guest != NULL && strcmp(guest->room, line->room) == 0) {
    /* -1: this guest reads too slowly, or is about to leave. The others do not wait. */
    (void) mg_websocket_write(conn, 1, line->text, (size_t) line->len);
  }
}

static void tell_room(const struct guest *guest, const char *kind, const char *text, int len) {
  struct line line;
  line.room = guest->room;
  line.len = snprintf(line.text, sizeof(line.text), "%s\t%s\t%.*s", kind, guest->name, len, text);
  if (line.len >= (int) sizeof(line.text)) return;
  /* On the thread that polls this is done in place, and has nothing to wait for. */
  (void) mg_iterate_over_connections(server, send_if_in_room, &line);
}

/* 0 if it is empty or too long. What would look like the end of a name becomes a space. */
static int copy_name(char *name, const char *from, int len) {
  int i;
  if (len <= 0 || len > MAX_NAME) return 0;
  for (i = 0; i < len; i++) name[i] = (unsigned char) from[i] < ' ' ? ' ' : from[i];
  name[len] = '\0';
  return 1;
}

/* Reads the first message. Names are in a message and not in the query of the address, since
 * messages are checked to be UTF-8: what is not would end the connections of all others. */
static struct guest *welcome(struct mg_connection *conn) {
  struct guest *guest = (struct guest *) calloc(1, sizeof(*guest));
  const char *tab = (const char *) memchr(conn->content, '\t', (size_t) conn->content_len);
  int room_len = tab == NULL ? 0 : (int) (tab - conn->content);
  if (guest == NULL) return NULL;
  if (!copy_name(guest->room, conn->content, room_len) ||
      !copy_name(guest->name, tab + 1, conn->content_len - room_len - 1)) {
    free(guest);
    return NULL;
  }
  conn->connection_param = guest;
  guest->next = guests;
  guests = guest;
  tell_room(guest, "join", "", 0);
  return guest;
}

static void mark_as_here(struct mg_connection *conn, void *unused) {
  struct guest *guest = (struct guest *) conn->connection_param;
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
      tell_room(guest, "leave", "", 0);
      free(guest);
    }
  }
}

static int on_chat(struct mg_connection *conn) {
  struct guest *guest = (struct guest *) conn->connection_param;
  int opcode = conn->wsbits & 0x0f;
  if (!conn->is_websocket) {
    mg_send_status(conn, 426);
    mg_printf_data(conn, "This address speaks websocket.\n");
    return 1;
  }
  if (opcode == 8) conn->connection_param = NULL;
  if (opcode != 1) return 1;
  if (guest == NULL) return welcome(conn) == NULL;
  if (conn->content_len > 0 && conn->content_len <= MAX_TEXT) {
    tell_room(guest, "say", conn->content, conn->content_len);
  }
  return 0;
}

static int set(const char *name, const char *value) {
  const char *problem = mg_set_option(server, name, value);
  if (problem != NULL) fprintf(stderr, "%s=%s: %s\n", name, value, problem);
  return problem == NULL;
}

int main(int argc, char *argv[]) {
  unsigned int now, then = 0;
  server = mg_create_server(NULL);
  if (!set("document_root", argc > 2 ? argv[2] : "examples/chat") ||
      !set("listening_port", argc > 1 ? argv[1] : "8080")) {
    mg_destroy_server(&server);
    return EXIT_FAILURE;
  }
  mg_add_uri_handler(server, "/chat", on_chat);
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  printf("Listening on http://127.0.0.1:%s/\n", mg_get_option(server, "listening_port"));
  fflush(stdout);
  while (!stop) {
    now = mg_poll_server(server, 1000);
    if (now != then) forget_those_who_left();
    then = now;
  }
  mg_destroy_server(&server);
  return EXIT_SUCCESS;
}
