//! The way from the listening sockets to a connection of the server, or to the refusal of a client
//! (POSIX `accept`).
//!
//! Owns how many connections are accepted in a turn, and when accepting pauses. Refuses to know
//! what clients ask for.

use std::cell::Cell;
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use super::Server;
use super::events::open_spare;
use super::listener::Listener;
use super::ports::secure_port;
use crate::connection::{Conn, Manner};
use crate::peer::Peer;
use crate::shared::pool;
use crate::shared::slots::Slot;

/// The largest number of connections that are accepted in one turn, before others have theirs.
const ACCEPTS_PER_TURN: usize = 128;
/// What Linux passes on from the network when a client is accepted: it is about that client alone.
const NETWORK_ERRORS: [i32; 7] = [
    libc::ENETDOWN,
    libc::ENOPROTOOPT,
    libc::EHOSTDOWN,
    libc::ENONET,
    libc::EHOSTUNREACH,
    libc::EOPNOTSUPP,
    libc::ENETUNREACH,
];
/// The weight of a successful read against one in vain. Reading a connection as soon as it is
/// accepted pays unless it is in vain much more often than not.
const FIRST_READ_GAIN: u32 = 3;
const MAX_FIRST_READS: u32 = 16 * FIRST_READ_GAIN;
/// One connection of this many is read at once in any case, to notice when clients change their
/// ways.
const FIRST_READ_PROBE: u32 = 32;

/// The listening sockets of a server, and the experience with new connections.
pub(super) struct Acceptor {
    listeners: Vec<Listener>,
    /// The listener that is asked next, so that each has its share of a turn.
    next: usize,
    /// A descriptor that is given up for a moment, to turn a client away when no other is left.
    spare_fd: Option<OwnedFd>,
    /// Set while `max_connections` are open.
    is_full: bool,
    /// Set if a listener may have a connection: a look at all of them in each turn would cost more.
    may_be_busy: Cell<bool>,
    /// Set if a call of a listener may be put off.
    rests: bool,
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
            listeners: Vec::new(),
            next: 0,
            spare_fd: None,
            is_full: false,
            may_be_busy: Cell::new(false),
            rests: false,
            left: 0,
            accepted: 0,
            first_reads: 1,
        }
    }
}

impl Acceptor {
    /// Returns the listening sockets.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Gives the listening sockets away.
    pub fn take(&mut self) -> Vec<Listener> {
        std::mem::take(&mut self.listeners)
    }

    /// Listens on these sockets.
    pub fn listen_on(&mut self, listeners: Vec<Listener>) {
        debug_assert!(self.listeners.is_empty(), "sockets that are watched would be forgotten");
        self.listeners = listeners;
        self.next = 0;
        self.may_be_busy.set(true);
        // Those that are watched already keep their places among the tokens.
        let is_watched = |listener: &Listener| listener.registered;
        let mut used: Vec<usize> =
            self.listeners.iter().filter(|l| is_watched(l)).map(|l| l.place).collect();
        for listener in self.listeners.iter_mut().filter(|listener| !listener.registered) {
            listener.place = (0..).find(|place| !used.contains(place)).unwrap_or_default();
            used.push(listener.place);
        }
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

    /// Allows the connections of another turn, and the calls that are due again.
    pub fn begin_turn(&mut self, now: u32) {
        self.left = ACCEPTS_PER_TURN;
        if !self.rests {
            return;
        }
        self.may_be_busy.set(true);
        for listener in &mut self.listeners {
            listener.rests_until = listener.rests_until.filter(|until| is_ahead(*until, now));
        }
        self.rests = self.listeners.iter().any(|listener| listener.rests_until.is_some());
    }

    /// Returns whether there may be a connection to accept.
    #[inline]
    pub fn is_busy(&self) -> bool {
        self.may_be_busy.get() && self.has_busy_listener()
    }

    #[inline(never)]
    fn has_busy_listener(&self) -> bool {
        let may_accept = |listener: &Listener| listener.registered && listener.may_accept();
        let is_busy = self.listeners.iter().any(may_accept);
        self.may_be_busy.set(is_busy);
        is_busy && !self.is_full
    }

    /// Returns whether another attempt to accept is due in this turn.
    #[inline]
    pub fn may_accept(&self) -> bool {
        self.left > 0 && self.is_busy()
    }

    /// Returns the milliseconds until a call that failed is due again.
    pub fn wait(&self, now: u32) -> Option<u32> {
        if !self.rests {
            return None;
        }
        let until = self.listeners.iter().filter_map(|listener| listener.rests_until);
        until.map(|until| if is_ahead(until, now) { until.wrapping_sub(now) } else { 0 }).min()
    }

    /// Notes that the kernel has announced a connection of the socket with this place.
    pub fn note_event(&mut self, place: usize) {
        if let Some(listener) = self.listeners.iter_mut().find(|listener| listener.place == place) {
            listener.ready = true;
            listener.rests_until = None;
        }
        self.is_full = false;
        self.may_be_busy.set(true);
    }

    /// Accepts connections again, since a place or a descriptor may be free.
    pub fn resume(&mut self) {
        if self.spare_fd.is_none() {
            // It could not be opened when it was given up last.
            self.open_spare();
        }
        self.is_full = false;
        self.may_be_busy.set(true);
        for listener in &mut self.listeners {
            listener.rests_until = None;
        }
    }

    /// Leaves the events of the listening sockets to the parent, in the child of a fork.
    pub fn leave_parent(&mut self) {
        for listener in &mut self.listeners {
            listener.registered = false;
        }
    }

    /// Returns the next socket that may have a connection, in rotation.
    fn next_ready(&mut self) -> Option<usize> {
        let count = self.listeners.len();
        let order = (self.next..count).chain(0..self.next.min(count));
        let at = order.into_iter().find(|at| self.listeners[*at].may_accept())?;
        self.next = at + 1;
        Some(at)
    }

    /// Returns whether a connection that was just accepted is to be read at once. If a request is
    /// there, the kernel need not announce it; if there is none, a call is wasted. Recent success
    /// decides.
    pub fn may_have_sent(&mut self) -> bool {
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
        while self.acceptor.left > 0 && !self.acceptor.is_full {
            let at = self.acceptor.next_ready()?;
            if maximum > 0 && self.conns.open() >= maximum {
                // Further connections wait in the kernel's queue until a place is free.
                self.acceptor.is_full = true;
                return None;
            }
            self.acceptor.left -= 1;
            let listener = &mut self.acceptor.listeners[at];
            match listener.accept() {
                Ok((socket, peer)) => {
                    let manner = listener.manner;
                    let acl = self.cx.options.config.access_control_list.as_ref();
                    if acl.is_some_and(|acl| !acl.allows(peer)) {
                        continue;
                    }
                    if let Some(index) = self.adopt(socket, peer, manner) {
                        return Some(index);
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => listener.ready = false,
                    Some(libc::EMFILE | libc::ENFILE) => self.turn_away(at),
                    // The client left while it waited, or a signal came.
                    Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO) => {}
                    Some(error) if NETWORK_ERRORS.contains(&error) => {}
                    _ => {
                        listener.rest(self.cx.clock.now);
                        self.acceptor.rests = true;
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
    pub(super) fn turn_away(&mut self, at: usize) {
        let acceptor = &mut self.acceptor;
        let Some(listener) = acceptor.listeners.get_mut(at) else { return };
        let had = acceptor.spare_fd.take().is_some();
        let accepted = match had {
            true => listener.accept().map(drop),
            false => Err(std::io::ErrorKind::Other.into()),
        };
        match &accepted {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => listener.ready = false,
            // Descriptors may be free again without an event.
            Err(_) => {
                listener.rest(self.cx.clock.now);
                acceptor.rests = true;
            }
        }
        acceptor.open_spare();
        match accepted {
            Ok(()) => self.cx.complain("out of file descriptors: a client is turned away"),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => self.cx.complain("out of file descriptors: clients have to wait"),
        }
    }

    /// Makes a connection of an accepted socket, and returns its index.
    fn adopt(&mut self, socket: OwnedFd, peer: Peer, manner: Manner) -> Option<u32> {
        let Some(opening) = self.cx.tls.open(manner.speech()) else {
            self.cx.complain_of(peer, "TLS cannot be spoken: the connection is closed");
            return None;
        };
        let Some((slot, index)) = self.find_place() else {
            self.cx.complain_of(peer, "no memory for a connection: it is closed");
            return None;
        };
        slot.open(self.cx.hub, index, peer, self.cx.param);
        let socket = mio::net::TcpStream::from_std(TcpStream::from(socket));
        // Each has a number of its own, also those of TLS: where the child of a fork holds the socket of one that
        // has closed, the kernel goes on announcing events of that one.
        self.acceptor.accepted = self.acceptor.accepted.wrapping_add(1);
        let number = self.acceptor.accepted;
        let trusted = self.cx.options.config.trusted_proxies.as_ref();
        let is_proxy = trusted.is_some_and(|trusted| trusted.contains(peer));
        let numbers = (number, self.cx.clock.now);
        let conn = Conn::new(slot, socket, peer, is_proxy, manner, opening, numbers);
        self.conns.put(index, conn)?.set_timer(&mut self.cx);
        Some(index)
    }

    /// Finds a slot and an index for one more connection. `None` means that there is no memory.
    fn find_place(&mut self) -> Option<(&'static Slot, u32)> {
        let slot = pool::acquire()?;
        match self.conns.reserve() {
            Some(index) => Some((slot, index)),
            None => {
                pool::release(slot, false);
                None
            }
        }
    }

    /// Has the kernel announce connections of all listening sockets. Returns false if it cannot for
    /// now, so that it is to be asked again soon.
    pub(super) fn watch_listeners(&mut self) -> bool {
        let is_watched = |listener: &Listener| listener.registered;
        if self.acceptor.listeners.iter().all(is_watched) {
            return true;
        }
        self.drop_closed_listeners();
        let mut is_complete = true;
        for listener in &mut self.acceptor.listeners {
            if listener.registered {
                continue;
            }
            // Connections that came before are not announced any more.
            listener.ready = true;
            match self.queue.watch_listener(listener.fd(), listener.place) {
                Ok(watched) => {
                    listener.registered = watched;
                    self.acceptor.may_be_busy.set(true);
                }
                Err(error) => {
                    is_complete = false;
                    self.cx.complain(&format!("cannot watch the listening socket: {error}"));
                }
            }
        }
        is_complete
    }

    /// Gives up the listening sockets that the program has closed.
    fn drop_closed_listeners(&mut self) {
        let is_closed = |listener: &Listener| !listener.registered && !listener.is_valid();
        if !self.acceptor.listeners.iter().any(is_closed) {
            return;
        }
        let (closed, left): (Vec<_>, Vec<_>) =
            self.acceptor.take().into_iter().partition(is_closed);
        for listener in closed {
            let fd = listener.fd();
            self.cx.complain(&format!("the program has closed the listening socket ({fd})"));
        }
        self.cx.secure_port = secure_port(&left);
        self.acceptor.listen_on(left);
        self.show_listeners();
    }
}

/// Returns whether a time of the server's clock, which wraps, is still to come.
fn is_ahead(time: u32, now: u32) -> bool {
    time.wrapping_sub(now).cast_signed() > 0
}
