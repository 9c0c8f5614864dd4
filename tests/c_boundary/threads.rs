//! Functions that any thread may call at any time.

use crate::support::{Client, Program, Server, as_many_as, request, until};

const STREAM: &str = "write HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\n\\r\\n";
const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

#[test]
fn a_write_to_a_client_that_has_gone_returns_0_and_harms_nobody() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    client.send(request("GET", "1.1", &["keep a", "say called"]));
    server.expect_line("called");
    drop(client);
    // Others come and go, and none of them may get what is meant for the one that left.
    until("the client's leaving is noticed", || {
        assert_eq!(server.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
        server.late("a", "write HTTP/1.1 200 OK\\r\\n\\r\\nlate") == 0
    });
    let mut bystander = server.client();
    bystander.send(request("GET", "1.1", &["keep b", "say called"]));
    server.expect_line("called");
    for step in ["write x", "printf x"] {
        assert_eq!(server.late("a", step), 0, "{step}");
    }
    server.tell("late b write HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi");
    bystander.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    server.stop();
}

/// What makes a connection end, or its answer complete, while the program still knows it: the request,
/// what the handler does besides keeping the pointer, and whether the client leaves by itself.
const FORMER: [(&str, &str, &[&str], bool); 8] = [
    ("GET", "1.0", &[], false),
    ("POST", "1.1", &[], false),
    ("DELETE", "1.1", &[], false),
    ("GET", "1.1", &["write HTTP/1.0 200 OK\\r\\n\\r\\nbye"], false),
    ("GET", "1.1", &["header Connection close", "data bye"], false),
    ("GET", "1.1", &["data bye"], true),
    ("GET", "1.1", &[STREAM], true),
    ("GET", "1.1", &[], true),
];

/// Which threads may write at which moment: another one, or the polling one between polls.
const WRITERS: [&str; 2] = ["late", "io late"];

#[test]
fn a_late_write_never_reaches_a_client_that_came_after() {
    let cases = FORMER.map(|(method, version, steps, leaves)| {
        (request(method, version, &[&["keep a"], steps].concat()), leaves)
    });
    // An error handler sees connections, too.
    let error = ("GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), false);
    for (text, leaves) in cases.into_iter().chain([error]) {
        let options = ["idle_timeout_ms=0", "--errors", "--error=keep a"];
        let mut server = Server::start(&options);
        let mut former = server.client();
        former.send(&text);
        server.expect_line("kept a");
        if !leaves {
            former.rest_or_reset();
        }
        drop(former);
        until("the end of the connection is noticed", || {
            assert_eq!(server.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
            server.late("a", "write HTTP/1.1 200 OK\\r\\nContent-Length: 1\\r\\n\\r\\n1") == 0
        });
        // Many at once, each of which waits for an answer that its handler's thread will give.
        let count = as_many_as(20, 4);
        let mut latter: Vec<Client> = (0..count).map(|_| server.client()).collect();
        for (number, client) in latter.iter_mut().enumerate() {
            client.send(request("GET", "1.1", &[&format!("keep b{number}")]));
            server.expect_line(&format!("kept b{number}"));
        }
        let stray = "write HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nstray";
        for writer in WRITERS {
            server.tell(&format!("{writer} a {stray}"));
            assert_eq!(server.program.expect_start(&format!("late a {stray}: ")), "0");
        }
        for (number, client) in latter.iter_mut().enumerate() {
            let own = format!("write HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\n{number:3}");
            let written = server.late(&format!("b{number}"), &own);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{number:3}");
            assert_eq!(written, answer.len() as i64);
            client.expect(answer);
        }
        server.stop();
    }
}

#[test]
fn nor_does_one_to_a_connection_that_only_a_walk_has_seen() {
    for walk in ["keep_each", "io keep_each"] {
        let mut server = Server::start(&["idle_timeout_ms=0", "iterate_over=all"]);
        let mut former = server.client();
        assert_eq!(former.ask("GET /nothing HTTP/1.1\r\n\r\n").status, 404);
        server.tell(&format!("{walk} a"));
        server.expect_line("kept 1");
        drop(former);
        until("the end of the connection is noticed", || {
            server.tell("io iterate");
            server.program.expect_start("iterated ").starts_with("0 ")
        });
        let mut latter = server.client();
        latter.send(request("GET", "1.1", &["keep b"]));
        server.expect_line("kept b");
        let stray = "write HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nstray";
        assert_eq!(server.late("a", stray), 0);
        assert!(
            server.late("b", "write HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\nown") > 0
        );
        assert_eq!(latter.response().text(), "own");
        server.stop();
    }
}

#[test]
fn a_walk_for_a_server_that_has_ended_does_not_visit_the_clients_of_its_successor() {
    Program::start("successor.c", &[]).wait_for_end();
}

#[test]
fn a_write_after_the_server_was_destroyed_returns_0() {
    for before in [Some("io destroy"), Some("destroy")] {
        let mut server = Server::start(&[]);
        let mut clients = [server.client(), server.client()];
        for (client, steps) in clients.iter_mut().zip([&["keep a"][..], &["keep b", STREAM]]) {
            client.send(request("GET", "1.1", &[steps, &["say called"]].concat()));
            server.expect_line("called");
        }
        server.tell(before.unwrap_or_default());
        server.expect_line("destroyed: NULL");
        server.expect_line("GONE");
        for key in ["a", "b"] {
            for step in ["write x", "printf x"] {
                assert_eq!(server.late(key, step), 0, "{key} {step}");
            }
        }
        server.program.stop();
    }
}

/// A server that polls as it is told, a client whose request it keeps under `a`, and another client.
fn kept_and_another() -> (Server, [Client; 2]) {
    let mut server = Server::start(&["--step"]);
    let mut clients = [server.accepted(), server.accepted()];
    clients[0].send_through(request("GET", "1.1", &["keep a"]));
    server.poll(2);
    (server, clients)
}

#[test]
fn bytes_that_another_thread_has_written_during_a_handler_are_sent_though_the_server_ends() {
    let answer = "write HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi";
    let errand = format!("elsewhere to a {answer}");
    for in_handler in [true, false] {
        let (mut server, mut clients) = kept_and_another();
        let steps =
            [errand.as_str(), "report wrote", if in_handler { "destroy" } else { "data x" }];
        clients[1].send_through(request("GET", "1.1", &steps));
        server.tell("poll 1");
        server.expect_line("wrote 40");
        server.tell("destroy");
        server.expect_line("destroyed: NULL");
        clients[0].expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").expect_closed();
        server.program.stop();
    }
}

#[test]
fn bytes_that_another_thread_has_written_during_a_handler_are_sent_in_the_same_turn() {
    let (mut server, mut clients) = kept_and_another();
    let answer = "write HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi";
    let errand = format!("elsewhere to a {answer}");
    clients[1].send_through(request("GET", "1.1", &[&errand, "data x"]));
    server.poll(1);
    clients[0].expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    server.tell("run");
    server.stop();
}

#[test]
fn the_calls_of_one_thread_keep_their_order() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    client.send(request("GET", "1.1", &["keep a", STREAM])).expect(STREAM_HEAD);
    let count = as_many_as(500, 100);
    for number in 0..count {
        let verb = if number % 2 == 0 { "write" } else { "printf" };
        server.tell(&format!("late a {verb} {number},"));
    }
    let wanted: String = (0..count).map(|number| format!("{number},")).collect();
    client.expect(wanted);
    server.stop();
}

#[test]
fn a_large_answer_from_another_thread_arrives_whole() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    client.send(request("GET", "1.1", &["keep a"]));
    let head = "write HTTP/1.1 200 OK\\r\\nContent-Length: 20000001\\r\\n\\r\\n";
    assert_eq!(server.late("a", head), 45);
    assert_eq!(server.late("a", "write_fill 20000000 x"), 20_000_000);
    assert_eq!(server.late("a", "write y"), 1);
    let body = client.response().body;
    assert!(body.len() == 20_000_001 && body.ends_with(b"xy"));
    assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    server.stop();
}

#[test]
fn another_thread_may_set_options_while_the_server_polls() {
    let mut server = Server::start(&[]);
    server.tell("set max_request_body_bytes 3");
    server.expect_line("set max_request_body_bytes: NULL");
    server.tell("set max_request_body_bytes many");
    assert_ne!(server.program.expect_start("set max_request_body_bytes: "), "NULL");
    let answer = server.ask("POST /echo HTTP/1.1\r\nContent-Length: 4\r\n\r\nfour");
    assert_eq!(answer.status, 413);
    server.stop();
}

#[test]
fn iterating_reaches_every_connection_once_from_any_thread() {
    let mut server = Server::start(&["iterate_over=all"]);
    let mut clients: Vec<Client> = (0..5).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(request("GET", "1.1", &[STREAM])).expect(STREAM_HEAD);
    }
    server.tell("iterate");
    server.expect_line("iterated 5 called 5");
    server.tell("io iterate");
    server.expect_line("iterated 5 called 5");
    for line in ["push data: one\\n\\n", "io push data: one\\n\\n"] {
        server.tell(line);
        server.expect_line("pushed 5");
        for client in &mut clients {
            client.expect("data: one\n\n");
        }
    }
    // Inside a handler it counts its own connection too.
    server.ask(request("GET", "1.1", &["iterate", "data x"]));
    server.expect_line("iterated 6 called 6");
    server.stop();
}

#[test]
fn iterating_reaches_websockets_only_unless_told_otherwise() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    client.send(request("GET", "1.1", &[STREAM])).expect(STREAM_HEAD);
    server.tell("iterate");
    server.expect_line("iterated 0 called 0");
    server.stop();
}

#[test]
fn iterating_gives_up_when_nobody_polls() {
    Program::start("iterate.c", &[]).wait_for_end();
}

/// One subscriber of `threads_stress.c`.
struct Subscriber {
    client: Client,
    id: String,
    next: [usize; 4],
}

impl Subscriber {
    fn new(port: u16, id: usize) -> Subscriber {
        let mut client = Client::connect(port);
        client.send(format!("GET /subscribe?c{id} HTTP/1.1\r\n\r\n")).expect(STREAM_HEAD);
        Subscriber { client, id: format!("c{id}"), next: [0; 4] }
    }

    /// Reads a line and checks that it is the next one of its thread, for this subscriber.
    fn read_line(&mut self) {
        let line = self.client.take_through("\n");
        let mut words = line.trim_end().split(' ');
        assert_eq!(words.next(), Some(self.id.as_str()), "{line:?} came to {}", self.id);
        let mut number = || words.next().and_then(|word| word.parse::<usize>().ok());
        let (thread, sequence) = (number().expect("a thread"), number().expect("a number"));
        assert_eq!(sequence, self.next[thread], "{line:?} at {}", self.id);
        self.next[thread] += 1;
    }
}

#[test]
fn four_threads_write_to_a_hundred_connections_that_come_and_go() {
    let lines = as_many_as(200, 20);
    let mut program = Program::start("threads_stress.c", &[&lines.to_string()]);
    let port = program.port();
    let generations = as_many_as(6, 2);
    std::thread::scope(|scope| {
        for group in 0..4 {
            scope.spawn(move || {
                for generation in 0..generations {
                    let base = (group * generations + generation) * 25;
                    let mut all: Vec<_> =
                        (base..base + 25).map(|id| Subscriber::new(port, id)).collect();
                    // Every third leaves early, and its pointer stays in the program's list.
                    for (index, subscriber) in all.iter_mut().enumerate() {
                        let count = if index % 3 == 0 { index } else { 4 * lines };
                        (0..count).for_each(|_| subscriber.read_line());
                    }
                    for (index, subscriber) in all.into_iter().enumerate() {
                        if index % 6 == 0 {
                            subscriber.client.reset();
                        }
                    }
                }
            });
        }
    });
    program.stop();
}

#[test]
fn threads_that_iterate_reach_connections_that_come_and_go() {
    let mut program = Program::start("iterate_stress.c", &[]);
    let port = program.port();
    let generations = as_many_as(5, 1);
    std::thread::scope(|scope| {
        for group in 0..4 {
            scope.spawn(move || {
                for _ in 0..generations {
                    let mut all: Vec<_> = (0..10)
                        .map(|_| {
                            let mut client = Client::connect(port);
                            client.send("GET /listen HTTP/1.1\r\n\r\n").expect(STREAM_HEAD);
                            client
                        })
                        .collect();
                    for (index, client) in all.iter_mut().enumerate() {
                        // Rounds of one thread arrive in order, and none is left out.
                        let mut next = [None; 3];
                        for _ in 0..10 * (index + group) {
                            let line = client.take_through("\n");
                            let (thread, number) = line.trim_end().split_once(' ').expect(&line);
                            let thread: usize = thread.parse().expect("a thread");
                            let number: usize = number.parse().expect("a number");
                            assert!(next[thread].is_none_or(|next| next == number), "{line}");
                            next[thread] = Some(number + 1);
                        }
                    }
                }
            });
        }
    });
    program.stop();
}

#[test]
fn servers_may_come_and_go_while_threads_write_to_their_connections() {
    let rounds = as_many_as(300, 10).to_string();
    Program::start("churn.c", &[&rounds]).wait_for_end();
}

#[test]
fn two_threads_may_poll_in_turns() {
    let mut program = Program::start("turns.c", &[]);
    let port = program.port();
    let mut stream = Client::connect(port);
    stream.send("GET /listen HTTP/1.1\r\n\r\n").expect(STREAM_HEAD);
    let mut client = Client::connect(port);
    let mut answered = [false; 2];
    until("both have answered", || {
        let answer = client.ask("GET /who HTTP/1.1\r\n\r\n").text();
        answered[usize::from(answer == "1")] = true;
        stream.take_through("\n");
        answered == [true; 2]
    });
    program.stop();
}
