//! Sends files: small ones behind their head in one piece, larger ones from the file straight to
//! the socket.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use mio::net::TcpStream;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::connection::Phase;
use super::replies;
use super::step::Flow;
use super::{Server, random_token};
use crate::files::cache::{Content, Entry};
use crate::http::conditional::{self, Outcome, Validators};
use crate::http::range::{self, Multipart, Ranges};
use crate::http::status::write_status_line;

/// What is copied is copied in pieces of this size.
pub(super) const PIECE: usize = 64 * 1024;
/// Shorter pieces are cheaper to copy behind what waits than to send by a call of their own.
const TRANSFER_FROM: u64 = 8 * 1024;
/// What the kernel moves for one connection in one turn. More than other work may move: a socket
/// that is filled in one go costs a good part less than one that is filled in turns.
const TRANSFER_PER_TURN: usize = 8 << 20;

/// The rest of a file that is being sent.
pub struct FileBody {
    known: Entry,
    /// What is sent of the file now.
    range: Range<u64>,
    /// Further ranges, each with what stands before its bytes.
    more: VecDeque<(Vec<u8>, Range<u64>)>,
    /// What stands behind the last range.
    tail: Vec<u8>,
    /// The turn in which the file was last compared with what is known of it.
    checked: u64,
    /// The kernel does not move this file to the socket by itself.
    copies: bool,
}

impl Server {
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
        // While a body arrived, turns may have passed since the file was looked at.
        let checked = if exchange.arrived == 0 { self.turns } else { 0 };
        exchange.file = Some(FileBody { known, range: first, more, tail, checked, copies: false });
        conn.phase = Phase::Sending;
        Flow::Again
    }

    /// Sends the next piece of a file, or of a page made for a directory.
    pub(super) fn send_file(&mut self, index: usize) -> Flow {
        if self.quota == 0 {
            self.make_ready(index);
            return Flow::Leave;
        }
        let Some(exchange) = self.exchange(index) else { return Flow::Leave };
        if exchange.file.as_ref().is_some_and(FileBody::is_transfer) {
            return self.transfer(index);
        }
        let is_listing = exchange.listing.is_some();
        if self.conn(index).is_some_and(|conn| conn.backlog() >= PIECE) {
            if !self.flush(index) {
                return Flow::Leave;
            }
            if self.conn(index).is_some_and(|conn| conn.backlog() >= PIECE) {
                return Flow::Leave;
            }
        }
        match is_listing {
            true => self.send_listing(index),
            false => self.copy(index),
        }
    }

    /// Moves the next piece of a file to the outbox.
    fn copy(&mut self, index: usize) -> Flow {
        if self.outbox(index).is_none() {
            return Flow::Leave;
        }
        let turn = self.turns;
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return Flow::Leave;
        };
        let (Some(exchange), Some(out)) = (conn.exchange.as_deref_mut(), conn.out.as_deref_mut())
        else {
            return Flow::Leave;
        };
        match exchange.file.as_mut().map(|body| body.read(&mut out.bytes, turn)) {
            Some(Ok(count)) => self.file_moved(index, count),
            Some(Err(_)) | None => self.break_off(index),
        }
    }

    /// Sends a piece of a file straight to the socket, once all that stands before it is out.
    fn transfer(&mut self, index: usize) -> Flow {
        // The head goes into one segment with what follows.
        if !self.flush_with(index, SendFlags::MORE) {
            return Flow::Leave;
        }
        let (turn, now) = (self.turns, self.clock.now);
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return Flow::Leave;
        };
        if !conn.writable || conn.backlog() > 0 {
            return Flow::Leave;
        }
        let body = conn.exchange.as_deref_mut().and_then(|exchange| exchange.file.as_mut());
        let (Some(body), Some(out)) = (body, conn.out.as_deref_mut()) else {
            return Flow::Leave;
        };
        match body.transfer(&conn.socket, TRANSFER_PER_TURN, turn) {
            Ok(count) => {
                out.pass(count);
                conn.last_active = now;
                // Who tried again at once would send what trickles out of a full socket in bits.
                let whole = count == TRANSFER_PER_TURN || !body.is_transfer();
                conn.writable = whole || has_room(&conn.socket);
                self.file_moved(index, count)
            }
            Err(Errno::AGAIN) => {
                conn.writable = false;
                Flow::Leave
            }
            Err(Errno::INTR) => Flow::Again,
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                body.copies = true;
                Flow::Again
            }
            Err(CHANGED | Errno::IO) => self.break_off(index),
            Err(_) => {
                self.close(index);
                Flow::Leave
            }
        }
    }

    fn file_moved(&mut self, index: usize, count: usize) -> Flow {
        self.quota = self.quota.saturating_sub(count);
        if let Some(exchange) = self.exchange(index)
            && exchange.file.as_ref().is_some_and(FileBody::is_sent)
        {
            let persistent = exchange.head.persistent && !exchange.last;
            self.finish_exchange(index, persistent);
        }
        Flow::Again
    }

    /// The promised length cannot be kept, or not with bytes that belong together.
    fn break_off(&mut self, index: usize) -> Flow {
        self.complain(Some(index), "a file changed or became unreadable while it was sent");
        self.close(index);
        Flow::Leave
    }
}

/// Whether a socket that took less than it was given would take more. A signal, too, makes it take
/// less. If it is full, the question makes the kernel tell when it no longer is.
fn has_room(socket: &TcpStream) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::OUT)];
    // Whoever tries finds out.
    !matches!(rustix::event::poll(&mut fds, Some(&Timespec::default())), Ok(0))
}

/// Stands for a file that is no longer what it was when its head was sent.
const CHANGED: Errno = Errno::STALE;

impl FileBody {
    fn is_sent(&self) -> bool {
        self.range.is_empty() && self.more.is_empty() && self.tail.is_empty()
    }

    /// Whether the next bytes go straight to the socket.
    fn is_transfer(&self) -> bool {
        let left = self.range.end.saturating_sub(self.range.start);
        left >= TRANSFER_FROM && !self.copies && matches!(self.known.content, Content::Open(_))
    }

    /// Sends at most `share` bytes of the file.
    fn transfer(
        &mut self,
        socket: &TcpStream,
        share: usize,
        turn: u64,
    ) -> rustix::io::Result<usize> {
        self.check(turn).map_err(|_| CHANGED)?;
        let Content::Open(file) = &self.known.content else { return Err(CHANGED) };
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
        let mut offset = self.range.start;
        match rustix::fs::sendfile(socket, file, Some(&mut offset), left.min(share))? {
            0 => Err(CHANGED),
            count => {
                self.range.start += count as u64;
                Ok(count)
            }
        }
    }

    /// Compares the file with what is known of it, once a turn.
    fn check(&mut self, turn: u64) -> io::Result<()> {
        let Content::Open(file) = &self.known.content else { return Ok(()) };
        if self.checked != turn {
            let meta = file.metadata()?;
            let stamp = (meta.mtime(), meta.mtime_nsec());
            if meta.len() != self.known.len || stamp != self.known.stamp {
                return Err(ErrorKind::InvalidData.into());
            }
            self.checked = turn;
        }
        Ok(())
    }

    /// Appends the next piece to `out`, and returns its length.
    fn read(&mut self, out: &mut Vec<u8>, turn: u64) -> io::Result<usize> {
        if self.range.is_empty() {
            if let Some((head, range)) = self.more.pop_front() {
                out.extend_from_slice(&head);
                self.range = range;
            } else {
                out.append(&mut self.tail);
            }
            return Ok(0);
        }
        self.check(turn)?;
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

pub(super) fn extend(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

pub(super) fn write_length(len: u64, out: &mut Vec<u8>) {
    extend(out, &[b"Content-Length: ", itoa::Buffer::new().format(len).as_bytes(), b"\r\n"]);
}
