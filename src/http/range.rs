//! Range requests (RFC 9110, section 14): which bytes a Range field asks for, and the framing in
//! which several ranges are sent (`multipart/byteranges`).
//!
//! Owns which requests for ranges are honoured. Knows lengths and positions, and never the bytes of
//! a representation.

use std::ops::Range;

/// The ranges that a Range field asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// The field is ignored: the whole representation is sent, with 200.
    Whole,
    /// None of the ranges lies within the representation: the response is 416.
    Unsatisfiable,
    /// One range, sent with 206 and a Content-Range field.
    One(Range<u64>),
    /// Two or more ranges, none of them empty, sent with 206 as multipart in the requested order.
    Several(Vec<Range<u64>>),
}

/// The largest number of ranges that are honoured: many small ranges take more framing than
/// content.
const MAX_RANGES: usize = 16;
/// The largest number of ranges that share bytes with another range. More of them would let a short
/// request cause a response that holds the representation many times.
const MAX_OVERLAPPING: usize = 2;

/// Parses the value of a Range field for a representation of `len` bytes. A field that is
/// malformed, of another unit or abusive is ignored (RFC 9110, section 14.2, allows that).
pub fn parse(value: &[u8], len: u64) -> Ranges {
    let Some(specs) = behind_unit(value.trim_ascii()).filter(|_| len > 0) else {
        // An empty representation has no ranges: a client that resumes a download gets 200 and
        // learns that the download is complete.
        return Ranges::Whole;
    };
    let mut ranges = Vec::new();
    let mut count = 0;
    for spec in specs.split(|&b| b == b',').map(trim_blanks) {
        // RFC 9110, section 5.6.1.2: empty members of a list are ignored.
        if spec.is_empty() {
            continue;
        }
        count += 1;
        let Some(spec) = Spec::parse(spec).filter(|_| count <= MAX_RANGES) else {
            return Ranges::Whole;
        };
        ranges.extend(spec.within(len));
    }
    match ranges.len() {
        0 if count == 0 => Ranges::Whole,
        0 => Ranges::Unsatisfiable,
        1 => Ranges::One(ranges.remove(0)),
        _ if overlapping(&ranges) > MAX_OVERLAPPING || !can_be_counted(&ranges) => Ranges::Whole,
        _ => Ranges::Several(ranges),
    }
}

/// Returns the ranges behind the unit, if that is `bytes`.
fn behind_unit(value: &[u8]) -> Option<&[u8]> {
    let (unit, specs) = value.split_at_checked(6)?;
    unit.eq_ignore_ascii_case(b"bytes=").then_some(specs)
}

fn trim_blanks(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// One range of the field (RFC 9110, section 14.1.1). Positions count from 0; the last one is
/// included.
#[derive(Clone, Copy)]
enum Spec {
    Between(u64, u64),
    From(u64),
    Suffix(u64),
}

impl Spec {
    fn parse(text: &[u8]) -> Option<Spec> {
        let dash = memchr::memchr(b'-', text)?;
        let (first, last) = (&text[..dash], &text[dash + 1..]);
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Some(Spec::Between(first, last)),
            (Some(first), None) if last.is_empty() => Some(Spec::From(first)),
            (None, Some(len)) if first.is_empty() => Some(Spec::Suffix(len)),
            _ => None,
        }
    }

    /// Returns the range within a representation of `len` bytes; `None` if it has none of the
    /// bytes.
    fn within(self, len: u64) -> Option<Range<u64>> {
        match self {
            Spec::Between(first, last) if first < len => Some(first..last.min(len - 1) + 1),
            Spec::From(first) if first < len => Some(first..len),
            Spec::Suffix(suffix) if suffix > 0 => Some(len - suffix.min(len)..len),
            _ => None,
        }
    }
}

/// Parses a number that has digits only. A number that does not fit becomes the largest one: no
/// representation is as long.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |number: u64, digit: &u8| {
        let number = number.saturating_mul(10);
        number.saturating_add(u64::from(digit - b'0'))
    };
    Some(digits.iter().fold(0, add))
}

/// Returns how many of the ranges share bytes with another one. Quadratic in their number, which is
/// at most [`MAX_RANGES`].
fn overlapping(ranges: &[Range<u64>]) -> usize {
    let meets = |a: &Range<u64>, b: &Range<u64>| a.start < b.end && b.start < a.end;
    let shares = |(place, range): &(usize, &Range<u64>)| {
        let mut others = ranges.iter().enumerate();
        others.any(|(other_place, other)| other_place != *place && meets(range, other))
    };
    ranges.iter().enumerate().filter(shares).count()
}

/// Returns whether the length of all ranges with their framing fits a signed 64-bit counter. Two
/// ranges of a sparse file can exceed it.
fn can_be_counted(ranges: &[Range<u64>]) -> bool {
    let mut lens = ranges.iter().map(|range| range.end - range.start);
    let sum = lens.try_fold(0u64, u64::checked_add);
    sum.is_some_and(|sum| sum < 1 << 62)
}

/// Appends the Content-Range field of a 206 response with one range.
pub fn content_range(range: &Range<u64>, len: u64, out: &mut Vec<u8>) {
    append(out, &["Content-Range: bytes "]);
    append_number(out, range.start);
    append(out, &["-"]);
    append_number(out, range.end.saturating_sub(1));
    append(out, &["/"]);
    append_number(out, len);
    append(out, &["\r\n"]);
}

/// Appends the Content-Range field of a 416 response.
pub fn unsatisfied_range(len: u64, out: &mut Vec<u8>) {
    append(out, &["Content-Range: bytes */"]);
    append_number(out, len);
    append(out, &["\r\n"]);
}

/// Several ranges of a representation as one content (RFC 9110, section 14.6): for each range
/// [`Multipart::part_head`] and the bytes, then [`Multipart::end`].
#[derive(Clone, Copy, Debug)]
pub struct Multipart<'a> {
    /// The boundary: up to 70 letters and digits that occur nowhere in the representation. In
    /// practice it is random.
    pub boundary: &'a str,
    /// The media type of the representation.
    pub media_type: &'a str,
    /// The length of the representation.
    pub len: u64,
}

impl Multipart<'_> {
    /// Appends the Content-Type field of the response.
    pub fn content_type(&self, out: &mut Vec<u8>) {
        let field = "Content-Type: multipart/byteranges; boundary=";
        append(out, &[field, self.boundary, "\r\n"]);
    }

    /// Appends the framing before the bytes of a range. `is_first`: no part stands before it.
    pub fn part_head(&self, range: &Range<u64>, is_first: bool, out: &mut Vec<u8>) {
        let line_end = if is_first { "" } else { "\r\n" };
        append(out, &[line_end, "--", self.boundary, "\r\n"]);
        append(out, &["Content-Type: ", self.media_type, "\r\n"]);
        content_range(range, self.len, out);
        append(out, &["\r\n"]);
    }

    /// Appends the framing behind the bytes of the last range.
    pub fn end(&self, out: &mut Vec<u8>) {
        append(out, &["\r\n--", self.boundary, "--\r\n"]);
    }

    /// Returns the Content-Length of the response: all ranges with their framing.
    pub fn content_length(&self, ranges: &[Range<u64>]) -> u64 {
        let mut framing = Vec::new();
        let mut len = 0u64;
        for (place, range) in ranges.iter().enumerate() {
            self.part_head(range, place == 0, &mut framing);
            len = len.saturating_add(range.end.saturating_sub(range.start));
        }
        self.end(&mut framing);
        len.saturating_add(framing.len() as u64)
    }
}

fn append(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

fn append_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::Ranges::*;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_range_is_asked_for_by_positions_or_from_the_end() {
        let table = [
            ("bytes=0-0", One(0..1)),
            ("bytes=0-9", One(0..10)),
            ("bytes=3-5", One(3..6)),
            ("bytes=9-9", One(9..10)),
            ("bytes=5-", One(5..10)),
            ("bytes=0-", One(0..10)),
            ("bytes=-1", One(9..10)),
            ("bytes=-10", One(0..10)),
            ("bytes=-11", One(0..10)),
            ("bytes=8-10", One(8..10)),
            ("bytes=8-99999999999999999999999", One(8..10)),
            ("bytes=-99999999999999999999999", One(0..10)),
            ("bytes=0-18446744073709551615", One(0..10)),
            ("Bytes=00-001", One(0..2)),
            (" bytes= 0-1 ", One(0..2)),
            ("bytes=,0-1,\t,", One(0..2)),
            ("bytes=10-", Unsatisfiable),
            ("bytes=10-20", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=18446744073709551615-18446744073709551615", Unsatisfiable),
            ("bytes=10-,-0,11-12", Unsatisfiable),
        ];
        for (value, expected) in table {
            assert_eq!(parse(value.as_bytes(), 10), expected, "{value}");
        }
    }

    #[test]
    fn a_field_that_is_malformed_or_of_another_unit_does_not_count() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes 0-1",
            "bytes:0-1",
            "byte=0-1",
            "lines=0-1",
            "none=0-1",
            "0-1",
            "bytes=-",
            "bytes=--1",
            "bytes=1",
            "bytes=2-1",
            "bytes=a-1",
            "bytes=0-b",
            "bytes=0x1-2",
            "bytes=+1-2",
            "bytes=0 - 1",
            "bytes=0-1-2",
            "bytes=0-1;2-3",
            "bytes=0-1,x",
            "bytes=x,0-1",
            "bytes=0-1,5-4",
            "bytes=20-19",
            "bytes =0-1",
            "bytes=0-1, lines=2-3",
            "bytes=\u{e9}-1",
            "bytes=0.0-1",
        ] {
            assert_eq!(parse(value.as_bytes(), 10), Whole, "{value}");
        }
    }

    #[test]
    fn nothing_is_always_sent_whole() {
        for value in ["bytes=0-", "bytes=0-0", "bytes=-0", "bytes=-1", "bytes=5-9,1-"] {
            assert_eq!(parse(value.as_bytes(), 0), Whole, "{value}");
        }
    }

    #[test]
    fn several_ranges_come_in_the_order_asked_for() {
        let table = [
            ("bytes=0-0,-1", Several(vec![0..1, 99..100])),
            ("bytes=50-59, 0-9 ,\t20-", Several(vec![50..60, 0..10, 20..100])),
            ("bytes=0-0,100-,5-5", Several(vec![0..1, 5..6])),
            ("bytes=0-0,100-", One(0..1)),
            // Two ranges that share bytes are honoured, also two whole copies; three are not.
            ("bytes=0-50,50-", Several(vec![0..51, 50..100])),
            ("bytes=0-,0-", Several(vec![0..100, 0..100])),
            ("bytes=0-9,10-19,20-29", Several(vec![0..10, 10..20, 20..30])),
            ("bytes=0-,0-,0-", Whole),
            ("bytes=0-9,5-14,20-29,25-34", Whole),
            ("bytes=0-,1-1,3-3", Whole),
        ];
        for (value, expected) in table {
            assert_eq!(parse(value.as_bytes(), 100), expected, "{value}");
        }
    }

    #[test]
    fn a_request_for_too_many_ranges_gets_the_whole() {
        let single = |n: u64| format!("{}-{}", 2 * n, 2 * n);
        let list = |n: u64| format!("bytes={}", (0..n).map(single).collect::<Vec<_>>().join(","));
        let sixteen = (0..16).map(|n| 2 * n..2 * n + 1).collect();
        assert_eq!(parse(list(16).as_bytes(), 1000), Several(sixteen));
        assert_eq!(parse(list(17).as_bytes(), 1000), Whole);
        // Ranges behind the end of the representation count, too.
        assert_eq!(parse(list(17).as_bytes(), 1), Whole);
        assert_eq!(parse(list(16).as_bytes(), 1), One(0..1));
    }

    #[test]
    fn lengths_beyond_all_counting_are_not_begun() {
        assert_eq!(parse(b"bytes=0-,0-", i64::MAX as u64), Whole);
        let all_but_one = 1..i64::MAX as u64;
        assert_eq!(parse(b"bytes=1-", i64::MAX as u64), One(all_but_one));
        let five_gib = 5 << 30;
        assert_eq!(parse(b"bytes=4294967296-", five_gib), One(1 << 32..five_gib));
    }

    #[test]
    fn fields_and_parts_are_written_like_this() {
        let mut out = Vec::new();
        content_range(&(0..500), 1234, &mut out);
        unsatisfied_range(1234, &mut out);
        let parts = Multipart { boundary: "THIS", media_type: "text/html", len: 8000 };
        parts.content_type(&mut out);
        parts.part_head(&(500..1000), true, &mut out);
        out.extend_from_slice(b"<first>");
        parts.part_head(&(7000..8000), false, &mut out);
        out.extend_from_slice(b"<second>");
        parts.end(&mut out);
        let expected = "Content-Range: bytes 0-499/1234\r\n\
            Content-Range: bytes */1234\r\n\
            Content-Type: multipart/byteranges; boundary=THIS\r\n\
            --THIS\r\n\
            Content-Type: text/html\r\n\
            Content-Range: bytes 500-999/8000\r\n\
            \r\n\
            <first>\r\n\
            --THIS\r\n\
            Content-Type: text/html\r\n\
            Content-Range: bytes 7000-7999/8000\r\n\
            \r\n\
            <second>\r\n\
            --THIS--\r\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    proptest! {
        #[test]
        fn what_is_sent_is_as_long_as_was_said(
            value in "(([0-9]{0,3})-([0-9]{0,3}),? ?){1,6}", len in 0u64..1000,
        ) {
            let value = format!("bytes={value}");
            match parse(value.as_bytes(), len) {
                Whole | Unsatisfiable => {}
                One(range) => prop_assert!(range.start < range.end && range.end <= len),
                Several(ranges) => {
                    prop_assert!(ranges.len() > 1 && ranges.len() <= MAX_RANGES);
                    let parts = Multipart { boundary: "b", media_type: "a/b", len };
                    let mut out = Vec::new();
                    for (place, range) in ranges.iter().enumerate() {
                        prop_assert!(range.start < range.end && range.end <= len);
                        parts.part_head(range, place == 0, &mut out);
                        out.resize(out.len() + (range.end - range.start) as usize, b'x');
                    }
                    parts.end(&mut out);
                    prop_assert_eq!(out.len() as u64, parts.content_length(&ranges));
                }
            }
        }

        #[test]
        fn any_bytes_and_any_length_give_an_answer(
            value in prop::collection::vec(any::<u8>(), 0..60), len in any::<u64>(),
        ) {
            parse(&[b"bytes=", &value[..]].concat(), len);
        }
    }
}
