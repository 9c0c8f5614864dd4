//! The timeouts of a connection: idle, request, lingering. Traffic does not touch the timer: when
//! it comes due, it is set anew from the time of the last traffic.
//!
//! Refuses to know the timer wheel, and the timeouts of websockets and CGI programs.

use super::closing::LINGER_MS;
use super::websocket::{Websocket, WebsocketFlow};
use super::{Conn, Flow, State};
use crate::answer::PIECE;
use crate::cgi::table::Programs;
use crate::exchange::context::Context;
use crate::options::Config;

/// The number of bytes of content for which the request timeout is granted once more: slow links
/// may upload, but a trickle of bytes must not hold a request for ever.
const BYTES_PER_TIMEOUT: u64 = 16_384;

/// The milliseconds that a late connection has to go on with what the kernel has for it.
const GRACE_MS: u64 = 1;

/// How a connection stands to its timeouts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Lateness {
    #[default]
    InTime,
    /// A timeout is over, but the kernel has input, or room for output: the loop was away, in a handler
    /// of another connection or in the program. The connection has one more turn. It has one only: who
    /// always has a byte on its way gets no more time by that.
    Grace,
    /// It has had that turn.
    Spent,
    /// The request is to be ended when the connection has its turn.
    TimedOut,
}

impl Conn {
    /// Lets the timer come due in time after a change of a timeout. What has passed of the old one counts.
    pub fn timeouts_changed(&mut self, cx: &mut Context) {
        if matches!(self.state, State::Lingering { .. } | State::Denying { .. }) {
            return;
        }
        match self.horizon(cx) {
            Some(ahead) => self.wire.bring_timer_forward(cx, ahead),
            None => self.set_timer(cx),
        }
    }

    /// Returns the milliseconds after which a timeout may end at the earliest, from the last traffic on.
    fn horizon(&self, cx: &Context) -> Option<u64> {
        match self.state.websocket() {
            Some(websocket) => Some(websocket.horizon(cx)).filter(|ms| *ms > 0),
            None => shortest(cx),
        }
    }

    /// Sets the timer to the earliest end of a timeout.
    pub fn set_timer(&mut self, cx: &mut Context) {
        if self.lateness != Lateness::TimedOut {
            self.lateness = Lateness::InTime;
        }
        match self.horizon(cx) {
            Some(ahead) => self.wire.set_timer(cx, ahead),
            None => cx.timers.clear(self.wire.index()),
        }
    }

    /// Acts on the timer, which has come due: closes the connection, or sets the timer anew.
    pub fn timer_due(&mut self, cx: &mut Context) -> Flow {
        let now = cx.clock.now;
        if self.waits_for_program(&cx.programs) || self.waits_for_helper() {
            // The program has a timeout of its own, and a file system takes what it takes.
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
        if let State::Denying { until, .. } = self.state {
            return self.denial_due(cx, until);
        }
        if let Some(websocket) = self.state.websocket_mut() {
            let flow = Websocket::timer_due(websocket, &mut self.wire, cx);
            if !matches!(flow, WebsocketFlow::Close) {
                self.lateness = Lateness::InTime;
            } else if self.has_grace(cx) {
                return Flow::Leave;
            }
            return self.follow(cx, flow);
        }
        self.request_due(cx, since)
    }

    /// Acts on the timer of a connection that speaks HTTP. `since` is the number of milliseconds
    /// since the request began.
    fn request_due(&mut self, cx: &mut Context, since: u64) -> Flow {
        let Config { idle_timeout_ms, request_timeout_ms, .. } = cx.options.config;
        let mut next = shortest(cx).unwrap_or(u64::MAX);
        let (mut is_late, mut is_idle) = (false, false);
        if let Some(arrived) = self.receiving()
            && request_timeout_ms > 0
        {
            let allowed = request_timeout_ms.saturating_mul(1 + arrived / BYTES_PER_TIMEOUT);
            is_late = since >= allowed;
            next = next.min(allowed.saturating_sub(since));
        }
        if idle_timeout_ms > 0 {
            let quiet = u64::from(cx.clock.now.wrapping_sub(self.wire.last_active));
            // Who has its turn now has been given something to do by the kernel.
            is_idle = quiet >= idle_timeout_ms && !self.wire.queued;
            next = next.min(idle_timeout_ms.saturating_sub(quiet).max(1));
        }
        if !is_late && !is_idle {
            self.lateness = Lateness::InTime;
        } else if self.has_grace(cx) {
            return Flow::Leave;
        } else if is_late {
            self.lateness = Lateness::TimedOut;
            self.wire.make_ready(cx);
            return Flow::Leave;
        } else {
            return Flow::Close;
        }
        if next < u64::MAX {
            self.wire.set_timer(cx, next);
        }
        Flow::Leave
    }

    /// Gives a connection whose time is over one more turn, if the kernel has something for it.
    fn has_grace(&mut self, cx: &mut Context) -> bool {
        let has_grace = match self.lateness {
            Lateness::InTime => {
                let sends = match &self.state {
                    State::Producing { source, .. } => source.makes_output(),
                    _ => false,
                };
                self.wire.look_again(cx, sends)
            }
            // Others have had their turns.
            Lateness::Grace => self.wire.queued,
            Lateness::Spent | Lateness::TimedOut => false,
        };
        if has_grace {
            self.lateness = Lateness::Grace;
            self.wire.set_timer(cx, GRACE_MS);
        }
        has_grace
    }

    /// Begins the turn of a connection whose time is over. Returns what follows if the time has ended the
    /// request.
    #[cold]
    pub(super) fn take_lateness(&mut self, cx: &mut Context) -> Option<Flow> {
        match self.lateness {
            Lateness::InTime | Lateness::Spent => None,
            Lateness::Grace => {
                self.lateness = Lateness::Spent;
                None
            }
            Lateness::TimedOut => {
                self.lateness = Lateness::InTime;
                Some(self.time_out(cx))
            }
        }
    }

    /// Returns the number of bytes of content that have arrived, while a request is being received.
    fn receiving(&self) -> Option<u64> {
        match &self.state {
            State::Head(waiting) | State::Barred(waiting) | State::ProxyHeader { waiting, .. } => {
                waiting.begun.then_some(0)
            }
            State::Content { request, .. } => Some(request.arrived),
            _ => None,
        }
    }

    /// Returns whether the client has been sent all of its answers, and nothing of another request has come.
    pub fn is_idle(&self) -> bool {
        let (State::Head(_) | State::Barred(_) | State::ProxyHeader { .. }) = self.state else {
            return false;
        };
        let has_input = self.wire.has_unread() || !self.wire.input.is_empty();
        // The kernel may have bytes that it has not announced yet.
        self.receiving().is_none()
            && !has_input
            && !self.wire.must_send()
            && !matches!(self.wire.socket.peek(&mut [0]), Ok(1))
    }

    /// Returns whether the connection waits for its CGI program, and not for its client.
    pub fn waits_for_program(&self, programs: &Programs) -> bool {
        let Some(program) = self.state.program() else { return false };
        let has_room = self.wire.backlog() < PIECE;
        match &self.state {
            State::Content { .. } => has_room && !programs.takes(program),
            State::Producing { .. } => has_room,
            _ => false,
        }
    }

    /// Ends a request that took too long: answers it with 408, if it has begun.
    pub(super) fn time_out(&mut self, cx: &mut Context) -> Flow {
        if matches!(self.state, State::ProxyHeader { .. }) {
            self.wire.complain(cx, "PROXY: the header, or what else comes first, took too long");
            return Flow::Close;
        }
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
            // The request has made progress since.
            other => {
                self.state = other;
                Flow::Again
            }
        }
    }
}

/// Returns the shorter of the timeouts that are set, in milliseconds.
fn shortest(cx: &Context) -> Option<u64> {
    let Config { idle_timeout_ms, request_timeout_ms, .. } = cx.options.config;
    [idle_timeout_ms, request_timeout_ms].into_iter().filter(|ms| *ms > 0).min()
}
