//! Functions that all roles share: CPU affinity, commands and replies.
//!
//! A command and its reply are one line of JSON each. The process exits when its standard input
//! ends, so it does not outlive the benchmark. Invariant: one reply for each command, in order.

use std::io::{BufRead as _, Write as _};

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Returns the cores that this process may run on.
pub(super) fn cores() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(None).context("could not read the CPU affinity")?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect())
}

/// Pins this thread, and all threads that it starts, to one core.
pub(super) fn pin(core: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).context("could not set the CPU affinity")
}

/// Returns the commands from standard input. The process exits when the input ends.
pub(super) fn commands() -> UnboundedReceiver<Value> {
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let command = line.ok().and_then(|line| serde_json::from_str(&line).ok());
            let Some(command) = command else { break };
            if sender.send(command).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    receiver
}

/// Writes a reply to standard output.
pub(super) fn reply(reply: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{reply}")?;
    Ok(out.flush()?)
}

/// Returns the name of a command.
pub(super) fn verb(command: &Value) -> &str {
    command
        .get("do")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Returns an integer of a command or a reply.
pub(super) fn number(value: &Value, name: &str) -> Result<u64> {
    value
        .get(name)
        .and_then(Value::as_u64)
        .with_context(|| format!("no {name} in {value}"))
}

/// Returns a floating-point number of a command or a reply.
pub(super) fn fraction(value: &Value, name: &str) -> Result<f64> {
    value
        .get(name)
        .and_then(Value::as_f64)
        .with_context(|| format!("no {name} in {value}"))
}

/// Returns a port of a command or a reply.
pub(super) fn port(value: &Value, name: &str) -> Result<u16> {
    Ok(u16::try_from(number(value, name)?)?)
}
