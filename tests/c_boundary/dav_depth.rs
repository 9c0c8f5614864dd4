//! PROPFIND of an infinite depth (RFC 4918, section 9.1), which `dav_depth_infinity` allows.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::support::{Dav, Response, as_many_as};

/// The paths that an answer tells of, sorted.
fn hrefs(answer: &Response) -> Vec<String> {
    assert_eq!(answer.status, 207, "{}", answer.text());
    let text = answer.text();
    let parts = text.split("<D:response><D:href>").skip(1);
    let mut paths: Vec<String> =
        parts.map(|part| part.split('<').next().unwrap_or_default().to_owned()).collect();
    paths.sort();
    paths
}

fn all(dav: &Dav, path: &str) -> Response {
    dav.ask("PROPFIND", path, "Depth: infinity\r\n", "")
}

#[test]
fn an_infinite_depth_is_answered_where_the_option_says_so() {
    let mut dav =
        Dav::start(&["hide_files_patterns=**.bak|**/private/", "error_log_file=/dev/null"]);
    dav.write("a", "").write("d/b c", "").write("d/e/f", "").write("d/x.bak", "");
    dav.write("d/e/.htpasswd.old", "").write("d/old.bak/y", "").write("d/private/z", "");
    symlink("..", dav.scratch.join("root/d/up")).expect("a link");
    symlink("none", dav.scratch.join("root/d/dangling")).expect("a link");
    assert_eq!(all(&dav, "/").status, 403);
    dav.server.tell("set dav_depth_infinity yes");
    dav.server.expect_line("set dav_depth_infinity: NULL");
    // The name of a directory that is hidden with a slash alone shows, as elsewhere; its members do not.
    let expected = ["/", "/a", "/d/", "/d/b%20c", "/d/e/", "/d/e/f", "/d/private/", "/d/up/"];
    assert_eq!(hrefs(&all(&dav, "/")), expected);
    // No Depth is an infinite one.
    assert_eq!(hrefs(&dav.ask("PROPFIND", "/", "", "")), expected);
    assert_eq!(hrefs(&all(&dav, "/d/e")), ["/d/e/", "/d/e/f"]);
    assert_eq!(hrefs(&all(&dav, "/a")), ["/a"]);
    // A directory behind a link is one when it is asked for.
    assert!(hrefs(&all(&dav, "/d/up/")).contains(&"/d/up/d/e/f".to_owned()));
    assert_eq!(hrefs(&dav.propfind("/", "1", "")), ["/", "/a", "/d/"]);
    dav.server.tell("set enable_directory_listing no");
    dav.server.expect_line("set enable_directory_listing: NULL");
    assert_eq!(hrefs(&all(&dav, "/")), ["/"]);
    dav.stop();
}

#[test]
fn what_another_password_guards_or_nobody_may_read_is_passed_over() {
    let dav = Dav::start(&["dav_depth_infinity=yes"]);
    dav.write("d/open/x", "").write("d/guarded/y", "").write("d/guarded/deep/z", "");
    let set = "<D:propertyupdate xmlns:D='DAV:'><D:set><D:prop><p xmlns='u:'>hush</p></D:prop></D:set>\
        </D:propertyupdate>";
    for path in ["/d/guarded/", "/d/guarded/y"] {
        assert_eq!(dav.status("PROPPATCH", path, "", set), 207);
    }
    assert!(all(&dav, "/").text().matches("hush").count() == 2);
    dav.write("d/guarded/.htpasswd", "somebody:else:0\n");
    let answer = all(&dav, "/");
    assert_eq!(hrefs(&answer), ["/", "/d/", "/d/guarded/", "/d/open/", "/d/open/x"]);
    assert!(!answer.text().contains("hush"), "{}", answer.text());
    // Locks above and below show where they hold.
    let token = dav.lock("/d/open/", "");
    let text = all(&dav, "/").text();
    assert_eq!(text.matches(&token).count(), 2, "{text}");
    let open = dav.scratch.join("root/d/open");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o000)).expect("a mode");
    assert!(hrefs(&all(&dav, "/")).contains(&"/d/open/".to_owned()));
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    dav.stop();
}

#[test]
fn a_tree_that_is_too_deep_says_where_it_goes_on() {
    let dav = Dav::start(&["dav_depth_infinity=yes"]);
    let path: String = (0..80).map(|_| "d/").collect();
    dav.write(&format!("{path}end"), "");
    let answer = all(&dav, "/");
    let (text, told) = (answer.text(), hrefs(&answer));
    assert_eq!(text.matches("HTTP/1.1 507 ").count(), 1, "{text}");
    let last = told.iter().max_by_key(|href| href.len()).expect("the deepest");
    assert!(last.len() > 100 && told.iter().filter(|href| *href == last).count() == 2);
    assert!(hrefs(&all(&dav, last)).iter().any(|href| href.ends_with("/end")));
    dav.stop();
}

#[test]
fn a_large_tree_is_told_of_as_the_client_takes_it() {
    let dav = Dav::start(&["dav_depth_infinity=yes", "max_buffered_bytes=1000000"]);
    let count = as_many_as(9_000, 900);
    for n in 0..count {
        dav.write(&format!("{}/{}/{n:05}", n % 7, n % 300), "");
    }
    let mut client = dav.client();
    client.send(dav.request("PROPFIND", "/", "", ""));
    let head = client.take_through("\r\n\r\n");
    assert!(head.contains("Transfer-Encoding: chunked\r\n"), "{head}");
    // Others have their turn while nobody takes it.
    for _ in 0..3 {
        let body = "x".repeat(300_000);
        let request = format!("POST /echo HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
        let answer = dav.server.ask(format!("{request}{body}"));
        assert!(answer.status == 200 && answer.body.len() > body.len(), "{}", answer.status);
    }
    let mut text = String::new();
    loop {
        let line = client.take_through("\r\n");
        let len = usize::from_str_radix(line.trim_end(), 16).expect("the length of a chunk");
        assert!(len < 200_000, "{len}");
        text.push_str(&String::from_utf8(client.take(len)).expect("text"));
        client.expect("\r\n");
        if len == 0 {
            break;
        }
    }
    let files = text.matches("<D:getcontentlength>").count();
    assert_eq!((files, text.ends_with("</D:multistatus>\n")), (count, true));
    // A client that leaves in the midst of it leaves nothing behind.
    let mut client = dav.client();
    client.send(dav.request("PROPFIND", "/", "", ""));
    client.take_through("\r\n\r\n");
    client.reset();
    dav.stop();
}
