//! YAML itself: what is read, what is refused, and where things stand.

use super::{bad, codes, good, with, with_route, with_stage};

#[test]
fn text_that_is_not_yaml() {
    for (text, place, hint) in [
        ("a:\n\t- b", "2:2 syntax", "YAML does not allow tabs"),
        ("a: [b", "1:6 syntax", "close the bracket"),
        ("a: \"x", "1:4 syntax", "close the quotes"),
        ("a: b: c", "1:5 syntax", "put quotes around a text that contains `: `"),
        ("a: @x", "1:4 syntax", "put quotes around a text that begins with"),
        ("a: *x", "1:4 syntax", "needs its anchor `&name` before it"),
        ("a: {b: ${X}}", "1:9 syntax", "put quotes around `${…}`"),
        ("a: [::1]:80", "1:9 syntax", "put quotes around an IPv6 address"),
        ("a: b\n---\nc: d", "2:1 many-documents", "a file of its own"),
        ("a: \u{1}", "1:4 syntax", "U+0001 is not allowed"),
        ("a: b\rc: d", "1:5 syntax", "U+000D is not allowed"),
        ("é: \u{feff}", "1:4 syntax", "U+FEFF is not allowed"),
        ("é: @x", "1:4 syntax", "put quotes"),
    ] {
        let report = bad(text);
        assert_eq!(codes(&report), [place], "{text}\n{report}");
        assert!(report.to_string().contains(hint), "{hint:?} is not in\n{report}");
    }
}

#[test]
fn yaml_that_a_service_file_does_not_use() {
    for (text, code) in [
        (with("? [x]\n: y"), "4:3 bad-key"),
        (with(": y"), "4:1 bad-key"),
        (with("<<: {drain: 1s}"), "4:1 merge-key"),
        (with("drain: !!str 1s"), "4:8 tag"),
        (with("drain: !mine 1s"), "4:8 tag"),
        (with("drain: &x [*x]"), "4:12 alias-cycle"),
        (with("drain: 1s\ndrain: 2s"), "5:1 duplicate-key"),
        (with("drain: 1s\n'drain': 2s"), "5:1 duplicate-key"),
    ] {
        let report = bad(&text);
        assert!(codes(&report).iter().any(|one| one == code), "{text}\n{report}");
    }
}

#[test]
fn plain_scalars_follow_the_core_schema() {
    let fallback = |text: &str| good(&with_route(&format!("path: /\nfallback: {text}"))).routes[0].fallback.clone();
    for (text, json) in [
        ("true", "true"),
        ("True", "\"True\""),
        ("yes", "\"yes\""),
        ("on", "\"on\""),
        ("null", "null"),
        ("~", "null"),
        ("", "null"),
        ("''", "\"\""),
        ("12", "12"),
        ("-12", "-12"),
        ("+12", "12"),
        ("012", "12"),
        ("0o17", "15"),
        ("0x1F", "31"),
        ("0b1", "\"0b1\""),
        ("1_000", "\"1_000\""),
        ("1.5", "1.5"),
        (".5", "0.5"),
        ("5.", "5.0"),
        ("1e3", "1000.0"),
        ("-1.5E-3", "-0.0015"),
        ("1e", "\"1e\""),
        ("e5", "\"e5\""),
        (".", "\".\""),
        ("\"12\"", "\"12\""),
        ("'true'", "\"true\""),
        ("12:30", "\"12:30\""),
        ("2026-11-01", "\"2026-11-01\""),
        ("\"a\\nb\"", "\"a\\nb\""),
        ("|\n  a\n  b", "\"a\\nb\\n\""),
        (">-\n  a\n  b", "\"a b\""),
    ] {
        let expected: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(fallback(text), Some(expected), "{text}");
    }
}

#[test]
fn anchors_repeat_values() {
    let service = good(
        "service: s\nstages:\n  a: &a {python: \"m:f\", timeout: &t 2s}\n  b: *a\n\
         pipelines: {p: &p [a, b], q: *p}\ndrain: *t\n",
    );
    assert_eq!(service.stages[1].timeout, service.drain);
    assert_eq!(service.pipelines[0].steps, service.pipelines[1].steps);
}

#[test]
fn windows_files_are_read() {
    let text = with("drain: 1s\nlimits: {queue: 0}").replace('\n', "\r\n");
    let report = bad(&format!("\u{feff}{text}"));
    assert_eq!(codes(&report), ["5:17 out-of-range"]);
    assert!(report.to_string().contains("5 | limits: {queue: 0}\n"), "{report}");
    good(&format!("\u{feff}{}", with("drain: 1s").replace('\n', "\r\n")));
}

#[test]
fn columns_count_characters() {
    let text = with_stage("env: {Ä: \"öß\", timeout: [🐎]}");
    assert_eq!(codes(&bad(&text)), ["5:29 wrong-type"]);
}

#[test]
fn a_value_that_is_not_there_is_shown_at_its_key_or_dash() {
    assert_eq!(codes(&bad(&with("drain:\ndebug: true"))), ["4:1 wrong-type"]);
    assert_eq!(codes(&bad(&with("routes:\n  -\n  - 7"))), ["5:3 wrong-type", "6:5 wrong-type"]);
    assert_eq!(codes(&bad(&with("listen: {http: , api: }"))), ["4:10 wrong-type", "4:18 wrong-type"]);
}
