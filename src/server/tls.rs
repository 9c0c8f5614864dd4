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
use super::context::Context;
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
                self.cx.complain(&refusal.detail);
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
}

impl Conn {
    /// Takes the session away, and what is counted of it.
    pub(super) fn end_session(&mut self, cx: &mut Context) {
        if let Some(mut session) = self.tls.take() {
            cx.buffered = cx.buffered.saturating_sub(session.recount().1);
        }
    }

    /// Takes a request where TLS is to be spoken and cannot be: it is answered with 503, whatever it
    /// is. By then that may have changed.
    #[cold]
    pub(super) fn turn_down(&mut self, cx: &mut Context) -> Flow {
        let (has_input, now) = (!cx.input.unread.is_empty(), cx.clock.now);
        let opening = cx.tls.open();
        match opening {
            Some(Opening::Nothing) => {}
            Some(Opening::Plain) => {
                self.phase = Phase::Head;
                return Flow::Again;
            }
            // What has come so far is no TLS.
            Some(Opening::Tls(session)) if !has_input => {
                self.phase = Phase::Head;
                self.tls = Some(session);
                (self.begun, self.since) = (true, now);
                return Flow::Again;
            }
            Some(Opening::Tls(_)) | None => return Flow::Close,
        }
        let limit = cx.options.config.max_request_header_bytes;
        let text = cx.input.buf.get(cx.input.unread.clone()).unwrap_or_default();
        match text.trim_ascii_start().first() {
            Some(byte) if !byte.is_ascii_alphabetic() => return Flow::Close,
            Some(_) => {
                cx.input.unread.start += text.len() - text.trim_ascii_start().len();
                let text = cx.input.buf.get(cx.input.unread.clone()).unwrap_or_default();
                match cx.input.head.parse(text, limit) {
                    Outcome::Complete => return self.refuse_barred(cx, true),
                    Outcome::Refused(_) => return self.refuse_barred(cx, false),
                    Outcome::Partial => {}
                }
            }
            None if text.len() > limit => return Flow::Close,
            None => {}
        }
        match self.refill(cx) {
            Refill::Got => Flow::Again,
            Refill::Wait => Flow::Leave,
            Refill::Eof | Refill::Lost => Flow::Close,
        }
    }

    fn refuse_barred(&mut self, cx: &mut Context, parsed: bool) -> Flow {
        self.complain(cx, "no certificate is in force: a request is answered with 503");
        // The program's own page of errors is an answer in plain HTTP, too.
        let handler = cx.error_handler.take();
        let flow = self.refuse(cx, 503, parsed);
        cx.error_handler = handler;
        flow
    }

    /// Receives records, and decrypts them into `scratch` behind the unread input.
    #[inline(never)]
    pub(super) fn refill_sealed(&mut self, cx: &mut Context) -> Refill {
        let refill = self.receive_sealed(cx);
        self.count_session(cx);
        let is_full = cx.buffered > cx.options.config.max_buffered_bytes;
        if is_full
            && self.phase == Phase::Head
            && self.tls.as_ref().is_some_and(|session| session.has_partial())
        {
            self.complain(cx, "max_buffered_bytes: part of a TLS record is not kept");
            return Refill::Lost;
        }
        refill
    }

    /// Counts what waits in the session of a connection.
    fn count_session(&mut self, cx: &mut Context) {
        let Some(session) = self.tls.as_deref_mut() else { return };
        let (waiting, counted) = session.recount();
        cx.buffered = (cx.buffered + waiting).saturating_sub(counted);
    }

    fn receive_sealed(&mut self, cx: &mut Context) -> Refill {
        // What is decrypted is shorter than what it was.
        if !make_room(&mut cx.input.buf, &mut cx.input.unread, WIRE + 1) {
            return Refill::Lost;
        }
        let wire = &mut cx.tls.received;
        wire.resize(WIRE, 0);
        loop {
            let Some(session) = self.tls.as_deref_mut() else { return Refill::Lost };
            if !self.readable {
                return Refill::Wait;
            }
            if cx.turn.bytes == 0 {
                self.make_ready(cx);
                return Refill::Wait;
            }
            let wire = &mut cx.tls.received;
            let begin = session.begin_input(wire);
            let count = match receive(&self.socket, &mut wire[begin..]) {
                Ok(0) => {
                    (self.eof, self.readable) = (true, false);
                    return Refill::Eof;
                }
                Ok(count) => count,
                Err(rustix::io::Errno::AGAIN) => {
                    self.readable = false;
                    return Refill::Wait;
                }
                Err(_) => return Refill::Lost,
            };
            self.readable = begin + count == wire.len() || self.read_closed;
            cx.files.look_again();
            cx.turn.bytes = cx.turn.bytes.saturating_sub(count);
            let (was_fresh, was_handshaking) = (session.is_fresh(), session.is_handshaking());
            let (scratch, end) = (&mut cx.input.buf, &mut cx.input.unread.end);
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
                    return self.fail_session(cx, is_text, &error);
                }
            };
            if ended {
                (self.eof, self.readable) = (true, false);
            }
            // Records without content are no traffic, or they would keep an idle connection for ever. A
            // long record on a slow link is, where content is waited for.
            let awaits_content = matches!(self.phase, Phase::Body | Phase::Websocket);
            if cx.input.unread.end > before
                || was_handshaking
                || awaits_content && session.has_partial()
            {
                self.last_active = cx.clock.now;
            }
            let is_idle = cx.input.unread.is_empty() && !session.has_partial();
            if !session.is_handshaking()
                && (was_handshaking || is_idle && self.phase == Phase::Head)
            {
                // What came so far belonged to no request.
                self.begun = false;
                self.since = cx.clock.now;
            }
            if cx.input.unread.end > before {
                return Refill::Got;
            }
            if ended {
                return Refill::Eof;
            }
        }
    }

    /// What the client sent is no TLS, or breaks its rules: it is told, and the connection ends.
    fn fail_session(&mut self, cx: &mut Context, is_text: bool, error: &str) -> Refill {
        if is_text {
            self.complain(cx, "plain HTTP where TLS is spoken");
            self.end_session(cx);
            let out = self.outbox(cx);
            out.bytes.extend_from_slice(NOT_PLAIN);
        } else {
            self.complain(cx, &format!("TLS: {error}"));
        }
        let flushed = self.flush(cx);
        if !flushed {
            return Refill::Lost;
        }
        let conn = &mut *self;
        if conn.phase != Phase::Head || !is_text && conn.backlog() > 0 {
            return Refill::Lost;
        }
        conn.phase = Phase::Draining;
        conn.linger = true;
        conn.begun = false;
        cx.input.unread = 0..0;
        Refill::Wait
    }

    /// The handshake took too long.
    #[cold]
    pub(super) fn give_up_handshake(&mut self, cx: &mut Context) -> Flow {
        self.complain(cx, "TLS: the handshake took too long");
        Flow::Close
    }

    /// Encrypts and sends as much as the socket takes. False if the connection has failed.
    #[inline(never)]
    pub(super) fn send_sealed(&mut self, cx: &mut Context, flags: SendFlags) -> bool {
        let is_well = self.send_records(cx, flags);
        self.count_session(cx);
        is_well
    }

    fn send_records(&mut self, cx: &mut Context, flags: SendFlags) -> bool {
        let now = cx.clock.now;
        if cx.is_unnoticed_child() {
            // A child must not send under the keys of its parent. It drops them when it polls.
            return true;
        }
        let Some(session) = self.tls.as_deref_mut() else { return true };
        let records = &mut cx.tls.sealed;
        let is_last = self.phase == Phase::Draining;
        while self.writable {
            let plain = self.out.as_ref().map_or(&[][..], |out| out.pending());
            if session.fill(plain, is_last, records).is_err() {
                return false;
            }
            if records.is_empty() {
                break;
            }
            match rustix::net::send(&self.socket, records, flags | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    // A websocket lives by what it receives, and nobody by what TLS says of itself.
                    if self.socket_state.is_none() && session.carries() {
                        self.last_active = now;
                    }
                    if count < records.len() {
                        self.writable = false;
                    }
                    let done = session.sent(records, count);
                    if let Some(out) = self.out.as_mut() {
                        out.consume(done);
                    }
                }
                Err(rustix::io::Errno::INTR) => {
                    session.sent(records, 0);
                }
                Err(rustix::io::Errno::AGAIN) => {
                    session.sent(records, 0);
                    self.writable = false;
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// Says that nothing more is sent, on a connection that is about to be closed, unless that cuts
    /// an answer off: the client must be able to tell.
    #[cold]
    pub(super) fn say_goodbye(&mut self, cx: &mut Context) {
        let answer_has_begun = self.exchange.as_ref().is_some_and(|exchange| exchange.status != 0);
        let is_cut = match self.phase {
            Phase::Head | Phase::Barred | Phase::Draining | Phase::Lingering | Phase::Websocket => {
                false
            }
            // It has no other end.
            Phase::Answering => false,
            Phase::Body | Phase::Deciding | Phase::Working => answer_has_begun,
            Phase::Calling | Phase::Sending | Phase::Relaying => true,
        };
        let is_child = cx.is_unnoticed_child();
        if is_cut || is_child || !self.writable || self.gone || self.backlog() > 0 {
            return;
        }
        let Some(session) = self.tls.as_deref_mut() else { return };
        let records = &mut cx.tls.sealed;
        if session.fill(&[], true, records).is_ok() && !records.is_empty() {
            // Who has gone need not be told.
            let _ = rustix::net::send(&self.socket, records, SendFlags::NOSIGNAL);
        }
    }
}
