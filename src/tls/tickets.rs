//! Tickets: what a client brings to resume a session, sealed so that only we can read it (RFC 5077;
//! RFC 8446, section 4.6.1).
//!
//! Their keys change every few hours, since whoever steals one can read the sessions of TLS 1.2 that
//! were resumed by it. rustls draws each key at random, so that processes forked from one parent drift apart
//! at the first change. Here all keys come from one secret, drawn when the certificate is set: the key of a
//! period and the secret of the next one are derived from the secret of the period (HMAC as in
//! HKDF-Expand, RFC 5869), and then it is forgotten. Every process finds the same keys, without a word
//! between them, and none can find those of the past. The price is that a stolen secret opens the
//! future, too, until the certificate is set again: keys drawn at random would heal after a period.

use std::fmt;
use std::sync::{Mutex, TryLockError};
use std::time::{SystemTime, UNIX_EPOCH};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;

/// Seconds that a key seals for; it opens for as long again.
const PERIOD: u64 = 6 * 60 * 60;
/// Periods that are gone through one by one when the clock jumps: some 90 years.
const MAX_STEPS: u64 = 1 << 17;
/// The period, and the nonce, stand before what is sealed.
const NAME_LEN: usize = size_of::<u64>();

type Secret = [u8; 32];

/// Seals and opens the tickets of one certificate.
pub struct Tickets(Mutex<Keys>);

/// The keys of a period and of the one before.
#[derive(Clone)]
struct Keys {
    period: u64,
    /// The secret of this period.
    secret: Secret,
    current: LessSafeKey,
    previous: Option<LessSafeKey>,
}

impl Tickets {
    /// With a secret of its own; `None` if the system has no random numbers.
    pub fn new() -> Option<Tickets> {
        let mut secret = Secret::default();
        SystemRandom::new().fill(&mut secret).ok()?;
        Some(Tickets(Mutex::new(Keys::begin(secret, period_of_now())?)))
    }

    /// Does something with the keys of this time. Not where another thread has them: a process that was
    /// forked meanwhile would wait for ever.
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

fn period_of_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / PERIOD)
}

impl Keys {
    fn begin(secret: Secret, period: u64) -> Option<Keys> {
        Some(Keys { period, secret, current: key(&secret)?, previous: None })
    }

    /// Goes on to another period. Never back: what is forgotten stays so, and a clock that was set back
    /// is waited for.
    fn move_to(&mut self, period: u64) {
        let steps = period.saturating_sub(self.period);
        for left in (0..steps.min(MAX_STEPS)).rev() {
            self.secret = derive(&self.secret, b"next");
            // Only the last two are of use.
            if left < 2
                && let Some(key) = key(&self.secret)
            {
                self.previous = Some(std::mem::replace(&mut self.current, key));
            }
        }
        self.period = self.period.max(period);
    }

    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let name = self.period.to_be_bytes();
        let mut sealed = plain.to_vec();
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        self.current.seal_in_place_append_tag(nonce_used, Aad::from(name), &mut sealed).ok()?;
        Some([&name[..], &nonce, &sealed].concat())
    }

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

fn derive(secret: &Secret, what: &[u8]) -> Secret {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), what);
    let mut derived = Secret::default();
    derived.copy_from_slice(tag.as_ref());
    derived
}

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
        // One that works all the time, and others that wake up now and then.
        let mut busy = parent.clone();
        for period in 1000..1100 {
            busy.move_to(period);
            let lazy = at(&parent, period);
            for (one, other) in [(&busy, &lazy), (&lazy, &busy), (&busy, &busy)] {
                let ticket = one.seal(b"session").expect("a ticket");
                assert_eq!(other.open(&ticket).as_deref(), Some(&b"session"[..]), "{period}");
                // In the next period, too, and in no other.
                assert!(at(other, period + 1).open(&ticket).is_some(), "{period}");
                assert!(at(other, period + 2).open(&ticket).is_none(), "{period}");
                assert!(at(other, period + 500).open(&ticket).is_none(), "{period}");
            }
        }
        // A process of the past has no key for the future yet, and one of the future none of the past.
        let early = parent.seal(b"x").expect("a ticket");
        let late = busy.seal(b"x").expect("a ticket");
        assert!(busy.open(&early).is_none() && parent.open(&late).is_none());
        assert_ne!(busy.secret, parent.secret);
        // A clock that is set back changes nothing.
        let before = busy.secret;
        busy.move_to(3);
        assert!(busy.secret == before && busy.open(&late).is_some());
        // One that jumps by ages is no trap.
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
