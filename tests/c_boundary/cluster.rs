//! `examples/cluster`: a chat over several servers, behind haproxy and with Redis between them. The
//! script of the example starts it all; the tests end single processes of it.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Client, Link, Program, Scratch, Websocket, compile_with, frame, root, runner, until,
};

fn chat() -> std::path::PathBuf {
    let sources = ["examples/cluster/chat.c", "examples/cluster/bus.c"];
    compile_with("cluster-chat", &sources, &["-pedantic", "-lhiredis"], Link::Shared)
}

/// Ends the test where the C programs are those of another machine: its hiredis is not there.
macro_rules! needs_cluster {
    () => {
        needs!("haproxy", "redis-server", "hiredis");
        if !runner().is_empty() {
            eprintln!("not tried on other machines: the chat over several servers");
            return;
        }
    };
}

/// A process that is named by a number and a port.
#[derive(Clone, Copy)]
struct Member {
    pid: u32,
    port: u16,
}

impl Member {
    /// From `pid 12, port 34`.
    fn parse(text: &str) -> Member {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|text| !text.is_empty());
        let mut next = || numbers.next().and_then(|text| text.parse().ok()).expect("a number");
        Member { pid: next(), port: next() as u16 }
    }

    fn signal(self, signal: Signal) {
        let pid = Pid::from_raw(self.pid as i32).expect("a process");
        kill_process(pid, signal).expect("a process that gets signals");
    }

    /// Waits until it has ended, and has been waited for by the script.
    fn expect_end(self) {
        until("a process has ended", || {
            !std::fs::exists(format!("/proc/{}", self.pid)).unwrap_or(false)
        });
    }
}

/// Redis, the servers a to c, and haproxy.
struct Cluster {
    run: Program,
    redis: Member,
    servers: Vec<(String, Member)>,
    port: u16,
}

impl Cluster {
    fn start() -> Cluster {
        let mut command = Command::new(root().join("examples/cluster/run"));
        command.arg("-c").arg(chat());
        let mut run = Program::start_command("examples/cluster/run", command);
        let redis = Member::parse(&run.expect_start("redis: "));
        let servers = ["a", "b", "c"].map(|name| {
            let member = Member::parse(&run.expect_start(&format!("server {name}: ")));
            (name.to_owned(), member)
        });
        let port = run.expect_start("Listening on http://127.0.0.1:");
        let port = port.trim_end_matches('/').parse().expect("a port");
        let cluster = Cluster { run, redis, servers: servers.to_vec(), port };
        for (_, server) in &cluster.servers {
            server.expect_redis("up");
        }
        cluster
    }

    fn server(&self, name: &str) -> Member {
        self.servers.iter().find(|(known, _)| known == name).expect("a server").1
    }

    fn enter(&self, name: &str) -> Guest {
        Guest::enter(self.port, name)
    }

    fn guests(&self, count: usize) -> Vec<Guest> {
        (0..count).map(|number| self.enter(&format!("guest{number}"))).collect()
    }

    /// All ends with the script, which ends as after Ctrl-C. (The signal of that is ignored by all
    /// that a shell starts in the background, and so by all that this test starts, too.)
    fn stop(self) {
        let members: Vec<Member> = self.servers.iter().map(|(_, member)| *member).collect();
        self.run.terminate("TERM");
        for member in members {
            assert!(!std::fs::exists(format!("/proc/{}", member.pid)).unwrap_or(false));
        }
    }
}

impl Member {
    fn expect_redis(self, state: &str) {
        let end = format!(", Redis {state}\n");
        until("a server and Redis agree", || health(self.port).1.ends_with(&end));
    }
}

fn health(port: u16) -> (u16, String) {
    let answer = Client::connect(port).ask("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    (answer.status, answer.text())
}

/// Somebody in the chat.
struct Guest {
    socket: Websocket,
    name: String,
    /// The one that serves him.
    server: String,
}

impl Guest {
    #[track_caller]
    fn enter(port: u16, name: &str) -> Guest {
        let mut socket = Websocket::open_through_proxy(port, "/chat");
        socket.text(&format!("room\t{name}"));
        let mut guest = Guest { socket, name: name.to_owned(), server: String::new() };
        let welcome = guest.line();
        let fields: Vec<&str> = welcome.split('\t').collect();
        let &["welcome", server, "up"] = &fields[..] else { panic!("{welcome}") };
        guest.server = server.to_owned();
        guest
    }

    /// The next message of the server.
    #[track_caller]
    fn line(&mut self) -> String {
        loop {
            let frame = self.socket.next();
            match frame.first_byte {
                0x81 => return String::from_utf8(frame.payload).expect("text"),
                0x89 => drop(self.socket.frame(0x8a, frame.payload)),
                _ => panic!("{frame:?}"),
            }
        }
    }

    /// The next one that does not only say who comes and goes.
    #[track_caller]
    fn news(&mut self) -> String {
        loop {
            let line = self.line();
            if !line.starts_with("join\t") && !line.starts_with("leave\t") {
                return line;
            }
        }
    }

    fn say(&mut self, id: &str, text: &str) {
        self.socket.text(&format!("{id}\t{text}"));
    }

    /// What others hear of what this guest says.
    fn said(&self, id: &str, text: &str) -> String {
        format!("say\t{}\t{}\t{id}\t{text}", self.name, self.server)
    }

    /// The connection ends, in whatever way.
    fn expect_end(mut self) {
        self.socket.client.rest_or_reset();
    }
}

/// One of them says something, and all hear it next.
#[track_caller]
fn expect_talk(guests: &mut [Guest], id: &str) {
    for speaker in 0..guests.len() {
        let text = format!("{id} by {speaker} \u{e4}\u{4e16}");
        guests[speaker].say(id, &text);
        let said = guests[speaker].said(id, &text);
        for guest in guests.iter_mut() {
            assert_eq!(guest.news(), said);
        }
    }
}

#[test]
fn websockets_are_spread_and_each_hears_everything_once_and_in_order() {
    needs_cluster!();
    let cluster = Cluster::start();
    let mut guests = cluster.guests(9);
    for (name, _) in &cluster.servers {
        let share = guests.iter().filter(|guest| guest.server == *name).count();
        assert_eq!(share, 3, "at server {name}");
    }
    // All speak at once, and each of them without a break.
    let count = 100;
    for guest in &mut guests {
        for number in 0..count {
            guest.say(&format!("id{number}"), &format!("{number}"));
        }
    }
    let everybody: Vec<String> = guests.iter().map(|guest| guest.name.clone()).collect();
    for guest in &mut guests {
        let mut heard = vec![0; everybody.len()];
        for _ in 0..count * everybody.len() {
            let line = guest.news();
            let fields: Vec<&str> = line.split('\t').collect();
            let &["say", name, _, id, text] = &fields[..] else { panic!("{line}") };
            let speaker = everybody.iter().position(|known| known == name).expect("a guest");
            assert_eq!((id, text), (&*format!("id{text}"), &*heard[speaker].to_string()));
            heard[speaker] += 1;
        }
        assert_eq!(heard, vec![count; everybody.len()]);
    }
    // Nothing comes a second time.
    expect_talk(&mut guests, "last");
    cluster.stop();
}

#[test]
fn the_guests_of_a_server_that_is_killed_go_on_at_the_others() {
    needs_cluster!();
    let cluster = Cluster::start();
    let mut guests = cluster.guests(6);
    expect_talk(&mut guests, "before");
    let killed = cluster.server("b");
    killed.signal(Signal::KILL);
    let (lost, mut kept): (Vec<Guest>, Vec<Guest>) =
        guests.into_iter().partition(|guest| guest.server == "b");
    assert_eq!((lost.len(), kept.len()), (2, 4));
    for guest in lost {
        let name = guest.name.clone();
        guest.expect_end();
        // At the first attempt: haproxy tries another server by itself.
        let again = cluster.enter(&name);
        assert_ne!(again.server, "b");
        kept.push(again);
    }
    expect_talk(&mut kept, "after");
    cluster.stop();
}

#[test]
fn a_server_that_is_told_to_end_sends_its_guests_to_the_others() {
    needs_cluster!();
    let cluster = Cluster::start();
    let guests = cluster.guests(6);
    let ended = cluster.server("c");
    ended.signal(Signal::TERM);
    let (sent_away, mut kept): (Vec<Guest>, Vec<Guest>) =
        guests.into_iter().partition(|guest| guest.server == "c");
    for mut guest in sent_away {
        // What others did before may come first.
        let mut close = guest.socket.next();
        while close.first_byte != 0x88 {
            close = guest.socket.next();
        }
        assert_eq!(close.payload, 1001_u16.to_be_bytes());
        // Before the server has gone, since it waits for the guest's Close.
        let again = cluster.enter(&guest.name);
        assert_ne!(again.server, "c");
        kept.push(again);
        // It waits for some seconds, no longer.
        guest.socket.client.try_send(frame(0x88, close.payload));
        guest.expect_end();
    }
    ended.expect_end();
    expect_talk(&mut kept, "after");
    cluster.stop();
}

/// A Redis of the test's own.
struct Redis(Child);

impl Redis {
    fn start(args: &[&str]) -> Redis {
        let mut command = crate::support::outside("redis-server");
        command.args(args).args(["--save", "", "--appendonly", "no"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Redis(command.spawn().expect("Redis"))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn while_redis_is_away_who_speaks_is_told_and_then_messages_go_on() {
    needs_cluster!();
    let cluster = Cluster::start();
    let mut guests = cluster.guests(6);
    expect_talk(&mut guests, "before");
    cluster.redis.signal(Signal::TERM);
    for guest in &mut guests {
        assert_eq!(guest.news(), "redis\tdown");
    }
    for guest in &mut guests {
        guest.say("x1", "nobody hears this");
        assert_eq!(guest.news(), "lost\tx1\tthere is no connection to Redis");
    }
    cluster.redis.expect_end();
    // The servers stay, and let guests in.
    assert_eq!(health(cluster.port).0, 200);
    let port = cluster.redis.port.to_string();
    let redis = Redis::start(&["--bind", "127.0.0.1", "--port", &port]);
    for guest in &mut guests {
        assert_eq!(guest.news(), "redis\tup");
    }
    expect_talk(&mut guests, "after");
    cluster.stop();
    drop(redis);
}

#[test]
fn a_redis_that_hangs_is_noticed() {
    needs_cluster!();
    let cluster = Cluster::start();
    let mut guests = cluster.guests(3);
    cluster.redis.signal(Signal::STOP);
    guests[0].say("x1", "perhaps somebody hears this later");
    // The server may have noticed by itself, and told everybody.
    let told = std::iter::repeat_with(|| guests[0].news()).find(|news| news != "redis\tdown");
    assert!(told.is_some_and(|news| news.starts_with("lost\tx1\t")));
    cluster.redis.signal(Signal::CONT);
    // Whether the first message arrives after all is open; the second one does.
    for (_, server) in &cluster.servers {
        server.expect_redis("up");
    }
    guests[0].say("x2", "this one arrives");
    let said = guests[0].said("x2", "this one arrives");
    for guest in &mut guests {
        while guest.news() != said {}
    }
    cluster.stop();
}

#[test]
fn two_servers_and_a_redis_are_a_cluster_and_end_cleanly() {
    needs_cluster!();
    let scratch = Scratch::new();
    let socket = scratch.join("redis.sock");
    let start = |name: &str| {
        let mut server = Program::start_file(&chat(), &[name, "0", &scratch.join(""), &socket]);
        let port = server.expect_start("Listening on http://127.0.0.1:");
        (server, port.trim_end_matches('/').parse::<u16>().expect("a port"))
    };
    let redis = Redis::start(&["--port", "0", "--unixsocket", &socket]);
    until("Redis has made its socket", || std::fs::exists(&socket).unwrap_or(false));
    let (left, left_port) = start("left");
    let (right, right_port) = start("right");
    for port in [left_port, right_port] {
        Member { pid: 0, port }.expect_redis("up");
    }
    let mut guests = vec![Guest::enter(left_port, "anna"), Guest::enter(right_port, "ben")];
    expect_talk(&mut guests, "x1");

    // Nobody hears what is said in another room.
    let mut other = Websocket::open(left_port, "/chat");
    other.text("elsewhere\tcarl").expect_text("welcome\tleft\tup");
    other.text("id\thidden").expect_text("join\tcarl\tleft\t\t");
    other.expect_text("say\tcarl\tleft\tid\thidden");

    // What is no message of the chat: a name that is missing, empty, too long or of two lines.
    let long = format!("room\t{}", "n".repeat(81));
    for bad in ["", "room", "room\t", "\tname", "room\tna\nme", &long] {
        let mut socket = Websocket::open(right_port, "/chat");
        socket.text(bad).expect(0x88, 1000_u16.to_be_bytes());
    }
    let long = "t".repeat(2001);
    guests[0].say("x2", &long);
    assert_eq!(guests[0].news(), "lost\tx2\tit is too long");
    let answer = Client::connect(left_port).ask("GET /chat HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer.status, 426);
    expect_talk(&mut guests, "x3");

    // One guest leaves, the other one is told.
    let ben = guests.pop().expect("a guest");
    drop(ben);
    until("it is told who has left", || guests[0].line() == "leave\tben\tright\t\t");
    left.terminate("TERM");
    right.terminate("INT");
    drop(redis);
}
