//! Removes the hidden files and directories that work which was cut short has left behind: those of
//! this process at once, those of other processes in the directories that requests name.
//!
//! Knows nothing of requests, and finds the hidden names by `set_aside`. Works in portions, as a
//! directory may hold a large tree.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::set_aside::Sweep;
use super::sorted::Sorted;
use super::tree::{Discard, Removal};

/// The number of directories that are remembered.
const MAX_DIRS: usize = 4096;
/// The time until a directory is swept again, in seconds: other processes may have been killed
/// meanwhile.
const MEMORY: u64 = 60;
/// The part of a sweep that is done at once, in units of a budget.
const FIRST_PORTION: usize = 64;

/// The removals that are left to do, and the directories that were swept recently.
#[derive(Debug, Default)]
pub struct Sweeper {
    /// The directories that were swept, and when, in seconds since 1970.
    dirs: Sorted<PathBuf, u64>,
    /// The directories that are being swept.
    sweeps: VecDeque<Sweep>,
    found: VecDeque<Removal>,
    own: VecDeque<Leftover>,
}

/// A removal that this process has begun.
#[derive(Debug)]
enum Leftover {
    Removal(Removal),
    Discard(Discard),
}

impl Sweeper {
    /// Sweeps a directory, unless it was swept recently. The directories found in it are removed by
    /// [`Sweeper::advance`].
    pub fn visit(&mut self, dir: &Path, unix: u64) {
        if self.dirs.get(dir).is_some_and(|swept| unix.abs_diff(*swept) < MEMORY) {
            return;
        }
        if self.dirs.len() >= MAX_DIRS {
            self.dirs.clear();
        }
        self.dirs.insert(dir.to_path_buf(), unix);
        // Files that this process may not remove stay, and do not hinder the request.
        let Ok(sweep) = Sweep::of(dir) else { return };
        self.sweeps.push_back(sweep);
        // A directory of ordinary size is swept before the request goes on.
        self.sweep(&mut { FIRST_PORTION });
    }

    /// Returns whether all directories that were visited are swept.
    pub fn has_swept(&self) -> bool {
        self.sweeps.is_empty()
    }

    /// Does the next portion of the sweeps. Returns true once there are none left.
    fn sweep(&mut self, budget: &mut usize) -> bool {
        while let Some(sweep) = self.sweeps.front_mut() {
            let mut dirs = Vec::new();
            let is_done = sweep.advance(budget, &mut dirs);
            self.found.extend(dirs.into_iter().map(Removal::of_hidden));
            if !is_done {
                return false;
            }
            self.sweeps.pop_front();
        }
        true
    }

    /// Takes over a removal whose request was given up.
    pub fn remove(&mut self, removal: Removal) {
        self.own.push_back(Leftover::Removal(removal));
    }

    /// Takes over the removal of a held file, whose request was given up.
    pub fn discard(&mut self, discard: Discard) {
        self.own.push_back(Leftover::Discard(discard));
    }

    pub fn is_idle(&self) -> bool {
        self.sweeps.is_empty() && self.found.is_empty() && self.own.is_empty()
    }

    /// Goes on with the sweeps, and removes directories that were found. Returns true once there are none left.
    pub fn advance(&mut self, budget: &mut usize) -> bool {
        if !self.sweep(budget) {
            return false;
        }
        while let Some(removal) = self.found.front_mut() {
            if !removal.advance(budget) {
                return false;
            }
            self.found.pop_front();
        }
        true
    }

    /// Does the next portion of all removals, also of those that no request waits for.
    pub fn tidy(&mut self, mut budget: usize) {
        if !self.advance(&mut budget) {
            return;
        }
        while budget > 0
            && let Some(leaving) = self.own.front_mut()
        {
            let done = match leaving {
                Leftover::Removal(removal) => removal.advance(&mut budget),
                Leftover::Discard(discard) => discard.advance(&mut budget).is_some(),
            };
            if done {
                self.own.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::set_aside::{Held, Kind};
    use super::super::temporary::fresh_name;
    use super::*;
    use crate::test_folder::Folder;
    use std::fs;

    #[test]
    fn a_directory_is_swept_once_in_a_while() {
        let folder = Folder::new();
        let left = fresh_name(&folder.0);
        fs::create_dir_all(left.join("a/b")).unwrap();
        fs::write(fresh_name(&folder.0), "").unwrap();
        let mut sweeper = Sweeper::default();
        sweeper.visit(&folder.0, 100);
        let mut portions = 1;
        while !sweeper.advance(&mut 1) {
            portions += 1;
        }
        assert!(portions > 2, "{portions}");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
        fs::write(fresh_name(&folder.0), "").unwrap();
        sweeper.visit(&folder.0, 100 + MEMORY - 1);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
        sweeper.visit(&folder.0, 100 + MEMORY);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    }

    #[test]
    fn what_is_left_to_it_is_removed() {
        let folder = Folder::new();
        let mut sweeper = Sweeper::default();
        for name in ["a", "b"] {
            let path = folder.0.join(name);
            fs::create_dir_all(path.join("c/d")).unwrap();
            match name {
                "a" => sweeper.remove(Removal::new(path)),
                _ => sweeper.discard(Discard::of(Held::take(&path, Kind::Doomed).unwrap())),
            }
        }
        let mut portions = 0;
        while !sweeper.is_idle() {
            sweeper.tidy(1);
            portions += 1;
        }
        assert!(portions > 6, "{portions}");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    }
}
