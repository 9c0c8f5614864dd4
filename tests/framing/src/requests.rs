//! Streams of requests, as a client that means ill would send them on one connection.

use crate::grammar::{Framed, Writer};
use crate::random::Random;

/// What stands behind all others: whether it is found tells where the borders were seen.
pub const LAST: &[u8] = b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n";

const METHODS: &[&str] = &["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "PROPFIND"];
const ODD_METHODS: &[&str] = &[
    "get", "", "CONNECT", "PRI", "G\0T", "GE T", "G\u{e9}T", "GET\t", "TRACE", "NOTKNOWN", "HEADX",
    "\"GET\"", "GET:", "HTTP/1.1", "M-SEARCH", "SOURCE",
];
const TARGETS: &[&str] =
    &["/", "/a", "/a/b?c=d", "/%41?x=%20&y", "/a;b=c/d.e", "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"];
const ODD_TARGETS: &[&str] = &[
    "*",
    "http://a/b",
    "https://a:1/b?c",
    "http://a",
    "ftp://a/b",
    "a:443",
    "",
    "/\u{e9}",
    "/a b",
    "/a\tb",
    "/a\0b",
    "/a#b",
    "/a\rb",
    "\\a",
    "/a\"b",
    "/<>",
    "//a/b",
    "/%",
    "/%0d%0aX:",
    "/\x7f",
    "a",
    "?a",
    "/a\x0bb",
    "HTTP/1.1",
    "/ HTTP/1.1\r\nX: y",
    "http://a b/",
    "/\u{a0}",
];
const ODD_VERSIONS: &[&str] = &[
    "HTTP/1.0",
    "HTTP/1.0",
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/1.9",
    "HTTP/2.0",
    "HTTP/0.9",
    "HTTP/1.10",
    "HTTP/01.1",
    "http/1.1",
    "HTTP/1,1",
    "HTTP/1.",
    "HTTP/1",
    "HTTP/",
    "HTTP/1.1 ",
    "HTTP/1.1\t",
    " HTTP/1.1",
    "HTTP/1.1x",
    "",
    "HTTP/ 1.1",
    "HTTP/3.0",
    "HTTP/1.\u{661}",
    "ICE/1.0",
    "RTSP/1.0",
    "HTTP /1.1",
    "HTTP/1.1\0",
];
const ODD_EXPECTS: &[&str] = &["100-Continue", "x", "", "100-continue, x", "100-continue;a"];
const ODD_UPGRADES: &[&str] = &["websocket", "h2c", "WebSocket, h2c", "", "TLS/1.0"];

/// Writes a few requests, and one more that is regular. Returns the number of the former, and whether all are
/// regular.
pub fn write(random: &mut Random, out: &mut Vec<u8>) -> (usize, bool) {
    let count = 1 + random.below(3);
    let mut is_regular = true;
    for _ in 0..count {
        let oddity = random.pick(&[0, 6, 12, 24, 48]);
        is_regular &= oddity == 0;
        Writer { random, out, oddity }.request();
    }
    if random.once_in(50) {
        out.truncate(random.below(out.len() + 1));
    } else {
        out.extend_from_slice(LAST);
    }
    (count, is_regular)
}

impl Writer<'_> {
    fn request(&mut self) {
        let start = self.out.len();
        if self.is_odd() {
            self.pick(&["\r\n", "\n", "\r\n\r\n", " ", "\r", "\t", "\0", " \r\n"]);
        }
        self.request_line();
        let framed = self.random.pick(&[Framed::Not, Framed::Length, Framed::Chunks]);
        // What the head says is written before the content is known, so the content is made first.
        let place = self.out.len();
        let len = match framed {
            Framed::Not => 0,
            Framed::Length => self.content(),
            Framed::Chunks => {
                self.chunks();
                self.out.len() - place
            }
        };
        let behind = self.out.len();
        self.fields(framed, len);
        self.end_line();
        // The head goes in front of the content.
        self.out[place..].rotate_left(behind - place);
        if self.oddity > 6 && self.random.once_in(4) {
            self.damage(start);
        }
    }

    fn request_line(&mut self) {
        match self.is_odd() {
            true => self.pick(ODD_METHODS),
            false => self.pick(METHODS),
        }
        self.blank();
        match self.is_odd() {
            true => self.pick(ODD_TARGETS),
            false => self.pick(TARGETS),
        }
        self.blank();
        match self.is_odd() {
            true => self.pick(ODD_VERSIONS),
            false => self.text("HTTP/1.1"),
        }
        self.end_line();
    }

    fn blank(&mut self) {
        match self.is_odd() {
            true => self.pick(&["  ", "\t", " \t", "", "\x0b", "\r", "\x0c", "\u{a0}", " \r\n"]),
            false => self.text(" "),
        }
    }

    fn fields(&mut self, framed: Framed, len: usize) {
        match self.is_odd() {
            true => self.field(
                "Host",
                &["a"],
                &["", "b", "a, b", "a b", "a@b", "[::1]", "a:x", "a/b", "\u{e9}", "a\0"],
            ),
            false => self.text("Host: a\r\n"),
        }
        if self.random.once_in(3) {
            self.plain_field();
        }
        self.framing(framed, len);
        if self.random.once_in(12) {
            self.connection();
        }
        if self.random.once_in(20) {
            self.field("Expect", &["100-continue"], ODD_EXPECTS);
        }
        if self.random.once_in(20) {
            self.field("Upgrade", &["websocket", "h2c"], ODD_UPGRADES);
        }
        if self.random.once_in(4) {
            self.plain_field();
        }
    }
}
