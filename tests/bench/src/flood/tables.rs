//! What a flood did, as tables.
//!
//! Never measures. Invariant: every goal of the flood is printed, held or not.

use std::collections::BTreeMap;

use anyhow::Result;
use bastion::GateConfig;
use bastion::puzzle::Algorithm;
use keys::protocol::UNADMITTED_FRAME_BYTES_MAX;
use serde_json::Value;

use super::bogus::MIX;
use super::cast::Stretch;
use super::guests::IDLE;
use super::phases::Seen;
use super::ramp::{messages, of_kind};
use super::role::{fraction, number};
use super::tables_tor;
use crate::report::{Goal, Report};
use crate::stopwatch::median;

/// Most that one place in the lobby takes: a frame as it came and as it was read, each at most [`UNADMITTED_FRAME_BYTES_MAX`],
/// and 16 KiB for its stream, task and timers.
const PLACE_BYTES: usize = 16 * 1024;
/// A remembered answer, as `cached_replies_max` says.
const ANSWER_BYTES: usize = 24 * 1024;
/// Counted uses of a ticket, as `ticket_peers_max` says.
const TICKET_PEER_BYTES: usize = 75;
/// "Minutes": nine halvings of a minute each lead from the effort of a full lobby to the calm one, and what is counted over
/// a minute fades before.
const CALM_S_MAX: f64 = 900.0;
const MIB: f64 = 1048576.0;

pub(super) fn tell(seen: &Seen, report: &mut Report) -> Result<()> {
    if let Some(ramp) = &seen.ramp {
        tables_tor::network(seen, ramp, report)?;
    }
    attack(seen, report)?;
    sync(seen, report);
    processor(seen, report);
    strangers(seen, report)?;
    memory(seen, report);
    afterwards(seen, report)
}

pub(super) fn per_second(
    stretches: &[Stretch],
    count: impl Fn(&Value) -> Result<u64>,
) -> Result<f64> {
    let rates = stretches.iter().map(|stretch| {
        let seconds = fraction(&stretch.sent, "seconds")?;
        anyhow::Ok(count(&stretch.sent)? as f64 / seconds)
    });
    Ok(median(rates.collect::<Result<Vec<_>>>()?))
}

/// One value of each dial.
pub(super) fn seconds(dials: &[Value], name: &str) -> Result<Vec<f64>> {
    dials.iter().map(|dial| fraction(dial, name)).collect()
}

fn attack(seen: &Seen, report: &mut Report) -> Result<()> {
    report.heading("The attack on the victim, handed over whole");
    let rate = per_second(&seen.at_victim, messages)?;
    match seen.ramp {
        // Whatever the network carries.
        Some(_) => report.value("bogus messages", rate, "a second"),
        None => report.goal("bogus messages", rate, "a second", Goal::AtLeast(2000.0)),
    }
    for (place, (kind, _)) in MIX.into_iter().enumerate() {
        let rate = per_second(&seen.at_victim, |sent| of_kind(sent, place))?;
        report.value(&format!("  {}", kind.name()), rate, "a second");
    }
    for (name, key) in [
        ("hellos that fetched a cookie beside", "fetching"),
        ("connections", "connections"),
        ("lost before they spoke", "lost"),
        ("not begun in time", "late"),
        ("stalled connections dialled again", "stalls"),
    ] {
        let rate = per_second(&seen.at_victim, |sent| number(sent, key))?;
        report.value(name, rate, "a second");
    }
    let at_once = seen
        .at_victim
        .iter()
        .map(|stretch| fraction(&stretch.sent, "speaking"));
    let at_once = median(at_once.collect::<Result<Vec<_>>>()?);
    report.value("connections that speak, at once", at_once, "");
    report.value("connections that stall, at once", seen.stallers as f64, "");
    let rate = per_second(&seen.at_sink, messages)?;
    report.value("bogus messages, at the sink", rate, "a second");
    let rate = per_second(std::slice::from_ref(&seen.strangers_time), messages)?;
    report.value("bogus messages, while strangers come", rate, "a second");
    let fullest = |name| {
        let values = seen
            .during
            .iter()
            .filter_map(|status| number(status, name).ok());
        values.max().unwrap_or_default() as f64
    };
    for (name, key) in [
        ("silent in the lobby, most seen", "silent"),
        ("thinking in the lobby, most seen", "thinking"),
        ("presenting, most seen", "presenting"),
        ("waiting to be verified, most seen", "queue"),
        ("effort asked, most seen", "effort"),
        ("pressure, most seen", "pressure"),
    ] {
        report.value(name, fullest(key), "");
    }
    Ok(())
}

fn sync(seen: &Seen, report: &mut Report) {
    report.heading("An admitted peer pulls meanwhile");
    let rate =
        |stretches: &[Stretch]| median(stretches.iter().map(|stretch| stretch.objects_per_s));
    let (alone, at_sink, at_victim) = (
        rate(&seen.alone),
        rate(&seen.at_sink),
        rate(&seen.at_victim),
    );
    report.value("without any flood", alone, "objects/s");
    report.value("flood aimed at the sink", at_sink, "objects/s");
    report.value("flood aimed at the victim", at_victim, "objects/s");
    report.goal("victim / sink", at_victim / at_sink, "", Goal::AtLeast(0.8));
    // Where other programs take a part of the core, this is what tells.
    let by_processor = |stretches: &[Stretch]| {
        let rates = stretches.iter().map(|stretch| {
            let spent = stretch.sink + stretch.victim;
            stretch.objects_per_s * stretch.seconds / spent
        });
        median(rates)
    };
    report.value(
        "  the same, by processor time",
        by_processor(&seen.at_victim) / by_processor(&seen.at_sink),
        "",
    );
    report.value("victim / without any flood", at_victim / alone, "");
    report.value(
        "while strangers come / sink",
        seen.strangers_time.objects_per_s / at_sink,
        "",
    );
    let range = |stretches: &[Stretch], pick: fn(f64, f64) -> f64| {
        let rates = stretches.iter().map(|stretch| stretch.objects_per_s);
        rates.reduce(pick).unwrap_or(f64::NAN)
    };
    report.value(
        "sink, slowest round",
        range(&seen.at_sink, f64::min),
        "objects/s",
    );
    report.value(
        "sink, fastest round",
        range(&seen.at_sink, f64::max),
        "objects/s",
    );
    report.value(
        "victim, slowest round",
        range(&seen.at_victim, f64::min),
        "objects/s",
    );
    report.value(
        "victim, fastest round",
        range(&seen.at_victim, f64::max),
        "objects/s",
    );
}

/// Shares of the one core, in percent.
fn processor(seen: &Seen, report: &Report) {
    report.heading("Where the victim's core goes, in percent of it");
    let shares = |stretches: &[Stretch]| {
        let mut sum = BTreeMap::<String, f64>::new();
        for stretch in stretches {
            for (name, seconds) in &stretch.threads {
                *sum.entry(name.clone()).or_default() +=
                    100.0 * seconds / stretch.seconds / stretches.len() as f64;
            }
        }
        sum
    };
    let (quiet, flooded) = (shares(&seen.at_sink), shares(&seen.at_victim));
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
    let share = |stretches: &[Stretch], part: fn(&Stretch) -> f64| {
        median(
            stretches
                .iter()
                .map(|stretch| 100.0 * part(stretch) / stretch.seconds),
        )
    };
    report.value(
        "the sink, flood at the sink",
        share(&seen.at_sink, |it| it.sink),
        "%",
    );
    let both = |it: &Stretch| it.sink + it.victim;
    report.value(
        "victim and sink, flood at the sink",
        share(&seen.at_sink, both),
        "%",
    );
    report.value(
        "victim and sink, flood at the victim",
        share(&seen.at_victim, both),
        "%",
    );
    report.value(
        "attackers, of their core",
        share(&seen.at_victim, |it| it.generator),
        "%",
    );
    report.value(
        "peers inside, of that core",
        share(&seen.at_victim, |it| it.guests),
        "%",
    );
}

fn strangers(seen: &Seen, report: &mut Report) -> Result<()> {
    report.heading("Peers with a ticket, and honest strangers, during the flood");
    let admitted = |dials: &[Value]| {
        let is_in = |dial: &&Value| dial.get("admitted").and_then(Value::as_bool) == Some(true);
        dials.iter().filter(is_in).count() as f64
    };
    let asked = seen.tickets.len() as f64;
    report.goal(
        "admitted with a ticket",
        admitted(&seen.tickets),
        &format!("of {asked}"),
        Goal::AtLeast(asked),
    );
    let took = seconds(&seen.tickets, "seconds")?;
    report.value("  median time", 1e3 * median(took.iter().copied()), "ms");
    report.value(
        "  longest",
        1e3 * took.iter().copied().fold(0.0, f64::max),
        "ms",
    );

    let count = seen.strangers.len() as f64;
    report.goal(
        "strangers admitted",
        admitted(&seen.strangers),
        &format!("of {count}"),
        Goal::AtLeast(count),
    );
    report.value(
        "strangers for whom no time was left",
        seen.strangers_missing as f64,
        "",
    );
    let sum = |name| -> Result<f64> { Ok(seconds(&seen.strangers, name)?.iter().sum()) };
    let evaluations: u64 = seen
        .strangers
        .iter()
        .filter_map(|dial| number(dial, "evaluations").ok())
        .sum();
    let per_evaluation = sum("solving")? / evaluations as f64;
    report.value("one evaluation, core shared", 1e3 * per_evaluation, "ms");
    let asked: u64 = seen
        .strangers
        .iter()
        .filter_map(|dial| number(dial, "asked").ok())
        .sum();
    report.value(
        "evaluations done / asked",
        evaluations as f64 / asked as f64,
        "",
    );
    let mut ratios = Vec::new();
    let (mut efforts, mut expected) = (Vec::new(), Vec::new());
    for dial in &seen.strangers {
        let effort = number(dial, "asked")? as f64;
        efforts.push(effort);
        expected.push(effort * per_evaluation);
        // Who was not admitted took for ever.
        let is_in = dial.get("admitted").and_then(Value::as_bool) == Some(true);
        let took = if is_in {
            fraction(dial, "seconds")?
        } else {
            f64::INFINITY
        };
        ratios.push(took / (effort * per_evaluation));
        if !is_in {
            report.fact("not admitted", &dial.to_string());
        }
    }
    report.value("effort asked, median", median(efforts), "evaluations");
    report.value("expected solving time, median", median(expected), "s");
    report.value(
        "from dial to admission, median",
        median(seconds(&seen.strangers, "seconds")?),
        "s",
    );
    report.goal(
        "admission / expected solving, median",
        median(ratios.iter().copied()),
        "",
        Goal::AtMost(3.0),
    );
    report.value("  worst", ratios.into_iter().fold(0.0, f64::max), "");
    let dials: u64 = seen
        .strangers
        .iter()
        .filter_map(|dial| number(dial, "dials").ok())
        .sum();
    let waits: u64 = seen
        .strangers
        .iter()
        .filter_map(|dial| number(dial, "waits").ok())
        .sum();
    report.value("  dials a stranger, mean", dials as f64 / count, "");
    report.value("  told to wait, mean", waits as f64 / count, "");
    if seen.ramp.is_some() {
        tables_tor::dials(seen, report)?;
    }
    let open = number(&seen.sessions, "open")? as f64;
    report.goal(
        "sessions of before still open",
        open,
        &format!("of {}", IDLE + 1),
        Goal::AtLeast((IDLE + 1) as f64),
    );
    Ok(())
}

/// What the flood may take of the victim's memory, by its config, in MiB.
fn bound(config: &GateConfig) -> f64 {
    let own = config.ticket_handshakes_max + config.trusted_handshakes_max;
    let places =
        (config.open_handshakes_max + own) * (2 * UNADMITTED_FRAME_BYTES_MAX + PLACE_BYTES);
    let queue = (config.verify_queue_max + own) * 2 * UNADMITTED_FRAME_BYTES_MAX;
    let answers = config.cached_replies_max * ANSWER_BYTES;
    let serials = 2 * config.serials_max as usize / 8;
    let tickets = 2 * config.ticket_peers_max * TICKET_PEER_BYTES;
    (places + queue + answers + serials + tickets) as f64 / MIB
}

fn memory(seen: &Seen, report: &mut Report) {
    report.heading("The victim's memory");
    let bound = bound(&GateConfig::default());
    report.value("peak before the flood", seen.peak_before, "MiB");
    report.value("peak during the flood", seen.peak_during, "MiB");
    let growth = seen.peak_during - seen.peak_before;
    match seen.ramp {
        // The bound is the gate's; circuits are Tor's, and the sink has as many.
        Some(_) => {
            report.value("growth", growth, "MiB");
            tables_tor::memory(seen, bound, report);
        }
        None => report.goal(
            "growth; bound: places, queue, answers",
            growth,
            "MiB",
            Goal::AtMost(bound),
        ),
    }
}

fn afterwards(seen: &Seen, report: &mut Report) -> Result<()> {
    report.heading("Afterwards");
    let after = &seen.after;
    report.goal(
        "until nobody is left in the lobby",
        after.empty_s.unwrap_or(f64::INFINITY),
        "s",
        Goal::AtMost(30.0),
    );
    report.goal(
        "until the effort is calm, by its clock",
        after.calm_s.map_or(f64::INFINITY, |seconds| seconds as f64),
        "s",
        Goal::AtMost(CALM_S_MAX),
    );
    let effort = GateConfig::default().effort_idle as f64;
    let asked = number(&after.stranger, "asked")? as f64;
    report.goal(
        "effort asked of a stranger then",
        asked,
        "evaluations",
        Goal::AtMost(effort),
    );
    for name in ["silent", "thinking", "presenting", "queue", "verifying"] {
        let value = number(&after.status, name)? as f64;
        report.goal(&format!("{name} then"), value, "", Goal::AtMost(0.0));
    }
    // Its own: every other answer's cookie has expired.
    let answers = number(&after.status, "answers")? as f64;
    report.goal("answers remembered then", answers, "", Goal::AtMost(1.0));
    if seen.ramp.is_some() {
        tables_tor::afterwards(seen, report)?;
    }
    let algorithm = Algorithm::Argon2id1m.name();
    report.fact("before", &format!("{algorithm}: {}", seen.calm));
    report.fact("then", &after.status.to_string());
    Ok(())
}
