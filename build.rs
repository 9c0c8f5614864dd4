//! Compiles the C half of the printf family and gives the shared library its name.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/ffi/variadic.c");
    let mut c = cc::Build::new();
    c.file("src/ffi/variadic.c").warnings(true).extra_warnings(true);
    if let Some(name) = exported_by_ring() {
        c.define("MONGOOSE_HIDE", name.as_str());
    }
    c.compile("mongoose_variadic");

    // cargo-c turns on the feature `capi` and sets a soname of its own.
    if std::env::var_os("CARGO_FEATURE_CAPI").is_none() {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libmongoose.so.5");
    }
    // Thread-locals and fork handlers of the library must outlive a dlclose.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}

/// Where ring has no assembly for a machine, one of its own C functions is written in Rust instead, and
/// then the shared library would export it. The name has ring's version in it.
fn exported_by_ring() -> Option<String> {
    println!("cargo::rerun-if-changed=Cargo.lock");
    std::env::var_os("CARGO_FEATURE_TLS")?;
    let machine = std::env::var("CARGO_CFG_TARGET_ARCH").ok()?;
    if ["aarch64", "arm", "x86", "x86_64"].contains(&machine.as_str()) {
        return None;
    }
    // A dependent crate has no use for the shared library, and no such file here.
    let lock = std::fs::read_to_string("Cargo.lock").ok()?;
    let ring = lock.split("[[package]]").find(|package| package.contains("name = \"ring\"\n"))?;
    let version =
        ring.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))?;
    Some(format!("ring_core_{}__bn_mul_mont", version.replace('.', "_")))
}
