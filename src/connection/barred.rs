//! Connections that must not be served, since TLS was asked for and cannot be spoken as it was asked
//! for. Each request is answered with 503 (RFC 9110, section 15.6.4), whatever it asks for.
//!
//! Refuses to know certificates, which are in `tls/port`.

use super::wire::Received;
use super::{Conn, Flow, Manner, State, Waiting};
use crate::exchange::context::Context;
use crate::http::request::Outcome;
use crate::tls::port::{Opening, Speech};

impl Conn {
    /// Bars the connection, as new connections are barred now. A request that came before is
    /// answered.
    pub fn bar(&mut self) {
        if self.wire.is_secure() || self.manner.speech() == Speech::Plain {
            return;
        }
        match &mut self.state {
            State::Head(waiting) => self.state = State::Barred(*waiting),
            State::ProxyHeader { is_barred, .. } => *is_barred = true,
            State::Content { request, .. }
            | State::Deciding(request)
            | State::Denying { request, .. }
            | State::Looking { request, .. }
            | State::Calling { request, .. }
            | State::Answering(request)
            | State::Producing { request, .. } => request.is_last = true,
            // A websocket goes on, and an end is an end.
            State::Barred(_)
            | State::Broken(_)
            | State::Websocket(_)
            | State::Draining { .. }
            | State::Lingering { .. } => {}
        }
    }

    /// Refuses the next request of a barred connection, unless TLS or plain HTTP may be spoken
    /// again by now.
    #[cold]
    pub(super) fn turn_down(&mut self, cx: &mut Context) -> Flow {
        let State::Barred(waiting) = self.state else {
            return self.cannot_be(cx, "a connection is not barred");
        };
        if self.manner == Manner::Redirect {
            return self.redirect_next(cx);
        }
        match cx.tls.open(self.manner.speech()) {
            Some(Opening::Barred) => {}
            Some(Opening::Plain) => {
                self.state = State::Head(waiting);
                return Flow::Again;
            }
            // Bytes that have arrived so far are not TLS.
            Some(Opening::Tls(session)) if cx.input.unread.is_empty() => {
                self.wire.begin_session(session);
                self.state = State::Head(Waiting { begun: true, ..waiting });
                self.since = cx.clock.now;
                return Flow::Again;
            }
            Some(Opening::Tls(_)) | None => return Flow::Close,
        }
        let limit = cx.options.config.max_request_header_bytes;
        let text = cx.input.bytes();
        match text.trim_ascii_start().first() {
            Some(byte) if !byte.is_ascii_alphabetic() => {
                let reason = cx.tls.reason();
                self.wire.complain(cx, &format!("{reason}: a client of TLS is closed"));
                return Flow::Close;
            }
            Some(_) => {
                let blank = text.len() - text.trim_ascii_start().len();
                cx.input.unread.start += blank;
                match cx.input.head.parse(&cx.input.buf[cx.input.unread.clone()], limit) {
                    Outcome::Complete => return self.refuse_barred(cx, true),
                    Outcome::Refused(_) => return self.refuse_barred(cx, false),
                    Outcome::Partial => {}
                }
            }
            None if text.len() > limit => return Flow::Close,
            None => {}
        }
        match self.receive(cx) {
            Received::Bytes => Flow::Again,
            Received::Nothing => Flow::Leave,
            Received::End | Received::Lost | Received::Refused { .. } => Flow::Close,
        }
    }

    /// Answers with 503 and ends the connection.
    fn refuse_barred(&mut self, cx: &mut Context, parsed: bool) -> Flow {
        let reason = cx.tls.reason();
        self.wire.complain(cx, &format!("{reason}: a request is answered with 503"));
        // The page of the program's error handler would be an answer in plain HTTP, too.
        let handler = cx.error_handler.take();
        let flow = self.refuse(cx, 503, parsed);
        cx.error_handler = handler;
        flow
    }
}
