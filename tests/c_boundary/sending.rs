//! How large files are sent: whole, in parts, to slow readers, and while they change.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use crate::support::{
    Client, Scratch, Server, Trace, as_many_as, calls_cannot_fail, request, until,
};

fn serve(scratch: &Scratch, args: &[&str]) -> Server {
    let root = format!("document_root={}", scratch.join("root"));
    let mut all = vec![root.as_str()];
    all.extend(args);
    Server::start(&all)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

/// A file of zeros that takes no room.
fn sparse(scratch: &Scratch, name: &str, len: u64) -> File {
    scratch.write(name, "");
    let file = File::options().write(true).open(scratch.join(name)).expect("a file");
    file.set_len(len).expect("a sparse file");
    file
}

#[test]
fn answers_of_all_sizes_follow_each_other_on_a_connection() {
    let scratch = Scratch::new();
    let content = pattern(3_000_000);
    scratch.write("root/large", &content);
    // Around the sizes at which files are sent in other ways.
    let sizes = [0, 1, 8191, 8192, 8193, 16384, 32768, 32769, 65536, 65537, 131_072, 1_048_577];
    for size in sizes {
        scratch.write(&format!("root/{size}"), &content[..size]);
    }
    for cache in ["16777216", "0", "20000"] {
        let server = serve(&scratch, &[&format!("file_cache_bytes={cache}")]);
        let mut client = server.client();
        let get = |target: &str, fields: &str| format!("GET /{target} HTTP/1.1\r\n{fields}\r\n");
        let mut requests = String::new();
        for size in sizes {
            requests.push_str(&get(&size.to_string(), ""));
            requests.push_str(&get("large", "Range: bytes=1000000-2999998\r\n"));
            requests.push_str(&get("large", "Range: bytes=0-9,50-99999,200000-2000000,-5\r\n"));
            requests.push_str("HEAD /large HTTP/1.1\r\n\r\n");
            requests.push_str(&get("alive", ""));
        }
        client.send(requests);
        for size in sizes {
            assert!(client.response().body == content[..size], "{size} bytes, cache {cache}");
            assert!(client.response().body == content[1_000_000..2_999_999], "behind {size}");
            let several = client.response();
            let parts = parts(&several.body);
            assert_eq!(parts.len(), 4, "behind {size}");
            let ranges = [0..10, 50..100_000, 200_000..2_000_001, 2_999_995..3_000_000];
            for (part, range) in parts.iter().zip(ranges) {
                assert!(*part == &content[range], "a part behind {size}");
            }
            let head = client.response_without_body();
            assert_eq!(head.field("Content-Length"), Some("3000000"));
            assert_eq!(client.response().text(), "alive");
        }
        let mut old = server.client();
        old.send("GET /large HTTP/1.0\r\n\r\n");
        assert!(old.response().body == content);
        old.expect_closed();
        server.stop();
    }
}

/// The contents of the parts of a multipart body.
fn parts(body: &[u8]) -> Vec<&[u8]> {
    let find = |text: &[u8], wanted: &[u8]| memchr::memmem::find(text, wanted);
    let first_line = find(body, b"\r\n").expect("a boundary");
    let boundary = [b"\r\n", &body[..first_line]].concat();
    let mut rest = &body[first_line..];
    let mut parts = Vec::new();
    while let Some(head_end) = find(rest, b"\r\n\r\n") {
        let content = &rest[head_end + 4..];
        let end = find(content, &boundary).expect("the end of a part");
        parts.push(&content[..end]);
        rest = &content[end + boundary.len()..];
    }
    assert_eq!(rest, b"--\r\n");
    parts
}

#[test]
fn a_file_beyond_4_gib_has_its_length_and_its_ranges() {
    const LEN: u64 = (5 << 30) + 7;
    let scratch = Scratch::new();
    let file = sparse(&scratch, "root/huge", LEN);
    let border = 1 << 32;
    file.write_all_at(&pattern(200_000), border - 100_000).expect("bytes around 4 GiB");
    file.write_all_at(b"the end", LEN - 7).expect("bytes at the end");
    let server = serve(&scratch, &[]);
    let mut client = server.client();
    client.send("HEAD /huge HTTP/1.1\r\n\r\n");
    let head = client.response_without_body();
    assert_eq!(head.field("Content-Length"), Some(LEN.to_string().as_str()));
    let mut get = |range: &str| {
        let answer = client.ask(format!("GET /huge HTTP/1.1\r\nRange: bytes={range}\r\n\r\n"));
        assert_eq!(answer.status, 206, "{range}");
        answer
    };
    assert_eq!(get("-7").text(), "the end");
    assert_eq!(get(&format!("{}-", LEN - 3)).text(), "end");
    let range = format!("{}-{}", border - 100_000, border + 99_999);
    let answer = get(&range);
    assert!(answer.body == pattern(200_000));
    assert_eq!(answer.field("Content-Range"), Some(format!("bytes {range}/{LEN}").as_str()));
    client.send("GET /huge HTTP/1.1\r\n\r\n");
    let head = client.take_through("\r\n\r\n");
    assert!(head.contains(&format!("Content-Length: {LEN}\r\n")), "{head}");
    assert!(client.take(1 << 20).iter().all(|byte| *byte == 0));
    drop(client);
    server.stop();
}

/// What happens to a file, and how to call it.
type Change<'a> = (&'a str, &'a dyn Fn(&str));

/// Begins to fetch the file, does something to it, and gives all that comes of its content.
fn content_around(scratch: &Scratch, server: &Server, change: impl FnOnce(&str)) -> Vec<u8> {
    let mut client = server.client();
    client.send("GET /file HTTP/1.0\r\n\r\n");
    client.take_through("\r\n\r\n");
    change(&scratch.join("root/file"));
    client.rest_or_reset()
}

#[test]
fn a_file_that_is_no_longer_the_same_ends_the_connection() {
    const LEN: u64 = 200_000_000;
    let scratch = Scratch::new();
    let server = serve(&scratch, &[&format!("error_log_file={}", scratch.join("errors"))]);
    let touch = |path: &str| {
        let file = File::options().write(true).open(path).expect("the file");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("another time");
    };
    let write = |path: &str| {
        let file = File::options().write(true).open(path).expect("the file");
        file.write_all_at(b"new", LEN - 3).expect("bytes at the end");
    };
    let append = |path: &str| {
        let mut file = File::options().append(true).open(path).expect("the file");
        file.write_all(b"more").expect("bytes behind the end");
    };
    let shrink = |path: &str| {
        let file = File::options().write(true).open(path).expect("the file");
        file.set_len(100).expect("a short file");
    };
    let empty = |path: &str| drop(File::create(path).expect("an empty file"));
    let changes: [Change; 5] = [
        ("touched", &touch),
        ("written to", &write),
        ("appended to", &append),
        ("cut", &shrink),
        ("emptied", &empty),
    ];
    for (number, (name, change)) in changes.iter().enumerate() {
        sparse(&scratch, "root/file", LEN);
        let content = content_around(&scratch, &server, change);
        assert!(content.len() < LEN as usize, "{name}");
        assert!(content.iter().all(|byte| *byte == 0), "{name}");
        let complaints = || scratch.read("errors").matches("while it was sent").count();
        until("the error log tells", || complaints() == number + 1);
    }
    server.stop();
}

#[test]
fn a_file_that_is_replaced_or_vanishes_is_still_sent_whole() {
    const LEN: u64 = 100_000_000;
    let scratch = Scratch::new();
    let server = serve(&scratch, &[]);
    let replace = |path: &str| {
        scratch.write("root/new", "new");
        std::fs::rename(scratch.join("root/new"), path).expect("another one in its place");
    };
    let remove = |path: &str| std::fs::remove_file(path).expect("removed");
    let forbid = |path: &str| {
        let none = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(path, none).expect("a mode");
    };
    let changes: [Change; 3] =
        [("replaced", &replace), ("removed", &remove), ("forbidden", &forbid)];
    for (name, change) in changes {
        sparse(&scratch, "root/file", LEN);
        let content = content_around(&scratch, &server, change);
        assert_eq!(content.len(), LEN as usize, "{name}");
    }
    server.stop();
}

/// The most memory that the process ever had, in bytes.
fn peak_memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn a_thousand_slow_readers_of_a_large_file_cost_next_to_no_memory() {
    const LEN: usize = 100 << 20;
    let count = as_many_as(1000, 50);
    raise_descriptor_limit();
    let scratch = Scratch::new();
    sparse(&scratch, "root/film", LEN as u64);
    let server = serve(&scratch, &[]);
    server.ask("GET /alive HTTP/1.1\r\n\r\n");
    let before = peak_memory(server.program.id());
    let mut clients: Vec<Client> = (0..count).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send("GET /film HTTP/1.1\r\n\r\n");
    }
    for client in &mut clients {
        client.take_through("\r\n\r\n");
        client.take(1000);
    }
    // Others are served meanwhile.
    assert_eq!(server.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    let growth = peak_memory(server.program.id()) - before;
    let bound = 16_384 * count as u64 + (8 << 20);
    assert!(growth < bound, "{} bytes for each", growth / count as u64);
    let rest = clients.pop().map(|mut client| client.take(LEN - 1000).len());
    assert_eq!(rest, Some(LEN - 1000));
    drop(clients);
    server.stop();
}

/// As many descriptors as the system allows: other tests run in this process, too.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writes, then for reads.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
}

#[test]
fn the_access_log_counts_what_was_sent_of_a_large_file() {
    let scratch = Scratch::new();
    scratch.write("root/large", pattern(3_000_000));
    sparse(&scratch, "root/film", 100 << 20);
    let server = serve(&scratch, &[&format!("access_log_file={}", scratch.join("log"))]);
    let mut client = server.client();
    client.send(
        "GET /large HTTP/1.1\r\n\r\nGET /large HTTP/1.1\r\nRange: bytes=9-1000008\r\n\r\n\
         HEAD /large HTTP/1.1\r\n\r\nGET /large HTTP/1.1\r\n\r\n",
    );
    assert_eq!(client.response().body.len(), 3_000_000);
    assert_eq!(client.response().body.len(), 1_000_000);
    client.response_without_body();
    assert_eq!(client.response().body.len(), 3_000_000);
    let mut cut = server.client();
    cut.send("GET /film HTTP/1.1\r\n\r\n");
    cut.take_through("\r\n\r\n");
    cut.reset();
    let log = || scratch.read("log");
    until("all five are logged", || log().lines().count() == 5);
    let counts: Vec<u64> = log()
        .lines()
        .map(|line| line.split("\" 20").nth(1).expect("a status"))
        .map(|rest| rest.split(' ').nth(1).expect("a count").parse().expect("a number"))
        .collect();
    assert_eq!(counts[..4], [3_000_000, 1_000_000, 0, 3_000_000]);
    assert!(counts[4] < 100 << 20, "{}", counts[4]);
    server.stop();
}

#[test]
fn the_access_log_is_in_the_order_of_completion() {
    let scratch = Scratch::new();
    sparse(&scratch, "root/film", 50 << 20);
    let server = serve(&scratch, &[&format!("access_log_file={}", scratch.join("log"))]);
    let mut slow = server.client();
    slow.send("GET /film HTTP/1.1\r\n\r\nGET /none HTTP/1.1\r\n\r\n");
    slow.take_through("\r\n\r\n");
    server.ask("GET /film?2 HTTP/1.1\r\n\r\n");
    server.ask("GET /alive HTTP/1.1\r\n\r\n");
    slow.take(50 << 20);
    assert_eq!(slow.response().status, 404);
    server.stop();
    let log = scratch.read("log");
    let targets: Vec<&str> = log.lines().filter_map(|line| line.split(' ').nth(6)).collect();
    assert_eq!(targets, ["/film?2", "/alive", "/film", "/none", "/alive"], "{log}");
}

#[test]
fn who_stops_reading_a_file_is_closed_after_the_idle_timeout() {
    const LEN: usize = 100 << 20;
    let scratch = Scratch::new();
    sparse(&scratch, "root/film", LEN as u64);
    let log = format!("access_log_file={}", scratch.join("log"));
    let server = serve(&scratch, &["idle_timeout_ms=1000", &log]);
    let mut client = server.client();
    client.send("GET /film HTTP/1.1\r\n\r\n");
    client.take_through("\r\n\r\n");
    until("the connection is logged as over", || !scratch.read("log").is_empty());
    assert!(client.rest_or_reset().len() < LEN);
    server.stop();
}

#[test]
fn sockets_that_take_more_at_the_same_time_do_not_share_one_turn() {
    needs!("strace");
    if calls_cannot_fail() {
        return;
    }
    let scratch = Scratch::new();
    scratch.write("root/long", pattern(24 << 20));
    let file = "GET /long HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    let written = request("GET", "1.1", &["data_fill 12000000 x"]);
    for (asked, calls) in [(file, "sendfile,sendfile64"), (written, "sendto,send")] {
        let trace = trace_of_slow_sends(&scratch, &asked, calls);
        let is_mark = |text: &str| text.starts_with("write(1, \"polled");
        let marks: Vec<usize> =
            (0..trace.calls.len()).filter(|at| is_mark(&trace.calls[*at].text)).collect();
        let [full, end] = marks[..] else { panic!("{marks:?}") };
        let is_send = |at: &usize| trace.calls[*at].text.starts_with("send");
        let before = (0..full).filter(is_send).count();
        let sent = (full..end).filter(is_send).count();
        let what = format!("{calls}: {before} calls, then {sent} in one turn");
        assert!(before > 8 && (1..=2).contains(&sent), "{what}");
    }
}

/// What a server does for 8 clients that ask for the same, and read much of it between two turns. Each of
/// the `calls` that send takes longer than a turn may go on.
fn trace_of_slow_sends(scratch: &Scratch, asked: &str, calls: &str) -> Trace {
    let mut options = Trace::options(scratch, &format!("epoll_wait,epoll_pwait,write,{calls}"));
    options.extend(["-e".to_owned(), format!("inject={calls}:delay_exit=4000")]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let root = format!("document_root={}", scratch.join("root"));
    let mut server = Server::start_failing(&options, &["--step", &root]);
    let mut clients: Vec<Client> = (0..8).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(asked);
    }
    let mut poll = |count: usize| {
        server.tell(&format!("poll {count}"));
        server.expect_line("polled");
    };
    // Until the sockets are full.
    poll(400);
    for client in &mut clients {
        client.take(3 << 19);
    }
    poll(1);
    server.tell("run");
    server.stop();
    Trace::read(scratch)
}
