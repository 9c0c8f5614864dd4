//! What is played while calls fail: each scenario says which files there are, what is asked, and what the right
//! answers are. It can be played again on the same server.

mod dav;
mod files;
mod life;
mod requests;
mod sealed;

use super::world::World;
use crate::support::Scratch;

/// When calls fail.
#[derive(Clone, Copy, PartialEq)]
pub enum Span {
    /// While it is played; then it is played again, and nothing fails any more.
    Play,
    /// From the creation of the server on.
    Creation,
    /// Until the server has ended, which is a part of the scenario.
    End,
}

/// A scenario.
pub struct Scenario {
    pub name: &'static str,
    pub span: Span,
    /// Options of the server beside `listening_port`, `document_root` and `error_log_file`.
    pub args: fn(&Scratch) -> Vec<String>,
    /// Puts the files of `root` back to what they are at first.
    pub reset: fn(&Scratch),
    /// What happens before calls fail.
    pub prepare: fn(&mut World),
    /// Ends early where it cannot go on; what came of its steps is noted in the world.
    pub play: fn(&mut World) -> Option<()>,
    /// Whether each file is whole, as it was or as it was to be.
    pub files: fn(&Scratch) -> Result<(), String>,
}

/// A scenario of requests that change no file, without options.
const PLAIN: Scenario = Scenario {
    name: "",
    span: Span::Play,
    args: |_| Vec::new(),
    reset: |_| {},
    prepare: |_| {},
    play: |_| None,
    files: |_| Ok(()),
};

/// All of them.
pub fn all() -> Vec<Scenario> {
    [requests::all(), files::all(), dav::all(), sealed::all(), life::all()]
        .into_iter()
        .flatten()
        .collect()
}

/// `len` bytes that are not the same anywhere.
fn filling(len: usize) -> Vec<u8> {
    let words = (0_u32..).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes());
    words.take(len).map(|byte| b'a' + byte % 26).collect()
}

/// Options as text.
fn options(list: &[&str]) -> Vec<String> {
    list.iter().map(|option| (*option).to_owned()).collect()
}

/// A file is one of these.
fn is_one_of(scratch: &Scratch, name: &str, texts: &[&str]) -> Result<(), String> {
    let text = scratch.read(name);
    match texts.contains(&text.as_str()) {
        true => Ok(()),
        false => Err(format!("{name} is {:.60?} of {} bytes", text, text.len())),
    }
}
