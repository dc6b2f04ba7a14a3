//! Formats an error together with its causes for a log line or a terminal.
//!
//! Tested below.

use std::error::Error;

/// Returns the error and all its sources on one line, separated by `": "`.
///
/// A cause is left out if the text before it already ends with it, because many error types
/// repeat their source in their own message.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    fn layers(texts: &[&'static str]) -> Layer {
        let (first, rest) = texts.split_first().unwrap();
        let source = (!rest.is_empty()).then(|| Box::new(layers(rest)));
        Layer {
            text: first,
            source,
        }
    }

    #[test]
    fn error_chain_joins_every_cause_once() {
        let chain = |texts| error_chain(&layers(texts));
        assert_eq!(chain(&["alone"]), "alone");
        assert_eq!(
            chain(&["open", "read", "disk full"]),
            "open: read: disk full"
        );
        assert_eq!(
            chain(&["open: read", "read", "disk full"]),
            "open: read: disk full"
        );
    }
}
