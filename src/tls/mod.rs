//! TLS (RFC 8446, and RFC 5246 for older clients): the session of one connection, between the
//! records on the wire and the bytes that they carry.
//!
//! Knows no socket: records come in and go out through slices. A session stores incomplete records
//! and records that the socket has not taken, and nothing else: received bytes are passed on at
//! once, so that an idle connection owns keys and no buffer.
#![forbid(unsafe_code)]

#[cfg(not(feature = "tls"))]
mod absent;
mod der;
#[cfg(feature = "tls")]
mod engine;
#[cfg(feature = "tls")]
mod identity;
#[cfg(feature = "tls")]
mod pem;
pub mod port;
pub mod records;
pub mod setup;
pub mod subject;
#[cfg(all(test, feature = "tls"))]
mod tests;
#[cfg(feature = "tls")]
mod tickets;

use std::ffi::CStr;

#[cfg(not(feature = "tls"))]
use self::absent::Engine;
#[cfg(not(feature = "tls"))]
pub use self::absent::{Authorities, Certificate, Identity};
#[cfg(feature = "tls")]
use self::engine::Engine;
#[cfg(feature = "tls")]
pub use self::identity::{Authorities, Certificate, Identity};
use self::records::Records;

/// The longest handshake message in bytes, with the headers of its records, in however many pieces it
/// arrives; and so the longest input that is stored. Records are at most 18 KiB long (RFC 5246,
/// section 6.2.3).
const MAX_PARTIAL: usize = 20 * 1024;
/// The number of bytes that are encrypted at a time, before the socket has taken their records: a
/// piece of a file, with the head of the answer in front of it.
const PORTION: usize = 80 * 1024;

/// The reason why a setting is refused.
pub struct Refusal {
    /// The sentence for the program.
    pub sentence: &'static CStr,
    /// The line for the error log, which says more.
    pub detail: String,
}

impl Refusal {
    /// Returns the refusal of a library that was built without TLS.
    pub fn not_built(option: &str) -> Refusal {
        let detail = format!("{option}: this library was built without TLS");
        Refusal { sentence: c"TLS is not built into this library", detail }
    }
}

/// The result of reading some input.
#[derive(Debug, Default, PartialEq)]
pub struct Taken {
    /// The number of bytes of the input that are complete records.
    pub consumed: usize,
    /// The client has sent `close_notify`.
    pub ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// No record has been received.
    Fresh,
    Handshaking,
    Open,
    /// The server has sent `close_notify`.
    Closed,
    /// An error has occurred, after which only its alert can be sent.
    Failed,
}

/// The state of TLS of one connection.
pub struct Session {
    engine: Engine,
    state: State,
    /// The number of stored bytes that the server has counted last.
    counted: u32,
    /// An incomplete record, or the records of an incomplete message.
    partial: Vec<u8>,
    /// Records that the socket has not taken yet.
    unsent: Vec<u8>,
    /// The number of bytes at the start of the outbox whose records are made, but not sent.
    in_flight: usize,
}

impl Session {
    /// Creates a session for a new connection. Returns `None` if that fails.
    pub fn open(identity: &Identity) -> Option<Box<Session>> {
        let (engine, partial, unsent) = (identity.begin()?, Vec::new(), Vec::new());
        let state = State::Fresh;
        Some(Box::new(Session { engine, state, counted: 0, partial, unsent, in_flight: 0 }))
    }

    /// Returns whether the handshake is not complete.
    pub fn is_handshaking(&self) -> bool {
        matches!(self.state, State::Fresh | State::Handshaking)
    }

    /// Returns whether no record has been received.
    pub fn is_fresh(&self) -> bool {
        self.state == State::Fresh
    }

    /// Returns the certificate that the client has shown, in DER, once the handshake is complete.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.engine.peer_certificate().filter(|_| !self.is_handshaking())
    }

    /// Returns whether an incomplete record is stored.
    pub fn has_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Counts the stored bytes: incomplete records, and records that the socket has not taken.
    /// Returns this count and the previous one.
    pub fn recount(&mut self) -> (usize, usize) {
        let waiting = self.partial.capacity() + self.unsent.capacity();
        let counted = std::mem::replace(&mut self.counted, waiting as u32);
        (waiting, counted as usize)
    }

    /// Returns whether the records of [`Session::fill`] carry bytes of responses.
    pub fn carries(&self) -> bool {
        self.in_flight > 0
    }

    /// Returns whether there is something to send before the connection may end: stored records, or
    /// `close_notify`.
    pub fn must_send(&self) -> bool {
        !self.unsent.is_empty() || self.state == State::Open
    }

    /// Copies the incomplete record to the start of `wire`. Returns its length.
    pub fn begin_input(&self, wire: &mut [u8]) -> usize {
        match wire.get_mut(..self.partial.len()) {
            Some(place) => place.copy_from_slice(&self.partial),
            None => {
                debug_assert!(false, "the buffer holds every incomplete record");
                return 0;
            }
        }
        self.partial.len()
    }

    /// Decrypts the records of `wire`, passes their content to `sink`, and stores an incomplete
    /// record. The content is shorter than `wire`. Returns whether the client has sent
    /// `close_notify`. After an error, whose text is for the log, the connection must end.
    pub fn receive(&mut self, wire: &mut [u8], sink: impl FnMut(&[u8])) -> Result<bool, String> {
        let (taken, is_open) = match self.take(wire, sink) {
            Ok(outcome) => outcome,
            Err(error) => {
                self.state = State::Failed;
                return Err(error);
            }
        };
        if self.is_handshaking() {
            self.state = match taken.consumed {
                _ if is_open => State::Open,
                0 => self.state,
                _ => State::Handshaking,
            };
        }
        let rest = wire.get(taken.consumed..).unwrap_or_default();
        if rest.is_empty() || taken.ended {
            self.partial = Vec::new();
            return Ok(taken.ended);
        }
        // What was stored is part of the rest. A handshake that is never completed takes no more
        // room than it has to.
        self.partial.clear();
        if rest.len() >= MAX_PARTIAL || self.partial.try_reserve_exact(rest.len()).is_err() {
            self.state = State::Failed;
            return Err("a message is too long".to_owned());
        }
        self.partial.extend_from_slice(rest);
        Ok(taken.ended)
    }

    /// Reads the records of `wire`, never more of them at a time than could have been stored: what
    /// arrives at once is treated as what arrives in pieces.
    fn take(
        &mut self,
        wire: &mut [u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(Taken, bool), String> {
        let mut consumed = 0;
        loop {
            let rest = wire.get_mut(consumed..).unwrap_or_default();
            let is_all = rest.len() <= MAX_PARTIAL;
            let end = rest.len().min(MAX_PARTIAL);
            let piece = rest.get_mut(..end).unwrap_or_default();
            let (taken, is_open) = self.engine.take(piece, &mut self.unsent, &mut sink)?;
            consumed += taken.consumed;
            if is_all || taken.ended || taken.consumed == 0 {
                return Ok((Taken { consumed, ..taken }, is_open));
            }
        }
    }

    /// Fills `records` with the next records to send: stored ones, then some of `plain`, which is
    /// the whole outbox; and with `is_last`, behind its end, `close_notify`. The caller must report
    /// to [`Session::sent`], even if nothing is sent.
    pub fn fill(
        &mut self,
        plain: &[u8],
        is_last: bool,
        records: &mut Records,
    ) -> Result<(), String> {
        records.clear();
        if !self.unsent.is_empty() {
            records.extend(&self.unsent).ok_or_else(out_of_memory)?;
            self.unsent.clear();
        }
        if self.state != State::Open {
            return Ok(());
        }
        let end = plain.len().min(PORTION);
        if let Some(piece) = plain.get(self.in_flight..end).filter(|piece| !piece.is_empty()) {
            self.engine.seal(&mut self.partial, piece, records)?;
            self.in_flight = end;
        }
        if is_last && self.in_flight == plain.len() {
            self.engine.seal_end(&mut self.partial, records);
            self.state = State::Closed;
        }
        Ok(())
    }

    /// Notes that the socket took `count` bytes of `records`. Returns the number of bytes that can
    /// be removed from the outbox.
    pub fn sent(&mut self, records: &[u8], count: usize) -> usize {
        let rest = records.get(count..).unwrap_or_default();
        if rest.is_empty() {
            self.unsent = Vec::new();
            return std::mem::take(&mut self.in_flight);
        }
        self.unsent.clear();
        self.unsent.extend_from_slice(rest);
        0
    }
}

/// Returns the line for the error log when records find no room.
fn out_of_memory() -> String {
    "out of memory".to_owned()
}
