//! Random worlds: what a seed determines happens to several servers, threads, forked workers and clients, and
//! these promises are looked at all the time:
//!
//! - nothing reaches somebody else;
//! - nothing is lost, doubled or reordered that was accepted, as long as its connection lasts;
//! - what was refused was refused whole;
//! - every wait ends;
//! - memory, descriptors, threads and children return to where they were.
//!
//! Every byte, in both directions, stands in a record with the name of its owner and its number. The servers are a
//! C program (`program/`); the clients are threads here. A seed determines all decisions, but not in which order
//! the kernel lets threads run: a seed that has failed may have to be played several times to fail again.
//!
//! `WORLDS_SECONDS=60` plays new worlds for so long, `WORLDS_SEED=5` one of them, `WORLDS_TIMES=20` times. Seeds that
//! have failed are kept in `seeds`, and played first.

#[path = "../c_boundary/support/toolchain.rs"]
#[allow(dead_code)]
mod toolchain;

mod clients;
mod ledger;
mod plan;
mod random;
mod wire;
mod world;

use std::path::{Path, PathBuf};
use std::process::Command;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use plan::{Action, Plan};
use random::Random;
use toolchain::{Link, compile_with, root};
use wire::PATIENCE;
use world::{Phase, Process, World};

/// The number of the workers among the servers.
const WORKERS: usize = 100;
/// The time after which what an action has done to clients is over.
const AFTERMATH: Duration = Duration::from_millis(400);
/// What the heap may have grown by from the first era to the last: what is kept for good (hubs of servers
/// that have ended, texts of options that were asked for), tables that have grown, and what malloc is fragmented by.
const HEAP_MAY_GROW: u64 = 1 << 20;

const CERTIFICATES: [&str; 2] = ["one", "two"];
const SOURCES: [&str; 5] = ["main.c", "clock.c", "records.c", "handlers.c", "threads.c"];

#[test]
fn worlds_keep_their_promises() {
    let program = program();
    if let Some(seed) = number("WORLDS_SEED") {
        for _ in 0..number("WORLDS_TIMES").unwrap_or(1) {
            play(seed, &program);
        }
        return;
    }
    for seed in kept() {
        play(seed, &program);
    }
    let Some(seconds) = number("WORLDS_SECONDS") else { return };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time behind 1970");
    let mut seeds = Random::new(since.as_nanos() as u64);
    let start = Instant::now();
    let mut worlds = 0;
    while start.elapsed() < Duration::from_secs(seconds) {
        play(seeds.draw() >> 32, &program);
        worlds += 1;
    }
    eprintln!("{worlds} new worlds in {} s", start.elapsed().as_secs());
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

fn seeds_file() -> PathBuf {
    root().join("tests/worlds/seeds")
}

/// The seeds that have failed once.
fn kept() -> Vec<u64> {
    let text = std::fs::read_to_string(seeds_file()).expect("the kept seeds");
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(|line| line.parse().expect("a seed")).collect()
}

fn program() -> PathBuf {
    let folder = "tests/worlds/program";
    let sources = SOURCES.map(|name| format!("{folder}/{name}"));
    compile_with(
        "world",
        &sources.each_ref().map(String::as_str),
        &["-lpthread", "-ldl"],
        Link::Shared,
    )
}

/// A folder of a world's own, that disappears with this value.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    fn new(seed: u64) -> Folder {
        let name = format!("mongoose-world-{}-{seed}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        for root in ['a', 'b'] {
            let place = folder.join(root.to_string());
            std::fs::create_dir_all(&place).expect("a folder");
            for number in 0..3 {
                let content = clients::file_of(root, number);
                std::fs::write(place.join(format!("file{number}.txt")), content).expect("a file");
            }
            let script = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\nexec cat\n";
            let program = place.join("echo.cgi");
            std::fs::write(&program, script).expect("a file");
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&program, mode).expect("a program");
        }
        Folder(folder)
    }

    /// Two certificates; whether there are any.
    fn certify(&self) -> bool {
        cfg!(feature = "tls") && CERTIFICATES.iter().all(|name| make_certificate(&self.0, name))
    }
}

/// Without `openssl` no world has TLS.
fn make_certificate(folder: &Path, name: &str) -> bool {
    let (key, certificate) = (folder.join("key"), folder.join("certificate"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-days", "3650", "-subj", "/CN=localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        return false;
    }
    let text = [key, certificate].map(|part| std::fs::read(part).expect("a file"));
    std::fs::write(folder.join(format!("{name}.pem")), text.concat()).expect("a file");
    true
}

/// Plays a world, which must keep its promises.
fn play(seed: u64, program: &Path) {
    let folder = Folder::new(seed);
    let has_tls = folder.certify();
    let plan = Plan::of(seed, has_tls);
    if has_tls && !plan.speaks_tls() {
        // With a certificate, ports without a letter would speak TLS, too.
        for name in CERTIFICATES {
            std::fs::remove_file(folder.0.join(format!("{name}.pem"))).expect("a certificate");
        }
    }
    let world = World::new(plan, &folder.0);
    let start = Instant::now();
    let heap = run(&world, program);
    let mut counts: Vec<_> = world.counts().into_iter().collect();
    counts.sort_unstable();
    eprintln!("world {seed}: {:.1} s, {counts:?}, heap {heap:?}", start.elapsed().as_secs_f32());
    let failures = world.failures();
    if !failures.is_empty() {
        let logs = ["error-1.log", "error-2.log"];
        let logs = logs.map(|name| std::fs::read_to_string(folder.0.join(name)));
        let errors = logs.map(Result::unwrap_or_default).concat();
        let log: Vec<&str> = errors
            .lines()
            .rev()
            .filter(|line| !["nonsense", "none.pem"].iter().any(|vain| line.contains(vain)))
            .take(15)
            .collect();
        let shown: Vec<&str> = failures.iter().take(12).map(String::as_str).collect();
        panic!(
            "world {seed} breaks a promise:\n  {}\nthe plan: {:?}\nthe end of the error log:\n  {}\n\n\
             WORLDS_SEED={seed} WORLDS_TIMES=10 cargo test --locked --test worlds\n\
             plays it again; a line `{seed}` in tests/worlds/seeds keeps it.",
            shown.join("\n  "),
            world.plan,
            log.join("\n  "),
        );
    }
}

/// Plays a world to its end; the bytes of the heap that were in use at the end of each era.
fn run(world: &World, program: &Path) -> Vec<u64> {
    let plan = &world.plan;
    let mut servers = world.start(program, &[]);
    let mut workers = (plan.workers > 0).then(|| {
        let more = [plan.workers.to_string(), plan.address.to_owned()];
        world.start(program, &more)
    });
    let of_workers = workers.as_mut().map(|workers| workers.reply(world, "the start"));
    let mut heap = Vec::new();
    for (number, events) in plan.eras.iter().enumerate() {
        world.ledger.set_quiet(false);
        world.set_phase(Phase::Running);
        for server in 0..plan.servers.len() {
            create(world, &mut servers, server);
        }
        if let Some(told) = &of_workers {
            world.set_targets(WORKERS, told);
        }
        servers.tell(world, "start");
        std::thread::scope(|scope| {
            for (client, kind) in plan.clients.iter().enumerate() {
                let random = Random::branch(plan.seed, (number * 1000 + client) as u64);
                scope.spawn(move || clients::live(world, *kind, random));
            }
            for event in events {
                if world.has_failed() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(event.after));
                act(world, &mut servers, workers.as_mut(), event.action);
            }
            std::thread::sleep(Duration::from_millis(plan::rest_of_era(events)));
            world.set_phase(Phase::Ending);
            become_quiet(world);
            world.set_phase(Phase::Draining);
        });
        world.clear_targets();
        if world.has_failed() {
            break;
        }
        heap.push(servers.tell(world, "end").parse::<u64>().unwrap_or_default());
    }
    if let (Some(first), Some(last)) = (heap.first(), heap.last())
        && *last > first + HEAP_MAY_GROW
    {
        world.fail(format!("the heap grows: {heap:?} bytes at the ends of eras"));
    }
    if let Some(mut workers) = workers {
        if !world.has_failed() {
            workers.tell(world, "end");
        }
        workers.end(world);
    }
    servers.end(world);
    heap
}

fn create(world: &World, servers: &mut Process, server: usize) {
    let shares = world.plan.servers[server];
    let shares = shares.map_or("-1".to_owned(), |other| other.to_string());
    let told = servers.tell(world, &format!("create {server} {shares} {}", world.plan.address));
    world.set_targets(server, &told);
}

/// Waits until no thread of the servers writes to a stream.
fn become_quiet(world: &World) {
    world.ledger.set_quiet(true);
    let end = Instant::now() + PATIENCE;
    while world.ledger.is_writing() && !world.has_failed() {
        if Instant::now() > end {
            world.fail("a thread that writes does not come back");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Does something to the servers. What may end connections is an excuse from just before to some time after it.
fn act(world: &World, servers: &mut Process, workers: Option<&mut Process>, action: Action) {
    let ends_connections = !matches!(action, Action::JumpRealtime(_) | Action::Freeze(_));
    if ends_connections {
        world.excuses.begin();
    }
    match action {
        Action::Replace { server, by } => {
            world.set_targets(server, "");
            servers.tell(world, &format!("destroy {server} {by}"));
            create(world, servers, server);
        }
        Action::Move { server } => {
            let address = world.plan.address;
            let told = servers.tell(world, &format!("option {server} listening_port {address}"));
            world.set_targets(server, &told);
        }
        Action::JumpMonotonic(ms) => drop(servers.tell(world, &format!("jump monotonic {ms}"))),
        Action::JumpRealtime(ms) => drop(servers.tell(world, &format!("jump realtime {ms}"))),
        Action::Freeze(ms) => {
            servers.signal(libc::SIGSTOP);
            std::thread::sleep(Duration::from_millis(ms));
            servers.signal(libc::SIGCONT);
        }
        Action::LackDescriptors(ms, left) => {
            servers.tell(world, &format!("descriptors {left}"));
            std::thread::sleep(Duration::from_millis(ms));
            servers.tell(world, "descriptors -1");
        }
        Action::Disturb { server, name, value, ms } => {
            servers.tell(world, &format!("option {server} {name} {value}"));
            std::thread::sleep(Duration::from_millis(ms));
            let back = if name.ends_with("timeout_ms") { "60000" } else { "" };
            servers.tell(world, &format!("option {server} {name} {back}"));
        }
        Action::Kill { worker } => {
            if let Some(workers) = workers {
                workers.tell(world, &format!("kill {worker}"));
            }
        }
    }
    if ends_connections {
        std::thread::sleep(AFTERMATH);
        world.excuses.end();
    }
}

#[test]
fn a_seed_determines_all_decisions() {
    for seed in 0..50 {
        let plans = [(); 2].map(|()| format!("{:?}", Plan::of(seed, true)));
        assert_eq!(plans[0], plans[1]);
    }
}
