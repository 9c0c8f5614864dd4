//! Form variables: `application/x-www-form-urlencoded` text (WHATWG URL, section 5, and RFC 3986,
//! section 2.1), as in a query or a content.
//!
//! Owns the decoding into the buffer of a C program, so that each result is followed by a NUL.
//! Knows nothing of requests, and checks no character set.

use super::uri::hex_byte;

/// The result of the search for a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Var {
    /// The length of the decoded value.
    Found(usize),
    NotFound,
    /// The variable exists, but only a part of its value fits.
    TooSmall,
}

/// Decodes percent-encoded bytes, and with `form` also `+` to a space. A `%` without two
/// hexadecimal digits stays as it is.
///
/// Writes as much as fits and a NUL to `dst`. Returns the length without the NUL; `None` if a part
/// does not fit.
pub fn url_decode(src: &[u8], dst: &mut [u8], form: bool) -> Option<usize> {
    let (end, room) = dst.split_last_mut()?;
    *end = 0;
    let mut len = 0;
    let mut rest = src;
    while let [byte, behind @ ..] = rest {
        let place = room.get_mut(len)?;
        (*place, rest) = match (escaped(rest), *byte) {
            (Some(byte), _) => (byte, &rest[3..]),
            (None, b'+') if form => (b' ', behind),
            (None, byte) => (byte, behind),
        };
        len += 1;
    }
    dst[len] = 0;
    Some(len)
}

/// Decodes the percent-encoded byte at the start of `text`, if there is one.
fn escaped(text: &[u8]) -> Option<u8> {
    match text {
        [b'%', high, low, ..] => hex_byte(*high, *low),
        _ => None,
    }
}

/// Finds the first `name=value` in `data`, regardless of the case of the name, and decodes the
/// value as `url_decode` does. `dst` becomes an empty string if there is no such variable.
pub fn find_var(data: &[u8], name: &[u8], dst: &mut [u8]) -> Var {
    for field in data.split(|&b| b == b'&') {
        let Some(equals) = memchr::memchr(b'=', field) else {
            continue;
        };
        if field[..equals].eq_ignore_ascii_case(name) {
            let len = url_decode(&field[equals + 1..], dst, true);
            return len.map_or(Var::TooSmall, Var::Found);
        }
    }
    if let Some(first) = dst.first_mut() {
        *first = 0;
    }
    Var::NotFound
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the string that C would read from the buffer.
    fn c_text(buf: &[u8]) -> &[u8] {
        let nul = buf.iter().position(|&b| b == 0);
        &buf[..nul.expect("a terminated string")]
    }

    #[test]
    fn escapes_are_decoded_and_broken_ones_stay() {
        let table: &[(&[u8], bool, &[u8])] = &[
            (b"", true, b""),
            (b"foo", true, b"foo"),
            (b"a%20b%2Fc%2f", true, b"a b/c/"),
            (b"a+b", true, b"a b"),
            (b"a+b", false, b"a+b"),
            (b"%2b+", true, b"+ "),
            (b"%6", true, b"%6"),
            (b"%", true, b"%"),
            (b"%%41", true, b"%A"),
            (b"%4g%g4%zz", true, b"%4g%g4%zz"),
            (b"%+1%-1", true, b"% 1%-1"),
            (b"%e4\xff", true, b"\xe4\xff"),
            (b"%2541", true, b"%41"),
        ];
        for &(src, form, expected) in table {
            let mut dst = [b'x'; 32];
            let len = url_decode(src, &mut dst, form);
            assert_eq!(len, Some(expected.len()), "{}", src.escape_ascii());
            assert_eq!(c_text(&dst), expected, "{}", src.escape_ascii());
        }
    }

    #[test]
    fn a_decoded_nul_counts_in_the_length() {
        let mut dst = [b'x'; 8];
        assert_eq!(url_decode(b"a%00b", &mut dst, true), Some(3));
        assert_eq!(dst[..4], *b"a\0b\0");
    }

    #[test]
    fn what_does_not_fit_is_cut_and_still_terminated() {
        type Case = (&'static [u8], usize, Option<usize>, &'static [u8]);
        let table: &[Case] = &[
            (b"foo", 4, Some(3), b"foo\0"),
            (b"foo", 3, None, b"fo\0"),
            (b"foo", 1, None, b"\0"),
            (b"%41%42", 3, Some(2), b"AB\0"),
            (b"%41%42", 2, None, b"A\0"),
            (b"", 1, Some(0), b"\0"),
            (b"foo", 0, None, b""),
            (b"", 0, None, b""),
        ];
        for &(src, size, len, expected) in table {
            let mut dst = vec![b'x'; size];
            assert_eq!(url_decode(src, &mut dst, true), len, "{}", src.escape_ascii());
            assert_eq!(dst, expected, "{}", src.escape_ascii());
        }
    }

    #[test]
    fn a_variable_is_found_by_its_name() {
        type Case = (&'static [u8], &'static [u8], Var, &'static [u8]);
        let table: &[Case] = &[
            (b"a=1&&b=2&d&=&c=3%20&e=", b"a", Var::Found(1), b"1"),
            (b"a=1&&b=2&d&=&c=3%20&e=", b"b", Var::Found(1), b"2"),
            (b"a=1&&b=2&d&=&c=3%20&e=", b"c", Var::Found(2), b"3 "),
            (b"a=1&&b=2&d&=&c=3%20&e=", b"d", Var::NotFound, b""),
            (b"a=1&&b=2&d&=&c=3%20&e=", b"e", Var::Found(0), b""),
            (b"a=1&&b=2&d&=&c=3%20&e=", b"f", Var::NotFound, b""),
            (b"Name=x", b"nAME", Var::Found(1), b"x"),
            (b"aa=1&a=2", b"a", Var::Found(1), b"2"),
            (b"a=1&a=2", b"a", Var::Found(1), b"1"),
            (b"a=b=c", b"a", Var::Found(3), b"b=c"),
            (b"x=a=b&a=c", b"a", Var::Found(1), b"c"),
            (b"a=1+2%2B3", b"a", Var::Found(5), b"1 2+3"),
            (b"a=1234567", b"a", Var::Found(7), b"1234567"),
            (b"a=12345678", b"a", Var::TooSmall, b"1234567"),
            (b"a=12345678&a=1", b"a", Var::TooSmall, b"1234567"),
            (b"", b"a", Var::NotFound, b""),
            (b"a", b"a", Var::NotFound, b""),
        ];
        for &(data, name, found, value) in table {
            let mut dst = [b'x'; 8];
            let case = format!("{} in {}", name.escape_ascii(), data.escape_ascii());
            assert_eq!(find_var(data, name, &mut dst), found, "{case}");
            assert_eq!(c_text(&dst), value, "{case}");
        }
        assert_eq!(find_var(b"a=", b"a", &mut []), Var::TooSmall);
        assert_eq!(find_var(b"a=", b"b", &mut []), Var::NotFound);
    }
}
