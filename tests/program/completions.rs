//! The completions of shells: as they are checked in, and as the shells take them.

use std::process::Command;

use crate::scratch::Scratch;
use crate::support::{output, repository, run};

fn file(shell: &str) -> std::path::PathBuf {
    repository(format!("packaging/completions/mongoose.{shell}"))
}

#[test]
fn the_files_that_are_installed_are_those_that_the_program_makes() {
    let folder = Scratch::new();
    for shell in ["bash", "zsh", "fish"] {
        let (status, made, errors) = run(&["--completions", shell], &folder, "");
        assert_eq!((status, errors.as_str()), (Some(0), ""));
        if std::env::var_os("UPDATE_COMPLETIONS").is_some() {
            std::fs::write(file(shell), &made).expect("written");
        }
        let kept = std::fs::read_to_string(file(shell)).expect("the file");
        assert!(made == kept, "UPDATE_COMPLETIONS=1 writes packaging/completions anew ({shell})");
    }
}

#[test]
fn bash_completes_names_and_values() {
    let folder = Scratch::new();
    folder.write("some.pem", "").write("some.folder/x", "");
    let complete = |words: &str| {
        let script = format!(
            "compopt() {{ :; }}; source {}; COMP_WORDS=({words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _mongoose; echo \"${{COMPREPLY[*]}}\"",
            file("bash").display()
        );
        let mut bash = Command::new("bash");
        output(bash.arg("-c").arg(script).current_dir(folder.join(""))).trim().to_owned()
    };
    let table = [
        ("mongoose --listening", "--listening_port"),
        ("mongoose --follow_symlinks s", "same_owner"),
        ("mongoose --tls some", "some.folder some.pem"),
        ("mongoose so", "some.folder"),
        ("mongoose --grace ''", ""),
        ("mongoose --completions f", "fish"),
    ];
    for (words, expected) in table {
        let mut found: Vec<String> = complete(words).split(' ').map(str::to_owned).collect();
        found.sort();
        assert_eq!(found.join(" "), expected, "{words}");
    }
}

#[test]
fn zsh_and_fish_can_read_theirs() {
    needs!("zsh", "fish");
    output(crate::outside("zsh").arg("-n").arg(file("zsh")));
    let script = format!("source {}; complete -C 'mongoose --listening_p'", file("fish").display());
    let found = output(crate::outside("fish").args(["-c", &script]));
    assert!(found.starts_with("--listening_port\t"), "{found}");
}
