//! Chunked bodies, cut into arbitrary pieces: the content is that of the uncut body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mongoose::http::chunked::{Decoder, Step};

/// The content, where the body ended, and how long its chunks are; `None` for a body that is refused.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<(Vec<u8>, Option<usize>, u64)> {
    let mut decoder = Decoder::new();
    let (mut content, mut total) = (Vec::new(), 0);
    for mut piece in pieces {
        while !piece.is_empty() {
            match decoder.step(piece) {
                Ok(Step::Data { start, end }) => {
                    content.extend_from_slice(&piece[start..end]);
                    total += end;
                    piece = &piece[end..];
                }
                Ok(Step::More) => {
                    total += piece.len();
                    piece = &[];
                }
                Ok(Step::End(end)) => {
                    assert_eq!(decoder.announced(), content.len() as u64);
                    return Some((content, Some(total + end), decoder.announced()));
                }
                Err(_) => return None,
            }
        }
    }
    assert!(decoder.announced() >= content.len() as u64);
    Some((content, None, decoder.announced()))
}

fuzz_target!(|data: &[u8]| {
    let whole = decode([data].into_iter());
    assert_eq!(decode(data.chunks(1)), whole);
    assert_eq!(decode(data.chunks(7)), whole);
});
