//! The way of a request that no handler takes to its complete answer, and from any complete answer
//! to the next request (RFC 9110, section 15; RFC 9112, section 9).
//!
//! Refuses to know how an answer is made, which is in the room `answer`, and who may see a file,
//! which is in the room `site`.

use super::wire::Transferred;
use super::{Conn, Flow, State};
use crate::answer::file::FileBody;
use crate::answer::head::write_short_answer;
use crate::answer::{self, Begun, Broken, Ended, PIECE, Plan, Progress, Source};
use crate::exchange::context::Context;
use crate::exchange::request::{Document, Request};
use crate::exchange::turn::BATCH;
use crate::files::patience::Findings;
use crate::long_files;
use crate::site::{Site, Task};

use super::calls::{Purpose, begin_answer, show};
use super::content::Recipient;

/// The longest answer without its document, and without the fields of its method and of the options.
const SHORT: usize = 1024;

impl Conn {
    /// Decides on a complete request, at once or together with the requests of others.
    pub(super) fn decide(&mut self, cx: &mut Context, request: Box<Request>) -> Flow {
        let needs_look = !cx.files.was_asked() && cx.options.config.document_root.is_some();
        // One look at files answers all requests that wait for it, once the last byte of each has
        // arrived. A connection waits once in a turn at most: else a client that always has another
        // request would keep all others waiting for ever.
        if cx.turn.left > 0 && !cx.turn.has_shared && needs_look {
            self.enter(State::Deciding(request));
            cx.turn.sharing.push_back(self.wire.index());
            cx.turn.shares_now |= cx.turn.sharing.len() >= BATCH;
            return Flow::Leave;
        }
        self.decide_now(cx, request)
    }

    /// Decides on a request without waiting for others.
    #[inline]
    pub(super) fn decide_now(&mut self, cx: &mut Context, request: Box<Request>) -> Flow {
        self.decide_with(cx, request, Vec::new())
    }

    /// Decides on a request with what helpers have found for it.
    #[inline(always)]
    pub(super) fn decide_with(
        &mut self,
        cx: &mut Context,
        mut request: Box<Request>,
        findings: Findings,
    ) -> Flow {
        let fields = request.fields.len();
        let task = match (Site { request: &mut request, cx }).decide_patiently(findings) {
            Ok(task) => task,
            Err(asked) => {
                request.fields.truncate(fields);
                return self.look(cx, request, asked);
            }
        };
        if task.may_run_programs() && request.is_complete() {
            // As if content had just come.
            return self.end_content(cx, request, Recipient::Plan(Box::new(Plan::Task(task))));
        }
        self.perform(cx, request, task)
    }

    /// Answers a request on which the decision fell at its head.
    pub(super) fn answer(
        &mut self,
        cx: &mut Context,
        mut request: Box<Request>,
        task: Task,
    ) -> Flow {
        request.is_last |= !request.is_complete();
        let task = Site { request: &mut request, cx }.decide_again(task);
        self.perform(cx, request, task)
    }

    /// Begins the answer that `task` stands for.
    fn perform(&mut self, cx: &mut Context, mut request: Box<Request>, task: Task) -> Flow {
        if task.may_run_programs() {
            request.local = self.wire.local_address();
        }
        match answer::begin(task, &mut request, self.wire.outbox(cx), cx) {
            Begun::Complete => self.finish(cx, request),
            Begun::Failed(status) => self.fail(cx, request, status),
            Begun::Denied { until } => self.put_denial_off(cx, request, until),
            Begun::Source(source) => {
                self.enter(State::Producing { request, source });
                Flow::Again
            }
        }
    }

    /// Continues an answer, if there is room for more of it.
    pub(super) fn produce(
        &mut self,
        cx: &mut Context,
        mut request: Box<Request>,
        mut source: Source,
    ) -> Flow {
        if let Source::Program(gateway) = &source
            && cx.programs.feed(gateway.program(), cx.clock.now)
        {
            // The program was slow, not the client.
            self.since = cx.clock.now;
        }
        if source.makes_output() {
            if cx.turn.bytes == 0 {
                self.wire.make_ready(cx);
                return self.keep_producing(request, source, Flow::Leave);
            }
            if let Source::File(file) = &mut source
                && file.is_transfer()
                && !self.wire.is_secure()
            {
                return match self.transfer(cx, file) {
                    Ok(flow) => self.keep_producing(request, source, flow),
                    Err(ended) => self.end_answer(cx, request, ended),
                };
            }
            if self.wire.backlog() >= PIECE {
                let is_well = match &source {
                    Source::File(_) => self.wire.flush_before_more(cx),
                    _ => self.wire.flush(cx, false),
                };
                if !is_well {
                    return self.keep_producing(request, source, Flow::Close);
                }
            }
            if self.wire.backlog() >= PIECE {
                return self.keep_producing(request, source, Flow::Leave);
            }
        }
        if source.is_at_work() {
            // A client that waits for the library is not idle.
            self.wire.last_active = cx.clock.now;
        }
        let read_closed = self.wire.read_closed;
        let progress = source.produce(&mut request, self.wire.outbox(cx), cx, read_closed);
        self.go_on(cx, request, progress)
    }

    /// Returns to the state in which the library makes the answer.
    #[inline]
    fn keep_producing(&mut self, request: Box<Request>, source: Source, flow: Flow) -> Flow {
        self.enter(State::Producing { request, source });
        flow
    }

    /// Enters the state that the progress of a source asks for.
    fn go_on(&mut self, cx: &mut Context, request: Box<Request>, progress: Progress) -> Flow {
        match progress {
            Progress::More(source) => self.keep_producing(request, source, Flow::Again),
            Progress::Waits(source) => self.keep_producing(request, source, Flow::Leave),
            Progress::Asks(question, source) => self.fetch(cx, request, (question, source)),
            Progress::Reads(source) => {
                self.wire.come_back(cx);
                self.keep_producing(request, source, Flow::Leave)
            }
            Progress::Yields(source) => {
                match long_files::has_put_off() {
                    true => self.wire.come_back(cx),
                    false => self.wire.make_ready(cx),
                }
                self.keep_producing(request, source, Flow::Leave)
            }
            Progress::Ended(ended) => self.end_answer(cx, request, ended),
        }
    }

    /// Acts on the end of a source, at the end of its answer or before.
    pub(super) fn end_answer(
        &mut self,
        cx: &mut Context,
        request: Box<Request>,
        ended: Ended,
    ) -> Flow {
        match ended {
            Ended::Complete => self.finish(cx, request),
            Ended::Failed(status) => self.fail(cx, request, status),
            Ended::Broken(broken) => self.break_off(cx, request, broken),
            Ended::Redirected => self.answer_again(cx, request),
        }
    }

    /// Sends a piece of a file straight to the socket. Returns the end of the answer as an error.
    fn transfer(&mut self, cx: &mut Context, file: &mut FileBody) -> Result<Flow, Ended> {
        match self.wire.transfer(cx, file) {
            Transferred::Bytes if file.is_sent() => Err(Ended::Complete),
            Transferred::Unreadable(error) => Err(Ended::Broken(Broken::of_file(&error))),
            Transferred::Bytes | Transferred::Again => Ok(Flow::Again),
            Transferred::Nothing => Ok(Flow::Leave),
            Transferred::Lost => Ok(Flow::Close),
        }
    }

    /// Ends the connection, since the answer cannot be completed as its head promised, and lets the
    /// client notice that.
    pub(super) fn break_off(
        &mut self,
        cx: &mut Context,
        request: Box<Request>,
        broken: Broken,
    ) -> Flow {
        if broken.resets {
            self.wire.reset_on_close();
        }
        if !broken.why.is_empty() {
            self.wire.complain(cx, &broken.why);
        }
        self.enter(State::Broken(request));
        Flow::Close
    }

    /// Answers a request that a CGI program has redirected to another path of this server (RFC
    /// 3875, section 6.2.2).
    fn answer_again(&mut self, cx: &mut Context, mut request: Box<Request>) -> Flow {
        request.is_last |= !request.is_complete();
        match cx.routes.find(&request.path) {
            Some(handler) => self.call_handler(cx, request, handler),
            None => self.decide(cx, request),
        }
    }

    /// Ends a request whose answer is complete, or cannot be completed any more. The connection goes on to the next request, or to
    /// its end.
    pub(super) fn finish(&mut self, cx: &mut Context, mut request: Box<Request>) -> Flow {
        Self::log_answer(&mut self.wire, cx, &mut request);
        let slot = self.wire.slot;
        slot.set_answerable(false);
        slot.clear_request();
        if !request.persists() {
            self.enter(State::Draining { lingers: !request.is_complete(), websocket: None });
        }
        cx.hidden.forget(slot);
        cx.recycle(request);
        Flow::Again
    }

    /// Answers a request with an error, through the program's error handler if there is one.
    pub(super) fn fail(
        &mut self,
        cx: &mut Context,
        mut request: Box<Request>,
        status: u16,
    ) -> Flow {
        if request.status != 0 {
            // An answer has begun. All that can still be told is that it is not complete.
            request.is_last = true;
            return self.finish(cx, request);
        }
        request.is_last |= !request.is_complete() || matches!(status, 400 | 408 | 413 | 431 | 505);
        let handler = cx.error_handler.filter(|_| status >= 400 && status != 401);
        let Some(handler) = handler else { return self.reply(cx, request, status) };
        // This fits: no request is begun while that many bytes wait.
        let mark = u32::try_from(self.wire.outbox(cx).len()).unwrap_or(u32::MAX);
        let head_len = request.head.len;
        request.buf.truncate(head_len);
        cx.discharge(&mut request);
        let is_understood = request.shown.path_end > request.shown.path_at;
        if is_understood && !show(self.wire.slot, &mut request) {
            return self.reply(cx, request, status);
        }
        let answer = begin_answer(cx, &request, status);
        self.wire.slot.set_status(status);
        let purpose = Purpose::Error { status, mark };
        self.enter(State::Calling { request, answer, purpose });
        Flow::Call(handler)
    }

    /// Answers with an error, a redirection, or an empty success of the library's own.
    pub(super) fn reply(
        &mut self,
        cx: &mut Context,
        mut request: Box<Request>,
        status: u16,
    ) -> Flow {
        let len = request.document.as_ref().map_or(0, Document::size) + request.fields.len();
        let out = self.wire.outbox(cx);
        if len > 0 && out.bytes.try_reserve(len + SHORT).is_err() {
            let broken = Broken { why: "no memory for an answer".into(), resets: false };
            return self.break_off(cx, request, broken);
        }
        let extra = &cx.options.config.extra_headers;
        write_short_answer(&mut request, status, cx.clock.date(), extra, &mut out.bytes);
        self.finish(cx, request)
    }
}
