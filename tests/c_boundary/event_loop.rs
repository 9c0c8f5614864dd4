//! The loop among C programs that re-enter it, throw through it, fork around it and end it.

use crate::support::{
    Client, Link, Program, Scratch, Server, as_many_as, compile_program, exchange, request,
    under_valgrind,
};
use std::collections::BTreeSet;
use std::net::TcpStream;

fn get(port: u16, target: &str) -> String {
    Client::connect(port).ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).text()
}

#[test]
fn a_handler_may_call_every_function_of_the_library() {
    let mut program = Program::start("reentrant.c", &[]);
    let port = program.port();
    let mut client = Client::connect(port);
    let everything = "GET /everything?v=1 HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(client.ask(everything).text(), "everything");
    let moved = program.expect_start("MOVED ").parse().expect("a port");
    assert_eq!(client.ask(everything).text(), "fine", "the handler that was added meanwhile");
    assert_eq!(get(moved, "/fine"), "fine");
    assert_eq!(get(moved, "/none"), "fine", "the error handler that was set meanwhile");
    program.stop();
}

#[test]
fn a_cpp_exception_passes_through_the_library_and_the_server_goes_on() {
    needs!("c++");
    for link in [Link::Shared, Link::Static] {
        throw_through(Program::start_file(&compile_program("throws.cpp", link), &[]));
    }
}

fn throw_through(mut program: Program) {
    let port = program.port();
    let mut bystander = Client::connect(port);
    for _ in 0..3 {
        assert_eq!(bystander.ask("GET /fine HTTP/1.1\r\n\r\n").text(), "fine");
        let mut client = Client::connect(port);
        client.send("GET /throws HTTP/1.1\r\n\r\nGET /fine HTTP/1.1\r\n\r\n");
        program.expect_line("unwound handler");
        program.expect_line("caught /throws");
        assert_eq!(client.rest_or_reset(), b"");
        let mut client = Client::connect(port);
        client.send("GET /throws?half HTTP/1.1\r\n\r\n");
        program.expect_line("caught /throws");
        let answer = client.rest_or_reset();
        assert!(answer.is_empty() || answer.ends_with(b"\r\n\r\nhalf"), "{answer:?}");
        assert_eq!(exchange(port, "GET /none HTTP/1.1\r\n\r\n"), b"");
        program.expect_line("caught /none");
        assert_eq!(get(port, "/iterates").split(' ').next(), Some("each"));
        program.expect_line("unwound callback");
    }
    assert_eq!(exchange(port, "GET /last HTTP/1.1\r\n\r\n"), b"");
    program.expect_line("caught last");
    program.stop();
    bystander.rest_or_reset();
}

#[test]
fn the_answer_leaves_in_the_same_turn_in_which_the_request_arrives() {
    let mut server = Server::start(&["--step"]);
    let mut client = server.accepted();
    for _ in 0..3 {
        client.send_through("GET /alive HTTP/1.1\r\n\r\n");
        server.poll(1);
        // Nobody polls now: what comes has been sent already.
        assert_eq!(client.response().text(), "alive");
    }
    server.tell("run");
    server.stop();
}

#[test]
fn a_server_destroyed_inside_its_handler_is_gone_when_the_poll_returns() {
    let mut server = Server::start(&["--errors", "--error=destroy"]);
    server.client().send("GET /none HTTP/1.1\r\n\r\n").rest_or_reset();
    server.expect_line("destroyed: NULL");
    server.program.stop();
    for steps in [
        &["destroy"][..],
        &["data x", "destroy"],
        &["destroy", "data x", "write y", "poll 0", "set idle_timeout_ms 1", "destroy"],
    ] {
        let mut server = Server::start(&[]);
        let mut other = server.client();
        other.ask("GET /alive HTTP/1.1\r\n\r\n");
        let mut client = server.client();
        client.send(request("GET", "1.1", steps));
        server.expect_line("destroyed: NULL");
        server.expect_line("GONE");
        client.rest_or_reset();
        other.rest_or_reset();
        assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err(), "still listening");
        server.program.stop();
    }
}

#[test]
fn a_handler_that_destroys_the_server_has_answered_before() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    client.send(request("GET", "1.1", &["data farewell", "destroy"]));
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (200, "farewell"));
    server.expect_line("destroyed: NULL");
    server.program.stop();
}

#[test]
fn who_asked_for_a_file_before_the_server_was_destroyed_gets_it() {
    let scratch = Scratch::new();
    scratch.write("root/a.txt", "content");
    let root = format!("document_root={}", scratch.join("root"));
    let log = format!("access_log_file={}", scratch.join("log"));
    let mut server = Server::start(&["--step", &root, &log]);
    let mut clients = [(); 3].map(|()| server.accepted());
    clients[0].send_through("GET /a.txt HTTP/1.1\r\n\r\n");
    clients[1].send_through("GET /a.txt HTTP/1.1\r\n\r\n");
    clients[2].send_through(request("GET", "1.1", &["destroy"]));
    server.tell("poll 1");
    server.expect_line("destroyed: NULL");
    server.expect_line("polled");
    for client in &mut clients[..2] {
        assert_eq!(client.response().text(), "content");
        client.expect_closed();
    }
    assert_eq!(scratch.read("log").matches("\"GET /a.txt HTTP/1.1\" 200 7 ").count(), 2);
    server.program.stop();
}

#[test]
fn a_server_destroyed_by_another_thread_is_gone_when_the_poll_returns() {
    let mut program = Program::start("destroy.c", &["thread"]);
    let port = program.port();
    let mut client = Client::connect(port);
    assert_eq!(client.ask("GET /fine HTTP/1.1\r\n\r\n").text(), "fine");
    program.stop();
    client.rest_or_reset();
}

#[test]
fn a_server_destroyed_by_a_signal_handler_during_a_poll_is_gone_when_the_poll_returns() {
    let mut program = Program::start("destroy.c", &["signal"]);
    let port = program.port();
    let mut client = Client::connect(port);
    assert_eq!(client.ask("GET /fine HTTP/1.1\r\n\r\n").text(), "fine");
    program.wait_until_asleep();
    program.terminate("TERM");
    client.rest_or_reset();
}

#[test]
fn threads_that_wait_for_a_server_are_released_when_it_is_destroyed() {
    if under_valgrind() {
        return; // There a thread that waits to be scheduled looks like one that sleeps.
    }
    let mut program = Program::start("destroy.c", &["waiter"]);
    let port = program.port();
    Client::connect(port).send("GET /destroys HTTP/1.1\r\n\r\n").rest_or_reset();
    program.expect_line("GONE");
    program.stop();
}

#[test]
fn a_daemon_forks_and_closes_its_standard_descriptors_between_creation_and_first_poll() {
    let mut program = Program::start("fork.c", &["daemon"]);
    let port = program.port();
    let parent = program.id().to_string();
    for _ in 0..3 {
        assert_ne!(get(port, "/pid"), parent);
        assert_eq!(get(port, "/low"), "0", "descriptors below 3");
    }
    program.stop();
}

#[test]
fn four_forked_workers_serve_one_socket() {
    let mut program = Program::start("fork.c", &["workers"]);
    let port = program.port();
    let mut pids = BTreeSet::new();
    for _ in 0..as_many_as(200, 40) {
        let mut client = Client::connect(port);
        let first = client.ask("GET /pid HTTP/1.1\r\n\r\n").text();
        let second = client.ask("GET /pid HTTP/1.1\r\n\r\n").text();
        assert_eq!(first, second, "a connection stays with its worker");
        pids.insert(first);
    }
    assert!(!pids.contains(&program.id().to_string()));
    assert!((1..=4).contains(&pids.len()), "{pids:?}");
    program.stop();
}

#[test]
fn a_forked_child_does_not_disturb_its_serving_parent() {
    let mut program = Program::start("fork.c", &["children"]);
    let port = program.port();
    let parent = program.id().to_string();
    let mut bystander = Client::connect(port);
    // Children that leave their copy alone, destroy it, poll it first, or leave in a handler.
    for number in 1..=6 {
        assert_eq!(bystander.ask("GET /pid HTTP/1.1\r\n\r\n").text(), parent);
        assert_eq!(get(port, "/fork_later"), "soon");
        program.expect_line(&format!("child {number} ended with 0"));
        assert_eq!(bystander.ask("GET /fork_here HTTP/1.1\r\n\r\n").text(), "0");
        assert_eq!(get(port, "/pid"), parent);
    }
    program.stop();
}

#[test]
fn a_socket_that_a_child_keeps_open_does_not_disturb_the_next_connection() {
    let mut program = Program::start("fork.c", &["children"]);
    let port = program.port();
    let parent = program.id().to_string();
    let mut first = Client::connect(port);
    assert_eq!(first.ask("GET /pid HTTP/1.1\r\n\r\n").text(), parent);
    assert_eq!(first.ask("GET /fork_on HTTP/1.1\r\n\r\n").text(), "on");
    first.expect_closed();
    // It is kept where the first one was.
    let mut second = Client::connect(port);
    assert_eq!(second.ask("GET /pid HTTP/1.1\r\n\r\n").text(), parent);
    first.reset();
    assert_eq!(get(port, "/pid"), parent);
    program.wait_until_asleep();
    assert_eq!(second.ask("GET /pid HTTP/1.1\r\n\r\n").text(), parent);
    program.stop();
}

#[test]
fn two_servers_share_a_listening_socket_until_the_last_of_them_goes() {
    for (first, second, name) in [("drop 1", "drop 2", "two"), ("drop 2", "drop 1", "one")] {
        let mut program = Program::start("two_servers.c", &[]);
        let port = program.port();
        for _ in 0..50 {
            assert!(["one", "two"].contains(&get(port, "/").as_str()));
        }
        program.tell(first);
        program.expect_line(&format!("dropped {}", &first[5..]));
        for _ in 0..20 {
            assert_eq!(get(port, "/"), name);
        }
        program.tell(second);
        program.expect_line(&format!("dropped {}", &second[5..]));
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "still listening");
        program.stop();
    }
}

#[test]
fn a_server_without_a_listening_socket_goes_on_with_its_connections() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    client.ask(request("GET", "1.1", &["unlisten", "listener", "data x"]));
    server.expect_line("listener none");
    assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err(), "still listening");
    assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    server.program.stop();
}

#[test]
fn handlers_added_inside_a_handler_count_from_the_next_request() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let add = request("GET", "1.1", &["handler /do first", "handler /new second", "data old"]);
    client.send(&add).send(&add).send("GET /new HTTP/1.1\r\n\r\n");
    assert_eq!(client.response().text(), "old");
    assert_eq!(client.response().text(), "first");
    assert_eq!(client.response().text(), "second");
    server.stop();
}

#[test]
fn a_socket_that_the_program_opened_itself_is_taken_over() {
    let mut program = Program::start("adopt.c", &[]);
    let port = program.port();
    for _ in 0..3 {
        assert_eq!(get(port, "/"), "fine");
    }
    program.stop();
}
