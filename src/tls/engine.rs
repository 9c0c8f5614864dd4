//! The protocol (RFC 8446, RFC 5246), by the unbuffered connections of rustls: certificates are
//! read from a file, and records become bytes and back.
//!
//! Owns the calls of rustls. Knows neither buffers that last nor the order of requests, which are
//! in [`Session`](super::Session).

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{Error, ServerConfig};

use super::pem::{self, Section};
use super::records::Records;
use super::tickets::Tickets;
use super::{Refusal, Taken};
use crate::log::shown;

/// The longest certificate file in bytes; the usual length is a few kilobytes.
const MAX_FILE: u64 = 1 << 20;
/// An upper bound of the bytes that a record adds to its content, with an update of the keys in front
/// of it.
const OVERHEAD: usize = 64;
/// The longest content of a record in bytes (RFC 8446, section 5.1).
const MAX_CONTENT: usize = 16 * 1024;

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
        UnbufferedServerConnection::new(self.0.clone()).ok().map(Engine)
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

/// The server's side of one connection.
pub struct Engine(UnbufferedServerConnection);

impl Engine {
    /// Reads all complete records of `wire`, and appends the records to send in return to
    /// `replies`, an alert included. Also returns whether the handshake is complete.
    pub fn take(
        &mut self,
        wire: &mut [u8],
        replies: &mut Vec<u8>,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(Taken, bool), String> {
        let mut taken = Taken::default();
        let mut replied = false;
        loop {
            let rest = wire.get_mut(taken.consumed..).unwrap_or_default();
            let UnbufferedStatus { discard, state } = self.0.process_tls_records(rest);
            let mut done = None;
            let mut more = 0;
            let mut has_content = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    has_content = true;
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(|error| error.to_string())?;
                        more += record.discard;
                        sink(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut data, replies)?;
                    replied = true;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => taken.ended = true,
                Ok(ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => done = Some(true),
                Ok(_) => done = Some(false),
                Err(error) => {
                    taken.consumed += discard;
                    self.take_alert(wire.get_mut(taken.consumed..).unwrap_or_default(), replies);
                    return Err(error.to_string());
                }
            }
            taken.consumed += discard + more;
            if has_content && !replied && taken.consumed == wire.len() && !self.0.wants_write() {
                // The usual end. Another call would find nothing to do, and takes its time.
                return Ok((taken, true));
            }
            if let Some(is_open) = done {
                return Ok((taken, is_open));
            }
        }
    }

    /// Appends the alert that follows an error.
    fn take_alert(&mut self, rest: &mut [u8], replies: &mut Vec<u8>) {
        while self.0.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(mut data)) =
                self.0.process_tls_records(rest).state
        {
            if encode(&mut data, replies).is_err() {
                return;
            }
        }
    }

    /// Encrypts `plain` and appends its records to `records`. `partial` is the incomplete record
    /// that [`Engine::take`] has left: rustls expects it at each call.
    pub fn seal(
        &mut self,
        partial: &mut [u8],
        plain: &[u8],
        records: &mut Records,
    ) -> Result<(), String> {
        loop {
            match self.0.process_tls_records(partial).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let mut message = Vec::new();
                    encode(&mut data, &mut message)?;
                    records.extend(&message).ok_or_else(cannot_encrypt)?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => {}
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let room = plain.len() + (plain.len() / MAX_CONTENT + 1) * OVERHEAD;
                    let sealed = records.append(room, |place| traffic.encrypt(plain, place).ok());
                    return sealed.ok_or_else(cannot_encrypt);
                }
                Ok(_) => return Err("nothing can be sent any more".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Appends `close_notify` to `records`.
    pub fn seal_end(&mut self, partial: &mut [u8], records: &mut Records) {
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) =
            self.0.process_tls_records(partial).state
        {
            // Without memory for it, the connection ends as if it had been cut off.
            let _ = records.append(OVERHEAD, |place| traffic.queue_close_notify(place).ok());
        }
    }
}

/// Appends a record that rustls has prepared.
fn encode<Data>(data: &mut EncodeTlsData<'_, Data>, out: &mut Vec<u8>) -> Result<(), String> {
    // With no room, rustls reports the length of the record.
    let Err(EncodeError::InsufficientSize(short)) = data.encode(&mut []) else {
        return Err(cannot_encrypt());
    };
    let before = out.len();
    out.try_reserve(short.required_size).map_err(|_| cannot_encrypt())?;
    out.resize(before + short.required_size, 0);
    let written = data.encode(out.get_mut(before..).unwrap_or_default());
    out.truncate(before + *written.as_ref().unwrap_or(&0));
    written.map(|_| ()).map_err(|_| cannot_encrypt())
}

/// Returns the line for the error log when records cannot be made.
fn cannot_encrypt() -> String {
    "cannot encrypt".to_owned()
}
