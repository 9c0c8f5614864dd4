//! From a listening socket to a connection of the server's, or to its refusal. POSIX `accept`.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use super::Server;
use super::events::open_spare;
use super::listener::Listener;
use crate::connection::Conn;
use crate::options::OptionId;
use crate::shared::pool;

/// Connections accepted in one turn before others have theirs.
const ACCEPTS_PER_TURN: usize = 128;
/// Reading a connection as soon as it is accepted pays when this is not too seldom successful:
/// success weighs so much more than failure.
const FIRST_READ_GAIN: u32 = 3;
const MAX_FIRST_READS: u32 = 16 * FIRST_READ_GAIN;
/// One in so many is read at once in any case, to notice when times change.
const FIRST_READ_PROBE: u32 = 32;

/// The way in: the listening socket of a server, and what is known of those who come.
pub(super) struct Acceptor {
    listener: Option<Listener>,
    /// Given up for a moment to turn a client away when there is no descriptor left.
    spare_fd: Option<OwnedFd>,
    /// For now no connection is accepted.
    is_paused: bool,
    /// Connections that may still be accepted in this turn.
    left: usize,
    /// Connections accepted so far.
    accepted: u32,
    /// What became lately of reading connections as soon as they were accepted.
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
    /// The listening socket.
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// Listens on another socket, or on none.
    pub fn replace(&mut self, listener: Option<Listener>) {
        self.listener = listener;
    }

    /// Keeps a descriptor that can be given up.
    pub fn open_spare(&mut self) {
        self.spare_fd = open_spare();
    }

    /// As when no descriptor is left to keep one.
    #[cfg(test)]
    pub fn give_up_spare(&mut self) {
        self.spare_fd = None;
    }

    /// Grants the connections of another turn.
    pub fn begin_turn(&mut self) {
        self.left = ACCEPTS_PER_TURN;
    }

    /// Whether there may be a connection to accept.
    pub fn is_busy(&self) -> bool {
        let is_ready =
            self.listener.as_ref().is_some_and(|listener| listener.ready && listener.registered);
        is_ready && !self.is_paused
    }

    /// The kernel has announced a connection.
    pub fn note_event(&mut self) {
        if let Some(listener) = &mut self.listener {
            listener.ready = true;
        }
        self.is_paused = false;
    }

    /// Accepts again: a place or a descriptor may be free.
    pub fn resume(&mut self) {
        self.is_paused = false;
    }

    /// Its event queue is the parent's, in the child of a fork.
    pub fn leave_parent(&mut self) {
        if let Some(listener) = &mut self.listener {
            listener.registered = false;
        }
    }

    /// Whether a connection that was just accepted is worth reading from. If a request is there,
    /// the kernel need not be asked to announce it; if there is none, a call is wasted. So it goes by
    /// what came of it lately.
    pub fn may_have_sent(&mut self) -> bool {
        self.accepted = self.accepted.wrapping_add(1);
        let tries = self.first_reads > 0 || self.accepted.is_multiple_of(FIRST_READ_PROBE);
        if tries {
            // Taken back if nothing comes of it.
            self.first_reads = (self.first_reads + FIRST_READ_GAIN).min(MAX_FIRST_READS);
        }
        tries
    }

    /// Nothing came of reading a connection at once.
    pub fn note_vain_read(&mut self) {
        self.first_reads = self.first_reads.saturating_sub(1 + FIRST_READ_GAIN);
    }
}

impl Server {
    /// Accepts one connection and returns its index.
    pub(super) fn accept(&mut self) -> Option<u32> {
        // There is nowhere to read to before there is an event queue, and no news of what comes.
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
                // The others wait in the kernel's queue until a place is free.
                acceptor.is_paused = true;
                return None;
            }
            acceptor.left -= 1;
            match listener.accept() {
                Ok((socket, peer)) => {
                    let acl = self.cx.options.config.access_control_list.as_ref();
                    if acl.is_some_and(|acl| !acl.allows(peer.ip())) {
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

    /// Without a descriptor a client can be neither served nor refused: a spare one is given up
    /// for the moment it takes to close the connection. The kernel complains of descriptors before it looks
    /// whether there is a client at all.
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
                // Tried again when the next client knocks, or a connection closes.
                acceptor.is_paused = true;
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    self.cx.complain("out of file descriptors: clients have to wait");
                }
            }
        }
    }

    fn adopt(&mut self, socket: OwnedFd, peer: SocketAddr) -> Option<u32> {
        let opening = self.cx.tls.open()?;
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

    /// Has the kernel announce connections, unless it does.
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
                // Connections that came before are not announced again.
                listener.ready = true;
            }
            Err(error) => self.cx.complain(&format!("cannot watch the listening socket: {error}")),
        }
    }
}
