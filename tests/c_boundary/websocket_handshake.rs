//! The opening handshake of websockets: who becomes one, who is refused, and who is served as
//! plain HTTP.

use crate::support::{
    Client, Scratch, Websocket, WebsocketServer, exchange, for_each, frame, handshake, until,
};

#[test]
fn handshakes_that_succeed() {
    let server = WebsocketServer::start(&[]);
    let good = handshake("/echo", "");
    let cases = [
        good.clone(),
        good.replace("Upgrade: websocket", "UPGRADE:\tWebSocket "),
        good.replace("Upgrade: websocket", "Upgrade: h2c, WEBSOCKET"),
        good.replace("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: websocket"),
        good.replace("Connection: Upgrade", "Connection: keep-alive, upgrade"),
        good.replace("Connection: Upgrade", "connection: keep-alive\r\nconnection: UPGRADE"),
        good.replace("Sec-WebSocket-Key", "sec-websocket-key"),
        good.replace("Host: a\r\n", ""),
        good.replace("\r\n", "\n"),
        handshake("/echo/below?with=query", ""),
        handshake("/echo", "Content-Length: 0\r\n"),
        handshake("/echo", "Sec-WebSocket-Extensions: permessage-deflate\r\n"),
        handshake("/echo", "Sec-WebSocket-Protocol: chat\r\n"),
        handshake("/echo", "Origin: http://elsewhere\r\n"),
    ];
    for_each(cases, String::clone, |case| {
        let mut client = Client::connect(server.port);
        client.send(case);
        let mut socket = Websocket::begin(client);
        let fields = socket.head.matches("\r\n").count();
        assert_eq!(fields, 5, "{}", socket.head);
        socket.text("hello").expect_text("hello");
    });
    server.stop();
}

#[test]
fn handshakes_that_are_refused() {
    let server = WebsocketServer::start(&[]);
    let good = handshake("/events", "");
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let cases = [
        (good.replace("HTTP/1.1", "HTTP/1.0"), 400),
        (good.replace("Connection: Upgrade\r\n", ""), 400),
        (good.replace("Connection: Upgrade", "Connection: keep-alive"), 400),
        (good.replace("Connection: Upgrade", "Connection: upgraded"), 400),
        (good.replace(key, ""), 400),
        (good.replace(key, "Sec-WebSocket-Key:\r\n"), 400),
        (good.replace(key, "Sec-WebSocket-Key: c2hvcnQ=\r\n"), 400),
        (good.replace("ZQ==", "ZQ"), 400),
        (good.replace("ZQ==", "ZSE="), 400),
        (good.replace("ZQ==", "Z!=="), 400),
        (good.replace(key, &key.repeat(2)), 400),
        (good.replace("Sec-WebSocket-Version: 13\r\n", ""), 400),
        (good.replace("Version: 13", "Version: 12"), 426),
        (good.replace("Version: 13", "Version: 8"), 426),
        (good.replace("Version: 13", "Version: 0"), 426),
        (good.replace("Version: 13", "Version: 14"), 426),
        (good.replace("Version: 13", "Version: x"), 426),
        (handshake("/events", "Content-Length: 5\r\n") + "hello", 400),
        (handshake("/events", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", 400),
    ];
    for_each(
        cases,
        |(case, _)| case.clone(),
        |(case, status)| {
            let answer = Client::connect(server.port).ask(case);
            assert_eq!(answer.status, *status, "{}", answer.head);
            let version = (*status == 426).then_some("13");
            assert_eq!(answer.field("Sec-WebSocket-Version"), version, "{}", answer.head);
            let upgrade = version.map(|_| "websocket");
            assert_eq!(answer.field("Upgrade"), upgrade, "{}", answer.head);
            let says = answer.field("Connection").is_some_and(|said| said.contains("Upgrade"));
            assert_eq!(says, upgrade.is_some(), "{}", answer.head);
            assert_eq!(answer.field("Sec-WebSocket-Accept"), None);
        },
    );
    server.stop();
}

#[test]
fn requests_for_a_websocket_that_are_served_as_plain_http() {
    let mut server = WebsocketServer::start(&[]);
    let good = handshake("/events", "");
    let cases = [
        (handshake("/nobody", ""), 404, None),
        (good.replace("GET", "POST"), 200, Some("HTTP POST /events")),
        (good.replace("GET", "PUT"), 200, Some("HTTP PUT /events")),
        (good.replace("Upgrade: websocket", "Upgrade: h2c"), 200, Some("HTTP GET /events")),
        (good.replace("Upgrade: websocket", "Upgrade: websockets"), 200, Some("HTTP GET /events")),
        (good.replace("Upgrade: websocket\r\n", ""), 200, Some("HTTP GET /events")),
    ];
    for (case, status, line) in cases {
        let mut client = Client::connect(server.port);
        let answer = client.ask(&case);
        assert_eq!(answer.status, status, "{case}{}", answer.head);
        if let Some(line) = line {
            assert_eq!(answer.text(), "plain");
            server.expect_line(line);
        }
        // Such a connection is good for another request, and for a websocket.
        client.send(handshake("/echo", ""));
        Websocket::begin(client).text("hello").expect_text("hello");
    }
    server.stop();
}

#[test]
fn the_error_handler_sees_handshakes_that_fail() {
    let mut server = WebsocketServer::start(&["--errors"]);
    let good = handshake("/events", "");
    for (case, line) in [
        (good.replace("Version: 13", "Version: 12"), "ERROR 426 /events websocket=0"),
        (good.replace("Connection: Upgrade\r\n", ""), "ERROR 400 /events websocket=0"),
        (handshake("/nobody", ""), "ERROR 404 /nobody websocket=0"),
    ] {
        let answer = Client::connect(server.port).ask(case);
        assert_eq!(answer.status.to_string(), line[6..9], "{}", answer.head);
        server.expect_line(line);
    }
    server.stop();
}

#[test]
fn the_first_subprotocol_that_both_sides_know_is_chosen() {
    let server = WebsocketServer::start(&["websocket_protocols=chat,superchat"]);
    let cases = [
        ("", None),
        ("Sec-WebSocket-Protocol: soap\r\n", None),
        ("Sec-WebSocket-Protocol: chat\r\n", Some("chat")),
        ("Sec-WebSocket-Protocol: superchat, chat\r\n", Some("superchat")),
        ("Sec-WebSocket-Protocol: soap,chat,superchat\r\n", Some("chat")),
        (
            "Sec-WebSocket-Protocol: soap\r\nSec-WebSocket-Protocol: superchat\r\n",
            Some("superchat"),
        ),
        ("Sec-WebSocket-Protocol: CHAT, chatter\r\n", None),
    ];
    for (fields, wanted) in cases {
        let mut socket = Websocket::open_with(server.port, "/echo", fields);
        let line = wanted.map(|name| format!("\r\nSec-WebSocket-Protocol: {name}\r\n"));
        match line {
            Some(line) => assert!(socket.head.contains(&line), "{fields}{}", socket.head),
            None => assert!(!socket.head.contains("WebSocket-Protocol"), "{fields}{}", socket.head),
        }
        socket.text("hello").expect_text("hello");
    }
    server.stop();
}

#[test]
fn frames_may_follow_the_handshake_at_once() {
    let server = WebsocketServer::start(&[]);
    let mut client = Client::connect(server.port);
    client.send([handshake("/echo", "").as_bytes(), &frame(0x81, "at once")].concat());
    Websocket::begin(client).expect_text("at once");
    // Behind an answer that the same connection got before.
    let mut client = Client::connect(server.port);
    let both = format!("GET /events HTTP/1.1\r\n\r\n{}", handshake("/echo", ""));
    client.send([both.as_bytes(), &frame(0x81, "at once")].concat());
    assert_eq!(client.response().text(), "plain");
    Websocket::begin(client).expect_text("at once");
    server.stop();
}

#[test]
fn the_strings_of_the_handshake_stay_while_the_websocket_lives() {
    let mut server = WebsocketServer::start(&[]);
    let mut socket = Websocket::open_with(server.port, "/events/a%20b?x=%41", "X-Last: end\r\n");
    // The program checks at every event that addresses and texts are those of the first.
    for number in 0..20 {
        socket.text(&format!("message {number}"));
        assert_eq!(Client::connect(server.port).ask("GET /echo HTTP/1.1\r\n\r\n").text(), "plain");
    }
    socket.frame(0x82, vec![0; 100_000]).text("do strings");
    server.expect_line(
        "strings GET /events/a b x=%41 Host=a Upgrade=websocket Connection=Upgrade \
         Sec-WebSocket-Version=13 Sec-WebSocket-Key=dGhlIHNhbXBsZSBub25jZQ== X-Last=end",
    );
    server.stop();
}

#[test]
fn variables_come_from_the_query_of_the_handshake_and_then_from_the_message() {
    let mut server = WebsocketServer::start(&[]);
    let mut socket = server.open("/vars?a=one&b=two+%21");
    socket.text("b=other&c=three%20").text("d=4&a=5");
    socket.frame(0x82, "e=\x01").frame(0x89, "e=ping").expect(0x8a, "e=ping");
    let lines = server.events();
    let wanted = [
        ["var a 3 one", "var b 5 two !", "var c 6 three ", "var d -1 ", "var e -1 "],
        ["var a 3 one", "var b 5 two !", "var c -1 ", "var d 1 4", "var e -1 "],
        ["var a 3 one", "var b 5 two !", "var c -1 ", "var d -1 ", "var e 1 \x01"],
    ];
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end_matches("untouched")).collect();
    assert_eq!(lines, wanted.concat());
    server.stop();
}

#[test]
fn the_access_log_tells_of_a_websocket_once_when_it_has_closed() {
    let scratch = Scratch::new();
    let log = format!("access_log_file={}", scratch.join("log"));
    let server = WebsocketServer::start(&[&log]);
    let mut socket = Websocket::open_with(server.port, "/echo?a=b", "User-Agent: me\r\n");
    socket.text("hello").expect_text("hello");
    exchange(server.port, "GET /events HTTP/1.1\r\nConnection: close\r\n\r\n");
    until("the other request is logged", || scratch.read("log").contains("GET /events"));
    assert!(!scratch.read("log").contains("/echo"), "{}", scratch.read("log"));
    socket.frame(0x88, "").expect(0x88, "").client.expect_closed();
    server.program.stop();
    let logged = scratch.read("log");
    let lines: Vec<&str> = logged.lines().filter(|line| line.contains("/echo")).collect();
    let [line] = lines[..] else { panic!("{logged}") };
    // The seven bytes of the echo and the two of the Close.
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(line.ends_with("] \"GET /echo?a=b HTTP/1.1\" 101 9 \"-\" \"me\""), "{line}");
}
