//! The protocol (RFC 8446, RFC 5246), by the unbuffered connections of rustls: records become bytes
//! and back.
//!
//! Knows neither certificates, which are in [`identity`](super::identity), nor buffers that last,
//! nor the order of requests, which are in [`Session`](super::Session).

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};

use super::Taken;
use super::records::Records;

/// An upper bound of the bytes that a record adds to its content, with an update of the keys in front
/// of it.
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
                    records.extend(&message).ok_or_else(no_memory)?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => {}
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let room = plain.len() + (plain.len() / MAX_CONTENT + 1) * OVERHEAD;
                    let sealed = records.append(room, |place| traffic.encrypt(plain, place).ok());
                    return sealed.ok_or_else(no_memory);
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

/// Returns the line for the error log when there is no room for records.
fn no_memory() -> String {
    "no memory to encrypt".to_owned()
}

/// Returns the line for the error log when records cannot be made.
fn cannot_encrypt() -> String {
    "cannot encrypt".to_owned()
}
