//! Messages on websockets: what the handler is shown of the frames that arrive, what it may
//! answer, and how a websocket ends.

use crate::support::{
    Client, Websocket, WebsocketServer, as_many_as, close_payload, for_each, frame, handshake,
    header, is_checked, shown,
};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

fn joined(frames: &[(u8, &[u8])]) -> Vec<u8> {
    frames.iter().flat_map(|(first_byte, payload)| frame(*first_byte, payload)).collect()
}

/// Frames, and the code of the Close that they get.
#[test]
fn frames_that_break_the_protocol_close_the_websocket_and_are_not_shown() {
    let mut server = WebsocketServer::start(&[]);
    let mut cases: Vec<(Vec<u8>, u16)> = vec![
        // Unmasked.
        (b"\x81\x05hello".to_vec(), 1002),
        (b"\x89\x00".to_vec(), 1002),
        // A continuation of nothing, and a message inside a message.
        (frame(0x80, "x"), 1002),
        (frame(0x00, "x"), 1002),
        (joined(&[(0x01, b"a"), (0x81, b"b")]), 1002),
        (joined(&[(0x02, b"a"), (0x02, b"b")]), 1002),
        // Lengths that are not in their shortest form, or impossible.
        (b"\x82\xfe\x00\x7d".to_vec(), 1002),
        (b"\x82\xff\0\0\0\0\0\0\xff\xff".to_vec(), 1002),
        (header(0x82, 1 << 63), 1002),
        (header(0x82, u64::MAX), 1002),
        // Possible, but too long.
        (header(0x82, u64::MAX >> 1), 1009),
        (header(0x82, (64 << 20) + 1), 1009),
        (header(0x01, 1 << 32), 1009),
        // Text that is not UTF-8: in a whole message, and at the end of one.
        (frame(0x81, b"\xc3\x28"), 1007),
        (frame(0x81, b"\xed\xa0\x80"), 1007),
        (frame(0x81, b"abc\xc3"), 1007),
        (joined(&[(0x01, b"\xe2\x82"), (0x80, b"")]), 1007),
        (joined(&[(0x01, b"\xe2\x82"), (0x89, b""), (0x80, b"x")]), 1007),
    ];
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push((frame(0x80 | opcode, "x"), 1002));
        cases.push((frame(opcode, "x"), 1002));
    }
    for bits in 1..8 {
        for opcode in [0, 1, 2, 8, 9, 10] {
            cases.push((frame(0x80 | bits << 4 | opcode, ""), 1002));
        }
    }
    for opcode in [8, 9, 10] {
        cases.push((frame(opcode, ""), 1002));
        cases.push((frame(0x80 | opcode, [b'x'; 126]), 1002));
        cases.push((header(0x80 | opcode, 1 << 40), 1002));
    }
    for_each(
        &cases,
        |(bytes, code)| format!("{} {code}", shown(bytes)),
        |(bytes, code)| {
            let mut socket = server.open("/events");
            socket.send(bytes);
            let answered = bytes.windows(2).any(|two| two == [0x89, 0x80]) && bytes.len() > 6;
            if answered && *code == 1007 {
                socket.expect(0x8a, "");
            }
            socket.expect_close(*code);
        },
    );
    assert_eq!(server.events(), [""; 0]);
    server.stop();
}

#[test]
fn bad_text_is_refused_before_its_message_is_complete() {
    let server = WebsocketServer::start(&[]);
    let begun = |first_byte, text: &[u8]| {
        let whole = frame(first_byte, [text, &[b'x'; 100]].concat());
        whole[..6 + text.len()].to_vec()
    };
    let cases = [
        begun(0x81, b"\xff"),
        begun(0x81, b"fine, then \xc0"),
        begun(0x01, b"\xf5"),
        begun(0x01, b"\xf4\x90"),
        frame(0x01, b"\xed\xa0"),
        [frame(0x01, "κόσμε"), frame(0x00, b"\xce"), frame(0x00, b"x")].concat(),
        [frame(0x01, b"\xe2"), begun(0x80, b"\x28")].concat(),
    ];
    for_each(
        cases,
        |bytes| shown(bytes),
        |bytes| server.open("/events").send(bytes).expect_close(1007),
    );
    server.stop();
}

/// A conversation with everything in it, what is shown of it as messages and as frames, and what
/// is answered.
fn conversation() -> (Vec<u8>, Vec<String>, Vec<String>, Vec<u8>) {
    let long = "0123456789".repeat(14);
    let bytes = joined(&[
        (0x81, "κόσμε".as_bytes()),
        (0x01, b"half a "),
        (0x89, b"ping"),
        (0x00, &"€".as_bytes()[..1]),
        (0x8a, b"pong"),
        (0x00, b""),
        (0x80, &"€".as_bytes()[1..]),
        (0x82, long.as_bytes()),
        (0x81, b""),
        (0x02, b"\0\x01"),
        (0x80, b"\xff"),
        (0x88, &close_payload(1001, b"bye")),
        (0x81, b"too late"),
    ]);
    let kosme = r"81 10 \xce\xba\xcf\x8c\xcf\x83\xce\xbc\xce\xb5";
    let messages = [
        kosme,
        r"81 10 half a \xe2\x82\xac",
        &format!("82 140 {long}"),
        "81 0 ",
        r"82 3 \x00\x01\xff",
        r"88 5 \x03\xe9bye",
    ];
    let frames = [
        kosme,
        "01 7 half a ",
        "89 4 ping",
        r"00 1 \xe2",
        "8a 4 pong",
        "00 0 ",
        r"80 2 \x82\xac",
        &format!("82 140 {long}"),
        "81 0 ",
        r"02 2 \x00\x01",
        r"80 1 \xff",
        r"88 5 \x03\xe9bye",
    ];
    let answer = b"\x8a\x04ping\x88\x02\x03\xe9".to_vec();
    (bytes, messages.map(String::from).to_vec(), frames.map(String::from).to_vec(), answer)
}

#[test]
fn a_conversation_split_at_any_byte_gives_the_same_events_and_answers() {
    let (bytes, messages, frames, answer) = conversation();
    for (delivery, wanted) in [("messages", messages), ("frames", frames)] {
        let option = format!("websocket_delivery={delivery}");
        let mut server = WebsocketServer::start(&[&option]);
        let mut bystander = server.open("/echo");
        for cut in (0..=bytes.len()).step_by(if is_checked() { 7 } else { 1 }) {
            let mut socket = server.open("/events");
            socket.send(&bytes[..cut]);
            // What was sent first is read before what a bystander then sends is answered twice.
            bystander.text("1").expect_text("1").text("2").expect_text("2");
            socket.client.try_send(&bytes[cut..]);
            assert_eq!(shown(&socket.client.rest_or_reset()), shown(&answer), "cut at {cut}");
            assert_eq!(server.events(), wanted, "{delivery}, cut at {cut}");
        }
        let mut socket = server.open("/events");
        for byte in &bytes {
            socket.client.try_send([*byte]);
        }
        assert_eq!(shown(&socket.client.rest_or_reset()), shown(&answer), "byte by byte");
        assert_eq!(server.events(), wanted, "{delivery}, byte by byte");
        server.stop();
    }
}

#[test]
fn content_may_be_overwritten_without_harm_to_what_follows_in_the_same_buffer() {
    let (bytes, messages, frames, answer) = conversation();
    for (delivery, wanted) in [("messages", messages), ("frames", frames)] {
        let option = format!("websocket_delivery={delivery}");
        let mut server = WebsocketServer::start(&[&option]);
        let mut client = Client::connect(server.port);
        client.send([handshake("/spoil", "").as_bytes(), &bytes].concat());
        let mut socket = Websocket::begin(client);
        assert_eq!(shown(&socket.client.rest_or_reset()), shown(&answer));
        assert_eq!(server.events(), wanted, "{delivery}");
        server.stop();
    }
}

#[test]
fn the_handler_may_echo_what_it_is_shown_whatever_its_length() {
    let server = WebsocketServer::start(&[]);
    let mut socket = server.open("/echo");
    for len in [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 300_000] {
        let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
        socket.frame(0x82, &payload).expect(0x82, &payload);
        // In fragments, with a ping between.
        let (one, two) = payload.split_at(len / 3);
        socket.send([frame(0x02, one), frame(0x89, "p"), frame(0x80, two)].concat());
        socket.expect(0x8a, "p").expect(0x82, &payload);
    }
    // Many in one write.
    let many: Vec<u8> = (0..1000).flat_map(|n| frame(0x81, format!("number {n}"))).collect();
    socket.send(many);
    for number in 0..1000 {
        socket.expect_text(&format!("number {number}"));
    }
    server.stop();
}

#[test]
fn a_client_that_sends_no_more_gets_what_was_written_to_it() {
    let server = WebsocketServer::start(&[]);
    for _ in 0..as_many_as(50, 10) {
        let mut websocket = server.open("/echo");
        let sent = frame(0x82, "hello").repeat(20);
        websocket.send(&sent);
        websocket.client.finish_sending();
        let received = websocket.client.rest();
        assert_eq!(received, b"\x82\x05hello".repeat(20));
    }
    server.stop();
}

#[test]
fn a_message_of_64_mebibytes_is_shown_whole_and_may_be_echoed() {
    let server = WebsocketServer::start(&[]);
    let len = as_many_as(64 << 20, 8 << 20);
    let payload: Vec<u8> = (0..len).map(|at| (at * 7 + (at >> 16)) as u8).collect();
    let message = frame(0x82, &payload);
    let mut socket = server.open("/echo");
    socket.send(message);
    let echoed = socket.next();
    assert!(echoed.first_byte == 0x82 && echoed.payload == payload, "another message came back");
    socket.text("and on").expect_text("and on");
    server.stop();
}

#[test]
fn a_message_that_is_too_long_is_refused_as_soon_as_that_is_known() {
    let mut server = WebsocketServer::start(&["max_websocket_message_bytes=10"]);
    server.open("/echo").text("0123456789").expect_text("0123456789");
    let mut fragments = server.open("/echo");
    fragments.frame(0x01, "01234").frame(0x80, "56789").expect_text("0123456789");
    let cases = [
        header(0x81, 11),
        header(0x02, 1 << 20),
        [frame(0x01, "01234"), header(0x80, 6)].concat(),
        [frame(0x01, "01234"), frame(0x89, ""), header(0x00, 6)].concat(),
        // Fragments without end.
        [frame(0x02, "x"), frame(0x00, "x").repeat(10)].concat(),
    ];
    for_each(
        &cases,
        |bytes| shown(bytes),
        |bytes| {
            let mut socket = server.open("/events");
            socket.send(bytes);
            if bytes.windows(2).any(|two| two == [0x89, 0x80]) {
                socket.expect(0x8a, "");
            }
            socket.expect_close(1009);
        },
    );
    assert_eq!(server.events(), [""; 0]);
    server.stop();
    // Frame by frame a message may be as long as it likes.
    let server =
        WebsocketServer::start(&["max_websocket_message_bytes=10", "websocket_delivery=frames"]);
    let mut socket = server.open("/events");
    socket.send([frame(0x02, [b'x'; 10]), frame(0x00, [b'x'; 10]).repeat(9)].concat());
    socket.send(header(0x80, 11)).expect_close(1009);
    server.stop();
}

#[test]
fn where_all_connections_hold_too_much_the_next_message_is_put_off() {
    let mut server = WebsocketServer::start(&["max_buffered_bytes=100000"]);
    let mut first = server.open("/events");
    first.frame(0x02, [b'x'; 90_000]);
    let mut second = server.open("/echo");
    second.text("short").expect_text("short");
    second.frame(0x02, [b'y'; 90_000]).expect_close(1013);
    first.frame(0x80, "");
    server.program.expect_start("EVENT 82 90000 #");
    // With that message shown there is room again.
    let mut third = server.open("/echo");
    third.frame(0x02, [b'z'; 40_000]).frame(0x80, "").expect(0x82, [b'z'; 40_000]);
    server.stop();
}

#[test]
fn pings_are_answered_in_order_and_pongs_are_not() {
    for delivery in ["websocket_delivery=messages", "websocket_delivery=frames"] {
        let server = WebsocketServer::start(&[delivery]);
        let mut socket = server.open("/echo");
        let long = [0xee; 125];
        socket.send(joined(&[(0x89, b""), (0x8a, b"unasked"), (0x89, b"\0\xff"), (0x81, b"text")]));
        socket.send(joined(&[(0x89, &long), (0x8a, b"")]));
        socket.expect(0x8a, "").expect(0x8a, b"\0\xff").expect_text("text").expect(0x8a, long);
        server.stop();
    }
}

/// The payload of a Close, and the payload of the answer.
#[test]
fn a_good_close_is_shown_and_answered_with_its_code() {
    let mut server = WebsocketServer::start(&[]);
    let mut payloads = vec![Vec::new(), close_payload(1000, "κόσμε".as_bytes())];
    payloads.push(close_payload(1000, &[b'x'; 123]));
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        payloads.push(close_payload(code, b""));
    }
    for payload in payloads {
        let mut socket = server.open("/events");
        socket.frame(0x88, &payload);
        socket.expect(0x88, &payload[..payload.len().min(2)]).client.expect_closed();
        let events = server.events();
        assert!(
            matches!(&events[..], [one] if one.starts_with(&format!("88 {} ", payload.len()))),
            "{}: {events:?}",
            shown(&payload)
        );
    }
    server.stop();
}

#[test]
fn a_close_that_breaks_the_protocol_is_not_shown() {
    let mut server = WebsocketServer::start(&[]);
    let mut cases = vec![(b"\x03".to_vec(), 1002)];
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        cases.push((close_payload(code, b""), 1002));
    }
    cases.push((close_payload(1000, b"\xff"), 1007));
    cases.push((close_payload(1000, b"cut \xe2\x82"), 1007));
    for (payload, code) in cases {
        let mut socket = server.open("/events");
        socket.frame(0x88, &payload).expect_close(code);
        assert_eq!(server.events(), [""; 0], "{}", shown(&payload));
    }
    server.stop();
}

#[test]
fn while_a_close_is_shown_only_a_close_can_be_written() {
    for delivery in ["websocket_delivery=messages", "websocket_delivery=frames"] {
        let mut server = WebsocketServer::start(&[delivery]);
        let mut socket = server.open("/events");
        socket.text(
            "do keep a\nonclose write 1 no\nonclose write 2 no\nonclose write 9 \n\
             onclose raw no\nonclose printf no\nonclose write 8 \\x0f\\xa0own\n\
             onclose write 8 again\nonclose write 1 no",
        );
        server.expect_line("kept a");
        socket.send([frame(0x88, close_payload(1000, b"")), frame(0x81, "after")].concat());
        socket.expect(0x88, b"\x0f\xa0own");
        assert_eq!(shown(&socket.client.rest_or_reset()), "");
        let lines = "88 2 \\x03\\xe8|wrote -1|wrote -1|wrote -1|raw 0|printf 0|wrote 7|wrote -1|\
                     wrote -1";
        assert_eq!(server.events().join("|"), lines);
        server.step("to a write 1 late", "wrote -1").step("to a write 8 ", "wrote -1");
        server.stop();
    }
}

#[test]
fn the_program_begins_the_closing_handshake_with_opcode_8() {
    let mut server = WebsocketServer::start(&[]);
    let mut socket = server.open("/events");
    socket.text("do write 1 last\nwrite 8 \\x03\\xe9own\nwrite 1 no\nwrite 8 no\nraw no");
    socket.expect_text("last").expect(0x88, b"\x03\xe9own");
    // What the client sends before its own Close comes too late.
    socket.text("late").frame(0x89, "late").frame(0x88, close_payload(1001, b""));
    socket.client.expect_closed();
    let lines = ["wrote 6", "wrote 7", "wrote -1", "wrote -1", "raw 0", r"88 2 \x03\xe9"];
    assert_eq!(server.events(), lines);
    // From another thread, and from the polling one between two polls.
    for (step, key) in [("to a write 8 \\x03\\xe8", "a"), ("io to b write 8 \\x03\\xe8", "b")] {
        let mut socket = server.open_kept(key);
        server.step(step, "wrote 4");
        server.step(&format!("to {key} write 1 no"), "wrote -1");
        socket.frame(0x88, close_payload(1000, b"")).expect_close(1000);
    }
    server.events();
    server.stop();
}

#[test]
fn a_client_that_does_not_answer_a_close_is_cut_off() {
    let mut server = WebsocketServer::start(&["websocket_ping_interval_ms=100"]);
    let mut socket = server.open("/events");
    socket.text("do write 8 \\x03\\xe8");
    let mut frame = socket.next();
    while frame.first_byte == 0x89 {
        frame = socket.next();
    }
    assert_eq!(frame.payload, b"\x03\xe8");
    // There are no pings any more.
    socket.client.expect_closed();
    assert_eq!(server.events(), ["wrote 4"]);
    server.stop();
}

#[test]
fn a_handler_that_returns_non_zero_closes_after_what_is_queued() {
    let mut server = WebsocketServer::start(&[]);
    let mut socket = server.open("/events");
    socket.send(joined(&[
        (0x81, b"do keep a\nfill 2 3000000\nwrite 1 last\nreturn 1"),
        (0x81, b"no"),
    ]));
    assert_eq!(socket.next().payload, vec![b'x'; 3_000_000]);
    socket.expect_text("last").expect_close(1000);
    assert_eq!(server.events(), ["kept a", "wrote 3000010", "wrote 6"]);
    server.step("to a write 1 late", "wrote -1");
    // With its own Close before, there is only that one.
    let mut socket = server.open("/events");
    socket.text("do write 8 \\x0f\\xa1\nreturn 1").expect_close(4001);
    server.stop();
}

#[test]
fn a_client_that_leaves_without_a_close_disturbs_nobody() {
    let mut server = WebsocketServer::start(&[]);
    let mut other = server.open("/echo");
    for bytes in [vec![], frame(0x01, "half"), frame(0x81, "whole")[..5].to_vec(), vec![0x81]] {
        let mut socket = server.open("/events");
        socket.send(&bytes).client.finish_sending();
        socket.client.expect_closed();
        let mut socket = server.open("/events");
        socket.send(&bytes);
        socket.client.reset();
        other.text("still here").expect_text("still here");
    }
    assert_eq!(server.events(), [""; 0]);
    server.stop();
}

#[test]
fn raw_bytes_pass_between_frames_and_the_send_family_does_nothing() {
    let mut server = WebsocketServer::start(&[]);
    let mut socket = server.open("/events");
    socket.text("do raw \\x81\\x03raw\nprintf \\x81\\x03fmt\nsend no\nwrite 1 framed");
    socket.expect_text("raw").expect_text("fmt").expect_text("framed");
    assert_eq!(server.events(), ["raw 5", "printf 5", "wrote 8"]);
    // Every opcode, always final.
    for opcode in [0, 1, 2, 3, 7, 9, 10, 15] {
        socket.text(&format!("do write {opcode} x")).expect(0x80 | opcode, "x");
    }
    server.events();
    for opcode in [-1, 16, 256] {
        socket.text(&format!("do write {opcode} x"));
        server.expect_line("wrote -1");
    }
    server.stop();
}

#[test]
fn an_idle_websocket_is_pinged_and_stays_as_long_as_it_answers() {
    let server =
        WebsocketServer::start(&["websocket_ping_interval_ms=150", "idle_timeout_ms=1500"]);
    let mut socket = server.open("/echo");
    // Longer than the idle timeout, whatever the machine's pace.
    for _ in 0..15 {
        socket.expect(0x89, "").frame(0x8a, "");
    }
    socket.text("hello");
    let mut frames = Vec::new();
    while frames.last().is_none_or(|frame: &Vec<u8>| frame != b"hello") {
        frames.push(socket.next().payload);
    }
    // Then it dies: pings, and the end.
    let rest = socket.client.rest();
    assert!(rest.chunks(2).all(|frame| frame == b"\x89\x00"), "{}", shown(&rest));
    server.stop();
}

#[test]
fn half_a_frame_and_silence_end_at_the_idle_timeout() {
    let server =
        WebsocketServer::start(&["idle_timeout_ms=1000", "websocket_ping_interval_ms=5000"]);
    for bytes in [frame(0x81, "whole")[..3].to_vec(), frame(0x02, "half"), header(0x82, 1 << 20)] {
        let mut socket = server.open("/events");
        let rest = socket.send(&bytes).client.rest();
        let pings = rest.chunks(2).all(|frame| frame == b"\x89\x00");
        assert!(pings, "{}: {}", shown(&bytes), shown(&rest));
    }
    server.stop();
}

#[test]
fn a_message_that_came_while_a_handler_ran_for_long_counts_against_the_idle_timeout() {
    let options = ["idle_timeout_ms=0", "iterate_timeout_ms=400"];
    let mut server = WebsocketServer::start(&options);
    let mut socket = server.open("/echo");
    server.open("/events").text("do set idle_timeout_ms 100\nwait");
    server.expect_line("waiting");
    socket.client.send_through(frame(0x81, "I am here"));
    // The walk takes four times the idle timeout to give up.
    server.step("spawn", "elsewhere iterated -1 called 0").tell("go");
    socket.expect_text("I am here");
    server.step("set idle_timeout_ms 0", "set idle_timeout_ms: NULL");
    server.events();
    server.stop();
}

#[test]
fn a_request_that_came_while_a_handler_ran_for_long_is_answered() {
    let options = ["idle_timeout_ms=0", "iterate_timeout_ms=400"];
    let mut server = WebsocketServer::start(&options);
    let mut other = Client::connect(server.port);
    other.ask("GET /none HTTP/1.1\r\n\r\n");
    server.open("/events").text("do set idle_timeout_ms 100\nwait");
    server.expect_line("waiting");
    other.send_through("GET /none HTTP/1.1\r\n\r\n");
    // The walk takes four times the idle timeout to give up.
    server.step("spawn", "elsewhere iterated -1 called 0").tell("go");
    assert_eq!(other.response().status, 404);
    server.step("set idle_timeout_ms 0", "set idle_timeout_ms: NULL");
    server.events();
    server.stop();
}

#[test]
fn a_changed_ping_interval_counts_for_open_websockets() {
    let options = ["websocket_ping_interval_ms=0", "idle_timeout_ms=0"];
    let mut server = WebsocketServer::start(&options);
    let mut socket = server.open("/echo");
    server.step("set websocket_ping_interval_ms 100", "set websocket_ping_interval_ms: NULL");
    socket.expect(0x89, "");
    server.stop();
}

#[test]
fn a_close_that_is_not_answered_is_cut_also_when_timeouts_change() {
    let options = ["websocket_ping_interval_ms=0", "idle_timeout_ms=60000"];
    let mut server = WebsocketServer::start(&options);
    let mut socket = server.open("/events");
    socket.text("do write 8 \\x03\\xe8");
    socket.expect(0x88, b"\x03\xe8");
    server.step("set idle_timeout_ms 0", "set idle_timeout_ms: NULL");
    socket.client.expect_closed();
    server.events();
    server.stop();
}

#[test]
fn with_interval_0_nothing_is_pinged() {
    let server = WebsocketServer::start(&["idle_timeout_ms=1000", "websocket_ping_interval_ms=0"]);
    server.open("/events").client.expect_closed();
    server.stop();
}

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
const AGREED: &str = "\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover";

/// Compresses messages of one client, each without the four bytes that end it.
fn deflated(compress: &mut Compress, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 100);
    compress.compress_vec(payload, &mut out, FlushCompress::Sync).expect("compression");
    assert!(out.ends_with(b"\0\0\xff\xff"), "{}", shown(&out));
    out.truncate(out.len() - 4);
    out
}

fn inflated(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 << 20);
    let whole = [payload, b"\0\0\xff\xff"].concat();
    let mut decompress = Decompress::new(false);
    decompress.decompress_vec(&whole, &mut out, FlushDecompress::Sync).expect("compressed data");
    out
}

#[test]
#[cfg_attr(not(feature = "deflate"), ignore = "built without compression")]
fn compression_is_negotiated_only_where_it_is_on() {
    let server = WebsocketServer::start(&[]);
    let mut socket = Websocket::open_with(server.port, "/echo", OFFER);
    assert!(!socket.head.contains("Extensions"), "{}", socket.head);
    socket.frame(0xc1, "x").expect_close(1002);
    server.stop();
    let server = WebsocketServer::start(&["websocket_deflate=yes"]);
    let mut socket = Websocket::open_with(server.port, "/echo", OFFER);
    assert!(socket.head.contains(AGREED), "{}", socket.head);
    // An uncompressed message may come all the same.
    socket.text("hello").expect_text("hello");
    let mut socket = server.open("/echo");
    assert!(!socket.head.contains("Extensions"), "{}", socket.head);
    socket.frame(0xc1, "x").expect_close(1002);
    server.stop();
}

#[test]
#[cfg_attr(not(feature = "deflate"), ignore = "built without compression")]
fn compressed_messages_are_echoed_compressed() {
    let server = WebsocketServer::start(&["websocket_deflate=yes"]);
    let mut socket = Websocket::open_with(server.port, "/echo", OFFER);
    let mut compress = Compress::new(Compression::default(), false);
    // From the second on, messages refer to those before them.
    for number in 0..5 {
        let text = format!("{number} and again and again and again and again ").repeat(200);
        let bytes = deflated(&mut compress, text.as_bytes());
        if number % 2 == 0 {
            socket.frame(0xc1, &bytes);
        } else {
            let (one, two) = bytes.split_at(bytes.len() / 2);
            socket.send([frame(0x41, one), frame(0x89, ""), frame(0x80, two)].concat());
            socket.expect(0x8a, "");
        }
        let echoed = socket.next();
        assert_eq!(echoed.first_byte, 0xc1);
        assert!(echoed.payload.len() < text.len() / 10, "{} bytes", echoed.payload.len());
        assert_eq!(inflated(&echoed.payload), text.as_bytes());
    }
    // Nothing is gained by compressing what is short.
    socket.frame(0xc1, deflated(&mut compress, b"tiny")).expect_text("tiny");
    server.stop();
}

#[test]
#[cfg_attr(not(feature = "deflate"), ignore = "built without compression")]
fn compressed_messages_that_are_refused() {
    let options = ["websocket_deflate=yes", "max_websocket_message_bytes=100000"];
    let mut server = WebsocketServer::start(&options);
    let deflated =
        |payload: &[u8]| deflated(&mut Compress::new(Compression::best(), false), payload);
    let bomb = deflated(&vec![0; 50_000_000]);
    let (one, two) = bomb.split_at(bomb.len() / 2);
    let cases = [
        (frame(0xc2, &bomb), 1009),
        ([frame(0x42, one), frame(0x80, two)].concat(), 1009),
        (frame(0xc2, b"\xff\xff\xff\xff"), 1007),
        (frame(0xc1, deflated(b"\xc3\x28")), 1007),
        ([frame(0x41, ""), frame(0xc0, "")].concat(), 1002),
        (frame(0xc9, ""), 1002),
        (frame(0xc8, ""), 1002),
        (frame(0xa1, ""), 1002),
    ];
    for (bytes, code) in cases {
        let mut socket = Websocket::open_with(server.port, "/events", OFFER);
        socket.client.try_send(&bytes);
        socket.expect(0x88, u16::to_be_bytes(code));
        socket.client.rest_or_reset();
        let start = shown(&bytes[..bytes.len().min(40)]);
        assert_eq!(server.events(), [""; 0], "{start}");
    }
    server.stop();
}
