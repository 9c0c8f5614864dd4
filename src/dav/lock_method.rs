//! LOCK and UNLOCK (RFC 4918 sections 9.10 and 9.11).

use std::ffi::OsString;
use std::fs::{self, File, FileType};
use std::io::{self, ErrorKind};
use std::path::Path;

use super::Env;
use super::bodies::lockinfo;
use super::fields::{Depth, lock_token, timeout};
use super::locks::{Keys, Lock, new_token, write_lock};
use super::multistatus::{Multistatus, prop};
use super::request::{Reply, Request};
use super::store;
use super::target::{Home, Kind, Target, locks_on};
use super::tree::Survey;

/// As many resources are told of that are locked below another.
const MAX_TOLD: usize = 100;
/// Locks on one resource at the same time.
const MAX_LOCKS: usize = 64;

/// Seconds that a lock is held for somebody while what is below it is looked through. A server that
/// is killed meanwhile leaves it for as long.
const PENDING: u64 = 60;

/// A LOCK that has yet to find out whether something below is locked. It is held already, so that
/// nobody takes a lock below meanwhile; who drops this gives it back.
#[derive(Debug)]
pub struct DeepLock {
    target: Target,
    lock: Lock,
    seconds: u64,
    survey: Survey,
    /// What is locked below.
    conflicts: Vec<String>,
    is_settled: bool,
    /// Who took it: a child of a fork has a copy of this value, and must leave the lock alone.
    process: u32,
    /// Seconds since 1970, when it was last worked on.
    now: u64,
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
    let Some(home) = &target.home else { return Err(409.into()) };
    let deep = depth == Depth::Infinity && target.is_dir();
    let lock = Lock {
        token: new_token(),
        exclusive: info.exclusive,
        deep,
        expires: env.unix + if deep { PENDING } else { seconds },
        seconds: if deep { PENDING } else { seconds },
        href: target.href(),
        directory: home.dir.clone(),
        user: env.user.clone(),
        owner: info.owner.unwrap_or_default(),
    };
    let keys = request.conditions(env, &target)?;
    let held = target.locks(env)?;
    if let Some(other) = held.iter().find(|other| lock.conflicts_with(other)) {
        return Err(conflict(other));
    }
    if held.len() >= MAX_LOCKS {
        return Err(503.into());
    }
    if !target.exists()
        && let Some(lock) = target.blocked(env, &keys, true)?
    {
        return Err(Reply::locked(&lock.href));
    }
    take(env, &target, home, &lock)?;
    if !deep {
        return Ok(Err(granted(&lock, env, if target.exists() { 200 } else { 201 })));
    }
    Ok(Ok(DeepLock {
        survey: Survey::new(target.full.clone()),
        target,
        lock,
        seconds,
        conflicts: Vec::new(),
        is_settled: false,
        process: std::process::id(),
        now: env.unix,
    }))
}

impl DeepLock {
    /// Looks on for locks below; the answer once all was looked at.
    pub fn advance(&mut self, env: &Env<'_>, budget: &mut usize) -> Result<Option<Reply>, Reply> {
        self.now = env.unix;
        self.lock.bound(env.unix);
        if self.lock.expires < env.unix + PENDING / 2 {
            self.hold(env, PENDING)?;
        }
        let DeepLock { lock, conflicts, .. } = self;
        let mut look = |dir: &Path, _: &[(OsString, FileType)]| {
            let state = store::load(dir, env.unix)?;
            let locks = state.members().flat_map(|(_, member)| &member.locks);
            let conflicting = locks.filter(|other| lock.conflicts_with(other));
            let room = MAX_TOLD.saturating_sub(conflicts.len());
            conflicts.extend(conflicting.take(room).map(|other| other.href.clone()));
            Ok(state.cost())
        };
        if !self.survey.advance(budget, &mut look)? {
            return Ok(None);
        }
        if !self.conflicts.is_empty() {
            let mut document = Multistatus::new();
            self.conflicts.iter().for_each(|href| document.status(href, 423));
            document.status(&self.target.href(), 424);
            return Err(Reply { body: Some(document.finish()), ..207.into() });
        }
        self.hold(env, self.seconds)?;
        self.is_settled = true;
        Ok(Some(granted(&self.lock, env, 200)))
    }

    /// Keeps the lock for as many seconds from now on.
    fn hold(&mut self, env: &Env<'_>, seconds: u64) -> Result<(), Reply> {
        (self.lock.expires, self.lock.seconds) = (env.unix + seconds, seconds);
        let Lock { directory, token, .. } = &self.lock;
        match grant(env.unix, directory, token, seconds)? {
            true => Ok(()),
            // It is over: nobody has come here for too long.
            false => Err(503.into()),
        }
    }
}

impl Drop for DeepLock {
    fn drop(&mut self) {
        if !self.is_settled && self.process == std::process::id() {
            give_back(self.now, &self.lock);
        }
    }
}

/// Enters a lock where it is kept. What does not exist is made, as an empty file.
fn take(env: &Env<'_>, target: &Target, home: &Home, lock: &Lock) -> Result<(), Reply> {
    if !target.exists() {
        match File::create_new(&target.full) {
            Ok(_) => {}
            // Somebody was faster, and may have locked it.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(409.into()),
            Err(error) => return Err(error.into()),
        }
    }
    let mut other = None;
    let kept = store::update(&home.dir, env.unix, &mut |state| {
        if !target.exists() {
            state.forget_properties(&home.name);
        }
        let locks = &mut state.member_mut(&home.name).locks;
        // Another process may have been faster.
        other = locks.iter().find(|other| lock.conflicts_with(other)).cloned();
        if other.is_none() {
            locks.push(lock.clone());
        }
    });
    if !target.exists() && kept.is_err() {
        // Nobody has had a turn meanwhile.
        let _ = fs::remove_file(&target.full);
    }
    kept?;
    if let Some(other) = other {
        return Err(conflict(&other));
    }
    // Or may have locked a directory above. Now that the lock can be seen, so can its: at least
    // one of both gives way.
    let above = locks_on(env, &home.dir, &home.name).map(|locks| {
        let mut locks = locks.into_iter();
        locks.find(|other| lock.conflicts_with(other))
    });
    let failure = match above {
        Ok(None) => return Ok(()),
        Ok(Some(other)) => conflict(&other),
        Err(error) => error.into(),
    };
    give_back(env.unix, lock);
    Err(failure)
}

/// Takes back a lock that was not granted in the end. Where that fails it ends with its time.
fn give_back(now: u64, lock: &Lock) {
    let _ = grant(now, &lock.directory, &lock.token, 0);
}

fn conflict(other: &Lock) -> Reply {
    Reply::failed(423, "no-conflicting-lock", &[&other.href])
}

fn granted(lock: &Lock, env: &Env<'_>, status: u16) -> Reply {
    let mut elements = String::from("<D:lockdiscovery>");
    write_lock(&mut elements, lock, env.unix);
    elements.push_str("</D:lockdiscovery>");
    let fields = format!("Lock-Token: <{}>\r\n", lock.token).into_bytes();
    Reply { fields, body: Some(prop(&elements)), ..status.into() }
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
    let lock = Lock { expires: env.unix + seconds, seconds, ..lock.clone() };
    grant(env.unix, &lock.directory, &lock.token, seconds)?;
    // It has its token already (RFC 4918, section 9.10.2).
    Ok(Reply { fields: Vec::new(), ..granted(&lock, env, 200) })
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
    grant(env.unix, &lock.directory, &lock.token, 0)?;
    Ok(204.into())
}

/// Lets a lock last for so many seconds from now on, where it is kept; false if there is none. With 0
/// it is forgotten.
fn grant(now: u64, dir: &Path, token: &str, seconds: u64) -> io::Result<bool> {
    let mut is_found = false;
    store::update(dir, now, &mut |state| {
        for locks in state.all_locks() {
            if let Some(lock) = locks.iter_mut().find(|lock| lock.token == token) {
                is_found = true;
                (lock.expires, lock.seconds) = (now + seconds, seconds);
                locks.retain(|lock| lock.expires > now);
                return;
            }
        }
    })?;
    Ok(is_found)
}

/// Adds to `found` what in a directory is locked and not opened by `keys`. What it has cost.
pub fn locked_in(
    env: &Env<'_>,
    dir: &Path,
    keys: &Keys,
    found: &mut Vec<String>,
) -> io::Result<usize> {
    let state = store::load(dir, env.unix)?;
    for (_, member) in state.members() {
        if let Some(lock) = keys.blocked_by(&member.locks)
            && found.len() < MAX_TOLD
        {
            found.push(lock.href.clone());
        }
    }
    Ok(state.cost())
}
