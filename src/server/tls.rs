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

use rustix::net::SendFlags;

use super::connection::{Conn, Phase};
use super::intake::{Refill, make_room, receive};
use super::step::Flow;
use super::{SCRATCH, Server};
use crate::http::request::Outcome;
use crate::options::OptionId;
use crate::tls::{Identity, Session};

/// Records that are received and decrypted at once.
const WIRE: usize = SCRATCH * 3 / 4;

/// The answer to who does not speak TLS where it is spoken.
const NOT_PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 39\r\nConnection: close\r\n\r\nThis port speaks TLS: ask for https://\n";

/// What new connections speak.
#[derive(Default)]
enum Speaks {
    #[default]
    Plain,
    Tls(Identity),
    /// Nothing: it should be TLS, but what was set for it was refused and nothing older is in force.
    Nothing,
}

/// What a new connection speaks.
pub(super) enum Opening {
    Plain,
    Tls(Box<Session>),
    Nothing,
}

/// What a server has for all its connections that speak TLS.
#[derive(Default)]
pub(super) struct Tls {
    speaks: Speaks,
    /// Records as they arrive, and as they are sent.
    received: Vec<u8>,
    sealed: Vec<u8>,
}

impl Tls {
    /// What a new connection needs. `None` means that it cannot be served.
    pub fn open(&self) -> Option<Opening> {
        match &self.speaks {
            Speaks::Plain => Some(Opening::Plain),
            Speaks::Tls(identity) => Session::open(identity).map(Opening::Tls),
            Speaks::Nothing => Some(Opening::Nothing),
        }
    }
}

/// Takes the session of a connection away, and what is counted of it.
pub(super) fn end_session(conn: &mut Conn, buffered: &mut usize) {
    if let Some(mut session) = conn.tls.take() {
        *buffered = buffered.saturating_sub(session.recount().1);
    }
}

impl Server {
    /// Reads the certificate that new connections are shown from now on.
    pub(super) fn set_certificate(&mut self, value: Option<&[u8]>) -> Result<(), &'static CStr> {
        let identity = value.map(|path| Identity::load(Path::new(OsStr::from_bytes(path))));
        match identity.transpose() {
            Ok(identity) => {
                self.cx.options.set(OptionId::SslCertificate, value)?;
                self.cx.tls.speaks = identity.map_or(Speaks::Plain, Speaks::Tls);
                Ok(())
            }
            Err(refusal) => {
                self.complain(None, &refusal.detail);
                self.fail_closed();
                Err(refusal.sentence)
            }
        }
    }

    /// Something that was set for TLS was refused: where no certificate is in force, plain HTTP must
    /// not take its place. A library without TLS never speaks anything else.
    fn fail_closed(&mut self) {
        if !cfg!(feature = "tls") || !matches!(self.cx.tls.speaks, Speaks::Plain) {
            return;
        }
        self.cx.tls.speaks = Speaks::Nothing;
        for conn in self.conns.iter_mut().flatten() {
            match &mut conn.exchange {
                _ if conn.socket_state.is_some() || conn.tls.is_some() => {}
                // What was asked before is answered.
                Some(exchange) => exchange.last = true,
                None if conn.phase == Phase::Head => conn.phase = Phase::Barred,
                None => {}
            }
        }
    }

    /// Takes a request where TLS is to be spoken and cannot be: it is answered with 503, whatever it
    /// is. By then that may have changed.
    #[cold]
    pub(super) fn turn_down(&mut self, index: usize) -> Flow {
        let (has_input, now) = (!self.cx.input.unread.is_empty(), self.cx.clock.now);
        let opening = self.cx.tls.open();
        let Some(conn) = self.conn(index) else { return Flow::Leave };
        match opening {
            Some(Opening::Nothing) => {}
            Some(Opening::Plain) => {
                conn.phase = Phase::Head;
                return Flow::Again;
            }
            // What has come so far is no TLS.
            Some(Opening::Tls(session)) if !has_input => {
                conn.phase = Phase::Head;
                conn.tls = Some(session);
                (conn.begun, conn.since) = (true, now);
                return Flow::Again;
            }
            Some(Opening::Tls(_)) | None => return self.leave_barred(index),
        }
        let limit = self.cx.options.config.max_request_header_bytes;
        let text = self.cx.input.buf.get(self.cx.input.unread.clone()).unwrap_or_default();
        match text.trim_ascii_start().first() {
            Some(byte) if !byte.is_ascii_alphabetic() => return self.leave_barred(index),
            Some(_) => {
                self.cx.input.unread.start += text.len() - text.trim_ascii_start().len();
                let text = self.cx.input.buf.get(self.cx.input.unread.clone()).unwrap_or_default();
                match self.cx.input.head.parse(text, limit) {
                    Outcome::Complete => return self.refuse_barred(index, true),
                    Outcome::Refused(_) => return self.refuse_barred(index, false),
                    Outcome::Partial => {}
                }
            }
            None if text.len() > limit => return self.leave_barred(index),
            None => {}
        }
        match self.refill(index) {
            Refill::Got => Flow::Again,
            Refill::Wait => Flow::Leave,
            Refill::Eof | Refill::Lost => self.leave_barred(index),
        }
    }

    fn refuse_barred(&mut self, index: usize, parsed: bool) -> Flow {
        self.complain(Some(index), "no certificate is in force: a request is answered with 503");
        // The program's own page of errors is an answer in plain HTTP, too.
        let handler = self.cx.error_handler.take();
        let flow = self.refuse(index, 503, parsed);
        self.cx.error_handler = handler;
        flow
    }

    /// Ends a connection without an answer.
    #[cold]
    pub(super) fn leave_barred(&mut self, index: usize) -> Flow {
        self.close(index);
        Flow::Leave
    }

    /// Receives records, and decrypts them into `scratch` behind the unread input.
    #[inline(never)]
    pub(super) fn refill_sealed(&mut self, index: usize) -> Refill {
        let refill = self.receive_sealed(index);
        self.count_session(index);
        let is_full = self.cx.buffered > self.cx.options.config.max_buffered_bytes;
        if is_full
            && let Some(conn) = self.conn(index)
            && conn.phase == Phase::Head
            && conn.tls.as_ref().is_some_and(|session| session.has_partial())
        {
            self.complain(Some(index), "max_buffered_bytes: part of a TLS record is not kept");
            return Refill::Lost;
        }
        refill
    }

    /// Counts what waits in the session of a connection.
    fn count_session(&mut self, index: usize) {
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else { return };
        let Some(session) = conn.tls.as_deref_mut() else { return };
        let (waiting, counted) = session.recount();
        self.cx.buffered = (self.cx.buffered + waiting).saturating_sub(counted);
    }

    fn receive_sealed(&mut self, index: usize) -> Refill {
        // What is decrypted is shorter than what it was.
        if !make_room(&mut self.cx.input.buf, &mut self.cx.input.unread, WIRE + 1) {
            return Refill::Lost;
        }
        let wire = &mut self.cx.tls.received;
        wire.resize(WIRE, 0);
        loop {
            let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
                return Refill::Lost;
            };
            let Some(session) = conn.tls.as_deref_mut() else { return Refill::Lost };
            if !conn.readable {
                return Refill::Wait;
            }
            if self.cx.turn.bytes == 0 {
                self.make_ready(index);
                return Refill::Wait;
            }
            let wire = &mut self.cx.tls.received;
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
            self.cx.files.look_again();
            self.cx.turn.bytes = self.cx.turn.bytes.saturating_sub(count);
            let (was_fresh, was_handshaking) = (session.is_fresh(), session.is_handshaking());
            let (scratch, end) = (&mut self.cx.input.buf, &mut self.cx.input.unread.end);
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
            // Records without content are no traffic, or they would keep an idle connection for ever. A
            // long record on a slow link is, where content is waited for.
            let awaits_content = matches!(conn.phase, Phase::Body | Phase::Websocket);
            if self.cx.input.unread.end > before
                || was_handshaking
                || awaits_content && session.has_partial()
            {
                conn.last_active = self.cx.clock.now;
            }
            let is_idle = self.cx.input.unread.is_empty() && !session.has_partial();
            if !session.is_handshaking()
                && (was_handshaking || is_idle && conn.phase == Phase::Head)
            {
                // What came so far belonged to no request.
                conn.begun = false;
                conn.since = self.cx.clock.now;
            }
            if self.cx.input.unread.end > before {
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
            if let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) {
                end_session(conn, &mut self.cx.buffered);
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
        self.cx.input.unread = 0..0;
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
        let is_well = self.send_records(index, flags);
        self.count_session(index);
        is_well
    }

    fn send_records(&mut self, index: usize, flags: SendFlags) -> bool {
        let now = self.cx.clock.now;
        if self.cx.is_unnoticed_child() {
            // A child must not send under the keys of its parent. It drops them when it polls.
            return true;
        }
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else { return false };
        let Some(session) = conn.tls.as_deref_mut() else { return true };
        let records = &mut self.cx.tls.sealed;
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
                    // A websocket lives by what it receives, and nobody by what TLS says of itself.
                    if conn.socket_state.is_none() && session.carries() {
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
            Phase::Head | Phase::Barred | Phase::Draining | Phase::Lingering | Phase::Websocket => {
                false
            }
            // It has no other end.
            Phase::Answering => false,
            Phase::Body | Phase::Deciding | Phase::Working => answer_has_begun,
            Phase::Calling | Phase::Sending | Phase::Relaying => true,
        };
        let is_child = self.cx.is_unnoticed_child();
        if is_cut || is_child || !conn.writable || conn.gone || conn.backlog() > 0 {
            return;
        }
        let Some(session) = conn.tls.as_deref_mut() else { return };
        let records = &mut self.cx.tls.sealed;
        if session.fill(&[], true, records).is_ok() && !records.is_empty() {
            // Who has gone need not be told.
            let _ = rustix::net::send(&conn.socket, records, SendFlags::NOSIGNAL);
        }
    }
}
