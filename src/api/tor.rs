//! The onion service in `/api/status`: what protects it, how full it is, what it turned away.

use bastion::TorStatus;
use serde_json::{Value, json};

/// `null` where peers are not reached over Tor.
pub(super) fn show(tor: Option<TorStatus>) -> Value {
    let Some(tor) = tor else { return Value::Null };
    let (asked, now) = (tor.hardening, tor.circuits);
    json!({
        "intro_points": asked.intro_points,
        "intro_rate_per_s": asked.intro_rate_per_s,
        "intro_burst": asked.intro_burst,
        "vanguards": asked.vanguards.as_str(),
        "streams_per_circuit_max": tor.streams_per_circuit_max,
        "circuits": now.open,
        "circuits_max": tor.circuits_max,
        "building": now.building,
        "accepts_max": tor.accepts_max,
        "waiting": now.waiting,
        "built_total": now.built_total,
        "failed_total": now.failed_total,
        "evicted_total": now.evicted_total,
        "refused_total": now.refused_total,
        "abused_total": now.abused_total,
        "pow": { "built_in": tor.pow.built_in, "on": tor.pow.on },
        "bridges": { "built_in": tor.bridges.built_in, "on": tor.bridges.on },
    })
}
