//! Basic authentication (RFC 7617): on which connections it is offered and accepted, and what becomes
//! of wrong passwords.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::{
    Client, Response, Scratch, Server, deadline_secs, outside, request, under_qemu, under_valgrind,
};

/// Users and passwords of the file that guards all.
const USERS: [(&str, &str); 4] =
    [("joe", "secret"), ("jörg", "ß€"), ("colon", "a:b:"), ("empty", "")];

fn site() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("root/a.txt", "guarded");
    scratch.write("passwords", "");
    scratch
}

/// A server on which everything takes a password.
fn serve(scratch: &Scratch, args: &[&str]) -> Server {
    let (root, file) = (scratch.join("root"), scratch.join("passwords"));
    let options = ["document_root=", "global_auth_file=", "dav_auth_file="];
    let options: Vec<String> = options
        .iter()
        .zip([&root, &file, &file])
        .map(|(name, value)| format!("{name}{value}"))
        .collect();
    let mut all: Vec<&str> = options.iter().map(String::as_str).collect();
    all.extend(args);
    let lines: String = USERS
        .iter()
        .map(|(user, password)| {
            let hash = md5(&format!("{user}:mydomain.com:{password}"));
            format!("{user}:mydomain.com:{hash}\n")
        })
        .collect();
    scratch.write("passwords", lines);
    Server::start(&all)
}

fn md5(text: &str) -> String {
    let out = std::process::Command::new("sh")
        .args(["-c", "printf %s \"$1\" | md5sum", "sh", text])
        .output()
        .expect("md5sum");
    String::from_utf8_lossy(&out.stdout[..32]).into_owned()
}

fn set(server: &mut Server, name: &str, value: &str) {
    server.tell(&format!("io set {name} {value}"));
    server.expect_line(&format!("set {name}: NULL"));
}

/// The field with these credentials.
fn basic(pair: impl AsRef<[u8]>) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(pair))
}

fn get(fields: &str) -> String {
    format!("GET /a.txt HTTP/1.1\r\n{fields}\r\n")
}

/// The schemes of the challenges, in their order.
fn schemes(answer: &Response) -> Vec<&str> {
    let fields = answer.fields.iter().filter(|(name, _)| name == "WWW-Authenticate");
    fields.map(|(_, value)| value.split(' ').next().expect("a scheme")).collect()
}

#[test]
fn basic_is_offered_behind_digest_where_the_option_says_so() {
    let scratch = site();
    let table = [
        ("no", vec!["Digest"], 401),
        ("tls", vec!["Digest"], 401),
        ("always", vec!["Digest", "Basic"], 200),
    ];
    for (value, offered, status) in table {
        let server = serve(&scratch, &[&format!("enable_basic_auth={value}")]);
        let challenge = server.ask(get(""));
        assert_eq!((challenge.status, schemes(&challenge)), (401, offered.clone()), "{value}");
        let answer = server.ask(get(&basic("joe:secret")));
        assert_eq!(answer.status, status, "{value}");
        if status == 401 {
            assert_eq!(schemes(&answer), offered, "{value}");
        }
        server.stop();
    }
}

#[cfg(feature = "tls")]
#[test]
fn over_tls_basic_is_offered_and_accepted_with_both_values() {
    use crate::support::{Authority, Tunnel};
    needs!("openssl");
    let scratch = site();
    let certificate = format!("ssl_certificate={}", Authority::get().identity("ec"));
    let both = vec!["Digest", "Basic"];
    let table = [("no", vec!["Digest"], 401), ("tls", both.clone(), 200), ("always", both, 200)];
    for (value, offered, status) in table {
        let server = serve(&scratch, &[&format!("enable_basic_auth={value}"), &certificate]);
        let tunnel = Tunnel::to(server.port);
        let ask = |fields: &str| Client::connect(tunnel.port).ask(get(fields));
        let challenge = ask("");
        assert_eq!((challenge.status, schemes(&challenge)), (401, offered), "{value}");
        assert_eq!(ask(&basic("joe:secret")).status, status, "{value}");
        let wrong = ask(&basic("joe:wrong"));
        assert_eq!(wrong.status, 401, "{value}");
        server.program.stop();
    }
}

#[test]
fn the_challenge_names_realm_and_charset() {
    let scratch = site();
    let server = serve(&scratch, &["enable_basic_auth=always", "auth_domain=a \"b\\"]);
    let challenge = server.ask(get(""));
    let fields: Vec<&str> = challenge
        .fields
        .iter()
        .filter(|(name, _)| name == "WWW-Authenticate")
        .map(|(_, value)| value.as_str())
        .collect();
    assert!(fields[0].starts_with(r#"Digest realm="a \"b\\", qop="auth""#), "{}", fields[0]);
    assert_eq!(fields[1..], [r#"Basic realm="a \"b\\", charset="UTF-8""#]);
    server.stop();
}

#[test]
fn the_right_password_lets_in_whatever_is_in_it_and_nothing_else_does() {
    let scratch = site();
    let server = serve(&scratch, &["enable_basic_auth=always", "max_request_header_bytes=65536"]);
    for (user, password) in USERS {
        let answer = server.ask(get(&basic(format!("{user}:{password}"))));
        assert_eq!((answer.status, answer.text().as_str()), (200, "guarded"), "{user}:{password}");
    }
    let right = STANDARD.encode("joe:secret");
    let good = [
        format!("Authorization: basic   {right} \r\n"),
        format!("authorization: BASIC {}\r\n", right.trim_end_matches('=')),
    ];
    for field in good {
        assert_eq!(server.ask(get(&field)).status, 200, "{field}");
    }
    let long = "x".repeat(20_000);
    let wrong: [&[u8]; 14] = [
        b"joe:Secret",
        b"joe:secret ",
        b"joe:",
        b"joe",
        b"",
        b":",
        b":secret",
        b"ann:secret",
        b"colon:a",
        b"joe:mydomain.com:secret",
        b"joe:secret\0",
        b"joe\0:secret",
        b"j\xf6rg:\xdf\x80",
        long.as_bytes(),
    ];
    let mut fields: Vec<String> = wrong.iter().map(basic).collect();
    for broken in ["Basic", "Basic %%%", "Basic am9lOnNlY3JldA=x", "Basic joe:secret"] {
        fields.push(format!("Authorization: {broken}\r\n"));
    }
    // So many wait at a time for their answers.
    for part in fields.chunks(8) {
        let mut clients: Vec<Client> = part.iter().map(|_| server.client()).collect();
        for (client, field) in clients.iter_mut().zip(part) {
            client.send(get(field));
        }
        for (mut client, field) in clients.into_iter().zip(part) {
            let answer = client.response();
            assert_eq!(
                (answer.status, schemes(&answer)),
                (401, vec!["Digest", "Basic"]),
                "{field}"
            );
        }
    }
    // It is not clear which one counts, and a scheme needs a blank behind it.
    let twice = [basic("joe:secret"), basic("joe:secret")].concat();
    for field in [&twice, &format!("Authorization: Basic{right}\r\n")] {
        assert_eq!(server.ask(get(field)).status, 401, "{field}");
    }
    server.stop();
}

#[test]
fn credentials_longer_than_a_head_may_be_are_refused_with_it() {
    let scratch = site();
    let server = serve(&scratch, &["enable_basic_auth=always"]);
    assert_eq!(server.ask(get(&basic("x".repeat(20_000)))).status, 431);
    server.stop();
}

#[test]
fn a_wrong_password_waits_and_holds_nobody_up() {
    if under_valgrind() || under_qemu("what happens within half a second") {
        return;
    }
    let scratch = site();
    let log = format!("access_log_file={}", scratch.join("log"));
    let mut server = serve(&scratch, &["enable_basic_auth=always", "--step", &log]);
    // All of it has arrived before the server looks.
    let mut wrong = server.client();
    wrong.send_through(get(&basic("joe:wrong")) + &get(&basic("joe:secret")));
    let mut right = server.client();
    right.send_through(get(&basic("joe:secret")));
    server.tell("run");
    assert_eq!(right.response().status, 200);
    assert_eq!(wrong.response().status, 401);
    // The connection stays open, and its next request is next.
    assert_eq!(wrong.response().status, 200);
    server.stop();
    let log = scratch.read("log");
    let lines = log.lines().filter(|line| line.contains("a.txt"));
    let users: Vec<Option<&str>> = lines.map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(users, [Some("joe"), Some("-"), Some("joe")]);
}

#[test]
fn of_one_address_eight_wrong_passwords_wait_and_more_are_put_off() {
    if under_valgrind() || under_qemu("what happens within half a second") {
        return;
    }
    let scratch = site();
    let args = ["enable_basic_auth=always", "--step", "listening_port=[::]:0"];
    let mut server = serve(&scratch, &args);
    let fields = [basic("joe:wrong"), basic("joe:secret"), String::new()];
    let [wrong, right, none] = fields.each_ref().map(|fields| get(fields));
    // In one turn, so that no time passes.
    let mut waiting: Vec<Client> = (0..8).map(|_| server.client()).collect();
    for client in &mut waiting {
        client.send_through(&wrong);
    }
    let mut others = [(); 3].map(|()| server.client());
    for (client, request) in others.iter_mut().zip([&wrong, &right, &none]) {
        client.send_through(request);
    }
    let mut elsewhere = Client::connect6(server.port);
    elsewhere.send_through(&right);
    server.tell("run");
    let answers = others.each_mut().map(|client| client.response());
    // The right password is not looked at either: else a guess would have its result at once.
    assert_eq!(answers.each_ref().map(|answer| answer.status), [429, 429, 401]);
    for answer in &answers[..2] {
        assert_eq!((answer.field("Retry-After"), schemes(answer)), (Some("1"), vec![]));
    }
    assert_eq!(elsewhere.response().status, 200);
    for client in &mut waiting {
        assert_eq!(client.response().status, 401);
    }
    // Their answers have come: now it counts again.
    assert_eq!(others[1].ask(&right).status, 200);
    server.stop();
}

#[test]
fn a_proxy_stands_for_its_clients_and_not_for_their_tls() {
    if under_valgrind() || under_qemu("what happens within half a second") {
        return;
    }
    let scratch = site();
    let trusted = "trusted_proxies=127.0.0.1";
    let mut server = serve(&scratch, &["enable_basic_auth=always", "--step", trusted]);
    let from = |host: u8| format!("X-Forwarded-For: 10.0.0.{host}\r\n");
    let mut waiting: Vec<Client> = (0..8).map(|_| server.client()).collect();
    for client in &mut waiting {
        client.send_through(get(&(basic("joe:wrong") + &from(1))));
    }
    let mut others = [1, 2].map(|host| (server.client(), from(host)));
    for (client, field) in &mut others {
        client.send_through(get(&(basic("joe:secret") + field)));
    }
    server.tell("run");
    assert_eq!(others.each_mut().map(|(client, _)| client.response().status), [429, 200]);
    server.stop();
    let server = serve(&scratch, &["enable_basic_auth=tls", trusted]);
    let answer = server.ask(get(&(basic("joe:secret") + "X-Forwarded-Proto: https\r\n")));
    assert_eq!((answer.status, schemes(&answer)), (401, vec!["Digest"]));
    server.stop();
}

#[test]
fn a_short_idle_timeout_ends_no_wait_and_a_shut_side_loses_no_answer() {
    let scratch = site();
    let mut server = serve(&scratch, &["enable_basic_auth=always", "idle_timeout_ms=300"]);
    let mut open = server.client();
    open.send(get(&basic("joe:wrong")));
    let mut shut = server.client();
    shut.send(get(&basic("joe:wrong"))).finish_sending();
    // A change of the timeouts meanwhile changes nothing.
    set(&mut server, "idle_timeout_ms", "50");
    assert_eq!(open.response().status, 401);
    open.expect_closed();
    assert_eq!(shut.response().status, 401);
    shut.expect_closed();
    set(&mut server, "idle_timeout_ms", "60000");
    // Whoever goes away leaves nothing behind, nor does a server that ends.
    let mut gone = server.client();
    gone.send_through(get(&basic("joe:wrong")));
    gone.reset();
    let mut left = server.client();
    left.send_through(get(&basic("joe:wrong")));
    server.stop();
}

#[test]
fn uploads_are_let_in_by_basic_and_refused_without_their_content() {
    let scratch = site();
    let server = serve(&scratch, &["enable_basic_auth=always"]);
    let put = |path: &str, pair: &str, more: &str| {
        format!("PUT {path} HTTP/1.1\r\n{}{more}\r\n", basic(pair))
    };
    let mut client = server.client();
    let answer = client.ask(put("/new.txt", "joe:secret", "Content-Length: 3\r\n") + "new");
    assert_eq!((answer.status, scratch.read("root/new.txt")), (201, "new".to_owned()));
    // Short content is read, and the connection stays.
    let answer = client.ask(put("/no.txt", "joe:wrong", "Content-Length: 3\r\n") + "new");
    assert_eq!((answer.status, answer.field("Connection")), (401, Some("keep-alive")));
    assert_eq!(client.ask(get(&basic("joe:secret"))).text(), "guarded");
    // Long content is not sent for.
    let lengths = ["Content-Length: 99999999\r\n", "Content-Length: 3\r\nExpect: 100-continue\r\n"];
    for length in lengths {
        let mut client = server.client();
        let answer = client.ask(put("/no.txt", "joe:wrong", length));
        assert_eq!((answer.status, answer.field("Connection")), (401, Some("close")), "{length}");
    }
    assert!(!std::path::Path::new(&scratch.join("root/no.txt")).exists());
    // Locks belong to the user, whichever way the password came.
    let lock = "<lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>";
    let length = format!("Content-Length: {}\r\n", lock.len());
    let head = put("/new.txt", "joe:secret", &length).replace("PUT", "LOCK");
    let answer = server.ask(head + lock);
    let token = answer.field("Lock-Token").expect("a token").to_owned();
    let unlock = |pair: &str| {
        let head = put("/new.txt", pair, &format!("Lock-Token: {token}\r\n"));
        server.ask(head.replace("PUT", "UNLOCK")).status
    };
    assert_eq!((unlock("empty:"), unlock("joe:secret")), (403, 204));
    server.stop();
}

#[test]
fn programs_and_logs_learn_the_user_and_no_password() {
    let scratch = site();
    let log = format!("access_log_file={}", scratch.join("log"));
    let errors = format!("error_log_file={}", scratch.join("errors"));
    let server = serve(&scratch, &["enable_basic_auth=always", &log, &errors]);
    scratch.write("root/env.cgi", "#!/bin/sh\nprintf 'A: b\\n\\n'\nenv\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(scratch.join("root/env.cgi"), mode).expect("a program");
    let env = |fields: &str| server.ask(format!("GET /env.cgi HTTP/1.1\r\n{fields}\r\n"));
    let text = env(&basic("joe:secret")).text();
    for wanted in ["REMOTE_USER=joe", "AUTH_TYPE=Basic"] {
        assert!(text.lines().any(|line| line == wanted), "{wanted} in {text}");
    }
    assert!(!text.contains("AUTHORIZATION"), "{text}");
    assert_eq!(env(&basic("joe:wrong")).status, 401);
    // A client sends its password to all paths of the server, also to those that need none.
    server.ask(request("POST", "1.1", &["set global_auth_file ", "status 200"]));
    let text = env(&basic("joe:secret")).text();
    assert!(text.contains("SCRIPT_NAME=/env.cgi") && !text.contains("AUTHORIZATION"), "{text}");
    assert!(!text.contains("REMOTE_USER"), "{text}");
    // Where the server does not take Basic, programs may ask for it themselves.
    server.ask(request("POST", "1.1", &["set enable_basic_auth no", "status 200"]));
    let text = env(&basic("joe:secret")).text();
    assert!(text.contains("HTTP_AUTHORIZATION=Basic "), "{text}");
    server.stop();
    let log = scratch.read("log");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("env.cgi")).collect();
    assert!(lines[0].starts_with("127.0.0.1 - joe [") && lines[0].contains("\" 200 "), "{log}");
    assert!(lines[1].starts_with("127.0.0.1 - - [") && lines[1].contains("\" 401 "), "{log}");
    let errors = std::fs::read_to_string(scratch.join("errors")).unwrap_or_default();
    for secret in ["secret", "wrong", &STANDARD.encode("joe:secret"), &STANDARD.encode("joe:wrong")]
    {
        assert!(!log.contains(secret) && !errors.contains(secret), "{secret} in {log}{errors}");
    }
}

/// Fetches a page with a password for Digest.
const PYTHON: &str = "
import sys, requests
from requests.auth import HTTPDigestAuth
with requests.Session() as session:
    session.trust_env = False
    answer = session.get(sys.argv[1], timeout=float(sys.argv[2]), auth=HTTPDigestAuth('joe', 'secret'))
    print(answer.status_code, answer.text, answer.request.headers['Authorization'][:7])
";

#[test]
fn a_client_of_digest_finds_its_challenge_beside_the_other_one() {
    needs!("python3-requests");
    let scratch = site();
    let server = serve(&scratch, &["enable_basic_auth=always"]);
    let out = std::process::Command::new("/usr/bin/python3")
        .args(["-c", PYTHON, &format!("http://127.0.0.1:{}/a.txt", server.port), &deadline_secs()])
        .output()
        .expect("python3");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "200 guarded Digest \n");
    server.stop();
}

#[test]
fn curl_takes_digest_where_both_are_offered_and_basic_if_it_knows_nothing_else() {
    needs!("curl");
    let scratch = site();
    let server = serve(&scratch, &["enable_basic_auth=always"]);
    let curl = |args: &[&str]| {
        let out = outside("curl")
            .args(["-sSv", "--max-time", &deadline_secs(), "-w", " %{http_code}"])
            .args(args)
            .arg(format!("http://127.0.0.1:{}/a.txt", server.port))
            .output()
            .expect("curl");
        let trace = String::from_utf8_lossy(&out.stderr);
        let sent = trace.lines().filter_map(|line| line.strip_prefix("> Authorization: "));
        let schemes: Vec<&str> = sent.filter_map(|value| value.split(' ').next()).collect();
        format!("{} by {}", String::from_utf8_lossy(&out.stdout), schemes.join(","))
    };
    let table: [(&[&str], &str); 5] = [
        (&["--anyauth", "-u", "joe:secret"], "guarded 200 by Digest"),
        (&["--digest", "-u", "joe:secret"], "guarded 200 by Digest"),
        (&["--basic", "-u", "joe:secret"], "guarded 200 by Basic"),
        (&["-u", "jörg:ß€"], "guarded 200 by Basic"),
        (&["-u", "joe:wrong"], " 401 by Basic"),
    ];
    for (args, expected) in table {
        assert_eq!(curl(args), expected, "{args:?}");
    }
    server.stop();
}
