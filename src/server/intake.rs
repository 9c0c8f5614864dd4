//! From a readable socket to a complete request: bytes are read into the server's scratch buffer
//! and parsed there; what must outlive the turn is copied into the exchange.

use std::ops::{ControlFlow, Range};

use rustix::buffer::spare_capacity;
use rustix::net::RecvFlags;

use super::builtin::{Intake, Task};
use super::connection::{Body, Exchange, LogEntry, Phase, Plan};
use super::dav::MAX_DOCUMENT;
use super::step::Flow;
use super::{SCRATCH, Server};
use crate::http::chunked::Step as Chunk;
use crate::http::request::{
    Expectation, Field, Framing, Head, Outcome, Span, blank_prefix, is_host,
};
use crate::http::uri;
use crate::log;
use crate::shared::slots::Shown;

/// While more than this waits to be sent, no further request is begun.
const HIGH_WATER: usize = 256 * 1024;
/// Content up to this length is read before a final answer that is known without it: the connection can
/// stay open then.
const SHORT: u64 = 64 * 1024;
/// A body with more than this to come is received straight into its own buffer.
const DIRECT: u64 = 16 * 1024;

/// Input of the connection that has its turn.
#[derive(Default)]
pub(super) struct Input {
    /// Where it is read to and parsed.
    pub buf: Vec<u8>,
    /// What of `buf` is unread.
    pub unread: Range<usize>,
    /// The head that was parsed last.
    pub head: Head,
}

/// What came of an attempt to read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Refill {
    Got,
    /// Nothing for now.
    Wait,
    /// The client will send nothing more.
    Eof,
    /// The connection is broken.
    Lost,
}

impl Server {
    /// Receives into `scratch` behind the unread input.
    pub(super) fn refill(&mut self, index: usize) -> Refill {
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return Refill::Lost;
        };
        if conn.eof {
            return Refill::Eof;
        }
        if !conn.readable {
            return Refill::Wait;
        }
        // While it lingers, what comes is thrown away and need not be understood.
        if conn.tls.is_some() && conn.phase != Phase::Lingering {
            return self.refill_sealed(index);
        }
        if !make_room(&mut self.cx.input.buf, &mut self.cx.input.unread, SCRATCH / 4) {
            return Refill::Lost;
        }
        // The last byte is for the NUL behind a message that ends the input.
        let end = self.cx.input.buf.len() - 1;
        let space = &mut self.cx.input.buf[self.cx.input.unread.end..end];
        let room = space.len();
        match receive(&conn.socket, space) {
            Ok(0) => {
                conn.eof = true;
                conn.readable = false;
                Refill::Eof
            }
            Ok(count) => {
                // A short read emptied the socket, unless its end is behind what was read: that
                // has been announced already and will not be announced again.
                conn.readable = count == room || conn.read_closed;
                conn.last_active = self.cx.clock.now;
                self.cx.files.look_again();
                self.cx.input.unread.end += count;
                self.cx.turn.bytes = self.cx.turn.bytes.saturating_sub(count);
                Refill::Got
            }
            Err(rustix::io::Errno::AGAIN) => {
                conn.readable = false;
                Refill::Wait
            }
            Err(_) => Refill::Lost,
        }
    }

    /// Looks for the next request.
    pub(super) fn next_head(&mut self, index: usize) -> Flow {
        let limit = self.cx.options.config.max_request_header_bytes;
        let blank = blank_prefix(&self.cx.input.buf[self.cx.input.unread.clone()]);
        if blank > 0 {
            self.cx.input.unread.start += blank;
            let Some(conn) = self.conn(index) else { return Flow::Leave };
            conn.blank = conn.blank.saturating_add(blank as u32);
            if conn.blank as usize > limit {
                return self.refuse(index, 431, false);
            }
        }
        if !self.cx.input.unread.is_empty() {
            let Some(conn) = self.conn(index) else {
                return Flow::Leave;
            };
            if conn.backlog() > HIGH_WATER {
                // The answers so far have to go first.
                if !self.flush(index) {
                    return Flow::Leave;
                }
                if let Some(conn) = self.conn(index).filter(|conn| conn.backlog() > HIGH_WATER) {
                    conn.paused = true;
                    return Flow::Leave;
                }
            }
            if self.cx.turn.requests == 0 {
                self.make_ready(index);
                return Flow::Leave;
            }
            match self.cx.input.head.parse(&self.cx.input.buf[self.cx.input.unread.clone()], limit)
            {
                Outcome::Complete => {
                    self.cx.turn.requests -= 1;
                    return self.begin_exchange(index);
                }
                Outcome::Partial => {}
                Outcome::Refused(status) => return self.refuse(index, status, true),
            }
        }
        match self.refill(index) {
            Refill::Got => Flow::Again,
            Refill::Wait => Flow::Leave,
            Refill::Eof => {
                self.cx.input.unread = 0..0;
                self.drain_then_close(index)
            }
            Refill::Lost => {
                self.close(index);
                Flow::Leave
            }
        }
    }

    /// A head is complete: finds out who answers it, and whether its body is taken.
    fn begin_exchange(&mut self, index: usize) -> Flow {
        let now = self.cx.clock.now;
        let mut exchange = self.cx.spares.exchange();
        std::mem::swap(&mut exchange.head, &mut self.cx.input.head);
        let head_len = exchange.head.len;
        // Room for the content of a small request too: the buffer rarely grows twice.
        if exchange.buf.try_reserve(head_len + 512).is_err() {
            self.close(index);
            return Flow::Leave;
        }
        let start = self.cx.input.unread.start;
        exchange.buf.extend_from_slice(&self.cx.input.buf[start..start + head_len]);
        self.cx.input.unread.start += head_len;
        if self.cx.logs.access.is_on() {
            exchange.log = self.log_entry(index, &exchange, None);
        }
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return Flow::Leave;
        };
        if !conn.begun {
            conn.since = now;
        }
        conn.begun = false;
        conn.blank = 0;
        conn.phase = Phase::Body;

        let head = &exchange.head;
        let method = &exchange.buf[head.method.range()];
        // Its target is no path, so that no handler can match.
        let supported = method != b"CONNECT";
        let understood = locate(&mut exchange) || !supported;
        exchange.plan = match understood.then(|| self.cx.routes.find(&exchange.path)).flatten() {
            Some(handler) if supported => Plan::Handler(handler),
            _ => Plan::Builtin,
        };
        let head = &exchange.head;
        exchange.body = match head.framing {
            Framing::Empty => Body::Complete,
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Default::default()),
        };
        let (framing, expects, minor) = (head.framing, head.expects, head.minor);
        let handled = matches!(exchange.plan, Plan::Handler(_));
        exchange.intake = if handled { Intake::Keep } else { Intake::Discard };
        let Some(conn) = self.conn(index) else {
            return Flow::Leave;
        };
        conn.exchange = Some(exchange);

        if !supported {
            let task = self.wrong_method(index);
            if let Some(exchange) = self.exchange(index) {
                exchange.task = Some(task);
            }
            return self.dispatch(index);
        }
        if !understood {
            return self.fail(index, 400);
        }
        if framing == Framing::Empty && expects != Expectation::Unknown {
            return self.dispatch(index);
        }
        if expects == Expectation::Unknown {
            return self.fail(index, 417);
        }
        // RFC 9110, section 10.1.1: one of HTTP/1.0 does not wait.
        let waits = expects == Expectation::Continue && minor > 0;
        let config = &self.cx.options.config;
        let too_long = |length| length > config.max_request_body_bytes as u64;
        if matches!(framing, Framing::Length(length) if too_long(length)) {
            return self.fail(index, 413);
        }
        let mut intake = Intake::Keep;
        if !handled {
            let mut task = self.decide(index);
            let is_short = matches!(framing, Framing::Length(length) if length <= SHORT);
            let leaves_at_once = waits || !is_short;
            if leaves_at_once {
                task = self.judge_early(index, task);
            }
            intake = task.intake();
            let is_final = task.is_final();
            let Some(exchange) = self.exchange(index) else { return Flow::Leave };
            exchange.intake = intake;
            exchange.task = Some(task);
            if is_final && leaves_at_once {
                // RFC 9110, section 15.5: a client need not send all of it to learn that. Some send
                // chunks only when they have been asked for a password.
                return self.dispatch(index);
            }
        }
        let kept = intake == Intake::Keep;
        if kept && self.cx.buffered >= self.cx.options.config.max_buffered_bytes {
            return self.fail(index, 503);
        }
        if waits && self.cx.input.unread.is_empty() {
            if intake == Intake::Discard {
                // RFC 9110, section 10.1.1: a body of no use is answered without being asked for.
                return self.dispatch(index);
            }
            let Some(out) = self.outbox(index) else {
                return Flow::Leave;
            };
            out.bytes.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            if let Some(log) = self.exchange(index).and_then(|exchange| exchange.log.as_mut()) {
                // What the log counts begins behind it.
                log.begin += 25;
            }
        }
        Flow::Again
    }

    /// Puts the name of an authenticated user into the log's line.
    pub(super) fn log_user(&mut self, index: usize, user: &[u8]) {
        if !self.cx.logs.access.is_on() {
            return;
        }
        let Some(mut exchange) = self.conn(index).and_then(|conn| conn.exchange.take()) else {
            return;
        };
        exchange.log = self.log_entry(index, &exchange, Some(user));
        if let Some(conn) = self.conn(index) {
            conn.exchange = Some(exchange);
        }
    }

    fn log_entry(
        &mut self,
        index: usize,
        exchange: &Exchange,
        user: Option<&[u8]>,
    ) -> Option<LogEntry> {
        let begin = self.outbox(index)?.position();
        let peer = self.conn(index)?.peer;
        let head = &exchange.head;
        let (line, status_at) = log::Request {
            peer,
            user,
            time: self.cx.clock.log_time(),
            method: exchange.buf.get(head.method.range()).unwrap_or_default(),
            target: exchange.buf.get(head.target.range()).unwrap_or_default(),
            minor: head.minor,
            referer: head.value(&exchange.buf, "referer"),
            user_agent: head.value(&exchange.buf, "user-agent"),
        }
        .format();
        Some(LogEntry { line, status_at, begin })
    }

    /// Takes in the content of the current request.
    pub(super) fn take_body(&mut self, index: usize) -> Flow {
        loop {
            if self.cx.turn.bytes == 0 {
                self.make_ready(index);
                return Flow::Leave;
            }
            match self.take_arrived(index) {
                ControlFlow::Break(flow) => return flow,
                ControlFlow::Continue(()) => {}
            }
            if !self.takes_content(index) {
                return Flow::Leave;
            }
            let refill = match self.direct_target(index) {
                Some(left) => self.receive_direct(index, left),
                None => self.refill(index),
            };
            match refill {
                Refill::Got => {}
                Refill::Wait => return Flow::Leave,
                // The rest of the request will never come.
                Refill::Eof | Refill::Lost => {
                    self.close(index);
                    return Flow::Leave;
                }
            }
        }
    }

    /// Moves what of the body is in `scratch` to its place.
    fn take_arrived(&mut self, index: usize) -> ControlFlow<Flow> {
        loop {
            let Some(exchange) = self.exchange(index) else {
                return ControlFlow::Break(Flow::Leave);
            };
            let mut body = exchange.body.clone();
            let before = self.cx.input.unread.start;
            let input = &self.cx.input.buf[self.cx.input.unread.clone()];
            let content = match &mut body {
                Body::Complete => return ControlFlow::Break(self.dispatch(index)),
                Body::Length(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    *left -= take as u64;
                    let content = self.cx.input.unread.start..self.cx.input.unread.start + take;
                    self.cx.input.unread.start = content.end;
                    if *left == 0 {
                        body = Body::Complete;
                    }
                    content
                }
                Body::Chunked(decoder) => match decoder.step(input) {
                    Ok(Chunk::Data { start, end }) => {
                        let content =
                            self.cx.input.unread.start + start..self.cx.input.unread.start + end;
                        self.cx.input.unread.start = content.end;
                        content
                    }
                    Ok(Chunk::More) => {
                        self.cx.input.unread.start = self.cx.input.unread.end;
                        0..0
                    }
                    Ok(Chunk::End(end)) => {
                        self.cx.input.unread.start += end;
                        body = Body::Complete;
                        0..0
                    }
                    Err(_) => return ControlFlow::Break(self.fail(index, 400)),
                },
            };
            let taken = self.cx.input.unread.start - before;
            let finished = matches!(body, Body::Complete);
            let announced = match &body {
                Body::Chunked(decoder) => decoder.announced(),
                _ => 0,
            };
            let too_long = announced > self.content_limit(index);
            if let Some(exchange) = self.exchange(index) {
                exchange.body = body;
                exchange.arrived += taken as u64;
            }
            if too_long {
                return ControlFlow::Break(self.fail(index, 413));
            }
            if let Err(status) = self.append(index, content) {
                return ControlFlow::Break(self.fail(index, status));
            }
            if !finished && (taken == 0 || self.cx.input.unread.is_empty()) {
                return ControlFlow::Continue(());
            }
        }
    }

    /// How long the content of the current request may be.
    fn content_limit(&mut self, index: usize) -> u64 {
        let maximum = self.cx.options.config.max_request_body_bytes as u64;
        match self.exchange(index).and_then(|exchange| exchange.task.as_ref()) {
            Some(Task::Dav(_)) => maximum.min(MAX_DOCUMENT as u64),
            _ => maximum,
        }
    }

    /// Appends a piece of `scratch` to the content, within the limits.
    fn append(&mut self, index: usize, content: Range<usize>) -> Result<(), u16> {
        let config = &self.cx.options.config;
        let (maximum, buffered) = (config.max_request_body_bytes, config.max_buffered_bytes);
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return Ok(());
        };
        let Some(exchange) = conn.exchange.as_mut() else {
            return Ok(());
        };
        match exchange.intake {
            Intake::Keep => {}
            Intake::Stream if !content.is_empty() => return self.stream(index, content),
            Intake::Stream | Intake::Discard => return Ok(()),
        }
        let so_far = exchange.buf.len() - exchange.head.len;
        if content.len() > maximum.saturating_sub(so_far) {
            return Err(413);
        }
        if content.len() > buffered.saturating_sub(self.cx.buffered) {
            return Err(503);
        }
        // The buffer grows with what arrives, never with what the head claims. One byte more
        // is for the NUL behind the content.
        let now = self.cx.clock.now;
        if !self.cx.spares.buffers.grow(&mut exchange.buf, content.len() + 1, now) {
            return Err(503);
        }
        exchange.charged += content.len();
        self.cx.buffered += content.len();
        exchange.buf.extend_from_slice(&self.cx.input.buf[content]);
        Ok(())
    }

    /// How much of a long body is to come, if it can be received where it is to lie.
    fn direct_target(&mut self, index: usize) -> Option<u64> {
        let idle = self.cx.input.unread.is_empty() && self.conn(index)?.tls.is_none();
        match self.exchange(index)? {
            // Not before so much has arrived that the space for more is in proportion.
            Exchange { body: Body::Length(left), intake, buf, .. }
                if idle
                    && *left > DIRECT
                    && buf.len() >= SCRATCH / 8
                    && *intake == Intake::Keep =>
            {
                Some(*left)
            }
            _ => None,
        }
    }

    fn receive_direct(&mut self, index: usize, left: u64) -> Refill {
        let limit = self.cx.options.config.max_buffered_bytes.saturating_sub(self.cx.buffered);
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return Refill::Lost;
        };
        let Some(exchange) = conn.exchange.as_mut() else {
            return Refill::Lost;
        };
        if !conn.readable {
            return Refill::Wait;
        }
        let before = exchange.buf.len();
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let growth = left.min(before).saturating_add(1);
        if exchange.buf.capacity() - before < growth.min(SCRATCH)
            && !self.cx.spares.buffers.grow(&mut exchange.buf, growth, self.cx.clock.now)
        {
            return Refill::Lost;
        }
        let room = exchange.buf.capacity() - before;
        let count = loop {
            let space = spare_capacity(&mut exchange.buf);
            match rustix::net::recv(&conn.socket, space, RecvFlags::empty()) {
                Ok((count, _)) => break count,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    conn.readable = false;
                    return Refill::Wait;
                }
                Err(_) => return Refill::Lost,
            }
        };
        if count == 0 {
            conn.eof = true;
            return Refill::Eof;
        }
        conn.readable = count == room || conn.read_closed;
        conn.last_active = self.cx.clock.now;
        self.cx.files.look_again();
        let body = count.min(left);
        exchange.arrived += body as u64;
        exchange.charged += body;
        exchange.body = Body::Length((left - body) as u64);
        if body == left {
            exchange.body = Body::Complete;
        }
        self.cx.buffered += body;
        self.cx.turn.bytes = self.cx.turn.bytes.saturating_sub(count);
        // What follows the body belongs to the next request. Behind it is a byte for the NUL of a
        // message that ends the input.
        let excess = count - body;
        if self.cx.input.buf.len() <= excess {
            self.cx.input.buf.resize(excess + 1, 0);
        }
        self.cx.input.buf[..excess].copy_from_slice(&exchange.buf[before + body..]);
        exchange.buf.truncate(before + body);
        self.cx.input.unread = 0..excess;
        if body > limit {
            return Refill::Lost;
        }
        Refill::Got
    }
}

/// Finds path and query of the target; false if it is none.
pub(super) fn locate(exchange: &mut Exchange) -> bool {
    let Exchange { buf, head, path, shown, .. } = exchange;
    let Some(bytes) = buf.get(head.target.range()) else {
        return false;
    };
    if bytes.first() != Some(&b'/') {
        return locate_elsewhere(exchange);
    }
    let Ok(target) = uri::split_query(bytes) else {
        return false;
    };
    path.clear();
    if target.plain {
        path.extend_from_slice(target.path);
    } else if !decode(target.path, path) {
        return false;
    }
    // A decoded path is never longer than what it is decoded from.
    shown.path_at = head.target.range().start;
    shown.path_end = shown.path_at + path.len();
    shown.query = target.query.map(|query| {
        let start = shown.path_at + target.path.len() + 1;
        start..start + query.len()
    });
    true
}

/// The same for what is no path: `*`, which is a path of its own, and the absolute form.
#[cold]
fn locate_elsewhere(exchange: &mut Exchange) -> bool {
    let Exchange { buf, head, path, shown, .. } = exchange;
    let at = head.target.range().start;
    let Some(bytes) = buf.get(head.target.range()) else { return false };
    path.clear();
    if bytes == b"*" {
        // RFC 9112, section 3.2.4.
        if buf.get(head.method.range()) != Some(b"OPTIONS") {
            return false;
        }
        path.extend_from_slice(b"*");
        *shown = Shown { path_at: at, path_end: at + 1, ..Shown::default() };
        return true;
    }
    let Ok((authority, target)) = uri::split_absolute(bytes) else { return false };
    if !is_host(authority) || !decode(target.path, path) {
        return false;
    }
    // All of it lies in the target, but the path where there is none: that takes the place of the
    // scheme.
    let begin = bytes.as_ptr().addr();
    let offset = |part: &[u8]| part.as_ptr().addr().wrapping_sub(begin);
    let path_offset = offset(target.path);
    shown.path_at = at + if path_offset < bytes.len() { path_offset } else { 0 };
    shown.path_end = shown.path_at + path.len();
    shown.query = target.query.map(|query| {
        let start = at + offset(query);
        start..start + query.len()
    });
    let authority = at + offset(authority)..at + offset(authority) + authority.len();
    take_host(head, buf, authority)
}

/// RFC 9112, section 3.2.2: the authority of the target takes the place of the Host field. It is
/// appended to the head, since a string in C needs a byte behind it.
fn take_host(head: &mut Head, buf: &mut Vec<u8>, authority: Range<usize>) -> bool {
    const NAME: &[u8] = b"Host\0";
    if buf.len() != head.len || buf.try_reserve(NAME.len() + authority.len() + 1).is_err() {
        return false;
    }
    let place = |start: usize, len: usize| Span { start: start as u32, len: len as u32 };
    let name = place(buf.len(), NAME.len() - 1);
    let value = place(buf.len() + NAME.len(), authority.len());
    let is_host = |field: &&mut Field| {
        buf.get(field.name.range()).is_some_and(|name| name.eq_ignore_ascii_case(b"host"))
    };
    match head.fields.iter_mut().find(is_host) {
        Some(field) => field.value = value,
        // In front, so that it is among those that the program sees.
        None => head.fields.insert(0, Field { name, value }),
    }
    buf.extend_from_slice(NAME);
    buf.extend_from_within(authority);
    buf.push(0);
    head.len = buf.len();
    true
}

/// Writes the path that `raw` means to `path`, which is empty.
fn decode(raw: &[u8], path: &mut Vec<u8>) -> bool {
    path.resize(raw.len(), 0);
    let Ok(len) = uri::decode_path(raw, path) else { return false };
    path.truncate(len);
    true
}

/// Makes room for `least` bytes behind the unread input. False if there is no memory for it.
#[inline(always)]
pub(super) fn make_room(scratch: &mut Vec<u8>, input: &mut Range<usize>, least: usize) -> bool {
    if Range::is_empty(input) {
        *input = 0..0;
    } else if scratch.len() - input.end < least {
        scratch.copy_within(input.clone(), 0);
        *input = 0..input.len();
        if scratch.len() - input.end < least {
            if scratch.try_reserve(SCRATCH).is_err() {
                return false;
            }
            scratch.resize(scratch.len() + SCRATCH, 0);
        }
    }
    true
}

pub(super) fn receive(socket: &mio::net::TcpStream, space: &mut [u8]) -> rustix::io::Result<usize> {
    loop {
        match rustix::net::recv(socket, &mut *space, RecvFlags::empty()) {
            Ok((count, _)) => return Ok(count),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}
