//! The course of a flood: who does what when, and what is measured meanwhile.
//!
//! Never measures while it settles. Invariant: what is aimed at the sink and at the victim is the same, for the same time.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::cast::{At, Cast, Stretch};
use super::guests::IDLE;
use super::ramp::{self, Step};
use super::role::{fraction, number};
use super::tor::Network;
use super::{Options, tables};
use crate::machine;
use crate::report::Report;
use crate::stopwatch::pause;

/// Before anything is measured after a change.
const SETTLE: Duration = Duration::from_millis(1500);
/// The same over Tor: attackers build circuits first.
const SETTLE_TOR: Duration = Duration::from_secs(4);
/// For the effort to follow the load before strangers come.
const RISE: Duration = Duration::from_secs(6);
/// Every pause and measurement of a run with `--tiny`.
const TINY: Duration = Duration::from_millis(500);
/// Looks for something to become so.
const LOOKS: u32 = 300;
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// What the gate's clock is put forward by at a look, once the flood is over, and how far in all.
const FORWARD_S: u64 = 10;
const FORWARD_S_MAX: u64 = 3600;
/// Strangers between two uses of the ticket; no more than six a minute are allowed.
const STRANGERS_A_TICKET: usize = 6;
/// Objects of a package. Over Tor few, so that a stretch holds many; three of them still fill a stream's window.
const PACKAGE: usize = 1000;
const PACKAGE_TOR: usize = 250;
/// Over Tor the machine carries less of everything.
const MESSAGES_TOR_MAX: u64 = 10_000;
const STALLERS_TOR_MAX: u64 = 100;
const STRANGERS_TOR_MAX: usize = 10;

/// How long and how often.
pub(super) struct Course {
    /// Over a Tor network.
    pub(super) tor: bool,
    pub(super) messages: u64,
    pub(super) package: usize,
    pub(super) stallers: u64,
    rounds: usize,
    settle: Duration,
    /// Before unadmitted clients come, for the effort to follow the load.
    rise: Duration,
    measure: Duration,
    strangers: usize,
    /// After which no further stranger comes.
    strangers_time: Duration,
    /// Who come while the flood is aimed at the sink: over Tor the dial itself takes time.
    strangers_at_sink: usize,
}

/// Everything that was seen.
pub(super) struct Seen {
    /// How the number of attackers was found, over Tor.
    pub(super) ramp: Option<Vec<Step>>,
    pub(super) relays: usize,
    pub(super) attackers: u64,
    pub(super) stallers: u64,
    pub(super) alone: Vec<Stretch>,
    pub(super) at_sink: Vec<Stretch>,
    pub(super) at_victim: Vec<Stretch>,
    /// The time of the strangers.
    pub(super) strangers_time: Stretch,
    pub(super) strangers: Vec<Value>,
    pub(super) strangers_at_sink: Vec<Value>,
    /// Who could not come, since the others took so long.
    pub(super) strangers_missing: usize,
    pub(super) tickets: Vec<Value>,
    pub(super) calm: Value,
    /// The fullest moments' status.
    pub(super) during: Vec<Value>,
    pub(super) after: After,
    pub(super) sessions: Value,
    pub(super) peak_before: f64,
    pub(super) peak_during: f64,
    /// The same of the sink: before it was ever aimed at, and during the flood.
    pub(super) sink_peaks: (f64, f64),
}

/// What became of it when the flood was over.
pub(super) struct After {
    /// Seconds until nobody was left in the lobby.
    pub(super) empty_s: Option<f64>,
    /// Seconds of the gate's clock until the effort was calm.
    pub(super) calm_s: Option<u64>,
    /// A stranger who came then.
    pub(super) stranger: Value,
    pub(super) status: Value,
    /// Seconds until no more circuits were open than there are peers inside; over Tor.
    pub(super) circuits_s: Option<f64>,
}

pub(super) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let course = options.course();
    report.fact("messages", &course.messages.to_string());
    report.fact("rounds", &course.rounds.to_string());
    let mut cast = Cast::start(options, &course)?;
    let seen = play(&mut cast, &course)?;
    drop(cast);
    tables::tell(&seen, report)?;
    report.fact("load after", &machine::load());
    Ok(())
}

impl Options {
    fn course(&self) -> Course {
        let mut course = Course {
            tor: self.tor,
            messages: self.messages,
            package: PACKAGE,
            stallers: self.stallers,
            rounds: self.rounds.max(1),
            settle: SETTLE,
            rise: RISE,
            measure: Duration::from_secs(8),
            strangers: self.strangers.max(1),
            strangers_time: Duration::from_secs(420),
            strangers_at_sink: 0,
        };
        if self.quick {
            course.rounds = 2;
            course.measure = Duration::from_secs(4);
            course.strangers = 5;
            course.strangers_time = Duration::from_secs(25);
            course.messages = self.messages.min(10_000);
        }
        if self.tiny {
            course.rounds = 1;
            course.settle = TINY;
            course.rise = TINY;
            course.measure = TINY;
            course.strangers = 1;
            course.stallers = 20;
            course.messages = 2000;
        }
        if self.tor {
            course.messages = self.messages.min(MESSAGES_TOR_MAX);
            course.package = PACKAGE_TOR;
            course.stallers = course.stallers.min(STALLERS_TOR_MAX);
            course.settle = course.settle.max(SETTLE_TOR);
            course.strangers = course.strangers.min(STRANGERS_TOR_MAX);
            course.strangers_at_sink = course.strangers.div_ceil(2);
        }
        course
    }
}

fn play(cast: &mut Cast, course: &Course) -> Result<Seen> {
    let calm = cast.victim.ask("status")?;
    warm_up(cast, course)?;
    let (settle, measure) = (course.settle, course.measure);
    let (mut alone, mut at_sink, mut at_victim) = (Vec::new(), Vec::new(), Vec::new());
    let (mut during, mut tickets) = (Vec::new(), Vec::new());
    alone.push(cast.stretch(At::Nobody, settle, measure)?);
    let sink_before = cast.sink.resident("VmHWM")?;
    let ramp = course.tor.then(|| ramp::climb(cast)).transpose()?;
    // Once past the sink before memory is noted: what serving alone takes is no growth.
    at_sink.push(cast.stretch(At::Sink, settle, measure)?);
    let peak_before = cast.victim.resident("VmHWM")?;
    for round in 0..course.rounds {
        eprintln!("round {} of {}", round + 1, course.rounds);
        at_victim.push(cast.stretch(At::Victim, settle, measure)?);
        during.push(cast.victim.ask("status")?);
        tickets.push(cast.ticket()?);
        at_sink.push(cast.stretch(At::Sink, settle, measure)?);
    }
    let strangers_at_sink = come(cast, course, course.strangers_at_sink, |_, _| Ok(()))?;
    alone.push(cast.stretch(At::Nobody, settle, measure)?);

    cast.aim(At::Victim)?;
    pause(course.rise);
    let mark = cast.mark()?;
    let strangers = come(cast, course, course.strangers, |cast, number| {
        during.push(cast.victim.ask("status")?);
        if number % STRANGERS_A_TICKET == 0 {
            tickets.push(cast.ticket()?);
        }
        Ok(())
    })?;
    let strangers_time = cast.since(&mark)?;
    let peak_during = cast.victim.resident("VmHWM")?;
    let sink_peaks = (sink_before, cast.sink.resident("VmHWM")?);
    let sessions = cast.guests.ask("count")?;
    let after = afterwards(cast, course)?;
    Ok(Seen {
        ramp,
        relays: cast.network.as_ref().map_or(0, Network::relays),
        attackers: cast.attackers,
        stallers: course.stallers,
        alone,
        at_sink,
        at_victim,
        strangers_time,
        strangers_missing: course.strangers - strangers.len(),
        strangers,
        strangers_at_sink,
        tickets,
        calm,
        during,
        after,
        sessions,
        peak_before,
        peak_during,
        sink_peaks,
    })
}

/// Until everything was pulled twice: caches are warm, and the puller is past its checks.
fn warm_up(cast: &mut Cast, course: &Course) -> Result<()> {
    let looks = if course.tor { 4 * LOOKS } else { LOOKS };
    for _ in 0..looks {
        if number(&cast.guests.ask("count")?, "objects")? >= 2 * course.messages {
            return Ok(());
        }
        pause(LOOK_AGAIN);
    }
    let told = cast.guests.ask("count")?;
    ensure!(false, "the pull does not get on: {told}");
    Ok(())
}

/// Strangers, one after the other, as long as there is time; `then` is done after each.
fn come(
    cast: &mut Cast,
    course: &Course,
    count: usize,
    mut then: impl FnMut(&mut Cast, usize) -> Result<()>,
) -> Result<Vec<Value>> {
    let mut strangers = Vec::new();
    let mut took = 0.0;
    for number in 0..count {
        if took > course.strangers_time.as_secs_f64() {
            break;
        }
        eprintln!("stranger {} of {count}", number + 1);
        let stranger = cast.stranger()?;
        took += fraction(&stranger, "seconds")?;
        strangers.push(stranger);
        then(cast, number)?;
    }
    Ok(strangers)
}

/// Rest, and what the gate makes of it.
fn afterwards(cast: &mut Cast, course: &Course) -> Result<After> {
    cast.aim(At::Nobody)?;
    eprintln!("the flood is over");
    let empty_s = until(cast, LOOKS, nobody_waits)?;
    let circuits_s = if course.tor {
        let inside = IDLE as u64 + 1;
        let waited = until(cast, LOOKS * 5, |status| {
            Ok(circuits(status, "open")? <= inside)
        })?;
        // From the end of the flood on.
        waited.map(|seconds| seconds + empty_s.unwrap_or_default())
    } else {
        None
    };
    let calm_effort = bastion::GateConfig::default().effort_idle;
    let mut calm_s = None;
    let mut forward = 0;
    while forward <= FORWARD_S_MAX {
        let status = cast.victim.ask("status")?;
        if number(&status, "effort")? == calm_effort {
            calm_s = Some(forward);
            break;
        }
        cast.forward(FORWARD_S)?;
        forward += FORWARD_S;
    }
    cast.forward(FORWARD_S_MAX)?;
    let stranger = cast.stranger()?;
    until(cast, LOOKS, nobody_waits)?;
    Ok(After {
        empty_s,
        calm_s,
        stranger,
        status: cast.victim.ask("status")?,
        circuits_s,
    })
}

/// Seconds until the victim's status is as wanted; none where that does not come.
fn until(
    cast: &mut Cast,
    looks: u32,
    wanted: impl Fn(&Value) -> Result<bool>,
) -> Result<Option<f64>> {
    for look in 0..looks {
        if wanted(&cast.victim.ask("status")?)? {
            return Ok(Some(f64::from(look) * LOOK_AGAIN.as_secs_f64()));
        }
        pause(LOOK_AGAIN);
    }
    Ok(None)
}

/// Whether nobody is in the lobby or before the verifiers.
fn nobody_waits(status: &Value) -> Result<bool> {
    for name in [
        "silent",
        "thinking",
        "presenting",
        "known",
        "queue",
        "verifying",
    ] {
        if number(status, name)? > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A count of circuits in the victim's status.
pub(super) fn circuits(status: &Value, name: &str) -> Result<u64> {
    number(status.get("circuits").unwrap_or(&Value::Null), name)
}
