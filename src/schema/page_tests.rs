//! docs/PROTOCOL.md 8 lists the built-in apps as their schema files define them.

use super::types::{AttrSchema, Kind, TypeSchema, Visibility};
use super::{KnownApps, Schemas};
use crate::domain::Mode;

const PAGE: &str = include_str!("../../docs/PROTOCOL.md");

fn schemas() -> Schemas {
    let known = KnownApps::read(None).unwrap();
    let apps: Vec<_> = known.slugs().map(str::to_owned).collect();
    Schemas::load(&apps, None).unwrap()
}

/// The cells of the rows of section 8, without headings, backquotes and what brackets enclose.
fn rows(columns: usize) -> Vec<Vec<String>> {
    let section = PAGE.split("\n## 8. ").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let table = section.lines().filter_map(|line| {
        let cells = line.strip_prefix('|')?.strip_suffix('|')?.split('|');
        let cells: Vec<_> = cells.map(|cell| cell.trim().replace('`', "")).collect();
        (cells.len() == columns && !cells[0].starts_with("---")).then_some(cells)
    });
    table.skip(1).collect()
}

fn kind(schemas: &Schemas, app: &str, attr: &AttrSchema) -> String {
    match attr.kind {
        Kind::Text => "text".into(),
        Kind::Integer => "integer".into(),
        Kind::Json => "json".into(),
        Kind::Bytes => "bytes".into(),
        Kind::Identity => "identity".into(),
        Kind::Parent { type_number } => {
            format!("parent ({})", schemas.type_(app, type_number).unwrap().name)
        }
    }
}

fn attr_rows(schemas: &Schemas, app: &str, it: &TypeSchema) -> Vec<[String; 7]> {
    let row = |attr: &AttrSchema| {
        let (min, max) = (attr.min, attr.max);
        let values = if min == max {
            min.to_string()
        } else {
            format!("{min}..{max}")
        };
        [
            it.name.clone(),
            it.number.to_string(),
            attr.name.clone(),
            attr.number.to_string(),
            kind(schemas, app, attr),
            values,
            attr.bytes_max.to_string(),
        ]
    };
    it.attrs.iter().map(row).collect()
}

#[test]
fn protocol_lists_every_attribute_of_the_built_in_apps() {
    let schemas = schemas();
    let mut expected = Vec::new();
    for app in schemas.apps() {
        let types = app.types.iter();
        let travelling = types.filter(|it| it.visibility != Visibility::Local);
        expected.extend(travelling.flat_map(|it| attr_rows(&schemas, &app.slug, it)));
    }
    let (mut listed, mut of) = (Vec::new(), [String::new(), String::new()]);
    for row in rows(7) {
        let [name, number, attr, rest @ ..] = <[String; 7]>::try_from(row).unwrap();
        if !name.is_empty() {
            of = [name, number];
        }
        let attr = attr.split(" (").next().unwrap().to_owned();
        let ([name, number], [attr_number, kind, values, bytes]) = (of.clone(), rest);
        listed.push([name, number, attr, attr_number, kind, values, bytes]);
    }
    expected.sort();
    listed.sort();
    assert_eq!(listed, expected);
}

#[test]
fn protocol_lists_every_domain_of_the_built_in_apps() {
    let schemas = schemas();
    let expected = schemas.sync_domains().map(|domain| {
        let types = domain.types.iter().map(|number| {
            let name = &schemas.type_(&domain.app, *number).unwrap().name;
            name.split('.').next_back().unwrap()
        });
        let mode = match domain.mode {
            Mode::AppendOnly => "append_only",
            Mode::AllowUpdate => "allow_update",
            Mode::NoUpdate => "no_update",
        };
        let types = types.collect::<Vec<_>>().join(", ");
        [domain.name.clone(), types, mode.to_owned()]
    });
    let mut expected: Vec<_> = expected.collect();
    let mut listed: Vec<_> = rows(5)
        .into_iter()
        .map(|row| [row[0].clone(), row[1].clone(), row[2].clone()])
        .collect();
    expected.sort();
    listed.sort();
    assert_eq!(listed, expected);
}
