//! The file of `--config`: lines `NAME VALUE`, empty lines, and comments that begin with `#`.
//!
//! Refuses to know the names.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::failure::Failure;

/// The longest file, in bytes: what is longer is none.
const MAX_BYTES: u64 = 1 << 20;

/// A line of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub number: usize,
    pub name: String,
    pub value: Vec<u8>,
}

/// Reads the file.
pub fn read(path: &Path) -> Result<Vec<Line>, Failure> {
    let refuse = |why: String| Failure::usage(format!("{}: {why}", path.display()));
    let mut text = Vec::new();
    let metadata = std::fs::metadata(path).map_err(|error| refuse(error.to_string()))?;
    if metadata.is_dir() {
        return Err(refuse("it is a directory".to_owned()));
    }
    let file = File::open(path).map_err(|error| refuse(error.to_string()))?;
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut text);
    read.map_err(|error| refuse(error.to_string()))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(refuse("it is longer than 1 MiB".to_owned()));
    }
    parse(&text).map_err(|(number, why)| refuse_line(path, number, &why))
}

/// The failure for a line of the file.
pub fn refuse_line(path: &Path, number: usize, why: &str) -> Failure {
    Failure::usage(format!("{}:{number}: {why}", path.display()))
}

fn parse(text: &[u8]) -> Result<Vec<Line>, (usize, String)> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut lines: Vec<Line> = Vec::new();
    for (line, number) in text.split(|byte| *byte == b'\n').zip(1..) {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if line.contains(&0) {
            return Err((number, "there is a zero byte in this line".to_owned()));
        }
        let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
        let (name, value) = line.split_at(end);
        let (name, value) = (String::from_utf8_lossy(name).into_owned(), value.trim_ascii());
        if value.is_empty() {
            return Err((number, format!("{name} has no value")));
        }
        if let Some(first) = lines.iter().find(|line| line.name == name) {
            return Err((number, format!("{name} stands in line {}, too", first.number)));
        }
        lines.push(Line { number, name, value: value.to_vec() });
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_name_and_all_that_stands_behind_it() {
        let text = "\u{feff}# a comment\r\n\r\n  listening_port \t 80s, 81r \r\n\
            extra_headers A: b # c\ndocument_root\t/srv/a b";
        let lines = parse(text.as_bytes()).expect("lines");
        let shown = |line: &Line| {
            format!("{} {}={}", line.number, line.name, String::from_utf8_lossy(&line.value))
        };
        assert_eq!(
            lines.iter().map(shown).collect::<Vec<_>>(),
            ["3 listening_port=80s, 81r", "4 extra_headers=A: b # c", "5 document_root=/srv/a b"]
        );
        assert_eq!(parse(b"").map(|lines| lines.len()), Ok(0));
        assert_eq!(parse(b"#").map(|lines| lines.len()), Ok(0));
    }

    #[test]
    fn what_is_no_such_line_is_refused_by_its_number() {
        let table: [(&[u8], usize, &str); 4] = [
            (b"a b\nlistening_port", 2, "listening_port has no value"),
            (b"\n\nx  \t\r\n", 3, "x has no value"),
            (b"a b\n\na c", 3, "a stands in line 1, too"),
            (b"a b\0c", 1, "there is a zero byte in this line"),
        ];
        for (text, number, why) in table {
            assert_eq!(parse(text), Err((number, why.to_owned())), "{text:?}");
        }
    }
}
