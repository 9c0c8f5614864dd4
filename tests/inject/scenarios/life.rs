//! The life of a server: its start and its end, its ports, its logs, its children.

use super::super::peer::{Peer, Seen};
use super::super::world::{Outcome, World};
use super::{PLAIN, Scenario, Span, filling, options};
use crate::support::Scratch;

pub fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "start",
            span: Span::Creation,
            play: |world| world.get("/count", b"1").map(drop),
            args: |scratch| vec![format!("access_log_file={}", scratch.join("access"))],
            ..PLAIN
        },
        Scenario { name: "fork", play: fork, ..PLAIN },
        Scenario {
            name: "log rotation",
            args: |scratch| vec![format!("access_log_file={}", scratch.join("access"))],
            play: rotation,
            files: logs_are_whole,
            ..PLAIN
        },
        Scenario { name: "change of port", play: port, ..PLAIN },
        Scenario { name: "destroy under load", span: Span::End, reset: large, play: end, ..PLAIN },
        Scenario {
            name: "out of descriptors",
            args: |_| options(&["--descriptors=24"]),
            reset: large,
            play: descriptors,
            ..PLAIN
        },
    ]
}

fn fork(world: &mut World) -> Option<()> {
    world.tell("fork", "forked ", "well");
    world.get("/count", b"1").map(drop)
}

fn rotation(world: &mut World) -> Option<()> {
    world.get("/count", b"1");
    let path = world.scratch.join("access");
    let _ = std::fs::rename(&path, format!("{path}.1"));
    world.tell(&format!("set access_log_file {path}"), "set ", "NULL");
    world.get("/count", b"1").map(drop)
}

fn logs_are_whole(scratch: &Scratch) -> Result<(), String> {
    for name in ["access", "access.1"] {
        let text = scratch.read(name);
        let is_whole =
            |line: &str| line.starts_with("127.0.0.1 - ") && line.ends_with(" \"-\" \"-\"");
        if !text.lines().all(is_whole) || !(text.is_empty() || text.ends_with('\n')) {
            return Err(format!("{name} has lines that are not whole: {text}"));
        }
    }
    Ok(())
}

fn port(world: &mut World) -> Option<()> {
    world.tell("set listening_port 127.0.0.1:0", "set ", "NULL");
    world.process.tell("port");
    let shown = world.process.line("port ").unwrap_or_default();
    match shown.rsplit(':').next().and_then(|port| port.parse().ok()) {
        Some(port) => world.port = port,
        None => world.note("the port", Outcome::Wrong(format!("{shown:?}"))),
    }
    world.get("/count", b"1").map(drop)
}

fn large(scratch: &Scratch) {
    scratch.write("root/large", filling(3_000_000));
}

/// The connections end, and nothing hangs.
fn end(world: &mut World) -> Option<()> {
    let mut peers: Vec<Peer> = (0..6).filter_map(|_| Peer::open(world.port)).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        let target = ["/large", "/deferred", "/count"][number % 3];
        peer.send(format!("GET {target} HTTP/1.1\r\n\r\n"));
    }
    if let Some(peer) = peers.get_mut(2) {
        // Now it is in the middle of it.
        peer.answer();
    }
    if let Err(trouble) = world.process.stop() {
        world.note("the end", Outcome::Wrong(trouble));
    }
    for peer in &mut peers {
        if let Seen::Nothing(_) = peer.answer() {
            world.note("an end", Outcome::Wrong("a connection is not closed".to_owned()));
        }
    }
    Some(())
}

/// Clients are turned away, and served again when others have gone.
fn descriptors(world: &mut World) -> Option<()> {
    let mut peers: Vec<Peer> = (0..30).filter_map(|_| Peer::open(world.port)).collect();
    for peer in &mut peers {
        peer.send("GET /count HTTP/1.1\r\n\r\n");
    }
    // They are accepted in this order. One of them may be lost.
    let served = peers.iter_mut().take(3).map(Peer::answer);
    let served = served.filter(|seen| matches!(seen, Seen::Answer(answer) if answer.text() == "1"));
    if served.count() < 2 {
        world.note("clients", Outcome::Wrong("they are not served".to_owned()));
    }
    drop(peers);
    // Until the server has noticed that they have gone.
    let end = std::time::Instant::now() + super::super::peer::patience();
    while std::time::Instant::now() < end {
        let seen = world.open()?.ask("GET /count HTTP/1.1\r\n\r\n");
        if !matches!(seen, Seen::Cut(_)) {
            return world.judge("a request", seen, |answer| answer.text() == "1").map(drop);
        }
    }
    world.note("clients", Outcome::Wrong("nobody is served any more".to_owned()));
    None
}
