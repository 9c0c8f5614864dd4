use flate2::{Compress, Compression, FlushCompress};

use super::Event::*;
use super::*;
use crate::websocket::deflate::Deflater;

/// Compresses a message as a client does, with the context of the messages before it.
fn compressed(compress: &mut Compress, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 100);
    compress.compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    out
}

#[test]
fn compressed_messages_are_inflated_with_or_without_context() {
    let text = "one and one and one and one: ".repeat(20);
    for takeover in [true, false] {
        let mut compress = Compress::new(Compression::default(), false);
        let mut input = Vec::new();
        for _ in 0..3 {
            let message = compressed(&mut compress, text.as_bytes());
            let (first, second) = message.split_at(5);
            input.extend(masked(0x41, first));
            input.extend(masked(0x89, b"p"));
            input.extend(masked(0x80, second));
            input.extend(masked(0x81, b"plain"));
            if !takeover {
                compress.reset();
            }
        }
        for size in [1, 7, 10_000] {
            let mut receiver = Receiver::new(Unit::Message, text.len(), agreed(takeover));
            let expected = [
                Ping(b"p".into()),
                Message(0x81, 1, text.clone().into()),
                Message(0x81, 1, b"plain".into()),
            ];
            let events = run(&mut receiver, input.chunks(size)).0;
            assert_eq!(events, [&expected[..], &expected, &expected].concat());
            assert_eq!(receiver.inflater.is_some(), takeover);
        }
    }
}

#[test]
fn compressed_messages_that_are_refused() {
    let mut compress = Compress::new(Compression::default(), false);
    let mut message = |payload: &[u8]| {
        compress.reset();
        compressed(&mut compress, payload)
    };
    let table = [
        (masked(0xc1, &message(&[b'a'; LIMIT])), Message(0x81, 1, vec![b'a'; LIMIT])),
        (masked(0xc1, &message(&[b'a'; LIMIT + 1])), Fail(1009)),
        (masked(0xc2, &message(&vec![0; 1 << 20])), Fail(1009)),
        (masked(0xc1, &message(b"\xff")), Fail(1007)),
        (masked(0xc1, &message("€".as_bytes().split_last().unwrap().1)), Fail(1007)),
        (masked(0xc1, b"\xff\xff\xff\xff"), Fail(1007)),
        (masked(0xc9, b""), Fail(1002)),
    ];
    for (input, expected) in table {
        for size in [1, 10, 10_000] {
            let mut receiver = Receiver::new(Unit::Message, LIMIT, agreed(true));
            let events = run(&mut receiver, input.chunks(size)).0;
            assert_eq!(events, std::slice::from_ref(&expected));
        }
    }
}

#[test]
fn frames_of_a_compressed_message_are_shown_inflated() {
    let mut compress = Compress::new(Compression::default(), false);
    let message = compressed(&mut compress, b"Hello");
    let mut receiver = Receiver::new(Unit::Frame, LIMIT, agreed(false));
    let input = [masked(0x41, &message[..2]), masked(0x80, &message[2..])].concat();
    let events = run(&mut receiver, [&input[..]]).0;
    let [Message(0x01, 1, first), Message(0x80, 1, second)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!([first.clone(), second.clone()].concat(), b"Hello");
}

#[test]
fn a_step_inflates_a_bounded_number_of_bytes() {
    let bomb = vec![0; 8 << 20];
    let mut frame = Vec::new();
    Deflater::new().write_frame_of_any_length(&mut frame, 2, &bomb, 15);
    assert_eq!(frame[..2], [0xc2, 126]);
    let mut input = masked(0xc2, &frame[4..]);
    let mut receiver = Receiver::new(Unit::Message, bomb.len(), agreed(false));
    let (mut at, mut before, mut steps) = (0, 0, 0);
    loop {
        let step = receiver.step(&mut input[at..]);
        let inflated = receiver.buffered();
        assert!(inflated - before < 1 << 20, "{inflated}");
        (before, steps) = (inflated, steps + 1);
        match step {
            Step::Pause { consumed } => at += consumed,
            Step::Message { payload: Payload::Own, consumed, .. } => {
                assert_eq!(at + consumed, input.len());
                break;
            }
            step => panic!("{step:?}"),
        }
    }
    assert!(steps > 8, "{steps}");
    assert!(receiver.own() == [bomb, vec![0]].concat());
}
