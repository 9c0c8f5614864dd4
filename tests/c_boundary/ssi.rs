//! Server-side includes, where `ssi_pattern` says so.

use super::cgi::{serve, shell};
use crate::support::{Response, Scratch, Server, as_many_as, until};

const PATTERN: &str = "ssi_pattern=**.shtml$|**.shtm$";

fn get(server: &Server, target: &str) -> Response {
    server.ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
}

fn site() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("root/part.txt", "part");
    scratch.write("root/d/part.txt", "inner <!--#include file=\"x\" -->");
    scratch.write("outside.txt", "outside");
    scratch
}

#[test]
fn without_the_option_a_page_is_a_file() {
    let scratch = site();
    let page = "a<!--#include file=\"part.txt\" -->b";
    scratch.write("root/page.shtml", page);
    let server = serve(&scratch, &[]);
    let answer = get(&server, "/page.shtml");
    assert_eq!(answer.text(), page);
    assert!(answer.field("Etag").is_some());
    server.stop();
}

#[test]
fn files_are_included_where_their_tags_are() {
    let scratch = site();
    let tag = |how: &str| format!("<!--#include {how} -->");
    shell(&scratch, "hello.cgi", "printf 'Content-Type: x\\n\\n'; echo $QUERY_STRING$PATH_INFO");
    shell(&scratch, "d/who.cgi", "printf 'A: b\\n\\n'; echo $REQUEST_METHOD $SCRIPT_NAME $HTTP_X");
    let cases: &[(String, &str)] = &[
        (tag("virtual=\"/part.txt\""), "part"),
        (tag("virtual=\"part.txt\""), "part"),
        (tag("file=\"part.txt\""), "part"),
        (tag("file='./part.txt'"), "part"),
        // What is included is searched for tags only if the pattern says so.
        (tag("file=\"d/part.txt\""), "inner <!--#include file=\"x\" -->"),
        (tag("virtual=\"d/../part.txt\""), "part"),
        (tag("virtual=\"/%70art.txt\""), "part"),
        (tag("virtual=\"/d/nested.shtml\""), "(inner <!--#include file=\"x\" --> part)"),
        (tag("file=\"d/nested.shtml\""), "(inner <!--#include file=\"x\" --> part)"),
        (tag("virtual=\"/hello.cgi?q=1\""), "q=1\n"),
        (tag("virtual=\"/hello.cgi/info?q\""), "q/info\n"),
        (tag("virtual=\"d/who.cgi\""), "GET /d/who.cgi y\n"),
        (format!("{0}+{0}", tag("virtual=\"/hello.cgi?q=1\"")), "q=1\n+q=1\n"),
        // What must not be, or is not, is nothing.
        (tag("file=\"../outside.txt\""), ""),
        (tag("file=\"d/../../outside.txt\""), ""),
        (tag(&format!("file=\"{}\"", scratch.join("outside.txt"))), ""),
        (tag("virtual=\"/../outside.txt\""), ""),
        (tag("virtual=\"%2e%2e/outside.txt\""), ""),
        (tag(&format!("abspath=\"{}\"", scratch.join("outside.txt"))), ""),
        (tag("file=\"hello.cgi\""), ""),
        (tag("virtual=\"/none\""), ""),
        (tag("virtual=\"/d\""), ""),
        (tag("virtual=\"/d/\""), ""),
        (tag("virtual=\"/guarded/secret.txt\""), ""),
        (tag("file=\"guarded/secret.txt\""), ""),
        (tag("virtual=\"/guarded/secret.cgi\""), ""),
        (tag("virtual=\"/guarded/.htpasswd\""), ""),
        (tag("virtual=\"/hidden.txt\""), ""),
        (tag("file=\"./hidden.txt\""), ""),
        (tag("file=\"private/x\""), ""),
        (tag("file=\"./private/x\""), ""),
        (tag("file=\"private//x\""), ""),
        (tag("file=\".//private/./x\""), ""),
        (tag("virtual=\"/page.lp\""), ""),
        (tag("virtual=\"/fifo\""), ""),
        (tag("virtual=\"/bad.cgi\""), ""),
        (tag("virtual=\"/not.cgi\""), ""),
        ("<!--#exec cmd=\"echo no\" -->".into(), ""),
        ("<!--#echo var=\"DATE\" -->".into(), ""),
        ("<!--#include file=\"part.txt".into(), "<!--#include file=\"part.txt"),
        ("<!-- comment -->".into(), "<!-- comment -->"),
        (format!("<!--#x {}-->", "y".repeat(5000)), "<!--#x "),
    ];
    scratch.write(
        "root/d/nested.shtml",
        "(<!--#include file=\"part.txt\" --> <!--#include virtual=\"/part.txt\" -->)",
    );
    scratch.write("root/guarded/secret.txt", "SECRET").write("root/guarded/.htpasswd", "x:y:z");
    shell(&scratch, "guarded/secret.cgi", "printf 'A: b\\n\\nSECRET'");
    shell(&scratch, "bad.cgi", "echo nonsense");
    scratch.write("root/not.cgi", "SECRET").write("root/hidden.txt", "SECRET");
    scratch.write("root/page.lp", "SECRET");
    let fifo = std::process::Command::new("mkfifo").arg(scratch.join("root/fifo")).status();
    assert!(fifo.is_ok_and(|status| status.success()));
    for (number, (page, _)) in cases.iter().enumerate() {
        scratch.write(&format!("root/{number}.shtml"), format!("[{page}]"));
    }
    scratch.write("root/private/x", "SECRET");
    let hidden = format!("hide_files_patterns=hidden*|{}/", scratch.join("root/private"));
    let server = serve(&scratch, &[PATTERN, &hidden]);
    let mut client = server.client();
    for (number, (page, wanted)) in cases.iter().enumerate() {
        let answer = client.ask(format!("GET /{number}.shtml HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"));
        assert_eq!((answer.status, answer.field("Content-Type")), (200, Some("text/html")));
        let text = answer.text();
        let cut =
            if wanted.ends_with("x ") { text.get(..wanted.len() + 1) } else { Some(text.as_str()) };
        let expected =
            if wanted.ends_with("x ") { format!("[{wanted}") } else { format!("[{wanted}]") };
        assert_eq!(cut, Some(expected.as_str()), "{page}");
    }
    // As any page: for every method that reads, in both versions.
    client.send("HEAD /0.shtml HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response_without_body().status, 200);
    let post = "POST /11.shtml HTTP/1.1\r\nHost: a\r\nX: y\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(client.ask(post).text(), "[GET /d/who.cgi y\n]");
    let mut old = server.client();
    old.send("GET /0.shtml HTTP/1.0\r\n\r\n");
    let text = String::from_utf8_lossy(&old.rest()).into_owned();
    assert!(text.ends_with("Connection: close\r\n\r\n[part]"), "{text}");
    server.stop();
    let log = scratch.read("error.log");
    for sentence in ["another password", "a hidden file", "enable_ssi_exec is not yes", "not known"]
    {
        assert!(log.contains(sentence), "{sentence} in\n{log}");
    }
}

#[test]
fn with_trust_pages_run_commands_and_show_any_file() {
    let scratch = site();
    let outside = scratch.join("outside.txt");
    let page = format!(
        "<!--#include abspath=\"{outside}\" -->|<!--#exec cmd=\"echo $SCRIPT_NAME; pwd\" -->|\
         <!--#exec cmd='printf x; exit 1' -->|<!--#include abspath=\"/dev/zero\" -->|"
    );
    scratch.write("root/d/page.shtml", page);
    let server = serve(&scratch, &[PATTERN, "enable_ssi_exec=yes"]);
    let folder = scratch.join("root/d");
    let wanted = format!("outside|/d/page.shtml\n{folder}\n|x||");
    assert_eq!(get(&server, "/d/page.shtml").text(), wanted);
    server.stop();
}

#[test]
fn cycles_are_cut_and_pages_bounded() {
    let scratch = Scratch::new();
    scratch.write("root/self.shtml", "a<!--#include virtual=\"/self.shtml\" -->b");
    scratch.write("root/one.shtml", "1<!--#include file=\"two.shtml\" -->1");
    scratch.write("root/two.shtml", "2<!--#include virtual=\"one.shtml\" -->2");
    // A name for itself that looks different each time.
    scratch.write("root/l/x.shtml", "(<!--#include virtual=\"l/x.shtml\" -->)");
    std::os::unix::fs::symlink(".", scratch.join("root/l/l")).expect("a link");
    for level in 0..12 {
        let tag = format!("<!--#include file=\"{}.shtml\" -->", level + 1);
        scratch.write(&format!("root/{level}.shtml"), format!("{level}{}", tag.repeat(10)));
    }
    scratch.write("root/12.shtml", "x");
    let server = serve(&scratch, &[PATTERN]);
    assert_eq!(get(&server, "/self.shtml").text(), "ab");
    assert_eq!(get(&server, "/one.shtml").text(), "1221");
    assert_eq!(get(&server, "/l/x.shtml").text(), format!("{}{}", "(".repeat(16), ")".repeat(16)));
    assert!(get(&server, "/0.shtml").body.len() < 5_000);
    server.stop();
    let log = scratch.read("error.log");
    for sentence in ["a page in itself", "too many pages", "too many tags"] {
        assert!(log.contains(sentence), "{sentence}");
    }
}

#[test]
fn a_page_streams_while_its_program_works_and_others_are_served() {
    let scratch = Scratch::new();
    shell(
        &scratch,
        "x.cgi",
        "printf 'A: b\\n\\none'; while ! test -e ../go; do sleep 0.01; done; echo two",
    );
    scratch.write("root/page.shtml", "begin<!--#include virtual=\"x.cgi\" -->end");
    let server = serve(&scratch, &[PATTERN]);
    let mut client = server.client();
    client.send("GET /page.shtml HTTP/1.1\r\nHost: a\r\n\r\n");
    client.take_through("5\r\nbegin\r\n3\r\none\r\n");
    assert_eq!(get(&server, "/alive").text(), "alive");
    scratch.write("go", "");
    client.expect("4\r\ntwo\n\r\n3\r\nend\r\n0\r\n\r\n");
    server.stop();
}

#[test]
fn a_large_page_is_sent_whole_as_the_client_takes_it() {
    let scratch = Scratch::new();
    let line = "0123456789<!--#include file=\"part.txt\" -->\n";
    let filler = "x".repeat(as_many_as(60_000, 6_000));
    let page = format!("{filler}{line}").repeat(200);
    scratch.write("root/page.shtml", &page);
    scratch.write("root/part.txt", "[part]");
    let server = serve(&scratch, &[PATTERN]);
    let wanted = format!("{filler}0123456789[part]\n").repeat(200);
    for _ in 0..2 {
        assert!(get(&server, "/page.shtml").text() == wanted);
    }
    server.stop();
}

#[test]
fn the_program_of_a_page_ends_with_its_client_and_in_time() {
    let scratch = Scratch::new();
    shell(&scratch, "yes.cgi", "echo $$ >../pid; printf 'A: b\\n\\n'; exec yes");
    shell(&scratch, "sleep.cgi", "printf 'A: b\\n\\none'; exec sleep 1000");
    scratch.write("root/yes.shtml", "<!--#include virtual=\"yes.cgi\" -->");
    scratch.write("root/sleep.shtml", "a<!--#include virtual=\"sleep.cgi\" -->b");
    let server = serve(&scratch, &[PATTERN, &format!("cgi_timeout_ms={}", as_many_as(2000, 5000))]);
    let mut client = server.client();
    client.send("GET /yes.shtml HTTP/1.1\r\nHost: a\r\n\r\n");
    client.take_through("y\ny\n");
    drop(client);
    let pid = scratch.read("pid");
    let place = format!("/proc/{}", pid.trim());
    until("the program is gone", || !std::fs::exists(&place).unwrap_or(true));
    assert_eq!(get(&server, "/sleep.shtml").text(), "aoneb");
    server.stop();
}

#[test]
fn an_index_page_has_tags_too() {
    let scratch = Scratch::new();
    scratch.write("root/d/index.shtml", "<!--#include virtual=\"part.txt\" -->");
    scratch.write("root/d/part.txt", "part");
    let server = serve(&scratch, &[PATTERN, "index_files=index.shtml"]);
    assert_eq!(get(&server, "/d/").text(), "part");
    server.stop();
}

#[test]
fn a_page_that_changes_while_it_is_sent_is_seen_to_be_incomplete() {
    let scratch = Scratch::new();
    let server = serve(&scratch, &[PATTERN]);
    let mut expected = 0;
    for (is_included, minor, len) in
        [(false, 1, 10), (false, 1, 100_000_001), (false, 0, 10), (true, 1, 10), (true, 0, 10)]
    {
        expected += 1;
        let page = format!("{expected}.shtml");
        let changing = if is_included { format!("{expected}.txt") } else { page.clone() };
        scratch.write(
            &format!("root/{page}"),
            format!("begin<!--#include file=\"{changing}\" -->end"),
        );
        let file = std::fs::File::create(scratch.join(&format!("root/{changing}")));
        let file = file.expect("a file");
        file.set_len(100_000_000).expect("a large, empty file");
        let mut client = server.client();
        client.send(format!("GET /{page} HTTP/1.{minor}\r\nHost: a\r\n\r\n"));
        client.take_through("\r\n\r\n");
        file.set_len(len).expect("another length");
        let (rest, was_reset) = client.rest_and_end();
        assert!(rest.len() < 100_000_000, "{expected}: {}", rest.len());
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{expected}");
        // Where the page ends with the connection, its end must not look orderly.
        assert!(was_reset || minor == 1, "{expected}");
        let complaints = || scratch.read("error.log").matches("while it was sent").count();
        until("the error log tells", || complaints() == expected);
    }
    server.stop();
}
