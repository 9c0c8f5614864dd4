//! Requests, answers and outboxes that are kept for their next use. Memory that is new to the
//! process costs more than receiving into it.
//!
//! Refuses to know what the objects were used for.

use super::buffers::LargeBuffers;
use super::outbox::Outbox;
use super::request::Request;
use crate::http::response::Answer;

/// The largest number of objects of each kind that are kept.
const KEPT: usize = 64;

/// The objects that are kept.
#[derive(Default)]
pub struct Spares {
    #[expect(clippy::vec_box, reason = "they move between here and connections")]
    requests: Vec<Box<Request>>,
    #[expect(clippy::vec_box, reason = "they move between here, connections and slots")]
    answers: Vec<Box<Answer>>,
    #[expect(clippy::vec_box, reason = "they move between here and connections")]
    outboxes: Vec<Box<Outbox>>,
    pub buffers: LargeBuffers,
}

impl Spares {
    /// Returns a request, kept or new, that has not begun.
    #[inline]
    pub fn request(&mut self) -> Box<Request> {
        self.requests.pop().unwrap_or_default()
    }

    /// Takes a request back. `now` is in milliseconds of the server's clock.
    pub fn keep_request(&mut self, mut request: Box<Request>, now: u32) {
        self.buffers.keep(request.end(), now);
        if self.requests.len() < KEPT {
            self.requests.push(request);
        }
    }

    /// Returns an answer, kept or new, that has not begun.
    pub fn answer(&mut self) -> Box<Answer> {
        self.answers.pop().unwrap_or_default()
    }

    /// Takes an answer back.
    #[inline]
    pub fn keep_answer(&mut self, answer: Box<Answer>) {
        if self.answers.len() < KEPT {
            self.answers.push(answer);
        }
    }

    /// Returns an empty outbox, kept or new.
    #[inline]
    pub fn outbox(&mut self) -> Box<Outbox> {
        self.outboxes.pop().unwrap_or_default()
    }

    /// Takes an outbox back.
    pub fn keep_outbox(&mut self, mut out: Box<Outbox>) {
        if out.reset() && self.outboxes.len() < KEPT {
            self.outboxes.push(out);
        }
    }
}
