//! Files and directories that are taken out of the reach of clients for a while, and then put back
//! or removed. Follows `rename(2)` and `renameat2(2)`; knows nothing of requests or locks of
//! WebDAV.
//!
//! Such a file is moved into a hidden directory beside it, under the name that it had. The name of
//! the hidden directory says what is to become of the file should the process that holds it die, so
//! that a sweep (see [`Sweep`]) knows what to do:
//!
//! ```text
//! .mongoose-dav-held.DIGITS/NAME      is put back, under another name if that is taken
//! .mongoose-dav-replaced.DIGITS/NAME  is put back unless another file has its name
//! .mongoose-dav.DIGITS/NAME           is removed
//! ```

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, ReadDir};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;

use super::store::STATE;
use super::temporary::{self, Owner, PREFIX, TemporaryDir, fresh_name};
use super::tree::NAMES_PER_UNIT;
use crate::long_files::{self, LongFile};

const SOURCE: &str = ".mongoose-dav-held.";
const REPLACED: &str = ".mongoose-dav-replaced.";
/// The cost of a hidden name, in units of the budget of a sweep.
const HIDDEN_COST: usize = 4;
/// The number of names that are tried for a file whose own name is taken.
const NAMES_TRIED: usize = 100;
/// The longest file name that file systems allow, in bytes (`NAME_MAX`).
const MAX_NAME: usize = 255;

/// The reason why a file or directory is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is being copied, and is removed once the copy is in its place.
    Source,
    /// Another file is about to take its place.
    Replaced,
    /// It is being removed.
    Doomed,
}

impl Kind {
    /// Returns the kind of the hidden directory `name`, if the content of that directory must not
    /// be lost.
    pub fn of(name: &[u8]) -> Option<Kind> {
        match name {
            _ if name.starts_with(SOURCE.as_bytes()) => Some(Kind::Source),
            _ if name.starts_with(REPLACED.as_bytes()) => Some(Kind::Replaced),
            _ => None,
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Kind::Source => SOURCE,
            Kind::Replaced => REPLACED,
            Kind::Doomed => PREFIX,
        }
    }
}

/// A file or directory that is held. It stays held when this value is dropped: a sweep finds it.
#[derive(Debug)]
pub struct Held {
    /// The hidden directory that the file was moved to.
    hidden: TemporaryDir,
    name: OsString,
    kind: Kind,
}

impl Held {
    /// Moves the file or directory at `place` into a new hidden directory. The path has no symbolic
    /// links in it.
    pub fn take(place: &Path, kind: Kind) -> io::Result<Held> {
        let (Some(dir), Some(name)) = (place.parent(), place.file_name()) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        let hidden = TemporaryDir::of_kind(dir, kind.prefix())?;
        let held = Held { hidden, name: name.to_owned(), kind };
        match fs::rename(place, held.path()) {
            Ok(()) => Ok(held),
            Err(error) => {
                let _ = fs::remove_dir(&held.hidden.path);
                Err(error)
            }
        }
    }

    /// Returns the path of the hidden directory.
    pub fn hidden_dir(&self) -> &Path {
        &self.hidden.path
    }

    /// Returns the present path of the held file.
    pub fn path(&self) -> PathBuf {
        self.hidden.path.join(&self.name)
    }

    /// Marks the held file for removal, so that no sweep puts it back.
    pub fn doom(mut self) -> Held {
        let path = fresh_name(dir_of(&self.hidden.path));
        if self.kind != Kind::Doomed && fs::rename(&self.hidden.path, &path).is_ok() {
            self.hidden.path = path;
            self.kind = Kind::Doomed;
        }
        self
    }

    /// Removes the held file, which is no directory. If it cannot be removed, a sweep puts it back.
    pub fn remove_file(self) {
        let _old = long_files::hold(&self.path());
        if fs::remove_file(self.path()).is_ok() {
            let _ = fs::remove_dir(&self.hidden.path);
        }
    }

    /// Puts the held file back; see the module for the case that its name is taken.
    pub fn put_back(self) -> io::Result<()> {
        let kind = if self.kind == Kind::Doomed { Kind::Source } else { self.kind };
        if let Some(left) = empty(&self.hidden.path, kind)? {
            fs::remove_file(left.join(&self.name))?;
            fs::remove_dir(left)?;
        }
        Ok(())
    }
}

/// The cleaning of a directory of what work that was cut short has left in it, in portions.
#[derive(Debug)]
pub struct Sweep {
    dir: PathBuf,
    rest: ReadDir,
}

impl Sweep {
    pub fn of(dir: &Path) -> io::Result<Sweep> {
        Ok(Sweep { dir: dir.to_path_buf(), rest: fs::read_dir(dir)? })
    }

    /// Does the next portion: removes files, puts held files back, and adds the directories that are to
    /// be removed to `dirs`. Returns true once all is done.
    pub fn advance(&mut self, budget: &mut usize, dirs: &mut Vec<PathBuf>) -> bool {
        while *budget > 0 {
            *budget -= 1;
            for _ in 0..NAMES_PER_UNIT {
                let Some(Ok(entry)) = self.rest.next() else { return true };
                let name = entry.file_name();
                if name.as_bytes().starts_with(STATE.as_bytes()) {
                    *budget = budget.saturating_sub(HIDDEN_COST);
                    dirs.extend(sweep_name(&self.dir, &name));
                }
            }
        }
        false
    }
}

/// Removes the file with a hidden name, or puts back what is held there, unless it is in use. Returns a
/// directory that is to be removed.
fn sweep_name(dir: &Path, name: &OsStr) -> Option<PathBuf> {
    let path = dir.join(name);
    if let Some(kind) = Kind::of(name.as_bytes()) {
        return sweep_held(&path, kind);
    }
    if !name.as_bytes().starts_with(PREFIX.as_bytes()) {
        return None;
    }
    let file = LongFile::new(open_left(&path).ok()?);
    let meta = file.metadata().ok()?;
    if temporary::lock(&file) != Owner::Ours {
        return None;
    }
    if meta.is_dir() {
        // The rename happens under the lock: a process that has just made the directory and
        // waits for the lock then sees that it is gone.
        let doomed = fresh_name(dir);
        return fs::rename(&path, &doomed).is_ok().then_some(doomed);
    }
    if meta.is_file() {
        let _ = fs::remove_file(path);
    }
    None
}

/// Cleans a directory at once.
#[cfg(test)]
pub fn sweep(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut sweep, mut dirs) = (Sweep::of(dir)?, Vec::new());
    while !sweep.advance(&mut 1, &mut dirs) {}
    Ok(dirs)
}

/// Puts back what a process that has ended held. Returns a directory that is to be removed.
pub fn sweep_held(path: &Path, kind: Kind) -> Option<PathBuf> {
    let file = open_left(path).ok()?;
    // On a file system without locks the file may still be in use. It is put back all the same: its
    // holder gives up when it finds the file gone, while a file that is never put back would be
    // lost.
    if !file.metadata().ok()?.is_dir() || temporary::lock(&file) == Owner::Theirs {
        return None;
    }
    empty(path, kind).unwrap_or_default()
}

/// Opens a hidden file that was left, without following a link or waiting for a FIFO.
fn open_left(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Empties a hidden directory. Returns its path if the content is to be removed.
pub fn empty(hidden: &Path, kind: Kind) -> io::Result<Option<PathBuf>> {
    let dir = dir_of(hidden);
    for entry in fs::read_dir(hidden)? {
        let name = entry?.file_name();
        let from = hidden.join(&name);
        match rename(&from, &dir.join(&name), RenameFlags::NOREPLACE) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => match kind {
                Kind::Source => keep_both(&from, dir, &name)?,
                Kind::Replaced | Kind::Doomed => {
                    let doomed = fresh_name(dir);
                    fs::rename(hidden, &doomed)?;
                    return Ok(Some(doomed));
                }
            },
            result => result?,
        }
    }
    fs::remove_dir(hidden)?;
    Ok(None)
}

/// Puts back a file whose name is taken by another. The new name keeps the end of the old one,
/// since the end decides whether a file is a program, or hidden.
fn keep_both(from: &Path, dir: &Path, name: &OsStr) -> io::Result<()> {
    for number in 1..NAMES_TRIED {
        let mut other = OsString::from(match number {
            1 => "recovered.".to_owned(),
            number => format!("recovered-{number}."),
        });
        other.push(shortened(name, MAX_NAME - other.len()));
        match rename(from, &dir.join(other), RenameFlags::NOREPLACE) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            result => return result,
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Returns the end of a name, at most `room` bytes long.
fn shortened(name: &OsStr, room: usize) -> &OsStr {
    let bytes = name.as_bytes();
    let mut start = bytes.len().saturating_sub(room);
    // The result does not begin in the middle of a UTF-8 character.
    while bytes.get(start).is_some_and(|byte| byte & 0xc0 == 0x80) {
        start += 1;
    }
    OsStr::from_bytes(&bytes[start..])
}

/// Returns the directory of a path.
pub fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// Renames `new` to `place`. With `replaces`, another file has that name: if its content is not
/// gone at once, its new path is returned.
pub fn install(new: &Path, place: &Path, replaces: bool) -> io::Result<Option<PathBuf>> {
    let old = match fs::symlink_metadata(place) {
        Ok(meta) if replaces => meta,
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => return rename(new, place, RenameFlags::NOREPLACE).map(|()| None),
    };
    if !old.is_dir() && !fs::symlink_metadata(new)?.is_dir() {
        let _old = long_files::hold_known(place, &old);
        return fs::rename(new, place).map(|()| None);
    }
    match rename(new, place, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(Some(new.to_path_buf())),
        Err(error) if cannot_exchange(&error, new, place) => replace(new, place).map(Some),
        Err(error) => Err(error),
    }
}

/// Returns whether the file system cannot exchange two names (`RENAME_EXCHANGE`). One that has
/// layers reports that the two are on different devices.
fn cannot_exchange(error: &io::Error, new: &Path, place: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| fs::symlink_metadata(path).ok().map(|meta| meta.dev());
    let same = || device(new).is_some() && device(new) == device(place);
    is(error, Errno::INVAL) || is(error, Errno::NOSYS) || is(error, Errno::XDEV) && same()
}

/// Does the work of [`install`] in two steps, between which the old file is held.
fn replace(new: &Path, place: &Path) -> io::Result<PathBuf> {
    let old = Held::take(place, Kind::Replaced)?;
    match rename(new, place, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(old.doom().hidden.path.clone()),
        Err(error) => {
            let _ = old.put_back();
            Err(error)
        }
    }
}

/// Renames a file. Where the file system does not support `RENAME_NOREPLACE`, checks first whether
/// the name is taken.
pub fn rename(from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, flags) {
        Err(Errno::INVAL | Errno::NOSYS) if flags == RenameFlags::NOREPLACE => {
            match fs::symlink_metadata(to) {
                Ok(_) => Err(Errno::EXIST.into()),
                Err(error) if error.kind() == ErrorKind::NotFound => fs::rename(from, to),
                Err(error) => Err(error),
            }
        }
        result => Ok(result?),
    }
}

/// Returns whether an error has this error number.
pub fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::super::tree::Removal;
    use super::*;
    use crate::test_folder::Folder;

    #[test]
    fn what_is_held_is_out_of_reach_and_goes_back() {
        let folder = Folder::new();
        let place = folder.0.join("d");
        fs::create_dir_all(place.join("e")).unwrap();
        for taken in [false, true] {
            let held = Held::take(&place, Kind::Source).unwrap();
            assert!(!place.exists() && held.path().join("e").exists());
            assert!(folder.names()[0].starts_with(SOURCE));
            assert!(sweep(&folder.0).unwrap().is_empty());
            assert!(!place.exists(), "whoever holds it lives");
            if taken {
                fs::write(&place, "other").unwrap();
            }
            held.put_back().unwrap();
        }
        assert_eq!(folder.names(), ["d", "recovered.d"]);
        assert!(folder.0.join("recovered.d/e").exists());
        assert_eq!(fs::read(place).unwrap(), b"other");
    }

    #[test]
    fn a_sweep_gives_back_what_nobody_holds_any_more() {
        let folder = Folder::new();
        // The kind, whether another file has the name meanwhile, and the names after the sweep.
        let table: [(Kind, bool, &[&str]); 5] = [
            (Kind::Source, false, &["a"]),
            (Kind::Source, true, &["a", "recovered.a"]),
            (Kind::Replaced, false, &["a"]),
            (Kind::Replaced, true, &["a"]),
            (Kind::Doomed, false, &[]),
        ];
        for (kind, taken, expected) in table {
            let place = folder.0.join("a");
            fs::write(&place, "old").unwrap();
            drop(Held::take(&place, kind).unwrap());
            if taken {
                fs::write(&place, "new").unwrap();
            }
            for left in sweep(&folder.0).unwrap() {
                assert!(Removal::new(left).advance(&mut 9));
            }
            assert_eq!(folder.names(), expected, "{kind:?} {taken}");
            if taken {
                assert_eq!(fs::read(&place).unwrap(), b"new");
            }
            for name in folder.names() {
                fs::remove_file(folder.0.join(name)).unwrap();
            }
        }
    }

    #[test]
    fn a_name_is_given_where_nothing_was_and_where_something_is_replaced() {
        let folder = Folder::new();
        let (new, place) = (folder.0.join("new"), folder.0.join("place"));
        let make = |path: &Path, text: &str| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("x"), text).unwrap();
        };
        make(&new, "1");
        assert_eq!(install(&new, &place, false).unwrap(), None);
        make(&new, "2");
        let error = install(&new, &place, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(install(&new, &place, true).unwrap(), Some(new.clone()));
        assert_eq!(fs::read(place.join("x")).unwrap(), b"2");
        let old = replace(&new, &place).unwrap();
        assert_eq!(fs::read(place.join("x")).unwrap(), b"1");
        assert_eq!(fs::read(old.join("place/x")).unwrap(), b"2");
        assert!(replace(&new, &place).is_err());
        assert_eq!(fs::read(place.join("x")).unwrap(), b"1");
    }
    #[test]
    fn what_has_the_longest_name_comes_back_beside_what_has_it_now() {
        let folder = Folder::new();
        let name = format!("{}.txt", "\u{e4}".repeat(125));
        let place = folder.0.join(&name);
        fs::write(&place, "old").unwrap();
        let held = Held::take(&place, Kind::Source).unwrap();
        fs::write(&place, "new").unwrap();
        held.put_back().unwrap();
        let found = folder.names();
        assert_eq!(found.len(), 2, "{found:?}");
        let other = found.iter().find(|found| **found != name).unwrap();
        assert!(other.starts_with("recovered.\u{e4}") && other.ends_with("\u{e4}.txt"), "{other}");
        assert_eq!(fs::read(folder.0.join(other)).unwrap(), b"old");
    }
}
