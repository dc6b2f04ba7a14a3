//! The additional tables of a flood over Tor.
//!
//! Invariant: the processor time of all processes is printed with the rate, because it limits the
//! flood.

use std::thread::available_parallelism;

use anyhow::Result;
use serde_json::Value;

use super::clients::IDLE_SESSIONS;
use super::generator::STREAMS_PER_CIRCUIT;
use super::phases::{Results, circuits};
use super::processes::Measurement;
use super::ramp::{RampStep, messages};
use super::role::{fraction, number};
use super::tables::{per_second, seconds};
use crate::report::{Goal, Report};
use crate::stopwatch::median;

/// Seconds until idle circuits are closed. A circuit is checked once per `circuit_idle` (60 s) and
/// closed when it had no stream for that long. This takes at most twice 60 s, plus 10 s to observe
/// it.
const CIRCUITS_S_MAX: f64 = 130.0;

/// Selects the processor time of one process.
type Part = fn(&Measurement) -> f64;

/// Returns the processor time of all processes in percent of one core.
fn of_all(measurement: &Measurement) -> f64 {
    let spent = measurement.victim
        + measurement.sink
        + measurement.generator
        + measurement.admitted
        + measurement.relays;
    100.0 * spent / measurement.seconds
}

/// Prints the search for the rate, the rates at sink and victim, and the use of the processors.
pub(super) fn network(results: &Results, ramp: &[RampStep], report: &mut Report) -> Result<()> {
    report.heading("Capacity of the private Tor network, at the sink");
    report.value(
        "authorities and relays, no bandwidth limit",
        results.relays as f64,
        "processes",
    );
    let cores = available_parallelism().map_or(f64::NAN, |cores| cores.get() as f64);
    report.value("available processors", 100.0 * cores, "% of a core");
    for step in ramp {
        let sent = &step.measurement.sent;
        let rate = messages(sent)? as f64 / fraction(sent, "seconds")?;
        report.value(
            &format!("{} attackers: bogus messages", step.attackers),
            rate,
            "per second",
        );
        report.value(
            "  processor time of all processes",
            of_all(&step.measurement),
            "% of a core",
        );
    }
    report.value(
        "attackers in all phases below",
        results.attackers as f64,
        "",
    );
    report.value(
        "streams per circuit, every second one",
        f64::from(STREAMS_PER_CIRCUIT),
        "",
    );
    report.value("streams per circuit, the others", 1.0, "");

    report.heading("Rates at the sink and the victim");
    for (target, measurements) in [("sink", &results.at_sink), ("victim", &results.at_victim)] {
        for (name, key) in [
            ("attacks started", "attempts"),
            ("streams opened", "connections"),
            ("lost before the message", "lost"),
        ] {
            let rate = per_second(measurements, |sent| number(sent, key))?;
            report.value(&format!("{name}, {target}"), rate, "per second");
        }
        let built = measurements.iter().map(|it| it.built as f64 / it.seconds);
        report.value(
            &format!("circuits built, {target}"),
            median(built),
            "per second",
        );
        report.value(
            &format!("messages written, {target}"),
            per_second(measurements, messages)?,
            "per second",
        );
    }

    report.heading("Use of the processors, in percent of one core");
    let part = |measurements: &[Measurement], part: Part| {
        median(
            measurements
                .iter()
                .map(|measurement| 100.0 * part(measurement) / measurement.seconds),
        )
    };
    let parts: [(&str, Part); 5] = [
        ("authorities and relays", |it| it.relays),
        ("attackers", |it| it.generator),
        ("victim", |it| it.victim),
        ("sink", |it| it.sink),
        ("admitted peers", |it| it.admitted),
    ];
    for (name, of) in parts {
        report.value(&format!("{name}, no flood"), part(&results.alone, of), "%");
        report.value(
            &format!("{name}, flood at the sink"),
            part(&results.at_sink, of),
            "%",
        );
        report.value(
            &format!("{name}, flood at the victim"),
            part(&results.at_victim, of),
            "%",
        );
    }
    report.value(
        "all, no flood",
        median(results.alone.iter().map(of_all)),
        "%",
    );
    report.value(
        "all, flood at the sink",
        median(results.at_sink.iter().map(of_all)),
        "%",
    );
    report.value(
        "all, flood at the victim",
        median(results.at_victim.iter().map(of_all)),
        "%",
    );
    Ok(())
}

/// Prints the share of Tor's dials in the time of an admission, which does not depend on the gate.
pub(super) fn dials(results: &Results, report: &mut Report) -> Result<()> {
    for (name, dials) in [
        ("tickets, flood at the victim", &results.tickets),
        ("clients, flood at the victim", &results.dials),
        ("clients, flood at the sink", &results.dials_at_sink),
    ] {
        let (all, dialling) = (seconds(dials, "seconds")?, seconds(dials, "dialling")?);
        report.value(&format!("{name}: total"), median(all), "s");
        report.value("  of it: Tor's dials", median(dialling), "s");
    }
    let admitted = results
        .dials_at_sink
        .iter()
        .filter(|dial| dial.get("admitted").and_then(Value::as_bool) == Some(true));
    report.value(
        "clients admitted, flood at the sink",
        admitted.count() as f64,
        &format!("of {}", results.dials_at_sink.len()),
    );
    Ok(())
}

/// Prints the memory growth of the sink, which has the same circuits, and the growth beyond it.
pub(super) fn memory(results: &Results, bound: f64, report: &mut Report) {
    let (before, during) = results.sink_peaks;
    report.value(
        "growth of the sink, which has no gate",
        during - before,
        "MiB",
    );
    let beyond = (results.peak_during - results.peak_before) - (during - before);
    report.goal(
        "growth beyond it; slots, queue, replies",
        beyond,
        "MiB",
        Goal::AtMost(bound),
    );
}

/// Prints the circuit counters after the flood.
pub(super) fn afterwards(results: &Results, report: &mut Report) -> Result<()> {
    report.goal(
        &format!("until at most {} circuits are open", IDLE_SESSIONS + 1),
        results.after.circuits_s.unwrap_or(f64::INFINITY),
        "s",
        Goal::AtMost(CIRCUITS_S_MAX),
    );
    let open = results.during.iter().map(|status| circuits(status, "open"));
    let maximum = open.collect::<Result<Vec<_>>>()?.into_iter().max();
    report.value(
        "circuits open during the flood, maximum",
        maximum.unwrap_or_default() as f64,
        "",
    );
    for (name, key) in [
        ("circuits built, total", "built"),
        ("circuits failed during the build", "failed"),
        ("circuits evicted", "evicted"),
        ("requests and streams refused", "refused"),
        ("circuits closed after misbehaviour", "abused"),
    ] {
        report.value(name, circuits(&results.after.status, key)? as f64, "");
    }
    Ok(())
}
