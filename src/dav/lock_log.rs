//! Where locks were taken lately: who has looked through a tree for locks learns whether that still
//! holds, without looking again.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// As many are remembered. Of what is forgotten it is supposed that it was anywhere.
const MAX_PLACES: usize = 256;

#[derive(Debug)]
struct LockLog {
    count: u64,
    places: VecDeque<PathBuf>,
}

/// Of all servers of this process. What others do while a tree is looked through is not noticed.
static LOG: Mutex<LockLog> = Mutex::new(LockLog { count: 0, places: VecDeque::new() });

fn log() -> MutexGuard<'static, LockLog> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that a lock may have been taken in a directory, whose path has no links in it.
pub fn note(dir: &Path) {
    let mut log = log();
    log.count += 1;
    if log.places.len() == MAX_PLACES {
        log.places.pop_front();
    }
    log.places.push_back(dir.to_path_buf());
}

/// How many there were so far.
pub fn count() -> u64 {
    log().count
}

/// Whether one of those since there were `count` was in a tree, whose path has no links in it.
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
