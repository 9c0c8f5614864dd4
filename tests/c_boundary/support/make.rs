//! `make` as a user runs it.

use std::process::Command;

/// A `make` of this repository.
pub fn make(args: &[&str]) -> Command {
    let mut command = Command::new("make");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args);
    // A make around `cargo test` has job slots that do not reach through.
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CARGO_MAKEFLAGS"] {
        command.env_remove(name);
    }
    // What cargo tells this test of its package; ring would be built again for it.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text == "OUT_DIR"
            || ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|s| text.starts_with(s))
        {
            command.env_remove(&name);
        }
    }
    command
}
