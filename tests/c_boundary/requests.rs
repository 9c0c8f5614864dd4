//! Requests: what a handler sees of them, which are refused, and that it makes no difference in
//! how many pieces they arrive.

use crate::support::{Server, as_many_as, exchange, for_each, shown};

/// Head, and what `/echo` must tell about it.
const SEEN: &[(&str, &[&str])] = &[
    (
        "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n",
        &[
            "method=GET\nuri=/echo\nversion=1.1\nquery=NULL\nip=127.0.0.1\nheaders=1\nHost: a\n",
            "websocket=0 status=0 wsbits=0 param=0\n",
            "terminated=1 content_len=0\n",
        ],
    ),
    ("GET /echo HTTP/1.1\r\n\r\n", &["version=1.1\n", "headers=0\n"]),
    ("GET /echo HTTP/1.0\r\n\r\n", &["version=1.0\n"]),
    ("GET /echo? HTTP/1.1\r\n\r\n", &["uri=/echo\n", "query=\n"]),
    ("GET /echo?a=%20+b?c HTTP/1.1\r\n\r\n", &["uri=/echo\n", "query=a=%20+b?c\n"]),
    ("GET /echo/a%20b%2Fc+d HTTP/1.1\r\n\r\n", &["uri=/echo/a b/c+d\n"]),
    ("GET /%65%63%68%6F HTTP/1.1\r\n\r\n", &["uri=/echo\n"]),
    ("GET /echo/%c3%a9 HTTP/1.1\r\n\r\n", &["uri=/echo/\u{e9}\n"]),
    ("GET //echo///x HTTP/1.1\r\n\r\n", &["uri=/echo/x\n"]),
    ("GET /./echo/./x HTTP/1.1\r\n\r\n", &["uri=/echo/x\n"]),
    ("GET /a/../echo HTTP/1.1\r\n\r\n", &["uri=/echo\n"]),
    ("GET /../../echo HTTP/1.1\r\n\r\n", &["uri=/echo\n"]),
    ("GET /a/%2e%2e/%2E./echo HTTP/1.1\r\n\r\n", &["uri=/echo\n"]),
    ("GET /echo/...x/..y HTTP/1.1\r\n\r\n", &["uri=/echo/...x/..y\n"]),
    // The authority of the target takes the place of Host.
    (
        "GET http://example.com:80/echo?q HTTP/1.1\r\nA: b\r\nHost: b\r\n\r\n",
        &["uri=/echo\n", "query=q\n", "headers=2\nA: b\nHost: example.com:80\nwebsocket"],
    ),
    (
        "GET HTTPS://[::1]/%65cho/.#f?x HTTP/1.1\r\nhost: b\r\n\r\n",
        &["uri=/echo/\n", "query=NULL\n", "headers=1\nhost: [::1]\nwebsocket"],
    ),
    (
        "GET http://a/echo HTTP/1.0\r\nA: b\r\n\r\n",
        &["version=1.0\n", "headers=2\nHost: a\nA: b\nwebsocket"],
    ),
    (
        "POST http://a/echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        &["headers=2\nHost: a\nContent-Length: 5\n", "terminated=1 content_len=5\nhello"],
    ),
    // Later versions are served as 1.1.
    ("GET /echo HTTP/1.2\r\n\r\n", &["version=1.1\n"]),
    ("GET /echo HTTP/1.9\r\nA: b\r\n\r\n", &["version=1.1\n", "headers=1\nA: b\n"]),
    // A fragment is cut off.
    ("GET /echo#a HTTP/1.1\r\n\r\n", &["uri=/echo\n", "query=NULL\n"]),
    ("GET /echo/%2e#/../x?y HTTP/1.1\r\n\r\n", &["uri=/echo/\n", "query=NULL\n"]),
    ("GET /echo?a=b#c?d HTTP/1.1\r\n\r\n", &["uri=/echo\n", "query=a=b\n"]),
    ("GET /echo?# HTTP/1.1\r\n\r\n", &["uri=/echo\n", "query=\n"]),
    ("PATCH /echo HTTP/1.1\r\n\r\n", &["method=PATCH\n"]),
    ("M-SEARCH /echo HTTP/1.1\r\n\r\n", &["method=M-SEARCH\n"]),
    ("PROPFIND /echo HTTP/1.1\r\n\r\n", &["method=PROPFIND\n"]),
    ("OPTIONS /echo HTTP/1.1\r\n\r\n", &["method=OPTIONS\n"]),
    ("get /echo HTTP/1.1\r\n\r\n", &["method=get\n"]),
    ("\r\n\r\nGET /echo HTTP/1.1\r\n\r\n", &["method=GET\n"]),
    ("\n  GET /echo HTTP/1.1\r\n\r\n", &["method=GET\n"]),
    ("GET /echo HTTP/1.1\nHost: a\nB: c\n\n", &["headers=2\nHost: a\nB: c\n"]),
    (
        "GET /echo HTTP/1.1\r\nA:b\r\nC:\t d e \t\r\nF:\r\ng: H: i\r\na: j\r\n\r\n",
        &["headers=5\nA: b\nC: d e\nF: \ng: H: i\na: j\n"],
    ),
    (
        "POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        &["method=POST\n", "terminated=1 content_len=5\nhello"],
    ),
    ("PUT /echo HTTP/1.1\r\nContent-Length: 0\r\n\r\n", &["content_len=0\n"]),
    (
        "GET /echo HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi",
        &["method=GET\n", "terminated=1 content_len=2\nhi"],
    ),
    (
        "POST /echo HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        &["content_len=2\nhi"],
    ),
    (
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
        &["terminated=1 content_len=6\nhello!"],
    ),
    (
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
         00C;name=\"value\"\r\nhello\r\n\r\nyou\r\n1;x\r\n.\r\n000\r\nTrailer: t\r\nU: v\r\n\r\n",
        &["headers=1\n", "terminated=1 content_len=13\nhello\r\n\r\nyou."],
    ),
    (
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &["terminated=1 content_len=0\n"],
    ),
];

#[test]
fn the_handler_sees_the_request_as_it_was_sent() {
    let server = Server::start(&[]);
    for_each(
        SEEN,
        |(request, _)| shown(request.as_bytes()),
        |(request, wanted)| {
            let answer = server.ask(request);
            assert_eq!(answer.status, 200, "{}", answer.text());
            for part in *wanted {
                assert!(answer.text().contains(part), "no {part:?} in\n{}", answer.text());
            }
        },
    );
    server.stop();
}

/// Request, and the status of its refusal. The connection is closed after each.
const REFUSED: &[(&str, u16)] = &[
    // Version.
    ("GET /echo HTTP/2.0\r\n\r\n", 505),
    ("GET /echo HTTP/3.1\r\n\r\n", 505),
    ("GET /echo HTTP/1.20\r\n\r\n", 400),
    ("GET /echo HTTP/1.x\r\n\r\n", 400),
    ("GET /echo HTTP/0.9\r\n\r\n", 505),
    // Request line.
    ("GE(T /echo HTTP/1.1\r\n\r\n", 400),
    ("GET /ec\x01ho HTTP/1.1\r\n\r\n", 400),
    ("GET /ec\x7fho HTTP/1.1\r\n\r\n", 400),
    ("GET /echo HTP/1.1\r\n\r\n", 400),
    ("GET echo HTTP/1.1\r\n\r\n", 400),
    ("GET * HTTP/1.1\r\n\r\n", 400),
    ("GET * HTTP/1.0\r\n\r\n", 400),
    ("POST * HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400),
    ("OPTIONS *? HTTP/1.1\r\n\r\n", 400),
    ("GET ftp://a/echo HTTP/1.1\r\n\r\n", 400),
    ("GET ws://a/echo HTTP/1.1\r\n\r\n", 400),
    ("GET http://a@b/echo HTTP/1.1\r\n\r\n", 400),
    ("GET http://a:b/echo HTTP/1.1\r\n\r\n", 400),
    ("GET http://:80/echo HTTP/1.1\r\n\r\n", 400),
    ("GET http://a/echo HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("GET http://a/echo HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("GET /echo#\x01 HTTP/1.1\r\n\r\n", 400),
    ("GET /echo\0 HTTP/1.1\r\n\r\n", 400),
    // Escapes.
    ("GET /echo%00 HTTP/1.1\r\n\r\n", 400),
    ("GET /echo%4 HTTP/1.1\r\n\r\n", 400),
    ("GET /echo% HTTP/1.1\r\n\r\n", 400),
    ("GET /echo%zz HTTP/1.1\r\n\r\n", 400),
    // Host.
    ("GET /echo HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("GET /echo HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("GET /echo HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("GET /echo HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    ("GET /echo HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
    // Fields.
    ("GET /echo HTTP/1.1\r\nno colon\r\n\r\n", 400),
    ("GET /echo HTTP/1.1\r\n: value\r\n\r\n", 400),
    ("GET /echo HTTP/1.1\r\nA : b\r\n\r\n", 400),
    ("GET /echo HTTP/1.1\r\nA\t: b\r\n\r\n", 400),
    ("GET /echo HTTP/1.1\r\nA B: c\r\n\r\n", 400),
    ("GET /echo HTTP/1.1\r\nA(b): c\r\n\r\n", 400),
    ("GET /echo HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
    ("GET /echo HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n", 400),
    ("GET /echo HTTP/1.1\r\n A: b\r\n\r\n", 400),
    ("GET /echo HTTP/1.1\r\nA: b\rc: d\r\n\r\n", 400),
    ("GET /echo HTTP/1.1\r\nA: b\0c\r\n\r\n", 400),
    // Length of the body.
    ("POST /echo HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
    ("POST /echo HTTP/1.1\r\nContent-Length: 5, 6\r\n\r\nhello!", 400),
    ("POST /echo HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\nhello", 400),
    ("POST /echo HTTP/1.1\r\nContent-Length: +5\r\n\r\nhello", 400),
    ("POST /echo HTTP/1.1\r\nContent-Length: -5\r\n\r\nhello", 400),
    ("POST /echo HTTP/1.1\r\nContent-Length: 0x5\r\n\r\nhello", 400),
    ("POST /echo HTTP/1.1\r\nContent-Length: 5 5\r\n\r\nhello", 400),
    ("POST /echo HTTP/1.1\r\nContent-Length:\r\n\r\nhello", 400),
    ("POST /echo HTTP/1.1\r\nContent-Length: 18446744073709551621\r\n\r\nhello", 400),
    ("POST /echo HTTP/1.1\r\nContent-Length : 5\r\n\r\nhello", 400),
    // Transfer codings.
    (
        "POST /echo HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("POST /echo HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    ("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    (
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("POST /echo HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", 400),
    ("POST /echo HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    ("POST /echo HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST /echo HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n", 400),
    ("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    ("POST /echo HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    (
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    ("POST /echo HTTP/1.1\r\nTransfer-Encoding: sdch, chunked\r\n\r\n0\r\n\r\n", 400),
    // Chunks.
    ("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", 400),
    ("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n", 400),
    ("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n", 400),
    ("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nhello\r\n0\r\n\r\n", 400),
    ("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", 400),
    ("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", 400),
    ("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n", 400),
    ("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello", 400),
];

#[test]
fn what_is_no_request_is_refused_and_the_connection_closed() {
    let server = Server::start(&[]);
    for_each(
        REFUSED,
        |(request, _)| shown(request.as_bytes()),
        |(request, status)| {
            let mut client = server.client();
            let answer = client.ask(request);
            assert_eq!(answer.status, *status, "{}", answer.head);
            assert_eq!(answer.field("Connection"), Some("close"), "{}", answer.head);
            client.expect_closed();
        },
    );
    server.stop();
}

#[test]
fn a_request_smuggled_behind_an_ambiguous_one_is_never_served() {
    let server = Server::start(&[]);
    for_each(
        REFUSED,
        |(request, _)| shown(request.as_bytes()),
        |(request, status)| {
            let hidden = "GET /count HTTP/1.1\r\n\r\nGET /count HTTP/1.1\r\n\r\n";
            let answer = exchange(server.port, format!("{request}{hidden}"));
            let text = String::from_utf8_lossy(&answer);
            assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        },
    );
    server.stop();
}

/// An answer without what differs from second to second.
fn without_date(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    text.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
}

/// Sends the pieces so that the server reads each before the next is on its way, then shuts the
/// sending side, and gives all that comes back.
fn in_pieces<'a>(server: &mut Server, pieces: impl Iterator<Item = &'a [u8]>) -> String {
    let mut client = server.client();
    for piece in pieces {
        client.try_send_through(piece);
        server.poll(2);
    }
    client.finish_sending();
    server.tell("run");
    without_date(&client.rest_or_reset())
}

/// Requests for the tests that split: all of the tables, and some with company.
fn to_be_split() -> Vec<Vec<u8>> {
    let refused = REFUSED.iter().map(|(request, _)| *request);
    let alone = SEEN.iter().map(|(request, _)| *request).chain(refused);
    let in_company = [
        "GET /count HTTP/1.1\r\n\r\nGET /count HTTP/1.1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
         POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ndef\r\n0\r\n\r\n\
         GET /count HTTP/1.0\r\n\r\n",
        "GET /none HTTP/1.1\r\n\r\nHEAD /none HTTP/1.1\r\n\r\nGET /alive HTTP/1.1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    ];
    let all = alone.chain(in_company);
    let not_utf8 = [
        &b"GET /echo/\xff\xe9?\x80#\xff HTTP/1.1\r\nA: \xff\r\n\r\n"[..],
        b"GET /none/\xc3\xa9\xe9 HTTP/1.2\r\n\r\nGET /echo/\xff HTTP/1.0\r\n\r\n",
        b"GET /\xff\x7f HTTP/1.1\r\n\r\n",
    ];
    let all = all.map(|request| request.as_bytes()).chain(not_utf8).map(<[u8]>::to_vec);
    // Cheap programs see the whole table; under valgrind every fourth will do.
    if as_many_as(4, 1) == 4 { all.collect() } else { all.step_by(4).collect() }
}

#[test]
fn a_request_split_at_any_byte_gives_the_same_answer() {
    let mut server = Server::start(&["--step"]);
    for request in to_be_split() {
        let whole = in_pieces(&mut server, [&request[..]].into_iter());
        assert!(whole.starts_with("HTTP/1.1 "), "{}: {whole:?}", shown(&request));
        for at in 1..request.len() {
            let (left, right) = request.split_at(at);
            let split = in_pieces(&mut server, [left, right].into_iter());
            // Whether the interim answer is needed depends on what has arrived.
            let split = split.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&split);
            let whole = whole.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&whole);
            assert_eq!(split, whole, "{} | {}", shown(left), shown(right));
        }
    }
    server.tell("run");
    server.stop();
}

#[test]
fn a_request_that_arrives_byte_by_byte_gives_the_same_answer() {
    let mut server = Server::start(&["--step"]);
    for request in to_be_split() {
        let whole = in_pieces(&mut server, [&request[..]].into_iter());
        let bytewise = in_pieces(&mut server, request.chunks(1));
        let bytewise = bytewise.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&bytewise);
        let whole = whole.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&whole);
        assert_eq!(bytewise, whole, "{}", shown(&request));
    }
    server.tell("run");
    server.stop();
}

fn with_fields(count: usize, last: &str) -> String {
    let fields: String = (1..count).map(|n| format!("F{n}: {n}\r\n")).collect();
    format!("GET /echo HTTP/1.1\r\n{fields}{last}\r\n\r\n")
}

#[test]
fn the_first_thirty_fields_are_shown_and_all_are_obeyed() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let answer = client.ask(with_fields(30, "Last: x"));
    assert!(answer.text().contains("headers=30\nF1: 1\n"), "{}", answer.text());
    assert!(answer.text().contains("F29: 29\nLast: x\n"), "{}", answer.text());
    let answer = client.ask(with_fields(31, "Last: x"));
    assert!(answer.text().contains("headers=30\nF1: 1\n"), "{}", answer.text());
    assert!(answer.text().contains("F30: 30\nwebsocket"), "{}", answer.text());
    let answer = client.ask(with_fields(128, "Connection: close"));
    assert_eq!(answer.status, 200);
    client.expect_closed();
    server.stop();
}

#[test]
fn more_than_128_fields_are_refused() {
    let server = Server::start(&[]);
    let mut client = server.client();
    assert_eq!(client.ask(with_fields(128, "Last: x")).status, 200);
    assert_eq!(client.ask(with_fields(129, "Last: x")).status, 431);
    client.expect_closed();
    server.stop();
}

#[test]
fn a_body_arrives_whole_however_large_and_whatever_its_framing() {
    let server = Server::start(&[]);
    let body: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.to_be_bytes()).collect();
    let mut client = server.client();
    let mut plain = format!("POST /echo HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send(&plain);
    let answer = client.ask(&body);
    assert!(answer.body.ends_with(&body), "with Content-Length");
    plain = "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    client.send(&plain);
    for chunk in body.chunks(70_001) {
        client.send(format!("{:x}\r\n", chunk.len())).send(chunk).send("\r\n");
    }
    let answer = client.ask("0\r\n\r\n");
    assert!(answer.body.ends_with(&body), "chunked");
    server.stop();
}

#[test]
fn the_handler_added_last_wins_among_those_whose_prefix_matches() {
    let handlers = ["--handler=/p=first", "--handler=/p/b=second", "--handler=/p/b/c=first"];
    let mut args = handlers.to_vec();
    args.push("--handler=/p/b/c/d=third");
    args.push("--handler=/z/long=first");
    args.push("--handler=/z=second");
    let server = Server::start(&args);
    let cases = [
        ("/p", "first"),
        ("/pbc", "first"),
        ("/p/b", "second"),
        ("/p/b/c", "first"),
        ("/p/b/c/d/e", "third"),
        ("/z/long", "second"),
        ("/%70", "first"),
    ];
    for (uri, wanted) in cases {
        assert_eq!(server.ask(format!("GET {uri} HTTP/1.1\r\n\r\n")).text(), wanted, "{uri}");
    }
    for uri in ["/P", "/", "/b/p"] {
        assert_eq!(server.ask(format!("GET {uri} HTTP/1.1\r\n\r\n")).status, 404, "{uri}");
    }
    server.stop();
}

#[test]
fn a_handler_for_the_root_gets_every_request() {
    let server = Server::start(&["--handler=/=first"]);
    for target in ["/", "/x", "http://h/y", "http://h"] {
        assert_eq!(
            server.ask(format!("GET {target} HTTP/1.1\r\n\r\n")).text(),
            "first",
            "{target}"
        );
    }
    server.ask("GET /alive HTTP/1.1\r\n\r\n");
    server.program.stop();
}

#[test]
fn form_variables_come_from_the_query_then_from_the_body() {
    let server = Server::start(&[]);
    let cases = [
        ("GET /vars?a=1&b=2 HTTP/1.1\r\n\r\n", "a=1:1\nb=1:2\nc=-1:\nd=-1:\n"),
        (
            "POST /vars?a=1 HTTP/1.1\r\nContent-Length: 15\r\n\r\na=2&b=3%2b+%zz&",
            "a=1:1\nb=6:3+ %zz\nc=-1:\nd=-1:\n",
        ),
        (
            "GET /vars?a=123456789012345&b=1234567890123456 HTTP/1.1\r\n\r\n",
            "a=15:123456789012345\nb=-2:123456789012345\nc=-1:\nd=-1:\n",
        ),
        ("GET /vars?A=x HTTP/1.1\r\n\r\n", "a=1:x\nb=-1:\nc=-1:\nd=-1:\n"),
        ("GET /vars HTTP/1.1\r\n\r\n", "a=-1:\nb=-1:\nc=-1:\nd=-1:\n"),
    ];
    for (request, wanted) in cases {
        assert_eq!(server.ask(request).text(), wanted, "{}", shown(request.as_bytes()));
    }
    server.stop();
}

/// Bytes that differ from place to place, without a long period.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn bodies_of_every_critical_size_arrive_whole_one_behind_the_other() {
    let server = Server::start(&[]);
    let sizes = [4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144];
    let around = |size: &usize| (size - 100..=size + 4).step_by(if *size > 9000 { 13 } else { 1 });
    let sizes: Vec<usize> = sizes.iter().flat_map(around).collect();
    for batch in sizes.chunks(8) {
        let mut client = server.client();
        let mut bytes = Vec::new();
        for size in batch {
            let head = format!("POST /echo HTTP/1.1\r\nContent-Length: {size}\r\n\r\n");
            bytes.extend(head.as_bytes());
            bytes.extend(pattern(*size));
            // The next request stands where the terminating NUL is put.
            bytes.extend(
                b"POST /do HTTP/1.1\r\nDo: spoil\r\nDo: data x\r\nContent-Length: 3\r\n\r\nabc",
            );
        }
        bytes.extend(b"GET /alive HTTP/1.1\r\n\r\n");
        client.send(&bytes);
        for size in batch {
            let body = client.response().body;
            let told = format!("terminated=1 content_len={size}\n");
            let (told_part, content) = body.split_at(body.len() - size);
            assert!(told_part.ends_with(told.as_bytes()), "{size}");
            assert!(content == pattern(*size), "{size}");
            assert_eq!(client.response().text(), "x", "{size}");
        }
        assert_eq!(client.response().text(), "alive");
    }
    server.stop();
}

#[test]
fn a_body_of_thousands_of_tiny_chunks_arrives_whole() {
    let server = Server::start(&[]);
    let body = pattern(20_000);
    let mut bytes = b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(3) {
        bytes.extend(format!("{:03X};x=y\r\n", chunk.len()).as_bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    let mut client = server.client();
    for _ in 0..2 {
        assert!(client.ask(&bytes).body.ends_with(&body));
    }
    server.stop();
}
