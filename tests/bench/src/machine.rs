//! The facts of a run: date, processor, load, versions and build.
//!
//! The host name is not included. Invariant: a fact that cannot be read is printed as "unknown".

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

/// Returns the facts with their names.
pub(crate) fn facts() -> Vec<(&'static str, String)> {
    vec![
        ("date", output_of("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("processor", processor()),
        ("load before", load()),
        ("SQLite", rusqlite::version().to_owned()),
        ("rustc", output_of("rustc", &["--version"])),
        (
            "build",
            if cfg!(debug_assertions) {
                "debug: NOT FOR FIGURES"
            } else {
                "release"
            }
            .to_owned(),
        ),
    ]
}

/// Returns the load averages over 1, 5 and 15 minutes.
pub(crate) fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<_> = load.split(' ').take(3).collect();
    if load.len() == 3 {
        load.join(" ")
    } else {
        unknown()
    }
}

fn processor() -> String {
    let cores = available_parallelism().map_or(0, std::num::NonZero::get);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or_else(unknown, |rest| {
        rest.trim_start_matches(['\t', ' ', ':']).to_owned()
    });
    format!("{model}, {cores} cores")
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok());
    text.map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
        .unwrap_or_else(unknown)
}

fn unknown() -> String {
    "unknown".to_owned()
}
