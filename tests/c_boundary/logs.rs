//! The logs as files: opened in time and held, never in the way, and honest about what they lack.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use crate::support::{
    Client, Program, Scratch, Server, as_many_as, failures, request, under_valgrind, until,
};

const ALIVE: &str = "GET /alive HTTP/1.1\r\n\r\n";

fn set(server: &mut Server, name: &str, value: &str) -> String {
    server.tell(&format!("io set {name} {value}"));
    server.program.expect_start(&format!("set {name}: "))
}

/// A request whose handler gives cause for a line in the error log.
fn faulty() -> String {
    request("GET", "1.1", &["header A b\\r\\nc", "data x"])
}

fn is_root() -> bool {
    // SAFETY: a plain system call.
    unsafe { libc::geteuid() == 0 }
}

/// A folder with both logs in it, and the options for them.
struct Logs {
    scratch: Scratch,
    options: [String; 2],
}

impl Logs {
    fn new() -> Logs {
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.join("logs")).expect("a folder");
        let options = ["access", "error"]
            .map(|name| format!("{name}_log_file={}", scratch.join(&format!("logs/{name}"))));
        Logs { scratch, options }
    }

    fn start(&self, more: &[&str]) -> Server {
        let options = self.options.each_ref().map(String::as_str);
        Server::start(&[&options, more].concat())
    }

    fn exists(&self, name: &str) -> bool {
        Path::new(&self.scratch.join(&format!("logs/{name}"))).exists()
    }

    fn lines(&self, name: &str) -> Vec<String> {
        self.scratch.read(&format!("logs/{name}")).lines().map(str::to_owned).collect()
    }

    /// From now on nobody but root opens anything here.
    fn lock(&self) {
        let mode = std::fs::Permissions::from_mode(if is_root() { 0o755 } else { 0o555 });
        std::fs::set_permissions(self.scratch.join("logs"), mode).expect("rights");
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let mode = std::fs::Permissions::from_mode(0o755);
        let _ = std::fs::set_permissions(self.scratch.join("logs"), mode);
    }
}

#[test]
fn logs_are_opened_when_they_are_set_and_outlast_the_right_to_open_them() {
    let logs = Logs::new();
    let user: &[&str] = if is_root() { &["run_as_user=nobody"] } else { &[] };
    let mut server = logs.start(user);
    logs.lock();
    assert!(logs.exists("access") && logs.exists("error"));
    let mut client = server.client();
    assert_eq!(client.ask(faulty()).text(), "x");
    until("both are written", || logs.lines("access").len() + logs.lines("error").len() == 2);
    // Rotated by somebody who may: the old files go on, and that is told once.
    for name in ["access", "error"] {
        let mode = |mode| {
            std::fs::set_permissions(
                logs.scratch.join("logs"),
                std::fs::Permissions::from_mode(mode),
            )
        };
        mode(0o755).expect("rights");
        let [from, to] =
            [name, &format!("{name}.1")].map(|n| logs.scratch.join(&format!("logs/{n}")));
        std::fs::rename(from, to).expect("a rename");
        logs.lock();
    }
    let mut sent = 1;
    let told = |name: &str| {
        let start = format!("] - {name}_log_file: ");
        let lines = logs.lines("error.1");
        lines.iter().filter(|line| line.contains(&start)).cloned().collect::<Vec<_>>()
    };
    until("it is told", || {
        assert_eq!(client.ask(faulty()).text(), "x");
        sent += 1;
        !told("access").is_empty() && !told("error").is_empty()
    });
    let second = set(&mut server, "auth_domain", "x");
    assert_eq!(second, "NULL");
    for name in ["access", "error"] {
        let lines = told(name);
        assert!(lines[0].contains("the old file goes on") && lines[0].contains("ermission denied"));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(!logs.exists(name));
    }
    assert_eq!(client.ask(ALIVE).text(), "alive");
    server.program.stop();
    assert_eq!(logs.lines("access.1").len(), sent + 1);
}

#[test]
fn a_forked_child_that_may_not_open_the_logs_writes_them() {
    let logs = Logs::new();
    let user: &[&str] = if is_root() { &["run_as_user=nobody"] } else { &[] };
    let options = logs.options.each_ref().map(String::as_str);
    // The child polls: the parent only waits for it.
    let args = [&options[..], &["listening_port=127.0.0.1:0"], user, &["--habit=fork"]].concat();
    let mut program = Program::start("server.c", &args);
    let port = program.port();
    logs.lock();
    assert_eq!(Client::connect(port).ask(faulty()).text(), "x");
    program.stop();
    assert_eq!((logs.lines("access").len(), logs.lines("error").len()), (1, 1));
}

#[test]
fn a_daemon_that_closes_all_descriptors_and_leaves_its_folder_keeps_its_logs() {
    let scratch = Scratch::new();
    let mut program = Program::start("daemon_logs.c", &[&scratch.join("")]);
    let mut client = Client::connect(program.port());
    for _ in 0..3 {
        assert_eq!(client.ask(ALIVE).text(), "alive");
    }
    // Rotated: what is opened again is where it was.
    std::fs::rename(scratch.join("access.log"), scratch.join("access.old")).expect("a rename");
    let mut sent = 3;
    until("it is opened anew", || {
        assert_eq!(client.ask(ALIVE).text(), "alive");
        sent += 1;
        Path::new(&scratch.join("access.log")).exists()
    });
    drop(client);
    program.stop();
    assert_eq!(scratch.read("own"), "", "a file of the program's");
    let lines =
        scratch.read("access.old").lines().count() + scratch.read("access.log").lines().count();
    assert_eq!(lines, sent);
    let told = scratch.read("error.log");
    assert!(told.lines().next().is_some_and(|line| line.contains("] 127.0.0.1:")), "{told}");
}

#[test]
fn a_log_that_cannot_be_opened_is_told_of_once_and_tried_again() {
    let scratch = Scratch::new();
    let (access, error) = (scratch.join("later/access"), scratch.join("error"));
    // In either order.
    for first in [true, false] {
        let mut options = [format!("access_log_file={access}"), format!("error_log_file={error}")];
        if !first {
            options.reverse();
        }
        let mut server = Server::start(&options.each_ref().map(String::as_str));
        let mut client = server.client();
        for _ in 0..5 {
            assert_eq!(client.ask(ALIVE).text(), "alive");
        }
        // The fifth line is lost, too.
        server.end_turn();
        let told = scratch.read_when("error", |log| log.lines().count() > 0);
        assert_eq!(told.lines().count(), 1, "{told}");
        let wanted = format!("] - access_log_file: {access}: cannot be opened: ");
        assert!(told.contains(&wanted), "{told}");
        std::fs::create_dir(scratch.join("later")).expect("a folder");
        // Without a request, too.
        until("it is there", || Path::new(&access).exists());
        assert_eq!(client.ask(ALIVE).text(), "alive");
        server.program.stop();
        assert_eq!(scratch.read("later/access").lines().count(), 1);
        let told = scratch.read("error");
        assert_eq!(told.lines().count(), 2, "{told}");
        let wanted = format!("] - access_log_file: {access}: 5 lines were lost\n");
        assert!(told.ends_with(&wanted), "{told}");
        std::fs::remove_dir_all(scratch.join("later")).expect("the folder");
        std::fs::remove_file(&error).expect("the log");
    }
    // The error log tells of itself when it can.
    let options = [format!("error_log_file={access}")];
    let server = Server::start(&options.each_ref().map(String::as_str));
    for _ in 0..3 {
        assert_eq!(server.ask(faulty()).text(), "x");
    }
    std::fs::create_dir(scratch.join("later")).expect("a folder");
    let told = scratch.read_when("later/access", |log| log.contains("error_log_file"));
    assert!(told.ends_with(": 3 lines were lost\n") && told.lines().count() == 1, "{told}");
    server.stop();
}

fn make_fifo(path: &str) {
    let name = std::ffi::CString::new(path).expect("a path");
    // SAFETY: `name` is a C string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o666) }, 0);
}

#[test]
fn a_fifo_without_or_with_a_slow_reader_holds_nothing_up_and_gets_whole_lines() {
    let scratch = Scratch::new();
    let (fifo, error) = (scratch.join("fifo"), scratch.join("error"));
    make_fifo(&fifo);
    let options = [format!("access_log_file={fifo}"), format!("error_log_file={error}")];
    let server = Server::start(&options.each_ref().map(String::as_str));
    let mut client = server.client();
    let mut sent = 0;
    let mut ask = |target: &str| {
        let answer = client.ask(format!("GET /alive?{target} HTTP/1.1\r\n\r\n"));
        assert_eq!(answer.text(), "alive");
        sent += 1;
    };
    ask("nobody");
    let told = scratch.read_when("error", |log| log.lines().count() > 0);
    assert!(told.lines().count() == 1 && told.contains("cannot be opened"), "{told}");
    let nonblocking = libc::O_NONBLOCK;
    let open = || OpenOptions::new().read(true).custom_flags(nonblocking).open(&fifo);
    let mut reader = open().expect("a reader");
    let mut text = String::new();
    let mut read = |text: &mut String| {
        let mut buf = [0; 65536];
        while let Ok(count @ 1..) = reader.read(&mut buf) {
            text.push_str(std::str::from_utf8(&buf[..count]).expect("text"));
        }
    };
    until("the reader is found", || {
        ask("somebody");
        read(&mut text);
        !text.is_empty()
    });
    // It does not read for a while. Lines of all lengths, also longer than what a pipe takes whole.
    for number in 0..as_many_as(300, 100) {
        ask(&"x".repeat([10, 1000, 4000, 9000][number % 4]));
    }
    let lost = || -> usize {
        let told = scratch.read("error");
        let counts = told.lines().filter_map(|line| {
            let count = line.strip_suffix(" lines were lost")?;
            count.rsplit(' ').next()?.parse::<usize>().ok()
        });
        counts.sum()
    };
    let before = lost();
    until("it takes lines again, and the losses are told", || {
        read(&mut text);
        ask("again");
        lost() > before
    });
    server.program.stop();
    read(&mut text);
    let is_line = |line: &str| line.starts_with("127.0.0.1 ") && line.ends_with(" \"-\" \"-\"");
    assert!(text.ends_with('\n') && text.lines().all(is_line));
    assert_eq!(text.lines().count() + lost(), sent);
    let told = scratch.read("error");
    assert!(told.lines().count() < 12, "{told}");
}

#[test]
fn a_program_to_which_a_broken_pipe_is_deadly_survives_a_reader_that_leaves() {
    let scratch = Scratch::new();
    let fifo = scratch.join("fifo");
    make_fifo(&fifo);
    let open = || OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo);
    let mut reader = open().expect("a reader");
    let server = Server::start(&[&format!("access_log_file={fifo}"), "--habit=deadly-pipes"]);
    assert_eq!(server.ask(ALIVE).text(), "alive");
    // A reader that leaves between the look at the pipe and the write would be deadly all the same.
    until("the line is written", || reader.read(&mut [0; 256]).is_ok_and(|count| count > 0));
    drop(reader);
    for _ in 0..3 {
        assert_eq!(server.ask(ALIVE).text(), "alive");
    }
    server.stop();
}

#[test]
fn a_failure_that_comes_again_and_again_is_counted() {
    let scratch = Scratch::new();
    let server = Server::start(&[&format!("error_log_file={}", scratch.join("error"))]);
    let mut client = server.client();
    let count = 200;
    client.send(faulty().repeat(count));
    for _ in 0..count {
        assert_eq!(client.response().text(), "x");
    }
    // Another one has its own lines.
    let raw = "write HTTP/1.1 200 OK\\r\\nContent-Length: 1\\r\\n\\r\\nx";
    client.ask(request("GET", "1.1", &[raw, "data too late"]));
    server.stop();
    let log = scratch.read("error");
    let what = log.lines().next().and_then(|line| line.split_once("] ")).expect("a line").1;
    let what = what.split_once(' ').expect("a peer").1;
    let (lines, failed) = failures(&log, what);
    assert_eq!(failed, count, "{log}");
    assert!(lines <= 60, "{lines} lines for {count} failures");
    assert_eq!(log.lines().count(), lines + 1, "{log}");
}

#[test]
fn clients_that_are_turned_away_for_want_of_descriptors_are_counted_once_each() {
    let logs = Logs::new();
    let server = logs.start(&["--descriptors=24"]);
    let mut held = Vec::new();
    let mut turned_away = 0;
    for _ in 0..100 {
        let mut client = server.client();
        client.try_send(ALIVE);
        match client.take(1).is_empty() {
            false => held.push(client),
            true => turned_away += 1,
        }
    }
    assert!(turned_away > 50 && held.len() > 5, "{turned_away} of 100");
    drop(held);
    until("there is room again", || {
        let mut client = server.client();
        client.try_send(ALIVE);
        let is_served = !client.take(1).is_empty();
        turned_away += usize::from(!is_served);
        is_served
    });
    server.stop();
    let log = logs.scratch.read("logs/error");
    let (lines, count) = failures(&log, "out of file descriptors: a client is turned away");
    // Valgrind takes the client itself that it has no descriptor for, and closes it.
    assert!(if under_valgrind() { count > 0 } else { count == turned_away }, "{log}");
    assert!(lines < turned_away, "{log}");
    assert_eq!(log.lines().count(), lines, "{log}");
    // The log of requests was open already.
    assert!(logs.lines("access").len() > 6);
}
