//! Who may change what listings show (`enable_uploads`, `uploads_by_anybody`), by the methods of
//! WebDAV, which the pages of listings use.

use crate::support::{Dav, Response, Scratch, Server, for_each, until};

/// A server whose listed files anybody may change.
fn open_to_anybody(args: &[&str]) -> (Scratch, Server) {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.join("root")).expect("a root");
    let root = format!("document_root={}", scratch.join("root"));
    let mut all = vec![root.as_str(), "enable_uploads=yes", "uploads_by_anybody=yes"];
    all.extend(args);
    let server = Server::start(&all);
    (scratch, server)
}

fn ask(server: &Server, method: &str, path: &str, fields: &str, body: &str) -> Response {
    let length = body.len();
    let host = format!("Host: 127.0.0.1:{}\r\n", server.port);
    server.ask(format!(
        "{method} {path} HTTP/1.1\r\n{host}{fields}Content-Length: {length}\r\n\r\n{body}"
    ))
}

fn transfer(server: &Server, method: &str, from: &str, to: &str) -> u16 {
    ask(server, method, from, &format!("Destination: {to}\r\n"), "").status
}

fn exists(scratch: &Scratch, name: &str) -> bool {
    std::path::Path::new(&scratch.join(&format!("root/{name}"))).exists()
}

#[test]
fn anybody_changes_files_only_where_both_options_say_so() {
    let methods = ["PUT", "DELETE", "MKCOL", "MOVE", "COPY", "PROPPATCH", "LOCK", "UNLOCK"];
    for options in [
        &["enable_uploads=yes"][..],
        &["uploads_by_anybody=yes"],
        &["enable_uploads=yes", "uploads_by_anybody=no"],
        &["enable_uploads=true", "uploads_by_anybody=yes"],
    ] {
        let scratch = Scratch::new();
        scratch.write("root/a.txt", "old");
        let root = format!("document_root={}", scratch.join("root"));
        let server = Server::start(&[&[root.as_str()], options].concat());
        for method in methods {
            let answer = ask(&server, method, "/a.txt", "Destination: /b\r\n", "");
            assert_eq!(answer.status, 401, "{method} {options:?}");
            assert!(answer.field("WWW-Authenticate").is_some_and(|it| it.starts_with("Digest")));
        }
        let allow = ask(&server, "OPTIONS", "/", "", "");
        assert_eq!(allow.field("Allow"), Some("GET, HEAD, POST, OPTIONS, PROPFIND"));
        assert_eq!(scratch.read("root/a.txt"), "old");
        server.stop();
    }

    let (scratch, server) = open_to_anybody(&[]);
    assert_eq!(ask(&server, "PUT", "/a", "", "first").status, 201);
    assert_eq!(ask(&server, "PUT", "/a", "If-None-Match: *\r\n", "second").status, 412);
    assert_eq!(scratch.read("root/a"), "first");
    assert_eq!(ask(&server, "PUT", "/a", "", "second").status, 204);
    assert_eq!(ask(&server, "MKCOL", "/d", "", "").status, 201);
    assert_eq!(transfer(&server, "MOVE", "/a", "/d/b"), 201);
    assert_eq!(scratch.read("root/d/b"), "second");
    assert_eq!(transfer(&server, "MOVE", "/d", "/e"), 201);
    assert_eq!(ask(&server, "DELETE", "/e/b", "", "").status, 204);
    assert_eq!(ask(&server, "DELETE", "/e", "", "").status, 204);
    // Nobody could be told to give a lock back.
    for method in ["COPY", "PROPPATCH", "LOCK", "UNLOCK"] {
        let answer = ask(&server, method, "/a", "Destination: /b\r\n", "");
        assert_eq!(answer.status, 401, "{method}");
    }
    let answer = ask(&server, "OPTIONS", "/", "", "");
    let allow = "GET, HEAD, POST, OPTIONS, PROPFIND, PUT, DELETE, MKCOL, MOVE";
    assert_eq!((answer.field("Allow"), answer.field("DAV")), (Some(allow), Some("1")));
    assert_eq!(std::fs::read_dir(scratch.join("root")).expect("the root").count(), 0);
    server.stop();
}

#[test]
fn what_is_more_than_a_file_is_not_anybodys() {
    let (scratch, server) =
        open_to_anybody(&["hide_files_patterns=**.key$", "ssi_pattern=**.shtml$"]);
    for name in ["old.txt", "run.cgi", "page/index.html", "tree/deep/x.php", "site/index.htm"] {
        scratch.write(&format!("root/{name}"), "old");
    }
    scratch.write("root/plain/a", "");
    scratch.write("root/keys/deep/a.key", "");
    scratch.write("root/guarded/.htpasswd", "joe:mydomain.com:x\n");
    scratch.write("root/guarded/a", "");
    scratch.write("root/around/guarded/.htpasswd", "joe:mydomain.com:x\n");
    std::os::unix::fs::symlink("run.cgi", scratch.join("root/link.txt")).expect("a link");
    std::os::unix::fs::symlink("plain", scratch.join("root/linked")).expect("a link");
    let cases = [
        ("PUT", "/a.cgi", "", 403),
        ("PUT", "/A.PHP", "", 403),
        ("PUT", "/a.shtml", "", 403),
        ("PUT", "/index.html", "", 403),
        ("PUT", "/plain/index.php", "", 403),
        ("PUT", "/run.cgi", "", 403),
        ("PUT", "/link.txt", "", 403),
        ("DELETE", "/run.cgi", "", 403),
        ("DELETE", "/link.txt", "", 403),
        ("MOVE", "/run.cgi", "/run.txt", 403),
        ("MOVE", "/old.txt", "/old.cgi", 403),
        ("MOVE", "/old.txt", "/plain/index.html", 403),
        ("MOVE", "/old.txt", "/run.cgi", 403),
        ("PUT", "/a.key", "", 404),
        ("PUT", "/.htpasswd", "", 404),
        ("PUT", "/plain/.htpasswd", "", 404),
        ("MOVE", "/old.txt", "/.htpasswd", 403),
        ("MOVE", "/old.txt", "/a.key", 403),
        // Who sees a page there, and no listing, has nothing to upload.
        ("PUT", "/page/a.txt", "", 403),
        ("MOVE", "/old.txt", "/page/a.txt", 403),
        ("MKCOL", "/page/d", "", 403),
        // A directory goes with all that is in it, or stays.
        ("DELETE", "/page", "", 403),
        ("DELETE", "/tree", "", 403),
        ("MOVE", "/tree", "/other", 403),
        ("DELETE", "/keys", "", 403),
        ("DELETE", "/around", "", 403),
        ("MOVE", "/around", "/other", 403),
        ("MOVE", "/plain", "/tree", 403),
        ("DELETE", "/guarded", "", 403),
        // What has a password of its own.
        ("PUT", "/guarded/b", "", 401),
        ("DELETE", "/guarded/a", "", 401),
        ("MOVE", "/guarded/a", "/a", 401),
        ("MOVE", "/old.txt", "/guarded/b", 403),
        ("DELETE", "/", "", 403),
        ("MKCOL", "/", "", 405),
        ("MKCOL", "/plain", "", 405),
        ("PUT", "/plain", "", 405),
        ("PUT", "/none/a", "", 409),
        ("PUT", "/linked/b", "", 201),
        ("DELETE", "/linked/b", "", 204),
    ];
    let before = tree(&scratch);
    for_each(
        cases,
        |(method, path, to, _)| format!("{method} {path} {to}"),
        |(method, path, to, status)| {
            let answer = ask(&server, method, path, &format!("Destination: {to}\r\n"), "");
            assert_eq!(answer.status, *status, "{}", answer.head);
        },
    );
    assert_eq!(tree(&scratch), before);
    // Where no listing is shown at all, there is nothing to change.
    let closed = open_to_anybody(&["enable_directory_listing=no"]);
    assert_eq!(ask(&closed.1, "PUT", "/a", "", "x").status, 403);
    closed.1.stop();
    server.stop();
}

/// All names below the root.
fn tree(scratch: &Scratch) -> Vec<String> {
    let mut dirs = vec![std::path::PathBuf::from(scratch.join("root"))];
    let mut names = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("a folder") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_dir() {
                dirs.push(entry.path());
            }
            names.push(entry.path().to_string_lossy().into_owned());
        }
    }
    names.sort();
    names
}

#[test]
fn a_directory_that_becomes_one_of_programs_is_not_anybodys() {
    let (scratch, server) = open_to_anybody(&["cgi_pattern=**/cgi-bin/**"]);
    scratch.write("root/d/script", "");
    assert_eq!(transfer(&server, "MOVE", "/d", "/cgi-bin"), 403);
    assert_eq!(transfer(&server, "MOVE", "/d", "/e"), 201);
    assert_eq!(ask(&server, "MKCOL", "/cgi-bin", "", "").status, 201);
    assert_eq!(ask(&server, "PUT", "/cgi-bin/x", "", "").status, 403);
    assert!(exists(&scratch, "e/script") && !exists(&scratch, "cgi-bin/x"));
    server.stop();
}

#[test]
fn what_a_rewrite_leads_to_is_changed_only_where_it_is_listed() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.join("root")).expect("a folder");
    scratch.write("share/papers/old", "old");
    scratch.write("share/motd", "old");
    let share = scratch.join("share");
    let server = Server::start(&[
        &format!("document_root={}", scratch.join("root")),
        &format!("url_rewrites=/papers={share}/papers,/motd={share}/motd"),
        "enable_uploads=yes",
        "uploads_by_anybody=yes",
    ]);
    let cases = [
        ("PUT", "/papers/new", "", 201),
        ("MOVE", "/papers/new", "/papers/newer", 201),
        ("MOVE", "/papers/newer", "/moved", 201),
        ("MOVE", "/moved", "/papers/new", 201),
        ("DELETE", "/papers/new", "", 204),
        // Beside what is listed there, no client sees anything.
        ("DELETE", "/papers", "", 403),
        ("DELETE", "/papers/", "", 403),
        ("MOVE", "/papers", "/taken", 403),
        ("MKCOL", "/papersX", "", 403),
        ("PUT", "/papersX", "", 403),
        ("PUT", "/motd", "", 403),
        ("DELETE", "/motd", "", 403),
        ("MOVE", "/papers/old", "/papersX", 403),
    ];
    for_each(
        cases,
        |(method, path, to, _)| format!("{method} {path} {to}"),
        |(method, path, to, status)| {
            let answer = ask(&server, method, path, &format!("Destination: {to}\r\n"), "");
            assert_eq!(answer.status, *status, "{}", answer.head);
        },
    );
    assert_eq!(scratch.read("share/papers/old"), "old");
    assert_eq!(scratch.read("share/motd"), "old");
    server.stop();
}

#[test]
fn a_directory_with_a_link_stays_where_its_links_lead_to_the_same() {
    let (scratch, server) = open_to_anybody(&[]);
    std::fs::create_dir_all(scratch.join("root/d/e")).expect("a folder");
    std::os::unix::fs::symlink("../../..", scratch.join("root/d/e/up")).expect("a link");
    assert_eq!(ask(&server, "DELETE", "/d", "", "").status, 403);
    assert_eq!(transfer(&server, "MOVE", "/d/e", "/e"), 403);
    assert!(exists(&scratch, "d/e"));
    server.stop();
}

#[test]
fn who_has_a_password_may_do_more_than_anybody() {
    let dav = Dav::start(&["enable_uploads=yes", "uploads_by_anybody=yes"]);
    assert_eq!(ask(&dav.server, "PUT", "/a", "", "x").status, 201);
    assert_eq!(ask(&dav.server, "PUT", "/index.html", "", "x").status, 403);
    assert_eq!(dav.status("PUT", "/index.html", "", "page"), 201);
    assert_eq!(dav.status("PUT", "/b.cgi", "", "x"), 201);
    assert_eq!(ask(&dav.server, "PUT", "/a", "", "x").status, 403, "the listing is hidden now");
    assert_eq!(dav.status("DELETE", "/index.html", "", ""), 204);
    dav.lock("/a", "");
    assert_eq!(ask(&dav.server, "PUT", "/a", "", "x").status, 423);
    assert_eq!(ask(&dav.server, "DELETE", "/a", "", "x").status, 423);
    // A wrong password does not count as none.
    let wrong = dav.authorization("joe", "PUT", "/b").replace("response=\"", "response=\"0");
    assert_eq!(ask(&dav.server, "PUT", "/b", &wrong, "x").status, 401);
    // The name of nobody whom the file knows does.
    let nobody = dav.authorization("nobody", "PUT", "/b");
    assert_eq!(ask(&dav.server, "PUT", "/b", &nobody, "x").status, 201);
    dav.stop();
}

#[test]
fn a_password_of_a_directory_opens_it_to_uploads_by_anybody_who_has_it() {
    let (scratch, server) = open_to_anybody(&[]);
    let password = |name: &str| format!("{name}/.htpasswd");
    let dav = Dav::start(&[]);
    let lines = dav.scratch.read("passwords");
    scratch.write("root/d/a", "old");
    scratch.write(&format!("root/{}", password("d")), &lines);
    scratch.write("root/e/b", "");
    scratch.write(&format!("root/{}", password("e")), &lines);
    let answer = ask(&server, "PUT", "/d/a", "", "new");
    assert_eq!(answer.status, 401);
    let field = answer.field("WWW-Authenticate").expect("a challenge");
    let nonce = field.split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next());
    dav.use_nonce(nonce.expect("a nonce"));
    let joe = |method: &str, path: &str, fields: &str| {
        let fields = format!("{}{fields}", dav.authorization("joe", method, path));
        ask(&server, method, path, &fields, "new").status
    };
    assert_eq!(joe("PUT", "/d/a", ""), 204);
    assert_eq!(scratch.read("root/d/a"), "new");
    assert_eq!(joe("MOVE", "/d/a", "Destination: /d/c\r\n"), 201);
    // One file of passwords says nothing about another directory.
    assert_eq!(joe("MOVE", "/d/c", "Destination: /e/c\r\n"), 403);
    dav.stop();
    server.stop();
}

#[test]
fn a_page_of_another_origin_changes_nothing() {
    let dav = Dav::start(&["enable_uploads=yes", "uploads_by_anybody=yes"]);
    let port = dav.server.port;
    let own = format!("Origin: http://127.0.0.1:{port}\r\n");
    let cases = [
        ("", true),
        (own.as_str(), true),
        ("Sec-Fetch-Site: same-origin\r\n", true),
        ("Sec-Fetch-Site: none\r\n", true),
        ("Sec-Fetch-Site: same-site\r\n", false),
        ("Sec-Fetch-Site: cross-site\r\n", false),
        ("Origin: http://evil.example\r\n", false),
        ("Origin: http://127.0.0.1\r\n", false),
        ("Origin: null\r\n", false),
        ("Origin: http://evil.example\r\nSec-Fetch-Site: same-origin\r\n", false),
        ("Referer: http://evil.example/\r\n", false),
    ];
    let methods = ["PUT", "DELETE", "MKCOL", "MOVE", "COPY", "PROPPATCH", "LOCK", "UNLOCK"];
    for_each(
        cases,
        |(fields, _)| fields.to_string(),
        |(fields, passes)| {
            for method in methods {
                dav.write("a", "old");
                let more = format!("Destination: /b\r\n{fields}");
                // With the password, which a browser sends for whatever page.
                let status = dav.status(method, "/a", &more, "");
                assert_eq!(status == 403, !passes, "{method} {status}");
                let _ = std::fs::remove_file(dav.scratch.join("root/b"));
            }
            let is_foreign = ask(&dav.server, "PUT", "/c", fields, "x").status == 403;
            assert_eq!(is_foreign, !passes, "by anybody");
        },
    );
    // What only reads is not concerned.
    let foreign = "Sec-Fetch-Site: cross-site\r\n";
    for method in ["GET", "OPTIONS", "PROPFIND"] {
        let head = format!("{method} / HTTP/1.1\r\n{foreign}Depth: 0\r\n\r\n");
        assert!(dav.server.ask(head).status < 400, "{method}");
    }
    dav.stop();
    // Nor is a server without uploads: what WebDAV clients do there is their own affair.
    let dav = Dav::start(&[]);
    assert_eq!(dav.status("PUT", "/a", foreign, "x"), 201);
    dav.stop();
}

#[test]
fn nothing_of_an_upload_that_breaks_off_is_seen() {
    let (scratch, server) = open_to_anybody(&[]);
    scratch.write("root/old", "old");
    for name in ["new", "old"] {
        let mut client = server.client();
        let host = format!("Host: 127.0.0.1:{}\r\n", server.port);
        client.send(format!("PUT /{name} HTTP/1.1\r\n{host}Content-Length: 100000\r\n\r\n"));
        client.send("x".repeat(50_000));
        drop(client);
    }
    until("nothing is left of them", || {
        std::fs::read_dir(scratch.join("root")).expect("the root").count() == 1
    });
    assert_eq!(scratch.read("root/old"), "old");
    server.stop();
}
