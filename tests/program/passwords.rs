//! `--user` and `-A`: who gets in, and who sees a password.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use mongoose::auth::htpasswd::find_ha1;

use crate::scratch::Scratch;
use crate::support::{Running, command, curl, is_root, run, status};

/// A number that is no user's.
const OTHER_USER: u32 = 65_533;

fn guarded(arguments: &[&str], folder: &Scratch) -> Running {
    let here = ["--user", "joe", "--listening_port", "127.0.0.1:0"];
    Running::spawn(command(&[&here, arguments].concat()), folder, "secret\n")
}

fn codes(url: &str, options: &[&str]) -> String {
    curl(&[&["-o", "/dev/null", "-w", "%{http_code}", url][..], options].concat())
}

#[test]
fn nobody_gets_in_without_name_and_password() {
    needs!("curl");
    let folder = Scratch::new();
    folder.write("a.txt", "hello").write("sub/b.txt", "hello");
    let running = guarded(&[], &folder);
    for path in ["/", "/a.txt", "/sub/", "/sub/b.txt", "/none"] {
        let answer = running.get(path);
        assert_eq!(status(&answer), "401", "{path}");
        assert!(answer.contains("Digest") && !answer.contains("Basic"), "{answer}");
    }
    let url = format!("{}sub/b.txt", running.url);
    assert_eq!(codes(&url, &["--digest", "-u", "joe:secret"]), "200");
    assert_eq!(codes(&url, &["--digest", "-u", "joe:wrong"]), "401");
    assert_eq!(codes(&url, &["--basic", "-u", "joe:secret"]), "401");
    assert_eq!(running.errors(), "", "not asked on a terminal that is none");
}

#[test]
fn over_tls_clients_that_know_basic_alone_get_in_as_well() {
    needs!("curl");
    let folder = Scratch::new();
    folder.write("a.txt", "hello");
    let running = guarded(&["--tls", "self-signed"], &folder);
    let url = format!("{}a.txt", running.url);
    assert_eq!(codes(&url, &["-k", "--basic", "-u", "joe:secret"]), "200");
    assert_eq!(codes(&url, &["-k", "--digest", "-u", "joe:secret"]), "200");
    assert_eq!(codes(&url, &["-k", "--basic", "-u", "joe:wrong"]), "401");
}

#[test]
fn the_password_survives_a_change_of_user_and_is_shown_to_no_other_one() {
    needs!("curl");
    if !is_root() {
        return;
    }
    let folder = Scratch::new();
    folder.write("a.txt", "hello");
    for arguments in [&[][..], &["--run_as_user", "nobody"]] {
        let running = guarded(arguments, &folder);
        let url = format!("{}a.txt", running.url);
        assert_eq!(codes(&url, &["--digest", "-u", "joe:secret"]), "200", "{arguments:?}");
        // None of its descriptors leads another user to the file, nor is there a name for it.
        let descriptors = format!("/proc/{}/fd", running.child.id());
        let of_passwords =
            std::fs::read_dir(&descriptors).expect("descriptors").find_map(|entry| {
                let path = entry.expect("an entry").path();
                let target = std::fs::read_link(&path).unwrap_or_default();
                target.to_string_lossy().contains("memfd:passwords").then_some(path)
            });
        let path = of_passwords.expect("a file in memory");
        assert!(std::fs::read_to_string(&path).expect("root reads it").starts_with("joe:"));
        let mut other = Command::new("cat");
        let read = other.arg(&path).uid(OTHER_USER).gid(OTHER_USER).output().expect("cat");
        assert!(!read.status.success() && read.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_password_file_is_made_changed_and_seen_by_nobody_else() {
    let folder = Scratch::new();
    let file = folder.join("passwords");
    let has = |user: &str, password: &str| {
        let hash =
            mongoose::auth::htpasswd::md5_hex(&[format!("{user}:realm:{password}").as_bytes()]);
        let text = std::fs::read(&file).expect("the file");
        find_ha1(&text, b"realm", user.as_bytes()) == Some(hash)
    };
    let edit = |arguments: &[&str], input: &str| {
        let all = [&["-A", "passwords", "realm"], arguments].concat();
        assert_eq!(run(&all, &folder, input), (Some(0), String::new(), String::new()), "{all:?}");
    };
    edit(&["joe", "secret"], "");
    assert!(has("joe", "secret"));
    assert_eq!(std::fs::metadata(&file).expect("the file").mode() & 0o7777, 0o600);
    // Asked for where it is not given: a line of what is no terminal.
    edit(&["ann"], "pass word\r\nmore\n");
    assert!(has("ann", "pass word") && has("joe", "secret"));
    let wide = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&file, wide).expect("a mode");
    edit(&["joe", "other"], "");
    assert!(has("joe", "other") && has("ann", "pass word"));
    assert_eq!(std::fs::metadata(&file).expect("the file").mode() & 0o7777, 0o644, "as it was");
    let (status, _, errors) = run(&["-A", "none/passwords", "realm", "joe", "x"], &folder, "");
    let sentence = "mongoose: none/passwords: No such file or directory (os error 2)\n";
    assert_eq!((status, errors.as_str()), (Some(1), sentence));
}
