//! A CGI program that was started and is not reaped: its pipes (POSIX `pipe`, `read`, `write`), its
//! complaints, and the state of its life.
//!
//! Refuses to know other programs, and the meaning of the output.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::process::Signal;

use super::process::{Child, Input, Pipes};
use crate::peer::Peer;

/// The number of tokens of a program: one for each pipe, and one for its end.
pub(super) const TOKENS_EACH: usize = 4;
const INPUT: usize = 0;
const OUTPUT: usize = 1;
const ERRORS: usize = 2;
const END: usize = 3;

/// The number of bytes that are read from a pipe at once.
const PIPE: usize = 64 * 1024;
/// The same where there is little memory.
const PIECE: usize = 2 * 1024;
/// The time in milliseconds that a program has to end after SIGTERM, before SIGKILL.
pub(super) const GRACE_MS: u32 = 1_000;
/// The interval in milliseconds for looking at a program whose end the kernel does not announce.
const LOOK_MS: u32 = 50;
/// The longest line of complaints, and the number of bytes of one program's complaints that go to
/// the error log.
const LINE: usize = 1024;
const COMPLAINTS: usize = 256 * 1024;
/// The number of reads of complaints before others have their turn.
const READS: usize = 16;

/// The connection whose request a program answers.
#[derive(Clone, Copy)]
pub struct Owner {
    pub index: u32,
    pub address: Peer,
}

/// The result of an attempt to read a program's output.
pub enum Output {
    Got(usize),
    Wait,
    End,
}

/// A line for the error log, and the client that it is about.
pub type Complaint = (Peer, String);

/// The state of a program's life.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Life {
    /// The program answers a request.
    Serving,
    /// The answer is complete since this time.
    Finishing(u32),
    /// The program was told to end at this time.
    Dying { since: u32, killed: bool },
}

/// A program that is not reaped.
pub(super) struct Program {
    child: Child,
    /// The name of the program in the error log.
    pub name: String,
    /// The client for which it was started. What it complains of may be read when the answer is
    /// complete, and the program has no owner any more.
    pub client: Peer,
    /// The index of the connection that it answers.
    pub owner: Option<u32>,
    input: Option<Input>,
    input_ready: bool,
    /// Set while the pipe is full: the program is slower than the client.
    input_blocked: bool,
    /// The content that the pipe has not taken, from `start` on.
    pending: Vec<u8>,
    start: usize,
    /// Set while more content is to come.
    expects_more: bool,
    output: Option<OwnedFd>,
    pub output_ready: bool,
    /// The number of bytes in the pipe at the end of the program. Bytes that other processes write
    /// later are not part of its answer.
    left: Option<u64>,
    errors: Option<OwnedFd>,
    errors_ready: bool,
    line: Vec<u8>,
    complained: usize,
    /// The number of bytes that the program has written behind its answer.
    pub unwanted: usize,
    pub has_ended: bool,
    pub life: Life,
    /// The time at which bytes were last moved, in milliseconds of the server's clock.
    pub progress: u32,
    /// Set when the program was silent for too long.
    pub expired: bool,
    /// Set if the program is in the list of those of which there is news.
    pub stirred: bool,
}

impl Program {
    /// Creates a program that has just been started.
    pub fn new(child: Child, pipes: Pipes, name: String, owner: Owner, now: u32) -> Self {
        Self {
            child,
            name,
            client: owner.address,
            owner: Some(owner.index),
            input: pipes.input,
            input_ready: true,
            input_blocked: false,
            pending: Vec::new(),
            start: 0,
            expects_more: true,
            output: Some(pipes.output),
            output_ready: false,
            left: None,
            errors: pipes.errors,
            errors_ready: false,
            line: Vec::new(),
            complained: 0,
            unwanted: 0,
            has_ended: false,
            life: Life::Serving,
            progress: now,
            expired: false,
            stirred: false,
        }
    }

    /// Has the kernel announce events of the pipes, and the end of the program. `first` is the
    /// first of its tokens.
    pub fn watch(&self, registry: &Registry, first: Token) -> io::Result<()> {
        let watch = |fd: RawFd, kind: usize, interest: Interest| {
            registry.register(&mut SourceFd(&fd), Token(first.0 + kind), interest)
        };
        if let Some(output) = &self.output {
            watch(output.as_raw_fd(), OUTPUT, Interest::READABLE)?;
        }
        if let Some(input) = &self.input {
            watch(input.pipe.as_raw_fd(), INPUT, Interest::WRITABLE)?;
        }
        if let Some(errors) = &self.errors {
            watch(errors.as_raw_fd(), ERRORS, Interest::READABLE)?;
        }
        match self.child.pidfd() {
            Some(pidfd) => watch(pidfd.as_raw_fd(), END, Interest::READABLE),
            None => Ok(()),
        }
    }

    /// Notes the event of the token of this kind.
    pub fn note_event(&mut self, kind: usize) {
        match kind {
            INPUT => self.input_ready = true,
            OUTPUT => self.output_ready = true,
            ERRORS => self.errors_ready = true,
            _ => {}
        }
    }

    /// Returns whether the program answers a request, or has not ended though it was told to.
    pub fn is_running(&self) -> bool {
        match self.life {
            Life::Serving => self.output.is_some(),
            Life::Finishing(_) => false,
            Life::Dying { .. } => !self.has_ended,
        }
    }

    /// Finds out whether the program has ended.
    pub fn look_for_end(&mut self) {
        if !self.has_ended && self.child.has_ended() {
            self.has_ended = true;
            // Other processes that hold the pipe open are not waited for.
            let output = self.output.as_ref();
            self.left = output.and_then(|output| rustix::io::ioctl_fionread(output).ok());
            self.output_ready = true;
        }
    }

    /// Finds out whether the program has ended, while the server ends. Returns true if the
    /// processes that it has started have ended, too: then only its complaints are left to read.
    pub fn look_for_last(&mut self) -> bool {
        self.errors_ready = true;
        self.look_for_end();
        self.has_ended && !self.child.group_lives()
    }

    /// Returns whether the program has ended, and nothing remains to be done about the processes
    /// that it has started.
    pub fn is_over(&self) -> bool {
        let waits = matches!(self.life, Life::Dying { killed: false, .. });
        self.has_ended && !(waits && self.child.group_lives())
    }

    /// Returns the milliseconds until the program needs attention. `timeout` is the longest silence
    /// in milliseconds; 0 for no limit.
    pub fn look_ahead(&self, timeout: u64, now: u32) -> u32 {
        let since = match self.life {
            Life::Serving => self.progress,
            Life::Finishing(since) | Life::Dying { since, .. } => since,
        };
        let allowed = match self.life {
            Life::Dying { .. } => GRACE_MS,
            _ if timeout == 0 => u32::MAX / 4,
            _ => u32::try_from(timeout).unwrap_or(u32::MAX).min(u32::MAX / 4),
        };
        let ahead = allowed.saturating_sub(now.wrapping_sub(since)).max(1);
        if self.child.pidfd().is_none() { ahead.min(LOOK_MS) } else { ahead }
    }

    /// Tells the program to end.
    pub fn end(&mut self, now: u32) {
        self.life = Life::Dying { since: now, killed: false };
        self.child.signal(Signal::TERM);
        // A stopped program does not act on the signal before it continues.
        self.child.signal(Signal::CONT);
    }

    /// Kills the program, and the processes that it has started.
    pub fn kill(&mut self) {
        self.child.signal(Signal::KILL);
    }
}

/// The pipes of a program. The registry is the one by which the kernel watches them.
impl Program {
    /// Adds content for the program. Returns false if there is no memory for it.
    pub fn give(&mut self, content: &[u8], is_last: bool) -> bool {
        self.expects_more &= !is_last;
        if self.input.is_none() {
            return true;
        }
        if self.pending.try_reserve(content.len()).is_err() {
            return false;
        }
        self.pending.extend_from_slice(content);
        true
    }

    /// Sets all content for the program, which is in `content` from `start` on.
    pub fn give_whole(&mut self, content: Vec<u8>, start: usize) {
        (self.pending, self.start, self.expects_more) = (content, start, false);
    }

    /// Moves content into the pipe. Returns true if the pipe had been full and now has taken all
    /// content.
    pub fn feed(&mut self, now: u32, registry: Option<&Registry>) -> bool {
        let Some(input) = &self.input else { return false };
        while self.input_ready && self.start < self.pending.len() {
            match rustix::io::write(&input.pipe, &self.pending[self.start..]) {
                Ok(count) => {
                    self.start += count;
                    self.progress = now;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.input_ready = false;
                    self.input_blocked = true;
                }
                // This cannot happen while the reading end is open here, too.
                Err(_) => self.start = self.pending.len(),
            }
        }
        if self.start < self.pending.len() {
            return false;
        }
        self.start = 0;
        self.pending.clear();
        self.pending.shrink_to(PIPE);
        let was_blocked = std::mem::take(&mut self.input_blocked);
        if !self.expects_more {
            self.close_input(registry);
        }
        was_blocked
    }

    /// Returns whether the program has taken all content that it was given.
    pub fn takes(&self) -> bool {
        self.pending.is_empty()
    }

    /// Reads output into `buf`, which is made long enough.
    pub fn read(&mut self, buf: &mut Vec<u8>, now: u32, registry: Option<&Registry>) -> Output {
        // With little memory it is read in small pieces.
        let room =
            if buf.try_reserve(PIPE.saturating_sub(buf.len())).is_ok() { PIPE } else { PIECE };
        buf.resize(room, 0);
        let Some(output) = &self.output else { return Output::End };
        loop {
            if !self.output_ready {
                return Output::Wait;
            }
            let left = self.left.map_or(room, |left| left.min(room as u64) as usize);
            if left == 0 {
                break;
            }
            match rustix::io::read(output, &mut buf[..left]) {
                Ok(0) => break,
                Ok(count) => {
                    self.left = self.left.map(|left| left.saturating_sub(count as u64));
                    self.progress = now;
                    return Output::Got(count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if !self.has_ended => self.output_ready = false,
                // All output is read, and what other processes left in the pipe is not part of the
                // answer.
                Err(_) => break,
            }
        }
        self.close_output(registry);
        Output::End
    }

    /// Drops the content that the program has not taken, and closes its input.
    pub fn stop_feeding(&mut self, registry: Option<&Registry>) {
        (self.pending, self.start) = (Vec::new(), 0);
        self.close_input(registry);
    }

    /// Closes the pipes, and ends the events of the program.
    pub fn close(&mut self, registry: Option<&Registry>, complaints: &mut Vec<Complaint>) {
        self.close_input(registry);
        self.close_output(registry);
        self.close_errors(registry, complaints);
        if let Some(pidfd) = self.child.pidfd() {
            unwatch(registry, pidfd.as_raw_fd());
        }
    }

    /// Closes the pipe of the program's input.
    fn close_input(&mut self, registry: Option<&Registry>) {
        if let Some(input) = self.input.take() {
            unwatch(registry, input.pipe.as_raw_fd());
        }
    }

    /// Closes the pipe of the program's output.
    fn close_output(&mut self, registry: Option<&Registry>) {
        if let Some(output) = self.output.take() {
            unwatch(registry, output.as_raw_fd());
        }
    }

    /// Closes the pipe of the complaints, whose last line is kept.
    fn close_errors(&mut self, registry: Option<&Registry>, complaints: &mut Vec<Complaint>) {
        self.end_line(complaints);
        if let Some(errors) = self.errors.take() {
            unwatch(registry, errors.as_raw_fd());
        }
    }
}

/// The lines of a program for the error log.
impl Program {
    /// Returns whether there may be complaints that are not read.
    pub fn has_complaints(&self) -> bool {
        self.errors_ready && self.errors.is_some()
    }

    /// Reads complaints, while fewer than `most` lines are in the list.
    pub fn take_complaints(
        &mut self,
        registry: Option<&Registry>,
        complaints: &mut Vec<Complaint>,
        most: usize,
    ) {
        let mut buf = [0; 4096];
        for _ in 0..READS {
            let Some(errors) = self.errors.as_ref().filter(|_| self.errors_ready) else { return };
            if complaints.len() >= most {
                return;
            }
            match rustix::io::read(errors, &mut buf) {
                Ok(count @ 1..) => self.note_complaint(&buf[..count], complaints),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.errors_ready = false,
                Ok(0) | Err(_) => self.close_errors(registry, complaints),
            }
        }
    }

    /// Adds bytes of complaints to the current line, and ends it at each line feed.
    fn note_complaint(&mut self, bytes: &[u8], complaints: &mut Vec<Complaint>) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(complaints),
                _ if self.line.len() < LINE => self.line.push(*byte),
                _ => {}
            }
        }
    }

    /// Ends the current line, and puts it into the list.
    fn end_line(&mut self, complaints: &mut Vec<Complaint>) {
        let line = std::mem::take(&mut self.line);
        if self.complained > COMPLAINTS || line.is_empty() {
            return;
        }
        self.complained += line.len() + 1;
        let mut text = format!("{}: {}", self.name, printable(&line));
        if self.complained > COMPLAINTS {
            text.push_str(" (what follows is left out)");
        }
        complaints.push((self.client, text));
    }
}

/// Ends the events of a pipe. A forked child may hold the same pipe open, so that closing it would
/// not end them.
fn unwatch(registry: Option<&Registry>, fd: RawFd) {
    if let Some(registry) = registry {
        let _ = registry.deregister(&mut SourceFd(&fd));
    }
}

/// Returns a line of a program as text.
fn printable(line: &[u8]) -> String {
    let end = line.iter().rposition(|byte| *byte != b'\r').map_or(0, |last| last + 1);
    crate::log::shown(OsStr::from_bytes(&line[..end]))
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_line_of_the_error_log_is_harmless() {
        assert_eq!(printable("caf\u{e9}\tx\r".as_bytes()), "caf\u{e9} x");
        assert_eq!(printable(b"a\x1b[31m\rb\xff"), "a\\u{1b}[31m\\u{d}b\\xff");
    }
}
