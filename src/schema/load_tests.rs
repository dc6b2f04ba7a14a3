//! The built-in apps, an operator's own apps, and one invalid file for each rule.

use super::*;
use crate::domain::Mode;
use crate::schema::{Kind, TypeSchema, Visibility};

fn all() -> Vec<String> {
    KnownApps::read(None).unwrap().0.into_keys().collect()
}

#[test]
fn built_in_apps_match_the_story() {
    let schemas = Schemas::load(&all(), None).unwrap();
    let domains: Vec<_> = schemas
        .sync_domains()
        .map(|it| (it.name.as_str(), it.mode))
        .collect();
    assert_eq!(
        domains,
        [
            ("contacts", Mode::AllowUpdate),
            ("identities", Mode::AllowUpdate),
            ("market.public_offers", Mode::AllowUpdate),
            ("messages", Mode::AppendOnly),
            ("rides.offers", Mode::AllowUpdate),
        ]
    );
    let (app, message) = schemas.type_named("messages.message").unwrap();
    assert_eq!((app.slug.as_str(), message.number), ("messages", 2));
    let conversation = message.attr_named("conversation_parent_oid").unwrap();
    assert_eq!(conversation.kind, Kind::Parent { type_number: 1 });
    assert_eq!(
        message.attr_full_name(conversation),
        "messages.message.conversation_parent_oid"
    );
    assert_eq!(message.visibility, Visibility::Participants { through: 1 });
    assert_eq!(
        schemas.type_("messages", 1).unwrap().visibility,
        Visibility::ParticipantsHere { attr: 1 }
    );
    assert!(schemas.domain("messages").unwrap().has_type(2));
    assert_eq!(app.domains_of(2).count(), 1);
    let identities = schemas.app("identities").unwrap();
    assert_eq!(identities.domains_of(2).count(), 0, "servers do not travel");
    assert_eq!(schemas.type_("messages", 3), None);
    for app in schemas.apps() {
        for (number, name) in [(65_535, "rights"), (65_534, "leave"), (65_533, "accept")] {
            let core = schemas.type_(&app.slug, number).unwrap();
            assert_eq!(
                (core.name.as_str(), core.visibility),
                (name, Visibility::Within)
            );
            assert_eq!(app.domains_of(number).count(), 0);
        }
        assert_eq!(schemas.type_(&app.slug, 65_532), None);
    }
}

/// Numbers travel and are signed. Add lines to this test, but do not change one.
#[test]
fn numbers_of_the_built_in_apps_do_not_change() {
    let schemas = Schemas::load(&all(), None).unwrap();
    let numbers: Vec<String> = schemas
        .apps()
        .flat_map(|app| &app.types)
        .map(|it| {
            let attrs: Vec<_> = it
                .attrs
                .iter()
                .map(|attr| format!("{} {}", attr.number, attr.name))
                .collect();
            format!("{} {}: {}", it.number, it.name, attrs.join(", "))
        })
        .collect();
    assert_eq!(
        numbers,
        [
            "1 contacts.card: 1 subject, 2 name, 3 shared_note",
            "1 identities.identity: 1 public_key, 2 chain, 3 home, 4 name, 5 listed, 6 retired",
            "2 identities.server: 1 public_key, 2 chain",
            "1 market.offer: 1 title, 2 description, 3 price, 4 region",
            "1 messages.conversation: 1 participant_identity_oids, 2 title",
            "2 messages.message: 1 conversation_parent_oid, 2 body, 3 sent_at",
            "1 rides.offer: 1 origin, 2 destination, 3 departs_at, 4 seats, 5 region, 6 note",
        ]
    );
}

/// A changed digest needs a higher version, because peers compare both.
#[test]
fn built_in_schemas_with_one_version_have_one_digest() {
    let schemas = Schemas::load(&all(), None).unwrap();
    let claims = schemas.claims();
    let claims = claims.iter();
    let claims: Vec<_> = claims
        .map(|it| format!("{} {} {}", it.slug, it.version, it.digest.to_hex()))
        .collect();
    assert_eq!(
        claims,
        [
            "contacts 2 29701bcd68afb428d5f5f8c1c15a45f9",
            "identities 1 f239ebdc4f64c0f0aaf9289a4cb3d556",
            "market 1 cda11205c3a5b7a4a14e1571de35a6a3",
            "messages 1 e774e5028b07118b0a42e4392bc10292",
            "rides 1 ad8c5a8a1ed848e9604282b0c0c53b2f",
        ]
    );
}

#[test]
fn constants_match_the_schema_of_identities() {
    let schemas = Schemas::load(&all(), None).unwrap();
    assert!(schemas.domain(identities::DOMAIN).is_some());
    let (app, identity) = schemas.type_named("identities.identity").unwrap();
    let (_, server) = schemas.type_named("identities.server").unwrap();
    assert_eq!(app.slug, identities::APP);
    assert_eq!(
        (identity.number, server.number),
        (identities::IDENTITY, identities::SERVER)
    );
    let numbers = |schema: &TypeSchema| {
        let attrs = schema.attrs.iter();
        attrs
            .map(|attr| (attr.name.clone(), attr.number))
            .collect::<Vec<_>>()
    };
    let expected = [
        ("public_key", identities::PUBLIC_KEY),
        ("chain", identities::CHAIN),
        ("home", identities::HOME),
        ("name", identities::NAME),
        ("listed", identities::LISTED),
        ("retired", identities::RETIRED),
    ]
    .map(|(name, number)| (name.to_owned(), number));
    assert_eq!(numbers(identity), expected);
    assert_eq!(numbers(server), expected[..2]);
}

#[test]
fn loads_the_enabled_apps() {
    let load = |slugs: &[&str]| {
        Schemas::load(
            &slugs.iter().map(|it| it.to_string()).collect::<Vec<_>>(),
            None,
        )
    };
    let some = load(&["messages", "identities"]).unwrap();
    assert_eq!(
        some.apps().map(|app| app.slug.as_str()).collect::<Vec<_>>(),
        ["identities", "messages"]
    );
    assert_eq!(some.domain("rides.offers"), None);
    assert!(matches!(
        load(&["messages"]),
        Err(SchemaError::NoIdentities)
    ));
    let error = load(&["identities", "mesages"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no app `mesages`; did you mean `messages`?"
    );
    let error = load(&["identities", "zoo"]).unwrap_err();
    assert_eq!(error.to_string(), "there is no app `zoo`");
}

const GARDEN: &str = r#"slug = "garden"
version = 1

[[type]]
number = 1
name = "garden.bed"
visibility = { participants_here = "keepers" }
[[type.attr]]
number = 1
name = "keepers"
kind = "identity"
max = 8

[[type]]
number = 2
name = "garden.plant"
visibility = { participants = "bed" }
[[type.attr]]
number = 1
name = "bed"
kind = { parent = "garden.bed" }
[[type.attr]]
number = 2
name = "name"
kind = "text"
bytes_max = 100

[[domain]]
name = "garden.beds"
parent_types = ["garden.plant", "garden.bed"]
mode = "no_update"
"#;

/// Loads a folder with these files; the app `garden` is turned on.
fn load(files: &[(&str, &str)]) -> Result<Schemas, String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let enabled = ["identities".to_owned(), "garden".to_owned()];
    let folder = format!("{}/", dir.path().display());
    Schemas::load(&enabled, Some(dir.path()))
        .map_err(|error| error.to_string().replace(&folder, ""))
}

#[test]
fn loads_an_own_app_from_the_folder() {
    let schemas = load(&[("garden.toml", GARDEN), ("notes.txt", "not a schema")]).unwrap();
    let domain = schemas.domain("garden.beds").unwrap();
    assert_eq!(
        (domain.types.as_slice(), domain.mode),
        (&[1, 2][..], Mode::NoUpdate)
    );
    let keepers = &schemas.type_("garden", 1).unwrap().attrs[0];
    assert_eq!((keepers.min, keepers.max, keepers.bytes_max), (1, 8, 16));
}

/// Replaces one piece of the valid file and expects exactly these problems.
fn wrong(piece: &str, instead: &str, expected: &str) {
    assert!(GARDEN.contains(piece), "{piece}");
    let text = GARDEN.replacen(piece, instead, 1);
    assert_eq!(load(&[("g.toml", &text)]).unwrap_err(), expected);
}

#[test]
fn reports_each_problem_with_its_line_and_the_nearest_valid_word() {
    wrong(
        "max = 8",
        "maxx = 8",
        "g.toml:12: type.attr.maxx: unknown key; did you mean `max`?",
    );
    wrong(
        "\"no_update\"",
        "\"no_updates\"",
        "g.toml:31: domain.mode: `no_updates` is not a valid value; did you mean `no_update`?",
    );
    wrong("bytes_max = 100", "", "g.toml:24: `name` needs bytes_max");
    wrong(
        "mode = \"no_update\"",
        "mode = \"no_update\"\nwriters = \"participants\"",
        "g.toml:32: domain.writers: this key was removed; delete it, \
         because the visibility of a type decides who may write",
    );
    wrong(
        "bytes_max = 100",
        "bytes_max = 0",
        "g.toml:26: bytes_max of `name` must be 1 to 1048576",
    );
    wrong(
        "max = 8",
        "bytes_max = 8",
        "g.toml:12: values of `keepers` always have 16 bytes; delete bytes_max",
    );
    wrong(
        "max = 8",
        "max = 0",
        "g.toml:10: `keepers` has min 1 and max 0; \
         0 <= min <= max and 1 <= max <= 256 must hold",
    );
    wrong(
        "max = 8",
        "max = 257",
        "g.toml:10: `keepers` has min 1 and max 257; \
         0 <= min <= max and 1 <= max <= 256 must hold",
    );
    wrong(
        "{ parent = \"garden.bed\" }",
        "{ parent = \"garden.bad\" }",
        "g.toml:21: there is no type `garden.bad`; did you mean `garden.bed`?",
    );
    wrong(
        "kind = { parent = \"garden.bed\" }",
        "",
        "g.toml:18: type.attr: the key `kind` is missing",
    );
}

#[test]
fn requires_unique_and_valid_numbers_and_names() {
    wrong(
        "number = 2\nname = \"garden.plant\"",
        "number = 1\nname = \"garden.plant\"",
        "g.toml:15: the type number `1` is used twice",
    );
    wrong(
        "number = 2\nname = \"name\"",
        "number = 1\nname = \"name\"",
        "g.toml:23: the attribute number `1` is used twice",
    );
    wrong(
        "number = 2\nname = \"name\"",
        "number = 2\nname = \"bed\"",
        "g.toml:24: the attribute name `bed` is used twice",
    );
    wrong(
        "number = 2\nname = \"name\"",
        "number = 0\nname = \"name\"",
        "g.toml:23: numbers must be at least 1",
    );
    wrong(
        "[[type]]\nnumber = 1",
        "[[type]]\nnumber = 65280",
        "g.toml:5: type numbers from 65280 on belong to every app",
    );
    wrong(
        "version = 1",
        "version = 0",
        "g.toml:2: the version must be 1 to 4294967294",
    );
    wrong(
        "number = 2\nname = \"name\"",
        "number = 2\nname = \"Name\"",
        "g.toml:24: `Name` is not a valid name: a lower-case letter, then lower-case letters, \
         digits and underscores, at most 32 characters",
    );
    wrong(
        "\"garden.beds\"",
        "\"rides.offers\"",
        "g.toml:29: `rides.offers` must be `garden`, or `garden.` followed by a word: \
         a lower-case letter, then lower-case letters, digits and underscores, \
         at most 32 characters",
    );
}

#[test]
fn requires_a_visibility_whose_readers_can_be_found() {
    wrong(
        "participants_here = \"keepers\"",
        "participants_here = \"keeper\"",
        "g.toml:7: there is no attribute `keeper`; did you mean `keepers`?",
    );
    wrong(
        "kind = \"identity\"",
        "kind = \"integer\"",
        "g.toml:7: `keepers` must have the kind identity, because it names readers",
    );
    wrong(
        "participants = \"bed\"",
        "participants = \"name\"",
        "g.toml:17: `name` must hold exactly one reference to a Parent",
    );
    wrong(
        "kind = { parent = \"garden.bed\" }",
        "kind = { parent = \"garden.plant\" }",
        "g.toml:17: the type `garden.plant` does not name participants",
    );
    wrong(
        "visibility = { participants_here = \"keepers\" }\n[[type.attr]]\nnumber = 1\n\
         name = \"keepers\"\nkind = \"identity\"\nmax = 8\n",
        "visibility = { participants = \"of\" }\n[[type.attr]]\nnumber = 1\n\
         name = \"of\"\nkind = { parent = \"garden.plant\" }\n",
        "g.toml:7: the type `garden.plant` does not name participants\n\
         g.toml:16: the type `garden.bed` does not name participants",
    );
    wrong(
        "participants = \"bed\"",
        "owner_and_subject = \"bed\"",
        "g.toml:17: `bed` must hold exactly one identity, because it names the subject",
    );
    wrong(
        "visibility = { participants = \"bed\" }",
        "visibility = \"local\"",
        "g.toml:30: `garden.plant` is local, so that no domain can contain it",
    );
    wrong(
        "\"garden.plant\", ",
        "",
        "g.toml:16: `garden.plant` belongs to no domain; \
         give it the visibility `local` if it must not leave the node",
    );
}

/// Nodes that share different domains would judge the same update differently.
#[test]
fn requires_one_mode_of_all_domains_of_a_type() {
    let further = |mode: &str, types: &str| {
        let domain = "[[domain]]\nname = \"garden.plants\"";
        format!("{GARDEN}\n{domain}\nparent_types = [{types}]\nmode = \"{mode}\"\n")
    };
    let load = |text: String| load(&[("g.toml", &text)]).map(drop);
    assert_eq!(load(further("no_update", "\"garden.plant\"")), Ok(()));
    assert_eq!(
        load(further("allow_update", "\"garden.plant\"")).unwrap_err(),
        "g.toml:34: all domains of a type must have one mode, and `garden.beds` has another one"
    );
}

#[test]
fn checks_all_files_of_the_folder() {
    let error = load(&[("garden.toml", GARDEN), ("second.toml", GARDEN)]).unwrap_err();
    assert_eq!(error, "second.toml: the app `garden` is defined already");
    let market = include_str!("apps/market.toml");
    let error = load(&[("garden.toml", GARDEN), ("market.toml", market)]).unwrap_err();
    assert_eq!(error, "market.toml: the app `market` is defined already");
    let error = load(&[("garden.toml", GARDEN), ("off.toml", "slug = 1")]).unwrap_err();
    assert!(error.starts_with("off.toml:1: slug: "), "{error}");
    let error = load(&[("long.toml", &"#".repeat(FILE_BYTES_MAX as usize + 1))]).unwrap_err();
    assert_eq!(error, "long.toml: longer than 262144 bytes");
    let none = Schemas::load(&all(), Some(Path::new("/nonexistent/schemas")));
    assert!(matches!(none, Err(SchemaError::Unreadable { .. })));
}

/// A node with longer names could send no `welcome`, because the frame would be too long.
#[test]
fn refuses_names_that_a_handshake_cannot_hold() {
    // The apps `identities` and `garden` take 65 bytes, and 24 domains 953: 1,971 in all.
    let with_last = |bytes: usize| {
        let mut text = GARDEN.replace("garden.beds", &format!("garden.{}", "a".repeat(bytes - 7)));
        for number in 10..32 {
            text += &format!(
                "[[domain]]\nname = \"garden.d{number}{}\"\nparent_types = [\"garden.bed\"]\n\
                 mode = \"no_update\"\n",
                "_".repeat(29)
            );
        }
        let garden = ["identities".to_owned(), "garden".to_owned()];
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("g.toml"), text).unwrap();
        Schemas::load(&garden, Some(folder.path())).map(drop)
    };
    assert!(with_last(36).is_ok(), "{:?}", with_last(36));
    let error = with_last(37).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the names of the enabled apps and domains take 1973 bytes of a handshake, but at most \
         1972 are possible: enable fewer apps, or give an app's domains shorter names"
    );
}

#[test]
fn refuses_more_domains_than_sync_flags_has_bits() {
    let mut text = GARDEN.to_owned();
    for number in 0..SYNC_DOMAINS_MAX {
        text += &format!(
            "[[domain]]\nname = \"garden.d{number}\"\nparent_types = [\"garden.bed\"]\n\
             mode = \"no_update\"\n"
        );
    }
    let error = load(&[("g.toml", &text)]).unwrap_err();
    assert_eq!(
        error,
        "65 sync domains are enabled, but at most 63 are possible"
    );
}
