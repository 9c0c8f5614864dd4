//! What a client sends, from bytes to messages (RFC 6455, sections 5.4 to 8; RFC 7692): fragments
//! are joined, masks taken off, text validated, close codes checked, limits kept.
//!
//! `Receiver::step` is given what was read, and told to go on behind what it `consumed` until it
//! wants `More`. It takes in everything: whoever reads keeps no leftovers, and may hand in pieces
//! of any size. A payload that lies whole in the input is unmasked in place and shown there, and
//! nothing is allocated or copied. Only what is cut by the end of the input, fragmented or
//! compressed goes through the receiver's own buffers, which are given back after use, so that
//! an idle websocket owns none.
//!
//! Knows nothing of what is answered: pongs, the answer to a Close, and the end of the connection
//! are the caller's.

use std::ops::Range;

use super::deflate::{BadMessage, Deflate, INFLATER_BYTES, Inflater};
use super::frame::{self, Header, Parsed};
use super::utf8::Validator;

/// Text that is not UTF-8, or compressed data that is none.
pub const INVALID_PAYLOAD: u16 = 1007;
pub const TOO_BIG: u16 = 1009;
/// There is no memory for the message.
pub const TRY_AGAIN_LATER: u16 = 1013;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;

/// What data is shown as.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// A message, when it is complete.
    Message,
    /// Each frame of a message by itself.
    Frame,
}

/// Where a payload is.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// In the input, unmasked.
    Input(Range<usize>),
    /// In the receiver, until the next call of `step` or `release`: see `own`.
    Own,
}

/// The first event in the input. The next one is behind the `consumed` bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// All of the input is taken in.
    More {
        consumed: usize,
    },
    /// A message, or a frame of one. `wsbits` is FIN and the opcode of the message, or the first
    /// byte of the frame, without the bit for compression; `opcode` is that of the message.
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
    /// A good Close. The payload is the code, if there is one, and the reason. What follows is
    /// discarded.
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
    /// The largest message, or frame where frames are shown.
    limit: usize,
    deflate: Option<Deflate>,
    state: State,
    message: Option<Message>,
    /// The message so far, or the frame. Has room for one byte more once it is complete.
    content: Vec<u8>,
    /// The payload of a control frame that is cut.
    control: Vec<u8>,
    inflater: Option<Box<Inflater>>,
    /// Which of the buffers was shown last, and is of no more use.
    shown: Option<Buffer>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Between frames, or inside the header of one: its bytes so far.
    Header { bytes: [u8; frame::MAX_HEADER], len: u8 },
    /// Inside a payload, of which this much was seen.
    Payload { header: Header, seen: u64 },
    /// Behind a Close or an error.
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

/// A piece of a payload: where it is in the input, and what of the payload that is.
struct Piece {
    range: Range<usize>,
    is_whole: bool,
    is_last: bool,
}

impl Receiver {
    /// `limit` bounds a message in bytes, `deflate` is what the handshake agreed on.
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

    /// A changed limit counts from the next frame on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether part of a frame or of a message has arrived.
    pub fn is_inside(&self) -> bool {
        self.message.is_some() || !matches!(self.state, State::Header { len: 0, .. })
    }

    /// Bytes that wait here for more.
    pub fn buffered(&self) -> usize {
        let inflater = self.inflater.as_ref().map_or(0, |_| INFLATER_BYTES);
        self.content.len() + self.control.len() + inflater
    }

    /// The payload of the last event, if it is `Payload::Own`, and a NUL behind it.
    pub fn own(&mut self) -> &mut [u8] {
        match self.shown {
            Some(Buffer::Content) => &mut self.content,
            Some(Buffer::Control) => &mut self.control,
            None => &mut [],
        }
    }

    /// Gives back the buffer behind `own`. The next `step` does so, too.
    pub fn release(&mut self) {
        match self.shown.take() {
            Some(Buffer::Content) => self.content = Vec::new(),
            Some(Buffer::Control) => self.control = Vec::new(),
            None => {}
        }
    }

    /// Reads on, up to the next event. It does not matter how the stream is cut into inputs.
    pub fn step(&mut self, input: &mut [u8]) -> Step {
        self.release();
        let mut at = 0;
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
            let len =
                usize::try_from(left).map_or(input.len() - at, |left| left.min(input.len() - at));
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
                Ok(None) if is_last => {}
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

    /// Nothing more is taken in, and what is incomplete is given up.
    pub fn close(&mut self) {
        self.state = State::Closed;
        self.message = None;
        self.content = Vec::new();
        self.inflater = None;
    }

    /// Takes in a header, whose first `len` bytes came before, and tells how many came now.
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

    /// Begins a frame.
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

    fn data(&mut self, header: &Header, piece: Piece, input: &[u8]) -> Result<Option<Step>, u16> {
        // `begin` has made it.
        let Some(mut message) = self.message else {
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

    /// Keeps a piece of a message. The buffer grows with what has arrived: what a header claims
    /// only keeps it from growing too far.
    fn append(&mut self, header: &Header, bytes: &[u8]) -> Result<(), u16> {
        let len = self.content.len() + bytes.len();
        // One more for the NUL.
        if self.content.capacity() <= len {
            let end = match self.state {
                // The length of the whole is known, and nobody needs room for more.
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
        // What came out before an error is text, too: the verdict must not depend on how the
        // message is cut.
        // What is beyond the limit depends on it, and does not count.
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

/// The code in the payload of a Close, or the code to fail with (RFC 6455, sections 5.5.1 and
/// 7.4, and the registry of IANA).
fn close_code(payload: &[u8]) -> Result<Option<u16>, u16> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(frame::PROTOCOL_ERROR) };
    };
    let code = u16::from_be_bytes(*code);
    // 1004 is reserved; 1005, 1006 and 1015 stand for what no frame says.
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
