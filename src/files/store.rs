//! Files as a server knows them: what was read of them, the ways to them that were found before, and
//! which of them are nobody's business. All of it is good for one look at the file system.

use std::io;
use std::path::Path;

use super::cache::{Cache, Entry};
use super::secrets::Secrets;
use super::shortcuts::Shortcuts;

/// See the module.
pub struct Store {
    pub cache: Cache,
    pub shortcuts: Shortcuts,
    pub secrets: Secrets,
    /// Looks at files so far: what is known is compared with the file system once in each. A new one begins
    /// with each turn, and whenever bytes were received or the program was called: what was found out
    /// before may be older than the request that is to be answered.
    look: u64,
    /// The look in which files were last asked for.
    asked_in: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            cache: Cache::new(0, 0, Vec::new()),
            shortcuts: Shortcuts::default(),
            secrets: Secrets::new(),
            look: 0,
            asked_in: 0,
        }
    }
}

impl Store {
    /// The number of the look that goes on.
    pub fn look(&self) -> u64 {
        self.look
    }

    /// Something may have changed: a new look begins.
    #[inline]
    pub fn look_again(&mut self) {
        self.look += 1;
    }

    /// Notes that files are asked for in this look.
    pub fn ask(&mut self) {
        self.asked_in = self.look;
    }

    /// Whether files were asked for in this look.
    pub fn was_asked(&self) -> bool {
        self.asked_in == self.look
    }

    /// The file at `path`; see [`Cache::get`] for what errors mean.
    pub fn get(&mut self, path: &Path) -> io::Result<Entry> {
        self.cache.get(path, self.look)
    }

    /// The file that the path of a request stands for, if it was found before, needs no password and is not
    /// hidden.
    pub fn find(&mut self, path: &[u8]) -> Option<Entry> {
        let (known, file) = self.shortcuts.find(path, &mut self.cache, self.look)?;
        (!self.secrets.hides(file, &known.id, known.is_link)).then_some(known)
    }
}
