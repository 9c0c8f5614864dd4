//! The contents of connections that the program must not see while `mg_iterate_over_connections`
//! visits them.
//!
//! Owns the contents and puts them back. Refuses to know why a content is hidden and for how long.

use crate::shared::slots::{Content, Generation, Slot};

/// The hidden contents; the last one was hidden last.
#[derive(Default)]
pub struct Hidden(Vec<HiddenContent>);

struct HiddenContent {
    slot: &'static Slot,
    generation: Generation,
    content: Content,
}

impl Hidden {
    /// Returns the number of hidden contents.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether no content is hidden.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Shows `instead` in the place of the content of a slot.
    pub fn hide(&mut self, slot: &'static Slot, generation: Generation, instead: Content) {
        let content = slot.swap_content(instead);
        self.0.push(HiddenContent { slot, generation, content });
    }

    /// Returns whether the content that was hidden last is that of `slot`.
    pub fn ends_with(&self, slot: &'static Slot) -> bool {
        self.0.last().is_some_and(|hidden| std::ptr::eq(hidden.slot, slot))
    }

    /// Shows the content that was hidden last again, unless its connection has closed since.
    pub fn show_last(&mut self) {
        if let Some(HiddenContent { slot, generation, content }) = self.0.pop()
            && slot.open_generation() == Some(generation)
        {
            slot.swap_content(content);
        }
    }

    /// Empties the hidden contents of a connection whose memory goes away: nothing must be shown
    /// again.
    pub fn forget(&mut self, slot: &'static Slot) {
        for hidden in self.0.iter_mut().filter(|hidden| std::ptr::eq(hidden.slot, slot)) {
            hidden.content = Content::none();
        }
    }
}
