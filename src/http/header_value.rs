//! Values inside a header field, as in `x=123, y="other value"`: Cookie, Authorization and the
//! like.
//!
//! Owns the rules of `mg_parse_header`, which are those of the 5.0 library and of no RFC, since
//! programs rely on them: a name also counts inside the quoted value of another name. The library
//! itself must not base a security decision on this parser.

/// Writes the value of `name` and a NUL to `dst` and returns the length of the value.
///
/// Returns 0, and makes `dst` an empty string, if the value is empty, if there is no such name, if
/// a quote has no end, or if the value does not fit with its NUL.
pub fn parse(header: &[u8], name: &[u8], dst: &mut [u8]) -> usize {
    let value = value_of(header, name);
    let len = value.and_then(|value| copy(value, dst)).unwrap_or(0);
    if let Some(end) = dst.get_mut(len) {
        *end = 0;
    }
    len
}

/// A value as it stands in the field.
#[derive(Clone, Copy)]
enum Value<'a> {
    Plain(&'a [u8]),
    /// The quote, and the text between two of them, in which a backslash may escape the quote.
    Quoted(u8, &'a [u8]),
}

/// Finds the value of a name that stands at the start or behind a separator, and before a `=`.
fn value_of<'a>(header: &'a [u8], name: &[u8]) -> Option<Value<'a>> {
    let starts = memchr::memmem::find_iter(header, name);
    let counts = |at: &usize| at.checked_sub(1).is_none_or(|i| b" ,;".contains(&header[i]));
    let mut values =
        starts.filter(counts).filter_map(|at| header[at + name.len()..].strip_prefix(b"="));
    match values.next()? {
        [quote @ (b'"' | b'\''), text @ ..] => {
            let mut quotes = memchr::memchr_iter(*quote, text);
            let end = quotes.find(|&i| !text[..i].ends_with(b"\\"))?;
            Some(Value::Quoted(*quote, &text[..end]))
        }
        text => {
            let text = &text[..memchr::memchr(b' ', text).unwrap_or(text.len())];
            let cut = text.strip_suffix(b",").or(text.strip_suffix(b";"));
            Some(Value::Plain(cut.unwrap_or(text)))
        }
    }
}

/// Copies a value. Returns its length; `None` unless it fits and leaves room for a NUL.
fn copy(value: Value<'_>, dst: &mut [u8]) -> Option<usize> {
    let (_, room) = dst.split_last_mut()?;
    let (quote, mut rest) = match value {
        Value::Plain(text) => {
            room.get_mut(..text.len())?.copy_from_slice(text);
            return Some(text.len());
        }
        Value::Quoted(quote, text) => (quote, text),
    };
    let mut len = 0;
    while let [byte, behind @ ..] = rest {
        let before_quote = *byte == b'\\' && behind.first() == Some(&quote);
        if !before_quote {
            *room.get_mut(len)? = *byte;
            len += 1;
        }
        rest = behind;
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(header: &str, name: &str, size: usize) -> (usize, String) {
        let mut dst = vec![b'x'; size];
        let len = parse(header.as_bytes(), name.as_bytes(), &mut dst);
        let nul = dst.iter().position(|&b| b == 0).expect("a terminated string");
        (len, String::from_utf8_lossy(&dst[..nul]).into_owned())
    }

    #[test]
    fn a_value_is_found_by_its_name() {
        let facts = r#"xx=1 kl yy, ert=234 kl=123, ii="12\"34" zz='aa bb', gf="xx d=1234"#;
        let table = [
            (facts, "xx", "1"),
            (facts, "ert", "234"),
            (facts, "kl", "123"),
            (facts, "ii", "12\"34"),
            (facts, "zz", "aa bb"),
            (facts, "gf", ""),
            (facts, "yy", ""),
            (facts, "d", "1234"),
            (facts, "t", ""),
            (facts, "x", ""),
            ("a=1;b=2", "a", "1;b=2"),
            ("a=1;b=2", "b", "2"),
            ("a=1,b=2", "b", "2"),
            ("a=1, b=2; c=3", "a", "1"),
            ("a=1, b=2; c=3", "b", "2"),
            ("a=1, b=2; c=3", "c", "3"),
            ("a=1,;", "a", "1,"),
            ("a=1;,", "a", "1;"),
            ("a=\"1,\",", "a", "1,"),
            ("a= b", "a", ""),
            ("a=", "a", ""),
            ("a=\"\"", "a", ""),
            ("a", "a", ""),
            ("", "a", ""),
            ("A=1 a=2", "a", "2"),
            ("ba=1 a=2", "a", "2"),
            ("a b a=2", "a", "2"),
            ("a=1 a=2", "a", "1"),
            ("a=b\"c d", "a", "b\"c"),
            ("a='it\\'s' b", "a", "it's"),
            ("a='say \"x\"'", "a", "say \"x\""),
            ("a=\"\\'\\n\"", "a", "\\'\\n"),
            ("a=\"b\\\" c=1", "a", ""),
            ("a='b\" c=1", "a", ""),
            ("Digest nc=1, qop=auth", "qop", "auth"),
        ];
        for (header, name, expected) in table {
            let expected = (expected.len(), expected.to_owned());
            assert_eq!(parsed(header, name, 32), expected, "{name} in {header}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_no_value() {
        let table = [
            ("a=123", 4, "123"),
            ("a=123", 3, ""),
            ("a=123", 1, ""),
            ("a=123,", 4, "123"),
            ("a=\"123\"", 4, "123"),
            ("a=\"123\"", 3, ""),
            ("a=\"\\\"12\"", 4, "\"12"),
            ("a=\"\\\"12\"", 3, ""),
            ("a=", 1, ""),
        ];
        for (header, size, expected) in table {
            let expected = (expected.len(), expected.to_owned());
            assert_eq!(parsed(header, "a", size), expected, "{header} into {size}");
        }
        assert_eq!(parse(b"a=1", b"a", &mut []), 0);
    }
}
