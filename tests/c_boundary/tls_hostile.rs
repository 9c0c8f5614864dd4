//! Clients that break the rules of TLS, or leave in the middle of it, and how connections end.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustls::{AlertDescription, ClientConnection, Error};

use crate::support::{
    Authority, Dav, Scratch, Server, Tunnel, client_config, deadline, deadline_secs, for_each,
    is_checked, open, request, shown, until,
};

const ALIVE: &str = "GET /alive HTTP/1.1\r\n\r\n";

fn serve(args: &[&str]) -> Server {
    let certificate = format!("ssl_certificate={}", Authority::get().identity("ec"));
    let mut all = vec![certificate.as_str()];
    all.extend(args);
    Server::start(&all)
}

/// The server still answers, and ends cleanly.
#[track_caller]
fn stop(server: Server) {
    assert_eq!(Tls::connect(server.port).ask(ALIVE), b"alive");
    server.program.stop();
}

/// How a connection ended.
#[derive(Debug, PartialEq)]
enum End {
    /// With the notice that TLS has for it.
    Notice,
    /// Without.
    Cut,
    Alert(AlertDescription),
}

/// A client that sees its records.
struct Tls {
    stream: TcpStream,
    session: ClientConnection,
}

impl Tls {
    /// Before the handshake.
    fn new(port: u16) -> Tls {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server");
        stream.set_read_timeout(Some(deadline())).expect("a deadline");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Tls { stream, session: open(client_config()) }
    }

    fn connect(port: u16) -> Tls {
        let mut client = Tls::new(port);
        while client.session.is_handshaking() {
            client.session.complete_io(&mut client.stream).expect("a handshake");
        }
        client
    }

    /// What is to be sent, not sent.
    fn records(&mut self, plain: &[u8]) -> Vec<u8> {
        self.session.writer().write_all(plain).expect("room");
        let mut records = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut records).expect("a vector");
        }
        records
    }

    fn send_raw(&mut self, records: &[u8]) -> &mut Tls {
        self.stream.write_all(records).expect("the server takes it");
        self
    }

    fn send(&mut self, plain: impl AsRef<[u8]>) -> &mut Tls {
        let records = self.records(plain.as_ref());
        self.send_raw(&records)
    }

    /// Says that nothing more comes.
    fn notify(&mut self) -> &mut Tls {
        self.session.send_close_notify();
        let records = self.records(b"");
        self.send_raw(&records)
    }

    /// The content of one answer.
    #[track_caller]
    fn ask(&mut self, request: impl AsRef<[u8]>) -> Vec<u8> {
        self.send(request);
        let mut plain = Vec::new();
        loop {
            let more = self.receive(&mut plain);
            if let Some(at) = memchr::memmem::find(&plain, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&plain[..at]).into_owned();
                let length = head.split("Content-Length: ").nth(1).expect("a length");
                let length: usize = length.lines().next().unwrap_or("").parse().expect("digits");
                if plain.len() >= at + 4 + length {
                    return plain.split_off(at + 4);
                }
            }
            assert_eq!(more, None, "before the answer, behind {}", shown(&plain));
        }
    }

    /// Reads once; the end, if this is it.
    fn receive(&mut self, plain: &mut Vec<u8>) -> Option<End> {
        let count = match self.session.read_tls(&mut self.stream) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("waited in vain"),
            Err(_) => return Some(End::Cut),
        };
        let state = match self.session.process_new_packets() {
            Ok(state) => state,
            Err(Error::AlertReceived(alert)) => return Some(End::Alert(alert)),
            Err(error) => panic!("the server sends nonsense: {error}"),
        };
        let mut piece = vec![0; state.plaintext_bytes_to_read()];
        self.session.reader().read_exact(&mut piece).expect("what is there");
        plain.extend(piece);
        match count {
            _ if state.peer_has_closed() => Some(End::Notice),
            0 => Some(End::Cut),
            _ => None,
        }
    }

    /// All that comes, and how it ends.
    fn rest(&mut self) -> (Vec<u8>, End) {
        let mut plain = Vec::new();
        loop {
            if let Some(end) = self.receive(&mut plain) {
                return (plain, end);
            }
        }
    }
}

#[test]
fn who_speaks_plain_http_is_told_so() {
    needs!("openssl");
    let scratch = Scratch::new();
    let log = scratch.join("error.log");
    let server = serve(&[&format!("error_log_file={log}")]);
    for text in [ALIVE, "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n", "nonsense\r\n\r\n"] {
        let mut client = server.client();
        let answer = client.ask(text);
        assert_eq!(answer.status, 400, "{text}");
        assert_eq!(answer.text(), "This port speaks TLS: ask for https://\n");
        assert_eq!(answer.field("Connection"), Some("close"));
        client.expect_closed();
    }
    // Far more than anybody wants, and more requests behind: one answer.
    let mut client = server.client();
    client.try_send(ALIVE.repeat(20_000));
    client.finish_sending();
    let answers = client.rest_or_reset();
    assert!(answers.len() < 200, "{}", shown(&answers));
    let lines = scratch.read_when("error.log", |log| log.lines().count() >= 4);
    assert_eq!(lines.lines().count(), 4, "{lines}");
    let said = |line: &str| {
        line.contains("] 127.0.0.1:") && line.ends_with(" plain HTTP where TLS is spoken")
    };
    assert!(lines.lines().all(said), "{lines}");
    stop(server);
}

#[test]
fn a_handshake_and_a_request_may_come_in_pieces_of_any_size() {
    needs!("openssl");
    let server = serve(&[]);
    let hello = Tls::new(server.port).records(b"");
    let mut splits: Vec<usize> = (1..hello.len()).collect();
    if is_checked() {
        splits.retain(|split| split % 40 == 1);
    }
    for_each(
        splits,
        |split| format!("split at {split}"),
        |split| {
            let mut client = Tls::new(server.port);
            let hello = client.records(b"");
            let split = (*split).min(hello.len() - 1);
            client.send_raw(&hello[..split]);
            client.send_raw(&hello[split..]);
            assert_eq!(client.ask_after_handshake(ALIVE), b"alive");
        },
    );
    // All of it byte by byte, and a request over the borders of records.
    let mut client = Tls::new(server.port);
    for byte in client.records(b"") {
        client.send_raw(&[byte]);
    }
    while client.session.is_handshaking() {
        client.session.complete_io(&mut client.stream).expect("a handshake");
    }
    for byte in ALIVE.bytes() {
        for byte in client.records(&[byte]) {
            client.send_raw(&[byte]);
        }
    }
    assert_eq!(client.ask(""), b"alive");
    stop(server);
}

impl Tls {
    fn ask_after_handshake(&mut self, request: &str) -> Vec<u8> {
        while self.session.is_handshaking() {
            self.session.complete_io(&mut self.stream).expect("a handshake");
        }
        self.ask(request)
    }
}

#[test]
fn nonsense_in_place_of_a_handshake_ends_the_connection() {
    needs!("openssl");
    let scratch = Scratch::new();
    let server = serve(&[&format!("error_log_file={}", scratch.join("error.log"))]);
    let hello = Tls::new(server.port).records(b"");
    let mut damaged = hello.clone();
    for byte in &mut damaged[5..20] {
        *byte ^= 0xff;
    }
    let record = |kind: u8, len: usize| {
        let mut bytes = vec![kind, 3, 3];
        bytes.extend((len as u16).to_be_bytes());
        bytes.resize(bytes.len() + len, 0);
        bytes
    };
    // A message of the handshake that claims to be long, in many records.
    let mut endless = Vec::new();
    for number in 0..64 {
        let mut piece = record(0x16, 16_000);
        if number == 0 {
            piece[5..9].copy_from_slice(&[1, 0, 0xff, 0xff]);
        }
        endless.extend(piece);
    }
    let cases: [(&str, Vec<u8>); 12] = [
        ("zeros", vec![0; 100]),
        ("ones", vec![0xff; 100]),
        ("a damaged hello", damaged),
        ("two hellos", [&hello[..], &hello].concat()),
        ("a record that is too long", record(0x16, 0xffff)),
        ("application data", record(0x17, 100)),
        ("an alert", vec![0x15, 3, 3, 0, 2, 2, 40]),
        ("empty records", record(0x16, 0).repeat(100)),
        ("a message that does not end", endless),
        ("an unknown kind of record", record(0x99, 10)),
        ("a change of ciphers", record(0x14, 1).repeat(100)),
        ("SSL 2", [&[0x80, 0x2e, 1, 0, 2][..], &[0; 60]].concat()),
    ];
    for_each(
        cases,
        |(what, _)| (*what).to_owned(),
        |(_, bytes)| {
            let mut client = server.client();
            client.try_send(bytes);
            let answer = client.rest_or_reset();
            // An alert, perhaps behind the server's own part of a handshake.
            assert!(answer.len() < 4000, "{}", shown(&answer));
            assert!(
                answer.is_empty() || answer[0] == 0x15 || answer[0] == 0x16,
                "{}",
                shown(&answer)
            );
        },
    );
    let lines = scratch.read_when("error.log", |log| log.lines().count() == 12);
    assert!(
        lines.lines().all(|line| line.contains("] 127.0.0.1:") && line.contains(" TLS: ")),
        "{lines}"
    );
    stop(server);
}

#[test]
fn nonsense_behind_a_handshake_ends_the_connection_with_an_alert() {
    needs!("openssl");
    let server = serve(&[]);
    // In place of a request, in the middle of one, and behind an answer.
    for before in ["", "POST /echo HTTP/1.1\r\nContent-Length: 100000\r\n\r\nabc"] {
        let mut client = Tls::connect(server.port);
        assert_eq!(client.ask(ALIVE), b"alive");
        let mut records = client.records(before.as_bytes());
        let mut forged = client.records(b"forged");
        *forged.last_mut().expect("a record") ^= 1;
        records.extend(forged);
        client.send_raw(&records);
        assert_eq!(client.rest(), (Vec::new(), End::Alert(AlertDescription::BadRecordMac)));
    }
    stop(server);
}

#[test]
fn who_stalls_in_the_handshake_is_left_after_the_time_of_a_request() {
    needs!("openssl");
    let scratch = Scratch::new();
    let log = format!("error_log_file={}", scratch.join("error.log"));
    let mut server = serve(&["request_timeout_ms=200", "idle_timeout_ms=0", &log]);
    // Without a connection, which would be told of if it was not closed in time.
    let mut hello = Vec::new();
    open(client_config()).write_tls(&mut hello).expect("a hello");
    for_each(
        [0, 1, 3, 5, 100],
        |len| format!("{len} bytes"),
        |len| {
            let mut client = server.client();
            client.send(&hello[..*len]);
            assert!(client.rest_or_reset().is_empty());
        },
    );
    // After its own first words, too.
    let mut client = server.client();
    client.send(&hello);
    assert!(client.rest_or_reset().len() > 100);
    let count = |log: &str| log.matches(" TLS: the handshake took too long\n").count();
    let lines = scratch.read_when("error.log", |log| count(log) >= 6);
    assert_eq!(count(&lines), 6, "{lines}");
    // Now handshakes may take their time. Who has done one is merely idle.
    server.tell("io set request_timeout_ms 2000");
    server.expect_line("set request_timeout_ms: NULL");
    let mut idle = Tls::connect(server.port);
    // Part of a record is part of a request.
    let mut client = Tls::connect(server.port);
    let records = client.records(ALIVE.as_bytes());
    client.send_raw(&records[..records.len() - 1]);
    let (answer, end) = client.rest();
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", shown(&answer));
    assert_eq!(end, End::Notice);
    // That time has passed for the other one as well.
    assert_eq!(idle.ask(ALIVE), b"alive");
    stop(server);
}

#[test]
fn an_orderly_end_is_told() {
    needs!("openssl");
    let certificate = format!("ssl_certificate={}", Authority::get().identity("ec"));
    let server = Server::start(&[&certificate, "idle_timeout_ms=1000"]);
    // A last answer; an answer that the end delimits; an idle connection; a refused request.
    let raw = request("GET", "1.1", &["write HTTP/1.0 200 OK\\r\\n\\r\\nhello"]);
    let cases = [
        ("GET /alive HTTP/1.1\r\nConnection: close\r\n\r\n", "alive"),
        (&raw, "hello"),
        ("", ""),
        ("GET / HTTP/9.9\r\n\r\n", "505 HTTP Version Not Supported\n"),
    ];
    for (asked, answer) in cases {
        let mut client = Tls::connect(server.port);
        client.send(asked);
        let (plain, end) = client.rest();
        assert!(plain.ends_with(answer.as_bytes()), "{}", shown(&plain));
        assert_eq!(end, End::Notice, "{asked}");
    }
    // A client that has said its last word still gets all answers.
    let mut client = Tls::connect(server.port);
    client.send(ALIVE.repeat(3)).notify();
    let (plain, end) = client.rest();
    assert_eq!((plain.ends_with(b"alive"), end), (true, End::Notice));
    // So does one that has merely shut its socket.
    let mut client = Tls::connect(server.port);
    client.send(ALIVE.repeat(3));
    client.stream.shutdown(Shutdown::Write).expect("a half-close");
    let (plain, end) = client.rest();
    assert_eq!((plain.ends_with(b"alive"), end), (true, End::Notice));
    // And so does one that has asked for nothing whole, although there is no answer.
    for half in ["GET /alive HT", "POST /echo HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"] {
        let mut client = Tls::connect(server.port);
        client.send(half).notify();
        assert_eq!(client.rest(), (Vec::new(), End::Notice), "{half}");
    }
    // The end of the server, too.
    let mut client = Tls::connect(server.port);
    assert_eq!(client.ask(ALIVE), b"alive");
    server.program.stop();
    assert_eq!(client.rest(), (Vec::new(), End::Notice));
}

#[test]
#[cfg_attr(not(feature = "webdav"), ignore = "built without WebDAV")]
fn what_is_cut_off_does_not_pass_for_whole() {
    needs!("openssl");
    let mut dav = Dav::start(&[&format!("ssl_certificate={}", Authority::get().identity("ec"))]);
    let port = dav.server.port;
    dav.server.port = Tunnel::to(port).port;
    dav.write("kept", "old");
    // Uploads that end too early, however they end.
    type Ending = (&'static str, fn(&mut Tls));
    let endings: [Ending; 3] = [
        ("notice", |client| _ = client.notify()),
        ("end of TCP", |client| client.stream.shutdown(Shutdown::Write).expect("an end")),
        ("half a record", |client| {
            let records = client.records(b"more");
            client.send_raw(&records[..10]);
            client.stream.shutdown(Shutdown::Write).expect("an end");
        }),
    ];
    for (what, end) in endings {
        let lengths = ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"];
        for (length, part) in lengths.into_iter().zip(["part", "4\r\npart\r\n"]) {
            let mut client = Tls::connect(port);
            let head = dav.request("PUT", "/kept", length, "");
            client.send(format!("{head}{part}"));
            end(&mut client);
            let (answer, _) = client.rest();
            assert!(answer.is_empty(), "{what}: {}", shown(&answer));
        }
        assert_eq!(dav.read("kept"), "old", "{what}");
    }
    // An answer that only the end delimits, and that is not whole.
    let content = vec![b'x'; 8_000_000];
    std::fs::write(dav.scratch.join("root/large"), &content).expect("a file");
    let mut client = Tls::connect(port);
    client.send("GET /large HTTP/1.0\r\n\r\n");
    let mut begun = Vec::new();
    while begun.len() < 1000 {
        assert_eq!(client.receive(&mut begun), None);
    }
    std::fs::write(dav.scratch.join("root/large"), b"short").expect("a file");
    let (rest, end) = client.rest();
    assert!(begun.len() + rest.len() < content.len());
    assert_eq!(end, End::Cut);
    assert_eq!(Tls::connect(port).ask("GET /kept HTTP/1.1\r\n\r\n"), b"old");
    dav.server.program.stop();
}

#[test]
fn a_client_that_wants_to_begin_anew_is_refused() {
    needs!("openssl");
    let server = serve(&[]);
    let connect = format!("127.0.0.1:{}", server.port);
    let mut child = Command::new("timeout")
        .args([&deadline_secs(), "openssl", "s_client", "-tls1_2", "-connect", &connect])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"R\n").expect("a line");
    let output = child.wait_with_output().expect("its output");
    drop(stdin);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("RENEGOTIATING") && text.contains("no renegotiation"), "{text}");
    stop(server);
}

#[test]
fn a_client_that_does_not_read_holds_no_more_than_without_tls() {
    needs!("openssl");
    let scratch = Scratch::new();
    let root = format!("document_root={}", scratch.join("root"));
    std::fs::create_dir_all(scratch.join("root")).expect("a root");
    let file = std::fs::File::create(scratch.join("root/huge")).expect("a file");
    file.set_len(1 << 30).expect("a sparse file");
    // Twenty handshakes take long on an emulated machine.
    let server = serve(&[&root, "idle_timeout_ms=300000", "request_timeout_ms=300000"]);
    let resident = || {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", server.program.id()));
        let text = text.expect("its memory");
        let pages: usize = text.split(' ').nth(1).unwrap_or("").parse().expect("a number");
        pages * 4096
    };
    assert_eq!(Tls::connect(server.port).ask(ALIVE), b"alive");
    let before = resident();
    let mut clients: Vec<Tls> = (0..20).map(|_| Tls::connect(server.port)).collect();
    for client in &mut clients {
        client.send("GET /huge HTTP/1.1\r\n\r\n".repeat(3));
        let mut begun = Vec::new();
        assert_eq!(client.receive(&mut begun), None);
    }
    assert_eq!(Tls::connect(server.port).ask(ALIVE), b"alive");
    let grown = resident().saturating_sub(before);
    let is_own = !is_checked() && !crate::support::under_qemu("memory, most of which is its own");
    assert!(!is_own || grown < clients.len() * 192 * 1024, "{} bytes each", grown / clients.len());
    drop(clients);
    stop(server);
}

/// The number of renewals of its keys that a client has for itself; the library bears 32.
const RENEWALS: usize = 30;

/// Whether the connection of a client of `connect` ends although it sends what `noise` makes of it every
/// now and then. On a slow machine `RENEWALS` may be over before the timeout is: then another client
/// takes longer, though always much less than the timeout of a second from one to the next.
fn ends_in_spite_of<N: FnMut(&mut Tls) -> Vec<u8>>(
    mut connect: impl FnMut() -> Tls,
    mut noise: impl FnMut() -> N,
    pieces: usize,
) -> bool {
    let end = Instant::now() + deadline();
    let mut pause = Duration::from_millis(60);
    while Instant::now() < end {
        let mut client = connect();
        client.stream.set_read_timeout(Some(pause)).expect("a limit");
        let mut noise = noise();
        for _ in 0..RENEWALS * pieces {
            let bytes = noise(&mut client);
            if client.stream.write_all(&bytes).is_err() {
                return true;
            }
            match client.session.read_tls(&mut client.stream) {
                Ok(0) => return true,
                Ok(_) => {
                    let state = client.session.process_new_packets().expect("no nonsense");
                    if state.peer_has_closed() {
                        return true;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return true,
            }
        }
        pause = (pause * 2).min(Duration::from_millis(400));
    }
    false
}

#[test]
fn records_without_content_do_not_keep_a_connection_that_is_idle() {
    needs!("openssl");
    let scratch = Scratch::new();
    let log = format!("error_log_file={}", scratch.join("error.log"));
    let mut server = serve(&["idle_timeout_ms=1000", &log]);
    let renew = |client: &mut Tls| {
        client.session.refresh_traffic_keys().expect("new keys");
        client.records(b"")
    };
    let port = server.port;
    let alive = || {
        let mut client = Tls::connect(port);
        assert_eq!(client.ask(ALIVE), b"alive");
        client
    };
    assert!(ends_in_spite_of(alive, || renew, 1), "between requests");
    // In pieces of 5 bytes, so that there is part of a record most of the time.
    let piecewise = || {
        let mut pending = std::collections::VecDeque::new();
        move |client: &mut Tls| {
            if pending.is_empty() {
                pending.extend(renew(client));
            }
            let count = pending.len().min(5);
            pending.drain(..count).collect()
        }
    };
    assert!(ends_in_spite_of(alive, piecewise, 5), "in pieces");
    // While an answer is waited for.
    let waiting = || {
        let mut client = Tls::connect(port);
        client.send(request("GET", "1.1", &["keep one", "say kept"]));
        server.expect_line("kept");
        client
    };
    assert!(ends_in_spite_of(waiting, || renew, 1), "before an answer");
    // It was not their number, which has a limit of its own, that ended any of these.
    stop(server);
    assert_eq!(scratch.read("error.log"), "");
}

#[test]
fn a_long_record_on_a_slow_link_is_traffic() {
    needs!("openssl");
    let server = serve(&["idle_timeout_ms=1000"]);
    let mut client = Tls::connect(server.port);
    // Nothing else comes from the server any more, not even a ticket.
    assert_eq!(client.ask(ALIVE), b"alive");
    client.send("POST /echo HTTP/1.1\r\nContent-Length: 1000\r\n\r\n");
    let record = client.records(&[b'x'; 1000]);
    let (last, start) = record.split_last().expect("a record");
    for piece in start.chunks(50) {
        client.send_raw(piece);
        // All of it takes longer than the timeout.
        client.stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a limit");
        assert!(
            client.stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        );
    }
    client.stream.set_read_timeout(Some(deadline())).expect("a deadline");
    client.send_raw(&[*last]);
    let mut plain = Vec::new();
    while !plain.ends_with(b"xxx\r\n0\r\n\r\n") {
        assert_eq!(client.receive(&mut plain), None, "{}", shown(&plain));
    }
    stop(server);
}

#[test]
fn records_that_are_not_complete_count_as_buffered() {
    needs!("openssl");
    let args = ["max_buffered_bytes=60000", "request_timeout_ms=0", "idle_timeout_ms=0"];
    let server = serve(&args);
    let post =
        format!("POST /echo HTTP/1.1\r\nContent-Length: 20000\r\n\r\n{}", "x".repeat(20_000));
    let status = |client: &mut Tls| {
        client.send(&post);
        let mut plain = Vec::new();
        while plain.len() < 12 && client.receive(&mut plain).is_none() {}
        String::from_utf8_lossy(plain.get(9..12).unwrap_or_default()).into_owned()
    };
    assert_eq!(status(&mut Tls::connect(server.port)), "200");
    let hold = || {
        let mut client = Tls::connect(server.port);
        let record = client.records(&[b'x'; 16_000]);
        client.send_raw(&record[..record.len() - 1]);
        client
    };
    let held: Vec<Tls> = (0..3).map(|_| hold()).collect();
    until("what they hold is counted", || status(&mut Tls::connect(server.port)) == "503");
    // One more does not fit, and is closed.
    let mut more = hold();
    let mut plain = Vec::new();
    while more.receive(&mut plain).is_none() {}
    assert!(plain.is_empty());
    drop(held);
    until("there is room again", || status(&mut Tls::connect(server.port)) == "200");
    stop(server);
}
