//! Password files that are changed by several processes, or by one that dies in the middle.

use crate::support::{Program, Scratch, as_many_as};

#[test]
fn processes_that_add_users_at_once_lose_none() {
    let scratch = Scratch::new();
    let file = scratch.join(".htpasswd");
    let count = as_many_as(100, 10);
    let mut writers: Vec<Program> = ["ann", "ben", "carl"]
        .iter()
        .map(|prefix| Program::start("passwords.c", &[&file, prefix, &count.to_string()]))
        .collect();
    for writer in &mut writers {
        writer.expect_line("ready");
    }
    for writer in &mut writers {
        writer.tell("");
    }
    for mut writer in writers {
        writer.wait_for_end();
    }
    let text = scratch.read(".htpasswd");
    let mut users: Vec<&str> =
        text.lines().map(|line| line.split(":a.com:").next().expect("a user")).collect();
    users.sort_unstable();
    let mut wanted: Vec<String> = ["ann", "ben", "carl"]
        .iter()
        .flat_map(|prefix| (0..count).map(move |number| format!("{prefix}{number}")))
        .collect();
    wanted.sort_unstable();
    assert_eq!(users, wanted);
    let names = std::fs::read_dir(scratch.join("")).expect("the folder").count();
    assert_eq!(names, 1, "nothing is left beside the file");
}

#[test]
fn a_process_that_is_killed_leaves_the_old_file_or_the_new_one() {
    let scratch = Scratch::new();
    let file = scratch.join(".htpasswd");
    // Long enough that it is not written in one go by chance.
    let others: String = (0..5000).map(|n| format!("user{n}:a.com:{n:032x}\n")).collect();
    scratch.write(".htpasswd", format!("{others}joe:a.com:{:032x}\n", 0));
    for round in 0..as_many_as(40, 4) {
        let mut writer = Program::start("passwords.c", &[&file, "joe", "0"]);
        writer.expect_line(&format!("changed {}", round % 5));
        // Killed, at whatever it is.
        drop(writer);
        let text = scratch.read(".htpasswd");
        let joe = text.strip_prefix(&others).expect("the lines of the others");
        let hash = joe.strip_prefix("joe:a.com:").and_then(|rest| rest.strip_suffix('\n'));
        let hash = hash.unwrap_or_else(|| panic!("{joe:?}"));
        assert!(hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
    }
    // No lock is left behind.
    let mut last = Program::start("passwords.c", &[&file, "jane", "1"]);
    last.expect_line("ready");
    last.tell("");
    last.wait_for_end();
    assert!(scratch.read(".htpasswd").contains("\njane0:a.com:"));
}
