//! Keys, password files and logs that lie below `document_root` are not there for any client.

use std::fs::{hard_link, remove_file, rename};
use std::os::unix::fs::symlink;

use crate::support::{Dav, Response, Scratch, Server, request, until};

fn get(server: &Server, path: &str) -> Response {
    server.ask(format!("GET {path} HTTP/1.1\r\n\r\n"))
}

fn md5(text: &str) -> String {
    use md5::Digest as _;
    md5::Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn users() -> String {
    format!("joe:mydomain.com:{}\n", md5("joe:mydomain.com:secret"))
}

/// What is hidden in [`site`]. Some of it is not there.
const HIDDEN: [&str; 11] = [
    "users",
    "users.0123456789abcdef",
    "hard",
    "soft",
    "d/deep",
    "logs/access.log",
    "logs/access.log.1",
    "logs/access.log.2.gz",
    "logs/error.log",
    "logs/error.log.old",
    "rotated",
];

/// A root with all that options name in it, and other names that lead there.
fn site() -> Dav {
    let scratch = Scratch::new();
    for name in ["logs/access.log.1", "users.0123456789abcdef", "logs/error.log.old"] {
        scratch.write(&format!("root/{name}"), "secret");
    }
    scratch.write("root/users", users()).write("root/users.html", "public");
    scratch.write("root/d/a", "public").write("root/logs/b", "public");
    scratch.write("root/page.js", "public").write("root/index/a", "public");
    let path = |name: &str| scratch.join(&format!("root/{name}"));
    hard_link(path("users"), path("hard")).expect("a link");
    hard_link(path("users"), path("page.js.gz")).expect("a link");
    hard_link(path("users"), path("index/index.html")).expect("a link");
    hard_link(path("users"), path("x.cgi")).expect("a link");
    symlink("users", path("soft")).expect("a link");
    symlink("../soft", path("d/deep")).expect("a link");
    symlink("logs/access.log.1", path("rotated")).expect("a link");
    let tags = HIDDEN.map(|name| format!("<!--#include virtual=\"/{name}\" -->"));
    scratch.write("root/page.shtml", format!("[{}]", tags.concat()));
    let args = [
        format!("dav_auth_file={}", path("users")),
        format!("access_log_file={}", path("logs/access.log")),
        format!("error_log_file={}", path("logs/error.log")),
        format!("url_rewrites=/rewritten={}", path("users")),
        "ssi_pattern=**.shtml$".to_owned(),
        "enable_precompressed=yes".to_owned(),
    ];
    Dav::start_in(scratch, &args.each_ref().map(String::as_str))
}

#[test]
#[cfg_attr(not(feature = "webdav"), ignore = "built without WebDAV")]
fn what_options_name_is_hidden_from_every_method() {
    let dav = site();
    let kept = dav.read("users");
    let more = ["rewritten", "x.cgi", "x.cgi/info"];
    for path in HIDDEN.iter().chain(&more).map(|name| format!("/{name}")) {
        for method in ["GET", "HEAD", "POST", "PROPFIND"] {
            let mut client = dav.server.client();
            client.send(format!("{method} {path} HTTP/1.1\r\n\r\n"));
            let answer = match method {
                "HEAD" => client.response_without_body(),
                _ => client.response(),
            };
            assert_eq!(answer.status, 404, "{method} {path}");
        }
        if path.contains("info") {
            continue;
        }
        for method in ["PUT", "DELETE", "MKCOL", "PROPPATCH", "LOCK", "UNLOCK", "COPY", "MOVE"] {
            let fields = "Destination: /taken\r\nLock-Token: <urn:x>\r\n";
            assert_eq!(dav.status(method, &path, fields, ""), 404, "{method} {path}");
        }
        for method in ["COPY", "MOVE"] {
            assert_eq!(dav.transfer(method, "/d/a", &path), 403, "{method} to {path}");
        }
    }
    assert!(!dav.exists("taken") && dav.exists("d/a"));
    assert_eq!(dav.read("users"), kept);
    assert_eq!(get(&dav.server, "/users.html").text(), "public");
    dav.stop();
}

#[test]
#[cfg_attr(not(feature = "webdav"), ignore = "built without WebDAV")]
fn what_options_name_is_not_told_of() {
    let dav = site();
    for dir in ["", "d/", "logs/"] {
        let listing = get(&dav.server, &format!("/{dir}")).text();
        let found = dav.propfind(&format!("/{dir}"), "1", "").text();
        for name in HIDDEN.iter().filter_map(|name| name.strip_prefix(dir)) {
            assert!(!listing.contains(&format!("\"{name}\"")), "{name} in\n{listing}");
            assert!(!found.contains(&format!("/{dir}{name}<")), "{name} in\n{found}");
        }
    }
    assert!(get(&dav.server, "/").text().contains("\"users.html\""));
    assert_eq!(get(&dav.server, "/page.shtml").text(), "[]");
    let page = dav.server.ask("GET /page.js HTTP/1.1\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!((page.text().as_str(), page.field("Content-Encoding")), ("public", None));
    assert!(get(&dav.server, "/index/").text().contains("Index of"));
    dav.stop();
}

#[test]
#[cfg_attr(not(feature = "webdav"), ignore = "built without WebDAV")]
fn what_options_name_does_not_go_with_its_directory() {
    let dav = site();
    for method in ["DELETE", "MOVE"] {
        let fields = "Destination: /elsewhere\r\n";
        assert_eq!(dav.status(method, "/logs/", fields, ""), 403, "{method}");
    }
    assert_eq!(dav.transfer("COPY", "/d", "/logs"), 403);
    assert_eq!(dav.status("COPY", "/logs", "Destination: /copy\r\n", ""), 201);
    assert_eq!(dav.names("copy"), ["b"]);
    // Nor can a directory bring what an option is to name.
    assert_eq!(dav.status("MKCOL", "/new", "", ""), 201);
    assert_eq!(dav.status("PUT", "/new/users", "", "joe:"), 201);
    let set = format!("set global_auth_file {}", dav.scratch.join("root/later/users"));
    dav.server.ask(request("POST", "1.1", &[&set, "status 200"]));
    let unset = request("POST", "1.1", &["set global_auth_file ", "status 200"]);
    assert_eq!(dav.transfer("MOVE", "/new", "/later"), 403);
    assert_eq!(dav.transfer("COPY", "/new", "/later"), 201);
    assert_eq!(dav.names("later"), [""; 0]);
    dav.server.ask(unset);
    dav.stop();
}

#[test]
#[cfg_attr(not(feature = "webdav"), ignore = "built without WebDAV")]
fn the_way_to_what_options_name_stays_as_it_is() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.join(&format!("root/{name}"));
    scratch.write("root/real/users", users()).write("root/mine/users", "joe:");
    for (target, link) in [("inner", "outer"), ("real", "inner"), ("mine", "other")] {
        symlink(target, path(link)).expect("a link");
    }
    let passwords = format!("dav_auth_file={}", path("outer/users"));
    let dav = Dav::start_in(scratch, &[&passwords]);
    for link in ["/outer", "/inner"] {
        assert_eq!(dav.status("DELETE", link, "", ""), 403, "{link}");
        assert_eq!(dav.status("MOVE", link, "Destination: /elsewhere\r\n", ""), 403, "{link}");
        for source in ["/mine", "/other"] {
            assert_eq!(dav.transfer("MOVE", source, link), 403, "{source} {link}");
            assert_eq!(dav.transfer("COPY", source, link), 403, "{source} {link}");
        }
    }
    // Other links are anybody's.
    assert_eq!(dav.transfer("MOVE", "/other", "/another"), 201);
    assert_eq!(dav.status("DELETE", "/another", "", ""), 204);
    dav.stop();
}

#[test]
fn what_was_in_use_stays_hidden_when_something_takes_its_place() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.join(&format!("root/{name}"));
    scratch.write("root/users", users()).write("root/v1", users()).write("root/v2", "public");
    scratch.write("root/a", "public").write("root/other.log", "");
    symlink("v1", path("current")).expect("a link");
    let args = [
        format!("document_root={}", scratch.join("root")),
        format!("dav_auth_file={}", path("users")),
        format!("global_auth_file={}", path("none")),
        format!("access_log_file={}", path("log")),
    ];
    let server = Server::start(&args.each_ref().map(String::as_str));
    let set = |name: &str, value: &str| {
        let step = format!("set {name} {value}");
        assert_eq!(server.ask(request("POST", "1.1", &[&step, "status 200"])).status, 200);
    };
    let statuses = |names: &[&str]| -> Vec<u16> {
        names.iter().map(|name| get(&server, &format!("/{name}")).status).collect()
    };
    set("global_auth_file", "");
    assert_eq!(statuses(&["users", "log", "a", "v1", "v2"]), [404, 404, 200, 200, 200]);
    // A key or password file is renewed by a rename, and has other names.
    hard_link(path("users"), path("kept")).expect("a link");
    rename(path("users"), path("backup")).expect("renamed");
    scratch.write("root/fresh", users());
    rename(path("fresh"), path("users")).expect("renamed");
    assert_eq!(statuses(&["users", "kept", "backup"]), [404; 3]);
    // A log is rotated, to any name. Its lines may be written after the answer that they tell of.
    until("there is a log", || std::path::Path::new(&path("log")).exists());
    rename(path("log"), path("yesterday")).expect("renamed");
    assert_eq!(statuses(&["yesterday", "log"]), [404; 2]);
    scratch.write("root/log.7.gz", "");
    assert_eq!(statuses(&["log.7.gz"]), [404]);
    // The option changes.
    set("access_log_file", &path("other.log"));
    assert_eq!(statuses(&["log", "yesterday", "other.log", "other.log.1"]), [404; 4]);
    // The end of a link changes, to what was served before.
    set("global_auth_file", &path("current"));
    assert_eq!(statuses(&["v2", "v1"]), [401; 2]);
    set("global_auth_file", "");
    set("dav_auth_file", &path("current"));
    assert_eq!(statuses(&["v2", "v1", "current"]), [200, 404, 404]);
    remove_file(path("current")).expect("removed");
    symlink("v2", path("current")).expect("a link");
    assert_eq!(statuses(&["v2", "v1", "current", "a"]), [404, 404, 404, 200]);
    server.stop();
}

#[cfg(feature = "tls")]
#[test]
fn a_key_below_the_root_is_hidden_and_certificates_are_not() {
    needs!("openssl");
    use crate::support::{Authority, Client, Tunnel};
    let authority = Authority::get();
    let scratch = Scratch::new();
    let pem = std::fs::read_to_string(authority.identity("ec")).expect("an identity");
    let trusted = std::fs::read_to_string(authority.trusted()).expect("certificates");
    scratch.write("root/server.pem", &pem).write("root/ca.pem", &trusted);
    let path = |name: &str| scratch.join(&format!("root/{name}"));
    hard_link(path("server.pem"), path("hard")).expect("a link");
    let root = format!("document_root={}", scratch.join("root"));
    let server = Server::start(&[&root, &format!("ssl_certificate={}", path("server.pem"))]);
    let tunnel = Tunnel::to(server.port);
    let statuses = |names: &[&str]| -> Vec<u16> {
        let ask = |name: &&str| {
            let request = format!("GET /{name} HTTP/1.1\r\n\r\n");
            Client::connect(tunnel.port).ask(request).status
        };
        names.iter().map(ask).collect()
    };
    assert_eq!(statuses(&["server.pem", "hard", "ca.pem"]), [404, 404, 200]);
    // It is renewed twice without being set again: the server still has the first one.
    for number in ["1", "2"] {
        rename(path("server.pem"), path(number)).expect("renamed");
        scratch.write("root/server.pem", &pem);
        assert_eq!(statuses(&["server.pem", number, "hard", "ca.pem"]), [404, 404, 404, 200]);
    }
    let step = format!("set ssl_certificate {}", path("server.pem"));
    let set = request("POST", "1.1", &[&step, "status 200"]);
    assert_eq!(Client::connect(tunnel.port).ask(set).status, 200);
    assert_eq!(statuses(&["server.pem", "1", "2", "hard", "ca.pem"]), [404, 404, 404, 404, 200]);
    // What is refused may be a key all the same; certificates alone are not.
    let key = pem.split_inclusive("PRIVATE KEY-----\n").take(2).collect::<String>();
    scratch.write("root/key.pem", key);
    for name in ["key.pem", "ca.pem"] {
        let step = format!("set ssl_certificate {}", path(name));
        let set = request("POST", "1.1", &[&step, "status 200"]);
        assert_eq!(Client::connect(tunnel.port).ask(set).status, 200);
    }
    assert_eq!(statuses(&["key.pem", "server.pem", "ca.pem"]), [404, 404, 200]);
    server.program.stop();
}

#[cfg(feature = "tls")]
#[test]
fn the_keys_of_a_list_are_hidden_and_authorities_are_not() {
    needs!("openssl");
    use crate::support::{Authority, Sealed};
    let authority = Authority::get();
    let scratch = Scratch::new();
    let path = |name: &str| scratch.join(&format!("root/{name}"));
    for name in ["a", "b", "c", "d", "e"] {
        scratch.write(&format!("root/{name}.pem"), authority.read("ec.pem"));
    }
    scratch.write("root/ca.pem", authority.read("ca.pem"));
    hard_link(path("b.pem"), path("hard")).expect("a link");
    let mut server = Server::start(&[
        &format!("document_root={}", scratch.join("root")),
        &format!("ssl_certificates=a.x={},b.x={}", path("a.pem"), path("b.pem")),
        &format!("ssl_ca_certificate={}", path("ca.pem")),
        "ssl_verify_client=optional",
    ]);
    let port = server.port;
    let statuses = |names: &[&str]| -> Vec<String> {
        let ask = |name: &&str| {
            let request = format!("GET /{name} HTTP/1.0\r\n\r\n");
            let text = Sealed::new(None).ask(port, "a.x", &request).text;
            text.split(' ').nth(1).unwrap_or_default().to_owned()
        };
        names.iter().map(ask).collect()
    };
    let mut set = |name: &str, value: &str| {
        server.tell(&format!("io set {name} {value}"));
        server.program.expect_start(&format!("set {name}: "))
    };
    let all = ["a.pem", "b.pem", "hard", "c.pem", "ca.pem"];
    assert_eq!(statuses(&all), ["404", "404", "404", "200", "200"]);
    // One is renewed by a rename, and the list gets shorter: what was a key stays hidden.
    rename(path("b.pem"), path("old")).expect("renamed");
    scratch.write("root/b.pem", authority.read("rsa.pem"));
    assert_eq!(statuses(&["b.pem", "old", "hard"]), ["404"; 3]);
    assert_eq!(set("ssl_certificates", &format!("a.x={}", path("c.pem"))), "NULL");
    assert_eq!(statuses(&["a.pem", "b.pem", "old", "hard", "c.pem"]), ["404"; 5]);
    assert_eq!(statuses(&["ca.pem"]), ["200"]);
    // What is refused may hold keys all the same, in each entry, and where authorities should be.
    let list = format!("a.x={},b.x={}", path("d.pem"), path("none.pem"));
    assert_ne!(set("ssl_certificates", &list), "NULL");
    assert_eq!(statuses(&["d.pem", "c.pem", "ca.pem"]), ["404", "404", "200"]);
    assert_eq!(set("ssl_ca_certificate", &path("e.pem")), "NULL");
    assert_eq!(statuses(&["e.pem", "ca.pem"]), ["404", "200"]);
    let key = authority.read("other.key");
    scratch.write("root/key.pem", key);
    assert_ne!(set("ssl_ca_certificate", &path("key.pem")), "NULL");
    assert_eq!(statuses(&["key.pem", "e.pem", "ca.pem"]), ["404", "404", "200"]);
    server.program.stop();
}
