//! Digest authentication (RFC 7616) of requests for files, driven by curl and by hand.

use std::process::Command;

use crate::support::{Response, Scratch, Server, deadline_secs, outside};

fn site() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("root/open.txt", "open");
    scratch.write("root/guarded/a.txt", "guarded");
    scratch.write("root/guarded/below/b.txt", "below");
    scratch.write("root/guarded/.htpasswd", format!("{}\n", joe()));
    scratch
}

/// A line of a password file.
fn joe() -> String {
    format!("joe:mydomain.com:{}", md5("joe:mydomain.com:secret"))
}

fn serve(scratch: &Scratch, args: &[&str]) -> Server {
    let root = format!("document_root={}", scratch.join("root"));
    let mut all = vec![root.as_str()];
    all.extend(args);
    Server::start(&all)
}

/// The status and the body that curl ends with.
fn curl(server: &Server, target: &str, args: &[&str]) -> String {
    let out = outside("curl")
        .args(["-sS", "--max-time", &deadline_secs(), "-w", " %{http_code}"])
        .args(args)
        .arg(format!("http://127.0.0.1:{}{target}", server.port))
        .output()
        .expect("curl");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn nonce_of(answer: &Response) -> String {
    let field = answer.field("WWW-Authenticate").expect("a challenge");
    assert!(field.starts_with("Digest realm=\"mydomain.com\""), "{field}");
    let start = field.find("nonce=\"").expect("a nonce") + 7;
    field[start..].split('"').next().expect("its end").to_owned()
}

fn md5(text: &str) -> String {
    let mut child = Command::new("md5sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("md5sum");
    std::io::Write::write_all(child.stdin.as_mut().expect("its input"), text.as_bytes())
        .expect("written");
    let out = child.wait_with_output().expect("its output");
    String::from_utf8_lossy(&out.stdout[..32]).into_owned()
}

/// A request for `target` that answers the challenge of `nonce` for `uri`.
fn answering(target: &str, uri: &str, nonce: &str, count: &str, password: &str) -> String {
    let ha1 = md5(&format!("joe:mydomain.com:{password}"));
    let ha2 = md5(&format!("GET:{uri}"));
    let response = md5(&format!("{ha1}:{nonce}:{count}:abc:auth:{ha2}"));
    format!(
        "GET {target} HTTP/1.1\r\nAuthorization: Digest username=\"joe\", \
         realm=\"mydomain.com\", nonce=\"{nonce}\", uri=\"{uri}\", qop=auth, nc={count}, \
         cnonce=\"abc\", response=\"{response}\"\r\n\r\n"
    )
}

#[test]
fn curl_gets_a_guarded_file_with_the_right_password_only() {
    needs!("curl");
    let scratch = site();
    let server = serve(&scratch, &[]);
    let digest = |user| ["--digest", "-u", user];
    assert_eq!(curl(&server, "/open.txt", &[]), "open 200");
    assert_eq!(curl(&server, "/guarded/a.txt", &[]), " 401");
    assert_eq!(curl(&server, "/guarded/a.txt", &digest("joe:secret")), "guarded 200");
    assert_eq!(curl(&server, "/guarded/a.txt?q=1", &digest("joe:secret")), "guarded 200");
    assert_eq!(curl(&server, "/guarded/a.txt", &digest("joe:wrong")), " 401");
    assert_eq!(curl(&server, "/guarded/a.txt", &digest("jane:secret")), " 401");
    // A password file guards its own directory.
    assert_eq!(curl(&server, "/guarded/below/b.txt", &[]), "below 200");
    // What is guarded does not even say whether it exists.
    assert_eq!(curl(&server, "/guarded/none", &[]), " 401");
    assert_eq!(curl(&server, "/guarded/.htpasswd", &[]), " 401");
    let inside = curl(&server, "/guarded/.htpasswd", &digest("joe:secret"));
    assert_eq!(inside, "404 Not Found\n 404");
    server.stop();
}

/// Fetches the guarded file twice, the second time in a session where the client has one, and
/// prints status and text of each.
const PYTHON: &str = "
import sys, requests
from requests.auth import HTTPDigestAuth
address, user, password, limit = sys.argv[1:]
with requests.Session() as session:
    session.trust_env = False
    session.auth = HTTPDigestAuth(user, password)
    for query in ('', '?a=b%20c'):
        answer = session.get(address + query, timeout=float(limit))
        print(answer.status_code, answer.text)
";

#[test]
fn python_requests_gets_a_guarded_file_with_the_right_password_only() {
    needs!("python3-requests");
    let scratch = site();
    let server = serve(&scratch, &[]);
    let address = format!("http://127.0.0.1:{}/guarded/a.txt", server.port);
    let fetch = |user, password| {
        // Debian's own Python has Debian's packages.
        let out = Command::new("/usr/bin/python3")
            .args(["-c", PYTHON, &address, user, password, &deadline_secs()])
            .output()
            .expect("python3");
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "is python3-requests installed?\n{error}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert_eq!(fetch("joe", "secret"), "200 guarded\n200 guarded\n");
    assert_eq!(fetch("joe", "wrong"), "401 \n401 \n");
    assert_eq!(fetch("ann", "secret"), "401 \n401 \n");
    server.stop();
}

#[test]
fn wget_gets_a_guarded_file_with_the_right_password_only() {
    needs!("wget");
    let scratch = site();
    let server = serve(&scratch, &[]);
    let timeout = format!("--timeout={}", deadline_secs());
    let fetch = |user: &str, password: &str, target: &str| {
        let out = outside("wget")
            .args(["-q", "-O", "-", "--no-config", "--no-proxy", "--tries=1", &timeout])
            .args([format!("--user={user}"), format!("--password={password}")])
            .arg(format!("http://127.0.0.1:{}{target}", server.port))
            .output()
            .expect("wget");
        // 6: it was not let in.
        assert!([Some(0), Some(6)].contains(&out.status.code()), "{}", out.status);
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert_eq!(fetch("joe", "secret", "/guarded/a.txt"), "guarded");
    assert_eq!(fetch("joe", "secret", "/guarded/a.txt?a=b"), "guarded");
    assert_eq!(fetch("joe", "wrong", "/guarded/a.txt"), "");
    assert_eq!(fetch("ann", "secret", "/guarded/a.txt"), "");
    server.stop();
}

#[test]
fn a_global_password_file_guards_everything_and_must_be_there() {
    needs!("curl");
    let scratch = site();
    scratch.write("global", format!("{}\n", joe()));
    let option = format!("global_auth_file={}", scratch.join("global"));
    let server = serve(&scratch, &[&option]);
    assert_eq!(curl(&server, "/open.txt", &[]), " 401");
    assert_eq!(curl(&server, "/open.txt", &["--digest", "-u", "joe:secret"]), "open 200");
    std::fs::remove_file(scratch.join("global")).expect("removed");
    assert_eq!(curl(&server, "/open.txt", &["--digest", "-u", "joe:secret"]), " 401");
    server.stop();
}

#[test]
fn an_answer_counts_once_for_its_own_target_and_nonce() {
    let scratch = site();
    let server = serve(&scratch, &[]);
    let target = "/guarded/a.txt";
    let challenge = server.ask(format!("GET {target} HTTP/1.1\r\n\r\n"));
    assert_eq!(challenge.status, 401);
    let nonce = nonce_of(&challenge);
    let ask = |request: String| server.ask(request);
    assert_eq!(ask(answering(target, target, &nonce, "00000002", "secret")).status, 200);
    assert_eq!(ask(answering(target, target, &nonce, "00000001", "secret")).status, 200);

    let again = ask(answering(target, target, &nonce, "00000002", "secret"));
    assert_eq!(again.status, 401);
    let field = again.field("WWW-Authenticate").expect("a challenge");
    assert!(field.contains("stale=true"), "{field}");

    let wrong = ask(answering(target, target, &nonce, "00000003", "wrong"));
    let field = wrong.field("WWW-Authenticate").expect("a challenge");
    assert!(wrong.status == 401 && !field.contains("stale=true"), "{field}");
    let other = "/guarded/none";
    assert_eq!(ask(answering(target, other, &nonce, "00000004", "secret")).status, 401);

    let forged = "0".repeat(nonce.len());
    let stale = ask(answering(target, target, &forged, "00000001", "secret"));
    let field = stale.field("WWW-Authenticate").expect("a challenge");
    assert!(stale.status == 401 && field.contains("stale=true"), "{field}");
    server.stop();
}

#[test]
fn writing_needs_a_password_file_of_its_own() {
    let scratch = site();
    let server = serve(&scratch, &[]);
    for method in ["PUT", "DELETE", "MKCOL", "COPY", "MOVE", "PROPPATCH", "LOCK", "UNLOCK"] {
        let answer = server.ask(format!("{method} /open.txt HTTP/1.1\r\n\r\n"));
        assert_eq!(answer.status, 401, "{method}");
        nonce_of(&answer);
    }
    let upload = "PUT /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let answer = server.ask(upload);
    assert_eq!((answer.status, answer.field("Connection")), (401, Some("close")));
    server.stop();
}

#[test]
fn the_access_log_names_the_user() {
    needs!("curl");
    let scratch = site();
    let log = format!("access_log_file={}", scratch.join("log"));
    let server = serve(&scratch, &[&log]);
    curl(&server, "/guarded/a.txt", &["--digest", "-u", "joe:secret"]);
    server.stop();
    let lines = scratch.read("log");
    let lines: Vec<&str> = lines.lines().collect();
    assert!(lines[0].starts_with("127.0.0.1 - - [") && lines[0].contains("\" 401 0 "));
    assert!(lines[1].starts_with("127.0.0.1 - joe [") && lines[1].contains("\" 200 7 "));
}

#[test]
fn a_password_file_from_an_editor_of_windows_lets_the_same_users_in() {
    needs!("curl");
    let scratch = site();
    let jane = joe().replace("joe", "jane");
    let server = serve(&scratch, &[]);
    let let_in = || curl(&server, "/guarded/a.txt", &["--digest", "-u", "joe:secret"]);
    let files = [
        (format!("\u{feff}{}\r\n{jane}\r\n", joe()), format!("\u{feff}{jane}\r\n")),
        (format!("\u{feff}{}\n{jane}", joe()), format!("\u{feff}{jane}")),
        (format!("{jane}\r\n{}", joe()), format!("{jane}\r\n")),
        (format!("\u{feff}{}", joe()), "\u{feff}".to_owned()),
    ];
    for (text, without) in files {
        scratch.write("root/guarded/.htpasswd", &text);
        assert_eq!(let_in(), "guarded 200", "{text:?}");
        let forget = format!("forget {} joe", scratch.join("root/guarded/.htpasswd"));
        server.ask(crate::support::request("POST", "1.1", &[&forget, "status 200"]));
        assert_eq!(let_in(), " 401", "{text:?}");
        assert_eq!(scratch.read("root/guarded/.htpasswd"), without);
    }
    server.stop();
}
