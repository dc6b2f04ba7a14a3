//! What the demonstration prints: sections, facts and asides, as a person would want to read them.

use std::fmt::Display;

/// Begins a section of the story.
pub(crate) fn section(title: &str) {
    println!("\n== {title}");
}

/// A fact with its name.
pub(crate) fn fact(name: &str, value: impl Display) {
    println!("   {name}: {value}");
}

/// An aside.
pub(crate) fn detail(text: &str) {
    println!("   … {text}");
}
