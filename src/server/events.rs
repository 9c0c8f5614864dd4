//! The kernel's event queue (`epoll`, through mio), and the tokens in it.
//!
//! Owns which descriptors are watched for a server. Refuses to know what follows from an event.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::sockets;
use crate::connection::Conn;
use crate::listening::MAX_ENTRIES;

/// The token of the first listening socket; those of the others follow.
const LISTENERS: usize = usize::MAX - MAX_ENTRIES;
/// The token of the waker for other threads.
pub const WAKER: Token = Token(usize::MAX);
/// The mask of a connection's number in its token, which keeps clear of the tokens above.
const NUMBERS: u64 = (1 << 30) - 1;

/// The largest number of events that are taken from the kernel at once.
const EVENTS: usize = 1024;

/// The event queue, which is made at the first poll, and left to the parent after a fork.
pub struct EventQueue {
    poll: Option<mio::Poll>,
    events: mio::Events,
}

impl EventQueue {
    /// Creates a queue that is not open.
    pub fn new() -> Self {
        Self { poll: None, events: mio::Events::with_capacity(EVENTS) }
    }

    /// Returns whether the queue is open.
    pub fn is_open(&self) -> bool {
        self.poll.is_some()
    }

    /// Opens the queue. Returns the waker for other threads.
    pub fn open(&mut self) -> io::Result<mio::Waker> {
        let reserved = reserve_standard();
        let poll = mio::Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKER)?;
        drop(reserved);
        self.poll = Some(poll);
        Ok(waker)
    }

    /// Returns the means to watch other descriptors, if the queue is open. It takes a descriptor.
    pub fn registry(&self) -> Option<io::Result<mio::Registry>> {
        let poll = self.poll.as_ref()?;
        let _reserved = reserve_standard();
        Some(poll.registry().try_clone())
    }

    /// Leaves the queue to the parent, in the child of a fork: both processes have the same one.
    pub fn leave(&mut self) {
        self.poll = None;
    }

    /// Waits for events. A wait that a signal interrupts ends early.
    pub fn wait(&mut self, duration: Duration) -> &mio::Events {
        let waited = self.poll.as_mut().map(|poll| poll.poll(&mut self.events, Some(duration)));
        if !matches!(waited, Some(Ok(()))) {
            self.events.clear();
        }
        &self.events
    }

    /// Has the kernel announce events of a connection.
    pub fn watch(&self, conn: &mut Conn) -> io::Result<()> {
        let Some(poll) = &self.poll else { return Ok(()) };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = token_of(conn);
        poll.registry().register(&mut conn.wire.socket, token, interest)?;
        conn.wire.registered = true;
        Ok(())
    }

    /// Ends the events of a connection that is about to be closed, on 32-bit machines. A forked child may
    /// hold the same socket open, so that closing it would not end its events, and a token of 32 bits
    /// cannot tell them from those of the next connection with its index.
    pub fn unwatch(&self, conn: &mut Conn) {
        if usize::BITS < 64
            && conn.wire.registered
            && let Some(poll) = &self.poll
        {
            let _ = poll.registry().deregister(&mut conn.wire.socket);
        }
    }

    /// Has the kernel announce connections of a listening socket, by its place among the tokens.
    /// Returns true if it does so from now on.
    pub fn watch_listener(&self, fd: i32, place: usize) -> io::Result<bool> {
        let Some(poll) = &self.poll else { return Ok(false) };
        let token = Token(LISTENERS + place);
        poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        Ok(true)
    }

    /// Ends the events of a listening socket. Closing it does not end them while another process
    /// holds it open.
    pub fn unwatch_listener(&self, fd: i32) {
        if let Some(poll) = &self.poll {
            let _ = poll.registry().deregister(&mut SourceFd(&fd));
        }
    }
}

/// Returns the token of a connection: its index and, where a word is wide enough, a number that
/// tells it from earlier and later connections with the same index.
pub fn token_of(conn: &Conn) -> Token {
    let number = u64::from(conn.number) & NUMBERS;
    Token((number << 32 | u64::from(conn.wire.index())) as usize)
}

/// Returns the place of a listening socket, if the token is that of one.
pub fn listener_of(Token(token): Token) -> Option<usize> {
    token.checked_sub(LISTENERS).filter(|place| *place < MAX_ENTRIES)
}

/// Returns the index in the token of a connection.
pub fn index_of(Token(token): Token) -> u32 {
    token as u32
}

/// Keeps descriptors 0 to 2 taken until the result is dropped, so that descriptors that are opened
/// meanwhile get higher numbers.
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

/// Opens a descriptor that can be given up to make room for another.
pub fn open_spare() -> Option<OwnedFd> {
    sockets::above_standard(open_null()?).ok()
}

fn open_null() -> Option<OwnedFd> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()).ok()
}
