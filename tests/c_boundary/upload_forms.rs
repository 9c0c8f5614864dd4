//! The page of a directory that takes files, and its plain forms (`multipart/form-data`), as a browser
//! without scripts sends them.

use crate::support::{Dav, Response, Scratch, Server, as_many_as, for_each, until};

const ANYBODY: [&str; 2] = ["enable_uploads=yes", "uploads_by_anybody=yes"];

fn serve(scratch: &Scratch, args: &[&str]) -> Server {
    std::fs::create_dir_all(scratch.join("root/d")).expect("a folder");
    let root = format!("document_root={}", scratch.join("root"));
    Server::start(&[&[root.as_str()], args].concat())
}

/// A part of a form: a file.
fn file(name: &str, content: &str) -> String {
    let disposition = format!("form-data; name=\"file\"; filename=\"{name}\"");
    let fields = format!("Content-Disposition: {disposition}\r\nContent-Type: text/plain\r\n");
    format!("--bound\r\n{fields}\r\n{content}\r\n")
}

fn folder(name: &str) -> String {
    format!("--bound\r\nContent-Disposition: form-data; name=\"folder\"\r\n\r\n{name}\r\n")
}

fn post(path: &str, fields: &str, parts: &[String]) -> String {
    let content = format!("{}--bound--\r\n", parts.concat());
    let length = content.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: a.example\r\n\
         Content-Type: multipart/form-data; boundary=bound\r\n\
         {fields}Content-Length: {length}\r\n\r\n{content}"
    )
}

fn names(scratch: &Scratch, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(scratch.join(&format!("root/{folder}"))).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[track_caller]
fn assert_page(answer: &Response, status: u16, holds: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.field("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(answer.field("Content-Security-Policy").is_some());
    assert!(answer.text().contains(holds), "{}", answer.text());
}

#[test]
fn a_form_brings_files_and_a_folder_however_it_is_cut() {
    let scratch = Scratch::new();
    let server = serve(&scratch, &ANYBODY);
    let whole = post(
        "/d/?sd",
        "",
        &[
            file("a b.txt", "first\r\n--boun"),
            file("", ""),
            file("q%22 \u{e4}", ""),
            folder("new"),
            folder(""),
            "--bound\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\nx\r\n".to_owned(),
        ],
    );
    for split in (0..whole.len()).step_by(as_many_as(1, 7)) {
        let mut client = server.client();
        let (one, other) = whole.as_bytes().split_at(split);
        client.send(one).send(other);
        let answer = client.response();
        assert_eq!((answer.status, answer.field("Location")), (303, Some("./?sd")), "{split}");
        assert_eq!(names(&scratch, "d"), ["a b.txt", "new", "q\" \u{e4}"]);
        assert_eq!(scratch.read("root/d/a b.txt"), "first\r\n--boun");
        assert_eq!(client.ask("GET /d/a%20b.txt HTTP/1.1\r\n\r\n").text(), "first\r\n--boun");
        for name in ["a b.txt", "q\" \u{e4}"] {
            std::fs::remove_file(scratch.join(&format!("root/d/{name}"))).expect("a file");
        }
        std::fs::remove_dir(scratch.join("root/d/new")).expect("a folder");
    }
    let chunked = post("/d/", "", &[file("chunked", "x")]);
    let (head, content) = chunked.split_once("\r\n\r\n").expect("a head");
    let head = head.split("\r\nContent-Length").next().expect("fields");
    let mut client = server.client();
    client.send(format!("{head}\r\nTransfer-Encoding: chunked\r\n\r\n"));
    for piece in content.as_bytes().chunks(7) {
        client.send(format!("{:x}\r\n", piece.len())).send(piece).send("\r\n");
    }
    assert_eq!(client.send("0\r\n\r\n").response().status, 303);
    assert_eq!(scratch.read("root/d/chunked"), "x");
    server.stop();
}

#[test]
fn no_name_leads_out_of_the_directory_nor_to_what_is_not_anybodys() {
    let scratch = Scratch::new();
    scratch.write("root/old", "old");
    scratch.write("root/d/.htpasswd.txt", "");
    let server = serve(&scratch, &[&ANYBODY[..], &["hide_files_patterns=**.key$"]].concat());
    let long = "x".repeat(256);
    let longest = "y".repeat(255);
    let cases = [
        ("../x", 400),
        ("/x", 400),
        ("d/x", 400),
        ("..", 400),
        (".", 400),
        ("a\0b", 400),
        ("a\tb", 400),
        (long.as_str(), 400),
        (".htpasswd", 403),
        (".htpasswd.x", 403),
        (".mongoose-dav", 403),
        ("a.key", 403),
        ("a.cgi", 403),
        ("index.html", 403),
        ("d", 409),
        ("old", 409),
        (longest.as_str(), 303),
        ("a\\b", 303),
        ("<b>&'", 303),
    ];
    for_each(
        cases,
        |(name, _)| name.escape_debug().to_string(),
        |(name, status)| {
            let answer = server.ask(post("/", "", &[file(name, "new"), file("good", "x")]));
            let is_stored = std::fs::remove_file(scratch.join("root/good")).is_ok();
            assert!(is_stored, "the other file is stored");
            if *status != 303 {
                assert_page(&answer, *status, "One was stored.");
            }
            assert_eq!(answer.status, *status);
            if !name.contains('/') && !matches!(*name, "d" | "." | "..") {
                let answer = server.ask(post("/", "", &[folder(name)]));
                let expected = if *status == 303 { 409 } else { *status };
                assert_eq!(answer.status, expected, "as a folder");
            }
        },
    );
    let page = server.ask(post("/", "", &[file("<b>&'", "new")])).text();
    assert!(page.contains("<bdi>&lt;b&gt;&amp;&#39;</bdi>") && !page.contains("<b>"), "{page}");
    assert_eq!(names(&scratch, ""), ["<b>&'", "a\\b", "d", "old", longest.as_str()]);
    assert_eq!(scratch.read("root/old"), "old");
    assert_eq!(names(&scratch, "d"), [".htpasswd.txt"]);
    server.stop();
}

#[test]
fn a_form_is_as_long_as_an_upload_may_be_and_not_held_in_memory() {
    let scratch = Scratch::new();
    let limits = ["max_request_body_bytes=1000", "max_buffered_bytes=2000"];
    let server = serve(&scratch, &[&ANYBODY[..], &limits].concat());
    let content = "0123456789\r\n".repeat(as_many_as(100_000, 10_000));
    assert_eq!(server.ask(post("/", "", &[file("large", &content)])).status, 303);
    assert!(scratch.read("root/large") == content);
    server.stop();

    let server = serve(&scratch, &[&ANYBODY[..], &["max_upload_bytes=1000"]].concat());
    assert_eq!(server.ask(post("/", "", &[file("a", "x")])).status, 303);
    let mut client = server.client();
    client.send(post("/", "Expect: 100-continue\r\n", &[file("b", &"x".repeat(1000))]));
    assert_eq!(client.response().status, 413);
    assert!(!names(&scratch, "").contains(&"b".to_owned()));
    server.stop();

    // A disk, or a limit of the process, that is full in the middle of it.
    let server = serve(&scratch, &[&ANYBODY[..], &["--file-size=50000"]].concat());
    let parts = [file("c", "x"), file("d1", &"x".repeat(60_000))];
    let answer = server.ask(post("/d/", "", &parts));
    assert_page(&answer, 507, "<bdi>d1</bdi>: there is no room on the disk");
    assert!(answer.text().contains("One was stored."));
    assert_eq!(names(&scratch, "d"), ["c"]);
    server.stop();
}

#[test]
fn a_form_of_many_parts_goes_on_in_portions_and_has_an_end() {
    let parts: Vec<String> = (0..100).map(|number| folder(&format!("f{number}"))).collect();
    let head = "POST /d/ HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=bound\r\n";
    let chunk = |text: &String| format!("{:x}\r\n{text}\r\n", text.len());
    let end = "--bound--".to_owned();
    let chunks: String = parts.iter().chain([&end]).map(chunk).collect();
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
    for form in [post("/d/", "", &parts), chunked] {
        let scratch = Scratch::new();
        let mut server = serve(&scratch, &[&ANYBODY[..], &["--step"]].concat());
        let mut client = server.client();
        client.send_through(form);
        let mut before = 0;
        for _ in 0..8 {
            server.poll(1);
            let made = names(&scratch, "d").len();
            assert!(made - before <= 8, "{made} of {before}");
            before = made;
        }
        assert!(before > 0);
        server.tell("run");
        assert_eq!(client.response().status, 303);
        assert_eq!(names(&scratch, "d").len(), 100);
        server.stop();
    }
    // Parts that fail are parts as well.
    let scratch = Scratch::new();
    let server = serve(&scratch, &ANYBODY);
    let parts: Vec<String> = (0..10_001).map(|_| folder("/")).collect();
    let mut client = server.client();
    client.try_send(post("/d/", "", &parts));
    assert_page(&client.response(), 413, "And 9900 more");
    server.stop();
}

#[test]
fn nothing_is_left_of_a_form_that_breaks_off_or_is_none() {
    let scratch = Scratch::new();
    let server = serve(&scratch, &ANYBODY);
    let whole = post("/d/", "", &[file("a", "1"), file("b", &"x".repeat(100_000))]);
    let mut client = server.client();
    client.send(&whole[..whole.len() - 50_000]);
    until("the first file is there", || names(&scratch, "d") == ["a"]);
    drop(client);
    // Content that ends without its last boundary is not whole, nor is its last file.
    let content = "--bound\r\nContent-Disposition: form-data; name=f; filename=c\r\n\r\n1";
    for content in
        [content.to_owned(), String::new(), "--bound\r\n".to_owned() + &"A: b\r\n".repeat(5000)]
    {
        let answer = server.ask(format!(
            "POST /d/ HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=bound\r\n\
             Content-Length: {}\r\n\r\n{content}",
            content.len()
        ));
        assert_page(&answer, 400, "Nothing was stored.");
    }
    assert_eq!(names(&scratch, "d"), ["a"]);
    server.stop();
}

#[test]
fn a_form_needs_the_password_and_comes_from_a_page_of_this_server() {
    let dav = Dav::start(&["enable_uploads=yes"]);
    let form = post("/", "", &[file("a", "x")]);
    let answer = dav.server.ask(&form);
    assert_eq!(answer.status, 401);
    assert!(answer.field("WWW-Authenticate").is_some_and(|it| it.starts_with("Digest")));
    assert!(dav.names("").is_empty());
    let signed = |fields: &str| {
        let authorization = dav.authorization("joe", "POST", "/");
        dav.server.ask(post("/", &format!("{authorization}{fields}"), &[file("a", "x")])).status
    };
    let cases = [
        ("Origin: http://evil.example\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
        ("Sec-Fetch-Site: same-site\r\n", 403),
        ("Referer: http://evil.example/a\r\n", 403),
        ("", 303),
        ("Origin: http://a.example\r\nSec-Fetch-Site: same-origin\r\n", 409),
    ];
    for (fields, status) in cases {
        assert_eq!(signed(fields), status, "{fields}");
    }
    assert_eq!(dav.names(""), ["a"]);
    // The lock of another one holds.
    std::fs::create_dir(dav.scratch.join("root/l")).expect("a folder");
    dav.lock("/l", "");
    let authorization = dav.authorization("jane", "POST", "/l/");
    let answer = dav.server.ask(post("/l/", &authorization, &[file("a", "x")]));
    assert_page(&answer, 423, "somebody has locked this");
    dav.stop();

    for (options, user) in
        [(&[][..], false), (&["enable_uploads=no", "uploads_by_anybody=yes"], true)]
    {
        let dav = Dav::start(options);
        let authorization = match user {
            true => dav.authorization("joe", "POST", "/"),
            false => String::new(),
        };
        // As a GET.
        let answer = dav.server.ask(post("/", &authorization, &[file("a", "x")]));
        assert!(answer.status == 200 && answer.text().contains("<title>Index of /</title>"));
        assert!(dav.names("").is_empty());
        dav.stop();
    }
}

#[test]
fn a_form_goes_to_a_directory_that_is_listed_and_nowhere_else() {
    let scratch = Scratch::new();
    scratch.write("root/page/index.html", "a page");
    scratch.write("root/file", "content");
    scratch.write("root/guarded/.htpasswd", "");
    scratch.write("root/hidden/file", "");
    let hides = "hide_files_patterns=hidden$";
    let server = serve(&scratch, &[&ANYBODY[..], &[hides]].concat());
    let cases = [
        ("/page/", 200, "a page"),
        ("/hidden/", 404, "404 Not Found\n"),
        ("/file", 200, "content"),
        ("/d", 301, ""),
        ("/none/", 404, "404 Not Found\n"),
        ("/guarded/", 401, ""),
    ];
    for (path, status, text) in cases {
        let answer = server.ask(post(path, "", &[file("a", "x")]));
        assert_eq!((answer.status, answer.text().as_str()), (status, text), "{path}");
    }
    // Other content is for programs.
    let other = "POST /d/ HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(server.ask(other).status, 200);
    assert!(names(&scratch, "d").is_empty());
    server.stop();
}

#[test]
fn a_page_shows_its_tools_where_somebody_may_use_them() {
    let scratch = Scratch::new();
    let passwords = format!("dav_auth_file={}", scratch.join("passwords"));
    scratch.write("passwords", "");
    let cases = [
        (&["enable_uploads=yes"][..], false),
        (&["uploads_by_anybody=yes"], false),
        (&[passwords.as_str()], false),
        (&["enable_uploads=yes", passwords.as_str()], true),
        (&ANYBODY, true),
    ];
    for (options, is_shown) in cases {
        let server = serve(&scratch, options);
        let answer = server.ask("GET /d/ HTTP/1.1\r\n\r\n");
        let page = answer.text();
        assert_eq!(page.contains("enctype=\"multipart/form-data\""), is_shown, "{options:?}");
        assert_eq!(page.contains("MKCOL"), is_shown, "{options:?}");
        let policy = answer.field("Content-Security-Policy").unwrap_or_default();
        assert_eq!(policy.contains("form-action 'self'"), is_shown, "{options:?}");
        server.stop();
    }
}
