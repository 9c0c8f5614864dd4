//! Answers that the library makes itself.

use crate::http::status::{forbids_content, reason, write_status_line};

/// The media type of documents.
pub const XML: &str = "application/xml; charset=\"utf-8\"";

/// What the head of such an answer depends on.
pub struct Reply<'a> {
    pub status: u16,
    /// `Date`, as RFC 9110, section 6.6.1 wants it.
    pub date: &'a str,
    pub persistent: bool,
    pub head_only: bool,
    /// More fields, each with its line's end.
    pub fields: &'a [u8],
    /// What the program wants beside them.
    pub extra: &'a [u8],
    /// A document of XML in place of the line of text.
    pub document: Option<&'a str>,
}

impl Reply<'_> {
    /// Appends an error, a redirection or a document: a line of text for 4xx and 5xx except 401. Returns the
    /// length of the head.
    pub fn write_error(&self, out: &mut Vec<u8>) -> usize {
        let before = out.len();
        let document = self.document.map(str::as_bytes);
        let has_text = self.status >= 400 && self.status != 401 && document.is_none();
        write_status_line(out, self.status);
        let mut number = itoa::Buffer::new();
        let mut length = 0;
        if has_text {
            out.extend_from_slice(b"Content-Type: text/plain\r\n");
            length = "404 \n".len() + reason(self.status).len();
        }
        if let Some(document) = document {
            for part in ["Content-Type: ", XML, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
            length = document.len();
        }
        if !forbids_content(self.status) {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(number.format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(self.date.as_bytes());
        out.extend_from_slice(b"\r\nConnection: ");
        out.extend_from_slice(connection(self.persistent).as_bytes());
        if self.status == 426 {
            // RFC 9110, section 7.8: Upgrade is among the fields.
            out.extend_from_slice(b", Upgrade");
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(self.fields);
        out.extend_from_slice(self.extra);
        out.extend_from_slice(b"\r\n");
        let head_len = out.len() - before;
        if let Some(document) = document.filter(|_| !self.head_only) {
            out.extend_from_slice(document);
        }
        if has_text && !self.head_only {
            out.extend_from_slice(number.format(self.status).as_bytes());
            out.push(b' ');
            out.extend_from_slice(reason(self.status).as_bytes());
            out.push(b'\n');
        }
        head_len
    }
}

/// The value of `Connection`.
pub fn connection(persistent: bool) -> &'static str {
    if persistent { "keep-alive" } else { "close" }
}
