//! The head of a request: request line, fields, and the framing and persistence that they state
//! (RFC 9112, sections 2 to 9).
//!
//! Owns which heads are refused, and with which status: ambiguous framing is never guessed. Knows
//! nothing of the resource, and leaves the target encoded, see [`uri`](super::uri).

use std::mem::MaybeUninit;
use std::ops::Range;

/// The largest number of header fields; a head with more is refused with 431.
const MAX_FIELDS: usize = 128;

/// A part of the head, by its offset from the first byte of the head.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
    /// Returns the same part as a range.
    pub fn range(self) -> Range<usize> {
        self.start as usize..(self.start + self.len) as usize
    }
}

/// One header field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: Span,
    pub value: Span,
}

/// The framing of the content of a request (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Framing {
    #[default]
    Empty,
    Length(u64),
    Chunked,
}

/// The expectation of the Expect field (RFC 9110, section 10.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Expectation {
    #[default]
    Nothing,
    /// `100-continue`.
    Continue,
    /// An expectation that the server does not know; the response is 417.
    Unknown,
}

/// A parsed head. It holds no bytes, but their offsets.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The method; empty if the request line is malformed.
    pub method: Span,
    pub target: Span,
    /// The minor version: 0 for HTTP/1.0, 1 for HTTP/1.1 and later.
    pub minor: u8,
    pub fields: Vec<Field>,
    /// The length in bytes, with the empty line.
    pub len: usize,
    pub framing: Framing,
    /// Whether the client allows another request on this connection.
    pub persistent: bool,
    pub expects: Expectation,
    /// The head has an Upgrade field.
    pub upgrade: bool,
    /// The method is HEAD.
    pub is_head: bool,
    /// There are fields in which a proxy tells of the certificate of its client (RFC 9440); see
    /// [`Head::drop_certificates`].
    pub names_certificate: bool,
}

/// The result of parsing the bytes so far.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    Partial,
    Complete,
    /// The head is refused with this status.
    Refused(u16),
}

/// Returns the number of bytes before a request line that are ignored: empty lines (RFC 9112,
/// section 2.2) and spaces.
pub fn blank_prefix(input: &[u8]) -> usize {
    let blank = |b: &&u8| matches!(**b, b'\r' | b'\n' | b' ');
    input.iter().take_while(blank).count()
}

impl Head {
    /// Parses a head at the start of `input`, which has no blank prefix. `limit` is the length of
    /// the longest head in bytes.
    #[inline]
    pub fn parse(&mut self, input: &[u8], limit: usize) -> Outcome {
        // Bytes behind the limit may have arrived or not, which must make no difference.
        let input = &input[..input.len().min(limit)];
        // The method of an earlier head must not stay if the request line is refused.
        self.method = Span::default();
        match self.read(input, limit) {
            Ok(outcome) => outcome,
            Err(error) => self.read_liberally(input, limit, error),
        }
    }

    #[inline(always)]
    fn read(&mut self, input: &[u8], limit: usize) -> Result<Outcome, httparse::Error> {
        let mut fields = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_request_with_uninit_headers(
            &mut request,
            input,
            &mut fields,
        )?;
        Ok(match parsed {
            httparse::Status::Complete(len) => {
                self.len = len;
                self.take(input, &request)
            }
            httparse::Status::Partial if input.len() >= limit => Outcome::Refused(431),
            httparse::Status::Partial => Outcome::Partial,
        })
    }

    /// Parses once more, without the parts of a request line that httparse refuses but this server
    /// accepts.
    #[cold]
    fn read_liberally(&mut self, input: &[u8], limit: usize, error: httparse::Error) -> Outcome {
        let known = match error {
            httparse::Error::Token | httparse::Error::Version => with_known_line(input),
            _ => None,
        };
        let Some(known) = known else { return refusal(input, limit, error) };
        match self.read(&known, limit) {
            Ok(outcome) => outcome,
            Err(error) => refusal(&known, limit, error),
        }
    }

    /// Takes over what httparse has found in `input`, and checks the fields.
    fn take(&mut self, input: &[u8], request: &httparse::Request<'_, '_>) -> Outcome {
        let (Some(method), Some(target), Some(minor)) =
            (request.method, request.path, request.version)
        else {
            debug_assert!(false, "a complete request line without one of its parts");
            return Outcome::Refused(400);
        };
        let base = input.as_ptr().addr();
        let span = |part: &[u8]| Span {
            start: part.as_ptr().addr().wrapping_sub(base) as u32,
            len: part.len() as u32,
        };
        self.method = span(method.as_bytes());
        self.target = span(target.as_bytes());
        self.minor = minor;
        self.is_head = method == "HEAD";
        self.fields.clear();

        let mut rules = Rules::default();
        for header in request.headers.iter() {
            self.fields.push(Field {
                name: span(header.name.as_bytes()),
                value: if header.value.is_empty() { Span::default() } else { span(header.value) },
            });
            if let Err(status) = rules.note(header.name, header.value) {
                return Outcome::Refused(status);
            }
        }
        match rules.framing(minor) {
            Ok(framing) => self.framing = framing,
            Err(status) => return Outcome::Refused(status),
        }
        self.persistent = !rules.close && (minor == 1 || rules.keep_alive);
        self.upgrade = rules.upgrade;
        self.expects = rules.expects;
        self.names_certificate = rules.names_certificate;
        Outcome::Complete
    }

    /// Removes the fields in which a proxy tells of the certificate of its client (RFC 9440, section
    /// 4): from anybody else they are a forgery. `head` holds the bytes of the head.
    #[cold]
    pub fn drop_certificates(&mut self, head: &[u8]) {
        self.fields.retain(|field| !head.get(field.name.range()).is_some_and(is_certificate_name));
        self.names_certificate = false;
    }

    /// Returns the value of the first field called `name`, in lower case. `head` holds the bytes of
    /// the head.
    #[inline]
    pub fn value<'a>(&self, head: &'a [u8], name: &str) -> Option<&'a [u8]> {
        self.fields.iter().find_map(|field| {
            let same = head.get(field.name.range())?.eq_ignore_ascii_case(name.as_bytes());
            same.then(|| head.get(field.value.range())).flatten()
        })
    }

    /// Returns name and value of every field. `head` holds the bytes of the head.
    pub fn pairs<'a>(
        &self,
        head: &'a [u8],
    ) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> {
        self.fields.iter().filter_map(|field| {
            let name = head.get(field.name.range())?;
            Some((name, head.get(field.value.range())?))
        })
    }
}

/// Returns the outcome for a head that httparse refuses; more bytes may be needed to decide.
fn refusal(input: &[u8], limit: usize, error: httparse::Error) -> Outcome {
    match error {
        httparse::Error::TooManyHeaders => Outcome::Refused(431),
        httparse::Error::Version => match other_version(input) {
            Some(true) => Outcome::Refused(505),
            None if input.len() < limit => Outcome::Partial,
            _ => Outcome::Refused(400),
        },
        _ => Outcome::Refused(400),
    }
}

/// Returns a copy of the head in which parts of the request line are replaced, and all offsets
/// stay: bytes of the target above 127, and a minor version that is later than 1.1 (RFC 9110,
/// section 2.5). `None` if there is nothing to replace.
fn with_known_line(input: &[u8]) -> Option<Vec<u8>> {
    let line = &input[..memchr::memchr(b'\n', input).unwrap_or(input.len())];
    let target = memchr::memchr(b' ', line)? + 1;
    let version = target + memchr::memchr(b' ', &line[target..])? + 1;
    let is_later = |version: &[u8]| {
        version.starts_with(b"HTTP/1.") && matches!(version.get(7), Some(b'2'..=b'9'))
    };
    let is_later = is_later(&line[version..]);
    if line[target..version].is_ascii() && !is_later {
        return None;
    }
    let mut known = Vec::new();
    known.try_reserve_exact(input.len()).ok()?;
    known.extend_from_slice(input);
    for byte in &mut known[target..version] {
        *byte = if byte.is_ascii() { *byte } else { b'x' };
    }
    if is_later {
        known[version + 7] = b'1';
    }
    Some(known)
}

/// Returns whether a well-formed HTTP version follows the target; `None` while its bytes have not
/// all arrived. The bytes behind the version do not count: they may have arrived or not, which must
/// make no difference.
fn other_version(input: &[u8]) -> Option<bool> {
    let end = memchr::memchr(b'\n', input);
    let line = &input[..end.unwrap_or(input.len())];
    let version = line.splitn(3, |b| *b == b' ').nth(2)?;
    let form = b"HTTP/0.0";
    let fits = |(byte, wanted): (&u8, &u8)| match wanted {
        b'0' => byte.is_ascii_digit(),
        wanted => byte == wanted,
    };
    match version.iter().zip(form).all(fits) {
        true if version.len() >= form.len() => Some(true),
        true if end.is_none() => None,
        _ => Some(false),
    }
}

/// Transfer codings that are known but not served (RFC 9112, section 7).
const CODINGS: [&[u8]; 6] = [b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress", b"br"];

/// The last transfer coding is `chunked`.
const CHUNKED: u8 = 1;
/// There is another known transfer coding.
const CODED: u8 = 2;

/// The statements of all fields that matter for framing and persistence.
#[derive(Default)]
struct Rules {
    length: Option<u64>,
    /// Transfer codings: [`CHUNKED`] and [`CODED`].
    codings: u8,
    host: bool,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    names_certificate: bool,
    expects: Expectation,
}

impl Rules {
    /// Notes one field. Returns the status with which the head is refused as an error.
    fn note(&mut self, name: &str, value: &[u8]) -> Result<(), u16> {
        // The length of the name rules out nearly all fields before a byte is compared.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                if self.host || !is_host(value) {
                    return Err(400);
                }
                self.host = true;
            }
            6 if name.eq_ignore_ascii_case("expect") => {
                let is_known = value.eq_ignore_ascii_case(b"100-continue");
                self.expects = match self.expects {
                    Expectation::Nothing | Expectation::Continue if is_known => {
                        Expectation::Continue
                    }
                    _ => Expectation::Unknown,
                };
            }
            7 if name.eq_ignore_ascii_case("upgrade") => self.upgrade = true,
            10 if name.eq_ignore_ascii_case("connection") => {
                for token in tokens(value) {
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            11 if is_certificate_name(name.as_bytes()) => self.names_certificate = true,
            14 if name.eq_ignore_ascii_case("content-length") => {
                let length = decimal(value).ok_or(400u16)?;
                if self.length.is_some_and(|other| other != length) {
                    return Err(400);
                }
                self.length = Some(length);
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                for coding in tokens(value) {
                    // RFC 9112, section 6.1: `chunked` is the last coding, else the length of the
                    // content cannot be determined.
                    if self.codings & CHUNKED != 0 {
                        return Err(400);
                    }
                    if coding.eq_ignore_ascii_case(b"chunked") {
                        self.codings |= CHUNKED;
                    } else if CODINGS.iter().any(|known| known.eq_ignore_ascii_case(coding)) {
                        self.codings |= CODED;
                    } else {
                        return Err(400);
                    }
                }
            }
            17 if is_certificate_name(name.as_bytes()) => self.names_certificate = true,
            _ => {}
        }
        Ok(())
    }

    /// Decides on the framing (RFC 9112, section 6.3).
    fn framing(&self, minor: u8) -> Result<Framing, u16> {
        match (self.codings != 0, self.length) {
            (true, Some(_)) => Err(400),
            // RFC 9112, section 6.1: the framing of an HTTP/1.0 message with Transfer-Encoding is
            // faulty.
            (true, None) if minor == 0 || self.codings == CODED => Err(400),
            (true, None) if self.codings != CHUNKED => Err(501),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(0)) | (false, None) => Ok(Framing::Empty),
            (false, Some(length)) => Ok(Framing::Length(length)),
        }
    }
}

/// Returns whether a field is `Client-Cert` or `Client-Cert-Chain` (RFC 9440, section 2), or one that
/// a program cannot tell from these, since `-` and `_` are the same to it, as in variables of CGI.
fn is_certificate_name(name: &[u8]) -> bool {
    let is = |known: &[u8]| {
        let same = |(byte, known): (&u8, &u8)| match byte {
            b'_' => *known == b'-',
            byte => byte.eq_ignore_ascii_case(known),
        };
        name.len() == known.len() && name.iter().zip(known).all(same)
    };
    is(b"client-cert") || is(b"client-cert-chain")
}

/// Returns the members of a comma-separated list, without the white space around them.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

/// Returns whether a token may contain `byte` (RFC 9110, section 5.6.2).
#[inline]
pub fn is_token_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// Parses a decimal number below 2^63 that has digits only.
pub fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let number = value.iter().try_fold(0u64, |number, b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })?;
    (number < 1 << 63).then_some(number)
}

/// The bytes of a registered name (RFC 3986, section 3.2.2).
const IN_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~%!$&'()*+,;=";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

/// Returns whether `value` is a name or an address with an optional port (RFC 3986, sections 3.2.2
/// and 3.2.3). It is empty if the target has no authority (RFC 9112, section 3.2).
pub fn is_host(value: &[u8]) -> bool {
    let (name_fits, rest) = match value.strip_prefix(b"[") {
        Some(literal) => match memchr::memchr(b']', literal) {
            Some(end) => (is_address_literal(&literal[..end]), &literal[end + 1..]),
            None => return false,
        },
        None => {
            let end = value.iter().position(|b| !IN_NAME[usize::from(*b)]);
            let (name, rest) = value.split_at(end.unwrap_or(value.len()));
            // A port without a name in front of it is malformed.
            (rest.is_empty() || !name.is_empty(), rest)
        }
    };
    let port_fits = match rest.strip_prefix(b":") {
        Some(port) => port.iter().all(u8::is_ascii_digit),
        None => rest.is_empty(),
    };
    name_fits && port_fits
}

/// Returns whether the text between brackets is an IPv6 address with an optional zone (RFC 6874),
/// or an address of a future version (RFC 3986, section 3.2.2).
fn is_address_literal(literal: &[u8]) -> bool {
    if let Some(future) = literal.strip_prefix(b"v").or(literal.strip_prefix(b"V")) {
        let fits = |b: &u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:".contains(b);
        return future.iter().all(fits) && future.contains(&b'.');
    }
    let address = literal.split(|b| *b == b'%').next().unwrap_or_default();
    let zone = &literal[address.len()..];
    let fits = |b: &u8| b.is_ascii_alphanumeric() || b"%-._~".contains(b);
    let parsed = std::str::from_utf8(address).ok().map(str::parse::<std::net::Ipv6Addr>);
    matches!(parsed, Some(Ok(_))) && zone.iter().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(input: &[u8]) -> (Outcome, Head) {
        let mut head = Head::default();
        let outcome = head.parse(input, 16384);
        (outcome, head)
    }

    #[test]
    fn heads_that_are_refused() {
        let cases: &[(&[u8], u16)] = &[
            (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nContent-Length:\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nContent-Length: 9223372036854775808\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: br, X-GZIP ,\tCHUNKED\r\n\r\n", 501),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip, x, chunked\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip;q=1, chunked\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: , chunked\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked,\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
            (b"GET / HTTP/1.0\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
            (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n: a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nA(b: a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n A: b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
            (b"GET / HTTP/0.9\r\n\r\n", 505),
            (b"GET / HTTP/1.10\r\n\r\n", 400),
            (b"GET / HTTP/1.20\r\n\r\n", 400),
            (b"GET / HTTP/1.2x\r\n\r\n", 400),
            (b"GET / HTTP/1.\xb2\r\n\r\n", 400),
            (b"GET / http/1.2\r\n\r\n", 400),
            (b"GET /\xff HTTP/3.0\r\n\r\n", 505),
            (b"GET /\xff\x01 HTTP/1.1\r\n\r\n", 400),
            (b"GET /\xff\0 HTTP/1.1\r\n\r\n", 400),
            (b"GET /\xff\x7f HTTP/1.2\r\n\r\n", 400),
            (b"GET /\xff /\xff HTTP/1.1\r\n\r\n", 400),
            (b"GET /\xff HTTP/1.1\r\nA\xff: b\r\n\r\n", 400),
            (b"G\xffT / HTTP/1.1\r\n\r\n", 400),
            (b"G\xffT /\xff HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/2.0\r\n\r\n", 505),
            (b"GET / HTTP/3.0", 505),
            (b"GET / HTTP/3.0\rx\r\n\r\n", 505),
            (b"GET / HTTP/3.0 x\r\n\r\n", 505),
            (b"GET / HTTP/11\r\n\r\n", 400),
            (b"GET / HTTP/2\r\n\r\n", 400),
            (b"GET / HTTPS", 400),
            (b"GET /\r\n\r\n", 400),
            (b"GET  / HTTP/1.1\r\n\r\n", 400),
            (b"G@T / HTTP/1.1\r\n\r\n", 400),
            (b"GET /a b HTTP/1.1\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        ];
        for (input, status) in cases {
            let text = String::from_utf8_lossy(input);
            assert_eq!(parse(input).0, Outcome::Refused(*status), "{text:?}");
            for cut in 1..input.len() {
                let early = parse(&input[..cut]).0;
                let fits = early == Outcome::Partial || early == Outcome::Refused(*status);
                assert!(fits, "{text:?} cut at {cut}: {early:?}");
            }
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        let good = ["", "a", "a.b:80", "a:", "127.0.0.1:1", "[::1]", "[::1]:80", "[fe80::1%25en0]"];
        let bad =
            ["[::1", "::1", "[x]", "[::1]80", "a:b", ":80", "a b", "a/b", "a@b", "a:1:2", "\"a"];
        for host in good {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in bad {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn any_byte_from_0x80_up_may_stand_in_a_target_and_later_versions_are_1_1() {
        let table: &[(&[u8], &[u8])] = &[
            (b"GET /\xff HTTP/1.1\r\nHost: a\r\nB: \xff\r\n\r\n", b"/\xff"),
            (b"GET /\x80?\xc3 HTTP/1.1\r\nHost: a\r\nB: \xff\r\n\r\n", b"/\x80?\xc3"),
            (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\nB: \xff\r\n\r\n", b"/\xc3\xa9"),
            (b"GET /\xc3\xa9\xe9 HTTP/1.1\nHost: a\nB: \xff\n\n", b"/\xc3\xa9\xe9"),
            (b"GET / HTTP/1.2\r\nHost: a\r\nB: \xff\r\n\r\n", b"/"),
            (b"GET / HTTP/1.9\r\nHost: a\r\nB: \xff\r\n\r\n", b"/"),
            (b"GET /\xff HTTP/1.3\r\nHost: a\r\nB: \xff\r\n\r\n", b"/\xff"),
        ];
        for (input, target) in table {
            let text = input.escape_ascii();
            for cut in 1..input.len() {
                assert_eq!(parse(&input[..cut]).0, Outcome::Partial, "{text} cut at {cut}");
            }
            let (outcome, head) = parse(input);
            assert_eq!(
                (outcome, head.len, head.minor),
                (Outcome::Complete, input.len(), 1),
                "{text}"
            );
            assert_eq!(&input[head.target.range()], *target, "{text}");
            assert_eq!(head.value(input, "host"), Some(&b"a"[..]), "{text}");
            assert_eq!(head.value(input, "b"), Some(&b"\xff"[..]), "{text}");
            assert!(head.persistent);
        }
        // The limits of length and number also apply to such heads.
        let long = [&b"GET /\xff"[..], &[b'x'; 16384], b" HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(parse(&long).0, Outcome::Refused(431));
        let long = [&b"GET /\xff HTTP/1.1\r\nA: "[..], &[b'x'; 16384], b"\r\n\r\n"].concat();
        assert_eq!(parse(&long).0, Outcome::Refused(431));
        let many = [&b"GET /\xff HTTP/1.1\r\n"[..], &b"A: b\r\n".repeat(129), b"\r\n"].concat();
        assert_eq!(parse(&many).0, Outcome::Refused(431));
    }

    #[test]
    fn a_bare_line_feed_ends_a_line_of_the_head() {
        let (outcome, head) = parse(b"GET /x HTTP/1.1\nHost: a\nX: y\n\nrest");
        assert_eq!(outcome, Outcome::Complete);
        assert_eq!((head.len, head.fields.len()), (30, 2));
    }

    #[test]
    fn persistence_follows_version_and_connection() {
        let cases: &[(&str, &str, bool)] = &[
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: Keep-Alive, CLOSE\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: keep-alive\r\n", true),
            ("1.0", "Connection: x\r\nConnection: Keep-Alive\r\n", true),
        ];
        for (version, field, persistent) in cases {
            let input = format!("GET / HTTP/{version}\r\n{field}\r\n");
            let (outcome, head) = parse(input.as_bytes());
            assert_eq!((outcome, head.persistent), (Outcome::Complete, *persistent), "{input:?}");
        }
    }

    #[test]
    fn fields_that_tell_of_a_certificate_are_known_however_they_are_written() {
        let forged = [
            "Client-Cert",
            "client-cert",
            "CLIENT_CERT",
            "Client_Cert-Chain",
            "client-cert_chain",
            "Client-Cert-Chain",
        ];
        let others = ["Client-Certs", "Client-Cer", "Client--Cert", "X-Client-Cert", "ClientXCert"];
        for (names, is_forged) in [(&forged[..], true), (&others[..], false)] {
            for name in names {
                let input = format!("GET / HTTP/1.1\r\nA: b\r\n{name}: :AA==:\r\nHost: a\r\n\r\n");
                let (outcome, mut head) = parse(input.as_bytes());
                assert_eq!(
                    (outcome, head.names_certificate),
                    (Outcome::Complete, is_forged),
                    "{name}"
                );
                head.drop_certificates(input.as_bytes());
                assert_eq!(head.fields.len(), if is_forged { 2 } else { 3 }, "{name}");
                assert_eq!(head.value(input.as_bytes(), "host"), Some(&b"a"[..]), "{name}");
            }
        }
    }

    #[test]
    fn too_many_fields_and_too_long_heads_give_431() {
        for (fields, outcome) in [(128, Outcome::Complete), (129, Outcome::Refused(431))] {
            let input = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(fields));
            assert_eq!(parse(input.as_bytes()).0, outcome);
        }
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(16384));
        assert_eq!(parse(long.as_bytes()).0, Outcome::Refused(431));
        assert_eq!(parse(&long.as_bytes()[..16384]).0, Outcome::Refused(431));
        assert_eq!(parse(&long.as_bytes()[..16383]).0, Outcome::Partial);
        let wrong = long.replace(" HTTP", "\0");
        assert_eq!(parse(wrong.as_bytes()).0, Outcome::Refused(431));
    }

    #[test]
    fn a_version_cut_anywhere_is_partial() {
        let input = b"GET / HTTP/3.0";
        for cut in 1..input.len() {
            assert_eq!(parse(&input[..cut]).0, Outcome::Partial, "cut at {cut}");
        }
        assert_eq!(parse(input).0, Outcome::Refused(505));
    }

    #[test]
    fn a_head_cut_anywhere_is_partial_and_never_complete() {
        let input = b"POST /p?q HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
        for cut in 1..input.len() {
            assert_eq!(parse(&input[..cut]).0, Outcome::Partial, "cut at {cut}");
        }
        let (outcome, head) = parse(input);
        assert_eq!(outcome, Outcome::Complete);
        assert_eq!(head.framing, Framing::Length(5));
        assert_eq!(head.expects, Expectation::Continue);
        assert_eq!(head.value(input, "host"), Some(&b"a:80"[..]));
    }
}
