/* The embedded web server: the whole of its interface.
   Written by cbindgen from the Rust sources (`make header`): changes here get lost. */

#ifndef MONGOOSE_HEADER_INCLUDED
#define MONGOOSE_HEADER_INCLUDED

#include <stdio.h>
#include <stddef.h>

#define MONGOOSE_VERSION "5.0"

#ifdef __cplusplus
extern "C" {
#endif

/* Compilers warn where a format and its arguments do not fit. Define MONGOOSE_NO_FORMAT_CHECKS for
   programs that are built with -Werror=format-security and pass formats that are no literals. */
#if defined(__GNUC__) && !defined(MONGOOSE_NO_FORMAT_CHECKS)
#define MONGOOSE_PRINTF __attribute__((__format__(__printf__, 2, 3)))
#else
#define MONGOOSE_PRINTF
#endif
#if defined(__GNUC__)
#define MONGOOSE_SENTINEL __attribute__((__sentinel__))
#else
#define MONGOOSE_SENTINEL
#endif

/** A web server. What is in it is the library's own. */
struct mg_server;

/**
 * A connection and its request, as a handler sees them.
 *
 * The program may write `connection_param`, `content` and the one byte behind it; all else is
 * read-only. Strings belong to the library and live until the handler returns or, if the
 * response is continued later, until that response is complete; afterwards they are empty strings,
 * `query_string` is NULL and `num_headers` 0.
 */
struct mg_connection {
  /** "GET", "POST", "PROPFIND", ... */
  const char *request_method;
  /** Path of the request, percent-decoded, dot segments removed. */
  const char *uri;
  /** "1.0" or "1.1". */
  const char *http_version;
  /** Undecoded text behind `?`, or NULL if the target has no `?`. */
  const char *query_string;
  /** Textual address of the peer; an IPv4-mapped IPv6 address is shown as IPv4. */
  char remote_ip[48];
  /** Port of the peer, in host byte order. */
  int remote_port;
  /** Number of entries in `http_headers`, 0 to 30. */
  int num_headers;
  /** The first 30 header fields. */
  struct mg_header {
    const char *name;
    const char *value;
  } http_headers[30];
  /**
   * Content of the request, or payload of the websocket message. A writable NUL follows its last
   * byte.
   */
  char *content;
  /** Number of bytes in `content`. */
  int content_len;
  /** 1 on a websocket connection, else 0. */
  int is_websocket;
  /** Inside the HTTP error handler: the error. Elsewhere 0, then the status of `mg_send_status`. */
  int status_code;
  /** First byte of the websocket frame; 0 on HTTP. */
  unsigned char wsbits;
  /** Argument of `mg_create_server`. */
  void *server_param;
  /**
   * Pointer for the program's own use. NULL when the connection is accepted, and kept until it
   * closes.
   */
  void *connection_param;
};

/**
 * A request handler. For HTTP its return value is ignored; for websocket messages non-zero
 * closes the connection; for the HTTP error handler 0 asks for the standard error page.
 *
 * It runs on the thread that polls the server. It may call any function of this library, and a
 * C++ handler may throw: the exception passes through `mg_poll_server`.
 */
typedef int (*mg_handler_t)(struct mg_connection *conn);

/**
 * Creates a server. It does nothing until it is given options and polled: no socket and no file is
 * opened here. `server_param` may be anything, also NULL; handlers see it as
 * `conn->server_param`. C++ programs pass `this`.
 *
 * Returns NULL when there is no memory. The server is freed by mg_destroy_server().
 *
 * SIGPIPE is ignored from now on. Any thread may call this.
 */
struct mg_server *mg_create_server(void *server_param);

/**
 * Closes every connection, frees the server and sets `*server` to NULL. NULL and a pointer to
 * NULL are allowed.
 *
 * Called from inside a handler of this server, from another thread or from a signal handler while
 * mg_poll_server() runs, it sets `*server` to NULL and returns, and the running poll frees the
 * server when it ends. Threads that wait in mg_iterate_over_connections() are released.
 * Pointers to connections may still be passed to mg_write() and mg_websocket_write() afterwards,
 * which then do nothing.
 */
void mg_destroy_server(struct mg_server **server);

/**
 * Sets an option by its name. `value` is copied. NULL or "" unsets the option or resets it to
 * its default.
 *
 * Returns NULL if the option is set, else a static English sentence that says why not; then the
 * old value stays. `listening_port` binds at once, `run_as_user` changes the user at once,
 * and the files that `ssl_certificate`, `ssl_certificates` and `ssl_ca_certificate` name are read
 * at once, also if they are the same as before. If one is refused and there is no older one, plain
 * HTTP is answered with 503 from then on, until a valid one is set or the option is unset.
 *
 * To be called by the thread that polls, between polls or inside handlers. From another thread
 * during a poll the call is handed to the polling thread and waited for.
 */
const char *mg_set_option(struct mg_server *server, const char *name, const char *value);

/**
 * Returns the value of an option, which is its default if it was not set. For `listening_port`
 * this is the port that was bound.
 *
 * Returns NULL for an unknown name, "" for an option that is unset. The string stays valid for
 * ever, and does not change when the option does.
 *
 * To be called by the thread that polls; see mg_set_option().
 */
const char *mg_get_option(const struct mg_server *server, const char *name);

/**
 * Runs one turn of the server's loop: waits up to `milliseconds` for an event (0: does not wait;
 * negative counts as 0), then accepts, reads, calls handlers and writes. To be called in a loop,
 * by one thread.
 *
 * Returns the time in seconds since 1970. With NULL it sleeps. Called from inside a handler of
 * the same server, or while another thread polls it, it returns at once. A C++ exception that
 * leaves a handler passes through; the next poll goes on, without that handler's connection.
 */
unsigned int mg_poll_server(struct mg_server *server, int milliseconds);

/**
 * Adds a handler for every request whose path begins with `uri`, byte for byte; "/" matches all.
 * Of several that match, the one added last is called. `uri` is copied.
 *
 * The handler runs inside mg_poll_server(), once the whole request is there. One that is added
 * inside a handler counts from the next request on. It sees all methods.
 *
 * To be called by the thread that polls; see mg_set_option().
 */
void mg_add_uri_handler(struct mg_server *server, const char *uri, mg_handler_t handler);

/**
 * Sets the handler that is called before every error response (4xx and 5xx, except 401); NULL
 * removes it. `conn->status_code` is the error. If the handler returns 0, its output is dropped
 * and the standard response is sent; otherwise its output is the response.
 *
 * To be called by the thread that polls; see mg_set_option().
 */
void mg_set_http_error_handler(struct mg_server *server, mg_handler_t handler);

/**
 * Listens on `sock`, a bound and listening socket, in place of the one so far; -1 stops listening.
 * The socket may be one that another server uses already: then both accept from it, each in its
 * own thread. It is closed when the last server that uses it is freed, unless the descriptor is
 * another file by then. A descriptor that is no socket is refused; the error log says so.
 *
 * To be called by the thread that polls; see mg_set_option().
 */
void mg_set_listening_socket(struct mg_server *server, int sock);

/**
 * Returns the listening socket, or -1 if there is none. It still belongs to the server.
 *
 * To be called by the thread that polls; see mg_set_option().
 */
int mg_get_listening_socket(struct mg_server *server);

/**
 * Calls `func` for each open websocket (each open connection, if the option `iterate_over` is
 * "all"), with `param` passed through. Those that close meanwhile are skipped, none is visited
 * twice. `func` may write to the connection; `conn->content` is "" there, or the last message of
 * the websocket where the option `iterate_content` is "last". With `func` NULL the connections are
 * only counted.
 *
 * Any thread may call this at any time: `func` then runs on the thread that polls, and the call
 * returns when that is done. On the polling thread itself, and while no thread has polled yet, it
 * runs in place.
 *
 * Returns the number of connections that were visited; -1 for NULL, when the polling thread has not
 * begun within `iterate_timeout_ms` or does not go on for so long, or when the server is destroyed.
 */
int mg_iterate_over_connections(struct mg_server *server, void (*func)(struct mg_connection *conn,
                                                                       void *param), void *param);

/**
 * Sends `len` bytes as they stand, as part of a response whose status line, header and content the
 * program writes itself. The bytes are copied. The header of the response decides whether the
 * connection stays open.
 *
 * Returns `len`, or 0 if nothing was queued: no request waits for a response, the connection has
 * closed, `max_send_queue_bytes` would be exceeded, or there is no memory. The bytes are never
 * queued in part.
 *
 * Any thread may call this at any time, also with a connection that has closed.
 */
int mg_write(struct mg_connection *conn, const void *buf, int len);

/**
 * Sends one websocket frame with the given opcode (0 to 15) and payload. The bytes are copied.
 *
 * Returns the number of bytes queued, frame header included, or -1 on failure and on a
 * connection that is no websocket.
 *
 * Any thread may call this at any time, also with a connection that has closed.
 */
int mg_websocket_write(struct mg_connection *conn, int opcode, const char *data, size_t data_len);

/**
 * Begins a response with a status, 100 to 999; other numbers do nothing. Optional: without this
 * call the status is 200, or the error inside the HTTP error handler. Only the first call counts.
 *
 * mg_send_status(), mg_send_header() and mg_send_data() build a response whose framing the
 * library chooses: chunks for HTTP/1.1. To be called by the thread that polls.
 */
void mg_send_status(struct mg_connection *conn, int status_code);

/**
 * Adds a header field to the response. Name and value are copied; a field with a line break is
 * dropped. To be called before mg_send_data(), by the thread that polls.
 */
void mg_send_header(struct mg_connection *conn, const char *name, const char *value);

/**
 * Sends a piece of the content. The first call sends the header. The bytes are copied. The
 * response ends when the handler returns; a response that is continued later ends with a call of
 * length 0. Where there is no room for a piece (`max_send_queue_bytes`, `max_buffered_bytes`), nothing
 * more is taken and the connection closes, so that the client does not take the response for a whole one.
 *
 * To be called by the thread that polls.
 */
void mg_send_data(struct mg_connection *conn,
                  const void *data,
                  int data_len);

/**
 * Sends a formatted text as it stands, like `mg_write`. The format is that of `printf`, and
 * the text may have any length up to `INT_MAX`.
 *
 * Any thread may call this at any time, also with a connection that has closed.
 *
 * Returns the length of the text, 0 when the bytes were not queued, or -1 when the format
 * could not be carried out.
 */
int mg_printf(struct mg_connection *conn, const char *format, ...) MONGOOSE_PRINTF;

/**
 * Sends a formatted text as part of the content, like `mg_send_data`. The format is that of
 * `printf`.
 *
 * To be called where `mg_send_data` may be called.
 */
void mg_printf_data(struct mg_connection *conn, const char *format, ...) MONGOOSE_PRINTF;

/**
 * Writes the MD5 of all given strings joined to `buf`: 32 lower-case hexadecimal digits and
 * a NUL. The last argument must be `NULL`, written as a pointer: `(char *) 0` where `NULL` is
 * a plain 0.
 *
 * Any thread may call this. Returns `buf`, and does nothing when that is `NULL`.
 */
char *mg_md5(char buf[33], ...) MONGOOSE_SENTINEL;

/**
 * Returns the value of a header field of the request, or NULL if the request has none of this
 * name. Names compare in any case; of several fields the first counts. Only the first 30 fields
 * of a request are looked at.
 *
 * The value belongs to the library and lives as long as the request, see `struct mg_connection`;
 * a connection without a request has no fields. To be called on the thread that polls the server.
 */
const char *mg_get_header(const struct mg_connection *conn, const char *name);

/**
 * Finds a form variable, in the query string first, then in the content of the request. Names
 * compare in any case. The decoded value is written to `buf`, followed by a NUL.
 *
 * Returns the length of the value without the NUL, -1 if there is no such variable, -2 if `buf`
 * is too small (it then holds what fits), NULL or of size 0. `buf` is always terminated if it
 * has any size. To be called on the thread that polls the server.
 */
int mg_get_var(const struct mg_connection *conn, const char *name, char *buf, size_t buf_len);

/**
 * Finds a value in the text of a header field such as `x=123, y=345, z="other value"`: Cookie,
 * Authorization and the like. The value is written to `buf`, without its quotes and followed by
 * a NUL.
 *
 * A name counts at the start of the text and after a space, a comma or a semicolon. Returns the
 * length of the value without the NUL; 0 if it is empty, if there is no such name, if a quote
 * has no end, or if the value does not fit. Then `buf` is an empty string, if it has any size.
 * May be called from any thread.
 */
int mg_parse_header(const char *hdr, const char *name, char *buf, size_t buf_size);

/**
 * Returns the media type for a file name, by its extension in any case; "text/plain" for an
 * unknown extension, and for NULL. The string is constant. May be called from any thread.
 */
const char *mg_get_mime_type(const char *file_name);

/**
 * Adds a user to a password file, changes the password, or deletes the user if `password` is NULL.
 * The file is created if it does not exist.
 *
 * All other lines stay as they are. The file is replaced in one step, keeps its mode, and is
 * locked against a second writer. Returns 1 on success; 0 if the file cannot be written, or if
 * `domain` or `user` is NULL, empty, or contains a colon or a line break. On failure the file is
 * as before. The call returns when the new file is on the disk, which may take some milliseconds,
 * for which a handler keeps all clients waiting. May be called from any thread.
 */
int mg_modify_passwords_file(const char *file,
                             const char *domain,
                             const char *user,
                             const char *password);

/**
 * Runs `func(param)` in a new thread. The thread is detached: its resources are freed when `func`
 * returns, without any further call.
 *
 * Returns the thread's `pthread_t`, cast to a pointer, or NULL if the thread could not be started
 * or `func` is NULL. While the thread runs it may be cast back, for pthread_equal() and
 * pthread_kill(), for example. To wait for a detached thread is not possible: pthread_join() fails
 * at once (EINVAL with glibc; musl ends the program), and must not be called after the thread has
 * ended. A program that has to wait uses a mutex and a condition variable of its own.
 *
 * `param` stays with the caller. May be called from any thread.
 */
void *mg_start_thread(void *(*func)(void *param), void *param);

/**
 * Reads one part of an uploaded form, whose content is of type multipart/form-data. `buf` must
 * begin with a boundary line, as the content of such a request does.
 *
 * Returns the offset behind the part; to read the next part, add it to `buf` and subtract it from
 * `buf_len`. Returns 0 at the end, and if the content is malformed or not complete; then the names
 * are empty and `data` is NULL.
 *
 * `var_name` gets the name of the form field and `file_name` the name of the file as the client
 * gives it, terminated; empty strings if there is none, and if it does not fit. A file name may
 * contain slashes and "..": it must be checked before it is used as a path. A backslash before a
 * quote, as some clients write it, is left out, any other stays; `%22`, which browsers write for a
 * quote, is not decoded. Either buffer may be NULL with length 0. `data` points into `buf`, is not
 * terminated, and belongs to the caller as `buf` does; `data` and `data_len` may be NULL. May be
 * called from any thread.
 */
int mg_parse_multipart(const char *buf,
                       int buf_len,
                       char *var_name,
                       int var_name_len,
                       char *file_name,
                       int file_name_len,
                       const char **data,
                       int *data_len);

/**
 * Returns the names and defaults of all options: name, default, name, default, and so on, closed
 * by NULL. A default is NULL where the option is unset. The array is constant. May be called
 * from any thread.
 */
const char **mg_get_valid_option_names(void);

#undef MONGOOSE_PRINTF
#undef MONGOOSE_SENTINEL

#ifdef __cplusplus
}
#endif

#endif
