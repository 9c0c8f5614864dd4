/* See tls.h. */

#include "tls.h"

#include <stddef.h>

#ifndef WITH_TLS

int tls_prepare(const char *suite, int resumes) {
  (void) suite, (void) resumes;
  return -1;
}

struct tls *tls_begin(int fd) {
  (void) fd;
  return NULL;
}

ssize_t tls_send(struct tls *tls, const void *data, size_t len) {
  (void) tls, (void) data, (void) len;
  return -1;
}

ssize_t tls_recv(struct tls *tls, void *buf, size_t len) {
  (void) tls, (void) buf, (void) len;
  return -1;
}

int tls_was_refused(const struct tls *tls) {
  (void) tls;
  return 0;
}

void tls_end(struct tls *tls) {
  (void) tls;
}

#else

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>

enum { READ_AHEAD = 1 << 17 };

struct tls {
  SSL *ssl;
  int resumes;
};

static SSL_CTX *context;
static SSL_SESSION *latest;

/* OpenSSL does not resume a session after a connection of it has failed, be it as it ends. Hence
   the copies. */
static int keep_session(SSL *ssl, SSL_SESSION *session) {
  SSL_SESSION *copy = SSL_SESSION_dup(session);
  (void) ssl;
  if (copy == NULL) return 0;
  SSL_SESSION_free(latest);
  latest = copy;
  return 0;
}

/* Returns whether a session is to be resumed. */
static int set_session(SSL *ssl) {
  SSL_SESSION *copy = latest != NULL ? SSL_SESSION_dup(latest) : NULL;
  int is_set = copy != NULL && SSL_set_session(ssl, copy);
  SSL_SESSION_free(copy);
  return is_set;
}

int tls_prepare(const char *suite, int resumes) {
  context = SSL_CTX_new(TLS_client_method());
  if (context == NULL || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
      !SSL_CTX_set_ciphersuites(context, suite) ||
      !SSL_CTX_set1_groups_list(context, "X25519")) {
    return -1;
  }
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_RELEASE_BUFFERS);
  /* One call for many records: the client is to be the cheap side. */
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_default_read_buffer_len(context, READ_AHEAD);
  if (resumes) {
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep_session);
  }
  return 0;
}

struct tls *tls_begin(int fd) {
  struct tls *tls = malloc(sizeof *tls);
  if (tls == NULL) return NULL;
  tls->ssl = SSL_new(context);
  if (tls->ssl == NULL || !SSL_set_fd(tls->ssl, fd)) {
    tls_end(tls);
    return NULL;
  }
  SSL_set_connect_state(tls->ssl);
  tls->resumes = set_session(tls->ssl);
  return tls;
}

/* What send and recv would return. */
static ssize_t outcome(const struct tls *tls, int n) {
  if (n > 0) return n;
  switch (SSL_get_error(tls->ssl, n)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
    case SSL_ERROR_ZERO_RETURN: return 0;
    default: ERR_clear_error(); errno = EPROTO; return -1;
  }
}

static int at_most(size_t len) {
  return len < 1 << 30 ? (int) len : 1 << 30;
}

ssize_t tls_send(struct tls *tls, const void *data, size_t len) {
  return outcome(tls, SSL_write(tls->ssl, data, at_most(len)));
}

ssize_t tls_recv(struct tls *tls, void *buf, size_t len) {
  return outcome(tls, SSL_read(tls->ssl, buf, at_most(len)));
}

int tls_was_refused(const struct tls *tls) {
  return tls->resumes && SSL_is_init_finished(tls->ssl) && !SSL_session_reused(tls->ssl);
}

void tls_end(struct tls *tls) {
  if (tls == NULL) return;
  SSL_free(tls->ssl);
  free(tls);
}

#endif
