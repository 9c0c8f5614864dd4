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
use crate::exchange::context::Context;
use crate::exchange::request::Request;
use crate::files::cache::Entry;
use crate::files::representation::Representation;
use crate::files::resolve;
use crate::http::accept_encoding::Accepted;
use crate::http::conditional::{self, Outcome, Validators};
use crate::options::Config;

/// What is to be done about a request that no handler of the program's matches.
pub enum Task {
    /// A status with the fields that the request holds for it: errors, redirections.
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

    /// Whether a program may be run for it, which is told the addresses of both ends.
    pub fn may_run_programs(&self) -> bool {
        matches!(self, Task::Run(_) | Task::Page(..))
    }

    /// Gives it up: nothing of it stays behind.
    pub fn abandon(self, cx: &mut Context) {
        if let Task::Dav(work) = self {
            work.abandon(&mut cx.sweeper);
        }
    }

    /// Whether the answer is a refusal or a redirection, for which content is of no use.
    pub fn is_final(&self) -> bool {
        matches!(self, Task::Reply(300..))
    }
}

/// The place in the file system that the path of a request stands for.
struct Place {
    full: PathBuf,
    /// The part of the path behind a program on the way.
    rest: Vec<u8>,
    /// The file there, or why there is none to be read.
    found: io::Result<Entry>,
    is_dir: bool,
    /// The password file that guards it, if that is there.
    passwords: PathBuf,
}

/// A request, and what is there for it.
pub struct Site<'a> {
    pub request: &'a mut Request,
    pub cx: &'a mut Context,
}

impl Site<'_> {
    /// Decides what answers the request. The order of the steps is security: a password is asked for before it
    /// shows whether a file is there, and hidden files are as good as missing before anything is run or read.
    pub fn decide(&mut self) -> Task {
        self.cx.files.ask();
        let method = self.request.method();
        let reads = matches!(method, b"GET" | b"HEAD" | b"POST");
        let (writes, is_propfind) = (dav::writes(method), method == b"PROPFIND");
        match method {
            b"TRACE" => return self.wrong_method(),
            b"OPTIONS" => return self.tell_options(),
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
        if let Err(task) = self.ask_for_password(&place) {
            return task;
        }
        if self.is_hidden(&place) {
            return Task::Reply(404);
        }
        match is_propfind {
            true => self.decide_dav(),
            false => self.decide_place(place, reads),
        }
    }

    /// Looks at the place that a path stands for. `None` if the path is longer than any file's: then it cannot
    /// be told either whether there is a password file.
    fn look_up(&mut self, full: PathBuf) -> Option<Place> {
        let (mut full, mut rest) = (full, Vec::new());
        let found = self.cx.files.get(&full);
        let is_dir = matches!(&found, Err(error) if error.kind() == ErrorKind::IsADirectory);
        if matches!(&found, Err(error) if is_too_long(error)) {
            return None;
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
        Some(Place { full, rest, found, is_dir, passwords })
    }

    fn ask_for_password(&mut self, place: &Place) -> Result<(), Task> {
        let is_required = self.cx.options.config.global_auth_file.is_some();
        self.authorise(&place.passwords, is_required)
    }

    fn is_hidden(&mut self, place: &Place) -> bool {
        let secrets = &mut self.cx.files.secrets;
        let is_secret = match &place.found {
            Ok(known) => secrets.hides(&place.full, &known.id, known.is_link),
            // It may be there all the same: a program on the way, or a file that may not be read.
            Err(_) => secrets.hides_at(&place.full),
        };
        is_secret || resolve::is_hidden(&self.cx.options.config, &place.full)
    }

    fn decide_place(&mut self, place: Place, reads: bool) -> Task {
        let Place { full, rest, found, is_dir, passwords } = place;
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
            Err(_) if is_dir && !self.request.path.ends_with(b"/") => self.redirect_to_directory(),
            Err(_) if is_dir => self.decide_directory(full, reads),
            Err(error) => Task::Reply(status_of(&error)),
        }
    }

    /// Decides once more on a request that was decided on at its head, if its content has arrived
    /// since: files and passwords may have changed meanwhile.
    pub fn decide_again(&mut self, task: Task) -> Task {
        // Other refusals stand as they were judged at the head, and are in the log.
        let stands = matches!(task, Task::Reply(status) if !matches!(status, 301 | 403 | 404));
        if self.request.arrived == 0 || stands {
            return task;
        }
        self.request.granted = None;
        self.request.document = None;
        let fields = std::mem::take(&mut self.request.fields);
        let again = match &task {
            Task::Put(_) => self.may_write().err(),
            _ => Some(self.decide()),
        };
        match (task, again) {
            (task @ Task::Put(_), None) | (task @ Task::Dav(_), Some(Task::Dav(_))) => {
                // It has the content.
                self.request.fields = fields;
                task
            }
            // Its content has been thrown away: what needs it cannot be done any more.
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

    fn decide_file(&mut self, full: &Path, known: Entry, reads: bool) -> Task {
        if is_lua_page(full) {
            // Their source must not be shown.
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
        let request = &mut *self.request;
        let head = request.head_bytes();
        let accepted = Accepted::read(&request.head, head);
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

    /// RFC 9110, section 15.5.6: 405 says what is allowed.
    pub fn wrong_method(&mut self) -> Task {
        let with_writing = self.cx.options.config.dav_auth_file.is_some();
        if let Some(request) = Some(&mut *self.request) {
            dav::write_allow(&mut request.fields, with_writing, b"");
        }
        Task::Reply(405)
    }

    /// What WebDAV can do here depends on whether anybody may write.
    fn tell_options(&mut self) -> Task {
        let with_writing = self.cx.options.config.dav_auth_file.is_some();
        let fields = &mut self.request.fields;
        dav::write_allow(fields, with_writing, b"");
        // Some clients of Microsoft try another protocol unless they are told.
        let classes: &[u8] = if with_writing { b"DAV: 1, 2\r\n" } else { b"DAV: 1\r\n" };
        fields.extend_from_slice(classes);
        fields.extend_from_slice(b"MS-Author-Via: DAV\r\n");
        Task::Reply(200)
    }

    /// Spares the next request for the same path most of the work, unless it takes a password.
    fn remember(&mut self, file: PathBuf, passwords: PathBuf) {
        let request = &*self.request;
        if request.granted.is_none() {
            self.cx.files.shortcuts.add(&request.path, file, passwords);
        }
    }

    /// What is to be done, where it is known to come to a refusal whatever the content is.
    pub fn check_early(&mut self, task: Task) -> Task {
        match task {
            Task::File(file) if self.is_precondition_failed(&file) => Task::Reply(412),
            Task::Dav(work) => self.check_dav_early(work),
            task => task,
        }
    }

    /// Whether a condition of the request does not hold for a file.
    fn is_precondition_failed(&self, file: &Representation) -> bool {
        let request = &*self.request;
        let bytes = request.head_bytes();
        let etag = file.etag();
        let validators = Validators { etag: &etag, modified: file.known.modified };
        let outcome = conditional::evaluate(&request.head, bytes, Some(validators));
        outcome == Outcome::PreconditionFailed
    }
}

/// Whether a file is searched for tags of server-side includes.
pub fn has_tags(config: &Config, full: &Path, path: &[u8]) -> bool {
    let pattern = config.ssi_pattern.as_deref();
    pattern.is_some_and(|pattern| resolve::matches(pattern, full, path))
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

/// The status that tells a client of a file that cannot be opened.
pub fn status_of(error: &io::Error) -> u16 {
    match error.kind() {
        io::ErrorKind::PermissionDenied => 403,
        _ => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE | Errno::NFILE) => 503,
            _ => 404,
        },
    }
}
