//! Hubs: the part of a server that every thread may touch at any time, and the requests of other
//! threads to the thread that polls.
//!
//! Owns the reuse of hubs, which are pooled and never unmapped, so that a connection pointer that a
//! program keeps for too long still leads to a valid hub. Knows the server by its address only.

use std::any::Any;
use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::queue::Queue;
use super::slots::{Generation, Slot};
use crate::abi::IterateFn;

/// A pointer of the program, which is passed to its function and never followed.
#[derive(Clone, Copy, Debug)]
pub struct Param(pub *mut c_void);
// SAFETY: the library only passes the pointer back to the program.
unsafe impl Send for Param {}

/// A job for the polling thread. Only the server knows its type.
pub type Job = Box<dyn Any + Send>;

/// One request of another thread.
pub enum Message {
    /// Bytes for a connection.
    Write {
        slot: &'static Slot,
        generation: Generation,
        bytes: Vec<u8>,
        /// The number of bytes that were added to `Slot::incoming`.
        charged: usize,
        role: Role,
    },
    Iterate {
        func: Option<IterateFn>,
        param: Param,
        ticket: Arc<Ticket>,
    },
    /// Another job on the server; the ticket reports its end.
    Run(Job, Arc<Ticket>),
    /// A line for the error log.
    Complain(&'static str),
}

/// The role of bytes in an answer, as the thread that wrote them has found it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    /// Not checked, since the handler was running: the I/O thread checks when it has returned.
    Unchecked,
    /// A part of an answer.
    Part,
    /// A websocket frame, its header included.
    Frame { header_len: usize },
    /// The end of an answer.
    End { persistent: bool },
}

/// The part of a server that every thread may touch, to which `struct mg_server *` points.
#[repr(C)]
pub struct Hub {
    /// The list of connections of the 5.0 structure, always empty: its two pointers lead to the
    /// list itself. One widely used program iterates over it.
    legacy: [AtomicUsize; LEGACY_SIZE / size_of::<usize>()],
    /// The thread that holds the server, and its use of it; see `ffi::hold`.
    pub holder: AtomicU64,
    /// The number of forks that `holder` accounts for.
    pub forks: AtomicU64,
    pub queue: Queue<Message, Arc<mio::Waker>>,
    /// The server, for the thread that holds it. NULL once it is destroyed.
    pub server: AtomicPtr<c_void>,
    /// `mg_destroy_server` was called while a poll ran.
    pub doomed: AtomicBool,
    pub iterate_timeout_ms: AtomicU64,
    pub max_send_queue: AtomicUsize,
    pub max_buffered: AtomicUsize,
    /// The number of bytes in contents and queues, as of the last turn.
    pub buffered: AtomicUsize,
}

/// The number of other servers that must end before the hub of a server is used again: a thread
/// with an old pointer must not reach the clients of a later server.
const QUARANTINE: usize = 4096;

/// The hubs of the servers that there are.
static IN_USE: Mutex<Vec<&'static Hub>> = Mutex::new(Vec::new());

/// Hubs of servers that have ended, the oldest first.
static HUBS: Mutex<VecDeque<&'static Hub>> = Mutex::new(VecDeque::new());

/// The size of `Hub::legacy` in bytes.
const LEGACY_SIZE: usize = 48;

/// Returns the offset of the list of connections in the 5.0 structure: behind an `int` and the 16
/// bytes of an IPv4 socket address, at the next multiple of the size of a pointer. The list has two
/// words, the next and the previous entry.
const fn legacy_list(pointer_size: usize) -> usize {
    (size_of::<c_int>() + 16).next_multiple_of(pointer_size)
}

const _: () = {
    assert!(legacy_list(8) == 24 && legacy_list(4) == 20);
    assert!(legacy_list(size_of::<usize>()) + 2 * size_of::<usize>() <= LEGACY_SIZE);
    // Programs compute offsets from the address of the hub.
    assert!(std::mem::offset_of!(Hub, legacy) == 0);
};

impl Hub {
    /// Returns a hub for a new server.
    pub fn acquire() -> &'static Hub {
        let mut hubs = HUBS.lock().unwrap_or_else(PoisonError::into_inner);
        let pooled = if hubs.len() > QUARANTINE { hubs.pop_front() } else { None };
        drop(hubs);
        let hub = pooled.unwrap_or_else(|| {
            Box::leak(Box::new(Hub {
                legacy: Default::default(),
                holder: AtomicU64::new(0),
                forks: AtomicU64::new(0),
                queue: Queue::new(),
                server: AtomicPtr::new(ptr::null_mut()),
                doomed: AtomicBool::new(false),
                iterate_timeout_ms: AtomicU64::new(0),
                max_send_queue: AtomicUsize::new(0),
                max_buffered: AtomicUsize::new(0),
                buffered: AtomicUsize::new(0),
            }))
        });
        let first = const { legacy_list(size_of::<usize>()) / size_of::<usize>() };
        let list = &raw const hub.legacy[first];
        for word in &hub.legacy[first..first + 2] {
            word.store(list.expose_provenance(), Ordering::Relaxed);
        }
        hub.queue.open();
        IN_USE.lock().unwrap_or_else(PoisonError::into_inner).push(hub);
        hub
    }

    /// Returns whether `holds` is true of the hub of a server; also if the list of them is in use.
    pub fn any(holds: impl Fn(&Hub) -> bool) -> bool {
        let in_use = match IN_USE.try_lock() {
            Ok(in_use) => in_use,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return true,
        };
        in_use.iter().any(|hub| holds(hub))
    }

    /// Gives a hub back. Closes its queue, and releases the threads that wait.
    pub fn release(&'static self) {
        for message in self.queue.close() {
            message.withdraw();
        }
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        in_use.retain(|hub| !ptr::eq(*hub, self));
        drop(in_use);
        HUBS.lock().unwrap_or_else(PoisonError::into_inner).push_back(self);
    }
}

impl Message {
    /// Releases the thread that waits for this message, which is not carried out.
    pub fn withdraw(self) {
        match self {
            Message::Iterate { ticket, .. } | Message::Run(_, ticket) => ticket.finish(-1),
            Message::Write { .. } | Message::Complain(_) => {}
        }
    }
}

/// The progress of a request on which another thread waits.
#[derive(Default)]
pub struct Ticket {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default, Clone, Copy)]
struct Progress {
    state: State,
    /// The number of times that other work came in between.
    pauses: u32,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum State {
    #[default]
    Queued,
    /// The I/O thread is at it.
    Begun,
    /// The I/O thread does something else before it goes on.
    Paused,
    Withdrawn,
    Finished(i32),
}

impl Ticket {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the request or goes on with it, on the I/O thread. Returns false if it was withdrawn
    /// meanwhile.
    pub fn begin(&self) -> bool {
        let mut progress = self.lock();
        let is_wanted = !matches!(progress.state, State::Withdrawn | State::Finished(_));
        if is_wanted {
            progress.state = State::Begun;
        }
        is_wanted
    }

    /// Notes that other work comes before the request goes on, on the I/O thread.
    pub fn pause(&self) {
        let mut progress = self.lock();
        if progress.state == State::Begun {
            progress.state = State::Paused;
            progress.pauses = progress.pauses.wrapping_add(1);
        }
    }

    /// Reports the result, on the I/O thread.
    pub fn finish(&self, result: i32) {
        self.lock().state = State::Finished(result);
        self.changed.notify_all();
    }

    /// Waits for the result. A request that is not begun within `timeout` is withdrawn, and the result
    /// is -1; so is one with which the I/O thread does not go on for so long, since a handler that came
    /// in between may wait for something that the waiting thread holds. While the I/O thread is at it,
    /// its end is awaited without a limit. A `timeout` of zero is no limit.
    pub fn wait(&self, timeout: Duration) -> i32 {
        let mut start = Instant::now();
        let mut progress = self.lock();
        let mut pauses = progress.pauses;
        loop {
            match progress.state {
                State::Finished(result) => return result,
                State::Withdrawn => return -1,
                State::Queued | State::Begun | State::Paused => {}
            }
            if progress.pauses != pauses || progress.state == State::Begun {
                (pauses, start) = (progress.pauses, Instant::now());
            }
            if timeout.is_zero() {
                progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                progress.state = State::Withdrawn;
                return -1;
            }
            let waited = self.changed.wait_timeout(progress, left);
            progress = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_withdrawn_while_nothing_runs_for_it_and_never_while_something_does() {
        const SHORT: Duration = Duration::from_millis(1);
        let ticket = Ticket::default();
        assert_eq!(ticket.wait(SHORT), -1);
        assert!(!ticket.begin());

        let ticket = Ticket::default();
        assert!(ticket.begin());
        ticket.pause();
        assert_eq!(ticket.wait(SHORT), -1);
        assert!(!ticket.begin());

        let ticket = Arc::new(Ticket::default());
        assert!(ticket.begin());
        let waiting = std::thread::spawn({
            let ticket = ticket.clone();
            move || ticket.wait(SHORT)
        });
        for _ in 0..20 {
            std::thread::sleep(SHORT);
            assert!(ticket.begin());
        }
        ticket.finish(7);
        assert_eq!(waiting.join().expect("no panic"), 7);
    }
}
