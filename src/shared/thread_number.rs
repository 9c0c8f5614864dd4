//! Numbers of threads.
//!
//! Owns a number for each thread of the process, which is never used again, unlike a `pthread_t`.
//! Knows nothing of what threads do.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// Returns the number of this thread, never 0. It is assigned at the first call: addresses of
/// thread-local variables are used again after the end of a thread, numbers are not.
#[inline]
pub fn current() -> u64 {
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}
