//! From the path of a request to a file: rewrites, index files, hidden names, types, in all the
//! ways in which a path can be written.

use std::os::unix::fs::symlink;

use crate::support::{Response, Scratch, Server, for_each};

fn site() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("root/a.txt", "a");
    scratch.write("root/a.txt.", "a with a dot");
    scratch.write("root/b..txt", "two dots");
    scratch.write("root/...", "three dots");
    scratch.write("root/dir/in.txt", "in");
    scratch.write("root/UPPER.TXT", "upper");
    scratch.write("root/caf\u{e9}/\u{fc}.txt", "unicode");
    scratch.write("root/percent%2fname", "percent");
    scratch.write("root/plus+and space", "plus");
    scratch.write("data/in.txt", "data");
    symlink("dir", scratch.join("root/link")).expect("a link");
    symlink(scratch.join("data"), scratch.join("root/out")).expect("a link");
    symlink("../../root/a.txt", scratch.join("root/dir/up.txt")).expect("a link");
    scratch
}

fn serve(scratch: &Scratch, args: &[&str]) -> Server {
    let root = format!("document_root={}", scratch.join("root"));
    let mut all = vec![root.as_str(), "enable_directory_listing=no"];
    all.extend(args);
    Server::start(&all)
}

fn get(server: &Server, target: &str) -> Response {
    server.ask(format!("GET {target} HTTP/1.1\r\n\r\n"))
}

/// Each target gets this status and, with 200, this body.
#[track_caller]
fn expect(server: &Server, cases: &[(&str, u16, &str)]) {
    for_each(
        cases,
        |(target, ..)| target.chars().take(60).collect(),
        |(target, status, body)| {
            let answer = get(server, target);
            assert_eq!(answer.status, *status);
            if *status == 200 {
                assert_eq!(answer.text(), *body);
            }
        },
    );
}

#[test]
fn a_file_is_found_by_its_own_name_only() {
    let scratch = site();
    let server = serve(&scratch, &[]);
    let long = format!("/{}", "x".repeat(300));
    let deep = format!("/{}a.txt", "d/".repeat(4000));
    let folded = format!("/{}a.txt", "./d/../".repeat(1000));
    expect(
        &server,
        &[
            ("/a.txt", 200, "a"),
            ("//a.txt", 200, "a"),
            ("/./a.txt", 200, "a"),
            ("/dir/../a.txt", 200, "a"),
            ("/none/../a.txt", 200, "a"),
            ("/%61.t%78t", 200, "a"),
            ("http://h:1/a.txt", 200, "a"),
            ("/a.txt?b=/../c", 200, "a"),
            // A dot more is another name.
            ("/a.txt.", 200, "a with a dot"),
            ("/a.txt%2e", 200, "a with a dot"),
            ("/a.txt..", 404, ""),
            ("/b..txt", 200, "two dots"),
            ("/...", 200, "three dots"),
            ("/a.txt%20", 404, ""),
            ("/A.TXT", 404, ""),
            ("/upper.txt", 404, ""),
            ("/UPPER.TXT", 200, "upper"),
            ("/a.txt;x", 404, ""),
            ("/a.txt::$DATA", 404, ""),
            ("/a.txt~1", 404, ""),
            // A slash is a slash, also an encoded one; a backslash is not.
            ("/dir%2fin.txt", 200, "in"),
            ("/dir%2Fin.txt", 200, "in"),
            ("/dir%2f%2e%2e%2fa.txt", 200, "a"),
            ("/dir%5cin.txt", 404, ""),
            ("/dir%252fin.txt", 404, ""),
            ("/percent%252fname", 200, "percent"),
            ("/percent%2fname", 404, ""),
            ("/plus+and%20space", 200, "plus"),
            ("/plus%2band%20space", 200, "plus"),
            ("/plus%20and%20space", 404, ""),
            ("/caf%c3%a9/%C3%BC.txt", 200, "unicode"),
            ("/caf%e9/%fc.txt", 404, ""),
            // Links are followed, also out of the root; where they are is no way to climb.
            ("/link/in.txt", 200, "in"),
            ("/out/in.txt", 200, "data"),
            ("/dir/up.txt", 200, "a"),
            ("/out/../a.txt", 200, "a"),
            ("/out/../../data/in.txt", 404, ""),
            ("/link", 301, ""),
            ("/dir", 301, ""),
            ("/dir/", 403, ""),
            ("/a.txt/", 404, ""),
            ("/a.txt/.", 404, ""),
            ("/dir/in.txt/..", 403, ""),
            // Too long for any file system.
            (&long, 404, ""),
            (&deep, 404, ""),
            (&folded, 200, "a"),
        ],
    );
    server.stop();
}

#[test]
fn rewrites_are_tried_in_their_order() {
    let scratch = site();
    let (data, root) = (scratch.join("data"), scratch.join("root"));
    let rewrites = format!(
        "url_rewrites=/first={data},/first/in.txt={root}/a.txt,/~*/={data}/,\
         **.old$={root}/a.txt,/x|/y={data},/file={root}/a.txt,/link2={root}/link,/gone=/no/where"
    );
    let server = serve(&scratch, &[&rewrites, "hide_files_patterns=**.key$"]);
    scratch.write("data/x.key", "key");
    expect(
        &server,
        &[
            ("/first/in.txt", 200, "data"),
            ("/FIRST/in.txt", 200, "data"),
            ("/first%2fin.txt", 200, "data"),
            ("/first//in.txt", 200, "data"),
            ("/fir%73t/in.txt", 200, "data"),
            ("/dir/../first/in.txt", 200, "data"),
            ("/first", 301, ""),
            ("/first/", 403, ""),
            ("/first/none", 404, ""),
            ("/first/x.key", 404, ""),
            ("/first../data/in.txt", 404, ""),
            ("/first/../a.txt", 200, "a"),
            ("/~joe/in.txt", 200, "data"),
            ("/%7ejoe/in.txt", 200, "data"),
            ("/~joe/deep/in.txt", 404, ""),
            ("/anything/at/all.old", 200, "a"),
            ("/anything.old?x", 200, "a"),
            ("/anything.old.", 404, ""),
            ("/anything.older", 404, ""),
            ("/x/in.txt", 200, "data"),
            ("/y/in.txt", 200, "data"),
            ("/z/in.txt", 404, ""),
            ("/file", 200, "a"),
            ("/file/", 404, ""),
            ("/file.", 200, "a with a dot"),
            ("/link2/in.txt", 200, "in"),
            ("/gone/a.txt", 404, ""),
            ("/a.txt", 200, "a"),
        ],
    );
    assert!(get(&server, "/first").field("Location").is_some_and(|to| to.ends_with("/first/")));
    server.stop();
}

#[test]
fn the_first_index_file_that_can_be_shown_is() {
    let scratch = site();
    scratch.write("root/one/b.html", "b");
    scratch.write("root/one/c.html", "c");
    scratch.write("root/two/a.html/x", "a folder of that name");
    scratch.write("root/two/c.html", "c");
    scratch.write("root/three/hidden.html", "hidden");
    scratch.write("root/three/c.html", "c");
    scratch.write("root/four/sub/x.html", "x");
    scratch.write("root/five/B.HTML", "other letters");
    std::fs::create_dir(scratch.join("root/six")).expect("a folder");
    symlink("../one/b.html", scratch.join("root/six/a.html")).expect("a link");
    symlink("nowhere", scratch.join("root/six/hidden.html")).expect("a link");
    let index = "index_files=a.html, hidden.html,b.html,,c.html,sub/x.html";
    let server = serve(&scratch, &[index, "hide_files_patterns=hidden"]);
    expect(
        &server,
        &[
            ("/one/", 200, "b"),
            ("/one", 301, ""),
            ("/one/?n", 200, "b"),
            ("/one/.", 200, "b"),
            ("/one//", 200, "b"),
            ("/one%2f", 200, "b"),
            ("/two/", 200, "c"),
            ("/three/", 200, "c"),
            ("/four/", 200, "x"),
            ("/five/", 403, ""),
            ("/six/", 200, "b"),
            ("/", 403, ""),
        ],
    );
    server.stop();
    let server = serve(&scratch, &["index_files=,"]);
    expect(&server, &[("/one/", 403, ""), ("/one/b.html", 200, "b")]);
    server.stop();
}

#[test]
#[cfg_attr(not(feature = "webdav"), ignore = "built without WebDAV")]
fn hidden_names_are_hidden_however_they_are_written() {
    let scratch = site();
    for name in ["x.key", "keys/x.txt", ".git/config", "secret", "notes.bak", "n\u{e4}.bak"] {
        scratch.write(&format!("root/{name}"), "hidden");
    }
    symlink("x.key", scratch.join("root/shown.txt")).expect("a link");
    symlink("a.txt", scratch.join("root/link.key")).expect("a link");
    let patterns = "hide_files_patterns=**.key$|secret$|**.bak|**/.git/|**/keys/";
    let server = serve(&scratch, &[patterns]);
    let mut cases = vec![
        // It is the name that is hidden, not what it leads to.
        ("/shown.txt", 200, "hidden"),
        ("/a.txt", 200, "a"),
        ("/secrets", 404, ""),
    ];
    for target in [
        "/x.key",
        "/X.KEY",
        "/x%2ekey",
        "/%78.key",
        "/x.key?y",
        "/x.key/",
        "/dir/../x.key",
        "/link.key",
        "/keys/x.txt",
        "/keys%2fx.txt",
        "/KEYS/x.txt",
        "/keys//x.txt",
        "/.git/config",
        "/%2egit/config",
        "/.git",
        "/.git/",
        "/secret",
        "/SECRET",
        "/notes.bak",
        "/notes.bak.",
        "/n%c3%a4.bak",
    ] {
        cases.push((target, 404, ""));
    }
    // Without its slash the folder itself is not what the pattern names.
    cases.retain(|(target, ..)| *target != "/.git");
    expect(&server, &cases);
    for method in ["HEAD", "POST", "PROPFIND", "BREW"] {
        let mut client = server.client();
        client.send(format!("{method} /x.key HTTP/1.1\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(client.response_without_body().status, 404, "{method}");
    }
    server.stop();
}

#[test]
fn types_go_by_the_end_of_the_name() {
    let scratch = site();
    let names =
        ["p.html", "p.HTML", "p.x.html", "p.html.x", "html", "p.", "p.tar.gz", "p.md", ".css"];
    for name in names {
        scratch.write(&format!("root/{name}"), "p");
    }
    let types = "extra_mime_types=.X=text/x,tar.gz=application/tarred, .md = text/markdown,.css=";
    let server = serve(&scratch, &[types]);
    for (target, kind) in [
        ("/p.html", "text/html"),
        ("/p.HTML", "text/html"),
        ("/p.x.html", "text/html"),
        ("/p.html.x", "text/x"),
        ("/html", "text/plain"),
        ("/p.", "text/plain"),
        ("/p.tar.gz", "application/tarred"),
    ] {
        assert_eq!(get(&server, target).field("Content-Type"), Some(kind), "{target}");
    }
    server.stop();
}

#[test]
#[cfg_attr(not(feature = "webdav"), ignore = "built without WebDAV")]
fn without_a_root_nothing_is_looked_at() {
    let scratch = site();
    let options = [
        format!("url_rewrites=/d={}", scratch.join("data")),
        format!("global_auth_file={}", scratch.join("none")),
        format!("dav_auth_file={}", scratch.join("none")),
        "enable_precompressed=yes".to_owned(),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let server = Server::start(&options);
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PROPFIND", "BREW"] {
        for target in ["/", "/d/in.txt", "/etc/passwd", "/.htpasswd", "/Cargo.toml"] {
            let mut client = server.client();
            client.send(format!("{method} {target} HTTP/1.1\r\nContent-Length: 0\r\n\r\n"));
            assert_eq!(client.response_without_body().status, 404, "{method} {target}");
        }
    }
    server.stop();
}
