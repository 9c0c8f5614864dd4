//! From a complete request to a complete answer: handlers, and errors of the library's own.

use std::ffi::c_int;

use super::connection::{Body, Exchange, LogEntry, Phase, Plan, Record};
use super::replies::Reply;
use super::step::Flow;
use super::{Server, Step};
use crate::abi::Handler;
use crate::http::request::Span;
use crate::http::response::{Asked, Standing};
use crate::http::status::forbids_content;
use crate::log;
use crate::options::DeferredAnswers;
use crate::websocket::handshake;

impl Server {
    pub(super) fn exchange(&mut self, index: usize) -> Option<&mut Exchange> {
        self.conn(index)?.exchange.as_deref_mut()
    }

    /// The request is complete, or its body is not worth waiting for: answers it.
    pub(super) fn dispatch(&mut self, index: usize) -> Flow {
        let Some(exchange) = self.exchange(index) else {
            return Flow::Leave;
        };
        if !matches!(exchange.body, Body::Complete) {
            exchange.last = true;
        }
        match exchange.plan {
            Plan::Handler(handler) => {
                let head = exchange.buf.get(..exchange.head.len).unwrap_or_default();
                if exchange.head.upgrade && handshake::wants_websocket(&exchange.head, head) {
                    return self.upgrade(index, handler);
                }
                if !self.show(index) {
                    return self.fail(index, 503);
                }
                self.prepare_answer(index, 200);
                Flow::Call(handler)
            }
            Plan::Builtin => self.answer_builtin(index),
            Plan::Error(status) => self.reply_error(index, status),
        }
    }

    /// Shows the request to the program. False when there is no memory for it.
    pub(super) fn show(&mut self, index: usize) -> bool {
        let Some(conn) = self.conn(index) else {
            return false;
        };
        let slot = conn.slot;
        let Some(exchange) = conn.exchange.as_deref_mut() else {
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

    fn prepare_answer(&mut self, index: usize, status: u16) {
        let Some(exchange) = self.exchange(index) else {
            return;
        };
        let asked = Asked {
            head_only: exchange.head.is_head,
            chunks: exchange.head.minor == 1,
            persistent: exchange.head.persistent && !exchange.last,
        };
        exchange.answer.get_or_insert_default().begin(asked, status);
    }

    /// Hands the current request to a handler.
    pub(super) fn call(&mut self, index: usize, handler: Handler) -> Step {
        self.flush_late();
        let Some(conn) = self.conn(index) else {
            return Step::Done;
        };
        conn.phase = Phase::Calling;
        conn.slot.set_seen();
        if conn.socket_state.is_none() {
            conn.slot.set_answerable(true);
        }
        let pointer = conn.slot.as_c();
        self.calling = Some(index);
        Step::Call(pointer, handler)
    }

    /// The handler that [`Step::Call`] asked for has returned `result`.
    pub fn returned(&mut self, result: c_int) {
        // It may have changed files.
        self.cx.files.look_again();
        let Some(index) = self.calling.take() else { return };
        if self.conn(index).is_some_and(|conn| conn.socket_state.is_some()) {
            self.message_handled(index, result);
            return;
        }
        // It stands in the outbox and the answer what the handler wrote.
        if self.outbox(index).is_none() {
            return;
        }
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let slot = conn.slot;
        let (Some(exchange), Some(out)) = (conn.exchange.as_deref_mut(), conn.out.as_deref_mut())
        else {
            return;
        };
        let Some(answer) = exchange.answer.as_deref_mut() else {
            return;
        };
        let is_error = match exchange.plan {
            Plan::Error(status) => Some(status),
            _ => None,
        };
        if let (Some(status), 0) = (is_error, result) {
            out.truncate(exchange.mark);
            let late = slot.answer();
            slot.set_answerable(false);
            self.take_inbox();
            drop(late);
            self.reply_error(index, status);
            return;
        }
        let standing = answer.handler_returned(&mut out.bytes);
        let mut fault = answer.take_fault();
        let all = self.cx.options.config.deferred_answers == DeferredAnswers::All;
        let head = &exchange.head;
        let is_get = exchange.buf.get(head.method.range()) == Some(b"GET");
        let deferred = all || is_get && head.persistent && !exchange.last;

        // Whoever writes from another thread judges under this lock, so that all that was
        // written while the handler ran is in the queue now.
        let mut late = slot.answer();
        let goes_on = match standing {
            Standing::Open => true,
            Standing::Silent => is_error.is_none() && deferred,
            Standing::Complete { .. } => false,
        };
        if goes_on {
            *late = exchange.answer.take();
        } else {
            slot.set_answerable(false);
        }
        if self.cx.hub.queue.is_filled() {
            self.take_inbox();
        }
        // And before the lock is given up it is judged, ahead of what is written next.
        let mut complete = None;
        if let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut)
            && let (Some(exchange), Some(out)) =
                (conn.exchange.as_deref_mut(), conn.out.as_deref_mut())
            && let Some(answer) = late.as_deref_mut()
        {
            for bytes in exchange.held.drain(..) {
                answer.write(&bytes, &mut out.bytes);
            }
            complete = answer.complete();
            fault = fault.or(answer.take_fault());
        }
        drop(late);

        if let Some(fault) = fault {
            self.complain(Some(index), fault);
        }
        if goes_on {
            let Some(conn) = self.conn(index) else { return };
            conn.phase = Phase::Answering;
            if let Some(persistent) = complete {
                self.finish_late(index, persistent);
            }
        } else if let Standing::Complete { persistent } = standing {
            self.finish_exchange(index, persistent);
        } else {
            // Nothing was written: the connection says so by closing.
            self.finish_exchange(index, false);
        }
    }

    /// The answer is complete: on to the next request, or to the end.
    pub(super) fn finish_exchange(&mut self, index: usize, persistent: bool) {
        self.finish_log(index);
        let Some(conn) = self.conn(index) else { return };
        let Some(exchange) = conn.exchange.take() else {
            return;
        };
        conn.slot.set_answerable(false);
        conn.slot.clear_request();
        let slot = conn.slot;
        conn.linger |= !matches!(exchange.body, Body::Complete);
        let stays = persistent && !exchange.last;
        conn.phase = if stays { Phase::Head } else { Phase::Draining };
        self.forget_hidden(slot);
        self.recycle(exchange);
    }

    /// Hands what is known of the current answer to the access log.
    pub(super) fn finish_log(&mut self, index: usize) {
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let Some(exchange) = conn.exchange.as_deref_mut() else {
            return;
        };
        let Some(entry) = exchange.log.take() else {
            return;
        };
        if exchange.status == 0 {
            let late = conn.slot.answer();
            let answer = late.as_deref().or(exchange.answer.as_deref());
            if let Some(answer) = answer {
                (exchange.status, exchange.head_len) = (answer.status, answer.head_len);
            }
        }
        let (status, head_len) = (exchange.status, exchange.head_len);
        let Some(out) = self.outbox(index) else {
            return;
        };
        let end = out.position();
        out.records.push(Record { entry, head_len, end, status });
    }

    /// Answers what is no understandable request, and ends the connection. `parsed`: the head was
    /// just looked at, and the log may show of it what was understood.
    pub(super) fn refuse(&mut self, index: usize, status: u16, parsed: bool) -> Flow {
        let logged = self.cx.logs.access.is_on();
        let start = self.cx.input.unread.start;
        let Some(begin) = self.outbox(index).map(|out| out.position()) else { return Flow::Leave };
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return Flow::Leave;
        };
        conn.linger = true;
        conn.begun = false;
        if conn.exchange.is_none() {
            let mut exchange = self.cx.spares.exchange();
            exchange.head = Default::default();
            if logged {
                let head = Some(&self.cx.input.head).filter(|_| parsed);
                let part = |span: Option<Span>| {
                    let range = span.map(Span::range)?;
                    self.cx.input.buf.get(start + range.start..start + range.end)
                };
                let (line, status_at) = log::Request {
                    peer: conn.peer,
                    user: None,
                    time: self.cx.clock.log_time(),
                    method: part(head.map(|head| head.method)).unwrap_or_default(),
                    target: part(head.map(|head| head.target)).unwrap_or_default(),
                    minor: head.map_or(0, |head| head.minor),
                    referer: None,
                    user_agent: None,
                }
                .format();
                exchange.log = Some(LogEntry { line, status_at, begin });
            }
            conn.exchange = Some(exchange);
        }
        self.cx.input.unread = 0..0;
        self.set_timer(index);
        self.fail(index, status)
    }

    /// Answers the current request with an error, unless the program does.
    pub(super) fn fail(&mut self, index: usize, status: u16) -> Flow {
        if let Some(gateway) = self.exchange(index).and_then(|exchange| exchange.cgi.take()) {
            self.leave_program(&gateway);
        }
        if self.exchange(index).is_some_and(|exchange| exchange.status != 0) {
            // An answer has begun: all that can still be said is that it is not whole.
            self.finish_exchange(index, false);
            return Flow::Again;
        }
        let handler = self.cx.error_handler;
        let Some(mark) = self.outbox(index).map(|out| out.len()) else {
            return Flow::Leave;
        };
        let Some(exchange) = self.exchange(index) else {
            return Flow::Leave;
        };
        if !matches!(exchange.body, Body::Complete) || matches!(status, 400 | 408 | 413 | 431 | 505)
        {
            exchange.last = true;
        }
        let Some(handler) = handler.filter(|_| status >= 400 && status != 401) else {
            return self.reply_error(index, status);
        };
        exchange.mark = mark;
        exchange.plan = Plan::Error(status);
        exchange.buf.truncate(exchange.head.len);
        let charged = std::mem::take(&mut exchange.charged);
        let understood = exchange.shown.path_end > exchange.shown.path_at;
        self.cx.buffered = self.cx.buffered.saturating_sub(charged);
        if understood && !self.show(index) {
            return self.reply_error(index, status);
        }
        self.prepare_answer(index, status);
        if let Some(conn) = self.conn(index) {
            conn.slot.set_status(status);
        }
        Flow::Call(handler)
    }

    /// Answers with an error, a redirection, or an empty success of the library's own.
    pub(super) fn reply_error(&mut self, index: usize, status: u16) -> Flow {
        let Some(exchange) = self.exchange(index) else {
            return Flow::Leave;
        };
        let persistent = exchange.persists(!forbids_content(status));
        let head_only = exchange.head.is_head;
        if self.outbox(index).is_none() {
            return Flow::Leave;
        }
        let date = self.cx.clock.date();
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return Flow::Leave;
        };
        let (Some(exchange), Some(out)) = (conn.exchange.as_deref_mut(), conn.out.as_deref_mut())
        else {
            return Flow::Leave;
        };
        let document = exchange.document.as_deref();
        let fields = &exchange.fields;
        let extra = &self.cx.options.config.extra_headers;
        let reply = Reply { status, date, persistent, head_only, fields, extra, document };
        exchange.status = status;
        exchange.head_len = reply.write_error(&mut out.bytes) as u64;
        self.finish_exchange(index, persistent);
        Flow::Again
    }
}
