//! What anybody may change, where clients without a password may (`uploads_by_anybody`): what a
//! listing shows, and nothing that is more than a file to the server.
//!
//! Who has a password of `dav_auth_file` is not judged here. Passwords of directories (`.htpasswd`)
//! are asked for before.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::Env;
use super::target::{Home, Target};
use crate::files::resolve;
use crate::options::Config;

/// Returns whether the client may change a target, as far as it is nobody in particular.
pub fn may_change(env: &Env<'_>, target: &Target) -> bool {
    if !env.is_anybody {
        return true;
    }
    let is_reserved = |full: &Path| is_reserved(env.config, full, &target.path);
    let dir = target.full.parent().unwrap_or(Path::new("."));
    let real = target.home.as_ref().map(Home::path);
    !target.is_link
        && is_where_it_is_listed(env.config, target)
        && !is_reserved(&target.full)
        && !real.is_some_and(|real| is_reserved(&real))
        && is_listed(env.config, dir)
}

/// Returns whether the target is an entry of the directory that its path is listed in. One that a rewrite
/// leads elsewhere is not: no listing shows it.
fn is_where_it_is_listed(config: &Config, target: &Target) -> bool {
    let path = target.path.strip_suffix(b"/").unwrap_or(&target.path);
    if path.is_empty() {
        // The root, which others protect.
        return true;
    }
    let above = memchr::memrchr(b'/', path).map_or(&b"/"[..], |at| &path[..=at]);
    let listed = resolve::full_path(config, above);
    // Components, since a slash more or less makes no difference.
    listed.as_deref().is_some_and(|listed| Some(listed) == target.full.parent())
}

/// Returns whether a directory, whose entries are `names`, holds what is not anybody's. It lies at
/// `dir`, in the tree of the target.
pub fn is_barred(
    env: &Env<'_>,
    target: &Target,
    dir: &Path,
    names: &[(OsString, fs::FileType)],
) -> bool {
    let Ok(inside) = dir.strip_prefix(&target.full) else { return env.is_anybody };
    env.is_anybody
        && names.iter().any(|(name, kind)| {
            let is_plain = kind.is_file() || kind.is_dir();
            let inside = inside.join(name);
            let path = [target.path.as_slice(), b"/", inside.as_os_str().as_bytes()].concat();
            // A link that is relative would lead elsewhere from another place.
            !is_plain || is_reserved(env.config, &target.full.join(inside), &path)
        })
}

/// Returns whether a listing of the directory is what clients see of it: they are shown neither a
/// page instead nor an error.
pub fn is_listed(config: &Config, dir: &Path) -> bool {
    let is_there = |page: &Path| {
        !resolve::is_hidden(config, page) && fs::metadata(page).is_ok_and(|meta| meta.is_file())
    };
    let is_page = |name: &String| {
        is_there(&dir.join(name))
            || config.enable_precompressed && is_there(&dir.join(format!("{name}.gz")))
    };
    config.enable_directory_listing && !config.index_files.iter().any(is_page)
}

/// Returns whether the server does more with a file than to send it, by its path in the file system
/// and its path for clients: it would run it, search it for commands, show it in place of the
/// listing, or take passwords from it.
fn is_reserved(config: &Config, full: &Path, path: &[u8]) -> bool {
    let name = full.file_name().map_or(&b""[..], OsStr::as_bytes);
    // Some file systems leave dots and blanks at the end of a name out.
    let kept =
        |text: &[u8]| text.len() - text.iter().rev().take_while(|b| b". ".contains(b)).count();
    if kept(name) < name.len() {
        let full = full.with_file_name(OsStr::from_bytes(&name[..kept(name)]));
        return is_reserved(config, &full, &path[..kept(path)]);
    }
    // A compressed page stands for one that is not there.
    let page_name = name.strip_suffix(b".gz").unwrap_or(name);
    let is_index = |page: &String| page_name.eq_ignore_ascii_case(page.as_bytes());
    let password_file = name.get(..resolve::PASSWORD_FILE.len()).unwrap_or_default();
    let patterns = [
        config.cgi_runs.then_some(&config.cgi_pattern),
        config.ssi_pattern.as_ref(),
        config.hide_files_patterns.as_ref(),
    ];
    config.index_files.iter().any(is_index)
        || password_file.eq_ignore_ascii_case(resolve::PASSWORD_FILE.as_bytes())
        || patterns.into_iter().flatten().any(|pattern| {
            resolve::matches(pattern, full, path) || resolve::matches(pattern, full, name)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_folder::Folder;

    #[test]
    fn what_is_more_than_a_file_is_not_anybodys() {
        let config = Config {
            ssi_pattern: Some("**.shtml$".to_owned()),
            hide_files_patterns: Some("secret*$|/*/private/**".to_owned()),
            cgi_pattern: "**.cgi$|**/cgi-bin/**".to_owned(),
            ..Config::default()
        };
        let table = [
            ("a.txt", false),
            ("a", false),
            ("index.htm.txt", false),
            ("a.txt.. ", false),
            ("a.cgi. .", true),
            ("index.html.", true),
            ("index.html.gz", true),
            ("cgi", false),
            ("a.cgi", true),
            ("A.CGI", true),
            ("cgi-bin/a", true),
            ("a.shtml", true),
            ("index.html", true),
            ("Index.HTML", true),
            ("d/index.php", true),
            (".htpasswd", true),
            (".HTpasswd.old", true),
            ("secret.txt", true),
            ("private/x", true),
        ];
        for (name, expected) in table {
            let path = format!("/{name}");
            let full = Path::new("/www").join(name);
            assert_eq!(is_reserved(&config, &full, path.as_bytes()), expected, "{name}");
        }
        let runs_nothing = Config { cgi_runs: false, ..config };
        assert!(!is_reserved(&runs_nothing, Path::new("/www/a.cgi"), b"/a.cgi"));
    }

    #[test]
    fn a_directory_with_a_page_is_not_listed() {
        let folder = Folder::new();
        let mut config = Config::default();
        assert!(is_listed(&config, &folder.0));
        fs::create_dir(folder.0.join("index.html")).expect("a folder");
        assert!(is_listed(&config, &folder.0));
        fs::write(folder.0.join("index.php"), "").expect("a page");
        assert!(!is_listed(&config, &folder.0));
        config.hide_files_patterns = Some("**.php$".to_owned());
        assert!(is_listed(&config, &folder.0));
        config.enable_directory_listing = false;
        assert!(!is_listed(&config, &folder.0));
    }
}
