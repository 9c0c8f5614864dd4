//! Session tickets (RFC 5077; RFC 8446, section 4.6.1): the state of a session, encrypted, which
//! the client brings to resume it. Knows neither connections nor the content of the state.
//!
//! The keys change every few hours, since an attacker with a key can read the sessions of TLS 1.2
//! that were resumed with it. rustls draws each key at random, so that processes forked from one
//! parent would have different keys after the first change. Here all keys come from one secret,
//! which is drawn when the certificate is set: the key of a period and the secret of the next
//! period are derived from the secret of the period (HMAC as in HKDF-Expand, RFC 5869), which is
//! then erased. All processes derive the same keys without communication, and none can derive past
//! keys. The price is that a stolen secret also yields the future keys, until the certificate is
//! set again; with random keys it would be of no use after a period.

use std::fmt;
use std::sync::{Mutex, TryLockError};
use std::time::{SystemTime, UNIX_EPOCH};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;

/// The seconds for which a key encrypts tickets. It decrypts them for a second period.
const PERIOD: u64 = 6 * 60 * 60;
/// The largest number of periods, about 90 years, that are derived one by one when the clock jumps.
const MAX_STEPS: u64 = 1 << 17;
/// The longest state in bytes for which a ticket is made. The certificates of a client are in it, and
/// clients do not take tickets of any length.
const MAX_STATE: usize = 8 * 1024;
/// The length of the period number, which stands in front of the nonce and the encrypted state.
const NAME_LEN: usize = size_of::<u64>();

type Secret = [u8; 32];

/// The encryption of the tickets of one certificate.
pub struct Tickets(Mutex<Keys>);

/// The keys of the current period and of the previous one.
#[derive(Clone)]
struct Keys {
    period: u64,
    /// The secret of the current period.
    secret: Secret,
    current: LessSafeKey,
    previous: Option<LessSafeKey>,
}

impl Tickets {
    /// Draws a secret. Returns `None` if the system has no random numbers.
    pub fn new() -> Option<Tickets> {
        let mut secret = Secret::default();
        SystemRandom::new().fill(&mut secret).ok()?;
        Some(Tickets(Mutex::new(Keys::begin(secret, period_of_now())?)))
    }

    /// Calls `body` with the keys of the current period. Returns `None` while another thread uses
    /// the keys: if that thread did not survive a fork, waiting would never end.
    fn with<R>(&self, body: impl FnOnce(&Keys) -> Option<R>) -> Option<R> {
        let mut keys = match self.0.try_lock() {
            Ok(keys) => keys,
            Err(TryLockError::Poisoned(keys)) => keys.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        keys.move_to(period_of_now());
        body(&keys)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        2 * PERIOD as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if plain.len() > MAX_STATE {
            return None;
        }
        self.with(|keys| keys.seal(plain))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.with(|keys| keys.open(cipher))
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Tickets")
    }
}

/// Returns the number of the current period.
fn period_of_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / PERIOD)
}

impl Keys {
    /// Begins with the secret of a period.
    fn begin(secret: Secret, period: u64) -> Option<Keys> {
        Some(Keys { period, secret, current: key(&secret)?, previous: None })
    }

    /// Advances to a period. Never goes back, since past secrets are erased: if the clock is set
    /// back, the keys stay until it has caught up.
    fn move_to(&mut self, period: u64) {
        let steps = period.saturating_sub(self.period);
        for left in (0..steps.min(MAX_STEPS)).rev() {
            self.secret = derive(&self.secret, b"next");
            // Only the keys of the last two periods are used.
            if left < 2
                && let Some(key) = key(&self.secret)
            {
                self.previous = Some(std::mem::replace(&mut self.current, key));
            }
        }
        self.period = self.period.max(period);
    }

    /// Encrypts the state of a session.
    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let name = self.period.to_be_bytes();
        let mut sealed = plain.to_vec();
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        self.current.seal_in_place_append_tag(nonce_used, Aad::from(name), &mut sealed).ok()?;
        Some([&name[..], &nonce, &sealed].concat())
    }

    /// Decrypts a ticket. Returns `None` unless it was encrypted with one of the keys.
    fn open(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = cipher.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = match self.period.checked_sub(u64::from_be_bytes(*name))? {
            0 => &self.current,
            1 => self.previous.as_ref()?,
            _ => return None,
        };
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let len = key.open_in_place(nonce, Aad::from(*name), &mut plain).ok()?.len();
        plain.truncate(len);
        Some(plain)
    }
}

/// Derives a secret from another one.
fn derive(secret: &Secret, what: &[u8]) -> Secret {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), what);
    let mut derived = Secret::default();
    derived.copy_from_slice(tag.as_ref());
    derived
}

/// Derives the key of a period.
fn key(secret: &Secret) -> Option<LessSafeKey> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &derive(secret, b"seal"));
    key.ok().map(LessSafeKey::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(keys: &Keys, period: u64) -> Keys {
        let mut keys = keys.clone();
        keys.move_to(period);
        keys
    }

    #[test]
    fn processes_of_one_secret_take_each_others_tickets_for_ever() {
        let parent = Keys::begin([7; 32], 1000).expect("keys");
        // One process uses its keys in each period, the others in some periods only.
        let mut busy = parent.clone();
        for period in 1000..1100 {
            busy.move_to(period);
            let lazy = at(&parent, period);
            for (one, other) in [(&busy, &lazy), (&lazy, &busy), (&busy, &busy)] {
                let ticket = one.seal(b"session").expect("a ticket");
                assert_eq!(other.open(&ticket).as_deref(), Some(&b"session"[..]), "{period}");
                // The ticket is valid in the next period, too, and then no more.
                assert!(at(other, period + 1).open(&ticket).is_some(), "{period}");
                assert!(at(other, period + 2).open(&ticket).is_none(), "{period}");
                assert!(at(other, period + 500).open(&ticket).is_none(), "{period}");
            }
        }
        // A process in an earlier period has no future keys yet, and one in a later period no past
        // keys.
        let early = parent.seal(b"x").expect("a ticket");
        let late = busy.seal(b"x").expect("a ticket");
        assert!(busy.open(&early).is_none() && parent.open(&late).is_none());
        assert_ne!(busy.secret, parent.secret);
        // A clock that is set back makes no difference.
        let before = busy.secret;
        busy.move_to(3);
        assert!(busy.secret == before && busy.open(&late).is_some());
        // A clock that jumps far ahead does not take long.
        busy.move_to(u64::MAX);
        assert!(busy.open(&busy.seal(b"x").expect("a ticket")).is_some());
    }

    #[test]
    fn what_is_no_ticket_is_refused() {
        let keys = Keys::begin([7; 32], 5).expect("keys");
        let stranger = Keys::begin([8; 32], 5).expect("keys");
        let ticket = keys.seal(b"session").expect("a ticket");
        assert!(stranger.open(&ticket).is_none());
        for len in 0..ticket.len() {
            assert!(keys.open(&ticket[..len]).is_none(), "{len}");
        }
        for at in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[at] ^= 1;
            assert!(keys.open(&forged).is_none(), "{at}");
        }
        let longer = [&ticket[..], b"x"].concat();
        assert!(keys.open(&longer).is_none());
        assert_ne!(keys.seal(b"session"), keys.seal(b"session"));
    }

    #[test]
    fn tickets_of_this_time_open() {
        let tickets = Tickets::new().expect("random numbers");
        let ticket = tickets.encrypt(b"session").expect("a ticket");
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert!(Tickets::new().expect("random numbers").decrypt(&ticket).is_none());
        assert!(tickets.decrypt(b"").is_none());
    }
}
