//! Prints the results as a table, or as one JSON object per line.
//!
//! Missed goals are marked, and goals that were not measured state the reason. Invariant: a row
//! with a measured goal says whether the goal holds; all other rows make no claim.

use serde_json::json;

use crate::machine;

/// The bound of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// A lower bound, inclusive.
    AtLeast(f64),
    /// An upper bound, inclusive.
    AtMost(f64),
}

impl Goal {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!(">= {}", number(least)),
            Self::AtMost(most) => format!("<= {}", number(most)),
        }
    }
}

/// The report of one run. Rows are printed immediately.
#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    missed: Vec<String>,
}

impl Report {
    /// Creates a report and prints the facts of the run.
    pub(crate) fn new(json: bool) -> Self {
        let report = Self {
            json,
            missed: Vec::new(),
        };
        for (name, value) in machine::facts() {
            report.fact(name, &value);
        }
        report
    }

    /// Prints a fact of this run.
    pub(crate) fn fact(&self, name: &str, value: &str) {
        if self.json {
            self.line(name, &json!(value), "", None, None);
        } else {
            println!("{name:<16} {value}");
        }
    }

    /// Prints the heading of a table.
    pub(crate) fn heading(&self, text: &str) {
        if !self.json {
            println!(
                "\n{text}\n  {:<38} {:>12} {:<14} {:<10} holds",
                "what", "value", "", "goal"
            );
        }
    }

    /// Prints a value with its goal.
    pub(crate) fn goal(&mut self, name: &str, value: f64, unit: &str, goal: Goal) {
        let holds = goal.holds(value);
        if !holds {
            self.missed.push(name.to_owned());
        }
        self.row(name, Some(value), unit, Some(goal), Some(holds));
    }

    /// Prints a value without a goal.
    pub(crate) fn value(&self, name: &str, value: f64, unit: &str) {
        self.row(name, Some(value), unit, None, None);
    }

    /// Prints a goal that cannot be measured, and the reason.
    pub(crate) fn not_measured(&self, name: &str, goal: Goal, why: &str) {
        self.row(
            name,
            None,
            &format!("not measured: {why}"),
            Some(goal),
            None,
        );
    }

    /// Prints the missed goals at the end of the run.
    pub(crate) fn end(&self) {
        if self.json {
            return;
        }
        match self.missed.as_slice() {
            [] => println!("\nEvery goal that was measured holds."),
            missed => println!("\nNot held: {}.", missed.join(", ")),
        }
    }

    fn row(
        &self,
        name: &str,
        value: Option<f64>,
        unit: &str,
        goal: Option<Goal>,
        holds: Option<bool>,
    ) {
        if self.json {
            self.line(name, &json!(value.map(rounded)), unit, goal, holds);
            return;
        }
        let goal = goal.map(Goal::text).unwrap_or_default();
        let holds = match holds {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        match value {
            Some(value) => println!(
                "  {name:<38} {:>12} {unit:<14} {goal:<10} {holds}",
                number(value)
            ),
            None => println!("  {name:<38} {:>12} {:<14} {goal:<10} {unit}", "-", ""),
        }
    }

    fn line(
        &self,
        name: &str,
        value: &serde_json::Value,
        unit: &str,
        goal: Option<Goal>,
        holds: Option<bool>,
    ) {
        let goal = goal.map(Goal::text);
        println!(
            "{}",
            json!({"name": name, "value": value, "unit": unit, "goal": goal, "holds": holds})
        );
    }
}

/// Rounds to three significant digits, the precision of the measurements.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = (2 - value.abs().log10().floor() as i32).max(0);
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

fn number(value: f64) -> String {
    let text = rounded(value).to_string();
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0
            && (whole.len() - index).is_multiple_of(3)
            && digit.is_ascii_digit()
            && !grouped.ends_with('-')
        {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_prints_three_significant_digits_and_groups() {
        let check = |value: f64, expected: &str| assert_eq!(number(value), expected);
        check(0.0, "0");
        check(0.80049, "0.8");
        check(0.79951, "0.8");
        check(0.7991, "0.799");
        check(12.345, "12.3");
        check(999_999.0, "999,999");
        check(71_234.6, "71,235");
        check(-1234.5, "-1,235");
    }

    #[test]
    fn goal_holds_at_its_bound() {
        assert!(Goal::AtLeast(0.8).holds(0.8) && !Goal::AtLeast(0.8).holds(0.799));
        assert!(Goal::AtMost(1.2).holds(1.2) && !Goal::AtMost(1.2).holds(1.21));
    }
}
