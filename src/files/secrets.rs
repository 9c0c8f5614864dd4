//! Files that are hidden because an option names them: keys, password files, logs. Decides only
//! whether a file is hidden; knows nothing of what the files hold, nor of names that are always
//! hidden (`resolve`).
//!
//! The files are recognized by device and inode (`stat(2)`), whatever name a client uses: the file
//! that the path of an option leads to now, and those that it led to before, as a log that has been
//! rotated, or the key in use after a new one was put in its place. A file that does not exist yet,
//! or that has just been written beside another, is recognized by name and directory.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The number of files that are remembered for one path.
const MAX_FORMER: usize = 8;
/// The number of symbolic links that are followed in one path, as in the kernel (`ELOOP`).
const MAX_LINKS: usize = 40;
/// The number of digits in the name of a new password file: the name of the old one, a dot, and
/// these digits.
const TEMPORARY_DIGITS: usize = 16;

/// The identity of a file, which also differs from that of a later file with the same inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    dev: u64,
    ino: u64,
    /// The time of creation, which not every file system stores.
    born: Option<SystemTime>,
}

impl FileId {
    pub fn of(meta: &Metadata) -> FileId {
        FileId { dev: meta.dev(), ino: meta.ino(), born: meta.created().ok() }
    }

    /// Returns whether both are the same file, as far as the file system can tell.
    fn is(&self, other: &FileId) -> bool {
        let may_be = self.born.is_none() || other.born.is_none() || self.born == other.born;
        (self.dev, self.ino) == (other.dev, other.ino) && may_be
    }
}

/// The options that name hidden files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Key,
    /// The certificates of authorities, if their file holds a key by mistake.
    Authorities,
    GlobalPasswords,
    DavPasswords,
    AccessLog,
    ErrorLog,
}

const PLACES: [Place; 6] = [
    Place::Key,
    Place::Authorities,
    Place::GlobalPasswords,
    Place::DavPasswords,
    Place::AccessLog,
    Place::ErrorLog,
];

/// The files that one option names.
#[derive(Debug)]
struct Secret {
    path: Option<PathBuf>,
    /// The path of the file that `path` leads to, if that is a symbolic link.
    end: Option<PathBuf>,
    /// The files that the path leads to or led to, the last one first.
    found: Vec<FileId>,
    /// The file in use, though the path may lead to another by now.
    in_use: Option<FileId>,
    /// Device and inode of the file that was last seen to be open.
    open: Option<(u64, u64)>,
}

impl Secret {
    const NONE: Secret =
        Secret { path: None, end: None, found: Vec::new(), in_use: None, open: None };

    fn note(&mut self, id: FileId) {
        self.found.retain(|known| *known != id);
        self.found.insert(0, id);
        self.found.truncate(MAX_FORMER);
    }

    /// Looks up the file that the path leads to now.
    fn look(&mut self) {
        let Some(path) = &self.path else { return };
        let Ok(meta) = fs::metadata(path) else { return };
        let id = FileId::of(&meta);
        if meta.is_file() && self.found.first() != Some(&id) {
            let is_link = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
            self.end = is_link.then(|| fs::canonicalize(path).ok()).flatten();
            self.note(id);
        }
    }

    /// Sets the path. The files that it led to before stay hidden.
    fn set(&mut self, path: Option<PathBuf>) {
        self.look();
        if let Some(before) = self.in_use.take() {
            self.note(before);
        }
        (self.path, self.end) = (path, None);
        self.look();
    }

    fn is(&self, id: &FileId) -> bool {
        self.found.iter().chain(&self.in_use).any(|known| known.is(id))
    }

    /// Returns the path, and the path that its symbolic links lead to.
    fn names(&self) -> impl Iterator<Item = &Path> {
        self.path.iter().chain(&self.end).map(PathBuf::as_path)
    }
}

/// The files that all options name.
#[derive(Debug)]
pub struct Secrets {
    places: [Secret; PLACES.len()],
    /// The files of a list of keys. Those of an earlier list that was longer stay behind.
    keys: Vec<Secret>,
    is_empty: bool,
    /// The look in which the paths were last followed.
    look: u64,
}

impl Default for Secrets {
    fn default() -> Secrets {
        Secrets::new()
    }
}

impl Secrets {
    pub const fn new() -> Secrets {
        Secrets { places: [Secret::NONE; PLACES.len()], keys: Vec::new(), is_empty: true, look: 0 }
    }

    /// Returns the files of all options, each with its place.
    fn all(&self) -> impl Iterator<Item = (Place, &Secret)> {
        let keys = self.keys.iter().map(|secret| (Place::Key, secret));
        PLACES.into_iter().zip(&self.places).chain(keys)
    }

    /// Returns whether no option has named a file yet.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Sets the path of an option. The files that it named before stay hidden.
    pub fn set(&mut self, place: Place, path: Option<PathBuf>) {
        self.is_empty &= path.is_none();
        self.places[place as usize].set(path);
    }

    /// Sets the paths of a list of keys, each with the file that was read. The files of the list
    /// before stay hidden.
    pub fn set_keys(&mut self, files: Vec<(PathBuf, Option<Metadata>)>) {
        self.is_empty &= files.is_empty();
        let count = files.len().max(self.keys.len());
        self.keys.resize_with(count, || Secret::NONE);
        let mut files = files.into_iter();
        for secret in &mut self.keys {
            let (path, read) = files.next().unzip();
            secret.set(path);
            secret.in_use = read.flatten().map(|meta| FileId::of(&meta));
        }
    }

    /// Notes the file that was read, and that is in use until the option is set again.
    pub fn set_in_use(&mut self, place: Place, meta: &Metadata) {
        self.places[place as usize].in_use = Some(FileId::of(meta));
    }

    /// Notes a file that was read but is not in use.
    pub fn note(&mut self, place: Place, meta: &Metadata) {
        self.places[place as usize].note(FileId::of(meta));
        self.is_empty = false;
    }

    /// Notes that a log is open, by device and inode. `meta` returns its metadata, and is called
    /// once for each log.
    pub fn note_open(
        &mut self,
        place: Place,
        open: Option<(u64, u64)>,
        meta: impl FnOnce() -> Option<Metadata>,
    ) {
        let secret = &mut self.places[place as usize];
        if open.is_some() && secret.open != open {
            secret.open = open;
            if let Some(meta) = meta() {
                // The file that the path leads to stays the first one; it may be the same.
                let first = secret.found.first().copied();
                secret.note(FileId::of(&meta));
                first.into_iter().for_each(|first| secret.note(first));
            }
        }
    }

    /// Looks up the paths again, once in each look.
    pub fn look(&mut self, look: u64) {
        if self.look == look || self.is_empty {
            return;
        }
        self.look = look;
        self.places.iter_mut().chain(&mut self.keys).for_each(Secret::look);
    }

    /// Returns whether the file `id` at the path `full` is hidden. `is_link` says that the path is
    /// a symbolic link.
    #[inline]
    pub fn hides(&self, full: &Path, id: &FileId, is_link: bool) -> bool {
        !self.is_empty && self.knows(full, id, is_link)
    }

    fn knows(&self, full: &Path, id: &FileId, is_link: bool) -> bool {
        let is_named = |path: &Path| self.hides_name(path);
        self.all().any(|(_, secret)| secret.is(id))
            || is_named(full)
            // A link that cannot be followed may lead to a hidden file.
            || is_link && fs::canonicalize(full).map_or(true, |end| is_named(&end))
    }

    /// Returns whether the file `id` at the path `full` is hidden, which is a symbolic link that leads to
    /// `end`. One that cannot be followed may lead to a hidden file.
    pub fn hides_link(&self, full: &Path, id: &FileId, end: Option<&Path>) -> bool {
        self.hides(full, id, false) || !self.is_empty && end.is_none_or(|end| self.hides_name(end))
    }

    /// Returns whether the file that `meta` describes is hidden. A directory never is.
    pub fn hides_found(&self, full: &Path, meta: &Metadata, is_link: bool) -> bool {
        !self.is_empty && !meta.is_dir() && self.knows(full, &FileId::of(meta), is_link)
    }

    /// Returns whether the file at a path is hidden, or would be if it existed.
    pub fn hides_at(&self, full: &Path) -> bool {
        if self.is_empty {
            return false;
        }
        match fs::metadata(full) {
            Ok(meta) => {
                let is_link = || fs::symlink_metadata(full).is_ok_and(|meta| meta.is_symlink());
                !meta.is_dir() && self.knows(full, &FileId::of(&meta), is_link())
            }
            Err(_) => self.hides_name(full),
        }
    }

    /// Returns whether the name alone hides a file, whether it exists or not: the name that an
    /// option has, that of a rotated log, or that of a password file that is about to be replaced.
    pub fn hides_name(&self, full: &Path) -> bool {
        let Some(name) = full.file_name() else { return false };
        self.all().any(|(place, secret)| {
            let is_it = |path: &Path| is_like(place, name, path) && share_directory(full, path);
            secret.names().any(is_it)
        })
    }

    /// Returns whether a hidden file lies below the directory `dir`, whose path has no symbolic
    /// links in it: the file would be moved or removed with the directory.
    pub fn lie_below(&self, dir: &Path) -> bool {
        let mut names = self.all().flat_map(|(_, secret)| secret.names());
        names.any(|path| without_links(parent_of(path)).starts_with(dir))
    }

    /// Returns whether the path of a hidden file leads through the symbolic link at `link`: without
    /// the link the file would not be found, and another link in its place would lead to another
    /// file.
    pub fn lie_behind(&self, link: &Path) -> bool {
        let mut paths = self.all().filter_map(|(_, secret)| secret.path.as_ref());
        paths.any(|path| leads_through(path, link, MAX_LINKS))
    }
}

/// Returns whether a path leads through the symbolic link at `link`, before its last name.
fn leads_through(path: &Path, link: &Path, links_left: usize) -> bool {
    let above = || path.ancestors().skip(1);
    let is_it =
        |above: &Path| above.file_name() == link.file_name() && share_directory(above, link);
    if above().any(is_it) {
        return true;
    }
    // The target of a link may lead through other links.
    let follow = |above: &Path| {
        let rest = path.strip_prefix(above).ok()?;
        Some(parent_of(above).join(fs::read_link(above).ok()?).join(rest))
    };
    let next = above().find_map(follow).filter(|_| links_left > 0);
    next.is_some_and(|next| leads_through(&next, link, links_left - 1))
}

/// Returns whether `name` is the name of the file at `path`, or is derived from it.
fn is_like(place: Place, name: &OsStr, path: &Path) -> bool {
    let Some(own) = path.file_name() else { return false };
    let Some(rest) = name.as_bytes().strip_prefix(own.as_bytes()) else { return false };
    match (place, rest) {
        (_, []) => true,
        (Place::AccessLog | Place::ErrorLog, [b'.', ..]) => true,
        (Place::GlobalPasswords | Place::DavPasswords, [b'.', digits @ ..]) => {
            digits.len() == TEMPORARY_DIGITS && digits.iter().all(u8::is_ascii_hexdigit)
        }
        _ => false,
    }
}

/// Returns whether two paths lie in the same directory.
fn share_directory(one: &Path, other: &Path) -> bool {
    let (one, other) = (parent_of(one), parent_of(other));
    let identity = |dir: &Path| fs::metadata(dir).map(|meta| (meta.dev(), meta.ino()));
    match (identity(one), identity(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => without_links(one) == without_links(other),
    }
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Resolves symbolic links in the part of a path that exists.
fn without_links(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for above in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (fs::canonicalize(above), path.strip_prefix(above)) {
            return real.join(rest);
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_folder::Folder;

    #[test]
    fn names_beside_the_file_are_hidden_by_what_the_file_is() {
        let folder = Folder::new();
        fs::create_dir(folder.0.join("d")).unwrap();
        std::os::unix::fs::symlink("d", folder.0.join("l")).unwrap();
        let mut secrets = Secrets::new();
        secrets.set(Place::Key, Some(folder.0.join("d/key")));
        secrets.set(Place::DavPasswords, Some(folder.0.join("d/users")));
        secrets.set(Place::AccessLog, Some(folder.0.join("l/log")));
        let table = [
            ("d/key", true),
            ("d/key.0123456789abcdef", false),
            ("d/keys", false),
            ("key", false),
            ("d/users", true),
            ("d/users.html", false),
            ("d/users.0123456789abcdeF", true),
            ("d/users.0123456789abcde", false),
            ("d/users.0123456789abcdefg", false),
            ("d/log", true),
            ("l/log", true),
            ("d/log.1", true),
            ("d/log.2.gz", true),
            ("d/log.", true),
            ("d/logs", false),
            ("log.1", false),
            ("d/none/log", false),
        ];
        for (name, hidden) in table {
            let path = folder.0.join(name);
            // The result is the same before the file exists and after it was made.
            assert_eq!(secrets.hides_at(&path), hidden, "{name}");
            if path.parent().unwrap().exists() {
                fs::write(&path, "").unwrap();
                secrets.look(1);
                assert_eq!(secrets.hides_at(&path), hidden, "{name}");
                fs::remove_file(&path).unwrap();
            }
        }
        let real = fs::canonicalize(&folder.0).unwrap();
        assert!(secrets.lie_below(&real) && secrets.lie_below(&real.join("d")));
        assert!(!secrets.lie_below(&real.join("e")) && !secrets.lie_below(&real.join("d/key")));
    }

    #[test]
    fn what_a_path_led_to_stays_hidden_and_its_inode_does_not() {
        let folder = Folder::new();
        let mut secrets = Secrets::new();
        let key = folder.write("key", "key");
        secrets.set(Place::Key, Some(key.clone()));
        let hidden = |secrets: &Secrets, name: &str| secrets.hides_at(&folder.0.join(name));
        for (look, name) in (1..).zip(["a", "b", "c"]) {
            fs::rename(&key, folder.0.join(name)).unwrap();
            folder.write("key", "key");
            secrets.look(look);
            fs::hard_link(&key, folder.0.join(format!("other{name}"))).unwrap();
            assert!(hidden(&secrets, "key") && hidden(&secrets, name), "{name}");
            assert!(hidden(&secrets, &format!("other{name}")), "{name}");
        }
        // Another option names another file, and does not change the first.
        folder.write("public", "public");
        secrets.set(Place::Key, Some(folder.write("new", "new")));
        assert!(hidden(&secrets, "new") && hidden(&secrets, "a") && !hidden(&secrets, "public"));
        // A file that reuses the inode of a removed one is another file.
        let meta = fs::metadata(folder.0.join("a")).unwrap();
        let other = FileId { born: Some(SystemTime::UNIX_EPOCH), ..FileId::of(&meta) };
        let knows_birth = meta.created().is_ok();
        assert_eq!(secrets.hides(&folder.0.join("public"), &other, false), !knows_birth);
    }

    #[test]
    fn what_was_open_stays_hidden_though_no_look_has_met_it_at_its_path() {
        let folder = Folder::new();
        let mut secrets = Secrets::new();
        secrets.set(Place::ErrorLog, Some(folder.0.join("log")));
        let names = ["a", "b", "c"];
        for name in names {
            let meta = fs::metadata(folder.write(name, name)).unwrap();
            for _ in 0..2 {
                let open = Some((meta.dev(), meta.ino()));
                secrets.note_open(Place::ErrorLog, open, || Some(meta.clone()));
                secrets.note_open(Place::ErrorLog, None, || None);
            }
        }
        folder.write("public", "public");
        assert!(names.iter().all(|name| secrets.hides_at(&folder.0.join(name))));
        assert!(!secrets.hides_at(&folder.0.join("public")));
    }

    #[test]
    fn where_nothing_is_named_nothing_is_hidden() {
        let folder = Folder::new();
        let mut secrets = Secrets::default();
        secrets.set(Place::Key, None);
        assert!(secrets.is_empty() && !secrets.hides_at(&folder.write("a", "a")));
        assert!(!secrets.hides_at(Path::new("/")) && !secrets.lie_below(Path::new("/")));
    }
}
