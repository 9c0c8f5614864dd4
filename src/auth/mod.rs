//! Authentication: password files, and digest authentication (RFC 7616).
//!
//! Owns whether the credentials of a request are valid. Knows neither the resource that they
//! protect nor the connection.
#![forbid(unsafe_code)]

pub mod digest;
pub mod htpasswd;
pub mod index;
pub mod nonce;

/// Compares two secrets in a time that does not depend on where they differ.
fn same_secret(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |bits, (a, b)| bits | (a ^ b));
    // Without the black box the compiler may end the loop at the first difference.
    a.len() == b.len() && std::hint::black_box(differences) == 0
}
