//! The lines of the access log (Combined Log Format) and the text that a line may hold.
//!
//! Owns the format, and the escapes that keep clients from forging a line. Refuses to know when a
//! line is written.

mod file;
mod journal;
mod repeats;

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;

pub use self::journal::Logs;
use crate::peer::Peer;

/// The parts of an access log line that are known when a request has arrived.
pub struct AccessLine<'a> {
    pub peer: Peer,
    pub user: Option<&'a [u8]>,
    /// The time as [`timestamp`] writes it.
    pub time: &'a str,
    /// The method; empty if the request line was not understood.
    pub method: &'a [u8],
    pub target: &'a [u8],
    pub minor: u8,
    pub referer: Option<&'a [u8]>,
    pub user_agent: Option<&'a [u8]>,
}

/// Puts the name of a user into an access log line, in which the status belongs at `status_at`, in the place
/// of the name so far.
pub fn set_user(line: &mut Vec<u8>, status_at: &mut usize, user: &[u8]) {
    let mut name = Vec::new();
    escape(&mut name, user, true);
    // Neither the address nor a name has a blank in it, while later parts of the line may look the same.
    let mut blanks = memchr::memchr_iter(b' ', line);
    if let (_, Some(before), Some(behind)) = (blanks.next(), blanks.next(), blanks.next()) {
        let place = before + 1..behind;
        *status_at = *status_at - place.len() + name.len();
        line.splice(place, name);
    }
}

impl AccessLine<'_> {
    /// Returns the line without status and byte count, and the position where these belong.
    pub fn format(&self) -> (Vec<u8>, usize) {
        let values = [self.referer, self.user_agent];
        let len = values.iter().flatten().map(|value| value.len()).sum::<usize>();
        let mut line = Vec::with_capacity(self.target.len() + len + 128);
        write_address(&mut line, self.peer);
        line.extend_from_slice(b" - ");
        match self.user {
            Some(user) => escape(&mut line, user, true),
            None => line.push(b'-'),
        }
        line.extend_from_slice(b" [");
        line.extend_from_slice(self.time.as_bytes());
        line.extend_from_slice(b"] \"");
        if self.method.is_empty() {
            line.extend_from_slice(b"-\" ");
        } else {
            escape(&mut line, self.method, false);
            line.push(b' ');
            escape(&mut line, self.target, false);
            let version = if self.minor == 0 { b" HTTP/1.0\" " } else { b" HTTP/1.1\" " };
            line.extend_from_slice(version);
        }

        let status_at = line.len();
        for value in values {
            line.extend_from_slice(b" \"");
            match value {
                Some(value) if !value.is_empty() => escape(&mut line, value, false),
                _ => line.push(b'-'),
            }
            line.push(b'"');
        }
        line.push(b'\n');
        (line, status_at)
    }
}

fn write_address(out: &mut Vec<u8>, peer: Peer) {
    match peer {
        Peer::V4(address, _) => {
            let mut number = itoa::Buffer::new();
            for (place, byte) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(number.format(byte).as_bytes());
            }
        }
        // Writing to memory does not fail.
        peer => _ = write!(out, "{}", peer.address()),
    }
}

/// Appends `text` with escapes, so that it ends neither its quotes nor its line.
fn escape(out: &mut Vec<u8>, text: &[u8], space: bool) {
    let is_plain = |byte: &u8| match byte {
        b'"' | b'\\' => false,
        b' ' => !space,
        byte => (0x21..=0x7e).contains(byte),
    };
    if text.iter().all(is_plain) {
        out.extend_from_slice(text);
        return;
    }
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b' ' if space => out.extend_from_slice(b"\\x20"),
            0x20..=0x7e => out.push(*byte),
            _ => {
                let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
                out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
}

/// Returns a path as a line of the error log can show it: text as it is, and bytes that are not
/// UTF-8 by their numbers.
pub fn shown(path: impl AsRef<OsStr>) -> String {
    let mut text = String::new();
    for chunk in path.as_ref().as_bytes().utf8_chunks() {
        push_harmless(&mut text, chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Appends `part` with escapes, so that it neither ends its line nor controls a terminal.
pub fn push_harmless(text: &mut String, part: &str) {
    if !part.contains(char::is_control) {
        text.push_str(part);
        return;
    }
    for c in part.chars() {
        match c {
            '\t' => text.push(' '),
            c if c.is_control() => text.extend(c.escape_unicode()),
            c => text.push(c),
        }
    }
}

/// Returns a time as the access log has it: `23/Nov/2026:06:17:14 +0000`.
pub fn timestamp(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    let (year, month, day) = civil(days);
    let names =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let name = names.get(month as usize - 1).copied().unwrap_or("Jan");
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{day:02}/{name}/{year}:{hour:02}:{minute:02}:{:02} +0000", second % 60)
}

/// Returns year, month and day of a day since 1970 in the Gregorian calendar. Counts in cycles of
/// 400 years that begin in March, so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (cycle, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let date = of_year - (153 * from_march + 2) / 5 + 1;
    (cycle * 400 + year + u64::from(month <= 2), month, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_follow_the_calendar() {
        for (unix, text) in [
            (0, "01/Jan/1970:00:00:00 +0000"),
            (951_782_399, "28/Feb/2000:23:59:59 +0000"),
            (951_782_400, "29/Feb/2000:00:00:00 +0000"),
            (951_868_800, "01/Mar/2000:00:00:00 +0000"),
            (1_795_414_634, "23/Nov/2026:06:17:14 +0000"),
            (4_107_542_400, "01/Mar/2100:00:00:00 +0000"),
        ] {
            assert_eq!(timestamp(unix), text);
        }
    }

    #[test]
    fn a_path_is_shown_as_text() {
        let rows: [(&[u8], &str); 4] = [
            (b"/a b/c.html", "/a b/c.html"),
            ("/caf\u{e9}".as_bytes(), "/caf\u{e9}"),
            (b"/\xff\xfe.x", "/\\xff\\xfe.x"),
            (b"/a\n\x1b[31m", "/a\\u{a}\\u{1b}[31m"),
        ];
        for (path, text) in rows {
            assert_eq!(shown(OsStr::from_bytes(path)), text);
        }
    }

    #[test]
    fn the_user_of_a_line_is_named_once_and_at_its_place() {
        let time = timestamp(0);
        let request = |user| AccessLine {
            peer: Peer::V6(std::net::Ipv6Addr::LOCALHOST, 1),
            user,
            time: &time,
            method: b"GET",
            target: b"/",
            minor: 1,
            referer: Some(b"a - - b"),
            user_agent: Some(b"c - - d"),
        };
        let (mut line, mut status_at) = request(None).format();
        for user in [b"joe".as_slice(), b"joe", b"- -", b"", b"somebody"] {
            set_user(&mut line, &mut status_at, user);
            assert_eq!((line.clone(), status_at), request(Some(user)).format());
        }
    }

    #[test]
    fn a_line_cannot_be_forged() {
        let request = AccessLine {
            peer: Peer::V4([10, 1, 2, 3].into(), 1),
            user: Some(b"a b\n"),
            time: &timestamp(0),
            method: b"GET",
            target: b"/\"x\\\x01\xff",
            minor: 1,
            referer: None,
            user_agent: Some(b"a\"\r\nb"),
        };
        let (line, status_at) = request.format();
        let (prefix, suffix) = line.split_at(status_at);
        let expected: &[u8] = b"10.1.2.3 - a\\x20b\\x0a [01/Jan/1970:00:00:00 +0000] \
            \"GET /\\\"x\\\\\\x01\\xff HTTP/1.1\" ";
        assert_eq!(prefix, expected);
        assert_eq!(suffix, b" \"-\" \"a\\\"\\x0d\\x0ab\"\n");
    }
}
