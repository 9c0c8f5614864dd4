//! TLS (RFC 8446, and RFC 5246 for older clients): what one connection has of it, between the
//! records on the wire and the bytes that they carry.
//!
//! Knows no socket: records come in and go out through slices. A session keeps nothing that is
//! complete: bytes that arrived are handed on at once, and records that the socket takes at once are
//! never stored, so that an idle connection owns keys and no buffer.
#![forbid(unsafe_code)]

#[cfg(not(feature = "tls"))]
#[path = "absent.rs"]
mod engine;
#[cfg(feature = "tls")]
mod engine;
#[cfg(feature = "tls")]
mod pem;
#[cfg(feature = "tls")]
mod tickets;

use std::ffi::CStr;

use self::engine::Engine;
pub use self::engine::Identity;

/// The longest part of a record, or of a message of the handshake, that waits for the rest. Records
/// are at most 18 KiB long (RFC 5246, section 6.2.3).
const MAX_PARTIAL: usize = 20 * 1024;
/// Bytes that are encrypted before the socket has taken those before them.
const PORTION: usize = 64 * 1024;

/// Why a certificate was refused.
pub struct Refusal {
    /// What the program is told.
    pub sentence: &'static CStr,
    /// What the error log is told beside.
    pub detail: String,
}

/// What came of some input.
#[derive(Debug, Default, PartialEq)]
pub struct Taken {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// The client has said that it sends nothing more.
    pub ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// No record has come yet.
    Fresh,
    Handshaking,
    Open,
    /// We have said that we send nothing more.
    Closed,
    /// Nothing but an alert can be sent any more.
    Failed,
}

/// What a connection that speaks TLS has beside one that does not.
pub struct Session {
    engine: Engine,
    state: State,
    /// Bytes that the server has counted as waiting here.
    counted: u32,
    /// The start of a record, or records of a message that is not complete.
    partial: Vec<u8>,
    /// Records that the socket has not taken.
    unsent: Vec<u8>,
    /// How many of the bytes that wait unencrypted are in there, too.
    in_flight: usize,
}

impl Session {
    /// A session for a new connection.
    pub fn open(identity: &Identity) -> Option<Box<Session>> {
        let (engine, partial, unsent) = (identity.begin()?, Vec::new(), Vec::new());
        let state = State::Fresh;
        Some(Box::new(Session { engine, state, counted: 0, partial, unsent, in_flight: 0 }))
    }

    pub fn is_handshaking(&self) -> bool {
        matches!(self.state, State::Fresh | State::Handshaking)
    }

    /// Whether nothing has come that was understood.
    pub fn is_fresh(&self) -> bool {
        self.state == State::Fresh
    }

    /// Whether part of a record has arrived.
    pub fn has_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Bytes that wait here: half-received records, and records that the socket has not taken. Also, how
    /// many were counted when this was asked last.
    pub fn recount(&mut self) -> (usize, usize) {
        let waiting = self.partial.capacity() + self.unsent.capacity();
        let counted = std::mem::replace(&mut self.counted, waiting as u32);
        (waiting, counted as usize)
    }

    /// Whether bytes of answers are among the records that [`Session::fill`] gave.
    pub fn carries(&self) -> bool {
        self.in_flight > 0
    }

    /// Whether something is to be sent before the connection may end: records that wait, or the
    /// notice of the end.
    pub fn must_send(&self) -> bool {
        !self.unsent.is_empty() || self.state == State::Open
    }

    /// Puts what is left of earlier input in front; its length.
    pub fn begin_input(&self, wire: &mut [u8]) -> usize {
        match wire.get_mut(..self.partial.len()) {
            Some(place) => place.copy_from_slice(&self.partial),
            None => return 0,
        }
        self.partial.len()
    }

    /// Takes records, hands what they carry to `sink`, and keeps what is not complete. The sum of
    /// what `sink` is given is shorter than `wire`. An error is for people, and the end.
    pub fn receive(&mut self, wire: &mut [u8], sink: impl FnMut(&[u8])) -> Result<bool, String> {
        let (taken, is_open) = match self.engine.take(wire, &mut self.unsent, sink) {
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
        } else if rest.len() > MAX_PARTIAL || self.partial.try_reserve(rest.len()).is_err() {
            self.state = State::Failed;
            return Err("a message is too long".to_owned());
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(rest);
        }
        Ok(taken.ended)
    }

    /// Fills `records` with what is to be sent next: what waits, then some of `plain`, which holds
    /// all that waits unencrypted; and if that is the last of it, the notice of the end.
    /// Whatever becomes of it, [`Session::sent`] has to be told.
    pub fn fill(
        &mut self,
        plain: &[u8],
        is_last: bool,
        records: &mut Vec<u8>,
    ) -> Result<(), String> {
        records.clear();
        records.append(&mut self.unsent);
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

    /// The socket took `count` bytes of `records`. Returns how many bytes need not wait unencrypted
    /// any more.
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
