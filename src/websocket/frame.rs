//! The framing of websockets (RFC 6455, section 5): the headers of frames from a client, the mask
//! of their payload, and the headers of frames from the server.
//!
//! Owns which header is valid in which order. Knows nothing of the payload.

/// The longest header of a frame in bytes: two, eight of length, and four of mask.
pub const MAX_HEADER: usize = 14;
/// The longest payload of a control frame in bytes.
pub const MAX_CONTROL: usize = 125;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The status code for a violation of the protocol (RFC 6455, section 7.4.1).
pub const PROTOCOL_ERROR: u16 = 1002;

pub(super) const FIN: u8 = 0x80;
pub(super) const RSV1: u8 = 0x40;
const OTHER_RSV: u8 = 0x30;
const CONTROL: u8 = 0x08;

/// The header of a frame from a client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header {
    /// FIN, the reserved bits and the opcode, as received.
    pub first_byte: u8,
    pub mask: [u8; 4],
    /// The length of the payload in bytes.
    pub len: u64,
    /// The length of the header in bytes.
    pub header_len: usize,
}

impl Header {
    /// Returns whether the frame is the last one of its message.
    pub fn fin(&self) -> bool {
        self.first_byte & FIN != 0
    }

    /// Returns whether the frame begins a compressed message (RFC 7692, section 6).
    pub fn rsv1(&self) -> bool {
        self.first_byte & RSV1 != 0
    }

    /// Returns the opcode.
    pub fn opcode(&self) -> u8 {
        self.first_byte & 0x0f
    }

    /// Returns whether the frame is a control frame (RFC 6455, section 5.5).
    pub fn is_control(&self) -> bool {
        self.first_byte & CONTROL != 0
    }
}

/// The result of parsing the start of the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Parsed {
    /// The start of a header that is valid so far.
    Partial,
    Header(Header),
    /// A header that no client may send, and the status code of the Close frame.
    Bad(u16),
}

/// Parses the header of a frame from a client. `rsv1_allowed`: compression was negotiated.
/// `in_fragment`: a message has begun and not ended, so that a data frame must continue it.
#[inline]
pub fn parse(input: &[u8], rsv1_allowed: bool, in_fragment: bool) -> Parsed {
    let Some(&first_byte) = input.first() else {
        return Parsed::Partial;
    };
    let known = match first_byte & 0x0f {
        CONTINUATION => in_fragment && first_byte & RSV1 == 0,
        TEXT | BINARY => !in_fragment && (rsv1_allowed || first_byte & RSV1 == 0),
        CLOSE | PING | PONG => first_byte & (FIN | RSV1) == FIN,
        _ => false,
    };
    if !known || first_byte & OTHER_RSV != 0 {
        return Parsed::Bad(PROTOCOL_ERROR);
    }
    let Some(&second_byte) = input.get(1) else {
        return Parsed::Partial;
    };
    let short_len = second_byte & 0x7f;
    let masked = second_byte & 0x80 != 0;
    if !masked || first_byte & CONTROL != 0 && usize::from(short_len) > MAX_CONTROL {
        return Parsed::Bad(PROTOCOL_ERROR);
    }
    // RFC 6455, section 5.2: the length has the shortest form, and its most significant bit is 0.
    let (len, allowed, mask_at) = match short_len {
        126 => match input.get(2..4).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => (u64::from(u16::from_be_bytes(bytes)), 126..1 << 16, 4),
            None => return Parsed::Partial,
        },
        127 => match input.get(2..10).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => (u64::from_be_bytes(bytes), 1 << 16..1 << 63, 10),
            None => return Parsed::Partial,
        },
        _ => (u64::from(short_len), 0..126, 2),
    };
    if !allowed.contains(&len) {
        return Parsed::Bad(PROTOCOL_ERROR);
    }
    match input.get(mask_at..mask_at + 4).and_then(|m| m.try_into().ok()) {
        Some(mask) => Parsed::Header(Header { first_byte, mask, len, header_len: mask_at + 4 }),
        None => Parsed::Partial,
    }
}

/// Removes or applies the mask. `offset` is the place of `data` within its payload.
pub fn unmask(data: &mut [u8], mut mask: [u8; 4], offset: usize) {
    mask.rotate_left(offset % 4);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    // The compiler turns loops without branches over arrays into vector instructions. With steps of
    // 128 bytes, the loop counter costs little beside them.
    let (blocks, rest) = data.as_chunks_mut::<128>();
    for block in blocks {
        for word in block.as_chunks_mut::<8>().0 {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
    }
    let (words, rest) = rest.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Returns the length in bytes of the header of a frame from the server.
pub fn header_len(len: usize) -> usize {
    match len {
        0..126 => 2,
        126..65536 => 4,
        _ => 10,
    }
}

/// Appends the header of a frame from the server, which is final and has no mask. `rsv1`: the
/// payload is compressed.
pub fn write_header(out: &mut Vec<u8>, opcode: u8, len: usize, rsv1: bool) {
    let first_byte = FIN | if rsv1 { RSV1 } else { 0 } | opcode & 0x0f;
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short @ 0..126), _) => out.extend_from_slice(&[first_byte, short]),
        (_, Ok(medium)) => {
            let [high, low] = medium.to_be_bytes();
            out.extend_from_slice(&[first_byte, 126, high, low]);
        }
        _ => {
            out.extend_from_slice(&[first_byte, 127]);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    #[test]
    fn headers_that_no_client_may_send_are_refused_at_their_first_bad_byte() {
        let table: &[(&[u8], bool, bool)] = &[
            // Reserved opcodes.
            (b"\x83", true, false),
            (b"\x87", true, false),
            (b"\x8b", true, false),
            (b"\x8f", true, false),
            // Reserved bits.
            (b"\xa1", true, false),
            (b"\x91", true, false),
            (b"\xc1", false, false),
            (b"\xc0", true, true),
            (b"\xc8", true, false),
            (b"\xc9", true, false),
            (b"\xca", true, false),
            // A continuation without a message, and a new message inside another.
            (b"\x80", true, false),
            (b"\x00", true, false),
            (b"\x81", true, true),
            (b"\x02", true, true),
            // Fragmented and long control frames.
            (b"\x08", true, false),
            (b"\x09", true, true),
            (b"\x0a", true, false),
            (b"\x88\xfe", true, false),
            (b"\x89\xff", true, false),
            // Frames without a mask.
            (b"\x81\x05", true, false),
            (b"\x81\x00", true, false),
            // Lengths that are not in the shortest form, and lengths from 2^63 up.
            (b"\x81\xfe\x00\x7d", true, false),
            (b"\x81\xff\0\0\0\0\0\0\xff\xff", true, false),
            (b"\x81\xff\x80\0\0\0\0\0\0\0", true, false),
            (b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff", true, false),
        ];
        for &(input, rsv1_allowed, in_fragment) in table {
            let verdict = |input: &[u8]| parse(input, rsv1_allowed, in_fragment);
            let shown = input.escape_ascii();
            assert_eq!(verdict(input), Parsed::Bad(1002), "{shown}");
            let before = &input[..input.len() - 1];
            assert_eq!(verdict(before), Parsed::Partial, "{shown}");
        }
    }

    #[test]
    fn headers_are_read_whatever_the_form_of_the_length() {
        let lens = [0u64, 1, 125, 126, 65535, 65536, u64::MAX >> 1];
        for (len, first_byte) in lens.into_iter().zip([0x82, 0x81, 0x89, 1, 2, 0xc1, 0x42]) {
            let mut input = vec![first_byte];
            match len {
                0..126 => input.push(0x80 | len as u8),
                126..65536 => {
                    input.push(0xfe);
                    input.extend_from_slice(&(len as u16).to_be_bytes());
                }
                _ => {
                    input.push(0xff);
                    input.extend_from_slice(&len.to_be_bytes());
                }
            }
            input.extend_from_slice(&MASK);
            let expected = Header { first_byte, mask: MASK, len, header_len: input.len() };
            for end in 0..input.len() {
                assert_eq!(parse(&input[..end], true, false), Parsed::Partial);
            }
            input.extend_from_slice(b"payload");
            assert_eq!(parse(&input, true, false), Parsed::Header(expected));
            assert_eq!(expected.fin(), first_byte >= 0x80);
            assert_eq!(expected.rsv1(), matches!(first_byte, 0xc1 | 0x42));
            assert_eq!(expected.opcode(), first_byte & 15);
            assert_eq!(expected.is_control(), first_byte == 0x89);
        }
    }

    #[test]
    fn our_own_headers_use_the_shortest_form() {
        let table: &[(u8, usize, bool, &[u8])] = &[
            (1, 0, false, b"\x81\0"),
            (2, 125, true, b"\xc2\x7d"),
            (9, 126, false, b"\x89\x7e\0\x7e"),
            (1, 65535, false, b"\x81\x7e\xff\xff"),
            (1, 65536, false, b"\x81\x7f\0\0\0\0\0\x01\0\0"),
            (0x1f, 1, false, b"\x8f\x01"),
        ];
        for &(opcode, len, rsv1, expected) in table {
            let mut out = Vec::new();
            write_header(&mut out, opcode, len, rsv1);
            assert_eq!(out, expected);
            assert_eq!(header_len(len), expected.len());
        }
    }

    proptest! {
        #[test]
        fn a_payload_can_be_unmasked_in_pieces(
            payload in prop::collection::vec(any::<u8>(), 0..200),
            mask in any::<[u8; 4]>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let plain: Vec<u8> =
                payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]).collect();
            let mut whole = payload.clone();
            unmask(&mut whole, mask, 0);
            prop_assert_eq!(&whole, &plain);

            let mut pieces = payload;
            let cut = cut.index(pieces.len() + 1);
            let (first, second) = pieces.split_at_mut(cut);
            unmask(first, mask, 0);
            unmask(second, mask, cut);
            prop_assert_eq!(&pieces, &plain);
        }
    }
}
