//! Which directories were looked through for what work that was cut short has left behind.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};

use super::temporary::sweep;
use super::tree::Removal;

/// As many directories are remembered.
const MAX_DIRS: usize = 4096;

/// See the module. One for each process: what it leaves behind itself it still holds.
#[derive(Debug, Default)]
pub struct Sweeper {
    dirs: HashSet<PathBuf>,
    removals: VecDeque<Removal>,
}

impl Sweeper {
    /// Sweeps a directory, unless that was done before. Folders are left to
    /// [`Sweeper::advance`].
    pub fn visit(&mut self, dir: &Path) {
        if self.dirs.contains(dir) {
            return;
        }
        if self.dirs.len() >= MAX_DIRS {
            self.dirs.clear();
        }
        self.dirs.insert(dir.to_path_buf());
        // What may not be swept stays, and is no hindrance.
        let folders = sweep(dir).unwrap_or_default();
        self.removals.extend(folders.into_iter().map(Removal::new));
    }

    /// Removes folders that were left behind; true once there are none.
    pub fn advance(&mut self, budget: &mut usize) -> bool {
        while let Some(removal) = self.removals.front_mut() {
            if !removal.advance(budget) {
                return false;
            }
            self.removals.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::temporary::fresh_name;
    use super::super::test_folder::Folder;
    use super::*;
    use std::fs;

    #[test]
    fn a_directory_is_swept_once() {
        let folder = Folder::new();
        let left = fresh_name(&folder.0);
        fs::create_dir_all(left.join("a/b")).unwrap();
        fs::write(fresh_name(&folder.0), "").unwrap();
        let mut sweeper = Sweeper::default();
        sweeper.visit(&folder.0);
        let mut portions = 1;
        while !sweeper.advance(&mut 1) {
            portions += 1;
        }
        assert!(portions > 2, "{portions}");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
        fs::write(fresh_name(&folder.0), "").unwrap();
        sweeper.visit(&folder.0);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    }
}
