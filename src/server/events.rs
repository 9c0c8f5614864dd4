//! The kernel's event queue (epoll, by mio): what it watches, and how its tokens name that.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::listener;
use crate::connection::Conn;

pub const LISTENER: Token = Token(usize::MAX - 1);
pub const WAKER: Token = Token(usize::MAX);
/// Numbers of connections, which keep clear of these.
const NUMBERS: u64 = (1 << 30) - 1;

/// Events taken from the kernel at once.
const EVENTS: usize = 1024;

/// The queue, which is made at the first poll, and left to the parent after a fork.
pub struct EventQueue {
    poll: Option<mio::Poll>,
    events: mio::Events,
}

impl EventQueue {
    /// A queue that is not open.
    pub fn new() -> Self {
        Self { poll: None, events: mio::Events::with_capacity(EVENTS) }
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.poll.is_some()
    }

    /// Opens it. Returns what wakes it, and the means by which programs have their pipes watched.
    pub fn open(&mut self) -> io::Result<(mio::Waker, mio::Registry)> {
        let reserved = reserve_standard();
        let poll = mio::Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKER)?;
        drop(reserved);
        let registry = poll.registry().try_clone()?;
        self.poll = Some(poll);
        Ok((waker, registry))
    }

    /// Leaves it to the parent, in the child of a fork: it is one with the parent's.
    pub fn leave(&mut self) {
        self.poll = None;
    }

    /// Waits for events. An interrupted wait is a wait that ended early.
    pub fn wait(&mut self, duration: Duration) -> &mio::Events {
        let waited = self.poll.as_mut().map(|poll| poll.poll(&mut self.events, Some(duration)));
        if !matches!(waited, Some(Ok(()))) {
            self.events.clear();
        }
        &self.events
    }

    /// Has the kernel announce what happens to a connection.
    pub fn watch(&self, conn: &mut Conn) -> io::Result<()> {
        let Some(poll) = &self.poll else { return Ok(()) };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = token_of(conn);
        poll.registry().register(&mut conn.wire.socket, token, interest)?;
        conn.wire.registered = true;
        Ok(())
    }

    /// Ends the events of a connection that is about to be closed. A forked child may hold the same socket open:
    /// closing ours would not end its events, and where words are short there is no room in a token to tell
    /// them from those of the next connection.
    pub fn unwatch(&self, conn: &mut Conn) {
        if usize::BITS < 64
            && conn.wire.registered
            && let Some(poll) = &self.poll
        {
            let _ = poll.registry().deregister(&mut conn.wire.socket);
        }
    }

    /// Has the kernel announce connections. True if it does from now on.
    pub fn watch_listener(&self, fd: i32) -> io::Result<bool> {
        let Some(poll) = &self.poll else { return Ok(false) };
        poll.registry().register(&mut SourceFd(&fd), LISTENER, Interest::READABLE)?;
        Ok(true)
    }

    /// Ends the events of a listening socket: closing it does not, while another process holds it open.
    pub fn unwatch_listener(&self, fd: i32) {
        if let Some(poll) = &self.poll {
            let _ = poll.registry().deregister(&mut SourceFd(&fd));
        }
    }
}

/// The name of a connection for the kernel: where it is kept, and, where a word is wide enough, a
/// number that others which were kept there before or will be do not have.
pub fn token_of(conn: &Conn) -> Token {
    let number = u64::from(conn.number) & NUMBERS;
    Token((number << 32 | u64::from(conn.wire.index())) as usize)
}

/// The index in a token of a connection.
pub fn index_of(Token(token): Token) -> u32 {
    token as u32
}

/// Keeps descriptors 0 to 2 taken until dropped, so that what is opened meanwhile gets others.
fn reserve_standard() -> Vec<OwnedFd> {
    let mut reserved = Vec::new();
    while reserved.len() < 3
        && let Some(fd) = open_null()
    {
        if fd.as_raw_fd() > 2 {
            break;
        }
        reserved.push(fd);
    }
    reserved
}

/// A descriptor that can be given up to make room for another.
pub fn open_spare() -> Option<OwnedFd> {
    listener::above_standard(open_null()?).ok()
}

fn open_null() -> Option<OwnedFd> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()).ok()
}
