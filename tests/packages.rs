//! What packagers are promised: that the lists of what is linked in are those of `Cargo.lock`.

#[macro_use]
#[path = "c_boundary/support/needs.rs"]
mod needs;

use needs::{lacks, outside};
use std::fs;
use std::path::Path;
use std::process::Command;

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{words}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn what_is_linked_in_is_listed_with_its_licence_as_the_lock_file_has_it() {
    needs!("python3");
    run(outside("python3").current_dir(root()).args(["packaging/third-party", "--check"]));
    let list = fs::read_to_string(root().join("THIRD-PARTY")).expect("THIRD-PARTY");
    let bill = fs::read_to_string(root().join("mongoose.cdx.json")).expect("mongoose.cdx.json");
    for place in [env!("CARGO_MANIFEST_DIR"), "/.cargo/", "registry/src", "index."] {
        assert!(!list.contains(place) && !bill.contains(place), "{place}");
    }
    assert!(!list.contains("has no file with the text of its licence"));
}
