//! A file system that fails for a moment: what it could not say is no answer about a file.

use crate::support::{Scratch, Server, calls_cannot_fail};

/// The calls that look at a file, by which a failure can come.
const LOOKS: &str = "statx,newfstatat,stat,lstat";

/// The options of strace by which the first of these `calls` at `path` fails.
fn first(calls: &str, path: &str, error: &str) -> [String; 6] {
    ["-P", path, "-e", "trace=all", "-e", &format!("inject=?{calls}:error={error}:when=1")]
        .map(str::to_owned)
}

/// Starts a server of `scratch/root` for which a call fails once.
fn serve(scratch: &Scratch, faults: &[String], args: &[&str]) -> Server {
    let root = format!("document_root={}", scratch.join("root"));
    let log = format!("error_log_file={}", scratch.join("error.log"));
    let faults: Vec<&str> = faults.iter().map(String::as_str).collect();
    Server::start_failing(&faults, &[&[root.as_str(), &log], args].concat())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n\r\n")
}

/// Asks for `path` twice: the first answer has this status, the second one is `content`.
#[track_caller]
fn fails_once(scratch: &Scratch, server: Server, path: &str, status: u16, content: &str) {
    scratch.write("root/other", "fine");
    let mut client = server.client();
    let answer = client.ask(get(path));
    assert_eq!(answer.status, status, "{path}: {}", answer.head);
    assert_eq!(client.ask(get("/other")).text(), "fine");
    let answer = client.ask(get(path));
    assert!(answer.status == 200 && answer.text().contains(content), "{path}: {}", answer.head);
    server.stop();
    let log = std::fs::read_to_string(scratch.join("error.log")).expect("a log");
    assert_eq!(log.matches("cannot read").count(), 1, "{path}: {log}");
}

#[test]
fn a_file_that_cannot_be_looked_at_for_a_moment_is_not_missing() {
    needs!("strace");
    let table = [
        (LOOKS, "EIO", 500),
        (LOOKS, "ESTALE", 500),
        (LOOKS, "ENOMEM", 503),
        ("openat", "EIO", 500),
        ("openat", "ESTALE", 500),
        ("openat", "ENFILE", 503),
        ("openat", "ENOMEM", 503),
        ("openat", "ETIMEDOUT", 500),
        ("pread64", "EIO", 500),
    ];
    for (calls, error, status) in table {
        if calls_cannot_fail() {
            return;
        }
        let scratch = Scratch::new();
        scratch.write("root/page.html", "content");
        let server = serve(&scratch, &first(calls, &scratch.join("root/page.html"), error), &[]);
        fails_once(&scratch, server, "/page.html", status, "content");
    }
}

#[test]
fn an_index_file_that_fails_does_not_become_a_list() {
    needs!("strace");
    if calls_cannot_fail() {
        return;
    }
    let scratch = Scratch::new();
    scratch.write("root/d/index.html", "the page");
    let server = serve(&scratch, &first("openat", &scratch.join("root/d/index.html"), "EIO"), &[]);
    fails_once(&scratch, server, "/d/", 500, "the page");
}

#[test]
fn a_directory_that_fails_is_not_missing() {
    needs!("strace");
    if calls_cannot_fail() {
        return;
    }
    for (call, error, status) in [("openat", "EIO", 500), ("getdents64", "EIO", 500)] {
        let scratch = Scratch::new();
        scratch.write("root/d/a-name", "");
        let path = scratch.join("root/d/");
        let server = serve(&scratch, &first(call, &path, error), &["index_files=none"]);
        fails_once(&scratch, server, "/d/", status, "a-name");
    }
}

#[test]
fn a_password_file_that_fails_neither_opens_the_door_nor_asks_for_another_password() {
    needs!("strace");
    if calls_cannot_fail() {
        return;
    }
    for (calls, error, status) in [(LOOKS, "EIO", 500), ("openat", "EMFILE", 503)] {
        let scratch = Scratch::new();
        scratch.write("root/secret", "content").write("root/.htpasswd", "joe:mydomain.com:0\n");
        let server = serve(&scratch, &first(calls, &scratch.join("root/.htpasswd"), error), &[]);
        let mut client = server.client();
        let answer = client.ask(get("/secret"));
        assert_eq!((answer.status, answer.field("WWW-Authenticate")), (status, None), "{error}");
        let answer = client.ask(get("/secret"));
        assert_eq!(answer.status, 401, "{error}");
        server.stop();
    }
}
