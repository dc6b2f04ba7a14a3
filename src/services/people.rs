//! Identities as people see and name them: by petname, by claim, by the digits of an oid.
//!
//! A name that an identity gives itself is a claim, which any other identity can make too. So a
//! claim is always shown marked and with digits of the oid, and names none (docs/DECISIONS.md 5).
//! Invariant: [`find`] returns an identity only for its petname or its oid. Tested in
//! `tests/core/people.rs`.

use std::collections::BTreeMap;
use std::fmt;

use keys::{Oid, PeerId};

use crate::object::Value;
use crate::schema::identities;
use crate::store::{IdentityRow, Rows, StoreError};
use crate::text::{CLAIM_MARK, escape, fold, is_oid_prefix, show_claim};

/// Number of digits of the oid in a label.
pub const LABEL_DIGITS: usize = 12;
/// Largest number of identities in a list.
const LISTED_MAX: usize = 8;
/// Number of identities among which the claimants of a name are looked for.
const EXAMINED_MAX: usize = 10_000;
/// Number of identities of one node, retired ones and its server included, among which those to
/// show are looked for.
const AT_HOME_EXAMINED_MAX: usize = 64;
/// Number of identities that are read at once.
const PAGE: usize = 256;

/// An identity as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The identity.
    pub oid: Oid,
    /// Its name in the address book of this node.
    pub petname: Option<String>,
    /// The name that it gives itself, as it came. [`Person::shown_claim`] is safe to show.
    claim: Option<String>,
}

impl Person {
    /// The name that the identity gives itself, on one line and with hidden characters escaped.
    pub fn shown_claim(&self) -> Option<String> {
        self.claim.as_deref().map(escape)
    }

    /// The petname; else the marked claim with the first digits of the oid; else these digits.
    pub fn label(&self) -> String {
        self.petname.clone().unwrap_or_else(|| self.claim_label())
    }

    /// The marked claim with the first digits of the oid, whatever the petname is.
    pub fn claim_label(&self) -> String {
        match self.claim.as_deref() {
            Some(claim) if !claim.is_empty() => format!("{} {}", show_claim(claim), self.digits()),
            _ => self.digits(),
        }
    }

    /// The first digits of the oid.
    pub fn digits(&self) -> String {
        let mut hex = self.oid.to_hex();
        hex.truncate(LABEL_DIGITS);
        hex
    }
}

/// A bounded list of identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    people: Vec<Person>,
    /// Whether there are more, or may be.
    more: bool,
}

impl Listed {
    /// The identities.
    pub fn people(&self) -> &[Person] {
        &self.people
    }

    /// Whether there are more, or may be.
    pub fn has_more(&self) -> bool {
        self.more
    }
}

impl fmt::Display for Listed {
    /// One line for each identity, with the command that names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for person in &self.people {
            write!(f, "\n  {}  ", person.claim_label())?;
            match &person.petname {
                Some(name) => write!(f, "is \"{name}\" here")?,
                None => write!(f, "postern contact add {} NAME", person.digits())?,
            }
        }
        if self.more {
            write!(f, "\n  and more: see `postern identity list`")?;
        }
        Ok(())
    }
}

/// Why a text names no identity.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The text is empty.
    #[error("an empty text names no identity: give a petname or an oid (`postern identity list`)")]
    Empty,
    /// Nothing has this name.
    #[error(
        "no identity {} is named \"{wanted}\": see `postern identity list`",
        if *.only_local { "of this node" } else { "known here" }
    )]
    Unknown {
        /// The text, escaped.
        wanted: String,
        /// Whether only identities of this node were looked for.
        only_local: bool,
    },
    /// The text is only what some identities call themselves.
    #[error(
        "\"{wanted}\" is no petname here, and any identity can claim a name: use the oid, or name \
         the one that you mean{claimants}"
    )]
    OnlyClaimed {
        /// The text, escaped.
        wanted: String,
        /// The identities that claim the name.
        claimants: Listed,
    },
    /// Several oids begin with the digits.
    #[error("several identities have oids that begin with {digits}: give more digits{found}")]
    Ambiguous {
        /// The digits.
        digits: String,
        /// The identities.
        found: Listed,
    },
    /// The identity lives elsewhere.
    #[error("{} does not live on this node: see `postern identity list`", .0.label())]
    NotHere(Person),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The name that an identity gives itself, as it came; `None` if it has none or is not known.
pub fn claim_of(rows: &Rows<'_>, identity: &Oid) -> Result<Option<String>, StoreError> {
    let app = rows
        .apps()
        .get(identities::APP)
        .ok_or(StoreError::Inconsistent("an app without tables"))?;
    let Some(parent) = rows.parent(app, identity)? else {
        return Ok(None);
    };
    let attrs = rows.attrs(app, parent.id)?;
    let name = attrs
        .into_iter()
        .find(|(number, _)| *number == identities::NAME);
    Ok(name.and_then(|(_, value)| match value {
        Value::Text(text) => Some(text),
        _ => None,
    }))
}

/// An identity as people see it. The identity need not be known.
pub fn person(rows: &Rows<'_>, identity: &Oid) -> Result<Person, StoreError> {
    Ok(Person {
        oid: *identity,
        petname: rows.contact(identity)?.map(|row| row.name),
        claim: claim_of(rows, identity)?,
    })
}

/// The row of a known identity. A server is none.
pub fn known(rows: &Rows<'_>, identity: &Oid) -> Result<Option<IdentityRow>, StoreError> {
    let app = rows
        .apps()
        .get(identities::APP)
        .ok_or(StoreError::Inconsistent("an app without tables"))?;
    match rows.parent(app, identity)? {
        Some(parent) if parent.type_number == identities::IDENTITY => rows.identity(identity),
        _ => Ok(None),
    }
}

/// The identities whose home is a node and that are not retired, the first 8 by oid.
pub fn at_home(rows: &Rows<'_>, home: &PeerId) -> Result<Listed, StoreError> {
    let first = rows.first_identities_at(home, AT_HOME_EXAMINED_MAX)?;
    let mut listed = Listed {
        people: Vec::new(),
        more: first.len() == AT_HOME_EXAMINED_MAX,
    };
    for row in first {
        if row.retired || known(rows, &row.oid)?.is_none() {
            continue;
        }
        if listed.people.len() == LISTED_MAX {
            listed.more = true;
            break;
        }
        listed.people.push(person(rows, &row.oid)?);
    }
    Ok(listed)
}

/// The identity that a person names: by its petname, its oid, or a unique prefix of the oid of at
/// least 8 digits. An identity with this oid need not be known. `only_local`: its home is
/// `this_node`.
pub fn find(
    rows: &Rows<'_>,
    this_node: &PeerId,
    wanted: &str,
    only_local: bool,
) -> Result<Person, FindError> {
    if wanted.is_empty() {
        return Err(FindError::Empty);
    }
    let unknown = || FindError::Unknown {
        wanted: escape(wanted),
        only_local,
    };
    let oid = match (rows.contact_named(&fold(wanted))?, digits_in(wanted)) {
        (Some(row), _) => row.identity,
        (None, Some(digits)) => by_digits(rows, digits)?.ok_or_else(unknown)?,
        (None, None) => {
            // A claim is shown with this mark, and no petname begins with it.
            let claim = wanted.strip_prefix(CLAIM_MARK).unwrap_or(wanted);
            let claimants = claimants(rows, this_node, claim, only_local)?;
            if claimants.people.is_empty() {
                return Err(unknown());
            }
            return Err(FindError::OnlyClaimed {
                wanted: escape(wanted),
                claimants,
            });
        }
    };
    let person = person(rows, &oid)?;
    if only_local && known(rows, &oid)?.is_none_or(|row| row.home != *this_node) {
        return Err(FindError::NotHere(person));
    }
    Ok(person)
}

/// The digits of an oid in a text: all of it, or the end of a label with a claim.
fn digits_in(wanted: &str) -> Option<&str> {
    let label = wanted.strip_prefix(CLAIM_MARK);
    let digits = label.map_or(Some(wanted), |label| Some(label.rsplit_once(' ')?.1));
    digits.filter(|digits| is_oid_prefix(digits))
}

/// The identity whose oid is these digits, or the only one whose oid begins with them.
fn by_digits(rows: &Rows<'_>, digits: &str) -> Result<Option<Oid>, FindError> {
    let digits = digits.to_ascii_lowercase();
    let filled = |with: &str| {
        let missing = (2 * Oid::LEN).saturating_sub(digits.len());
        format!("{digits}{}", with.repeat(missing)).parse::<Oid>()
    };
    let (Ok(first), Ok(last)) = (filled("0"), filled("f")) else {
        // Too many digits.
        return Ok(None);
    };
    if first == last {
        return Ok(Some(first));
    }
    let found = rows.identities_between(&first, &last, LISTED_MAX + 1)?;
    match found.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(*only)),
        several => {
            let more = several.len() > LISTED_MAX;
            let people = several.iter().take(LISTED_MAX);
            let people = people
                .map(|oid| person(rows, oid))
                .collect::<Result<_, _>>()?;
            let found = Listed { people, more };
            Err(FindError::Ambiguous { digits, found })
        }
    }
}

/// The identities that claim a name. The first one of each home comes before the second ones, so
/// that one node cannot fill the list.
fn claimants(
    rows: &Rows<'_>,
    this_node: &PeerId,
    wanted: &str,
    only_local: bool,
) -> Result<Listed, StoreError> {
    let wanted = fold(wanted);
    let (mut found, mut of_home) = (Vec::new(), BTreeMap::<PeerId, usize>::new());
    let (mut after, mut examined) = (None, 0);
    let more = loop {
        let page = rows.identities(after, PAGE)?;
        let Some(last) = page.last() else {
            break false;
        };
        (after, examined) = (Some(last.oid), examined + page.len());
        for row in page {
            let is_wanted = !only_local || row.home == *this_node;
            let claim = match is_wanted {
                true => claim_of(rows, &row.oid)?,
                false => None,
            };
            if claim.is_some_and(|claim| fold(&claim) == wanted) {
                let number = of_home.entry(row.home).or_default();
                found.push((*number, row.oid));
                *number += 1;
            }
        }
        if examined >= EXAMINED_MAX {
            break true;
        }
    };
    found.sort_unstable();
    let people = found.iter().take(LISTED_MAX);
    Ok(Listed {
        people: people
            .map(|(_, oid)| person(rows, oid))
            .collect::<Result<_, _>>()?,
        more: more || found.len() > LISTED_MAX,
    })
}
