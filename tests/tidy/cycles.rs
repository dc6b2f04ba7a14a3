//! Imports between files: no files of a crate import each other, directly, through a third file or
//! through a re-export.
//!
//! An item that is imported through a re-export counts as an import of the file that defines it. A
//! `mod` declaration and a re-export alone are no imports. Test code is not considered.

use std::collections::{BTreeMap, BTreeSet};

use crate::paths::paths;
use crate::source::{Source, is_word};

/// A file of a crate.
struct File<'s> {
    path: &'s str,
    /// Production code without re-exports.
    code: String,
    /// Names that `use` brings in, re-exports included, each with its path.
    uses: BTreeMap<String, Vec<String>>,
}

/// The files of a crate by the path of their module; the root's is empty.
struct Crate<'s>(BTreeMap<Vec<String>, File<'s>>);

/// File to the files that it imports, each with the line of an import.
type Graph<'s> = BTreeMap<&'s str, BTreeMap<&'s str, usize>>;

/// Imports that are part of a cycle.
pub(crate) fn violations(sources: &[Source]) -> Vec<String> {
    let roots = sources
        .iter()
        .filter_map(|source| source.path.strip_suffix("lib.rs"));
    let mut found = Vec::new();
    for root in roots {
        let graph = Crate::new(root, sources).graph();
        for (file, imports) in &graph {
            for (import, line) in imports {
                if reaches(&graph, import, file) {
                    found.push(format!(
                        "{file}:{line}: imports {import}, which imports it back"
                    ));
                }
            }
        }
    }
    found
}

fn reaches(graph: &Graph<'_>, from: &str, to: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(file) = open.pop() {
        if file == to {
            return true;
        }
        if seen.insert(file) {
            open.extend(graph.get(file).into_iter().flat_map(BTreeMap::keys));
        }
    }
    false
}

impl<'s> Crate<'s> {
    fn new(root: &str, sources: &'s [Source]) -> Self {
        let inside = sources.iter().filter(|source| !source.is_test);
        let files = inside.filter_map(|source| {
            let path = source.path.strip_prefix(root)?.strip_suffix(".rs")?;
            let mut module: Vec<String> = path.split('/').map(str::to_owned).collect();
            if matches!(path, "lib" | "mod") || path.ends_with("/mod") {
                module.pop();
            }
            (path != "main").then(|| (module, File::new(source)))
        });
        Self(files.collect())
    }

    fn graph(&self) -> Graph<'s> {
        let imports = |module: &[String], file: &File<'s>| {
            let mut imports = BTreeMap::new();
            for found in paths(&file.code) {
                let path: Vec<_> = found.text.split("::").map(str::to_owned).collect();
                if let Some(target) = self.definer(module, &path, 0)
                    && target != file.path
                {
                    imports.entry(target).or_insert(found.line);
                }
            }
            imports
        };
        let files = self.0.iter();
        files
            .map(|(module, file)| (file.path, imports(module, file)))
            .collect()
    }

    /// The file that defines the item of a path in a module. None for a module, and for an item of
    /// no file of this crate.
    fn definer(&self, module: &[String], path: &[String], depth: usize) -> Option<&'s str> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module.split_last()?.1.to_vec(),
            _ => {
                rest = path;
                module.to_vec()
            }
        };
        let is_bare = rest.len() == path.len();
        while let Some((name, behind)) = rest.split_first() {
            let child = [&*at, std::slice::from_ref(name)].concat();
            if name == "super" {
                at.pop()?;
            } else if self.0.contains_key(&child) {
                at = child;
            } else {
                let file = self.0.get(&at)?;
                let import = file.uses.get(name).filter(|_| depth < 9);
                return match import {
                    Some(import) => self.definer(&at, &[import, behind].concat(), depth + 1),
                    None if is_bare && at == module => None,
                    None => Some(file.path),
                };
            }
            rest = behind;
        }
        None
    }
}

impl<'s> File<'s> {
    fn new(source: &'s Source) -> Self {
        let mut code = source.production();
        let mut uses = BTreeMap::new();
        let starts: Vec<_> = code.match_indices("use ").map(|(start, _)| start).collect();
        for start in starts {
            let before = code[..start].trim_end();
            let end = code[start..]
                .find(';')
                .map_or(code.len(), |end| start + end);
            if code[..start].ends_with(is_word) {
                continue;
            }
            for path in paths(&code[start + 4..end]) {
                let mut path: Vec<_> = path.text.split("::").map(str::to_owned).collect();
                path.pop_if(|name| name == "self");
                if let Some(name) = path.last().cloned() {
                    uses.insert(name, path);
                }
            }
            if before.ends_with("pub") || before.ends_with(')') {
                let blank = code[start..end].replace(|c| c != '\n', " ");
                code.replace_range(start..end, &blank);
            }
        }
        let path = &source.path;
        Self { path, code, uses }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expected: &[&str]) {
        let sources: Vec<_> = files
            .iter()
            .map(|(path, text)| Source::new(path, text))
            .collect();
        let found = violations(&sources);
        let found: Vec<_> = found
            .iter()
            .map(|it| it.split(':').next().unwrap())
            .collect();
        assert_eq!(found, expected, "{files:?}");
    }

    #[test]
    fn finds_two_files_that_import_each_other() {
        let (a, b) = ("use crate::b::B;\nstruct A;", "struct B(super::a::A);");
        let root = ("src/lib.rs", "mod a;\nmod b;");
        let both = ["src/a.rs", "src/b.rs"];
        check(&[root, ("src/a.rs", a), ("src/b.rs", b)], &both);
        check(&[root, ("src/a.rs", a), ("src/b.rs", "struct B;")], &[]);
        let in_tests = "struct B;\n#[cfg(test)]\nmod tests { use crate::a::A; }";
        check(&[root, ("src/a.rs", a), ("src/b.rs", in_tests)], &[]);
    }

    #[test]
    fn finds_a_cycle_through_a_third_file() {
        let files = [
            ("keys/src/lib.rs", "mod a; mod b; mod c;"),
            ("keys/src/a.rs", "use crate::b;\nfn a() { b::b() }"),
            ("keys/src/b.rs", "fn b() { crate::c::c() }"),
            (
                "keys/src/c.rs",
                "use crate::{d, a::{self, X as Y}};\nfn c() { a::a() }",
            ),
        ];
        check(&files, &["keys/src/a.rs", "keys/src/b.rs", "keys/src/c.rs"]);
    }

    #[test]
    fn finds_a_cycle_through_a_reexport() {
        let files = [
            ("src/lib.rs", "mod m;"),
            (
                "src/m/mod.rs",
                "mod a;\nmod b;\npub use a::A;\npub(crate) use self::b::B;",
            ),
            ("src/m/a.rs", "use super::B;\npub struct A;"),
            ("src/m/b.rs", "use crate::m::A;\npub struct B;"),
        ];
        check(&files, &["src/m/a.rs", "src/m/b.rs"]);
    }

    #[test]
    fn allows_a_parent_to_declare_and_to_reexport() {
        let child = ("src/m/a.rs", "use super::M;\npub struct A;");
        let root = ("src/lib.rs", "mod m;");
        let parent = "mod a;\npub use a::A;\npub struct M;";
        check(&[root, ("src/m/mod.rs", parent), child], &[]);
        let uses_it = "mod a;\npub use a::A;\npub struct M(A);";
        let both = ["src/m/a.rs", "src/m/mod.rs"];
        check(&[root, ("src/m/mod.rs", uses_it), child], &both);
    }
}
