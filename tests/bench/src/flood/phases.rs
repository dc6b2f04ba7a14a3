//! The phases of a flood, and the measurements in each.
//!
//! Each measurement starts after a settling time. Invariant: sink and victim receive the same flood
//! for the same time.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::clients::IDLE_SESSIONS;
use super::processes::{ATTACKERS_MAX, FloodTarget, Measurement, Processes};
use super::ramp::{self, RampStep};
use super::role::{fraction, number};
use super::tor::Network;
use super::{Options, tables};
use crate::machine;
use crate::report::Report;
use crate::stopwatch::pause;

/// Pause between a change of the target and a measurement.
const SETTLE: Duration = Duration::from_millis(1500);
/// The same pause over Tor, where attackers build circuits first.
const SETTLE_TOR: Duration = Duration::from_secs(4);
/// Pause in which the effort rises, before unadmitted clients dial.
const RISE: Duration = Duration::from_secs(6);
/// Every pause and measurement of a run with `--tiny`.
const TINY: Duration = Duration::from_millis(500);
/// Maximum number of polls for a condition, and the time between two polls.
const POLLS: u32 = 300;
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Seconds by which a poll after the flood moves the gate's clock forward, and their maximum sum.
const FORWARD_S: u64 = 10;
const FORWARD_S_MAX: u64 = 3600;
/// Number of unadmitted clients between two uses of the ticket; the limit is six uses per minute.
const DIALS_PER_TICKET: usize = 6;
/// Objects in a package. Over Tor packages are smaller, so that a measurement contains many; three
/// of them still fill a stream's window.
const PACKAGE: usize = 1000;
const PACKAGE_TOR: usize = 250;
/// Upper bounds over Tor, because every connection costs more there.
const MESSAGES_TOR_MAX: u64 = 10_000;
const STALLERS_TOR_MAX: u64 = 100;
const UNADMITTED_TOR_MAX: usize = 10;

/// The sizes and durations of a run.
pub(super) struct Plan {
    /// Whether the run uses a Tor network.
    pub(super) tor: bool,
    pub(super) messages: u64,
    pub(super) package: usize,
    pub(super) stallers: u64,
    rounds: usize,
    settle: Duration,
    /// Most attackers over Tor, and the pause and measurement for each number of them.
    attackers_max: u64,
    ramp: (Duration, Duration),
    /// Pause in which the effort rises, before unadmitted clients dial.
    rise: Duration,
    measure: Duration,
    unadmitted: usize,
    /// Total dial time after which no further unadmitted client dials.
    unadmitted_time: Duration,
    /// Number of unadmitted clients during the flood at the sink: over Tor the dial itself takes
    /// time.
    unadmitted_at_sink: usize,
    /// Number of polls in which idle circuits have to be closed, over Tor.
    circuit_polls: u32,
}

/// All measurements of a run.
pub(super) struct Results {
    /// The search for the number of attackers, over Tor.
    pub(super) ramp: Option<Vec<RampStep>>,
    pub(super) relays: usize,
    pub(super) attackers: u64,
    pub(super) stallers: u64,
    pub(super) alone: Vec<Measurement>,
    pub(super) at_sink: Vec<Measurement>,
    pub(super) at_victim: Vec<Measurement>,
    /// The time in which unadmitted clients dialled.
    pub(super) during_dials: Measurement,
    pub(super) dials: Vec<Value>,
    pub(super) dials_at_sink: Vec<Value>,
    /// Number of unadmitted clients that did not dial, because the time was over.
    pub(super) dials_missing: usize,
    pub(super) tickets: Vec<Value>,
    /// The victim's status before the flood.
    pub(super) idle: Value,
    /// The victim's status under flood, once per round and once per dial.
    pub(super) during: Vec<Value>,
    pub(super) after: AfterFlood,
    pub(super) sessions: Value,
    /// Peak memory of the victim before and during the flood, in MiB.
    pub(super) peak_before: f64,
    pub(super) peak_during: f64,
    /// Peak memory of the sink before and during the flood, in MiB.
    pub(super) sink_peaks: (f64, f64),
}

/// Measurements after the end of the flood.
pub(super) struct AfterFlood {
    /// Seconds until all handshake slots and the verification queue were empty.
    pub(super) empty_s: Option<f64>,
    /// Seconds of the gate's clock until the effort was the idle effort.
    pub(super) idle_effort_s: Option<u64>,
    /// An unadmitted client's dial afterwards.
    pub(super) dial: Value,
    pub(super) status: Value,
    /// Seconds until no more circuits were open than there are admitted peers; over Tor.
    pub(super) circuits_s: Option<f64>,
}

pub(super) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let plan = options.plan();
    report.fact("messages", &plan.messages.to_string());
    report.fact("rounds", &plan.rounds.to_string());
    let mut processes = Processes::start(options, &plan)?;
    let results = run_phases(&mut processes, &plan)?;
    drop(processes);
    tables::print(&results, report)?;
    report.fact("load after", &machine::load());
    Ok(())
}

impl Options {
    fn plan(&self) -> Plan {
        let mut plan = Plan {
            tor: self.tor,
            messages: self.messages,
            package: PACKAGE,
            stallers: self.stallers,
            rounds: self.rounds.max(1),
            settle: SETTLE,
            attackers_max: ATTACKERS_MAX,
            ramp: (SETTLE_TOR, Duration::from_secs(5)),
            rise: RISE,
            measure: Duration::from_secs(8),
            unadmitted: self.unadmitted.max(1),
            unadmitted_time: Duration::from_secs(420),
            unadmitted_at_sink: 0,
            circuit_polls: 5 * POLLS,
        };
        if self.quick {
            plan.rounds = 2;
            plan.measure = Duration::from_secs(4);
            plan.unadmitted = 5;
            plan.unadmitted_time = Duration::from_secs(25);
            plan.messages = self.messages.min(10_000);
        }
        if self.tor {
            plan.messages = self.messages.min(MESSAGES_TOR_MAX);
            plan.package = PACKAGE_TOR;
            plan.stallers = plan.stallers.min(STALLERS_TOR_MAX);
            plan.settle = plan.settle.max(SETTLE_TOR);
            plan.unadmitted = plan.unadmitted.min(UNADMITTED_TOR_MAX);
        }
        if self.tiny {
            plan.rounds = 1;
            plan.settle = TINY;
            plan.attackers_max = ramp::FIRST;
            plan.ramp = (TINY, TINY);
            plan.rise = TINY;
            plan.measure = TINY;
            plan.unadmitted = 1;
            plan.stallers = 20;
            plan.messages = 2000;
            // Idle circuits stay open for up to two minutes.
            plan.circuit_polls = 1;
        }
        if self.tor {
            plan.unadmitted_at_sink = plan.unadmitted.div_ceil(2);
        }
        plan
    }
}

fn run_phases(processes: &mut Processes, plan: &Plan) -> Result<Results> {
    let idle = processes.victim.query("status")?;
    warm_up(processes, plan)?;
    let (settle, measure) = (plan.settle, plan.measure);
    let (mut alone, mut at_sink, mut at_victim) = (Vec::new(), Vec::new(), Vec::new());
    let (mut during, mut tickets) = (Vec::new(), Vec::new());
    alone.push(processes.measure(FloodTarget::Off, settle, measure)?);
    let sink_before = processes.sink.resident("VmHWM")?;
    let ramp = plan
        .tor
        .then(|| ramp::find_attackers(processes, plan.attackers_max, plan.ramp))
        .transpose()?;
    // The flood at the sink precedes the memory baseline, so that memory for serving the pulling
    // peer does not count as growth.
    at_sink.push(processes.measure(FloodTarget::Sink, settle, measure)?);
    let peak_before = processes.victim.resident("VmHWM")?;
    for round in 0..plan.rounds {
        eprintln!("round {} of {}", round + 1, plan.rounds);
        at_victim.push(processes.measure(FloodTarget::Victim, settle, measure)?);
        during.push(processes.victim.query("status")?);
        tickets.push(processes.dial_with_ticket()?);
        at_sink.push(processes.measure(FloodTarget::Sink, settle, measure)?);
    }
    let dials_at_sink = dial_unadmitted(processes, plan, plan.unadmitted_at_sink, |_, _| Ok(()))?;
    alone.push(processes.measure(FloodTarget::Off, settle, measure)?);

    processes.aim(FloodTarget::Victim)?;
    pause(plan.rise);
    let snapshot = processes.snapshot()?;
    let dials = dial_unadmitted(processes, plan, plan.unadmitted, |processes, number| {
        during.push(processes.victim.query("status")?);
        if number % DIALS_PER_TICKET == 0 {
            tickets.push(processes.dial_with_ticket()?);
        }
        Ok(())
    })?;
    let during_dials = processes.since(&snapshot)?;
    let peak_during = processes.victim.resident("VmHWM")?;
    let sink_peaks = (sink_before, processes.sink.resident("VmHWM")?);
    let sessions = processes.admitted.query("count")?;
    let after = after_flood(processes, plan)?;
    Ok(Results {
        ramp,
        relays: processes.network.as_ref().map_or(0, Network::relays),
        attackers: processes.attackers,
        stallers: plan.stallers,
        alone,
        at_sink,
        at_victim,
        during_dials,
        dials_missing: plan.unadmitted - dials.len(),
        dials,
        dials_at_sink,
        tickets,
        idle,
        during,
        after,
        sessions,
        peak_before,
        peak_during,
        sink_peaks,
    })
}

/// Waits until all objects were pulled twice, because caches are warm then and the first, verifying
/// round of the pulling peer is over.
fn warm_up(processes: &mut Processes, plan: &Plan) -> Result<()> {
    let polls = if plan.tor { 4 * POLLS } else { POLLS };
    for _ in 0..polls {
        if number(&processes.admitted.query("count")?, "objects")? >= 2 * plan.messages {
            return Ok(());
        }
        pause(POLL_INTERVAL);
    }
    let counters = processes.admitted.query("count")?;
    ensure!(false, "the pull makes no progress: {counters}");
    Ok(())
}

/// Dials with new keys `count` times, one dial after the other, until the time is over. Calls
/// `then` after each dial.
fn dial_unadmitted(
    processes: &mut Processes,
    plan: &Plan,
    count: usize,
    mut then: impl FnMut(&mut Processes, usize) -> Result<()>,
) -> Result<Vec<Value>> {
    let mut dials = Vec::new();
    let mut took = 0.0;
    for number in 0..count {
        if took > plan.unadmitted_time.as_secs_f64() {
            break;
        }
        eprintln!("unadmitted client {} of {count}", number + 1);
        let dial = processes.dial_unadmitted()?;
        took += fraction(&dial, "seconds")?;
        dials.push(dial);
        then(processes, number)?;
    }
    Ok(dials)
}

/// Ends the flood and measures until the victim is idle.
fn after_flood(processes: &mut Processes, plan: &Plan) -> Result<AfterFlood> {
    processes.aim(FloodTarget::Off)?;
    eprintln!("the flood is over");
    let empty_s = until(processes, POLLS, is_idle)?;
    let circuits_s = if plan.tor {
        let admitted = IDLE_SESSIONS as u64 + 1;
        let waited = until(processes, plan.circuit_polls, |status| {
            Ok(circuits(status, "open")? <= admitted)
        })?;
        // Counted from the end of the flood.
        waited.map(|seconds| seconds + empty_s.unwrap_or_default())
    } else {
        None
    };
    let idle_effort = bastion::GateConfig::default().effort_idle;
    let mut idle_effort_s = None;
    let mut forward = 0;
    while forward <= FORWARD_S_MAX {
        let status = processes.victim.query("status")?;
        if number(&status, "effort")? == idle_effort {
            idle_effort_s = Some(forward);
            break;
        }
        processes.forward(FORWARD_S)?;
        forward += FORWARD_S;
    }
    processes.forward(FORWARD_S_MAX)?;
    let dial = processes.dial_unadmitted()?;
    until(processes, POLLS, is_idle)?;
    Ok(AfterFlood {
        empty_s,
        idle_effort_s,
        dial,
        status: processes.victim.query("status")?,
        circuits_s,
    })
}

/// Polls the victim's status until the condition holds. Returns the seconds, or `None` after the
/// last poll.
fn until(
    processes: &mut Processes,
    polls: u32,
    condition: impl Fn(&Value) -> Result<bool>,
) -> Result<Option<f64>> {
    for poll in 0..polls {
        if condition(&processes.victim.query("status")?)? {
            return Ok(Some(f64::from(poll) * POLL_INTERVAL.as_secs_f64()));
        }
        pause(POLL_INTERVAL);
    }
    Ok(None)
}

/// Returns whether all handshake slots and the verification queue are empty.
fn is_idle(status: &Value) -> Result<bool> {
    for name in [
        "awaiting_hello",
        "challenged",
        "verifying",
        "with_ticket",
        "verify_queue",
        "verify_running",
    ] {
        if number(status, name)? > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns a circuit counter of a status.
pub(super) fn circuits(status: &Value, name: &str) -> Result<u64> {
    number(status.get("circuits").unwrap_or(&Value::Null), name)
}
