//! Which thread holds a server.
//!
//! The holder's word in the hub is the thread's number and what it does with the server. The
//! number stays between polls, so that `mg_write` inside a handler needs one load and one compare
//! to know that it is on the I/O thread. Taking the server over is a compare-and-swap.

use std::sync::atomic::Ordering;

use crate::abi::mg_server;
use crate::server::{FORKS, Server};
use crate::shared::hub::Hub;
use crate::shared::thread_number;

/// Nobody is inside.
const IDLE: u64 = 0;
/// Inside for a moment, without calling the program.
const SHORT: u64 = 1;
/// Inside a poll or a walk: the program is called.
const LONG: u64 = 2;
const STATE: u64 = 3;

/// This thread's number, in its place in the holder's word.
fn me() -> u64 {
    thread_number::current() << 2
}

/// The hub behind a pointer that C holds.
///
/// # Safety
/// `server` is NULL or what `mg_create_server` once returned.
pub unsafe fn hub(server: *const mg_server) -> Option<&'static Hub> {
    // SAFETY: such pointers are addresses of hubs, which are never unmapped.
    unsafe { server.cast::<Hub>().as_ref() }
}

/// This thread's use of a server. It gives the server back when it goes, also when an exception
/// takes it along, and frees it if `mg_destroy_server` was called meanwhile.
pub struct Hold {
    hub: &'static Hub,
    /// The word to put back; `None` if this thread was inside already.
    after: Option<u64>,
}

impl Hold {
    /// For something short. `None` while another thread polls.
    pub fn short(hub: &'static Hub) -> Option<Self> {
        forget_parent(hub);
        loop {
            let word = hub.holder.load(Ordering::Acquire);
            match word & STATE {
                IDLE => {
                    if swap(hub, word, me() | SHORT) {
                        return Some(Self { hub, after: Some(word) });
                    }
                }
                _ if word & !STATE == me() => return Some(Self { hub, after: None }),
                SHORT => std::thread::yield_now(),
                _ => return None,
            }
        }
    }

    /// For something short, if this is the thread that polls the server.
    pub fn mine(hub: &'static Hub) -> Option<Self> {
        let word = hub.holder.load(Ordering::Relaxed);
        if word & !STATE != me() {
            return None;
        }
        if word & STATE != IDLE {
            return Some(Self { hub, after: None });
        }
        // Between polls another thread may take the server over.
        swap(hub, word, word | SHORT).then_some(Self { hub, after: Some(word) })
    }

    /// For a poll. `None` if any thread is inside already.
    pub fn poll(hub: &'static Hub) -> Option<Self> {
        forget_parent(hub);
        loop {
            let word = hub.holder.load(Ordering::Acquire);
            match word & STATE {
                IDLE => {
                    if swap(hub, word, me() | LONG) {
                        return Some(Self { hub, after: Some(me()) });
                    }
                }
                SHORT if word & !STATE != me() => std::thread::yield_now(),
                _ => return None,
            }
        }
    }

    /// For a walk over the connections in place: on the thread that polls, or while nobody has
    /// polled yet.
    pub fn walk(hub: &'static Hub) -> Option<Self> {
        forget_parent(hub);
        loop {
            let word = hub.holder.load(Ordering::Acquire);
            let mine = word & !STATE == me();
            match word & STATE {
                IDLE if mine || word == 0 => {
                    if swap(hub, word, me() | LONG) {
                        return Some(Self { hub, after: Some(word) });
                    }
                }
                IDLE => return None,
                _ if mine => return Some(Self { hub, after: None }),
                SHORT => std::thread::yield_now(),
                _ => return None,
            }
        }
    }

    /// Uses the server. No user code may run in `body`.
    pub fn with<R>(&self, body: impl FnOnce(&mut Server) -> R) -> Option<R> {
        // Acquire: the thread that made the server may not have passed a lock since.
        let server = self.hub.server.load(Ordering::Acquire).cast::<Server>();
        // SAFETY: the server lives while a thread holds it, only the holder gets here, and no
        // reference outlives a call: `body` calls nothing that could come back here.
        unsafe { server.as_mut() }.map(body)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(after) = self.after else { return };
        self.hub.holder.store(after, Ordering::SeqCst);
        end(self.hub);
    }
}

/// Ends a server: now if nobody is inside, else when whoever is inside comes out.
pub fn destroy(hub: &'static Hub) {
    forget_parent(hub);
    hub.doomed.store(true, Ordering::SeqCst);
    end(hub);
    // Whoever is inside sees the flag on the way out, which may take a wake-up.
    if hub.doomed.load(Ordering::SeqCst) && hub.holder.load(Ordering::SeqCst) & !STATE != me() {
        hub.queue.wake();
    }
}

/// Frees a server that is to end, if nobody is inside. Several threads may find that at once, and
/// the slower ones when the hub serves somebody else already: who takes the flag down frees.
fn end(hub: &'static Hub) {
    while hub.doomed.load(Ordering::SeqCst) {
        let word = hub.holder.load(Ordering::SeqCst);
        if word & STATE != IDLE {
            return;
        }
        if swap(hub, word, me() | LONG) {
            if hub.doomed.swap(false, Ordering::SeqCst) {
                free(hub);
                return;
            }
            hub.holder.store(word, Ordering::SeqCst);
        }
    }
}

fn free(hub: &'static Hub) {
    let server = hub.server.swap(std::ptr::null_mut(), Ordering::SeqCst).cast::<Server>();
    if !server.is_null() {
        // SAFETY: it was boxed when the server was made, and the swap gave it to us alone.
        drop(unsafe { Box::from_raw(server) });
        hub.holder.store(0, Ordering::SeqCst);
        hub.release();
    } else {
        hub.holder.store(0, Ordering::SeqCst);
    }
}

/// In the child of a fork the thread that held the server may not exist.
fn forget_parent(hub: &Hub) {
    let forks = FORKS.load(Ordering::Relaxed);
    if hub.forks.swap(forks, Ordering::Relaxed) != forks {
        let word = hub.holder.load(Ordering::Relaxed);
        if word & !STATE != me() {
            hub.holder.store(0, Ordering::Relaxed);
        }
    }
}

fn swap(hub: &Hub, from: u64, to: u64) -> bool {
    hub.holder.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_too_late_to_free_a_server_leaves_its_hub_alone() {
        let hub = Hub::acquire();
        let server = Box::new(Server::new(hub, std::ptr::null_mut()));
        hub.server.store(Box::into_raw(server).cast(), Ordering::Release);
        let polling = Hold::poll(hub).expect("nobody is inside");
        std::thread::spawn(|| destroy(hub)).join().expect("no panic");
        assert!(!hub.server.load(Ordering::SeqCst).is_null());
        drop(polling);
        assert!(hub.server.load(Ordering::SeqCst).is_null());
        // As whoever saw the flag together with the thread that has freed it.
        end(hub);
        assert_eq!(hub.holder.load(Ordering::SeqCst) & STATE, IDLE);
        assert!(!hub.doomed.load(Ordering::SeqCst));
    }
}
