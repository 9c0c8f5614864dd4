//! What requests and responses have in common in the grammar of RFC 9112: fields, content, chunks.
//!
//! Each rule has its regular form, and odd ones that were seen to be read differently by different servers.
//! A message has a share of oddity, from none to much, which decides how often the odd forms are taken.

use crate::random::Random;

/// Writes messages to `out`.
pub struct Writer<'a> {
    pub random: &'a mut Random,
    pub out: &'a mut Vec<u8>,
    /// So many of 256 choices are odd.
    pub oddity: usize,
}

/// How content is framed, before anything becomes odd.
#[derive(Clone, Copy, PartialEq)]
pub enum Framed {
    Not,
    Length,
    Chunks,
}

const ODD_ENDS: &[&str] = &[
    "\n", "\n", "\r", "\r\r\n", "\n\r", "\r \n", "\x0b\r\n", "\r\n\r\n", " \r\n", "\t\r\n",
    "\0\r\n", "",
];
const ODD_COLONS: &[&str] = &[
    " : ", "\t: ", "\x0b: ", "\0: ", "", " ", ":", "::", ":\t", ":  ", ":\x0b", ":\r", ":\n ",
    ":\r\n ", "\r: ", "\u{a0}: ", "=", ": \0",
];
const ODD_STARTS: &[&str] = &[" ", "\t", "\r", "\0", "\x0b", "\u{feff}", "x", "-", "\r\n"];
const LENGTH_NAMES: &[&str] = &[
    "content-length",
    "CONTENT-LENGTH",
    "Content_Length",
    "Content-Lengt\u{127}",
    "Content-Length\0",
    "Content- Length",
    "Content-Length-",
    "Content-Lengthx",
    "Content Length",
];
const CODING_NAMES: &[&str] = &[
    "transfer-encoding",
    "TRANSFER-ENCODING",
    "Transfer_Encoding",
    "Transfer-Encoding\0",
    "Transfer\u{2010}Encoding",
    "Transfer- Encoding",
    "TE",
    "Content-Encoding",
    "Transfer-Encodingx",
];
const CODINGS: &[&str] = &[
    "chunked",
    "Chunked",
    "CHUNKED",
    "identity",
    "gzip",
    "deflate",
    "xchunked",
    "chunkedx",
    "x-chunked",
    "\"chunked\"",
    "chunked;q=1",
    "chunked; a=b",
    "",
    "cow",
    "chun ked",
    "chunk\u{e9}d",
    "chunked\0",
    "\x0bchunked",
    "chunked\x0c",
    "chunked\t",
    "gzip, chunked",
    "chunked, chunked",
    "chunked, identity",
    "identity, chunked",
    "chunked,",
    ", chunked",
    "chunked gzip",
    "gzip;chunked",
    "chunked\r\n ",
    "\r\n chunked",
    "\r\n\tchunked",
    "gzip,\r\n chunked",
    "chunked,\r\n gzip",
    "chunked \r\n",
    "chunked\u{131}",
];
const PLAIN_FIELDS: &[&str] = &[
    "Accept: */*",
    "User-Agent: a/1.0 (b; c)",
    "Cookie: a=b; c=d",
    "X-Empty:",
    "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "Accept-Encoding: gzip, deflate",
    "X-Colon: a:b: c",
    "Range: bytes=0-1",
    "A: b",
    "x:y",
];
const ODD_FIELDS: &[&str] = &[
    "X: a\r\n b",
    "X: a\r\n\tb",
    "X: a\r\n \r\n b",
    "X: a\nContent-Length: 3",
    "X: a\rContent-Length: 3",
    "X: \0",
    "X: a\x7fb",
    "X: \x01",
    "X: \u{e9}",
    "\u{e9}: x",
    ": x",
    "X",
    "X y: z",
    "\"X\": y",
    "X:\n y",
    "X:\r\n Content-Length: 3",
    " X: y",
    "(X): y",
    "X@: y",
    "X\r: y",
    "X: a\r\n Transfer-Encoding: chunked",
    "X:\r\n\tTransfer-Encoding: chunked",
    "Trailer: Content-Length",
    "TE: trailers, chunked",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: close",
    "X: \r\r\n y",
    "Content-Length",
    "Transfer-Encoding",
    "X: a\r\n\r\n Content-Length: 4",
    "Host: a",
];
const CONNECTIONS: &[&str] = &[
    "close",
    "keep-alive",
    "Close",
    "Keep-Alive",
    "close, keep-alive",
    "keep-alive, close",
    "keep-alive,close",
    "x, close",
    "closed",
    "x close",
    "",
    ",",
    ", close",
    "close;a",
    "keep-alive\r\n , close",
    "upgrade",
    "upgrade, close",
    "Upgrade, keep-alive",
    "close\t",
    "\tclose",
    "\"close\"",
    "keep-alive, x",
    "Content-Length",
    "Transfer-Encoding, close",
    "c lose",
];
const CONTENTS: &[&str] = &[
    "",
    "a",
    "hello",
    "0\r\n\r\n",
    "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "5\r\nhello\r\n0\r\n\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\0",
    "POST /inner HTTP/1.1\r\nContent-Length: 30\r\n\r\n",
    "0123456789012345678901234567890123456789",
    "Content-Length: 3\r\n\r\n",
    "\u{e9}\u{20ac}",
];
const ODD_EXTENSIONS: &[&str] = &[
    ";",
    ";a",
    ";a=b",
    ";a=\"b\"",
    "; a",
    " ;a",
    ";a=\"\r\nb\"",
    ";a\n",
    ";a\rb",
    ";\0",
    ";a=\"b",
    ";\x7f",
    " ",
    "\t",
    "  ",
    " \t ",
    ";\u{e9}",
    "\x0b",
    ",a",
    " a",
    ";a=b;c=d",
    ";=",
    ";;",
    ";a=\\\"",
    ";a b",
];
const ODD_SIZES: &[&str] = &[
    "",
    "-1",
    "+1",
    "0x1",
    "1_0",
    "g",
    "ffffffffffffffff",
    "10000000000000000",
    "10000000000000001",
    "7fffffffffffffff",
    "8000000000000000",
    "fffffffffffffffff",
    "0000000000000000000000001",
    "00",
    "1.",
    "1e",
    "\u{ff11}",
    " 1",
    "\t1",
    "\r\n1",
    "\n1",
    "#1",
    "0 1",
];
const TRAILERS: &[&str] = &["A: b\r\n", "Host: b\r\n", "Connection: close\r\n", "A:\r\n"];
const ODD_TRAILERS: &[&str] = &[
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "A: b\n",
    "A b\r\n",
    " A: b\r\n",
    "A: b\r\n c\r\n",
    "A : b\r\n",
    "A: \0\r\n",
    "A: b\r",
    "GET / HTTP/1.1\r\n",
    ":\r\n",
    "\u{e9}: a\r\n",
    "A: b\rc\r\n",
    "\t\r\n",
    "A\r\n",
];
const ODD_ENDS_OF_CHUNKS: &[&str] =
    &["\n", "", "\r", "\r\r\n", "\n\r", " \r\n", "\r\n\r\n", "x\r\n", "\0\r\n"];
const ODD_BYTES: &[u8] =
    b"\r\n\0 \t:;,=+-.\"\\/0159afAF\x0b\x0c\x7f\x80\xa0\xc4\xff\x85\x1f#?%HhGCcTt";

impl Writer<'_> {
    #[inline]
    pub fn is_odd(&mut self) -> bool {
        self.oddity > 0 && self.random.below(256) < self.oddity
    }

    #[inline]
    pub fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    pub fn number(&mut self, number: usize) {
        use std::io::Write;
        let _ = write!(self.out, "{number}");
    }

    pub fn pick(&mut self, choices: &[&str]) {
        let text = self.random.pick(choices);
        self.text(text);
    }

    /// The end of a line of the head.
    pub fn end_line(&mut self) {
        match self.is_odd() {
            true => self.pick(ODD_ENDS),
            false => self.text("\r\n"),
        }
    }

    fn colon(&mut self) {
        match self.is_odd() {
            true => self.pick(ODD_COLONS),
            false => self.text(": "),
        }
    }

    fn name(&mut self, usual: &str, odd: &[&str]) {
        if self.is_odd() && self.random.once_in(2) {
            self.pick(ODD_STARTS);
        }
        match self.is_odd() {
            true => self.pick(odd),
            false => self.text(usual),
        }
    }

    /// A field with a regular value, or an odd one.
    pub fn field(&mut self, name: &str, values: &[&str], odd: &[&str]) {
        self.name(name, &[name]);
        self.colon();
        match self.is_odd() || self.is_odd() {
            true => self.pick(odd),
            false => self.pick(values),
        }
        self.end_line();
    }

    pub fn connection(&mut self) {
        self.field("Connection", &["close", "keep-alive", "x"], CONNECTIONS);
    }

    pub fn plain_field(&mut self) {
        match self.is_odd() {
            true => self.pick(ODD_FIELDS),
            false => self.pick(PLAIN_FIELDS),
        }
        self.end_line();
    }

    pub fn length(&mut self, len: usize) {
        self.name("Content-Length", LENGTH_NAMES);
        self.colon();
        match self.is_odd() {
            true => self.odd_length(len),
            false => self.number(len),
        }
        self.end_line();
    }

    fn odd_length(&mut self, len: usize) {
        let before = [
            "+",
            "-",
            "0x",
            "0",
            "00000000000000000000000",
            "\t",
            "\x0b",
            "\0",
            "\"",
            "1",
            "\r\n ",
            ",",
        ];
        let behind = [
            " ", "\t", "\0", "\x0b", ".0", "e0", "_", ",", "\"", ";", "h", "\r\n ", "\r\n 0", " 0",
            "\u{e9}", "\x0c", "\r",
        ];
        match self.random.below(8) {
            0 | 1 => {
                self.pick(&before);
                self.number(len);
            }
            2 | 3 => {
                self.number(len);
                self.pick(&behind);
            }
            4 => {
                self.number(len);
                self.pick(&[", ", ",", " ,\t", "\r\nContent-Length: "]);
                let other = len + self.random.below(2);
                self.number(other);
            }
            5 => {
                let other = self.random.below(len + 40);
                self.number(other);
            }
            6 => self.pick(&[
                "",
                "18446744073709551616",
                "18446744073709551621",
                "9223372036854775808",
                "9223372036854775807",
                "4294967296",
                "4294967301",
                "18446744073709551615",
                "99999999999999999999999999",
                "-1",
                "five",
                "1 1",
            ]),
            _ => {
                self.number(len / 10);
                self.pick(&[" ", "\t", "\0", "\r\n ", "_"]);
                self.number(len % 10);
            }
        }
    }

    pub fn coding(&mut self) {
        self.name("Transfer-Encoding", CODING_NAMES);
        self.colon();
        match self.is_odd() {
            true => self.pick(CODINGS),
            false => self.text("chunked"),
        }
        self.end_line();
    }

    /// The fields that frame the content, which a second look may double or contradict.
    pub fn framing(&mut self, framed: Framed, len: usize) {
        match framed {
            Framed::Not => {}
            Framed::Length => self.length(len),
            Framed::Chunks => self.coding(),
        }
        if self.is_odd() {
            match self.random.below(6) {
                0 | 1 => self.length(len),
                2 | 3 => self.coding(),
                4 => {
                    let other = self.random.below(80);
                    self.length(other);
                }
                _ => {
                    self.coding();
                    self.length(len);
                }
            }
        }
    }

    /// Content without framing. Returns its length.
    pub fn content(&mut self) -> usize {
        let before = self.out.len();
        for _ in 0..1 + self.random.below(2) {
            self.pick(CONTENTS);
        }
        self.out.len() - before
    }

    pub fn chunks(&mut self) {
        for _ in 0..self.random.below(4) {
            self.chunk();
        }
        match self.is_odd() {
            true => self.pick(&[
                "",
                "00",
                "0;a",
                "0 ",
                "0000000000000000000",
                "-0",
                "0x0",
                "0\t;a=b",
                "1",
            ]),
            false => self.text("0"),
        }
        self.end_chunk_line();
        while self.random.once_in(4) {
            match self.is_odd() {
                true => self.pick(ODD_TRAILERS),
                false => self.pick(TRAILERS),
            }
        }
        match self.is_odd() {
            true => self.pick(ODD_ENDS_OF_CHUNKS),
            false => self.text("\r\n"),
        }
    }

    fn chunk(&mut self) {
        use std::io::Write;
        let data = self.random.pick(CONTENTS);
        if data.is_empty() {
            return;
        }
        let len = data.len() + if self.is_odd() { self.random.below(3) } else { 0 };
        if self.is_odd() && self.random.once_in(2) {
            self.pick(ODD_SIZES);
        } else {
            let _ = match self.random.below(4) {
                0 => write!(self.out, "{len:X}"),
                1 => write!(self.out, "{len:04x}"),
                _ => write!(self.out, "{len:x}"),
            };
        }
        if self.is_odd() {
            self.pick(ODD_EXTENSIONS);
        }
        self.end_chunk_line();
        self.text(data);
        match self.is_odd() {
            true => self.pick(ODD_ENDS_OF_CHUNKS),
            false => self.text("\r\n"),
        }
    }

    fn end_chunk_line(&mut self) {
        match self.is_odd() {
            true => self.pick(ODD_ENDS_OF_CHUNKS),
            false => self.text("\r\n"),
        }
    }

    /// Damages a few bytes of what was written from `start` on.
    pub fn damage(&mut self, start: usize) {
        for _ in 0..1 + self.random.below(3) {
            let len = self.out.len() - start;
            if len == 0 {
                return;
            }
            let at = start + self.random.below(len);
            let byte = self.random.pick(ODD_BYTES);
            match self.random.below(8) {
                0..=2 => self.out[at] = byte,
                3 | 4 => self.out.insert(at, byte),
                5 => {
                    self.out.remove(at);
                }
                6 => {
                    let to = start + self.random.below(len);
                    self.out.swap(at, to);
                }
                _ => {
                    let end = (at + 1 + self.random.below(24)).min(self.out.len());
                    let copy = self.out[at..end].to_vec();
                    let place = start + self.random.below(len);
                    self.out.splice(place..place, copy);
                }
            }
        }
    }
}
