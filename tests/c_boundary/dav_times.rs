//! The times that clients give to files (`X-OC-Mtime`, `Win32LastModifiedTime`), and what properties
//! say of the place and its room.

use std::os::unix::fs::MetadataExt as _;

use crate::support::{Dav, Elsewhere, Scratch, for_each};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const SECOND: i64 = 784_111_777;

/// Both sides of its time.
fn time(dav: &Dav, name: &str) -> (i64, i64) {
    let path = dav.scratch.join(&format!("root/{name}"));
    let meta = std::fs::metadata(path).expect("a file");
    (meta.mtime(), meta.mtime_nsec())
}

fn tag(dav: &Dav, path: &str) -> String {
    let answer = dav.server.ask(format!("GET {path} HTTP/1.1\r\n\r\n"));
    answer.field("Etag").expect("a tag").to_owned()
}

/// A PROPPATCH that sets this.
fn set(properties: &str) -> String {
    format!(
        "<D:propertyupdate xmlns:D='DAV:' xmlns:Z='urn:schemas-microsoft-com:'><D:set><D:prop>\
         {properties}</D:prop></D:set></D:propertyupdate>"
    )
}

fn modified(date: &str) -> String {
    format!("<Z:Win32LastModifiedTime>{date}</Z:Win32LastModifiedTime>")
}

#[test]
fn an_upload_has_the_time_that_its_client_names() {
    let dav = Dav::start(&[]);
    let put = |fields: &str, body: &str| dav.ask("PUT", "/a", fields, body);
    let answer = put(&format!("X-OC-Mtime: {SECOND}\r\n"), "first");
    assert_eq!((answer.status, answer.field("X-OC-MTime")), (201, Some("accepted")));
    assert_eq!(time(&dav, "a").0, SECOND);
    let text = dav.propfind("/a", "0", "").text();
    assert!(text.contains(&format!("<D:getlastmodified>{DATE}</D:getlastmodified>")), "{text}");
    // A part has it, too, and so has one with a fraction, which does not count.
    let part = format!("Content-Range: bytes 5-6/*\r\nX-OC-Mtime:  {}.75 \r\n", SECOND + 1);
    let answer = put(&part, "!!");
    assert_eq!((answer.status, answer.field("X-OC-MTime")), (204, Some("accepted")));
    assert_eq!((time(&dav, "a").0, dav.read("a").as_str()), (SECOND + 1, "first!!"));
    for_each(
        ["", "x", "-1", "+1", "1e9", "1.", ".5", "1.5.5", "253402300800", "99999999999999999999"],
        |value| (*value).to_owned(),
        |value| {
            let answer = put(&format!("X-OC-Mtime: {value}\r\n"), "text");
            assert_eq!((answer.status, answer.field("X-OC-MTime")), (204, None));
            assert!(time(&dav, "a").0 > 1_500_000_000, "it has the time of the upload");
        },
    );
    let answer = put("", "text");
    assert_eq!(answer.field("X-OC-MTime"), None);
    dav.stop();
}

#[test]
fn contents_of_the_same_named_second_have_different_tags() {
    let dav = Dav::start(&[]);
    let mut tags = Vec::new();
    for n in 10..40 {
        let fields = format!("X-OC-Mtime: {SECOND}\r\n");
        assert!(dav.status("PUT", "/a", &fields, &n.to_string()) < 300);
        tags.push(tag(&dav, "/a"));
        // Setting it to what it is changes nothing.
        assert_eq!(dav.status("PROPPATCH", "/a", "", &set(&modified(DATE))), 207);
        assert_eq!(tag(&dav, "/a"), tags[tags.len() - 1]);
        let other = set(&modified("Sun, 06 Nov 1994 08:49:38 GMT"));
        assert_eq!(dav.status("PROPPATCH", "/a", "", &other), 207);
        tags.push(tag(&dav, "/a"));
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 60);
    dav.stop();
}

#[test]
fn windows_sets_the_time_of_a_file_by_a_property() {
    let dav = Dav::start(&[]);
    dav.write("a", "text").write("d/x", "");
    let others = "<Z:Win32CreationTime>Sat, 05 Nov 1994 08:49:37 GMT</Z:Win32CreationTime>\
        <Z:Win32FileAttributes>00000020</Z:Win32FileAttributes>";
    for (path, name) in [("/a", "a"), ("/d/", "d")] {
        let answer = dav.ask("PROPPATCH", path, "", &set(&(modified(DATE) + others)));
        let text = answer.text();
        assert!(!text.contains("HTTP/1.1 4") && text.contains("HTTP/1.1 200"), "{text}");
        assert_eq!(time(&dav, name).0, SECOND, "{name}");
        let told = dav.propfind(path, "0", "").text();
        assert!(told.contains(&format!("<D:getlastmodified>{DATE}<")), "{told}");
        // What the file system cannot set is kept as a property.
        assert!(told.contains("Sat, 05 Nov 1994 08:49:37 GMT</Z:Win32CreationTime>"), "{told}");
        let asked = "<propfind xmlns='DAV:'><prop>\
            <Win32LastModifiedTime xmlns='urn:schemas-microsoft-com:'/></prop></propfind>";
        let told = dav.propfind(path, "0", asked).text();
        assert!(told.contains(&format!(">{DATE}</Z:Win32LastModifiedTime>")), "{told}");
    }
    // The time of new content is its own again.
    assert_eq!(dav.status("PUT", "/a", "", "new"), 204);
    assert!(time(&dav, "a").0 > SECOND);
    dav.stop();
}

#[test]
fn a_time_that_cannot_be_set_changes_nothing() {
    let dav = Dav::start(&[]);
    dav.write("a", "text");
    let before = time(&dav, "a");
    let author = "<D:author>joe</D:author>";
    for_each(
        [
            (modified("soon"), "409"),
            (modified(""), "409"),
            (modified("Sun, 06 Nov 1694 08:49:37 GMT"), "409"),
            (modified(DATE) + "<D:getetag>x</D:getetag>", "403"),
            (modified(DATE) + &format!("<D:x>{}</D:x>", "x".repeat(70_000)), "507"),
        ],
        |(properties, _)| format!("{properties:.100}"),
        |(properties, status)| {
            let answer = dav.ask("PROPPATCH", "/a", "", &set(&(author.to_owned() + properties)));
            let text = answer.text();
            assert!(text.contains(&format!("HTTP/1.1 {status} ")), "{text}");
            assert!(text.contains("HTTP/1.1 424 ") && !text.contains("HTTP/1.1 200 "), "{text}");
            assert_eq!(time(&dav, "a"), before);
        },
    );
    let remove = "<D:propertyupdate xmlns:D='DAV:'><D:remove><D:prop>\
        <Win32LastModifiedTime xmlns='urn:schemas-microsoft-com:'/></D:prop></D:remove>\
        </D:propertyupdate>";
    let text = dav.ask("PROPPATCH", "/a", "", remove).text();
    assert!(text.contains("HTTP/1.1 403 "), "{text}");
    let token = dav.lock("/a", "");
    assert_eq!(dav.status("PROPPATCH", "/a", "", &set(&modified(DATE))), 423);
    assert_eq!(time(&dav, "a"), before);
    let with = format!("If: (<{token}>)\r\n");
    assert_eq!(dav.status("PROPPATCH", "/a", &with, &set(&modified(DATE))), 207);
    assert_eq!(time(&dav, "a").0, SECOND);
    dav.stop();
}

#[test]
fn what_is_moved_to_another_file_system_keeps_its_time() {
    let scratch = Scratch::new();
    scratch.write("root/a", "text").write("root/d/b", "text");
    let _elsewhere = Elsewhere::linked(&scratch, "root/other");
    let dav = Dav::start_in(scratch, &[]);
    for path in ["/a", "/d/b"] {
        assert_eq!(dav.status("PROPPATCH", path, "", &set(&modified(DATE))), 207);
    }
    assert_eq!(dav.transfer("MOVE", "/a", "/other/a"), 201);
    assert_eq!(dav.transfer("MOVE", "/d", "/other/d"), 201);
    assert_eq!((time(&dav, "other/a").0, time(&dav, "other/d/b").0), (SECOND, SECOND));
    // A copy is a new file.
    assert_eq!(dav.transfer("COPY", "/other/a", "/b"), 201);
    assert!(time(&dav, "b").0 > SECOND);
    dav.stop();
}

#[test]
fn names_are_those_of_clients_and_room_is_told_to_who_asks() {
    let scratch = Scratch::new();
    scratch.write("hidden-name/x", "").write("root/a", "");
    let rewrite = format!("url_rewrites=/shown={}", scratch.join("hidden-name"));
    let dav = Dav::start_in(scratch, &[&rewrite]);
    for (path, name) in [("/", "/"), ("/shown/", "shown"), ("/shown", "shown"), ("/a", "a")] {
        let text = dav.propfind(path, "0", "").text();
        assert!(text.contains(&format!("<D:displayname>{name}</D:displayname>")), "{text}");
        assert!(!text.contains("quota") && !text.contains("hidden-name"), "{text}");
    }
    let asked = "<propfind xmlns='DAV:'><prop><quota-available-bytes/><quota-used-bytes/></prop>\
        </propfind>";
    let text = dav.propfind("/", "1", asked).text();
    for name in ["quota-available-bytes", "quota-used-bytes"] {
        let number =
            text.split(&format!("<D:{name}>")).nth(1).and_then(|rest| rest.split('<').next());
        assert!(number.is_some_and(|number| number.parse::<u64>().is_ok()), "{name} in {text}");
    }
    // Of a file nothing is told that belongs to its directory.
    assert_eq!(text.matches("<D:quota-used-bytes>").count(), 1, "{text}");
    dav.stop();
}
