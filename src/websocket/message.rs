//! The frames of a client, from bytes to messages (RFC 6455, sections 5.4 to 8; RFC 7692): joins
//! fragments, removes masks, validates text and close codes, and enforces the limit. Knows nothing
//! of the frames that the caller sends in return, such as Pong and Close, nor of the connection.
//!
//! The caller passes its input to [`Receiver::step`], and again the input behind `consumed`, until
//! the step is `More`. The receiver keeps incomplete input, so that the caller may pass pieces of
//! any size and keeps none. A payload that lies whole in the input is unmasked and shown in place,
//! without allocation or copy. Only a payload that is cut by the end of the input, fragmented or
//! compressed is stored in buffers of the receiver. They are freed after use: an idle websocket
//! owns none.

use std::ops::Range;

use super::deflate::{BadMessage, Deflate, INFLATER_BYTES, Inflater};
use super::frame::{self, FIN, Header, Parsed, RSV1};
use super::utf8::Validator;

/// The status code for text that is not UTF-8, and for malformed compressed data.
const INVALID_PAYLOAD: u16 = 1007;
/// The status code for a message above the limit.
const TOO_BIG: u16 = 1009;
/// The status code for a message for which there is no memory.
pub const TRY_AGAIN_LATER: u16 = 1013;

/// The number of bytes of a compressed message that are inflated at once: to a thousand times as many at
/// most. And the number of inflated bytes behind which a step pauses.
const INFLATED_AT_ONCE: usize = 512;
const INFLATED_PER_STEP: usize = 128 << 10;

/// The unit in which data is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// A complete message.
    Message,
    /// Each frame of a message.
    Frame,
}

/// The place of a payload.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// In the input, unmasked.
    Input(Range<usize>),
    /// In the receiver, see `own`, until the next call of `step` or `release`.
    Own,
}

/// The first event in the input. The next event follows the `consumed` bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The whole input is consumed, and there is no event in it.
    More {
        consumed: usize,
    },
    /// There may be an event in the rest of the input. Enough work is done for one step: a few bytes may
    /// inflate to very many.
    Pause {
        consumed: usize,
    },
    /// A message, or a frame of a message. `wsbits` is FIN with the opcode of the message, or the
    /// first byte of the frame without RSV1; `opcode` is that of the message.
    Message {
        wsbits: u8,
        opcode: u8,
        payload: Payload,
        consumed: usize,
    },
    Ping {
        payload: Payload,
        consumed: usize,
    },
    Pong {
        payload: Payload,
        consumed: usize,
    },
    /// A valid Close frame. The payload is the code, if there is one, and the reason. All further
    /// input is discarded.
    Close {
        code: Option<u16>,
        payload: Payload,
        consumed: usize,
    },
    /// The connection must be closed with this code. All further input is discarded.
    Fail {
        code: u16,
    },
}

/// The receiving half of a websocket.
#[derive(Debug)]
pub struct Receiver {
    unit: Unit,
    /// The largest message in bytes, or the largest frame if frames are shown.
    limit: usize,
    deflate: Option<Deflate>,
    state: State,
    message: Option<Message>,
    /// The message or frame so far. When it is complete, there is room for one more byte.
    content: Vec<u8>,
    /// The payload so far of a control frame that is cut.
    control: Vec<u8>,
    inflater: Option<Box<Inflater>>,
    /// The buffer that was shown last, which can be freed.
    shown: Option<Buffer>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Between frames, or inside a header: its bytes so far.
    Header { bytes: [u8; frame::MAX_HEADER], len: u8 },
    /// Inside a payload, of which `seen` bytes have come.
    Payload { header: Header, seen: u64 },
    /// Behind a Close frame or an error.
    Closed,
}

const BETWEEN_FRAMES: State = State::Header { bytes: [0; frame::MAX_HEADER], len: 0 };

/// A message that has begun and not ended.
#[derive(Clone, Copy, Debug)]
struct Message {
    opcode: u8,
    compressed: bool,
    text: Validator,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Buffer {
    Content,
    Control,
}

/// A piece of a payload: its place in the input, and its place in the payload.
struct Piece {
    range: Range<usize>,
    is_whole: bool,
    is_last: bool,
}

impl Receiver {
    /// Creates a receiver. `limit` is the largest message in bytes, `deflate` is the result of the
    /// handshake.
    pub fn new(unit: Unit, limit: usize, deflate: Option<Deflate>) -> Receiver {
        Receiver {
            unit,
            limit,
            deflate,
            state: BETWEEN_FRAMES,
            message: None,
            content: Vec::new(),
            control: Vec::new(),
            inflater: None,
            shown: None,
        }
    }

    /// Returns whether a part of a frame or of a message has arrived.
    #[cfg(test)]
    pub fn is_inside(&self) -> bool {
        self.message.is_some() || !matches!(self.state, State::Header { len: 0, .. })
    }

    /// Returns the number of buffered bytes of incomplete frames and messages.
    pub fn buffered(&self) -> usize {
        let inflater = self.inflater.as_ref().map_or(0, |_| INFLATER_BYTES);
        self.content.len() + self.control.len() + inflater
    }

    /// Returns the payload of the last event if it is `Payload::Own`, with a NUL behind it.
    pub fn own(&mut self) -> &mut [u8] {
        match self.shown {
            Some(Buffer::Content) => &mut self.content,
            Some(Buffer::Control) => &mut self.control,
            None => &mut [],
        }
    }

    /// Frees the buffer behind `own`, as the next `step` does, too.
    #[inline]
    pub fn release(&mut self) {
        match self.shown.take() {
            Some(Buffer::Content) => self.content = Vec::new(),
            Some(Buffer::Control) => self.control = Vec::new(),
            None => {}
        }
    }

    /// Reads up to the next event. The division of the stream into inputs makes no difference.
    pub fn step(&mut self, input: &mut [u8]) -> Step {
        self.release();
        let mut at = 0;
        let before = self.content.len();
        let stepped = loop {
            let (header, seen) = match self.state {
                State::Closed => {
                    break Ok(Step::More { consumed: input.len() });
                }
                State::Payload { header, seen } => (header, seen),
                State::Header { bytes, len } => match self.header(&input[at..], bytes, len) {
                    Ok(Some((header, taken))) => {
                        at += taken;
                        (header, 0)
                    }
                    Ok(None) => {
                        break Ok(Step::More { consumed: input.len() });
                    }
                    Err(code) => break Err(code),
                },
            };
            let left = header.len - seen;
            let mut len =
                usize::try_from(left).map_or(input.len() - at, |left| left.min(input.len() - at));
            if !header.is_control() && self.message.is_some_and(|message| message.compressed) {
                len = len.min(INFLATED_AT_ONCE);
            }
            let piece = Piece {
                range: at..at + len,
                is_whole: seen == 0 && len as u64 == left,
                is_last: len as u64 == left,
            };
            at += len;
            frame::unmask(&mut input[piece.range.clone()], header.mask, (seen % 4) as usize);
            self.state = if piece.is_last {
                BETWEEN_FRAMES
            } else {
                State::Payload { header, seen: seen + len as u64 }
            };
            let is_last = piece.is_last;
            let step = if header.is_control() {
                self.control(&header, piece, input)
            } else {
                self.data(&header, piece, input)
            };
            match step {
                Ok(None) if self.content.len().saturating_sub(before) > INFLATED_PER_STEP => {
                    break Ok(Step::Pause { consumed: at });
                }
                Ok(None) if is_last || at < input.len() => {}
                Ok(None) => {
                    break Ok(Step::More { consumed: input.len() });
                }
                Ok(Some(step)) => break Ok(step),
                Err(code) => break Err(code),
            }
        };
        match stepped {
            Ok(step) => step,
            Err(code) => {
                self.close();
                Step::Fail { code }
            }
        }
    }

    /// Discards the incomplete message and all further input.
    pub fn close(&mut self) {
        self.state = State::Closed;
        self.message = None;
        self.content = Vec::new();
        self.inflater = None;
    }

    /// Reads a header, of which the first `len` bytes are in `bytes`. Returns the header and the
    /// number of bytes of the input that belong to it; `None` if it is not complete.
    fn header(
        &mut self,
        input: &[u8],
        mut bytes: [u8; frame::MAX_HEADER],
        len: u8,
    ) -> Result<Option<(Header, usize)>, u16> {
        let before = usize::from(len);
        let joined = if before == 0 {
            input
        } else {
            let more = input.len().min(bytes.len() - before);
            bytes[before..before + more].copy_from_slice(&input[..more]);
            &bytes[..before + more]
        };
        match frame::parse(joined, self.deflate.is_some(), self.message.is_some()) {
            Parsed::Bad(code) => Err(code),
            Parsed::Header(header) => {
                self.begin(&header)?;
                Ok(Some((header, header.header_len - before)))
            }
            Parsed::Partial => {
                let len = joined.len();
                if before == 0 {
                    bytes[..len].copy_from_slice(input);
                }
                self.state = State::Header { bytes, len: len as u8 };
                Ok(None)
            }
        }
    }

    /// Begins a frame, and a message where none has begun.
    fn begin(&mut self, header: &Header) -> Result<(), u16> {
        if header.is_control() {
            return Ok(());
        }
        let message = self.message.get_or_insert(Message {
            opcode: header.opcode(),
            compressed: header.rsv1(),
            text: Validator::default(),
        });
        let room = self.limit.saturating_sub(self.content.len()) as u64;
        if !message.compressed && header.len > room {
            return Err(TOO_BIG);
        }
        Ok(())
    }

    /// Takes a piece of the payload of a control frame.
    fn control(
        &mut self,
        header: &Header,
        piece: Piece,
        input: &[u8],
    ) -> Result<Option<Step>, u16> {
        let consumed = piece.range.end;
        let payload = if piece.is_whole {
            Payload::Input(piece.range)
        } else {
            let room = frame::MAX_CONTROL + 1 - self.control.len();
            self.control.try_reserve_exact(room).map_err(|_| TRY_AGAIN_LATER)?;
            self.control.extend_from_slice(&input[piece.range]);
            if !piece.is_last {
                return Ok(None);
            }
            Payload::Own
        };
        let bytes = match &payload {
            Payload::Input(range) => &input[range.clone()],
            Payload::Own => &self.control,
        };
        let step = match header.opcode() {
            frame::PING => Step::Ping { payload, consumed },
            frame::PONG => Step::Pong { payload, consumed },
            _ => {
                let code = close_code(bytes)?;
                self.close();
                Step::Close { code, payload, consumed }
            }
        };
        if !piece.is_whole {
            self.control.push(0);
            self.shown = Some(Buffer::Control);
        }
        Ok(Some(step))
    }

    /// Takes a piece of the payload of a data frame.
    fn data(&mut self, header: &Header, piece: Piece, input: &[u8]) -> Result<Option<Step>, u16> {
        let Some(mut message) = self.message else {
            debug_assert!(false, "`begin` begins a message with each data frame");
            return Err(frame::PROTOCOL_ERROR);
        };
        let ends_message = piece.is_last && header.fin();
        let is_shown = ends_message || piece.is_last && self.unit == Unit::Frame;
        let consumed = piece.range.end;
        let bytes = &input[piece.range.clone()];

        let payload = if message.compressed {
            self.inflate(&mut message, bytes, ends_message)?;
            Payload::Own
        } else {
            message.check(bytes, ends_message)?;
            if is_shown && piece.is_whole && self.content.is_empty() {
                Payload::Input(piece.range)
            } else {
                self.append(header, bytes)?;
                Payload::Own
            }
        };
        self.message = Some(message).filter(|_| !ends_message);
        if !is_shown {
            return Ok(None);
        }
        if payload == Payload::Own {
            self.content.push(0);
            self.shown = Some(Buffer::Content);
        }
        Ok(Some(Step::Message {
            wsbits: match self.unit {
                Unit::Message => FIN | message.opcode,
                Unit::Frame => header.first_byte & !RSV1,
            },
            opcode: message.opcode,
            payload,
            consumed,
        }))
    }

    /// Stores a piece of a message. The capacity grows with the bytes that have arrived; the length
    /// in the header only limits it.
    fn append(&mut self, header: &Header, bytes: &[u8]) -> Result<(), u16> {
        let len = self.content.len() + bytes.len();
        // There must be room for the NUL.
        if self.content.capacity() <= len {
            let end = match self.state {
                // The length of the whole message is known, and needs no more room.
                State::Payload { seen, .. } if header.fin() => {
                    len.saturating_add((header.len - seen) as usize)
                }
                State::Header { .. } if header.fin() => len,
                _ => self.limit,
            };
            let capacity = (2 * len).min(end).max(len) + 1;
            self.content
                .try_reserve_exact(capacity - self.content.len())
                .map_err(|_| TRY_AGAIN_LATER)?;
        }
        self.content.extend_from_slice(bytes);
        Ok(())
    }

    /// Inflates a piece of a message into the buffer.
    fn inflate(&mut self, message: &mut Message, bytes: &[u8], ends: bool) -> Result<(), u16> {
        let before = self.content.len();
        let inflater = self.inflater.get_or_insert_default();
        let mut inflated = inflater.inflate(bytes, &mut self.content, self.limit);
        if ends && inflated.is_ok() {
            inflated = inflater.finish(&mut self.content, self.limit);
        }
        // The bytes inflated before an error are validated, too: which error is reported must not
        // depend on how the message is divided. The number of bytes beyond the limit does depend on
        // it, so that they are not validated.
        let end = self.content.len().min(self.limit).max(before);
        message.check(&self.content[before..end], ends && inflated.is_ok())?;
        inflated.map_err(|bad| match bad {
            BadMessage::Malformed => INVALID_PAYLOAD,
            BadMessage::TooLong => TOO_BIG,
            BadMessage::NoMemory => TRY_AGAIN_LATER,
        })?;
        if ends && !self.deflate.is_some_and(|deflate| deflate.client_takeover) {
            self.inflater = None;
        }
        Ok(())
    }
}

impl Message {
    /// Validates a piece of text.
    fn check(&mut self, bytes: &[u8], is_last: bool) -> Result<(), u16> {
        let verdict = match (self.opcode, is_last) {
            (frame::TEXT, false) => self.text.push(bytes),
            (frame::TEXT, true) => self.text.finish(bytes),
            _ => Ok(()),
        };
        verdict.map_err(|_| INVALID_PAYLOAD)
    }
}

/// Returns the code in the payload of a Close frame; as an error, the code with which to fail the
/// connection (RFC 6455, sections 5.5.1 and 7.4, and the registry of IANA).
fn close_code(payload: &[u8]) -> Result<Option<u16>, u16> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(frame::PROTOCOL_ERROR) };
    };
    let code = u16::from_be_bytes(*code);
    // 1004 is reserved; 1005, 1006 and 1015 must not be sent in a frame.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(frame::PROTOCOL_ERROR);
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(INVALID_PAYLOAD);
    }
    Ok(Some(code))
}

#[cfg(test)]
mod tests;
