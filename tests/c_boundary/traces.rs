//! Nothing of one request is left to be seen in another: buffers and records are used again, and
//! must come back clean.

use crate::support::{Scratch, Server, exchange, is_checked, request, shown};

/// Requests of every kind, whole and cut.
fn requests() -> Vec<String> {
    let length = |method: &str, uri: &str, len: usize, body: &str| {
        format!("{method} {uri} HTTP/1.1\r\nContent-Length: {len}\r\n\r\n{body}")
    };
    let large = "x".repeat(100_000);
    let raw = "write HTTP/1.1 202 Accepted\\r\\nContent-Length: 2\\r\\n\\r\\nhi";
    vec![
        "GET /echo?q=1 HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n".to_owned(),
        "GET /echo HTTP/1.0\r\n\r\n".to_owned(),
        "GET /count HTTP/1.1\r\nReferer: r\r\nUser-Agent: u\r\n\r\n".to_owned(),
        "HEAD /count HTTP/1.1\r\n\r\n".to_owned(),
        length("POST", "/echo", 5, "hello"),
        length("POST", "/echo", 100_000, &large),
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: t\r\n\r\n"
            .to_owned(),
        format!("GET /echo HTTP/1.1\r\n{}\r\n", "F: f\r\n".repeat(100)),
        request("GET", "1.1", &["status 418", "header A b", "data x"]),
        request("POST", "1.1", &["status 201"]),
        request("GET", "1.1", &[raw]),
        request("GET", "1.0", &[raw]),
        request("GET", "1.1", &["write HTTP/1.1 200 OK\\r\\n\\r\\nhello"]),
        request("GET", "1.1", &["write no head at all"]),
        request("HEAD", "1.1", &["data_fill 1000 x"]),
        request("GET", "1.1", &["data_fill 300000 y"]),
        request("POST", "1.1", &[]),
        request("GET", "1.1", &["status 204"]),
        // Cut in the head, in the body, between chunks.
        "GET /echo?cut HTTP/1.1\r\nA: b\r\n".to_owned(),
        length("POST", "/echo?cut", 5, "ab"),
        length("POST", "/echo?cut", 100_000, &large[..70_000]),
        length("POST", "/do?cut", 5, "ab"),
        "POST /echo?cut HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".to_owned(),
        length("POST", "/none?cut", 5, "ab"),
        // Errors before, in and behind the head.
        "GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(),
        "GET / HTTP/3.0\r\n\r\n".to_owned(),
        format!("GET /{large} HTTP/1.1\r\n\r\n"),
        "GET /none?q HTTP/1.1\r\n\r\n".to_owned(),
        "HEAD /none HTTP/1.1\r\n\r\n".to_owned(),
        length("POST", "/echo", 200_000, ""),
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".to_owned(),
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\n\r\n".to_owned(),
        "POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
        // Files.
        "GET /a.txt HTTP/1.1\r\n\r\n".to_owned(),
        "HEAD /a.txt HTTP/1.0\r\n\r\n".to_owned(),
        "GET /dir?q HTTP/1.1\r\n\r\n".to_owned(),
    ]
}

fn site() -> Scratch {
    let site = Scratch::new();
    site.write("a.txt", "file").write("dir/index.html", "index");
    site
}

fn start(site: &Scratch, scratch: &Scratch) -> Server {
    let root = format!("document_root={}", site.join(""));
    let log = format!("access_log_file={}", scratch.join("log"));
    Server::start(&[&root, &log, "max_request_body_bytes=150000"])
}

/// The answer without its date, and without the interim answer that depends on timing.
fn answer_to(server: &Server, request: &str) -> String {
    let answer = exchange(server.port, request);
    let text = String::from_utf8_lossy(&answer);
    let text = text.replace("HTTP/1.1 100 Continue\r\n\r\n", "");
    text.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
}

/// The lines of the log without their times.
fn log_of(scratch: &Scratch) -> Vec<String> {
    let log = scratch.read("log");
    let line = |line: &str| line.split_once("] ").map(|(_, rest)| rest.to_owned());
    log.lines().map(|text| line(text).unwrap_or_else(|| panic!("{text}"))).collect()
}

/// Answer and log line of the request as the first one that a server ever got. A head that never
/// ended has no line.
fn alone(site: &Scratch, request: &str) -> (String, Option<String>) {
    let scratch = Scratch::new();
    let server = start(site, &scratch);
    let answer = answer_to(&server, request);
    server.program.stop();
    let log = log_of(&scratch);
    assert!(log.len() <= 1, "{log:?}");
    (answer, log.into_iter().next())
}

#[test]
fn a_request_is_answered_and_logged_alike_whatever_came_before_it() {
    let site = site();
    let mut requests = requests();
    if is_checked() {
        requests = requests.into_iter().step_by(5).collect();
    }
    let alone: Vec<_> = requests.iter().map(|request| alone(&site, request)).collect();
    let scratch = Scratch::new();
    let server = start(&site, &scratch);
    let mut order = Vec::new();
    for before in 0..requests.len() {
        for after in 0..requests.len() {
            for number in [before, after] {
                let answer = answer_to(&server, &requests[number]);
                assert!(
                    answer == alone[number].0,
                    "{}\nbehind\n{}\nis answered by\n{}\nand not by\n{}",
                    shown(&requests[number].as_bytes()[..requests[number].len().min(300)]),
                    shown(&requests[before].as_bytes()[..requests[before].len().min(300)]),
                    &answer[..answer.len().min(500)],
                    &alone[number].0[..alone[number].0.len().min(500)],
                );
                if alone[number].1.is_some() {
                    order.push(number);
                }
            }
        }
    }
    server.program.stop();
    let log = log_of(&scratch);
    assert_eq!(log.len(), order.len(), "lines in the log");
    let mut wrong: Vec<String> = log
        .iter()
        .zip(&order)
        .map(|(line, number)| (line, alone[*number].1.as_deref().unwrap_or_default()))
        .filter(|(line, wanted)| line != wanted)
        .map(|(line, wanted)| format!("logged {line}\nand not {wanted}"))
        .collect();
    wrong.sort_unstable();
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_request_is_answered_alike_behind_another_one_on_its_connection() {
    let (site, scratch) = (site(), Scratch::new());
    let server = start(&site, &scratch);
    // Cut ones would swallow what follows, and counts belong to their connection.
    let unfit = |request: &String| ["?cut", "/count"].iter().any(|part| request.contains(part));
    let mut requests: Vec<String> = requests();
    requests.retain(|request| !unfit(request));
    let answers: Vec<_> = requests.iter().map(|request| answer_to(&server, request)).collect();
    let alive = "GET /alive HTTP/1.1\r\n\r\n";
    let mut persistent = 0;
    for (first, first_answer) in requests.iter().zip(&answers) {
        let stays = answer_to(&server, &format!("{first}{alive}")).ends_with("alive");
        persistent += usize::from(stays);
        for (second, second_answer) in requests.iter().zip(&answers) {
            let found = answer_to(&server, &format!("{first}{second}"));
            let rest = found.strip_prefix(first_answer.as_str());
            let wanted = if stays { second_answer } else { "" };
            assert!(
                rest == Some(wanted),
                "{}\nbehind\n{}\nis answered by\n{}\nand not by\n{}",
                &second[..second.len().min(300)],
                &first[..first.len().min(300)],
                &found[..found.len().min(900)],
                &wanted[..wanted.len().min(500)],
            );
        }
    }
    assert!(persistent > requests.len() / 2, "{persistent} of {} persist", requests.len());
    server.program.stop();
}
