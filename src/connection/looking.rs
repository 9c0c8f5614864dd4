//! Requests that wait for slow file systems: helpers look, and each request is decided anew with what they
//! have found. The connection waits for them; no other one does.
//!
//! Refuses to know what is asked, which is in `files/patience`, and who looks.

use std::io;
use std::path::PathBuf;

use super::{Conn, Flow, State};
use crate::answer::Source;
use crate::exchange::context::Context;
use crate::exchange::errands::Asker;
use crate::exchange::request::Request;
use crate::files::patience::{Finding, Findings, Question};

/// What a request waits for, and what was found for it so far.
pub(super) struct Search {
    /// The questions for which there was no place yet.
    unsent: Vec<Question>,
    /// The numbers of the errands.
    sent: Vec<u64>,
    findings: Findings,
}

/// What a helper has found.
pub enum Found {
    File(PathBuf, Finding),
    /// Bytes of a file that is being sent.
    Piece(io::Result<Vec<u8>>),
}

impl Found {
    /// Returns the same for one more connection. Pieces have one only.
    pub fn again(&self) -> Found {
        match self {
            Found::File(path, finding) => Found::File(path.clone(), finding.clone()),
            Found::Piece(_) => {
                debug_assert!(false, "a piece that several connections wait for");
                Found::Piece(Err(io::ErrorKind::Other.into()))
            }
        }
    }
}

impl Conn {
    fn asker(&self) -> Asker {
        Asker { index: self.wire.index(), number: self.number }
    }

    /// Has helpers answer questions, without which a request cannot be decided.
    #[cold]
    pub(super) fn look(
        &mut self,
        cx: &mut Context,
        request: Box<Request>,
        (unsent, findings): (Vec<Question>, Findings),
    ) -> Flow {
        let mut search = Box::new(Search { unsent, sent: Vec::new(), findings });
        self.send_questions(cx, &mut search);
        self.enter(State::Looking { request, search });
        Flow::Leave
    }

    /// Sends the questions that were not sent. If there is no place for one, the connection tries again in a
    /// moment.
    fn send_questions(&mut self, cx: &mut Context, search: &mut Search) {
        let asker = self.asker();
        while let Some(question) = search.unsent.pop() {
            match cx.errands.send(question, asker) {
                Ok(number) => search.sent.push(number),
                Err(question) => {
                    search.unsent.push(question);
                    self.wire.come_back(cx);
                    return;
                }
            }
        }
    }

    /// Decides on a request once all is found that it waits for.
    pub(super) fn look_on(
        &mut self,
        cx: &mut Context,
        request: Box<Request>,
        mut search: Box<Search>,
    ) -> Flow {
        self.send_questions(cx, &mut search);
        if !search.sent.is_empty() || !search.unsent.is_empty() {
            self.enter(State::Looking { request, search });
            return Flow::Leave;
        }
        // The client has waited, and was not idle.
        self.wire.last_active = cx.clock.now;
        // What was found for this request may be older than others: it is known in a look of its own.
        cx.files.look_again();
        let flow = self.decide_with(cx, request, search.findings);
        cx.files.look_again();
        flow
    }

    /// Takes what a helper has found by the errand `number`.
    pub fn take_found(&mut self, cx: &mut Context, number: u64, found: Found) {
        match (&mut self.state, found) {
            (State::Looking { search, .. }, Found::File(path, finding)) => {
                let before = search.sent.len();
                search.sent.retain(|sent| *sent != number);
                if search.sent.len() == before {
                    return;
                }
                search.findings.push((path, finding));
                if search.sent.is_empty() {
                    self.wire.announce(cx);
                }
            }
            (State::Producing { source: Source::File(body), .. }, Found::Piece(piece)) => {
                let is_awaited = body.take_piece(number, piece);
                if is_awaited {
                    self.wire.announce(cx);
                }
            }
            // The request of an earlier time has ended.
            _ => {}
        }
    }

    /// Has a helper read what a source wants.
    pub(super) fn fetch(
        &mut self,
        cx: &mut Context,
        request: Box<Request>,
        (question, mut source): (Question, Source),
    ) -> Flow {
        match cx.errands.send(question, self.asker()) {
            Ok(number) => {
                if let Source::File(body) = &mut source {
                    body.await_piece(number);
                }
            }
            Err(_) => self.wire.come_back(cx),
        }
        self.enter(State::Producing { request, source });
        Flow::Leave
    }

    /// Returns whether the connection waits for a helper, and not for its client.
    pub(super) fn waits_for_helper(&self) -> bool {
        match &self.state {
            State::Looking { .. } => true,
            State::Producing { source, .. } => source.awaits_piece() && self.wire.backlog() == 0,
            _ => false,
        }
    }
}
