//! The method MKCOL (RFC 4918, section 9.3). Decides whether a directory may be made at the target;
//! knows nothing of the connection, nor of content, which MKCOL does not take.

use std::fs;

use super::Env;
use super::method::{MethodCall, Reply};
use super::store;
use super::target::{Home, Kind, Target};

/// Performs MKCOL.
pub fn mkcol(request: &MethodCall, env: &Env<'_>) -> Result<Reply, Reply> {
    let target = request.target(env)?;
    if !request.body.is_empty() {
        return Err(415.into());
    }
    let Home { dir, name } = home(&target)?;
    request.may_change(env, &target, true)?;
    let _lock = store::lock_if_possible(dir)?;
    fs::create_dir(&target.full)?;
    store::forget(dir, env.unix, name);
    Ok(201.into())
}

/// Returns where a directory can be made. The target must not exist.
pub fn home(target: &Target) -> Result<&Home, Reply> {
    if !matches!(target.kind, Kind::Missing) {
        return Err(405.into());
    }
    target.home.as_ref().ok_or_else(|| 409.into())
}
