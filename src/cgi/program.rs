//! A program that was started and is not reaped: its pipes, its complaints, and how far its life
//! has come.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::process::Signal;

use super::process::{Child, Input, Pipes};

/// Tokens that a program has: one for each of its pipes, and one for its end.
pub(super) const TOKENS_EACH: usize = 4;
const INPUT: usize = 0;
const OUTPUT: usize = 1;
const ERRORS: usize = 2;
const END: usize = 3;

/// Bytes taken from a pipe at once.
const PIPE: usize = 64 * 1024;
/// How long a program may take to end when it is told to.
pub(super) const GRACE_MS: u32 = 1_000;
/// How often a program is looked at that the kernel gives no notice of.
const LOOK_MS: u32 = 50;
/// The longest line of a program's complaints, and how many bytes of them go to the error log.
const LINE: usize = 1024;
const COMPLAINTS: usize = 256 * 1024;
/// How often its complaints are read before others have their turn.
const READS: usize = 16;

/// The connection whose request a program answers.
#[derive(Clone, Copy)]
pub struct Owner {
    pub index: u32,
    pub address: SocketAddr,
}

/// The result of an attempt to read a program's output.
pub enum Output {
    Got(usize),
    Wait,
    End,
}

/// A line for the error log, and the client that it is about.
pub type Complaint = (Option<SocketAddr>, String);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Life {
    /// It answers a request.
    Serving,
    /// Its answer is complete, since then.
    Finishing(u32),
    /// It was told to end, then.
    Dying { since: u32, killed: bool },
}

/// See the module.
pub(super) struct Program {
    child: Child,
    /// The name that the error log has for it.
    pub name: String,
    pub owner: Option<Owner>,
    input: Option<Input>,
    input_ready: bool,
    /// The program was slower than the client.
    input_blocked: bool,
    /// Content that the pipe has not taken, from `start` on.
    pending: Vec<u8>,
    start: usize,
    /// More content will come.
    expects_more: bool,
    output: Option<OwnedFd>,
    pub output_ready: bool,
    /// Bytes in the pipe when the program has ended: what others write after that is no part of
    /// its answer.
    left: Option<u64>,
    errors: Option<OwnedFd>,
    errors_ready: bool,
    line: Vec<u8>,
    complained: usize,
    /// Bytes it wrote behind its answer.
    pub unwanted: usize,
    pub has_ended: bool,
    pub life: Life,
    /// Milliseconds of the server's clock: when bytes were last moved.
    pub progress: u32,
    /// It was silent for too long.
    pub expired: bool,
    /// It is in the list of those of which there is news.
    pub stirred: bool,
}

impl Program {
    pub fn new(child: Child, pipes: Pipes, name: String, owner: Owner, now: u32) -> Self {
        Self {
            child,
            name,
            owner: Some(owner),
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

    /// Has the kernel announce what happens to its pipes, and its end. `first`: the first of its
    /// tokens.
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

    /// Notes what the kernel has announced by the token of this kind.
    pub fn note_event(&mut self, kind: usize) {
        match kind {
            INPUT => self.input_ready = true,
            OUTPUT => self.output_ready = true,
            ERRORS => self.errors_ready = true,
            _ => {}
        }
    }

    /// Whether it answers a request, or does not end though it was told to.
    pub fn is_running(&self) -> bool {
        match self.life {
            Life::Serving => self.output.is_some(),
            Life::Finishing(_) => false,
            Life::Dying { .. } => !self.has_ended,
        }
    }

    /// Finds out whether it has ended.
    pub fn look_for_end(&mut self) {
        if !self.has_ended && self.child.has_ended() {
            self.has_ended = true;
            // Others that hold the pipe open are not waited for.
            let output = self.output.as_ref();
            self.left = output.and_then(|output| rustix::io::ioctl_fionread(output).ok());
            self.output_ready = true;
        }
    }

    /// The same while the server ends. True if the programs that it has started have ended, too:
    /// then only its complaints are left to be read.
    pub fn look_for_last(&mut self) -> bool {
        self.errors_ready = true;
        self.look_for_end();
        self.has_ended && !self.child.group_lives()
    }

    /// Whether it has ended, and nothing is left to be done to what it has started.
    pub fn is_over(&self) -> bool {
        let waits = matches!(self.life, Life::Dying { killed: false, .. });
        self.has_ended && !(waits && self.child.group_lives())
    }

    /// Milliseconds until it is to be looked at. `timeout`: the option, in milliseconds; 0 for none.
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

    /// Tells it to end.
    pub fn end(&mut self, now: u32) {
        self.life = Life::Dying { since: now, killed: false };
        self.child.signal(Signal::TERM);
        // A stopped program does not see the signal.
        self.child.signal(Signal::CONT);
    }

    /// Ends it, and what it has started.
    pub fn kill(&mut self) {
        self.child.signal(Signal::KILL);
    }
}

/// Its pipes. The registry is the one by which the kernel watches them.
impl Program {
    /// Adds to the content that it is given. False if there is no memory for it.
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

    /// Sets all the content that it is given: what lies behind `start` in `content`.
    pub fn give_whole(&mut self, content: Vec<u8>, start: usize) {
        (self.pending, self.start, self.expects_more) = (content, start, false);
    }

    /// Moves content into the pipe; true if it had been blocked and all of it went.
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
                // Not while the other end is ours, too.
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

    /// Whether it has taken all content that was given to it.
    pub fn takes(&self) -> bool {
        self.pending.is_empty()
    }

    /// Reads output into `buf`, which is made as long as need be.
    pub fn read(&mut self, buf: &mut Vec<u8>, now: u32, registry: Option<&Registry>) -> Output {
        buf.resize(PIPE, 0);
        let Some(output) = &self.output else { return Output::End };
        loop {
            if !self.output_ready {
                return Output::Wait;
            }
            let left = self.left.map_or(PIPE, |left| left.min(PIPE as u64) as usize);
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
                // All is read, and what it has left behind is no part of the answer.
                Err(_) => break,
            }
        }
        self.close_output(registry);
        Output::End
    }

    /// Drops the content that it has not taken, and lets it read no more.
    pub fn stop_feeding(&mut self, registry: Option<&Registry>) {
        (self.pending, self.start) = (Vec::new(), 0);
        self.close_input(registry);
    }

    /// Closes its pipes, and ends the events of its end.
    pub fn close(&mut self, registry: Option<&Registry>, complaints: &mut Vec<Complaint>) {
        self.close_input(registry);
        self.close_output(registry);
        self.close_errors(registry, complaints);
        if let Some(pidfd) = self.child.pidfd() {
            unwatch(registry, pidfd.as_raw_fd());
        }
    }

    fn close_input(&mut self, registry: Option<&Registry>) {
        if let Some(input) = self.input.take() {
            unwatch(registry, input.pipe.as_raw_fd());
        }
    }

    fn close_output(&mut self, registry: Option<&Registry>) {
        if let Some(output) = self.output.take() {
            unwatch(registry, output.as_raw_fd());
        }
    }

    fn close_errors(&mut self, registry: Option<&Registry>, complaints: &mut Vec<Complaint>) {
        self.end_line(complaints);
        if let Some(errors) = self.errors.take() {
            unwatch(registry, errors.as_raw_fd());
        }
    }
}

/// Its lines for the error log.
impl Program {
    /// Whether it may have written complaints that are not read.
    pub fn has_complaints(&self) -> bool {
        self.errors_ready && self.errors.is_some()
    }

    /// Reads its complaints, as long as there are fewer than `most` lines in the list.
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

    fn note_complaint(&mut self, bytes: &[u8], complaints: &mut Vec<Complaint>) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(complaints),
                _ if self.line.len() < LINE => self.line.push(*byte),
                _ => {}
            }
        }
    }

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
        complaints.push((self.owner.map(|owner| owner.address), text));
    }
}

/// A forked child may hold the same pipe open: closing ours would not end its events.
fn unwatch(registry: Option<&Registry>, fd: RawFd) {
    if let Some(registry) = registry {
        let _ = registry.deregister(&mut SourceFd(&fd));
    }
}

/// A line of a program's as text.
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
