//! A server whose files one user may write to, and requests of that user.

use std::cell::{Cell, RefCell};

use md5::{Digest as _, Md5};

use super::{Client, Response, Scratch, Server};

/// `server.c` on the folder `root` of a scratch folder, writable to joe.
pub struct Dav {
    pub scratch: Scratch,
    pub server: Server,
    args: Vec<String>,
    nonce: RefCell<String>,
    count: Cell<u32>,
}

impl Dav {
    pub fn start(args: &[&str]) -> Dav {
        Dav::start_in(Scratch::new(), args)
    }

    /// On files that are there already.
    pub fn start_in(scratch: Scratch, args: &[&str]) -> Dav {
        Dav::start_by(scratch, args, start)
    }

    /// Under strace, which makes calls fail; see [`Server::start_failing`].
    pub fn start_failing(scratch: Scratch, faults: &[String], args: &[&str]) -> Dav {
        Dav::start_by(scratch, args, |args| Server::start_failing(&plain(faults), &plain(args)))
    }

    fn start_by(scratch: Scratch, args: &[&str], start: impl Fn(&[String]) -> Server) -> Dav {
        std::fs::create_dir_all(scratch.join("root")).expect("a root");
        let lines = ["joe", "jane"].map(|user| {
            format!("{user}:mydomain.com:{}\n", hex(&format!("{user}:mydomain.com:secret")))
        });
        scratch.write("passwords", lines.concat());
        let mut all = vec![
            format!("document_root={}", scratch.join("root")),
            format!("dav_auth_file={}", scratch.join("passwords")),
        ];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        let server = start(&all);
        let nonce = RefCell::new(String::new());
        Dav { scratch, server, args: all, nonce, count: Cell::new(0) }
    }

    /// Kills the server and starts another on the same files.
    pub fn restart(&mut self) {
        let server = start(&self.args);
        std::mem::replace(&mut self.server, server).program.kill();
        self.nonce.borrow_mut().clear();
    }

    /// A request of joe's: `fields` are lines, each with its end.
    pub fn request(&self, method: &str, path: &str, fields: &str, body: &str) -> String {
        self.request_of("joe", method, path, fields, body)
    }

    pub fn request_of(
        &self,
        user: &str,
        method: &str,
        path: &str,
        fields: &str,
        body: &str,
    ) -> String {
        let authorization = self.authorization(user, method, path);
        let length = match body {
            "" => String::new(),
            body => format!("Content-Length: {}\r\n", body.len()),
        };
        let host = format!("Host: 127.0.0.1:{}\r\n", self.server.port);
        format!("{method} {path} HTTP/1.1\r\n{host}{authorization}{fields}{length}\r\n{body}")
    }

    /// The Authorization field, with its line end.
    pub fn authorization(&self, user: &str, method: &str, path: &str) -> String {
        if self.nonce.borrow().is_empty() {
            let answer = self.server.ask("LOCK /nonce HTTP/1.1\r\n\r\n");
            let field = answer.field("WWW-Authenticate").expect("a challenge");
            let start = field.find("nonce=\"").expect("a nonce") + 7;
            let nonce = field[start..].split('"').next().expect("its end");
            *self.nonce.borrow_mut() = nonce.to_owned();
            self.count.set(0);
        }
        self.count.set(self.count.get() + 1);
        let (nonce, count) = (self.nonce.borrow(), format!("{:08x}", self.count.get()));
        let (ha1, ha2) =
            (hex(&format!("{user}:mydomain.com:secret")), hex(&format!("{method}:{path}")));
        let response = hex(&format!("{ha1}:{nonce}:{count}:abc:auth:{ha2}"));
        format!(
            "Authorization: Digest username=\"{user}\", realm=\"mydomain.com\", \
             nonce=\"{nonce}\", uri=\"{path}\", qop=auth, nc={count}, cnonce=\"abc\", \
             response=\"{response}\"\r\n"
        )
    }

    /// Takes a nonce of another server, whose next requests count from 1.
    pub fn use_nonce(&self, nonce: &str) {
        *self.nonce.borrow_mut() = nonce.to_owned();
        self.count.set(0);
    }

    /// The answer to a request of joe's.
    pub fn ask(&self, method: &str, path: &str, fields: &str, body: &str) -> Response {
        self.server.ask(self.request(method, path, fields, body))
    }

    /// Its status.
    pub fn status(&self, method: &str, path: &str, fields: &str, body: &str) -> u16 {
        self.ask(method, path, fields, body).status
    }

    /// The status of COPY or MOVE.
    pub fn transfer(&self, method: &str, from: &str, to: &str) -> u16 {
        self.status(method, from, &format!("Destination: {to}\r\n"), "")
    }

    /// Locks something for joe; the token.
    pub fn lock(&self, path: &str, fields: &str) -> String {
        let answer = self.ask("LOCK", path, fields, LOCK);
        assert!(matches!(answer.status, 200 | 201), "{}\n{}", answer.head, answer.text());
        let field = answer.field("Lock-Token").expect("a token");
        field.trim_matches(['<', '>']).to_owned()
    }

    pub fn propfind(&self, path: &str, depth: &str, body: &str) -> Response {
        let depth = format!("Depth: {depth}\r\n");
        self.ask("PROPFIND", path, &depth, body)
    }

    pub fn client(&self) -> Client {
        self.server.client()
    }

    /// Names in a folder below the root, sorted, with ours that clients never see.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.scratch.join(&format!("root/{folder}")));
        let entries = entries.expect("a folder");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Names that are left of work in a folder, or held for it.
    pub fn unfinished(&self, folder: &str) -> Vec<String> {
        let mut names = self.names(folder);
        names.retain(|name| name.starts_with(".mongoose-dav") && name != ".mongoose-dav");
        names
    }

    pub fn read(&self, name: &str) -> String {
        self.scratch.read(&format!("root/{name}"))
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Dav {
        self.scratch.write(&format!("root/{name}"), content);
        self
    }

    pub fn exists(&self, name: &str) -> bool {
        std::path::Path::new(&self.scratch.join(&format!("root/{name}"))).exists()
    }

    /// The server still answers, and ends cleanly.
    #[track_caller]
    pub fn stop(self) {
        self.server.stop();
    }
}

/// The body that asks for an exclusive lock.
pub const LOCK: &str = "<D:lockinfo xmlns:D='DAV:'><D:lockscope><D:exclusive/></D:lockscope>\
    <D:locktype><D:write/></D:locktype><D:owner>joe</D:owner></D:lockinfo>";

fn start(args: &[String]) -> Server {
    Server::start(&plain(args))
}

fn plain(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

fn hex(text: &str) -> String {
    Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
