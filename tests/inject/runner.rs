//! Which call fails in which run, in which order, and the table of what came of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::calls::{ALLOCATION, name_of};
use super::control::{Class, Injection};
use super::playing::{Reference, Tools, describe, refer, try_one};
use super::scenarios::{Scenario, all};
use crate::support::{Authority, Link, compile_with, lacks, library, root, tool};

/// Calls whose number depends on the time that things take are tried so often.
const MOST_OF_A_CALL: usize = 60;
const MOST_WAITS: usize = 6;

/// What is asked for on the command line.
struct Wish {
    seconds: Option<u64>,
    words: Vec<String>,
}

impl Wish {
    fn of(args: Vec<String>) -> Wish {
        let (mut seconds, mut words) = (None, Vec::new());
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--seconds" => seconds = args.next().and_then(|text| text.parse().ok()),
                _ => words.push(arg),
            }
        }
        Wish { seconds, words }
    }
}

/// What came of all runs of a scenario.
#[derive(Default, Clone, Copy)]
struct Tally {
    calls: usize,
    runs: usize,
    hits: usize,
    ends: usize,
    findings: usize,
}

struct Job {
    scenario: usize,
    injection: Injection,
}

/// Runs everything that is asked for, and prints the table.
pub fn run(args: Vec<String>) -> ExitCode {
    let wish = Wish::of(args);
    if lacks(&["openssl"]) {
        return ExitCode::SUCCESS;
    }
    Authority::get();
    let tools = compile();
    let mut scenarios = all();
    let named = |scenario: &Scenario, word: &String| scenario.name.contains(word.as_str());
    let is_name = |word: &String| scenarios.iter().any(|scenario| named(scenario, word));
    let (names, filters): (Vec<String>, Vec<String>) =
        wish.words.iter().cloned().partition(is_name);
    if !names.is_empty() {
        scenarios.retain(|scenario| names.iter().any(|name| named(scenario, name)));
    }
    let start = Instant::now();
    let mut references = Vec::new();
    for scenario in &scenarios {
        match refer(&tools, scenario) {
            Ok(reference) => references.push(reference),
            Err(wrong) => {
                eprintln!("{}, in which nothing fails:\n{wrong}", scenario.name);
                return ExitCode::FAILURE;
            }
        }
    }
    let jobs = spread(jobs(&scenarios, &references, &filters));
    println!("{} scenarios, {} calls to fail", scenarios.len(), jobs.len());
    let end = wish.seconds.map(|seconds| start + Duration::from_secs(seconds));
    let tallies = carry_out(&tools, &scenarios, &references, &jobs, end);
    table(&scenarios, &tallies, start.elapsed());
    match tallies.iter().any(|tally| tally.findings > 0) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn compile() -> Tools {
    let server = compile_with("inject-server", &["tests/inject/server.c"], &[], Link::Shared);
    let shim = server.with_file_name("inject-shim.so");
    let mut command = Command::new(tool("CC", "cc"));
    command.args(["-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o"]).arg(&shim);
    command.arg(root().join("tests/inject/shim.c")).arg("-ldl");
    assert!(command.status().expect("a compiler").success(), "the shim cannot be compiled");
    let text = |path: PathBuf| path.to_str().expect("a path in UTF-8").to_owned();
    Tools { server: text(server), shim: text(shim) }
}

/// Each call that is to fail, in each way that it can.
fn jobs(scenarios: &[Scenario], references: &[Reference], filters: &[String]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (scenario, reference) in references.iter().enumerate() {
        debug_assert!(scenario < scenarios.len());
        for (class, count) in &reference.calls {
            let most =
                if class.name().starts_with("epoll_wait") { MOST_WAITS } else { MOST_OF_A_CALL };
            for nth in 1..=(*count).min(most) {
                for fault in class.faults() {
                    let text = format!("{} {}", class.name(), name_of(fault));
                    let fits = |filter: &String| text.contains(filter.as_str());
                    if filters.iter().all(fits) {
                        let nth = i32::try_from(nth).unwrap_or(i32::MAX);
                        jobs.push(Job {
                            scenario,
                            injection: Injection { class: *class, nth, fault },
                        });
                    }
                }
            }
        }
    }
    jobs
}

/// Puts them into an order in which any part from the beginning is spread over all of them.
fn spread(jobs: Vec<Job>) -> Vec<Job> {
    let len = jobs.len() as u64;
    let mut numbered: Vec<(u64, Job)> = (0_u64..)
        .zip(jobs)
        // The golden ratio, as a fraction of 2^64.
        .map(|(number, job)| {
            (number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) % (len * 64 + 1), job)
        })
        .collect();
    numbered.sort_by_key(|(place, _)| *place);
    numbered.into_iter().map(|(_, job)| job).collect()
}

fn carry_out(
    tools: &Tools,
    scenarios: &[Scenario],
    references: &[Reference],
    jobs: &[Job],
    end: Option<Instant>,
) -> Vec<Tally> {
    let tallies = Mutex::new(vec![Tally::default(); scenarios.len()]);
    for (tally, reference) in tallies.lock().expect("tallies").iter_mut().zip(references) {
        tally.calls = reference
            .calls
            .iter()
            .filter(|(class, _)| !class.faults().is_empty())
            .map(|(_, count)| count)
            .sum();
    }
    let next = AtomicUsize::new(0);
    let workers = std::env::var("MG_INJECT_JOBS").ok().and_then(|text| text.parse().ok());
    std::thread::scope(|scope| {
        for _ in 0..workers.unwrap_or(4) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if end.is_some_and(|end| Instant::now() > end) {
                        break;
                    }
                    let (scenario, reference) =
                        (&scenarios[job.scenario], &references[job.scenario]);
                    let attempt = || try_one(tools, scenario, reference, job.injection);
                    let mut verdict = attempt();
                    // A machine that is busy keeps somebody waiting now and then; a fault of the library comes again.
                    if !verdict.findings.is_empty() {
                        verdict = attempt();
                    }
                    let ends = job.injection.class.number == ALLOCATION
                        && verdict.findings.iter().any(|finding| finding.contains("SIGABRT"))
                        && is_fixed(&verdict.way);
                    if ends {
                        verdict.findings.clear();
                    }
                    let mut tallies = tallies.lock().expect("tallies");
                    let tally = &mut tallies[job.scenario];
                    tally.runs += 1;
                    tally.hits += usize::from(verdict.has_hit);
                    tally.ends += usize::from(ends);
                    if !verdict.findings.is_empty() {
                        tally.findings += 1;
                        let about = describe(scenario, job.injection);
                        println!("FOUND {about} ({})", verdict.what);
                        for finding in &verdict.findings {
                            println!("    {finding}");
                        }
                        for function in functions(&verdict.way) {
                            println!("        in {function}");
                        }
                    }
                }
            });
        }
    });
    tallies.into_inner().expect("tallies")
}

/// Who allocates so much whatever is asked for, and ends the process where there is no memory: Rust does,
/// unless it is asked to ask (`docs/robustness.md`).
const FIXED: [&str; 4] =
    ["rustls::", "mio::", "exchange::input::Input::open", "ffi::server::mg_create_server"];

/// Whether an allocation is one of these.
fn is_fixed(way: &[i64]) -> bool {
    places(way).iter().any(|(function, _)| FIXED.iter().any(|name| function.contains(name)))
}

/// The functions on the way to a call, and their places in the sources, the innermost first.
fn places(way: &[i64]) -> Vec<(String, String)> {
    let mut command = Command::new("addr2line");
    command.args(["-ifCe"]).arg(library(Link::Shared));
    command.args(way.iter().map(|place| format!("{place:#x}")));
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    let mut lines = text.lines().map(str::to_owned);
    std::iter::from_fn(|| Some((lines.next()?, lines.next()?))).collect()
}

/// The functions of the library among them.
fn functions(way: &[i64]) -> Vec<String> {
    let sources = format!("{}/src/", root().display());
    let own = places(way).into_iter().filter_map(|(function, place)| {
        let (folder, place) = place.split_once("/src/")?;
        let is_own = sources.starts_with(&format!("{folder}/")) && !function.contains("closure");
        is_own.then(|| format!("{function} ({place})"))
    });
    own.take(8).collect()
}

fn table(scenarios: &[Scenario], tallies: &[Tally], time: Duration) {
    println!(
        "\n{:26} {:>7} {:>7} {:>7} {:>7} {:>8}",
        "scenario", "calls", "runs", "failed", "ended", "findings"
    );
    let mut sum = Tally::default();
    for (scenario, tally) in scenarios.iter().zip(tallies) {
        print_row(scenario.name, tally);
        sum.calls += tally.calls;
        sum.runs += tally.runs;
        sum.hits += tally.hits;
        sum.ends += tally.ends;
        sum.findings += tally.findings;
    }
    print_row(&format!("{} scenarios", scenarios.len()), &sum);
    println!("in {} s", time.as_secs());
}

fn print_row(name: &str, tally: &Tally) {
    let Tally { calls, runs, hits, ends, findings } = tally;
    println!("{name:26} {calls:7} {runs:7} {hits:7} {ends:7} {findings:8}");
}
