//! A file system that fails for a moment under WebDAV: each call of a request fails once, at some
//! time. The answer says so, and what was there is whole, or what was asked for is.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::{Dav, LOCK, Scratch, calls_cannot_fail, failures};

/// The calls that fail, all that look at or change a file.
const CALLS: &str = "?statx,?newfstatat,?stat,?lstat,?openat,?open,?openat2,?readlink,?readlinkat,\
    ?getdents64,?read,?pread64,?write,?pwrite64,?copy_file_range,?sendfile,?rename,?renameat,\
    ?renameat2,?link,?linkat,?unlink,?unlinkat,?rmdir,?mkdir,?mkdirat,?ftruncate,?utimensat";
/// A call fails after each this many, which no request makes; a prime, so that the failures move
/// through the calls of equal requests.
const STEP: usize = 211;
/// The number of calls that fail.
const FAULTS: usize = 40;

/// A request, what it does to the files, and the status of its success.
struct Case {
    method: &'static str,
    path: &'static str,
    fields: &'static str,
    body: &'static str,
    done: u16,
    /// The paths that its answer has to tell of.
    told: &'static [&'static str],
    /// Puts something where it is asked for.
    change: fn(&mut Tree),
}

/// The content of files by their paths below the root; a directory has none.
type Tree = BTreeMap<String, Option<String>>;

fn files() -> Tree {
    let dirs = ["d", "d/from", "d/from/deep", "d/to"];
    let files = ["d/a", "d/b", "d/from/x", "d/from/deep/y", "d/to/old"];
    let dirs = dirs.iter().map(|name| ((*name).to_owned(), None));
    dirs.chain(files.iter().map(|name| ((*name).to_owned(), Some(format!("of {name}"))))).collect()
}

fn read(dir: &Path, prefix: &str, tree: &mut Tree) {
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_name() == ".mongoose-dav" {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            tree.insert(name.clone(), None);
            read(&path, &format!("{name}/"), tree);
        } else {
            tree.insert(name, Some(std::fs::read_to_string(path).expect("a text")));
        }
    }
}

fn reset(root: &Path, tree: &Tree) {
    let _ = std::fs::remove_dir_all(root.join("d"));
    for (name, content) in tree {
        match content {
            None => std::fs::create_dir_all(root.join(name)).expect("a folder"),
            Some(content) => std::fs::write(root.join(name), content).expect("a file"),
        }
    }
}

/// Moves or copies what is below `from`.
fn transfer(tree: &mut Tree, from: &str, to: &str, moves: bool) {
    let is_in = |name: &str, dir: &str| name == dir || name.starts_with(&format!("{dir}/"));
    tree.retain(|name, _| !is_in(name, to));
    let found: Vec<_> = tree.iter().filter(|(name, _)| is_in(name, from)).collect();
    let found: Vec<_> =
        found.iter().map(|(name, text)| (name.replacen(from, to, 1), (*text).clone())).collect();
    if moves {
        tree.retain(|name, _| !is_in(name, from));
    }
    tree.extend(found);
}

/// Makes each call of the request fail at some time, with `error`.
#[track_caller]
fn each_call_fails_once(case: &Case, error: &str) {
    if calls_cannot_fail() {
        return;
    }
    let scratch = Scratch::new();
    let root = scratch.join("root");
    let names = ["d", "d/a", "d/b", "d/new", "d/from", "d/from/x", "d/from/deep", "d/from/deep/y"];
    let names = names.iter().chain(&["d/to", "d/to/old", "d/.mongoose-dav", "d/to/.mongoose-dav"]);
    let mut faults: Vec<String> =
        names.flat_map(|name| ["-P".to_owned(), format!("{root}/{name}")]).collect();
    faults.extend(["-e".to_owned(), "trace=all".to_owned(), "-e".to_owned()]);
    faults.push(format!("inject={CALLS}:error={error}:when={STEP}+{STEP}"));
    let log = format!("error_log_file={}", scratch.join("errors"));
    scratch.write("errors", "");
    let before = files();
    let mut after = before.clone();
    (case.change)(&mut after);
    let dav = Dav::start_failing(scratch, &faults, &[&log, "dav_depth_infinity=yes"]);
    let root = Path::new(&root);
    let what = format!("{} {} {error}", case.method, case.path);
    let (mut failed, mut silent) = (0, 0);
    // Each round makes some tens of calls.
    for round in 0..FAULTS * 12 {
        reset(root, &before);
        let answer = dav.ask(case.method, case.path, case.fields, case.body);
        let text = answer.text();
        let mut tree = Tree::new();
        read(root, "", &mut tree);
        let is_failure =
            answer.status >= 500 || answer.status == 207 && text.contains("HTTP/1.1 5");
        let what = format!("{what}, round {round}: {}\n{text}\n{tree:?}", answer.status);
        let is_old = |name: &String| !before.contains_key(name) && !after.contains_key(name);
        tree.retain(|name, _| !name.contains(".mongoose-dav") || !is_old(name));
        if is_failure {
            failed += 1;
            assert!(tree == before || tree == after, "{what}");
        } else {
            assert_eq!(answer.status, case.done, "{what}");
            assert_eq!(tree, after, "{what}");
            let is_told = |name: &str| text.contains(&format!("<D:href>/{name}"));
            assert!(case.told.iter().all(|name| is_told(name)), "{what}");
            silent += 1;
        }
        if failed >= FAULTS {
            break;
        }
    }
    assert!(failed > 2 && silent > 2, "{what}: {failed} failed, {silent} did not");
    let Dav { scratch, server, .. } = dav;
    server.stop();
    let log = scratch.read("errors");
    let (_, logged) = failures(&log, " failed: ");
    assert!(logged >= failed, "{what}: {failed} failed\n{log}");
}

/// Tests of a request, with each of these errors.
macro_rules! requests {
    ($($test:ident: $method:literal $path:literal $fields:literal $body:expr, $done:literal,
       $told:expr, $change:expr;)+) => {
        $(#[test]
        fn $test() {
            needs!("strace");
            let case = Case {
                method: $method, path: $path, fields: $fields, body: $body, done: $done,
                told: &$told,
                change: $change,
            };
            for error in ["EIO", "ENOMEM"] {
                each_call_fails_once(&case, error);
            }
        })+
    };
}

const SET: &str = "<D:propertyupdate xmlns:D='DAV:' xmlns:Z='z:'><D:set><D:prop><Z:a>1</Z:a></D:prop>\
    </D:set></D:propertyupdate>";

requests! {
    a_list_of_properties: "PROPFIND" "/d" "Depth: infinity\r\n" "", 207,
        ["d/a", "d/b", "d/from/x", "d/from/deep/y", "d/to/old"], |_| {};
    a_list_of_properties_of_members: "PROPFIND" "/d/from/" "Depth: 1\r\n" "", 207,
        ["d/from/", "d/from/x", "d/from/deep/"], |_| {};
    properties_of_a_file: "PROPFIND" "/d/a" "Depth: 0\r\n" "", 207, ["d/a"], |_| {};
    a_change_of_properties: "PROPPATCH" "/d/a" "" SET, 207, [], |_| {};
    an_upload: "PUT" "/d/new" "" "fresh", 201, [], |tree| {
        tree.insert("d/new".to_owned(), Some("fresh".to_owned()));
    };
    an_upload_over_a_file: "PUT" "/d/a" "" "fresh", 204, [], |tree| {
        tree.insert("d/a".to_owned(), Some("fresh".to_owned()));
    };
    an_upload_behind_a_file: "PUT" "/d/a" "Content-Range: bytes 6-7/8\r\n" "er", 204, [], |tree| {
        tree.insert("d/a".to_owned(), Some("of d/aer".to_owned()));
    };
    a_new_folder: "MKCOL" "/d/new" "" "", 201, [], |tree| {
        tree.insert("d/new".to_owned(), None);
    };
    a_lock_on_a_new_file: "LOCK" "/d/new" "" LOCK, 201, [], |tree| {
        tree.insert("d/new".to_owned(), Some(String::new()));
    };
    a_lock_on_a_folder: "LOCK" "/d/from" "" LOCK, 200, [], |_| {};
    a_removal_of_a_file: "DELETE" "/d/a" "" "", 204, [], |tree| {
        tree.remove("d/a");
    };
    a_removal_of_a_folder: "DELETE" "/d/from" "" "", 204, [], |tree| {
        tree.retain(|name, _| !name.starts_with("d/from"));
    };
    a_copy_of_a_file: "COPY" "/d/a" "Destination: /d/b\r\n" "", 204, [], |tree| {
        transfer(tree, "d/a", "d/b", false);
    };
    a_copy_of_a_folder: "COPY" "/d/from" "Destination: /d/to\r\n" "", 204, [], |tree| {
        transfer(tree, "d/from", "d/to", false);
    };
    a_move_of_a_file: "MOVE" "/d/a" "Destination: /d/b\r\n" "", 204, [], |tree| {
        transfer(tree, "d/a", "d/b", true);
    };
    a_move_of_a_folder: "MOVE" "/d/from" "Destination: /d/to\r\n" "", 204, [], |tree| {
        transfer(tree, "d/from", "d/to", true);
    };
}
