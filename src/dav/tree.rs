//! Work on whole trees of directories, in portions: removing, copying, and searching them. Owns the
//! way through a tree; knows nothing of requests.
//!
//! Symbolic links are never followed: they are removed, and copied, as links.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileType};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use rustix::io::Errno;

use super::set_aside::{Held, Kind, give_back, sweep};
use super::stamp::stamp;
use super::status_of;
use super::store::{self, STATE};
use super::temporary::{above_standard, check_size, create_private_dir, open_file};

/// The number of bytes that are copied at once.
const PIECE: usize = 256 * 1024;
/// The cost of copying a piece, in units of the budget. A directory entry costs 1.
const PIECE_COST: usize = 32;
/// The largest number of failures that are reported.
const MAX_FAILURES: usize = 100;

/// The entries of a directory, with their types.
type Names = IntoIter<(OsString, FileType)>;

fn read_names(dir: &Path) -> io::Result<Names> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        names.try_reserve(1)?;
        names.push((entry.file_name(), entry.file_type()?));
    }
    Ok(names.into_iter())
}

/// Returns device and inode of a directory. A symbolic link to one is an error.
fn identity(dir: &Path) -> io::Result<(u64, u64)> {
    match fs::symlink_metadata(dir)? {
        meta if meta.is_dir() => Ok((meta.dev(), meta.ino())),
        _ => Err(ErrorKind::NotADirectory.into()),
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
    /// The files that could not be removed: the path below the root of the removal, and the status.
    /// A directory that stays only because of its content is not among them.
    pub failures: Vec<(Vec<u8>, u16)>,
}

#[derive(Debug)]
struct Level {
    dir: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    names: Names,
    /// Whether a file in it could not be removed.
    stays: bool,
}

impl Removal {
    pub fn new(root: PathBuf) -> Removal {
        let (levels, failures) = (Vec::new(), Vec::new());
        Removal { root, levels, begun: false, is_hidden: false, failures }
    }

    /// Creates the removal of a directory that has a hidden name and is not to come back.
    pub fn of_hidden(root: PathBuf) -> Removal {
        Removal { is_hidden: true, ..Removal::new(root) }
    }

    /// Does the next portion. Returns true once all is done. `budget` is the work that may still be
    /// done in this portion.
    pub fn advance(&mut self, budget: &mut usize) -> bool {
        if !self.begun {
            self.begun = true;
            let root = self.root.clone();
            match fs::symlink_metadata(&root) {
                Ok(meta) if meta.is_dir() => self.enter(root),
                Ok(_) => self.tried(fs::remove_file(&root), &root),
                Err(error) => self.tried(Err(error), &root),
            }
        }
        self.leave_strangers();
        while *budget > 0 {
            *budget -= 1;
            let Some(level) = self.levels.last_mut() else { return true };
            let Some((name, kind)) = level.names.next() else {
                let Some(Level { dir, stays, .. }) = self.levels.pop() else { return true };
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
            let path = level.dir.join(name);
            match kind.is_dir() {
                true => self.enter(path),
                false => self.tried(fs::remove_file(&path), &path),
            }
        }
        self.levels.is_empty()
    }

    /// Leaves directories that were replaced after they were entered: through a link in such a
    /// place, files elsewhere would be removed.
    fn leave_strangers(&mut self) {
        let is_there =
            |level: &Level| identity(&level.dir).is_ok_and(|found| found == level.identity);
        if let Some(at) = self.levels.iter().position(|level| !is_there(level)) {
            // A file that has come there shows when the directory around it is removed.
            self.levels.truncate(at);
        }
    }

    fn enter(&mut self, dir: PathBuf) {
        let identity = match identity(&dir) {
            Ok(identity) => identity,
            Err(error) => return self.tried(Err(error), &dir),
        };
        if self.is_hidden {
            let _ = fs::set_permissions(&dir, fs::Permissions::from_mode(0o700));
        }
        match read_names(&dir) {
            Ok(mut names) => {
                let place = names.as_slice().iter().position(|(name, _)| name == STATE);
                if let Some(place) = place {
                    let last = names.len() - 1;
                    names.as_mut_slice().swap(place, last);
                }
                self.levels.push(Level { dir, identity, names, stays: false });
            }
            Err(error) => self.tried(Err(error), &dir),
        }
    }

    fn tried(&mut self, result: io::Result<()>, path: &Path) {
        let Err(error) = result else { return };
        // Another process has removed the file already.
        if error.kind() == ErrorKind::NotFound {
            return;
        }
        self.keep();
        if self.failures.len() < MAX_FAILURES {
            let inside = path.strip_prefix(&self.root).unwrap_or(path);
            self.failures.push((inside.as_os_str().as_bytes().to_vec(), status_of(&error)));
        }
    }

    /// Marks the current directory as one that stays.
    fn keep(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.stays = true;
        }
    }
}

/// A file that is being copied.
#[derive(Debug)]
pub struct FileCopy {
    from: File,
    to: File,
    /// The number of bytes left to copy, fixed at the start: a file that grows meanwhile would have
    /// no end.
    left: u64,
}

impl FileCopy {
    /// Creates the copy of the file at `from` into `to`, which gets the same mode.
    pub fn new(from: &Path, to: File) -> io::Result<FileCopy> {
        let from = open_file(from)?;
        let meta = from.metadata()?;
        check_size(meta.len())?;
        let mode = meta.permissions().mode() & 0o777;
        // Not every file system has modes, so a failure is no error.
        let _ = to.set_permissions(fs::Permissions::from_mode(mode));
        Ok(FileCopy { from, to, left: meta.len() })
    }

    /// Copies at least one piece. Returns true once all is copied.
    pub fn advance(&mut self, budget: &mut usize) -> io::Result<bool> {
        loop {
            *budget = budget.saturating_sub(PIECE_COST);
            // The kernel copies the bytes, and shares the blocks if the file system can.
            let len = self.left.min(PIECE as u64);
            let count = io::copy(&mut (&self.from).take(len), &mut &self.to)?;
            self.left = self.left.saturating_sub(count);
            if count == 0 || self.left == 0 {
                stamp(&self.to, None);
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
    levels: Vec<(PathBuf, PathBuf, Names)>,
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
        let names = if deep { read_names(&from)? } else { Vec::new().into_iter() };
        copy.levels.push((from, to, names));
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
            let Some((from, to, names)) = self.levels.last_mut() else { return Ok(true) };
            let (from, to) = match names.next() {
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
            return self.pass_own(from, name);
        }
        if left_out {
            return if self.whole { Err(Errno::PERM.into()) } else { Ok(0) };
        }
        if kind.is_dir() {
            let names = read_names(from)?;
            create_private_dir(&to)?;
            let cost = copy_state(from, &to, true)?;
            self.levels.push((from.to_path_buf(), to, names));
            return Ok(cost);
        } else if kind.is_file() {
            let to = above_standard(File::create_new(to)?)?;
            self.file = Some((FileCopy::new(from, to)?, from.to_path_buf()));
        } else if kind.is_symlink() && self.whole {
            std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
        } else if kind.is_symlink() {
            copy_link(from, &to)?;
        } else if self.whole {
            // A device, FIFO or socket cannot be copied.
            return Err(Errno::PERM.into());
        }
        Ok(0)
    }

    /// Passes over a hidden name of this server: the state file is copied already, and temporary
    /// files do not belong to the tree. But a held file does, and is an error.
    fn pass_own(&self, from: &Path, name: &OsStr) -> io::Result<usize> {
        if Kind::of(name.as_bytes()).is_none() {
            return Ok(0);
        }
        if let Some(dir) = from.parent() {
            // If its holder has ended, this puts the file back, and the next attempt finds it.
            sweep(dir)?;
        }
        Err(Errno::EXIST.into())
    }
}

/// Returns a path relative to the root of its tree.
fn inside(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap_or(path).to_path_buf()
}

/// Copies a symbolic link. The copy leads to the same file.
pub fn copy_link(from: &Path, to: &Path) -> io::Result<()> {
    let end = fs::canonicalize(from).or_else(|_| fs::read_link(from))?;
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

/// A function that is called for each directory with its entries, and returns its cost.
type Visit<'a> = dyn FnMut(&Path, &[(OsString, FileType)]) -> io::Result<usize> + 'a;

/// A search through all directories of a tree.
#[derive(Debug)]
pub struct Survey {
    dirs: Vec<PathBuf>,
}

impl Survey {
    pub fn new(root: PathBuf) -> Survey {
        Survey { dirs: vec![root] }
    }

    /// Calls `visit` for more directories. Returns true once there are none left.
    pub fn advance(&mut self, budget: &mut usize, visit: &mut Visit<'_>) -> io::Result<bool> {
        while *budget > 0 {
            // The directory leaves the list after its visit, so that a visit that failed is
            // repeated.
            let Some(dir) = self.dirs.last().cloned() else { return Ok(true) };
            let names = match read_with_held(&dir) {
                Ok(names) => names,
                // A directory that this process cannot read holds no lock that it has granted.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::PermissionDenied
                    ) =>
                {
                    self.dirs.pop();
                    continue;
                }
                Err(error) => return Err(error),
            };
            let cost = visit(&dir, names.as_slice())?;
            *budget = budget.saturating_sub(1 + names.len() + cost);
            self.dirs.pop();
            let inside = names.filter(|(name, kind)| kind.is_dir() && !is_own(name.as_bytes()));
            self.dirs.extend(inside.map(|(name, _)| dir.join(name)));
        }
        Ok(self.dirs.is_empty())
    }
}

/// Reads the entries of a directory once all held files have been put back, since the locks in
/// those count, too. An error of the kind `WouldBlock` says that another process still holds a
/// file.
fn read_with_held(dir: &Path) -> io::Result<Names> {
    let is_held = |(name, _): &(OsString, FileType)| Kind::of(name.as_bytes()).is_some();
    let names = read_names(dir)?;
    if !names.as_slice().iter().any(is_held) {
        return Ok(names);
    }
    // The directories that are to be removed are found again when this one is removed or swept.
    drop(sweep(dir)?);
    let names = read_names(dir)?;
    match names.as_slice().iter().any(is_held) {
        true => Err(ErrorKind::WouldBlock.into()),
        false => Ok(names),
    }
}

/// Returns whether a name is a hidden one of this server.
pub fn is_own(name: &[u8]) -> bool {
    name.starts_with(STATE.as_bytes())
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
    pub fn advance(&mut self, budget: &mut usize) -> Option<&[(Vec<u8>, u16)]> {
        if !self.removal.advance(budget) {
            return None;
        }
        let folder = self.held.folder();
        if !self.removal.failures.is_empty() {
            let _ = give_back(folder, Kind::Source);
        } else {
            let _ = fs::remove_dir(folder);
        }
        Some(&self.removal.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::super::temporary::PREFIX;
    use super::super::xml::Name;
    use super::*;
    use crate::test_folder::Folder;
    use std::os::unix::fs::symlink;

    fn sample(root: &Path) {
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("a"), "1").unwrap();
        fs::write(root.join("d/b"), vec![7; PIECE * 2 + 1]).unwrap();
        fs::write(root.join("d/.htpasswd"), "x").unwrap();
        fs::write(root.join("d/.mongoose-dav.123"), "temporary").unwrap();
        fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o640)).unwrap();
    }

    fn shown(root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut survey = Survey::new(root.to_path_buf());
        let mut visit = |dir: &Path, names: &[(OsString, FileType)]| {
            for (name, _) in names {
                let path = dir.join(name);
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
            Ok(0)
        };
        while !survey.advance(&mut 1, &mut visit).unwrap() {}
        found.sort();
        found
    }

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
        assert_eq!(fs::read(to.join("d/b")).unwrap(), vec![7; PIECE * 2 + 1]);
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
        // What another holds belongs to the tree; what nobody holds is back next time.
        drop(Held::take(&from.join("d/a"), Kind::Source).unwrap());
        assert_eq!(status_of(&copy(false, "").unwrap_err().error), 409);
        assert_eq!(copy(false, "").unwrap(), ["d", "d/a", "link"]);
        let _held = Held::take(&from.join("d/a"), Kind::Source).unwrap();
        assert_eq!(status_of(&copy(false, "").unwrap_err().error), 409);
        assert_eq!(status_of(&copy(false, "").unwrap_err().error), 409);
    }

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
        // Nobody, not even root, removes what is in /proc.
        let mut removal = Removal::new(PathBuf::from("/proc/self/fdinfo"));
        while !removal.advance(&mut 100) {}
        assert!(removal.failures.len() > 1);
        assert!(removal.failures.iter().all(|(_, status)| *status == 403), "{removal:?}");
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
    fn a_survey_that_is_put_off_comes_back_to_where_it_was() {
        let folder = Folder::new();
        fs::create_dir_all(folder.0.join("d/e")).unwrap();
        let (mut survey, mut seen) = (Survey::new(folder.0.clone()), Vec::new());
        let mut is_busy = true;
        let mut visit = |dir: &Path, _: &[(OsString, FileType)]| {
            if dir.ends_with("d") && std::mem::take(&mut is_busy) {
                return Err(ErrorKind::WouldBlock.into());
            }
            seen.push(dir.to_path_buf());
            Ok(0)
        };
        let put_off = survey.advance(&mut 100, &mut visit).unwrap_err();
        assert_eq!(put_off.kind(), ErrorKind::WouldBlock);
        assert!(survey.advance(&mut 100, &mut visit).unwrap());
        assert_eq!(seen, [folder.0.clone(), folder.0.join("d"), folder.0.join("d/e")]);
    }

    #[test]
    fn much_that_is_known_of_a_directory_is_work_of_its_own() {
        let folder = Folder::new();
        let (from, to) = (folder.0.join("from"), folder.0.join("to"));
        for name in ["a", "b", "c"] {
            let dir = from.join(name);
            fs::create_dir_all(&dir).unwrap();
            store::update(&dir, 0, &mut |state| {
                let value = "x".repeat(1 << 20);
                state.member_mut(b"").properties.insert(Name::dav("p"), value);
            })
            .unwrap();
        }
        fs::create_dir(&to).unwrap();
        let mut visit = |dir: &Path, _: &[(OsString, FileType)]| Ok(store::load(dir, 0)?.cost());
        let mut survey = Survey::new(from.clone());
        let mut copy = TreeCopy::new(from, to, true, false).unwrap();
        let (mut surveyed, mut copied) = (0, 0);
        while !survey.advance(&mut 100, &mut visit).unwrap() {
            surveyed += 1;
        }
        while !copy.advance(&mut 100, &|_| false).unwrap() {
            copied += 1;
        }
        assert!(surveyed >= 2 && copied >= 2, "{surveyed} {copied}");
    }

    #[test]
    fn a_survey_shows_what_comes_back_and_waits_for_what_does_not_yet() {
        let folder = Folder::new();
        fs::create_dir_all(folder.0.join("a/d")).unwrap();
        let held = Held::take(&folder.0.join("a/d"), Kind::Source).unwrap();
        let mut visit = |_: &Path, _: &[(OsString, FileType)]| Ok(0);
        let mut survey = Survey::new(folder.0.clone());
        let put_off = survey.advance(&mut 100, &mut visit).unwrap_err();
        assert_eq!(put_off.kind(), ErrorKind::WouldBlock);
        // Its holder is no more.
        drop(held);
        assert!(survey.advance(&mut 100, &mut visit).unwrap());
        assert!(folder.0.join("a/d").is_dir());
    }

    #[test]
    fn what_cannot_be_removed_goes_back() {
        let folder = Folder::new();
        let place = folder.0.join("d");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("a"), "").unwrap();
        let mut discard = Discard::of(Held::take(&place, Kind::Source).unwrap());
        assert!(folder.names()[0].starts_with(PREFIX));
        discard.removal.failures.push((b"b".to_vec(), 403));
        while discard.advance(&mut 1).is_none() {}
        // What of it is left, which is nothing here, is not hidden.
        assert_eq!(folder.names(), Vec::<String>::new());
        fs::create_dir(&place).unwrap();
        let mut discard = Discard::of(Held::take(&place, Kind::Doomed).unwrap());
        fs::write(discard.held.folder().join("b"), "").unwrap();
        discard.removal.failures.push((b"b".to_vec(), 403));
        while discard.advance(&mut 1).is_none() {}
        assert_eq!(folder.names(), ["b"]);
    }
}
