//! COPY and MOVE (RFC 4918 sections 9.8 and 9.9).
//!
//! A copy is made under a hidden name beside its destination and takes its place when it is
//! complete: whatever happens on the way, what was there before is there still.

use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::Env;
use super::fields::Depth;
use super::locking::locked_in;
use super::locks::Keys;
use super::multistatus::Multistatus;
use super::request::{Reply, Request};
use super::store;
use super::sweeping::Sweeper;
use super::target::{Kind, Target};
use super::temporary::{Temporary, TemporaryDir, fresh_name};
use super::tree::{FileCopy, Removal, Survey, TreeCopy, copy_link};
use crate::files::resolve;

/// A COPY or MOVE under way.
#[derive(Debug)]
pub struct Transfer {
    moves: bool,
    deep: bool,
    keys: Keys,
    source: Target,
    target: Target,
    /// Where it goes: the directory, without links in its path, and the name in it.
    dir: PathBuf,
    name: OsString,
    stage: Stage,
    /// What is locked and must not be lost.
    locked: Vec<String>,
}

#[derive(Debug)]
enum Stage {
    /// Looks for locks, and for hidden names that would be shown elsewhere.
    Survey(Vec<(Survey, bool)>),
    File(FileCopy, Temporary),
    Tree(TreeCopy, TemporaryDir),
    /// Removes what was replaced, and the source of a move that had to be copied.
    Remove(Vec<Removal>, Option<Removal>),
    /// Removes a copy that failed.
    Undo(Removal, Option<Reply>),
}

impl Transfer {
    pub fn begin(
        request: &Request,
        env: &Env<'_>,
        sweeper: &mut Sweeper,
        moves: bool,
    ) -> Result<Transfer, Reply> {
        let depth = request.depth()?;
        let overwrite = request.overwrite()?;
        let source = request.target(env)?;
        if !source.exists() {
            return Err(404.into());
        }
        let is_odd = depth == Depth::One || moves && depth == Depth::Zero;
        if source.is_dir() && is_odd {
            return Err(400.into());
        }
        let target = request.destination(env)?;
        let keys = request.conditions(env, &source)?;
        // The root has no name that could be given to something else.
        let name = target.full.file_name().filter(|_| target.path != b"/");
        let is_root = moves && source.path == b"/";
        let (Some(name), false) = (name.map(OsStr::to_owned), is_root) else {
            return Err(403.into());
        };
        let Some(dir) = target.parent().filter(|dir| dir.is_dir()) else {
            return Err(409.into());
        };
        if let Kind::Other = target.kind {
            return Err(403.into());
        }
        check_places(&source, &target, &dir.join(&name), moves)?;
        if target.exists() && !overwrite {
            return Err(412.into());
        }
        let membership = !target.exists() || target.is_dir() || source.is_dir();
        for (checked, membership) in [(&source, moves), (&target, membership)] {
            if !moves && std::ptr::eq(checked, &source) {
                continue;
            }
            if let Some(lock) = checked.blocked(env, &keys, membership)? {
                return Err(Reply::locked(&lock.href));
            }
        }
        sweeper.visit(&dir);
        let mut surveys = Vec::new();
        if moves && source.is_dir() && !source.is_link {
            surveys.push((Survey::new(source.full.clone()), true));
        }
        if target.is_dir() && !target.is_link {
            surveys.push((Survey::new(target.full.clone()), false));
        }
        let deep = depth == Depth::Infinity;
        let stage = Stage::Survey(surveys);
        Ok(Transfer { moves, deep, keys, source, target, dir, name, stage, locked: Vec::new() })
    }

    fn place(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// Works on; the answer once all is done.
    pub fn advance(&mut self, env: &Env<'_>, budget: &mut usize) -> Result<Option<Reply>, Reply> {
        while *budget > 0 {
            *budget -= 1;
            match &mut self.stage {
                Stage::Survey(_) => self.survey(env, budget)?,
                Stage::File(copy, _) => {
                    if !copy.advance(budget)? {
                        return Ok(None);
                    }
                    self.install_file(env)?;
                }
                Stage::Tree(..) => self.copy_tree(env, budget),
                Stage::Remove(removals, _) => {
                    let Some(removal) = removals.last_mut() else {
                        return self.finish(budget);
                    };
                    if removal.advance(budget) {
                        removals.pop();
                    }
                }
                Stage::Undo(removal, reply) => {
                    if removal.advance(budget) {
                        return Ok(Some(reply.take().unwrap_or(500.into())));
                    }
                }
            }
        }
        Ok(None)
    }

    fn survey(&mut self, env: &Env<'_>, budget: &mut usize) -> Result<(), Reply> {
        let Stage::Survey(surveys) = &mut self.stage else { return Ok(()) };
        let Some((survey, is_source)) = surveys.last_mut() else {
            if !self.locked.is_empty() {
                let mut document = Multistatus::new();
                self.locked.iter().for_each(|href| document.status(href, 423));
                return Err(Reply { body: Some(document.finish()), ..207.into() });
            }
            return self.perform(env);
        };
        let (from, to) = (&self.source.full, &self.target.full);
        let (keys, locked, is_source) = (&self.keys, &mut self.locked, *is_source);
        let mut exposes = false;
        let mut look = |dir: &Path, names: &[(OsString, FileType)]| {
            let paths = names.iter().map(|(name, _)| dir.join(name));
            exposes |= is_source && paths.into_iter().any(|path| is_exposed(env, &path, from, to));
            locked_in(env, dir, keys, locked)
        };
        if survey.advance(budget, &mut look)? {
            surveys.pop();
        }
        if exposes { Err(403.into()) } else { Ok(()) }
    }

    fn perform(&mut self, env: &Env<'_>) -> Result<(), Reply> {
        let place = self.place();
        if self.moves {
            let from = self.source.full.clone();
            let moved = match self.source.is_link {
                true => self.move_link(&from, &place),
                false => install(&from, &place),
            };
            match moved {
                Ok(old) => {
                    // What was replaced bears the old name of the source, for a moment.
                    let old = old.map(|old| hide(old, &from)).transpose()?;
                    // It is moved, also where its properties cannot be kept.
                    let _ = self.carry(env);
                    let removals = old.into_iter().map(Removal::new).collect();
                    self.stage = Stage::Remove(removals, None);
                    return Ok(());
                }
                Err(error) if is(&error, Errno::XDEV) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.source.is_dir() {
            let made = TemporaryDir::create(&self.dir)?;
            match TreeCopy::new(self.source.full.clone(), made.path.clone(), self.deep) {
                Ok(copy) => self.stage = Stage::Tree(copy, made),
                Err(error) => self.undo(made.path.clone(), error),
            }
        } else {
            let made = Temporary::create(&self.dir)?;
            let copy = FileCopy::new(&self.source.full, made.file().try_clone()?)?;
            self.stage = Stage::File(copy, made);
        }
        Ok(())
    }

    /// A link that is moved leads to the same place as before.
    fn move_link(&self, from: &Path, place: &Path) -> io::Result<Option<PathBuf>> {
        let made = fresh_name(&self.dir);
        copy_link(from, &made)?;
        let old = install(&made, place).inspect_err(|_| drop(fs::remove_file(&made)))?;
        fs::remove_file(from)?;
        Ok(old)
    }

    fn copy_tree(&mut self, env: &Env<'_>, budget: &mut usize) {
        let place = self.place();
        let Stage::Tree(copy, made) = &mut self.stage else { return };
        let (from, to) = (&self.source.full, &self.target.full);
        let is_left_out = |path: &Path| is_exposed(env, path, from, to);
        match copy.advance(budget, &is_left_out) {
            Ok(false) => {}
            Ok(true) => match install(&made.path, &place) {
                Ok(old) => {
                    let removals = old.into_iter().map(Removal::new).collect();
                    self.installed(env, removals);
                }
                Err(error) => {
                    let made = made.path.clone();
                    self.undo(made, error);
                }
            },
            Err(error) => {
                let made = made.path.clone();
                self.undo(made, error);
            }
        }
    }

    fn undo(&mut self, made: PathBuf, error: io::Error) {
        self.stage = Stage::Undo(Removal::new(made), Some(error.into()));
    }

    fn install_file(&mut self, env: &Env<'_>) -> Result<(), Reply> {
        let place = self.place();
        let stage = std::mem::replace(&mut self.stage, Stage::Remove(Vec::new(), None));
        let Stage::File(_, made) = stage else { return Ok(()) };
        let mut removals = Vec::new();
        if self.target.is_dir() && !self.target.is_link {
            let hidden = fresh_name(&self.dir);
            made.publish(&hidden, false)?;
            match install(&hidden, &place) {
                Ok(old) => removals.extend(old.map(Removal::new)),
                Err(error) => {
                    let _ = fs::remove_file(hidden);
                    return Err(error.into());
                }
            }
        } else {
            made.publish(&place, true)?;
        }
        self.installed(env, removals);
        Ok(())
    }

    /// A copy is in its place.
    fn installed(&mut self, env: &Env<'_>, removals: Vec<Removal>) {
        let source = self.moves.then(|| Removal::new(self.source.full.clone()));
        // The copy is there, and stays also where its properties cannot be kept.
        let _ = self.carry(env);
        self.stage = Stage::Remove(removals, source);
    }

    /// Takes the properties along, and leaves the locks.
    fn carry(&self, env: &Env<'_>) -> io::Result<()> {
        let name = self.name.as_bytes();
        let home = self.source.home.as_ref().filter(|home| !home.name.is_empty());
        let properties = match home {
            Some(home) => {
                let mut state = store::load(&home.dir, env.unix)?;
                state.remove(&home.name).unwrap_or_default().properties
            }
            None => Default::default(),
        };
        let stays_file = !self.source.is_dir() && !self.target.is_dir();
        store::update(&self.dir, env.unix, |state| {
            if !stays_file {
                state.remove(name);
            }
            state.member_mut(name).properties = properties;
        })?;
        if !self.moves {
            return Ok(());
        }
        match home {
            Some(home) if !self.source.is_link => store::update(&home.dir, env.unix, |state| {
                state.remove(&home.name);
            }),
            None if !self.source.is_link => {
                store::update(&self.place(), env.unix, store::State::unlock)
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, budget: &mut usize) -> Result<Option<Reply>, Reply> {
        let Stage::Remove(_, source) = &mut self.stage else { return Ok(None) };
        if let Some(removal) = source {
            if !removal.advance(budget) {
                return Ok(None);
            }
            if !removal.failures.is_empty() {
                return Ok(Some(failures(&self.source, &removal.failures)));
            }
        }
        Ok(Some(if self.target.exists() { 204 } else { 201 }.into()))
    }
}

/// What could not be removed, as an answer.
pub fn failures(target: &Target, failures: &[(Vec<u8>, u16)]) -> Reply {
    if let [(inside, status)] = failures
        && inside.is_empty()
    {
        return (*status).into();
    }
    let mut document = Multistatus::new();
    for (inside, status) in failures {
        let mut href = target.href();
        super::fields::escape_path(inside, &mut href);
        document.status(&href, *status);
    }
    Reply { body: Some(document.finish()), ..207.into() }
}

/// A resource can neither replace itself, nor what it is in, nor go into itself.
fn check_places(source: &Target, target: &Target, place: &Path, moves: bool) -> Result<(), Reply> {
    let real = |path: &Path| fs::canonicalize(path).ok();
    let from = match source.is_link && moves {
        true => source.parent().zip(source.full.file_name()).map(|(dir, name)| dir.join(name)),
        false => real(&source.full),
    };
    let Some(from) = from else { return Err(404.into()) };
    let to = real(&target.full);
    let same = from == place || to.as_ref() == Some(&from);
    let inside = source.is_dir() && place.starts_with(&from);
    let around = from.starts_with(place);
    // Nor may a link take the place of what it leads to, or of a directory around that.
    let led_to = real(&source.full).filter(|_| source.is_link);
    let undermines = moves && led_to.is_some_and(|led_to| led_to.starts_with(place));
    // One file may have several paths: mounted twice, or where case makes no difference.
    let of = |path: &Path| fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let is_around = |outer: &Path, inner: &Path| {
        let outer = of(outer);
        outer.is_some() && inner.ancestors().any(|path| of(path) == outer)
    };
    let by_identity = is_around(&from, place) || is_around(place, &from);
    match same || inside || around || undermines || by_identity {
        true => Err(403.into()),
        false => Ok(()),
    }
}

/// Whether what is hidden at its place would not be in the other tree.
fn is_exposed(env: &Env<'_>, path: &Path, from: &Path, to: &Path) -> bool {
    resolve::is_hidden(env.config, path)
        && path
            .strip_prefix(from)
            .is_ok_and(|inside| !resolve::is_hidden(env.config, &to.join(inside)))
}

/// Gives `new` the name `place`. What had that name before is returned under its new one.
fn install(new: &Path, place: &Path) -> io::Result<Option<PathBuf>> {
    let old = match fs::symlink_metadata(place) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return rename(new, place, RenameFlags::NOREPLACE).map(|()| None);
        }
        Err(error) => return Err(error),
    };
    if !old.is_dir() && !fs::symlink_metadata(new)?.is_dir() {
        return fs::rename(new, place).map(|()| None);
    }
    match rename(new, place, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(Some(new.to_path_buf())),
        // Not every file system can exchange two names.
        Err(error) if is(&error, Errno::INVAL) || is(&error, Errno::NOSYS) => {
            let hidden = fresh_name(place.parent().unwrap_or(Path::new(".")));
            fs::rename(place, &hidden)?;
            match fs::rename(new, place) {
                Ok(()) => Ok(Some(hidden)),
                Err(error) => {
                    let _ = fs::rename(hidden, place);
                    Err(error)
                }
            }
        }
        Err(error) => Err(error),
    }
}

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, flags) {
        Err(Errno::INVAL | Errno::NOSYS) if flags == RenameFlags::NOREPLACE => fs::rename(from, to),
        result => Ok(result?),
    }
}

/// Takes the name of the source from what was replaced.
fn hide(old: PathBuf, source: &Path) -> io::Result<PathBuf> {
    if old != source {
        return Ok(old);
    }
    let hidden = fresh_name(source.parent().unwrap_or(Path::new(".")));
    fs::rename(source, &hidden)?;
    Ok(hidden)
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
