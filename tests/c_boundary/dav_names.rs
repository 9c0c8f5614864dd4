//! MOVE between names of the same file, and COPY of directories with password files in them.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use crate::support::{Dav, Mounted, Scratch, outside};

#[test]
fn a_move_to_another_name_of_a_file_takes_the_first_name_away() {
    let dav = Dav::start(&[]);
    let path = |name: &str| dav.scratch.join(&format!("root/{name}"));
    dav.write("a", "text").write("d/x", "");
    for name in ["b", "c", "d/e"] {
        std::fs::hard_link(path("a"), path(name)).expect("a link");
    }
    let move_to = |from: &str, to: &str, fields: &str| {
        dav.status("MOVE", from, &format!("Destination: {to}\r\n{fields}"), "")
    };
    assert_eq!(move_to("/a", "/b", "Overwrite: F\r\n"), 412);
    let token = dav.lock("/b", "");
    assert_eq!(move_to("/a", "/b", ""), 423);
    let set = "<D:propertyupdate xmlns:D='DAV:'><D:set><D:prop><p xmlns='u:'>of a</p></D:prop></D:set>\
        </D:propertyupdate>";
    assert_eq!(dav.status("PROPPATCH", "/a", "", set), 207);
    let inode = std::fs::metadata(path("a")).expect("a file").ino();
    assert_eq!(move_to("/a", "/b", &format!("If: </b> (<{token}>)\r\n")), 204);
    assert!(!dav.exists("a") && dav.read("b") == "text");
    assert_eq!(std::fs::metadata(path("b")).expect("a file").ino(), inode);
    let text = dav.propfind("/b", "0", "").text();
    assert!(text.contains("of a</p>"), "{text}");
    assert_eq!(move_to("/d/e", "/c", ""), 204);
    assert_eq!((dav.names("d"), dav.read("c").as_str()), (vec!["x".to_owned()], "text"));
    // To its own name nothing is moved, nor is a copy made over what it is made of.
    for (method, from, to) in [("MOVE", "/b", "/b"), ("COPY", "/b", "/c"), ("MOVE", "/d", "/d")] {
        let status = dav.transfer(method, from, to);
        assert_eq!(status, 403, "{method} {from} {to}");
    }
    assert_eq!((dav.read("b").as_str(), dav.read("c").as_str()), ("text", "text"));
    dav.stop();
}

#[test]
fn a_name_may_change_its_case_where_that_makes_no_difference() {
    needs!("mkfs.vfat", "mount-vfat");
    let scratch = Scratch::new();
    let image = scratch.join("image");
    std::fs::File::create(&image).and_then(|file| file.set_len(4 << 20)).expect("an image");
    let made = outside("mkfs.vfat").arg(&image).env("PATH", "/usr/sbin:/sbin:/usr/bin").output();
    assert!(made.expect("mkfs.vfat").status.success());
    let _disk = Mounted::of(&scratch, "root", "vfat", "loop", &image);
    let dav = Dav::start_in(scratch, &[]);
    dav.write("File", "text").write("Dir/a", "text");
    for (from, to) in [("/File", "/FILE"), ("/Dir", "/dir")] {
        let fields = format!("Destination: {to}\r\nOverwrite: F\r\n");
        assert_eq!(dav.status("MOVE", from, &fields, ""), 201);
    }
    assert_eq!(dav.names(""), ["FILE", "dir"]);
    assert_eq!((dav.read("FILE").as_str(), dav.read("dir/a").as_str()), ("text", "text"));
    dav.stop();
}

#[test]
fn a_copy_of_a_directory_is_guarded_as_the_directory_is() {
    let dav = Dav::start(&[]);
    dav.write("d/open", "").write("d/deep/guarded/secret", "hush");
    dav.write("d/deep/guarded/.htpasswd", "somebody:else:0\n");
    assert_eq!(dav.transfer("COPY", "/d", "/e"), 201);
    let get = |path: &str| dav.server.ask(format!("GET {path} HTTP/1.1\r\n\r\n")).status;
    assert_eq!((get("/e/open"), get("/e/deep/guarded/secret")), (200, 401));
    // What lets nobody in, and would be left out of a copy, refuses the copy.
    let guard = dav.scratch.join("root/d/deep/guarded/.htpasswd");
    let secret = dav.scratch.join("passwords");
    let ways: [(&str, &dyn Fn()); 2] = [
        ("a FIFO", &|| {
            assert!(Command::new("mkfifo").arg(&guard).status().is_ok_and(|done| done.success()));
        }),
        ("a file that an option names", &|| {
            std::fs::hard_link(&secret, &guard).expect("a link");
        }),
    ];
    for (way, make) in ways {
        std::fs::remove_file(&guard).expect("removed");
        make();
        assert_eq!(get("/d/deep/guarded/secret"), 401, "{way}");
        let answer = dav.ask("COPY", "/d", "Destination: /f\r\n", "");
        assert_eq!(answer.status, 207, "{way}");
        let text = answer.text();
        assert!(text.contains("/d/deep/guarded/.htpasswd") && text.contains(" 403 "), "{text}");
        assert!(!dav.exists("f") && dav.unfinished("").is_empty(), "{way}");
    }
    dav.stop();
}
