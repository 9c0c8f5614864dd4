// Sets the name under which programs load the shared library.
fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmongoose.so.5");
}
