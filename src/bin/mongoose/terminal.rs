//! The terminal: whether there is one, and a question whose answer is not shown (POSIX `tcsetattr`).

use std::io::{self, IsTerminal as _, Write as _};
use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

/// The settings of the terminal to return to, while a password is typed.
static BEFORE: Mutex<Option<libc::termios>> = Mutex::new(None);

pub fn is_input() -> bool {
    io::stdin().is_terminal()
}

/// Returns whether lines for people are to be written, and whether in colour.
pub fn output() -> (bool, bool) {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    let is_terminal = io::stdout().is_terminal();
    (is_terminal, is_terminal && !is_set("NO_COLOR") && !is_dumb)
}

/// Returns whether the process has a terminal that is still there.
pub fn is_attached() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Asks on the terminal. What is typed is not shown, and the terminal is as before at the end, also if
/// a signal ends the process (see [`restore`]).
pub fn ask(question: &str) -> io::Result<Vec<u8>> {
    let mut error = io::stderr();
    // Who sees the question may answer at once.
    hide()?;
    let mut line = Vec::new();
    let read = error.write_all(question.as_bytes()).and_then(|()| read_line(&mut line));
    restore();
    // The line end was not shown either.
    error.write_all(b"\n")?;
    read.map(|()| line)
}

/// Reads a line from the terminal, and leaves nothing of the next one in a buffer.
fn read_line(line: &mut Vec<u8>) -> io::Result<()> {
    let mut part = [0; 4096];
    loop {
        // A terminal gives one line at most.
        let count = rustix::io::retry_on_intr(|| rustix::io::read(io::stdin(), &mut part))?;
        line.extend_from_slice(part.get(..count).unwrap_or_default());
        if count == 0 || line.ends_with(b"\n") {
            break;
        }
    }
    if line.ends_with(b"\n") {
        line.pop();
    }
    Ok(())
}

/// Keeps the terminal from showing what is typed.
fn hide() -> io::Result<()> {
    let mut settings = MaybeUninit::uninit();
    // SAFETY: the call writes to the place that it is given.
    if unsafe { libc::tcgetattr(libc::STDIN_FILENO, settings.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded.
    let mut settings: libc::termios = unsafe { settings.assume_init() };
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(settings);
    settings.c_lflag &= !(libc::ECHO | libc::ECHONL);
    set(&settings)
}

/// Returns the terminal to its settings, if a password is being typed.
pub fn restore() {
    if let Some(settings) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // Nothing can be done about a failure.
        let _ = set(&settings);
    }
}

fn set(settings: &libc::termios) -> io::Result<()> {
    // SAFETY: the settings come from the terminal.
    match unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSAFLUSH, settings) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Tells people what is wrong, as far as there is somebody who reads it.
pub fn complain(why: &str) {
    let _ = writeln!(io::stderr(), "mongoose: {why}");
}
