//! Handles of the flood's processes in the benchmark process.
//!
//! Every wait has a deadline. Dropping a handle kills its process. Invariant: replies arrive in the
//! order of the commands, one for each.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child as Process, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

/// Time limit for the first reply of a process.
const START_TIMEOUT: Duration = Duration::from_secs(180);
/// Time limit of a reply to a command that needs no work.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// A process of this program in one of the roles.
pub(super) struct Child {
    role: &'static str,
    process: Process,
    commands: ChildStdin,
    replies: Receiver<Value>,
}

impl Child {
    /// Starts a process in a role and waits for its first reply.
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
        let (sender, replies) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let reply = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                let Some(reply) = reply else { break };
                if sender.send(reply).is_err() {
                    break;
                }
            }
        });
        let child = Self {
            role,
            process,
            commands,
            replies,
        };
        let first = child.receive(START_TIMEOUT)?;
        Ok((child, first))
    }

    /// Sends a command without parameters and waits for the reply.
    pub(super) fn query(&mut self, verb: &str) -> Result<Value> {
        self.request(&json!({ "do": verb }), REPLY_TIMEOUT)
    }

    /// Sends a command and waits for the reply.
    pub(super) fn request(&mut self, command: &Value, within: Duration) -> Result<Value> {
        writeln!(self.commands, "{command}")
            .with_context(|| format!("the process {} has ended", self.role))?;
        self.receive(within)
    }

    fn receive(&self, within: Duration) -> Result<Value> {
        let reply = self.replies.recv_timeout(within);
        reply.map_err(|error| anyhow!("no reply of the process {}: {error}", self.role))
    }

    /// Returns the processor time of the running threads in seconds, by thread name.
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

    /// Returns the processor time of all threads in seconds, including ended threads.
    pub(super) fn spent(&self) -> f64 {
        spent_by(self.process.id())
    }

    /// Returns a size in MiB, by its name in `/proc/<id>/status`.
    pub(super) fn resident(&self, name: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        crate::stopwatch::size_in(&status, name)
            .map(|bytes| bytes / f64::from(1 << 20))
            .with_context(|| format!("no {name} of the process {}", self.role))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both calls fail only when the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the processor time of all threads of a process in seconds, including ended threads.
pub(super) fn spent_by(id: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"));
    stat.ok()
        .and_then(|text| thread_time(&text))
        .map_or(f64::NAN, |(_, seconds)| seconds)
}

/// Parses `/proc/<id>/task/<id>/stat`: the name, and the sum of user and system time in seconds.
///
/// The ticks are hundredths of a second (`USER_HZ` of Linux).
fn thread_time(text: &str) -> Option<(String, f64)> {
    let (_, rest) = text.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((name.to_owned(), (ticks(11)? + ticks(12)?) / 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_time_accepts_parentheses_in_the_name() {
        let line = "7 (a (odd) name) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 30 10 1 0";
        assert_eq!(thread_time(line), Some(("a (odd) name".to_owned(), 3.0)));
        assert_eq!(thread_time("nonsense"), None);
    }
}
