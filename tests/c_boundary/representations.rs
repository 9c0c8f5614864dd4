//! Compressed siblings of files, and fields that a program adds to answers with files.

use crate::support::{Response, Scratch, Server, as_many_as, for_each};

const BR: &str = "<brotli>";
const GZ: &str = "<gzip, a little longer>";

/// What a sibling holds does not matter: nobody decodes it.
fn site() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("root/both.js", "plain text of both");
    scratch.write("root/both.js.gz", GZ);
    scratch.write("root/both.js.br", BR);
    scratch.write("root/gz.css", "plain text of gz");
    scratch.write("root/gz.css.gz", GZ);
    scratch.write("root/none.html", "plain text of none");
    scratch.write("root/folder.js", "plain text of folder");
    scratch.write("root/folder.js.gz/x", "");
    scratch.write("root/old.js", "plain text of old");
    scratch.write("root/old.js.gz", "compressed from something older");
    let file = std::fs::File::options().write(true).open(scratch.join("root/old.js.gz"));
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    file.expect("a file").set_modified(time).expect("an old file");
    scratch.write("root/dir/index.html", "plain text of index");
    scratch.write("root/dir/index.html.br", BR);
    scratch
}

fn serve(scratch: &Scratch, args: &[&str]) -> Server {
    let root = format!("document_root={}", scratch.join("root"));
    let mut all = vec![root.as_str()];
    all.extend(args);
    Server::start(&all)
}

fn get(server: &Server, target: &str, fields: &str) -> Response {
    server.ask(format!("GET {target} HTTP/1.1\r\n{fields}\r\n"))
}

#[test]
fn the_sibling_that_the_client_likes_best_is_sent() {
    let scratch = site();
    let server = serve(&scratch, &["enable_precompressed=yes"]);
    let vary = Some("Accept-Encoding");
    let cases = [
        ("/both.js", "", "", vary),
        ("/both.js", "gzip", "gzip", vary),
        ("/both.js", "br", "br", vary),
        ("/both.js", "gzip, deflate, br", "br", vary),
        ("/both.js", "gzip;q=0, br;q=0", "", vary),
        ("/both.js", "br;q=0, gzip", "gzip", vary),
        ("/both.js", "br;q=0.5, gzip;q=0.7", "gzip", vary),
        ("/both.js", "*", "br", vary),
        ("/both.js", "deflate, zstd", "", vary),
        ("/both.js", "identity;q=0, gzip", "gzip", vary),
        ("/gz.css", "br, gzip;q=0.1", "gzip", vary),
        ("/gz.css", "br", "", vary),
        // What there is is better than an error.
        ("/gz.css", "br, identity;q=0", "", vary),
        ("/gz.css", "*;q=0", "", vary),
        ("/none.html", "gzip, br", "", None),
        ("/folder.js", "gzip, br", "", None),
        ("/old.js", "gzip, br", "", None),
        ("/dir/", "gzip, br", "br", vary),
        // Asked for by its own name it is a file like others.
        ("/both.js.gz", "gzip, br", "", None),
    ];
    for_each(
        &cases,
        |(target, accepted, ..)| format!("{target} {accepted}"),
        |(target, accepted, coding, vary)| {
            let fields = format!("Accept-Encoding: {accepted}\r\n");
            let answer = get(&server, target, &fields);
            let text = answer.text();
            match *coding {
                "" if target.ends_with(".gz") => assert_eq!(text, GZ),
                "" => assert!(text.starts_with("plain text"), "{text}"),
                "br" => assert_eq!(text, BR),
                _ => assert_eq!(text, GZ),
            }
            let coding = Some(*coding).filter(|coding| !coding.is_empty());
            assert_eq!(answer.field("Content-Encoding"), coding);
            assert_eq!(answer.field("Vary"), *vary);
            let kind = match target.rsplit('.').next() {
                Some("js") => "application/x-javascript",
                Some("css") => "text/css",
                Some("gz") => "application/x-gunzip",
                _ => "text/html",
            };
            assert_eq!(answer.field("Content-Type"), Some(kind));

            let mut client = server.client();
            client.send(format!("HEAD {target} HTTP/1.1\r\n{fields}\r\n"));
            let head = client.response_without_body();
            let but_date = |answer: &Response| {
                let mut fields = answer.fields.clone();
                fields.retain(|(name, _)| name != "Date");
                fields
            };
            assert_eq!(but_date(&head), but_date(&answer));
        },
    );
    server.stop();
}

#[test]
fn each_form_has_validators_and_ranges_of_its_own() {
    let scratch = site();
    // Same size, same time: still not the same.
    scratch.write("root/same.js", "12345678");
    scratch.write("root/same.js.br", "abcdefgh");
    scratch.write("root/same.js.gz", "ABCDEFGH");
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000);
    for name in ["same.js", "same.js.br", "same.js.gz"] {
        let file = std::fs::File::options().write(true).open(scratch.join(&format!("root/{name}")));
        file.expect("a file").set_modified(time).expect("a time");
    }
    let server = serve(&scratch, &["enable_precompressed=yes"]);
    let accept = |coding: &str| format!("Accept-Encoding: {coding}\r\n");
    let forms = [("identity", "12345678"), ("br", "abcdefgh"), ("gzip", "ABCDEFGH")];
    let tags = forms.map(|(coding, _)| {
        let answer = get(&server, "/same.js", &accept(coding));
        answer.field("Etag").expect("a tag").to_owned()
    });
    assert!(tags[0] != tags[1] && tags[1] != tags[2] && tags[0] != tags[2], "{tags:?}");
    for (place, (coding, content)) in forms.iter().enumerate() {
        for (other, tag) in tags.iter().enumerate() {
            let own = place == other;
            let asked = format!("{}If-None-Match: {tag}\r\n", accept(coding));
            let answer = get(&server, "/same.js", &asked);
            assert_eq!(answer.status, if own { 304 } else { 200 }, "{coding} {tag}");
            assert_eq!(answer.field("Etag"), Some(tags[place].as_str()));
            assert_eq!(answer.field("Vary"), Some("Accept-Encoding"));
            let asked = format!("{}If-Range: {tag}\r\nRange: bytes=2-3\r\n", accept(coding));
            let answer = get(&server, "/same.js", &asked);
            let wanted = if own { (206, &content[2..4]) } else { (200, *content) };
            assert_eq!((answer.status, answer.text().as_str()), wanted, "{coding} {tag}");
            let asked = format!("{}If-Match: {tag}\r\n", accept(coding));
            let status = get(&server, "/same.js", &asked).status;
            assert_eq!(status, if own { 200 } else { 412 }, "{coding} {tag}");
        }
    }
    let several = get(&server, "/both.js", "Accept-Encoding: br\r\nRange: bytes=0-1,3-4\r\n");
    assert_eq!((several.status, several.field("Content-Encoding")), (206, Some("br")));
    assert!(several.text().contains("Content-Type: application/x-javascript\r\n"));
    assert!(several.text().contains(&format!("bytes 0-1/{}\r\n\r\n<b\r\n", BR.len())));
    server.stop();
}

#[test]
fn siblings_count_only_where_they_are_asked_for_and_shown() {
    let scratch = site();
    let accepts = "Accept-Encoding: gzip, br\r\n";
    let server = serve(&scratch, &[]);
    let answer = get(&server, "/both.js", accepts);
    assert_eq!(answer.text(), "plain text of both");
    assert_eq!((answer.field("Vary"), answer.field("Content-Encoding")), (None, None));
    server.stop();

    let options = ["enable_precompressed=yes", "hide_files_patterns=**.br$"];
    let server = serve(&scratch, &options);
    assert_eq!(get(&server, "/both.js", accepts).field("Content-Encoding"), Some("gzip"));
    server.stop();
}

#[test]
fn a_sibling_that_changes_is_seen_at_once() {
    let scratch = site();
    let server = serve(&scratch, &["enable_precompressed=yes"]);
    let mut client = server.client();
    let mut get =
        || client.ask("GET /gz.css HTTP/1.1\r\nAccept-Encoding: gzip\r\n\r\n").text().to_owned();
    assert_eq!(get(), GZ);
    scratch.write("root/gz.css.gz", "another one");
    assert_eq!(get(), "another one");
    std::fs::remove_file(scratch.join("root/gz.css.gz")).expect("removed");
    assert_eq!(get(), "plain text of gz");
    scratch.write("root/gz.css.gz", vec![b'x'; 300_000]);
    assert_eq!(get().len(), 300_000);
    server.stop();
}

fn packed(content: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
#[cfg_attr(not(feature = "deflate"), ignore = "built without compression")]
fn what_is_stored_compressed_only_is_unpacked_for_who_needs_that() {
    let scratch = Scratch::new();
    let small = b"var a = 1;\n".to_vec();
    let len = as_many_as(3_000_000, 70_000);
    let large: Vec<u8> = (0..len as u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let zeros = vec![0; len];
    let (one, other) = large.split_at(len / 3);
    let members = [packed(one), packed(b""), packed(other)].concat();
    let files = [
        ("small.js", packed(&small), &small),
        ("large.css", packed(&large), &large),
        ("zeros.txt", packed(&zeros), &zeros),
        ("members.html", members, &large),
        ("dir/index.html", packed(&small), &small),
    ];
    for (name, bytes, _) in &files {
        scratch.write(&format!("root/{name}.gz"), bytes);
    }
    for name in ["a.cgi", "a.lp", "a.key", "page.shtml"] {
        scratch.write(&format!("root/{name}.gz"), packed(b"secret"));
    }
    let options =
        ["enable_precompressed=yes", "hide_files_patterns=**.key*", "ssi_pattern=**.shtml$"];
    let server = serve(&scratch, &options);
    for (name, bytes, content) in &files {
        let target = format!("/{}", name.trim_end_matches("index.html"));
        let coded = get(&server, &target, "Accept-Encoding: gzip\r\n");
        assert!(coded.status == 200 && coded.body == *bytes, "{name}");
        assert_eq!(coded.field("Content-Encoding"), Some("gzip"));
        let tags =
            ["", "Accept-Encoding: gzip;q=0\r\n", "Accept-Encoding: br, identity, gzip;q=0.5\r\n"]
                .map(|fields| {
                    let plain = get(&server, &target, fields);
                    assert!(plain.status == 200 && plain.body == **content, "{name} {fields}");
                    assert_eq!(plain.field("Content-Encoding"), None);
                    assert_eq!(plain.field("Vary"), Some("Accept-Encoding"));
                    assert_eq!(plain.field("Accept-Ranges"), Some("none"));
                    assert_eq!(plain.field("Content-Type"), coded.field("Content-Type"));
                    assert_eq!(plain.field("Last-Modified"), coded.field("Last-Modified"));
                    plain.field("Etag").expect("a tag").to_owned()
                });
        let coded_tag = coded.field("Etag").expect("a tag").to_owned();
        assert!(tags[0] == tags[1] && tags[1] == tags[2] && tags[0] != coded_tag);
        assert_eq!(coded.field("Vary"), Some("Accept-Encoding"));

        let since = coded.field("Last-Modified").expect("a date").to_owned();
        let plain = "";
        let gzip = "Accept-Encoding: gzip\r\n";
        let cases = [
            (plain, format!("If-None-Match: {}\r\n", tags[0]), 304),
            (plain, format!("If-None-Match: {coded_tag}\r\n"), 200),
            (gzip, format!("If-None-Match: {coded_tag}\r\n"), 304),
            (gzip, format!("If-None-Match: {}\r\n", tags[0]), 200),
            (plain, format!("If-Match: {}\r\n", tags[0]), 200),
            (plain, format!("If-Match: {coded_tag}\r\n"), 412),
            (plain, format!("If-Modified-Since: {since}\r\n"), 304),
            // Of content whose length is unknown there are no ranges.
            (plain, "Range: bytes=2-3\r\n".to_owned(), 200),
            (plain, "Range: bytes=99999999-\r\n".to_owned(), 200),
            (gzip, "Range: bytes=2-3\r\n".to_owned(), 206),
            (gzip, format!("If-Range: {}\r\nRange: bytes=2-3\r\n", tags[0]), 200),
        ];
        for (accepted, fields, status) in cases {
            let answer = get(&server, &target, &format!("{accepted}{fields}"));
            assert_eq!(answer.status, status, "{name} {accepted}{fields}");
            match (status, accepted) {
                (304, _) => assert_eq!(answer.field("Vary"), Some("Accept-Encoding")),
                (206, _) => assert_eq!(answer.body, bytes[2..4]),
                (200, "") => assert!(answer.body == **content),
                _ => {}
            }
        }
        // Several requests on one connection, and those that get no content.
        let mut client = server.client();
        client.send(format!("HEAD {target} HTTP/1.1\r\n\r\n"));
        let head = client.response_without_body();
        assert_eq!((head.status, head.field("Transfer-Encoding")), (200, Some("chunked")));
        assert_eq!(head.field("Etag"), Some(tags[0].as_str()));
        assert!(client.ask(format!("GET {target} HTTP/1.1\r\n\r\n")).body == **content);
        let old = server.ask(format!("GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
        assert!(old.body == **content);
        assert_eq!(
            (old.field("Connection"), old.field("Transfer-Encoding")),
            (Some("close"), None)
        );
    }
    for target in ["/small.js/", "/a.cgi", "/a.lp", "/a.key", "/page.shtml", "/none.js", "/dir/x"] {
        assert_eq!(get(&server, target, "Accept-Encoding: gzip\r\n").status, 404, "{target}");
    }
    // The file itself wins once it is there.
    scratch.write("root/small.js", "var a = 2;\n");
    assert_eq!(get(&server, "/small.js", "").text(), "var a = 2;\n");
    server.stop();
    let server = serve(&scratch, &[]);
    assert_eq!(get(&server, "/large.css", "Accept-Encoding: gzip\r\n").status, 404);
    server.stop();
}

#[test]
#[cfg_attr(not(feature = "deflate"), ignore = "built without compression")]
fn a_file_that_cannot_be_unpacked_ends_incomplete() {
    let scratch = Scratch::new();
    let len = as_many_as(300_000, 100_000) as u32;
    let content: Vec<u8> = (0..len).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let good = packed(&content);
    scratch.write("root/cut.js.gz", &good[..good.len() - 4]);
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 0xff;
    scratch.write("root/bad.js.gz", bad);
    scratch.write("root/none.js.gz", "no such format");
    let log = scratch.join("errors");
    let options = ["enable_precompressed=yes", &format!("error_log_file={log}")];
    let server = serve(&scratch, &options);
    for name in ["cut", "bad", "none"] {
        let mut client = server.client();
        client.send(format!("GET /{name}.js HTTP/1.1\r\n\r\n"));
        let received = client.rest_or_reset();
        assert!(!received.ends_with(b"\r\n0\r\n\r\n"), "{name}");
    }
    server.stop();
    let lines = scratch.read("errors");
    assert_eq!(lines.matches("a compressed file cannot be unpacked").count(), 3, "{lines}");
}

#[test]
fn text_that_tells_no_charset_gets_the_default_one() {
    let scratch = Scratch::new();
    for name in
        ["a.html", "a.js", "a.json", "a.xml", "a.svg", "a", "a.png", "a.pdf", "a.l1", "a.md"]
    {
        scratch.write(&format!("root/{name}"), "x");
    }
    scratch.write("root/packed.css.gz", packed(b"x"));
    scratch.write("root/page.shtml", "x");
    scratch.write("root/d/x", "");
    let types = "extra_mime_types=.l1=text/plain;charset=iso-8859-1,.md=text/markdown";
    let options = [types, "ssi_pattern=**.shtml$", "enable_precompressed=yes"];
    let cases = [
        ("/a.html", "text/html", true),
        ("/a.js", "application/x-javascript", true),
        ("/a.json", "text/json", true),
        ("/a.xml", "text/xml", true),
        ("/a.svg", "image/svg+xml", true),
        ("/a", "text/plain", true),
        ("/a.md", "text/markdown", true),
        ("/a.png", "image/png", false),
        ("/a.pdf", "application/pdf", false),
        ("/a.l1", "text/plain;charset=iso-8859-1", false),
        ("/packed.css", "text/css", true),
        ("/page.shtml", "text/html", true),
        // Made by the library, which knows what it writes.
        ("/d/", "text/html; charset=utf-8", false),
        ("/none", "text/plain", false),
    ];
    for charset in ["", "utf-8", "iso-8859-15"] {
        let option = format!("default_charset={charset}");
        let server = serve(&scratch, &[&options[..], &[option.as_str()]].concat());
        for (target, kind, takes) in cases {
            let expected = match takes && !charset.is_empty() {
                true => format!("{kind}; charset={charset}"),
                false => kind.to_owned(),
            };
            let answer = get(&server, target, "");
            assert_eq!(answer.field("Content-Type"), Some(expected.as_str()), "{target}");
        }
        let part = get(&server, "/a.html", "Range: bytes=0-0,0-0\r\n").text();
        assert_eq!(part.contains("text/html; charset="), !charset.is_empty(), "{part}");
        server.stop();
    }
}

#[test]
#[cfg_attr(not(feature = "webdav"), ignore = "built without WebDAV")]
fn extra_fields_come_with_all_answers_of_the_librarys_own() {
    let scratch = site();
    scratch.write("root/.htpasswd.x", "");
    scratch.write("root/large.bin", vec![b'x'; 100_000]);
    scratch.write("root/a.lp", "");
    scratch.write("root/a.cgi", "");
    let fields = "extra_headers=Access-Control-Allow-Origin: *\r\nX-Frame-Options:DENY\n";
    let server = serve(&scratch, &[fields]);
    let cases = [
        ("GET", "/none.html", "", 200, true),
        ("POST", "/none.html", "Content-Length: 0\r\n", 200, true),
        ("GET", "/large.bin", "", 200, true),
        ("GET", "/none.html", "Range: bytes=0-1\r\n", 206, true),
        ("GET", "/none.html", "Range: bytes=0-1,3-4\r\n", 206, true),
        ("GET", "/none.html", "If-None-Match: *\r\n", 304, true),
        ("GET", "/", "", 200, true),
        ("GET", "/dir", "", 301, true),
        ("OPTIONS", "/none.html", "", 200, true),
        ("GET", "/nowhere", "", 404, true),
        ("HEAD", "/nowhere", "", 404, true),
        ("PUT", "/x", "", 401, true),
        ("BREW", "/none.html", "", 405, true),
        ("GET", "/none.html", "If-Match: \"x\"\r\n", 412, true),
        ("GET", "/none.html", "Range: bytes=99999-\r\n", 416, true),
        ("GET", "/%00", "", 400, true),
        ("GET", "/", "Host: a b\r\n", 400, true),
        ("GET", "/", "Transfer-Encoding: gzip, chunked\r\n", 501, true),
        ("GET", "/", "Upgrade: x\r\nExpect: x\r\n", 417, true),
        ("POST", "/none.html", "Content-Length: 9999999999\r\n", 413, true),
        ("GET", "/a.lp", "", 501, true),
        ("GET", "/a.cgi", "", 403, true),
        ("TRACE", "/", "", 405, true),
        ("PROPFIND", "/", "", 403, true),
        ("PROPFIND", "/none.html", "Depth: 0\r\n", 207, true),
        ("GET", "/alive", "", 200, false),
    ];
    for_each(
        &cases,
        |(method, target, fields, ..)| format!("{method} {target} {fields}"),
        |(method, target, fields, status, has)| {
            let mut client = server.client();
            client.send(format!("{method} {target} HTTP/1.1\r\n{fields}\r\n"));
            let answer = match *method {
                "HEAD" => client.response_without_body(),
                _ => client.response(),
            };
            assert_eq!(answer.status, *status);
            assert_eq!(answer.field("Access-Control-Allow-Origin"), has.then_some("*"));
            assert_eq!(answer.field("X-Frame-Options"), has.then_some("DENY"));
        },
    );
    server.stop();
}

#[test]
fn extra_fields_that_would_break_answers_are_refused() {
    let scratch = site();
    let cases = [
        ("no colon", "Option value must be lines of the form Name: value"),
        ("A B: c", "Option value must be lines of the form Name: value"),
        ("A: \x07", "Option value must not contain control characters"),
        ("A: b\rC: d", "Option value must not contain control characters"),
        ("Content-Length: 5", "Option value names a header that the library writes itself"),
        (
            "transfer-encoding: chunked",
            "Option value names a header that the library writes itself",
        ),
        ("A: b\nDate: now", "Option value names a header that the library writes itself"),
    ];
    for (value, sentence) in cases {
        let mut server =
            serve(&scratch, &["extra_headers=X-Good: 1", &format!("extra_headers={value}")]);
        server.expect_line(&format!("REFUSED extra_headers: {sentence}"));
        assert_eq!(get(&server, "/none.html", "").field("X-Good"), Some("1"), "{value}");
        server.stop();
    }
}
