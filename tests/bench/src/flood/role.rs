//! What every process of the flood does: stay on its core, take commands, answer them.
//!
//! A command and its answer are one line of JSON each. Never outlives the process that commands it: the end of its input
//! is the end of it. Invariant: one answer a command, in their order.

use std::io::{BufRead as _, Write as _};

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// The cores that this process may run on.
pub(super) fn cores() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(None).context("the cores are not known")?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect())
}

/// Keeps this thread, and all that it starts, on one core.
pub(super) fn pin(core: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).context("a core of one's own is not allowed")
}

/// The commands as they come. Ends the process when there can be no more.
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

/// Answers.
pub(super) fn say(answer: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    Ok(out.flush()?)
}

/// What is to be done.
pub(super) fn verb(command: &Value) -> &str {
    command
        .get("do")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A number of a command or an answer.
pub(super) fn number(value: &Value, name: &str) -> Result<u64> {
    value
        .get(name)
        .and_then(Value::as_u64)
        .with_context(|| format!("no {name} in {value}"))
}

/// A number with a fraction.
pub(super) fn fraction(value: &Value, name: &str) -> Result<f64> {
    value
        .get(name)
        .and_then(Value::as_f64)
        .with_context(|| format!("no {name} in {value}"))
}

/// A port of a command or an answer.
pub(super) fn port(value: &Value, name: &str) -> Result<u16> {
    Ok(u16::try_from(number(value, name)?)?)
}
