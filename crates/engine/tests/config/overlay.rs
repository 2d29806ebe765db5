//! Values that go over a service file.

use std::path::PathBuf;

use evener_engine::config::{self, Loaded, Overlay, Report, Workers};
use proptest::prelude::*;

use super::good::new_folder;
use super::{codes, no_env};

const TEXT: &str = "service: s\nstages: {a: {python: 'm:f', timeout: 2s}}\nroutes: [{path: /, pipeline: a}]\n";

fn load(overlays: &[&str]) -> Result<Loaded, Report> {
    let overlays: Vec<_> = overlays.iter().map(|text| Overlay::set(text).unwrap()).collect();
    let folder = new_folder();
    let path: PathBuf = folder.join("s.yaml");
    std::fs::write(&path, TEXT).unwrap();
    let loaded = config::load_with(&path, &overlays, &no_env);
    std::fs::remove_dir_all(folder).unwrap();
    loaded
}

#[test]
fn an_overlay_wins_over_the_file_and_later_ones_over_earlier_ones() {
    let service = load(&[
        "stages.a.workers=0",
        "stages.a.workers=auto",
        "stages.a.retry_on=[lost, error]",
        "stages.a.env.X=",
        "stages.a.env.Y=${HOME}=1",
        "stages.b={jq: .}",
        "pipelines.p=[a, b]",
        "routes=[{path: /p, pipeline: p}]",
        "debug=true",
    ])
    .unwrap()
    .service;
    let stage = &service.stages[0];
    assert_eq!((stage.workers, stage.timeout.as_secs(), stage.retry_on.error), (Workers::Auto, 2, true));
    let env: Vec<_> = stage.env.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(env, [("X", ""), ("Y", "${HOME}=1")], "variables are the shell's affair");
    assert_eq!((&*service.routes[0].path, service.stages.len(), service.debug), ("/p", 2, true));
    assert_eq!(service.files.len(), 1, "an overlay is no file");
}

#[test]
fn mistakes_are_shown_in_the_overlay() {
    let report = load(&["debug=false", "stages.a.wokers=0", "stages.a.timeout=\"é\"", "nonsense=1"]).unwrap_err();
    let names: Vec<_> = report.diagnostics().iter().map(|one| report.name(one)).collect();
    assert_eq!(names, ["--set stages.a.wokers=0", "--set stages.a.timeout=\"é\"", "--set nonsense=1"]);
    assert_eq!(codes(&report), ["1:10 unknown-key", "1:18 bad-duration", "1:1 unknown-key"]);
    let text = report.to_string();
    assert!(text.contains("--set stages.a.wokers=0:1:10\n  |\n1 | stages.a.wokers=0\n  |          ^^^^^^\n"), "{text}");
    let report = load(&["stages.x.workers=0"]).unwrap_err().to_string();
    assert!(report.contains("--set stages.x.workers=0"), "{report}");
    let report = load(&["stages=7"]).unwrap_err().to_string();
    assert!(report.contains("--set stages=7:1:8"), "{report}");
}

#[test]
fn what_cannot_be_read_is_said_at_once() {
    for (text, part) in [
        ("stages.a.workers", "has no `=`"),
        ("=1", "is no path"),
        ("a..b=1", "is no path"),
        ("a.=1", "is no path"),
        ("a\u{1b}=1", "is no path"),
        ("a=\u{feff}1", "U+FEFF"),
        ("a=\u{1b}", "U+001B"),
        ("a=[1", "not valid YAML"),
        ("a=*x", "not valid YAML"),
        ("a={b: 1, b: 2}", "given twice"),
        ("include=[x.yaml]", "`include` is for files"),
    ] {
        let error = Overlay::set(text).unwrap_err();
        assert!(error.contains(part) && error.contains('`'), "{text}: {error}");
    }
    assert!(Overlay::set(&format!("{}=1", vec!["a"; 33].join("."))).is_err());
    assert!(Overlay::set(&format!("a={}", "x".repeat(1 << 20))).unwrap_err().len() < 200);
    assert!(Overlay::set(&format!("a={}", "[".repeat(1000))).is_err());
}

#[test]
fn nothing_is_put_over_a_file_that_is_no_mapping() {
    let folder = new_folder();
    let path = folder.join("s.yaml");
    std::fs::write(&path, "[a]\n").unwrap();
    let overlays = [Overlay::set("service=s").unwrap()];
    let report = config::load_with(&path, &overlays, &no_env).unwrap_err();
    assert_eq!(codes(&report), ["1:1 wrong-type"]);
    std::fs::remove_dir_all(folder).unwrap();
}

proptest! {
    #[test]
    fn any_overlay_is_answered(key in "(stages|routes|listen|service|tests)(\\.[a-e]){0,3}", value in "\\PC{0,40}") {
        if let Ok(overlay) = Overlay::set(&format!("{key}={value}")) {
            let folder = new_folder();
            let path = folder.join("s.yaml");
            std::fs::write(&path, TEXT).unwrap();
            if let Err(report) = config::load_with(&path, &[overlay], &no_env) {
                prop_assert!(!report.render(true).is_empty());
            }
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
}
