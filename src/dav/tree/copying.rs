//! The copying of a file, or of a directory with its content and its stored properties, in portions
//! (RFC 4918, section 9.8).
//!
//! Writes into files and directories that have no visible name yet. Knows nothing of locks, and
//! leaves it to the caller which files are left out.

use std::ffi::OsStr;
use std::fs::{self, File, FileType};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{Entries, is_own};
use crate::dav::known;
use crate::dav::set_aside::{Kind, sweep_held};
use crate::dav::stamp::stamp;
use crate::dav::store;
use crate::dav::temporary::{above_standard, check_size, create_private_dir, open_file};
use crate::files::known::modified_of;
use crate::files::resolve::PASSWORD_FILE;
use crate::long_files::{LongFile, write_back_behind};

/// The number of bytes that are copied at once.
pub const FILE_PIECE: usize = 256 * 1024;
/// The cost of copying a piece, in units of the budget. A directory entry costs 1.
pub const FILE_PIECE_COST: usize = 32;

/// A file that is being copied.
#[derive(Debug)]
pub struct FileCopy {
    from: LongFile,
    to: File,
    /// Whether the copy is to replace another file, so that it is to be on its way to the disk.
    replaces: bool,
    /// The number of bytes that were copied.
    copied: u64,
    /// The number of bytes left to copy, fixed at the start: a file that grows meanwhile would have
    /// no end.
    left: u64,
    /// The second of the last modification that the copy gets; `None` is now.
    second: Option<u64>,
}

impl FileCopy {
    /// Creates the copy of the file at `from` into `to`, which gets the same mode, and with `moves`
    /// the same time.
    pub fn new(from: &Path, to: File, moves: bool) -> io::Result<FileCopy> {
        let from = open_file(from)?;
        let meta = from.metadata()?;
        check_size(meta.len())?;
        let mode = meta.permissions().mode() & 0o777;
        // Not every file system has modes, so a failure is no error.
        let _ = to.set_permissions(fs::Permissions::from_mode(mode));
        let second = moves.then(|| modified_of(&meta));
        let from = LongFile::new(from);
        Ok(FileCopy { from, to, replaces: false, copied: 0, left: meta.len(), second })
    }

    /// Says that the copy is to replace another file.
    pub fn replacing(self, replaces: bool) -> FileCopy {
        FileCopy { replaces, ..self }
    }

    /// Copies at least one piece. Returns true once all is copied.
    pub fn advance(&mut self, budget: &mut usize) -> io::Result<bool> {
        loop {
            *budget = budget.saturating_sub(FILE_PIECE_COST);
            // The kernel copies the bytes, and shares the blocks if the file system can.
            let len = self.left.min(FILE_PIECE as u64);
            let count = io::copy(&mut (&*self.from).take(len), &mut &self.to)?;
            let end = self.copied.saturating_add(count);
            if self.replaces {
                write_back_behind(&self.to, self.copied..end);
            }
            self.copied = end;
            self.left = self.left.saturating_sub(count);
            if count == 0 || self.left == 0 {
                stamp(&self.to, None, self.second);
                return Ok(true);
            }
            if *budget == 0 {
                return Ok(false);
            }
        }
    }
}

/// The copying of a directory with its content.
#[derive(Debug)]
pub struct TreeCopy {
    root: PathBuf,
    whole: bool,
    levels: Vec<(PathBuf, PathBuf, Entries)>,
    file: Option<(FileCopy, PathBuf)>,
}

/// A file of a tree that cannot be copied: its path below the root of the tree, and the error.
#[derive(Debug)]
pub struct Uncopied {
    pub inside: PathBuf,
    pub error: io::Error,
}

impl TreeCopy {
    /// Creates the copy of the directory `from` into the empty directory `to`, which gets its mode
    /// when it is complete. With `deep`, the content is copied, too. With `whole`, the copy takes
    /// the place of the tree: then no file may be left out, and links are copied unchanged, as if
    /// the tree were only renamed.
    pub fn new(from: PathBuf, to: PathBuf, deep: bool, whole: bool) -> io::Result<TreeCopy> {
        let mut copy = TreeCopy { root: from.clone(), whole, levels: Vec::new(), file: None };
        copy_state(&from, &to, deep)?;
        let entries = if deep { Entries::of(&from)? } else { Entries::default() };
        copy.levels.push((from, to, entries));
        Ok(copy)
    }

    /// Does the next portion. Returns true once all is copied. `is_left_out` is called with the
    /// path of each file below the root of the tree.
    pub fn advance(
        &mut self,
        budget: &mut usize,
        is_left_out: &dyn Fn(&Path) -> bool,
    ) -> Result<bool, Uncopied> {
        while *budget > 0 {
            *budget -= 1;
            if let Some((file, from)) = &mut self.file {
                match file.advance(budget) {
                    Ok(false) => {}
                    Ok(true) => self.file = None,
                    Err(error) => return Err(Uncopied { inside: inside(&self.root, from), error }),
                }
                continue;
            }
            let Some((from, to, entries)) = self.levels.last_mut() else { return Ok(true) };
            match entries.read(budget) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Err(Uncopied { inside: inside(&self.root, from), error }),
            }
            let (from, to) = match entries.next() {
                Some((name, kind)) => {
                    let (from, to) = (from.join(&name), to.join(&name));
                    let inside = inside(&self.root, &from);
                    match self.copy(&from, to, &name, kind, is_left_out(&inside)) {
                        Ok(cost) => *budget = budget.saturating_sub(cost),
                        Err(error) => return Err(Uncopied { inside, error }),
                    }
                    continue;
                }
                None => (std::mem::take(from), std::mem::take(to)),
            };
            self.levels.pop();
            let mode = match fs::metadata(&from) {
                Ok(meta) => meta.permissions().mode() & 0o777,
                Err(error) => return Err(Uncopied { inside: inside(&self.root, &from), error }),
            };
            // Not every file system has modes, so a failure is no error.
            let _ = fs::set_permissions(to, fs::Permissions::from_mode(mode));
        }
        Ok(self.levels.is_empty() && self.file.is_none())
    }

    /// Copies one entry of a directory. Returns the cost.
    fn copy(
        &mut self,
        from: &Path,
        to: PathBuf,
        name: &OsStr,
        kind: FileType,
        left_out: bool,
    ) -> io::Result<usize> {
        if is_own(name.as_bytes()) {
            return pass_own(from, name);
        }
        // Without the file that guards it, a copy of a directory would show what is in it.
        let is_needed = self.whole || name == PASSWORD_FILE;
        if left_out {
            return if is_needed { Err(Errno::PERM.into()) } else { Ok(0) };
        }
        if kind.is_dir() {
            let entries = Entries::of(from)?;
            create_private_dir(&to)?;
            let cost = copy_state(from, &to, true)?;
            self.levels.push((from.to_path_buf(), to, entries));
            return Ok(cost);
        } else if kind.is_file() {
            let to = above_standard(File::create_new(to)?)?;
            self.file = Some((FileCopy::new(from, to, self.whole)?, from.to_path_buf()));
        } else if kind.is_symlink() && self.whole {
            std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
        } else if kind.is_symlink() {
            copy_link(from, &to)?;
        } else if is_needed {
            // A device, FIFO or socket cannot be copied.
            return Err(Errno::PERM.into());
        }
        Ok(0)
    }
}

/// Passes over a hidden name of this server: the state file is copied already, and temporary
/// files do not belong to the tree. But a held file does, and is an error.
fn pass_own(from: &Path, name: &OsStr) -> io::Result<usize> {
    let Some(kind) = Kind::of(name.as_bytes()) else { return Ok(0) };
    // If its holder has ended, this puts the file back, and the next attempt finds it.
    sweep_held(from, kind);
    Err(Errno::EXIST.into())
}

/// Returns a path relative to the root of its tree.
fn inside(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap_or(path).to_path_buf()
}

/// Copies a symbolic link. The copy leads to the same file.
pub fn copy_link(from: &Path, to: &Path) -> io::Result<()> {
    let end = match known(fs::canonicalize(from))? {
        Some(end) => end,
        None => fs::read_link(from)?,
    };
    std::os::unix::fs::symlink(end, to)
}

/// Copies the stored properties of a directory, and with `all` those of its members. Locks are not
/// copied. Returns the cost.
fn copy_state(from: &Path, to: &Path, all: bool) -> io::Result<usize> {
    let mut state = store::load(from, u64::MAX)?;
    let cost = state.cost();
    state.unlock();
    if !all {
        state.keep_own();
    }
    store::save(to, &state)?;
    Ok(cost)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sample, shown};
    use super::*;
    use crate::dav::set_aside::Held;
    use crate::dav::status_of;
    use crate::test_folder::Folder;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tree_is_copied_in_portions() {
        let folder = Folder::new();
        let (from, to) = (folder.0.join("from"), folder.0.join("to"));
        sample(&from);
        symlink("a", from.join("link")).unwrap();
        symlink("none", from.join("dangling")).unwrap();
        symlink("..", from.join("d/up")).unwrap();
        fs::create_dir(&to).unwrap();
        let mut copy = TreeCopy::new(from.clone(), to.clone(), true, false).unwrap();
        let left_out = |path: &Path| path.ends_with("e");
        let mut portions = 1;
        while !copy.advance(&mut 1, &left_out).unwrap() {
            portions += 1;
        }
        assert!(portions > 8, "{portions}");
        let expected = ["a", "d", "d/.htpasswd", "d/b", "d/up", "dangling", "link"];
        assert_eq!(shown(&to), expected);
        assert_eq!(fs::read(to.join("d/b")).unwrap(), vec![7; FILE_PIECE * 2 + 1]);
        assert_eq!(fs::metadata(to.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), from.join("a"));
        assert_eq!(fs::read_link(to.join("d/up")).unwrap(), from);
    }

    #[test]
    fn nobody_looks_into_a_copy_before_it_has_its_mode() {
        let folder = Folder::new();
        let (from, to) = (folder.0.join("from"), folder.0.join("to"));
        fs::create_dir_all(from.join("d/e")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for (path, mode) in [("", 0o755), ("d", 0o750), ("d/e", 0o711)] {
            fs::set_permissions(from.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        create_private_dir(&to).unwrap();
        let mut copy = TreeCopy::new(from, to.clone(), true, false).unwrap();
        let mut seen = Vec::new();
        let mut done = false;
        while !done {
            let paths = [to.clone(), to.join("d"), to.join("d/e")];
            seen.extend(paths.iter().filter(|path| path.exists()).map(|path| mode(path)));
            done = copy.advance(&mut 1, &|_| false).unwrap();
        }
        assert!(seen.contains(&0o700));
        assert!(seen.iter().all(|mode| [0o700, 0o755, 0o750, 0o711].contains(mode)), "{seen:?}");
        assert_eq!([mode(&to), mode(&to.join("d")), mode(&to.join("d/e"))], [0o755, 0o750, 0o711]);
    }

    #[test]
    fn a_copy_that_stands_for_the_tree_leaves_nothing_out() {
        let folder = Folder::new();
        let (from, to) = (folder.0.join("from"), folder.0.join("to"));
        let copy = |whole: bool, left_out: &str| {
            let _ = fs::remove_dir_all(&to);
            fs::create_dir(&to).unwrap();
            let mut copy = TreeCopy::new(from.clone(), to.clone(), true, whole).unwrap();
            let is_left_out = |path: &Path| path == Path::new(left_out);
            while !copy.advance(&mut 100, &is_left_out)? {}
            Ok::<_, Uncopied>(shown(&to))
        };
        fs::create_dir_all(from.join("d")).unwrap();
        fs::write(from.join("d/a"), "").unwrap();
        symlink("d/a", from.join("link")).unwrap();
        assert_eq!(copy(true, "").unwrap(), ["d", "d/a", "link"]);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("d/a"));
        let refused = copy(true, "d/a").unwrap_err();
        assert_eq!((refused.inside.as_path(), status_of(&refused.error)), (Path::new("d/a"), 403));
        let socket = std::os::unix::net::UnixListener::bind(from.join("d/s")).unwrap();
        assert_eq!(copy(false, "d/a").unwrap(), ["d", "link"]);
        let refused = copy(true, "").unwrap_err();
        assert_eq!((refused.inside.as_path(), status_of(&refused.error)), (Path::new("d/s"), 403));
        drop(socket);
        fs::remove_file(from.join("d/s")).unwrap();
        // A file that another process holds belongs to the tree. One without a holder is put back.
        drop(Held::take(&from.join("d/a"), Kind::Source).unwrap());
        assert_eq!(status_of(&copy(false, "").unwrap_err().error), 409);
        assert_eq!(copy(false, "").unwrap(), ["d", "d/a", "link"]);
        let _held = Held::take(&from.join("d/a"), Kind::Source).unwrap();
        assert_eq!(status_of(&copy(false, "").unwrap_err().error), 409);
        assert_eq!(status_of(&copy(false, "").unwrap_err().error), 409);
    }
}
