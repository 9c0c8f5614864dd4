//! One request, and the properties of its answer (RFC 9110, RFC 9112).
//!
//! Owns the buffer of head and content, the target, and the decision about persistence. Refuses to
//! know the source of the answer and the connection of the request.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::buffers::SMALL_BUFFER;
use crate::auth::Scheme;
use crate::dav::Writer;
use crate::http::chunked::Decoder;
use crate::http::request::{Field, Framing, Head, Span, is_host};
use crate::http::uri;
use crate::log;
use crate::peer::Peer;
use crate::shared::slots::Shown;

/// A request.
pub struct Request {
    /// The index of its connection.
    pub connection: u32,
    pub client: Peer,
    /// The address that the client has connected to; set only where a CGI program may need it.
    pub local: Option<SocketAddr>,
    /// Whether the connection uses TLS.
    pub is_secure: bool,
    /// Whether the client speaks https, if a trusted proxy told that. It is no reason to accept
    /// what needs TLS.
    pub told_https: Option<bool>,
    /// The first `Client-Cert` field is that of the client's own certificate.
    pub has_certificate: bool,
    /// The head, followed by the content. The buffer does not move while the program may look at
    /// it.
    pub buf: Vec<u8>,
    pub head: Head,
    /// The decoded path.
    pub path: Vec<u8>,
    pub shown: Shown,
    /// The part of the content that has not arrived.
    pub rest: Rest,
    /// The number of bytes of the content that have arrived, framing included.
    pub arrived: u64,
    /// The number of bytes that count against `max_buffered_bytes` until the answer is complete.
    pub charged: usize,
    /// Set if the connection ends with the answer, whatever else the request says.
    pub is_last: bool,
    /// The user that was accepted, by which scheme, and the password file that holds the user.
    pub user: Vec<u8>,
    pub scheme: Scheme,
    pub granted: Option<PathBuf>,
    /// Set once the credentials were accepted: the count of their nonce is used up.
    pub is_spent: bool,
    /// Set if the request may change files because anybody may, and not by `dav_auth_file`.
    pub is_anybodys: bool,
    /// The number of times that a CGI program redirected the request to another path.
    pub redirections: u8,
    /// The status of the answer, and the length of its heads in bytes; 0 until the head is written.
    pub status: u16,
    pub head_len: u64,
    /// The fields of the library's own answer beside the usual ones, each with its line end.
    pub fields: Vec<u8>,
    /// The content of the answer, if it is a document.
    pub document: Option<Document>,
    pub log: Option<LogEntry>,
}

/// A document that is the content of an answer.
pub enum Document {
    Xml(String),
    Html(String),
}

impl Document {
    /// Returns its length in bytes.
    pub fn size(&self) -> usize {
        match self {
            Document::Xml(text) | Document::Html(text) => text.len(),
        }
    }
}

/// The part of the content that has not arrived.
#[derive(Clone, Debug, Default)]
pub enum Rest {
    /// All content has arrived.
    #[default]
    Nothing,
    Length(u64),
    Chunked(Decoder),
    /// The end of the request is unknown, or will not be read.
    Unread,
}

/// The access log line of a request.
pub struct LogEntry {
    /// The line without status and byte count, and where these belong.
    pub line: Vec<u8>,
    pub status_at: usize,
    /// Position in the outbox at which the answer begins.
    pub begin: u64,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            connection: 0,
            client: Peer::NOBODY,
            local: None,
            is_secure: false,
            told_https: None,
            has_certificate: false,
            buf: Vec::new(),
            head: Head::default(),
            path: Vec::new(),
            shown: Shown::default(),
            rest: Rest::Nothing,
            arrived: 0,
            charged: 0,
            is_last: false,
            user: Vec::new(),
            scheme: Scheme::Digest,
            granted: None,
            is_spent: false,
            is_anybodys: false,
            redirections: 0,
            status: 0,
            head_len: 0,
            fields: Vec::new(),
            document: None,
            log: None,
        }
    }
}

impl Request {
    /// Begins another request, of which nothing else is known.
    #[inline]
    pub fn begin(&mut self, connection: u32, client: Peer, is_secure: bool) {
        (self.connection, self.client, self.is_secure) = (connection, client, is_secure);
    }

    /// Ends the request: only its buffers are used again. A large buffer of the content is returned
    /// instead. Each field is named here, so that no value can reach the next request.
    pub fn end(&mut self) -> Vec<u8> {
        let Request {
            connection: _,
            client: _,
            is_secure: _,
            told_https,
            has_certificate,
            local,
            buf,
            head: _,
            path,
            shown,
            rest,
            arrived,
            charged,
            is_last,
            user,
            scheme,
            granted,
            is_spent,
            is_anybodys,
            redirections,
            status,
            head_len,
            fields,
            document,
            log,
        } = self;
        *has_certificate = false;
        *local = None;
        buf.clear();
        path.clear();
        *shown = Shown::default();
        *rest = Rest::Nothing;
        (*arrived, *charged) = (0, 0);
        (*is_last, *is_spent, *is_anybodys) = (false, false, false);
        *told_https = None;
        user.clear();
        *scheme = Scheme::Digest;
        *granted = None;
        *redirections = 0;
        (*status, *head_len) = (0, 0);
        fields.clear();
        *document = None;
        *log = None;
        match buf.capacity() > SMALL_BUFFER {
            true => std::mem::take(buf),
            false => Vec::new(),
        }
    }

    /// Returns the method.
    pub fn method(&self) -> &[u8] {
        self.buf.get(self.head.method.range()).unwrap_or_default()
    }

    /// Returns the target as it was sent.
    pub fn target(&self) -> &[u8] {
        self.buf.get(self.head.target.range()).unwrap_or_default()
    }

    /// Returns the head as it was sent.
    pub fn head_bytes(&self) -> &[u8] {
        self.buf.get(..self.head.len).unwrap_or_default()
    }

    /// Returns whether the client speaks https, to this server or to a trusted proxy.
    pub fn is_https(&self) -> bool {
        self.told_https.unwrap_or(self.is_secure)
    }

    /// Puts the certificate of the client, in DER, in front of the fields (RFC 9440, section 2), and
    /// removes what the client itself says in such fields, unless it `is_proxy` whose word counts.
    /// Returns false if there is no memory for it.
    #[inline(never)]
    pub fn name_client(&mut self, certificate: Option<&[u8]>, is_proxy: bool) -> bool {
        const NAME: &[u8] = b"Client-Cert\0";
        if self.head.names_certificate && !is_proxy {
            let bytes = self.buf.get(..self.head.len).unwrap_or_default();
            self.head.drop_certificates(bytes);
        }
        let Some(certificate) = certificate else { return true };
        let Request { buf, head, .. } = self;
        debug_assert!(buf.len() == head.len, "content stands behind the head");
        let text = STANDARD.encode(certificate);
        if buf.try_reserve(NAME.len() + text.len() + 3).is_err() {
            return false;
        }
        let place = |start: usize, len: usize| Span { start: start as u32, len: len as u32 };
        let name = place(buf.len(), NAME.len() - 1);
        let value = place(buf.len() + NAME.len(), text.len() + 2);
        for part in [NAME, b":", text.as_bytes(), b":\0"] {
            buf.extend_from_slice(part);
        }
        head.fields.insert(0, Field { name, value });
        head.len = buf.len();
        self.has_certificate = true;
        true
    }

    /// Returns the certificate of the client, in DER.
    pub fn client_certificate(&self) -> Option<Vec<u8>> {
        let value = self.head.value(self.head_bytes(), "client-cert");
        let text =
            value.filter(|_| self.has_certificate)?.strip_prefix(b":")?.strip_suffix(b":")?;
        STANDARD.decode(text).ok()
    }

    /// Returns who asks for a change of files.
    pub fn writer(&self) -> Writer<'_> {
        Writer { user: &self.user, is_anybody: self.is_anybodys }
    }

    /// Returns the query of the target.
    pub fn query(&self) -> Option<&[u8]> {
        self.shown.query.clone().and_then(|query| self.buf.get(query))
    }

    /// Returns whether the request has arrived completely.
    pub fn is_complete(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
    }

    /// Returns whether the connection stays open after the answer (RFC 9112, section 9.3).
    pub fn persists(&self) -> bool {
        self.head.persistent && !self.is_last
    }

    /// Decides whether the connection stays open after an answer of the library's own. `has_length`
    /// says that a client of HTTP/1.0, too, finds the end of the answer without the end of the
    /// connection.
    pub fn decide_persistence(&mut self, has_length: bool) -> bool {
        self.is_last |= !has_length && self.head.minor == 0;
        self.persists()
    }

    /// Prepares to take the content that the head announces.
    pub fn expect_content(&mut self) {
        self.rest = match self.head.framing {
            Framing::Empty => Rest::Nothing,
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunked(Decoder::default()),
        };
    }

    /// Writes the user's name into the line of the access log.
    pub fn log_user(&mut self, user: &[u8]) {
        if let Some(LogEntry { line, status_at, .. }) = &mut self.log {
            log::set_user(line, status_at, user);
        }
    }

    /// Finds path and query of the target. Returns false if the target is not valid.
    pub fn locate(&mut self) -> bool {
        let Request { buf, head, path, shown, .. } = self;
        let Some(bytes) = buf.get(head.target.range()) else { return false };
        if bytes.first() != Some(&b'/') {
            return self.locate_elsewhere();
        }
        let Ok(target) = uri::split_query(bytes) else { return false };
        path.clear();
        if target.plain {
            path.extend_from_slice(target.path);
        } else if !decode(target.path, path) {
            return false;
        }
        // A decoded path is never longer than its encoded form.
        shown.path_at = head.target.range().start;
        shown.path_end = shown.path_at + path.len();
        shown.query = target.query.map(|query| {
            let start = shown.path_at + target.path.len() + 1;
            start..start + query.len()
        });
        true
    }

    /// Finds path and query of a target that does not begin with a slash: `*`, which counts as a
    /// path, or the absolute form.
    #[cold]
    fn locate_elsewhere(&mut self) -> bool {
        let Request { buf, head, path, shown, .. } = self;
        let at = head.target.range().start;
        let Some(bytes) = buf.get(head.target.range()) else { return false };
        path.clear();
        if bytes == b"*" {
            // RFC 9112, section 3.2.4, allows this form for OPTIONS only.
            if buf.get(head.method.range()) != Some(b"OPTIONS") {
                return false;
            }
            path.extend_from_slice(b"*");
            *shown = Shown { path_at: at, path_end: at + 1, ..Shown::default() };
            return true;
        }
        let Ok((authority, target)) = uri::split_absolute(bytes) else { return false };
        if !is_host(authority) || !decode(target.path, path) {
            return false;
        }
        // All parts lie within the target, except for a path that is missing: a slash for it takes
        // the place of the scheme.
        let begin = bytes.as_ptr().addr();
        let offset = |part: &[u8]| part.as_ptr().addr().wrapping_sub(begin);
        let path_offset = offset(target.path);
        shown.path_at = at + if path_offset < bytes.len() { path_offset } else { 0 };
        shown.path_end = shown.path_at + path.len();
        shown.query = target.query.map(|query| {
            let start = at + offset(query);
            start..start + query.len()
        });
        let authority = at + offset(authority)..at + offset(authority) + authority.len();
        take_host(head, buf, authority)
    }
}

/// Puts the authority of the target in the place of the Host field (RFC 9112, section 3.2.2). It is
/// appended to the head, since a C string needs one more byte behind it.
fn take_host(head: &mut Head, buf: &mut Vec<u8>, authority: Range<usize>) -> bool {
    const NAME: &[u8] = b"Host\0";
    if buf.len() != head.len || buf.try_reserve(NAME.len() + authority.len() + 1).is_err() {
        return false;
    }
    let place = |start: usize, len: usize| Span { start: start as u32, len: len as u32 };
    let name = place(buf.len(), NAME.len() - 1);
    let value = place(buf.len() + NAME.len(), authority.len());
    let is_host = |field: &&mut Field| {
        buf.get(field.name.range()).is_some_and(|name| name.eq_ignore_ascii_case(b"host"))
    };
    match head.fields.iter_mut().find(is_host) {
        Some(field) => field.value = value,
        // The field stands in front, so that it is among those that the program sees.
        None => head.fields.insert(0, Field { name, value }),
    }
    buf.extend_from_slice(NAME);
    buf.extend_from_within(authority);
    buf.push(0);
    head.len = buf.len();
    true
}

/// Decodes the path `raw` into `path`, which is empty. Returns false if `raw` is not valid.
fn decode(raw: &[u8], path: &mut Vec<u8>) -> bool {
    path.resize(raw.len(), 0);
    let Ok(len) = uri::decode_path(raw, path) else { return false };
    path.truncate(len);
    true
}
