//! Attempts to get at files that are not published: spellings of paths by the thousand, password
//! files, and things that are no files.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::support::{Client, Response, Scratch, Server, as_many_as, for_each};

/// Stands in every file that nobody may get.
const MARKER: &str = "marker of a secret";

fn site() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("secret.txt", MARKER);
    scratch.write("root/index.html", "<p>home</p>");
    scratch.write("root/a.txt", "hello");
    scratch.write("root/dir/index.html", "inside");
    scratch
}

fn serve(scratch: &Scratch, args: &[&str]) -> Server {
    let root = format!("document_root={}", scratch.join("root"));
    let mut all = vec![root.as_str()];
    all.extend(args);
    Server::start(&all)
}

const STARTS: &[&str] =
    &["/", "//", "/dir/", "/a.txt/", "/none/", "/%2f", "/dir%2f", "/\\", "/./", "http://h/"];
const DOTS: &[&str] = &[
    "..",
    ".",
    "...",
    "....",
    "%2e%2e",
    "%2E.",
    ".%2e",
    "%252e%252e",
    "%25%32%65.",
    "%c0%ae%c0%ae",
    "%c0%2e%c0%2e",
    "%e0%80%ae%e0%80%ae",
    "%f0%80%80%ae.",
    "%u002e%u002e",
    "%ef%bc%8e%ef%bc%8e",
    "\u{c0}\u{ae}.",
    "..%00",
    "%00..",
    "..;",
    "..%20",
    "..%01",
    ".%0a.",
];
const SLASHES: &[&str] = &[
    "/",
    "//",
    "/./",
    "%2f",
    "%2F",
    "\\",
    "%5c",
    "%5C",
    "%252f",
    "%255c",
    "%c0%af",
    "%e0%80%af",
    "%c1%9c",
    "%ef%bc%8f",
    "/%00/",
    "/;/",
];
const ENDS: &[&str] = &["", ".", "%00", "%00.html", "/", "%20", "::$DATA", "?x"];

/// Ways to write the path of the secret, regular ones and mixed ones.
fn spellings() -> Vec<String> {
    let mut all = Vec::new();
    for start in STARTS {
        for dots in DOTS {
            for slash in SLASHES {
                for depth in [1, 2, 5] {
                    all.push(format!(
                        "{start}{}secret.txt",
                        format!("{dots}{slash}").repeat(depth)
                    ));
                }
            }
        }
    }
    let mut state: u64 = 0x2545_f491_4f6c_dd1d;
    let mut pick = |from: &[&'static str]| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        from[(state >> 33) as usize % from.len()]
    };
    for _ in 0..3000 {
        let mut path = pick(STARTS).to_owned();
        for _ in 0..pick(&["1", "22", "333"]).len() {
            path.push_str(pick(DOTS));
            path.push_str(pick(SLASHES));
        }
        let name = pick(&["secret.txt", "%73ecret.txt", "dir/../secret.txt", "root/../secret.txt"]);
        all.push(format!("{path}{name}{}", pick(ENDS)));
    }
    all.truncate(as_many_as(usize::MAX, 300));
    all
}

/// Asks for all targets, many on a connection for as long as that stays open.
fn ask_for_all(server: &Server, method: &str, targets: &[String], check: impl Fn(&str, &Response)) {
    let mut left = targets;
    while !left.is_empty() {
        let batch = &left[..left.len().min(50)];
        let mut client: Client = server.client();
        let requests: Vec<String> =
            batch.iter().map(|target| format!("{method} {target} HTTP/1.1\r\n\r\n")).collect();
        client.try_send(requests.concat());
        let mut answered = 0;
        for target in batch {
            let answer = client.response();
            check(target, &answer);
            answered += 1;
            if answer.field("Connection") == Some("close") {
                break;
            }
        }
        left = &left[answered..];
    }
}

#[test]
fn no_spelling_leads_out_of_the_root() {
    let scratch = site();
    let server = serve(&scratch, &["url_rewrites=/rw/=root/,/up="]);
    let targets = spellings();
    ask_for_all(&server, "GET", &targets, |target, answer| {
        assert!(!answer.text().contains(MARKER), "{target}");
        assert!([200, 301, 400, 404].contains(&answer.status), "{target}: {}", answer.status);
    });
    // The marker is what a request for it inside of the root would get.
    let mut client = server.client();
    client.ask("GET /alive HTTP/1.1\r\n\r\n");
    std::fs::copy(scratch.join("secret.txt"), scratch.join("root/secret.txt")).expect("a copy");
    assert_eq!(client.ask("GET /dir/../secret.txt HTTP/1.1\r\n\r\n").text(), MARKER);
    server.stop();
}

#[test]
fn no_rewrite_leads_out_of_where_it_points() {
    let scratch = site();
    scratch.write("data/x.txt", "data");
    let data = scratch.join("data");
    let rewrites = format!("url_rewrites=/a={data},/b/={data}/,/c={data}/,/d**x={data}/.");
    let server = serve(&scratch, &[&rewrites]);
    let mut targets = Vec::new();
    for start in ["/a", "/b/", "/b", "/c", "/dx", "/d/y/x"] {
        for dots in DOTS {
            for slash in SLASHES {
                for end in ["", "%00", "/", "."] {
                    targets.push(format!("{start}{dots}{slash}secret.txt{end}"));
                    targets.push(format!("{start}{slash}{dots}{slash}secret.txt{end}"));
                }
            }
        }
    }
    targets.truncate(as_many_as(usize::MAX, 300));
    ask_for_all(&server, "GET", &targets, |target, answer| {
        assert!(!answer.text().contains(MARKER), "{target}");
        assert!([400, 404].contains(&answer.status), "{target}: {}", answer.status);
    });
    for start in ["/a/", "/b/", "/c", "/c/"] {
        let answer = server.ask(format!("GET {start}x.txt HTTP/1.1\r\n\r\n"));
        assert_eq!(answer.text(), "data", "{start}");
    }
    server.stop();
}

#[test]
fn what_is_no_file_in_the_place_of_a_password_file_lets_nobody_in() {
    let scratch = site();
    let places = [
        ("null", "/dev/null"),
        ("folder", "/"),
        ("dangling", "none"),
        ("through", "file/none"),
        ("loop", ".htpasswd"),
    ];
    for (place, target) in places {
        scratch.write(&format!("root/{place}/file"), MARKER);
        std::os::unix::fs::symlink(target, scratch.join(&format!("root/{place}/.htpasswd")))
            .expect("a link");
        scratch.write(
            &format!("root/{place}.shtml"),
            format!("[<!--#include virtual=\"/{place}/file\" -->]"),
        );
    }
    let server = Server::start(&[
        &format!("document_root={}", scratch.join("root")),
        &format!("error_log_file={}", scratch.join("errors")),
        "ssi_pattern=**.shtml$",
    ]);
    for (place, _) in places {
        for name in ["file", "file", "", "none"] {
            let answer = server.ask(format!("GET /{place}/{name} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(answer.status, 401, "{place}/{name}");
        }
        let answer = server.ask(format!("GET /{place}.shtml HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(answer.text(), "[]", "{place}");
    }
    server.stop();
    let errors = scratch.read("errors");
    for (place, _) in places {
        let path = scratch.join(&format!("root/{place}/.htpasswd"));
        assert_eq!(errors.matches(&format!("cannot read passwords from {path}: ")).count(), 4);
    }
}

#[test]
fn no_spelling_gets_a_password_file() {
    let scratch = site();
    let line = format!("joe:mydomain.com:{MARKER}");
    // Where there is such a file everything asks for a password; a copy beside guards nothing.
    scratch.write("root/guarded/.htpasswd", &line);
    scratch.write("root/dir/.htpasswd.old", &line);
    scratch.write("root/dir/.htpasswd~", &line);
    let server = serve(&scratch, &["enable_precompressed=yes"]);
    let names = [
        ".htpasswd",
        ".HTPASSWD",
        ".HtPasswd",
        "%2ehtpasswd",
        ".%68tpasswd",
        "%2e%68%74%70%61%73%73%77%64",
        "./.htpasswd",
        "%2e/.htpasswd",
        "../guarded/.htpasswd",
        "../dir/.htpasswd",
        "x/../.htpasswd",
        "/.htpasswd",
        "//.htpasswd",
        "%2f.htpasswd",
        "\\.htpasswd",
        "%5c.htpasswd",
        "%252ehtpasswd",
        "%c0%aehtpasswd",
        "%e0%80%aehtpasswd",
        "%ef%bc%8ehtpasswd",
        ".htpasswd%00",
        "%00.htpasswd",
        ".htpasswd%20",
        ".htpasswd.",
        ".htpasswd..",
        ".htpasswd/",
        ".htpasswd/.",
        ".htpasswd//",
        ".htpasswd%2f",
        ".htpasswd\\",
        ".htpasswd;",
        ".htpasswd::$DATA",
        ".htpasswd?x",
        ".htpasswd#x",
        "htpasswd",
    ];
    let mut targets = Vec::new();
    for folder in ["/guarded/", "/dir/", "/none/../dir/", "http://h/dir/", "/dir//"] {
        for name in names {
            for end in ["", "~", ".old", "%7e", ".%6fld", ".OLD"] {
                let (path, rest) = name.split_at(name.find(['?', '#']).unwrap_or(name.len()));
                targets.push(format!("{folder}{path}{end}{rest}"));
            }
        }
    }
    for method in ["GET", "POST", "PROPFIND", "PUT", "BREW"] {
        ask_for_all(&server, method, &targets, |target, answer| {
            assert!(!answer.text().contains(MARKER), "{method} {target}");
            let status = answer.status;
            assert!([400, 401, 404, 405].contains(&status), "{method} {target}: {status}");
        });
    }
    let page = server.ask("GET /dir/?n HTTP/1.1\r\n\r\n").text();
    assert_eq!(page, "inside");
    server.stop();
}

#[test]
fn what_is_no_file_or_cannot_be_read_has_a_defined_answer() {
    let scratch = site();
    let path = |name: &str| scratch.join(&format!("root/{name}"));
    let fifo = std::ffi::CString::new(path("fifo")).expect("a path");
    // SAFETY: `fifo` is a C string.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o666) }, 0);
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).expect("a socket");
    for (target, name) in [
        ("fifo", "to_fifo.txt"),
        ("/dev/zero", "zero.txt"),
        ("/dev/null", "null.txt"),
        ("/dev/tty", "tty.txt"),
        ("/proc/self/fd/0", "stdin.txt"),
        ("loop_b", "loop_a"),
        ("loop_a", "loop_b"),
        ("nowhere", "dangling.txt"),
        ("a.txt/x", "through_a_file"),
        (&path("dir"), "to_dir.txt"),
    ] {
        symlink(target, path(name)).expect("a link");
    }
    scratch.write("root/program.cgi/index.html", "a folder, not a program");
    scratch.write("root/page.lp/index.html", "a folder, not a page");
    scratch.write("root/text.gz/a.txt", "a folder, not an archive");
    scratch.write("root/unreadable.txt", MARKER);
    scratch.write("root/closed/a.txt", MARKER);
    scratch.write("root/listless/a.txt", "known by name");
    scratch.write("root/locked/a.txt", MARKER);
    scratch.write("root/locked/.htpasswd", "joe:mydomain.com:x");
    let modes = [
        ("unreadable.txt", 0o000),
        ("closed", 0o000),
        ("listless", 0o311),
        ("locked/.htpasswd", 0o000),
    ];
    for (name, mode) in modes {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path(name), mode).expect("a mode");
    }
    // Root may read everything.
    // SAFETY: it takes nothing and cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    let user = if is_root { "run_as_user=nobody" } else { "run_as_user=" };
    let server = serve(&scratch, &[user, "enable_precompressed=yes"]);
    let cases = [
        ("/fifo", 404),
        ("/fifo/", 404),
        ("/to_fifo.txt", 404),
        ("/socket", 404),
        ("/zero.txt", 404),
        ("/null.txt", 404),
        ("/tty.txt", 404),
        ("/stdin.txt", 404),
        ("/loop_a", 404),
        // Where it cannot be seen whether there is a password file, nobody gets in.
        ("/loop_a/x", 401),
        ("/closed", 401),
        ("/closed/", 401),
        ("/closed/a.txt", 401),
        ("/dangling.txt", 404),
        ("/through_a_file", 404),
        ("/a.txt/", 404),
        ("/a.txt/x", 404),
        ("/to_dir.txt", 301),
        ("/to_dir.txt/", 200),
        ("/program.cgi", 301),
        ("/program.cgi/", 200),
        ("/page.lp", 301),
        ("/page.lp/", 200),
        ("/text", 404),
        ("/text.gz", 301),
        ("/text.gz/", 200),
        ("/unreadable.txt", 403),
        ("/listless/", 403),
        ("/listless/a.txt", 200),
        ("/locked/a.txt", 401),
        ("/locked/", 401),
    ];
    for_each(
        cases,
        |(target, _)| target.to_string(),
        |(target, status)| {
            for method in ["GET", "HEAD", "POST"] {
                let mut client = server.client();
                client.send(format!("{method} {target} HTTP/1.1\r\nContent-Length: 0\r\n\r\n"));
                let answer = match method {
                    "HEAD" => client.response_without_body(),
                    _ => client.response(),
                };
                assert_eq!(answer.status, *status, "{method}");
                assert!(!answer.text().contains(MARKER), "{method}");
            }
        },
    );
    let back = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path("closed"), back).expect("so that it can be removed");
    server.stop();
}
