//! Requests that a CGI program answers (RFC 3875): which those are, how their content goes to the
//! program, and how what it writes becomes an answer.
//!
//! Neither side is read faster than the other one takes it: content waits in the client's socket
//! while the program's pipe is full, and output in the pipe while the client's socket is.

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Server;
use super::builtin::{Task, is_lua_page};
use super::connection::{Body, Exchange, Phase, Plan};
use super::intake::locate;
use super::launch::{Launch, status_of};
use super::programs::Output;
use super::replies;
use super::sending::reset_on_close;
use super::step::Flow;
use crate::cgi::header::{self, MAX_HEAD, Outcome};
use crate::files::cache::Entry;
use crate::files::resolve;
use crate::http::outlet::Outlet;
use crate::http::request::{Framing, Head, Outcome as Parsed};
use crate::http::status::{reason, write_status_line};
use crate::shared::slots::Shown;

/// While more than this waits to be sent, the program's output waits in its pipe.
const HIGH_WATER: usize = 64 * 1024;
/// How often programs may send one request from one path to another.
const REDIRECTIONS: u8 = 10;

/// A program that is to answer a request.
pub struct Script {
    file: PathBuf,
    /// The part of the request's path that leads to it, and what follows.
    name: Vec<u8>,
    info: Vec<u8>,
    /// The length of the content is known before it comes; else that is kept until it is.
    pub knows_length: bool,
}

/// A program that answers a request.
pub struct Gateway {
    program: usize,
    stage: Stage,
}

enum Stage {
    /// Its head has not ended.
    Head(Vec<u8>),
    /// It wants another path to be answered; what else it writes means nothing.
    Elsewhere(Vec<u8>),
    Content(Outlet),
    /// All is said.
    Answered,
}

/// What became of an attempt to move output on.
enum Moved {
    /// There is nothing more for now, or no room for it.
    Waits,
    Complete,
    /// The client is to go by the status, the log by the words.
    Failed(u16, &'static str),
    Elsewhere(Vec<u8>),
    /// The connection has closed meanwhile.
    Lost,
}

impl Server {
    /// The program that a path leads through, and what of the path is behind it.
    pub(super) fn program_on_the_way(
        &mut self,
        index: usize,
        full: &Path,
    ) -> Option<(PathBuf, Vec<u8>)> {
        let (file, rest) = resolve::split_at_file(full)?;
        let path = &self.exchange(index)?.path;
        let name = path.strip_suffix(rest.as_slice()).unwrap_or(path).to_vec();
        resolve::matches(&self.cx.options.config.cgi_pattern, &file, &name).then_some((file, rest))
    }

    /// The program that `full` is, if it is one. `found`: what is known of it as a file.
    pub(super) fn script(
        &mut self,
        index: usize,
        full: &Path,
        info: Vec<u8>,
        page: &[u8],
        found: &io::Result<Entry>,
    ) -> Option<Script> {
        let is_file = match found {
            Ok(_) => true,
            // It may be executed without being readable.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                std::fs::metadata(full).is_ok_and(|meta| meta.is_file())
            }
            Err(_) => !info.is_empty(),
        };
        let conn = self.conns.get(index).and_then(Option::as_ref);
        let exchange = conn.and_then(|conn| conn.exchange.as_deref()).filter(|_| is_file)?;
        let path = exchange.path.strip_suffix(info.as_slice()).unwrap_or(&exchange.path);
        let name = match page {
            b"" => Cow::Borrowed(path),
            page => Cow::Owned([path, page].concat()),
        };
        // A Lua page is none, whatever the pattern says.
        if is_lua_page(full) || !resolve::matches(&self.cx.options.config.cgi_pattern, full, &name)
        {
            return None;
        }
        let knows_length = exchange.head.framing != Framing::Chunked;
        Some(Script { file: full.to_owned(), name: name.into_owned(), info, knows_length })
    }

    pub(super) fn decide_script(&mut self, index: usize, script: Script, reads: bool) -> Task {
        if !reads {
            return self.wrong_method(index);
        }
        if !self.cx.options.config.cgi_runs {
            return Task::Reply(403);
        }
        match self.may_run(index, &script.file) {
            Ok(()) => Task::Run(Box::new(script)),
            Err(error) => Task::Reply(self.put_off(index, status_of(&error))),
        }
    }

    /// The status for a program that could not be started. If that may change, the client is told
    /// to come again.
    fn put_off(&mut self, index: usize, status: u16) -> u16 {
        if let Some(exchange) = self.exchange(index).filter(|_| status == 503) {
            exchange.fields.extend_from_slice(b"Retry-After: 1\r\n");
        }
        status
    }

    /// Starts the program. The status of a failure is for the client.
    fn start_script(&mut self, index: usize, script: &Script) -> Result<(), u16> {
        let Some(exchange) = self.exchange(index) else { return Err(500) };
        let Exchange { head, buf, shown, .. } = exchange;
        let bytes = buf.get(..head.len).unwrap_or_default();
        let content_length = match head.framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked => Some((buf.len() - head.len) as u64),
            Framing::Empty => head.value(bytes, "content-length").map(|_| 0),
        };
        let has_input = head.framing != Framing::Empty;
        let method = bytes.get(head.method.range()).unwrap_or_default().to_vec();
        let query = shown.query.clone().and_then(|query| bytes.get(query));
        let query = query.unwrap_or_default().to_vec();
        let launch = Launch {
            file: &script.file,
            name: &script.name,
            info: &script.info,
            query: &query,
            method: &method,
            content_length,
            has_input,
            command: None,
        };
        let program = match self.launch(index, &launch) {
            Ok(program) => program,
            Err(error) => return Err(self.put_off(index, status_of(&error))),
        };
        let gateway = Gateway { program, stage: Stage::Head(Vec::new()) };
        if let Some(exchange) = self.exchange(index) {
            exchange.cgi = Some(Box::new(gateway));
        }
        Ok(())
    }

    /// Hands the program a piece of content that has arrived in `scratch`.
    pub(super) fn stream_to_program(
        &mut self,
        index: usize,
        script: &Script,
        content: Range<usize>,
    ) -> Result<(), u16> {
        if self.gateway(index).is_none() {
            self.start_script(index, script)?;
        }
        let Some(program) = self.gateway(index) else { return Err(500) };
        let piece = self.cx.input.buf.get(content).unwrap_or_default().to_vec();
        self.give_program(program, &piece, false).then_some(()).ok_or(503)
    }

    /// The number of the program that answers a request.
    fn gateway(&mut self, index: usize) -> Option<usize> {
        let exchange = self.exchange(index)?;
        let of_page = exchange.page.as_ref().and_then(|page| page.program());
        exchange.cgi.as_ref().map(|gateway| gateway.program).or(of_page)
    }

    /// Whether the program has taken the content that has arrived.
    pub(super) fn gateway_takes(&mut self, index: usize) -> bool {
        match self.gateway(index) {
            Some(program) => self.program_takes(program),
            None => true,
        }
    }

    /// Whether there is output that was left for later.
    pub(super) fn has_output(&mut self, index: usize) -> bool {
        match self.gateway(index) {
            Some(program) => self.program_has_output(program),
            None => self.exchange(index).is_some_and(|exchange| exchange.page.is_some()),
        }
    }

    /// Whether it is the program that keeps a connection waiting, and not the client.
    pub(super) fn waits_for_program(&mut self, index: usize) -> bool {
        let Some(program) = self.gateway(index) else { return false };
        let takes = self.program_takes(program);
        self.conn(index).is_some_and(|conn| match conn.phase {
            Phase::Body => !takes && conn.backlog() < HIGH_WATER,
            Phase::Relaying => conn.backlog() < HIGH_WATER,
            _ => false,
        })
    }

    /// All content has come: what remains is the answer.
    pub(super) fn begin_relay(&mut self, index: usize, script: &Script) -> Flow {
        let running = self.gateway(index).is_some();
        if !running && let Err(status) = self.start_script(index, script) {
            return self.fail(index, status);
        }
        let Some(program) = self.gateway(index) else { return Flow::Leave };
        let Some(conn) = self.conn(index) else { return Flow::Leave };
        conn.phase = Phase::Relaying;
        let Some(exchange) = conn.exchange.as_deref_mut() else { return Flow::Leave };
        let head_len = exchange.head.len;
        if running || exchange.buf.len() <= head_len {
            self.give_program(program, &[], true);
        } else {
            let head = exchange.buf.get(..head_len).unwrap_or_default().to_vec();
            let whole = std::mem::replace(&mut exchange.buf, head);
            self.give_whole(program, whole, head_len);
        }
        Flow::Again
    }

    /// Moves what can be moved, both ways. `None`: it goes on as it does without a program.
    pub(super) fn relay(&mut self, index: usize) -> Option<Flow> {
        let exchange = self.exchange(index)?;
        if exchange.page.is_some() {
            return Some(self.send_page(index));
        }
        let mut gateway = exchange.cgi.take()?;
        let now = self.cx.clock.now;
        if self.feed_program(gateway.program)
            && let Some(conn) = self.conn(index)
        {
            // It was not the client who was slow.
            conn.since = now;
        }
        let mut buf = std::mem::take(&mut self.cx.programs.buf);
        let moved = self.move_output(index, &mut gateway, &mut buf);
        self.cx.programs.buf = buf;
        let has_no_end = matches!(gateway.stage, Stage::Content(Outlet::ToClose));
        match self.exchange(index) {
            Some(exchange) => exchange.cgi = Some(gateway),
            None => self.leave_program(&gateway),
        }
        match moved {
            Moved::Waits => None,
            Moved::Lost => Some(Flow::Leave),
            Moved::Complete => {
                let exchange = self.exchange(index)?;
                let persistent = exchange.head.persistent && !exchange.last;
                self.finish_exchange(index, persistent);
                Some(Flow::Again)
            }
            Moved::Elsewhere(location) => Some(self.redirect(index, &location)),
            Moved::Failed(status, why) => {
                if !why.is_empty() {
                    let name = self.name_of(index);
                    self.complain(Some(index), &format!("{name}: {why}"));
                }
                if has_no_end && let Some(conn) = self.conn(index) {
                    reset_on_close(&conn.socket);
                    self.close(index);
                    return Some(Flow::Leave);
                }
                Some(self.fail(index, status))
            }
        }
    }

    fn name_of(&mut self, index: usize) -> String {
        let program = self.gateway(index);
        program.map(|program| self.program_name(program)).unwrap_or_default()
    }

    /// The exchange does without its program from now on.
    pub(super) fn leave_program(&mut self, gateway: &Gateway) {
        let answered = matches!(gateway.stage, Stage::Answered);
        self.release_program(gateway.program, answered);
    }

    fn move_output(&mut self, index: usize, gateway: &mut Gateway, buf: &mut Vec<u8>) -> Moved {
        if self.program_expired(gateway.program) {
            return Moved::Failed(504, "");
        }
        loop {
            if self.conn(index).is_some_and(|conn| conn.backlog() >= HIGH_WATER) {
                if !self.flush(index) {
                    return Moved::Lost;
                }
                if self.conn(index).is_some_and(|conn| conn.backlog() >= HIGH_WATER) {
                    return Moved::Waits;
                }
            }
            if self.cx.turn.bytes == 0 {
                self.make_ready(index);
                return Moved::Waits;
            }
            let moved = match self.read_program(gateway.program, buf) {
                Output::Wait => return Moved::Waits,
                Output::Got(count) => {
                    self.cx.turn.bytes = self.cx.turn.bytes.saturating_sub(count);
                    self.take_output(index, gateway, buf.get(..count).unwrap_or_default(), false)
                }
                Output::End => self.take_output(index, gateway, &[], true),
            };
            if !matches!(moved, Moved::Waits) {
                return moved;
            }
        }
    }

    /// Makes of a piece of output what it stands for. `ended`: it was the last.
    fn take_output(
        &mut self,
        index: usize,
        gateway: &mut Gateway,
        piece: &[u8],
        ended: bool,
    ) -> Moved {
        if self.outbox(index).is_none() {
            return Moved::Lost;
        }
        if let Stage::Head(so_far) = &mut gateway.stage {
            so_far.extend_from_slice(piece);
            let may_end = ended || so_far.len() >= MAX_HEAD || piece.contains(&b'\n');
            if !may_end {
                return Moved::Waits;
            }
            let head = match header::parse(so_far, ended) {
                Outcome::Partial => return Moved::Waits,
                Outcome::Bad(why) => return Moved::Failed(502, why),
                Outcome::Complete(head) => head,
            };
            if let Some(location) = head.local {
                gateway.stage = Stage::Elsewhere(location);
            } else {
                let rest = so_far.split_off(head.len.min(so_far.len()));
                let Some(outlet) = self.write_head(index, &head) else { return Moved::Lost };
                gateway.stage = Stage::Content(outlet);
                return self.take_output(index, gateway, &rest, ended);
            }
        }
        let conn = self.conns.get_mut(index).and_then(Option::as_mut);
        let Some(out) = conn.and_then(|conn| conn.out.as_deref_mut()) else {
            return Moved::Lost;
        };
        match &mut gateway.stage {
            Stage::Content(outlet) => {
                if out.bytes.try_reserve(piece.len() + 64).is_err() {
                    return Moved::Failed(503, "no memory for its output");
                }
                outlet.write(piece, &mut out.bytes);
                if !ended && !outlet.is_full() {
                    return Moved::Waits;
                }
                let whole = outlet.finish(&mut out.bytes);
                gateway.stage = Stage::Answered;
                match whole {
                    true => Moved::Complete,
                    false => Moved::Failed(502, "ended before the end of its content"),
                }
            }
            Stage::Elsewhere(location) if ended => {
                let location = std::mem::take(location);
                gateway.stage = Stage::Answered;
                Moved::Elsewhere(location)
            }
            _ => Moved::Waits,
        }
    }

    /// Writes the head of the answer, and decides how its content ends.
    fn write_head(&mut self, index: usize, head: &header::Head) -> Option<Outlet> {
        let date = self.cx.clock.date();
        let conn = self.conns.get_mut(index).and_then(Option::as_mut)?;
        let exchange = conn.exchange.as_deref_mut()?;
        let out = &mut conn.out.as_deref_mut()?.bytes;
        let outlet = Outlet::choose(&exchange.head, head.status, head.content_length);
        // What the program does not read of the request would have to be read by somebody.
        exchange.last |= outlet == Outlet::ToClose || !matches!(exchange.body, Body::Complete);
        let length = head.content_length.filter(|_| head.status != 204);
        // It is asked again when the answer is complete.
        exchange.last |= !exchange.persists(length.is_some() || outlet == Outlet::Chunks);
        let persistent = !exchange.last;

        let before = out.len();
        if head.reason.is_empty() || head.reason == reason(head.status).as_bytes() {
            write_status_line(out, head.status);
        } else {
            out.extend_from_slice(format!("HTTP/1.1 {} ", head.status).as_bytes());
            out.extend_from_slice(&head.reason);
            out.extend_from_slice(b"\r\n");
        }
        if !head.has_date {
            out.extend_from_slice(format!("Date: {date}\r\n").as_bytes());
        }
        out.extend_from_slice(&head.fields);
        match (outlet, length) {
            (Outlet::Length(_) | Outlet::Nothing, Some(length)) => {
                out.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
            }
            (Outlet::Chunks, _) => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            _ => {}
        }
        let connection = replies::connection(persistent);
        out.extend_from_slice(format!("Connection: {connection}\r\n\r\n").as_bytes());
        exchange.status = head.status;
        exchange.head_len = (out.len() - before) as u64;
        Some(outlet)
    }

    /// Answers what would have been answered to a request for `location`: RFC 3875,
    /// section 6.2.2.
    fn redirect(&mut self, index: usize, location: &[u8]) -> Flow {
        let name = self.name_of(index);
        let Some(exchange) = self.exchange(index) else { return Flow::Leave };
        let gateway = exchange.cgi.take();
        exchange.redirections += 1;
        let count = exchange.redirections;
        let understood = exchange.become_request_for(location);
        if let Some(gateway) = gateway {
            self.leave_program(&gateway);
        }
        if !understood || count > REDIRECTIONS {
            let why = if understood { "too many redirections" } else { "wrote no location" };
            self.complain(Some(index), &format!("{name}: {why}"));
            return self.fail(index, if understood { 500 } else { 502 });
        }
        let conn = self.conns.get_mut(index).and_then(Option::as_mut);
        if let Some(exchange) = conn.and_then(|conn| conn.exchange.as_deref_mut())
            && let Some(handler) = self.cx.routes.find(&exchange.path)
        {
            exchange.plan = Plan::Handler(handler);
        }
        self.dispatch(index)
    }
}

impl Exchange {
    /// Takes the place of a request for `location` without content. False if there is none such.
    fn become_request_for(&mut self, location: &[u8]) -> bool {
        let bytes = self.buf.get(..self.head.len).unwrap_or_default();
        let mut text = if self.head.is_head { b"HEAD ".to_vec() } else { b"GET ".to_vec() };
        text.extend_from_slice(location);
        let version: &[u8] = if self.head.minor == 0 { b" HTTP/1.0" } else { b" HTTP/1.1" };
        text.extend_from_slice(version);
        text.extend_from_slice(b"\r\n");
        for (name, value) in self.head.pairs(bytes) {
            let about_content: [&[u8]; 5] =
                [b"content-length", b"content-type", b"transfer-encoding", b"expect", b"upgrade"];
            if !about_content.iter().any(|other| name.eq_ignore_ascii_case(other)) {
                for part in [name, b": ", value, b"\r\n"] {
                    text.extend_from_slice(part);
                }
            }
        }
        text.extend_from_slice(b"\r\n");
        let mut head = Head::default();
        if head.parse(&text, usize::MAX) != Parsed::Complete {
            return false;
        }
        (self.buf, self.head) = (text, head);
        self.fields.clear();
        self.task = None;
        if locate(self) && self.path.starts_with(b"/") {
            return true;
        }
        // What was found in the old head is not in this one.
        self.shown = Shown::default();
        self.path.clear();
        false
    }

    /// Leaves it to the client to ask for what this request has become.
    pub(super) fn redirect_to_target(&mut self) -> u16 {
        self.fields.extend_from_slice(b"Location: ");
        let target = self.buf.get(self.head.target.range()).unwrap_or_default();
        self.fields.extend_from_slice(target);
        self.fields.extend_from_slice(b"\r\n");
        302
    }
}
