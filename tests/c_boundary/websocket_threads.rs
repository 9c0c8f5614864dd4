//! Websockets that are written to and walked over from anywhere: handlers, other threads, and
//! between two polls.

use crate::support::{Client, Websocket, WebsocketServer, as_many_as, frame, handshake, until};
use std::io::Write;

#[track_caller]
fn expect_text(sockets: &mut [Websocket], text: &str) {
    for socket in sockets {
        socket.expect_text(text);
    }
}

#[test]
fn a_frame_may_be_written_from_anywhere() {
    let mut server = WebsocketServer::start(&[]);
    let mut socket = server.open_kept("a");
    let mut other = server.open("/events");
    server.step("to a write 1 another thread", "wrote 16");
    server.step("io to a write 2 between polls", "wrote 15");
    other.text("do to a write 1 another handler");
    server.expect_line("wrote 17");
    socket.expect_text("another thread").expect(0x82, "between polls");
    socket.expect_text("another handler");
    server.step("to a fill 2 100000", "wrote 100010");
    assert_eq!(socket.next().payload.len(), 100_000);
    server.step(r"to a raw \x81\x03raw", "raw 5").step(r"to a printf \x81\x03fmt", "printf 5");
    socket.expect_text("raw").expect_text("fmt");
    server.stop();
}

#[test]
fn four_threads_that_push_to_every_websocket_keep_their_order_and_never_mix() {
    let mut server = WebsocketServer::start(&[]);
    let mut sockets: Vec<Websocket> =
        (0..8).map(|number| server.open_kept(&format!("k{number}"))).collect();
    // Some leave, with a Close, without one, and while the threads write.
    let leaving = sockets.split_off(5);
    let count = as_many_as(400, 40);
    server.tell(&format!("push {count}"));
    std::thread::scope(|scope| {
        for (index, mut socket) in leaving.into_iter().enumerate() {
            scope.spawn(move || {
                (0..index * 20).for_each(|_| drop(socket.next()));
                match index {
                    0 => socket.client.reset(),
                    1 => drop(socket.frame(0x88, "")),
                    _ => drop(socket),
                }
            });
        }
        for mut socket in sockets {
            scope.spawn(move || {
                let mut next = [0; 4];
                for turn in 0..4 * count {
                    if turn % 50 == 0 {
                        // Its own handler's answers do not mix with the threads' either.
                        socket.frame(0x89, "between");
                    }
                    let mut frame = socket.next();
                    while frame.first_byte == 0x8a {
                        assert_eq!(frame.payload, b"between");
                        frame = socket.next();
                    }
                    let text = String::from_utf8(frame.payload).expect("text");
                    let thread: usize = text[..1].parse().expect(&text);
                    let filler = ["a", "b", "c", "d"][thread].repeat(next[thread] * 37 % 300);
                    assert_eq!(text, format!("{thread} {} {filler}", next[thread]));
                    next[thread] += 1;
                }
                assert_eq!(next, [count; 4]);
            });
        }
    });
    server.expect_line("pushed");
    server.stop();
}

#[test]
fn a_client_that_never_reads_has_a_bounded_queue_and_delays_nobody() {
    let mut server = WebsocketServer::start(&["max_send_queue_bytes=100000", "idle_timeout_ms=0"]);
    let mut deaf = server.open_kept("deaf");
    let mut other = server.open_kept("other");
    // In one call of a handler nothing leaves: exactly what the bound allows is taken.
    deaf.text("do flood 9986");
    server.expect_line("flooded 10 -1");
    for _ in 0..10 {
        assert_eq!(deaf.next().payload.len(), 9986);
    }
    // Another thread fills what the kernel takes, too, and then the queue.
    let mut taken = 0;
    until("nothing more is taken", || {
        server.tell("to deaf flood 10000");
        let line = server.program.expect_start("flooded ");
        let (count, last) = line.split_once(' ').expect("two numbers");
        assert_eq!(last, "-1");
        // The polling thread has met the full socket once a round trip adds nothing.
        other.text("do write 1 others get theirs").expect_text("others get theirs");
        let count: usize = count.parse().expect("a count");
        taken += count;
        count == 0
    });
    server.step("to other write 1 from a thread", "wrote 15");
    other.expect_text("from a thread");
    // Whoever reads again gets all that was taken, and then new messages.
    for _ in 0..taken {
        assert_eq!(deaf.next().payload.len(), 10_000);
    }
    until("there is room again", || {
        server.tell("to deaf write 1 again");
        server.program.expect_start("wrote ") == "7"
    });
    deaf.expect_text("again");
    server.events();
    server.stop();
}

#[test]
fn a_client_that_sends_and_never_reads_is_read_from_no_longer() {
    let server = WebsocketServer::start(&["idle_timeout_ms=0"]);
    let message = frame(0x82, [7; 50_000]);
    let mut socket = server.open("/echo");
    let sent = socket.client.send_until_stuck(&message);
    server.open("/echo").text("others are served").expect_text("others are served");
    // Once it reads, all of its messages have been echoed.
    let (whole, part) = (sent.div_ceil(message.len()), sent % message.len());
    let mut sender = socket.client.sender();
    std::thread::scope(|scope| {
        if part > 0 {
            scope.spawn(|| sender.write_all(&message[part..]).expect("the server takes the rest"));
        }
        for _ in 0..whole {
            socket.expect(0x82, [7; 50_000]);
        }
    });
    socket.text("and on").expect_text("and on");
    server.stop();
}

#[test]
fn writes_that_cannot_be_are_refused() {
    let mut server = WebsocketServer::start(&[]);
    let mut socket = server.open_kept("a");
    socket.text("do impossible\nsay done").expect(0x82, "");
    server.expect_line("done");
    server.tell("to a impossible").step("say done", "done");
    socket.expect(0x82, "");
    server.stop();
}

#[test]
fn pointers_to_websockets_that_have_closed_are_harmless() {
    let mut server = WebsocketServer::start(&[]);
    let mut closed = server.open_kept("closed");
    closed.frame(0x88, "").expect(0x88, "").client.expect_closed();
    let left = server.open_kept("left");
    drop(left);
    until("the client's leaving is noticed", || {
        server.tell("to left write 1 x");
        server.program.expect_start("wrote ") == "-1"
    });
    // Others come, and none of them gets what is meant for those that left.
    let mut others: Vec<Websocket> = (0..5).map(|_| server.open("/events")).collect();
    let steps = [
        ("write 1 x", "wrote -1"),
        ("write 8 ", "wrote -1"),
        ("write 9 ", "wrote -1"),
        ("raw x", "raw 0"),
        ("printf x", "printf 0"),
    ];
    for key in ["closed", "left"] {
        for (step, line) in steps {
            server.step(&format!("to {key} {step}"), line);
            server.step(&format!("io to {key} {step}"), line);
        }
    }
    for other in &mut others {
        other.frame(0x89, "clean").expect(0x8a, "clean");
    }
    let mut open = server.open_kept("open");
    server.step("io destroy", "destroyed: NULL").expect_line("GONE");
    assert_eq!(open.client.rest_or_reset(), b"");
    for key in ["closed", "left", "open"] {
        for (step, line) in steps {
            server.step(&format!("to {key} {step}"), line);
        }
    }
    server.program.stop();
}

#[test]
fn a_walk_visits_every_websocket_once_from_anywhere() {
    let mut server = WebsocketServer::start(&[]);
    server.step("iterate", "iterated 0 called 0");
    let mut sockets: Vec<Websocket> = (0..5).map(|_| server.open("/events")).collect();
    // Neither an HTTP connection nor a handshake that failed is one.
    let mut http = Client::connect(server.port);
    assert_eq!(http.ask("GET /events HTTP/1.1\r\n\r\n").text(), "plain");
    let mut failed = Client::connect(server.port);
    failed.ask(handshake("/events", "").replace("13", "12"));
    let nested = "iterated 5 called 5 nested 25";
    for prefix in ["", "io "] {
        server.step(&format!("{prefix}iterate"), "iterated 5 called 5");
        server.step(&format!("{prefix}count"), "counted 5");
        server.step(&format!("{prefix}nested"), nested);
        server.step(&format!("{prefix}broadcast to all"), "iterated 5 called 5");
        expect_text(&mut sockets, "to all");
    }
    server.step("spawn", "elsewhere iterated 5 called 5");
    sockets[2].text("do iterate\ncount\nnested\nbroadcast to all\nwrite 1 to me");
    for line in ["iterated 5 called 5", "counted 5", nested, "iterated 5 called 5", "wrote 7"] {
        server.expect_line(line);
    }
    expect_text(&mut sockets, "to all");
    sockets[2].expect_text("to me");
    // One fewer, and the walk sees it.
    sockets[0].frame(0x88, "").expect(0x88, "").client.expect_closed();
    server.step("iterate", "iterated 4 called 4");
    drop(failed);
    server.step("set iterate_over all", "set iterate_over: NULL");
    until("the failed connection is gone", || {
        server.tell("count");
        server.program.expect_start("counted ") == "5"
    });
    server.events();
    server.stop();
}

#[test]
fn a_walk_in_a_handler_leaves_its_content_alone() {
    let mut server = WebsocketServer::start(&[]);
    let mut sockets: Vec<Websocket> = (0..3).map(|_| server.open("/events")).collect();
    // The steps lie in the content of the message: they are found after each walk.
    sockets[1].text("do nested\nbroadcast all\nsay done");
    server.expect_line("iterated 3 called 3 nested 9").expect_line("done");
    expect_text(&mut sockets, "all");
    server.events();
    server.stop();
}

#[test]
fn a_walk_sees_the_last_message_of_each_websocket_if_it_is_to() {
    let mut server = WebsocketServer::start(&["iterate_content=last"]);
    let mut sockets: Vec<Websocket> = (0..3).map(|_| server.open("/events")).collect();
    // In one segment, by fragments, and long enough for a buffer of its own; then a ping.
    sockets[0].text("first").text("one");
    sockets[1].frame(0x02, "t").frame(0x80, "wo");
    sockets[0].frame(0x89, "").expect(0x8a, "");
    sockets[1].frame(0x89, "").expect(0x8a, "");
    server.events();
    for prefix in ["", "io "] {
        server.step(&format!("{prefix}contents"), "iterated 3 called 3");
        for seen in ["sees 3 one 129", "sees 3 two 130", "sees 0  0"] {
            server.expect_line(seen);
        }
    }
    // From a handler, whose own message is what it sees of its own connection.
    sockets[2].text("do contents\nsay done");
    server.expect_line("iterated 3 called 3").expect_line("done");
    server.expect_line("sees 3 one 129").expect_line("sees 3 two 130");
    // Switched off again, and bounded by what the server may keep.
    server.step("set iterate_content none", "set iterate_content: NULL");
    server.step("contents", "iterated 3 called 3");
    for _ in 0..3 {
        server.expect_line("sees 0  0");
    }
    server.step("set iterate_content last", "set iterate_content: NULL");
    server.step("set max_buffered_bytes 4", "set max_buffered_bytes: NULL");
    sockets[0].text("longer than that").frame(0x89, "").expect(0x8a, "");
    server.step("contents", "iterated 3 called 3");
    server.expect_line("sees 0  0");
    server.step("set max_buffered_bytes 1000000", "set max_buffered_bytes: NULL");
    server.step(
        "set iterate_content everything",
        "set iterate_content: Option value must be none or last",
    );
    server.events();
    server.stop();
}

#[test]
fn a_walk_may_write_to_another_connection_than_it_visits() {
    let mut server = WebsocketServer::start(&[]);
    let mut told = server.open_kept("told");
    let mut others = [server.open("/events"), server.open("/events")];
    for prefix in ["", "io "] {
        server.step(&format!("{prefix}tell told news"), "iterated 3 called 3");
        told.expect_text("news").expect_text("news").expect_text("news");
    }
    others[0].text("do tell told news");
    server.expect_line("iterated 3 called 3");
    told.expect_text("news").expect_text("news").expect_text("news");
    // Nobody else was told.
    for other in &mut others {
        other.frame(0x89, "").expect(0x8a, "");
    }
    server.stop();
}

#[test]
fn a_walk_may_close_what_it_visits() {
    for (prefix, from_handler) in [("", false), ("io ", false), ("", true)] {
        let mut server = WebsocketServer::start(&[]);
        let mut sockets: Vec<Websocket> = (0..4).map(|_| server.open("/events")).collect();
        if from_handler {
            sockets[1].text("do closeall");
        } else {
            server.tell(&format!("{prefix}closeall"));
        }
        server.expect_line("iterated 4 called 4");
        for socket in &mut sockets {
            socket.expect(0x88, 1000u16.to_be_bytes());
            socket.frame(0x88, 1000u16.to_be_bytes()).client.expect_closed();
        }
        server.step("iterate", "iterated 0 called 0");
        server.events();
        server.stop();
    }
}

#[test]
fn walks_before_the_first_poll_and_between_polls_run_in_place() {
    let mut server =
        WebsocketServer::start(&["--unpolled", "iterate_timeout_ms=50", "idle_timeout_ms=0"]);
    server.step("iterate", "iterated 0 called 0").step("count", "counted 0");
    server.step("spawn", "elsewhere iterated 0 called 0");
    let clients: Vec<Client> = (0..3)
        .map(|_| {
            let mut client = Client::connect(server.port);
            client.send(handshake("/events", ""));
            client
        })
        .collect();
    server.step("meet 3", "met").step("iterate", "iterated 3 called 3");
    server.step("nested", "iterated 3 called 3 nested 9");
    // Elsewhere the walk waits for the polling thread, which does not come.
    server.step("spawn", "elsewhere iterated -1 called 0");
    server.step("broadcast hello", "iterated 3 called 3");
    server.tell("run");
    let mut sockets: Vec<Websocket> = clients.into_iter().map(Websocket::begin).collect();
    expect_text(&mut sockets, "hello");
    server.step("set iterate_timeout_ms 0", "set iterate_timeout_ms: NULL");
    server.step("spawn", "elsewhere iterated 3 called 3");
    server.stop();
}

#[test]
fn a_walk_is_withdrawn_when_the_polling_thread_does_not_come_to_it() {
    let mut server = WebsocketServer::start(&["iterate_timeout_ms=50"]);
    let mut socket = server.open("/events");
    socket.text("do wait");
    server.expect_line("waiting");
    server.step("spawn", "elsewhere iterated -1 called 0");
    server.step("count", "counted -1");
    server.tell("go");
    // It has been withdrawn for good.
    server.step("set iterate_timeout_ms 0", "set iterate_timeout_ms: NULL");
    server.step("spawn", "elsewhere iterated 1 called 1");
    server.events();
    server.stop();
}

#[test]
fn destroying_the_server_releases_walks_that_wait() {
    let mut server = WebsocketServer::start(&["iterate_timeout_ms=0"]);
    let mut sockets = [server.open("/events"), server.open("/events")];
    sockets[0].text("do spawn\nasleep\ndestroy\niterate\nwrite 1 x");
    server.expect_line("destroyed: NULL").expect_line("elsewhere iterated -1 called 0");
    server.expect_line("GONE");
    for socket in &mut sockets {
        socket.client.rest_or_reset();
    }
    server.program.stop();
}

/// The handler of a request runs before the program says `last`, with which longer work ends.
fn answered_before(server: &mut WebsocketServer, client: &mut Client, last: &str) {
    server.program.expect_line("HTTP GET /events");
    assert!(!server.program.has_come_before(last), "the request had to wait");
    assert_eq!(client.response().text(), "plain");
}

#[test]
fn a_request_is_answered_in_the_middle_of_a_walk_of_another_thread() {
    const LEN: usize = 256 << 10;
    let mut server = WebsocketServer::start(&[]);
    let mut sockets: Vec<Websocket> =
        (0..as_many_as(200, 20)).map(|_| server.open("/events")).collect();
    let mut client = Client::connect(server.port);
    server.step(&format!("elsewhere fillall {LEN}"), "waiting");
    // The thread that polls is inside the walk.
    client.send_through("GET /events HTTP/1.1\r\n\r\n");
    server.tell("go");
    answered_before(&mut server, &mut client, "iterated");
    server.expect_line(&format!("iterated {0} called {0}", sockets.len()));
    for socket in &mut sockets {
        let frame = socket.next();
        assert_eq!((frame.first_byte, frame.payload.len()), (0x82, LEN));
        assert!(frame.payload.iter().all(|byte| *byte == b'x'));
    }
    server.stop();
}

#[test]
fn a_request_is_answered_while_messages_of_a_websocket_inflate() {
    let len = as_many_as(32 << 20, 4 << 20);
    let mut compress = flate2::Compress::new(flate2::Compression::best(), false);
    let mut bomb = Vec::with_capacity(1 << 20);
    compress
        .compress_vec(&vec![b'z'; len], &mut bomb, flate2::FlushCompress::Sync)
        .expect("compressed");
    assert!(bomb.ends_with(&[0, 0, 0xff, 0xff]));
    bomb.truncate(bomb.len() - 4);
    let mut server = WebsocketServer::start(&["websocket_deflate=yes"]);
    let mut holder = server.open("/events");
    let extension = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let mut socket = Websocket::open_with(server.port, "/events", extension);
    let mut client = Client::connect(server.port);
    holder.text("do wait");
    server.expect_line("waiting");
    // Both are there when the thread that polls goes on, and the long one came first.
    socket.client.send_through(frame(0xc2, &bomb));
    client.send_through("GET /events HTTP/1.1\r\n\r\n");
    server.tell("go");
    answered_before(&mut server, &mut client, "EVENT");
    let event = server.program.expect_start("EVENT 82");
    assert!(event.contains(&format!(" {len} ")), "{event}");
    server.stop();
}

#[test]
fn a_request_is_answered_while_a_long_queue_is_sent() {
    const MIB: usize = 1 << 20;
    let mut server = WebsocketServer::start(&[]);
    let mut socket = server.open_kept("a");
    let count = as_many_as(64, 8);
    server.step(&format!("to a fill 2 {}", count * MIB), &format!("wrote {}", count * MIB + 10));
    let mut client = Client::connect(server.port);
    client.send("GET /events HTTP/1.1\r\n\r\n");
    // The rest of the queue is not read before the answer is there.
    assert_eq!(client.response().text(), "plain");
    let frame = socket.next();
    assert_eq!((frame.first_byte, frame.payload.len()), (0x82, count * MIB));
    assert!(frame.payload.iter().all(|byte| *byte == b'x'));
    // The connection goes on behind it.
    server.step("to a write 1 behind", "wrote 8");
    socket.expect_text("behind");
    server.stop();
}
