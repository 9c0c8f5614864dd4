//! OPTIONS, PROPFIND and PROPPATCH (RFC 4918 sections 9.1, 9.2 and 10.1).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use crate::support::{Dav, Response, Scratch, Server, as_many_as, for_each, is_checked};

fn hrefs(answer: &Response) -> Vec<String> {
    let text = answer.text();
    let mut found: Vec<String> = text
        .split("<D:response><D:href>")
        .skip(1)
        .map(|part| part.split("</D:href>").next().unwrap_or_default().to_owned())
        .collect();
    found.sort();
    found
}

fn set(properties: &str) -> String {
    format!(
        "<D:propertyupdate xmlns:D='DAV:'><D:set><D:prop>{properties}</D:prop></D:set></D:propertyupdate>"
    )
}

#[test]
fn options_say_what_can_be_done() {
    let scratch = Scratch::new();
    scratch.write("root/a", "");
    let server = Server::start(&[&format!("document_root={}", scratch.join("root"))]);
    let answer = server.ask("OPTIONS / HTTP/1.1\r\n\r\n");
    assert_eq!((answer.status, answer.field("DAV")), (200, Some("1")));
    assert_eq!(answer.field("Allow"), Some("GET, HEAD, POST, OPTIONS, PROPFIND"));
    assert_eq!(server.ask("PROPFIND /a HTTP/1.1\r\nDepth: 0\r\n\r\n").status, 207);
    server.stop();
    let dav = Dav::start(&[]);
    let answer = dav.server.ask("OPTIONS /none HTTP/1.1\r\n\r\n");
    assert_eq!((answer.status, answer.field("DAV")), (200, Some("1, 2")));
    let allow = answer.field("Allow").expect("methods");
    for method in
        ["PROPFIND", "PUT", "DELETE", "MKCOL", "COPY", "MOVE", "PROPPATCH", "LOCK", "UNLOCK"]
    {
        assert!(allow.split(", ").any(|known| known == method), "{method} in {allow}");
    }
    dav.stop();
}

#[test]
fn a_depth_says_how_much_is_told() {
    let dav = Dav::start(&["hide_files_patterns=**.bak"]);
    dav.write("a", "1").write("d/b c", "2").write("d/.htpasswd.old", "").write("d/x.bak", "");
    dav.write("d/e/f", "3");
    let odd = dav.scratch.join("root/d");
    std::fs::write(std::path::Path::new(&odd).join(OsStr::from_bytes(b"\xff<&")), "").expect("odd");
    assert_eq!(dav.status("PROPPATCH", "/d/b%20c", "", &set("<x xmlns=''/>")), 207);
    let answer = dav.propfind("/d", "1", "");
    assert_eq!(answer.field("Content-Type"), Some("application/xml; charset=\"utf-8\""));
    assert_eq!(hrefs(&answer), ["/d/", "/d/%FF%3C%26", "/d/b%20c", "/d/e/"]);
    assert_eq!(hrefs(&dav.propfind("/d/", "0", "")), ["/d/"]);
    assert_eq!(hrefs(&dav.propfind("/a", "1", "")), ["/a"]);
    assert_eq!(hrefs(&dav.ask("PROPFIND", "/a", "", "")), ["/a"]);
    for fields in ["", "Depth: infinity\r\n"] {
        let answer = dav.ask("PROPFIND", "/", fields, "");
        assert_eq!(answer.status, 403, "{fields}");
        assert!(answer.text().contains("<D:propfind-finite-depth/>"), "{}", answer.text());
    }
    for_each(
        [("/none", "0", 404), ("/d/x.bak", "0", 404), ("/d", "2", 400), ("/d", "-1", 400)],
        |case| format!("{case:?}"),
        |(path, depth, status)| assert_eq!(dav.propfind(path, depth, "").status, *status),
    );
    dav.server.program.stop();

    let scratch = dav.scratch;
    let dav = Dav::start_in(scratch, &["enable_directory_listing=no"]);
    assert_eq!(hrefs(&dav.propfind("/d", "1", "")), ["/d/"]);
    dav.stop();
}

#[test]
fn reading_obeys_the_password_files_of_reading() {
    let dav = Dav::start(&[]);
    dav.write("d/a", "1").write("d/.htpasswd", dav.scratch.read("passwords"));
    let request = "PROPFIND /d/ HTTP/1.1\r\nDepth: 1\r\n\r\n";
    assert_eq!(dav.server.ask(request).status, 401);
    assert_eq!(hrefs(&dav.propfind("/d/", "1", "")), ["/d/", "/d/a"]);
    dav.stop();
}

#[test]
fn what_another_password_guards_is_told_by_its_name_alone() {
    let dav = Dav::start(&[]);
    dav.write("d/open/x", "1").write("d/guarded/y", "2");
    symlink("../d/guarded", dav.scratch.join("root/d/to_dir")).expect("a link");
    symlink("guarded/y", dav.scratch.join("root/d/to_file")).expect("a link");
    symlink("open/x", dav.scratch.join("root/d/to_open")).expect("a link");
    let dead = "<secret xmlns='u:1'>hush</secret>";
    for path in ["/d/open", "/d/open/x", "/d/guarded", "/d/guarded/y"] {
        assert_eq!(dav.status("PROPPATCH", path, "", &set(dead)), 207);
        dav.lock(path, "Depth: 0\r\n");
    }
    let told = |dav: &Dav| {
        let answer = dav.server.ask("PROPFIND /d/ HTTP/1.1\r\nDepth: 1\r\n\r\n");
        assert_eq!(answer.status, 207);
        let text = answer.text();
        let responses =
            text.split("<D:response>").filter(|part| part.contains("<D:getlastmodified>"));
        let told =
            responses.filter(|part| part.contains("hush") && part.contains("<D:activelock>"));
        let href = |part: &str| part.split(['<', '>']).nth(2).unwrap_or_default().to_owned();
        let mut hrefs: Vec<String> = told.map(href).collect();
        hrefs.sort();
        assert_eq!(text.matches("hush").count(), hrefs.len(), "{text}");
        assert_eq!(text.matches("<D:activelock>").count(), hrefs.len(), "{text}");
        assert_eq!(text.matches("<D:response>").count(), 6, "{text}");
        hrefs
    };
    let all = ["/d/guarded/", "/d/open/", "/d/to_dir/", "/d/to_file", "/d/to_open"];
    assert_eq!(told(&dav), all);
    dav.write("d/guarded/.htpasswd", "somebody:else:0\n");
    assert_eq!(told(&dav), ["/d/open/", "/d/to_open"]);
    for (path, shows) in [("/d/to_file", false), ("/d/to_open", true)] {
        let request = format!("PROPFIND {path} HTTP/1.1\r\nDepth: 0\r\n\r\n");
        let text = dav.server.ask(request).text();
        assert!(text.contains("<D:getlastmodified>"), "{path}: {text}");
        assert_eq!(text.contains("hush"), shows, "{path}: {text}");
        assert_eq!(text.contains("<D:activelock>"), shows, "{path}: {text}");
    }
    // A file that cannot be read guards no less.
    std::fs::remove_file(dav.scratch.join("root/d/guarded/.htpasswd")).expect("removed");
    symlink("none", dav.scratch.join("root/d/guarded/.htpasswd")).expect("a link");
    assert_eq!(told(&dav), ["/d/open/", "/d/to_open"]);
    dav.stop();
}

#[test]
fn properties_are_told_as_they_are() {
    let dav = Dav::start(&["extra_mime_types=.abc=text/x-abc"]);
    dav.write("a.abc", "12345");
    let answer = dav.propfind("/a.abc", "0", "");
    let got = dav.server.ask("GET /a.abc HTTP/1.1\r\n\r\n");
    let text = answer.text();
    let etag = got.field("Etag").expect("a tag").replace('"', "&quot;");
    let modified = got.field("Last-Modified").expect("a date");
    for part in [
        format!("<D:getetag>{etag}</D:getetag>"),
        format!("<D:getlastmodified>{modified}</D:getlastmodified>"),
        "<D:getcontentlength>5</D:getcontentlength>".to_owned(),
        "<D:getcontenttype>text/x-abc</D:getcontenttype>".to_owned(),
        "<D:displayname>a.abc</D:displayname>".to_owned(),
        "<D:resourcetype></D:resourcetype>".to_owned(),
        "<D:lockdiscovery></D:lockdiscovery>".to_owned(),
        "<D:supportedlock><D:lockentry>".to_owned(),
        "<D:creationdate>20".to_owned(),
    ] {
        assert!(text.contains(&part), "{part} in {text}");
    }
    let names = "<propfind xmlns='DAV:'><propname/></propfind>";
    let text = dav.propfind("/a.abc", "0", names).text();
    assert!(text.contains("<D:getetag/>") && !text.contains("12345"), "{text}");
    let some =
        "<propfind xmlns='DAV:'><prop><getetag/><none/><n xmlns='u:&lt;'/></prop></propfind>";
    let text = dav.propfind("/a.abc", "0", some).text();
    let missing = "<D:none/><N:n xmlns:N=\"u:&lt;\"/></D:prop><D:status>HTTP/1.1 404 Not Found";
    assert!(text.contains(missing) && !text.contains("displayname"), "{text}");
    let quota = "<propfind xmlns='DAV:'><prop><quota-available-bytes/></prop></propfind>";
    let text = dav.propfind("/", "0", quota).text();
    assert!(text.contains("<D:quota-available-bytes>"), "{text}");
    dav.stop();
}

#[test]
fn what_a_client_sets_survives_a_restart_and_goes_along() {
    let mut dav = Dav::start(&[]);
    dav.write("a", "1").write("d/b", "2");
    let value = "<p xmlns=\"u:1\" xml:lang=\"de\">&lt;x&gt; <q>\u{fc}</q></p>";
    for path in ["/a", "/d", "/d/b", "/"] {
        let text = dav.ask("PROPPATCH", path, "", &set(value)).text();
        assert!(text.contains("<N:p xmlns:N=\"u:1\"/></D:prop><D:status>HTTP/1.1 200"), "{text}");
    }
    let has = |dav: &Dav, path: &str| dav.propfind(path, "0", "").text().contains(value);
    dav.restart();
    for path in ["/a", "/d", "/d/b", "/"] {
        assert!(has(&dav, path), "{path}");
    }
    assert!(dav.propfind("/", "1", "").text().matches(value).count() == 3);
    // Not a thing that anybody is served.
    for path in ["/.mongoose-dav", "/d/.mongoose-dav", "/%2emongoose-dav"] {
        assert_eq!(dav.server.ask(format!("GET {path} HTTP/1.1\r\n\r\n")).status, 404);
    }
    assert!(!dav.server.ask("GET / HTTP/1.1\r\n\r\n").text().contains("mongoose-dav"));

    assert_eq!(dav.transfer("COPY", "/a", "/a2"), 201);
    assert_eq!(dav.transfer("COPY", "/d", "/d2"), 201);
    assert_eq!(dav.transfer("MOVE", "/a", "/a3"), 201);
    assert_eq!(dav.transfer("MOVE", "/d", "/d3"), 201);
    for path in ["/a2", "/a3", "/d2", "/d2/b", "/d3", "/d3/b"] {
        assert!(has(&dav, path), "{path}");
    }
    dav.write("a", "other").write("d/b", "other");
    assert!(!has(&dav, "/a") && !has(&dav, "/d/b") && !has(&dav, "/d"));
    // A new thing does not inherit from one of the same name.
    assert_eq!(dav.status("DELETE", "/a2", "", ""), 204);
    assert_eq!(dav.status("PUT", "/a2", "", "new"), 201);
    assert!(!has(&dav, "/a2"));
    // What is only written anew is the same thing.
    assert_eq!(dav.status("PUT", "/a3", "", "new"), 204);
    assert!(has(&dav, "/a3"));
    dav.stop();
}

#[test]
fn changes_are_made_together_or_not_at_all() {
    let dav = Dav::start(&[]);
    dav.write("a", "1");
    let body = "<D:propertyupdate xmlns:D='DAV:'><D:set><D:prop><p xmlns='u:1'>1</p></D:prop></D:set>\
                <D:set><D:prop><D:getetag>x</D:getetag></D:prop></D:set></D:propertyupdate>";
    let answer = dav.ask("PROPPATCH", "/a", "", body);
    let text = answer.text();
    assert_eq!(answer.status, 207);
    for part in [
        "<D:getetag/></D:prop><D:status>HTTP/1.1 403 Forbidden</D:status>\
         <D:error><D:cannot-modify-protected-property/></D:error>",
        "<N:p xmlns:N=\"u:1\"/></D:prop><D:status>HTTP/1.1 424 Failed Dependency",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!dav.propfind("/a", "0", "").text().contains("u:1"));
    // In their order.
    let body = "<D:propertyupdate xmlns:D='DAV:'><D:set><D:prop><p xmlns=''>1</p></D:prop></D:set>\
                <D:remove><D:prop><p xmlns=''/></D:prop></D:remove></D:propertyupdate>";
    assert_eq!(dav.status("PROPPATCH", "/a", "", body), 207);
    assert!(!dav.propfind("/a", "0", "").text().contains("<p"));
    assert_eq!(dav.names(""), ["a"], "nothing is known, nothing is kept");
    assert_eq!(dav.status("PROPPATCH", "/none", "", body), 404);
    let long = format!("<p xmlns='u:1'>{}</p>", "x".repeat(100_000));
    assert!(dav.ask("PROPPATCH", "/a", "", &set(&long)).text().contains("HTTP/1.1 507"));
    dav.stop();
}

#[test]
fn what_the_program_adds_to_answers_is_added_to_these() {
    let dav = Dav::start(&["extra_headers=X-Added: 1"]);
    let added = |answer: &Response| answer.field("X-Added").is_some();
    assert!(added(&dav.propfind("/", "0", "")));
    assert!(added(&dav.ask("PUT", "/a", "", "x")));
    assert!(added(&dav.propfind("/none", "0", "")));
    assert!(added(&dav.ask("LOCK", "/a", "Depth: 7\r\n", "")));
    dav.stop();
}

#[test]
fn much_that_is_known_of_directories_keeps_nobody_waiting() {
    let mut dav = Dav::start(&["--step"]);
    let known = format!("mongoose-dav 1\nmember \nproperty u p {}\n", "x".repeat(1 << 20));
    for n in 0..20 {
        dav.write(&format!("d/{n}/.mongoose-dav"), &known);
    }
    dav.server.tell("run");
    let tag = "<propfind xmlns='DAV:'><prop><getlastmodified/></prop></propfind>";
    let request = dav.request("PROPFIND", "/d", "Depth: 1\r\n", tag);
    let mut client = dav.server.accepted();
    client.send_through(request);
    dav.server.poll(3);
    client.take_through("\r\n\r\n");
    while client.has_news_within(std::time::Duration::from_millis(1)) {
        let text = client.take_through("\r\n");
        assert!(!text.contains("</D:multistatus>"), "it is told at once");
    }
    dav.server.tell("run");
    client.take_through("</D:multistatus>\n\r\n0\r\n\r\n");
    dav.stop();
}

#[test]
fn a_large_directory_is_told_of_as_the_client_takes_it() {
    let dav = Dav::start(&["max_buffered_bytes=1000000"]);
    let count = as_many_as(20_000, 2_000);
    for n in 0..count {
        dav.write(&format!("d/{n:05}"), "");
    }
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", dav.server.program.id()));
        let status = status.expect("a process");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("its peak");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("KiB")
    };
    let mut client = dav.client();
    client.ask("GET /alive HTTP/1.1\r\n\r\n");
    let before = peak();
    client.send(dav.request("PROPFIND", "/d", "Depth: 1\r\n", ""));
    client.send("GET /alive HTTP/1.1\r\n\r\n");
    let head = client.take_through("\r\n\r\n");
    assert!(head.contains("Transfer-Encoding: chunked\r\n"), "{head}");
    // Nobody reads it, and others have their turn, and room for what they bring.
    for _ in 0..10 {
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
    assert_eq!(client.response().text(), "alive");
    let grown = (peak() - before) * 1024;
    let is_own = !is_checked() && !crate::support::under_qemu("memory, most of which is its own");
    assert!(!is_own || grown < text.len() / 2, "{grown} of {}", text.len());
    // The first is the directory itself.
    let mut names: Vec<&str> =
        text.split("<D:href>/d/").skip(2).filter_map(|part| part.get(..5)).collect();
    names.sort_unstable();
    assert!(names.iter().enumerate().all(|(n, name)| *name == format!("{n:05}")));
    assert_eq!(names.len(), count);
    assert!(text.ends_with("</D:multistatus>\n"));

    // Who knows no chunks gets what ends with the connection.
    let mut old = dav.client();
    old.send(dav.request("PROPFIND", "/d", "Depth: 1\r\n", "").replace("HTTP/1.1", "HTTP/1.0"));
    let head = old.take_through("\r\n\r\n");
    assert!(head.contains("Connection: close\r\n") && !head.contains("Transfer-Enc"), "{head}");
    assert!(String::from_utf8(old.rest()).is_ok_and(|rest| rest == text));
    dav.stop();
}
