//! Work on whole trees of directories, in portions: removing, copying, and searching them. Owns the
//! way through a tree; knows nothing of requests.
//!
//! Symbolic links are never followed: they are removed, and copied, as links.

mod copying;
mod removal;
mod survey;

use std::ffi::OsString;
use std::fs::{self, FileType};
use std::io;
use std::path::Path;
use std::vec::IntoIter;

pub use self::copying::{FILE_PIECE, FILE_PIECE_COST, FileCopy, TreeCopy, Uncopied, copy_link};
pub use self::removal::{Discard, Removal, changed_of};
pub use self::survey::Survey;
use super::store::STATE;

/// The entries of a directory, with their types.
type Entries = IntoIter<(OsString, FileType)>;

/// Reads all entries of a directory at once.
fn read_entries(dir: &Path) -> io::Result<Entries> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        entries.try_reserve(1)?;
        entries.push((entry.file_name(), entry.file_type()?));
    }
    Ok(entries.into_iter())
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
        let mut visit = |dir: &Path, entries: &[(OsString, FileType)]| {
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
}
