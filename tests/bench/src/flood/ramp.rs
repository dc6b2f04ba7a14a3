//! How many attackers a network carries: twice as many again and again, until more of them bring no more through.
//!
//! Never beyond what the generator holds. Invariant: aimed at the sink alone, so that what is found is the network's limit
//! and not the victim's.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::bogus::MIX;
use super::cast::{ATTACKERS_MAX, At, Cast, Stretch};
use super::role::fraction;

/// Attackers to begin with.
const FIRST: u64 = 24;
/// So much more must twice as many bring to be worth it.
const WORTH: f64 = 1.1;
const SETTLE: Duration = Duration::from_secs(4);
const MEASURE: Duration = Duration::from_secs(5);

/// What so many attackers brought through.
pub(super) struct Step {
    pub(super) attackers: u64,
    pub(super) stretch: Stretch,
}

/// Finds the number and leaves the generator set to it, still aimed at the sink.
pub(super) fn climb(cast: &mut Cast) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let (mut best, mut found) = (0.0, FIRST);
    let mut attackers = FIRST;
    while attackers <= ATTACKERS_MAX {
        eprintln!("{attackers} attackers at the sink");
        cast.attackers = attackers;
        let stretch = cast.stretch(At::Sink, SETTLE, MEASURE)?;
        let rate = messages(&stretch.sent)? as f64 / fraction(&stretch.sent, "seconds")?;
        steps.push(Step { attackers, stretch });
        if rate < WORTH * best {
            break;
        }
        (best, found) = (rate, attackers);
        attackers *= 2;
    }
    cast.attackers = found;
    Ok(steps)
}

/// Bogus messages that were handed over, of every kind.
pub(super) fn messages(sent: &Value) -> Result<u64> {
    (0..MIX.len()).map(|place| of_kind(sent, place)).sum()
}

/// Bogus messages of one kind.
pub(super) fn of_kind(sent: &Value, place: usize) -> Result<u64> {
    let kinds = sent.get("kinds").and_then(Value::as_array);
    kinds
        .and_then(|kinds| kinds.get(place)?.as_u64())
        .with_context(|| format!("no kind {place} in {sent}"))
}
