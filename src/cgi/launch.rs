//! The start of a CGI program (RFC 3875, section 4): for a request, for a part of a page, or for a
//! command in a page.
//!
//! Refuses to know who wants the output, and whether the program may be run.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::environment::{self, ClientCertificate, MetaVariables};
use super::process::Spec;
use super::table::{Owner, Programs};
use crate::http::request::Head;
use crate::http::uri;
use crate::log::shown;
use crate::options::Config;
use crate::peer::Peer;

/// The program to start for a request, and the parts of the request that differ between programs of
/// one page.
pub struct Launch<'a> {
    pub file: &'a Path,
    pub name: &'a [u8],
    pub info: &'a [u8],
    pub query: &'a [u8],
    pub method: &'a [u8],
    pub content_length: Option<u64>,
    pub has_input: bool,
    /// The command for the shell, in place of the file.
    pub command: Option<&'a Path>,
}

/// The request for which a program is started, and its connection.
pub struct Origin<'a> {
    pub config: &'a Config,
    pub head: &'a Head,
    /// The bytes of the head.
    pub bytes: &'a [u8],
    /// The user that was accepted, and by which scheme.
    pub user: &'a [u8],
    pub scheme: &'a str,
    /// Set if the connection takes Basic authentication.
    pub takes_basic: bool,
    /// The file that `info` of the launch would name.
    pub path_translated: Option<&'a Path>,
    pub local: Option<SocketAddr>,
    pub peer: Peer,
    /// Set if the client speaks https, to this server or to a trusted proxy.
    pub is_https: bool,
    /// Set if the connection uses TLS.
    pub secure: bool,
    /// The certificate that the client has shown.
    pub client: Option<ClientCertificate>,
    /// Set if there is an error log for complaints of the program.
    pub error_is_heard: bool,
}

/// The reason why a program was not started.
#[derive(Debug)]
pub struct Refusal {
    pub error: io::Error,
    /// The line for the error log.
    pub line: String,
}

impl Default for Launch<'_> {
    fn default() -> Self {
        Launch {
            file: Path::new(""),
            name: b"",
            info: b"",
            query: b"",
            method: b"GET",
            content_length: None,
            has_input: false,
            command: None,
        }
    }
}

impl Launch<'_> {
    /// Starts the program for the connection `owner`, and returns its number.
    pub fn run(
        &self,
        origin: &Origin<'_>,
        programs: &mut Programs,
        owner: Owner,
        now: u32,
    ) -> Result<usize, Refusal> {
        let file = absolute(self.file);
        let interpreter = origin.config.cgi_interpreter.as_deref().map(|interpreter| {
            // A name without a slash is searched for in PATH.
            let is_bare = !interpreter.as_os_str().as_bytes().contains(&b'/');
            if is_bare { interpreter.to_owned() } else { absolute(interpreter) }
        });
        let (program, arguments) = match (self.command, &interpreter) {
            (Some(command), _) => (Path::new("/bin/sh"), vec![Path::new("-c"), command]),
            (None, Some(interpreter)) => (interpreter.as_path(), vec![file.as_path()]),
            (None, None) => (file.as_path(), Vec::new()),
        };
        let spec = Spec {
            program,
            arguments: &arguments,
            environment: &self.environment(origin, &file),
            directory: file.parent().unwrap_or(Path::new("/")),
            has_input: self.has_input,
            is_heard: origin.error_is_heard,
        };
        let name = shown(&file);
        if let Err(error) = programs.has_room(origin.config.max_cgi_processes) {
            let line = format!("cannot run {name}: {error}");
            return Err(Refusal { error, line });
        }
        programs.start(owner, &spec, name, now).map_err(|error| {
            let line = self.line_about(&error, &file, interpreter.as_deref());
            Refusal { error, line }
        })
    }

    /// Returns the line of the error log about a program that could not be started.
    fn line_about(&self, error: &io::Error, file: &Path, interpreter: Option<&Path>) -> String {
        let name = shown(file);
        if self.command.is_some() {
            return format!("cannot run {name}: {error}");
        }
        match interpreter {
            Some(interpreter) => format!("cannot run {name} by {}: {error}", shown(interpreter)),
            // The kernel reports the same error for the interpreter in the first line of the file.
            None if error.kind() == ErrorKind::NotFound && file.exists() => {
                format!("cannot run {name}: its first line names a program that is not there")
            }
            None => format!("cannot run {name}: {error}"),
        }
    }

    /// Returns the environment of the program.
    fn environment(&self, origin: &Origin<'_>, file: &Path) -> Vec<CString> {
        let (config, head, bytes) = (origin.config, origin.head, origin.bytes);
        let target = bytes.get(head.target.range()).unwrap_or_default();
        environment::table(&MetaVariables {
            head,
            bytes,
            method: self.method,
            target: &origin_form(target),
            query: self.query,
            server_name: &config.auth_domain,
            local: origin.local,
            peer: origin.peer,
            is_https: origin.is_https,
            secure: origin.secure,
            client: origin.client.as_ref(),
            user: origin.user,
            scheme: origin.scheme,
            takes_basic: origin.takes_basic,
            content_length: self.content_length,
            document_root: &absolute(config.document_root.as_deref().unwrap_or(Path::new("/"))),
            script_name: self.name,
            script_file: file,
            path_info: self.info,
            path_translated: origin.path_translated.map(absolute).as_deref(),
            extra: &config.cgi_environment,
        })
    }
}

/// Returns an absolute path, since the program is started in another directory.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Returns path and query as the client wrote them, without the host of an absolute target.
fn origin_form(target: &[u8]) -> Vec<u8> {
    let (path, query) = match uri::split_target(target) {
        Ok(parts) => (parts.path, parts.query),
        Err(_) => (target, None),
    };
    match query {
        Some(query) => [path, b"?", query].concat(),
        None => path.to_vec(),
    }
}

/// Returns the status for the client of a program that could not be started.
pub fn status_of(error: &io::Error) -> u16 {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ACCESS) => 403,
        Some(Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM | Errno::NOSPC) => 503,
        _ if error.kind() == ErrorKind::WouldBlock => 503,
        _ => 500,
    }
}
