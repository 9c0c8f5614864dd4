//! The protocol (RFC 8446, RFC 5246), by the unbuffered connections of rustls: records become bytes
//! and back.
//!
//! Knows neither certificates, which are in [`identity`](super::identity), nor buffers that last,
//! nor the order of requests, which are in [`Session`](super::Session).

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus,
};

use super::Taken;

/// An upper bound of the bytes that a record adds to its content.
const OVERHEAD: usize = 64;
/// The longest content of a record in bytes (RFC 8446, section 5.1).
const MAX_CONTENT: usize = 16 * 1024;

/// The server's side of one connection.
pub struct Engine(UnbufferedServerConnection);

impl Engine {
    /// Begins the server's side of a new connection.
    pub fn begin(config: &Arc<ServerConfig>) -> Option<Engine> {
        UnbufferedServerConnection::new(config.clone()).ok().map(Engine)
    }

    /// Returns the certificate of the client, in DER, if it has shown one.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.0.peer_certificates()?.first().map(|certificate| &**certificate)
    }

    /// Reads all complete records of `wire`, and appends the records to send in return to
    /// `replies`, an alert included. Also returns whether the handshake is complete.
    pub fn take(
        &mut self,
        wire: &mut [u8],
        replies: &mut Vec<u8>,
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
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, replies)?,
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
        records: &mut Vec<u8>,
    ) -> Result<(), String> {
        loop {
            match self.0.process_tls_records(partial).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, records)?,
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => {}
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let room = plain.len() + (plain.len() / MAX_CONTENT + 1) * OVERHEAD;
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

    /// Appends `close_notify` to `records`.
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

/// Appends a record that rustls has prepared.
fn encode<Data>(data: &mut EncodeTlsData<'_, Data>, out: &mut Vec<u8>) -> Result<(), String> {
    // With no room, rustls reports the length of the record.
    grown(out, 0, |place| match data.encode(place) {
        Ok(count) => Ok(count),
        Err(EncodeError::InsufficientSize(short)) => Err(Some(short)),
        Err(_) => Err(None),
    })
}

/// Appends the output of `write`, which gets `room` bytes, and then the number of bytes that it
/// asks for.
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
