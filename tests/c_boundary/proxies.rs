//! What a proxy in front tells, byte by byte: the PROXY protocol, and the fields that name clients.
//! `proxy_programs.rs` has real proxies.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use crate::cgi::{serve, shell};
use crate::support::{
    Client, Program, Scratch, Server, WebsocketServer, deadline, for_each, frame, handshake,
    header, request, shown,
};

const TRUSTING: &str = "trusted_proxies=127.0.0.1,10/8";
const PEER: &str = "GET /peer HTTP/1.1\r\nHost: a\r\n\r\n";
const LAST: &str = "GET /peer HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const V1: &[u8] = b"PROXY TCP4 1.2.3.4 127.0.0.1 4321 80\r\n";

/// A header of version 2.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let start = b"\r\n\r\n\0\r\nQUIT\n";
    let len = (body.len() as u16).to_be_bytes();
    [start, &[command, family][..], &len, body].concat()
}

/// A header of version 2 that tells `ip` and port 4660.
fn v2_from(ip: [u8; 4]) -> Vec<u8> {
    v2(0x21, 0x11, &[&ip[..], &[127, 0, 0, 1, 0x12, 0x34, 0, 80]].concat())
}

fn set(server: &mut Server, name: &str, value: &str) {
    server.tell(&format!("io set {name} {value}"));
    server.expect_line(&format!("set {name}: NULL"));
}

/// What a handler sees of the peer, for a request with these fields.
fn peer(client: &mut Client, fields: &str) -> String {
    client.ask(format!("GET /peer HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).text()
}

#[test]
fn a_header_in_front_names_the_client_of_the_connection() {
    let server = Server::start(&[TRUSTING]);
    let v6 = [&[0x20, 1, 0xd, 0xb8], &[0; 11][..], &[1], &[0; 16], &[1, 2, 3, 4]].concat();
    let mapped = b"PROXY TCP6 ::ffff:1.2.3.4 ::1 4321 80\r\n";
    let with_parts = [&[1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0, 9][..], &[4, 0, 2, 9, 9]].concat();
    let table: &[(&[u8], &str)] = &[
        (V1, "1.2.3.4 4321"),
        (b"PROXY TCP6 2001:db8::1 ::1 4321 80\r\n", "2001:db8::1 4321"),
        (mapped, "1.2.3.4 4321"),
        (&v2_from([1, 2, 3, 5]), "1.2.3.5 4660"),
        (&v2(0x21, 0x21, &v6), "2001:db8::1 258"),
        (&v2(0x21, 0x11, &with_parts), "1.2.3.4 9"),
        (&v2(0x21, 0x31, &[b'/'; 216]), "unix: 0"),
        (&v2(0x21, 0x11, &[&[9; 12][..], &[4, 0x0f, 0xd5], &[0; 0xfd5]].concat()), "9.9.9.9 2313"),
    ];
    for (header, expected) in table {
        let mut client = server.client();
        client.send([header, PEER.as_bytes()].concat());
        assert_eq!(client.response().text(), *expected, "{}", shown(header));
        assert_eq!(client.ask(LAST).text(), *expected, "{}", shown(header));
        client.expect_closed();
    }
    server.stop();
}

#[test]
fn a_header_that_names_nobody_leaves_the_peer() {
    let server = Server::start(&[TRUSTING]);
    let table: &[&[u8]] = &[
        b"",
        b"\r\n\r\n",
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN 1.2.3.4 5.6.7.8 1 2\r\n",
        &v2(0x20, 0x00, b""),
        &v2(0x20, 0x11, &[1; 12]),
        &v2(0x21, 0x00, b""),
    ];
    for header in table {
        let mut client = server.client();
        client.send([header, PEER.as_bytes()].concat());
        let own = format!("127.0.0.1 {}", client.local_port());
        assert_eq!(client.response().text(), own, "{}", shown(header));
        // The proxy may name a client all the same.
        assert_eq!(peer(&mut client, "X-Forwarded-For: 1.2.3.4\r\n"), "1.2.3.4 0");
    }
    // What merely begins alike is no header.
    let answer = server.ask("PROPFIND /alive HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer.text(), "alive");
    server.stop();
}

#[test]
fn a_header_may_come_in_any_pieces() {
    let mut server = Server::start(&[TRUSTING, "--step"]);
    for (header, expected) in [(V1, "1.2.3.4 4321"), (&v2_from([1, 2, 3, 5]), "1.2.3.5 4660")] {
        let bytes = [header, LAST.as_bytes()].concat();
        for at in 1..=header.len() + 1 {
            let mut client = server.client();
            client.send_through(&bytes[..at]);
            server.settle();
            client.send(&bytes[at..]);
            let text = client.response().text();
            assert_eq!(text, expected, "{at} of {}", shown(header));
            client.expect_closed();
        }
        let mut client = server.client();
        for byte in &bytes {
            client.send_through([*byte]);
        }
        assert_eq!(client.response().text(), expected, "byte by byte: {}", shown(header));
    }
    server.stop();
}

#[test]
fn a_broken_header_ends_the_connection_and_is_logged() {
    let scratch = Scratch::new();
    let log = format!("error_log_file={}", scratch.join("log"));
    let server = Server::start(&[TRUSTING, &log]);
    let line = "PROXY: the line is malformed";
    let part = "PROXY: a part behind the addresses is malformed";
    let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
    let wrong_sum = [&[1; 12][..], &[3, 0, 4, 1, 2, 3, 4]].concat();
    let table: &[(&[u8], &str)] = &[
        (b"PROXY TCP4 1.2.3.4 127.0.0.1 4321 80\n", line),
        (b"PROXY TCP4 1.2.3.4 127.0.0.1 4321 65536\r\n", line),
        (b"PROXY / HTTP/1.1\r\n", line),
        (&long, "PROXY: the line is too long"),
        (&v2(0x22, 0x11, &[1; 12]), "PROXY: an unknown version or command"),
        (&v2(0x21, 0x11, &[1; 11]), "PROXY: an unknown family, or no room for its addresses"),
        (&v2(0x21, 0x77, &[1; 12]), "PROXY: an unknown family, or no room for its addresses"),
        (&v2(0x21, 0x11, &[1; 14]), part),
        (&v2(0x21, 0x11, &wrong_sum), "PROXY: the checksum is wrong"),
        (&v2(0x20, 0x00, &[0; 5000])[..16], "PROXY: the header is too long"),
    ];
    for (header, expected) in table {
        let before = scratch.read("log").len();
        let mut client = server.client();
        let port = client.local_port();
        client.try_send([header, PEER.as_bytes()].concat());
        let answer = client.rest_or_reset();
        assert!(answer.is_empty(), "{}: {}", shown(header), shown(&answer));
        let told = scratch.read_when("log", |log| log[before..].ends_with('\n'));
        let expected = format!("127.0.0.1:{port} {expected}\n");
        assert!(told.ends_with(&expected), "{}: {told}", shown(header));
    }
    server.stop();
}

#[test]
fn half_a_header_ends_with_the_connection_or_with_the_time_of_a_request() {
    let scratch = Scratch::new();
    let log = format!("error_log_file={}", scratch.join("log"));
    let mut server = Server::start(&[TRUSTING, &log, "request_timeout_ms=300"]);
    for_each(
        [&V1[..20], &v2_from([1; 4])[..14], b"\r\n", b"P"],
        |part| shown(part),
        |part| {
            let mut client = server.client();
            client.send(part);
            assert!(client.rest_or_reset().is_empty());
        },
    );
    let count = |log: &str, what: &str| log.matches(what).count();
    scratch.read_when("log", |log| count(log, "PROXY: the header, or what else") == 4);
    // Those that end before that time has passed.
    server.tell("io set request_timeout_ms 60000");
    server.expect_line("set request_timeout_ms: NULL");
    for_each(
        [&V1[..20], &v2_from([1; 4])[..14]],
        |part| shown(part),
        |part| {
            let mut client = server.client();
            client.send(part).finish_sending();
            assert!(client.rest_or_reset().is_empty());
        },
    );
    let ended = "PROXY: the connection ended within the header";
    let log = scratch.read_when("log", |log| count(log, ended) == 2);
    // A connection that is only opened and closed, as some checks do, is nothing to tell of.
    server.client().finish_sending().expect_closed();
    server.stop();
    assert_eq!(scratch.read("log"), log);
}

#[test]
fn time_runs_from_the_end_of_the_header_on() {
    let mut server = Server::start(&[TRUSTING, "request_timeout_ms=300", "idle_timeout_ms=60000"]);
    // A header alone begins no request.
    let mut idle = server.client();
    idle.send_through(V1);
    // Half a request does. Behind the second one's time, that of what came before is long over.
    for _ in 0..2 {
        let mut client = server.client();
        client.send([V1, b"GET /"].concat());
        assert_eq!(client.response().status, 408);
    }
    assert_eq!(idle.ask(PEER).text(), "1.2.3.4 4321");
    server.tell("io set idle_timeout_ms 100");
    server.expect_line("set idle_timeout_ms: NULL");
    idle.expect_closed();
    server.tell("io set idle_timeout_ms 60000");
    server.expect_line("set idle_timeout_ms: NULL");
    server.stop();
}

#[test]
fn from_elsewhere_a_header_is_a_bad_request() {
    for options in [&[][..], &["trusted_proxies=10/8,::1,unix"]] {
        let server = Server::start(options);
        for header in [V1, &v2_from([1, 2, 3, 4])] {
            let mut client = server.client();
            client.try_send([header, PEER.as_bytes()].concat());
            let answer = client.rest_or_reset();
            assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", shown(&answer));
        }
        server.stop();
    }
}

#[test]
fn a_second_header_is_a_bad_request() {
    let server = Server::start(&["trusted_proxies=127.0.0.1,1.2.3.4"]);
    let mut client = server.client();
    client.try_send([V1, V1, PEER.as_bytes()].concat());
    let answer = client.rest_or_reset();
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", shown(&answer));
    server.stop();
}

#[test]
fn fields_name_the_client_of_each_request() {
    let server = Server::start(&[TRUSTING]);
    let mut client = server.client();
    let own = format!("127.0.0.1 {}", client.local_port());
    let table = [
        ("X-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4 0"),
        ("", own.as_str()),
        ("Forwarded: for=\"[2001:db8::1]:99\"\r\n", "2001:db8::1 99"),
        ("X-Forwarded-For: 9.9.9.9, 1.2.3.4\r\nX-Forwarded-For: 10.0.0.1\r\n", "1.2.3.4 0"),
        ("X-Forwarded-For: 1.2.3.4, unknown, 10.0.0.1\r\n", "10.0.0.1 0"),
        ("Forwarded: for=_hidden\r\n", own.as_str()),
        ("Forwarded: for=\", for=1.2.3.4;proto=https\r\n", "1.2.3.4 0"),
        ("Forwarded: for=1.2.3.5\r\nX-Forwarded-For: 1.2.3.5\r\n", "1.2.3.5 0"),
    ];
    for (fields, expected) in table {
        assert_eq!(peer(&mut client, fields), expected, "{fields}");
    }
    // All at once, one behind the other.
    let one = |(fields, _): &(&str, &str)| format!("GET /peer HTTP/1.1\r\n{fields}\r\n");
    client.send(table.iter().map(one).collect::<String>());
    for (fields, expected) in table {
        assert_eq!(client.response().text(), expected, "{fields}");
    }
    // With content, too.
    client.send("POST /peer HTTP/1.1\r\nX-Forwarded-For: 1.1.1.1\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(client.ask("ab").text(), "1.1.1.1 0");
    server.stop();
}

#[test]
fn the_walk_begins_at_the_address_of_the_header() {
    let server = Server::start(&[TRUSTING]);
    let fields = "X-Forwarded-For: 5.5.5.5\r\nX-Forwarded-Proto: https\r\n";
    for (ip, expected) in [([1, 2, 3, 4], "1.2.3.4 4660"), ([10, 2, 3, 4], "5.5.5.5 0")] {
        let mut client = server.client();
        client.send(v2_from(ip));
        assert_eq!(peer(&mut client, fields), expected);
        assert_eq!(peer(&mut client, ""), format!("{}.2.3.4 4660", ip[0]));
    }
    server.stop();
}

#[test]
fn kinds_of_fields_that_contradict_each_other_are_refused() {
    let scratch = Scratch::new();
    let log = format!("error_log_file={}", scratch.join("log"));
    let server = Server::start(&[TRUSTING, &log]);
    for fields in [
        "Forwarded: for=1.2.3.4\r\nX-Forwarded-For: 9.9.9.9\r\n",
        "Forwarded: for=1.2.3.4\r\nX-Forwarded-Proto: https\r\n",
        "Forwarded: proto=http\r\nX-Forwarded-Proto: https\r\n",
    ] {
        let before = scratch.read("log").len();
        let mut client = server.client();
        let answer = client.ask(format!("GET /peer HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!(answer.status, 400, "{fields}");
        client.expect_closed();
        let told = scratch.read_when("log", |log| log[before..].ends_with('\n'));
        let expected = format!(
            "127.0.0.1:{} Forwarded and X-Forwarded-* contradict each other\n",
            client.local_port()
        );
        assert!(told.ends_with(&expected), "{fields}: {told}");
    }
    server.stop();
}

#[test]
fn from_elsewhere_no_field_is_believed_and_none_is_dropped() {
    let scratch = Scratch::new();
    shell(&scratch, "env.cgi", "echo Content-Type: text/plain; echo; exec env");
    let fields = "Forwarded: for=1.2.3.4;proto=https\r\nX-Forwarded-For: 9.9.9.9\r\n\
                  X-Forwarded-Proto: https\r\n";
    for options in [&[][..], &["trusted_proxies=10/8"]] {
        let server = serve(&scratch, options);
        let mut client = server.client();
        let own = format!("127.0.0.1 {}", client.local_port());
        assert_eq!(peer(&mut client, fields), own);
        let text = client.ask(format!("GET /echo HTTP/1.1\r\n{fields}\r\n")).text();
        assert!(text.contains(&fields.replace("\r\n", "\n")), "{text}");
        let text = client.ask(format!("GET /env.cgi HTTP/1.1\r\n{fields}\r\n")).text();
        assert!(text.contains("\nHTTPS=off\n"), "{text}");
        assert!(text.contains("\nREMOTE_ADDR=127.0.0.1\n"), "{text}");
        server.stop();
    }
    // Believed fields stay as well.
    let server = Server::start(&[TRUSTING]);
    let fields = "X-Forwarded-For: 9.9.9.9\r\n";
    let text = server.ask(format!("GET /echo HTTP/1.1\r\n{fields}\r\n")).text();
    assert!(text.contains("X-Forwarded-For: 9.9.9.9\n"), "{text}");
    server.stop();
}

#[test]
fn programs_and_logs_see_the_client_and_its_scheme() {
    let scratch = Scratch::new();
    shell(&scratch, "env.cgi", "echo Content-Type: text/plain; echo; echo oops >&2; exec env");
    let access = format!("access_log_file={}", scratch.join("access"));
    let server = serve(&scratch, &[TRUSTING, &access]);
    let table: [(&[u8], &str, &str, &str, &str); 6] = [
        (V1, "", "1.2.3.4", "4321", "off"),
        (&v2_from([10, 0, 0, 1]), "X-Forwarded-Proto: https\r\n", "10.0.0.1", "4660", "on"),
        (b"", "X-Forwarded-For: 2001:db8::1\r\n", "2001:db8::1", "0", "off"),
        (b"", "Forwarded: for=1.1.1.1;proto=https\r\n", "1.1.1.1", "0", "on"),
        (b"", "Forwarded: for=1.1.1.1;proto=https, proto=https\r\n", "127.0.0.1", "", "off"),
        (V1, "X-Forwarded-Proto: https\r\n", "1.2.3.4", "4321", "off"),
    ];
    for (number, (header, fields, ip, port, https)) in table.iter().enumerate() {
        let mut client = server.client();
        let head = format!("GET /env.cgi?{number} HTTP/1.1\r\n{fields}\r\n");
        client.send([*header, head.as_bytes()].concat());
        let text = client.response().text();
        let own = client.local_port().to_string();
        let port = if port.is_empty() { &own } else { *port };
        for line in
            [format!("REMOTE_ADDR={ip}"), format!("REMOTE_PORT={port}"), format!("HTTPS={https}")]
        {
            assert!(text.lines().any(|found| found == line), "{number}: no {line} in {text}");
        }
        let start = format!("{ip} - - [");
        let target = format!("\"GET /env.cgi?{number} HTTP/1.1\" 200 ");
        let is_told = |line: &str| line.starts_with(&start) && line.contains(&target);
        scratch.read_when("access", |log| log.lines().any(is_told));
        let shown =
            if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
        scratch.read_when("error.log", |log| log.contains(&format!("] {shown} ")));
    }
    // What a handler does wrong is told of its client.
    let mut client = server.client();
    let faulty = request("GET", "1.1", &["header A b\\r\\nc", "data x"]);
    client.ask(faulty.replace("\r\n\r\n", "\r\nX-Forwarded-For: 7.7.7.7\r\n\r\n"));
    scratch.read_when("error.log", |log| log.contains("] 7.7.7.7:0 "));
    server.stop();
}

#[test]
fn input_that_is_no_request_is_of_the_proxy() {
    let scratch = Scratch::new();
    let access = format!("access_log_file={}", scratch.join("access"));
    let mut server =
        Server::start(&[TRUSTING, &access, "--errors", "--error=peer error", "--error-returns=0"]);
    let mut client = server.client();
    let own = client.local_port();
    assert_eq!(peer(&mut client, "X-Forwarded-For: 1.2.3.4\r\n"), "1.2.3.4 0");
    assert_eq!(client.ask("GET nonsense\r\n\r\n").status, 400);
    server.expect_line(&format!("error peer=127.0.0.1 {own}"));
    // An error of a request that was understood is one of its client.
    let mut client = server.client();
    client.ask("GET /none HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n");
    server.expect_line("error peer=1.2.3.4 0");
    let log = scratch.read_when("access", |log| log.lines().count() == 3);
    let starts: Vec<_> = log.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(starts, ["1.2.3.4", "127.0.0.1", "1.2.3.4"]);
    server.stop();
}

#[test]
fn the_access_control_list_is_asked_for_the_client_as_well() {
    let scratch = Scratch::new();
    let access = format!("access_log_file={}", scratch.join("access"));
    let list = "access_control_list=+127.0.0.1,+1.2.3/24,-1.2.3.9,+10/8";
    let mut server = Server::start(&[TRUSTING, list, &access]);
    // Told by a header: as at accept.
    for (ip, is_served) in [([1, 2, 3, 4], true), ([1, 2, 3, 9], false), ([9, 9, 9, 9], false)] {
        let mut client = server.client();
        client.try_send([&v2_from(ip)[..], LAST.as_bytes()].concat());
        let answer = client.rest_or_reset();
        assert_eq!(answer.starts_with(b"HTTP/1.1 200 "), is_served, "{ip:?}");
        assert!(is_served || answer.is_empty(), "{}", shown(&answer));
    }
    // Told by a field: others share the connection.
    let mut client = server.client();
    let denied = "GET /peer HTTP/1.1\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n";
    assert_eq!(client.ask(denied).status, 403);
    assert_eq!(peer(&mut client, "X-Forwarded-For: 1.2.3.4\r\n"), "1.2.3.4 0");
    let denied = "POST /peer HTTP/1.1\r\nForwarded: for=1.2.3.9\r\nContent-Length: 9\r\n\r\n";
    assert_eq!(client.ask(denied).status, 403);
    client.expect_closed();
    let log = scratch.read_when("access", |log| log.lines().count() == 4);
    assert!(log.contains("9.9.9.9 - - ["), "{log}");
    // The proxy itself is asked for, too.
    set(&mut server, "access_control_list", "-127.0.0.1,+1.2.3/24");
    let mut client = server.client();
    client.try_send([V1, LAST.as_bytes()].concat());
    assert!(client.rest_or_reset().is_empty());
    set(&mut server, "access_control_list", "");
    server.stop();
}

#[test]
fn a_proxy_that_is_added_counts_for_new_connections_and_one_that_is_removed_at_once() {
    let mut server = Server::start(&[]);
    let field = "X-Forwarded-For: 1.2.3.4\r\n";
    let mut old = server.client();
    let own = format!("127.0.0.1 {}", old.local_port());
    assert_eq!(peer(&mut old, field), own);
    set(&mut server, "trusted_proxies", "127.0.0.1");
    assert_eq!(peer(&mut old, field), own);
    let mut new = server.client();
    let own = format!("127.0.0.1 {}", new.local_port());
    assert_eq!(peer(&mut new, field), "1.2.3.4 0");
    for removed in ["10/8", ""] {
        set(&mut server, "trusted_proxies", removed);
        assert_eq!(peer(&mut new, field), own, "{removed:?}");
        set(&mut server, "trusted_proxies", "127.0.0.1");
        assert_eq!(peer(&mut new, field), "1.2.3.4 0");
    }
    server.stop();
}

#[test]
fn certificates_are_named_by_trusted_proxies_alone() {
    let mut server = Server::start(&[TRUSTING]);
    let ask = |header: &[u8]| {
        let mut client = server.client();
        let head = "GET /echo HTTP/1.1\r\nClient-Cert: :YQ==:\r\nClient-Cert-Chain: :Yg==:\r\n\r\n";
        client.send([header, head.as_bytes()].concat());
        client.response().text()
    };
    let (own, chain) = ("Client-Cert: :YQ==:\n", "Client-Cert-Chain: :Yg==:\n");
    for header in [b"", &v2(0x20, 0, b"")[..], &v2_from([10, 0, 0, 1])] {
        let text = ask(header);
        assert!(text.contains(own) && text.contains(chain), "{}: {text}", shown(header));
    }
    // A header that tells of a client that is not trusted makes the bytes behind it those of that client.
    let text = ask(V1);
    assert!(!text.contains(own) && !text.contains(chain), "{text}");
    set(&mut server, "trusted_proxies", "10/8");
    let mut client = server.client();
    let text = client.ask("GET /echo HTTP/1.1\r\nClient-Cert: :YQ==:\r\n\r\n").text();
    assert!(!text.contains(own), "{text}");
    server.stop();
}

#[test]
fn the_client_of_a_late_answer_is_shown_until_the_answer_is_complete() {
    let mut server = Server::start(&[TRUSTING]);
    let mut client = server.client();
    let first = request("GET", "1.1", &["keep a", "peer first"]);
    let first = first.replace("\r\n\r\n", "\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n");
    let second = "GET /peer HTTP/1.1\r\nX-Forwarded-For: 2.2.2.2\r\n\r\n";
    client.send(format!("{first}{second}"));
    server.expect_line("kept a");
    server.expect_line("first peer=1.1.1.1 0");
    server.late("a", "peer meanwhile");
    server.expect_line("meanwhile peer=1.1.1.1 0");
    server.late("a", "write HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\ndone");
    assert_eq!(client.response().text(), "done");
    assert_eq!(client.response().text(), "2.2.2.2 0");
    server.stop();
}

#[test]
fn a_websocket_keeps_the_client_of_its_handshake() {
    let scratch = Scratch::new();
    let access = format!("access_log_file={}", scratch.join("access"));
    let mut server = WebsocketServer::start(&[TRUSTING, &access]);
    for (number, header, field, expected) in [
        (1, &b""[..], "X-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4 0"),
        (2, V1, "", "1.2.3.4 4321"),
        (3, &v2_from([10, 1, 1, 1]), "Forwarded: for=\"[2001:db8::1]:5\"\r\n", "2001:db8::1 5"),
    ] {
        let mut client = Client::connect(server.port);
        client.send(header).send(handshake("/events", field));
        assert_eq!(client.response_without_body().status, 101);
        for _ in 0..2 {
            client.send(frame(0x81, format!("do peer {number}")));
            server.expect_line(&format!("{number} peer={expected}"));
        }
        // Too long a control frame breaks the protocol.
        client.send(header_of_a_long_ping());
        client.rest_or_reset();
        let ip = expected.split(' ').next().expect("an address");
        let is_last = |log: &str| log.lines().last().is_some_and(|line| line.starts_with(ip));
        scratch.read_when("access", |log| log.lines().count() == number && is_last(log));
    }
    server.stop();
}

fn header_of_a_long_ping() -> Vec<u8> {
    header(0x89, 200)
}

#[test]
fn clients_of_a_unix_domain_socket_are_trusted_by_a_word() {
    let scratch = Scratch::new();
    let ask = |path: &str, bytes: &[u8]| {
        let mut stream = UnixStream::connect(path).expect("the server's socket");
        stream.set_read_timeout(Some(deadline())).expect("a deadline");
        stream.write_all(bytes).expect("the server takes the bytes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer, and the end");
        answer.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned()
    };
    let with = |field: &str| LAST.replace("Host: a", field);
    for (name, list, is_trusted) in [("a", "10/8, unix", true), ("b", "0/0,::/0", false)] {
        let path = scratch.join(name);
        let (place, list) = (format!("--unix={path}"), format!("trusted_proxies={list}"));
        let acl = "access_control_list=-0/0,+1.2.3.4,+2.2.2.2";
        let mut program = Program::start("server.c", &[&place, &list, acl]);
        program.expect_start("PORT ");
        assert_eq!(ask(&path, LAST.as_bytes()), "unix: 0");
        let expected = if is_trusted { "1.2.3.4 0" } else { "unix: 0" };
        assert_eq!(ask(&path, with("X-Forwarded-For: 1.2.3.4").as_bytes()), expected);
        if is_trusted {
            let bytes = [V1, LAST.as_bytes()].concat();
            assert_eq!(ask(&path, &bytes), "1.2.3.4 4321");
            let bytes = [V1, with("X-Forwarded-For: 2.2.2.2").as_bytes()].concat();
            assert_eq!(ask(&path, &bytes), "1.2.3.4 4321");
            let bytes = [&v2(0x20, 0, b"")[..], with("Forwarded: for=2.2.2.2").as_bytes()].concat();
            assert_eq!(ask(&path, &bytes), "2.2.2.2 0");
            assert!(ask(&path, with("Forwarded: for=3.3.3.3").as_bytes()).contains("403"));
            // Each write is a piece of its own in such a socket.
            let mut stream = UnixStream::connect(&path).expect("the server's socket");
            for byte in [V1, LAST.as_bytes()].concat() {
                stream.write_all(&[byte]).expect("the server takes the byte");
            }
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer, and the end");
            assert!(answer.ends_with("\r\n\r\n1.2.3.4 4321"), "{answer}");
        }
        program.stop();
    }
}

#[cfg(feature = "tls")]
mod with_tls {
    use super::*;
    use crate::support::{Authority, client_config, open, until_arrived};
    use std::net::TcpStream;

    /// The answer over TLS behind `pieces`, which are sent in plain, each when the server has seen
    /// the one before.
    fn ask(server: &mut Server, pieces: &[&[u8]], fields: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port))?;
        stream.set_read_timeout(Some(deadline()))?;
        stream.set_nodelay(true)?;
        for piece in pieces {
            stream.write_all(piece)?;
            until_arrived(&stream);
            server.settle();
        }
        let mut session = open(client_config());
        let mut tls = rustls::Stream::new(&mut session, &mut stream);
        tls.write_all(LAST.replace("\r\n\r\n", &format!("\r\n{fields}\r\n")).as_bytes())?;
        let mut answer = String::new();
        tls.read_to_string(&mut answer)?;
        Ok(answer.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned())
    }

    #[test]
    fn a_header_stands_in_front_of_the_session() {
        needs!("openssl");
        let certificate = format!("ssl_certificate={}", Authority::get().identity("ec"));
        let mut server = Server::start(&[TRUSTING, &certificate, "--step"]);
        server.tell("run");
        let binary = v2_from([1, 2, 3, 5]);
        for (header, expected) in [(V1, "1.2.3.4 4321"), (&binary, "1.2.3.5 4660")] {
            let (one, other) = header.split_at(header.len() / 2);
            for pieces in [&[header][..], &[one, other], &[&header[..1], &header[1..]]] {
                let answer = ask(&mut server, pieces, "").expect("an answer");
                assert_eq!(answer, expected);
            }
        }
        let long = v2(0x20, 0, &[0; 4080]);
        for pieces in [&[][..], &[long.as_slice()]] {
            let answer = ask(&mut server, pieces, "").expect("an answer");
            assert!(answer.starts_with("127.0.0.1 "), "{answer}");
            let answer = ask(&mut server, pieces, "X-Forwarded-For: 3.3.3.3\r\n");
            assert_eq!(answer.expect("an answer"), "3.3.3.3 0");
        }
        // In one segment with the beginning of the session.
        let mut session = open(client_config());
        let mut hello = V1.to_vec();
        session.write_tls(&mut hello).expect("records");
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("a connection");
        stream.write_all(&hello).expect("the server takes the bytes");
        let mut tls = rustls::Stream::new(&mut session, &mut stream);
        tls.write_all(LAST.as_bytes()).expect("the server takes the bytes");
        let mut answer = String::new();
        tls.read_to_string(&mut answer).expect("an answer");
        assert!(answer.ends_with("1.2.3.4 4321"), "{answer}");
        // Inside of the session it is a bad request.
        let mut tunnel = Client::connect(crate::support::Tunnel::to(server.port).port);
        tunnel.send([V1, PEER.as_bytes()].concat());
        assert_eq!(tunnel.response().status, 400);
        server.tell("run");
    }

    #[test]
    fn the_scheme_that_a_proxy_told_counts_for_programs_over_tls_as_well() {
        needs!("openssl");
        let scratch = Scratch::new();
        shell(&scratch, "env.cgi", "printf 'A: b\n\n'; echo $HTTPS $REMOTE_ADDR");
        let certificate = format!("ssl_certificate={}", Authority::get().identity("ec"));
        let server = serve(&scratch, &[TRUSTING, &certificate]);
        let mut tunnel = Client::connect(crate::support::Tunnel::to(server.port).port);
        for (field, expected) in [
            ("", "on 127.0.0.1\n"),
            ("X-Forwarded-Proto: http\r\n", "off 127.0.0.1\n"),
            ("X-Forwarded-Proto: https\r\nX-Forwarded-For: 1.1.1.1\r\n", "on 1.1.1.1\n"),
        ] {
            let head = format!("GET /env.cgi HTTP/1.1\r\n{field}\r\n");
            assert_eq!(tunnel.ask(head).text(), expected, "{field}");
        }
    }

    #[test]
    fn a_connection_that_is_barred_is_barred_behind_its_header() {
        needs!("openssl");
        let scratch = Scratch::new();
        scratch.write("bad.pem", "nothing");
        let bad = format!("ssl_certificate={}", scratch.join("bad.pem"));
        let server = Server::start(&[TRUSTING, &bad]);
        for header in [b"", V1] {
            let mut client = server.client();
            client.send([header, PEER.as_bytes()].concat());
            assert_eq!(client.response().status, 503);
        }
    }

    #[test]
    fn a_redirection_is_logged_with_its_client() {
        needs!("openssl");
        let scratch = Scratch::new();
        let access = format!("access_log_file={}", scratch.join("access"));
        let certificate = format!("ssl_certificate={}", Authority::get().identity("ec"));
        let ports = "listening_port=127.0.0.1:0r,127.0.0.1:0s";
        let options = [TRUSTING, &certificate, ports, &access];
        let mut program = Program::start("server.c", &options);
        program.expect_start("PORT ");
        program.tell("get listening_port");
        let ports = program.expect_start("get listening_port: ");
        let first = ports.split(',').next().expect("a port").trim_end_matches('r');
        let port = first.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        for (number, header, field, ip) in [
            (1, V1, "", "1.2.3.4"),
            (2, b"", "X-Forwarded-For: 2.2.2.2\r\n", "2.2.2.2"),
            (3, b"", "", "127.0.0.1"),
        ] {
            let mut client = Client::connect(port);
            let head = format!("GET /peer HTTP/1.1\r\nHost: a\r\n{field}\r\n");
            client.send([header, head.as_bytes()].concat());
            assert_eq!(client.response().status, 308, "{number}");
            scratch.read_when("access", |log| {
                let last = log.lines().last().unwrap_or_default();
                log.lines().count() == number && last.starts_with(&format!("{ip} - - ["))
            });
        }
        let mut client = Client::connect(port);
        let contradiction = "Forwarded: for=1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n";
        client.send(format!("GET /peer HTTP/1.1\r\nHost: a\r\n{contradiction}\r\n"));
        assert_eq!(client.response().status, 400);
        program.stop();
    }

    #[test]
    fn a_denied_client_gets_no_byte_of_tls() {
        needs!("openssl");
        let certificate = format!("ssl_certificate={}", Authority::get().identity("ec"));
        let acl = "access_control_list=+127.0.0.1";
        let server = Server::start(&[TRUSTING, &certificate, acl]);
        let mut hello = V1.to_vec();
        open(client_config()).write_tls(&mut hello).expect("records");
        for bytes in [V1, &hello] {
            let mut client = server.client();
            client.try_send(bytes);
            assert!(client.rest_or_reset().is_empty());
        }
    }

    #[test]
    fn a_header_alone_does_not_hold_a_session_that_never_begins() {
        needs!("openssl");
        let certificate = format!("ssl_certificate={}", Authority::get().identity("ec"));
        let server = Server::start(&[TRUSTING, &certificate, "request_timeout_ms=300"]);
        for bytes in [b"", V1] {
            let mut client = server.client();
            client.send(bytes);
            assert!(client.rest_or_reset().is_empty());
        }
    }
}
