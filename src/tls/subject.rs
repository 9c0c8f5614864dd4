//! The subject of a client's certificate as text (RFC 5280, section 4.1.2.6; RFC 4514), and the
//! certificate as PEM (RFC 7468), for CGI programs.
//!
//! Refuses to know whether a certificate is to be trusted, which is decided in the handshake.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::der::{CONTEXT_0, INTEGER, OBJECT_IDENTIFIER, SEQUENCE, SET, any_element, element};

/// The number of characters in a line of PEM.
const PEM_LINE: usize = 64;

/// Attributes by their object identifiers in DER, with the names that RFC 4514, section 3, and
/// OpenSSL have for them.
const NAMES: [(&[u8], &str); 16] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 4], "SN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 12], "title"),
    (&[0x55, 4, 42], "GN"),
    (&[0x55, 4, 43], "initials"),
    (&[0x55, 4, 46], "dnQualifier"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
];

/// Returns the subject of a certificate in DER, the last name first (RFC 4514, section 2.1). What
/// is malformed ends it.
pub fn of(certificate: &[u8]) -> String {
    let names = subject(certificate).map_or(Vec::new(), |mut rest| {
        let mut names = Vec::new();
        while let Some((set, behind)) = element(rest, SET) {
            names.push(relative_name(set));
            rest = behind;
        }
        names
    });
    names.into_iter().rev().collect::<Vec<_>>().join(",")
}

/// Returns the content of the subject, which is behind version, number, algorithm, issuer and
/// validity.
fn subject(certificate: &[u8]) -> Option<&[u8]> {
    let body = element(element(certificate, SEQUENCE)?.0, SEQUENCE)?.0;
    let body = element(body, CONTEXT_0).map_or(body, |(_, rest)| rest);
    let mut rest = element(body, INTEGER)?.1;
    for _ in 0..3 {
        rest = element(rest, SEQUENCE)?.1;
    }
    Some(element(rest, SEQUENCE)?.0)
}

/// Returns the text of a relative name, which has one attribute or more.
fn relative_name(mut set: &[u8]) -> String {
    let mut parts = Vec::new();
    while let Some((attribute, rest)) = element(set, SEQUENCE) {
        set = rest;
        let Some((kind, value)) = element(attribute, OBJECT_IDENTIFIER) else { continue };
        let known = NAMES.iter().find(|(oid, _)| *oid == kind);
        let text = any_element(value).and_then(|(tag, content, _)| text_of(tag, content));
        parts.push(match (known, text) {
            (Some((_, name)), Some(text)) => format!("{name}={}", escaped(&text)),
            (Some((_, name)), None) => format!("{name}=#{}", digits(value)),
            (None, _) => format!("{}=#{}", dotted(kind), digits(value)),
        });
    }
    parts.join("+")
}

/// Returns the text of a string of DER, if `tag` is that of one.
fn text_of(tag: u8, content: &[u8]) -> Option<String> {
    /// `UTF8String`, `PrintableString` and `IA5String`.
    const BYTES: [u8; 3] = [12, 19, 22];
    const TELETEX: u8 = 20;
    const UNIVERSAL: u8 = 28;
    const BMP: u8 = 30;
    match tag {
        tag if BYTES.contains(&tag) => String::from_utf8(content.to_vec()).ok(),
        TELETEX => Some(content.iter().map(|byte| char::from(*byte)).collect()),
        UNIVERSAL => {
            let unit = |bytes: &[u8]| char::from_u32(u32::from_be_bytes(bytes.try_into().ok()?));
            content.chunks(4).map(unit).collect()
        }
        BMP if content.len().is_multiple_of(2) => {
            let units = content.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).collect::<Result<String, _>>().ok()
        }
        _ => None,
    }
}

/// Returns a value with what has a meaning in it escaped (RFC 4514, section 2.4). Control
/// characters are escaped, too: a NUL or a line end would look like the end of the value.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    let last = text.chars().count().saturating_sub(1);
    for (place, character) in text.chars().enumerate() {
        let is_outer_space = character == ' ' && (place == 0 || place == last);
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', character]),
            '#' if place == 0 => out.push_str("\\#"),
            ' ' if is_outer_space => out.push_str("\\ "),
            _ if character.is_control() => {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    out.push_str(&format!("\\{byte:02X}"));
                }
            }
            _ => out.push(character),
        }
    }
    out
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Returns an object identifier with dots (X.690, section 8.19).
fn dotted(oid: &[u8]) -> String {
    let mut numbers = Vec::new();
    let mut number: u64 = 0;
    for byte in oid {
        // More than 64 bits are of no known identifier.
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            match numbers.is_empty() {
                true => {
                    let first = (number / 40).min(2);
                    numbers.extend([first, number - first * 40]);
                }
                false => numbers.push(number),
            }
            number = 0;
        }
    }
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

/// Returns a certificate in DER as PEM.
pub fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let mut out = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(PEM_LINE));
        out.push_str(line);
        out.push('\n');
        rest = behind;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
        assert!(content.len() < 0x80);
        [&[tag, content.len() as u8][..], content].concat()
    }

    /// One attribute in a name of its own.
    fn name(oid: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        let attribute = [tagged(OBJECT_IDENTIFIER, oid), tagged(tag, value)].concat();
        tagged(SET, &tagged(SEQUENCE, &attribute))
    }

    /// A certificate of which only the subject is there.
    fn certificate(names: &[Vec<u8>]) -> Vec<u8> {
        let empty = tagged(SEQUENCE, b"");
        let fields = [
            tagged(CONTEXT_0, &tagged(INTEGER, &[2])),
            tagged(INTEGER, &[1]),
            empty.clone(),
            empty.clone(),
            empty,
            tagged(SEQUENCE, &names.concat()),
        ];
        tagged(SEQUENCE, &tagged(SEQUENCE, &fields.concat()))
    }

    #[test]
    fn a_subject_is_written_as_rfc_4514_wants_it() {
        const CN: &[u8] = &[0x55, 4, 3];
        let cases: &[(&[Vec<u8>], &str)] = &[
            (&[], ""),
            (&[name(CN, 12, b"joe")], "CN=joe"),
            (&[name(&[0x55, 4, 6], 19, b"AT"), name(CN, 12, b"joe")], "CN=joe,C=AT"),
            (
                &[name(CN, 12, b" a,b+c\"d\\e<f>g;h=i#j ")],
                "CN=\\ a\\,b\\+c\\\"d\\\\e\\<f\\>g\\;h=i#j\\ ",
            ),
            (&[name(CN, 12, b"#x")], "CN=\\#x"),
            (&[name(CN, 12, b" ")], "CN=\\ "),
            (
                &[name(CN, 12, b"good.example\0.evil.example\r\n")],
                "CN=good.example\\00.evil.example\\0D\\0A",
            ),
            (&[name(CN, 12, "é".as_bytes())], "CN=é"),
            (&[name(CN, 12, b"\xff")], "CN=#0C01FF"),
            (&[name(CN, 20, b"\xe9")], "CN=é"),
            (&[name(CN, 30, b"\0a\0\xe9")], "CN=aé"),
            (&[name(CN, 30, b"\0a\0")], "CN=#1E03006100"),
            (&[name(CN, 28, b"\0\0\0a")], "CN=a"),
            (&[name(CN, 28, b"\0\0a")], "CN=#1C03000061"),
            (&[name(CN, INTEGER, &[7])], "CN=#020107"),
            (&[name(&[0x2a, 3, 0x84, 0x37], 12, b"x")], "1.2.3.567=#0C0178"),
            (&[name(&[0x88, 0x37], 12, b"x")], "2.999=#0C0178"),
        ];
        for (names, wanted) in cases {
            assert_eq!(of(&certificate(names)), *wanted);
        }
        let two = [
            tagged(SEQUENCE, &[tagged(OBJECT_IDENTIFIER, CN), tagged(12, b"a")].concat()),
            tagged(
                SEQUENCE,
                &[tagged(OBJECT_IDENTIFIER, &[0x55, 4, 11]), tagged(12, b"b")].concat(),
            ),
        ];
        assert_eq!(of(&certificate(&[tagged(SET, &two.concat())])), "CN=a+OU=b");
    }

    #[test]
    fn a_certificate_that_is_cut_has_a_shorter_subject_and_does_no_harm() {
        let whole = certificate(&[name(&[0x55, 4, 3], 12, b"joe"), name(&[0x88], 5, b"")]);
        for len in 0..whole.len() {
            of(&whole[..len]);
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            of(&damaged);
        }
        assert_eq!(of(&[0xff; 2000]), "");
    }

    #[test]
    fn lines_of_pem_have_64_characters() {
        let text = pem(&[0; 100]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!((lines[1].len(), lines[2].len(), lines[3].len()), (64, 64, 8));
        assert_eq!(pem(b""), "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n");
    }
}
