//! Compiles the C half of the printf family and gives the shared library its name.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/ffi/variadic.c");
    cc::Build::new()
        .file("src/ffi/variadic.c")
        .warnings(true)
        .extra_warnings(true)
        .compile("mongoose_variadic");

    // cargo-c turns on the feature `capi` and sets a soname of its own.
    if std::env::var_os("CARGO_FEATURE_CAPI").is_none() {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libmongoose.so.5");
    }
    // Thread-locals and fork handlers of the library must outlive a dlclose.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
