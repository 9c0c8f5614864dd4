//! The programs in `examples/`, linked in both ways, started and driven.

use crate::support::{
    Client, Link, Program, Scratch, Websocket, command_for, compile_example, compiles, exchange,
    for_each,
};
use rustix::process::{Pid, Signal, kill_process};
use std::net::TcpStream;

/// Starts an example on a free port, lets `drive` talk to it, and ends it as a user would.
fn each_linkage(file: &str, args: &[&str], drive: impl Fn(u16)) {
    for (link, signal) in [(Link::Shared, "TERM"), (Link::Static, "INT")] {
        let mut all = vec!["0"];
        all.extend(args);
        let mut program = Program::start_file(&compile_example(file, link), &all);
        let port = program.expect_start("Listening on http://127.0.0.1:");
        let port = port.trim_end_matches('/').parse().expect("a port");
        drive(port);
        program.terminate(signal);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "{file} still listens");
    }
}

fn get(port: u16, target: &str) -> crate::support::Response {
    Client::connect(port).ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
}

fn post(port: u16, target: &str, kind: &str, body: &str) -> crate::support::Response {
    let length = body.len();
    let fields = format!("Host: a\r\nContent-Type: {kind}\r\nContent-Length: {length}");
    Client::connect(port).ask(format!("POST {target} HTTP/1.1\r\n{fields}\r\n\r\n{body}"))
}

#[test]
fn hello_greets() {
    each_linkage("hello.c", &[], |port| {
        let answer = get(port, "/any/where");
        assert_eq!(answer.text(), "Hello, 127.0.0.1! You asked for /any/where\n");
    });
}

#[test]
fn an_example_says_why_it_cannot_start() {
    let examples = [
        "cgi.c",
        "chat.c",
        "dashboard.c",
        "deferred.c",
        "events.c",
        "form.c",
        "hello.c",
        "https.c",
        "multi_threaded.c",
        "prefork.c",
        "static_files.c",
        "upload.c",
    ];
    for_each(
        examples,
        |file| (*file).to_owned(),
        |file| {
            let program = compile_example(file, Link::Shared);
            let output = command_for(&program).arg("no port").output().expect("it runs");
            assert_eq!(output.status.code(), Some(1));
            assert!(!output.stderr.is_empty() && output.stdout.is_empty());
        },
    );
}

#[test]
fn each_example_has_its_line_and_its_command_in_the_list() {
    let folder = crate::support::root().join("examples");
    let list = std::fs::read_to_string(folder.join("README.md")).expect("the list");
    for entry in std::fs::read_dir(&folder).expect("a folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name in ASCII");
        let is_program = name.ends_with(".c") || name.ends_with(".cpp") || name == "cluster";
        let lines = list.lines().filter(|line| line.contains(&format!("[{name}]({name}")));
        let with_command =
            lines.filter(|line| line.contains("| `make build/") || line.contains("/run`"));
        assert_eq!(with_command.count(), usize::from(is_program), "{name}");
    }
}

#[test]
fn chat_tells_each_room_what_its_guests_say() {
    each_linkage("chat.c", &["examples/chat"], |port| {
        let enter = |names: &str| {
            let mut socket = Websocket::open(port, "/chat");
            socket.text(names);
            socket
        };
        let mut anna = enter("r\u{f6}\u{f6}m\tanna");
        anna.expect_text("join\tanna\t");
        let mut ben = enter("r\u{f6}\u{f6}m\tb\ten");
        ben.expect_text("join\tb en\t");
        let mut carl = enter("other\tcarl");
        carl.expect_text("join\tcarl\t");
        ben.text("hello \u{4e16}");
        anna.expect_text("join\tb en\t").expect_text("say\tb en\thello \u{4e16}");
        ben.expect_text("say\tb en\thello \u{4e16}");
        carl.text("nobody else is here").expect_text("say\tcarl\tnobody else is here");
        drop(ben);
        anna.expect_text("leave\tb en\t");
        // What is not UTF-8 must not reach the others: it would end their connections.
        let mut bad = Websocket::open(port, "/chat");
        bad.frame(0x81, b"r\xc3\xb6\xc3\xb6m\tn\xff").expect_close(1007);
        for bad in ["", "room", "room\t", "\tname", &format!("room\t{}", "n".repeat(81))] {
            enter(bad).expect(0x88, 1000_u16.to_be_bytes());
        }
        anna.text("still here").expect_text("say\tanna\tstill here");
    });
}

#[test]
fn form_reads_its_fields() {
    each_linkage("form.c", &[], |port| {
        let kind = "application/x-www-form-urlencoded";
        assert!(get(port, "/").text().contains("<form method=\"post\" action=\"/greet\">"));
        let answer = post(port, "/greet", kind, "name=J%C3%BCrgen+%3Cb%3E&town=K%26K");
        assert!(answer.text().contains("<h1>Hello, J\u{fc}rgen &#60;b> from K&#38;K!</h1>\n"));
        let answer = post(port, "/greet", kind, "name=Ann");
        assert!(answer.text().contains("<h1>Hello, Ann!</h1>\n"));
        for body in ["", "name=", "town=x", &format!("name={}", "x".repeat(200))] {
            assert_eq!(post(port, "/greet", kind, body).status, 400);
        }
    });
}

#[test]
fn upload_reports_what_it_received() {
    each_linkage("upload.c", &[], |port| {
        let body = "--xx\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nh<i>\r\n\
                    --xx\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a&b.txt\"\r\n\
                    Content-Type: text/plain\r\n\r\nfirst\r\nsecond\r\n--xx--\r\n";
        let text = post(port, "/upload", "multipart/form-data; boundary=xx", body).text();
        let list = "<li>note: h&#60;i>\n<li>a&#38;b.txt <small>13 bytes</small>\n</ul>\n2 parts\n";
        assert!(text.contains(list), "{text}");
        assert!(post(port, "/upload", "text/plain", "nonsense").text().contains("0 parts\n"));
        assert!(get(port, "/").text().contains("multipart/form-data"));
    });
}

#[test]
fn deferred_answers_when_its_thread_is_done() {
    each_linkage("deferred.c", &[], |port| {
        let mut client = Client::connect(port);
        client
            .send("GET /primes?below=300000 HTTP/1.1\r\n\r\nGET /primes?below=10 HTTP/1.1\r\n\r\n");
        let mut gone = Client::connect(port);
        gone.send("GET /primes?below=100000 HTTP/1.1\r\n\r\n");
        drop(gone);
        assert_eq!(get(port, "/primes?below=100").text(), "25 primes below 100\n");
        assert_eq!(client.response().text(), "25997 primes below 300000\n");
        assert_eq!(client.response().text(), "4 primes below 10\n");
    });
}

#[test]
fn events_are_pushed_to_every_browser_that_is_still_there() {
    each_linkage("events.c", &[], |port| {
        assert!(get(port, "/").text().contains("EventSource"));
        let listen = || {
            let mut client = Client::connect(port);
            client.send("GET /events HTTP/1.1\r\n\r\n");
            let head = client.take_through("\r\n\r\n");
            assert!(head.contains("text/event-stream"), "{head}");
            client
        };
        let mut clients: Vec<Client> = (0..10).map(|_| listen()).collect();
        for client in &mut clients {
            assert!(client.take_through("\n\n").starts_with("data: "));
        }
        clients.truncate(4);
        clients.push(listen());
        for client in &mut clients {
            assert!(client.take_through("\n\n").starts_with("data: "));
            assert!(client.take_through("\n\n").starts_with("data: "));
        }
    });
}

#[test]
fn multi_threaded_answers_from_each_of_its_servers() {
    each_linkage("multi_threaded.c", &["3"], |port| {
        let mut clients: Vec<Client> = (0..30).map(|_| Client::connect(port)).collect();
        for client in &mut clients {
            let first = client.ask("GET / HTTP/1.1\r\n\r\n").text();
            let number = first.strip_prefix("Answered by server ").expect("its sentence");
            assert!(["0\n", "1\n", "2\n"].contains(&number), "{first}");
            assert_eq!(client.ask("GET / HTTP/1.1\r\n\r\n").text(), first);
        }
    });
}

#[test]
fn prefork_loses_no_client_that_waits_when_a_worker_dies() {
    for args in [&["0", "3"][..], &["0", "3", "own"]] {
        let mut program = Program::start_file(&compile_example("prefork.c", Link::Shared), args);
        let port = program.expect_start("Listening on http://127.0.0.1:");
        let port = port.trim_end_matches('/').parse().expect("a port");
        let worker = |answer: &str| -> (u32, i32) {
            let words: Vec<&str> = answer.split([' ', ',', '\n']).collect();
            let &["Answered", "by", "worker", number, "", "process", pid, ""] = &words[..] else {
                panic!("{answer:?}")
            };
            (number.parse().expect("a number"), pid.parse().expect("a process"))
        };
        let (number, pid) = worker(&get(port, "/").text());
        let pid = Pid::from_raw(pid).expect("a process");
        // While it is stopped, clients wait at its socket, if it has one.
        kill_process(pid, Signal::STOP).expect("stopped");
        let mut clients: Vec<Client> = (0..40).map(|_| Client::connect(port)).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\n\r\n");
        }
        kill_process(pid, Signal::KILL).expect("killed");
        program.expect_line(&format!("Worker {number} has ended and is started again"));
        let mut seen = std::collections::BTreeSet::new();
        for client in &mut clients {
            seen.insert(worker(&client.response().text()).0);
        }
        // At a socket of their own all have some; at a shared one the first may take them all.
        let are_many = seen.len() > 1 || !args.contains(&"own");
        assert!(are_many && seen.iter().all(|number| *number < 3), "{seen:?}");
        program.terminate("TERM");
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "a worker still listens");
    }
}

#[test]
fn static_files_serves_a_folder() {
    let scratch = Scratch::new();
    scratch.write("index.html", "<p>home").write("a.md", "# a").write("b.bak", "old");
    each_linkage("static_files.c", &[&scratch.join("")], |port| {
        assert_eq!(get(port, "/").text(), "<p>home");
        assert_eq!(get(port, "/a.md").field("Content-Type"), Some("text/markdown"));
        for target in ["/b.bak", "/none"] {
            let answer = get(port, target);
            assert_eq!(answer.status, 404);
            assert!(answer.text().contains("<h1>Not here</h1>"));
        }
        let bad = get(port, "/%00");
        assert_eq!((bad.status, bad.text().as_str()), (400, "400 Bad Request\n"));
    });
}

#[test]
fn cgi_keeps_a_guest_book() {
    needs!("python3");
    let kind = "application/x-www-form-urlencoded";
    let scratch = Scratch::new();
    let source = crate::support::root().join("examples/cgi");
    for name in ["index.shtml", "entries.cgi", "sign.cgi"] {
        let text = std::fs::read(source.join(name)).expect("a file of the example");
        scratch.write_program(name, text);
    }
    each_linkage("cgi.c", &[&scratch.join("")], |port| {
        let answer = post(port, "/sign.cgi", kind, "text=Caf%C3%A9+%3Cb%3E");
        assert_eq!((answer.status, answer.field("Location")), (303, Some("./")));
        let page = get(port, "/").text();
        assert!(page.contains("<li>Caf\u{e9} &lt;b&gt;\n") && page.contains("</ul>"), "{page}");
        assert_eq!(post(port, "/sign.cgi", kind, "text=+").status, 400);
        assert_eq!(get(port, "/entries.txt").status, 404);
    });
}

#[cfg(feature = "tls")]
#[test]
fn https_reads_its_certificate_again_when_it_is_told_to() {
    needs!("openssl");
    use crate::support::{Authority, Tunnel};
    let scratch = Scratch::new();
    let path = scratch.join("server.pem");
    let renew = |name: &str| {
        scratch.write("server.pem", std::fs::read(Authority::get().identity(name)).expect("it"));
    };
    for link in [Link::Shared, Link::Static] {
        renew("ec");
        let mut program = Program::start_file(&compile_example("https.c", link), &["0s,0r", &path]);
        let ports = program.expect_start("Listening on ");
        let (secure, plain) = ports.split_once(',').expect("two ports");
        let port = |text: &str| text.trim_end_matches(['s', 'r']).parse::<u16>().expect("a port");
        let mut client = Client::connect(port(plain));
        let answer = client.ask("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let place = format!("https://localhost:{}/a", port(secure));
        assert_eq!((answer.status, answer.field("Location")), (308, Some(&*place)));
        let tunnel = Tunnel::to(port(secure));
        assert_eq!(get(tunnel.port, "/").text(), "Nobody else can read this, 127.0.0.1.\n");
        renew("rsa");
        program.signal("HUP");
        program.expect_line("Certificate read again");
        assert_eq!(get(tunnel.port, "/").text(), "Nobody else can read this, 127.0.0.1.\n");
        program.terminate("TERM");
    }
}

#[test]
fn wrapper_finds_its_object_again() {
    needs!("c++");
    each_linkage("wrapper.cpp", &[], |port| {
        for number in 1..=3 {
            assert_eq!(get(port, "/a").text(), format!("/a: {number} visits\n"));
        }
        assert_eq!(get(port, "/b").text(), "/b: 1 visits\n");
        assert_eq!(get(port, "/total").text(), "4 visits in all\n");
    });
}

#[test]
fn lambdas_answer_and_a_thread_tells_the_sum() {
    needs!("c++");
    each_linkage("lambdas.cpp", &[], |port| {
        assert!(get(port, "/").text().contains("<h1>Visits</h1>"));
        let mut socket = Websocket::open(port, "/talk");
        socket.expect_text("0 visits in all");
        socket.text("h\u{e4}llo").expect_text("h\u{e4}llo");
        assert_eq!(get(port, "/visit/a").text(), "1 visits of /visit/a\n");
        socket.expect_text("1 visits in all");
        assert_eq!(get(port, "/double?of=21").text(), "42\n");
        for wrong in ["/double?of=many", "/double"] {
            let answer = get(port, wrong);
            assert_eq!(answer.status, 400);
            assert!(answer.text().starts_with("Not possible: "), "{}", answer.text());
        }
        assert_eq!(get(port, "/talk").status, 426);
    });
}

#[test]
fn the_header_for_cpp_moves_throws_and_grows() {
    needs!("c++");
    let mut program = Program::start("header17.cpp", &[]);
    let port = program.port();
    assert_eq!(exchange(port, "GET /throws HTTP/1.1\r\n\r\n"), b"");
    program.expect_line("caught /throws");
    let long = "x".repeat(9000);
    assert_eq!(get(port, &format!("/variable?x={long}")).text(), long);
    assert_eq!(
        post(port, "/variable", "application/x-www-form-urlencoded", "x=a%20b").text(),
        "a b"
    );
    assert_eq!(get(port, "/variable?y=1").text(), "none");
    let answer = Client::connect(port).ask("GET /fields HTTP/1.1\r\nX-Sent: sent\r\n\r\n");
    assert_eq!((answer.status, answer.text().as_str()), (203, "sent!"));
    assert_eq!(get(port, "/adds").text(), "GET");
    assert_eq!(get(port, "/adds").text(), "99");
    let mut socket = Websocket::open(port, "/websocket");
    socket.text("count").expect_text("everybody").expect_text("1");
    socket.text("close").expect_close(1000);
    let mut socket = Websocket::open(port, "/websocket");
    socket.text("all");
    program.expect_line("caught each");
    program.stop();
}

#[test]
fn the_header_for_cpp_compiles_without_a_warning() {
    needs!("c++");
    let source = crate::support::root().join("examples/lambdas.cpp");
    let compiler = crate::support::tool("CXX", "c++");
    for standard in ["-std=c++17", "-std=c++20"] {
        compiles(&compiler, &source, &[standard])
            .unwrap_or_else(|told| panic!("{standard}: {told}"));
    }
}
