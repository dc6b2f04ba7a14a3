//! Removes onion addresses from text of other sources, such as error chains of libraries.
//!
//! The result contains no run of 56 base32 characters, with or without `.onion` after it.

/// The length of a version 3 address without `.onion`, in characters.
const ADDRESS_CHARS: usize = 56;

/// Characters that stay, as in the `Display` of `OnionAddr`.
const SHOWN_CHARS: usize = 8;

/// Returns the text with every onion address shortened to its first characters.
pub fn redact_onions(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_base32) {
        let (before, from) = rest.split_at(start);
        out.push_str(before);
        let end = from.find(|c| !is_base32(c)).unwrap_or(from.len());
        let (run, after) = from.split_at(end);
        if run.len() >= ADDRESS_CHARS {
            out.extend(run.chars().take(SHOWN_CHARS));
            out.push('…');
        } else {
            out.push_str(run);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn is_base32(c: char) -> bool {
    matches!(c, 'a'..='z' | 'A'..='Z' | '2'..='7')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redact_onions_shortens_every_address() {
        let address = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd";
        assert_eq!(address.len(), ADDRESS_CHARS);
        let text = format!(
            "dial {address}.onion: no ({address}), {}.",
            address.to_uppercase()
        );
        let redacted = redact_onions(&text);
        assert_eq!(redacted, "dial pg6mmjiy….onion: no (pg6mmjiy…), PG6MMJIY….");
    }

    #[test]
    fn redact_onions_keeps_other_text() {
        for text in [
            "",
            "no circuit to relay 5, ünïcode",
            "a 40-digit fingerprint 7F9D3D8685F862C91791DBBCC4DD712C6476F1FF",
        ] {
            assert_eq!(redact_onions(text), text);
        }
    }
}
