//! Files that are good, and what they mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use evener_engine::config::{
    self, Concurrency, Decode, FallbackOn, Filter, Input, Kind, Limits, Listener, OnCancel, OnFailure, Over,
    PythonTarget, Replacement, RetryOn, RouteTarget, Step, Target, Workers,
};
use serde_json::json;

use super::{good, no_env, parse, with, with_route, with_stage};

const PRIMES: &str = r#"
service: primes
listen:
  http: 127.0.0.1:8002
  api:  127.0.0.1:7070
stages:
  parse:   {python: "primes:parse", workers: 2}
  compute: {python: "primes:compute", workers: auto, timeout: 2s}
  model:   {python: "ml.models:Model.large", workers: 0}
pipelines:
  primes: [parse, compute]
  scored:
    - primes
    - model
routes:
  - {path: /is_prime, pipeline: primes, timeout: 5s}
  - {path: "/items/{id}", methods: [POST], pipeline: scored, timeout: 3s, fallback: {success: false}}
  - {path: "/files/{*rest}", pipeline: model}
limits: {body: 10MiB, queue: 10000, memory: 1GiB, connections: 10000}
drain: 10s
debug: true
"#;

fn python(module: &str, attribute: &str) -> Kind {
    Kind::Python(PythonTarget { module: module.into(), attribute: attribute.into() })
}

#[test]
fn a_jq_stage() {
    let service = good("service: s\nstages: {a: {jq: '.x + 1', timeout: 2s, queue: 5}}\npipelines: {p: [a]}");
    assert_eq!(service.stages[0].kind, Kind::Jq(Filter { source: ".x + 1".into() }));
    assert_eq!(service.stages[0].queue, Some(5));
}

#[test]
fn a_service_is_resolved() {
    let loaded = parse(PRIMES).unwrap();
    assert!(loaded.warnings.is_empty());
    let service = loaded.service;
    assert_eq!(service.name, "primes");
    assert_eq!(service.file, Path::new("service.yaml"));
    assert_eq!(service.folder, Path::new("/srv/app"));
    let address = |listener: Option<Listener>| listener.unwrap().address;
    assert_eq!(address(service.listen.http), "127.0.0.1:8002");
    assert_eq!(address(service.listen.api), "127.0.0.1:7070");

    let names: Vec<_> = service.stages.iter().map(|stage| &*stage.name).collect();
    assert_eq!(names, ["parse", "compute", "model"]);
    let workers: Vec<_> = service.stages.iter().map(|stage| stage.workers).collect();
    assert_eq!(workers, [Workers::Count(2), Workers::Auto, Workers::Count(0)]);
    assert_eq!(service.stages[1].timeout, Duration::from_secs(2));
    assert_eq!(service.stages[2].kind, python("ml.models", "Model.large"));

    assert_eq!(service.pipelines[0].steps, [0, 1].map(Step::Stage));
    assert_eq!(service.pipelines[1].steps, [0, 1, 2].map(Step::Stage), "a pipeline as a step is taken in");

    let targets: Vec<_> = service.routes.iter().map(|route| route.target).collect();
    assert_eq!(targets, [Target::Pipeline(0), Target::Pipeline(1), Target::Stage(2)].map(RouteTarget::Path));
    assert_eq!(service.routes[0].methods, None);
    assert_eq!(service.routes[1].methods, Some(vec!["POST".into()]));
    assert_eq!(service.routes[1].fallback, Some(json!({"success": false})));
    assert_eq!(service.drain, Duration::from_secs(10));
    assert!(service.debug);
}

#[test]
fn what_is_left_out_has_its_default() {
    let service = good(&with_stage(""));
    assert_eq!(service.limits, Limits::default());
    assert_eq!(service.drain, Duration::from_secs(30));
    assert!(!service.debug);
    assert_eq!(service.listen.http.unwrap().address, "127.0.0.1:8000");
    assert_eq!(service.listen.api, None);

    let stage = &service.stages[0];
    assert_eq!(stage.workers, Workers::Count(1));
    assert_eq!(stage.timeout, Duration::from_secs(60));
    assert_eq!(stage.retries, 2);
    assert_eq!(stage.retry_on, RetryOn { lost: true, timeout: false, error: false });
    assert_eq!(stage.backoff, None);
    assert_eq!(stage.queue, None);
    assert_eq!(stage.env, []);
    assert_eq!(stage.cwd, Path::new("/srv/app"));
    assert_eq!(stage.interpreter, None);
    assert_eq!(stage.memory, None);
    assert_eq!(stage.max_jobs_per_worker, None);
    assert_eq!(stage.start_timeout, Duration::from_secs(300));
    assert_eq!(stage.grace, Duration::from_secs(5));
    assert_eq!(stage.on_cancel, OnCancel::Tell);

    let route = &service.routes[0];
    assert_eq!(route.timeout, Duration::from_secs(30));
    assert_eq!(route.fallback, None);
    assert!(route.fallback_on.timeout && !route.fallback_on.error);
    assert_eq!((route.input, route.decode, route.body, route.priority), (Input::Auto, None, None, 0));

    let limits = Limits::default();
    assert_eq!((limits.body, limits.queue, limits.memory), (10 << 20, 10_000, 1 << 30));
    assert_eq!((limits.connections, limits.max_hops, limits.headers), (10_000, 64, 64 << 10));
    let seconds = [limits.header_timeout, limits.body_timeout, limits.idle_timeout];
    assert_eq!(seconds.map(|timeout| timeout.as_secs()), [10, 30, 75]);
}

#[test]
fn without_routes_nothing_listens_for_them() {
    assert_eq!(good(&with("")).listen.http, None);
    assert!(good(&with("listen: {http: \"127.0.0.1:0\"}")).listen.http.is_some());
}

#[test]
fn every_key_of_a_stage_is_taken() {
    let service = good(&with_stage(
        "workers: 7\ntimeout: 250ms\nretries: 5\nretry_on: [error, timeout]\nbackoff: 1.5s\nqueue: 3\n\
         env: {PORT: 8080, VERSION: 1.10, EMPTY: '', FLAG: true, INDEX: 'w{index}'}\ncwd: /\n\
         interpreter: /bin/sh\nmemory: 64MiB\nmax_jobs_per_worker: 100\nstart_timeout: 1m\ngrace: 0s\n\
         on_cancel: kill",
    ));
    let stage = &service.stages[0];
    assert_eq!(stage.workers, Workers::Count(7));
    assert_eq!(stage.timeout, Duration::from_millis(250));
    assert_eq!(stage.retries, 5);
    assert_eq!(stage.retry_on, RetryOn { lost: false, timeout: true, error: true });
    assert_eq!(stage.backoff, Some(Duration::from_millis(1500)));
    assert_eq!(stage.queue, Some(3));
    let env: Vec<_> = stage.env.iter().map(|(name, value)| (&**name, &**value)).collect();
    let expected = [("PORT", "8080"), ("VERSION", "1.10"), ("EMPTY", ""), ("FLAG", "true"), ("INDEX", "w{index}")];
    assert_eq!(env, expected, "values are taken as written, in their order");
    assert_eq!(stage.cwd, Path::new("/"));
    assert_eq!(stage.interpreter, Some(PathBuf::from("/bin/sh")));
    assert_eq!(stage.memory, Some(64 << 20));
    assert_eq!(stage.max_jobs_per_worker, Some(100));
    assert_eq!(stage.start_timeout, Duration::from_secs(60));
    assert_eq!(stage.grace, Duration::ZERO);
    assert_eq!(stage.on_cancel, OnCancel::Kill);
}

#[test]
fn every_key_of_a_route_is_taken() {
    let service = good(&with_route(
        "path: /x\nmethods: [GET, M-SEARCH]\ntimeout: 1h\nfallback: null\n\
         fallback_on: [error, lost, unavailable]\ninput: request\ndecode: bytes\nbody: 10KB\n\
         priority: -128",
    ));
    let route = &service.routes[0];
    assert_eq!(route.methods, Some(vec!["GET".into(), "M-SEARCH".into()]));
    assert_eq!(route.timeout, Duration::from_secs(3600));
    assert_eq!(route.fallback, Some(json!(null)), "null is an answer, too");
    assert_eq!(route.fallback_on, FallbackOn { timeout: false, error: true, lost: true, unavailable: true });
    assert_eq!(route.input, Input::Request);
    assert_eq!(route.decode, Some(Decode::Bytes));
    assert_eq!(route.body, Some(10_000));
    assert_eq!(route.priority, -128);
}

#[test]
fn a_route_may_go_to_no_stage() {
    let service =
        good(&with("routes: [{path: /up, methods: [GET], health: true}, {path: /, pipeline: a, health: false}]"));
    let targets: Vec<_> = service.routes.iter().map(|route| route.target).collect();
    assert_eq!(targets, [RouteTarget::Health, RouteTarget::Path(Target::Stage(0))]);
}

#[test]
fn cors_and_compression_of_the_service_go_for_routes_that_say_nothing() {
    let service = good(&with(
        "cors: {origins: ['http://[::1]:3000', 'https://a.example', 'app+x://y']}\ncompression: true\nroutes:\n\
         - {path: /a, pipeline: a}\n- {path: /b, pipeline: a, cors: false, compression: false}\n\
         - {path: /c, pipeline: a, cors: {origins: ['*'], headers: ['*'], max_age: 0s, expose: []}}",
    ));
    let [a, b, c] = &service.routes[..] else { panic!("{:?}", service.routes) };
    assert_eq!([a.compression, b.compression, c.compression], [true, false, true]);
    let unsaid = a.cors.clone().unwrap();
    assert_eq!(unsaid.origins, ["http://[::1]:3000", "https://a.example", "app+x://y"]);
    assert_eq!((unsaid.methods, unsaid.credentials, unsaid.max_age), (None, false, Duration::from_secs(600)));
    assert_eq!(unsaid.headers, ["Content-Type"]);
    assert_eq!(unsaid.expose, ["Evener-Request-Id", "Evener-Fallback", "Retry-After"]);
    assert_eq!(b.cors, None);
    let own = c.cors.clone().unwrap();
    assert_eq!((own.origins, own.headers), (vec!["*".to_owned()], vec!["*".to_owned()]));
    assert_eq!((own.expose.len(), own.max_age), (0, Duration::ZERO));
    assert!(good(&with_route("path: /")).routes[0].cors.is_none());
}

#[test]
fn a_fallback_is_any_json() {
    let route =
        with_route("path: /\nfallback: {a: [1, -2.5, 0x10, true, null, ~, yes, '7'], b: {}, 1: 18446744073709551615}");
    let expected = json!({
        "a": [1, -2.5, 16, true, null, null, "yes", "7"], "b": {}, "1": u64::MAX,
    });
    assert_eq!(good(&route).routes[0].fallback, Some(expected));
}

#[test]
fn an_interpreter_is_a_command_or_a_path() {
    let interpreter =
        |text: &str| good(&with_stage(&format!("interpreter: {text}"))).stages[0].interpreter.clone().unwrap();
    assert_eq!(interpreter("python3.12"), Path::new("python3.12"));
    assert_eq!(interpreter("/bin/sh"), Path::new("/bin/sh"));
}

#[test]
fn routes_may_share_a_path_or_a_beginning() {
    for routes in [
        "[{path: /a, pipeline: a, methods: [GET]}, {path: /a, pipeline: a, methods: [POST, PUT]}]",
        "[{path: /a/b, pipeline: a}, {path: '/a/{x}', pipeline: a}]",
        "[{path: '/a/{x}', pipeline: a}, {path: '/a/{x}/b', pipeline: a}]",
        "[{path: '/{{x}}', pipeline: a}, {path: '/{x}', pipeline: a}]",
        "[]",
    ] {
        good(&with(&format!("routes: {routes}")));
    }
}

#[test]
fn listeners_are_texts_or_mappings() {
    let folder = new_folder();
    std::fs::write(folder.join("cert.pem"), "").unwrap();
    std::fs::write(folder.join("key.pem"), "").unwrap();
    let text = with(
        "listen:\n  http: {address: 'localhost:0', insecure: true}\n  \
         api: {address: '[::]:7070', tls: {cert: cert.pem, key: key.pem}}",
    );
    let service = config::parse("s.yaml", &text, &folder, &no_env).unwrap().service;
    let http = service.listen.http.unwrap();
    assert!(http.insecure && http.is_loopback());
    assert_eq!(http.host_and_port(), ("localhost", 0));
    let api = service.listen.api.unwrap();
    assert_eq!(api.host_and_port(), ("::", 7070));
    assert!(!api.is_loopback());
    let tls = api.tls.unwrap();
    assert_eq!((tls.cert, tls.key), (folder.join("cert.pem"), folder.join("key.pem")));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn who_can_reach_an_address() {
    for (address, loopback) in [
        ("127.0.0.1:1", true),
        ("127.9.9.9:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("localhost:1", true),
        ("api.localhost:1", true),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
        ("10.0.0.1:1", false),
        ("localhost.example.org:1", false),
    ] {
        assert_eq!(Listener::new(address).unwrap().is_loopback(), loopback, "{address}");
    }
}

#[test]
fn a_file_is_loaded_and_its_folder_is_absolute() {
    let folder = new_folder();
    let path = folder.join("primes.yaml");
    std::fs::write(&path, PRIMES).unwrap();
    let service = config::load(&path, &no_env).unwrap().service;
    assert_eq!((service.file, &service.folder), (path, &folder));
    assert_eq!(service.stages[0].cwd, folder);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn few_things_are_worth_a_warning() {
    for (text, codes) in [
        (with_stage("retries: 0\nretry_on: [timeout]"), vec!["6:5 useless-key"]),
        (with_stage("retries: 0\nretry_on: []"), vec![]),
        (with("limits: {body: 2GiB}"), vec!["4:10 body-over-memory"]),
        (with("limits: {memory: 1MiB}"), vec!["4:10 body-over-memory"]),
    ] {
        let loaded = parse(&text).unwrap();
        assert_eq!(super::codes(&loaded.warnings), codes, "{text}");
    }
}

/// A new empty folder.
pub(crate) fn new_folder() -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("evener-config-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn steps_with_branches() {
    let service = good(
        "service: s\nstages: {a: {python: 'm:f'}, b: {jq: .}}\npipelines:\n  p:\n    - a\n    - scatter: {x: a, y: [b, {each: '.l', do: q}]}\n      timeout: 2s\n      on_failure: collect\n      fallback: [1]\n      fallback_on: [error]\n  q: [b]",
    );
    let names: Vec<_> = service.pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect();
    assert_eq!(names, ["p", "q", "p.y"], "steps within a step make a pipeline behind the named ones");
    let Step::Scatter(scatter) = &service.pipelines[0].steps[1] else { panic!("it has branches") };
    let branches = vec![("x".to_owned(), Target::Stage(0)), ("y".to_owned(), Target::Pipeline(2))];
    assert_eq!(scatter.over, Over::Branches(branches));
    assert_eq!((scatter.timeout, scatter.on_failure), (Some(Duration::from_secs(2)), OnFailure::Collect));
    assert_eq!((&scatter.fallback, scatter.fallback_on.error), (&Some(json!([1])), true));
    let Step::Scatter(each) = &service.pipelines[2].steps[1] else { panic!("it has branches") };
    let items = Filter { source: ".l".to_owned() };
    assert_eq!(each.over, Over::Each { items, over: Target::Pipeline(1), max_in_flight: 100 });
    assert_eq!((each.timeout, each.on_failure, &each.fallback), (None, OnFailure::Fail, &None));
}

#[test]
fn a_stage_is_a_rust_function() {
    let service = good("service: s\nstages: {a: {rust: f, workers: 3, retries: 1, grace: 1s}}\npipelines: {p: [a]}");
    assert_eq!(service.stages[0].kind, Kind::Rust("f".to_owned()));
}

#[test]
fn a_worker_may_do_several_jobs() {
    let concurrency = |text: &str| good(&with_stage(text)).stages[0].concurrency;
    assert_eq!(concurrency("retries: 1"), Concurrency::One);
    assert_eq!(concurrency("threads: 1"), Concurrency::One);
    assert_eq!(concurrency("threads: 4"), Concurrency::Threads(4));
    assert_eq!(concurrency("concurrency: 100"), Concurrency::Async(100));
    let (max, wait, idle) = (32, Duration::from_millis(5), Duration::ZERO);
    assert_eq!(concurrency("batch: {max: 32}"), Concurrency::Batch { max, wait, idle });
    assert_eq!(concurrency("batch: {max: 32, wait: 0s}"), Concurrency::Batch { max, wait: Duration::ZERO, idle });
    let idle = Duration::from_millis(2);
    assert_eq!(concurrency("batch: {max: 32, wait: {idle: 2ms}}"), Concurrency::Batch { max, wait, idle });
}

#[test]
fn a_stage_says_which_worker_is_first() {
    let reload = |text: &str| good(&with_stage(text)).stages[0].reload;
    assert_eq!(reload("retries: 1"), Replacement::StartFirst);
    assert_eq!(reload("reload: start-first"), Replacement::StartFirst);
    assert_eq!(reload("reload: stop-first"), Replacement::StopFirst);
}

#[test]
fn a_batch_may_be_weighed() {
    let service = good(&with_stage("batch: {max: 100, weight: .tokens}"));
    assert_eq!(service.stages[0].weight, Some(Filter { source: ".tokens".to_owned() }));
}

#[test]
fn a_stage_may_say_where_its_code_goes() {
    let service = good(
        "service: s\nstages: {a: {python: 'm:f', goto: [p, b, a]}, b: {python: 'm:g', goto: []}}\npipelines: {p: [a]}",
    );
    let targets = [Target::Pipeline(0), Target::Stage(1), Target::Stage(0)];
    assert_eq!(service.stages[0].goto.as_deref(), Some(&targets[..]));
    // What a goto leads to need not be on a path.
    assert_eq!(service.stages[1].goto.as_deref(), Some(&[][..]));
    assert_eq!(service.name_of(targets[0]), "p");
    assert_eq!(service.name_of(targets[1]), "b");
}

#[test]
fn a_command_for_each_job() {
    let service = good(
        "service: s\nstages:\n  a:\n    command: [/bin/echo, '-n', 'w={{ .w }}', 3, true, '{{ {a: {b: .x}} | .a.b }}']\n    \
         output: json\n    max_output: 1KiB\n    retry_on: [error]\n  b: {command: [./tool, '{{', x], protocol: frames, \
         concurrency: 4}\npipelines: {p: [a, b]}",
    );
    let [a, b] = &service.stages[..] else { panic!("two stages") };
    let Kind::Command(line) = &a.kind else { panic!("{:?}", a.kind) };
    assert_eq!(line.argv, ["/bin/echo", "-n", "w={{ .w }}", "3", "true", "{{ {a: {b: .x}} | .a.b }}"]);
    assert_eq!((a.output, a.max_output, a.retry_on.error), (Decode::Json, Some(1024), true));
    let Kind::Frames(line) = &b.kind else { panic!("{:?}", b.kind) };
    assert_eq!(line.program(&service.folder), "/srv/app/./tool");
    assert_eq!(line.arguments(), ["{{", "x"], "only a program for one job takes templates");
    assert_eq!(b.concurrency, Concurrency::Async(4));
    assert_eq!((b.output, b.max_output), (Decode::Text, None));
}

#[test]
fn a_program_that_is_not_there_is_a_warning() {
    let loaded = parse(
        "service: s\nstages:\n  a: {command: [no-such-program-anywhere, x]}\n  b: {command: [cat]}\n  c: {command: [no/such], \
         protocol: frames}\n  d: {command: [tr], env: {PATH: /nowhere}}\npipelines: {p: [a, b, c, d]}",
    );
    let warnings = loaded.unwrap().warnings;
    let codes = super::codes(&warnings);
    assert_eq!(codes, ["3:17 missing-program", "5:17 missing-program", "6:17 missing-program"], "{warnings}");
    assert!(warnings.to_string().contains("`no-such-program-anywhere` on the PATH"), "{warnings}");
}
