//! Authentication: password files, digest authentication (RFC 7616), and Basic (RFC 7617).
//!
//! Owns whether the credentials of a request are valid. Knows neither the resource that they
//! protect nor the connection.
#![forbid(unsafe_code)]

pub mod basic;
pub mod digest;
pub mod guesses;
pub mod htpasswd;
pub mod index;
pub mod nonce;

/// A way in which a client proves that it knows a password (RFC 9110, section 11.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    #[default]
    Digest,
    Basic,
}

impl Scheme {
    /// Returns the name of the scheme.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Digest => "Digest",
            Scheme::Basic => "Basic",
        }
    }
}

/// Appends the parameter `realm` of a challenge.
fn write_realm(out: &mut Vec<u8>, domain: &str) {
    out.extend_from_slice(b"realm=\"");
    for &byte in domain.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            // A field value cannot contain control bytes.
            _ if byte.is_ascii_control() => {}
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Compares two secrets in a time that does not depend on where they differ.
fn same_secret(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |bits, (a, b)| bits | (a ^ b));
    // Without the black box the compiler may end the loop at the first difference.
    a.len() == b.len() && std::hint::black_box(differences) == 0
}
