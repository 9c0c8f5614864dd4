//! The method PUT (RFC 9110, section 9.3.4), also with Content-Range (section 14.5). The content
//! goes into a file of its own, which takes the name of the target when it is complete.
//!
//! Decides whether an upload is allowed, at its head and once more at its end. Knows nothing of how
//! the content arrives.
//!
//! A machine that crashes may lose what was written in the last seconds: nothing is flushed to the
//! disk (`fsync`), since all other connections would have to wait for that.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use super::Env;
use super::appending::{self, Appending};
use super::locks::Keys;
use super::method::{MethodCall, Reply};
use super::patience::Patience;
use super::stamp::stamp;
use super::store;
use super::sweeping::Sweeper;
use super::target::{Home, Kind, Target};
use super::temporary::{Temporary, check_room, check_size, open_file};
use super::tree::{FILE_PIECE, FILE_PIECE_COST};
use crate::files::known::{LAST_DATE, modified_of};
use crate::http::request::Framing;
use crate::long_files::{LongFile, WriteBack, write_back_behind};

/// A PUT under way.
#[derive(Debug)]
pub struct Upload {
    request: MethodCall,
    /// The file that the content is written to; `None` once it is in its place.
    made: Option<Temporary>,
    /// The offset in that file of the next piece of content.
    position: u64,
    /// The part of the file that is being replaced.
    part: Option<Part>,
    /// Whether there was a file that the new one is to replace, and the way of that one to the disk.
    replaces: bool,
    write_back: WriteBack,
    /// The wait for another process that changes properties in the same directory, or for another
    /// client whose content is being added to the same file.
    patience: Patience,
}

/// A range of a file that the content replaces (RFC 9110, section 14.5).
#[derive(Debug)]
struct Part {
    start: u64,
    end: u64,
    /// The file as it was; `None` if there was none.
    old: Option<Metadata>,
    way: Way,
}

/// The way in which a part gets into its file.
#[derive(Debug)]
enum Way {
    /// A new file is made of the part and the rest of the old file. The ranges of that are still to
    /// be copied.
    Around(Option<LongFile>, Vec<(u64, u64)>),
    /// The part is added at the end of the file, which may be as long as it likes.
    Behind(LongFile, Option<(Appending, Keys)>),
}

impl Upload {
    /// Checks whether the upload is allowed, before its content arrives.
    pub fn begin(
        request: MethodCall,
        env: &Env<'_>,
        sweeper: &mut Sweeper,
    ) -> Result<Upload, Reply> {
        request.check_fields()?;
        let target = request.target(env)?;
        // PUT cannot make a collection (RFC 4918, section 9.7.2).
        let names_dir = request.path.ends_with(b"/");
        match target.kind {
            Kind::Dir(_) => return Err(405.into()),
            Kind::Other => return Err(403.into()),
            Kind::File(_) | Kind::Missing if names_dir => return Err(409.into()),
            Kind::File(_) | Kind::Missing => {}
        }
        let Some(home) = &target.home else { return Err(409.into()) };
        let part = match request.field("content-range") {
            Some(value) => Some(Part::new(value, &target)?),
            None => None,
        };
        request.may_change(env, &target, !target.exists())?;
        let announced = match (&part, request.head.framing) {
            (Some(part), _) => part.end - part.start,
            (None, Framing::Length(len)) => len,
            (None, Framing::Chunked | Framing::Empty) => 0,
        };
        let end = part.as_ref().map_or(announced, |part| part.end);
        if env.config.max_upload_bytes.is_some_and(|most| end > most) {
            return Err(413.into());
        }
        // A client learns now that its content has no room, and not when the disk is full.
        check_size(end)?;
        check_room(&home.dir, announced)?;
        sweeper.visit(&home.dir, env.unix);
        let made = Some(Temporary::create(&home.dir)?);
        let position = part.as_ref().map_or(0, Part::offset);
        let replaces = target.exists();
        let (write_back, patience) = (WriteBack::default(), Patience::default());
        Ok(Upload { request, made, position, part, replaces, write_back, patience })
    }

    /// Writes a piece of the content.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), Reply> {
        let end = self.position.saturating_add(piece.len() as u64);
        if self.part.as_ref().is_some_and(|part| end > part.offset() + (part.end - part.start)) {
            return Err(400.into());
        }
        self.write_at(piece, self.position)?;
        self.position = end;
        Ok(())
    }

    fn write_at(&self, piece: &[u8], position: u64) -> io::Result<()> {
        check_size(position.saturating_add(piece.len() as u64))?;
        let file = self.made()?.file();
        file.write_all_at(piece, position)?;
        if self.replaces {
            write_back_behind(file, position..position.saturating_add(piece.len() as u64));
        }
        Ok(())
    }

    /// Returns the file that the content is written to.
    fn made(&self) -> io::Result<&Temporary> {
        debug_assert!(self.made.is_some(), "an upload goes on that is in its place");
        self.made.as_ref().ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// Does the next portion of work after the last content. Returns the response once the file is
    /// in its place.
    pub fn advance(&mut self, env: &Env<'_>, budget: &mut usize) -> Result<Option<Reply>, Reply> {
        if let Some(part) = &self.part {
            if self.position != part.offset() + (part.end - part.start) {
                return Err(400.into());
            }
            if let Way::Behind(..) = part.way {
                return self.append(env, budget);
            }
        }
        if !self.fill_gaps(budget)? {
            return Ok(None);
        }
        // The target may have changed while the content arrived, so it is checked again.
        let target = self.target(env)?;
        if let Some(made) = self.made.as_ref().filter(|_| target.exists())
            && !self.write_back.advance(made.file(), budget)?
        {
            return Ok(None);
        }
        let Some(Home { dir, name }) = &target.home else { return Err(409.into()) };
        self.request.may_change(env, &target, !target.exists())?;
        let locked = (!target.exists()).then(|| store::lock_if_possible(dir)).transpose();
        let Ok(_lock) = locked else { return self.wait(env, budget) };
        let made = self.made.take().ok_or(Reply::from(500))?;
        let second = mtime(&self.request);
        stamp(made.file(), target.metadata(), second);
        if let Some(old) = target.metadata() {
            copy_owner_and_mode(made.file(), old);
        }
        let status = if target.exists() { 204 } else { 201 };
        let reply = stored(status, made.file(), second);
        made.publish(&dir.join(OsStr::from_bytes(name)), target.exists())?;
        if !target.exists() {
            store::forget(dir, env.unix, name);
        }
        Ok(Some(reply))
    }

    /// Looks at the target again. If the content is a part, the rest must be what it was.
    fn target(&self, env: &Env<'_>) -> Result<Target, Reply> {
        let target = self.request.target(env)?;
        if target.is_dir() {
            return Err(409.into());
        }
        match &self.part {
            Some(part) if !is_same(part.old.as_ref(), target.metadata()) => Err(412.into()),
            _ => Ok(target),
        }
    }

    /// Waits for another process.
    fn wait(&mut self, env: &Env<'_>, budget: &mut usize) -> Result<Option<Reply>, Reply> {
        *budget = 0;
        if self.patience.lasts(env.unix) { Ok(None) } else { Err(503.into()) }
    }

    /// Adds the content, which is complete, to the end of the file.
    fn append(&mut self, env: &Env<'_>, budget: &mut usize) -> Result<Option<Reply>, Reply> {
        if !self.is_appending() && !self.begin_to_append(env)? {
            return self.wait(env, budget);
        }
        let Upload { request, made: Some(made), part: Some(part), .. } = self else {
            return Err(500.into());
        };
        let Way::Behind(_, begun @ Some(_)) = &mut part.way else { return Err(500.into()) };
        if let Some((appending, _)) = begun
            && !appending.advance(made.file(), budget)?
        {
            return Ok(None);
        }
        // What is dropped from here on is cut off again.
        let Some((appending, keys)) = begun.take() else { return Err(500.into()) };
        let target = request.target(env)?;
        let id = |meta: &Metadata| (meta.dev(), meta.ino());
        if target.metadata().map(id) != part.old.as_ref().map(id) {
            return Err(412.into());
        }
        // The entity tag is no longer that of the conditions, but a lock may have come meanwhile.
        if let Some(lock) = target.blocked(env, &keys, false)? {
            return Err(Reply::locked(&lock.href));
        }
        let second = mtime(request);
        stamp(appending.file(), part.old.as_ref(), second);
        let reply = stored(204, appending.file(), second);
        appending.settle();
        Ok(Some(reply))
    }

    fn is_appending(&self) -> bool {
        let way = self.part.as_ref().map(|part| &part.way);
        matches!(way, Some(Way::Behind(_, Some(_))))
    }

    /// Checks the target again, and begins to add the content. Returns false while the content of
    /// another client is being added.
    fn begin_to_append(&mut self, env: &Env<'_>) -> Result<bool, Reply> {
        let Some(Part { start, end, old: Some(old), way: Way::Behind(file, _) }) = &self.part
        else {
            return Err(500.into());
        };
        let begun = match Appending::begin(file, old, self.made()?.file(), end - start) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == appending::CHANGED => {
                return Err(412.into());
            }
            begun => begun?,
        };
        let target = self.target(env)?;
        let keys = self.request.may_change(env, &target, false)?;
        if let Some(Part { way: Way::Behind(_, place), .. }) = &mut self.part {
            *place = Some((begun, keys));
        }
        Ok(true)
    }

    /// Copies the ranges of the old file outside of the part. Returns true once that is done.
    fn fill_gaps(&mut self, budget: &mut usize) -> io::Result<bool> {
        let mut buf = Vec::new();
        while *budget > 0 {
            let Some(Part { way: Way::Around(Some(old), gaps), .. }) = &mut self.part else {
                return Ok(true);
            };
            let Some((from, to)) = gaps.last_mut() else { return Ok(true) };
            if buf.is_empty() {
                buf.try_reserve_exact(FILE_PIECE)?;
                buf.resize(FILE_PIECE, 0);
            }
            let len = usize::try_from(*to - *from).unwrap_or(FILE_PIECE).min(FILE_PIECE);
            let count = old.read_at(&mut buf[..len], *from)?;
            let position = *from;
            *from += count as u64;
            if *from >= *to || count == 0 {
                gaps.pop();
            }
            // It is read, written, and sent on its way to the disk.
            *budget = budget.saturating_sub(2 * FILE_PIECE_COST);
            self.write_at(&buf[..count], position)?;
        }
        Ok(false)
    }
}

impl Part {
    /// Parses the Content-Range field, and opens the file that it is a part of.
    fn new(value: &[u8], target: &Target) -> Result<Part, Reply> {
        let (start, end) = content_range(value).ok_or(Reply::from(400))?;
        let old = target.metadata().cloned();
        let len = old.as_ref().map_or(0, Metadata::len);
        if start > len {
            // The file would have a hole.
            let fields = format!("Content-Range: bytes */{len}\r\n").into_bytes();
            return Err(Reply { fields, ..416.into() });
        }
        let way = match &target.home {
            _ if old.is_none() => Way::Around(None, Vec::new()),
            Some(home) if start == len => appending::open(&home.path())
                .filter(|file| is_same(old.as_ref(), file.metadata().ok().as_ref()))
                .map_or_else(
                    || around(&target.full, start, end, len),
                    |f| Ok(Way::Behind(LongFile::new(f), None)),
                )?,
            _ => around(&target.full, start, end, len)?,
        };
        Ok(Part { start, end, old, way })
    }

    /// Returns the offset of the part in the file that it is written to.
    fn offset(&self) -> u64 {
        match self.way {
            Way::Around(..) => self.start,
            Way::Behind(..) => 0,
        }
    }
}

/// Opens a file of which all but the bytes from `start` to `end` is copied.
fn around(path: &Path, start: u64, end: u64, len: u64) -> io::Result<Way> {
    let gaps = [(0, start), (end, len)].into_iter().filter(|(from, to)| from < to).collect();
    Ok(Way::Around(Some(LongFile::new(open_file(path)?)), gaps))
}

/// Returns whether a file is the same, and has not been written to.
fn is_same(a: Option<&Metadata>, b: Option<&Metadata>) -> bool {
    let look =
        |meta: &Metadata| (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
    a.map(look) == b.map(look)
}

/// Returns the time of last modification that the client names for the file, in seconds since 1970
/// (`X-OC-Mtime`, by which clients of ownCloud keep the times of their files). One that makes no
/// sense is ignored, as by a server that does not know the field.
fn mtime(request: &MethodCall) -> Option<u64> {
    let text = std::str::from_utf8(request.field("x-oc-mtime")?).ok()?.trim();
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let second = seconds.parse().ok().filter(|second| *second <= LAST_DATE)?;
    (is_number(seconds) && is_number(fraction)).then_some(second)
}

/// Returns the response to an upload, which tells whether the file has the time that the client has
/// named.
fn stored(status: u16, file: &File, second: Option<u64>) -> Reply {
    let has_time = |second| file.metadata().is_ok_and(|meta| modified_of(&meta) == second);
    let fields = match second {
        Some(second) if has_time(second) => b"X-OC-MTime: accepted\r\n".to_vec(),
        _ => Vec::new(),
    };
    Reply { fields, ..status.into() }
}

/// Parses `bytes 0-9/10` or `bytes 0-9/*`. Returns the offset of the first byte, and that behind
/// the last.
fn content_range(value: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(value.trim_ascii()).ok()?;
    let (unit, rest) = text.split_once(' ')?;
    let (range, complete) = rest.trim_start().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // A number that exceeds a file offset is refused like one that exceeds 64 bits.
        digits.then(|| text.parse().ok()).flatten().filter(|n| *n < i64::MAX as u64)
    };
    let (first, last) = (number(first)?, number(last)?);
    let fits = complete == "*" || number(complete).is_some_and(|complete| last < complete);
    (unit.eq_ignore_ascii_case("bytes") && first <= last && fits).then_some((first, last + 1))
}

/// Gives the new file the mode and the owner of the old one, as far as that is allowed. An uploaded
/// file is never executable.
fn copy_owner_and_mode(new: &File, old: &fs::Metadata) {
    if let Ok(made) = new.metadata()
        && (made.uid(), made.gid()) != (old.uid(), old.gid())
    {
        let _ = fchown(new, Some(old.uid()), Some(old.gid()));
    }
    // The mode follows the owner, since a change of the owner clears mode bits. Set-user-ID and
    // set-group-ID are never copied.
    let _ = new.set_permissions(fs::Permissions::from_mode(old.mode() & 0o666));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_one_range_of_bytes() {
        let table = [
            ("bytes 0-9/10", Some((0, 10))),
            ("bytes 5-5/*", Some((5, 6))),
            ("Bytes  5-6/100", Some((5, 7))),
            ("bytes 0-9/5", None),
            ("bytes 9-0/10", None),
            ("bytes -5/10", None),
            ("bytes --5-6/10", None),
            ("bytes +1-6/10", None),
            ("bytes 5-/10", None),
            ("bytes */10", None),
            ("bytes 0-9", None),
            ("bytes=0-9/10", None),
            ("chars 0-9/10", None),
            ("bytes 0-18446744073709551615/*", None),
            ("bytes 0-9223372036854775807/*", None),
            ("bytes 99999999999999999999-99999999999999999999/*", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(content_range(text.as_bytes()), expected, "{text}");
        }
    }
}
