//! Shell-like patterns, which options use for paths and URIs. They are those of mongoose 5.0, not
//! those of `fnmatch(3)`. Knows bytes only, and nothing of which option a pattern comes from.
//!
//! `**` is any text, `*` any text without `/`, `?` one byte, `$` the end, and `|` separates
//! alternatives. A pattern matches a prefix of the text, in any ASCII case.
#![forbid(unsafe_code)]

/// Returns the length of the prefix of `text` that the first matching alternative of `pattern`
/// covers; `None` if there is no match. Of several ways to match the longest counts, as if each `*`
/// took all it could.
///
/// The time is proportional to the length of the pattern times that of the text: a client may
/// choose the text and sometimes the pattern, and no choice may stall the server.
pub fn matched_len(pattern: &[u8], text: &[u8]) -> Option<usize> {
    let mut alternatives = pattern.split(|&b| b == b'|');
    alternatives.find_map(|alternative| match_alternative(alternative, text))
}

/// Compares the fixed bytes at both ends first: that settles nearly all patterns of real
/// configurations, such as `/api/**` and `**.cgi$`, without a search.
fn match_alternative(alternative: &[u8], text: &[u8]) -> Option<usize> {
    let (mut pattern, mut rest) = (alternative, text);
    while let [element, behind @ ..] = pattern
        && is_single(*element)
    {
        let (byte, bytes_behind) = rest.split_first()?;
        if !accepts(*element, *byte) {
            return None;
        }
        (pattern, rest) = (behind, bytes_behind);
    }
    let Some(mut pattern) = pattern.strip_suffix(b"$") else {
        return longest_match(pattern, rest).map(|len| text.len() - rest.len() + len);
    };
    while let [before @ .., element] = pattern
        && is_single(*element)
    {
        let (byte, bytes_before) = rest.split_last()?;
        if !accepts(*element, *byte) {
            return None;
        }
        (pattern, rest) = (before, bytes_before);
    }
    let whole = longest_match(pattern, rest) == Some(rest.len());
    whole.then_some(text.len())
}

/// Returns whether a pattern element matches exactly one byte.
fn is_single(element: u8) -> bool {
    !matches!(element, b'*' | b'$')
}

fn accepts(element: u8, byte: u8) -> bool {
    element == b'?' || element.eq_ignore_ascii_case(&byte)
}

/// Walks the pattern once, and keeps the set of offsets in the text that the elements so far can
/// reach.
fn longest_match(mut pattern: &[u8], text: &[u8]) -> Option<usize> {
    match pattern {
        b"" => return Some(0),
        b"**" => return Some(text.len()),
        _ => {}
    }
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    loop {
        pattern = match pattern {
            [] => return reached.iter().rposition(|&r| r),
            [b'*', b'*', behind @ ..] => {
                for at in 0..text.len() {
                    reached[at + 1] |= reached[at];
                }
                behind
            }
            [b'*', behind @ ..] => {
                for (at, &byte) in text.iter().enumerate() {
                    reached[at + 1] |= reached[at] && byte != b'/';
                }
                behind
            }
            [b'$', behind @ ..] => {
                reached[..text.len()].fill(false);
                behind
            }
            [single, behind @ ..] => {
                for (at, &byte) in text.iter().enumerate().rev() {
                    reached[at + 1] = reached[at] && accepts(*single, byte);
                }
                reached[0] = false;
                behind
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pattern_covers_this_much_of_a_text() {
        let table = [
            ("/api", "/api", Some(4)),
            ("/a/", "/ab/c", None),
            ("/*/", "/ab/c", Some(4)),
            ("**", "/a/b/c", Some(6)),
            ("*/*", "/a/b/c", Some(2)),
            ("**/", "/a/b/c", Some(5)),
            ("**.foo|**.bar", "a.bar", Some(5)),
            ("a|b|cd", "cdef", Some(2)),
            ("a|?|cd", "cdef", Some(1)),
            ("/a/**.cgi", "/a/bar/x.cgi", Some(12)),
            ("**/$", "/a/b/", Some(5)),
            ("$", "", Some(0)),
            ("*", "/hello/", Some(0)),
            ("**.a$|**.b$", "/a/B.A", Some(6)),
            ("**o$", "HELLO", Some(5)),
            // A prefix is enough, unless `$` asks for the end.
            ("/api", "/api/x", Some(4)),
            ("/api$", "/api/x", None),
            ("/api$", "/api", Some(4)),
            ("/api", "/ap", None),
            ("/API", "/api", Some(4)),
            ("", "", Some(0)),
            ("", "abc", Some(0)),
            ("a|", "b", Some(0)),
            ("$", "a", None),
            // The first alternative wins, not the longest.
            ("a|ab", "ab", Some(1)),
            ("x$|ab", "abc", Some(2)),
            // `*` stops at a slash, `**` and `?` do not.
            ("/*.html$", "/a/b.html", None),
            ("/**.html$", "/a/b.html", Some(9)),
            ("/a?b", "/a/b", Some(4)),
            ("?", "", None),
            ("*/b", "a/b", Some(3)),
            ("/*/*/$", "/a/b/", Some(5)),
            ("/*/*/$", "/a/b/c/", None),
            // The rest of the pattern decides how much a star takes.
            ("**.cgi", "/x.cgi/y.cgi/z", Some(12)),
            ("*?*x", "ab/x", Some(4)),
            ("**a*b", "xaab/ab/b", Some(7)),
            ("***", "a/b", Some(3)),
            ("**x**$", "axb", Some(3)),
            ("**x**$", "ab", None),
            // `$` is the end wherever it stands.
            ("a$b", "ab", None),
            ("a$$", "a", Some(1)),
            ("a$*", "a", Some(1)),
            ("a$**", "ab", None),
            // The ends that are compared first never overlap.
            ("ab*ba$", "aba", None),
            ("ab*ba$", "abba", Some(4)),
        ];
        for (pattern, text, len) in table {
            let found = matched_len(pattern.as_bytes(), text.as_bytes());
            assert_eq!(found, len, "{pattern} {text}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_match_as_they_are() {
        assert_eq!(matched_len(b"?\xff*", b"\xfe\xff\0\n"), Some(4));
        // Only ASCII letters have a case.
        assert_eq!(matched_len(b"\xe4", b"\xc4"), None);
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = [&b"**a*".repeat(100)[..], b"b$"].concat();
        let text = b"a".repeat(5000);
        assert_eq!(matched_len(&pattern, &text), None);
    }

    /// Applies the rule literally: each star takes all it can while the rest still matches.
    fn backtrack(pattern: &[u8], text: &[u8]) -> Option<usize> {
        let star = |stop: Option<u8>, behind: &[u8]| {
            let len = text.iter().position(|b| Some(*b) == stop);
            let mut taken = (0..=len.unwrap_or(text.len())).rev();
            taken.find_map(|n| Some(n + backtrack(behind, &text[n..])?))
        };
        match pattern {
            [] => Some(0),
            [b'*', b'*', behind @ ..] => star(None, behind),
            [b'*', behind @ ..] => star(Some(b'/'), behind),
            [b'$', behind @ ..] if text.is_empty() => backtrack(behind, text),
            [b'$', ..] => None,
            [b'?', behind @ ..] => Some(1 + backtrack(behind, text.get(1..)?)?),
            [byte, behind @ ..] if text.first() == Some(byte) => {
                Some(1 + backtrack(behind, &text[1..])?)
            }
            _ => None,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn the_search_agrees_with_backtracking(pattern in r"[ab/*?]{0,8}\$?[a*]?", text in "[ab/]{0,8}") {
            let expected = backtrack(pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matched_len(pattern.as_bytes(), text.as_bytes()), expected);
        }
    }
}
