//! `${NAME}` and `${NAME:-default}`.

use std::path::Path;
use std::time::Duration;

use evener_engine::config::{Loaded, Report, Workers, parse};

use super::codes;

fn env(name: &str) -> Option<std::ffi::OsString> {
    let value = match name {
        "N" => "3",
        "T" => "2s",
        "EMPTY" => "",
        "LIST" => "[a, b]",
        "LINES" => "a\nb: c",
        "DOLLAR" => "${N}",
        "HOST" => "localhost",
        _ => return None,
    };
    Some(value.into())
}

/// A service whose stage has these keys.
fn stage(keys: &str) -> Result<Loaded, Report> {
    let text = format!("service: s\nstages:\n  a:\n    python: m:f\n    {keys}\nroutes: [{{path: /, pipeline: a}}]\n");
    parse("s.yaml", &text, Path::new("/"), &env)
}

/// What a variable of the workers' environment becomes.
fn value(text: &str) -> String {
    let service = stage(&format!("env:\n      X: {text}")).unwrap().service;
    service.stages[0].env[0].1.clone()
}

#[test]
fn variables_expand_in_values() {
    for (text, expected) in [
        ("${N}", "3"),
        ("a${N}b${T}c", "a3b2sc"),
        ("\"${N}\"", "3"),
        ("'${N}'", "3"),
        ("${NOPE:-x y}", "x y"),
        ("${NOPE:-}", ""),
        ("${EMPTY}", ""),
        ("${EMPTY:-x}", "x"),
        ("${N:-x}", "3"),
        ("${NOPE:-$$x}", "$$x"),
        ("$$", "$"),
        ("$${N}", "${N}"),
        ("$$${N}", "$3"),
        ("$", "$"),
        ("$N costs 5$", "$N costs 5$"),
        ("${DOLLAR}", "${N}"),
        ("${LINES}", "a\nb: c"),
    ] {
        assert_eq!(value(text), expected, "{text}");
    }
}

#[test]
fn what_expands_is_read_as_if_it_stood_there() {
    let service = stage("workers: ${N}\n    timeout: ${T}\n    retries: 1${N}").unwrap().service;
    let stage_ = &service.stages[0];
    assert_eq!(stage_.workers, Workers::Count(3));
    assert_eq!(stage_.timeout, Duration::from_secs(2));
    assert_eq!(stage_.retries, 13);
    assert_eq!(stage("workers: ${NOPE:-auto}").unwrap().service.stages[0].workers, Workers::Auto);
}

#[test]
fn what_expands_stays_one_scalar() {
    for keys in ["retry_on: ${LIST}", "workers: \"${N}\"", "timeout: ${EMPTY}", "workers: ${NOPE:-}"] {
        let report = stage(keys).expect_err(keys);
        assert!(codes(&report)[0].ends_with("wrong-type"), "{keys}\n{report}");
        assert_eq!(report.diagnostics().len(), 1, "{report}");
    }
}

#[test]
fn keys_are_not_expanded() {
    let service = stage("env: {\"${N}\": x}").unwrap().service;
    assert_eq!(service.stages[0].env, [("${N}".to_string(), "x".to_string())]);
}

#[test]
fn addresses_take_variables() {
    let text =
        "service: s\nlisten: {http: \"${HOST}:${PORT:-80}\"}\nstages: {a: {python: \"m:f\"}}\npipelines: {p: [a]}";
    let service = parse("s.yaml", text, Path::new("/"), &env).unwrap().service;
    assert_eq!(service.listen.http.unwrap().address, "localhost:80");
}

#[test]
fn mistakes_are_told_once_and_at_their_place() {
    for (text, place, message) in [
        ("${NOPE}", "5:14 unset-variable", "the environment variable `NOPE` is not set"),
        ("a ${N}${NOPE}", "5:20 unset-variable", "give a default: `${NOPE:-default}`"),
        ("${N", "5:14 bad-variable", "no closing brace"),
        ("${}", "5:14 bad-variable", "is not the name of a variable"),
        ("${1A}", "5:14 bad-variable", "`1A` is not the name"),
        ("${A-b}", "5:14 bad-variable", "write `${NAME}` or `${NAME:-default}`"),
        ("${ N }", "5:14 bad-variable", "is not the name"),
        ("${A:-${N}}", "5:14 bad-variable", "cannot contain another variable"),
    ] {
        let report = stage(&format!("workers: {text}")).expect_err(text);
        assert_eq!(codes(&report), [place], "{text}\n{report}");
        assert!(report.to_string().contains(message), "{report}");
    }
    let report = stage("env: {A: \"${X}\", B: \"${Y} ${Z}\"}").expect_err("unset");
    assert_eq!(report.diagnostics().len(), 3, "all of them at once\n{report}");
}

#[test]
fn a_variable_that_is_no_utf8_is_told_from_one_that_is_not_set() {
    use std::os::unix::ffi::OsStringExt;
    let env = |name: &str| (name == "PW").then(|| std::ffi::OsString::from_vec(b"\xff".to_vec()));
    for text in ["service: \"${PW}\"\n", "service: \"${PW:-default}\"\n"] {
        let report = evener_engine::config::parse("s.yaml", text, "/".as_ref(), &env).expect_err("it is refused");
        let shown = report.to_string();
        assert!(shown.contains("variable-not-utf8") && shown.contains("`PW` is set"), "{shown}");
    }
}
