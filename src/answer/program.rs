//! Answers of CGI programs (RFC 3875): how content goes to a program, and how its output becomes an
//! answer.
//!
//! Neither side is read faster than the other one takes it: content waits in the client's socket
//! while the program's pipe is full, and output waits in the pipe while the client's socket is.
//! Refuses to know pipes and processes, which are in the room `cgi`.

use std::path::Path;

use super::head::HeadWriter;
use super::{Broken, Ended, Progress, Source};
use crate::cgi::environment::ClientCertificate;
use crate::cgi::header::{self, MAX_CGI_HEAD, Parsed};
use crate::cgi::launch::{Launch, Origin, status_of};
use crate::cgi::table::{Number, Output, Owner};
use crate::exchange::context::Context;
use crate::exchange::outbox::Outbox;
use crate::exchange::request::Request;
use crate::files::resolve;
use crate::http::outlet::Outlet;
use crate::http::request::{Framing, Head, Outcome};
use crate::shared::slots::Shown;
use crate::site::{Script, Site};
use crate::tls::subject;

/// The largest number of redirections of one request by programs.
const REDIRECTIONS: u8 = 10;

/// A CGI program that answers a request.
pub struct Gateway {
    program: Number,
    stage: Stage,
}

/// The stage of a program's output.
enum Stage {
    /// The head is not complete.
    Head(Vec<u8>),
    /// The program has redirected the request to this path of the server. Its further output is
    /// ignored.
    Elsewhere(Vec<u8>),
    Content(Outlet),
    /// The answer is complete.
    Answered,
}

/// The result of moving output.
pub enum Moved {
    /// There is no output for now.
    Waits,
    /// There may be more output.
    More,
    Ended(Ended),
}

/// The result of taking a piece of output.
enum Taken {
    Wanting,
    Complete,
    Failed(u16, &'static str),
    Elsewhere(Vec<u8>),
}

impl Gateway {
    /// Starts the program. Returns the status for the client if that fails.
    pub fn start(
        script: &Script,
        request: &mut Request,
        cx: &mut Context,
    ) -> Result<Box<Gateway>, u16> {
        let bytes = request.head_bytes();
        let content_length = match request.head.framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked => Some((request.buf.len() - request.head.len) as u64),
            Framing::Empty => request.head.value(bytes, "content-length").map(|_| 0),
        };
        let launch = Launch {
            file: &script.file,
            name: &script.name,
            info: &script.info,
            query: request.query().unwrap_or_default(),
            method: request.method(),
            content_length,
            has_input: request.head.framing != Framing::Empty,
            command: None,
        };
        match start(&launch, request, cx) {
            Ok(program) => Ok(Box::new(Gateway { program, stage: Stage::Head(Vec::new()) })),
            Err(status) => Err(Site { request, cx }.put_off(status)),
        }
    }

    /// Returns the number of the program.
    pub fn program(&self) -> Number {
        self.program
    }

    /// Gives the program a piece of the content as it arrives.
    pub fn give(&mut self, piece: &[u8], cx: &mut Context) -> Result<(), u16> {
        if cx.programs.give(self.program, piece, false, cx.clock.now) {
            return Ok(());
        }
        cx.complain("no memory for what a program is given");
        Err(503)
    }

    /// Gives the program the content that was kept, and its end.
    pub fn give_all(&mut self, request: &mut Request, cx: &mut Context) {
        let head_len = request.head.len;
        if request.buf.len() <= head_len {
            self.end_content(cx);
            return;
        }
        let head = request.head_bytes().to_vec();
        let whole = std::mem::replace(&mut request.buf, head);
        cx.programs.give_whole(self.program, whole, head_len, cx.clock.now);
    }

    /// Tells the program that the content is complete.
    pub fn end_content(&mut self, cx: &mut Context) {
        cx.programs.give(self.program, &[], true, cx.clock.now);
    }

    /// Moves output as [`Gateway::move_output`] does, for a request that is complete.
    pub fn produce(
        mut self: Box<Self>,
        request: &mut Request,
        out: &mut Outbox,
        cx: &mut Context,
    ) -> Progress {
        match self.move_output(request, out, cx) {
            Moved::Waits => Progress::Waits(Source::Program(self)),
            Moved::More => Progress::More(Source::Program(self)),
            Moved::Ended(ended) => {
                self.stop(cx);
                Progress::Ended(ended)
            }
        }
    }

    /// Moves the next piece of output into the answer, or acts on it.
    pub fn move_output(
        &mut self,
        request: &mut Request,
        out: &mut Outbox,
        cx: &mut Context,
    ) -> Moved {
        if cx.programs.is_expired(self.program) {
            return Moved::Ended(self.failed(504, "", request, cx));
        }
        let mut buf = std::mem::take(&mut cx.programs.buf);
        let output = cx.programs.read(self.program, &mut buf, cx.clock.now);
        let taken = match output {
            Output::Wait => None,
            Output::Got(count) => {
                cx.files.look_again();
                cx.turn.spend(count);
                let piece = buf.get(..count).unwrap_or_default();
                Some(self.take_output(piece, false, request, out, cx))
            }
            Output::End => {
                // The program may have changed files.
                cx.files.look_again();
                Some(self.take_output(&[], true, request, out, cx))
            }
        };
        cx.programs.buf = buf;
        Moved::Ended(match taken {
            None => return Moved::Waits,
            Some(Taken::Wanting) => return Moved::More,
            Some(Taken::Complete) => Ended::Complete,
            Some(Taken::Failed(status, why)) => self.failed(status, why, request, cx),
            Some(Taken::Elsewhere(location)) => self.redirect(&location, request, cx),
        })
    }

    /// Ends an answer that cannot be completed. `why` is a line for the error log, unless it is
    /// empty.
    fn failed(&self, status: u16, why: &str, request: &Request, cx: &mut Context) -> Ended {
        let why = match why {
            "" => String::new(),
            why => format!("{}: {why}", cx.programs.name(self.program)),
        };
        if matches!(self.stage, Stage::Content(Outlet::ToClose)) {
            return Ended::Broken(Broken { why: why.into(), resets: true });
        }
        if !why.is_empty() {
            cx.complain_of(request.client, &why);
        }
        Ended::Failed(status)
    }

    /// Takes a piece of output. `ended` says that it is the last.
    fn take_output(
        &mut self,
        piece: &[u8],
        ended: bool,
        request: &mut Request,
        out: &mut Outbox,
        cx: &mut Context,
    ) -> Taken {
        if let Stage::Head(so_far) = &mut self.stage {
            so_far.extend_from_slice(piece);
            let may_end = ended || so_far.len() >= MAX_CGI_HEAD || piece.contains(&b'\n');
            if !may_end {
                return Taken::Wanting;
            }
            let head = match header::parse(so_far, ended) {
                Parsed::Partial => return Taken::Wanting,
                Parsed::Bad(why) => return Taken::Failed(502, why),
                Parsed::Complete(head) => head,
            };
            if let Some(location) = head.local {
                self.stage = Stage::Elsewhere(location);
            } else {
                let rest = so_far.split_off(head.len.min(so_far.len()));
                let outlet = write_head(&head, request, &mut out.bytes, cx);
                self.stage = Stage::Content(outlet);
                return self.take_output(&rest, ended, request, out, cx);
            }
        }
        match &mut self.stage {
            Stage::Content(outlet) => {
                if out.bytes.try_reserve(piece.len() + 64).is_err() {
                    return Taken::Failed(503, "no memory for its output");
                }
                outlet.write(piece, &mut out.bytes);
                if !ended && !outlet.is_full() {
                    return Taken::Wanting;
                }
                let whole = outlet.finish(&mut out.bytes);
                self.stage = Stage::Answered;
                match whole {
                    true => Taken::Complete,
                    false => Taken::Failed(502, "ended before the end of its content"),
                }
            }
            Stage::Elsewhere(location) if ended => {
                let location = std::mem::take(location);
                self.stage = Stage::Answered;
                Taken::Elsewhere(location)
            }
            Stage::Elsewhere(_) => Taken::Wanting,
            Stage::Head(_) | Stage::Answered => {
                debug_assert!(false, "output of a program whose answer has ended");
                Taken::Failed(500, "wrote when its answer had ended")
            }
        }
    }

    /// Redirects the request to `location` (RFC 3875, section 6.2.2).
    fn redirect(&mut self, location: &[u8], request: &mut Request, cx: &mut Context) -> Ended {
        request.redirections += 1;
        let understood = become_request_for(location, request);
        if understood && request.redirections <= REDIRECTIONS {
            return Ended::Redirected;
        }
        let why = if understood { "too many redirections" } else { "wrote no location" };
        let name = cx.programs.name(self.program);
        cx.complain_of(request.client, &format!("{name}: {why}"));
        Ended::Failed(if understood { 500 } else { 502 })
    }

    /// Releases the program, which the answer does not need any more.
    pub fn stop(&self, cx: &mut Context) {
        let answered = matches!(self.stage, Stage::Answered);
        cx.programs.release(self.program, answered, cx.clock.now);
    }
}

/// Writes the head of the answer, and decides how its content ends.
fn write_head(
    head: &header::Head,
    request: &mut Request,
    out: &mut Vec<u8>,
    cx: &mut Context,
) -> Outlet {
    let outlet = Outlet::choose(&request.head, head.status, head.content_length);
    let length = head.content_length.filter(|_| head.status != 204);
    // The rest of the request would have to be read by the next request, and not by the program.
    request.is_last |= outlet == Outlet::ToClose || !request.is_complete();
    let persists = request.decide_persistence(length.is_some() || outlet == Outlet::Chunks);
    let mut writer = HeadWriter::begin_with_reason(out, head.status, &head.reason);
    if !head.has_date {
        writer.date(cx.clock.date());
    }
    writer.lines(&head.fields);
    match (outlet, length) {
        (Outlet::Length(_) | Outlet::Nothing, Some(length)) => writer.any_length(length),
        (outlet, _) => writer.coding(outlet),
    }
    writer.connection(persists);
    writer.end(b"", request);
    outlet
}

/// Makes the request one for `location`, without content. Returns false if that is not a valid
/// target.
fn become_request_for(location: &[u8], request: &mut Request) -> bool {
    let mut text = if request.head.is_head { b"HEAD ".to_vec() } else { b"GET ".to_vec() };
    text.extend_from_slice(location);
    let version: &[u8] = if request.head.minor == 0 { b" HTTP/1.0" } else { b" HTTP/1.1" };
    text.extend_from_slice(version);
    text.extend_from_slice(b"\r\n");
    for (name, value) in request.head.pairs(request.head_bytes()) {
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
    if head.parse(&text, usize::MAX) != Outcome::Complete {
        return false;
    }
    (request.buf, request.head) = (text, head);
    request.fields.clear();
    if request.locate() && request.path.starts_with(b"/") {
        return true;
    }
    // The places in the old head do not apply to this one.
    request.shown = Shown::default();
    request.path.clear();
    false
}

/// Starts a program. If that fails, the error log has the reason, and the status for the client is
/// returned.
fn start(launch: &Launch<'_>, request: &Request, cx: &mut Context) -> Result<Number, u16> {
    let config = &cx.options.config;
    let translated = resolve::full_path(config, launch.info);
    let origin = Origin {
        config,
        head: &request.head,
        bytes: request.head_bytes(),
        user: &request.user,
        scheme: request.scheme.name(),
        takes_basic: config.enable_basic_auth.holds(request.is_secure),
        path_translated: translated.as_deref(),
        local: request.local,
        peer: request.client,
        is_https: request.is_https(),
        secure: request.is_secure,
        client: request.client_certificate().map(|certificate| ClientCertificate {
            subject: subject::of(&certificate),
            pem: subject::pem(&certificate),
        }),
        error_is_heard: cx.logs.error.is_on(),
    };
    let owner = Owner { index: request.connection, address: request.client };
    launch.run(&origin, &mut cx.programs, owner, cx.clock.now).map_err(|refusal| {
        cx.complain_of(request.client, &refusal.line);
        status_of(&refusal.error)
    })
}

/// Starts a program whose output becomes part of a page.
pub fn start_included(
    file: &Path,
    name: &[u8],
    info: &[u8],
    query: &[u8],
    request: &mut Request,
    cx: &mut Context,
) -> Result<Number, &'static str> {
    let may_run = Site { request, cx }.may_run(file);
    may_run.map_err(|_| "a program that may not be run")?;
    let launch = Launch { file, name, info, query, ..Launch::default() };
    start(&launch, request, cx).map_err(|_| "a program that cannot be run")
}

/// Starts a shell command of the page `file`.
pub fn start_command(
    file: &Path,
    name: &[u8],
    command: &Path,
    request: &mut Request,
    cx: &mut Context,
) -> Result<Number, &'static str> {
    let launch = Launch { file, name, command: Some(command), ..Launch::default() };
    start(&launch, request, cx).map_err(|_| "a command that cannot be run")
}
