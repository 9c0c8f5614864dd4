//! The command line: which command it is, and the settings that it names.
//!
//! Refuses to know what a setting means, which is in `wishes`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use crate::catalogue::{self, Kind};
use crate::completions::Shell;
use crate::failure::Failure;

/// What the program was started for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    Version,
    Completions(Shell),
    EditPasswords { file: PathBuf, realm: Vec<u8>, user: Vec<u8>, password: Option<Vec<u8>> },
    Serve(Arguments),
}

/// The arguments of a server.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    pub folder: Option<OsString>,
    pub config: Option<PathBuf>,
    /// Names with their values, in their order.
    pub settings: Vec<(String, Vec<u8>)>,
}

/// Reads the arguments behind the name of the program.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Failure> {
    let mut arguments = arguments.into_iter();
    let mut found = Arguments::default();
    let mut has_ended = false;
    while let Some(argument) = arguments.next() {
        let bytes = argument.as_bytes();
        if has_ended || !bytes.starts_with(b"-") || bytes == b"-" {
            take_folder(&mut found, argument)?;
            continue;
        }
        if bytes == b"--" {
            has_ended = true;
            continue;
        }
        let (name, value) = split(bytes);
        let shown = String::from_utf8_lossy(bytes_of_name(bytes)).into_owned();
        let kind = catalogue::find(&name).ok_or_else(|| unknown(&shown, &name))?;
        if let Kind::Command(name) = kind {
            return command(name, value, arguments);
        }
        let value = match (kind, value) {
            (Kind::Flag(_), None) => b"yes".to_vec(),
            (_, Some(value)) => value,
            (_, None) => match arguments.next() {
                Some(value) => value.into_vec(),
                None => return Err(Failure::usage(format!("{shown} needs a value"))),
            },
        };
        if name == "config" {
            if found.config.is_some() {
                return Err(Failure::usage("--config stands twice: one file can be read"));
            }
            found.config = Some(OsString::from_vec(value).into());
            continue;
        }
        found.settings.push((catalogue::full_name(kind).to_owned(), value));
    }
    Ok(Command::Serve(found))
}

fn take_folder(found: &mut Arguments, folder: OsString) -> Result<(), Failure> {
    if let Some(first) = &found.folder {
        let (first, second) = (first.display(), folder.display());
        return Err(Failure::usage(format!(
            "one directory can be shared: {first} or {second}? (An option begins with --)"
        )));
    }
    if folder.is_empty() {
        return Err(Failure::usage("the name of the directory is empty"));
    }
    found.folder = Some(folder);
    Ok(())
}

/// The argument up to the `=`, as it was written.
fn bytes_of_name(argument: &[u8]) -> &[u8] {
    argument.split(|byte| *byte == b'=').next().unwrap_or_default()
}

/// Splits `--name=value`, also with one dash, into the name and the value.
fn split(argument: &[u8]) -> (String, Option<Vec<u8>>) {
    let name = bytes_of_name(argument);
    let value = argument.get(name.len() + 1..).map(<[u8]>::to_vec);
    let name = name.strip_prefix(b"--").or(name.strip_prefix(b"-")).unwrap_or(name);
    (String::from_utf8_lossy(name).into_owned(), value)
}

fn unknown(shown: &str, name: &str) -> Failure {
    let hint = match catalogue::similar(name) {
        Some(similar) => format!(" Did you mean --{similar}?"),
        None => " --help lists all of them.".to_owned(),
    };
    Failure::usage(format!("No such option: {shown}.{hint}"))
}

/// Reads a command that serves nothing. What stands before it is not looked at any more.
fn command(
    name: &str,
    value: Option<Vec<u8>>,
    arguments: impl Iterator<Item = OsString>,
) -> Result<Command, Failure> {
    let rest: Vec<OsString> = value.map(OsString::from_vec).into_iter().chain(arguments).collect();
    match (name, rest.as_slice()) {
        ("help", _) => Ok(Command::Help),
        ("version", _) => Ok(Command::Version),
        ("completions", [shell]) => match Shell::named(shell) {
            Some(shell) => Ok(Command::Completions(shell)),
            None => Err(Failure::usage("--completions knows bash, zsh and fish")),
        },
        ("completions", _) => Err(Failure::usage("--completions needs bash, zsh or fish")),
        (_, [file, realm, user, rest @ ..]) if rest.len() < 2 => Ok(Command::EditPasswords {
            file: file.into(),
            realm: realm.as_bytes().to_vec(),
            user: user.as_bytes().to_vec(),
            password: rest.first().map(|password: &OsString| password.as_bytes().to_vec()),
        }),
        _ => Err(Failure::usage("-A takes a file, a realm, a user, and perhaps a password")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, Failure> {
        parse(line.split(' ').filter(|word| !word.is_empty()).map(OsString::from))
    }

    fn settings(line: &str) -> Vec<(String, String)> {
        match read(line) {
            Ok(Command::Serve(found)) => {
                let text = |value: Vec<u8>| String::from_utf8(value).expect("text");
                found.settings.into_iter().map(|(name, value)| (name, text(value))).collect()
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn an_option_is_written_with_one_dash_or_two_and_its_value_behind_it_or_joined() {
        for line in [
            "--listening_port 80",
            "-listening_port 80",
            "--listening_port=80",
            "-listening_port=80",
            "dir --listening_port 80",
            "--listening_port 80 -- --dir",
        ] {
            assert_eq!(settings(line), [("listening_port".to_owned(), "80".to_owned())], "{line}");
        }
        let both = settings("--upload --url_rewrites /a=/b=c -q --cgi=no");
        let both: Vec<String> =
            both.iter().map(|(name, value)| format!("{name} {value}")).collect();
        assert_eq!(both, ["upload yes", "url_rewrites /a=/b=c", "quiet yes", "cgi no"]);
    }

    #[test]
    fn what_cannot_be_read_is_told_in_a_sentence() {
        let table = [
            (
                "--listening_prt 80",
                "No such option: --listening_prt. Did you mean --listening_port?",
            ),
            (
                "--listening-port=80",
                "No such option: --listening-port. Did you mean --listening_port?",
            ),
            ("-uplaod", "No such option: -uplaod. Did you mean --upload?"),
            ("--quixotic", "No such option: --quixotic. --help lists all of them."),
            ("--listening_port", "--listening_port needs a value"),
            ("a b", "one directory can be shared: a or b? (An option begins with --)"),
            ("--config a --config b", "--config stands twice: one file can be read"),
            ("--completions tcsh", "--completions knows bash, zsh and fish"),
            ("--completions", "--completions needs bash, zsh or fish"),
            ("-A file realm", "-A takes a file, a realm, a user, and perhaps a password"),
            ("-A f r u p more", "-A takes a file, a realm, a user, and perhaps a password"),
        ];
        for (line, sentence) in table {
            assert_eq!(read(line), Err(Failure::usage(sentence)), "{line}");
        }
    }

    #[test]
    fn commands_are_known_by_their_names() {
        assert_eq!(read("--help"), Ok(Command::Help));
        assert_eq!(read("-h"), Ok(Command::Help));
        assert_eq!(read("--version"), Ok(Command::Version));
        let edit = |password: Option<&str>| Command::EditPasswords {
            file: "f".into(),
            realm: b"r".to_vec(),
            user: b"u".to_vec(),
            password: password.map(|password| password.as_bytes().to_vec()),
        };
        assert_eq!(read("-A f r u"), Ok(edit(None)));
        assert_eq!(read("-A f r u p"), Ok(edit(Some("p"))));
        let nobody = parse([OsString::from("--user"), OsString::new()]);
        assert!(matches!(nobody, Ok(Command::Serve(_))), "the value is judged elsewhere");
    }
}
