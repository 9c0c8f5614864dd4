//! The file that a path of a request names, and where its properties and locks are stored. Follows
//! symbolic links before it looks for locks, so that a lock holds under every name (RFC 4918,
//! section 7).
//!
//! Decides what is hidden from WebDAV; knows nothing of methods.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::conditions::Current;
use super::fields::escape_path;
use super::locks::{Keys, Lock, directories_above};
use super::store::{self, State, States};
use super::{Env, is_failure, known, status_of};
use crate::files::known::entity_tag;
use crate::files::resolve;

/// A resource that a request names. It need not exist.
#[derive(Debug)]
pub struct Target {
    /// The decoded path of the URI, without a slash at its end unless it is the root.
    pub path: Vec<u8>,
    /// The path in the file system, without a slash at its end.
    pub full: PathBuf,
    pub kind: Kind,
    /// Whether the path names a symbolic link.
    pub is_link: bool,
    pub home: Option<Home>,
}

/// The kind of file at a path, after symbolic links were followed.
#[derive(Debug)]
pub enum Kind {
    Missing,
    File(Metadata),
    Dir(Metadata),
    /// A device, a link that leads nowhere, or a file that may not be looked at.
    Other,
}

/// The directory, and the name in it, under which the properties and locks of a resource are
/// stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// The directory, without symbolic links in its path.
    pub dir: PathBuf,
    /// The name in the directory; empty for the directory itself.
    pub name: Vec<u8>,
}

impl Home {
    /// Returns the path of the resource, without symbolic links in it.
    pub fn path(&self) -> PathBuf {
        if self.name.is_empty() {
            return self.dir.clone();
        }
        self.dir.join(OsStr::from_bytes(&self.name))
    }
}

impl Target {
    /// Looks up a decoded path. Returns `None` if it is hidden, or if it stands for no file at all. It is
    /// an error that the file system fails: that must not pass for a file that is missing.
    pub fn look_up(env: &Env<'_>, path: &[u8]) -> io::Result<Option<Target>> {
        let Some(full) = resolve::full_path(env.config, path) else { return Ok(None) };
        let plain = Path::new(OsStr::from_bytes(without_slash(full.as_os_str().as_bytes())));
        // The patterns of hidden files are compared with and without the slash at the end, since
        // both paths name the same file.
        if resolve::is_hidden(env.config, &full) || resolve::is_hidden(env.config, plain) {
            return Ok(None);
        }
        // What is behind a link that is not followed does not exist, nor does the link.
        if env.links.bar(plain)? {
            return Ok(None);
        }
        let target = Target::at(without_slash(path), plain)?;
        Ok((!target.is_secret(env)).then_some(target))
    }

    /// Looks at the file `full`, which clients know as `path`.
    pub fn at(path: &[u8], full: &Path) -> io::Result<Target> {
        let full = full.to_path_buf();
        let is_link = known(fs::symlink_metadata(&full))?.is_some_and(|meta| meta.is_symlink());
        let kind = match fs::metadata(&full) {
            Ok(meta) if meta.is_dir() => Kind::Dir(meta),
            Ok(meta) if meta.is_file() => Kind::File(meta),
            Err(error) if !is_link && is_missing(&error) => Kind::Missing,
            Err(error) if is_failure(&error) => return Err(error),
            Ok(_) | Err(_) => Kind::Other,
        };
        let real = |path: &Path| known(fs::canonicalize(path));
        let home = match kind {
            Kind::Dir(_) => real(&full)?.map(|dir| Home { dir, name: Vec::new() }),
            Kind::File(_) => real(&full)?.and_then(|real| home_of(&real)),
            Kind::Missing | Kind::Other => match home_of(&full) {
                Some(home) => real(&home.dir)?.map(|dir| Home { dir, ..home }),
                None => None,
            },
        };
        let dir = home.as_ref().map(|home| known(fs::metadata(&home.dir))).transpose()?.flatten();
        let home = home.filter(|_| dir.is_some_and(|meta| meta.is_dir()));
        Ok(Target { path: path.to_vec(), full, kind, is_link, home })
    }

    /// Returns whether the target is hidden because an option names it.
    pub fn is_secret(&self, env: &Env<'_>) -> bool {
        match &self.kind {
            Kind::Dir(_) => false,
            Kind::File(meta) => env.secrets.hides_found(&self.full, meta, self.is_link),
            Kind::Missing | Kind::Other => env.secrets.hides_at(&self.full),
        }
    }

    /// Returns whether the target is a directory that holds a file which an option names, or a link
    /// on the way to one.
    pub fn holds_secrets(&self, env: &Env<'_>) -> bool {
        if self.is_link {
            return env.secrets.lie_behind(&self.full);
        }
        let dir = self.home.as_ref().filter(|_| self.is_dir());
        dir.is_some_and(|home| env.secrets.lie_below(&home.dir))
    }

    pub fn exists(&self) -> bool {
        matches!(self.kind, Kind::File(_) | Kind::Dir(_))
    }

    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir(_))
    }

    pub fn metadata(&self) -> Option<&Metadata> {
        match &self.kind {
            Kind::File(meta) | Kind::Dir(meta) => Some(meta),
            Kind::Missing | Kind::Other => None,
        }
    }

    /// Returns the entity tag that GET sends; a directory has none.
    pub fn etag(&self) -> Option<String> {
        match &self.kind {
            Kind::File(meta) => Some(entity_tag(meta)),
            _ => None,
        }
    }

    /// Returns the path as clients name it, percent-encoded, with a slash behind a directory.
    pub fn href(&self) -> String {
        let mut href = String::new();
        escape_path(&self.path, &mut href);
        if self.is_dir() && !href.ends_with('/') {
            href.push('/');
        }
        href
    }

    /// Returns the directory that holds the name, without symbolic links in its path, if it exists.
    pub fn parent(&self) -> io::Result<Option<PathBuf>> {
        match home_of(&self.full) {
            Some(home) => known(fs::canonicalize(home.dir)),
            None => Ok(None),
        }
    }

    /// Reads the stored state of the target and its neighbours.
    pub fn state(&self, env: &Env<'_>) -> io::Result<State> {
        match &self.home {
            Some(home) => store::load(&home.dir, env.unix),
            None => Ok(State::default()),
        }
    }

    /// Returns all locks that cover the target: its own, and those of depth infinity on directories
    /// above. For a symbolic link these are also the locks that cover the link, since the file it
    /// leads to may lie elsewhere.
    pub fn locks(&self, env: &Env<'_>) -> io::Result<Vec<Lock>> {
        self.locks_among(env, &mut States::new(env.unix, u64::MAX))
    }

    /// Returns the same locks as [`Target::locks`], and reads directories through `states`.
    fn locks_among(&self, env: &Env<'_>, states: &mut States) -> io::Result<Vec<Lock>> {
        let mut locks = self.real_locks(env, states)?;
        for lock in self.link_locks(env, states)? {
            if !locks.iter().any(|known| known.token == lock.token) {
                locks.push(lock);
            }
        }
        Ok(locks)
    }

    /// Returns the locks that cover the file, after symbolic links were followed.
    fn real_locks(&self, env: &Env<'_>, states: &mut States) -> io::Result<Vec<Lock>> {
        match &self.home {
            Some(home) => locks_among(states, env, &home.dir, &home.name),
            None => Ok(Vec::new()),
        }
    }

    /// Returns the locks that cover the symbolic link, if the target is one.
    fn link_locks(&self, env: &Env<'_>, states: &mut States) -> io::Result<Vec<Lock>> {
        let parent = if self.is_link { self.parent()? } else { None };
        match parent.zip(self.full.file_name()) {
            Some((dir, name)) => locks_among(states, env, &dir, name.as_bytes()),
            None => Ok(Vec::new()),
        }
    }

    /// Returns the state that conditions of the If field are compared with.
    pub fn current(&self, env: &Env<'_>, states: &mut States) -> io::Result<Current> {
        let locks = self.locks_among(env, states)?;
        let tokens = locks.into_iter().map(|lock| lock.token).collect();
        Ok(Current { etag: self.etag(), tokens })
    }

    /// Returns the lock that forbids a change of the target. With `membership`, the directory that
    /// holds its name changes as well (RFC 4918, section 7.4).
    pub fn blocked(
        &self,
        env: &Env<'_>,
        keys: &Keys,
        membership: bool,
    ) -> io::Result<Option<Lock>> {
        // One key opens all shared locks on one resource. The link and the file it leads to are two
        // resources, so each is compared on its own.
        let states = &mut States::new(env.unix, u64::MAX);
        for locks in [self.real_locks(env, states)?, self.link_locks(env, states)?] {
            if let Some(lock) = keys.blocked_by(&locks) {
                return Ok(Some(lock.clone()));
            }
        }
        if !membership {
            return Ok(None);
        }
        let Some(parent) = self.parent()? else { return Ok(None) };
        Ok(keys.blocked_by(&locks_on(env, &parent, b"")?).cloned())
    }
}

/// Returns the locks that cover the file `name` in `dir`, whose path has no symbolic links in it.
pub fn locks_on(env: &Env<'_>, dir: &Path, name: &[u8]) -> io::Result<Vec<Lock>> {
    locks_among(&mut States::new(env.unix, u64::MAX), env, dir, name)
}

/// Returns the same locks as [`locks_on`], and reads directories through `states`.
fn locks_among(
    states: &mut States,
    env: &Env<'_>,
    dir: &Path,
    name: &[u8],
) -> io::Result<Vec<Lock>> {
    let mut locks = Vec::new();
    let is_below_root = env.root.as_ref().is_some_and(|root| dir.starts_with(root));
    for above in directories_above(dir, env.root.as_deref()) {
        let state = match states.get(above) {
            Ok(state) => state,
            // Outside of the document root, a state file that may not be read is not one of this
            // server's.
            Err(error)
                if above != dir
                    && !is_below_root
                    && error.kind() == io::ErrorKind::PermissionDenied =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        let own = above == dir && name.is_empty();
        if above == dir
            && !own
            && let Some(member) = state.member(name)
        {
            locks.extend(member.locks.iter().cloned());
        }
        if let Some(member) = state.member(b"") {
            locks.extend(member.locks.iter().filter(|lock| lock.deep || own).cloned());
        }
    }
    Ok(locks)
}

/// Splits a path into directory and name.
fn home_of(path: &Path) -> Option<Home> {
    let name = path.file_name()?.as_bytes().to_vec();
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
        _ => PathBuf::from("."),
    };
    Some(Home { dir, name })
}

/// Returns a path without the slashes at its end.
pub fn without_slash(path: &[u8]) -> &[u8] {
    let mut path = path;
    while let [rest @ .., b'/'] = path
        && !rest.is_empty()
    {
        path = rest;
    }
    path
}

/// Returns whether an error says that no file can be at the path.
fn is_missing(error: &io::Error) -> bool {
    status_of(error) == 404
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Config;
    use crate::test_folder::Folder;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_lead_to_where_their_state_is_kept() {
        let folder = Folder::new();
        let dir = folder.0.join("d");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("a"), "").unwrap();
        symlink("d/a", folder.0.join("link")).unwrap();
        symlink("d", folder.0.join("dirlink")).unwrap();
        symlink("none", folder.0.join("dangling")).unwrap();
        let home = |dir: &Path, name: &str| {
            Some(Home { dir: dir.to_path_buf(), name: name.as_bytes().to_vec() })
        };
        let table = [
            ("/", home(&folder.0, ""), "/"),
            ("/d", home(&dir, ""), "/d/"),
            ("/d/", home(&dir, ""), "/d/"),
            ("/d/a", home(&dir, "a"), "/d/a"),
            ("/link", home(&dir, "a"), "/link"),
            ("/dirlink/", home(&dir, ""), "/dirlink/"),
            ("/dirlink/a", home(&dir, "a"), "/dirlink/a"),
            ("/d/none", home(&dir, "none"), "/d/none"),
            ("/dirlink/none", home(&dir, "none"), "/dirlink/none"),
            ("/dangling", home(&folder.0, "dangling"), "/dangling"),
            ("/none/a", None, "/none/a"),
            ("/d/a/b", None, "/d/a/b"),
        ];
        let config = Config { document_root: Some(folder.0.clone()), ..Config::default() };
        let env = Env::new(&config, 0);
        for (path, home, href) in table {
            let target = Target::look_up(&env, path.as_bytes()).unwrap().unwrap();
            assert_eq!(target.home, home, "{path}");
            assert_eq!(target.href(), href, "{path}");
        }
        for hidden in ["/.mongoose-dav", "/.Mongoose-DAV.1/x", "/d/.htpasswd", "*"] {
            assert!(Target::look_up(&env, hidden.as_bytes()).unwrap().is_none(), "{hidden}");
        }
    }
}
