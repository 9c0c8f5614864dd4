//! What the library itself does about a request: decided once its head is known, carried out once
//! its body is out of the way.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::cgi::Script;
use super::connection::Exchange;
use super::files::status_of;
use super::step::Flow;
use super::{Server, dav};
use crate::auth::digest::{self, Verdict};
use crate::auth::nonce::Nonces;
use crate::dav::upload::Upload;
use crate::dav::work::Work;
use crate::files::cache::{Content, Entry, Known, is_absence};
use crate::files::representation::Representation;
use crate::files::resolve;
use crate::http::accept_encoding::Accepted;
use crate::http::uri;

/// How long a nonce of digest authentication lasts, in seconds.
const NONCE_LIFETIME: u64 = 300;

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

impl Server {
    /// Answers a request that no handler of the program's matches.
    pub(super) fn answer_builtin(&mut self, index: usize) -> Flow {
        match self.exchange(index).and_then(|exchange| exchange.task.take()) {
            Some(task) => {
                let task = self.decide_again(index, task);
                self.perform(index, task)
            }
            None if self.may_share(index) => Flow::Leave,
            None => self.decide_now(index),
        }
    }

    /// Answers a request that was not decided on before.
    pub(super) fn decide_now(&mut self, index: usize) -> Flow {
        let task = self.decide(index);
        self.perform(index, task)
    }

    fn perform(&mut self, index: usize, task: Task) -> Flow {
        match task {
            Task::Reply(status) => self.fail(index, status),
            Task::File(file) => self.begin_file(index, file),
            Task::List(path) => self.begin_listing(index, path),
            task @ (Task::Dav(_) | Task::Put(_)) => self.begin_work_on(index, task),
            Task::Page(known, file, path) => self.begin_expansion(index, known, file, path),
            Task::Run(script) => self.begin_relay(index, &script),
        }
    }

    /// Decides once more on a request that was decided on at its head, if its content has arrived
    /// since: files and passwords may have changed meanwhile.
    fn decide_again(&mut self, index: usize, task: Task) -> Task {
        let Some(exchange) = self.exchange(index).filter(|exchange| exchange.arrived > 0) else {
            return task;
        };
        let has_begun = matches!(task.intake(), Intake::Stream if exchange.cgi.is_some());
        // Other refusals stand as they were judged at the head, and are in the log.
        let stands = matches!(task, Task::Reply(status) if !matches!(status, 301 | 403 | 404));
        if has_begun || stands {
            return task;
        }
        exchange.granted = None;
        exchange.document = None;
        let fields = std::mem::take(&mut exchange.fields);
        let again = match &task {
            Task::Put(_) => self.may_write(index).err(),
            _ => Some(self.decide(index)),
        };
        match (task, again) {
            (task @ Task::Put(_), None) | (task @ Task::Dav(_), Some(Task::Dav(_))) => {
                // It has the content.
                if let Some(exchange) = self.exchange(index) {
                    exchange.fields = fields;
                }
                task
            }
            // Its content has been thrown away: what needs it cannot be done any more.
            (task, Some(again))
                if task.intake() == Intake::Discard && again.intake() != Intake::Discard =>
            {
                self.abandon(again);
                if let Some(exchange) = self.exchange(index) {
                    exchange.fields = fields;
                }
                task
            }
            (task, Some(again)) => {
                self.abandon(task);
                again
            }
            (task, None) => task,
        }
    }

    /// What is to be done, where it is known to come to a refusal whatever the content is.
    pub(super) fn judge_early(&mut self, index: usize, task: Task) -> Task {
        match task {
            Task::File(file) if self.is_precondition_failed(index, &file) => Task::Reply(412),
            Task::Dav(work) => self.judge_dav(index, work),
            task => task,
        }
    }

    /// Hands the task a piece of content that has arrived in `scratch`.
    pub(super) fn stream(&mut self, index: usize, content: Range<usize>) -> Result<(), u16> {
        match self.exchange(index).and_then(|exchange| exchange.task.take()) {
            Some(Task::Run(script)) => {
                let streamed = self.stream_to_program(index, &script, content);
                if let Some(exchange) = self.exchange(index) {
                    exchange.task = Some(Task::Run(script));
                }
                streamed
            }
            task => {
                let takes_dav = matches!(task, Some(Task::Dav(_) | Task::Put(_)));
                if let Some(exchange) = self.exchange(index) {
                    exchange.task = task;
                }
                // Nothing else takes content.
                if takes_dav { self.stream_to_dav(index, content) } else { Ok(()) }
            }
        }
    }

    /// Whether the task of the request takes more content for now. Who says no has to call
    /// [`Server::make_ready`] when that changes.
    pub(super) fn takes_content(&mut self, index: usize) -> bool {
        match self.exchange(index).and_then(|exchange| exchange.task.as_ref()) {
            Some(Task::Run(_)) => self.gateway_takes(index),
            _ => true,
        }
    }

    /// Whether who asks may change what the path of a request stands for.
    fn may_write(&mut self, index: usize) -> Result<(), Task> {
        let Some(file) = self.cx.options.config.dav_auth_file.clone() else {
            return Err(self.challenge(index, false));
        };
        self.authorise(index, &file, true)?;
        let Some(exchange) = self.exchange(index) else { return Err(Task::Reply(500)) };
        let method = exchange.buf.get(exchange.head.method.range()).unwrap_or_default();
        let copies = matches!(method, b"COPY" | b"MOVE");
        let target = exchange.buf.get(exchange.head.target.range()).unwrap_or_default();
        if target.contains(&b'#') {
            // Cut off as for others, a `#` that was not escaped would be the loss of another file.
            return Err(Task::Reply(400));
        }
        let path = exchange.path.clone();
        let Some(full) = resolve::full_path(&self.cx.options.config, &path) else {
            return Err(Task::Reply(404));
        };
        self.cx.look_at_secrets();
        if resolve::is_hidden(&self.cx.options.config, &full)
            || self.cx.files.secrets.hides_at(&full)
        {
            return Err(Task::Reply(404));
        }
        match copies && self.is_guarded(index, &full, &file) {
            true => Err(Task::Reply(403)),
            false => Ok(()),
        }
    }

    /// Finds out what is to be done.
    pub(super) fn decide(&mut self, index: usize) -> Task {
        self.cx.files.ask();
        let Some(exchange) = self.exchange(index) else { return Task::Reply(500) };
        let method = exchange.buf.get(exchange.head.method.range()).unwrap_or_default();
        let reads = matches!(method, b"GET" | b"HEAD" | b"POST");
        let writes = dav::writes(method);
        let is_propfind = method == b"PROPFIND";
        if method == b"TRACE" {
            return self.wrong_method(index);
        }
        if method == b"OPTIONS" {
            return self.tell_options(index);
        }
        self.cx.look_at_secrets();
        if reads
            && let Some(Some(conn)) = self.conns.get(index)
            && let Some(exchange) = conn.exchange.as_deref()
            && let Some(known) = self.cx.files.find(&exchange.path)
        {
            return Task::File(known.into());
        }
        let Some(exchange) = self.exchange(index) else { return Task::Reply(500) };
        let path = std::mem::take(&mut exchange.path);
        let full = resolve::full_path(&self.cx.options.config, &path);
        let slash = path.ends_with(b"/");
        if let Some(exchange) = self.exchange(index) {
            exchange.path = path;
        }
        let Some(full) = full else { return Task::Reply(404) };
        if writes {
            return match self.may_write(index) {
                Ok(()) => self.decide_dav(index),
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
            && let Some((file, behind)) = self.program_on_the_way(index, &full)
        {
            (full, rest) = (file, behind);
        }
        if !is_dir {
            // A slash behind a file must not lead to another password file than without it.
            full = without_slash(full);
        }
        let passwords = resolve::password_file(&self.cx.options.config, &full, is_dir);
        let required = self.cx.options.config.global_auth_file.is_some();
        if let Err(task) = self.authorise(index, &passwords, required) {
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
            return self.decide_dav(index);
        }
        if let Some(script) = self.script(index, &full, rest, b"", &found) {
            return self.decide_script(index, script, reads);
        }
        match found {
            Ok(known) => {
                let task = self.decide_file(index, &full, known, reads);
                if matches!(task, Task::File(_)) && !self.cx.options.config.enable_precompressed {
                    self.remember(index, full, passwords);
                }
                task
            }
            Err(_) if is_dir && !slash => self.redirect_to_directory(index),
            Err(_) if is_dir => self.decide_directory(index, full, reads),
            Err(error) => Task::Reply(status_of(&error)),
        }
    }

    /// Whether who asks may change a file but not read it, so that a copy elsewhere would give it to
    /// him. A collection takes its password file along.
    fn is_guarded(&mut self, index: usize, full: &Path, changes: &Path) -> bool {
        let full = without_slash(full.to_owned());
        if self.cx.options.config.global_auth_file.is_some() || full.is_dir() {
            return false;
        }
        let passwords = resolve::password_file(&self.cx.options.config, &full, false);
        if passwords == changes || self.stays_in_directory(index) {
            return false;
        }
        match self.cx.files.get(&passwords) {
            Ok(reading) => !self.is_known_to_both(index, changes, &reading),
            Err(error) => !is_absence(&error),
        }
    }

    /// Whether the user who was let in by the password file `granting` has the same password in
    /// `other`.
    fn is_known_to_both(&mut self, index: usize, granting: &Path, other: &Known) -> bool {
        let Ok(granting) = self.cx.files.get(granting) else { return false };
        let domain = self.cx.options.config.auth_domain.as_bytes();
        let conn = self.conns.get(index).and_then(Option::as_ref);
        let Some(exchange) = conn.and_then(|conn| conn.exchange.as_deref()) else { return false };
        let hash = |file: &Known| {
            let bytes = content_of(file).ok()?;
            digest::find_ha1(&bytes, domain, &exchange.user)
        };
        hash(&granting).is_some_and(|known| hash(other) == Some(known))
    }

    /// Whether the Destination lies in the same directory as the path of the request.
    fn stays_in_directory(&mut self, index: usize) -> bool {
        let Some(exchange) = self.exchange(index) else { return false };
        let head = exchange.buf.get(..exchange.head.len).unwrap_or_default();
        let destination = exchange.head.value(head, "destination").unwrap_or_default();
        let Ok(target) = uri::split_target(destination) else { return false };
        let mut path = vec![0; target.path.len()];
        let Ok(len) = uri::decode_path(target.path, &mut path) else { return false };
        let directory = |path: &[u8]| {
            let path = path.strip_suffix(b"/").unwrap_or(path);
            memchr::memrchr(b'/', path).map(|slash| path[..slash].to_vec())
        };
        directory(&path[..len]) == directory(&exchange.path)
    }

    /// Spares the next request for the same path most of the work, unless it takes a password.
    fn remember(&mut self, index: usize, file: PathBuf, passwords: PathBuf) {
        let conn = self.conns.get(index).and_then(Option::as_ref);
        let Some(exchange) = conn.and_then(|conn| conn.exchange.as_deref()) else { return };
        if exchange.granted.is_none() {
            self.cx.files.shortcuts.add(&exchange.path, file, passwords);
        }
    }

    fn decide_file(&mut self, index: usize, full: &Path, known: Entry, reads: bool) -> Task {
        if is_lua_page(full) {
            // Their source must not be shown.
            return Task::Reply(501);
        }
        if !reads {
            return self.wrong_method(index);
        }
        if self.cx.options.config.ssi_pattern.is_some() {
            let Some(exchange) = self.exchange(index) else { return Task::Reply(500) };
            let mut path = exchange.path.clone();
            if path.ends_with(b"/") {
                path.extend_from_slice(full.file_name().unwrap_or_default().as_bytes());
            }
            if self.has_tags(full, &path) {
                return Task::Page(known, full.to_owned(), path);
            }
        }
        if self.cx.options.config.enable_precompressed {
            return Task::File(self.negotiate(index, full, known));
        }
        Task::File(known.into())
    }

    /// The form of a file that the client likes best, of those that are stored beside it.
    fn negotiate(&mut self, index: usize, full: &Path, plain: Entry) -> Representation {
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
        let Some(exchange) = self.exchange(index) else { return plain.into() };
        let head = exchange.buf.get(..exchange.head.len).unwrap_or_default();
        let accepted = Accepted::read(&exchange.head, head);
        let choose = |has_brotli, has_gzip| accepted.choose(has_brotli, has_gzip);
        Representation::negotiate(plain, brotli, gzip, choose)
    }

    fn decide_directory(&mut self, index: usize, full: PathBuf, reads: bool) -> Task {
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
            if let Some(script) = self.script(index, &page, Vec::new(), name.as_bytes(), &found) {
                return self.decide_script(index, script, reads);
            }
            if let Ok(known) = found {
                return self.decide_file(index, &page, known, reads);
            }
        }
        if !self.cx.options.config.enable_directory_listing {
            return Task::Reply(403);
        }
        if !reads {
            return self.wrong_method(index);
        }
        Task::List(full)
    }

    /// 301 to the same path with a slash, so that relative links of the page work.
    fn redirect_to_directory(&mut self, index: usize) -> Task {
        let Some(exchange) = self.exchange(index) else { return Task::Reply(500) };
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

    /// Lets a request pass whose user is known to the password file, and any if there is no such
    /// file and none is `required`.
    fn authorise(&mut self, index: usize, file: &Path, required: bool) -> Result<(), Task> {
        let exchange = self.exchange(index);
        if exchange.is_some_and(|exchange| exchange.granted.as_deref() == Some(file)) {
            return Ok(());
        }
        let passwords = match self.cx.files.get(file) {
            Ok(known) => known,
            Err(error) if is_absence(&error) && !required => return Ok(()),
            Err(error) => return Err(self.refuse_everybody(index, file, &error)),
        };
        let bytes = match content_of(&passwords) {
            Ok(bytes) => bytes,
            Err(error) => return Err(self.refuse_everybody(index, file, &error)),
        };
        let now = u64::from(self.cx.clock.now) / 1000;
        if self.cx.nonces.is_none() {
            self.cx.nonces = Nonces::new(NONCE_LIFETIME).ok();
        }
        let conn = self.conns.get_mut(index).and_then(Option::as_mut);
        let exchange = conn.and_then(|conn| conn.exchange.as_deref_mut());
        let (Some(exchange), Some(nonces)) = (exchange, self.cx.nonces.as_mut()) else {
            return Err(Task::Reply(503));
        };
        if exchange.redirections > 0 {
            // The client has answered for another path: it has to ask for this one itself.
            return Err(Task::Reply(exchange.redirect_to_target()));
        }
        let domain = &self.cx.options.config.auth_domain;
        match judge(exchange, &bytes, domain, nonces, now) {
            Verdict::Granted { user } => {
                self.log_user(index, &user);
                if let Some(exchange) = self.exchange(index) {
                    exchange.user = user.to_vec();
                    exchange.granted = Some(file.to_owned());
                    exchange.spent = true;
                }
                Ok(())
            }
            Verdict::Denied => Err(self.challenge(index, false)),
            Verdict::Stale => Err(self.challenge(index, true)),
        }
    }

    /// Whether who asks has been let in where this file is.
    pub(super) fn may_see(&mut self, index: usize, full: &Path) -> bool {
        let file = resolve::password_file(&self.cx.options.config, full, false);
        let granted = self.exchange(index).and_then(|exchange| exchange.granted.as_ref());
        if granted == Some(&file) {
            return true;
        }
        self.cx.files.get(&file).is_err_and(|error| is_absence(&error))
    }

    /// Passwords that cannot be read let nobody in.
    fn refuse_everybody(&mut self, index: usize, file: &Path, error: &io::Error) -> Task {
        let name = crate::log::shown(file);
        let why = match error.kind() {
            ErrorKind::InvalidInput => "it leads to no file".to_owned(),
            _ => error.to_string(),
        };
        self.complain(Some(index), &format!("cannot read passwords from {name}: {why}"));
        self.challenge(index, false)
    }

    /// 401: asks for a name and a password.
    fn challenge(&mut self, index: usize, stale: bool) -> Task {
        let now = u64::from(self.cx.clock.now) / 1000;
        if self.cx.nonces.is_none() {
            self.cx.nonces = Nonces::new(NONCE_LIFETIME).ok();
        }
        let Some(nonces) = self.cx.nonces.as_mut() else { return Task::Reply(503) };
        let nonce = nonces.issue(now);
        let mut field = Vec::new();
        digest::challenge(&mut field, &self.cx.options.config.auth_domain, &nonce, stale);
        if let Some(exchange) = self.exchange(index) {
            exchange.fields.extend_from_slice(&field);
        }
        Task::Reply(401)
    }

    /// RFC 9110, section 15.5.6: 405 says what is allowed.
    pub(super) fn wrong_method(&mut self, index: usize) -> Task {
        let with_writing = self.cx.options.config.dav_auth_file.is_some();
        if let Some(exchange) = self.exchange(index) {
            dav::write_allow(&mut exchange.fields, with_writing, b"");
        }
        Task::Reply(405)
    }

    /// What WebDAV can do here depends on whether anybody may write.
    fn tell_options(&mut self, index: usize) -> Task {
        let with_writing = self.cx.options.config.dav_auth_file.is_some();
        if let Some(Exchange { fields, .. }) = self.exchange(index) {
            dav::write_allow(fields, with_writing, b"");
            // Some clients of Microsoft try another protocol unless they are told.
            let classes: &[u8] = if with_writing { b"DAV: 1, 2\r\n" } else { b"DAV: 1\r\n" };
            fields.extend_from_slice(classes);
            fields.extend_from_slice(b"MS-Author-Via: DAV\r\n");
        }
        Task::Reply(200)
    }
}

/// Whether a file is a page of Lua, by its name.
pub(super) fn is_lua_page(full: &Path) -> bool {
    full.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("lp"))
}

/// Whether a path is longer than any file's.
fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw_os_error) == Some(Errno::NAMETOOLONG)
}

/// Judges what a request says of its user.
fn judge(
    exchange: &Exchange,
    passwords: &[u8],
    domain: &str,
    nonces: &mut Nonces,
    now: u64,
) -> Verdict {
    let head = exchange.buf.get(..exchange.head.len).unwrap_or_default();
    let mut fields = exchange
        .head
        .pairs(head)
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"authorization"))
        .map(|(_, value)| value);
    // Of two answers it is not known which one counts.
    let (Some(authorization), None) = (fields.next(), fields.next()) else {
        return Verdict::Denied;
    };
    let request = digest::Request {
        method: head.get(exchange.head.method.range()).unwrap_or_default(),
        target: head.get(exchange.head.target.range()).unwrap_or_default(),
    };
    let nonces = Some(nonces).filter(|_| !exchange.spent);
    digest::check(authorization, request, domain, passwords, nonces, now)
}

/// All bytes of a small file.
fn content_of(known: &Known) -> io::Result<Cow<'_, [u8]>> {
    match &known.content {
        Content::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
        Content::Open(file) => {
            let mut bytes = Vec::new();
            let len = usize::try_from(known.len).unwrap_or(usize::MAX);
            bytes.try_reserve_exact(len)?;
            bytes.resize(len, 0);
            file.read_exact_at(&mut bytes, 0)?;
            Ok(Cow::Owned(bytes))
        }
    }
}

fn without_slash(path: PathBuf) -> PathBuf {
    let mut bytes = path.into_os_string().into_vec();
    while bytes.len() > 1 && bytes.ends_with(b"/") {
        bytes.pop();
    }
    OsString::from_vec(bytes).into()
}

/// RFC 3986, section 3.3: what may stand in a path stays, all else is escaped.
pub(super) fn write_escaped_path(path: &[u8], out: &mut Vec<u8>) {
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
