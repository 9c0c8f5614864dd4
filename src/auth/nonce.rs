//! The nonces of digest authentication (RFC 7616, sections 3.3 and 5.4): each nonce count is
//! accepted once. Knows neither passwords nor requests.
//!
//! A nonce is a time, a serial number and a keyed hash of both, so that an issued nonce takes no
//! memory, however many challenges a client asks for. A nonce takes a place in the table when it is
//! used with the right password.
//!
//! The hash is HMAC-SHA-1 (RFC 2104) with a random key. It is written out below, since the crate
//! has SHA-1 already for websockets, and a key of exactly one block makes HMAC three lines. The
//! known weakness of SHA-1, collisions, does not break HMAC.

use std::collections::BTreeMap;
use std::io;

use sha1::{Digest as _, Sha1};

use super::same_secret;

/// The largest number of nonces in the table. The oldest one is removed first.
const MAX_NONCES: usize = 1024;
/// The number of counts below the highest one that may still arrive: browsers send requests of
/// several connections out of order.
const WINDOW: u32 = 256;

/// A key of the block length of SHA-1.
type Key = [u8; 64];

/// A nonce that is too old, not made with this key, removed from the table, or whose count was
/// used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

/// The nonces of a server, with the counts of them that have been used.
///
/// Times are seconds of a clock that advances; it must always be the same clock.
#[derive(Debug)]
pub struct Nonces {
    key: Key,
    /// The lifetime of a nonce in seconds.
    lifetime: u64,
    next_serial: u64,
    /// The used counts by serial number.
    used: BTreeMap<u64, Counts>,
    /// A nonce with a lower serial number is stale unless it is in the table.
    forgotten: u64,
}

impl Nonces {
    /// Creates the nonces with a random key. A process that forks must call this after the fork, so
    /// that processes do not share a key.
    pub fn new(lifetime: u64) -> io::Result<Nonces> {
        let mut key = [0; 64];
        let mut filled = 0;
        while filled < key.len() {
            let rest = &mut key[filled..];
            filled += rustix::io::retry_on_intr(|| {
                rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty())
            })?;
        }
        Ok(Nonces::with_key(key, lifetime))
    }

    fn with_key(key: Key, lifetime: u64) -> Nonces {
        Nonces { key, lifetime, next_serial: 0, used: BTreeMap::new(), forgotten: 0 }
    }

    /// Issues a new nonce, which consists of hexadecimal digits.
    pub fn issue(&mut self, now: u64) -> String {
        let serial = self.next_serial;
        self.next_serial += 1;
        self.text(now, serial)
    }

    /// Marks `count` of the nonce as used. To be called only for a client that has proved to know
    /// the password, since this fills the table.
    pub fn spend(&mut self, nonce: &[u8], count: u32, now: u64) -> Result<(), Stale> {
        let (issued, serial) = self.recognise(nonce).ok_or(Stale)?;
        if now.saturating_sub(issued) > self.lifetime {
            return Err(Stale);
        }
        if !self.used.contains_key(&serial) {
            if serial < self.forgotten {
                return Err(Stale);
            }
            if self.used.len() >= MAX_NONCES {
                self.forget_oldest();
            }
        }
        self.used.entry(serial).or_default().mark(count)
    }

    /// Returns time and serial number of a nonce that was issued here.
    fn recognise(&self, nonce: &[u8]) -> Option<(u64, u64)> {
        let text = std::str::from_utf8(nonce).ok()?;
        let issued = u64::from_str_radix(text.get(..16)?, 16).ok()?;
        let serial = u64::from_str_radix(text.get(16..32)?, 16).ok()?;
        let real = self.text(issued, serial);
        same_secret(real.as_bytes(), nonce).then_some((issued, serial))
    }

    /// Formats a nonce.
    fn text(&self, issued: u64, serial: u64) -> String {
        let message = [issued.to_be_bytes(), serial.to_be_bytes()].concat();
        let mut text = format!("{issued:016x}{serial:016x}");
        for byte in hmac_sha1(&self.key, &message) {
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }

    /// Removes the oldest nonce from the table. It must not be accepted as unused: from now on it
    /// is stale, and so is any older nonce that has not been used yet.
    fn forget_oldest(&mut self) {
        if let Some((serial, _)) = self.used.pop_first() {
            self.forgotten = self.forgotten.max(serial + 1);
        }
    }
}

/// Computes HMAC-SHA-1 (RFC 2104, section 2).
fn hmac_sha1(key: &Key, message: &[u8]) -> [u8; 20] {
    let inner = Sha1::new().chain_update(key.map(|byte| byte ^ 0x36));
    let inner = inner.chain_update(message).finalize();
    let outer = Sha1::new().chain_update(key.map(|byte| byte ^ 0x5c));
    outer.chain_update(inner).finalize().into()
}

/// The used counts of a nonce, from the highest one back to the end of the window.
#[derive(Debug, Default)]
struct Counts {
    /// The highest count so far; 0 if there is none.
    highest: u32,
    /// A bit for each place of the window. The place of a count is its remainder by [`WINDOW`].
    seen: [u64; (WINDOW / 64) as usize],
}

impl Counts {
    /// Marks a count as used.
    fn mark(&mut self, count: u32) -> Result<(), Stale> {
        if count > self.highest {
            // The places between both counts now stand for counts that have not been used.
            if count - self.highest >= WINDOW {
                self.seen = Default::default();
            } else {
                (self.highest + 1..count).for_each(|passed| self.set(passed, false));
            }
            self.highest = count;
        } else if count == 0 || self.highest - count >= WINDOW || self.is_set(count) {
            return Err(Stale);
        }
        self.set(count, true);
        Ok(())
    }

    fn place(count: u32) -> (usize, u64) {
        let place = count % WINDOW;
        ((place / 64) as usize, 1 << (place % 64))
    }

    fn is_set(&self, count: u32) -> bool {
        let (word, bit) = Counts::place(count);
        self.seen[word] & bit != 0
    }

    fn set(&mut self, count: u32, used: bool) {
        let (word, bit) = Counts::place(count);
        self.seen[word] &= !bit;
        if used {
            self.seen[word] |= bit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn nonces() -> Nonces {
        Nonces::with_key([7; 64], 300)
    }

    #[test]
    fn the_hash_is_that_of_the_rfc() {
        // RFC 2202, section 3, case 2: a shorter key is padded with zeros.
        let mut key = [0; 64];
        key[..4].copy_from_slice(b"Jefe");
        let hash = hmac_sha1(&key, b"what do ya want for nothing?");
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    }

    #[test]
    fn a_nonce_is_good_until_it_expires() {
        let mut nonces = nonces();
        let nonce = nonces.issue(1000);
        let table = [
            (1000, Ok(())),
            (1300, Ok(())),
            (1301, Err(Stale)),
            // A clock that was set back makes no nonce stale.
            (900, Ok(())),
        ];
        for (count, (now, expected)) in (1..).zip(table) {
            assert_eq!(nonces.spend(nonce.as_bytes(), count, now), expected, "{now}");
        }
    }

    #[test]
    fn what_was_not_made_here_is_stale() {
        let mut nonces = nonces();
        let nonce = nonces.issue(1000);
        let other = Nonces::with_key([8; 64], 300).issue(1000);
        let upper = nonce.to_uppercase();
        let longer = format!("{nonce}0");
        let mut bad = vec![&b""[..], b"x", &[0xff; 72], &[b'0'; 72]];
        bad.extend([other.as_bytes(), upper.as_bytes(), longer.as_bytes()]);
        bad.push(&nonce.as_bytes()[..71]);
        let signs = format!("+{}", &nonce[1..]);
        bad.push(signs.as_bytes());
        for bad in bad {
            assert_eq!(nonces.spend(bad, 1, 1000), Err(Stale), "{}", bad.escape_ascii());
        }
        for place in 0..nonce.len() {
            let mut changed = nonce.clone().into_bytes();
            changed[place] = if changed[place] == b'0' { b'1' } else { b'0' };
            assert_eq!(nonces.spend(&changed, 1, 1000), Err(Stale), "{place}");
        }
        assert!(nonces.used.is_empty());
        assert_eq!(nonces.spend(nonce.as_bytes(), 1, 1000), Ok(()));
    }

    #[test]
    fn every_process_draws_another_key() {
        let mut first = Nonces::new(300).unwrap();
        let mut second = Nonces::new(300).unwrap();
        assert_ne!(first.issue(1000), second.issue(1000));
        assert_ne!(first.issue(1000), first.issue(1000));
    }

    #[test]
    fn each_count_is_good_once_within_the_window() {
        let mut counts = Counts::default();
        let table = [
            (0, Err(Stale)),
            (1, Ok(())),
            (1, Err(Stale)),
            (3, Ok(())),
            (2, Ok(())),
            (2, Err(Stale)),
            (3, Err(Stale)),
            (258, Ok(())),
            (2, Err(Stale)),
            (3, Err(Stale)),
            (4, Ok(())),
            (257, Ok(())),
            (257, Err(Stale)),
            (1000, Ok(())),
            (744, Err(Stale)),
            (745, Ok(())),
            (999, Ok(())),
            (u32::MAX, Ok(())),
            (u32::MAX, Err(Stale)),
            (u32::MAX - 255, Ok(())),
            (u32::MAX - 256, Err(Stale)),
        ];
        for (count, expected) in table {
            assert_eq!(counts.mark(count), expected, "{count}");
        }
    }

    #[test]
    fn a_forgotten_nonce_is_stale_and_not_new() {
        let mut nonces = nonces();
        let unused = nonces.issue(1000);
        let all: Vec<String> = (0..MAX_NONCES + 1).map(|_| nonces.issue(1000)).collect();
        for nonce in &all {
            assert_eq!(nonces.spend(nonce.as_bytes(), 1, 1000), Ok(()));
        }
        assert_eq!(nonces.used.len(), MAX_NONCES);
        let first = all[0].as_bytes();
        assert_eq!(nonces.spend(first, 1, 1000), Err(Stale));
        assert_eq!(nonces.spend(first, 2, 1000), Err(Stale));
        assert_eq!(nonces.spend(unused.as_bytes(), 1, 1000), Err(Stale));
        assert_eq!(nonces.spend(all[1].as_bytes(), 2, 1000), Ok(()));
        assert_eq!(nonces.used.len(), MAX_NONCES);
    }

    proptest! {
        #[test]
        fn no_count_is_ever_good_twice(
            counts in prop::collection::vec(prop_oneof![1..600u32, 1..4000u32], 0..400),
        ) {
            let mut window = Counts::default();
            let mut used = HashSet::new();
            let mut highest = 0;
            for count in counts {
                let too_old = count + WINDOW <= highest;
                let expected = !too_old && used.insert(count);
                prop_assert_eq!(window.mark(count).is_ok(), expected, "{}", count);
                highest = highest.max(if expected { count } else { 0 });
            }
        }
    }
}
