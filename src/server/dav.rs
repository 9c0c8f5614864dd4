//! WebDAV's side of the event loop: hands requests to `dav`, gives it turns, and sends its answers.

use std::ops::Range;

use super::builtin::Task;
use super::connection::Phase;
use super::step::Flow;
use super::streams::Stream;
use super::{Server, replies};
use crate::dav::Env;
use crate::dav::propfind::Propfind;
use crate::dav::request::{Reply, Request};
use crate::dav::upload::Upload;
use crate::dav::work::{Outcome, Work};
use crate::http::outlet::Outlet;
use crate::http::request::Framing;
use crate::http::status::reason;

/// What one connection may do in one turn: about as many calls of the file system.
const PORTION: usize = 256;
/// The longest document that a request may bring.
pub(super) const MAX_DOCUMENT: usize = 1024 * 1024;

const READING: &str = "GET, HEAD, POST, OPTIONS, PROPFIND";
const WRITING: [&str; 8] =
    ["PUT", "DELETE", "MKCOL", "COPY", "MOVE", "PROPPATCH", "LOCK", "UNLOCK"];

/// Whether a method changes what is stored.
pub(super) fn writes(method: &[u8]) -> bool {
    WRITING.iter().any(|known| known.as_bytes() == method)
}

/// Appends the Allow field. `except`: a method that does not fit this resource.
pub(super) fn write_allow(out: &mut Vec<u8>, with_writing: bool, except: &[u8]) {
    out.extend_from_slice(b"Allow: ");
    out.extend_from_slice(READING.as_bytes());
    for method in WRITING.iter().filter(|_| with_writing) {
        if method.as_bytes() != except {
            out.extend_from_slice(b", ");
            out.extend_from_slice(method.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// An answer to PROPFIND that is sent as the client takes it.
pub struct Telling {
    propfind: Box<Propfind>,
    outlet: Outlet,
}

impl Server {
    /// Decides about a request that may be served by WebDAV: whoever asks is allowed to.
    pub(super) fn decide_dav(&mut self, index: usize) -> Task {
        self.cx.look_at_secrets();
        let conn = self.conns.get_mut(index).and_then(Option::as_mut);
        let Some(exchange) = conn.and_then(|conn| conn.exchange.as_deref_mut()) else {
            return Task::Reply(500);
        };
        let Some(bytes) = exchange.buf.get(..exchange.head.len) else { return Task::Reply(500) };
        let is_long =
            matches!(exchange.head.framing, Framing::Length(len) if len > MAX_DOCUMENT as u64);
        let request = Request {
            path: exchange.path.clone(),
            head: exchange.head.clone(),
            bytes: bytes.to_vec(),
            body: Vec::new(),
        };
        if request.method() != b"PUT" {
            if is_long {
                return Task::Reply(413);
            }
            return Task::Dav(Box::new(Work::new(request)));
        }
        let user = exchange.user.clone();
        let env = Env {
            user,
            secrets: &self.cx.files.secrets,
            ..Env::new(&self.cx.options.config, self.cx.clock.unix)
        };
        match Upload::begin(request, &env, &mut self.cx.sweeper) {
            Ok(upload) => Task::Put(Box::new(upload)),
            Err(reply) => Task::Reply(self.take_reply(index, reply)),
        }
    }

    /// The same work, or the refusal that it would come to.
    pub(super) fn judge_dav(&mut self, index: usize, work: Box<Work>) -> Task {
        let user = self.exchange(index).map(|exchange| exchange.user.clone()).unwrap_or_default();
        let env = Env { user, ..Env::new(&self.cx.options.config, self.cx.clock.unix) };
        match work.refusal(&env) {
            Some(reply) => Task::Reply(self.take_reply(index, reply)),
            None => Task::Dav(work),
        }
    }

    /// A piece of content has arrived: of a document, which is kept, or of an upload.
    pub(super) fn stream_to_dav(&mut self, index: usize, content: Range<usize>) -> Result<(), u16> {
        let maximum = self.cx.options.config.max_buffered_bytes;
        let conn = self.conns.get_mut(index).and_then(Option::as_mut);
        let Some(exchange) = conn.and_then(|conn| conn.exchange.as_deref_mut()) else {
            return Ok(());
        };
        let piece = self.cx.input.buf.get(content).unwrap_or_default();
        let work = match &mut exchange.task {
            Some(Task::Dav(work)) => work,
            Some(Task::Put(upload)) => match upload.write(piece) {
                Ok(()) => return Ok(()),
                Err(reply) => return Err(self.take_reply(index, reply)),
            },
            _ => return Ok(()),
        };
        let body = work.body();
        if piece.len() > MAX_DOCUMENT - body.len().min(MAX_DOCUMENT) {
            return Err(413);
        }
        if piece.len() > maximum.saturating_sub(self.cx.buffered) {
            return Err(503);
        }
        body.try_reserve(piece.len()).map_err(|_| 503u16)?;
        body.extend_from_slice(piece);
        exchange.charged += piece.len();
        self.cx.buffered += piece.len();
        Ok(())
    }

    /// The request is complete: its task is worked on, now and in the turns that follow.
    pub(super) fn begin_work_on(&mut self, index: usize, task: Task) -> Flow {
        let Some(conn) = self.conn(index) else { return Flow::Leave };
        conn.phase = Phase::Working;
        if let Some(exchange) = conn.exchange.as_deref_mut() {
            exchange.task = Some(task);
        }
        Flow::Again
    }

    /// The connection of a task has gone: nothing of it stays behind.
    pub(super) fn abandon(&mut self, task: Task) {
        if let Task::Dav(work) = task {
            work.abandon(&mut self.cx.sweeper);
        }
    }

    /// Removes what abandoned work has left behind, in portions.
    pub(super) fn tidy(&mut self) {
        if !self.cx.sweeper.is_idle() {
            self.cx.sweeper.tidy(PORTION);
        }
    }

    /// Does the next portion.
    pub(super) fn work_on(&mut self, index: usize) -> Flow {
        self.cx.look_at_secrets();
        let now = self.cx.clock.now;
        let conn = self.conns.get_mut(index).and_then(Option::as_mut);
        let Some(conn) = conn else { return Flow::Leave };
        // Whoever waits for us is not idle.
        conn.last_active = now;
        let Some(exchange) = conn.exchange.as_deref_mut() else { return Flow::Leave };
        if conn.read_closed
            && matches!(&exchange.task, Some(Task::Dav(work)) if work.is_deep_lock())
        {
            // Nobody would learn the token of a lock that then lasted for days.
            self.close(index);
            return Flow::Leave;
        }
        let user = exchange.user.clone();
        let env = Env {
            user,
            secrets: &self.cx.files.secrets,
            ..Env::new(&self.cx.options.config, self.cx.clock.unix)
        };
        let outcome = match &mut exchange.task {
            Some(Task::Dav(work)) => work.advance(&env, &mut self.cx.sweeper, PORTION),
            Some(Task::Put(upload)) => match upload.advance(&env, &mut { PORTION }) {
                Ok(reply) => reply.map(Outcome::Reply),
                Err(reply) => Some(Outcome::Reply(reply)),
            },
            _ => Some(Outcome::Reply(500.into())),
        };
        // What was found out before may be no more.
        self.cx.files.look_again();
        let Some(outcome) = outcome else {
            self.make_ready(index);
            return Flow::Leave;
        };
        exchange.task = None;
        let reply = match outcome {
            Outcome::Reply(reply) => reply,
            Outcome::Begun(propfind) => return self.begin_telling(index, propfind),
        };
        if writes(exchange.buf.get(exchange.head.method.range()).unwrap_or_default()) {
            // What is no more takes room on the disk while it is open.
            self.cx.files.cache.close_files();
        }
        let status = self.take_reply(index, reply);
        self.fail(index, status)
    }

    /// Sends the head of an answer that tells of a large directory, and its first piece.
    fn begin_telling(&mut self, index: usize, mut propfind: Box<Propfind>) -> Flow {
        if !self.charge(index, propfind.weight()) {
            return self.fail(index, 503);
        }
        let Some(outlet) = self.begin_stream(index, 207, replies::XML) else { return Flow::Leave };
        let Some(conn) = self.conn(index) else { return Flow::Leave };
        conn.phase = Phase::Sending;
        let Some(exchange) = conn.exchange.as_deref_mut() else { return Flow::Leave };
        let piece = propfind.take();
        exchange.stream = Some(Box::new(Stream::Telling(Telling { propfind, outlet })));
        self.send_piece(index, &piece, false)
    }

    /// Sends the next piece of what is told of a directory.
    pub(super) fn tell_on(&mut self, index: usize) -> Flow {
        self.cx.look_at_secrets();
        let now = self.cx.clock.now;
        let conn = self.conns.get_mut(index).and_then(Option::as_mut);
        let Some(conn) = conn else { return Flow::Leave };
        // Whoever waits for us is not idle.
        conn.last_active = now;
        let Some(exchange) = conn.exchange.as_deref_mut() else { return Flow::Leave };
        let Some(telling) = Stream::telling(&mut exchange.stream) else { return Flow::Leave };
        let Telling { propfind, outlet } = telling;
        let secrets = &self.cx.files.secrets;
        let env = Env { secrets, ..Env::new(&self.cx.options.config, self.cx.clock.unix) };
        match propfind.advance(&env, &mut { PORTION }) {
            Ok(true) => {
                let piece = propfind.end();
                self.send_piece(index, &piece, true)
            }
            Ok(false) => {
                let piece = propfind.take();
                self.send_piece(index, &piece, false)
            }
            Err(error) => {
                let outlet = *outlet;
                self.cut_off(index, outlet, &format!("cannot tell of a directory: {error}"))
            }
        }
    }

    fn send_piece(&mut self, index: usize, piece: &str, is_last: bool) -> Flow {
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return Flow::Leave;
        };
        let (Some(exchange), Some(out)) = (conn.exchange.as_deref_mut(), conn.out.as_deref_mut())
        else {
            return Flow::Leave;
        };
        let Some(telling) = Stream::telling(&mut exchange.stream) else { return Flow::Leave };
        if out.bytes.try_reserve(piece.len() + 64).is_err() {
            self.close(index);
            return Flow::Leave;
        }
        telling.outlet.write(piece.as_bytes(), &mut out.bytes);
        if !is_last {
            self.make_ready(index);
            return Flow::Leave;
        }
        telling.outlet.finish(&mut out.bytes);
        let persistent = exchange.head.persistent && !exchange.last;
        self.finish_exchange(index, persistent);
        Flow::Again
    }

    /// Puts fields and document of an answer where it is written; its status.
    fn take_reply(&mut self, index: usize, reply: Reply) -> u16 {
        let with_writing = self.cx.options.config.dav_auth_file.is_some();
        let Some(exchange) = self.exchange(index) else { return reply.status };
        let method = exchange.buf.get(exchange.head.method.range()).unwrap_or_default();
        if reply.status == 405 {
            write_allow(&mut exchange.fields, with_writing, method);
        }
        exchange.fields.extend_from_slice(&reply.fields);
        exchange.document = reply.body;
        let failed = reply.status >= 500 && reply.status != 502;
        if failed || reply.complaint.is_some() {
            let (method, reason) = (String::from_utf8_lossy(method), reason(reply.status));
            let why = reply.complaint.map(|why| format!(": {why}")).unwrap_or_default();
            let what = format!("{method} failed: {} {reason}{why}", reply.status);
            self.complain(Some(index), &what);
        }
        reply.status
    }
}
