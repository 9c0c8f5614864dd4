//! Header fields that a program adds to the responses of the library, as `Name: value` lines
//! (RFC 9110, section 5).
//!
//! Owns which names and values are allowed. Knows nothing of the option that holds the lines, nor
//! of the responses that they are added to.

use super::request::is_token_byte;

/// Names of fields that the library writes itself, that decide on framing, or that apply to one
/// connection only.
const RESERVED: &[&str] = &[
    "accept-ranges",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "keep-alive",
    "last-modified",
    "location",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
];

/// The reason why lines are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A line does not have the form `Name: value`.
    Form,
    /// A value contains a character that is not allowed (RFC 9110, section 5.5).
    Character,
    /// A name is reserved for the library.
    Reserved,
}

/// Parses the lines into fields as they are sent, each with its CRLF. Empty lines are ignored.
pub fn parse(lines: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut fields = Vec::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() {
            continue;
        }
        let colon = memchr::memchr(b':', line).ok_or(Refusal::Form)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(is_token_byte) {
            return Err(Refusal::Form);
        }
        if value.iter().any(|byte| *byte < b' ' && *byte != b'\t' || *byte == 0x7f) {
            return Err(Refusal::Character);
        }
        if RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved.as_bytes())) {
            return Err(Refusal::Reserved);
        }
        fields.extend_from_slice(name);
        fields.extend_from_slice(b": ");
        fields.extend_from_slice(value);
        fields.extend_from_slice(b"\r\n");
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_fields_or_are_refused_with_a_reason() {
        let table: [(&str, Result<&str, Refusal>); 18] = [
            ("", Ok("")),
            ("\r\n \n", Ok("")),
            ("A: b", Ok("A: b\r\n")),
            ("A:b\nX-C:  d e \r\n", Ok("A: b\r\nX-C: d e\r\n")),
            ("\n\nA: b\n\nA: c\n", Ok("A: b\r\nA: c\r\n")),
            ("Content-Security-Policy: default-src 'self'; x:y", {
                Ok("Content-Security-Policy: default-src 'self'; x:y\r\n")
            }),
            ("A:", Ok("A: \r\n")),
            ("A: \u{e4}", Ok("A: \u{e4}\r\n")),
            ("A", Err(Refusal::Form)),
            ("A: b\nno colon", Err(Refusal::Form)),
            (": b", Err(Refusal::Form)),
            ("A : b", Err(Refusal::Form)),
            ("A: b\n folded: c", Err(Refusal::Form)),
            ("\u{e4}: b", Err(Refusal::Form)),
            ("A: b\rX: c", Err(Refusal::Character)),
            ("A: \x01", Err(Refusal::Character)),
            ("A: \x7f", Err(Refusal::Character)),
            ("A: b\nCONTENT-length: 5", Err(Refusal::Reserved)),
        ];
        for (lines, expected) in table {
            let expected = expected.map(|text| text.as_bytes().to_vec());
            assert_eq!(parse(lines.as_bytes()), expected, "{lines:?}");
        }
        for name in RESERVED {
            assert_eq!(parse(format!("{name}: x").as_bytes()), Err(Refusal::Reserved), "{name}");
        }
    }
}
