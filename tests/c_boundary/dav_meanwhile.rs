//! What others do while COPY, MOVE and DELETE are under way.

use std::time::Duration;

use crate::support::{Client, Dav, Elsewhere, LOCK, until};

/// A server that works on one request, and stops after some turns of its loop.
struct Midway {
    dav: Dav,
    worker: Client,
    other: Client,
}

impl Midway {
    /// `request`: method, path, fields and content of what takes more than `turns`.
    fn new(mut dav: Dav, request: (&str, &str, &str, &str), turns: usize) -> Midway {
        let (method, path, fields, body) = request;
        dav.server.tell("run");
        let (mut worker, mut other) = (dav.client(), dav.client());
        for client in [&mut worker, &mut other] {
            assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
        }
        let request = dav.request(method, path, fields, body);
        let mut midway = Midway { dav, worker, other };
        midway.poll(1);
        midway.worker.send_through(request);
        midway.poll(turns);
        assert!(!midway.is_done(), "{method} is done already");
        midway
    }

    fn poll(&mut self, turns: usize) {
        self.dav.server.poll(turns);
    }

    fn is_done(&mut self) -> bool {
        self.worker.has_news_within(Duration::from_millis(1))
    }

    /// The status of another request, of jane's, that is answered before the first.
    fn meanwhile(&mut self, method: &str, path: &str, fields: &str, body: &str) -> u16 {
        self.other.send_through(self.dav.request_of("jane", method, path, fields, body));
        for _ in 0..20 {
            self.poll(1);
            if self.other.has_news_within(Duration::from_millis(1)) {
                break;
            }
            // In the turn of the answer the first may notice what has changed, and end.
            assert!(!self.is_done(), "{method} came too late");
        }
        self.other.response().status
    }

    /// Lets it go on; the status and text of the answer.
    fn finish(mut self) -> (Dav, u16, String) {
        self.dav.server.tell("run");
        let answer = self.worker.response();
        (self.dav, answer.status, answer.text())
    }
}

/// A server on a tree that takes many turns to copy, and some to remove.
fn with_tree() -> Dav {
    let dav = Dav::start(&["--step"]);
    for n in 0..400 {
        dav.write(&format!("d/{}/{n}", n % 200), "x");
    }
    dav
}

/// How many of its files are in a folder.
fn count(dav: &Dav, folder: &str) -> usize {
    (0..400).filter(|n| dav.exists(&format!("{folder}/{}/{n}", n % 200))).count()
}

#[test]
fn what_came_to_be_at_the_destination_is_judged() {
    // (method, further fields, what is done meanwhile, the status at the end)
    for (method, fields, meanwhile, status) in [
        ("COPY", "Overwrite: F\r\n", ("PUT", "x", 201), 412),
        ("MOVE", "Overwrite: F\r\n", ("PUT", "x", 201), 412),
        ("COPY", "", ("LOCK", LOCK, 201), 423),
        ("MOVE", "", ("LOCK", LOCK, 201), 423),
        ("COPY", "", ("MKCOL", "", 201), 409),
        ("COPY", "If: </other/new> (Not [\"\"]) (Not <a:b>)\r\n", ("PUT", "x", 201), 204),
    ] {
        let dav = with_tree();
        let _other = Elsewhere::linked(&dav.scratch, "root/other");
        let fields = format!("Destination: /other/new\r\n{fields}");
        let mut midway = Midway::new(dav, (method, "/d", &fields, ""), 4);
        let (other, body, expected) = meanwhile;
        assert_eq!(midway.meanwhile(other, "/other/new", "", body), expected, "{other}");
        let (dav, found, text) = midway.finish();
        assert_eq!(found, status, "{method} {other} {text}");
        assert_eq!(count(&dav, "d"), 400, "{method} {other}");
        match (status, other) {
            (204, _) => assert_eq!(count(&dav, "other/new"), 400),
            (_, "PUT") => assert_eq!(dav.read("other/new"), "x"),
            _ => assert!(dav.exists("other/new") && count(&dav, "other/new") == 0),
        }
        assert!(dav.unfinished("").is_empty() && dav.unfinished("other").is_empty());
        dav.stop();
    }
}

#[test]
fn a_lock_that_is_taken_in_what_is_to_be_replaced_holds() {
    let dav = with_tree();
    dav.write("target/e/f", "old");
    let mut midway = Midway::new(dav, ("COPY", "/d", "Destination: /target\r\n", ""), 4);
    assert_eq!(midway.meanwhile("LOCK", "/target/e/f", "", LOCK), 200);
    let (dav, status, text) = midway.finish();
    assert_eq!(status, 207, "{text}");
    assert!(text.contains("<D:href>/target/e/f</D:href><D:status>HTTP/1.1 423"), "{text}");
    assert_eq!((dav.read("target/e/f"), dav.names("target")), ("old".into(), vec!["e".into()]));
    assert!(dav.unfinished("").is_empty());
    dav.stop();
}

#[test]
fn a_lock_that_is_taken_behind_the_back_of_a_survey_holds() {
    for (method, fields) in [("DELETE", ""), ("MOVE", "Destination: /moved\r\n")] {
        let dav = with_tree();
        // The survey goes from the last directory to the first.
        let mut dirs = std::fs::read_dir(dav.scratch.join("root/d")).expect("a folder");
        let last = dirs.by_ref().last().expect("an entry").expect("an entry");
        let path = format!("/d/{}", last.file_name().into_string().expect("a name"));
        let mut midway = Midway::new(dav, (method, "/d", fields, ""), 2);
        assert_eq!(midway.meanwhile("LOCK", &path, "Depth: 0\r\n", LOCK), 200);
        let (dav, status, text) = midway.finish();
        assert_eq!(status, 207, "{text}");
        assert!(text.contains(&format!("<D:href>{path}/</D:href>")), "{text}");
        assert_eq!(count(&dav, "d"), 400);
        dav.stop();
    }
}

#[test]
fn what_is_being_deleted_is_gone_at_once() {
    let dav = with_tree();
    (0..3000).for_each(|n| {
        dav.write(&format!("d/1/more{n}"), "");
    });
    let mut midway = Midway::new(dav, ("DELETE", "/d", "", ""), 10);
    assert!(!midway.dav.exists("d"));
    assert_eq!(midway.meanwhile("LOCK", "/d/1/1", "", LOCK), 409);
    assert_eq!(midway.meanwhile("PUT", "/d", "", "new"), 201);
    let (dav, status, text) = midway.finish();
    assert_eq!(status, 204, "{text}");
    assert_eq!((dav.names(""), dav.read("d")), (vec!["d".into()], "new".into()));
    dav.stop();
}

#[test]
fn what_comes_to_the_place_of_a_source_on_its_way_stays() {
    let large = "0123456789".repeat(1_000_000);
    for refused in [false, true] {
        let dav = Dav::start(&["--step"]);
        let _other = Elsewhere::linked(&dav.scratch, "root/other");
        dav.write("a", &large);
        let fields = "Destination: /other/a\r\nOverwrite: F\r\n";
        let mut midway = Midway::new(dav, ("MOVE", "/a", fields, ""), 2);
        assert_eq!(midway.meanwhile("PUT", "/a", "", "new"), 201);
        if refused {
            midway.dav.write("other/a", "there");
        }
        let (dav, status, text) = midway.finish();
        assert_eq!(status, if refused { 412 } else { 201 }, "{text}");
        assert_eq!(dav.read("a"), "new");
        assert!(dav.read(if refused { "recovered.a" } else { "other/a" }) == large);
        assert!(dav.unfinished("").is_empty() && dav.unfinished("other").is_empty());
        dav.stop();
    }
}

#[test]
fn a_tree_that_is_moved_away_is_not_copied_by_halves() {
    let mut midway = Midway::new(with_tree(), ("COPY", "/d", "Destination: /copy\r\n", ""), 4);
    assert_eq!(midway.meanwhile("MOVE", "/d", "Destination: /e\r\n", ""), 201);
    let (dav, status, text) = midway.finish();
    assert!(status == 409 || status == 207 && text.contains(" 409 "), "{status} {text}");
    assert_eq!((dav.names(""), count(&dav, "e")), (vec!["e".into()], 400));
    dav.stop();
}

#[test]
fn nothing_is_left_of_the_work_of_a_client_that_has_gone() {
    for (method, fields) in [
        ("COPY", "Destination: /other/new\r\n"),
        ("MOVE", "Destination: /other/new\r\n"),
        ("DELETE", ""),
    ] {
        let dav = with_tree();
        let _other = Elsewhere::linked(&dav.scratch, "root/other");
        let Midway { mut dav, worker, .. } = Midway::new(dav, (method, "/d", fields, ""), 5);
        let before = dav.unfinished("").len() + dav.unfinished("other").len();
        assert!(before > 0, "{method}");
        worker.reset();
        dav.server.tell("run");
        // Nobody asks for anything.
        until("nothing is left", || {
            dav.unfinished("").is_empty() && dav.unfinished("other").is_empty()
        });
        let expected = if method == "DELETE" { 0 } else { 400 };
        assert_eq!((count(&dav, "d"), dav.exists("other/new")), (expected, false), "{method}");
        dav.stop();
    }
}

#[test]
fn who_waits_for_properties_keeps_nobody_waiting() {
    use rustix::fs::{FlockOperation, flock};
    let dav = Dav::start(&["--step"]);
    dav.write("a", "1");
    let folder = std::fs::File::open(dav.scratch.join("root")).expect("a folder");
    flock(&folder, FlockOperation::LockExclusive).expect("a lock");
    let patch = "<propertyupdate xmlns='DAV:'><set><prop><x xmlns='u:1'/></prop></set>\
                 </propertyupdate>";
    // It is not refused at once either.
    let mut midway = Midway::new(dav, ("PROPPATCH", "/a", "", patch), 3);
    midway.other.send_through("GET /alive HTTP/1.1\r\n\r\n");
    midway.poll(2);
    assert_eq!(midway.other.response().text(), "alive");
    assert!(!midway.is_done());
    drop(folder);
    let (dav, status, text) = midway.finish();
    assert_eq!(status, 207, "{text}");
    assert!(text.contains("200 OK"), "{text}");
    dav.stop();
}
