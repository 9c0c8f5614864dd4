//! From a listening socket to a connection of the server's, or to its refusal.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use super::connection::{Conn, Phase};
use super::listener::Listener;
use super::tls::Opening;
use super::{Server, open_spare};
use crate::shared::slots;

/// The way in: what a server listens on, and what it knows of those who come.
pub(super) struct Acceptor {
    pub listener: Option<Listener>,
    /// Given up for a moment to turn a client away when there is no descriptor left.
    pub spare_fd: Option<OwnedFd>,
    /// Nobody is accepted for now.
    pub paused: bool,
    /// Connections that may still be accepted in this turn.
    pub left: usize,
    /// Connections accepted so far.
    pub accepted: u32,
    /// What became lately of reading connections as soon as they were accepted.
    pub first_reads: u32,
}

impl Default for Acceptor {
    fn default() -> Self {
        Self { listener: None, spare_fd: None, paused: false, left: 0, accepted: 0, first_reads: 1 }
    }
}

impl Server {
    /// Accepts one connection and returns its index.
    pub(super) fn accept(&mut self) -> Option<usize> {
        // There is nowhere to read to before there is an event queue, and no news of what comes.
        self.poll.as_ref()?;
        let maximum = self.cx.options.config.max_connections;
        while self.acceptor.left > 0 {
            let listener = self.acceptor.listener.as_mut()?;
            if !listener.ready || self.acceptor.paused {
                return None;
            }
            if maximum > 0 && self.open >= maximum {
                // The others wait in the kernel's queue until a place is free.
                self.acceptor.paused = true;
                return None;
            }
            self.acceptor.left -= 1;
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
                        self.cx.complain(&format!("cannot accept: {error}"));
                        self.acceptor.paused = true;
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
        let had = self.acceptor.spare_fd.take().is_some();
        let accepted = match &self.acceptor.listener {
            Some(listener) if had => listener.accept().map(drop),
            _ => Err(std::io::ErrorKind::Other.into()),
        };
        self.acceptor.spare_fd = open_spare();
        match accepted {
            Ok(()) => self.cx.complain("out of file descriptors: a client is turned away"),
            Err(error) => {
                // Tried again when the next client knocks, or a connection closes.
                self.acceptor.paused = true;
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    self.cx.complain("out of file descriptors: clients have to wait");
                }
            }
        }
    }

    fn adopt(&mut self, socket: OwnedFd, peer: SocketAddr) -> Option<usize> {
        let (phase, tls) = match self.cx.tls.open()? {
            Opening::Plain => (Phase::Head, None),
            Opening::Tls(session) => (Phase::Head, Some(session)),
            Opening::Nothing => (Phase::Barred, None),
        };
        let slot = slots::acquire()?;
        let index = match self.free.pop() {
            Some(index) => index as usize,
            None => {
                if self.conns.try_reserve(1).is_err() {
                    slots::release(slot, false);
                    return None;
                }
                self.conns.push(None);
                self.conns.len() - 1
            }
        };
        slot.open(self.cx.hub, index as u32, peer, self.cx.param);
        let socket = mio::net::TcpStream::from_std(TcpStream::from(socket));
        self.conns[index] = Some(Box::new(Conn {
            slot,
            number: self.acceptor.accepted,
            socket,
            peer,
            phase,
            readable: true,
            writable: true,
            read_closed: false,
            eof: false,
            gone: false,
            registered: false,
            held_back: false,
            queued: false,
            dirty: false,
            paused: false,
            blank: 0,
            // The handshake is to be over in the time that a request has.
            begun: tls.is_some() || phase == Phase::Barred,
            timed_out: false,
            linger: false,
            last_active: self.cx.clock.now,
            since: self.cx.clock.now,
            discarded: 0,
            input: Vec::new(),
            out: None,
            exchange: None,
            socket_state: None,
            tls,
        }));
        self.open += 1;
        let Self { conns, cx, .. } = self;
        if let Some(conn) = conns.get_mut(index).and_then(Option::as_deref_mut) {
            conn.set_timer(cx);
        }
        Some(index)
    }
}
