//! Each part of a request with divan: times over many rounds, allocations beside them.

#![expect(clippy::expect_used, reason = "a benchmark whose setting can't be made has failed")]

use divan::Bencher;

#[global_allocator]
static ALLOCATIONS: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}

fn names() -> Vec<&'static str> {
    gamut_parts::all().expect("the parts are valid").iter().map(|part| part.name).collect()
}

#[divan::bench(args = names())]
fn part(bencher: Bencher<'_, '_>, name: &str) {
    let parts = gamut_parts::all().expect("the parts are valid");
    let mut part = parts.into_iter().find(|part| part.name == name).expect("a part of this name");
    bencher.bench_local(|| (part.once)().expect("a part that succeeds"));
}
