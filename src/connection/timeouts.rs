//! The timeouts of a connection. Traffic does not touch its timer: when that comes due, it is filed anew by when there
//! was traffic last.

use super::closing::LINGER_MS;
use super::websocket::Websocket;
use super::{Conn, Flow, State};
use crate::answer::PIECE;
use crate::cgi::table::Programs;
use crate::exchange::context::Context;
use crate::options::Config;

/// The request timeout is granted again for each so many bytes of content: slow links may upload, drops may not
/// hold a request.
const BYTES_PER_TIMEOUT: u64 = 16_384;

impl Conn {
    /// Files the timer of a connection anew, as a timeout has changed.
    pub fn timeouts_changed(&mut self, cx: &mut Context) {
        if !matches!(self.state, State::Lingering { .. }) {
            self.set_timer(cx);
        }
    }

    /// Files the timer: at the latest when one of its timeouts may be over.
    pub fn set_timer(&mut self, cx: &mut Context) {
        let ahead = match self.state.websocket() {
            Some(websocket) => Some(websocket.horizon(cx)).filter(|ms| *ms > 0),
            None => shortest(cx),
        };
        match ahead {
            Some(ahead) => self.wire.set_timer(cx, ahead),
            None => cx.timers.clear(self.wire.index()),
        }
    }

    /// The timer has come due: closes the connection, or files the timer anew.
    pub fn timer_due(&mut self, cx: &mut Context) -> Flow {
        let now = cx.clock.now;
        if self.waits_for_program(&cx.programs) {
            // That has a timeout of its own.
            (self.wire.last_active, self.since) = (now, now);
        }
        let since = u64::from(now.wrapping_sub(self.since));
        if matches!(self.state, State::Lingering { .. }) {
            return match u64::from(LINGER_MS).checked_sub(since) {
                None | Some(0) => Flow::Close,
                Some(left) => {
                    self.wire.set_timer(cx, left);
                    Flow::Leave
                }
            };
        }
        if let Some(websocket) = self.state.websocket_mut() {
            let then = Websocket::timer_due(websocket, &mut self.wire, cx);
            return self.follow(cx, then);
        }
        self.request_due(cx, since)
    }

    /// As [`Conn::timer_due`], for a connection that speaks HTTP. `since`: milliseconds from the start of the
    /// request.
    fn request_due(&mut self, cx: &mut Context, since: u64) -> Flow {
        let Config { idle_timeout_ms, request_timeout_ms, .. } = cx.options.config;
        let mut next = shortest(cx).unwrap_or(u64::MAX);
        if let Some(arrived) = self.receiving()
            && request_timeout_ms > 0
        {
            let allowed = request_timeout_ms.saturating_mul(1 + arrived / BYTES_PER_TIMEOUT);
            if since >= allowed {
                self.timed_out = true;
                self.wire.make_ready(cx);
                return Flow::Leave;
            }
            next = next.min(allowed - since);
        }
        if idle_timeout_ms > 0 {
            let quiet = u64::from(cx.clock.now.wrapping_sub(self.wire.last_active));
            if quiet >= idle_timeout_ms && !self.wire.has_unread() {
                return Flow::Close;
            }
            next = next.min(idle_timeout_ms.saturating_sub(quiet).max(1));
        }
        if next < u64::MAX {
            self.wire.set_timer(cx, next);
        }
        Flow::Leave
    }

    /// The bytes of content that have arrived, while a request is being received.
    fn receiving(&self) -> Option<u64> {
        match &self.state {
            State::Head(waiting) | State::Barred(waiting) => waiting.begun.then_some(0),
            State::Content { request, .. } => Some(request.arrived),
            _ => None,
        }
    }

    /// Whether it is the program that keeps the connection waiting, and not the client.
    pub fn waits_for_program(&self, programs: &Programs) -> bool {
        let Some(program) = self.state.program() else { return false };
        let has_room = self.wire.backlog() < PIECE;
        match &self.state {
            State::Content { .. } => has_room && !programs.takes(program),
            State::Producing { .. } => has_room,
            _ => false,
        }
    }

    /// The request took too long: it is answered with 408, where there is one.
    pub(super) fn time_out(&mut self, cx: &mut Context) -> Flow {
        if self.wire.is_handshaking() {
            self.wire.complain(cx, "TLS: the handshake took too long");
            return Flow::Close;
        }
        match std::mem::take(&mut self.state) {
            State::Head(_) => self.refuse(cx, 408, false),
            State::Content { request, recipient } => {
                cx.input.clear();
                self.set_timer(cx);
                self.refuse_content(cx, request, recipient, 408)
            }
            State::Barred(_) => Flow::Close,
            // It has gone on since.
            other => {
                self.state = other;
                Flow::Again
            }
        }
    }
}

/// The shorter timeout of those that are set, in milliseconds.
fn shortest(cx: &Context) -> Option<u64> {
    let Config { idle_timeout_ms, request_timeout_ms, .. } = cx.options.config;
    [idle_timeout_ms, request_timeout_ms].into_iter().filter(|ms| *ms > 0).min()
}
