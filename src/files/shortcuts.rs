//! A shortcut from the path of a request to a file that needs no password, for files that were
//! found before.
//!
//! Knows nothing of how a path is resolved.
//!
//! Rewrites and the patterns of hidden files and of programs give the same result for the same path
//! as long as no option changes. Only the file system is asked again.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;

use super::cache::Cache;
use super::known::{Entry, Known};

/// The number of paths that are remembered. When it is reached, all are removed.
const MAX_PATHS: usize = 1024;

/// The paths that are remembered. They must be cleared when an option changes.
#[derive(Default)]
pub struct Shortcuts {
    paths: HashMap<Box<[u8]>, Shortcut, RandomState>,
}

/// The file that a path of a request stands for.
struct Shortcut {
    file: PathBuf,
    /// The path that a password file would have.
    passwords: PathBuf,
    /// Whether that lies in the same directory, and was not there when it was looked for.
    shares_directory: bool,
    /// The look in which `known` was found, and no file at `passwords`.
    look: u64,
    /// A weak reference to the file, since the cache alone decides how long a file is kept.
    known: Weak<Known>,
}

impl Shortcuts {
    /// Returns the file that the path of a request stands for, and its path, if the file exists and
    /// needs no password.
    pub fn find(&mut self, path: &[u8], cache: &mut Cache, look: u64) -> Option<(Entry, &Path)> {
        let shortcut = self.paths.get_mut(path)?;
        if shortcut.look == look
            && let Some(known) = shortcut.known.upgrade()
        {
            return Some((known, &shortcut.file));
        }
        let known = cache.get(&shortcut.file, look).ok()?;
        let found = match known.is_slow() || !shortcut.shares_directory {
            true => cache.get_passwords(&shortcut.passwords, look),
            // The kernel has just been there.
            false => cache.get_at_once(&shortcut.passwords, look),
        };
        match found {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            _ => {
                // It may be a link to anywhere.
                shortcut.shares_directory = false;
                return None;
            }
        }
        shortcut.look = look;
        shortcut.known = Arc::downgrade(&known);
        Some((known, &shortcut.file))
    }

    /// Remembers the file that the path of a request stands for.
    pub fn add(&mut self, path: &[u8], file: PathBuf, passwords: PathBuf) {
        if self.paths.len() >= MAX_PATHS {
            self.paths.clear();
        }
        let shares_directory = file.parent() == passwords.parent();
        // No look has the number 0.
        let (look, known) = (0, Weak::new());
        let shortcut = Shortcut { file, passwords, shares_directory, look, known };
        self.paths.insert(path.into(), shortcut);
    }

    /// Removes all paths.
    pub fn clear(&mut self) {
        self.paths.clear();
    }
}
