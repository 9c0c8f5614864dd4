//! A search through all directories of a tree, in portions.
//!
//! Puts held files back on its way, since the locks in those count, too. Knows nothing of what is
//! searched for.

use std::ffi::OsString;
use std::fs::FileType;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::{Entries, is_own, read_entries};
use crate::dav::set_aside::{Kind, sweep};

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
            let entries = match read_with_held(&dir) {
                Ok(entries) => entries,
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
            let cost = visit(&dir, entries.as_slice())?;
            *budget = budget.saturating_sub(1 + entries.len() + cost);
            self.dirs.pop();
            let inside = entries.filter(|(name, kind)| kind.is_dir() && !is_own(name.as_bytes()));
            self.dirs.extend(inside.map(|(name, _)| dir.join(name)));
        }
        Ok(self.dirs.is_empty())
    }
}

/// Reads the entries of a directory once all held files have been put back, since the locks in
/// those count, too. An error of the kind `WouldBlock` says that another process still holds a
/// file.
fn read_with_held(dir: &Path) -> io::Result<Entries> {
    let is_held = |(name, _): &(OsString, FileType)| Kind::of(name.as_bytes()).is_some();
    let entries = read_entries(dir)?;
    if !entries.as_slice().iter().any(is_held) {
        return Ok(entries);
    }
    // The directories that are to be removed are found again when this one is removed or swept.
    drop(sweep(dir)?);
    let entries = read_entries(dir)?;
    match entries.as_slice().iter().any(is_held) {
        true => Err(ErrorKind::WouldBlock.into()),
        false => Ok(entries),
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
    fn a_survey_shows_what_comes_back_and_waits_for_what_does_not_yet() {
        let folder = Folder::new();
        fs::create_dir_all(folder.0.join("a/d")).unwrap();
        let held = Held::take(&folder.0.join("a/d"), Kind::Source).unwrap();
        let mut visit = |_: &Path, _: &[(OsString, FileType)]| Ok(0);
        let mut survey = Survey::new(folder.0.clone());
        let put_off = survey.advance(&mut 100, &mut visit).unwrap_err();
        assert_eq!(put_off.kind(), ErrorKind::WouldBlock);
        // The holder ends.
        drop(held);
        assert!(survey.advance(&mut 100, &mut visit).unwrap());
        assert!(folder.0.join("a/d").is_dir());
    }
}
