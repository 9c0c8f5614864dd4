//! Long uploads, and files that are put together of parts (RFC 9110, section 14.5).

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use crate::support::{Dav, Mounted, Scratch, Server, for_each, until};

/// The field that says where a part belongs.
fn at(start: u64, len: u64) -> String {
    format!("Content-Range: bytes {start}-{}/*\r\n", start + len - 1)
}

fn metadata(dav: &Dav, name: &str) -> std::fs::Metadata {
    std::fs::metadata(dav.scratch.join(&format!("root/{name}"))).expect("a file")
}

#[test]
fn an_upload_is_bounded_by_a_limit_of_its_own_and_by_none_at_first() {
    let scratch = Scratch::new();
    scratch.write_program("root/len.cgi", "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\n'\nwc -c\n");
    let mut dav = Dav::start_in(scratch, &["max_request_body_bytes=1000"]);
    let long = "x".repeat(200_000);
    assert_eq!(dav.status("PUT", "/a", "", &long), 201);
    assert_eq!(dav.read("a").len(), 200_000);
    // More than memory, or an `int`, may hold.
    for length in [256 << 20 | 1, 1u64 << 31, 3 << 30] {
        let fields = format!("Expect: 100-continue\r\nContent-Length: {length}\r\n");
        let mut client = dav.client();
        client.send(dav.request("PUT", "/b", &fields, ""));
        client.expect("HTTP/1.1 100 Continue\r\n\r\n");
    }
    let post = |length: usize| {
        let head = format!("POST /len.cgi HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        dav.server.ask(head + &long[..length])
    };
    assert_eq!(post(200_000).text().trim(), "200000");

    dav.server.tell("set max_upload_bytes 100000");
    dav.server.expect_line("set max_upload_bytes: NULL");
    assert_eq!(dav.status("PUT", "/a", "", &long[..100_000]), 204);
    let chunked = "Transfer-Encoding: chunked\r\n";
    for_each(
        [
            ("PUT", "/a", "Content-Length: 100001\r\n".to_owned(), ""),
            ("PUT", "/a", "Content-Length: 9223372036854775807\r\n".to_owned(), ""),
            ("PUT", "/a", format!("Expect: 100-continue\r\n{chunked}"), "186a1\r\n"),
            ("PUT", "/a", chunked.to_owned(), "1\r\nx\r\n186a0\r\n"),
            // The file would be too long, not the content.
            ("PUT", "/a", format!("{}Content-Length: 1\r\n", at(100_000, 1)), "x"),
            ("POST", "/len.cgi", "Content-Length: 100001\r\n".to_owned(), ""),
        ],
        |(method, _, fields, _)| format!("{method} {fields}"),
        |(method, path, fields, content)| {
            let mut client = dav.client();
            client.send(dav.request(method, path, fields, ""));
            if fields.contains("100-continue") {
                client.expect("HTTP/1.1 100 Continue\r\n\r\n");
            }
            assert_eq!(client.ask(content).status, 413);
        },
    );
    // Content that is kept has its old limit.
    let mut client = dav.client();
    client.send(format!("POST /len.cgi HTTP/1.1\r\n{chunked}\r\n3e9\r\n"));
    assert_eq!(client.response().status, 413);
    assert_eq!(dav.status("POST", "/a", "Content-Length: 1001\r\n", ""), 413);
    assert_eq!(dav.read("a"), long[..100_000]);
    dav.stop();
}

#[test]
fn a_part_at_the_end_costs_what_it_is_long() {
    let dav = Dav::start(&[]);
    let len = 2u64 << 30;
    dav.write("large", "");
    let path = dav.scratch.join("root/large");
    std::fs::File::options().write(true).open(&path).expect("a file").set_len(len).expect("room");
    let before = metadata(&dav, "large");
    assert_eq!(dav.status("PUT", "/large", &at(len, 10), "0123456789"), 204);
    assert_eq!(dav.status("PUT", "/large", &at(len + 10, 3), "end"), 204);
    let after = metadata(&dav, "large");
    // The hole of 2 GiB is still one, in the same file.
    assert_eq!((after.ino(), after.len()), (before.ino(), len + 13));
    assert!(after.blocks() * 512 < 1 << 20, "{} blocks", after.blocks());
    let tail = dav.server.ask(format!("GET /large HTTP/1.1\r\nRange: bytes={}-\r\n\r\n", len - 1));
    assert_eq!((tail.status, tail.text().as_str()), (206, "\u{0}0123456789end"));
    assert_eq!(dav.names(""), ["large"]);
    dav.stop();
}

#[test]
fn other_names_of_a_file_and_programs_are_not_changed_in_place() {
    let dav = Dav::start(&[]);
    dav.write("a", "old").write("x", "old");
    std::fs::hard_link(dav.scratch.join("root/a"), dav.scratch.join("root/b")).expect("a link");
    let all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dav.scratch.join("root/x"), all).expect("a mode");
    for name in ["a", "x"] {
        assert_eq!(dav.status("PUT", &format!("/{name}"), &at(3, 2), "er"), 204);
        assert_eq!(dav.read(name), "older");
        assert_eq!(metadata(&dav, name).mode() & 0o777, 0o644);
    }
    assert_eq!(dav.read("b"), "old");
    dav.stop();
}

#[test]
fn two_clients_that_continue_the_same_file_do_not_mix() {
    let dav = Dav::start(&[]);
    dav.write("a", "start");
    let mut clients = [dav.client(), dav.client()];
    for client in &mut clients {
        let fields = format!("{}Content-Length: 5\r\nExpect: 100-continue\r\n", at(5, 5));
        client.send(dav.request("PUT", "/a", &fields, ""));
        client.expect("HTTP/1.1 100 Continue\r\n\r\n");
    }
    assert_eq!(clients[0].ask("11111").status, 204);
    assert_eq!(clients[1].ask("22222").status, 412);
    assert_eq!(dav.read("a"), "start11111");
    // Nor does a part in the middle take back what came behind it meanwhile.
    let mut client = dav.client();
    let fields = format!("{}Content-Length: 2\r\nExpect: 100-continue\r\n", at(0, 2));
    client.send(dav.request("PUT", "/a", &fields, ""));
    client.expect("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(dav.status("PUT", "/a", &at(10, 3), "333"), 204);
    assert_eq!(client.ask("ST").status, 412);
    // Whole files: the one that is complete last counts.
    for (client, text) in clients.iter_mut().zip(["first", "other"]) {
        assert_eq!(client.ask(dav.request("PUT", "/a", "", text)).status, 204);
    }
    assert_eq!(dav.read("a"), "other");
    dav.stop();
}

#[test]
fn a_part_is_taken_whole_or_not_at_all() {
    let dav = Dav::start(&[]);
    dav.write("a", "start");
    let whole = dav.request("PUT", "/a", &format!("{}Content-Length: 5\r\n", at(5, 5)), "");
    let whole = format!("{whole}12345");
    for end in whole.len() - 6..whole.len() {
        for resets in [false, true] {
            let mut client = dav.client();
            client.send_through(&whole[..end]);
            if resets { client.reset() } else { drop(client) }
        }
    }
    for (fields, body) in [(at(5, 5), "123456"), (at(5, 5), "1234")] {
        assert_eq!(dav.status("PUT", "/a", &fields, body), 400);
    }
    until("nothing is left of what those sent who have gone", || dav.names("") == ["a"]);
    assert_eq!(dav.read("a"), "start");
    // The conditions and locks of the file hold for its parts.
    let tag = dav.server.ask("GET /a HTTP/1.1\r\n\r\n").field("Etag").expect("a tag").to_owned();
    let known = format!("If-Match: {tag}\r\n{}", at(5, 1));
    assert_eq!(dav.status("PUT", "/a", &known, "!"), 204);
    assert_eq!(dav.status("PUT", "/a", &known.replace("5-5", "6-6"), "!"), 412);
    let token = dav.lock("/a", "");
    assert_eq!(dav.status("PUT", "/a", &at(6, 1), "!"), 423);
    assert_eq!(dav.status("PUT", "/a", &format!("{}If: (<{token}>)\r\n", at(6, 1)), "?"), 204);
    assert_eq!(dav.read("a"), "start!?");
    dav.stop();
}

/// A server that has added a portion of a long part to the file `a`, and stopped.
fn stopped_midway() -> (Dav, crate::support::Client) {
    let mut dav = Dav::start(&["--step"]);
    dav.write("a", "start");
    dav.server.tell("run");
    let mut client = dav.client();
    let len = 12 << 20;
    let head = dav.request("PUT", "/a", &format!("{}Content-Length: {len}\r\n", at(5, len)), "");
    client.send(head).send_through(vec![b'x'; (len - 1) as usize]);
    dav.server.settle();
    dav.server.poll(1);
    client.send_through("x");
    for _ in 0..100 {
        dav.server.poll(1);
        if metadata(&dav, "a").len() > 5 {
            break;
        }
    }
    let now = metadata(&dav, "a").len();
    assert!(now > 5 && now < 5 + len, "{now}");
    (dav, client)
}

#[test]
fn what_was_added_is_cut_off_when_the_client_goes_or_a_lock_comes() {
    let (mut dav, client) = stopped_midway();
    client.reset();
    dav.server.tell("run");
    until("the part is cut off", || dav.read("a") == "start");
    dav.stop();

    let (mut dav, mut client) = stopped_midway();
    let mut other = dav.client();
    other.send_through(dav.request_of("jane", "LOCK", "/a", "", crate::support::LOCK));
    dav.server.poll(1);
    dav.server.tell("run");
    assert_eq!((other.response().status, client.response().status), (200, 423));
    assert_eq!(dav.read("a"), "start");
    dav.stop();

    // What is there when it is replaced meanwhile stays.
    let (mut dav, mut client) = stopped_midway();
    let new = dav.scratch.join("root/new");
    std::fs::write(&new, "new").expect("a file");
    std::fs::rename(new, dav.scratch.join("root/a")).expect("in place of the other");
    dav.server.tell("run");
    assert_eq!(client.response().status, 412);
    assert_eq!(dav.read("a"), "new");
    dav.stop();
}

#[test]
fn content_without_room_is_refused_when_that_is_known() {
    needs!("mount-tmpfs");
    let scratch = Scratch::new();
    let _disk = Mounted::on(&scratch, "root", "tmpfs", "size=1m,mode=777");
    let log = format!("error_log_file={}", scratch.join("errors"));
    let dav = Dav::start_in(scratch, &[&log]);
    dav.write("a", "old");
    let announced = "Content-Length: 10737418240\r\nExpect: 100-continue\r\n";
    assert_eq!(dav.client().ask(dav.request("PUT", "/a", announced, "")).status, 507);
    let announced = format!("Content-Length: {}\r\n{}", 10u64 << 30, at(3, 10 << 30));
    assert_eq!(dav.client().ask(dav.request("PUT", "/a", &announced, "")).status, 507);
    // Room for the part, but not for a second time: it is cut off again.
    let part = "x".repeat(700_000);
    assert_eq!(dav.status("PUT", "/a", &at(3, 700_000), &part), 507);
    assert_eq!(dav.read("a"), "old");
    // In chunks it shows at the end alone.
    let mut client = dav.client();
    client.send(dav.request("PUT", "/a", "Transfer-Encoding: chunked\r\n", ""));
    client.send(format!("200000\r\n{}\r\n0\r\n\r\n", "x".repeat(0x200000)));
    assert_eq!(client.response().status, 507);
    assert_eq!((dav.read("a").as_str(), dav.names("")), ("old", vec!["a".to_owned()]));
    dav.scratch.read_when("errors", |log| log.contains(" PUT failed: 507 "));
    assert_eq!(dav.status("PUT", "/a", &at(3, 300_000), &part[..300_000]), 204);
    dav.stop();
}

#[test]
fn without_webdav_nothing_is_changed_by_the_limit() {
    let scratch = Scratch::new();
    scratch.write("a", "old");
    let server =
        Server::start(&[&format!("document_root={}", scratch.join("")), "max_upload_bytes=5"]);
    assert_eq!(server.ask("POST /echo HTTP/1.1\r\nContent-Length: 6\r\n\r\nabcdef").status, 200);
    assert_eq!(server.ask("POST /a HTTP/1.1\r\nContent-Length: 6\r\n\r\nabcdef").text(), "old");
    server.stop();
}
