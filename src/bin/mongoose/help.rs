//! What `--help` and `--version` print.

use std::fmt::Write as _;

use crate::catalogue::{self, Own};

const USE: &str = "\
Shares a directory over HTTP: the current one, or DIRECTORY.

    mongoose [OPTION]... [DIRECTORY]
    mongoose -A FILE REALM USER [PASSWORD]

It listens on port 8080, or on the next one that is free, and everybody who reaches it may read.
An option is written --NAME VALUE, -NAME VALUE or --NAME=VALUE.

Options:
";

const LIBRARY: &str = "
Options of the library, with their defaults in brackets; docs/options.md and mongoose.conf(5) say more:
";

/// What `--version` prints.
pub fn version() -> String {
    format!("mongoose {}\n", env!("CARGO_PKG_VERSION"))
}

/// What `--help` prints.
pub fn help() -> String {
    let mut text = USE.to_owned();
    for own in catalogue::OWN.iter().chain(catalogue::COMMANDS) {
        // Writing to a text does not fail.
        let _ = writeln!(text, "  {:<26}  {}", usage(own), own.about);
    }
    text.push_str(LIBRARY);
    for (name, default, about) in catalogue::library() {
        let default = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        let _ = writeln!(text, "  --{name} VALUE{default}\n      {about}");
    }
    text
}

fn usage(own: &Own) -> String {
    let dashes = if own.name.len() == 1 { "-" } else { "--" };
    let mut text = format!("{dashes}{}", own.name);
    if let Some(letter) = own.letter {
        text = format!("-{letter}, {text}");
    }
    if let Some(value) = own.value {
        text = format!("{text} {value}");
    }
    text
}
