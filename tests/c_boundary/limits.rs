//! Limits of time and size, each set low.

use crate::support::{Scratch, Server, as_many_as, deadline, for_each, request, shown, until};
use std::time::{Duration, Instant};

#[test]
fn an_idle_connection_is_closed() {
    let mut server = Server::start(&["idle_timeout_ms=60000", "deferred_answers=all"]);
    // Before a request, between two, with an answer pending, and with endless ones.
    let mut clients = [(); 5].map(|()| server.client());
    clients[1].ask("GET /alive HTTP/1.1\r\n\r\n");
    clients[2].send_through(request("POST", "1.1", &[]));
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let stream = "write HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\n\\r\\n";
    clients[3].send(request("GET", "1.1", &[stream])).expect(head);
    clients[4].send(request("GET", "1.1", &["keep a", "say called"]));
    server.expect_line("called");
    server.tell("late a write HTTP/1.1 200 OK\\r\\n\\r\\nhi");
    clients[4].expect("HTTP/1.1 200 OK\r\n\r\nhi");
    server.tell("io set idle_timeout_ms 300");
    server.expect_line("set idle_timeout_ms: NULL");
    for client in &mut clients {
        client.expect_closed();
    }
    // The timeout of new ones, too.
    server.client().expect_closed();
    server.tell("io set idle_timeout_ms 60000");
    server.expect_line("set idle_timeout_ms: NULL");
    server.stop();
}

#[test]
fn an_incomplete_request_is_answered_by_408() {
    let server = Server::start(&["request_timeout_ms=300"]);
    let halves = [
        "G",
        "GET /alive HTTP/1.1\r\nA: b\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf",
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "GET /alive HTTP/1.1\r\n\r\nGET /alive",
    ];
    for_each(
        halves,
        |half| format!("{half:?}"),
        |half| {
            let mut client = server.client();
            client.send(half);
            let mut answer = client.response();
            if answer.status == 200 {
                answer = client.response();
            }
            assert_eq!((answer.status, answer.field("Connection")), (408, Some("close")));
            client.expect_closed();
        },
    );
    server.stop();
}

#[test]
fn bytes_that_trickle_do_not_extend_the_time_for_a_request() {
    let server = Server::start(&["request_timeout_ms=300"]);
    for start in
        ["GET /alive HTTP/1.1\r\nA: ", "POST /echo HTTP/1.1\r\nContent-Length: 9999\r\n\r\n"]
    {
        let mut client = server.client();
        client.send(start);
        while !client.has_news_within(Duration::from_millis(10)) {
            assert!(client.try_send("x"));
        }
        assert_eq!(client.response().status, 408);
    }
    server.stop();
}

#[test]
fn a_head_may_be_as_long_as_the_limit_and_no_longer() {
    let server = Server::start(&["max_request_header_bytes=100"]);
    let head = |len: usize| {
        let (start, end) = ("GET /alive HTTP/1.1\r\nA: ", "\r\n\r\n");
        format!("{start}{}{end}", "x".repeat(len - start.len() - end.len()))
    };
    let mut client = server.client();
    assert_eq!(client.ask(head(100)).status, 200);
    assert_eq!(client.ask(head(100)).status, 200);
    let answer = client.ask(head(101));
    assert_eq!((answer.status, answer.field("Connection")), (431, Some("close")));
    client.expect_closed();
    let mut client = server.client();
    assert_eq!(client.ask(&head(200)[..120]).status, 431, "its end need not be awaited");
    server.stop();
}

#[test]
fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
    let server = Server::start(&["max_request_body_bytes=10"]);
    let body = "0123456789";
    let mut client = server.client();
    let plain = format!("POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\n{body}");
    assert!(client.ask(plain).text().ends_with(body));
    let chunked = "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = "5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n";
    assert!(client.ask(format!("{chunked}{chunks}")).text().ends_with(body));
    let refused = [
        // Refused by its announcement, before any of it has come.
        "POST /echo HTTP/1.1\r\nContent-Length: 11\r\n\r\n".to_owned(),
        "POST /echo HTTP/1.1\r\nContent-Length: 9223372036854775807\r\n\r\n".to_owned(),
        "POST /echo HTTP/1.1\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n".to_owned(),
        format!("{chunked}b\r\n0123456789a"),
        format!("{chunked}5\r\n01234\r\n6\r\n56789a"),
    ];
    for request in refused {
        let mut client = server.client();
        let answer = client.ask(&request);
        assert_eq!((answer.status, answer.field("Connection")), (413, Some("close")), "{request}");
        client.expect_closed();
    }
    server.stop();
}

#[test]
fn a_client_that_goes_on_sending_sees_why_it_was_refused() {
    let server = Server::start(&["max_request_body_bytes=10"]);
    let mut client = server.client();
    client.send("POST /echo HTTP/1.1\r\nContent-Length: 500000\r\n\r\n").send(vec![b'x'; 500_000]);
    assert_eq!(client.response().status, 413);
    client.expect_closed();
    server.stop();
}

#[test]
fn expect_100_continue_is_answered_where_the_body_will_be_read() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for expectation in ["100-continue", "100-Continue"] {
        let length = "Content-Length: 5";
        client.send(format!("POST /echo HTTP/1.1\r\nExpect: {expectation}\r\n{length}\r\n\r\n"));
        client.expect("HTTP/1.1 100 Continue\r\n\r\n");
        let answer = client.ask("hello");
        assert!(answer.status == 200 && answer.text().ends_with("hello"));
    }
    let chunked = "Transfer-Encoding: chunked";
    client.send(format!("POST /echo HTTP/1.1\r\nExpect: 100-continue\r\n{chunked}\r\n\r\n"));
    client.expect("HTTP/1.1 100 Continue\r\n\r\n");
    assert!(client.ask("5\r\nhello\r\n0\r\n\r\n").text().ends_with("hello"));
    // There is nothing to wait for, or the client does not know of interim answers.
    client.send("GET /alive HTTP/1.1\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.response().status, 200);
    client.send("POST /echo HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.response().status, 200);
    server.stop();
}

#[test]
fn a_timeout_that_is_set_again_and_again_passes_all_the_same() {
    let mut server = Server::start(&["idle_timeout_ms=300", "deferred_answers=all"]);
    let mut clients = [(); 2].map(|()| server.client());
    clients[1].send(request("POST", "1.1", &[]));
    let end = Instant::now() + deadline();
    while !clients.iter_mut().all(|client| client.has_news_within(Duration::from_millis(1))) {
        assert!(Instant::now() < end, "the timeouts do not pass");
        server.tell("io set idle_timeout_ms 300");
        server.expect_line("set idle_timeout_ms: NULL");
    }
    for client in &mut clients {
        client.expect_closed();
    }
    server.stop();
}

#[test]
fn a_write_beyond_the_send_queue_is_refused_whole() {
    let mut server = Server::start(&["max_send_queue_bytes=1000"]);
    let head = "write HTTP/1.1 200 OK\\r\\nContent-Length: 500\\r\\n\\r\\n";
    let steps = [head, "write_fill 2000 x", "report large", "write_fill 500 y", "report small"];
    let answer = server.ask(request("GET", "1.1", &steps));
    server.expect_line("large 0");
    server.expect_line("small 500");
    assert!(answer.text() == "y".repeat(500));
    server.stop();
}

#[test]
fn an_answer_of_which_a_piece_finds_no_room_does_not_pass_for_a_whole_one() {
    let scratch = Scratch::new();
    let log = scratch.join("error.log");
    let mut server =
        Server::start(&["max_send_queue_bytes=1000", &format!("error_log_file={log}")]);
    // What follows would stand behind a gap.
    let steps = ["data one", "data_fill 2000 x", "data two"];
    let mut client = server.client();
    let (answer, _) = client.send(request("GET", "1.1", &steps)).rest_and_end();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(!answer.contains("two") && !answer.ends_with("0\r\n\r\n"), "{answer}");
    // Nothing was taken.
    let steps = ["data_fill 2000 x"];
    let (answer, _) = server.client().send(request("GET", "1.1", &steps)).rest_and_end();
    assert!(!answer.ends_with(b"0\r\n\r\n"), "{}", shown(&answer));
    // The end of the connection would be the end of the answer.
    let steps = ["data one", "data_fill 2000 x"];
    let (answer, was_reset) = server.client().send(request("GET", "1.0", &steps)).rest_and_end();
    assert!(was_reset, "{}", shown(&answer));
    // Late.
    let mut client = server.client();
    client.send(request("GET", "1.1", &["keep a", "say called"]));
    server.expect_line("called");
    server.tell("io to a data one");
    client.take_through("one\r\n");
    server.tell("io to a data_fill 2000 x");
    let (answer, _) = client.rest_and_end();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.is_empty(), "{answer}");
    scratch.read_when("error.log", |log| log.matches("which is cut off").count() == 4);
    server.stop();
}

#[test]
fn bodies_beyond_the_buffers_of_the_server_are_refused_by_503() {
    let server = Server::start(&["max_buffered_bytes=5000"]);
    for length in [100_000, 6000] {
        let mut client = server.client();
        client.send(format!("POST /echo HTTP/1.1\r\nContent-Length: {length}\r\n\r\n"));
        client.try_send(vec![b'x'; length]);
        assert_eq!(client.response().status, 503);
    }
    let small = "POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello";
    for _ in 0..100 {
        assert_eq!(server.ask(small).status, 200, "the room of the others is free again");
    }
    server.stop();
}

#[test]
fn beyond_max_connections_nobody_is_served_until_one_leaves() {
    let server = Server::start(&["max_connections=2"]);
    let (mut one, mut two) = (server.client(), server.client());
    let alive = "GET /alive HTTP/1.1\r\n\r\n";
    assert_eq!(one.ask(alive).text(), "alive");
    assert_eq!(two.ask(alive).text(), "alive");
    let mut third = server.client();
    third.try_send(alive);
    assert_eq!(one.ask(alive).text(), "alive");
    assert_eq!(two.ask(alive).text(), "alive");
    assert!(!third.has_news_within(Duration::from_millis(1)) || third.rest_or_reset().is_empty());
    drop(one);
    drop(third);
    until("somebody is served again", || {
        let mut next = server.client();
        next.try_send("GET /alive HTTP/1.1\r\nConnection: close\r\n\r\n");
        next.rest_or_reset().ends_with(b"alive")
    });
    assert_eq!(two.ask(alive).text(), "alive");
    drop(two);
    server.program.stop();
}

#[test]
fn connections_that_stall_do_not_hold_up_the_others() {
    let server = Server::start(&["request_timeout_ms=500"]);
    let mut stalled: Vec<_> = (0..200).map(|_| server.client()).collect();
    for client in &mut stalled {
        client.send("POST /echo HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nx");
    }
    for _ in 0..50 {
        server.ask("GET /alive HTTP/1.1\r\n\r\n");
    }
    for client in &mut stalled {
        assert_eq!(client.response().status, 408);
    }
    server.stop();
}

#[test]
fn a_client_that_does_not_read_is_idle_too() {
    let mut server = Server::start(&["idle_timeout_ms=1000"]);
    let mut client = server.client();
    let head = "write HTTP/1.1 200 OK\\r\\nContent-Length: 100000000\\r\\n\\r\\n";
    client.send(request("GET", "1.1", &["keep a", head, "write_fill 50000000 x"]));
    until("the client is given up", || server.late("a", "write x") == 0);
    assert!(client.rest_or_reset().len() < 50_000_000);
    server.stop();
}

#[test]
fn a_head_may_be_long_where_the_limit_says_so() {
    let server = Server::start(&["max_request_header_bytes=1000000"]);
    let long = "x".repeat(600_000);
    let mut client = server.client();
    for _ in 0..2 {
        let answer = client.ask(format!("GET /echo?{long} HTTP/1.1\r\nA: b\r\n\r\n"));
        assert!(answer.text().contains(&long) && answer.text().contains("\nA: b\n"));
    }
    server.stop();
}

#[test]
fn a_server_without_free_descriptors_recovers() {
    let server = Server::start(&["--descriptors=24"]);
    let mut served = server.client();
    served.ask("GET /alive HTTP/1.1\r\n\r\n");
    let crowd: Vec<_> = (0..60)
        .map(|_| {
            let mut client = server.client();
            client.try_send("GET /alive HTTP/1.1\r\n\r\n");
            client
        })
        .collect();
    // Those who have a connection keep it, and there is room again when the others have left.
    for _ in 0..20 {
        assert_eq!(served.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    }
    drop(crowd);
    until("somebody new is served", || {
        let mut next = server.client();
        next.try_send("GET /alive HTTP/1.1\r\nConnection: close\r\n\r\n");
        next.rest_or_reset().ends_with(b"alive")
    });
    server.stop();
}

#[test]
fn the_time_for_a_request_begins_with_its_first_byte_and_ends_with_its_last() {
    let mut server = Server::start(&["request_timeout_ms=200"]);
    let (mut fresh, mut used, mut waiting) = (server.client(), server.client(), server.client());
    assert_eq!(used.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    waiting.send(request("GET", "1.1", &["keep a"]));
    assert!(!fresh.has_news_within(Duration::from_millis(900)), "it has not begun a request");
    assert_eq!(fresh.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    assert_eq!(used.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    let answer = "write HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi";
    assert_eq!(server.late("a", answer), 40);
    waiting.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    server.stop();
}

/// A program may take its time in a handler, or poll rarely: that is no time of its clients.
#[test]
fn what_has_come_while_the_loop_was_away_is_not_late() {
    let passed = "the whole timeout passes";
    for timeout in ["request_timeout_ms", "idle_timeout_ms"] {
        let mut server = Server::start(&["--step"]);
        let mut clients: Vec<_> = (0..3).map(|_| server.client()).collect();
        let [head, content, idle] = &mut clients[..] else { unreachable!() };
        head.send_through("GET /al");
        content.send_through("POST /echo HTTP/1.1\r\nContent-Length: 3\r\n\r\nx");
        server.poll(3);
        server.tell(&format!("set {timeout} 100"));
        head.send_through("ive HTTP/1.1\r\n\r\n");
        content.send_through("yz");
        idle.send_through("GET /alive HTTP/1.1\r\n\r\n");
        let begun = Instant::now();
        until(passed, || begun.elapsed() > Duration::from_millis(300));
        server.poll(5);
        assert_eq!(head.response().text(), "alive", "{timeout}");
        let answer = content.response();
        assert_eq!(answer.status, 200, "{timeout}");
        assert!(answer.text().ends_with("xyz"), "{timeout}");
        assert_eq!(idle.response().text(), "alive", "{timeout}");
        server.tell("run");
        server.stop();
    }
    // But who always has something on its way does not get any time that it wants.
    let mut server = Server::start(&["--step", "request_timeout_ms=100"]);
    let mut slow = server.client();
    slow.send_through("GET /");
    server.poll(2);
    until("the client is late", || {
        slow.try_send("a");
        server.poll(1);
        slow.has_news_within(Duration::from_millis(10))
    });
    assert_eq!(slow.response().status, 408);
    // Nor is who has taken all that there was to take, of what waits for it or of a file.
    let scratch = Scratch::new();
    scratch.write("root/file", "x".repeat(20_000_000));
    let root = format!("document_root={}", scratch.join("root"));
    let head = "write HTTP/1.1 200 OK\\r\\nContent-Length: 20000000\\r\\n\\r\\n";
    let written = request("GET", "1.0", &[head, "write_fill 20000000 x"]);
    for download in [written, "GET /file HTTP/1.0\r\n\r\n".to_owned()] {
        let mut server = Server::start(&["--step", &root]);
        let mut reader = server.client();
        reader.send_through(download.as_str());
        server.poll(3);
        server.tell("set idle_timeout_ms 100");
        let begun = Instant::now();
        until(passed, || begun.elapsed() > Duration::from_millis(300));
        let first = reader.take_what_is_there();
        server.poll(1);
        server.tell("set idle_timeout_ms 60000");
        server.tell("run");
        let rest = reader.rest_or_reset();
        assert!(first.len() + rest.len() > 20_000_000, "{download}");
        server.stop();
    }
}

/// The kernel announces so many events at once: what it has behind them is asked for before a timeout is believed.
#[test]
fn a_download_whose_room_is_not_announced_yet_is_not_late() {
    const EVENTS: usize = 1024;
    let scratch = Scratch::new();
    scratch.write("root/file", "x".repeat(20_000_000));
    let root = format!("document_root={}", scratch.join("root"));
    let mut server = Server::start(&["--step", &root]);
    // The timers of the first and of the last connection come due first, in whatever order.
    let mut first = server.client();
    first.send_through("GET /file HTTP/1.0\r\n\r\n");
    server.poll(3);
    let mut others: Vec<_> = (0..EVENTS).map(|_| server.client()).collect();
    server.poll(EVENTS / 100 + 3);
    let mut last = server.client();
    last.send_through("GET /file HTTP/1.0\r\n\r\n");
    // Until the sockets are full.
    server.poll(30);
    server.tell("set idle_timeout_ms 100");
    let begun = Instant::now();
    until("the whole timeout passes", || begun.elapsed() > Duration::from_millis(300));
    others.iter_mut().for_each(|other| _ = other.send_through("G"));
    let before = [first.take_what_is_there().len(), last.take_what_is_there().len()];
    server.poll(1);
    server.tell("set idle_timeout_ms 60000");
    server.tell("run");
    let lens = [first.rest_or_reset().len() + before[0], last.rest_or_reset().len() + before[1]];
    assert!(lens.iter().all(|len| *len > 20_000_000), "{lens:?}");
    drop(others);
    server.stop();
}

#[test]
fn a_body_that_keeps_coming_has_more_time() {
    let server = Server::start(&["request_timeout_ms=1000", "idle_timeout_ms=3000"]);
    let mut client = server.client();
    let piece = vec![b'x'; 16_384];
    client.send(format!("POST /echo HTTP/1.1\r\nContent-Length: {}\r\n\r\n", 12 * piece.len()));
    for _ in 0..12 {
        client.send(&piece);
        assert!(
            !client.has_news_within(Duration::from_millis(200)) || client.response().status == 200
        );
    }
    server.stop();
}

#[test]
fn traffic_in_either_direction_keeps_a_connection_from_being_idle() {
    let timeout = format!("idle_timeout_ms={}", as_many_as(1000, 10_000));
    let mut server = Server::start(&[&timeout]);
    let [mut reader, mut writer, mut idle] = [(); 3].map(|()| server.client());
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let stream = "write HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\n\\r\\n";
    reader.send(request("GET", "1.1", &["keep a", stream])).expect(head);
    writer.send("POST /echo HTTP/1.1\r\nContent-Length: 10000\r\n\r\n");
    let mut rest = 10_000;
    let mut traffic = |count: usize| {
        writer.send("x".repeat(count));
        rest -= count;
        assert_eq!(server.late("a", "write y"), 1);
        reader.expect("y");
        rest
    };
    // Until the time has passed, as a third connection shows that has no traffic from now on.
    assert_eq!(idle.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    while !idle.has_news_within(Duration::from_millis(50)) {
        traffic(1);
    }
    idle.expect_closed();
    let rest = traffic(1);
    traffic(rest);
    assert_eq!(writer.response().status, 200);
    server.stop();
}

#[test]
fn endless_chunk_heads_and_trailers_come_to_an_end() {
    let server = Server::start(&["request_timeout_ms=500"]);
    let chunked = "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    for (start, endless) in [
        (chunked, "T: t\r\n"),
        ("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "0"),
        ("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;", "x"),
    ] {
        let mut client = server.client();
        client.send(start);
        until("the server has had enough", || {
            client.has_news_within(Duration::from_millis(5)) || !client.try_send(endless.repeat(10))
        });
        let answer = client.rest_or_reset();
        let refused = [&b"HTTP/1.1 4"[..], b""].iter().any(|start| answer.starts_with(start));
        assert!(refused, "{endless:?}: {}", String::from_utf8_lossy(&answer));
    }
    server.stop();
}
