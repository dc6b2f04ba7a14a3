//! docs/API.md lists every route of the local API with its methods, and no other.

use std::collections::BTreeSet;

use crate::codes::{close, starts};

/// Routes that only the page or only `src/api/routes.rs` has.
pub(crate) fn differences(page: &str, source: &str) -> Vec<String> {
    let (listed, found) = (in_page(page), in_source(source));
    let missing = found.difference(&listed);
    let unknown = listed.difference(&found);
    let missing = missing.map(|route| format!("docs/API.md does not list `{route}`"));
    let unknown = unknown.map(|route| format!("`{route}` of docs/API.md is not a route"));
    missing.chain(unknown).collect()
}

/// The first cells of the table.
fn in_page(page: &str) -> BTreeSet<String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let routes = rows.filter_map(|row| row.split('`').next());
    routes.map(str::to_owned).collect()
}

/// The methods and paths of the calls of `route`.
fn in_source(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for at in starts(source, ".route(") {
        let open = at + ".route".len();
        let call = &source[open..close(source, open)];
        let path = call.split('"').nth(1).unwrap_or_default();
        for method in ["get", "post", "put", "patch", "delete"] {
            if !starts(call, &format!("{method}(")).is_empty() {
                found.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_page_and_source_are_compared() {
        let source =
            ".route(\"/a\", get(x::list).post(x::make))\n.route(\n\"/b/{oid}\",\nput(x::b),\n)";
        let page = "| route | purpose |\n| `GET /a` | x `GET /no` |\n| `PUT /b/{oid}` | x |\n";
        assert_eq!(
            differences(page, source),
            ["docs/API.md does not list `POST /a`"]
        );
        let page = format!("{page}| `POST /a` | x |\n| `GET /c` | x |\n");
        assert_eq!(
            differences(&page, source),
            ["`GET /c` of docs/API.md is not a route"]
        );
    }
}
