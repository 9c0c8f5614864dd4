//! Links in the pages of the repository, and in HTML.

use std::fs;
use std::path::Path;

/// The values of an attribute in a text of HTML.
pub fn values<'a>(html: &'a str, attribute: &str) -> Vec<&'a str> {
    let start = format!(" {attribute}=\"");
    let found = html.match_indices(&start);
    found.map(|(at, _)| html[at + start.len()..].split('"').next().unwrap_or_default()).collect()
}

/// What is wrong with the links of a page: files and headings that are not there.
pub fn faults(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).expect("a page");
    let mut faults = Vec::new();
    for target in targets(&text) {
        if target.starts_with("https://") || target.starts_with("http://") {
            continue;
        }
        let (path, fragment) = target.split_once('#').unwrap_or((&target, ""));
        let file = match path {
            "" => page.to_owned(),
            _ => page.parent().expect("its folder").join(path),
        };
        if !file.exists() {
            faults.push(format!("{} links to {target}", page.display()));
        } else if !fragment.is_empty() && file.extension().is_some_and(|end| end == "md") {
            let other = fs::read_to_string(&file).expect("a page");
            if !anchors(&other).iter().any(|anchor| anchor == fragment) {
                faults.push(format!("{} links to {target}: no such heading", page.display()));
            }
        }
    }
    faults
}

/// The lines that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
            return false;
        }
        !is_code && !line.starts_with("    ")
    })
}

/// The targets of `[text](target)`.
fn targets(text: &str) -> Vec<String> {
    let text: Vec<&str> = prose(text).collect();
    let text = text.join("\n");
    let found = text.match_indices("](");
    let rest = |(at, _): (usize, &str)| text[at + 2..].split([')', ' ']).next().map(str::to_owned);
    found.filter_map(rest).collect()
}

/// The names by which forges link to headings.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let name = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(name).collect()
}
