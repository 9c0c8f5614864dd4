//! MOVE to another file system (RFC 4918 section 9.9), where it is a copy and a removal.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Client, Dav, Elsewhere, Mounted, Scratch, as_many_as, until};

fn fill(dav: &Dav, folder: &str, files: usize) {
    for n in 0..files {
        dav.write(&format!("{folder}/{}/{n}", n % 4), "x".repeat(20_000));
    }
}

/// How many files of [`fill`] are in a folder, each of them whole.
fn count(dav: &Dav, folder: &str, files: usize) -> usize {
    let path = |n: usize| format!("{folder}/{}/{n}", n % 4);
    let found: Vec<usize> = (0..files).filter(|n| dav.exists(&path(*n))).collect();
    assert!(found.iter().all(|n| dav.read(&path(*n)).len() == 20_000), "{folder}");
    found.len()
}

#[test]
fn what_cannot_be_copied_stays_and_so_does_the_whole() {
    let dav = Dav::start(&[]);
    let _other = Elsewhere::linked(&dav.scratch, "root/other");
    dav.write("d/a", "a").write("d/e/b", "b").write("other/old/c", "c");
    let fifo = dav.scratch.join("root/d/e/fi fo");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.is_ok_and(|status| status.success()));
    for to in ["/other/new", "/other/old"] {
        let answer = dav.ask("MOVE", "/d", &format!("Destination: {to}\r\n"), "");
        assert_eq!(answer.status, 207, "{}", answer.head);
        let text = answer.text();
        assert!(text.contains("<D:href>/d/e/fi%20fo</D:href><D:status>HTTP/1.1 403"), "{text}");
    }
    assert_eq!((dav.read("d/a"), dav.read("d/e/b")), ("a".into(), "b".into()));
    assert!(Path::new(&fifo).exists());
    assert_eq!(
        (dav.names(""), dav.names("other")),
        (vec!["d".into(), "other".into()], vec!["old".into()])
    );
    assert_eq!(dav.names("other/old"), ["c"]);
    // Without it, and also as a copy, all goes.
    assert_eq!(dav.transfer("COPY", "/d", "/other/copy"), 201);
    std::fs::remove_file(fifo).expect("removed");
    assert_eq!(dav.transfer("MOVE", "/d", "/other/old"), 204);
    assert_eq!(
        (dav.names(""), dav.names("other")),
        (vec!["other".into()], vec!["copy".into(), "old".into()])
    );
    assert_eq!(
        (dav.read("other/old/e/b"), dav.names("other/copy/e")),
        ("b".into(), vec!["b".into()])
    );
    dav.stop();
}

#[test]
fn links_in_a_tree_are_what_they_were() {
    let dav = Dav::start(&[]);
    let _other = Elsewhere::linked(&dav.scratch, "root/other");
    dav.write("d/e/a", "a");
    let links = [("e/a", "d/inner"), ("..", "d/e/up"), ("none", "d/none"), ("/etc", "d/abs")];
    for (text, link) in links {
        symlink(text, dav.scratch.join(&format!("root/{link}"))).expect("a link");
    }
    assert_eq!(dav.transfer("MOVE", "/d", "/other/d"), 201);
    for (text, link) in links {
        let found = std::fs::read_link(dav.scratch.join(&format!("root/other/{link}")));
        assert_eq!(found.expect("a link"), Path::new(text), "{link}");
    }
    assert_eq!((dav.read("other/d/inner"), dav.read("other/d/e/up/e/a")), ("a".into(), "a".into()));
    assert_eq!(dav.names(""), ["other"]);
    dav.stop();
}

/// Moves a tree and kills the server meanwhile: `send` sends the request, and waits. Whether the source is there
/// afterwards, and whether the target is.
fn kill_in_a_move(
    dav: &mut Dav,
    files: usize,
    send: impl FnOnce(&mut Dav, &mut Client, String),
) -> (bool, bool) {
    for folder in ["d", "other/d"] {
        let _ = std::fs::remove_dir_all(dav.scratch.join(&format!("root/{folder}")));
    }
    fill(dav, "d", files);
    let mut client = dav.client();
    let request = dav.request("MOVE", "/d", "Destination: /other/d\r\n", "");
    client.send("GET /alive HTTP/1.1\r\n\r\n");
    assert_eq!(client.response().text(), "alive");
    send(dav, &mut client, request);
    dav.restart();
    dav.server.tell("run");
    // The first who asks for it finds it, if it is to be found.
    let is_there = |path: &str| dav.propfind(&format!("{path}/1/1"), "0", "").status == 207;
    let (source, target) = (is_there("/d"), is_there("/other/d"));
    assert!(source || target, "{:?} {:?}", dav.names(""), dav.names("other"));
    for (is_there, folder) in [(source, "d"), (target, "other/d")] {
        if is_there {
            assert_eq!(count(dav, folder, files), files, "{folder}");
        }
    }
    until("nothing is left of it", || {
        dav.propfind("/", "1", "");
        dav.propfind("/other", "1", "");
        dav.unfinished("").is_empty() && dav.unfinished("other").is_empty()
    });
    assert!(!dav.names("").iter().any(|name| name.starts_with("recovered")));
    (source, target)
}

#[test]
fn a_server_that_is_killed_in_any_turn_leaves_the_source_or_the_target() {
    let mut dav = Dav::start(&["--step"]);
    let _other = Elsewhere::linked(&dav.scratch, "root/other");
    dav.server.tell("run");
    let (mut sources, mut targets, mut turns) = (0, 0, 0);
    while targets < 3 {
        let (source, target) = kill_in_a_move(&mut dav, 40, |dav, client, request| {
            dav.server.poll(1);
            client.send_through(request);
            dav.server.poll(turns);
        });
        sources += usize::from(source);
        targets += usize::from(target);
        turns += 1;
        assert!(turns < 100, "it is never moved");
    }
    assert!(sources > 2, "{sources}");
    dav.stop();
}

#[test]
fn a_server_that_is_killed_at_any_moment_leaves_the_source_or_the_target() {
    let mut dav = Dav::start(&[]);
    let _other = Elsewhere::linked(&dav.scratch, "root/other");
    for round in 0..as_many_as(40, 2) {
        kill_in_a_move(&mut dav, 200, |_, client, request| {
            client.send(request);
            // Each round a little later.
            let moment = Instant::now() + Duration::from_micros(500 * round as u64);
            while Instant::now() < moment {
                std::hint::spin_loop();
            }
        });
    }
    dav.stop();
}

#[test]
fn a_server_that_is_killed_loses_no_link_and_leaves_none_hidden() {
    let mut dav = Dav::start(&[]);
    dav.write("file", "x").write("d/e", "");
    symlink("file", dav.scratch.join("root/a")).expect("a link");
    for round in 0..as_many_as(100, 2) {
        let (from, to) = if dav.exists("a") { ("a", "d/b") } else { ("d/b", "a") };
        let mut client = dav.client();
        assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
        client.send(dav.request(
            "MOVE",
            &format!("/{from}"),
            &format!("Destination: /{to}\r\n"),
            "",
        ));
        // Each round a little later.
        let moment = Instant::now() + Duration::from_micros(10 * round as u64);
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        dav.restart();
        for folder in ["/", "/d"] {
            assert_eq!(dav.propfind(folder, "1", "").status, 207);
        }
        until("nothing is left of it", || {
            dav.propfind("/", "1", "");
            dav.propfind("/d", "1", "");
            dav.unfinished("").is_empty() && dav.unfinished("d").is_empty()
        });
        assert!(dav.exists("a") || dav.exists("d/b"), "{round}");
        if dav.exists("a") && dav.exists("d/b") {
            std::fs::remove_file(dav.scratch.join("root/d/b")).expect("removed");
        }
    }
    dav.stop();
}

#[test]
fn a_held_source_is_found_by_who_asks_for_what_is_in_it() {
    needs!("python3");
    let dav = Dav::start(&[]);
    let digits = "0123456789abcdef".repeat(2);
    dav.write(&format!("a/.mongoose-dav-held.{digits}/d/e/f"), "f");
    dav.write(&format!("b/.mongoose-dav-held.{digits}/d/f"), "held").write("b/d", "new");
    assert_eq!(dav.propfind("/a/d/e/f", "0", "").status, 207);
    assert_eq!((dav.names("a"), dav.read("a/d/e/f")), (vec!["d".into()], "f".into()));
    assert_eq!(dav.propfind("/b", "0", "").status, 207);
    assert_eq!(dav.names("b"), ["d", "recovered.d"]);
    assert_eq!((dav.read("b/d"), dav.read("b/recovered.d/f")), ("new".into(), "held".into()));
    dav.stop();
}

/// Has another process hold a lease on a file, as Samba does, so that it cannot be opened.
fn lease(path: &str) -> std::process::Child {
    const HOLD: &str = "import fcntl, signal, sys, time\n\
        signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
        file = open(sys.argv[1], 'r+')\n\
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
        print('held', flush=True)\n\
        time.sleep(60)\n";
    let mut command = crate::support::outside("python3");
    let mut holder = command
        .args(["-c", HOLD, path])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3");
    let mut line = [0; 5];
    let output = holder.stdout.as_mut().expect("its output");
    std::io::Read::read_exact(output, &mut line).expect("a lease");
    assert_eq!(&line, b"held\n");
    holder
}

#[test]
fn locks_that_cannot_be_read_now_are_not_passed() {
    needs!("python3");
    for method in ["DELETE", "MOVE"] {
        let dav = Dav::start(&[]);
        dav.write("d/e/f", "precious");
        dav.lock("/d/e/f", "");
        let mut holder = lease(&dav.scratch.join("root/d/e/.mongoose-dav"));
        let request = dav.request_of("jane", method, "/d", "Destination: /new\r\n", "");
        assert_eq!(dav.server.ask(request).status, 503, "{method}");
        holder.kill().and_then(|()| holder.wait()).expect("it ends");
        assert_eq!(dav.read("d/e/f"), "precious");
        let request = dav.request_of("jane", method, "/d", "Destination: /new\r\n", "");
        assert_eq!(dav.server.ask(request).status, 207, "{method}");
        dav.stop();
    }
}

#[test]
fn what_a_kill_has_left_held_keeps_its_locks() {
    let dav = Dav::start(&[]);
    dav.write("a/b/d/f", "f");
    dav.lock("/a/b/d", "");
    let held = format!("root/a/b/.mongoose-dav-held.{:032x}", 1);
    std::fs::create_dir(dav.scratch.join(&held)).expect("a folder");
    let from = dav.scratch.join("root/a/b/d");
    std::fs::rename(from, dav.scratch.join(&format!("{held}/d"))).expect("renamed");
    let request = dav.request_of("jane", "DELETE", "/a", "", "");
    assert_eq!(dav.server.ask(request).status, 207);
    assert_eq!(dav.read("a/b/d/f"), "f");
    dav.stop();
}

#[test]
fn a_link_that_cannot_be_taken_away_replaces_nothing() {
    let dav = Dav::start(&[]);
    dav.write("d/f", "f");
    // Nothing in there can be renamed, whoever asks.
    std::os::unix::fs::symlink("/proc/self", dav.scratch.join("root/self")).expect("a link");
    assert!(dav.transfer("MOVE", "/self/exe", "/d/f") >= 400);
    assert_eq!(dav.read("d/f"), "f");
    assert_eq!(dav.names("d"), ["f"]);
    dav.stop();
}

/// A server on an overlay, whose lower layer has folders that cannot be renamed.
fn on_layers() -> (Dav, Mounted) {
    let scratch = Scratch::new();
    for name in ["low/d/deep/x", "low/d/a", "low/to/old", "low/other/y"] {
        scratch.write(name, format!("of {name}"));
    }
    for name in ["up", "work"] {
        std::fs::create_dir_all(scratch.join(name)).expect("a folder");
    }
    let [low, up, work] = ["low", "up", "work"].map(|name| scratch.join(name));
    let layers = format!("lowerdir={low},upperdir={up},workdir={work}");
    let disk = Mounted::on(&scratch, "root", "overlay", &layers);
    let log = format!("error_log_file={}", scratch.join("errors"));
    let dav = Dav::start_in(scratch, &[&log]);
    let rename = |from: &str| {
        let path = |name: &str| dav.scratch.join(&format!("root/{name}"));
        std::fs::rename(path(from), path("elsewhere")).map_err(|error| error.raw_os_error())
    };
    assert_eq!(rename("d"), Err(Some(18)), "EXDEV: this is what the test is about");
    (dav, disk)
}

#[test]
fn folders_of_a_lower_layer_are_moved_and_replaced_like_others() {
    needs!("mount-overlay");
    let (dav, _disk) = on_layers();
    let set = "<D:propertyupdate xmlns:D='DAV:' xmlns:Z='z:'><D:set><D:prop><Z:a>kept</Z:a></D:prop>\
        </D:set></D:propertyupdate>";
    assert_eq!(dav.status("PROPPATCH", "/d/a", "", set), 207);
    assert_eq!(dav.status("PROPPATCH", "/d/deep", "", set), 207);
    symlink("a", dav.scratch.join("root/d/link")).expect("a link");
    assert_eq!(dav.transfer("MOVE", "/d", "/new"), 201);
    assert!(!dav.exists("d") && dav.read("new/deep/x") == "of low/d/deep/x");
    assert_eq!(dav.read("new/link"), "of low/d/a");
    for path in ["/new/a", "/new/deep"] {
        assert!(dav.propfind(path, "0", "").text().contains("kept"), "{path}");
    }
    // Over a folder that cannot be renamed, by one that can and by one that cannot.
    assert_eq!(dav.status("MOVE", "/new", "Destination: /to\r\nOverwrite: F\r\n", ""), 412);
    assert_eq!(dav.transfer("MOVE", "/new", "/to"), 204);
    assert_eq!((dav.read("to/a").as_str(), dav.exists("to/old")), ("of low/d/a", false));
    assert_eq!(dav.transfer("COPY", "/to", "/other"), 204);
    assert!(dav.read("other/deep/x") == "of low/d/deep/x" && !dav.exists("other/y"));
    assert_eq!(dav.names(""), ["other", "to"]);
    dav.stop();

    let (dav, _disk) = on_layers();
    assert_eq!(dav.transfer("MOVE", "/d", "/to"), 204);
    assert_eq!((dav.read("to/a").as_str(), dav.names("to").len()), ("of low/d/a", 2));
    // A file over a folder, too.
    dav.write("file", "text");
    assert_eq!(dav.transfer("COPY", "/file", "/other"), 204);
    assert_eq!(
        (dav.read("other").as_str(), dav.names("")),
        ("text", strings(["file", "other", "to"]))
    );
    dav.stop();
}

fn strings<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_locked_folder_of_a_lower_layer_stays() {
    needs!("mount-overlay");
    let (dav, _disk) = on_layers();
    let token = dav.lock("/d/deep/x", "");
    let answer = dav.ask("MOVE", "/d", "Destination: /new\r\n", "");
    assert!(answer.status == 207 && answer.text().contains(" 423 "), "{}", answer.head);
    let token_of_old = dav.lock("/to/old", "");
    let keys = format!("If: </d/deep/x> (<{token}>)\r\n");
    let answer = dav.ask("MOVE", "/d", &format!("Destination: /to\r\n{keys}"), "");
    assert!(answer.status == 207 && answer.text().contains(" 423 "), "{}", answer.head);
    assert_eq!(
        (dav.read("d/a").as_str(), dav.read("to/old").as_str()),
        ("of low/d/a", "of low/to/old")
    );
    assert_eq!(dav.unfinished(""), Vec::<String>::new());
    let keys = format!("If: </d/deep/x> (<{token}>) </to/old> (<{token_of_old}>)\r\n");
    assert_eq!(dav.status("MOVE", "/d", &format!("Destination: /to\r\n{keys}"), ""), 204);
    assert_eq!(dav.read("to/deep/x"), "of low/d/deep/x");
    dav.stop();
}
