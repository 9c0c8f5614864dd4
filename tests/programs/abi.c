/* The header as a C89 program sees it: layout, types, macros, and each function by its type. */
#include "mongoose.h"
#include "mongoose.h" /* twice does no harm */

#include <stdarg.h>
#include <stdlib.h>

/* An array of negative size where the condition does not hold. */
#define ASSERT_AT(line, condition) typedef char assert_##line[(condition) ? 1 : -1]
#define ASSERT_EXPANDED(line, condition) ASSERT_AT(line, condition)
#define ASSERT(condition) \
  extern char never_defined; ASSERT_EXPANDED(__LINE__, condition)

/* Of two figures that for machines with pointers of 8 bytes, and that for those of 4. */
#define BY_POINTER(eight, four) (sizeof(void *) == 8 ? (size_t) (eight) : (size_t) (four))

#define FIELD_IS(field, offset, size, offset_4, size_4)                                 \
  ASSERT(offsetof(struct mg_connection, field) == BY_POINTER(offset, offset_4) &&       \
         sizeof(((struct mg_connection *) 0)->field) == BY_POINTER(size, size_4))

#ifndef MONGOOSE_HEADER_INCLUDED
#error "the include guard has another name"
#endif

ASSERT(sizeof(void *) == 8 || sizeof(void *) == 4);
FIELD_IS(request_method, 0, 8, 0, 4);
FIELD_IS(uri, 8, 8, 4, 4);
FIELD_IS(http_version, 16, 8, 8, 4);
FIELD_IS(query_string, 24, 8, 12, 4);
FIELD_IS(remote_ip, 32, 48, 16, 48);
FIELD_IS(remote_port, 80, 4, 64, 4);
FIELD_IS(num_headers, 84, 4, 68, 4);
FIELD_IS(http_headers, 88, 480, 72, 240);
FIELD_IS(content, 568, 8, 312, 4);
FIELD_IS(content_len, 576, 4, 316, 4);
FIELD_IS(is_websocket, 580, 4, 320, 4);
FIELD_IS(status_code, 584, 4, 324, 4);
FIELD_IS(wsbits, 588, 1, 328, 1);
FIELD_IS(server_param, 592, 8, 332, 4);
FIELD_IS(connection_param, 600, 8, 336, 4);
ASSERT(sizeof(struct mg_connection) == BY_POINTER(608, 340));
ASSERT(sizeof(struct mg_header) == BY_POINTER(16, 8));
ASSERT(offsetof(struct mg_header, name) == 0);
ASSERT(offsetof(struct mg_header, value) == BY_POINTER(8, 4));

/* How the old `struct mg_server` began: one widely used program walks the list in it. */
struct old_server {
  int listening_socket;
  char address[16];
  void *list[2];
};
ASSERT(offsetof(struct old_server, list) == BY_POINTER(24, 20));

/* Two functions are exported and not declared; old programs declare them like this. */
int mg_vprintf(struct mg_connection *, const char *, va_list, int);
int mg_url_decode(const char *, int, char *, int, int);

/* Each function by its exact type. */
static struct mg_server *(*create)(void *) = mg_create_server;
static void (*destroy)(struct mg_server **) = mg_destroy_server;
static const char *(*set_option)(struct mg_server *, const char *, const char *) = mg_set_option;
static const char *(*get_option)(const struct mg_server *, const char *) = mg_get_option;
static const char **(*names)(void) = mg_get_valid_option_names;
static unsigned int (*poll_server)(struct mg_server *, int) = mg_poll_server;
static void (*add)(struct mg_server *, const char *, mg_handler_t) = mg_add_uri_handler;
static void (*set_error)(struct mg_server *, mg_handler_t) = mg_set_http_error_handler;
static void (*set_socket)(struct mg_server *, int) = mg_set_listening_socket;
static int (*get_socket)(struct mg_server *) = mg_get_listening_socket;
static int (*iterate)(struct mg_server *, void (*)(struct mg_connection *, void *), void *) =
    mg_iterate_over_connections;
static void (*send_status)(struct mg_connection *, int) = mg_send_status;
static void (*send_header)(struct mg_connection *, const char *, const char *) = mg_send_header;
static void (*send_data)(struct mg_connection *, const void *, int) = mg_send_data;
static void (*printf_data)(struct mg_connection *, const char *, ...) = mg_printf_data;
static int (*write_to)(struct mg_connection *, const void *, int) = mg_write;
static int (*printf_to)(struct mg_connection *, const char *, ...) = mg_printf;
static int (*vprintf_to)(struct mg_connection *, const char *, va_list, int) = mg_vprintf;
static int (*websocket_write)(struct mg_connection *, int, const char *, size_t) =
    mg_websocket_write;
static const char *(*get_header)(const struct mg_connection *, const char *) = mg_get_header;
static int (*get_var)(const struct mg_connection *, const char *, char *, size_t) = mg_get_var;
static int (*parse_header)(const char *, const char *, char *, size_t) = mg_parse_header;
static const char *(*mime_type)(const char *) = mg_get_mime_type;
static int (*url_decode)(const char *, int, char *, int, int) = mg_url_decode;
static int (*passwords)(const char *, const char *, const char *, const char *) =
    mg_modify_passwords_file;
static void *(*start_thread)(void *(*) (void *), void *) = mg_start_thread;
static char *(*md5)(char[33], ...) = mg_md5;
static int (*multipart)(const char *, int, char *, int, char *, int, const char **, int *) =
    mg_parse_multipart;

int main(void) {
  int all = create && destroy && set_option && get_option && names && poll_server && add &&
            set_error && set_socket && get_socket && iterate && send_status && send_header &&
            send_data && printf_data && write_to && printf_to && vprintf_to && websocket_write &&
            get_header && get_var && parse_header && mime_type && url_decode && passwords &&
            start_thread && md5 && multipart;
  const char version[] = MONGOOSE_VERSION;
  struct mg_server *server = create(NULL);
  const struct old_server *old = (const struct old_server *) server;
  int made = server != NULL;
  int empty = made && old->list[0] == (const void *) old->list && old->list[1] == old->list[0];

  destroy(&server);
  if (!all) return 2;
  if (!made) return 3;
  if (!empty) return 4;
  if (server != NULL) return 5;
  return sizeof(version) == 4 && version[0] == '5' ? EXIT_SUCCESS : 6;
}
