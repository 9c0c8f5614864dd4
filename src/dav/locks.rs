//! Write locks (RFC 4918, sections 6 and 7): their conflicts, and whether a client may pass them.
//! Knows nothing of where they are stored (`store`) or how they are taken (`lock_method`).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::temporary::random_bytes;
use super::xml::escape;

/// A write lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The lock token, a URI.
    pub token: String,
    pub exclusive: bool,
    /// Whether its depth is infinity, so that it covers all members of its directory.
    pub deep: bool,
    /// The end of the lock, in seconds since 1970.
    pub expires: u64,
    /// The timeout it was granted with, in seconds. The time that is left never exceeds it.
    pub seconds: u64,
    /// The lock root as clients name it, percent-encoded.
    pub href: String,
    /// The directory in whose state file it is stored, without symbolic links in its path.
    pub directory: PathBuf,
    /// The name of the user that took it; empty where the client did not authenticate.
    pub user: Vec<u8>,
    /// The text of the `owner` element that the client sent; empty for none.
    pub owner: String,
}

/// The lock tokens that a client submits, and its user name. Both are needed to pass a lock.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    pub tokens: Vec<String>,
    pub user: Vec<u8>,
}

impl Lock {
    /// Shortens the lock to the timeout that it was granted with, should the clock have been set
    /// back since. Returns whether that changed it.
    pub fn bound(&mut self, now: u64) -> bool {
        let end = now.saturating_add(self.seconds);
        let is_longer = self.expires > end;
        self.expires = self.expires.min(end);
        is_longer
    }

    /// Returns whether two locks that cover the same resource exclude each other.
    pub fn conflicts_with(&self, other: &Lock) -> bool {
        self.token != other.token && (self.exclusive || other.exclusive)
    }
}

impl Keys {
    /// Returns whether the keys open this lock. A token alone is not enough, since every client may
    /// read it (RFC 4918, section 6.4).
    pub fn open(&self, lock: &Lock) -> bool {
        lock.user == self.user && self.tokens.contains(&lock.token)
    }

    /// Returns the lock that forbids a change, out of those that cover a resource. One key is
    /// enough for all shared locks; an exclusive lock opens to its own key only (RFC 4918, section
    /// 7).
    pub fn blocked_by<'a>(&self, locks: &'a [Lock]) -> Option<&'a Lock> {
        let exclusive = locks.iter().find(|lock| lock.exclusive && !self.open(lock));
        exclusive.or_else(|| {
            let mut shared = locks.iter().filter(|lock| !lock.exclusive);
            let first = shared.next()?;
            let is_open = self.open(first) || shared.any(|lock| self.open(lock));
            (!is_open).then_some(first)
        })
    }
}

/// Returns a lock token that is unique at all times, a random UUID (RFC 4122, section 4.4).
pub fn new_token() -> String {
    let mut bytes = random_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut token = String::from("urn:uuid:");
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            token.push('-');
        }
        let _ = write!(token, "{byte:02x}");
    }
    token
}

/// Appends an `activelock` element.
pub fn write_lock(out: &mut String, lock: &Lock, now: u64) {
    let scope = if lock.exclusive { "exclusive" } else { "shared" };
    let depth = if lock.deep { "infinity" } else { "0" };
    let left = lock.expires.saturating_sub(now);
    let _ = write!(
        out,
        "<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{scope}/></D:lockscope>\
         <D:depth>{depth}</D:depth>{}<D:timeout>Second-{left}</D:timeout>\
         <D:locktoken><D:href>",
        lock.owner
    );
    escape(out, &lock.token);
    out.push_str("</D:href></D:locktoken><D:lockroot><D:href>");
    escape(out, &lock.href);
    out.push_str("</D:href></D:lockroot></D:activelock>");
}

/// Returns the directories whose locks may cover `dir`: itself, and those above it up to `root`, or
/// all if it does not lie below `root`. Neither path has symbolic links in it.
pub fn directories_above<'a>(
    dir: &'a Path,
    root: Option<&'a Path>,
) -> impl Iterator<Item = &'a Path> {
    let root = root.filter(|root| dir.starts_with(root));
    dir.ancestors().take_while(move |above| root.is_none_or(|root| above.starts_with(root)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(token: &str, user: &str) -> Lock {
        Lock {
            token: token.to_owned(),
            exclusive: true,
            deep: true,
            expires: 160,
            seconds: 160,
            href: "/a/".to_owned(),
            directory: PathBuf::new(),
            user: user.as_bytes().to_vec(),
            owner: "<D:owner xmlns:D=\"DAV:\">me</D:owner>".to_owned(),
        }
    }

    #[test]
    fn a_lock_opens_for_its_owner_with_its_token() {
        let keys = |tokens: &[&str], user: &str| Keys {
            tokens: tokens.iter().map(|token| (*token).to_owned()).collect(),
            user: user.as_bytes().to_vec(),
        };
        let locks = [lock("t:1", "joe"), lock("t:2", "jane")];
        let table = [
            (keys(&[], "joe"), Some("t:1")),
            (keys(&["t:1"], "joe"), Some("t:2")),
            (keys(&["t:2"], "joe"), Some("t:1")),
            (keys(&["t:2"], "jane"), Some("t:1")),
            (keys(&["t:9", "t:1"], "joe"), Some("t:2")),
            (keys(&["t:1"], ""), Some("t:1")),
        ];
        for (keys, expected) in table {
            let found = keys.blocked_by(&locks).map(|lock| lock.token.as_str());
            assert_eq!(found, expected, "{keys:?}");
        }
        assert_eq!(keys(&[], "joe").blocked_by(&[]), None);
        assert_eq!(keys(&["t:9", "t:1"], "joe").blocked_by(&locks[..1]), None);
    }

    #[test]
    fn one_key_opens_all_that_is_shared_and_nothing_that_is_exclusive() {
        let shared = |token, user| Lock { exclusive: false, ..lock(token, user) };
        let all = [shared("t:1", "joe"), lock("t:2", "joe"), shared("t:3", "jane")];
        let table = [
            (&["t:1"][..], &all[..], Some("t:2")),
            (&["t:2"], &all, Some("t:1")),
            (&["t:1", "t:2"], &all, None),
            (&["t:3"], &all[2..], Some("t:3")),
            (&["t:1"], &all[..1], None),
        ];
        for (tokens, locks, expected) in table {
            let tokens = tokens.iter().map(|token| (*token).to_owned()).collect();
            let keys = Keys { tokens, user: b"joe".to_vec() };
            let found = keys.blocked_by(locks).map(|lock| lock.token.as_str());
            assert_eq!(found, expected, "{keys:?}");
        }
    }

    #[test]
    fn tokens_are_random_uuids() {
        let (a, b) = (new_token(), new_token());
        assert_ne!(a, b);
        assert_eq!((a.len(), a.as_bytes()[23], a.matches('-').count()), (45, b'4', 4));
    }

    #[test]
    fn a_lock_is_shown_with_the_time_that_is_left() {
        let mut out = String::new();
        write_lock(&mut out, &lock("t:1", "joe"), 100);
        let expected = "<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope>\
            <D:exclusive/></D:lockscope><D:depth>infinity</D:depth>\
            <D:owner xmlns:D=\"DAV:\">me</D:owner><D:timeout>Second-60</D:timeout><D:locktoken>\
            <D:href>t:1</D:href></D:locktoken><D:lockroot><D:href>/a/</D:href></D:lockroot>\
            </D:activelock>";
        assert_eq!(out, expected);
    }

    #[test]
    fn locks_are_looked_for_up_to_the_root() {
        let above = |dir, root: Option<&'static str>| -> Vec<&Path> {
            directories_above(Path::new(dir), root.map(Path::new)).collect()
        };
        let paths = |names: &[&'static str]| -> Vec<&Path> {
            names.iter().map(|name| Path::new(*name)).collect()
        };
        assert_eq!(above("/w/a/b", Some("/w")), paths(&["/w/a/b", "/w/a", "/w"]));
        assert_eq!(above("/w", Some("/w")), paths(&["/w"]));
        assert_eq!(above("/other/a", Some("/w")), paths(&["/other/a", "/other", "/"]));
        assert_eq!(above("/a", None), paths(&["/a", "/"]));
    }
}
