//! `--upload`: who may, and from where.

use crate::scratch::Scratch;
use crate::support::{Running, command, curl, request, run, status};

fn put(address: &str, name: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = crate::support::connect(address);
    let head = format!(
        "PUT {name} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    status(&answer).to_owned()
}

#[test]
fn everybody_on_this_machine_may_upload_and_nobody_else_unless_that_is_said() {
    let folder = Scratch::new();
    let running = Running::spawn(command(&["--upload"]), &folder, "");
    assert_eq!(put(running.address(), "/a.txt"), "201");
    assert_eq!(folder.read("a.txt"), "hello");
    // The page has what uploads by the browser.
    assert!(running.get("/").contains("type=\"file\""), "{}", running.get("/"));
    // No other address of this machine leads there.
    let mut running = running;
    let (_, rest) = running.stop();
    assert_eq!(rest, "");
    for arguments in [
        &["--upload", "--listening_port", "0"][..],
        &["--upload", "--listening_port", "127.0.0.1:0,[::]:0"],
        &["--enable_uploads=yes", "--uploads_by_anybody=yes", "--listening_port", "0"],
    ] {
        let (status, told, errors) = run(arguments, &folder, "");
        assert_eq!((status, told.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(errors.contains("could upload: add --user NAME, or --anybody"), "{errors}");
    }
    for arguments in [
        &["--upload", "--listening_port", "127.0.0.1:0"][..],
        &["--upload", "--anybody", "--listening_port", "0"],
    ] {
        let running = Running::spawn(command(arguments), &folder, "");
        assert_eq!(put(running.address(), "/b.txt"), "201", "{arguments:?}");
        std::fs::remove_file(folder.join("b.txt")).expect("removed");
    }
}

#[test]
fn who_has_a_password_may_upload_from_everywhere() {
    needs!("curl");
    let folder = Scratch::new();
    folder.write("new", "hello").write("share/old.txt", "old");
    let arguments = ["share", "--user", "joe", "--upload", "--listening_port", "0"];
    let running = Running::spawn(command(&arguments), &folder, "secret\n");
    assert_eq!(put(running.address(), "/a.txt"), "401");
    let url = format!("{}a.txt", running.url);
    let new = folder.join("new");
    let upload = |password: &str| {
        curl(&[
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--digest",
            "-u",
            password,
            "-T",
            &new,
            &url,
        ])
    };
    assert_eq!(upload("joe:wrong"), "401");
    assert_eq!(upload("joe:secret"), "201");
    assert_eq!(folder.read("share/a.txt"), "hello");
}

#[test]
fn a_password_file_says_who_may_upload_as_well() {
    needs!("curl");
    let folder = Scratch::new();
    folder.write("new", "hello").write("share/old.txt", "old");
    assert_eq!(run(&["-A", "who", "mydomain.com", "joe", "secret"], &folder, "").0, Some(0));
    let arguments = ["share", "--upload", "--global_auth_file", "who", "--listening_port", "0"];
    let running = Running::spawn(command(&arguments), &folder, "");
    assert_eq!(put(running.address(), "/a.txt"), "401");
    assert_eq!(status(&request(running.address(), "GET /old.txt", "")), "401");
    let url = format!("{}a.txt", running.url);
    let new = folder.join("new");
    let told = curl(&[
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--digest",
        "-u",
        "joe:secret",
        "-T",
        &new,
        &url,
    ]);
    assert_eq!(told, "201");
}
