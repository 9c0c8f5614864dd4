//! Files that a form brings (RFC 7578): each goes the way of PUT into the directory that the form is
//! sent to, and none replaces another.
//!
//! Knows neither how the content arrives nor how its outcome is told.

use std::io::{self, ErrorKind};

use super::Env;
use super::method::{MethodCall, Reply};
use super::mkcol;
use super::sweeping::Sweeper;
use super::temporary::check_room;
use super::upload::Upload;
use crate::files::resolve;
use crate::http::form_data::{Event, FormData, Problem};
use crate::http::request::Head;

/// The longest name of a file, in bytes (`NAME_MAX`).
const MAX_NAME: usize = 255;
/// The largest number of parts in a form.
const MAX_PARTS: usize = 10_000;
/// The largest number of names that are kept of files that were not stored.
const MAX_NAMES: usize = 100;
/// The largest number of files that are complete and wait for another process.
const MAX_WAITING: usize = 16;

/// A form under way.
#[derive(Debug)]
pub struct Form {
    /// The decoded path of the directory, with a slash at its end.
    path: Vec<u8>,
    content: FormData,
    /// The number of parts that have begun.
    parts: usize,
    part: Part,
    /// Files that are complete, and wait for another process that changes properties.
    waiting: Vec<(Vec<u8>, Box<Upload>)>,
    outcome: Outcome,
}

/// The part of the content that is arriving.
#[derive(Debug)]
enum Part {
    /// One that is of no use, or of none any more.
    Unused,
    File(Vec<u8>, Box<Upload>),
    /// The name of a new directory.
    Folder(Vec<u8>),
}

/// What has become of the files.
#[derive(Debug, Default)]
pub struct Outcome {
    pub stored: usize,
    /// Those that were not stored, each with the reason. Of many the first ones are named.
    pub failed: Vec<(Vec<u8>, u16)>,
    /// The number of those that are not named.
    pub unnamed: usize,
    /// The status of the first failure of the server's own.
    pub own: Option<u16>,
}

impl Outcome {
    /// Returns the status of the first failure; that of the server's own weighs more. 409 says that
    /// the name exists.
    pub fn status(&self) -> Option<u16> {
        self.own.or(self.failed.first().map(|(_, status)| *status))
    }

    /// Notes that a file was not stored. What fails in the server would fail for the files behind it as
    /// well, and ends the form.
    fn reject(&mut self, name: Vec<u8>, reply: Reply) -> Result<(), Reply> {
        self.fail(name, reply.status);
        if reply.status >= 500 { Err(reply) } else { Ok(()) }
    }

    fn fail(&mut self, name: Vec<u8>, status: u16) {
        let status = match status {
            405 | 412 => 409,
            // The name is hidden.
            404 => 403,
            // The directory has gone.
            409 => 404,
            status => status,
        };
        self.own = self.own.or(Some(status).filter(|status| *status >= 500));
        match self.failed.len() < MAX_NAMES {
            true => self.failed.push((name, status)),
            false => self.unnamed += 1,
        }
    }
}

impl Form {
    /// Begins to take a form into the directory `path`, which a client has asked for with a slash at its
    /// end. `announced` is the length of its content.
    pub fn begin(
        path: &[u8],
        boundary: &[u8],
        announced: u64,
        env: &Env<'_>,
    ) -> Result<Form, Reply> {
        let full = resolve::full_path(env.config, path).ok_or(Reply::from(404))?;
        check_room(&full, announced)?;
        Ok(Form {
            path: path.to_vec(),
            content: FormData::new(boundary),
            parts: 0,
            part: Part::Unused,
            waiting: Vec::new(),
            outcome: Outcome::default(),
        })
    }

    /// Returns whether there is content of which nothing was made yet.
    pub fn is_behind(&self) -> bool {
        self.content.is_behind()
    }

    /// Takes a piece of the content, and makes of it what `limit` allows: each part that begins or ends
    /// counts, since a file is work. Returns how many did. `env` makes the surroundings where they are
    /// needed.
    pub fn write<'a>(
        &mut self,
        piece: &[u8],
        limit: usize,
        env: &dyn Fn() -> Env<'a>,
        sweeper: &mut Sweeper,
    ) -> Result<usize, Reply> {
        let Form { path, content, parts, part, waiting, outcome } = self;
        let mut tell = |event: Event<'_>| match event {
            Event::Begin { .. } if *parts >= MAX_PARTS => Err(413.into()),
            Event::Begin { name, file_name } => {
                *parts += 1;
                *part = begin_part(path, &name, file_name, &env(), sweeper, outcome)?;
                Ok(())
            }
            Event::Data(data) => match part {
                Part::Unused => Ok(()),
                Part::File(_, upload) => upload.write(data),
                Part::Folder(name) if name.len() + data.len() > MAX_NAME => Err(400.into()),
                Part::Folder(name) => {
                    name.extend_from_slice(data);
                    Ok(())
                }
            },
            Event::End => match std::mem::replace(part, Part::Unused) {
                Part::Unused => Ok(()),
                Part::File(name, upload) => end_file(name, upload, &env(), waiting, outcome),
                Part::Folder(name) => make_folder(path, name, &env(), outcome),
            },
        };
        content.take(piece, limit, &mut tell).map_err(|problem| match problem {
            Problem::Malformed => 400.into(),
            Problem::Memory => io::Error::from(ErrorKind::OutOfMemory).into(),
            Problem::Told(reply) => reply,
        })
    }

    /// Does the next portion of work after the last content. Returns true once all is done.
    pub fn advance(&mut self, env: &Env<'_>, budget: &mut usize) -> Result<bool, Reply> {
        if !self.content.is_over() {
            return Err(400.into());
        }
        while let Some((name, upload)) = self.waiting.last_mut() {
            if *budget == 0 {
                return Ok(false);
            }
            match upload.advance(env, budget) {
                Ok(None) => return Ok(false),
                Ok(Some(_)) => self.outcome.stored += 1,
                Err(reply) => {
                    let name = std::mem::take(name);
                    self.waiting.pop();
                    self.outcome.reject(name, reply)?;
                    continue;
                }
            }
            self.waiting.pop();
        }
        Ok(true)
    }

    /// Returns what has become of the files so far. Those that were arriving or waiting are lost for the
    /// reason `status`.
    pub fn give_up(&mut self, status: u16) -> Outcome {
        for (name, _) in std::mem::take(&mut self.waiting) {
            self.outcome.fail(name, 503);
        }
        if let Part::File(name, _) = std::mem::replace(&mut self.part, Part::Unused) {
            self.outcome.fail(name, status);
        }
        self.outcome()
    }

    pub fn outcome(&mut self) -> Outcome {
        std::mem::take(&mut self.outcome)
    }
}

/// Begins with a part of the form.
fn begin_part(
    path: &[u8],
    name: &[u8],
    file_name: Option<Vec<u8>>,
    env: &Env<'_>,
    sweeper: &mut Sweeper,
    outcome: &mut Outcome,
) -> Result<Part, Reply> {
    let file_name = match file_name {
        Some(file_name) => file_name,
        None if name == b"folder" => return Ok(Part::Folder(Vec::new())),
        None => return Ok(Part::Unused),
    };
    // A browser sends such a part where no file was chosen.
    if file_name.is_empty() {
        return Ok(Part::Unused);
    }
    let begun = match is_plain_name(&file_name) {
        true => Upload::begin(call(b"PUT", path, &file_name), env, sweeper),
        false => Err(400.into()),
    };
    match begun {
        Ok(upload) => Ok(Part::File(file_name, Box::new(upload))),
        Err(reply) => outcome.reject(file_name, reply).map(|()| Part::Unused),
    }
}

/// Puts a file that is complete in its place, or lets it wait for that.
fn end_file(
    name: Vec<u8>,
    mut upload: Box<Upload>,
    env: &Env<'_>,
    waiting: &mut Vec<(Vec<u8>, Box<Upload>)>,
    outcome: &mut Outcome,
) -> Result<(), Reply> {
    match upload.advance(env, &mut { 1 }) {
        Ok(Some(_)) => outcome.stored += 1,
        Err(reply) => outcome.reject(name, reply)?,
        // Each of them holds a descriptor.
        Ok(None) if waiting.len() >= MAX_WAITING => return Err(503.into()),
        Ok(None) => waiting.push((name, upload)),
    }
    Ok(())
}

/// Makes a directory.
fn make_folder(
    path: &[u8],
    name: Vec<u8>,
    env: &Env<'_>,
    outcome: &mut Outcome,
) -> Result<(), Reply> {
    if name.is_empty() {
        return Ok(());
    }
    let made = match is_plain_name(&name) {
        true => mkcol::mkcol(&call(b"MKCOL", path, &name), env),
        false => Err(400.into()),
    };
    match made {
        Ok(_) => outcome.stored += 1,
        Err(reply) => outcome.reject(name, reply)?,
    }
    Ok(())
}

/// Returns the request that a part of the form stands for.
fn call(method: &[u8], dir: &[u8], name: &[u8]) -> MethodCall {
    let bytes = [method, b" / HTTP/1.1\r\nIf-None-Match: *\r\n\r\n"].concat();
    let mut head = Head::default();
    head.parse(&bytes, bytes.len());
    MethodCall { path: [dir, name].concat(), head, bytes, body: Vec::new() }
}

/// Returns whether a name names a file in a directory, and not somewhere else, and a client can ask
/// for it.
fn is_plain_name(name: &[u8]) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && !matches!(name, b"." | b"..")
        && !name.contains(&b'/')
        && resolve::can_be_asked_for(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_of_the_directory() {
        let long = "x".repeat(MAX_NAME);
        for name in ["a", "a b.txt", "...", "..a", "\u{e4}", "C:\\a", "%2f", &long] {
            assert!(is_plain_name(name.as_bytes()), "{name}");
        }
        let longer = "x".repeat(MAX_NAME + 1);
        for name in ["", ".", "..", "/", "a/b", "../a", "a\0", "a\nb", "\x7f", &longer] {
            assert!(!is_plain_name(name.as_bytes()), "{name:?}");
        }
        assert!(is_plain_name(b"\xff"));
    }

    #[test]
    fn the_status_is_that_of_the_first_failure_or_of_the_server() {
        let table: [(&[u16], Option<u16>); 5] = [
            (&[], None),
            (&[412, 403], Some(409)),
            (&[403, 412], Some(403)),
            (&[405, 507, 403], Some(507)),
            (&[409], Some(404)),
        ];
        for (statuses, expected) in table {
            let mut outcome = Outcome::default();
            statuses.iter().for_each(|status| outcome.fail(Vec::new(), *status));
            assert_eq!(outcome.status(), expected);
        }
        let mut outcome = Outcome::default();
        (0..1000).for_each(|_| outcome.fail(b"a".to_vec(), 412));
        outcome.fail(b"a".to_vec(), 507);
        assert_eq!((outcome.failed.len(), outcome.unnamed), (MAX_NAMES, 1001 - MAX_NAMES));
        assert_eq!(outcome.status(), Some(507));
    }
}
