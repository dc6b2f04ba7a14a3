//! The processes of the flood as the one that leads them sees them.
//!
//! Never waits without a deadline, and never leaves one running: each ends, by its own id, when its handle is dropped.
//! Invariant: a question gets the answer to itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child as Process, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

/// How long a process may take to begin.
const START: Duration = Duration::from_secs(180);
/// How long an answer may take that needs no work.
const ANSWER: Duration = Duration::from_secs(15);

/// A process of this program in another role.
pub(super) struct Child {
    role: &'static str,
    process: Process,
    commands: ChildStdin,
    answers: Receiver<Value>,
}

impl Child {
    /// Starts a role and waits for its first word.
    pub(super) fn start(role: &'static str, setting: &Value) -> Result<(Self, Value)> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["flood", "--role", role, "--setting", &setting.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start the {role}"))?;
        let (commands, output) = match (process.stdin.take(), process.stdout.take()) {
            (Some(commands), Some(output)) => (commands, output),
            _ => bail!("no pipe to the {role}"),
        };
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let answer = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                let Some(answer) = answer else { break };
                if sender.send(answer).is_err() {
                    break;
                }
            }
        });
        let child = Self {
            role,
            process,
            commands,
            answers,
        };
        let first = child.hear(START)?;
        Ok((child, first))
    }

    /// Asks for what is quickly answered.
    pub(super) fn ask(&mut self, verb: &str) -> Result<Value> {
        self.request(&json!({ "do": verb }), ANSWER)
    }

    /// Asks, and waits for the answer.
    pub(super) fn request(&mut self, command: &Value, within: Duration) -> Result<Value> {
        writeln!(self.commands, "{command}")
            .with_context(|| format!("the {} is gone", self.role))?;
        self.hear(within)
    }

    fn hear(&self, within: Duration) -> Result<Value> {
        let answer = self.answers.recv_timeout(within);
        answer.map_err(|error| anyhow!("no answer of the {}: {error}", self.role))
    }

    /// Processor time so far, in seconds, by the names of its threads.
    pub(super) fn processor(&self) -> BTreeMap<String, f64> {
        let mut spent = BTreeMap::new();
        let folder = format!("/proc/{}/task", self.process.id());
        for thread in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Some((name, seconds)) = fs::read_to_string(thread.path().join("stat"))
                .ok()
                .and_then(|text| thread_time(&text))
            else {
                continue;
            };
            *spent.entry(name).or_default() += seconds;
        }
        spent
    }

    /// Processor time so far of all threads, those that have ended too, in seconds.
    pub(super) fn spent(&self) -> f64 {
        spent_by(self.process.id())
    }

    /// A size in MiB, by its name in the process's status.
    pub(super) fn resident(&self, name: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        crate::stopwatch::size_in(&status, name)
            .map(|bytes| bytes / f64::from(1 << 20))
            .with_context(|| format!("no {name} of the {}", self.role))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Processor time of all threads of a process so far, those that have ended too, in seconds.
pub(super) fn spent_by(id: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"));
    stat.ok()
        .and_then(|text| thread_time(&text))
        .map_or(f64::NAN, |(_, seconds)| seconds)
}

/// Name, and seconds in user and system mode, of a line of `/proc/<id>/task/<id>/stat`; Linux counts hundredths there.
fn thread_time(text: &str) -> Option<(String, f64)> {
    let (_, rest) = text.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place)?.parse::<f64>().ok();
    Some((name.to_owned(), (ticks(11)? + ticks(12)?) / 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_time_stands_behind_its_name() {
        let line = "7 (a (odd) name) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 30 10 1 0";
        assert_eq!(thread_time(line), Some(("a (odd) name".to_owned(), 3.0)));
        assert_eq!(thread_time("nonsense"), None);
    }
}
