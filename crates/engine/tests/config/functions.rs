//! Function pools: what a file says about them, and what is wrong with it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use evener_engine::config::{FunctionPool, Limits, Listen, OnCancel, Service, Workers};

use super::{bad, codes, good, parse, with};

/// A service with nothing but function pools.
fn pools(what: &str) -> String {
    format!("service: s\nfunctions: {what}\n")
}

/// A service with one function pool that has these keys.
fn pool(keys: &str) -> String {
    pools(&format!("{{default: {{{keys}}}}}"))
}

fn check(cases: &[(String, &[&str], &str)]) {
    for (text, expected, piece) in cases {
        let report = bad(text);
        assert_eq!(codes(&report), *expected, "{text}\n{report}");
        assert!(report.to_string().contains(piece), "{piece:?} is not in\n{report}");
    }
}

#[test]
fn functions_are_all_that_a_service_needs() {
    for text in [pools("{default: {}}"), pools("{default: }"), pools("{default: null}"), pools("\n  default:")] {
        let loaded = parse(&text).unwrap();
        assert!(loaded.warnings.is_empty(), "{text}\n{}", loaded.warnings);
        let service = loaded.service;
        assert_eq!(service.functions, [FunctionPool::new("default", "/srv/app".into())], "{text}");
        assert!(service.stages.is_empty() && service.pipelines.is_empty() && service.routes.is_empty());
        assert_eq!(service.listen, Listen::default());
    }
}

#[test]
fn what_is_left_out_of_a_pool_has_its_default() {
    let service = good(&pools("{default: {}}"));
    let pool = &service.functions[0];
    assert_eq!(pool.name, "default");
    assert_eq!(pool.workers, Workers::Auto);
    assert_eq!(pool.queue, None);
    assert_eq!(pool.env, []);
    assert_eq!(pool.cwd, Path::new("/srv/app"));
    assert_eq!(pool.interpreter, None);
    assert_eq!(pool.sys_path, None);
    assert_eq!(pool.memory, None);
    assert_eq!(pool.max_jobs_per_worker, None);
    assert_eq!(pool.start_timeout, Duration::from_secs(300));
    assert_eq!(pool.grace, Duration::from_secs(5));
    assert_eq!(pool.on_cancel, OnCancel::Kill, "a caller that is gone can never take the result");
    assert_eq!(pool.output, 8 << 20);
}

#[test]
fn every_key_of_a_pool_is_taken() {
    let service = good(&pools(
        "\n  default:\n    workers: 20\n    queue: 3\n    env: {PORT: 8080, INDEX: 'w{index}'}\n    cwd: /\n    \
         interpreter: python3.12\n    memory: 64MiB\n    max_jobs_per_worker: 100\n    start_timeout: 1m\n    \
         grace: 0s\n    on_cancel: tell\n    output: 1KiB\n  quiet: {workers: 0, output: 0}",
    ));
    let text = |text: &str| text.to_string();
    let expected = FunctionPool {
        name: text("default"),
        workers: Workers::Count(20),
        queue: Some(3),
        env: vec![(text("PORT"), text("8080")), (text("INDEX"), text("w{index}"))],
        cwd: PathBuf::from("/"),
        interpreter: Some("python3.12".into()),
        sys_path: None,
        memory: Some(64 << 20),
        max_jobs_per_worker: Some(100),
        start_timeout: Duration::from_secs(60),
        grace: Duration::ZERO,
        on_cancel: OnCancel::Tell,
        output: 1 << 10,
    };
    assert_eq!(service.functions[0], expected);
    let quiet = &service.functions[1];
    assert_eq!((&*quiet.name, quiet.workers, quiet.output), ("quiet", Workers::Count(0), 0));
}

#[test]
fn a_file_that_does_not_say_functions_takes_none() {
    assert_eq!(good(&with("")).functions, []);
}

#[test]
fn functions_stand_beside_stages() {
    let service = good(&with("functions: {default: {workers: 2}, other: }\nroutes: [{path: /, pipeline: p}]"));
    assert_eq!((service.stages.len(), service.pipelines.len(), service.routes.len()), (1, 1, 1));
    let names: Vec<_> = service.functions.iter().map(|pool| &*pool.name).collect();
    assert_eq!(names, ["default", "other"], "in the order of the file");
    assert_eq!(service.listen.http.unwrap().address, "127.0.0.1:8000");
}

#[test]
fn a_service_without_a_file() {
    let service = Service::functions_only("functions", Workers::Count(3), "/srv/app".into());
    let mut same = good("service: functions\nfunctions: {default: {workers: 3}}");
    same.file = PathBuf::new();
    same.files = Vec::new();
    assert_eq!(service, same);
    assert_eq!((service.limits, service.drain), (Limits::default(), Duration::from_secs(30)));
}

#[test]
fn workers_are_read_as_the_file_has_them() {
    for (text, workers) in [
        ("auto", Some(Workers::Auto)),
        ("0", Some(Workers::Count(0))),
        ("20", Some(Workers::Count(20))),
        ("4096", Some(Workers::Count(4096))),
        ("4097", None),
        ("-1", None),
        ("1.5", None),
        ("Auto", None),
        ("", None),
    ] {
        assert_eq!(text.parse().ok(), workers, "{text}");
    }
    let why = "many".parse::<Workers>().unwrap_err();
    assert_eq!(why, "expected a number of at most 4096, or `auto`");
}

#[test]
fn a_service_has_stages_or_functions() {
    check(&[
        ("service: s".into(), &["1:1 missing-key"], "a service file needs the key `stages` or `functions`"),
        ("service: s".into(), &["1:1 missing-key"], "`functions`: Pools of workers"),
        ("service: s\nfunction: {default: {}}".into(), &["2:1 unknown-key"], "did you mean `functions`?"),
        ("service: s\nstages: {}".into(), &["2:9 no-stages"], "has `functions` may leave `stages` out"),
        ("service: s\nstages: {}\nfunctions: {default: }".into(), &["2:9 no-stages"], "at least one stage"),
        ("x".into(), &["1:1 wrong-type"], "a mapping with `service` and `stages` or `functions`, found the text"),
    ]);
}

#[test]
fn shapes_of_functions() {
    check(&[
        (pools(""), &["2:1 wrong-type"], "such as `{default: {workers: auto}}`, found nothing"),
        (pools("{}"), &["2:12 no-pools"], "write `functions: {default: {}}`"),
        (pools("[default]"), &["2:12 wrong-type"], "expected function pools by name, such as"),
        (pools("auto"), &["2:12 wrong-type"], "found the text `auto`"),
        (pools("{default: 4}"), &["2:22 wrong-type"], "write `{workers: 4}`"),
        (pools("{default: auto}"), &["2:22 wrong-type"], "write `{workers: auto}`"),
        (pools("{default: []}"), &["2:22 wrong-type"], "expected a function pool, a mapping, found a list"),
        (pools("{default: ''}"), &["2:22 wrong-type"], "found an empty text"),
        (pools("{7up: {}}"), &["2:13 bad-name"], "begins with a letter"),
        (pools("{a: {}, a: {}}"), &["2:20 duplicate-key"], "first here"),
    ]);
}

#[test]
fn keys_of_a_pool() {
    let decorated = |key: &str| format!("say it where the function is decorated: `@evener.function({key})`");
    check(&[
        (pool("timeout: 5s"), &["2:23 unknown-key"], &decorated("timeout=60")),
        (pool("retries: 2"), &["2:23 unknown-key"], &decorated("retries=2")),
        (pool("retry_on: [lost]"), &["2:23 unknown-key"], "`@evener.function(retries=2)`"),
        (pool("backoff: 1s"), &["2:23 unknown-key"], "`@evener.function(retries=2)`"),
        (pool("python: 'm:f'"), &["2:23 unknown-key"], "is a stage: name it in `stages`"),
        (pool("max_workers: 3"), &["2:23 unknown-key"], "write `workers`"),
        (pool("worker: 3"), &["2:23 unknown-key"], "did you mean `workers`?"),
        (pool("threads: 3"), &["2:23 unknown-key"], "a function pool has no key `threads`"),
        (pool("workers: many"), &["2:32 wrong-type"], "a number of workers, `auto`"),
        (pool("workers: 5000"), &["2:32 out-of-range"], "of at most 4096"),
        (pool("workers: {min: 3, max: 2}"), &["2:41 out-of-range"], "less than `min`"),
        (pool("output: 8M"), &["2:31 bad-size"], "write `8MiB`"),
        (pool("output: none"), &["2:31 bad-size"], "is not a size"),
        (pool("queue: 0"), &["2:30 out-of-range"], "at least 1"),
        (pool("env: [A]"), &["2:28 wrong-type"], "a mapping from variables to values"),
        (pool("cwd: nowhere"), &["2:28 missing-file"], "no folder `/srv/app/nowhere`"),
        (pool("interpreter: bin/no"), &["2:36 missing-file"], "no file `/srv/app/bin/no`"),
        (pool("memory: 64"), &["2:31 out-of-range"], "at least 1MiB"),
        (pool("max_jobs_per_worker: 0"), &["2:44 out-of-range"], "at least 1"),
        (pool("start_timeout: 0s"), &["2:38 out-of-range"], "longer than nothing"),
        (pool("grace: 5"), &["2:30 bad-duration"], "write `5s`"),
        (pool("on_cancel: kil"), &["2:34 bad-choice"], "did you mean `kill`?"),
        (pool("sys_path: [x]"), &["2:23 unknown-key"], "its keys are `workers`, `interpreter`, `cwd`"),
    ]);
}

#[test]
fn a_name_stands_for_one_thing() {
    let shared = "stages, pipelines and function pools share their names";
    check(&[
        (with("functions: {a: }"), &["4:13 duplicate-name"], "`a` is the name of a stage and of a function pool"),
        (with("functions: {p: }"), &["4:13 duplicate-name"], "`p` is the name of a pipeline and of a function pool"),
        (with("functions: {p: }"), &["4:13 duplicate-name"], shared),
        (
            "service: s\nfunctions: {a: }\nstages: {a: {python: 'm:f'}}\npipelines: {p: [a], a: [a]}".into(),
            &["2:13 duplicate-name", "4:21 duplicate-name"],
            shared,
        ),
    ]);
    assert_eq!(
        bad(&with("functions: {a: }")).render(false),
        "\
error[duplicate-name]: `a` is the name of a stage and of a function pool
 --> service.yaml:4:13
  |
2 | stages: {a: {python: \"m:f\"}}
  |          - the stage
3 | pipelines: {p: [a]}
4 | functions: {a: }
  |             ^ the function pool
  |
  = help: stages, pipelines and function pools share their names: rename one of them

1 error in service.yaml
"
    );
}

#[test]
fn no_path_leads_to_a_function_pool() {
    let said = "`f` is a function pool, which takes functions from clients only";
    check(&[
        (with("functions: {f: }\nroutes: [{path: /, pipeline: f}]"), &["5:30 function-pool"], said),
        (
            "service: s\nfunctions: {f: }\npipelines: {p: [f]}".into(),
            &["3:17 function-pool"],
            "a stage runs a function of the service's own: `{python: \"module:function\"}`",
        ),
        ("service: s\nfunctions: {f: }\npipelines: {p: [f]}".into(), &["3:17 function-pool"], "the function pool"),
        // A name that is nearly a pool's is not taken for it.
        (
            with("functions: {work: }\nroutes: [{path: /, pipeline: wrok}]"),
            &["5:30 unknown-name"],
            "there are `a`, `p`",
        ),
    ]);
}

#[test]
fn stages_are_looked_at_as_ever() {
    let text = "service: s\nfunctions: {f: }\nstages: {a: {python: 'm:f'}, b: {python: 'm:g'}}\npipelines: {p: [a]}";
    assert_eq!(codes(&bad(text)), ["3:30 unreachable-stage"]);
    let loaded = parse(&pools("{default: {}}\nlimits: {body: 2GiB}")).unwrap();
    assert_eq!(codes(&loaded.warnings), ["3:10 body-over-memory"]);
}
