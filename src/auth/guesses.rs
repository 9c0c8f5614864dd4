//! The wrong passwords of the last moments: each is answered late, and of one address only so many
//! at a time, so that passwords cannot be found by trying many.
//!
//! Knows addresses and times, and neither passwords nor connections. A guess counts until its
//! answer is due, also if its connection has gone by then: else a client could go away as soon as
//! it sees that the answer does not come at once, and try the next one.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use crate::peer::Peer;

/// The delay in milliseconds after which a wrong password is answered.
const DELAY_MS: u32 = 500;
/// The largest number of answers that one address waits for.
const MAX_WAITING: u32 = 8;

/// The address has too many answers to wait for, or there is no memory to count one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// The addresses that count as one; `None` for the processes of this machine.
type Network = Option<IpAddr>;

/// The wrong passwords whose answers are not due yet. Times are milliseconds of a clock that wraps.
#[derive(Debug, Default)]
pub struct Guesses {
    /// The times at which answers are due, in their order, with the addresses they are for.
    due: VecDeque<(u32, Network)>,
    /// The number of answers for each address.
    waiting: HashMap<Network, u32>,
}

impl Guesses {
    /// Returns whether the password of one more request from this address may be looked at.
    pub fn may_try(&mut self, client: Peer, now: u32) -> Result<(), TooMany> {
        self.forget(now);
        let waiting = self.waiting.get(&network_of(client)).copied().unwrap_or(0);
        if waiting >= MAX_WAITING { Err(TooMany) } else { Ok(()) }
    }

    /// Notes a wrong password. Returns the time at which it is to be answered.
    pub fn note(&mut self, client: Peer, now: u32) -> Result<u32, TooMany> {
        self.forget(now);
        if self.due.try_reserve(1).is_err() || self.waiting.try_reserve(1).is_err() {
            return Err(TooMany);
        }
        let (until, network) = (now.wrapping_add(DELAY_MS), network_of(client));
        self.due.push_back((until, network));
        *self.waiting.entry(network).or_default() += 1;
        Ok(until)
    }

    /// Forgets the guesses whose answers are due.
    fn forget(&mut self, now: u32) {
        while let Some((until, network)) = self.due.front().copied()
            && time_left(until, now) == 0
        {
            self.due.pop_front();
            if let Some(waiting) = self.waiting.get_mut(&network) {
                *waiting -= 1;
                if *waiting == 0 {
                    self.waiting.remove(&network);
                }
            }
        }
        if self.due.is_empty() {
            // What a flood of guesses took is given back.
            *self = Guesses::default();
        }
    }
}

/// Returns the milliseconds that are left until an answer is due. A time further ahead than the
/// delay has long passed, since the clock has wrapped.
pub fn time_left(until: u32, now: u32) -> u32 {
    Some(until.wrapping_sub(now)).filter(|left| *left <= DELAY_MS).unwrap_or(0)
}

/// Returns the address that stands for all those which one client can choose from: of IPv6 the
/// first 64 bits, below which networks give their hosts any number of addresses (RFC 4291, section
/// 2.5.4).
fn network_of(client: Peer) -> Network {
    match client {
        Peer::V4(address, _) => Some(address.into()),
        Peer::V6(address, _) => Some(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
        Peer::Local => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Peer {
        std::net::SocketAddr::new(text.parse().unwrap(), 1).into()
    }

    #[test]
    fn a_wrong_password_is_answered_after_the_delay() {
        for now in [0, 7, u32::MAX - 100] {
            let until = Guesses::default().note(address("10.0.0.1"), now).unwrap();
            let later = |passed: u32| time_left(until, now.wrapping_add(passed));
            assert_eq!([0, 1, 499, 500, 501].map(later), [500, 499, 1, 0, 0]);
            assert_eq!([1_000, 1 << 30, 1 << 31, 3 << 30].map(later), [0; 4]);
        }
    }

    #[test]
    fn eight_answers_of_an_address_wait_and_not_one_more() {
        for start in [0, u32::MAX - 250] {
            let (mut guesses, ann, joe) = (Guesses::default(), address("10.0.0.1"), address("::1"));
            let at = |passed: u32| start.wrapping_add(passed);
            for number in 0..8 {
                assert_eq!(guesses.may_try(ann, at(number)), Ok(()), "{number}");
                guesses.note(ann, at(number)).unwrap();
            }
            assert_eq!(guesses.may_try(ann, at(8)), Err(TooMany));
            assert_eq!(guesses.may_try(joe, at(8)), Ok(()));
            assert_eq!(guesses.may_try(Peer::Local, at(8)), Ok(()));
            assert_eq!(guesses.may_try(ann, at(499)), Err(TooMany));
            // The first one is due.
            assert_eq!(guesses.may_try(ann, at(500)), Ok(()));
            guesses.note(ann, at(500)).unwrap();
            assert_eq!(guesses.may_try(ann, at(500)), Err(TooMany));
            // Nothing is left of them.
            assert_eq!(guesses.may_try(ann, at(1000)), Ok(()));
            assert_eq!((guesses.due.capacity(), guesses.waiting.capacity()), (0, 0));
        }
    }

    #[test]
    fn all_addresses_of_a_client_count_as_one() {
        let table = [
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
        ];
        for (first, second, same) in table {
            let mut guesses = Guesses::default();
            (0..8).for_each(|_| assert!(guesses.note(address(first), 0).is_ok()));
            assert_eq!(guesses.may_try(address(second), 0).is_err(), same, "{first} {second}");
        }
    }

    #[test]
    fn guesses_of_many_days_ago_do_not_count() {
        let mut guesses = Guesses::default();
        let joe = address("10.0.0.1");
        (0..8).for_each(|_| assert!(guesses.note(joe, 1000).is_ok()));
        // The clock is as far from the time at which they were due as it can be.
        assert_eq!(guesses.may_try(joe, 1000u32.wrapping_sub(1)), Ok(()));
        assert!(guesses.waiting.is_empty());
    }
}
