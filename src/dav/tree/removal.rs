//! The removal of a file, or of a directory with its content, in portions (`unlink(2)`,
//! `rmdir(2)`).
//!
//! Checks in each portion that its directories are still those that it entered, so that a link in
//! the place of one does not lead it out of the tree. Knows nothing of locks.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::Entries;
use crate::dav::set_aside::{Held, Kind, empty};
use crate::dav::status_of;
use crate::dav::store::STATE;
use crate::long_files;

/// The largest number of failures that are reported.
const MAX_FAILURES: usize = 100;
/// The number of bytes that are freed in the time of one unit of the budget.
const BYTES_PER_UNIT: u64 = 64 << 10;
/// The cost of taking a name, besides that of looking at it.
const NAME_COST: usize = 3;
/// The cost of a file that is freed elsewhere: a thread may have to be started.
const LONG_COST: usize = 8;

/// Returns device and inode of a directory. A symbolic link to one is an error.
fn identity(dir: &Path) -> io::Result<(u64, u64)> {
    match fs::symlink_metadata(dir)? {
        meta if meta.is_dir() => Ok((meta.dev(), meta.ino())),
        _ => Err(ErrorKind::NotADirectory.into()),
    }
}

/// Returns the cost of removing a file, in units of the budget: to free its blocks takes time. Those of
/// a long file are freed by a thread.
fn cost_of(meta: &Metadata) -> usize {
    match long_files::is_long(meta) {
        true => LONG_COST,
        false => {
            let freed = usize::try_from(long_files::size_on_disk(meta) / BYTES_PER_UNIT);
            freed.unwrap_or(0).saturating_add(NAME_COST)
        }
    }
}

/// Returns when a file or its metadata was last changed.
pub fn changed_of(meta: &Metadata) -> (i64, i64) {
    (meta.ctime(), meta.ctime_nsec())
}

/// A file that could not be removed.
#[derive(Debug)]
pub struct Failure {
    /// Its path below the root of the removal.
    pub inside: Vec<u8>,
    pub error: io::Error,
}

impl Failure {
    /// Returns the status that tells the client of it.
    pub fn status(&self) -> u16 {
        status_of(&self.error)
    }
}

/// The removal of a file, or of a directory with its content.
#[derive(Debug)]
pub struct Removal {
    root: PathBuf,
    levels: Vec<Level>,
    begun: bool,
    /// Whether it has a hidden name and is not to come back: then the modes of its directories need
    /// not be respected.
    is_hidden: bool,
    /// The time after which a file that was changed stays.
    changed: Option<(i64, i64)>,
    /// The files that could not be removed. A directory that stays only because of its content is not
    /// among them.
    pub failures: Vec<Failure>,
}

#[derive(Debug)]
struct Level {
    dir: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    entries: Entries,
    /// Whether a file in it could not be removed.
    stays: bool,
}

impl Removal {
    pub fn new(root: PathBuf) -> Removal {
        let (levels, failures) = (Vec::new(), Vec::new());
        Removal { root, levels, begun: false, is_hidden: false, changed: None, failures }
    }

    /// Creates the removal of a directory that has a hidden name and is not to come back.
    pub fn of_hidden(root: PathBuf) -> Removal {
        Removal { is_hidden: true, ..Removal::new(root) }
    }

    /// Creates the removal of a directory that was copied from the time `begun` on. What was changed
    /// since then may not be in the copy, and stays.
    pub fn of_copied(root: PathBuf, begun: (i64, i64)) -> Removal {
        Removal { changed: Some(begun), ..Removal::new(root) }
    }

    /// Does the next portion. Returns true once all is done. `budget` is the work that may still be
    /// done in this portion.
    pub fn advance(&mut self, budget: &mut usize) -> bool {
        if !self.begun {
            self.begun = true;
            let root = self.root.clone();
            match fs::symlink_metadata(&root) {
                Ok(meta) if meta.is_dir() => self.enter(root),
                Ok(meta) => {
                    let _old = long_files::hold_known(&root, &meta);
                    self.tried(fs::remove_file(&root), &root);
                }
                Err(error) => self.tried(Err(error), &root),
            }
        }
        self.leave_replaced();
        while *budget > 0 {
            *budget -= 1;
            let Some(level) = self.levels.last_mut() else { return true };
            match level.entries.read(budget) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    let dir = std::mem::take(&mut level.dir);
                    self.levels.pop();
                    self.tried(Err(error), &dir);
                    continue;
                }
            }
            let Some((name, kind)) = level.entries.next() else {
                let Some(Level { dir, stays, .. }) = self.levels.pop() else {
                    debug_assert!(false, "the last level is gone");
                    return true;
                };
                match stays {
                    true => self.keep(),
                    false => self.tried(fs::remove_dir(&dir), &dir),
                }
                continue;
            };
            // The state file comes last, and is kept for the files that stay.
            if level.stays && name == STATE {
                continue;
            }
            let path = level.dir.join(&name);
            if kind.is_dir() {
                self.enter(path);
                continue;
            }
            let meta = fs::symlink_metadata(&path);
            if meta.as_ref().is_ok_and(long_files::is_long) && long_files::is_busy() {
                // Many long files are being freed: this one is removed in a later turn.
                level.entries.put_back((name, kind));
                *budget = 0;
                break;
            }
            let removed = meta.and_then(|meta| {
                *budget = budget.saturating_sub(cost_of(&meta));
                self.remove_file(&path, &meta)
            });
            self.tried(removed, &path);
        }
        self.levels.is_empty()
    }

    fn remove_file(&self, path: &Path, meta: &Metadata) -> io::Result<()> {
        if let Some(begun) = self.changed
            && path.file_name() != Some(OsStr::new(STATE))
            && changed_of(meta) > begun
        {
            return Err(Errno::EXIST.into());
        }
        let _old = long_files::hold_known(path, meta);
        fs::remove_file(path)
    }

    /// Leaves directories that were replaced after they were entered: through a link in such a
    /// place, files elsewhere would be removed.
    fn leave_replaced(&mut self) {
        for at in 0..self.levels.len() {
            let Level { dir, identity: entered, .. } = &self.levels[at];
            let found = identity(dir);
            if found.as_ref().is_ok_and(|found| found == entered) {
                continue;
            }
            let dir = dir.clone();
            // A file that has come there shows when the directory around it is removed.
            self.levels.truncate(at);
            // What cannot be looked at is not removed, unless something else is there.
            if let Err(error) = found
                && error.kind() != ErrorKind::NotADirectory
            {
                self.tried(Err(error), &dir);
            }
            return;
        }
    }

    /// Begins to read a directory, so that its entries are removed next.
    fn enter(&mut self, dir: PathBuf) {
        let identity = match identity(&dir) {
            Ok(identity) => identity,
            Err(error) => return self.tried(Err(error), &dir),
        };
        if self.is_hidden {
            let _ = fs::set_permissions(&dir, fs::Permissions::from_mode(0o700));
        }
        match Entries::of(&dir) {
            Ok(entries) => self.levels.push(Level { dir, identity, entries, stays: false }),
            Err(error) => self.tried(Err(error), &dir),
        }
    }

    /// Notes a failure to remove the file at `path`.
    fn tried(&mut self, result: io::Result<()>, path: &Path) {
        let Err(error) = result else { return };
        // Another process has removed the file already.
        if error.kind() == ErrorKind::NotFound {
            return;
        }
        self.keep();
        if self.failures.len() < MAX_FAILURES {
            let inside = path.strip_prefix(&self.root).unwrap_or(path);
            self.failures.push(Failure { inside: inside.as_os_str().as_bytes().to_vec(), error });
        }
    }

    /// Marks the current directory as one that stays.
    fn keep(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.stays = true;
        }
    }
}

/// The removal of a held file or directory. The content that cannot be removed is put back.
#[derive(Debug)]
pub struct Discard {
    removal: Removal,
    held: Held,
}

impl Discard {
    /// Creates the removal of a held file, which no sweep puts back from now on.
    pub fn of(held: Held) -> Discard {
        let held = held.doom();
        Discard { removal: Removal::new(held.path()), held }
    }

    /// Does the next portion. Once all is done, returns the files that could not be removed.
    pub fn advance(&mut self, budget: &mut usize) -> Option<&[Failure]> {
        if !self.removal.advance(budget) {
            return None;
        }
        let hidden = self.held.hidden_dir();
        if !self.removal.failures.is_empty() {
            let _ = empty(hidden, Kind::Source);
        } else {
            let _ = fs::remove_dir(hidden);
        }
        Some(&self.removal.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sample, shown};
    use super::*;
    use crate::dav::temporary::PREFIX;
    use crate::test_folder::Folder;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tree_is_removed_and_links_are_not_followed() {
        let folder = Folder::new();
        let (root, other) = (folder.0.join("root"), folder.0.join("other"));
        sample(&root);
        sample(&other);
        symlink(&other, root.join("d/out")).unwrap();
        let mut removal = Removal::new(root.clone());
        let mut portions = 1;
        while !removal.advance(&mut 1) {
            portions += 1;
        }
        assert!(portions > 5 && removal.failures.is_empty(), "{portions}");
        assert!(!root.exists());
        assert_eq!(shown(&other).len(), 6);
        symlink(&other, &root).unwrap();
        assert!(Removal::new(root.clone()).advance(&mut 9));
        assert!(!root.exists() && other.exists());
    }

    #[test]
    fn what_cannot_be_removed_is_told() {
        let folder = Folder::new();
        let mut removal = Removal::new(folder.0.join("none"));
        assert!(removal.advance(&mut 9) && removal.failures.is_empty());
        // No user, not even root, can remove files in /proc.
        let mut removal = Removal::new(PathBuf::from("/proc/self/fdinfo"));
        while !removal.advance(&mut 100) {}
        assert!(removal.failures.len() > 1);
        assert!(removal.failures.iter().all(|failure| failure.status() == 403), "{removal:?}");
    }

    #[test]
    fn a_removal_does_not_go_through_a_link_that_takes_the_place_of_a_directory() {
        for portions in [1, 2, 3] {
            let folder = Folder::new();
            let (root, outside) = (folder.0.join("root"), folder.0.join("outside"));
            fs::create_dir_all(root.join("d")).unwrap();
            fs::create_dir(&outside).unwrap();
            for name in ["1", "2", "3"] {
                fs::write(root.join("d").join(name), "").unwrap();
                fs::write(outside.join(name), "").unwrap();
            }
            let mut removal = Removal::new(root.clone());
            for _ in 0..portions {
                assert!(!removal.advance(&mut 1));
            }
            fs::rename(root.join("d"), folder.0.join("away")).unwrap();
            symlink(&outside, root.join("d")).unwrap();
            while !removal.advance(&mut 1) {}
            assert_eq!(shown(&outside), ["1", "2", "3"], "{portions}");
        }
    }

    #[test]
    fn what_was_changed_after_it_was_copied_stays() {
        let folder = Folder::new();
        let (root, copy) = (folder.0.join("root"), folder.0.join("copy"));
        fs::create_dir_all(root.join("d")).unwrap();
        for name in ["a", "d/b", "d/c"] {
            fs::write(root.join(name), "old").unwrap();
        }
        fs::create_dir(&copy).unwrap();
        let changed = |path: &Path| changed_of(&fs::symlink_metadata(path).unwrap());
        let begun = changed(&copy);
        // The clock of a file system may tick slowly.
        while changed(&root.join("d/b")) <= begun {
            fs::write(root.join("d/b"), "new").unwrap();
        }
        let mut removal = Removal::of_copied(root.clone(), begun);
        while !removal.advance(&mut 1) {}
        let [failure] = &removal.failures[..] else { panic!("{removal:?}") };
        assert_eq!((&failure.inside[..], failure.status()), (&b"d/b"[..], 409));
        assert_eq!(shown(&root), ["d", "d/b"]);
    }

    fn denied() -> Failure {
        Failure { inside: b"b".to_vec(), error: ErrorKind::PermissionDenied.into() }
    }

    #[test]
    fn what_cannot_be_removed_goes_back() {
        let folder = Folder::new();
        let place = folder.0.join("d");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("a"), "").unwrap();
        let mut discard = Discard::of(Held::take(&place, Kind::Source).unwrap());
        assert!(folder.names()[0].starts_with(PREFIX));
        discard.removal.failures.push(denied());
        while discard.advance(&mut 1).is_none() {}
        // The content that is left, here none, is not hidden.
        assert_eq!(folder.names(), Vec::<String>::new());
        fs::create_dir(&place).unwrap();
        let mut discard = Discard::of(Held::take(&place, Kind::Doomed).unwrap());
        fs::write(discard.held.hidden_dir().join("b"), "").unwrap();
        discard.removal.failures.push(denied());
        while discard.advance(&mut 1).is_none() {}
        assert_eq!(folder.names(), ["b"]);
    }
}
