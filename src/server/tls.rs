//! Connections that speak TLS: between the socket, the session, and the bytes that the rest of the
//! server knows.
//!
//! Input is decrypted into `scratch`, all that has arrived at once, so that nothing readable is
//! hidden in a session and the events of the socket are still all there is to wait for. Output waits
//! unencrypted, as it does for any connection, and is encrypted in portions when the socket has
//! taken the ones before.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::net::SendFlags;

use super::connection::{Conn, Phase};
use super::intake::{Refill, make_room, receive};
use super::step::Flow;
use super::{FORKS, SCRATCH, Server};
use crate::options::OptionId;
use crate::tls::{Identity, Session};

/// Records that are received and decrypted at once.
const WIRE: usize = SCRATCH * 3 / 4;

/// The answer to who does not speak TLS where it is spoken.
const NOT_PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 39\r\nConnection: close\r\n\r\nThis port speaks TLS: ask for https://\n";

/// What a server has for all its connections that speak TLS.
#[derive(Default)]
pub(super) struct Tls {
    /// Who the server is for new connections; absent while it speaks plain HTTP.
    identity: Option<Identity>,
    /// Records as they arrive, and as they are sent.
    received: Vec<u8>,
    sealed: Vec<u8>,
}

impl Tls {
    /// What a new connection needs; `None` for one that is plain. An error means that it cannot be
    /// served.
    pub fn open(&self) -> Result<Option<Box<Session>>, ()> {
        match &self.identity {
            None => Ok(None),
            Some(identity) => Session::open(identity).map(Some).ok_or(()),
        }
    }
}

impl Server {
    /// Reads the certificate that new connections are shown from now on.
    pub(super) fn set_certificate(&mut self, value: Option<&[u8]>) -> Result<(), &'static CStr> {
        let identity = value.map(|path| Identity::load(Path::new(OsStr::from_bytes(path))));
        let identity = identity.transpose().map_err(|refusal| {
            self.complain(None, &refusal.detail);
            refusal.sentence
        })?;
        self.options.set(OptionId::SslCertificate, value)?;
        self.tls.identity = identity;
        Ok(())
    }

    /// Receives records, and decrypts them into `scratch` behind the unread input.
    #[inline(never)]
    pub(super) fn refill_sealed(&mut self, index: usize) -> Refill {
        // What is decrypted is shorter than what it was.
        if !make_room(&mut self.scratch, &mut self.input, WIRE + 1) {
            return Refill::Lost;
        }
        let wire = &mut self.tls.received;
        wire.resize(WIRE, 0);
        loop {
            let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
                return Refill::Lost;
            };
            let Some(session) = conn.tls.as_deref_mut() else { return Refill::Lost };
            if !conn.readable {
                return Refill::Wait;
            }
            if self.quota == 0 {
                self.make_ready(index);
                return Refill::Wait;
            }
            let wire = &mut self.tls.received;
            let begin = session.begin_input(wire);
            let count = match receive(&conn.socket, &mut wire[begin..]) {
                Ok(0) => {
                    (conn.eof, conn.readable) = (true, false);
                    return Refill::Eof;
                }
                Ok(count) => count,
                Err(rustix::io::Errno::AGAIN) => {
                    conn.readable = false;
                    return Refill::Wait;
                }
                Err(_) => return Refill::Lost,
            };
            conn.readable = begin + count == wire.len() || conn.read_closed;
            conn.last_active = self.clock.now;
            self.look += 1;
            self.quota = self.quota.saturating_sub(count);
            let (was_fresh, was_handshaking) = (session.is_fresh(), session.is_handshaking());
            let (scratch, end) = (&mut self.scratch, &mut self.input.end);
            let before = *end;
            let received = session.receive(&mut wire[..begin + count], |piece| {
                if let Some(place) = scratch.get_mut(*end..*end + piece.len()) {
                    place.copy_from_slice(piece);
                    *end += piece.len();
                }
            });
            let ended = match received {
                Ok(ended) => ended,
                Err(error) => {
                    let is_text = was_fresh && wire[0].is_ascii_alphabetic();
                    return self.fail_session(index, is_text, &error);
                }
            };
            if ended {
                (conn.eof, conn.readable) = (true, false);
            }
            let is_idle = self.input.is_empty() && !session.has_partial();
            if !session.is_handshaking()
                && (was_handshaking || is_idle && conn.phase == Phase::Head)
            {
                // What came so far belonged to no request.
                conn.begun = false;
                conn.since = self.clock.now;
            }
            if self.input.end > before {
                return Refill::Got;
            }
            if ended {
                return Refill::Eof;
            }
        }
    }

    /// What the client sent is no TLS, or breaks its rules: it is told, and the connection ends.
    fn fail_session(&mut self, index: usize, is_text: bool, error: &str) -> Refill {
        if is_text {
            self.complain(Some(index), "plain HTTP where TLS is spoken");
            if let Some(conn) = self.conn(index) {
                conn.tls = None;
            }
            let Some(out) = self.outbox(index) else { return Refill::Lost };
            out.bytes.extend_from_slice(NOT_PLAIN);
        } else {
            self.complain(Some(index), &format!("TLS: {error}"));
        }
        let flushed = self.flush(index);
        let Some(conn) = self.conn(index).filter(|_| flushed) else { return Refill::Lost };
        if conn.phase != Phase::Head || !is_text && conn.backlog() > 0 {
            return Refill::Lost;
        }
        conn.phase = Phase::Draining;
        conn.linger = true;
        conn.begun = false;
        self.input = 0..0;
        Refill::Wait
    }

    /// The handshake took too long.
    #[cold]
    pub(super) fn give_up_handshake(&mut self, index: usize) -> Flow {
        self.complain(Some(index), "TLS: the handshake took too long");
        self.close(index);
        Flow::Leave
    }

    /// Encrypts and sends as much as the socket takes. False if the connection has failed.
    #[inline(never)]
    pub(super) fn send_sealed(&mut self, index: usize, flags: SendFlags) -> bool {
        let now = self.clock.now;
        if self.forks != FORKS.load(Ordering::Relaxed) {
            // A child must not send under the keys of its parent. It drops them when it polls.
            return true;
        }
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else { return false };
        let Some(session) = conn.tls.as_deref_mut() else { return true };
        let records = &mut self.tls.sealed;
        let is_last = conn.phase == Phase::Draining;
        while conn.writable {
            let plain = conn.out.as_ref().map_or(&[][..], |out| out.pending());
            if session.fill(plain, is_last, records).is_err() {
                return false;
            }
            if records.is_empty() {
                break;
            }
            match rustix::net::send(&conn.socket, records, flags | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    // A websocket lives by what it receives.
                    if conn.socket_state.is_none() {
                        conn.last_active = now;
                    }
                    if count < records.len() {
                        conn.writable = false;
                    }
                    let done = session.sent(records, count);
                    if let Some(out) = conn.out.as_mut() {
                        out.consume(done);
                    }
                }
                Err(rustix::io::Errno::INTR) => {
                    session.sent(records, 0);
                }
                Err(rustix::io::Errno::AGAIN) => {
                    session.sent(records, 0);
                    conn.writable = false;
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// Says that nothing more is sent, on a connection that is about to be closed, unless that cuts
    /// an answer off: the client must be able to tell.
    #[cold]
    pub(super) fn say_goodbye(&mut self, conn: &mut Conn) {
        let answer_has_begun = conn.exchange.as_ref().is_some_and(|exchange| exchange.status != 0);
        let is_cut = match conn.phase {
            Phase::Head | Phase::Draining | Phase::Lingering | Phase::Websocket => false,
            // It has no other end.
            Phase::Answering => false,
            Phase::Body | Phase::Deciding | Phase::Working => answer_has_begun,
            Phase::Calling | Phase::Sending | Phase::Relaying => true,
        };
        let is_child = self.forks != FORKS.load(Ordering::Relaxed);
        if is_cut || is_child || !conn.writable || conn.gone || conn.backlog() > 0 {
            return;
        }
        let Some(session) = conn.tls.as_deref_mut() else { return };
        let records = &mut self.tls.sealed;
        if session.fill(&[], true, records).is_ok() && !records.is_empty() {
            // Who has gone need not be told.
            let _ = rustix::net::send(&conn.socket, records, SendFlags::NOSIGNAL);
        }
    }
}
