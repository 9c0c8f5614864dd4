//! The method PROPPATCH (RFC 4918, section 9.2). Decides whether each change of a dead property, or of
//! the modification time, can be made, and makes all or none. Knows nothing of how properties are
//! stored.

use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use super::Env;
use super::bodies::{Change, propertyupdate};
use super::method::{MethodCall, Reply};
use super::multistatus::{Multistatus, write_name};
use super::properties::{is_protected, is_win32_time};
use super::stamp::{set_second, set_time};
use super::store::{self, Properties};
use super::target::{Home, Target};
use super::xml::{Name, parse};

/// The largest size of one dead property, and of all dead properties of a resource, in bytes.
const MAX_PROPERTY: usize = 64 * 1024;
const MAX_PROPERTIES: usize = 1024 * 1024;
/// The largest number of dead properties of one resource.
const MAX_NUMBER: usize = 4096;
/// The condition that a change of what the server computes does not meet (RFC 4918, section 16).
const PROTECTED: &str = "cannot-modify-protected-property";

/// Performs PROPPATCH.
pub fn proppatch(request: &MethodCall, env: &Env<'_>) -> Result<Reply, Reply> {
    let target = request.target(env)?;
    let home @ Home { dir, name } = home(&target)?;
    let changes = propertyupdate(&request.body)?;
    request.may_change(env, &target, false)?;
    let state = target.state(env)?;
    let mut properties =
        state.member(name).map(|member| member.properties.clone()).unwrap_or_default();
    let mut total = properties.iter().map(|(_, value)| value.len()).sum();
    let mut stats = vec![
        (200, String::new(), None),
        (403, String::new(), Some(PROTECTED)),
        (507, String::new(), None),
        (409, String::new(), None),
        (403, String::new(), None),
    ];
    // The time is changed first: only an attempt shows whether that is allowed.
    let mut time = NewTime { path: home.path(), meta: target.metadata(), second: None };
    for change in &changes {
        let (name, mut status) = check_change(change, &properties, total);
        let condition = (status == 403).then_some(PROTECTED);
        if status == 200 && is_win32_time(name) && time.set(change).is_err() {
            // The file belongs to another user.
            status = 403;
        }
        match stats.iter_mut().find(|(known, _, why)| (*known, *why) == (status, condition)) {
            Some((_, names, _)) => write_name(names, name),
            None => debug_assert!(false, "a change with an unknown status"),
        }
        if status == 200 {
            let (before, after) = apply(change, &mut properties);
            total = total + after - before;
        }
    }
    if stats[1..].iter().all(|(_, names, _)| names.is_empty()) {
        let stored = store::update(dir, env.unix, &mut |state| {
            let properties = &mut state.member_mut(name).properties;
            for change in &changes {
                apply(change, properties);
            }
        });
        stored.inspect_err(|_| time.undo())?;
        // A state file that is written into a directory changes its time.
        time.repeat();
    } else {
        // Either all changes are made or none is (RFC 4918, section 9.2).
        time.undo();
        stats[0].0 = 424;
    }
    stats.retain(|(_, names, _)| !names.is_empty());
    let mut document = Multistatus::new();
    document.properties(&target.href(), &stats);
    Ok(Reply { body: Some(document.finish()), ..207.into() })
}

/// The change of the modification time, which can be undone.
struct NewTime<'a> {
    path: PathBuf,
    /// The file as it was.
    meta: Option<&'a Metadata>,
    second: Option<u64>,
}

impl NewTime<'_> {
    /// Sets the time that a change of the property names.
    fn set(&mut self, change: &Change) -> io::Result<()> {
        let second = second_of(change).ok_or(ErrorKind::InvalidInput)?;
        set_second(&self.path, second)?;
        self.second = Some(second);
        Ok(())
    }

    fn repeat(&self) {
        if let Some(second) = self.second {
            let _ = set_second(&self.path, second);
        }
    }

    fn undo(&self) {
        if let (Some(meta), Some(_)) = (self.meta, self.second) {
            let _ = set_time(&self.path, meta.mtime(), meta.mtime_nsec());
        }
    }
}

/// Returns the time that a change of the property of the modification time names, in seconds since
/// 1970.
fn second_of(change: &Change) -> Option<u64> {
    let Change::Set(_, element) = change else { return None };
    let text = parse(element.as_bytes()).ok()?.text();
    let date = httpdate::parse_http_date(text.trim()).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// Returns where the state of an existing target is stored.
pub fn home(target: &Target) -> Result<&Home, Reply> {
    target.home.as_ref().filter(|_| target.exists()).ok_or_else(|| 404.into())
}

/// Returns the name of the property and the status of its change, where `total` is the size of all
/// properties so far, in bytes.
fn check_change<'a>(change: &'a Change, properties: &Properties, total: usize) -> (&'a Name, u16) {
    let (name, len) = match change {
        Change::Set(name, value) => (name, value.len()),
        Change::Remove(name) => (name, 0),
    };
    let known = properties.get(name);
    let others = total - known.map_or(0, String::len).min(total);
    let is_new = known.is_none() && matches!(change, Change::Set(..));
    let status = match len {
        _ if is_protected(name) => 403,
        // A time can be set to another, and is always there.
        _ if is_win32_time(name) => match change {
            Change::Set(..) if second_of(change).is_some() => 200,
            Change::Set(..) => 409,
            Change::Remove(_) => 403,
        },
        _ if len > MAX_PROPERTY || others + len > MAX_PROPERTIES => 507,
        _ if is_new && properties.len() >= MAX_NUMBER => 507,
        _ => 200,
    };
    (name, status)
}

/// Makes a change. Returns the size of the property before and after it, in bytes.
fn apply(change: &Change, properties: &mut Properties) -> (usize, usize) {
    let (before, after) = match change {
        Change::Set(name, _) | Change::Remove(name) if is_win32_time(name) => return (0, 0),
        Change::Set(name, value) => (properties.insert(name.clone(), value.clone()), value.len()),
        Change::Remove(name) => (properties.remove(name), 0),
    };
    (before.map_or(0, |value| value.len()), after)
}
