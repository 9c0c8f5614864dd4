//! Listening sockets (POSIX `socket`, `bind`, `listen`, `accept`).
//!
//! Several servers may accept from one descriptor. It is closed when the last of them drops it:
//! never twice, and never after its number has come to mean another file. Refuses to know options
//! and connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::peer::Peer;

/// The number of connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 4096;

/// One server's use of a listening socket.
pub struct Listener {
    fd: RawFd,
    /// Device and inode of the socket when it was taken over.
    identity: (u64, u64),
    pub registered: bool,
    /// Set if there may be a connection to accept.
    pub ready: bool,
}

/// A descriptor that listeners use, with their number.
struct Shared {
    fd: RawFd,
    identity: (u64, u64),
    users: usize,
}

static SHARED: Mutex<Vec<Shared>> = Mutex::new(Vec::new());

impl Listener {
    /// Binds a socket and listens on it.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        let socket = above_standard(socket)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, false)?;
        }
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Self::adopt(socket.into_raw_fd())
    }

    /// Takes over a bound, listening descriptor, alone or together with servers that use it
    /// already.
    pub fn adopt(fd: RawFd) -> io::Result<Self> {
        if fd < 0 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        // SAFETY: only borrowed for the calls below, which fail cleanly if it is not open.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        // This check comes before any change: a wrong number may be any file of the program.
        rustix::net::getsockname(borrowed)?;
        let identity = identity(borrowed)?;
        rustix::io::ioctl_fionbio(borrowed, true)?;
        rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)?;
        // Accepted sockets inherit this option. A Unix socket does not have it.
        let _ = sockopt::set_tcp_nodelay(borrowed, true);

        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|entry| entry.fd != fd || entry.identity == identity);
        match shared.iter_mut().find(|entry| entry.fd == fd) {
            Some(entry) => entry.users += 1,
            None => shared.push(Shared { fd, identity, users: 1 }),
        }
        Ok(Self { fd, identity, registered: false, ready: true })
    }

    /// Returns the number of the descriptor.
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// Returns whether the number still means the socket that was taken over.
    pub fn is_valid(&self) -> bool {
        identity(self.as_fd()).is_ok_and(|now| now == self.identity)
    }

    /// Returns whether another server uses the same descriptor.
    pub fn is_shared(&self) -> bool {
        let shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.iter().any(|entry| self.is(entry) && entry.users > 1)
    }

    /// Returns whether the entry is that of this socket, and not of another one with the same
    /// number.
    fn is(&self, entry: &Shared) -> bool {
        entry.fd == self.fd && entry.identity == self.identity
    }

    /// Returns the bound address; `None` for a socket that is not of the Internet family.
    pub fn address(&self) -> Option<SocketAddr> {
        rustix::net::getsockname(self.as_fd()).ok()?.try_into().ok()
    }

    /// Accepts the next connection.
    pub fn accept(&self) -> io::Result<(OwnedFd, Peer)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, peer) = rustix::net::acceptfrom_with(self.as_fd(), flags)?;
        let peer = match peer {
            Some(peer) if peer.address_family() == AddressFamily::UNIX => Peer::Local,
            Some(peer) => SocketAddr::try_from(peer).map_or(Peer::NOBODY, Peer::from),
            None => Peer::NOBODY,
        };
        Ok((above_standard(socket)?, peer))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor stays open while a `Listener` uses it. A program that closes it all the
        // same makes the calls fail, or concern what it has opened instead.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = shared.iter().position(|entry| self.is(entry)) else {
            return;
        };
        shared[at].users -= 1;
        if shared[at].users > 0 {
            return;
        }
        let entry = shared.swap_remove(at);
        if identity(self.as_fd()).is_ok_and(|now| now == entry.identity) {
            // SAFETY: no other listener uses the descriptor, and it still is the socket that was
            // taken over.
            drop(unsafe { OwnedFd::from_raw_fd(entry.fd) });
        }
    }
}

fn identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Moves a descriptor away from 0, 1 and 2, which a daemon closes and reopens.
pub fn above_standard(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&fd, 3)?)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_number_that_means_another_socket_now_is_left_alone_by_who_used_the_old_one() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let old = Listener::bind(address).expect("bound");
        let socket = std::net::TcpListener::bind(address).expect("bound");
        // The program closes the socket, and another one gets its number.
        // SAFETY: the old socket is not used by its number any more.
        let number = unsafe { libc::dup2(socket.as_raw_fd(), old.fd()) };
        drop(socket);
        let new = Listener::adopt(number).expect("a listening socket");
        assert!(!new.is_shared() && !old.is_shared());
        drop(old);
        assert!(new.address().is_some());
        let meaning = new.identity;
        drop(new);
        // SAFETY: the descriptor is only asked for its identity, which fails cleanly if it is not
        // open.
        let now = identity(unsafe { BorrowedFd::borrow_raw(number) });
        assert!(now.is_err() || now.is_ok_and(|now| now != meaning));
    }
}
