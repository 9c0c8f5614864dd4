//! A cache of files: the content of small ones, open descriptors of larger ones, and the fields
//! that describe them. Knows paths of files only, and nothing of requests or of who may see a file.
//! Follows `stat(2)`.
//!
//! An entry is compared with the file system at most once in each look. Looks are numbered by the
//! caller, who begins a new one whenever a file may have changed: a change from before a look began
//! is always seen in it. The comparison is of device, inode, size, and the times of the last change
//! of content and of inode, to the nanosecond. A file that was read so soon after a change that
//! another change could have the same time is not trusted beyond the look.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use foldhash::fast::RandomState;

pub use super::known::{Content, Entry, Known};
use super::links::Links;
use super::load::{Identity, Loaded, is_exhaustion, load};
pub use super::load::{is_absence, is_failure, status_of};
use super::mime::Types;
use super::patience::{Finding, Looked, Patience, Report, Way};

/// The largest size of a file whose content is kept, in bytes: copying more than that costs more
/// than the two calls that let the kernel send it from the file.
const SMALL_FILE: u64 = 8 << 10;
/// The same size where no more descriptors may be kept.
const MEDIUM_FILE: u64 = 32 << 10;
/// The same size for password files that a helper reads.
const MAX_PASSWORDS: u64 = 16 << 20;
/// The number of paths without a file that are remembered for the rest of a look.
const MAX_REFUSALS: usize = 1024;

/// An entry in the list of entries, which is sorted by last use.
#[derive(Debug)]
struct Slot {
    path: Arc<OsStr>,
    known: Entry,
    identity: Identity,
    /// Whether the file is compared with the file system, since a change is certain to show, and that takes
    /// no time.
    compares: bool,
    /// The look in which it was last compared with the file system.
    look: u64,
    /// The indexes of the neighbours in the list.
    newer: usize,
    older: usize,
}

/// The index of no slot.
const NONE: usize = usize::MAX;
/// The number of no look.
const NEVER: u64 = 0;

/// A cache of files that removes the least recently used entries first.
#[derive(Debug)]
pub struct Cache {
    /// The largest cost of all entries together, in bytes. With 0 nothing is kept.
    budget: usize,
    max_open: usize,
    types: Types,
    /// The symbolic links that are followed.
    pub links: Links,
    /// The way around looks that take long.
    pub patience: Patience,
    /// The indexes of slots by the bytes of the path: a `Path` is equal to itself with a slash
    /// behind it, but the two name different files.
    indexes: HashMap<Arc<OsStr>, usize, RandomState>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    newest: usize,
    oldest: usize,
    cost: usize,
    open: usize,
    /// The paths without a file in the look `refused_in`, with the kind of the error.
    refusals: HashMap<OsString, io::ErrorKind, RandomState>,
    refused_in: u64,
    /// The number of comparisons with the file system.
    #[cfg(test)]
    pub asked: usize,
}

impl Cache {
    /// Creates an empty cache. `max_open` bounds the descriptors that are kept open.
    pub fn new(budget: usize, max_open: usize, types: Types) -> Cache {
        Cache {
            budget,
            max_open,
            types,
            links: Links::default(),
            patience: Patience::default(),
            indexes: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            cost: 0,
            open: 0,
            refusals: HashMap::default(),
            refused_in: 0,
            #[cfg(test)]
            asked: 0,
        }
    }

    /// Returns the file at `path`. The error `IsADirectory` means a directory. `InvalidInput` means
    /// another kind of file, which is never opened, or a link that leads nowhere. Any error may mean
    /// that the request has to wait; see [`Patience::is_asking`].
    pub fn get(&mut self, path: &Path, look: u64) -> io::Result<Entry> {
        self.get_sized(path, look, SMALL_FILE)
    }

    /// Returns a password file as [`Cache::get`] does; of one on a slow file system the whole content, since it
    /// is searched at once.
    pub fn get_passwords(&mut self, path: &Path, look: u64) -> io::Result<Entry> {
        self.get_sized(path, look, MAX_PASSWORDS)
    }

    /// Returns a file as [`Cache::get`] does, about which the file system is known to answer at once.
    pub fn get_at_once(&mut self, path: &Path, look: u64) -> io::Result<Entry> {
        let is_on = self.patience.pause();
        let found = self.get_sized(path, look, SMALL_FILE);
        self.patience.resume(is_on);
        found
    }

    /// Does the work of [`Cache::get`]. If the file system is slow, content up to `small` bytes is read
    /// at once.
    #[inline]
    fn get_sized(&mut self, path: &Path, look: u64, small: u64) -> io::Result<Entry> {
        if let Some(&index) = self.indexes.get(path.as_os_str())
            && let Some(slot) = &self.slots[index]
        {
            let known = slot.known.clone();
            if slot.look == look {
                return Ok(known);
            }
            #[cfg(test)]
            {
                self.asked += 1;
            }
            if slot.compares
                && self.links.metadata(path).is_ok_and(|m| Identity::of(&m) == slot.identity)
            {
                self.use_again(index, look);
                return Ok(known);
            }
            if self.patience.is_on() && known.is_slow() {
                let previous = (known, slot.identity);
                return self.get_patiently(path, small, Some(previous));
            }
            self.remove(index);
        }
        if self.refused_in != look {
            self.refused_in = look;
            self.refusals.clear();
        }
        if let Some(kind) = self.refusals.get(path.as_os_str()) {
            return Err((*kind).into());
        }
        if self.patience.is_on() {
            if self.patience.finding(path).is_some() {
                return self.get_patiently(path, small, None);
            }
            match self.patience.way_to(path) {
                Way::Direct => {}
                Way::Long => return self.get_patiently(path, small, None),
                Way::Refused(error) => {
                    self.refuse(path, error.kind());
                    return Err(error);
                }
            }
        }
        match self.load(path) {
            Ok((known, identity, compares)) => {
                self.keep(path, known.clone(), identity, compares, look);
                Ok(known)
            }
            Err(error) => {
                self.refuse(path, error.kind());
                Err(error)
            }
        }
    }

    /// Returns what a helper has found for the present request, or has one look.
    #[cold]
    fn get_patiently(
        &mut self,
        path: &Path,
        small: u64,
        previous: Option<(Entry, Identity)>,
    ) -> io::Result<Entry> {
        if let Some(Finding { file, .. }) = self.patience.finding(path) {
            return file.clone().map_err(io::Error::from);
        }
        self.patience.ask(path, small, previous, &self.links);
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Takes what a helper has found. It is no knowledge of any look: the next request that wants it has
    /// to ask again.
    pub fn take_report(&mut self, mut report: Report) -> Finding {
        self.patience.note(&report);
        let trail = report.take_trail();
        let path = report.path;
        let (known, identity, compares) = match report.found {
            Ok(Looked::Same(known, identity)) => (known, identity, false),
            Ok(Looked::New(loaded)) => self.describe(&path, *loaded),
            Err(error) => return Finding { file: Err((&error).into()), trail },
        };
        if let Some(&index) = self.indexes.get(path.as_os_str()) {
            self.remove(index);
        }
        self.keep(&path, known.clone(), identity, compares, NEVER);
        Finding { file: Ok(known), trail }
    }

    /// Removes all entries.
    #[cfg(test)]
    fn clear(&mut self) {
        let types = std::mem::take(&mut self.types);
        *self = Cache::new(self.budget, self.max_open, types);
    }

    /// Closes the descriptors that are kept, except for those that a response is still sent from.
    pub fn close_files(&mut self) {
        for index in 0..self.slots.len() {
            let is_open = |slot: &Slot| slot.known.is_open();
            if self.slots[index].as_ref().is_some_and(is_open) {
                self.remove(index);
            }
        }
    }

    /// Remembers a path without a file. Some are looked up again and again, as the password file of
    /// each directory.
    #[inline]
    fn refuse(&mut self, path: &Path, kind: io::ErrorKind) {
        use io::ErrorKind::{InvalidInput, IsADirectory, NotADirectory, NotFound};
        let lasts = matches!(kind, NotFound | NotADirectory | IsADirectory | InvalidInput);
        if lasts && self.refusals.len() < MAX_REFUSALS {
            self.refusals.insert(path.as_os_str().to_owned(), kind);
        }
    }

    /// Reads a file that is not in the cache.
    fn load(&mut self, path: &Path) -> io::Result<(Entry, Identity, bool)> {
        let small = if self.open < self.max_open { SMALL_FILE } else { MEDIUM_FILE };
        let load = |cache: &Self| load(path, small, &cache.links, &cache.patience.devices);
        let loaded = match load(self) {
            // No request may fail because the cache holds too many descriptors.
            Err(error) if is_exhaustion(&error) && self.open > 0 => {
                self.close_files();
                load(self)
            }
            loaded => loaded,
        };
        let loaded = loaded?;
        self.patience.devices.note(loaded.meta.dev(), loaded.is_local);
        Ok(self.describe(path, loaded))
    }

    /// Returns the description of a file that was read, its identity, and whether it is to be compared
    /// with that.
    fn describe(&self, path: &Path, loaded: Loaded) -> (Entry, Identity, bool) {
        let Loaded { content, meta, is_link, settled, is_local } = loaded;
        let media_type = self.types.media_type(path.as_os_str().as_bytes());
        let mut known = Known::new(content, &meta, is_link, settled, &media_type);
        if !is_local {
            known.closer = self.patience.closer.clone();
        }
        (Arc::new(known), Identity::of(&meta), settled && is_local)
    }

    /// Inserts an entry, and removes others to stay within the budget.
    fn keep(&mut self, path: &Path, known: Entry, identity: Identity, compares: bool, look: u64) {
        let cost = known.cost(path.as_os_str());
        let is_open = known.is_open();
        if cost > self.budget || is_open && self.max_open == 0 {
            return;
        }
        while self.cost + cost > self.budget {
            self.remove(self.oldest);
        }
        if is_open && self.open >= self.max_open {
            self.remove_oldest_open();
        }
        self.cost += cost;
        self.open += usize::from(is_open);
        let path: Arc<OsStr> = path.as_os_str().into();
        let slot =
            Slot { path: path.clone(), known, identity, compares, look, newer: NONE, older: NONE };
        let index = self.free.pop().unwrap_or(self.slots.len());
        if index == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[index] = Some(slot);
        self.indexes.insert(path, index);
        self.link_newest(index);
    }

    fn use_again(&mut self, index: usize, look: u64) {
        self.unlink(index);
        self.link_newest(index);
        if let Some(slot) = &mut self.slots[index] {
            slot.look = look;
        }
    }

    fn remove_oldest_open(&mut self) {
        let mut index = self.oldest;
        while let Some(slot) = self.slots.get(index).and_then(Option::as_ref) {
            if slot.known.is_open() {
                self.remove(index);
                return;
            }
            index = slot.newer;
        }
    }

    fn remove(&mut self, index: usize) {
        self.unlink(index);
        if let Some(slot) = self.slots.get_mut(index).and_then(Option::take) {
            self.indexes.remove(&slot.path);
            self.cost -= slot.known.cost(&slot.path);
            self.open -= usize::from(slot.known.is_open());
            self.free.push(index);
        }
    }

    /// Inserts a slot at the start of the list.
    #[inline]
    fn link_newest(&mut self, index: usize) {
        let second = std::mem::replace(&mut self.newest, index);
        if let Some(slot) = &mut self.slots[index] {
            slot.newer = NONE;
            slot.older = second;
        }
        match self.slots.get_mut(second).and_then(Option::as_mut) {
            Some(slot) => slot.newer = index,
            None => self.oldest = index,
        }
    }

    /// Removes a slot from the list.
    #[inline]
    fn unlink(&mut self, index: usize) {
        let Some(slot) = self.slots.get(index).and_then(Option::as_ref) else {
            debug_assert!(false, "a slot without an entry is in the list");
            return;
        };
        let (newer, older) = (slot.newer, slot.older);
        match self.slots.get_mut(newer).and_then(Option::as_mut) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.slots.get_mut(older).and_then(Option::as_mut) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_folder::Folder;
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::time::{Duration, UNIX_EPOCH};

    /// Waits until a change counts as settled.
    fn settle() {
        std::thread::sleep(Duration::from_millis(150));
    }

    fn cache() -> Cache {
        Cache::new(1 << 20, 4, Types::default())
    }

    #[test]
    fn a_slash_behind_a_file_leads_elsewhere() {
        let folder = Folder::new();
        let path = folder.write("file", "x");
        let with_slash = PathBuf::from(format!("{}/", path.display()));
        for first in [&path, &with_slash] {
            let mut cache = cache();
            let _ = cache.get(first, 1);
            assert!(cache.get(&path, 1).is_ok());
            let error = cache.get(&with_slash, 1).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        }
    }

    fn text(entry: &Entry) -> String {
        match &entry.content {
            Content::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Content::Open(_) => format!("open {}", entry.len),
        }
    }

    #[test]
    fn the_fields_are_ready_made() {
        let folder = Folder::new();
        let path = folder.write("a.HTML", "hello");
        let time = UNIX_EPOCH + Duration::from_secs(784_111_777);
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        let entry = cache().get(&path, 1).unwrap();
        let expected = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nEtag: \"2ebc98a1.5\"\r\n\
                        Content-Type: text/html\r\nContent-Length: 5\r\n";
        assert_eq!(String::from_utf8_lossy(entry.fields()), expected);
        assert!(entry.fields_but_length().ends_with(b"text/html\r\n"));
        assert!(entry.validator_fields().ends_with(b".5\"\r\n"));
        assert_eq!(entry.etag(), "\"2ebc98a1.5\"");
        assert_eq!((entry.media_type(), entry.len, entry.modified), ("text/html", 5, 784_111_777));
        let extra = vec![(".html".to_owned(), "a/b".to_owned())];
        let types = Types { extra, charset: None };
        let entry = Cache::new(0, 0, types).get(&path, 1).unwrap();
        assert_eq!(entry.media_type(), "a/b");
    }

    #[test]
    fn a_change_is_seen_in_the_next_turn() {
        let folder = Folder::new();
        let path = folder.write("a", "one");
        let mut cache = cache();
        let first = cache.get(&path, 1).unwrap();
        // The length is the same, and the time may be the same so soon after the change.
        for (look, content) in (2..).zip(["two", "six", "ten", "a bit longer", ""]) {
            fs::write(&path, content).unwrap();
            assert_eq!(text(&cache.get(&path, look).unwrap()), content);
            fs::write(&path, "ONE").unwrap();
            assert_eq!(text(&cache.get(&path, look).unwrap()), content, "within the look");
        }
        assert_eq!(text(&first), "one");
    }

    #[test]
    fn what_has_not_changed_is_not_read_again() {
        let folder = Folder::new();
        let small = folder.write("small", "one");
        let large = folder.write("large", &"x".repeat(SMALL_FILE as usize + 1));
        settle();
        let mut cache = cache();
        for path in [&small, &large] {
            let first = cache.get(path, 1).unwrap();
            for look in [1, 2, 3] {
                assert!(Arc::ptr_eq(&first, &cache.get(path, look).unwrap()));
            }
        }
        assert_eq!(text(&cache.get(&large, 4).unwrap()), "open 8193");
        // A file that was renamed to the path is another one, even with the same size and time.
        let other = folder.write("other", "two");
        let time = fs::metadata(&small).unwrap().modified().unwrap();
        File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
        fs::rename(&other, &small).unwrap();
        assert_eq!(text(&cache.get(&small, 4).unwrap()), "two");
        // So is a file whose content was changed and whose time was set back.
        settle();
        cache.get(&small, 5).unwrap();
        fs::write(&small, "six").unwrap();
        File::options().write(true).open(&small).unwrap().set_modified(time).unwrap();
        assert_eq!(text(&cache.get(&small, 6).unwrap()), "six");
        fs::remove_file(&small).unwrap();
        assert_eq!(text(&cache.get(&small, 6).unwrap()), "six");
        let error = cache.get(&small, 7).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_no_file_is_an_error_that_lasts_for_the_turn() {
        let folder = Folder::new();
        let missing = folder.0.join("missing");
        let file = folder.write("file", "");
        let _socket = UnixListener::bind(folder.0.join("socket")).unwrap();
        symlink("loop", folder.0.join("loop")).unwrap();
        let table = [
            (folder.0.clone(), io::ErrorKind::IsADirectory),
            (folder.0.join("socket"), io::ErrorKind::InvalidInput),
            (missing.clone(), io::ErrorKind::NotFound),
            (file.join("x"), io::ErrorKind::NotADirectory),
            ("/dev/null".into(), io::ErrorKind::InvalidInput),
        ];
        let mut cache = cache();
        for (path, kind) in table {
            for look in [1, 1, 2] {
                assert_eq!(cache.get(&path, look).unwrap_err().kind(), kind, "{path:?}");
            }
        }
        assert!(cache.get(&folder.0.join("loop"), 2).is_err());
        assert!(cache.get(&missing, 2).is_err());
        folder.write("missing", "now");
        assert!(cache.get(&missing, 2).is_err());
        assert_eq!(text(&cache.get(&missing, 3).unwrap()), "now");
        for n in 0..2 * MAX_REFUSALS {
            cache.get(&folder.0.join(format!("no{n}")), 4).unwrap_err();
        }
        assert_eq!(cache.refusals.len(), MAX_REFUSALS);
    }

    #[test]
    fn a_change_of_mode_is_seen() {
        let folder = Folder::new();
        let path = folder.write("a", "one");
        settle();
        let mut cache = cache();
        let first = cache.get(&path, 1).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(!Arc::ptr_eq(&first, &cache.get(&path, 2).unwrap()));
    }

    #[test]
    fn what_was_used_last_stays() {
        let folder = Folder::new();
        let paths: Vec<PathBuf> = (0..4).map(|n| folder.write(&n.to_string(), "x")).collect();
        settle();
        let cost = cache().get(&paths[0], 1).unwrap().cost(paths[0].as_os_str());
        let mut cache = Cache::new(3 * cost, 4, Types::default());
        for (look, index) in (1..).zip([0, 1, 2, 0, 3]) {
            cache.get(&paths[index], look).unwrap();
        }
        let kept: Vec<bool> =
            paths.iter().map(|p| cache.indexes.contains_key(p.as_os_str())).collect();
        assert_eq!(kept, [true, false, true, true]);
        assert_eq!(cache.cost, 3 * cost);
        cache.clear();
        assert_eq!((cache.cost, cache.indexes.len()), (0, 0));
    }

    #[test]
    fn descriptors_are_bounded_and_can_be_closed() {
        let folder = Folder::new();
        let large = "x".repeat(MEDIUM_FILE as usize + 1);
        let mut cache = cache();
        let small = folder.write("small", "x");
        cache.get(&small, 1).unwrap();
        for n in 0..10 {
            let path = folder.write(&n.to_string(), &large);
            cache.get(&path, 1).unwrap();
        }
        assert_eq!((cache.open, cache.indexes.len()), (4, 5));
        // If no more descriptors may be kept, content up to a larger size is.
        let medium = folder.write("medium", &large[..MEDIUM_FILE as usize]);
        assert!(!cache.get(&medium, 1).unwrap().is_open());
        cache.close_files();
        assert_eq!((cache.open, cache.indexes.len()), (0, 2));
        assert!(
            cache
                .get(&folder.write("another", &large[..MEDIUM_FILE as usize]), 1)
                .unwrap()
                .is_open()
        );
        assert!(cache.indexes.contains_key(small.as_os_str()));
    }

    #[test]
    fn a_cache_without_budget_keeps_nothing() {
        let folder = Folder::new();
        let path = folder.write("a", "one");
        let mut cache = Cache::new(0, 4, Types::default());
        assert_eq!(text(&cache.get(&path, 1).unwrap()), "one");
        assert!(cache.indexes.is_empty());
        assert_eq!((cache.oldest, cache.newest), (NONE, NONE));
    }

    #[test]
    fn any_use_leaves_the_books_in_order() {
        let folder = Folder::new();
        let large = "x".repeat(SMALL_FILE as usize + 1);
        let name = |n: u64| folder.0.join(n.to_string());
        let mut cache = Cache::new(8 * 1024, 2, Types::default());
        let mut random = 1u64;
        for look in 0..2000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let path = name((random >> 33) % 20);
            match (random >> 40) % 8 {
                0 => fs::write(&path, &large).unwrap(),
                1 => fs::write(&path, "x".repeat((random >> 50) as usize % 3000)).unwrap(),
                2 => drop(fs::remove_file(&path)),
                _ => {}
            }
            assert_eq!(cache.get(&path, look).is_ok(), path.exists());
            let slots = || cache.slots.iter().flatten();
            let cost: usize = slots().map(|slot| slot.known.cost(&slot.path)).sum();
            let open = slots().filter(|slot| slot.known.is_open()).count();
            assert_eq!((cache.cost, cache.open), (cost, open));
            assert!(cost <= cache.budget && open <= cache.max_open);
            let mut in_order = 0;
            let mut index = cache.oldest;
            while let Some(slot) = cache.slots.get(index).and_then(Option::as_ref) {
                assert_eq!(cache.indexes.get(&slot.path), Some(&index));
                in_order += 1;
                index = slot.newer;
            }
            assert_eq!(in_order, cache.indexes.len());
            assert_eq!(in_order, slots().count());
        }
    }
}
