//! The way from the path of a request to a plain file that everybody may see, for files that were
//! found before.
//!
//! Rewrites, patterns of hidden files and of programs give the same answer for the same path as
//! long as no option changes; only what the file system says is asked again.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;

use super::cache::{Cache, Entry, Known};

/// As many paths are remembered; then all are forgotten.
const MAX_PATHS: usize = 1024;

/// What is remembered. To be emptied when an option changes.
#[derive(Default)]
pub struct Shortcuts {
    paths: HashMap<Box<[u8]>, Shortcut, RandomState>,
}

struct Shortcut {
    file: PathBuf,
    /// A password file would be here.
    passwords: PathBuf,
    /// When `known` was found, and nothing at `passwords`.
    look: u64,
    /// The cache alone decides how long it is kept.
    known: Weak<Known>,
}

impl Shortcuts {
    /// The file that the path of a request stands for, and where it is, if it is there and needs no
    /// password.
    pub fn find(&mut self, path: &[u8], cache: &mut Cache, look: u64) -> Option<(Entry, &Path)> {
        let shortcut = self.paths.get_mut(path)?;
        if shortcut.look == look
            && let Some(known) = shortcut.known.upgrade()
        {
            return Some((known, &shortcut.file));
        }
        let known = cache.get(&shortcut.file, look).ok()?;
        match cache.get(&shortcut.passwords, look) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            _ => return None,
        }
        shortcut.look = look;
        shortcut.known = Arc::downgrade(&known);
        Some((known, &shortcut.file))
    }

    /// Remembers where a path leads to.
    pub fn add(&mut self, path: &[u8], file: PathBuf, passwords: PathBuf) {
        if self.paths.len() >= MAX_PATHS {
            self.paths.clear();
        }
        // Looks begin at 1.
        self.paths.insert(path.into(), Shortcut { file, passwords, look: 0, known: Weak::new() });
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.paths.clear();
    }
}
