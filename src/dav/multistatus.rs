//! The content of responses as XML text: multi-status documents (RFC 4918, section 13) and
//! conditions that failed (section 16). Knows nothing of what it reports.

use std::collections::TryReserveError;
use std::fmt::Write as _;

use super::xml::{Name, escape};
use crate::http::status::reason;

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n";

/// A multi-status document that is being written.
#[derive(Debug)]
pub struct Multistatus {
    text: String,
}

impl Default for Multistatus {
    fn default() -> Multistatus {
        Multistatus::new()
    }
}

impl Multistatus {
    pub fn new() -> Multistatus {
        Multistatus { text: format!("{DECLARATION}<D:multistatus xmlns:D=\"DAV:\">") }
    }

    /// Reserves memory for `len` more bytes.
    pub fn reserve(&mut self, len: usize) -> Result<(), TryReserveError> {
        self.text.try_reserve(len)
    }

    /// Returns the number of bytes that were written and not taken.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes the text written since the last call, to be sent ahead of the rest.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// Adds a resource with a status for the whole of it.
    pub fn status(&mut self, href: &str, status: u16) {
        let _ = write!(self.text, "\n<D:response><D:href>{href}</D:href>");
        self.status_line(status);
        self.text.push_str("</D:response>");
    }

    /// Adds a resource with its properties, grouped by status: for each status the elements, and
    /// the condition that failed, if there is one.
    pub fn properties(&mut self, href: &str, stats: &[(u16, String, Option<&str>)]) {
        let _ = write!(self.text, "\n<D:response><D:href>{href}</D:href>");
        for (status, elements, condition) in stats {
            let _ = write!(self.text, "<D:propstat><D:prop>{elements}</D:prop>");
            self.status_line(*status);
            if let Some(condition) = condition {
                let _ = write!(self.text, "<D:error><D:{condition}/></D:error>");
            }
            self.text.push_str("</D:propstat>");
        }
        self.text.push_str("</D:response>");
    }

    fn status_line(&mut self, status: u16) {
        let _ = write!(self.text, "<D:status>HTTP/1.1 {status} {}</D:status>", reason(status));
    }

    /// Ends the document. Returns the text that was not taken.
    pub fn finish(mut self) -> String {
        self.text.push_str("\n</D:multistatus>\n");
        self.text
    }
}

/// Returns the document that names the condition that failed, and the resources that made it fail.
pub fn error(condition: &str, hrefs: &[&str]) -> String {
    let mut text = format!("{DECLARATION}<D:error xmlns:D=\"DAV:\"><D:{condition}");
    if hrefs.is_empty() {
        text.push_str("/>");
    } else {
        text.push('>');
        for href in hrefs {
            let _ = write!(text, "<D:href>{href}</D:href>");
        }
        let _ = write!(text, "</D:{condition}>");
    }
    text.push_str("</D:error>\n");
    text
}

/// Returns the document that a response to LOCK has: properties alone.
pub fn prop(elements: &str) -> String {
    format!("{DECLARATION}<D:prop xmlns:D=\"DAV:\">{elements}</D:prop>\n")
}

/// Appends an empty element for a property.
pub fn write_name(out: &mut String, name: &Name) {
    match name.space.as_str() {
        super::xml::DAV => {
            let _ = write!(out, "<D:{}/>", name.local);
        }
        "" => {
            let _ = write!(out, "<{}/>", name.local);
        }
        space => {
            let _ = write!(out, "<N:{} xmlns:N=\"", name.local);
            escape(out, space);
            out.push_str("\"/>");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::xml::parse;
    use super::*;

    #[test]
    fn what_is_written_is_a_document() {
        let mut names = String::new();
        write_name(&mut names, &Name::dav("a"));
        write_name(&mut names, &Name { space: String::new(), local: "b".to_owned() });
        write_name(&mut names, &Name { space: "u<&\"".to_owned(), local: "c".to_owned() });
        let mut document = Multistatus::new();
        document.status("/a%20b", 423);
        document.properties("/", &[(200, names, None), (403, String::new(), Some("x"))]);
        let text = document.finish();
        let root = parse(text.as_bytes()).unwrap();
        let responses: Vec<_> = root.elements().collect();
        assert_eq!(responses.len(), 2);
        let line = responses[0].child("status").unwrap().text();
        assert_eq!(line, "HTTP/1.1 423 Locked");
        let prop = responses[1].child("propstat").unwrap().child("prop").unwrap();
        let spaces: Vec<_> = prop.elements().map(|e| e.name.space.as_str()).collect();
        assert_eq!(spaces, ["DAV:", "", "u<&\""]);
        assert!(text.ends_with(
            "<D:propstat><D:prop></D:prop><D:status>HTTP/1.1 403 Forbidden</D:status>\
             <D:error><D:x/></D:error></D:propstat></D:response>\n</D:multistatus>\n"
        ));
        let text = error("lock-token-submitted", &["/a", "/b"]);
        let root = parse(text.as_bytes()).unwrap();
        assert_eq!(root.child("lock-token-submitted").unwrap().elements().count(), 2);
        assert!(parse(prop_text().as_bytes()).unwrap().child("lockdiscovery").is_some());
    }

    fn prop_text() -> String {
        prop("<D:lockdiscovery/>")
    }
}
