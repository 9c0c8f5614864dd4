//! Faults of the library: panics that the guards at the C boundary catch.
//!
//! Owns where the text of such a panic goes: to the error log of the server that it was in, and not
//! to standard error, which is the program's. Refuses to know what is done about a fault.

use std::cell::Cell;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::Once;

/// The longest text of a panic that is kept, in bytes.
const MAX_TEXT: usize = 200;

thread_local! {
    /// The number of calls of the library that this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// The text of the last panic of this thread, with its length. An array, since a thread-local
    /// variable of the library must not need to be dropped at the end of a thread.
    static LAST: Cell<([u8; MAX_TEXT], usize)> = const { Cell::new(([0; MAX_TEXT], 0)) };
}

/// A call of the library by this thread, whose panics are not printed.
pub struct Quiet(());

impl Quiet {
    /// Begins a call.
    #[inline]
    pub fn begin() -> Quiet {
        DEPTH.set(DEPTH.get() + 1);
        Quiet(())
    }
}

impl Drop for Quiet {
    #[inline]
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Keeps panics within the library from being printed: where a [`Quiet`] call runs, and where
/// `is_inside` says so, which costs nothing until then. Those of the program, if it is written in
/// Rust, are reported as before, unless they are in a handler.
pub fn keep_quiet(is_inside: fn() -> bool) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| match DEPTH.get() > 0 || is_inside() {
            true => note(info),
            false => before(info),
        }));
    });
}

/// Returns the text of the last panic of this thread, which is reported once.
pub fn take_last() -> String {
    let (text, len) = LAST.replace(([0; MAX_TEXT], 0));
    String::from_utf8_lossy(text.get(..len).unwrap_or_default()).into_owned()
}

fn note(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let payload = info.payload();
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let whole = [&place, ": ", message.unwrap_or("it has no text")].concat();
    let mut text = [0; MAX_TEXT];
    let len = whole.len().min(MAX_TEXT);
    text[..len].copy_from_slice(&whole.as_bytes()[..len]);
    LAST.set((text, len));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_program_is_none_of_the_library() {
        keep_quiet(|| false);
        let panics = |text: &'static str| std::panic::catch_unwind(|| panic!("{text}")).is_err();
        let quiet = Quiet::begin();
        assert!(panics("a fault of the library"));
        let text = take_last();
        assert!(text.contains("faults.rs:") && text.ends_with("a fault of the library"), "{text}");
        drop(quiet);
        assert!(panics("a fault of the program"));
        assert_eq!(take_last(), "");
    }

    #[test]
    fn a_long_text_is_cut() {
        keep_quiet(|| false);
        let quiet = Quiet::begin();
        let text = "\u{e9}".repeat(MAX_TEXT);
        assert!(std::panic::catch_unwind(|| panic!("{text}")).is_err());
        drop(quiet);
        let text = take_last();
        assert!((MAX_TEXT..MAX_TEXT + 3).contains(&text.len()), "{text}");
    }
}
