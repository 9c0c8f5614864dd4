//! Requests that mean no good, or no sense, to WebDAV.

use crate::support::{Dav, LOCK, Scratch, failures, for_each, until};

const METHODS_WITH_DOCUMENTS: [&str; 3] = ["PROPFIND", "PROPPATCH", "LOCK"];

#[test]
fn a_document_that_is_none_is_refused() {
    let dav = Dav::start(&[]);
    dav.write("a", "1");
    let deep = format!("{}{}", "<a>".repeat(10_000), "</a>".repeat(10_000));
    let wide = format!("<a>{}</a>", "<b/>".repeat(100_000));
    let laughs = "<!DOCTYPE a [<!ENTITY l 'ha'><!ENTITY m '&l;&l;&l;&l;'>\
                  <!ENTITY n '&m;&m;&m;&m;'>]><propfind xmlns='DAV:'><prop>&n;</prop></propfind>";
    let outside = "<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>\
                   <propfind xmlns='DAV:'><prop>&e;</prop></propfind>";
    for_each(
        [
            "x",
            "<",
            "<a>",
            "<propfind xmlns='DAV:'>",
            "<propfind xmlns='DAV:'><prop><x:a/></prop></propfind>",
            "<propfind xmlns='DAV:'><prop><a xmlns:b=''/></prop></propfind>",
            "<propfind xmlns='DAV:'>&#0;<allprop/></propfind>",
            "\u{0}",
            laughs,
            outside,
            &deep,
            &wide,
        ],
        |case| format!("{case:.60}"),
        |body| {
            for method in METHODS_WITH_DOCUMENTS {
                let answer = dav.ask(method, "/a", "Depth: 0\r\n", body);
                assert_eq!(answer.status, 400, "{method}");
            }
        },
    );
    assert_eq!(dav.names(""), ["a"]);
    dav.stop();
}

#[test]
fn a_document_that_is_too_long_is_not_taken_in() {
    let dav = Dav::start(&[]);
    dav.write("a", "1");
    for method in METHODS_WITH_DOCUMENTS {
        let announced = "Content-Length: 10000000\r\nExpect: 100-continue\r\n";
        assert_eq!(dav.status(method, "/a", announced, ""), 413, "{method}");
        let mut client = dav.client();
        client.send(dav.request(method, "/a", "Transfer-Encoding: chunked\r\n", ""));
        let mut sent = 0;
        let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
        while sent < 10_000_000 && client.try_send(&chunk) {
            sent += chunk.len();
        }
        assert_eq!(client.response().status, 413, "{method}");
    }
    dav.stop();
}

#[test]
fn a_resource_has_only_so_many_properties() {
    let dav = Dav::start(&[]);
    dav.write("a", "1");
    let set = |names: std::ops::Range<u32>| {
        // The last one first: each is put before all others.
        let names: String = names.rev().map(|n| format!("<p{n:05} xmlns=''/>")).collect();
        let body = format!(
            "<propertyupdate xmlns='DAV:'><set><prop>{names}</prop></set></propertyupdate>"
        );
        let answer = dav.ask("PROPPATCH", "/a", "", &body);
        assert_eq!(answer.status, 207);
        answer.text()
    };
    assert!(set(0..4097).contains("HTTP/1.1 507"));
    assert_eq!(dav.names(""), ["a"]);
    assert!(!set(0..4096).contains("HTTP/1.1 507"));
    // One that there is may be set again.
    assert!(!set(7..8).contains("HTTP/1.1 507"));
    assert!(set(5000..5001).contains("HTTP/1.1 507"));
    assert_eq!(dav.propfind("/a", "0", "").text().matches("<p0").count(), 4096);
    dav.stop();
}

#[test]
fn fields_without_sense_are_refused() {
    let dav = Dav::start(&[]);
    dav.write("a", "1").write("d/b", "2");
    let absurd = "9".repeat(400);
    for_each(
        [
            ("PROPFIND", "/d", "Depth: 1.0\r\n".to_owned(), 400),
            ("PROPFIND", "/d", format!("Depth: {absurd}\r\n"), 400),
            ("DELETE", "/d", "Depth: -1\r\n".to_owned(), 400),
            ("COPY", "/a", "Destination: /c\r\nOverwrite: maybe\r\n".to_owned(), 400),
            ("COPY", "/a", "Destination: /c\r\nDepth: x\r\n".to_owned(), 400),
            ("COPY", "/a", format!("Destination: /{absurd}\r\n"), 403),
            ("MKCOL", "/c", format!("If: {}\r\n", "(".repeat(5000)), 400),
            ("MKCOL", "/c", format!("If: {}\r\n", "(Not <a>)".repeat(1000) + "x"), 400),
            ("UNLOCK", "/a", "Lock-Token: <a\r\n".to_owned(), 400),
            ("COPY", "/a", "Destination: /b\r\nDestination: /c\r\n".to_owned(), 400),
            ("PROPFIND", "/d", "Depth: 0\r\nDepth: 1\r\n".to_owned(), 400),
            ("MKCOL", "/c", "If: (Not <a:b>)\r\nif: (Not <a:b>)\r\n".to_owned(), 400),
            ("PUT", "/a", format!("Content-Range: bytes {absurd}-{absurd}/*\r\n"), 400),
            ("PUT", "/a", "Content-Range: bytes -5-3/9\r\n".to_owned(), 400),
            (
                "PUT",
                "/a",
                "Content-Range: bytes 9223372036854775806-9223372036854775806/*\r\n".to_owned(),
                416,
            ),
        ],
        |case| format!("{case:.100?}"),
        |(method, path, fields, status)| {
            assert_eq!(dav.status(method, path, fields, ""), *status);
        },
    );
    let lock = dav.ask("LOCK", "/a", &format!("Timeout: Second-{absurd}\r\n"), LOCK);
    assert!(lock.text().contains("<D:timeout>Second-604800<"), "{}", lock.text());
    assert_eq!(dav.names(""), [".mongoose-dav", "a", "d"]);
    dav.stop();
}

#[test]
fn what_is_kept_and_not_understood_is_neither_changed_nor_ignored() {
    let scratch = Scratch::new();
    let log = format!("error_log_file={}", scratch.join("errors"));
    let dav = Dav::start_in(scratch, &[&log]);
    dav.write("d/a", "1").write("d/e/b", "2").write("c", "3");
    let patch = "<propertyupdate xmlns='DAV:'><set><prop><p xmlns='u:1'>1</p></prop></set></propertyupdate>";
    let path = dav.scratch.join("root/d/.mongoose-dav");
    let kept: [&[u8]; 5] = [
        b"\xff\xfe\0\n\xff\xfe\0\n",
        b"mongoose-dav 2\nmember a\n",
        b"mongoose-dav 1\nmember a\nlock x exclusive infinity 99999999999999999999 / / u o\n",
        b"mongoose-dav 1\nmember a\nproperty %% p <p",
        b"mongoose-dav 1\nmember a\nfuture\n",
    ];
    let changes = [
        ("PUT", "/d/a", "", "x"),
        ("PUT", "/d/new", "", "x"),
        ("PUT", "/d/e/b", "", "x"),
        ("PROPPATCH", "/d/a", "", patch),
        ("LOCK", "/d/a", "", LOCK),
        ("LOCK", "/d/e/b", "", LOCK),
        ("LOCK", "/", "Depth: infinity\r\n", LOCK),
        ("MKCOL", "/d/new", "", ""),
        ("DELETE", "/d/a", "", ""),
        ("DELETE", "/d", "", ""),
        ("MOVE", "/c", "Destination: /d/c\r\n", ""),
        ("MOVE", "/d", "Destination: /m\r\n", ""),
        ("COPY", "/d", "Destination: /m\r\n", ""),
    ];
    let mut complaints = 0;
    let mut refuses = || {
        for (method, path, fields, body) in changes {
            assert_eq!(dav.status(method, path, fields, body), 500, "{method} {path}");
        }
        complaints += changes.len();
        let told = |log: &str| failures(log, &format!("cannot read {path}: ")).1;
        let log = dav.scratch.read_when("errors", |log| told(log) >= complaints);
        assert_eq!(told(&log), complaints, "{log}");
        assert_eq!(dav.propfind("/d", "1", "").status, 207);
        let names = dav.names("").into_iter().filter(|name| !name.starts_with('.'));
        assert_eq!(names.collect::<Vec<_>>(), ["c", "d"]);
        assert_eq!(dav.names("d"), [".mongoose-dav", "a", "e"]);
        assert_eq!((dav.read("d/a"), dav.read("d/e/b")), ("1".into(), "2".into()));
    };
    for bytes in kept {
        dav.write("d/.mongoose-dav", bytes);
        refuses();
        assert_eq!(std::fs::read(&path).expect("the file"), bytes);
    }
    // What is no file is not waited for.
    std::fs::remove_file(&path).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.is_ok_and(|status| status.success()));
    refuses();
    // Without the file, or where nothing is left of it, all goes on.
    std::fs::remove_file(&path).expect("removed");
    dav.write("d/.mongoose-dav", "");
    assert_eq!(dav.status("PROPPATCH", "/d/a", "", patch), 207);
    assert!(dav.propfind("/d/a", "0", "").text().contains("u:1"));
    dav.stop();
}

#[test]
fn an_error_handler_sees_errors_of_webdav_and_may_leave_them() {
    let dav = Dav::start(&["--errors", "--error-returns=0"]);
    dav.write("a", "1");
    dav.lock("/a", "");
    let answer = dav.ask("PUT", "/a", "", "x");
    assert_eq!(answer.status, 423);
    assert!(answer.text().contains("lock-token-submitted"), "{}", answer.text());
    dav.stop();
}

#[test]
fn clients_that_leave_in_the_midst_of_work_disturb_nobody() {
    let dav = Dav::start(&[]);
    for n in 0..300 {
        dav.write(&format!("d/{}/{n}", n % 10), "x");
    }
    for n in 0..20 {
        let mut client = dav.client();
        client.send(dav.request("COPY", "/d", &format!("Destination: /copy{n}\r\n"), ""));
        client.reset();
    }
    // What such work has left is swept away by the first who comes along.
    let mut dav = dav;
    dav.restart();
    assert_eq!(dav.status("MKCOL", "/new", "", ""), 201);
    until("all is swept", || {
        dav.propfind("/", "1", "");
        dav.names("").iter().all(|name| !name.starts_with(".mongoose-dav"))
    });
    for name in dav.names("") {
        if name.starts_with("copy") {
            let count: usize =
                dav.names(&name).iter().map(|d| dav.names(&format!("{name}/{d}")).len()).sum();
            assert_eq!(count, 300, "{name}");
        }
    }
    dav.stop();
}
