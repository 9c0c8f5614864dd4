//! The header fields of WebDAV (RFC 4918, section 10) but If: parses the text of each to a value,
//! and writes paths for Location, href and the like. Knows nothing of requests or files.

use std::borrow::Cow;

use crate::http::origin::same_host;
use crate::http::uri;

/// The value of a field does not follow its grammar. The response is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadField;

/// The value of the Depth field: how far below its target a method reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    Zero,
    One,
    Infinity,
}

/// The longest timeout of a lock, in seconds.
pub const MAX_TIMEOUT: u64 = 7 * 24 * 3600;

/// Parses the Depth field; infinity if it is absent.
pub fn depth(value: Option<&[u8]>) -> Result<Depth, BadField> {
    match value.map(<[u8]>::trim_ascii) {
        None => Ok(Depth::Infinity),
        Some(b"0") => Ok(Depth::Zero),
        Some(b"1") => Ok(Depth::One),
        Some(text) if text.eq_ignore_ascii_case(b"infinity") => Ok(Depth::Infinity),
        Some(_) => Err(BadField),
    }
}

/// Parses the Overwrite field; true if it is absent.
pub fn overwrite(value: Option<&[u8]>) -> Result<bool, BadField> {
    match value.map(<[u8]>::trim_ascii) {
        None | Some(b"T" | b"t") => Ok(true),
        Some(b"F" | b"f") => Ok(false),
        Some(_) => Err(BadField),
    }
}

/// Parses the Timeout field. Returns the first time in it that is understood, in seconds, and at
/// most [`MAX_TIMEOUT`], which is also the default.
pub fn timeout(value: Option<&[u8]>) -> u64 {
    let times = value.unwrap_or_default().split(|b| *b == b',').map(<[u8]>::trim_ascii);
    for time in times {
        if time.eq_ignore_ascii_case(b"infinite") {
            return MAX_TIMEOUT;
        }
        if let Some((start, digits)) = time.split_at_checked(7)
            && start.eq_ignore_ascii_case(b"second-")
            && !digits.is_empty()
            && digits.iter().all(u8::is_ascii_digit)
        {
            let seconds = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
            // A number that exceeds 64 bits exceeds the maximum, too.
            return seconds.unwrap_or(MAX_TIMEOUT).clamp(1, MAX_TIMEOUT);
        }
    }
    MAX_TIMEOUT
}

/// Parses the Lock-Token field. Returns the token without its angle brackets, which some clients
/// leave out.
pub fn lock_token(value: &[u8]) -> Result<&[u8], BadField> {
    let value = value.trim_ascii();
    let token = value.strip_prefix(b"<").and_then(|rest| rest.strip_suffix(b">")).unwrap_or(value);
    let is_token = !token.is_empty() && !token.iter().any(|byte| b"<> \t,".contains(byte));
    if is_token { Ok(token) } else { Err(BadField) }
}

/// The resource that a URI names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// The decoded path of a resource on this server.
    Here(Vec<u8>),
    /// A resource on another server.
    Elsewhere,
}

/// Parses a URI or an absolute path, where `host` is the value of the Host field.
///
/// Blanks are taken for encoded ones, and a query, which names no file, is cut off. Dot segments,
/// which the client should have removed, and a fragment are refused: a client that forgot to encode
/// a `#` would otherwise replace a resource that it did not name.
pub fn location(value: &[u8], host: Option<&[u8]>) -> Result<Location, BadField> {
    let value = encode_blanks(value.trim_ascii());
    let value = &*value;
    let target = uri::split_target(value).map_err(|_| BadField)?;
    if target.path == b"*" || value.contains(&b'#') {
        return Err(BadField);
    }
    let mut path = vec![0; target.path.len()];
    let len = uri::decode_path(target.path, &mut path).map_err(|_| BadField)?;
    path.truncate(len);
    if has_dot_segments(target.path) {
        return Err(BadField);
    }
    if let (Some(authority), Some(host)) = (authority(value), host)
        && !same_host(authority, host.trim_ascii())
    {
        return Ok(Location::Elsewhere);
    }
    Ok(Location::Here(path))
}

/// Percent-encodes the blanks in a URI, which some clients leave as they are.
fn encode_blanks(value: &[u8]) -> Cow<'_, [u8]> {
    if !value.contains(&b' ') {
        return Cow::Borrowed(value);
    }
    Cow::Owned(value.split(|byte| *byte == b' ').collect::<Vec<_>>().join(&b"%20"[..]))
}

/// Returns the host and port of an absolute URI, without user information.
fn authority(value: &[u8]) -> Option<&[u8]> {
    let (authority, _) = uri::split_absolute(value).ok()?;
    let user = memchr::memrchr(b'@', authority).map_or(0, |at| at + 1);
    authority.get(user..)
}

/// Returns whether a path that is still percent-encoded has a segment `.` or `..`, however it is
/// encoded.
fn has_dot_segments(path: &[u8]) -> bool {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, behind @ ..] = rest {
        rest = behind;
        match (byte, behind) {
            (b'%', [b'2', b'e' | b'E', behind @ ..]) => {
                plain.push(b'.');
                rest = behind;
            }
            (b'%', [b'2', b'f' | b'F', behind @ ..]) => {
                plain.push(b'/');
                rest = behind;
            }
            _ => plain.push(*byte),
        }
    }
    plain.split(|b| *b == b'/').any(|segment| matches!(segment, b"." | b".."))
}

/// Appends a decoded path as it is written in an href or a field: characters that may stand in a
/// path stay, all others are percent-encoded (RFC 3986, section 3.3).
pub fn escape_path(path: &[u8], out: &mut String) {
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"-._~!$()*+,;=:@/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            push_escaped(byte, out);
        }
    }
}

/// Appends a percent-encoded byte (RFC 3986, section 2.1).
pub fn push_escaped(byte: u8, out: &mut String) {
    let digit = |value: u8| char::from(b"0123456789ABCDEF"[usize::from(value & 15)]);
    out.extend(['%', digit(byte >> 4), digit(byte)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_and_overwrite_have_few_values() {
        assert_eq!(depth(None), Ok(Depth::Infinity));
        assert_eq!(depth(Some(b" 0 ")), Ok(Depth::Zero));
        assert_eq!(depth(Some(b"1")), Ok(Depth::One));
        assert_eq!(depth(Some(b"Infinity")), Ok(Depth::Infinity));
        for bad in [&b""[..], b"2", b"-1", b"1,noroot", b"00", b"infinit"] {
            assert_eq!(depth(Some(bad)), Err(BadField));
        }
        assert_eq!(overwrite(None), Ok(true));
        assert_eq!(overwrite(Some(b"t")), Ok(true));
        assert_eq!(overwrite(Some(b" F")), Ok(false));
        for bad in [&b""[..], b"TF", b"true", b"0"] {
            assert_eq!(overwrite(Some(bad)), Err(BadField));
        }
    }

    #[test]
    fn a_timeout_is_bounded_whatever_is_asked_for() {
        let table: [(&[u8], u64); 11] = [
            (b"Second-3600", 3600),
            (b"second-1", 1),
            (b"Second-0", 1),
            (b"Infinite, Second-5", MAX_TIMEOUT),
            (b"Extend, Second-5", 5),
            (b"Second-99999999999999999999999", MAX_TIMEOUT),
            (b"Second--5", MAX_TIMEOUT),
            (b"Second-", MAX_TIMEOUT),
            (b"Second", MAX_TIMEOUT),
            (b"\xff\xff", MAX_TIMEOUT),
            (b"", MAX_TIMEOUT),
        ];
        for (text, expected) in table {
            assert_eq!(timeout(Some(text)), expected, "{}", text.escape_ascii());
        }
        assert_eq!(timeout(None), MAX_TIMEOUT);
    }

    #[test]
    fn a_lock_token_stands_in_brackets() {
        assert_eq!(lock_token(b" <urn:uuid:1> "), Ok(&b"urn:uuid:1"[..]));
        assert_eq!(lock_token(b"urn:uuid:1"), Ok(&b"urn:uuid:1"[..]));
        for bad in [&b""[..], b"<>", b"<a", b"a>", b"<a><b>", b"a b", b"<a b>"] {
            assert_eq!(lock_token(bad), Err(BadField));
        }
    }

    #[test]
    fn a_location_is_here_elsewhere_or_nonsense() {
        let here = |path: &str| Ok(Location::Here(path.as_bytes().to_vec()));
        let table = [
            ("/a/b", here("/a/b")),
            ("http://h:1234/a%20b/", here("/a b/")),
            ("http://H:1234", here("/")),
            ("http://u@h:1234/a", here("/a")),
            ("/a//b", here("/a/b")),
            ("/a/...", here("/a/...")),
            ("http://other:1234/a", Ok(Location::Elsewhere)),
            ("http://h:1235/a", Ok(Location::Elsewhere)),
            ("http://h/a", Ok(Location::Elsewhere)),
            ("", Err(BadField)),
            ("a", Err(BadField)),
            ("*", Err(BadField)),
            ("/a?b", here("/a")),
            ("http://h:1234/a?b=/../c", here("/a")),
            ("/a#b", Err(BadField)),
            ("/a b", here("/a b")),
            ("http://h:1234/a  b/c d", here("/a  b/c d")),
            ("http://h:1234 /a", Ok(Location::Elsewhere)),
            ("/a%00", Err(BadField)),
            ("/a%0d%0ab", Err(BadField)),
            ("/a%zz", Err(BadField)),
            ("/..", Err(BadField)),
            ("/a/../b", Err(BadField)),
            ("/%2e%2E/etc/passwd", Err(BadField)),
            ("/a/.%2e%2fb", Err(BadField)),
            ("http://h:1234/../x", Err(BadField)),
            ("http:///x", Err(BadField)),
        ];
        for (text, expected) in table {
            assert_eq!(location(text.as_bytes(), Some(b"h:1234")), expected, "{text}");
        }
        assert_eq!(location(b"http://h:80/a", Some(b"h")), here("/a"));
        assert_eq!(location(b"https://h/a", Some(b"h")), here("/a"));
        assert_eq!(location(b"http://any/a", None), here("/a"));
    }

    #[test]
    fn an_escaped_path_is_ascii_and_safe_in_xml() {
        let mut out = String::new();
        escape_path(b"/a b/<&>\"'%\xff\xc3\xbc", &mut out);
        assert_eq!(out, "/a%20b/%3C%26%3E%22%27%25%FF%C3%BC");
    }
}
