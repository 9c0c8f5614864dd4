//! Pages with server-side includes. Each is sent as it is put together, no faster than the client
//! takes it, and an included CGI program delays only its own page.
//!
//! Refuses to know the syntax of tags, which is in `files/ssi`.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::file::read_at;
use super::head::write_stream_head;
use super::program::{start_command, start_included};
use super::{Begun, Broken, Ended, Progress, Source};
use crate::cgi::header::{self, Parsed};
use crate::cgi::table::{Number, Output};
use crate::exchange::context::Context;
use crate::exchange::outbox::Outbox;
use crate::exchange::request::Request;
use crate::files::cache::{Content, Entry, is_failure};
use crate::files::resolve;
use crate::files::ssi::{self, Directive, Found, MAX_TAG};
use crate::http::outlet::Outlet;
use crate::http::uri;
use crate::log::shown;
use crate::site::{Site, has_tags, is_lua_page, write_escaped_path};

/// The largest number of pages within pages.
const DEPTH: usize = 16;
/// The largest number of tags in one answer.
const TAGS: usize = 1_000;
/// The number of bytes of a page that are read at once.
const READ: usize = 16 * 1024;
/// A page that is being sent.
pub struct Page {
    outlet: Outlet,
    /// The page, and the pages within it that have begun. The last one is continued.
    levels: Vec<Level>,
    tags: usize,
    part: Option<Part>,
}

/// One file of a page.
struct Level {
    known: Entry,
    file: PathBuf,
    /// The path of the file for clients, or the one that it would have.
    path: Vec<u8>,
    /// Set if the file is searched for tags.
    has_tags: bool,
    offset: u64,
    /// The bytes that are read and not sent.
    buf: Vec<u8>,
    start: usize,
}

/// A CGI program whose output is part of the page.
struct Part {
    program: Number,
    /// The output before the end of its head; `None` behind it, and for a command, which has no
    /// head.
    head: Option<Vec<u8>>,
}

/// Why a tag is not obeyed.
enum Trouble {
    Tag(&'static str),
    /// The file system fails for this file.
    Failure(PathBuf, io::Error),
}

impl From<&'static str> for Trouble {
    fn from(why: &'static str) -> Trouble {
        Trouble::Tag(why)
    }
}

/// The next piece of a page.
enum Next {
    Text(Range<usize>),
    Tag(Range<usize>),
    End,
    /// The file has changed since it was begun, or cannot be read.
    Broken(io::Error),
}

impl Level {
    /// Creates the level of a file that has not been read.
    fn new(known: Entry, file: PathBuf, path: Vec<u8>, has_tags: bool) -> Level {
        Level { known, file, path, has_tags, offset: 0, buf: Vec::new(), start: 0 }
    }

    /// Returns the next piece, as a place in `buf`.
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
                    Err(error) => return Next::Broken(error),
                },
            }
        }
    }

    /// Reads more bytes of the file.
    fn read(&mut self) -> io::Result<()> {
        self.buf.drain(..self.start);
        self.start = 0;
        if !self.known.is_unchanged()? {
            return Err(ErrorKind::InvalidData.into());
        }
        let left = usize::try_from(self.known.len - self.offset).unwrap_or(usize::MAX);
        let len = left.min(READ.max(MAX_TAG));
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
                let read = read_at(file, &mut self.buf[before..], self.offset);
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

/// Begins to send a page. `path` is its path for clients.
pub fn begin(
    known: Entry,
    file: PathBuf,
    path: Vec<u8>,
    request: &mut Request,
    out: &mut Outbox,
    cx: &mut Context,
) -> Begun {
    let date = cx.clock.date();
    let extra = &cx.options.config.extra_headers;
    let media_type = known.media_type();
    let outlet = write_stream_head(request, 200, media_type, date, extra, &mut out.bytes);
    let levels = vec![Level::new(known, file, path, true)];
    Begun::Source(Source::Page(Box::new(Page { outlet, levels, tags: 0, part: None })))
}

impl Page {
    /// Returns the number of the CGI program that the page waits for.
    pub fn program(&self) -> Option<Number> {
        self.part.as_ref().map(|part| part.program)
    }

    /// Gives the page up, and its program.
    pub fn stop(&self, cx: &mut Context) {
        if let Some(program) = self.program() {
            cx.programs.release(program, false, cx.clock.now);
        }
    }

    /// Puts the next piece of the page into the outbox.
    pub fn produce(
        mut self: Box<Self>,
        request: &mut Request,
        out: &mut Outbox,
        cx: &mut Context,
    ) -> Progress {
        if self.outlet == Outlet::Nothing {
            self.stop(cx);
            return Progress::Ended(Ended::Complete);
        }
        if self.part.is_some() {
            return match self.take_part(request, out, cx) {
                true => Progress::More(Source::Page(self)),
                false => Progress::Waits(Source::Page(self)),
            };
        }
        let Some(level) = self.levels.last_mut() else {
            self.outlet.finish(&mut out.bytes);
            return Progress::Ended(Ended::Complete);
        };
        match level.next() {
            Next::Text(piece) => {
                // Short text may be a tag without an end, which took a search to find out.
                cx.turn.spend(piece.len().max(MAX_TAG));
                let piece = level.buf.get(piece).unwrap_or_default();
                self.outlet.write(piece, &mut out.bytes);
            }
            Next::Tag(tag) => {
                let tag = level.buf.get(tag).unwrap_or_default().to_vec();
                // The number of tags in a turn is bounded, since each may ask the file system.
                cx.turn.spend(READ);
                match self.obey(&tag, request, cx) {
                    Ok(()) => {}
                    Err(Trouble::Tag(why)) => {
                        let name = self.levels.last().map(|level| shown(&level.file));
                        let name = name.unwrap_or_default();
                        let tag = shown(OsStr::from_bytes(&tag));
                        cx.complain_of(request.client, &format!("{name}: {why}: {tag}"));
                    }
                    // A page without what the file system fails to give would count as a whole one.
                    Err(Trouble::Failure(file, error)) => {
                        cx.refusal(request.client, &file, &error);
                        let resets = self.outlet == Outlet::ToClose;
                        return Progress::Ended(Ended::Broken(Broken { why: "".into(), resets }));
                    }
                }
            }
            Next::Broken(error) => {
                let resets = self.outlet == Outlet::ToClose;
                return Progress::Ended(Ended::Broken(Broken {
                    resets,
                    ..Broken::of_file(&error)
                }));
            }
            Next::End => {
                self.levels.pop();
            }
        }
        Progress::More(Source::Page(self))
    }

    /// Moves output of the included program. Returns false if there is none for now.
    fn take_part(&mut self, request: &Request, out: &mut Outbox, cx: &mut Context) -> bool {
        let Some(mut part) = self.part.take() else { return true };
        if cx.programs.is_expired(part.program) {
            cx.programs.release(part.program, false, cx.clock.now);
            return true;
        }
        let mut buf = std::mem::take(&mut cx.programs.buf);
        let output = cx.programs.read(part.program, &mut buf, cx.clock.now);
        let (piece, ended) = match output {
            Output::Wait => {
                cx.programs.buf = buf;
                self.part = Some(part);
                return false;
            }
            Output::Got(count) => (buf.get(..count).unwrap_or_default(), false),
            Output::End => (&[][..], true),
        };
        cx.files.look_again();
        cx.turn.spend(piece.len());
        let mut failure = None;
        let content = match &mut part.head {
            None => piece.to_vec(),
            Some(head) => {
                head.extend_from_slice(piece);
                match header::parse(head, ended) {
                    Parsed::Partial => Vec::new(),
                    Parsed::Bad(why) => {
                        failure = Some(why);
                        Vec::new()
                    }
                    Parsed::Complete(parsed) => {
                        let rest = head.split_off(parsed.len.min(head.len()));
                        part.head = None;
                        rest
                    }
                }
            }
        };
        cx.programs.buf = buf;
        self.outlet.write(&content, &mut out.bytes);
        if let Some(why) = failure {
            let name = cx.programs.name(part.program);
            cx.complain_of(request.client, &format!("{name}: {why}"));
        }
        if ended || failure.is_some() {
            cx.programs.release(part.program, ended, cx.clock.now);
        } else {
            self.part = Some(part);
        }
        true
    }

    /// Does what a tag says.
    fn obey(&mut self, tag: &[u8], request: &mut Request, cx: &mut Context) -> Result<(), Trouble> {
        self.tags += 1;
        if self.tags > TAGS {
            // This is reported once, and not for each further tag.
            return if self.tags == TAGS + 1 {
                Err("too many tags in one page".into())
            } else {
                Ok(())
            };
        }
        let Found::Tag(_, directive) = ssi::scan(tag, true) else { return Ok(()) };
        let Some(level) = self.levels.last() else { return Ok(()) };
        let trusted = cx.options.config.enable_ssi_exec;
        match directive? {
            Directive::Virtual(target) => {
                let (path, query) = locate(&level.path, target).ok_or("no path")?;
                let full = resolve::full_path(&cx.options.config, &path).ok_or("no path")?;
                self.include(full, path, Some(&query), request, cx)
            }
            Directive::File(name) => {
                if name.starts_with(b"/") || name.split(|b| *b == b'/').any(|part| part == b"..") {
                    return Err("a file that is not below the page".into());
                }
                // Each file gets a single spelling, since the patterns for hidden files compare it.
                let parts = name.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b"."));
                let name = parts.collect::<Vec<_>>().join(&b'/');
                let name = Path::new(OsStr::from_bytes(&name));
                let folder = level.file.parent().unwrap_or(Path::new(""));
                let path = [folder_of(&level.path), name.as_os_str().as_bytes()].concat();
                self.include(folder.join(name), path, None, request, cx)
            }
            Directive::Absolute(_) | Directive::Command(_) if !trusted => {
                Err("enable_ssi_exec is not yes".into())
            }
            Directive::Absolute(file) => {
                let file = Path::new(OsStr::from_bytes(file));
                let path = level.path.clone();
                self.include(file.to_owned(), path, None, request, cx)
            }
            Directive::Command(command) => {
                let (file, path) = (level.file.clone(), level.path.clone());
                let program = start_command(
                    &file,
                    &path,
                    Path::new(OsStr::from_bytes(command)),
                    request,
                    cx,
                )?;
                self.part = Some(Part { program, head: None });
                Ok(())
            }
        }
    }

    /// Begins a page within the page. `query` is set if the file is included by its path, in which
    /// case it may be a program.
    fn include(
        &mut self,
        full: PathBuf,
        path: Vec<u8>,
        query: Option<&[u8]>,
        request: &mut Request,
        cx: &mut Context,
    ) -> Result<(), Trouble> {
        if self.levels.len() >= DEPTH {
            return Err("pages in too many pages".into());
        }
        if self.levels.iter().any(|level| level.file == full) {
            return Err("a page in itself".into());
        }
        if resolve::is_hidden(&cx.options.config, &full) {
            return Err("a hidden file".into());
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
            return Err("a hidden file".into());
        }
        match (Site { request: &mut *request, cx: &mut *cx }).may_see(&full) {
            Ok(true) => {}
            Ok(false) => return Err("a file that asks for another password".into()),
            Err((file, error)) => return Err(Trouble::Failure(file, error)),
        }
        if is_lua_page(&full) {
            return Err("a page of Lua".into());
        }
        let name = path.strip_suffix(info.as_slice()).unwrap_or(&path).to_vec();
        if resolve::matches(&cx.options.config.cgi_pattern, &full, &name) {
            if !cx.options.config.cgi_runs {
                return Err("a program, and none is run".into());
            }
            let Some(query) = query else { return Err("a program is included by virtual".into()) };
            let program = start_included(&full, &name, &info, query, request, cx)?;
            self.part = Some(Part { program, head: Some(Vec::new()) });
            return Ok(());
        }
        let known = match found {
            Ok(known) => known,
            Err(error) if is_failure(&error) => return Err(Trouble::Failure(full, error)),
            Err(_) => return Err("no such file".into()),
        };
        let has_tags = has_tags(&cx.options.config, &full, &path);
        self.levels.push(Level::new(known, full, path, has_tags));
        Ok(())
    }
}

/// Returns the directory of a page, with a slash at the end.
fn folder_of(path: &[u8]) -> &[u8] {
    memchr::memrchr(b'/', path).map_or(b"/", |slash| &path[..=slash])
}

/// Returns the decoded path and the query that `target` means in the page at `path`.
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
