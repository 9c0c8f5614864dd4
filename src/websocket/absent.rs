//! The stand-in for `deflate` in a library built without compression: it is never agreed upon with a
//! client (RFC 7692), so that no message is compressed.
//!
//! Owns nothing.

use super::frame;

/// The memory of an inflater in bytes.
pub const INFLATER_BYTES: usize = 0;
/// The longest payload in bytes that would be compressed at once.
pub const MAX_COMPRESSED: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Never {}

/// The parameters that were negotiated with a client, of which no value exists.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deflate {
    pub client_takeover: bool,
    never: Never,
}

impl Deflate {
    /// Takes no offer.
    pub fn negotiate<'a>(_: impl Iterator<Item = &'a [u8]>) -> Option<Deflate> {
        None
    }

    pub fn window_bits(&self) -> u8 {
        match self.never {}
    }

    pub fn write(&self, _: &mut Vec<u8>) {
        match self.never {}
    }
}

/// The reason why a message cannot be inflated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BadMessage {
    Malformed,
    TooLong,
    NoMemory,
}

/// The inflater of the messages of one client, which sends none that is compressed.
#[derive(Debug, Default)]
pub struct Inflater;

impl Inflater {
    pub fn inflate(&mut self, _: &[u8], _: &mut Vec<u8>, _: usize) -> Result<(), BadMessage> {
        Err(BadMessage::Malformed)
    }

    pub fn finish(&mut self, _: &mut Vec<u8>, _: usize) -> Result<(), BadMessage> {
        Err(BadMessage::Malformed)
    }
}

/// The compressor of the messages of the server, which compresses none.
#[derive(Debug, Default)]
pub struct Deflater;

impl Deflater {
    pub fn new() -> Deflater {
        Deflater
    }

    pub fn write_frame(&mut self, _: &mut Vec<u8>, _: u8, _: &[u8], deflate: &Deflate) {
        match deflate.never {}
    }

    /// Appends a frame as it is.
    pub fn write_frame_of_any_length(
        &mut self,
        out: &mut Vec<u8>,
        opcode: u8,
        payload: &[u8],
        _: u8,
    ) {
        frame::write_header(out, opcode, payload.len(), false);
        out.extend_from_slice(payload);
    }

    pub fn is_noise(&mut self, _: &[u8], deflate: &Deflate) -> bool {
        match deflate.never {}
    }

    pub fn remembers(&self) -> bool {
        false
    }

    pub fn forget_last(&mut self) {}
}

/// The compressor of a long message, of which there is none.
pub struct Stream(Never);

impl Stream {
    pub fn new(deflate: &Deflate) -> Stream {
        match deflate.never {}
    }

    pub fn compress(&mut self, _: &[u8], _: bool, _: &mut Vec<u8>) -> bool {
        match self.0 {}
    }
}
