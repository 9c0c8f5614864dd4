//! All options by name: those of the program, and after them those of the library, with a line for
//! each. What people and shells are told of options is made of it.

use mongoose::options::{self, OptionId};

/// An option of the program itself.
pub struct Own {
    pub name: &'static str,
    /// The letter that means the same.
    pub letter: Option<char>,
    /// What its value is called; none for one that is there or not.
    pub value: Option<&'static str>,
    /// Whether a file may set it.
    pub in_file: bool,
    pub about: &'static str,
}

/// What an argument is.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Ends the reading of options: something else is to be done.
    Command(&'static str),
    /// `yes`, or what is joined to it.
    Flag(&'static Own),
    Valued(&'static Own),
    Library(OptionId, &'static str),
}

const fn own(
    name: &'static str,
    letter: Option<char>,
    value: Option<&'static str>,
    in_file: bool,
    about: &'static str,
) -> Own {
    Own { name, letter, value, in_file, about }
}

pub const OWN: &[Own] = &[
    own(
        "config",
        None,
        Some("FILE"),
        false,
        "Options from a file: lines NAME VALUE, and comments with #.",
    ),
    own("user", None, Some("NAME"), true, "Asks for a password, and lets nobody in without both."),
    own(
        "tls",
        None,
        Some("FILE"),
        true,
        "https, with the certificate in FILE, or a new one: self-signed.",
    ),
    own(
        "upload",
        None,
        None,
        true,
        "Who is let in may also upload; without --user, on this machine alone.",
    ),
    own("anybody", None, None, true, "Uploads by anybody, from anywhere."),
    own("cgi", None, None, true, "Runs the CGI programs among the files."),
    own(
        "grace",
        None,
        Some("SECONDS"),
        true,
        "How long running transfers may go on at the end [10].",
    ),
    own("quiet", Some('q'), None, true, "Prints nothing but errors."),
];

/// What is done in place of serving.
pub const COMMANDS: &[Own] = &[
    own(
        "A",
        None,
        Some("FILE REALM USER [PASSWORD]"),
        false,
        "Adds or changes a user in a password file.",
    ),
    own("completions", None, Some("SHELL"), false, "Prints the completions for bash, zsh or fish."),
    own("help", Some('h'), None, false, "Prints this list."),
    own("version", Some('V'), None, false, "Prints the version."),
];

/// The options of the library: name, default of this program, and line.
pub fn library() -> impl Iterator<Item = (&'static str, String, &'static str)> {
    options::OPTIONS.iter().zip(options::ABOUT).map(|((name, default), about)| {
        let name = name.to_str().unwrap_or_default();
        let default = default.map(|default| default.to_string_lossy().into_owned());
        (name, own_default(name).map(str::to_owned).or(default).unwrap_or_default(), about.trim())
    })
}

/// Files that a directory shows in place of a listing, where no programs are run.
pub const INDEX_FILES: &str = "index.html,index.htm";

/// Returns the default where it is not that of the library.
fn own_default(name: &str) -> Option<&'static str> {
    match name {
        "cgi_pattern" => Some("none"),
        "document_root" => Some("."),
        "index_files" => Some(INDEX_FILES),
        "listening_port" => Some("[::]:8080"),
        _ => None,
    }
}

/// Finds an option by its name or its letter.
pub fn find(name: &str) -> Option<Kind> {
    let is_it = |own: &&Own| {
        let mut letters = name.chars();
        own.name == name
            || own.letter.is_some() && (letters.next(), letters.next()) == (own.letter, None)
    };
    if let Some(command) = COMMANDS.iter().find(is_it) {
        return Some(Kind::Command(command.name));
    }
    if let Some(own) = OWN.iter().find(is_it) {
        return Some(if own.value.is_some() { Kind::Valued(own) } else { Kind::Flag(own) });
    }
    let id = options::lookup(name.as_bytes())?;
    let name = options::OPTIONS.get(id as usize)?.0.to_str().ok()?;
    Some(Kind::Library(id, name))
}

/// Returns the name in full.
pub fn full_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Command(name) | Kind::Library(_, name) => name,
        Kind::Flag(own) | Kind::Valued(own) => own.name,
    }
}

/// Returns the option whose name is most like this one, if any is.
pub fn similar(name: &str) -> Option<&'static str> {
    let names = OWN.iter().chain(COMMANDS).map(|own| own.name).filter(|name| name.len() > 1);
    let names = names.chain(library().map(|(name, ..)| name));
    // A name of which only the beginning was written counts as one.
    let distance = |known: &str| match known.starts_with(name) && name.len() > 3 {
        true => 1,
        false => distance(&name.to_ascii_lowercase().replace('-', "_"), known),
    };
    let nearest = names.min_by_key(|known| distance(known))?;
    // Long names are no options, and not worth the time.
    (name.len() < 64 && distance(nearest) <= 1 + name.len() / 5).then_some(nearest)
}

/// The number of letters to be put in, left out, replaced or exchanged with the next one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, _) | (_, 0) => i + j,
                _ => {
                    let other = usize::from(a[i - 1] != b[j - 1]);
                    let mut least = (rows[i - 1][j] + 1)
                        .min(rows[i][j - 1] + 1)
                        .min(rows[i - 1][j - 1] + other);
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        least = least.min(rows[i - 2][j - 2] + 1);
                    }
                    least
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_told_from_a_name_that_means_nothing() {
        let table = [
            ("listening_prt", Some("listening_port")),
            ("Listening-Port", Some("listening_port")),
            ("documentroot", Some("document_root")),
            ("uplaod", Some("upload")),
            ("usr", Some("user")),
            ("acces_log", None),
            ("access_log", Some("access_log_file")),
            ("goodbye", None),
            ("x", None),
            ("", None),
        ];
        for (name, expected) in table {
            assert_eq!(similar(name), expected, "{name}");
        }
        assert_eq!(similar(&"x".repeat(1 << 20)), None);
    }

    #[test]
    fn no_name_of_the_program_is_one_of_the_library() {
        for own in OWN.iter().chain(COMMANDS) {
            assert!(options::lookup(own.name.as_bytes()).is_none(), "{}", own.name);
            assert!(own.about.ends_with('.') && own.about.len() < 80, "{}", own.name);
        }
    }
}
