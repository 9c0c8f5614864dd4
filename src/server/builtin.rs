//! What the library itself does about a request: decided once its head is known, carried out once
//! its body is out of the way.

use std::ops::Range;

use super::connection::{Conn, NO_REQUEST};
use super::context::Context;
use super::step::Flow;
use crate::site::{Site, Task};

impl Conn {
    /// Answers a request that no handler of the program's matches.
    pub(super) fn answer_builtin(&mut self, cx: &mut Context) -> Flow {
        let Some(exchange) = self.exchange.as_deref_mut() else {
            return self.cannot_be(cx, NO_REQUEST);
        };
        match exchange.task.take() {
            Some(task) => {
                let task = Site { exchange, cx }.decide_again(task);
                self.perform(cx, task)
            }
            None if self.may_share(cx) => Flow::Leave,
            None => self.decide_now(cx),
        }
    }

    /// Answers a request that was not decided on before.
    pub(super) fn decide_now(&mut self, cx: &mut Context) -> Flow {
        let Some(exchange) = self.exchange.as_deref_mut() else {
            return self.cannot_be(cx, NO_REQUEST);
        };
        let task = Site { exchange, cx }.decide();
        self.perform(cx, task)
    }

    fn perform(&mut self, cx: &mut Context, task: Task) -> Flow {
        match task {
            Task::Reply(status) => self.fail(cx, status),
            Task::File(file) => self.begin_file(cx, file),
            Task::List(path) => self.begin_listing(cx, path),
            task @ (Task::Dav(_) | Task::Put(_)) => self.begin_work_on(task),
            Task::Page(known, file, path) => self.begin_expansion(cx, known, file, path),
            Task::Run(script) => self.begin_relay(cx, &script),
        }
    }

    /// Hands the task a piece of content that has arrived in `scratch`.
    pub(super) fn stream(&mut self, cx: &mut Context, content: Range<usize>) -> Result<(), u16> {
        match self.exchange.as_deref_mut().and_then(|exchange| exchange.task.take()) {
            Some(Task::Run(script)) => {
                let streamed = self.stream_to_program(cx, &script, content);
                if let Some(exchange) = self.exchange.as_deref_mut() {
                    exchange.task = Some(Task::Run(script));
                }
                streamed
            }
            task => {
                let takes_dav = matches!(task, Some(Task::Dav(_) | Task::Put(_)));
                if let Some(exchange) = self.exchange.as_deref_mut() {
                    exchange.task = task;
                }
                // Nothing else takes content.
                if takes_dav { self.stream_to_dav(cx, content) } else { Ok(()) }
            }
        }
    }

    /// Whether the task of the request takes more content for now. Who says no has to call
    /// [`Server::make_ready`] when that changes.
    pub(super) fn takes_content(&mut self, cx: &mut Context) -> bool {
        match self.exchange.as_deref_mut().and_then(|exchange| exchange.task.as_ref()) {
            Some(Task::Run(_)) => self.gateway_takes(cx),
            _ => true,
        }
    }
}
