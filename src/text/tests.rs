//! Names that are refused, shown texts, and folded names.

use proptest::prelude::*;

use super::*;

#[test]
fn names_of_people_in_many_scripts_are_names() {
    for name in [
        "Alice",
        "Alice Smith",
        "O'Brien-Çelik, M.Sc.",
        "Ἀλίκη",
        "Алиса",
        "愛子",
        "愛\u{3000}子",
        "علی\u{200c}رضا",
        "ක්\u{200d}රිෂ්ණ",
        "👩\u{200d}🌾",
        "👩🏽\u{200d}❤\u{fe0f}\u{200d}👨🏽",
        "❤\u{fe0f} Bob",
        "1️st".trim_end_matches("\u{fe0f}st"),
    ] {
        assert_eq!(check_name(name, NAME_BYTES_MAX), Ok(()), "{name}");
        assert_eq!(Petname::new(name).unwrap().as_str(), name);
        assert_eq!(escape(name), name);
    }
}

#[test]
fn hidden_characters_and_outer_spaces_make_no_name() {
    for hidden in [
        '\0',
        '\n',
        '\r',
        '\t',
        '\u{1b}',
        '\u{7f}',
        '\u{9b}',
        '\u{ad}',
        '\u{34f}',
        '\u{61c}',
        '\u{115f}',
        '\u{1160}',
        '\u{17b4}',
        '\u{180b}',
        '\u{180e}',
        '\u{200b}',
        '\u{200e}',
        '\u{2028}',
        '\u{2029}',
        '\u{202a}',
        '\u{202e}',
        '\u{2060}',
        '\u{2066}',
        '\u{2069}',
        '\u{2800}',
        '\u{3164}',
        '\u{fe00}',
        '\u{fe0e}',
        '\u{feff}',
        '\u{ffa0}',
        '\u{fff9}',
        '\u{1d173}',
        '\u{e0001}',
        '\u{e0041}',
        '\u{e0100}',
        '\u{200c}',
        '\u{200d}',
        '\u{fe0f}',
    ] {
        for name in [
            format!("Bo{hidden}b"),
            format!("{hidden}Bob"),
            format!("Bob{hidden}"),
        ] {
            assert_eq!(
                check_name(&name, 64),
                Err(BadName::Hidden(hidden)),
                "{name:?}"
            );
            let shown = escape(&name);
            assert!(!shown.contains(hidden) && shown.contains('\\'), "{shown}");
        }
    }
    for space in [' ', '\u{a0}', '\u{2003}', '\u{3000}'] {
        for name in [format!("{space}Bob"), format!("Bob{space}")] {
            assert_eq!(check_name(&name, 64), Err(BadName::OuterSpace), "{name:?}");
        }
        assert_eq!(check_name(&space.to_string(), 64), Err(BadName::Empty));
    }
    assert_eq!(check_name("", 64), Err(BadName::Empty));
    assert_eq!(check_name(&"x".repeat(65), 64), Err(BadName::TooLong(64)));
}

#[test]
fn joiners_are_hidden_beside_letters_that_do_not_join() {
    for name in [
        "Al\u{200d}ice",
        "Али\u{200c}са",
        "Ἀλ\u{200d}ίκη",
        "عل\u{200c}",
        "\u{200d}🌾",
        "👩\u{200d}",
        "👩\u{200c}🌾",
        "👩\u{200d}B",
        "a\u{fe0f}",
        "❤\u{fe0f}\u{fe0f}",
        "7\u{fe0f}",
    ] {
        assert!(
            matches!(check_name(name, 64), Err(BadName::Hidden(_))),
            "{name:?}"
        );
    }
}

#[test]
fn petname_is_neither_marked_nor_digits_of_an_oid() {
    assert_eq!(Petname::new("~Bob"), Err(BadName::Marked));
    assert_eq!(Petname::new("\u{ff5e}Bob"), Err(BadName::Marked), "folded");
    for digits in ["0193abcd", "DEADBEEF", "０１９３ａｂｃｄ", &"a".repeat(32)] {
        assert_eq!(Petname::new(digits), Err(BadName::OidLike), "{digits}");
    }
    for name in ["0193abc", "0193abcd x", "deadbeeg", "node"] {
        assert!(Petname::new(name).is_ok(), "{name}");
    }
}

#[test]
fn petname_from_a_claim_is_visible_and_free() {
    let from = |claim: &str, taken: &[&str]| {
        let taken: Vec<_> = taken.iter().map(|name| fold(name)).collect();
        let is_taken = |it: &Petname| Ok::<_, ()>(taken.iter().any(|name| name == it.folded()));
        Petname::from_claim(claim, is_taken)
            .unwrap()
            .map(|it| it.name)
    };
    let some = |name: &str| Some(name.to_owned());
    assert_eq!(from("Bob", &[]), some("Bob"));
    assert_eq!(from("Bob", &["BOB", "Bob 2"]), some("Bob 3"));
    assert_eq!(from(" Bo\u{200b}b\n", &[]), some("Bob"));
    assert_eq!(from("~~ Bob", &[]), some("Bob"));
    assert_eq!(from("deadbeef", &[]), some("deadbeef 2"));
    let long = "ö".repeat(32);
    assert_eq!(from(&long, &[&long]), Some(format!("{} 2", "ö".repeat(31))));
    for nothing in ["", " ", "~", "\u{3164}\u{202e}"] {
        assert_eq!(from(nothing, &[]), None, "{nothing:?}");
    }
}

#[test]
fn folded_names_ignore_case_width_spaces_and_joiners() {
    for (one, other) in [
        ("Bob", "BOB"),
        ("Bob", "Ｂｏｂ"),
        ("Alice Smith", "alice\u{3000}smith"),
        ("Alice Smith", "Alice  Smith"),
        ("Élodie", "E\u{301}lodie"),
        ("علی\u{200c}رضا", "علیرضا"),
        ("❤\u{fe0f}", "❤"),
        ("ﬁn", "fin"),
        ("ΟΔΟΣ", "οδος"),
    ] {
        assert_eq!(fold(one), fold(other), "{one}, {other}");
    }
    assert_ne!(fold("Bob"), fold("Bobby"));
    assert_ne!(fold("Elodie"), fold("Élodie"));
}

#[test]
fn claim_is_marked_and_cannot_look_like_two_names() {
    for (claim, shown) in [
        ("Bob", "~Bob"),
        ("Bo\u{202e}b\n", "~\"Bo\\u{202e}b\\n\""),
        ("x, Alice", "~\"x, Alice\""),
        ("x: hi", "~\"x: hi\""),
        ("say \"hi\"", "~\"say \\\"hi\\\"\""),
        (" Bob", "~\" Bob\""),
        ("Bob    on this node", "~\"Bob    on this node\""),
        ("\u{338}Bob", "~\"\u{338}Bob\""),
        ("~Bob", "~\"~Bob\""),
        ("Alice Smith", "~\"Alice Smith\""),
        ("Bob 0193abcd1234", "~\"Bob 0193abcd1234\""),
        ("Bob\u{a0}٣", "~\"Bob\u{a0}٣\""),
        ("x\\\", Alice", "~\"x\\\\\\\", Alice\""),
    ] {
        assert_eq!(show_claim(claim), shown);
    }
}

proptest! {
    #[test]
    fn shown_text_has_no_hidden_character_and_is_shown_again_as_it_is(
        text in "\\PC*|.{0,40}",
    ) {
        let shown = escape(&text);
        prop_assert!(shown.chars().all(|letter| !is_hidden(letter)));
        prop_assert_eq!(&escape(&shown), &shown);
        prop_assert_eq!(is_line(&text, usize::MAX), shown == text);
    }

    #[test]
    fn petname_has_no_hidden_character_and_folds_to_one_form(text in "\\PC{0,12}") {
        if let Ok(petname) = Petname::new(&text) {
            prop_assert_eq!(escape(&text), text.as_str());
            prop_assert_eq!(text.trim(), text.as_str());
            prop_assert!(!is_oid_prefix(petname.folded()));
            prop_assert_eq!(fold(&text.to_lowercase()), fold(&fold(&text)));
        }
    }

    #[test]
    fn petname_from_any_claim_is_a_petname(claim in ".{0,70}", taken in 0_usize..5) {
        let mut left = taken;
        let is_taken = |_: &Petname| {
            let is_taken = left > 0;
            left = left.saturating_sub(1);
            Ok::<_, ()>(is_taken)
        };
        if let Some(petname) = Petname::from_claim(&claim, is_taken).unwrap() {
            prop_assert_eq!(Petname::new(petname.as_str()), Ok(petname));
        }
    }
}
