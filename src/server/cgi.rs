//! Requests that a CGI program answers (RFC 3875): which those are, how their content goes to the
//! program, and how what it writes becomes an answer.
//!
//! Neither side is read faster than the other one takes it: content waits in the client's socket
//! while the program's pipe is full, and output in the pipe while the client's socket is.

use std::io::{self, ErrorKind};
use std::ops::Range;

use super::connection::{Body, Conn, Exchange, NO_REQUEST, Phase, Plan};
use super::context::Context;
use super::intake::locate;
use super::replies;
use super::sending::reset_on_close;
use super::step::Flow;
use crate::cgi::header::{self, MAX_HEAD, Outcome};
use crate::cgi::launch::{Launch, Origin, status_of};
use crate::cgi::table::{Output, Owner, Programs};
use crate::files::resolve;
use crate::http::outlet::Outlet;
use crate::http::request::{Framing, Head, Outcome as Parsed};
use crate::http::status::{reason, write_status_line};
use crate::shared::slots::Shown;
use crate::site::{Script, Site};

/// While more than this waits to be sent, the program's output waits in its pipe.
const HIGH_WATER: usize = 64 * 1024;
/// How often programs may send one request from one path to another.
const REDIRECTIONS: u8 = 10;

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

impl Context {
    /// An exchange does without its program from now on.
    pub fn leave_program(&mut self, gateway: &Gateway) {
        let answered = matches!(gateway.stage, Stage::Answered);
        self.programs.release(gateway.program, answered, self.clock.now);
    }
}

impl Conn {
    /// Starts a program for a request; what fails is in the error log.
    pub(super) fn launch(&mut self, cx: &mut Context, launch: &Launch<'_>) -> io::Result<usize> {
        let Some(exchange) = self.exchange.as_deref() else {
            return Err(ErrorKind::NotConnected.into());
        };
        let config = &cx.options.config;
        let translated = resolve::full_path(config, launch.info);
        let origin = Origin {
            config,
            head: &exchange.head,
            bytes: exchange.buf.get(..exchange.head.len).unwrap_or_default(),
            user: &exchange.user,
            path_translated: translated.as_deref(),
            local: self.socket.local_addr().ok(),
            peer: self.socket.peer_addr().ok(),
            secure: self.tls.is_some(),
            error_is_heard: cx.logs.error.is_on(),
        };
        let owner = Owner { index: self.index(), address: self.peer };
        launch.run(&origin, &mut cx.programs, owner, cx.clock.now).map_err(|refusal| {
            cx.complain_of(self.peer, &refusal.line);
            refusal.error
        })
    }

    /// Starts the program. The status of a failure is for the client.
    fn start_script(&mut self, cx: &mut Context, script: &Script) -> Result<(), u16> {
        let Some(exchange) = self.exchange.as_deref_mut() else { return Err(500) };
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
        let program = match self.launch(cx, &launch) {
            Ok(program) => program,
            Err(error) => {
                let Some(exchange) = self.exchange.as_deref_mut() else { return Err(500) };
                return Err(Site { exchange, cx }.put_off(status_of(&error)));
            }
        };
        let gateway = Gateway { program, stage: Stage::Head(Vec::new()) };
        if let Some(exchange) = self.exchange.as_deref_mut() {
            exchange.cgi = Some(Box::new(gateway));
        }
        Ok(())
    }

    /// Hands the program a piece of content that has arrived in `scratch`.
    pub(super) fn stream_to_program(
        &mut self,
        cx: &mut Context,
        script: &Script,
        content: Range<usize>,
    ) -> Result<(), u16> {
        if self.gateway().is_none() {
            self.start_script(cx, script)?;
        }
        let Some(program) = self.gateway() else { return Err(500) };
        let piece = cx.input.buf.get(content).unwrap_or_default().to_vec();
        let given = cx.programs.give(program, &piece, false, cx.clock.now);
        given.then_some(()).ok_or(503)
    }

    /// The number of the program that answers a request.
    fn gateway(&self) -> Option<usize> {
        let exchange = self.exchange.as_deref()?;
        let of_page = exchange.page.as_ref().and_then(|page| page.program());
        exchange.cgi.as_ref().map(|gateway| gateway.program).or(of_page)
    }

    /// Whether the program has taken the content that has arrived.
    pub(super) fn gateway_takes(&self, cx: &Context) -> bool {
        match self.gateway() {
            Some(program) => cx.programs.takes(program),
            None => true,
        }
    }

    /// Whether there is output that was left for later.
    pub(super) fn has_output(&self, cx: &Context) -> bool {
        match self.gateway() {
            Some(program) => cx.programs.has_output(program),
            None => self.exchange.as_deref().is_some_and(|exchange| exchange.page.is_some()),
        }
    }

    /// Whether it is the program that keeps a connection waiting, and not the client.
    pub(super) fn waits_for_program(&self, programs: &Programs) -> bool {
        let Some(program) = self.gateway() else { return false };
        let takes = programs.takes(program);
        match self.phase {
            Phase::Body => !takes && self.backlog() < HIGH_WATER,
            Phase::Relaying => self.backlog() < HIGH_WATER,
            _ => false,
        }
    }

    /// All content has come: what remains is the answer.
    pub(super) fn begin_relay(&mut self, cx: &mut Context, script: &Script) -> Flow {
        let running = self.gateway().is_some();
        if !running && let Err(status) = self.start_script(cx, script) {
            return self.fail(cx, status);
        }
        let Some(program) = self.gateway() else { return Flow::Leave };
        self.phase = Phase::Relaying;
        let Some(exchange) = self.exchange.as_deref_mut() else { return Flow::Leave };
        let head_len = exchange.head.len;
        if running || exchange.buf.len() <= head_len {
            cx.programs.give(program, &[], true, cx.clock.now);
        } else {
            let head = exchange.buf.get(..head_len).unwrap_or_default().to_vec();
            let whole = std::mem::replace(&mut exchange.buf, head);
            cx.programs.give_whole(program, whole, head_len, cx.clock.now);
        }
        Flow::Again
    }

    /// Moves what can be moved, both ways. `None`: it goes on as it does without a program.
    pub(super) fn relay(&mut self, cx: &mut Context) -> Option<Flow> {
        let exchange = self.exchange.as_deref_mut()?;
        if exchange.page.is_some() {
            return Some(self.send_page(cx));
        }
        let mut gateway = exchange.cgi.take()?;
        let now = cx.clock.now;
        if cx.programs.feed(gateway.program, now) {
            // It was not the client who was slow.
            self.since = now;
        }
        let mut buf = std::mem::take(&mut cx.programs.buf);
        let moved = self.move_output(cx, &mut gateway, &mut buf);
        cx.programs.buf = buf;
        let has_no_end = matches!(gateway.stage, Stage::Content(Outlet::ToClose));
        match self.exchange.as_deref_mut() {
            Some(exchange) => exchange.cgi = Some(gateway),
            None => cx.leave_program(&gateway),
        }
        match moved {
            Moved::Waits => None,
            Moved::Lost => Some(Flow::Leave),
            Moved::Complete => {
                let exchange = self.exchange.as_deref_mut()?;
                let persistent = exchange.head.persistent && !exchange.last;
                self.finish_exchange(cx, persistent);
                Some(Flow::Again)
            }
            Moved::Elsewhere(location) => Some(self.redirect(cx, &location)),
            Moved::Failed(status, why) => {
                if !why.is_empty() {
                    let name = self.name_of(cx);
                    self.complain(cx, &format!("{name}: {why}"));
                }
                if has_no_end {
                    reset_on_close(&self.socket);
                    return Some(Flow::Close);
                }
                Some(self.fail(cx, status))
            }
        }
    }

    fn name_of(&mut self, cx: &mut Context) -> String {
        let program = self.gateway();
        program.map(|program| cx.programs.name(program)).unwrap_or_default()
    }

    fn move_output(&mut self, cx: &mut Context, gateway: &mut Gateway, buf: &mut Vec<u8>) -> Moved {
        if cx.programs.is_expired(gateway.program) {
            return Moved::Failed(504, "");
        }
        loop {
            if self.backlog() >= HIGH_WATER {
                if !self.flush(cx) {
                    return Moved::Lost;
                }
                if self.backlog() >= HIGH_WATER {
                    return Moved::Waits;
                }
            }
            if cx.turn.bytes == 0 {
                self.make_ready(cx);
                return Moved::Waits;
            }
            let moved = match cx.programs.read(gateway.program, buf, cx.clock.now) {
                Output::Wait => return Moved::Waits,
                Output::Got(count) => {
                    cx.files.look_again();
                    cx.turn.bytes = cx.turn.bytes.saturating_sub(count);
                    self.take_output(cx, gateway, buf.get(..count).unwrap_or_default(), false)
                }
                Output::End => {
                    // It may have changed files.
                    cx.files.look_again();
                    self.take_output(cx, gateway, &[], true)
                }
            };
            if !matches!(moved, Moved::Waits) {
                return moved;
            }
        }
    }

    /// Makes of a piece of output what it stands for. `ended`: it was the last.
    fn take_output(
        &mut self,
        cx: &mut Context,
        gateway: &mut Gateway,
        piece: &[u8],
        ended: bool,
    ) -> Moved {
        self.outbox(cx);
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
                let Some(outlet) = self.write_head(cx, &head) else { return Moved::Lost };
                gateway.stage = Stage::Content(outlet);
                return self.take_output(cx, gateway, &rest, ended);
            }
        }
        let conn = Some(&mut *self);
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
    fn write_head(&mut self, cx: &mut Context, head: &header::Head) -> Option<Outlet> {
        let date = cx.clock.date();
        let conn = &mut *self;
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
    fn redirect(&mut self, cx: &mut Context, location: &[u8]) -> Flow {
        let name = self.name_of(cx);
        let Some(exchange) = self.exchange.as_deref_mut() else {
            return self.cannot_be(cx, NO_REQUEST);
        };
        let gateway = exchange.cgi.take();
        exchange.redirections += 1;
        let count = exchange.redirections;
        let understood = exchange.become_request_for(location);
        if let Some(gateway) = gateway {
            cx.leave_program(&gateway);
        }
        if !understood || count > REDIRECTIONS {
            let why = if understood { "too many redirections" } else { "wrote no location" };
            self.complain(cx, &format!("{name}: {why}"));
            return self.fail(cx, if understood { 500 } else { 502 });
        }
        let conn = Some(&mut *self);
        if let Some(exchange) = conn.and_then(|conn| conn.exchange.as_deref_mut())
            && let Some(handler) = cx.routes.find(&exchange.path)
        {
            exchange.plan = Plan::Handler(handler);
        }
        self.dispatch(cx)
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
    pub fn redirect_to_target(&mut self) -> u16 {
        self.fields.extend_from_slice(b"Location: ");
        let target = self.buf.get(self.head.target.range()).unwrap_or_default();
        self.fields.extend_from_slice(target);
        self.fields.extend_from_slice(b"\r\n");
        302
    }
}
