//! Which symbolic links on the way to a file are followed (`follow_symlinks`). Follows `openat(2)` and
//! `openat2(2)`.
//!
//! A path is walked from descriptor to descriptor, or by one call of a kernel that can do so. What is
//! found is opened by its descriptor, so that nobody can put a link in its way between a check and
//! its use. The way to the document root, to where a rewrite leads and to a password file that an
//! option names is the administrator's own, and not looked at. Knows nothing of requests.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions, ReadDir};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::options::{Config, FollowSymlinks};

/// The largest number of links on the way to a file, as the kernel has it.
const MAX_LINKS: usize = 40;

/// The links that are followed.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// `None` means all.
    barrier: Option<Barrier>,
}

/// What bars links.
#[derive(Clone, Debug)]
struct Barrier {
    /// Whether links to files of the same owner are followed.
    follows_own: bool,
    /// The paths up to which every link is followed.
    bases: Vec<PathBuf>,
}

impl Links {
    /// Returns the rule that the options set.
    pub fn of(config: &Config) -> Links {
        let follows_own = match config.follow_symlinks {
            FollowSymlinks::Yes => return Links::default(),
            FollowSymlinks::No => false,
            FollowSymlinks::SameOwner => true,
        };
        let named = [&config.document_root, &config.global_auth_file, &config.dav_auth_file];
        let named = named.into_iter().flatten().cloned();
        // The path of a request is added to that of a rewrite without a slash.
        let rewritten = config.url_rewrites.iter().map(|(_, target)| {
            let end = memchr::memrchr(b'/', target.as_bytes()).map_or(0, |slash| slash + 1);
            PathBuf::from(&target[..end])
        });
        let bases = named.chain(rewritten).collect();
        Links { barrier: Some(Barrier { follows_own, bases }) }
    }

    /// Returns whether some links are not followed.
    pub fn has_barrier(&self) -> bool {
        self.barrier.is_some()
    }

    /// Returns whether a link that is not followed is on the way to the path. Nothing need be there. It
    /// is an error that the file system fails, so that nobody knows.
    pub fn bar(&self, path: &Path) -> io::Result<bool> {
        match self.barrier.as_ref().map(|barrier| barrier.find(path)) {
            Some(Err(error)) if is_barred(&error) => Ok(true),
            Some(Err(error)) if !is_answer(&error) => Err(error),
            None | Some(_) => Ok(false),
        }
    }

    /// Returns the metadata of what is at the path.
    pub fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        match &self.barrier {
            None => fs::metadata(path),
            Some(barrier) => File::from(barrier.find(path)?).metadata(),
        }
    }

    /// Opens a file to be read, of which is known that it is one.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        // FIFOs and devices are never opened: that could block, or have side effects.
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
        let open = |path: &Path| OpenOptions::new().read(true).custom_flags(flags).open(path);
        let Some(barrier) = &self.barrier else { return open(path) };
        let found = barrier.find(path)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) != FileType::RegularFile {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        open(&path_of(&found))
    }

    /// Opens a directory to be read.
    pub fn read_dir(&self, path: &Path) -> io::Result<ReadDir> {
        match &self.barrier {
            None => fs::read_dir(path),
            Some(barrier) => fs::read_dir(path_of(&barrier.find(path)?)),
        }
    }
}

/// Returns whether an error says that a link is not followed. It also says so of links that lead to
/// each other.
fn is_barred(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// Returns whether an error says something about the path, and not that the file system fails.
fn is_answer(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let is_absence = matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG));
    is_absence || matches!(errno, None | Some(Errno::ACCESS | Errno::PERM))
}

/// Returns a path by which the file of a descriptor can be opened once more.
fn path_of(found: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

const WAY: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

impl Barrier {
    /// Finds what is at the path.
    fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        let starts =
            self.bases.iter().filter_map(|base| Some((base, path.strip_prefix(base).ok()?)));
        let Some((base, rest)) = starts.min_by_key(|(_, rest)| rest.as_os_str().len()) else {
            // It is named by an option.
            return Ok(rustix::fs::open(path, WAY, Mode::empty())?);
        };
        let base = if base.as_os_str().is_empty() { Path::new(".") } else { base };
        let start = rustix::fs::open(base, WAY, Mode::empty())?;
        if rest.as_os_str().is_empty() && slash_behind(path).is_empty() {
            return Ok(start);
        }
        // `strip_prefix` leaves out the slash at the end, by which only a directory is named. The
        // path must not become an absolute one, which would begin at the root of the file system.
        let rest = [&b"./"[..], rest.as_os_str().as_bytes(), slash_behind(path)].concat();
        let rest = OsStr::from_bytes(&rest);
        if !self.follows_own {
            match rustix::fs::openat2(&start, rest, WAY, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
                // An older kernel, or a filter of system calls that does not know this one.
                Err(Errno::NOSYS | Errno::PERM) => {}
                found => return Ok(found?),
            }
        }
        self.walk(start, Path::new(rest), &mut 0)
    }

    /// Walks along a path that is relative to a directory.
    fn walk(&self, start: OwnedFd, path: &Path, links: &mut usize) -> io::Result<OwnedFd> {
        let mut here = start;
        let bytes = path.as_os_str().as_bytes();
        for name in bytes.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let name = OsStr::from_bytes(name);
            let next = rustix::fs::openat(&here, name, WAY | OFlags::NOFOLLOW, Mode::empty())?;
            let found = rustix::fs::fstat(&next)?;
            here = match FileType::from_raw_mode(found.st_mode) {
                FileType::Symlink => self.follow(here, &next, found.st_uid, links)?,
                _ => next,
            };
        }
        if bytes.ends_with(b"/") {
            // As the kernel has it, only a directory may have a slash behind it.
            here = rustix::fs::openat(&here, ".", WAY | OFlags::DIRECTORY, Mode::empty())?;
        }
        Ok(here)
    }

    /// Follows a link in the directory `dir`, if what it leads to has the same owner.
    fn follow(
        &self,
        dir: OwnedFd,
        link: &OwnedFd,
        owner: u32,
        links: &mut usize,
    ) -> io::Result<OwnedFd> {
        *links += 1;
        if !self.follows_own || *links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let text = rustix::fs::readlinkat(link.as_fd(), "", Vec::new())?;
        let start = match text.as_bytes().starts_with(b"/") {
            true => rustix::fs::open("/", WAY, Mode::empty())?,
            false => dir,
        };
        let end = self.walk(start, Path::new(OsStr::from_bytes(text.as_bytes())), links)?;
        match rustix::fs::fstat(&end)?.st_uid == owner {
            true => Ok(end),
            false => Err(Errno::LOOP.into()),
        }
    }
}

/// Returns the slash at the end of a path, if there is one.
fn slash_behind(path: &Path) -> &'static [u8] {
    if path.as_os_str().as_bytes().ends_with(b"/") { b"/" } else { b"" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_folder::Folder;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    fn links(folder: &Folder, policy: FollowSymlinks) -> Links {
        let root = folder.0.join("way/root");
        Links::of(&Config {
            document_root: Some(root),
            follow_symlinks: policy,
            url_rewrites: vec![("/x".to_owned(), format!("{}/other/", folder.0.display()))],
            ..Config::default()
        })
    }

    #[test]
    fn links_behind_the_root_are_followed_as_the_option_says() {
        let folder = Folder::new();
        fs::create_dir_all(folder.0.join("real/root/d")).unwrap();
        fs::create_dir(folder.0.join("other")).unwrap();
        // The way to the root may lead through links.
        symlink("real", folder.0.join("way")).unwrap();
        let root = folder.0.join("way/root");
        fs::write(root.join("d/a"), "text").unwrap();
        fs::write(folder.0.join("other/b"), "text").unwrap();
        symlink("a", root.join("d/own")).unwrap();
        symlink("d", root.join("dir")).unwrap();
        symlink("../../other/b", root.join("out")).unwrap();
        symlink(folder.0.join("other"), root.join("absolute")).unwrap();
        symlink("/proc/version", root.join("foreign")).unwrap();
        symlink("again", root.join("again")).unwrap();
        symlink("none", root.join("dangling")).unwrap();
        symlink("b", folder.0.join("other/link")).unwrap();
        // (path, found without links, found with those of the same owner)
        let table = [
            ("d/a", true, true),
            ("d/own", false, true),
            ("dir/a", false, true),
            ("dir/own", false, true),
            ("out", false, true),
            ("absolute/b", false, true),
            ("absolute/link", false, true),
            ("../../other/b", true, true),
            ("../../other/link", false, true),
            ("again", false, false),
        ];
        let uid = rustix::process::getuid().as_raw();
        let foreign = fs::metadata("/proc/version").unwrap();
        let is_own = std::os::unix::fs::MetadataExt::uid(&foreign) == uid;
        for (policy, column) in [(FollowSymlinks::No, 0), (FollowSymlinks::SameOwner, 1)] {
            let links = links(&folder, policy);
            for (path, without, same) in table {
                // As a rewrite has it, which is a path of its own.
                let full = match path.strip_prefix("../../") {
                    Some(path) => folder.0.join(path),
                    None => root.join(path),
                };
                let expected = [without, same][column];
                assert_eq!(links.bar(&full).unwrap(), !expected, "{path} {policy:?}");
                let mut text = String::new();
                let opened = links.open(&full).map(|mut file| file.read_to_string(&mut text));
                assert_eq!(opened.is_ok(), expected, "{path} {policy:?}");
                assert_eq!(text, if expected { "text" } else { "" });
                assert_eq!(links.metadata(&full).is_ok(), expected, "{path} {policy:?}");
            }
            assert_eq!(links.bar(&root.join("foreign")).unwrap(), column == 0 || !is_own);
            assert_eq!(links.read_dir(&root.join("dir/")).is_ok(), column == 1);
            assert_eq!(links.read_dir(&root.join("d")).unwrap().count(), 2);
            assert!(["none", "d/none"].iter().all(|name| !links.bar(&root.join(name)).unwrap()));
            let error = links.metadata(&root.join("none/x")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            let error = links.metadata(&root.join("d/a/")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
            assert!(links.open(&root.join("d")).is_err());
            let id = |path: &Path| {
                std::os::unix::fs::MetadataExt::ino(&links.metadata(path).expect("metadata"))
            };
            let slashes = [root.join(""), root.join("d/..")];
            assert!(slashes.iter().all(|path| id(path) == id(&root)), "{slashes:?}");
            let mut named = links.clone();
            named.barrier.iter_mut().for_each(|barrier| barrier.bases.push(root.join("d/a")));
            assert!(named.open(&root.join("d/a")).is_ok(), "an option names it");
            let other = folder.0.join("other");
            assert_eq!(id(&other.join("")), id(&other));
        }
        let all = links(&folder, FollowSymlinks::Yes);
        assert!(!all.bar(&root.join("again")).unwrap() && all.open(&root.join("out")).is_ok());
    }

    #[test]
    fn a_walk_finds_what_one_call_of_the_kernel_finds() {
        let folder = Folder::new();
        fs::create_dir_all(folder.0.join("d/e")).unwrap();
        fs::write(folder.0.join("d/a"), "").unwrap();
        symlink("d", folder.0.join("link")).unwrap();
        let barrier = Barrier { follows_own: false, bases: Vec::new() };
        for path in
            ["d", "d/", "d/a", "d/a/", "d/a/b", "d/none", "none/a", "link", "link/a", "d/e/"]
        {
            let start = || rustix::fs::open(&folder.0, WAY, Mode::empty()).unwrap();
            let id = |found: OwnedFd| rustix::fs::fstat(&found).unwrap().st_ino;
            let walked = barrier.walk(start(), Path::new(path), &mut 0);
            let flags = ResolveFlags::NO_SYMLINKS;
            let expected = rustix::fs::openat2(start(), path, WAY, Mode::empty(), flags);
            let walked = walked.map(id).map_err(|error| error.raw_os_error());
            let expected = expected.map(id).map_err(|error| Some(error.raw_os_error()));
            assert_eq!(walked, expected, "{path}");
        }
    }
}
