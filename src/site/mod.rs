//! What a request means, where no handler of the program's matches: which file or method answers it, or why
//! nothing does. Refuses to know connections, and how answers are sent.

mod access;
pub mod dav;
mod program;

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

pub use self::program::Script;
use crate::dav::upload::Upload;
use crate::dav::work::Work;
use crate::files::cache::Entry;
use crate::files::representation::Representation;
use crate::files::resolve;
use crate::http::accept_encoding::Accepted;
use crate::http::conditional::{self, Outcome, Validators};
use crate::server::connection::Exchange;
use crate::server::context::Context;
use crate::server::files::status_of;

/// What is to be done about a request that no handler of the program's matches.
pub enum Task {
    /// A status with the fields that the exchange holds for it: errors, redirections.
    Reply(u16),
    File(Representation),
    /// A directory to be listed.
    List(PathBuf),
    /// A method of WebDAV; its content is a document.
    Dav(Box<Work>),
    Put(Box<Upload>),
    /// A page with includes: the file, where it is, and what it is for clients.
    Page(Entry, PathBuf, Vec<u8>),
    /// A CGI program to be run.
    Run(Box<Script>),
}

/// What becomes of the content of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Intake {
    /// It is read and thrown away, so that the connection can stay open.
    #[default]
    Discard,
    /// It lies behind the head when the request is dispatched.
    Keep,
    /// The task takes each piece as it arrives.
    Stream,
}

impl Task {
    /// What it needs of the request's content.
    pub fn intake(&self) -> Intake {
        match self {
            Task::Reply(_) | Task::File(_) | Task::List(_) | Task::Page(..) => Intake::Discard,
            Task::Dav(_) | Task::Put(_) => Intake::Stream,
            Task::Run(script) if script.knows_length => Intake::Stream,
            Task::Run(_) => Intake::Keep,
        }
    }

    /// Whether the answer is a refusal or a redirection, for which content is of no use.
    pub fn is_final(&self) -> bool {
        matches!(self, Task::Reply(300..))
    }
}

/// A request, and what is there for it.
pub struct Site<'a> {
    pub exchange: &'a mut Exchange,
    pub cx: &'a mut Context,
}

impl Site<'_> {
    /// Finds out what is to be done.
    pub fn decide(&mut self) -> Task {
        self.cx.files.ask();
        let method = self.exchange.method();
        let reads = matches!(method, b"GET" | b"HEAD" | b"POST");
        let writes = dav::writes(method);
        let is_propfind = method == b"PROPFIND";
        if method == b"TRACE" {
            return self.wrong_method();
        }
        if method == b"OPTIONS" {
            return self.tell_options();
        }
        self.cx.look_at_secrets();
        if reads && let Some(known) = self.cx.files.find(&self.exchange.path) {
            return Task::File(known.into());
        }
        let full = resolve::full_path(&self.cx.options.config, &self.exchange.path);
        let slash = self.exchange.path.ends_with(b"/");
        let Some(full) = full else { return Task::Reply(404) };
        if writes {
            return match self.may_write() {
                Ok(()) => self.decide_dav(),
                Err(task) => task,
            };
        }
        let (mut full, mut rest) = (full, Vec::new());
        let found = self.cx.files.get(&full);
        let is_dir = matches!(&found, Err(error) if error.kind() == ErrorKind::IsADirectory);
        if matches!(&found, Err(error) if is_too_long(error)) {
            // Nor could it be told whether there is a password file.
            return Task::Reply(404);
        }
        if matches!(&found, Err(error) if error.kind() == ErrorKind::NotADirectory)
            && let Some((file, behind)) = self.program_on_the_way(&full)
        {
            (full, rest) = (file, behind);
        }
        if !is_dir {
            // A slash behind a file must not lead to another password file than without it.
            full = without_slash(full);
        }
        let passwords = resolve::password_file(&self.cx.options.config, &full, is_dir);
        let required = self.cx.options.config.global_auth_file.is_some();
        if let Err(task) = self.authorise(&passwords, required) {
            return task;
        }
        let is_secret = match &found {
            Ok(known) => self.cx.files.secrets.hides(&full, &known.id, known.is_link),
            // It may be there all the same: a program on the way, or what may not be read.
            Err(_) => self.cx.files.secrets.hides_at(&full),
        };
        if is_secret || resolve::is_hidden(&self.cx.options.config, &full) {
            return Task::Reply(404);
        }
        if is_propfind {
            return self.decide_dav();
        }
        if let Some(script) = self.script(&full, rest, b"", &found) {
            return self.decide_script(script, reads);
        }
        match found {
            Ok(known) => {
                let task = self.decide_file(&full, known, reads);
                if matches!(task, Task::File(_)) && !self.cx.options.config.enable_precompressed {
                    self.remember(full, passwords);
                }
                task
            }
            Err(_) if is_dir && !slash => self.redirect_to_directory(),
            Err(_) if is_dir => self.decide_directory(full, reads),
            Err(error) => Task::Reply(status_of(&error)),
        }
    }

    /// Decides once more on a request that was decided on at its head, if its content has arrived
    /// since: files and passwords may have changed meanwhile.
    pub fn decide_again(&mut self, task: Task) -> Task {
        let has_begun = matches!(task.intake(), Intake::Stream if self.exchange.cgi.is_some());
        // Other refusals stand as they were judged at the head, and are in the log.
        let stands = matches!(task, Task::Reply(status) if !matches!(status, 301 | 403 | 404));
        if self.exchange.arrived == 0 || has_begun || stands {
            return task;
        }
        self.exchange.granted = None;
        self.exchange.document = None;
        let fields = std::mem::take(&mut self.exchange.fields);
        let again = match &task {
            Task::Put(_) => self.may_write().err(),
            _ => Some(self.decide()),
        };
        match (task, again) {
            (task @ Task::Put(_), None) | (task @ Task::Dav(_), Some(Task::Dav(_))) => {
                // It has the content.
                self.exchange.fields = fields;
                task
            }
            // Its content has been thrown away: what needs it cannot be done any more.
            (task, Some(again))
                if task.intake() == Intake::Discard && again.intake() != Intake::Discard =>
            {
                self.cx.abandon(again);
                self.exchange.fields = fields;
                task
            }
            (task, Some(again)) => {
                self.cx.abandon(task);
                again
            }
            (task, None) => task,
        }
    }

    fn decide_file(&mut self, full: &Path, known: Entry, reads: bool) -> Task {
        if is_lua_page(full) {
            // Their source must not be shown.
            return Task::Reply(501);
        }
        if !reads {
            return self.wrong_method();
        }
        if self.cx.options.config.ssi_pattern.is_some() {
            let exchange = &mut *self.exchange;
            let mut path = exchange.path.clone();
            if path.ends_with(b"/") {
                path.extend_from_slice(full.file_name().unwrap_or_default().as_bytes());
            }
            if self.cx.has_tags(full, &path) {
                return Task::Page(known, full.to_owned(), path);
            }
        }
        if self.cx.options.config.enable_precompressed {
            return Task::File(self.negotiate(full, known));
        }
        Task::File(known.into())
    }

    /// The form of a file that the client likes best, of those that are stored beside it.
    fn negotiate(&mut self, full: &Path, plain: Entry) -> Representation {
        let mut sibling = |suffix| {
            let mut path = full.as_os_str().to_owned();
            path.push(suffix);
            let path = Path::new(&path);
            if resolve::is_hidden(&self.cx.options.config, path) {
                return None;
            }
            let known = self.cx.files.get(path).ok()?;
            let is_secret = self.cx.files.secrets.hides(path, &known.id, known.is_link);
            Some(known).filter(|_| !is_secret)
        };
        let (brotli, gzip) = (sibling(".br"), sibling(".gz"));
        let exchange = &mut *self.exchange;
        let head = exchange.buf.get(..exchange.head.len).unwrap_or_default();
        let accepted = Accepted::read(&exchange.head, head);
        let choose = |has_brotli, has_gzip| accepted.choose(has_brotli, has_gzip);
        Representation::negotiate(plain, brotli, gzip, choose)
    }

    fn decide_directory(&mut self, full: PathBuf, reads: bool) -> Task {
        for place in 0..self.cx.options.config.index_files.len() {
            let config = &self.cx.options.config;
            let name = config.index_files[place].clone();
            let page = full.join(&name);
            if resolve::is_hidden(config, &page) {
                continue;
            }
            let found = self.cx.files.get(&page);
            if self.cx.files.secrets.hides_at(&page) {
                continue;
            }
            if let Some(script) = self.script(&page, Vec::new(), name.as_bytes(), &found) {
                return self.decide_script(script, reads);
            }
            if let Ok(known) = found {
                return self.decide_file(&page, known, reads);
            }
        }
        if !self.cx.options.config.enable_directory_listing {
            return Task::Reply(403);
        }
        if !reads {
            return self.wrong_method();
        }
        Task::List(full)
    }

    /// 301 to the same path with a slash, so that relative links of the page work.
    fn redirect_to_directory(&mut self) -> Task {
        let exchange = &mut *self.exchange;
        let Exchange { fields, path, shown, buf, .. } = exchange;
        fields.extend_from_slice(b"Location: ");
        write_escaped_path(path, fields);
        fields.push(b'/');
        if let Some(query) = &shown.query {
            fields.push(b'?');
            write_ascii(buf.get(query.clone()).unwrap_or_default(), fields);
        }
        fields.extend_from_slice(b"\r\n");
        Task::Reply(301)
    }

    /// RFC 9110, section 15.5.6: 405 says what is allowed.
    pub fn wrong_method(&mut self) -> Task {
        let with_writing = self.cx.options.config.dav_auth_file.is_some();
        if let Some(exchange) = Some(&mut *self.exchange) {
            dav::write_allow(&mut exchange.fields, with_writing, b"");
        }
        Task::Reply(405)
    }

    /// What WebDAV can do here depends on whether anybody may write.
    fn tell_options(&mut self) -> Task {
        let with_writing = self.cx.options.config.dav_auth_file.is_some();
        let fields = &mut self.exchange.fields;
        dav::write_allow(fields, with_writing, b"");
        // Some clients of Microsoft try another protocol unless they are told.
        let classes: &[u8] = if with_writing { b"DAV: 1, 2\r\n" } else { b"DAV: 1\r\n" };
        fields.extend_from_slice(classes);
        fields.extend_from_slice(b"MS-Author-Via: DAV\r\n");
        Task::Reply(200)
    }

    /// Spares the next request for the same path most of the work, unless it takes a password.
    fn remember(&mut self, file: PathBuf, passwords: PathBuf) {
        let exchange = &*self.exchange;
        if exchange.granted.is_none() {
            self.cx.files.shortcuts.add(&exchange.path, file, passwords);
        }
    }

    /// What is to be done, where it is known to come to a refusal whatever the content is.
    pub fn judge_early(&mut self, task: Task) -> Task {
        match task {
            Task::File(file) if self.is_precondition_failed(&file) => Task::Reply(412),
            Task::Dav(work) => self.judge_dav(work),
            task => task,
        }
    }

    /// Whether a condition of the request does not hold for a file.
    pub fn is_precondition_failed(&mut self, file: &Representation) -> bool {
        let exchange = &mut *self.exchange;
        let bytes = exchange.buf.get(..exchange.head.len).unwrap_or_default();
        let etag = file.etag();
        let validators = Validators { etag: &etag, modified: file.known.modified };
        let outcome = conditional::evaluate(&exchange.head, bytes, Some(validators));
        outcome == Outcome::PreconditionFailed
    }
}

/// Whether a file is a page of Lua, by its name.
pub fn is_lua_page(full: &Path) -> bool {
    full.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("lp"))
}

/// Whether a path is longer than any file's.
fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw_os_error) == Some(Errno::NAMETOOLONG)
}

fn without_slash(path: PathBuf) -> PathBuf {
    let mut bytes = path.into_os_string().into_vec();
    while bytes.len() > 1 && bytes.ends_with(b"/") {
        bytes.pop();
    }
    OsString::from_vec(bytes).into()
}

/// RFC 3986, section 3.3: what may stand in a path stays, all else is escaped.
pub fn write_escaped_path(path: &[u8], out: &mut Vec<u8>) {
    let stays = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&b);
    write_escaped(path, stays, out);
}

/// What a client wrote stays, except for bytes that no URI has.
fn write_ascii(text: &[u8], out: &mut Vec<u8>) {
    write_escaped(text, |byte| byte.is_ascii(), out);
}

fn write_escaped(text: &[u8], stays: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    for &byte in text {
        if stays(byte) {
            out.push(byte);
        } else {
            let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value)];
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}
