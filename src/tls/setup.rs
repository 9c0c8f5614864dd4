//! The settings of TLS: what the options say together.
//!
//! Refuses to know how a certificate is read, which is in `identity`, and what becomes of a setting
//! that was refused.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::{Authorities, Certificate, Identity, Refusal};
use crate::options::{Protocols, VerifyClient};

/// What C is shown of a value that is PEM text, since that may hold a key.
pub const TEXT: &CStr = c"(text)";

/// Where PEM sections are.
pub enum Pem<'a> {
    File(&'a Path),
    Text(&'a [u8]),
}

impl<'a> Pem<'a> {
    /// Returns what the value of an option means: a text if it begins as one, else a path.
    pub fn of(value: &'a [u8]) -> Pem<'a> {
        match value.starts_with(b"-----BEGIN") {
            true => Pem::Text(value),
            false => Pem::File(Path::new(OsStr::from_bytes(value))),
        }
    }

    pub fn is_text(&self) -> bool {
        matches!(self, Pem::Text(_))
    }
}

/// The settings that are in force.
#[derive(Clone, Default)]
pub struct Setup {
    /// The certificate for clients that ask for no name, or for one that is not in `named`.
    pub certificate: Option<Certificate>,
    /// Certificates by name, in which `*` may stand for the first label.
    pub named: Vec<(String, Certificate)>,
    /// The authorities of clients. Without them, no client is asked for a certificate.
    pub authorities: Option<Authorities>,
    pub verify: VerifyClient,
    pub protocols: Protocols,
}

impl Setup {
    /// Returns whether there is any certificate to show.
    pub fn has_certificate(&self) -> bool {
        self.certificate.is_some() || !self.named.is_empty()
    }

    /// Makes the identity of these settings. `None` means that TLS is not spoken.
    pub fn identity(&self) -> Result<Option<Identity>, Refusal> {
        self.has_certificate().then(|| Identity::new(self)).transpose()
    }
}
