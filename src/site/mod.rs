//! The meaning of a request for which there is no handler: the file or method that answers it, or
//! the reason for a refusal (RFC 9110, sections 9 and 15).
//!
//! Refuses to know connections, and how answers are sent.

mod access;
#[cfg(feature = "webdav")]
pub mod dav;
#[cfg(not(feature = "webdav"))]
#[path = "absent.rs"]
pub mod dav;
mod program;
#[cfg(feature = "webdav")]
mod uploads;

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

pub use self::program::Script;
use crate::dav::form::Form;
use crate::dav::upload::Upload;
use crate::dav::work::Work;
use crate::exchange::context::Context;
use crate::exchange::request::Request;
use crate::files::cache::{Entry, is_absence, is_failure};
use crate::files::mime::Types;
use crate::files::patience::{Findings, Question, Trail};
use crate::files::representation::Representation;
use crate::files::resolve;
use crate::http::accept_encoding::Accepted;
use crate::http::conditional::{self, Outcome, Validators};
use crate::options::Config;

/// The answer that is decided for a request without a handler.
pub enum Task {
    /// A status, with the fields that the request holds for it: an error or a redirection.
    Reply(u16),
    /// The answer 401 to a wrong password, which is not told before this time.
    Deny {
        until: u32,
    },
    File(Representation),
    /// A directory that is listed.
    List(PathBuf),
    /// A method of WebDAV, whose content is a document.
    Dav(Box<Work>),
    Put(Box<Upload>),
    /// A form that brings files.
    Form(Box<Form>),
    /// A page with includes: the file, its place, and its path for clients.
    Page(Entry, PathBuf, Vec<u8>),
    /// A CGI program that is run.
    Run(Box<Script>),
}

/// The use of a request's content.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Intake {
    /// The content is read and discarded, so that the connection can stay open.
    #[default]
    Discard,
    /// The content is kept behind the head until it is complete.
    Keep,
    /// The task takes each piece as it arrives.
    Stream,
}

impl Task {
    /// Returns the use that the task has for the content.
    pub fn intake(&self) -> Intake {
        match self {
            Task::Reply(_) | Task::Deny { .. } | Task::File(_) | Task::List(_) | Task::Page(..) => {
                Intake::Discard
            }
            Task::Dav(_) | Task::Put(_) | Task::Form(_) => Intake::Stream,
            Task::Run(script) if script.knows_length => Intake::Stream,
            Task::Run(_) => Intake::Keep,
        }
    }

    /// Returns the largest length of the content. Only content that is kept in memory has to fit into
    /// `max_request_body_bytes`.
    pub fn content_limit(&self, config: &Config) -> u64 {
        let kept = config.max_request_body_bytes as u64;
        match self {
            Task::Dav(_) => kept.min(dav::MAX_DOCUMENT as u64),
            Task::Put(_) | Task::Form(_) => upload_limit(config),
            Task::Run(script) if script.knows_length => upload_limit(config),
            Task::Reply(_)
            | Task::Deny { .. }
            | Task::File(_)
            | Task::List(_)
            | Task::Page(..)
            | Task::Run(_) => kept,
        }
    }

    /// Returns whether a CGI program may be run, which learns the addresses of both ends.
    pub fn may_run_programs(&self) -> bool {
        matches!(self, Task::Run(_) | Task::Page(..))
    }

    /// Gives the task up, with all that it has begun.
    pub fn abandon(self, cx: &mut Context) {
        if let Task::Dav(work) = self {
            work.abandon(&mut cx.sweeper);
        }
    }

    /// Returns whether the answer is a refusal or a redirection, which needs no content.
    pub fn is_final(&self) -> bool {
        matches!(self, Task::Reply(300..) | Task::Deny { .. })
    }
}

/// Returns the largest length of content that goes to a file or a program as it arrives.
pub fn upload_limit(config: &Config) -> u64 {
    config.max_upload_bytes.unwrap_or(u64::MAX)
}

/// The place in the file system that the path of a request names.
struct Place {
    full: PathBuf,
    /// The part of the path behind a CGI program.
    rest: Vec<u8>,
    /// The file, or the reason why it cannot be read.
    found: io::Result<Entry>,
    is_dir: bool,
    /// The password file that guards the place, if it exists.
    passwords: PathBuf,
    /// What else is known of it, if a helper has looked at it.
    trail: Option<Arc<Trail>>,
}

/// A request together with the files and options that decide about it.
pub struct Site<'a> {
    pub request: &'a mut Request,
    pub cx: &'a mut Context,
}

impl Site<'_> {
    /// Decides on the answer to the request. The order of the steps is a matter of security: a
    /// password is required before the answer reveals whether a file exists, and hidden files count
    /// as missing before any file is run or read.
    pub fn decide(&mut self) -> Task {
        debug_assert!(!self.cx.files.cache.patience.is_on(), "the caller cannot wait");
        self.decide_once()
    }

    /// Decides as [`Site::decide`] does, for a caller that can wait for slow file systems: what they have
    /// to be asked is returned as an error. `findings` are the answers so far.
    #[inline(always)]
    pub fn decide_patiently(
        &mut self,
        findings: Findings,
    ) -> Result<Task, (Vec<Question>, Findings)> {
        self.cx.files.cache.patience.begin(findings);
        let task = self.decide_once();
        match self.cx.files.cache.patience.end() {
            None => Ok(task),
            Some(asked) => {
                // Nothing of it counts.
                task.abandon(self.cx);
                Err(asked)
            }
        }
    }

    #[inline]
    fn decide_once(&mut self) -> Task {
        self.cx.files.ask();
        let method = self.request.method();
        let reads = matches!(method, b"GET" | b"HEAD" | b"POST");
        if !reads {
            self.cx.files.cache.patience.give_up();
        }
        let (writes, is_propfind) = (dav::writes(method), method == b"PROPFIND");
        match method {
            b"TRACE" => return self.wrong_method(),
            b"OPTIONS" => return self.tell_options(),
            _ if dav::is_left_out(method) => return self.wrong_method(),
            _ => {}
        }
        self.cx.look_at_secrets();
        if reads && let Some(known) = self.cx.files.find(&self.request.path) {
            return Task::File(known.into());
        }
        let full = resolve::full_path(&self.cx.options.config, &self.request.path);
        let Some(full) = full else { return Task::Reply(404) };
        if writes {
            return match self.may_write() {
                Ok(()) => self.decide_dav(),
                Err(task) => task,
            };
        }
        let Some(place) = self.look_up(full) else { return Task::Reply(404) };
        if self.cx.files.is_asking() {
            return Task::Reply(500);
        }
        if self.is_form(&place) {
            self.cx.files.cache.patience.give_up();
            if !self.is_hidden(&place) {
                return self.decide_form();
            }
        }
        if let Err(task) = self.ask_for_password(&place) {
            return task;
        }
        if self.is_hidden(&place) || self.cx.files.is_asking() {
            return Task::Reply(404);
        }
        match is_propfind {
            true => self.decide_dav(),
            false => self.decide_place(place, reads),
        }
    }

    /// Looks at the place that a path names. `None` means that the path is longer than any file's,
    /// so that its password file cannot be found either.
    fn look_up(&mut self, full: PathBuf) -> Option<Place> {
        let (mut full, mut rest) = (full, Vec::new());
        let found = self.cx.files.get(&full);
        if self.cx.files.is_asking() {
            self.ask_for_passwords_too(&full);
        }
        let trail = self.cx.files.trail(&full);
        let is_dir = matches!(&found, Err(error) if error.kind() == ErrorKind::IsADirectory);
        if matches!(&found, Err(error) if is_too_long(error)) {
            return None;
        }
        if matches!(&found, Err(error) if error.kind() == ErrorKind::NotADirectory)
            && let Some((file, behind)) = self.program_on_the_way(&full, trail.as_deref())
        {
            (full, rest) = (file, behind);
        }
        if !is_dir {
            // A slash behind a file must not lead to another password file.
            full = without_slash(full);
        }
        let passwords = resolve::password_file(&self.cx.options.config, &full, is_dir);
        Some(Place { full, rest, found, is_dir, passwords, trail })
    }

    /// Has a helper look for the password file that will most likely be wanted next.
    #[cold]
    fn ask_for_passwords_too(&mut self, full: &Path) {
        let is_dir = full.as_os_str().as_bytes().ends_with(b"/");
        let passwords = resolve::password_file(&self.cx.options.config, full, is_dir);
        let _ = self.cx.files.get_passwords(&passwords);
    }

    /// Checks the password that the place requires.
    fn ask_for_password(&mut self, place: &Place) -> Result<(), Task> {
        let is_required = self.cx.options.config.global_auth_file.is_some();
        // Behind a link that is not followed nothing is, no password file either.
        if !is_required
            && place.found.is_err()
            && match (&place.trail, place.passwords.parent()) {
                (Some(trail), _) => trail.is_barred,
                (None, dir) => dir.is_some_and(|dir| matches!(self.cx.files.bar(dir), Ok(true))),
            }
        {
            return Err(Task::Reply(404));
        }
        self.authorise(&place.passwords, is_required)
    }

    /// Returns whether the place must not be served.
    fn is_hidden(&mut self, place: &Place) -> bool {
        let files = &mut self.cx.files;
        let is_secret = match &place.found {
            Ok(known) => files.hides(&place.full, known),
            // The file may exist all the same: as a CGI program on the path, or without the right
            // to read it.
            Err(_) => files.hides_at(&place.full),
        };
        is_secret || resolve::is_hidden(&self.cx.options.config, &place.full)
    }

    /// Decides on the answer for a place that may be seen.
    fn decide_place(&mut self, place: Place, reads: bool) -> Task {
        let Place { full, rest, found, is_dir, passwords, .. } = place;
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
            Err(error) if reads && !self.request.path.ends_with(b"/") && is_absence(&error) => {
                let path = self.request.path.clone();
                match self.packed(&full, &path) {
                    Ok(Some(file)) => Task::File(file),
                    Ok(None) if self.cx.files.is_asking() => Task::Reply(500),
                    Ok(None) => Task::Reply(self.cx.refusal(self.request.client, &full, &error)),
                    Err(status) => Task::Reply(status),
                }
            }
            Err(_) if is_dir && !self.request.path.ends_with(b"/") => self.redirect_to_directory(),
            Err(_) if is_dir => self.decide_directory(full, reads),
            Err(error) => Task::Reply(self.cx.refusal(self.request.client, &full, &error)),
        }
    }

    /// Decides once more on a request whose content has arrived since the decision at its head:
    /// files and passwords may have changed meanwhile.
    pub fn decide_again(&mut self, task: Task) -> Task {
        // Other refusals stand as they were decided at the head, and are in the log.
        let stands = match task {
            Task::Reply(status) => !matches!(status, 301 | 403 | 404),
            Task::Deny { .. } => true,
            _ => false,
        };
        if self.request.arrived == 0 || stands {
            return task;
        }
        self.request.granted = None;
        self.request.document = None;
        let fields = std::mem::take(&mut self.request.fields);
        let again = match &task {
            Task::Put(_) | Task::Form(_) => self.may_write().err(),
            _ => Some(self.decide()),
        };
        match (task, again) {
            (task @ (Task::Put(_) | Task::Form(_)), None)
            | (task @ Task::Dav(_), Some(Task::Dav(_))) => {
                // The task has the content.
                self.request.fields = fields;
                task
            }
            // The content has been discarded, so that a task which needs it cannot be done any
            // more.
            (task, Some(again))
                if task.intake() == Intake::Discard && again.intake() != Intake::Discard =>
            {
                again.abandon(self.cx);
                self.request.fields = fields;
                task
            }
            (task, Some(again)) => {
                task.abandon(self.cx);
                again
            }
            (task, None) => task,
        }
    }

    /// Decides on the answer with a file.
    fn decide_file(&mut self, full: &Path, known: Entry, reads: bool) -> Task {
        if is_lua_page(full) {
            // The source of such a page must not be shown.
            return Task::Reply(501);
        }
        if !reads {
            return self.wrong_method();
        }
        if self.cx.options.config.ssi_pattern.is_some() {
            let request = &mut *self.request;
            let mut path = request.path.clone();
            if path.ends_with(b"/") {
                path.extend_from_slice(full.file_name().unwrap_or_default().as_bytes());
            }
            if has_tags(&self.cx.options.config, full, &path) {
                return Task::Page(known, full.to_owned(), path);
            }
        }
        if self.cx.options.config.enable_precompressed {
            return Task::File(self.negotiate(full, known));
        }
        Task::File(known.into())
    }

    /// Returns the representation that the client prefers, of those that are stored beside the
    /// file.
    fn negotiate(&mut self, full: &Path, plain: Entry) -> Representation {
        // The file is there, whatever the file system says of its siblings.
        let [brotli, gzip] = [".br", ".gz"].map(|end| self.sibling(full, end).unwrap_or_default());
        let accepted = Accepted::read(&self.request.head, self.request.head_bytes());
        let choose = |has_brotli, has_gzip| accepted.choose(has_brotli, has_gzip);
        Representation::negotiate(plain, brotli, gzip, choose)
    }

    /// Returns what is stored of a file beside its place, if that may be seen. It is an error that the
    /// file system fails, and its status.
    fn sibling(&mut self, full: &Path, suffix: &str) -> Result<Option<Entry>, u16> {
        let mut path = full.as_os_str().to_owned();
        path.push(suffix);
        let path = Path::new(&path);
        if resolve::is_hidden(&self.cx.options.config, path) {
            return Ok(None);
        }
        let known = match self.cx.files.get(path) {
            Ok(known) => known,
            // The request is decided anew.
            Err(_) if self.cx.files.is_asking() => return Err(500),
            Err(error) if is_failure(&error) => {
                return Err(self.cx.refusal(self.request.client, path, &error));
            }
            Err(_) => return Ok(None),
        };
        let is_secret = self.cx.files.hides(path, &known);
        Ok(Some(known).filter(|_| !is_secret))
    }

    /// Returns the representation of a file that is stored compressed only. `path` is its path for
    /// clients.
    fn packed(&mut self, full: &Path, path: &[u8]) -> Result<Option<Representation>, u16> {
        let config = &self.cx.options.config;
        // What is never sent as it is, is not sent because it is compressed.
        if !config.enable_precompressed
            || is_lua_page(full)
            || has_tags(config, full, path)
            || resolve::matches(&config.cgi_pattern, full, path)
        {
            return Ok(None);
        }
        let media_type = Types::of(config).media_type(full.as_os_str().as_bytes()).into();
        let Some(gzip) = self.sibling(full, ".gz")? else { return Ok(None) };
        let accepted = Accepted::read(&self.request.head, self.request.head_bytes());
        Ok(Some(Representation::alone(gzip, media_type, accepted.choose(false, true))))
    }

    /// Decides on the answer for a directory: an index file, or a list.
    fn decide_directory(&mut self, full: PathBuf, reads: bool) -> Task {
        for place in 0..self.cx.options.config.index_files.len() {
            let config = &self.cx.options.config;
            let name = config.index_files[place].clone();
            let page = full.join(&name);
            if resolve::is_hidden(config, &page) {
                continue;
            }
            let found = self.cx.files.get(&page);
            if self.cx.files.is_asking() {
                return Task::Reply(500);
            }
            if self.cx.files.hides_at(&page) {
                continue;
            }
            if let Some(script) = self.script(&page, Vec::new(), name.as_bytes(), &found) {
                return self.decide_script(script, reads);
            }
            match found {
                Ok(known) => return self.decide_file(&page, known, reads),
                // The list would hide that there is a page.
                Err(error) if is_failure(&error) => {
                    return Task::Reply(self.cx.refusal(self.request.client, &page, &error));
                }
                Err(error) if reads && is_absence(&error) => {
                    let path = [self.request.path.as_slice(), name.as_bytes()].concat();
                    match self.packed(&page, &path) {
                        Ok(Some(file)) => return Task::File(file),
                        Ok(None) => {}
                        Err(status) => return Task::Reply(status),
                    }
                    if self.cx.files.is_asking() {
                        return Task::Reply(500);
                    }
                }
                Err(_) => {}
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

    /// Returns a redirection to the path with a slash, so that relative links of the page work.
    fn redirect_to_directory(&mut self) -> Task {
        let request = &mut *self.request;
        let Request { fields, path, shown, buf, .. } = request;
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

    /// Returns 405 with the methods that are allowed (RFC 9110, section 15.5.6).
    pub fn wrong_method(&mut self) -> Task {
        dav::write_allow(&mut self.request.fields, &self.cx.options.config, b"");
        Task::Reply(405)
    }

    /// Answers OPTIONS. The classes of WebDAV depend on whether writing is set up.
    fn tell_options(&mut self) -> Task {
        let config = &self.cx.options.config;
        let fields = &mut self.request.fields;
        dav::write_allow(fields, config, b"");
        dav::write_classes(fields, config);
        Task::Reply(200)
    }

    /// Remembers the file for the next request with the same path, unless that needs a password.
    fn remember(&mut self, file: PathBuf, passwords: PathBuf) {
        let request = &*self.request;
        if request.granted.is_none() {
            self.cx.files.shortcuts.add(&request.path, file, passwords);
        }
    }

    /// Returns the task, or the refusal in which it would end whatever the content is.
    pub fn check_early(&mut self, task: Task) -> Task {
        match task {
            Task::File(file) if self.is_precondition_failed(&file) => Task::Reply(412),
            Task::Dav(work) => self.check_dav_early(work),
            task => task,
        }
    }

    /// Returns whether a condition of the request does not hold for a file.
    fn is_precondition_failed(&self, file: &Representation) -> bool {
        let request = &*self.request;
        let bytes = request.head_bytes();
        let etag = file.etag();
        let validators = Validators { etag: &etag, modified: file.known.modified };
        let outcome = conditional::evaluate(&request.head, bytes, Some(validators));
        outcome == Outcome::PreconditionFailed
    }
}

/// Returns whether a file is searched for tags of server-side includes.
pub fn has_tags(config: &Config, full: &Path, path: &[u8]) -> bool {
    let pattern = config.ssi_pattern.as_deref();
    pattern.is_some_and(|pattern| resolve::matches(pattern, full, path))
}

/// Returns whether a file is a Lua page, by its name.
pub fn is_lua_page(full: &Path) -> bool {
    full.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("lp"))
}

/// Returns whether an error says that a path is longer than any file's.
fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw_os_error) == Some(Errno::NAMETOOLONG)
}

/// Removes the slashes at the end of a path.
fn without_slash(path: PathBuf) -> PathBuf {
    let mut bytes = path.into_os_string().into_vec();
    while bytes.len() > 1 && bytes.ends_with(b"/") {
        bytes.pop();
    }
    OsString::from_vec(bytes).into()
}

/// Appends a path, and escapes all bytes that RFC 3986, section 3.3, does not allow there.
pub fn write_escaped_path(path: &[u8], out: &mut Vec<u8>) {
    let stays = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&b);
    write_escaped(path, stays, out);
}

/// Appends text that a client wrote, and escapes bytes that no URI contains.
fn write_ascii(text: &[u8], out: &mut Vec<u8>) {
    write_escaped(text, |byte| byte.is_ascii(), out);
}

/// Appends text, and escapes the bytes for which `stays` is false.
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
