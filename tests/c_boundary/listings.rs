//! Pages that list directories, and rewritten paths.

use std::time::Duration;

use crate::support::{Response, Scratch, Server, as_many_as, for_each};

fn serve(scratch: &Scratch, args: &[&str]) -> Server {
    let root = format!("document_root={}", scratch.join("root"));
    let mut all = vec![root.as_str()];
    all.extend(args);
    Server::start(&all)
}

fn links(page: &str) -> Vec<String> {
    let rows = page.split("<tbody>").nth(1).expect("a table");
    rows.split("<a href=\"")
        .skip(1)
        .map(|row| row.split('"').next().expect("a link").to_owned())
        .collect()
}

#[test]
fn a_directory_without_index_is_listed_in_the_order_asked_for() {
    let scratch = Scratch::new();
    scratch.write("root/b.txt", "22");
    scratch.write("root/a.txt", "55555");
    scratch.write("root/c.txt", "");
    scratch.write("root/z/x", "");
    scratch.write("root/.htpasswd.x", "");
    scratch.write("root/no.key", "");
    let server = serve(&scratch, &["hide_files_patterns=**.key$"]);
    let cases = [
        ("/", ["z/", "a.txt", "b.txt", "c.txt"]),
        ("/?n", ["z/", "a.txt", "b.txt", "c.txt"]),
        ("/?nd", ["z/?nd", "c.txt", "b.txt", "a.txt"]),
        ("/?s", ["z/?sa", "c.txt", "b.txt", "a.txt"]),
        ("/?sd", ["z/?sd", "a.txt", "b.txt", "c.txt"]),
        ("/?nonsense", ["z/", "a.txt", "b.txt", "c.txt"]),
    ];
    for_each(
        cases,
        |(target, _)| target.to_string(),
        |(target, wanted)| {
            let answer = server.ask(format!("GET {target} HTTP/1.1\r\n\r\n"));
            assert_eq!(answer.status, 200);
            assert_eq!(answer.field("Content-Type"), Some("text/html; charset=utf-8"));
            assert_eq!(links(&answer.text()), *wanted);
        },
    );
    let below = server.ask("GET /z/ HTTP/1.1\r\n\r\n");
    assert_eq!(links(&below.text()), ["../", "x"]);
    // The order stays on the way down and up.
    let below = server.ask("GET /z/?dd HTTP/1.1\r\n\r\n").text();
    assert_eq!(links(&below), ["../?dd", "x"]);
    assert!(below.contains("<a href=\"../?dd\">/</a><a href=\"./?dd\">z</a>/"), "{below}");
    server.stop();
}

#[test]
fn numbers_in_names_count_and_an_empty_folder_says_so() {
    let scratch = Scratch::new();
    for name in ["file10", "file9", "file1", "file010", "File2", "d10/x", "d9/x"] {
        scratch.write(&format!("root/{name}"), "");
    }
    std::fs::create_dir(scratch.join("root/empty")).expect("a folder");
    scratch.write("root/empty/.htpasswd.x", "");
    let server = serve(&scratch, &[]);
    let page = server.ask("GET / HTTP/1.1\r\n\r\n").text();
    let sorted = ["d9/", "d10/", "empty/", "File2", "file1", "file9", "file010", "file10"];
    assert_eq!(links(&page), sorted);
    assert!(!page.contains("This folder is empty."));
    let page = server.ask("GET /empty/ HTTP/1.1\r\n\r\n").text();
    assert_eq!(links(&page), ["../"]);
    assert!(page.contains("This folder is empty."), "{page}");
    server.stop();
}

#[test]
fn a_page_runs_nothing_but_its_own_script_and_needs_none() {
    let scratch = Scratch::new();
    scratch.write("root/a.txt", "a");
    let file = std::fs::File::options().write(true).open(scratch.join("root/a.txt"));
    let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    file.expect("a file").set_modified(time).expect("a time");
    let server = serve(&scratch, &[]);
    let answer = server.ask("GET / HTTP/1.1\r\n\r\n");
    let policy = answer.field("Content-Security-Policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
    let page = answer.text();
    let time = "<time datetime=\"2001-09-09T01:46Z\">2001-09-09 01:46</time>";
    assert!(page.contains(time) && page.contains("Modified<span class=\"utc\"> (UTC)</span>"));
    assert!(!page.contains(" style=") && !page.contains(" onclick="), "{page}");
    server.stop();
}

#[test]
fn names_are_escaped_for_html_and_for_links() {
    use std::os::unix::ffi::OsStrExt as _;
    let scratch = Scratch::new();
    scratch.write("root/<b>&\"x\".txt", "");
    scratch.write("root/a b%.txt", "found");
    let bytes =
        std::path::Path::new(&scratch.join("root")).join(std::ffi::OsStr::from_bytes(b"\xff"));
    std::fs::write(bytes, "odd").expect("a file");
    let server = serve(&scratch, &[]);
    let page = server.ask("GET / HTTP/1.1\r\n\r\n").text();
    assert!(!page.contains("<b>"), "{page}");
    assert!(page.contains("&lt;b&gt;&amp;"), "{page}");
    let links = links(&page);
    for (link, body) in [("a%20b%25.txt", "found"), ("%FF", "odd")] {
        assert!(links.iter().any(|found| found.eq_ignore_ascii_case(link)), "{links:?}");
        assert_eq!(server.ask(format!("GET /{link} HTTP/1.1\r\n\r\n")).text(), body);
    }
    server.stop();
}

#[test]
fn a_large_directory_is_listed_whole_while_others_are_served() {
    let scratch = Scratch::new();
    let count = as_many_as(10_000, 2000);
    for number in 0..count {
        // In an order that no directory has by itself.
        scratch.write(&format!("root/many/file{:05}", number * 7919 % count), "");
    }
    scratch.write("root/a.txt", "a");
    let root = format!("document_root={}", scratch.join("root"));
    let mut server = Server::start(&["--step", &root]);
    let (mut one, mut other) = (server.accepted(), server.accepted());
    one.send_through("GET /many/ HTTP/1.1\r\n\r\nGET /a.txt HTTP/1.1\r\n\r\n");
    server.poll(2);
    other.send_through("GET /a.txt HTTP/1.1\r\n\r\n");
    server.poll(2);
    assert_eq!(other.response().text(), "a");
    assert!(!one.has_news_within(Duration::from_millis(1)), "it is being read");
    // Nor is it sent at one go.
    let mut polls = 0;
    while !one.has_news_within(Duration::from_millis(1)) {
        server.poll(1);
        polls += 1;
        assert!(polls < count, "it never begins");
    }
    other.send_through("GET /a.txt HTTP/1.1\r\n\r\n");
    server.poll(2);
    assert_eq!(other.response().text(), "a");
    server.tell("run");
    let page = one.response();
    assert_eq!(page.field("Transfer-Encoding"), Some("chunked"));
    let mut wanted = vec!["../".to_owned()];
    wanted.extend((0..count).map(|number| format!("file{number:05}")));
    assert!(links(&page.text()) == wanted);
    assert_eq!(one.response().text(), "a");
    server.stop();
}

#[test]
fn who_knows_no_chunks_gets_a_page_that_ends_with_the_connection() {
    let scratch = Scratch::new();
    scratch.write("root/a.txt", "a");
    let server = serve(&scratch, &[]);
    let mut old = server.client();
    let page = old.ask("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(page.field("Connection"), Some("close"));
    assert_eq!((page.field("Transfer-Encoding"), page.field("Content-Length")), (None, None));
    assert!(page.text().ends_with("</html>\n"));
    let mut client = server.client();
    client.send("HEAD / HTTP/1.1\r\n\r\n");
    let head = client.response_without_body();
    assert_eq!((head.status, head.field("Transfer-Encoding")), (200, Some("chunked")));
    let page = client.ask("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(links(&page.text()), ["a.txt"]);
    let fields =
        |answer: &Response| answer.fields.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(fields(&head), fields(&page));
    server.stop();
}

#[test]
fn listing_can_be_switched_off() {
    let scratch = Scratch::new();
    scratch.write("root/a.txt", "a");
    for value in ["no", "0", "true"] {
        let server = serve(&scratch, &[&format!("enable_directory_listing={value}")]);
        assert_eq!(server.ask("GET / HTTP/1.1\r\n\r\n").status, 403, "{value}");
        server.stop();
    }
}

#[test]
fn a_rewrite_replaces_what_its_pattern_matches() {
    let scratch = Scratch::new();
    scratch.write("root/a.txt", "root");
    scratch.write("data/a.txt", "data");
    scratch.write("secret.txt", "secret");
    let rewrites = format!("url_rewrites=/d/={0}/,/e={0}/", scratch.join("data"));
    let server = serve(&scratch, &[&rewrites]);
    let cases = [
        ("/a.txt", 200, "root"),
        ("/d/a.txt", 200, "data"),
        ("/e/a.txt", 200, "data"),
        ("/D/a.txt", 200, "data"),
        ("/e../secret.txt", 404, "404 Not Found\n"),
        ("/d/%2e%2e/secret.txt", 404, "404 Not Found\n"),
    ];
    for_each(
        cases,
        |(target, ..)| target.to_string(),
        |(target, status, body)| {
            let answer = server.ask(format!("GET {target} HTTP/1.1\r\n\r\n"));
            assert_eq!((answer.status, answer.text().as_str()), (*status, *body));
        },
    );
    server.stop();
}

#[test]
fn the_source_of_lua_pages_is_not_shown() {
    let scratch = Scratch::new();
    scratch.write("root/a.lp", "<? secret ?>");
    scratch.write("root/d/index.lp", "<? secret ?>");
    scratch.write("root/page.shtml", "[<!--#include virtual=\"a.lp\" -->]");
    // Nor run, whatever the pattern of programs says.
    for pattern in ["cgi_pattern=**.cgi$", "cgi_pattern=**.lp$"] {
        let server = serve(&scratch, &[pattern, "ssi_pattern=**.shtml$"]);
        for path in ["/a.lp", "/d/"] {
            let answer = server.ask(format!("GET {path} HTTP/1.1\r\n\r\n"));
            assert_eq!(answer.status, 501, "{path} {pattern}");
        }
        assert_eq!(server.ask("GET /page.shtml HTTP/1.1\r\n\r\n").text(), "[]");
        server.stop();
    }
}

#[test]
fn names_count_among_what_is_buffered_until_they_are_sent() {
    let scratch = Scratch::new();
    // An entry takes some 45 bytes where pointers have four.
    for number in 0..4000 {
        scratch.write(&format!("root/large/{number}"), "");
    }
    for number in 0..300 {
        scratch.write(&format!("root/small/{number}"), "");
    }
    let server = serve(&scratch, &["max_buffered_bytes=100000"]);
    let mut client = server.client();
    for _ in 0..20 {
        assert_eq!(client.ask("GET /large/ HTTP/1.1\r\n\r\n").status, 503);
        let page = client.ask("GET /small/ HTTP/1.1\r\n\r\n");
        assert_eq!((page.status, links(&page.text()).len()), (200, 301));
    }
    server.stop();
}

#[test]
#[cfg_attr(not(feature = "webdav"), ignore = "built without WebDAV")]
fn names_that_no_uri_can_carry_are_not_told_of() {
    let dav = crate::support::Dav::start(&[]);
    let root = dav.scratch.join("root");
    for name in ["a\u{1}b", "line\nbreak", "tab\t", "\u{7f}", "good"] {
        std::fs::write(format!("{root}/{name}"), "").expect("a file");
    }
    std::fs::create_dir(format!("{root}/d\r")).expect("a folder");
    std::os::unix::fs::symlink("good", format!("{root}/link\u{1b}")).expect("a link");
    let page = dav.server.ask("GET / HTTP/1.1\r\n\r\n").text();
    assert_eq!(links(&page), ["good"]);
    let told = dav.propfind("/", "1", "").text();
    assert_eq!(told.matches("<D:response>").count(), 2, "{told}");
    // They go with the directory that they are in.
    assert_eq!(dav.status("MKCOL", "/x", "", ""), 201);
    std::fs::write(format!("{root}/x/\u{1}"), "").expect("a file");
    assert_eq!(dav.status("DELETE", "/x", "", ""), 204);
    dav.stop();
}
