//! What proxies tell: the header of the PROXY protocol, which is decided on in the same way however
//! its bytes arrive, and the fields of requests, where nothing in front changes how the end is
//! read.
#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use mongoose::acl::Trusted;
use mongoose::http::forwarded::{self, Told};
use mongoose::http::proxy_header::{self, MAX_LEN, Outcome};
use mongoose::peer::Peer;

const PEER: Peer = Peer::V4(Ipv4Addr::new(10, 0, 0, 1), 5000);
const CLIENT: Peer = Peer::V4(Ipv4Addr::new(1, 2, 3, 4), 0);

fuzz_target!(|data: &[u8]| {
    read_header(data);
    read_fields(data);
});

fn read_header(data: &[u8]) {
    let whole = proxy_header::parse(data);
    match whole {
        Outcome::Complete { len, .. } => assert!(len <= data.len().min(MAX_LEN)),
        Outcome::Partial => assert!(data.len() < MAX_LEN),
        Outcome::Absent | Outcome::Broken(_) => {}
    }
    for len in 0..data.len() {
        let part = proxy_header::parse(&data[..len]);
        assert!(part == Outcome::Partial || part == whole);
        if let Outcome::Complete { len: end, .. } = whole {
            assert_eq!(part == Outcome::Partial, len < end);
        }
    }
}

/// Each line is the value of a field, whose name its first byte tells.
fn read_fields(data: &[u8]) {
    let trusted = Trusted::parse("10/8,2001:db8::/32,unix").expect("a list");
    let fields: Vec<(&[u8], &[u8])> = data.split(|byte| *byte == b'\n').map(field).collect();
    let told = forwarded::read(fields.iter().copied(), PEER, &trusted);
    if let Ok(Told { client, .. }) = told
        && client != PEER
    {
        assert!(client.ip().is_some());
    }
    // What the nearest proxy appends decides, whatever stands before it.
    for (name, separate) in [(&b"forwarded"[..], false), (b"x-forwarded-for", true)] {
        let value: &[u8] = if separate { b"1.2.3.4" } else { b"for=\"1.2.3.4\"" };
        let own = fields.iter().copied().filter(|(other, _)| *other == name);
        let appended = own.clone().chain([(name, value)]).collect::<Vec<_>>();
        let told = forwarded::read(appended.into_iter(), PEER, &trusted);
        assert_eq!(told.map(|told| told.client), Ok(CLIENT));
        let joined = own.map(|(_, value)| value).collect::<Vec<_>>().join(&b',');
        let joined = [&joined, &b", "[..], value].concat();
        let told = forwarded::read([(name, joined.as_slice())].into_iter(), PEER, &trusted);
        assert_eq!(told.map(|told| told.client), Ok(CLIENT));
    }
}

fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let name: &[u8] = match line.first() {
        Some(b'f') => b"forwarded",
        Some(b'x') => b"x-forwarded-for",
        Some(b'p') => b"x-forwarded-proto",
        _ => b"other",
    };
    (name, line.get(1..).unwrap_or_default())
}
