//! What is shared, where, and what is not done unasked.

use std::net::{TcpListener, TcpStream};

use crate::scratch::Scratch;
use crate::support::{Running, command, request, run, status, until};

#[test]
fn the_current_directory_is_shared_at_the_next_free_port_and_that_is_told_at_once() {
    let folder = Scratch::new();
    folder.write("a.txt", "hello").write("sub/b.txt", "");
    // Either this test has the port, or something else does.
    let _held = TcpListener::bind("[::]:8080").or_else(|_| TcpListener::bind("0.0.0.0:8080")).ok();
    let mut first = Running::spawn(command(&[]), &folder, "");
    let second = Running::spawn(command(&["."]), &folder, "");
    assert!(first.url.starts_with("http://127.0.0.1:"), "{}", first.url);
    assert!((8081..8180).contains(&first.port()) && (8081..8180).contains(&second.port()));
    assert_ne!(first.port(), second.port());
    for running in [&first, &second] {
        assert!(running.get("/a.txt").ends_with("\r\n\r\nhello"));
        let listing = running.get("/");
        assert!(listing.contains("a.txt") && listing.contains("sub/"), "{listing}");
    }
    // Nothing can be written, and nobody is told anything else.
    for line in ["PUT /new", "DELETE /a.txt", "MKCOL /new"] {
        assert_eq!(
            status(&request(first.address(), line, "Content-Length: 0\r\n")),
            "401",
            "{line}"
        );
    }
    let port = first.port();
    let (status, rest) = first.stop();
    assert_eq!(status, 0);
    // The addresses in the networks of this machine.
    for line in rest.lines() {
        let address = line.strip_prefix("http://").and_then(|line| line.strip_suffix('/'));
        let address: std::net::SocketAddr = address.expect("a URL").parse().expect("an address");
        assert!(address.port() == port && !address.ip().is_loopback(), "{line}");
    }
    assert_eq!(first.errors(), "");
}

#[test]
fn another_directory_is_shared_by_its_name_at_all_addresses_that_are_told() {
    let folder = Scratch::new();
    folder.write("other dir/a.txt", "hello").write("b.txt", "");
    let mut running =
        Running::spawn(command(&["other dir", "--listening_port=[::]:0"]), &folder, "");
    assert!(running.get("/a.txt").ends_with("hello"));
    assert_eq!(status(&running.get("/b.txt")), "404");
    running.signal(libc::SIGTERM);
    let (_, rest) = running.end();
    let running = Running::spawn(command(&["other dir", "-listening_port", "[::]:0"]), &folder, "");
    for line in rest.lines() {
        let host = line.strip_prefix("http://").and_then(|line| line.rsplit_once(':'));
        let address = format!("{}:{}", host.expect("a URL").0, running.port());
        assert_eq!(status(&request(&address, "GET /a.txt", "")), "200", "{address}");
    }
}

#[test]
fn programs_are_neither_run_nor_shown_unless_that_is_said() {
    let folder = Scratch::new();
    let script = "#!/bin/sh\necho Content-Type: text/plain; echo; echo it ran\n";
    folder.write_program("run.cgi", script).write_program("sub/index.cgi", script);
    let running = Running::start(&[], &folder);
    assert_eq!(status(&running.get("/run.cgi")), "403");
    assert!(running.get("/sub/").contains("index.cgi"), "the directory is listed");
    let running = Running::start(&["--cgi_pattern="], &folder);
    assert_eq!(status(&running.get("/run.cgi")), "403", "an empty value sets nothing");
    for arguments in [&["--cgi"][..], &["--cgi=yes"], &["--cgi_pattern", "**.cgi$"]] {
        let running = Running::start(arguments, &folder);
        assert!(running.get("/run.cgi").contains("it ran"), "{arguments:?}");
    }
}

#[test]
fn a_file_of_options_is_read_where_it_is_named_and_the_command_line_wins() {
    let folder = Scratch::new();
    folder.write("share/a.txt", "hello").write("share/mongoose.conf", "no such option\n");
    folder.write(
        "my.conf",
        "# what is shared\ndocument_root share\n\nextra_headers X-From: file # all of it\n\
         enable_directory_listing no\ngrace 1\nlistening_port 127.0.0.1:0\n",
    );
    let arguments = ["--config", "my.conf", "--enable_directory_listing", "yes"];
    let running = Running::spawn(command(&arguments), &folder, "");
    let answer = running.get("/");
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("\r\nX-From: file # all of it\r\n"), "{answer}");
    // One that lies in the shared directory is a file like others.
    let running = Running::start(&["share"], &folder);
    assert!(running.get("/mongoose.conf").ends_with("no such option\n"));
}

#[test]
fn every_option_is_told_with_its_default_and_a_line() {
    let folder = Scratch::new();
    let (status, help, errors) = run(&["--help"], &folder, "");
    assert_eq!((status, errors.as_str()), (Some(0), ""));
    for ((name, default), about) in mongoose::options::OPTIONS.iter().zip(mongoose::options::ABOUT)
    {
        let name = name.to_str().expect("text");
        let start = format!("\n  --{name} VALUE");
        let (_, rest) = help.split_once(&start).unwrap_or_else(|| panic!("{name}"));
        let (default_told, rest) = rest.split_once('\n').expect("a line");
        assert_eq!(rest.lines().next(), Some(format!("      {}", about.trim()).as_str()), "{name}");
        let is_own = ["cgi_pattern", "document_root", "index_files", "listening_port"];
        if !is_own.contains(&name) {
            let default = default.map(|default| format!(" [{}]", default.to_str().expect("text")));
            assert_eq!(default_told, default.unwrap_or_default(), "{name}");
        }
    }
    let (status, version, _) = run(&["--version"], &folder, "");
    assert_eq!((status, version), (Some(0), format!("mongoose {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn quiet_prints_nothing_and_an_access_log_has_its_lines() {
    let folder = Scratch::new();
    folder.write("share/a.txt", "hello");
    let socket = folder.join("run.sock");
    let log = folder.join("access.log");
    let listening = format!("unix:{socket}:0600");
    let arguments = ["share", "-q", "--listening_port", &listening, "--access_log_file", &log];
    let mut child = command(&arguments)
        .current_dir(folder.join(""))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("started");
    until("it listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    use std::io::{Read as _, Write as _};
    let mut client = std::os::unix::net::UnixStream::connect(&socket).expect("connected");
    client.write_all(b"GET /a.txt HTTP/1.0\r\n\r\n").expect("sent");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with("hello"));
    // SAFETY: the process has not been waited for.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) };
    let mut told = String::new();
    child.stdout.take().expect("its output").read_to_string(&mut told).expect("read");
    assert_eq!((child.wait().expect("its end").code(), told.as_str()), (Some(0), ""));
    assert!(folder.read("access.log").contains("\"GET /a.txt HTTP/1.0\" 200 5"));
    assert!(!std::path::Path::new(&socket).exists(), "the socket is removed");
}

#[test]
fn what_fails_while_it_serves_is_told_on_standard_error() {
    let folder = Scratch::new();
    folder.write("a.txt", "hello");
    let running = Running::start(&["--tls", "self-signed"], &folder);
    let mut stream = TcpStream::connect(running.address()).expect("connected");
    std::io::Write::write_all(&mut stream, b"\x16\x03\x01\x00\x05hello").expect("sent");
    until("a line", || running.errors().contains("TLS"));
}
