//! A message that takes too long to be compressed at once (RFC 7692): it is compressed a portion at a time, once
//! for all connections that it is written to. It goes as one frame, whose length is known only at the end; or as
//! it is, if it does not get shorter.
//!
//! Refuses to know the connections, and when the next portion has its turn.

use std::cell::RefCell;
use std::rc::Rc;

use super::deflate::{Deflate, Deflater, MAX_COMPRESSED, Stream};
use super::frame;
use crate::pages;

/// The number of bytes that are compressed at once: one or two milliseconds.
const PORTION: usize = 128 << 10;
/// The length of the pieces that a message is kept in.
const PIECE: usize = 1 << 20;
/// The length from which a piece of the compressed message is complete.
const MADE: usize = 64 << 10;

/// A message that several connections wait for.
pub type Shared = Rc<RefCell<LongMessage>>;

/// Bytes that several connections send.
pub type Piece = Rc<Vec<u8>>;

/// The last long message, which may be written to many connections.
#[derive(Default)]
pub struct LongMessages {
    last: Option<Shared>,
}

impl LongMessages {
    /// Begins a message that is to be compressed in portions, or returns the last one if that is the same.
    /// `None` means that it is not that long, or goes as it is.
    pub fn begin(
        &mut self,
        deflater: &mut Deflater,
        opcode: u8,
        payload: &[u8],
        deflate: &Deflate,
    ) -> Option<Shared> {
        let is_message = matches!(opcode, frame::TEXT | frame::BINARY);
        if payload.len() <= MAX_COMPRESSED || !is_message {
            return None;
        }
        let window_bits = deflate.window_bits();
        if let Some(last) = &self.last
            && last.borrow().is_of(opcode, payload, window_bits)
        {
            return Some(last.clone());
        }
        if deflater.is_noise(payload, deflate) {
            return None;
        }
        let message = LongMessage::new(opcode, payload, window_bits, Stream::new(deflate))?;
        let message = Rc::new(RefCell::new(message));
        self.last = Some(message.clone());
        Some(message)
    }

    /// Returns whether a message is known that [`LongMessages::forget_last`] forgets.
    #[inline]
    pub fn remembers(&self) -> bool {
        self.last.is_some()
    }

    /// Forgets the last message, so that its memory is free once nobody waits for it.
    #[cold]
    pub fn forget_last(&mut self) {
        self.last = None;
    }
}

/// A long message, and as much of its compressed form as there is.
pub struct LongMessage {
    opcode: u8,
    window_bits: u8,
    len: usize,
    payload: Vec<Piece>,
    progress: Progress,
}

enum Progress {
    Compressing(Box<Compression>),
    Compressed {
        len: usize,
        pieces: Vec<Piece>,
    },
    /// The message goes as it is.
    Plain,
}

/// A compression that is on its way.
struct Compression {
    stream: Stream,
    /// The number of bytes of the message that are compressed.
    taken: usize,
    /// The length of `pieces`.
    len: usize,
    pieces: Vec<Piece>,
    /// The last piece, which is not complete.
    last: Vec<u8>,
}

impl LongMessage {
    /// Copies a message. Returns `None` if there is no memory for it.
    fn new(opcode: u8, payload: &[u8], window_bits: u8, stream: Stream) -> Option<LongMessage> {
        let mut pieces = Vec::new();
        pieces.try_reserve_exact(payload.len().div_ceil(PIECE)).ok()?;
        for piece in payload.chunks(PIECE) {
            let mut copy = Vec::new();
            copy.try_reserve_exact(piece.len()).ok()?;
            pages::append(&mut copy, piece).then_some(())?;
            pieces.push(Rc::new(copy));
        }
        let compression =
            Compression { stream, taken: 0, len: 0, pieces: Vec::new(), last: Vec::new() };
        Some(LongMessage {
            opcode,
            window_bits,
            len: payload.len(),
            payload: pieces,
            progress: Progress::Compressing(Box::new(compression)),
        })
    }

    /// Returns whether this is a message with that content.
    fn is_of(&self, opcode: u8, payload: &[u8], window_bits: u8) -> bool {
        (self.opcode, self.len, self.window_bits) == (opcode, payload.len(), window_bits)
            && payload.chunks(PIECE).zip(&self.payload).all(|(one, other)| one == &other[..])
    }

    /// Returns the length of the frame if the message goes as it is.
    pub fn plain_len(&self) -> usize {
        frame::header_len(self.len) + self.len
    }

    /// Compresses the next portion. Returns whether the frame is complete.
    pub fn go_on(&mut self) -> bool {
        let Progress::Compressing(compression) = &mut self.progress else { return true };
        let at = compression.taken;
        let piece = self.payload.get(at / PIECE).map_or(&[][..], |piece| piece);
        let rest = piece.get(at % PIECE..).unwrap_or_default();
        let portion = rest.get(..PORTION).unwrap_or(rest);
        let is_last = at + portion.len() >= self.len;
        if !compression.take(portion, is_last) || compression.len >= self.len {
            self.progress = Progress::Plain;
        } else if is_last {
            let Compression { len, pieces, .. } = &mut **compression;
            self.progress = Progress::Compressed { len: *len, pieces: std::mem::take(pieces) };
        }
        !matches!(self.progress, Progress::Compressing(_))
    }

    /// Gives the compression up: the message goes as it is.
    pub fn leave_plain(&mut self) {
        if matches!(self.progress, Progress::Compressing(_)) {
            self.progress = Progress::Plain;
        }
    }

    /// Returns the header and the payload of the complete frame.
    pub fn frame(&self) -> Option<(Vec<u8>, &[Piece])> {
        let (len, pieces, is_compressed) = match &self.progress {
            Progress::Compressing(_) => return None,
            Progress::Compressed { len, pieces } => (*len, pieces, true),
            Progress::Plain => (self.len, &self.payload, false),
        };
        let mut header = Vec::new();
        frame::write_header(&mut header, self.opcode, len, is_compressed);
        Some((header, pieces))
    }
}

impl Compression {
    /// Compresses a portion. Returns false if there is no memory for the result.
    fn take(&mut self, portion: &[u8], is_last: bool) -> bool {
        let before = self.last.len();
        if !self.stream.compress(portion, is_last, &mut self.last) {
            return false;
        }
        self.taken += portion.len();
        self.len = self.len + self.last.len() - before;
        if !is_last && self.last.len() < MADE {
            return true;
        }
        if self.pieces.try_reserve(1).is_err() {
            return false;
        }
        self.last.shrink_to_fit();
        self.pieces.push(Rc::new(std::mem::take(&mut self.last)));
        true
    }
}

#[cfg(all(test, feature = "deflate"))]
mod tests {
    use super::*;
    use crate::websocket::deflate::Inflater;

    const AGREED: Deflate = Deflate { client_takeover: true, server_window_bits: None };

    fn words(len: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b"the words of a text "[(state >> 24) as usize % 20]
        };
        (0..len).map(|_| next()).collect()
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..len).map(|_| next()).collect()
    }

    /// Returns the frame, and how many portions it took.
    fn made(message: &Shared) -> (Vec<u8>, usize) {
        let mut portions = 1;
        while !message.borrow_mut().go_on() {
            portions += 1;
        }
        let message = message.borrow();
        let (header, pieces) = message.frame().expect("complete");
        let payload: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        ([header, payload].concat(), portions)
    }

    #[test]
    fn a_long_message_is_compressed_in_portions_and_inflates_to_itself() {
        let (mut messages, mut deflater) = (LongMessages::default(), Deflater::new());
        for len in [(1 << 20) + 1, (1 << 20) + PORTION, (2 << 20) + 77] {
            for payload in [words(len), vec![0; len]] {
                let message =
                    messages.begin(&mut deflater, 1, &payload, &AGREED).expect("a long message");
                let (frame, portions) = made(&message);
                assert_eq!(portions, len.div_ceil(PORTION));
                assert_eq!(frame[0], 0xc1);
                let payload_at = match frame[1] {
                    126 => 4,
                    127 => 10,
                    _ => 2,
                };
                let mut out = Vec::new();
                let mut inflater = Inflater::new();
                inflater.inflate(&frame[payload_at..], &mut out, len).expect("compressed");
                inflater.finish(&mut out, len).expect("compressed");
                assert!(out == payload, "{len}");
                assert!(frame.len() < len / 2);
            }
        }
    }

    #[test]
    fn what_goes_as_it_is() {
        let (mut messages, mut deflater) = (LongMessages::default(), Deflater::new());
        let text = words(2 << 20);
        let short = &text[..1 << 20];
        for (opcode, payload) in [(1, short), (0, &text[..]), (9, &text), (2, &noise(2 << 20))] {
            assert!(messages.begin(&mut deflater, opcode, payload, &AGREED).is_none(), "{opcode}");
        }
        // The samples promise more than the whole keeps.
        let mut mixed = noise(2 << 20);
        mixed[..16 << 10].fill(b'-');
        let message = messages.begin(&mut deflater, 2, &mixed, &AGREED).expect("promising");
        let (frame, _) = made(&message);
        let is_compressed = frame[0] == 0xc2;
        assert!(
            frame.len() <= message.borrow().plain_len()
                && is_compressed == (frame.len() < mixed.len())
        );
        // One that is given up in the middle.
        let message = messages.begin(&mut deflater, 2, &text, &AGREED).expect("a long message");
        assert!(!message.borrow_mut().go_on() && message.borrow().frame().is_none());
        message.borrow_mut().leave_plain();
        let (frame, portions) = made(&message);
        assert!(portions == 1 && frame[..2] == [0x82, 127] && frame[10..] == text);
        assert_eq!(frame.len(), message.borrow().plain_len());
    }

    #[test]
    fn the_same_message_is_compressed_once_until_it_is_forgotten() {
        let (mut messages, mut deflater) = (LongMessages::default(), Deflater::new());
        let text = words(2 << 20);
        let narrow = Deflate { server_window_bits: Some(10), ..AGREED };
        let mut begin = |opcode, payload: &[u8], deflate: &Deflate| {
            messages.begin(&mut deflater, opcode, payload, deflate).expect("a long message")
        };
        let first = begin(1, &text, &AGREED);
        assert!(Rc::ptr_eq(&first, &begin(1, &text, &AGREED)));
        assert!(!Rc::ptr_eq(&first, &begin(2, &text, &AGREED)));
        assert!(!Rc::ptr_eq(&first, &begin(1, &text[1..], &AGREED)));
        let first = begin(1, &text, &narrow);
        assert!(!Rc::ptr_eq(&first, &begin(1, &text, &AGREED)));
        let first = begin(1, &text, &AGREED);
        messages.forget_last();
        assert!(!messages.remembers() && Rc::strong_count(&first) == 1);
    }
}
