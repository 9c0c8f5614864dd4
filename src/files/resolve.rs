//! From the path of a request to the path of a file: `document_root`, `url_rewrites`, hidden names,
//! and the password file that guards a file.
//!
//! Works on names alone; only [`split_at_file`] asks the file system. Knows nothing of passwords,
//! nor of how paths are percent-encoded.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use crate::options::Config;
use crate::pattern::matched_len;

/// The start of the names of password files. A copy that an interrupted change has left behind has
/// it, too.
pub const PASSWORD_FILE: &str = ".htpasswd";

/// The start of the names under which WebDAV stores properties, locks, and files that are not
/// complete.
const DAV_STATE: &[u8] = b".mongoose-dav";

/// Returns the file that `path` stands for, which is decoded and begins with `/`, or `None` if it
/// stands for no file. A trailing slash is kept.
pub fn full_path(config: &Config, path: &[u8]) -> Option<PathBuf> {
    let root = config.document_root.as_ref()?;
    if path.first() != Some(&b'/') {
        return None;
    }
    let full = match rewrite(config, path) {
        Some((target, rest)) => {
            if makes_dot_segment(target, rest) {
                return None;
            }
            [target, rest].concat()
        }
        None => [root.as_os_str().as_bytes(), path].concat(),
    };
    Some(PathBuf::from(OsString::from_vec(full)))
}

/// Returns whether a pattern matches a file by its path in the file system, or by its path `name`
/// that clients use.
pub fn matches(pattern: &str, full: &Path, name: &[u8]) -> bool {
    covers(pattern.as_bytes(), full.as_os_str().as_bytes()) || covers(pattern.as_bytes(), name)
}

/// Returns whether a pattern matches a part of `text` that is not empty. Each request for a file
/// compares patterns such as `**.cgi$|**.php$`, for which a comparison with the end of the text is
/// enough.
fn covers(pattern: &[u8], text: &[u8]) -> bool {
    let matched = pattern.split(|byte| *byte == b'|').find_map(|alternative| {
        let ending = alternative.strip_prefix(b"**").and_then(|rest| rest.strip_suffix(b"$"));
        match ending.filter(|ending| !ending.iter().any(|byte| b"*?$".contains(byte))) {
            Some(ending) => {
                let start = text.len().checked_sub(ending.len())?;
                text[start..].eq_ignore_ascii_case(ending).then_some(text.len())
            }
            None => matched_len(alternative, text),
        }
    });
    matched.is_some_and(|len| len > 0)
}

/// Splits a path that leads through a file: returns the file, and the rest, which begins with `/`.
pub fn split_at_file(full: &Path) -> Option<(PathBuf, Vec<u8>)> {
    let bytes = full.as_os_str().as_bytes();
    for slash in memchr::memchr_iter(b'/', bytes).filter(|slash| *slash > 0) {
        let place = Path::new(OsStr::from_bytes(&bytes[..slash]));
        match std::fs::metadata(place) {
            Ok(meta) if meta.is_dir() => {}
            Ok(meta) if meta.is_file() => {
                return Some((place.to_owned(), bytes[slash..].to_vec()));
            }
            _ => return None,
        }
    }
    None
}

/// Finds the first rewrite that matches. Returns the replacement for the start of `path`, and the
/// rest of `path`. A pattern that matches no bytes, as an empty one, replaces nothing.
fn rewrite<'a>(config: &'a Config, path: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    config.url_rewrites.iter().find_map(|(pattern, target)| {
        let len = matched_len(pattern.as_bytes(), path).filter(|len| *len > 0)?;
        Some((target.as_bytes(), path.get(len..)?))
    })
}

/// Returns whether joining a rewrite to the rest of a path makes a segment `.` or `..` with bytes
/// that the client chose. Decoding has removed such segments, but a pattern may end within one:
/// `/a=/srv/data/` would lead `/a../x` out of `/srv/data`.
fn makes_dot_segment(target: &[u8], rest: &[u8]) -> bool {
    let before = match memchr::memrchr(b'/', target) {
        Some(slash) => &target[slash + 1..],
        None => target,
    };
    let behind = match memchr::memchr(b'/', rest) {
        Some(slash) => &rest[..slash],
        None => rest,
    };
    !behind.is_empty() && matches!([before, behind].concat().as_slice(), b"." | b"..")
}

/// Returns whether a file counts as absent because of its name. Password files always do, and so do
/// the files of WebDAV. Files that options name are known to [`super::secrets`].
pub fn is_hidden(config: &Config, full: &Path) -> bool {
    let bytes = full.as_os_str().as_bytes();
    let name = last_segment(bytes);
    let start = name.get(..PASSWORD_FILE.len()).unwrap_or_default();
    if start.eq_ignore_ascii_case(PASSWORD_FILE.as_bytes()) || is_dav_state(bytes) {
        return true;
    }
    config.hide_files_patterns.as_ref().is_some_and(|pattern| {
        covers(pattern.as_bytes(), name) || covers(pattern.as_bytes(), bytes)
    })
}

/// Returns whether a client can request a file of this name: a URI with control characters is
/// refused, so there is no use in listing such a name.
pub fn can_be_asked_for(name: &[u8]) -> bool {
    !name.iter().any(u8::is_ascii_control)
}

/// Returns whether a path leads to or through a file that WebDAV stores its state in.
fn is_dav_state(path: &[u8]) -> bool {
    let begins = |name: &[u8]| {
        let start = name.get(..DAV_STATE.len()).unwrap_or_default();
        start.eq_ignore_ascii_case(DAV_STATE)
    };
    let at_start = |dot: usize| dot == 0 || path.get(dot - 1) == Some(&b'/');
    memchr::memchr_iter(b'.', path).any(|dot| at_start(dot) && begins(&path[dot..]))
}

/// Returns the last name of a path, which may have a slash behind it.
fn last_segment(path: &[u8]) -> &[u8] {
    let mut names = path.split(|b| *b == b'/').filter(|name| !name.is_empty());
    names.next_back().unwrap_or_default()
}

/// Returns the path of the password file that guards `full`: the global one, or else that in the
/// directory that `full` is or lies in.
pub fn password_file(config: &Config, full: &Path, is_dir: bool) -> PathBuf {
    if let Some(global) = &config.global_auth_file {
        return global.clone();
    }
    let bytes = full.as_os_str().as_bytes();
    let directory = match memchr::memrchr(b'/', bytes) {
        _ if is_dir => full,
        // `Path::parent` would ignore a slash at the end.
        Some(slash) => Path::new(OsStr::from_bytes(&bytes[..=slash])),
        None => Path::new(""),
    };
    directory.join(PASSWORD_FILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::uri::decode_path;

    fn config(rewrites: &[(&str, &str)]) -> Config {
        let own = |(pattern, target): &(&str, &str)| ((*pattern).to_owned(), (*target).to_owned());
        Config {
            document_root: Some("/www".into()),
            url_rewrites: rewrites.iter().map(own).collect(),
            ..Config::default()
        }
    }

    fn text(path: Option<PathBuf>) -> Option<String> {
        path.map(|path| path.into_os_string().into_string().unwrap())
    }

    #[test]
    fn a_path_is_below_the_root_unless_it_is_rewritten() {
        let rules = [
            ("/api/", "/srv/api/"),
            ("/api", "/never"),
            ("/a", "/srv/data/"),
            ("/cwd", "."),
            ("/up/", "../up/"),
            ("/dot", "/srv/."),
            ("/~*/pub", "/home/pub"),
            ("**.php$", "/srv/front.php"),
            ("*", "/nothing"),
            ("/X|/y", "/srv/xy"),
            ("/x", "/second"),
        ];
        let table = [
            ("/", Some("/www/")),
            ("/index.html", Some("/www/index.html")),
            ("/d/", Some("/www/d/")),
            ("/b/a", Some("/www/b/a")),
            ("/api/v1", Some("/srv/api/v1")),
            ("/API/v1", Some("/srv/api/v1")),
            ("/api", Some("/never")),
            ("/a", Some("/srv/data/")),
            ("/a/b", Some("/srv/data//b")),
            ("/ab", Some("/srv/data/b")),
            ("/cwd/x", Some("./x")),
            ("/up/x", Some("../up/x")),
            ("/~joe/pub/x", Some("/home/pub/x")),
            ("/b/c.php", Some("/srv/front.php")),
            ("/b/c.php/d", Some("/www/b/c.php/d")),
            ("/x1", Some("/srv/xy1")),
            ("/Y1", Some("/srv/xy1")),
            // The joined path must not leave its directory.
            ("/a../secret", None),
            ("/a..", None),
            ("/a./x", None),
            ("/a.../x", Some("/srv/data/.../x")),
            ("/cwd./secret", None),
            ("/cwd.", None),
            ("/cwd../x", Some(".../x")),
            ("/dot./secret", None),
            ("/dot/x", Some("/srv/./x")),
            // This is not a path.
            ("", None),
            ("*", None),
            ("a", None),
        ];
        for (path, expected) in table {
            let full = full_path(&config(&rules), path.as_bytes());
            assert_eq!(text(full).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn without_a_root_nothing_is_published() {
        let config = Config { document_root: None, ..config(&[("/a", "/srv")]) };
        for path in ["/", "/a", "/a/b"] {
            assert_eq!(full_path(&config, path.as_bytes()), None);
        }
    }

    #[test]
    fn a_name_keeps_its_bytes() {
        let full = full_path(&config(&[]), b"/\xff \n").unwrap();
        assert_eq!(full.as_os_str().as_bytes(), b"/www/\xff \n");
    }

    #[test]
    fn a_name_is_told_of_if_it_can_be_asked_for() {
        for byte in (1..=255).filter(|byte| *byte != b'/') {
            let path = format!("/a%{byte:02x}b");
            let is_understood = decode_path(path.as_bytes(), &mut [0; 6]).is_ok();
            assert_eq!(can_be_asked_for(&[b'a', byte, b'b']), is_understood, "{path}");
        }
    }

    #[test]
    fn password_files_and_what_the_program_says_are_hidden() {
        let table = [
            (None, "/www/.htpasswd", true),
            (None, "/www/.HtPassWd", true),
            (None, "/www/.htpasswd.0123456789abcdef", true),
            (None, "/www/.htpasswd~", true),
            (None, "/www/.htpasswd/", true),
            (None, ".htpasswd", true),
            (None, "/www/.mongoose-dav", true),
            (None, "/www/.Mongoose-DAV.0123", true),
            (None, "/www/.mongoose-dav.0123/a/b", true),
            (None, ".mongoose-dav", true),
            (None, "/www/x.mongoose-dav", false),
            (None, "/www/.mongoose", false),
            (None, "/www/htpasswd", false),
            (None, "/www/.htpasswor", false),
            (None, "/www/x.htpasswd", false),
            (None, "/www/", false),
            (None, "/", false),
            (None, "", false),
            // The pattern matches the start of the file name.
            (Some("secret"), "/www/secret", true),
            (Some("secret"), "/www/SECRET.txt", true),
            (Some("secret"), "/www/secret/", true),
            (Some("secret"), "/www/my.secret", false),
            (Some("secret$"), "/www/secret.txt", false),
            (Some("**.bak$|**~$"), "/www/a.bak", true),
            (Some("**.bak$|**~$"), "/www/a~", true),
            (Some("**.bak$|**~$"), "/www/a.bak.txt", false),
            (Some(".*"), "/www/.git", true),
            (Some(".*"), "/www/a.git", false),
            // The pattern matches the whole path.
            (Some("**/.git/**"), "/www/.git/config", true),
            (Some("/www/private/"), "/www/private/x", true),
            (Some("/www/private/"), "/www/public/x", false),
            // A pattern that matches no bytes hides no file.
            (Some("*"), "/www/a", true),
            (Some("*"), "/", false),
            (Some("|x"), "/www/a", false),
        ];
        for (pattern, full, expected) in table {
            let config = Config { hide_files_patterns: pattern.map(str::to_owned), ..config(&[]) };
            assert_eq!(is_hidden(&config, Path::new(full)), expected, "{pattern:?} {full}");
        }
    }

    #[test]
    fn the_short_way_of_matching_an_ending_leads_where_the_long_one_does() {
        let patterns = [
            "**.cgi$|**.PL$|**.php$",
            "**.cgi",
            "**$",
            "$",
            "",
            "|**.cgi$",
            "**.cgi$|",
            "*.cgi$",
            "**.c?i$",
            "**a*b$",
            "**.cgi$$",
            "/a/**.cgi$",
            "***.cgi$",
            "**",
            "x|**.cgi$",
        ];
        let texts =
            ["", ".cgi", "/a/x.cgi", "/a/x.CGI", "/a/x.cgi/", "x.pl", "cgi", "ab", "\u{e9}.cgi"];
        for pattern in patterns {
            for text in texts {
                let long = matched_len(pattern.as_bytes(), text.as_bytes());
                let short = covers(pattern.as_bytes(), text.as_bytes());
                assert_eq!(short, long.is_some_and(|len| len > 0), "{pattern:?} {text:?}");
            }
        }
    }

    #[test]
    fn a_path_through_a_file_is_taken_apart_there() {
        let folder = std::env::temp_dir().join(format!("resolve-test-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("d")).unwrap();
        std::fs::write(folder.join("d/x.cgi"), "").unwrap();
        let split = |rest: &str| {
            let (file, rest) = split_at_file(Path::new(&format!("{}{rest}", folder.display())))?;
            let name = file.strip_prefix(&folder).unwrap().display().to_string();
            Some((name, String::from_utf8(rest).unwrap()))
        };
        let table = [
            ("/d/x.cgi/a/b", Some(("d/x.cgi", "/a/b"))),
            ("/d/x.cgi/", Some(("d/x.cgi", "/"))),
            ("/d//x.cgi//a", Some(("d//x.cgi", "//a"))),
            ("/d/x.cgi", None),
            ("/d/", None),
            ("/d/none/x.cgi/a", None),
        ];
        for (path, wanted) in table {
            let wanted = wanted.map(|(file, rest)| (file.to_owned(), rest.to_owned()));
            assert_eq!(split(path), wanted, "{path}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_password_file_lies_beside_what_it_guards() {
        let table = [
            ("/www/a", false, "/www/.htpasswd"),
            ("/www/d", true, "/www/d/.htpasswd"),
            ("/www/d/", true, "/www/d/.htpasswd"),
            ("/www/d/missing", false, "/www/d/.htpasswd"),
            ("/www/d/missing/", false, "/www/d/missing/.htpasswd"),
            ("a", false, ".htpasswd"),
            ("./a", false, "./.htpasswd"),
            ("/", true, "/.htpasswd"),
        ];
        for (full, is_dir, expected) in table {
            let found = password_file(&config(&[]), Path::new(full), is_dir);
            assert_eq!(found.to_str(), Some(expected), "{full}");
            let global = Config { global_auth_file: Some("/etc/users".into()), ..config(&[]) };
            let found = password_file(&global, Path::new(full), is_dir);
            assert_eq!(found.to_str(), Some("/etc/users"));
        }
    }
}
