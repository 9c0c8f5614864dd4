//! Signals (POSIX `sigwait`): a thread of its own waits for them, so that no handler interrupts anything.
//!
//! Owns what each signal means. Refuses to know how the server ends.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use crate::server::Waker;
use crate::terminal;

/// The time in which the server notices that it is to end at once.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What the signals so far ask for.
#[derive(Default)]
pub struct Requests {
    reload: AtomicBool,
    /// How often the end was asked for.
    ends: AtomicU8,
    /// Set once the server looks at these requests.
    is_serving: AtomicBool,
}

/// The thread that waits for signals.
pub struct Signals {
    requests: Arc<Requests>,
    set: Set,
    has_terminal: bool,
}

/// The signals that are waited for.
#[derive(Clone, Copy)]
struct Set {
    set: libc::sigset_t,
    /// Whether a terminal that is gone ends the program: `nohup` says no.
    ends_with_terminal: bool,
}

impl Requests {
    /// Returns whether the settings are to be read anew, once for each request.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::AcqRel)
    }

    /// Returns whether the server is to end, after running transfers.
    pub fn wants_end(&self) -> bool {
        self.ends.load(Ordering::Acquire) > 0
    }

    /// Returns whether the server is to end at once.
    pub fn wants_end_now(&self) -> bool {
        self.ends.load(Ordering::Acquire) > 1
    }
}

impl Signals {
    /// Keeps the signals from this thread and those that it starts. To be called before any other is
    /// started.
    pub fn block() -> io::Result<Signals> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: the call writes to the place that it is given.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: the call has filled it.
        let mut set: libc::sigset_t = unsafe { set.assume_init() };
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // A shell lets those that it starts in the background ignore SIGINT.
            if signal == libc::SIGHUP || !is_ignored(signal) {
                // SAFETY: the set is one, and the number that of a signal.
                unsafe { libc::sigaddset(&mut set, signal) };
            }
        }
        // SAFETY: the set is one; the former one is not asked for.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } {
            0 => Ok(Signals {
                requests: Arc::default(),
                set: Set { set, ends_with_terminal: !is_ignored(libc::SIGHUP) },
                has_terminal: terminal::is_attached(),
            }),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Begins to wait. Until a server serves, a signal ends the process.
    pub fn begin(self, waker: Waker) -> io::Result<Arc<Requests>> {
        let requests = self.requests.clone();
        std::thread::Builder::new().spawn(move || self.wait(&waker))?;
        Ok(requests)
    }

    fn wait(self, waker: &Waker) {
        loop {
            let mut signal: c_int = 0;
            // SAFETY: the set is one, and the place is one for a number.
            if unsafe { libc::sigwait(&self.set.set, &mut signal) } != 0 {
                continue;
            }
            let is_gone =
                || self.has_terminal && self.set.ends_with_terminal && !terminal::is_attached();
            if signal == libc::SIGHUP && !is_gone() {
                if self.requests.is_serving.load(Ordering::Acquire) {
                    self.requests.reload.store(true, Ordering::Release);
                    waker.wake();
                }
                continue;
            }
            if !self.requests.is_serving.load(Ordering::Acquire) {
                terminal::restore();
                end(signal);
            }
            let before = self.requests.ends.fetch_add(1, Ordering::AcqRel);
            waker.wake();
            if before > 0 {
                // The server may be in a call that takes long.
                std::thread::sleep(AT_ONCE);
                end(signal);
            }
        }
    }
}

impl Requests {
    /// From now on the server looks at the requests.
    pub fn serve(&self) {
        self.is_serving.store(true, Ordering::Release);
    }
}

/// Ends the process as the signal would, for who looks at its status.
fn end(signal: c_int) -> ! {
    std::process::exit(128 + signal)
}

fn is_ignored(signal: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: nothing is set, and the place is one for an action, to which the call writes.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
