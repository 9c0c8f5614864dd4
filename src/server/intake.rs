//! From a readable socket to a complete request: bytes are read into the server's scratch buffer
//! and parsed there; what must outlive the turn is copied into the exchange.

use std::ops::{ControlFlow, Range};

use rustix::buffer::spare_capacity;
use rustix::net::RecvFlags;

use super::SCRATCH;
use super::connection::{Body, Conn, Exchange, LogEntry, NO_REQUEST, Phase, Plan};
use super::context::Context;
use super::step::Flow;
use crate::http::chunked::Step as Chunk;
use crate::http::request::{
    Expectation, Field, Framing, Head, Outcome, Span, blank_prefix, is_host,
};
use crate::http::uri;
use crate::log;
use crate::shared::slots::Shown;
use crate::site::dav::MAX_DOCUMENT;
use crate::site::{Intake, Site, Task};

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

impl Conn {
    /// Receives into `scratch` behind the unread input.
    pub(super) fn refill(&mut self, cx: &mut Context) -> Refill {
        if self.eof {
            return Refill::Eof;
        }
        if !self.readable {
            return Refill::Wait;
        }
        // While it lingers, what comes is thrown away and need not be understood.
        if self.tls.is_some() && self.phase != Phase::Lingering {
            return self.refill_sealed(cx);
        }
        if !make_room(&mut cx.input.buf, &mut cx.input.unread, SCRATCH / 4) {
            return Refill::Lost;
        }
        // The last byte is for the NUL behind a message that ends the input.
        let end = cx.input.buf.len() - 1;
        let space = &mut cx.input.buf[cx.input.unread.end..end];
        let room = space.len();
        match receive(&self.socket, space) {
            Ok(0) => {
                self.eof = true;
                self.readable = false;
                Refill::Eof
            }
            Ok(count) => {
                // A short read emptied the socket, unless its end is behind what was read: that
                // has been announced already and will not be announced again.
                self.readable = count == room || self.read_closed;
                self.last_active = cx.clock.now;
                cx.files.look_again();
                cx.input.unread.end += count;
                cx.turn.bytes = cx.turn.bytes.saturating_sub(count);
                Refill::Got
            }
            Err(rustix::io::Errno::AGAIN) => {
                self.readable = false;
                Refill::Wait
            }
            Err(_) => Refill::Lost,
        }
    }

    /// Looks for the next request.
    pub(super) fn next_head(&mut self, cx: &mut Context) -> Flow {
        let limit = cx.options.config.max_request_header_bytes;
        let blank = blank_prefix(&cx.input.buf[cx.input.unread.clone()]);
        if blank > 0 {
            cx.input.unread.start += blank;
            self.blank = self.blank.saturating_add(blank as u32);
            if self.blank as usize > limit {
                return self.refuse(cx, 431, false);
            }
        }
        if !cx.input.unread.is_empty() {
            if self.backlog() > HIGH_WATER {
                // The answers so far have to go first.
                if !self.flush(cx) {
                    return Flow::Close;
                }
                if self.backlog() > HIGH_WATER {
                    self.paused = true;
                    return Flow::Leave;
                }
            }
            if cx.turn.requests == 0 {
                self.make_ready(cx);
                return Flow::Leave;
            }
            match cx.input.head.parse(&cx.input.buf[cx.input.unread.clone()], limit) {
                Outcome::Complete => {
                    cx.turn.requests -= 1;
                    return self.begin_exchange(cx);
                }
                Outcome::Partial => {}
                Outcome::Refused(status) => return self.refuse(cx, status, true),
            }
        }
        match self.refill(cx) {
            Refill::Got => Flow::Again,
            Refill::Wait => Flow::Leave,
            Refill::Eof => {
                cx.input.unread = 0..0;
                self.drain_then_close(cx)
            }
            Refill::Lost => Flow::Close,
        }
    }

    /// A head is complete: finds out who answers it, and whether its body is taken.
    fn begin_exchange(&mut self, cx: &mut Context) -> Flow {
        let now = cx.clock.now;
        let mut exchange = cx.spares.exchange();
        exchange.client = self.peer;
        std::mem::swap(&mut exchange.head, &mut cx.input.head);
        let head_len = exchange.head.len;
        // Room for the content of a small request too: the buffer rarely grows twice.
        if exchange.buf.try_reserve(head_len + 512).is_err() {
            return Flow::Close;
        }
        let start = cx.input.unread.start;
        exchange.buf.extend_from_slice(&cx.input.buf[start..start + head_len]);
        cx.input.unread.start += head_len;
        if cx.logs.access.is_on() {
            exchange.log = Some(self.log_entry(cx, &exchange, None));
        }
        if !self.begun {
            self.since = now;
        }
        self.begun = false;
        self.blank = 0;
        self.phase = Phase::Body;

        let head = &exchange.head;
        let method = &exchange.buf[head.method.range()];
        // Its target is no path, so that no handler can match.
        let supported = method != b"CONNECT";
        let understood = locate(&mut exchange) || !supported;
        exchange.plan = match understood.then(|| cx.routes.find(&exchange.path)).flatten() {
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
        self.exchange = Some(exchange);

        if !supported {
            let Some(exchange) = self.exchange.as_deref_mut() else {
                return self.cannot_be(cx, NO_REQUEST);
            };
            let task = Site { exchange: &mut *exchange, cx }.wrong_method();
            exchange.task = Some(task);
            return self.dispatch(cx);
        }
        if !understood {
            return self.fail(cx, 400);
        }
        if framing == Framing::Empty && expects != Expectation::Unknown {
            return self.dispatch(cx);
        }
        if expects == Expectation::Unknown {
            return self.fail(cx, 417);
        }
        // RFC 9110, section 10.1.1: one of HTTP/1.0 does not wait.
        let waits = expects == Expectation::Continue && minor > 0;
        let config = &cx.options.config;
        let too_long = |length| length > config.max_request_body_bytes as u64;
        if matches!(framing, Framing::Length(length) if too_long(length)) {
            return self.fail(cx, 413);
        }
        let mut intake = Intake::Keep;
        if !handled {
            let Some(exchange) = self.exchange.as_deref_mut() else {
                return self.cannot_be(cx, NO_REQUEST);
            };
            let mut site = Site { exchange, cx };
            let mut task = site.decide();
            let is_short = matches!(framing, Framing::Length(length) if length <= SHORT);
            let leaves_at_once = waits || !is_short;
            if leaves_at_once {
                task = site.judge_early(task);
            }
            intake = task.intake();
            let is_final = task.is_final();
            site.exchange.intake = intake;
            site.exchange.task = Some(task);
            if is_final && leaves_at_once {
                // RFC 9110, section 15.5: a client need not send all of it to learn that. Some send
                // chunks only when they have been asked for a password.
                return self.dispatch(cx);
            }
        }
        let kept = intake == Intake::Keep;
        if kept && cx.buffered >= cx.options.config.max_buffered_bytes {
            return self.fail(cx, 503);
        }
        if waits && cx.input.unread.is_empty() {
            if intake == Intake::Discard {
                // RFC 9110, section 10.1.1: a body of no use is answered without being asked for.
                return self.dispatch(cx);
            }
            let out = self.outbox(cx);
            out.bytes.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            if let Some(log) =
                self.exchange.as_deref_mut().and_then(|exchange| exchange.log.as_mut())
            {
                // What the log counts begins behind it.
                log.begin += 25;
            }
        }
        Flow::Again
    }

    fn log_entry(
        &mut self,
        cx: &mut Context,
        exchange: &Exchange,
        user: Option<&[u8]>,
    ) -> LogEntry {
        let begin = self.outbox(cx).position();
        let peer = self.peer.ip();
        let head = &exchange.head;
        let (line, status_at) = log::Request {
            peer,
            user,
            time: cx.clock.log_time(),
            method: exchange.buf.get(head.method.range()).unwrap_or_default(),
            target: exchange.buf.get(head.target.range()).unwrap_or_default(),
            minor: head.minor,
            referer: head.value(&exchange.buf, "referer"),
            user_agent: head.value(&exchange.buf, "user-agent"),
        }
        .format();
        LogEntry { line, status_at, begin }
    }

    /// Takes in the content of the current request.
    pub(super) fn take_body(&mut self, cx: &mut Context) -> Flow {
        loop {
            if cx.turn.bytes == 0 {
                self.make_ready(cx);
                return Flow::Leave;
            }
            match self.take_arrived(cx) {
                ControlFlow::Break(flow) => return flow,
                ControlFlow::Continue(()) => {}
            }
            if !self.takes_content(cx) {
                return Flow::Leave;
            }
            let refill = match self.direct_target(cx) {
                Some(left) => self.receive_direct(cx, left),
                None => self.refill(cx),
            };
            match refill {
                Refill::Got => {}
                Refill::Wait => return Flow::Leave,
                // The rest of the request will never come.
                Refill::Eof | Refill::Lost => {
                    return Flow::Close;
                }
            }
        }
    }

    /// Moves what of the body is in `scratch` to its place.
    fn take_arrived(&mut self, cx: &mut Context) -> ControlFlow<Flow> {
        loop {
            let Some(exchange) = self.exchange.as_deref_mut() else {
                return ControlFlow::Break(self.cannot_be(cx, NO_REQUEST));
            };
            let mut body = exchange.body.clone();
            let before = cx.input.unread.start;
            let input = &cx.input.buf[cx.input.unread.clone()];
            let content = match &mut body {
                Body::Complete => return ControlFlow::Break(self.dispatch(cx)),
                Body::Length(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    *left -= take as u64;
                    let content = cx.input.unread.start..cx.input.unread.start + take;
                    cx.input.unread.start = content.end;
                    if *left == 0 {
                        body = Body::Complete;
                    }
                    content
                }
                Body::Chunked(decoder) => match decoder.step(input) {
                    Ok(Chunk::Data { start, end }) => {
                        let content = cx.input.unread.start + start..cx.input.unread.start + end;
                        cx.input.unread.start = content.end;
                        content
                    }
                    Ok(Chunk::More) => {
                        cx.input.unread.start = cx.input.unread.end;
                        0..0
                    }
                    Ok(Chunk::End(end)) => {
                        cx.input.unread.start += end;
                        body = Body::Complete;
                        0..0
                    }
                    Err(_) => return ControlFlow::Break(self.fail(cx, 400)),
                },
            };
            let taken = cx.input.unread.start - before;
            let finished = matches!(body, Body::Complete);
            let announced = match &body {
                Body::Chunked(decoder) => decoder.announced(),
                _ => 0,
            };
            let too_long = announced > self.content_limit(cx);
            if let Some(exchange) = self.exchange.as_deref_mut() {
                exchange.body = body;
                exchange.arrived += taken as u64;
            }
            if too_long {
                return ControlFlow::Break(self.fail(cx, 413));
            }
            if let Err(status) = self.append(cx, content) {
                return ControlFlow::Break(self.fail(cx, status));
            }
            if !finished && (taken == 0 || cx.input.unread.is_empty()) {
                return ControlFlow::Continue(());
            }
        }
    }

    /// How long the content of the current request may be.
    fn content_limit(&mut self, cx: &mut Context) -> u64 {
        let maximum = cx.options.config.max_request_body_bytes as u64;
        match self.exchange.as_deref_mut().and_then(|exchange| exchange.task.as_ref()) {
            Some(Task::Dav(_)) => maximum.min(MAX_DOCUMENT as u64),
            _ => maximum,
        }
    }

    /// Appends a piece of `scratch` to the content, within the limits.
    fn append(&mut self, cx: &mut Context, content: Range<usize>) -> Result<(), u16> {
        let config = &cx.options.config;
        let (maximum, buffered) = (config.max_request_body_bytes, config.max_buffered_bytes);
        let Some(exchange) = self.exchange.as_mut() else {
            return Ok(());
        };
        match exchange.intake {
            Intake::Keep => {}
            Intake::Stream if !content.is_empty() => return self.stream(cx, content),
            Intake::Stream | Intake::Discard => return Ok(()),
        }
        let so_far = exchange.buf.len() - exchange.head.len;
        if content.len() > maximum.saturating_sub(so_far) {
            return Err(413);
        }
        if content.len() > buffered.saturating_sub(cx.buffered) {
            return Err(503);
        }
        // The buffer grows with what arrives, never with what the head claims. One byte more
        // is for the NUL behind the content.
        let now = cx.clock.now;
        if !cx.spares.buffers.grow(&mut exchange.buf, content.len() + 1, now) {
            return Err(503);
        }
        exchange.charged += content.len();
        cx.buffered += content.len();
        exchange.buf.extend_from_slice(&cx.input.buf[content]);
        Ok(())
    }

    /// How much of a long body is to come, if it can be received where it is to lie.
    fn direct_target(&mut self, cx: &mut Context) -> Option<u64> {
        let idle = cx.input.unread.is_empty() && self.tls.is_none();
        match self.exchange.as_deref_mut()? {
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

    fn receive_direct(&mut self, cx: &mut Context, left: u64) -> Refill {
        let limit = cx.options.config.max_buffered_bytes.saturating_sub(cx.buffered);
        let Some(exchange) = self.exchange.as_mut() else {
            return Refill::Lost;
        };
        if !self.readable {
            return Refill::Wait;
        }
        let before = exchange.buf.len();
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let growth = left.min(before).saturating_add(1);
        if exchange.buf.capacity() - before < growth.min(SCRATCH)
            && !cx.spares.buffers.grow(&mut exchange.buf, growth, cx.clock.now)
        {
            return Refill::Lost;
        }
        let room = exchange.buf.capacity() - before;
        let count = loop {
            let space = spare_capacity(&mut exchange.buf);
            match rustix::net::recv(&self.socket, space, RecvFlags::empty()) {
                Ok((count, _)) => break count,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    self.readable = false;
                    return Refill::Wait;
                }
                Err(_) => return Refill::Lost,
            }
        };
        if count == 0 {
            self.eof = true;
            return Refill::Eof;
        }
        self.readable = count == room || self.read_closed;
        self.last_active = cx.clock.now;
        cx.files.look_again();
        let body = count.min(left);
        exchange.arrived += body as u64;
        exchange.charged += body;
        exchange.body = Body::Length((left - body) as u64);
        if body == left {
            exchange.body = Body::Complete;
        }
        cx.buffered += body;
        cx.turn.bytes = cx.turn.bytes.saturating_sub(count);
        // What follows the body belongs to the next request. Behind it is a byte for the NUL of a
        // message that ends the input.
        let excess = count - body;
        if cx.input.buf.len() <= excess {
            cx.input.buf.resize(excess + 1, 0);
        }
        cx.input.buf[..excess].copy_from_slice(&exchange.buf[before + body..]);
        exchange.buf.truncate(before + body);
        cx.input.unread = 0..excess;
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
