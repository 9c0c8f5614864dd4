//! The content of a request: where it ends, and where its pieces go (RFC 9112, sections 6 and 7.1).
//!
//! Refuses to know what a program or an upload does with the pieces.

use std::ops::Range;

use super::wire::{Received, Wire};
use super::{Conn, Flow, State};
use crate::abi::Handler;
use crate::answer::{Ended, Gateway, Moved, PIECE, Plan, Source};
use crate::cgi::table::Number;
use crate::exchange::context::Context;
use crate::exchange::input::SCRATCH;
use crate::exchange::request::{Request, Rest};
use crate::http::chunked::Step as Chunk;
use crate::options::Config;
use crate::site::Intake;

/// Content of which more bytes than this are missing is received straight into its own buffer.
const STRAIGHT_FROM: u64 = 16 * 1024;
/// The line for the error log where content cannot be kept.
const NO_MEMORY: &str = "no memory for the content of a request";

/// The state of the content after the input was taken.
enum Taken {
    /// The content is complete.
    All,
    /// More is to come.
    Part,
    /// The request is refused with this status.
    Refused(u16),
}

/// The result of moving a program's output.
enum Relayed {
    /// There is no output for now, or no room for it.
    Nothing,
    Ended(Ended),
    /// The connection has failed.
    Lost,
}

/// The recipient of a request's content.
pub(super) enum Recipient {
    Handler(Handler),
    Plan(Box<Plan>),
}

impl Recipient {
    /// Returns whether content is kept, streamed or discarded.
    fn intake(&self) -> Intake {
        match self {
            Recipient::Handler(_) => Intake::Keep,
            Recipient::Plan(plan) => plan.intake(),
        }
    }

    /// Returns the largest length of the content.
    fn content_limit(&self, config: &Config) -> u64 {
        match self {
            Recipient::Handler(_) => config.max_request_body_bytes as u64,
            Recipient::Plan(plan) => plan.content_limit(config),
        }
    }

    /// Returns the number of the program that takes the content.
    pub(super) fn program(&self) -> Option<Number> {
        match self {
            Recipient::Handler(_) => None,
            Recipient::Plan(plan) => plan.program(),
        }
    }

    /// Gives the recipient up, with all that it has begun.
    pub(super) fn stop(self, cx: &mut Context) {
        if let Recipient::Plan(plan) = self {
            plan.stop(cx);
        }
    }
}

impl Conn {
    /// Takes the content of a request, until it is complete or more has to arrive.
    pub(super) fn take_content(
        &mut self,
        cx: &mut Context,
        mut request: Box<Request>,
        mut recipient: Recipient,
    ) -> Flow {
        if let Recipient::Plan(plan) = &mut recipient
            && let Plan::Program(gateway) = &mut **plan
        {
            match self.relay_output(cx, &mut request, gateway) {
                Relayed::Nothing => {}
                Relayed::Lost => return self.keep_content(request, recipient, Flow::Close),
                Relayed::Ended(ended) => {
                    recipient.stop(cx);
                    return self.end_answer(cx, request, ended);
                }
            }
        }
        loop {
            if cx.turn.bytes == 0 {
                self.wire.make_ready(cx);
                return self.keep_content(request, recipient, Flow::Leave);
            }
            if let Recipient::Plan(plan) = &mut recipient
                && plan.is_behind()
            {
                if let Err(status) = plan.take(b"", &mut request, cx) {
                    return self.refuse_content(cx, request, recipient, status);
                }
                if plan.is_behind() {
                    self.wire.make_ready(cx);
                    return self.keep_content(request, recipient, Flow::Leave);
                }
            }
            match take_arrived(&mut request, &mut recipient, cx) {
                Taken::All => return self.end_content(cx, request, recipient),
                Taken::Refused(status) => {
                    return self.refuse_content(cx, request, recipient, status);
                }
                Taken::Part => {}
            }
            if let Recipient::Plan(plan) = &recipient {
                if plan.is_behind() {
                    continue;
                }
                if !plan.takes_content(cx) {
                    return self.keep_content(request, recipient, Flow::Leave);
                }
            }
            let received = match straight_left(&self.wire, cx, &request, &recipient) {
                Some(left) => receive_straight(&mut self.wire, cx, &mut request, left),
                None => self.wire.receive(cx, true),
            };
            match received {
                Received::Bytes => {}
                Received::Nothing => return self.keep_content(request, recipient, Flow::Leave),
                Received::End => return self.end_unfinished(cx, request, recipient),
                Received::Lost | Received::Refused { .. } => {
                    return self.keep_content(request, recipient, Flow::Close);
                }
            }
        }
    }

    /// Ends a request whose rest will never arrive, and the connection. The answers to earlier requests are
    /// sent first.
    fn end_unfinished(
        &mut self,
        cx: &mut Context,
        mut request: Box<Request>,
        recipient: Recipient,
    ) -> Flow {
        if request.status != 0 {
            // A program has begun to answer, and an orderly end would say that its answer is whole.
            return self.keep_content(request, recipient, Flow::Close);
        }
        recipient.stop(cx);
        Self::log_answer(&mut self.wire, cx, &mut request);
        cx.recycle(request);
        self.enter(State::Draining { lingers: false, websocket: None });
        self.drain(cx)
    }

    /// Returns to the state in which content is taken.
    #[inline]
    fn keep_content(&mut self, request: Box<Request>, recipient: Recipient, flow: Flow) -> Flow {
        self.enter(State::Content { request, recipient });
        flow
    }

    /// Moves the output of a program that runs already, and that may answer before it has all
    /// content.
    fn relay_output(
        &mut self,
        cx: &mut Context,
        request: &mut Request,
        gateway: &mut Gateway,
    ) -> Relayed {
        if cx.programs.feed(gateway.program(), cx.clock.now) {
            // The program was slow, not the client.
            self.since = cx.clock.now;
        }
        loop {
            if self.wire.backlog() >= PIECE && !self.wire.flush(cx, false) {
                return Relayed::Lost;
            }
            if self.wire.backlog() >= PIECE {
                return Relayed::Nothing;
            }
            if cx.turn.bytes == 0 {
                self.wire.make_ready(cx);
                return Relayed::Nothing;
            }
            match gateway.move_output(request, self.wire.outbox(cx), cx) {
                Moved::Waits => return Relayed::Nothing,
                Moved::More => {}
                Moved::Ended(ended) => return Relayed::Ended(ended),
            }
        }
    }

    /// Passes a request on whose content is complete.
    pub(super) fn end_content(
        &mut self,
        cx: &mut Context,
        request: Box<Request>,
        recipient: Recipient,
    ) -> Flow {
        match recipient {
            Recipient::Handler(handler) => self.call_handler(cx, request, handler),
            Recipient::Plan(plan) => match *plan {
                Plan::Task(task) if task.may_run_programs() && cx.turn.is_fresh => {
                    // To start a program takes as long as many requests.
                    self.wire.make_ready(cx);
                    let recipient = Recipient::Plan(Box::new(Plan::Task(task)));
                    self.keep_content(request, recipient, Flow::Leave)
                }
                Plan::Task(task) => self.answer(cx, request, task),
                Plan::Program(mut gateway) => {
                    gateway.end_content(cx);
                    self.enter(State::Producing { request, source: Source::Program(gateway) });
                    Flow::Again
                }
            },
        }
    }

    /// Answers with an error before the content is complete.
    pub(super) fn refuse_content(
        &mut self,
        cx: &mut Context,
        request: Box<Request>,
        recipient: Recipient,
        status: u16,
    ) -> Flow {
        recipient.stop(cx);
        self.fail(cx, request, status)
    }
}

/// Moves the part of the content that is in the input to its place.
fn take_arrived(request: &mut Request, recipient: &mut Recipient, cx: &mut Context) -> Taken {
    loop {
        let unread = cx.input.unread.clone();
        let (content, end, announced) = match &mut request.rest {
            Rest::Nothing => return Taken::All,
            Rest::Unread => return Taken::Refused(400),
            Rest::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(unread.len());
                *left -= take as u64;
                let end = unread.start + take;
                if *left == 0 {
                    request.rest = Rest::Nothing;
                }
                (unread.start..end, end, 0)
            }
            Rest::Chunked(decoder) => match decoder.step(cx.input.bytes()) {
                Ok(Chunk::Data { start, end }) => {
                    let content = unread.start + start..unread.start + end;
                    (content.clone(), content.end, decoder.announced())
                }
                Ok(Chunk::More) => (0..0, unread.end, decoder.announced()),
                Ok(Chunk::End(len)) => {
                    request.rest = Rest::Nothing;
                    (0..0, unread.start + len, 0)
                }
                Err(_) => return Taken::Refused(400),
            },
        };
        let count = end - unread.start;
        cx.input.unread.start = end;
        request.arrived += count as u64;
        if announced > recipient.content_limit(&cx.options.config) {
            return Taken::Refused(413);
        }
        if let Err(status) = append(request, recipient, cx, content) {
            return Taken::Refused(status);
        }
        if !request.is_complete() && (count == 0 || cx.input.unread.is_empty()) {
            return Taken::Part;
        }
    }
}

/// Passes a piece of the content on, within the limits.
fn append(
    request: &mut Request,
    recipient: &mut Recipient,
    cx: &mut Context,
    content: Range<usize>,
) -> Result<(), u16> {
    match (recipient.intake(), recipient) {
        (Intake::Discard, _) => return Ok(()),
        (Intake::Stream, Recipient::Plan(plan)) => {
            if content.is_empty() {
                return Ok(());
            }
            let buf = std::mem::take(&mut cx.input.buf);
            let taken = plan.take(buf.get(content).unwrap_or_default(), request, cx);
            cx.input.buf = buf;
            return taken;
        }
        (Intake::Keep | Intake::Stream, _) => {}
    }
    let config = &cx.options.config;
    let so_far = request.buf.len() - request.head.len;
    if content.len() > config.max_request_body_bytes.saturating_sub(so_far) {
        return Err(413);
    }
    // The buffer grows with the bytes that arrive, never with those that the head promises. One
    // more byte is for the NUL behind the content.
    let now = cx.clock.now;
    if !cx.charge(request, content.len()) {
        return Err(503);
    }
    if !cx.spares.buffers.grow(&mut request.buf, content.len() + 1, now) {
        cx.complain_of(request.client, NO_MEMORY);
        return Err(503);
    }
    request.buf.extend_from_slice(&cx.input.buf[content]);
    Ok(())
}

/// Returns the number of bytes that are missing of long content, if these can be received straight
/// into its buffer.
fn straight_left(
    wire: &Wire,
    cx: &Context,
    request: &Request,
    recipient: &Recipient,
) -> Option<u64> {
    match request.rest {
        // So much has to arrive first that the space for more is in proportion.
        Rest::Length(left)
            if left > STRAIGHT_FROM
                && cx.input.unread.is_empty()
                && !wire.is_secure()
                && request.buf.len() >= SCRATCH / 8
                && recipient.intake() == Intake::Keep =>
        {
            Some(left)
        }
        _ => None,
    }
}

/// Receives content straight into its buffer. `left` is the number of missing bytes.
fn receive_straight(
    wire: &mut Wire,
    cx: &mut Context,
    request: &mut Request,
    left: u64,
) -> Received {
    let limit = cx.options.config.max_buffered_bytes.saturating_sub(cx.buffered);
    let before = request.buf.len();
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    let growth = left.min(before).saturating_add(1);
    if request.buf.capacity() - before < growth.min(SCRATCH)
        && !cx.spares.buffers.grow(&mut request.buf, growth, cx.clock.now)
    {
        cx.complain_of(request.client, NO_MEMORY);
        return Received::Lost;
    }
    let count = match wire.receive_into(cx, &mut request.buf) {
        Ok(count) => count,
        Err(received) => return received,
    };
    let body = count.min(left);
    request.arrived += body as u64;
    request.charged += body;
    cx.buffered += body;
    request.rest = match left - body {
        0 => Rest::Nothing,
        left => Rest::Length(left as u64),
    };
    // Bytes behind the content belong to the next request.
    cx.input.put(&request.buf[before + body..]);
    request.buf.truncate(before + body);
    if body > limit { Received::Lost } else { Received::Bytes }
}
