//! The directories in which this process has recently taken locks. After a tree was searched for
//! locks, the log shows whether the result still holds, so that the tree need not be searched
//! again.
//!
//! Knows nothing of the locks themselves, nor of locks that other processes take (RFC 4918, section
//! 7).

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The number of directories that are remembered. An older entry counts as one in any directory.
const MAX_PLACES: usize = 256;

/// The number of entries so far, and the directories of the last ones.
#[derive(Debug)]
struct LockLog {
    count: u64,
    places: VecDeque<PathBuf>,
}

/// The log is shared by all servers of this process.
static LOG: Mutex<LockLog> = Mutex::new(LockLog { count: 0, places: VecDeque::new() });

fn log() -> MutexGuard<'static, LockLog> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that a lock may have been taken in the directory `dir`, whose path has no symbolic links
/// in it.
pub fn note(dir: &Path) {
    let mut log = log();
    log.count += 1;
    if log.places.len() == MAX_PLACES {
        log.places.pop_front();
    }
    log.places.push_back(dir.to_path_buf());
}

/// Returns the number of entries so far.
pub fn count() -> u64 {
    log().count
}

/// Returns whether an entry later than the first `count` lies in `tree`, whose path has no symbolic
/// links in it.
pub fn was_one_in(tree: &Path, count: u64) -> bool {
    let log = log();
    let new = usize::try_from(log.count.saturating_sub(count)).unwrap_or(usize::MAX);
    let mut places = log.places.iter().rev().take(new);
    new > log.places.len() || places.any(|dir| dir.starts_with(tree))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locking_is_noticed_in_its_tree_until_too_many_were_there() {
        let (tree, other) = (Path::new("/locked/tree"), Path::new("/locked/tree2"));
        let before = count();
        assert!(!was_one_in(tree, before));
        note(other);
        assert!(!was_one_in(tree, before) && was_one_in(other, before));
        note(&tree.join("a"));
        assert!(was_one_in(tree, before) && !was_one_in(tree, count()));
        (0..MAX_PLACES).for_each(|_| note(other));
        assert!(was_one_in(tree, before) && was_one_in(Path::new("/elsewhere"), before));
    }
}
