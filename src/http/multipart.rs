//! Form uploads: `multipart/form-data` content (RFC 7578, and RFC 2046, section 5.1), one part at a
//! time.
//!
//! Owns where a part ends and how its names are read. Does not know the Content-Type field: the
//! boundary is taken from the line that the content begins with.

use std::ops::Range;

use memchr::memmem;

use super::request::is_token_byte;

/// One part of the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The name of the form field, as it stands between its quotes; empty if there is none.
    pub name: &'a [u8],
    /// The name of the uploaded file, likewise. It may hold any bytes, and is no safe path.
    pub file_name: &'a [u8],
    /// The place of the data in the buffer.
    pub data: Range<usize>,
    /// The offset of the boundary line behind this part.
    pub next: usize,
}

/// The longest boundary in bytes. RFC 2046 allows 70, and some clients use more.
const MAX_BOUNDARY: usize = 256;

/// Reads the part at the start of `buf`, which must begin with a boundary line. The buffer from
/// `next` on can be given to this function again. Returns `None` at the end, and for a part that is
/// malformed or not complete.
pub fn next_part(buf: &[u8]) -> Option<Part<'_>> {
    // The CRLF that belongs to a delimiter may also stand in front of the first boundary.
    let line_start = if buf.starts_with(b"\r\n") { 2 } else { 0 };
    let line = buf[line_start..].strip_prefix(b"--")?;
    let line = &line[..memmem::find(line, b"\r\n")?];
    let boundary = line.trim_ascii_end();
    // The last boundary is followed by two more hyphens.
    let last = boundary.ends_with(b"--");
    if boundary.is_empty() || last || boundary.len() > MAX_BOUNDARY {
        return None;
    }
    // The fields begin with the CRLF before them, so that the empty line also follows a CRLF if
    // there are no fields.
    let fields_start = line_start + 2 + line.len();
    let fields_len = memmem::find(&buf[fields_start..], b"\r\n\r\n")?;
    let fields = &buf[fields_start..fields_start + fields_len];
    let data_start = fields_start + fields_len + 4;

    let delimiter = [b"\r\n--", boundary].concat();
    if memmem::find(fields, &delimiter).is_some() {
        return None;
    }
    // The delimiter of a part without data may begin with the CRLF of the empty line.
    let search_start = data_start - 2;
    let rest = &buf[search_start..];
    let ends_line = |at: &usize| is_boundary_end(&rest[at + delimiter.len()..]);
    let data_end = memmem::find_iter(rest, &delimiter).find(ends_line)? + search_start;

    let disposition = disposition(fields).unwrap_or_default();
    Some(Part {
        name: parameter(disposition, b"name").unwrap_or_default(),
        file_name: parameter(disposition, b"filename").unwrap_or_default(),
        data: data_start..data_end.max(data_start),
        next: data_end + 2,
    })
}

/// Returns whether `text` may follow a boundary on its line. If not, the line is data that looks
/// like a boundary, such as the longer boundary of a multipart content inside this part.
fn is_boundary_end(text: &[u8]) -> bool {
    let padding = |text: &[u8]| {
        let blanks = text.iter().take_while(|b| b" \t".contains(b)).count();
        text[blanks..].starts_with(b"\r\n")
    };
    text.starts_with(b"--") || padding(text)
}

/// Returns the value of the Content-Disposition field.
pub(super) fn disposition(mut fields: &[u8]) -> Option<&[u8]> {
    loop {
        fields = fields.strip_prefix(b"\r\n")?;
        let (line, behind) = fields.split_at(memmem::find(fields, b"\r\n").unwrap_or(fields.len()));
        let (name, value) = line.split_at(memchr::memchr(b':', line).unwrap_or(line.len()));
        if name.eq_ignore_ascii_case(b"content-disposition") {
            return value.get(1..);
        }
        fields = behind;
    }
}

/// Returns the value of a parameter of `type; name=token; other="quoted"`.
pub(super) fn parameter<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = &field[memchr::memchr(b';', field)?..];
    loop {
        rest = rest.strip_prefix(b";")?;
        let end = memchr::memchr2(b'=', b';', rest)?;
        let found = rest[..end].trim_ascii().eq_ignore_ascii_case(name);
        rest = &rest[end..];
        let Some(value) = rest.strip_prefix(b"=") else {
            continue;
        };
        let value = value.trim_ascii_start();
        let (value, behind) = match value {
            [b'"', text @ ..] => {
                let mut quotes = memchr::memchr_iter(b'"', text);
                let end = quotes.find(|&at| is_closing(text, at))?;
                (&text[..end], &text[end + 1..])
            }
            _ => {
                let end = memchr::memchr(b';', value).unwrap_or(value.len());
                (value[..end].trim_ascii_end(), &value[end..])
            }
        };
        if found {
            return Some(value);
        }
        rest = behind.trim_ascii_start();
    }
}

/// Returns whether the quote at `at` ends the quoted text. Browsers write a quote within a name as
/// `%22` and leave backslashes as they are (WHATWG HTML, "multipart/form-data encoding algorithm"),
/// so that a backslash may be the last byte of a name; other clients escape a quote by a backslash.
/// A quote behind a backslash therefore ends the text only if the field ends there as well, or
/// continues with another parameter.
fn is_closing(text: &[u8], at: usize) -> bool {
    if !text[..at].ends_with(b"\\") {
        return true;
    }
    match text[at + 1..].trim_ascii_start() {
        [] => true,
        [b';', next @ ..] => {
            let next = next.trim_ascii_start();
            let len = next.iter().take_while(|byte| is_token_byte(byte)).count();
            len > 0 && next[len..].trim_ascii_start().starts_with(b"=")
        }
        _ => false,
    }
}

/// Copies the name of a part to `dst`, without the backslashes before its quotes, and appends a
/// NUL. Returns whether the name fits. If not, `dst` is an empty string, since half a name would be
/// another name.
pub fn copy_name(name: &[u8], dst: &mut [u8]) -> bool {
    let mut len = 0;
    let bytes = name.iter().enumerate();
    for (_, &byte) in bytes.filter(|&(i, _)| !name[i..].starts_with(b"\\\"")) {
        match dst.get_mut(len) {
            Some(place) => *place = byte,
            None => break,
        }
        len += 1;
    }
    let fits = len < dst.len();
    if let Some(end) = dst.get_mut(if fits { len } else { 0 }) {
        *end = 0;
    }
    fits
}

/// Returns the name of a part as its client has it: a quote within it is written as `%22` by browsers,
/// and behind a backslash by others.
pub(super) fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [byte, behind @ ..] = rest {
        (text, rest) = match rest {
            [b'%', b'2', b'2', behind @ ..] | [b'\\', b'"', behind @ ..] => {
                text.push(b'"');
                (text, behind)
            }
            _ => {
                text.push(*byte);
                (text, behind)
            }
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns name, file name and data of all parts.
    fn parts(buf: &[u8]) -> Vec<(String, String, Vec<u8>)> {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(part) = next_part(&buf[at..]) {
            assert!(part.next > 0);
            let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
            let data = buf[at..][part.data].to_vec();
            found.push((text(part.name), text(part.file_name), data));
            at += part.next;
        }
        found
    }

    #[test]
    fn the_parts_of_a_form_come_one_by_one() {
        let body = b"--xyz\r\n\
            Content-Disposition: form-data; name=\"text\"\r\n\r\n\
            hello\r\n\
            --xyz\r\n\
            Content-Type: image/png\r\n\
            content-disposition: form-data; name=\"pic\"; filename=\"a b.png\"\r\n\
            X-More: y\r\n\r\n\
            \x89PNG\r\n\0\r\n--xy\r\n--xyzz\r\n\
            --xyz\r\n\
            Content-Disposition: form-data; name=empty\r\n\r\n\
            \r\n\
            --xyz--\r\n";
        let part = |name: &str, file: &str, data: &[u8]| (name.into(), file.into(), data.into());
        let expected = [
            part("text", "", b"hello"),
            part("pic", "a b.png", b"\x89PNG\r\n\0\r\n--xy\r\n--xyzz"),
            part("empty", "", b""),
        ];
        assert_eq!(parts(body), expected);
    }

    #[test]
    fn a_part_ends_where_the_next_boundary_line_begins() {
        let body = b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\ndata\r\n--x--";
        let part = next_part(body).expect("a part");
        assert_eq!(&body[part.data], b"data");
        assert_eq!(&body[part.next..], b"--x--");
    }

    #[test]
    fn names_are_quoted_or_tokens() {
        let table = [
            ("form-data; name=\"a\"; filename=\"b\"", "a", "b"),
            ("form-data; filename=\"b\"; name=\"a\"", "a", "b"),
            ("form-data;name=a;filename=b", "a", "b"),
            ("form-data ; NAME = \"a\" ; FileName = b ", "a", "b"),
            ("form-data; name=\"\"; filename=\"\"", "", ""),
            ("form-data; name=\"a;b=c\"", "a;b=c", ""),
            ("form-data; name=\"x; filename=y\"; filename=z", "x; filename=y", "z"),
            ("form-data; name=\"a \\\"b\\\" c\"", "a \\\"b\\\" c", ""),
            ("form-data; name=a; filename=\"C:\\dir\\f.txt\"", "a", "C:\\dir\\f.txt"),
            // Browsers write a backslash at the end of a name; other clients escape quotes.
            ("form-data; name=\"dir\\\"", "dir\\", ""),
            ("form-data; name=\"dir\\\" ", "dir\\", ""),
            ("form-data; name=\"dir\\\"; filename=\"C:\\x\\\"", "dir\\", "C:\\x\\"),
            ("form-data; name=\"dir\\\" ; filename = b", "dir\\", "b"),
            ("form-data; filename=\"dir\\\\\"; name=\"a\"", "a", "dir\\\\"),
            ("form-data; name=\"\\\"", "\\", ""),
            ("form-data; name=\"a\\\"b\"", "a\\\"b", ""),
            ("form-data; name=\"a\\\"\"; filename=b", "a\\\"", "b"),
            ("form-data; name=\"a\\\"; b\"; filename=c", "a\\\"; b", "c"),
            ("form-data; name=\"a\\\";\"", "a\\\";", ""),
            ("form-data; name=\"a%22b\"", "a%22b", ""),
            ("form-data; x; name=a", "a", ""),
            ("form-data; x=; name=a", "a", ""),
            ("form-data; xname=b; name=a", "a", ""),
            ("form-data; filename*=UTF-8''x; filename=b", "", "b"),
            ("form-data; name=\"a", "", ""),
            ("form-data; name=\"a\" x; filename=b", "a", ""),
            ("form-data; name", "", ""),
            ("form-data", "", ""),
            ("", "", ""),
        ];
        for (disposition, name, file_name) in table {
            let body = format!("--x\r\nContent-Disposition: {disposition}\r\n\r\nd\r\n--x--\r\n");
            let expected = [(name.to_owned(), file_name.to_owned(), b"d".to_vec())];
            assert_eq!(parts(body.as_bytes()), expected, "{disposition}");
        }
    }

    #[test]
    fn unusual_bodies_are_read_as_their_rfc_says() {
        let table: &[(&[u8], &[u8])] = &[
            // A part without fields, without data, and without both.
            (b"--x\r\n\r\ndata\r\n--x--", b"data"),
            (b"--x\r\nA: b\r\n\r\n--x--", b""),
            (b"--x\r\n\r\n\r\n--x--", b""),
            (b"--x\r\n\r\n--x--", b""),
            // White space behind a boundary, and a CRLF before the first boundary.
            (b"--x \t\r\n\r\ndata\r\n--x \r\n", b"data"),
            (b"\r\n--x\r\n\r\ndata\r\n--x--", b"data"),
            // Neither a prefix of the boundary nor a longer boundary ends the data.
            (b"--x-y\r\n\r\n1\r\n--x\r\n2\r\n--x-yz\r\n--x-y--", b"1\r\n--x\r\n2\r\n--x-yz"),
            (b"--x\r\n\r\n--x\r\n--x--", b""),
        ];
        for &(body, data) in table {
            let part = next_part(body).expect("a part");
            assert_eq!(&body[part.data], data, "{}", body.escape_ascii());
            assert_eq!(&body[part.next..part.next + 3], b"--x", "{}", body.escape_ascii());
        }
    }

    #[test]
    fn the_end_and_malformed_parts_give_nothing() {
        for body in [
            &b""[..],
            b"--x--",
            b"--x--\r\n",
            b"--x--\r\n\r\nepilogue\r\n--x--\r\n",
            b"x\r\n\r\ndata\r\n--x--",
            b"--\r\n\r\ndata\r\n----",
            b"--x",
            b"--x\r\n",
            b"--x\r\nA: b\r\n",
            b"--x\r\nA: b\r\n\r\n",
            b"--x\r\n\r\ndata",
            b"--x\r\n\r\ndata\r\n--x",
            b"--x\r\n\r\ndata\r\n--xy",
            b"--x\r\n\r\ndata\n--x--",
            b"--x\r\n\r\ndata--x--",
            b"--x\r\nA: b\r\n--x\r\n\r\ndata\r\n--x--",
            b"--x\n\ndata\n--x--",
        ] {
            assert_eq!(next_part(body), None, "{}", body.escape_ascii());
        }
    }

    #[test]
    fn a_boundary_has_a_bound() {
        for (len, expected) in [(MAX_BOUNDARY, true), (MAX_BOUNDARY + 1, false)] {
            let boundary = "b".repeat(len);
            let body = format!("--{boundary}\r\n\r\ndata\r\n--{boundary}--\r\n");
            assert_eq!(next_part(body.as_bytes()).is_some(), expected, "{len}");
        }
    }

    #[test]
    fn a_name_is_copied_whole_or_not_at_all() {
        let table: &[(&[u8], usize, bool, &[u8])] = &[
            (b"abc", 4, true, b"abc\0"),
            (b"abc", 3, false, b"\0"),
            (b"", 1, true, b"\0"),
            (b"a\\\"b", 4, true, b"a\"b\0"),
            (b"a\\b\\", 5, true, b"a\\b\\\0"),
            (b"\xff", 2, true, b"\xff\0"),
            (b"a", 0, false, b""),
        ];
        for &(name, size, fits, expected) in table {
            let mut dst = vec![b'x'; size];
            assert_eq!(copy_name(name, &mut dst), fits, "{}", name.escape_ascii());
            assert!(dst.starts_with(expected), "{}", name.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_ranges_inside_the_buffer(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "--x", "\r\n", "--", "Content-Disposition:", ";", "name=", "\"", "\\", "a", " ",
            ]), 0..24),
        ) {
            let buf = format!("--x\r\n{}\r\n--x", pieces.concat()).into_bytes();
            if let Some(part) = next_part(&buf) {
                prop_assert!(part.data.start <= part.data.end && part.data.end <= part.next);
                prop_assert!(buf[part.next..].starts_with(b"--x"));
            }
        }
    }
}
