//! Walks over the connections of a server (`mg_iterate_over_connections`), and other jobs of
//! threads that wait for the I/O thread.
//!
//! The list of connections is made at the start; those that close meanwhile are skipped. The
//! function of a walk is called outside the server, one [`Step`] at a time. Refuses to know what a
//! job does.

use std::collections::VecDeque;
use std::ffi::c_int;
use std::sync::Arc;

use super::{Server, Step};
use crate::abi::IterateFn;
use crate::exchange::hidden::Hidden;
use crate::options::{IterateContent, IterateOver};
use crate::shared::hub::{Message, Param, Ticket};
use crate::shared::slots::{Content, Generation, Slot};

/// The number of bytes from which the output of a visit is sent at once.
const MUCH: usize = 32 * 1024;

/// A job of another thread that is not a walk. Its result takes a way of its own.
pub type Job = Box<dyn FnOnce(&mut Server) + Send>;

/// One walk.
struct Walk {
    list: Vec<(&'static Slot, Generation)>,
    at: usize,
    /// The number of connections that were visited.
    visited: usize,
    func: IterateFn,
    param: Param,
    /// The ticket of the thread that waits; `None` for a walk on the I/O thread.
    ticket: Option<Arc<Ticket>>,
}

/// The walks of a server, of which the innermost is the last, and the requests of other threads
/// that have not begun.
#[derive(Default)]
pub(super) struct Walks {
    list: Vec<Walk>,
    requests: VecDeque<Message>,
}

impl Walks {
    /// Returns whether another thread waits for work that can be done now.
    pub fn is_busy(&self) -> bool {
        !self.requests.is_empty() || self.list.iter().any(|walk| walk.ticket.is_some())
    }

    /// Keeps a request until no handler runs.
    pub fn put(&mut self, request: Message) {
        self.requests.push_back(request);
    }

    /// Ends walks on the I/O thread that an exception has left.
    pub fn end_abandoned(&mut self, hidden: &mut Hidden) {
        while !hidden.is_empty() {
            hidden.show_last();
        }
        self.list.retain(|walk| walk.ticket.is_some());
    }

    /// Drops what threads of the parent wait for, in the child of a fork, which has none of them.
    pub fn leave_parent(&mut self) {
        self.requests.clear();
        self.list.retain(|walk| walk.ticket.is_none());
    }

    /// Releases the threads that wait.
    pub fn abandon(&mut self) {
        for request in self.requests.drain(..) {
            request.withdraw();
        }
        for ticket in self.list.drain(..).filter_map(|walk| walk.ticket) {
            ticket.finish(-1);
        }
    }
}

impl Server {
    /// Begins a walk on the I/O thread, or counts if there is no function to call. Returns the
    /// number of connections, and whether [`Server::next_in_place`] has calls for them.
    pub fn iterate_in_place(&mut self, func: Option<IterateFn>, param: Param) -> (c_int, bool) {
        self.iterate(func, param, None)
    }

    /// Begins a walk. Returns the number of connections, and whether there is a function to call.
    fn iterate(
        &mut self,
        func: Option<IterateFn>,
        param: Param,
        ticket: Option<Arc<Ticket>>,
    ) -> (c_int, bool) {
        let all = self.cx.options.config.iterate_over == IterateOver::All;
        let mut list = Vec::new();
        let fits =
            list.try_reserve(self.conns.open()).is_ok() && self.walks.list.try_reserve(1).is_ok();
        if !fits {
            if let Some(ticket) = ticket {
                ticket.finish(-1);
            }
            return (-1, false);
        }
        for conn in self.conns.iter().filter(|conn| all || conn.is_open_websocket()) {
            let slot = conn.wire.slot;
            if let Some(generation) = slot.open_generation() {
                list.push((slot, generation));
            }
        }
        let count = c_int::try_from(list.len()).unwrap_or(c_int::MAX);
        match func {
            Some(func) => {
                self.walks.list.push(Walk { list, at: 0, visited: 0, func, param, ticket });
                (count, true)
            }
            None => {
                if let Some(ticket) = ticket {
                    ticket.finish(count);
                }
                (count, false)
            }
        }
    }

    /// Returns the numbers of walks and of hidden contents.
    pub fn walks(&self) -> (usize, usize) {
        (self.walks.list.len(), self.cx.hidden.len())
    }

    /// Ends the walks that have begun since the numbers were taken by [`Server::walks`], at their
    /// end or after an exception.
    pub fn end_walks(&mut self, (walks, hidden): (usize, usize)) {
        self.walks.list.truncate(walks);
        while self.cx.hidden.len() > hidden {
            self.cx.hidden.show_last();
        }
    }

    /// Returns the next call of the innermost walk on the I/O thread; `None` at its end.
    pub fn next_in_place(&mut self) -> Option<Step> {
        match self.walks.list.last() {
            Some(Walk { ticket: None, .. }) => self.visit(),
            _ => None,
        }
    }

    /// Goes on with a walk or a job for which another thread waits, and returns the call of the program's
    /// that this takes.
    pub(super) fn go_on_for_thread(&mut self) -> Option<Step> {
        let Some(walk) = self.walks.list.last() else {
            self.begin_request_of_thread();
            return None;
        };
        if walk.ticket.as_ref().is_some_and(|ticket| !ticket.begin()) {
            // The thread no longer waits, and what its function uses may be gone.
            self.walks.list.pop();
            return None;
        }
        self.visit()
    }

    /// Returns the next call of the innermost walk; `None` at its end, which is reported to its
    /// thread.
    fn visit(&mut self) -> Option<Step> {
        let shows_last = self.cx.options.config.iterate_content == IterateContent::Last;
        let walk = self.walks.list.last_mut()?;
        while let Some(&(slot, generation)) = walk.list.get(walk.at) {
            walk.at += 1;
            if slot.open_generation() != Some(generation) {
                continue;
            }
            slot.set_seen();
            walk.visited += 1;
            let step = Step::Iterate(slot.as_c(), walk.func, walk.param.0);
            // The connection whose handler runs shows its own content.
            if self.calling != Some(slot.index() as u32) {
                let conn = self.conns.of_slot(slot).filter(|_| shows_last);
                let last = conn.and_then(|conn| conn.last_message());
                self.cx.hidden.hide(slot, generation, last.unwrap_or_else(Content::none));
            }
            return Some(step);
        }
        if let Some(Walk { ticket: Some(ticket), visited, .. }) = self.walks.list.pop() {
            ticket.finish(c_int::try_from(visited).unwrap_or(c_int::MAX));
        }
        None
    }

    /// Acts on the return of the function of a [`Step::Iterate`] for `slot`.
    pub fn visited(&mut self, slot: &'static Slot) {
        // The program may have changed files.
        self.cx.files.look_again();
        if self.cx.hidden.ends_with(slot) {
            self.cx.hidden.show_last();
        }
        if let Some(Walk { ticket: Some(ticket), .. }) = self.walks.list.last() {
            ticket.pause();
            self.send_much(slot);
        }
    }

    /// Sends what a walk has written to a connection, unless it is short: the output of many connections
    /// takes too long to be sent together.
    fn send_much(&mut self, slot: &'static Slot) {
        if let Some(conn) = self.conns.of_slot(slot)
            && conn.wire.backlog() > MUCH
            && !conn.flush(&mut self.cx)
        {
            self.close(slot.index() as u32);
        }
    }

    /// Begins one request of another thread.
    fn begin_request_of_thread(&mut self) {
        match self.walks.requests.pop_front() {
            Some(Message::Iterate { func, param, ticket }) => {
                if ticket.begin() {
                    self.iterate(func, param, Some(ticket));
                }
            }
            Some(Message::Run(run, ticket)) => {
                if ticket.begin() {
                    match run.downcast::<Job>() {
                        Ok(job) => (*job)(self),
                        Err(_) => debug_assert!(false, "work of another kind"),
                    }
                    ticket.finish(0);
                }
            }
            Some(Message::Write { .. } | Message::Complain(_)) | None => {}
        }
    }
}
