//! Files that mean harm, and files that mean nothing: an answer in bounded time, and never a panic.

use std::path::Path;

use evener_engine::config::{LARGEST_FILE, parse};
use proptest::prelude::*;

use super::{bad, codes, no_env};

const SEED: &str = r#"service: primes
listen: {http: "127.0.0.1:8002", api: {address: "[::1]:70", insecure: true}}
stages: # each with a pool
  parse: &p {python: "primes:parse", workers: 2, env: {A: "${B:-c}", D: 1.5}}
  compute:
    python: primes:compute
    timeout: 2s
    retry_on: [lost, timeout]
  again: *p
pipelines:
  primes: [parse, compute]
  all:
    - primes
    - again
routes:
  - {path: "/is/{prime}", methods: [GET], pipeline: primes, fallback: {a: [1, null]}}
  - path: '/größe/{*rest}'
    pipeline: all
    body: 10KB
functions: {default: , more: {workers: 3, env: {A: "{index}"}, output: 1KiB}}
limits: {body: 10MiB, memory: 1GiB}
drain: >-
  30s
debug: false
tests:
  - name: t
    request: {path: "/is/7?x=1", headers: {a: b}, json: [1]}
    expect: {status: 504, json: .a, within: 2s, at_least: 1s}
    with: {stages: {parse: {workers: 0}}}
"#;

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..30 {
        let refs = vec![format!("*a{}", i - 1); 10].join(", ");
        text.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    let report = bad(&text);
    assert!(codes(&report).iter().any(|code| code.ends_with("alias-bomb")), "{report}");
}

#[test]
fn a_bomb_of_anchors_is_refused() {
    let text = format!("{}{}", "&a [".repeat(60), "x, ".repeat(10_000));
    let text = format!("a: {text}{}", "]".repeat(60)).replacen("&a", "&b", 1);
    assert!(!codes(&bad(&text)).is_empty());
}

#[test]
fn a_bomb_of_variables_is_refused() {
    let env = |_: &str| Some("x".repeat(100_000).into());
    let text = format!("service: \"{}\"", "${A}".repeat(200_000));
    let report = parse("s.yaml", &text, Path::new("/"), &env).expect_err("too large");
    assert!(codes(&report).iter().any(|code| code.ends_with("too-large")), "{report}");
}

#[test]
fn nesting_has_a_bound() {
    for text in ["[".repeat(100_000), "- ".repeat(100_000), "? ".repeat(100_000), "{a: ".repeat(50_000)] {
        let report = bad(&text);
        let code = codes(&report).pop().unwrap_or_default();
        assert!(code.ends_with("too-deep") || code.ends_with("syntax"), "{code}");
    }
}

#[test]
fn size_has_a_bound() {
    assert_eq!(codes(&bad(&"#".repeat(LARGEST_FILE + 1))), ["too-large"]);
    assert_eq!(codes(&bad(&"#".repeat(LARGEST_FILE))), ["empty-file"]);
}

/// These once were, or easily could be, quadratic: each has up to a mebibyte on one line or in one
/// mapping. They are only run; with quadratic work they would take minutes.
#[test]
fn large_files_are_answered_in_time() {
    let list = |item: &str, times: usize| vec![item; times].join(",");
    let many = |line: &dyn Fn(usize) -> String, times: usize| (0..times).map(line).collect::<String>();
    let head = "service: s\nstages: {a: {python: \"m:f\"}}\n";
    let texts = [
        format!("service: [{}]", list("a", 300_000)),
        format!("service: [{}]", list("é", 200_000)),
        format!("a: &a x\nb: [{}]", list("*a", 200_000)),
        many(&|i| format!("a{i}:\n"), 80_000),
        "a: 1\n".repeat(100_000),
        format!("{head}pipelines: {{p: [{}]}}", list("aa", 200_000)),
        format!(
            "{head}routes:\n{}",
            many(&|i| format!("- {{path: /x, pipeline: a, methods: [A{}]}}\n", letters(i)), 15_000)
        ),
        format!("{head}routes:\n{}", many(&|i| format!("- {{path: '/{{p{i}}}', pipeline: a}}\n"), 15_000)),
        format!("{head}pipelines:\n p0: [a]\n{}", many(&|i| format!(" p{}: [p{i}]\n", i + 1), 30_000)),
        "\u{1}".repeat(LARGEST_FILE),
    ];
    for text in texts {
        assert!(text.len() <= LARGEST_FILE, "{}", text.len());
        if let Err(report) = parse("s.yaml", &text, Path::new("/"), &no_env) {
            assert!(report.render(true).len() < 16 << 20);
        }
    }
}

fn letters(mut number: usize) -> String {
    let mut text = String::new();
    while number > 0 {
        text.push(char::from(b'A' + (number % 26) as u8));
        number /= 26;
    }
    text
}

/// Whatever comes out, it can be shown, and its places lie in the text.
fn survives(text: &str) {
    let env = |name: &str| (name.len() == 1).then(|| "7".into());
    if let Err(report) = parse("s.yaml", text, Path::new("/"), &env) {
        assert!(!report.is_empty(), "refused without a word: {text:?}");
        assert!(!report.render(false).is_empty());
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for one in report.diagnostics() {
            for span in one.span.into_iter().chain(one.secondary.iter().map(|(span, _)| *span)) {
                assert!(text.get(span.start..span.end).is_some(), "{span:?} of {text:?}");
            }
        }
    }
}

#[test]
fn every_beginning_of_a_file_is_survived() {
    for (at, _) in SEED.char_indices() {
        survives(&SEED[..at]);
        survives(&SEED[at..]);
    }
    survives(SEED);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn any_text_is_survived(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn text_of_yaml_letters_is_survived(text in "[-a:?,{}\\[\\]&*!|>'\"%@`#$~<. \n\té🐎0]{0,60}") {
        survives(&text);
    }

    #[test]
    fn mutated_files_are_survived(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..5_u8), 1..8)
    ) {
        let mut bytes = SEED.as_bytes().to_vec();
        for (index, byte, kind) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = index.index(bytes.len());
            let marks = b"-:{}[]&*!|>'\"#$ \n\t,0a";
            let other = marks[usize::from(byte) % marks.len()];
            match kind {
                0 => bytes[at] = byte,
                1 => bytes[at] = other,
                2 => bytes.insert(at, other),
                3 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_value_of_any_key_is_survived(value in "[-a-z0-9.:${}/\\[\\]*' KMiB]{0,16}") {
        for key in [
            "service", "drain", "debug", "listen: {http", "listen: {api", "limits: {body",
            "limits: {queue", "stages: {a: {python", "stages: {a: {workers", "stages: {a: {env",
            "pipelines: {p", "routes: [{path", "functions: {f", "functions: {f: {workers", "functions: {f: {output",
        ] {
            let close = match (key.contains("[{"), key.matches('{').count()) {
                (true, _) => "}]",
                (_, 2) => "}}",
                (_, 1) => "}",
                _ => "",
            };
            survives(&format!("{key}: {value}{close}\n"));
            survives(&format!("{key}: \"{value}\"{close}\n"));
        }
    }
}
