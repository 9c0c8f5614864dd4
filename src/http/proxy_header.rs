//! The header of the PROXY protocol, versions 1 and 2, by which a relay tells whose bytes follow.
//!
//! Owns which headers are broken: an address that is told wrongly would be believed by access
//! control. What was decided on a part of the bytes stays so when more arrive. Refuses to know who
//! may send such a header.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::peer::Peer;

/// The longest header that is read, in bytes. One of version 2 could state 65,551; those that
/// relays send are far shorter, unless they pass certificates on.
pub const MAX_LEN: usize = 4096;
/// The longest header of version 1, with its line end.
const MAX_LINE: usize = 107;
const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The length of the part of version 2 that each header has.
const FIXED: usize = 16;
/// The type of the part that holds a checksum (CRC-32C) of the whole header.
const CHECKSUM: u8 = 3;

/// The result of looking at the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// The connection does not begin with a header.
    Absent,
    /// More bytes are needed to decide.
    Partial,
    Broken(&'static str),
    /// A header of `len` bytes. `client` is missing where the relay speaks for itself, or does not
    /// know.
    Complete {
        len: usize,
        client: Option<Peer>,
    },
}

use Outcome::{Absent, Broken, Complete, Partial};

/// Looks for a header at the start of `input`.
pub fn parse(input: &[u8]) -> Outcome {
    let begins = |start: &[u8]| {
        let len = input.len().min(start.len());
        input[..len] == start[..len]
    };
    match () {
        () if begins(LINE_START) && input.len() >= LINE_START.len() => parse_line(input),
        () if begins(SIGNATURE) && input.len() >= SIGNATURE.len() => parse_binary(input),
        () if begins(LINE_START) || begins(SIGNATURE) => Partial,
        () => Absent,
    }
}

/// Parses version 1, a line of text.
fn parse_line(input: &[u8]) -> Outcome {
    let start = &input[..input.len().min(MAX_LINE)];
    let Some(end) = memchr::memchr(b'\n', start) else {
        return if input.len() < MAX_LINE { Partial } else { Broken("the line is too long") };
    };
    let len = end + 1;
    let line = start[LINE_START.len()..end].strip_suffix(b"\r");
    let Some(line) = line.and_then(|line| str::from_utf8(line).ok()) else {
        return Broken("the line is malformed");
    };
    // What follows this word does not count.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Complete { len, client: None };
    }
    match told_by(line) {
        Some(client) => Complete { len, client: Some(client) },
        None => Broken("the line is malformed"),
    }
}

/// Returns the source that a line such as `TCP4 1.2.3.4 5.6.7.8 1000 80` tells.
fn told_by(line: &str) -> Option<Peer> {
    let mut words = line.split(' ');
    let mut next = || words.next();
    let (family, source, destination) = (next()?, next()?, next()?);
    let (port, destination_port) = (port(next()?)?, port(next()?)?);
    if words.next().is_some() {
        return None;
    }
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            _ => None,
        }
    };
    let _ = (address(destination)?, destination_port);
    Some(SocketAddr::new(address(source)?, port).into())
}

fn port(text: &str) -> Option<u16> {
    let has_form =
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| has_form)
}

/// Parses version 2, which is binary. `input` begins with the signature.
fn parse_binary(input: &[u8]) -> Outcome {
    let at = |index: usize| input.get(index).copied();
    let Some(command) = at(12) else { return Partial };
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Broken("an unknown version or command"),
    };
    let (Some(family), Some(high), Some(low)) = (at(13), at(14), at(15)) else { return Partial };
    let len = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_LEN {
        return Broken("the header is too long");
    }
    let Some(header) = input.get(..len) else { return Partial };
    let body = &header[FIXED..];
    // A relay that speaks for itself may fill the rest with anything.
    if is_local {
        return Complete { len, client: None };
    }
    let Some((client, parts)) = told_in(family, body) else {
        return Broken("an unknown family, or no room for its addresses");
    };
    match check_parts(header, len - parts.len()) {
        Ok(()) => Complete { len, client },
        Err(why) => Broken(why),
    }
}

/// Returns the source that the body of a header of version 2 tells, and the bytes behind the
/// addresses. `None` means that the body is malformed.
fn told_in(family: u8, body: &[u8]) -> Option<(Option<Peer>, &[u8])> {
    match family {
        0x00 => Some((None, body)),
        // IPv4: two addresses, then two ports; streams and datagrams.
        0x11 | 0x12 => {
            let (bytes, parts) = body.split_first_chunk::<12>()?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *bytes;
            let port = u16::from_be_bytes([high, low]);
            Some((Some(Peer::V4(Ipv4Addr::new(a, b, c, d), port)), parts))
        }
        // IPv6, in the same way.
        0x21 | 0x22 => {
            let (bytes, parts) = body.split_first_chunk::<36>()?;
            let source: [u8; 16] = *bytes.first_chunk()?;
            let port = u16::from_be_bytes([bytes[32], bytes[33]]);
            Some((Some(SocketAddr::new(Ipv6Addr::from(source).into(), port).into()), parts))
        }
        // Unix domain sockets: two paths of 108 bytes.
        0x31 | 0x32 => Some((Some(Peer::Local), body.get(216..)?)),
        _ => None,
    }
}

/// Checks the parts behind the addresses, which begin at `start`: each has a type, a length of two
/// bytes, and a value. Those that are not known are skipped.
fn check_parts(header: &[u8], start: usize) -> Result<(), &'static str> {
    const MALFORMED: &str = "a part behind the addresses is malformed";
    let mut at = start;
    while at < header.len() {
        let [kind, high, low] = *header[at..].first_chunk::<3>().ok_or(MALFORMED)?;
        let end = at + 3 + usize::from(u16::from_be_bytes([high, low]));
        let value = header.get(at + 3..end).ok_or(MALFORMED)?;
        if kind == CHECKSUM {
            let stated = u32::from_be_bytes(value.try_into().map_err(|_| MALFORMED)?);
            // The checksum is that of the header with zeros in its place.
            let sum = crc32c(0, &header[..at + 3]);
            let sum = crc32c(crc32c(sum, &[0; 4]), &header[end..]);
            if sum != stated {
                return Err("the checksum is wrong");
            }
        }
        at = end;
    }
    Ok(())
}

/// Continues the checksum `sum` by `bytes` (CRC-32C, RFC 3720, appendix B.4). Headers are too short
/// and too rare for a table to pay.
fn crc32c(sum: u32, bytes: &[u8]) -> u32 {
    let shift = |sum: u32, _| (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
    !bytes.iter().fold(!sum, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), shift))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(client: &str, len: usize) -> Outcome {
        let address: SocketAddr = client.parse().expect("an address");
        Complete { len, client: Some(address.into()) }
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = (body.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, body].concat()
    }

    const V4: &[u8] = &[10, 1, 2, 3, 127, 0, 0, 1, 0x12, 0x34, 0, 80];

    /// A header with a right checksum at its end.
    fn with_checksum(body: &[u8]) -> Vec<u8> {
        let mut header = binary(0x21, 0x11, &[body, &[CHECKSUM, 0, 4, 0, 0, 0, 0]].concat());
        let sum = crc32c(0, &header);
        let at = header.len() - 4;
        header[at..].copy_from_slice(&sum.to_be_bytes());
        header
    }

    #[test]
    fn a_line_tells_the_source() {
        let malformed = Broken("the line is malformed");
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_LINE - 16));
        let v6 = "PROXY TCP6 2001:db8::1 ::1 1 2\r\n";
        let table = [
            ("PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\nGET", told("1.2.3.4:1000", 36)),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 0 65535\r\n", told("1.2.3.4:0", 36)),
            (v6, told("[2001:db8::1]:1", v6.len())),
            ("PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n", told("1.2.3.4:1", 35)),
            ("PROXY UNKNOWN\r\n", Complete { len: 15, client: None }),
            ("PROXY UNKNOWN a b c\r\nX", Complete { len: 21, client: None }),
            (&longest, Complete { len: MAX_LINE, client: None }),
            ("PROXY UNKNOWNS\r\n", malformed),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\n", malformed),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 1000 80 \r\n", malformed),
            ("PROXY TCP4  1.2.3.4 5.6.7.8 1000 80\r\n", malformed),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 1000\r\n", malformed),
            ("PROXY TCP4 1.2.3.4 ::1 1000 80\r\n", malformed),
            ("PROXY TCP4 ::1 ::1 1000 80\r\n", malformed),
            ("PROXY TCP6 1.2.3.4 5.6.7.8 1000 80\r\n", malformed),
            ("PROXY TCP4 1.2.3.04 5.6.7.8 1000 80\r\n", malformed),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 65536 80\r\n", malformed),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 +1 80\r\n", malformed),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 01 80\r\n", malformed),
            ("PROXY TCP5 1.2.3.4 5.6.7.8 1 80\r\n", malformed),
            ("PROXY /a HTTP/1.1\r\n", malformed),
            ("PROXY \r\n", malformed),
            ("PROXYTCP4 1.2.3.4 5.6.7.8 1 80\r\n", Absent),
            ("proxy TCP4 1.2.3.4 5.6.7.8 1 80\r\n", Absent),
            ("GET / HTTP/1.1\r\n", Absent),
            ("\r\nGET / HTTP/1.1\r\n", Absent),
            ("", Partial),
        ];
        for (input, expected) in table {
            assert_eq!(parse(input.as_bytes()), expected, "{input:?}");
        }
        let too_long = longest.replace("\r\n", "x\r\n");
        assert_eq!(parse(too_long.as_bytes()), Broken("the line is too long"));
        // One byte too long, with its end in sight.
        assert_eq!(parse(&too_long.as_bytes()[..MAX_LINE]), Broken("the line is too long"));
        assert_eq!(parse(&too_long.as_bytes()[..MAX_LINE - 1]), Partial);
    }

    #[test]
    fn a_binary_header_tells_the_source() {
        let unknown_family = Broken("an unknown family, or no room for its addresses");
        let part = Broken("a part behind the addresses is malformed");
        let v6 = [&[0x20, 1, 0xd, 0xb8], &[0; 11][..], &[1], &[0; 16], &[1, 2, 3, 4]].concat();
        let local = Complete { len: FIXED + 216, client: Some(Peer::Local) };
        let with = |parts: &[u8]| [V4, parts].concat();
        let none = |len| Complete { len: FIXED + len, client: None };
        let table: Vec<(Vec<u8>, Outcome)> = vec![
            (binary(0x21, 0x11, V4), told("10.1.2.3:4660", 28)),
            (binary(0x21, 0x12, V4), told("10.1.2.3:4660", 28)),
            (binary(0x21, 0x21, &v6), told("[2001:db8::1]:258", 52)),
            (binary(0x21, 0x31, &[b'/'; 216]), local),
            (binary(0x21, 0x00, b""), none(0)),
            (binary(0x21, 0x00, &[4, 0, 1, 9]), none(4)),
            (binary(0x20, 0x00, b""), none(0)),
            (binary(0x20, 0x11, V4), none(12)),
            (binary(0x20, 0xff, b"anything"), none(8)),
            (binary(0x21, 0x11, &with(&[4, 0, 2, 9, 9, 0xee, 0, 0])), told("10.1.2.3:4660", 36)),
            (binary(0x21, 0x11, &V4[..11]), unknown_family),
            (binary(0x21, 0x21, V4), unknown_family),
            (binary(0x21, 0x31, &[b'/'; 215]), unknown_family),
            (binary(0x21, 0x10, V4), unknown_family),
            (binary(0x21, 0x41, V4), unknown_family),
            (binary(0x21, 0x11, &with(&[4, 0])), part),
            (binary(0x21, 0x11, &with(&[4, 0, 2, 9])), part),
            (binary(0x21, 0x11, &with(&[CHECKSUM, 0, 3, 1, 2, 3])), part),
            (binary(0x22, 0x11, V4), Broken("an unknown version or command")),
            (binary(0x11, 0x11, V4), Broken("an unknown version or command")),
            (binary(0x21, 0x11, &[0; MAX_LEN]), Broken("the header is too long")),
            (binary(0x20, 0x00, &[0; MAX_LEN - FIXED]), none(MAX_LEN - FIXED)),
            (with_checksum(V4), told("10.1.2.3:4660", 35)),
        ];
        for (input, expected) in table {
            assert_eq!(parse(&input), expected, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn a_checksum_that_is_there_is_checked() {
        assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
        let header = with_checksum(V4);
        // Each byte that does not say how long something is.
        for at in (16..28).chain(31..35) {
            let mut wrong = header.clone();
            wrong[at] ^= 0x40;
            assert_eq!(parse(&wrong), Broken("the checksum is wrong"), "{at}");
        }
    }

    proptest! {
        #[test]
        fn what_was_decided_on_a_part_stays_so(
            command in prop_oneof![Just(0x20u8), Just(0x21), any::<u8>()],
            family in prop_oneof![Just(0x11u8), Just(0x21), Just(0x31), any::<u8>()],
            body in proptest::collection::vec(any::<u8>(), 0..300),
            tail in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            check_splits(&[binary(command, family, &body), tail].concat());
        }

        #[test]
        fn what_was_decided_on_a_part_of_a_line_stays_so(line in "(PROXY )?(TCP[46]|UNKNOWN)( [0-9a-f.:]{0,40}){0,5}\r?\n?.{0,90}") {
            check_splits(line.as_bytes());
        }

        #[test]
        fn each_address_comes_through(ip in any::<[u8; 16]>(), port in any::<u16>()) {
            let address = SocketAddr::new(Ipv6Addr::from(ip).into(), port);
            let line = format!("PROXY TCP6 {} ::1 {port} 1\r\n", address.ip());
            let outcome = Complete { len: line.len(), client: Some(address.into()) };
            prop_assert_eq!(parse(line.as_bytes()), outcome);
            let body = [&ip[..], &[0; 16], &port.to_be_bytes(), &[0; 2]].concat();
            let outcome = Complete { len: 52, client: Some(address.into()) };
            prop_assert_eq!(parse(&binary(0x21, 0x21, &body)), outcome);
        }
    }

    fn check_splits(input: &[u8]) {
        let whole = parse(input);
        for len in 0..input.len() {
            let part = parse(&input[..len]);
            assert!(part == Partial || part == whole, "{len} of {}", input.escape_ascii());
            if let Complete { len: end, .. } = whole {
                assert_eq!(part == Partial, len < end);
            }
        }
    }
}
