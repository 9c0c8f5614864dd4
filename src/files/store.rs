//! The files of a server: the cache of what was read, the paths of requests that were resolved
//! before, and the files that options hide.
//!
//! Owns the number of the present look, within which a file is compared with the file system at
//! most once. Knows nothing of requests.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use super::cache::Cache;
use super::known::{Entry, Known};
use super::mime::Types;
use super::passwords::{Passwords, Search};
use super::patience::{Patience, Trail};
use super::secrets::Secrets;
use super::shortcuts::Shortcuts;

/// The cache, the shortcuts and the secrets of a server, with the present look.
pub struct Store {
    pub cache: Cache,
    pub shortcuts: Shortcuts,
    pub secrets: Secrets,
    pub passwords: Passwords,
    /// The number of the present look. Each cached file is compared with the file system once in a
    /// look. A new look begins with each turn, and whenever bytes were received or the program was
    /// called: older knowledge may be older than the request that is to be answered.
    look: u64,
    /// The last look in which files were looked up.
    asked_in: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            cache: Cache::new(0, 0, Types::default()),
            shortcuts: Shortcuts::default(),
            secrets: Secrets::new(),
            passwords: Passwords::default(),
            look: 0,
            asked_in: 0,
        }
    }
}

impl Store {
    /// Returns the number of the present look.
    pub fn look(&self) -> u64 {
        self.look
    }

    /// Begins a new look, since files may have changed.
    #[inline]
    pub fn look_again(&mut self) {
        self.look += 1;
    }

    /// Notes that a file is looked up in the present look.
    pub fn ask(&mut self) {
        self.asked_in = self.look;
    }

    /// Returns whether a file was looked up in the present look.
    pub fn was_asked(&self) -> bool {
        self.asked_in == self.look
    }

    /// Returns the file at `path`; see [`Cache::get`] for the meaning of errors.
    pub fn get(&mut self, path: &Path) -> io::Result<Entry> {
        self.cache.get(path, self.look)
    }

    /// Returns a password file as [`Store::get`] does; of one on a slow file system the whole content.
    pub fn get_passwords(&mut self, path: &Path) -> io::Result<Entry> {
        self.cache.get_passwords(path, self.look)
    }

    /// Returns whether the request that is being decided has to wait for a slow file system. Nothing that
    /// is decided about it then counts: it is decided anew.
    #[inline]
    pub fn is_asking(&self) -> bool {
        self.cache.patience.is_asking()
    }

    /// Returns what else a helper has found out about a place, if the file there was looked for by one.
    pub fn trail(&self, full: &Path) -> Option<Arc<Trail>> {
        self.cache.patience.finding(full).map(|finding| finding.trail.clone())
    }

    /// Returns whether the file at a path, which [`Store::get`] has returned, is hidden.
    pub fn hides(&self, full: &Path, known: &Known) -> bool {
        hides(&self.secrets, &self.cache.patience, full, known)
    }

    /// Returns whether the file at a path is hidden, or would be if it existed. What is returned while the
    /// request has to wait does not count.
    pub fn hides_at(&mut self, full: &Path) -> bool {
        if self.secrets.is_empty() {
            return false;
        }
        if self.cache.patience.is_on() {
            let found = self.get(full);
            if self.is_asking() {
                return true;
            }
            if let Some(trail) = self.trail(full) {
                return match (found, trail.id) {
                    (Ok(known), _) => self.hides(full, &known),
                    (Err(_), Some(id)) if trail.is_link => {
                        self.secrets.hides_link(full, &id, trail.end.as_deref())
                    }
                    (Err(_), Some(id)) => self.secrets.hides(full, &id, false),
                    (Err(error), None) if error.kind() == ErrorKind::IsADirectory => false,
                    (Err(_), None) => self.secrets.hides_name(full),
                };
            }
        }
        self.secrets.hides_at(full)
    }

    /// Returns whether a symbolic link that is not followed is on the way to a path; see [`Links::bar`].
    pub fn bar(&self, path: &Path) -> io::Result<bool> {
        self.cache.links.bar(path)
    }

    /// Looks for a user in a password file that [`Store::get`] has returned in the present look.
    pub fn find_password(
        &mut self,
        file: &Known,
        domain: &[u8],
        user: &[u8],
    ) -> io::Result<Search> {
        self.passwords.find(file, self.look, domain, user)
    }

    /// Returns the file that the path of a request stands for, if it was found before, needs no
    /// password and is not hidden.
    pub fn find(&mut self, path: &[u8]) -> Option<Entry> {
        let (known, file) = self.shortcuts.find(path, &mut self.cache, self.look)?;
        (!hides(&self.secrets, &self.cache.patience, file, &known)).then_some(known)
    }
}

/// Returns whether a file is hidden. A link that a helper has followed is not followed again.
#[inline]
fn hides(secrets: &Secrets, patience: &Patience, full: &Path, known: &Known) -> bool {
    if known.is_link
        && !secrets.is_empty()
        && let Some(finding) = patience.finding(full)
    {
        return secrets.hides_link(full, &known.id, finding.trail.end.as_deref());
    }
    secrets.hides(full, &known.id, known.is_link)
}
