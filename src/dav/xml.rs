//! The documents in WebDAV requests as trees of elements, and the way back to text (XML 1.0,
//! Namespaces in XML 1.0). Knows nothing of what the elements mean.
//!
//! Reading is bounded in depth, in the number of nodes, and by the length of the input. A document
//! type is refused, and with it every entity but the five of XML itself, so that nothing grows
//! while it is read.

use std::borrow::Cow;
use std::fmt::Write as _;

use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::{BytesStart, Event};

/// The namespace of WebDAV itself.
pub const DAV: &str = "DAV:";
const XML_SPACE: &str = "http://www.w3.org/XML/1998/namespace";
const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

/// The largest number of elements inside each other.
const MAX_DEPTH: usize = 32;
/// The largest number of elements, attributes and pieces of text together.
const MAX_NODES: usize = 20_000;
/// The largest numbers of attributes of one element, and of prefixes in scope. Both are searched
/// one by one.
const MAX_ATTRIBUTES: usize = 64;
const MAX_PREFIXES: usize = 256;
/// The longest namespace and the longest language, in bytes: both are repeated for each name that
/// they apply to.
const MAX_SPACE: usize = 512;
const MAX_LANGUAGE: usize = 64;

/// The text is not a document that is understood. The response is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A name in its namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The namespace; empty for none.
    pub space: String,
    pub local: String,
}

impl Name {
    pub fn dav(local: &str) -> Name {
        Name { space: DAV.to_owned(), local: local.to_owned() }
    }
}

/// An element with its attributes and children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub name: Name,
    /// The prefix as it was written; empty for none.
    prefix: String,
    attributes: Vec<Attribute>,
    /// The prefixes that this element declares, with their namespaces.
    declared: Vec<(String, String)>,
    pub children: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Attribute {
    prefix: String,
    name: Name,
    value: String,
}

/// A child of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Element(Element),
    Text(String),
}

impl Element {
    /// Returns whether this is the element `local` of the namespace `DAV:`.
    pub fn is_dav(&self, local: &str) -> bool {
        self.name.space == DAV && self.name.local == local
    }

    /// Returns the child elements.
    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// Returns the first child element `local` of the namespace `DAV:`.
    pub fn child(&self, local: &str) -> Option<&Element> {
        self.elements().find(|element| element.is_dav(local))
    }

    /// Returns the text of the element, without that of its child elements.
    pub fn text(&self) -> String {
        let texts = self.children.iter().filter_map(|node| match node {
            Node::Text(text) => Some(text.as_str()),
            Node::Element(_) => None,
        });
        texts.collect()
    }

    /// Returns the element as text that means the same in any document.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        write_element(&mut out, self, &mut vec![(String::new(), String::new())]);
        out
    }

    /// Sets `xml:lang`, unless the element has one already.
    fn set_language(&mut self, language: &str) {
        let name = Name { space: XML_SPACE.to_owned(), local: "lang".to_owned() };
        if !language.is_empty() && !self.attributes.iter().any(|a| a.name == name) {
            let prefix = "xml".to_owned();
            self.attributes.push(Attribute { prefix, name, value: language.to_owned() });
        }
    }

    fn language(&self) -> Option<&str> {
        let mut attributes = self.attributes.iter();
        let found = attributes.find(|a| a.name.space == XML_SPACE && a.name.local == "lang")?;
        Some(&found.value)
    }

    /// Copies `xml:lang` to the elements up to `depth` levels below this one: an element that is
    /// taken out of the document keeps its language (RFC 4918, section 4.3).
    pub fn hand_down_language(&mut self, depth: usize) {
        let Some(language) = self.language().map(str::to_owned) else {
            if depth > 0 {
                self.each_child(|child| child.hand_down_language(depth - 1));
            }
            return;
        };
        if depth > 0 {
            self.each_child(|child| {
                child.set_language(&language);
                child.hand_down_language(depth - 1);
            });
        }
    }

    fn each_child(&mut self, mut act: impl FnMut(&mut Element)) {
        for node in &mut self.children {
            if let Node::Element(element) = node {
                act(element);
            }
        }
    }
}

/// Reads a document. Returns its root element.
pub fn parse(text: &[u8]) -> Result<Element, Malformed> {
    let text = decode(text)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    check_characters(text)?;
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut tree = Tree::default();
    loop {
        match reader.read_event().map_err(|_| Malformed)? {
            Event::Start(start) => tree.open(&start)?,
            Event::End(_) => tree.close()?,
            Event::Text(text) => tree.text(&text.xml10_content())?,
            Event::CData(text) => tree.text(&text.xml10_content())?,
            Event::GeneralRef(reference) => {
                let name = reference.into_inner();
                tree.text(&unescape(&format!("&{name};")).map_err(|_| Malformed)?)?;
            }
            Event::Comment(_) | Event::PI(_) | Event::Decl(_) => {}
            Event::DocType(_) | Event::Empty(_) => return Err(Malformed),
            Event::Eof => break,
        }
    }
    if !tree.open.is_empty() {
        return Err(Malformed);
    }
    tree.root.ok_or(Malformed)
}

/// Decodes a document of UTF-8, or of UTF-16 with a byte order mark (RFC 4918, section 19; XML 1.0,
/// section 4.3.3).
fn decode(text: &[u8]) -> Result<Cow<'_, str>, Malformed> {
    let unit: fn([u8; 2]) -> u16 = match text {
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        _ => return std::str::from_utf8(text).map(Cow::Borrowed).map_err(|_| Malformed),
    };
    let (pairs, []) = text.as_chunks() else { return Err(Malformed) };
    let characters = char::decode_utf16(pairs.iter().map(|pair| unit(*pair)));
    let decoded: Result<String, _> = characters.collect();
    decoded.map(Cow::Owned).map_err(|_| Malformed)
}

/// The document as far as it has been read.
#[derive(Default)]
struct Tree {
    root: Option<Element>,
    open: Vec<Element>,
    /// The prefixes in scope, the innermost last, with their namespaces.
    scope: Vec<(String, String)>,
    nodes: usize,
}

impl Tree {
    /// Counts a node, against the largest number of them.
    fn count(&mut self) -> Result<(), Malformed> {
        self.nodes += 1;
        if self.nodes > MAX_NODES { Err(Malformed) } else { Ok(()) }
    }

    /// Reads a start tag.
    fn open(&mut self, start: &BytesStart<'_>) -> Result<(), Malformed> {
        self.count()?;
        if self.open.len() >= MAX_DEPTH || self.open.is_empty() && self.root.is_some() {
            return Err(Malformed);
        }
        let mut declared = Vec::new();
        let mut plain = Vec::new();
        for (index, attribute) in start.attributes().enumerate() {
            self.count()?;
            if index >= MAX_ATTRIBUTES {
                return Err(Malformed);
            }
            let attribute = attribute.map_err(|_| Malformed)?;
            let value = unescape(&attribute.value).map_err(|_| Malformed)?.into_owned();
            check_characters(&value)?;
            let (prefix, local) = split_name(attribute.key.0)?;
            match (prefix, local) {
                ("", "xmlns") => declared.push((String::new(), value)),
                // A prefix cannot be undeclared (Namespaces in XML 1.0, section 2.2).
                ("xmlns", _) if value.is_empty() => return Err(Malformed),
                ("xmlns", "xml") if value == XML_SPACE => {}
                ("xmlns", "xml" | "xmlns") => return Err(Malformed),
                ("xmlns", prefix) => declared.push((prefix.to_owned(), value)),
                _ => plain.push((prefix.to_owned(), local.to_owned(), value)),
            }
        }
        if declared.iter().any(|(_, space)| space == XML_SPACE || space == XMLNS) {
            return Err(Malformed);
        }
        let is_long = |(prefix, local, value): &(String, String, String)| {
            prefix == "xml" && local == "lang" && value.len() > MAX_LANGUAGE
        };
        if declared.iter().any(|(prefix, space)| prefix.len().max(space.len()) > MAX_SPACE)
            || plain.iter().any(is_long)
        {
            return Err(Malformed);
        }
        self.scope.extend(declared.iter().cloned());
        if self.scope.len() > MAX_PREFIXES {
            return Err(Malformed);
        }
        let (prefix, local) = split_name(start.name().0)?;
        let name = self.resolve(prefix, local)?;
        let mut attributes: Vec<Attribute> = Vec::with_capacity(plain.len());
        for (prefix, local, value) in plain {
            let name = match prefix.as_str() {
                "" => Name { space: String::new(), local },
                prefix => self.resolve(prefix, &local)?,
            };
            if attributes.iter().any(|other| other.name == name) {
                return Err(Malformed);
            }
            attributes.push(Attribute { prefix, name, value });
        }
        let prefix = prefix.to_owned();
        self.open.push(Element { name, prefix, attributes, declared, children: Vec::new() });
        Ok(())
    }

    /// Finds the namespace of a prefix.
    fn resolve(&self, prefix: &str, local: &str) -> Result<Name, Malformed> {
        let found = self.scope.iter().rev().find(|(known, _)| known == prefix);
        let space = match (found, prefix) {
            (Some((_, space)), _) => space,
            (None, "") => "",
            (None, "xml") => XML_SPACE,
            (None, _) => return Err(Malformed),
        };
        Ok(Name { space: space.to_owned(), local: local.to_owned() })
    }

    /// Reads an end tag.
    fn close(&mut self) -> Result<(), Malformed> {
        let element = self.open.pop().ok_or(Malformed)?;
        self.scope.truncate(self.scope.len().saturating_sub(element.declared.len()));
        match self.open.last_mut() {
            Some(parent) => parent.children.push(Node::Element(element)),
            None => self.root = Some(element),
        }
        Ok(())
    }

    /// Reads a piece of text, and joins it to the piece before it.
    fn text(&mut self, text: &str) -> Result<(), Malformed> {
        check_characters(text)?;
        let Some(parent) = self.open.last_mut() else {
            let blank = text.chars().all(|c| matches!(c, ' ' | '\t' | '\r' | '\n'));
            return if blank { Ok(()) } else { Err(Malformed) };
        };
        if let Some(Node::Text(before)) = parent.children.last_mut() {
            before.push_str(text);
            return Ok(());
        }
        if !text.is_empty() {
            parent.children.push(Node::Text(text.to_owned()));
        }
        self.count()
    }
}

/// Splits a qualified name into prefix and local part. Each must be a name.
fn split_name(name: &str) -> Result<(&str, &str), Malformed> {
    let (prefix, local) = match name.split_once(':') {
        Some((prefix, local)) if is_name(prefix) => (prefix, local),
        Some(_) => return Err(Malformed),
        None => ("", name),
    };
    if is_name(local) { Ok((prefix, local)) } else { Err(Malformed) }
}

/// Returns whether a text is a name without a colon, roughly as XML has it: it never holds a
/// character that could end a tag.
pub fn is_name(name: &str) -> bool {
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_' || c >= '\u{c0}';
    let goes_on = |c: char| starts(c) || c.is_ascii_digit() || "-.\u{b7}".contains(c);
    name.starts_with(starts) && name.chars().all(goes_on)
}

fn check_characters(text: &str) -> Result<(), Malformed> {
    if text.chars().all(is_character) { Ok(()) } else { Err(Malformed) }
}

/// Returns whether XML allows a character (XML 1.0, section 2.2).
fn is_character(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{fffd}' | '\u{10000}'..)
}

/// Appends text, escaped so that a reader gets the same text back.
pub fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Unescaped, a reader would normalize these to blanks or line ends.
            '\t' | '\n' | '\r' => {
                let _ = write!(out, "&#{};", u32::from(character));
            }
            _ if is_character(character) => out.push(character),
            _ => out.push(char::REPLACEMENT_CHARACTER),
        }
    }
}

/// Appends text as [`escape`] does, for a place between tags: tabs and line feeds stay as they are.
fn escape_content(out: &mut String, text: &str) {
    for (index, line) in text.split(['\t', '\n']).enumerate() {
        if index > 0 {
            let at = line.as_ptr().addr() - text.as_ptr().addr();
            out.push_str(&text[at - 1..at]);
        }
        escape(out, line);
    }
}

/// Appends an element. Declares the namespaces that are not yet in `scope`.
fn write_element(out: &mut String, element: &Element, scope: &mut Vec<(String, String)>) {
    let outer = scope.len();
    let mut declarations = String::new();
    let mut declare = |prefix: &str, space: &str, scope: &mut Vec<(String, String)>| {
        let known = scope.iter().rev().find(|(known, _)| known == prefix);
        if known.is_some_and(|(_, known)| known == space) || prefix == "xml" {
            return;
        }
        scope.push((prefix.to_owned(), space.to_owned()));
        let colon = if prefix.is_empty() { "" } else { ":" };
        let _ = write!(declarations, " xmlns{colon}{prefix}=\"");
        escape(&mut declarations, space);
        declarations.push('"');
    };
    for (prefix, space) in &element.declared {
        declare(prefix, space, scope);
    }
    declare(&element.prefix, &element.name.space, scope);
    for attribute in element.attributes.iter().filter(|a| !a.prefix.is_empty()) {
        declare(&attribute.prefix, &attribute.name.space, scope);
    }
    let colon = if element.prefix.is_empty() { "" } else { ":" };
    let tag = format!("{}{colon}{}", element.prefix, element.name.local);
    let _ = write!(out, "<{tag}{declarations}");
    for Attribute { prefix, name, value } in &element.attributes {
        let colon = if prefix.is_empty() { "" } else { ":" };
        let _ = write!(out, " {prefix}{colon}{}=\"", name.local);
        escape(out, value);
        out.push('"');
    }
    if element.children.is_empty() {
        out.push_str("/>");
    } else {
        out.push('>');
        for node in &element.children {
            match node {
                Node::Element(child) => write_element(out, child, scope),
                Node::Text(text) => escape_content(out, text),
            }
        }
        let _ = write!(out, "</{tag}>");
    }
    scope.truncate(outer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Element {
        parse(text.as_bytes()).unwrap_or_else(|_| panic!("refused: {text}"))
    }

    #[test]
    fn what_is_repeated_for_each_name_is_short() {
        for (len, fits) in [(MAX_SPACE, true), (MAX_SPACE + 1, false)] {
            let text = format!("<a xmlns:n='{}'><n:b/></a>", "u".repeat(len));
            assert_eq!(parse(text.as_bytes()).is_ok(), fits, "{len}");
        }
        for (len, fits) in [(MAX_LANGUAGE, true), (MAX_LANGUAGE + 1, false)] {
            let text = format!("<a xml:lang='{}'><b/></a>", "u".repeat(len));
            assert_eq!(parse(text.as_bytes()).is_ok(), fits, "{len}");
        }
    }

    #[test]
    fn names_are_found_in_their_namespaces() {
        let root = parsed("<a xmlns='u:1' xmlns:p='u:2'><p:b/><b/><c xmlns=''/></a>");
        let names: Vec<_> =
            root.elements().map(|e| (e.name.space.as_str(), e.name.local.as_str())).collect();
        assert_eq!(names, [("u:2", "b"), ("u:1", "b"), ("", "c")]);
        let root = parsed("\u{feff}<?xml version='1.0'?><!-- c --><D:x xmlns:D='DAV:'/>\n");
        assert!(root.is_dav("x") && !root.is_dav("y"));
    }

    #[test]
    fn a_document_may_be_in_either_byte_order_of_utf_16() {
        let text = "\u{feff}<?xml version='1.0' encoding='UTF-16'?><a>\u{fc}\u{1f600}</a>";
        let units: Vec<u16> = text.encode_utf16().collect();
        let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        for bytes in [&little, &big] {
            assert_eq!(parse(bytes).map(|root| root.text()), Ok("\u{fc}\u{1f600}".to_owned()));
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Err(Malformed), "{end}");
            }
            // Without its mark it is not known to be one.
            assert_eq!(parse(&bytes[2..]), Err(Malformed));
        }
        assert_eq!(parse(b"\xff\xfe<\0a\0/\0>\0\0\xd8"), Err(Malformed));
    }

    #[test]
    fn text_is_joined_from_its_pieces() {
        let root = parsed("<a>1 &lt; <![CDATA[2 &]]>&amp;&#65;&#x42;<b>no</b> end</a>");
        assert_eq!(root.text(), "1 < 2 &&AB end");
    }

    #[test]
    fn what_is_no_document_is_refused() {
        let deep = "<a>".repeat(33) + &"</a>".repeat(33);
        let wide = format!("<a>{}</a>", "<b/>".repeat(20_001));
        let attributes: String = (0..65).map(|n| format!(" a{n}=''")).collect();
        let attributes = format!("<a{attributes}/>");
        let declared = |level: u32| -> String {
            let one = |n| format!(" xmlns:p{level}x{n}='u'");
            format!("<a{}>", (0..60).map(one).collect::<String>())
        };
        let prefixes = (0..5).map(declared).collect::<String>() + &"</a>".repeat(5);
        let bomb = "<!DOCTYPE a [<!ENTITY b 'x'><!ENTITY c '&b;&b;'>]><a>&c;</a>";
        for text in [
            "",
            " ",
            "text",
            "<a>",
            "</a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>text",
            "<a b='1' b='2'/>",
            "<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>",
            "<p:a/>",
            "<a p:b=''/>",
            "<a xmlns:p=''/>",
            "<a xmlns:xml='u'/>",
            "<a xmlns:xmlns='u'/>",
            "<a xmlns='http://www.w3.org/2000/xmlns/'/>",
            "<a:b:c xmlns:a='u'/>",
            "<:a/>",
            "<1a/>",
            "<a>&unknown;</a>",
            "<a>&#0;</a>",
            "<a>&#1;</a>",
            "<a>\u{1}</a>",
            "<a b='&#2;'/>",
            "<!DOCTYPE a><a/>",
            bomb,
            &deep,
            &wide,
            &attributes,
            &prefixes,
        ] {
            assert_eq!(parse(text.as_bytes()), Err(Malformed), "{text:.80}");
        }
        assert_eq!(parse(b"<a>\xff</a>"), Err(Malformed));
        parsed(&("<a>".repeat(32) + &"</a>".repeat(32)));
    }

    #[test]
    fn an_element_taken_out_means_the_same_elsewhere() {
        let table = [
            ("<a xmlns='u:1' xmlns:p='u:2'><p:b/></a>", "<p:b xmlns:p=\"u:2\"/>"),
            ("<a xmlns='u:1'><b><c xmlns=''/></b></a>", "<b xmlns=\"u:1\"><c xmlns=\"\"/></b>"),
            ("<a><b/></a>", "<b/>"),
            ("<a><b>1&lt;&gt;&amp;\n\t&#13;</b></a>", "<b>1&lt;&gt;&amp;\n\t&#13;</b>"),
            (
                "<a xmlns:q='u:3'><b q:x='&quot;&#10;' y='2'/></a>",
                "<b xmlns:q=\"u:3\" q:x=\"&quot;&#10;\" y=\"2\"/>",
            ),
            ("<a><b xmlns:unused='u'>unused:x</b></a>", "<b xmlns:unused=\"u\">unused:x</b>"),
        ];
        for (text, expected) in table {
            let root = parsed(text);
            let found = root.elements().next().map(Element::to_text);
            assert_eq!(found.as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn the_language_comes_along() {
        let mut root = parsed("<a xml:lang='de'><b><c/><d xml:lang='en'/></b></a>");
        root.hand_down_language(2);
        let texts: Vec<_> =
            root.elements().flat_map(|b| b.elements()).map(Element::to_text).collect();
        assert_eq!(texts, ["<c xml:lang=\"de\"/>", "<d xml:lang=\"en\"/>"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn what_is_written_is_read_back(text in "[ -~\u{e9}\n\t\r]{0,30}", value in "\\PC{0,20}") {
            let mut source = String::from("<p:a xmlns:p=\"u&amp;\" p:b=\"");
            escape(&mut source, &value);
            source.push_str("\" c=\"1\">");
            escape(&mut source, &text);
            source.push_str("<d xmlns=\"DAV:\"/></p:a>");
            let first = parsed(&source);
            let second = parsed(&first.to_text());
            prop_assert_eq!(&first.text(), &text);
            prop_assert_eq!(first.to_text(), second.to_text());
        }
    }
}
