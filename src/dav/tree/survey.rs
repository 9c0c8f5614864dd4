//! A search through all directories of a tree, in portions.
//!
//! Puts held files back on its way, since the locks in those count, too. Knows nothing of what is
//! searched for.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::{Entries, Entry, NAMES_PER_UNIT, is_own};
use crate::dav::set_aside::{Kind, sweep_held};

/// A function that is called for each directory with its entries, a part of them at a time, and returns
/// its cost. The flag marks the last part.
type Visit<'a> = dyn FnMut(&Path, &[Entry], bool) -> io::Result<usize> + 'a;

/// The number of entries that are visited at once.
const PART: usize = 256;
/// The cost of opening a directory and looking for its state, in units of the budget.
const DIR_COST: usize = 2;

/// A search through all directories of a tree.
#[derive(Debug)]
pub struct Survey {
    dirs: Vec<PathBuf>,
    /// The entries of the last directory of the list, and the number of those that were visited.
    reading: Option<(Entries, usize)>,
}

impl Survey {
    pub fn new(root: PathBuf) -> Survey {
        Survey { dirs: vec![root], reading: None }
    }

    /// Calls `visit` for more directories. Returns true once there are none left.
    pub fn advance(&mut self, budget: &mut usize, visit: &mut Visit<'_>) -> io::Result<bool> {
        while *budget > 0 {
            let Some(dir) = self.dirs.last().cloned() else { return Ok(true) };
            *budget -= 1;
            match self.read_with_held(&dir, budget) {
                Ok(true) => {}
                Ok(false) => continue,
                // A directory that this process cannot read holds no lock that it has granted.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::PermissionDenied
                    ) =>
                {
                    self.reading = None;
                    self.dirs.pop();
                    continue;
                }
                Err(error) => return Err(error),
            }
            let Some((mut entries, mut visited)) = self.reading.take() else { continue };
            let all = entries.entries.make_contiguous();
            let part = all.get(visited..all.len().min(visited + PART)).unwrap_or_default();
            visited += part.len();
            let is_last = visited >= all.len();
            // The directory leaves the list after its last visit, so that a visit that failed is
            // repeated.
            let cost = visit(&dir, part, is_last)?;
            *budget = budget.saturating_sub(DIR_COST + part.len() / NAMES_PER_UNIT + cost);
            if !is_last {
                self.reading = Some((entries, visited));
                continue;
            }
            self.dirs.pop();
            let is_inside = |(name, kind): &Entry| kind.is_dir() && !is_own(name.as_bytes());
            let inside = entries.entries.into_iter().filter(is_inside);
            self.dirs.extend(inside.map(|(name, _)| dir.join(name)));
        }
        Ok(self.dirs.is_empty())
    }

    /// Reads the entries of a directory, and puts all held files in it back, since the locks in those
    /// count, too. Returns true once that is done. An error of the kind `WouldBlock` says that another
    /// process still holds a file.
    fn read_with_held(&mut self, dir: &Path, budget: &mut usize) -> io::Result<bool> {
        if self.reading.is_none() {
            self.reading = Some((Entries::of(dir)?, 0));
        }
        let Some((entries, visited)) = &mut self.reading else { return Ok(false) };
        if *visited > 0 {
            return Ok(true);
        }
        if !entries.read(budget)? {
            return Ok(false);
        }
        let (mut is_any, mut is_left) = (false, false);
        for (name, _) in &entries.entries {
            if let Some(kind) = Kind::of(name.as_bytes()) {
                let path = dir.join(name);
                // A directory that is to be removed is found again when this one is removed or swept.
                drop(sweep_held(&path, kind));
                is_any = true;
                is_left |= fs::symlink_metadata(&path).is_ok();
            }
        }
        if is_left {
            return Err(ErrorKind::WouldBlock.into());
        }
        if is_any {
            // The files that came back are found when it is read once more.
            self.reading = None;
        }
        Ok(!is_any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dav::set_aside::Held;
    use crate::test_folder::Folder;
    use std::fs;

    #[test]
    fn a_survey_that_is_put_off_comes_back_to_where_it_was() {
        let folder = Folder::new();
        fs::create_dir_all(folder.0.join("d/e")).unwrap();
        let (mut survey, mut seen) = (Survey::new(folder.0.clone()), Vec::new());
        let mut is_busy = true;
        let mut visit = |dir: &Path, _: &[Entry], _| {
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
    fn a_survey_shows_what_comes_back_and_waits_for_what_does_not_yet() {
        let folder = Folder::new();
        fs::create_dir_all(folder.0.join("a/d")).unwrap();
        let held = Held::take(&folder.0.join("a/d"), Kind::Source).unwrap();
        let mut visit = |_: &Path, _: &[Entry], _| Ok(0);
        let mut survey = Survey::new(folder.0.clone());
        let put_off = survey.advance(&mut 100, &mut visit).unwrap_err();
        assert_eq!(put_off.kind(), ErrorKind::WouldBlock);
        // The holder ends.
        drop(held);
        assert!(survey.advance(&mut 100, &mut visit).unwrap());
        assert!(folder.0.join("a/d").is_dir());
    }
}
