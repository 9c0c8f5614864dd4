//! The head of a response that the `mg_send` family builds (RFC 9112, sections 6 and 9.3): the
//! program chooses the status and the fields, the library chooses the framing.
//!
//! Owns which framing and connection fields of the program are sent, and which ones of the library
//! are added. Knows nothing of the content, and does not check field names or values.

use std::ops::Range;

use super::request::tokens;
use super::status::{forbids_content, write_status_line};

/// The properties of a request that decide how its response ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestFacts {
    /// The method is HEAD, whose response has no content.
    pub head_only: bool,
    /// The request is HTTP/1.1, so that the client understands chunks.
    pub chunks: bool,
    /// The client allows another request on the connection.
    pub persistent: bool,
}

/// A field of the program that the library may replace.
#[derive(Clone, Copy, Debug, PartialEq)]
enum OwnField {
    ContentLength,
    TransferEncoding,
    Connection,
}

/// A head that grows until its first content, or the end of the response, is known.
#[derive(Debug, Default)]
pub(super) struct BuiltHead {
    /// The status line and the fields, without the empty line.
    bytes: Vec<u8>,
    /// The places in `bytes` of those fields that may have to be left out.
    fields: Vec<(OwnField, Range<usize>)>,
    names_close: bool,
    names_keep_alive: bool,
    status: u16,
}

/// The framing of the content behind a head, and the persistence of the connection.
pub(super) struct Ending {
    pub chunked: bool,
    pub persistent: bool,
}

impl BuiltHead {
    /// Begins a head with its status line.
    #[inline]
    pub(super) fn new(status: u16) -> Self {
        let mut bytes = Vec::with_capacity(192);
        write_status_line(&mut bytes, status);
        Self { bytes, status, ..Self::default() }
    }

    /// Returns the status.
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// Takes the bytes out, for a program that ends the head itself.
    #[inline]
    pub(super) fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Appends a field, whose name and value are valid. A field for which there is no memory is
    /// dropped.
    #[inline]
    pub(super) fn append(&mut self, name: &[u8], value: &[u8]) {
        if self.bytes.try_reserve(name.len() + value.len() + 4).is_err() {
            return;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
        let own = match name.len() {
            10 if name.eq_ignore_ascii_case(b"connection") => OwnField::Connection,
            14 if name.eq_ignore_ascii_case(b"content-length") => OwnField::ContentLength,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => OwnField::TransferEncoding,
            _ => return,
        };
        self.fields.push((own, start..self.bytes.len()));
        if own == OwnField::Connection {
            for token in tokens(value) {
                self.names_close |= token.eq_ignore_ascii_case(b"close");
                self.names_keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        }
    }

    /// Appends the complete head to `out`, with the framing that fits the content that follows.
    #[inline]
    pub(super) fn write(
        self,
        request: RequestFacts,
        content_follows: bool,
        out: &mut Vec<u8>,
    ) -> Ending {
        let chunked = content_follows && request.chunks;
        let may_have_content = !forbids_content(self.status);

        // The response to HEAD keeps the framing that the program gives: no content contradicts it.
        let has = |own| self.fields.iter().any(|(field, _)| *field == own);
        let keeps_framing = request.head_only
            && !content_follows
            && (has(OwnField::ContentLength) || has(OwnField::TransferEncoding));
        // A client of HTTP/1.0 waits for the end of the connection unless there is a length.
        let has_length = || {
            may_have_content
                && !content_follows
                && !(keeps_framing && has(OwnField::TransferEncoding))
        };
        let persistent = request.persistent
            && !self.names_close
            && self.status >= 200
            && (request.chunks || has_length());
        let adds_close = !persistent && !self.names_close;
        let adds_keep_alive = persistent && !request.chunks && !self.names_keep_alive;
        let mut at = 0;
        for (field, place) in self.fields {
            let stays = match field {
                OwnField::ContentLength | OwnField::TransferEncoding => keeps_framing,
                OwnField::Connection => !adds_close,
            };
            if !stays {
                out.extend_from_slice(self.bytes.get(at..place.start).unwrap_or_default());
                at = place.end;
            }
        }
        out.extend_from_slice(self.bytes.get(at..).unwrap_or_default());
        if may_have_content && !keeps_framing {
            if chunked {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            } else if !content_follows {
                out.extend_from_slice(b"Content-Length: 0\r\n");
            }
        }
        if adds_close {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        if adds_keep_alive {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Ending { chunked, persistent }
    }
}
