//! WebDAV, uploads and forms.

use super::super::world::{World, password_line};
use super::{PLAIN, Scenario, filling, is_one_of, options};
use crate::support::Scratch;

/// Where joe may change everything.
const DAV: Scenario = Scenario {
    args: |scratch| {
        vec![
            format!("dav_auth_file={}", scratch.join("writers")),
            "dav_depth_infinity=yes".to_owned(),
        ]
    },
    reset: tree,
    prepare: |world| world.prepare_digest("LOCK /nonce HTTP/1.1\r\n\r\n"),
    ..PLAIN
};

pub fn all() -> Vec<Scenario> {
    vec![
        Scenario { name: "PUT over a file", play: put, files: put_is_whole, ..DAV },
        Scenario { name: "long PUT", play: long_put, files: long_put_is_whole, ..DAV },
        Scenario { name: "PUT behind a file", play: append, files: append_is_whole, ..DAV },
        Scenario { name: "COPY of a tree", play: copy, files: tree_is_whole, ..DAV },
        Scenario { name: "MOVE of a tree", play: rename, files: tree_is_whole, ..DAV },
        Scenario { name: "DELETE of a tree", play: delete, files: files_are_whole, ..DAV },
        Scenario { name: "PROPFIND", play: find, files: tree_is_whole, ..DAV },
        Scenario { name: "PROPPATCH", play: patch, files: tree_is_whole, ..DAV },
        Scenario { name: "LOCK", play: lock, files: tree_is_whole, ..DAV },
        Scenario {
            name: "form with files",
            args: |_| options(&["enable_uploads=yes", "uploads_by_anybody=yes"]),
            prepare: |_| {},
            play: form,
            files: form_is_whole,
            ..DAV
        },
    ]
}

fn tree(scratch: &Scratch) {
    for name in ["from", "to", "up"] {
        let _ = std::fs::remove_dir_all(scratch.join(&format!("root/d/{name}")));
    }
    scratch.write("writers", password_line());
    for name in ["file", "from/x", "from/deep/y"] {
        scratch.write(&format!("root/d/{name}"), format!("of {name}"));
    }
    std::fs::create_dir_all(scratch.join("root/d/up")).expect("a folder");
}

/// Each tree is there as a whole, or not at all, and one of them is there.
fn tree_is_whole(scratch: &Scratch) -> Result<(), String> {
    is_one_of(scratch, "root/d/file", &["of file"])?;
    let files = ["x", "deep/y"];
    let is_there = |tree: &str| {
        let path = |name: &str| format!("root/d/{tree}/{name}");
        let found = files.map(|name| scratch.read(&path(name)) == format!("of from/{name}"));
        match std::path::Path::new(&scratch.join(&format!("root/d/{tree}"))).exists() {
            true if found == [true, true] => Ok(true),
            true => Err(format!("{tree} is not whole: {found:?}")),
            false => Ok(false),
        }
    };
    is_there("from")?;
    is_there("to").map(drop)
}

/// Each file is there as a whole, or not at all: what cannot be deleted stays (RFC 4918, section 9.6.1).
fn files_are_whole(scratch: &Scratch) -> Result<(), String> {
    for name in ["x", "deep/y"] {
        is_one_of(scratch, &format!("root/d/from/{name}"), &["", &format!("of from/{name}")])?;
    }
    Ok(())
}

fn put(world: &mut World) -> Option<()> {
    world.dav("PUT", "/d/file", "", "the new content", &[204])?;
    world.get("/d/file", b"the new content").map(drop)
}

fn put_is_whole(scratch: &Scratch) -> Result<(), String> {
    is_one_of(scratch, "root/d/file", &["of file", "the new content"])
}

fn long_text() -> String {
    String::from_utf8(filling(250_000)).expect("letters")
}

fn long_put(world: &mut World) -> Option<()> {
    world.dav("PUT", "/d/file", "", &long_text(), &[204]).map(drop)
}

fn long_put_is_whole(scratch: &Scratch) -> Result<(), String> {
    is_one_of(scratch, "root/d/file", &["of file", &long_text()])
}

fn append(world: &mut World) -> Option<()> {
    world.dav("PUT", "/d/file", "Content-Range: bytes 7-11/12\r\n", " more", &[204]).map(drop)
}

fn append_is_whole(scratch: &Scratch) -> Result<(), String> {
    is_one_of(scratch, "root/d/file", &["of file", "of file more"])
}

fn copy(world: &mut World) -> Option<()> {
    world.dav("COPY", "/d/from", "Destination: /d/to\r\n", "", &[201, 204])?;
    world.get("/d/to/deep/y", b"of from/deep/y").map(drop)
}

fn rename(world: &mut World) -> Option<()> {
    world.dav("MOVE", "/d/from", "Destination: /d/to\r\n", "", &[201, 204])?;
    world.get("/d/to/deep/y", b"of from/deep/y").map(drop)
}

fn delete(world: &mut World) -> Option<()> {
    world.dav("DELETE", "/d/from", "", "", &[204]).map(drop)
}

fn find(world: &mut World) -> Option<()> {
    let request = world.signed("PROPFIND", "/d/", "Depth: infinity\r\n", "");
    let names = ["/d/file", "/d/from/", "/d/from/x", "/d/from/deep/y"];
    world
        .ask("PROPFIND", request, |answer| {
            let text = answer.text();
            let has = |name: &&str| text.contains(&format!("<D:href>{name}</D:href>"));
            answer.status == 207 && names.iter().all(has) && !text.contains("HTTP/1.1 5")
        })
        .map(drop)
}

fn patch(world: &mut World) -> Option<()> {
    let set = "<D:propertyupdate xmlns:D='DAV:' xmlns:Z='z:'><D:set><D:prop><Z:a>the value</Z:a></D:prop>\
        </D:set></D:propertyupdate>";
    world.dav("PROPPATCH", "/d/file", "", set, &[207])?;
    let request = world.signed("PROPFIND", "/d/file", "Depth: 0\r\n", "");
    world.ask("PROPFIND", request, |answer| answer.text().contains("the value</")).map(drop)
}

fn lock(world: &mut World) -> Option<()> {
    let owner = "<D:lockinfo xmlns:D='DAV:'><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/>\
        </D:locktype></D:lockinfo>";
    let answer = world.dav("LOCK", "/d/file", "", owner, &[200])?;
    let field = format!("Lock-Token: {}\r\n", answer.field("Lock-Token"));
    world.dav("UNLOCK", "/d/file", &field, "", &[204]).map(drop)
}

fn form(world: &mut World) -> Option<()> {
    let part = |name: &str, text: &str| {
        format!(
            "--bound\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{text}\r\n"
        )
    };
    let content = format!("{}{}--bound--\r\n", part("one", "first"), part("two", &long_text()));
    let request = format!(
        "POST /d/up/ HTTP/1.1\r\nHost: a.example\r\nContent-Type: multipart/form-data; boundary=bound\r\n\
         Content-Length: {}\r\n\r\n{content}",
        content.len()
    );
    world.ask("a form", request, |answer| answer.status == 303).map(drop)
}

fn form_is_whole(scratch: &Scratch) -> Result<(), String> {
    is_one_of(scratch, "root/d/up/one", &["", "first"])?;
    is_one_of(scratch, "root/d/up/two", &["", &long_text()])
}
