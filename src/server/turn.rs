//! The order of work in a turn: each connection with fresh events has its turn, then comes what goes
//! on, in items that are bounded, until the time for that is over (see `slice`).
//!
//! Refuses to know what a connection does in its turn.

use std::sync::atomic::Ordering;

use super::slice::Lane;
use super::{Server, Step};
use crate::connection::Flow;
use crate::exchange::turn::{BATCH, BYTES_PER_TURN, REQUESTS_PER_TURN, Turn};

/// What has become of the attempt to go on with something.
enum Item {
    /// It has begun, or is done.
    Begun,
    /// The function of a walk is to be called.
    Visit(Step),
    /// There is nothing that goes on, or no time for it.
    None,
}

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
            } else if !self.activate_next() {
                if self.has_nothing_else() {
                    break;
                }
                match self.next_item() {
                    Item::Begun => {}
                    Item::Visit(step) => return step,
                    Item::None => break,
                }
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
        } else {
            return false;
        }
        true
    }

    /// Returns whether nothing goes on and nothing waits to be sent, as at the end of most turns.
    #[inline]
    fn has_nothing_else(&self) -> bool {
        let turn = &self.cx.turn;
        turn.dirty.is_empty()
            && !turn.ongoing.is_busy()
            && !turn.handshakes.is_busy()
            && !self.walks.is_busy()
            && !self.acceptor.may_accept()
    }

    /// Begins the next item of what goes on, unless the time for that is over.
    #[inline(never)]
    fn next_item(&mut self) -> Item {
        let turn = &self.cx.turn;
        let busy = [
            turn.ongoing.is_busy(),
            turn.handshakes.is_busy(),
            self.acceptor.may_accept(),
            self.walks.is_busy(),
        ];
        let is_walking = busy[Lane::Walks as usize] && self.cx.turn.dirty.len() < BATCH;
        if self.slice.is_unused() || !is_walking {
            // What waits is sent before something that may take long, but for that of a walk, which is
            // sent together.
            self.flush_dirty();
        }
        if busy == [false; 4] {
            return Item::None;
        }
        let Some(lane) = self.slice.next(busy, self.cx.clock.precise()) else {
            self.flush_dirty();
            return Item::None;
        };
        match lane {
            Lane::Ongoing => self.activate_waiting(|turn| turn.ongoing.take_next()),
            Lane::Handshakes => self.activate_waiting(|turn| turn.handshakes.take_next()),
            Lane::Accepts => self.accept_next(),
            Lane::Walks => {
                if let Some(step) = self.go_on_for_thread() {
                    self.flush_late();
                    self.cx.log_complaints();
                    return Item::Visit(step);
                }
            }
        }
        Item::Begun
    }

    /// Gives a connection that goes on its turn.
    fn activate_waiting(&mut self, next: impl FnOnce(&mut Turn) -> Option<u32>) {
        let Some(index) = next(&mut self.cx.turn) else { return };
        if let Some(conn) = self.conns.get(index) {
            // Whether it uses up this share, too, decides how its next events are served.
            conn.wire.yields = conn.wire.is_handshaking();
        }
        self.activate_new(index);
        self.cx.turn.is_fresh = false;
    }

    /// Accepts a connection, and reads it at once if that is likely to find a request. A TLS handshake
    /// waits for its turn among others.
    fn accept_next(&mut self) {
        let Some(index) = self.accept() else { return };
        let Some(conn) = self.conns.get(index) else { return };
        if conn.wire.is_handshaking() {
            conn.wire.make_ready(&mut self.cx);
        } else if self.acceptor.may_have_sent() {
            self.activate_new(index);
        } else {
            self.watch(index);
        }
    }

    /// The same as [`Server::activate`], which is part of the loop for connections with fresh events.
    #[inline(never)]
    fn activate_new(&mut self, index: u32) {
        self.activate(index);
    }

    /// Makes a connection the current one.
    #[inline(always)]
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
        cx.turn.is_fresh = true;
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
