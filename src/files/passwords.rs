//! What is known of password files: an index of each one that is long, as long as the file is the
//! same.
//!
//! Owns when an index is too old, and how much memory all of them take. Refuses to know requests.

use std::borrow::Cow;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::known::{Content, Known};
use super::secrets::FileId;
use crate::auth::htpasswd::{Ha1, find_ha1};
use crate::auth::index::Index;

/// The largest size of a file that is searched for each request, in bytes.
const SHORT: u64 = 1024;
/// The largest size of a file that has an index, and the most memory that all indexes take, in bytes.
const MAX_INDEXED: u64 = 16 << 20;
const MAX_COST: usize = 48 << 20;

/// The indexes, of which the last one was used last.
#[derive(Default)]
pub struct Passwords(Vec<Kept>);

struct Kept {
    identity: Identity,
    domain: Vec<u8>,
    /// The look in which the index counts, if the file may change without a trace; else it counts until
    /// the file changes.
    look: Option<u64>,
    index: Index,
}

/// What must be equal for a file to be the same.
#[derive(Clone, Copy, PartialEq)]
struct Identity {
    id: FileId,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The hash of a user, and the number of bytes that were read to find it.
pub struct Search {
    pub found: Option<Ha1>,
    pub read: usize,
}

impl Passwords {
    /// Looks for a user in a password file that was compared with the file system in the present
    /// `look`.
    pub fn find(
        &mut self,
        file: &Known,
        look: u64,
        domain: &[u8],
        user: &[u8],
    ) -> io::Result<Search> {
        let identity =
            Identity { id: file.id, len: file.len, modified: file.stamp, changed: file.changed };
        let is_same = |kept: &Kept| {
            kept.identity == identity
                && kept.domain == domain
                && kept.look.is_none_or(|kept| kept == look)
        };
        if file.len > SHORT
            && let Some(at) = self.0.iter().position(is_same)
        {
            let kept = self.0.remove(at);
            let found = kept.index.find(user);
            self.0.push(kept);
            return Ok(Search { found, read: 0 });
        }
        let bytes = content_of(file)?;
        let read = bytes.len();
        let index = match (SHORT + 1..=MAX_INDEXED).contains(&file.len) {
            true => Index::of(&bytes, domain),
            false => None,
        };
        let Some(index) = index else {
            return Ok(Search { found: find_ha1(&bytes, domain, user), read });
        };
        let found = index.find(user);
        let look = Some(look).filter(|_| !file.is_settled);
        self.0.retain(|kept| kept.identity.id != identity.id || kept.domain != domain);
        self.0.push(Kept { identity, domain: domain.to_vec(), look, index });
        let mut cost: usize = self.0.iter().map(|kept| kept.index.cost()).sum();
        while cost > MAX_COST && !self.0.is_empty() {
            cost -= self.0.remove(0).index.cost();
        }
        Ok(Search { found, read })
    }
}

/// Returns all bytes of a file.
fn content_of(known: &Known) -> io::Result<Cow<'_, [u8]>> {
    match &known.content {
        Content::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
        Content::Open(file) => {
            let mut bytes = Vec::new();
            let len = usize::try_from(known.len).unwrap_or(usize::MAX);
            bytes.try_reserve_exact(len)?;
            bytes.resize(len, 0);
            file.read_exact_at(&mut bytes, 0)?;
            Ok(Cow::Owned(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cache::Cache;
    use super::super::mime::Types;
    use super::*;
    use crate::test_folder::Folder;
    use std::time::Duration;

    #[test]
    fn a_long_file_is_read_once_until_it_changes() {
        let folder = Folder::new();
        let line = |user: usize, digit: &str| format!("user{user}:d:{}\n", digit.repeat(32));
        let text: String = (0..1000).map(|user| line(user, "a")).collect();
        let path = folder.write("passwords", &text);
        std::thread::sleep(Duration::from_millis(150));
        let (mut cache, mut passwords) = (Cache::new(0, 0, Types::default()), Passwords::default());
        let mut find = |look: u64, user: &[u8]| {
            let known = cache.get(&path, look).expect("the file");
            let search = passwords.find(&known, look, b"d", user).expect("it is read");
            (search.found.map(|hash| hash[0]), search.read)
        };
        assert_eq!(find(1, b"user7"), (Some(b'a'), text.len()));
        for (look, user, found) in
            [(1, &b"user999"[..], Some(b'a')), (2, b"user0", Some(b'a')), (3, b"user1000", None)]
        {
            assert_eq!(find(look, user), (found, 0), "{look}");
        }
        // The same length, and so soon behind each other that the times may be equal.
        for (look, digit) in (4..8).zip(["b", "c", "d", "e"]) {
            let text = text.replace('a', digit);
            std::fs::write(&path, &text).expect("written");
            let found = Some(digit.as_bytes()[0]);
            assert_eq!(find(look, b"user7"), (found, text.len()), "{digit}");
            assert_eq!(find(look, b"user8"), (found, 0), "{digit}");
        }
    }
}
