//! Answers to wrong passwords, which wait for a while (RFC 9110, section 15.5.2). The connection
//! waits with them; no other one does.
//!
//! Refuses to know for how long, and how many answers may wait, which is in `auth/guesses`.

use super::{Conn, Flow, State};
use crate::auth::guesses::time_left;
use crate::exchange::context::Context;
use crate::exchange::request::Request;

impl Conn {
    /// Waits until it is time to answer with 401.
    pub(super) fn put_denial_off(
        &mut self,
        cx: &mut Context,
        request: Box<Request>,
        until: u32,
    ) -> Flow {
        self.enter(State::Denying { request, until });
        match time_left(until, cx.clock.now) {
            // The content of the request has taken that long.
            0 => Flow::Again,
            left => {
                self.wire.set_timer(cx, left.into());
                Flow::Leave
            }
        }
    }

    /// Acts on the timer, which has come due: the connection gets a turn, or goes on waiting.
    pub(super) fn denial_due(&mut self, cx: &mut Context, until: u32) -> Flow {
        match time_left(until, cx.clock.now) {
            0 => self.wire.make_ready(cx),
            left => self.wire.set_timer(cx, left.into()),
        }
        Flow::Leave
    }

    /// Answers with 401 after the wait.
    pub(super) fn deny(&mut self, cx: &mut Context, request: Box<Request>) -> Flow {
        // The client has waited, and was not idle.
        self.wire.last_active = cx.clock.now;
        self.set_timer(cx);
        self.fail(cx, request, 401)
    }
}
