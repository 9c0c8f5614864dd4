//! The methods LOCK and UNLOCK (RFC 4918, sections 9.10 and 9.11). Decides whether a lock is
//! granted, and stores it where other servers see it. Knows nothing of the format in which it is
//! stored.
//!
//! Of two locks that conflict, taken at the same time by any processes, at least one is given back.

use std::ffi::OsString;
use std::fs::{self, File, FileType};
use std::io::{self, ErrorKind};
use std::path::Path;

use super::Env;
use super::bodies::lockinfo;
use super::fields::{Depth, lock_token, timeout};
use super::locks::{Keys, Lock, new_token, write_lock};
use super::method::{MethodCall, Reply};
use super::multistatus::{Multistatus, prop};
use super::store;
use super::target::{Home, Kind, Target, locks_on};
use super::tree::Survey;

/// The largest number of locked resources below another that a response names.
const MAX_REPORTED: usize = 100;
/// The largest number of locks that cover one resource at the same time.
const MAX_LOCKS: usize = 64;

/// The timeout of a lock while the tree below it is searched for locks, in seconds. A server that
/// is killed meanwhile leaves the lock for as long.
const PENDING: u64 = 60;

/// A LOCK that still searches the tree below its target for conflicting locks. The lock is stored
/// already, so that no client takes a lock below meanwhile. When this value is dropped before the
/// lock was granted, it gives the lock back.
#[derive(Debug)]
pub struct DeepLock {
    target: Target,
    lock: Lock,
    seconds: u64,
    survey: Survey,
    /// The hrefs of resources below with conflicting locks.
    conflicts: Vec<String>,
    is_settled: bool,
    /// The process that took the lock: a child of a fork has a copy of this value, and must leave
    /// the lock alone.
    process: u32,
    /// The time of the last portion of work, in seconds since 1970.
    now: u64,
}

/// Begins a LOCK. Returns its response, or the work that comes before it.
pub fn lock(request: &MethodCall, env: &Env<'_>) -> Result<Result<DeepLock, Reply>, Reply> {
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
    // LOCK makes a file where nothing is, and no collection (RFC 4918, section 9.10.4).
    if !target.exists() && request.path.ends_with(b"/") {
        return Err(409.into());
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
    /// Searches more directories for locks. Returns the response once all were searched.
    pub fn advance(&mut self, env: &Env<'_>, budget: &mut usize) -> Result<Option<Reply>, Reply> {
        self.now = env.unix;
        self.lock.bound(env.unix);
        if self.lock.expires < env.unix + PENDING / 2 {
            self.hold(env, PENDING)?;
        }
        let DeepLock { lock, conflicts, .. } = self;
        let mut visit = |dir: &Path, _: &[(OsString, FileType)], is_last: bool| {
            if !is_last {
                return Ok(0);
            }
            let state = store::load(dir, env.unix)?;
            let locks = state.members().flat_map(|(_, member)| &member.locks);
            let conflicting = locks.filter(|other| lock.conflicts_with(other));
            let room = MAX_REPORTED.saturating_sub(conflicts.len());
            conflicts.extend(conflicting.take(room).map(|other| other.href.clone()));
            Ok(state.cost())
        };
        if !self.survey.advance(budget, &mut visit)? {
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

    /// Extends the lock to `seconds` from now on.
    fn hold(&mut self, env: &Env<'_>, seconds: u64) -> Result<(), Reply> {
        (self.lock.expires, self.lock.seconds) = (env.unix + seconds, seconds);
        let Lock { directory, token, .. } = &self.lock;
        match grant(env.unix, directory, token, seconds)? {
            true => Ok(()),
            // The lock has expired, since the last portion of work was too long ago.
            false => Err(503.into()),
        }
    }
}

impl Drop for DeepLock {
    fn drop(&mut self) {
        if !self.is_settled && self.process == std::process::id() {
            revoke(self.now, &self.lock);
        }
    }
}

/// Stores a lock. A target that does not exist is created as an empty file (RFC 4918, section 7.3).
fn take(env: &Env<'_>, target: &Target, home: &Home, lock: &Lock) -> Result<(), Reply> {
    if !target.exists() {
        match File::create_new(&target.full) {
            Ok(_) => {}
            // Another client has created the file meanwhile, and may have locked it.
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
        // Another process may have stored a lock meanwhile.
        other = locks.iter().find(|other| lock.conflicts_with(other)).cloned();
        if other.is_none() {
            locks.push(lock.clone());
        }
    });
    if !target.exists() && kept.is_err() {
        // No other request was worked on meanwhile, so the file is still the empty one.
        let _ = fs::remove_file(&target.full);
    }
    kept?;
    if let Some(other) = other {
        return Err(conflict(&other));
    }
    // Another process may also have locked a directory above. The new lock is visible now, and so
    // is that of the other process: at least one of both processes sees the conflict and gives way.
    let above = locks_on(env, &home.dir, &home.name).map(|locks| {
        let mut locks = locks.into_iter();
        locks.find(|other| lock.conflicts_with(other))
    });
    let failure = match above {
        Ok(None) => return Ok(()),
        Ok(Some(other)) => conflict(&other),
        Err(error) => error.into(),
    };
    revoke(env.unix, lock);
    Err(failure)
}

/// Removes a lock that was not granted in the end. If that fails, the lock expires.
fn revoke(now: u64, lock: &Lock) {
    let _ = grant(now, &lock.directory, &lock.token, 0);
}

/// Returns the response that names a conflicting lock.
fn conflict(other: &Lock) -> Reply {
    Reply::failed(423, "no-conflicting-lock", &[&other.href])
}

/// Returns the response that shows a lock that was granted.
fn granted(lock: &Lock, env: &Env<'_>, status: u16) -> Reply {
    let mut elements = String::from("<D:lockdiscovery>");
    write_lock(&mut elements, lock, env.unix);
    elements.push_str("</D:lockdiscovery>");
    let fields = format!("Lock-Token: <{}>\r\n", lock.token).into_bytes();
    Reply { fields, body: Some(prop(&elements)), ..status.into() }
}

/// Refreshes a lock whose token is in the If field (RFC 4918, section 9.10.2).
fn refresh(
    request: &MethodCall,
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
    // The response to a refresh has no Lock-Token field (RFC 4918, section 9.10.2).
    Ok(Reply { fields: Vec::new(), ..granted(&lock, env, 200) })
}

/// Performs UNLOCK.
pub fn unlock(request: &MethodCall, env: &Env<'_>) -> Result<Reply, Reply> {
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

/// Sets the timeout of a stored lock to `seconds` from now on, where 0 removes it. Returns false if
/// there is no such lock.
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

/// Adds to `found` the lock roots in the directory `dir` that `keys` do not open. Returns the cost.
pub fn locked_in(
    env: &Env<'_>,
    dir: &Path,
    keys: &Keys,
    found: &mut Vec<String>,
) -> io::Result<usize> {
    let state = store::load(dir, env.unix)?;
    for (_, member) in state.members() {
        if let Some(lock) = keys.blocked_by(&member.locks)
            && found.len() < MAX_REPORTED
        {
            found.push(lock.href.clone());
        }
    }
    Ok(state.cost())
}
