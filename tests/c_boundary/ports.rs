//! Lists of ports, and listening sockets that cannot be served for a moment.

use crate::support::{Client, Program, Scratch, Server, calls_cannot_fail, for_each, request};
use std::net::{TcpListener, TcpStream};

fn set(server: &mut Server, value: &str) -> String {
    server.tell(&format!("io set listening_port {value}"));
    server.program.expect_start("set listening_port: ")
}

fn get(server: &mut Server) -> String {
    server.tell("io get listening_port");
    server.program.expect_start("get listening_port: ")
}

/// The ports of a list as it is shown.
fn ports_of(list: &str) -> Vec<u16> {
    let port = |entry: &str| {
        let digits = entry.rsplit(':').next().unwrap_or_default();
        digits.trim_end_matches(['s', 'r']).parse().unwrap_or_else(|_| panic!("{entry}"))
    };
    list.split(',').map(port).collect()
}

#[track_caller]
fn assert_alive(port: u16) {
    let answer = Client::connect(port).ask("GET /alive HTTP/1.1\r\n\r\n");
    assert_eq!(answer.text(), "alive");
}

fn is_open(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn busy() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

#[test]
fn every_port_of_a_list_is_served_and_shown_in_the_form_that_was_asked_for() {
    let mut server = Server::start(&[]);
    let old = server.port;
    assert_eq!(set(&mut server, " 0, 127.0.0.1:0 ,[::1]:0"), "NULL");
    let shown = get(&mut server);
    let [bare, v4, v6] = ports_of(&shown)[..] else { panic!("{shown}") };
    assert_eq!(shown, format!("{bare},127.0.0.1:{v4},[::1]:{v6}"));
    assert!(!is_open(old));
    for _ in 0..3 {
        assert_alive(bare);
        assert_alive(v4);
        let answer = Client::connect6(v6).ask("GET /alive HTTP/1.1\r\n\r\n");
        assert_eq!(answer.text(), "alive");
    }
    // What is shown may be set, and changes nothing.
    assert_eq!(set(&mut server, &shown), "NULL");
    assert_eq!(get(&mut server), shown);
    assert_eq!(set(&mut server, ""), "NULL");
    assert!(!is_open(bare) && !is_open(v4));
    server.program.stop();
}

#[test]
fn a_list_is_taken_whole_or_not_at_all() {
    let scratch = Scratch::new();
    let log = format!("error_log_file={}", scratch.join("log"));
    let mut server = Server::start(&[&log]);
    assert_eq!(set(&mut server, "127.0.0.1:0,127.0.0.1:0"), "NULL");
    let before = get(&mut server);
    let [first, second] = ports_of(&before)[..] else { panic!("{before}") };
    let (listener, busy) = busy();
    let long = (1..=70).map(|port| port.to_string()).collect::<Vec<_>>().join(",");
    let (bad, bind) = ("Invalid listening port", "Cannot bind to port");
    let cases = [
        (format!("127.0.0.1:0,{busy}"), bind, format!("cannot bind to {busy}: Address already")),
        // The own old socket is in the way of the first entry: closed, and opened again.
        (format!("{first},{busy}"), bind, format!("cannot bind to {busy}: Address already")),
        (format!("{busy},{first}"), bind, format!("cannot bind to {busy}: Address already")),
        (format!("{first},127.0.0.1:{first}"), bind, format!("cannot bind to 0.0.0.0:{first}")),
        ("127.0.0.1:0,".to_owned(), bad, ": : Invalid".to_owned()),
        (",127.0.0.1:0".to_owned(), bad, ": : Invalid".to_owned()),
        ("127.0.0.1:0,http,x".to_owned(), bad, ": http: Invalid".to_owned()),
        ("127.0.0.1:0,70000".to_owned(), bad, ": 70000: Invalid".to_owned()),
        ("80,81,0.0.0.0:80".to_owned(), bad, ": 0.0.0.0:80: Invalid".to_owned()),
        (long, bad, ": 65: Invalid".to_owned()),
    ];
    for (value, sentence, logged) in cases {
        let told = set(&mut server, &value);
        assert!(told.starts_with(sentence), "{value}: {told}");
        assert_eq!(get(&mut server), before, "{value}");
        let log = scratch.read("log");
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains(&logged), "{value}: {log}");
        assert!(is_open(first) && is_open(second), "{value}: {log}");
        assert_alive(first);
        assert_alive(second);
    }
    drop(listener);
    // Without the obstacle, a wider address takes the place of the narrow one.
    assert_eq!(set(&mut server, &format!("{first}")), "NULL");
    assert_alive(first);
    assert!(!is_open(second));
    server.port = first;
    server.stop();
}

#[test]
fn a_client_that_waits_at_an_address_that_stays_is_not_lost() {
    let mut server = Server::start(&["--step"]);
    let kept = server.port;
    let (listener, busy) = busy();
    let mut client = Client::connect(kept);
    client.send_through("GET /alive HTTP/1.1\r\n\r\n");
    for list in [
        format!("127.0.0.1:0,127.0.0.1:{kept}"),
        format!("127.0.0.1:{kept},{busy}"),
        format!("127.0.0.1:{kept}"),
    ] {
        server.tell(&format!("set listening_port {list}"));
        server.program.expect_start("set listening_port: ");
    }
    drop(listener);
    server.tell("run");
    assert_eq!(client.response().text(), "alive");
    server.stop();
}

#[test]
fn a_list_may_be_set_by_a_handler_and_by_another_thread() {
    let mut server = Server::start(&[]);
    let steps = ["set listening_port 127.0.0.1:0,127.0.0.1:0", "get listening_port", "data x"];
    assert_eq!(server.ask(request("GET", "1.1", &steps)).text(), "x");
    server.expect_line("set listening_port: NULL");
    let shown = server.program.expect_start("get listening_port: ");
    for port in ports_of(&shown) {
        assert_alive(port);
    }
    // These lines are carried out by a thread that does not poll.
    server.tell(&format!("set listening_port {shown},127.0.0.1:0"));
    server.expect_line("set listening_port: NULL");
    server.tell("get listening_port");
    let wider = server.program.expect_start("get listening_port: ");
    assert!(wider.starts_with(&format!("{shown},")), "{wider}");
    for port in ports_of(&wider) {
        assert_alive(port);
    }
    server.tell("listener_port");
    server.expect_line(&format!("listener_port {}", ports_of(&wider)[0]));
    server.port = ports_of(&wider)[2];
    server.stop();
}

#[test]
fn busy_ports_do_not_keep_a_quiet_one_from_its_clients() {
    let mut server = Server::start(&["--step"]);
    server.tell("set listening_port 127.0.0.1:0,127.0.0.1:0");
    server.expect_line("set listening_port: NULL");
    server.tell("get listening_port");
    let shown = server.program.expect_start("get listening_port: ");
    let [busy, quiet] = ports_of(&shown)[..] else { panic!("{shown}") };
    // More than are accepted in these turns, of which each accepts 128 at most, and one on a slow machine.
    let crowd: Vec<_> = (0..1_100).map(|_| Client::connect(busy)).collect();
    let mut client = Client::connect(quiet);
    client.send_through("GET /alive HTTP/1.1\r\n\r\n");
    server.poll(8);
    assert_eq!(client.response().text(), "alive");
    drop(crowd);
    server.tell("run");
    server.port = quiet;
    server.stop();
}

#[test]
fn forked_workers_serve_every_port() {
    for how in ["workers", "daemon"] {
        let mut program = Program::start("fork.c", &[how, "", "", "127.0.0.1:0,127.0.0.1:0"]);
        let ports = ports_of(&program.expect_start("PORTS "));
        for port in ports {
            for _ in 0..10 {
                let answer = Client::connect(port).ask("GET /pid HTTP/1.1\r\n\r\n").text();
                assert_ne!(answer, program.id().to_string());
            }
        }
        program.stop();
    }
}

/// System calls that fail for a while, at the start, and nothing tells when they succeed again.
const FAULTS: &[&str] = &[
    "inject=accept4:error=ENOMEM:when=1..3",
    "inject=accept4:error=ENOBUFS:when=1..3",
    "inject=accept4:error=EPERM:when=1..3",
    "inject=accept4:error=EIO:when=1..3",
    "inject=accept4:error=ENETDOWN:when=1..3",
    "inject=accept4:error=ENFILE:when=1..4",
    // The first registration is that of the waker.
    "inject=epoll_ctl:error=ENOMEM:when=2..4",
    "inject=epoll_ctl:error=ENOSPC:when=2..4",
    "inject=epoll_create1:error=EMFILE:when=1..2",
];

#[test]
fn what_fails_for_a_while_is_tried_again_although_no_event_says_so() {
    needs!("strace");
    if calls_cannot_fail() {
        return;
    }
    for_each(
        FAULTS,
        |fault| fault.to_string(),
        |fault| {
            let server = Server::start_failing(&["-e", fault], &[]);
            // Nobody else connects, and nobody leaves.
            assert_alive(server.port);
            server.program.stop();
        },
    );
}
