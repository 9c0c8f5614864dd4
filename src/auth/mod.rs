//! Who may do what: password files, and digest authentication (RFC 7616).
#![forbid(unsafe_code)]

pub mod digest;
pub mod htpasswd;
pub mod nonce;

/// Whether two secrets are the same, in a time that does not tell where they differ.
fn same_secret(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |bits, (a, b)| bits | (a ^ b));
    // Else a compiler that sees through the loop may leave it early.
    a.len() == b.len() && std::hint::black_box(differences) == 0
}
