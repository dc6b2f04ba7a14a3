//! Replays the corpus: past findings stay fixed, and the committed seeds match the current
//! encodings.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fuzz::TARGETS;

/// Maximum size of the whole corpus in bytes, so that it can be reviewed.
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
fn committed_inputs_give_the_expected_result() {
    for (name, target) in TARGETS {
        let folder = corpus().join(name);
        for input in names(&folder) {
            let bytes = fs::read(folder.join(&input)).unwrap();
            // Names the input, because a panic in the target does not.
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
fn committed_seeds_match_the_current_encodings() {
    let mut wanted = BTreeSet::new();
    for seed in fuzz::seeds() {
        let path = corpus().join(seed.target).join(&seed.name);
        let is_current = fs::read(&path).is_ok_and(|bytes| bytes == seed.bytes);
        assert!(
            is_current,
            "{}: cargo run -p fuzz --example seeds",
            path.display()
        );
        assert!(wanted.insert(path), "two seeds with the same name");
    }
    for (name, _) in TARGETS {
        let folder = corpus().join(name);
        let is_seed = |input: &&String| input.starts_with("good-") || input.starts_with("bad-");
        for input in names(&folder).iter().filter(is_seed) {
            assert!(
                wanted.contains(&folder.join(input)),
                "{name}/{input} is not a seed any more"
            );
        }
    }
}

#[test]
fn targets_have_a_binary_and_a_corpus_of_bounded_size() {
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
