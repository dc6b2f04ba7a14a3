//! The corpus, replayed: what a search found once is found no more, and what it begins with is what travels today.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends here"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fuzz::TARGETS;

/// Bytes of the whole corpus; it is to stay small enough to be read.
const CORPUS_BYTES_MAX: u64 = 300_000;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn every_committed_input_keeps_the_rules_of_its_target() {
    for (name, target) in TARGETS {
        let folder = corpus().join(name);
        for input in names(&folder) {
            let bytes = fs::read(folder.join(&input)).unwrap();
            // A panic does not say which input it was.
            println!("{name}/{input}");
            let accepted = target(&bytes);
            let expected = match input.split('-').next() {
                Some("good") => true,
                Some("bad") => false,
                _ => accepted,
            };
            assert_eq!(accepted, expected, "{name}/{input}");
        }
    }
}

#[test]
fn the_committed_seeds_are_what_travels_today() {
    let mut wanted = BTreeSet::new();
    for seed in fuzz::seeds() {
        let path = corpus().join(seed.target).join(&seed.name);
        let is_current = fs::read(&path).is_ok_and(|bytes| bytes == seed.bytes);
        assert!(
            is_current,
            "{}: cargo run -p fuzz --example seeds",
            path.display()
        );
        assert!(wanted.insert(path), "two seeds of one name");
    }
    for (name, _) in TARGETS {
        let folder = corpus().join(name);
        let is_seed = |input: &&String| input.starts_with("good-") || input.starts_with("bad-");
        for input in names(&folder).iter().filter(is_seed) {
            assert!(
                wanted.contains(&folder.join(input)),
                "{name}/{input} is no seed any more"
            );
        }
    }
}

#[test]
fn every_target_has_a_binary_and_a_corpus_and_the_corpus_is_small() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&corpus()), targets);
    let binaries = names(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin"));
    let expected: BTreeSet<_> = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(binaries, expected);
    let files = targets.iter().flat_map(|target| {
        let folder = corpus().join(target);
        names(&folder)
            .into_iter()
            .map(move |input| folder.join(input))
    });
    let bytes: u64 = files.map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes");
}
