//! Finds the number of attackers that saturates the network, by doubling it until the rate stops
//! rising.
//!
//! Bounded by the caller. Invariant: only the sink is attacked, so that the network is the
//! limit and not the victim.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::bogus::MIX;
use super::processes::{FloodTarget, Measurement, Processes};
use super::role::fraction;

/// Number of attackers in the first step.
pub(super) const FIRST: u64 = 24;
/// The minimum ratio of the rates of two steps; a lower ratio ends the search.
const GAIN_MIN: f64 = 1.1;

/// The measurement with one number of attackers.
pub(super) struct RampStep {
    pub(super) attackers: u64,
    pub(super) measurement: Measurement,
}

/// Finds the number, at most `attackers_max`, and sets it; the flood still targets the sink
/// afterwards. Each step takes a pause and then a measurement.
pub(super) fn find_attackers(
    processes: &mut Processes,
    attackers_max: u64,
    (settle, measure): (Duration, Duration),
) -> Result<Vec<RampStep>> {
    let mut steps = Vec::new();
    let (mut best, mut found) = (0.0, FIRST);
    let mut attackers = FIRST;
    while attackers <= attackers_max {
        eprintln!("{attackers} attackers at the sink");
        processes.attackers = attackers;
        let measurement = processes.measure(FloodTarget::Sink, settle, measure)?;
        let rate = messages(&measurement.sent)? as f64 / fraction(&measurement.sent, "seconds")?;
        steps.push(RampStep {
            attackers,
            measurement,
        });
        if rate < GAIN_MIN * best {
            break;
        }
        (best, found) = (rate, attackers);
        attackers *= 2;
    }
    processes.attackers = found;
    Ok(steps)
}

/// Returns the number of bogus messages of all kinds.
pub(super) fn messages(sent: &Value) -> Result<u64> {
    (0..MIX.len()).map(|index| of_kind(sent, index)).sum()
}

/// Returns the number of bogus messages of one kind.
pub(super) fn of_kind(sent: &Value, index: usize) -> Result<u64> {
    let kinds = sent.get("kinds").and_then(Value::as_array);
    kinds
        .and_then(|kinds| kinds.get(index)?.as_u64())
        .with_context(|| format!("no kind {index} in {sent}"))
}
