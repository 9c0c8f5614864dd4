//! The calls that can be made to fail: their names, and the errors that their manuals allow and that can come
//! where the library makes them.
//!
//! Left out is what a kernel does not do: an event queue that has taken a descriptor does not lose it,
//! and `fcntl` reads flags.

use libc::*;

use super::control::{Class, Fault};

/// Calls that have no number of the system, as in `shim.c`.
const SPAWN: i32 = 1000;
const THREAD: i32 = 1001;
pub const ALLOCATION: i32 = 1002;

/// A call: its number, its name, the kinds of what it is about for which this line holds ("" for all), the
/// errors, and whether it may move less than it was told to.
struct Row {
    number: i32,
    name: &'static str,
    kinds: &'static str,
    errors: &'static [i32],
    is_short: bool,
}

const fn row(
    number: c_long,
    name: &'static str,
    kinds: &'static str,
    errors: &'static [i32],
    is_short: bool,
) -> Row {
    Row { number: number as i32, name, kinds, errors, is_short }
}

const LOOK: &[i32] = &[EACCES, EIO, ENOMEM, ESTALE];
const LOOK_AT_OPEN: &[i32] = &[EIO, ENOMEM, ESTALE];
const OPEN: &[i32] = &[EACCES, EINTR, EMFILE, ENFILE, ENOMEM, EIO, ESTALE];
const CREATE: &[i32] = &[EACCES, EINTR, EMFILE, ENFILE, ENOMEM, EIO, ESTALE, ENOSPC, EDQUOT];
const CHANGE: &[i32] = &[EACCES, EIO, ENOMEM, ENOSPC, EDQUOT, ESTALE];
const REMOVE: &[i32] = &[EACCES, EIO, ENOMEM, ESTALE];
const READ: &[i32] = &[EIO, EINTR, ENOMEM, ESTALE];
const WRITE: &[i32] = &[EIO, EINTR, ENOMEM, ENOSPC, EDQUOT, ESTALE];
const SYNC: &[i32] = &[EIO, ENOSPC, EDQUOT];
const DESCRIPTORS: &[i32] = &[EMFILE, ENFILE, ENOMEM];
const RECEIVE: &[i32] = &[EAGAIN, EINTR, ECONNRESET, ENOMEM, ETIMEDOUT];
const SEND: &[i32] = &[EAGAIN, EINTR, ECONNRESET, EPIPE, ENOMEM, ETIMEDOUT];

const ROWS: &[Row] = &[
    row(SYS_open, "open to create", "c", CREATE, false),
    row(SYS_open, "open", "", OPEN, false),
    row(SYS_openat, "openat to create", "c", CREATE, false),
    row(SYS_openat, "openat", "", OPEN, false),
    row(SYS_openat2, "openat2 to create", "c", CREATE, false),
    row(SYS_openat2, "openat2", "", OPEN, false),
    row(SYS_stat, "stat", "", LOOK, false),
    row(SYS_lstat, "lstat", "", LOOK, false),
    row(SYS_fstat, "fstat", "fad", LOOK_AT_OPEN, false),
    row(SYS_statx, "statx of a path", "\0", LOOK, false),
    row(SYS_statx, "statx of a descriptor", "fad", LOOK_AT_OPEN, false),
    row(SYS_newfstatat, "newfstatat of a path", "\0", LOOK, false),
    row(SYS_newfstatat, "newfstatat of a descriptor", "fad", LOOK_AT_OPEN, false),
    row(SYS_statfs, "statfs", "", LOOK_AT_OPEN, false),
    row(SYS_fstatfs, "fstatfs", "", LOOK_AT_OPEN, false),
    row(SYS_access, "access", "", LOOK, false),
    row(SYS_faccessat, "faccessat", "", LOOK, false),
    row(SYS_faccessat2, "faccessat2", "", LOOK, false),
    row(SYS_readlink, "readlink", "", LOOK, false),
    row(SYS_readlinkat, "readlinkat", "", LOOK, false),
    row(SYS_getdents64, "getdents64", "", &[EIO, ENOMEM, ESTALE], false),
    row(SYS_read, "read of a file", "fa", READ, true),
    // It is read until it is empty, and no further when the program has ended.
    row(SYS_read, "read of a pipe", "p", &[EINTR], true),
    row(SYS_pread64, "pread64", "", READ, true),
    row(SYS_write, "write to a file", "fa", WRITE, true),
    row(SYS_write, "write to a pipe", "p", &[EINTR, EAGAIN], true),
    row(SYS_pwrite64, "pwrite64", "", WRITE, true),
    row(SYS_writev, "writev", "fa", WRITE, false),
    row(SYS_copy_file_range, "copy_file_range", "", WRITE, true),
    row(
        SYS_sendfile,
        "sendfile to a socket",
        "s",
        &[EAGAIN, EIO, EINTR, ENOMEM, ECONNRESET, EPIPE],
        true,
    ),
    row(SYS_sendfile, "sendfile to a file", "fa", WRITE, true),
    row(SYS_splice, "splice", "", &[EINTR, EAGAIN, ENOMEM], true),
    row(SYS_fsync, "fsync", "", SYNC, false),
    row(SYS_fdatasync, "fdatasync", "", SYNC, false),
    row(SYS_sync_file_range, "sync_file_range", "", &[EIO, ENOMEM, ENOSPC], false),
    row(SYS_ftruncate, "ftruncate", "", &[EIO, EINTR, ENOSPC], false),
    row(SYS_fallocate, "fallocate", "", &[EIO, EINTR, ENOSPC], false),
    row(SYS_rename, "rename", "", CHANGE, false),
    row(SYS_renameat, "renameat", "", CHANGE, false),
    row(SYS_renameat2, "renameat2", "", CHANGE, false),
    row(SYS_link, "link", "", CHANGE, false),
    row(SYS_linkat, "linkat", "", CHANGE, false),
    row(SYS_symlink, "symlink", "", CHANGE, false),
    row(SYS_symlinkat, "symlinkat", "", CHANGE, false),
    row(SYS_mkdir, "mkdir", "", CHANGE, false),
    row(SYS_mkdirat, "mkdirat", "", CHANGE, false),
    row(SYS_unlink, "unlink", "", REMOVE, false),
    row(SYS_unlinkat, "unlinkat", "", REMOVE, false),
    row(SYS_rmdir, "rmdir", "", REMOVE, false),
    row(SYS_chmod, "chmod", "", &[EIO, EACCES, ENOMEM], false),
    row(SYS_fchmod, "fchmod", "", &[EIO, EACCES], false),
    row(SYS_fchmodat, "fchmodat", "", &[EIO, EACCES, ENOMEM], false),
    row(SYS_fchown, "fchown", "", &[EIO, EACCES, EDQUOT], false),
    row(SYS_utimensat, "utimensat", "", &[EACCES, EIO], false),
    row(SYS_close, "close of a file", "fa", &[EIO, EINTR, ENOSPC, EDQUOT], false),
    row(SYS_close, "closedir", "d", &[EIO, EINTR], false),
    row(SYS_fcntl, "fcntl to duplicate", "D", &[EMFILE], false),
    row(SYS_fcntl, "fcntl to lock", "L", &[ENOLCK, EINTR], false),
    row(SYS_flock, "flock", "", &[EINTR, ENOLCK], false),
    row(SYS_socket, "socket", "", &[EACCES, EMFILE, ENFILE, ENOMEM], false),
    row(SYS_socketpair, "socketpair", "", DESCRIPTORS, false),
    row(SYS_bind, "bind", "", &[EACCES, ENOMEM], false),
    row(SYS_listen, "listen", "", &[EADDRINUSE], false),
    row(SYS_setsockopt, "setsockopt", "", &[ENOMEM], false),
    row(SYS_accept4, "accept4", "", &[EAGAIN, EINTR, ECONNABORTED, EMFILE, ENFILE, ENOMEM], false),
    row(SYS_recvfrom, "recvfrom", "s", RECEIVE, true),
    row(SYS_sendto, "sendto", "s", SEND, true),
    row(SYS_shutdown, "shutdown", "", &[ENOTCONN], false),
    row(SYS_epoll_create1, "epoll_create1", "", DESCRIPTORS, false),
    row(SYS_epoll_ctl, "epoll_ctl to add", "a", &[ENOMEM, ENOSPC], false),
    row(SYS_epoll_wait, "epoll_wait", "", &[EINTR], false),
    row(SYS_epoll_pwait, "epoll_pwait", "", &[EINTR], false),
    row(SYS_eventfd2, "eventfd2", "", DESCRIPTORS, false),
    row(SYS_pipe2, "pipe2", "", &[EMFILE, ENFILE], false),
    row(SYS_pidfd_open, "pidfd_open", "", DESCRIPTORS, false),
    row(SPAWN as c_long, "posix_spawn", "", &[EAGAIN, ENOMEM, EACCES], false),
    row(THREAD as c_long, "pthread_create", "", &[EAGAIN], false),
    row(ALLOCATION as c_long, "malloc", "", &[ENOMEM], false),
];

fn row_of(class: Class) -> Option<&'static Row> {
    let fits = |kinds: &str| kinds.is_empty() || kinds.as_bytes().contains(&class.kind);
    ROWS.iter().find(|row| row.number == class.number && fits(row.kinds))
}

impl Class {
    /// How calls of this class can fail.
    pub fn faults(self) -> Vec<Fault> {
        let Some(row) = row_of(self) else { return Vec::new() };
        let errors = row.errors.iter().map(|error| Fault::Error(*error));
        errors.chain(row.is_short.then_some(Fault::Short)).collect()
    }

    /// The name of the call, and what it is about.
    pub fn name(self) -> String {
        row_of(self).map_or_else(
            || format!("{} {}", self.number, self.kind as char),
            |row| row.name.to_owned(),
        )
    }

    /// Whether this is a call about the connection of a client.
    pub fn is_about_client(self) -> bool {
        self.kind == b's' && self.number != SYS_epoll_ctl as i32
    }

    /// Whether such a call removes a file.
    pub fn removes(self) -> bool {
        [SYS_unlink, SYS_unlinkat, SYS_rmdir].contains(&c_long::from(self.number))
    }
}

/// The name of an error.
pub fn name_of(fault: Fault) -> String {
    const NAMES: &[(i32, &str)] = &[
        (EACCES, "EACCES"),
        (EADDRINUSE, "EADDRINUSE"),
        (EAGAIN, "EAGAIN"),
        (ECONNABORTED, "ECONNABORTED"),
        (ECONNRESET, "ECONNRESET"),
        (EDQUOT, "EDQUOT"),
        (EINTR, "EINTR"),
        (EIO, "EIO"),
        (EMFILE, "EMFILE"),
        (ENFILE, "ENFILE"),
        (ENOLCK, "ENOLCK"),
        (ENOMEM, "ENOMEM"),
        (ENOSPC, "ENOSPC"),
        (ENOTCONN, "ENOTCONN"),
        (EPIPE, "EPIPE"),
        (ESTALE, "ESTALE"),
        (ETIMEDOUT, "ETIMEDOUT"),
    ];
    let Fault::Error(error) = fault else { return "short".to_owned() };
    let name = NAMES.iter().find(|(number, _)| *number == error).map(|(_, name)| *name);
    name.map_or_else(|| error.to_string(), str::to_owned)
}
