//! The programs that the server has started: their pipes, their complaints, their end.
//!
//! A program has an owner, the connection whose request it answers. One whose answer is complete,
//! or whose client has gone, has none; it is looked after until it has ended and is reaped.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::process::Signal;

use super::Server;
use super::connection::Conn;
use super::context::Context;
use super::timers::Timers;
use crate::cgi::process::{self, Child, Input, Spec};

/// Tokens from here on belong to programs: four to each.
const TOKENS: usize = 1 << 30;
const INPUT: usize = 0;
const OUTPUT: usize = 1;
const ERRORS: usize = 2;
const END: usize = 3;

/// Bytes taken from a pipe at once.
const PIPE: usize = 64 * 1024;
/// How long a program may take to end when it is told to.
const GRACE_MS: u32 = 1_000;
/// How often a program is looked at that the kernel gives no notice of.
const LOOK_MS: u32 = 50;
/// How much a program may write behind its answer, and how many may run on after theirs.
const UNWANTED: usize = 1 << 20;
const MAX_FINISHING: usize = 16;
/// The longest line of a program's complaints, and how many bytes of them go to the error log.
const LINE: usize = 1024;
const COMPLAINTS: usize = 256 * 1024;

/// A program that was started and is not reaped.
pub(super) struct Program {
    child: Child,
    /// What the error log calls it.
    name: String,
    owner: Option<Owner>,
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
    output_ready: bool,
    /// What is in the pipe since the program has ended: what others may write is no part of it.
    left: Option<u64>,
    errors: Option<OwnedFd>,
    errors_ready: bool,
    line: Vec<u8>,
    complained: usize,
    /// Bytes it wrote behind its answer.
    unwanted: usize,
    has_ended: bool,
    life: Life,
    /// Milliseconds of the server's clock: when bytes were last moved.
    progress: u32,
    /// It was silent for too long.
    expired: bool,
    stirred: bool,
}

/// The connection whose request a program answers.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    pub index: u32,
    pub address: SocketAddr,
}

/// The programs of a server.
pub(super) struct Programs {
    /// By number; a free place is `None`.
    pub list: Vec<Option<Box<Program>>>,
    pub free: Vec<usize>,
    pub timers: Timers,
    /// Those of which there is news.
    pub stirred: Vec<usize>,
    /// Where their output is read to.
    pub buf: Vec<u8>,
    /// How the kernel is told which pipes to watch; present while there is an event queue.
    pub registry: Option<Registry>,
    /// Connections to look at, since there is news of their programs.
    woken: Vec<u32>,
}

impl Programs {
    pub fn new(now: u32) -> Self {
        Self {
            list: Vec::new(),
            free: Vec::new(),
            timers: Timers::new(now),
            stirred: Vec::new(),
            buf: Vec::new(),
            registry: None,
            woken: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Life {
    /// It answers a request.
    Serving,
    /// Its answer is complete, since then.
    Finishing(u32),
    /// It was told to end, then.
    Dying { since: u32, killed: bool },
}

/// What came of an attempt to read a program's output.
pub(super) enum Output {
    Got(usize),
    Wait,
    End,
}

impl Server {
    /// Looks after the programs of which there is news.
    pub(super) fn tend_programs(&mut self) {
        let Self { conns, cx, .. } = self;
        let mut due = std::mem::take(&mut self.due);
        cx.programs.timers.expire(cx.clock.now, &mut due);
        for id in due.drain(..) {
            let id = id as usize;
            let Some(owner) = cx.program(id).map(|program| program.owner) else { continue };
            let conn = owner.and_then(|owner| conns.get_mut(owner.index as usize)?.as_deref_mut());
            let waited_for = conn.is_none_or(|conn: &mut Conn| conn.waits_for_program(cx));
            cx.program_due(id, waited_for);
        }
        self.due = due;
        for id in std::mem::take(&mut cx.programs.stirred) {
            if let Some(program) = cx.program(id) {
                program.stirred = false;
                cx.tend(id);
            }
        }
        let mut woken = std::mem::take(&mut cx.programs.woken);
        for index in woken.drain(..) {
            if let Some(conn) = conns.get_mut(index as usize).and_then(Option::as_deref_mut) {
                conn.make_ready(cx);
            }
        }
        cx.programs.woken = woken;
    }
}

impl Context {
    /// Starts a program for a connection and returns its number.
    pub(super) fn start_program(
        &mut self,
        owner: Owner,
        spec: &Spec<'_>,
        name: String,
    ) -> io::Result<usize> {
        let Some(registry) = &self.programs.registry else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let (child, pipes) = process::spawn(spec)?;
        let id = match self.programs.free.pop() {
            Some(id) => id,
            None => {
                self.programs.list.push(None);
                self.programs.list.len() - 1
            }
        };
        let watch = |fd: RawFd, kind: usize, interest: Interest| {
            registry.register(&mut SourceFd(&fd), token(id, kind), interest)
        };
        let mut watched = watch(pipes.output.as_raw_fd(), OUTPUT, Interest::READABLE);
        if let Some(input) = &pipes.input {
            watched = watched.and(watch(input.pipe.as_raw_fd(), INPUT, Interest::WRITABLE));
        }
        if let Some(errors) = &pipes.errors {
            watched = watched.and(watch(errors.as_raw_fd(), ERRORS, Interest::READABLE));
        }
        if let Some(pidfd) = child.pidfd() {
            watched = watched.and(watch(pidfd.as_raw_fd(), END, Interest::READABLE));
        }
        self.programs.list[id] = Some(Box::new(Program {
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
            progress: self.clock.now,
            expired: false,
            stirred: false,
        }));
        self.file_program(id);
        if let Err(error) = watched {
            self.release_program(id, false);
            return Err(error);
        }
        Ok(id)
    }

    /// Whether another program may be started: content that takes its time may have been sent for
    /// one, and others started meanwhile.
    pub fn has_room_for_program(&self) -> io::Result<()> {
        match self.options.config.max_cgi_processes {
            0 => Ok(()),
            most if self.running_programs() < most => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::WouldBlock, "max_cgi_processes are running")),
        }
    }

    /// How many answer a request, or do not end though they were told to. Those that have written
    /// their answers have a bound of their own.
    fn running_programs(&self) -> usize {
        let runs = |program: &Program| match program.life {
            Life::Serving => program.output.is_some(),
            Life::Finishing(_) => false,
            Life::Dying { .. } => !program.has_ended,
        };
        self.programs.list.iter().flatten().filter(|program| runs(program)).count()
    }

    fn running(&self, id: usize) -> Option<&Program> {
        self.programs.list.get(id)?.as_deref()
    }

    fn program(&mut self, id: usize) -> Option<&mut Program> {
        self.programs.list.get_mut(id)?.as_deref_mut()
    }

    /// Whether this token is a program's; if so, what it announces is noted.
    pub(super) fn program_event(&mut self, Token(token): Token) -> bool {
        // The two highest tokens are the server's own; the numbers of connections stand above these.
        if !(TOKENS..(usize::MAX - 1).min(u32::MAX as usize)).contains(&token) {
            return false;
        }
        let (id, kind) = ((token - TOKENS) / 4, (token - TOKENS) % 4);
        let Some(program) = self.program(id) else { return true };
        match kind {
            INPUT => program.input_ready = true,
            OUTPUT => program.output_ready = true,
            ERRORS => program.errors_ready = true,
            _ => {}
        }
        self.stir(id);
        true
    }

    fn stir(&mut self, id: usize) {
        if let Some(program) = self.program(id)
            && !program.stirred
        {
            program.stirred = true;
            self.programs.stirred.push(id);
        }
    }

    fn tend(&mut self, id: usize) {
        self.take_complaints(id);
        let Some(program) = self.program(id) else { return };
        if !program.has_ended && program.child.has_ended() {
            program.has_ended = true;
            // Whoever else holds the pipe open is not waited for.
            let output = program.output.as_ref();
            program.left = output.and_then(|output| rustix::io::ioctl_fionread(output).ok());
            program.output_ready = true;
        }
        if let Some(owner) = program.owner {
            self.programs.woken.push(owner.index);
            return;
        }
        // Nobody wants the rest, but the program may want to write it.
        let mut buf = std::mem::take(&mut self.programs.buf);
        let mut left = 16;
        while left > 0
            && let Output::Got(count) = self.read_program(id, &mut buf)
        {
            left -= 1;
            if let Some(program) = self.program(id) {
                program.unwanted = program.unwanted.saturating_add(count);
            }
        }
        self.programs.buf = buf;
        let Some(program) = self.program(id) else { return };
        if program.unwanted > UNWANTED && matches!(program.life, Life::Finishing(_)) {
            let line = format!("{}: writes on after its answer", program.name);
            self.complain(&line);
            self.end_program(id);
        }
        if left == 0 {
            self.stir(id);
        }
        let Some(program) = self.program(id) else { return };
        let waits = matches!(program.life, Life::Dying { killed: false, .. });
        if program.has_ended && !(waits && program.child.group_lives()) {
            self.forget_program(id);
        }
    }

    /// Gives the program more of the request's content. `last`: all of it has come.
    pub(super) fn give_program(&mut self, id: usize, content: &[u8], last: bool) -> bool {
        let Some(program) = self.program(id) else { return true };
        program.expects_more &= !last;
        if program.input.is_none() {
            return true;
        }
        if program.pending.try_reserve(content.len()).is_err() {
            return false;
        }
        program.pending.extend_from_slice(content);
        self.feed_program(id);
        true
    }

    /// Gives the program all of the request's content: what lies behind `start` in `content`.
    pub(super) fn give_whole(&mut self, id: usize, content: Vec<u8>, start: usize) {
        let Some(program) = self.program(id) else { return };
        (program.pending, program.start, program.expects_more) = (content, start, false);
        self.feed_program(id);
    }

    /// Moves content into the pipe; true if it had been blocked and all of it went.
    pub(super) fn feed_program(&mut self, id: usize) -> bool {
        let now = self.clock.now;
        let Some(program) = self.program(id) else { return false };
        let Some(input) = &program.input else { return false };
        while program.input_ready && program.start < program.pending.len() {
            match rustix::io::write(&input.pipe, &program.pending[program.start..]) {
                Ok(count) => {
                    program.start += count;
                    program.progress = now;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    program.input_ready = false;
                    program.input_blocked = true;
                }
                // Not while the other end is ours, too.
                Err(_) => program.start = program.pending.len(),
            }
        }
        if program.start < program.pending.len() {
            return false;
        }
        program.start = 0;
        program.pending.clear();
        program.pending.shrink_to(PIPE);
        let was_blocked = std::mem::take(&mut program.input_blocked);
        if !program.expects_more {
            self.close_input(id);
        }
        was_blocked
    }

    /// Whether the program has taken all content that was given to it.
    pub(super) fn program_takes(&self, id: usize) -> bool {
        self.running(id).is_none_or(|program| program.pending.is_empty())
    }

    /// Whether there is output to be read.
    pub(super) fn program_has_output(&self, id: usize) -> bool {
        self.running(id).is_some_and(|program| program.output_ready)
    }

    /// What the error log calls it.
    pub(super) fn program_name(&self, id: usize) -> String {
        self.running(id).map(|program| program.name.clone()).unwrap_or_default()
    }

    pub(super) fn program_expired(&self, id: usize) -> bool {
        self.running(id).is_some_and(|program| program.expired)
    }

    /// Reads output into `buf`, which is made as long as need be.
    pub(super) fn read_program(&mut self, id: usize, buf: &mut Vec<u8>) -> Output {
        let now = self.clock.now;
        buf.resize(PIPE, 0);
        let Some(program) = self.program(id) else { return Output::End };
        let Some(output) = &program.output else { return Output::End };
        loop {
            if !program.output_ready {
                return Output::Wait;
            }
            let left = program.left.map_or(PIPE, |left| left.min(PIPE as u64) as usize);
            if left == 0 {
                break;
            }
            match rustix::io::read(output, &mut buf[..left]) {
                Ok(0) => break,
                Ok(count) => {
                    program.left = program.left.map(|left| left.saturating_sub(count as u64));
                    program.progress = now;
                    self.files.look_again();
                    return Output::Got(count);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) if !program.has_ended => {
                    program.output_ready = false;
                }
                // All is read, and what it has left behind is no part of the answer.
                Err(_) => break,
            }
        }
        self.close_output(id);
        // It may have changed files.
        self.files.look_again();
        Output::End
    }

    /// Its connection does without it from now on. `answered`: it has done what it was to do,
    /// and may end in peace; else it is told to.
    pub(super) fn release_program(&mut self, id: usize, answered: bool) {
        let now = self.clock.now;
        let Some(program) = self.program(id) else { return };
        program.owner = None;
        (program.pending, program.start) = (Vec::new(), 0);
        self.close_input(id);
        if answered {
            let Some(program) = self.program(id) else { return };
            program.life = Life::Finishing(now);
            self.bound_finishing();
        } else {
            self.end_program(id);
        }
        self.file_program(id);
        self.stir(id);
    }

    /// Programs that run on after their answers are no client's: only so many may.
    fn bound_finishing(&mut self) {
        let now = self.clock.now;
        let finishing = self.programs.list.iter().enumerate().filter_map(|(id, program)| {
            match program.as_deref()?.life {
                Life::Finishing(since) => Some((now.wrapping_sub(since), id)),
                Life::Serving | Life::Dying { .. } => None,
            }
        });
        let (count, oldest) = (finishing.clone().count(), finishing.max());
        if let Some((_, id)) = oldest.filter(|_| count > MAX_FINISHING) {
            let name = self.program_name(id);
            self.complain(&format!("{name}: too many programs run on after their answers"));
            self.end_program(id);
        }
    }

    fn end_program(&mut self, id: usize) {
        let now = self.clock.now;
        let Some(program) = self.program(id) else { return };
        program.life = Life::Dying { since: now, killed: false };
        program.child.signal(Signal::TERM);
        // A stopped program does not see the signal.
        program.child.signal(Signal::CONT);
        self.file_program(id);
        self.stir(id);
    }

    /// Files the program's timer.
    fn file_program(&mut self, id: usize) {
        let timeout = self.options.config.cgi_timeout_ms;
        let now = self.clock.now;
        let Some(program) = self.program(id) else { return };
        let since = match program.life {
            Life::Serving => program.progress,
            Life::Finishing(since) | Life::Dying { since, .. } => since,
        };
        let allowed = match program.life {
            Life::Dying { .. } => GRACE_MS,
            _ if timeout == 0 => u32::MAX / 4,
            _ => u32::try_from(timeout).unwrap_or(u32::MAX).min(u32::MAX / 4),
        };
        let mut ahead = allowed.saturating_sub(now.wrapping_sub(since)).max(1);
        if program.child.pidfd().is_none() {
            ahead = ahead.min(LOOK_MS);
        }
        self.programs.timers.set(id as u32, now.wrapping_add(ahead), now);
    }

    /// Files the timers of all programs anew, as the option has changed.
    pub(super) fn file_programs(&mut self) {
        for id in 0..self.programs.list.len() {
            self.file_program(id);
        }
    }

    /// A program's timer has come due. `waited_for`: it is not a client that is slow.
    fn program_due(&mut self, id: usize, waited_for: bool) {
        let now = self.clock.now;
        let timeout = self.options.config.cgi_timeout_ms;
        let Some(program) = self.program(id) else { return };
        let owner = program.owner;
        let over = |since: u32| timeout > 0 && u64::from(now.wrapping_sub(since)) >= timeout;
        match program.life {
            Life::Serving if !waited_for => program.progress = now,
            Life::Serving if over(program.progress) && !program.expired => {
                program.expired = true;
                let line = format!("{}: silent for {timeout} ms", program.name);
                self.complain_of_owner(owner, &line);
            }
            Life::Finishing(since) if over(since) => {
                let line = format!("{}: runs on after its answer", program.name);
                self.complain(&line);
                self.end_program(id);
            }
            Life::Dying { since, .. } if now.wrapping_sub(since) >= GRACE_MS => {
                program.life = Life::Dying { since: now, killed: true };
                program.child.signal(Signal::KILL);
            }
            _ => {}
        }
        self.file_program(id);
        self.stir(id);
    }

    /// Reads what the program has to say to the error log.
    fn take_complaints(&mut self, id: usize) {
        let mut buf = [0; 4096];
        for _ in 0..16 {
            let Some(program) = self.program(id) else { return };
            let Some(errors) = program.errors.as_ref().filter(|_| program.errors_ready) else {
                return;
            };
            match rustix::io::read(errors, &mut buf) {
                Ok(count @ 1..) => self.note_complaint(id, &buf[..count]),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    program.errors_ready = false;
                    return;
                }
                Ok(0) | Err(_) => {
                    self.close_errors(id);
                    return;
                }
            }
        }
        self.stir(id);
    }

    fn note_complaint(&mut self, id: usize, bytes: &[u8]) {
        for byte in bytes {
            let Some(program) = self.program(id) else { return };
            match byte {
                b'\n' => self.log_complaint(id),
                _ if program.line.len() < LINE => program.line.push(*byte),
                _ => {}
            }
        }
    }

    fn log_complaint(&mut self, id: usize) {
        let Some(program) = self.program(id) else { return };
        let line = std::mem::take(&mut program.line);
        if program.complained > COMPLAINTS || line.is_empty() {
            return;
        }
        program.complained += line.len() + 1;
        let mut text = format!("{}: {}", program.name, printable(&line));
        if program.complained > COMPLAINTS {
            text.push_str(" (what follows is left out)");
        }
        let owner = program.owner;
        self.complain_of_owner(owner, &text);
    }

    fn complain_of_owner(&mut self, owner: Option<Owner>, what: &str) {
        match owner {
            Some(Owner { address, .. }) => self.complain_of(address, what),
            None => self.complain(what),
        }
    }

    fn close_input(&mut self, id: usize) {
        if let Some(input) = self.program(id).and_then(|program| program.input.take()) {
            self.unwatch(input.pipe.as_raw_fd());
        }
    }

    fn close_output(&mut self, id: usize) {
        if let Some(output) = self.program(id).and_then(|program| program.output.take()) {
            self.unwatch(output.as_raw_fd());
        }
    }

    fn close_errors(&mut self, id: usize) {
        self.log_complaint(id);
        if let Some(errors) = self.program(id).and_then(|program| program.errors.take()) {
            self.unwatch(errors.as_raw_fd());
        }
    }

    /// A forked child may hold the same pipe open: closing ours would not end its events.
    fn unwatch(&self, fd: RawFd) {
        if let Some(registry) = &self.programs.registry {
            let _ = registry.deregister(&mut SourceFd(&fd));
        }
    }

    fn forget_program(&mut self, id: usize) {
        self.close_input(id);
        self.close_output(id);
        self.close_errors(id);
        self.programs.timers.clear(id as u32);
        let Some(program) = self.programs.list.get_mut(id).and_then(Option::take) else {
            return;
        };
        if let Some(pidfd) = program.child.pidfd() {
            self.unwatch(pidfd.as_raw_fd());
        }
        self.programs.free.push(id);
    }

    /// After a fork: they are the parent's children.
    pub(super) fn forget_all_programs(&mut self) {
        self.programs.list.clear();
        self.programs.free.clear();
        self.programs.stirred.clear();
    }

    /// Ends all programs, and waits for a short time until they have ended.
    pub(super) fn end_programs(&mut self) {
        for id in 0..self.programs.list.len() {
            let Some(program) = self.program(id) else { continue };
            match program.life {
                Life::Dying { .. } => {}
                // What it has left behind may stay.
                Life::Finishing(_) if program.child.has_ended() => self.forget_program(id),
                _ => self.release_program(id, false),
            }
        }
        self.programs.stirred.clear();
        for (signal, wait) in [(None, GRACE_MS), (Some(Signal::KILL), GRACE_MS)] {
            for program in self.programs.list.iter().flatten() {
                if let Some(signal) = signal {
                    program.child.signal(signal);
                }
            }
            let end = Instant::now() + Duration::from_millis(u64::from(wait));
            while self.some_program_lives() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    fn some_program_lives(&mut self) -> bool {
        for id in 0..self.programs.list.len() {
            let Some(program) = self.program(id) else { continue };
            program.errors_ready = true;
            program.has_ended |= program.child.has_ended();
            if program.has_ended && !program.child.group_lives() {
                self.take_complaints(id);
                self.forget_program(id);
            }
        }
        self.programs.list.iter().any(Option::is_some)
    }
}

fn token(id: usize, kind: usize) -> Token {
    Token(TOKENS + id * 4 + kind)
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
