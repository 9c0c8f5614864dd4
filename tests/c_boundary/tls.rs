//! HTTP over TLS, as curl, openssl, Python and the suite's own clients meet it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::{
    Authority, Client, Dav, Program, Scratch, Server, Tunnel, Websocket, WebsocketServer,
    as_many_as, deadline_secs, for_each, has_32_bits, outside, request,
};

/// `ssl_certificate=…` for one of the authority's identities.
fn certificate(name: &str) -> String {
    format!("ssl_certificate={}", Authority::get().identity(name))
}

/// A server that speaks TLS, and a port behind which it speaks plainly.
fn serve(args: &[&str]) -> (Server, Tunnel) {
    let certificate = certificate("ec");
    let mut all = vec![certificate.as_str()];
    all.extend(args);
    let server = Server::start(&all);
    let tunnel = Tunnel::to(server.port);
    (server, tunnel)
}

/// The server still answers over TLS, and ends cleanly.
#[track_caller]
fn stop((server, tunnel): (Server, Tunnel)) {
    let answer = Client::connect(tunnel.port).ask("GET /alive HTTP/1.1\r\n\r\n");
    assert_eq!(answer.text(), "alive");
    server.program.stop();
}

fn curl(args: &[&str]) -> Output {
    outside("curl")
        .args(["-sS", "--max-time", &deadline_secs(), "--cacert", &Authority::get().trusted()])
        .args(args)
        .output()
        .expect("curl")
}

/// What curl prints; it must succeed.
#[track_caller]
fn curled(args: &[&str]) -> String {
    let output = curl(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {args:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What `openssl s_client` prints, on both channels, when it is given `input` and then its end.
fn s_client(port: u16, args: &[&str], input: &str) -> String {
    let connect = format!("127.0.0.1:{port}");
    let mut child = Command::new("timeout")
        .arg(deadline_secs())
        .args(["openssl", "s_client", "-connect", &connect])
        .args(["-CAfile", &Authority::get().trusted(), "-verify_return_error"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl");
    use std::io::Write as _;
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("its output");
    [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}

/// What a program in Python prints: `connect(port)` gives a connected socket.
#[track_caller]
fn python(program: &str, port: u16) -> String {
    let prelude = "import ssl, socket, sys\n\
        port, trusted = int(sys.argv[1]), sys.argv[2]\n\
        context = ssl.create_default_context(cafile=trusted)\n\
        def connect(**more):\n    \
            raw = socket.create_connection(('127.0.0.1', port), float(sys.argv[3]))\n    \
            return context.wrap_socket(raw, server_hostname='localhost', **more)\n";
    let output = outside("python3")
        .args(["-c", &format!("{prelude}{program}"), &port.to_string()])
        .args([&Authority::get().trusted(), &deadline_secs()])
        .output()
        .expect("python3");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

#[test]
fn curl_is_served_in_both_versions_with_every_kind_of_key_and_keeps_its_connection() {
    needs!("curl", "openssl");
    for name in ["ec", "rsa", "ed25519"] {
        let server = Server::start(&[&certificate(name)]);
        let url = format!("https://127.0.0.1:{}/alive", server.port);
        for (least, most) in [("--tlsv1.2", "1.2"), ("--tlsv1.3", "1.3")] {
            let told = "%{num_connects} %{http_version} %{ssl_verify_result}\\n";
            let args = [least, "--tls-max", most, "-w", told, &url, &url];
            let text = curled(&args);
            assert_eq!(text, "alive1 1.1 0\nalive0 1.1 0\n", "{name} {most}");
        }
        // Nothing older is spoken.
        let output = curl(&["--tlsv1.0", "--tls-max", "1.1", &url]);
        assert!(!output.status.success());
        server.program.stop();
    }
}

#[test]
fn files_go_both_ways_whole_and_in_parts() {
    needs!("curl", "openssl");
    let scratch = Scratch::new();
    let content = pattern(as_many_as(20_000_000, 3_000_000));
    scratch.write("large", &content);
    let dav = Dav::start_in(scratch, &[&certificate("rsa")]);
    let place = |name: &str| dav.scratch.join(name);
    let base = format!("https://127.0.0.1:{}", dav.server.port);
    let (large, back, part) = (place("large"), place("back"), place("part"));
    let url = format!("{base}/large");
    for version in ["1.2", "1.3"] {
        let user = ["--digest", "-u", "joe:secret", "--tls-max", version];
        curled(&[&user[..], &["-f", "-T", &large, &url]].concat());
        assert!(std::fs::read(place("root/large")).expect("an upload") == content);
        let chunked = ["-H", "Transfer-Encoding: chunked", "--data-binary"];
        let told = ["-w", "%{http_code}", "-o", &part];
        let (sent, echo) = (format!("@{large}"), format!("{base}/echo"));
        let status =
            curled(&[&["--tls-max", version][..], &chunked, &[&sent], &told, &[&echo]].concat());
        assert_eq!(status, "200");
        assert!(std::fs::read(&part).expect("an echo").ends_with(&content));
        curled(&["--tls-max", version, "-f", "-o", &back, &url]);
        assert!(std::fs::read(&back).expect("a download") == content);
        curled(&["--tls-max", version, "-f", "-r", "1000-1999999", "-o", &part, &url]);
        assert!(std::fs::read(&part).expect("a part") == content[1000..2_000_000]);
        for name in ["root/large", "back", "part"] {
            std::fs::remove_file(place(name)).expect("a file");
        }
    }
    let made = curled(&[
        "--digest",
        "-u",
        "joe:secret",
        "-X",
        "MKCOL",
        "-w",
        "%{http_code}",
        &format!("{base}/folder"),
    ]);
    assert!(made.ends_with("201"), "{made}");
    let told = curled(&["-X", "PROPFIND", "-H", "Depth: 1", &format!("{base}/")]);
    assert!(told.contains("/folder/"), "{told}");
    dav.server.program.stop();
}

#[test]
fn requests_are_pipelined_in_and_answers_of_all_sizes_follow_each_other() {
    needs!("openssl");
    let scratch = Scratch::new();
    let content = pattern(1_000_000);
    let sizes = [0, 1, 8191, 8192, 16383, 16384, 16385, 32768, 65535, 65536, 65537, 1_000_000];
    for size in sizes {
        scratch.write(&format!("root/{size}"), &content[..size]);
    }
    let both = serve(&[&format!("document_root={}", scratch.join("root"))]);
    let mut client = Client::connect(both.1.port);
    let asked: String = sizes.iter().map(|size| format!("GET /{size} HTTP/1.1\r\n\r\n")).collect();
    client.send(asked);
    for size in sizes {
        assert!(client.response().body == content[..size], "{size}");
    }
    // Content long and short, by its length and in chunks, with more behind it.
    for size in sizes {
        let body = &content[..size.min(500_000)];
        let head = format!("POST /echo HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
        client.send([head.as_bytes(), body, b"GET /alive HTTP/1.1\r\n\r\n"].concat());
        assert!(client.response().body.ends_with(body), "{size}");
        assert_eq!(client.response().text(), "alive");
        let head = "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut chunks = head.as_bytes().to_vec();
        for piece in body.chunks(30_000) {
            chunks.extend(format!("{:x}\r\n", piece.len()).bytes());
            chunks.extend(piece);
            chunks.extend(b"\r\n");
        }
        client.send([&chunks[..], b"0\r\n\r\n"].concat());
        assert!(client.response().body.ends_with(body), "{size}");
    }
    client.send("GET /1000000 HTTP/1.0\r\n\r\n");
    assert!(client.response().body == content);
    client.expect_closed();
    stop(both);
}

#[test]
fn answers_are_given_later_and_without_a_length() {
    needs!("openssl");
    let (mut server, tunnel) = serve(&[]);
    let mut client = Client::connect(tunnel.port);
    client.send(request("GET", "1.1", &["keep one"]));
    let text = "HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nlater";
    assert!(server.late("one", &format!("write {text}")) > 0);
    assert_eq!(client.response().text(), "later");
    // Its end is that of the connection, and is told as TLS tells it.
    client.send(request("GET", "1.1", &["write HTTP/1.0 200 OK\\r\\n\\r\\nhello"]));
    assert_eq!(client.response().text(), "hello");
    let mut client = Client::connect(tunnel.port);
    client.send(request("GET", "1.1", &["data_fill 3000000 x", "data end"]));
    assert_eq!(client.response().body.len(), 3_000_003);
    // Written while the client does not read.
    client.send(request("GET", "1.1", &["keep two"]));
    server.late("two", "write HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\n\\r\\n");
    let count = as_many_as(40, 5);
    for _ in 0..count {
        assert_eq!(server.late("two", "write_fill 1000000 y"), 1_000_000);
    }
    client.take_through("\r\n\r\n");
    assert_eq!(client.take(count * 1_000_000).len(), count * 1_000_000);
    stop((server, tunnel));
}

#[test]
fn websockets_speak_through_it() {
    needs!("openssl");
    let mut server = WebsocketServer::start(&[&certificate("ec")]);
    let tunnel = Tunnel::to(server.port);
    let mut socket = Websocket::open(tunnel.port, "/echo");
    for size in [0, 1, 125, 126, 12 * 1024, 65535, 65536, 300_000] {
        let message = pattern(size);
        socket.frame(0x82, &message).expect(0x82, &message);
    }
    // Many in one segment, and one in many.
    let text = "x".repeat(100);
    let frame = crate::support::frame(0x81, &text);
    socket.send(frame.repeat(500));
    for _ in 0..500 {
        socket.expect_text(&text);
    }
    for byte in &frame {
        socket.send([*byte]);
    }
    socket.expect_text(&text);
    // From another thread.
    let mut other = Websocket::open(tunnel.port, "/events?a");
    other.text("do keep a");
    server.expect_line("kept a");
    server.tell("to a write 1 news");
    socket.text("still there").expect_text("still there");
    socket.frame(0x88, 1000u16.to_be_bytes()).expect_close(1000);
    drop(other);
    let mut last = Websocket::open(tunnel.port, "/echo");
    last.text("alive").expect_text("alive");
    server.program.stop();
}

#[test]
fn a_websocket_in_python_is_echoed() {
    needs!("openssl", "python3");
    let server = WebsocketServer::start(&[&certificate("rsa")]);
    let text = python(
        "with connect() as sock, sock.makefile('rb') as file:\n    \
            sock.sendall(b'GET /echo HTTP/1.1\\r\\nUpgrade: websocket\\r\\n'\n        \
                b'Connection: Upgrade\\r\\nSec-WebSocket-Version: 13\\r\\n'\n        \
                b'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n')\n    \
            print(file.readline())\n    \
            while file.readline() != b'\\r\\n': pass\n    \
            sock.sendall(bytes([0x81, 0x85, 0, 0, 0, 0]) + b'hello')\n    \
            print(file.read(7))\n",
        server.port,
    );
    assert_eq!(text, "b'HTTP/1.1 101 Switching Protocols\\r\\n'\nb'\\x81\\x05hello'\n");
    server.program.stop();
}

#[test]
fn a_client_in_python_is_served_and_told_of_the_end() {
    needs!("openssl", "python3");
    let scratch = Scratch::new();
    scratch.write("root/large", pattern(1_000_000));
    let (server, tunnel) = serve(&[&format!("document_root={}", scratch.join("root"))]);
    let text = python(
        "with connect() as sock:\n    \
            sock.sendall(b'GET /large HTTP/1.0\\r\\n\\r\\n')\n    \
            size = 0\n    \
            while piece := sock.recv(65536):\n        \
                size += len(piece)\n    \
            print(sock.version(), sock.selected_alpn_protocol(), size > 1000000)\n    \
            sock.unwrap()\n\
         context.set_alpn_protocols(['h2', 'http/1.1'])\n\
         context.maximum_version = ssl.TLSVersion.TLSv1_2\n\
         with connect() as sock:\n    \
            session = sock.session\n    \
            print(sock.version(), sock.selected_alpn_protocol(), sock.session_reused)\n\
         with connect(session=session) as sock:\n    \
            print(sock.session_reused)\n",
        server.port,
    );
    assert_eq!(text, "TLSv1.3 None True\nTLSv1.2 http/1.1 False\nTrue\n");
    stop((server, tunnel));
}

#[test]
fn sessions_are_resumed_and_other_protocols_refused() {
    needs!("openssl");
    let (server, tunnel) = serve(&[]);
    let scratch = Scratch::new();
    let kept = scratch.join("session");
    let ask = "GET /alive HTTP/1.1\r\nConnection: close\r\n\r\n";
    for version in ["-tls1_2", "-tls1_3"] {
        let args = [version, "-ign_eof", "-alpn", "h2,http/1.1"];
        let text = s_client(server.port, &[&args[..], &["-sess_out", &kept]].concat(), ask);
        for wanted in ["ALPN protocol: http/1.1", "\nNew, ", "Verify return code: 0", "alive"] {
            assert!(text.contains(wanted), "{version}: no {wanted} in {text}");
        }
        assert!(Path::new(&kept).exists());
        let text = s_client(server.port, &[&args[..], &["-sess_in", &kept]].concat(), ask);
        assert!(text.contains("\nReused, ") && text.contains("alive"), "{version}: {text}");
        let text = s_client(server.port, &[version, "-alpn", "h2"], "");
        assert!(text.contains("alert no application protocol"), "{version}: {text}");
    }
    stop((server, tunnel));
}

#[test]
fn a_program_is_told_that_its_client_speaks_tls() {
    needs!("openssl");
    let scratch = Scratch::new();
    scratch.write_program(
        "root/env.cgi",
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'; cat; echo $HTTPS $SERVER_PORT\n",
    );
    let both = serve(&[&format!("document_root={}", scratch.join("root"))]);
    let mut client = Client::connect(both.1.port);
    let content = pattern(300_000);
    let head = b"POST /env.cgi HTTP/1.1\r\nContent-Length: 300000\r\n\r\n";
    let answer = client.ask([&head[..], &content].concat());
    let end = format!("on {}\n", both.0.port);
    assert!(answer.body == [&content, end.as_bytes()].concat());
    stop(both);
}

/// Sets an option on the polling thread; the sentence, or `NULL`.
fn set(server: &mut Server, name: &str, value: &str) -> String {
    server.tell(&format!("io set {name} {value}"));
    server.program.expect_start(&format!("set {name}: "))
}

/// The name in the certificate that a new client is shown.
fn shown_name(port: u16) -> String {
    let text = s_client(port, &[], "");
    let subject = text.split("subject=CN = ").nth(1).unwrap_or_else(|| panic!("none in {text}"));
    subject.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn the_certificate_may_be_set_renewed_and_unset_while_the_server_serves() {
    needs!("openssl");
    let authority = Authority::get();
    let scratch = Scratch::new();
    let path = scratch.join("server.pem");
    let renew = |name: &str| {
        scratch.write("server.pem", std::fs::read(authority.identity(name)).expect("a file"));
    };
    let mut server = Server::start(&[]);
    let mut plain = server.client();
    assert_eq!(plain.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    renew("ec");
    assert_eq!(set(&mut server, "ssl_certificate", &path), "NULL");
    assert_eq!(shown_name(server.port), "ec");
    let tunnel = Tunnel::to(server.port);
    let mut old = Client::connect(tunnel.port);
    assert_eq!(old.ask("GET /count HTTP/1.1\r\n\r\n").text(), "1");
    renew("other");
    // The file is read when the option is set, and not before.
    assert_eq!(shown_name(server.port), "ec");
    assert_eq!(set(&mut server, "ssl_certificate", &path), "NULL");
    assert_eq!(shown_name(server.port), "other");
    // From inside a handler.
    let step = format!("set ssl_certificate {}", authority.identity("rsa"));
    old.ask(request("GET", "1.1", &[&step, "data x"]));
    server.expect_line("set ssl_certificate: NULL");
    assert_eq!(shown_name(server.port), "rsa");
    assert_eq!(set(&mut server, "ssl_certificate", ""), "NULL");
    // All connections go on as they began.
    for client in [&mut plain, &mut server.client()] {
        assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    }
    assert_eq!(old.ask("GET /count HTTP/1.1\r\n\r\n").text(), "2");
    server.stop();
}

/// What `openssl` prints.
#[track_caller]
fn openssl(args: &[&str]) -> String {
    let output = outside("openssl").args(args).output().expect("openssl");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {args:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A certificate that the key in a file has signed itself.
fn signed_by_itself(key: &str) -> String {
    openssl(&["req", "-x509", "-new", "-key", key, "-subj", "/CN=self", "-days", "30"])
}

/// The same, but over for years. (Its signature is wrong, which is for the client to see.)
fn expired(scratch: &Scratch, certificate: &str) -> String {
    let [from, to] = ["expired.crt", "expired.der"].map(|name| scratch.join(name));
    scratch.write("expired.crt", certificate);
    openssl(&["x509", "-in", &from, "-outform", "der", "-out", &to]);
    let mut der = std::fs::read(&to).expect("a certificate");
    // UTCTime, 13 characters long, twice: from when, until when.
    let times: Vec<usize> = memchr::memmem::find_iter(&der, b"\x17\x0d").collect();
    let year = times[1] + 2;
    der[year..year + 2].copy_from_slice(b"01");
    scratch.write("expired.der", der);
    openssl(&["x509", "-inform", "der", "-in", &to])
}

#[test]
fn a_file_that_is_no_identity_is_refused_by_the_right_sentence_and_the_old_one_stands() {
    needs!("openssl");
    let authority = Authority::get();
    let scratch = Scratch::new();
    let log = scratch.join("error.log");
    let good = authority.identity("ec");
    let [key, chain] = ["ec.key", "ec.crt"].map(|name| authority.read(name));
    let broken = chain.replacen("MII", "AAA", 1);
    let half = |text: &str| text[..text.len() / 2].to_owned();
    let with_key = |key: &str| Some(format!("{key}{chain}"));
    let secret = openssl(&["pkcs8", "-topk8", "-in", &good, "-passout", "pass:x"]);
    let old_secret = key.replace("PRIVATE KEY-----", "RSA PRIVATE KEY-----").replacen(
        "-----\n",
        "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\n",
        1,
    );
    let curve = |name: &str| openssl(&["ecparam", "-name", name, "-genkey"]);
    let new_curve = |name: &str| {
        let option = format!("ec_paramgen_curve:{name}");
        openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", &option])
    };
    // Its own certificate beside, so that nothing but the version is wrong.
    let request = scratch.join("request");
    openssl(&["req", "-new", "-key", &good, "-subj", "/CN=v1", "-out", &request]);
    let first = openssl(&["x509", "-req", "-in", &request, "-signkey", &good]);
    scratch.write("v1.crt", &first);
    let text = openssl(&["x509", "-in", &scratch.join("v1.crt"), "-noout", "-text"]);
    assert!(text.contains("Version: 1 "), "{text}");
    openssl(&["x509", "-in", &good, "-outform", "der", "-out", &scratch.join("binary.pem")]);

    let read = "Cannot read the certificate file";
    let form = "The certificate file is not in PEM format";
    let no_chain = "No certificate in the certificate file";
    let damaged = "The certificate is damaged";
    let locked = "The private key is encrypted with a password";
    let key_damaged = "The private key is damaged";
    let kind = "The private key is of an unsupported kind";
    let wrong_curve = "The private key is on an unsupported curve: P-256 and P-384 are supported";
    let joined = "Two sections of the certificate file meet in one line";
    let alien = "The private key does not belong to the certificate";
    let openssh = key.replace("PRIVATE KEY", "OPENSSH PRIVATE KEY");
    let cases = [
        ("missing.pem", None, read),
        ("missing.pem/below.pem", None, read),
        ("", None, read),
        ("fifo", None, read),
        ("empty.pem", Some(String::new()), "The certificate file is empty"),
        ("garbage.pem", Some("\0\u{1}garbage\n".repeat(100)), form),
        ("binary.pem", None, form),
        ("long.pem", Some("x".repeat((1 << 20) + 1)), read),
        ("key.pem", Some(key.clone()), no_chain),
        ("secret-key.pem", Some(secret.clone()), no_chain),
        ("chain.pem", Some(chain.clone()), "No private key in the certificate file"),
        ("cut.pem", Some(format!("{key}{}", half(&chain))), damaged),
        ("cut2.pem", Some(format!("{key}{chain}{}", half(&chain))), damaged),
        ("character.pem", Some(format!("{key}{}", chain.replacen("MII", "M!I", 1))), damaged),
        ("broken.pem", Some(format!("{key}{broken}")), damaged),
        ("joined.pem", with_key(key.trim_end()), joined),
        ("cut-key.pem", with_key(&format!("{}\n", half(&key))), key_damaged),
        ("character-key.pem", with_key(&key.replacen("MIG", "M!G", 1)), key_damaged),
        ("secret.pem", with_key(&secret), locked),
        ("old-secret.pem", with_key(&old_secret), locked),
        (
            "weak.pem",
            with_key(&openssl(&["genrsa", "1024"])),
            "The RSA key is too short: it needs 2048 bits at least",
        ),
        (
            "weak-old.pem",
            with_key(&openssl(&["genrsa", "-traditional", "1024"])),
            "The RSA key is too short: it needs 2048 bits at least",
        ),
        ("p521.pem", with_key(&new_curve("P-521")), wrong_curve),
        ("p521-old.pem", with_key(&curve("secp521r1")), wrong_curve),
        ("koblitz.pem", with_key(&curve("secp256k1")), wrong_curve),
        ("ed448.pem", with_key(&openssl(&["genpkey", "-algorithm", "ed448"])), kind),
        ("openssh.pem", with_key(&openssh), kind),
        ("no-key.pem", with_key(&key.replacen("MIG", "MIH", 1)), "The private key cannot be used"),
        ("v1.pem", Some(format!("{key}{first}")), "The certificate is not of version 3"),
        ("strange.pem", with_key(&authority.read("other.key")), alien),
        ("strange-old.pem", with_key(&curve("prime256v1")), alien),
    ];
    let mut server = Server::start(&[&format!("ssl_certificate={good}")]);
    let fifo = std::ffi::CString::new(scratch.join("fifo")).expect("a path");
    // SAFETY: `fifo` is a C string.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o666) }, 0);
    assert_eq!(set(&mut server, "error_log_file", &log), "NULL");
    for (number, (name, content, sentence)) in cases.iter().enumerate() {
        if let Some(content) = content {
            scratch.write(name, content);
        }
        assert_eq!(&set(&mut server, "ssl_certificate", &scratch.join(name)), sentence, "{name}");
        server.tell("io get ssl_certificate");
        assert_eq!(server.program.expect_start("get ssl_certificate: "), good);
        let lines = scratch.read("error.log");
        assert_eq!(lines.lines().count(), number + 1, "{lines}");
        let last = lines.lines().last().unwrap_or_default();
        assert!(last.contains(&format!("ssl_certificate: {}: ", scratch.join(name))), "{last}");
        assert!(!last.contains('[') || last.rfind('[') == Some(0), "no lists of numbers: {last}");
    }
    assert_eq!(shown_name(server.port), "ec");
    server.program.stop();
}

#[test]
fn whatever_else_is_in_the_file_the_identity_is_found() {
    needs!("openssl");
    let authority = Authority::get();
    let scratch = Scratch::new();
    let [key, chain] = ["ec.key", "ec.crt"].map(|name| authority.read(name));
    let secret =
        openssl(&["pkcs8", "-topk8", "-in", &authority.identity("rsa"), "-passout", "pass:x"]);
    let old = scratch.join("old.key");
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-out", &old]);
    let with_parameters = scratch.read("old.key");
    assert!(with_parameters.contains("EC PARAMETERS"));
    let parameters = "-----BEGIN DH PARAMETERS-----\nMAYCAQsCAQI=\n-----END DH PARAMETERS-----\n";
    let p384 = scratch.join("p384.key");
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", &p384]);
    let cases = [
        ("parameters", format!("{with_parameters}{}", signed_by_itself(&old)), "self"),
        ("p384", format!("{}{}", scratch.read("p384.key"), signed_by_itself(&p384)), "self"),
        // Whoever lets it expire is served as 5.0 served him: the clients judge.
        (
            "expired",
            format!("{with_parameters}{}", expired(&scratch, &signed_by_itself(&old))),
            "self",
        ),
        ("chain first", format!("{chain}{key}"), "ec"),
        ("other sections", format!("{parameters}{key}{parameters}{chain}{parameters}"), "ec"),
        ("another key that is locked", format!("{secret}{key}{chain}"), "ec"),
        ("text around", format!("Bag Attributes\n  x: y\n{key}subject=/CN=x\n{chain}end"), "ec"),
        ("lines of Windows", format!("\u{feff}{key}{chain}").replace('\n', "\r\n"), "ec"),
    ];
    let mut server = Server::start(&[]);
    for (what, text, name) in cases {
        scratch.write("server.pem", text);
        let path = scratch.join("server.pem");
        assert_eq!(set(&mut server, "ssl_certificate", &path), "NULL", "{what}");
        let told = s_client(server.port, &["-verify_quiet"], "");
        assert!(told.contains(&format!("CN = {name}")), "{what}: {told}");
    }
    server.program.stop();
}

#[test]
fn what_is_logged_and_listed_is_what_it_would_be_without() {
    needs!("openssl");
    let scratch = Scratch::new();
    let content = pattern(300_000);
    scratch.write("root/file", &content);
    let (mut server, tunnel) = serve(&[
        "iterate_over=all",
        &format!("document_root={}", scratch.join("root")),
        &format!("access_log_file={}", scratch.join("access.log")),
    ]);
    let mut client = Client::connect(tunnel.port);
    assert_eq!(client.ask("GET /file HTTP/1.1\r\n\r\n").body, content);
    assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    server.tell("iterate");
    server.expect_line("iterated 1 called 1");
    let log = scratch.read_when("access.log", |log| log.lines().count() == 2);
    assert!(log.contains("\"GET /file HTTP/1.1\" 200 300000 "), "{log}");
    assert!(log.contains("\"GET /alive HTTP/1.1\" 200 5 "), "{log}");
    assert_eq!(set(&mut server, "access_control_list", "-0.0.0.0/0"), "NULL");
    let mut denied = server.client();
    denied.try_send([0x16, 3, 1]);
    assert!(denied.rest_or_reset().is_empty());
    assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    server.program.stop();
}

#[test]
fn forked_workers_serve_with_the_certificate_of_their_parent() {
    needs!("openssl");
    let identity = Authority::get().identity("ec");
    let mut program = Program::start("fork.c", &["workers", &identity]);
    let port = program.port();
    let tunnel = Tunnel::to(port);
    let parent = program.id().to_string();
    for _ in 0..as_many_as(40, 4) {
        let mut client = Client::connect(tunnel.port);
        let first = client.ask("GET /pid HTTP/1.1\r\n\r\n").text();
        assert_eq!(client.ask("GET /pid HTTP/1.1\r\n\r\n").text(), first);
        assert_ne!(first, parent);
    }
    program.stop();
}

/// Sessions that one worker began are resumed by the others, of which all began `hours` ago.
fn resumes_across_workers(hours: &str) {
    let identity = Authority::get().identity("ec");
    let mut program = Program::start("fork.c", &["workers", &identity, hours]);
    let port = program.port();
    let scratch = Scratch::new();
    let kept = scratch.join("session");
    let ask = "GET /pid HTTP/1.1\r\nConnection: close\r\n\r\n";
    s_client(port, &["-ign_eof", "-sess_out", &kept], ask);
    // Whichever of them is asked, also one that has given out no ticket itself.
    for _ in 0..as_many_as(12, 3) {
        let text = s_client(port, &["-ign_eof", "-sess_in", &kept], ask);
        assert!(text.contains("\nReused, "), "{hours}: {text}");
    }
    program.stop();
}

#[test]
fn forked_workers_take_each_others_tickets_however_long_they_run() {
    needs!("openssl");
    resumes_across_workers("0");
    // Another function tells the time there.
    if !has_32_bits() {
        for hours in ["7", "100"] {
            resumes_across_workers(hours);
        }
    }
}

#[test]
fn a_forked_child_does_not_end_what_its_parent_serves() {
    needs!("openssl");
    let identity = Authority::get().identity("ec");
    let mut program = Program::start("fork.c", &["children", &identity]);
    let tunnel = Tunnel::to(program.port());
    let parent = program.id().to_string();
    let mut bystander = Client::connect(tunnel.port);
    for number in 1..=6 {
        assert_eq!(bystander.ask("GET /pid HTTP/1.1\r\n\r\n").text(), parent);
        assert_eq!(bystander.ask("GET /fork_later HTTP/1.1\r\n\r\n").text(), "soon");
        program.expect_line(&format!("child {number} ended with 0"));
        assert_eq!(bystander.ask("GET /fork_here HTTP/1.1\r\n\r\n").text(), "0");
    }
    assert_eq!(bystander.ask("GET /fork_on HTTP/1.1\r\n\r\n").text(), "on");
    bystander.expect_closed();
    program.stop();
}

#[test]
fn many_clients_at_once_are_served() {
    needs!("openssl");
    let both = serve(&[]);
    let port = both.1.port;
    let ask = |number: &usize| {
        let mut client = Client::connect(port);
        let content = pattern(1000 * number);
        let head = format!("POST /echo HTTP/1.1\r\nContent-Length: {}\r\n\r\n", content.len());
        for _ in 0..3 {
            let answer = client.ask([head.as_bytes(), &content].concat());
            assert!(answer.body.ends_with(&content));
        }
    };
    std::thread::scope(|scope| {
        for number in 1..as_many_as(60, 6) {
            scope.spawn(move || for_each([number], |number| number.to_string(), ask));
        }
    });
    stop(both);
}
