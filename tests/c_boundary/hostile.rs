//! Garbage, half requests, clients that disappear: the server goes on.

use crate::support::{Server, as_many_as, request, shown};

/// Bytes that are no request, or an odd one. What comes back matters less than what follows.
const GARBAGE: &[&[u8]] = &[
    b"",
    b"\0",
    b"\r\n",
    b"\n\n\n\n",
    b"GET",
    b"GET \r\n\r\n",
    b"GET /alive\r\n\r\n",
    b"GET /alive \r\n\r\n",
    b"GET  /alive  HTTP/1.1\r\n\r\n",
    b"GET /alive HTTP/1.1 \r\n\r\n",
    b"GET /alive HTTP/1.1\r\r\n\r\n",
    b"GET /alive HTTP/1.\r\n\r\n",
    b"GET /alive HTTP/11\r\n\r\n",
    b"GET /alive http/1.1\r\n\r\n",
    b"GET %2falive HTTP/1.1\r\n\r\n",
    b"GET ? HTTP/1.1\r\n\r\n",
    b"GET # HTTP/1.1\r\n\r\n",
    b"GET //// HTTP/1.1\r\n\r\n",
    b"GET http:// HTTP/1.1\r\n\r\n",
    b"GET http:///alive HTTP/1.1\r\n\r\n",
    b"GET ://alive HTTP/1.1\r\n\r\n",
    b"CONNECT h:80 HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x80\x2e\x01\x00\x02",
    b"\xff\xfe\xfd\xfc\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nA: \xff\r\n\r\n",
    b"GET /alive HTTP/1.1\r\n: \r\n\r\n",
    b"GET /alive HTTP/1.1\r\n:\r\n:\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nContent-Length: 9223372036854775807\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nContent-Length: 2147483648\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nContent-Length: -2147483649\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n",
    b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n80000000\r\n",
    b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n;\r\n",
    b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n: x\r\n\r\n",
    b"GET /alive HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"GET /alive HTTP/1.1\r\nRange: bytes=0-0,1-1,2-2\r\n\r\n",
    b"GET /none HTTP/1.1\r\nAuthorization: Digest\r\n\r\n",
    b"GET /vars?a=%&b=%%%&c=&d HTTP/1.1\r\n\r\n",
];

#[test]
fn garbage_gets_a_defined_answer_or_the_end() {
    let server = Server::start(&[]);
    let long_line = [b"GET /", "x".repeat(100_000).as_bytes()].concat();
    let many_spaces = b" ".repeat(100_000);
    let many_lines = b"\r\n".repeat(100_000);
    let many_fields = [b"GET / HTTP/1.1\r\n", &b"A: b\r\n".repeat(50_000)[..]].concat();
    let long_extension = [GARBAGE[35], &b"x".repeat(300_000)[..]].concat();
    let long = [long_line, many_spaces, many_lines, many_fields, long_extension];
    for bytes in GARBAGE.iter().copied().chain(long.iter().map(Vec::as_slice)) {
        let mut client = server.client();
        client.try_send(bytes);
        client.finish_sending();
        let answer = client.rest_or_reset();
        let start = shown(&bytes[..bytes.len().min(100)]);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "), "{start}");
    }
    server.stop();
}

#[test]
fn random_bytes_get_a_defined_answer_or_the_end() {
    let server = Server::start(&[]);
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let base = b"POST /echo?a=b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: \
                 keep-alive\r\n\r\n5\r\nhello\r\n0\r\nT: t\r\n\r\n";
    for _ in 0..as_many_as(1000, 60) {
        let mut bytes = base.to_vec();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes.insert(at, b"\r\n\0 :;\t%"[random(8)]),
                _ => drop(bytes.remove(at)),
            }
        }
        let mut client = server.client();
        client.try_send(&bytes);
        client.finish_sending();
        let answer = client.rest_or_reset();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "), "{}", shown(&bytes));
    }
    server.stop();
}

#[test]
fn a_client_may_disappear_at_any_byte() {
    let server = Server::start(&[]);
    let requests = [
        "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            .to_owned(),
        request("GET", "1.1", &["data_fill 100000 x"]),
        request("GET", "1.1", &[]),
        "GET /none HTTP/1.1\r\n\r\nGET /none HTTP/1.1\r\n\r\n".to_owned(),
    ];
    for request in requests {
        for len in 0..=request.len() {
            for is_reset in [false, true] {
                let mut client = server.client();
                client.send(&request[..len]);
                if is_reset { client.reset() } else { drop(client) }
            }
        }
        assert_eq!(server.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    }
    server.stop();
}

#[test]
fn a_client_may_disappear_in_the_middle_of_a_large_answer() {
    let server = Server::start(&[]);
    for received in [0, 1, 100, 100_000] {
        for is_reset in [false, true] {
            let mut client = server.client();
            client.send(request("GET", "1.1", &["data_fill 20000000 x"]));
            client.take(received);
            if is_reset { client.reset() } else { drop(client) }
        }
    }
    server.stop();
}

#[test]
fn a_thousand_connections_at_once_are_served() {
    let count = as_many_as(1000, 100);
    let server = Server::start(&[]);
    let mut clients: Vec<_> = (0..count).map(|_| server.client()).collect();
    for round in 1..=3 {
        for client in &mut clients {
            client.send("GET /count HTTP/1.1\r\n\r\n");
        }
        for client in &mut clients {
            assert_eq!(client.response().text(), round.to_string());
        }
    }
    server.stop();
}
