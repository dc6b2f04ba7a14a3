//! The lines about the onion service in `postern status`.

use serde_json::Value;

use super::show::{number, text};

/// Two lines; empty on loopback.
pub(super) fn lines(tor: &Value) -> Vec<String> {
    if !tor.is_object() {
        return Vec::new();
    }
    let count = |field| number(tor, field);
    let rate = match count("intro_rate_per_s") {
        0 => "no rate limit".to_owned(),
        rate => format!("{rate} a second each, {} at once", count("intro_burst")),
    };
    let extra = |field: &str| {
        let is =
            |what| tor.get(field).and_then(|extra| extra.get(what)) == Some(&Value::Bool(true));
        match (is("built_in"), is("on")) {
            (false, _) => "not built in",
            (true, false) => "off",
            (true, true) => "on",
        }
    };
    vec![
        format!(
            "onion service  {} of {} circuits, {} of {} being built, {} waiting; {} evicted, {} \
             refused, {} shut for abuse",
            count("circuits"),
            count("circuits_max"),
            count("building"),
            count("accepts_max"),
            count("waiting"),
            count("evicted_total"),
            count("refused_total"),
            count("abused_total"),
        ),
        format!(
            "hardening      {} introduction points ({rate}), vanguards {}, {} streams a circuit, \
             Tor's proof of work {}, bridges {}",
            count("intro_points"),
            text(tor, "vanguards"),
            count("streams_per_circuit_max"),
            extra("pow"),
            extra("bridges"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_distinguish_features_off_and_not_built_in() {
        assert!(lines(&Value::Null).is_empty());
        let tor = json!({
            "intro_points": 3, "intro_rate_per_s": 10, "intro_burst": 100, "vanguards": "lite",
            "streams_per_circuit_max": 8, "circuits": 1, "circuits_max": 640, "building": 2,
            "accepts_max": 16,
            "waiting": 3, "evicted_total": 6, "refused_total": 7, "abused_total": 8,
            "pow": { "built_in": true, "on": false }, "bridges": { "built_in": false, "on": false },
        });
        assert_eq!(
            lines(&tor),
            [
                "onion service  1 of 640 circuits, 2 of 16 being built, 3 waiting; 6 evicted, 7 \
                 refused, 8 shut for abuse",
                "hardening      3 introduction points (10 a second each, 100 at once), vanguards \
                 lite, 8 streams a circuit, Tor's proof of work off, bridges not built in",
            ]
        );
    }
}
