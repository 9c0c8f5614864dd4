//! `examples/migrate`: Makefiles that compile mongoose.c into a program, turned over by its script.

use super::root;
use super::workshop::{Workshop, checked};
use std::fs;

const FILES: [&str; 4] = ["Makefile", "main.c", "votes.c", "votes.h"];

/// The program of the example, in a folder of its own.
fn before(name: &str) -> Workshop {
    let folder = Workshop::new(name);
    for file in FILES {
        let text = fs::read_to_string(root().join("examples/migrate/before").join(file));
        folder.write(file, &text.expect("a file of the example"));
    }
    folder
}

fn convert(folder: &Workshop, arguments: &[&str]) -> Result<(), String> {
    checked(folder.command("python3").arg(root().join("examples/migrate/convert")).args(arguments))
}

#[test]
fn a_program_of_its_time_is_turned_over_and_serves() {
    needs!("python3", "pkg-config");
    let folder = before("migrate");
    let old = folder.command("make").output().expect("make");
    assert!(String::from_utf8_lossy(&old.stderr).contains("mongoose"), "{old:?}");

    let makefile = fs::read_to_string(folder.join("Makefile")).expect("a Makefile");
    convert(&folder, &["--dry-run"]).expect("the script");
    assert_eq!(fs::read_to_string(folder.join("Makefile")).expect("a Makefile"), makefile);
    convert(&folder, &[]).expect("the script");
    assert_eq!(fs::read_to_string(folder.join("Makefile.orig")).expect("a Makefile"), makefile);
    checked(&mut folder.command("make")).expect("the program is built");

    folder.serve("exec ./votes unix:app.sock", |_| {
        let answers = ["/vote?name=tea", "/vote?name=tea", "/vote", "/"]
            .map(|path| folder.ask("app.sock", path));
        answers[0].contains("Thank you, ")
            && answers[2].starts_with("HTTP/1.1 400 ")
            && answers[3].contains("    2 tea\n")
            && answers[3].contains("1 in all\n")
    });
    // The other sources are untouched, and a second time there is nothing to do.
    let again = convert(&folder, &[]).expect_err("the script is not run twice");
    assert!(again.contains("has been turned over already"), "{again}");
}

#[test]
fn makefiles_of_many_styles_are_turned_over() {
    needs!("python3", "pkg-config");
    let styles = [
        (
            "one line",
            "votes: main.c votes.c\n\tgcc -o votes main.c votes.c mongoose.c -lpthread -ldl\n",
        ),
        (
            "a folder",
            "votes:\n\t$(CC) -Ithird/mongoose main.c votes.c third/mongoose/mongoose.c -o votes -ldl\n",
        ),
        (
            "implicit rules",
            "CFLAGS = -Wall -DUSE_WEBSOCKET\nLDLIBS = -ldl\nvotes: main.o votes.o mongoose.o\n\t$(CC) $^ -o $@ $(LDLIBS)\nmain.o: mongoose.h\n",
        ),
        (
            "no rule",
            "SRC := main.c mongoose.c votes.c\nvotes: $(SRC)\n\t@$(CC) $(CFLAGS) \\\n\t  -o $@ $(SRC) \\\n\t  -lpthread\n",
        ),
        (
            "objects",
            "OBJ = mongoose.o main.o votes.o\nvotes: $(OBJ)\n\tcc -o votes $(OBJ)\nmongoose.o: mongoose.c\n\tcc -c mongoose.c -o mongoose.o\nmain.o: main.c\n\tcc -c main.c\n",
        ),
        (
            "an archive before",
            "PARTS = \\\n  mongoose.c \\\n  main.c \\\n  votes.c\nvotes: $(PARTS)\n\t${CC} ${PARTS} -o votes\n",
        ),
    ];
    for (style, makefile) in styles {
        let folder = before(&format!("migrate-{}", style.replace(' ', "-")));
        folder.write("Makefile", makefile);
        convert(&folder, &[]).unwrap_or_else(|error| panic!("{style}: {error}"));
        let text = fs::read_to_string(folder.join("Makefile")).expect("a Makefile");
        assert!(
            !text.contains("mongoose.c") && !text.contains("-DUSE_WEBSOCKET"),
            "{style}: {text}"
        );
        checked(folder.command("make").arg("votes"))
            .unwrap_or_else(|e| panic!("{style}: {text}\n{e}"));
        assert!(folder.join("votes").exists(), "{style}");
    }
}

#[test]
fn the_script_names_what_was_no_part_of_the_interface() {
    needs!("python3");
    let folder = before("migrate-calls");
    folder.write("old.c", "static void mg_own(void) {\n}\nvoid f(void) { mg_own(); mg_start(0, 0); mg_write(0, 0, 0); }\n");
    let script = root().join("examples/migrate/convert");
    let output = folder.command("python3").arg(&script).arg("--dry-run").output().expect("python3");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("old.c calls mg_start, which is no function of version 5.0"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    folder.write("Makefile", "all:\n\ttrue\n");
    let none = convert(&folder, &[]).expect_err("there is nothing to turn over");
    assert!(none.contains("does not name mongoose.c"), "{none}");
}

#[test]
fn the_script_knows_every_function_of_the_header() {
    let script = fs::read_to_string(root().join("examples/migrate/convert")).expect("the script");
    let header = fs::read_to_string(root().join("include/mongoose.h")).expect("the header");
    let calls = header.split("mg_").skip(1).filter_map(|rest| rest.split_once('('));
    let names = calls.filter(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
    for (name, _) in names {
        assert!(
            script.contains(&format!("mg_{name}")),
            "examples/migrate/convert does not know mg_{name}"
        );
    }
}
