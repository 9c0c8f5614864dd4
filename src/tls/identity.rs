//! The identity of a server: its certificate and key, read from a file of PEM sections (RFC 7468),
//! and all that its connections share.
//!
//! Owns the checks of certificates and keys. Knows neither connections nor options.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{Error, ServerConfig};

use super::Refusal;
use super::engine::Engine;
use super::pem::{self, Section};
use super::tickets::Tickets;
use crate::log::shown;

/// The longest certificate file in bytes; the usual length is a few kilobytes.
const MAX_FILE: u64 = 1 << 20;

/// The certificate of a server and its key, with all that new connections share.
pub struct Identity(Arc<ServerConfig>);

impl Identity {
    /// Reads a file of PEM sections: a private key, and a certificate with its chain.
    pub fn load(path: &Path) -> Result<Identity, Refusal> {
        let text = read(path).map_err(|error| (c"Cannot read the certificate file", error));
        let identity = text.and_then(|text| Identity::parse(&text));
        identity.map_err(|(sentence, detail)| {
            let detail = match detail.is_empty() {
                true => sentence.to_string_lossy().into_owned(),
                false => detail,
            };
            let detail = format!("ssl_certificate: {}: {detail}", shown(path));
            Refusal { sentence, detail }
        })
    }

    fn parse(text: &[u8]) -> Result<Identity, Fault> {
        let plain = |sentence| (sentence, String::new());
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        if text.is_empty() {
            return Err(plain(c"The certificate file is empty"));
        }
        let sections = pem::sections(text);
        if sections.is_empty() {
            let detail = match text.first() {
                Some(0x30) => "it seems to be binary (DER or PKCS #12), and has to be PEM",
                _ => "there is no line that begins with -----BEGIN",
            };
            return Err((c"The certificate file is not in PEM format", detail.to_owned()));
        }
        if memchr::memmem::find(text, b"----------BEGIN ").is_some() {
            // Two files were joined, of which the first one has no line end at its end.
            return Err(plain(c"Two sections of the certificate file meet in one line"));
        }
        let damaged = |sentence, section: &Section<'_>, error: Option<String>| {
            let label = shown(OsStr::from_bytes(section.label));
            let why = error.unwrap_or_else(|| "it has no end".to_owned());
            (sentence, format!("section {label}: {why}"))
        };
        let mut chain = Vec::new();
        for section in sections.iter().filter(|section| section.label == b"CERTIFICATE") {
            let sentence = c"The certificate is damaged";
            if !section.is_whole {
                return Err(damaged(sentence, section, None));
            }
            let certificate = CertificateDer::from_pem_slice(section.text);
            chain.push(certificate.map_err(|error| damaged(sentence, section, reason(&error)))?);
        }
        let Some(first) = chain.first().cloned() else {
            return Err(plain(c"No certificate in the certificate file"));
        };
        let keys = || sections.iter().filter(|section| section.is_key());
        let Some(section) = keys().find(|section| !section.is_encrypted()) else {
            return Err(plain(match keys().next() {
                Some(_) => c"The private key is encrypted with a password",
                None => c"No private key in the certificate file",
            }));
        };
        let sentence = c"The private key is damaged";
        if !section.is_whole {
            return Err(damaged(sentence, section, None));
        }
        let key = match PrivateKeyDer::from_pem_slice(section.text) {
            Ok(key) => key,
            Err(PemError::NoItemsFound) => {
                return Err(plain(pem::fault_of_key(section.label, b"")));
            }
            Err(error) => return Err(damaged(sentence, section, reason(&error))),
        };
        let secret = key.clone_key();
        let config = configure(chain, key).map_err(|error| {
            let sentence = match error {
                Error::InconsistentKeys(_) => c"The private key does not belong to the certificate",
                Error::InvalidCertificate(_) => pem::fault_of_certificate(&first),
                Error::FailedToGetRandomBytes => c"The system has no random numbers",
                _ => pem::fault_of_key(section.label, secret.secret_der()),
            };
            (sentence, String::new())
        })?;
        Ok(Identity(Arc::new(config)))
    }

    /// Creates the server's side of a new connection.
    pub fn begin(&self) -> Option<Engine> {
        Engine::begin(&self.0)
    }
}

/// A sentence for the program, and the details for the error log.
type Fault = (&'static CStr, String);

/// Reads a certificate file. Errors are texts for the error log.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let text = |error: std::io::Error| error.to_string();
    let about = fs::metadata(path).map_err(text)?;
    if about.is_dir() {
        return Err("it is a directory".to_owned());
    }
    if !about.is_file() {
        return Err("it is no regular file".to_owned());
    }
    if about.len() > MAX_FILE {
        return Err("it is too long for a file of certificates".to_owned());
    }
    fs::read(path).map_err(text)
}

/// Returns why a section is malformed, without any of its content, which may be secret.
fn reason(error: &PemError) -> Option<String> {
    match error {
        PemError::Base64Decode(error) => Some(format!("its base64 is broken: {error}")),
        _ => Some("it is not PEM".to_owned()),
    }
}

/// Builds the configuration that all connections share.
fn configure(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A client that resumes a session brings its state in a ticket. The state takes no memory here,
    // and each process that was forked after the certificate was set can read it.
    config.ticketer = Arc::new(Tickets::new().ok_or(Error::FailedToGetRandomBytes)?);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}
