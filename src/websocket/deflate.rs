//! Compression of messages (RFC 7692, permessage-deflate): the negotiation, and both directions.
//! Knows neither fragments nor masks.
//!
//! The server compresses its messages without context takeover, so that one compressor of 256 KiB
//! serves all connections. A client may keep its context unless it offers not to: its inflater of
//! 40 KiB then lives from the first compressed message to the end of the connection.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::frame;
use crate::http::request::decimal;
use crate::pages;

/// The end of every compressed message, which is not sent (RFC 7692, section 7.2.1).
const TAIL: &[u8] = b"\x00\x00\xff\xff";

/// The approximate memory of an inflater in bytes.
pub const INFLATER_BYTES: usize = 40 << 10;

/// The shortest payload in bytes that is compressed: shorter ones gain nothing.
const MIN_COMPRESSED: usize = 32;
/// The longest payload in bytes that the polling thread compresses at once.
pub const MAX_COMPRESSED: usize = 1 << 20;
/// The shortest payload in bytes that is compared with the one before.
const REMEMBERED: usize = 512;
/// The number of samples that are taken of a long payload, and their length in bytes.
const SAMPLES: usize = 4;
const SAMPLE: usize = 16 << 10;
/// The largest capacity in bytes of a scratch buffer that is kept after use.
const KEEP_CAPACITY: usize = 64 << 10;
/// How hard the compressor tries, of 9.
const LEVEL: u32 = 4;

/// The parameters that were negotiated with a client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deflate {
    /// Whether the client uses context takeover: a message may refer to earlier ones.
    pub client_takeover: bool,
    /// The base-2 logarithm of the window that the server may use, 9 to 15.
    pub server_window_bits: Option<u8>,
}

impl Deflate {
    /// Takes the first acceptable offer from the values of the `Sec-WebSocket-Extensions` fields.
    pub fn negotiate<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Deflate> {
        values.flat_map(|value| split(value, b',')).find_map(Deflate::accept)
    }

    /// Accepts or declines an offer. RFC 7692, section 7.1: an offer with a parameter that is
    /// unknown, invalid or given twice is declined.
    fn accept(offer: &[u8]) -> Option<Deflate> {
        let mut parts = split(offer, b';');
        if parts.next()? != b"permessage-deflate" {
            return None;
        }
        let mut server_no_takeover = None;
        let mut client_no_takeover = None;
        let mut server_bits = None;
        let mut client_bits = None;
        for part in parts {
            let (name, value) = parameter(part);
            let (seen, good) = match name {
                b"server_no_context_takeover" => (&mut server_no_takeover, value.is_none()),
                b"client_no_context_takeover" => (&mut client_no_takeover, value.is_none()),
                // The compressor cannot use a window of 8 bits.
                b"server_max_window_bits" => {
                    (&mut server_bits, value.and_then(window_bits) >= Some(9))
                }
                // The inflater has the largest window, so that every window of the client fits.
                b"client_max_window_bits" => {
                    (&mut client_bits, value.is_none_or(|value| window_bits(value).is_some()))
                }
                _ => return None,
            };
            if !good || seen.replace(value).is_some() {
                return None;
            }
        }
        Some(Deflate {
            client_takeover: client_no_takeover.is_none(),
            server_window_bits: server_bits.flatten().and_then(window_bits),
        })
    }

    /// Returns the base-2 logarithm of the window of the server.
    pub fn window_bits(&self) -> u8 {
        self.server_window_bits.unwrap_or(15)
    }

    /// Appends the value of the Sec-WebSocket-Extensions field of the response.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"permessage-deflate; server_no_context_takeover");
        if !self.client_takeover {
            out.extend_from_slice(b"; client_no_context_takeover");
        }
        if let Some(bits) = self.server_window_bits {
            out.extend_from_slice(b"; server_max_window_bits=");
            out.extend_from_slice(itoa::Buffer::new().format(bits).as_bytes());
        }
    }
}

/// Splits a value at each separator that is not inside a quoted string, and trims the parts.
fn split(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let mut escaped = false;
    value
        .split(move |byte| {
            let literal = std::mem::take(&mut escaped);
            match byte {
                b'"' if !literal => quoted = !quoted,
                b'\\' if quoted && !literal => escaped = true,
                _ => {}
            }
            *byte == separator && !quoted
        })
        .map(<[u8]>::trim_ascii)
}

/// Splits a parameter into name and value, and removes the quotes of the value.
fn parameter(part: &[u8]) -> (&[u8], Option<&[u8]>) {
    let Some(equals) = memchr::memchr(b'=', part) else {
        return (part, None);
    };
    let value = part[equals + 1..].trim_ascii();
    let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    (part[..equals].trim_ascii(), Some(inner.unwrap_or(value)))
}

/// Parses window bits: 8 to 15, without leading zeros (RFC 7692, section 7.1.2).
fn window_bits(value: &[u8]) -> Option<u8> {
    let bits = decimal(value).filter(|_| value.first() != Some(&b'0'))?;
    u8::try_from(bits).ok().filter(|bits| (8..=15).contains(bits))
}

/// The reason why a message cannot be inflated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BadMessage {
    /// The message is no compressed data.
    Malformed,
    /// The inflated message is longer than the limit.
    TooLong,
    NoMemory,
}

/// The inflater of the messages of one client.
#[derive(Debug)]
pub struct Inflater(Decompress);

impl Inflater {
    /// Creates an inflater without a context.
    pub fn new() -> Inflater {
        Inflater(Decompress::new(false))
    }

    /// Inflates a piece of a message, and appends the result to `out`. `out` may become one byte
    /// longer than `limit`, and the message is then too long. On success `out` has room for one
    /// more byte, with which the caller can terminate the message.
    pub fn inflate(
        &mut self,
        mut input: &[u8],
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), BadMessage> {
        loop {
            reserve(out, limit)?;
            let (before_in, before_out) = (self.0.total_in(), out.len());
            let status = self.0.decompress_vec(input, out, FlushDecompress::Sync);
            // A malformed message may be too long before its error is found.
            if out.len() > limit {
                return Err(BadMessage::TooLong);
            }
            let status = status.map_err(|_| BadMessage::Malformed)?;
            input = &input[(self.0.total_in() - before_in) as usize..];
            match status {
                // RFC 7692, section 7.2.3.4: a block with BFINAL may be followed by another one.
                Status::StreamEnd => {
                    self.0.reset(false);
                    if input.is_empty() {
                        return Ok(());
                    }
                }
                _ if out.len() < out.capacity() && input.is_empty() => return Ok(()),
                _ if out.len() == before_out && out.len() < out.capacity() => {
                    return Err(BadMessage::Malformed);
                }
                _ => {}
            }
        }
    }

    /// Inflates the end of a message.
    pub fn finish(&mut self, out: &mut Vec<u8>, limit: usize) -> Result<(), BadMessage> {
        self.inflate(TAIL, out, limit)
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Inflater::new()
    }
}

/// Makes room for further inflated bytes. The capacity doubles, so that copies stay cheap, up to
/// the limit.
fn reserve(out: &mut Vec<u8>, limit: usize) -> Result<(), BadMessage> {
    if out.len() + 1 < out.capacity() {
        return Ok(());
    }
    let capacity = (out.capacity() * 2).clamp(1024, limit.saturating_add(2).max(1024));
    let more = capacity.saturating_sub(out.len()).max(2);
    out.try_reserve_exact(more).map_err(|_| BadMessage::NoMemory)
}

/// The compressor of the messages of the server, for any number of connections.
#[derive(Default)]
pub struct Deflater {
    /// The compressor and its window bits, created when first needed.
    compress: Option<(u8, Compress)>,
    scratch: Vec<u8>,
    /// The last long frame of this turn.
    last: Option<Box<Last>>,
    /// The samples of a message that cannot be compressed, while it may be written again.
    noise: Vec<u8>,
}

/// A frame, and what it was made of.
#[derive(Debug, Default)]
struct Last {
    opcode: u8,
    bits: u8,
    payload: Vec<u8>,
    frame: Vec<u8>,
}

impl Deflater {
    /// Creates a compressor that owns no memory yet.
    pub fn new() -> Deflater {
        Deflater::default()
    }

    /// Appends a frame, compressed if that makes a message shorter. `out` must have room for the
    /// frame without compression. A very long message is not compressed here, since nobody else
    /// would be served meanwhile: see `long_message`.
    pub fn write_frame(
        &mut self,
        out: &mut Vec<u8>,
        opcode: u8,
        payload: &[u8],
        deflate: &Deflate,
    ) {
        let bits = deflate.window_bits();
        if payload.len() > MAX_COMPRESSED {
            frame::write_header(out, opcode, payload.len(), false);
            pages::append(out, payload);
        } else if payload.len() >= REMEMBERED {
            self.write_again(out, opcode, payload, bits);
        } else {
            self.write_frame_of_any_length(out, opcode, payload, bits);
        }
    }

    /// Appends a frame as [`Deflater::write_frame`] does, without a limit.
    pub fn write_frame_of_any_length(
        &mut self,
        out: &mut Vec<u8>,
        opcode: u8,
        payload: &[u8],
        bits: u8,
    ) {
        let is_message = matches!(opcode, frame::TEXT | frame::BINARY);
        if is_message && payload.len() >= MIN_COMPRESSED && self.compress(payload, bits) {
            frame::write_header(out, opcode, self.scratch.len(), true);
            out.extend_from_slice(&self.scratch);
        } else {
            frame::write_header(out, opcode, payload.len(), false);
            out.extend_from_slice(payload);
        }
        self.scratch.clear();
        if self.scratch.capacity() > KEEP_CAPACITY {
            self.scratch = Vec::new();
        }
    }

    /// Appends a frame. One that is the same as the last one is not compressed again: what is written to
    /// many connections is compressed once, since no context is taken over.
    fn write_again(&mut self, out: &mut Vec<u8>, opcode: u8, payload: &[u8], bits: u8) {
        let is_same =
            |last: &Last| (last.opcode, last.bits) == (opcode, bits) && last.payload == payload;
        if let Some(last) = self.last.as_ref().filter(|last| is_same(last)) {
            out.extend_from_slice(&last.frame);
            return;
        }
        let begin = out.len();
        self.write_frame_of_any_length(out, opcode, payload, bits);
        let frame = out.get(begin..).unwrap_or_default();
        let mut last = self.last.take().unwrap_or_default();
        last.payload.clear();
        last.frame.clear();
        if last.payload.try_reserve(payload.len()).is_ok()
            && last.frame.try_reserve(frame.len()).is_ok()
        {
            (last.opcode, last.bits) = (opcode, bits);
            last.payload.extend_from_slice(payload);
            last.frame.extend_from_slice(frame);
            self.last = Some(last);
        }
    }

    /// Returns whether a very long message has no part that can be compressed, as far as a few samples tell.
    pub fn is_noise(&mut self, payload: &[u8], deflate: &Deflate) -> bool {
        // It may be written to many connections.
        if !self.noise.is_empty() && samples(payload).eq(self.noise.chunks(SAMPLE)) {
            return true;
        }
        let is_noise = !self.is_promising(payload, deflate.window_bits());
        self.noise.clear();
        if is_noise && self.noise.try_reserve_exact(SAMPLES * SAMPLE).is_ok() {
            self.noise.extend(samples(payload).flatten());
        }
        is_noise
    }

    /// Returns whether a frame or a message is known that [`Deflater::forget_last`] forgets.
    #[inline]
    pub fn remembers(&self) -> bool {
        self.last.is_some() || !self.noise.is_empty()
    }

    /// Forgets the last long frame, so that its memory is free.
    #[cold]
    pub fn forget_last(&mut self) {
        (self.last, self.noise) = (None, Vec::new());
    }

    /// Returns whether a long message has a part that can be compressed, as far as a few samples tell:
    /// noise takes longer to compress than anything else.
    fn is_promising(&mut self, payload: &[u8], bits: u8) -> bool {
        if payload.len() < 2 * SAMPLES * SAMPLE {
            return true;
        }
        samples(payload).any(|part| {
            let promises = self.deflate(part, bits);
            self.scratch.clear();
            promises
        })
    }

    /// Compresses a message into the scratch buffer. Returns false if it does not become shorter.
    fn compress(&mut self, payload: &[u8], bits: u8) -> bool {
        self.is_promising(payload, bits) && self.deflate(payload, bits)
    }

    /// Compresses bytes as [`Deflater::compress`] does, without samples.
    fn deflate(&mut self, payload: &[u8], bits: u8) -> bool {
        // A block that cannot be compressed becomes longer.
        let bound = payload.len() + payload.len() / 8 + 64;
        if self.scratch.try_reserve_exact(bound).is_err() {
            return false;
        }
        let mut compress = match self.compress.take() {
            Some((same, mut compress)) if same == bits => {
                compress.reset();
                compress
            }
            _ => Compress::new_with_window_bits(Compression::new(LEVEL), false, bits),
        };
        let done = compress.compress_vec(payload, &mut self.scratch, FlushCompress::Sync);
        let whole = compress.total_in() == payload.len() as u64 && self.scratch.ends_with(TAIL);
        if done.is_err() || !whole {
            // The compressor may still hold output, which a reset does not remove (zlib-rs 0.6.8).
            return false;
        }
        self.compress = Some((bits, compress));
        self.scratch.truncate(self.scratch.len() - TAIL.len());
        self.scratch.len() < payload.len()
    }
}

/// Returns the samples of a long payload.
fn samples(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let distance = payload.len().saturating_sub(SAMPLE) / (SAMPLES - 1);
    (0..SAMPLES).filter_map(move |n| payload.get(distance * n..distance * n + SAMPLE))
}

/// A compressor for one message, which is given to it in portions.
pub struct Stream(Compress);

impl Stream {
    /// Creates a compressor for a client.
    pub fn new(deflate: &Deflate) -> Stream {
        let level = Compression::new(LEVEL);
        Stream(Compress::new_with_window_bits(level, false, deflate.window_bits()))
    }

    /// Compresses a portion, and appends what is complete to `out`; with `is_last` the end of the message, too.
    /// Returns false if there is no memory for it.
    pub fn compress(&mut self, mut portion: &[u8], is_last: bool, out: &mut Vec<u8>) -> bool {
        let flush = if is_last { FlushCompress::Sync } else { FlushCompress::None };
        loop {
            if out.try_reserve(portion.len() / 4 + KEEP_CAPACITY).is_err() {
                return false;
            }
            let before = self.0.total_in();
            if self.0.compress_vec(portion, out, flush).is_err() {
                return false;
            }
            let taken = (self.0.total_in() - before) as usize;
            portion = portion.get(taken..).unwrap_or_default();
            if portion.is_empty() && out.len() < out.capacity() {
                break;
            }
        }
        if is_last {
            debug_assert!(out.ends_with(TAIL));
            out.truncate(out.len() - TAIL.len());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn offers_and_what_is_answered() {
        let plain = "permessage-deflate; server_no_context_takeover";
        let table: &[(&[&str], Option<String>)] = &[
            (&["permessage-deflate"], Some(plain.into())),
            (&["x, permessage-deflate"], Some(plain.into())),
            (&["x", "permessage-deflate"], Some(plain.into())),
            (&["permessage-deflate; server_no_context_takeover"], Some(plain.into())),
            (
                &["permessage-deflate ;client_no_context_takeover"],
                Some(format!("{plain}; client_no_context_takeover")),
            ),
            (&["permessage-deflate; client_max_window_bits"], Some(plain.into())),
            (&["permessage-deflate; client_max_window_bits=8"], Some(plain.into())),
            (&["permessage-deflate; client_max_window_bits=\"15\""], Some(plain.into())),
            (
                &["permessage-deflate; server_max_window_bits = 10"],
                Some(format!("{plain}; server_max_window_bits=10")),
            ),
            // The first acceptable offer is taken.
            (
                &[
                    "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=9",
                ],
                Some(format!("{plain}; server_max_window_bits=9")),
            ),
            (
                &["permessage-deflate; x", "permessage-deflate; client_no_context_takeover"],
                Some(format!("{plain}; client_no_context_takeover")),
            ),
            // Offers that are declined.
            (&[""], None),
            (&["permessage-deflat"], None),
            (&["x-webkit-deflate-frame"], None),
            (&["permessage-deflate;"], None),
            (&["permessage-deflate; x=1"], None),
            (&["permessage-deflate; server_no_context_takeover=1"], None),
            (&["permessage-deflate; client_no_context_takeover="], None),
            (&["permessage-deflate; server_no_context_takeover; server_no_context_takeover"], None),
            (&["permessage-deflate; client_max_window_bits; client_max_window_bits=9"], None),
            (&["permessage-deflate; client_max_window_bits=7"], None),
            (&["permessage-deflate; client_max_window_bits=16"], None),
            (&["permessage-deflate; client_max_window_bits=09"], None),
            (&["permessage-deflate; client_max_window_bits=x"], None),
            (&["permessage-deflate; server_max_window_bits"], None),
            (&["permessage-deflate; server_max_window_bits=8"], None),
            (&["permessage-deflate; server_max_window_bits=16"], None),
            (&["permessage-deflate; server_max_window_bits=265"], None),
            (&["x; a=\"b, permessage-deflate\""], None),
            (&["x; a=\"\\\", permessage-deflate\""], None),
        ];
        for (values, expected) in table {
            let answer = Deflate::negotiate(values.iter().map(|v| v.as_bytes())).map(|deflate| {
                let mut out = Vec::new();
                deflate.write(&mut out);
                String::from_utf8(out).unwrap()
            });
            assert_eq!(&answer, expected, "{values:?}");
        }
    }

    fn inflated(
        inflater: &mut Inflater,
        input: &[u8],
        limit: usize,
    ) -> Result<Vec<u8>, BadMessage> {
        let mut out = Vec::new();
        inflater.inflate(input, &mut out, limit)?;
        inflater.finish(&mut out, limit)?;
        assert!(out.capacity() > out.len(), "no room for a NUL");
        Ok(out)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7692, section 7.2.3: one block, context takeover, a block without compression, a
        // block with BFINAL, two blocks.
        let mut inflater = Inflater::new();
        for message in [
            &b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..],
            b"\xf2\x00\x11\x00\x00",
            b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
            b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
            b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
        ] {
            assert_eq!(inflated(&mut inflater, message, 5), Ok(b"Hello".to_vec()));
        }
        assert_eq!(inflated(&mut inflater, b"\x00", 0), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_compressed_data_is_refused() {
        for message in [&b"\x07"[..], b"\xff\xff\xff\xff", b"\x02\xff\xff", b"\x00\x01\x02\x03\x04"]
        {
            assert_eq!(
                inflated(&mut Inflater::new(), message, 1000),
                Err(BadMessage::Malformed),
                "{}",
                message.escape_ascii()
            );
        }
    }

    fn frame_of(payload: &[u8], server_window_bits: Option<u8>) -> Vec<u8> {
        let agreed = Deflate { client_takeover: true, server_window_bits };
        let mut out = Vec::new();
        Deflater::new().write_frame_of_any_length(&mut out, 2, payload, agreed.window_bits());
        out
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = frame_of(&vec![0; 16 << 20], None);
        assert!(bomb.len() < 64 << 10);
        let mut out = Vec::new();
        let verdict = Inflater::new().inflate(&bomb[4..], &mut out, 100_000);
        assert_eq!(verdict, Err(BadMessage::TooLong));
        assert!(out.capacity() < 110_000, "{}", out.capacity());
    }

    #[test]
    fn only_messages_that_get_shorter_are_compressed() {
        let long = b"the same again and ".repeat(20);
        let table: &[(u8, &[u8], bool)] = &[
            (1, &long, true),
            (2, &long, true),
            (8, &long, false),
            (9, &long, false),
            (1, b"aaaaaaaaaaaaaaaa", false),
            (2, b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", false),
        ];
        let agreed = Deflate { client_takeover: true, server_window_bits: None };
        let mut deflater = Deflater::new();
        for &(opcode, payload, compressed) in table {
            let mut out = Vec::new();
            deflater.write_frame(&mut out, opcode, payload, &agreed);
            assert_eq!(out[0], 0x80 | if compressed { 0x40 } else { 0 } | opcode);
            if !compressed {
                assert!(out.ends_with(payload));
            }
        }
    }

    #[test]
    fn what_is_written_again_is_compressed_once() {
        let agreed = Deflate { client_takeover: true, server_window_bits: None };
        let payload = b"the same again and ".repeat(2000);
        let mut deflater = Deflater::new();
        let mut write = |payload: &[u8], opcode: u8, agreed: &Deflate| {
            let mut out = b"before".to_vec();
            let total = deflater.compress.as_ref().map_or(0, |(_, compress)| compress.total_in());
            deflater.write_frame(&mut out, opcode, payload, agreed);
            let after = deflater.compress.as_ref().map_or(0, |(_, compress)| compress.total_in());
            // The compressor counts from 0 for each message.
            deflater.compress.iter_mut().for_each(|(_, compress)| compress.reset());
            (out.split_off(6), after != total)
        };
        let (first, is_new) = write(&payload, 1, &agreed);
        assert!(is_new);
        assert_eq!(write(&payload, 1, &agreed), (first.clone(), false));
        let (binary, is_new) = write(&payload, 2, &agreed);
        assert!(is_new && binary[1..] == first[1..]);
        let narrow = Deflate { server_window_bits: Some(9), ..agreed };
        assert!(write(&payload, 2, &narrow).1);
        assert!(write(&payload[1..], 2, &narrow).1);
        assert_eq!(write(&payload, 1, &agreed).0, first);
    }

    #[test]
    fn messages_that_do_not_get_shorter_do_no_harm_to_those_behind_them() {
        let mut state = 1u32;
        let mut noise = |len: usize| -> Vec<u8> {
            std::iter::repeat_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .take(len)
            .collect()
        };
        let agreed = Deflate { client_takeover: true, server_window_bits: None };
        let mut deflater = Deflater::new();
        for len in [100, 10_000, 65_535, 65_536, 131_072, 1 << 20, 3 << 20] {
            let mut half = noise(len);
            half.resize(2 * len, b'-');
            for payload in [noise(len), half] {
                let mut out = Vec::new();
                deflater.write_frame(&mut out, 2, &payload, &agreed);
                let compressed = out[0] == 0xc2;
                let is_short = payload.len() <= MAX_COMPRESSED;
                assert_eq!(compressed, payload.ends_with(b"--") && is_short, "{len}");
                out.clear();
                deflater.write_frame_of_any_length(&mut out, 2, &payload, 15);
                let compressed = out[0] == 0xc2;
                assert_eq!(compressed, payload.ends_with(b"--"), "{len}");
                let header_len = match out[1] {
                    126 => 4,
                    127 => 10,
                    _ => 2,
                };
                if compressed {
                    let mut inflater = Inflater::new();
                    let sent = inflated(&mut inflater, &out[header_len..], payload.len());
                    assert!(sent == Ok(payload), "{len}");
                } else {
                    assert!(out[header_len..] == payload, "{len}");
                }
                assert!(deflater.compress.is_some(), "a new compressor for each message");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_compressed_can_be_inflated_in_pieces(
            words in prop::collection::vec("[a-e]{1,9}", 40..400),
            bits in prop::option::of(9u8..=15),
            cut in any::<prop::sample::Index>(),
        ) {
            let payload = words.concat().into_bytes();
            let out = frame_of(&payload, bits);
            prop_assert_eq!(out[0], 0xc2);
            let compressed = &out[if out[1] < 126 { 2 } else { 4 }..];
            let cut = cut.index(compressed.len() + 1);
            let mut inflater = Inflater(Decompress::new_with_window_bits(false, bits.unwrap_or(15)));
            let mut inflated = Vec::new();
            for piece in [&compressed[..cut], &compressed[cut..]] {
                prop_assert_eq!(inflater.inflate(piece, &mut inflated, payload.len()), Ok(()));
            }
            prop_assert_eq!(inflater.finish(&mut inflated, payload.len()), Ok(()));
            prop_assert_eq!(inflated, payload);
        }
    }
}
