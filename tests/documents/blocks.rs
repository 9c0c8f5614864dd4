//! The code blocks in the pages of the repository, and the rule above each of them.
//!
//! A rule is a comment of HTML on the line above the block, which readers do not see:
//!
//! - `test: c program`: a whole program; it compiles without a warning.
//! - `test: c functions`: what stands outside of functions.
//! - `test: c statements`: what stands in a function, with the variables of `wrapped` below.
//! - `test: c functions, then statements`: both; the statements begin behind the last `}` at the start of a line.
//! - `test: sh run`: is run in an empty folder beside an installed library. `with FILE …` puts files there.
//! - `test: sh serves`: is run until it answers, and then ended.
//! - `test: sh parsed: REASON`: cannot be run here. Its words are read by the shell, and what it names in this
//!   repository has to be there: programs, and targets of make.
//! - `test: make`, `test: cmake`: build `app.c` from it.
//! - `test: haproxy`, `test: nginx`: the program takes it as its settings.
//! - `test: part of FILE`: stands so in that file, which has tests of its own.
//! - `test: no code: REASON`.

use std::path::{Path, PathBuf};

/// A block, where it stands, and what its rule says.
#[derive(Clone, Debug)]
pub struct Block {
    pub page: PathBuf,
    pub line: usize,
    pub text: String,
    pub rule: Option<String>,
}

impl Block {
    /// Where it stands, for people.
    pub fn place(&self) -> String {
        format!("{}:{}", self.page.display(), self.line)
    }

    /// What the rule says behind `start`, if it begins so.
    pub fn rule_behind(&self, start: &str) -> Option<&str> {
        let rest = self.rule.as_deref()?.strip_prefix(start)?;
        (rest.is_empty() || rest.starts_with([' ', ':', ','])).then(|| rest.trim())
    }
}

/// All blocks of a page: what stands between fences, and what is indented by four below a blank line.
pub fn of(page: &Path, text: &str) -> Vec<Block> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let indent = line.len() - line.trim_start().len();
        let is_fence = line.trim_start().starts_with("```");
        let is_indented = indent >= 4 && !line.trim().is_empty() && is_code(&lines, at, indent);
        if !is_fence && !is_indented {
            at += 1;
            continue;
        }
        let start = at;
        if is_fence {
            at += 1;
            while at < lines.len() && !lines[at].trim_start().starts_with("```") {
                at += 1;
            }
        } else {
            while at < lines.len() && (lines[at].starts_with("    ") || lines[at].is_empty()) {
                at += 1;
            }
        }
        let body = if is_fence { &lines[start + 1..at] } else { &lines[start..at] };
        let cut = |line: &&str| line.get(indent..).unwrap_or_default().to_owned() + "\n";
        let text: String = body.iter().map(cut).collect();
        let text = text.trim_end().to_owned() + "\n";
        let rule = rule_above(&lines[..start]);
        found.push(Block { page: page.to_owned(), line: start + 1, text, rule });
        at += usize::from(is_fence);
    }
    found
}

/// Whether an indented line begins code. In an item of a list its text is indented, too, by at most three; what is
/// below it by seven is code.
fn is_code(lines: &[&str], at: usize, indent: usize) -> bool {
    let above = at.checked_sub(1).map(|above| lines[above].trim());
    let stands_alone = above.is_none_or(|above| above.is_empty() || above.starts_with("<!--"));
    stands_alone && (indent == 4 || indent >= 7)
}

fn rule_above(lines: &[&str]) -> Option<String> {
    let mut above = lines.iter().rev().map(|line| line.trim());
    let mut line = above.next()?;
    if line.is_empty() {
        line = above.next()?;
    }
    Some(line.strip_prefix("<!-- test: ")?.strip_suffix(" -->")?.to_owned())
}

/// A file of C around a block, or nothing for a rule that is none of C.
pub fn as_c(block: &Block) -> Option<String> {
    let text = &block.text;
    let (outside, inside) = match block.rule.as_deref()? {
        "c program" => return Some(text.clone()),
        "c functions" => (text.as_str(), ""),
        "c statements" => ("", text.as_str()),
        "c functions, then statements" => text.split_at(text.rfind("\n}\n")? + 3),
        _ => return None,
    };
    Some(format!("{HEADERS}\n{outside}\n{WRAPPED} {{\n{inside}\n}}\n"))
}

const HEADERS: &str = "\
#define _GNU_SOURCE
#include <mongoose.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>";

/// What statements may use.
const WRAPPED: &str = "\
void wrapped(struct mg_server *server, struct mg_server *first, struct mg_server *second, \
struct mg_server *servers[2], struct mg_connection *conn, const char *pem_text);
void wrapped(struct mg_server *server, struct mg_server *first, struct mg_server *second, \
struct mg_server *servers[2], struct mg_connection *conn, const char *pem_text)";

#[test]
fn blocks_are_found_with_their_rules() {
    let text = "# A\n\n    one\n    two\n\ntext\n\n<!-- test: c program -->\n```c\nint a;\n```\n- item\n  text\n\n\
                <!-- test: sh run -->\n\n    x\n";
    let found = of(Path::new("p"), text);
    let seen: Vec<_> = found.iter().map(|b| (b.line, b.text.as_str(), b.rule.as_deref())).collect();
    let wanted =
        [(3, "one\ntwo\n", None), (9, "int a;\n", Some("c program")), (17, "x\n", Some("sh run"))];
    assert_eq!(seen, wanted);
}
