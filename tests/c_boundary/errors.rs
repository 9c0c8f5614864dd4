//! Errors that the library answers itself, and the handler for them.

use crate::support::{Server, for_each, shown};

#[test]
fn a_standard_error_has_this_form() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let answer = client.ask("GET /none HTTP/1.1\r\n\r\n");
    assert!(answer.head.starts_with("HTTP/1.1 404 Not Found\r\n"), "{}", answer.head);
    assert_eq!(answer.field("Content-Type"), Some("text/plain"));
    assert_eq!(answer.field("Content-Length"), Some("14"));
    assert_eq!(answer.field("Connection"), Some("keep-alive"));
    let date = answer.field("Date").expect("a date");
    assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
    assert_eq!(answer.fields.len(), 4, "{}", answer.head);
    assert_eq!(answer.text(), "404 Not Found\n");
    client.send("HEAD /none HTTP/1.1\r\n\r\n");
    let head = client.response_without_body();
    assert_eq!((head.status, head.field("Content-Length")), (404, Some("14")));
    let answer = client.ask("GET /none HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert_eq!(answer.field("Connection"), Some("close"));
    client.expect_closed();
    server.stop();
}

#[test]
#[cfg_attr(not(feature = "webdav"), ignore = "built without WebDAV")]
fn options_connect_and_trace_without_a_handler() {
    let server = Server::start(&[]);
    for target in ["/none", "*"] {
        let answer = server.ask(format!("OPTIONS {target} HTTP/1.1\r\n\r\n"));
        assert_eq!(answer.status, 200, "{target}");
        assert!(answer.field("Allow").is_some_and(|methods| methods.contains("GET")), "{target}");
        assert!(answer.field("DAV").is_some_and(|classes| classes.starts_with('1')), "{target}");
    }
    for method in ["CONNECT", "TRACE"] {
        let answer = server.ask(format!("{method} /none HTTP/1.1\r\n\r\n"));
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.field("Allow").is_some(), "{method}");
    }
    server.stop();
}

#[test]
fn the_error_handler_may_leave_the_error_to_the_library() {
    let mut server = Server::start(&["--errors", "--error-returns=0"]);
    let answer = server.ask("GET /none?q HTTP/1.1\r\nA: b\r\n\r\n");
    assert_eq!(answer.text(), "404 Not Found\n");
    server.expect_line("ERROR 404 method=GET uri=/none query=q headers=1");
    // The target of CONNECT should be a host and a port, but is shown if it is a path.
    assert_eq!(server.ask("CONNECT /none?q HTTP/1.1\r\nA: b\r\n\r\n").status, 405);
    server.expect_line("ERROR 405 method=CONNECT uri=/none query=q headers=1");
    server.stop();
}

#[test]
fn what_an_error_handler_wrote_is_dropped_when_it_returns_0() {
    for step in ["--error=write HTTP/1.1 200 OK\\r\\n\\r\\nmine", "--error=data mine"] {
        let server = Server::start(&["--errors", "--error-returns=0", step]);
        let mut client = server.client();
        let answer = client.ask("GET /none HTTP/1.1\r\n\r\n");
        assert_eq!((answer.status, answer.text().as_str()), (404, "404 Not Found\n"), "{step}");
        assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
        server.stop();
    }
}

#[test]
fn the_error_handler_may_answer_itself() {
    let server = Server::start(&["--errors", "--error=header A b", "--error=data mine"]);
    let mut client = server.client();
    let answer = client.ask("GET /none HTTP/1.1\r\n\r\n");
    assert_eq!(answer.status, 404, "the error is the default status");
    assert_eq!((answer.field("A"), answer.text().as_str()), (Some("b"), "mine"));
    assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    server.stop();

    let raw = "--error=write HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\nmine";
    let server = Server::start(&["--errors", raw]);
    let mut client = server.client();
    let answer = client.ask("GET /none HTTP/1.1\r\n\r\n");
    assert_eq!((answer.status, answer.text().as_str()), (200, "mine"));
    assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    server.stop();

    let server = Server::start(&["--errors", "--error=status 503", "--error=data mine"]);
    assert_eq!(server.ask("GET /none HTTP/1.1\r\n\r\n").status, 503);
    server.stop();
}

#[test]
fn a_silent_error_handler_that_claims_the_error_closes_the_connection() {
    let server = Server::start(&["--errors", "--error-returns=1"]);
    server.client().send("GET /none HTTP/1.1\r\n\r\n").expect_closed();
    server.stop();
}

#[test]
fn the_error_handler_gets_errors_of_requests_that_were_not_understood() {
    let mut server = Server::start(&["--errors", "--error=data mine"]);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000));
    let cases = [
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\n\r\n", 505),
        (&long, 431),
    ];
    for (request, status) in cases {
        let mut client = server.client();
        let answer = client.ask(request);
        assert_eq!((answer.status, answer.text().as_str()), (status, "mine"));
        client.expect_closed();
        server.expect_line(&format!("ERROR {status} method= uri= query=NULL headers=0"));
    }
    server.stop();
}

#[test]
fn the_error_handler_sees_a_connect_whose_target_is_a_path() {
    let mut server = Server::start(&["--errors", "--error-returns=0"]);
    for target in ["/none?q", "http://b/none?q"] {
        let answer = server.ask(format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(answer.status, 405, "{target}");
        server.expect_line("ERROR 405 method=CONNECT uri=/none query=q headers=1");
    }
    assert_eq!(server.ask("CONNECT b:1 HTTP/1.1\r\nHost: a\r\n\r\n").status, 405);
    server.expect_line("ERROR 405 method= uri= query=NULL headers=0");
    server.stop();
}

#[test]
fn the_error_handler_gets_the_other_errors_too() {
    let mut server = Server::start(&["--errors", "--error-returns=0", "max_request_body_bytes=10"]);
    let cases = [
        ("POST /echo HTTP/1.1\r\nContent-Length: 11\r\n\r\nhello world", 413),
        ("TRACE /none HTTP/1.1\r\n\r\n", 405),
        ("POST /echo HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    ];
    for_each(
        cases,
        |(request, _)| shown(request.as_bytes()),
        |(request, status)| assert_eq!(server.ask(request).status, *status),
    );
    for (_, status) in cases {
        server.program.expect_start(&format!("ERROR {status} "));
    }
    server.stop();
}

#[test]
fn an_error_handler_may_call_back_into_the_library() {
    let server = Server::start(&[
        "--errors",
        "--error=set idle_timeout_ms 5000",
        "--error=poll 10",
        "--error=handler /none first",
        "--error-returns=0",
    ]);
    assert_eq!(server.ask("GET /none HTTP/1.1\r\n\r\n").status, 404);
    assert_eq!(server.ask("GET /none HTTP/1.1\r\n\r\n").text(), "first");
    server.stop();
}
