//! The way from a listening socket to a connection of the server, or to the refusal of a client
//! (POSIX `accept`).
//!
//! Owns how many connections are accepted in a turn, and when accepting pauses. Refuses to know
//! what clients ask for.

use std::net::TcpStream;
use std::os::fd::OwnedFd;

use super::Server;
use super::events::open_spare;
use super::listener::Listener;
use crate::connection::Conn;
use crate::options::OptionId;
use crate::peer::Peer;
use crate::shared::pool;
use crate::tls::port::Speech;

/// The largest number of connections that are accepted in one turn, before others have theirs.
const ACCEPTS_PER_TURN: usize = 128;
/// The weight of a successful read against one in vain. Reading a connection as soon as it is
/// accepted pays unless it is in vain much more often than not.
const FIRST_READ_GAIN: u32 = 3;
const MAX_FIRST_READS: u32 = 16 * FIRST_READ_GAIN;
/// One connection of this many is read at once in any case, to notice when clients change their
/// ways.
const FIRST_READ_PROBE: u32 = 32;

/// The listening socket of a server, and the experience with new connections.
pub(super) struct Acceptor {
    listener: Option<Listener>,
    /// A descriptor that is given up for a moment, to turn a client away when no other is left.
    spare_fd: Option<OwnedFd>,
    /// Set while no connection is accepted.
    is_paused: bool,
    /// The number of connections that may still be accepted in this turn.
    left: usize,
    /// The number of connections accepted so far.
    accepted: u32,
    /// The recent success of reading connections as soon as they were accepted; none at 0.
    first_reads: u32,
}

impl Default for Acceptor {
    fn default() -> Self {
        Self {
            listener: None,
            spare_fd: None,
            is_paused: false,
            left: 0,
            accepted: 0,
            first_reads: 1,
        }
    }
}

impl Acceptor {
    /// Returns the listening socket.
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// Listens on another socket, or on none.
    pub fn replace(&mut self, listener: Option<Listener>) {
        self.listener = listener;
    }

    /// Opens the descriptor that can be given up.
    pub fn open_spare(&mut self) {
        self.spare_fd = open_spare();
    }

    /// Closes the spare descriptor, as if none were left to keep one.
    #[cfg(test)]
    pub fn give_up_spare(&mut self) {
        self.spare_fd = None;
    }

    /// Allows the connections of another turn.
    pub fn begin_turn(&mut self) {
        self.left = ACCEPTS_PER_TURN;
    }

    /// Returns whether there may be a connection to accept.
    pub fn is_busy(&self) -> bool {
        let is_ready =
            self.listener.as_ref().is_some_and(|listener| listener.ready && listener.registered);
        is_ready && !self.is_paused
    }

    /// Returns whether another attempt to accept is due in this turn.
    pub fn may_accept(&self) -> bool {
        self.left > 0 && self.is_busy()
    }

    /// Notes that the kernel has announced a connection.
    pub fn note_event(&mut self) {
        if let Some(listener) = &mut self.listener {
            listener.ready = true;
        }
        self.is_paused = false;
    }

    /// Accepts connections again, since a place or a descriptor may be free.
    pub fn resume(&mut self) {
        self.is_paused = false;
    }

    /// Leaves the events of the listening socket to the parent, in the child of a fork.
    pub fn leave_parent(&mut self) {
        if let Some(listener) = &mut self.listener {
            listener.registered = false;
        }
    }

    /// Returns whether a connection that was just accepted is to be read at once. If a request is
    /// there, the kernel need not announce it; if there is none, a call is wasted. Recent success
    /// decides.
    pub fn may_have_sent(&mut self) -> bool {
        self.accepted = self.accepted.wrapping_add(1);
        let tries = self.first_reads > 0 || self.accepted.is_multiple_of(FIRST_READ_PROBE);
        if tries {
            // This is taken back if the read is in vain.
            self.first_reads = (self.first_reads + FIRST_READ_GAIN).min(MAX_FIRST_READS);
        }
        tries
    }

    /// Notes that reading a connection at once was in vain.
    pub fn note_vain_read(&mut self) {
        self.first_reads = self.first_reads.saturating_sub(1 + FIRST_READ_GAIN);
    }
}

impl Server {
    /// Accepts one connection and returns its index.
    pub(super) fn accept(&mut self) -> Option<u32> {
        // Before the event queue is open there is no buffer to read into, and no event.
        if !self.queue.is_open() {
            return None;
        }
        let maximum = self.cx.options.config.max_connections;
        while self.acceptor.left > 0 {
            let acceptor = &mut self.acceptor;
            let listener = acceptor.listener.as_mut()?;
            if !listener.ready || acceptor.is_paused {
                return None;
            }
            if maximum > 0 && self.conns.open() >= maximum {
                // Further connections wait in the kernel's queue until a place is free.
                acceptor.is_paused = true;
                return None;
            }
            acceptor.left -= 1;
            match listener.accept() {
                Ok((socket, peer)) => {
                    let acl = self.cx.options.config.access_control_list.as_ref();
                    if acl.is_some_and(|acl| !acl.allows(peer)) {
                        continue;
                    }
                    if let Some(index) = self.adopt(socket, peer) {
                        return Some(index);
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => listener.ready = false,
                    Some(libc::EMFILE | libc::ENFILE) => self.turn_away(),
                    // The client left while it waited, or a signal came.
                    Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO) => {}
                    _ => {
                        acceptor.is_paused = true;
                        self.cx.complain(&format!("cannot accept: {error}"));
                    }
                },
            }
        }
        None
    }

    /// Accepts a client and closes its connection at once, since there is no descriptor to serve it
    /// with: the spare one is given up for that moment. The kernel reports a lack of descriptors
    /// before it looks whether a client waits at all.
    pub(super) fn turn_away(&mut self) {
        let acceptor = &mut self.acceptor;
        let had = acceptor.spare_fd.take().is_some();
        let accepted = match &acceptor.listener {
            Some(listener) if had => listener.accept().map(drop),
            _ => Err(std::io::ErrorKind::Other.into()),
        };
        acceptor.open_spare();
        match accepted {
            Ok(()) => self.cx.complain("out of file descriptors: a client is turned away"),
            Err(error) => {
                // The next attempt follows when another client connects, or when a connection
                // closes.
                acceptor.is_paused = true;
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    self.cx.complain("out of file descriptors: clients have to wait");
                }
            }
        }
    }

    /// Makes a connection of an accepted socket, and returns its index.
    fn adopt(&mut self, socket: OwnedFd, peer: Peer) -> Option<u32> {
        let opening = self.cx.tls.open(Speech::Any)?;
        let slot = pool::acquire()?;
        let Some(index) = self.conns.reserve() else {
            pool::release(slot, false);
            return None;
        };
        slot.open(self.cx.hub, index, peer, self.cx.param);
        let socket = mio::net::TcpStream::from_std(TcpStream::from(socket));
        let number = self.acceptor.accepted;
        let conn = Conn::new(slot, socket, peer, opening, number, self.cx.clock.now);
        self.conns.put(index, conn)?.set_timer(&mut self.cx);
        Some(index)
    }

    /// Has the kernel announce connections, unless it does so already.
    pub(super) fn watch_listener(&mut self) {
        let Some(listener) = &mut self.acceptor.listener else { return };
        if listener.registered {
            return;
        }
        let fd = listener.fd();
        if !listener.is_valid() {
            self.cx.complain(&format!("the program has closed the listening socket ({fd})"));
            self.replace_listener(None);
            self.cx.options.store_text(OptionId::ListeningPort, None);
            return;
        }
        match self.queue.watch_listener(fd) {
            Ok(watched) => {
                listener.registered = watched;
                // Connections that came before are not announced any more.
                listener.ready = true;
            }
            Err(error) => self.cx.complain(&format!("cannot watch the listening socket: {error}")),
        }
    }
}
