//! What is taken out of everybody's reach for a while, and given back or removed.
//!
//! It is moved into a hidden folder beside it, under the name that it had. The name of the folder
//! says what is to become of it should its holder die, so that a sweep (see [`sweep`])
//! knows what to do:
//!
//! ```text
//! .mongoose-dav-held.DIGITS/NAME      goes back, under another name if that is taken
//! .mongoose-dav-replaced.DIGITS/NAME  goes back unless something else has its name
//! .mongoose-dav.DIGITS/NAME           is removed
//! ```

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;

use super::temporary::{self, Owner, PREFIX, TemporaryDir, fresh_name};

const SOURCE: &str = ".mongoose-dav-held.";
const REPLACED: &str = ".mongoose-dav-replaced.";
/// As many names are tried for something whose own is taken.
const MAX_NAMES: usize = 100;
/// The longest name that file systems take, in bytes.
const MAX_NAME: usize = 255;

/// Why something is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A copy of it is being made, and it goes when that is in its place.
    Source,
    /// Something else takes its place, in a moment.
    Replaced,
    /// It is being removed.
    Doomed,
}

impl Kind {
    /// The kind of hidden folder that has this name, where what is in it must not be lost.
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

/// Something that is held. It stays so when this value is dropped: a sweep will find it.
#[derive(Debug)]
pub struct Held {
    folder: TemporaryDir,
    name: OsString,
    kind: Kind,
}

impl Held {
    /// Takes what is at `place`, whose path has no link in it.
    pub fn take(place: &Path, kind: Kind) -> io::Result<Held> {
        let (Some(dir), Some(name)) = (place.parent(), place.file_name()) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        let folder = TemporaryDir::of_kind(dir, kind.prefix())?;
        let held = Held { folder, name: name.to_owned(), kind };
        match fs::rename(place, held.path()) {
            Ok(()) => Ok(held),
            Err(error) => {
                let _ = fs::remove_dir(&held.folder.path);
                Err(error)
            }
        }
    }

    /// The hidden folder that it is in.
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// Where it is now.
    pub fn path(&self) -> PathBuf {
        self.folder.path.join(&self.name)
    }

    /// It is not to come back, whatever happens from now on.
    pub fn doom(mut self) -> Held {
        let hidden = fresh_name(self.folder.path.parent().unwrap_or(Path::new(".")));
        if self.kind != Kind::Doomed && fs::rename(&self.folder.path, &hidden).is_ok() {
            self.folder.path = hidden;
            self.kind = Kind::Doomed;
        }
        self
    }

    /// Removes it, where it is no directory. What cannot be removed comes back with a sweep.
    pub fn remove_file(self) {
        if fs::remove_file(self.path()).is_ok() {
            let _ = fs::remove_dir(&self.folder.path);
        }
    }

    /// Gives it back; see the module for what becomes of it where its name is taken.
    pub fn put_back(self) -> io::Result<()> {
        let kind = if self.kind == Kind::Doomed { Kind::Source } else { self.kind };
        if let Some(left) = give_back(&self.folder.path, kind)? {
            fs::remove_file(left.join(&self.name))?;
            fs::remove_dir(left)?;
        }
        Ok(())
    }
}

/// What is left in `dir` of work that nobody does any more. Files are removed, folders returned.
/// What was only held goes back to its place.
pub fn sweep(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        if let Some(kind) = Kind::of(name.as_bytes()) {
            folders.extend(sweep_held(&path, kind));
            continue;
        }
        if !name.as_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Ok(file) = open_left(&path) else { continue };
        let Ok(meta) = file.metadata() else { continue };
        if temporary::lock(&file) != Owner::Ours {
            continue;
        }
        if meta.is_dir() {
            // Under the lock: whoever has just made it, and waits for the lock, sees that it is gone.
            let doomed = fresh_name(dir);
            folders.extend(fs::rename(&path, &doomed).is_ok().then_some(doomed));
        } else if meta.is_file() {
            let _ = fs::remove_file(path);
        }
    }
    Ok(folders)
}

/// Gives back what somebody who is no more has held; a folder to be removed.
fn sweep_held(path: &Path, kind: Kind) -> Option<PathBuf> {
    let file = open_left(path).ok()?;
    // Where nothing can be locked it may yet be in use. Whoever finds it gone gives up; that nobody
    // finds it again would be worse.
    if !file.metadata().ok()?.is_dir() || temporary::lock(&file) == Owner::Theirs {
        return None;
    }
    give_back(path, kind).unwrap_or_default()
}

fn open_left(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Empties a folder of things held; it is returned if what is in it is to be removed.
pub fn give_back(folder: &Path, kind: Kind) -> io::Result<Option<PathBuf>> {
    let dir = folder.parent().unwrap_or(Path::new("."));
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let from = folder.join(&name);
        match rename(&from, &dir.join(&name), RenameFlags::NOREPLACE) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => match kind {
                Kind::Source => keep_both(&from, dir, &name)?,
                Kind::Replaced | Kind::Doomed => {
                    let hidden = fresh_name(dir);
                    fs::rename(folder, &hidden)?;
                    return Ok(Some(hidden));
                }
            },
            result => result?,
        }
    }
    fs::remove_dir(folder)?;
    Ok(None)
}

/// Something else has its name. The one that it gets has the same end: by that files are known to
/// be programs, or to be hidden.
fn keep_both(from: &Path, dir: &Path, name: &OsStr) -> io::Result<()> {
    for number in 1..MAX_NAMES {
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

/// As much of the end of a name as there is room for.
fn shortened(name: &OsStr, room: usize) -> &OsStr {
    let bytes = name.as_bytes();
    let mut start = bytes.len().saturating_sub(room);
    // Not in the middle of a character of UTF-8.
    while bytes.get(start).is_some_and(|byte| byte & 0xc0 == 0x80) {
        start += 1;
    }
    OsStr::from_bytes(&bytes[start..])
}

/// Gives `new` the name `place`, which something else has if `replaces`. That is returned under
/// the name that it has now.
pub fn install(new: &Path, place: &Path, replaces: bool) -> io::Result<Option<PathBuf>> {
    let old = match fs::symlink_metadata(place) {
        Ok(meta) if replaces => meta,
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => return rename(new, place, RenameFlags::NOREPLACE).map(|()| None),
    };
    if !old.is_dir() && !fs::symlink_metadata(new)?.is_dir() {
        return fs::rename(new, place).map(|()| None);
    }
    match rename(new, place, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(Some(new.to_path_buf())),
        Err(error) if cannot_exchange(&error, new, place) => replace(new, place).map(Some),
        Err(error) => Err(error),
    }
}

/// Not every file system can exchange two names. One that has layers says that the two are on
/// different ones.
fn cannot_exchange(error: &io::Error, new: &Path, place: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| fs::symlink_metadata(path).ok().map(|meta| meta.dev());
    let same = || device(new).is_some() && device(new) == device(place);
    is(error, Errno::INVAL) || is(error, Errno::NOSYS) || is(error, Errno::XDEV) && same()
}

/// As [`install`], in two steps between which the old is held.
fn replace(new: &Path, place: &Path) -> io::Result<PathBuf> {
    let old = Held::take(place, Kind::Replaced)?;
    match rename(new, place, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(old.doom().folder.path.clone()),
        Err(error) => {
            let _ = old.put_back();
            Err(error)
        }
    }
}

pub fn rename(from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, flags) {
        Err(Errno::INVAL | Errno::NOSYS) if flags == RenameFlags::NOREPLACE => {
            match fs::symlink_metadata(to) {
                Ok(_) => Err(ErrorKind::AlreadyExists.into()),
                Err(_) => fs::rename(from, to),
            }
        }
        result => Ok(result?),
    }
}

/// Whether an error is this one.
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
        // (kind, something else has the name by then, what there is afterwards)
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
