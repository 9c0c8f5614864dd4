//! Answers from the file system.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use super::connection::{Exchange, Phase};
use super::replies;
use super::step::Flow;
use super::{Server, random_token};
use crate::files::serve::{self, Found, OpenFile};
use crate::http::conditional::{self, Outcome, Validators};
use crate::http::range::{self, Multipart, Ranges};
use crate::http::status::write_status_line;

/// A file is read in pieces of this size.
const PIECE: usize = 64 * 1024;

/// What plain files allow.
const METHODS: &[u8] = b"Allow: GET, HEAD, POST, OPTIONS\r\n";

/// The rest of a file that is being sent.
pub struct FileBody {
    file: File,
    /// Size, and time of the last change: if they change, what is sent does not belong together.
    state: (u64, i64, i64),
    /// What is sent of the file now.
    range: Range<u64>,
    /// Further ranges, each with what stands before its bytes.
    more: VecDeque<(Vec<u8>, Range<u64>)>,
    /// What stands behind the last range.
    tail: Vec<u8>,
}

impl Server {
    /// Answers a request that no handler of the program's matches.
    pub(super) fn answer_builtin(&mut self, index: usize) -> Flow {
        let Some(exchange) = self.exchange(index) else { return Flow::Leave };
        let method = exchange.buf.get(exchange.head.method.range()).unwrap_or_default();
        let writes = matches!(
            method,
            b"PUT"
                | b"DELETE"
                | b"MKCOL"
                | b"COPY"
                | b"MOVE"
                | b"PROPFIND"
                | b"PROPPATCH"
                | b"LOCK"
                | b"UNLOCK"
        );
        if method == b"OPTIONS" {
            exchange.fields.extend_from_slice(METHODS);
            exchange.fields.extend_from_slice(b"DAV: 1\r\n");
            return self.reply_error(index, 200);
        }
        if writes || method == b"TRACE" {
            return self.refuse_method(index);
        }
        let reads = matches!(method, b"GET" | b"HEAD" | b"POST");
        let path = std::mem::take(&mut exchange.path);
        let found = serve::find(&self.options.config, &path);
        let Some(exchange) = self.exchange(index) else { return Flow::Leave };
        exchange.path = path;
        match found {
            Found::Status(status) => self.fail(index, status),
            Found::Directory => {
                let Exchange { fields, path, shown, buf, .. } = exchange;
                fields.extend_from_slice(b"Location: ");
                write_escaped_path(path, fields);
                fields.push(b'/');
                if let Some(query) = &shown.query {
                    fields.push(b'?');
                    fields.extend_from_slice(buf.get(query.clone()).unwrap_or_default());
                }
                fields.extend_from_slice(b"\r\n");
                self.reply_error(index, 301)
            }
            Found::File(_) if !reads => self.refuse_method(index),
            Found::File(file) => self.begin_file(index, file),
        }
    }

    /// RFC 9110, section 15.5.6: 405 says what is allowed.
    pub(super) fn refuse_method(&mut self, index: usize) -> Flow {
        if let Some(exchange) = self.exchange(index) {
            exchange.fields.extend_from_slice(METHODS);
        }
        self.fail(index, 405)
    }

    /// Sends a file, the ranges that are asked for, or word that the client has it already.
    fn begin_file(&mut self, index: usize, found: OpenFile) -> Flow {
        if self.outbox(index).is_none() {
            return Flow::Leave;
        }
        let date = self.clock.date();
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return Flow::Leave;
        };
        let (Some(exchange), Some(out)) = (conn.exchange.as_deref_mut(), conn.out.as_deref_mut())
        else {
            return Flow::Leave;
        };
        let head = &exchange.head;
        let bytes = exchange.buf.get(..head.len).unwrap_or_default();
        let validators = Validators { etag: &found.etag, modified: found.modified };
        let outcome = conditional::evaluate(head, bytes, Some(validators));
        if outcome == Outcome::PreconditionFailed {
            return self.fail(index, 412);
        }
        let is_get = bytes.get(head.method.range()) == Some(b"GET");
        let ranges = match head.value(bytes, "range") {
            Some(value) if is_get && conditional::ranges_count(head, bytes, validators) => {
                range::parse(value, found.len)
            }
            _ => Ranges::Whole,
        };
        if outcome == Outcome::Proceed && ranges == Ranges::Unsatisfiable {
            range::unsatisfied_range(found.len, &mut exchange.fields);
            return self.fail(index, 416);
        }

        let persistent = head.persistent && !exchange.last;
        let connection = replies::connection(persistent);
        let whole = 0..found.len;
        let before = out.bytes.len();
        let mut body = FileBody {
            state: found.state,
            file: found.file,
            range: 0..0,
            more: VecDeque::new(),
            tail: Vec::new(),
        };
        let describe = |status, kind: &str, len: u64, out: &mut Vec<u8>| {
            write_status_line(out, status);
            let (date, modified, etag) = (date, &found.last_modified, &found.etag);
            let fields = format!("Date: {date}\r\nLast-Modified: {modified}\r\nEtag: {etag}\r\n");
            out.extend_from_slice(fields.as_bytes());
            let fields = match status {
                304 => format!("Connection: {connection}\r\n"),
                _ => format!(
                    "Content-Type: {kind}\r\nContent-Length: {len}\r\n\
                     Connection: {connection}\r\nAccept-Ranges: bytes\r\n"
                ),
            };
            out.extend_from_slice(fields.as_bytes());
        };
        let kind = &found.media_type;
        exchange.status = match ranges {
            _ if outcome == Outcome::NotModified => {
                describe(304, kind, 0, &mut out.bytes);
                304
            }
            Ranges::Whole | Ranges::Unsatisfiable => {
                describe(200, kind, found.len, &mut out.bytes);
                body.range = whole;
                200
            }
            Ranges::One(range) => {
                describe(206, kind, range.end - range.start, &mut out.bytes);
                range::content_range(&range, found.len, &mut out.bytes);
                body.range = range;
                206
            }
            Ranges::Several(ranges) => {
                let boundary = random_token();
                let multipart = Multipart { boundary: &boundary, media_type: kind, len: found.len };
                let len = multipart.content_length(&ranges);
                let kind = format!("multipart/byteranges; boundary={boundary}");
                describe(206, &kind, len, &mut out.bytes);
                for (place, range) in ranges.into_iter().enumerate() {
                    let mut head = Vec::new();
                    multipart.part_head(&range, place == 0, &mut head);
                    body.more.push_back((head, range));
                }
                multipart.end(&mut body.tail);
                206
            }
        };
        out.bytes.extend_from_slice(b"\r\n");
        exchange.head_len = (out.bytes.len() - before) as u64;
        if exchange.head.is_head || body.is_sent() {
            self.finish_exchange(index, persistent);
        } else {
            exchange.file = Some(body);
            conn.phase = Phase::Sending;
        }
        Flow::Again
    }

    /// Moves the next piece of a file to the outbox.
    pub(super) fn send_file(&mut self, index: usize) -> Flow {
        let Some(conn) = self.conn(index) else { return Flow::Leave };
        if conn.backlog() >= PIECE {
            if !self.flush(index) {
                return Flow::Leave;
            }
            if self.conn(index).is_some_and(|conn| conn.backlog() >= PIECE) {
                return Flow::Leave;
            }
        }
        if self.quota == 0 {
            self.make_ready(index);
            return Flow::Leave;
        }
        if self.outbox(index).is_none() {
            return Flow::Leave;
        }
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return Flow::Leave;
        };
        let (Some(exchange), Some(out)) = (conn.exchange.as_deref_mut(), conn.out.as_deref_mut())
        else {
            return Flow::Leave;
        };
        let persistent = exchange.head.persistent && !exchange.last;
        match exchange.file.as_mut().map(|body| body.read(&mut out.bytes)) {
            Some(Ok(count)) => {
                self.quota = self.quota.saturating_sub(count);
                if exchange.file.as_ref().is_some_and(FileBody::is_sent) {
                    self.finish_exchange(index, persistent);
                }
                Flow::Again
            }
            // The promised length cannot be kept, or not with bytes that belong together.
            Some(Err(_)) | None => {
                self.complain(Some(index), "a file changed while it was sent");
                self.close(index);
                Flow::Leave
            }
        }
    }
}

impl FileBody {
    fn is_sent(&self) -> bool {
        self.range.is_empty() && self.more.is_empty() && self.tail.is_empty()
    }

    /// Appends the next piece to `out`, and returns its length.
    fn read(&mut self, out: &mut Vec<u8>) -> std::io::Result<usize> {
        if self.range.is_empty() {
            if let Some((head, range)) = self.more.pop_front() {
                out.extend_from_slice(&head);
                self.range = range;
            } else {
                out.append(&mut self.tail);
            }
            return Ok(0);
        }
        let meta = self.file.metadata()?;
        if (meta.size(), meta.mtime(), meta.mtime_nsec()) != self.state {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(PIECE);
        let before = out.len();
        out.try_reserve(left.min(PIECE))?;
        out.resize(before + left.min(PIECE), 0);
        let read = self.file.read_at(&mut out[before..], self.range.start);
        out.truncate(before + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.range.start += count as u64;
                Ok(count)
            }
            Err(error) => Err(error),
        }
    }
}

/// RFC 3986, section 3.3: what may stand in a path stays, all else is escaped.
fn write_escaped_path(path: &[u8], out: &mut Vec<u8>) {
    for byte in path {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(byte) {
            out.push(*byte);
        } else {
            let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value)];
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}
