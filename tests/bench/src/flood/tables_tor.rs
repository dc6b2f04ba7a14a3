//! What a flood over Tor did beyond what one on loopback does, as tables.
//!
//! Never measures. Invariant: what limited the flood stands beside its rate.

use std::thread::available_parallelism;

use anyhow::Result;
use serde_json::Value;

use super::cast::Stretch;
use super::generator::STREAMS_A_CIRCUIT;
use super::guests::IDLE;
use super::phases::{Seen, circuits};
use super::ramp::{Step, messages};
use super::role::{fraction, number};
use super::tables::{per_second, seconds};
use crate::report::{Goal, Report};
use crate::stopwatch::median;

/// A circuit is looked at once in `circuit_idle`, and ended once it was without a stream for that long: twice 60 s, and
/// what it takes to notice.
const CIRCUITS_S_MAX: f64 = 130.0;

/// Somebody's processor time.
type Part = fn(&Stretch) -> f64;

/// Processor time of everybody who takes part, in percent of one core.
fn of_all(stretch: &Stretch) -> f64 {
    let spent = stretch.victim + stretch.sink + stretch.generator + stretch.guests + stretch.relays;
    100.0 * spent / stretch.seconds
}

/// How the rate was found, what came through at both, and where the processors went.
pub(super) fn network(seen: &Seen, ramp: &[Step], report: &mut Report) -> Result<()> {
    report.heading("What the private Tor network carries, at the sink");
    report.value(
        "authorities and relays, no limit set",
        seen.relays as f64,
        "processes",
    );
    let cores = available_parallelism().map_or(f64::NAN, |cores| cores.get() as f64);
    report.value("processor there is", 100.0 * cores, "% of a core");
    for step in ramp {
        let sent = &step.stretch.sent;
        let rate = messages(sent)? as f64 / fraction(sent, "seconds")?;
        report.value(
            &format!("{} attackers: bogus messages", step.attackers),
            rate,
            "a second",
        );
        report.value(
            "  processor of all who take part",
            of_all(&step.stretch),
            "% of a core",
        );
    }
    report.value("attackers from here on", seen.attackers as f64, "");
    report.value(
        "streams a circuit, every second one",
        f64::from(STREAMS_A_CIRCUIT),
        "",
    );
    report.value("streams a circuit, the others", 1.0, "");

    report.heading("What came through, a second");
    for (whom, stretches) in [("sink", &seen.at_sink), ("victim", &seen.at_victim)] {
        for (name, key) in [
            ("streams wanted", "attempts"),
            ("streams opened", "connections"),
            ("failed before the message was out", "lost"),
        ] {
            let rate = per_second(stretches, |sent| number(sent, key))?;
            report.value(&format!("{name}, {whom}"), rate, "a second");
        }
        let built = stretches.iter().map(|it| it.built as f64 / it.seconds);
        report.value(
            &format!("circuits built, {whom}"),
            median(built),
            "a second",
        );
        report.value(
            &format!("messages handed over, {whom}"),
            per_second(stretches, messages)?,
            "a second",
        );
    }

    report.heading("Where the processors go, in percent of one core");
    let part = |stretches: &[Stretch], part: Part| {
        median(
            stretches
                .iter()
                .map(|stretch| 100.0 * part(stretch) / stretch.seconds),
        )
    };
    let parts: [(&str, Part); 5] = [
        ("authorities and relays", |it| it.relays),
        ("attackers", |it| it.generator),
        ("victim", |it| it.victim),
        ("sink", |it| it.sink),
        ("peers inside", |it| it.guests),
    ];
    for (name, of) in parts {
        report.value(
            &format!("{name}, flood at nobody"),
            part(&seen.alone, of),
            "%",
        );
        report.value(
            &format!("{name}, flood at the sink"),
            part(&seen.at_sink, of),
            "%",
        );
        report.value(
            &format!("{name}, flood at the victim"),
            part(&seen.at_victim, of),
            "%",
        );
    }
    report.value(
        "all, flood at nobody",
        median(seen.alone.iter().map(of_all)),
        "%",
    );
    report.value(
        "all, flood at the sink",
        median(seen.at_sink.iter().map(of_all)),
        "%",
    );
    report.value(
        "all, flood at the victim",
        median(seen.at_victim.iter().map(of_all)),
        "%",
    );
    Ok(())
}

/// Dialling takes time over Tor whatever the gate does.
pub(super) fn dials(seen: &Seen, report: &mut Report) -> Result<()> {
    for (whom, dials) in [
        ("tickets, flood at the victim", &seen.tickets),
        ("strangers, flood at the victim", &seen.strangers),
        ("strangers, flood at the sink", &seen.strangers_at_sink),
    ] {
        let (all, dialling) = (seconds(dials, "seconds")?, seconds(dials, "dialling")?);
        report.value(&format!("{whom}: in all"), median(all), "s");
        report.value("  of it Tor's dials", median(dialling), "s");
    }
    let admitted = seen
        .strangers_at_sink
        .iter()
        .filter(|dial| dial.get("admitted").and_then(Value::as_bool) == Some(true));
    report.value(
        "strangers admitted, flood at the sink",
        admitted.count() as f64,
        &format!("of {}", seen.strangers_at_sink.len()),
    );
    Ok(())
}

/// Memory of a service with the same circuits that thinks nothing.
pub(super) fn memory(seen: &Seen, bound: f64, report: &mut Report) {
    let (before, during) = seen.sink_peaks;
    report.value(
        "growth of the sink, which keeps nothing",
        during - before,
        "MiB",
    );
    let beyond = (seen.peak_during - seen.peak_before) - (during - before);
    report.goal(
        "growth beyond it; places, queue, answers",
        beyond,
        "MiB",
        Goal::AtMost(bound),
    );
}

/// What became of the circuits.
pub(super) fn afterwards(seen: &Seen, report: &mut Report) -> Result<()> {
    report.goal(
        &format!("until no more than {} circuits are open", IDLE + 1),
        seen.after.circuits_s.unwrap_or(f64::INFINITY),
        "s",
        Goal::AtMost(CIRCUITS_S_MAX),
    );
    let fullest = seen.during.iter().map(|status| circuits(status, "open"));
    let fullest = fullest.collect::<Result<Vec<_>>>()?.into_iter().max();
    report.value(
        "circuits open during the flood, most",
        fullest.unwrap_or_default() as f64,
        "",
    );
    for (name, key) in [
        ("circuits built, all in all", "built"),
        ("failed while being built", "failed"),
        ("shed to make room", "shed"),
        ("requests and streams turned away", "refused"),
        ("shut on abuse", "abused"),
    ] {
        report.value(name, circuits(&seen.after.status, key)? as f64, "");
    }
    Ok(())
}
