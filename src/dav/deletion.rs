//! The method DELETE (RFC 4918, section 9.6). Decides whether a target may be deleted, and leaves
//! the removal of trees to `tree`.
//!
//! A directory is renamed to a hidden name as a whole before anything in it is removed: no client
//! finds half of it, nor takes a lock in it meanwhile.

use std::ffi::OsString;
use std::fs::{self, FileType};
use std::path::Path;

use super::Env;
use super::anybody;
use super::fields::Depth;
use super::lock_log;
use super::lock_method::locked_in;
use super::locks::Keys;
use super::method::{MethodCall, Reply};
use super::set_aside::{self, Held};
use super::store;
use super::sweeping::Sweeper;
use super::target::{Home, Kind, Target};
use super::transfer_rules::{MAX_SURVEYS, is_unknown_dir, own_place};
use super::tree::{Discard, Removal, Survey};
use super::tree_replies::{failures, locked_inside};
use crate::long_files;

/// The removal of a directory.
#[derive(Debug)]
pub struct Delete {
    target: Target,
    keys: Keys,
    locked: Vec<String>,
    /// The value of [`lock_log::count`] when the last survey began, and the number of surveys.
    seen: u64,
    surveys: usize,
    stage: Stage,
}

/// The step that comes next.
#[derive(Debug)]
enum Stage {
    /// Searches the tree for locks.
    Survey(Survey),
    Discard(Discard),
    /// Removes a directory that could not be renamed first.
    Removal(Removal),
}

impl Delete {
    /// Begins a DELETE. Returns its response, or the work that comes before it.
    pub fn begin(request: &MethodCall, env: &Env<'_>) -> Result<Result<Delete, Reply>, Reply> {
        let depth = request.depth()?;
        let target = request.target(env)?;
        let is_dir = target.is_dir() && !target.is_link;
        let keys = check(request, env, &target)?;
        if is_dir && depth != Depth::Infinity {
            return Err(400.into());
        }
        if is_dir {
            let stage = Stage::Survey(Survey::new(target.full.clone()));
            let (locked, seen) = (Vec::new(), lock_log::count());
            return Ok(Ok(Delete { target, keys, locked, seen, surveys: 1, stage }));
        }
        let home = target.home.as_ref().filter(|_| !target.is_link);
        let _lock = home.map(|home| store::lock_if_possible(&home.dir)).transpose()?;
        let _old = long_files::hold(&target.full);
        fs::remove_file(&target.full)?;
        if let Some(Home { dir, name }) = home {
            store::forget(dir, env.unix, name);
        }
        Ok(Err(204.into()))
    }

    /// Does the next portion. Returns the response once all is done.
    pub fn advance(
        &mut self,
        request: &MethodCall,
        env: &Env<'_>,
        budget: &mut usize,
    ) -> Result<Option<Reply>, Reply> {
        let left = match &mut self.stage {
            Stage::Survey(survey) => {
                let (target, keys, locked) = (&self.target, &self.keys, &mut self.locked);
                let mut is_barred = false;
                let mut visit = |dir: &Path, names: &[(OsString, FileType)], is_last| {
                    is_barred |= anybody::is_barred(env, target, dir, names);
                    if is_last { locked_in(env, dir, keys, locked) } else { Ok(0) }
                };
                let is_complete = survey.advance(budget, &mut visit);
                // What was seen before a directory that cannot be looked at now is not visited again.
                if is_barred {
                    return Err(403.into());
                }
                if is_complete? {
                    self.surveyed(request, env)?;
                }
                return Ok(None);
            }
            Stage::Discard(discard) => match discard.advance(budget) {
                Some(left) => left,
                None => return Ok(None),
            },
            Stage::Removal(removal) => match removal.advance(budget) {
                true => removal.failures.as_slice(),
                false => return Ok(None),
            },
        };
        Ok(Some(if left.is_empty() { 204.into() } else { failures(&self.target, left) }))
    }

    /// Begins the removal, once the whole tree was searched for locks. Searches it again if locks
    /// may have been taken meanwhile.
    fn surveyed(&mut self, request: &MethodCall, env: &Env<'_>) -> Result<(), Reply> {
        if !self.locked.is_empty() {
            return Err(locked_inside(&self.locked));
        }
        let place = own_place(&self.target)?.ok_or(Reply::from(409))?;
        if lock_log::was_one_in(&place, self.seen) {
            if self.surveys >= MAX_SURVEYS {
                return Err(503.into());
            }
            self.seen = lock_log::count();
            self.surveys += 1;
            self.stage = Stage::Survey(Survey::new(self.target.full.clone()));
            return Ok(());
        }
        let target = request.target(env)?;
        check(request, env, &target)?;
        if is_unknown_dir(&self.target, &target) || target.is_link || !target.is_dir() {
            return Err(409.into());
        }
        self.stage = match Held::take(&place, set_aside::Kind::Doomed) {
            Ok(held) => Stage::Discard(Discard::of(held)),
            Err(_) => Stage::Removal(Removal::new(target.full.clone())),
        };
        Ok(())
    }

    /// Gives up, since the connection has ended. The sweeper completes a removal that has begun.
    pub fn abandon(self, sweeper: &mut Sweeper) {
        match self.stage {
            Stage::Survey(_) => {}
            Stage::Discard(discard) => sweeper.discard(discard),
            Stage::Removal(removal) => sweeper.remove(removal),
        }
    }
}

/// Checks whether a target may be deleted. Returns the keys that the client submitted.
fn check(request: &MethodCall, env: &Env<'_>, target: &Target) -> Result<Keys, Reply> {
    match target.kind {
        Kind::Missing => return Err(404.into()),
        Kind::Other if !target.is_link => return Err(403.into()),
        _ if target.path == b"/" || target.holds_secrets(env) => return Err(403.into()),
        _ => {}
    }
    request.may_change(env, target, true)
}
