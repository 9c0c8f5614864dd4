//! Answers with files: conditions, ranges, and the bytes (RFC 9110, sections 13 and 14).
//!
//! Refuses to know how a file was chosen, and when its bytes are sent. The kernel moves them to a socket
//! that the wire names.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;

use mio::net::TcpStream;
use rustix::buffer::spare_capacity;
use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};

use super::head::HeadWriter;
use super::{Begun, Broken, Ended, PIECE, Progress, Source};
use crate::exchange::context::Context;
use crate::exchange::outbox::Outbox;
use crate::exchange::request::Request;
use crate::files::cache::{Content, Entry};
use crate::files::patience::Question;
use crate::files::representation::Representation;
use crate::http::conditional::{self, Outcome, Validators};
use crate::http::range::{self, Multipart, Ranges};

/// The smallest number of bytes for which the kernel sends from the file. Fewer bytes are cheaper
/// to copy to the outbox than to send by a call of their own.
const TRANSFER_FROM: u64 = 8 * 1024;

/// The rest of a file that is being sent.
pub struct FileBody {
    known: Entry,
    /// The range of the file that is being sent.
    range: Range<u64>,
    /// Further ranges, each with the bytes in front of it.
    more: VecDeque<(Vec<u8>, Range<u64>)>,
    /// The bytes behind the last range.
    tail: Vec<u8>,
    /// The look in which the file was last compared with its known metadata.
    checked: u64,
    /// Set if the kernel cannot move this file to the socket by itself.
    copies: bool,
    /// The time since which the disk has been reading what comes next, in milliseconds of the clock.
    reading: Option<u32>,
    /// What a helper reads of a file on a slow file system.
    piece: Piece,
}

/// The next bytes of a file that helpers read.
#[derive(Default)]
enum Piece {
    #[default]
    None,
    /// The number of the errand that brings it.
    Awaited(u64),
    Read(io::Result<Vec<u8>>),
}

/// The parts of a file that an answer has.
struct Selection {
    status: u16,
    first: Range<u64>,
    more: VecDeque<(Vec<u8>, Range<u64>)>,
    tail: Vec<u8>,
}

/// Begins an answer with a file: with the requested ranges, or with 304 if the client has the file
/// already.
pub fn begin(
    file: Representation,
    request: &mut Request,
    out: &mut Outbox,
    cx: &mut Context,
) -> Begun {
    let head = &request.head;
    let bytes = request.buf.get(..head.len).unwrap_or_default();
    let etag = file.etag();
    let known = &file.known;
    let validators = Validators { etag: &etag, modified: known.modified };
    let outcome = conditional::evaluate(head, bytes, Some(validators));
    if outcome == Outcome::PreconditionFailed {
        return Begun::Failed(412);
    }
    let is_get = bytes.get(head.method.range()) == Some(b"GET");
    let ranges = match head.value(bytes, "range") {
        Some(value) if is_get && conditional::ranges_count(head, bytes, validators) => {
            range::parse(value, known.len)
        }
        _ => Ranges::Whole,
    };
    if outcome == Outcome::Proceed && ranges == Ranges::Unsatisfiable {
        range::unsatisfied_range(known.len, &mut request.fields);
        return Begun::Failed(416);
    }
    let is_known = outcome == Outcome::NotModified;
    let date = cx.clock.date();
    let extra = &cx.options.config.extra_headers;
    let selection = write_head(&file, ranges, is_known, request, date, extra, &mut out.bytes);
    let Selection { first, more, tail, .. } = selection;
    let has_content = !first.is_empty() || !more.is_empty();
    if request.head.is_head || !has_content {
        return Begun::Complete;
    }
    if let Content::Bytes(content) = &known.content
        && more.is_empty()
        && out.bytes.try_reserve(content.len()).is_ok()
    {
        // The content shares a call with the head.
        let range = first.start as usize..first.end as usize;
        out.bytes.extend_from_slice(content.get(range).unwrap_or_default());
        return Begun::Complete;
    }
    // While content arrived, turns may have passed since the last look at the file.
    let checked = if request.arrived == 0 { cx.files.look() } else { 0 };
    let body = FileBody {
        known: file.known,
        range: first,
        more,
        tail,
        checked,
        copies: false,
        reading: None,
        piece: Piece::None,
    };
    Begun::Source(Source::File(Box::new(body)))
}

/// Writes the head of the answer, and returns the parts of the file that follow it. `is_known` says
/// that the client has the file.
#[inline]
fn write_head(
    file: &Representation,
    ranges: Ranges,
    is_known: bool,
    request: &mut Request,
    date: &str,
    extra: &[u8],
    out: &mut Vec<u8>,
) -> Selection {
    let len = file.known.len;
    let persists = request.decide_persistence(!is_known);
    let mut selection =
        Selection { status: 206, first: 0..0, more: VecDeque::new(), tail: Vec::new() };
    selection.status = match ranges {
        _ if is_known => 304,
        Ranges::Whole | Ranges::Unsatisfiable => 200,
        Ranges::One(_) | Ranges::Several(_) => 206,
    };
    let mut head = HeadWriter::begin(out, selection.status);
    head.date(date);
    match ranges {
        _ if is_known => {
            head.write_by(|out| file.write_validators(out));
            head.connection(persists);
        }
        Ranges::Whole | Ranges::Unsatisfiable => {
            head.write_by(|out| file.write_fields(out));
            head.connection(persists);
            head.lines(ACCEPTS);
            selection.first = 0..len;
        }
        Ranges::One(range) => {
            head.write_by(|out| file.write_fields_but_length(out));
            head.length(range.end - range.start);
            head.connection(persists);
            head.lines(ACCEPTS);
            head.write_by(|out| range::content_range(&range, len, out));
            selection.first = range;
        }
        Ranges::Several(ranges) => {
            let boundary = random_token();
            let media_type = file.media_type();
            let parts = Multipart { boundary: &boundary, media_type, len };
            head.write_by(|out| file.write_validators(out));
            head.write_by(|out| parts.content_type(out));
            head.length(parts.content_length(&ranges));
            head.connection(persists);
            head.lines(ACCEPTS);
            for (place, range) in ranges.into_iter().enumerate() {
                let mut part = Vec::new();
                parts.part_head(&range, place == 0, &mut part);
                selection.more.push_back((part, range));
            }
            parts.end(&mut selection.tail);
        }
    }
    head.write_by(|out| file.write_form(selection.status != 304, out));
    head.end(extra, request);
    selection
}

/// The field that offers ranges.
const ACCEPTS: &[u8] = b"Accept-Ranges: bytes\r\n";

/// Returns a random text of letters and digits, so that no file can contain it on purpose.
fn random_token() -> String {
    let mut bytes = [0; 16];
    // The kernel refuses only before it has any randomness, early in its own start.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Stands for a file that has changed since its head was sent.
// No call returns this one.
pub const CHANGED: Errno = Errno::NOTUNIQ;
/// Stands for bytes that the disk has to read first.
pub const NOT_CACHED: Errno = Errno::INPROGRESS;

/// The distance in bytes at which a file is probed for what is in the page cache.
const PROBE_STEP: u64 = 256 << 10;
/// The number of bytes that the disk is asked to read ahead.
const READ_AHEAD: u64 = 2 << 20;
/// The longest time in milliseconds for which a disk is waited for without holding the loop. Where the
/// cache never has what was asked for, the bytes are read nevertheless.
const PATIENCE_MS: u32 = 1000;

impl FileBody {
    /// Copies the next piece to the outbox.
    pub fn produce(mut self: Box<Self>, out: &mut Outbox, cx: &mut Context) -> Progress {
        if self.is_slow() {
            return self.produce_slowly(out, cx);
        }
        if !self.is_cached(PIECE as u64, cx.clock.now) {
            return Progress::Reads(Source::File(self));
        }
        match self.read(&mut out.bytes, cx.files.look()) {
            Ok(count) => {
                cx.turn.spend(count);
                match self.is_sent() {
                    true => Progress::Ended(Ended::Complete),
                    false => Progress::More(Source::File(self)),
                }
            }
            Err(error) => Progress::Ended(Ended::Broken(Broken::of_file(&error))),
        }
    }

    /// Returns whether only helpers may read the file.
    fn is_slow(&self) -> bool {
        self.known.is_slow() && matches!(self.known.content, Content::Open(_))
    }

    /// Puts what a helper has read into the outbox, and wants more.
    fn produce_slowly(mut self: Box<Self>, out: &mut Outbox, cx: &mut Context) -> Progress {
        match std::mem::take(&mut self.piece) {
            Piece::Awaited(number) => {
                self.piece = Piece::Awaited(number);
                return Progress::Waits(Source::File(self));
            }
            Piece::Read(Ok(piece)) => {
                self.range.start += piece.len() as u64;
                cx.turn.spend(piece.len());
                if let Err(error) = out.bytes.try_reserve(piece.len()) {
                    return Progress::Ended(Ended::Broken(Broken::of_file(&error.into())));
                }
                out.bytes.extend_from_slice(&piece);
            }
            Piece::Read(Err(error)) => {
                return Progress::Ended(Ended::Broken(Broken::of_file(&error)));
            }
            Piece::None => {}
        }
        if self.range.is_empty() && !self.is_sent() {
            // What stands between two ranges is no part of the file.
            return match self.read(&mut out.bytes, cx.files.look()) {
                Ok(_) if self.is_sent() => Progress::Ended(Ended::Complete),
                Ok(_) => Progress::More(Source::File(self)),
                Err(error) => Progress::Ended(Ended::Broken(Broken::of_file(&error))),
            };
        }
        if self.is_sent() {
            return Progress::Ended(Ended::Complete);
        }
        let end = self.range.end.min(self.range.start.saturating_add(PIECE as u64));
        let question = Question::Piece(self.known.clone(), self.range.start..end);
        Progress::Asks(question, Source::File(self))
    }

    /// Notes the errand that brings the next piece.
    pub fn await_piece(&mut self, number: u64) {
        self.piece = Piece::Awaited(number);
    }

    /// Returns whether the next piece is being read.
    pub fn awaits_piece(&self) -> bool {
        matches!(self.piece, Piece::Awaited(_))
    }

    /// Takes the piece that the errand `number` has brought. Returns false if it is not awaited.
    pub fn take_piece(&mut self, number: u64, piece: io::Result<Vec<u8>>) -> bool {
        let is_awaited = matches!(self.piece, Piece::Awaited(awaited) if awaited == number);
        if is_awaited {
            self.piece = Piece::Read(piece);
        }
        is_awaited
    }

    /// Has the file copied from now on, since the kernel cannot move it to the socket by itself.
    pub fn copy_on(&mut self) {
        self.copies = true;
    }

    /// Returns whether all bytes are sent or in the outbox.
    pub fn is_sent(&self) -> bool {
        self.range.is_empty() && self.more.is_empty() && self.tail.is_empty()
    }

    /// Returns whether the next bytes go straight to the socket.
    pub fn is_transfer(&self) -> bool {
        let left = self.range.end.saturating_sub(self.range.start);
        let is_open = matches!(self.known.content, Content::Open(_));
        left >= TRANSFER_FROM && !self.copies && is_open && !self.known.is_slow()
    }

    /// Returns whether the next `len` bytes of the file can be read without waiting for the disk, as far
    /// as a few probes tell. If not, the disk is asked to read them.
    fn is_cached(&mut self, len: u64, now: u32) -> bool {
        let Content::Open(file) = &self.known.content else { return true };
        let end = self.range.end.min(self.range.start.saturating_add(len));
        let mut at = self.range.start;
        while at < end {
            if !has_page(file, at) {
                let since = *self.reading.get_or_insert_with(|| {
                    // If this fails, the bytes are read when the time is over.
                    let len = NonZeroU64::new(READ_AHEAD);
                    let _ = rustix::fs::fadvise(file, at, len, Advice::WillNeed);
                    now
                });
                return now.wrapping_sub(since) > PATIENCE_MS;
            }
            at += PROBE_STEP;
        }
        self.reading = None;
        true
    }

    /// Sends at most `share` bytes of the file. `now` is in milliseconds of the clock.
    pub fn transfer(
        &mut self,
        socket: &TcpStream,
        share: usize,
        look: u64,
        now: u32,
    ) -> rustix::io::Result<usize> {
        self.check(look).map_err(|error| Errno::from_io_error(&error).unwrap_or(CHANGED))?;
        if !self.is_cached(share as u64, now) {
            return Err(NOT_CACHED);
        }
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

    /// Compares the file with its known metadata, once in each look.
    fn check(&mut self, look: u64) -> io::Result<()> {
        if self.checked != look {
            if !self.known.is_unchanged()? {
                return Err(ErrorKind::InvalidData.into());
            }
            self.checked = look;
        }
        Ok(())
    }

    /// Appends the next piece to `out`, and returns its length.
    fn read(&mut self, out: &mut Vec<u8>, look: u64) -> io::Result<usize> {
        if self.range.is_empty() {
            if let Some((head, range)) = self.more.pop_front() {
                out.extend_from_slice(&head);
                self.range = range;
            } else {
                out.append(&mut self.tail);
            }
            return Ok(0);
        }
        self.check(look)?;
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(PIECE);
        out.try_reserve(left.min(PIECE))?;
        let count = match &self.known.content {
            Content::Bytes(bytes) => {
                let start = self.range.start as usize;
                let piece = bytes.get(start..start + left.min(PIECE)).unwrap_or_default();
                out.extend_from_slice(piece);
                piece.len()
            }
            Content::Open(file) => append_from(file, self.range.start, left.min(PIECE), out)?,
        };
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.range.start += count as u64;
        Ok(count)
    }
}

/// Appends at most `len` bytes of a file from `offset` on to `out`, which has room for them. Returns
/// their number.
fn append_from(file: &File, offset: u64, len: usize, out: &mut Vec<u8>) -> io::Result<usize> {
    let before = out.len();
    // Reading into the spare capacity saves setting it to zero, but always fills all of it.
    let excess = (out.capacity() - before).saturating_sub(len);
    if excess <= len / 8 {
        retry_on_intr(|| rustix::io::pread(file, spare_capacity(out), offset))?;
        out.truncate(before + len);
        return Ok(out.len() - before);
    }
    out.resize(before + len, 0);
    let read = read_at(file, out.get_mut(before..).unwrap_or_default(), offset);
    out.truncate(before + *read.as_ref().unwrap_or(&0));
    read
}

/// Reads bytes of a file from `offset` on, and returns their number. A signal may interrupt that, as on a
/// file system of the network.
pub fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    Ok(retry_on_intr(|| rustix::io::pread(file, &mut *buf, offset))?)
}

/// Returns whether a byte of a file can be read without waiting for the disk, as far as the file system
/// can tell.
fn has_page(file: &File, at: u64) -> bool {
    let mut byte = [0];
    let bufs = &mut [IoSliceMut::new(&mut byte)];
    !matches!(rustix::io::preadv2(file, bufs, at, ReadWriteFlags::NOWAIT), Err(Errno::AGAIN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::cache::Cache;
    use crate::files::mime::Types;

    fn known(content: &[u8], name: &str) -> (std::path::PathBuf, Entry) {
        let path = std::env::temp_dir().join(format!("sending-{name}-{}", std::process::id()));
        std::fs::write(&path, content).expect("a file");
        let known = Cache::new(0, 1, Types::default()).get(&path, 1).expect("the file");
        (path, known)
    }

    fn body(
        known: Entry,
        range: Range<u64>,
        more: VecDeque<(Vec<u8>, Range<u64>)>,
        tail: Vec<u8>,
    ) -> FileBody {
        FileBody {
            known,
            range,
            more,
            tail,
            checked: 1,
            copies: false,
            reading: None,
            piece: Piece::None,
        }
    }

    #[test]
    fn where_the_kernel_does_not_send_a_file_it_is_copied() {
        let content: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        let (path, known) = known(&content, "copied");
        let more = VecDeque::from([(b"<head>".to_vec(), 7..200_007)]);
        let mut body = body(known, 10..299_990, more, b"<tail>".to_vec());
        assert!(body.is_transfer());
        body.copies = true;
        assert!(!body.is_transfer());
        let mut out = Vec::new();
        while !body.is_sent() {
            let before = out.len();
            body.read(&mut out, 2).expect("it has not changed");
            assert!(out.len() - before <= PIECE);
        }
        let wanted = [&content[10..299_990], b"<head>", &content[7..200_007], b"<tail>"].concat();
        assert!(out == wanted);
        std::fs::remove_file(path).expect("the file");
    }

    #[test]
    fn no_more_is_appended_than_was_asked_for() {
        let content: Vec<u8> = (0..9_000u32).map(|n| (n % 251) as u8).collect();
        let path = std::env::temp_dir().join(format!("appending-{}", std::process::id()));
        std::fs::write(&path, &content).expect("a file");
        let file = File::open(&path).expect("the file");
        // Spare capacity: what is wanted, a little more, much more.
        for spare in [4000, 4400, 8500] {
            let mut out = Vec::with_capacity(5 + spare);
            out.extend_from_slice(b"head:");
            assert_eq!(append_from(&file, 100, 4000, &mut out).expect("bytes"), 4000);
            assert!(out == [b"head:", &content[100..4100]].concat(), "{spare}");
            out.truncate(5);
            assert_eq!(append_from(&file, 8_000, 4000, &mut out).expect("bytes"), 1000);
            assert!(out == [b"head:", &content[8_000..]].concat(), "{spare}");
            out.truncate(5);
            assert_eq!(append_from(&file, 9_000, 4000, &mut out).expect("the end"), 0);
            assert!(out == b"head:", "{spare}");
        }
        std::fs::remove_file(path).expect("the file");
    }

    #[test]
    fn a_file_that_is_copied_is_compared_once_a_look() {
        let (path, known) = known(&[b'x'; 300_000], "changed");
        let mut body = body(known, 0..300_000, VecDeque::new(), Vec::new());
        let mut out = Vec::new();
        assert!(body.read(&mut out, 1).is_ok());
        std::fs::write(&path, [b'y'; 300_001]).expect("another content");
        assert!(body.read(&mut out, 2).is_err());
        assert!(out.iter().all(|byte| *byte == b'x'));
        std::fs::remove_file(path).expect("the file");
    }
}
