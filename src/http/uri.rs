//! Request targets (RFC 9112, section 3.2, and RFC 3986): the split into authority, path and query,
//! and the decoding of the path.
//!
//! Owns which path a target means, and so which handler or file a request reaches. Leaves the query
//! encoded, and knows neither files nor the syntax of hosts, see
//! [`is_host`](super::request::is_host).

/// A malformed target, which is refused with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadTarget;

/// The two parts of a target, both still encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The path, which begins with `/`, or `*`.
    pub path: &'a [u8],
    /// The text behind the first `?`, if there is one.
    pub query: Option<&'a [u8]>,
    /// The path is its own decoding, as nearly every path: [`decode_path`] would copy it unchanged.
    pub plain: bool,
}

/// A control byte or a space, which no target may contain.
const BAD: u8 = 1;
/// `?`
const MARK: u8 = 2;
/// `%`
const ESCAPE: u8 = 4;
/// `/`
const SLASH: u8 = 8;
/// `#`
const HASH: u8 = 32;
/// `/` and `.`, which may have to be removed behind a slash.
const FOLDED: u8 = SLASH << 1;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte <= b' ' as usize {
        classes[byte] = BAD;
        byte += 1;
    }
    classes[0x7f] = BAD;
    classes[b'#' as usize] = HASH;
    classes[b'?' as usize] = MARK;
    classes[b'%' as usize] = ESCAPE;
    classes[b'/' as usize] = SLASH | FOLDED;
    classes[b'.' as usize] = FOLDED;
    classes
};

/// Splits a target in origin form, absolute form or asterisk form.
pub fn split_target(target: &[u8]) -> Result<Target<'_>, BadTarget> {
    match target {
        [b'/', ..] => split_query(target),
        b"*" => Ok(Target { path: target, query: None, plain: true }),
        _ => Ok(split_absolute(target)?.1),
    }
}

/// Splits a target in absolute form into its authority and the rest.
pub fn split_absolute(target: &[u8]) -> Result<(&[u8], Target<'_>), BadTarget> {
    let (authority, rest) = split_authority(target)?;
    let split = split_query(rest)?;
    match split.path {
        [] => Ok((authority, Target { path: b"/", ..split })),
        _ => Ok((authority, split)),
    }
}

/// Splits a target that begins with its path.
#[inline]
pub fn split_query(target: &[u8]) -> Result<Target<'_>, BadTarget> {
    // A space inside a target means that the request line is malformed. Bytes above 127 are sent by
    // old clients and harmless.
    let (mut special, mut before) = (0, 0);
    for (at, &byte) in target.iter().enumerate() {
        let class = CLASSES[usize::from(byte)];
        if class & (BAD | MARK | HASH) != 0 {
            let (path, rest) = target.split_at(at);
            let query = match class {
                MARK => Some(without_fragment(&rest[1..])?),
                _ => without_fragment(rest).map(|_| None)?,
            };
            return Ok(Target { path, query, plain: special == 0 });
        }
        special |= class & ESCAPE | (before << 1) & class & FOLDED;
        before = class & SLASH;
    }
    Ok(Target { path: target, query: None, plain: special == 0 })
}

/// Returns the text before a fragment. A client should not send a fragment (RFC 9110, section 7.1),
/// which has a meaning for the client only.
fn without_fragment(text: &[u8]) -> Result<&[u8], BadTarget> {
    let of = |class: u8| move |byte: &u8| CLASSES[usize::from(*byte)] & class != 0;
    match text.iter().position(of(BAD | HASH)) {
        None => Ok(text),
        Some(at) if text[at..].iter().any(of(BAD)) => Err(BadTarget),
        Some(at) => Ok(&text[..at]),
    }
}

/// Splits off the authority of `scheme://authority`. The server is the origin of the schemes `http`
/// and `https` only (RFC 9110, section 7.4).
fn split_authority(target: &[u8]) -> Result<(&[u8], &[u8]), BadTarget> {
    let colon = memchr::memchr(b':', target).ok_or(BadTarget)?;
    let (scheme, rest) = target.split_at(colon);
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(BadTarget);
    }
    let rest = rest.strip_prefix(b"://").ok_or(BadTarget)?;
    // RFC 9110, section 4.2.1: a target with an empty host is invalid.
    let end = memchr::memchr3(b'/', b'?', b'#', rest).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    match authority.iter().any(|byte| CLASSES[usize::from(*byte)] & BAD != 0) {
        false if !authority.is_empty() => Ok((authority, rest)),
        _ => Err(BadTarget),
    }
}

/// Decodes `path` to `out` and returns the length of the result: percent-encoded bytes are decoded,
/// repeated slashes become one, and dot segments are removed (RFC 3986, section 5.2.4). `out` must
/// be as long as `path`; no result is longer.
///
/// Percent-encoded bytes are decoded first, so that no spelling of `..` or `/` escapes the other
/// steps. A `..` never leads above `/`.
pub fn decode_path(path: &[u8], out: &mut [u8]) -> Result<usize, BadTarget> {
    if path.first() != Some(&b'/') || out.len() < path.len() {
        return Err(BadTarget);
    }
    let mut decoded = Segments { out, len: 0 };
    let mut rest = path;
    while let [byte, behind @ ..] = rest {
        let (byte, behind) = match (byte, behind) {
            (b'%', [high, low, behind @ ..]) => (hex_byte(*high, *low).ok_or(BadTarget)?, behind),
            (b'%', _) => return Err(BadTarget),
            (byte, behind) => (*byte, behind),
        };
        // A NUL would end the string in C; a CR or LF would end a line of a log or a field line.
        if byte.is_ascii_control() {
            return Err(BadTarget);
        }
        decoded.push(byte);
        rest = behind;
    }
    decoded.end_segment();
    Ok(decoded.len)
}

/// Decodes two hexadecimal digits.
pub(super) fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let high = char::from(high).to_digit(16)?;
    let low = char::from(low).to_digit(16)?;
    u8::try_from(high << 4 | low).ok()
}

/// The decoded path so far: a `/`, complete segments each with its `/`, and then the segment that
/// is being written.
struct Segments<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl Segments<'_> {
    /// Appends a decoded byte.
    fn push(&mut self, byte: u8) {
        if byte == b'/' {
            self.end_segment();
            if self.out[..self.len].ends_with(b"/") {
                return;
            }
        }
        self.out[self.len] = byte;
        self.len += 1;
    }

    /// Removes the segment just written if it is a dot segment, and its parent if it is `..`.
    fn end_segment(&mut self) {
        let written = &self.out[..self.len];
        if written.ends_with(b"/.") {
            self.len -= 1;
        } else if written.ends_with(b"/..") {
            let parent = &written[..self.len - 3];
            self.len = memchr::memrchr(b'/', parent).map_or(1, |slash| slash + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(path: &[u8]) -> Result<Vec<u8>, BadTarget> {
        let mut out = vec![0; path.len()];
        let len = decode_path(path, &mut out)?;
        out.truncate(len);
        Ok(out)
    }

    #[test]
    fn a_target_is_split_at_its_first_question_mark() {
        type Case = (&'static [u8], &'static [u8], Option<&'static [u8]>);
        let table: &[Case] = &[
            (b"/", b"/", None),
            (b"/a/b", b"/a/b", None),
            (b"/a?", b"/a", Some(b"")),
            (b"/a?x=1&y=%zz", b"/a", Some(b"x=1&y=%zz")),
            (b"/a?b?c", b"/a", Some(b"b?c")),
            (b"//host/a", b"//host/a", None),
            (b"/a:b//c", b"/a:b//c", None),
            (b"/\xff?\x80", b"/\xff", Some(b"\x80")),
            (b"*", b"*", None),
            (b"http://host/a/b?q", b"/a/b", Some(b"q")),
            (b"HTTPS://user@[::1]:8080/a", b"/a", None),
            (b"hTtP://h/a", b"/a", None),
            (b"/a#b", b"/a", None),
            (b"/a#", b"/a", None),
            (b"/a#b?c", b"/a", None),
            (b"/a?b#c", b"/a", Some(b"b")),
            (b"/a?#c", b"/a", Some(b"")),
            (b"/a?b#c?d#e", b"/a", Some(b"b")),
            (b"/\xff#\xff", b"/\xff", None),
            (b"http://host#x", b"/", None),
            (b"http://host/a?b#/c", b"/a", Some(b"b")),
            (b"http://host?a#/c", b"/", Some(b"a")),
            (b"http://host", b"/", None),
            (b"http://host?q", b"/", Some(b"q")),
            (b"http://host/?q=http://x/", b"/", Some(b"q=http://x/")),
        ];
        for &(target, path, query) in table {
            let found = split_target(target).map(|found| (found.path, found.query));
            assert_eq!(found, Ok((path, query)), "{}", target.escape_ascii());
        }
    }

    #[test]
    fn a_target_that_is_none_of_the_forms_is_refused() {
        for target in [
            &b""[..],
            b"a",
            b"?q",
            b"*?q",
            b"*/",
            b"host:443",
            b"http:/a",
            b"http:///a",
            b"http://?q",
            b"http://",
            b"://host/a",
            b"1http://host/a",
            b"ht_tp://host/a",
            b"#",
            b"#/a",
            b"/a#\x01",
            b"/a#b c",
            b"/a?b#c\r",
            b"http://#/a",
            b"coap+tcp://h/a",
            b"ftp://h/a",
            b"httpx://h/a",
            b"file:///a",
            b"/a b",
            b"/a?b c",
            b"/\0",
            b"/\t",
            b"/\r",
            b"/\n",
            b"/a?\x1f",
            b"/\x7f",
        ] {
            assert_eq!(split_target(target), Err(BadTarget), "{}", target.escape_ascii());
        }
    }

    #[test]
    fn a_path_is_decoded_folded_and_freed_of_dot_segments() {
        let table: &[(&[u8], &[u8])] = &[
            (b"/", b"/"),
            (b"/a/b.html", b"/a/b.html"),
            (b"/a/", b"/a/"),
            (b"/a%20b", b"/a b"),
            (b"/%41%6a%6A", b"/Ajj"),
            (b"/%c3%bc\xff", b"/\xc3\xbc\xff"),
            (b"/%25%34%31", b"/%41"),
            (b"/%2541", b"/%41"),
            (b"/a+b", b"/a+b"),
            (b"/a%3fb%23", b"/a?b#"),
            (b"/a%2fb", b"/a/b"),
            (b"//", b"/"),
            (b"///a////b//", b"/a/b/"),
            (b"/a%2f%2Fb", b"/a/b"),
            (b"/.", b"/"),
            (b"/./", b"/"),
            (b"/a/.", b"/a/"),
            (b"/a/./b", b"/a/b"),
            (b"/..", b"/"),
            (b"/../", b"/"),
            (b"/../../etc/passwd", b"/etc/passwd"),
            (b"/a/..", b"/"),
            (b"/a/../b", b"/b"),
            (b"/a/b/..", b"/a/"),
            (b"/a/b/../../../c", b"/c"),
            (b"/a/b/.././../c", b"/c"),
            (b"/a//../b", b"/b"),
            (b"/a/..//..//b", b"/b"),
            (b"/%2e%2e/%2E./.%2e/b", b"/b"),
            (b"/a/%2e%2e%2fb", b"/b"),
            (b"/a/%2e", b"/a/"),
            (b"/...", b"/..."),
            (b"/a/..b/.c/d./e..", b"/a/..b/.c/d./e.."),
            (b"/a../b", b"/a../b"),
            (b"/.htpasswd", b"/.htpasswd"),
        ];
        for &(path, expected) in table {
            let expected = Ok(expected.to_vec());
            assert_eq!(decoded(path), expected, "{}", path.escape_ascii());
        }
    }

    #[test]
    fn a_path_with_a_broken_escape_or_a_control_byte_is_refused() {
        for path in [
            &b""[..],
            b"a",
            b"*",
            b"%2fa",
            b"/%00",
            b"/a%00.html",
            b"/%",
            b"/%4",
            b"/%4g",
            b"/%g4",
            b"/%+4",
            b"/%%41",
            b"/%0a",
            b"/%0D",
            b"/%1f",
            b"/%7f",
            b"/\n",
            b"/\x7f",
        ] {
            assert_eq!(decoded(path), Err(BadTarget), "{}", path.escape_ascii());
        }
    }

    #[test]
    fn nothing_is_written_to_a_place_that_is_too_short() {
        assert_eq!(decode_path(b"/abc", &mut [0; 3]), Err(BadTarget));
    }

    #[test]
    fn a_plain_path_needs_no_decoding() {
        let plain = |target| split_target(target).unwrap().plain;
        for target in
            [&b"/"[..], b"/a", b"/a/b.c", b"/a/", b"/a\xff", b"/a..", b"/a./b", b"/a#//", b"*"]
        {
            assert!(plain(target), "{}", target.escape_ascii());
        }
        for target in [&b"//"[..], b"/a//", b"/.", b"/a/.b", b"/%41", b"/a/..?x", b"http://h//"] {
            assert!(!plain(target), "{}", target.escape_ascii());
        }
        for target in [&b"/a?//"[..], b"/?%41", b"http://h", b"http://h?/."] {
            assert!(plain(target), "{}", target.escape_ascii());
        }
    }

    /// Spellings that some software takes for a dot, a slash or a backslash: raw, percent-encoded
    /// once and twice, overlong UTF-8, full-width, UTF-16, and followed by a NUL.
    const DOTS: [&str; 13] = [
        ".",
        "%2e",
        "%2E",
        "%252e",
        "%c0%ae",
        "%e0%80%ae",
        "%f0%80%80%ae",
        "%c0%2e",
        "%uff0e",
        "%ef%bc%8e",
        "%u002e",
        "%%32e",
        "%00.",
    ];
    const SLASHES: [&str; 15] = [
        "/",
        "//",
        "%2f",
        "%2F",
        "%252f",
        "%c0%af",
        "%e0%80%af",
        "%5c",
        "\\",
        "%255c",
        "%c1%9c",
        "%u2215",
        "/./",
        "/%2e/",
        "%00/",
    ];

    #[test]
    fn no_spelling_of_a_climb_leaves_the_root() {
        let mut accepted = 0;
        let mut count = 0;
        for first in DOTS {
            for second in DOTS {
                for slash in SLASHES {
                    for (before, behind) in [("", ""), ("a", "etc/passwd"), ("a/b/", ".htpasswd")] {
                        for times in [1, 2, 7] {
                            let climb = format!("{first}{second}{slash}").repeat(times);
                            let path = format!("/{before}{slash}{climb}{behind}");
                            count += 1;
                            let Ok(decoded) = decoded(path.as_bytes()) else {
                                continue;
                            };
                            accepted += 1;
                            assert_eq!(decoded.first(), Some(&b'/'), "{path}");
                            assert!(!decoded.contains(&0), "{path}");
                            let mut segments = decoded.split(|b| *b == b'/');
                            let dots = |s: &[u8]| s == b"." || s == b"..";
                            assert!(!segments.any(dots), "{path}");
                        }
                    }
                }
            }
        }
        assert!(count > 20_000 && accepted > 5_000, "{accepted} of {count}");
    }

    /// Paths of the pieces that matter to decoding, in any order.
    fn tricky_path() -> impl Strategy<Value = Vec<u8>> {
        let pieces = ["/", ".", "..", "a", "%2e", "%2F", "%", "%00", "b.c", "\u{e9}", "%7f", " "];
        let piece = prop::sample::select(pieces.to_vec());
        prop::collection::vec(piece, 0..12).prop_map(|p| format!("/{}", p.concat()).into_bytes())
    }

    proptest! {
        #[test]
        fn a_decoded_path_never_leaves_the_root(path in tricky_path()) {
            if let Ok(decoded) = decoded(&path) {
                prop_assert!(decoded.starts_with(b"/"));
                prop_assert!(!decoded.windows(2).any(|w| w == b"//"));
                let mut segments = decoded.split(|b| *b == b'/');
                prop_assert!(!segments.any(|s| s == b"." || s == b".."));
            }
        }

        #[test]
        fn a_plain_path_is_its_own_decoding(path in tricky_path()) {
            if split_target(&path).is_ok_and(|target| target.plain && target.query.is_none()) {
                prop_assert_eq!(decoded(&path), Ok(path));
            }
        }
    }
}
