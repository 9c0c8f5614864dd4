//! A certificate that was refused does not make a server speak plain HTTP.

use crate::support::{
    Authority, Client, Program, Scratch, Sealed, Server, Tunnel, client_config, exchange, for_each,
    open, request, shown,
};

const ALIVE: &str = "GET /alive HTTP/1.1\r\n\r\n";

fn set(server: &mut Server, name: &str, value: &str) -> String {
    server.tell(&format!("io set {name} {value}"));
    server.program.expect_start(&format!("set {name}: "))
}

/// 503 and the end, on a connection of its own.
#[track_caller]
fn assert_closed(port: u16) {
    let mut client = Client::connect(port);
    let answer = client.ask(ALIVE);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.field("Connection"), Some("close"));
    client.expect_closed();
}

#[track_caller]
fn assert_plain(port: u16) {
    assert_eq!(Client::connect(port).ask(ALIVE).text(), "alive");
}

/// The first words of a client that speaks TLS.
fn hello() -> Vec<u8> {
    let (mut session, mut records) = (open(client_config()), Vec::new());
    session.write_tls(&mut records).expect("a vector");
    records
}

#[test]
fn plain_http_is_not_spoken_once_a_certificate_was_refused() {
    needs!("openssl");
    let scratch = Scratch::new();
    let (access, error) = (scratch.join("access.log"), scratch.join("error.log"));
    let mut server = Server::start(&[
        "--errors",
        &format!("document_root={}", scratch.join("")),
        &format!("access_log_file={access}"),
        &format!("error_log_file={error}"),
    ]);
    assert_plain(server.port);
    assert_ne!(set(&mut server, "ssl_certificate", &scratch.join("none.pem")), "NULL");
    assert_closed(server.port);
    // Nothing else is looked at: not the path, not the content, not what is wrong with it.
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000));
    let cases = [
        "GET /none HTTP/1.0\r\n\r\n",
        "\r\n\r\nGET /access.log HTTP/1.1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "PUT /x HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
        &long,
        &ALIVE.repeat(100),
    ];
    for_each(
        cases,
        |case| shown(&case.as_bytes()[..case.len().min(60)]),
        |case| {
            let answer = String::from_utf8_lossy(&exchange(server.port, case)).into_owned();
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        },
    );
    // In pieces, and slowly cut.
    let mut client = server.client();
    for byte in ALIVE.bytes() {
        client.send([byte]);
    }
    assert_eq!(client.response().status, 503);
    client.expect_closed();
    // What speaks TLS is closed without a word.
    for bytes in [hello(), hello()[..1].to_vec(), vec![0; 10], vec![0xff; 10]] {
        let mut client = server.client();
        client.try_send(&bytes);
        assert!(client.rest_or_reset().is_empty());
    }
    let log = scratch.read_when("access.log", |log| log.lines().count() == 2 + 7 + 1);
    assert_eq!(log.matches(" 503 ").count(), 9, "{log}");
    assert!(log.contains("\"GET /none HTTP/1.0\" 503 "), "{log}");
    scratch.read_when("error.log", |log| log.contains("no certificate is in force"));
    // The program was not asked, either.
    assert!(!server.program.unclaimed_lines().iter().any(|line| line.starts_with("ERROR")));
    assert_eq!(set(&mut server, "ssl_certificate", ""), "NULL");
    server.stop();
}

#[test]
fn a_good_certificate_or_an_explicit_unset_opens_the_port_again() {
    needs!("openssl");
    let scratch = Scratch::new();
    let (good, other) = (Authority::get().identity("ec"), Authority::get().identity("rsa"));
    let bad = scratch.join("none.pem");
    let mut server = Server::start(&[]);
    let tunnel = Tunnel::to(server.port);
    #[track_caller]
    fn assert_sealed(server: &Server, tunnel: &Tunnel) {
        assert_eq!(Client::connect(tunnel.port).ask(ALIVE).text(), "alive");
        assert_eq!(server.ask(ALIVE).status, 400);
    }
    assert_ne!(set(&mut server, "ssl_certificate", &bad), "NULL");
    assert_closed(server.port);
    // A connection of that time that has said nothing yet goes by what is so when it speaks.
    let mut waiting = server.client();
    assert_eq!(set(&mut server, "ssl_certificate", ""), "NULL");
    assert_plain(server.port);
    assert_eq!(waiting.ask(ALIVE).text(), "alive");
    assert_ne!(set(&mut server, "ssl_certificate", &bad), "NULL");
    assert_ne!(set(&mut server, "ssl_certificate", &bad), "NULL");
    assert_closed(server.port);
    let mut waiting = server.client();
    assert_closed(server.port);
    assert_eq!(set(&mut server, "ssl_certificate", &good), "NULL");
    assert_sealed(&server, &tunnel);
    assert_eq!(waiting.ask(ALIVE).status, 400);
    // With one in force, that one goes on.
    assert_ne!(set(&mut server, "ssl_certificate", &bad), "NULL");
    assert_sealed(&server, &tunnel);
    assert_eq!(set(&mut server, "ssl_certificate", &other), "NULL");
    assert_sealed(&server, &tunnel);
    assert_eq!(set(&mut server, "ssl_certificate", ""), "NULL");
    assert_plain(server.port);
    // From another thread, and from inside a handler.
    server.tell(&format!("set ssl_certificate {bad}"));
    server.program.expect_start("set ssl_certificate: ");
    assert_closed(server.port);
    server.tell("set ssl_certificate ");
    server.expect_line("set ssl_certificate: NULL");
    let answer =
        server.ask(request("GET", "1.1", &[&format!("set ssl_certificate {bad}"), "data x"]));
    assert_eq!(answer.text(), "x");
    server.expect_line("set ssl_certificate: Cannot read the certificate file");
    assert_closed(server.port);
    assert_eq!(set(&mut server, "ssl_certificate", ""), "NULL");
    server.stop();
}

#[test]
fn connections_that_were_plain_before_are_served_no_more() {
    let scratch = Scratch::new();
    let bad = scratch.join("none.pem");
    let mut server = Server::start(&[]);
    let mut idle = server.client();
    assert_eq!(idle.ask(ALIVE).text(), "alive");
    let mut half = server.client();
    assert_eq!(half.ask(ALIVE).text(), "alive");
    half.send("GET /ali");
    let mut waits = server.client();
    waits.send(request("GET", "1.1", &["keep one"]));
    // Something was served since: all of the above has arrived.
    server.late("one", "report here");
    assert_plain(server.port);
    assert_ne!(set(&mut server, "ssl_certificate", &bad), "NULL");
    for (client, text) in [(&mut idle, ALIVE), (&mut half, "ve HTTP/1.1\r\n\r\n")] {
        assert_eq!(client.ask(text).status, 503);
        client.expect_closed();
    }
    // What was asked before is answered, and that is the end.
    let text = "HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nlater";
    assert!(server.late("one", &format!("write {text}")) > 0);
    assert_eq!(waits.response().text(), "later");
    waits.expect_closed();
    assert_eq!(set(&mut server, "ssl_certificate", ""), "NULL");
    server.stop();
}

#[test]
fn a_server_that_begins_with_a_bad_certificate_is_closed_also_in_its_children() {
    needs!("openssl");
    let refused = "ssl_certificate=/nonexistent/none.pem";
    for habits in [&[][..], &["--habit=fork"]] {
        let args = [&[refused, "listening_port=127.0.0.1:0"], habits].concat();
        let mut program = Program::start("server.c", &args);
        program.expect_line("REFUSED ssl_certificate: Cannot read the certificate file");
        let port = program.port();
        assert_closed(port);
        let mut client = Client::connect(port);
        client.try_send(hello());
        assert!(client.rest_or_reset().is_empty());
        program.stop();
    }
}

#[test]
fn who_says_nothing_where_no_certificate_is_in_force_is_left_after_the_time_of_a_request() {
    let args = ["--errors", "request_timeout_ms=200", "idle_timeout_ms=0"];
    let mut server = Server::start(&args);
    assert_ne!(set(&mut server, "ssl_certificate", "/nonexistent/none.pem"), "NULL");
    for half in ["", "GET / HT"] {
        let mut client = server.client();
        client.send(half);
        assert!(client.rest_or_reset().is_empty());
    }
    assert!(!server.program.unclaimed_lines().iter().any(|line| line.starts_with("ERROR")));
    server.program.stop();
}

const ASK: &str = "GET /alive HTTP/1.1\r\nConnection: close\r\n\r\n";

/// Neither plain HTTP nor TLS is spoken, and the error log says why.
#[track_caller]
fn assert_barred(port: u16, scratch: &Scratch, reason: &str) {
    assert_closed(port);
    let mut client = Client::connect(port);
    client.try_send(hello());
    assert!(client.rest_or_reset().is_empty());
    for end in ["a request is answered with 503", "a client of TLS is closed"] {
        scratch.read_when("error.log", |log| log.contains(&format!(" {reason}: {end}\n")));
    }
}

#[track_caller]
fn assert_tls(port: u16) {
    let talk = Sealed::new(Some("joe")).ask(port, "localhost", ASK);
    assert!(talk.text.ends_with("alive"), "{talk:?}");
    assert_eq!(Client::connect(port).ask(ALIVE).status, 400);
}

#[test]
fn a_refused_authority_or_version_closes_the_port_also_beside_a_good_certificate() {
    needs!("openssl");
    let authority = Authority::get();
    let (ec, trusted) = (authority.identity("ec"), authority.trusted());
    let cases = [
        (
            "ssl_ca_certificate",
            "/nonexistent/ca.pem",
            trusted.as_str(),
            "ssl_ca_certificate was refused, and none is in force",
        ),
        (
            "ssl_protocols",
            "1.4",
            "1.3",
            "ssl_protocols was refused, and no value of it is in force",
        ),
    ];
    for (name, bad, good, reason) in cases {
        let scratch = Scratch::new();
        let log = format!("error_log_file={}", scratch.join("error.log"));
        let mut server = Server::start(&[&log]);
        let port = server.port;
        let mut idle = server.client();
        assert_eq!(idle.ask(ALIVE).text(), "alive");
        // Without a certificate, and before one.
        assert_ne!(set(&mut server, name, bad), "NULL");
        assert_barred(port, &scratch, reason);
        assert_eq!(idle.ask(ALIVE).status, 503);
        assert_eq!(set(&mut server, "ssl_certificate", &ec), "NULL");
        assert_barred(port, &scratch, reason);
        // A good value opens it, and one that is refused while a good one is in force does not
        // close it.
        assert_eq!(set(&mut server, name, good), "NULL");
        assert_tls(port);
        assert_ne!(set(&mut server, name, bad), "NULL");
        assert_tls(port);
        // Unset, the refused value is still to be told of a new one.
        assert_eq!(set(&mut server, name, ""), "NULL");
        assert_tls(port);
        assert_ne!(set(&mut server, name, bad), "NULL");
        assert_barred(port, &scratch, reason);
        assert_eq!(set(&mut server, "ssl_certificate", ""), "NULL");
        assert_barred(port, &scratch, reason);
        assert_eq!(set(&mut server, "ssl_certificate", &ec), "NULL");
        assert_eq!(set(&mut server, name, ""), "NULL");
        assert_tls(port);
        assert_eq!(set(&mut server, "ssl_certificate", ""), "NULL");
        assert_plain(port);
        server.stop();
    }
}

#[test]
fn to_require_a_certificate_without_an_authority_closes_the_port() {
    needs!("openssl");
    let authority = Authority::get();
    let (ec, trusted) = (authority.identity("ec"), authority.trusted());
    let reason = "ssl_verify_client is require, and no ssl_ca_certificate is set";
    let scratch = Scratch::new();
    let log = format!("error_log_file={}", scratch.join("error.log"));
    let certificate = format!("ssl_certificate={ec}");
    let mut server = Server::start(&[&log, &certificate]);
    let port = server.port;
    assert_tls(port);
    assert_eq!(set(&mut server, "ssl_verify_client", "require"), "NULL");
    assert_barred(port, &scratch, reason);
    // The order of the options does not matter.
    assert_eq!(set(&mut server, "ssl_ca_certificate", &trusted), "NULL");
    assert_tls(port);
    assert_eq!(set(&mut server, "ssl_ca_certificate", ""), "NULL");
    assert_barred(port, &scratch, reason);
    for value in ["optional", ""] {
        assert_eq!(set(&mut server, "ssl_verify_client", value), "NULL");
        assert_tls(port);
    }
    // What is refused here leaves what was stricter.
    assert_ne!(set(&mut server, "ssl_verify_client", "never"), "NULL");
    assert_tls(port);
    server.program.stop();
}

#[test]
fn a_refused_list_of_names_closes_the_port_unless_there_is_a_certificate() {
    needs!("openssl");
    let scratch = Scratch::new();
    let ec = Authority::get().identity("ec");
    let log = format!("error_log_file={}", scratch.join("error.log"));
    let mut server = Server::start(&[&log]);
    let port = server.port;
    for bad in ["localhost=/nonexistent/none.pem", "localhost", "127.0.0.1=x"] {
        assert_ne!(set(&mut server, "ssl_certificates", bad), "NULL");
        assert_barred(port, &scratch, "no certificate is in force");
    }
    assert_eq!(set(&mut server, "ssl_certificate", &ec), "NULL");
    assert_tls(port);
    assert_eq!(set(&mut server, "ssl_certificate", ""), "NULL");
    assert_barred(port, &scratch, "no certificate is in force");
    let good = format!("localhost={ec}");
    assert_eq!(set(&mut server, "ssl_certificates", &good), "NULL");
    assert_tls(port);
    // With one in force, the other one may be refused.
    assert_ne!(set(&mut server, "ssl_certificate", "/nonexistent/none.pem"), "NULL");
    assert_tls(port);
    assert_eq!(set(&mut server, "ssl_certificates", ""), "NULL");
    assert_barred(port, &scratch, "no certificate is in force");
    assert_eq!(set(&mut server, "ssl_certificate", ""), "NULL");
    assert_plain(port);
    server.stop();
}
