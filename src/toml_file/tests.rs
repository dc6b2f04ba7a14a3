//! Each kind of problem, with its line and suggestion.

use super::*;
use serde::Deserialize;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    one: u8,
    #[serde(default)]
    inner: Vec<Inner>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    colour: Colour,
    #[serde(default)]
    size: u8,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Colour {
    Red,
    Green,
}

fn problems(text: &str) -> String {
    let path = Path::new("f.toml");
    let mut file = TomlFile::parse(path, text);
    let read = file.read::<File>();
    file.finish(read)
        .map_or_else(|problems| problems.to_string(), |_| String::new())
}

#[test]
fn valid_file_has_no_problems() {
    assert_eq!(problems("one = 1\n[[inner]]\ncolour = \"red\"\n"), "");
}

#[test]
fn reports_all_problems_at_once_with_their_lines() {
    let text = "one = 1\nonee = 2\n\n\
                [[inner]]\ncolour = \"gren\"\nsise = 3\n\n\
                [[inner]]\nsize = 300\ncolour = \"red\"\nzzz = 1\n\
                [[inner]]\nsize = 1\n";
    assert_eq!(
        problems(text),
        "f.toml:2: onee: unknown key; did you mean `one`?\n\
         f.toml:5: inner.colour: `gren` is not a valid value; did you mean `green`?\n\
         f.toml:6: inner.sise: unknown key; did you mean `size`?\n\
         f.toml:9: inner.size: must be a whole number from 0 to 255, not 300\n\
         f.toml:11: inner.zzz: unknown key; possible: colour, size\n\
         f.toml:12: inner: the key `colour` is missing"
    );
}

#[test]
fn reports_invalid_toml_with_its_line() {
    let text = problems("one = 1\ntwo = = 2\n");
    assert!(text.starts_with("f.toml:2: invalid TOML: "), "{text}");
    let text = problems("one = 1\none = 2\n");
    assert!(text.starts_with("f.toml:2: invalid TOML: "), "{text}");
}

#[test]
fn reports_a_missing_key_at_the_first_line() {
    assert_eq!(problems("\n"), "f.toml:1: the key `one` is missing");
}

#[test]
fn suggests_a_key_only_within_edit_distance() {
    assert_eq!(nearest("listne", ["listen", "list"]), Some("listen"));
    assert_eq!(nearest("port", ["listen", "body"]), None);
}
