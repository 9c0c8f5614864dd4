//! An answer is never older than its request: neither a file nor a password file is shown as it was
//! before the request had come, or before an earlier handler returned.

use crate::support::{Client, Dav, Scratch, Server, request};

fn serve(scratch: &Scratch, args: &[&str]) -> Server {
    let root = format!("document_root={}", scratch.join("root"));
    let mut all = vec![root.as_str()];
    all.extend(args);
    Server::start(&all)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n\r\n")
}

/// Status and body.
fn answer(client: &mut Client) -> (u16, String) {
    let answer = client.response();
    (answer.status, answer.text())
}

#[test]
fn what_a_handler_changes_is_seen_by_the_request_behind_it() {
    let scratch = Scratch::new();
    scratch.write("root/cfg.json", "old").write("root/d/here", "").write("root/gone", "gone");
    scratch.write("root/page.shtml", "<!--#include file=\"cfg.json\" -->");
    scratch.write("root/a.js", "plain").write("root/z/index.htm", "htm");
    let server = serve(&scratch, &["ssi_pattern=**.shtml$", "enable_precompressed=yes"]);
    let file = |name: &str| scratch.join(&format!("root/{name}"));
    let not_found = (404, "404 Not Found\n");
    // What is asked for before and behind, what the handler does, and both answers.
    let rows = [
        ("/cfg.json", format!("file {} new", file("cfg.json")), (200, "old"), (200, "new")),
        ("/page.shtml", format!("file {} NEW", file("cfg.json")), (200, "new"), (200, "NEW")),
        ("/none", format!("file {} there", file("none")), not_found, (200, "there")),
        ("/gone", format!("remove {}", file("gone")), (200, "gone"), not_found),
        ("/z/", format!("file {} html", file("z/index.html")), (200, "htm"), (200, "html")),
        ("/x/y", format!("rename {} {}", file("d"), file("x")), not_found, not_found),
        ("/x/here", format!("rename {} {}", file("x"), file("d")), (200, ""), not_found),
    ];
    for (path, step, before, behind) in rows {
        let mut client = server.client();
        let save = request("POST", "1.1", &[&step, "status 200"]);
        client.send([get(path), save, get(path)].concat());
        let before = (before.0, before.1.to_owned());
        let behind = (behind.0, behind.1.to_owned());
        assert_eq!(answer(&mut client), before, "{step}");
        assert_eq!(client.response().status, 200, "{step}");
        assert_eq!(answer(&mut client), behind, "{step}");
    }
    server.stop();
}

#[test]
fn what_an_error_handler_changes_is_seen_by_the_request_behind_it() {
    let scratch = Scratch::new();
    scratch.write("root/a.txt", "old").write("root/none/x", "");
    let step = format!("--error=file {} new", scratch.join("root/a.txt"));
    let server = serve(&scratch, &["--errors", &step, "--error-returns=0"]);
    let mut client = server.client();
    client.send([get("/a.txt"), get("/nothing"), get("/a.txt")].concat());
    assert_eq!(answer(&mut client), (200, "old".to_owned()));
    assert_eq!(client.response().status, 404);
    assert_eq!(answer(&mut client), (200, "new".to_owned()));
    server.stop();
}

#[test]
fn a_user_whom_a_handler_has_removed_is_not_let_in_behind_it() {
    let scratch = Scratch::new();
    scratch.write("root/a.txt", "secret");
    let passwords = format!("global_auth_file={}", scratch.join("passwords"));
    let dav = Dav::start_in(scratch, &[&passwords]);
    let forget = format!("forget {} joe", dav.scratch.join("passwords"));
    let mut client = dav.server.client();
    client.send(
        [
            dav.request("GET", "/a.txt", "", ""),
            request("POST", "1.1", &[&forget, "status 200"]),
            dav.request("GET", "/a.txt", "", ""),
            dav.request("PUT", "/a.txt", "", "taken"),
        ]
        .concat(),
    );
    let statuses = [0; 4].map(|_| client.response().status);
    assert_eq!(statuses, [200, 200, 401, 401]);
    assert_eq!(dav.scratch.read("root/a.txt"), "secret");
    dav.server.stop();
}

#[test]
fn what_changed_while_a_handler_ran_is_seen_by_what_is_read_then() {
    let scratch = Scratch::new();
    scratch.write("root/a.txt", "old");
    let mut server = serve(&scratch, &[]);
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.ask(get("/alive")).text(), "alive");
    }
    // This handler returns when it is told to. What comes meanwhile is announced in one turn, the last
    // one before its request is complete.
    let waits = |name: &str| {
        let steps =
            [format!("keep {name}"), format!("say {name}"), format!("to gate{name} say on")];
        request("GET", "1.1", &[&steps[0], &steps[1], &steps[2], "status 200"])
    };
    clients[0].send(waits("1"));
    server.expect_line("1");
    clients[1].send_through(get("/a.txt"));
    clients[2].send_through(waits("2"));
    clients[3].send_through("GET /a.txt HTTP/1.1\r\n");
    server.late("1", "keep gate1");
    server.expect_line("2");
    scratch.write("root/a.txt", "new");
    clients[3].send_through("\r\n");
    server.late("2", "keep gate2");
    assert_eq!(answer(&mut clients[3]), (200, "new".to_owned()));
    assert_eq!(clients[2].response().status, 200);
    server.stop();
}

#[test]
fn what_changed_while_the_content_came_is_seen_at_its_end() {
    let scratch = Scratch::new();
    scratch.write("root/a.txt", "old").write("root/gone", "gone").write("root/x.cgi", "none");
    let mut server = serve(&scratch, &["--step"]);
    let chunked = "Transfer-Encoding: chunked\r\n";
    let rows = [
        ("/a.txt", "Content-Length: 4\r\n", "a=", "b2", (200, "new")),
        ("/a.txt", chunked, "1\r\na\r\n", "0\r\n\r\n", (200, "new")),
        ("/none", "Content-Length: 4\r\n", "a=", "b2", (200, "there")),
        ("/gone", "Content-Length: 4\r\n", "a=", "b2", (404, "404 Not Found\n")),
    ];
    for (path, framing, begin, end, (status, body)) in rows {
        scratch.write("root/a.txt", "old");
        let _ = std::fs::remove_file(scratch.join("root/none"));
        let mut client = server.client();
        client.send_through(format!("POST {path} HTTP/1.1\r\n{framing}\r\n{begin}"));
        server.poll(5);
        scratch.write("root/a.txt", "new").write("root/none", "there");
        let _ = std::fs::remove_file(scratch.join("root/gone"));
        client.send_through(end);
        server.poll(5);
        assert_eq!(answer(&mut client), (status, body.to_owned()), "{path} {framing}");
    }
    server.tell("run");
    server.stop();
}

#[test]
fn who_is_removed_while_his_content_comes_is_not_let_in() {
    let scratch = Scratch::new();
    scratch.write("root/a.txt", "secret");
    let passwords = format!("global_auth_file={}", scratch.join("passwords"));
    let mut dav = Dav::start_in(scratch, &[&passwords, "--step"]);
    dav.server.tell("run");
    let find = "<propfind xmlns=\"DAV:\"><allprop/></propfind>";
    for (method, content, fresh) in
        [("POST", "a=b", 200), ("PUT", "taken", 204), ("PROPFIND", find, 207)]
    {
        let users = dav.scratch.read("passwords");
        for (is_removed, wanted) in [(false, fresh), (true, 401)] {
            let asked = dav.request(method, "/a.txt", "", content);
            let (first, rest) = asked.split_at(asked.len() - 1);
            let mut client = dav.server.client();
            assert_eq!(client.ask(get("/alive")).text(), "alive");
            client.send_through(first);
            dav.server.settle();
            if is_removed {
                dav.scratch.write("passwords", "");
            }
            client.send(rest);
            assert_eq!(client.response().status, wanted, "{method}");
            dav.scratch.write("passwords", &users);
        }
    }
    assert_eq!(dav.scratch.read("root/a.txt"), "taken");
    dav.server.stop();
}

#[test]
fn a_refusal_stands_whose_content_has_been_thrown_away() {
    let scratch = Scratch::new();
    scratch.write("root/a/b", "");
    let mut dav = Dav::start_in(scratch, &["--step"]);
    dav.server.tell("run");
    let root = dav.scratch.join("root");
    let file = |name: &str| format!("{root}/{name}");
    let fifo = std::process::Command::new("mkfifo").arg(file("fifo")).status();
    assert!(fifo.is_ok_and(|status| status.success()), "mkfifo");
    let program = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'; cat\n";
    for (method, target, refusal) in [("PUT", "/fifo", 403), ("POST", "/new.cgi", 404)] {
        let asked = dav.request(method, target, "", "content");
        let (first, rest) = asked.split_at(asked.len() - 1);
        let mut client = dav.server.client();
        assert_eq!(client.ask(get("/alive")).text(), "alive");
        client.send_through(first);
        dav.server.settle();
        if method == "PUT" {
            let _ = std::fs::remove_file(file("fifo"));
            dav.scratch.write("root/fifo", "kept");
        } else {
            dav.scratch.write_program("root/new.cgi", program);
        }
        client.send(rest);
        assert_eq!(client.response().status, refusal, "{method} {target}");
        assert_eq!(client.ask(get("/alive")).text(), "alive");
    }
    assert_eq!(dav.scratch.read("root/fifo"), "kept");
    dav.server.stop();
}

#[test]
fn who_sends_many_requests_gets_no_more_than_his_share_of_a_turn() {
    let scratch = Scratch::new();
    scratch.write("root/a.txt", "").write("root/b.txt", "");
    let log = format!("access_log_file={}", scratch.join("log"));
    let mut server = serve(&scratch, &["--step", &log]);
    let mut clients: Vec<Client> = (0..80).map(|_| server.accepted()).collect();
    let before = scratch.read("log").len();
    // Two need one look after the other, and so many others need one that these are shared before all
    // were read from.
    let pair = "GET /a.txt HTTP/1.1\r\n\r\nGET /alive HTTP/1.1\r\n\r\n";
    for client in &mut clients[..2] {
        client.send_through(pair.repeat(1000));
    }
    for client in &mut clients[2..] {
        client.send_through(get("/b.txt"));
    }
    server.poll(1);
    let lines = &scratch.read("log")[before..];
    let count = |target: &str| lines.matches(&format!("\"GET {target} ")).count();
    assert_eq!(count("/b.txt"), clients.len() - 2);
    // 256 when its turn comes, and as many when it has waited for a look.
    let many = count("/a.txt") + count("/alive");
    assert!(many <= 2 * 2 * 256, "{many} requests");
    server.tell("run");
    server.stop();
}
