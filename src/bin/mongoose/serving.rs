//! A server from its start to its end: what is wished for is carried out here, in the order that it needs.

use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mongoose::options::OptionId;

use crate::addresses;
use crate::catalogue::INDEX_FILES;
use crate::certificate::SelfSigned;
use crate::failure::Failure;
use crate::passwords::{self, PasswordFile};
use crate::relay::{Relay, To};
use crate::server::Server;
use crate::signals::{Requests, Signals};
use crate::systemd::{self, Manager};
use crate::terminal;
use crate::wishes::{Origin, Setting, Wish, Wishes, name_of};

/// The port that is tried first, and the number of those that are tried.
const FIRST_PORT: u16 = 8080;
const PORTS: u16 = 100;
/// The time in milliseconds after which the loop looks around without any event.
const TURN_MS: u16 = 1000;
/// The same at the end, when connections become idle one after the other.
const LAST_TURNS_MS: u16 = 50;
/// The value of `--tls` for a new certificate.
const SELF_SIGNED: &[u8] = b"self-signed";

/// The options that are set again by SIGHUP: their files are read or opened again.
const RELOADED: [OptionId; 5] = [
    OptionId::AccessLogFile,
    OptionId::ErrorLogFile,
    OptionId::SslCaCertificate,
    OptionId::SslCertificate,
    OptionId::SslCertificates,
];

/// A server that is ready to serve, with all that has to live as long.
struct Site {
    server: Server,
    wishes: Wishes,
    /// The sockets that it was started with.
    sockets: Vec<RawFd>,
    fingerprint: Option<String>,
    relays: Vec<Relay>,
    /// The file of `--user`, which the server opens by its path.
    _passwords: Option<PasswordFile>,
}

/// Serves until a signal ends it.
pub fn serve(wishes: Wishes) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::trouble(format!("cannot wait for signals: {error}"));
    let signals = Signals::block().map_err(failed)?;
    let server = Server::new().ok_or_else(|| Failure::trouble("there is no memory"))?;
    let requests = signals.begin(server.waker()).map_err(failed)?;
    let manager = Manager::from_environment();
    let mut site = Site::prepare(server, wishes)?;
    // Who sees the URLs, or connects, may send a signal at once.
    requests.serve();
    let result = site.start().map(|urls| site.run(&requests, &manager, &urls));
    site.end();
    result
}

impl Site {
    /// Completes what is wished for by what follows from it. Nothing is opened yet but what is needed to
    /// find that out.
    fn prepare(server: Server, mut wishes: Wishes) -> Result<Site, Failure> {
        let sockets = systemd::sockets()?;
        if let (false, Some(setting)) =
            (sockets.is_empty(), wishes.setting(OptionId::ListeningPort))
        {
            let why = "the sockets come from the environment (LISTEN_FDS)";
            return Err(setting.origin.refuse(setting.name, why));
        }
        choose_folder(&mut wishes)?;
        if !wishes.cgi {
            if wishes.setting(OptionId::CgiPattern).is_none() {
                // Where a directory has a program for its index, it is listed.
                wishes.set_default(OptionId::IndexFiles, INDEX_FILES);
            }
            wishes.set_default(OptionId::CgiPattern, "none");
        }
        let fingerprint = choose_certificate(&mut wishes)?;
        let passwords = ask_for_password(&mut wishes)?;
        allow_uploads(&mut wishes)?;
        Ok(Site { server, wishes, sockets, fingerprint, relays: Vec::new(), _passwords: passwords })
    }

    /// Sets all options, listens, and tells where. Returns the URLs.
    fn start(&mut self) -> Result<Vec<String>, Failure> {
        let (is_terminal, in_colour) = terminal::output();
        if self.wishes.setting(OptionId::ErrorLogFile).is_none() {
            self.show_log(OptionId::ErrorLogFile, To::StandardError)?;
        }
        if is_terminal
            && !self.wishes.quiet
            && self.wishes.setting(OptionId::AccessLogFile).is_none()
        {
            self.show_log(OptionId::AccessLogFile, To::Terminal { in_colour })?;
        }
        // The error log has the details of what is refused later. Sockets and files may need rights that the
        // other user does not have.
        self.wishes.settings.sort_by_key(|setting| match setting.id {
            OptionId::ErrorLogFile => 0,
            OptionId::ListeningPort => 2,
            OptionId::RunAsUser => 3,
            _ => 1,
        });
        if let Some(setting) = self.wishes.setting(OptionId::ListeningPort) {
            self.keep_uploads_here(&setting.value)?;
        }
        let needs_port =
            self.sockets.is_empty() && self.wishes.setting(OptionId::ListeningPort).is_none();
        for setting in &self.wishes.settings {
            if setting.id == OptionId::RunAsUser {
                break;
            }
            set(&mut self.server, setting)?;
        }
        if !self.sockets.is_empty() {
            let adopted = self.server.adopt(&self.sockets);
            adopted.map_err(|why| Failure::usage(format!("LISTEN_FDS: {why}")))?;
        } else if needs_port {
            self.listen_somewhere()?;
        }
        let list = self.server.get(c"listening_port");
        self.keep_uploads_here(&list)?;
        if let Some(setting) = self.wishes.setting(OptionId::RunAsUser) {
            set(&mut self.server, setting)?;
        }
        let has_tls = self.wishes.setting(OptionId::SslCertificate).is_some();
        let urls = addresses::urls(&list, has_tls, &addresses::of_this_machine());
        if !self.wishes.quiet {
            let lines = urls.iter().map(|url| format!("{url}\n")).collect::<String>();
            let fingerprint = self.fingerprint.as_deref();
            let fingerprint =
                fingerprint.map(|digits| format!("SHA-256 of the certificate: {digits}\n"));
            let mut out = io::stdout().lock();
            // Who does not read them may do without.
            let _ = write!(out, "{lines}{}", fingerprint.unwrap_or_default());
            let _ = out.flush();
        }
        Ok(urls)
    }

    fn show_log(&mut self, id: OptionId, to: To) -> Result<(), Failure> {
        let relay = Relay::begin(to);
        let relay =
            relay.map_err(|error| Failure::trouble(format!("no pipe for a log: {error}")))?;
        let path = relay.path();
        self.relays.push(relay);
        // Not among the wishes: it is not opened again by SIGHUP.
        self.server.set(name_of(id), path.as_bytes()).map_err(Failure::trouble)
    }

    /// Listens on the first port that is free.
    fn listen_somewhere(&mut self) -> Result<(), Failure> {
        let is_for_all = !self.is_open_to_uploads() || self.wishes.anybody;
        let host = match is_for_all {
            false => "127.0.0.1:",
            // Both families, where the system has both.
            true if TcpListener::bind("[::]:0").is_ok() => "[::]:",
            true => "0.0.0.0:",
        };
        for port in FIRST_PORT..FIRST_PORT + PORTS {
            let address = format!("{host}{port}");
            // The library would complain of each that is taken.
            if TcpListener::bind(&address).is_ok()
                && self.server.set("listening_port", address.as_bytes()).is_ok()
            {
                return Ok(());
            }
        }
        let last = FIRST_PORT + PORTS - 1;
        Err(Failure::trouble(format!(
            "no port from {FIRST_PORT} to {last} is free: name one with --listening_port"
        )))
    }

    /// Whether everybody who reaches the server may upload.
    fn is_open_to_uploads(&self) -> bool {
        let setting = self.wishes.settings.iter().find(|s| s.name == "uploads_by_anybody");
        setting.is_some_and(|setting| setting.value.eq_ignore_ascii_case(b"yes"))
    }

    /// Refuses addresses from which everybody could upload, if that was not said.
    fn keep_uploads_here(&self, list: &[u8]) -> Result<(), Failure> {
        match addresses::reached_from_elsewhere(list) {
            Some(address) if self.is_open_to_uploads() && !self.wishes.anybody => {
                Err(Failure::usage(format!(
                    "everybody who reaches {address} could upload: \
                     add --user NAME, or --anybody if that is meant"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Serves until a signal asks for the end, and then until running transfers have ended.
    fn run(&mut self, requests: &Arc<Requests>, manager: &Manager, urls: &[String]) {
        // The first turn makes what wakes the server, which a signal needs.
        self.server.poll(0);
        let status = format!("Serving at {}", urls.join(" "));
        manager.ready(&status);
        while !requests.wants_end() {
            self.server.poll(TURN_MS);
            if requests.take_reload() {
                manager.reloading();
                self.reload();
                manager.ready(&status);
            }
        }
        manager.stopping();
        // Who waits at the door is let in, and nobody after that.
        self.server.poll(0);
        if let Err(why) = self.server.set("listening_port", b"") {
            terminal::complain(&why);
        }
        let end = Instant::now() + self.wishes.grace;
        while !requests.wants_end_now() && self.server.close_idle() > 0 && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            let left = left.min(Duration::from_millis(LAST_TURNS_MS.into()));
            self.server.poll(u16::try_from(left.as_millis()).unwrap_or(LAST_TURNS_MS));
        }
    }

    /// Reads certificates anew, and opens logs again.
    fn reload(&mut self) {
        for setting in self.wishes.settings.iter().filter(|s| RELOADED.contains(&s.id)) {
            let is_log = matches!(setting.id, OptionId::AccessLogFile | OptionId::ErrorLogFile);
            if is_log && let Err(error) = can_append(&setting.value) {
                // The library would give up the file that it has.
                terminal::complain(&format!("{}: {error}; the old file goes on", setting.name));
                continue;
            }
            if let Err(failure) = set(&mut self.server, setting) {
                terminal::complain(&format!("{}; the old one goes on", failure.sentence));
            }
        }
    }

    /// Ends the server, and shows the last lines of its logs.
    fn end(self) {
        drop(self.server);
        self.relays.into_iter().for_each(Relay::end);
    }
}

/// Sets an option, whose refusal is told by its origin.
fn set(server: &mut Server, setting: &Setting) -> Result<(), Failure> {
    // `--tls` goes by its own name in what people are told.
    let set = server.set(name_of(setting.id), &setting.value);
    set.map_err(|why| setting.origin.refuse(setting.name, why))
}

fn can_append(path: &[u8]) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true).mode(0o644);
    // A FIFO may have no reader for the moment.
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).map(drop)
}

/// Chooses the directory that is shared, which has to be one.
fn choose_folder(wishes: &mut Wishes) -> Result<(), Failure> {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let named = wishes.folder.clone().map(|folder| (folder, None));
    let named = named.or_else(|| {
        let setting = wishes.setting(OptionId::DocumentRoot)?;
        let folder = PathBuf::from(std::ffi::OsString::from_vec(setting.value.clone()));
        Some((folder, Some(setting.origin.clone())))
    });
    let (folder, origin) = named.unwrap_or_else(|| (PathBuf::from("."), None));
    let opened = std::fs::read_dir(&folder);
    opened.map_err(|error| {
        let why = format!("{}: {error}", folder.display());
        match &origin {
            Some(origin) => origin.refuse(name_of(OptionId::DocumentRoot), why),
            None => Failure::usage(why),
        }
    })?;
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    wishes.set(Setting {
        id: OptionId::DocumentRoot,
        name: name_of(OptionId::DocumentRoot),
        value: folder.as_os_str().as_bytes().to_vec(),
        origin: origin.unwrap_or(Origin::Program),
    });
    Ok(())
}

/// Turns `--tls` into a certificate. Returns the fingerprint of a new one.
fn choose_certificate(wishes: &mut Wishes) -> Result<Option<String>, Failure> {
    let Some(Wish { value, origin }) = wishes.tls.take() else { return Ok(None) };
    if wishes.setting(OptionId::SslCertificate).is_some() {
        return Err(origin.refuse("tls", "ssl_certificate is set as well"));
    }
    let (value, fingerprint) = match value.as_slice() {
        SELF_SIGNED => {
            let made = SelfSigned::new()?;
            (made.text, Some(made.fingerprint))
        }
        _ => (value, None),
    };
    let (id, name) = (OptionId::SslCertificate, "tls");
    wishes.set(Setting { id, name, value, origin });
    Ok(fingerprint)
}

/// Asks for the password of `--user`, which then guards everything.
fn ask_for_password(wishes: &mut Wishes) -> Result<Option<PasswordFile>, Failure> {
    let Some(Wish { value: user, origin }) = wishes.user.take() else { return Ok(None) };
    for id in [OptionId::GlobalAuthFile, OptionId::DavAuthFile] {
        if let Some(setting) = wishes.setting(id) {
            let why = format!("{} is set as well: one of them can say who gets in", setting.name);
            return Err(origin.refuse("user", why));
        }
    }
    let realm = wishes.setting(OptionId::AuthDomain).map(|setting| setting.value.clone());
    let realm = realm.unwrap_or_else(|| b"mongoose".to_vec());
    passwords::check_name(&realm)
        .map_err(|why| origin.refuse("user", format!("auth_domain: {why}")))?;
    let password = passwords::ask(&user, false)?;
    let file = PasswordFile::new(&user, &realm, &password).map_err(|error| {
        Failure::trouble(format!("the password cannot be kept in memory: {error}"))
    })?;
    wishes.set_default(OptionId::AuthDomain, realm);
    wishes.set_default(OptionId::GlobalAuthFile, file.path());
    wishes.set_default(OptionId::EnableBasicAuth, "tls");
    Ok(Some(file))
}

/// Turns `--upload` into options of the library.
fn allow_uploads(wishes: &mut Wishes) -> Result<(), Failure> {
    let Some(origin) = wishes.upload.take() else { return Ok(()) };
    let find = |name: &str| {
        mongoose::options::lookup(name.as_bytes())
            .ok_or_else(|| origin.refuse("upload", format!("No such option: {name}")))
    };
    wishes.set_default(find("enable_uploads")?, "yes");
    // Who gets in is who may upload.
    let files = [OptionId::DavAuthFile, OptionId::GlobalAuthFile];
    let file = files.into_iter().find_map(|id| wishes.setting(id)).map(|s| s.value.clone());
    match file {
        Some(file) => wishes.set_default(OptionId::DavAuthFile, file),
        None => wishes.set_default(find("uploads_by_anybody")?, "yes"),
    }
    Ok(())
}
