//! The method PUT (RFC 9110, section 9.3.4), also with Content-Range (section 14.5). The content
//! goes into a file of its own, which takes the name of the target when it is complete.
//!
//! Decides whether an upload is allowed, at its head and once more at its end. Knows nothing of how
//! the content arrives.
//!
//! A machine that crashes may lose what was written in the last seconds: nothing is flushed to the
//! disk (`fsync`), since all other connections would have to wait for that.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, fchown};

use super::Env;
use super::method::{MethodCall, Reply};
use super::patience::Patience;
use super::stamp::stamp;
use super::store;
use super::sweeping::Sweeper;
use super::target::{Home, Kind, Target};
use super::temporary::{Temporary, check_size, open_file};

/// The number of bytes that are copied at once.
const FILE_PIECE: usize = 256 * 1024;
/// The cost of copying a piece, in units of the budget.
const FILE_PIECE_COST: usize = 32;

/// A PUT under way.
#[derive(Debug)]
pub struct Upload {
    request: MethodCall,
    /// The file that the content is written to; `None` once it is in its place.
    made: Option<Temporary>,
    /// The file offset of the next piece of content.
    position: u64,
    /// The part of the file that is being replaced.
    part: Option<Part>,
    /// The wait for another process that changes properties in the same directory.
    patience: Patience,
}

/// A range of a file that the content replaces (RFC 9110, section 14.5).
#[derive(Debug)]
struct Part {
    start: u64,
    end: u64,
    /// The file as it was, and the ranges of it that are still to be copied.
    old: Option<File>,
    gaps: Vec<(u64, u64)>,
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
        sweeper.visit(&home.dir, env.unix);
        let made = Some(Temporary::create(&home.dir)?);
        let position = part.as_ref().map_or(0, |part| part.start);
        Ok(Upload { request, made, position, part, patience: Patience::default() })
    }

    /// Writes a piece of the content.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), Reply> {
        let end = self.position.saturating_add(piece.len() as u64);
        if self.part.as_ref().is_some_and(|part| end > part.end) {
            return Err(400.into());
        }
        self.write_at(piece, self.position)?;
        self.position = end;
        Ok(())
    }

    fn write_at(&self, piece: &[u8], position: u64) -> io::Result<()> {
        check_size(position.saturating_add(piece.len() as u64))?;
        match &self.made {
            Some(made) => made.file().write_all_at(piece, position),
            None => {
                debug_assert!(false, "content is written to an upload that is in its place");
                Err(ErrorKind::NotFound.into())
            }
        }
    }

    /// Does the next portion of work after the last content. Returns the response once the file is
    /// in its place.
    pub fn advance(&mut self, env: &Env<'_>, budget: &mut usize) -> Result<Option<Reply>, Reply> {
        if let Some(part) = &self.part
            && self.position != part.end
        {
            return Err(400.into());
        }
        if !self.fill_gaps(budget)? {
            return Ok(None);
        }
        // The target may have changed while the content arrived, so it is checked again.
        let target = self.request.target(env)?;
        if target.is_dir() {
            return Err(409.into());
        }
        let Some(Home { dir, name }) = &target.home else { return Err(409.into()) };
        if let Some(part) = &self.part
            && !part.is_of(&target)
        {
            return Err(412.into());
        }
        self.request.may_change(env, &target, !target.exists())?;
        let locked = (!target.exists()).then(|| store::lock_if_possible(dir)).transpose();
        let Ok(_lock) = locked else {
            return match self.patience.lasts(env.unix) {
                true => {
                    *budget = 0;
                    Ok(None)
                }
                false => Err(503.into()),
            };
        };
        let Some(made) = self.made.take() else {
            debug_assert!(false, "an upload that is in its place is completed again");
            return Err(500.into());
        };
        stamp(made.file(), target.metadata());
        if let Some(old) = target.metadata() {
            copy_owner_and_mode(made.file(), old);
        }
        made.publish(&dir.join(OsStr::from_bytes(name)), target.exists())?;
        if !target.exists() {
            store::forget(dir, env.unix, name);
        }
        Ok(Some(if target.exists() { 204 } else { 201 }.into()))
    }

    /// Copies the ranges of the old file outside of the part. Returns true once that is done.
    fn fill_gaps(&mut self, budget: &mut usize) -> io::Result<bool> {
        let mut buf = Vec::new();
        while *budget > 0 {
            let Some(part) = &mut self.part else { return Ok(true) };
            let (Some(old), Some((from, to))) = (&part.old, part.gaps.last_mut()) else {
                return Ok(true);
            };
            if buf.is_empty() {
                buf.try_reserve_exact(FILE_PIECE)?;
                buf.resize(FILE_PIECE, 0);
            }
            let len = usize::try_from(*to - *from).unwrap_or(FILE_PIECE).min(FILE_PIECE);
            let count = old.read_at(&mut buf[..len], *from)?;
            let position = *from;
            *from += count as u64;
            if *from >= *to || count == 0 {
                part.gaps.pop();
            }
            *budget = budget.saturating_sub(FILE_PIECE_COST);
            self.write_at(&buf[..count], position)?;
        }
        Ok(false)
    }
}

impl Part {
    /// Parses the Content-Range field, and opens the file that it is a part of.
    fn new(value: &[u8], target: &Target) -> Result<Part, Reply> {
        let (start, end) = content_range(value).ok_or(Reply::from(400))?;
        let len = target.metadata().map_or(0, |meta| meta.len());
        if start > len {
            // The file would have a hole.
            let fields = format!("Content-Range: bytes */{len}\r\n").into_bytes();
            return Err(Reply { fields, ..416.into() });
        }
        let old = match target.exists() {
            true => Some(open_file(&target.full)?),
            false => None,
        };
        let gaps = [(0, start), (end, len)].into_iter().filter(|(from, to)| from < to).collect();
        Ok(Part { start, end, old, gaps })
    }
}

impl Part {
    /// Returns whether the target is still the file that the part belongs to.
    fn is_of(&self, target: &Target) -> bool {
        let identity = |meta: &fs::Metadata| (meta.dev(), meta.ino());
        let old = self.old.as_ref().and_then(|old| old.metadata().ok());
        old.as_ref().map(identity) == target.metadata().map(identity)
    }
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
