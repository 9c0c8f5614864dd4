//! Answers from the file system.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::Server;
use super::connection::{Exchange, Phase};
use super::replies;
use super::step::Flow;
use crate::auth::digest::{self, Verdict};
use crate::auth::nonce::Nonces;
use crate::files::cache::{Content, Entry, Known};
use crate::files::directory::Reader;
use crate::files::listing::{self, Order};
use crate::files::resolve;
use crate::http::status::write_status_line;

/// What plain files allow.
const METHODS: &[u8] = b"Allow: GET, HEAD, POST, OPTIONS\r\n";

/// How long a nonce of digest authentication lasts, in seconds.
const NONCE_LIFETIME: u64 = 300;
/// Names of a directory that are looked at before others have their turn.
const NAMES: usize = 256;

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

    /// Reads on in a directory; once all names are known, answers with the page.
    pub(super) fn send_listing(&mut self, index: usize) -> Flow {
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

pub(super) fn extend(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

pub(super) fn write_length(len: u64, out: &mut Vec<u8>) {
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
