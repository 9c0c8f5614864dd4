//! A queue with many producers and one consumer, on a mutex and one atomic flag.
//!
//! Owns when the consumer is woken: at most once for all messages in the queue. For an empty queue,
//! the consumer pays one atomic load. Knows neither the messages nor the way of waking.

#[cfg(loom)]
use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};
use std::sync::PoisonError;
#[cfg(not(loom))]
use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};

/// A way of waking the consumer.
pub trait Wake {
    /// Wakes the consumer.
    fn wake(&self);
}

impl Wake for std::sync::Arc<mio::Waker> {
    fn wake(&self) {
        // The call fails only if the kernel has no memory; the next poll empties the queue anyway.
        let _ = mio::Waker::wake(self);
    }
}

/// A queue, see the module.
pub struct Queue<M, W> {
    /// The queue has messages. Set under the lock, read without it.
    filled: AtomicBool,
    inner: Mutex<Inner<M, W>>,
}

struct Inner<M, W> {
    messages: Vec<M>,
    open: bool,
    waker: Option<W>,
}

impl<M, W: Wake> Queue<M, W> {
    /// Creates a closed queue.
    #[expect(clippy::new_without_default, reason = "a queue is opened explicitly")]
    pub fn new() -> Self {
        Self {
            filled: AtomicBool::new(false),
            inner: Mutex::new(Inner { messages: Vec::new(), open: false, waker: None }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<M, W>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the queue for messages.
    pub fn open(&self) {
        self.lock().open = true;
    }

    /// Sets the way of waking the consumer; `None` while it cannot be woken.
    pub fn set_waker(&self, waker: Option<W>) {
        let mut inner = self.lock();
        inner.waker = waker;
        // A producer that filled the queue before this call had no waker, and the next one sees
        // a filled queue and does not wake.
        if !inner.messages.is_empty()
            && let Some(waker) = &inner.waker
        {
            waker.wake();
        }
    }

    /// Adds a message, unless the queue is closed or there is no memory.
    pub fn push(&self, message: M) -> Result<(), M> {
        let mut inner = self.lock();
        if !inner.open || inner.messages.try_reserve(1).is_err() {
            return Err(message);
        }
        inner.messages.push(message);
        if !self.filled.swap(true, Ordering::Release)
            && let Some(waker) = &inner.waker
        {
            waker.wake();
        }
        Ok(())
    }

    /// Returns whether the queue may have messages.
    pub fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    /// Moves all messages to the end of `into`, in order.
    pub fn take(&self, into: &mut impl Extend<M>) {
        if !self.is_filled() {
            return;
        }
        let mut inner = self.lock();
        self.filled.store(false, Ordering::Release);
        into.extend(inner.messages.drain(..));
    }

    /// Wakes the consumer without a message. Does not wait for the lock without a limit: the call
    /// may come from a signal handler that has interrupted the thread that holds the lock.
    pub fn wake(&self) {
        for _ in 0..1000 {
            if let Ok(inner) = self.inner.try_lock() {
                if let Some(waker) = &inner.waker {
                    waker.wake();
                }
                return;
            }
            std::thread::yield_now();
        }
    }

    /// Closes the queue, and returns the messages in it.
    pub fn close(&self) -> Vec<M> {
        let mut inner = self.lock();
        inner.open = false;
        inner.waker = None;
        self.filled.store(false, Ordering::Release);
        std::mem::take(&mut inner.messages)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    struct Count(Arc<AtomicUsize>);

    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_waker_that_comes_late_is_told_of_what_lies_in_the_queue() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let queue = Queue::new();
        queue.open();
        assert!(queue.push(1).is_ok());
        queue.set_waker(Some(Count(wakes.clone())));
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
        queue.take(&mut Vec::<i32>::new());
        queue.set_waker(Some(Count(wakes.clone())));
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    struct Count(Arc<AtomicUsize>);

    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn nothing_is_lost_or_reordered_and_a_message_never_lies_unannounced() {
        loom::model(|| {
            let wakes = Arc::new(AtomicUsize::new(0));
            let queue = Arc::new(Queue::new());
            queue.open();
            queue.set_waker(Some(Count(wakes.clone())));
            let writers: Vec<_> = (0..2)
                .map(|writer| {
                    let queue = queue.clone();
                    thread::spawn(move || {
                        for number in 0..2 {
                            assert!(queue.push((writer, number)).is_ok());
                        }
                    })
                })
                .collect();
            let mut taken = Vec::new();
            queue.take(&mut taken);
            let before = wakes.load(Ordering::SeqCst);
            for writer in writers {
                writer.join().unwrap();
            }
            let seen = taken.len();
            queue.take(&mut taken);
            // Messages behind the first `take` were announced by a wake of their own, or by an
            // earlier wake that the consumer had not seen yet.
            assert!(taken.len() == seen || wakes.load(Ordering::SeqCst) >= 1, "{before}");
            for writer in 0..2 {
                let own: Vec<_> = taken.iter().filter(|m| m.0 == writer).map(|m| m.1).collect();
                assert_eq!(own, [0, 1]);
            }
        });
    }

    #[test]
    fn a_push_that_races_with_close_is_refused_or_given_back() {
        loom::model(|| {
            let queue = Arc::new(Queue::<u32, Count>::new());
            queue.open();
            let other = queue.clone();
            let writer = thread::spawn(move || other.push(7).is_ok());
            let left = queue.close();
            let pushed = writer.join().unwrap();
            assert_eq!(left.len(), usize::from(pushed));
            assert!(queue.push(8).is_err());
        });
    }
}
