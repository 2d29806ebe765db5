//! Mistakes, one by one: the code, the place, and a piece of what is said.

use super::{bad, codes, parse, with, with_route, with_stage};

/// Each text has exactly these errors, and its report contains this piece.
fn check(cases: &[(String, &[&str], &str)]) {
    for (text, expected, piece) in cases {
        let report = bad(text);
        assert_eq!(codes(&report), *expected, "{text}\n{report}");
        assert!(report.to_string().contains(piece), "{piece:?} is not in\n{report}");
    }
}

#[test]
fn the_file_as_a_whole() {
    check(&[
        (String::new(), &["empty-file"], "begins with `service: NAME`"),
        ("# nothing".into(), &["empty-file"], "the file is empty"),
        ("[]".into(), &["1:1 wrong-type"], "a mapping with `service` and `stages` or `functions`, found a list"),
        ("x".into(), &["1:1 wrong-type"], "found the text `x`"),
        ("{}".into(), &["1:1 missing-key", "1:1 missing-key"], "needs the key `service`"),
        ("{}".into(), &["1:1 missing-key", "1:1 missing-key"], "needs the key `stages` or `functions`"),
        ("service: s\nstages: {}".into(), &["2:9 no-stages"], "at least one stage"),
        ("service: s\nstages: []".into(), &["2:9 wrong-type"], "stages by name, a mapping"),
        (with("name: x"), &["4:1 unknown-key"], "is the value of `service`"),
        (with("limit: {}"), &["4:1 unknown-key"], "did you mean `limits`?"),
        (with("xyz: {}"), &["4:1 unknown-key"], "its keys are `service`, "),
        (with("service: t"), &["4:1 duplicate-key"], "first here"),
        (with("store: a.db"), &["4:1 not-available"], "`store` is not available in this version"),
        (with("debug: yes"), &["4:8 wrong-type"], "only `true` and `false` are booleans"),
        (with("debug: 'true'"), &["4:8 wrong-type"], "without quotes"),
        (with("debug: 1"), &["4:8 wrong-type"], "found the number `1`"),
        (with("drain: 30"), &["4:8 bad-duration"], "write `30s`"),
        (with("drain:"), &["4:1 wrong-type"], "expected a duration such as `2s`, found nothing"),
    ]);
}

#[test]
fn a_misspelt_key_is_not_also_missing() {
    let text = "sevice: s\nstages: {a: {pyhton: \"m:f\"}}\npipelines: {p: [a]}";
    assert_eq!(codes(&bad(text)), ["1:1 unknown-key", "2:14 unknown-key"]);
}

#[test]
fn names() {
    let file = |name: &str| format!("service: {name}\nstages: {{a: {{python: \"m:f\"}}}}\npipelines: {{p: [a]}}");
    let long = "x".repeat(65);
    check(&[
        (file("7up"), &["1:10 bad-name"], "begins with a letter"),
        (file("a b"), &["1:10 bad-name"], "letters, digits, underscores and dashes"),
        (file("é"), &["1:10 bad-name"], "`é` cannot be a name"),
        (file(&long), &["1:10 bad-name"], "at most 64 characters"),
        (file("true"), &["1:10 wrong-type"], "found the boolean `true`"),
        (file(""), &["1:1 wrong-type"], "found nothing"),
        (file("''"), &["1:10 wrong-type"], "found an empty text"),
    ]);
    assert!(parse(&file("_a-B9")).is_ok());
}

#[test]
fn listeners() {
    let listen = |what: &str| with(&format!("listen: {what}"));
    check(&[
        (listen("8000"), &["4:9 wrong-type"], "expected `listen`, a mapping"),
        (listen("{http: 8000}"), &["4:16 bad-address"], "write `127.0.0.1:8000`"),
        (listen("{http: localhost}"), &["4:16 bad-address"], "write `host:port`"),
        (listen("{http: ':80'}"), &["4:16 bad-address"], "or `0.0.0.0:80` for all interfaces"),
        (listen("{http: '*:80'}"), &["4:16 bad-address"], "has no host"),
        (listen("{http: 'a:65536'}"), &["4:16 bad-address"], "a number from 0 to 65535"),
        (listen("{http: 'a:+1'}"), &["4:16 bad-address"], "a number from 0 to 65535"),
        (listen("{http: 'a:'}"), &["4:16 bad-address"], "a number from 0 to 65535"),
        (listen("{http: '::1:80'}"), &["4:16 bad-address"], "such as `[::1]:80`"),
        (listen("{http: '[::g]:80'}"), &["4:16 bad-address"], "not an IPv6 address"),
        (listen("{http: '1.2.3:80'}"), &["4:16 bad-address"], "neither an IP address nor"),
        (listen("{http: '1.2.3.256:80'}"), &["4:16 bad-address"], "neither an IP address nor"),
        (listen("{http: 'a b:80'}"), &["4:16 bad-address"], "neither an IP address nor"),
        (listen("{http: {}}"), &["4:16 missing-key"], "a listener needs the key `address`"),
        (listen("{zmq: []}"), &["4:10 not-available"], "`zmq` is not available"),
        (listen("{api: '0.0.0.0:1'}"), &["4:15 insecure-api"], "`insecure: true`"),
        (listen("{api: {address: 'example.org:1'}}"), &["4:25 insecure-api"], "not encrypted"),
        (listen("{api: {address: '[::]:1', insecure: false}}"), &["4:25 insecure-api"], "tls"),
        (listen("{http: 'a:1', api: {address: 'a:1', insecure: true}}"), &["4:23 same-address"], "taken here"),
        (
            listen("{api: {address: '[::]:1', tls: {cert: no.pem}}}"),
            &["4:40 missing-key", "4:47 missing-file"],
            "there is no file `/srv/app/no.pem`",
        ),
    ]);
    assert!(parse(&listen("{api: {address: '0.0.0.0:1', insecure: true}}")).is_ok());
}

#[test]
fn kinds_of_stages() {
    let stage = |what: &str| format!("service: s\nstages: {{a: {what}}}\npipelines: {{p: [a]}}");
    check(&[
        (stage("{}"), &["2:10 missing-key"], "a stage needs the key `python` or `jq`"),
        (stage("m:f"), &["2:13 wrong-type"], "expected a stage, a mapping with `python` or `jq`"),
        (stage("{zmq: {}}"), &["2:14 not-available"], "`zmq` is not available"),
        (stage("{jq: '.x |'}"), &["2:18 bad-jq"], "this is not a jq program"),
        (stage("{jq: foo}"), &["2:18 bad-jq"], "at line 1, column 1 of the program"),
        (stage("{jq: 3}"), &["2:18 wrong-type"], "expected a jq program"),
        (stage("{jq: .x, workers: 2}"), &["2:22 useless-key"], "a jq stage has no `workers`"),
        (stage("{jq: .x, retries: 2}"), &["2:22 useless-key"], "it is not tried twice"),
        (stage("{python: 'm:f', jq: .x}"), &["2:29 two-kinds"], "the first kind"),
        (stage("{rust: f, env: {A: b}}"), &["2:23 useless-key"], "a rust stage has no `env`"),
        (stage("{rust: 'not a name'}"), &["2:20 bad-name"], "name"),
        (stage("{python: 'm:f', threads: 0}"), &["2:38 out-of-range"], "number of jobs"),
        (stage("{python: 'm:f', threads: 2, concurrency: 2}"), &["2:41 two-ways"], "the other way"),
        (stage("{python: 'm:f', batch: {wait: 1s}}"), &["2:36 missing-key"], "`max`"),
        (stage("{python: 'm:f', batch: {max: 2, weight: 3}}"), &["2:53 wrong-type"], "expected a jq program"),
        (stage("{python: 'm:f', batch: {max: 2, weight: '.x |'}}"), &["2:53 bad-jq"], "not a jq program"),
        (stage("{python: 'm:f', goto: b}"), &["2:35 wrong-type"], "a list"),
        (stage("{python: 'm:f', goto: [b]}"), &["2:36 unknown-name"], "there is no stage or pipeline `b`"),
        (stage("{jq: .x, goto: [p]}"), &["2:22 useless-key"], "only code can answer with a goto"),
        (stage("{python: 'm:f', batch: {max: 2, wait: [1s]}}"), &["2:51 wrong-type"], "or a mapping with `idle`"),
        (stage("{python: 'm:f', batch: {max: 2, wait: {}}}"), &["2:51 missing-key"], "beside an idle worker"),
        (stage("{python: 'm:f', batch: {max: 2, wait: {idle: 2}}}"), &["2:58 bad-duration"], "has no unit"),
        (stage("{python: 'm:f', batch: {max: 2, wait: {ilde: 2ms}}}"), &["2:52 unknown-key"], "`idle`"),
        (stage("{python: 'm:f', reload: stop}"), &["2:37 bad-choice"], "`stop-first`"),
        (stage("{jq: ., reload: stop-first}"), &["2:21 useless-key"], "runs in the node"),
        (stage("{command: [tr], reload: stop-first}"), &["2:29 useless-key"], "a command stage has no `reload`"),
        (stage("{python: 'm:f', batch: 4}"), &["2:36 wrong-type"], "`batch`, a mapping"),
        (stage("{jq: .x, threads: 2}"), &["2:22 useless-key"], "a jq stage has no `threads`"),
        (stage("{jq: .x, zmq: {}}"), &["2:22 two-kinds"], "make two stages of it"),
        (stage("{python: 'm:f', affinity: '.x |'}"), &["2:39 bad-jq"], "not a jq program"),
        (stage("{python: 'm:f', affinity: .x, batch: {max: 2}}"), &["2:29 two-ways"], "leave out"),
        (stage("{python: 'm:f', fairness: .x}"), &["2:29 unknown-key"], "`fairness`"),
        (stage("{function: 'm:f'}"), &["2:14 unknown-key"], "write `python: module:function`"),
        (stage("{python: 'm'}"), &["2:22 bad-python"], "a colon, and the function or class"),
        (stage("{python: 'a.b.c'}"), &["2:22 bad-python"], "write `a.b:c`"),
        (stage("{python: 'm.py:f'}"), &["2:22 bad-python"], "as Python imports it: `m:f`"),
        (stage("{python: './x/m.py:f'}"), &["2:22 bad-python"], "imports it: `x.m:f`"),
        (stage("{python: 'm:'}"), &["2:22 bad-python"], "not the name of a function or class"),
        (stage("{python: ':f'}"), &["2:22 bad-python"], "not the name of a module"),
        (stage("{python: 'a..b:f'}"), &["2:22 bad-python"], "`a..b` in `a..b:f`"),
        (stage("{python: 'a:b:c'}"), &["2:22 bad-python"], "`b:c` in `a:b:c`"),
        (stage("{python: 'a:1b'}"), &["2:22 bad-python"], "Python identifiers"),
        (stage("{python: [m, f]}"), &["2:22 wrong-type"], "found a list"),
    ]);
    assert!(parse(&stage("{python: 'größe.maß:f'}")).is_ok(), "Python allows such names");
}

#[test]
fn commands() {
    let stage = |what: &str| format!("service: s\nstages: {{a: {what}}}\npipelines: {{p: [a]}}");
    check(&[
        (stage("{command: 'tr a-z A-Z'}"), &["2:23 wrong-type"], "no shell stands in between: write `[tr, a-z, A-Z]`"),
        (stage("{command: tr}"), &["2:23 wrong-type"], "write it between brackets: `[tr]`"),
        (stage("{command: []}"), &["2:23 empty-command"], "a command needs a program"),
        (stage("{command: [[tr]]}"), &["2:24 wrong-type"], "expected a program, found a list"),
        (stage("{command: [tr, {}]}"), &["2:28 wrong-type"], "expected an argument, a text"),
        (stage("{command: ['']}"), &["2:24 bad-command"], "cannot be a part of a command"),
        (stage("{command: [tr, \"a\\0\"]}"), &["2:28 bad-command"], "cannot be a part of a command"),
        (stage("{command: ['{{ .x }}']}"), &["2:24 bad-command"], "which program runs cannot come out of a value"),
        (stage("{command: [tr, '{{ .x']}"), &["2:28 bad-jq"], "has no `}}`"),
        (stage("{command: [tr, 'a{{ foo }}']}"), &["2:28 bad-jq"], "at line 1, column 5 of the argument"),
        (stage("{command: [tr], protocol: http}"), &["2:39 bad-choice"], "one of `frames`"),
        (stage("{command: [tr], output: xml}"), &["2:37 bad-choice"], "`text`"),
        (stage("{command: [tr], batch: {max: 2}}"), &["2:29 useless-key"], "a command stage has no `batch`"),
        (stage("{command: [tr], affinity: .x}"), &["2:29 useless-key"], "a process of its own"),
        (stage("{command: [tr], workers: {min: 1, max: 2}}"), &["2:29 useless-key"], "more and fewer"),
        (stage("{rust: f, workers: {min: 1, max: 2}}"), &["2:23 useless-key"], "more and fewer"),
        (stage("{command: [tr], goto: [p]}"), &["2:29 useless-key"], "only code can answer with a goto"),
        (stage("{command: [tr], concurrency: 2}"), &["2:29 useless-key"], "`workers` says how many at a time"),
        (stage("{command: [tr], interpreter: python3}"), &["2:29 useless-key"], "it is no Python stage"),
        (stage("{command: [tr], start_timeout: 1s}"), &["2:29 useless-key"], "a process of its own"),
        (stage("{command: [tr], protocol: frames, output: json}"), &["2:47 useless-key"], "a frames stage has no"),
        (stage("{command: [tr], protocol: frames, threads: 2}"), &["2:47 useless-key"], "write `concurrency`"),
        (stage("{python: 'm:f', protocol: frames}"), &["2:29 useless-key"], "that is for a `command`"),
        (stage("{python: 'm:f', max_output: 1}"), &["2:29 useless-key"], "a python stage has no `max_output`"),
        (stage("{jq: ., output: text}"), &["2:21 useless-key"], "a jq stage has no `output`"),
        (stage("{args: [tr]}"), &["2:14 unknown-key"], "the arguments stand behind the program"),
    ]);
}

#[test]
fn values_of_stages() {
    check(&[
        (with_stage("workers: -1"), &["5:14 out-of-range"], "of at least 0, found the number `-1`"),
        (with_stage("workers: 5000"), &["5:14 out-of-range"], "of at most 4096"),
        (with_stage("workers: 99999999999999999999"), &["5:14 out-of-range"], "at most"),
        (with_stage("workers: 1.5"), &["5:14 wrong-type"], "a number of workers, `auto`"),
        (with_stage("workers: '2'"), &["5:14 wrong-type"], "found the text `2`"),
        (with_stage("workers: Auto"), &["5:14 wrong-type"], "found the text `Auto`"),
        (with_stage("workers: {min: 3, max: 2}"), &["5:23 out-of-range"], "less than `min`"),
        (with_stage("workers: {min: 3}"), &["5:14 missing-key"], "`max`"),
        (with_stage("timeout: 5"), &["5:14 bad-duration"], "write `5s`"),
        (with_stage("timeout: 0s"), &["5:14 out-of-range"], "longer than nothing"),
        (with_stage("timeout: 5 minutes"), &["5:14 bad-duration"], "the units are"),
        (with_stage("timeout: [1s]"), &["5:14 wrong-type"], "`2s`, found a list"),
        (with_stage("timeout: {s: 1}"), &["5:14 wrong-type"], "`2s`, found a mapping"),
        (with_stage("timeout: true"), &["5:14 wrong-type"], "found the boolean `true`"),
        (with_stage("timeout: 9000h"), &["5:14 bad-duration"], "too long"),
        (with_stage("retries: 1001"), &["5:14 out-of-range"], "at most 1000"),
        (with_stage("retry_on: lost"), &["5:15 wrong-type"], "between brackets: `[lost]`"),
        (with_stage("retry_on: [last]"), &["5:16 bad-choice"], "did you mean `lost`?"),
        (with_stage("retry_on: [lost, lost]"), &["5:22 duplicate-item"], "first here"),
        (with_stage("queue: 0"), &["5:12 out-of-range"], "at least 1"),
        (with_stage("env: [A]"), &["5:10 wrong-type"], "a mapping from variables to values"),
        (with_stage("env: {A: [1]}"), &["5:14 wrong-type"], "found a list"),
        (with_stage("env: {A: null}"), &["5:14 wrong-type"], "`\"\"` if it is empty"),
        (with_stage("env: {'A=B': 1}"), &["5:11 bad-name"], "the name of a variable"),
        (with_stage("cwd: nowhere"), &["5:10 missing-file"], "no folder `/srv/app/nowhere`"),
        (with_stage("interpreter: bin/no"), &["5:18 missing-file"], "no file `/srv/app/bin/no`"),
        (with_stage("memory: 64"), &["5:13 out-of-range"], "at least 1MiB"),
        (with_stage("memory: 64M"), &["5:13 bad-size"], "write `64MiB`"),
        (with_stage("memory: 1.5"), &["5:13 bad-size"], "not a whole number of bytes"),
        (with_stage("memory: -1"), &["5:13 bad-size"], "`-1` is not a size"),
        (with_stage("max_jobs_per_worker: 0"), &["5:26 out-of-range"], "at least 1"),
        (with_stage("on_cancel: kil"), &["5:16 bad-choice"], "did you mean `kill`?"),
    ]);
}

#[test]
fn pipelines() {
    let pipelines =
        |what: &str| format!("service: s\nstages: {{one: {{python: \"m:f\"}}}}\npipelines:\n  all: [one]\n  {what}");
    check(&[
        (pipelines("p: []"), &["5:3 empty-pipeline"], "list at least one stage"),
        (pipelines("p: one"), &["5:6 wrong-type"], "`[one]`"),
        (pipelines("p: [oen]"), &["5:7 unknown-name"], "did you mean `one`?"),
        (pipelines("p: [zzz]"), &["5:7 unknown-name"], "there are `one`, `all`, `p`"),
        (pipelines("p: [true]"), &["5:7 wrong-type"], "put quotes around a name"),
        (pipelines("p: [[one]]"), &["5:7 wrong-type"], "found a list"),
        (pipelines("p: [{one: 1}]"), &["5:7 bad-step"], "`each: .items` and `do: stage`"),
        (pipelines("p: [{scatter: {}}]"), &["5:17 bad-scatter"], "name the branches"),
        (pipelines("p: [{scatter: [one]}]"), &["5:17 wrong-type"], "branches by name"),
        (pipelines("p: [{scatter: [one, [one]]}]"), &["5:17 wrong-type"], "`scatter: {one: one, name: steps}`"),
        (pipelines("p: [{scatter: {a: oen}}]"), &["5:21 unknown-name"], "did you mean `one`?"),
        (pipelines("p: [{scatter: {a: []}}]"), &["5:21 empty-pipeline"], "list at least one stage"),
        (pipelines("p: [{scatter: {a: one}, each: .x}]"), &["5:7 two-kinds"], "make two steps of it"),
        (pipelines("p: [{scatter: {a: one}, timout: 1s}]"), &["5:27 unknown-key"], "did you mean `timeout`?"),
        (pipelines("p: [{scatter: {a: one}, fallback_on: [error]}]"), &["5:27 no-fallback"], "add `fallback`"),
        (pipelines("p: [{scatter: {a: one}, on_failure: wait}]"), &["5:39 bad-choice"], "`collect`"),
        (pipelines("p: [{each: .x}]"), &["5:7 missing-key"], "`do`"),
        (pipelines("p: [{do: one}]"), &["5:7 missing-key"], "`each`"),
        (pipelines("p: [{each: '.x |', do: one}]"), &["5:14 bad-jq"], "not a jq program"),
        (pipelines("p: [{each: .x, do: one, max_in_flight: 0}]"), &["5:42 out-of-range"], "number of elements"),
        (pipelines("p: [{scatter: {a: p}}]"), &["5:21 pipeline-cycle"], "the pipeline `p` contains itself"),
        (pipelines("p: [{each: .x, do: [one, p]}]"), &["5:28 pipeline-cycle"], "`p` → `p.do` → `p`"),
        (pipelines("p: [p]"), &["5:7 pipeline-cycle"], "the pipeline `p` contains itself"),
        (pipelines("p: [q]\n  q: [one, p]"), &["6:12 pipeline-cycle"], "`p` → `q` → `p`"),
        (pipelines("one: [all]"), &["5:3 duplicate-name"], "the stage"),
        (pipelines("7: [one]"), &["5:3 bad-name"], "`7` cannot be a name"),
        (
            "service: s\nstages: {a: {python: \"m:f\"}, b: {python: \"m:g\"}}\npipelines: {p: [a]}".into(),
            &["2:30 unreachable-stage"],
            "in the `goto` of a stage",
        ),
    ]);
}

#[test]
fn pipelines_have_bounds() {
    let doubled: String = (1..12).map(|i| format!("\n  p{i}: [p{0}, p{0}]", i - 1)).collect();
    let text = format!("service: s\nstages: {{a: {{python: \"m:f\"}}}}\npipelines:\n  p0: [a]{doubled}");
    assert_eq!(codes(&bad(&text)), ["14:3 long-pipeline"]);

    let deep: String = (1..200).rev().map(|i| format!("\n  p{i}: [p{}]", i - 1)).collect();
    let text = format!("service: s\nstages: {{a: {{python: \"m:f\"}}}}\npipelines:{deep}\n  p0: [a]");
    assert!(codes(&bad(&text)).iter().all(|code| code.ends_with("too-deep")));
}

#[test]
fn routes() {
    let bounds = with_route(&format!("path: /{}", "x".repeat(2048)));
    check(&[
        (with("routes: {path: /}"), &["4:9 wrong-type"], "expected a list, found a mapping"),
        (with("routes: [/]"), &["4:10 wrong-type"], "a mapping with `path` and `pipeline`"),
        (with("routes: [{path: /}]"), &["4:10 missing-key"], "needs the key `pipeline`"),
        (with("routes: [{path: /, stage: a}]"), &["4:20 unknown-key"], "write `pipeline`"),
        (with("routes: [{path: /, pipeline: pp}]"), &["4:30 unknown-name"], "there are `a`, `p`"),
        (with_route("path: x"), &["5:11 bad-route-path"], "write `/x`"),
        (with_route("path: /x y"), &["5:11 bad-route-path"], "percent-encoded"),
        (with_route("path: /é"), &["5:11 bad-route-path"], "cannot contain `é`"),
        (with_route("path: /x?y=1"), &["5:11 bad-route-path"], "sees the query"),
        (with_route("path: '/{'"), &["5:11 bad-route-path"], "the braces do not hold a name"),
        (with_route("path: '/{}'"), &["5:11 bad-route-path"], "the braces do not hold a name"),
        (with_route("path: '/{a}{b}'"), &["5:11 bad-route-path"], "has two parameters"),
        (with_route("path: '/{*a}/b'"), &["5:11 bad-route-path"], "does not stand at the end"),
        (with_route("path: '/{a}/{a}'"), &["5:11 bad-route-path"], "two parameters `a`"),
        (with_route("path: '/{a-b}'"), &["5:11 bad-route-path"], "the name of a parameter"),
        (bounds, &["5:11 bad-route-path"], "more than 2048 characters"),
        (with_route("path: /\nmethods: GET"), &["6:14 wrong-type"], "`[GET]`"),
        (with_route("path: /\nmethods: [get]"), &["6:15 bad-method"], "upper case: `GET`"),
        (with_route("path: /\nmethods: ['G T']"), &["6:15 bad-method"], "`G T` is not a method"),
        (with_route("path: /\nmethods: []"), &["6:14 empty-list"], "to take any"),
        (with_route("path: /\nmethods: [A, A]"), &["6:18 duplicate-item"], "given twice"),
        (with_route("path: /\nfallback_on: [error]"), &["6:5 no-fallback"], "add `fallback`"),
        (with_route("path: /\nfallback: 1\nfallback_on: []"), &["7:18 empty-list"], "never used"),
        (with_route("path: /\nfallback: .inf"), &["6:15 bad-json"], "JSON cannot hold"),
        (with_route("path: /\nfallback: [99999999999999999999]"), &["6:16 bad-json"], "quotes"),
        (with_route("path: /\ninput: bodi"), &["6:12 bad-choice"], "did you mean `body`?"),
        (with_route("path: /\ndecode: [json]"), &["6:13 wrong-type"], "`json`, `text`, `bytes`"),
        (with_route("path: /\ntimeout: 0s"), &["6:14 out-of-range"], "longer than nothing"),
        (with_route("path: /\nbody: lots"), &["6:11 bad-size"], "`lots` is not a size"),
        (with_route("path: /\npriority: 128"), &["6:15 out-of-range"], "from -128 to 127, not 128"),
        (with_route("path: /\npriority: high"), &["6:15 wrong-type"], "expected a whole number"),
        (with_route("path: /\npriority: 1.5"), &["6:15 wrong-type"], "expected a whole number"),
        (with_route("path: /\nhealth: true"), &["4:5 health-route"], "remove `pipeline`, or `health`"),
        (with_route("path: /\nhealth: ok"), &["6:13 wrong-type"], "expected `true` or `false`"),
        (with("routes: [{path: /, health: false}]"), &["4:10 missing-key"], "needs the key `pipeline`"),
        (with("routes: [{path: /, health: 1}]"), &["4:28 wrong-type"], "expected `true` or `false`"),
        (with("routes: [{path: /, health: true, body: 1}]"), &["4:34 health-route"], "`body` means nothing there"),
        (with("routes: [{path: /, health: true, on_error: p}]"), &["4:34 health-route"], "remove `on_error`"),
        (with("routes: [{path: /, helth: true}]"), &["4:20 unknown-key"], "did you mean `health`?"),
    ]);
}

#[test]
fn pages_of_other_origins() {
    let cors = |what: &str| with(&format!("cors: {what}"));
    let origin = |origin: &str| cors(&format!("{{origins: ['{origin}']}}"));
    check(&[
        (cors("true"), &["4:7 wrong-type"], "does not say which pages"),
        (cors("all"), &["4:7 wrong-type"], "`cors`, a mapping with `origins`"),
        (cors("{}"), &["4:7 missing-key"], "needs the key `origins`"),
        (cors("{origins: '*'}"), &["4:17 wrong-type"], "`[*]`"),
        (cors("{origins: []}"), &["4:17 empty-list"], "write `cors: false`"),
        (cors("{origins: ['*'], credentials: true}"), &["4:24 cors-credentials"], "the origins that are trusted"),
        (cors("{origins: ['*', 'https://a.example']}"), &["4:18 bad-origin"], "stands alone"),
        (cors("{origins: [https://a.example, https://a.example]}"), &["4:37 duplicate-item"], "given twice"),
        (cors("{allow_origins: ['*']}"), &["4:8 unknown-key"], "write `origins`"),
        (origin("example.org"), &["4:18 bad-origin"], "write `https://example.org`"),
        (origin("https://example.org/"), &["4:18 bad-origin"], "browsers send `https://example.org`"),
        (origin("https://example.org/page?x"), &["4:18 bad-origin"], "browsers send `https://example.org`"),
        (origin("https://Example.org"), &["4:18 bad-origin"], "browsers send `https://example.org`"),
        (origin("https://example.org:443"), &["4:18 bad-origin"], "browsers send `https://example.org`"),
        (origin("http://[::1]:80"), &["4:18 bad-origin"], "browsers send `http://[::1]`"),
        (origin("https://*.example.org"), &["4:18 bad-origin"], "each origin is written out"),
        (origin("null"), &["4:18 bad-origin"], "cannot be trusted"),
        (origin("https://"), &["4:18 bad-origin"], "is written as"),
        (origin("https://a:b"), &["4:18 bad-origin"], "is written as"),
        (origin("https://a b"), &["4:18 bad-origin"], "is written as"),
        (cors("{origins: ['*'], methods: [get]}"), &["4:34 bad-method"], "upper case: `GET`"),
        (cors("{origins: ['*'], headers: ['a b']}"), &["4:34 bad-header"], "words such as `Content-Type`"),
        (cors("{origins: ['*'], headers: ['*', a]}"), &["4:34 bad-header"], "stands alone"),
        (cors("{origins: ['*'], expose: ['*']}"), &["4:33 bad-header"], "that pages may read"),
        (cors("{origins: ['*'], headers: [a, A]}"), &["4:37 duplicate-item"], "given twice"),
        (cors("{origins: ['*'], max_age: 5}"), &["4:33 bad-duration"], "write `5s`"),
        (with_route("path: /\ncors: true"), &["6:11 wrong-type"], "does not say which pages"),
        (with("compression: gzip"), &["4:14 wrong-type"], "expected `true` or `false`"),
        (with_route("path: /\ncompression: 1"), &["6:18 wrong-type"], "expected `true` or `false`"),
    ]);
}

#[test]
fn routes_in_each_others_way() {
    let routes = |a: &str, b: &str| with(&format!("routes:\n  - {{pipeline: a, {a}}}\n  - {{pipeline: a, {b}}}"));
    check(&[
        (routes("path: /x", "path: /x"), &["6:25 route-conflict"], "taken here"),
        (
            routes("path: /x, methods: [GET, PUT]", "path: /x, methods: [POST, PUT]"),
            &["6:25 route-conflict"],
            "with the same method",
        ),
        (routes("path: /x, methods: [GET]", "path: /x"), &["6:25 route-conflict"], "taken here"),
        (routes("path: /x", "path: /x, methods: [GET]"), &["6:25 route-conflict"], "taken here"),
        (routes("path: '/{a}'", "path: '/{b}'"), &["6:25 route-conflict"], "the other path"),
        (
            routes("path: '/{a}', methods: [GET]", "path: '/{b}', methods: [POST]"),
            &["6:25 route-conflict"],
            "name the parameters of both alike",
        ),
        (routes("path: '/x/{*a}'", "path: '/x/{*b}'"), &["6:25 route-conflict"], "the other path"),
    ]);
}

#[test]
fn limits() {
    check(&[
        (with("limits: {queue: 0}"), &["4:17 out-of-range"], "at least 1"),
        (with("limits: {connections: none}"), &["4:23 wrong-type"], "a number of connections"),
        (with("limits: {memory: 0}"), &["4:18 out-of-range"], "at least 1B"),
        (with("limits: {headers: 10}"), &["4:19 out-of-range"], "at least 1KiB"),
        (with("limits: {max_hops: -1}"), &["4:20 out-of-range"], "at least 0"),
        (with("limits: {idle_timeout: 0ms}"), &["4:24 out-of-range"], "longer than nothing"),
        (with("limits: {body: [1]}"), &["4:16 wrong-type"], "such as `64MiB`, found a list"),
        (with("limits: {bodi: 1}"), &["4:10 unknown-key"], "did you mean `body`?"),
    ]);
    assert!(parse(&with("limits: {body: 0, max_hops: 0}")).is_ok());
}

#[test]
fn triggers() {
    let trigger = |text: &str| with(&format!("triggers: [{{{text}}}]"));
    check(&[
        (with("triggers: {}"), &["4:11 wrong-type"], "a list"),
        (trigger("pipeline: a"), &["4:12 missing-key"], "`every` or `cron` or `on`"),
        (trigger("every: 1s"), &["4:12 missing-key"], "`pipeline`"),
        (trigger("every: 0s, pipeline: a"), &["4:20 out-of-range"], "longer than nothing"),
        (trigger("every: 1s, on: startup, pipeline: a"), &["4:24 two-kinds"], "make two triggers of it"),
        (trigger("on: reload, pipeline: a"), &["4:17 bad-choice"], "`shutdown`"),
        (trigger("cron: daily, pipeline: a"), &["4:19 bad-cron"], "`0 3 * * *`"),
        (trigger("cron: '0 0 30 2 *', pipeline: a"), &["4:19 bad-cron"], "never"),
        (trigger("cron: '0 3 * * *', timezone: Mars, pipeline: a"), &["4:32 bad-timezone"], "`Europe/Berlin`"),
        (trigger("every: 1s, timezone: UTC, pipeline: a"), &["4:24 useless-key"], "`timezone` is of `cron`"),
        (trigger("every: 1s, pipeline: b"), &["4:34 unknown-name"], "there"),
        (trigger("every: 1s, pipeline: a, priority: 200"), &["4:47 out-of-range"], "127"),
        (trigger("every: 1s, pipeline: a, overlap: wait"), &["4:46 bad-choice"], "`run`"),
    ]);
}
