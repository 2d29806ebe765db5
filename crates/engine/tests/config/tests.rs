//! The tests that a service file has.

use std::time::Duration;

use evener_engine::config::{self, Expect, Expectation, Filter, Test, Workers};
use serde_json::json;

use super::good::new_folder;
use super::{bad, codes, good, no_env};

/// A service with two stages, one of them on no way but that of a second route, and tests.
fn with_tests(tests: &str) -> String {
    format!(
        "service: s\nstages: {{a: {{python: 'm:f'}}, b: {{jq: .}}}}\n\
         routes: [{{path: /a, pipeline: a}}, {{path: /b, pipeline: b}}]\ntests:\n{tests}\n"
    )
}

fn tests(text: &str) -> Vec<Test> {
    good(&with_tests(text)).tests
}

#[test]
fn every_key_of_a_test_is_taken() {
    let tests = tests(
        "  - name: seven is prime\n    request: {path: '/a?n=7', method: PUT, headers: {X-A: 1.10, accept: '*/*'}, body: 'é'}\n    \
         expect:\n      status: 504\n      headers: {content-type: text/plain}\n      body: ''\n      json: .sum == 25\n      \
         within: 2s\n      at_least: 100ms\n    with: {stages: {a: {workers: 0}}}",
    );
    let [test] = &tests[..] else { panic!("one test: {tests:?}") };
    assert_eq!((&*test.name, &*test.file, test.line), ("seven is prime", "service.yaml", 5));
    let request = &test.request;
    assert_eq!((&*request.method, &*request.path), ("PUT", "/a?n=7"));
    let headers: Vec<_> = request.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(headers, [("X-A", "1.10"), ("accept", "*/*"), ("Content-Type", "text/plain; charset=utf-8")]);
    assert_eq!(request.body.as_deref(), Some("é".as_bytes()));
    let expected = Expect {
        status: Some(504),
        headers: vec![("content-type".into(), "text/plain".into())],
        body: Some(String::new()),
        json: vec![Expectation::Predicate(Filter { source: ".sum == 25".into() })],
        within: Some(Duration::from_secs(2)),
        at_least: Some(Duration::from_millis(100)),
    };
    assert_eq!(test.expect, expected);
    assert!(test.with.is_some());
}

#[test]
fn what_a_test_leaves_unsaid() {
    let tests = tests(
        "  - {name: a, request: {path: /a}}\n  - {name: b, request: {path: /b, json: {x: [1]}}, expect: {json: [1, a]}}\n  \
         - {name: c, request: {path: /b, headers: {CONTENT-TYPE: x/y}, json: null}}",
    );
    let of = |n: usize| (&*tests[n].request.method, tests[n].request.body.as_deref(), tests[n].request.headers.len());
    assert_eq!(of(0), ("GET", None, 0));
    assert_eq!((&tests[0].expect, &tests[0].with), (&Expect::default(), &None));
    assert_eq!(of(1), ("POST", Some(&b"{\"x\":[1]}"[..]), 1));
    assert_eq!(tests[1].request.headers[0], ("Content-Type".into(), "application/json".into()));
    assert_eq!(tests[1].expect.json, [Expectation::Equal(json!([1, "a"]))], "a list stands for itself");
    assert_eq!(of(2), ("POST", Some(&b"null"[..]), 1));
    assert_eq!(tests[2].request.headers[0].1, "x/y");
}

#[test]
fn what_a_test_changes_is_put_over_the_file() {
    let folder = new_folder();
    let path = folder.join("s.yaml");
    let with =
        "  - name: t\n    request: {path: /a}\n    with:\n      stages:\n        a: {workers: 0, env: {A: '$${B}'}}";
    std::fs::write(&path, with_tests(with)).unwrap();
    let service = config::load(&path, &no_env).unwrap().service;
    assert_eq!(service.stages[0].workers, Workers::Count(1));
    let overlay = service.tests[0].with.clone().unwrap();
    let service = config::load_with(&path, &[overlay], &no_env).unwrap().service;
    assert_eq!(service.stages[0].workers, Workers::Count(0));
    assert_eq!(service.stages[0].env, [("A".into(), "${B}".into())], "variables are expanded once");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn tests_of_an_included_file_name_it() {
    let folder = new_folder();
    let path = folder.join("s.yaml");
    std::fs::write(folder.join("tests.yaml"), "tests:\n  - {name: t, request: {path: /a}, with: {debug: 7}}\n")
        .unwrap();
    std::fs::write(&path, with_tests("  []").replace("tests:\n  []", "include: [tests.yaml]")).unwrap();
    let report = config::load(&path, &no_env).unwrap_err();
    assert_eq!(codes(&report), ["2:50 wrong-type"], "{report}");
    assert!(report.name(&report.diagnostics()[0]).ends_with("tests.yaml"));
    std::fs::write(folder.join("tests.yaml"), "\ntests:\n  - {name: t, request: {path: /a}}\n").unwrap();
    let test = &config::load(&path, &no_env).unwrap().service.tests[0];
    assert_eq!((test.file.ends_with("tests.yaml"), test.line), (true, 3));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn mistakes_of_tests() {
    for (test, expected) in [
        ("{}", &["5:5 missing-key", "5:5 missing-key"][..]),
        ("{name: '', request: {path: /a}}", &["5:12 wrong-type"]),
        ("{name: \"a\\nb\", request: {path: /a}}", &["5:12 bad-name"]),
        ("{name: a, request: /a}", &["5:24 wrong-type"]),
        ("{name: a, request: {}}", &["5:24 missing-key"]),
        ("{name: a, path: /a}", &["5:15 unknown-key"]),
        ("{name: a, request: {path: a}}", &["5:31 bad-request-path"]),
        ("{name: a, request: {path: 'http://x/a'}}", &["5:31 bad-request-path"]),
        ("{name: a, request: {path: '/a b'}}", &["5:31 bad-request-path"]),
        ("{name: a, request: {path: '/a#b'}}", &["5:31 bad-request-path"]),
        ("{name: a, request: {path: '/é'}}", &["5:31 bad-request-path"]),
        ("{name: a, request: {path: /a, method: get}}", &["5:43 bad-method"]),
        ("{name: a, request: {path: /a, headers: {'a b': 1}}}", &["5:45 bad-header"]),
        ("{name: a, request: {path: /a, headers: {a: \"x\\ny\"}}}", &["5:48 wrong-type"]),
        ("{name: a, request: {path: /a, headers: {a: }}}", &["5:45 wrong-type"]),
        ("{name: a, request: {path: /a, body: x, json: 1}}", &["5:44 two-bodies"]),
        ("{name: a, request: {path: /a, body: 7}}", &["5:41 wrong-type"]),
        ("{name: a, request: {path: /a, json: .nan}}", &["5:41 bad-json"]),
        ("{name: a, request: {path: /a}, expect: {status: 600}}", &["5:53 out-of-range"]),
        ("{name: a, request: {path: /a}, expect: {status: ok}}", &["5:53 wrong-type"]),
        ("{name: a, request: {path: /a}, expect: {json: '.sum =='}}", &["5:51 bad-jq"]),
        ("{name: a, request: {path: /a}, expect: {within: 5}}", &["5:53 bad-duration"]),
        ("{name: a, request: {path: /a}, expect: {within: 1s, at_least: 2s}}", &["5:57 out-of-range"]),
        ("{name: a, request: {path: /a}, with: [a]}", &["5:42 wrong-type"]),
        ("{name: a, request: {path: /a}, with: {tests: []}}", &["5:43 bad-with"]),
        ("{name: a, request: {path: /a}, with: {include: []}}", &["5:43 bad-with"]),
    ] {
        let report = bad(&with_tests(&format!("  - {test}")));
        assert_eq!(codes(&report), expected, "{report}");
    }
    let twice = bad(&with_tests("  - {name: a, request: {path: /a}}\n  - {name: a, request: {path: /a}}"));
    assert_eq!(codes(&twice), ["6:12 duplicate-name"]);
}

#[test]
fn what_a_test_changes_must_be_good() {
    let with = |with: &str| bad(&with_tests(&format!("  - {{name: a, request: {{path: /a}}, with: {with}}}")));
    for (changes, expected) in [
        ("{stages: {a: {wokers: 0}}}", "5:56 unknown-key"),
        ("{stages: {a: {workers: many}}}", "5:65 wrong-type"),
        ("{nonsense: 1}", "5:43 unknown-key"),
        ("{stages: {aa: {workers: 0}}}", "5:52 unknown-name"),
        ("{stages: {b: {workers: 2}}}", "5:56 useless-key"),
    ] {
        let report = with(changes);
        assert_eq!(codes(&report)[..1], [expected], "{report}");
    }
    // What is wrong then may stand elsewhere, in lines that are good by themselves.
    let text = with_tests("  - {name: a, request: {path: /a}, with: {stages: {a: {threads: 2}}}}");
    let report = bad(&text.replace("'m:f'", "'m:f', concurrency: 2"));
    assert_eq!(codes(&report), ["5:36 two-ways"], "{report}");
    assert!(report.to_string().contains("with this") && report.to_string().contains("as it then is"), "{report}");
    // A test may switch off what leads to a stage.
    tests("  - {name: a, request: {path: /a}, with: {routes: [{path: /a, pipeline: a}]}}");
    // An error of the file itself is not told again for each test.
    let text = with_tests("  - {name: a, request: {path: /a}, with: {debug: 7}}").replace("service: s", "service: 7");
    assert_eq!(codes(&bad(&text)), ["1:10 wrong-type"]);
}

#[test]
fn many_tests_of_a_large_file_are_answered_in_time() {
    let test = |n: usize| format!("  - {{name: t{n}, request: {{path: /a}}, with: {{debug: true}}}}\n");
    let few: String = (0..1000).map(test).collect();
    assert_eq!(tests(&few).len(), 1000);
    let stages: String = (0..900).map(|n| format!("  s{n}: {{python: 'm:f'}}\n")).collect();
    let steps: Vec<_> = (0..900).map(|n| format!("s{n}")).collect();
    let steps = steps.join(", ");
    let text = format!("service: s\nroutes: []\nstages:\n{stages}pipelines: {{p: [{steps}]}}\n");
    let report = bad(&format!("{text}tests:\n{few}"));
    assert!(codes(&report).iter().any(|code| code.ends_with("too-many-tests")), "{report}");
}
