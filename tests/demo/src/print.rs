//! Prints the output of the demonstration: sections, facts and details.

use std::fmt::Display;

/// Prints the heading of a section of the story.
pub(crate) fn section(title: &str) {
    println!("\n== {title}");
}

/// Prints a named value.
pub(crate) fn fact(name: &str, value: impl Display) {
    println!("   {name}: {value}");
}

/// Prints additional information.
pub(crate) fn detail(text: &str) {
    println!("   … {text}");
}
