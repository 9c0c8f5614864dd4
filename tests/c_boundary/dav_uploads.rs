//! PUT (RFC 9110 section 9.3.4), and who may write at all.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Command;

use crate::support::{Dav, Scratch, Server, deadline_secs, for_each, outside, until};

#[test]
fn nobody_writes_without_a_password_file_and_its_password() {
    let scratch = Scratch::new();
    scratch.write("root/a.txt", "old");
    let server = Server::start(&[&format!("document_root={}", scratch.join("root"))]);
    let methods = ["PUT", "DELETE", "MKCOL", "COPY", "MOVE", "PROPPATCH", "LOCK", "UNLOCK"];
    for method in methods {
        let request = format!("{method} /a.txt HTTP/1.1\r\nDestination: /b.txt\r\n\r\n");
        assert_eq!(server.ask(request).status, 401, "{method}");
    }
    server.stop();

    let dav = Dav::start(&[]);
    dav.write("a.txt", "old");
    for method in methods {
        let request = format!("{method} /a.txt HTTP/1.1\r\nDestination: /b.txt\r\n\r\n");
        let answer = dav.server.ask(request);
        assert_eq!(answer.status, 401, "{method}");
        assert!(answer.field("WWW-Authenticate").is_some_and(|field| field.starts_with("Digest")));
    }
    assert_eq!(dav.read("a.txt"), "old");
    assert_eq!(dav.names(""), ["a.txt"]);
    dav.stop();
}

#[test]
fn a_file_is_made_replaced_and_read_back() {
    let dav = Dav::start(&[]);
    let answer = dav.ask("PUT", "/a%20b.txt", "", "first");
    assert_eq!((answer.status, answer.text().as_str()), (201, ""));
    assert_eq!(dav.read("a b.txt"), "first");
    let mut client = dav.client();
    assert_eq!(client.ask("GET /a%20b.txt HTTP/1.1\r\n\r\n").text(), "first");
    // In the same turn as the answer, and before the clock of the file system has moved.
    for text in ["second", "third!", "", "longer than before"] {
        let put = dav.request("PUT", "/a%20b.txt", "Content-Length: 0\r\n", text);
        let put = if text.is_empty() { put } else { put.replacen("Content-Length: 0\r\n", "", 1) };
        client.send(format!("{put}GET /a%20b.txt HTTP/1.1\r\n\r\n"));
        let answer = client.response();
        assert_eq!((answer.status, answer.field("Content-Length")), (204, None));
        assert_eq!(client.response().text(), text);
    }
    assert_eq!(dav.names(""), ["a b.txt"]);
    dav.stop();
}

#[test]
fn an_upload_in_chunks_is_stored_without_them() {
    let dav = Dav::start(&[]);
    let chunks = "3\r\nabc\r\n0A;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
    let head = dav.request("PUT", "/a", "Transfer-Encoding: chunked\r\n", "");
    let whole = format!("{head}{chunks}");
    for split in 0..whole.len() {
        let name = format!("/a{split}");
        let head = dav.request("PUT", &name, "Transfer-Encoding: chunked\r\n", "");
        let whole = format!("{head}{chunks}");
        let mut client = dav.client();
        client.send(&whole[..split]).send(&whole[split..]);
        assert_eq!(client.response().status, 201, "split at {split}");
        assert_eq!(dav.read(&name), "abc0123456789");
    }
    dav.stop();
}

#[test]
fn curl_uploads_what_it_was_told_to_continue_with() {
    needs!("curl");
    let dav = Dav::start(&[]);
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 % 251) as u8).collect();
    dav.scratch.write("large", &content);
    let url = format!("http://127.0.0.1:{}/large", dav.server.port);
    for (arguments, expected) in [
        (&["-T"][..], "201"),
        (&["-H", "Transfer-Encoding: chunked", "-T"], "204"),
        (&["-H", "Expect: 100-continue", "-T"], "204"),
    ] {
        let out = outside("curl")
            .args(["-sS", "-v", "--max-time", &deadline_secs(), "--digest", "-u", "joe:secret"])
            .args(["-w", "%{http_code}", "-H", "Expect: 100-continue"])
            .args(arguments)
            .args([&dav.scratch.join("large"), &url])
            .output()
            .expect("curl");
        let log = String::from_utf8_lossy(&out.stderr);
        assert_eq!(String::from_utf8_lossy(&out.stdout), expected, "{log}");
        assert!(log.contains("100 Continue"), "{log}");
        let stored = std::fs::read(dav.scratch.join("root/large")).expect("the file");
        assert!(stored == content, "{} bytes", stored.len());
    }
    dav.stop();
}

#[test]
fn an_upload_that_is_not_welcome_is_not_asked_for() {
    let dav = Dav::start(&["max_upload_bytes=1000"]);
    std::fs::create_dir(dav.scratch.join("root/dir")).expect("a folder");
    dav.write("a", "old");
    let fields = "Expect: 100-continue\r\nContent-Length: 10\r\n";
    for_each(
        [
            ("/none/a", "", 409),
            ("/a/b", "", 409),
            ("/new/", "", 409),
            ("/dir", "", 405),
            ("/dir/", "", 405),
            ("/", "", 405),
            ("/.htpasswd", "", 404),
            ("/.mongoose-dav", "", 404),
            ("/a", "If-None-Match: *\r\n", 412),
            ("/b", "If-Match: *\r\n", 412),
            ("/a", "If-Match: \"x\"\r\n", 412),
            ("/a", "If: (<urn:x>)\r\n", 412),
            ("/a", "If: nonsense\r\n", 400),
            ("/a", "Content-Range: bytes 9-0/10\r\n", 400),
            ("/a", "Content-Range: bytes 100-109/*\r\n", 416),
        ],
        |(path, fields, _)| format!("{path} {fields}"),
        |(path, more, status)| {
            let mut client = dav.client();
            let answer = client.ask(dav.request("PUT", path, &format!("{fields}{more}"), ""));
            assert_eq!(answer.status, *status, "{}", answer.head);
        },
    );
    let answer = dav.ask("PUT", "/dir", "Content-Length: 0\r\n", "");
    let allow = answer.field("Allow").expect("what is allowed");
    assert!(allow.contains("PROPFIND") && !allow.contains("PUT"), "{allow}");
    let long = "Expect: 100-continue\r\nContent-Length: 1001\r\n";
    assert_eq!(dav.status("PUT", "/b", long, ""), 413);
    let chunked = dav.request("PUT", "/b", "Transfer-Encoding: chunked\r\n", "");
    let answer = dav.client().ask(format!("{chunked}400\r\n{}", "x".repeat(0x400)));
    assert_eq!(answer.status, 413);
    assert_eq!(dav.names(""), ["a", "dir"]);
    assert_eq!(dav.read("a"), "old");
    dav.stop();
}

#[test]
fn contents_of_the_same_second_and_length_have_different_tags() {
    let dav = Dav::start(&[]);
    let tag = |path: &str| {
        let answer = dav.server.ask(format!("GET {path} HTTP/1.1\r\n\r\n"));
        answer.field("Etag").expect("a tag").to_owned()
    };
    for path in ["/from1", "/from2", "/a"] {
        assert_eq!(dav.status("PUT", path, "", path), 201);
    }
    assert_eq!(dav.status("MKCOL", "/t", "", ""), 201);
    let mut tags = vec![tag("/a")];
    let ways: [(&str, &str, &str); 4] =
        [("PUT", "/a", ""), ("COPY", "/from1", "/a"), ("COPY", "/from2", "/a"), ("PUT", "/a", "")];
    for (method, path, to) in ways.iter().cycle().take(40) {
        let fields = match *to {
            "" => format!("If-Match: {}\r\n", tags[tags.len() - 1]),
            to => format!("Destination: {to}\r\nIf: <{to}> ([{}])\r\n", tags[tags.len() - 1]),
        };
        let body = if to.is_empty() { "content" } else { "" };
        assert_eq!(dav.status(method, path, &fields, body), 204, "{method} {path}");
        tags.push(tag("/a"));
        // Who knows any content before this one is told so.
        let older = format!("If-Match: {}\r\n", tags[tags.len() - 2]);
        for method in ["PUT", "DELETE", "COPY", "MOVE"] {
            assert_eq!(dav.status(method, "/a", &format!("{older}Destination: /b\r\n"), ""), 412);
        }
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 41);
    // Two files that other programs have made alike, and one takes the place of the other.
    for name in ["c", "d"] {
        dav.scratch.write(&format!("root/{name}"), name);
        let file = std::fs::File::open(dav.scratch.join(&format!("root/{name}"))).expect("a file");
        file.set_modified(std::time::UNIX_EPOCH).expect("an old time");
    }
    let old = tag("/c");
    assert_eq!(tag("/d"), old);
    assert_eq!(dav.transfer("MOVE", "/d", "/c"), 204);
    assert_ne!(tag("/c"), old);
    assert_eq!(dav.read("c"), "d");
    dav.stop();
}

#[test]
fn a_condition_lets_pass_who_knows_the_file() {
    let dav = Dav::start(&[]);
    assert_eq!(dav.status("PUT", "/a", "If-None-Match: *\r\n", "1"), 201);
    assert_eq!(dav.status("PUT", "/a", "If-None-Match: *\r\n", "2"), 412);
    let etag = dav.server.ask("GET /a HTTP/1.1\r\n\r\n").field("Etag").expect("a tag").to_owned();
    assert_eq!(dav.status("PUT", "/a", &format!("If-Match: {etag}\r\n"), "22"), 204);
    assert_eq!(dav.status("PUT", "/a", &format!("If-Match: {etag}\r\n"), "333"), 412);
    assert_eq!(dav.read("a"), "22");
    dav.stop();
}

#[test]
fn a_part_of_a_file_is_replaced_and_the_rest_kept() {
    let dav = Dav::start(&[]);
    let long: String = ('a'..='z').cycle().take(1_000_000).collect();
    let put = |range: &str, body: &str| {
        dav.status("PUT", "/a", &format!("Content-Range: {range}\r\n"), body)
    };
    assert_eq!(put("bytes 0-4/*", "01234"), 201);
    assert_eq!(put("bytes 1-2/5", "xy"), 204);
    assert_eq!(dav.read("a"), "0xy34");
    assert_eq!(put("bytes 5-6/7", "zz"), 204);
    assert_eq!(dav.read("a"), "0xy34zz");
    assert_eq!(put("bytes 8-8/9", "-"), 416);
    // More or less than was announced.
    assert_eq!(put("bytes 0-4/7", "012"), 400);
    assert_eq!(put("bytes 0-1/7", "012"), 400);
    assert_eq!(dav.read("a"), "0xy34zz");
    dav.write("a", &long);
    assert_eq!(put("bytes 500000-500002/1000000", "XYZ"), 204);
    let expected = format!("{}XYZ{}", &long[..500_000], &long[500_003..]);
    assert!(dav.read("a") == expected);
    assert_eq!(dav.names(""), ["a"]);
    dav.stop();
}

#[test]
fn a_client_that_goes_away_leaves_the_old_file() {
    let mut dav = Dav::start(&[]);
    dav.write("a", "old");
    for (path, reset) in [("/a", true), ("/a", false), ("/new", true), ("/new", false)] {
        let mut client = dav.client();
        let head = dav.request("PUT", path, "Content-Length: 1000000\r\n", "");
        client.send(head).send("x".repeat(300_000));
        until("the content is being stored", || open_files(&dav) > 0);
        if reset {
            client.reset()
        } else {
            drop(client)
        }
        until("nothing is open any more", || open_files(&dav) == 0);
    }
    assert_eq!((dav.read("a").as_str(), dav.names("")), ("old", vec!["a".to_owned()]));
    dav.restart();
    assert_eq!(dav.names(""), ["a"]);
    dav.stop();
}

fn open_files(dav: &Dav) -> usize {
    let id = dav.server.program.id();
    let links = std::fs::read_dir(format!("/proc/{id}/fd")).expect("descriptors");
    let targets = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().contains("/root/")).count()
}

#[test]
fn what_is_replaced_or_deleted_gives_its_room_back() {
    let dav = Dav::start(&[]);
    dav.write("a", "old".repeat(30_000));
    for (method, status) in [("PUT", 204), ("DELETE", 204)] {
        let old = dav.server.ask("GET /a HTTP/1.1\r\n\r\n");
        assert_eq!((old.body.len(), open_files(&dav)), (90_000, 1));
        assert_eq!(dav.status(method, "/a", "", &"new".repeat(30_000)), status);
        until("its room is given back", || open_files(&dav) == 0);
    }
    dav.stop();
}

#[test]
fn a_file_keeps_its_mode_and_a_link_its_end() {
    let dav = Dav::start(&[]);
    dav.write("a", "old");
    let path = dav.scratch.join("root/a");
    // What was uploaded may not be executed, whatever was there before.
    for (before, behind) in [(0o755, 0o644), (0o711, 0o600), (0o604, 0o604)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(before)).expect("a mode");
        assert_eq!(dav.status("PUT", "/a", "", "newer"), 204);
        let mode = std::fs::metadata(&path).expect("the file").mode() & 0o777;
        assert_eq!(mode, behind, "{mode:o}");
    }
    symlink("a", dav.scratch.join("root/link")).expect("a link");
    symlink("none", dav.scratch.join("root/dangling")).expect("a link");
    assert_eq!(dav.status("PUT", "/link", "", "new"), 204);
    assert_eq!(dav.read("a"), "new");
    assert_eq!(std::fs::metadata(&path).expect("the file").mode() & 0o777, 0o604);
    assert!(std::fs::symlink_metadata(dav.scratch.join("root/link")).expect("a link").is_symlink());
    assert_eq!(dav.status("PUT", "/dangling", "", "new"), 403);
    let fifo = dav.scratch.join("root/fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().is_ok_and(|status| status.success()));
    assert_eq!(dav.status("PUT", "/fifo", "", "new"), 403);
    dav.stop();
}

#[test]
fn a_full_disk_is_told_and_leaves_the_old_file() {
    let scratch = Scratch::new();
    let log = format!("error_log_file={}", scratch.join("errors"));
    let dav = Dav::start_in(scratch, &["--file-size=100000", &log]);
    dav.write("a", "old");
    let long = "x".repeat(200_000);
    for fields in ["", "Content-Range: bytes 1-200000/*\r\n"] {
        assert_eq!(dav.status("PUT", "/a", fields, &long), 507, "{fields}");
    }
    assert_eq!(dav.status("PUT", "/b", "", &long), 507);
    let line = " PUT failed: 507 Insufficient Storage: File too large";
    dav.scratch.read_when("errors", |log| log.contains(line));
    assert_eq!((dav.read("a").as_str(), dav.names("")), ("old", vec!["a".to_owned()]));
    assert_eq!(dav.status("PUT", "/a", "", &long[..100_000]), 204);
    // Nor does a copy that does not fit replace anything.
    dav.write("large", &long).write("d/large", &long).write("e/old", "old");
    assert_eq!(dav.transfer("COPY", "/large", "/a"), 507);
    assert_eq!(dav.transfer("COPY", "/d", "/e"), 507);
    assert_eq!((dav.read("a").len(), dav.names("e")), (100_000, vec!["old".to_owned()]));
    assert_eq!(dav.names(""), ["a", "d", "e", "large"]);
    dav.stop();
}

#[test]
fn the_access_log_tells_of_uploads() {
    let scratch = Scratch::new();
    let log = format!("access_log_file={}", scratch.join("log"));
    let dav = Dav::start_in(scratch, &[&log]);
    assert_eq!(dav.status("PUT", "/a", "", "text"), 201);
    let length = dav.propfind("/a", "0", "").body.len();
    let log = dav.scratch.read_when("log", |log| log.contains("PROPFIND"));
    assert!(log.contains("] \"PUT /a HTTP/1.1\" 201 0 "), "{log}");
    assert!(log.contains(" joe ["), "{log}");
    let expected = format!("] \"PROPFIND /a HTTP/1.1\" 207 {length} ");
    assert!(log.contains(&expected), "{log}");
    dav.stop();
}
