//! Server-side includes: finds the tags of a page. Takes bytes and returns pieces of the input;
//! knows nothing of how a directive is carried out. No standard describes the tags: the syntax is
//! that of NCSA HTTPd, with the attribute `abspath`.
#![forbid(unsafe_code)]

/// The start of a tag.
const TAG_BEGIN: &[u8] = b"<!--#";
/// The length of the longest tag, in bytes. A longer one is text.
pub const MAX_TAG: usize = 4096;

/// The piece at the start of the input.
#[derive(Debug, PartialEq)]
pub enum Found<'a> {
    /// The number of bytes that are sent as they are.
    Text(usize),
    /// The length of a tag in bytes, and its directive, or a sentence for the error log.
    Tag(usize, Result<Directive<'a>, &'static str>),
    /// More input is needed, or there is no input left.
    More,
}

/// The directive in a tag.
#[derive(Debug, PartialEq)]
pub enum Directive<'a> {
    /// A path of a URI, absolute or relative to the page, possibly with a query.
    Virtual(&'a [u8]),
    /// A file below the directory that the file of the page is in.
    File(&'a [u8]),
    /// A file in the whole file system.
    Absolute(&'a [u8]),
    /// A command for the shell.
    Command(&'a [u8]),
}

/// Looks at the start of `input`. `ended` says that no input follows.
pub fn scan(input: &[u8], ended: bool) -> Found<'_> {
    match memchr::memmem::find(input, TAG_BEGIN) {
        Some(0) => {}
        Some(at) => return Found::Text(at),
        None => {
            let begun = (1..TAG_BEGIN.len()).rev().find(|len| input.ends_with(&TAG_BEGIN[..*len]));
            let text = input.len() - begun.filter(|_| !ended).unwrap_or(0);
            return if text > 0 { Found::Text(text) } else { Found::More };
        }
    }
    let window = &input[TAG_BEGIN.len()..input.len().min(MAX_TAG)];
    match end_of_tag(window) {
        Some(end) => Found::Tag(TAG_BEGIN.len() + end + 3, parse(&window[..end])),
        // A tag without an end is sent as text.
        None if ended || input.len() >= MAX_TAG => Found::Text(TAG_BEGIN.len()),
        None => Found::More,
    }
}

/// Returns the offset of `-->` outside of quotes.
fn end_of_tag(tag: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in tag.iter().enumerate() {
        match (quote, byte) {
            (Some(open), byte) if open == byte => quote = None,
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'-') if tag[at..].starts_with(b"-->") => return Some(at),
            _ => {}
        }
    }
    None
}

/// Parses a tag between its delimiters.
fn parse(tag: &[u8]) -> Result<Directive<'_>, &'static str> {
    let (command, rest) = word(tag);
    let (attribute, rest) = word(rest);
    let rest = rest.strip_prefix(b"=").unwrap_or_default().trim_ascii();
    let (Some(quote @ (b'"' | b'\'')), Some(last)) = (rest.first(), rest.last()) else {
        return Err("a tag without a value in quotes");
    };
    let value = rest.get(1..rest.len() - 1).unwrap_or_default();
    if last != quote || value.is_empty() || value.iter().any(|b| b == quote || *b == 0) {
        return Err("a tag without one value in quotes");
    }
    match (command, attribute) {
        (b"include", b"virtual") => Ok(Directive::Virtual(value)),
        (b"include", b"file") => Ok(Directive::File(value)),
        (b"include", b"abspath") => Ok(Directive::Absolute(value)),
        (b"exec", b"cmd") => Ok(Directive::Command(value)),
        _ => Err("a tag that is not known"),
    }
}

/// Returns the letters at the start, and the text behind them without its blanks.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.trim_ascii_start();
    let len = text.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    (&text[..len], text[len..].trim_ascii_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns all pieces of a page, with its tags in brackets.
    fn pieces(page: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        let mut rest = page;
        loop {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            match scan(rest, true) {
                Found::More => return found,
                Found::Text(len) => {
                    found.push(text(&rest[..len]));
                    rest = &rest[len..];
                }
                Found::Tag(len, directive) => {
                    found.push(match directive {
                        Ok(Directive::Virtual(value)) => format!("[virtual {}]", text(value)),
                        Ok(Directive::File(value)) => format!("[file {}]", text(value)),
                        Ok(Directive::Absolute(value)) => format!("[abspath {}]", text(value)),
                        Ok(Directive::Command(value)) => format!("[cmd {}]", text(value)),
                        Err(_) => "[bad]".to_owned(),
                    });
                    rest = &rest[len..];
                }
            }
        }
    }

    #[test]
    fn tags_are_told_from_text() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            ("text", &["text"]),
            ("a<!--#include virtual=\"/b\" -->c", &["a", "[virtual /b]", "c"]),
            ("<!--#include file='b'-->", &["[file b]"]),
            ("<!--# include  abspath = \"/x y\"  -->", &["[abspath /x y]"]),
            ("<!--#exec cmd=\"echo --> 'x'\" -->", &["[cmd echo --> 'x']"]),
            ("<!--#exec cgi=\"x\" -->", &["[bad]"]),
            ("<!--#echo var=\"x\" -->", &["[bad]"]),
            ("<!--#include virtual=x -->", &["[bad]"]),
            ("<!--#include virtual=\"\" -->", &["[bad]"]),
            ("<!--#include virtual=\"a\" virtual=\"b\" -->", &["[bad]"]),
            ("<!--#include virtual=\"a\0\" -->", &["[bad]"]),
            ("<!--#include -->", &["[bad]"]),
            ("<!--#-->", &["[bad]"]),
            ("<!-- comment -->", &["<!-- comment -->"]),
            ("a<!--", &["a<!--"]),
            ("a<!--#include virtual=\"b\"", &["a", "<!--#", "include virtual=\"b\""]),
            ("<!--#x <!--#include file=\"b\" -->", &["[bad]"]),
            ("<!--#include file=\"b -->", &["<!--#", "include file=\"b -->"]),
        ];
        for (page, wanted) in table {
            assert_eq!(pieces(page.as_bytes()), *wanted, "{page}");
        }
    }

    #[test]
    fn an_overlong_tag_is_text() {
        let tag = |len: usize| format!("<!--#include file=\"{}\"-->", "x".repeat(len - 23));
        assert_eq!(tag(MAX_TAG).len(), MAX_TAG);
        assert_eq!(pieces(tag(MAX_TAG).as_bytes()).len(), 1);
        assert_eq!(pieces(tag(MAX_TAG + 1).as_bytes())[0], "<!--#");
    }

    #[test]
    fn a_page_that_comes_in_pieces_is_the_same_page() {
        let page = b"a<!<!--#include file=\"b\" -->c<!--<!--#exec cmd='d'-->";
        for cut in 0..page.len() {
            let (mut whole, mut have) = (Vec::new(), page[..cut].to_vec());
            let mut ended = false;
            loop {
                match scan(&have, ended) {
                    Found::More if ended => break,
                    Found::More => {
                        have.extend_from_slice(&page[cut..]);
                        ended = true;
                    }
                    Found::Text(len) => whole.extend(have.drain(..len)),
                    Found::Tag(len, directive) => {
                        assert!(directive.is_ok(), "{cut}");
                        whole.extend(b"[tag]");
                        have.drain(..len);
                    }
                }
            }
            assert_eq!(String::from_utf8_lossy(&whole), "a<![tag]c<!--[tag]", "{cut}");
        }
    }
}
