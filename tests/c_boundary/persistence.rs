//! Every kind of answer, to clients of both versions that ask for the connection to stay open or to
//! end: what the answer says about that, and what becomes of the connection.

use crate::support::{Client, Dav, Response, Server, for_each};

/// What a client wants: version, fields, and the place of what it gets in a row of [`SOURCES`].
const WISHES: &[(&str, &str)] = &[
    ("1.1", ""),
    ("1.1", "Connection: close\r\n"),
    ("1.0", ""),
    ("1.0", "Connection: close\r\n"),
    ("1.0", "Connection: keep-alive\r\n"),
];

/// Who has made the head of an answer.
#[derive(Clone, Copy, PartialEq)]
enum Head {
    /// The program alone: nothing is added.
    Raw,
    /// The `mg_send` family: it says what a client cannot know from the version.
    Family,
    /// The library itself: it always says what becomes of the connection.
    Own,
}
use Head::*;

/// Method, target, fields; who makes the head; whether the connection stays open for a client of
/// HTTP/1.1, and for one of HTTP/1.0 that asks for it.
type Source = (&'static str, &'static str, &'static str, Head, bool, bool);

const SOURCES: &[Source] = &[
    // Raw answers, as they stand.
    (
        "GET",
        "/do",
        "Do: write HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi\r\n",
        Raw,
        true,
        false,
    ),
    (
        "GET",
        "/do",
        "Do: write HTTP/1.1 200 OK\\r\\nConnection: keep-alive\\r\\nContent-Length: 2\\r\\n\\r\\nhi\r\n",
        Raw,
        true,
        true,
    ),
    (
        "GET",
        "/do",
        "Do: write HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nconnection: x, Keep-Alive\\r\\n\\r\\nhi\r\n",
        Raw,
        true,
        true,
    ),
    (
        "GET",
        "/do",
        "Do: write HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 2\\r\\n\\r\\nhi\r\n",
        Raw,
        false,
        false,
    ),
    (
        "GET",
        "/do",
        "Do: write HTTP/1.1 200 OK\\r\\nConnection: keep-alive, close\\r\\nContent-Length: 2\\r\\n\\r\\nhi\r\n",
        Raw,
        false,
        false,
    ),
    (
        "POST",
        "/do",
        "Do: bytewise HTTP/1.1 200 OK\\r\\nConnection: keep-alive\\r\\nContent-Length: 2\\r\\n\\r\\nhi\r\n",
        Raw,
        true,
        true,
    ),
    (
        "HEAD",
        "/do",
        "Do: write HTTP/1.1 200 OK\\r\\nConnection: keep-alive\\r\\nContent-Length: 2\\r\\n\\r\\n\r\n",
        Raw,
        true,
        true,
    ),
    (
        "HEAD",
        "/do",
        "Do: write HTTP/1.1 200 OK\\r\\nConnection: keep-alive\\r\\n\\r\\n\r\n",
        Raw,
        true,
        false,
    ),
    (
        "GET",
        "/do",
        "Do: write HTTP/1.1 204 No Content\\r\\nConnection: keep-alive\\r\\n\\r\\n\r\n",
        Raw,
        true,
        false,
    ),
    (
        "GET",
        "/do",
        "Do: write HTTP/1.1 304 Not Modified\\r\\nConnection: keep-alive\\r\\n\\r\\n\r\n",
        Raw,
        true,
        false,
    ),
    (
        "GET",
        "/do",
        "Do: write HTTP/1.1 200 OK\\r\\nConnection: keep-alive\\r\\n\\r\\nhi\r\n",
        Raw,
        false,
        false,
    ),
    (
        "GET",
        "/do",
        "Do: write HTTP/1.0 200 OK\\r\\nConnection: keep-alive\\r\\nContent-Length: 2\\r\\n\\r\\nhi\r\n",
        Raw,
        false,
        false,
    ),
    // The `mg_send` family. With data a client of HTTP/1.0 learns of the end by the end.
    ("GET", "/do", "Do: status 200\r\n", Family, true, true),
    ("GET", "/do", "Do: header A b\r\n", Family, true, true),
    ("GET", "/do", "Do: status 404\r\nDo: header A b\r\n", Family, true, true),
    ("GET", "/do", "Do: status 200\r\nDo: header Connection keep-alive\r\n", Family, true, true),
    ("GET", "/do", "Do: status 200\r\nDo: header Connection x\r\n", Family, true, true),
    ("GET", "/do", "Do: status 200\r\nDo: header Connection close\r\n", Family, false, false),
    ("GET", "/do", "Do: status 200\r\nDo: header Content-Length 7\r\n", Family, true, true),
    ("HEAD", "/do", "Do: status 200\r\nDo: header Content-Length 7\r\n", Family, true, true),
    ("HEAD", "/do", "Do: status 200\r\n", Family, true, true),
    ("HEAD", "/do", "Do: header Transfer-Encoding chunked\r\n", Family, true, false),
    ("GET", "/do", "Do: status 204\r\n", Family, true, false),
    ("GET", "/do", "Do: status 304\r\n", Family, true, false),
    ("GET", "/do", "Do: data hi\r\n", Family, true, false),
    ("HEAD", "/do", "Do: data hi\r\n", Family, true, false),
    ("GET", "/do", "Do: status 204\r\nDo: data hi\r\n", Family, true, false),
    (
        "GET",
        "/do",
        "Do: status 200\r\nDo: header Content-Length 2\r\nDo: write \\r\\nhi\r\n",
        Raw,
        true,
        false,
    ),
    (
        "GET",
        "/do",
        "Do: header Connection keep-alive\r\nDo: header Content-Length 2\r\nDo: write \\r\\nhi\r\n",
        Raw,
        true,
        true,
    ),
    // Files.
    ("GET", "/a.txt", "", Own, true, true),
    ("GET", "/long.txt", "", Own, true, true),
    ("GET", "/empty.txt", "", Own, true, true),
    ("HEAD", "/a.txt", "", Own, true, true),
    ("POST", "/a.txt", "Content-Length: 0\r\n", Own, true, true),
    ("GET", "/a.txt", "If-None-Match: *\r\n", Own, true, false),
    ("GET", "/a.txt", "If-Match: \"x\"\r\n", Own, true, true),
    ("GET", "/a.txt", "Range: bytes=1-2\r\n", Own, true, true),
    ("GET", "/a.txt", "Range: bytes=0-0,2-3\r\n", Own, true, true),
    ("GET", "/a.txt", "Range: bytes=99-\r\n", Own, true, true),
    // Errors, redirections, and what is told of methods.
    ("GET", "/none", "", Own, true, true),
    ("HEAD", "/none", "", Own, true, true),
    ("GET", "/folder", "", Own, true, true),
    ("GET", "/guarded/a.txt", "", Own, true, true),
    ("PUT", "/a.txt", "Content-Length: 0\r\n", Own, true, true),
    ("BREW", "/a.txt", "", Own, true, true),
    ("TRACE", "/a.txt", "", Own, true, true),
    ("CONNECT", "a:1", "", Own, true, true),
    ("OPTIONS", "/a.txt", "", Own, true, true),
    ("OPTIONS", "*", "", Own, true, true),
    // Lists, pages and programs, whose length is not known when they begin.
    ("GET", "/folder/", "", Own, true, false),
    ("HEAD", "/folder/", "", Own, true, false),
    ("GET", "/page.shtml", "", Own, true, false),
    ("GET", "/stream.cgi", "", Own, true, false),
    ("HEAD", "/stream.cgi", "", Own, true, false),
    ("GET", "/length.cgi", "", Own, true, true),
    ("HEAD", "/length.cgi", "", Own, true, true),
    ("GET", "/nothing.cgi", "", Own, true, false),
    ("GET", "/broken.cgi", "", Own, true, true),
    ("GET", "/local.cgi", "", Own, true, true),
];

fn start() -> Dav {
    let dav = Dav::start(&["ssi_pattern=**.shtml$"]);
    dav.write("a.txt", "0123456789").write("long.txt", "x".repeat(100_000)).write("empty.txt", "");
    dav.write("folder/b.txt", "").write("page.shtml", "<!--#include file=\"a.txt\" -->");
    dav.write("guarded/a.txt", "").write("guarded/.htpasswd", "joe:x:y\n");
    for (name, lines) in [
        ("stream.cgi", "printf 'A: b\\n\\nhi'"),
        ("length.cgi", "printf 'Content-Length: 2\\n\\nhi'"),
        ("nothing.cgi", "printf 'Status: 204\\n\\n'"),
        ("broken.cgi", "echo"),
        ("local.cgi", "printf 'Location: /a.txt\\n\\n'"),
    ] {
        dav.scratch.write_program(&format!("root/{name}"), format!("#!/bin/sh\n{lines}\n"));
    }
    dav
}

/// Whether a row and a wish leave the connection open.
fn stays(wish: (&str, &str), keeps_1_1: bool, keeps_1_0: bool) -> bool {
    match wish {
        ("1.1", "") => keeps_1_1,
        ("1.0", "Connection: keep-alive\r\n") => keeps_1_0,
        _ => false,
    }
}

fn check(mut client: Client, answer: &Response, version: &str, head: Head, stays: bool) {
    let said: Vec<&str> = answer
        .fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("connection"))
        .flat_map(|(_, value)| value.split(", "))
        .collect();
    let says = |word: &str| said.iter().any(|said| said.eq_ignore_ascii_case(word));
    let head_text = &answer.head;
    if stays {
        assert!(!says("close"), "{head_text}");
        if version == "1.0" {
            assert!(says("keep-alive"), "{head_text}");
            assert!(answer.field("Content-Length").is_some(), "{head_text}");
        }
        assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    } else {
        assert!(head == Raw || says("close"), "{head_text}");
        assert!(head == Raw || !says("keep-alive"), "{head_text}");
        client.expect_closed();
    }
    if head == Own {
        assert_eq!(said.len(), 1, "{head_text}");
    }
}

#[test]
fn an_answer_and_its_client_agree_whether_the_connection_stays_open() {
    let dav = start();
    let cases = SOURCES.iter().flat_map(|row| WISHES.iter().map(move |wish| (*row, *wish)));
    for_each(
        cases,
        |((method, target, fields, ..), wish)| format!("{method} {target} {fields:?} {wish:?}"),
        |((method, target, fields, head, keeps_1_1, keeps_1_0), (version, wish))| {
            let mut client = dav.client();
            client.send(format!("{method} {target} HTTP/{version}\r\n{fields}{wish}\r\n"));
            let answer = match *method {
                "HEAD" => client.response_without_body(),
                _ => client.response(),
            };
            assert!(!answer.head.contains("chunked") || *version == "1.1" || *method == "HEAD");
            check(client, &answer, version, *head, stays((version, wish), *keeps_1_1, *keeps_1_0));
        },
    );
    dav.stop();
}

/// Method, path, fields; whether the connection stays open, as in [`SOURCES`].
const WRITING: &[(&str, &str, &str, u16, bool)] = &[
    ("PUT", "/new.txt", "Content-Length: 0\r\n", 201, true),
    ("PUT", "/new.txt", "Content-Length: 0\r\n", 204, false),
    ("PUT", "/no/new.txt", "Content-Length: 0\r\n", 409, true),
    ("PROPFIND", "/a.txt", "Depth: 0\r\n", 207, true),
    ("PROPFIND", "/", "", 403, true),
    ("DELETE", "/new.txt", "", 204, false),
    ("MKCOL", "/made", "", 201, true),
    ("MOVE", "/made", "Destination: /moved\r\n", 201, true),
    ("DELETE", "/moved", "", 204, false),
];

#[test]
fn so_do_the_answers_of_webdav() {
    let dav = start();
    for wish @ (version, field) in WISHES {
        for (method, path, fields, status, keeps_1_0) in WRITING {
            let request = dav.request(method, path, &format!("{fields}{field}"), "");
            let request = request.replace("HTTP/1.1", &format!("HTTP/{version}"));
            let mut client = dav.client();
            let answer = client.ask(request);
            assert_eq!(answer.status, *status, "{method} {path} {wish:?}\n{}", answer.head);
            check(client, &answer, version, Own, stays(*wish, true, *keeps_1_0));
        }
    }
    dav.stop();
}

#[test]
fn so_do_answers_that_come_late() {
    let mut server = Server::start(&[]);
    let keep = "Connection: keep-alive\r\n";
    let rows = [
        ("HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi", false),
        ("HTTP/1.1 200 OK\\r\\nConnection: keep-alive\\r\\nContent-Length: 2\\r\\n\\r\\nhi", true),
    ];
    for (place, (text, stays)) in rows.into_iter().enumerate() {
        let mut client = server.client();
        client.send(format!("GET /do HTTP/1.0\r\n{keep}Do: keep k{place}\r\nDo: say kept\r\n\r\n"));
        server.expect_line("kept");
        assert!(server.late(&format!("k{place}"), &format!("write {text}")) > 0);
        let answer = client.response();
        assert_eq!(answer.text(), "hi");
        check(client, &answer, "1.0", Raw, stays);
    }
    server.stop();
}

#[test]
fn so_do_answers_of_the_error_handler() {
    let rows: [(&[&str], Head, bool, bool); 4] = [
        (&["--errors", "--error-returns=0"], Own, true, true),
        (&["--errors", "--error=header A b"], Family, true, true),
        (&["--errors", "--error=data hi"], Family, true, false),
        (
            &["--errors", "--error=write HTTP/1.1 404 X\\r\\nContent-Length: 0\\r\\n\\r\\n"],
            Raw,
            true,
            false,
        ),
    ];
    for (args, head, keeps_1_1, keeps_1_0) in rows {
        let server = Server::start(args);
        for wish @ (version, field) in WISHES {
            let mut client = server.client();
            let answer = client.ask(format!("GET /none HTTP/{version}\r\n{field}\r\n"));
            assert_eq!(answer.status, 404);
            check(client, &answer, version, head, stays(*wish, keeps_1_1, keeps_1_0));
        }
        server.stop();
    }
}

#[test]
fn an_old_client_is_sent_no_interim_answer() {
    let mut dav = Dav::start(&["--step"]);
    dav.server.tell("run");
    let keep = "Connection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 5\r\n";
    let put = dav.request("PUT", "/new.txt", keep, "").replace("HTTP/1.1", "HTTP/1.0");
    let write = "Do: write HTTP/1.1 100 Continue\\r\\n\\r\\n\r\nDo: status 200\r\n";
    for request in [put, format!("POST /do HTTP/1.0\r\n{write}{keep}\r\n")] {
        let mut client = dav.client();
        client.send_through(request);
        // The head has been read then, so that it could be asked for the content.
        dav.server.settle();
        let answer = client.send("hello").response();
        assert!(answer.status == 200 || answer.status == 201, "{}", answer.head);
    }
    dav.stop();
}

#[test]
fn a_client_that_ends_within_a_request_gets_the_answers_to_those_before() {
    let mut server = Server::start(&["--step"]);
    for unfinished in [
        "POST /do HTTP/1.1\r\nContent-Length: 5\r\n\r\nab",
        "POST /do HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "POST /none HTTP/1.1\r\nContent-Length: 5\r\n\r\nab",
        "GET /do HTTP/1.1\r\nHo",
    ] {
        server.tell("run");
        let mut client = server.client();
        assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
        server.poll(1);
        // The last bytes and the end are found in one turn.
        client.send_through(format!("GET /alive HTTP/1.1\r\n\r\n{unfinished}")).finish_sending();
        server.tell("run");
        let rest = String::from_utf8(client.rest()).expect("text");
        assert!(
            rest.starts_with("HTTP/1.1 200 OK\r\n") && rest.ends_with("alive"),
            "{unfinished}: {rest}"
        );
    }
    server.tell("run");
    server.stop();
}
