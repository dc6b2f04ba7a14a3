//! The proof that a later file accepts what an earlier one did: random schemas with random edits.

use std::collections::BTreeSet;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

use super::super::types::{Kind, Visibility};
use super::*;
use crate::domain::Mode;
use crate::object::{Attrs, Value};

/// A change that a later file may make.
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

/// A change that a later file must not make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Refused {
    TypeGone,
    TypeRenamed,
    Visibility,
    AttrGone,
    AttrRenamed,
    NewAttrRequired,
    Kind,
    MoreNeeded,
    FewerValues,
    ShorterValues,
    DomainGone,
    Mode,
    ExistingTypeInDomain,
    TypeOutOfDomain,
}

const REFUSED: [Refused; 14] = [
    Refused::TypeGone,
    Refused::TypeRenamed,
    Refused::Visibility,
    Refused::AttrGone,
    Refused::AttrRenamed,
    Refused::NewAttrRequired,
    Refused::Kind,
    Refused::MoreNeeded,
    Refused::FewerValues,
    Refused::ShorterValues,
    Refused::DomainGone,
    Refused::Mode,
    Refused::ExistingTypeInDomain,
    Refused::TypeOutOfDomain,
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
            renamed_from: None,
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

    /// Makes an edit that is refused, of a part that `old` has. Returns `false` if `old` has none
    /// that fits.
    fn break_rule(&mut self, old: &AppSchema, new: &mut AppSchema, edit: Refused) -> bool {
        let at = self.below(old.types.len());
        let place = self.below(old.types[at].attrs.len());
        let number = old.types[at].number;
        let attr = &old.types[at].attrs[place];
        // New entries follow the old ones, except for domains.
        let type_ = &mut new.types[at];
        match edit {
            Refused::TypeGone => drop(new.types.remove(at)),
            Refused::TypeRenamed => type_.name += "x",
            Refused::Visibility => type_.visibility = Visibility::Local,
            Refused::AttrGone => drop(type_.attrs.remove(place)),
            Refused::AttrRenamed => type_.attrs[place].name += "x",
            Refused::NewAttrRequired => {
                let number = u16::try_from(type_.attrs.len()).unwrap() + 1;
                let it = self.attr(number);
                type_.attrs.push(AttrSchema { min: 1, ..it });
            }
            Refused::Kind => type_.attrs[place].kind = Kind::Json,
            Refused::MoreNeeded => type_.attrs[place].min = attr.min + 1,
            Refused::FewerValues => type_.attrs[place].max = attr.max - 1,
            Refused::ShorterValues => type_.attrs[place].bytes_max = attr.bytes_max - 1,
            Refused::DomainGone => {
                let name = &old.domains[self.below(old.domains.len())].name;
                new.domains.retain(|it| it.name != *name);
            }
            Refused::Mode => {
                let of_old =
                    |it: &&mut SyncDomain| old.domains.iter().any(|old| old.name == it.name);
                let first = new.domains.iter_mut().find(of_old);
                first.unwrap().mode = Mode::NoUpdate;
            }
            Refused::ExistingTypeInDomain => {
                let first = new.domains.iter_mut().find(|it| it.name == "club.first");
                if number == 1 {
                    return false;
                }
                let types = &mut first.unwrap().types;
                types.push(number);
                types.sort_unstable();
            }
            Refused::TypeOutOfDomain => {
                let all = new.domains.iter_mut().find(|it| it.name == "club");
                all.unwrap().types.retain(|it| *it != number);
            }
        }
        true
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
    let (mut made, mut refusals, mut objects) = (BTreeSet::new(), BTreeSet::new(), 0);
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
        for edit in REFUSED {
            let mut broken = new.clone();
            if random.break_rule(&old, &mut broken, edit) {
                let refused = compare(&old, &broken);
                assert!(refused.is_err(), "seed {seed}: {edit:?}");
                refusals.insert(edit);
            }
        }
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
    assert_eq!((made.len(), refusals.len()), (EDITS.len(), REFUSED.len()));
    assert!(objects > 500, "{objects}");
}
