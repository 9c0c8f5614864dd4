//! Pages with server-side includes: each is sent as it is put together, no faster than the client
//! takes it, and a program that is included holds up nobody but the page.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::connection::{Conn, Phase};
use super::context::Context;
use super::sending::CHANGED_MEANWHILE;
use super::step::Flow;
use crate::cgi::header::{self, Outcome};
use crate::cgi::launch::Launch;
use crate::cgi::table::Output;
use crate::files::cache::{Content, Entry};
use crate::files::resolve;
use crate::files::ssi::{self, Directive, Found, MAX_TAG};
use crate::http::outlet::Outlet;
use crate::http::uri;
use crate::log::shown;
use crate::site::{Site, is_lua_page, write_escaped_path};

/// Pages in pages, and tags in one answer.
const DEPTH: usize = 16;
const TAGS: usize = 1_000;
/// Bytes of a page that are looked at in one go.
const PIECE: usize = 16 * 1024;
/// While more than this waits to be sent, the page waits.
const HIGH_WATER: usize = 64 * 1024;

/// A page on its way.
pub struct Page {
    outlet: Outlet,
    /// The page, and those within it that are begun; the last one goes on.
    levels: Vec<Level>,
    tags: usize,
    part: Option<Part>,
}

/// One file.
struct Level {
    known: Entry,
    file: PathBuf,
    /// What it is for clients, or would be.
    path: Vec<u8>,
    /// It is searched for tags.
    has_tags: bool,
    offset: u64,
    /// What was read and is not sent.
    buf: Vec<u8>,
    start: usize,
}

/// A program whose output is part of the page.
struct Part {
    program: usize,
    /// The output so far, while its head has not ended; a command's has none.
    head: Option<Vec<u8>>,
}

/// What comes next in a page.
enum Next {
    Text(Range<usize>),
    Tag(Range<usize>),
    End,
    /// The file is no longer what it was when it was begun, or cannot be read.
    Broken,
}

/// How far a page is.
enum Progress {
    /// The rest has to wait.
    Waits,
    Complete,
    Broken,
}

impl Page {
    /// The program that the page waits for.
    pub fn program(&self) -> Option<usize> {
        self.part.as_ref().map(|part| part.program)
    }
}

impl Level {
    fn new(known: Entry, file: PathBuf, path: Vec<u8>, has_tags: bool) -> Level {
        Level { known, file, path, has_tags, offset: 0, buf: Vec::new(), start: 0 }
    }

    /// The next piece, as a place in `buf`.
    fn next(&mut self) -> Next {
        loop {
            let ended = self.offset >= self.known.len;
            let input = &self.buf[self.start..];
            let found = match self.has_tags {
                true => ssi::scan(input, ended),
                false if input.is_empty() => Found::More,
                false => Found::Text(input.len()),
            };
            let at = self.start;
            match found {
                Found::Text(len) => {
                    self.start += len;
                    return Next::Text(at..at + len);
                }
                Found::Tag(len, _) => {
                    self.start += len;
                    return Next::Tag(at..at + len);
                }
                Found::More if ended => return Next::End,
                Found::More => match self.read() {
                    Ok(()) => {}
                    Err(_) => return Next::Broken,
                },
            }
        }
    }

    fn read(&mut self) -> io::Result<()> {
        self.buf.drain(..self.start);
        self.start = 0;
        if !self.known.is_unchanged()? {
            return Err(ErrorKind::InvalidData.into());
        }
        let left = usize::try_from(self.known.len - self.offset).unwrap_or(usize::MAX);
        let len = left.min(PIECE.max(MAX_TAG));
        let before = self.buf.len();
        let count = match &self.known.content {
            Content::Bytes(bytes) => {
                let at = usize::try_from(self.offset).unwrap_or(usize::MAX);
                let piece = bytes.get(at..at.saturating_add(len)).unwrap_or_default();
                self.buf.extend_from_slice(piece);
                piece.len()
            }
            Content::Open(file) => {
                self.buf.resize(before + len, 0);
                let read = file.read_at(&mut self.buf[before..], self.offset);
                self.buf.truncate(before + *read.as_ref().unwrap_or(&0));
                read?
            }
        };
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.offset += count as u64;
        Ok(())
    }
}

impl Context {
    /// A page needs its program no more.
    pub(super) fn leave_page(&mut self, page: &Page) {
        if let Some(program) = page.program() {
            self.programs.release(program, false, self.clock.now);
        }
    }

    /// Whether a file is searched for tags.
    pub fn has_tags(&self, full: &Path, path: &[u8]) -> bool {
        let pattern = self.options.config.ssi_pattern.as_deref();
        pattern.is_some_and(|pattern| resolve::matches(pattern, full, path))
    }
}

impl Conn {
    /// Starts a program whose output becomes part of a page.
    fn start_included(
        &mut self,
        cx: &mut Context,
        file: PathBuf,
        name: Vec<u8>,
        info: Vec<u8>,
        query: &[u8],
    ) -> Result<usize, &'static str> {
        let Some(exchange) = self.exchange.as_deref_mut() else { return Err("no request") };
        let may_run = Site { exchange, cx }.may_run(&file);
        may_run.map_err(|_| "a program that may not be run")?;
        let launch = Launch { file: &file, name: &name, info: &info, query, ..Launch::default() };
        self.launch(cx, &launch).map_err(|_| "a program that cannot be run")
    }

    /// Starts a shell command of the page `file`.
    fn start_command(
        &mut self,
        cx: &mut Context,
        file: &Path,
        name: &[u8],
        command: &[u8],
    ) -> Result<usize, &'static str> {
        let command = Some(Path::new(OsStr::from_bytes(command)));
        let launch = Launch { file, name, command, ..Launch::default() };
        self.launch(cx, &launch).map_err(|_| "a command that cannot be run")
    }

    /// Begins to send a page. `path`: what it is for clients.
    pub(super) fn begin_expansion(
        &mut self,
        cx: &mut Context,
        known: Entry,
        file: PathBuf,
        path: Vec<u8>,
    ) -> Flow {
        let Some(outlet) = self.begin_stream(cx, 200, known.media_type()) else {
            return Flow::Leave;
        };
        self.phase = Phase::Relaying;
        let Some(exchange) = self.exchange.as_deref_mut() else { return Flow::Leave };
        let levels = vec![Level::new(known, file, path, true)];
        exchange.page = Some(Box::new(Page { outlet, levels, tags: 0, part: None }));
        Flow::Again
    }

    /// Puts the next pieces of the page into the outbox.
    pub(super) fn send_page(&mut self, cx: &mut Context) -> Flow {
        let Some(mut page) = self.exchange.as_deref_mut().and_then(|exchange| exchange.page.take())
        else {
            return Flow::Leave;
        };
        let progress = self.put_together(cx, &mut page);
        let outlet = page.outlet;
        match self.exchange.as_deref_mut() {
            Some(exchange) => exchange.page = Some(page),
            None => {
                cx.leave_page(&page);
                return Flow::Leave;
            }
        }
        match progress {
            Progress::Waits => return Flow::Leave,
            Progress::Complete => {}
            Progress::Broken => return self.cut_off(cx, outlet, CHANGED_MEANWHILE),
        }
        let persistent = self
            .exchange
            .as_deref_mut()
            .is_some_and(|exchange| exchange.head.persistent && !exchange.last);
        self.finish_exchange(cx, persistent);
        Flow::Again
    }

    fn put_together(&mut self, cx: &mut Context, page: &mut Page) -> Progress {
        loop {
            if !self.has_room_for_more(cx) {
                return Progress::Waits;
            }
            if page.outlet == Outlet::Nothing {
                return Progress::Complete;
            }
            if page.part.is_some() {
                if !self.take_part(cx, page) {
                    return Progress::Waits;
                }
                continue;
            }
            let Some(level) = page.levels.last_mut() else {
                let out = self.outbox(cx);
                page.outlet.finish(&mut out.bytes);
                return Progress::Complete;
            };
            match level.next() {
                Next::Text(piece) => {
                    // Short text may be a tag without an end, which took a search to find out.
                    cx.turn.bytes = cx.turn.bytes.saturating_sub(piece.len().max(MAX_TAG));
                    let piece = level.buf.get(piece).unwrap_or_default();
                    let out = self.outbox(cx);
                    page.outlet.write(piece, &mut out.bytes);
                }
                Next::Tag(tag) => {
                    let tag = level.buf.get(tag).unwrap_or_default().to_vec();
                    // A turn has only so many tags: each may ask the file system.
                    cx.turn.bytes = cx.turn.bytes.saturating_sub(PIECE);
                    if let Err(why) = self.obey(cx, page, &tag) {
                        let name = page.levels.last().map(|level| shown(&level.file));
                        let (name, tag) =
                            (name.unwrap_or_default(), shown(OsStr::from_bytes(&tag)));
                        self.complain(cx, &format!("{name}: {why}: {tag}"));
                    }
                }
                Next::Broken => return Progress::Broken,
                Next::End => {
                    page.levels.pop();
                }
            }
        }
    }

    /// Whether the connection may be given more to send in this turn.
    fn has_room_for_more(&mut self, cx: &mut Context) -> bool {
        if Some(&mut *self).is_none_or(|conn| conn.backlog() >= HIGH_WATER)
            && (!self.flush(cx) || (self.backlog() >= HIGH_WATER))
        {
            return false;
        }
        if cx.turn.bytes == 0 {
            self.make_ready(cx);
        }
        cx.turn.bytes > 0
    }

    /// Moves output of the program that is included. False if there is none for now.
    fn take_part(&mut self, cx: &mut Context, page: &mut Page) -> bool {
        let Some(mut part) = page.part.take() else { return true };
        if cx.programs.is_expired(part.program) {
            cx.programs.release(part.program, false, cx.clock.now);
            return true;
        }
        let mut buf = std::mem::take(&mut cx.programs.buf);
        let output = cx.programs.read(part.program, &mut buf, cx.clock.now);
        let (piece, ended) = match output {
            Output::Wait => {
                cx.programs.buf = buf;
                page.part = Some(part);
                return false;
            }
            Output::Got(count) => (buf.get(..count).unwrap_or_default(), false),
            Output::End => (&[][..], true),
        };
        // It may have changed files.
        cx.files.look_again();
        cx.turn.bytes = cx.turn.bytes.saturating_sub(piece.len());
        let mut failure = None;
        let content = match &mut part.head {
            None => piece.to_vec(),
            Some(head) => {
                head.extend_from_slice(piece);
                match header::parse(head, ended) {
                    Outcome::Partial => Vec::new(),
                    Outcome::Bad(why) => {
                        failure = Some(why);
                        Vec::new()
                    }
                    Outcome::Complete(parsed) => {
                        let rest = head.split_off(parsed.len.min(head.len()));
                        part.head = None;
                        rest
                    }
                }
            }
        };
        cx.programs.buf = buf;
        {
            let out = self.outbox(cx);
            page.outlet.write(&content, &mut out.bytes);
        }
        if let Some(why) = failure {
            let name = cx.programs.name(part.program);
            self.complain(cx, &format!("{name}: {why}"));
        }
        if ended || failure.is_some() {
            cx.programs.release(part.program, ended, cx.clock.now);
        } else {
            page.part = Some(part);
        }
        true
    }

    fn obey(&mut self, cx: &mut Context, page: &mut Page, tag: &[u8]) -> Result<(), &'static str> {
        page.tags += 1;
        if page.tags > TAGS {
            // Said once, not for each of them.
            return if page.tags == TAGS + 1 { Err("too many tags in one page") } else { Ok(()) };
        }
        let Found::Tag(_, directive) = ssi::scan(tag, true) else { return Ok(()) };
        let Some(level) = page.levels.last() else { return Ok(()) };
        let trusted = cx.options.config.enable_ssi_exec;
        match directive? {
            Directive::Virtual(target) => {
                let (path, query) = locate(&level.path, target).ok_or("no path")?;
                let full = resolve::full_path(&cx.options.config, &path).ok_or("no path")?;
                self.include(cx, page, full, path, Some(&query))
            }
            Directive::File(name) => {
                if name.starts_with(b"/") || name.split(|b| *b == b'/').any(|part| part == b"..") {
                    return Err("a file that is not below the page");
                }
                // One spelling for each file: patterns of hidden ones go by it.
                let parts = name.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b"."));
                let name = parts.collect::<Vec<_>>().join(&b'/');
                let name = Path::new(std::ffi::OsStr::from_bytes(&name));
                let folder = level.file.parent().unwrap_or(Path::new(""));
                let path = [folder_of(&level.path), name.as_os_str().as_bytes()].concat();
                self.include(cx, page, folder.join(name), path, None)
            }
            Directive::Absolute(_) | Directive::Command(_) if !trusted => {
                Err("enable_ssi_exec is not yes")
            }
            Directive::Absolute(file) => {
                let file = Path::new(std::ffi::OsStr::from_bytes(file));
                let path = level.path.clone();
                self.include(cx, page, file.to_owned(), path, None)
            }
            Directive::Command(command) => {
                let (file, path) = (level.file.clone(), level.path.clone());
                let program = self.start_command(cx, &file, &path, command)?;
                page.part = Some(Part { program, head: None });
                Ok(())
            }
        }
    }

    /// Puts a file into a page. `query`: it is asked for by its path, and may be a program.
    fn include(
        &mut self,
        cx: &mut Context,
        page: &mut Page,
        full: PathBuf,
        path: Vec<u8>,
        query: Option<&[u8]>,
    ) -> Result<(), &'static str> {
        if page.levels.len() >= DEPTH {
            return Err("pages in too many pages");
        }
        if page.levels.iter().any(|level| level.file == full) {
            return Err("a page in itself");
        }
        if resolve::is_hidden(&cx.options.config, &full) {
            return Err("a hidden file");
        }
        let found = cx.files.get(&full);
        let (mut full, mut info) = (full, Vec::new());
        if found.is_err()
            && let Some((file, rest)) = resolve::split_at_file(&full)
        {
            (full, info) = (file, rest);
        }
        cx.look_at_secrets();
        if resolve::is_hidden(&cx.options.config, &full) || cx.files.secrets.hides_at(&full) {
            return Err("a hidden file");
        }
        let Some(exchange) = self.exchange.as_deref_mut() else { return Err("no request") };
        if !(Site { exchange, cx }).may_see(&full) {
            return Err("a file that asks for another password");
        }
        if is_lua_page(&full) {
            return Err("a page of Lua");
        }
        let name = path.strip_suffix(info.as_slice()).unwrap_or(&path).to_vec();
        if resolve::matches(&cx.options.config.cgi_pattern, &full, &name) {
            if !cx.options.config.cgi_runs {
                return Err("a program, and none is run");
            }
            let Some(query) = query else { return Err("a program is included by virtual") };
            let program = self.start_included(cx, full, name, info, query)?;
            page.part = Some(Part { program, head: Some(Vec::new()) });
            return Ok(());
        }
        let known = found.ok().ok_or("no such file")?;
        let has_tags = cx.has_tags(&full, &path);
        page.levels.push(Level::new(known, full, path, has_tags));
        Ok(())
    }
}

/// Where a page is, with a slash at the end.
fn folder_of(path: &[u8]) -> &[u8] {
    memchr::memrchr(b'/', path).map_or(b"/", |slash| &path[..=slash])
}

/// The decoded path, and the query, that `target` means in the page at `path`.
fn locate(path: &[u8], target: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (target, query) = match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &[][..]),
    };
    let mut raw = Vec::new();
    if !target.starts_with(b"/") {
        write_escaped_path(folder_of(path), &mut raw);
    }
    raw.extend_from_slice(target);
    let mut decoded = vec![0; raw.len()];
    let len = uri::decode_path(&raw, &mut decoded).ok()?;
    decoded.truncate(len);
    Some((decoded, query.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::locate;

    #[test]
    fn a_target_is_relative_to_its_page() {
        let table = [
            ("/a/b.shtml", "c", Some("/a/c")),
            ("/a/b.shtml", "/c", Some("/c")),
            ("/a/b.shtml", "../c", Some("/c")),
            ("/a/b.shtml", "../../../c", Some("/c")),
            ("/a/b.shtml", "c%20d?e=/f", Some("/a/c d")),
            ("/50%/b.shtml", "c", Some("/50%/c")),
            ("/a/b.shtml", "%2e%2e/c", Some("/c")),
            ("/a/b.shtml", "%", None),
            ("/a/b.shtml", "%00", None),
        ];
        for (path, target, wanted) in table {
            let found = locate(path.as_bytes(), target.as_bytes()).map(|(path, _)| path);
            assert_eq!(found.as_deref(), wanted.map(str::as_bytes), "{path} {target}");
        }
        let (_, query) = locate(b"/", b"c?e=/f").expect("a path");
        assert_eq!(query, b"e=/f");
    }
}
