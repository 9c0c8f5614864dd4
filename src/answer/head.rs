//! The only writer of the heads of the library's own answers: status line, Date, framing,
//! Connection (RFC 9112, sections 4 to 9; RFC 9110, sections 6.6.1 and 8.6).
//!
//! Refuses to know where the content comes from.

use crate::exchange::request::{Document, Request};
use crate::http::outlet::Outlet;
use crate::http::status::{forbids_content, reason, write_status_line};

/// The media type of XML documents.
pub const XML_TYPE: &str = "application/xml; charset=\"utf-8\"";

/// The media type of the library's own pages.
pub const HTML_TYPE: &str = "text/html; charset=utf-8";

/// A head that is being written, field by field, in the order of the calls.
pub struct HeadWriter<'a> {
    out: &'a mut Vec<u8>,
    /// The position in `out` at which the head begins.
    begin: usize,
    status: u16,
}

impl<'a> HeadWriter<'a> {
    /// Begins a head with the status line.
    #[inline]
    pub fn begin(out: &'a mut Vec<u8>, status: u16) -> Self {
        let begin = out.len();
        write_status_line(out, status);
        Self { out, begin, status }
    }

    /// Begins a head as [`HeadWriter::begin`] does, with the reason phrase `phrase` unless that is
    /// empty.
    pub fn begin_with_reason(out: &'a mut Vec<u8>, status: u16, phrase: &[u8]) -> Self {
        if phrase.is_empty() || phrase == reason(status).as_bytes() {
            return Self::begin(out, status);
        }
        let begin = out.len();
        out.extend_from_slice(format!("HTTP/1.1 {status} ").as_bytes());
        out.extend_from_slice(phrase);
        out.extend_from_slice(b"\r\n");
        Self { out, begin, status }
    }

    /// Writes the Date field (RFC 9110, section 6.6.1).
    #[inline]
    pub fn date(&mut self, date: &str) {
        self.field(b"Date: ", date.as_bytes());
    }

    /// Writes a field. `name` includes the colon and a space.
    #[inline]
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        for part in [name, value, b"\r\n"] {
            self.out.extend_from_slice(part);
        }
    }

    /// Writes whole lines, or nothing.
    #[inline]
    pub fn lines(&mut self, lines: &[u8]) {
        self.out.extend_from_slice(lines);
    }

    /// Writes whole lines by a function.
    #[inline]
    pub fn write_by(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(self.out);
    }

    /// Writes the Content-Length field, unless the status forbids content.
    #[inline]
    pub fn length(&mut self, len: u64) {
        if !forbids_content(self.status) {
            self.any_length(len);
        }
    }

    /// Writes the Content-Length field whatever the status is, as the answer to GET would have it.
    pub fn any_length(&mut self, len: u64) {
        self.field(b"Content-Length: ", itoa::Buffer::new().format(len).as_bytes());
    }

    /// Writes the field by which the content is delimited, if that is not its length.
    pub fn coding(&mut self, outlet: Outlet) {
        if outlet == Outlet::Chunks {
            self.lines(b"Transfer-Encoding: chunked\r\n");
        }
    }

    /// Writes the Connection field (RFC 9110, section 7.6.1).
    #[inline]
    pub fn connection(&mut self, persists: bool) {
        self.field(b"Connection: ", if persists { b"keep-alive" } else { b"close" });
    }

    /// Writes the Connection field, which names Upgrade if that field is present (RFC 9110, section 7.8).
    fn connection_and_upgrade(&mut self, persists: bool) {
        let value: &[u8] = if persists { b"keep-alive, Upgrade" } else { b"close, Upgrade" };
        self.field(b"Connection: ", value);
    }

    /// Ends the head with the fields that the program adds to every answer. Notes status and length
    /// in the request.
    #[inline]
    pub fn end(self, extra: &[u8], request: &mut Request) {
        self.out.extend_from_slice(extra);
        self.out.extend_from_slice(b"\r\n");
        request.status = self.status;
        request.head_len = (self.out.len() - self.begin) as u64;
    }
}

/// Writes an answer that is complete at once: an error, a redirection, an empty success, or a
/// document. The content of 4xx and 5xx is a line of text, except for 401.
pub fn write_short_answer(
    request: &mut Request,
    status: u16,
    date: &str,
    extra: &[u8],
    out: &mut Vec<u8>,
) {
    let persists = request.decide_persistence(!forbids_content(status));
    let document = request.document.take();
    let mut number = itoa::Buffer::new();
    let text: &[&[u8]] = match &document {
        Some(Document::Xml(text) | Document::Html(text)) => &[text.as_bytes()],
        None if status >= 400 && status != 401 => {
            &[number.format(status).as_bytes(), b" ", reason(status).as_bytes(), b"\n"]
        }
        None => &[],
    };
    let mut head = HeadWriter::begin(out, status);
    match &document {
        Some(Document::Xml(_)) => head.field(b"Content-Type: ", XML_TYPE.as_bytes()),
        Some(Document::Html(_)) => head.field(b"Content-Type: ", HTML_TYPE.as_bytes()),
        None if !text.is_empty() => head.lines(b"Content-Type: text/plain\r\n"),
        None => {}
    }
    head.length(text.iter().map(|part| part.len() as u64).sum());
    head.date(date);
    match status {
        426 => head.connection_and_upgrade(persists),
        _ => head.connection(persists),
    }
    head.lines(&request.fields);
    head.end(extra, request);
    if !request.head.is_head {
        for part in text {
            out.extend_from_slice(part);
        }
    }
}

/// Writes the head of an answer whose length is unknown, and decides how the content is delimited.
pub fn write_stream_head(
    request: &mut Request,
    status: u16,
    media_type: &str,
    date: &str,
    extra: &[u8],
    out: &mut Vec<u8>,
) -> Outlet {
    // HTTP/1.0 does not have chunks.
    let persists = request.decide_persistence(false);
    let outlet = Outlet::choose(&request.head, status, None);
    let mut head = HeadWriter::begin(out, status);
    head.date(date);
    head.field(b"Content-Type: ", media_type.as_bytes());
    if request.head.minor == 1 {
        head.coding(Outlet::Chunks);
    }
    head.connection(persists);
    head.lines(&request.fields);
    head.end(extra, request);
    outlet
}
