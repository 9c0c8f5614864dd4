//! Listening sockets (POSIX `socket`, `bind`, `listen`, `accept`).
//!
//! Several servers may accept from one descriptor. It is closed when the last of them drops it:
//! never twice, and never after its number has come to mean another file. Refuses to know options
//! and connections.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, sockopt};

use super::local_socket::{self, SocketFile};
use super::sockets::{self, BACKLOG, above_standard};
use crate::connection::Manner;
use crate::listening::{Address, Name};
use crate::peer::Peer;

/// The time in milliseconds after which a call that failed is tried again, although nothing says
/// that it will succeed: what was short may be given back by another process, or by the program.
pub const RETRY_MS: u32 = 100;

/// One server's use of a listening socket.
pub struct Listener {
    fd: RawFd,
    /// Device and inode of the socket when it was taken over.
    identity: (u64, u64),
    /// What its connections get.
    pub manner: Manner,
    /// Set if the kernel announces connections.
    pub registered: bool,
    /// Its place among the tokens of the event queue.
    pub place: usize,
    /// Set if there may be a connection to accept.
    pub ready: bool,
    /// Set while nothing is accepted after a failure: the time of the next attempt.
    pub rests_until: Option<u32>,
}

/// A descriptor that listeners use, with their number.
struct Shared {
    fd: RawFd,
    identity: (u64, u64),
    users: usize,
    /// The name in the file system that this process has made for it.
    file: Option<SocketFile>,
}

static SHARED: Mutex<Vec<Shared>> = Mutex::new(Vec::new());

impl Listener {
    /// Binds a socket and listens on it. `mode` is that of a Unix domain socket.
    pub fn bind(address: &Address, mode: Option<u32>) -> io::Result<Self> {
        let (socket, file) = match address {
            Address::Internet(address) => (bind_internet(*address)?, None),
            Address::Local(name) => local_socket::bind(name, mode)?,
        };
        Self::take_over(socket.into_raw_fd(), file)
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
        rustix::io::ioctl_fionbio(borrowed, true)?;
        rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)?;
        Self::take_over(fd, None)
    }

    /// Takes over a listening descriptor, and with it the name that was made for it.
    fn take_over(fd: RawFd, file: Option<SocketFile>) -> io::Result<Self> {
        // SAFETY: as above.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        let identity = identity(borrowed)?;
        // Accepted sockets inherit this option. A Unix socket does not have it.
        let _ = sockopt::set_tcp_nodelay(borrowed, true);

        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|entry| entry.fd != fd || entry.identity == identity);
        match shared.iter_mut().find(|entry| entry.fd == fd) {
            Some(entry) => entry.users += 1,
            None => shared.push(Shared { fd, identity, users: 1, file }),
        }
        Ok(Self {
            fd,
            identity,
            manner: Manner::default(),
            registered: false,
            place: 0,
            ready: true,
            rests_until: None,
        })
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

    /// Returns whether the socket is bound to this address, and still can be reached by it.
    pub fn is_bound_to(&self, address: &Address) -> bool {
        match address {
            Address::Local(Name::Path(path)) => {
                let shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
                let file = shared.iter().find(|entry| self.is(entry)).and_then(|e| e.file.as_ref());
                file.is_some_and(|file| file.is_at(path))
            }
            _ => self.is_valid() && self.address().as_ref() == Some(address),
        }
    }

    /// Sets the mode of a Unix domain socket that this process has bound.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        let shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        match shared.iter().find(|entry| self.is(entry)).and_then(|entry| entry.file.as_ref()) {
            Some(file) => file.set_mode(mode),
            None => Ok(()),
        }
    }

    /// Returns the bound address; `None` for a socket of another kind, or without a name.
    pub fn address(&self) -> Option<Address> {
        let address = rustix::net::getsockname(self.as_fd()).ok()?;
        if address.address_family() != AddressFamily::UNIX {
            return SocketAddr::try_from(address).ok().map(Address::Internet);
        }
        let address = SocketAddrUnix::try_from(address).ok()?;
        let name = match (address.path_bytes(), address.abstract_name()) {
            (Some(path), _) => Name::Path(OsStr::from_bytes(path).into()),
            (None, name) => Name::Abstract(name?.to_vec()),
        };
        Some(Address::Local(name))
    }

    /// Returns the bound Internet address.
    pub fn internet_address(&self) -> Option<SocketAddr> {
        match self.address()? {
            Address::Internet(address) => Some(address),
            Address::Local(_) => None,
        }
    }

    /// Returns whether a connection may be accepted now.
    pub fn may_accept(&self) -> bool {
        self.ready && self.rests_until.is_none()
    }

    /// Accepts nothing for a short time, after a failure that no event will end.
    pub fn rest(&mut self, now: u32) {
        self.rests_until = Some(now.wrapping_add(RETRY_MS));
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
        let mut entry = shared.swap_remove(at);
        if let Some(file) = entry.file.take() {
            file.remove();
        }
        if identity(self.as_fd()).is_ok_and(|now| now == entry.identity) {
            // SAFETY: no other listener uses the descriptor, and it still is the socket that was
            // taken over.
            drop(unsafe { OwnedFd::from_raw_fd(entry.fd) });
        }
    }
}

/// Binds a socket to an Internet address, and listens on it.
fn bind_internet(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = sockets::open(family)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn a_number_that_means_another_socket_now_is_left_alone_by_who_used_the_old_one() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let old = Listener::bind(&Address::Internet(address), None).expect("bound");
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
