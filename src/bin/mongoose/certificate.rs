//! A certificate for `--tls self-signed`, made in memory (RFC 5280).

#[cfg(feature = "self-signed")]
use std::time::{Duration, SystemTime};

use crate::failure::Failure;

#[cfg(feature = "self-signed")]
const DAY: Duration = Duration::from_secs(86_400);

/// A key with its certificate, as PEM text, and the fingerprint of the certificate.
pub struct SelfSigned {
    pub text: Vec<u8>,
    pub fingerprint: String,
}

#[cfg(not(feature = "self-signed"))]
impl SelfSigned {
    pub fn new() -> Result<SelfSigned, Failure> {
        Err(Failure::usage("--tls self-signed: it is not built into this program; --tls FILE is"))
    }
}

#[cfg(feature = "self-signed")]
impl SelfSigned {
    /// Makes a key and a certificate for the names and addresses of this machine.
    pub fn new() -> Result<SelfSigned, Failure> {
        let failed = |error: rcgen::Error| {
            Failure::trouble(format!("the certificate cannot be made: {error}"))
        };
        let key = rcgen::KeyPair::generate().map_err(failed)?;
        let mut certificate = rcgen::CertificateParams::new(names()).map_err(failed)?;
        let mut name = rcgen::DistinguishedName::new();
        name.push(rcgen::DnType::CommonName, "mongoose, self-signed");
        certificate.distinguished_name = name;
        certificate.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        // From yesterday, since clocks differ, for a year.
        certificate.not_before = (SystemTime::now() - DAY).into();
        certificate.not_after = (SystemTime::now() + 365 * DAY).into();
        let certificate = certificate.self_signed(&key).map_err(failed)?;
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate.der());
        let digits = digest.as_ref().iter().map(|byte| format!("{byte:02X}"));
        Ok(SelfSigned {
            text: (key.serialize_pem() + &certificate.pem()).into_bytes(),
            fingerprint: digits.collect::<Vec<_>>().join(":"),
        })
    }
}

/// The names and addresses by which clients reach this machine.
#[cfg(feature = "self-signed")]
fn names() -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim().to_owned();
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    if !host.is_empty() && host.chars().all(is_name) && !names.contains(&host) {
        names.push(host);
    }
    names.extend(crate::addresses::of_this_machine().iter().map(ToString::to_string));
    names
}
