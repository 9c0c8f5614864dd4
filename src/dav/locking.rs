//! LOCK and UNLOCK (RFC 4918 sections 9.10 and 9.11).

use std::ffi::OsString;
use std::fs::{self, File, FileType};
use std::io::{self, ErrorKind};
use std::path::Path;

use super::Env;
use super::bodies::{LockInfo, lockinfo};
use super::fields::{Depth, lock_token, timeout};
use super::locks::{Keys, Lock, new_token, write_lock};
use super::multistatus::{Multistatus, prop};
use super::request::{Reply, Request};
use super::store;
use super::target::{Home, Kind, Target};
use super::tree::Survey;

/// As many resources are told of that are locked below another.
const MAX_TOLD: usize = 100;
/// Locks on one resource at the same time.
const MAX_LOCKS: usize = 64;

/// A LOCK that has yet to find out whether something below is locked.
#[derive(Debug)]
pub struct DeepLock {
    target: Target,
    info: LockInfo,
    seconds: u64,
    survey: Survey,
    /// What is locked below.
    conflicts: Vec<String>,
}

/// Begins a LOCK: its answer, or what is to be done before.
pub fn lock(request: &Request, env: &Env<'_>) -> Result<Result<DeepLock, Reply>, Reply> {
    let depth = request.depth()?;
    let seconds = timeout(request.field("timeout"));
    if depth == Depth::One {
        return Err(400.into());
    }
    let target = request.target(env)?;
    let Some(info) = lockinfo(&request.body)? else {
        return refresh(request, env, &target, seconds).map(Err);
    };
    if let Kind::Other = target.kind {
        return Err(403.into());
    }
    if target.home.is_none() {
        return Err(409.into());
    }
    let keys = request.conditions(env, &target)?;
    let held = target.locks(env)?;
    if let Some(lock) = held.iter().find(|lock| info.exclusive || lock.exclusive) {
        return Err(Reply::failed(423, "no-conflicting-lock", &[&lock.href]));
    }
    if held.len() >= MAX_LOCKS {
        return Err(503.into());
    }
    if !target.exists()
        && let Some(lock) = target.blocked(env, &keys, true)?
    {
        return Err(Reply::locked(&lock.href));
    }
    let deep = depth == Depth::Infinity && target.is_dir();
    if !deep {
        return grant(env, &target, &info, seconds, false).map(Err);
    }
    let survey = Survey::new(target.full.clone());
    Ok(Ok(DeepLock { target, info, seconds, survey, conflicts: Vec::new() }))
}

impl DeepLock {
    /// Looks on for locks below; the answer once all was looked at.
    pub fn advance(&mut self, env: &Env<'_>, budget: &mut usize) -> Result<Option<Reply>, Reply> {
        let DeepLock { info, conflicts, .. } = self;
        let mut look = |dir: &Path, _: &[(OsString, FileType)]| {
            let state = store::load(dir, env.unix)?;
            let locks = state.members().flat_map(|(_, member)| &member.locks);
            let conflicting = locks.filter(|lock| info.exclusive || lock.exclusive);
            let room = MAX_TOLD.saturating_sub(conflicts.len());
            conflicts.extend(conflicting.take(room).map(|lock| lock.href.clone()));
            Ok(())
        };
        if !self.survey.advance(budget, &mut look)? {
            return Ok(None);
        }
        if !self.conflicts.is_empty() {
            let mut document = Multistatus::new();
            for href in &self.conflicts {
                document.status(href, 423);
            }
            document.status(&self.target.href(), 424);
            return Err(Reply { body: Some(document.finish()), ..207.into() });
        }
        grant(env, &self.target, &self.info, self.seconds, true).map(Some)
    }
}

/// Takes the lock. What does not exist is made, as an empty file.
fn grant(
    env: &Env<'_>,
    target: &Target,
    info: &LockInfo,
    seconds: u64,
    deep: bool,
) -> Result<Reply, Reply> {
    let Some(Home { dir, name }) = &target.home else { return Err(409.into()) };
    let created = !target.exists();
    if created {
        match File::create_new(&target.full) {
            Ok(_) => {}
            // Somebody was faster, and may have locked it.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(409.into()),
            Err(error) => return Err(error.into()),
        }
    }
    let lock = Lock {
        token: new_token(),
        exclusive: info.exclusive,
        deep,
        expires: env.unix + seconds,
        href: target.href(),
        directory: dir.clone(),
        user: env.user.clone(),
        owner: info.owner.clone().unwrap_or_default(),
    };
    let mut conflict = false;
    let kept = store::update(dir, env.unix, |state| {
        if created {
            state.remove(name);
        }
        let locks = &mut state.member_mut(name).locks;
        // Another process may have been faster.
        conflict = locks.iter().any(|held| held.exclusive || lock.exclusive);
        if !conflict {
            locks.push(lock.clone());
        }
    });
    if created && kept.is_err() {
        // Nobody has had a turn meanwhile.
        let _ = fs::remove_file(&target.full);
    }
    kept?;
    if conflict {
        return Err(Reply::failed(423, "no-conflicting-lock", &[&lock.href]));
    }
    let mut reply = granted(&lock, env, if created { 201 } else { 200 });
    reply.fields = format!("Lock-Token: <{}>\r\n", lock.token).into_bytes();
    Ok(reply)
}

fn granted(lock: &Lock, env: &Env<'_>, status: u16) -> Reply {
    let mut elements = String::from("<D:lockdiscovery>");
    write_lock(&mut elements, lock, env.unix);
    elements.push_str("</D:lockdiscovery>");
    Reply { body: Some(prop(&elements)), ..status.into() }
}

/// Gives a lock that is named in the If field more time.
fn refresh(
    request: &Request,
    env: &Env<'_>,
    target: &Target,
    seconds: u64,
) -> Result<Reply, Reply> {
    if request.field("if").is_none() {
        return Err(400.into());
    }
    let keys = request.conditions(env, target)?;
    let held = target.locks(env)?;
    let Some(lock) = held.iter().find(|lock| keys.open(lock)) else {
        return Err(Reply::failed(412, "lock-token-matches-request-uri", &[]));
    };
    let lock = Lock { expires: env.unix + seconds, ..lock.clone() };
    change(env, &lock.directory, &lock.token, |held| held.expires = lock.expires)?;
    Ok(granted(&lock, env, 200))
}

/// Performs UNLOCK.
pub fn unlock(request: &Request, env: &Env<'_>) -> Result<Reply, Reply> {
    let token = lock_token(request.field("lock-token").ok_or(Reply::from(400))?)?;
    let target = request.target(env)?;
    if !target.exists() {
        return Err(404.into());
    }
    request.conditions(env, &target)?;
    let held = target.locks(env)?;
    let Some(lock) = held.iter().find(|lock| lock.token.as_bytes() == token) else {
        return Err(Reply::failed(409, "lock-token-matches-request-uri", &[]));
    };
    if lock.user != env.user {
        return Err(403.into());
    }
    change(env, &lock.directory, &lock.token, |held| held.expires = 0)?;
    Ok(204.into())
}

/// Changes a lock where it is kept. One that is over is forgotten.
fn change(
    env: &Env<'_>,
    dir: &Path,
    token: &str,
    change: impl FnOnce(&mut Lock),
) -> io::Result<()> {
    store::update(dir, env.unix, |state| {
        for locks in state.all_locks() {
            if let Some(place) = locks.iter().position(|lock| lock.token == token) {
                change(&mut locks[place]);
                locks.retain(|lock| lock.expires > env.unix);
                return;
            }
        }
    })
}

/// Adds to `found` what in a directory is locked and not opened by `keys`.
pub fn locked_in(
    env: &Env<'_>,
    dir: &Path,
    keys: &Keys,
    found: &mut Vec<String>,
) -> io::Result<()> {
    let state = store::load(dir, env.unix)?;
    for (_, member) in state.members() {
        if let Some(lock) = keys.blocked_by(&member.locks)
            && found.len() < MAX_TOLD
        {
            found.push(lock.href.clone());
        }
    }
    Ok(())
}
