//! Text that arrives in pieces (RFC 6455, section 8.1): whether the pieces so far can be the start
//! of valid UTF-8 (RFC 3629).
//!
//! Owns the character that is cut between two pieces, and reports an error at its first byte. Knows
//! nothing of frames.

/// A validator of one text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validator {
    /// The first bytes of a character that is not complete.
    pending: [u8; 3],
    pending_len: u8,
}

/// A text that is not UTF-8, whatever follows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NotUtf8;

impl Validator {
    /// Validates the next piece.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), NotUtf8> {
        let piece = self.complete_pending(piece)?;
        match simdutf8::compat::from_utf8(piece) {
            Ok(_) => Ok(()),
            // The rest is the start of a character, and at most 3 bytes long.
            Err(error) if error.error_len().is_none() => {
                let rest = &piece[error.valid_up_to()..];
                self.pending[..rest.len()].copy_from_slice(rest);
                self.pending_len = rest.len() as u8;
                Ok(())
            }
            Err(_) => Err(NotUtf8),
        }
    }

    /// Validates the last piece.
    pub fn finish(&mut self, piece: &[u8]) -> Result<(), NotUtf8> {
        let piece = self.complete_pending(piece)?;
        if self.pending_len > 0 || simdutf8::basic::from_utf8(piece).is_err() {
            return Err(NotUtf8);
        }
        Ok(())
    }

    /// Completes the pending character, and returns the rest of the piece.
    fn complete_pending<'a>(&mut self, mut piece: &'a [u8]) -> Result<&'a [u8], NotUtf8> {
        while self.pending_len > 0 {
            let Some((&byte, rest)) = piece.split_first() else {
                break;
            };
            piece = rest;
            let len = usize::from(self.pending_len);
            let mut character = [0; 4];
            character[..len].copy_from_slice(&self.pending[..len]);
            character[len] = byte;
            match std::str::from_utf8(&character[..=len]) {
                Ok(_) => self.pending_len = 0,
                Err(error) if error.error_len().is_none() => {
                    self.pending[len] = byte;
                    self.pending_len += 1;
                }
                Err(_) => return Err(NotUtf8),
            }
        }
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the number of bytes, passed one by one, until the text is refused.
    fn bytes_until_refused(text: &[u8]) -> Option<usize> {
        let mut validator = Validator::default();
        let refused = text.iter().position(|b| validator.push(&[*b]).is_err()).map(|at| at + 1);
        refused.or_else(|| validator.finish(b"").is_err().then_some(text.len() + 1))
    }

    #[test]
    fn bad_text_is_refused_at_its_first_bad_byte() {
        let table: &[(&[u8], Option<usize>)] = &[
            (b"", None),
            ("κόσμε €😀\0".as_bytes(), None),
            (b"\xf4\x8f\xbf\xbf", None),
            (b"a\x80", Some(2)),
            (b"\xc0", Some(1)),
            (b"\xc3(", Some(2)),
            (b"\xe0\x9f", Some(2)),
            (b"\xed\xa0\x80", Some(2)),
            (b"\xf4\x90", Some(2)),
            (b"\xf5", Some(1)),
            (b"\xf0\x9f\x98a", Some(4)),
            // Texts that are refused at their end only.
            (b"\xc3", Some(2)),
            (b"\xe2\x82", Some(3)),
            (b"\xf0\x9f\x98", Some(4)),
        ];
        for &(text, expected) in table {
            assert_eq!(bytes_until_refused(text), expected, "{}", text.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn the_verdict_does_not_depend_on_the_pieces(
            text in "[a-b\u{e9}\u{20ac}\u{1f600}]{0,40}",
            damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let mut bytes = text.into_bytes();
            if let Some((at, byte)) = damage && !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|i| i.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut validator = Validator::default();
            let mut verdict = Ok(());
            let mut start = 0;
            for cut in cuts {
                verdict = verdict.and_then(|()| validator.push(&bytes[start..cut]));
                start = cut;
            }
            verdict = verdict.and_then(|()| validator.finish(&bytes[start..]));
            prop_assert_eq!(verdict.is_ok(), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
