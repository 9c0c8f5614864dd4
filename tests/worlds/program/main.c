/* The servers of a world, which its driver tells what to do:
 *
 *   world LEDGER FOLDER SEED WRITERS WALKERS CHANGERS POLLERS LONGEST [WORKERS ADDRESS]
 *
 * Without WORKERS the lines of standard input say when servers begin and end. With WORKERS, a parent that polls
 * nothing binds ADDRESS, and as many children poll what they have inherited; one that dies is replaced. */
#define _GNU_SOURCE
#include "world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

struct slot slots[MOST_SERVERS];
struct wishes wishes;

static void print(const char *before, const char *format, va_list list) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  char line[1000];
  int len = snprintf(line, sizeof line, "%s", before), more;
  more = vsnprintf(line + len, sizeof line - (size_t) len - 1, format, list);
  len = len + more < (int) sizeof line - 1 ? len + more : (int) sizeof line - 2;
  line[len++] = '\n';
  pthread_mutex_lock(&lock);
  /* In one piece, since children write to the same pipe. */
  if (write(1, line, (size_t) len) != len) _exit(3);
  pthread_mutex_unlock(&lock);
}

void say(const char *format, ...) {
  va_list list;
  va_start(list, format);
  print("", format, list);
  va_end(list);
}

void wrong(const char *format, ...) {
  va_list list;
  va_start(list, format);
  print("WRONG ", format, list);
  va_end(list);
}

static void must(struct slot *slot, const char *name, const char *value) {
  const char *problem = mg_set_option(slot->server, name, value);
  if (problem != NULL) wrong("%s = %s: %s", name, value, problem);
}

static void prepare(struct slot *slot) {
  char root[512];
  atomic_store(&slot->leave, 0);
  atomic_store(&slot->doomed, 0);
  slot->server = mg_create_server(slot);
  if (slot->server == NULL) abort();
  snprintf(root, sizeof root, "%s/a", wishes.folder);
  must(slot, "document_root", root);
  must(slot, "deferred_answers", "all");
  must(slot, "idle_timeout_ms", "60000");
  must(slot, "request_timeout_ms", "60000");
  must(slot, "error_log_file", "error-1.log");
  /* A small build has none. */
  mg_set_option(slot->server, "websocket_deflate", "yes");
  if (access("one.pem", R_OK) == 0) must(slot, "ssl_certificate", "one.pem");
  equip(slot);
}

/* `shares`: a server whose socket it uses, or -1. */
static void create_server(int number, int shares, const char *address) {
  struct slot *slot = &slots[number];
  slot->number = number;
  prepare(slot);
  if (shares >= 0) mg_set_listening_socket(slot->server, mg_get_listening_socket(slots[shares].server));
  else must(slot, "listening_port", address);
  start_pollers(slot);
  say("ok %s", mg_get_option(slot->server, "listening_port"));
}

static void destroy_server(int number, const char *by) {
  struct slot *slot = &slots[number];
  struct mg_server *server;
  if (strcmp(by, "handler") == 0) {
    double until = real_seconds() + 3;
    atomic_store(&slot->doomed, 1);
    while (!atomic_load(&slot->leave) && real_seconds() < until) usleep(1000);
    atomic_store(&slot->doomed, 0);
  } else if (strcmp(by, "signal") == 0) {
    destroy_by_signal(slot);
  }
  server = atomic_exchange(&slot->server, NULL);
  begin_call("mg_destroy_server");
  mg_destroy_server(&server);
  end_call();
  atomic_store(&slot->leave, 1);
  begin_call("the pollers' end");
  join_pollers(slot);
  end_call();
  say("ok");
}

static unsigned entries(const char *folder) {
  DIR *dir = opendir(folder);
  unsigned found = 0;
  while (dir != NULL && readdir(dir) != NULL) found++;
  if (dir != NULL) closedir(dir);
  return found - 2;
}

struct use {
  unsigned descriptors, threads;
  size_t heap;
};

static struct use used(void) {
  struct use use;
  struct mallinfo2 info;
  malloc_trim(0);
  info = mallinfo2();
  use.heap = info.uordblks + info.hblkhd;
  use.descriptors = entries("/proc/self/fd");
  use.threads = entries("/proc/self/task");
  return use;
}

/* All servers have ended: what they used has to be free again. */
static void judge(struct use before, const char *who) {
  double until = real_seconds() + 30;
  siginfo_t child;
  struct use now = used();
  /* A look that leaves a child as it is: to end it is the library's. */
  while ((now.descriptors > before.descriptors || now.threads > before.threads ||
          waitid(P_ALL, 0, &child, WEXITED | WNOHANG | WNOWAIT) == 0) &&
         real_seconds() < until) {
    usleep(20000);
    now = used();
  }
  if (now.descriptors > before.descriptors) {
    char path[64], target[256];
    int fd;
    wrong("%s has %u descriptors, and had %u", who, now.descriptors, before.descriptors);
    for (fd = 0; fd < 1000; fd++) {
      ssize_t len;
      snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
      if ((len = readlink(path, target, sizeof target - 1)) > 0) target[len] = 0, say("note %d is %s", fd, target);
    }
  }
  if (now.threads > before.threads) wrong("%s has %u threads, and had %u", who, now.threads, before.threads);
  if (waitid(P_ALL, 0, &child, WEXITED | WNOHANG | WNOWAIT) == 0) wrong("%s has a child left", who);
}

static void limit_descriptors(long more) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = more < 0 ? limit.rlim_max : entries("/proc/self/fd") + (rlim_t) more;
  if (limit.rlim_cur > 8192) limit.rlim_cur = 8192;
  setrlimit(RLIMIT_NOFILE, &limit);
}

static void carry_out(char *line, struct use before) {
  char what[20] = "", text[100] = "", name[100] = "";
  int number = 0, other = -1;
  long long amount = 0;
  if (sscanf(line, "create %d %d %99s", &number, &other, text) == 3) {
    create_server(number, other, text);
  } else if (sscanf(line, "destroy %d %19s", &number, what) == 2) {
    destroy_server(number, what);
  } else if (sscanf(line, "option %d %99s %99s", &number, name, text) >= 2) {
    const char *problem;
    begin_call("mg_set_option");
    problem = mg_set_option(slots[number].server, name, text);
    say("ok %s", problem ? problem : mg_get_option(slots[number].server, name));
    end_call();
  } else if (sscanf(line, "jump %19s %lld", what, &amount) == 2) {
    atomic_fetch_add(strcmp(what, "monotonic") == 0 ? &monotonic_offset : &realtime_offset, amount);
    say("ok");
  } else if (sscanf(line, "descriptors %lld", &amount) == 1) {
    limit_descriptors((long) amount);
    say("ok");
  } else if (strncmp(line, "end", 3) == 0) {
    int i;
    join_threads();
    for (i = 0; i < MOST_SERVERS; i++) {
      struct mg_server *server = atomic_exchange(&slots[i].server, NULL);
      atomic_store(&slots[i].leave, 1);
      mg_destroy_server(&server);
      join_pollers(&slots[i]);
    }
    /* Those that still were to be answered are told that their connections are closed. */
    answer_later_jobs(&wishes.seed);
    judge(before, "the process");
    say("ok %zu", used().heap);
  } else if (strncmp(line, "start", 5) == 0) {
    start_threads();
    say("ok");
  } else {
    wrong("cannot %s", line);
  }
}

/* Reads lines until there are no more; looks meanwhile for threads that wait in vain. */
static int next_line(char *line, int size) {
  static char buf[4096];
  static int len;
  char *end;
  while ((end = memchr(buf, '\n', (size_t) len)) == NULL) {
    struct pollfd input = {0, POLLIN, 0};
    int ready = poll(&input, 1, 100), more;
    look_for_stuck_threads();
    if (ready <= 0) return 1 + (ready < 0 && errno != EINTR ? -1 : 0);
    more = (int) read(0, buf + len, sizeof buf - (size_t) len);
    if (more <= 0) return -1;
    len += more;
  }
  *end = 0;
  snprintf(line, (size_t) size, "%s", buf);
  len -= (int) (end + 1 - buf);
  memmove(buf, end + 1, (size_t) len);
  return 2;
}

static int serve(void) {
  struct use before = used();
  char line[1000];
  int found;
  while ((found = next_line(line, sizeof line)) > 0)
    if (found == 2) carry_out(line, before);
  return 0;
}

static volatile sig_atomic_t told_to_end;
static void on_end(int number) {
  (void) number;
  told_to_end = 1;
}

static int work(void) {
  struct use before = used();
  struct mg_server *server;
  my_stream = STREAMS - 1;
  start_pollers(&slots[0]);
  start_threads();
  while (!told_to_end) {
    usleep(50000);
    look_for_stuck_threads();
  }
  join_threads();
  server = atomic_exchange(&slots[0].server, NULL);
  atomic_store(&slots[0].leave, 1);
  mg_destroy_server(&server);
  join_pollers(&slots[0]);
  judge(before, "a worker");
  return 0;
}

static pid_t begin_worker(int number) {
  pid_t child = fork();
  if (child == 0) {
    process_number = number;
    _exit(work());
  }
  return child;
}

/* The parent of workers. `kill N` ends one without a warning. */
static int supervise(int workers, const char *address) {
  struct use before = used();
  pid_t children[MOST_PROCESSES];
  char line[1000];
  struct mg_server *server;
  int i, found, status, number;
  prepare(&slots[0]);
  must(&slots[0], "listening_port", address);
  signal(SIGTERM, on_end);
  for (i = 1; i <= workers; i++) children[i] = begin_worker(i);
  say("ok %s", mg_get_option(slots[0].server, "listening_port"));
  while ((found = next_line(line, sizeof line)) > 0) {
    if (found == 2 && sscanf(line, "kill %d", &number) == 1) {
      kill(children[number], SIGKILL);
      waitpid(children[number], &status, 0);
      atomic_store(&ledger->writing[number], 0);
      children[number] = begin_worker(number);
      say("ok");
    } else if (found == 2) {
      break;
    }
    for (i = 1; i <= workers; i++)
      if (waitpid(children[i], &status, WNOHANG) == children[i]) {
        wrong("worker %d has ended with %d", i, status);
        children[i] = begin_worker(i);
      }
  }
  for (i = 1; i <= workers; i++) kill(children[i], SIGTERM);
  for (i = 1; i <= workers; i++) {
    waitpid(children[i], &status, 0);
    if (status != 0) wrong("worker %d ends with %d", i, status);
  }
  server = atomic_exchange(&slots[0].server, NULL);
  mg_destroy_server(&server);
  judge(before, "the parent");
  say("ok 0");
  return 0;
}

int main(int argc, char *argv[]) {
  int fd;
  if (argc < 9) return 2;
  fd = open(argv[1], O_RDWR | O_CLOEXEC);
  ledger = mmap(NULL, sizeof *ledger, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd == -1 || ledger == MAP_FAILED || chdir(argv[2]) != 0) return 2;
  close(fd);
  wishes.folder = argv[2];
  wishes.seed = strtoull(argv[3], NULL, 10);
  wishes.writers = (unsigned) atoi(argv[4]);
  wishes.walkers = (unsigned) atoi(argv[5]);
  wishes.changers = (unsigned) atoi(argv[6]);
  wishes.pollers = (unsigned) atoi(argv[7]);
  wishes.longest = (unsigned) atoi(argv[8]);
  my_stream = STREAMS - 1;
  my_random = wishes.seed;
  signal(SIGUSR2, on_signal_destroy);
  if (argc > 10) return supervise(atoi(argv[9]), argv[10]);
  return serve();
}
