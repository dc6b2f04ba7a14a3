//! The onion service in `/api/status`: its protection, its circuits and its counters.

use bastion::TorStatus;
use serde_json::{Value, json};

/// The status as JSON; `null` on the loopback transport.
pub(super) fn show(tor: Option<TorStatus>) -> Value {
    let Some(tor) = tor else { return Value::Null };
    let (hardening, circuits) = (tor.hardening, tor.circuits);
    json!({
        "intro_points": hardening.intro_points,
        "intro_rate_per_s": hardening.intro_rate_per_s,
        "intro_burst": hardening.intro_burst,
        "vanguards": hardening.vanguards.as_str(),
        "streams_per_circuit_max": tor.streams_per_circuit_max,
        "circuits": circuits.open,
        "circuits_max": tor.circuits_max,
        "building": circuits.building,
        "accepts_max": tor.accepts_max,
        "waiting": circuits.waiting,
        "built_total": circuits.built_total,
        "failed_total": circuits.failed_total,
        "evicted_total": circuits.evicted_total,
        "refused_total": circuits.refused_total,
        "abused_total": circuits.abused_total,
        "pow": { "built_in": tor.pow.built_in, "on": tor.pow.on },
        "bridges": { "built_in": tor.bridges.built_in, "on": tor.bridges.on },
    })
}
