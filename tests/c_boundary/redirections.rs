//! Lists of ports with letters: what speaks TLS, and what sends its clients there.

use crate::support::{Authority, Client, Scratch, Server, Tunnel, handshake, outside, until};

fn set(server: &mut Server, name: &str, value: &str) -> String {
    server.tell(&format!("io set {name} {value}"));
    server.program.expect_start(&format!("set {name}: "))
}

fn listen(server: &mut Server, list: &str) -> Vec<u16> {
    assert_eq!(set(server, "listening_port", list), "NULL");
    server.tell("io get listening_port");
    let shown = server.program.expect_start("get listening_port: ");
    let port = |entry: &str| {
        let digits = entry.rsplit(':').next().unwrap_or_default();
        digits.trim_end_matches(['s', 'r']).parse().unwrap_or_default()
    };
    shown.split(',').map(port).collect()
}

fn certify(server: &mut Server) {
    assert_eq!(set(server, "ssl_certificate", &Authority::get().identity("ec")), "NULL");
}

#[track_caller]
fn assert_alive(port: u16) {
    let answer = Client::connect(port).ask("GET /alive HTTP/1.1\r\n\r\n");
    assert_eq!(answer.text(), "alive");
}

/// What comes back on a port, all of it.
fn told(port: u16, request: &str) -> String {
    let mut client = Client::connect(port);
    client.try_send(request);
    String::from_utf8_lossy(&client.rest_or_reset()).into_owned()
}

/// Requests, and where they are sent: behind the host, with PORT for the port.
const REQUESTS: &[(&str, &str)] = &[
    ("GET /a?b=c%20d HTTP/1.1\r\nHost: example.org\r\n", "example.org:PORT/a?b=c%20d"),
    ("GET / HTTP/1.1\r\nHost: example.org:8080\r\n", "example.org:PORT/"),
    ("GET /? HTTP/1.1\r\nHost: 10.0.0.1:80\r\n", "10.0.0.1:PORT/?"),
    ("GET /x HTTP/1.1\r\nHost: [::1]:80\r\n", "[::1]:PORT/x"),
    ("GET /x HTTP/1.1\r\nHost: [2001:db8::1]\r\n", "[2001:db8::1]:PORT/x"),
    ("GET /%2e%2e/a/../b//c HTTP/1.1\r\nHost: a\r\n", "a:PORT/%2e%2e/a/../b//c"),
    ("GET //evil.example/x HTTP/1.1\r\nHost: a\r\n", "a:PORT//evil.example/x"),
    ("GET /a#b HTTP/1.1\r\nHost: a\r\n", "a:PORT/a"),
    ("GET http://abs.example:81/p?q HTTP/1.1\r\nHost: a\r\n", "abs.example:PORT/p?q"),
    ("GET http://abs.example?q HTTP/1.1\r\nHost: a\r\n", "abs.example:PORT/?q"),
    ("HEAD /h HTTP/1.1\r\nHost: a\r\n", "a:PORT/h"),
    ("GET /old HTTP/1.0\r\nHost: a\r\n", "a:PORT/old"),
    ("PROPFIND /dav HTTP/1.1\r\nHost: a\r\n", "a:PORT/dav"),
    ("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n", "a:PORT/p"),
    ("PUT /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n", "a:PORT/p"),
    ("PUT /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n", "a:PORT/p"),
    ("GET /alive HTTP/1.1\r\nHost: a\r\n", "a:PORT/alive"),
    ("GET /.htpasswd HTTP/1.1\r\nHost: a\r\n", "a:PORT/.htpasswd"),
    ("GET /a HTTP/1.1\r\nHost: \r\n", ""),
    ("GET /a HTTP/1.1\r\n", ""),
    ("GET /a HTTP/1.0\r\n", ""),
    ("GET /a HTTP/1.1\r\nHost: user@a\r\n", ""),
    ("GET /a HTTP/1.1\r\nHost: user:pass@a:80\r\n", ""),
    ("GET /a HTTP/1.1\r\nHost: a/b\r\n", ""),
    ("GET /a HTTP/1.1\r\nHost: [::1\r\n", ""),
    ("GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n", ""),
    ("GET http://user@a/ HTTP/1.1\r\nHost: a\r\n", ""),
    ("OPTIONS * HTTP/1.1\r\nHost: a\r\n", ""),
    ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n", ""),
    ("GET /%00 HTTP/1.1\r\nHost: a\r\n", ""),
];

#[test]
fn every_request_is_sent_to_the_same_resource_on_the_first_port_with_tls() {
    needs!("openssl");
    let scratch = Scratch::new();
    let log = format!("access_log_file={}", scratch.join("log"));
    // Neither handlers nor the error handler are asked.
    let mut server = Server::start(&["--trace", "--errors", &log]);
    certify(&mut server);
    let ports = listen(&mut server, "127.0.0.1:0r,127.0.0.1:0,127.0.0.1:0s,127.0.0.1:0s");
    for (head, place) in REQUESTS {
        let answer = told(ports[0], &format!("{head}\r\n"));
        let (status, location) = match place.is_empty() {
            true => ("HTTP/1.1 400 ", None),
            false => ("HTTP/1.1 308 ", Some(place.replace("PORT", &ports[2].to_string()))),
        };
        assert!(answer.starts_with(status), "{head}: {answer}");
        if let Some(location) = location {
            let field = format!("\r\nLocation: https://{location}\r\n");
            assert!(answer.contains(&field), "{head}: {answer}");
            assert!(answer.contains("\r\nCache-Control: no-store\r\n"), "{answer}");
            assert!(answer.contains("\r\nContent-Length: 0\r\n"), "{answer}");
        }
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    }
    let answer = told(ports[0], &handshake("/ws", ""));
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    assert!(
        told(ports[0], &format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000))).contains(" 431 ")
    );
    assert!(!told(ports[0], "\x16\x03\x01\x02\x00\x01\x00\x01").contains("308"));
    // The others of the list: plain, and TLS.
    assert_alive(ports[1]);
    for port in &ports[2..] {
        assert_alive(Tunnel::to(*port).port);
    }
    server.tell("listener_port");
    server.expect_line(&format!("listener_port {}", ports[1]));
    let lines = server.program.unclaimed_lines();
    assert!(lines.iter().all(|line| !line.starts_with("ERROR")), "{lines:?}");
    assert_eq!(set(&mut server, "access_log_file", ""), "NULL");
    server.program.stop();
    let log = scratch.read("log");
    assert!(log.contains("\"GET /a?b=c%20d HTTP/1.1\" 308 0 "), "{log}");
    assert!(log.contains("\"GET /a HTTP/1.0\" 400 "), "{log}");
}

#[test]
fn the_port_of_https_is_not_named() {
    needs!("openssl");
    let mut server = Server::start(&[]);
    if set(&mut server, "listening_port", "127.0.0.1:443s,127.0.0.1:0r") != "NULL" {
        // Taken, or not for this user.
        return server.stop();
    }
    let ports = listen(&mut server, "127.0.0.1:443s,127.0.0.1:0r");
    let answer = told(ports[1], "GET /a HTTP/1.1\r\nHost: b:80\r\n\r\n");
    assert!(answer.contains("\r\nLocation: https://b/a\r\n"), "{answer}");
    server.program.stop();
}

#[test]
fn content_that_comes_along_does_not_cost_the_client_its_answer() {
    needs!("openssl");
    let mut server = Server::start(&[]);
    let ports = listen(&mut server, "127.0.0.1:0r,127.0.0.1:0s");
    let body = vec![b'x'; 500_000];
    let mut client = Client::connect(ports[0]);
    client.send(format!("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.try_send(&body);
    let answer = client.response();
    assert_eq!(answer.status, 308);
    assert_eq!(answer.field("Location"), Some(&*format!("https://a:{}/p", ports[1])));
    // What follows on the same connection is not served.
    let mut client = Client::connect(ports[0]);
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /alive HTTP/1.1\r\nHost: a\r\n\r\n");
    let answers = client.rest();
    assert_eq!(String::from_utf8_lossy(&answers).matches("HTTP/1.1 ").count(), 1);
    server.program.stop();
}

#[test]
fn a_browser_is_led_to_tls_and_keeps_its_method() {
    needs!("curl", "openssl");
    let mut server = Server::start(&[]);
    certify(&mut server);
    let ports = listen(&mut server, "127.0.0.1:0r,127.0.0.1:0s");
    let url = format!("http://127.0.0.1:{}/echo?q=1", ports[0]);
    let trusted = Authority::get().trusted();
    let args = ["-sS", "-L", "--cacert", &trusted, "--data", "body", &url];
    let output = outside("curl").args(args).output().expect("curl");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("method=POST\nuri=/echo\n") && text.ends_with("body"), "{text}");
    server.program.stop();
}

#[test]
fn a_port_with_s_closes_its_connections_until_there_is_a_certificate() {
    needs!("openssl");
    let mut server = Server::start(&[]);
    let ports = listen(&mut server, "127.0.0.1:0s,127.0.0.1:0");
    for _ in 0..3 {
        assert_eq!(told(ports[0], "GET /alive HTTP/1.1\r\n\r\n"), "");
        assert_alive(ports[1]);
    }
    certify(&mut server);
    assert_alive(Tunnel::to(ports[0]).port);
    assert_alive(ports[1]);
    // Without any letter, all speak TLS as soon as there is a certificate.
    let ports = listen(&mut server, &format!("127.0.0.1:{},127.0.0.1:{}", ports[0], ports[1]));
    for port in &ports {
        assert_alive(Tunnel::to(*port).port);
    }
    assert_eq!(set(&mut server, "ssl_certificate", ""), "NULL");
    assert_alive(ports[0]);
    server.program.stop();
}

#[test]
fn a_refused_certificate_closes_the_ports_that_would_speak_tls_and_no_others() {
    needs!("openssl");
    let scratch = Scratch::new();
    scratch.write("bad.pem", "no certificate");
    let mut server = Server::start(&[]);
    let local = scratch.join("run.sock");
    let list = format!("127.0.0.1:0s,127.0.0.1:0,127.0.0.1:0r,unix:{local}");
    let ports = listen(&mut server, &list);
    let mut plain = Client::connect(ports[1]);
    assert_eq!(plain.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    let mut redirected = Client::connect(ports[2]);
    redirected.send("GET /a HTTP/1.1\r\nHost: a\r\n");
    assert_ne!(set(&mut server, "ssl_certificate", &scratch.join("bad.pem")), "NULL");
    assert!(told(ports[0], "GET /alive HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 503 "));
    assert_eq!(plain.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    assert_alive(ports[1]);
    redirected.send("\r\n");
    assert_eq!(redirected.response().status, 308);
    let mut client = Client::connect_local(&local);
    assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    server.program.stop();
}

#[test]
fn a_unix_socket_speaks_tls_by_its_letter_alone() {
    needs!("curl", "openssl");
    let scratch = Scratch::new();
    let (plain, sealed) = (scratch.join("plain"), scratch.join("sealed"));
    let mut server = Server::start(&[]);
    certify(&mut server);
    listen(&mut server, &format!("unix:{plain},127.0.0.1:0"));
    let mut client = Client::connect_local(&plain);
    assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    listen(&mut server, &format!("unix:{plain},unix:{sealed}:0600s"));
    let output = outside("curl")
        .args(["-sS", "--cacert", &Authority::get().trusted(), "--unix-socket", &sealed])
        .arg("https://localhost/peer")
        .output()
        .expect("curl");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "unix: 0");
    server.program.stop();
}

#[test]
fn a_redirection_without_a_port_that_speaks_tls_is_refused() {
    let mut server = Server::start(&[]);
    let nowhere = "Invalid listening port: an entry with r needs one with s and a port";
    for list in ["0r", "0,0r", "0r,unix:a.sock:0600s"] {
        assert_eq!(set(&mut server, "listening_port", list), nowhere, "{list}");
    }
    // Who came before the list changed is not led astray.
    let ports = listen(&mut server, "127.0.0.1:0r,127.0.0.1:0s");
    let mut client = Client::connect(ports[0]);
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n");
    until("the connection is accepted", || {
        told(ports[0], "GET /a HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("HTTP/1.1 308 ")
    });
    let ports = listen(&mut server, "127.0.0.1:0");
    client.send("\r\n");
    assert_eq!(client.response().status, 503);
    server.port = ports[0];
    server.stop();
}
