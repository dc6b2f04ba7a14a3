//! One name for one type: no two production types of the node's three crates share a name.
//!
//! An alias counts if it is not indented, because an indented one is an associated type.

use std::collections::BTreeMap;

use crate::source::{Source, is_word};

/// Where each type is defined: structs, enums, traits, unions and aliases outside of tests.
fn definitions(source: &Source) -> Vec<(String, &str)> {
    let code = source.production();
    let words: Vec<_> = code
        .split(|c| !is_word(c))
        .filter(|word| !word.is_empty())
        .collect();
    let keywords = ["struct", "enum", "trait", "union"];
    let pairs = words.windows(2).filter(|pair| keywords.contains(&pair[0]));
    let types = pairs.map(|pair| pair[1]);
    let aliases = code.lines().filter_map(|line| {
        let rest = match line.strip_prefix("pub") {
            Some(rest) => rest.split_once(' ')?.1,
            None => line,
        };
        let name = rest.strip_prefix("type ")?;
        name.split(|c| !is_word(c)).next()
    });
    let names = types.chain(aliases);
    names.map(|name| (name.to_owned(), &*source.path)).collect()
}

/// Types that share a name.
pub(crate) fn violations(sources: &[Source]) -> Vec<String> {
    let mut places = BTreeMap::<_, Vec<_>>::new();
    let is_ours = |source: &&Source| {
        ["src/", "keys/src/", "bastion/src/"]
            .iter()
            .any(|root| source.path.starts_with(root))
    };
    for (name, path) in sources.iter().filter(is_ours).flat_map(definitions) {
        places.entry(name).or_default().push(path);
    }
    let shared = places.into_iter().filter(|(_, paths)| paths.len() > 1);
    shared
        .map(|(name, paths)| format!("`{name}` is defined in {}", paths.join(", ")))
        .collect()
}

#[test]
fn finds_a_name_of_two_types() {
    let check = |first: &str, second: &str, count: usize| {
        let sources = [
            Source::new("src/a.rs", first),
            Source::new("keys/src/b.rs", second),
        ];
        assert_eq!(violations(&sources).len(), count, "{first} {second}");
    };
    check("pub struct Name<T>(T);", "pub(crate) trait Name {}", 1);
    check("pub(crate) type Name<'n> = &'n str;", "struct Name;", 1);
    check("type Name = u8;", "pub type Name = u16;", 1);
    check("struct Name;", "enum Other { Name }", 0);
    check("struct Name;", "impl X for Y {\n    type Name = u8;\n}", 0);
    check(
        "struct Name;",
        "#[cfg(test)]\nmod tests { struct Name; }",
        0,
    );
}
