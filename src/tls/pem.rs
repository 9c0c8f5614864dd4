//! Certificate files: their PEM sections (RFC 7468), and the reasons why a certificate or key is
//! refused, which rustls does not tell.
//!
//! Reads as much of DER as tells the kinds of keys apart (RFC 5958, RFC 8017, RFC 5915, RFC 5280),
//! and never decides whether a key is valid.

use std::ffi::CStr;

use super::der::{CONTEXT_0, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, element};

/// A section of a file.
pub struct Section<'a> {
    pub label: &'a [u8],
    /// The text, with its first and last line.
    pub text: &'a [u8],
    /// The section has its last line.
    pub is_whole: bool,
}

impl Section<'_> {
    /// Returns whether the section is a private key.
    pub fn is_key(&self) -> bool {
        self.label.ends_with(b"PRIVATE KEY")
    }

    /// Returns whether the key is encrypted with a password: as in PKCS #8, or as older programs do
    /// it (RFC 1421).
    pub fn is_encrypted(&self) -> bool {
        let has_field =
            |line: &[u8]| line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED");
        self.label == b"ENCRYPTED PRIVATE KEY" || lines(self.text).any(|(line, _)| has_field(line))
    }
}

/// Returns the lines without their ends, and the offset of each.
fn lines(text: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut at = 0;
    text.split(|byte| matches!(byte, b'\n' | b'\r')).map(move |line| {
        let begin = at;
        at += line.len() + 1;
        (line.trim_ascii_end(), begin)
    })
}

/// Splits a file into its sections.
pub fn sections(text: &[u8]) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut begun: Option<(&[u8], usize)> = None;
    let mut end = |begun: Option<(_, usize)>, until: usize, is_whole| {
        if let Some((label, from)) = begun {
            let text = text.get(from..until).unwrap_or_default();
            sections.push(Section { label, text, is_whole });
        }
    };
    for (line, at) in lines(text) {
        if let Some(label) = label_in(line, b"-----BEGIN ") {
            end(begun.replace((label, at)), at, false);
        } else if let Some(label) = label_in(line, b"-----END ")
            && begun.is_some_and(|(begun, _)| begun == label)
        {
            end(begun.take(), at + line.len(), true);
        }
    }
    end(begun, text.len(), false);
    sections
}

/// Returns the label in a line that begins with `start`.
fn label_in<'a>(line: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(start)?.strip_suffix(b"-----")
}

const CANNOT_BE_USED: &CStr = c"The private key cannot be used";
const UNKNOWN_KIND: &CStr = c"The private key is of an unsupported kind";

// Object identifiers in DER.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];

/// Returns the reason why rustls refuses a key that is not malformed.
pub fn fault_of_key(label: &[u8], der: &[u8]) -> &'static CStr {
    match label {
        b"RSA PRIVATE KEY" => fault_of_rsa(der),
        b"EC PRIVATE KEY" => fault_of_curve(der),
        b"PRIVATE KEY" => fault_of_pkcs8(der).unwrap_or(CANNOT_BE_USED),
        _ => UNKNOWN_KIND,
    }
}

/// Reads a key of PKCS #8 (RFC 5958, section 2).
fn fault_of_pkcs8(der: &[u8]) -> Option<&'static CStr> {
    let mut fields = element(der, SEQUENCE)?.0;
    (_, fields) = element(fields, INTEGER)?;
    let (algorithm, fields) = element(fields, SEQUENCE)?;
    let (kind, parameters) = element(algorithm, OBJECT_IDENTIFIER)?;
    Some(match kind {
        RSA => fault_of_rsa(element(fields, OCTET_STRING)?.0),
        EC => fault_of_curve(parameters),
        ED25519 => CANNOT_BE_USED,
        _ => UNKNOWN_KIND,
    })
}

/// Looks for the curve in a key (RFC 5915, section 3) or its parameters.
fn fault_of_curve(der: &[u8]) -> &'static CStr {
    let names = |curve| memchr::memmem::find(der, curve).is_some();
    match names(P256) || names(P384) {
        true => CANNOT_BE_USED,
        false => c"The private key is on an unsupported curve: P-256 and P-384 are supported",
    }
}

/// Checks the length of an RSA key (RFC 8017, section A.1.2).
fn fault_of_rsa(der: &[u8]) -> &'static CStr {
    match bits_of_rsa(der) {
        Some(..2048) => c"The RSA key is too short: it needs 2048 bits at least",
        Some(4097..) => c"The RSA key is too long: it may have 4096 bits at most",
        _ => CANNOT_BE_USED,
    }
}

/// Returns the length of the modulus in bits.
fn bits_of_rsa(der: &[u8]) -> Option<usize> {
    let (_, fields) = element(element(der, SEQUENCE)?.0, INTEGER)?;
    let modulus = element(fields, INTEGER)?.0;
    let leading = modulus.iter().take_while(|byte| **byte == 0).count();
    let digits = modulus.get(leading..).unwrap_or_default();
    Some(digits.len() * 8 - digits.first()?.leading_zeros() as usize)
}

/// Returns the reason why rustls refuses a certificate that is not malformed (RFC 5280, section
/// 4.1).
pub fn fault_of_certificate(der: &[u8]) -> &'static CStr {
    let body = element(der, SEQUENCE).and_then(|(fields, _)| element(fields, SEQUENCE));
    let Some((body, _)) = body else { return c"The certificate is damaged" };
    // A certificate has no version field if it is of version 1.
    match element(body, CONTEXT_0).and_then(|(version, _)| element(version, INTEGER)) {
        Some(([2], _)) => c"The certificate cannot be used",
        _ => c"The certificate is not of version 3",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_found_whole_and_cut() {
        let text = b"note\n-----BEGIN A-----\r\nx\r\n-----END A-----\r\n-----BEGIN B-----\ny\n\
            -----BEGIN C D-----\nProc-Type: 4,ENCRYPTED\n\nz\n-----END C D----- \n\
            -----END C-----\n-----BEGIN E PRIVATE KEY-----\nz\n-----END B-----";
        let found = sections(text);
        let told = |section: &Section<'_>| {
            let label = String::from_utf8_lossy(section.label).into_owned();
            (label, section.is_whole, section.is_encrypted(), section.is_key())
        };
        let wanted = [
            ("A", true, false, false),
            ("B", false, false, false),
            ("C D", true, true, false),
            ("E PRIVATE KEY", false, false, true),
        ];
        let wanted =
            wanted.map(|(label, whole, secret, key)| (label.to_owned(), whole, secret, key));
        assert_eq!(found.iter().map(told).collect::<Vec<_>>(), wanted);
        assert_eq!(found[0].text, b"-----BEGIN A-----\r\nx\r\n-----END A-----");
        assert!(sections(b"\0\xff-----BEGIN A-----").is_empty());
    }

    #[test]
    fn what_is_no_der_is_no_harm() {
        let pieces: [&[u8]; 8] = [
            b"",
            b"\x30",
            b"\x30\x80",
            b"\x30\x85\0\0\0\0\x01\0",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\x03\x02\x01\x00",
            b"\x30\x06\x02\x01\x00\x02\x01\x00",
            b"\x30\x02\x30\x00",
        ];
        for der in pieces {
            for label in ["RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY", "X PRIVATE KEY"] {
                fault_of_key(label.as_bytes(), der);
            }
            fault_of_certificate(der);
        }
    }
}
