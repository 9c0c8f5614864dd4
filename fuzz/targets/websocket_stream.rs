//! A client's frames, cut into arbitrary pieces: the events are those of the uncut stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mongoose::websocket::deflate::Deflate;
use mongoose::websocket::message::{Payload, Receiver, Step, Unit};

fn events<'a>(receiver: &mut Receiver, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut events = Vec::new();
    for piece in pieces {
        let mut input = piece.to_vec();
        let mut at = 0;
        loop {
            let step = receiver.step(&mut input[at..]);
            let start = at;
            let mut note = |what: String, payload: Payload, consumed: usize| {
                let bytes = match payload {
                    Payload::Input(range) => input[start + range.start..start + range.end].to_vec(),
                    Payload::Own => receiver.own().split_last().expect("a NUL").1.to_vec(),
                };
                events.push(format!("{what} {bytes:02x?}"));
                at += consumed;
            };
            match step {
                Step::More { consumed } => {
                    assert_eq!(consumed, input.len() - at, "all of the input is taken in");
                    break;
                }
                Step::Pause { consumed } => at += consumed,
                Step::Message { wsbits, opcode, payload, consumed } => {
                    note(format!("message {wsbits:02x} {opcode}"), payload, consumed);
                }
                Step::Ping { payload, consumed } => note("ping".to_owned(), payload, consumed),
                Step::Pong { payload, consumed } => note("pong".to_owned(), payload, consumed),
                Step::Close { code, payload, consumed } => {
                    note(format!("close {code:?}"), payload, consumed);
                }
                Step::Fail { code } => {
                    events.push(format!("fail {code}"));
                    break;
                }
            }
        }
    }
    events
}

fuzz_target!(|data: &[u8]| {
    let [flags, seed, stream @ ..] = data else { return };
    let unit = if flags & 1 == 0 { Unit::Message } else { Unit::Frame };
    let limit = [16, 200, 4096, 1 << 20][usize::from(flags >> 1 & 3)];
    let offer: &[u8] = b"permessage-deflate";
    let deflate = (flags & 8 != 0).then(|| Deflate::negotiate([offer].into_iter())).flatten();
    let receiver = || Receiver::new(unit, limit, deflate);

    let whole = events(&mut receiver(), [stream].into_iter());
    let mut state = u32::from(*seed) | 1;
    let mut rest = stream;
    let pieces = std::iter::from_fn(|| {
        if rest.is_empty() {
            return None;
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = (state >> 24) as usize % 19 + 1;
        let (piece, behind) = rest.split_at(len.min(rest.len()));
        rest = behind;
        Some(piece)
    });
    assert_eq!(events(&mut receiver(), pieces), whole);
    assert_eq!(events(&mut receiver(), stream.chunks(1)), whole);
});
