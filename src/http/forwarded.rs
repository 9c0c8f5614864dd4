//! The fields by which proxies tell whom they ask for: `Forwarded` (RFC 7239), and the customary
//! `X-Forwarded-For` and `X-Forwarded-Proto`.
//!
//! Each proxy appends to what it received, so that the last entry is the word of the nearest one,
//! and the first may be the invention of a client. Entries are read from the end, and nothing that
//! stands in front can change how they are read. Refuses to know how a proxy becomes trusted.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::acl::Trusted;
use crate::peer::Peer;

/// The longest address with a port that has a meaning, in brackets: longer text is no address.
const MAX_NODE: usize = 64;

/// What the proxies in front tell of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told {
    /// The nearest hop that is not trusted.
    pub client: Peer,
    /// Whether the client speaks https, if that was told.
    pub is_https: Option<bool>,
}

/// The two kinds of fields contradict each other. Proxies pass on what they do not know, so that
/// one of them is the word of the client.
#[derive(Debug, PartialEq)]
pub struct Unlike;

/// Reads the fields of a request from `peer`. `fields` are names and values in their order.
pub fn read<'a>(
    fields: impl DoubleEndedIterator<Item = (&'a [u8], &'a [u8])>,
    peer: Peer,
    trusted: &Trusted,
) -> Result<Told, Unlike> {
    let nothing = Told { client: peer, is_https: None };
    if !trusted.contains(peer) {
        return Ok(nothing);
    }
    let (mut standard, mut customary) = (None, None);
    for (name, value) in fields.rev() {
        match name.len() {
            9 if name.eq_ignore_ascii_case(b"forwarded") => {
                let walk = standard.get_or_insert(Walk::new(peer));
                read_elements(value, walk, trusted);
            }
            15 if name.eq_ignore_ascii_case(b"x-forwarded-for") => {
                let walk = customary.get_or_insert(Walk::new(peer));
                for entry in members(value) {
                    walk.visit(address(entry), trusted);
                }
            }
            17 if name.eq_ignore_ascii_case(b"x-forwarded-proto") => {
                let walk = customary.get_or_insert(Walk::new(peer));
                members(value).for_each(|scheme| walk.note_scheme(scheme));
            }
            _ => {}
        }
    }
    match (standard, customary) {
        (None, None) => Ok(nothing),
        (Some(walk), None) | (None, Some(walk)) => Ok(walk.told()),
        (Some(one), Some(other)) => agree(one.told(), other.told()),
    }
}

/// Returns what both kinds tell. What one of them alone tells, port or scheme, is not believed: it
/// may come from the client.
fn agree(one: Told, other: Told) -> Result<Told, Unlike> {
    let (a, b) = (one.client.port(), other.client.port());
    let is_same_scheme = match (one.is_https, other.is_https) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    let is_same_port = a == b || a == 0 || b == 0;
    if one.client.ip() != other.client.ip() || !is_same_port || !is_same_scheme {
        return Err(Unlike);
    }
    let client = match one.client {
        Peer::V4(ip, _) if a != b => Peer::V4(ip, 0),
        Peer::V6(ip, _) if a != b => Peer::V6(ip, 0),
        client => client,
    };
    Ok(Told { client, is_https: one.is_https.and(other.is_https) })
}

/// The way from the nearest hop towards the client, by one kind of fields.
struct Walk {
    /// The hop that was reached.
    client: Peer,
    has_ended: bool,
    /// The schemes that were told: how many, and the meaning of the last one.
    schemes: usize,
    is_https: Option<bool>,
}

impl Walk {
    fn new(peer: Peer) -> Walk {
        Walk { client: peer, has_ended: false, schemes: 0, is_https: None }
    }

    /// Goes to the next hop, unless the last one is not trusted: what it wrote does not count. What
    /// is no address ends the walk.
    fn visit(&mut self, hop: Option<Peer>, trusted: &Trusted) {
        match hop {
            Some(hop) if !self.has_ended && trusted.contains(self.client) => self.client = hop,
            _ => self.has_ended = true,
        }
    }

    fn note_scheme(&mut self, scheme: &[u8]) {
        self.schemes += 1;
        self.is_https = match scheme.to_ascii_lowercase().as_slice() {
            b"https" | b"wss" => Some(true),
            b"http" | b"ws" => Some(false),
            _ => None,
        };
    }

    fn told(self) -> Told {
        Told { client: self.client, is_https: self.is_https.filter(|_| self.schemes == 1) }
    }
}

/// Returns the members of a list from its end, without empty ones (RFC 9110, section 5.6.1).
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.rsplit(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Reads the elements of one `Forwarded` field from its end (RFC 7239, section 4).
fn read_elements(value: &[u8], walk: &mut Walk, trusted: &Trusted) {
    let mut rest = value;
    loop {
        let split = last_outside_quotes(rest, b',');
        let element = match split {
            Split::At(at) => &rest[at + 1..],
            Split::Nowhere => rest,
            Split::Malformed => {
                walk.visit(None, trusted);
                // There may be any number of schemes in it.
                walk.schemes += 2;
                return;
            }
        };
        let element = element.trim_ascii();
        if !element.is_empty() {
            read_element(element, walk, trusted);
        }
        let Split::At(at) = split else { return };
        rest = &rest[..at];
    }
}

/// Reads one element, which is pairs separated by semicolons.
fn read_element(element: &[u8], walk: &mut Walk, trusted: &Trusted) {
    let mut hop = None;
    let mut hops = 0;
    let mut rest = element;
    loop {
        let split = last_outside_quotes(rest, b';');
        let pair = match split {
            Split::At(at) => &rest[at + 1..],
            _ => rest,
        };
        if let Some(at) = memchr::memchr(b'=', pair) {
            let (name, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii());
            let mut room = [0; MAX_NODE];
            if name.eq_ignore_ascii_case(b"for") {
                hops += 1;
                hop = unquoted(value, &mut room).and_then(address);
            } else if name.eq_ignore_ascii_case(b"proto") {
                walk.note_scheme(unquoted(value, &mut room).unwrap_or_default());
            }
        }
        let Split::At(at) = split else { break };
        rest = &rest[..at];
    }
    // RFC 7239, section 4: a parameter occurs once in an element.
    walk.visit(hop.filter(|_| hops == 1), trusted);
}

/// Where a text is divided.
enum Split {
    At(usize),
    Nowhere,
    /// A quoted string does not begin.
    Malformed,
}

/// Finds the last `separator` that is not in a quoted string. It is looked for from the end: a
/// quote that a client has left open does not swallow what a proxy appended.
fn last_outside_quotes(text: &[u8], separator: u8) -> Split {
    let mut is_quoted = false;
    for at in (0..text.len()).rev() {
        match text[at] {
            b'"' => {
                let before = &text[..at];
                let escapes = before.iter().rev().take_while(|b| **b == b'\\').count();
                let is_escaped = escapes % 2 == 1;
                match is_quoted {
                    true => is_quoted = is_escaped,
                    false if is_escaped => return Split::Malformed,
                    false => is_quoted = true,
                }
            }
            byte if byte == separator && !is_quoted => return Split::At(at),
            _ => {}
        }
    }
    if is_quoted { Split::Malformed } else { Split::Nowhere }
}

/// Returns the text of a token or a quoted string (RFC 9110, section 5.6.4), if it fits into
/// `room`.
fn unquoted<'a>(value: &'a [u8], room: &'a mut [u8; MAX_NODE]) -> Option<&'a [u8]> {
    let Some(text) = value.strip_prefix(b"\"") else {
        return (!value.contains(&b'"')).then_some(value);
    };
    let text = text.strip_suffix(b"\"")?;
    let mut len = 0;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'\\' => bytes.next()?,
            b'"' => return None,
            byte => byte,
        };
        *room.get_mut(len)? = *byte;
        len += 1;
    }
    room.get(..len)
}

/// Parses an address with or without a port. An IPv6 address with a port stands in brackets. A port
/// that is hidden (RFC 7239, section 6.2) counts as none.
fn address(text: &[u8]) -> Option<Peer> {
    let text = str::from_utf8(text).ok().filter(|text| text.len() <= MAX_NODE)?;
    let (ip, port): (IpAddr, _) = if let Some(literal) = text.strip_prefix('[') {
        let (ip, rest) = literal.split_once(']')?;
        let port = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(':')?),
        };
        (ip.parse::<Ipv6Addr>().ok()?.into(), port)
    } else {
        match text.split_once(':') {
            Some((ip, port)) if !port.contains(':') => {
                (ip.parse::<Ipv4Addr>().ok()?.into(), Some(port))
            }
            _ => (text.parse().ok()?, None),
        }
    };
    let port = match port {
        None => 0,
        Some(port) if port.len() > 1 && port.starts_with('_') => 0,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().ok()?,
        Some(_) => return None,
    };
    Some(SocketAddr::new(ip, port).into())
}

#[cfg(test)]
mod tests;
