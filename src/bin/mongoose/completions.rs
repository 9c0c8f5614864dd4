//! The files by which shells complete the arguments. Those in `packaging/completions` are made here.

use std::ffi::OsStr;
use std::fmt::Write as _;

use crate::catalogue;

/// A shell that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// What follows an option.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Follows {
    Nothing,
    /// A text that is not completed.
    Text,
    File,
    User,
    Words(&'static [&'static str]),
}

/// An option as shells are told of it.
struct Entry {
    name: &'static str,
    letter: Option<char>,
    follows: Follows,
    about: &'static str,
}

impl Shell {
    pub fn named(name: &OsStr) -> Option<Shell> {
        match name.to_str()? {
            "bash" => Some(Shell::Bash),
            "zsh" => Some(Shell::Zsh),
            "fish" => Some(Shell::Fish),
            _ => None,
        }
    }

    /// Returns the file for this shell.
    pub fn script(self) -> String {
        match self {
            Shell::Bash => bash(),
            Shell::Zsh => zsh(),
            Shell::Fish => fish(),
        }
    }
}

fn entries() -> Vec<Entry> {
    let own = catalogue::OWN.iter().chain(catalogue::COMMANDS).map(|own| Entry {
        name: own.name,
        letter: own.letter,
        follows: match own.name {
            "config" | "tls" | "A" => Follows::File,
            "completions" => Follows::Words(&["bash", "zsh", "fish"]),
            _ if own.value.is_some() => Follows::Text,
            _ => Follows::Nothing,
        },
        about: own.about,
    });
    let library = catalogue::library().map(|(name, default, about)| Entry {
        name,
        letter: None,
        follows: match name {
            "document_root" | "cgi_interpreter" | "ssl_certificate" | "ssl_ca_certificate" => {
                Follows::File
            }
            "run_as_user" => Follows::User,
            "enable_basic_auth" => Follows::Words(&["no", "tls", "always"]),
            "follow_symlinks" => Follows::Words(&["yes", "no", "same_owner"]),
            _ if name.ends_with("_file") => Follows::File,
            _ if matches!(default.as_str(), "yes" | "no") => Follows::Words(&["yes", "no"]),
            _ => Follows::Text,
        },
        about,
    });
    own.chain(library).collect()
}

/// The option as it is written.
fn dashed(name: &str) -> String {
    format!("{}{name}", if name.len() == 1 { "-" } else { "--" })
}

fn bash() -> String {
    let entries = entries();
    let mut cases = String::new();
    let named = |follows: Follows| {
        let names = entries.iter().filter(|entry| entry.follows == follows);
        names.map(|entry| dashed(entry.name)).collect::<Vec<_>>().join("|")
    };
    let mut words: Vec<&[&str]> = Vec::new();
    for entry in &entries {
        if let Follows::Words(list) = entry.follows
            && !words.contains(&list)
        {
            words.push(list);
        }
    }
    // Writing to a text does not fail.
    for list in words {
        let reply = format!("$(compgen -W '{}' -- \"$word\")", list.join(" "));
        let _ =
            writeln!(cases, "    {})\n      COMPREPLY=({reply}) ;;", named(Follows::Words(list)));
    }
    let _ = writeln!(
        cases,
        "    {})\n      compopt -o filenames; COMPREPLY=($(compgen -f -- \"$word\")) ;;",
        named(Follows::File)
    );
    let _ = writeln!(
        cases,
        "    {})\n      COMPREPLY=($(compgen -u -- \"$word\")) ;;",
        named(Follows::User)
    );
    let _ = writeln!(cases, "    {})\n      ;;", named(Follows::Text));
    let all = entries.iter().map(|entry| dashed(entry.name)).collect::<Vec<_>>().join(" ");
    format!(
        "# Completions of mongoose for bash, made by `mongoose --completions bash`.
_mongoose() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} IFS=$' \\t\\n'
  COMPREPLY=()
  case $before in
{cases}    *)
      if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W '{all}' -- \"$word\"))
      else
        compopt -o filenames; COMPREPLY=($(compgen -d -- \"$word\"))
      fi ;;
  esac
}}
complete -F _mongoose mongoose
"
    )
}

/// The line of an option within single quotes, where these characters would mean something.
fn quoted(about: &str, special: &[char]) -> String {
    let mut text = String::new();
    for character in about.trim_end_matches('.').chars() {
        match character {
            '\'' => text.push_str("'\\''"),
            _ if special.contains(&character) => text.extend(['\\', character]),
            _ => text.push(character),
        }
    }
    text
}

fn zsh() -> String {
    let mut lines = String::new();
    for entry in entries() {
        let about = quoted(entry.about, &['[', ']', ':', '\\']);
        let action = match entry.follows {
            Follows::Nothing => String::new(),
            Follows::Text => ":value: ".to_owned(),
            Follows::File if entry.name == "document_root" => ":directory:_files -/".to_owned(),
            Follows::File => ":file:_files".to_owned(),
            Follows::User => ":user:_users".to_owned(),
            Follows::Words(words) => format!(":value:({})", words.join(" ")),
        };
        let name = dashed(entry.name);
        let names = match entry.letter {
            Some(letter) => format!("'(-{letter} {name})'{{-{letter},{name}}}'"),
            None => format!("'{name}"),
        };
        // Writing to a text does not fail.
        let _ = writeln!(lines, "  {names}[{about}]{action}' \\");
    }
    format!(
        "#compdef mongoose
# Completions of mongoose for zsh, made by `mongoose --completions zsh`.
_arguments \\
{lines}  '*:directory:_files -/'
"
    )
}

fn fish() -> String {
    let mut lines = String::new();
    for entry in entries() {
        let mut line = match entry.name.len() {
            1 => format!("complete -c mongoose -s {}", entry.name),
            _ => format!("complete -c mongoose -l {}", entry.name),
        };
        // Writing to a text does not fail.
        if let Some(letter) = entry.letter {
            let _ = write!(line, " -s {letter}");
        }
        match entry.follows {
            Follows::Nothing => {}
            Follows::Text => line.push_str(" -x"),
            Follows::File => line.push_str(" -r -F"),
            Follows::User => line.push_str(" -x -a '(__fish_complete_users)'"),
            Follows::Words(words) => {
                let _ = write!(line, " -x -a '{}'", words.join(" "));
            }
        }
        let about = entry.about.trim_end_matches('.').replace('\\', "\\\\").replace('\'', "\\'");
        let _ = writeln!(lines, "{line} -d '{about}'");
    }
    format!(
        "# Completions of mongoose for fish, made by `mongoose --completions fish`.
complete -c mongoose -f -a '(__fish_complete_directories)'
{lines}"
    )
}
