//! An index of a password file, from users to hashes: a long file is read once, and not for each
//! request (RFC 7616, section 3.4.2).
//!
//! Owns how much memory an index takes. Knows neither where the file lies nor when it changes.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;

use super::htpasswd::{Ha1, hash_in, lines};

/// The users of one domain.
pub struct Index {
    seed: RandomState,
    /// The hash of each name, and where the entry begins in `entries`, in this order.
    places: Vec<(u64, u32)>,
    /// For each user the name, a colon, and the hash of the password.
    entries: Vec<u8>,
}

impl Index {
    /// Makes the index of a file for the users of `domain`. `None` means that there is no memory for it.
    pub fn of(file: &[u8], domain: &[u8]) -> Option<Index> {
        let mut index =
            Index { seed: RandomState::default(), places: Vec::new(), entries: Vec::new() };
        for line in lines(file) {
            let Some((user, hash)) = entry(line, domain) else { continue };
            let at = u32::try_from(index.entries.len()).ok()?;
            index.places.try_reserve(1).ok()?;
            index.entries.try_reserve(user.len() + 1 + hash.len()).ok()?;
            index.places.push((index.seed.hash_one(user), at));
            for part in [user, b":", &hash] {
                index.entries.extend_from_slice(part);
            }
        }
        // Of two lines for a user the first one counts.
        index.places.sort_unstable();
        Some(index)
    }

    /// Returns the hash of a user.
    pub fn find(&self, user: &[u8]) -> Option<Ha1> {
        if user.is_empty() || user.contains(&b':') {
            return None;
        }
        let hash = self.seed.hash_one(user);
        let first = self.places.partition_point(|place| place.0 < hash);
        self.places.get(first..)?.iter().take_while(|place| place.0 == hash).find_map(|place| {
            let entry = self.entries.get(place.1 as usize..)?;
            let rest = entry.strip_prefix(user)?.strip_prefix(b":")?;
            rest.first_chunk().copied()
        })
    }

    /// Returns the memory that the index takes, in bytes.
    pub fn cost(&self) -> usize {
        self.entries.capacity() + self.places.capacity() * size_of::<(u64, u32)>()
    }
}

/// Returns the user and the hash in a line, if it is one for this domain.
fn entry<'a>(line: &'a [u8], domain: &[u8]) -> Option<(&'a [u8], Ha1)> {
    let user = &line[..memchr::memchr(b':', line)?];
    (!user.is_empty()).then_some((user, hash_in(line, domain, user)?))
}

#[cfg(test)]
mod tests {
    use super::super::htpasswd::find_ha1;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_index_finds_what_is_found_in_the_file(
            lines in prop::collection::vec((0usize..6, 0usize..3, "[0-9A-Fa-fx]{32}", 0usize..4), 0..40),
        ) {
            let names = ["joe", "ann", "j", "joe2", "", " joe"];
            let domains = ["d", "e", "d:d"];
            let ends = ["\n", "\r\n", " \n", "x\n"];
            let mut file = String::new();
            for (name, domain, hash, end) in lines {
                file += &format!("{}:{}:{hash}{}", names[name], domains[domain], ends[end]);
            }
            for domain in domains {
                let index = Index::of(file.as_bytes(), domain.as_bytes()).expect("memory");
                for name in names.into_iter().chain(["joe:d", "nobody"]) {
                    let wanted = find_ha1(file.as_bytes(), domain.as_bytes(), name.as_bytes());
                    prop_assert_eq!(index.find(name.as_bytes()), wanted, "{} {}", domain, name);
                }
            }
        }
    }
}
