//! Time as the loop sees it: read once a turn.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The time of the current turn.
pub struct Clock {
    start: Instant,
    /// Milliseconds since the server was made; wraps after 49 days.
    pub now: u32,
    /// Wall-clock seconds.
    pub unix: u64,
    date: String,
    date_of: u64,
    log_time: String,
    log_time_of: u64,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        let mut clock = Self {
            start: Instant::now(),
            now: 0,
            unix: 0,
            date: String::new(),
            date_of: u64::MAX,
            log_time: String::new(),
            log_time_of: u64::MAX,
        };
        clock.update();
        clock
    }

    /// Reads the time.
    pub fn update(&mut self) {
        self.now = self.start.elapsed().as_millis() as u32;
        self.unix = unix_seconds();
    }

    /// The time as `Date` wants it; formatted once a second.
    pub fn date(&mut self) -> &str {
        if self.date_of != self.unix {
            self.date_of = self.unix;
            let time = UNIX_EPOCH + std::time::Duration::from_secs(self.unix);
            self.date = httpdate::fmt_http_date(time);
        }
        &self.date
    }

    /// The time as logs have it; formatted once a second.
    pub fn log_time(&mut self) -> &str {
        if self.log_time_of != self.unix {
            self.log_time_of = self.unix;
            self.log_time = crate::log::timestamp(self.unix);
        }
        &self.log_time
    }
}

/// Wall-clock seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
