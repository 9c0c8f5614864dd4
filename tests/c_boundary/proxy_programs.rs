//! Real proxies in front: HAProxy and nginx, with the settings of `docs/proxies.md`.
//!
//! They listen on sockets that the test has bound, so that no port is fixed. Clients come from
//! addresses that are not trusted, as 127.0.0.2.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Client, Scratch, Server, WebsocketServer, deadline, frame, handshake, outside, until,
};

const TRUSTING: &str = "trusted_proxies=127.0.0.1";
const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// A running proxy, and its ports in the order of its configuration.
struct Proxy {
    child: Child,
    ports: Vec<u16>,
    scratch: Scratch,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // A signal that nginx passes on to its worker.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let end = Instant::now() + deadline();
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::yield_now();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.scratch.read("stderr"));
        }
    }
}

impl Proxy {
    /// Starts a program with `count` listening sockets. `configure` makes its command of a folder
    /// and of the number and port of each socket.
    fn start(
        tool: &str,
        count: usize,
        configure: impl FnOnce(&Scratch, &[(i32, u16)]) -> Vec<String>,
    ) -> Proxy {
        let scratch = Scratch::new();
        let bind = |_| TcpListener::bind("127.0.0.1:0").expect("a port");
        let sockets: Vec<TcpListener> = (0..count).map(bind).collect();
        let port = |socket: &TcpListener| socket.local_addr().expect("an address").port();
        let places: Vec<_> = sockets.iter().map(|s| (s.as_raw_fd(), port(s))).collect();
        let ports = places.iter().map(|(_, port)| *port).collect();
        let args = configure(&scratch, &places);
        let mut command = outside(tool);
        let path = std::env::var("PATH").unwrap_or_default();
        let numbers: String = places.iter().map(|(fd, _)| format!("{fd};")).collect();
        command.args(args).env("PATH", format!("{path}:/usr/sbin")).env("NGINX", numbers);
        let stderr = std::fs::File::create(scratch.join("stderr")).expect("a file");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let inherit = move || {
            for (fd, _) in &places {
                // SAFETY: a plain system call on a descriptor that the parent keeps open meanwhile.
                if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } == -1 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec only `fcntl` is called, which is safe there.
        let child = unsafe { command.pre_exec(inherit) }.spawn();
        // Clients that come before the program is ready wait in the queue of its socket.
        Proxy { child: child.unwrap_or_else(|error| panic!("{tool}: {error}")), ports, scratch }
    }

    /// Starts HAProxy. Each section is one of `listen`, without its first two lines.
    fn haproxy(sections: &[String]) -> Proxy {
        Proxy::start("haproxy", sections.len(), |scratch, places| {
            let mut text = "defaults\n mode http\n timeout connect 20s\n timeout client 20s\n \
                            timeout server 20s\n"
                .to_owned();
            for (number, (section, (fd, _))) in sections.iter().zip(places).enumerate() {
                text += &format!("listen proxy{number}\n bind fd@{fd}\n{section}\n");
            }
            scratch.write("haproxy.cfg", text);
            ["-db".to_owned(), "-f".to_owned(), scratch.join("haproxy.cfg")].to_vec()
        })
    }

    /// Starts nginx. Each section is the inside of a `server`; `http` stands before all of them.
    fn nginx(http: &str, sections: &[String]) -> Proxy {
        Proxy::start("nginx", sections.len(), |scratch, places| {
            let at = |name: &str| scratch.join(name);
            let mut text = format!(
                "daemon off; worker_processes 1; pid {}; error_log stderr;\n\
                 events {{}}\nhttp {{\naccess_log off;\n",
                at("pid")
            );
            for name in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
                text += &format!("{name}_temp_path {};\n", at(name));
            }
            text += http;
            for (section, (_, port)) in sections.iter().zip(places) {
                let listen = match section.contains("$proxy_protocol_addr") {
                    true => format!("127.0.0.1:{port} proxy_protocol"),
                    false => format!("127.0.0.1:{port}"),
                };
                text += &format!("server {{ listen {listen};\n{section}\n}}\n");
            }
            scratch.write("nginx.conf", text + "}\n");
            let [conf, prefix] = [at("nginx.conf"), at("")];
            ["-c", &conf, "-p", &prefix, "-e", "stderr"].map(str::to_owned).to_vec()
        })
    }
}

/// What a handler sees of the peer, and the port of the client.
#[track_caller]
fn peer(source: Ipv4Addr, port: u16, fields: &str) -> (String, u16) {
    let mut client = Client::connect_from(source, port);
    let own = client.local_port();
    let head = format!("GET /peer HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
    let answer = client.ask(head);
    assert_eq!(answer.status, 200, "{}", answer.text());
    (answer.text(), own)
}

/// A field by which a client tries to be another one.
const LIE: &str = "X-Forwarded-For: 6.6.6.6\r\n";

#[test]
fn haproxy_names_its_clients_by_the_header() {
    needs!("haproxy");
    let server = Server::start(&[TRUSTING]);
    let to = format!("server s 127.0.0.1:{}", server.port);
    let proxy = Proxy::haproxy(&[
        format!(" mode tcp\n {to} send-proxy"),
        format!(" mode tcp\n {to} send-proxy-v2"),
        format!(" option forwardfor\n {to} send-proxy"),
        format!(" option forwardfor\n {to} send-proxy-v2 proxy-v2-options crc32c,unique-id"),
    ]);
    for port in &proxy.ports {
        for fields in ["", LIE, "Forwarded: for=6.6.6.6\r\n"] {
            let (seen, own) = peer(ONE, *port, fields);
            assert_eq!(seen, format!("127.0.0.2 {own}"), "{fields}");
        }
    }
    server.stop();
}

#[cfg(feature = "tls")]
#[test]
fn haproxy_passes_tls_on_behind_the_header() {
    needs!("haproxy", "openssl");
    use crate::support::{Authority, Tunnel};
    let certificate = format!("ssl_certificate={}", Authority::get().identity("ec"));
    let server = Server::start(&[TRUSTING, &certificate]);
    let to = format!(" mode tcp\n server s 127.0.0.1:{}", server.port);
    let proxy = Proxy::haproxy(&[format!("{to} send-proxy-v2"), format!("{to} send-proxy")]);
    for port in &proxy.ports {
        // The tunnel is the proxy's client. The name that it asks for stands in the header, too.
        let mut client = Client::connect(Tunnel::to(*port).port);
        let first = client.ask("GET /peer HTTP/1.1\r\nHost: a\r\n\r\n").text();
        assert!(first.starts_with("127.0.0.1 "), "{first}");
        assert_ne!(first, "127.0.0.1 0");
        // That address is trusted, so that fields are heard behind it.
        let head = "GET /peer HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n";
        assert_eq!(client.ask(head).text(), "1.2.3.4 0");
    }
}

#[test]
fn haproxy_names_its_clients_by_fields() {
    needs!("haproxy");
    let server = Server::start(&[TRUSTING]);
    let to = format!("server s 127.0.0.1:{}", server.port);
    let proxy = Proxy::haproxy(&[
        format!(" option forwardfor\n http-request set-header X-Forwarded-Proto https\n {to}"),
        format!(
            " http-request del-header X-Forwarded-For\n \
             http-request set-header Forwarded for=\"%ci:%cp\";proto=http\n {to}"
        ),
    ]);
    for fields in ["", LIE] {
        assert_eq!(peer(ONE, proxy.ports[0], fields).0, "127.0.0.2 0");
        let (seen, own) = peer(OTHER, proxy.ports[1], fields);
        assert_eq!(seen, format!("127.0.0.3 {own}"));
    }
    // A client's own field of the kind that the proxy does not set.
    let mut client = Client::connect_from(ONE, proxy.ports[0]);
    let answer = client.ask("GET /peer HTTP/1.1\r\nHost: a\r\nForwarded: for=6.6.6.6\r\n\r\n");
    assert_eq!(answer.status, 400);
    server.stop();
}

#[test]
fn checks_of_haproxy_are_answered_and_are_of_the_proxy() {
    needs!("haproxy");
    for (check, by_request) in [
        ("send-proxy", true),
        ("send-proxy-v2", true),
        ("send-proxy", false),
        ("send-proxy-v2", false),
    ] {
        let scratch = Scratch::new();
        let access = format!("access_log_file={}", scratch.join("access"));
        let error = format!("error_log_file={}", scratch.join("error"));
        let server = Server::start(&[TRUSTING, &access, &error]);
        let http = if by_request { " option httpchk GET /alive\n" } else { "" };
        let proxy = Proxy::haproxy(&[format!(
            " {http} timeout check 10s\n server s 127.0.0.1:{} {check} check inter 300ms fall 9",
            server.port
        )]);
        if by_request {
            until("some checks have come", || scratch.read("access").lines().count() > 3);
            let log = scratch.read("access");
            assert!(log.lines().all(|line| line.starts_with("127.0.0.1 - - [")), "{log}");
        }
        for _ in 0..5 {
            let (seen, own) = peer(ONE, proxy.ports[0], "");
            assert_eq!(seen, format!("127.0.0.2 {own}"));
        }
        assert_eq!(scratch.read("error"), "", "{check}");
        drop(proxy);
        server.stop();
    }
}

#[test]
fn nginx_names_its_clients_by_fields() {
    needs!("nginx");
    let server = Server::start(&[TRUSTING]);
    let pass = format!("location / {{ proxy_pass http://127.0.0.1:{};", server.port);
    let proxy = Proxy::nginx(
        "",
        &[
            format!(
                "{pass} proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
                 proxy_set_header X-Forwarded-Proto $scheme; }}"
            ),
            format!(
                "{pass} proxy_set_header Forwarded 'for=\"$remote_addr:$remote_port\";proto=$scheme';\n\
                 proxy_set_header X-Forwarded-For ''; }}"
            ),
        ],
    );
    for fields in ["", LIE] {
        assert_eq!(peer(ONE, proxy.ports[0], fields).0, "127.0.0.2 0");
        let (seen, own) = peer(OTHER, proxy.ports[1], fields);
        assert_eq!(seen, format!("127.0.0.3 {own}"));
    }
    server.stop();
}

#[test]
fn clients_that_share_a_connection_of_a_proxy_stay_apart() {
    needs!("haproxy", "nginx");
    let scratch = Scratch::new();
    let log = format!("access_log_file={}", scratch.join("access"));
    let server = Server::start(&[TRUSTING, &log]);
    let upstream = format!("upstream s {{ server 127.0.0.1:{}; keepalive 1; }}\n", server.port);
    let nginx = Proxy::nginx(
        &upstream,
        &["location / { proxy_pass http://s; proxy_http_version 1.1; proxy_set_header Connection ''; \
           proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }"
            .to_owned()],
    );
    let haproxy = Proxy::haproxy(&[format!(
        " option forwardfor\n http-reuse always\n server s 127.0.0.1:{}",
        server.port
    )]);
    for proxy in [&nginx, &haproxy] {
        let before = scratch.read("access").lines().count();
        let mut expected = Vec::new();
        // A proxy may not have put the connection aside in time for the next client.
        let mut shared = 0;
        while shared < 3 {
            assert!(expected.len() < 400, "the proxy does not share its connection");
            for source in [ONE, OTHER] {
                let mut client = Client::connect_from(source, proxy.ports[0]);
                let head = |path| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
                // The number of requests on the connection of the proxy.
                let count: usize = client.ask(head("/count")).text().parse().expect("a number");
                shared += usize::from(source == OTHER && count > 1);
                assert_eq!(client.ask(head("/peer")).text(), format!("{source} 0"));
                expected.extend([source.to_string(), source.to_string()]);
            }
        }
        let wanted = before + expected.len();
        until("the log has all", || scratch.read("access").lines().count() == wanted);
        let log = scratch.read("access");
        let clients = log.lines().skip(before).filter_map(|line| line.split(' ').next());
        assert_eq!(clients.collect::<Vec<_>>(), expected);
    }
    server.stop();
}

#[test]
fn the_client_is_found_behind_two_proxies_in_a_row() {
    needs!("haproxy", "nginx");
    let server = Server::start(&[TRUSTING]);
    let pass = format!("location / {{ proxy_pass http://127.0.0.1:{};", server.port);
    let nginx = Proxy::nginx(
        "",
        &[
            format!("{pass} proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }}"),
            format!("{pass} proxy_set_header X-Forwarded-For $proxy_protocol_addr; }}"),
        ],
    );
    let near = |number: usize| format!("server s 127.0.0.1:{}", nginx.ports[number]);
    let first = Proxy::haproxy(&[
        format!(" option forwardfor\n {}", near(0)),
        format!(" mode tcp\n {} send-proxy", near(1)),
    ]);
    // HAProxy in front of HAProxy, by the header all the way: the nearest tells of the first.
    let last = Proxy::haproxy(&[format!(
        " option forwardfor\n server s 127.0.0.1:{} send-proxy-v2",
        server.port
    )]);
    let chained =
        Proxy::haproxy(&[format!(" option forwardfor\n server s 127.0.0.1:{}", last.ports[0])]);
    for fields in ["", LIE] {
        assert_eq!(peer(ONE, first.ports[0], fields).0, "127.0.0.2 0");
        assert_eq!(peer(OTHER, first.ports[1], fields).0, "127.0.0.3 0");
        // PROXY told the address of the first proxy, which is trusted: the walk goes on.
        assert_eq!(peer(ONE, chained.ports[0], fields).0, "127.0.0.2 0");
    }
    server.stop();
}

#[test]
fn websockets_come_through_with_their_clients() {
    needs!("haproxy", "nginx");
    let mut server = WebsocketServer::start(&[TRUSTING]);
    let to = format!("127.0.0.1:{}", server.port);
    let nginx = Proxy::nginx(
        "",
        &[format!(
            "location / {{ proxy_pass http://{to}; proxy_http_version 1.1; \
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; \
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }}"
        )],
    );
    let haproxy = Proxy::haproxy(&[
        format!(" option forwardfor\n server s {to}"),
        format!(" mode tcp\n server s {to} send-proxy-v2"),
    ]);
    let ports = [nginx.ports[0], haproxy.ports[0], haproxy.ports[1]];
    for (number, port) in ports.into_iter().enumerate() {
        let mut client = Client::connect_from(ONE, port);
        let own = if number == 2 { client.local_port() } else { 0 };
        client.send(handshake("/events", ""));
        assert_eq!(client.response_without_body().status, 101);
        for _ in 0..2 {
            client.send(frame(0x81, format!("do peer {number}")));
            server.expect_line(&format!("{number} peer=127.0.0.2 {own}"));
        }
    }
    server.stop();
}
