//! The coverage-guided program: libFuzzer, and the target that `GAMUT_FUZZ_TARGET` names. `fuzz/run` builds and starts it.

#![no_main]

use std::sync::LazyLock;

use gamut_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("GAMUT_FUZZ_TARGET").unwrap_or_default();
    match TARGETS.iter().find(|(name, _)| *name == wanted) {
        Some((_, target)) => *target,
        None => {
            eprintln!("GAMUT_FUZZ_TARGET is {wanted:?}, which is no target; {}", names());
            std::process::exit(2);
        }
    }
});

fn names() -> String {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    format!("there are {}", names.join(", "))
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| (*TARGET)(input));
