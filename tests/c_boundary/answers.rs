//! What a handler writes by `mg_write` and `mg_printf`: the bytes that leave, and whether the
//! connection stays open, derived from those bytes.

use crate::support::{Client, Server, for_each, request, until};
use After::{Closed, Open};

#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    Open,
    Closed,
}

/// Method and version of the request, what the handler does, the bytes that must leave.
type Case = (&'static str, &'static str, &'static [&'static str], &'static str, After);

const FRAMING: &[Case] = &[
    // Delimited by a length.
    (
        "GET",
        "1.1",
        &["write HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello"],
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        Open,
    ),
    (
        "POST",
        "1.1",
        &["write HTTP/1.1 200 OK\\r\\ncontent-length:5\\r\\n\\r\\nhello"],
        "HTTP/1.1 200 OK\r\ncontent-length:5\r\n\r\nhello",
        Open,
    ),
    (
        "GET",
        "1.1",
        &["write HTTP/1.1 200 OK\\nContent-Length: 5\\n\\nhello"],
        "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        Open,
    ),
    (
        "GET",
        "1.1",
        &[
            "write HTTP/1.1 20",
            "write 0 OK\\r\\nContent-Len",
            "printf gth: 5\\r",
            "write \\n\\r",
            "write \\nhe",
            "write llo",
        ],
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        Open,
    ),
    (
        "GET",
        "1.1",
        &["write HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n"],
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        Open,
    ),
    (
        "GET",
        "1.1",
        &["write HTTP/1.1 404 Not Found\\r\\nContent-Length: 2\\r\\n\\r\\nno"],
        "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
        Open,
    ),
    (
        "GET",
        "1.1",
        &["write HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\nConnection: close\\r\\n\\r\\nhello"],
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        Closed,
    ),
    // What exceeds the length is not sent.
    (
        "GET",
        "1.1",
        &["write HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi and more", "write more"],
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        Open,
    ),
    // Delimited by chunks.
    (
        "GET",
        "1.1",
        &[
            "write HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n",
            "write 5\\r\\nhello\\r\\n",
            "write 0\\r\\n\\r\\n",
        ],
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Open,
    ),
    (
        "GET",
        "1.1",
        &[
            "write HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n5",
            "write ;x\\r\\nhel",
            "write lo\\r\\n0\\r\\nT: t\\r\\n",
            "write \\r\\n",
        ],
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nT: t\r\n\r\n",
        Open,
    ),
    // Delimited by nothing but the end.
    (
        "GET",
        "1.1",
        &["write HTTP/1.1 200 OK\\r\\n\\r\\nhello"],
        "HTTP/1.1 200 OK\r\n\r\nhello",
        Closed,
    ),
    (
        "GET",
        "1.1",
        &["write HTTP/1.0 200 OK\\r\\n\\r\\nhello"],
        "HTTP/1.0 200 OK\r\n\r\nhello",
        Closed,
    ),
    (
        "GET",
        "1.1",
        &["write HTTP/1.0 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello"],
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        Closed,
    ),
    ("POST", "1.1", &["write HTTP/1.1 200 OK\\r\\n\\r\\n"], "HTTP/1.1 200 OK\r\n\r\n", Closed),
    ("GET", "1.1", &["write hello"], "hello", Closed),
    ("GET", "1.1", &["write HT"], "HT", Closed),
    (
        "GET",
        "1.1",
        &["write HTTP/1.1 200 OK\\r\\nA: b\\r\\n"],
        "HTTP/1.1 200 OK\r\nA: b\r\n",
        Closed,
    ),
    // Without a body by definition.
    (
        "GET",
        "1.1",
        &["write HTTP/1.1 204 No Content\\r\\n\\r\\n"],
        "HTTP/1.1 204 No Content\r\n\r\n",
        Open,
    ),
    (
        "GET",
        "1.1",
        &["write HTTP/1.1 204 No Content\\r\\n\\r\\nbody"],
        "HTTP/1.1 204 No Content\r\n\r\n",
        Open,
    ),
    (
        "GET",
        "1.1",
        &["write HTTP/1.1 304 Not Modified\\r\\nContent-Length: 5\\r\\n\\r\\n", "write hello"],
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        Open,
    ),
    (
        "HEAD",
        "1.1",
        &["write HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\n"],
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        Open,
    ),
    (
        "HEAD",
        "1.1",
        &["write HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhel", "write lo"],
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        Open,
    ),
    // An interim head before the final one.
    (
        "GET",
        "1.1",
        &[
            "write HTTP/1.1 103 Early Hints\\r\\nLink: </a.css>\\r\\n\\r\\n",
            "write HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi",
        ],
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        Open,
    ),
    // Clients would find another end than the library, or none: the connection has no other answer.
    (
        "GET",
        "1.1",
        &["write HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n 0\\r\\n\\r\\nhello"],
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n 0\r\n\r\nhello",
        Closed,
    ),
    (
        "GET",
        "1.1",
        &[
            "write HTTP/1.1 200 OK\\r\\nA: b\\rContent-Length: 1\\r\\nContent-Length: 5\\r\\n\\r\\nhello",
        ],
        "HTTP/1.1 200 OK\r\nA: b\rContent-Length: 1\r\nContent-Length: 5\r\n\r\nhello",
        Closed,
    ),
    (
        "GET",
        "1.1",
        &["write HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\nContent-Length: 5\\r\\n\\r\\nhello"],
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        Closed,
    ),
    (
        "GET",
        "1.1",
        &[
            "write HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n",
            "write 0\\r\\n\\r\\n",
        ],
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Closed,
    ),
    (
        "GET",
        "1.1",
        &["write HTTP/1.1 2000 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello"],
        "HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello",
        Closed,
    ),
    (
        "GET",
        "1.1",
        &["write HTTP/1.1 204 No Content\\r\\nA b\\r\\n\\r\\n"],
        "HTTP/1.1 204 No Content\r\nA b\r\n\r\n",
        Closed,
    ),
    (
        "GET",
        "1.1",
        &[
            "write HTTP/1.1 103 Early Hints\\r\\nA: b\\r\\n c\\r\\n\\r\\n",
            "write HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi",
        ],
        "HTTP/1.1 103 Early Hints\r\nA: b\r\n c\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        Closed,
    ),
    // The request's own wishes.
    (
        "GET",
        "1.0",
        &["write HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello"],
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        Closed,
    ),
];

const MARK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nalive";

/// The connection serves another request, or has ended, as `after` says.
#[track_caller]
fn expect_after(client: &mut Client, after: After) {
    match after {
        Open => {
            client.send("GET /alive HTTP/1.1\r\n\r\n").expect(MARK);
        }
        Closed => client.expect_closed(),
    }
}

#[test]
fn the_bytes_of_a_handler_leave_as_they_are_and_decide_about_the_connection() {
    let server = Server::start(&[]);
    for_each(
        FRAMING,
        |(method, version, steps, ..)| format!("{method} HTTP/{version} {steps:?}"),
        |(method, version, steps, wire, after)| {
            let mut client = server.client();
            client.send(request(method, version, steps)).expect(wire);
            expect_after(&mut client, *after);
        },
    );
    server.stop();
}

/// All that a case of the table writes, as one text of which each character stands for a byte.
fn written(steps: &[&str]) -> String {
    let texts = steps.iter().filter_map(|step| step.split_once(' '));
    let text: String = texts.map(|(_, text)| text).collect();
    text.replace("\\r", "\r").replace("\\n", "\n")
}

/// The text as an argument of a step; spaces at its ends would be taken for the field's own.
fn escaped(text: &str) -> String {
    text.replace('\r', "\\r").replace('\n', "\\n").replace(' ', "\\x20")
}

#[test]
fn an_answer_written_in_pieces_leaves_as_if_written_at_once() {
    let server = Server::start(&[]);
    for_each(
        FRAMING,
        |(method, version, steps, ..)| format!("{method} HTTP/{version} {steps:?}"),
        |(method, version, steps, wire, after)| {
            let text = written(steps);
            let halves = (1..text.len()).map(|at| {
                let (left, right) = text.split_at(at);
                [format!("write {}", escaped(left)), format!("write {}", escaped(right))]
            });
            let mut client = server.client();
            for [left, right] in halves {
                client.send(request(method, version, &[&left, &right])).expect(wire);
                expect_after(&mut client, *after);
                if *after == Closed {
                    client = server.client();
                }
            }
            let bytewise = format!("bytewise {}", escaped(&text));
            client.send(request(method, version, &[&bytewise])).expect(wire);
            expect_after(&mut client, *after);
        },
    );
    server.stop();
}

#[test]
fn an_answer_written_later_in_pieces_leaves_as_if_written_at_once() {
    let mut server = Server::start(&[]);
    // An answer without an end of its own would stay open here.
    let delimited = FRAMING.iter().filter(|case| case.0 == "GET" && case.4 == Open);
    for (number, (_, _, steps, wire, _)) in delimited.enumerate() {
        let mut client = server.client();
        for (verb, key) in [("bytewise", format!("b{number}")), ("write", format!("w{number}"))] {
            client.send(request("GET", "1.1", &[&format!("keep {key}")]));
            server.late(&key, &format!("{verb} {}", escaped(&written(steps))));
            client.expect(wire);
            expect_after(&mut client, Open);
        }
    }
    server.stop();
}

#[test]
fn bytes_that_are_not_sent_count_as_written_and_are_logged() {
    let scratch = crate::support::Scratch::new();
    let log = format!("error_log_file={}", scratch.join("errors"));
    let mut server = Server::start(&[&log]);
    let mut client = server.client();
    let head = "write HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi";
    client.send(request("GET", "1.1", &[head, "write more", "report wrote"]));
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    server.expect_line("wrote 4");
    expect_after(&mut client, Open);
    server.stop();
    assert_eq!(scratch.read("errors").lines().count(), 1, "{}", scratch.read("errors"));
}

#[test]
fn a_write_returns_its_length() {
    let mut server = Server::start(&[]);
    let head = "write HTTP/1.1 200 OK\\r\\nContent-Length: 7\\r\\n\\r\\n";
    let steps = [head, "report head", "write abc", "report w", "printf defg", "report p", "write "];
    let mut client = server.client();
    client.send(request("GET", "1.1", &steps));
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nabcdefg");
    server.expect_line("head 38");
    server.expect_line("w 3");
    server.expect_line("p 4");
    server.stop();
}

#[test]
fn a_large_answer_arrives_whole_at_a_client_that_reads_late() {
    let server = Server::start(&[]);
    let len = 30_000_000;
    let head = format!("write HTTP/1.1 200 OK\\r\\nContent-Length: {len}\\r\\n\\r\\n");
    let fill = format!("write_fill {} x", len / 2);
    let mut client = server.client();
    client.send(request("GET", "1.1", &[&head, &fill, &fill]));
    server.ask("GET /alive HTTP/1.1\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.body.len(), len);
    assert!(answer.body.iter().all(|byte| *byte == b'x'));
    expect_after(&mut client, Open);
    server.stop();
}

#[test]
fn the_client_sees_the_whole_answer_before_a_close_although_it_sent_more_than_was_read() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let steps = ["write HTTP/1.0 200 OK\\r\\n\\r\\n", "write_fill 300000 x"];
    // In one piece: what a client sends behind the end of a connection resets it, and takes the answer along.
    let more = "GET /never HTTP/1.1\r\n\r\n".repeat(2000);
    client.try_send(request("GET", "1.1", &steps) + &more);
    let bytes = client.take(19 + 300_000);
    assert_eq!(bytes.len(), 19 + 300_000);
    server.stop();
}

// Silence, and answers that come later.

#[test]
fn a_silent_handler_keeps_a_get_open_and_closes_anything_else() {
    let mut server = Server::start(&["--handler=/silent=silent"]);
    let closing = [
        "POST /silent HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "PUT /silent HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi",
        "HEAD /silent HTTP/1.1\r\n\r\n",
        "GET /silent HTTP/1.0\r\n\r\n",
        "GET /silent HTTP/1.1\r\nConnection: close\r\n\r\n",
    ];
    for request in closing {
        server.client().send(request).expect_closed();
    }
    let mut client = server.client();
    client.send(request("GET", "1.1", &["keep a", "say called"]));
    server.expect_line("called");
    server.tell("late a write HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi");
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    expect_after(&mut client, Open);
    server.stop();
}

#[test]
fn the_option_deferred_answers_keeps_every_silent_request_open() {
    let mut server = Server::start(&["deferred_answers=all"]);
    for (key, method) in [("a", "POST"), ("b", "PUT"), ("c", "GET")] {
        let mut client = server.client();
        client.send(request(method, "1.1", &[&format!("keep {key}"), "say called"]));
        server.expect_line("called");
        server.tell(&format!("late {key} write HTTP/1.1 204 No Content\\r\\n\\r\\n"));
        client.expect("HTTP/1.1 204 No Content\r\n\r\n");
        expect_after(&mut client, Open);
    }
    server.stop();
}

#[test]
fn pipelined_requests_wait_for_a_deferred_answer() {
    let mut server = Server::start(&["--trace"]);
    let mut client = server.client();
    let first = request("GET", "1.1", &["keep a"]);
    let second = "GET /do/second HTTP/1.1\r\nDo: data two\r\n\r\n";
    client.send(format!("{first}{second}"));
    server.expect_line("CALL GET /do");
    server.tell("late a strings now");
    server.expect_line("now method=GET uri=/do query=NULL headers=1");
    server.tell("late a write HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\n");
    server.tell("late a write one");
    assert_eq!(client.response().text(), "one");
    assert_eq!(client.response().text(), "two");
    server.expect_line("CALL GET /do/second");
    server.stop();
}

#[test]
fn a_request_stays_readable_until_its_deferred_answer_is_complete() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    client.send("GET /do/x?q=1 HTTP/1.1\r\nDo: keep a\r\nDo: say called\r\nA: b\r\n\r\n");
    server.expect_line("called");
    // Other requests come and go through the same buffers meanwhile.
    for _ in 0..5 {
        server.ask("GET /echo/other?other HTTP/1.1\r\nOther: other\r\n\r\n");
    }
    server.tell("io late a strings before");
    server.expect_line("before method=GET uri=/do/x query=q=1 headers=3");
    server.tell("io late a write HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nh");
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh");
    server.tell("io late a strings during");
    server.expect_line("during method=GET uri=/do/x query=q=1 headers=3");
    server.tell("io late a write i");
    client.expect("i");
    server.tell("io late a strings after");
    server.expect_line("after method= uri= query=NULL headers=0");
    server.stop();
}

#[test]
fn a_second_answer_to_the_same_request_is_refused() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    client.send(request("GET", "1.1", &["keep a", "say called"]));
    server.expect_line("called");
    let answer = "late a write HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi";
    server.tell(&format!("io {answer}"));
    server.expect_line(&format!("{answer}: 40"));
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    server.tell(&format!("io {answer}"));
    server.expect_line(&format!("{answer}: 0"));
    expect_after(&mut client, Open);
    server.stop();
}

#[test]
fn bytes_written_while_no_request_is_open_are_refused() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    let answer = "write HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi";
    client.send(request("GET", "1.1", &["keep a", answer]));
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    server.tell("io late a write stray");
    server.expect_line("late a write stray: 0");
    expect_after(&mut client, Open);
    server.stop();
}

/// What is left open by a handler, the bytes so far, and how it is completed.
const CONTINUED: &[(&[&str], &str, &str, &str)] = &[
    (
        &["write HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhe"],
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",
        "write llo",
        "llo",
    ),
    (
        &["write HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n2\\r\\nhe\\r\\n"],
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
        "write 3\\r\\nllo\\r\\n0\\r\\n\\r\\n",
        "3\r\nllo\r\n0\r\n\r\n",
    ),
];

#[test]
fn a_delimited_answer_that_is_not_complete_is_continued_later() {
    let mut server = Server::start(&[]);
    for method in ["GET", "POST"] {
        for (steps, so_far, late, rest) in CONTINUED {
            let mut client = server.client();
            let mut all = vec!["keep a"];
            all.extend(*steps);
            client.send(request(method, "1.1", &all)).send("GET /alive HTTP/1.1\r\n\r\n");
            client.expect(so_far);
            server.tell(&format!("late a {late}"));
            client.expect(rest).expect(MARK);
            expect_after(&mut client, Open);
        }
    }
    server.stop();
}

#[test]
fn event_streams_stay_open_until_the_client_leaves() {
    let mut server = Server::start(&[]);
    let heads = [
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type:Multipart/X-Mixed-Replace; boundary=b\r\n\r\n",
    ];
    for head in heads {
        let mut client = server.client();
        let write = format!("write {}", head.replace('\r', "\\r").replace('\n', "\\n"));
        client.send(request("GET", "1.1", &["keep a", &write])).expect(head);
        for number in 1..=3 {
            server.tell(&format!("late a write data: {number}\\n\\n"));
            client.expect(format!("data: {number}\n\n"));
        }
        drop(client);
        // The end is noticed by the next turn of the loop; a write then returns 0 some time.
        until("the client's leaving is noticed", || {
            server.late("a", "write data: late\\n\\n") == 0
        });
    }
    server.stop();
}

#[test]
fn an_unframed_answer_begun_later_goes_on_until_the_client_leaves() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    client.send(request("GET", "1.1", &["keep a", "say called"]));
    server.expect_line("called");
    server.tell("late a write HTTP/1.1 200 OK\\r\\n\\r\\nhe");
    client.expect("HTTP/1.1 200 OK\r\n\r\nhe");
    server.tell("late a write llo");
    client.expect("llo");
    drop(client);
    until("the client's leaving is noticed", || server.late("a", "write more") == 0);
    server.stop();
}

#[test]
fn a_client_that_has_shut_its_sending_side_still_gets_a_deferred_answer() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    client.send(request("GET", "1.1", &["keep a"]));
    client.send("GET /alive HTTP/1.1\r\n\r\n").finish_sending();
    // The server has met the end of the requests when it serves somebody who came later.
    for _ in 0..3 {
        server.ask("GET /alive HTTP/1.1\r\n\r\n");
    }
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    server.late("a", "write HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi");
    client.expect(answer).expect(MARK).expect_closed();
    server.stop();
}

#[test]
fn a_client_that_has_shut_its_sending_side_still_gets_its_events() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    let stream = "write HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\n\\r\\n";
    client.send(request("GET", "1.1", &["keep a", stream]));
    client.finish_sending();
    client.expect("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
    for _ in 0..3 {
        server.ask("GET /alive HTTP/1.1\r\n\r\n");
        assert_eq!(server.late("a", "write data: x\\n\\n"), 9);
        client.expect("data: x\n\n");
    }
    server.stop();
}

#[test]
fn an_http_1_0_client_that_keeps_its_connection_may_wait_for_a_deferred_answer() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    client.send("GET /do HTTP/1.0\r\nConnection: keep-alive\r\nDo: keep a\r\n\r\n");
    let fields = "Connection: keep-alive\\r\\nContent-Length: 2\\r\\n";
    server.late("a", &format!("write HTTP/1.1 200 OK\\r\\n{fields}\\r\\nhi"));
    client.expect("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi");
    expect_after(&mut client, Open);
    server.stop();
}

#[test]
fn a_handler_may_write_to_other_connections_than_its_own() {
    let mut server = Server::start(&["--step"]);
    let stream = "write HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\n\\r\\n";
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let [mut one, mut two, mut sender] = [(); 3].map(|()| server.accepted());
    one.send_through(request("GET", "1.1", &["keep one", stream]));
    two.send_through(request("GET", "1.1", &["keep two"]));
    server.poll(2);
    one.expect(head);
    let answer = "to two write HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello";
    sender.send_through(request(
        "GET",
        "1.1",
        &["to one write data: x\\n\\n", answer, "data sent"],
    ));
    server.poll(1);
    // All three left in that one turn.
    one.expect("data: x\n\n");
    two.expect("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(sender.response().text(), "sent");
    server.tell("run");
    expect_after(&mut two, Open);
    server.stop();
}
