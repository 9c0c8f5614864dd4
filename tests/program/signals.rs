//! SIGINT and SIGTERM end after running transfers, SIGHUP reads and opens files anew.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::scratch::Scratch;
use crate::support::{Running, connect, output, until};

/// More than sockets of this machine take at once.
const LONG: usize = 48 << 20;

/// A client that has the beginning of a long answer, and does not read on.
fn begun(running: &Running) -> (TcpStream, Vec<u8>) {
    let mut stream = connect(running.address());
    stream.write_all(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut start = vec![0; 1024];
    stream.read_exact(&mut start).expect("a beginning");
    (stream, start)
}

fn long_file(folder: &Scratch) {
    let file = std::fs::File::create(folder.join("long")).expect("a file");
    file.set_len(LONG as u64).expect("a length");
}

fn is_closed(running: &Running) -> bool {
    TcpStream::connect(running.address()).is_err()
}

#[test]
fn a_running_transfer_is_completed_before_the_end_and_nobody_else_gets_in() {
    let folder = Scratch::new();
    long_file(&folder);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut running = Running::start(&["--grace", "600"], &folder);
        // This one stays open and asks for nothing more: it does not hold up the end.
        let mut idle = connect(running.address());
        idle.write_all(b"HEAD /long HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        assert!(idle.read(&mut [0; 4096]).expect("a head") > 0);
        let silent = connect(running.address());
        let (mut stream, start) = begun(&running);
        running.signal(signal);
        until("it listens no more", || is_closed(&running));
        assert_eq!(idle.read(&mut [0; 16]).expect("an end"), 0);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the rest");
        let head = start.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        assert_eq!(start.len() - head + rest.len(), LONG);
        let (status, _) = running.end();
        assert_eq!((status, running.errors().as_str()), (0, ""));
        drop(silent);
    }
}

#[test]
fn who_does_not_read_is_waited_for_as_long_as_it_was_said() {
    let folder = Scratch::new();
    long_file(&folder);
    for grace in ["0", "1"] {
        let mut running = Running::start(&["--grace", grace], &folder);
        let (mut stream, _) = begun(&running);
        assert_eq!(running.stop().0, 0);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < LONG - 1024);
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let folder = Scratch::new();
    long_file(&folder);
    let mut running = Running::start(&["--grace", "86400"], &folder);
    let (_stream, _) = begun(&running);
    running.signal(libc::SIGTERM);
    until("it listens no more", || is_closed(&running));
    assert_eq!(running.stop().0, 0);
}

/// A logger may be restarting when it is told to reload.
#[test]
fn a_log_without_a_reader_holds_nothing_up() {
    let folder = Scratch::new();
    folder.write("share/a.txt", "hello");
    let fifo = std::ffi::CString::new(folder.join("fifo")).expect("a path");
    // SAFETY: the path is a string.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    let mut running = Running::start(&["share", "--access_log_file", "fifo"], &folder);
    running.signal(libc::SIGHUP);
    until("the reason", || running.errors().contains("the old file goes on"));
    assert!(running.get("/a.txt").ends_with("hello"));
    assert_eq!(running.stop().0, 0);
}

#[test]
fn logs_are_opened_anew() {
    let folder = Scratch::new();
    folder.write("share/a.txt", "hello");
    let arguments = ["share", "--access_log_file", "access.log", "--error_log_file", "error.log"];
    let mut running = Running::start(&arguments, &folder);
    running.get("/a.txt?first");
    until("a line", || folder.read("access.log").contains("first"));
    std::fs::rename(folder.join("access.log"), folder.join("old.log")).expect("renamed");
    running.signal(libc::SIGHUP);
    until("a new log", || std::path::Path::new(&folder.join("access.log")).exists());
    running.get("/a.txt?second");
    assert_eq!(running.stop().0, 0);
    assert!(folder.read("access.log").contains("second"));
    assert!(!folder.read("old.log").contains("second"));
    assert_eq!(running.errors(), "");
}

#[test]
fn certificates_are_read_anew_and_one_that_is_refused_changes_nothing() {
    needs!("openssl");
    let folder = Scratch::new();
    folder.write("share/a.txt", "hello");
    let make = |name: &str| {
        let (key, certificate) = (folder.join("key"), folder.join("certificate"));
        let subject = format!("/CN={name}");
        output(crate::outside("openssl").args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &certificate,
            "-subj",
            &subject,
            "-days",
            "2",
        ]));
        folder.write("both.pem", folder.read("key") + &folder.read("certificate"));
    };
    make("first");
    let running = Running::start(&["share", "--tls", "both.pem"], &folder);
    let subject = || {
        let address = running.address();
        let script = format!(
            "openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -subject"
        );
        let mut shell = std::process::Command::new("sh");
        String::from_utf8_lossy(&shell.args(["-c", &script]).output().expect("sh").stdout)
            .into_owned()
    };
    assert!(running.url.starts_with("https://") && subject().contains("first"));
    make("second");
    running.signal(libc::SIGHUP);
    until("the new one", || subject().contains("second"));
    folder.write("both.pem", "nothing");
    running.signal(libc::SIGHUP);
    let sentence = "--tls: The certificate file is not in PEM format; the old one goes on";
    until("a sentence", || running.errors().contains(sentence));
    assert!(subject().contains("second"));
}
