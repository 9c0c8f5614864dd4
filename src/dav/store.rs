//! Stores dead properties and locks (RFC 4918, sections 4 and 6) of a directory and its members in
//! one small file in the directory, which is never served. Owns the format of that file; knows
//! nothing of what the properties mean or of who may pass the locks.
//!
//! The state of the directory itself is stored under an empty name, so that it moves with the
//! directory. The file is text with one record in each line. Fields are separated by blanks and
//! percent-encoded:
//!
//! ```text
//! mongoose-dav 1
//! member NAME
//! property NAMESPACE NAME ELEMENT
//! lock TOKEN exclusive|shared 0|infinity EXPIRES HREF DIRECTORY USER OWNER SECONDS
//! ```
//!
//! The lines after a `member` line belong to that member. Members, and the properties of each, are
//! sorted by name. A file that is not understood to its end, as that of a later version may be, is
//! left alone and nothing is changed, since the locks in it are not known. The file is replaced as
//! a whole, under a lock on the directory (`flock(2)`), so that servers of several processes do not
//! lose each other's changes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::fields::{MAX_TIMEOUT, push_escaped};
use super::lock_log;
use super::locks::Lock;
use super::sorted::Sorted;
use super::temporary::{Temporary, above_standard, check_size, open_file};
use super::xml::Name;

/// The name of the state file, and the start of all hidden names.
pub const STATE: &str = ".mongoose-dav";
const HEADER: &str = "mongoose-dav 1";
/// The largest size of the state file, in bytes.
const MAX_LEN: u64 = 8 << 20;
/// The number of bytes of the file whose reading costs as much as one call of the file system.
const UNIT: usize = 8 * 1024;
/// The number of immediate attempts to lock the directory.
const LOCK_ATTEMPTS: usize = 16;

/// The stored state of a directory and its members.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    members: Sorted<Vec<u8>, Member>,
}

/// The stored state of one file or directory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Member {
    pub properties: Properties,
    pub locks: Vec<Lock>,
}

/// Dead properties by name. A value is the element of the property as text.
pub type Properties = Sorted<Name, String>;

impl Member {
    fn is_empty(&self) -> bool {
        self.properties.is_empty() && self.locks.is_empty()
    }
}

impl State {
    /// Returns the state of the member `name`; an empty name is the directory itself.
    pub fn member(&self, name: &[u8]) -> Option<&Member> {
        self.members.get(name)
    }

    /// Returns the state of the member `name` to be changed.
    pub fn member_mut(&mut self, name: &[u8]) -> &mut Member {
        self.members.entry(name.to_vec(), Member::default())
    }

    pub fn remove(&mut self, name: &[u8]) -> Option<Member> {
        self.members.remove(name)
    }

    /// Removes the properties of a file that had this name before. Locks stay, since they may have
    /// been taken meanwhile.
    pub fn forget_properties(&mut self, name: &[u8]) {
        self.member_mut(name).properties.clear();
    }

    /// Returns the members that have a state, sorted by name.
    pub fn members(&self) -> impl Iterator<Item = (&[u8], &Member)> {
        self.members.iter().map(|(name, member)| (name.as_slice(), member))
    }

    /// Returns the locks of each member, to be changed.
    pub fn all_locks(&mut self) -> impl Iterator<Item = &mut Vec<Lock>> {
        self.members.values_mut().map(|member| &mut member.locks)
    }

    /// Returns the memory that the state takes, in bytes, roughly.
    pub fn weight(&self) -> usize {
        let property = |(name, value): &(Name, String)| {
            name.space.len() + name.local.len() + value.len() + size_of::<(Name, String)>()
        };
        let lock = |lock: &Lock| lock.href.len() + lock.owner.len() + size_of::<Lock>();
        let member = |(name, member): &(Vec<u8>, Member)| {
            let properties: usize = member.properties.iter().map(property).sum();
            let locks: usize = member.locks.iter().map(lock).sum();
            name.len() + properties + locks + size_of::<Member>()
        };
        self.members.iter().map(member).sum()
    }

    /// Returns the cost of reading the state, in units of the budget.
    pub fn cost(&self) -> usize {
        self.weight() / UNIT
    }

    /// Removes locks that have expired, or that were taken in another directory than `dir`. Returns
    /// whether a lock would have lasted longer than it was granted for.
    fn keep_valid(&mut self, dir: &Path, now: u64) -> io::Result<bool> {
        if self.all_locks().all(|locks| locks.is_empty()) {
            return Ok(false);
        }
        let here = fs::canonicalize(dir)?;
        for locks in self.all_locks() {
            locks.retain(|lock| lock.expires > now && lock.directory == here);
        }
        let mut is_changed = false;
        for lock in self.all_locks().flatten() {
            is_changed |= lock.bound(now);
        }
        Ok(is_changed)
    }

    /// Removes all locks.
    pub fn unlock(&mut self) {
        self.all_locks().for_each(Vec::clear);
    }

    /// Removes the state of all members but the directory itself.
    pub fn keep_own(&mut self) {
        self.members.retain(|(name, _)| name.is_empty());
    }

    /// Returns the content of the state file.
    pub fn to_text(&self) -> String {
        let mut text = String::from(HEADER);
        let mut line = |fields: &[&[u8]]| {
            text.push('\n');
            for (index, field) in fields.iter().enumerate() {
                if index > 0 {
                    text.push(' ');
                }
                escape(field, &mut text);
            }
        };
        for (name, member) in self.members.iter().filter(|(_, member)| !member.is_empty()) {
            line(&[b"member", name]);
            for (name, value) in member.properties.iter() {
                let (space, local) = (name.space.as_bytes(), name.local.as_bytes());
                line(&[b"property", space, local, value.as_bytes()]);
            }
            for lock in &member.locks {
                line(&[
                    b"lock",
                    lock.token.as_bytes(),
                    if lock.exclusive { b"exclusive" } else { b"shared" },
                    if lock.deep { b"infinity" } else { b"0" },
                    lock.expires.to_string().as_bytes(),
                    lock.href.as_bytes(),
                    lock.directory.as_os_str().as_bytes(),
                    &lock.user,
                    lock.owner.as_bytes(),
                    lock.seconds.to_string().as_bytes(),
                ]);
            }
        }
        text.push('\n');
        text
    }

    /// Parses the content of a state file. Returns `None` if any of it is not understood.
    pub fn parse(text: &[u8]) -> Option<State> {
        let mut state = State::default();
        // After a loss of power a file may have lost its content.
        if text.is_empty() {
            return Some(state);
        }
        let mut lines = text.strip_suffix(b"\n")?.split(|b| *b == b'\n');
        if lines.next() != Some(HEADER.as_bytes()) {
            return None;
        }
        for line in lines {
            let mut fields = line.split(|b| *b == b' ');
            let kind = fields.next().unwrap_or_default();
            let fields = fields.map(unescape).collect::<Option<Vec<_>>>()?;
            match (kind, fields.as_slice()) {
                (b"member", [name]) => state.members.append(name.clone(), Member::default())?,
                (b"property", [space, local, value]) => {
                    let name = Name { space: text_of(space)?, local: text_of(local)? };
                    state.members.last_mut()?.properties.append(name, text_of(value)?)?;
                }
                (b"lock", fields) => state.members.last_mut()?.locks.push(parse_lock(fields)?),
                _ => return None,
            }
        }
        Some(state)
    }
}

/// Parses the fields of a `lock` line.
fn parse_lock(fields: &[Vec<u8>]) -> Option<Lock> {
    let [token, scope, depth, expires, href, directory, user, owner, rest @ ..] = fields else {
        return None;
    };
    let seconds = match rest {
        // Earlier versions did not store the timeout.
        [] => MAX_TIMEOUT,
        [seconds] => text_of(seconds)?.parse().ok()?,
        _ => return None,
    };
    Some(Lock {
        token: text_of(token)?,
        exclusive: scope == b"exclusive",
        deep: depth == b"infinity",
        expires: text_of(expires)?.parse().ok()?,
        seconds,
        href: text_of(href)?,
        directory: PathBuf::from(std::ffi::OsStr::from_bytes(directory)),
        user: user.clone(),
        owner: text_of(owner)?,
    })
}

/// Reads the state of the directory `dir`, which is empty if there is no file. Locks that have
/// expired are left out, and so are those that were taken in another directory: a lock does not
/// move with its directory.
pub fn load(dir: &Path, now: u64) -> io::Result<State> {
    let mut state = read(dir)?;
    if state.keep_valid(dir, now)? {
        // Without this, each reading would restart the timeout of the lock. If it cannot be stored,
        // the lock ends by the clock.
        let _ = update(dir, now, &mut |_| {});
    }
    Ok(state)
}

/// Reads the state file of a directory, with all locks in it.
fn read(dir: &Path) -> io::Result<State> {
    let path = dir.join(STATE);
    read_file(&path).map_err(|cause| io::Error::new(cause.kind(), Unreadable { path, cause }))
}

fn read_file(path: &Path) -> io::Result<State> {
    let file = match open_file(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(State::default()),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(MAX_LEN + 1).read_to_end(&mut text)?;
    let known = if text.len() as u64 > MAX_LEN { None } else { State::parse(&text) };
    known.ok_or_else(|| {
        io::Error::new(ErrorKind::InvalidData, "it is damaged, or of another version")
    })
}

/// The error that a state file cannot be read or is not understood, with the cause and the path for
/// the error log.
#[derive(Debug)]
pub struct Unreadable {
    path: PathBuf,
    cause: io::Error,
}

impl Unreadable {
    /// Returns the [`Unreadable`] inside of an error, if there is one.
    pub fn behind(error: &io::Error) -> Option<&Unreadable> {
        error.get_ref()?.downcast_ref()
    }

    pub fn cause(&self) -> &io::Error {
        &self.cause
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "cannot read {}: {}", crate::log::shown(&self.path), self.cause)
    }
}

impl std::error::Error for Unreadable {}

/// The states of several directories, each of which is read once.
pub struct States {
    now: u64,
    /// The number of bytes that may still be read.
    left: u64,
    known: HashMap<PathBuf, State>,
}

impl States {
    /// Creates an empty set. At most `maximum` bytes are read for all directories together.
    pub fn new(now: u64, maximum: u64) -> States {
        States { now, left: maximum, known: HashMap::new() }
    }

    /// Returns the state of the directory `dir`, as [`load`] does.
    pub fn get(&mut self, dir: &Path) -> io::Result<&State> {
        let place = match self.known.entry(dir.to_path_buf()) {
            Entry::Occupied(known) => return Ok(known.into_mut()),
            Entry::Vacant(place) => place,
        };
        let state = match fs::metadata(dir.join(STATE)) {
            Err(error) if error.kind() == ErrorKind::NotFound => State::default(),
            found => {
                let len = found.map_or(0, |meta| meta.len());
                self.left = self.left.checked_sub(len).ok_or(ErrorKind::OutOfMemory)?;
                load(dir, self.now)?
            }
        };
        Ok(place.insert(state))
    }
}

/// Changes the state of the directory `dir`. An error of the kind `WouldBlock` says that another
/// process is changing it.
pub fn update(dir: &Path, now: u64, change: &mut dyn FnMut(&mut State)) -> io::Result<()> {
    let _lock = lock_dir(dir)?;
    update_locked(dir, now, change)
}

/// Removes the state of the member `name`, which has been replaced or removed. The caller has
/// locked the directory. Errors are dropped, since the change of the file itself has succeeded.
pub fn forget(dir: &Path, now: u64, name: &[u8]) {
    let _ = update_locked(dir, now, &mut |state| drop(state.remove(name)));
}

/// Changes the state of a directory that the caller has locked.
fn update_locked(dir: &Path, now: u64, change: &mut dyn FnMut(&mut State)) -> io::Result<()> {
    let old = read(dir)?;
    let mut state = old.clone();
    state.keep_valid(dir, now)?;
    change(&mut state);
    state.members.retain(|(_, member)| !member.is_empty());
    if state == old {
        return Ok(());
    }
    save(dir, &state)
}

/// Writes the state of a directory.
pub fn save(dir: &Path, state: &State) -> io::Result<()> {
    let path = dir.join(STATE);
    if state.members.iter().all(|(_, member)| member.is_empty()) {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    if state.members.iter().any(|(_, member)| !member.locks.is_empty()) {
        lock_log::note(dir);
    }
    let text = state.to_text();
    if text.len() as u64 > MAX_LEN {
        return Err(Errno::NOSPC.into());
    }
    check_size(text.len() as u64)?;
    let temporary = Temporary::create(dir)?;
    temporary.file().write_all(text.as_bytes())?;
    temporary.publish(&path, true)
}

/// Locks the directory `dir` before a change that can also be made without the lock. It is an error
/// only if another process holds the lock.
pub fn lock_if_possible(dir: &Path) -> io::Result<Option<File>> {
    match lock_dir(dir) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error),
        result => Ok(result.ok()),
    }
}

/// Opens the directory `dir` and locks it until the file is closed.
fn lock_dir(dir: &Path) -> io::Result<File> {
    let file = above_standard(File::open(dir)?)?;
    for _ in 0..LOCK_ATTEMPTS {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // Some network file systems lock no directories. There a change is still never seen in
            // part.
            Ok(()) | Err(Errno::BADF | Errno::NOLCK | Errno::OPNOTSUPP) => return Ok(file),
            Err(Errno::INTR) => {}
            // Other processes hold the lock for a moment only. The thread must not sleep, since all
            // its clients would wait.
            Err(Errno::AGAIN) => std::thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    }
    Err(ErrorKind::WouldBlock.into())
}

/// Appends a field of a line, percent-encoded.
fn escape(field: &[u8], out: &mut String) {
    for &byte in field {
        if byte.is_ascii_graphic() && byte != b'%' {
            out.push(char::from(byte));
        } else {
            push_escaped(byte, out);
        }
    }
}

/// Decodes a field of a line. Returns `None` if it is malformed.
fn unescape(field: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [byte, behind @ ..] = rest {
        rest = behind;
        if *byte != b'%' {
            plain.push(*byte);
            continue;
        }
        let [high, low, behind @ ..] = behind else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        plain.push(u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?);
        rest = behind;
    }
    Some(plain)
}

fn text_of(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_folder::Folder;
    use proptest::prelude::*;

    fn lock(dir: &Path) -> Lock {
        Lock {
            token: "urn:uuid:1".to_owned(),
            exclusive: true,
            deep: false,
            expires: 100,
            seconds: 100,
            href: "/a%20b".to_owned(),
            directory: dir.to_path_buf(),
            user: b"joe \xff".to_vec(),
            owner: "<owner>\n% \u{fc}</owner>".to_owned(),
        }
    }

    fn sample(dir: &Path) -> State {
        let mut state = State::default();
        let name = Name { space: String::new(), local: "p".to_owned() };
        state.member_mut(b"").properties.insert(name.clone(), "<p/>".to_owned());
        let member = state.member_mut(b"a b\n%\xff");
        member.properties.insert(name, "<p>1\n2</p>".to_owned());
        member.properties.insert(Name::dav("x"), String::new());
        member.locks.push(lock(dir));
        state
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = Folder::new();
        assert_eq!(load(&folder.0, 0).unwrap(), State::default());
        let state = sample(&folder.0);
        update(&folder.0, 0, &mut |new| *new = state.clone()).unwrap();
        assert_eq!(load(&folder.0, 0).unwrap(), state);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
        update(&folder.0, 0, &mut |state| *state = State::default()).unwrap();
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    }

    #[test]
    fn a_lock_ends_with_its_time_and_stays_in_its_place() {
        let folder = Folder::new();
        update(&folder.0, 0, &mut |new| *new = sample(&folder.0)).unwrap();
        let locks = |now| {
            let state = load(&folder.0, now).unwrap();
            state.members().map(|(_, member)| member.locks.len()).sum::<usize>()
        };
        assert_eq!((locks(99), locks(100)), (1, 0));
        let moved = folder.0.with_extension("moved");
        fs::rename(&folder.0, &moved).unwrap();
        let state = load(&moved, 0).unwrap();
        assert!(state.members().all(|(_, member)| member.locks.is_empty()));
        fs::rename(&moved, &folder.0).unwrap();
    }

    #[test]
    fn a_lock_lasts_no_longer_than_it_was_granted_for_when_the_clock_is_set_back() {
        let folder = Folder::new();
        let granted = 34_560_000;
        update(&folder.0, granted, &mut |new| {
            *new = sample(&folder.0);
            for lock in new.all_locks().flatten() {
                lock.expires = granted + lock.seconds;
            }
        })
        .unwrap();
        let ends = |now| -> Vec<u64> {
            let state = load(&folder.0, now).unwrap();
            let locks = state.members().flat_map(|(_, member)| &member.locks);
            locks.map(|lock| lock.expires).collect()
        };
        // The lock is read several times: its timeout is not restarted.
        let table = [(granted + 10, granted + 100), (50, 150), (90, 150), (149, 150)];
        for (now, end) in table {
            assert_eq!(ends(now), [end], "{now}");
        }
        assert_eq!(ends(150), [0; 0]);
    }

    #[test]
    fn a_file_that_is_too_large_is_not_written() {
        let folder = Folder::new();
        update(&folder.0, 0, &mut |new| *new = sample(&folder.0)).unwrap();
        let error = update(&folder.0, 0, &mut |state| {
            let value = "x".repeat(MAX_LEN as usize);
            state.member_mut(b"a").properties.insert(Name::dav("y"), value);
        });
        assert_eq!(error.unwrap_err().raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
        assert_eq!(load(&folder.0, 0).unwrap(), sample(&folder.0));
    }

    #[test]
    fn a_file_that_is_not_understood_is_left_alone() {
        assert_eq!(State::parse(b""), Some(State::default()));
        assert_eq!(State::parse(b"mongoose-dav 1\n"), Some(State::default()));
        // A lock of an earlier version.
        let mut old =
            State::parse(b"mongoose-dav 1\nmember x\nlock t exclusive 0 1 / / u o\n").unwrap();
        assert!(old.all_locks().flatten().all(|lock| lock.seconds == MAX_TIMEOUT));
        let whole = sample(Path::new("/")).to_text().into_bytes();
        for end in 1..whole.len() {
            // A file that ends with a whole line looks like a complete one.
            let expected = whole[end - 1] == b'\n';
            assert_eq!(State::parse(&whole[..end]).is_some(), expected, "{end}");
        }
        for text in [
            "something else\n",
            "mongoose-dav 2\nmember x\n",
            "mongoose-dav 1\n\n",
            "mongoose-dav 1\nmember\n",
            "mongoose-dav 1\nmember x\nfuture 1 2\n",
            "mongoose-dav 1\nproperty u a <a/>\n",
            "mongoose-dav 1\nmember x\nproperty u a\n",
            "mongoose-dav 1\nmember x\nproperty u %zz <a/>\n",
            "mongoose-dav 1\nmember x\nproperty u %ff <a/>\n",
            "mongoose-dav 1\nmember x\nlock t\n",
            "mongoose-dav 1\nmember x\nlock t exclusive 0 1 / / u o 1 1\n",
            "mongoose-dav 1\nmember x\nlock t exclusive 0 1 / / u o x\n",
            "mongoose-dav 1\nmember x\nmember x\n",
            "mongoose-dav 1\nmember x\nproperty u b <b/>\nproperty u a <a/>\n",
        ] {
            assert_eq!(State::parse(text.as_bytes()), None, "{text}");
            let folder = Folder::new();
            let path = folder.0.join(STATE);
            fs::write(&path, text).unwrap();
            let error = update(&folder.0, 0, &mut |state| *state = sample(&folder.0)).unwrap_err();
            let told = Unreadable::behind(&error).unwrap().to_string();
            assert!(told.contains(path.to_str().unwrap()), "{told}");
            assert_eq!(fs::read(&path).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn states_are_read_once_and_only_so_many_bytes_of_them() {
        let (one, two) = (Folder::new(), Folder::new());
        for folder in [&one, &two] {
            update(&folder.0, 0, &mut |new| *new = sample(&folder.0)).unwrap();
        }
        let len = fs::metadata(one.0.join(STATE)).unwrap().len();
        let mut states = States::new(0, len);
        assert_eq!(states.get(&one.0).unwrap(), &sample(&one.0));
        assert_eq!(states.get(&two.0).unwrap_err().kind(), ErrorKind::OutOfMemory);
        // A later change is not seen.
        fs::remove_file(one.0.join(STATE)).unwrap();
        assert_eq!(states.get(&one.0).unwrap(), &sample(&one.0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut text = format!("{HEADER}\nmember a\n").into_bytes();
            text.extend_from_slice(&bytes);
            if let Some(state) = State::parse(&text) {
                let again = State::parse(state.to_text().as_bytes());
                prop_assert_eq!(again.map(|state| state.to_text()), Some(state.to_text()));
            }
        }
    }
}
