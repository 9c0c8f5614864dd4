//! The list of addresses in the option `listening_port`: how an entry is read, and how it is shown.
//!
//! Owns the form of the list alone. Refuses to know sockets: whether an address can be bound shows
//! only when that is tried.
#![forbid(unsafe_code)]

use std::ffi::{CStr, OsStr};
use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The largest number of entries of a list.
pub const MAX_ENTRIES: usize = 64;
/// The number of bytes of `sun_path` (POSIX `sys/un.h`); a path ends with a NUL within it, and an
/// abstract name begins with one.
const SUN_PATH: usize = 108;

const BAD: &CStr = c"Invalid listening port";
const NAME: &CStr = c"Invalid listening port: names are not looked up, only numbers are taken";
const RANGE: &CStr = c"Invalid listening port: a port is a number from 0 to 65535";
const LONG: &CStr = c"Invalid listening port: the path of a Unix socket has at most 107 bytes";
const MODE: &CStr = c"Invalid listening port: a mode has 3 or 4 octal digits, at most 0777";
const TWICE: &CStr = c"Invalid listening port: an address stands twice in the list";
const MANY: &CStr = c"Invalid listening port: a list has at most 64 entries";
const NOWHERE: &CStr = c"Invalid listening port: an entry with r needs one with s and a port";

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Internet(SocketAddr),
    Local(Name),
}

/// The name of a Unix domain socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    Path(PathBuf),
    /// A name outside of the file system, without the NUL before it.
    Abstract(Vec<u8>),
}

/// The letter at the end of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Letter {
    #[default]
    None,
    /// `s`
    Tls,
    /// `r`
    Redirect,
}

/// An entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub address: Address,
    pub letter: Letter,
    /// The mode of a Unix domain socket.
    pub mode: Option<u32>,
    /// Set if the entry is a port without an address.
    pub is_bare: bool,
}

/// The reason why a list was refused: the entry, and the sentence for the program.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    pub entry: &'a [u8],
    pub sentence: &'static CStr,
}

/// Parses a list, which may have blanks around its entries.
pub fn parse(list: &[u8]) -> Result<Vec<Entry>, Refusal<'_>> {
    let mut entries: Vec<Entry> = Vec::new();
    for text in list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        let refuse = |sentence| Refusal { entry: text, sentence };
        let entry = parse_entry(text).map_err(refuse)?;
        if entries.iter().any(|other| other.excludes(&entry)) {
            return Err(refuse(TWICE));
        }
        if entries.len() == MAX_ENTRIES {
            return Err(refuse(MANY));
        }
        entries.push(entry);
    }
    let redirects = |entry: &Entry| entry.letter == Letter::Redirect;
    if entries.iter().any(redirects) && !entries.iter().any(Entry::has_secure_port) {
        return Err(Refusal { entry: list, sentence: NOWHERE });
    }
    Ok(entries)
}

/// Returns whether an entry has a letter: those without one then speak plain HTTP.
pub fn has_letters(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| entry.letter != Letter::None)
}

impl Entry {
    /// Returns whether the kernel is to choose the port.
    pub fn is_open(&self) -> bool {
        matches!(self.address, Address::Internet(address) if address.port() == 0)
    }

    /// Returns whether clients can be redirected to this entry.
    pub fn has_secure_port(&self) -> bool {
        self.letter == Letter::Tls && matches!(self.address, Address::Internet(_))
    }

    /// Returns whether the entries mean the same place.
    fn excludes(&self, other: &Entry) -> bool {
        self.address == other.address && !self.is_open()
    }

    /// Returns the entry as it was asked for, with `port` in the place of its port.
    pub fn shown(&self, port: Option<u16>) -> Vec<u8> {
        let mut text = match &self.address {
            Address::Internet(address) => {
                let address = SocketAddr::new(address.ip(), port.unwrap_or(address.port()));
                match self.is_bare {
                    true => address.port().to_string().into_bytes(),
                    false => address.to_string().into_bytes(),
                }
            }
            Address::Local(name) => name.shown(),
        };
        if let Some(mode) = self.mode {
            text.extend_from_slice(format!(":{mode:04o}").as_bytes());
        }
        text.extend_from_slice(match self.letter {
            Letter::None => b"",
            Letter::Tls => b"s",
            Letter::Redirect => b"r",
        });
        text
    }
}

impl Name {
    fn shown(&self) -> Vec<u8> {
        match self {
            Name::Path(path) => [b"unix:", path.as_os_str().as_bytes()].concat(),
            Name::Abstract(name) => [b"unix:@", name.as_slice()].concat(),
        }
    }
}

/// Writes an address as an entry has it.
impl Display for Address {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Address::Internet(address) => address.fmt(f),
            Address::Local(name) => f.write_str(&String::from_utf8_lossy(&name.shown())),
        }
    }
}

fn parse_entry(text: &[u8]) -> Result<Entry, &'static CStr> {
    if let Some(place) = text.strip_prefix(b"unix:") {
        return parse_local(place);
    }
    let (text, letter) = split_letter(text);
    let (address, is_bare) = parse_internet(text)?;
    Ok(Entry { address: Address::Internet(address), letter, mode: None, is_bare })
}

/// Splits off the letter behind a digit.
fn split_letter(text: &[u8]) -> (&[u8], Letter) {
    match text {
        [.., digit, b's'] if digit.is_ascii_digit() => (&text[..text.len() - 1], Letter::Tls),
        [.., digit, b'r'] if digit.is_ascii_digit() => (&text[..text.len() - 1], Letter::Redirect),
        _ => (text, Letter::None),
    }
}

/// Parses the name of a Unix domain socket with the mode behind it.
fn parse_local(text: &[u8]) -> Result<Entry, &'static CStr> {
    let (mut name, mut mode, mut letter) = (text, None, Letter::None);
    if let Some(at) = memchr::memrchr(b':', text) {
        let (digits, behind) = split_letter(&text[at + 1..]);
        if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) {
            (name, mode, letter) = (&text[..at], Some(parse_mode(digits)?), behind);
        }
    }
    if name.contains(&0) {
        return Err(BAD);
    }
    let (name, bytes) = match name.strip_prefix(b"@") {
        Some(name) => (Name::Abstract(name.to_vec()), name),
        None => (Name::Path(Path::new(OsStr::from_bytes(name)).to_owned()), name),
    };
    match bytes.len() {
        0 => Err(BAD),
        SUN_PATH.. => Err(LONG),
        _ => Ok(Entry { address: Address::Local(name), letter, mode, is_bare: false }),
    }
}

fn parse_mode(digits: &[u8]) -> Result<u32, &'static CStr> {
    let text = str::from_utf8(digits).unwrap_or_default();
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.filter(|_| matches!(digits.len(), 3 | 4)).ok_or(MODE)
}

/// Parses an Internet address: `8080`, `127.0.0.1:8080`, `[::1]:8080`. A port alone means all IPv4
/// addresses; the second value says that it is one.
fn parse_internet(text: &[u8]) -> Result<(SocketAddr, bool), &'static CStr> {
    let (host, port) = match memchr::memrchr(b':', text) {
        Some(at) => (Some(&text[..at]), &text[at + 1..]),
        None => (None, text),
    };
    let ip = host.map_or(Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), parse_host)?;
    if is_name(port) {
        return Err(NAME);
    }
    if port.is_empty() || !port.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }
    match str::from_utf8(port).ok().and_then(|port| port.parse().ok()) {
        Some(port) => Ok(((ip, port).into(), host.is_none())),
        None => Err(RANGE),
    }
}

/// Parses an IP address. Those of IPv6 stand in brackets, and no other host does.
fn parse_host(host: &[u8]) -> Result<IpAddr, &'static CStr> {
    let bare = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]"));
    let text = str::from_utf8(bare.unwrap_or(host)).unwrap_or_default();
    match text.parse() {
        Ok(IpAddr::V6(ip)) if bare.is_some() => Ok(IpAddr::V6(ip)),
        Ok(IpAddr::V4(ip)) if bare.is_none() => Ok(IpAddr::V4(ip)),
        _ if is_name(host) => Err(NAME),
        _ => Err(BAD),
    }
}

fn is_name(text: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    text.first().is_some_and(u8::is_ascii_alphabetic) && text.iter().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the entries as they are shown, with a `+` before bare ports; or the sentence.
    fn read(list: &[u8]) -> Result<String, &str> {
        let shown = |entry: &Entry| {
            let text = String::from_utf8_lossy(&entry.shown(None)).into_owned();
            format!("{}{text}", if entry.is_bare { "+" } else { "" })
        };
        match parse(list) {
            Ok(entries) => Ok(entries.iter().map(shown).collect::<Vec<_>>().join(" ")),
            Err(refusal) => Err(refusal.sentence.to_str().expect("text")),
        }
    }

    fn text(sentence: &'static CStr) -> Result<&'static str, &'static str> {
        Err(sentence.to_str().expect("text"))
    }

    #[test]
    fn an_entry_names_an_address_and_may_have_a_letter() {
        let table: [(&[u8], Result<&str, &str>); 45] = [
            (b"8080", Ok("+8080")),
            (b"0", Ok("+0")),
            (b"00080", Ok("+80")),
            (b"65535", Ok("+65535")),
            (b"127.0.0.1:8080", Ok("127.0.0.1:8080")),
            (b"[::1]:8080", Ok("[::1]:8080")),
            (b"[::]:0", Ok("[::]:0")),
            (b"[::ffff:1.2.3.4]:1", Ok("[::ffff:1.2.3.4]:1")),
            (b"80s", Ok("+80s")),
            (b"[::]:443s", Ok("[::]:443s")),
            (b" 80 ", Ok("+80")),
            (b"80r , 443s", Ok("+80r +443s")),
            (b"0,0", Ok("+0 +0")),
            (b"unix:a.sock", Ok("unix:a.sock")),
            (b"unix:/run/a b.sock:0660", Ok("unix:/run/a b.sock:0660")),
            (b"unix:@name:660s", Ok("unix:@name:0660s")),
            (b"unix:a.sock:0660r,1s", Ok("unix:a.sock:0660r +1s")),
            (b"unix:a.sock:s", Ok("unix:a.sock:s")),
            (b"unix:a:b/c", Ok("unix:a:b/c")),
            (b"65536", text(RANGE)),
            (b"99999999999999999999999", text(RANGE)),
            (b"127.0.0.1:65536s", text(RANGE)),
            (b"[::1]:70000", text(RANGE)),
            (b"http", text(NAME)),
            (b"https", text(NAME)),
            (b"localhost:80s", text(NAME)),
            (b"www.example-1.org:80", text(NAME)),
            (b"127.0.0.1:http", text(NAME)),
            (b"+80", text(BAD)),
            (b"-1", text(BAD)),
            (b":80", text(BAD)),
            (b"80:", text(BAD)),
            (b"80sr", text(BAD)),
            (b"8 0", text(BAD)),
            (b"1.2.3.4", text(BAD)),
            (b"1.2.3.256:80", text(BAD)),
            (b"1.2.3:80", text(BAD)),
            (b"::1:80", text(BAD)),
            (b"[::1]", text(BAD)),
            (b"[::1:0", text(BAD)),
            (b"[1.2.3.4]:80", text(BAD)),
            (b"\xff", text(BAD)),
            (b"unix:", text(BAD)),
            (b"unix:@", text(BAD)),
            (b"unix:a\0b", text(BAD)),
        ];
        for (list, expected) in table {
            let found = read(list);
            let found = found.as_deref().map_err(|sentence| *sentence);
            assert_eq!(found, expected, "{}", list.escape_ascii());
        }
    }

    #[test]
    fn a_list_has_entries_that_agree() {
        let ports = |count: usize| (1..=count).map(|port| port.to_string()).collect::<Vec<_>>();
        let long = |len: usize| format!("unix:{}", "x".repeat(len));
        let table = [
            (",".to_owned(), text(BAD)),
            ("80,".to_owned(), text(BAD)),
            (" ,80".to_owned(), text(BAD)),
            ("80,81,80s".to_owned(), text(TWICE)),
            ("80,0.0.0.0:80".to_owned(), text(TWICE)),
            ("unix:a,unix:a:0600".to_owned(), text(TWICE)),
            ("80r".to_owned(), text(NOWHERE)),
            ("80r,unix:a:0600s".to_owned(), text(NOWHERE)),
            ("unix:a:0888".to_owned(), text(MODE)),
            ("unix:a:8080".to_owned(), text(MODE)),
            ("unix:a:07777".to_owned(), text(MODE)),
            ("unix:a:1777".to_owned(), text(MODE)),
            ("unix:a:66".to_owned(), text(MODE)),
            (long(108), text(LONG)),
            (ports(65).join(","), text(MANY)),
            (ports(1000).join(","), text(MANY)),
        ];
        for (list, expected) in table {
            let found = read(list.as_bytes());
            assert_eq!(found.as_deref().map_err(|sentence| *sentence), expected, "{list}");
        }
        assert!(read(long(107).as_bytes()).is_ok());
        assert!(read(ports(64).join(",").as_bytes()).is_ok());
    }

    #[test]
    fn a_chosen_port_stands_in_the_form_that_was_asked_for() {
        let entries = parse(b"0s, 127.0.0.1:0r, [::1]:0").expect("a list");
        let shown = entries.iter().map(|entry| entry.shown(Some(4567)));
        let wanted: [&[u8]; 3] = [b"4567s", b"127.0.0.1:4567r", b"[::1]:4567"];
        assert!(shown.eq(wanted.map(<[u8]>::to_vec)));
    }

    #[test]
    fn the_refusal_names_its_entry() {
        assert_eq!(parse(b"80, http ,90").expect_err("a name").entry, b"http");
    }
}
