//! Compiles the second parser, llhttp, from the sources that a package of the machine brings, and the shim
//! in front of it. `LLHTTP` names another folder with the sources of a release.

use std::path::PathBuf;

fn main() {
    let (sources, headers) = match std::env::var_os("LLHTTP") {
        Some(dir) => (PathBuf::from(&dir), PathBuf::from(dir)),
        None => (PathBuf::from("/usr/share/llhttp"), PathBuf::from("/usr/include/llhttp")),
    };
    // Debian has put the header below /usr/share.
    let debian = PathBuf::from("/usr/share/include/llhttp");
    let llhttp = ["api.c", "http.c", "llhttp.c"].map(|name| sources.join(name));
    println!("cargo:rerun-if-env-changed=LLHTTP");
    println!("cargo:rerun-if-changed=second.c");
    for file in &llhttp {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    cc::Build::new()
        .files(llhttp)
        .include(&headers)
        .include(&debian)
        .warnings(false)
        .compile("llhttp");
    cc::Build::new().file("second.c").include(headers).include(debian).compile("second");
}
