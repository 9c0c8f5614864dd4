//! What other threads ask of the thread that polls a server.
//!
//! A [`Hub`] is the part of a server that every thread may touch at any time. Hubs are pooled and
//! never unmapped, so that a connection pointer kept for too long still leads to a valid one.

use std::any::Any;
use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::queue::Queue;
use super::slots::{Generation, Slot};
use crate::abi::IterateFn;

/// A pointer of the program's, carried to the callback and never followed.
#[derive(Clone, Copy, Debug)]
pub struct Param(pub *mut c_void);
// SAFETY: the library only hands it back.
unsafe impl Send for Param {}

/// What the server is to do for another thread. Only the server knows its type.
pub type Job = Box<dyn Any + Send>;

/// One request of another thread.
pub enum Message {
    /// Bytes for a connection.
    Write {
        slot: &'static Slot,
        generation: Generation,
        bytes: Vec<u8>,
        /// How many bytes the caller was told are queued.
        charged: usize,
        verdict: Verdict,
    },
    Iterate {
        func: Option<IterateFn>,
        param: Param,
        ticket: Arc<Ticket>,
    },
    /// Anything else that needs the server; it answers through a ticket of its own.
    Run(Job, Arc<Ticket>),
    /// A line for the error log.
    Complain(&'static str),
}

/// What the writing thread already found out about its bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// The handler was running: the I/O thread judges when it has returned.
    Unjudged,
    /// Part of an answer.
    Part,
    /// A websocket frame, its header included.
    Frame { header_len: usize },
    /// The end of an answer.
    End { persistent: bool },
}

/// What every thread may touch of a server. This is what `struct mg_server` points to.
#[repr(C)]
pub struct Hub {
    /// One widely used program walks the list of connections in the old structure, two pointers
    /// to itself when empty. Here it finds that list empty.
    legacy: [AtomicUsize; LEGACY_SIZE / size_of::<usize>()],
    /// Which thread holds the server, and how; see `ffi::hold`.
    pub holder: AtomicU64,
    /// The forks that the holder knows of.
    pub forks: AtomicU64,
    pub queue: Queue<Message, mio::Waker>,
    /// The server, for the thread that holds it. NULL once it is destroyed.
    pub server: AtomicPtr<c_void>,
    /// `mg_destroy_server` was called while a poll ran.
    pub doomed: AtomicBool,
    pub iterate_timeout_ms: AtomicU64,
    pub max_send_queue: AtomicUsize,
    pub max_buffered: AtomicUsize,
    /// Bytes in bodies and queues, as of the last turn.
    pub buffered: AtomicUsize,
}

/// How many other servers end before the hub of one serves another: a thread that comes too late
/// with the pointer of a server must not walk over the clients of its successor.
const QUARANTINE: usize = 4096;

/// Hubs of servers that have ended, the oldest first.
static HUBS: Mutex<VecDeque<&'static Hub>> = Mutex::new(VecDeque::new());

/// The bytes of `Hub::legacy`.
const LEGACY_SIZE: usize = 48;

/// Where the list of connections lies in the old structure: behind an `int` and the 16 bytes of an
/// IPv4 socket address, at the next multiple of a pointer's size. It has two words, the next and the
/// previous entry.
const fn legacy_list(pointer_size: usize) -> usize {
    (size_of::<c_int>() + 16).next_multiple_of(pointer_size)
}

const _: () = {
    assert!(legacy_list(8) == 24 && legacy_list(4) == 20);
    assert!(legacy_list(size_of::<usize>()) + 2 * size_of::<usize>() <= LEGACY_SIZE);
    // Programs count from the address that they hold.
    assert!(std::mem::offset_of!(Hub, legacy) == 0);
};

impl Hub {
    /// A hub for a new server.
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
        hub
    }

    /// Gives a hub back. Its queue is closed, and whoever waits is released.
    pub fn release(&'static self) {
        for message in self.queue.close() {
            message.withdraw();
        }
        HUBS.lock().unwrap_or_else(PoisonError::into_inner).push_back(self);
    }
}

impl Message {
    /// Tells whoever waits for this message that nothing comes of it.
    pub fn withdraw(self) {
        match self {
            Message::Iterate { ticket, .. } | Message::Run(_, ticket) => ticket.finish(-1),
            Message::Write { .. } | Message::Complain(_) => {}
        }
    }
}

/// How a waiting thread learns what became of its request.
#[derive(Default)]
pub struct Ticket {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Progress {
    #[default]
    Queued,
    Begun,
    Withdrawn,
    Finished(i32),
}

impl Ticket {
    /// Called by the I/O thread; false if the request was withdrawn meanwhile.
    pub fn begin(&self) -> bool {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if *progress != Progress::Queued {
            return false;
        }
        *progress = Progress::Begun;
        true
    }

    /// Called by the I/O thread when it is done.
    pub fn finish(&self, result: i32) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        *progress = Progress::Finished(result);
        self.changed.notify_all();
    }

    /// Waits for the result. A request that is not begun within `timeout` is withdrawn and gives
    /// -1; once begun it is waited for. Zero waits for ever.
    pub fn wait(&self, timeout: Duration) -> i32 {
        let start = Instant::now();
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match *progress {
                Progress::Finished(result) => return result,
                Progress::Queued if !timeout.is_zero() => {
                    let left = timeout.saturating_sub(start.elapsed());
                    if left.is_zero() {
                        *progress = Progress::Withdrawn;
                        return -1;
                    }
                    progress = self
                        .changed
                        .wait_timeout(progress, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
                Progress::Queued | Progress::Begun => {
                    progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
                }
                Progress::Withdrawn => return -1,
            }
        }
    }
}
