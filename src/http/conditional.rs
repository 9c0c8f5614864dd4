//! Conditional requests (RFC 9110, section 13): whether the preconditions of a request hold, and
//! whether its Range field counts.
//!
//! Owns the comparison of entity tags and dates, and the order of the conditions. Knows nothing of
//! the files that the validators come from.

use std::time::UNIX_EPOCH;

use super::request::Head;

/// The validators of a representation (RFC 9110, section 8.8).
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// The entity tag as in the ETag field: in quotes, and behind `W/` if it is weak.
    pub etag: &'a str,
    /// The time of the last modification, in seconds since 1970.
    pub modified: u64,
}

/// The result of all conditions of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The method is performed as if there were no conditions.
    Proceed,
    /// The client has the current representation: the response is 304.
    NotModified,
    /// The resource is not in the state that the client expects: the response is 412.
    PreconditionFailed,
}

/// Evaluates the conditions of a request in the order of RFC 9110, section 13.2.2. `bytes` holds
/// the head; `current` is `None` if there is no representation yet, as for a PUT that creates one.
pub fn evaluate(head: &Head, bytes: &[u8], current: Option<Validators<'_>>) -> Outcome {
    let conditions = Conditions::read(head, bytes, current);
    let method = bytes.get(head.method.range()).unwrap_or_default();
    let reads = matches!(method, b"GET" | b"HEAD");
    let modified = current.map(|current| current.modified);

    let as_expected = match conditions.matched {
        Some(matched) => matched,
        None => conditions
            .unmodified_since
            .date()
            .is_none_or(|date| modified.is_some_and(|modified| modified <= date)),
    };
    if !as_expected {
        return Outcome::PreconditionFailed;
    }
    match conditions.none_matched {
        Some(true) => Outcome::Proceed,
        Some(false) if reads => Outcome::NotModified,
        Some(false) => Outcome::PreconditionFailed,
        None => {
            let date = conditions.modified_since.date().filter(|_| reads);
            match (date, modified) {
                (Some(date), Some(modified)) if modified <= date => Outcome::NotModified,
                _ => Outcome::Proceed,
            }
        }
    }
}

/// Returns whether If-Range (RFC 9110, section 13.1.5) lets the Range field of the request count,
/// which it does unless the client holds parts of another representation. A tag is compared
/// strongly; a date must be exactly the date of the representation.
pub fn ranges_count(head: &Head, bytes: &[u8], current: Validators<'_>) -> bool {
    let mut fields = head
        .pairs(bytes)
        .filter(|(name, _)| name.len() == 8 && name.eq_ignore_ascii_case(b"if-range"));
    let Some((_, value)) = fields.next() else {
        return true;
    };
    // The field may occur once only: two of them are ambiguous.
    if fields.next().is_some() {
        return false;
    }
    match whole_tag(value) {
        Some(tag) => is_strong(tag) && tag == current.etag.as_bytes(),
        None => http_date(value) == Some(current.modified),
    }
}

/// The conditional fields of a request, each of them evaluated without regard to the others.
#[derive(Default)]
struct Conditions {
    /// Whether If-Match holds, if there is such a field.
    matched: Option<bool>,
    /// Whether If-None-Match holds, if there is such a field.
    none_matched: Option<bool>,
    modified_since: Since,
    unmodified_since: Since,
}

impl Conditions {
    fn read(head: &Head, bytes: &[u8], current: Option<Validators<'_>>) -> Conditions {
        let mut conditions = Conditions::default();
        for (name, value) in head.pairs(bytes) {
            // The length of the name rules out nearly all fields before a byte is compared.
            match name.len() {
                8 if name.eq_ignore_ascii_case(b"if-match") => {
                    let matched = conditions.matched.get_or_insert(false);
                    *matched |= names(value, current, Comparison::Strong);
                }
                13 if name.eq_ignore_ascii_case(b"if-none-match") => {
                    let none_matched = conditions.none_matched.get_or_insert(true);
                    *none_matched &= !names(value, current, Comparison::Weak);
                }
                17 if name.eq_ignore_ascii_case(b"if-modified-since") => {
                    conditions.modified_since.note(value);
                }
                19 if name.eq_ignore_ascii_case(b"if-unmodified-since") => {
                    conditions.unmodified_since.note(value);
                }
                _ => {}
            }
        }
        conditions
    }
}

/// A condition with a date. It is ignored if the value is no date, or if the field occurs twice
/// (RFC 9110, sections 13.1.3 and 13.1.4).
#[derive(Default)]
enum Since {
    #[default]
    Absent,
    Date(u64),
    Ignored,
}

impl Since {
    fn note(&mut self, value: &[u8]) {
        *self = match (&self, http_date(value)) {
            (Since::Absent, Some(date)) => Since::Date(date),
            _ => Since::Ignored,
        };
    }

    fn date(&self) -> Option<u64> {
        match self {
            Since::Date(date) => Some(*date),
            Since::Absent | Since::Ignored => None,
        }
    }
}

/// The two comparisons of tags (RFC 9110, section 8.8.3.2).
#[derive(Clone, Copy, PartialEq)]
enum Comparison {
    /// Both tags are strong and equal.
    Strong,
    /// The tags are equal apart from `W/`.
    Weak,
}

/// Returns whether a list of tags, or `*` for any tag, names the current representation.
fn names(list: &[u8], current: Option<Validators<'_>>, comparison: Comparison) -> bool {
    let Some(current) = current else {
        return false;
    };
    if list.trim_ascii() == b"*" {
        return true;
    }
    let current = current.etag.as_bytes();
    let mut tags = Tags { rest: list };
    match comparison {
        Comparison::Strong => tags.any(|tag| is_strong(tag) && tag == current),
        Comparison::Weak => tags.any(|tag| opaque(tag) == opaque(current)),
    }
}

/// The tags of a list. A member that is no tag is skipped: old clients send tags without quotes,
/// which can match nothing.
struct Tags<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let start = self.rest.iter().position(|b| !b", \t".contains(b))?;
            self.rest = &self.rest[start..];
            let tag = leading_tag(self.rest);
            let behind = &self.rest[tag.map_or(0, <[u8]>::len)..];
            let comma = memchr::memchr(b',', behind).unwrap_or(behind.len());
            self.rest = &behind[comma..];
            if tag.is_some() && behind[..comma].trim_ascii().is_empty() {
                return tag;
            }
        }
    }
}

/// Returns the tag at the start of `text`, with its quotes. It may contain commas.
fn leading_tag(text: &[u8]) -> Option<&[u8]> {
    let quote = text.len() - opaque(text).len();
    let inside = text[quote..].strip_prefix(b"\"")?;
    let len = memchr::memchr(b'"', inside)?;
    // A tag has no blanks or control bytes, so that text behind a missing quote is no tag.
    let is_tag = inside[..len].iter().all(|&b| b > b' ' && b != 0x7f);
    is_tag.then(|| &text[..quote + len + 2])
}

/// Returns the tag if it is the whole field value.
fn whole_tag(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    leading_tag(value).filter(|tag| tag.len() == value.len())
}

fn is_strong(tag: &[u8]) -> bool {
    tag.starts_with(b"\"")
}

/// Returns the tag without the prefix of a weak tag, whose `W` is upper case only.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Parses a date in one of the three forms of RFC 9110, section 5.6.7, into seconds since 1970.
fn http_date(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use super::Outcome::*;
    use super::*;
    use crate::http::request;
    use proptest::prelude::*;

    /// The time 784111777 in the three forms of a date, and the seconds before and after.
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const RFC_850: &str = "Sunday, 06-Nov-94 08:49:37 GMT";
    const ASCTIME: &str = "Sun Nov  6 08:49:37 1994";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    const CURRENT: Validators<'_> = Validators { etag: "\"a,b\"", modified: 784_111_777 };

    fn with_head<T>(method: &str, fields: &[String], judge: impl Fn(&Head, &[u8]) -> T) -> T {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let bytes = format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
        let mut head = Head::default();
        assert_eq!(head.parse(&bytes, 16384), request::Outcome::Complete);
        judge(&head, &bytes)
    }

    fn outcome(method: &str, fields: &[&str], current: Option<Validators<'_>>) -> Outcome {
        let dated = |field: &&str| {
            let dates = [("DATE", DATE), ("BEFORE", BEFORE), ("AFTER", AFTER)];
            let write = |text: String, (name, date): (&str, &str)| text.replace(name, date);
            dates.into_iter().fold((*field).to_owned(), write)
        };
        let fields: Vec<String> = fields.iter().map(dated).collect();
        with_head(method, &fields, |head, bytes| evaluate(head, bytes, current))
    }

    #[test]
    fn each_condition_is_judged_as_the_rfc_says() {
        let get: &[(&str, Outcome)] = &[
            ("X: y", Proceed),
            ("If-None-Match: \"a,b\"", NotModified),
            ("IF-NONE-MATCH: W/\"a,b\"", NotModified),
            ("If-None-Match: \"x\", \"a,b\" , \"y\"", NotModified),
            ("If-None-Match: ,, \"x\",W/\"a,b\",", NotModified),
            ("If-None-Match: *", NotModified),
            ("If-None-Match: \"x\"", Proceed),
            ("If-None-Match: \"a\", \"b\"", Proceed),
            ("If-None-Match: \"A,B\"", Proceed),
            ("If-None-Match: a,b", Proceed),
            ("If-None-Match: w/\"a,b\"", Proceed),
            ("If-None-Match: \"a,b\"x", Proceed),
            ("If-None-Match: \"x, \"a,b\"", NotModified),
            ("If-None-Match: \"a,b", Proceed),
            ("If-None-Match: *, \"x\"", Proceed),
            ("If-None-Match:", Proceed),
            ("If-None-Match: bad, \"a,b\"", NotModified),
            ("If-Match: \"a,b\"", Proceed),
            ("If-Match: *", Proceed),
            ("If-Match: \"x\", \"a,b\"", Proceed),
            ("If-Match: W/\"a,b\"", PreconditionFailed),
            ("If-Match: \"x\"", PreconditionFailed),
            ("If-Match:", PreconditionFailed),
            ("If-Match: a,b", PreconditionFailed),
            ("If-Modified-Since: DATE", NotModified),
            ("If-Modified-Since: AFTER", NotModified),
            ("If-Modified-Since: BEFORE", Proceed),
            ("If-Modified-Since: yesterday", Proceed),
            ("If-Modified-Since: DATE, DATE", Proceed),
            ("If-Modified-Since: 784111777", Proceed),
            ("If-Modified-Since: Sun, 31 Feb 2094 08:49:37 GMT", Proceed),
            ("If-Unmodified-Since: DATE", Proceed),
            ("If-Unmodified-Since: AFTER", Proceed),
            ("If-Unmodified-Since: BEFORE", PreconditionFailed),
            ("If-Unmodified-Since: yesterday", Proceed),
        ];
        for (field, expected) in get {
            for method in ["GET", "HEAD"] {
                let found = outcome(method, &[field], Some(CURRENT));
                assert_eq!(found, *expected, "{method} {field}");
            }
            // With GET and HEAD a 304 says that the copy of the client is current. Other methods
            // get 412, and If-Modified-Since does not count for them.
            let expected = match expected {
                NotModified if field.starts_with("If-Modified") => Proceed,
                NotModified => PreconditionFailed,
                other => *other,
            };
            let found = outcome("PUT", &[field], Some(CURRENT));
            assert_eq!(found, expected, "PUT {field}");
        }
    }

    #[test]
    fn the_three_forms_of_a_date_mean_the_same() {
        for date in [DATE, RFC_850, ASCTIME] {
            let field = format!("If-Modified-Since: {date}");
            assert_eq!(outcome("GET", &[&field], Some(CURRENT)), NotModified);
            let older = Validators { modified: CURRENT.modified + 1, ..CURRENT };
            assert_eq!(outcome("GET", &[&field], Some(older)), Proceed, "{date}");
        }
    }

    #[test]
    fn conditions_are_judged_in_order() {
        let table: &[(&[&str], Outcome)] = &[
            // Two fields of the same name are one list.
            (&["If-None-Match: \"x\"", "If-None-Match: \"a,b\""], NotModified),
            (&["If-None-Match: \"a,b\"", "If-None-Match: \"x\""], NotModified),
            (&["If-Match: \"a,b\"", "If-Match: \"x\""], Proceed),
            (&["If-Match: \"y\"", "If-Match: \"x\""], PreconditionFailed),
            // A field with a date that occurs twice is ignored.
            (&["If-Modified-Since: DATE", "If-Modified-Since: DATE"], Proceed),
            // A field with a date is ignored beside the field with tags.
            (&["If-None-Match: \"x\"", "If-Modified-Since: DATE"], Proceed),
            (&["If-None-Match: \"a,b\"", "If-Modified-Since: BEFORE"], NotModified),
            (&["If-Match: \"a,b\"", "If-Unmodified-Since: BEFORE"], Proceed),
            (&["If-Match: \"x\"", "If-Unmodified-Since: DATE"], PreconditionFailed),
            // If-Match is evaluated before If-None-Match.
            (&["If-Match: \"a,b\"", "If-None-Match: \"a,b\""], NotModified),
            (&["If-None-Match: \"a,b\"", "If-Match: \"x\""], PreconditionFailed),
            (&["If-Modified-Since: DATE", "If-Unmodified-Since: DATE"], NotModified),
            (&["If-Modified-Since: DATE", "If-Unmodified-Since: BEFORE"], PreconditionFailed),
            (&["If-Match: *", "If-Modified-Since: DATE"], NotModified),
        ];
        for (fields, expected) in table {
            let found = outcome("GET", fields, Some(CURRENT));
            assert_eq!(found, *expected, "{fields:?}");
        }
    }

    #[test]
    fn where_nothing_is_stored_no_tag_matches() {
        let table = [
            ("X: y", Proceed),
            ("If-Match: *", PreconditionFailed),
            ("If-Match: \"a\"", PreconditionFailed),
            ("If-None-Match: *", Proceed),
            ("If-None-Match: \"a\"", Proceed),
            ("If-Unmodified-Since: DATE", PreconditionFailed),
            ("If-Modified-Since: DATE", Proceed),
        ];
        for (field, expected) in table {
            assert_eq!(outcome("PUT", &[field], None), expected, "{field}");
        }
    }

    #[test]
    fn ranges_count_unless_they_are_of_something_else() {
        let table: &[(&[&str], bool)] = &[
            (&[], true),
            (&["If-Range: \"a,b\""], true),
            (&["if-range: \"x\""], false),
            (&["If-Range: W/\"a,b\""], false),
            (&["If-Range: \"a,b\", \"x\""], false),
            (&["If-Range: *"], false),
            (&["If-Range:"], false),
            (&["If-Range: Sun, 06 Nov 1994 08:49:37 GMT"], true),
            (&["If-Range: Sunday, 06-Nov-94 08:49:37 GMT"], true),
            (&["If-Range: Sun, 06 Nov 1994 08:49:38 GMT"], false),
            (&["If-Range: Sun, 06 Nov 1994 08:49:36 GMT"], false),
            (&["If-Range: \"a,b\"", "If-Range: \"a,b\""], false),
        ];
        for (fields, expected) in table {
            let owned: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
            let count = with_head("GET", &owned, |head, bytes| ranges_count(head, bytes, CURRENT));
            assert_eq!(count, *expected, "{fields:?}");
        }
        let weak = Validators { etag: "W/\"a,b\"", ..CURRENT };
        for field in ["If-Range: W/\"a,b\"", "If-Range: \"a,b\""] {
            let count = with_head("GET", &[field.to_owned()], |head, bytes| {
                ranges_count(head, bytes, weak)
            });
            assert!(!count, "{field}");
        }
    }

    proptest! {
        #[test]
        fn a_list_of_tags_is_found_again_whatever_is_between_them(
            tags in prop::collection::vec("(W/)?\"[a-c,;=]{0,4}\"", 0..6),
            gap in "[ \t]{0,2},[ ,\t]{0,3}",
        ) {
            let list = tags.join(&gap);
            let found: Vec<&[u8]> = Tags { rest: list.as_bytes() }.collect();
            let expected: Vec<&[u8]> = tags.iter().map(String::as_bytes).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn any_bytes_are_a_list(list in prop::collection::vec(any::<u8>(), 0..40)) {
            let tags = Tags { rest: &list };
            prop_assert!(tags.count() <= list.len());
        }
    }
}
