//! The two logs of a server, and the form of the lines in the error log.
//!
//! Refuses to know the sources of the lines, and how a file is written.

use super::file::LogFile;
use super::repeats::Repeats;
use crate::peer::Peer;

/// The two logs of a server.
#[derive(Default)]
pub struct Logs {
    pub access: LogFile,
    pub error: LogFile,
    repeats: Repeats,
    /// The second in which the logs were last tended.
    tended: u64,
}

impl Logs {
    /// Writes a line to the error log. `peer` is the client's address, if the line is about a
    /// client.
    pub fn complain(&mut self, peer: Option<Peer>, what: &str, now: u64) {
        if !self.error.is_on() {
            return;
        }
        for repeated in self.repeats.take(now) {
            self.tell_repeated(repeated, now);
        }
        if self.repeats.note(what) {
            let peer = peer.map(|peer| peer.to_string());
            self.tell(peer.as_deref().unwrap_or("-"), what, now);
        }
    }

    fn tell_repeated(&mut self, (what, count): (String, u32), now: u64) {
        self.tell("-", &format!("{count} more within a second: {what}"), now);
    }

    fn tell(&mut self, peer: &str, what: &str, now: u64) {
        let mut line = format!("[{}] {peer} ", super::timestamp(now));
        super::push_harmless(&mut line, what);
        line.push('\n');
        self.error.append(line.as_bytes(), now);
        if let Some(news) = self.error.take_news(true, now) {
            self.tell("-", &format!("error_log_file: {news}"), now);
        }
    }

    /// Opens logs that could not be opened before, and reports trouble with them. Does so once a
    /// second, however often it is called.
    #[inline]
    pub fn tend(&mut self, now: u64) {
        if self.tended != now {
            self.tend_now(now);
        }
    }

    /// Does the same as [`Logs::tend`], whatever the second.
    #[cold]
    pub fn tend_now(&mut self, now: u64) {
        self.tended = now;
        let needs_care = self.access.needs_care(now) || self.error.needs_care(now);
        if !needs_care && !self.repeats.are_due(now) {
            return;
        }
        self.access.tend(now);
        self.error.tend(now);
        for repeated in self.repeats.take(now) {
            self.tell_repeated(repeated, now);
        }
        if !self.error.is_on() {
            return;
        }
        if let Some(news) = self.access.take_news(false, now) {
            self.complain(None, &format!("access_log_file: {news}"), now);
        }
        if let Some(news) = self.error.take_news(true, now) {
            self.tell("-", &format!("error_log_file: {news}"), now);
        }
    }

    /// Leaves the lines that wait to the parent, in the child of a fork.
    pub fn leave_parent(&mut self) {
        self.access.forget_waiting();
        self.error.forget_waiting();
        self.repeats.clear();
    }

    /// Writes all lines that wait, as the server ends.
    pub fn end(&mut self, now: u64) {
        self.access.flush(now);
        for repeated in self.repeats.take_all(now) {
            self.tell_repeated(repeated, now);
        }
        self.tend_now(now);
    }
}
