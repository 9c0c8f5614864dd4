//! The program `mongoose`: shares a directory.
//!
//! Owns options, signals and the terminal. All serving is the library's.

mod addresses;
mod arguments;
mod catalogue;
mod certificate;
mod completions;
mod config_file;
mod failure;
mod help;
mod passwords;
mod relay;
mod server;
mod serving;
mod signals;
mod systemd;
mod terminal;
mod wishes;

use std::io::Write as _;
use std::process::ExitCode;

use self::arguments::Command;
use self::failure::Failure;
use self::wishes::Wishes;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "mongoose: {}", failure.sentence);
            ExitCode::from(failure.status)
        }
    }
}

fn run() -> Result<(), Failure> {
    match arguments::parse(std::env::args_os().skip(1))? {
        Command::Help => print(&help::help()),
        Command::Version => print(&help::version()),
        Command::Completions(shell) => print(&shell.script()),
        Command::EditPasswords { file, realm, user, password } => {
            passwords::edit(&file, &realm, &user, password)
        }
        Command::Serve(arguments) => serving::serve(Wishes::collect(arguments)?),
    }
}

/// Prints a text, as far as the reader wants it.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::trouble(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}
