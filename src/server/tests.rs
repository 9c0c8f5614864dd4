//! Tests of the event loop without C. A test takes the place of `mg_poll_server`, and so decides
//! which bytes have arrived when a turn begins, and what happens while a handler runs.

use std::ffi::{c_int, c_void};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::walks::Job;
use super::{Server, Step};
use crate::abi::mg_connection;
use crate::auth::htpasswd::md5_hex;
use crate::connection::Piece;
use crate::options::lookup;
use crate::routes::Routes;
use crate::shared::hub::{Hub, Message, Param, Ticket};
use crate::shared::slots::Slot;
use crate::shared::writes;
use crate::test_folder::Folder;

/// When waiting has become a failure, also on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

unsafe extern "C-unwind" fn never_called(_: *mut mg_connection) -> c_int {
    0
}

/// Returns a server with one handler, and a client that is connected to it.
fn server_and_client(options: &[(&str, &str)]) -> (Box<Server>, TcpStream) {
    let mut server = Box::new(Server::new(Hub::acquire(), ptr::null_mut()));
    server.add_handler(b"/", never_called);
    for (name, value) in [("listening_port", "127.0.0.1:0")].iter().chain(options) {
        let id = lookup(name.as_bytes()).expect("an option");
        server.set_option(id, Some(value.as_bytes())).expect("a good value");
    }
    let address = server.acceptor.listeners().first().and_then(|first| first.internet_address());
    let client = TcpStream::connect(address.expect("bound")).expect("connects");
    client.set_read_timeout(Some(LIMIT)).expect("a timeout");
    (server, client)
}

/// Connects another client to the same server.
fn another(client: &TcpStream) -> TcpStream {
    let other = TcpStream::connect(client.peer_addr().expect("connected")).expect("connects");
    other.set_read_timeout(Some(LIMIT)).expect("a timeout");
    other
}

/// Takes turns until a handler is to be called. Returns `None` if that does not happen soon.
fn next_call(server: &mut Server) -> Option<&'static Slot> {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        server.begin(1);
        if let Some(slot) = resume(server) {
            return Some(slot);
        }
    }
    None
}

/// Continues the turn until a handler is to be called.
fn resume(server: &mut Server) -> Option<&'static Slot> {
    match server.step() {
        // SAFETY: pointers in steps are those of slots.
        Step::Call(conn, _) => unsafe { Slot::from_c(conn) },
        _ => None,
    }
}

fn turns(server: &mut Server, count: usize) {
    for _ in 0..count {
        server.begin(1);
        assert!(resume(server).is_none());
    }
}

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn a_frame_that_ends_a_long_input_behind_a_body_has_room_for_its_nul() {
    let (mut server, mut client) = server_and_client(&[]);
    let (before, rest, excess) = (3 << 20, 20_000, 80_000);
    let head = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", before + rest);
    client.write_all(head.as_bytes()).expect("sent");
    let mut writer = client.try_clone().expect("a second handle");
    let sender = std::thread::spawn(move || writer.write_all(&vec![b'b'; before]));
    while !sender.is_finished() {
        turns(&mut server, 1);
    }
    sender.join().expect("no panic").expect("sent");
    turns(&mut server, 5);

    // All of it arrives at once: the end of the body, a handshake and two messages, of which the
    // second ends the input.
    let mut input = vec![b'b'; rest];
    input.extend_from_slice(UPGRADE);
    let first = rest + excess - input.len() - 14 - 8;
    input.extend_from_slice(b"\x82\xff");
    input.extend_from_slice(&(first as u64).to_be_bytes());
    input.extend_from_slice(&[0; 4]);
    input.resize(input.len() + first, b'm');
    input.extend_from_slice(b"\x82\x82\0\0\0\0ok");
    assert_eq!(input.len(), rest + excess);
    client.write_all(&input).expect("sent");
    std::thread::sleep(Duration::from_millis(100));

    let post = next_call(&mut server).expect("the body is complete");
    assert!(server.write(post, Piece::Data(b"done")));
    server.returned(0);
    for _ in 0..2 {
        let message = resume(&mut server).or_else(|| next_call(&mut server));
        assert!(message.is_some(), "a message is shown");
        server.returned(0);
    }
    turns(&mut server, 1);
}

#[test]
fn content_takes_memory_as_it_comes() {
    let (mut server, mut client) = server_and_client(&[]);
    client.write_all(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n").expect("sent");
    for arrived in 1..5 {
        client.write_all(b"x").expect("sent");
        let so_far = |server: &Server| {
            let request = server.conns.iter().find_map(|conn| conn.request());
            request.map_or((0, 0), |request| (request.arrived, request.buf.capacity()))
        };
        while so_far(&server).0 < arrived {
            turns(&mut server, 1);
        }
        assert!(so_far(&server).1 < 4096, "{} bytes", so_far(&server).1);
    }
}

#[test]
fn what_a_thread_writes_while_the_handler_returns_keeps_its_order() {
    let (mut server, mut client) = server_and_client(&[]);
    for round in 0..300 {
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        let slot = next_call(&mut server).expect("an answer to the last request was complete");
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert!(writes::write(slot, head));
        let thread = std::thread::spawn(move || {
            while slot.lock_answer().is_none() {
                std::hint::spin_loop();
            }
            writes::write(slot, b"hello")
        });
        std::thread::sleep(Duration::from_micros(50));
        server.returned(0);
        while !thread.is_finished() {
            turns(&mut server, 1);
        }
        assert!(thread.join().expect("no panic"));
        turns(&mut server, 1);
        let mut answer = [0; 43];
        client.read_exact(&mut answer).expect("received");
        assert!(answer.ends_with(b"\r\n\r\nhello"), "{round}");
    }
}

#[test]
fn a_close_frame_that_nobody_reads_ends_the_websocket() {
    let options = [("idle_timeout_ms", "0"), ("websocket_ping_interval_ms", "0")];
    let (mut server, mut client) = server_and_client(&options);
    client.write_all(&[UPGRADE, b"\x82\x82\0\0\0\0ok"].concat()).expect("sent");
    let slot = next_call(&mut server).expect("a message");
    while server.conns.of_slot(slot).is_some_and(|conn| conn.wire.backlog() < 32 << 20) {
        assert!(server.write_frame(slot, 2, &vec![b'x'; 1 << 20]).is_some());
    }
    server.returned(1);
    let start = Instant::now();
    while slot.open_generation().is_some() {
        assert!(start.elapsed() < LIMIT, "it is still open");
        server.begin(100);
        assert!(resume(&mut server).is_none());
    }
}

#[test]
fn a_forked_child_does_not_log_what_its_parent_serves() {
    let log = std::env::temp_dir().join(format!("mongoose-fork-{}.log", std::process::id()));
    let path = log.to_str().expect("UTF-8").to_owned();
    let (mut server, mut client) = server_and_client(&[("access_log_file", &path)]);
    client.write_all(&[UPGRADE, b"\x82\x82\0\0\0\0ok"].concat()).expect("sent");
    let slot = next_call(&mut server).expect("a message");
    server.returned(0);
    turns(&mut server, 1);
    // The server finds itself in the child of a fork.
    server.cx.forks = server.cx.forks.wrapping_add(1);
    server.begin(0);
    assert!(slot.open_generation().is_none());
    drop(server);
    let logged = std::fs::read_to_string(&log).unwrap_or_default();
    let _ = std::fs::remove_file(&log);
    assert_eq!(logged, "");
}

#[test]
fn without_an_event_queue_nothing_is_accepted() {
    let (mut server, _client) = server_and_client(&[]);
    server.acceptor.begin_turn(0);
    assert!(resume(&mut server).is_none());
    assert_eq!(server.conns.open(), 0);
}

#[test]
fn a_client_that_could_be_neither_served_nor_refused_is_served_soon() {
    let (mut server, first) = server_and_client(&[]);
    turns(&mut server, 3);
    assert_eq!(server.conns.open(), 1);
    let mut second = another(&first);
    second.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    std::thread::sleep(Duration::from_millis(50));
    // The connection is announced, but there is no descriptor for it.
    server.begin(10);
    server.acceptor.give_up_spare();
    server.turn_away(0);
    assert!(resume(&mut server).is_none());
    assert_eq!(server.conns.open(), 1);
    // Nothing happens but that time passes, and the loop would sleep for longer.
    server.begin(60_000);
    assert!(resume(&mut server).or_else(|| next_call(&mut server)).is_some());
    drop(first);
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Connects two clients whose requests have arrived, and that the event queue knows already.
fn two_requests() -> (Box<Server>, [TcpStream; 2]) {
    let (mut server, first) = server_and_client(&[]);
    let mut clients = [another(&first), first];
    while server.conns.iter().filter(|conn| conn.wire.registered).count() < 2 {
        turns(&mut server, 1);
    }
    for client in &mut clients {
        client.write_all(REQUEST).expect("sent");
    }
    while server.cx.turn.ready.len() < 2 {
        server.begin(1);
    }
    (server, clients)
}

/// Whether something comes that has been sent: nobody polls now. It may still be on its way.
fn received(client: &mut TcpStream) -> bool {
    matches!(client.read(&mut [0; 256]), Ok(1..))
}

#[test]
fn the_answers_of_a_turn_are_sent_in_it() {
    let (mut server, mut clients) = two_requests();
    for _ in 0..2 {
        let slot = resume(&mut server).expect("a request");
        assert!(server.write(slot, Piece::Raw(ANSWER)));
        server.returned(0);
    }
    assert!(resume(&mut server).is_none());
    assert!(clients.iter_mut().all(received));
    assert!(server.cx.turn.dirty.is_empty());
}

#[test]
fn an_answer_that_has_waited_is_sent_before_another_handler_is_called() {
    let (mut server, mut clients) = two_requests();
    let slot = resume(&mut server).expect("a request");
    assert!(server.write(slot, Piece::Raw(ANSWER)));
    // The handler takes long.
    std::thread::sleep(Duration::from_millis(30));
    server.returned(0);
    assert!(resume(&mut server).is_some());
    // There is no other answer yet.
    let start = Instant::now();
    clients.iter().for_each(|client| client.set_nonblocking(true).expect("nonblocking"));
    while !clients.iter_mut().any(received) {
        assert!(start.elapsed() < LIMIT, "it is not sent");
    }
}

#[test]
fn what_the_error_handler_writes_is_not_sent_before_it_returns() {
    let (mut server, mut client) = server_and_client(&[]);
    server.set_error_handler(Some(never_called));
    client.write_all(&[REQUEST, b"nonsense\r\n\r\n"].concat()).expect("sent");
    let slot = next_call(&mut server).expect("a request");
    // A late answer that is complete when the turn begins leaves its connection so.
    let wire = &mut server.conns.of_slot(slot).expect("open").wire;
    wire.dirty = true;
    server.cx.turn.dirty.push(wire.index());
    assert!(server.write(slot, Piece::Raw(ANSWER)));
    std::thread::sleep(Duration::from_millis(30));
    server.returned(0);
    assert!(resume(&mut server).is_some());
    assert!(server.write(slot, Piece::Data(b"taken back")));
    server.returned(0);
    assert!(resume(&mut server).is_none());
    let mut answers = Vec::new();
    client.read_to_end(&mut answers).expect("received");
    let second = answers.strip_prefix(ANSWER).expect("an answer");
    let heads = second.windows(9).filter(|window| window == b"HTTP/1.1 ").count();
    assert_eq!((heads, second.starts_with(b"HTTP/1.1 400 ")), (1, true));
}

#[test]
fn what_waits_is_sent_before_other_threads_have_their_way() {
    let (mut server, mut clients) = two_requests();
    let (report, outcome) = std::sync::mpsc::channel();
    let work: Job = Box::new(move |server: &mut Server| {
        report.send(server.cx.turn.dirty.is_empty()).expect("awaited");
    });
    server.walks.put(Message::Run(Box::new(work), Arc::new(Ticket::default())));
    for _ in 0..2 {
        let slot = resume(&mut server).expect("a request");
        assert!(server.write(slot, Piece::Raw(ANSWER)));
        server.returned(0);
    }
    assert!(resume(&mut server).is_none());
    assert_eq!(outcome.try_recv(), Ok(true));
    assert!(clients.iter_mut().all(received));
}

#[test]
fn a_forked_child_sends_nothing_that_waits() {
    let (mut server, mut clients) = two_requests();
    let slot = resume(&mut server).expect("a request");
    assert!(server.write(slot, Piece::Raw(ANSWER)));
    server.returned(0);
    let Some(slot) = resume(&mut server) else { panic!("a second request") };
    // The server finds itself in the child of a fork when its handler returns.
    server.cx.forks = server.cx.forks.wrapping_add(1);
    assert!(server.write(slot, Piece::Raw(ANSWER)));
    server.returned(0);
    assert!(resume(&mut server).is_none());
    assert_eq!(server.conns.open(), 0);
    assert!(!clients.iter_mut().any(received));
}

/// Takes turns, answers each call by one of a few writes, and gives up when nothing more happens.
fn serve(server: &mut Server, seed: usize) {
    let writes: [&[u8]; 5] =
        [ANSWER, b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhal", b"plain", b"HTTP/1.1 2"];
    let mut calls = seed;
    for _ in 0..4 {
        server.begin(1);
        while let Some(slot) = resume(server) {
            let bytes = writes[calls % writes.len()];
            calls += 1;
            if calls.is_multiple_of(2) {
                writes::write(slot, bytes);
            } else if !bytes.is_empty() {
                server.write(slot, Piece::Raw(bytes));
            }
            server.returned((calls / 2 % 2) as c_int);
        }
    }
}

#[test]
fn no_byte_is_counted_behind_the_end_of_its_connection() {
    let folder = crate::test_folder::Folder::new();
    folder.write("a", &"content".repeat(100_000));
    let root = folder.0.to_str().expect("text").to_owned();
    let long = [b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n", &[b'x'; 100_000][..]];
    let inputs: [&[u8]; 12] = [
        b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nfffffff\r\n",
        b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        &[UPGRADE, b"\x82\x82\0\0\0\0ok\x02\x82\0\0\0\0ok\x80\x82\0\0\0\0ok\x88\x80\0\0\0\0"]
            .concat(),
        &long.concat(),
        b"GET /a HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"PROPFIND / HTTP/1.1\r\nDepth: 1\r\nContent-Length: 39\r\n\r\n\
            <propfind xmlns=\"DAV:\"><allprop/></propfind>",
        b"PUT /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"nonsense\r\n\r\n",
    ];
    let options = [
        ("document_root", &*root),
        ("max_request_body_bytes", "150000"),
        ("idle_timeout_ms", "20"),
    ];
    for has_handlers in [true, false] {
        for (number, input) in inputs.iter().enumerate() {
            for seed in 0..10 {
                let (mut server, mut client) = server_and_client(&options);
                let wants = [("iterate_content", "last"), ("deferred_answers", "all")];
                for (name, value) in wants.into_iter().take(seed % 3) {
                    let id = lookup(name.as_bytes()).expect("an option");
                    server.set_option(id, Some(value.as_bytes())).expect("a good value");
                }
                // Bytes that are taken off too often would show, too.
                server.cx.buffered = 1 << 20;
                server.set_error_handler((seed % 4 > 1).then_some(never_called));
                if !has_handlers {
                    server.cx.routes = Routes::default();
                }
                let cut = input.len() * (seed + 1) / 10;
                for part in [&input[..cut / 2], &input[cut / 2..cut]] {
                    client.write_all(part).expect("sent");
                    serve(&mut server, seed);
                }
                drop(client);
                let start = Instant::now();
                while server.conns.open() > 0 {
                    serve(&mut server, seed);
                    assert!(start.elapsed() < LIMIT, "{number} {seed}: open");
                }
                assert_eq!(server.cx.buffered, 1 << 20, "{has_handlers} {number} {seed}");
            }
        }
    }
}

#[test]
fn messages_for_other_connections_are_not_looked_through_again_and_again() {
    let (mut server, mut clients) = two_requests();
    let mut slots = Vec::new();
    while slots.len() < 2 {
        let slot = resume(&mut server).or_else(|| next_call(&mut server)).expect("a request");
        server.returned(0);
        slots.push(slot);
    }
    assert!(resume(&mut server).is_none());
    let (first, last) = ANSWER.split_at(ANSWER.len() - 1);
    assert!(writes::write(slots[1], &first[..5]) && writes::write(slots[0], &first[..5]));
    assert!(server.write(slots[0], Piece::Raw(&first[5..])));
    assert!(writes::write(slots[1], &first[5..]));
    assert!(server.write(slots[0], Piece::Raw(last)));
    assert!(server.cx.pending.is_empty());
    assert!(server.write(slots[1], Piece::Raw(last)));
    turns(&mut server, 1);
    for client in &mut clients {
        let mut answer = [0; ANSWER.len()];
        client.read_exact(&mut answer).expect("received");
        assert_eq!(answer, ANSWER);
    }
}

unsafe extern "C-unwind" fn never_visited(_: *mut mg_connection, _: *mut c_void) {}

#[test]
fn a_request_that_is_answered_in_a_walk_is_not_shown_again_behind_it() {
    let (mut server, mut client) = server_and_client(&[("iterate_over", "all")]);
    client.write_all(b"GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").expect("sent");
    let slot = next_call(&mut server).expect("a request");
    server.returned(0);
    turns(&mut server, 1);
    server.iterate_in_place(Some(never_visited), Param(ptr::null_mut()));
    assert!(matches!(server.next_in_place(), Some(Step::Iterate(..))));
    assert!(server.write(slot, Piece::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")));
    server.visited(slot);
    // SAFETY: slots are never unmapped.
    assert_eq!(unsafe { (*slot.as_c()).content_len }, 0);
}

#[test]
fn requests_of_one_turn_share_a_look_at_their_file() {
    let folder = std::env::temp_dir().join(format!("look-test-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("a"), "content").expect("a file");
    let root = folder.to_str().expect("text").to_owned();
    let (mut server, first) = server_and_client(&[("document_root", &root)]);
    server.cx.routes = Routes::default();
    let mut clients = vec![first];
    while clients.len() < 8 {
        let client = another(&clients[0]);
        clients.push(client);
    }
    while server.conns.open() < clients.len() {
        turns(&mut server, 1);
    }
    let mut most = 0;
    // The machine decides how many of the connections arrive before a turn begins.
    for _ in 0..1000 {
        for client in &mut clients {
            client.write_all(b"GET /a HTTP/1.1\r\n\r\n").expect("sent");
        }
        let mut left = clients.len();
        while left > 0 {
            server.begin(1);
            let (in_turn, before) = (server.cx.turn.left, server.cx.files.cache.asked);
            assert!(resume(&mut server).is_none());
            assert!(
                server.cx.files.cache.asked - before <= 1,
                "{} of {in_turn}",
                server.cx.files.cache.asked
            );
            assert!(server.cx.turn.sharing.is_empty() && server.cx.turn.left == 0);
            left -= in_turn.min(left);
            most = most.max(in_turn);
        }
        for client in &mut clients {
            let mut answer = [0; 4096];
            let count = client.read(&mut answer).expect("an answer");
            let answer = String::from_utf8_lossy(&answer[..count]);
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("content"), "{answer}");
        }
        if most > 3 {
            break;
        }
    }
    std::fs::remove_dir_all(&folder).expect("the folder");
    assert!(most > 3, "only {most} in one turn");
}

/// Has time pass only when the loop looks at the clock: more of it than there is for what goes on, so
/// that a turn has one item of that.
fn let_each_item_be_long(server: &mut Server) {
    server.cx.clock.fake = Some((3_000_000, std::cell::Cell::new(0)));
}

/// Returns how often the loop has looked at the clock.
fn looks_at_clock(server: &Server) -> u64 {
    server.cx.clock.fake.as_ref().map_or(0, |(step, time)| time.get() / step)
}

#[test]
fn a_short_request_waits_for_one_item_of_what_goes_on_and_not_for_all() {
    let (mut server, first) = server_and_client(&[]);
    server.cx.routes = Routes::default();
    let mut busy: Vec<TcpStream> = (0..7).map(|_| another(&first)).collect();
    let mut quick = first;
    while server.conns.iter().filter(|conn| conn.wire.registered).count() < 8 {
        turns(&mut server, 1);
    }
    let_each_item_be_long(&mut server);
    for client in &mut busy {
        client.write_all(&REQUEST.repeat(2000)).expect("sent");
    }
    while server.cx.turn.ongoing.list.len() < busy.len() {
        turns(&mut server, 1);
    }
    let mut most = 0;
    for round in 0..10 {
        quick.write_all(REQUEST).expect("sent");
        while server.conns.iter().all(|conn| !conn.wire.queued || conn.wire.yields) {
            server.begin(0);
            if server.cx.turn.left > 0 {
                break;
            }
            assert!(resume(&mut server).is_none());
        }
        let before = looks_at_clock(&server);
        most = most.max(server.cx.turn.ongoing.list.len());
        assert!(resume(&mut server).is_none());
        // One item began, and at the next look its time was over.
        assert!(looks_at_clock(&server) - before <= 2, "{round}");
        assert!(received(&mut quick), "{round}");
    }
    assert!(most >= 6, "{most}");
}

#[test]
#[cfg(feature = "deflate")]
fn a_long_message_is_compressed_in_many_turns_and_requests_are_answered_in_each() {
    let (mut server, mut quick) = server_and_client(&[("websocket_deflate", "yes")]);
    let mut client = another(&quick);
    let extension = b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    client.write_all(&[&UPGRADE[..UPGRADE.len() - 4], extension].concat()).expect("sent");
    client.write_all(b"\x82\x82\0\0\0\0ok").expect("sent");
    let slot = next_call(&mut server).expect("a message");
    server.returned(0);
    assert!(resume(&mut server).is_none());
    server.cx.routes = Routes::default();
    quick.set_nonblocking(true).expect("nonblocking");
    let mut count = 0;
    let mut answer = |server: &mut Server| {
        quick.write_all(REQUEST).expect("sent");
        let start = Instant::now();
        while !received(&mut quick) {
            assert!(start.elapsed() < LIMIT, "it has to wait");
            turns(server, 1);
            count += 1;
        }
        count
    };
    let before = answer(&mut server);
    let_each_item_be_long(&mut server);
    let payload = b"all of the same words ".repeat(100_000);
    assert_eq!(server.write_frame(slot, 2, &payload), Some(payload.len() + 10));
    assert_eq!(server.write_frame(slot, 1, b"behind"), Some(8));
    let backlog = |server: &mut Server| server.conns.of_slot(slot).map(|conn| conn.wire.backlog());
    let mut count = 0;
    while server.conns.of_slot(slot).is_some_and(|conn| conn.wire.compresses()) {
        assert_eq!(backlog(&mut server), Some(payload.len() + 18));
        count = answer(&mut server) - before;
    }
    // A turn has one item, and an item compresses 128 KiB.
    assert!(count >= payload.len().div_ceil(128 << 10), "{count}");
    turns(&mut server, 3);
    assert_eq!(backlog(&mut server), Some(0));
}

#[test]
#[cfg(feature = "webdav")]
fn while_long_files_are_closed_the_loop_looks_for_a_place_now_and_then() {
    let folder = Folder::new();
    std::fs::create_dir(folder.0.join("tree")).expect("a folder");
    std::fs::write(folder.0.join("tree/long"), vec![7; 5 << 20]).expect("a long file");
    let root = folder.0.display().to_string();
    let options =
        [("document_root", &*root), ("enable_uploads", "yes"), ("uploads_by_anybody", "yes")];
    let (mut server, mut client) = server_and_client(&options);
    server.cx.routes = Routes::default();
    let occupied = crate::long_files::occupy();
    client.write_all(b"DELETE /tree/ HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    let start = Instant::now();
    while server.cx.turn.reading.is_empty() {
        assert!(start.elapsed() < LIMIT, "nothing waits");
        turns(&mut server, 1);
    }
    // The first look at the directory, and for others to accept.
    turns(&mut server, 5);
    for _ in 0..3 {
        assert!(!server.cx.turn.goes_on() && server.cx.turn.reading.len() == 1);
        assert_eq!(server.time_to_wait(1000), super::READING_MS);
        turns(&mut server, 1);
    }
    // So does what is left behind by one that has gone: by a reset, since this one might still read.
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).expect("set");
    drop(client);
    while server.conns.open() > 0 || !server.is_sweeping() {
        assert!(start.elapsed() < LIMIT, "nothing is left behind");
        turns(&mut server, 1);
    }
    turns(&mut server, 1);
    assert!(server.is_sweeping());
    assert_eq!(server.time_to_wait(1000), super::READING_MS);
    drop(occupied);
    while server.is_sweeping() {
        assert!(start.elapsed() < LIMIT, "it stays");
        turns(&mut server, 1);
    }
    assert_eq!(std::fs::read_dir(&folder.0).expect("the root").count(), 0);
}

#[test]
fn a_walk_of_another_thread_lets_requests_in_between_and_visits_each_once() {
    let (mut server, first) = server_and_client(&[("iterate_over", "all")]);
    let mut clients: Vec<TcpStream> = (0..9).map(|_| another(&first)).collect();
    clients.push(first);
    while server.conns.iter().filter(|conn| conn.wire.registered).count() < 10 {
        turns(&mut server, 1);
    }
    let_each_item_be_long(&mut server);
    let ticket = Arc::new(Ticket::default());
    let message = Message::Iterate {
        func: Some(never_visited),
        param: Param(ptr::null_mut()),
        ticket: ticket.clone(),
    };
    assert!(server.cx.hub.queue.push(message).is_ok());
    let (mut visited, mut answered) = (Vec::new(), 0);
    let start = Instant::now();
    while server.walks.is_busy() || visited.is_empty() {
        assert!(start.elapsed() < LIMIT, "it never ends");
        if visited.len() == 3 {
            // One that is to be visited closes, and another one comes.
            clients.pop();
            clients.push(another(&clients[0]));
        }
        clients[0].write_all(REQUEST).expect("sent");
        server.begin(1);
        loop {
            match server.step() {
                Step::Call(..) => {
                    answered += 1;
                    server.returned(0);
                }
                Step::Iterate(conn, ..) => {
                    visited.push(conn);
                    // SAFETY: pointers in steps are those of slots.
                    server.visited(unsafe { Slot::from_c(conn) }.expect("a slot"));
                }
                Step::Done => break,
            }
        }
    }
    visited.sort();
    let count = visited.len();
    visited.dedup();
    assert_eq!(visited.len(), count, "visited twice");
    assert!((9..=10).contains(&count), "{count}");
    assert_eq!(ticket.wait(Duration::ZERO), count as c_int);
    assert!(answered > 0, "the walk kept the loop");
}

#[test]
fn the_end_of_a_server_and_a_fork_end_a_walk_that_is_on_its_way() {
    for forks in [false, true] {
        let (mut server, first) = server_and_client(&[("iterate_over", "all")]);
        let _second = another(&first);
        while server.conns.open() < 2 {
            turns(&mut server, 1);
        }
        let_each_item_be_long(&mut server);
        let ticket = Arc::new(Ticket::default());
        let (func, param) = (Some(never_visited as _), Param(ptr::null_mut()));
        let message = Message::Iterate { func, param, ticket: ticket.clone() };
        assert!(server.cx.hub.queue.push(message).is_ok());
        let mut visits = 0;
        while visits == 0 {
            server.begin(1);
            while let Step::Iterate(conn, ..) = server.step() {
                visits += 1;
                // SAFETY: pointers in steps are those of slots.
                server.visited(unsafe { Slot::from_c(conn) }.expect("a slot"));
            }
        }
        assert_eq!(visits, 1);
        if forks {
            // The server finds itself in the child of a fork, in which no thread waits.
            server.cx.forks = server.cx.forks.wrapping_add(1);
            turns(&mut server, 1);
            assert!(!server.walks.is_busy());
            assert_eq!(Arc::strong_count(&ticket), 1);
        } else {
            drop(server);
            assert_eq!(ticket.wait(Duration::ZERO), -1);
        }
    }
}

#[test]
fn eight_wrong_passwords_of_an_address_wait_for_half_a_second_and_what_follows_is_put_off() {
    let folder = Folder::new();
    let hash = md5_hex(&[b"joe:mydomain.com:secret"]);
    let line = format!("joe:mydomain.com:{}\n", String::from_utf8_lossy(&hash));
    let passwords = folder.write("passwords", &line);
    folder.write("a.txt", "guarded");
    let (mut server, first) = server_and_client(&[
        ("document_root", folder.0.to_str().expect("text")),
        ("global_auth_file", passwords.to_str().expect("text")),
        ("enable_basic_auth", "always"),
    ]);
    server.cx.routes = Routes::default();
    let start = server.cx.clock.now;
    server.cx.clock.held = Some(start);

    let ask = |mut client: &TcpStream, credentials: &str| {
        let request = format!("GET /a.txt HTTP/1.1\r\nAuthorization: Basic {credentials}\r\n\r\n");
        client.write_all(request.as_bytes()).expect("sent");
    };
    // The status that has come, if one has.
    let status = |mut client: &TcpStream| {
        client.set_nonblocking(true).expect("a mode");
        let mut buf = [0; 4096];
        let len = client.read(&mut buf).unwrap_or(0);
        String::from_utf8_lossy(&buf[..len]).get(9..12).map(str::to_owned)
    };
    let answered = |server: &mut Server, client: &TcpStream| {
        let begin = Instant::now();
        loop {
            turns(server, 1);
            if let Some(status) = status(client) {
                return status;
            }
            assert!(begin.elapsed() < LIMIT, "no answer");
        }
    };
    let (wrong, right) = ("am9lOndyb25n", "am9lOnNlY3JldA==");
    let waiting: Vec<TcpStream> = (0..8).map(|_| another(&first)).collect();
    for client in &waiting {
        ask(client, wrong);
    }
    while server.conns.iter().filter(|conn| conn.request().is_some()).count() < waiting.len() {
        turns(&mut server, 1);
    }
    // Neither a wrong password nor the right one is looked at now, and nobody else waits.
    for (credentials, expected) in [(wrong, "429"), (right, "429"), ("", "429")] {
        let client = another(&first);
        ask(&client, credentials);
        assert_eq!(answered(&mut server, &client), expected, "{credentials}");
    }
    let mut stranger = another(&first);
    stranger.write_all(b"GET /a.txt HTTP/1.1\r\n\r\n").expect("sent");
    assert_eq!(answered(&mut server, &stranger), "401");

    server.cx.clock.held = Some(start + 499);
    turns(&mut server, 5);
    assert!(waiting.iter().all(|client| status(client).is_none()), "answered too early");
    ask(&first, right);
    assert_eq!(answered(&mut server, &first), "429");

    // The timers have a tick of 32 ms.
    server.cx.clock.held = Some(start + 600);
    for client in &waiting {
        assert_eq!(answered(&mut server, client), "401");
    }
    ask(&first, right);
    assert_eq!(answered(&mut server, &first), "200");
}
