//! Starts the processes, sends them commands, and reads their counters over an interval.
//!
//! Every wait for a reply has a deadline. Invariant: all processes end with [`Processes`], the
//! network last.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Options;
use super::child::Child;
use super::clients::DIAL_TIMEOUT;
use super::phases::{Plan, circuits};
use super::role::{cores, fraction, number};
use super::tor::Network;
use crate::stopwatch::pause;

/// Time limit of a reply, in addition to the work that the command requires.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum number of attackers over Tor; more connections than the victim's gate has handshake
/// slots.
pub(super) const ATTACKERS_MAX: u64 = 768;

/// The target of the flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FloodTarget {
    Off,
    Sink,
    Victim,
}

/// The counters of one interval under constant load.
pub(super) struct Measurement {
    pub(super) seconds: f64,
    /// Objects that the pulling peer received.
    pub(super) objects_per_s: f64,
    pub(super) sent: Value,
    /// Processor seconds of the victim's threads, by name.
    pub(super) threads: BTreeMap<String, f64>,
    pub(super) victim: f64,
    pub(super) sink: f64,
    pub(super) generator: f64,
    /// Processor seconds of the process with the admitted clients.
    pub(super) admitted: f64,
    /// Processor seconds of all authorities and relays.
    pub(super) relays: f64,
    /// Number of circuits that victim and sink built; 0 on loopback.
    pub(super) built: u64,
}

/// The running processes.
pub(super) struct Processes {
    pub(super) victim: Child,
    pub(super) sink: Child,
    pub(super) admitted: Child,
    generator: Child,
    unadmitted: Child,
    /// Number of active attackers over Tor.
    pub(super) attackers: u64,
    _folder: TempDir,
    pub(super) network: Option<Network>,
}

/// The values of the counters at one time.
pub(super) struct Snapshot {
    threads: BTreeMap<String, f64>,
    victim: f64,
    sink: f64,
    generator: f64,
    admitted: f64,
    relays: f64,
    built: u64,
    pulled: Value,
}

/// Returns the union of two settings.
fn with(setting: &Value, more: Value) -> Value {
    let mut both = setting.clone();
    if let (Value::Object(both), Value::Object(more)) = (&mut both, more) {
        both.extend(more);
    }
    both
}

impl Processes {
    pub(super) fn start(options: &Options, plan: &Plan) -> Result<Self> {
        let network = plan.tor.then(Network::start).transpose()?;
        let (near, far) = match &network {
            // No process is pinned, because the relays need both cores.
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
        eprintln!("a node with {} messages", plan.messages);
        let setting = json!({
            "folder": folder.path(),
            "messages": plan.messages,
            "package": plan.package,
        });
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
        let setting = with(&with(&far, pace), json!({ "stallers": plan.stallers }));
        let (generator, _) = Child::start("generator", &setting)?;
        let setting = with(&far, json!({ "open_sessions": true }));
        let (admitted, _) = Child::start("admitted-clients", &setting)?;
        let (unadmitted, _) = Child::start("unadmitted-clients", &far)?;
        Ok(Self {
            victim,
            sink,
            admitted,
            generator,
            unadmitted,
            attackers: 0,
            _folder: folder,
            network,
        })
    }

    pub(super) fn aim(&mut self, target: FloodTarget) -> Result<Value> {
        let name = match target {
            FloodTarget::Off => "off",
            FloodTarget::Sink => "sink",
            FloodTarget::Victim => "victim",
        };
        let command = json!({ "do": "aim", "at": name, "attackers": self.attackers });
        self.generator.request(&command, REPLY_TIMEOUT)
    }

    /// Lets an admitted client dial the victim with its ticket.
    pub(super) fn dial_with_ticket(&mut self) -> Result<Value> {
        let command = json!({ "do": "ticket" });
        self.admitted
            .request(&command, DIAL_TIMEOUT + REPLY_TIMEOUT)
    }

    /// Lets a client with new keys dial the victim.
    pub(super) fn dial_unadmitted(&mut self) -> Result<Value> {
        let command = json!({ "do": "dial" });
        self.unadmitted
            .request(&command, DIAL_TIMEOUT + REPLY_TIMEOUT)
    }

    pub(super) fn forward(&mut self, seconds: u64) -> Result<Value> {
        let command = json!({ "do": "forward", "seconds": seconds });
        self.victim.request(&command, REPLY_TIMEOUT)
    }

    /// Aims the flood, waits for `settle`, and measures for `measure`.
    pub(super) fn measure(
        &mut self,
        target: FloodTarget,
        settle: Duration,
        measure: Duration,
    ) -> Result<Measurement> {
        self.aim(target)?;
        pause(settle);
        let snapshot = self.snapshot()?;
        pause(measure);
        self.since(&snapshot)
    }

    fn relays(&self) -> f64 {
        self.network.as_ref().map_or(0.0, Network::spent)
    }

    fn built(&mut self) -> Result<u64> {
        if self.network.is_none() {
            return Ok(0);
        }
        Ok(circuits(&self.victim.query("status")?, "built")?
            + circuits(&self.sink.query("status")?, "built")?)
    }

    pub(super) fn snapshot(&mut self) -> Result<Snapshot> {
        self.generator.query("count")?;
        Ok(Snapshot {
            threads: self.victim.processor(),
            victim: self.victim.spent(),
            sink: self.sink.spent(),
            generator: self.generator.spent(),
            admitted: self.admitted.spent(),
            relays: self.relays(),
            built: self.built()?,
            pulled: self.admitted.query("count")?,
        })
    }

    pub(super) fn since(&mut self, snapshot: &Snapshot) -> Result<Measurement> {
        let pulled = self.admitted.query("count")?;
        let sent = self.generator.query("count")?;
        let mut threads = self.victim.processor();
        for (name, seconds) in &mut threads {
            *seconds -= snapshot.threads.get(name).copied().unwrap_or_default();
        }
        let seconds = fraction(&pulled, "seconds")? - fraction(&snapshot.pulled, "seconds")?;
        let objects = number(&pulled, "objects")? - number(&snapshot.pulled, "objects")?;
        Ok(Measurement {
            seconds,
            objects_per_s: objects as f64 / seconds,
            sent,
            threads,
            victim: self.victim.spent() - snapshot.victim,
            sink: self.sink.spent() - snapshot.sink,
            generator: self.generator.spent() - snapshot.generator,
            admitted: self.admitted.spent() - snapshot.admitted,
            relays: self.relays() - snapshot.relays,
            built: self.built()? - snapshot.built,
        })
    }
}
