//! Elements of DER (X.690), as far as keys and certificates are looked into.
//!
//! Knows nothing of what the elements mean.

// Tags of DER.
pub const INTEGER: u8 = 2;
#[cfg(feature = "tls")]
pub const OCTET_STRING: u8 = 4;
pub const OBJECT_IDENTIFIER: u8 = 6;
pub const SEQUENCE: u8 = 0x30;
pub const SET: u8 = 0x31;
/// The tag `[0]`, constructed.
pub const CONTEXT_0: u8 = 0xa0;

/// Splits `der` into the content of its first element, if that has this tag, and the rest.
pub fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any_element(der)?;
    (found == tag).then_some((content, rest))
}

/// Splits `der` into the tag and the content of its first element, and the rest.
pub fn any_element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut len = usize::from(*first);
    if *first >= 0x80 {
        let digits;
        (digits, rest) = rest.split_at_checked(usize::from(*first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        len = digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit));
    }
    let (content, rest) = rest.split_at_checked(len)?;
    Some((*found, content, rest))
}
