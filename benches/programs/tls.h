/* The client's side of TLS 1.3 for load.c, on the connected sockets that it is given. The calls are
   like connect, send and recv. Made with OpenSSL where WITH_TLS is defined; elsewhere there is no
   TLS, and `tls_prepare` says so. The certificate of the server is not checked against anything:
   it is the benches' own. */

#ifndef TLS_H
#define TLS_H

#include <sys/types.h>

struct tls;

/* `suite` is the only one that is offered. With `resumes`, a connection resumes the last session
   that a server gave. Returns 0, or -1 if there is no TLS. */
int tls_prepare(const char *suite, int resumes);

/* The handshake takes place within the first calls of tls_send. NULL if there is no memory. */
struct tls *tls_begin(int fd);

ssize_t tls_send(struct tls *tls, const void *data, size_t len);

/* Returns the content of one record at most, and 0 behind the server's close_notify. */
ssize_t tls_recv(struct tls *tls, void *buf, size_t len);

/* Whether a session was to be resumed, and the server refused it. */
int tls_was_refused(const struct tls *tls);

/* Sends nothing. NULL is allowed. */
void tls_end(struct tls *tls);

#endif
