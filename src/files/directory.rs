//! Reads the entries of a directory in portions (`readdir(3)`), so that a large one does not delay
//! other connections. Knows nothing of which entries are hidden, nor of how they are shown.

use std::fs::{DirEntry, Metadata, ReadDir};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::cache::is_failure;
use super::links::Links;
use super::listing::Entry;

/// The metadata of an entry, if it was read, and whether the entry is a symbolic link.
pub type Found<'a> = Option<(&'a Metadata, bool)>;

/// A directory that is being read.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    rest: ReadDir,
    /// The symbolic links that are followed.
    links: Links,
}

impl Reader {
    pub fn open(path: &Path, links: &Links) -> io::Result<Reader> {
        let rest = links.read_dir(path)?;
        Ok(Reader { path: path.to_owned(), rest, links: links.clone() })
    }

    /// Reads up to `count` entries and leaves out those that are hidden. Returns `None` once all
    /// were read. `is_hidden` is called for each name, and again with the metadata. Symbolic links
    /// that lead nowhere, files whose metadata may not be read, and other kinds of files are left
    /// out: a link to them would lead to an error. It is an error that the file system fails.
    pub fn advance(
        &mut self,
        count: usize,
        is_hidden: &mut dyn FnMut(&[u8], Found<'_>) -> bool,
    ) -> io::Result<Option<Vec<Entry>>> {
        let mut entries = Vec::new();
        for seen in 0..count {
            let Some(found) = self.rest.next() else {
                return Ok(Some(entries).filter(|_| seen > 0));
            };
            let found = found?;
            let name = found.file_name();
            if is_hidden(name.as_bytes(), None) {
                continue;
            }
            let (meta, is_link) = match self.behind_links(&found) {
                Ok(found) => found,
                // A list without it would say that it is not there.
                Err(error) if is_failure(&error) => return Err(error),
                Err(_) => continue,
            };
            if is_hidden(name.as_bytes(), Some((&meta, is_link))) {
                continue;
            }
            if meta.is_file() || meta.is_dir() {
                entries.try_reserve(1)?;
                entries.push(Entry {
                    name: name.into_vec(),
                    is_dir: meta.is_dir(),
                    size: meta.len(),
                    modified: u64::try_from(meta.mtime()).unwrap_or(0),
                });
            }
        }
        Ok(Some(entries))
    }

    /// Returns the metadata after symbolic links were followed, and whether the entry is one.
    fn behind_links(&self, found: &DirEntry) -> io::Result<(Metadata, bool)> {
        let meta = found.metadata()?;
        match meta.is_symlink() {
            true => Ok((self.links.metadata(&self.path.join(found.file_name()))?, true)),
            false => Ok((meta, false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn files_and_directories_are_found_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("directory-test-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), "12345").unwrap();
        fs::write(folder.join("secret"), "").unwrap();
        fs::write(folder.join("large"), "12").unwrap();
        let odd = folder.join(OsStr::from_bytes(b"\xff\n"));
        fs::write(odd, "1").unwrap();
        fs::create_dir(folder.join("dir")).unwrap();
        symlink("file", folder.join("link")).unwrap();
        symlink("dir", folder.join("dirlink")).unwrap();
        symlink("missing", folder.join("dangling")).unwrap();
        symlink("loop", folder.join("loop")).unwrap();
        let _socket = UnixListener::bind(folder.join("socket")).unwrap();

        let mut is_hidden = |name: &[u8], found: Found<'_>| {
            name == b"secret" || name == b"large" && found.is_some_and(|(meta, _)| meta.len() > 1)
        };
        let mut reader = Reader::open(&folder, &Links::default()).unwrap();
        let mut entries = reader.advance(usize::MAX, &mut is_hidden).unwrap().unwrap();
        assert!(reader.advance(1, &mut is_hidden).unwrap().is_none());
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let found: Vec<(&[u8], bool)> =
            entries.iter().map(|entry| (entry.name.as_slice(), entry.is_dir)).collect();
        let expected: [(&[u8], bool); 5] = [
            (b"dir", true),
            (b"dirlink", true),
            (b"file", false),
            (b"link", false),
            (b"\xff\n", false),
        ];
        assert_eq!(found, expected);
        let sizes: Vec<u64> = entries[2..].iter().map(|entry| entry.size).collect();
        assert_eq!(sizes, [5, 5, 1]);
        assert!(entries.iter().all(|entry| entry.modified > 1_500_000_000));

        let mut reader = Reader::open(&folder, &Links::default()).unwrap();
        let mut portions = Vec::new();
        while let Some(portion) = reader.advance(2, &mut |_, _| false).unwrap() {
            assert!(portion.len() <= 2);
            portions.push(portion);
        }
        assert_eq!((portions.len(), portions.concat().len()), (5, 7));
        fs::remove_dir_all(&folder).unwrap();
        assert!(Reader::open(&folder, &Links::default()).is_err());
    }
}
