//! Accept-Encoding (RFC 9110, section 12.5.3): which content coding of a representation the client
//! prefers.
//!
//! Owns the choice between the codings of stored files. Knows no file and encodes nothing.

use super::request::{Head, tokens};

/// The content coding of a representation (RFC 9110, section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
    Brotli,
}

/// The weight that the client gives each coding, from 0 (not acceptable) to 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub brotli: u16,
    pub gzip: u16,
    pub identity: u16,
}

impl Accepted {
    /// Reads the Accept-Encoding fields of a request, whose head `bytes` holds. Without such a
    /// field only `identity` is acceptable: old clients that do not send it decode nothing.
    pub fn read(head: &Head, bytes: &[u8]) -> Accepted {
        let fields = head
            .pairs(bytes)
            .filter(|(name, _)| name.len() == 15 && name.eq_ignore_ascii_case(b"accept-encoding"));
        Accepted::from_values(fields.map(|(_, value)| value))
    }

    fn from_values<'a>(values: impl Iterator<Item = &'a [u8]>) -> Accepted {
        let mut listed = Listed::default();
        for member in values.flat_map(tokens).filter(|member| !member.is_empty()) {
            listed.note(member);
        }
        let any = listed.any;
        Accepted {
            brotli: listed.brotli.or(any).unwrap_or(0),
            gzip: listed.gzip.or(any).unwrap_or(0),
            // `identity` is acceptable unless it is refused by name or by `*`. If the client does
            // not name it, every coding that it names is preferred.
            identity: listed.identity.unwrap_or(if any == Some(0) { 0 } else { 1 }),
        }
    }

    /// Chooses the coding to send; the arguments say which codings the file has beside `identity`.
    /// Of two codings with the same weight, the smaller representation is sent. If there is no
    /// other coding, `identity` is sent even to a client that refuses it, which can do more with it
    /// than with 406.
    pub fn choose(self, has_brotli: bool, has_gzip: bool) -> Coding {
        let mut best = (Coding::Identity, self.identity);
        let candidates =
            [(Coding::Gzip, self.gzip, has_gzip), (Coding::Brotli, self.brotli, has_brotli)];
        for (coding, quality, exists) in candidates {
            if exists && quality > 0 && quality >= best.1 {
                best = (coding, quality);
            }
        }
        best.0
    }
}

/// The weights of the codings that the fields name.
#[derive(Default)]
struct Listed {
    brotli: Option<u16>,
    gzip: Option<u16>,
    identity: Option<u16>,
    /// The weight of `*`.
    any: Option<u16>,
}

impl Listed {
    /// Notes one member of the list.
    fn note(&mut self, member: &[u8]) {
        let mut parts = member.split(|&b| b == b';').map(<[u8]>::trim_ascii);
        let coding = parts.next().unwrap_or_default();
        let is = |name: &[u8]| coding.eq_ignore_ascii_case(name);
        let place = if is(b"br") {
            &mut self.brotli
        } else if is(b"gzip") || is(b"x-gzip") {
            &mut self.gzip
        } else if is(b"identity") {
            &mut self.identity
        } else if is(b"*") {
            &mut self.any
        } else {
            return;
        };
        let weight = match parts.next() {
            None => 1000,
            // A coding with a malformed weight may be refused, so that it is not sent.
            Some(text) => quality(text).unwrap_or(0),
        };
        *place = Some(place.map_or(weight, |other| other.min(weight)));
    }
}

/// Parses a weight (RFC 9110, section 12.4.2) into thousandths.
fn quality(text: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', value @ ..] = text else {
        return None;
    };
    let (whole, decimals) = match value {
        [whole] => (whole, &b""[..]),
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let digit = |place: usize| match decimals.get(place) {
        None => Some(0),
        Some(byte) => byte.is_ascii_digit().then(|| u16::from(byte - b'0')),
    };
    let thousandths = digit(0)? * 100 + digit(1)? * 10 + digit(2)?;
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Coding::*;
    use super::*;
    use proptest::prelude::*;

    fn accepted(values: &[&str]) -> Accepted {
        Accepted::from_values(values.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn the_best_coding_that_exists_is_chosen() {
        // The choice with both compressed siblings, with gzip alone, and with Brotli alone.
        let table: [(&[&str], [Coding; 3]); 24] = [
            (&[], [Identity, Identity, Identity]),
            (&[""], [Identity, Identity, Identity]),
            (&["gzip"], [Gzip, Gzip, Identity]),
            (&["br"], [Brotli, Identity, Brotli]),
            (&["gzip, deflate, br"], [Brotli, Gzip, Brotli]),
            (&["br", "gzip"], [Brotli, Gzip, Brotli]),
            (&["GZIP;q=1.0, BR ; Q=0.5"], [Gzip, Gzip, Brotli]),
            (&["x-gzip"], [Gzip, Gzip, Identity]),
            (&["*"], [Brotli, Gzip, Brotli]),
            (&["*;q=0"], [Identity, Identity, Identity]),
            (&["*;q=0.1"], [Brotli, Gzip, Brotli]),
            (&["gzip;q=0, *"], [Brotli, Identity, Brotli]),
            (&["gzip, *;q=0"], [Gzip, Gzip, Identity]),
            (&["gzip;q=0"], [Identity, Identity, Identity]),
            (&["gzip;q=0.000, br;q=0."], [Identity, Identity, Identity]),
            (&["gzip;q=0.001"], [Gzip, Gzip, Identity]),
            (&["identity, gzip;q=0.5"], [Identity, Identity, Identity]),
            (&["identity, gzip"], [Gzip, Gzip, Identity]),
            (&["identity;q=0, gzip;q=0.1"], [Gzip, Gzip, Identity]),
            (&["identity;q=0"], [Identity, Identity, Identity]),
            (&["deflate, zstd"], [Identity, Identity, Identity]),
            (&["gzip;q=2, br;q=x"], [Identity, Identity, Identity]),
            (&["gzip;q=0.1234, br;level=1"], [Identity, Identity, Identity]),
            (&["gzip, gzip;q=0"], [Identity, Identity, Identity]),
        ];
        for (values, expected) in table {
            let accepted = accepted(values);
            let chosen = [(true, true), (false, true), (true, false)]
                .map(|(brotli, gzip)| accepted.choose(brotli, gzip));
            assert_eq!(chosen, expected, "{values:?}");
            assert_eq!(accepted.choose(false, false), Identity, "{values:?}");
        }
    }

    #[test]
    fn the_field_is_found_in_a_head() {
        let bytes = b"GET / HTTP/1.1\r\naccept-Encoding: gzip;q=0.25\r\nX: br\r\n\r\n";
        let mut head = Head::default();
        head.parse(bytes, 16384);
        let expected = Accepted { brotli: 0, gzip: 250, identity: 1 };
        assert_eq!(Accepted::read(&head, bytes), expected);
    }

    proptest! {
        #[test]
        fn any_value_is_read(value in "[a-z*;=., 0-9]{0,40}") {
            let accepted = accepted(&[&value]);
            prop_assert!(accepted.gzip <= 1000 && accepted.brotli <= 1000);
        }
    }
}
