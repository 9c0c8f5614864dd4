//! A world while it lasts: its programs, what its clients share, and what excuses that a connection ends.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::ledger::{Ledger, MOST_OWNERS};
use super::plan::Plan;
use super::random::Random;
use super::wire::PATIENCE;

/// An address, and whether TLS is spoken there.
pub type Target = (SocketAddr, bool);

/// How far an era is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Phase {
    Running,
    /// Who has a stream goes on; the others end.
    Ending,
    /// Nobody writes to streams any more: what was taken has to come.
    Draining,
}

pub struct World {
    pub plan: Plan,
    pub ledger: Ledger,
    pub folder: PathBuf,
    phase: Mutex<Phase>,
    failures: Arc<Failures>,
    owners: AtomicU32,
    /// Where the servers listen; by a number for each of them, and one for the workers.
    pub targets: RwLock<HashMap<usize, Vec<Target>>>,
    pub excuses: Excuses,
    counts: Mutex<HashMap<&'static str, u64>>,
    pids: Mutex<Vec<u32>>,
}

/// What has been found.
#[derive(Default)]
pub struct Failures {
    any: AtomicBool,
    list: Mutex<Vec<String>>,
}

impl Failures {
    pub fn add(&self, text: String) {
        lock(&self.list).push(text);
        self.any.store(true, SeqCst);
    }
}

/// When connections may break for which nobody promises otherwise: their number, and how many such times last.
#[derive(Default)]
pub struct Excuses {
    version: AtomicU64,
    active: AtomicU64,
}

/// What was excused when a connection began.
pub struct Since(u64, bool);

impl Excuses {
    pub fn begin(&self) {
        self.active.fetch_add(1, SeqCst);
        self.version.fetch_add(1, SeqCst);
    }

    pub fn end(&self) {
        self.version.fetch_add(1, SeqCst);
        self.active.fetch_sub(1, SeqCst);
    }

    pub fn now(&self) -> Since {
        Since(self.version.load(SeqCst), self.active.load(SeqCst) > 0)
    }

    /// Whether something has happened since then that ends connections.
    pub fn excuse(&self, since: &Since) -> bool {
        since.1 || self.version.load(SeqCst) != since.0
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub fn new(plan: Plan, folder: &Path) -> World {
        World {
            ledger: Ledger::create(&folder.join("ledger")),
            plan,
            folder: folder.to_owned(),
            phase: Mutex::new(Phase::Running),
            failures: Arc::default(),
            owners: AtomicU32::new(1),
            targets: RwLock::default(),
            excuses: Excuses::default(),
            counts: Mutex::default(),
            pids: Mutex::default(),
        }
    }

    pub fn phase(&self) -> Phase {
        *lock(&self.phase)
    }

    pub fn set_phase(&self, phase: Phase) {
        *lock(&self.phase) = phase;
    }

    pub fn fail(&self, text: impl Into<String>) {
        let text = text.into();
        if text.contains("wait") && !self.has_failed() {
            self.show_threads();
        }
        self.failures.add(text);
    }

    /// Where a wait has no end, a debugger may tell why: a command to which the numbers of the processes are given.
    fn show_threads(&self) {
        let Ok(command) = std::env::var("WORLDS_ON_WAIT") else { return };
        for pid in lock(&self.pids).iter() {
            let _ = Command::new(&command).arg(pid.to_string()).status();
        }
    }

    pub fn has_failed(&self) -> bool {
        self.failures.any.load(SeqCst)
    }

    pub fn failures(&self) -> Vec<String> {
        lock(&self.failures.list).clone()
    }

    /// The number of a new connection; `None` when there are no more.
    pub fn new_owner(&self) -> Option<u32> {
        let owner = self.owners.fetch_add(1, SeqCst);
        (owner < MOST_OWNERS).then_some(owner)
    }

    pub fn some_target(&self, random: &mut Random) -> Option<Target> {
        let targets = self.targets.read().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<Target> = targets.values().flatten().copied().collect();
        (!all.is_empty()).then(|| *random.pick(&all))
    }

    /// Notes the addresses that a server tells.
    pub fn set_targets(&self, server: usize, told: &str) {
        let addresses = told.split(',').filter_map(|entry| {
            let is_secure = entry.ends_with('s');
            Some((entry.trim_end_matches('s').parse().ok()?, is_secure))
        });
        let addresses: Vec<Target> = addresses.collect();
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        targets.insert(server, addresses);
    }

    pub fn clear_targets(&self) {
        self.targets.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub fn count(&self, what: &'static str) {
        *lock(&self.counts).entry(what).or_default() += 1;
    }

    pub fn counts(&self) -> HashMap<&'static str, u64> {
        lock(&self.counts).clone()
    }

    /// Starts a program of the world; with `more`, one of workers.
    pub fn start(&self, program: &Path, more: &[String]) -> Process {
        let plan = &self.plan;
        let numbers = [plan.writers, plan.walkers, plan.changers, plan.pollers, plan.longest];
        let mut child = Command::new(program)
            .arg(self.folder.join("ledger"))
            .arg(&self.folder)
            .arg(plan.seed.to_string())
            .args(numbers.map(|number| number.to_string()))
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program of the world");
        lock(&self.pids).push(child.id());
        let stdin = child.stdin.take().expect("a pipe");
        let (sender, replies) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let failures = self.failures.clone();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                let Ok(line) = line else { return };
                match line.split_once(' ') {
                    Some(("WRONG", text)) => failures.add(text.to_owned()),
                    Some(("note", text)) => failures.add(text.to_owned()),
                    _ => drop(sender.send(line)),
                }
            }
        });
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let failures = self.failures.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                failures.add(format!("standard error: {line}"));
            }
        });
        Process { child, stdin, replies }
    }
}

/// A program of the world.
pub struct Process {
    child: Child,
    stdin: ChildStdin,
    replies: Receiver<String>,
}

impl Process {
    /// Has it do something; what it replies behind `ok`.
    pub fn tell(&mut self, world: &World, line: &str) -> String {
        if writeln!(self.stdin, "{line}").is_err() {
            world.fail(format!("the program does not take {line:?}"));
        }
        self.reply(world, line)
    }

    pub fn reply(&mut self, world: &World, line: &str) -> String {
        // A program that waits in vain says so itself before.
        for _ in 0..PATIENCE.as_secs() * 3 {
            match self.replies.recv_timeout(Duration::from_secs(1)) {
                Ok(reply) => {
                    return reply.strip_prefix("ok").unwrap_or(&reply).trim().to_owned();
                }
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait();
                    world.fail(format!("the program has ended at {line:?}: {status:?}"));
                    return String::new();
                }
            }
        }
        world.fail(format!("the program does not answer to {line:?}"));
        String::new()
    }

    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a process");
        // SAFETY: the child has not been waited for, so that the number is still its own.
        unsafe { libc::kill(pid, signal) };
    }

    /// Waits for its end.
    pub fn end(mut self, world: &World) {
        drop(self.stdin);
        if world.has_failed() {
            let _ = self.child.kill();
        }
        let status = self.child.wait().expect("its end");
        if !status.success() {
            world.fail(format!("a program ends with {status}"));
        }
    }
}
