//! Starts programs: for a request, for a part of a page, for a command in one.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::connection::Conn;
use super::context::Context;
use super::programs::Owner;
use crate::cgi::environment::{self, Request};
use crate::cgi::process::Spec;
use crate::files::resolve;
use crate::http::uri;
use crate::site::Site;

/// What is to be run for a request, and what it is told of it.
pub(super) struct Launch<'a> {
    pub file: &'a Path,
    pub name: &'a [u8],
    pub info: &'a [u8],
    pub query: &'a [u8],
    pub method: &'a [u8],
    pub content_length: Option<u64>,
    pub has_input: bool,
    /// For the shell, in place of the file.
    pub command: Option<&'a Path>,
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

impl Conn {
    /// Starts a program whose output becomes part of a page.
    pub(super) fn start_included(
        &mut self,
        cx: &mut Context,
        file: PathBuf,
        name: Vec<u8>,
        info: Vec<u8>,
        query: &[u8],
    ) -> Result<usize, &'static str> {
        let Some(exchange) = self.exchange.as_deref_mut() else { return Err("no request") };
        let may_run = Site { exchange, cx }.may_run(&file);
        may_run.map_err(|_| "a program that may not be run")?;
        let launch = Launch { file: &file, name: &name, info: &info, query, ..Launch::default() };
        self.launch(cx, &launch).map_err(|_| "a program that cannot be run")
    }

    /// Starts a shell command of the page `file`.
    pub(super) fn start_command(
        &mut self,
        cx: &mut Context,
        file: &Path,
        name: &[u8],
        command: &[u8],
    ) -> Result<usize, &'static str> {
        let command = Some(Path::new(OsStr::from_bytes(command)));
        let launch = Launch { file, name, command, ..Launch::default() };
        self.launch(cx, &launch).map_err(|_| "a command that cannot be run")
    }

    /// Starts a program for a request; what fails is in the error log.
    pub(super) fn launch(&mut self, cx: &mut Context, launch: &Launch<'_>) -> io::Result<usize> {
        let config = &cx.options.config;
        let conn = Some(&*self);
        let Some((conn, exchange)) = conn.and_then(|conn| Some((conn, conn.exchange.as_deref()?)))
        else {
            return Err(ErrorKind::NotConnected.into());
        };
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let file = absolute(launch.file);
        let root = config.document_root.as_deref().unwrap_or(Path::new("/"));
        let translated = resolve::full_path(config, launch.info).as_deref().map(absolute);
        let bytes = exchange.buf.get(..exchange.head.len).unwrap_or_default();
        let environment = environment::table(&Request {
            head: &exchange.head,
            bytes,
            method: launch.method,
            target: &origin_form(bytes.get(exchange.head.target.range()).unwrap_or_default()),
            query: launch.query,
            server_name: &config.auth_domain,
            local: conn.socket.local_addr().ok(),
            peer: conn.socket.peer_addr().ok(),
            secure: conn.tls.is_some(),
            user: &exchange.user,
            content_length: launch.content_length,
            document_root: &absolute(root),
            script_name: launch.name,
            script_file: &file,
            path_info: launch.info,
            path_translated: translated.as_deref(),
            extra: &config.cgi_environment,
        });
        let interpreter = config.cgi_interpreter.as_deref().map(|interpreter| {
            // A bare name is looked for in PATH.
            let is_bare = !interpreter.as_os_str().as_bytes().contains(&b'/');
            if is_bare { interpreter.to_owned() } else { absolute(interpreter) }
        });
        let (program, arguments) = match (launch.command, &interpreter) {
            (Some(command), _) => (Path::new("/bin/sh"), vec![Path::new("-c"), command]),
            (None, Some(interpreter)) => (interpreter.as_path(), vec![file.as_path()]),
            (None, None) => (file.as_path(), Vec::new()),
        };
        let spec = Spec {
            program,
            arguments: &arguments,
            environment: &environment,
            directory: file.parent().unwrap_or(Path::new("/")),
            has_input: launch.has_input,
            is_heard: cx.logs.error.is_on(),
        };
        let name = crate::log::shown(&file);
        let (client, index) = (self.peer, self.index());
        cx.has_room_for_program().inspect_err(|error| {
            cx.complain_of(client, &format!("cannot run {name}: {error}"));
        })?;
        let owner = Owner { index, address: client };
        cx.start_program(owner, &spec, name).inspect_err(|error| {
            let name = crate::log::shown(&file);
            let is_absent = error.kind() == ErrorKind::NotFound;
            let what = match &interpreter {
                Some(interpreter) if launch.command.is_none() => {
                    format!("cannot run {name} by {}: {error}", crate::log::shown(interpreter))
                }
                // The kernel says the same of the program in its first line.
                None if is_absent && file.exists() => {
                    format!("cannot run {name}: its first line names a program that is not there")
                }
                _ => format!("cannot run {name}: {error}"),
            };
            cx.complain_of(client, &what);
        })
    }
}

/// Path and query as the client wrote them, without the host of an absolute target.
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

/// What to tell the client of a program that cannot be started.
pub fn status_of(error: &io::Error) -> u16 {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ACCESS) => 403,
        Some(Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM | Errno::NOSPC) => 503,
        _ if error.kind() == ErrorKind::WouldBlock => 503,
        _ => 500,
    }
}
