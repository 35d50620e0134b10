//! Every target on its committed seeds and on blind mutations of them, the same each time, so that a change is not blamed for what was
//! there before. It finds less than coverage does (`fuzz/run`), but at each change: `GAMUT_FUZZ_MUTATIONS=1000000 cargo test --release
//! --test replay` looks longer, and elsewhere each time.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, RandomState},
    path::Path,
    thread,
};

use gamut_fuzz::{TARGETS, Target};

/// Mutations of each target's seeds, where nobody says how many.
const MUTATIONS: u64 = 2000;

#[test]
fn no_seed_and_no_mutation_of_one_is_honoured() {
    let longer = std::env::var("GAMUT_FUZZ_MUTATIONS").ok();
    let mutations = longer.as_ref().map_or(MUTATIONS, |text| text.parse().unwrap());
    thread::scope(|scope| {
        for (name, target) in TARGETS {
            // A thread each, so that a panic names its target.
            let begin = match longer {
                Some(_) => RandomState::new().hash_one(name),
                None => BuildHasherDefault::<DefaultHasher>::default().hash_one(name),
            };
            let replay = move || replay(name, target, mutations, Random(begin | 1));
            thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, replay).unwrap();
        }
    });
}

#[test]
fn the_page_names_every_target() {
    let page = include_str!("../README.md");
    for (name, _) in TARGETS {
        assert!(page.contains(&format!("| `{name}` |")), "{name} isn't in fuzz/README.md");
    }
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let strays = fs::read_dir(seeds).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for directory in strays {
        assert!(TARGETS.iter().any(|(name, _)| *name == directory), "seeds of no target: {directory}");
    }
}

fn replay(name: &str, target: Target, mutations: u64, mut random: Random) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let seeds: Vec<Vec<u8>> = entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(!seeds.is_empty(), "{} has no seeds", directory.display());
    seeds.iter().for_each(|seed| target(seed));

    println!("{name}: {} seeds, {mutations} mutations, from {:#x}", seeds.len(), random.0);
    for _ in 0..mutations {
        let seed = &seeds[random.below(seeds.len())];
        target(&mutated(seed, &seeds, &mut random));
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
