//! Holds: which thread may use a server, and when a server is freed. Knows nothing of what the
//! thread does with the server.
//!
//! The word `holder` of the hub is the number of the thread and its use of the server. The number
//! stays between polls, so that `mg_write` inside a handler needs one load and one comparison to
//! find that it is on the I/O thread. A thread takes the server over by a compare-and-swap.

use std::sync::atomic::Ordering;

use crate::abi::mg_server;
use crate::exchange::context::FORKS;
use crate::server::Server;
use crate::shared::hub::Hub;
use crate::shared::thread_number;

/// No thread uses the server.
const IDLE: u64 = 0;
/// A thread uses the server for a short time, without calling the program.
const SHORT: u64 = 1;
/// A thread polls or walks over the connections, and calls the program.
const LONG: u64 = 2;
/// The bits of the word that hold one of these states.
const STATE: u64 = 3;

/// Returns the number of this thread, shifted to its place in the word.
fn me() -> u64 {
    thread_number::current() << 2
}

/// Returns whether this thread uses a server. Also true if that cannot be found out.
pub fn is_inside() -> bool {
    Hub::any(|hub| {
        let word = hub.holder.load(Ordering::Relaxed);
        word & STATE != IDLE && word & !STATE == me()
    })
}

/// Returns the hub behind a pointer that C holds.
///
/// # Safety
/// `server` is NULL or what `mg_create_server` once returned.
pub unsafe fn hub(server: *const mg_server) -> Option<&'static Hub> {
    // SAFETY: such pointers are addresses of hubs, which are never unmapped.
    unsafe { server.cast::<Hub>().as_ref() }
}

/// The use of a server by this thread. Dropping it, also by an exception that unwinds the stack,
/// gives the server back, and frees it if `mg_destroy_server` was called meanwhile.
pub struct Hold {
    hub: &'static Hub,
    /// The word to restore; `None` if this thread used the server already.
    after: Option<u64>,
}

impl Hold {
    /// Takes the server for a short use. Returns `None` while another thread polls.
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

    /// Takes the server for a short use if this is the thread that polls it.
    pub fn mine(hub: &'static Hub) -> Option<Self> {
        let word = hub.holder.load(Ordering::Relaxed);
        if word & !STATE != me() {
            return None;
        }
        if word & STATE != IDLE {
            return Some(Self { hub, after: None });
        }
        // Between polls another thread may take the server over.
        swap(hub, word, word | SHORT).then(|| Self { hub, after: Some(word) })
    }

    /// Takes the server for a poll. Returns `None` if a thread polls or walks already.
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

    /// Takes the server for a walk over the connections in place: on the thread that polls, or
    /// while no thread has polled yet.
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

    /// Calls `body` with the server, in which no user code may run. Returns `None` if the server
    /// has been freed.
    pub fn with<R>(&self, body: impl FnOnce(&mut Server) -> R) -> Option<R> {
        // Acquire: no lock may have passed between the thread that created the server and this one.
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

/// Ends a server: now if no thread uses it, else at the end of that use.
pub fn destroy(hub: &'static Hub) {
    forget_parent(hub);
    hub.doomed.store(true, Ordering::SeqCst);
    end(hub);
    // The thread that uses the server sees the flag at the end of its use, for which it may have to
    // be woken.
    if hub.doomed.load(Ordering::SeqCst) && hub.holder.load(Ordering::SeqCst) & !STATE != me() {
        hub.queue.wake();
    }
}

/// Frees a server that is to end, if no thread uses it. Several threads may get here at once, the
/// slower ones when the hub belongs to another server already: the thread that clears the flag
/// frees the server.
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

/// Frees the server and gives its hub back.
fn free(hub: &'static Hub) {
    let server = hub.server.swap(std::ptr::null_mut(), Ordering::SeqCst).cast::<Server>();
    if !server.is_null() {
        // SAFETY: the pointer comes from a box, and the swap gave it to this thread alone.
        drop(unsafe { Box::from_raw(server) });
        hub.holder.store(0, Ordering::SeqCst);
        hub.release();
    } else {
        hub.holder.store(0, Ordering::SeqCst);
    }
}

/// Clears the word in the child of a fork, where the thread that held the server may not exist.
fn forget_parent(hub: &Hub) {
    let forks = FORKS.load(Ordering::Relaxed);
    if hub.forks.swap(forks, Ordering::Relaxed) != forks {
        let word = hub.holder.load(Ordering::Relaxed);
        if word & !STATE != me() {
            hub.holder.store(0, Ordering::Relaxed);
        }
    }
}

/// Replaces the word if it is `from`.
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
        // The call of a thread that saw the flag at the same time as the thread that freed the
        // server.
        end(hub);
        assert_eq!(hub.holder.load(Ordering::SeqCst) & STATE, IDLE);
        assert!(!hub.doomed.load(Ordering::SeqCst));
    }
}
