//! Handshake messages of any length, in any pieces.

use super::setup::{Pem, Setup};
use super::*;

const IDENTITY: &[u8] = include_bytes!("../../fuzz/targets/identity.pem");
/// The length of the buffer for records that a server has.
const WIRE: usize = 48 * 1024;
/// The longest content of a record.
const CONTENT: usize = 16 * 1024;

fn identity() -> Identity {
    let certificate = Certificate::load("test", &Pem::Text(IDENTITY)).ok();
    let setup = Setup { certificate, ..Setup::default() };
    setup.identity().ok().flatten().expect("an identity")
}

/// Writes a vector with a length of two bytes in front.
fn vector(content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).expect("a short vector");
    [&len.to_be_bytes(), content].concat()
}

/// Returns the records of a ClientHello of TLS 1.2 (RFC 5246, section 7.4.1.2), which an extension
/// that nobody knows makes `len` bytes long, with the headers of the records.
fn hello(len: usize) -> Vec<u8> {
    let extension =
        |kind: u16, content: &[u8]| [&kind.to_be_bytes(), &vector(content)[..]].concat();
    let message = |fill: usize| {
        let extensions = [
            extension(10, &vector(&[0, 29, 0, 23])),
            extension(11, &[1, 0]),
            extension(13, &vector(&[4, 3, 8, 4])),
            extension(23, &[]),
            extension(0xfafa, &vec![0; fill]),
        ];
        let body = [
            &[3, 3][..],
            &[7; 32],
            &[0],
            &vector(&[0xc0, 0x2b, 0xc0, 0x2c]),
            &[1, 0],
            &vector(&extensions.concat()),
        ]
        .concat();
        [&[1], &u32::try_from(body.len()).expect("a length").to_be_bytes()[1..], &body].concat()
    };
    let records = |message: &[u8]| {
        let record = |content: &[u8]| [&[22, 3, 1], &vector(content)[..]].concat();
        message.chunks(CONTENT).flat_map(record).collect::<Vec<u8>>()
    };
    let mut fill = len - records(&message(0)).len();
    while records(&message(fill)).len() > len {
        fill -= 1;
    }
    let records = records(&message(fill));
    assert_eq!(records.len(), len);
    records
}

/// Passes input to a new session in pieces of at most `piece` bytes, as a socket does. Returns the
/// error, or the length of what is sent in return.
fn outcome(identity: &Identity, input: &[u8], piece: usize) -> Result<usize, String> {
    let mut session = Session::open(identity).expect("a session");
    let mut wire = vec![0; WIRE];
    let mut input = input;
    while !input.is_empty() {
        let begin = session.begin_input(&mut wire);
        let count = input.len().min(piece).min(WIRE - begin);
        wire[begin..begin + count].copy_from_slice(&input[..count]);
        input = &input[count..];
        session.receive(&mut wire[..begin + count], |_| panic!("no content was sent"))?;
        assert!(session.partial.capacity() < MAX_PARTIAL);
    }
    let mut records = Records::default();
    session.fill(&[], false, &mut records)?;
    Ok(records.as_slice().len())
}

#[test]
fn a_message_is_taken_or_refused_however_it_is_split() {
    let identity = identity();
    let lens =
        [1000, 18_000, MAX_PARTIAL - 1, MAX_PARTIAL, MAX_PARTIAL + 1, 30_000, 47_000, 60_000];
    for len in lens {
        let input = hello(len);
        for piece in (300..len).step_by(700).chain([MAX_PARTIAL - 1, MAX_PARTIAL, WIRE, len]) {
            let outcome = outcome(&identity, &input, piece);
            match len <= MAX_PARTIAL {
                true => assert!(outcome.as_ref().is_ok_and(|len| *len > 0), "{outcome:?}"),
                false => {
                    assert_eq!(outcome, Err("a message is too long".to_owned()), "{len} by {piece}")
                }
            }
        }
    }
}
