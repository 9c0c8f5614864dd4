//! Which symbolic links are followed (`follow_symlinks`): for files, listings, programs and WebDAV alike.

use std::os::unix::fs::{lchown, symlink};

use crate::support::{Dav, Scratch, for_each};

/// A server on files and links of this user's, and two links to what somebody else owns.
fn serve(policy: &str) -> Dav {
    let scratch = Scratch::new();
    scratch.write("root/a.txt", "text").write("root/d/b.txt", "text").write("out/c.txt", "text");
    scratch.write_program("root/x.cgi", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\ntext'\n");
    let link = |to: &str, name: &str| {
        symlink(to, scratch.join(&format!("root/{name}"))).expect("a link");
    };
    link("a.txt", "link.txt");
    link("d", "dir");
    link("../out", "outside");
    link("x.cgi", "y.cgi");
    link(&scratch.join("out/c.txt"), "absolute.txt");
    scratch.write("foreign.txt", "text").write("foreign/e.txt", "text");
    link("../foreign.txt", "foreign.txt");
    link("../foreign", "foreign");
    for name in ["foreign.txt", "foreign", "foreign/e.txt"] {
        // Without root they stay this user's, and nothing is foreign.
        let _ = std::os::unix::fs::chown(scratch.join(name), Some(65534), Some(65534));
    }
    symlink("out", scratch.join("named")).expect("a link");
    let option = format!("follow_symlinks={policy}");
    let rewrite = format!("url_rewrites=/named={}", scratch.join("named/"));
    Dav::start_in(scratch, &[&option, &rewrite])
}

fn is_root() -> bool {
    // SAFETY: the call has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

/// (path, whether it is found without links, and with links to files of the same owner)
fn paths() -> Vec<(&'static str, bool, bool)> {
    vec![
        ("/a.txt", true, true),
        ("/d/b.txt", true, true),
        ("/x.cgi", true, true),
        ("/x.cgi/info", true, true),
        ("/link.txt", false, true),
        ("/dir/", false, true),
        ("/dir/b.txt", false, true),
        ("/outside/c.txt", false, true),
        ("/absolute.txt", false, true),
        ("/y.cgi", false, true),
        ("/y.cgi/info", false, true),
        ("/foreign.txt", false, !is_root()),
        ("/foreign/", false, !is_root()),
        ("/foreign/e.txt", false, !is_root()),
        // The administrator has named the link himself.
        ("/named/c.txt", true, true),
    ]
}

#[test]
#[cfg_attr(not(all(feature = "webdav", feature = "cgi")), ignore = "built without WebDAV or CGI")]
fn links_are_followed_as_the_option_says() {
    for (policy, column) in [("yes", 0), ("no", 1), ("same_owner", 2)] {
        let dav = serve(policy);
        let is_found = |(_, without, same): &(&str, bool, bool)| [true, *without, *same][column];
        for_each(
            paths(),
            |row| format!("{policy}: {row:?}"),
            |row| {
                for method in ["GET", "HEAD", "PROPFIND"] {
                    if method == "PROPFIND" && row.0.contains(".cgi/") {
                        continue;
                    }
                    let fields = "Depth: 1\r\nConnection: close\r\n";
                    let request = format!("{method} {} HTTP/1.1\r\n{fields}\r\n", row.0);
                    let mut client = dav.client();
                    client.send(request);
                    let head = client.take_through("\r\n\r\n");
                    let status = if is_found(row) { " 20" } else { " 404 " };
                    assert!(head.starts_with(&format!("HTTP/1.1{status}")), "{method}: {head}");
                }
            },
        );
        // Lists name what can be asked for.
        let page = dav.server.ask("GET / HTTP/1.1\r\n\r\n").text();
        let properties = dav.propfind("/", "1", "").text();
        for (path, ..) in paths().iter().filter(|(path, ..)| path.matches('/').count() == 1) {
            let row = paths().into_iter().find(|(known, ..)| known == path).expect("a row");
            assert_eq!(
                page.contains(&format!("<bdi>{}</bdi>", &path[1..])),
                is_found(&row),
                "{policy}: {path}"
            );
            assert_eq!(
                properties.contains(&format!(">{path}<")),
                is_found(&row),
                "{policy}: {path}"
            );
        }
        dav.stop();
    }
}

#[test]
#[cfg_attr(not(feature = "webdav"), ignore = "built without WebDAV")]
fn webdav_changes_nothing_behind_a_link_that_is_not_followed() {
    let dav = serve("no");
    let destination = |to: &str| format!("Destination: {to}\r\n");
    for_each(
        [
            ("PUT", "/link.txt", String::new(), 404),
            ("PUT", "/dir/new.txt", String::new(), 404),
            ("PUT", "/outside/new.txt", String::new(), 404),
            ("DELETE", "/link.txt", String::new(), 404),
            ("DELETE", "/outside/c.txt", String::new(), 404),
            ("MKCOL", "/dir/new", String::new(), 404),
            ("PROPPATCH", "/link.txt", String::new(), 404),
            ("LOCK", "/dir/b.txt", String::new(), 404),
            ("COPY", "/link.txt", destination("/copy.txt"), 404),
            ("COPY", "/a.txt", destination("/link.txt"), 403),
            ("COPY", "/a.txt", destination("/dir/new.txt"), 403),
            ("MOVE", "/dir/b.txt", destination("/moved.txt"), 404),
            ("MOVE", "/a.txt", destination("/outside/c.txt"), 403),
        ],
        |case| format!("{case:?}"),
        |(method, path, fields, status)| {
            let body = if *method == "PUT" { "new" } else { "" };
            assert_eq!(dav.status(method, path, fields, body), *status);
        },
    );
    assert_eq!((dav.read("a.txt").as_str(), dav.read("d/b.txt").as_str()), ("text", "text"));
    assert_eq!(dav.scratch.read("out/c.txt"), "text");
    assert_eq!((dav.names("d"), dav.exists("link.txt")), (vec!["b.txt".to_owned()], true));
    assert_eq!(dav.status("PUT", "/named/new.txt", "", "new"), 201);
    dav.stop();
}

#[test]
fn a_link_that_comes_or_changes_its_owner_counts_at_once() {
    let mut dav = serve("same_owner");
    let get = |dav: &Dav, path: &str| dav.server.ask(format!("GET {path} HTTP/1.1\r\n\r\n")).status;
    assert_eq!(get(&dav, "/link.txt"), 200);
    if is_root() {
        lchown(dav.scratch.join("root/link.txt"), Some(65534), None).expect("another owner");
        assert_eq!(get(&dav, "/link.txt"), 404);
        // What is replaced by a link to itself is not what it was.
        lchown(dav.scratch.join("root/link.txt"), Some(0), None).expect("another owner");
    }
    dav.server.tell("set follow_symlinks no");
    dav.server.expect_line("set follow_symlinks: NULL");
    assert_eq!((get(&dav, "/link.txt"), get(&dav, "/d/b.txt")), (404, 200));
    std::fs::rename(dav.scratch.join("root/d"), dav.scratch.join("root/e")).expect("renamed");
    symlink("e", dav.scratch.join("root/d")).expect("a link in its place");
    assert_eq!((get(&dav, "/d/b.txt"), get(&dav, "/e/b.txt")), (404, 200));
    dav.server.tell("set follow_symlinks yes");
    dav.server.expect_line("set follow_symlinks: NULL");
    assert_eq!((get(&dav, "/link.txt"), get(&dav, "/d/b.txt")), (200, 200));
    dav.stop();
}

#[test]
fn a_link_tells_nothing_that_a_password_guards() {
    let dav = serve("no");
    dav.write("d/.htpasswd", "somebody:else:0\n");
    symlink("b.txt", dav.scratch.join("root/d/link.txt")).expect("a link");
    let status = |path: &str| dav.server.ask(format!("GET {path} HTTP/1.1\r\n\r\n")).status;
    for path in ["/d/b.txt", "/d/none.txt", "/d/link.txt"] {
        assert_eq!(status(path), 401, "{path}");
    }
    for path in ["/dir/b.txt", "/dir/none.txt"] {
        assert_eq!(status(path), 404, "{path}");
    }
    // A password file that is a link lets nobody in.
    std::fs::rename(dav.scratch.join("root/d/.htpasswd"), dav.scratch.join("root/d/passwords"))
        .expect("renamed");
    symlink("passwords", dav.scratch.join("root/d/.htpasswd")).expect("a link");
    assert_eq!(status("/d/b.txt"), 401);
    dav.stop();
}
