//! The form of a documented table and of a documented key.
//!
//! Plain data, except that [`KeyType::range`] writes a range as text.

/// A table of the configuration file.
#[derive(Debug)]
pub struct Table {
    /// The name as in the file, such as `quota.untrusted`.
    pub name: &'static str,
    /// Purpose of the table, and when a change takes effect.
    pub about: &'static str,
    /// The keys, in the order of the documentation.
    pub keys: &'static [Key],
}

/// A key of the configuration file.
#[derive(Debug)]
pub struct Key {
    /// The name within its table.
    pub name: &'static str,
    /// The type of the value, with unit and range.
    pub kind: KeyType,
    /// The default as TOML; `None` if an absent key means that there is no value.
    pub default: Option<&'static str>,
    /// Effect of the key, in whole sentences.
    pub about: &'static str,
    /// Reason for the default.
    pub reason: &'static str,
    /// Comment above the key in the file that `postern init` writes. `None` if the key is not in
    /// that file, empty if the comment above its table is enough.
    pub in_new_file: Option<&'static str>,
}

/// Type, unit and range of a key's value.
#[derive(Debug, Clone, Copy)]
pub enum KeyType {
    /// A whole number.
    Integer {
        /// Unit of the number; empty if the name says what is counted.
        unit: &'static str,
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// `true` or `false`.
    Boolean,
    /// One of these names.
    OneOf(&'static [&'static str]),
    /// Any other value, with type and range in plain English.
    Other {
        /// The type.
        kind: &'static str,
        /// The range; empty if the type says all.
        range: &'static str,
    },
}

/// Largest integer of TOML and of the database: a limit of this size is no limit.
pub(crate) const INTEGER_MAX: u64 = i64::MAX as u64;

impl KeyType {
    /// Condition on a value, for the operator; `None` if the type says all.
    pub(crate) fn range(&self) -> Option<String> {
        match *self {
            Self::Integer {
                min,
                max: INTEGER_MAX,
                ..
            } => Some(format!("at least {min}")),
            Self::Integer { min, max, .. } => Some(format!("{min} to {max}")),
            Self::OneOf(names) => {
                let quoted: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
                Some(quoted.join(", "))
            }
            Self::Other { range: "", .. } | Self::Boolean => None,
            Self::Other { range, .. } => Some(range.to_owned()),
        }
    }
}
