//! The rules for COPY and MOVE (RFC 4918, sections 9.8 and 9.9): which resources a request names,
//! whether its conditions hold, and which locks forbid it. Changes no file.
//!
//! The rules are applied at the start, and again before anything is changed: a large tree is
//! processed in portions, and other requests are processed between them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::conditions::Current;
use super::fields::Depth;
use super::locks::Keys;
use super::method::{MAX_STATE_BYTES, MethodCall, Reply};
use super::store::States;
use super::target::{Kind, Target};
use super::{Env, known};

/// The largest number of surveys of the same trees, which are repeated when locks were taken
/// meanwhile.
pub const MAX_SURVEYS: usize = 16;

/// A COPY or MOVE that the rules allow.
#[derive(Debug)]
pub struct Checked {
    pub deep: bool,
    pub source: Target,
    pub target: Target,
    /// The path of the destination, without symbolic links in that of its directory.
    pub place: PathBuf,
    pub keys: Keys,
    pub relation: Relation,
    /// The state of the source that conditions are compared with.
    current: Current,
}

/// The relation of the destination to the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It is something else, or nothing.
    Other,
    /// It is another name of the file that is moved (a hard link).
    OtherName,
    /// It is the name of what is moved in another spelling, on a file system where that makes no
    /// difference.
    OtherSpelling,
}

impl Checked {
    /// Applies all rules.
    pub fn new(request: &MethodCall, env: &Env<'_>, moves: bool) -> Result<Checked, Reply> {
        let depth = request.depth()?;
        let overwrite = request.overwrite()?;
        let source = request.target(env)?;
        if !source.exists() {
            return Err(404.into());
        }
        if source.is_dir() && moves && depth != Depth::Infinity {
            return Err(400.into());
        }
        let target = request.destination(env)?;
        let current = match request.field("if") {
            Some(_) => source.current(env, &mut States::new(env.unix, MAX_STATE_BYTES))?,
            None => Current::default(),
        };
        let keys = request.conditions(env, &source)?;
        if moves && (source.path == b"/" || source.holds_secrets(env)) {
            return Err(403.into());
        }
        let place = place_of(&target)?;
        let relation = check_places(&source, &target, &place, moves)?;
        // A COPY of a depth of 1 is not known to RFC 4918, section 9.8.3; the client that sends it for
        // each folder, webdavclient3, means all of it.
        let deep = depth != Depth::Zero;
        let checked = Checked { deep, source, target, place, keys, relation, current };
        checked.check_target(env, &checked.target, overwrite)?;
        if moves && let Some(lock) = checked.source.blocked(env, &checked.keys, true)? {
            return Err(Reply::locked(&lock.href));
        }
        Ok(checked)
    }

    /// Applies all rules once more, before the source is changed.
    pub fn renew(&mut self, request: &MethodCall, env: &Env<'_>, moves: bool) -> Result<(), Reply> {
        let now = Checked::new(request, env, moves)?;
        let is_other = now.place != self.place
            || is_unknown_dir(&self.target, &now.target)
            || is_unknown_dir(&self.source, &now.source);
        *self = if is_other { return Err(409.into()) } else { now };
        Ok(())
    }

    /// Applies the rules for the destination once more, before a copy gets its name. The source
    /// counts as it was when the copy was begun, since it may be held.
    pub fn renew_target(&mut self, request: &MethodCall, env: &Env<'_>) -> Result<(), Reply> {
        let target = request.destination(env)?;
        if place_of(&target)? != self.place || is_unknown_dir(&self.target, &target) {
            return Err(409.into());
        }
        self.keys = request.if_field(env, &self.source, &|_| Ok(self.current.clone()))?;
        self.check_target(env, &target, request.overwrite()?)?;
        if known(fs::symlink_metadata(&self.source.full))?.is_some() {
            check_places(&self.source, &target, &self.place, false)?;
        }
        self.target = target;
        Ok(())
    }

    /// Checks that the destination may be replaced, and that no lock forbids it.
    fn check_target(&self, env: &Env<'_>, target: &Target, overwrite: bool) -> Result<(), Reply> {
        if target.exists() && !overwrite && self.relation != Relation::OtherSpelling {
            return Err(412.into());
        }
        // A hidden file must not be replaced together with the directory that it is in.
        if target.holds_secrets(env) {
            return Err(403.into());
        }
        // A file that replaces a file does not change the members of the directory. A link is
        // replaced itself.
        let stays = target.exists() && !target.is_link && !target.is_dir() && !self.source.is_dir();
        match target.blocked(env, &self.keys, !stays)? {
            Some(lock) => Err(Reply::locked(&lock.href)),
            None => Ok(()),
        }
    }
}

/// Returns the path of the destination, without symbolic links in that of its directory.
fn place_of(target: &Target) -> Result<PathBuf, Reply> {
    // The root has no name that another resource could take.
    let Some(name) = target.full.file_name().filter(|_| target.path != b"/") else {
        return Err(403.into());
    };
    let Some(dir) = target.parent()? else { return Err(409.into()) };
    if !known(fs::metadata(&dir))?.is_some_and(|meta| meta.is_dir()) {
        return Err(409.into());
    }
    if let Kind::Other = target.kind {
        return Err(403.into());
    }
    Ok(dir.join(name))
}

/// Returns the path of the target itself, even if that is a symbolic link, without symbolic links
/// in the path of its directory.
pub fn own_place(target: &Target) -> io::Result<Option<PathBuf>> {
    let parent = target.parent()?;
    Ok(parent.zip(target.full.file_name()).map(|(dir, name): (_, &OsStr)| dir.join(name)))
}

/// Returns whether the path names a directory now, not a link to one, that is not the one before:
/// this directory was not searched.
pub fn is_unknown_dir(before: &Target, now: &Target) -> bool {
    let id = |target: &Target| target.metadata().map(|meta| (meta.dev(), meta.ino()));
    let is_real_dir = |target: &Target| target.is_dir() && !target.is_link;
    is_real_dir(now) && !(is_real_dir(before) && id(before) == id(now))
}

/// Refuses a resource that would replace itself or a directory around it, or go into itself.
fn check_places(
    source: &Target,
    target: &Target,
    place: &Path,
    moves: bool,
) -> Result<Relation, Reply> {
    let real = |path: &Path| known(fs::canonicalize(path));
    let from = match source.is_link && moves {
        true => own_place(source)?,
        false => real(&source.full)?,
    };
    let Some(from) = from else { return Err(404.into()) };
    if moves && !source.is_link {
        let relation = relation(source, &from, place)?;
        if relation != Relation::Other {
            return Ok(relation);
        }
    }
    let to = real(&target.full)?;
    let same = from == place || to.as_ref() == Some(&from);
    let inside = source.is_dir() && place.starts_with(&from);
    let around = from.starts_with(place);
    // A link must not replace the file that it leads to, nor a directory around that.
    let led_to = if source.is_link { real(&source.full)? } else { None };
    let undermines = moves && led_to.is_some_and(|led_to| led_to.starts_with(place));
    // One directory may have several paths, where it is mounted twice or where case makes no
    // difference.
    let by_identity = is_around(&from, place)? || is_around(place, &from)?;
    match same || inside || around || undermines || by_identity {
        true => Err(403.into()),
        false => Ok(Relation::Other),
    }
}

/// Returns whether both paths name the source. Only what its directory lists is a name of its own: on
/// some file systems every spelling leads to a file.
fn relation(source: &Target, from: &Path, place: &Path) -> io::Result<Relation> {
    let (there, other) = (identity(from)?, identity(place)?);
    if from == place || there.is_none() || there != other {
        return Ok(Relation::Other);
    }
    let is_listed = |path: &Path| {
        let entries = path.parent().map(|dir| known(fs::read_dir(dir))).transpose()?;
        for entry in entries.flatten().into_iter().flatten() {
            if Some(&*entry?.file_name()) == path.file_name() {
                return Ok(true);
            }
        }
        Ok::<_, io::Error>(false)
    };
    let dir = |path: &Path| path.parent().map_or(Ok(None), identity);
    let is_linked = matches!(&source.kind, Kind::File(meta) if meta.nlink() > 1);
    Ok(match (is_listed(from)?, is_listed(place)?) {
        (true, true) if is_linked => Relation::OtherName,
        (true, false) if dir(from)? == dir(place)? => Relation::OtherSpelling,
        _ => Relation::Other,
    })
}

/// Returns device and inode of the file at the path, if there is one.
fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    Ok(known(fs::symlink_metadata(path))?.map(|meta| (meta.dev(), meta.ino())))
}

/// Returns whether `outer` is the directory `inner`, or one above it, under whatever path.
fn is_around(outer: &Path, inner: &Path) -> io::Result<bool> {
    let Some(outer) = identity(outer)? else { return Ok(false) };
    for path in inner.ancestors() {
        if identity(path)? == Some(outer) {
            return Ok(true);
        }
    }
    Ok(false)
}
