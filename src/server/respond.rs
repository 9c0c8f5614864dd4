//! From a complete request to a complete answer: handlers, errors, files.

use std::ffi::c_int;
use std::os::unix::fs::FileExt as _;

use super::connection::{Body, Exchange, FileBody, LogEntry, Phase, Plan, Record};
use super::replies::{self, Reply};
use super::step::Flow;
use super::{Handler, Server, Step};
use crate::files::serve::{self, Found, OpenFile};
use crate::http::response::{Answer, Asked, Standing};
use crate::http::status::write_status_line;
use crate::log;
use crate::options::DeferredAnswers;
use crate::websocket::handshake;

/// A file is read in pieces of this size.
const FILE_PIECE: usize = 64 * 1024;

/// What plain files allow.
const FILE_METHODS: &[u8] = b"Allow: GET, HEAD, POST, OPTIONS\r\n";

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
        if let Some(place) = buf.get_mut(shown.path_at..shown.path_end) {
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
        **exchange.answer.get_or_insert_default() = Answer::new(asked, status);
    }

    /// Hands the current request to a handler.
    pub(super) fn call(&mut self, index: usize, handler: Handler) -> Step {
        let Some(conn) = self.conn(index) else {
            return Step::Done;
        };
        conn.phase = Phase::Calling;
        if conn.socket_state.is_none() {
            conn.slot.set_answerable(true);
        }
        let pointer = conn.slot.as_c();
        self.calling = Some(index);
        Step::Call(pointer, handler)
    }

    /// The handler that [`Step::Call`] asked for has returned `result`.
    pub fn returned(&mut self, result: c_int) {
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
        let fault = answer.take_fault();
        let all = self.options.config.deferred_answers == DeferredAnswers::All;
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
            // Whoever answers later may hold the pointer beyond the connection's end.
            slot.share();
            *late = exchange.answer.take();
        } else {
            slot.set_answerable(false);
        }
        if self.hub.queue.is_filled() {
            self.take_inbox();
        }
        drop(late);

        if let Some(fault) = fault {
            self.complain(Some(index), fault);
        }
        if goes_on {
            let Some(conn) = self.conn(index) else { return };
            conn.phase = Phase::Answering;
            let held = conn.exchange.as_mut().map(|exchange| std::mem::take(&mut exchange.held));
            for bytes in held.unwrap_or_default() {
                self.write_late(index, &bytes);
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
        conn.linger |= !matches!(exchange.body, Body::Complete);
        let stays = persistent && !exchange.last;
        conn.phase = if stays { Phase::Head } else { Phase::Draining };
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

    /// Answers what is no understandable request, and ends the connection.
    pub(super) fn refuse(&mut self, index: usize, status: u16) -> Flow {
        self.input = 0..0;
        self.set_timer(index);
        let unix = self.clock.unix;
        let logged = self.access_log.is_on();
        let Some(begin) = self.outbox(index).map(|out| out.position()) else {
            return Flow::Leave;
        };
        let spare = self.spare_exchanges.pop();
        let Some(conn) = self.conn(index) else {
            return Flow::Leave;
        };
        conn.linger = true;
        conn.begun = false;
        if conn.exchange.is_none() {
            let mut exchange = spare.unwrap_or_default();
            exchange.head = Default::default();
            if logged {
                let peer = conn.socket.peer_addr();
                let (prefix, suffix) = log::Request {
                    peer: peer.map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip()),
                    user: None,
                    unix,
                    method: b"",
                    target: b"",
                    minor: 0,
                    referer: None,
                    user_agent: None,
                }
                .format();
                exchange.log = Some(LogEntry { prefix, suffix, begin });
            }
            conn.exchange = Some(exchange);
        }
        self.fail(index, status)
    }

    /// Answers the current request with an error, unless the program does.
    pub(super) fn fail(&mut self, index: usize, status: u16) -> Flow {
        let handler = self.error_handler;
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
        self.buffered = self.buffered.saturating_sub(charged);
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
    fn reply_error(&mut self, index: usize, status: u16) -> Flow {
        let Some(exchange) = self.exchange(index) else {
            return Flow::Leave;
        };
        let persistent = exchange.head.persistent && !exchange.last;
        let head_only = exchange.head.is_head;
        if self.outbox(index).is_none() {
            return Flow::Leave;
        }
        let date = self.clock.date();
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return Flow::Leave;
        };
        let (Some(exchange), Some(out)) = (conn.exchange.as_deref_mut(), conn.out.as_deref_mut())
        else {
            return Flow::Leave;
        };
        let reply = Reply { status, date, persistent, head_only, fields: &exchange.fields };
        exchange.status = status;
        exchange.head_len = reply.write_error(&mut out.bytes) as u64;
        self.finish_exchange(index, persistent);
        Flow::Again
    }

    /// Answers a request that no handler of the program's matches.
    fn answer_builtin(&mut self, index: usize) -> Flow {
        let Some(exchange) = self.exchange(index) else {
            return Flow::Leave;
        };
        let method = exchange.buf.get(exchange.head.method.range()).unwrap_or_default();
        let writes = matches!(
            method,
            b"PUT"
                | b"DELETE"
                | b"MKCOL"
                | b"COPY"
                | b"MOVE"
                | b"PROPFIND"
                | b"PROPPATCH"
                | b"LOCK"
                | b"UNLOCK"
        );
        if method == b"OPTIONS" {
            exchange.fields.extend_from_slice(FILE_METHODS);
            exchange.fields.extend_from_slice(b"DAV: 1\r\n");
            return self.reply_error(index, 200);
        }
        if writes {
            return self.refuse_method(index);
        }
        let reads = matches!(method, b"GET" | b"HEAD" | b"POST");
        let path = std::mem::take(&mut exchange.path);
        let found = serve::find(&self.options.config, &path);
        let Some(exchange) = self.exchange(index) else {
            return Flow::Leave;
        };
        exchange.path = path;
        match found {
            Found::Status(status) => self.fail(index, status),
            Found::Directory => {
                let Exchange { fields, path, shown, buf, .. } = exchange;
                fields.extend_from_slice(b"Location: ");
                write_escaped_path(path, fields);
                fields.push(b'/');
                if let Some(query) = &shown.query {
                    fields.push(b'?');
                    fields.extend_from_slice(buf.get(query.clone()).unwrap_or_default());
                }
                fields.extend_from_slice(b"\r\n");
                self.reply_error(index, 301)
            }
            Found::File(_) if !reads => self.refuse_method(index),
            Found::File(file) => self.begin_file(index, file),
        }
    }

    /// RFC 9110, section 15.5.6: 405 says what is allowed.
    pub(super) fn refuse_method(&mut self, index: usize) -> Flow {
        if let Some(exchange) = self.exchange(index) {
            exchange.fields.extend_from_slice(FILE_METHODS);
        }
        self.fail(index, 405)
    }

    fn begin_file(&mut self, index: usize, found: OpenFile) -> Flow {
        if self.outbox(index).is_none() {
            return Flow::Leave;
        }
        let date = self.clock.date();
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return Flow::Leave;
        };
        let (Some(exchange), Some(out)) = (conn.exchange.as_deref_mut(), conn.out.as_deref_mut())
        else {
            return Flow::Leave;
        };
        let persistent = exchange.head.persistent && !exchange.last;
        let before = out.bytes.len();
        write_status_line(&mut out.bytes, 200);
        found.write_fields(date, replies::connection(persistent), &mut out.bytes);
        out.bytes.extend_from_slice(b"\r\n");
        exchange.status = 200;
        exchange.head_len = (out.bytes.len() - before) as u64;
        if exchange.head.is_head || found.len == 0 {
            self.finish_exchange(index, persistent);
        } else {
            exchange.file = Some(FileBody { file: found.file, offset: 0, left: found.len });
            conn.phase = Phase::Sending;
        }
        Flow::Again
    }

    /// Moves the next piece of a file to the outbox.
    pub(super) fn send_file(&mut self, index: usize) -> Flow {
        let Some(conn) = self.conn(index) else {
            return Flow::Leave;
        };
        if conn.backlog() >= FILE_PIECE {
            if !self.flush(index) {
                return Flow::Leave;
            }
            if self.conn(index).is_some_and(|conn| conn.backlog() >= FILE_PIECE) {
                return Flow::Leave;
            }
        }
        if self.quota == 0 {
            self.make_ready(index);
            return Flow::Leave;
        }
        if self.outbox(index).is_none() {
            return Flow::Leave;
        }
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return Flow::Leave;
        };
        let (Some(exchange), Some(out)) = (conn.exchange.as_deref_mut(), conn.out.as_deref_mut())
        else {
            return Flow::Leave;
        };
        let persistent = exchange.head.persistent && !exchange.last;
        let Some(body) = exchange.file.as_mut() else {
            self.close(index);
            return Flow::Leave;
        };
        let piece = usize::try_from(body.left).unwrap_or(FILE_PIECE).min(FILE_PIECE);
        let before = out.bytes.len();
        if out.bytes.try_reserve(piece).is_err() {
            self.close(index);
            return Flow::Leave;
        }
        out.bytes.resize(before + piece, 0);
        match body.file.read_at(&mut out.bytes[before..], body.offset) {
            Ok(count) if count > 0 => {
                out.bytes.truncate(before + count);
                body.offset += count as u64;
                body.left -= count as u64;
                self.quota = self.quota.saturating_sub(count);
                if body.left == 0 {
                    self.finish_exchange(index, persistent);
                }
                Flow::Again
            }
            // It shrank, or cannot be read: the promised length cannot be kept.
            _ => {
                out.bytes.truncate(before);
                self.complain(Some(index), "a file changed while it was sent");
                self.close(index);
                Flow::Leave
            }
        }
    }
}

/// RFC 3986, section 3.3: what may stand in a path stays, all else is escaped.
fn write_escaped_path(path: &[u8], out: &mut Vec<u8>) {
    for byte in path {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(byte) {
            out.push(*byte);
        } else {
            let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value)];
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}
