//! Final answers that do not wait for content which is of no use, and content that is refused as soon
//! as it is known to be too long.

use crate::support::{
    Client, Dav, Scratch, Server, deadline_secs, for_each, outside, shown, until,
};

/// Method, target, fields, and the status that is known at the head.
const KNOWN_AT_THE_HEAD: &[(&str, &str, &str, u16)] = &[
    ("PUT", "/x", "", 401),
    ("DELETE", "/a.txt", "", 401),
    ("PROPPATCH", "/a.txt", "", 401),
    ("POST", "/guarded/a.txt", "", 401),
    ("PROPFIND", "/guarded/a.txt", "", 401),
    ("POST", "/none", "", 404),
    ("POST", "/a.secret", "", 404),
    ("POST", "/folder", "", 301),
    ("POST", "/closed/", "", 403),
    ("BREW", "/a.txt", "", 405),
    ("TRACE", "/a.txt", "", 405),
    ("BREW", "/x.cgi", "", 405),
    ("POST", "/dead.cgi", "", 403),
    ("POST", "/page.lp", "", 501),
    ("POST", "/a.txt", "If-Match: \"x\"\r\n", 412),
    ("CONNECT", "a:1", "", 405),
    ("GET", "/%00", "", 400),
];

/// What says that content comes that need not be waited for.
const ANNOUNCED: &[&str] = &[
    "Content-Length: 65537\r\n",
    "Content-Length: 100000000\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Content-Length: 5\r\nExpect: 100-continue\r\n",
    "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n",
];

fn start(args: &[&str]) -> Dav {
    let scratch = Scratch::new();
    let mut all = vec!["hide_files_patterns=**.secret", "enable_directory_listing=no"];
    all.extend(args);
    scratch.write("root/dead.cgi", "").write("root/page.lp", "").write("root/a.secret", "");
    scratch.write("root/a.txt", "0123456789").write("root/folder/b.txt", "");
    scratch.write("root/guarded/a.txt", "").write("root/guarded/.htpasswd", "joe:x:y\n");
    scratch.write("root/closed/a.txt", "").write_program("root/x.cgi", "#!/bin/sh\nexit 1\n");
    Dav::start_in(scratch, &all)
}

#[test]
fn an_answer_that_is_known_at_the_head_does_not_wait_for_long_content() {
    let dav = start(&[]);
    let cases = KNOWN_AT_THE_HEAD.iter().flat_map(|row| ANNOUNCED.iter().map(move |a| (*row, *a)));
    for_each(
        cases,
        |((method, target, ..), announced)| format!("{method} {target} {announced:?}"),
        |((method, target, fields, status), announced)| {
            let mut client = dav.client();
            client.send(format!("{method} {target} HTTP/1.1\r\n{fields}{announced}\r\n"));
            let answer = client.response();
            assert_eq!((answer.status, answer.field("Connection")), (*status, Some("close")));
            // Neither is the rest waited for.
            client.expect_closed();
        },
    );
    dav.stop();
}

#[test]
fn shorter_content_is_read_first_and_the_connection_stays() {
    let dav = start(&[]);
    let long = "x".repeat(65_536);
    for_each(
        // A target that is not understood ends the connection, and CONNECT has no content.
        KNOWN_AT_THE_HEAD.iter().filter(|(_, target, ..)| !["/%00", "a:1"].contains(target)),
        |(method, target, ..)| format!("{method} {target}"),
        |(method, target, fields, status)| {
            for content in ["hello", &long] {
                let length = format!("Content-Length: {}\r\n", content.len());
                let mut client = dav.client();
                client.send(format!("{method} {target} HTTP/1.1\r\n{fields}{length}\r\n"));
                let answer = client.send(content).response();
                let said = (answer.status, answer.field("Connection"));
                assert_eq!(said, (*status, Some("keep-alive")));
                assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
            }
        },
    );
    dav.stop();
}

/// The same, of requests that WebDAV answers.
const REFUSED_BY_WEBDAV: &[(&str, &str, &str, u16)] = &[
    ("PUT", "/none/x", "", 409),
    ("PUT", "/folder", "", 405),
    ("PUT", "/a.txt", "If-Match: \"x\"\r\n", 412),
    ("PUT", "/a.secret", "", 404),
    ("PROPFIND", "/folder", "", 403),
    ("PROPFIND", "/none", "Depth: 0\r\n", 404),
    ("PROPFIND", "/a.txt", "Depth: 7\r\n", 400),
    ("PROPPATCH", "/none", "", 404),
    ("PROPPATCH", "/a.txt", "If: ([\"x\"])\r\n", 412),
    ("PROPPATCH", "/locked.txt", "", 423),
    ("LOCK", "/a.txt", "If-Match: \"x\"\r\n", 412),
    ("MKCOL", "/folder", "", 405),
    ("MKCOL", "/none/x", "", 409),
    ("MKCOL", "/new", "If-Match: *\r\n", 412),
    ("DELETE", "/none", "", 404),
    ("MOVE", "/none", "Destination: /x\r\n", 404),
    ("COPY", "/a.txt", "Destination: /x\r\nDestination: /y\r\n", 400),
];

#[test]
fn webdav_refuses_at_the_head_as_well() {
    let dav = start(&[]);
    dav.write("locked.txt", "").lock("/locked.txt", "");
    let cases = REFUSED_BY_WEBDAV.iter().flat_map(|row| ANNOUNCED.iter().map(move |a| (*row, *a)));
    for_each(
        cases,
        |((method, target, ..), announced)| format!("{method} {target} {announced:?}"),
        |((method, target, fields, status), announced)| {
            let mut client = dav.client();
            let fields = format!("{fields}{announced}");
            let answer = client.ask(dav.request(method, target, &fields, ""));
            // No document is as long.
            let is_too_long = *method != "PUT" && announced.contains("100000000");
            let status = if is_too_long { 413 } else { *status };
            assert_eq!((answer.status, answer.field("Connection")), (status, Some("close")));
            client.expect_closed();
        },
    );
    dav.stop();
}

#[test]
fn a_client_that_sends_on_gets_to_see_the_answer() {
    let dav = start(&[]);
    for (announced, content) in [
        ("Content-Length: 500000\r\n", "x".repeat(500_000)),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n".repeat(40_000) + "0\r\n\r\n"),
    ] {
        let mut client = dav.client();
        client.send(format!("PUT /x HTTP/1.1\r\n{announced}\r\n")).send(content);
        assert_eq!(client.response().status, 401);
        client.expect_closed();
    }
    dav.stop();
}

#[test]
fn a_client_that_sends_more_than_is_thrown_away_is_not_reset_at_once() {
    let mut server = Server::start(&["--step"]);
    let mut client = server.client();
    client.send("PUT /x HTTP/1.1\r\nContent-Length: 200000000\r\n\r\n");
    let sent = client.send_until_stuck(&[b'x'; 65_536]);
    assert!(sent > 2 << 20, "{sent} bytes are too few to tell");
    server.poll(20);
    assert_eq!(client.response().status, 404);
    assert!(client.try_send("x"), "the connection is still there");
    client.finish_sending();
    server.tell("run");
    client.expect_closed();
    server.stop();
}

#[test]
fn a_client_that_sends_no_more_gets_what_is_still_on_its_way() {
    let scratch = Scratch::new();
    scratch.write("root/big", vec![b'x'; 400_000]);
    let root = format!("document_root={}", scratch.join("root"));
    let mut server = Server::start(&["--step", &root]);
    let mut client = server.client();
    client.send_through(
        "GET /big HTTP/1.1\r\n\r\nPOST /none HTTP/1.1\r\nContent-Length: 100000\r\n\r\n",
    );
    server.poll(20);
    // Both have been answered. The rest comes together with the end.
    client.send_through([b'x'; 100_000]).finish_sending();
    server.poll(20);
    assert_eq!(client.response().body.len(), 400_000);
    assert_eq!(client.response().status, 404);
    client.expect_closed();
    server.tell("run");
    server.stop();
}

#[test]
fn an_unknown_expectation_is_refused_without_its_content() {
    let dav = start(&[]);
    for target in ["/echo", "/a.txt", "/x.cgi"] {
        for (content, connection) in [("", "keep-alive"), ("Content-Length: 5\r\n", "close")] {
            let mut client = dav.client();
            let head = format!("POST {target} HTTP/1.1\r\nExpect: wonders\r\n{content}\r\n");
            let answer = client.ask(head);
            assert_eq!((answer.status, answer.field("Connection")), (417, Some(connection)));
            match connection {
                "close" => client.expect_closed(),
                _ => assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive"),
            }
        }
    }
    dav.stop();
    // What is ambiguous is refused, whatever is expected.
    let server = Server::start(&["--errors", "--error-returns=0"]);
    let twice = "Content-Length: 1\r\nContent-Length: 2\r\n";
    assert_eq!(server.ask(format!("GET /do HTTP/1.1\r\nExpect: x\r\n{twice}\r\n")).status, 400);
    server.stop();
}

#[test]
fn the_error_handler_answers_early_too() {
    let mut server = Server::start(&["--errors", "--error=data mine"]);
    let mut client = server.client();
    client.send("POST /none?q HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    let answer = client.response();
    assert_eq!((answer.status, answer.text()), (404, "mine".to_owned()));
    assert_eq!(answer.field("Connection"), Some("close"));
    client.expect_closed();
    server.expect_line("ERROR 404 method=POST uri=/none query=q headers=1");
    server.stop();
}

/// The status that curl ends with, and that of each answer.
fn curl(dav: &Dav, target: &str, args: &[&str]) -> (String, Vec<String>) {
    let out = outside("curl")
        .args(["-sS", "-m", &deadline_secs()])
        .args(["--http1.1", "-v", "-w", "%{stdout}%{http_code}", "-o", "/dev/null"])
        .args(args)
        .arg(format!("http://127.0.0.1:{}{target}", dav.server.port))
        .output()
        .expect("curl");
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{told}");
    let status = |line: &str| line.strip_prefix("< HTTP/1.1 ").map(|rest| rest[..3].to_owned());
    let statuses = told.lines().filter_map(status).filter(|status| status != "100").collect();
    (String::from_utf8_lossy(&out.stdout).into_owned(), statuses)
}

#[test]
fn curl_uploads_with_a_password_however_it_frames_the_content() {
    needs!("curl");
    let dav = start(&[]);
    for len in [6, 70_000, 3_000_000] {
        let content = "y".repeat(len);
        dav.scratch.write("local", &content);
        let local = dav.scratch.join("local");
        let upload = ["--digest", "-u", "joe:secret", "-T", &local];
        for more in [&[][..], &["-H", "Transfer-Encoding: chunked"], &["-H", "Expect:"]] {
            let args = [&upload[..], more].concat();
            let (status, all) = curl(&dav, "/up.txt", &args);
            assert!(status == "201" || status == "204", "{args:?}: {status}");
            assert_eq!(all, ["401".to_owned(), status], "{args:?}");
            assert!(dav.read("up.txt") == content, "{args:?}");
        }
        // Who sends all of it without having been asked learns of the refusal, too.
        for more in [&[][..], &["-H", "Transfer-Encoding: chunked"], &["-H", "Expect:"]] {
            let args = [&["-T", &local], more].concat();
            assert_eq!(curl(&dav, "/other.txt", &args).0, "401", "{args:?}");
        }
    }
    dav.stop();
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// How content is taken, and the head of a request for which it is.
type Taker = (&'static str, fn(&Dav) -> String);

const TAKERS: &[Taker] = &[
    ("kept", |_| format!("POST /echo HTTP/1.1\r\n{CHUNKED}\r\n")),
    ("streamed to a file", |dav| dav.request("PUT", "/new.txt", CHUNKED, "")),
    ("kept for a program", |_| format!("POST /x.cgi HTTP/1.1\r\n{CHUNKED}\r\n")),
    ("thrown away", |_| format!("POST /a.txt HTTP/1.1\r\n{CHUNKED}\r\n")),
    ("a document", |_| format!("PROPFIND /a.txt HTTP/1.1\r\nDepth: 0\r\n{CHUNKED}\r\n")),
];

#[test]
fn a_chunk_that_would_exceed_the_limit_is_refused_when_its_size_is_read() {
    let dav = start(&["max_request_body_bytes=1000", "max_upload_bytes=1000"]);
    // Chunks, none of which is complete, and the status.
    let rows = [
        ("12c00000\r\n", 413),
        ("7fffffffffffffff\r\n", 413),
        ("3e9\r\n", 413),
        ("3e8;a=b\r\nx", 0),
        ("1\r\nx\r\n3e8\r\n", 413),
        ("1\r\nx\r\n3e7\r\n", 0),
        ("1\r\nx\r\n7fffffffffffffff\r\n", 413),
        ("8000000000000000\r\n", 400),
        ("1\r\nx\r\n8000000000000000\r\n", 400),
        ("10000000000000000\r\n", 400),
    ];
    let cases = TAKERS.iter().flat_map(|(how, head)| {
        rows.into_iter().map(move |(chunks, status)| (how, head, chunks, status))
    });
    for_each(
        cases,
        |(how, _, chunks, _)| format!("{how}: {}", shown(chunks.as_bytes())),
        |(_, head, chunks, status)| {
            for pieces in [&[*chunks][..], &["", chunks], &[&chunks[..1], &chunks[1..]]] {
                let mut client = dav.client();
                client.send(format!("{}{}", head(&dav), pieces[0]));
                for piece in &pieces[1..] {
                    client.send(piece);
                }
                check(client, *status);
            }
        },
    );
    until("no upload is left", || dav.unfinished("").is_empty());
    dav.stop();
}

/// The answer has this status and ends the connection; or, for 0, the content is waited for.
fn check(mut client: Client, status: u16) {
    if status == 0 {
        client.finish_sending();
        return client.expect_closed();
    }
    let answer = client.response();
    assert_eq!((answer.status, answer.field("Connection")), (status, Some("close")));
    client.expect_closed();
}

#[test]
fn a_document_is_refused_by_its_own_limit() {
    let dav = start(&[]);
    for (chunks, status) in [("100001\r\n", 413), ("100000\r\n", 0), ("1\r\nx\r\n100000\r\n", 413)]
    {
        for (method, fields) in [("PROPFIND", "Depth: 0\r\n"), ("PROPPATCH", ""), ("LOCK", "")] {
            let mut client = dav.client();
            client.send(dav.request(method, "/a.txt", &format!("{fields}{CHUNKED}"), ""));
            client.send(chunks);
            check(client, status);
        }
    }
    dav.stop();
}
