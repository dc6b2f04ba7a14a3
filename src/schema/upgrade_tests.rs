//! One row for each difference.

use super::*;

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

#[test]
fn attribute_keeps_its_number_under_another_name_that_states_the_earlier_one() {
    let text = r#"name = "text", kind = "text", min = 1"#;
    let renamed = r#"name = "body", renamed_from = "text", kind = "text", min = 1"#;
    accepted(&[(text, renamed)]);
    let other = r#"name = "body", renamed_from = "title", kind = "text", min = 1"#;
    assert_eq!(verdict(&[(text, other)]).len(), 1);
    let gone = r#"name = "body", kind = "text", min = 1"#;
    assert_eq!(verdict(&[(text, gone)]).len(), 1);
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
