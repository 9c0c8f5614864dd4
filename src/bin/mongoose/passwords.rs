//! Names and passwords: what is asked for on the terminal, the file of `--user`, which is in memory, and
//! the files that `-A` edits (RFC 7616).

use std::fs::File;
use std::io::{self, BufRead as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use mongoose::auth::htpasswd;
use rustix::fs::{MemfdFlags, Mode, SealFlags};

use crate::failure::Failure;
use crate::terminal;

/// The longest password, in bytes.
const MAX_PASSWORD: usize = 1024;

/// The password file of one user. It has no name in any directory: it is gone with the process, however that
/// ends, and by its path in `/proc` it can be opened by this process, whatever user that becomes, and by
/// those who may look into its memory anyway.
pub struct PasswordFile {
    file: File,
}

impl PasswordFile {
    pub fn new(user: &[u8], realm: &[u8], password: &[u8]) -> io::Result<PasswordFile> {
        let fd = rustix::fs::memfd_create(
            c"passwords",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        let mut file = File::from(fd);
        let hash = htpasswd::md5_hex(&[user, b":", realm, b":", password]);
        file.write_all(&[user, b":", realm, b":", &hash, b"\n"].concat())?;
        // The process may become another user, who has to read it, too.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o444))?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        let passwords = PasswordFile { file };
        // Without /proc nobody would get in.
        File::open(passwords.path())?;
        Ok(passwords)
    }

    /// The path by which this process opens it.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}

/// Says why a password file cannot have this name in it.
pub fn check_name(name: &[u8]) -> Result<(), &'static str> {
    match name {
        b"" => Err("the name is empty"),
        _ if name.contains(&b':') => Err("the name has a colon in it"),
        _ if name.iter().any(u8::is_ascii_control) => Err("the name has a control character in it"),
        _ => Ok(()),
    }
}

/// Asks for the password of a user: on the terminal, without showing it, or as a line of standard input
/// where that is none.
pub fn ask(user: &[u8], is_new: bool) -> Result<Vec<u8>, Failure> {
    let user = String::from_utf8_lossy(user);
    let password = if terminal::is_input() {
        let password = terminal::ask(&format!("Password for {user}: ")).map_err(unread)?;
        if is_new && terminal::ask("Once more: ").map_err(unread)? != password {
            return Err(Failure::trouble("the two passwords differ"));
        }
        password
    } else {
        read_line(&mut io::stdin().lock()).map_err(unread)?
    };
    check(password)
}

fn unread(error: io::Error) -> Failure {
    Failure::trouble(format!("the password cannot be read: {error}"))
}

/// Refuses what cannot be a password.
pub fn check(password: Vec<u8>) -> Result<Vec<u8>, Failure> {
    match password.as_slice() {
        b"" => Err(Failure::usage("the password is empty")),
        password if password.contains(&0) => {
            Err(Failure::usage("there is a zero byte in the password"))
        }
        password if password.len() > MAX_PASSWORD => {
            Err(Failure::usage("the password is longer than 1024 bytes"))
        }
        _ => Ok(password),
    }
}

/// Reads a line. One that is too long is read as far as that shows.
fn read_line(input: &mut impl io::BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    io::Read::take(input, MAX_PASSWORD as u64 + 3).read_until(b'\n', &mut line)?;
    if line.ends_with(b"\n") {
        line.pop();
    }
    if line.ends_with(b"\r") {
        line.pop();
    }
    Ok(line)
}

/// Adds a user to a password file, or changes the password. A new file can be read by nobody else.
pub fn edit(
    file: &Path,
    realm: &[u8],
    user: &[u8],
    password: Option<Vec<u8>>,
) -> Result<(), Failure> {
    check_name(user).map_err(|why| Failure::usage(format!("USER: {why}")))?;
    check_name(realm)
        .map_err(|why| Failure::usage(format!("REALM: {why}").replace("name", "realm")))?;
    if file.is_dir() {
        return Err(Failure::usage(format!("{}: it is a directory", file.display())));
    }
    let password = match password {
        Some(password) => check(password)?,
        None => ask(user, true)?,
    };
    rustix::process::umask(Mode::from_raw_mode(0o077));
    htpasswd::modify(file, realm, user, Some(&password))
        .map_err(|error| Failure::trouble(format!("{}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_a_line_of_the_input_without_its_end() {
        let long = [b'x'; 5000];
        type Row<'a> = (&'a [u8], Result<&'a [u8], &'a str>);
        let table: [Row; 7] = [
            (b"secret\nmore", Ok(b"secret")),
            (b" a b \r\n", Ok(b" a b ")),
            (b"secret", Ok(b"secret")),
            (b"", Err("the password is empty")),
            (b"\nsecret", Err("the password is empty")),
            (b"a\0b\n", Err("there is a zero byte in the password")),
            (&long, Err("the password is longer than 1024 bytes")),
        ];
        for (input, expected) in table {
            let read = read_line(&mut { input }).expect("read");
            let expected = expected.map(<[u8]>::to_vec).map_err(Failure::usage);
            assert_eq!(check(read), expected, "{input:?}");
        }
    }

    #[test]
    fn the_file_of_a_user_is_found_by_its_path_and_cannot_be_changed() {
        let file = PasswordFile::new(b"joe", b"realm", b"secret").expect("a file");
        let text = std::fs::read(file.path()).expect("readable");
        assert!(htpasswd::find_ha1(&text, b"realm", b"joe").is_some());
        assert!(std::fs::write(file.path(), "joe:realm:").is_err());
    }
}
