//! What a server shows of itself, and asks of its clients: certificates and their keys, read from
//! PEM (RFC 7468), the authorities that vouch for clients, and all that new connections share.
//!
//! Owns the checks of certificates and keys. Knows neither connections nor when an option may be
//! set.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::server::{WebPkiClientVerifier, danger::ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{Error, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::Refusal;
use super::engine::Engine;
use super::pem::{self, Section};
use super::setup::{self, Pem, Setup};
use super::tickets::Tickets;
use crate::log::shown;
use crate::options::VerifyClient;

/// The longest certificate file in bytes; the usual length is a few kilobytes.
const MAX_FILE: u64 = 1 << 20;
/// The largest total length, in bytes, of the names of authorities that are sent to each client.
/// With more, no name is sent, which asks for a certificate of any authority (RFC 8446, section
/// 4.2.4).
const MAX_NAMES: usize = 16 * 1024;

/// A sentence for the program, and the details for the error log.
type Fault = (&'static CStr, String);

/// A fault of which the sentence says everything.
fn plain(sentence: &'static CStr) -> Fault {
    (sentence, String::new())
}

/// Returns the refusal of an option. `what` names the file.
fn refusal(option: &str, what: &str, (sentence, detail): Fault) -> Refusal {
    let detail = match detail.is_empty() {
        true => sentence.to_string_lossy().into_owned(),
        false => detail,
    };
    Refusal { sentence, detail: format!("{option}: {what}: {detail}") }
}

/// A certificate with its chain, and its private key.
#[derive(Clone)]
pub struct Certificate(Arc<CertifiedKey>);

impl Certificate {
    /// Reads PEM sections: a private key, and a certificate with its chain. `option` names the
    /// option whose value they are.
    pub fn load(option: &str, pem: &Pem<'_>) -> Result<Certificate, Refusal> {
        let certificate = text_of(pem).and_then(|text| Certificate::parse(&text));
        certificate.map_err(|fault| refusal(option, &name_of(pem), fault))
    }

    fn parse(text: &[u8]) -> Result<Certificate, Fault> {
        let sections = sections(text)?;
        let chain = certificates(&sections)?;
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
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| {
            plain(match error {
                Error::InconsistentKeys(_) => c"The private key does not belong to the certificate",
                Error::InvalidCertificate(_) => pem::fault_of_certificate(&first),
                _ => pem::fault_of_key(section.label, secret.secret_der()),
            })
        })?;
        Ok(Certificate(Arc::new(certified)))
    }
}

/// The authorities whose certificates clients may show.
#[derive(Clone)]
pub struct Authorities(Arc<RootCertStore>);

impl Authorities {
    /// Reads PEM sections: the certificates of the authorities.
    pub fn load(option: &str, pem: &Pem<'_>) -> Result<Authorities, Refusal> {
        let authorities = text_of(pem).and_then(|text| Authorities::parse(&text));
        authorities.map_err(|fault| refusal(option, &name_of(pem), fault))
    }

    fn parse(text: &[u8]) -> Result<Authorities, Fault> {
        let mut roots = RootCertStore::empty();
        for (place, certificate) in certificates(&sections(text)?)?.into_iter().enumerate() {
            roots.add(certificate).map_err(|error| {
                (c"The certificate is damaged", format!("certificate {}: {error}", place + 1))
            })?;
        }
        match roots.is_empty() {
            true => Err(plain(c"No certificate in the certificate file")),
            false => Ok(Authorities(Arc::new(roots))),
        }
    }

    /// Returns what checks the certificates of clients.
    fn verifier(
        &self,
        verify: VerifyClient,
        provider: Arc<CryptoProvider>,
    ) -> Option<Arc<dyn ClientCertVerifier>> {
        let mut builder = WebPkiClientVerifier::builder_with_provider(self.0.clone(), provider);
        let names: usize = self.0.roots.iter().map(|root| root.subject.len()).sum();
        if names > MAX_NAMES {
            builder = builder.clear_root_hint_subjects();
        }
        if verify == VerifyClient::Optional {
            builder = builder.allow_unauthenticated();
        }
        builder.build().ok()
    }
}

/// All that new connections share.
pub struct Identity(Arc<ServerConfig>);

impl Identity {
    /// Makes an identity of all settings. Its tickets are new, so that those of an earlier one are
    /// of no use.
    pub fn new(setup: &Setup) -> Result<Identity, Refusal> {
        let failed = |sentence: &'static CStr| Refusal {
            sentence,
            detail: format!("TLS: {}", sentence.to_string_lossy()),
        };
        let provider = Arc::new(provider());
        let verifier = match &setup.authorities {
            Some(authorities) => authorities.verifier(setup.verify, provider.clone()),
            None => Some(WebPkiClientVerifier::no_client_auth()),
        };
        let versions: Vec<&SupportedProtocolVersion> =
            [(setup.protocols.tls12, &TLS12), (setup.protocols.tls13, &TLS13)]
                .into_iter()
                .filter_map(|(is_spoken, version)| is_spoken.then_some(version))
                .collect();
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|_| failed(c"No version of TLS is left"))?;
        let Some(verifier) = verifier else {
            return Err(failed(c"The certificates of the authorities cannot be used"));
        };
        let mut config = builder
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(Resolver::new(setup)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A client that resumes a session brings its state in a ticket. The state takes no memory
        // here, and each process that was forked after the certificate was set can read it.
        let tickets = Tickets::new().ok_or_else(|| failed(c"The system has no random numbers"))?;
        config.ticketer = Arc::new(tickets);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Identity(Arc::new(config)))
    }

    /// Creates the server's side of a new connection.
    pub fn begin(&self) -> Option<Engine> {
        Engine::begin(&self.0)
    }
}

/// The choice of a certificate by the name that a client asks for (RFC 6066, section 3).
struct Resolver {
    /// Names in lower case.
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// What follows the first label of a name, in lower case.
    wild: HashMap<String, Arc<CertifiedKey>>,
    other: Option<Arc<CertifiedKey>>,
}

impl Resolver {
    fn new(setup: &Setup) -> Resolver {
        let other = setup.certificate.as_ref().map(|certificate| certificate.0.clone());
        let mut resolver = Resolver { exact: HashMap::new(), wild: HashMap::new(), other };
        for (host, certificate) in &setup.named {
            let (names, name) = match host.strip_prefix("*.") {
                Some(rest) => (&mut resolver.wild, rest),
                None => (&mut resolver.exact, host.as_str()),
            };
            names.insert(name.to_ascii_lowercase(), certificate.0.clone());
        }
        resolver
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let wild = || self.wild.get(name.split_once('.')?.1);
        self.exact.get(&name).or_else(wild)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.find(name));
        named.or(self.other.as_ref()).cloned()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Resolver")
    }
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// Returns the text of a value, or that of its file.
fn text_of(pem: &Pem<'_>) -> Result<Vec<u8>, Fault> {
    match pem {
        Pem::Text(text) => Ok(text.to_vec()),
        Pem::File(path) => read(path).map_err(|error| (c"Cannot read the certificate file", error)),
    }
}

/// Returns the name of a file for the error log. A text may hold a key, and is not shown.
fn name_of(pem: &Pem<'_>) -> String {
    match pem {
        Pem::Text(_) => setup::TEXT.to_string_lossy().into_owned(),
        Pem::File(path) => shown(path).to_string(),
    }
}

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

/// Splits a text into its sections, of which there is at least one.
fn sections(text: &[u8]) -> Result<Vec<Section<'_>>, Fault> {
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
    Ok(sections)
}

/// Returns all certificates of the sections.
fn certificates(sections: &[Section<'_>]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let sentence = c"The certificate is damaged";
    let of_section = |section: &Section<'_>| {
        if !section.is_whole {
            return Err(damaged(sentence, section, None));
        }
        let certificate = CertificateDer::from_pem_slice(section.text);
        certificate.map_err(|error| damaged(sentence, section, reason(&error)))
    };
    sections.iter().filter(|section| section.label == b"CERTIFICATE").map(of_section).collect()
}

fn damaged(sentence: &'static CStr, section: &Section<'_>, error: Option<String>) -> Fault {
    let label = shown(OsStr::from_bytes(section.label));
    let why = error.unwrap_or_else(|| "it has no end".to_owned());
    (sentence, format!("section {label}: {why}"))
}

/// Returns why a section is malformed, without any of its content, which may be secret.
fn reason(error: &PemError) -> Option<String> {
    match error {
        PemError::Base64Decode(error) => Some(format!("its base64 is broken: {error}")),
        _ => Some("it is not PEM".to_owned()),
    }
}
