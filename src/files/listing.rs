//! The HTML page that lists a directory, written in pieces: [`head`], a [`row`] for each entry,
//! [`foot`].
//!
//! Takes entries as values, which `directory` reads. All links are relative references (RFC 3986,
//! section 4.2), so that the page also works behind a proxy that serves it under another path. The
//! page needs no script; those that it has are in `page`.

use std::cmp::Ordering;

use super::page::Parts;

/// An entry of a directory, as the page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name in the file system: any bytes but `/` and NUL.
    pub name: Vec<u8>,
    pub is_dir: bool,
    /// The size in bytes; not shown for a directory.
    pub size: u64,
    /// The time of the last modification, in seconds since 1970.
    pub modified: u64,
}

impl Entry {
    /// Returns the memory that the entry takes, in bytes.
    pub fn weight(&self) -> usize {
        size_of::<Entry>() + self.name.capacity()
    }
}

/// The column that entries are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Name,
    Date,
    Size,
}

/// The order of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub key: Key,
    pub descending: bool,
}

impl Order {
    /// Parses the order in a query: `n`, `d` or `s`, then `a` or `d`. Any other query sorts by
    /// name.
    pub fn from_query(query: Option<&[u8]>) -> Order {
        let (key, direction) = match query.unwrap_or_default() {
            [b'n', direction @ ..] => (Key::Name, direction),
            [b'd', direction @ ..] => (Key::Date, direction),
            [b's', direction @ ..] => (Key::Size, direction),
            _ => (Key::Name, &b""[..]),
        };
        match direction {
            b"" | b"a" => Order { key, descending: false },
            b"d" => Order { key, descending: true },
            _ => Order { key: Key::Name, descending: false },
        }
    }
}

impl Order {
    /// Returns the query that asks for this order; empty for the usual one.
    fn query(self) -> &'static str {
        match (self.key, self.descending) {
            (Key::Name, false) => "",
            (Key::Name, true) => "?nd",
            (Key::Date, false) => "?da",
            (Key::Date, true) => "?dd",
            (Key::Size, false) => "?sa",
            (Key::Size, true) => "?sd",
        }
    }

    /// Compares two entries. Directories come first, and entries that are equal otherwise are
    /// sorted by name, so that the page is the same each time.
    pub fn compare(self, a: &Entry, b: &Entry) -> Ordering {
        let by_key = match self.key {
            Key::Name => natural(&a.name, &b.name),
            Key::Date => a.modified.cmp(&b.modified),
            // All directories count as the same size.
            Key::Size if a.is_dir && b.is_dir => Ordering::Equal,
            Key::Size => a.size.cmp(&b.size),
        };
        let by_key = if self.descending { by_key.reverse() } else { by_key };
        let directories = b.is_dir.cmp(&a.is_dir);
        directories.then(by_key).then_with(|| natural(&a.name, &b.name))
    }
}

/// Compares two names byte by byte, but numbers in them by their value, as people do: `file2` comes
/// before `file10`. Only equal names are equal.
fn natural(a: &[u8], b: &[u8]) -> Ordering {
    let (mut x, mut y) = (a, b);
    loop {
        let same = x.iter().zip(y).take_while(|(x, y)| x == y).count();
        // The numbers may have begun before they differ.
        let digits = x[..same].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let (number_x, rest_x) = split_number(&x[same - digits..]);
        let (number_y, rest_y) = split_number(&y[same - digits..]);
        if number_x.is_empty() || number_y.is_empty() {
            return x[same..].cmp(&y[same..]).then_with(|| a.cmp(b));
        }
        let (value_x, value_y) = (significant(number_x), significant(number_y));
        match value_x.len().cmp(&value_y.len()).then_with(|| value_x.cmp(value_y)) {
            Ordering::Equal if rest_x.is_empty() && rest_y.is_empty() => return a.cmp(b),
            Ordering::Equal => (x, y) = (rest_x, rest_y),
            different => return different,
        }
    }
}

/// Splits the digits at the start off.
fn split_number(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

/// Returns a number without the zeros in front of it.
fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == b'0').count();
    &number[zeros..]
}

/// Returns a length that the row of an entry has at most: each byte of a name may need three in its
/// link, and six in its text.
pub fn row_len(entry: &Entry) -> usize {
    entry.name.len() * 9 + 256
}

/// Returns a length that the page has at most up to the first entry, and behind the last.
pub fn head_len(path: &[u8], parts: &Parts) -> usize {
    let texts = [parts.styles, parts.scripts].concat();
    let fixed = texts.iter().map(|text| text.len() + 32).sum::<usize>() + parts.tools.len() + 2048;
    // The path stands in the title, and in links to each directory above, which go up to it.
    fixed + path.len() * 16 + segments(path).count() * (segments(path).count() * 3 + 64)
}

/// Appends the page up to the first entry. `path` is the decoded path of the directory as the
/// client knows it, with a slash at both ends.
pub fn head(out: &mut Vec<u8>, path: &[u8], order: Order, parts: &Parts) {
    let text = escape_html(path);
    append(out, &["<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n"]);
    append(out, &["<meta charset=\"utf-8\">\n"]);
    append(out, &["<meta name=\"viewport\" content=\"width=device-width\">\n"]);
    append(out, &["<title>Index of ", &text, "</title>\n"]);
    for style in parts.styles {
        append(out, &["<style>", style, "</style>\n"]);
    }
    append(out, &["</head>\n<body>\n"]);
    append(out, &["<h1>Index of <bdi>"]);
    breadcrumbs(out, path, order);
    append(out, &["</bdi></h1>\n", parts.tools]);
    append(out, &["<table aria-label=\"Files and folders\">\n<thead>\n<tr>"]);
    column(out, "Name", Key::Name, order);
    column(out, "Modified<span class=\"utc\"> (UTC)</span>", Key::Date, order);
    column(out, "Size", Key::Size, order);
    append(out, &["</tr>\n</thead>\n<tbody>\n"]);
    if segments(path).next().is_some() {
        append(out, &["<tr><td><a href=\"../", order.query(), "\">../</a></td>"]);
        append(out, &["<td></td><td></td></tr>\n"]);
    }
}

/// Appends what stands in place of the rows where there are none.
pub fn nothing(out: &mut Vec<u8>) {
    append(out, &["<tr><td colspan=\"3\" class=\"none\">This folder is empty.</td></tr>\n"]);
}

/// Appends the row of an entry. A link to a directory keeps the order of this page.
pub fn row(out: &mut Vec<u8>, entry: &Entry, order: Order) {
    let (slash, query) = if entry.is_dir { ("/", order.query()) } else { ("", "") };
    append(out, &["<tr><td><a href=\""]);
    escape_url(out, &entry.name);
    append(out, &[slash, query, "\"><bdi>"]);
    write_html(out, &entry.name);
    append(out, &[slash, "</bdi></a></td><td>"]);
    time(out, entry.modified);
    if entry.is_dir {
        append(out, &["</td><td>–</td></tr>\n"]);
    } else {
        let mut exact = itoa::Buffer::new();
        append(out, &["</td><td title=\"", exact.format(entry.size), " bytes\">"]);
        append(out, &[&human_size(entry.size), "</td></tr>\n"]);
    }
}

/// Appends the page behind the last entry.
pub fn foot(out: &mut Vec<u8>, parts: &Parts) {
    append(out, &["</tbody>\n</table>\n"]);
    for script in parts.scripts {
        append(out, &["<script>", script, "</script>\n"]);
    }
    append(out, &["</body>\n</html>\n"]);
}

/// Appends the path, with a link to each directory above this one.
fn breadcrumbs(out: &mut Vec<u8>, path: &[u8], order: Order) {
    let depth = segments(path).count();
    let root = if depth == 0 { "./" } else { "" };
    append(out, &["<a href=\"", root, &"../".repeat(depth), order.query(), "\">/</a>"]);
    for (index, segment) in segments(path).enumerate() {
        let above = depth - 1 - index;
        let here = if above == 0 { "./" } else { "" };
        append(out, &["<a href=\"", here, &"../".repeat(above), order.query(), "\">"]);
        append(out, &[&escape_html(segment), "</a>/"]);
    }
}

fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|part| !part.is_empty())
}

/// Appends the head of a column. Its link sorts by the column, or in the reverse order if the page
/// is sorted by it already.
fn column(out: &mut Vec<u8>, title: &str, key: Key, order: Order) {
    let letter = match key {
        Key::Name => "n",
        Key::Date => "d",
        Key::Size => "s",
    };
    let (sorted, arrow) = match (order.key == key, order.descending) {
        (false, _) => ("", ""),
        (true, false) => (" aria-sort=\"ascending\"", " <span aria-hidden=\"true\">▲</span>"),
        (true, true) => (" aria-sort=\"descending\"", " <span aria-hidden=\"true\">▼</span>"),
    };
    let turns_down = order.key == key && !order.descending;
    let direction = if turns_down { "d" } else { "a" };
    append(out, &["<th scope=\"col\"", sorted, "><a href=\"?", letter, direction]);
    append(out, &["\">", title, arrow, "</a></th>"]);
}

/// Escapes text for an element or a quoted attribute. Bytes that are not UTF-8, and control
/// characters, which HTML does not allow, become replacement characters.
pub fn escape_html(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&#39;"),
            _ if character.is_control() => text.push(char::REPLACEMENT_CHARACTER),
            _ => text.push(character),
        }
    }
    text
}

/// Appends escaped text. Nearly all names need no escape.
fn write_html(out: &mut Vec<u8>, bytes: &[u8]) {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !b"&<>\"'".contains(byte);
    match bytes.iter().all(is_plain) {
        true => out.extend_from_slice(bytes),
        false => append(out, &[&escape_html(bytes)]),
    }
}

/// Appends a path segment, in which all but the unreserved characters (RFC 3986, section 2.3) are
/// percent-encoded, so that no name is taken for a scheme, a query or a fragment.
fn escape_url(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value)];
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// Formats a size in at most four digits and a unit.
fn human_size(size: u64) -> String {
    if size < 1024 {
        return format!("{size} B");
    }
    let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    let (size, mut scale) = (u128::from(size), 1024);
    for larger in units {
        // A size that would be rounded to 1024 is shown in the next unit.
        if size * 2 < scale * 2047 {
            break;
        }
        scale *= 1024;
        unit = larger;
    }
    let rounded = |size| (size + scale / 2) / scale;
    if size * 100 < scale * 995 {
        let tenths = rounded(size * 10);
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    } else {
        format!("{} {unit}", rounded(size))
    }
}

/// Appends a time to the minute, in UTC.
fn time(out: &mut Vec<u8>, seconds: u64) {
    let (date, minutes) = (civil_date(seconds / 86_400), seconds % 86_400 / 60);
    append(out, &["<time datetime=\""]);
    moment(out, date, b'T', minutes);
    append(out, &["Z\">"]);
    moment(out, date, b' ', minutes);
    append(out, &["</time>"]);
}

/// Appends a date, a separator, and the time of day.
fn moment(out: &mut Vec<u8>, (year, month, day): (u64, u64, u64), separator: u8, minutes: u64) {
    let mut digits = itoa::Buffer::new();
    let year = digits.format(year).as_bytes();
    out.extend_from_slice(&b"0000"[year.len().min(4)..]);
    out.extend_from_slice(year);
    let pairs = [(b'-', month), (b'-', day), (separator, minutes / 60), (b':', minutes % 60)];
    for (before, number) in pairs {
        // Each of them is below 100.
        let [tens, ones] = [number / 10 % 10, number % 10].map(|digit| b'0' + digit as u8);
        out.extend_from_slice(&[before, tens, ones]);
    }
}

/// Returns year, month and day in the Gregorian calendar, `days` after 1 January 1970.
pub fn civil_date(days: u64) -> (u64, u64, u64) {
    // The calendar repeats itself after 400 years. Years are counted from March on, so that the day
    // of a leap year is the last one: 1 March of the year 0 was 719,468 days before 1970.
    const DAYS_OF_400_YEARS: u64 = 146_097;
    const DAYS_OF_100_YEARS: u64 = 36_524;
    const DAYS_OF_4_YEARS: u64 = 1461;
    let days = days.saturating_add(719_468);
    let (cycles, mut day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    // The last of four centuries, and the last of four years, have a day more.
    let centuries = (day / DAYS_OF_100_YEARS).min(3);
    day -= centuries * DAYS_OF_100_YEARS;
    let (fours, mut day) = (day / DAYS_OF_4_YEARS, day % DAYS_OF_4_YEARS);
    let years = (day / 365).min(3);
    day -= years * 365;
    let lengths = [31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 29];
    let mut month = 3;
    for len in lengths {
        if day < len {
            break;
        }
        day -= len;
        month += 1;
    }
    let year = cycles * 400 + centuries * 100 + fours * 4 + years + u64::from(month > 12);
    (year, if month > 12 { month - 12 } else { month }, day + 1)
}

fn append(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::page::PLAIN;
    use super::*;
    use crate::http::uri::{decode_path, split_target};
    use proptest::prelude::*;

    fn entry(name: &str, is_dir: bool, size: u64, modified: u64) -> Entry {
        Entry { name: name.as_bytes().to_vec(), is_dir, size, modified }
    }

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_query_decides_the_order() {
        let table = [
            (None, Key::Name, false),
            (Some(""), Key::Name, false),
            (Some("n"), Key::Name, false),
            (Some("na"), Key::Name, false),
            (Some("nd"), Key::Name, true),
            (Some("d"), Key::Date, false),
            (Some("dd"), Key::Date, true),
            (Some("sa"), Key::Size, false),
            (Some("sd"), Key::Size, true),
            (Some("x"), Key::Name, false),
            (Some("sx"), Key::Name, false),
            (Some("sdd"), Key::Name, false),
            (Some("d=1"), Key::Name, false),
        ];
        for (query, key, descending) in table {
            let order = Order::from_query(query.map(str::as_bytes));
            assert_eq!(order, Order { key, descending }, "{query:?}");
        }
    }

    #[test]
    fn directories_come_first_in_every_order() {
        let entries = [
            entry("b", false, 3, 30),
            entry("a", false, 3, 10),
            entry("c", false, 1, 20),
            entry("y", true, 9, 2),
            entry("x", true, 4, 3),
        ];
        let table = [
            ("na", "x y a b c"),
            ("nd", "y x c b a"),
            ("da", "y x a c b"),
            ("dd", "x y b c a"),
            ("sa", "x y c a b"),
            ("sd", "x y a b c"),
        ];
        for (query, expected) in table {
            let mut sorted = entries.clone();
            let order = Order::from_query(Some(query.as_bytes()));
            sorted.sort_by(|a, b| order.compare(a, b));
            let names: Vec<_> = sorted.iter().map(|e| String::from_utf8_lossy(&e.name)).collect();
            assert_eq!(names.join(" "), expected, "{query}");
        }
    }

    #[test]
    fn a_row_links_to_its_entry() {
        let table = [
            (
                entry("a.txt", false, 1536, 1_000_000_000),
                "<tr><td><a href=\"a.txt\"><bdi>a.txt</bdi></a></td>\
                 <td><time datetime=\"2001-09-09T01:46Z\">2001-09-09 01:46</time></td>\
                 <td title=\"1536 bytes\">1.5 KiB</td></tr>\n",
            ),
            (
                entry("d&<\"'>", true, 4096, 0),
                "<tr><td><a href=\"d%26%3C%22%27%3E/?sd\"><bdi>d&amp;&lt;&quot;&#39;&gt;/</bdi></a></td>\
                 <td><time datetime=\"1970-01-01T00:00Z\">1970-01-01 00:00</time></td><td>–</td></tr>\n",
            ),
            (
                entry("javascript:x?y#z %41", false, 0, 0),
                "<tr><td><a href=\"javascript%3Ax%3Fy%23z%20%2541\"><bdi>javascript:x?y#z %41</bdi></a></td>\
                 <td><time datetime=\"1970-01-01T00:00Z\">1970-01-01 00:00</time></td><td title=\"0 bytes\">0 B</td></tr>\n",
            ),
            (
                Entry { name: b"\xff\xc3\xbc\n".to_vec(), ..entry("", false, 1, 0) },
                "<tr><td><a href=\"%FF%C3%BC%0A\"><bdi>\u{fffd}\u{fc}\u{fffd}</bdi></a></td>\
                 <td><time datetime=\"1970-01-01T00:00Z\">1970-01-01 00:00</time></td><td title=\"1 bytes\">1 B</td></tr>\n",
            ),
        ];
        for (entry, expected) in table {
            let order = Order::from_query(Some(b"sd"));
            assert_eq!(written(|out| row(out, &entry, order)), expected);
        }
    }

    #[test]
    fn the_head_shows_the_way_up_and_how_to_sort() {
        let order = Order::from_query(Some(b"sa"));
        let page = written(|out| head(out, b"/a&b/c/", order, &PLAIN));
        for part in [
            "<title>Index of /a&amp;b/c/</title>",
            "<bdi><a href=\"../../?sa\">/</a><a href=\"../?sa\">a&amp;b</a>/<a href=\"./?sa\">c</a>/</bdi>",
            "<th scope=\"col\"><a href=\"?na\">Name</a></th>",
            "<th scope=\"col\"><a href=\"?da\">Modified<span class=\"utc\"> (UTC)</span></a></th>",
            "<th scope=\"col\" aria-sort=\"ascending\"><a href=\"?sd\">Size \
             <span aria-hidden=\"true\">▲</span></a></th>",
            "<tr><td><a href=\"../?sa\">../</a></td>",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        let root = written(|out| head(out, b"/", Order::from_query(Some(b"nd")), &PLAIN));
        assert!(root.contains("<a href=\"?na\">Name <span aria-hidden=\"true\">▼</span></a>"));
        assert!(root.contains("<bdi><a href=\"./?nd\">/</a></bdi>"));
        assert!(!root.contains("../"), "nothing is above the root");
        assert!(!root.contains("<script"));
        assert!(written(|out| foot(out, &PLAIN)).ends_with("</html>\n"));
    }

    #[test]
    fn sizes_are_short() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10_188, "9.9 KiB"),
            (10_189, "10 KiB"),
            (1_047_552, "1023 KiB"),
            (1_048_064, "1.0 MiB"),
            (1 << 20, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (123 << 40, "123 TiB"),
            (u64::MAX, "16 EiB"),
        ];
        for (size, expected) in table {
            assert_eq!(human_size(size), expected, "{size}");
        }
    }

    #[test]
    fn dates_follow_the_calendar() {
        let table = [
            (0, "1970-01-01 00:00"),
            (68_169_599, "1972-02-28 23:59"),
            (68_169_600, "1972-02-29 00:00"),
            (951_868_799, "2000-02-29 23:59"),
            (951_868_800, "2000-03-01 00:00"),
            (1_798_761_540, "2026-12-31 23:59"),
            (4_107_542_400, "2100-03-01 00:00"),
            (253_402_300_799, "9999-12-31 23:59"),
        ];
        for (seconds, expected) in table {
            assert_eq!(date(seconds), expected, "{seconds}");
        }
        date(u64::MAX);
        civil_date(u64::MAX);
    }

    /// Returns the time as people read it.
    fn date(seconds: u64) -> String {
        let text = written(|out| time(out, seconds));
        text.split(['>', '<']).nth(2).expect("a text").to_owned()
    }

    #[test]
    fn numbers_in_names_are_compared_by_their_value() {
        let sorted = [
            "",
            "A",
            "a",
            "a-",
            "a0",
            "a00",
            "a01",
            "a1",
            "a1a",
            "a1b",
            "a02",
            "a2",
            "a2a",
            "a9",
            "a10",
            "a10a2",
            "a10a10",
            "a10b1",
            "a99999999999999999999",
            "a100000000000000000000",
            "aa",
            "b",
            "file2.txt",
            "file10.txt",
            "file10b",
            "ä1",
            "ä2",
            "ä10",
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(natural(a.as_bytes(), b.as_bytes()), i.cmp(&j), "{a} {b}");
            }
        }
    }

    proptest! {
        #[test]
        fn names_have_one_order(names in prop::collection::vec("[012a.]{0,6}", 3)) {
            let [a, b, c] = [0, 1, 2].map(|place| names[place].as_bytes());
            prop_assert_eq!(natural(a, b), natural(b, a).reverse());
            prop_assert_eq!(natural(a, b) == Ordering::Equal, a == b);
            if natural(a, b) != Ordering::Greater && natural(b, c) != Ordering::Greater {
                prop_assert_ne!(natural(a, c), Ordering::Greater);
            }
        }

        #[test]
        fn a_link_leads_back_to_the_name(name in prop::collection::vec(1u8.., 1..20)) {
            let dots = name == b"." || name == b"..";
            prop_assume!(!dots && !name.iter().any(|b| *b == b'/' || b.is_ascii_control()));
            let mut link = b"/d/".to_vec();
            escape_url(&mut link, &name);
            let target = split_target(&link).unwrap();
            let mut path = vec![0; link.len()];
            let len = decode_path(target.path, &mut path).unwrap();
            prop_assert_eq!(&path[..len], [b"/d/", &name[..]].concat());
        }

        #[test]
        fn no_name_breaks_out_of_its_row(name in prop::collection::vec(any::<u8>(), 0..30)) {
            let entry = Entry { name, is_dir: false, size: 0, modified: 0 };
            let order = Order::from_query(None);
            let row = written(|out| row(out, &entry, order));
            prop_assert_eq!(row.matches('<').count(), 14);
            prop_assert_eq!(row.matches('"').count(), 6);
            prop_assert_eq!(row.matches('\n').count(), 1);
        }

        #[test]
        fn dates_agree_with_those_of_http(seconds in 0..253_402_300_799u64) {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let http = httpdate::fmt_http_date(time);
            let text = date(seconds);
            prop_assert_eq!(&text[..4], &http[12..16]);
            prop_assert_eq!(&text[8..10], &http[5..7]);
            prop_assert_eq!(&text[11..], &http[17..22]);
        }
    }
}
