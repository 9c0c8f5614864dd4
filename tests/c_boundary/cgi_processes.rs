//! CGI programs as processes: they are neither waited for nor left behind, whatever they do, and
//! neither side is read faster than the other one takes it.

use std::io::Write as _;

use super::cgi::{serve, shell};
use crate::support::{Response, Scratch, Server, as_many_as, is_checked, until};

fn get(server: &Server, target: &str) -> Response {
    server.ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
}

/// The id that a program has written to `pid`, once it has.
fn pid(scratch: &Scratch, name: &str) -> u32 {
    let mut id = None;
    until("a program has told its id", || {
        id = scratch.read(name).strip_suffix('\n').and_then(|text| text.parse().ok());
        id.is_some()
    });
    id.expect("an id")
}

/// Whether there is such a process, alive or not reaped.
fn exists(pid: u32) -> bool {
    std::fs::exists(format!("/proc/{pid}")).unwrap_or(false)
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 % 251) as u8).collect()
}

fn cksum(bytes: &[u8]) -> String {
    let mut child = std::process::Command::new("cksum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("cksum");
    child.stdin.take().expect("its input").write_all(bytes).expect("taken");
    let out = child.wait_with_output().expect("its output");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

const WAIT: &str = "while ! test -e ../go; do sleep 0.01; done";
const HEAD: &str = r"printf 'A: b\n\n'";

#[test]
fn output_streams_as_it_comes() {
    let scratch = Scratch::new();
    shell(&scratch, "x.cgi", &format!("{HEAD}; echo one; {WAIT}; echo two"));
    let server = serve(&scratch, &[]);
    let mut client = server.client();
    client.send("GET /x.cgi HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.take_through("\r\n\r\n");
    assert!(head.contains("Transfer-Encoding: chunked"), "{head}");
    client.expect("4\r\none\n\r\n");
    // Others do not wait for it.
    assert_eq!(get(&server, "/alive").text(), "alive");
    scratch.write("go", "");
    client.expect("4\r\ntwo\n\r\n0\r\n\r\n");
    server.stop();
}

#[test]
fn a_large_body_reaches_the_program_whole_however_it_is_framed() {
    let scratch = Scratch::new();
    shell(&scratch, "sum.cgi", &format!("sum=$(cksum); {HEAD}; echo $CONTENT_LENGTH; echo $sum"));
    let server = serve(&scratch, &[]);
    let body = pattern(as_many_as(20_000_000, 2_000_000));
    let expected = format!("{}\n{}", body.len(), cksum(&body));
    let mut client = server.client();
    let length = body.len();
    client.send(format!("POST /sum.cgi HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
    client.send(&body);
    assert_eq!(client.response().text(), expected);

    // Who sends chunks does not say how many: the program is told all the same.
    client.send("POST /sum.cgi HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in body.chunks(100_000) {
        client.send(format!("{:x}\r\n", piece.len())).send(piece).send("\r\n");
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.response().text(), expected);

    let mut client = server.client();
    client.send(
        "POST /sum.cgi HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
    );
    client.expect("HTTP/1.1 100 Continue\r\n\r\n").send("abc");
    assert_eq!(client.response().text(), format!("3\n{}", cksum(b"abc")));
    for len in [0, 1, 65536, 65537] {
        let body = &body[..len];
        client.send(format!("POST /sum.cgi HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n"));
        client.send(body);
        assert_eq!(client.response().text(), format!("{len}\n{}", cksum(body)), "{len}");
    }
    server.stop();
}

#[test]
fn the_limit_of_bodies_holds() {
    let scratch = Scratch::new();
    shell(&scratch, "x.cgi", &format!("{HEAD}; cat"));
    let server = serve(&scratch, &["max_request_body_bytes=10", "max_upload_bytes=10"]);
    let cases = [
        ("Content-Length: 10", "0123456789", 200),
        ("Content-Length: 11", "", 413),
        ("Content-Length: 11\r\nExpect: 100-continue", "", 413),
        ("Transfer-Encoding: chunked", "5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n", 200),
        ("Transfer-Encoding: chunked", "5\r\n01234\r\n6\r\n567890\r\n0\r\n\r\n", 413),
        ("Transfer-Encoding: chunked", "x\r\n", 400),
    ];
    for (field, body, status) in cases {
        let answer =
            server.ask(format!("POST /x.cgi HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n{body}"));
        assert_eq!(answer.status, status, "{field} {body}");
        assert!(status != 200 || answer.text() == "0123456789");
    }
    server.stop();
}

#[test]
fn content_waits_in_the_socket_while_the_program_does_not_read() {
    let scratch = Scratch::new();
    shell(&scratch, "x.cgi", &format!("{WAIT}; {HEAD}; cksum"));
    let server = serve(&scratch, &[]);
    let mut client = server.client();
    client.send("POST /x.cgi HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n");
    let body = pattern(251 * 4096);
    let sent = client.send_until_stuck(&body);
    assert!(sent < 25_000_000, "{sent}");
    assert_eq!(get(&server, "/alive").text(), "alive");
    if !is_checked() {
        assert!(memory(&server) < 60_000, "{} KiB", memory(&server));
    }
    scratch.write("go", "");
    let whole: Vec<u8> = body.iter().copied().cycle().take(30_000_000).collect();
    client.send(&whole[sent..]);
    assert_eq!(client.response().text(), cksum(&whole));
    server.stop();
}

/// What of the server is in memory, in KiB.
fn memory(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.program.id()));
    let status = status.expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn output_waits_in_the_pipe_while_the_client_does_not_read_and_ends_with_the_client() {
    let scratch = Scratch::new();
    shell(&scratch, "yes.cgi", &format!("echo $$ >../pid; {HEAD}; exec yes"));
    let mut server = serve(&scratch, &[]);
    let mut client = server.client();
    client.send("GET /yes.cgi HTTP/1.1\r\nHost: a\r\n\r\n");
    client.take_through("y\ny\n");
    let pid = pid(&scratch, "pid");
    until("the program waits for room", || {
        let place = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        place.contains(") S ")
    });
    server.program.wait_until_asleep();
    if !is_checked() {
        assert!(memory(&server) < 60_000, "{} KiB", memory(&server));
    }
    // It flows on when there is room again.
    assert_eq!(client.take(10_000_000).len(), 10_000_000);
    drop(client);
    until("the program is gone", || !exists(pid));
    server.stop();
}

#[test]
fn a_program_that_does_not_want_to_end_is_killed_with_all_that_it_has_started() {
    let scratch = Scratch::new();
    let script = format!(
        "trap '' TERM; sleep 1000 & echo $! >../child; echo $$ >../pid; {HEAD}; \
         while echo x; do sleep 0.01; done; while :; do sleep 0.01; done"
    );
    shell(&scratch, "x.cgi", &script);
    let server = serve(&scratch, &[]);
    let mut client = server.client();
    client.send("GET /x.cgi HTTP/1.1\r\nHost: a\r\n\r\n");
    let (program, child) = (pid(&scratch, "pid"), pid(&scratch, "child"));
    client.take_through("x\n");
    client.reset();
    until("the program is gone", || !exists(program));
    until("its child is gone", || !is_alive(child));
    server.stop();
}

#[test]
fn a_program_whose_client_has_gone_is_told_before_it_is_killed() {
    let scratch = Scratch::new();
    // A shell that waits runs its trap at once: it has only a second.
    let script = format!(
        "trap 'echo tidied >../end; exit' TERM; echo $$ >../pid; {HEAD}; echo x; sleep 1000 & wait"
    );
    shell(&scratch, "x.cgi", &script);
    let server = serve(&scratch, &[]);
    let mut client = server.client();
    client.send("GET /x.cgi HTTP/1.1\r\nHost: a\r\n\r\n");
    client.take_through("x\n");
    let program = pid(&scratch, "pid");
    client.reset();
    until("the program is gone", || !exists(program));
    assert_eq!(scratch.read("end"), "tidied\n");
    server.stop();
}

#[test]
fn programs_that_run_on_after_their_answers_are_few_and_say_little() {
    let scratch = Scratch::new();
    shell(&scratch, "talks.cgi", r"echo $$ >../talks; printf 'Content-Length: 1\n\na'; exec yes");
    shell(
        &scratch,
        "lives.cgi",
        &format!("echo $$ >../lives$QUERY_STRING; {HEAD}; exec sleep 1000"),
    );
    let server = serve(&scratch, &["cgi_timeout_ms=0"]);
    assert_eq!(get(&server, "/talks.cgi").text(), "a");
    let talks = pid(&scratch, "talks");
    until("it is not listened to for ever", || !exists(talks));
    let mut client = server.client();
    for number in 0..24 {
        client.send(format!("HEAD /lives.cgi?{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.response_without_body().status, 200);
    }
    let ids: Vec<u32> = (0..24).map(|number| pid(&scratch, &format!("lives{number}"))).collect();
    until("only so many are left", || ids.iter().filter(|id| exists(**id)).count() == 16);
    server.stop();
}

#[test]
fn what_a_program_does_to_its_pipes_harms_nobody() {
    let scratch = Scratch::new();
    shell(&scratch, "ignores.cgi", r"printf 'Content-Length: 5\n\nhello'");
    shell(&scratch, "exits.cgi", "exit 3");
    shell(&scratch, "closes.cgi", &format!("exec <&-; {HEAD}; echo closed"));
    shell(&scratch, "kills.cgi", &format!("{HEAD}; kill -9 $$"));
    let daemon = format!("{HEAD}; sleep 1000 & echo $! >../daemon; echo hello");
    shell(&scratch, "daemon.cgi", &daemon);
    let endless = format!("{HEAD}; yes & echo $! >../endless");
    shell(&scratch, "endless.cgi", &endless);
    shell(&scratch, "later.cgi", &format!("{HEAD}; exec >&-; {WAIT}; echo >../done"));
    shell(&scratch, "stopped.cgi", "echo $$ >../stopped; kill -STOP $$");
    for habit in ["deadly-pipes", "ignored-children", "reaped-children", "blocked-signals", "fork"]
    {
        for file in ["go", "done", "daemon", "stopped", "endless"] {
            let _ = std::fs::remove_file(scratch.join(file));
        }
        let server = serve(&scratch, &[&format!("--habit={habit}")]);
        let post = |file: &str, len: usize| {
            let mut client = server.client();
            let length = format!("Content-Length: {len}");
            client.send(format!("POST /{file}.cgi HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n"));
            client.try_send(pattern(len));
            client.response()
        };
        for len in [1, 300_000] {
            assert_eq!(post("ignores", len).text(), "hello", "{habit} {len}");
            assert_eq!(post("exits", len).status, 502, "{habit} {len}");
            assert_eq!(post("closes", len).text(), "closed\n", "{habit} {len}");
            assert_eq!(post("kills", len).text(), "", "{habit} {len}");
        }
        assert_eq!(get(&server, "/daemon.cgi").text(), "hello\n");
        // Not even for one that writes on and on.
        assert_eq!(get(&server, "/endless.cgi").status, 200);
        let endless = pid(&scratch, "endless");
        until("it has nobody to write to", || !is_alive(endless));
        // An answer is complete when the program says so; it may go on with other things.
        assert_eq!(get(&server, "/later.cgi").text(), "");
        scratch.write("go", "");
        until("the program has done its other things", || scratch.read("done") == "\n");
        let daemon = pid(&scratch, "daemon");
        assert!(is_alive(daemon), "{habit}");
        // The server's end is that of its programs, but not of what they have left behind.
        let mut client = server.client();
        client.send("GET /stopped.cgi HTTP/1.1\r\nHost: a\r\n\r\n");
        let stopped = pid(&scratch, "stopped");
        if habit == "fork" {
            // The parent, which the harness speaks to, has no programs.
            until("the program is stopped", || exists(stopped));
        }
        server.stop();
        // What is killed has not ended at once.
        until("the program is gone", || !is_alive(stopped));
        assert!(is_alive(daemon), "{habit}");
        let daemon = i32::try_from(daemon).ok().and_then(rustix::process::Pid::from_raw);
        let _ =
            rustix::process::kill_process(daemon.expect("an id"), rustix::process::Signal::TERM);
    }
}

#[test]
fn nothing_of_the_program_that_serves_is_inherited() {
    if crate::support::under_qemu("which signals are blocked: it has some of its own") {
        return;
    }
    let scratch = Scratch::new();
    let script = "cat /proc/$$/status | grep -E '^Sig(Blk|Ign)' | cut -f2; \
                  for fd in 3 4 5 6 7 8 9; do test -e /proc/$$/fd/$fd && echo $fd; done; \
                  set -- $(cat /proc/$$/stat); test $5 = $$ && echo own group";
    // The shell itself may hold its script open.
    shell(&scratch, "x.cgi", &format!("{HEAD}; exec sh <<'END'\n{script}\nEND"));
    let habits =
        ["--habit=blocked-signals", "--habit=ignored-children", "--habit=open-descriptors"];
    let server = serve(&scratch, &habits);
    let text = get(&server, "/x.cgi").text();
    let lines: Vec<&str> = text.lines().collect();
    let [blocked, ignored, "own group"] = lines[..] else { panic!("{text}") };
    // 32 and 33 are the C library's own.
    for signals in [blocked, ignored] {
        let signals = u64::from_str_radix(signals, 16).expect("a set of signals");
        assert_eq!(signals & !0x1_8000_0000, 0, "{text}");
    }
    server.stop();
}

#[test]
fn no_zombie_stays() {
    let scratch = Scratch::new();
    shell(&scratch, "x.cgi", &format!("echo $$ >>../pids; {HEAD}; echo ran"));
    for habit in ["deadly-pipes", "ignored-children", "reaped-children"] {
        let _ = std::fs::remove_file(scratch.join("pids"));
        let server = serve(&scratch, &[&format!("--habit={habit}")]);
        let mut clients: Vec<_> = (0..10).map(|_| server.client()).collect();
        for client in &mut clients {
            client.send("GET /x.cgi HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2));
        }
        for client in &mut clients {
            assert_eq!(
                (client.response().text(), client.response().text().as_str()),
                ("ran\n".into(), "ran\n")
            );
        }
        let pids = scratch.read("pids");
        assert_eq!(pids.lines().count(), 20);
        until("all are reaped", || !pids.lines().any(|pid| exists(pid.parse().expect("a number"))));
        server.stop();
    }
}

#[test]
fn a_silent_program_is_not_waited_for_for_ever() {
    let scratch = Scratch::new();
    shell(&scratch, "silent.cgi", "echo $$ >../silent; exec sleep 1000");
    shell(&scratch, "stuck.cgi", &format!("{HEAD}; echo one; echo >>../stuck; exec sleep 1000"));
    shell(
        &scratch,
        "detached.cgi",
        &format!("{HEAD}; exec >&-; echo $$ >../detached; exec sleep 1000"),
    );
    shell(
        &scratch,
        "slow.cgi",
        &format!("echo $$ >../slow; {HEAD}; for i in 1 2 3 4 5 6 7 8; do sleep 0.5; echo $i; done"),
    );
    let limit = as_many_as(3000, 10_000);
    let timeout = format!("cgi_timeout_ms={limit}");
    let mut server = serve(&scratch, &[&timeout]);
    let ask = |target: &str, version: &str| {
        let mut client = server.client();
        client.send(format!("GET /{target}.cgi HTTP/{version}\r\nHost: a\r\n\r\n"));
        client
    };
    let mut clients = ["silent", "stuck", "slow", "detached"].map(|target| ask(target, "1.1"));
    let mut old = ask("stuck", "1.0");
    let ids = ["silent", "slow", "detached"].map(|name| pid(&scratch, name));
    until("the others run, too", || scratch.read("stuck").lines().count() == 2);
    // Waiting for a program is not idling.
    server.tell("io set idle_timeout_ms 1000");
    server.expect_line("set idle_timeout_ms: NULL");
    assert_eq!(clients[0].response().status, 504);
    until("the silent one is gone", || !exists(ids[0]));
    let rest = String::from_utf8_lossy(&clients[1].rest()).into_owned();
    assert!(rest.ends_with("\r\n\r\n4\r\none\n\r\n"), "{rest}");
    // Where the end of the connection is that of the answer, it must not come in order.
    let (rest, was_reset) = old.rest_and_end();
    assert!(rest.ends_with(b"\r\n\r\none\n") && was_reset);
    assert_eq!(clients[2].response().text(), "1\n2\n3\n4\n5\n6\n7\n8\n");
    assert_eq!(clients[3].response().text(), "");
    until("the detached one is gone", || !exists(ids[2]));
    server.tell("io set idle_timeout_ms 60000");
    server.expect_line("set idle_timeout_ms: NULL");
    server.stop();
    let log = scratch.read("error.log");
    assert!(log.contains(&format!("silent.cgi: silent for {limit} ms")), "{log}");
    assert!(log.contains("detached.cgi: runs on after its answer"), "{log}");
}

#[test]
fn a_client_that_is_slow_with_its_body_is_not_the_programs_fault() {
    let scratch = Scratch::new();
    shell(&scratch, "x.cgi", &format!("echo $$ >../pid; {HEAD}; cat"));
    let mut server = serve(&scratch, &["cgi_timeout_ms=50"]);
    let mut client = server.client();
    client.send("POST /x.cgi HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");
    // The request's own timeout ends it. The program had begun to answer: no second answer.
    let program = pid(&scratch, "pid");
    client.take_through("2\r\nab\r\n");
    server.tell("io set request_timeout_ms 1000");
    server.expect_line("set request_timeout_ms: NULL");
    let rest = String::from_utf8_lossy(&client.rest()).into_owned();
    assert_eq!(rest, "");
    until("the program is gone", || !exists(program));
    server.stop();
}

#[test]
fn without_descriptors_there_is_503_and_afterwards_all_is_well() {
    let scratch = Scratch::new();
    shell(&scratch, "x.cgi", &format!("{HEAD}; echo ran"));
    let server = serve(&scratch, &["--descriptors=40"]);
    let mut asking = server.client();
    let mut idle = Vec::new();
    let request = "GET /x.cgi HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut refused = false;
    while !refused {
        let answer = asking.ask(request);
        refused = answer.status == 503;
        assert!(refused || answer.text() == "ran\n", "{}", answer.head);
        let mut client = server.client();
        assert_eq!(client.ask("GET /alive HTTP/1.1\r\nHost: a\r\n\r\n").text(), "alive");
        idle.push(client);
        assert!(idle.len() < 40);
    }
    drop(idle);
    until("programs run again", || asking.ask(request).status == 200);
    drop(asking);
    server.stop();
    assert!(scratch.read("error.log").contains("cannot run"));
}

#[test]
fn one_program_after_another_takes_room_for_one() {
    let scratch = Scratch::new();
    shell(&scratch, "to.cgi", "printf 'Location: /x.cgi\\n\\n'");
    shell(&scratch, "x.cgi", &format!("{HEAD}; echo x"));
    let include = "<!--#include virtual=\"x.cgi\" -->";
    scratch.write("root/page.shtml", include.repeat(3));
    let server = serve(&scratch, &["max_cgi_processes=1", "ssi_pattern=**.shtml$"]);
    for _ in 0..as_many_as(20, 3) {
        assert_eq!(get(&server, "/to.cgi").text(), "x\n");
        assert_eq!(get(&server, "/page.shtml").text(), "x\nx\nx\n");
    }
    server.stop();
}

#[test]
fn beyond_max_cgi_processes_programs_are_put_off_until_one_has_ended() {
    let scratch = Scratch::new();
    shell(&scratch, "wait.cgi", &format!("{HEAD}; echo begun; {WAIT}"));
    shell(&scratch, "x.cgi", &format!("{HEAD}; cat"));
    scratch.write("root/page.shtml", "[<!--#include virtual=\"x.cgi\" -->]");
    let server = serve(&scratch, &["max_cgi_processes=2", "ssi_pattern=**.shtml$"]);
    let mut running = [server.client(), server.client()];
    for client in &mut running {
        client.send("GET /wait.cgi HTTP/1.1\r\nHost: a\r\n\r\n");
        client.take_through("begun");
    }
    let answer = get(&server, "/x.cgi");
    assert_eq!((answer.status, answer.field("Retry-After")), (503, Some("1")));
    // Before it has sent its content for nothing.
    let announced = "Host: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n";
    assert_eq!(server.ask(format!("POST /x.cgi HTTP/1.1\r\n{announced}\r\n")).status, 503);
    assert_eq!(get(&server, "/page.shtml").text(), "[]");
    // Whose content is on its way finds no room any more.
    let mut late = server.client();
    scratch.write("go", "");
    for client in &mut running {
        client.take_through("0\r\n\r\n");
    }
    std::fs::remove_file(scratch.join("go")).expect("removed");
    until("there is room", || get(&server, "/x.cgi").status == 200);
    late.send(format!("POST /x.cgi HTTP/1.1\r\n{announced}\r\n"));
    late.expect("HTTP/1.1 100 Continue\r\n\r\n");
    for client in &mut running {
        until("another runs", || {
            client.send("GET /wait.cgi HTTP/1.1\r\nHost: a\r\n\r\n");
            let head = client.take_through("\r\n\r\n");
            let is_begun = head.starts_with("HTTP/1.1 200");
            client.take_through(if is_begun { "begun" } else { "503 Service Unavailable\n" });
            is_begun
        });
    }
    late.send("abc");
    assert_eq!(late.response().status, 503);
    scratch.write("go", "");
    until("there is room again", || get(&server, "/x.cgi").status == 200);
    server.stop();
    let log = scratch.read("error.log");
    assert!(log.contains("x.cgi: max_cgi_processes are running"), "{log}");
}
