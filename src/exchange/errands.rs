//! What helpers are asked for connections: who waits for which answer.
//!
//! An answer belongs to those who asked before the look began, by their numbers; a connection that has
//! gone gets none, nor does a later one in its place. Refuses to know what becomes of an answer.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::files::patience::{Answer, Question};
use crate::helpers::{Bell, Closer, Desk};

/// A connection that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub index: u32,
    /// The number that tells it from others with the same index.
    pub number: u32,
}

/// What has come back.
pub struct Delivery {
    /// The number of the errand.
    pub number: u64,
    pub askers: Vec<Asker>,
    /// The path that was asked about, if it was one.
    pub path: Option<PathBuf>,
    /// `None` after a fault of the library.
    pub answer: Option<Answer>,
}

/// A question that was not answered yet.
struct Sent {
    askers: Vec<Asker>,
    path: Option<PathBuf>,
}

/// The questions of a server.
pub struct Errands {
    desk: Arc<Desk<Answer>>,
    sent: HashMap<u64, Sent>,
    /// The last question about each path.
    by_path: HashMap<PathBuf, u64>,
    last: u64,
}

impl Default for Errands {
    fn default() -> Errands {
        Errands { desk: Desk::new(), sent: HashMap::new(), by_path: HashMap::new(), last: 0 }
    }
}

impl Errands {
    /// Returns what closes the files of slow file systems.
    pub fn closer(&self) -> Arc<dyn Closer> {
        self.desk.clone()
    }

    /// Sets what wakes the loop when there are answers.
    pub fn set_bell(&self, bell: Option<Bell>) {
        self.desk.set_bell(bell);
    }

    /// Returns whether answers are awaited.
    #[inline]
    pub fn is_busy(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Sends a question. Returns the number of the errand, or the question if too many wait.
    pub fn send(&mut self, question: Question, asker: Asker) -> Result<u64, Question> {
        let path = match &question {
            Question::File(inquiry) => Some(inquiry.path.clone()),
            Question::Piece(..) => None,
        };
        if let Some(number) = path.as_ref().and_then(|path| self.by_path.get(path))
            && let Some(sent) = self.sent.get_mut(number)
            // A look that has begun may be older than the request.
            && self.desk.has_waiting(*number)
        {
            sent.askers.push(asker);
            return Ok(*number);
        }
        if self.desk.is_full() {
            return Err(question);
        }
        self.last += 1;
        let number = self.last;
        if let Some(path) = &path {
            self.by_path.insert(path.clone(), number);
        }
        self.sent.insert(number, Sent { askers: vec![asker], path });
        self.desk.give(number, Box::new(move || question.answer()));
        Ok(number)
    }

    /// Takes what has come back.
    pub fn take(&mut self) -> Vec<Delivery> {
        let mut results = Vec::new();
        self.desk.take(&mut results);
        let mut deliveries = Vec::new();
        for (number, answer) in results {
            let Some(Sent { askers, path }) = self.sent.remove(&number) else { continue };
            if let Some(path) = &path
                && self.by_path.get(path) == Some(&number)
            {
                self.by_path.remove(path);
            }
            deliveries.push(Delivery { number, askers, path, answer });
        }
        deliveries
    }

    /// Ends the helpers with the server.
    pub fn end(&self) {
        self.desk.end();
    }

    /// Begins anew in the child of a fork, which has no helpers.
    pub fn leave_parent(&mut self) {
        self.desk.leave_parent();
        *self = Errands::default();
    }
}
