//! WebDAV's side of the event loop: hands requests to `dav`, gives it turns, and sends its answers.

use std::ops::Range;

use super::connection::{Conn, Phase};
use super::context::Context;
use super::replies;
use super::step::Flow;
use super::streams::Stream;
use crate::dav::Env;
use crate::dav::propfind::Propfind;
use crate::dav::work::Outcome;
use crate::http::outlet::Outlet;
use crate::site::dav::MAX_DOCUMENT;
use crate::site::dav::writes;
use crate::site::{Site, Task};

/// What one connection may do in one turn: about as many calls of the file system.
const PORTION: usize = 256;
/// An answer to PROPFIND that is sent as the client takes it.
pub struct Telling {
    propfind: Box<Propfind>,
    outlet: Outlet,
}

impl Context {
    /// The connection of a task has gone: nothing of it stays behind.
    pub fn abandon(&mut self, task: Task) {
        if let Task::Dav(work) = task {
            work.abandon(&mut self.sweeper);
        }
    }

    /// Removes what abandoned work has left behind, in portions.
    pub(super) fn tidy(&mut self) {
        if !self.sweeper.is_idle() {
            self.sweeper.tidy(PORTION);
        }
    }
}

impl Conn {
    /// A piece of content has arrived: of a document, which is kept, or of an upload.
    pub(super) fn stream_to_dav(
        &mut self,
        cx: &mut Context,
        content: Range<usize>,
    ) -> Result<(), u16> {
        let maximum = cx.options.config.max_buffered_bytes;
        let conn = Some(&mut *self);
        let Some(exchange) = conn.and_then(|conn| conn.exchange.as_deref_mut()) else {
            return Ok(());
        };
        let piece = cx.input.buf.get(content).unwrap_or_default();
        let work = match &mut exchange.task {
            Some(Task::Dav(work)) => work,
            Some(Task::Put(upload)) => match upload.write(piece) {
                Ok(()) => return Ok(()),
                Err(reply) => return Err(Site { exchange, cx }.take_reply(reply)),
            },
            _ => return Ok(()),
        };
        let body = work.body();
        if piece.len() > MAX_DOCUMENT - body.len().min(MAX_DOCUMENT) {
            return Err(413);
        }
        if piece.len() > maximum.saturating_sub(cx.buffered) {
            return Err(503);
        }
        body.try_reserve(piece.len()).map_err(|_| 503u16)?;
        body.extend_from_slice(piece);
        exchange.charged += piece.len();
        cx.buffered += piece.len();
        Ok(())
    }

    /// The request is complete: its task is worked on, now and in the turns that follow.
    pub(super) fn begin_work_on(&mut self, task: Task) -> Flow {
        self.phase = Phase::Working;
        if let Some(exchange) = self.exchange.as_deref_mut() {
            exchange.task = Some(task);
        }
        Flow::Again
    }

    /// Does the next portion.
    pub(super) fn work_on(&mut self, cx: &mut Context) -> Flow {
        cx.look_at_secrets();
        let now = cx.clock.now;
        // Whoever waits for us is not idle.
        self.last_active = now;
        let Some(exchange) = self.exchange.as_deref_mut() else { return Flow::Leave };
        if self.read_closed
            && matches!(&exchange.task, Some(Task::Dav(work)) if work.is_deep_lock())
        {
            // Nobody would learn the token of a lock that then lasted for days.
            return Flow::Close;
        }
        let user = exchange.user.clone();
        let env =
            Env { user, secrets: &cx.files.secrets, ..Env::new(&cx.options.config, cx.clock.unix) };
        let outcome = match &mut exchange.task {
            Some(Task::Dav(work)) => work.advance(&env, &mut cx.sweeper, PORTION),
            Some(Task::Put(upload)) => match upload.advance(&env, &mut { PORTION }) {
                Ok(reply) => reply.map(Outcome::Reply),
                Err(reply) => Some(Outcome::Reply(reply)),
            },
            _ => Some(Outcome::Reply(500.into())),
        };
        // What was found out before may be no more.
        cx.files.look_again();
        let Some(outcome) = outcome else {
            self.make_ready(cx);
            return Flow::Leave;
        };
        exchange.task = None;
        let reply = match outcome {
            Outcome::Reply(reply) => reply,
            Outcome::Begun(propfind) => return self.begin_telling(cx, propfind),
        };
        if writes(exchange.buf.get(exchange.head.method.range()).unwrap_or_default()) {
            // What is no more takes room on the disk while it is open.
            cx.files.cache.close_files();
        }
        let status = Site { exchange, cx }.take_reply(reply);
        self.fail(cx, status)
    }

    /// Sends the head of an answer that tells of a large directory, and its first piece.
    fn begin_telling(&mut self, cx: &mut Context, mut propfind: Box<Propfind>) -> Flow {
        if !self.charge(cx, propfind.weight()) {
            return self.fail(cx, 503);
        }
        let Some(outlet) = self.begin_stream(cx, 207, replies::XML) else { return Flow::Leave };
        self.phase = Phase::Sending;
        let Some(exchange) = self.exchange.as_deref_mut() else { return Flow::Leave };
        let piece = propfind.take();
        exchange.stream = Some(Box::new(Stream::Telling(Telling { propfind, outlet })));
        self.send_piece(cx, &piece, false)
    }

    /// Sends the next piece of what is told of a directory.
    pub(super) fn tell_on(&mut self, cx: &mut Context) -> Flow {
        cx.look_at_secrets();
        let now = cx.clock.now;
        // Whoever waits for us is not idle.
        self.last_active = now;
        let Some(exchange) = self.exchange.as_deref_mut() else { return Flow::Leave };
        let Some(telling) = Stream::telling(&mut exchange.stream) else { return Flow::Leave };
        let Telling { propfind, outlet } = telling;
        let secrets = &cx.files.secrets;
        let env = Env { secrets, ..Env::new(&cx.options.config, cx.clock.unix) };
        match propfind.advance(&env, &mut { PORTION }) {
            Ok(true) => {
                let piece = propfind.end();
                self.send_piece(cx, &piece, true)
            }
            Ok(false) => {
                let piece = propfind.take();
                self.send_piece(cx, &piece, false)
            }
            Err(error) => {
                let outlet = *outlet;
                self.cut_off(cx, outlet, &format!("cannot tell of a directory: {error}"))
            }
        }
    }

    fn send_piece(&mut self, cx: &mut Context, piece: &str, is_last: bool) -> Flow {
        let (Some(exchange), Some(out)) = (self.exchange.as_deref_mut(), self.out.as_deref_mut())
        else {
            return Flow::Leave;
        };
        let Some(telling) = Stream::telling(&mut exchange.stream) else { return Flow::Leave };
        if out.bytes.try_reserve(piece.len() + 64).is_err() {
            return Flow::Close;
        }
        telling.outlet.write(piece.as_bytes(), &mut out.bytes);
        if !is_last {
            self.make_ready(cx);
            return Flow::Leave;
        }
        telling.outlet.finish(&mut out.bytes);
        let persistent = exchange.head.persistent && !exchange.last;
        self.finish_exchange(cx, persistent);
        Flow::Again
    }
}
