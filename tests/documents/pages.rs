//! The pages of the repository that are written in Markdown.

use std::fs;
use std::path::{Path, PathBuf};

/// All pages in Markdown.
pub fn all(root: &Path) -> Vec<PathBuf> {
    below(root, ".md")
}

/// The files whose names end so, but what is built or belongs to others.
pub fn below(root: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", "build", "results", "node_modules", ".git"].contains(&name.as_str())
                {
                    open.push(path);
                }
            } else if name.ends_with(end) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
