//! The chunked transfer coding (RFC 9112, section 7.1): where in the bytes the content lies, and
//! where the message ends.
//!
//! Owns a state and a few counters, and no bytes: the caller may pass them in any pieces. Bytes
//! that the grammar does not allow are refused and never guessed at, since a peer that reads them
//! differently would see the next request begin elsewhere. Trailer fields are skipped.

use super::request::is_token_byte;

/// Malformed framing. The end of the message can no longer be known, and the decoder must not be
/// used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadChunk;

/// The first event in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Content at `input[start..end]`, never empty, behind framing. The next step takes
    /// `input[end..]`.
    Data { start: usize, end: usize },
    /// The whole input is framing, and more bytes must follow.
    More,
    /// The end of the message, trailer section included, after this number of bytes of the input.
    End(usize),
}

/// A decoder of one chunked message.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    state: State,
    /// The size of the chunk whose line is being read, then the number of bytes of its data that
    /// are still to come.
    remaining: u64,
    /// The sum of the sizes of all chunks whose lines have been read.
    announced: u64,
    /// The length so far of the chunk line, or of the whole trailer section.
    framing_len: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    /// Before the first digit of a chunk size.
    #[default]
    SizeStart,
    /// Behind a digit of a chunk size.
    Size,
    /// Inside white space behind the size: some senders pad the size to a fixed width.
    SizePadding,
    /// Inside the chunk extensions, which are skipped.
    Extensions,
    /// Behind the CR of a chunk line.
    SizeLf,
    /// Inside the data of a chunk.
    Data,
    /// Behind the data of a chunk.
    DataCr,
    /// Behind the CR that follows the data of a chunk.
    DataLf,
    /// At the start of a line of the trailer section: a field, or the empty line that ends the
    /// message.
    TrailerStart,
    /// Inside the name of a trailer field.
    TrailerName,
    /// Inside the value of a trailer field.
    TrailerValue,
    /// Behind the CR of a trailer field.
    TrailerLf,
    /// Behind the CR of the empty line.
    EndLf,
    /// The message is complete.
    End,
}

/// The longest chunk line in bytes: size, extensions and CRLF.
const MAX_CHUNK_LINE: usize = 4096;
/// The longest trailer section in bytes.
const MAX_TRAILER_SECTION: usize = 16 << 10;
/// The largest chunk size: other code counts bytes in signed 64-bit numbers.
const MAX_SIZE: u64 = i64::MAX as u64;

impl Decoder {
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Decodes up to the next content or the end. The division of the message into inputs makes no
    /// difference.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, BadChunk> {
        let mut at = 0;
        loop {
            match self.state {
                State::End => return Ok(Step::End(at)),
                _ if at == input.len() => return Ok(Step::More),
                State::Data => {
                    let available = input.len() - at;
                    let len =
                        usize::try_from(self.remaining).map_or(available, |n| n.min(available));
                    self.remaining -= len as u64;
                    if self.remaining == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Step::Data { start: at, end: at + len });
                }
                _ => {
                    self.state = self.framing_byte(input[at])?;
                    at += 1;
                }
            }
        }
    }

    /// Returns the sum of the sizes of the chunks that have begun. The content is at least as long,
    /// which is known before their data arrives.
    pub fn announced(&self) -> u64 {
        self.announced
    }

    /// Returns the state behind one byte of framing.
    fn framing_byte(&mut self, byte: u8) -> Result<State, BadChunk> {
        use State::*;
        self.count_framing()?;
        match (self.state, byte) {
            (SizeStart | Size, _) if byte.is_ascii_hexdigit() => self.size_digit(byte),
            (Size | SizePadding, b' ' | b'\t') => Ok(SizePadding),
            (Size | SizePadding, b';') => Ok(Extensions),
            (Extensions, _) if is_text(byte) => Ok(Extensions),
            (Size | SizePadding | Extensions, b'\r') => Ok(SizeLf),
            (SizeLf, b'\n') => {
                self.framing_len = 0;
                self.announced = self.announced.saturating_add(self.remaining);
                let last = self.remaining == 0;
                Ok(if last { TrailerStart } else { Data })
            }
            (DataCr, b'\r') => Ok(DataLf),
            (DataLf, b'\n') => {
                self.framing_len = 0;
                Ok(SizeStart)
            }
            (TrailerStart | TrailerName, _) if is_token_byte(&byte) => Ok(TrailerName),
            (TrailerName, b':') => Ok(TrailerValue),
            (TrailerValue, _) if is_text(byte) => Ok(TrailerValue),
            (TrailerValue, b'\r') => Ok(TrailerLf),
            (TrailerLf, b'\n') => Ok(TrailerStart),
            (TrailerStart, b'\r') => Ok(EndLf),
            (EndLf, b'\n') => Ok(End),
            _ => Err(BadChunk),
        }
    }

    /// Counts one byte of framing. Framing is not stored, so that only this count limits its
    /// length.
    fn count_framing(&mut self) -> Result<(), BadChunk> {
        use State::*;
        self.framing_len += 1;
        let trailers =
            matches!(self.state, TrailerStart | TrailerName | TrailerValue | TrailerLf | EndLf);
        let bound = if trailers { MAX_TRAILER_SECTION } else { MAX_CHUNK_LINE };
        if self.framing_len > bound {
            return Err(BadChunk);
        }
        Ok(())
    }

    /// Adds a digit to the chunk size.
    fn size_digit(&mut self, byte: u8) -> Result<State, BadChunk> {
        let digit = char::from(byte).to_digit(16).ok_or(BadChunk)?;
        if self.remaining > MAX_SIZE >> 4 {
            return Err(BadChunk);
        }
        self.remaining = self.remaining << 4 | u64::from(digit);
        Ok(State::Size)
    }
}

/// Returns whether an extension or a field value may contain `byte`: any byte but the control
/// bytes, of which the tab is allowed.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the content of a message, and the length of the message if its end was found.
    type Decoded = (Vec<u8>, Result<Option<usize>, BadChunk>);

    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
        let mut decoder = Decoder::new();
        let mut content = Vec::new();
        let mut consumed = 0;
        for mut piece in pieces {
            loop {
                match decoder.step(piece) {
                    Ok(Step::Data { start, end }) => {
                        assert!(start < end);
                        content.extend_from_slice(&piece[start..end]);
                        consumed += end;
                        piece = &piece[end..];
                    }
                    Ok(Step::More) => {
                        consumed += piece.len();
                        break;
                    }
                    Ok(Step::End(len)) => return (content, Ok(Some(consumed + len))),
                    Err(bad) => return (content, Err(bad)),
                }
            }
        }
        (content, Ok(None))
    }

    #[test]
    fn a_message_is_its_chunks_without_their_framing() {
        let table: &[(&[u8], &[u8])] = &[
            (b"0\r\n\r\n", b""),
            (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
            (b"3\r\nfoo\r\n3\r\nbar\r\n0\r\n\r\n", b"foobar"),
            (b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789"),
            (b"00003\r\nfoo\r\n000\r\n\r\n", b"foo"),
            (b"00000000000000000000003\r\nfoo\r\n0\r\n\r\n", b"foo"),
            (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
            (b"3  \r\nfoo\r\n0\t\r\n\r\n", b"foo"),
            (b"3;a\r\nfoo\r\n0;b=c;d=\"e;\xff\"\r\n\r\n", b"foo"),
            (b"3 ; a = b\r\nfoo\r\n0\r\n\r\n", b"foo"),
            (b"0\r\nA: b\r\nC:\r\n\r\n", b""),
        ];
        for &(message, content) in table {
            let expected = (content.to_vec(), Ok(Some(message.len())));
            assert_eq!(decode([message]), expected, "{}", message.escape_ascii());
            let followed = [message, b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(decode([&followed[..]]), expected, "{}", message.escape_ascii());
        }
    }

    #[test]
    fn broken_framing_is_refused() {
        for message in [
            &b"\r\n"[..],
            b"\r\n0\r\n\r\n",
            b" 0\r\n\r\n",
            b"x\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b"g\r\n",
            b";a\r\n",
            b"1 2\r\n",
            b"3\nfoo\r\n0\r\n\r\n",
            b"3\r\nfoo\n0\r\n\r\n",
            b"3\r\nfoo0\r\n\r\n",
            b"3\r\nfooo\r\n0\r\n\r\n",
            b"3\r\nfoo\rx",
            b"3\r\nfoo\r\n\r\n",
            b"3\rfoo",
            b"3;a\nfoo",
            b"3;a\0\r\n",
            b"3;a\rb\r\n",
            b"0\n",
            b"0\r\n\n",
            b"0\r\n\rx",
            b"0\r\nA: b\n\r\n",
            b"0\r\nA: b\rc\r\n\r\n",
            b"0\r\nA: \0\r\n\r\n",
            b"0\r\nA\r\n\r\n",
            b"0\r\n: b\r\n\r\n",
            b"0\r\nA : b\r\n\r\n",
            b"0\r\nA: b\r\n c\r\n\r\n",
            b"0\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(decode([message]).1, Err(BadChunk), "{}", message.escape_ascii());
        }
    }

    #[test]
    fn a_size_that_no_signed_counter_holds_is_refused() {
        let table = [
            ("7fffffffffffffff\r\nx", Ok(None)),
            ("0007fffffffffffffff\r\nx", Ok(None)),
            ("8000000000000000\r\n", Err(BadChunk)),
            ("ffffffffffffffff\r\n", Err(BadChunk)),
            ("10000000000000000\r\n", Err(BadChunk)),
        ];
        for (message, expected) in table {
            assert_eq!(decode([message.as_bytes()]).1, expected, "{message}");
        }
    }

    #[test]
    fn the_length_of_a_chunk_is_known_once_its_line_is_read() {
        let table: &[(&[u8], u64)] = &[
            (b"", 0),
            (b"5", 0),
            (b"5\r", 0),
            (b"5\r\n", 5),
            (b"5;a=b\r\nhe", 5),
            (b"5\r\nhello\r\n7", 5),
            (b"5\r\nhello\r\n7\r\n", 12),
            (b"5\r\nhello\r\n0\r\n\r\n", 5),
            (b"1\r\nx\r\n7fffffffffffffff\r\n", 1 << 63),
        ];
        for &(message, announced) in table {
            for piece_len in [1, 100] {
                let mut decoder = Decoder::new();
                for mut piece in message.chunks(piece_len) {
                    while let Ok(Step::Data { end, .. }) = decoder.step(piece) {
                        piece = &piece[end..];
                    }
                }
                assert_eq!(decoder.announced(), announced, "{}", message.escape_ascii());
            }
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = |len| format!("0;{}\r\n\r\n", "a".repeat(len)).into_bytes();
        let zeros = |len| format!("{}\r\n\r\n", "0".repeat(len)).into_bytes();
        let trailers = |len| format!("0\r\n{}\r\n", "A: bcd\r\n".repeat(len)).into_bytes();
        let table = [
            (extension(MAX_CHUNK_LINE - 4), true),
            (extension(MAX_CHUNK_LINE - 3), false),
            (zeros(MAX_CHUNK_LINE - 2), true),
            (zeros(MAX_CHUNK_LINE - 1), false),
            (trailers(MAX_TRAILER_SECTION / 8 - 1), true),
            (trailers(MAX_TRAILER_SECTION / 8), false),
        ];
        for (case, (message, fits)) in table.into_iter().enumerate() {
            assert_eq!(decode([&message[..]]).1.is_ok(), fits, "case {case}");
        }
        // The limit applies to each chunk line, not to the sum of them.
        let many = b"1;aaaaaaaa\r\nx\r\n".repeat(2 * MAX_CHUNK_LINE);
        assert_eq!(decode([&many[..]]).1, Ok(None));
    }

    #[test]
    fn an_ended_decoder_consumes_nothing_more() {
        let mut decoder = Decoder::new();
        assert_eq!(decoder.step(b""), Ok(Step::More));
        assert_eq!(decoder.step(b"0\r\n\r"), Ok(Step::More));
        assert_eq!(decoder.step(b"\nGET"), Ok(Step::End(1)));
        assert_eq!(decoder.step(b"GET"), Ok(Step::End(0)));
    }

    /// Cuts `message` at any places.
    fn pieces<'a>(message: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut cuts: Vec<usize> = cuts.iter().map(|i| i.index(message.len() + 1)).collect();
        cuts.sort_unstable();
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([message.len()]);
        starts.zip(ends).map(|(a, b)| &message[a..b]).collect()
    }

    fn bytes(message: &[u8]) -> impl Iterator<Item = &[u8]> {
        message.chunks(1)
    }

    proptest! {
        #[test]
        fn a_message_split_anywhere_gives_the_same_content(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut message = Vec::new();
            for chunk in &chunks {
                message.extend_from_slice(format!("{:x};e=1\r\n", chunk.len()).as_bytes());
                message.extend_from_slice(chunk);
                message.extend_from_slice(b"\r\n");
            }
            message.extend_from_slice(b"0\r\nDigest: x\r\n\r\n");
            let expected = (chunks.concat(), Ok(Some(message.len())));
            message.extend_from_slice(b"more");
            prop_assert_eq!(&decode([&message[..]]), &expected);
            prop_assert_eq!(&decode(bytes(&message)), &expected);
            prop_assert_eq!(&decode(pieces(&message, &cuts)), &expected);
        }

        #[test]
        fn any_input_split_anywhere_gives_the_same_verdict(
            message in "([0-3a];?[ -~\r\n]{0,3}(\r\n)?|[:\n\ra ]){0,12}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let message = message.as_bytes();
            let whole = decode([message]);
            prop_assert_eq!(&decode(bytes(message)), &whole);
            prop_assert_eq!(&decode(pieces(message, &cuts)), &whole);
        }
    }
}
