//! Connections that stay open: when they do, in which order answers leave, and what one request
//! leaves behind for the next.

use crate::support::{Server, exchange, for_each, request};

const HI: &[&str] = &["data hi"];

#[test]
fn every_method_leaves_the_connection_open() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for round in 1..=2 {
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "BREW"] {
            assert_eq!(client.ask(request(method, "1.1", HI)).text(), "hi", "{method} {round}");
        }
        let body = "POST /echo HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        assert!(client.ask(body).text().ends_with("content_len=3\nabc"));
    }
    server.stop();
}

/// Version and fields of the request, and whether the connection stays open after it.
const PERSISTENCE: &[(&str, &str, bool)] = &[
    ("1.1", "", true),
    ("1.1", "Connection: keep-alive\r\n", true),
    ("1.1", "Connection: close\r\n", false),
    ("1.1", "connection: CLOSE\r\n", false),
    ("1.1", "Connection: foo, close\r\n", false),
    ("1.1", "Connection: foo\r\nConnection: close\r\n", false),
    ("1.1", "Connection: closed\r\n", true),
    ("1.1", "Connection: keep-alive, close\r\n", false),
    ("1.0", "", false),
    ("1.0", "Connection: keep-alive\r\n", true),
    ("1.0", "Connection: Keep-Alive\r\n", true),
    ("1.0", "Connection: foo, keep-alive\r\n", true),
    ("1.0", "Connection: close\r\n", false),
];

/// Has the handler answer so that a client of either version may go on.
const KEPT: &str = "Do: write HTTP/1.1 200 OK\\r\\nConnection: keep-alive\\r\\nContent-Length: 2\\r\\n\\r\\nhi\r\n";

#[test]
fn the_request_decides_whether_the_connection_stays_open() {
    let server = Server::start(&[]);
    for_each(
        PERSISTENCE,
        |(version, fields, _)| format!("HTTP/{version} {fields:?}"),
        |(version, fields, stays)| {
            let mut client = server.client();
            let answer = client.ask(format!("GET /do HTTP/{version}\r\n{fields}{KEPT}\r\n"));
            assert_eq!(answer.text(), "hi");
            if *stays {
                assert_eq!(client.ask("GET /count HTTP/1.1\r\n\r\n").text(), "1");
            } else {
                client.expect_closed();
            }
        },
    );
    server.stop();
}

#[test]
fn an_http_1_0_client_keeps_its_connection_only_for_an_answer_with_a_length() {
    let server = Server::start(&[]);
    let keep = "Connection: keep-alive\r\n";
    let mut client = server.client();
    assert_eq!(client.ask(format!("GET /do HTTP/1.0\r\n{keep}{KEPT}\r\n")).text(), "hi");
    let data = "Do: data there\r\n";
    let answer = client.ask(format!("GET /do HTTP/1.0\r\n{keep}{data}\r\n"));
    assert_eq!(answer.field("Transfer-Encoding"), None);
    assert_eq!(answer.text(), "there");
    client.expect_closed();
    server.stop();
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.send(
        "GET /count HTTP/1.1\r\n\r\n\
         POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nfirst\
         GET /none HTTP/1.1\r\n\r\n\
         HEAD /none HTTP/1.1\r\n\r\n\
         \r\nPOST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\nT: t\r\n\r\n\
         GET /count HTTP/1.1\r\nConnection: close\r\n\r\n\
         GET /count HTTP/1.1\r\n\r\n",
    );
    assert_eq!(client.response().text(), "1");
    assert!(client.response().text().ends_with("\nfirst"));
    assert_eq!(client.response().status, 404);
    assert_eq!(client.response_without_body().status, 404);
    assert!(client.response().text().ends_with("\nsecond"));
    assert_eq!(client.response().text(), "2");
    client.expect_closed();
    server.stop();
}

#[test]
fn a_thousand_pipelined_requests_get_a_thousand_answers() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.send("GET /count HTTP/1.1\r\n\r\n".repeat(1000));
    for number in 1..=1000 {
        assert_eq!(client.response().text(), number.to_string());
    }
    server.stop();
}

#[test]
fn large_answers_to_pipelined_requests_do_not_mix() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let letters = ["a", "b", "c", "d", "e", "f"];
    for letter in letters {
        let fill = format!("data_fill 2000000 {letter}");
        client.send(request("GET", "1.1", &[&fill]));
    }
    for letter in letters {
        assert!(client.response().text() == letter.repeat(2_000_000), "answer {letter}");
    }
    server.stop();
}

#[test]
fn a_client_that_has_shut_its_sending_side_gets_all_its_answers() {
    let server = Server::start(&[]);
    let requests = format!(
        "{}{}{}",
        request("GET", "1.1", &["data_fill 300000 a"]),
        request("POST", "1.1", HI),
        "GET /alive HTTP/1.1\r\n\r\n"
    );
    let answers = exchange(server.port, requests);
    let text = String::from_utf8_lossy(&answers);
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 3);
    assert_eq!(text.matches('a').count() > 300_000, text.ends_with("alive"));
    server.stop();
}

#[test]
fn a_client_that_shuts_its_sending_side_inside_a_request_gets_no_handler_called() {
    let mut server = Server::start(&["--trace"]);
    for half in [
        "POST /do HTTP/1.1\r\nContent-Length: 5\r\n\r\nhell",
        "POST /do HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "GET /do HTTP/1.1\r\n",
    ] {
        exchange(server.port, half);
    }
    server.ask("GET /do/last HTTP/1.1\r\nDo: data x\r\n\r\n");
    server.expect_line("CALL GET /do/last");
    assert_eq!(server.program.unclaimed_lines(), [""; 0]);
    server.stop();
}

#[test]
fn what_a_handler_writes_into_its_content_does_not_disturb_the_next_request() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.send(
        "POST /do HTTP/1.1\r\nDo: spoil\r\nDo: data a\r\nContent-Length: 5\r\n\r\nhello\
         POST /do HTTP/1.1\r\nDo: spoil\r\nDo: data b\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\n\r\n\
         POST /do HTTP/1.1\r\nDo: spoil\r\nDo: data c\r\nContent-Length: 0\r\n\r\n\
         GET /do HTTP/1.1\r\nDo: spoil\r\nDo: data d\r\n\r\n\
         POST /echo HTTP/1.1\r\nContent-Length: 3\r\n\r\nend",
    );
    for wanted in ["a", "b", "c", "d"] {
        assert_eq!(client.response().text(), wanted);
    }
    assert!(client.response().text().ends_with("content_len=3\nend"));
    server.stop();
}

#[test]
fn the_programs_own_pointer_stays_with_its_connection_and_with_no_other() {
    let server = Server::start(&[]);
    let (mut one, mut two) = (server.client(), server.client());
    let count = "GET /count HTTP/1.1\r\n\r\n";
    assert_eq!(one.ask(count).text(), "1");
    assert_eq!(one.ask(count).text(), "2");
    assert_eq!(two.ask(count).text(), "1");
    assert!(one.ask("GET /echo HTTP/1.1\r\n\r\n").text().contains("param=1"));
    drop(one);
    for _ in 0..20 {
        assert_eq!(server.ask(count).text(), "1", "a new connection begins with NULL");
    }
    assert_eq!(two.ask(count).text(), "2");
    server.stop();
}

#[test]
fn the_status_code_of_one_call_is_forgotten_in_the_next() {
    let server = Server::start(&[]);
    let mut client = server.client();
    assert_eq!(client.ask(request("GET", "1.1", &["status 418", "data x"])).status, 418);
    assert!(client.ask("GET /echo HTTP/1.1\r\n\r\n").text().contains("status=0"));
    server.stop();
}

#[test]
fn the_body_of_a_request_that_nobody_handles_is_not_taken_for_a_request() {
    let scratch = crate::support::Scratch::new();
    scratch.write("a.txt", "file");
    let root = format!("document_root={}", scratch.join(""));
    let server = Server::start(&[&root]);
    let hidden = "GET /count HTTP/1.1\r\n\r\n".repeat(3);
    let framed = [
        format!("Content-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len()),
    ];
    for body in framed {
        for (method, target, status) in
            [("POST", "/none", 404), ("POST", "/a.txt", 200), ("BREW", "/a.txt", 405)]
        {
            let mut client = server.client();
            client.send(format!("{method} {target} HTTP/1.1\r\n{body}"));
            client.send("GET /count HTTP/1.1\r\nConnection: close\r\n\r\n");
            let first = client.response();
            assert_eq!(first.status, status, "{method} {target}");
            if first.field("Connection") != Some("close") {
                assert_eq!(client.response().text(), "1", "{method} {target}");
            }
            client.expect_closed();
        }
    }
    server.stop();
}
