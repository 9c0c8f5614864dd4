//! Files on a file system that takes its time (a network, a program): those who ask there wait, and
//! nobody else does. The file system is the test's own, and answers one request after the other, each of them
//! after others were served.

use crate::support::{Client, HeldFolder, Program, Scratch, Server, runner, under_valgrind};

/// Whether all threads of a program wait while one looks at a file, as under valgrind, or the kernel is not asked
/// what it has in its caches, as by an emulator.
fn threads_wait_for_each_other() -> bool {
    under_valgrind() || !runner().is_empty()
}

/// A server with the same files below `slow`, which is held, and below `quick`.
struct World {
    // Dropped in this order: nothing must wait for the folder any more.
    folder: HeldFolder,
    server: Server,
    scratch: Scratch,
}

impl World {
    fn new(files: &[(&str, &[u8])], args: &[&str]) -> World {
        let scratch = Scratch::new();
        let folder = HeldFolder::mount(&scratch, "root/slow", files);
        for (name, content) in files {
            scratch.write(&format!("root/quick/{name}"), content);
            let file = std::fs::File::options()
                .write(true)
                .open(scratch.join(&format!("root/quick/{name}")));
            let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 1);
            file.and_then(|file| file.set_modified(time)).expect("a time");
        }
        scratch.write("root/fast.txt", "fast");
        let root = format!("document_root={}", scratch.join("root"));
        let server = Server::start(&[&[root.as_str()], args].concat());
        World { folder, server, scratch }
    }

    /// Sends a request, and lets the file system do one thing after the other until the answer is there.
    /// Before each of them others are served. How many they were comes with the answer.
    fn answer(&self, request: &str) -> (Vec<u8>, usize) {
        let mut others = self.server.client();
        let mut client = self.server.client();
        self.folder.hold();
        client.send(request);
        let mut answer = Vec::new();
        let mut steps = 0;
        loop {
            let waits = self.folder.wait(|| {
                answer.extend(client.take_what_is_there());
                is_whole(&answer, request)
            });
            if !waits {
                break;
            }
            steps += 1;
            serves(&mut others);
            self.folder.let_one_through();
        }
        // What is closed is closed now.
        self.folder.release();
        (answer, steps)
    }
}

impl World {
    /// The answer is the same as that to the same request for a file on the disk. How often the file
    /// system was asked.
    fn compare(&self, row: &str) -> usize {
        let ask_for = |name: &str| {
            let (method, path) = row.split_once(' ').expect("a method");
            format!("{method} /{name}{path}")
        };
        let mut client = self.server.client();
        client.send(ask_for("quick"));
        let mut expected = Vec::new();
        while !is_whole(&expected, row) {
            expected.extend(client.take_what_is_there());
        }
        let (answer, steps) = self.answer(&ask_for("slow"));
        assert_eq!(comparable(&answer), comparable(&expected), "{row}");
        steps
    }
}

/// Others get what they ask for.
fn serves(others: &mut Client) {
    assert_eq!(others.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
    assert_eq!(others.ask("GET /fast.txt HTTP/1.1\r\n\r\n").text(), "fast");
}

/// Whether an answer has come to its end, by its `Content-Length`.
fn is_whole(answer: &[u8], request: &str) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]);
    let is_empty = request.starts_with("HEAD") || head.starts_with("HTTP/1.1 304");
    let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let len = len.filter(|_| !is_empty).map_or(0, |len| len.parse().expect("a number"));
    answer.len() >= end + 4 + len
}

/// An answer without what differs each time.
fn comparable(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer).replace("/quick", "/slow");
    let is_same = |line: &&str| !line.starts_with("Date: ") && !line.contains("nonce=");
    text.split("\r\n").filter(is_same).collect::<Vec<_>>().join("\n")
}

const LARGE: usize = 300_000;

fn large() -> Vec<u8> {
    (0..LARGE).map(|n| b"abcdefghijklmnopqrstuvwxyz"[n * 7 % 26]).collect()
}

#[test]
fn others_are_served_while_the_file_system_is_waited_for() {
    needs!("mount-fuse");
    if threads_wait_for_each_other() {
        return;
    }
    let large = large();
    let files: [(&str, &[u8]); 6] = [
        ("small.txt", b"small"),
        ("large.txt", &large),
        ("index/index.html", b"<p>index</p>"),
        ("d/a", b"a"),
        ("guarded/.htpasswd", b"joe:mydomain.com:00000000000000000000000000000000\n"),
        ("guarded/a.txt", b"secret"),
    ];
    let world = World::new(&files, &[]);
    let rows = [
        "GET /small.txt HTTP/1.1\r\n\r\n",
        "GET /small.txt HTTP/1.1\r\n\r\n",
        "HEAD /small.txt HTTP/1.1\r\n\r\n",
        "GET /large.txt HTTP/1.1\r\n\r\n",
        "HEAD /large.txt HTTP/1.1\r\n\r\n",
        "GET /large.txt HTTP/1.1\r\n\r\n",
        "GET /large.txt HTTP/1.1\r\nRange: bytes=100000-199999\r\n\r\n",
        "GET /small.txt HTTP/1.1\r\nRange: bytes=1-2\r\n\r\n",
        "GET /large.txt HTTP/1.1\r\nRange: bytes=900000-\r\n\r\n",
        "GET /small.txt HTTP/1.1\r\nIf-None-Match: *\r\n\r\n",
        "GET /none.txt HTTP/1.1\r\n\r\n",
        "GET /none/none.txt HTTP/1.1\r\n\r\n",
        "GET /small.txt/more HTTP/1.1\r\n\r\n",
        "GET /small.txt/ HTTP/1.1\r\n\r\n",
        "GET /index/ HTTP/1.1\r\n\r\n",
        "GET /index HTTP/1.1\r\n\r\n",
        "GET /d HTTP/1.1\r\n\r\n",
        "GET /guarded/a.txt HTTP/1.1\r\n\r\n",
        "GET /guarded/none HTTP/1.1\r\n\r\n",
        "GET /guarded/ HTTP/1.1\r\n\r\n",
    ];
    for row in rows {
        assert!(world.compare(row) > 0, "{row}");
    }
    let World { server, .. } = world;
    server.stop();
}

#[test]
fn others_are_served_while_it_is_found_out_who_may_see_a_file() {
    needs!("mount-fuse");
    if threads_wait_for_each_other() {
        return;
    }
    let large = large();
    let files: [(&str, &[u8]); 7] = [
        ("a.txt", b"a"),
        ("packed.txt", b"plain"),
        ("packed.txt.gz", b"not really"),
        ("alone.css.br", b"b"),
        ("large.txt", &large),
        ("d/index.html", b"<p>d</p>"),
        ("x.cgi/x", b"a folder"),
    ];
    let logs = Scratch::new();
    let logs = ["access", "error"].map(|log| format!("{log}_log_file={}", logs.join(log)));
    let options = ["enable_precompressed=yes", &logs[0], &logs[1]];
    for links in ["yes", "no", "same_owner"] {
        let links = format!("follow_symlinks={links}");
        let world = World::new(&files, &[&options[..], &[&links]].concat());
        for name in ["slow", "quick"] {
            let link = |target: &str, name: &str| {
                std::os::unix::fs::symlink(target, world.scratch.join(name)).expect("a link");
            };
            link(&format!("{name}/a.txt"), &format!("root/{name}-a.txt"));
            link(&format!("{name}/large.txt"), &format!("root/{name}-large.txt"));
            link(&format!("{name}/none"), &format!("root/{name}-none"));
            link(&format!("{name}/d"), &format!("root/{name}-d"));
        }
        for path in [
            "/a.txt",
            "/packed.txt",
            "/alone.css",
            "/large.txt",
            "/none",
            "/d",
            "/d/",
            "/x.cgi/x",
            "/x.cgi/none",
            "/a.txt/b",
            "-a.txt",
            "-large.txt",
            "-none",
            "-d",
            "-d/",
            "-d/none",
            "-a.txt/b",
        ] {
            let fields = "Accept-Encoding: gzip, br\r\n\r\n";
            world.compare(&format!("GET {path} HTTP/1.1\r\n{fields}"));
        }
        let World { server, .. } = world;
        server.stop();
    }
}

#[test]
fn nothing_is_left_of_a_client_that_leaves_while_it_waits() {
    needs!("mount-fuse");
    if threads_wait_for_each_other() {
        return;
    }
    let large = large();
    let rows = [("a", 0), ("b", 3), ("large0", 1), ("large1", 6), ("large2", 9)];
    let names = rows.map(|(name, _)| format!("{name}.txt"));
    let content = |name: &str| if name.starts_with("large") { &large[..] } else { b"small" };
    let files: Vec<(&str, &[u8])> =
        names.iter().map(|name| (name.as_str(), content(name))).collect();
    let world = World::new(&files, &[]);
    let mut others = world.server.client();
    for (path, through) in rows {
        world.folder.hold();
        let mut client = world.server.client();
        client.send(format!("GET /slow/{path}.txt HTTP/1.1\r\n\r\n"));
        for _ in 0..through {
            assert!(world.folder.wait(|| false));
            world.folder.let_one_through();
        }
        assert!(world.folder.wait(|| false));
        client.reset();
        serves(&mut others);
        world.folder.release();
        let answer = world.server.ask(format!("GET /slow/{path}.txt HTTP/1.1\r\n\r\n"));
        assert!(answer.body == content(path), "{path} {through}");
    }
    // It finds its descriptors as they were.
    let World { server, .. } = world;
    server.stop();
}

#[test]
fn a_server_ends_while_a_file_system_is_waited_for() {
    needs!("mount-fuse");
    if threads_wait_for_each_other() {
        return;
    }
    let world = World::new(&[("a.txt", b"a")], &[]);
    world.folder.hold();
    let mut clients: Vec<Client> = (0..5).map(|_| world.server.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /slow/{number} HTTP/1.1\r\n\r\n"));
    }
    assert!(world.folder.wait(|| false));
    let World { server, folder, .. } = world;
    server.stop();
    for client in &mut clients {
        client.rest_or_reset();
    }
    drop(folder);
}

#[test]
fn a_child_does_not_have_what_its_parent_waits_for() {
    needs!("mount-fuse");
    if threads_wait_for_each_other() {
        return;
    }
    let scratch = Scratch::new();
    let folder = HeldFolder::mount(&scratch, "root/slow", &[("a.txt", b"a")]);
    let root = scratch.join("root");
    let mut program = Program::start("fork.c", &["children", "", "", "127.0.0.1:0", &root]);
    let port = program.port();
    let mut others = Client::connect(port);
    let parent = program.id().to_string();
    for number in 1..=6 {
        folder.hold();
        let mut client = Client::connect(port);
        client.send("GET /slow/a.txt HTTP/1.1\r\n\r\n");
        assert!(folder.wait(|| false));
        assert_eq!(others.ask("GET /fork_later HTTP/1.1\r\n\r\n").text(), "soon");
        program.expect_line(&format!("child {number} ended with 0"));
        assert_eq!(others.ask("GET /fork_here HTTP/1.1\r\n\r\n").text(), "0");
        assert_eq!(others.ask("GET /pid HTTP/1.1\r\n\r\n").text(), parent);
        folder.release();
        assert_eq!(client.response().text(), "a");
    }
    program.stop();
}

/// What a client is owed: who it is, so often that the answer has this length.
fn owned(owner: usize, len: usize) -> Vec<u8> {
    format!("<{owner:03}>").into_bytes().into_iter().cycle().take(len).collect()
}

#[test]
fn each_client_gets_its_own_file_whatever_comes_first() {
    needs!("mount-fuse");
    const OWNERS: usize = 24;
    let contents: Vec<(String, Vec<u8>)> = (0..OWNERS)
        .map(|owner| {
            (format!("{owner}.txt"), owned(owner, [40, 9_000, 70_000, 150_000][owner % 4]))
        })
        .collect();
    let files: Vec<(&str, &[u8])> =
        contents.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    let world = World::new(&files, &["file_cache_bytes=20000"]);
    let mut random = 7u64;
    let mut below = move |limit: usize| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % limit
    };
    for _ in 0..4 {
        world.folder.hold();
        let mut clients = Vec::new();
        for _ in 0..16 {
            let owner = below(OWNERS);
            let mut client = world.server.client();
            client.send(format!("GET /slow/{owner}.txt HTTP/1.1\r\n\r\n"));
            clients.push((owner, client));
            // Some leave, and others come in their places.
            if below(4) == 0 {
                let place = below(clients.len());
                clients.swap_remove(place).1.reset();
            }
            for _ in 0..below(4) {
                assert!(world.folder.wait(|| false));
                let place = below(world.folder.waiting());
                world.folder.let_through(place);
            }
        }
        for _ in 0..40 {
            if !world.folder.wait(|| clients.iter_mut().all(|(_, client)| client.has_news())) {
                break;
            }
            let place = below(world.folder.waiting());
            world.folder.let_through(place);
        }
        world.folder.release();
        for (owner, mut client) in clients {
            assert!(client.response().body == contents[owner].1, "{owner}");
        }
    }
    let World { server, .. } = world;
    server.stop();
}
