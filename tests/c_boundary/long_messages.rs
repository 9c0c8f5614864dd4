//! Long messages that the thread that polls writes where compression is agreed on (RFC 7692): they are
//! compressed in turns of the loop, and keep their place among all that is written.

use flate2::{Decompress, FlushDecompress};

use super::support::*;

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
/// More than is compressed at once.
const LONG: usize = 1_200_000;

fn start(options: &[&str]) -> WebsocketServer {
    WebsocketServer::start(&[&["websocket_deflate=yes"], options].concat())
}

/// Opens a websocket that compresses, and that the program keeps under `key`.
fn open(server: &mut WebsocketServer, key: &str) -> Websocket {
    let mut socket = Websocket::open_with(server.port, &format!("/events?{key}"), OFFER);
    socket.text(&format!("do keep {key}"));
    server.expect_line(&format!("kept {key}"));
    socket
}

/// The next frame is a message of so many `x`, whole and compressed.
#[track_caller]
fn expect_long(socket: &mut Websocket, len: usize) {
    let frame = socket.next();
    assert_eq!(frame.first_byte, 0xc2);
    assert!(frame.payload.len() < len / 100, "{} bytes", frame.payload.len());
    let mut out = Vec::with_capacity(len + 1);
    let whole = [&frame.payload[..], b"\0\0\xff\xff"].concat();
    let mut decompress = Decompress::new(false);
    decompress.decompress_vec(&whole, &mut out, FlushDecompress::Sync).expect("compressed data");
    assert!(out.len() == len && out.iter().all(|byte| *byte == b'x'), "{} bytes", out.len());
}

#[test]
fn a_long_message_keeps_its_place_among_what_is_written() {
    let mut server = start(&[]);
    let mut socket = open(&mut server, "a");
    let wrote = format!("wrote {}", LONG + 10);
    socket.text(&format!(
        "do write 1 before\nfill 2 {LONG}\nwrite 1 behind\nraw \\x82\\x01r\nfill 2 {LONG}\n\
         fill 2 100000\nwrite 9 ping\nwrite 8 \\x03\\xe8\nwrite 1 never"
    ));
    server.expect_line("wrote 8").expect_line(&wrote).expect_line("wrote 8");
    server.expect_line("raw 3").expect_line(&wrote);
    server.expect_line("wrote 4").expect_line("wrote -1");
    socket.expect_text("before");
    expect_long(&mut socket, LONG);
    socket.expect_text("behind").expect(0x82, "r");
    expect_long(&mut socket, LONG);
    expect_long(&mut socket, 100_000);
    socket.expect(0x89, "ping").expect(0x88, close_payload(1000, b""));
    socket.frame(0x88, close_payload(1000, b"")).client.expect_closed();
    server.stop();
}

#[test]
fn what_others_write_meanwhile_follows_a_long_message() {
    let mut server = start(&[]);
    let mut socket = open(&mut server, "a");
    let mut other = open(&mut server, "b");
    let wrote = format!("wrote {}", LONG + 10);
    other.text(&format!("do to a fill 2 {LONG}\nsay filled\nwait"));
    server.expect_line(&wrote).expect_line("filled").expect_line("waiting");
    // Another thread writes before the first portion can be compressed: a short frame, raw bytes, and a frame
    // that it compresses itself.
    server.step("to a write 1 thread", "wrote 8").step("to a raw \\x82\\x01r", "raw 3");
    server.tell("to a fill 2 70000").tell("say written").expect_line("written");
    server.tell("go");
    expect_long(&mut socket, LONG);
    socket.expect_text("thread").expect(0x82, "r");
    expect_long(&mut socket, 70_000);
    // What ends a websocket follows, too.
    socket.text(&format!("do fill 2 {LONG}\nreturn 1"));
    expect_long(&mut socket, LONG);
    socket.expect_close(1000);
    other.text(&format!("do fill 2 {LONG}")).frame(0x88, close_payload(1001, b""));
    expect_long(&mut other, LONG);
    other.expect_close(1001);
    server.stop();
}

#[test]
fn a_request_is_answered_while_a_long_message_is_compressed() {
    let len = as_many_as(8 << 20, 2 << 20);
    let mut server = start(&[]);
    let mut holder = server.open("/events");
    let mut socket = open(&mut server, "a");
    let mut client = Client::connect(server.port);
    holder.text("do wait");
    server.expect_line("waiting");
    // All are there when the thread that polls goes on, and the long one came first. What follows it on its
    // connection is read when it is sent.
    let orders = [frame(0x81, format!("do fill 2 {len}")), frame(0x81, "late")].concat();
    socket.client.send_through(orders);
    client.send_through("GET /events HTTP/1.1\r\n\r\n");
    server.tell("go");
    server.program.expect_line("HTTP GET /events");
    assert!(!server.program.has_come_before("EVENT"), "the request had to wait");
    assert_eq!(client.response().text(), "plain");
    expect_long(&mut socket, len);
    server.program.expect_start("EVENT 81");
    server.stop();
}

#[test]
fn a_long_message_counts_as_it_was_written_until_it_is_compressed() {
    let mut server = start(&["max_send_queue_bytes=2000000"]);
    let mut socket = open(&mut server, "a");
    let wrote = format!("wrote {}", LONG + 10);
    socket.text(&format!("do fill 2 5000000\nfill 2 {LONG}\nfill 2 {LONG}\nfill 2 700000"));
    server.expect_line("wrote -1").expect_line(&wrote).expect_line("wrote -1");
    expect_long(&mut socket, LONG);
    expect_long(&mut socket, 700_000);
    // What was refused left nothing behind, and there is room again.
    socket.text(&format!("do fill 2 {LONG}"));
    server.expect_line(&wrote);
    expect_long(&mut socket, LONG);
    server.stop();
}

#[test]
fn all_recipients_of_a_walk_get_a_long_message() {
    let mut server = start(&[]);
    let mut sockets: Vec<Websocket> =
        ["a", "b", "c", "d"].into_iter().map(|key| open(&mut server, key)).collect();
    let mut plain = server.open_kept("plain");
    sockets[0].text(&format!("do fillall {LONG}"));
    server.expect_line("iterated 5 called 5");
    // A walk of another thread takes turns, too.
    server.step(&format!("fillall {LONG}"), "iterated 5 called 5");
    for _ in 0..2 {
        for socket in &mut sockets {
            expect_long(socket, LONG);
        }
        let frame = plain.next();
        assert_eq!((frame.first_byte, frame.payload.len()), (0x82, LONG));
    }
    server.stop();
}

#[test]
fn at_the_end_of_the_server_a_message_that_is_not_compressed_goes_as_it_is() {
    // Less than the socket takes at once.
    const LEN: usize = 1_100_000;
    let mut server = start(&[]);
    let mut socket = open(&mut server, "a");
    socket.text(&format!("do fill 2 {LEN}\nwrite 1 behind\ndestroy"));
    server.expect_line("wrote 1100010").expect_line("destroyed: NULL");
    let bytes = socket.client.rest_or_reset();
    let (header, rest) = bytes.split_at(10);
    assert_eq!(header, [&[0x82, 127][..], &(LEN as u64).to_be_bytes()].concat());
    let payload = &rest[..rest.len().min(LEN)];
    assert!(!payload.is_empty() && payload.iter().all(|byte| *byte == b'x'));
    if let Some(behind) = rest.get(LEN..) {
        assert!(b"\x81\x06behind".starts_with(behind), "{}", shown(behind));
    }
    server.program.expect_line("GONE");
}

#[test]
fn a_client_that_leaves_takes_its_long_message_along() {
    let mut server = start(&["max_buffered_bytes=3500000"]);
    for round in 0..6 {
        let mut socket = open(&mut server, &format!("{round}"));
        socket.text(&format!("do fill 2 {LONG}\nfill 2 {LONG}\nsay filled {round}"));
        server.expect_line(&format!("filled {round}"));
        socket.client.reset();
    }
    // All that was counted is free again.
    let mut socket = open(&mut server, "last");
    until("there is room", || {
        socket.text(&format!("do fill 2 {LONG}"));
        let line = server.program.expect_start("wrote ");
        line != "wrote -1"
    });
    expect_long(&mut socket, LONG);
    server.stop();
}
