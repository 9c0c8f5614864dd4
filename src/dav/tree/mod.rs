//! Work on whole trees of directories, in portions: removing, copying, and searching them. Owns the
//! way through a tree; knows nothing of requests.
//!
//! Symbolic links are never followed: they are removed, and copied, as links.

mod copying;
mod removal;
mod survey;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, FileType, ReadDir};
use std::io;
use std::path::Path;

pub use self::copying::{FILE_PIECE, FILE_PIECE_COST, FileCopy, TreeCopy, Uncopied, copy_link};
pub use self::removal::{Discard, Failure, Removal, changed_of};
pub use self::survey::Survey;
use super::store::STATE;

/// The number of names of a directory that are read in the time of one unit of the budget.
pub const NAMES_PER_UNIT: usize = 16;

/// The name of a file in a directory, and its type.
type Entry = (OsString, FileType);

/// The entries of a directory, which are read in portions, and all of them before the first is used.
#[derive(Debug, Default)]
struct Entries {
    /// The names that are still to be read; `None` once all are.
    rest: Option<ReadDir>,
    entries: VecDeque<Entry>,
    /// The state file, which comes last.
    state: Option<Entry>,
}

impl Entries {
    fn of(dir: &Path) -> io::Result<Entries> {
        Ok(Entries { rest: Some(fs::read_dir(dir)?), ..Entries::default() })
    }

    /// Reads the next portion, even if nothing is left of the budget. Returns true once all are read.
    fn read(&mut self, budget: &mut usize) -> io::Result<bool> {
        while let Some(rest) = &mut self.rest {
            for _ in 0..NAMES_PER_UNIT {
                let Some(entry) = rest.next().transpose()? else {
                    self.rest = None;
                    self.entries.extend(self.state.take());
                    return Ok(true);
                };
                let entry = (entry.file_name(), entry.file_type()?);
                if entry.0 == STATE {
                    self.state = Some(entry);
                    continue;
                }
                // One more for the state file.
                self.entries.try_reserve(2)?;
                self.entries.push_back(entry);
            }
            *budget = budget.saturating_sub(1);
            if *budget == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the next entry.
    fn next(&mut self) -> Option<Entry> {
        self.entries.pop_front()
    }

    /// Puts an entry back to be the next one.
    fn put_back(&mut self, entry: Entry) {
        self.entries.push_front(entry);
    }
}

/// Returns whether a name is a hidden one of this server.
fn is_own(name: &[u8]) -> bool {
    name.starts_with(STATE.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::copying::FILE_PIECE;
    use super::*;
    use crate::dav::store;
    use crate::dav::xml::Name;
    use crate::test_folder::Folder;
    use std::os::unix::fs::PermissionsExt as _;

    pub fn sample(root: &Path) {
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("a"), "1").unwrap();
        fs::write(root.join("d/b"), vec![7; FILE_PIECE * 2 + 1]).unwrap();
        fs::write(root.join("d/.htpasswd"), "x").unwrap();
        fs::write(root.join("d/.mongoose-dav.123"), "temporary").unwrap();
        fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o640)).unwrap();
    }

    pub fn shown(root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut survey = Survey::new(root.to_path_buf());
        let mut visit = |dir: &Path, entries: &[(OsString, FileType)], _| {
            for (name, _) in entries {
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
        let mut visit = |dir: &Path, _: &[(OsString, FileType)], _| Ok(store::load(dir, 0)?.cost());
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
}
