//! Files that are sent, lists, passwords, programs and includes.

use super::super::world::{World, password_line};
use super::{PLAIN, Scenario, filling, is_one_of, options};
use crate::support::Scratch;

pub fn all() -> Vec<Scenario> {
    vec![
        Scenario { name: "small file", reset: files, play: small, ..PLAIN },
        Scenario { name: "large file", reset: files, play: large, ..PLAIN },
        Scenario { name: "range", reset: files, play: range, ..PLAIN },
        Scenario { name: "listing", reset: many, play: listing, ..PLAIN },
        Scenario {
            name: "unpacked file",
            args: |_| options(&["enable_precompressed=yes"]),
            reset: packed,
            play: unpacked,
            ..PLAIN
        },
        Scenario {
            name: "digest",
            reset: guarded,
            prepare: |world| world.prepare_digest("GET /page HTTP/1.1\r\n\r\n"),
            play: digest,
            ..PLAIN
        },
        Scenario {
            name: "password file rewritten",
            reset: guarded,
            prepare: |world| world.prepare_digest("GET /page HTTP/1.1\r\n\r\n"),
            play: rewritten,
            files: passwords_are_whole,
            ..PLAIN
        },
        Scenario { name: "program", reset: program, play: run, ..PLAIN },
        Scenario {
            name: "includes",
            args: |_| options(&["ssi_pattern=**.shtml$"]),
            reset: page,
            play: |world| world.get("/page.shtml", b"<a part>").map(drop),
            ..PLAIN
        },
    ]
}

fn files(scratch: &Scratch) {
    scratch.write("root/small", "small").write("root/large", filling(300_000));
}

fn small(world: &mut World) -> Option<()> {
    world.get("/small", b"small");
    world.get("/small", b"small").map(drop)
}

fn large(world: &mut World) -> Option<()> {
    world.get("/large", &filling(300_000)).map(drop)
}

fn range(world: &mut World) -> Option<()> {
    let all = filling(300_000);
    for (range, part) in [("20000-119999", &all[20_000..120_000]), ("5-9", &all[5..10])] {
        let request = format!("GET /large HTTP/1.1\r\nRange: bytes={range}\r\n\r\n");
        world.ask(range, request, |answer| answer.status == 206 && answer.body == part)?;
    }
    let request = "GET /large HTTP/1.1\r\nRange: bytes=0-1,50000-50009\r\n\r\n";
    world.ask("ranges", request, |answer| {
        answer.status == 206 && memchr::memmem::find(&answer.body, &all[50_000..50_010]).is_some()
    })?;
    Some(())
}

fn many(scratch: &Scratch) {
    for number in 0..40 {
        scratch.write(&format!("root/d/name-{number}"), "");
    }
    scratch.write("root/d/sub/x", "");
}

fn listing(world: &mut World) -> Option<()> {
    let is_whole = |text: &str| (0..40).all(|number| text.contains(&format!("name-{number}<")));
    world
        .ask("a list", "GET /d/ HTTP/1.1\r\n\r\n", |answer| {
            answer.status == 200 && is_whole(&answer.text())
        })
        .map(drop)
}

fn packed(scratch: &Scratch) {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&filling(200_000)).expect("memory");
    scratch.write("root/text.txt.gz", encoder.finish().expect("memory"));
}

fn unpacked(world: &mut World) -> Option<()> {
    world.get("/text.txt", &filling(200_000)).map(drop)
}

fn guarded(scratch: &Scratch) {
    scratch.write("root/page", "a page").write("root/.htpasswd", password_line());
}

fn digest(world: &mut World) -> Option<()> {
    for _ in 0..2 {
        let request = world.signed("GET", "/page", "", "");
        world.ask("a page", request, |answer| answer.status == 200 && answer.text() == "a page");
    }
    Some(())
}

fn rewritten(world: &mut World) -> Option<()> {
    let file = world.scratch.join("root/.htpasswd");
    world.tell(&format!("passwd {file} jane pass"), "passwd", "1");
    digest(world)
}

fn passwords_are_whole(scratch: &Scratch) -> Result<(), String> {
    let joe = password_line();
    // MD5 of "jane:mydomain.com:pass".
    let both = format!("{joe}jane:mydomain.com:{}\n", "f9d09a7bc2b07f2ed46b7c2d0c1f9a5c");
    let text = scratch.read("root/.htpasswd");
    match text.lines().count() {
        2 if text.starts_with(&joe) && text.len() == both.len() => Ok(()),
        _ => is_one_of(scratch, "root/.htpasswd", &[&joe]),
    }
}

fn program(scratch: &Scratch) {
    let text = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nexec cat\n";
    // Where it is there it may be running.
    if scratch.read("root/cat.cgi") != text {
        scratch.write_program("root/cat.cgi", text);
    }
}

fn run(world: &mut World) -> Option<()> {
    let content = filling(150_000);
    let mut peer = world.open()?;
    peer.send(format!("POST /cat.cgi HTTP/1.1\r\nContent-Length: {}\r\n\r\n", content.len()));
    let seen = peer.ask(&content);
    world
        .judge("a program", seen, |answer| answer.status == 200 && answer.body == content)
        .map(drop)
}

fn page(scratch: &Scratch) {
    scratch
        .write("root/page.shtml", "<<!--#include file=\"part\" -->>")
        .write("root/part", "a part");
}
