//! Who may import whom. The order of the rooms below is the map of the house: a file imports from its own room
//! and from rooms that stand below it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The rooms of `src`, from the roof to the ground. Those of a line do not know each other.
const FLOORS: &[&[&str]] = &[
    &["bin"],
    &["ffi"],
    &["server"],
    &["connection"],
    &["answer"],
    &["site"],
    &["exchange"],
    &["dav"],
    &["files", "shared"],
    &["cgi", "auth", "websocket", "tls"],
    &["options", "clock"],
    &["http", "log"],
    &["helpers"],
    &["routes", "timers", "acl", "pattern", "listening", "long_files"],
    &["abi", "pages", "peer", "test_folder"],
];

/// The one circle that stays: two halves of one thing.
const HALVES: [&str; 2] = ["shared::slots", "shared::hub"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The module that a file is, as `["dav", "tree"]`.
fn module_of(path: &Path) -> Vec<String> {
    let inside = path.strip_prefix(source()).expect("a file of src").with_extension("");
    let mut parts: Vec<String> =
        inside.iter().map(|part| part.to_str().expect("text").to_owned()).collect();
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    parts
}

/// What the lines of a file import, comments and tests aside: paths that begin with `crate`.
fn imports_of(path: &Path, module: &[String]) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).expect("a file");
    let text = text.split("#[cfg(test)]\nmod tests").next().expect("a part");
    let is_folder = path
        .file_name()
        .is_some_and(|name| name == "mod.rs" || name == "lib.rs" || name == "main.rs");
    let above = if is_folder { module } else { &module[..module.len().saturating_sub(1)] };
    let mut found = Vec::new();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.flat_map(|line| [line, "\n"]).collect();
    // The program is a crate of its own, and the library is `mongoose` to it.
    let is_program = module.first().is_some_and(|room| room == "bin");
    let own = if is_program { &module[..module.len().min(2)] } else { &[] };
    let library = if is_program { "mongoose::" } else { "crate::" };
    let starts = [("crate::", own), (library, &[][..]), ("super::", above), ("self::", module)];
    for (start, base) in starts {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            for names in names_at(&code[at + start.len()..]) {
                found.push([base, &names].concat());
            }
        }
    }
    found
}

/// The paths that begin here: `a::b`, `a::{b, c::d}`, `{a::b, c}`.
fn names_at(code: &str) -> Vec<Vec<String>> {
    let Some(list) = code.strip_prefix('{') else {
        let end = code.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(code.len());
        let (name, rest) = code.split_at(end);
        let rest = rest.strip_prefix("::").filter(|_| !name.is_empty());
        return match rest.map(names_at).filter(|next| !next.is_empty()) {
            Some(next) => {
                next.into_iter().map(|next| [vec![name.to_owned()], next].concat()).collect()
            }
            None if name.is_empty() => Vec::new(),
            None => vec![vec![name.to_owned()]],
        };
    };
    let mut depth = 0;
    let mut found = Vec::new();
    let mut begin = 0;
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                let item = list[begin..at].trim();
                if !item.is_empty() && item != "self" {
                    found.extend(names_at(item));
                }
                begin = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found
}

fn floor_of(room: &str) -> usize {
    let place = FLOORS.iter().position(|floor| floor.contains(&room));
    place.unwrap_or_else(|| panic!("src/{room} has no floor in tests/layers.rs"))
}

#[test]
fn imports_run_downwards_from_room_to_room() {
    let mut files = Vec::new();
    files_below(&source(), &mut files);
    let mut wrong = Vec::new();
    for path in &files {
        let module = module_of(path);
        let Some(room) = module.first() else { continue };
        for import in imports_of(path, &module) {
            let Some(other) = import.first().filter(|other| *other != room) else { continue };
            if floor_of(other) <= floor_of(room) {
                wrong.push(format!("{} imports from {other}", module.join("::")));
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "upwards, or to a room beside:\n{}", wrong.join("\n"));
}

#[test]
fn no_files_of_a_room_import_each_other_in_a_circle() {
    let mut files = Vec::new();
    files_below(&source(), &mut files);
    let modules: BTreeSet<Vec<String>> = files.iter().map(|path| module_of(path)).collect();
    let mut graph: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for path in &files {
        let module = module_of(path);
        let is_half = |module: &[String]| HALVES.contains(&module.join("::").as_str());
        for import in imports_of(path, &module) {
            // The file that holds what is imported: the longest path that is one. A part may name its
            // own `mod.rs`, and that names its parts.
            let file = (1..=import.len())
                .rev()
                .map(|len| &import[..len])
                .find(|part| modules.contains(*part));
            let Some(file) = file.filter(|file| *file != module) else { continue };
            if is_half(&module) && is_half(file) {
                continue;
            }
            if file.len() > 1 && !module.starts_with(file) && !file.starts_with(&module) {
                graph.entry(module.clone()).or_default().insert(file.to_vec());
            }
        }
    }
    // A file that imports none of those that are left, or is imported by none, is no part of a circle.
    loop {
        let left: Vec<_> = graph.keys().cloned().collect();
        let imported: BTreeSet<_> = graph.values().flatten().cloned().collect();
        let before = graph.len();
        graph.retain(|module, imports| {
            imported.contains(module) && imports.iter().any(|import| left.contains(import))
        });
        if graph.len() == before {
            break;
        }
    }
    let left: Vec<String> = graph.keys().map(|module| module.join("::")).collect();
    assert!(left.is_empty(), "in circles:\n{}", left.join("\n"));
}
