//! The protocol itself, which is rustls': a thin coat over its connection without buffers.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus,
};
use rustls::{Error, ServerConfig};

use super::{Refusal, Taken};

/// A key file is a few kilobytes long.
const MAX_FILE: u64 = 1 << 20;
/// What a record adds to the bytes that it carries, and the most that it carries.
const OVERHEAD: usize = 64;
const RECORD: usize = 16 * 1024;

/// Who the server is: certificate and key, and what else new connections have in common.
pub struct Identity(Arc<ServerConfig>);

impl Identity {
    /// Reads a file of PEM sections: a private key, and a certificate with those that vouch for it.
    pub fn load(path: &Path) -> Result<Identity, Refusal> {
        let refuse = |sentence, detail: &dyn std::fmt::Display| {
            let detail = format!("ssl_certificate: {}: {detail}", path.display());
            Refusal { sentence, detail }
        };
        let unreadable = |error| refuse(c"Cannot read the certificate file", &error);
        let about = fs::metadata(path).map_err(unreadable)?;
        if !about.is_file() || about.len() > MAX_FILE {
            let detail = "no file, or too long for one of certificates";
            return Err(refuse(c"Cannot read the certificate file", &detail));
        }
        let text = fs::read(path).map_err(unreadable)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let chain = match chain {
            Ok(chain) if chain.is_empty() => Err(pem::Error::NoItemsFound),
            chain => chain,
        };
        let chain =
            chain.map_err(|error| refuse(c"No certificate in the certificate file", &error))?;
        let key = PrivateKeyDer::from_pem_slice(&text)
            .map_err(|error| refuse(c"No usable private key in the certificate file", &error))?;
        let config = configure(chain, key).map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                refuse(c"The private key does not belong to the certificate", &error)
            }
            Error::InvalidCertificate(_) => refuse(c"The certificate cannot be used", &error),
            error => refuse(c"The private key cannot be used", &error),
        })?;
        Ok(Identity(Arc::new(config)))
    }

    /// The server's side of a new connection.
    pub fn begin(&self) -> Option<Engine> {
        UnbufferedServerConnection::new(self.0.clone()).ok().map(Engine)
    }
}

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
    // Whoever comes again brings what is to be remembered of the last time: it takes no memory here,
    // and any process that was forked after the certificate was set can read it.
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// One side of one connection.
pub struct Engine(UnbufferedServerConnection);

impl Engine {
    /// Takes all records of `wire` that are complete. What has to be answered is appended to
    /// `answers`, also when that is an alert. Also tells whether the handshake is done.
    pub fn take(
        &mut self,
        wire: &mut [u8],
        answers: &mut Vec<u8>,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(Taken, bool), String> {
        let mut taken = Taken::default();
        loop {
            let rest = wire.get_mut(taken.consumed..).unwrap_or_default();
            let UnbufferedStatus { discard, state } = self.0.process_tls_records(rest);
            let mut done = None;
            let mut more = 0;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(|error| error.to_string())?;
                        more += record.discard;
                        sink(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, answers)?,
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => taken.ended = true,
                Ok(ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => done = Some(true),
                Ok(_) => done = Some(false),
                Err(error) => {
                    taken.consumed += discard;
                    self.take_alert(wire.get_mut(taken.consumed..).unwrap_or_default(), answers);
                    return Err(error.to_string());
                }
            }
            taken.consumed += discard + more;
            if let Some(is_open) = done {
                return Ok((taken, is_open));
            }
        }
    }

    /// After an error: what the client is to be told of it.
    fn take_alert(&mut self, rest: &mut [u8], answers: &mut Vec<u8>) {
        while self.0.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(mut data)) =
                self.0.process_tls_records(rest).state
        {
            if encode(&mut data, answers).is_err() {
                return;
            }
        }
    }

    /// Encrypts `plain` behind `records`. `partial` is what [`Engine::take`] has left over: the
    /// connection counts on finding it wherever it is asked something.
    pub fn seal(
        &mut self,
        partial: &mut [u8],
        plain: &[u8],
        records: &mut Vec<u8>,
    ) -> Result<(), String> {
        loop {
            match self.0.process_tls_records(partial).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, records)?,
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => {}
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let room = plain.len() + (plain.len() / RECORD + 1) * OVERHEAD;
                    return grown(records, room, |place| match traffic.encrypt(plain, place) {
                        Ok(count) => Ok(count),
                        Err(EncryptError::InsufficientSize(short)) => Err(Some(short)),
                        Err(_) => Err(None),
                    });
                }
                Ok(_) => return Err("nothing can be sent any more".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Writes the notice that nothing more is sent behind `records`.
    pub fn seal_end(&mut self, partial: &mut [u8], records: &mut Vec<u8>) {
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) =
            self.0.process_tls_records(partial).state
        {
            let _ = grown(records, OVERHEAD, |place| match traffic.queue_close_notify(place) {
                Ok(count) => Ok(count),
                Err(EncryptError::InsufficientSize(short)) => Err(Some(short)),
                Err(_) => Err(None),
            });
        }
    }
}

fn encode<Data>(data: &mut EncodeTlsData<'_, Data>, out: &mut Vec<u8>) -> Result<(), String> {
    // It says how long it is when there is no room for it.
    grown(out, 0, |place| match data.encode(place) {
        Ok(count) => Ok(count),
        Err(EncodeError::InsufficientSize(short)) => Err(Some(short)),
        Err(_) => Err(None),
    })
}

/// Appends to `out` what `write` writes: into `room` bytes, or as many as it asks for then.
fn grown(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<InsufficientSizeError>>,
) -> Result<(), String> {
    let before = out.len();
    for _ in 0..2 {
        if out.try_reserve(room).is_err() {
            break;
        }
        out.resize(before + room, 0);
        let written = write(out.get_mut(before..).unwrap_or_default());
        out.truncate(before + *written.as_ref().unwrap_or(&0));
        match written {
            Ok(_) => return Ok(()),
            Err(Some(short)) => room = short.required_size,
            Err(None) => break,
        }
    }
    Err("cannot encrypt".to_owned())
}
