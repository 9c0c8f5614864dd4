//! What takes long with a long file is not done by the thread that polls: to free its blocks, and to
//! write it to the disk. What takes long with a long directory is done in portions. Judged by the system
//! calls of each thread.

use super::support::*;

/// More than the library calls long.
const LONG: usize = 5 << 20;

/// Serves the files that `prepare` makes, and traces `calls` until `visit` is done and the server has ended.
fn trace(calls: &str, prepare: impl FnOnce(&Scratch), visit: impl FnOnce(&Dav)) -> Trace {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.join("root")).expect("a root");
    prepare(&scratch);
    let options = Trace::options(&scratch, calls);
    let dav = Dav::start_failing(scratch, &options, &[]);
    // The nonce.
    dav.status("PROPFIND", "/", "Depth: 0\r\n", "");
    visit(&dav);
    let Dav { scratch, server, .. } = dav;
    server.stop();
    Trace::read(&scratch)
}

fn long() -> Vec<u8> {
    // No file system is to find zeros, or to share blocks.
    (0..LONG as u64).map(|n| ((n * 2_654_435_761) >> 7) as u8).collect()
}

#[test]
fn the_blocks_of_a_long_file_are_freed_by_a_thread_of_their_own() {
    needs!("strace");
    if calls_cannot_fail() {
        return;
    }
    let names = ["deleted", "put", "copied", "moved", "tree/inside"];
    let trace = trace(
        "open,openat,close,unlink,unlinkat,rename,renameat,renameat2",
        |scratch| {
            std::fs::create_dir_all(scratch.join("root/tree")).expect("a folder");
            for name in names.iter().chain(&["cached"]) {
                scratch.write(&format!("root/{name}"), long());
            }
            for name in ["short", "source", "other"] {
                scratch.write(&format!("root/{name}"), "short");
            }
        },
        |dav| {
            assert_eq!(dav.status("DELETE", "/deleted", "", ""), 204);
            assert_eq!(dav.status("PUT", "/put", "", "short"), 204);
            assert_eq!(dav.transfer("COPY", "/source", "/copied"), 204);
            assert_eq!(dav.transfer("MOVE", "/source", "/moved"), 204);
            assert_eq!(dav.status("DELETE", "/tree/", "", ""), 204);
            assert_eq!(dav.status("DELETE", "/short", "", ""), 204);
            // The cache holds a descriptor.
            assert_eq!(dav.ask("GET", "/cached", "", "").body.len(), LONG);
            assert_eq!(dav.status("DELETE", "/cached", "", ""), 204);
            // A part of a file that is another one when all has come.
            let fields =
                format!("Content-Range: bytes 0-{}/*\r\nExpect: 100-continue\r\n", LONG - 1);
            let part = dav.request("PUT", "/other", &fields, &"x".repeat(LONG));
            let (head, content) = part.split_once("\r\n\r\n").expect("a head");
            let mut client = dav.client();
            client.send(format!("{head}\r\n\r\n"));
            client.take_through("100 Continue\r\n\r\n");
            dav.write("other", "another");
            assert_eq!(client.send(content).response().status, 412);
        },
    );
    let main = trace.main_thread();
    for name in names {
        let name = format!("/{}\"", name.rsplit('/').next().expect("a name"));
        let closers = trace.closers(&["open", &name, "O_PATH"]);
        assert!(closers.len() == 1 && closers[0] != main, "{name}: {closers:?}, {main} polls");
    }
    let closers = trace.closers(&["open", "root/cached\""]);
    assert!(closers.len() >= 2 && closers.iter().all(|thread| *thread != main), "{closers:?}");
    let never = trace.closers(&["open", "O_TMPFILE"]);
    assert_eq!(never.iter().filter(|thread| **thread != main).count(), 1, "{never:?}");
    assert_eq!(trace.closers(&["open", "/short\"", "O_PATH"]), [0; 0]);
}

#[test]
fn what_replaces_a_file_is_on_its_way_to_the_disk_before() {
    needs!("strace");
    if calls_cannot_fail() {
        return;
    }
    let trace = trace(
        "sync_file_range,rename,renameat,renameat2,linkat",
        |scratch| {
            for name in ["source", "put", "part", "copied", "moved"] {
                scratch.write(
                    &format!("root/{name}"),
                    if name == "source" { long() } else { "x".into() },
                );
            }
            scratch.write("root/part", long());
        },
        |dav| {
            let content = "y".repeat(LONG);
            assert_eq!(dav.status("PUT", "/new", "", &content), 201);
            assert_eq!(dav.status("PUT", "/put", "", &content), 204);
            assert_eq!(dav.status("PUT", "/part", "Content-Range: bytes 9-11/*\r\n", "new"), 204);
            assert_eq!(dav.transfer("COPY", "/source", "/copied"), 204);
            assert_eq!(dav.transfer("MOVE", "/source", "/moved"), 204);
        },
    );
    let mut sent = std::collections::BTreeSet::new();
    let mut seen = Vec::new();
    for Call { text, .. } in &trace.calls {
        if let Some(arguments) = text.strip_prefix("sync_file_range(") {
            let numbers: Vec<u64> = arguments.split(", ").flat_map(|n| n.parse()).collect();
            assert_eq!(numbers[2], 1 << 20, "{text}");
            sent.insert(numbers[1] >> 20);
            continue;
        }
        let Some((name, expected)) =
            [("new", 0), ("put", 5), ("part", 5), ("copied", 5), ("moved", 5)]
                .into_iter()
                .find(|(name, _)| text.contains(&format!("/{name}\"")) && text.ends_with(" = 0"))
        else {
            continue;
        };
        assert_eq!(sent.len(), expected, "{text}: {sent:?}");
        seen.push(name);
        sent.clear();
    }
    assert_eq!(seen, ["new", "put", "part", "copied", "moved"]);
}

#[test]
fn a_directory_of_many_names_is_read_in_portions() {
    needs!("strace");
    if calls_cannot_fail() {
        return;
    }
    let trace = trace(
        "getdents64,epoll_wait,epoll_pwait",
        |scratch| {
            std::fs::create_dir(scratch.join("root/d")).expect("a folder");
            for name in 0..40_000 {
                std::fs::File::create(scratch.join(&format!("root/d/{name}"))).expect("a file");
            }
            // It is found by the sweep of the directory.
            scratch.write("root/d/.mongoose-dav.0123456789abcdef0123456789abcdef", "left");
        },
        |dav| {
            assert_eq!(dav.status("PUT", "/d/new", "", "new"), 201);
            assert_eq!(dav.transfer("MOVE", "/d/", "/e/"), 201);
            assert_eq!(dav.unfinished("e"), [""; 0]);
            assert_eq!(dav.names("e").len(), 40_001);
            assert_eq!(dav.status("DELETE", "/e/", "", ""), 204);
            assert!(!dav.exists("e"));
        },
    );
    let (mut in_turn, mut most, mut all) = (0, 0, 0);
    for Call { text, .. } in &trace.calls {
        match text.starts_with("getdents64(") {
            true => (in_turn, all) = (in_turn + 1, all + 1),
            false => in_turn = 0,
        }
        most = most.max(in_turn);
    }
    // A call gives some 1,300 names.
    assert!(most <= 12 && all >= 100, "{most} of {all} in one turn");
}
