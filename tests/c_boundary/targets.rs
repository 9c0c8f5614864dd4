//! What stands in the request line and in Destination: bytes that are no UTF-8, fragments, the
//! absolute form, and the asterisk.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use crate::cgi::{serve, shell};
use crate::support::{Dav, Response, Scratch, Server, for_each};

/// The text in bytes, of which each `~` stands for a byte that is no UTF-8.
fn raw(text: &str) -> Vec<u8> {
    text.bytes().map(|byte| if byte == b'~' { 0xe9 } else { byte }).collect()
}

fn path(scratch: &Scratch, name: &str) -> PathBuf {
    OsStr::from_bytes(&raw(&scratch.join(name))).into()
}

fn ask(server: &Server, request: &str) -> Response {
    server.ask(raw(request))
}

#[test]
fn handlers_see_the_bytes_of_a_target_as_they_were_sent() {
    let server = Server::start(&["--handler=/\u{e9}=echo"]);
    for (target, uri, query) in [
        ("/echo/~?~", "/echo/~", "~"),
        ("/echo/a~/../~b?a=~&b=%ff", "/echo/~b", "a=~&b=%ff"),
        ("http://a/echo/~?~#~", "/echo/~", "~"),
        ("/echo#~", "/echo", "NULL"),
        ("/\u{e9}/~", "/\u{e9}/~", "NULL"),
    ] {
        for version in ["1.0", "1.1", "1.3"] {
            let answer = ask(&server, &format!("GET {target} HTTP/{version}\r\nA: ~\r\n\r\n"));
            let wanted = [raw(&format!("\nuri={uri}\n")), raw(&format!("\nquery={query}\n"))];
            for part in wanted.iter().chain([&raw("\nA: ~\n")]) {
                let found = answer.body.windows(part.len()).any(|window| window == part);
                assert!(found, "{target}: {}", answer.body.escape_ascii());
            }
        }
    }
    let answer = ask(&server, "GET /vars?a=~&b=%e9 HTTP/1.1\r\n\r\n");
    assert_eq!(answer.body, raw("a=1:~\nb=1:~\nc=-1:\nd=-1:\n"));
    server.stop();
}

#[test]
fn files_redirections_listings_and_logs_have_these_bytes() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(path(&scratch, "root/d~")).expect("a folder");
    std::fs::write(path(&scratch, "root/d~/~.txt"), "found").expect("a file");
    let log = format!("access_log_file={}", scratch.join("access.log"));
    let server = serve(&scratch, &[&log]);
    for target in ["/d~/~.txt", "/d%E9/%e9.txt", "/d~/~.txt?~", "/d~/~.txt#~", "http://a/d~/~.txt"]
    {
        let answer = ask(&server, &format!("GET {target} HTTP/1.1\r\n\r\n"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "found"), "{target}");
    }
    for (target, location) in [
        ("/d~", "/d%E9/"),
        ("/d~?a=~&b=%zz", "/d%E9/?a=%E9&b=%zz"),
        ("/d~?a#b", "/d%E9/?a"),
        ("/d~#b", "/d%E9/"),
        ("http://a/d~?q", "/d%E9/?q"),
    ] {
        let answer = ask(&server, &format!("GET {target} HTTP/1.1\r\n\r\n"));
        assert_eq!((answer.status, answer.field("Location")), (301, Some(location)), "{target}");
    }
    let page = ask(&server, "GET /d~/ HTTP/1.1\r\n\r\n").text();
    let start = page.find("%E9.txt").expect("a link");
    let link = &page[start..start + page[start..].find('"').expect("its end")];
    assert_eq!(ask(&server, &format!("GET /d~/{link} HTTP/1.1\r\n\r\n")).text(), "found");
    server.stop();
    let log = scratch.read("access.log");
    for line in
        ["\"GET /d\\xe9/\\xe9.txt?\\xe9 HTTP/1.1\" 200 5 ", "\"GET /d\\xe9#b HTTP/1.1\" 301 0 "]
    {
        assert!(log.contains(line), "{line}\n{log}");
    }
}

#[test]
#[cfg_attr(not(feature = "cgi"), ignore = "built without CGI")]
fn programs_are_told_of_them() {
    let scratch = Scratch::new();
    shell(&scratch, "env.cgi", "echo Content-Type: text/plain; echo; exec env");
    let server = serve(&scratch, &[]);
    let rows: &[(&str, &[&str])] = &[
        (
            "GET /env.cgi/~?~=%e9 HTTP/1.1\r\nHost: a\r\n",
            &["REQUEST_URI=/env.cgi/~?~=%e9", "PATH_INFO=/~", "QUERY_STRING=~=%e9"],
        ),
        (
            "GET /env.cgi?a#~ HTTP/1.1\r\nHost: a\r\n",
            &["REQUEST_URI=/env.cgi?a", "QUERY_STRING=a", "HTTP_HOST=a"],
        ),
        (
            "GET http://b:1/env.cgi?a HTTP/1.1\r\nHost: a\r\n",
            &["REQUEST_URI=/env.cgi?a", "HTTP_HOST=b:1"],
        ),
        ("GET http://b/env.cgi HTTP/1.0\r\n", &["REQUEST_URI=/env.cgi", "HTTP_HOST=b"]),
        ("GET /env.cgi HTTP/1.2\r\nHost: a\r\n", &["SERVER_PROTOCOL=HTTP/1.1"]),
    ];
    for_each(
        rows,
        |(request, _)| (*request).to_owned(),
        |(request, wanted)| {
            let answer = ask(&server, &format!("{request}\r\n"));
            let lines: Vec<&[u8]> = answer.body.split(|byte| *byte == b'\n').collect();
            for line in *wanted {
                assert!(lines.contains(&raw(line).as_slice()), "{}", answer.body.escape_ascii());
            }
        },
    );
    server.stop();
}

#[test]
#[cfg_attr(not(feature = "webdav"), ignore = "built without WebDAV")]
fn a_destination_has_them_too_but_no_fragment_and_no_other_scheme() {
    let dav = Dav::start(&[]);
    dav.write("a", "moved").write("b", "kept");
    let port = dav.server.port;
    let host = format!("http://127.0.0.1:{port}");
    let request = |method: &str, target: &str, destination: &str| {
        let fields = format!("Destination: {destination}\r\n");
        dav.request(method, target, &fields, "")
    };
    for (destination, status) in [
        ("/~", 201),
        (&*format!("{host}/~"), 204),
        ("/b#c", 400),
        (&format!("{host}/b#"), 400),
        (&format!("ftp://127.0.0.1:{port}/b"), 400),
        (&format!("httpx://127.0.0.1:{port}/b"), 400),
        (&format!("HTTPS://127.0.0.1:{port}/~"), 204),
    ] {
        let answer = ask(&dav.server, &request("COPY", "/a", destination));
        assert_eq!(answer.status, status, "{destination}");
    }
    for method in ["PUT", "DELETE", "PROPPATCH", "LOCK"] {
        let answer = ask(&dav.server, &dav.request(method, "/b#c", "", ""));
        assert_eq!(answer.status, 400, "{method}");
    }
    let copy = std::fs::read(path(&dav.scratch, "root/~")).expect("a copy");
    assert_eq!((copy.as_slice(), dav.read("b").as_str()), (&b"moved"[..], "kept"));
    // Where the target names the host, it is the one that Destination is compared with.
    let absolute = |target: &str, destination: &str| {
        let request =
            request("COPY", "/a", destination).replace("COPY /a", &format!("COPY {target}"));
        dav.server.ask(request).status
    };
    assert_eq!(absolute("http://x/a", "http://x/c"), 201);
    assert_eq!(absolute("http://x/a", &format!("{host}/c")), 502);
    dav.stop();
}

#[test]
#[cfg_attr(not(feature = "webdav"), ignore = "built without WebDAV")]
fn the_asterisk_is_for_options_and_reaches_no_path() {
    let server = Server::start(&["--handler=/x=first"]);
    let answer = server.ask("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status, answer.field("DAV")), (200, Some("1")));
    assert!(answer.field("Allow").is_some_and(|methods| methods.contains("OPTIONS")));
    assert_eq!(answer.field("Content-Length"), Some("0"));
    // A path with a handler is the handler's.
    assert_eq!(server.ask("OPTIONS /x HTTP/1.1\r\n\r\n").text(), "first");
    for method in ["GET", "PUT", "PROPFIND", "TRACE"] {
        assert_eq!(server.ask(format!("{method} * HTTP/1.1\r\n\r\n")).status, 400, "{method}");
    }
    server.stop();
    let server = Server::start(&["--handler=*=echo"]);
    let answer = server.ask("OPTIONS * HTTP/1.1\r\n\r\n");
    assert!(answer.text().contains("method=OPTIONS\nuri=*\n"), "{}", answer.text());
    server.stop();
}

#[test]
fn what_is_refused_for_its_target_shows_nothing_to_the_error_handler() {
    let mut server = Server::start(&["--errors", "--error-returns=0"]);
    for target in ["*", "ftp://a/b", "http://a@b/c", "/%00"] {
        assert_eq!(server.ask(format!("GET {target} HTTP/1.1\r\nA: b\r\n\r\n")).status, 400);
        server.expect_line("ERROR 400 method= uri= query=NULL headers=0");
    }
    server.stop();
}
