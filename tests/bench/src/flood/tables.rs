//! The tables of a flood, on loopback and over Tor.
//!
//! Invariant: every goal of the flood is printed, whether it holds or not.

use std::collections::BTreeMap;

use anyhow::Result;
use bastion::GateConfig;
use bastion::puzzle::Algorithm;
use keys::protocol::UNADMITTED_FRAME_BYTES_MAX;
use serde_json::Value;

use super::bogus::MIX;
use super::clients::IDLE_SESSIONS;
use super::phases::Results;
use super::processes::Measurement;
use super::ramp::{messages, of_kind};
use super::role::{fraction, number};
use super::tables_tor;
use crate::report::{Goal, Report};
use crate::stopwatch::median;

/// Bytes of a handshake slot for its stream, task and timers. The received frame and the decoded
/// frame add at most [`UNADMITTED_FRAME_BYTES_MAX`] each.
const SLOT_BYTES: usize = 16 * 1024;
/// Bytes of a reply in the reply cache (see the key `cached_replies_max`).
const CACHED_REPLY_BYTES: usize = 24 * 1024;
/// Bytes of a peer's counted ticket uses (see the key `ticket_peers_max`).
const TICKET_PEER_BYTES: usize = 75;
/// Seconds until the effort is idle again. The effort halves every minute; nine halvings lead from
/// the effort of full handshake slots to the idle effort. Counters over a minute decay before that.
const IDLE_EFFORT_S_MAX: f64 = 900.0;
const MIB: f64 = 1048576.0;

/// Prints all tables.
pub(super) fn print(results: &Results, report: &mut Report) -> Result<()> {
    if let Some(ramp) = &results.ramp {
        tables_tor::network(results, ramp, report)?;
    }
    attack(results, report)?;
    sync(results, report);
    processor(results, report);
    admissions(results, report)?;
    memory(results, report);
    afterwards(results, report)
}

/// Returns the median rate of a generator counter.
pub(super) fn per_second(
    measurements: &[Measurement],
    count: impl Fn(&Value) -> Result<u64>,
) -> Result<f64> {
    let rates = measurements.iter().map(|measurement| {
        let seconds = fraction(&measurement.sent, "seconds")?;
        anyhow::Ok(count(&measurement.sent)? as f64 / seconds)
    });
    Ok(median(rates.collect::<Result<Vec<_>>>()?))
}

/// Returns one value of each dial.
pub(super) fn seconds(dials: &[Value], name: &str) -> Result<Vec<f64>> {
    dials.iter().map(|dial| fraction(dial, name)).collect()
}

fn attack(results: &Results, report: &mut Report) -> Result<()> {
    report.heading("The attack on the victim, completely written messages");
    let rate = per_second(&results.at_victim, messages)?;
    match results.ramp {
        // Without a goal, because the network limits the rate.
        Some(_) => report.value("bogus messages", rate, "per second"),
        None => report.goal("bogus messages", rate, "per second", Goal::AtLeast(2000.0)),
    }
    for (place, (kind, _)) in MIX.into_iter().enumerate() {
        let rate = per_second(&results.at_victim, |sent| of_kind(sent, place))?;
        report.value(&format!("  {}", kind.name()), rate, "per second");
    }
    for (name, key) in [
        ("hellos that only fetched a challenge", "fetching"),
        ("connections", "connections"),
        ("lost before the message was written", "lost"),
        ("not started, all slots in use", "skipped"),
        ("stalled connections dialled again", "stalls"),
    ] {
        let rate = per_second(&results.at_victim, |sent| number(sent, key))?;
        report.value(name, rate, "per second");
    }
    let at_once = results
        .at_victim
        .iter()
        .map(|measurement| fraction(&measurement.sent, "active"));
    let at_once = median(at_once.collect::<Result<Vec<_>>>()?);
    report.value("concurrent attacks", at_once, "");
    report.value(
        "concurrent stalled connections",
        results.stallers as f64,
        "",
    );
    let rate = per_second(&results.at_sink, messages)?;
    report.value("bogus messages, at the sink", rate, "per second");
    let rate = per_second(std::slice::from_ref(&results.during_dials), messages)?;
    report.value("bogus messages, during the dials", rate, "per second");
    let maximum = |name| {
        let values = results
            .during
            .iter()
            .filter_map(|status| number(status, name).ok());
        values.max().unwrap_or_default() as f64
    };
    for (name, key) in [
        ("slots awaiting a hello, maximum", "awaiting_hello"),
        ("slots challenged, maximum", "challenged"),
        ("slots verifying, maximum", "verifying"),
        ("verification queue, maximum", "verify_queue"),
        ("effort required, maximum", "effort"),
        ("load, maximum, permille", "load_permille"),
    ] {
        report.value(name, maximum(key), "");
    }
    Ok(())
}

fn sync(results: &Results, report: &mut Report) {
    report.heading("Pulls of an admitted peer during the flood");
    let rate = |measurements: &[Measurement]| {
        median(
            measurements
                .iter()
                .map(|measurement| measurement.objects_per_s),
        )
    };
    let (alone, at_sink, at_victim) = (
        rate(&results.alone),
        rate(&results.at_sink),
        rate(&results.at_victim),
    );
    report.value("without any flood", alone, "objects/s");
    report.value("flood aimed at the sink", at_sink, "objects/s");
    report.value("flood aimed at the victim", at_victim, "objects/s");
    report.goal("victim / sink", at_victim / at_sink, "", Goal::AtLeast(0.8));
    // Not affected by other programs that use the core.
    let by_processor = |measurements: &[Measurement]| {
        let rates = measurements.iter().map(|measurement| {
            let spent = measurement.sink + measurement.victim;
            measurement.objects_per_s * measurement.seconds / spent
        });
        median(rates)
    };
    report.value(
        "  the same, by processor time",
        by_processor(&results.at_victim) / by_processor(&results.at_sink),
        "",
    );
    report.value("victim / without any flood", at_victim / alone, "");
    report.value(
        "during the dials / sink",
        results.during_dials.objects_per_s / at_sink,
        "",
    );
    let range = |measurements: &[Measurement], pick: fn(f64, f64) -> f64| {
        let rates = measurements
            .iter()
            .map(|measurement| measurement.objects_per_s);
        rates.reduce(pick).unwrap_or(f64::NAN)
    };
    report.value(
        "sink, slowest round",
        range(&results.at_sink, f64::min),
        "objects/s",
    );
    report.value(
        "sink, fastest round",
        range(&results.at_sink, f64::max),
        "objects/s",
    );
    report.value(
        "victim, slowest round",
        range(&results.at_victim, f64::min),
        "objects/s",
    );
    report.value(
        "victim, fastest round",
        range(&results.at_victim, f64::max),
        "objects/s",
    );
}

/// Prints the shares of the victim's core in percent.
fn processor(results: &Results, report: &Report) {
    report.heading("Use of the victim's core, in percent");
    let shares = |measurements: &[Measurement]| {
        let mut sum = BTreeMap::<String, f64>::new();
        for measurement in measurements {
            for (name, seconds) in &measurement.threads {
                *sum.entry(name.clone()).or_default() +=
                    100.0 * seconds / measurement.seconds / measurements.len() as f64;
            }
        }
        sum
    };
    let (quiet, flooded) = (shares(&results.at_sink), shares(&results.at_victim));
    let of = |sum: &BTreeMap<String, f64>, name: &str| sum.get(name).copied().unwrap_or_default();
    for name in flooded
        .keys()
        .filter(|name| of(&flooded, name) + of(&quiet, name) >= 0.05)
    {
        report.value(&format!("{name}, flood at the sink"), of(&quiet, name), "%");
        report.value(
            &format!("{name}, flood at the victim"),
            of(&flooded, name),
            "%",
        );
    }
    let share = |measurements: &[Measurement], part: fn(&Measurement) -> f64| {
        median(
            measurements
                .iter()
                .map(|measurement| 100.0 * part(measurement) / measurement.seconds),
        )
    };
    report.value(
        "the sink, flood at the sink",
        share(&results.at_sink, |it| it.sink),
        "%",
    );
    let both = |it: &Measurement| it.sink + it.victim;
    report.value(
        "victim and sink, flood at the sink",
        share(&results.at_sink, both),
        "%",
    );
    report.value(
        "victim and sink, flood at the victim",
        share(&results.at_victim, both),
        "%",
    );
    report.value(
        "attackers, of their core",
        share(&results.at_victim, |it| it.generator),
        "%",
    );
    report.value(
        "admitted peers, of that core",
        share(&results.at_victim, |it| it.admitted),
        "%",
    );
}

fn admissions(results: &Results, report: &mut Report) -> Result<()> {
    report.heading("Peers with a ticket, and unadmitted clients, during the flood");
    let admitted = |dials: &[Value]| {
        let is_admitted =
            |dial: &&Value| dial.get("admitted").and_then(Value::as_bool) == Some(true);
        dials.iter().filter(is_admitted).count() as f64
    };
    let uses = results.tickets.len() as f64;
    report.goal(
        "admitted with a ticket",
        admitted(&results.tickets),
        &format!("of {uses}"),
        Goal::AtLeast(uses),
    );
    let took = seconds(&results.tickets, "seconds")?;
    report.value("  median time", 1e3 * median(took.iter().copied()), "ms");
    report.value(
        "  longest",
        1e3 * took.iter().copied().fold(0.0, f64::max),
        "ms",
    );

    let count = results.dials.len() as f64;
    report.goal(
        "clients admitted by proof of work",
        admitted(&results.dials),
        &format!("of {count}"),
        Goal::AtLeast(count),
    );
    report.value(
        "clients that did not dial, time over",
        results.dials_missing as f64,
        "",
    );
    let sum = |name| -> Result<f64> { Ok(seconds(&results.dials, name)?.iter().sum()) };
    let evaluations: u64 = results
        .dials
        .iter()
        .filter_map(|dial| number(dial, "evaluations").ok())
        .sum();
    let per_evaluation = sum("solving")? / evaluations as f64;
    report.value("one evaluation, core shared", 1e3 * per_evaluation, "ms");
    let required: u64 = results
        .dials
        .iter()
        .filter_map(|dial| number(dial, "effort").ok())
        .sum();
    report.value(
        "evaluations done / required",
        evaluations as f64 / required as f64,
        "",
    );
    let mut ratios = Vec::new();
    let (mut efforts, mut expected) = (Vec::new(), Vec::new());
    for dial in &results.dials {
        let effort = number(dial, "effort")? as f64;
        efforts.push(effort);
        expected.push(effort * per_evaluation);
        // A client that was not admitted counts with an infinite time.
        let is_admitted = dial.get("admitted").and_then(Value::as_bool) == Some(true);
        let took = if is_admitted {
            fraction(dial, "seconds")?
        } else {
            f64::INFINITY
        };
        ratios.push(took / (effort * per_evaluation));
        if !is_admitted {
            report.fact("not admitted", &dial.to_string());
        }
    }
    report.value("effort required, median", median(efforts), "evaluations");
    report.value("expected solving time, median", median(expected), "s");
    report.value(
        "from dial to admission, median",
        median(seconds(&results.dials, "seconds")?),
        "s",
    );
    report.goal(
        "admission / expected solving, median",
        median(ratios.iter().copied()),
        "",
        Goal::AtMost(3.0),
    );
    report.value("  worst", ratios.into_iter().fold(0.0, f64::max), "");
    let dials: u64 = results
        .dials
        .iter()
        .filter_map(|dial| number(dial, "dials").ok())
        .sum();
    let waits: u64 = results
        .dials
        .iter()
        .filter_map(|dial| number(dial, "waits").ok())
        .sum();
    report.value("  dials of a client, mean", dials as f64 / count, "");
    report.value("  \"busy\" refusals, mean", waits as f64 / count, "");
    if results.ramp.is_some() {
        tables_tor::dials(results, report)?;
    }
    let open = number(&results.sessions, "open")? as f64;
    report.goal(
        "earlier sessions still open",
        open,
        &format!("of {}", IDLE_SESSIONS + 1),
        Goal::AtLeast((IDLE_SESSIONS + 1) as f64),
    );
    Ok(())
}

/// Returns the maximum growth of the victim's memory by its configuration, in MiB.
fn bound(config: &GateConfig) -> f64 {
    let own = config.ticket_handshakes_max + config.trusted_handshakes_max;
    let slots = (config.open_handshakes_max + own) * (2 * UNADMITTED_FRAME_BYTES_MAX + SLOT_BYTES);
    let queue = (config.verify_queue_max + own) * 2 * UNADMITTED_FRAME_BYTES_MAX;
    let replies = config.cached_replies_max * CACHED_REPLY_BYTES;
    let serials = 2 * config.serials_max as usize / 8;
    let tickets = 2 * config.ticket_peers_max * TICKET_PEER_BYTES;
    (slots + queue + replies + serials + tickets) as f64 / MIB
}

fn memory(results: &Results, report: &mut Report) {
    report.heading("The victim's memory");
    let bound = bound(&GateConfig::default());
    report.value("peak before the flood", results.peak_before, "MiB");
    report.value("peak during the flood", results.peak_during, "MiB");
    let growth = results.peak_during - results.peak_before;
    match results.ramp {
        // The bound covers the gate only. The sink has the same circuits, so its growth is
        // subtracted.
        Some(_) => {
            report.value("growth", growth, "MiB");
            tables_tor::memory(results, bound, report);
        }
        None => report.goal(
            "growth; bound: slots, queue, replies",
            growth,
            "MiB",
            Goal::AtMost(bound),
        ),
    }
}

fn afterwards(results: &Results, report: &mut Report) -> Result<()> {
    report.heading("After the flood");
    let after = &results.after;
    report.goal(
        "until all handshake slots are free",
        after.empty_s.unwrap_or(f64::INFINITY),
        "s",
        Goal::AtMost(30.0),
    );
    report.goal(
        "until the effort is idle, gate's clock",
        after
            .idle_effort_s
            .map_or(f64::INFINITY, |seconds| seconds as f64),
        "s",
        Goal::AtMost(IDLE_EFFORT_S_MAX),
    );
    let effort = GateConfig::default().effort_idle as f64;
    let required = number(&after.dial, "effort")? as f64;
    report.goal(
        "effort required of a client then",
        required,
        "evaluations",
        Goal::AtMost(effort),
    );
    for (name, key) in [
        ("slots awaiting a hello then", "awaiting_hello"),
        ("slots challenged then", "challenged"),
        ("slots verifying then", "verifying"),
        ("verification queue then", "verify_queue"),
        ("running verifications then", "verify_running"),
    ] {
        let value = number(&after.status, key)? as f64;
        report.goal(name, value, "", Goal::AtMost(0.0));
    }
    // The reply to the last client remains, because only its cookie has not expired.
    let replies = number(&after.status, "cached_replies")? as f64;
    report.goal("cached replies then", replies, "", Goal::AtMost(1.0));
    if results.ramp.is_some() {
        tables_tor::afterwards(results, report)?;
    }
    let algorithm = Algorithm::Argon2id1m.name();
    report.fact("before", &format!("{algorithm}: {}", results.idle));
    report.fact("then", &after.status.to_string());
    Ok(())
}
