//! Options while a server serves: the listening port, the access control list, the logs, the user.

use crate::support::{Client, Scratch, Server, for_each, request, until};
use std::net::{TcpListener, TcpStream};

fn port_of(address: &str) -> u16 {
    let port = address.rsplit(':').next().unwrap_or_default();
    port.parse().unwrap_or_else(|_| panic!("no port in {address:?}"))
}

/// Sets an option on the polling thread; the sentence, or `NULL`.
fn set(server: &mut Server, name: &str, value: &str) -> String {
    server.tell(&format!("io set {name} {value}"));
    server.program.expect_start(&format!("set {name}: "))
}

fn get(server: &mut Server, name: &str) -> String {
    server.tell(&format!("io get {name}"));
    server.program.expect_start(&format!("get {name}: "))
}

#[track_caller]
fn assert_alive(mut client: Client) {
    assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
}

#[track_caller]
fn assert_refused(port: u16) {
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "somebody listens on {port}");
}

#[test]
fn port_0_picks_a_free_port_and_the_option_shows_it() {
    for address in ["0", "127.0.0.1:0"] {
        let mut server = Server::start(&[&format!("listening_port={address}")]);
        let shown = get(&mut server, "listening_port");
        let port = port_of(&shown);
        assert_ne!(port, 0);
        assert_eq!(shown, format!("{}{port}", &address[..address.len() - 1]));
        assert_alive(Client::connect(port));
        server.stop();
    }
}

#[test]
fn ipv6_addresses_are_listened_on() {
    let mut server = Server::start(&["listening_port=[::1]:0"]);
    let shown = get(&mut server, "listening_port");
    let port = port_of(&shown);
    assert_eq!(shown, format!("[::1]:{port}"));
    let answer = Client::connect6(port).ask("GET /echo HTTP/1.1\r\n\r\n");
    assert!(answer.text().contains("\nip=::1\n"), "{}", answer.text());
    assert_refused(port);
    server.program.stop();
}

#[test]
fn one_address_of_ipv6_serves_both_families() {
    let server = Server::start(&["listening_port=[::]:0"]);
    // Mapped addresses are shown as IPv4.
    let clients = [(Client::connect6(server.port), "::1"), (server.client(), "127.0.0.1")];
    for (mut client, address) in clients {
        let peer = client.ask("GET /peer HTTP/1.1\r\n\r\n").text();
        assert_eq!(peer, format!("{address} {}", client.local_port()));
    }
    server.stop();
}

#[test]
fn a_bare_port_is_ipv4_only() {
    let server = Server::start(&["listening_port=0"]);
    assert!(TcpStream::connect(("::1", server.port)).is_err());
    server.stop();
}

#[test]
fn a_busy_or_impossible_port_is_refused_and_the_old_socket_goes_on() {
    let mut server = Server::start(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let busy = listener.local_addr().expect("an address").to_string();
    let before = get(&mut server, "listening_port");
    let scratch = Scratch::new();
    set(&mut server, "error_log_file", &scratch.join("log"));
    let (bad, bind) = ("Invalid listening port", "Cannot bind to port");
    let name = "Invalid listening port: names are not looked up, only numbers are taken";
    let range = "Invalid listening port: a port is a number from 0 to 65535";
    let in_use = format!("listening_port: cannot bind to {busy}: Address already in use");
    let elsewhere = "listening_port: cannot bind to 192.0.2.1:0: Cannot assign requested address";
    let cases = [
        (busy.as_str(), bind, in_use.as_str()),
        ("192.0.2.1:0", bind, elsewhere),
        ("http", name, "listening_port: http: Invalid"),
        ("localhost:80", name, "listening_port: localhost:80: Invalid"),
        ("65536", range, "listening_port: 65536: Invalid"),
        ("-1", bad, "listening_port: -1: Invalid"),
        ("127.0.0.1", bad, "listening_port: 127.0.0.1: Invalid"),
        ("[::1]", bad, "listening_port: [::1]: Invalid"),
        ("[::1:0", bad, "listening_port: [::1:0: Invalid"),
        ("::1:0", bad, "listening_port: ::1:0: Invalid"),
    ];
    for (number, (value, sentence, logged)) in cases.into_iter().enumerate() {
        assert_eq!(set(&mut server, "listening_port", value), sentence, "{value}");
        assert_eq!(get(&mut server, "listening_port"), before, "{value}");
        let log = scratch.read("log");
        assert_eq!(log.lines().count(), number + 1, "{log}");
        assert!(log.lines().last().is_some_and(|line| line.contains(logged)), "{value}: {log}");
    }
    drop(listener);
    server.stop();
}

#[test]
fn the_port_may_change_while_clients_are_connected() {
    let mut server = Server::start(&[]);
    let old = server.port;
    let mut client = server.client();
    client.ask("GET /alive HTTP/1.1\r\n\r\n");
    assert_eq!(set(&mut server, "listening_port", "127.0.0.1:0"), "NULL");
    server.port = port_of(&get(&mut server, "listening_port"));
    assert_ne!(server.port, old);
    assert_refused(old);
    assert_alive(server.client());
    assert_alive(client);
    server.stop();
}

#[test]
fn the_port_may_change_inside_a_handler() {
    let mut server = Server::start(&[]);
    let steps = ["set listening_port 127.0.0.1:0", "get listening_port", "data x"];
    assert_eq!(server.ask(request("GET", "1.1", &steps)).text(), "x");
    server.expect_line("set listening_port: NULL");
    assert_refused(server.port);
    server.port = port_of(&server.program.expect_start("get listening_port: "));
    server.stop();
}

#[test]
fn the_address_in_use_by_the_server_itself_is_no_obstacle() {
    let mut server = Server::start(&[]);
    let port = server.port;
    // The same, a wider one, the same again, the narrow one.
    for address in [
        &format!("127.0.0.1:{port}"),
        &port.to_string(),
        &port.to_string(),
        &format!("127.0.0.1:{port}"),
    ] {
        assert_eq!(set(&mut server, "listening_port", address), "NULL", "{address}");
        assert_eq!(&get(&mut server, "listening_port"), address);
        assert_alive(server.client());
    }
    server.stop();
}

#[test]
fn an_unset_port_stops_listening_and_keeps_the_connections() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    client.ask("GET /alive HTTP/1.1\r\n\r\n");
    assert_eq!(set(&mut server, "listening_port", ""), "NULL");
    assert_eq!(get(&mut server, "listening_port"), "");
    assert_refused(server.port);
    assert_alive(client);
    let address = format!("127.0.0.1:{}", server.port);
    assert_eq!(set(&mut server, "listening_port", &address), "NULL");
    server.stop();
}

/// A list, and whether it lets 127.0.0.1 and ::1 in.
const LISTS: &[(&str, bool, bool)] = &[
    ("", true, true),
    ("+127.0.0.1", true, false),
    ("-127.0.0.1", false, false),
    ("+127/8", true, false),
    ("+127.0/16", true, false),
    ("+0.0.0.0/0", true, false),
    ("-0.0.0.0/0", false, false),
    ("-0.0.0.0/0,+127.0.0.1", true, false),
    ("+127.0.0.1,-0.0.0.0/0", false, false),
    ("+192.168/16", false, false),
    ("+127/8,-127.0.0/24", false, false),
    ("-127/8,+127.0.0.1/32", true, false),
    ("+127.0.0.0/31", true, false),
    ("+127.0.0.2/31", false, false),
    ("+::1", false, true),
    ("+::/0", false, true),
    ("+::1/128,+127.0.0.1", true, true),
    ("+2001:db8::/32", false, false),
    ("-::/0,+::1", false, true),
    ("+0.0.0.0/0,+::/0,-::1", true, false),
];

#[test]
fn the_access_control_list_decides_who_is_served() {
    let mut server = Server::start(&["listening_port=[::]:0"]);
    let mut old = server.client();
    old.ask("GET /alive HTTP/1.1\r\n\r\n");
    for (list, v4, v6) in LISTS {
        assert_eq!(set(&mut server, "access_control_list", list), "NULL", "{list}");
        let clients = [(Client::connect(server.port), v4), (Client::connect6(server.port), v6)];
        for (mut client, allowed) in clients {
            client.try_send("GET /alive HTTP/1.1\r\nConnection: close\r\n\r\n");
            let answer = client.rest_or_reset();
            assert_eq!(answer.ends_with(b"alive"), *allowed, "{list}");
            assert!(*allowed || answer.is_empty(), "{list}: a denied client is not answered");
        }
        assert_eq!(old.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive", "{list}: old clients");
    }
    set(&mut server, "access_control_list", "");
    server.stop();
}

#[test]
fn the_access_log_has_one_combined_line_a_request() {
    let scratch = Scratch::new();
    let server = Server::start(&[&format!("access_log_file={}", scratch.join("log"))]);
    let mut client = server.client();
    client.ask("GET /none?a=%20b HTTP/1.1\r\nReferer: http://r/\r\nUser-Agent: me 1.0\r\n\r\n");
    let hello = "write HTTP/1.1 201 Created\\r\\nContent-Length: 5\\r\\n\\r\\nhello";
    client.ask(request("POST", "1.1", &[hello]));
    client.ask(request("GET", "1.0", &["status 418", "data x"]));
    server.stop();
    let log = scratch.read("log");
    let lines: Vec<&str> = log.lines().collect();
    let wanted = [
        ("GET /none?a=%20b HTTP/1.1", "404", "http://r/", "me 1.0"),
        ("POST /do HTTP/1.1", "201", "-", "-"),
        ("GET /do HTTP/1.0", "418", "-", "-"),
        ("GET /alive HTTP/1.1", "200", "-", "-"),
    ];
    assert_eq!(lines.len(), wanted.len(), "{log}");
    for (line, (target, status, referer, agent)) in lines.iter().zip(wanted) {
        let rest = line.strip_prefix("127.0.0.1 - - [").unwrap_or_else(|| panic!("{line}"));
        let (time, rest) = rest.split_once("] ").unwrap_or_else(|| panic!("{line}"));
        // 10/Oct/2000:13:55:36 +0000
        assert!(time.len() == 26 && time.matches(':').count() == 3, "{line}");
        let rest = rest.strip_prefix(&format!("\"{target}\" {status} "));
        let rest = rest.unwrap_or_else(|| panic!("{line}"));
        let count = rest.strip_suffix(&format!(" \"{referer}\" \"{agent}\""));
        let count = count.unwrap_or_else(|| panic!("{line}"));
        assert!(count.parse::<u64>().is_ok_and(|count| count >= 1), "{line}");
    }
}

#[test]
fn a_quote_or_a_line_end_in_a_request_does_not_forge_a_log_line() {
    let scratch = Scratch::new();
    let server = Server::start(&[&format!("access_log_file={}", scratch.join("log"))]);
    server.ask("GET /none?\" HTTP/1.1\r\nUser-Agent: a\" 200 \"b\x07\r\n\r\n");
    server.stop();
    let log = scratch.read("log");
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(!log.contains("a\" 200 \"b") && !log.contains('\x07'), "{log}");
}

#[test]
fn a_request_that_was_not_understood_is_logged_as_such() {
    let scratch = Scratch::new();
    let server = Server::start(&[&format!("access_log_file={}", scratch.join("log"))]);
    server.ask("GET / HTTP/1.1\r\nno colon\r\n\r\n");
    server.stop();
    let log = scratch.read("log");
    let line = log.lines().next().unwrap_or_default();
    assert!(line.contains("] \"-\" 400 ") && line.ends_with(" \"-\" \"-\""), "{log}");
}

#[test]
fn the_access_log_is_reopened_after_rotation() {
    let scratch = Scratch::new();
    let server = Server::start(&[&format!("access_log_file={}", scratch.join("log"))]);
    let mut client = server.client();
    client.ask("GET /none?one HTTP/1.1\r\n\r\n");
    client.ask("GET /alive HTTP/1.1\r\n\r\n");
    std::fs::rename(scratch.join("log"), scratch.join("log.1")).expect("the log is there");
    // The library may take its time to notice, but it must not lose a line.
    let mut sent = 2;
    until("the log is opened anew", || {
        client.ask("GET /none?more HTTP/1.1\r\n\r\n");
        sent += 1;
        !scratch.read("log").is_empty()
    });
    server.stop();
    let (old, new) = (scratch.read("log.1"), scratch.read("log"));
    assert!(old.starts_with("127.0.0.1 ") && old.contains("/none?one"));
    assert_eq!(old.lines().count() + new.lines().count(), sent + 1, "one line a request");
}

#[test]
fn logs_that_cannot_be_written_do_not_stop_the_server() {
    for file in ["/no/such/folder/log", "/dev/full", "/"] {
        let (access, error) = (format!("access_log_file={file}"), format!("error_log_file={file}"));
        let server = Server::start(&[&access, &error]);
        assert_eq!(server.ask("GET /none HTTP/1.1\r\n\r\n").status, 404);
        let dropped = request("GET", "1.1", &["header A b\\r\\nc", "data x"]);
        assert_eq!(server.ask(dropped).text(), "x");
        server.stop();
    }
}

#[test]
fn the_server_becomes_the_user_that_it_is_told_to_be() {
    let id = |flag: &str| {
        let output = std::process::Command::new("id").args([flag, "nobody"]).output().expect("id");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let mut server = Server::start(&[]);
    assert_eq!(set(&mut server, "run_as_user", "no-such-user-here"), "There is no such user");
    // SAFETY: a plain system call.
    let is_root = unsafe { libc::geteuid() } == 0;
    let result = set(&mut server, "run_as_user", "nobody");
    assert_eq!(result == "NULL", is_root, "{result}");
    server.tell("io whoami");
    let ids = server.program.expect_start("whoami ");
    if is_root {
        let (user, group) = (id("-u"), id("-g"));
        let (ids, groups) = ids.rsplit_once(' ').expect("five numbers");
        assert_eq!(ids, format!("{user} {user} {group} {group}"));
        assert!(["0", "1"].contains(&groups), "{groups} supplementary groups are left");
    }
    server.stop();
}

#[test]
fn a_change_counts_for_the_next_request() {
    let mut server = Server::start(&[]);
    let scratch = Scratch::new();
    scratch.write("a.html", "a");
    let root = scratch.join("");
    let cases = [
        ("document_root", root.as_str(), "GET /a.html HTTP/1.1\r\n\r\n", 404, 200),
        (
            "max_request_body_bytes",
            "1",
            "POST /echo HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi",
            200,
            413,
        ),
        ("max_request_header_bytes", "30", "GET /alive HTTP/1.1\r\nA: 34567890\r\n\r\n", 200, 431),
    ];
    for_each(
        cases,
        |(name, ..)| (*name).to_owned(),
        |(_, _, request, before, _)| assert_eq!(server.ask(request).status, *before),
    );
    for (name, value, request, _, after) in cases {
        assert_eq!(set(&mut server, name, value), "NULL");
        assert_eq!(server.ask(request).status, after, "{name}");
        assert_eq!(set(&mut server, name, ""), "NULL");
    }
    server.stop();
}
