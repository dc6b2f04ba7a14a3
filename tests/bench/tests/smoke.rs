//! Runs every benchmark once at its smallest size, so that a broken benchmark is detected.
//!
//! The values of such a run have no meaning. Only the end of the run and its report are checked.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::process::Command;

/// Runs `bench NAME --tiny --json` and returns the names of the reported rows.
fn rows(name: &str) -> Vec<String> {
    rows_of(&[name])
}

fn rows_of(command: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(command)
        .args(["--tiny", "--json"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "bench {command:?}: {errors}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let row = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
    lines
        .lines()
        .map(|line| row(line)["name"].as_str().unwrap().trim().to_owned())
        .collect()
}

#[test]
fn bench_sync_completes() {
    let rows = rows("sync");
    assert!(rows.iter().any(|row| row == "load after"), "{rows:?}");
}

#[test]
fn bench_graph_completes() {
    let rows = rows("graph");
    assert!(rows.iter().any(|row| row == "load after"), "{rows:?}");
}

#[test]
fn bench_puzzle_completes() {
    let rows = rows("puzzle");
    assert!(rows.iter().any(|row| row == "Equi-X"), "{rows:?}");
}

#[test]
fn bench_flood_completes() {
    let rows = rows("flood");
    assert!(rows.iter().any(|row| row == "load after"), "{rows:?}");
}

#[cfg(feature = "tor")]
#[test]
fn bench_flood_over_tor_completes() {
    let rows = rows_of(&["flood", "--tor"]);
    assert!(rows.iter().any(|row| row == "load after"), "{rows:?}");
}

#[test]
fn bench_simulate_completes() {
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["simulate", "--first-seed", "4", "--seeds", "2", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let rows = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let seeds: Vec<_> = rows.filter_map(|row| row["seed"].as_u64()).collect();
    assert!(seeds.contains(&4) && seeds.contains(&5), "{lines}");
}
