//! Threads that wait for slow file systems, so that the loop does not: two at most for each server,
//! started when there is work, and ended when there was none for a while.
//!
//! A desk takes jobs and gives their results back. The jobs own what they need: the threads touch no
//! state of a server, and have all signals blocked. A child of a fork has none of them, and gets a desk
//! of its own. Refuses to know what the jobs do, and who waits for them.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use crate::long_files::with_signals_blocked;

/// The largest number of threads of a desk.
const THREADS: usize = 2;
/// The number of jobs that can wait for a thread.
const PLACES: usize = 256;
/// The stack of a thread in bytes.
const STACK: usize = 256 << 10;
/// The time after which a thread without work ends.
const IDLE: Duration = Duration::from_secs(5);
/// The longest wait for the threads at the end of a server. A call that takes longer is left to its
/// thread, which ends behind it.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// A piece of work, which may take long.
pub type Job<T> = Box<dyn FnOnce() -> T + Send>;

/// The way to wake the one who waits for results.
pub type Bell = Box<dyn Fn() + Send>;

/// Closes files of which the last close may take long.
pub trait Closer: fmt::Debug + Send + Sync {
    fn close(&self, file: File);
}

/// Where jobs and their results lie.
pub struct Desk<T> {
    state: Mutex<State<T>>,
    /// Rings for the threads, and for the one who waits for their end.
    changed: Condvar,
    has_results: AtomicBool,
    me: Weak<Desk<T>>,
    /// The process whose threads work here.
    process: u32,
}

struct State<T> {
    jobs: VecDeque<(u64, Job<T>)>,
    files: Vec<File>,
    /// Each job's number and result; `None` if it panicked.
    results: Vec<(u64, Option<T>)>,
    threads: usize,
    idle: usize,
    has_ended: bool,
    bell: Option<Bell>,
}

impl<T> fmt::Debug for Desk<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Desk<T> {
    pub fn new() -> Arc<Desk<T>> {
        Arc::new_cyclic(|me| Desk {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                files: Vec::new(),
                results: Vec::new(),
                threads: 0,
                idle: 0,
                has_ended: false,
                bell: None,
            }),
            changed: Condvar::new(),
            has_results: AtomicBool::new(false),
            me: me.clone(),
            process: std::process::id(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what is called when there are results.
    pub fn set_bell(&self, bell: Option<Bell>) {
        self.lock().bell = bell;
    }

    /// Returns whether no further job can wait.
    pub fn is_full(&self) -> bool {
        self.lock().jobs.len() >= PLACES
    }

    /// Takes a job, whose result will have its number. Where there can be no thread, it is done here.
    pub fn give(&self, number: u64, job: Job<T>) {
        let mut state = self.lock();
        state.jobs.push_back((number, job));
        self.call(state);
    }

    /// Returns whether a job waits for a thread.
    pub fn has_waiting(&self, number: u64) -> bool {
        self.lock().jobs.iter().any(|(other, _)| *other == number)
    }

    /// Moves the results to the end of `into`.
    pub fn take(&self, into: &mut Vec<(u64, Option<T>)>) {
        if self.has_results.swap(false, Ordering::Acquire) {
            into.append(&mut self.lock().results);
        }
    }

    /// Has a thread do what waits.
    fn call(&self, mut state: MutexGuard<'_, State<T>>) {
        let waiting = state.jobs.len() + state.files.len();
        if waiting <= state.idle || state.threads >= THREADS {
            drop(state);
            self.changed.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let Some(desk) = self.me.upgrade() else { return };
        let builder = std::thread::Builder::new().name("mg-files".to_owned()).stack_size(STACK);
        let spawned = with_signals_blocked(|| builder.spawn(move || desk.work()));
        if spawned.is_err() {
            let mut state = self.lock();
            state.threads -= 1;
            if state.threads == 0 {
                drop(self.work_off(state));
            }
        }
    }

    /// Does all that waits, and returns with nothing left.
    fn work_off<'a>(&'a self, mut state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        loop {
            if state.has_ended {
                // Nobody waits for results any more. Dropping them may close files.
                let (jobs, results) =
                    (std::mem::take(&mut state.jobs), std::mem::take(&mut state.results));
                if !jobs.is_empty() || !results.is_empty() {
                    drop(state);
                    drop((jobs, results));
                    state = self.lock();
                    continue;
                }
            }
            if let Some((number, job)) = state.jobs.pop_front() {
                drop(state);
                let result = catch_unwind(AssertUnwindSafe(job)).ok();
                state = self.lock();
                state.results.push((number, result));
                if !self.has_results.swap(true, Ordering::Release)
                    && let Some(bell) = &state.bell
                {
                    bell();
                }
            } else if let Some(file) = state.files.pop() {
                drop(state);
                drop(file);
                state = self.lock();
            } else {
                return state;
            }
        }
    }

    /// The life of a thread.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            state = self.work_off(state);
            if state.has_ended {
                break;
            }
            state.idle += 1;
            let waited = self.changed.wait_timeout(state, IDLE);
            let (back, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = back;
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() && state.files.is_empty() {
                break;
            }
        }
        state.threads -= 1;
        drop(state);
        self.changed.notify_all();
    }

    /// Ends the work: no further job is begun, files are still closed. Waits for the threads, but not
    /// for a call that takes very long.
    pub fn end(&self) {
        let end = Instant::now() + LONGEST_WAIT;
        let mut state = self.lock();
        state.has_ended = true;
        state.bell = None;
        self.changed.notify_all();
        while state.threads > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(self.work_off(state));
    }

    /// Drops what lies here, in the child of a fork, as far as the threads of the parent had it not in
    /// their hands.
    pub fn leave_parent(&self) {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // A thread that does not exist here holds it for ever.
            Err(TryLockError::WouldBlock) => return,
        };
        state.jobs.clear();
        state.files.clear();
        state.results.clear();
    }
}

impl<T: Send + 'static> Closer for Desk<T> {
    fn close(&self, file: File) {
        if self.process != std::process::id() {
            return;
        }
        let mut state = self.lock();
        if state.has_ended && state.threads == 0 {
            return;
        }
        state.files.push(file);
        self.call(state);
    }
}
