//! Answers from the file system.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::connection::{Exchange, Phase};
use super::replies;
use super::step::Flow;
use super::{Server, random_token};
use crate::auth::digest::{self, Verdict};
use crate::auth::nonce::Nonces;
use crate::files::cache::{Content, Entry, Known};
use crate::files::directory::Reader;
use crate::files::listing::{self, Order};
use crate::files::resolve;
use crate::http::conditional::{self, Outcome, Validators};
use crate::http::range::{self, Multipart, Ranges};
use crate::http::status::write_status_line;

/// A file is read in pieces of this size.
const PIECE: usize = 64 * 1024;

/// What plain files allow.
const METHODS: &[u8] = b"Allow: GET, HEAD, POST, OPTIONS\r\n";

/// How long a nonce of digest authentication lasts, in seconds.
const NONCE_LIFETIME: u64 = 300;
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
    /// Answers a request that no handler of the program's matches.
    pub(super) fn answer_builtin(&mut self, index: usize) -> Flow {
        let Some(exchange) = self.exchange(index) else { return Flow::Leave };
        let method = exchange.buf.get(exchange.head.method.range()).unwrap_or_default();
        let reads = matches!(method, b"GET" | b"HEAD" | b"POST");
        let writes = matches!(
            method,
            b"PUT" | b"DELETE" | b"MKCOL" | b"COPY" | b"MOVE" | b"PROPPATCH" | b"LOCK" | b"UNLOCK"
        );
        let refused = method == b"PROPFIND";
        if method == b"TRACE" {
            return self.refuse_method(index);
        }
        if method == b"OPTIONS" {
            exchange.fields.extend_from_slice(METHODS);
            exchange.fields.extend_from_slice(b"DAV: 1\r\n");
            return self.reply_error(index, 200);
        }
        let path = std::mem::take(&mut exchange.path);
        let full = resolve::full_path(&self.options.config, &path);
        let slash = path.ends_with(b"/");
        if let Some(exchange) = self.exchange(index) {
            exchange.path = path;
        }
        let Some(full) = full else { return self.fail(index, 404) };
        if writes {
            let Some(file) = self.options.config.dav_auth_file.clone() else {
                return self.challenge(index, false);
            };
            if let Err(flow) = self.authorise(index, &file, true) {
                return flow;
            }
            return self.refuse_method(index);
        }
        let found = self.cache.get(&full, self.turns);
        let is_dir = matches!(&found, Err(error) if error.kind() == ErrorKind::IsADirectory);
        let passwords = resolve::password_file(&self.options.config, &full, is_dir);
        let required = self.options.config.global_auth_file.is_some();
        if let Err(flow) = self.authorise(index, &passwords, required) {
            return flow;
        }
        if resolve::is_hidden(&self.options.config, &full) {
            return self.fail(index, 404);
        }
        if refused {
            return self.refuse_method(index);
        }
        match found {
            Ok(known) => self.answer_file(index, &full, known, reads),
            Err(_) if is_dir && !slash => self.redirect_to_directory(index),
            Err(_) if is_dir => self.answer_directory(index, full, reads),
            Err(error) => self.fail(index, status_of(&error)),
        }
    }

    fn answer_file(&mut self, index: usize, full: &Path, known: Entry, reads: bool) -> Flow {
        let extension = full.extension().unwrap_or_default();
        if extension.eq_ignore_ascii_case("lp") {
            // Lua pages: their source must not be shown.
            return self.fail(index, 501);
        }
        if !reads {
            return self.refuse_method(index);
        }
        self.begin_file(index, known)
    }

    /// 301 to the same path with a slash, so that relative links of the page work.
    fn redirect_to_directory(&mut self, index: usize) -> Flow {
        let Some(exchange) = self.exchange(index) else { return Flow::Leave };
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

    fn answer_directory(&mut self, index: usize, full: PathBuf, reads: bool) -> Flow {
        for place in 0..self.options.config.index_files.len() {
            let config = &self.options.config;
            let page = full.join(&config.index_files[place]);
            if resolve::is_hidden(config, &page) {
                continue;
            }
            if let Ok(known) = self.cache.get(&page, self.turns) {
                return self.answer_file(index, &page, known, reads);
            }
        }
        if !self.options.config.enable_directory_listing {
            return self.fail(index, 403);
        }
        if !reads {
            return self.refuse_method(index);
        }
        match Reader::open(&full) {
            Ok(reader) => {
                let Some(conn) = self.conn(index) else { return Flow::Leave };
                conn.phase = Phase::Sending;
                let Some(exchange) = conn.exchange.as_deref_mut() else { return Flow::Leave };
                let query = exchange.shown.query.clone();
                let query = query.and_then(|query| exchange.buf.get(query));
                let order = Order::from_query(query);
                exchange.listing = Some(Box::new(Listing { reader, path: full, order }));
                Flow::Again
            }
            Err(error) => self.fail(index, status_of(&error)),
        }
    }

    /// Lets a request pass whose user is known to the password file, and any if there is no such
    /// file and none is `required`.
    fn authorise(&mut self, index: usize, file: &Path, required: bool) -> Result<(), Flow> {
        let passwords = match self.cache.get(file, self.turns) {
            Ok(known) => known,
            Err(error) => {
                let absent = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
                return match absent && !required {
                    true => Ok(()),
                    // Passwords that cannot be read let nobody in.
                    false => Err(self.challenge(index, false)),
                };
            }
        };
        let now = u64::from(self.clock.now) / 1000;
        if self.nonces.is_none() {
            self.nonces = Nonces::new(NONCE_LIFETIME).ok();
        }
        if self.nonces.is_none() {
            return Err(self.fail(index, 503));
        }
        let conn = self.conns.get(index).and_then(Option::as_ref);
        let exchange = conn.and_then(|conn| conn.exchange.as_deref());
        let (Some(exchange), Some(nonces)) = (exchange, self.nonces.as_mut()) else {
            return Err(Flow::Leave);
        };
        let domain = &self.options.config.auth_domain;
        match judge(exchange, &passwords, domain, nonces, now) {
            Verdict::Granted { user } => {
                self.log_user(index, &user);
                Ok(())
            }
            Verdict::Denied => Err(self.challenge(index, false)),
            Verdict::Stale => Err(self.challenge(index, true)),
        }
    }

    /// 401: asks for a name and a password.
    fn challenge(&mut self, index: usize, stale: bool) -> Flow {
        let now = u64::from(self.clock.now) / 1000;
        if self.nonces.is_none() {
            self.nonces = Nonces::new(NONCE_LIFETIME).ok();
        }
        let Some(nonces) = self.nonces.as_mut() else { return self.fail(index, 503) };
        let nonce = nonces.issue(now);
        let mut field = Vec::new();
        digest::challenge(&mut field, &self.options.config.auth_domain, &nonce, stale);
        if let Some(exchange) = self.exchange(index) {
            exchange.fields.extend_from_slice(&field);
        }
        self.fail(index, 401)
    }

    /// RFC 9110, section 15.5.6: 405 says what is allowed.
    pub(super) fn refuse_method(&mut self, index: usize) -> Flow {
        if let Some(exchange) = self.exchange(index) {
            exchange.fields.extend_from_slice(METHODS);
        }
        self.fail(index, 405)
    }

    /// Sends a file, the ranges that are asked for, or word that the client has it already.
    fn begin_file(&mut self, index: usize, known: Entry) -> Flow {
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

/// Judges what a request says of its user.
fn judge(
    exchange: &Exchange,
    passwords: &Known,
    domain: &str,
    nonces: &mut Nonces,
    now: u64,
) -> Verdict {
    let head = exchange.buf.get(..exchange.head.len).unwrap_or_default();
    let mut fields = exchange
        .head
        .pairs(head)
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"authorization"))
        .map(|(_, value)| value);
    // Of two answers it is not known which one counts.
    let (Some(authorization), None) = (fields.next(), fields.next()) else {
        return Verdict::Denied;
    };
    let request = digest::Request {
        method: head.get(exchange.head.method.range()).unwrap_or_default(),
        target: head.get(exchange.head.target.range()).unwrap_or_default(),
    };
    match content_of(passwords) {
        Ok(bytes) => digest::check(authorization, request, domain, &bytes, nonces, now),
        Err(_) => Verdict::Denied,
    }
}

/// All bytes of a small file.
fn content_of(known: &Known) -> io::Result<Cow<'_, [u8]>> {
    match &known.content {
        Content::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
        Content::Open(file) => {
            let mut bytes = Vec::new();
            let len = usize::try_from(known.len).unwrap_or(usize::MAX);
            bytes.try_reserve_exact(len)?;
            bytes.resize(len, 0);
            file.read_exact_at(&mut bytes, 0)?;
            Ok(Cow::Owned(bytes))
        }
    }
}

fn status_of(error: &io::Error) -> u16 {
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
