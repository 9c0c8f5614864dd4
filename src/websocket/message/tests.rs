use proptest::prelude::*;

use super::*;

#[cfg(feature = "deflate")]
mod compressed;

const LIMIT: usize = 1000;

/// An event with its payload.
#[derive(Clone, Debug, PartialEq)]
enum Event {
    Message(u8, u8, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, Vec<u8>),
    Fail(u16),
}
use Event::*;

/// Passes a stream in pieces to a receiver. Returns the events, and the number of bytes passed up
/// to the last event.
fn run<'a>(
    receiver: &mut Receiver,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Event>, usize) {
    let mut events = Vec::new();
    let mut read = 0;
    let mut decided = 0;
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut at = 0;
        loop {
            let step = receiver.step(&mut piece[at..]);
            let mut bytes = |payload| match payload {
                Payload::Input(range) => piece[at..][range].to_vec(),
                Payload::Own => {
                    let (nul, bytes) = receiver.own().split_last().unwrap();
                    assert_eq!(*nul, 0);
                    bytes.to_vec()
                }
            };
            let (event, consumed) = match step {
                Step::More { consumed } => {
                    assert_eq!(at + consumed, piece.len(), "leftovers");
                    break;
                }
                Step::Pause { consumed } => {
                    at += consumed;
                    continue;
                }
                Step::Message { wsbits, opcode, payload, consumed } => {
                    (Message(wsbits, opcode, bytes(payload)), consumed)
                }
                Step::Ping { payload, consumed } => (Ping(bytes(payload)), consumed),
                Step::Pong { payload, consumed } => (Pong(bytes(payload)), consumed),
                Step::Close { code, payload, consumed } => (Close(code, bytes(payload)), consumed),
                Step::Fail { code } => (Fail(code), 0),
            };
            events.push(event);
            at += consumed;
            decided = read + piece.len();
        }
        read += piece.len();
    }
    (events, decided)
}

fn whole(stream: &[u8]) -> Vec<Event> {
    run(&mut Receiver::new(Unit::Message, LIMIT, None), [stream]).0
}

/// Returns the number of bytes up to the last event.
fn bytes_until_decided(stream: &[u8]) -> usize {
    let mut receiver = Receiver::new(Unit::Message, LIMIT, None);
    run(&mut receiver, stream.chunks(1)).1
}

/// Returns a masked frame.
fn masked(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write_header(&mut out, first_byte, payload.len(), false);
    out[0] = first_byte;
    out[1] |= 0x80;
    let mask = [0x11, 0xa2, 0x33, 0xc4];
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    frame::unmask(&mut out[start..], mask, 0);
    out
}

fn stream(frames: &[(u8, &[u8])]) -> Vec<u8> {
    frames.iter().flat_map(|(first, payload)| masked(*first, payload)).collect()
}

/// Returns what is agreed upon with a client; nothing, where compression is not built in.
fn agreed(client_takeover: bool) -> Option<Deflate> {
    let offer: &[u8] = match client_takeover {
        true => b"permessage-deflate",
        false => b"permessage-deflate; client_no_context_takeover",
    };
    Deflate::negotiate([offer].into_iter())
}

#[test]
fn streams_and_what_is_shown_of_them() {
    type Row<'a> = (&'a [(u8, &'a [u8])], Vec<Event>);
    let table: &[Row<'_>] = &[
        (&[(0x81, b"Hello")], vec![Message(0x81, 1, b"Hello".into())]),
        (&[(0x82, b"")], vec![Message(0x82, 2, b"".into())]),
        (&[(0x01, b"Hel"), (0x80, b"lo")], vec![Message(0x81, 1, b"Hello".into())]),
        (
            &[(0x02, b""), (0x00, b""), (0x80, b"x"), (0x81, b"y")],
            vec![Message(0x82, 2, b"x".into()), Message(0x81, 1, b"y".into())],
        ),
        (&[(0x01, b"a\xe2\x82"), (0x80, b"\xac")], vec![Message(0x81, 1, "a€".into())]),
        (
            &[(0x01, b"a"), (0x89, b"p"), (0x8a, b"q"), (0x00, b"b"), (0x80, b"c")],
            vec![Ping(b"p".into()), Pong(b"q".into()), Message(0x81, 1, b"abc".into())],
        ),
        (&[(0x89, &[7; 125])], vec![Ping(vec![7; 125])]),
        (&[(0x82, b"\xff\xfe")], vec![Message(0x82, 2, b"\xff\xfe".into())]),
        // Behind a Close frame nothing is shown, even if it stands between fragments.
        (&[(0x88, b""), (0x81, b"x"), (0x83, b"")], vec![Close(None, b"".into())]),
        (
            &[(0x01, b"a"), (0x88, b"\x03\xe8bye"), (0x80, b"b")],
            vec![Close(Some(1000), b"\x03\xe8bye".into())],
        ),
        // Behind an error nothing is shown.
        (&[(0x80, b"x"), (0x81, b"y")], vec![Fail(1002)]),
        (&[(0x01, b"x"), (0x81, b"y")], vec![Fail(1002)]),
        (
            &[(0x81, b"x"), (0xc1, b"y"), (0x81, b"z")],
            vec![Message(0x81, 1, b"x".into()), Fail(1002)],
        ),
        (&[(0x88, b"\x03")], vec![Fail(1002)]),
        (&[(0x88, b"\x03\xe8\xff")], vec![Fail(1007)]),
        (&[(0x88, b"\x03\xe8\xe2\x82")], vec![Fail(1007)]),
        (&[(0x81, b"\xff")], vec![Fail(1007)]),
        (&[(0x81, b"\xe2\x82")], vec![Fail(1007)]),
        (&[(0x01, b"\xe2\x82"), (0x00, b""), (0x80, b"")], vec![Fail(1007)]),
        (&[(0x01, b"\xe2\x82"), (0x89, b""), (0x80, b"a")], vec![Ping(b"".into()), Fail(1007)]),
        (&[(0x81, &[b'a'; LIMIT])], vec![Message(0x81, 1, vec![b'a'; LIMIT])]),
        (&[(0x81, &[b'a'; LIMIT + 1])], vec![Fail(1009)]),
        (&[(0x01, &[b'a'; LIMIT]), (0x80, b"")], vec![Message(0x81, 1, vec![b'a'; LIMIT])]),
        (&[(0x01, &[b'a'; LIMIT]), (0x80, b"a")], vec![Fail(1009)]),
    ];
    for (frames, expected) in table {
        assert_eq!(&whole(&stream(frames)), expected, "{frames:?}");
    }
}

#[test]
fn frames_are_shown_as_they_came() {
    let input = stream(&[
        (0x01, b"a\xe2"),
        (0x89, b"p"),
        (0x00, b""),
        (0x80, b"\x82\xac"),
        (0x82, b"x"),
        (0x01, b"y"),
        (0x80, b"\x80"),
    ]);
    let expected = vec![
        Message(0x01, 1, b"a\xe2".into()),
        Ping(b"p".into()),
        Message(0x00, 1, b"".into()),
        Message(0x80, 1, b"\x82\xac".into()),
        Message(0x82, 2, b"x".into()),
        Message(0x01, 1, b"y".into()),
        Fail(1007),
    ];
    for size in [1, 2, 3, 1000] {
        let mut receiver = Receiver::new(Unit::Frame, 3, None);
        assert_eq!(run(&mut receiver, input.chunks(size)).0, expected);
    }
}

#[test]
fn errors_are_told_before_the_frame_is_complete() {
    let mut table = vec![
        // Two bytes of the payload are valid, the third is not.
        (stream(&[(0x81, b"ab\xffcdefgh")]), 6 + 3),
        (stream(&[(0x01, b"\xe2\x82"), (0x80, b"(abc")]), 6 + 2 + 6 + 1),
        (stream(&[(0x82, &[0; LIMIT + 1])]), 8),
        (stream(&[(0x01, &[b'a'; 10]), (0x00, &[b'a'; LIMIT - 9])]), 16 + 8),
    ];
    let mut huge = b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec();
    huge.extend_from_slice(&[0; 100]);
    table.push((huge, 14));
    for (input, expected) in table {
        assert_eq!(bytes_until_decided(&input), expected, "{}", input.escape_ascii());
    }
}

#[test]
fn close_codes_that_may_be_sent() {
    let good = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
    for code in (0..=5100u16).chain([u16::MAX]) {
        let expected = if good.contains(&code) || (3000..5000).contains(&code) {
            Close(Some(code), code.to_be_bytes().to_vec())
        } else {
            Fail(1002)
        };
        assert_eq!(whole(&masked(0x88, &code.to_be_bytes())), [expected]);
    }
}

#[test]
fn a_message_that_lies_whole_in_the_input_costs_no_memory() {
    let mut input = stream(&[(0x81, b"Hello"), (0x89, b"p"), (0x82, &[9; 300]), (0x88, b"")]);
    let mut receiver = Receiver::new(Unit::Message, LIMIT, None);
    let mut at = 0;
    for _ in 0..4 {
        let step = receiver.step(&mut input[at..]);
        let (Step::Message { payload, consumed, .. }
        | Step::Ping { payload, consumed }
        | Step::Close { payload, consumed, .. }) = step
        else {
            panic!("{step:?}");
        };
        assert!(matches!(payload, Payload::Input(_)));
        at += consumed;
    }
    assert_eq!((receiver.content.capacity(), receiver.control.capacity()), (0, 0));
    assert_eq!(at, input.len());
}

#[test]
fn a_header_that_is_cut_keeps_the_payload_in_place() {
    let mut input = masked(0x82, &[5; 200]);
    let mut receiver = Receiver::new(Unit::Message, LIMIT, None);
    assert!(!receiver.is_inside());
    assert_eq!(receiver.step(&mut input[..3]), Step::More { consumed: 3 });
    assert!(receiver.is_inside());
    let step = receiver.step(&mut input[3..]);
    let Step::Message { payload: Payload::Input(range), consumed, .. } = step else {
        panic!("{step:?}");
    };
    assert_eq!((range, consumed), (5..205, 205));
    assert_eq!(input[8..], [5; 200]);
    assert!(!receiver.is_inside());
}

#[test]
fn memory_follows_what_arrived_and_not_what_is_claimed() {
    const SIZE: usize = 8 << 20;
    let input = masked(0x82, &vec![3; SIZE]);
    let mut receiver = Receiver::new(Unit::Message, usize::MAX, None);
    let mut growths = 0;
    let mut pieces = input.chunks(10_000).peekable();
    while let Some(piece) = pieces.next() {
        let before = receiver.content.capacity();
        let step = receiver.step(&mut piece.to_vec());
        growths += usize::from(receiver.content.capacity() != before);
        let len = receiver.content.len();
        assert!(receiver.content.capacity() <= 2 * len + 1);
        if pieces.peek().is_some() {
            assert_eq!(step, Step::More { consumed: piece.len() });
            assert_eq!(receiver.buffered(), len);
        }
    }
    assert!(growths < 20, "{growths}");
    assert_eq!(receiver.content.capacity(), SIZE + 1);
    assert_eq!(receiver.own().len(), SIZE + 1);
    receiver.release();
    assert_eq!((receiver.buffered(), receiver.content.capacity()), (0, 0));
    assert!(receiver.own().is_empty());
}

/// Frames most of which are valid; their order is often valid, too.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let first_byte =
        prop::sample::select(&b"\x81\x81\x82\x01\x02\x00\x00\x80\x80\x89\x8a\x88\xc1\x41\x83"[..]);
    let payload = prop_oneof![
        "[a\u{e9}\u{20ac}]{0,30}".prop_map(String::into_bytes),
        "[a\u{e9}\u{20ac}]{120,140}".prop_map(String::into_bytes),
        Just(b"\xe2\x82".to_vec()),
        Just(b"\xac\x03\xe8".to_vec()),
        Just(b"\x03\xe8bye".to_vec()),
        Just(b"\xf2\x48\xcd\xc9\xc9\x07\x00".to_vec()),
        prop::collection::vec(any::<u8>(), 0..10),
    ];
    (first_byte, payload).prop_map(|(first, payload)| masked(first, &payload))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn a_stream_split_anywhere_gives_the_same_events(
        frames in prop::collection::vec(any_frame(), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        frame_by_frame in any::<bool>(),
        deflate in any::<bool>(),
        limit in prop::sample::select(&[5, 130, 1000][..]),
    ) {
        let stream = frames.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|i| i.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([stream.len()]);
        let pieces = starts.zip(ends).map(|(a, b)| &stream[a..b]);

        let unit = if frame_by_frame { Unit::Frame } else { Unit::Message };
        let receiver = || Receiver::new(unit, limit, agreed(true).filter(|_| deflate));
        let expected = run(&mut receiver(), [&stream[..]]).0;
        prop_assert_eq!(&run(&mut receiver(), pieces).0, &expected);
        prop_assert_eq!(&run(&mut receiver(), stream.chunks(1)).0, &expected);
    }
}
