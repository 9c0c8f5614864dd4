//! Runs the tests that stand beside the code of the program `mongoose`: `cargo test` builds it only where its
//! feature is on, and then would build the library once more.

// Nobody calls `main` here.
#![allow(dead_code)]

macro_rules! files {
    ($($name:ident $file:literal;)*) => {
        $(#[path = $file] mod $name;)*

        #[test]
        fn no_file_of_the_program_is_left_out() {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bin/mongoose");
            let files = std::fs::read_dir(folder).expect("the folder");
            let names = files.map(|file| file.expect("a file").file_name());
            let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
            names.retain(|name| name != "main.rs");
            names.sort();
            assert_eq!(names, [$(concat!(stringify!($name), ".rs")),*]);
        }
    };
}

files! {
    addresses "../src/bin/mongoose/addresses.rs";
    arguments "../src/bin/mongoose/arguments.rs";
    catalogue "../src/bin/mongoose/catalogue.rs";
    certificate "../src/bin/mongoose/certificate.rs";
    completions "../src/bin/mongoose/completions.rs";
    config_file "../src/bin/mongoose/config_file.rs";
    failure "../src/bin/mongoose/failure.rs";
    help "../src/bin/mongoose/help.rs";
    passwords "../src/bin/mongoose/passwords.rs";
    relay "../src/bin/mongoose/relay.rs";
    server "../src/bin/mongoose/server.rs";
    serving "../src/bin/mongoose/serving.rs";
    signals "../src/bin/mongoose/signals.rs";
    systemd "../src/bin/mongoose/systemd.rs";
    terminal "../src/bin/mongoose/terminal.rs";
    wishes "../src/bin/mongoose/wishes.rs";
}
