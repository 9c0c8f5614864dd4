//! A server that is killed at any moment loses nothing: each change is made or is not.
//!
//! `MG_TEST_SEED` repeats a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Dav, as_many_as};

/// Random numbers that can be had again.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let given = std::env::var("MG_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed: u64 = given.unwrap_or_else(|| now.map_or(1, |now| now.as_nanos() as u64));
        eprintln!("MG_TEST_SEED={seed}");
        Random(seed | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Every file below the root, by its path, with the number that it holds.
type Files = BTreeMap<String, u64>;

/// The content of a file: whoever reads it knows whether it is whole.
fn content(number: u64, len: u64) -> String {
    let letter = char::from(b'a' + (number % 26) as u8);
    format!("{number} {len} {}", letter.to_string().repeat(len as usize))
}

/// The number that a file holds; it must be whole.
fn number_in(path: &Path) -> u64 {
    let text = std::fs::read_to_string(path).expect("a file");
    let mut words = text.splitn(3, ' ');
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
    let (Some(version), Some(len)) = (number(), number()) else {
        panic!("{} holds {:.50?}", path.display(), text)
    };
    assert!(text == content(version, len), "{} is not whole: {} bytes", path.display(), text.len());
    version
}

fn files_in(root: &Path, below: &str, files: &mut Files) {
    for entry in std::fs::read_dir(root.join(below)).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("a name");
        if name.starts_with(".mongoose-dav") {
            continue;
        }
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        if entry.file_type().expect("a kind").is_dir() {
            files_in(root, &path, files);
        } else {
            files.insert(path.clone(), number_in(&root.join(&path)));
        }
    }
}

fn snapshot(dav: &Dav) -> Files {
    let mut files = Files::new();
    files_in(Path::new(&dav.scratch.join("root")), "", &mut files);
    files
}

/// One change: its request, and the files once it is made.
fn change(dav: &Dav, random: &mut Random, number: u64, files: &Files) -> (String, Files) {
    let mut after = files.clone();
    let folder = if files.contains_key("d/x") { "d" } else { "e" };
    let other = if folder == "d" { "e" } else { "d" };
    let names = ["a".to_owned(), "b".to_owned(), format!("{folder}/x"), format!("{folder}/y")];
    let name = &names[random.below(4) as usize];
    let request = match random.below(4) {
        0 | 1 => {
            let len = if random.below(3) == 0 { random.below(400_000) } else { random.below(2000) };
            after.insert(name.clone(), number);
            dav.request("PUT", &format!("/{name}"), "", &content(number, len))
        }
        2 => {
            // Over another file, or to where there is none.
            let to = ["c", "a", "b"][random.below(3) as usize];
            if to != name
                && !name.ends_with("/x")
                && let Some(moved) = after.remove(name)
            {
                after.insert(to.to_owned(), moved);
            }
            let to = if name.ends_with("/x") { name.as_str() } else { to };
            dav.request("MOVE", &format!("/{name}"), &format!("Destination: /{to}\r\n"), "")
        }
        _ => {
            for file in ["x", "y"] {
                if let Some(number) = after.remove(&format!("{folder}/{file}")) {
                    after.insert(format!("{other}/{file}"), number);
                }
            }
            let fields = format!("Destination: /{other}\r\n");
            dav.request("MOVE", &format!("/{folder}"), &fields, "")
        }
    };
    (request, after)
}

#[test]
fn a_server_that_is_killed_leaves_each_file_old_or_new_and_nothing_else() {
    let mut random = Random::new();
    let mut dav = Dav::start(&[]);
    let mut number = 1;
    for name in ["a", "b", "d/x", "d/y"] {
        dav.write(name, content(number, 100));
        number += 1;
    }
    let patch = "<propertyupdate xmlns='DAV:'><set><prop><p xmlns='u:1'>kept</p></prop></set>\
                 </propertyupdate>";
    assert_eq!(dav.status("PROPPATCH", "/d/x", "", patch), 207);

    let (mut begun, mut finished) = (0, 0);
    let rounds = as_many_as(200, 5);
    for round in 0..rounds {
        let mut states = vec![snapshot(&dav)];
        let mut stream = String::new();
        let mut ends = Vec::new();
        for _ in 0..6 {
            let (request, after) = change(&dav, &mut random, number, &states[states.len() - 1]);
            stream.push_str(&request);
            ends.push(stream.len());
            states.push(after);
            number += 1;
        }
        let cut = random.below(stream.len() as u64 * 5 / 4) as usize;
        let mut client = dav.client();
        client.try_send(&stream[..cut.min(stream.len())]);
        // In every second round some changes are made for certain, however slow the machine is.
        let whole = ends.iter().filter(|end| **end <= cut).count() as u64;
        if round % 2 == 1 {
            (0..random.below(whole + 1)).for_each(|_| drop(client.response()));
        }
        // Until a moment that nobody foresees: while it works, or just after.
        let moment = Instant::now() + Duration::from_micros(random.below(3000));
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        dav.restart();

        let found = snapshot(&dav);
        let place = states.iter().position(|state| *state == found);
        let place =
            place.unwrap_or_else(|| panic!("round {round}: {found:?}\nis none of {states:#?}"));
        begun += usize::from(place > 0);
        finished += usize::from(place + 1 == states.len());

        // Whoever looks into a directory finds what was left in it swept away.
        for folder in ["", "d", "e"] {
            if folder.is_empty() || dav.exists(folder) {
                assert_eq!(dav.propfind(&format!("/{folder}"), "1", "").status, 207);
                let left = dav.names(folder).into_iter().find(|n| n.starts_with(".mongoose-dav."));
                assert_eq!(left, None, "round {round}");
            }
        }
        let folder = if dav.exists("d/x") { "d" } else { "e" };
        let text = dav.propfind(&format!("/{folder}/x"), "0", "").text();
        assert!(text.contains("<p xmlns=\"u:1\">kept</p>"), "round {round}: {text}");
    }
    // Else it was always killed too early, or too late.
    if rounds >= 200 {
        assert!(begun > 10 && finished < 190, "{begun} begun, {finished} finished");
    }
    dav.stop();
}

#[test]
fn a_copy_that_is_cut_short_leaves_the_old_files() {
    let mut random = Random::new();
    let mut dav = Dav::start(&[]);
    let fill = |dav: &Dav, folder: &str, number: u64| {
        for n in 0..40 {
            dav.write(&format!("{folder}/{}/{n}", n % 4), content(number, 20_000));
        }
    };
    fill(&dav, "new", 2);
    for round in 0..as_many_as(30, 2) {
        let _ = std::fs::remove_dir_all(dav.scratch.join("root/d"));
        fill(&dav, "d", 1);
        let mut client = dav.client();
        client.send(dav.request("COPY", "/new", "Destination: /d\r\n", ""));
        let moment = Instant::now() + Duration::from_micros(random.below(20_000));
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        dav.restart();
        let files = snapshot(&dav);
        let copied = || files.iter().filter(|(path, _)| path.starts_with("d/"));
        let first = copied().next().map(|(_, number)| *number);
        assert!(copied().all(|(_, number)| Some(*number) == first), "round {round}");
        assert_eq!(copied().count(), 40, "round {round}");
        crate::support::until("all is swept", || {
            dav.propfind("/", "1", "");
            dav.names("").iter().all(|name| !name.starts_with(".mongoose-dav"))
        });
    }
    dav.stop();
}
