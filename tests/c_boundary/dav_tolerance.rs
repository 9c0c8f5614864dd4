//! What clients write in ways of their own, and is understood all the same.

use crate::support::{Dav, LOCK, for_each};

/// A document in UTF-16, with a byte order mark.
fn utf_16(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let declared = format!("\u{feff}<?xml version=\"1.0\" encoding=\"UTF-16\"?>{text}");
    declared.encode_utf16().flat_map(order).collect()
}

#[test]
fn documents_may_be_in_utf_16() {
    let dav = Dav::start(&[]);
    dav.write("a", "text");
    let update = "<D:propertyupdate xmlns:D='DAV:'><D:set><D:prop><n:p xmlns:n='urn:n'>\
        \u{e9}\u{1f600}</n:p></D:prop></D:set></D:propertyupdate>";
    let find = "<D:propfind xmlns:D='DAV:'><D:prop><n:p xmlns:n='urn:n'/></D:prop></D:propfind>";
    let ask = |method: &str, content: &[u8]| {
        let fields = format!("Depth: 0\r\nContent-Length: {}\r\n", content.len());
        let mut client = dav.client();
        client.send(dav.request(method, "/a", &fields, ""));
        client.ask(content)
    };
    for order in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
        assert_eq!(ask("PROPPATCH", &utf_16(update, order)).status, 207);
        let answer = ask("PROPFIND", &utf_16(find, order));
        assert!(answer.text().contains("\u{e9}\u{1f600}</n:p>"), "{}", answer.text());
        let lock = ask("LOCK", &utf_16(LOCK, order));
        assert_eq!(lock.status, 200);
        let token = lock.field("Lock-Token").expect("a token").to_owned();
        assert_eq!(dav.status("UNLOCK", "/a", &format!("Lock-Token: {token}\r\n"), ""), 204);
        // Half a character, and half of a pair.
        for cut in [1, 2, 7] {
            let whole = utf_16(find, order);
            assert_eq!(ask("PROPFIND", &whole[..whole.len() - cut]).status, 400);
        }
    }
    dav.stop();
}

#[test]
fn a_token_may_stand_without_brackets() {
    let dav = Dav::start(&[]);
    dav.write("a", "text");
    for brackets in [("", ""), ("<", ">")] {
        let token = dav.lock("/a", "");
        let field = format!("Lock-Token: {}{token}{}\r\n", brackets.0, brackets.1);
        assert_eq!(dav.status("UNLOCK", "/a", &field, ""), 204);
        assert_eq!(dav.status("UNLOCK", "/a", &field, ""), 409);
    }
    for bad in ["<>", "<a", "a>", "a b", "<a>, <b>"] {
        let field = format!("Lock-Token: {bad}\r\n");
        assert_eq!(dav.status("UNLOCK", "/a", &field, ""), 400, "{bad}");
    }
    dav.stop();
}

#[test]
fn a_destination_may_hold_what_should_have_been_encoded() {
    let dav = Dav::start(&[]);
    dav.write("a", "text");
    let host = format!("http://127.0.0.1:{}", dav.server.port);
    for_each(
        [
            ("/b c d", "b c d"),
            ("/  e", "  e"),
            ("{host}/f g?x=/../y z", "f g"),
            ("/h?", "h"),
            ("/\u{e9}\u{1f600}", "\u{e9}\u{1f600}"),
            ("{host}/\u{fc} %41", "\u{fc} A"),
        ],
        |(to, _)| (*to).to_owned(),
        |(to, name)| {
            assert_eq!(dav.transfer("COPY", "/a", &to.replace("{host}", &host)), 201);
            assert_eq!(dav.read(name), "text");
        },
    );
    // Bytes that are no UTF-8, as old clients send them.
    let request = dav.request("COPY", "/a", "Destination: /@@\r\n", "");
    let at = request.find("@@").expect("the place");
    let bytes = [&request.as_bytes()[..at], b"\xfc\xff", &request.as_bytes()[at + 2..]].concat();
    assert_eq!(dav.client().ask(bytes).status, 201);
    let answer = dav.propfind("/", "1", "").text();
    assert!(answer.contains("<D:href>/%FC%FF</D:href>"), "{answer}");
    for bad in ["/a#b c", "{host} /a", "/b/../c d"] {
        let status = dav.transfer("COPY", "/a", &bad.replace("{host}", &host));
        assert!(matches!(status, 400 | 502), "{bad}: {status}");
    }
    dav.stop();
}

#[test]
fn as_many_lists_are_taken_as_the_head_has_room_for() {
    let dav = Dav::start(&[]);
    dav.write("locked", "text");
    let token = dav.lock("/locked", "");
    // A client of davfs2 names every file that it has locked.
    let lists = |count: usize| -> String {
        let others = (0..count).map(|n| format!("</{n}> (<urn:uuid:{n}>) "));
        others.collect::<String>() + &format!("</locked> (<{token}>)")
    };
    for count in [0, 63, 64, 256, 500] {
        let fields = format!("If: {}\r\n", lists(count));
        assert_eq!(dav.status("PUT", "/locked", &fields, "new"), 204, "{count}");
        // None of them holds.
        let fields = fields.replace(&token, "urn:uuid:other");
        assert_eq!(dav.status("PUT", "/locked", &fields, "new"), 412, "{count}");
    }
    let fields = format!("If: {}\r\n", lists(1000));
    assert!(fields.len() > 16384);
    assert_eq!(dav.status("PUT", "/locked", &fields, "new"), 431);
    dav.stop();
}

#[test]
fn a_lock_makes_no_file_where_a_collection_is_named() {
    let dav = Dav::start(&[]);
    dav.write("file", "text");
    for (path, status) in [("/new/", 409), ("/none/new/", 409), ("/new", 201)] {
        assert_eq!(dav.status("LOCK", path, "", LOCK), status, "{path}");
    }
    assert_eq!((dav.names("").len(), dav.read("new").as_str()), (3, ""));
    dav.stop();
}
