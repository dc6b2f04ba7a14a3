//! The simulation of the real stack: 200 seeds, and what the simulation itself promises.
//!
//! Eight tests, so that they run beside each other. A failure prints the command that repeats it.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use harness::sim::{self, Features, IntermittentOptions, Tamper};

/// Runs the seeds of one test.
fn seeds(part: u64) {
    let features = Features::all();
    let violations: Vec<_> = (part * 25..(part + 1) * 25)
        .filter_map(|seed| sim::run(seed, &features).err())
        .collect();
    if let Some(first) = violations.first() {
        panic!("{} of 25 seeds; the first is {first}", violations.len());
    }
}

#[test]
fn properties_hold_for_seeds_0_to_24() {
    seeds(0);
}

#[test]
fn properties_hold_for_seeds_25_to_49() {
    seeds(1);
}

#[test]
fn properties_hold_for_seeds_50_to_74() {
    seeds(2);
}

#[test]
fn properties_hold_for_seeds_75_to_99() {
    seeds(3);
}

#[test]
fn properties_hold_for_seeds_100_to_124() {
    seeds(4);
}

#[test]
fn properties_hold_for_seeds_125_to_149() {
    seeds(5);
}

#[test]
fn properties_hold_for_seeds_150_to_174() {
    seeds(6);
}

#[test]
fn properties_hold_for_seeds_175_to_199() {
    seeds(7);
}

/// Twenty members, each online 10 % of the time: at most 1.3 bodies for each that a node needs.
#[test]
fn messages_reach_all_members_that_chains_of_meetings_connect() {
    let options = IntermittentOptions {
        members: 20,
        online: 0.1,
        rounds: 200,
        withholding: 0,
        rotates: 0.0,
    };
    let outcome = sim::intermittent(1, options).unwrap();
    assert!(
        outcome.meetings > 100 && outcome.reached > 1000,
        "{outcome:?}"
    );
    assert!(outcome.ratio() <= 1.3, "{}: {outcome:?}", outcome.ratio());
}

/// Keys are rotated too, so that relays pass records and objects in later forms.
#[test]
fn messages_of_members_that_rotate_their_keys_reach_all_that_are_connected() {
    let options = IntermittentOptions {
        members: 8,
        online: 0.25,
        rounds: 100,
        withholding: 0,
        rotates: 0.1,
    };
    let withheld = IntermittentOptions {
        withholding: 2,
        ..options
    };
    for (seed, options) in [(0, options), (1, options), (2, withheld), (3, withheld)] {
        let outcome = sim::intermittent(seed, options).unwrap();
        assert!(
            outcome.meetings > 50 && outcome.reached > 300,
            "{outcome:?}"
        );
        assert!(outcome.ratio() <= 1.3, "{}: {outcome:?}", outcome.ratio());
    }
}

#[test]
fn members_on_dead_nodes_are_dialled_seldom() {
    let features: Features = "groups,quiet,long-quiet,relay,introduce,dead-nodes"
        .parse()
        .unwrap();
    // These seeds draw all that introductions to dead nodes need.
    for seed in [5, 6, 9] {
        let outcome = sim::run(seed, &features).unwrap();
        assert!(outcome.dead_dials > 0, "seed {seed} dialled no dead node");
    }
}

#[test]
fn equal_seeds_give_equal_rows() {
    let first = sim::run(1000, &Features::all()).unwrap();
    assert_eq!(sim::run(1000, &Features::all()).unwrap(), first);
    let other = sim::run(1001, &Features::all()).unwrap();
    assert_ne!(other.digest, first.digest);
}

/// Most seeds in which a test looks for one whose run has something to damage.
const DRAWS_MAX: u64 = 20;

/// Damages the runs of some seeds until the oracle finds it. A run may have nothing to damage.
fn is_found_in_some(features: &str, tamper: Tamper, text: &str) -> bool {
    let features: Features = features.parse().unwrap();
    let mut draws = 1003..1003 + DRAWS_MAX;
    draws.any(|seed| {
        let run = sim::run_tampered(seed, &features, Some(tamper));
        run.is_err_and(|found| found.text.contains(text))
    })
}

#[test]
fn oracle_finds_the_loss_of_a_relayed_object() {
    let is_found = is_found_in_some("relay,apart", Tamper::RelayedLoss, "relays");
    assert!(is_found);
}

#[test]
fn oracle_finds_that_a_node_lost_what_its_peers_stated() {
    let is_found = is_found_in_some("receipts", Tamper::Receipts, "does not know that");
    assert!(is_found);
}

#[test]
fn oracle_finds_every_kind_of_damage() {
    for (tamper, text) in [
        (Tamper::Loss, "lacks"),
        (Tamper::OwnLoss, "lost its own"),
        (Tamper::Revision, "has another"),
        (Tamper::Invention, "which no node wrote"),
        (Tamper::Merging, "has not merged"),
        (Tamper::Heads, "has not merged"),
        (Tamper::Waiting, "wait for over 31 days"),
        (Tamper::Recovery, "recovers for too long"),
        (Tamper::Ended, "of an ended scope"),
        (Tamper::Flags, "has the bits 0 in"),
        (Tamper::Schema, "waits for a schema"),
        (Tamper::Refused, "was refused"),
        (Tamper::Outbox, "still has to push"),
        (Tamper::Usage, "counts"),
        (Tamper::Dangling, "refers to a row that does not exist"),
    ] {
        let found = sim::run_tampered(1002, &Features::none(), Some(tamper)).unwrap_err();
        assert!(found.text.contains(text), "{tamper:?}: {found}");
    }
}
