//! Requests that a handler of the program answers: the call, the state of the answer when the
//! handler returns, and answers that are given later (RFC 9112, section 9.3).
//!
//! Refuses to call C: the server returns the call to `ffi/server`.

use std::ffi::c_int;

use super::messages::open_message;
use super::websocket::Websocket;
use super::{Conn, Flow, State};
use crate::abi::{Handler, mg_connection};
use crate::answer::Broken;
use crate::exchange::context::Context;
use crate::exchange::request::Request;
use crate::http::response::{Answer, Completion, RequestFacts};
use crate::options::DeferredAnswers;
use crate::shared::slots::Slot;
use crate::websocket::handshake;

/// The reason for the call of a handler.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Request,
    /// An error, for the error handler. The output behind the first `mark` bytes of the outbox can
    /// be dropped.
    Error {
        status: u16,
        mark: u32,
    },
}

impl Conn {
    /// Begins the call of a handler with a request.
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

    /// Answers a websocket handshake whose path has a handler.
    fn upgrade(&mut self, cx: &mut Context, mut request: Box<Request>, handler: Handler) -> Flow {
        let out = &mut self.wire.outbox(cx).bytes;
        let config = &cx.options.config;
        let (protocols, deflate) = (&config.websocket_protocols, config.websocket_deflate);
        let head = request.buf.get(..request.head.len).unwrap_or_default();
        let deflate = match handshake::negotiate(&request.head, head, protocols, deflate) {
            handshake::Negotiation::Accept { key, protocol, deflate } => {
                let before = out.len();
                handshake::write_response(out, key, protocol, deflate.as_ref());
                request.head_len = (out.len() - before) as u64;
                deflate
            }
            handshake::Negotiation::Refuse(status) => {
                if status == 426 {
                    // RFC 9110, section 15.5.22, and RFC 6455, section 4.4, ask for these fields.
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
        if let Some(deflate) = deflate {
            slot.set_window_bits(deflate.window_bits());
        }
        slot.set_takes_frames(true);
        self.set_timer(cx);
        Flow::Again
    }

    /// Returns the pointer with which the program is about to be called.
    pub fn begin_call(&mut self) -> *mut mg_connection {
        let slot = self.wire.slot;
        slot.set_seen();
        if matches!(self.state, State::Calling { .. }) {
            slot.set_answerable(true);
        }
        slot.as_c()
    }

    /// Acts on the return of the handler that was called, with `result`.
    pub fn end_call(&mut self, cx: &mut Context, result: c_int) -> Flow {
        if let State::Websocket(websocket) = &mut self.state {
            let flow = websocket.message_handled(&mut self.wire, cx, result);
            return self.follow(cx, flow);
        }
        match std::mem::take(&mut self.state) {
            State::Calling { request, answer, purpose: Purpose::Error { status, mark } }
                if result == 0 =>
            {
                self.take_answer_back(cx, request, answer, status, mark)
            }
            State::Calling { request, answer, purpose } => {
                self.settle_answer(cx, request, answer, matches!(purpose, Purpose::Error { .. }))
            }
            other => {
                self.state = other;
                self.cannot_be(cx, "a handler returned that was not called")
            }
        }
    }

    /// Drops the output of the error handler, which left the answer to the library.
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
        let late = slot.lock_answer();
        slot.set_answerable(false);
        // These messages are part of the output that is dropped.
        for message in cx.messages_for(slot) {
            open_message(slot, message);
        }
        drop(late);
        cx.spares.keep_answer(answer);
        self.reply(cx, request, status)
    }

    /// Finds out whether the answer of a handler that has returned is complete or to be continued,
    /// and enters the state for it.
    fn settle_answer(
        &mut self,
        cx: &mut Context,
        mut request: Box<Request>,
        mut answer: Box<Answer>,
        is_error: bool,
    ) -> Flow {
        let slot = self.wire.slot;
        let out = &mut self.wire.outbox(cx).bytes;
        let completion = answer.handler_returned(out);
        let goes_on = match completion {
            Completion::Cut { shows } => return self.break_answer(cx, request, answer, shows),
            Completion::Open => true,
            Completion::Silent => !is_error && may_answer_later(cx, &request),
            Completion::Complete { .. } => false,
        };
        let mut complete = match completion {
            Completion::Complete { persistent } => Some(persistent),
            // Nothing was written. The client learns that from the end of the connection.
            _ if !goes_on => Some(false),
            _ => None,
        };
        // Other threads check their writes under this lock, so that all that they wrote while the
        // handler ran is in the queue now.
        let mut late = slot.lock_answer();
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
            // They are checked before the lock is released, and so before later ones.
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
            self.finish(cx, request);
            if goes_on {
                // Requests that waited behind this one are answered in the next turn.
                self.wire.announce(cx);
            }
        } else {
            self.enter(State::Answering(request));
        }
        Flow::Again
    }

    /// Ends the connection of an answer that has a gap. `shows`: its framing says that more had to come.
    #[cold]
    fn break_answer(
        &mut self,
        cx: &mut Context,
        mut request: Box<Request>,
        answer: Box<Answer>,
        shows: bool,
    ) -> Flow {
        let slot = self.wire.slot;
        let late = slot.lock_answer();
        slot.set_answerable(false);
        for message in cx.messages_for(slot) {
            open_message(slot, message);
        }
        drop(late);
        (request.status, request.head_len) = (answer.status, answer.head_len);
        cx.spares.keep_answer(answer);
        self.break_off(cx, request, Broken { why: "".into(), resets: !shows })
    }

    /// Ends a request whose late answer is complete.
    pub(super) fn finish_late(&mut self, cx: &mut Context, persistent: bool) {
        match std::mem::take(&mut self.state) {
            State::Answering(mut request) => {
                if let Some(answer) = self.wire.slot.lock_answer().take() {
                    (request.status, request.head_len) = (answer.status, answer.head_len);
                    cx.spares.keep_answer(answer);
                }
                request.is_last |= !persistent;
                self.finish(cx, request);
                // Requests that waited behind this one are answered in the next turn.
                self.wire.announce(cx);
            }
            other => {
                self.state = other;
                self.cannot_be(cx, "an answer was completed that is not given");
                // The lock of its slot may be held here: it is closed in its next turn.
                self.wire.gone = true;
                self.wire.make_ready(cx);
            }
        }
    }
}

/// Returns whether a handler that wrote nothing may answer after its return.
fn may_answer_later(cx: &Context, request: &Request) -> bool {
    match cx.options.config.deferred_answers {
        DeferredAnswers::All => true,
        DeferredAnswers::Get => request.method() == b"GET" && request.persists(),
    }
}

/// Begins the answer of a handler. `status` is the status of the `mg_send` family, unless the
/// program sets another.
pub(super) fn begin_answer(cx: &mut Context, request: &Request, status: u16) -> Box<Answer> {
    let facts = RequestFacts {
        head_only: request.head.is_head,
        chunks: request.head.minor == 1,
        persistent: request.persists(),
    };
    let mut answer = cx.spares.answer();
    answer.begin(facts, status);
    answer
}

/// Shows the request to the program. Returns false if there is no memory for it.
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
