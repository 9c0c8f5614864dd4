//! Files below `document_root`, in their plain form.

use crate::support::{Scratch, Server, for_each};

/// A root with some files, beside a secret that nobody may get.
fn site() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("secret.txt", "top secret");
    scratch.write("root/index.html", "<p>home</p>");
    scratch.write("root/a.txt", "hello");
    scratch.write("root/empty.css", "");
    scratch.write("root/with space.html", "space");
    scratch.write("root/caf\u{e9}.html", "coffee");
    scratch.write("root/noextension", "plain");
    scratch.write("root/dir/index.htm", "inside");
    scratch.write("root/bare/a.txt", "bare");
    scratch.write("root/.htpasswd.1", "joe:x:00");
    scratch.write("root/hidden.key", "key");
    scratch.write("root/big.bin", pattern(5_000_000));
    scratch
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

fn serve(scratch: &Scratch, args: &[&str]) -> Server {
    let root = format!("document_root={}", scratch.join("root"));
    let mut all = vec![root.as_str(), "enable_directory_listing=no"];
    all.extend(args);
    Server::start(&all)
}

fn get(server: &Server, target: &str) -> crate::support::Response {
    server.ask(format!("GET {target} HTTP/1.1\r\n\r\n"))
}

#[test]
fn a_file_is_sent_with_its_type_length_and_dates() {
    let scratch = site();
    let server = serve(&scratch, &[]);
    let cases = [
        ("/a.txt", "text/plain", "hello"),
        ("/empty.css", "text/css", ""),
        ("/with%20space.html", "text/html", "space"),
        ("/caf%c3%a9.html", "text/html", "coffee"),
        ("/noextension", "text/plain", "plain"),
        ("/a.txt?query", "text/plain", "hello"),
        ("/dir/../a.txt", "text/plain", "hello"),
        ("/", "text/html", "<p>home</p>"),
        ("/dir/", "text/html", "inside"),
        ("/dir/index.htm", "text/html", "inside"),
    ];
    let mut client = server.client();
    for (target, kind, body) in cases {
        let get = client.ask(format!("GET {target} HTTP/1.1\r\n\r\n"));
        assert_eq!((get.status, get.text().as_str()), (200, body), "{target}");
        assert_eq!(get.field("Content-Type"), Some(kind), "{target}");
        let names: Vec<&str> = get.fields.iter().map(|(name, _)| name.as_str()).collect();
        let wanted = "Date,Last-Modified,Etag,Content-Type,Content-Length,Connection";
        assert!(names.join(",").starts_with(wanted), "{target}: {names:?}");
        for date in ["Date", "Last-Modified"] {
            let date = get.field(date).expect("a date");
            assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
        }
        client.send(format!("HEAD {target} HTTP/1.1\r\n\r\n"));
        let head = client.response_without_body();
        assert_eq!(head.status, 200, "{target}");
        for name in ["Last-Modified", "Etag", "Content-Type", "Content-Length"] {
            assert_eq!(head.field(name), get.field(name), "{target}");
        }
        let post = format!("POST {target} HTTP/1.1\r\nContent-Length: 3\r\n\r\na=b");
        assert_eq!(client.ask(post).text(), body, "POST {target}");
    }
    server.stop();
}

#[test]
fn the_etag_is_the_time_and_the_size() {
    use std::os::unix::fs::MetadataExt;
    let scratch = site();
    let server = serve(&scratch, &[]);
    let file = std::fs::File::open(scratch.join("root/a.txt")).expect("a file");
    let seconds = file.metadata().expect("its state").mtime();
    // The fraction of a second, where there is one.
    for (fraction, shown) in
        [(0, ""), (1, "-1"), (0x1234_5678, "-12345678"), (999_999_999, "-3b9ac9ff")]
    {
        let time = std::time::Duration::new(seconds.unsigned_abs(), fraction);
        file.set_modified(std::time::UNIX_EPOCH + time).expect("another time");
        let wanted = format!("\"{seconds:x}{shown}.5\"");
        let answer = get(&server, "/a.txt");
        assert_eq!(answer.field("Etag"), Some(wanted.as_str()));
        let again = format!("GET /a.txt HTTP/1.1\r\nIf-None-Match: {wanted}\r\n\r\n");
        assert_eq!(server.client().send(again).response_without_body().status, 304);
    }
    server.stop();
}

#[test]
fn a_large_file_arrives_whole_also_at_a_client_that_reads_late() {
    let scratch = site();
    let server = serve(&scratch, &[]);
    let mut late = server.client();
    late.send("GET /big.bin HTTP/1.1\r\n\r\nGET /a.txt HTTP/1.1\r\n\r\n");
    for _ in 0..3 {
        assert_eq!(get(&server, "/a.txt").text(), "hello");
    }
    assert!(late.response().body == pattern(5_000_000));
    assert_eq!(late.response().text(), "hello");
    server.stop();
}

#[test]
fn a_directory_without_its_slash_is_redirected_with_the_query() {
    let scratch = site();
    let server = serve(&scratch, &[]);
    for (target, location) in
        [("/dir", "/dir/"), ("/dir?a=b&c", "/dir/?a=b&c"), ("/bare", "/bare/"), ("//dir", "/dir/")]
    {
        let answer = get(&server, target);
        assert_eq!(answer.status, 301, "{target}");
        let found = answer.field("Location").expect("a location");
        assert!(found.ends_with(location) && !found.starts_with("//"), "{target}: {found}");
        assert_eq!(answer.field("Content-Length"), Some("0"), "{target}");
        assert_eq!(answer.field("Content-Type"), None, "{target}");
    }
    server.stop();
}

#[test]
fn a_directory_without_an_index_is_forbidden() {
    let scratch = site();
    let server = serve(&scratch, &[]);
    assert_eq!(get(&server, "/bare/").status, 403);
    server.stop();
    let server = serve(&scratch, &["index_files=none.html,a.txt"]);
    assert_eq!(get(&server, "/bare/").text(), "bare");
    assert_eq!(get(&server, "/dir/").status, 403);
    server.stop();
}

#[test]
fn what_is_missing_or_hidden_or_no_file_is_not_found() {
    let scratch = site();
    let fifo = std::ffi::CString::new(scratch.join("root/fifo")).expect("a path");
    // SAFETY: `fifo` is a C string.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o666) }, 0);
    let server = serve(&scratch, &["hide_files_patterns=**.key$"]);
    for target in [
        "/none",
        "/none/",
        "/a.txt/",
        "/a.txt/b",
        "/.htpasswd.1",
        "/.HTPASSWD",
        "/hidden.key",
        "/fifo",
    ] {
        for method in ["GET", "POST"] {
            let answer =
                server.ask(format!("{method} {target} HTTP/1.1\r\nContent-Length: 0\r\n\r\n"));
            assert_eq!(answer.status, 404, "{method} {target}");
        }
    }
    server.stop();
}

#[test]
fn nothing_outside_the_root_is_ever_sent() {
    let scratch = site();
    let server = serve(&scratch, &[]);
    let targets = [
        "/../secret.txt",
        "/../../../../../../../../etc/passwd",
        "/%2e%2e/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%2fsecret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "/%5c..%5csecret.txt",
        "/dir/../../secret.txt",
        "/dir/%2e%2e/%2e%2e/secret.txt",
        "/dir/..%2f..%2fsecret.txt",
        "/....//secret.txt",
        "/.../secret.txt",
        "/./../secret.txt",
        "/.%2e/secret.txt",
        "/a.txt/../../secret.txt",
        "//../secret.txt",
        "///etc/passwd",
        "/%252e%252e/secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/..;/secret.txt",
        "/../secret.txt%00.html",
        "http://h/../secret.txt",
        "http:///../secret.txt",
        "/dir/..",
        "/..",
    ];
    for_each(
        targets,
        |target| (*target).to_owned(),
        |target| {
            let answer = get(&server, target);
            let text = answer.text();
            assert!(!text.contains("secret") || answer.status != 200, "{target}: {text}");
            assert!(!text.contains("root:"), "{target}: {text}");
            let harmless = [200, 301].contains(&answer.status) && target.ends_with("..");
            assert!(harmless || [400, 404].contains(&answer.status), "{target}: {}", answer.status);
        },
    );
    server.stop();
}

#[test]
fn without_a_root_there_are_no_files() {
    let server = Server::start(&[]);
    for target in ["/", "/etc/passwd", "/Cargo.toml"] {
        assert_eq!(get(&server, target).status, 404, "{target}");
    }
    server.stop();
}

#[test]
fn handlers_come_before_files() {
    let scratch = site();
    let server = serve(&scratch, &["--handler=/a.=first"]);
    assert_eq!(get(&server, "/a.txt").text(), "first");
    assert_eq!(get(&server, "/dir/").text(), "inside");
    server.stop();
}

#[test]
fn extra_mime_types_are_looked_at_first() {
    let scratch = site();
    let server = serve(&scratch, &["extra_mime_types=.bin=application/x-bin,.txt=text/x-mine"]);
    assert_eq!(get(&server, "/a.txt").field("Content-Type"), Some("text/x-mine"));
    assert_eq!(get(&server, "/big.bin").field("Content-Type"), Some("application/x-bin"));
    assert_eq!(get(&server, "/").field("Content-Type"), Some("text/html"));
    server.stop();
}

#[test]
fn a_changed_file_is_seen_at_once() {
    let scratch = site();
    let server = serve(&scratch, &[]);
    let mut client = server.client();
    for content in ["one", "two", "three and more", ""] {
        scratch.write("root/a.txt", content);
        assert_eq!(client.ask("GET /a.txt HTTP/1.1\r\n\r\n").text(), content);
    }
    std::fs::remove_file(scratch.join("root/a.txt")).expect("a file");
    assert_eq!(client.ask("GET /a.txt HTTP/1.1\r\n\r\n").status, 404);
    server.stop();
}

#[test]
fn a_method_that_files_do_not_know_is_not_allowed() {
    let scratch = site();
    let server = serve(&scratch, &[]);
    for method in ["BREW", "PATCH", "TRACE"] {
        let answer = server.ask(format!("{method} /a.txt HTTP/1.1\r\n\r\n"));
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.field("Allow").is_some_and(|allow| allow.contains("GET")), "{method}");
    }
    server.stop();
}

#[test]
fn symbolic_links_are_followed() {
    let scratch = site();
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, scratch.join(name)).expect("a link");
    };
    link("a.txt", "root/inner.html");
    link("../secret.txt", "root/outer.txt");
    link("dir", "root/folder");
    link("nowhere", "root/broken");
    link("loop", "root/loop");
    let server = serve(&scratch, &[]);
    assert_eq!(get(&server, "/inner.html").text(), "hello");
    assert_eq!(get(&server, "/outer.txt").text(), "top secret");
    assert_eq!(get(&server, "/folder").status, 301);
    assert_eq!(get(&server, "/folder/").text(), "inside");
    assert_eq!(get(&server, "/broken").status, 404);
    assert_eq!(get(&server, "/loop").status, 404);
    server.stop();
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_ends_the_connection() {
    let scratch = site();
    let file = std::fs::File::create(scratch.join("root/huge")).expect("a file");
    file.set_len(200_000_000).expect("a large, empty file");
    let server = serve(&scratch, &[]);
    let mut client = server.client();
    client.send("GET /huge HTTP/1.1\r\n\r\nGET /alive HTTP/1.1\r\n\r\n");
    let head = client.take_through("\r\n\r\n");
    assert!(head.contains("Content-Length: 200000000\r\n"), "{head}");
    file.set_len(10).expect("a small file");
    let rest = client.rest_or_reset();
    assert!(rest.len() < 200_000_000 && rest.iter().all(|byte| *byte == 0), "{}", rest.len());
    server.stop();
}

#[test]
fn the_library_is_not_fooled_into_headers_of_somebody_elses() {
    let scratch = site();
    let server = serve(&scratch, &[]);
    for target in ["/dir%0d%0aInjected:x", "/dir?%0d%0aInjected:x", "/%0d%0aInjected:x/"] {
        let answer = get(&server, target);
        assert_eq!(answer.field("Injected"), None, "{}", answer.head);
        assert!([400, 301, 404].contains(&answer.status), "{target}: {}", answer.status);
    }
    let answer = get(&server, "//example.com/%2e%2e/dir");
    assert!(answer.field("Location").is_none_or(|to| !to.starts_with("//")), "{}", answer.head);
    server.stop();
}
