//! Answers with the content of a file that is stored compressed only (RFC 1952), to clients that do not
//! accept it so. It is unpacked as it is sent.
//!
//! The length is not known before the end: there are no ranges (RFC 9110, section 14.3), and content
//! that turns out to be damaged ends incomplete.

use std::io::{self, BufRead, ErrorKind, Read as _};

use flate2::bufread::MultiGzDecoder;

use super::file::read_at;
use super::head::HeadWriter;
use super::{Begun, Broken, Ended, PIECE, Progress, Source};
use crate::exchange::context::Context;
use crate::exchange::outbox::Outbox;
use crate::exchange::request::Request;
use crate::files::cache::{Content, Entry};
use crate::files::representation::Representation;
use crate::http::conditional::{self, Outcome, Validators};
use crate::http::outlet::Outlet;

/// The largest number of bytes that are read of the file before other connections have their turn. They
/// may unpack to nothing.
const READ: usize = 64 * 1024;

/// A file that is being unpacked.
pub struct Unpacked {
    decoder: MultiGzDecoder<Packed>,
    outlet: Outlet,
}

/// The compressed bytes of a file, of which a bounded number is read in a turn.
struct Packed {
    known: Entry,
    offset: u64,
    buf: Vec<u8>,
    /// The place in `buf` of what was not used yet.
    start: usize,
    left: usize,
}

/// Begins to send a file.
pub fn begin(
    file: &Representation,
    request: &mut Request,
    out: &mut Outbox,
    cx: &mut Context,
) -> Begun {
    let bytes = request.buf.get(..request.head.len).unwrap_or_default();
    let etag = file.etag();
    let validators = Validators { etag: &etag, modified: file.known.modified };
    let status = match conditional::evaluate(&request.head, bytes, Some(validators)) {
        Outcome::PreconditionFailed => return Begun::Failed(412),
        Outcome::NotModified => 304,
        Outcome::Proceed => 200,
    };
    let persists = request.decide_persistence(status == 304);
    let outlet = Outlet::choose(&request.head, status, None);
    let mut head = HeadWriter::begin(&mut out.bytes, status);
    head.date(cx.clock.date());
    match status {
        304 => head.write_by(|out| file.write_validators(out)),
        _ => {
            head.write_by(|out| file.write_fields_but_length(out));
            if request.head.minor == 1 {
                head.coding(Outlet::Chunks);
            }
        }
    }
    head.connection(persists);
    if status == 200 {
        head.lines(b"Accept-Ranges: none\r\n");
    }
    head.write_by(|out| file.write_form(status == 200, out));
    head.end(&cx.options.config.extra_headers, request);
    if outlet == Outlet::Nothing {
        return Begun::Complete;
    }
    let known = file.known.clone();
    let packed = Packed { known, offset: 0, buf: Vec::new(), start: 0, left: 0 };
    let decoder = MultiGzDecoder::new(packed);
    Begun::Source(Source::Unpacked(Box::new(Unpacked { decoder, outlet })))
}

impl Unpacked {
    /// Sends the next piece.
    pub fn produce(mut self: Box<Self>, out: &mut Outbox, cx: &mut Context) -> Progress {
        self.decoder.get_mut().left = READ;
        let mut piece = Vec::new();
        let read = piece.try_reserve_exact(PIECE).map_err(io::Error::from).and_then(|()| {
            piece.resize(PIECE, 0);
            self.decoder.read(&mut piece)
        });
        match read {
            Ok(0) => {
                self.outlet.finish(&mut out.bytes);
                return Progress::Ended(Ended::Complete);
            }
            Ok(count) if out.bytes.try_reserve(count + 32).is_ok() => {
                cx.turn.spend(count);
                self.outlet.write(piece.get(..count).unwrap_or_default(), &mut out.bytes);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => {
                let why = match read {
                    Err(error) => format!("a compressed file cannot be unpacked: {error}").into(),
                    Ok(_) => "no memory to unpack a file".into(),
                };
                let resets = self.outlet == Outlet::ToClose;
                return Progress::Ended(Ended::Broken(Broken { why, resets }));
            }
        }
        Progress::Yields(Source::Unpacked(self))
    }
}

impl Packed {
    /// Reads more of the file.
    fn fill(&mut self) -> io::Result<()> {
        self.buf.clear();
        self.start = 0;
        if !self.known.is_unchanged()? {
            return Err(ErrorKind::InvalidData.into());
        }
        let rest = usize::try_from(self.known.len.saturating_sub(self.offset));
        let len = rest.unwrap_or(usize::MAX).min(self.left);
        self.buf.try_reserve(len)?;
        self.buf.resize(len, 0);
        let count = match &self.known.content {
            Content::Bytes(bytes) => {
                let at = usize::try_from(self.offset).unwrap_or(usize::MAX);
                let piece = bytes.get(at..at.saturating_add(len)).unwrap_or_default();
                self.buf.clear();
                self.buf.extend_from_slice(piece);
                piece.len()
            }
            Content::Open(file) => read_at(file, &mut self.buf, self.offset)?,
        };
        self.buf.truncate(count);
        self.offset += count as u64;
        self.left -= count;
        Ok(())
    }
}

impl BufRead for Packed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start >= self.buf.len() && self.offset < self.known.len {
            if self.left == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.fill()?;
        }
        Ok(self.buf.get(self.start..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }
}

impl io::Read for Packed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}
