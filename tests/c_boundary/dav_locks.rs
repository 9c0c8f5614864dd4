//! LOCK, UNLOCK and the If field (RFC 4918 sections 6, 7, 9.10, 9.11 and 10.4).

use std::time::Duration;

use crate::support::{Client, Dav, LOCK, Scratch, as_many_as, for_each, until};

fn shared() -> String {
    LOCK.replace("exclusive", "shared")
}

fn with(token: &str) -> String {
    format!("If: (<{token}>)\r\n")
}

#[test]
fn a_lock_is_granted_shown_refreshed_and_given_back() {
    let dav = Dav::start(&[]);
    dav.write("a", "1");
    let answer = dav.ask("LOCK", "/a", "Timeout: Second-100\r\n", LOCK);
    let text = answer.text();
    assert_eq!(answer.status, 200);
    let token = answer.field("Lock-Token").expect("a token").trim_matches(['<', '>']).to_owned();
    assert!(token.starts_with("urn:uuid:"), "{token}");
    for part in [
        "<D:prop xmlns:D=\"DAV:\"><D:lockdiscovery><D:activelock>",
        "<D:lockscope><D:exclusive/></D:lockscope><D:depth>0</D:depth>",
        "<D:owner xmlns:D=\"DAV:\">joe</D:owner><D:timeout>Second-100</D:timeout>",
        "<D:lockroot><D:href>/a</D:href></D:lockroot>",
        &format!("<D:locktoken><D:href>{token}</D:href></D:locktoken>"),
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(dav.propfind("/a", "0", "").text().contains(&token));
    assert!(dav.propfind("/", "1", "").text().contains(&token));
    let refresh = |fields: &str| dav.ask("LOCK", "/a", fields, "");
    let answer = refresh(&format!("{}Timeout: Second-5000\r\n", with(&token)));
    assert!(answer.status == 200 && answer.text().contains("Second-5000"), "{}", answer.text());
    assert_eq!(answer.field("Lock-Token"), None);
    assert_eq!(refresh("").status, 400);
    assert_eq!(refresh(&with("urn:uuid:other")).status, 412);
    assert_eq!(refresh("If: (Not <urn:x>)\r\n").status, 412);

    let unlock = |path: &str, field: &str| dav.status("UNLOCK", path, field, "");
    let field = format!("Lock-Token: <{token}>\r\n");
    assert_eq!(unlock("/a", ""), 400);
    assert_eq!(unlock("/a", "Lock-Token: <nonsense\r\n"), 400);
    assert_eq!(unlock("/a", "Lock-Token: <urn:uuid:other>\r\n"), 409);
    assert_eq!(unlock("/none", &field), 404);
    let jane = dav.request_of("jane", "UNLOCK", "/a", &field, "");
    assert_eq!(dav.server.ask(jane).status, 403);
    assert_eq!(unlock("/a", &field), 204);
    assert_eq!(unlock("/a", &field), 409);
    assert_eq!(dav.names(""), ["a"]);
    dav.stop();
}

#[test]
fn only_who_shows_the_token_changes_what_is_locked() {
    let dav = Dav::start(&[]);
    dav.write("a", "1").write("b", "2");
    let token = dav.lock("/a", "");
    let patch = "<propertyupdate xmlns='DAV:'><remove><prop><x/></prop></remove></propertyupdate>";
    for_each(
        [
            ("PUT", "/a", "", "new"),
            ("DELETE", "/a", "", ""),
            ("PROPPATCH", "/a", "", patch),
            ("MOVE", "/a", "Destination: /c\r\n", ""),
            ("MOVE", "/b", "Destination: /a\r\n", ""),
            ("COPY", "/b", "Destination: /a\r\n", ""),
            ("LOCK", "/a", "", LOCK),
        ],
        |case| format!("{case:?}"),
        |(method, path, fields, body)| {
            let answer = dav.ask(method, path, fields, body);
            assert_eq!(answer.status, 423, "{}", answer.head);
            let text = answer.text();
            let condition =
                if *method == "LOCK" { "no-conflicting-lock" } else { "lock-token-submitted" };
            let expected = format!("<D:{condition}><D:href>/a</D:href></D:{condition}>");
            assert!(text.contains(&expected), "{text}");
        },
    );
    // The token is no secret, so that it is good for its owner only.
    let jane = dav.request_of("jane", "PUT", "/a", &with(&token), "hers");
    assert_eq!(dav.server.ask(jane).status, 423);
    assert_eq!((dav.read("a"), dav.read("b")), ("1".into(), "2".into()));

    assert_eq!(dav.status("PUT", "/a", &with(&token), "mine"), 204);
    assert_eq!(dav.transfer("COPY", "/a", "/c"), 201);
    assert_eq!(dav.status("PUT", "/c", "", "a copy is not locked"), 204);
    let move_it = format!("Destination: /d\r\n{}", with(&token));
    assert_eq!(dav.status("MOVE", "/a", &move_it, ""), 201);
    assert_eq!(dav.status("PUT", "/d", "", "a lock does not move"), 204);
    assert_eq!(dav.status("PUT", "/a", "", "nor stay behind"), 201);
    let token = dav.lock("/a", "");
    assert_eq!(dav.status("DELETE", "/a", &with(&token), ""), 204);
    assert_eq!(dav.status("PUT", "/a", "", "nor outlive what it was on"), 201);
    dav.stop();
}

#[test]
fn a_deep_lock_covers_what_is_below_and_what_comes_to_be() {
    let dav = Dav::start(&[]);
    dav.write("d/e/f", "1").write("a", "2");
    let token = dav.lock("/d", "Depth: infinity\r\n");
    for (method, path, fields) in [
        ("PUT", "/d/e/f", ""),
        ("PUT", "/d/new", ""),
        ("MKCOL", "/d/e/new", ""),
        ("DELETE", "/d/e", ""),
        ("COPY", "/a", "Destination: /d/e/new\r\n"),
        ("MOVE", "/d/e/f", "Destination: /b\r\n"),
        ("DELETE", "/d", ""),
        ("LOCK", "/d/e/f", ""),
    ] {
        let body = if method == "LOCK" { LOCK } else { "" };
        let length = if method == "PUT" { "Content-Length: 0\r\n" } else { "" };
        let fields = format!("{fields}{length}");
        assert_eq!(dav.status(method, path, &fields, body), 423, "{method} {path}");
    }
    assert!(dav.propfind("/d/e/f", "0", "").text().contains(&token));
    assert_eq!(dav.status("PUT", "/d/e/g", &with(&token), "x"), 201);
    let tagged = format!("If: </d/> (<{token}>)\r\n");
    assert_eq!(dav.status("PUT", "/d/e/h", &tagged, "x"), 201);
    // Given back through any name below.
    assert_eq!(dav.status("UNLOCK", "/d/e/f", &format!("Lock-Token: <{token}>\r\n"), ""), 204);
    assert_eq!(dav.status("PUT", "/d/e/f", "", "new"), 204);

    // A lock of depth 0 on a directory keeps names from coming and going.
    let token = dav.lock("/d/e", "Depth: 0\r\n");
    assert_eq!(dav.status("PUT", "/d/e/f", "", "content"), 204);
    assert_eq!(dav.status("PUT", "/d/e/i", "", "name"), 423);
    assert_eq!(dav.status("DELETE", "/d/e/f", "", ""), 423);
    assert_eq!(dav.status("DELETE", "/d/e/f", &format!("If: </d/e> (<{token}>)\r\n"), ""), 204);
    dav.stop();
}

#[test]
fn what_is_locked_inside_keeps_the_whole() {
    let dav = Dav::start(&[]);
    dav.write("d/e/f", "1").write("d/g", "2").write("h/x", "3");
    let token = dav.lock("/d/e/f", "");
    for (method, path, fields) in [
        ("DELETE", "/d", ""),
        ("MOVE", "/d", "Destination: /m\r\n"),
        ("COPY", "/h", "Destination: /d\r\n"),
    ] {
        let answer = dav.ask(method, path, fields, "");
        assert_eq!(answer.status, 207, "{method}");
        let expected = "<D:href>/d/e/f</D:href><D:status>HTTP/1.1 423 Locked";
        assert!(answer.text().contains(expected), "{}", answer.text());
    }
    assert_eq!(dav.names("d"), ["e", "g"]);
    let answer = dav.ask("LOCK", "/d", "Depth: infinity\r\n", LOCK);
    assert_eq!(answer.status, 207);
    let text = answer.text();
    assert!(text.contains("<D:href>/d/e/f</D:href><D:status>HTTP/1.1 423"), "{text}");
    assert!(text.contains("<D:href>/d/</D:href><D:status>HTTP/1.1 424"), "{text}");
    let tagged = format!("If: </d/e/f> (<{token}>)\r\n");
    assert_eq!(dav.status("DELETE", "/d", &tagged, ""), 204);
    dav.stop();
}

#[test]
fn shared_locks_are_shared_and_nothing_else() {
    let dav = Dav::start(&[]);
    dav.write("a", "1");
    let lock = |user: &str, body: &str| {
        let answer = dav.server.ask(dav.request_of(user, "LOCK", "/a", "", body));
        (
            answer.status,
            answer.field("Lock-Token").unwrap_or_default().trim_matches(['<', '>']).to_owned(),
        )
    };
    let (status, joe) = lock("joe", &shared());
    assert_eq!(status, 200);
    let (status, jane) = lock("jane", &shared());
    assert_eq!(status, 200);
    assert_eq!(lock("joe", LOCK).0, 423);
    assert_eq!(dav.status("PUT", "/a", "", "no"), 423);
    assert_eq!(dav.status("PUT", "/a", &with(&jane), "not hers"), 423);
    assert_eq!(dav.status("PUT", "/a", &with(&joe), "his"), 204);
    dav.stop();
}

#[test]
fn a_lock_on_nothing_makes_an_empty_file() {
    let dav = Dav::start(&[]);
    let answer = dav.ask("LOCK", "/a", "", LOCK);
    assert_eq!((answer.status, dav.exists("a"), dav.read("a").len()), (201, true, 0));
    assert_eq!(dav.status("PUT", "/a", "", "x"), 423);
    assert_eq!(dav.status("LOCK", "/none/a", "", LOCK), 409);
    assert_eq!(dav.status("LOCK", "/.htpasswd", "", LOCK), 404);
    assert_eq!(dav.status("LOCK", "/b", "Depth: 1\r\n", LOCK), 400);
    assert_eq!(dav.status("LOCK", "/b", "", "nonsense"), 400);
    assert_eq!(dav.status("LOCK", "/b", "", "<lockinfo xmlns='DAV:'/>"), 400);
    assert!(!dav.exists("b"));
    dav.stop();
}

#[test]
fn a_lock_survives_a_restart_and_ends_with_its_time() {
    let mut dav = Dav::start(&[]);
    dav.write("a", "1").write("b", "2");
    let token = dav.lock("/a", "Timeout: Infinite\r\n");
    dav.restart();
    assert_eq!(dav.status("PUT", "/a", "", "x"), 423);
    assert_eq!(dav.status("PUT", "/a", &with(&token), "x"), 204);
    dav.lock("/b", "Timeout: Second-1\r\n");
    until("the lock is over", || dav.status("PUT", "/b", "", "x") == 204);
    dav.stop();
}

#[test]
fn a_lock_holds_under_every_name() {
    let scratch = Scratch::new();
    let rewrite = format!("url_rewrites=/alias={}", scratch.join("root/d"));
    let dav = Dav::start_in(scratch, &[&rewrite]);
    dav.write("d/a", "1");
    std::os::unix::fs::symlink("d", dav.scratch.join("root/link")).expect("a link");
    let token = dav.lock("/link/a", "");
    for path in ["/d/a", "/link/a", "/alias/a"] {
        assert_eq!(dav.status("PUT", path, "", "x"), 423, "{path}");
        assert_eq!(dav.status("PUT", path, &with(&token), "x"), 204, "{path}");
    }
    dav.stop();
}

#[test]
fn servers_of_two_processes_see_each_others_locks_and_properties() {
    let first = Dav::start(&[]);
    let second = Dav::start(&[&format!("document_root={}", first.scratch.join("root"))]);
    first.write("a", "1");
    let token = first.lock("/a", "");
    assert_eq!(second.status("PUT", "/a", "", "2"), 423);
    assert_eq!(second.status("PUT", "/a", &with(&token), "2"), 204);
    assert_eq!(second.status("UNLOCK", "/a", &format!("Lock-Token: <{token}>\r\n"), ""), 204);
    // Both change the same file at once, and none takes back what the other has done.
    let count = as_many_as(100, 10);
    let mut clients: Vec<_> = [(&first, "x"), (&second, "y")]
        .into_iter()
        .map(|(dav, prefix)| {
            let request = |n| {
                let body = format!(
                    "<propertyupdate xmlns='DAV:'><set><prop><{prefix}{n} xmlns='u:1'/></prop>\
                     </set></propertyupdate>"
                );
                dav.request("PROPPATCH", "/a", "", &body)
            };
            let requests: String = (0..count).map(request).collect();
            (dav.client(), requests)
        })
        .collect();
    for (client, requests) in &mut clients {
        client.send(requests);
    }
    for (client, _) in &mut clients {
        (0..count).for_each(|_| assert_eq!(client.response().status, 207));
    }
    let text = first.propfind("/a", "0", "").text();
    assert_eq!((text.matches("<x").count(), text.matches("<y").count()), (count, count), "{text}");
    second.stop();
    first.stop();
}

#[test]
fn the_if_field_is_judged_as_a_whole() {
    let dav = Dav::start(&[]);
    dav.write("a", "1").write("b", "2");
    let token = dav.lock("/a", "");
    let etag = |path: &str| {
        let answer = dav.server.ask(format!("GET {path} HTTP/1.1\r\n\r\n"));
        answer.field("Etag").expect("a tag").to_owned()
    };
    let host = format!("http://127.0.0.1:{}", dav.server.port);
    for_each(
        [
            (format!("(<{token}> [{}])", etag("/a")), 204),
            (format!("(<{token}> [\"other\"])"), 412),
            (format!("(<{token}>) ([\"other\"])"), 204),
            (format!("(<urn:other>) (Not <DAV:no-lock> <{token}>)"), 204),
            ("(Not <DAV:no-lock>)".to_owned(), 423),
            ("(<DAV:no-lock>)".to_owned(), 412),
            (format!("<{host}/a> (<{token}>)"), 204),
            (format!("</b> (<{token}>)"), 412),
            (format!("</b> ([{}]) </a> (<{token}>)", etag("/b")), 204),
            (format!("<http://elsewhere/a> (<{token}>)"), 412),
            (format!("</none> (<{token}>)"), 412),
            (format!("</../a> (<{token}>)"), 400),
            (format!("</%2e%2e/%2e%2e/etc/passwd> (<{token}>)"), 400),
            (format!("(<{token}>) </a> (<{token}>)"), 400),
            (format!("(<{token}>"), 400),
        ],
        |case| format!("{case:?}"),
        |(field, status)| {
            let answer = dav.ask("PUT", "/a", &format!("If: {field}\r\n"), "1");
            assert_eq!(answer.status, *status, "{}", answer.text());
        },
    );
    dav.stop();
}

#[test]
fn a_link_in_a_locked_collection_needs_its_token() {
    let dav = Dav::start(&[]);
    dav.write("file", "1").write("outside", "out").write("dir/x", "x");
    for (end, link) in [("../outside", "flat/link"), ("../outside", "deep/link")] {
        dav.write(&format!("{}/y", link.split('/').next().unwrap_or_default()), "y");
        let link = dav.scratch.join(&format!("root/{link}"));
        std::os::unix::fs::symlink(end, link).expect("a link");
    }
    let flat = dav.lock("/flat", "Depth: 0\r\n");
    let deep = dav.lock("/deep", "Depth: infinity\r\n");
    let to = |path: &str, fields: &str| format!("Destination: {path}\r\n{fields}");
    for (dir, token) in [("flat", &flat), ("deep", &deep)] {
        let link = format!("/{dir}/link");
        for (method, path, fields) in [
            ("COPY", "/file", to(&link, "")),
            ("MOVE", "/file", to(&link, "")),
            ("COPY", "/dir", to(&link, "")),
            ("MOVE", &link, to("/moved", "")),
            ("DELETE", &link, String::new()),
        ] {
            assert_eq!(dav.status(method, path, &fields, ""), 423, "{method} {path} {fields}");
        }
        // PUT changes what the link leads to: that is no other member of the collection, but
        // other content of the same.
        let expected = if dir == "flat" { 204 } else { 423 };
        assert_eq!(dav.status("PUT", &link, "", "put"), expected, "{dir}");
        let tagged = format!("If: </{dir}/> (<{token}>)\r\n");
        assert_eq!(dav.status("PUT", &link, &tagged, "put"), 204, "{dir}");
        let expected = if dir == "flat" { 412 } else { 204 };
        assert_eq!(dav.status("PUT", &link, &with(token), "put"), expected, "{dir}");
        assert_eq!(dav.read("outside"), "put");
        let is_link = std::fs::symlink_metadata(dav.scratch.join(&format!("root{link}")));
        assert!(is_link.expect("a link").is_symlink());
        assert_eq!(dav.status("COPY", "/file", &to(&link, &tagged), ""), 204);
        assert_eq!((dav.read(&link[1..]), dav.read("outside")), ("1".into(), "put".into()));
    }
    // A key to the link is none to what it leads to.
    std::os::unix::fs::symlink("../outside", dav.scratch.join("root/deep/more")).expect("a link");
    let jane = dav.server.ask(dav.request_of("jane", "LOCK", "/outside", "", LOCK));
    assert_eq!(jane.status, 200);
    assert_eq!(dav.status("PUT", "/deep/more", &with(&deep), "joe"), 423);
    assert_eq!(dav.read("outside"), "put");
    dav.stop();
}

/// Makes `/d` so large that a deep LOCK of it takes several turns.
fn fill_deep_folder(dav: &Dav) {
    for n in 0..as_many_as(4000, 2000) {
        std::fs::create_dir_all(dav.scratch.join(&format!("root/d/{n}"))).expect("a folder");
    }
    dav.write("d/a", "1");
}

/// A server that works on a deep LOCK of `/d`, of which it has looked at `/d` itself, and the
/// client that waits for it.
fn begin_deep_lock(dav: &mut Dav) -> Client {
    fill_deep_folder(dav);
    dav.server.tell("run");
    let request = dav.request("LOCK", "/d", "Depth: infinity\r\n", LOCK);
    let mut client = dav.server.accepted();
    client.send_through(request);
    dav.server.poll(2);
    assert!(!client.has_news_within(Duration::from_millis(1)), "it is done at once");
    client
}

#[test]
fn a_lock_below_one_that_is_being_taken_is_refused() {
    let mut dav = Dav::start(&["--step"]);
    let mut deep = begin_deep_lock(&mut dav);
    let mut other = dav.client();
    other.send_through(dav.request_of("jane", "LOCK", "/d/a", "", LOCK));
    dav.server.poll(3);
    assert!(!deep.has_news_within(Duration::from_millis(1)), "it is done too soon");
    dav.server.tell("run");
    assert_eq!(other.response().status, 423);
    assert_eq!(deep.response().status, 200);
    assert_eq!(dav.status("PUT", "/d/a", "", "x"), 423);
    dav.stop();
}

#[test]
fn a_lock_that_cannot_be_kept_leaves_no_file() {
    let dav = Dav::start(&[]);
    // As long as it may become, but for some bytes.
    let start = "mongoose-dav 1\nmember a\nproperty u p ";
    dav.write("a", "1");
    dav.write(".mongoose-dav", format!("{start}{}\n", "x".repeat((8 << 20) - start.len() - 40)));
    assert_eq!(dav.status("LOCK", "/b", "", LOCK), 507);
    assert_eq!(dav.status("LOCK", "/a", "", LOCK), 507);
    assert_eq!(dav.names(""), [".mongoose-dav", "a"]);
    assert_eq!(dav.read("a"), "1");
    dav.stop();
}

#[test]
fn a_deep_lock_whose_client_leaves_or_that_is_refused_stays_nowhere() {
    let mut dav = Dav::start(&["--step"]);
    for leaves in [Client::reset, drop] {
        let deep = begin_deep_lock(&mut dav);
        leaves(deep);
        dav.server.tell("run");
        until("the lock is gone", || dav.status("PUT", "/d/a", "", "2") == 204);
    }
    let token = dav.lock("/d/1", "");
    assert_eq!(dav.ask("LOCK", "/d", "Depth: infinity\r\n", LOCK).status, 207);
    assert_eq!(dav.status("PUT", "/d/a", "", "3"), 204);
    assert_eq!(dav.status("UNLOCK", "/d/1", &format!("Lock-Token: <{token}>\r\n"), ""), 204);
    dav.lock("/d", "Depth: infinity\r\nTimeout: Second-5000\r\n");
    let text = dav.propfind("/d/a", "0", "").text();
    assert!(text.contains("<D:timeout>Second-5000<") || text.contains("<D:timeout>Second-4"));
    dav.stop();
}

#[cfg(feature = "tls")]
#[test]
fn a_client_that_only_sends_no_more_is_told_by_tls_that_its_deep_lock_is_given_up() {
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpStream};

    use crate::support::{Authority, client_config, open, until_arrived};

    needs!("openssl");
    let mut dav = Dav::start(&["--step"]);
    fill_deep_folder(&dav);
    dav.server.tell("run");
    let request = dav.request("LOCK", "/d", "Depth: infinity\r\n", LOCK);
    let certificate = Authority::get().identity("ec");
    dav.server.tell(&format!("set ssl_certificate {certificate}"));
    dav.server.expect_line("set ssl_certificate: NULL");
    dav.server.tell("run");
    let mut socket = TcpStream::connect(("127.0.0.1", dav.server.port)).expect("a connection");
    let mut session = open(client_config());
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    stream.write_all(b"GET /alive HTTP/1.1\r\n\r\n").expect("a request");
    let mut answer = Vec::new();
    while !answer.ends_with(b"alive") {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).expect("an answer");
        assert!(count > 0, "it is cut off");
        answer.extend_from_slice(&piece[..count]);
    }
    dav.server.poll(1);
    stream.write_all(request.as_bytes()).expect("a request");
    until_arrived(stream.sock);
    dav.server.poll(2);
    stream.sock.shutdown(Shutdown::Write).expect("an end");
    dav.server.tell("run");
    let mut rest = Vec::new();
    // An end without close_notify is an error here.
    let end = stream.read_to_end(&mut rest);
    assert!(end.is_ok() && rest.is_empty(), "{end:?} {rest:?}");
    dav.server.tell("set ssl_certificate ");
    dav.server.expect_line("set ssl_certificate: NULL");
    dav.server.tell("run");
    dav.stop();
}

#[test]
fn a_lock_lasts_no_longer_than_granted_when_the_clock_was_set_back() {
    let dav = Dav::start(&[]);
    dav.write("a", "1");
    let left = || {
        let told = dav.propfind("/a", "0", "").text();
        let end = told.split("<D:timeout>Second-").nth(1).and_then(|rest| rest.split('<').next());
        end.and_then(|seconds| seconds.parse::<u64>().ok())
    };
    let token = dav.lock("/a", "Timeout: Second-1000\r\n");
    assert!(left().is_some_and(|seconds| (900..=1000).contains(&seconds)), "{:?}", left());
    // As the file looks if it was written 400 days later.
    let text = dav.read(".mongoose-dav");
    let mut fields: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let expires: u64 = fields[6].parse().expect("the end");
    fields[6] = (expires + 400 * 86_400).to_string();
    dav.write(".mongoose-dav", fields.join(" "));
    assert!(left().is_some_and(|seconds| (900..=1000).contains(&seconds)), "{:?}", left());
    // And that is kept.
    let kept = dav.read(".mongoose-dav");
    let end: u64 = kept.split(' ').nth(6).and_then(|end| end.parse().ok()).expect("the end");
    assert!(end <= expires + 100, "{kept}");
    assert_eq!(dav.status("PUT", "/a", "", "2"), 423);
    let refresh = format!("If: (<{token}>)\r\nTimeout: Second-50\r\n");
    assert_eq!(dav.status("LOCK", "/a", &refresh, ""), 200);
    assert!(left().is_some_and(|seconds| (1..=50).contains(&seconds)), "{:?}", left());
    dav.stop();
}
