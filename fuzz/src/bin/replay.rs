//! Runs a target on its committed seeds and on blind mutations of them, on the stable toolchain:
//! `cargo run --release --bin replay -- [MUTATIONS]`.
//!
//! It finds less than coverage does, and needs nothing that isn't installed: CI runs it, people run `cargo fuzz`.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    path::Path,
};

fn main() {
    let mutations: u64 = std::env::args().nth(1).map_or(100_000, |text| text.parse().expect("a number"));
    for (name, target) in gamut_fuzz::TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
        let seeds: Vec<Vec<u8>> = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
            .map(|entry| fs::read(entry.expect("a seed").path()).expect("a seed"))
            .collect();
        assert!(!seeds.is_empty(), "{} has no seeds", directory.display());
        seeds.iter().for_each(|seed| target(seed));

        let mut random = Random(RandomState::new().hash_one(name) | 1);
        println!("{name}: {} seeds, {mutations} mutations, from {:#x}", seeds.len(), random.0);
        for _ in 0..mutations {
            let seed = &seeds[random.below(seeds.len())];
            target(&mutated(seed, &seeds, &mut random));
        }
    }
}

/// One to four changes: a byte set, taken out or put in, an end cut off, a part of another seed appended.
fn mutated(seed: &[u8], seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seed.to_vec();
    for _ in 0..=random.below(4) {
        let place = random.below(input.len() + 1);
        let byte = random.next() as u8;
        match random.below(5) {
            0 if place < input.len() => input[place] = byte,
            1 if place < input.len() => drop(input.remove(place)),
            2 => input.insert(place, byte),
            3 => input.truncate(place),
            _ => {
                let other = &seeds[random.below(seeds.len())];
                input.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
        }
    }
    input
}

/// xorshift64 (Marsaglia, 2003): a failure is repeated by its number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap_or_default()
    }
}
