//! The head of the output of a CGI program (RFC 3875, section 6): bytes in, a status and fields
//! out.
//!
//! Owns which heads are refused: those with two meanings, and those that could smuggle a field into
//! the response. Knows neither the process nor the framing of the response.
#![forbid(unsafe_code)]

use crate::http::request::{decimal, is_token_byte};

/// The longest head in bytes.
pub const MAX_CGI_HEAD: usize = 64 * 1024;

/// The result of parsing the bytes so far.
#[derive(Debug, PartialEq)]
pub enum Parsed {
    Partial,
    /// The head is refused, and the client gets 502; a sentence for the error log says why.
    Bad(&'static str),
    Complete(Head),
}

/// A parsed head, without the fields that the server writes itself.
#[derive(Debug, Default, PartialEq)]
pub struct Head {
    /// The length in bytes, with the empty line.
    pub len: usize,
    pub status: u16,
    /// The reason phrase of the program; empty if it writes none.
    pub reason: Vec<u8>,
    /// The fields to pass on, each with its CRLF, without Content-Length.
    pub fields: Vec<u8>,
    pub content_length: Option<u64>,
    /// There is a Date among the fields.
    pub has_date: bool,
    /// The path and query of a local redirect (RFC 3875, section 6.2.2).
    pub local: Option<Vec<u8>>,
}

/// Fields that apply to one connection (RFC 9110, section 7.6.1), which the server writes itself.
const OWN: [&[u8]; 7] = [
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

/// Parses a head at the start of the output of a program; `ended`: the output is complete.
pub fn parse(output: &[u8], ended: bool) -> Parsed {
    let mut parser = Parser::default();
    let mut is_first = true;
    let mut at = 0;
    loop {
        let Some(len) = memchr::memchr(b'\n', &output[at..]) else {
            return match (ended, output.is_empty()) {
                (true, true) => Parsed::Bad("wrote nothing"),
                (true, false) => Parsed::Bad("ended before the end of its header"),
                (false, _) if output.len() >= MAX_CGI_HEAD => {
                    Parsed::Bad("wrote an overlong header")
                }
                (false, _) => Parsed::Partial,
            };
        };
        let line = &output[at..at + len];
        at += len + 1;
        if at > MAX_CGI_HEAD {
            return Parsed::Bad("wrote an overlong header");
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return match is_first {
                true => Parsed::Bad("wrote no header"),
                false => Parsed::Complete(parser.finish(at)),
            };
        }
        let taken = match status_line(line).filter(|_| is_first) {
            Some(status) => parser.status_line(status),
            None => parser.field_line(line),
        };
        if let Err(fault) = taken {
            return Parsed::Bad(fault);
        }
        is_first = false;
    }
}

/// The lines of a head so far. Errors are sentences for the error log.
#[derive(Default)]
struct Parser<'a> {
    head: Head,
    /// Code and reason, from a status line or the Status field.
    status: Option<(u16, &'a [u8])>,
    has_status_field: bool,
    location: Option<&'a [u8]>,
    /// There is a field other than Location and Content-Type.
    has_others: bool,
}

impl<'a> Parser<'a> {
    /// Takes the status line of a program that writes complete heads, such as one whose name begins
    /// with `nph-` (RFC 3875, section 5).
    fn status_line(&mut self, status: &'a [u8]) -> Result<(), &'static str> {
        self.status = Some(status_of(status).ok_or("wrote a status that is none")?);
        Ok(())
    }

    /// Takes a field line.
    fn field_line(&mut self, line: &'a [u8]) -> Result<(), &'static str> {
        let (name, value) = field(line).ok_or("wrote a line that is no header field")?;
        if name.eq_ignore_ascii_case(b"status") {
            return self.status_field(value);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            return self.content_length(value);
        }
        if OWN.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return Ok(());
        }
        if name.eq_ignore_ascii_case(b"location") {
            if self.location.replace(value).is_some() {
                return Err("wrote two locations");
            }
        } else if !name.eq_ignore_ascii_case(b"content-type") {
            self.has_others = true;
        }
        self.head.has_date |= name.eq_ignore_ascii_case(b"date");
        for part in [name, b": ", value, b"\r\n"] {
            self.head.fields.extend_from_slice(part);
        }
        Ok(())
    }

    /// Takes the Status field, which must not contradict a status line.
    fn status_field(&mut self, value: &'a [u8]) -> Result<(), &'static str> {
        let status = status_of(value).ok_or("wrote a status that is none")?;
        if self.has_status_field || self.status.is_some_and(|(code, _)| code != status.0) {
            return Err("wrote a status that is none");
        }
        self.has_status_field = true;
        self.status = Some(status);
        Ok(())
    }

    /// Takes a Content-Length field, which must not contradict another one.
    fn content_length(&mut self, value: &[u8]) -> Result<(), &'static str> {
        let length = decimal(value).ok_or("wrote a length that is none")?;
        if self.head.content_length.is_some_and(|other| other != length) {
            return Err("wrote a length that is none");
        }
        self.head.content_length = Some(length);
        Ok(())
    }

    /// Returns the head behind its empty line, `len` bytes long.
    fn finish(self, len: usize) -> Head {
        let mut head = self.head;
        head.len = len;
        let redirects = self.status.is_none() && self.location.is_some();
        (head.status, head.reason) = match self.status {
            Some((status, reason)) => (status, reason.to_vec()),
            None if redirects => (302, Vec::new()),
            None => (200, Vec::new()),
        };
        // A location beside a status or other fields, such as cookies, is meant for the client,
        // which understands a path as well. Two slashes begin the name of a host, and a fragment
        // has a meaning for the client only.
        let is_local = |location: &&[u8]| {
            location.starts_with(b"/") && !location.starts_with(b"//") && !location.contains(&b'#')
        };
        if redirects && !self.has_others {
            head.local = self.location.filter(is_local).map(<[u8]>::to_vec);
        }
        head
    }
}

/// Returns the code and reason of a line such as `HTTP/1.0 404 Not Found`.
fn status_line(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"HTTP/1.")? {
        [b'0'..=b'9', b' ', status @ ..] if status.iter().all(is_text) => Some(status),
        _ => None,
    }
}

/// Splits a field line. Returns `None` unless the name is a token and the value has no control
/// bytes, so that neither can end the line.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let good = !name.is_empty() && name.iter().all(is_token_byte) && value.iter().all(is_text);
    good.then_some((name, value))
}

/// Returns whether a field value may contain `byte`.
fn is_text(byte: &u8) -> bool {
    *byte == b'\t' || *byte >= 0x20 && *byte != 0x7f
}

/// Parses code and reason of `404 Not Found`. Only final status codes are accepted.
fn status_of(value: &[u8]) -> Option<(u16, &[u8])> {
    let digits = value.get(..3)?;
    let rest = &value[3..];
    if !rest.is_empty() && rest[0] != b' ' {
        return None;
    }
    let code = u16::try_from(decimal(digits)?).ok()?;
    (200..=599).contains(&code).then(|| (code, rest.trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(output: &str) -> Head {
        match parse(output.as_bytes(), false) {
            Parsed::Complete(head) => head,
            other => panic!("{output:?}: {other:?}"),
        }
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).expect("text")
    }

    #[test]
    fn status_and_fields_are_told_apart_whatever_ends_a_line() {
        let table = [
            ("A: b\n\nbody", 200, "", "A: b\r\n", 6),
            ("A: b\r\n\r\nbody", 200, "", "A: b\r\n", 8),
            ("A: b\r\n\n", 200, "", "A: b\r\n", 7),
            ("Status: 404 Not here\nContent-type:text/x\n\n", 404, "Not here", "", 42),
            ("status:500\nX:\n\n", 500, "", "X: \r\n", 15),
            ("Set-Cookie: a=1\nSet-Cookie: b=2\n\n", 200, "", "", 33),
            ("HTTP/1.0 400 Bad Request\nA: b\n\n", 400, "Bad Request", "A: b\r\n", 31),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", 200, "OK", "A: b\r\n", 25),
            ("HTTP/1.1 404\n\n", 404, "", "", 14),
            ("HTTP/1.1 204 None\nStatus: 204 No\n\n", 204, "No", "", 34),
            ("HTTP/1.1 302 Found\nLocation: /b\n\n", 302, "Found", "Location: /b\r\n", 33),
            ("Location: http://a/b\n\n", 302, "", "Location: http://a/b\r\n", 22),
            ("Location: /b\nStatus: 303 X\n\n", 303, "X", "Location: /b\r\n", 28),
        ];
        for (output, status, reason, fields, len) in table {
            let head = complete(output);
            assert_eq!((head.status, text(&head.reason), head.len), (status, reason, len));
            assert!(text(&head.fields).ends_with(fields), "{output:?} {:?}", text(&head.fields));
            assert_eq!(head.local, None, "{output:?}");
        }
        let cookies = complete("Set-Cookie: a=1\nSet-Cookie: b=2\n\n");
        assert_eq!(text(&cookies.fields), "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n");
    }

    #[test]
    fn what_is_the_servers_own_is_left_out() {
        let head = complete(
            "Connection: close\nKeep-Alive: 1\nTransfer-Encoding: chunked\nTE: x\nTrailer: y\n\
             Upgrade: z\nProxy-Connection: q\nContent-Length: 7\nContent-Length: 7\nDate: now\n\n",
        );
        assert_eq!(text(&head.fields), "Date: now\r\n");
        assert_eq!((head.content_length, head.has_date), (Some(7), true));
    }

    #[test]
    fn a_path_alone_is_a_local_redirection() {
        let local = |output: &str| complete(output).local;
        assert_eq!(local("Location: /a?b=c\n\n"), Some(b"/a?b=c".to_vec()));
        assert_eq!(local("Content-Type: text/html\nLocation: /a\n\n"), Some(b"/a".to_vec()));
        for output in [
            "Location: //host/a\n\n",
            "Location: a\n\n",
            "Location: http://h/\n\n",
            "Location: /a\nStatus: 302 Found\n\n",
            "Location: /a\nSet-Cookie: a=b\n\n",
            "Location: /a#b\n\n",
        ] {
            assert_eq!((local(output), complete(output).status), (None, 302), "{output:?}");
        }
    }

    #[test]
    fn a_bad_head_is_refused_and_never_guessed_at() {
        let table = [
            "\n",
            "\r\nbody",
            "HTTP/2 200 OK\nA: b\n\n",
            "HTTP/1 200 OK\nA: b\n\n",
            "HTTP/1.1\nA: b\n\n",
            "HTTP/1.1 \nA: b\n\n",
            "HTTP/1.1  200 OK\nA: b\n\n",
            "HTTP/1.1 200OK\nA: b\n\n",
            "HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\nA: b\n\n",
            "HTTP/1.1 600 X\nA: b\n\n",
            "HTTP/1.1 200 a\rb\nA: b\n\n",
            "HTTP/1.1 200 a\0b\nA: b\n\n",
            "http/1.1 200 OK\nA: b\n\n",
            "HTTP/1.1 200 OK\nHTTP/1.1 200 OK\n\n",
            "A: b\nHTTP/1.1 200 OK\n\n",
            "HTTP/1.1 200 OK\nStatus: 404 X\n\n",
            "HTTP/1.1 200 OK\nStatus: 200 OK\nStatus: 200 OK\n\n",
            "hello\n\n",
            "A: b\n folded\n\n",
            "A b: c\n\n",
            ": c\n\n",
            "A : c\n\n",
            "A: b\rC: d\n\n",
            "A: b\0\n\n",
            "A: \x1b[0m\n\n",
            "A: \x7f\n\n",
            "Status: 99\n\n",
            "Status: 200OK\n\n",
            "Status: 100 Continue\n\n",
            "Status: 600\n\n",
            "Status: +20\n\n",
            "Status: OK\n\n",
            "Status:\n\n",
            "Status: 200\nStatus: 200\n\n",
            "Content-Length: -1\n\n",
            "Content-Length: 1\nContent-Length: 2\n\n",
            "Content-Length: 99999999999999999999999\n\n",
            "Location: /a\nLocation: /b\n\n",
        ];
        for output in table {
            let parsed = parse(output.as_bytes(), false);
            assert!(matches!(parsed, Parsed::Bad(_)), "{output:?}: {parsed:?}");
        }
        assert_eq!(parse(b"", true), Parsed::Bad("wrote nothing"));
        assert!(matches!(parse(b"A: b\n", true), Parsed::Bad(_)));
    }

    #[test]
    fn a_head_is_the_same_however_it_is_cut_and_bounded() {
        let output = b"Status: 201 Made\r\nA: b\r\nSet-Cookie: c\r\n\r\n";
        for len in 0..output.len() {
            assert_eq!(parse(&output[..len], false), Parsed::Partial, "{len}");
        }
        let long = [b"A: ", vec![b'x'; MAX_CGI_HEAD].as_slice()].concat();
        assert!(matches!(parse(&long, false), Parsed::Bad(_)));
        assert_eq!(parse(&long[..MAX_CGI_HEAD - 1], false), Parsed::Partial);
        let many = [b"A: b\n".repeat(MAX_CGI_HEAD / 5 + 1).as_slice(), b"\n"].concat();
        assert!(matches!(parse(&many, false), Parsed::Bad(_)));
    }
}
