/* Makes calls of a program fail that is started with this library (LD_PRELOAD), as a page of memory says that
   it shares with the test (MG_INJECT_CONTROL names the file behind it; control.rs has its other side).

   The kernel hands each listed call of libmongoose and of the C library to `trapped` instead of carrying it
   out (seccomp's SECCOMP_RET_TRAP, by the address that the call comes from): it counts the call, and carries it out
   itself, shorter, or not at all. So the library is the one that is shipped, and those of its calls that
   do not pass the C library are seen as well. Where the C library blocks all signals, and in what it does between
   vfork and exec, nothing may be trapped: those few calls are taken by their names, at the end of this file. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <netinet/in.h>

#include <dlfcn.h>

/* Calls that have no number of the system: behind all that have. */
enum { SPAWN = 1000, THREAD = 1001, ALLOCATION = 1002 };

#define MAX_SEEN 16384
#define MAX_FDS 4096
#define IS_SHORT (-1)

struct control {
  int32_t armed;         /* whether calls count: 1, or 2 for those from mg_create_server() on */
  int32_t nr, kind;      /* the call that fails: its number, and what it is about (a letter) */
  int32_t nth;           /* which of them, from 1 on; 0 for none */
  int32_t error;         /* by which error, or IS_SHORT */
  int32_t count;         /* those that there were */
  int32_t hits;          /* those that have failed */
  int32_t least;         /* the size from which on allocations count; 0 for none of them */
  int32_t exempt[4];     /* ports of clients whose connections nothing happens to */
  int32_t num_seen;
  int32_t seen[MAX_SEEN]; /* each call that counted: number << 8 | kind */
  char what[512];        /* what the failed call was about: a path */
  int64_t trace[24];     /* the way to it: places in libmongoose */
};

static struct control none;
static struct control *control = &none;
static uintptr_t ranges[2][2]; /* the code of libmongoose and of the C library */
static uintptr_t base; /* where libmongoose begins */

/* What a descriptor is registered for, so that an event that the kernel has announced comes once more. */
static struct {
  int epoll;
  struct epoll_event event;
} watched[MAX_FDS];

static long raw(long nr, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

static int load(const int32_t *value) { return __atomic_load_n(value, __ATOMIC_SEQ_CST); }
static int add(int32_t *value) { return __atomic_add_fetch(value, 1, __ATOMIC_SEQ_CST); }

/* The letter of what a descriptor is. */
static int kind_of(int fd) {
  struct stat stat;
  int listens = 0;
  socklen_t len = sizeof(listens);
  if (raw(SYS_fstat, fd, (long) &stat, 0, 0, 0, 0) != 0) return 'x';
  if (S_ISREG(stat.st_mode)) {
    long flags = raw(SYS_fcntl, fd, F_GETFL, 0, 0, 0, 0);
    return flags >= 0 && (flags & O_APPEND) ? 'a' : 'f';
  }
  if (S_ISDIR(stat.st_mode)) return 'd';
  if (S_ISFIFO(stat.st_mode)) return 'p';
  if (!S_ISSOCK(stat.st_mode)) return 'o';
  raw(SYS_getsockopt, fd, SOL_SOCKET, SO_ACCEPTCONN, (long) &listens, (long) &len, 0);
  return listens ? 'l' : 's';
}

static int is_exempt(int fd) {
  struct sockaddr_in peer;
  socklen_t len = sizeof(peer);
  int i;
  memset(&peer, 0, sizeof(peer));
  if (raw(SYS_getpeername, fd, (long) &peer, (long) &len, 0, 0, 0) != 0) return 0;
  for (i = 0; i < 4; i++) {
    if (control->exempt[i] != 0 && control->exempt[i] == ntohs(peer.sin_port)) return 1;
  }
  return 0;
}

static void tell(const char *path) {
  size_t i;
  for (i = 0; i + 1 < sizeof(control->what) && path[i] != '\0'; i++) control->what[i] = path[i];
  control->what[i] = '\0';
}

static void tell_fd(int fd) {
  char name[32] = "/proc/self/fd/", digits[12];
  int i = 0, at = 14;
  long len;
  do digits[i++] = (char) ('0' + fd % 10); while ((fd /= 10) > 0);
  while (i > 0) name[at++] = digits[--i];
  name[at] = '\0';
  len = raw(SYS_readlink, (long) name, (long) control->what, sizeof(control->what) - 1, 0, 0, 0);
  control->what[len < 0 ? 0 : len] = '\0';
}

/* Tells the way to a call that fails. */
static void tell_way(void) {
  void *found[64];
  int i, len = backtrace(found, 64), told = 0;
  for (i = 0; i < len && told < 24; i++) {
    uintptr_t at = (uintptr_t) found[i];
    if (at >= ranges[0][0] && at < ranges[0][1]) control->trace[told++] = (int64_t) (at - base - 1);
  }
}

/* Counts a call. Whether it is the one that fails. */
static int is_due(int nr, int kind) {
  int seen;
  if (load(&control->armed) != 1) return 0;
  seen = add(&control->num_seen) - 1;
  if (seen < MAX_SEEN) control->seen[seen] = nr << 8 | kind;
  if (nr != control->nr || kind != control->kind) return 0;
  if (add(&control->count) != control->nth) return 0;
  add(&control->hits);
  tell_way();
  return 1;
}

/* Has the event of a descriptor come once more: what has not been taken is still there. */
static void announce(int fd) {
  if (fd < 0 || fd >= MAX_FDS || watched[fd].epoll == 0) return;
  raw(SYS_epoll_ctl, watched[fd].epoll, EPOLL_CTL_MOD, fd, (long) &watched[fd].event, 0, 0);
}

static void note_registration(const long *args, long result) {
  int fd = (int) args[2];
  if (result != 0 || fd < 0 || fd >= MAX_FDS) return;
  if (args[1] == EPOLL_CTL_DEL) {
    watched[fd].epoll = 0;
  } else {
    watched[fd].epoll = (int) args[0];
    watched[fd].event = *(struct epoll_event *) args[3];
  }
}

/* What a call is about: its kind, the descriptor or the path to tell, and where its length is. */
struct call {
  int kind, fd, len_at;
  const char *path;
};

static struct call describe(long nr, const long *args) {
  struct call call = {0, -1, -1, NULL};
  switch (nr) {
    case SYS_read: case SYS_write: case SYS_pread64: case SYS_pwrite64: case SYS_sendto: case SYS_recvfrom:
      call.fd = (int) args[0];
      call.len_at = 2;
      break;
    case SYS_sendfile:
      call.fd = (int) args[0];
      call.len_at = 3;
      break;
    case SYS_copy_file_range: case SYS_splice:
      call.fd = (int) args[0];
      call.len_at = 4;
      break;
    case SYS_open:
      call.path = (const char *) args[0];
      call.kind = args[1] & O_DIRECTORY ? 'd' : args[1] & O_CREAT ? 'c' : (args[1] & O_ACCMODE) ? 'w' : 'r';
      break;
    case SYS_openat: case SYS_openat2: {
      long flags = nr == SYS_openat ? args[2] : *(long *) args[2];
      call.path = (const char *) args[1];
      call.kind = flags & O_DIRECTORY ? 'd' : flags & O_CREAT ? 'c' : flags & O_PATH ? 'p'
        : (flags & O_ACCMODE) ? 'w' : 'r';
      break;
    }
    case SYS_fcntl: {
      long command = args[1];
      call.kind = command == F_DUPFD || command == F_DUPFD_CLOEXEC ? 'D' : command == F_SETLK || command == F_OFD_SETLK
        || command == F_SETLKW || command == F_OFD_SETLKW ? 'L' : 'n';
      return call;
    }
    case SYS_epoll_ctl:
      call.kind = args[1] == EPOLL_CTL_ADD ? 'a' : args[1] == EPOLL_CTL_DEL ? 'd' : 'm';
      call.fd = (int) args[2];
      break;
    case SYS_statx: case SYS_newfstatat:
      call.path = (const char *) args[1];
      if (call.path != NULL && call.path[0] == '\0') call.fd = (int) args[0], call.path = NULL;
      break;
    case SYS_mkdirat: case SYS_unlinkat: case SYS_renameat: case SYS_renameat2: case SYS_linkat: case SYS_readlinkat:
    case SYS_fchmodat: case SYS_utimensat: case SYS_faccessat: case SYS_faccessat2:
      call.path = (const char *) args[1];
      if (call.path == NULL) call.fd = (int) args[0];
      break;
    case SYS_stat: case SYS_lstat: case SYS_rename: case SYS_mkdir: case SYS_rmdir: case SYS_link: case SYS_unlink:
    case SYS_symlink: case SYS_readlink: case SYS_chmod: case SYS_statfs: case SYS_truncate: case SYS_access:
      call.path = (const char *) args[0];
      break;
    case SYS_socket: case SYS_socketpair: case SYS_pipe2: case SYS_eventfd2: case SYS_epoll_create1: case SYS_getcwd:
    case SYS_pidfd_open: case SYS_kill: case SYS_waitid: case SYS_symlinkat: case SYS_epoll_wait: case SYS_epoll_pwait:
      break;
    default:
      call.fd = (int) args[0];
  }
  if (call.fd >= 0 && nr != SYS_epoll_ctl) call.kind = kind_of(call.fd);
  return call;
}

/* Carries a call out, or lets it fail. */
static long carry_out(long nr, const long *given) {
  long args[6], result;
  struct call call;
  memcpy(args, given, sizeof(args));
  if (load(&control->armed) != 1) {
    result = raw(nr, args[0], args[1], args[2], args[3], args[4], args[5]);
    if (nr == SYS_epoll_ctl) note_registration(args, result);
    return result;
  }
  call = describe(nr, args);
  /* The streams of the program, and the bystanders, are left alone. */
  if ((call.fd < 0 || call.fd > 2) && !(call.kind == 's' && is_exempt(call.fd)) &&
      !(nr == SYS_epoll_ctl && is_exempt(call.fd)) &&
      !(nr == SYS_write && call.kind == 'o') && is_due((int) nr, call.kind)) {
    if (call.path != NULL) tell(call.path); else if (call.fd >= 0) tell_fd(call.fd);
    if (control->error != IS_SHORT) {
      if (control->error == EAGAIN) announce(call.fd);
      /* A descriptor is closed whatever close() returns. */
      if (nr == SYS_close) raw(SYS_close, args[0], 0, 0, 0, 0, 0);
      return -control->error;
    }
    if (call.len_at < 0 || args[call.len_at] < 2) {
      __atomic_sub_fetch(&control->hits, 1, __ATOMIC_SEQ_CST); /* nothing to shorten */
    } else {
      args[call.len_at] = 1;
      result = raw(nr, args[0], args[1], args[2], args[3], args[4], args[5]);
      announce(call.fd);
      return result;
    }
  }
  result = raw(nr, args[0], args[1], args[2], args[3], args[4], args[5]);
  if (nr == SYS_epoll_ctl) note_registration(args, result);
  return result;
}

static void trapped(int signal_number, siginfo_t *info, void *context) {
  greg_t *regs = ((ucontext_t *) context)->uc_mcontext.gregs;
  long args[6] = {regs[REG_RDI], regs[REG_RSI], regs[REG_RDX], regs[REG_R10], regs[REG_R8], regs[REG_R9]};
  (void) signal_number;
  regs[REG_RAX] = carry_out(info->si_syscall, args);
}

/* Those that are trapped where they come from libmongoose or from the C library. */
static const int listed[] = {
  SYS_read, SYS_write, SYS_stat, SYS_fstat, SYS_lstat, SYS_lseek, SYS_pread64, SYS_pwrite64, SYS_readv, SYS_writev,
  SYS_access, SYS_sendfile, SYS_socket, SYS_accept4, SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_shutdown,
  SYS_bind, SYS_listen, SYS_getsockname, SYS_getpeername, SYS_socketpair, SYS_setsockopt, SYS_getsockopt, SYS_flock,
  SYS_fsync, SYS_fdatasync, SYS_truncate, SYS_ftruncate, SYS_getcwd, SYS_rename, SYS_mkdir, SYS_rmdir, SYS_link,
  SYS_unlink, SYS_symlink, SYS_readlink, SYS_chmod, SYS_fchmod, SYS_fchown, SYS_getdents64, SYS_epoll_wait,
  SYS_epoll_ctl, SYS_epoll_pwait, SYS_utimensat, SYS_eventfd2, SYS_epoll_create1, SYS_pipe2, SYS_preadv2, SYS_mkdirat,
  SYS_newfstatat, SYS_unlinkat, SYS_renameat, SYS_linkat, SYS_symlinkat, SYS_readlinkat, SYS_fchmodat, SYS_faccessat,
  SYS_splice, SYS_sync_file_range, SYS_fallocate, SYS_renameat2, SYS_statx, SYS_copy_file_range, SYS_pidfd_open,
  SYS_openat2, SYS_faccessat2, SYS_waitid, SYS_statfs, SYS_fstatfs, SYS_fadvise64,
};
/* Those that the C library makes between vfork and exec as well: only where libmongoose makes them itself. */
static const int listed_inside[] = {SYS_open, SYS_openat, SYS_close, SYS_fcntl};

static struct sock_filter filter[512];
static unsigned short filter_len;

static void put(unsigned code, unsigned k, int yes, int no) {
  struct sock_filter line = {(unsigned short) code, (unsigned char) yes, (unsigned char) no, k};
  filter[filter_len++] = line;
}

/* Goes on behind the number of calls that are listed; traps where the call comes from one of the ranges. */
static void put_test(const int *calls, size_t count, int num_ranges) {
  size_t i;
  int range;
  unsigned short jumps[128], to;
  for (i = 0; i < count; i++) {
    put(BPF_JMP | BPF_JEQ | BPF_K, (unsigned) calls[i], 0, 1);
    jumps[i] = filter_len;
    put(BPF_JMP | BPF_JA, 0, 0, 0);
  }
  to = filter_len;
  put(BPF_JMP | BPF_JA, (unsigned) num_ranges * 5 + 2, 0, 0);
  for (i = 0; i < count; i++) filter[jumps[i]].k = (unsigned) (to - jumps[i]);
  for (range = 0; range < num_ranges; range++) {
    uintptr_t start = ranges[range][0], end = ranges[range][1];
    put(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4, 0, 0);
    put(BPF_JMP | BPF_JEQ | BPF_K, (unsigned) (start >> 32), 0, 3);
    put(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer), 0, 0);
    put(BPF_JMP | BPF_JGE | BPF_K, (unsigned) start, 0, 1);
    put(BPF_JMP | BPF_JGE | BPF_K, (unsigned) end, 0, (num_ranges - 1 - range) * 5 + 1);
  }
  put(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
  put(BPF_RET | BPF_K, SECCOMP_RET_TRAP, 0, 0);
}

static void find_ranges(void) {
  char line[512];
  FILE *maps = fopen("/proc/self/maps", "r");
  if (maps == NULL) return;
  while (fgets(line, sizeof(line), maps) != NULL) {
    unsigned long start, end;
    char rights[8];
    const char *name = strrchr(line, '/');
    if (name == NULL || sscanf(line, "%lx-%lx %7s", &start, &end, rights) != 3) continue;
    if (base == 0 && strncmp(name, "/libmongoose", 12) == 0) base = start;
    if (rights[2] != 'x') continue;
    if (strncmp(name, "/libmongoose", 12) == 0) ranges[0][0] = start, ranges[0][1] = end;
    if (strncmp(name, "/libc.so", 8) == 0) ranges[1][0] = start, ranges[1][1] = end;
  }
  fclose(maps);
}

__attribute__((constructor)) static void begin(void) {
  const char *name = getenv("MG_INJECT_CONTROL");
  struct sock_fprog program = {0, filter};
  struct sigaction action;
  void *page, *here;
  int fd = name == NULL ? -1 : open(name, O_RDWR | O_CLOEXEC);
  if (fd == -1) return;
  unsetenv("LD_PRELOAD"); /* programs that this one starts are left alone */
  page = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  raw(SYS_close, fd, 0, 0, 0, 0, 0);
  find_ranges();
  if (page == MAP_FAILED || ranges[0][0] == 0 || ranges[1][0] == 0) return;
  backtrace(&here, 1); /* it loads a library at its first call */
  memset(&action, 0, sizeof(action));
  action.sa_sigaction = trapped;
  action.sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER;
  sigaction(SIGSYS, &action, NULL);
  put(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
  put_test(listed, sizeof(listed) / sizeof(listed[0]), 2);
  /* The jump behind the first test leads here. */
  put(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
  put_test(listed_inside, sizeof(listed_inside) / sizeof(listed_inside[0]), 1);
  put(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
  program.len = filter_len;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    perror("seccomp");
    _exit(77);
  }
  control = page;
}

/* By their names: what the C library does for libmongoose where nothing may be trapped. */

static long named(long nr, long a, long b, long c, long d) {
  long args[6] = {a, b, c, d, 0, 0};
  long result = carry_out(nr, args);
  if (result >= 0) return result;
  errno = (int) -result;
  return -1;
}

int close(int fd) {
  if (fd >= 0 && fd < MAX_FDS) watched[fd].epoll = 0;
  return (int) named(SYS_close, fd, 0, 0, 0);
}

int open(const char *path, int flags, ...) {
  va_list list;
  int mode;
  va_start(list, flags);
  mode = va_arg(list, int);
  va_end(list);
  return (int) named(SYS_openat, AT_FDCWD, (long) path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  va_list list;
  int mode;
  va_start(list, flags);
  mode = va_arg(list, int);
  va_end(list);
  return (int) named(SYS_openat, AT_FDCWD, (long) path, flags | O_LARGEFILE, mode);
}

int fcntl(int fd, int command, ...) {
  va_list list;
  long value;
  va_start(list, command);
  value = va_arg(list, long);
  va_end(list);
  return (int) named(SYS_fcntl, fd, command, value, 0);
}

static int fails(int nr, int kind, const char *what) {
  if (!is_due(nr, kind)) return 0;
  tell(what == NULL ? "" : what);
  errno = control->error;
  return control->error;
}

DIR *opendir(const char *path) {
  static DIR *(*real)(const char *);
  if (real == NULL) real = (DIR * (*) (const char *) ) dlsym(RTLD_NEXT, "opendir");
  return fails(SYS_openat, 'd', path) ? NULL : real(path);
}

int closedir(DIR *dir) {
  static int (*real)(DIR *);
  int result;
  if (real == NULL) real = (int (*)(DIR *)) dlsym(RTLD_NEXT, "closedir");
  result = real(dir);
  return fails(SYS_close, 'd', NULL) ? -1 : result;
}

int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                 const posix_spawnattr_t *attributes, char *const argv[], char *const envp[]) {
  static int (*real)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
                     char *const[], char *const[]);
  if (real == NULL) *(void **) &real = dlsym(RTLD_NEXT, "posix_spawnp");
  return fails(SPAWN, 0, file) ? control->error : real(pid, file, actions, attributes, argv, envp);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *param) {
  static int (*real)(pthread_t *, const pthread_attr_t *, void *(*) (void *), void *);
  uintptr_t caller = (uintptr_t) __builtin_return_address(0);
  if (real == NULL) *(void **) &real = dlsym(RTLD_NEXT, "pthread_create");
  if (caller >= ranges[0][0] && caller < ranges[0][1] && fails(THREAD, 0, NULL)) return control->error;
  return real(thread, attributes, start, param);
}

int pthread_sigmask(int how, const sigset_t *set, sigset_t *old) {
  static int (*real)(int, const sigset_t *, sigset_t *);
  sigset_t without;
  if (real == NULL) *(void **) &real = dlsym(RTLD_NEXT, "pthread_sigmask");
  if (set == NULL || how == SIG_UNBLOCK) return real(how, set, old);
  without = *set;
  sigdelset(&without, SIGSYS);
  return real(how, &without, old);
}

int sigprocmask(int how, const sigset_t *set, sigset_t *old) {
  int error = pthread_sigmask(how, set, old);
  if (error == 0) return 0;
  errno = error;
  return -1;
}

/* The life of a server, in which calls count: not those of the program before and behind it. */

struct mg_server;

struct mg_server *mg_create_server(void *param) {
  static struct mg_server *(*real)(void *);
  if (real == NULL) *(void **) &real = dlsym(RTLD_NEXT, "mg_create_server");
  if (load(&control->armed) == 2) control->armed = 1;
  return real(param);
}

void mg_destroy_server(struct mg_server **server) {
  static void (*real)(struct mg_server **);
  if (real == NULL) *(void **) &real = dlsym(RTLD_NEXT, "mg_destroy_server");
  real(server);
  control->armed = 0;
}

/* Allocations of libmongoose from a size on. */

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static int is_refused(size_t size, const void *caller) {
  uintptr_t at = (uintptr_t) caller;
  if (control->least == 0 || size < (size_t) control->least || at < ranges[0][0] || at >= ranges[0][1]) return 0;
  if (!is_due(ALLOCATION, 0)) return 0;
  snprintf(control->what, sizeof(control->what), "%lu bytes at libmongoose+0x%lx", (unsigned long) size,
           (unsigned long) (at - base));
  errno = ENOMEM;
  return 1;
}

void *malloc(size_t size) {
  return is_refused(size, __builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
  return is_refused(count * size, __builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
  return is_refused(size, __builtin_return_address(0)) ? NULL : __libc_realloc(old, size);
}
