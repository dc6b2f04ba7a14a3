//! One row for each difference, and the proof that a later file accepts what an earlier one did.

use std::collections::BTreeSet;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

use super::super::types::{Kind, Visibility};
use super::*;
use crate::domain::Mode;
use crate::object::{Attrs, Value};

const CLUB: &str = r#"slug = "club"
version = 2

[[type]]
number = 1
name = "club.room"
visibility = { participants_here = "member" }
attr = [
  { number = 1, name = "member", kind = "identity", min = 0, max = 8 },
  { number = 2, name = "host", kind = "identity", min = 0, max = 8 },
]

[[type]]
number = 2
name = "club.note"
visibility = { participants = "room" }
attr = [
  { number = 1, name = "room", kind = { parent = "club.room" } },
  { number = 2, name = "text", kind = "text", min = 1, max = 3, bytes_max = 100 },
]

[[type]]
number = 3
name = "club.draft"
visibility = "local"
attr = [{ number = 1, name = "text", kind = "text", bytes_max = 10 }]

[[domain]]
name = "club"
parent_types = ["club.room", "club.note"]
mode = "allow_update"

[[domain]]
name = "club.rooms"
parent_types = ["club.room"]
mode = "allow_update"
"#;

const EVENT: &str = r#"
[[type]]
number = 4
name = "club.event"
visibility = "public"
attr = [{ number = 1, name = "text", kind = "text", bytes_max = 10 }]
"#;

fn app(text: &str) -> AppSchema {
    parse(Path::new("club.toml"), text).unwrap_or_else(|it| panic!("{it}\n{text}"))
}

/// The lines that refuse `CLUB` with these pieces replaced, as a later version.
fn verdict(edits: &[(&str, &str)]) -> Vec<String> {
    let mut text = CLUB.replacen("version = 2", "version = 3", 1);
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    lines_of(&app(CLUB), &app(&text))
}

fn lines_of(stored: &AppSchema, file: &AppSchema) -> Vec<String> {
    let refused = compare(stored, file).err();
    let lines = refused.iter().flat_map(SchemaRefused::refusals);
    lines.map(ToString::to_string).collect()
}

fn accepted(edits: &[(&str, &str)]) {
    assert_eq!(verdict(edits), [""; 0], "{edits:?}");
}

fn refused(edits: &[(&str, &str)], expected: &str) {
    assert_eq!(verdict(edits), [expected], "{edits:?}");
}

#[test]
fn each_difference_has_its_verdict() {
    // Accepted.
    accepted(&[]);
    accepted(&[("[[type]]", "# a comment\n[[type]]")]);
    accepted(&[(
        "[\"club.room\", \"club.note\"]",
        "[\"club.note\", \"club.room\"]",
    )]);
    let last = "[[domain]]\nname = \"club.rooms\"";
    let of_event = |domain: &str| format!("{EVENT}\n{domain}");
    accepted(&[(
        last,
        &of_event(&format!(
            "[[domain]]\nname = \"club.events\"\nparent_types = [\"club.event\"]\n\
             mode = \"no_update\"\n{last}"
        )),
    )]);
    accepted(&[
        (last, &of_event(last)),
        ("\"club.note\"]", "\"club.note\", \"club.event\"]"),
    ]);
    accepted(&[(last, &of_event(last).replace("\"public\"", "\"local\""))]);
    accepted(&[(
        last,
        &format!(
            "[[domain]]\nname = \"club.notes\"\nparent_types = [\"club.note\"]\n\
             mode = \"allow_update\"\n{last}"
        ),
    )]);
    let new_attr = |min: u8| {
        format!(
            "kind = \"identity\", min = 0, max = 8 }},\n  \
             {{ number = 5, name = \"motto\", kind = \"text\", min = {min}, bytes_max = 9 }},"
        )
    };
    let first_attr = "kind = \"identity\", min = 0, max = 8 },";
    accepted(&[(first_attr, &new_attr(0))]);
    accepted(&[("min = 1, max = 3", "min = 0, max = 3")]);
    accepted(&[("min = 1, max = 3", "min = 1, max = 4")]);
    accepted(&[("bytes_max = 100", "bytes_max = 101")]);
    // Refused: types.
    refused(
        &[("number = 3\nname", "number = 5\nname")],
        "type number 3 was `club.draft`; a number is never removed or reused: restore it, and take \
         a new number for anything else",
    );
    refused(
        &[("\"club.draft\"", "\"club.sketch\"")],
        "type number 3 was `club.draft`; a number is never removed or reused: restore it, and take \
         a new number for anything else",
    );
    let visibility =
        "the visibility differs, and who reads stored objects cannot change: add a type";
    refused(
        &[("{ participants = \"room\" }", "\"public\"")],
        &format!("`club.note`: {visibility}"),
    );
    refused(
        &[(
            "{ participants_here = \"member\" }",
            "{ participants_here = \"host\" }",
        )],
        &format!("`club.room`: {visibility}"),
    );
    // Refused: attributes.
    refused(
        &[(first_attr, &new_attr(1))],
        "`club.room.motto`: stored objects lack it: set min = 0",
    );
    let reused = "attribute number 2 was `club.room.host`; a number is never removed or reused: \
                  restore it, and take a new number for anything else";
    refused(
        &[("number = 2, name = \"host\"", "number = 3, name = \"host\"")],
        reused,
    );
    refused(&[("name = \"host\"", "name = \"guest\"")], reused);
    refused(
        &[("kind = \"text\", min = 1", "kind = \"json\", min = 1")],
        "`club.note.text`: the kind differs, and stored values have another kind: add an attribute",
    );
    let narrower =
        |key: &str| format!("`club.note.text`: stored values may not fit: restore {key}");
    refused(
        &[("min = 1, max = 3", "min = 2, max = 3")],
        &narrower("min = 1"),
    );
    refused(
        &[("min = 1, max = 3", "min = 1, max = 2")],
        &narrower("max = 3"),
    );
    refused(
        &[("bytes_max = 100", "bytes_max = 99")],
        &narrower("bytes_max = 100"),
    );
    // Refused: domains.
    refused(
        &[("name = \"club.rooms\"", "name = \"club.halls\"")],
        "`club.rooms`: the domain is gone, and peers have cursors in it: restore it",
    );
    let mode = "the mode differs, and peers would judge stored objects otherwise: restore it";
    assert_eq!(
        verdict(&[
            ("mode = \"allow_update\"", "mode = \"no_update\""),
            ("mode = \"allow_update\"", "mode = \"no_update\"")
        ]),
        [format!("`club`: {mode}"), format!("`club.rooms`: {mode}")]
    );
    refused(
        &[(
            "parent_types = [\"club.room\"]",
            "parent_types = [\"club.room\", \"club.note\"]",
        )],
        "`club.rooms`: the domain contains `club.note` now, and peers have passed its objects: add \
         a domain",
    );
    refused(
        &[("[\"club.room\", \"club.note\"]", "[\"club.note\"]")],
        "`club`: peers would no longer receive `club.room`: restore it in the domain",
    );
    // Versions.
    refused(
        &[("version = 3", "version = 1")],
        "version 1 is lower than 2, with which this database was used: install the later file",
    );
    refused(
        &[
            ("version = 3", "version = 2"),
            ("bytes_max = 100", "bytes_max = 101"),
        ],
        "version 2 was used with another text: raise `version` to 3",
    );
    accepted(&[("version = 3", "version = 2 # a comment")]);
    // A domain keeps its types in whatever order the file names the domains.
    let (head, rooms) = CLUB.split_at(CLUB.find(last).unwrap());
    let at = head.find("[[domain]]").unwrap();
    let exchanged = format!("{}{rooms}\n{}", &head[..at], &head[at..]);
    assert_eq!(lines_of(&app(CLUB), &app(&exchanged)), [""; 0]);
}

#[test]
fn all_refusals_are_reported_with_what_to_do() {
    let text = CLUB.replacen("max = 8", "max = 7", 1);
    let text = text.replacen("name = \"club.rooms\"", "name = \"club.halls\"", 1);
    let refused = compare(&app(CLUB), &app(&text)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the schema of the app `club` cannot replace the stored one:
  `club.room.member`: stored values may not fit: restore max = 8
  `club.rooms`: the domain is gone, and peers have cursors in it: restore it
  version 2 was used with another text: raise `version` to 3"
    );
}

/// A change that a later file may make, or that it must not make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edit {
    NewType,
    NewTypeInDomain,
    NewAttr,
    Optional,
    MoreValues,
    LongerValues,
    NewDomain,
    ExchangedDomains,
}

const EDITS: [Edit; 8] = [
    Edit::NewType,
    Edit::NewTypeInDomain,
    Edit::NewAttr,
    Edit::Optional,
    Edit::MoreValues,
    Edit::LongerValues,
    Edit::NewDomain,
    Edit::ExchangedDomains,
];

struct Random(ChaCha20Rng);

impl Random {
    /// A number below `bound`, which is small.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.0.next_u32()).unwrap() % bound
    }

    fn number(&mut self, bound: u32) -> u32 {
        self.0.next_u32() % bound
    }

    fn attr(&mut self, number: u16) -> AttrSchema {
        let (kind, bytes_max) = match self.below(4) {
            0 => (Kind::Text, 1 + self.number(20)),
            1 => (Kind::Bytes, 1 + self.number(20)),
            2 => (Kind::Integer, 8),
            _ => (Kind::Identity, 16),
        };
        let max = 1 + self.number(4);
        AttrSchema {
            number,
            name: format!("a{number}"),
            kind,
            min: self.number(max + 1),
            max,
            bytes_max,
        }
    }

    fn type_(&mut self, number: u16) -> TypeSchema {
        let attrs = (1..=1 + u16::try_from(self.below(3)).unwrap()).map(|it| self.attr(it));
        TypeSchema {
            number,
            name: format!("club.t{number}"),
            attrs: attrs.collect(),
            visibility: Visibility::Public,
        }
    }

    fn app(&mut self) -> AppSchema {
        let count = 1 + u16::try_from(self.below(3)).unwrap();
        let types: Vec<_> = (1..=count).map(|it| self.type_(it)).collect();
        let domain = |name: &str, types| SyncDomain {
            name: name.into(),
            app: "club".into(),
            types,
            mode: Mode::AllowUpdate,
        };
        AppSchema {
            slug: "club".into(),
            version: 1,
            domains: vec![
                domain("club", (1..=count).collect()),
                domain("club.first", vec![1]),
            ],
            types,
            text: "".into(),
        }
    }

    /// Makes an edit of a schema that is accepted.
    fn edit(&mut self, app: &mut AppSchema, edit: Edit) {
        let at = self.below(app.types.len());
        let next = u16::try_from(app.types.len()).unwrap() + 1;
        let place = self.below(app.types[at].attrs.len());
        match edit {
            Edit::NewType => {
                let it = self.type_(next);
                app.types.push(it);
            }
            Edit::NewTypeInDomain => {
                let it = self.type_(next);
                app.types.push(it);
                let domains = app.domains.len();
                app.domains[self.below(domains)].types.push(next);
            }
            Edit::NewAttr => {
                let number = u16::try_from(app.types[at].attrs.len()).unwrap() + 1;
                let it = self.attr(number);
                app.types[at].attrs.push(AttrSchema { min: 0, ..it });
            }
            Edit::Optional => app.types[at].attrs[place].min = 0,
            Edit::MoreValues => app.types[at].attrs[place].max += 1,
            Edit::LongerValues => app.types[at].attrs[place].bytes_max += 1,
            Edit::NewDomain => app.domains.push(SyncDomain {
                name: format!("club.d{}", app.domains.len()),
                types: vec![app.types[at].number],
                ..app.domains[0].clone()
            }),
            Edit::ExchangedDomains => app.domains.reverse(),
        }
    }

    fn value(&mut self, attr: &AttrSchema) -> Value {
        let length = (attr.bytes_max + self.number(3)).saturating_sub(1);
        let bytes = vec![b'x'; usize::try_from(length).unwrap()];
        match attr.kind {
            Kind::Text => Value::Text(String::from_utf8(bytes).unwrap()),
            Kind::Bytes => Value::Bytes(bytes),
            Kind::Integer => Value::Integer(1),
            _ => {
                let mut oid = [0; 16];
                self.0.fill_bytes(&mut oid);
                Value::Bytes(oid.to_vec())
            }
        }
    }

    /// Values at and beside the bounds of a type.
    fn object(&mut self, of: &TypeSchema) -> Attrs {
        let mut attrs = Attrs::new();
        for attr in &of.attrs {
            let around = [attr.min.saturating_sub(1), attr.min, attr.max, attr.max + 1];
            let count = around[self.below(4)];
            let values: Vec<_> = (0..count).map(|_| self.value(attr)).collect();
            if !values.is_empty() {
                attrs.insert(attr.number, values);
            }
        }
        attrs
    }
}

#[test]
fn additive_file_accepts_what_the_earlier_one_accepts() {
    let (mut made, mut objects) = (BTreeSet::new(), 0);
    for seed in 0..400 {
        let mut random = Random(ChaCha20Rng::seed_from_u64(seed));
        let old = random.app();
        let mut new = AppSchema {
            version: 2,
            ..old.clone()
        };
        for _ in 0..random.below(4) {
            let edit = EDITS[random.below(EDITS.len())];
            random.edit(&mut new, edit);
            made.insert(edit);
        }
        compare(&old, &new).unwrap_or_else(|it| panic!("seed {seed}: {it}"));
        // The way back is refused unless nothing but the order differs.
        let back = AppSchema {
            version: 3,
            ..old.clone()
        };
        let is_same = is_same(&old, &new);
        assert_eq!(compare(&new, &back).is_ok(), is_same, "seed {seed}");
        for _ in 0..20 {
            let it = &old.types[random.below(old.types.len())];
            let object = random.object(it);
            if it.check(&object).is_err() {
                continue;
            }
            objects += 1;
            let later = new.type_(it.number).unwrap();
            later
                .check(&object)
                .unwrap_or_else(|it| panic!("seed {seed}: {it}"));
            let carried = |app: &AppSchema| {
                let of_old = |name: &&SyncDomain| old.domains.iter().any(|it| it.name == name.name);
                let names = app.domains_of(it.number).filter(of_old);
                let text = |it: &SyncDomain| format!("{} {:?}", it.name, it.mode);
                names.map(text).collect::<BTreeSet<_>>()
            };
            assert_eq!(carried(&old), carried(&new), "seed {seed}");
        }
    }
    assert_eq!(made.len(), EDITS.len());
    assert!(objects > 500, "{objects}");
}
