//! The way from input to a request with a complete head, and to the decision how it is answered and
//! whether its content is read (RFC 9112, sections 2 to 7; RFC 9110, section 10.1.1).
//!
//! Refuses to know how a head is parsed, which is in `http/request`.

use super::content::Recipient;
use super::{Conn, Flow, State, Waiting};
use crate::abi::Handler;
use crate::answer::Plan;
use crate::exchange::context::Context;
use crate::exchange::request::{LogEntry, Request, Rest};
use crate::http::request::{Expectation, Framing, Outcome, Span, blank_prefix};
use crate::log;
use crate::site::{Intake, Site};

use super::wire::{Received, Wire};

/// While more bytes than this wait to be sent, no further request is begun.
const MAX_ANSWERS_WAITING: usize = 256 * 1024;
/// Content up to this length is read before a final answer that is known without it, so that the
/// connection can stay open.
const SHORT_CONTENT: u64 = 64 * 1024;

impl Conn {
    /// Looks for the next request in the input, and receives more if it is not complete.
    pub(super) fn next_head(&mut self, cx: &mut Context) -> Flow {
        let limit = cx.options.config.max_request_header_bytes;
        if self.skip_blank(cx) > limit {
            return self.refuse(cx, 431, false);
        }
        if !cx.input.unread.is_empty() {
            match self.has_room_for_answer(cx) {
                Flow::Again => {}
                flow => return flow,
            }
            if cx.turn.requests == 0 {
                self.wire.make_ready(cx);
                return Flow::Leave;
            }
            match cx.input.head.parse(&cx.input.buf[cx.input.unread.clone()], limit) {
                Outcome::Complete => {
                    cx.turn.requests -= 1;
                    return self.begin_request(cx);
                }
                Outcome::Partial => {}
                Outcome::Refused(status) => return self.refuse(cx, status, true),
            }
        }
        match self.receive(cx) {
            Received::Bytes => Flow::Again,
            Received::Nothing => Flow::Leave,
            Received::End => {
                cx.input.clear();
                self.enter(State::Draining { lingers: false, websocket: None });
                self.drain(cx)
            }
            Received::Lost | Received::Refused { .. } => Flow::Close,
        }
    }

    /// Skips empty lines and blanks before a request. Returns their number of bytes since the last
    /// request.
    #[inline]
    fn skip_blank(&mut self, cx: &mut Context) -> usize {
        let blank = blank_prefix(cx.input.bytes());
        let State::Head(waiting) = &mut self.state else {
            debug_assert!(false, "a request is looked for in another state");
            return 0;
        };
        if blank > 0 {
            cx.input.unread.start += blank;
            waiting.blank = waiting.blank.saturating_add(blank as u32);
        }
        waiting.blank as usize
    }

    /// Returns [`Flow::Again`] if the bytes of earlier answers leave room for one more.
    #[inline]
    fn has_room_for_answer(&mut self, cx: &mut Context) -> Flow {
        if self.wire.backlog() <= MAX_ANSWERS_WAITING {
            return Flow::Again;
        }
        if !self.flush(cx) {
            return Flow::Close;
        }
        if self.wire.backlog() <= MAX_ANSWERS_WAITING {
            return Flow::Again;
        }
        if let State::Head(waiting) = &mut self.state {
            waiting.paused = true;
        }
        Flow::Leave
    }

    /// Decides how a request with a complete head is answered, and whether its content is read.
    fn begin_request(&mut self, cx: &mut Context) -> Flow {
        let Some(mut request) = self.take_head(cx) else { return Flow::Close };
        #[cfg(test)]
        assert!(!std::mem::take(&mut cx.has_fault), "a fault on purpose");
        // Also for CONNECT, so that the error handler sees the request.
        let is_located = request.locate();
        if (request.head.names_certificate || request.is_secure)
            && !request.name_client(self.wire.client_certificate(), self.is_believed(cx))
        {
            return Flow::Close;
        }
        if self.wire.hears_proxies
            && let Err(status) = self.hear_proxies(cx, &mut request)
        {
            return self.fail(cx, request, status);
        }
        if request.method() == b"CONNECT" {
            // The target is not a path, so that no handler can match.
            let task = Site { request: &mut request, cx }.wrong_method();
            return self.answer(cx, request, task);
        }
        if !is_located {
            return self.fail(cx, request, 400);
        }
        let handler = cx.routes.find(&request.path);
        if request.head.expects == Expectation::Unknown {
            return self.fail(cx, request, 417);
        }
        if request.head.framing == Framing::Empty {
            return match handler {
                Some(handler) => self.call_handler(cx, request, handler),
                None => self.decide(cx, request),
            };
        }
        self.begin_content(cx, request, handler)
    }

    /// Copies the head out of the input, which it outlives. `None` means that there is no memory
    /// for it.
    // Nearly all requests come by one of its two callers.
    #[inline(always)]
    pub(super) fn take_head(&mut self, cx: &mut Context) -> Option<Box<Request>> {
        let mut request = cx.spares.request();
        request.begin(self.wire.index(), self.wire.peer, self.wire.is_secure());
        std::mem::swap(&mut request.head, &mut cx.input.head);
        let head_len = request.head.len;
        // The room is enough for small content, too: the buffer rarely grows twice.
        request.buf.try_reserve(head_len + 512).ok()?;
        let start = cx.input.unread.start;
        request.buf.extend_from_slice(&cx.input.buf[start..start + head_len]);
        cx.input.unread.start += head_len;
        request.expect_content();
        if cx.logs.access.is_on() {
            request.log = Some(log_entry(&mut self.wire, cx, &request));
        }
        if let State::Head(waiting) = &mut self.state {
            if !waiting.begun {
                self.since = cx.clock.now;
            }
            *waiting = Waiting::default();
        }
        Some(request)
    }

    /// Decides on a request with content before that is read.
    fn begin_content(
        &mut self,
        cx: &mut Context,
        mut request: Box<Request>,
        handler: Option<Handler>,
    ) -> Flow {
        let framing = request.head.framing;
        // RFC 9110, section 10.1.1: a client of HTTP/1.0 does not wait.
        let waits = request.head.expects == Expectation::Continue && request.head.minor > 0;
        let exceeds = |limit| matches!(framing, Framing::Length(length) if length > limit);
        let (recipient, intake) = match handler {
            Some(_) if exceeds(cx.options.config.max_request_body_bytes as u64) => {
                return self.fail(cx, request, 413);
            }
            Some(handler) => (Recipient::Handler(handler), Intake::Keep),
            None => {
                let mut site = Site { request: &mut request, cx };
                let mut task = site.decide();
                let is_short =
                    matches!(framing, Framing::Length(length) if length <= SHORT_CONTENT);
                let leaves_at_once = waits || !is_short;
                if leaves_at_once {
                    task = site.check_early(task);
                }
                let intake = task.intake();
                // RFC 9110, section 15.5: a client need not send all of the content to learn of a
                // refusal. Some clients send chunks only after a challenge. RFC 9110, section
                // 10.1.1: content that is not needed is not asked for before the answer.
                let is_useless = intake == Intake::Discard && waits && cx.input.unread.is_empty();
                if leaves_at_once && task.is_final() || is_useless {
                    return self.answer(cx, request, task);
                }
                if exceeds(task.content_limit(&cx.options.config)) {
                    task.abandon(cx);
                    return self.fail(cx, request, 413);
                }
                if task.may_run_programs() {
                    request.local = self.wire.local_address();
                }
                (Recipient::Plan(Box::new(Plan::Task(task))), intake)
            }
        };
        if intake == Intake::Keep && cx.is_full() {
            recipient.stop(cx);
            return self.fail(cx, request, 503);
        }
        if waits && cx.input.unread.is_empty() {
            const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
            self.wire.outbox(cx).bytes.extend_from_slice(CONTINUE);
            if let Some(log) = &mut request.log {
                // The access log counts the bytes behind this head.
                log.begin += CONTINUE.len() as u64;
            }
        }
        self.enter(State::Content { request, recipient });
        Flow::Again
    }

    /// Answers input that is not a valid request, and ends the connection. `parsed` says that the
    /// head was just parsed, so that the access log may show the parts that were understood.
    pub(super) fn refuse(&mut self, cx: &mut Context, status: u16, parsed: bool) -> Flow {
        let mut request = cx.spares.request();
        request.begin(self.wire.index(), self.wire.peer, self.wire.is_secure());
        if self.wire.hears_proxies {
            // Nobody is named as the client.
            self.wire.slot.show_peer(self.wire.peer);
        }
        request.head = Default::default();
        request.rest = Rest::Unread;
        if cx.logs.access.is_on() {
            request.log = Some(log_entry_of_refused(&mut self.wire, cx, parsed));
        }
        self.state = State::default();
        cx.input.clear();
        self.set_timer(cx);
        self.fail(cx, request, status)
    }
}

/// Returns the access log line of a request.
pub(super) fn log_entry(wire: &mut Wire, cx: &mut Context, request: &Request) -> LogEntry {
    let begin = wire.outbox(cx).position();
    let head = request.head_bytes();
    let (line, status_at) = log::AccessLine {
        peer: request.client,
        user: None,
        time: cx.clock.log_time(),
        method: request.method(),
        target: request.target(),
        minor: request.head.minor,
        referer: request.head.value(head, "referer"),
        user_agent: request.head.value(head, "user-agent"),
    }
    .format();
    LogEntry { line, status_at, begin }
}

/// Returns the access log line of input that is refused.
fn log_entry_of_refused(wire: &mut Wire, cx: &mut Context, parsed: bool) -> LogEntry {
    let begin = wire.outbox(cx).position();
    let start = cx.input.unread.start;
    let head = Some(&cx.input.head).filter(|_| parsed);
    let part = |span: Option<Span>| {
        let range = span.map(Span::range)?;
        cx.input.buf.get(start + range.start..start + range.end)
    };
    let (line, status_at) = log::AccessLine {
        peer: wire.peer,
        user: None,
        time: cx.clock.log_time(),
        method: part(head.map(|head| head.method)).unwrap_or_default(),
        target: part(head.map(|head| head.target)).unwrap_or_default(),
        minor: head.map_or(0, |head| head.minor),
        referer: None,
        user_agent: None,
    }
    .format();
    LogEntry { line, status_at, begin }
}
