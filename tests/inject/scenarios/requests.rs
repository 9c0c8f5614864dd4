//! Requests and websockets that handlers answer.

use super::super::peer::Answer;
use super::super::world::World;
use super::{PLAIN, Scenario, filling, options};
use crate::support::{frame, handshake};

pub fn all() -> Vec<Scenario> {
    vec![
        Scenario { name: "first request", play: first_request, ..PLAIN },
        Scenario { name: "keep-alive", play: keep_alive, reset: page, ..PLAIN },
        Scenario { name: "pipelining", play: pipelining, reset: page, ..PLAIN },
        Scenario { name: "chunked upload", play: chunked, ..PLAIN },
        Scenario { name: "long content", play: long_content, ..PLAIN },
        Scenario { name: "deferred answer", play: deferred, ..PLAIN },
        Scenario { name: "push to websockets", play: push, ..PLAIN },
        Scenario {
            name: "deflate",
            args: |_| options(&["websocket_deflate=yes"]),
            play: deflate,
            ..PLAIN
        },
    ]
}

fn page(scratch: &crate::support::Scratch) {
    scratch.write("root/page.html", "a page");
}

fn first_request(world: &mut World) -> Option<()> {
    world.get("/count", b"1").map(drop)
}

fn keep_alive(world: &mut World) -> Option<()> {
    let mut peer = world.open()?;
    for number in 1..=4 {
        let wanted = number.to_string();
        let seen = peer.ask("GET /count HTTP/1.1\r\n\r\n");
        world.judge("a request", seen, |answer| answer.text() == wanted)?;
        let seen = peer.ask("GET /page.html HTTP/1.1\r\n\r\n");
        world.judge("a page", seen, |answer| answer.status == 200 && answer.text() == "a page")?;
    }
    Some(())
}

fn pipelining(world: &mut World) -> Option<()> {
    let mut peer = world.open()?;
    let pair = "GET /count HTTP/1.1\r\n\r\nGET /page.html HTTP/1.1\r\n\r\n";
    peer.send(pair.repeat(8));
    for number in 1..=8 {
        let (wanted, seen) = (number.to_string(), peer.answer());
        world.judge("a request", seen, |answer| answer.text() == wanted)?;
        let seen = peer.answer();
        world.judge("a page", seen, |answer| answer.status == 200 && answer.text() == "a page")?;
    }
    Some(())
}

fn chunked(world: &mut World) -> Option<()> {
    let content = filling(60_000);
    let mut peer = world.open()?;
    peer.send("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in content.chunks(15_000) {
        peer.send(format!("{:x}\r\n", chunk.len())).send(chunk).send("\r\n");
    }
    let seen = peer.ask("0\r\n\r\n");
    world.judge("an upload", seen, |answer| answer.body == content)?;
    let seen = peer.ask("GET /count HTTP/1.1\r\n\r\n");
    world.judge("another request", seen, |answer| answer.text() == "1").map(drop)
}

fn long_content(world: &mut World) -> Option<()> {
    let content = filling(400_000);
    let mut peer = world.open()?;
    peer.send(format!("POST /echo HTTP/1.1\r\nContent-Length: {}\r\n\r\n", content.len()));
    let seen = peer.ask(&content);
    world.judge("content", seen, |answer| answer.body == content).map(drop)
}

fn deferred(world: &mut World) -> Option<()> {
    let mut peer = world.open()?;
    for _ in 0..2 {
        let seen = peer.ask("GET /deferred HTTP/1.1\r\n\r\n");
        world.judge("a late answer", seen, |answer| answer.text() == "late")?;
    }
    Some(())
}

/// Opens a websocket.
fn open(world: &mut World, fields: &str) -> Option<super::super::peer::Peer> {
    let mut peer = world.open()?;
    let seen = peer.ask(handshake("/ws", fields));
    world.judge("a handshake", seen, |answer| answer.status == 101)?;
    Some(peer)
}

fn push(world: &mut World) -> Option<()> {
    // One may be lost, and the others are told all the same.
    let mut peers: Vec<_> = (0..3).filter_map(|_| open(world, "")).collect();
    let mut first = open(world, "")?;
    let seen = {
        first.send(frame(0x81, "mine"));
        first.message()
    };
    world.judge("an echo", seen, |answer| answer.body == b"mine")?;
    first.send(frame(0x81, "all of you"));
    let seen = first.message();
    // What was never asked for does not come.
    world.judge("a push", seen, |answer| answer.body == b"of you")?;
    for peer in &mut peers {
        let seen = peer.message();
        world.judge("a push", seen, |answer| answer.body == b"of you");
    }
    Some(())
}

fn deflate(world: &mut World) -> Option<()> {
    let fields = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let mut peer = open(world, fields)?;
    let text = "deflate ".repeat(4000);
    peer.send(frame(0x81, &text));
    let seen = peer.message();
    // The first bit behind FIN says that it is compressed; it gets much shorter. Without memory for that
    // it comes as it is.
    let is_right = |answer: &Answer| match answer.head.as_str() {
        "c1" => answer.body.len() > 20 && answer.body.len() < 2000,
        head => head == "81" && answer.body == text.as_bytes(),
    };
    world.judge("a message", seen, is_right).map(drop)
}
