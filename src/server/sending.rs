//! Moves files to sockets: by the kernel where it can, else by copying.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use mio::net::TcpStream;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::connection::Conn;
use super::context::Context;
use super::step::Flow;
use super::streams::Stream;
use crate::files::cache::{Content, Entry};

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
    /// The look in which the file was last compared with what is known of it.
    checked: u64,
    /// The kernel does not move this file to the socket by itself.
    copies: bool,
}

impl Conn {
    /// Sends the next piece of a file, or of what is told of a directory.
    pub(super) fn send_file(&mut self, cx: &mut Context) -> Flow {
        if cx.turn.bytes == 0 {
            self.make_ready(cx);
            return Flow::Leave;
        }
        let is_plain = self.tls.is_none();
        let Some(exchange) = self.exchange.as_deref_mut() else { return Flow::Leave };
        if is_plain && exchange.file.as_ref().is_some_and(FileBody::is_transfer) {
            return self.transfer(cx);
        }
        let is_listing = Stream::listing(&mut exchange.stream).is_some();
        let is_telling = Stream::telling(&mut exchange.stream).is_some();
        if self.backlog() >= PIECE {
            if !self.flush(cx) {
                return Flow::Close;
            }
            if self.backlog() >= PIECE {
                return Flow::Leave;
            }
        }
        match () {
            () if is_listing => self.send_listing(cx),
            () if is_telling => self.tell_on(cx),
            () => self.copy(cx),
        }
    }

    /// Moves the next piece of a file to the outbox.
    fn copy(&mut self, cx: &mut Context) -> Flow {
        self.outbox(cx);
        let look = cx.files.look();
        let (Some(exchange), Some(out)) = (self.exchange.as_deref_mut(), self.out.as_deref_mut())
        else {
            return Flow::Leave;
        };
        match exchange.file.as_mut().map(|body| body.read(&mut out.bytes, look)) {
            Some(Ok(count)) => self.file_moved(cx, count),
            Some(Err(_)) | None => self.break_off(cx),
        }
    }

    /// Sends a piece of a file straight to the socket, once all that stands before it is out.
    fn transfer(&mut self, cx: &mut Context) -> Flow {
        // The head goes into one segment with what follows.
        if !self.flush_with(cx, SendFlags::MORE) {
            return Flow::Leave;
        }
        let (look, now) = (cx.files.look(), cx.clock.now);
        if !self.writable || self.backlog() > 0 {
            return Flow::Leave;
        }
        let body = self.exchange.as_deref_mut().and_then(|exchange| exchange.file.as_mut());
        let (Some(body), Some(out)) = (body, self.out.as_deref_mut()) else {
            return Flow::Leave;
        };
        match body.transfer(&self.socket, TRANSFER_PER_TURN, look) {
            Ok(count) => {
                out.pass(count);
                self.last_active = now;
                // Who tried again at once would send what trickles out of a full socket in bits.
                let whole = count == TRANSFER_PER_TURN || !body.is_transfer();
                self.writable = whole || has_room(&self.socket);
                self.file_moved(cx, count)
            }
            Err(Errno::AGAIN) => {
                self.writable = false;
                Flow::Leave
            }
            Err(Errno::INTR) => Flow::Again,
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                body.copies = true;
                Flow::Again
            }
            Err(CHANGED | Errno::IO) => self.break_off(cx),
            Err(_) => Flow::Close,
        }
    }

    fn file_moved(&mut self, cx: &mut Context, count: usize) -> Flow {
        cx.turn.bytes = cx.turn.bytes.saturating_sub(count);
        if let Some(exchange) = self.exchange.as_deref_mut()
            && exchange.file.as_ref().is_some_and(FileBody::is_sent)
        {
            let persistent = exchange.head.persistent && !exchange.last;
            self.finish_exchange(cx, persistent);
        }
        Flow::Again
    }

    /// The promised length cannot be kept, or not with bytes that belong together.
    fn break_off(&mut self, cx: &mut Context) -> Flow {
        self.complain(cx, CHANGED_MEANWHILE);
        Flow::Close
    }
}

/// For the error log.
pub(super) const CHANGED_MEANWHILE: &str = "a file changed or became unreadable while it was sent";

/// Makes the end of a connection a reset: where nothing else ends an answer, an orderly end would
/// say that it is whole.
pub(super) fn reset_on_close(socket: &TcpStream) {
    // Where that fails the client can tell no more than it could.
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
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
    /// `checked` is the look in which the file was last compared with what is known of it.
    pub fn new(
        known: Entry,
        range: Range<u64>,
        more: VecDeque<(Vec<u8>, Range<u64>)>,
        tail: Vec<u8>,
        checked: u64,
    ) -> FileBody {
        FileBody { known, range, more, tail, checked, copies: false }
    }

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
        look: u64,
    ) -> rustix::io::Result<usize> {
        self.check(look).map_err(|_| CHANGED)?;
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

    /// Compares the file with what is known of it, once a look.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::cache::Cache;

    fn known(content: &[u8], name: &str) -> (std::path::PathBuf, Entry) {
        let path = std::env::temp_dir().join(format!("sending-{name}-{}", std::process::id()));
        std::fs::write(&path, content).expect("a file");
        let known = Cache::new(0, 1, Vec::new()).get(&path, 1).expect("the file");
        (path, known)
    }

    #[test]
    fn where_the_kernel_does_not_send_a_file_it_is_copied() {
        let content: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        let (path, known) = known(&content, "copied");
        let more = VecDeque::from([(b"<head>".to_vec(), 7..200_007)]);
        let mut body = FileBody::new(known, 10..299_990, more, b"<tail>".to_vec(), 1);
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
    fn a_file_that_is_copied_is_compared_once_a_look() {
        let (path, known) = known(&[b'x'; 300_000], "changed");
        let mut body = FileBody::new(known, 0..300_000, VecDeque::new(), Vec::new(), 1);
        let mut out = Vec::new();
        assert!(body.read(&mut out, 1).is_ok());
        std::fs::write(&path, [b'y'; 300_001]).expect("another content");
        assert!(body.read(&mut out, 2).is_err());
        assert!(out.iter().all(|byte| *byte == b'x'));
        std::fs::remove_file(path).expect("the file");
    }
}
