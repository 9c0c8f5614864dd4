//! The time as the event loop sees it: read once a turn (POSIX `clock_gettime`).
//!
//! Owns the texts for Date fields and log lines. Refuses to know timers.

use std::time::{SystemTime, UNIX_EPOCH};

/// The monotonic and the wall clock, precise to the kernel's tick of a few milliseconds: the timers
/// are no better, and these clocks are read in a fraction of the time.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCKS: (libc::clockid_t, libc::clockid_t) =
    (libc::CLOCK_MONOTONIC_COARSE, libc::CLOCK_REALTIME_COARSE);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCKS: (libc::clockid_t, libc::clockid_t) = (libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME);

/// The time of the current turn.
pub struct Clock {
    /// The system's monotonic clock in milliseconds when the server was made.
    start: u64,
    /// The number of milliseconds since the server was made; wraps after 49 days.
    pub now: u32,
    /// The wall clock in seconds.
    pub unix: u64,
    date: String,
    date_of: u64,
    log_time: String,
    log_time_of: u64,
    /// In a test, the nanoseconds that pass from one reading of the precise time to the next, and
    /// that time.
    #[cfg(test)]
    pub fake: Option<(u64, std::cell::Cell<u64>)>,
    /// In a test, the milliseconds at which the clock stands still.
    #[cfg(test)]
    pub held: Option<u32>,
}

impl Clock {
    /// Creates a clock that starts now.
    pub fn start() -> Self {
        let mut clock = Self {
            start: monotonic_ms(),
            now: 0,
            unix: 0,
            date: String::new(),
            date_of: u64::MAX,
            log_time: String::new(),
            log_time_of: u64::MAX,
            #[cfg(test)]
            fake: None,
            #[cfg(test)]
            held: None,
        };
        clock.update();
        clock
    }

    /// Reads the time.
    #[inline]
    pub fn update(&mut self) {
        let now = self.read();
        if now != self.now || self.unix == 0 {
            self.now = now;
            self.unix = unix_seconds();
        }
    }

    /// Returns the milliseconds since the server was made, at this moment.
    pub fn read(&self) -> u32 {
        #[cfg(test)]
        if let Some(held) = self.held {
            return held;
        }
        monotonic_ms().wrapping_sub(self.start) as u32
    }

    /// Returns the nanoseconds since an arbitrary moment, precisely.
    pub fn precise(&self) -> u64 {
        #[cfg(test)]
        if let Some((step, time)) = &self.fake {
            time.set(time.get() + step);
            return time.get();
        }
        let (seconds, nanoseconds) = read(libc::CLOCK_MONOTONIC);
        seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds)
    }

    /// Returns the time as the Date field has it, formatted once a second.
    #[inline]
    pub fn date(&mut self) -> &str {
        if self.date_of != self.unix {
            self.date_of = self.unix;
            let time = UNIX_EPOCH + std::time::Duration::from_secs(self.unix);
            self.date = httpdate::fmt_http_date(time);
        }
        &self.date
    }

    /// Returns the time as the access log has it, formatted once a second.
    pub fn log_time(&mut self) -> &str {
        if self.log_time_of != self.unix {
            self.log_time_of = self.unix;
            self.log_time = crate::log::timestamp(self.unix);
        }
        &self.log_time
    }
}

/// Returns the milliseconds since an arbitrary moment.
fn monotonic_ms() -> u64 {
    let (seconds, nanoseconds) = read(CLOCKS.0);
    seconds.wrapping_mul(1000).wrapping_add(nanoseconds / 1_000_000)
}

/// Returns the wall-clock seconds since 1970.
pub fn unix_seconds() -> u64 {
    if size_of::<libc::timespec>() < 16 {
        // These seconds last until 2038, and the standard library can ask for wider ones.
        return SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    }
    read(CLOCKS.1).0
}

/// Returns the seconds and nanoseconds of a clock. The functions of std and rustix for it read
/// precise clocks only, or fail under valgrind.
fn read(clock: libc::clockid_t) -> (u64, u64) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec to the place it is given, and it is given one.
    unsafe { libc::clock_gettime(clock, &mut time) };
    (time.tv_sec.max(0) as u64, time.tv_nsec.max(0) as u64)
}
