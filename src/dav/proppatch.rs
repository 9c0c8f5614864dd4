//! The method PROPPATCH (RFC 4918, section 9.2). Decides whether each change of a dead property can
//! be made, and makes all or none. Knows nothing of how properties are stored.

use super::Env;
use super::bodies::{Change, propertyupdate};
use super::method::{MethodCall, Reply};
use super::multistatus::{Multistatus, write_name};
use super::properties::is_protected;
use super::store::{self, Properties};
use super::target::{Home, Target};
use super::xml::Name;

/// The largest size of one dead property, and of all dead properties of a resource, in bytes.
const MAX_PROPERTY: usize = 64 * 1024;
const MAX_PROPERTIES: usize = 1024 * 1024;
/// The largest number of dead properties of one resource.
const MAX_NUMBER: usize = 4096;

/// Performs PROPPATCH.
pub fn proppatch(request: &MethodCall, env: &Env<'_>) -> Result<Reply, Reply> {
    let target = request.target(env)?;
    let Home { dir, name } = home(&target)?;
    let changes = propertyupdate(&request.body)?;
    request.may_change(env, &target, false)?;
    let state = target.state(env)?;
    let mut properties =
        state.member(name).map(|member| member.properties.clone()).unwrap_or_default();
    let mut total = properties.iter().map(|(_, value)| value.len()).sum();
    let mut stats = vec![
        (200, String::new(), None),
        (403, String::new(), Some("cannot-modify-protected-property")),
        (507, String::new(), None),
    ];
    for change in &changes {
        let (name, status) = check_change(change, &properties, total);
        match stats.iter_mut().find(|(known, ..)| *known == status) {
            Some((_, names, _)) => write_name(names, name),
            None => debug_assert!(false, "a change with an unknown status"),
        }
        if status == 200 {
            let (before, after) = apply(change, &mut properties);
            total = total + after - before;
        }
    }
    if stats[1..].iter().all(|(_, names, _)| names.is_empty()) {
        store::update(dir, env.unix, &mut |state| {
            let properties = &mut state.member_mut(name).properties;
            for change in &changes {
                apply(change, properties);
            }
        })?;
    } else {
        // Either all changes are made or none is (RFC 4918, section 9.2).
        stats[0].0 = 424;
    }
    stats.retain(|(_, names, _)| !names.is_empty());
    let mut document = Multistatus::new();
    document.properties(&target.href(), &stats);
    Ok(Reply { body: Some(document.finish()), ..207.into() })
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
        _ if len > MAX_PROPERTY || others + len > MAX_PROPERTIES => 507,
        _ if is_new && properties.len() >= MAX_NUMBER => 507,
        _ => 200,
    };
    (name, status)
}

/// Makes a change. Returns the size of the property before and after it, in bytes.
fn apply(change: &Change, properties: &mut Properties) -> (usize, usize) {
    let (before, after) = match change {
        Change::Set(name, value) => (properties.insert(name.clone(), value.clone()), value.len()),
        Change::Remove(name) => (properties.remove(name), 0),
    };
    (before.map_or(0, |value| value.len()), after)
}
