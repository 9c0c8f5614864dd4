//! The methods COPY and MOVE (RFC 4918, sections 9.8 and 9.9), in portions. Owns the order of their
//! steps; leaves to `transfer_rules` what is allowed, and to `tree` how files are copied.
//!
//! A copy is made under a hidden name beside its destination, and is renamed when it is complete:
//! until then the destination stays as it was. A move to another file system first renames its
//! source to a hidden name, so that the tree removed at the end is the tree that was copied; if the
//! move fails, the source is put back.
//!
//! A directory of a lower layer of overlayfs cannot be renamed at all (`EXDEV`). As a source it is
//! copied where it is, and what was changed since then is not removed. As a destination it is removed
//! where it is, once the copy is complete.

use std::ffi::OsString;
use std::fs::{self, File, FileType};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::Env;
use super::anybody;
use super::lock_log;
use super::lock_method::locked_in;
use super::method::{MethodCall, Reply};
use super::patience::Patience;
use super::renaming::{move_link, move_name};
use super::set_aside::{Held, Kind, dir_of, install, is};
use super::stamp::stamp;
use super::store::{self, Properties};
use super::sweeping::Sweeper;
use super::target::Target;
use super::temporary::{Temporary, TemporaryDir, fresh_name, open_file};
use super::transfer_rules::{Checked, MAX_SURVEYS, Relation, own_place};
use super::tree::{Discard, FileCopy, Removal, Survey, TreeCopy, changed_of};
use super::tree_replies::{failures, locked_inside, refused};
use crate::files::known::modified_of;
use crate::files::resolve;
use crate::long_files::{self, LongFile, WriteBack};

/// A COPY or MOVE under way.
#[derive(Debug)]
pub struct Transfer {
    moves: bool,
    checked: Checked,
    stage: Stage,
    /// The hrefs of locked resources that would be lost.
    locked: Vec<String>,
    /// The value of [`lock_log::count`] when the last survey began, and the number of surveys.
    seen: u64,
    surveys: usize,
    /// The source of a move while it is being copied.
    held: Option<Held>,
    /// Set if the source cannot be held: its path, and the time when the copy was begun by the clock of
    /// the file system.
    unheld: Option<(PathBuf, (i64, i64))>,
    /// Whether the directory at the destination had to be removed first.
    is_cleared: bool,
    made: Option<Made>,
    properties: Properties,
    /// The removals at the end: of the file that was replaced, and of the source of a move that had
    /// to be copied.
    replaced: Option<Removal>,
    source: Option<Leaving>,
}

/// The removal of the source of a move that had to be copied.
#[derive(Debug)]
enum Leaving {
    Held(Discard),
    InPlace(Removal),
}

/// The step that comes next.
#[derive(Debug)]
enum Stage {
    /// Searches the trees for locks, and the source for files that are hidden there but would not
    /// be at the destination. The flag marks the source.
    Survey(Vec<(Survey, bool)>),
    /// Sends the source of a move on its way to the disk, before it takes the name of another file.
    Settle(LongFile, WriteBack),
    File(FileCopy),
    /// The same for a copy.
    WriteBack(WriteBack),
    Tree(TreeCopy),
    /// Removes the directory at the destination, which cannot be renamed.
    Clear(Removal),
    /// The file is in its place, and its properties follow: the wait for another process, and
    /// whether they are at the destination already.
    Carry(Patience, bool),
    Remove,
    /// Removes a copy that failed, before the response is sent.
    Undo(Removal, Reply),
}

/// A copy that is being made.
#[derive(Debug)]
enum Made {
    File(Temporary),
    Tree(TemporaryDir),
    /// A complete file under a hidden name, which is locked as long as this one is open.
    Hidden {
        path: PathBuf,
        _lock: File,
    },
}

impl Transfer {
    /// Begins a COPY, or with `moves` a MOVE.
    pub fn begin(
        request: &MethodCall,
        env: &Env<'_>,
        sweeper: &mut Sweeper,
        moves: bool,
    ) -> Result<Transfer, Reply> {
        let checked = Checked::new(request, env, moves)?;
        sweeper.visit(dir_of(&checked.place), env.unix);
        let mut transfer = Transfer {
            moves,
            checked,
            stage: Stage::Remove,
            locked: Vec::new(),
            seen: 0,
            surveys: 0,
            held: None,
            unheld: None,
            is_cleared: false,
            made: None,
            properties: Properties::default(),
            replaced: None,
            source: None,
        };
        transfer.begin_survey();
        Ok(transfer)
    }

    /// Does the next portion. Returns the response once all is done.
    pub fn advance(
        &mut self,
        request: &MethodCall,
        env: &Env<'_>,
        budget: &mut usize,
    ) -> Result<Option<Reply>, Reply> {
        while *budget > 0 {
            *budget -= 1;
            let progress = match &mut self.stage {
                Stage::Survey(_) => self.survey(request, env, budget),
                Stage::Settle(file, way) => match way.advance(file, budget) {
                    Ok(true) => self.perform(request, env),
                    Ok(false) => return Ok(None),
                    Err(error) => Err(error.into()),
                },
                Stage::WriteBack(way) => {
                    let made = match &self.made {
                        Some(Made::File(made)) => made.file(),
                        _ => return Err(500.into()),
                    };
                    match way.advance(made, budget) {
                        Ok(true) => self.copied(request, env),
                        Ok(false) => return Ok(None),
                        Err(error) => Err(error.into()),
                    }
                }
                Stage::File(copy) => match copy.advance(budget) {
                    Ok(true) if self.checked.target.exists() => {
                        self.stage = Stage::WriteBack(WriteBack::default());
                        Ok(())
                    }
                    Ok(true) => self.copied(request, env),
                    Ok(false) => return Ok(None),
                    Err(error) => Err(error.into()),
                },
                Stage::Tree(_) => self.copy_tree(request, env, budget),
                Stage::Clear(removal) => match removal.advance(budget) {
                    true => self.cleared(request, env),
                    false => return Ok(None),
                },
                Stage::Carry(..) => {
                    if !self.carry(env) {
                        *budget = 0;
                    }
                    Ok(())
                }
                Stage::Remove => match self.remove(budget) {
                    Some(reply) => return Ok(Some(reply)),
                    None => return Ok(None),
                },
                Stage::Undo(removal, reply) => {
                    if removal.advance(budget) {
                        return Err(std::mem::replace(reply, 500.into()));
                    }
                    Ok(())
                }
            };
            match progress {
                Ok(()) => {}
                // The step is repeated once the other process is done.
                Err(reply) if reply.busy => return Err(reply),
                Err(reply) => self.fail(reply)?,
            }
        }
        Ok(None)
    }

    /// Gives up, since the connection has ended: puts held files back, and leaves the rest of the
    /// removals to the sweeper.
    pub fn abandon(mut self, sweeper: &mut Sweeper) {
        // The response is dropped, since no client is left to receive it.
        let _ = self.fail(500.into());
        if let Stage::Undo(removal, _) = self.stage {
            sweeper.remove(removal);
        }
        if let Some(replaced) = self.replaced {
            sweeper.remove(replaced);
        }
        match self.source {
            Some(Leaving::Held(source)) => sweeper.discard(source),
            Some(Leaving::InPlace(source)) => sweeper.remove(source),
            None => {}
        }
    }

    /// Undoes the work after an error. Returns the response as an error, or `Ok` if a copy has to
    /// be removed before it.
    fn fail(&mut self, reply: Reply) -> Result<(), Reply> {
        if let Some(held) = self.held.take() {
            // If this fails now, a sweep does it later.
            let _ = held.put_back();
        }
        let path = match self.made.take() {
            Some(Made::Tree(made)) => made.path,
            Some(Made::Hidden { path, .. }) => path,
            Some(Made::File(made)) => {
                // Its descriptor is to be the last one that is closed.
                self.stage = Stage::Remove;
                drop(made);
                return Err(reply);
            }
            None => return Err(reply),
        };
        self.stage = Stage::Undo(Removal::of_hidden(path), reply);
        Ok(())
    }

    /// Begins a survey of the trees that will be moved or replaced.
    fn begin_survey(&mut self) {
        let Checked { source, target, .. } = &self.checked;
        let mut surveys = Vec::new();
        if self.is_source_there() && source.is_dir() && !source.is_link {
            surveys.push((Survey::new(source.full.clone()), true));
        }
        if target.is_dir() && !target.is_link {
            surveys.push((Survey::new(target.full.clone()), false));
        }
        self.seen = lock_log::count();
        self.surveys += 1;
        self.stage = Stage::Survey(surveys);
    }

    /// Returns whether other clients find the source of a move, and may lock what is in it.
    fn is_source_there(&self) -> bool {
        self.moves && (self.made.is_none() || self.unheld.is_some())
    }

    /// Continues the survey, and begins the next step when it is complete.
    fn survey(
        &mut self,
        request: &MethodCall,
        env: &Env<'_>,
        budget: &mut usize,
    ) -> Result<(), Reply> {
        let Stage::Survey(surveys) = &mut self.stage else {
            debug_assert!(false, "trees are searched in another stage");
            return Ok(());
        };
        let Some((survey, is_source)) = surveys.last_mut() else {
            if !self.locked.is_empty() {
                return Err(locked_inside(&self.locked));
            }
            if self.made.is_some() {
                return self.copied(request, env);
            }
            if self.must_survey_again()? {
                return Ok(());
            }
            return match self.to_settle() {
                Some(source) => {
                    self.stage = Stage::Settle(source, WriteBack::default());
                    Ok(())
                }
                None => self.perform(request, env),
            };
        };
        let Checked { source, target, keys, .. } = &self.checked;
        let (locked, is_source) = (&mut self.locked, *is_source);
        let mut exposes = false;
        let mut visit = |dir: &Path, names: &[(OsString, FileType)], is_last| {
            let own = if is_source { source } else { target };
            exposes |= anybody::is_barred(env, own, dir, names);
            if is_source && let Ok(inside) = dir.strip_prefix(&source.full) {
                exposes |= anybody::is_barred(env, target, &target.full.join(inside), names);
                let mut paths = names.iter().map(|(name, _)| inside.join(name));
                exposes |= paths.any(|path| is_exposed(env, &source.full, &target.full, &path));
            }
            if is_last { locked_in(env, dir, keys, locked) } else { Ok(0) }
        };
        let is_complete = survey.advance(budget, &mut visit);
        // What was seen before a directory that cannot be looked at now is not visited again.
        if exposes {
            return Err(403.into());
        }
        if is_complete? {
            surveys.pop();
        }
        Ok(())
    }

    /// Opens the source of a move that replaces another file, if it is long: a rename waits for all of
    /// it that is not on its way to the disk.
    fn to_settle(&self) -> Option<LongFile> {
        let Checked { source, target, .. } = &self.checked;
        let is_long = source.metadata().is_some_and(long_files::is_long);
        let replaces = target.exists() && !target.is_dir() && !source.is_link;
        let file = (self.moves && is_long && replaces).then(|| open_file(&source.full))?;
        file.ok().map(LongFile::new)
    }

    /// Returns whether locks may have been taken since the last survey. If so, begins the next one.
    fn must_survey_again(&mut self) -> Result<bool, Reply> {
        let Checked { source, target, place, .. } = &self.checked;
        let is_dir = |target: &Target| target.is_dir() && !target.is_link;
        let own = own_place(source)?
            .filter(|_| self.is_source_there() && is_dir(source))
            .is_some_and(|tree| lock_log::was_one_in(&tree, self.seen));
        let others = is_dir(target) && lock_log::was_one_in(place, self.seen);
        if !own && !others {
            return Ok(false);
        }
        if self.surveys >= MAX_SURVEYS {
            return Err(503.into());
        }
        self.begin_survey();
        Ok(true)
    }

    /// Renames the file, or begins to copy it.
    fn perform(&mut self, request: &MethodCall, env: &Env<'_>) -> Result<(), Reply> {
        self.checked.renew(request, env, self.moves)?;
        self.properties = self.source_properties(env)?;
        let Checked { source, target, place, .. } = &self.checked;
        let mut from = source.full.clone();
        if self.moves {
            from = own_place(source)?.ok_or(Reply::from(409))?;
            let replaces = target.exists();
            let relation = self.checked.relation;
            if relation == Relation::Other
                && !source.is_link
                && source.etag().is_some()
                && source.etag() == target.etag()
            {
                // A client that has cached the replaced file must not mistake the new one for it.
                stamp(&open_file(&from)?, target.metadata(), source.metadata().map(modified_of));
            }
            let moved = match relation {
                Relation::Other if source.is_link => move_link(&from, place, replaces),
                Relation::Other => move_name(&from, place, replaces),
                // To rename one name of a file to another does nothing (`rename(2)`).
                Relation::OtherName => fs::remove_file(&from).map(|()| None),
                Relation::OtherSpelling => fs::rename(&from, place).map(|()| None),
            };
            match moved {
                Ok(old) => {
                    self.replaced = old.map(Removal::of_hidden);
                    self.stage = Stage::Carry(Patience::since(env.unix), false);
                    return Ok(());
                }
                Err(error) if is(&error, Errno::XDEV) && !source.is_link => {
                    match Held::take(&from, Kind::Source) {
                        Ok(held) => {
                            from = held.path();
                            self.held = Some(held);
                        }
                        Err(error) if is(&error, Errno::XDEV) && source.is_dir() => {
                            self.unheld = Some((from.clone(), (i64::MAX, 0)));
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        if source.is_dir() {
            let made = TemporaryDir::create(dir_of(place))?;
            let to = made.path.clone();
            if let Some((_, begun)) = &mut self.unheld {
                *begun = changed_of(&fs::symlink_metadata(&to)?);
            }
            self.made = Some(Made::Tree(made));
            let copy = TreeCopy::new(from, to, self.checked.deep, self.moves)?;
            self.stage = Stage::Tree(copy);
        } else {
            let made = Temporary::create(dir_of(place))?;
            let copy = FileCopy::new(&from, made.file().try_clone()?, self.moves)?
                .replacing(target.exists());
            self.made = Some(Made::File(made));
            self.stage = Stage::File(copy);
        }
        Ok(())
    }

    /// Continues to copy a directory.
    fn copy_tree(
        &mut self,
        request: &MethodCall,
        env: &Env<'_>,
        budget: &mut usize,
    ) -> Result<(), Reply> {
        let Stage::Tree(copy) = &mut self.stage else {
            debug_assert!(false, "a tree is copied in another stage");
            return Ok(());
        };
        let (from, to) = (&self.checked.source.full, &self.checked.target.full);
        match copy.advance(budget, &|path| is_exposed(env, from, to, path)) {
            Ok(false) => Ok(()),
            Ok(true) => self.copied(request, env),
            Err(uncopied) => Err(refused(&self.checked.source, &uncopied)),
        }
    }

    /// Gives the complete copy its name.
    fn copied(&mut self, request: &MethodCall, env: &Env<'_>) -> Result<(), Reply> {
        if self.must_survey_again()? {
            return Ok(());
        }
        self.checked.renew_target(request, env)?;
        let Checked { target, place, .. } = &self.checked;
        let replaces_dir = target.is_dir() && !target.is_link;
        let path = match self.made.take() {
            Some(Made::File(made)) if replaces_dir => {
                let (hidden, file) = (fresh_name(dir_of(place)), made.file().try_clone()?);
                made.publish(&hidden, false)?;
                self.made = Some(Made::Hidden { path: hidden.clone(), _lock: file });
                Some(hidden)
            }
            Some(Made::File(made)) => {
                let second = self.checked.source.metadata().filter(|_| self.moves);
                stamp(made.file(), target.metadata(), second.map(modified_of));
                made.publish(place, target.exists())?;
                None
            }
            // If this fails, the copy is removed before the response is sent.
            other => {
                self.made = other;
                match &self.made {
                    Some(Made::Tree(made)) => Some(made.path.clone()),
                    Some(Made::Hidden { path, .. }) => Some(path.clone()),
                    Some(Made::File(_)) | None => {
                        debug_assert!(false, "a copy is complete that was never begun");
                        return Err(500.into());
                    }
                }
            }
        };
        let old = match path.map(|path| install(&path, place, target.exists())) {
            Some(Err(error)) if is(&error, Errno::XDEV) && replaces_dir => {
                self.stage = Stage::Clear(Removal::new(place.clone()));
                return Ok(());
            }
            installed => installed.transpose()?.flatten(),
        };
        self.made = None;
        // From now on other clients may lock it.
        self.source = match (self.held.take(), self.unheld.take()) {
            (Some(held), _) => Some(Leaving::Held(Discard::of(held))),
            (None, Some((path, begun))) => Some(Leaving::InPlace(Removal::of_copied(path, begun))),
            (None, None) => None,
        };
        self.replaced = old.map(Removal::of_hidden);
        self.stage = Stage::Carry(Patience::since(env.unix), false);
        Ok(())
    }

    /// Gives the complete copy its name, once the directory at the destination is removed.
    fn cleared(&mut self, request: &MethodCall, env: &Env<'_>) -> Result<(), Reply> {
        let Stage::Clear(removal) = &self.stage else {
            debug_assert!(false, "a destination is removed in another stage");
            return Err(500.into());
        };
        if !removal.failures.is_empty() {
            return Err(failures(&self.checked.target, &removal.failures));
        }
        self.is_cleared = true;
        self.copied(request, env)
    }

    /// Reads the properties that go with a file to the destination.
    fn source_properties(&self, env: &Env<'_>) -> io::Result<Properties> {
        // The properties of a directory are stored inside of it, and move with it.
        let home = self.checked.source.home.as_ref().filter(|home| !home.name.is_empty());
        let Some(home) = home else { return Ok(Properties::default()) };
        let mut state = store::load(&home.dir, env.unix)?;
        Ok(state.remove(&home.name).unwrap_or_default().properties)
    }

    /// Moves the properties to the destination, without the locks. Returns false while another
    /// process has to be waited for. The copy or move stands even if its properties cannot be
    /// stored.
    fn carry(&mut self, env: &Env<'_>) -> bool {
        let Stage::Carry(mut patience, mut is_there) = self.stage else {
            debug_assert!(false, "properties are moved in another stage");
            return true;
        };
        let carried = self.carry_to(env, &mut is_there);
        if carried.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
            && patience.lasts(env.unix)
        {
            self.stage = Stage::Carry(patience, is_there);
            return false;
        }
        self.stage = Stage::Remove;
        true
    }

    /// Stores the properties at the destination, and removes the state of the source.
    fn carry_to(&mut self, env: &Env<'_>, is_there: &mut bool) -> io::Result<()> {
        let Checked { source, target, place, .. } = &self.checked;
        if !*is_there {
            let name = place.file_name().unwrap_or_default().as_bytes();
            let stays_file = !source.is_dir() && !target.is_dir();
            let properties = &self.properties;
            store::update(dir_of(place), env.unix, &mut |state| {
                if !stays_file {
                    state.remove(name);
                }
                state.member_mut(name).properties = properties.clone();
            })?;
            *is_there = true;
        }
        if !self.moves || source.is_link {
            return Ok(());
        }
        match source.home.as_ref().filter(|home| !home.name.is_empty()) {
            // Another client may have made a new file there.
            Some(home)
                if self.checked.relation != Relation::OtherSpelling
                    && home.path().try_exists()? =>
            {
                Ok(())
            }
            Some(home) => store::update(&home.dir, env.unix, &mut |state| {
                state.remove(&home.name);
            }),
            None => store::update(place, env.unix, &mut store::State::unlock),
        }
    }

    /// Removes replaced and moved files. Returns the response once that is done.
    fn remove(&mut self, budget: &mut usize) -> Option<Reply> {
        if let Some(replaced) = &mut self.replaced {
            if !replaced.advance(budget) {
                return None;
            }
            self.replaced = None;
        }
        if let Some(source) = &mut self.source {
            let left = match source {
                Leaving::Held(source) => source.advance(budget)?,
                Leaving::InPlace(source) => {
                    source.advance(budget).then_some(source.failures.as_slice())?
                }
            };
            if !left.is_empty() {
                let reply = failures(&self.checked.source, left);
                self.source = None;
                return Some(reply);
            }
        }
        let is_there =
            self.checked.target.exists() && self.checked.relation != Relation::OtherSpelling;
        let replaces = self.is_cleared || is_there;
        Some(if replaces { 204 } else { 201 }.into())
    }
}

/// Returns whether a file in the tree `from` is hidden there and would not be in the tree `to`, or
/// would take a name in `to` that an option names.
fn is_exposed(env: &Env<'_>, from: &Path, to: &Path, inside: &Path) -> bool {
    let (from, to) = (from.join(inside), to.join(inside));
    resolve::is_hidden(env.config, &from) && !resolve::is_hidden(env.config, &to)
        || env.secrets.hides_at(&from)
        || env.secrets.hides_name(&to)
}
