//! The CGI programs that a server has started (RFC 3875), from their start until they are reaped
//! (POSIX `waitpid`).
//!
//! A program has an owner, the connection whose request it answers. A program whose answer is
//! complete, or whose client has gone, has none, and is tended until it has ended and is reaped.
//! Refuses to know connections: an owner is a number here.
#![forbid(unsafe_code)]

use std::io;
use std::time::{Duration, Instant};

use mio::{Registry, Token};

use super::process::{self, Spec};
pub use super::program::{Complaint, Output, Owner};
use super::program::{GRACE_MS, Life, Program, TOKENS_EACH};
use crate::listening::MAX_ENTRIES;
use crate::timers::Timers;

/// The first token of programs. Each has [`TOKENS_EACH`].
const TOKENS: usize = 1 << 30;
/// The number of bytes that a program may write behind its answer, and the number of programs that
/// may run on after theirs.
const UNWANTED: usize = 1 << 20;
const MAX_FINISHING: usize = 16;
/// The number of reads of output that no connection wants, before others have their turn.
const UNWANTED_READS: usize = 16;
/// While this many lines wait for the error log, complaints of programs wait in their pipes.
const MAX_COMPLAINTS: usize = 1024;

/// The programs. Times are in milliseconds of the server's clock.
pub struct Programs {
    /// The programs by number; a free place is `None`.
    list: Vec<Option<Box<Program>>>,
    free: Vec<usize>,
    timers: Timers,
    /// The programs whose timers have come due; empty except while they are acted on.
    due: Vec<u32>,
    /// The programs of which there is news.
    stirred: Vec<usize>,
    /// The connections that need a turn, since there is news of their programs.
    woken: Vec<u32>,
    /// The registry that has the kernel watch pipes; present while there is an event queue.
    registry: Option<Registry>,
    /// The option `cgi_timeout_ms`: the longest silence of a program; 0 for no limit.
    timeout: u64,
    /// The buffer for a piece of output.
    pub buf: Vec<u8>,
    /// The lines for the error log in their order, which the server takes out.
    pub complaints: Vec<Complaint>,
}

impl Programs {
    /// Creates a table without programs, and without a limit to their silence.
    pub fn new(now: u32) -> Self {
        Self {
            list: Vec::new(),
            free: Vec::new(),
            timers: Timers::new(now),
            due: Vec::new(),
            stirred: Vec::new(),
            woken: Vec::new(),
            registry: None,
            timeout: 0,
            buf: Vec::new(),
            complaints: Vec::new(),
        }
    }

    /// Starts a program for a connection, and returns its number. `name` is its name in the error
    /// log.
    pub fn start(
        &mut self,
        owner: Owner,
        spec: &Spec<'_>,
        name: String,
        now: u32,
    ) -> io::Result<usize> {
        let Some(registry) = &self.registry else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let (child, pipes) = process::spawn(spec)?;
        let id = self.free.pop().unwrap_or(self.list.len());
        let program = Box::new(Program::new(child, pipes, name, owner, now));
        let watched = program.watch(registry, token(id));
        match self.list.get_mut(id) {
            Some(place) => *place = Some(program),
            None => self.list.push(Some(program)),
        }
        self.file(id, now);
        if let Err(error) = watched {
            self.release(id, false, now);
            return Err(error);
        }
        Ok(id)
    }

    /// Checks whether another program may be started where `most` may run at a time, or any number
    /// if that is 0. While content arrived for one program, others may have been started. Programs
    /// that have written their answers have a limit of their own.
    pub fn has_room(&self, most: usize) -> io::Result<()> {
        let running = || self.list.iter().flatten().filter(|program| program.is_running()).count();
        if most == 0 || running() < most {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "max_cgi_processes are running"))
    }

    /// Sets the longest silence of a program; 0 for no limit.
    pub fn set_timeout(&mut self, cgi_timeout_ms: u64, now: u32) {
        self.timeout = cgi_timeout_ms;
        for id in 0..self.list.len() {
            self.file(id, now);
        }
    }

    /// Returns whether the kernel can watch pipes.
    pub fn is_watched(&self) -> bool {
        self.registry.is_some()
    }

    /// Takes the registry that has the kernel watch pipes. Takes `None` after a fork, when the
    /// event queue is the parent's.
    pub fn watch_by(&mut self, registry: Option<Registry>) {
        self.registry = registry;
    }

    /// Returns whether no program was ever started.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns whether there is news of programs.
    pub fn is_busy(&self) -> bool {
        !self.stirred.is_empty()
    }

    /// Returns the milliseconds until a program needs attention; `None` if that is not foreseen.
    pub fn wait(&self, now: u32) -> Option<u32> {
        self.timers.wait(now)
    }

    /// Returns a program to be looked at.
    fn running(&self, id: usize) -> Option<&Program> {
        self.list.get(id)?.as_deref()
    }

    /// Returns a program to be changed.
    fn program(&mut self, id: usize) -> Option<&mut Program> {
        self.list.get_mut(id)?.as_deref_mut()
    }

    /// Returns a program together with the registry for its pipes.
    fn program_and_registry(&mut self, id: usize) -> Option<(&mut Program, Option<&Registry>)> {
        Some((self.list.get_mut(id)?.as_deref_mut()?, self.registry.as_ref()))
    }

    /// Sets the program's timer.
    fn file(&mut self, id: usize, now: u32) {
        let timeout = self.timeout;
        if let Some(program) = self.running(id) {
            let ahead = program.look_ahead(timeout, now);
            self.timers.set(id as u32, now.wrapping_add(ahead), now);
        }
    }

    /// Notes that there is news of a program.
    fn stir(&mut self, id: usize) {
        if let Some(program) = self.program(id)
            && !program.stirred
        {
            program.stirred = true;
            self.stirred.push(id);
        }
    }
}

/// The calls of connections that own programs. A number without a program belongs to one that has
/// ended.
impl Programs {
    /// Gives the program more of the request's content. `is_last` says that the content is
    /// complete. Returns false if there is no memory for it.
    pub fn give(&mut self, id: usize, content: &[u8], is_last: bool, now: u32) -> bool {
        let Some((program, registry)) = self.program_and_registry(id) else { return true };
        let is_given = program.give(content, is_last);
        if is_given {
            program.feed(now, registry);
        }
        is_given
    }

    /// Gives the program all of the request's content, which is in `content` from `start` on.
    pub fn give_whole(&mut self, id: usize, content: Vec<u8>, start: usize, now: u32) {
        if let Some((program, registry)) = self.program_and_registry(id) {
            program.give_whole(content, start);
            program.feed(now, registry);
        }
    }

    /// Moves content into the pipe. Returns true if the pipe had been full and now has taken all
    /// content.
    pub fn feed(&mut self, id: usize, now: u32) -> bool {
        let program = self.program_and_registry(id);
        program.is_some_and(|(program, registry)| program.feed(now, registry))
    }

    /// Returns whether the program has taken all content that it was given.
    pub fn takes(&self, id: usize) -> bool {
        self.running(id).is_none_or(Program::takes)
    }

    /// Returns whether there may be output to read.
    pub fn has_output(&self, id: usize) -> bool {
        self.running(id).is_some_and(|program| program.output_ready)
    }

    /// Returns the name of the program in the error log.
    pub fn name(&self, id: usize) -> String {
        self.running(id).map(|program| program.name.clone()).unwrap_or_default()
    }

    /// Returns whether the program was silent for too long.
    pub fn is_expired(&self, id: usize) -> bool {
        self.running(id).is_some_and(|program| program.expired)
    }

    /// Reads output into `buf`, which is made long enough. A program that has written or ended may
    /// have changed files.
    pub fn read(&mut self, id: usize, buf: &mut Vec<u8>, now: u32) -> Output {
        match self.program_and_registry(id) {
            Some((program, registry)) => program.read(buf, now, registry),
            None => Output::End,
        }
    }

    /// Separates a program from its connection. `answered` says that the answer is complete, so
    /// that the program may end by itself; else it is told to end.
    pub fn release(&mut self, id: usize, answered: bool, now: u32) {
        let Some((program, registry)) = self.program_and_registry(id) else { return };
        program.owner = None;
        program.stop_feeding(registry);
        if answered {
            program.life = Life::Finishing(now);
            self.bound_finishing(now);
        } else {
            program.end(now);
        }
        self.file(id, now);
        self.stir(id);
    }

    /// Bounds the number of programs that run on after their answers, since no client waits for
    /// them.
    fn bound_finishing(&mut self, now: u32) {
        let finishing = self.list.iter().enumerate().filter_map(|(id, program)| {
            match program.as_deref()?.life {
                Life::Finishing(since) => Some((now.wrapping_sub(since), id)),
                Life::Serving | Life::Dying { .. } => None,
            }
        });
        let (count, oldest) = (finishing.clone().count(), finishing.max());
        if let Some((_, id)) = oldest.filter(|_| count > MAX_FINISHING) {
            self.end_for(id, "too many programs run on after their answers", now);
        }
    }

    /// Tells a program to end, and reports the reason in the error log.
    fn end_for(&mut self, id: usize, why: &str, now: u32) {
        let Some(program) = self.program(id) else { return };
        program.end(now);
        let complaint = (program.client, format!("{}: {why}", program.name));
        self.complaints.push(complaint);
        self.file(id, now);
        self.stir(id);
    }
}

/// The calls of the event loop.
impl Programs {
    /// Notes an event. Returns false if the token is not that of a program.
    pub fn note_event(&mut self, Token(token): Token) -> bool {
        // The highest tokens are the server's own. The numbers of connections use the bits above
        // these.
        if !(TOKENS..(usize::MAX - MAX_ENTRIES).min(u32::MAX as usize)).contains(&token) {
            return false;
        }
        let (id, kind) = ((token - TOKENS) / TOKENS_EACH, (token - TOKENS) % TOKENS_EACH);
        if let Some(program) = self.program(id) {
            program.note_event(kind);
            self.stir(id);
        }
        true
    }

    /// Acts on the timers of programs that have come due. `waited_for` returns, for the index of an
    /// owner, whether that waits for its program and not for its client.
    pub fn expire(&mut self, now: u32, mut waited_for: impl FnMut(u32, &Programs) -> bool) {
        let mut due = std::mem::take(&mut self.due);
        self.timers.expire(now, &mut due);
        for id in due.drain(..) {
            let id = id as usize;
            let Some(program) = self.running(id) else { continue };
            let is_slow = program.owner.is_none_or(|index| waited_for(index, self));
            self.come_due(id, is_slow, now);
        }
        self.due = due;
    }

    /// Acts on the timer of a program, which has come due. `is_slow` says that the program is slow,
    /// and not its client.
    fn come_due(&mut self, id: usize, is_slow: bool, now: u32) {
        let timeout = self.timeout;
        let over = |since: u32| timeout > 0 && u64::from(now.wrapping_sub(since)) >= timeout;
        let Some(program) = self.program(id) else { return };
        match program.life {
            Life::Serving if !is_slow => program.progress = now,
            Life::Serving if over(program.progress) && !program.expired => {
                program.expired = true;
                let line = format!("{}: silent for {timeout} ms", program.name);
                let complaint = (program.client, line);
                self.complaints.push(complaint);
            }
            Life::Finishing(since) if over(since) => {
                self.end_for(id, "runs on after its answer", now);
            }
            Life::Dying { since, .. } if now.wrapping_sub(since) >= GRACE_MS => {
                program.life = Life::Dying { since: now, killed: true };
                program.kill();
            }
            _ => {}
        }
        self.file(id, now);
        self.stir(id);
    }

    /// Tends the programs of which there is news. Those without owners are read from, and may have
    /// changed files.
    pub fn tend(&mut self, now: u32) {
        for id in std::mem::take(&mut self.stirred) {
            if let Some(program) = self.program(id) {
                program.stirred = false;
                self.tend_one(id, now);
            }
        }
    }

    /// Tends one program.
    fn tend_one(&mut self, id: usize, now: u32) {
        self.take_complaints(id, MAX_COMPLAINTS);
        let Some(program) = self.program(id) else { return };
        program.look_for_end();
        if let Some(index) = program.owner {
            self.woken.push(index);
            return;
        }
        self.read_unwanted(id, now);
        let is_full = self.complaints.len() >= MAX_COMPLAINTS;
        let Some(program) = self.program(id) else { return };
        // Its complaints are read first.
        if program.is_over() && !(is_full && program.has_complaints()) {
            self.forget(id);
        }
    }

    /// Reads output that no connection wants, so that the program can write it and end.
    fn read_unwanted(&mut self, id: usize, now: u32) {
        let mut buf = std::mem::take(&mut self.buf);
        let mut left = UNWANTED_READS;
        while left > 0
            && let Output::Got(count) = self.read(id, &mut buf, now)
        {
            left -= 1;
            if let Some(program) = self.program(id) {
                program.unwanted = program.unwanted.saturating_add(count);
            }
        }
        self.buf = buf;
        let Some(program) = self.program(id) else { return };
        if program.unwanted > UNWANTED && matches!(program.life, Life::Finishing(_)) {
            self.end_for(id, "writes on after its answer", now);
        }
        if left == 0 {
            self.stir(id);
        }
    }

    /// Reads complaints of a program, while fewer than `most` lines wait.
    fn take_complaints(&mut self, id: usize, most: usize) {
        let Self { list, registry, complaints, .. } = self;
        let Some(program) = list.get_mut(id).and_then(Option::as_deref_mut) else { return };
        program.take_complaints(registry.as_ref(), complaints, most);
        if program.has_complaints() {
            self.stir(id);
        }
    }

    /// Takes the connections that need a turn, since there is news of their programs, and appends
    /// them to `woken`.
    pub fn take_woken(&mut self, woken: &mut Vec<u32>) {
        woken.append(&mut self.woken);
    }

    /// Removes a program that has ended.
    fn forget(&mut self, id: usize) {
        let Some(mut program) = self.list.get_mut(id).and_then(Option::take) else { return };
        program.close(self.registry.as_ref(), &mut self.complaints);
        self.timers.clear(id as u32);
        self.free.push(id);
    }

    /// Forgets all programs, in the child of a fork, since they are the parent's children.
    pub fn forget_all(&mut self) {
        for id in 0..self.list.len() {
            self.timers.clear(id as u32);
        }
        self.list.clear();
        self.free.clear();
        self.stirred.clear();
        self.woken.clear();
        self.complaints.clear();
    }

    /// Ends all programs, and waits for a short time until they have ended.
    pub fn end(&mut self, now: u32) {
        for id in 0..self.list.len() {
            let Some(program) = self.program(id) else { continue };
            program.look_for_end();
            match program.life {
                Life::Dying { .. } => {}
                // Processes that the program has started may stay.
                Life::Finishing(_) if program.has_ended => self.forget(id),
                _ => self.release(id, false, now),
            }
        }
        self.stirred.clear();
        for kills in [false, true] {
            if kills {
                self.list.iter_mut().flatten().for_each(|program| program.kill());
            }
            let end = Instant::now() + Duration::from_millis(u64::from(GRACE_MS));
            while self.some_live() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// Returns whether there are programs that have not ended, and removes the others.
    fn some_live(&mut self) -> bool {
        for id in 0..self.list.len() {
            if self.program(id).is_some_and(Program::look_for_last) {
                // No other turn follows in which the complaints could be taken.
                self.take_complaints(id, usize::MAX);
                self.forget(id);
            }
        }
        self.list.iter().any(Option::is_some)
    }
}

/// Returns the first token of a program.
fn token(id: usize) -> Token {
    Token(TOKENS + id * TOKENS_EACH)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::peer::Peer;

    const OWNER: Owner = Owner { index: 7, address: Peer::V4(std::net::Ipv4Addr::LOCALHOST, 1234) };

    fn start(programs: &mut Programs, command: &str) -> usize {
        let spec = Spec {
            program: Path::new("/bin/sh"),
            arguments: &[Path::new("-c"), Path::new(command)],
            environment: &[],
            directory: Path::new("/"),
            has_input: false,
            is_heard: true,
        };
        programs.start(OWNER, &spec, "it".to_owned(), 0).expect("a program")
    }

    /// Waits at most ten seconds for news, and tends the programs.
    fn turn(programs: &mut Programs, poll: &mut mio::Poll) {
        let mut events = mio::Events::with_capacity(16);
        let wait = if programs.is_busy() { Duration::ZERO } else { Duration::from_secs(10) };
        poll.poll(&mut events, Some(wait)).expect("events");
        for event in events.iter() {
            assert!(programs.note_event(event.token()));
        }
        programs.tend(0);
    }

    fn table() -> (Programs, mio::Poll) {
        let poll = mio::Poll::new().expect("an event queue");
        let mut programs = Programs::new(0);
        programs.watch_by(Some(poll.registry().try_clone().expect("a registry")));
        (programs, poll)
    }

    #[test]
    fn complaints_wait_in_the_pipe_while_many_are_in_the_list_and_none_is_lost() {
        let (mut programs, mut poll) = table();
        let count = 3 * MAX_COMPLAINTS;
        let command = format!("i=0; while [ $i -lt {count} ]; do echo $i >&2; i=$((i+1)); done");
        let id = start(&mut programs, &command);
        programs.release(id, true, 0);
        // The program may fill its pipe.
        std::thread::sleep(Duration::from_millis(200));
        let mut taken = Vec::new();
        while programs.running(id).is_some() {
            turn(&mut programs, &mut poll);
            // The lines of one read may come on top.
            assert!(programs.complaints.len() < MAX_COMPLAINTS + 4096 / 2);
            taken.append(&mut programs.complaints);
        }
        let wanted: Vec<Complaint> =
            (0..count).map(|i| (OWNER.address, format!("it: {i}"))).collect();
        assert!(taken == wanted, "{} lines of {count}", taken.len());
    }

    #[test]
    fn the_owner_is_woken_and_what_is_complained_of_at_the_end_is_kept() {
        let (mut programs, mut poll) = table();
        // Without a `sleep`, of whose end by the same signal the shell would complain, too.
        let id =
            start(&mut programs, "trap 'echo dies >&2; exit' TERM; echo out; while :; do :; done");
        let mut buf = Vec::new();
        while !programs.has_output(id) {
            turn(&mut programs, &mut poll);
        }
        let mut woken = Vec::new();
        programs.take_woken(&mut woken);
        assert!(woken.contains(&OWNER.index));
        assert!(matches!(programs.read(id, &mut buf, 0), Output::Got(4)));
        assert!(programs.has_room(1).is_err() && programs.has_room(2).is_ok());
        programs.end(0);
        // The shell may also report the `sleep` that the signal has ended.
        assert_eq!(programs.complaints.last(), Some(&(OWNER.address, "it: dies".to_owned())));
        assert!(programs.has_room(1).is_ok());
    }
}
