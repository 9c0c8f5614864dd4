//! The lists that decide by address: which peers may connect, and which proxies are believed.
//!
//! Owns the syntax of the lists and their decisions. Knows nothing of sockets: the server asks at
//! `accept(2)`, and again once a proxy has told for whom it speaks. Subnets are written as in CIDR (RFC 4632, section 3.1; RFC 4291, section 2.3).
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv6Addr};

use crate::peer::Peer;

/// A parsed list, such as `-0.0.0.0/0,+192.168/16,+2001:db8::/32`. The last rule that matches
/// decides; an address that matches no rule is denied.
#[derive(Clone, Debug, PartialEq)]
pub struct Acl {
    rules: Vec<Rule>,
}

/// The proxies that are believed, such as `127.0.0.1, 10/8, unix`.
#[derive(Clone, Debug, PartialEq)]
pub struct Trusted {
    subnets: Vec<Subnet>,
    /// Whether clients of Unix domain sockets are trusted.
    local: bool,
}

/// One entry of the list: whether the peers in a subnet may connect.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rule {
    allow: bool,
    subnet: Subnet,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Subnet {
    V4 { net: u32, mask: u32 },
    V6 { net: u128, mask: u128 },
}

impl Acl {
    /// Parses a comma-separated list of signed subnets. Returns `None` if any entry is malformed,
    /// since a list that is understood in part would let the wrong peers in.
    pub fn parse(list: &str) -> Option<Acl> {
        let rules = list.split(',').map(Rule::parse).collect::<Option<_>>()?;
        Some(Acl { rules })
    }

    /// Returns whether a peer may connect. One that has no address may: who reaches a Unix domain
    /// socket is decided by the mode of its file.
    pub fn allows(&self, peer: Peer) -> bool {
        let Some(peer) = peer.ip() else { return true };
        let last_match = self.rules.iter().rev().find(|r| r.subnet.contains(peer));
        last_match.is_some_and(|rule| rule.allow)
    }
}

impl Trusted {
    /// Parses a comma-separated list of subnets, and of the word `unix`. Returns `None` if any
    /// entry is malformed.
    pub fn parse(list: &str) -> Option<Trusted> {
        let mut trusted = Trusted { subnets: Vec::new(), local: false };
        for entry in list.split(',') {
            match entry.trim_matches(' ') {
                "unix" => trusted.local = true,
                entry => trusted.subnets.push(Subnet::parse(entry)?),
            }
        }
        Some(trusted)
    }

    /// Returns whether what a peer tells of its clients is believed.
    pub fn contains(&self, peer: Peer) -> bool {
        match peer.ip() {
            Some(ip) => self.subnets.iter().any(|subnet| subnet.contains(ip)),
            None => self.local,
        }
    }
}

impl Rule {
    fn parse(entry: &str) -> Option<Rule> {
        let entry = entry.trim_matches(' ');
        let (allow, subnet) = match entry.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => (false, entry.strip_prefix('-')?),
        };
        let subnet = Subnet::parse(subnet)?;
        Some(Rule { allow, subnet })
    }
}

impl Subnet {
    fn parse(text: &str) -> Option<Subnet> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(number(prefix, 128)?)),
            None => (text, None),
        };
        if !address.contains(':') {
            return Subnet::v4(address, prefix);
        }
        let address: Ipv6Addr = address.parse().ok()?;
        let prefix = prefix.unwrap_or(128);
        match address.to_ipv4_mapped() {
            Some(v4) if prefix >= 96 => Some(Subnet::v4_bits(v4.to_bits(), prefix - 96)),
            _ => {
                let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
                let net = address.to_bits() & mask;
                Some(Subnet::V6 { net, mask })
            }
        }
    }

    /// Parses one to four octets. Octets that are left out are zero, and then the prefix length
    /// must be given.
    fn v4(address: &str, prefix: Option<u32>) -> Option<Subnet> {
        let mut bits = 0;
        let mut octets = 0;
        for octet in address.split('.') {
            // Some programs read a number with a leading zero as octal, others as decimal.
            if octets == 4 || (octet.len() > 1 && octet.starts_with('0')) {
                return None;
            }
            bits |= number(octet, 255)? << (24 - 8 * octets);
            octets += 1;
        }
        match prefix {
            Some(prefix) if prefix <= 32 => Some(Subnet::v4_bits(bits, prefix)),
            None if octets == 4 => Some(Subnet::v4_bits(bits, 32)),
            _ => None,
        }
    }

    fn v4_bits(bits: u32, prefix: u32) -> Subnet {
        let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
        let net = bits & mask;
        Subnet::V4 { net, mask }
    }

    fn contains(&self, peer: IpAddr) -> bool {
        match (*self, peer) {
            (Subnet::V4 { net, mask }, IpAddr::V4(peer)) => peer.to_bits() & mask == net,
            (Subnet::V6 { net, mask }, IpAddr::V6(peer)) => peer.to_bits() & mask == net,
            _ => false,
        }
    }
}

/// Parses one to three decimal digits with a value of at most `max`.
fn number(text: &str, max: u32) -> Option<u32> {
    if text.is_empty() || text.len() > 3 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|n| *n <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer_of(address: &str) -> Peer {
        std::net::SocketAddr::new(address.parse().expect("an address"), 1).into()
    }

    #[test]
    fn the_last_matching_rule_decides_and_no_match_denies() {
        let table: &[(&str, &str, bool)] = &[
            ("+10/8", "10.1.2.3", true),
            ("+10/8", "11.0.0.1", false),
            ("-10/8", "11.0.0.1", false),
            ("-0.0.0.0/0,+192.168/16", "192.168.3.4", true),
            ("-0.0.0.0/0,+192.168/16", "192.169.3.4", false),
            ("+192.168/16,-0.0.0.0/0", "192.168.3.4", false),
            ("+0/0,-1.2.3.4", "1.2.3.4", false),
            ("+0/0,-1.2.3.4", "1.2.3.5", true),
            ("+192.168.1/24", "192.168.1.255", true),
            ("+192.168.1/24", "192.168.2.0", false),
            ("+192.168.7.9/16", "192.168.1.1", true),
            ("+1.2.3.4/32, -1.2.3.4/31", "1.2.3.5", false),
            ("+2001:db8::/32", "2001:db8:1::1", true),
            ("+2001:db8::/32", "2001:db9::1", false),
            ("+::1", "::1", true),
            ("+::1", "::2", false),
            ("+::/0", "2001:db8::1", true),
        ];
        for &(list, peer, allowed) in table {
            let acl = Acl::parse(list).expect(list);
            assert_eq!(acl.allows(peer_of(peer)), allowed, "{list} {peer}");
        }
    }

    #[test]
    fn the_two_families_never_match_each_other_and_mapped_addresses_are_ipv4() {
        let table: &[(&str, &str, bool)] = &[
            ("+0/0", "2001:db8::1", false),
            ("+::/0", "1.2.3.4", false),
            ("+::/0", "::ffff:1.2.3.4", false),
            ("+1.2.3.4", "::ffff:1.2.3.4", true),
            ("+::ffff:10.0.0.0/104", "10.9.9.9", true),
            ("+::ffff:10.0.0.0/104", "11.9.9.9", false),
            ("+::ffff:1.2.3.4", "1.2.3.4", true),
        ];
        for &(list, peer, allowed) in table {
            let acl = Acl::parse(list).expect(list);
            assert_eq!(acl.allows(peer_of(peer)), allowed, "{list} {peer}");
        }
    }

    #[test]
    fn a_proxy_is_trusted_by_any_entry_and_a_local_one_by_its_word() {
        let table: &[(&str, &str, bool)] = &[
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10/8, 192.168.1/24", "192.168.1.7", true),
            ("10/8,::1", "::1", true),
            ("10/8,unix", "11.0.0.1", false),
            ("::/0", "10.0.0.1", false),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
        ];
        for &(list, peer, is_trusted) in table {
            let trusted = Trusted::parse(list).expect(list);
            assert_eq!(trusted.contains(peer_of(peer)), is_trusted, "{list} {peer}");
        }
        for (list, is_trusted) in [("unix", true), ("10/8, unix", true), ("0/0,::/0", false)] {
            let trusted = Trusted::parse(list).expect(list);
            assert_eq!(trusted.contains(Peer::Local), is_trusted, "{list}");
        }
        for list in ["", ",", "10/8,", "+10/8", "-10/8", "Unix", "unix:", "10", "a", "10/33"] {
            assert_eq!(Trusted::parse(list), None, "{list}");
        }
    }

    #[test]
    fn a_malformed_list_is_refused() {
        for list in [
            "",
            ",",
            "+10/8,",
            "10/8",
            "+",
            "-",
            "+10",
            "+192.168",
            "+1.2.3",
            "+1.2.3.4.5",
            "+1.2.3.4.5/8",
            "+256.0.0.0/8",
            "+1.2.3.4/33",
            "+1.2.3.4/",
            "+1.2.3.4/-1",
            "+1.2.3.4/+8",
            "+010.0.0.1",
            "+1..2/8",
            "+ 1.2.3.4",
            "+a/8",
            "+::1/129",
            "+:::/8",
            "+[::1]",
            "+-1.2.3.4",
        ] {
            assert_eq!(Acl::parse(list), None, "{list}");
        }
    }
}
