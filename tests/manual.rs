//! The manual, which `make docs` writes: that it is what its sources say, and that it can be read.

#[macro_use]
#[path = "c_boundary/support/needs.rs"]
mod needs;
#[path = "documents/links.rs"]
mod links;
#[path = "documents/pages.rs"]
mod pages;

use needs::{lacks, outside};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The man pages and the HTML file below a folder, each with its text.
fn manual_below(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for part in ["man", "docs/manual"] {
        for entry in fs::read_dir(folder.join(part)).expect("a folder of the manual") {
            let path = entry.expect("a page").path();
            let name = path.strip_prefix(folder).expect("below it").display().to_string();
            found.insert(name, read(&path));
        }
    }
    found
}

fn man_pages() -> Vec<PathBuf> {
    let pages = fs::read_dir(root().join("man")).expect("man/");
    pages.map(|entry| entry.expect("a page").path()).collect()
}

/// Runs a command that has to succeed without a word.
fn silent(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    if output.status.success() && told.trim().is_empty() {
        return Ok(());
    }
    Err(format!("{command:?}: {}\n{told}", output.status))
}

#[test]
fn the_manual_is_what_its_sources_say() {
    needs!("python3");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("manual");
    let _ = fs::remove_dir_all(&folder);
    silent(outside("python3").arg(root().join("docs/generate")).arg("--into").arg(&folder))
        .expect("the generator");
    let (found, wanted) = (manual_below(&root()), manual_below(&folder));
    let names = |of: &BTreeMap<String, String>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&wanted), "`make docs` writes them anew");
    for (name, text) in &wanted {
        let first = found[name].lines().zip(text.lines()).find(|(found, wanted)| found != wanted);
        assert!(
            found[name] == *text,
            "{name} is older than its sources: `make docs` writes it anew. First difference:\n{first:#?}"
        );
    }
}

#[test]
fn each_function_has_a_man_page_and_each_option_an_entry() {
    let header = read(&root().join("include/mongoose.h"));
    let declared = header.lines().filter(|line| !line.starts_with([' ', '#', '/']));
    let names = declared.filter_map(|line| {
        let start = &line[..line.find('(')?];
        let name = start.rsplit([' ', '*']).next()?;
        name.starts_with("mg_").then_some(name)
    });
    let names: Vec<&str> = names.collect();
    assert!(names.len() >= 26, "{names:?}");
    let html = read(&root().join("docs/manual/index.html"));
    for name in names {
        let page = read(&root().join(format!("man/{name}.3")));
        assert!(page.contains(&format!("{name}(")), "{page}");
        assert!(html.contains(&format!("<h3 id=\"{name}\">")), "{name} is not in the HTML manual");
    }
    let configuration = read(&root().join("man/mongoose.conf.5"));
    let table = read(&root().join("docs/options.md")).replace("\\|", "|");
    for (name, default) in mongoose::options::OPTIONS {
        let name = name.to_str().expect("a name");
        assert!(configuration.contains(&format!("\\fB{name}\\fR")), "{name} has no entry");
        assert!(html.contains(&format!("<dt id=\"option-{name}\">")), "{name} has no entry");
        let default = default.map(|text| format!("`{}` ", text.to_str().expect("a default")));
        let row = format!("| `{name}` | {}|", default.unwrap_or_default());
        assert!(table.contains(&row), "docs/options.md has no row {row:?}");
    }
}

#[test]
fn man_pages_are_set_without_a_warning() {
    needs!("groff");
    let faults: Vec<String> = man_pages()
        .iter()
        .filter_map(|page| {
            silent(outside("groff").args(["-man", "-ww", "-z", "-Tutf8", "-K", "utf8"]).arg(page))
                .err()
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn man_shows_its_pages_without_a_warning() {
    needs!("man", "groff");
    for page in man_pages() {
        let mut man = outside("man");
        man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"]).arg(&page);
        silent(man.env("LC_ALL", "C.UTF-8").env("MANROFFSEQ", "")).expect("man");
    }
}

#[test]
fn what_man_pages_refer_to_is_there() {
    for page in man_pages() {
        let text = read(&page);
        for (at, _) in text.match_indices("\\fR(") {
            let name = text[..at].rsplit("\\fB").next().expect("a name").replace("\\&", "");
            let section = text[at + 4..].chars().next().filter(char::is_ascii_digit);
            let Some(section) = section else { continue };
            let wanted = root().join(format!("man/{name}.{section}"));
            assert!(wanted.exists(), "{} refers to {name}({section})", page.display());
        }
    }
}

#[test]
fn the_html_manual_leads_nowhere_in_vain_and_needs_no_network() {
    let html = read(&root().join("docs/manual/index.html"));
    let ids = links::values(&html, "id");
    for (index, id) in ids.iter().enumerate() {
        assert!(!ids[..index].contains(id), "two places are called {id}");
    }
    let hrefs = links::values(&html, "href");
    assert!(hrefs.len() > 200, "{}", hrefs.len());
    for href in hrefs {
        match href.strip_prefix('#') {
            Some(id) => assert!(ids.contains(&id), "a link to #{id}, which is not there"),
            None => assert!(href.starts_with("https://"), "a link to {href}"),
        }
    }
    for needed in ["<link", "<script", "<img", "<iframe", "src=", "url(", "@import"] {
        assert!(!html.contains(needed), "the manual loads something: {needed}");
    }
    assert!(html.contains("prefers-color-scheme: dark") && html.contains("width=device-width"));
}

#[test]
fn the_pages_of_the_repository_lead_nowhere_in_vain() {
    let found = pages::all(&root());
    assert!(found.len() > 15, "{found:?}");
    let faults: Vec<String> = found.iter().flat_map(|page| links::faults(page)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
