//! The jump from one function to another of the same library, which leaves all arguments and the return
//! address where they are: one instruction, or few, for each CPU that Rust has with Linux.
//!
//! Knows nothing of the functions. `tests/jumps.rs` assembles this file for all of these CPUs, so it uses
//! nothing but its own macro, which takes the other function's name as its only operand.

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
macro_rules! jump_to {
    () => {
        "jmp {}"
    };
}
#[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
macro_rules! jump_to {
    () => {
        "b {}"
    };
}
#[cfg(any(target_arch = "riscv64", target_arch = "riscv32"))]
macro_rules! jump_to {
    () => {
        "tail {}"
    };
}
#[cfg(target_arch = "s390x")]
macro_rules! jump_to {
    () => {
        "jg {}"
    };
}
// `$t0` belongs to nobody between caller and function.
#[cfg(any(target_arch = "loongarch64", target_arch = "loongarch32"))]
macro_rules! jump_to {
    () => {
        "la.local $t0, {}\njr $t0"
    };
}
// Under the second ABI a function finds its data by r2. Whoever calls by the exported name gives the
// address in r12, and r2 is found from there; the hidden function is entered behind the place at which it
// would do the same.
#[cfg(all(target_arch = "powerpc64", any(target_endian = "little", target_env = "musl")))]
macro_rules! jump_to {
    () => {
        "0: addis 2, 12, .TOC.-0b@ha\naddi 2, 2, .TOC.-0b@l\nb {}"
    };
}
// Under the first, a call goes through a descriptor, which brings r2.
#[cfg(any(
    target_arch = "powerpc",
    all(target_arch = "powerpc64", not(any(target_endian = "little", target_env = "musl")))
))]
macro_rules! jump_to {
    () => {
        "b {}"
    };
}
// A function is entered with its own address in $25. From that the table of addresses is found, in $1,
// which belongs to nobody here; $28 may be the caller's.
#[cfg(any(target_arch = "mips", target_arch = "mips32r6"))]
macro_rules! jump_to {
    () => {
        ".set push\n.set noreorder\n.set noat\n\
         lui $1, %hi(_gp_disp)\naddiu $1, $1, %lo(_gp_disp)\naddu $1, $1, $25\n\
         lw $25, %call16({})($1)\njr $25\nnop\n.set pop"
    };
}
#[cfg(any(target_arch = "mips64", target_arch = "mips64r6"))]
macro_rules! jump_to {
    () => {
        ".set push\n.set noreorder\n.set noat\n\
         0: lui $1, %hi(%neg(%gp_rel(0b)))\ndaddu $1, $1, $25\ndaddiu $1, $1, %lo(%neg(%gp_rel(0b)))\n\
         ld $25, %call16({})($1)\njr $25\nnop\n.set pop"
    };
}
// The instruction behind a call is done before it, and puts the caller's return address back.
#[cfg(any(target_arch = "sparc64", target_arch = "sparc"))]
macro_rules! jump_to {
    () => {
        "mov %o7, %g1\ncall {}\nmov %g1, %o7"
    };
}
#[cfg(target_arch = "csky")]
macro_rules! jump_to {
    () => {
        "br32 {}"
    };
}
#[cfg(target_arch = "hexagon")]
macro_rules! jump_to {
    () => {
        "jump {}"
    };
}
