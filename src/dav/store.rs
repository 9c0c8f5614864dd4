//! Properties and locks of a directory and of what lies in it: one small file in the directory,
//! which is never served.
//!
//! Those of the directory itself are kept under an empty name, so that they go wherever it goes.
//! The file is text, a record a line, fields parted by blanks and escaped like those of a URI:
//!
//! ```text
//! mongoose-dav 1
//! member NAME
//! property NAMESPACE NAME ELEMENT
//! lock TOKEN exclusive|shared 0|infinity EXPIRES HREF DIRECTORY USER OWNER SECONDS
//! ```
//!
//! What follows a `member` line is that member's. Members, and the properties of each, are in the order
//! of their names. A file that is not understood to its end, as that
//! of a later version may be, is left alone: nobody can say what is locked, and nothing is changed.
//! The file is replaced as a whole, under a lock on the directory, so that servers of several
//! processes do not lose each other's changes.

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

/// The name of the file, and the start of all hidden names.
pub const STATE: &str = ".mongoose-dav";
const HEADER: &str = "mongoose-dav 1";
/// Larger than this the file does not become.
const MAX_LEN: u64 = 8 << 20;
/// As many bytes of it are worth as much work as a call of the file system.
const UNIT: usize = 8 * 1024;
/// How often a lock on the directory is tried for at once.
const LOCK_ATTEMPTS: usize = 16;

/// What is known of one directory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    members: Sorted<Vec<u8>, Member>,
}

/// What is known of one file or directory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Member {
    pub properties: Properties,
    pub locks: Vec<Lock>,
}

/// Dead properties by their names: each one's element as text.
pub type Properties = Sorted<Name, String>;

impl Member {
    fn is_empty(&self) -> bool {
        self.properties.is_empty() && self.locks.is_empty()
    }
}

impl State {
    /// What is known of `name`; empty means the directory itself.
    pub fn member(&self, name: &[u8]) -> Option<&Member> {
        self.members.get(name)
    }

    /// The same, to be changed.
    pub fn member_mut(&mut self, name: &[u8]) -> &mut Member {
        self.members.entry(name.to_vec(), Member::default())
    }

    pub fn remove(&mut self, name: &[u8]) -> Option<Member> {
        self.members.remove(name)
    }

    /// Forgets what was said of something that had this name before. Locks stay: they may have been
    /// taken since.
    pub fn forget_properties(&mut self, name: &[u8]) {
        self.member_mut(name).properties.clear();
    }

    pub fn members(&self) -> impl Iterator<Item = (&[u8], &Member)> {
        self.members.iter().map(|(name, member)| (name.as_slice(), member))
    }

    /// The locks of each member, to be changed.
    pub fn all_locks(&mut self) -> impl Iterator<Item = &mut Vec<Lock>> {
        self.members.values_mut().map(|member| &mut member.locks)
    }

    /// Bytes of memory that it takes, about.
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

    /// What it costs of a portion of work to read it.
    pub fn cost(&self) -> usize {
        self.weight() / UNIT
    }

    /// Forgets locks that are over, or were made for another place than `dir`. Whether one would have
    /// lasted longer than it was granted for.
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

    /// Forgets all locks.
    pub fn unlock(&mut self) {
        self.all_locks().for_each(Vec::clear);
    }

    /// Forgets all but the directory itself.
    pub fn keep_own(&mut self) {
        self.members.retain(|(name, _)| name.is_empty());
    }

    /// The text that the file holds.
    pub fn to_text(&self) -> String {
        let mut text = String::from(HEADER);
        let mut line = |fields: &[&[u8]]| {
            text.push('\n');
            for (place, field) in fields.iter().enumerate() {
                if place > 0 {
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

    /// What such a text says; `None` where not all of it is understood.
    pub fn parse(text: &[u8]) -> Option<State> {
        let mut state = State::default();
        // A machine that lost its power may have lost what was in it.
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

fn parse_lock(fields: &[Vec<u8>]) -> Option<Lock> {
    let [token, scope, depth, expires, href, directory, user, owner, rest @ ..] = fields else {
        return None;
    };
    let seconds = match rest {
        // Earlier versions did not say.
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

/// What is known of the directory at `dir`; nothing, where there is no file. Locks that are over
/// are left out, and so are those that were made for another place: a lock does not move.
pub fn load(dir: &Path, now: u64) -> io::Result<State> {
    let mut state = read(dir)?;
    if state.keep_valid(dir, now)? {
        // Else its time would begin anew at each look. Where it cannot be kept it ends with the clock.
        let _ = update(dir, now, &mut |_| {});
    }
    Ok(state)
}

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

/// The file of a directory cannot be read or is not understood: the reason, and the name for those
/// who can do something about it.
#[derive(Debug)]
pub struct Unreadable {
    path: PathBuf,
    cause: io::Error,
}

impl Unreadable {
    /// What is behind an error, if it is this.
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

/// What is known of several directories, each read once.
pub struct States {
    now: u64,
    /// Bytes that may still be read.
    left: u64,
    known: Vec<(PathBuf, State)>,
}

impl States {
    /// `maximum`: as many bytes may be read for all of them.
    pub fn new(now: u64, maximum: u64) -> States {
        States { now, left: maximum, known: Vec::new() }
    }

    /// As [`load`].
    pub fn get(&mut self, dir: &Path) -> io::Result<&State> {
        let place = match self.known.iter().position(|(known, _)| known == dir) {
            Some(place) => place,
            None => {
                let state = match fs::metadata(dir.join(STATE)) {
                    Err(error) if error.kind() == ErrorKind::NotFound => State::default(),
                    found => {
                        let len = found.map_or(0, |meta| meta.len());
                        self.left = self.left.checked_sub(len).ok_or(ErrorKind::OutOfMemory)?;
                        load(dir, self.now)?
                    }
                };
                self.known.push((dir.to_path_buf(), state));
                self.known.len() - 1
            }
        };
        Ok(&self.known[place].1)
    }
}

/// Changes what is known of the directory at `dir`. An error of the kind `WouldBlock` says that
/// somebody else is about to do so.
pub fn update(dir: &Path, now: u64, change: &mut dyn FnMut(&mut State)) -> io::Result<()> {
    let _folder = lock_folder(dir)?;
    update_locked(dir, now, change)
}

/// As [`update`], for who has locked the directory: what was there under a name before is no more.
/// Where that cannot be kept there is nobody to tell.
pub fn forget(dir: &Path, now: u64, name: &[u8]) {
    let _ = update_locked(dir, now, &mut |state| drop(state.remove(name)));
}

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

/// Writes what is known of a directory.
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

/// As [`lock_folder`], before something is changed that does not depend on it. Only if somebody
/// else has it locked that is an error.
pub fn lock_if_possible(dir: &Path) -> io::Result<Option<File>> {
    match lock_folder(dir) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error),
        result => Ok(result.ok()),
    }
}

/// The directory, locked until it is closed.
fn lock_folder(dir: &Path) -> io::Result<File> {
    let folder = above_standard(File::open(dir)?)?;
    for _ in 0..LOCK_ATTEMPTS {
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            // Some network file systems lock no folders. There a change is still never seen by
            // halves.
            Ok(()) | Err(Errno::BADF | Errno::NOLCK | Errno::OPNOTSUPP) => return Ok(folder),
            Err(Errno::INTR) => {}
            // It takes others but a moment. All clients are waiting, so nobody sleeps here.
            Err(Errno::AGAIN) => std::thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    }
    Err(ErrorKind::WouldBlock.into())
}

fn escape(field: &[u8], out: &mut String) {
    for &byte in field {
        if byte.is_ascii_graphic() && byte != b'%' {
            out.push(char::from(byte));
        } else {
            push_escaped(byte, out);
        }
    }
}

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
        // What is left is looked at twice: its time goes on, and does not begin anew.
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
            // Where a line ends nobody can tell.
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
        // What has happened since is not seen.
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
