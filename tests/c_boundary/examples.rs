//! The programs in `examples/`, linked in both ways, started and driven.

use crate::support::{Client, Link, Program, Scratch, command_for, compile_example};
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
fn hello_says_why_it_cannot_start() {
    let program = compile_example("hello.c", Link::Shared);
    let output = command_for(&program).arg("no port").output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(!output.stderr.is_empty() && output.stdout.is_empty());
}

#[test]
fn form_reads_its_fields() {
    each_linkage("form.c", &[], |port| {
        let kind = "application/x-www-form-urlencoded";
        assert!(get(port, "/").text().contains("<form method=\"post\" action=\"/greet\">"));
        let answer = post(port, "/greet", kind, "name=J%C3%BCrgen+%3Cb%3E&town=K%26K");
        assert!(answer.text().ends_with("Hello, J\u{fc}rgen &#60;b> from K&#38;K!\n"));
        assert!(post(port, "/greet", kind, "name=Ann").text().ends_with("Hello, Ann!\n"));
        for body in ["", "name=", "town=x", &format!("name={}", "x".repeat(200))] {
            assert_eq!(post(port, "/greet", kind, body).status, 400);
        }
    });
}

#[test]
fn upload_reports_what_it_received() {
    each_linkage("upload.c", &[], |port| {
        let body = "--xx\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhi\r\n\
                    --xx\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\
                    Content-Type: text/plain\r\n\r\nfirst\r\nsecond\r\n--xx--\r\n";
        let answer = post(port, "/upload", "multipart/form-data; boundary=xx", body);
        assert_eq!(answer.text(), "note: hi\nfile: file a.txt of 13 bytes\n2 parts\n");
        assert_eq!(post(port, "/upload", "text/plain", "nonsense").text(), "0 parts\n");
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
