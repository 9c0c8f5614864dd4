//! From a complete request to a complete answer: handlers, and errors of the library's own.

use std::ffi::c_int;

use super::connection::{Body, Conn, Exchange, LogEntry, NO_REQUEST, Phase, Plan, Record};
use super::context::Context;
use super::replies::Reply;
use super::step::Flow;
use super::{Server, Step};
use crate::abi::{Handler, mg_connection};
use crate::http::request::Span;
use crate::http::response::{Asked, Standing};
use crate::http::status::forbids_content;
use crate::log;
use crate::options::DeferredAnswers;
use crate::websocket::handshake;

impl Server {
    /// Hands the current request to a handler.
    pub(super) fn call(&mut self, index: usize, handler: Handler) -> Step {
        self.flush_late();
        let Some(conn) = self.conn(index) else {
            debug_assert!(false, "a handler of no connection");
            return Step::Done;
        };
        let pointer = conn.prepare_call();
        self.calling = Some(index);
        Step::Call(pointer, handler)
    }

    /// The handler that [`Step::Call`] asked for has returned `result`.
    pub fn returned(&mut self, result: c_int) {
        // It may have changed files.
        self.cx.files.look_again();
        let Self { conns, cx, calling, .. } = self;
        let Some(index) = calling.take() else { return };
        let Some(conn) = conns.get_mut(index).and_then(Option::as_deref_mut) else { return };
        match conn.socket_state.is_some() {
            true => conn.message_handled(cx, result),
            false => conn.handler_returned(cx, result),
        }
    }
}

impl Conn {
    /// The request is complete, or its body is not worth waiting for: answers it.
    pub(super) fn dispatch(&mut self, cx: &mut Context) -> Flow {
        let Some(exchange) = self.exchange.as_deref_mut() else {
            return self.cannot_be(cx, NO_REQUEST);
        };
        if !matches!(exchange.body, Body::Complete) {
            exchange.last = true;
        }
        match exchange.plan {
            Plan::Handler(handler) => {
                let head = exchange.buf.get(..exchange.head.len).unwrap_or_default();
                if exchange.head.upgrade && handshake::wants_websocket(&exchange.head, head) {
                    return self.upgrade(cx, handler);
                }
                if !self.show() {
                    return self.fail(cx, 503);
                }
                self.prepare_answer(200);
                Flow::Call(handler)
            }
            Plan::Builtin => self.answer_builtin(cx),
            Plan::Error(status) => self.reply_error(cx, status),
        }
    }

    /// Shows the request to the program. False when there is no memory for it.
    pub(super) fn show(&mut self) -> bool {
        let slot = self.slot;
        let Some(exchange) = self.exchange.as_deref_mut() else {
            return false;
        };
        let Exchange { buf, head, path, shown, .. } = exchange;
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

    fn prepare_answer(&mut self, status: u16) {
        let Some(exchange) = self.exchange.as_deref_mut() else { return };
        let asked = Asked {
            head_only: exchange.head.is_head,
            chunks: exchange.head.minor == 1,
            persistent: exchange.head.persistent && !exchange.last,
        };
        exchange.answer.get_or_insert_default().begin(asked, status);
    }

    /// What the program is to be called with.
    fn prepare_call(&mut self) -> *mut mg_connection {
        self.phase = Phase::Calling;
        self.slot.set_seen();
        if self.socket_state.is_none() {
            self.slot.set_answerable(true);
        }
        self.slot.as_c()
    }

    /// The handler of its request has returned. What it wrote stands in the outbox and in the answer.
    fn handler_returned(&mut self, cx: &mut Context, result: c_int) {
        let plan = self.exchange.as_deref().map(|exchange| exchange.plan);
        match plan {
            Some(Plan::Error(status)) if result == 0 => self.take_answer_back(cx, status),
            Some(plan) => self.judge_answer(cx, matches!(plan, Plan::Error(_))),
            None => {
                self.cannot_be(cx, "a handler returned without a request");
            }
        }
    }

    /// The error handler left the answer to the library: what it wrote is dropped.
    fn take_answer_back(&mut self, cx: &mut Context, status: u16) {
        let mark = self.exchange.as_deref().map_or(0, |exchange| exchange.mark);
        self.outbox(cx).truncate(mark);
        let slot = self.slot;
        let late = slot.answer();
        slot.set_answerable(false);
        self.take_own_messages(cx);
        drop(late);
        self.reply_error(cx, status);
    }

    /// Finds out whether the answer is complete, or what becomes of it.
    fn judge_answer(&mut self, cx: &mut Context, is_error: bool) {
        let Some((standing, mut fault, deferred)) = self.end_call(cx) else {
            self.cannot_be(cx, "a handler returned without an answer");
            return;
        };
        let goes_on = match standing {
            Standing::Open => true,
            Standing::Silent => !is_error && deferred,
            Standing::Complete { .. } => false,
        };
        let complete = self.open_to_others(cx, goes_on, &mut fault);
        if let Some(fault) = fault {
            self.complain(cx, fault);
        }
        match standing {
            _ if goes_on => {
                self.phase = Phase::Answering;
                if let Some(persistent) = complete {
                    self.finish_late(cx, persistent);
                }
            }
            Standing::Complete { persistent } => self.finish_exchange(cx, persistent),
            // Nothing was written: the connection says so by closing.
            Standing::Open | Standing::Silent => self.finish_exchange(cx, false),
        }
    }

    /// Where the answer stands, what the handler did wrong, and whether a silent one may answer later.
    fn end_call(&mut self, cx: &mut Context) -> Option<(Standing, Option<&'static str>, bool)> {
        self.outbox(cx);
        let (exchange, out) = (self.exchange.as_deref_mut()?, self.out.as_deref_mut()?);
        let answer = exchange.answer.as_deref_mut()?;
        let standing = answer.handler_returned(&mut out.bytes);
        let fault = answer.take_fault();
        let all = cx.options.config.deferred_answers == DeferredAnswers::All;
        let head = &exchange.head;
        let is_get = exchange.buf.get(head.method.range()) == Some(b"GET");
        Some((standing, fault, all || is_get && head.persistent && !exchange.last))
    }

    /// Puts an answer that `goes_on` where other threads can continue it, and takes what they have written
    /// so far. Returns whether the connection may stay open, if that completes the answer.
    fn open_to_others(
        &mut self,
        cx: &mut Context,
        goes_on: bool,
        fault: &mut Option<&'static str>,
    ) -> Option<bool> {
        let slot = self.slot;
        // Whoever writes from another thread judges under this lock, so that all that was
        // written while the handler ran is in the queue now.
        let mut late = slot.answer();
        if goes_on {
            *late = self.exchange.as_deref_mut().and_then(|exchange| exchange.answer.take());
        } else {
            slot.set_answerable(false);
        }
        self.take_own_messages(cx);
        // And before the lock is given up it is judged, ahead of what is written next.
        let (exchange, out) = (self.exchange.as_deref_mut()?, self.out.as_deref_mut()?);
        let answer = late.as_deref_mut()?;
        for bytes in exchange.held.drain(..) {
            answer.write(&bytes, &mut out.bytes);
        }
        *fault = fault.take().or(answer.take_fault());
        answer.complete()
    }

    /// The answer is complete: on to the next request, or to the end.
    pub(super) fn finish_exchange(&mut self, cx: &mut Context, persistent: bool) {
        self.finish_log(cx);
        let Some(exchange) = self.exchange.take() else {
            return;
        };
        self.slot.set_answerable(false);
        self.slot.clear_request();
        let slot = self.slot;
        self.linger |= !matches!(exchange.body, Body::Complete);
        let stays = persistent && !exchange.last;
        self.phase = if stays { Phase::Head } else { Phase::Draining };
        cx.forget_hidden(slot);
        cx.recycle(exchange);
    }

    /// Hands what is known of the current answer to the access log.
    pub(super) fn finish_log(&mut self, cx: &mut Context) {
        let Some(exchange) = self.exchange.as_deref_mut() else {
            return;
        };
        let Some(entry) = exchange.log.take() else {
            return;
        };
        if exchange.status == 0 {
            let late = self.slot.answer();
            let answer = late.as_deref().or(exchange.answer.as_deref());
            if let Some(answer) = answer {
                (exchange.status, exchange.head_len) = (answer.status, answer.head_len);
            }
        }
        let (status, head_len) = (exchange.status, exchange.head_len);
        let out = self.outbox(cx);
        let end = out.position();
        out.records.push(Record { entry, head_len, end, status });
    }

    /// Answers what is no understandable request, and ends the connection. `parsed`: the head was
    /// just looked at, and the log may show of it what was understood.
    pub(super) fn refuse(&mut self, cx: &mut Context, status: u16, parsed: bool) -> Flow {
        let logged = cx.logs.access.is_on();
        let start = cx.input.unread.start;
        let begin = self.outbox(cx).position();
        self.linger = true;
        self.begun = false;
        if self.exchange.is_none() {
            let mut exchange = cx.spares.exchange();
            exchange.client = self.peer;
            exchange.head = Default::default();
            if logged {
                let head = Some(&cx.input.head).filter(|_| parsed);
                let part = |span: Option<Span>| {
                    let range = span.map(Span::range)?;
                    cx.input.buf.get(start + range.start..start + range.end)
                };
                let (line, status_at) = log::Request {
                    peer: self.peer.ip(),
                    user: None,
                    time: cx.clock.log_time(),
                    method: part(head.map(|head| head.method)).unwrap_or_default(),
                    target: part(head.map(|head| head.target)).unwrap_or_default(),
                    minor: head.map_or(0, |head| head.minor),
                    referer: None,
                    user_agent: None,
                }
                .format();
                exchange.log = Some(LogEntry { line, status_at, begin });
            }
            self.exchange = Some(exchange);
        }
        cx.input.unread = 0..0;
        self.set_timer(cx);
        self.fail(cx, status)
    }

    /// Answers the current request with an error, unless the program does.
    pub(super) fn fail(&mut self, cx: &mut Context, status: u16) -> Flow {
        let Some(exchange) = self.exchange.as_deref_mut() else {
            return self.cannot_be(cx, NO_REQUEST);
        };
        if let Some(gateway) = exchange.cgi.take() {
            cx.leave_program(&gateway);
        }
        if exchange.status != 0 {
            // An answer has begun: all that can still be said is that it is not whole.
            self.finish_exchange(cx, false);
            return Flow::Again;
        }
        let handler = cx.error_handler;
        let mark = self.outbox(cx).len();
        let Some(exchange) = self.exchange.as_deref_mut() else {
            return self.cannot_be(cx, NO_REQUEST);
        };
        if !matches!(exchange.body, Body::Complete) || matches!(status, 400 | 408 | 413 | 431 | 505)
        {
            exchange.last = true;
        }
        let Some(handler) = handler.filter(|_| status >= 400 && status != 401) else {
            return self.reply_error(cx, status);
        };
        exchange.mark = mark;
        exchange.plan = Plan::Error(status);
        exchange.buf.truncate(exchange.head.len);
        let charged = std::mem::take(&mut exchange.charged);
        let understood = exchange.shown.path_end > exchange.shown.path_at;
        cx.buffered = cx.buffered.saturating_sub(charged);
        if understood && !self.show() {
            return self.reply_error(cx, status);
        }
        self.prepare_answer(status);
        self.slot.set_status(status);
        Flow::Call(handler)
    }

    /// Answers with an error, a redirection, or an empty success of the library's own.
    pub(super) fn reply_error(&mut self, cx: &mut Context, status: u16) -> Flow {
        let Some(exchange) = self.exchange.as_deref_mut() else {
            return self.cannot_be(cx, NO_REQUEST);
        };
        let persistent = exchange.persists(!forbids_content(status));
        let head_only = exchange.head.is_head;
        self.outbox(cx);
        let date = cx.clock.date();
        let (Some(exchange), Some(out)) = (self.exchange.as_deref_mut(), self.out.as_deref_mut())
        else {
            return Flow::Leave;
        };
        let document = exchange.document.as_deref();
        let fields = &exchange.fields;
        let extra = &cx.options.config.extra_headers;
        let reply = Reply { status, date, persistent, head_only, fields, extra, document };
        exchange.status = status;
        exchange.head_len = reply.write_error(&mut out.bytes) as u64;
        self.finish_exchange(cx, persistent);
        Flow::Again
    }
}
