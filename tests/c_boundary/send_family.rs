//! Answers by `mg_send_status`, `mg_send_header`, `mg_send_data` and `mg_printf_data`.

use crate::support::{Scratch, Server, for_each, request};

/// What the handler does; status, fields in any order, and body that the client must get.
type Case = (&'static [&'static str], u16, &'static [&'static str], &'static str);

const OVER_1_1: &[Case] = &[
    (&["data hello"], 200, &["Transfer-Encoding: chunked"], "hello"),
    (&["data he", "data llo", "printf_data !"], 200, &["Transfer-Encoding: chunked"], "hello!"),
    (&["status 404", "data none"], 404, &["Transfer-Encoding: chunked"], "none"),
    (
        &["status 201", "header A b", "header C d e", "data x"],
        201,
        &["A: b", "C: d e", "Transfer-Encoding: chunked"],
        "x",
    ),
    (&["header A b", "data x"], 200, &["A: b", "Transfer-Encoding: chunked"], "x"),
    (&["status 299", "data x"], 299, &["Transfer-Encoding: chunked"], "x"),
    // The status is fixed by the first call.
    (&["data x", "status 500"], 200, &["Transfer-Encoding: chunked"], "x"),
    (&["status 201", "status 500", "data x"], 201, &["Transfer-Encoding: chunked"], "x"),
    // Status and fields alone.
    (&["status 403"], 403, &["Content-Length: 0"], ""),
    (&["header A b"], 200, &["A: b", "Content-Length: 0"], ""),
    (&["status 204"], 204, &[], ""),
    (&["status 304", "header Etag \"x\""], 304, &["Etag: \"x\""], ""),
    // Empty data writes the head and no chunk.
    (&["data "], 200, &["Transfer-Encoding: chunked"], ""),
    (&["data ", "data x", "data ", "data y"], 200, &["Transfer-Encoding: chunked"], "xy"),
    // Framing fields of the program would contradict the chunks.
    (&["header Content-Length 3", "data hello"], 200, &["Transfer-Encoding: chunked"], "hello"),
    (&["header content-length: 5", "data hello"], 200, &["Transfer-Encoding: chunked"], "hello"),
    (
        &["header Transfer-Encoding chunked", "data hello"],
        200,
        &["Transfer-Encoding: chunked"],
        "hello",
    ),
    // A colon in the name is dropped.
    (
        &["header Content-Type: text/html", "data x"],
        200,
        &["Content-Type: text/html", "Transfer-Encoding: chunked"],
        "x",
    ),
    // Line ends in a field drop the field.
    (
        &["header A b\\r\\nInjected: x", "header B b\\nInjected: x", "header C c", "data x"],
        200,
        &["C: c", "Transfer-Encoding: chunked"],
        "x",
    ),
    (&["header A\\nB c", "header D\\rE f", "data x"], 200, &["Transfer-Encoding: chunked"], "x"),
];

#[track_caller]
fn assert_fields(found: &[(String, String)], wanted: &[&str], head: &str) {
    let mut found: Vec<_> = found.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let mut wanted = wanted.to_vec();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted, "{head}");
}

#[test]
fn answers_are_chunked_for_http_1_1_and_leave_the_connection_open() {
    let server = Server::start(&[]);
    for_each(
        OVER_1_1,
        |(steps, ..)| format!("{steps:?}"),
        |(steps, status, fields, body)| {
            let mut client = server.client();
            let answer = client.ask(request("GET", "1.1", steps));
            assert_eq!(answer.status, *status);
            assert_fields(&answer.fields, fields, &answer.head);
            assert_eq!(answer.text(), *body);
            assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
        },
    );
    server.stop();
}

#[test]
fn answers_to_http_1_0_are_plain_and_end_with_the_connection() {
    let server = Server::start(&[]);
    let cases: &[Case] = &[
        (&["data he", "data llo"], 200, &["Connection: close"], "hello"),
        (&["header Content-Length 9", "data x"], 200, &["Connection: close"], "x"),
        (
            &["status 404", "header A b"],
            404,
            &["A: b", "Connection: close", "Content-Length: 0"],
            "",
        ),
    ];
    for_each(
        cases,
        |(steps, ..)| format!("{steps:?}"),
        |(steps, status, fields, body)| {
            let mut client = server.client();
            let answer = client.ask(request("GET", "1.0", steps));
            assert_eq!(answer.status, *status);
            assert_fields(&answer.fields, fields, &answer.head);
            assert_eq!(answer.text(), *body);
            client.expect_closed();
        },
    );
    server.stop();
}

#[test]
fn connection_close_is_added_where_the_client_asked_for_the_close() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let answer = client.ask("GET /do HTTP/1.1\r\nConnection: close\r\nDo: data x\r\n\r\n");
    assert_fields(
        &answer.fields,
        &["Connection: close", "Transfer-Encoding: chunked"],
        &answer.head,
    );
    assert_eq!(answer.text(), "x");
    client.expect_closed();
    server.stop();
}

#[test]
fn a_connection_close_of_the_programs_own_closes() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let answer = client.ask(request("GET", "1.1", &["header Connection close", "data x"]));
    assert_fields(
        &answer.fields,
        &["Connection: close", "Transfer-Encoding: chunked"],
        &answer.head,
    );
    assert_eq!(answer.text(), "x");
    client.expect_closed();
    server.stop();
}

#[test]
fn an_answer_to_head_has_no_body() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.send(request("HEAD", "1.1", &["header A b", "data hello"]));
    let answer = client.response_without_body();
    assert_eq!((answer.status, answer.field("A")), (200, Some("b")));
    assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    server.stop();
}

#[test]
fn large_data_arrives_whole() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let steps = ["data_fill 1 a", "data_fill 8000000 b", "data_fill 100000 c"];
    let body = client.ask(request("GET", "1.1", &steps)).body;
    assert_eq!(body.len(), 8_100_001);
    assert!(body[0] == b'a' && body[1] == b'b' && body[8_000_001..].iter().all(|b| *b == b'c'));
    assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    server.stop();
}

#[test]
fn an_answer_that_outlives_the_handler_is_ended_by_empty_data() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    client.send(request("GET", "1.1", &["keep a", "say called"]));
    server.expect_line("called");
    for step in ["status 200", "header A b", "data one", "data two", "data "] {
        server.tell(&format!("io late a {step}"));
        server.program.expect_start(&format!("late a {step}: "));
    }
    let answer = client.response();
    assert_eq!((answer.field("A"), answer.text().as_str()), (Some("b"), "onetwo"));
    assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    server.stop();
}

#[test]
fn raw_bytes_after_status_and_fields_follow_the_head_so_far() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let steps = ["status 200", "header Content-Length 5", "write \\r\\nhello"];
    client.send(request("GET", "1.1", &steps));
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    let steps = ["header A b", "printf C: d\\r\\n\\r\\nhello"];
    client.send(request("GET", "1.1", &steps));
    client.expect("HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\r\nhello").expect_closed();
    server.stop();
}

#[test]
fn after_raw_bytes_the_family_writes_nothing_more_and_logs_it() {
    let scratch = Scratch::new();
    let log = format!("error_log_file={}", scratch.join("errors"));
    let server = Server::start(&[&log]);
    let mut client = server.client();
    let raw = "write HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n";
    let steps = [raw, "status 500", "header A b", "data no", "printf_data no", "write hi"];
    client.send(request("GET", "1.1", &steps));
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    server.stop();
    let log = scratch.read("errors");
    assert!(log.lines().count() >= 1 && log.contains("127.0.0.1"), "{log:?}");
}

#[test]
fn a_dropped_field_is_logged() {
    let scratch = Scratch::new();
    let log = format!("error_log_file={}", scratch.join("errors"));
    let server = Server::start(&[&log]);
    server.ask(request("GET", "1.1", &["header A b\\r\\nc", "data x"]));
    server.ask("GET /alive HTTP/1.1\r\n\r\n");
    server.stop();
    let log = scratch.read("errors");
    assert!(log.lines().count() == 1 && log.contains("127.0.0.1"), "{log:?}");
}

#[test]
fn the_status_that_was_sent_can_be_read_back() {
    let mut server = Server::start(&[]);
    server.ask(request("GET", "1.1", &["status 418", "report status", "data x"]));
    server.expect_line("status 418");
    server.stop();
}
