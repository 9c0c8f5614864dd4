//! New sockets (POSIX `socket`): what all that listen have in common.
//!
//! Refuses to know addresses.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// The number of connections that the kernel completes before they are accepted.
pub const BACKLOG: i32 = 4096;

/// Opens a socket that does not block, and is closed on exec.
pub fn open(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    above_standard(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
}

/// Moves a descriptor away from 0, 1 and 2, which a daemon closes and reopens.
pub fn above_standard(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&fd, 3)?)
}
