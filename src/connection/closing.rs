//! The end of a connection that does not lose the last answer to a reset (RFC 9112, section 9.6;
//! POSIX `shutdown`).
//!
//! Refuses to know what the last answer was.

use super::wire::Received;
use super::{Conn, Flow, State};
use crate::exchange::context::Context;

/// The time in milliseconds for which input is discarded after the last answer, and the number of
/// bytes.
pub(super) const LINGER_MS: u32 = 2_000;
const LINGER_BYTES: u32 = 1 << 20;

impl Conn {
    /// Ends the connection once all bytes are sent, without losing the answer to unread input.
    pub(super) fn drain(&mut self, cx: &mut Context) -> Flow {
        if self.wire.must_send() {
            if !self.wire.writable {
                return Flow::Leave;
            }
            if !self.flush(cx) {
                return Flow::Close;
            }
            if self.wire.must_send() {
                return Flow::Leave;
            }
        }
        let State::Draining { lingers, websocket } = &mut self.state else {
            return self.cannot_be(cx, "an end that was not begun");
        };
        let is_current = self.wire.is_current(cx);
        // A socket that is closed with unread input resets the connection, and the client may lose
        // the bytes that it has not read yet.
        let is_unread = *lingers
            || self.wire.readable
            || !self.wire.input.is_empty()
            || is_current && !cx.input.unread.is_empty();
        if self.wire.eof || !is_unread {
            return Flow::Close;
        }
        self.state = State::Lingering { discarded: 0, websocket: websocket.take() };
        self.since = cx.clock.now;
        self.wire.input = Box::default();
        self.wire.shut_sending();
        self.wire.set_timer(cx, LINGER_MS.into());
        if is_current {
            cx.input.clear();
            return Flow::Again;
        }
        self.wire.make_ready(cx);
        Flow::Leave
    }

    /// Discards input until the client closes, or until the time is over.
    pub(super) fn discard(&mut self, cx: &mut Context) -> Flow {
        loop {
            let State::Lingering { discarded, .. } = &mut self.state else {
                return self.cannot_be(cx, "an end that was not begun");
            };
            if *discarded > LINGER_BYTES {
                // The rest stays unread until the time is over. A client that can send no more
                // looks for the answer, while a reset at once could arrive before that.
                return Flow::Leave;
            }
            cx.input.clear();
            let received = self.wire.receive_unsealed(cx);
            *discarded = discarded.saturating_add(cx.input.unread.len() as u32);
            cx.input.clear();
            match received {
                Received::Bytes => {}
                Received::Nothing => return Flow::Leave,
                Received::End | Received::Lost | Received::Refused { .. } => return Flow::Close,
            }
        }
    }
}
