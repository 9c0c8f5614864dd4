//! What a library answers that was built without TLS, WebDAV, CGI or compression. Each test holds for
//! all builds: what is built in is not judged here.

use crate::cgi::serve;
use crate::support::{Scratch, Server, WebsocketServer, for_each, handshake};

/// Whether the library has a feature, as far as the tests are built with the same ones.
fn has(feature: &str) -> bool {
    match feature {
        "TLS" => cfg!(feature = "tls"),
        "WebDAV" => cfg!(feature = "webdav"),
        "CGI" => cfg!(feature = "cgi"),
        "Compression" => cfg!(feature = "deflate"),
        _ => panic!("no feature {feature}"),
    }
}

/// Sets an option on the polling thread; the sentence, or `NULL`.
fn set(server: &mut Server, name: &str, value: &str) -> String {
    server.tell(&format!("io set {name} {value}"));
    server.program.expect_start(&format!("set {name}: "))
}

fn get(server: &mut Server, name: &str) -> String {
    server.tell(&format!("io get {name}"));
    server.program.expect_start(&format!("get {name}: "))
}

#[test]
fn options_of_what_is_left_out_are_known_and_refuse_all_but_their_defaults() {
    let scratch = Scratch::new();
    let mut server = serve(&scratch, &[]);
    let cases = [
        ("TLS", "ssl_certificate", "/nonexistent"),
        ("TLS", "ssl_certificate", "-----BEGIN CERTIFICATE-----"),
        ("TLS", "ssl_certificates", "a.example=/nonexistent"),
        ("TLS", "ssl_ca_certificate", "/nonexistent"),
        ("TLS", "ssl_verify_client", "require"),
        ("TLS", "ssl_protocols", "1.3"),
        ("TLS", "ssl_protocols", "nonsense"),
        ("WebDAV", "dav_auth_file", "/nonexistent"),
        ("WebDAV", "dav_depth_infinity", "yes"),
        ("WebDAV", "enable_uploads", "yes"),
        ("WebDAV", "uploads_by_anybody", "yes"),
        ("CGI", "cgi_environment", "A=b"),
        ("CGI", "cgi_interpreter", "/bin/sh"),
        ("CGI", "cgi_timeout_ms", "1"),
        ("CGI", "max_cgi_processes", "1"),
        ("Compression", "websocket_deflate", "yes"),
    ];
    let mut expected = Vec::new();
    for (feature, name, value) in cases.into_iter().filter(|(feature, ..)| !has(feature)) {
        let default = get(&mut server, name);
        let refusal = format!("{feature} is not built into this library");
        assert_eq!(set(&mut server, name, value), refusal, "{name}");
        assert_eq!(get(&mut server, name), default, "{name}");
        assert_eq!(set(&mut server, name, &default), "NULL", "{name}");
        assert_eq!(set(&mut server, name, ""), "NULL", "{name}");
        expected.push(format!("{name}: {refusal}"));
    }
    // It stays plain, as 5.0 did.
    server.stop();
    let log = if expected.is_empty() { String::new() } else { scratch.read("error.log") };
    for line in expected {
        assert!(log.contains(&line), "{line} in\n{log}");
    }
}

#[test]
fn without_tls_a_key_is_hidden_all_the_same() {
    if has("TLS") {
        return;
    }
    let scratch = Scratch::new();
    scratch.write("root/server.pem", "-----BEGIN PRIVATE KEY-----\n");
    let mut server = serve(&scratch, &[]);
    let asked = "GET /server.pem HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(server.ask(asked).status, 200);
    let refusal = set(&mut server, "ssl_certificate", &scratch.join("root/server.pem"));
    assert_eq!(refusal, "TLS is not built into this library");
    assert_eq!(server.ask(asked).status, 404);
    server.stop();
}

#[test]
fn without_webdav_its_methods_are_allowed_nowhere_and_its_passwords_are_hidden() {
    if has("WebDAV") {
        return;
    }
    let scratch = Scratch::new();
    scratch.write("root/file.txt", "file").write("root/d/x.txt", "x").write("root/users", "a:b:c");
    let mut server = serve(&scratch, &["enable_directory_listing=no"]);
    let methods =
        ["PUT", "DELETE", "MKCOL", "COPY", "MOVE", "PROPFIND", "PROPPATCH", "LOCK", "UNLOCK"];
    let targets = ["/file.txt", "/d/", "/d", "/none"];
    let cases = methods.iter().flat_map(|method| targets.map(|target| (*method, target)));
    for_each(
        cases,
        |(method, target)| format!("{method} {target}"),
        |(method, target)| {
            let fields = "Host: a\r\nDestination: /new\r\nContent-Length: 3\r\n";
            let mut client = server.client();
            let answer = client.ask(format!("{method} {target} HTTP/1.1\r\n{fields}\r\nnew"));
            assert_eq!(answer.status, 405);
            assert_eq!(answer.field("Allow"), Some("GET, HEAD, POST, OPTIONS"));
            let next = client.ask("GET /file.txt HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(next.text(), "file", "the connection stays");
        },
    );
    let told = server.ask("OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(told.status, 200);
    assert_eq!(told.field("Allow"), Some("GET, HEAD, POST, OPTIONS"));
    assert_eq!((told.field("DAV"), told.field("MS-Author-Via")), (None, None));
    let passwords = "GET /users HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(server.ask(passwords).status, 200);
    let refusal = set(&mut server, "dav_auth_file", &scratch.join("root/users"));
    assert_eq!(refusal, "WebDAV is not built into this library");
    assert_eq!(server.ask(passwords).status, 404);
    server.stop();
}

#[test]
fn without_cgi_programs_are_forbidden_and_their_source_is_not_shown() {
    if has("CGI") {
        return;
    }
    let scratch = Scratch::new();
    for name in ["a.cgi", "b.php", "c.run", "d/index.cgi"] {
        scratch.write_program(&format!("root/{name}"), "#!/bin/sh\necho secret\n");
    }
    scratch.write(
        "root/p.shtml",
        "(<!--#exec cmd=\"echo secret\" --><!--#include virtual=\"a.cgi\" -->)",
    );
    let pages = ["ssi_pattern=**.shtml$", "enable_ssi_exec=yes"];
    let mut server = serve(&scratch, &pages);
    let get = |server: &Server, method: &str, target: &str| {
        let answer = server.ask(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(!answer.text().contains("secret"), "{target}: {}", answer.text());
        (answer.status, answer.text())
    };
    for target in ["/a.cgi", "/a.cgi/info", "/a.cgi?q", "/b.php", "/d/"] {
        for method in ["GET", "POST"] {
            assert_eq!(get(&server, method, target).0, 403, "{target}");
        }
    }
    assert_eq!(get(&server, "GET", "/p.shtml"), (200, "()".to_owned()));
    // The pattern still says which files are programs.
    assert_eq!(set(&mut server, "cgi_pattern", "**.run$"), "NULL");
    assert_eq!(get(&server, "GET", "/c.run").0, 403);
    assert_eq!(set(&mut server, "cgi_pattern", "none"), "NULL");
    assert_eq!(get(&server, "GET", "/a.cgi").0, 403);
    server.stop();
}

#[test]
fn without_compression_none_is_agreed_upon() {
    if has("Compression") {
        return;
    }
    let server = WebsocketServer::start(&[]);
    let offer = handshake("/echo", "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    let mut client = crate::support::Client::connect(server.port);
    let head = client.send(offer).take_through("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 ") && !head.contains("Extensions"), "{head}");
    server.stop();
}
