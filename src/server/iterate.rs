//! Walks over the connections of a server: `mg_iterate_over_connections`.
//!
//! Who is visited is settled at the start; who closes meanwhile is skipped. The function is
//! called outside the server, one [`Step`] at a time.

use std::collections::VecDeque;
use std::ffi::c_int;
use std::sync::Arc;

use super::context::Context;
use super::{Server, Step};
use crate::abi::IterateFn;
use crate::options::{IterateContent, IterateOver};
use crate::shared::hub::{Message, Param, Ticket};
use crate::shared::slots::{Content, Generation, Slot};

/// What another thread wants of the server beside walks; what comes of it goes by a way of its own.
pub type Job = Box<dyn FnOnce(&mut Server) + Send>;

/// One walk.
pub struct Iteration {
    list: Vec<(&'static Slot, Generation)>,
    at: usize,
    func: IterateFn,
    param: Param,
    /// The thread that waits; absent for a walk on the I/O thread itself.
    ticket: Option<Arc<Ticket>>,
}

impl Iteration {
    /// Whether another thread waits for it.
    pub fn is_foreign(&self) -> bool {
        self.ticket.is_some()
    }

    /// Releases whoever waits.
    pub fn abandon(self) {
        if let Some(ticket) = self.ticket {
            ticket.finish(-1);
        }
    }
}

/// The walks of a server, and what else other threads wait for.
#[derive(Default)]
pub(super) struct Walks {
    pub list: Vec<Iteration>,
    /// Requests of other threads that are not begun.
    pub work: VecDeque<Message>,
}

/// The content that a program does not see while a walk visits its connection.
pub(super) struct Hidden {
    slot: &'static Slot,
    generation: Generation,
    content: Content,
}

impl Context {
    /// The content of a connection is gone: nothing is to be shown again.
    pub(super) fn forget_hidden(&mut self, slot: &'static Slot) {
        for hidden in self.hidden.iter_mut().filter(|hidden| std::ptr::eq(hidden.slot, slot)) {
            hidden.content = Content::none();
        }
    }

    fn show_hidden(&mut self) {
        if let Some(Hidden { slot, generation, content }) = self.hidden.pop()
            && slot.open_generation() == Some(generation)
        {
            slot.swap_content(content);
        }
    }
}

impl Server {
    /// Begins a walk on the I/O thread, or counts if there is nothing to call. Returns the number
    /// of connections, and whether [`Server::next_in_place`] is to be asked for them.
    pub fn iterate_in_place(&mut self, func: Option<IterateFn>, param: Param) -> (c_int, bool) {
        self.iterate(func, param, None)
    }

    fn iterate(
        &mut self,
        func: Option<IterateFn>,
        param: Param,
        ticket: Option<Arc<Ticket>>,
    ) -> (c_int, bool) {
        let all = self.cx.options.config.iterate_over == IterateOver::All;
        let mut list = Vec::new();
        let fits = list.try_reserve(self.open).is_ok() && self.walks.list.try_reserve(1).is_ok();
        if !fits {
            if let Some(ticket) = ticket {
                ticket.finish(-1);
            }
            return (-1, false);
        }
        for conn in self.conns.iter().flatten() {
            if (all || conn.is_open_websocket())
                && let Some(generation) = conn.slot.open_generation()
            {
                list.push((conn.slot, generation));
            }
        }
        let count = c_int::try_from(list.len()).unwrap_or(c_int::MAX);
        match func {
            Some(func) => {
                self.walks.list.push(Iteration { list, at: 0, func, param, ticket });
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

    /// How many walks and hidden contents there are.
    pub fn walks(&self) -> (usize, usize) {
        (self.walks.list.len(), self.cx.hidden.len())
    }

    /// Ends what has been begun since [`Server::walks`]: done, or left by an exception.
    pub fn end_walks(&mut self, (iterations, hidden): (usize, usize)) {
        self.walks.list.truncate(iterations);
        while self.cx.hidden.len() > hidden {
            self.cx.show_hidden();
        }
    }

    /// The next call of the innermost walk on the I/O thread; `None` when that is done.
    pub fn next_in_place(&mut self) -> Option<Step> {
        match self.walks.list.last() {
            Some(iteration) if !iteration.is_foreign() => self.visit(),
            _ => None,
        }
    }

    /// The next call of a walk that another thread waits for.
    pub(super) fn next_visit(&mut self) -> Option<Step> {
        while !self.walks.list.is_empty() {
            if let Some(step) = self.visit() {
                return Some(step);
            }
        }
        None
    }

    fn visit(&mut self) -> Option<Step> {
        let calling = self.calling;
        let shows = self.cx.options.config.iterate_content == IterateContent::Last;
        let iteration = self.walks.list.last_mut()?;
        while let Some(&(slot, generation)) = iteration.list.get(iteration.at) {
            iteration.at += 1;
            if slot.open_generation() == Some(generation) {
                slot.set_seen();
                let step = Step::Iterate(slot.as_c(), iteration.func, iteration.param.0);
                let index = slot.index();
                if calling != Some(index) {
                    let conn = self.conns.get_mut(index).and_then(Option::as_mut);
                    let last = conn.filter(|_| shows).and_then(|conn| conn.last_message());
                    let content = slot.swap_content(last.unwrap_or_else(Content::none));
                    self.cx.hidden.push(Hidden { slot, generation, content });
                }
                return Some(step);
            }
        }
        if let Some(Iteration { ticket: Some(ticket), list, .. }) = self.walks.list.pop() {
            ticket.finish(c_int::try_from(list.len()).unwrap_or(c_int::MAX));
        }
        None
    }

    /// The function that [`Step::Iterate`] asked for has returned for `slot`.
    pub fn visited(&mut self, slot: &'static Slot) {
        // The program may have changed files.
        self.cx.files.look_again();
        if self.cx.hidden.last().is_some_and(|hidden| std::ptr::eq(hidden.slot, slot)) {
            self.cx.show_hidden();
        }
    }

    /// Forgets walks on the I/O thread that an exception has ended.
    pub(super) fn drop_abandoned(&mut self) {
        while !self.cx.hidden.is_empty() {
            self.cx.show_hidden();
        }
        self.walks.list.retain(Iteration::is_foreign);
    }

    /// Begins one request of another thread. False if there is none.
    pub(super) fn begin_work(&mut self) -> bool {
        match self.walks.work.pop_front() {
            Some(Message::Iterate { func, param, ticket }) => {
                if ticket.begin() {
                    self.iterate(func, param, Some(ticket));
                }
                true
            }
            Some(Message::Run(run, ticket)) => {
                if ticket.begin() {
                    match run.downcast::<Job>() {
                        Ok(job) => (*job)(self),
                        Err(_) => debug_assert!(false, "work of another kind"),
                    }
                    ticket.finish(0);
                }
                true
            }
            Some(Message::Write { .. } | Message::Complain(_)) => true,
            None => false,
        }
    }
}
