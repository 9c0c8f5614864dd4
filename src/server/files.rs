//! Answers from the file system.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

use rustix::io::Errno;

use super::connection::Phase;
use super::replies;
use super::step::Flow;
use super::{Server, random_token};
use crate::files::cache::{Content, Entry};
use crate::files::directory::Reader;
use crate::files::listing::{self, Order};
use crate::files::resolve;
use crate::http::conditional::{self, Outcome, Validators};
use crate::http::range::{self, Multipart, Ranges};
use crate::http::status::write_status_line;

/// A file is read in pieces of this size.
const PIECE: usize = 64 * 1024;

/// Names of a directory that are looked at before others have their turn.
const NAMES: usize = 256;

/// The rest of a file that is being sent.
pub struct FileBody {
    known: Entry,
    /// Time of the last change: if it or the size changes, what is sent does not belong together.
    modified: Option<(i64, i64)>,
    /// What is sent of the file now.
    range: Range<u64>,
    /// Further ranges, each with what stands before its bytes.
    more: VecDeque<(Vec<u8>, Range<u64>)>,
    /// What stands behind the last range.
    tail: Vec<u8>,
}

/// A directory that is being read, to be listed.
pub struct Listing {
    reader: Reader,
    path: PathBuf,
    order: Order,
}

impl Server {
    /// Begins to read a directory that is to be listed.
    pub(super) fn begin_listing(&mut self, index: usize, path: PathBuf) -> Flow {
        match Reader::open(&path) {
            Ok(reader) => {
                let Some(conn) = self.conn(index) else { return Flow::Leave };
                conn.phase = Phase::Sending;
                let Some(exchange) = conn.exchange.as_deref_mut() else { return Flow::Leave };
                let query = exchange.shown.query.clone();
                let query = query.and_then(|query| exchange.buf.get(query));
                let order = Order::from_query(query);
                exchange.listing = Some(Box::new(Listing { reader, path, order }));
                Flow::Again
            }
            Err(error) => self.fail(index, status_of(&error)),
        }
    }

    /// Sends a file, the ranges that are asked for, or word that the client has it already.
    pub(super) fn begin_file(&mut self, index: usize, known: Entry) -> Flow {
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
        let validators = Validators { etag: known.etag(), modified: known.modified };
        let outcome = conditional::evaluate(head, bytes, Some(validators));
        if outcome == Outcome::PreconditionFailed {
            return self.fail(index, 412);
        }
        let is_get = bytes.get(head.method.range()) == Some(b"GET");
        let ranges = match head.value(bytes, "range") {
            Some(value) if is_get && conditional::ranges_count(head, bytes, validators) => {
                range::parse(value, known.len)
            }
            _ => Ranges::Whole,
        };
        if outcome == Outcome::Proceed && ranges == Ranges::Unsatisfiable {
            range::unsatisfied_range(known.len, &mut exchange.fields);
            return self.fail(index, 416);
        }

        let persistent = head.persistent && !exchange.last;
        let before = out.bytes.len();
        let out = &mut out.bytes;
        let begin = |status, fields: &[u8], out: &mut Vec<u8>| {
            write_status_line(out, status);
            extend(out, &[b"Date: ", date.as_bytes(), b"\r\n", fields]);
        };
        let end: &[&[u8]] = &[
            b"Connection: ",
            replies::connection(persistent).as_bytes(),
            b"\r\nAccept-Ranges: bytes\r\n",
        ];
        let mut more = VecDeque::new();
        let mut tail = Vec::new();
        let mut first = 0..0;
        exchange.status = match ranges {
            _ if outcome == Outcome::NotModified => {
                begin(304, known.validator_fields(), out);
                extend(out, &[end[0], end[1], b"\r\n"]);
                304
            }
            Ranges::Whole | Ranges::Unsatisfiable => {
                begin(200, known.fields(), out);
                extend(out, end);
                first = 0..known.len;
                200
            }
            Ranges::One(range) => {
                begin(206, known.fields_but_length(), out);
                write_length(range.end - range.start, out);
                extend(out, end);
                range::content_range(&range, known.len, out);
                first = range;
                206
            }
            Ranges::Several(ranges) => {
                let boundary = random_token();
                let media_type = known.media_type();
                let parts = Multipart { boundary: &boundary, media_type, len: known.len };
                begin(206, known.validator_fields(), out);
                parts.content_type(out);
                write_length(parts.content_length(&ranges), out);
                extend(out, end);
                for (place, range) in ranges.into_iter().enumerate() {
                    let mut head = Vec::new();
                    parts.part_head(&range, place == 0, &mut head);
                    more.push_back((head, range));
                }
                parts.end(&mut tail);
                206
            }
        };
        out.extend_from_slice(b"\r\n");
        exchange.head_len = (out.len() - before) as u64;
        let has_content = !first.is_empty() || !more.is_empty();
        if exchange.head.is_head || !has_content {
            self.finish_exchange(index, persistent);
            return Flow::Again;
        }
        if let Content::Bytes(content) = &known.content
            && more.is_empty()
            && out.try_reserve(content.len()).is_ok()
        {
            // Into the same send as the head.
            let range = first.start as usize..first.end as usize;
            out.extend_from_slice(content.get(range).unwrap_or_default());
            self.finish_exchange(index, persistent);
            return Flow::Again;
        }
        let modified = match &known.content {
            Content::Open(file) => {
                file.metadata().ok().map(|meta| (meta.mtime(), meta.mtime_nsec()))
            }
            Content::Bytes(_) => None,
        };
        exchange.file = Some(FileBody { known, modified, range: first, more, tail });
        conn.phase = Phase::Sending;
        Flow::Again
    }

    /// Moves the next piece of a file, or of a page made for a directory, to the outbox.
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
        if self.exchange(index).is_some_and(|exchange| exchange.listing.is_some()) {
            return self.send_listing(index);
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

    /// Reads on in a directory; once all names are known, answers with the page.
    fn send_listing(&mut self, index: usize) -> Flow {
        let config = &self.options.config;
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return Flow::Leave;
        };
        let Some(exchange) = conn.exchange.as_deref_mut() else { return Flow::Leave };
        let Some(mut listing) = exchange.listing.take() else { return Flow::Leave };
        let Listing { reader, path, .. } = &mut *listing;
        let mut is_hidden =
            |name: &[u8]| resolve::is_hidden(config, &path.join(OsStr::from_bytes(name)));
        match reader.advance(NAMES, &mut is_hidden) {
            Ok(true) => {
                exchange.listing = Some(listing);
                self.make_ready(index);
                return Flow::Leave;
            }
            Ok(false) => {}
            Err(error) => return self.fail(index, status_of(&error)),
        }
        let mut entries = listing.reader.into_entries();
        listing::sort(&mut entries, listing.order);
        let mut page = Vec::new();
        listing::head(&mut page, &exchange.path, listing.order);
        for entry in &entries {
            listing::row(&mut page, entry);
        }
        listing::foot(&mut page);

        let persistent = exchange.head.persistent && !exchange.last;
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
        let out = &mut out.bytes;
        let before = out.len();
        write_status_line(out, 200);
        extend(
            out,
            &[b"Date: ", date.as_bytes(), b"\r\nContent-Type: text/html; charset=utf-8\r\n"],
        );
        write_length(page.len() as u64, out);
        extend(out, &[b"Connection: ", replies::connection(persistent).as_bytes(), b"\r\n\r\n"]);
        exchange.status = 200;
        exchange.head_len = (out.len() - before) as u64;
        if !exchange.head.is_head {
            out.extend_from_slice(&page);
        }
        self.finish_exchange(index, persistent);
        Flow::Again
    }
}

impl FileBody {
    fn is_sent(&self) -> bool {
        self.range.is_empty() && self.more.is_empty() && self.tail.is_empty()
    }

    /// Appends the next piece to `out`, and returns its length.
    fn read(&mut self, out: &mut Vec<u8>) -> io::Result<usize> {
        if self.range.is_empty() {
            if let Some((head, range)) = self.more.pop_front() {
                out.extend_from_slice(&head);
                self.range = range;
            } else {
                out.append(&mut self.tail);
            }
            return Ok(0);
        }
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(PIECE);
        let before = out.len();
        out.try_reserve(left.min(PIECE))?;
        let count = match &self.known.content {
            Content::Bytes(bytes) => {
                let start = self.range.start as usize;
                let piece = bytes.get(start..start + left.min(PIECE)).unwrap_or_default();
                out.extend_from_slice(piece);
                piece.len()
            }
            Content::Open(file) => {
                let meta = file.metadata()?;
                let modified = Some((meta.mtime(), meta.mtime_nsec()));
                if meta.len() != self.known.len || modified != self.modified {
                    return Err(ErrorKind::InvalidData.into());
                }
                out.resize(before + left.min(PIECE), 0);
                let read = file.read_at(&mut out[before..], self.range.start);
                out.truncate(before + *read.as_ref().unwrap_or(&0));
                read?
            }
        };
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.range.start += count as u64;
        Ok(count)
    }
}

pub(super) fn status_of(error: &io::Error) -> u16 {
    match error.kind() {
        ErrorKind::PermissionDenied => 403,
        _ => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE | Errno::NFILE) => 503,
            _ => 404,
        },
    }
}

fn extend(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn write_length(len: u64, out: &mut Vec<u8>) {
    extend(out, &[b"Content-Length: ", itoa::Buffer::new().format(len).as_bytes(), b"\r\n"]);
}
