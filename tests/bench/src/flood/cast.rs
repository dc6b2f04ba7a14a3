//! The processes together: who is told what, and what is read off them over a stretch of time.
//!
//! Never waits for one without a deadline. Invariant: all of them end with the [`Cast`], the network last.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Options;
use super::child::Child;
use super::guests::DIAL;
use super::phases::{Course, circuits};
use super::role::{cores, fraction, number};
use super::tor::Network;
use crate::stopwatch::pause;

/// For an answer beside what it is about.
const ROOM: Duration = Duration::from_secs(15);
/// Attackers over Tor at most: more connections than the victim's lobby has places.
pub(super) const ATTACKERS_MAX: u64 = 768;

/// What the flood is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Nobody,
    Sink,
    Victim,
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
    /// Of the Tor network's authorities and relays together.
    pub(super) relays: f64,
    /// Circuits that victim and sink built; 0 on loopback.
    pub(super) built: u64,
}

/// The processes.
pub(super) struct Cast {
    pub(super) victim: Child,
    pub(super) sink: Child,
    pub(super) guests: Child,
    generator: Child,
    strangers: Child,
    /// Attackers over Tor.
    pub(super) attackers: u64,
    _folder: TempDir,
    pub(super) network: Option<Network>,
}

/// Where the counters stood.
pub(super) struct Mark {
    threads: BTreeMap<String, f64>,
    victim: f64,
    sink: f64,
    generator: f64,
    guests: f64,
    relays: f64,
    built: u64,
    pulled: Value,
}

/// A setting and another one.
fn with(setting: &Value, more: Value) -> Value {
    let mut both = setting.clone();
    if let (Value::Object(both), Value::Object(more)) = (&mut both, more) {
        both.extend(more);
    }
    both
}

impl Cast {
    pub(super) fn start(options: &Options, course: &Course) -> Result<Self> {
        let network = course.tor.then(Network::start).transpose()?;
        let (near, far) = match &network {
            // The relays want both cores; so may everybody.
            Some(network) => {
                let setting = json!({ "network": network.setting() });
                (setting.clone(), setting)
            }
            None => {
                let cores = cores()?;
                ensure!(cores.len() >= 2, "the flood needs two cores");
                (
                    json!({ "core": cores.first() }),
                    json!({ "core": cores.get(1) }),
                )
            }
        };
        let folder = TempDir::new()?;
        eprintln!("a node with {} messages", course.messages);
        let setting = json!({ "folder": folder.path(), "messages": course.messages, "package": course.package });
        let (victim, victim_served) = Child::start("victim", &with(&near, setting))?;
        let (sink, sink_served) = Child::start("sink", &near)?;
        let far = match &network {
            Some(_) => far,
            None => {
                let port = |served| number(served, "port");
                let ports = json!({ "victim": port(&victim_served)?, "sink": port(&sink_served)? });
                with(&far, json!({ "ports": ports }))
            }
        };
        let pace = match &network {
            Some(_) => json!({ "attackers": ATTACKERS_MAX }),
            None => json!({ "rate": options.rate }),
        };
        let setting = with(&with(&far, pace), json!({ "stallers": course.stallers }));
        let (generator, _) = Child::start("generator", &setting)?;
        let (guests, _) = Child::start("guests", &with(&far, json!({ "meets": true })))?;
        let (strangers, _) = Child::start("strangers", &far)?;
        Ok(Self {
            victim,
            sink,
            guests,
            generator,
            strangers,
            attackers: 0,
            _folder: folder,
            network,
        })
    }

    pub(super) fn aim(&mut self, at: At) -> Result<Value> {
        let at = match at {
            At::Nobody => "nobody",
            At::Sink => "sink",
            At::Victim => "victim",
        };
        let command = json!({ "do": "aim", "at": at, "attackers": self.attackers });
        self.generator.request(&command, ROOM)
    }

    pub(super) fn ticket(&mut self) -> Result<Value> {
        self.guests.request(&json!({ "do": "ticket" }), DIAL + ROOM)
    }

    pub(super) fn stranger(&mut self) -> Result<Value> {
        self.strangers
            .request(&json!({ "do": "stranger" }), DIAL + ROOM)
    }

    pub(super) fn forward(&mut self, seconds: u64) -> Result<Value> {
        let command = json!({ "do": "forward", "seconds": seconds });
        self.victim.request(&command, ROOM)
    }

    /// Aims, lets it settle, measures.
    pub(super) fn stretch(
        &mut self,
        at: At,
        settle: Duration,
        measure: Duration,
    ) -> Result<Stretch> {
        self.aim(at)?;
        pause(settle);
        let mark = self.mark()?;
        pause(measure);
        self.since(&mark)
    }

    fn relays(&self) -> f64 {
        self.network.as_ref().map_or(0.0, Network::spent)
    }

    fn built(&mut self) -> Result<u64> {
        if self.network.is_none() {
            return Ok(0);
        }
        Ok(circuits(&self.victim.ask("status")?, "built")?
            + circuits(&self.sink.ask("status")?, "built")?)
    }

    pub(super) fn mark(&mut self) -> Result<Mark> {
        self.generator.ask("count")?;
        Ok(Mark {
            threads: self.victim.processor(),
            victim: self.victim.spent(),
            sink: self.sink.spent(),
            generator: self.generator.spent(),
            guests: self.guests.spent(),
            relays: self.relays(),
            built: self.built()?,
            pulled: self.guests.ask("count")?,
        })
    }

    pub(super) fn since(&mut self, mark: &Mark) -> Result<Stretch> {
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
            relays: self.relays() - mark.relays,
            built: self.built()? - mark.built,
        })
    }
}
