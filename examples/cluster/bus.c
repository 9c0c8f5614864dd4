/* pthread_sigmask, rand_r and the like, also where the compiler is told to know C alone. */
#define _POSIX_C_SOURCE 200809L

#include "bus.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include <hiredis/hiredis.h>

enum {
  MAX_QUEUED = 1000,
  BATCH = 64,
  CONNECT_TIMEOUT_S = 2,
  ANSWER_TIMEOUT_S = 4,
  /* A connection that is silent for as long is asked whether it is still there. */
  SILENCE_MS = 5000,
  FIRST_WAIT_MS = 100,
  MAX_WAIT_MS = 3000
};

struct outgoing {
  struct outgoing *next;
  void *sender;
  char id[BUS_ID_SIZE];
  size_t len;
  char data[];
};

/* A thread with its connection. What is written to its pipe wakes it. */
struct worker {
  struct bus *bus;
  const char *task;
  pthread_t thread;
  int is_started;
  int pipe[2];
  int is_connected; /* guarded by the lock, as is `has_ended` */
  int has_ended;
  int wait_ms;
  unsigned int seed;
  char last_problem[160];
};

struct bus {
  struct bus_config config;
  struct worker publisher, subscriber;
  pthread_mutex_t lock;
  struct outgoing *first, **end; /* guarded by the lock, as is all that follows */
  int queued;
  int is_stopping;
};

/* An error here is one of the program: a lock that was never made, or is taken twice. */
static void lock(struct bus *bus) {
  if (pthread_mutex_lock(&bus->lock) != 0) abort();
}

static void unlock(struct bus *bus) {
  if (pthread_mutex_unlock(&bus->lock) != 0) abort();
}

static int is_stopping(struct bus *bus) {
  int stopping;
  lock(bus);
  stopping = bus->is_stopping;
  unlock(bus);
  return stopping;
}

int bus_is_up(struct bus *bus) {
  int is_up;
  lock(bus);
  is_up = bus->publisher.is_connected && bus->subscriber.is_connected;
  unlock(bus);
  return is_up;
}

/* A pipe that is full wakes as well. */
static void wake(struct worker *worker) {
  ssize_t written;
  if (worker->pipe[1] < 0) return;
  do written = write(worker->pipe[1], "", 1);
  while (written < 0 && errno == EINTR);
  if (written < 0 && errno != EAGAIN) perror("a pipe of the bus");
}

static void empty_pipe(struct worker *worker) {
  char bytes[64];
  ssize_t got;
  do got = read(worker->pipe[0], bytes, sizeof(bytes));
  while (got == (ssize_t) sizeof(bytes) || (got < 0 && errno == EINTR));
}

/* The same problem is told once, however often it is met. */
static void complain(struct worker *worker, const char *problem) {
  if (strcmp(worker->last_problem, problem) == 0) return;
  snprintf(worker->last_problem, sizeof(worker->last_problem), "%s", problem);
  fprintf(stderr, "%s: Redis, %s: %s\n", worker->bus->config.name, worker->task, problem);
}

static void free_all(struct outgoing *message) {
  while (message != NULL) {
    struct outgoing *next = message->next;
    free(message);
    message = next;
  }
}

/* Tells the senders, and frees the messages. */
static void lose(struct bus *bus, struct outgoing *message, const char *reason) {
  struct outgoing *each;
  for (each = message; each != NULL; each = each->next) {
    if (each->sender != NULL) bus->config.lost(each->sender, each->id, reason);
  }
  free_all(message);
}

static struct outgoing *take_queue(struct bus *bus) {
  struct outgoing *first;
  lock(bus);
  first = bus->first;
  bus->first = NULL;
  bus->end = &bus->first;
  bus->queued = 0;
  unlock(bus);
  return first;
}

static void set_connected(struct worker *worker, int is_connected) {
  struct bus *bus = worker->bus;
  lock(bus);
  worker->is_connected = is_connected;
  unlock(bus);
  if (is_connected) {
    if (worker->last_problem[0] != '\0') complain(worker, "connected again");
    worker->last_problem[0] = '\0';
    worker->wait_ms = FIRST_WAIT_MS;
  }
  bus->config.changed();
}

/* Whether the answer to a command is there and no error. */
static int is_good(struct worker *worker, redisContext *redis, redisReply *reply) {
  int good = reply != NULL && reply->type != REDIS_REPLY_ERROR;
  if (!good) complain(worker, reply != NULL ? reply->str : redis->errstr);
  if (reply != NULL) freeReplyObject(reply);
  return good;
}

/* NULL if there is none. A password that is not right is a problem like any other: the right one
 * may be set later. */
static redisContext *connect_to_redis(struct worker *worker) {
  const struct bus_config *config = &worker->bus->config;
  const struct timeval connect_timeout = {CONNECT_TIMEOUT_S, 0}, timeout = {ANSWER_TIMEOUT_S, 0};
  int is_local = config->host[0] == '/';
  redisContext *redis =
      is_local ? redisConnectUnixWithTimeout(config->host, connect_timeout)
               : redisConnectWithTimeout(config->host, config->port, connect_timeout);
  if (redis == NULL) {
    complain(worker, "no memory");
    return NULL;
  }
  if (redis->err != 0 || redisSetTimeout(redis, timeout) != REDIS_OK ||
      (!is_local && redisEnableKeepAlive(redis) != REDIS_OK)) {
    complain(worker, redis->errstr);
  } else if (config->password == NULL ||
             is_good(worker, redis, redisCommand(redis, "AUTH %s", config->password))) {
    return redis;
  }
  redisFree(redis);
  return NULL;
}

/* Waits before the next attempt, longer each time, and not all servers equally long: else a Redis
 * that has just started would meet them all at once. */
static void wait_before_retry(struct worker *worker) {
  struct pollfd woken = {worker->pipe[0], POLLIN, 0};
  int wait_ms = worker->wait_ms / 2 + rand_r(&worker->seed) % (worker->wait_ms / 2 + 1);
  if (poll(&woken, 1, wait_ms) > 0) empty_pipe(worker);
  worker->wait_ms = worker->wait_ms * 2 < MAX_WAIT_MS ? worker->wait_ms * 2 : MAX_WAIT_MS;
}

static void end_worker(struct worker *worker) {
  lock(worker->bus);
  worker->has_ended = 1;
  unlock(worker->bus);
}

/* --- the subscriber --- */

static int get_message(const redisReply *reply, struct bus_message *message) {
  const redisReply *kind, *payload;
  if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3) return 0;
  kind = reply->element[0];
  payload = reply->element[2];
  if (kind->type != REDIS_REPLY_STRING || payload->type != REDIS_REPLY_STRING ||
      strcmp(kind->str, "message") != 0) {
    return 0;
  }
  message->data = payload->str;
  message->len = (size_t) payload->len;
  return 1;
}

/* Passes on what has come, many messages at a time if many have. 0: the connection is of no use. */
static int deliver_received(struct worker *worker, redisContext *redis) {
  struct bus_message messages[BATCH];
  redisReply *replies[BATCH];
  int count, used, i, is_good_so_far = 1;
  do {
    for (count = used = 0; count < BATCH; count++) {
      void *reply = NULL;
      is_good_so_far = redisReaderGetReply(redis->reader, &reply) == REDIS_OK;
      if (reply == NULL) break;
      replies[count] = reply;
      used += get_message(replies[count], &messages[used]);
    }
    if (used > 0) worker->bus->config.deliver(messages, used);
    for (i = 0; i < count; i++) freeReplyObject(replies[i]);
  } while (count == BATCH);
  if (!is_good_so_far) complain(worker, redis->reader->errstr);
  return is_good_so_far;
}

static int send_ping(struct worker *worker, redisContext *redis) {
  int is_sent = 0;
  if (redisAppendCommand(redis, "PING") == REDIS_OK) {
    while (!is_sent && redisBufferWrite(redis, &is_sent) == REDIS_OK) continue;
  }
  if (!is_sent) complain(worker, redis->errstr);
  return is_sent;
}

/* Returns when the connection is lost, or the bus is to end. Without pings nobody would notice that
 * the other machine has gone without a word. */
static void receive(struct worker *worker, redisContext *redis) {
  struct pollfd ready[2] = {{redis->fd, POLLIN, 0}, {worker->pipe[0], POLLIN, 0}};
  int is_asked = 0, count;
  while (!is_stopping(worker->bus)) {
    count = poll(ready, 2, SILENCE_MS);
    if (count < 0 && errno != EINTR) {
      complain(worker, strerror(errno));
      return;
    }
    if (count == 0) {
      if (is_asked) {
        complain(worker, "no answer");
        return;
      }
      if (!send_ping(worker, redis)) return;
      is_asked = 1;
    } else if (count > 0 && ready[0].revents != 0) {
      if (redisBufferRead(redis) != REDIS_OK) {
        complain(worker, redis->errstr);
        return;
      }
      if (!deliver_received(worker, redis)) return;
      is_asked = 0;
    }
  }
}

static void *subscribe(void *param) {
  struct worker *worker = param;
  struct bus *bus = worker->bus;
  while (!is_stopping(bus)) {
    redisContext *redis = connect_to_redis(worker);
    if (redis != NULL &&
        is_good(worker, redis, redisCommand(redis, "SUBSCRIBE %s", bus->config.channel))) {
      set_connected(worker, 1);
      /* Messages may have come together with the answer. */
      if (deliver_received(worker, redis)) receive(worker, redis);
      set_connected(worker, 0);
    }
    if (redis != NULL) redisFree(redis);
    if (!is_stopping(bus)) wait_before_retry(worker);
  }
  end_worker(worker);
  return NULL;
}

/* --- the publisher --- */

/* Publishes all in one go and reads the answers, in the same order. 0: the connection is of no use.
 * A message whose answer is missing may have arrived or not. It is not sent again, since then it
 * might arrive twice. */
static int publish_queue(struct worker *worker, redisContext *redis) {
  struct bus *bus = worker->bus;
  struct outgoing *message = take_queue(bus), *each;
  for (each = message; each != NULL; each = each->next) {
    if (redisAppendCommand(redis, "PUBLISH %s %b", bus->config.channel, each->data, each->len) !=
        REDIS_OK) {
      complain(worker, redis->errstr);
      lose(bus, message, "no memory");
      return 0;
    }
  }
  while (message != NULL) {
    void *answer = NULL;
    redisReply *reply;
    if (redisGetReply(redis, &answer) != REDIS_OK || answer == NULL) {
      complain(worker, redis->errstr);
      lose(bus, message, "the connection to Redis is lost");
      return 0;
    }
    reply = answer;
    each = message;
    message = message->next;
    each->next = NULL;
    if (reply->type == REDIS_REPLY_INTEGER && reply->integer > 0) {
      free(each);
    } else {
      int is_error = reply->type == REDIS_REPLY_ERROR;
      lose(bus, each, is_error ? "Redis has refused it" : "no server has heard it");
      if (is_error) complain(worker, reply->str);
    }
    freeReplyObject(reply);
  }
  return 1;
}

static void *publish(void *param) {
  struct worker *worker = param;
  struct bus *bus = worker->bus;
  while (!is_stopping(bus)) {
    redisContext *redis = connect_to_redis(worker);
    if (redis != NULL) {
      struct pollfd ready[2] = {{redis->fd, POLLIN, 0}, {worker->pipe[0], POLLIN, 0}};
      int is_alive = 1, is_last = 0;
      set_connected(worker, 1);
      while (is_alive && !is_last) {
        /* Redis says nothing here unless it is asked: that is the end of the connection. */
        if (poll(ready, 2, -1) < 0 && errno != EINTR) {
          complain(worker, strerror(errno));
          break;
        }
        /* In this order: what comes behind the look wakes again. */
        empty_pipe(worker);
        is_last = is_stopping(bus);
        if (ready[0].revents != 0) {
          complain(worker, "the connection is lost");
          break;
        }
        is_alive = publish_queue(worker, redis);
      }
      redisFree(redis);
      set_connected(worker, 0);
      /* From here on nothing more is queued. */
      lose(bus, take_queue(bus), "the connection to Redis is lost");
    }
    if (!is_stopping(bus)) wait_before_retry(worker);
  }
  end_worker(worker);
  return NULL;
}

/* --- for the other threads --- */

const char *bus_publish(struct bus *bus, void *sender, const char *id, const char *data,
                        size_t len) {
  struct outgoing *message = malloc(sizeof(*message) + len);
  const char *problem = NULL;
  if (message == NULL) return "no memory";
  message->next = NULL;
  message->sender = sender;
  snprintf(message->id, sizeof(message->id), "%s", id);
  message->len = len;
  memcpy(message->data, data, len);
  lock(bus);
  if (bus->is_stopping) {
    problem = "the server is about to end";
  } else if (!bus->publisher.is_connected || !bus->subscriber.is_connected) {
    problem = "there is no connection to Redis";
  } else if (bus->queued >= MAX_QUEUED) {
    problem = "too many messages wait for Redis";
  } else {
    *bus->end = message;
    bus->end = &message->next;
    bus->queued++;
  }
  unlock(bus);
  if (problem != NULL) {
    free(message);
  } else {
    wake(&bus->publisher);
  }
  return problem;
}

void bus_stop(struct bus *bus) {
  lock(bus);
  bus->is_stopping = 1;
  unlock(bus);
  wake(&bus->publisher);
  wake(&bus->subscriber);
}

int bus_has_ended(struct bus *bus) {
  int has_ended;
  lock(bus);
  has_ended = (bus->publisher.has_ended || !bus->publisher.is_started) &&
              (bus->subscriber.has_ended || !bus->subscriber.is_started);
  unlock(bus);
  return has_ended;
}

static int open_pipe(struct worker *worker) {
  int i;
  if (pipe(worker->pipe) != 0) return 0;
  for (i = 0; i < 2; i++) {
    int flags = fcntl(worker->pipe[i], F_GETFL);
    if (flags == -1 || fcntl(worker->pipe[i], F_SETFL, flags | O_NONBLOCK) == -1 ||
        fcntl(worker->pipe[i], F_SETFD, FD_CLOEXEC) == -1) {
      return 0;
    }
  }
  return 1;
}

/* Signals are for the thread that polls the server: they have to end its wait. */
static int start(struct worker *worker, void *(*run)(void *)) {
  sigset_t all, old;
  int failure;
  sigfillset(&all);
  failure = pthread_sigmask(SIG_SETMASK, &all, &old);
  if (failure == 0) {
    failure = pthread_create(&worker->thread, NULL, run, worker);
    if (pthread_sigmask(SIG_SETMASK, &old, NULL) != 0) abort();
  }
  if (failure != 0) fprintf(stderr, "no thread for Redis: %s\n", strerror(failure));
  worker->is_started = failure == 0;
  return worker->is_started;
}

static void prepare(struct worker *worker, struct bus *bus, const char *task) {
  struct timeval now = {0, 0};
  gettimeofday(&now, NULL);
  worker->bus = bus;
  worker->task = task;
  worker->pipe[0] = worker->pipe[1] = -1;
  worker->wait_ms = FIRST_WAIT_MS;
  worker->seed = (unsigned int) (now.tv_usec ^ getpid()) + (unsigned char) task[0];
}

struct bus *bus_create(const struct bus_config *config) {
  struct bus *bus = calloc(1, sizeof(*bus));
  if (bus == NULL || pthread_mutex_init(&bus->lock, NULL) != 0) {
    fprintf(stderr, "no memory\n");
    free(bus);
    return NULL;
  }
  bus->config = *config;
  bus->end = &bus->first;
  prepare(&bus->publisher, bus, "publishing");
  prepare(&bus->subscriber, bus, "receiving");
  if (open_pipe(&bus->publisher) && open_pipe(&bus->subscriber)) return bus;
  perror("a pipe of the bus");
  bus_free(bus);
  return NULL;
}

int bus_start(struct bus *bus) {
  return start(&bus->publisher, publish) && start(&bus->subscriber, subscribe);
}

static void end(struct worker *worker) {
  int i;
  if (worker->is_started && pthread_join(worker->thread, NULL) != 0) abort();
  for (i = 0; i < 2; i++) {
    if (worker->pipe[i] >= 0) close(worker->pipe[i]);
  }
}

void bus_free(struct bus *bus) {
  bus_stop(bus);
  end(&bus->publisher);
  end(&bus->subscriber);
  free_all(bus->first);
  pthread_mutex_destroy(&bus->lock);
  free(bus);
}
