//! Unix domain sockets: their names and modes, and what is served over them.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::support::{
    Client, Scratch, Server, Websocket, calls_cannot_fail, for_each, handshake, outside, request,
};

fn set(server: &mut Server, value: &str) -> String {
    server.tell(&format!("io set listening_port {value}"));
    server.program.expect_start("set listening_port: ")
}

fn get(server: &mut Server) -> String {
    server.tell("io get listening_port");
    server.program.expect_start("get listening_port: ")
}

#[track_caller]
fn assert_alive(name: &str) {
    let answer = Client::connect_local(name).ask("GET /alive HTTP/1.1\r\n\r\n");
    assert_eq!(answer.text(), "alive", "{name}");
}

fn mode_of(path: &str) -> u32 {
    std::fs::metadata(path).expect("a socket").permissions().mode() & 0o7777
}

/// The names in a folder: no lock, no temporary name is left.
fn names(scratch: &Scratch) -> Vec<String> {
    let entries = std::fs::read_dir(scratch.join("")).expect("a folder");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("an entry").file_name().into_string().expect("UTF-8")
    };
    let mut names: Vec<_> = entries.map(name).collect();
    names.sort();
    names
}

#[test]
#[cfg_attr(not(feature = "cgi"), ignore = "built without CGI")]
fn requests_websockets_files_and_programs_go_over_a_unix_socket() {
    let scratch = Scratch::new();
    let large: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    scratch.write("root/large.bin", &large).write("root/a.txt", "content");
    scratch.write_program(
        "root/env.cgi",
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\n\
         echo \"$REMOTE_ADDR $REMOTE_PORT $SERVER_PORT\"\n",
    );
    let (path, log) = (scratch.join("run.sock"), scratch.join("log"));
    let mut server = Server::start_local(&[
        &format!("listening_port=unix:{path}"),
        &format!("document_root={}", scratch.join("root")),
        &format!("access_log_file={log}"),
        &format!("error_log_file={}", scratch.join("errors")),
        // This list is about addresses of the Internet.
        "access_control_list=-0.0.0.0/0,-::/0",
    ]);
    assert_eq!(get(&mut server), format!("unix:{path}"));
    let mut client = Client::connect_local(&path);
    assert_eq!(client.ask("GET /peer HTTP/1.1\r\n\r\n").text(), "unix: 0");
    assert_eq!(client.ask("GET /a.txt HTTP/1.1\r\n\r\n").text(), "content");
    assert!(client.ask("GET /large.bin HTTP/1.1\r\n\r\n").body == large);
    assert_eq!(client.ask("GET /env.cgi HTTP/1.1\r\n\r\n").text(), "unix: 0 0\n");
    let body = "b".repeat(100_000);
    let post = format!("POST /echo HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert!(client.ask(post).text().ends_with(&body));
    client.send("nonsense\r\n\r\n").rest_or_reset();
    server.tell("io unlisten");
    server.program.stop();
    let log = scratch.read("log");
    assert!(log.starts_with("unix: - - ["), "{log}");
    assert!(log.contains("\"GET /a.txt HTTP/1.1\" 200 7 "), "{log}");
}

#[test]
fn a_websocket_is_opened_over_a_unix_socket() {
    let scratch = Scratch::new();
    let path = scratch.join("ws.sock");
    let mut server =
        Server::start_local(&[&format!("listening_port=unix:{path}"), "--handler=/ws=echo"]);
    server.tell("io get listening_port");
    server.expect_line(&format!("get listening_port: unix:{path}"));
    let mut client = Client::connect_local(&path);
    client.send(handshake("/ws", ""));
    let mut websocket = Websocket::begin(client);
    websocket.frame(0x89, "ping");
    websocket.expect(0x8a, "ping");
    drop(websocket);
    server.program.stop();
}

#[test]
fn curl_speaks_to_a_unix_socket() {
    needs!("curl");
    let scratch = Scratch::new();
    let path = scratch.join("run.sock");
    let server = Server::start(&[&format!("listening_port=unix:{path},127.0.0.1:0")]);
    let output = outside("curl")
        .args(["-sS", "--unix-socket", &path, "http://localhost/alive"])
        .output()
        .expect("curl");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "alive");
    server.stop();
    assert_eq!(names(&scratch), [""; 0]);
}

#[test]
fn a_name_may_be_abstract() {
    let name = format!("@mongoose-test-{}", std::process::id());
    for list in [format!("unix:{name}"), format!("unix:{name}:0600")] {
        let mut server = Server::start_local(&[&format!("listening_port={list}")]);
        assert_eq!(get(&mut server), list);
        assert_alive(&name);
        assert_eq!(set(&mut server, &list), "NULL", "in use by the server itself");
        let mut second = Server::start(&[]);
        assert_eq!(set(&mut second, &list), "Cannot bind to port");
        second.stop();
        server.program.stop();
    }
}

#[test]
fn a_socket_has_its_mode_whatever_the_umask_of_the_program_is() {
    let scratch = Scratch::new();
    let path = scratch.join("run.sock");
    let cases = [("0", 0o660), ("0", 0o600), ("777", 0o660), ("077", 0o666), ("022", 0o777)];
    for_each(
        cases,
        |case| format!("{case:?}"),
        |(umask, mode)| {
            let mut server = Server::start(&["--step"]);
            server.tell(&format!("umask {umask}"));
            server.tell(&format!("set listening_port unix:{path}:{mode:04o}"));
            server.expect_line("set listening_port: NULL");
            assert_eq!(mode_of(&path), *mode);
            // The mode may change while the socket stays.
            let inode = std::fs::metadata(&path).expect("a socket").ino();
            server.tell(&format!("set listening_port unix:{path}:0640"));
            server.expect_line("set listening_port: NULL");
            assert_eq!(mode_of(&path), 0o640);
            assert_eq!(std::fs::metadata(&path).expect("a socket").ino(), inode);
            server.tell("umask 022");
            server.program.stop();
            assert!(!Path::new(&path).exists());
        },
    );
}

#[test]
fn a_mode_is_never_wider_than_it_is_asked_for_not_even_for_a_moment() {
    needs!("strace");
    if calls_cannot_fail() {
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.join("run.sock");
    // The mode cannot be changed once the name is there.
    let faults = ["-e", "inject=chmod,fchmodat:error=EIO"];
    let mut server = Server::start_failing(&faults, &["--step"]);
    server.tell("umask 0");
    server.tell(&format!("set listening_port unix:{path}:0600"));
    server.expect_line("set listening_port: NULL");
    assert_eq!(mode_of(&path), 0o600);
    // With bits missing, it is not opened at all.
    server.tell("umask 777");
    server.tell(&format!("set listening_port unix:{path}2:0600"));
    server.expect_line("set listening_port: Cannot bind to port");
    assert_eq!(names(&scratch), ["run.sock"]);
    assert_alive_by_step(&mut server, &path);
    server.program.stop();
}

fn assert_alive_by_step(server: &mut Server, path: &str) {
    server.tell("run");
    assert_alive(path);
}

#[test]
fn what_is_no_socket_and_what_is_in_use_is_not_replaced() {
    let scratch = Scratch::new();
    scratch.write("file", "content").write("folder/inside", "x").write("target", "t");
    symlink(scratch.join("target"), scratch.join("link")).expect("a link");
    let live = UnixListener::bind(scratch.join("live")).expect("a socket");
    let log = format!("error_log_file={}", scratch.join("log"));
    let mut server = Server::start(&[&log]);
    let before = get(&mut server);
    let cases = [
        ("file", "there is a file that is no socket"),
        ("folder", "there is a directory"),
        ("link", "there is a file that is no socket"),
        ("live", "another socket is in use there"),
        ("none/run.sock", "No such file or directory"),
        ("file/run.sock", "Not a directory"),
    ];
    for (name, why) in cases {
        let list = format!("127.0.0.1:0,unix:{}:0600", scratch.join(name));
        assert_eq!(set(&mut server, &list), "Cannot bind to port", "{name}");
        let log = scratch.read("log");
        let last = log.lines().last().unwrap_or_default();
        let begin = format!("listening_port: cannot bind to unix:{}: ", scratch.join(name));
        assert!(last.contains(&begin) && last.contains(why), "{name}: {last}");
        assert_eq!(get(&mut server), before);
    }
    assert_eq!(scratch.read("file"), "content");
    assert_eq!(scratch.read("target"), "t");
    assert!(std::os::unix::net::UnixStream::connect(scratch.join("live")).is_ok());
    let long = format!("unix:{}", "x".repeat(108));
    assert!(set(&mut server, &long).starts_with("Invalid listening port: the path of a Unix"));
    drop(live);
    // Nobody listens there any more.
    let list = format!("unix:{}", scratch.join("live"));
    assert_eq!(set(&mut server, &list), "NULL");
    assert_alive(&scratch.join("live"));
    server.program.stop();
    assert_eq!(names(&scratch), ["file", "folder", "link", "log", "target"]);
}

#[test]
fn a_socket_of_a_killed_server_is_replaced_and_that_of_a_live_one_is_not() {
    let scratch = Scratch::new();
    let path = scratch.join("run.sock");
    let option = format!("listening_port=unix:{path}");
    Server::start_local(&[&option]).program.kill();
    assert!(Path::new(&path).exists());
    let first = Server::start_local(&[&option]);
    let mut second = Server::start(&[]);
    assert_eq!(set(&mut second, &format!("unix:{path}")), "Cannot bind to port");
    assert_alive(&path);
    first.program.stop();
    assert_eq!(set(&mut second, &format!("unix:{path}")), "NULL");
    assert_alive(&path);
    second.program.stop();
    assert_eq!(names(&scratch), [""; 0]);
}

#[test]
fn a_server_that_waits_for_the_lock_gives_up_and_one_that_gets_it_goes_on() {
    let scratch = Scratch::new();
    let path = scratch.join("run.sock");
    let log = format!("error_log_file={}", scratch.join("log"));
    let mut server = Server::start(&[&log]);
    scratch.write("run.sock.lock", "");
    let lock = std::fs::File::open(scratch.join("run.sock.lock")).expect("a file");
    lock.lock().expect("a lock");
    assert_eq!(set(&mut server, &format!("unix:{path}")), "Cannot bind to port");
    assert!(scratch.read("log").contains("cannot lock "), "{}", scratch.read("log"));
    drop(lock);
    assert_eq!(set(&mut server, &format!("unix:{path}")), "NULL");
    assert_eq!(names(&scratch), ["log", "run.sock"]);
    // A file of somebody else that has this name stays.
    scratch.write("run.sock.lock", "precious");
    assert_eq!(set(&mut server, "127.0.0.1:0"), "NULL");
    assert_eq!(names(&scratch), ["log", "run.sock.lock"]);
    assert_eq!(scratch.read("run.sock.lock"), "precious");
    server.program.stop();
}

#[test]
fn only_the_process_that_bound_a_socket_removes_it_and_only_its_own() {
    let scratch = Scratch::new();
    let path = scratch.join("run.sock");
    let list = format!("unix:{path}");
    let mut server = Server::start_local(&[&format!("listening_port={list}")]);
    for how in ["destroys", "exits"] {
        server.tell(&format!("io child {how}"));
        server.expect_line("child ended with 0");
        assert_alive(&path);
    }
    // Another one has taken the place.
    std::fs::remove_file(&path).expect("removed");
    let other = UnixListener::bind(&path).expect("bound");
    assert_eq!(set(&mut server, "127.0.0.1:0"), "NULL");
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
    drop(other);
    // The same again, and the name is gone: the entry is bound anew.
    assert_eq!(set(&mut server, &list), "NULL");
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(set(&mut server, &list), "NULL");
    assert_alive(&path);
    server.program.stop();
    assert_eq!(names(&scratch), [""; 0]);
}

#[test]
fn a_relative_name_is_removed_where_it_was_made() {
    let scratch = Scratch::new();
    scratch.write("elsewhere/run.sock", "a file");
    let mut server = Server::start(&["--step"]);
    server.tell(&format!("go {}", scratch.join("")));
    server.tell("set listening_port unix:run.sock:0600");
    server.expect_line("set listening_port: NULL");
    server.tell("get listening_port");
    server.expect_line("get listening_port: unix:run.sock:0600");
    assert_alive_by_step(&mut server, &scratch.join("run.sock"));
    server.tell(&format!("go {}", scratch.join("elsewhere")));
    server.program.stop();
    assert_eq!(names(&scratch), ["elsewhere"]);
    assert_eq!(scratch.read("elsewhere/run.sock"), "a file");
}

#[test]
fn a_unix_socket_of_the_program_is_taken_over_and_its_name_left_to_the_program() {
    let scratch = Scratch::new();
    let path = scratch.join("own.sock");
    let mut server = Server::start(&[]);
    server.tell(&format!("io adopt {path}"));
    server.expect_line("adopted");
    assert_eq!(get(&mut server), format!("unix:{path}"));
    let mut client = Client::connect_local(&path);
    assert_eq!(client.ask("GET /peer HTTP/1.1\r\n\r\n").text(), "unix: 0");
    assert_eq!(client.ask(request("GET", "1.1", &["listener", "data x"])).text(), "x");
    server.expect_line("listener open");
    server.program.stop();
    assert_eq!(names(&scratch), ["own.sock"]);
}
