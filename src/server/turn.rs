//! The order of work in a turn: each ready connection has its turn, then new ones are accepted,
//! then jobs of other threads begin.
//!
//! Refuses to know what a connection does in its turn.

use std::sync::atomic::Ordering;

use super::{Server, Step};
use crate::connection::Flow;
use crate::exchange::turn::{BATCH, BYTES_PER_TURN, REQUESTS_PER_TURN};

impl Server {
    /// Works until the program is to be called, or there is nothing to do.
    pub fn step(&mut self) -> Step {
        // A handler may have forked: output that waits is sent by the parent.
        self.check_fork();
        while !self.is_doomed() {
            if let Some(index) = self.cx.turn.current {
                match self.drive(index) {
                    Flow::Again => {}
                    Flow::Leave => self.leave(index),
                    Flow::Close => self.close(index),
                    Flow::Call(handler) => return self.call(index, handler),
                }
            } else if let Some(step) = self.next_visit() {
                self.flush_late();
                self.cx.log_complaints();
                return step;
            } else if !self.activate_next() && !self.begin_request_of_thread() {
                break;
            }
        }
        self.cx.log_complaints();
        self.cx.hub.buffered.store(self.cx.buffered, Ordering::Relaxed);
        self.cx.logs.access.flush(self.cx.clock.unix);
        Step::Done
    }

    /// Drives the current connection.
    #[inline(always)]
    fn drive(&mut self, index: u32) -> Flow {
        match self.conns.get(index) {
            Some(conn) => conn.drive(&mut self.cx),
            None => {
                debug_assert!(false, "the current connection is closed");
                self.cx.turn.current = None;
                Flow::Again
            }
        }
    }

    /// Gives the next connection its turn. Returns false if there is none.
    #[inline]
    fn activate_next(&mut self) -> bool {
        let turn = &mut self.cx.turn;
        if turn.left > 0 && !turn.shares_now {
            turn.left -= 1;
            turn.has_shared = false;
            if let Some(index) = turn.ready.pop_front() {
                self.activate(index);
            }
        } else if let Some(index) = self.next_sharing() {
            self.cx.turn.has_shared = true;
            self.activate(index);
        } else if self.cx.turn.left > 0 {
            // The connections that waited have gone, so that the turn goes on with the others.
            self.cx.turn.shares_now = false;
        } else if let Some(index) = self.accept() {
            match self.acceptor.may_have_sent() {
                true => self.activate(index),
                false => self.watch(index),
            }
        } else {
            self.flush_dirty();
            return false;
        }
        true
    }

    /// Makes a connection the current one.
    fn activate(&mut self, index: u32) {
        self.flush_late();
        let Some(conn) = self.conns.get(index) else { return };
        let cx = &mut self.cx;
        cx.input.clear();
        if !conn.begin_turn(cx) {
            self.close(index);
            return;
        }
        cx.turn.current = Some(index);
        cx.turn.requests = REQUESTS_PER_TURN;
        cx.turn.bytes = BYTES_PER_TURN;
        if conn.has_output() && !conn.flush(cx) {
            self.close(index);
        }
    }

    /// Ends the turn of the current connection: sends its output, and keeps the input that is not
    /// parsed.
    fn leave(&mut self, index: u32) {
        let Some(conn) = self.conns.get(index) else {
            debug_assert!(false, "the current connection is closed");
            self.cx.turn.current = None;
            return;
        };
        let cx = &mut self.cx;
        let waits = conn.may_wait(cx);
        if !waits && !conn.flush(cx) || !conn.end_turn(cx) {
            self.close(index);
            return;
        }
        cx.turn.current = None;
        cx.input.clear();
        if waits {
            conn.wire.mark_dirty(cx);
            if cx.turn.dirty.len() >= BATCH {
                self.flush_dirty();
            }
            return;
        }
        if matches!(conn.settle(cx), Flow::Close) {
            self.close(index);
        } else if !conn.wire.registered {
            if cx.turn.bytes == BYTES_PER_TURN {
                self.acceptor.note_vain_read();
            }
            self.watch(index);
        }
    }

    /// Has the kernel announce events of a connection.
    fn watch(&mut self, index: u32) {
        let Some(conn) = self.conns.get(index) else { return };
        if let Err(error) = self.queue.watch(conn) {
            conn.wire.complain(&mut self.cx, &format!("cannot watch the connection: {error}"));
            self.close(index);
        }
    }

    /// Sends the output that waits.
    #[inline]
    pub fn flush_dirty(&mut self) {
        if !self.cx.turn.dirty.is_empty() {
            self.flush_in_order();
        }
    }

    /// Sends the output of all connections in their order.
    fn flush_in_order(&mut self) {
        let mut at = 0;
        while let Some(&index) = self.cx.turn.dirty.get(at) {
            at += 1;
            let is_current = self.cx.turn.current == Some(index);
            let cx = &mut self.cx;
            let Some(conn) = self.conns.get(index) else { continue };
            conn.wire.dirty = false;
            // Output of the current connection may yet be taken back. It is flushed at the end of
            // its turn.
            if !is_current && (!conn.flush(cx) || matches!(conn.settle(cx), Flow::Close)) {
                self.close(index);
            }
        }
        self.cx.turn.dirty.clear();
    }

    /// Sends the output that waits if the clock has moved on, since something takes long.
    #[inline]
    pub(super) fn flush_late(&mut self) {
        let cx = &mut self.cx;
        if cx.turn.has_waiting() && cx.clock.read() != cx.turn.batch_time {
            cx.turn.batch_time = cx.clock.read();
            cx.turn.shares_now = !cx.turn.sharing.is_empty();
            self.flush_dirty();
        }
    }

    /// Returns the next connection whose request has waited to share a look at files.
    #[inline]
    pub(super) fn next_sharing(&mut self) -> Option<u32> {
        while let Some(index) = self.cx.turn.sharing.pop_front() {
            self.cx.turn.shares_now &= !self.cx.turn.sharing.is_empty();
            if self.conns.get(index).is_some_and(|conn| conn.is_deciding()) {
                return Some(index);
            }
        }
        None
    }
}
