//! Texts of one line: which names may be made here, how texts of other nodes are shown, and when
//! two names count as the same.
//!
//! Pure. Invariant: a name that was made here shows every character, and no two petnames differ
//! only in case, width or joiners. Tested in `text/tests.rs`.

use icu_normalizer::ComposingNormalizerBorrowed;

/// Longest name of an identity and longest petname, in bytes, as in
/// `src/schema/apps/identities.toml`.
pub(crate) const NAME_BYTES_MAX: usize = 64;
/// Fewest digits of an oid that name an identity.
pub(crate) const OID_DIGITS_MIN: usize = 8;
/// The mark of a claim. No name that is made here begins with it.
pub(crate) const CLAIM_MARK: char = '~';

/// Presentation as emoji: changes the look of the character before it.
const EMOJI_STYLE: char = '\u{fe0f}';
/// Joins the characters beside it.
const ZERO_WIDTH_JOINER: char = '\u{200d}';
/// Keeps the characters beside it from joining.
const ZERO_WIDTH_NON_JOINER: char = '\u{200c}';

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// There is no visible character.
    #[error("a name cannot be empty or blank")]
    Empty,
    /// The name is too long. Carries the largest number of bytes.
    #[error("a name has at most {0} bytes")]
    TooLong(usize),
    /// A space is the first or the last character.
    #[error("a name cannot begin or end with a space")]
    OuterSpace,
    /// A control, direction or invisible character.
    #[error(
        "a name is one line without control, direction or invisible characters: it has {}",
        .0.escape_unicode()
    )]
    Hidden(char),
    /// The mark of claims is the first character.
    #[error("a name cannot begin with `{CLAIM_MARK}`, which marks what others call themselves")]
    Marked,
    /// The name is a number of hexadecimal digits, and would stand for an oid.
    #[error("a name cannot be {OID_DIGITS_MIN} or more hexadecimal digits, which stand for an oid")]
    OidLike,
}

/// Whether the character is a control character, changes the writing direction, breaks the line, or
/// is invisible everywhere.
///
/// Such characters can make two names look alike. Joiners are not included, because people write
/// with them.
pub(crate) fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            // Default_Ignorable_Code_Point of Unicode 16, without joiners.
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'
                | '\u{200e}'..='\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0e}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fff8}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
                // Line and paragraph separators, the blank of Braille, marks of annotations.
                | '\u{2028}'..='\u{2029}'
                | '\u{2800}'
                | '\u{fff9}'..='\u{fffc}'
        )
}

fn is_joiner(letter: char) -> bool {
    matches!(
        letter,
        ZERO_WIDTH_JOINER | ZERO_WIDTH_NON_JOINER | EMOJI_STYLE
    )
}

fn is_emoji(letter: char) -> bool {
    matches!(letter,
        '\u{2190}'..='\u{21ff}' | '\u{2300}'..='\u{23ff}' | '\u{25a0}'..='\u{27bf}'
        | '\u{2b00}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}')
}

/// Whether the character belongs to a script that is written with joiners: Arabic, Syriac and their
/// neighbours, the scripts of India and South-East Asia, Mongolian.
fn is_of_joining_script(letter: char) -> bool {
    matches!(letter,
        '\u{600}'..='\u{dff}' | '\u{f00}'..='\u{109f}' | '\u{1780}'..='\u{18af}'
        | '\u{1900}'..='\u{1cff}' | '\u{a840}'..='\u{abff}' | '\u{fb50}'..='\u{fdff}'
        | '\u{fe70}'..='\u{fefc}' | '\u{11000}'..='\u{11fff}')
}

/// Whether a joiner has an effect: between two emoji, after an emoji, or between two characters of
/// scripts that are written with joiners. So never beside a Latin, Greek or Cyrillic letter.
fn joins(before: Option<char>, joiner: char, after: Option<char>) -> bool {
    let is = |of: Option<char>, rule: fn(char) -> bool| of.is_some_and(rule);
    let of_script = is(before, is_of_joining_script) && is(after, is_of_joining_script);
    match joiner {
        EMOJI_STYLE => is(before, is_emoji),
        ZERO_WIDTH_JOINER => {
            let follows = is(before, |it| is_emoji(it) || it == EMOJI_STYLE);
            of_script || (follows && is(after, is_emoji))
        }
        _ => of_script,
    }
}

/// The characters of a text, each with whether a person cannot see it at its place.
fn places(text: &str) -> impl Iterator<Item = (char, bool)> {
    let mut before = None;
    let mut letters = text.chars().peekable();
    std::iter::from_fn(move || {
        let letter = letters.next()?;
        let after = letters.peek().copied();
        let hidden = is_hidden(letter) || (is_joiner(letter) && !joins(before, letter, after));
        before = Some(letter);
        Some((letter, hidden))
    })
}

/// Whether a text of at most `bytes_max` bytes shows every character on one line.
pub(crate) fn is_line(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && places(text).all(|(_, hidden)| !hidden)
}

/// Checks a name that is made here: visible, one line of at most `bytes_max` bytes, without outer
/// spaces.
pub(crate) fn check_name(text: &str, bytes_max: usize) -> Result<(), BadName> {
    if text.trim().is_empty() {
        return Err(BadName::Empty);
    }
    if text.len() > bytes_max {
        return Err(BadName::TooLong(bytes_max));
    }
    if let Some((letter, _)) = places(text).find(|(_, hidden)| *hidden) {
        return Err(BadName::Hidden(letter));
    }
    if text.trim() != text {
        return Err(BadName::OuterSpace);
    }
    Ok(())
}

/// A name that this node gives to an identity, checked, with the form that must be unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Petname {
    name: String,
    folded: String,
}

impl Petname {
    /// Checks a petname.
    pub fn new(text: &str) -> Result<Self, BadName> {
        check_name(text, NAME_BYTES_MAX)?;
        let folded = fold(text);
        if folded.starts_with(CLAIM_MARK) {
            return Err(BadName::Marked);
        }
        if folded.is_empty() {
            return Err(BadName::Empty);
        }
        if is_oid_prefix(&folded) {
            return Err(BadName::OidLike);
        }
        let name = text.to_owned();
        Ok(Self { name, folded })
    }

    /// The first free petname for an identity that calls itself `claim`: without hidden characters
    /// and outer spaces, then with a number from 2 on. `None`: nothing visible is left.
    pub(crate) fn from_claim<E>(
        claim: &str,
        mut is_taken: impl FnMut(&Self) -> Result<bool, E>,
    ) -> Result<Option<Self>, E> {
        let visible: String = places(claim)
            .filter_map(|(letter, hidden)| (!hidden).then_some(letter))
            .collect();
        let base = visible.trim().trim_start_matches(CLAIM_MARK).trim();
        for number in 1_u64.. {
            let suffix = match number {
                1 => String::new(),
                number => format!(" {number}"),
            };
            let end = base.floor_char_boundary(NAME_BYTES_MAX - suffix.len());
            let start = base.get(..end).unwrap_or_default().trim_end();
            match Self::new(&format!("{start}{suffix}")) {
                Ok(petname) if !is_taken(&petname)? => return Ok(Some(petname)),
                Ok(_) | Err(BadName::OidLike) if !start.is_empty() => {}
                _ => break,
            }
        }
        Ok(None)
    }

    /// The petname.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The form that is unique among the petnames of a node.
    pub fn folded(&self) -> &str {
        &self.folded
    }
}

/// The form in which names are compared: compatible characters, case, widths of spaces and joiners
/// make no difference.
pub(crate) fn fold(text: &str) -> String {
    let visible: String = text.chars().filter(|it| !is_joiner(*it)).collect();
    let nfkc = ComposingNormalizerBorrowed::new_nfkc();
    let lower = nfkc.normalize(&visible).to_lowercase();
    let folded = nfkc.normalize(&lower);
    folded.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a text is so many hexadecimal digits that it can name an identity.
pub(crate) fn is_oid_prefix(text: &str) -> bool {
    text.len() >= OID_DIGITS_MIN && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A text of another node on one line, with all hidden characters escaped.
pub(crate) fn escape(text: &str) -> String {
    let mut shown = String::new();
    for (letter, hidden) in places(text) {
        match letter {
            '\n' => shown.push_str("\\n"),
            letter if hidden => shown.extend(letter.escape_unicode()),
            letter => shown.push(letter),
        }
    }
    shown
}

/// A name that an identity gives itself, marked and delimited. A claim with spaces or digits is in
/// quotes, so that it cannot look like a name with the digits of another oid.
pub(crate) fn show_claim(claim: &str) -> String {
    let extends = |letter: char| letter.is_whitespace() || letter.is_numeric();
    let shown = match claim.contains(extends) {
        true => in_quotes(claim),
        false => delimited(claim),
    };
    format!("{CLAIM_MARK}{shown}")
}

/// A text of another node on one line, escaped. In quotes if it contains what separates names from
/// other text, so that it cannot look like more than one name.
pub(crate) fn delimited(text: &str) -> String {
    let separates = |letter| matches!(letter, ',' | ':' | ';' | '(' | ')' | '"' | '\\' | '~');
    // Would change the look of a mark before the text.
    let is_combining = |letter| {
        matches!(letter,
            '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
            | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
    };
    let words: Vec<_> = text.split_whitespace().collect();
    let is_plain =
        words.join(" ") == text && !text.contains(separates) && !text.starts_with(is_combining);
    match is_plain {
        true => escape(text),
        false => in_quotes(text),
    }
}

fn in_quotes(text: &str) -> String {
    let text = text.replace('\\', r"\\").replace('"', r#"\""#);
    format!("\"{}\"", escape(&text))
}

#[cfg(test)]
mod tests;
