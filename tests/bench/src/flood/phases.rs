//! The course of a flood: who does what when, and what is measured meanwhile.
//!
//! Never measures while it settles. Invariant: what is aimed at the sink and at the victim is the same, for the same time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::child::Child;
use super::guests::DIAL;
use super::role::{cores, fraction, number};
use super::{Options, tables};
use crate::machine;
use crate::report::Report;
use crate::stopwatch::pause;

/// Before anything is measured after a change.
const SETTLE: Duration = Duration::from_millis(1500);
/// For the effort to follow the load before strangers come.
const RISE: Duration = Duration::from_secs(6);
/// Looks for something to become so.
const LOOKS: u32 = 300;
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// What the gate's clock is put forward by at a look, once the flood is over, and how far in all.
const FORWARD_S: u64 = 10;
const FORWARD_S_MAX: u64 = 3600;
/// Strangers between two uses of the ticket; no more than six a minute are allowed.
const STRANGERS_A_TICKET: usize = 6;
/// For an answer beside what it is about.
const ROOM: Duration = Duration::from_secs(15);

/// How long and how often.
struct Course {
    rounds: usize,
    measure: Duration,
    strangers: usize,
    /// After which no further stranger comes.
    strangers_time: Duration,
    messages: u64,
}

/// One stretch of time under one load.
pub(super) struct Stretch {
    pub(super) seconds: f64,
    /// Of the peer that pulls.
    pub(super) objects_per_s: f64,
    pub(super) sent: Value,
    /// Seconds of the victim's threads, by name.
    pub(super) threads: BTreeMap<String, f64>,
    pub(super) victim: f64,
    pub(super) sink: f64,
    pub(super) generator: f64,
    /// Of the peer that pulls, and the others who are inside.
    pub(super) guests: f64,
}

/// Everything that was seen.
pub(super) struct Seen {
    pub(super) alone: Vec<Stretch>,
    pub(super) at_sink: Vec<Stretch>,
    pub(super) at_victim: Vec<Stretch>,
    /// The time of the strangers.
    pub(super) strangers_time: Stretch,
    pub(super) strangers: Vec<Value>,
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
}

/// The processes.
struct Cast {
    victim: Child,
    sink: Child,
    generator: Child,
    guests: Child,
    strangers: Child,
    ports: (u64, u64),
    _folder: TempDir,
}

pub(super) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let course = options.course();
    report.fact("messages", &course.messages.to_string());
    report.fact("rounds", &course.rounds.to_string());
    let mut cast = Cast::start(options, &course)?;
    let seen = cast.play(&course)?;
    drop(cast);
    tables::tell(&seen, options.stallers, report)?;
    report.fact("load after", &machine::load());
    Ok(())
}

impl Options {
    fn course(&self) -> Course {
        if self.quick {
            Course {
                rounds: 2,
                measure: Duration::from_secs(4),
                strangers: 5,
                strangers_time: Duration::from_secs(25),
                messages: self.messages.min(10_000),
            }
        } else {
            Course {
                rounds: self.rounds.max(1),
                measure: Duration::from_secs(8),
                strangers: self.strangers.max(1),
                strangers_time: Duration::from_secs(240),
                messages: self.messages,
            }
        }
    }
}

impl Cast {
    fn start(options: &Options, course: &Course) -> Result<Self> {
        let cores = cores()?;
        ensure!(cores.len() >= 2, "the flood needs two cores");
        let (near, far) = (cores.first(), cores.get(1));
        let folder = TempDir::new()?;
        eprintln!("a node with {} messages", course.messages);
        let setting = json!({ "core": near, "folder": folder.path(), "messages": course.messages });
        let (victim, served) = Child::start("victim", &setting)?;
        let victim_port = number(&served, "port")?;
        let (sink, served) = Child::start("sink", &json!({ "core": near }))?;
        let sink_port = number(&served, "port")?;
        let setting = json!({ "core": far, "rate": options.rate, "stallers": options.stallers });
        let (generator, _) = Child::start("generator", &setting)?;
        let guests = json!({ "core": far, "port": victim_port, "meets": true });
        let (guests, _) = Child::start("guests", &guests)?;
        let strangers = json!({ "core": far, "port": victim_port });
        let (strangers, _) = Child::start("strangers", &strangers)?;
        Ok(Self {
            victim,
            sink,
            generator,
            guests,
            strangers,
            ports: (sink_port, victim_port),
            _folder: folder,
        })
    }

    fn play(&mut self, course: &Course) -> Result<Seen> {
        let calm = self.victim.ask("status")?;
        self.warm_up(course)?;
        let (sink, victim) = self.ports;
        let (mut alone, mut at_sink, mut at_victim) = (Vec::new(), Vec::new(), Vec::new());
        let (mut during, mut tickets) = (Vec::new(), Vec::new());
        alone.push(self.stretch(0, course.measure)?);
        // Once past the sink before memory is noted: what serving alone takes is no growth.
        at_sink.push(self.stretch(sink, course.measure)?);
        let peak_before = self.victim.resident("VmHWM")?;
        for round in 0..course.rounds {
            eprintln!("round {} of {}", round + 1, course.rounds);
            at_victim.push(self.stretch(victim, course.measure)?);
            during.push(self.victim.ask("status")?);
            tickets.push(self.ticket()?);
            at_sink.push(self.stretch(sink, course.measure)?);
        }
        alone.push(self.stretch(0, course.measure)?);

        self.aim(victim)?;
        pause(RISE);
        let mark = self.mark()?;
        let mut strangers = Vec::new();
        let mut took = 0.0;
        for number in 0..course.strangers {
            if took > course.strangers_time.as_secs_f64() {
                break;
            }
            eprintln!("stranger {} of {}", number + 1, course.strangers);
            let stranger = self.stranger()?;
            took += fraction(&stranger, "seconds")?;
            strangers.push(stranger);
            during.push(self.victim.ask("status")?);
            if number % STRANGERS_A_TICKET == 0 {
                tickets.push(self.ticket()?);
            }
        }
        let strangers_time = self.since(&mark)?;
        let peak_during = self.victim.resident("VmHWM")?;
        let sessions = self.guests.ask("count")?;
        let after = self.afterwards()?;
        Ok(Seen {
            alone,
            at_sink,
            at_victim,
            strangers_time,
            strangers_missing: course.strangers - strangers.len(),
            strangers,
            tickets,
            calm,
            during,
            after,
            sessions,
            peak_before,
            peak_during,
        })
    }

    /// Until everything was pulled twice: caches are warm, and the puller is past its checks.
    fn warm_up(&mut self, course: &Course) -> Result<()> {
        for _ in 0..LOOKS {
            if number(&self.guests.ask("count")?, "objects")? >= 2 * course.messages {
                return Ok(());
            }
            pause(LOOK_AGAIN);
        }
        let told = self.guests.ask("count")?;
        ensure!(false, "the pull does not get on: {told}");
        Ok(())
    }

    fn aim(&mut self, port: u64) -> Result<Value> {
        self.generator.request(&json!({ "do": "aim", "port": port }), ROOM)
    }

    fn ticket(&mut self) -> Result<Value> {
        self.guests.request(&json!({ "do": "ticket" }), DIAL + ROOM)
    }

    fn stranger(&mut self) -> Result<Value> {
        self.strangers.request(&json!({ "do": "stranger" }), DIAL + ROOM)
    }

    /// Aims, lets it settle, measures.
    fn stretch(&mut self, port: u64, measure: Duration) -> Result<Stretch> {
        self.aim(port)?;
        pause(SETTLE);
        let mark = self.mark()?;
        pause(measure);
        self.since(&mark)
    }

    fn mark(&mut self) -> Result<Mark> {
        self.generator.ask("count")?;
        Ok(Mark {
            threads: self.victim.processor(),
            victim: self.victim.spent(),
            sink: self.sink.spent(),
            generator: self.generator.spent(),
            guests: self.guests.spent(),
            pulled: self.guests.ask("count")?,
        })
    }

    fn since(&mut self, mark: &Mark) -> Result<Stretch> {
        let pulled = self.guests.ask("count")?;
        let sent = self.generator.ask("count")?;
        let mut threads = self.victim.processor();
        for (name, seconds) in &mut threads {
            *seconds -= mark.threads.get(name).copied().unwrap_or_default();
        }
        let seconds = fraction(&pulled, "seconds")? - fraction(&mark.pulled, "seconds")?;
        let objects = number(&pulled, "objects")? - number(&mark.pulled, "objects")?;
        Ok(Stretch {
            seconds,
            objects_per_s: objects as f64 / seconds,
            sent,
            threads,
            victim: self.victim.spent() - mark.victim,
            sink: self.sink.spent() - mark.sink,
            generator: self.generator.spent() - mark.generator,
            guests: self.guests.spent() - mark.guests,
        })
    }

    /// Rest, and what the gate makes of it.
    fn afterwards(&mut self) -> Result<After> {
        self.aim(0)?;
        let mut empty_s = None;
        for look in 0..LOOKS {
            let status = self.victim.ask("status")?;
            let left = ["silent", "thinking", "presenting", "known", "queue", "verifying"];
            let left: u64 = left
                .into_iter()
                .map(|name| number(&status, name))
                .sum::<Result<u64>>()?;
            if left == 0 {
                empty_s = Some(f64::from(look) * LOOK_AGAIN.as_secs_f64());
                break;
            }
            pause(LOOK_AGAIN);
        }
        let calm_effort = bastion::GateConfig::default().effort_calm;
        let mut calm_s = None;
        let mut forward = 0;
        while forward <= FORWARD_S_MAX {
            let status = self.victim.ask("status")?;
            if number(&status, "effort")? == calm_effort {
                calm_s = Some(forward);
                break;
            }
            self.forward(FORWARD_S)?;
            forward += FORWARD_S;
        }
        self.forward(FORWARD_S_MAX)?;
        let stranger = self.stranger()?;
        self.until_empty()?;
        Ok(After {
            empty_s,
            calm_s,
            stranger,
            status: self.victim.ask("status")?,
        })
    }

    /// Seconds until nobody is in the lobby or before the verifiers; none where that does not come.
    fn until_empty(&mut self) -> Result<Option<f64>> {
        for look in 0..LOOKS {
            let status = self.victim.ask("status")?;
            let left = ["silent", "thinking", "presenting", "known", "queue", "verifying"];
            let left: u64 = left
                .into_iter()
                .map(|name| number(&status, name))
                .sum::<Result<u64>>()?;
            if left == 0 {
                return Ok(Some(f64::from(look) * LOOK_AGAIN.as_secs_f64()));
            }
            pause(LOOK_AGAIN);
        }
        Ok(None)
    }

    fn forward(&mut self, seconds: u64) -> Result<Value> {
        self.victim
            .request(&json!({ "do": "forward", "seconds": seconds }), ROOM)
    }
}

/// Where the counters stood.
struct Mark {
    threads: BTreeMap<String, f64>,
    victim: f64,
    sink: f64,
    generator: f64,
    guests: f64,
    pulled: Value,
}
