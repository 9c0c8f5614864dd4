//! What is wished for, from the command line and from a file: each value is checked here, before anything
//! is opened, so that nothing is half started.
//!
//! Refuses to know how the wishes are fulfilled, which is in `serving`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use mongoose::options::{OptionId, Options};

use crate::arguments::Arguments;
use crate::catalogue::{self, Kind};
use crate::config_file;
use crate::failure::Failure;
use crate::passwords;

/// The time for running transfers at the end.
const GRACE: Duration = Duration::from_secs(10);
/// The longest such time: a day.
const MAX_GRACE: u64 = 86_400;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    CommandLine,
    File(PathBuf, usize),
    /// The program sets it where nobody else does.
    Program,
}

/// A value, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish<T> {
    pub value: T,
    pub origin: Origin,
}

/// An option of the library.
pub struct Setting {
    pub id: OptionId,
    /// The name by which it was asked for.
    pub name: &'static str,
    pub value: Vec<u8>,
    pub origin: Origin,
}

/// All that is wished for.
pub struct Wishes {
    pub folder: Option<PathBuf>,
    pub settings: Vec<Setting>,
    pub user: Option<Wish<Vec<u8>>>,
    pub tls: Option<Wish<Vec<u8>>>,
    pub upload: Option<Origin>,
    pub anybody: bool,
    pub cgi: bool,
    pub quiet: bool,
    pub grace: Duration,
}

impl Origin {
    /// The failure for an option from here.
    pub fn refuse(&self, name: &str, why: impl fmt::Display) -> Failure {
        match self {
            Origin::CommandLine => Failure::usage(format!("--{name}: {why}")),
            Origin::Program => Failure::usage(format!("{name}: {why}")),
            Origin::File(path, number) => {
                config_file::refuse_line(path, *number, &format!("{name}: {why}"))
            }
        }
    }
}

impl Wishes {
    /// Collects what the arguments say, and the file that they name. The arguments win.
    pub fn collect(arguments: Arguments) -> Result<Wishes, Failure> {
        let mut wishes = Wishes {
            folder: arguments.folder.map(PathBuf::from),
            settings: Vec::new(),
            user: None,
            tls: None,
            upload: None,
            anybody: false,
            cgi: false,
            quiet: false,
            grace: GRACE,
        };
        if let Some(path) = arguments.config {
            for line in config_file::read(&path)? {
                let origin = Origin::File(path.clone(), line.number);
                let refuse = |why: &str| config_file::refuse_line(&path, line.number, why);
                let kind =
                    catalogue::find(&line.name).ok_or_else(|| refuse(&unknown(&line.name)))?;
                let is_own = matches!(&kind, Kind::Flag(own) | Kind::Valued(own) if !own.in_file);
                if is_own || matches!(kind, Kind::Command(_)) {
                    return Err(refuse(&format!("{} is for the command line alone", line.name)));
                }
                wishes.take(kind, line.value, origin)?;
            }
        }
        for (name, value) in arguments.settings {
            if let Some(kind) = catalogue::find(&name) {
                wishes.take(kind, value, Origin::CommandLine)?;
            }
        }
        if let (Some(folder), Some(setting)) =
            (&wishes.folder, wishes.setting(OptionId::DocumentRoot))
        {
            // A file has a directory for those times at which the command line has none.
            if setting.origin == Origin::CommandLine {
                let why = format!("the directory {} is named as well", folder.display());
                return Err(setting.origin.refuse(setting.name, why));
            }
        }
        Ok(wishes)
    }

    /// Returns the value that is set for an option of the library.
    pub fn setting(&self, id: OptionId) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.id == id)
    }

    /// Sets an option of the library in place of its value so far.
    pub fn set(&mut self, setting: Setting) {
        self.settings.retain(|other| other.id != setting.id);
        self.settings.push(setting);
    }

    /// Sets an option of the library where nobody else has.
    pub fn set_default(&mut self, id: OptionId, value: impl Into<Vec<u8>>) {
        if self.setting(id).is_none() {
            self.set(Setting {
                id,
                name: name_of(id),
                value: value.into(),
                origin: Origin::Program,
            });
        }
    }

    fn take(&mut self, kind: Kind, value: Vec<u8>, origin: Origin) -> Result<(), Failure> {
        let name = catalogue::full_name(kind);
        if let Kind::Library(id, name) = kind {
            // Whether an address can be bound or a certificate be read shows later.
            Options::new()
                .set(id, Some(&value))
                .map_err(|why| origin.refuse(name, why.to_string_lossy()))?;
            if value.is_empty() {
                // As if nobody had set it: the defaults of the program are not those of the library.
                self.settings.retain(|other| other.id != id);
            } else {
                self.set(Setting { id, name, value, origin });
            }
            return Ok(());
        }
        let text = String::from_utf8_lossy(&value).into_owned();
        let yes = || match text.as_str() {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(origin.refuse(name, "the value must be yes or no")),
        };
        match name {
            "user" => {
                passwords::check_name(&value).map_err(|why| origin.refuse(name, why))?;
                self.user = Some(Wish { value, origin });
            }
            "tls" if value.is_empty() => {
                return Err(origin.refuse(name, "the value must be a file, or self-signed"));
            }
            "tls" => self.tls = Some(Wish { value, origin }),
            "upload" => self.upload = yes()?.then_some(origin),
            "anybody" => self.anybody = yes()?,
            "cgi" => self.cgi = yes()?,
            "quiet" => self.quiet = yes()?,
            "grace" => {
                let seconds = text.parse().ok().filter(|seconds| *seconds <= MAX_GRACE);
                let why = "the value must be a number of seconds, at most 86400";
                let seconds = seconds.filter(|_| !text.starts_with('+'));
                self.grace = Duration::from_secs(seconds.ok_or_else(|| origin.refuse(name, why))?);
            }
            _ => debug_assert!(false, "an option without a meaning: {name}"),
        }
        Ok(())
    }
}

/// The name of an option of the library.
pub fn name_of(id: OptionId) -> &'static str {
    let known = mongoose::options::OPTIONS.get(id as usize);
    known.and_then(|(name, _)| name.to_str().ok()).unwrap_or_default()
}

fn unknown(name: &str) -> String {
    match catalogue::similar(name) {
        Some(similar) => format!("No such option: {name}. Did you mean {similar}?"),
        None => format!("No such option: {name}"),
    }
}
