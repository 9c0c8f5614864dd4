//! Requests that a handler of the program's answers: what it is shown, what its answer has become when it returns,
//! and the answers that are given later. RFC 9112, section 9.3.

use std::ffi::c_int;

use super::messages::open_message;
use super::websocket::Websocket;
use super::{Conn, Flow, Purpose, State};
use crate::abi::{Handler, mg_connection};
use crate::exchange::context::Context;
use crate::exchange::request::Request;
use crate::http::response::{Answer, Asked, Standing};
use crate::options::DeferredAnswers;
use crate::shared::slots::Slot;
use crate::websocket::handshake;

impl Conn {
    /// Hands a request to a handler.
    pub(super) fn call_handler(
        &mut self,
        cx: &mut Context,
        mut request: Box<Request>,
        handler: Handler,
    ) -> Flow {
        if request.head.upgrade && handshake::wants_websocket(&request.head, request.head_bytes()) {
            return self.upgrade(cx, request, handler);
        }
        if !show(self.wire.slot, &mut request) {
            return self.fail(cx, request, 503);
        }
        let answer = begin_answer(cx, &request, 200);
        self.enter(State::Calling { request, answer, purpose: Purpose::Request });
        Flow::Call(handler)
    }

    /// Answers a request for a websocket that a handler matches.
    fn upgrade(&mut self, cx: &mut Context, mut request: Box<Request>, handler: Handler) -> Flow {
        let out = &mut self.wire.outbox(cx).bytes;
        let config = &cx.options.config;
        let (protocols, deflate) = (&config.websocket_protocols, config.websocket_deflate);
        let head = request.buf.get(..request.head.len).unwrap_or_default();
        let deflate = match handshake::judge(&request.head, head, protocols, deflate) {
            handshake::Verdict::Accept { key, protocol, deflate } => {
                let before = out.len();
                handshake::write_response(out, key, protocol, deflate.as_ref());
                request.head_len = (out.len() - before) as u64;
                deflate
            }
            handshake::Verdict::Refuse(status) => {
                if status == 426 {
                    // RFC 9110, section 15.5.22, and RFC 6455, section 4.4.
                    let fields = b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
                    request.fields.extend_from_slice(fields);
                }
                return self.fail(cx, request, status);
            }
        };
        request.status = 101;
        let slot = self.wire.slot;
        let is_shown = show(slot, &mut request);
        let websocket = Websocket::new(request, handler, deflate, cx);
        self.state = State::Websocket(Box::new(websocket));
        if !is_shown {
            return Flow::Close;
        }
        self.wire.lives_by_input = true;
        slot.hide_message();
        slot.become_websocket();
        slot.set_takes_frames(true);
        self.set_timer(cx);
        Flow::Again
    }

    /// The pointer that the program is about to be called with.
    pub fn begin_call(&mut self) -> *mut mg_connection {
        let slot = self.wire.slot;
        slot.set_seen();
        if matches!(self.state, State::Calling { .. }) {
            slot.set_answerable(true);
        }
        slot.as_c()
    }

    /// The handler that was called has returned `result`.
    pub fn end_call(&mut self, cx: &mut Context, result: c_int) -> Flow {
        if let State::Websocket(websocket) = &mut self.state {
            let then = websocket.message_handled(&mut self.wire, cx, result);
            return self.follow(cx, then);
        }
        match std::mem::take(&mut self.state) {
            State::Calling { request, answer, purpose: Purpose::Error { status, mark } }
                if result == 0 =>
            {
                self.take_answer_back(cx, request, answer, status, mark)
            }
            State::Calling { request, answer, purpose } => {
                self.judge_answer(cx, request, answer, matches!(purpose, Purpose::Error { .. }))
            }
            other => {
                self.state = other;
                self.cannot_be(cx, "a handler returned that was not called")
            }
        }
    }

    /// The error handler left the answer to the library: its output is dropped.
    fn take_answer_back(
        &mut self,
        cx: &mut Context,
        request: Box<Request>,
        answer: Box<Answer>,
        status: u16,
        mark: u32,
    ) -> Flow {
        self.wire.outbox(cx).truncate(mark as usize);
        let slot = self.wire.slot;
        let late = slot.answer();
        slot.set_answerable(false);
        // They are part of that output.
        for message in cx.messages_for(slot) {
            open_message(slot, message);
        }
        drop(late);
        cx.spares.keep_answer(answer);
        self.reply(cx, request, status)
    }

    /// Finds out whether the answer of a handler that has returned is complete, or is to be continued.
    fn judge_answer(
        &mut self,
        cx: &mut Context,
        mut request: Box<Request>,
        mut answer: Box<Answer>,
        is_error: bool,
    ) -> Flow {
        let slot = self.wire.slot;
        let out = &mut self.wire.outbox(cx).bytes;
        let standing = answer.handler_returned(out);
        let goes_on = match standing {
            Standing::Open => true,
            Standing::Silent => !is_error && may_answer_later(cx, &request),
            Standing::Complete { .. } => false,
        };
        let mut complete = match standing {
            Standing::Complete { persistent } => Some(persistent),
            // Nothing was written: the connection says so by closing.
            _ if !goes_on => Some(false),
            _ => None,
        };
        // Other threads judge their writes under this lock, so that all that was written while the handler
        // ran is in the queue now.
        let mut late = slot.answer();
        if !goes_on {
            slot.set_answerable(false);
        }
        if slot.has_messages() {
            for message in cx.messages_for(slot) {
                if let Some((bytes, _)) = open_message(slot, message)
                    && goes_on
                {
                    answer.hold(bytes);
                }
            }
        }
        let fault = answer.take_fault();
        if goes_on {
            // And before the lock is given up they are judged, ahead of later ones.
            answer.write_held(out);
            complete = answer.complete();
        }
        let fault = fault.or(answer.take_fault());
        if let Some(persistent) = complete {
            slot.set_answerable(false);
            (request.status, request.head_len) = (answer.status, answer.head_len);
            request.is_last |= !persistent;
            drop(late);
            cx.spares.keep_answer(answer);
        } else {
            *late = Some(answer);
            drop(late);
        }
        if let Some(fault) = fault {
            self.wire.complain(cx, fault);
        }
        if complete.is_some() {
            let was_late = goes_on;
            self.finish(cx, request);
            if was_late {
                // Requests that waited behind this one are served in the next turn.
                self.wire.make_ready(cx);
            }
        } else {
            self.enter(State::Answering(request));
        }
        Flow::Again
    }

    /// An answer that is given late is complete.
    pub(super) fn finish_late(&mut self, cx: &mut Context, persistent: bool) {
        match std::mem::take(&mut self.state) {
            State::Answering(mut request) => {
                if let Some(answer) = self.wire.slot.answer().take() {
                    (request.status, request.head_len) = (answer.status, answer.head_len);
                    cx.spares.keep_answer(answer);
                }
                request.is_last |= !persistent;
                self.finish(cx, request);
                // Requests that waited behind this one are served in the next turn.
                self.wire.make_ready(cx);
            }
            other => {
                self.state = other;
                self.cannot_be(cx, "an answer was completed that is not given");
            }
        }
    }
}

/// Whether a handler that wrote nothing may answer after its return.
fn may_answer_later(cx: &Context, request: &Request) -> bool {
    match cx.options.config.deferred_answers {
        DeferredAnswers::All => true,
        DeferredAnswers::Get => request.method() == b"GET" && request.persists(),
    }
}

/// Begins the answer of a handler. `status`: that of the `mg_send` family, unless it sets another.
pub(super) fn begin_answer(cx: &mut Context, request: &Request, status: u16) -> Box<Answer> {
    let asked = Asked {
        head_only: request.head.is_head,
        chunks: request.head.minor == 1,
        persistent: request.persists(),
    };
    let mut answer = cx.spares.answer();
    answer.begin(asked, status);
    answer
}

/// Shows the request to the program. False when there is no memory for it.
pub(super) fn show(slot: &Slot, request: &mut Request) -> bool {
    let Request { buf, head, path, shown, .. } = request;
    if buf.try_reserve(1).is_err() {
        return false;
    }
    buf.push(0);
    shown.content_at = head.len;
    if let Some(place) = buf.get_mut(shown.path_at..shown.path_end)
        && place.len() == path.len()
    {
        place.copy_from_slice(path);
    }
    slot.show_request(buf, head, shown);
    true
}
