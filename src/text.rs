//! Characters that a person cannot see in a text of one line.

/// Whether the character is a control character, changes the writing direction, breaks the line, or
/// is invisible.
///
/// Such characters can make two names look alike. Joiners are not included, because people write
/// with them.
pub(crate) fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Whether a text of at most `bytes_max` bytes shows every character on one line.
pub(crate) fn is_line(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && !text.chars().any(is_hidden)
}
