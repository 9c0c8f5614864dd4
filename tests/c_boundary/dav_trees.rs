//! MKCOL, DELETE, COPY and MOVE (RFC 4918 sections 9.3, 9.6, 9.8 and 9.9).

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::support::{Dav, Elsewhere, Scratch, as_many_as, for_each, until};

#[test]
fn a_collection_is_made_once_and_without_content() {
    let dav = Dav::start(&[]);
    dav.write("file", "x");
    for_each(
        [
            ("/a", "", 201),
            ("/a", "", 405),
            ("/a/", "", 405),
            ("/a/b/", "", 201),
            ("/file", "", 405),
            ("/file/a", "", 409),
            ("/none/a", "", 409),
            ("/c", "<x/>", 415),
            ("/", "", 405),
            ("/.htpasswd", "", 404),
            ("/.mongoose-dav.1", "", 404),
        ],
        |case| format!("{case:?}"),
        |(path, body, status)| assert_eq!(dav.status("MKCOL", path, "", body), *status),
    );
    let answer = dav.ask("MKCOL", "/a", "", "");
    assert!(answer.field("Allow").is_some_and(|allow| !allow.contains("MKCOL")));
    assert_eq!(
        (dav.names(""), dav.names("a")),
        (vec!["a".into(), "file".into()], vec!["b".into()])
    );
    dav.stop();
}

#[test]
fn what_is_deleted_is_gone_and_nothing_else() {
    let dav = Dav::start(&[]);
    dav.scratch.write("outside/kept", "kept");
    dav.write("a", "1").write("d/e/f", "2").write("d/.htaccess", "3").write("stays", "4");
    symlink(dav.scratch.join("outside"), dav.scratch.join("root/d/out")).expect("a link");
    symlink(dav.scratch.join("outside"), dav.scratch.join("root/out")).expect("a link");
    for_each(
        [
            ("/none", "", 404),
            ("/d", "Depth: 0\r\n", 400),
            ("/d", "Depth: 1\r\n", 400),
            ("/d", "Depth: nonsense\r\n", 400),
            ("/", "", 403),
            ("/a", "If-Match: \"x\"\r\n", 412),
            ("/a", "", 204),
            ("/a", "", 404),
            ("/out", "", 204),
            ("/d/", "Depth: infinity\r\n", 204),
        ],
        |case| format!("{case:?}"),
        |(path, fields, status)| assert_eq!(dav.status("DELETE", path, fields, ""), *status),
    );
    assert_eq!(dav.names(""), ["stays"]);
    assert_eq!(dav.scratch.read("outside/kept"), "kept");
    dav.stop();
}

/// A folder in which nothing can be changed while this value lives: by its mode, and for root, whom
/// no mode stops, by its flag, where there is one.
struct Fixed(String);

impl Fixed {
    fn new(path: String) -> Fixed {
        let fixed = Fixed(path);
        fixed.set(0o555, "+i");
        fixed
    }

    fn set(&self, mode: u32, flag: &str) {
        let chattr = || Command::new("chattr").args([flag, &self.0]).output();
        if flag == "-i" {
            let _ = chattr();
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        let _ = std::fs::set_permissions(&self.0, mode);
        if flag == "+i" {
            let _ = chattr();
        }
    }
}

impl Drop for Fixed {
    fn drop(&mut self) {
        self.set(0o755, "-i");
    }
}

#[test]
fn what_cannot_be_deleted_is_told_by_name() {
    let dav = Dav::start(&[]);
    dav.write("d/a", "1").write("d/fixed/b c", "2").write("d/e/f", "3");
    let fixed = Fixed::new(dav.scratch.join("root/d/fixed"));
    let forbidden = std::fs::File::create(format!("{}/probe", fixed.0)).is_err();
    let answer = dav.ask("DELETE", "/d", "", "");
    drop(fixed);
    if forbidden {
        assert_eq!(answer.status, 207, "{}", answer.head);
        let text = answer.text();
        assert!(text.contains("<D:href>/d/fixed/b%20c</D:href><D:status>HTTP/1.1 403"), "{text}");
        assert_eq!(text.matches("<D:response>").count(), 1, "{text}");
        assert_eq!(dav.names("d"), ["fixed"]);
        assert_eq!(dav.read("d/fixed/b c"), "2");
    } else {
        assert_eq!((answer.status, dav.exists("d")), (204, false));
    }
    dav.stop();
}

#[test]
fn what_is_out_of_sight_goes_whatever_modes_it_has() {
    // Root, whom no mode stops, gives up its rights.
    let is_root = rustix::process::geteuid().is_root();
    let user = if is_root { "run_as_user=nobody" } else { "run_as_user=" };
    let dav = Dav::start(&["--file-size=100000", user]);
    dav.write("new/x", "new").write("old/fixed/x", "old").write("d/fixed/x", "d");
    for n in 0..8 {
        dav.write(&format!("large/fixed{n}/x"), "x");
    }
    dav.write("large/large", "x".repeat(200_000));
    let left = format!(".mongoose-dav.{:032x}", 1);
    dav.write(&format!("{left}/fixed/x"), "left");
    let shell = |script: &str| {
        let folder = dav.scratch.join("root");
        let done = Command::new("sh").args(["-ec", script]).current_dir(folder).status();
        assert!(done.is_ok_and(|status| status.success()), "{script}");
    };
    if is_root {
        shell("chown -R nobody .");
    }
    shell("chmod 555 */fixed* .m*/fixed");
    // What a killed server has left, what was replaced, and a copy that has failed.
    assert_eq!(dav.propfind("/", "1", "").status, 207);
    until("it is swept", || {
        dav.propfind("/", "1", "");
        dav.unfinished("").is_empty()
    });
    assert_eq!(dav.transfer("COPY", "/new", "/old"), 204);
    assert_eq!((dav.names("old"), dav.unfinished("")), (vec!["x".into()], vec![]));
    assert_eq!(dav.transfer("COPY", "/large", "/copy"), 507);
    assert_eq!(dav.names(""), ["d", "large", "new", "old"]);
    // What can be seen is kept by its mode.
    let text = dav.ask("DELETE", "/d", "", "").text();
    assert!(text.contains("<D:href>/d/fixed/x</D:href><D:status>HTTP/1.1 403"), "{text}");
    assert_eq!(dav.read("d/fixed/x"), "d");
    shell("chmod 755 */fixed*");
    dav.stop();
}

#[test]
fn a_copy_and_a_move_go_where_they_are_told() {
    let dav = Dav::start(&[]);
    let host = format!("http://127.0.0.1:{}", dav.server.port);
    dav.write("a", "a").write("b", "b").write("d/x", "x").write("d/e/y", "y").write("f/old", "o");
    for_each(
        [
            ("COPY", "/a", "/c", "", 201),
            ("COPY", "/a", "/b", "Overwrite: F\r\n", 412),
            ("COPY", "/b", "/c", "Overwrite: T\r\n", 204),
            ("MOVE", "/b", "/c%20d", "", 201),
            ("MOVE", "/a", "/c", "Overwrite: F\r\n", 412),
            ("MOVE", "/b", "/none", "", 404),
            ("COPY", "/d", "/d1", "", 201),
            ("COPY", "/d/", "/d2/", "Depth: 0\r\n", 201),
            // Who sends this means all of it.
            ("COPY", "/d", "/d3", "Depth: 1\r\n", 201),
            ("MOVE", "/d", "/d4", "Depth: 1\r\n", 400),
            ("COPY", "/d", "/f", "Overwrite: F\r\n", 412),
            ("COPY", "/d", "/f", "", 204),
            ("MOVE", "/d1", "/d2", "", 204),
            ("MOVE", "/d2", "/d4", "Depth: 0\r\n", 400),
            ("MOVE", "/d2", "/c", "", 204),
            ("COPY", "/a", "/f", "", 204),
        ],
        |case| format!("{case:?}"),
        |(method, from, to, fields, status)| {
            let fields = format!("Destination: {host}{to}\r\n{fields}");
            assert_eq!(dav.status(method, from, &fields, ""), *status);
        },
    );
    assert_eq!(dav.names(""), ["a", "c", "c d", "d", "d3", "f"]);
    assert_eq!(dav.read("d3/e/y"), "y");
    assert_eq!(
        (dav.names("c"), dav.names("c/e")),
        (vec!["e".into(), "x".into()], vec!["y".into()])
    );
    assert_eq!(
        (dav.read("f"), dav.read("c d"), dav.read("d/e/y")),
        ("a".into(), "b".into(), "y".into())
    );
    dav.stop();
}

#[test]
fn a_destination_must_be_a_fit_place_here() {
    let dav = Dav::start(&["hide_files_patterns=secret"]);
    dav.write("a", "a").write("d/x", "x").write("secret", "s").write("d/e/z", "z");
    for_each(
        [
            ("/a", "", 400),
            ("/a", "b", 400),
            ("/a", "http://127.0.0.1:1/b", 502),
            ("/a", "http://elsewhere/b", 502),
            ("/a", "/../b", 400),
            ("/a", "/%2e%2e/b", 400),
            ("/a", "/d/../../b", 400),
            ("/a", "/b%00", 400),
            ("/a", "/a", 403),
            ("/a", "/d/../a", 400),
            ("/a", "/none/b", 409),
            ("/a", "/a/b", 409),
            ("/a", "/secret", 403),
            ("/a", "/.htpasswd", 403),
            ("/a", "/d/.htpasswd", 403),
            ("/a", "/.mongoose-dav", 403),
            ("/a", "/.mongoose-dav.1", 403),
            ("/a", "/", 403),
            ("/d", "/d", 403),
            ("/d", "/d/", 403),
            ("/d", "/d/e/f", 403),
            ("/d/e", "/d", 403),
            ("/secret", "/b", 404),
            ("/", "/d/b", 403),
        ],
        |case| format!("{case:?}"),
        |(from, to, status)| {
            for method in ["COPY", "MOVE"] {
                let field = format!("Destination: {to}\r\n");
                assert_eq!(dav.status(method, from, &field, ""), *status, "{method}");
            }
        },
    );
    assert_eq!(dav.status("COPY", "/a", "", ""), 400, "no destination");
    assert_eq!(dav.status("COPY", "/a", "Destination: /b\r\nOverwrite: X\r\n", ""), 400);
    assert_eq!(dav.names(""), ["a", "d", "secret"]);
    assert_eq!(dav.names("d"), ["e", "x"]);
    dav.stop();
}

#[test]
fn what_is_hidden_is_not_brought_to_light() {
    let scratch = Scratch::new();
    let pattern = format!("hide_files_patterns={}", scratch.join("root/d/private"));
    let dav = Dav::start_in(scratch, &[&pattern]);
    dav.write("d/private", "p").write("d/x", "x").write("d/.htpasswd", "joe:a:b\n");
    assert_eq!(dav.transfer("COPY", "/d", "/copy"), 201);
    assert_eq!(dav.names("copy"), [".htpasswd", "x"]);
    assert_eq!(dav.transfer("MOVE", "/d", "/moved"), 403);
    assert_eq!(dav.names("d"), [".htpasswd", "private", "x"]);
    dav.stop();
}

#[test]
fn a_move_goes_across_file_systems() {
    let dav = Dav::start(&[]);
    let _other = Elsewhere::linked(&dav.scratch, "root/other");
    let large = "0123456789".repeat(200_000);
    dav.write("a", &large).write("d/e/x", "x").write("d/y", "y").write("other/f/old", "old");
    let patch = "<propertyupdate xmlns='DAV:'><set><prop><p xmlns='u:1'>v</p></prop></set>\
                 </propertyupdate>";
    for path in ["/a", "/d", "/d/y"] {
        assert_eq!(dav.status("PROPPATCH", path, "", patch), 207);
    }
    assert_eq!(dav.transfer("MOVE", "/a", "/other/a"), 201);
    assert_eq!(dav.transfer("MOVE", "/d", "/other/f"), 204);
    assert!(dav.read("other/a") == large);
    assert_eq!((dav.read("other/f/e/x"), dav.read("other/f/y")), ("x".into(), "y".into()));
    assert!(!dav.exists("a") && !dav.exists("d") && !dav.exists("other/f/old"));
    for path in ["/other/a", "/other/f", "/other/f/y"] {
        let text = dav.propfind(path, "0", "").text();
        assert!(text.contains("<p xmlns=\"u:1\">v</p>"), "{path}: {text}");
    }
    assert_eq!(dav.transfer("MOVE", "/other/f", "/back"), 201);
    assert_eq!((dav.names("back").len(), dav.names("other").len()), (3, 2));
    dav.stop();
}

#[test]
fn links_are_copied_and_moved_as_what_they_lead_to() {
    let dav = Dav::start(&[]);
    dav.write("d/a", "a").write("e/x", "x");
    symlink("a", dav.scratch.join("root/d/link")).expect("a link");
    symlink("../..", dav.scratch.join("root/d/up")).expect("a link");
    assert_eq!(dav.transfer("COPY", "/d", "/copy"), 201);
    assert_eq!(dav.transfer("MOVE", "/copy/link", "/moved"), 201);
    assert_eq!(dav.read("moved"), "a");
    assert_eq!(dav.transfer("COPY", "/d/link", "/e/x"), 204);
    assert_eq!(dav.read("e/x"), "a");
    assert_eq!(dav.names("copy"), ["a", "up"]);
    assert_eq!(dav.status("DELETE", "/copy", "", ""), 204);
    assert_eq!((dav.names("d").len(), dav.names("e").len()), (3, 1));
    dav.stop();
}

#[test]
fn others_are_served_while_a_large_tree_is_worked_on() {
    let mut dav = Dav::start(&["--step"]);
    for n in 0..as_many_as(3000, 600) {
        dav.write(&format!("d/{n}"), "x");
    }
    dav.server.tell("run");
    let (mut worker, mut other) = (dav.client(), dav.client());
    for client in [&mut worker, &mut other] {
        assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    }
    for (method, path, fields, status) in
        [("COPY", "/d", "Destination: /copy\r\n", 201), ("DELETE", "/copy", "", 204)]
    {
        dav.server.tell("run");
        let request = dav.request(method, path, fields, "");
        dav.server.poll(1);
        worker.send_through(request);
        other.send_through("GET /alive HTTP/1.1\r\n\r\n");
        // In two turns others have theirs, and the work is not done.
        dav.server.poll(2);
        assert_eq!(other.response().text(), "alive", "{method}");
        let patience = std::time::Duration::from_millis(1);
        assert!(!worker.has_news_within(patience), "{method} is done in one turn");
        dav.server.tell("run");
        assert_eq!(worker.response().status, status, "{method}");
    }
    assert_eq!(dav.names(""), ["d"]);
    dav.stop();
}

#[test]
fn a_link_does_not_take_the_place_of_what_it_leads_to() {
    let dav = Dav::start(&[]);
    dav.write("file", "x").write("d/e/y", "y");
    for (target, link) in [("file", "to_file"), ("d", "to_dir"), ("d/e", "to_inner")] {
        symlink(target, dav.scratch.join(&format!("root/{link}"))).expect("a link");
    }
    for_each(
        [("/to_file", "/file"), ("/to_dir", "/d"), ("/to_inner", "/d")],
        |case| format!("{case:?}"),
        |(from, to)| {
            let destination = format!("Destination: {to}\r\n");
            assert_eq!(dav.status("MOVE", from, &destination, ""), 403);
        },
    );
    assert_eq!((dav.read("file"), dav.read("d/e/y")), ("x".into(), "y".into()));
    dav.stop();
}

#[test]
fn what_may_not_be_read_is_not_copied_and_a_slash_hides_nothing() {
    let dav = Dav::start(&["hide_files_patterns=**/secret.ini$"]);
    dav.write("guarded/x", "x").write("guarded/.htpasswd", "jane:a:b\n");
    dav.write("conf/secret.ini", "s").write("conf/open", "o");
    for method in ["COPY", "MOVE"] {
        for from in ["/guarded/x", "/guarded/x/"] {
            for to in ["/out", "/guarded/../out", "http://a/out", "/guarded/d/x"] {
                let destination = format!("Destination: {to}\r\n");
                assert_eq!(dav.status(method, from, &destination, ""), 403, "{from} {to}");
            }
        }
        for from in ["/conf/secret.ini", "/conf/secret.ini/"] {
            assert_eq!(dav.status(method, from, "Destination: /out\r\n", ""), 404, "{from}");
        }
        let hidden = "Destination: /conf/secret.ini/\r\n";
        assert_eq!(dav.status(method, "/conf/open", hidden, ""), 403);
    }
    assert_eq!(dav.status("DELETE", "/conf/secret.ini/", "", ""), 404);
    assert_eq!(dav.status("PROPFIND", "/guarded/x", "Depth: 0\r\n", ""), 401);
    assert_eq!(dav.status("PROPFIND", "/guarded/x/", "Depth: 0\r\n", ""), 401);
    assert_eq!((dav.read("conf/secret.ini"), dav.read("guarded/x")), ("s".into(), "x".into()));
    assert_eq!(dav.transfer("MOVE", "/guarded/x", "/guarded/y"), 201);
    dav.stop();
}

#[test]
fn who_may_read_with_the_same_password_may_copy_elsewhere() {
    let dav = Dav::start(&[]);
    let passwords = dav.scratch.read("passwords");
    dav.write("both/.htpasswd", &passwords).write("both/x", "x").write("both/y", "y");
    assert_eq!(dav.transfer("COPY", "/both/x", "/x"), 201);
    assert_eq!(dav.transfer("MOVE", "/both/y", "/y"), 201);
    assert_eq!((dav.read("x"), dav.read("y")), ("x".into(), "y".into()));
    // The same name is not enough.
    let other = passwords.replace(['1', '2'], "3");
    assert_ne!(other, passwords);
    dav.write("other/.htpasswd", other).write("other/x", "x");
    for method in ["COPY", "MOVE"] {
        assert_eq!(dav.transfer(method, "/other/x", "/z"), 403, "{method}");
    }
    assert!(!dav.exists("z"));
    dav.stop();
}
