//! How reports look.

use evener_engine::config::{Severity, load};

use super::{bad, codes, good::new_folder, no_env, parse, with_stage};

/// One file with every kind of mistake.
const EVERYTHING: &str = r#"service: 7primes
listne: {}
listen:
  api: 0.0.0.0:7070
stages:
  parse: {pyhton: "primes:parse", workers: -1, timeout: 5}
  compute: {python: "primes.py:compute", memory: 64}
  compute: {python: "a:b"}
  two: {python: "a:b", command: [tr]}
  late: {python: "a:b", batch: {max: 0}, env: {A: "${NOPE}"}}
  unused: {python: "a", timeout: }
pipelines:
  primes: [parse, comptue, compute]
  parse: [compute]
  again: [late, again]
  none: []
routes:
  - {path: is_prime, pipeline: primes, methods: [get]}
  - {path: "/a/{x}", pipeline: primes}
  - {path: "/a/{y}", stage: two, fallback_on: [timeout]}
limits: {body: 10M, queue: 0}
debug: yes
"#;

#[test]
fn every_mistake_is_told_at_once_and_in_order() {
    let report = bad(EVERYTHING);
    assert_eq!(
        codes(&report),
        [
            "1:10 bad-name",
            "2:1 unknown-key",
            "4:8 insecure-api",
            "6:11 unknown-key",
            "6:44 out-of-range",
            "6:57 bad-duration",
            "7:21 bad-python",
            "7:50 out-of-range",
            "8:3 duplicate-key",
            "9:24 two-kinds",
            "10:38 out-of-range",
            "10:52 unset-variable",
            "11:3 unreachable-stage",
            "11:20 bad-python",
            "11:25 wrong-type",
            "13:19 unknown-name",
            "14:3 duplicate-name",
            "15:17 pipeline-cycle",
            "16:3 empty-pipeline",
            "18:12 bad-route-path",
            "18:50 bad-method",
            "20:12 route-conflict",
            "20:22 unknown-key",
            "20:34 no-fallback",
            "21:16 bad-size",
            "21:28 out-of-range",
            "22:8 wrong-type",
        ]
    );
    assert!(report.to_string().ends_with("\n27 errors in service.yaml\n"), "{report}");
}

#[test]
fn a_mistake_is_shown_with_its_line_and_a_hint() {
    let text = "service: s\nstages:\n  a: {python: \"m:f\", timeout: 5}\npipelines: {p: [a]}\n";
    assert_eq!(
        bad(text).render(false),
        "\
error[bad-duration]: the duration `5` has no unit
 --> service.yaml:3:31
  |
3 |   a: {python: \"m:f\", timeout: 5}
  |                               ^
  |
  = help: write `5s`, or use `ms`, `m` or `h`

1 error in service.yaml
"
    );
}

#[test]
fn both_places_of_a_conflict_are_shown() {
    let text = "service: s\nstages:\n  a: {python: \"m:f\"}\n\n\n\n\n\n  a: {python: \"m:g\"}\npipelines: {p: [a]}\n";
    assert_eq!(
        bad(text).render(false),
        "\
error[duplicate-key]: the key `a` is given twice
 --> service.yaml:9:3
  |
3 |   a: {python: \"m:f\"}
  |   - first here
...
9 |   a: {python: \"m:g\"}
  |   ^ again here

1 error in service.yaml
"
    );
}

#[test]
fn a_line_is_shown_as_it_stands_in_the_file() {
    let env = |name: &str| (name == "N").then(|| "many".into());
    let text = "service: s\nstages:\n  größe:\n    python: m:f # größe\n    workers: ${N}\nroutes: []\n";
    let report = evener_engine::config::parse("s.yaml", text, "/".as_ref(), &env).expect_err("must fail");
    let shown = report.render(false);
    assert!(shown.contains("5 |     workers: ${N}\n"), "{shown}");
    assert!(shown.contains("found the text `many` (expanded)"), "{shown}");
    assert!(shown.contains("3 |   größe:\n  |   ^^^^^\n"), "{shown}");
}

#[test]
fn colours_come_only_when_asked_for() {
    let report = bad("x");
    assert!(!report.to_string().contains('\x1b'));
    assert!(report.render(true).contains('\x1b'));
    assert_eq!(report.render(false), report.to_string());
}

#[test]
fn warnings_are_told_beside_errors() {
    let text = with_stage("retries: 0\nretry_on: [lost]\ntimeout: 5\nworkers: x");
    let report = bad(&text);
    assert_eq!((report.count(Severity::Error), report.count(Severity::Warning)), (2, 1));
    assert!(report.to_string().ends_with("2 errors and 1 warning in service.yaml\n"));

    let warnings = parse(&with_stage("retries: 0\nretry_on: [lost]")).unwrap().warnings;
    assert_eq!(
        warnings.render(false),
        "\
warning[useless-key]: `retry_on` says nothing, since `retries` is 0
 --> service.yaml:6:5
  |
5 |     retries: 0
  |     ------- no retries
6 |     retry_on: [lost]
  |     ^^^^^^^^

1 warning in service.yaml
"
    );
}

#[test]
fn nothing_to_say_is_nothing_said() {
    let warnings = parse(&with_stage("")).unwrap().warnings;
    assert!(warnings.is_empty());
    assert_eq!(warnings.to_string(), "");
}

#[test]
fn a_file_that_cannot_be_read_is_told_as_well() {
    let folder = new_folder();
    let missing = folder.join("missing.yaml");
    let report = load(&missing, &no_env).expect_err("must fail");
    assert_eq!(codes(&report), ["unreadable"]);
    assert!(report.to_string().contains("missing.yaml"), "{report}");
    assert_eq!(codes(&load(&folder, &no_env).expect_err("a folder")), ["unreadable"]);

    let path = folder.join("latin1.yaml");
    std::fs::write(&path, b"service: s\n# gr\xf6\xdfe\n").unwrap();
    let report = load(&path, &no_env).expect_err("must fail");
    assert_eq!(codes(&report), ["not-utf8"]);
    assert!(report.to_string().contains("byte 0xf6 on line 2"), "{report}");

    let path = folder.join("large.yaml");
    std::fs::write(&path, "# x\n".repeat(1 << 19)).unwrap();
    assert_eq!(codes(&load(&path, &no_env).expect_err("too large")), ["too-large"]);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_name_of_a_file_commands_no_terminal() {
    let name = "\u{1b}]0;pwn\u{7}.yaml";
    let report = evener_engine::config::parse(name, "stages: 7\n", "/".as_ref(), &no_env).expect_err("must fail");
    let shown = report.render(false);
    assert!(!shown.contains(['\u{1b}', '\u{7}']) && shown.contains("\\u{1b}]0;pwn"), "{shown}");
}
