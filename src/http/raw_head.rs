//! The facts that a raw response head states, written by a program or an application behind it
//! (RFC 9112, sections 4 to 6 and 9.3): its status, the framing of the content, and persistence.
//!
//! Reads as much as that takes and refuses nothing: an unusual head is sent as it stands, and is the last
//! one of its connection. Knows neither the request nor the content behind the head.

use super::request::{decimal, is_token_byte, tokens};

/// The longest raw head in bytes; more bytes without an end are content without a head.
const MAX_RAW_HEAD: usize = 1 << 20;

/// Returns whether `bytes`, which do not hold the end of a head, may be the start of one.
#[inline]
pub(super) fn may_be_head(bytes: &[u8]) -> bool {
    let shown = bytes.len().min(5);
    bytes[..shown] == b"HTTP/"[..shown] && bytes.len() <= MAX_RAW_HEAD
}

/// Returns the offset behind the empty line. Some programs end lines with a bare LF.
#[inline]
pub(super) fn find_end(bytes: &[u8], from: usize) -> Option<usize> {
    if !bytes.starts_with(b"HTTP/") {
        return None;
    }
    memchr::memchr_iter(b'\n', bytes.get(from..)?).find_map(|at| {
        let next = from + at + 1;
        match bytes.get(next..)? {
            [b'\n', ..] => Some(next + 1),
            [b'\r', b'\n', ..] => Some(next + 2),
            _ => None,
        }
    })
}

/// The statements of one raw head.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    pub status: u16,
    http11: bool,
    /// The value of Content-Length.
    pub length: Option<u64>,
    /// The last transfer coding is `chunked`.
    pub chunked: bool,
    /// Connection has the option `close`, or clients may disagree about the head or the end of the response.
    close: bool,
    keep_alive: bool,
    /// The content is of a media type that has no end of its own, such as a stream of events.
    pub endless: bool,
    /// Whether the head lets the connection stay open, for a client of HTTP/1.0 and of HTTP/1.1.
    pub persists: [bool; 2],
}

impl Facts {
    /// Reads a head from the start of `bytes`. Returns its length, and its facts if the status line
    /// is understood; `None` if `bytes` do not begin with a head, or do not hold its end.
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Option<(usize, Option<Self>)> {
        if !bytes.starts_with(b"HTTP/") {
            return None;
        }
        let mut at = line_end(bytes)? + 1;
        let mut facts = Self::of_status_line(&bytes[..at]);
        loop {
            let rest = bytes.get(at..)?;
            let end = line_end(rest)?;
            let line = &rest[..end];
            at += end + 1;
            match line {
                [] | [b'\r'] => {
                    if let Some(facts) = &mut facts {
                        facts.conclude();
                    }
                    return Some((at, facts));
                }
                line => {
                    if let Some(facts) = &mut facts {
                        facts.note(line);
                    }
                }
            }
        }
    }

    #[inline]
    fn of_status_line(line: &[u8]) -> Option<Self> {
        let (b"HTTP/", [major, dot, minor, b' ', code @ ..]) = line.split_at_checked(5)? else {
            return None;
        };
        let [hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', ..] = code else {
            return None;
        };
        let digit = |byte: &u8| u16::from(byte - b'0');
        let reason = without_end(&code[3..]);
        Some(Self {
            close: !is_text(reason) || !matches!(reason, [] | [b' ', ..]),
            status: digit(hundreds) * 100 + digit(tens) * 10 + digit(ones),
            http11: [*major, *dot, *minor] == *b"1.1",
            ..Self::default()
        })
    }

    /// Decides on persistence behind the last field. RFC 9112, section 9.3: a client of HTTP/1.0
    /// expects the connection to close unless the response says `keep-alive`, and it waits for the
    /// end of the connection if there is no Content-Length.
    #[inline]
    fn conclude(&mut self) {
        // RFC 9112, section 6.3: a client may take both fields together for an attack.
        self.close |= self.chunked && self.length.is_some();
        let persists = self.http11 && !self.close;
        let has_length = self.length.is_some() && !self.chunked;
        self.persists = [persists && self.keep_alive && has_length, persists];
    }

    /// Notes one field line.
    #[inline]
    fn note(&mut self, line: &[u8]) {
        self.close |= !is_field_line(line);
        // The few fields that matter begin with one of these letters, and most others do not.
        if !matches!(line.first(), Some(b'C' | b'c' | b'T' | b't')) {
            return;
        }
        if let Some(value) = value_of(line, b"Content-Length") {
            let length = decimal(value);
            // Clients would disagree about the end of a response with such lengths, and some refuse one
            // that is told twice.
            self.close |= length.is_none() || self.length.is_some() || has_tab(line);
            self.length = length;
        } else if let Some(value) = value_of(line, b"Content-Type") {
            let is_a = |name: &[u8]| {
                let (found, rest) = value.split_at_checked(name.len()).unwrap_or_default();
                found.eq_ignore_ascii_case(name) && matches!(rest, [] | [b';' | b' ' | b'\t', ..])
            };
            self.endless |= is_a(b"text/event-stream") || is_a(b"multipart/x-mixed-replace");
        } else if let Some(value) = value_of(line, b"Connection") {
            for token in tokens(value) {
                self.close |= token.eq_ignore_ascii_case(b"close");
                self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            }
            self.close |= has_tab(line);
        } else if let Some(value) = value_of(line, b"Transfer-Encoding") {
            self.chunked =
                tokens(value).last().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
            self.close |= !self.chunked || has_tab(line);
        }
    }
}

/// Returns a line without the end that may stand behind it.
fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Returns whether there are no control bytes but tabs: for some clients CR alone ends a line.
fn is_text(text: &[u8]) -> bool {
    // Looks at all bytes, so that many of them are looked at together.
    text.iter().fold(true, |is, byte| is & (*byte >= b' ' || *byte == b'\t') & (*byte != 0x7f))
}

/// Returns whether there is a tab, which is part of the value for some clients, and a blank for others.
fn has_tab(line: &[u8]) -> bool {
    line.contains(&b'\t')
}

/// Returns whether a line is a field of its own (RFC 9112, section 5), and no continuation of the line
/// before it.
fn is_field_line(line: &[u8]) -> bool {
    let line = without_end(line);
    let name = line.iter().position(|byte| !is_token_byte(byte)).unwrap_or(line.len());
    name > 0 && line.get(name) == Some(&b':') && is_text(&line[name..])
}

/// Returns the value of a field line if its name is `name`, which is given in its usual spelling.
fn value_of<'a, const N: usize>(line: &'a [u8], name: &[u8; N]) -> Option<&'a [u8]> {
    let (found, [b':', value @ ..]) = line.split_first_chunk::<N>()? else { return None };
    // Nearly all programs use this spelling, which takes fewer instructions to compare.
    (found == name || found.eq_ignore_ascii_case(name)).then(|| value.trim_ascii())
}

/// Returns the offset of the first LF. Field lines are short: eight bytes at a time cost less than
/// the setup of a wider search.
fn line_end(bytes: &[u8]) -> Option<usize> {
    const LOW: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = LOW << 7;
    let (words, rest) = bytes.as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        // A byte is zero where it was LF; the lowest bit found is never a false match.
        let word = u64::from_le_bytes(*word) ^ (LOW * u64::from(b'\n'));
        let hits = word.wrapping_sub(LOW) & !word & HIGH;
        if hits != 0 {
            return Some(place * 8 + hits.trailing_zeros() as usize / 8);
        }
        if place == 15 {
            let behind = 128;
            return Some(behind + memchr::memchr(b'\n', &bytes[behind..])?);
        }
    }
    let at = rest.iter().position(|byte| *byte == b'\n')?;
    Some(words.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_found_wherever_they_are() {
        for len in 0..300 {
            let mut bytes = vec![b'\x0b'; len];
            assert_eq!(line_end(&bytes), None);
            for at in (0..len).rev() {
                bytes[at] = b'\n';
                assert_eq!(line_end(&bytes), Some(at));
            }
        }
    }
}
