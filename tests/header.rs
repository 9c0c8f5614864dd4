//! The C header is what the Rust sources say. `UPDATE_HEADER=1` writes it anew.

use std::path::{Path, PathBuf};

/// The rooms of the interface, in the order in which a C programmer meets them.
const ROOMS: [&str; 5] = ["abi", "ffi/server", "ffi/connection", "ffi/variadic", "ffi/utility"];

/// What compilers are to check of calls, by macros of the header: cbindgen writes nothing behind the
/// prototypes of functions that it finds in an `extern` block.
const CHECKED: [(&str, &str); 3] = [
    ("mg_printf", "MONGOOSE_PRINTF"),
    ("mg_printf_data", "MONGOOSE_PRINTF"),
    ("mg_md5", "MONGOOSE_SENTINEL"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn from_the_sources() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml");
    let mut builder = cbindgen::Builder::new().with_config(config);
    for room in ROOMS {
        builder = builder.with_src(root().join(format!("src/{room}.rs")));
    }
    let mut header = Vec::new();
    builder.generate().expect("src/ffi is read by cbindgen").write(&mut header);
    for_compilers(for_people(&String::from_utf8(header).expect("text")))
}

fn for_compilers(header: String) -> String {
    let mut checks = CHECKED.iter();
    let mut text = String::new();
    for line in header.lines() {
        match line.strip_suffix("...);").and_then(|start| start.strip_prefix("extern ")) {
            Some(prototype) => {
                let (function, check) = checks.next().expect("as many checks as prototypes");
                assert!(prototype.contains(&format!("{function}(")), "{line}");
                text.push_str(&format!("{prototype}...) {check};\n"));
            }
            None => text.extend([line, "\n"]),
        }
    }
    assert!(checks.next().is_none(), "a prototype is not in the header");
    text
}

/// A comment of one line on one line, and without the sections that speak to Rust programmers.
fn for_people(header: &str) -> String {
    let mut text = String::new();
    let mut lines = header.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "/**" {
            text.extend([line, "\n"]);
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let comment: Vec<&str> = lines
            .by_ref()
            .map(str::trim)
            .take_while(|line| *line != "*/")
            .map(|line| line.trim_start_matches('*').trim())
            .collect();
        let end = comment.iter().position(|line| line.starts_with("# Safety"));
        let mut comment = &comment[..end.unwrap_or(comment.len())];
        while let Some((&"", rest)) = comment.split_last() {
            comment = rest;
        }
        match comment {
            [] => {}
            [only] => text.push_str(&format!("{indent}/** {only} */\n")),
            several => {
                text.push_str(&format!("{indent}/**\n"));
                for line in several {
                    text.push_str(format!("{indent} * {line}").trim_end());
                    text.push('\n');
                }
                text.push_str(&format!("{indent} */\n"));
            }
        }
    }
    text
}

#[test]
fn the_header_is_what_the_sources_say() {
    let path = root().join("include/mongoose.h");
    let wanted = from_the_sources();
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("include/");
        std::fs::write(&path, &wanted).expect("include/mongoose.h");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "{} differs from the sources; `make header` writes it anew. First difference:\n{}",
        Path::new("include/mongoose.h").display(),
        first_difference(&found, &wanted)
    );
}

fn first_difference(found: &str, wanted: &str) -> String {
    let mut lines = found.lines().zip(wanted.lines()).enumerate();
    match lines.find(|(_, (found, wanted))| found != wanted) {
        Some((index, (found, wanted))) => {
            format!("line {}\n- {found}\n+ {wanted}", index + 1)
        }
        None => "the end".to_owned(),
    }
}
