//! Files that include others.

use std::path::{Path, PathBuf};

use evener_engine::config::{self, Loaded, Report, Workers};

use super::good::new_folder;
use super::{codes, no_env};

/// A folder that goes away at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(new_folder());
        for (name, text) in files {
            let path = folder.0.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn load(&self) -> Result<Loaded, Report> {
        config::load(&self.0.join("s.yaml"), &no_env)
    }

    fn bad(&self) -> Report {
        self.load().expect_err("it is wrong")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The names of the files of a report, each with what is said about it.
fn places(report: &Report) -> Vec<String> {
    let name = |one| Path::new(report.name(one)).file_name().unwrap().to_str().unwrap().to_owned();
    let names = report.diagnostics().iter().map(name);
    names.zip(codes(report)).map(|(name, code)| format!("{name}:{code}")).collect()
}

const ROUTES: &str = "routes: [{path: /, pipeline: a}]\n";

#[test]
fn mappings_merge_and_lists_replace_and_the_including_file_wins() {
    let folder = Folder::new(&[
        (
            "s.yaml",
            "service: s\ninclude: [more.yaml]\nstages: {a: {workers: 3}, c: {jq: .}}\npipelines: {p: [a, b, c]}\n\
             routes: [{path: /p, pipeline: p}]\n",
        ),
        (
            "more.yaml",
            "service: other\nstages: {a: {python: 'm:f', workers: 1, timeout: 2s}, b: {jq: .}}\ndrain: 7s\n\
             pipelines: {p: [a]}\nroutes: [{path: /q, pipeline: p}, {path: /r, pipeline: p}]\n",
        ),
    ]);
    let service = folder.load().unwrap().service;
    assert_eq!(service.name, "s");
    let names: Vec<_> = service.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"], "what is new comes behind what was there");
    assert_eq!((service.stages[0].workers, service.stages[0].timeout.as_secs()), (Workers::Count(3), 2));
    assert_eq!((service.pipelines[0].steps.len(), service.drain.as_secs()), (3, 7));
    let paths: Vec<_> = service.routes.iter().map(|route| route.path.as_str()).collect();
    assert_eq!(paths, ["/p"]);
    assert_eq!(service.files, [folder.0.join("s.yaml"), folder.0.join("more.yaml")]);
    assert_eq!((&service.file, &service.folder), (&folder.0.join("s.yaml"), &folder.0));
}

#[test]
fn later_files_win_and_paths_start_beside_the_including_file() {
    let folder = Folder::new(&[
        ("s.yaml", "service: s\ninclude: [parts/one.yaml, parts/two.yaml]\nstages: {a: {jq: .}}\n"),
        ("parts/one.yaml", "include: [../base.yaml]\ndrain: 1s\ndebug: true\n"),
        ("parts/two.yaml", "drain: 2s\n"),
        ("base.yaml", &format!("debug: false\n{ROUTES}")),
    ]);
    let service = folder.load().unwrap().service;
    assert_eq!((service.drain.as_secs(), service.debug, service.routes.len()), (2, true, 1));
    assert_eq!(service.files.len(), 4);
}

#[test]
fn one_file_may_be_included_twice_and_a_list_may_be_empty() {
    let folder = Folder::new(&[
        ("s.yaml", "service: s\ninclude: [one.yaml, two.yaml, empty.yaml]\nstages: {a: {jq: .}}\n"),
        ("one.yaml", "include: [base.yaml]\n"),
        ("two.yaml", "include: [base.yaml]\n"),
        ("empty.yaml", "include: []\n"),
        ("base.yaml", ROUTES),
    ]);
    let files = folder.load().unwrap().service.files;
    assert_eq!(files.len(), 5, "each file is named once: {files:?}");
}

#[test]
fn variables_choose_a_file() {
    let folder = Folder::new(&[
        ("s.yaml", "service: s\ninclude: ['${WHICH}.yaml']\nstages: {a: {jq: .}}\n"),
        ("dev.yaml", &format!("{ROUTES}debug: ${{DEBUG}}\n")),
    ]);
    let env = |name: &str| Some(if name == "WHICH" { "dev" } else { "true" }.into());
    let service = config::load(&folder.0.join("s.yaml"), &env).unwrap().service;
    assert!(service.debug && service.files.len() == 2);
}

#[test]
fn mistakes_are_shown_in_the_file_where_they_are() {
    let folder = Folder::new(&[
        ("s.yaml", "service: s\ninclude: [more.yaml]\nstages: {a: {jq: .}}\ndrain: 5\n"),
        (
            "more.yaml",
            "# a comment\nstages:\n  a: {timeout: 5}\n  b: {python: 'm:f', wokers: 1}\nroutes: [{path: x}]\nlimits: {queue: ${N}\n",
        ),
    ]);
    let report = folder.bad();
    assert_eq!(places(&report), ["more.yaml:6:18 syntax"], "{report}");
    std::fs::write(
        folder.0.join("more.yaml"),
        "# é\nstages:\n  a: {timeout: 5}\n  b: {python: 'm:f', wokers: 1}\nroutes: [{path: x, pipeline: a}]\ndebug: ${N}\n",
    )
    .unwrap();
    let report = folder.bad();
    assert_eq!(
        places(&report),
        [
            "s.yaml:4:8 bad-duration",
            "more.yaml:3:16 bad-duration",
            "more.yaml:4:3 unreachable-stage",
            "more.yaml:4:22 unknown-key",
            "more.yaml:5:17 bad-route-path",
            "more.yaml:6:8 unset-variable"
        ],
        "{report}"
    );
    let text = report.to_string();
    assert!(text.contains("more.yaml:4:22\n  |\n4 |   b: {python: 'm:f', wokers: 1}\n"), "{text}");
    assert!(text.contains("/s.yaml and ") && text.ends_with("more.yaml\n"), "{text}");
}

#[test]
fn one_mistake_may_have_places_in_two_files() {
    let folder = Folder::new(&[
        ("s.yaml", "service: s\ninclude: [more.yaml]\npipelines: {a: [b]}\nroutes: [{path: /, pipeline: a}]\n"),
        ("more.yaml", "\nstages: {b: {jq: .}, a: {jq: .}}\n"),
    ]);
    let report = folder.bad();
    assert_eq!(places(&report), ["s.yaml:3:13 duplicate-name"], "{report}");
    let text = report.to_string();
    assert!(text.contains("s.yaml:3:13") && text.contains("more.yaml:2:22"), "{text}");
}

#[test]
fn cycles_are_refused() {
    let folder = Folder::new(&[
        ("s.yaml", "service: s\ninclude:\n  - one.yaml\n  - ./s.yaml\n"),
        ("one.yaml", "include: [two.yaml]\n"),
        ("two.yaml", "\ninclude: [one.yaml]\n"),
    ]);
    let report = folder.bad();
    let cycles: Vec<_> = places(&report).into_iter().filter(|one| one.ends_with("include-cycle")).collect();
    assert_eq!(cycles, ["s.yaml:4:5 include-cycle", "two.yaml:2:11 include-cycle"], "{report}");
}

#[test]
fn what_cannot_be_included_is_said_where_it_is_included() {
    let folder = Folder::new(&[
        (
            "s.yaml",
            "service: s\nstages: {a: {jq: .}}\nroutes: [{path: /, pipeline: a}]\ninclude:\n  - none.yaml\n  - empty.yaml\n  - list.yaml\n  - latin.yaml\n  - sub\n  - 7\n  - large.yaml\n  - []\n",
        ),
        ("empty.yaml", "# nothing\n"),
        ("list.yaml", "[a]\n"),
        ("sub/x", ""),
    ]);
    std::fs::write(folder.0.join("latin.yaml"), b"a: \xe9\n").unwrap();
    std::fs::write(folder.0.join("large.yaml"), "#".repeat(config::LARGEST_FILE + 1)).unwrap();
    let report = folder.bad();
    assert_eq!(
        places(&report),
        [
            "s.yaml:5:5 missing-file",
            "s.yaml:6:5 empty-file",
            "s.yaml:8:5 not-utf8",
            "s.yaml:9:5 missing-file",
            "s.yaml:10:5 wrong-type",
            "s.yaml:11:5 too-large",
            "s.yaml:12:5 wrong-type",
            "list.yaml:1:1 wrong-type",
        ],
        "{report}"
    );
    let folder = Folder::new(&[("s.yaml", "service: s\ninclude: more.yaml\n")]);
    let report = folder.bad().to_string();
    assert!(report.contains("write `[more.yaml]`"), "{report}");
}

#[test]
fn depth_and_count_have_bounds() {
    let texts: Vec<_> = (0..20).map(|n| (format!("{n}.yaml"), format!("include: [{}.yaml]\n", n + 1))).collect();
    let mut files: Vec<_> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    files.push(("s.yaml", "service: s\ninclude: [0.yaml]\n"));
    let report = Folder::new(&files).bad();
    assert!(places(&report).contains(&"7.yaml:1:11 too-deep".to_owned()), "{report}");

    // Each includes the next one twice, which makes 2^7 files.
    let texts: Vec<_> =
        (0..7).map(|n| (format!("{n}.yaml"), format!("include: [{0}.yaml, {0}.yaml]\n", n + 1))).collect();
    let mut files: Vec<_> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    files.extend([("7.yaml", "debug: true\n"), ("s.yaml", "service: s\ninclude: [0.yaml]\n")]);
    let report = Folder::new(&files).bad();
    let many = places(&report).iter().filter(|one| one.ends_with("too-many-files")).count();
    assert_eq!(many, 1, "{report}");

    let large = format!("debug: true\n#{}", "x".repeat(config::LARGEST_FILE - 20));
    let list = ["large.yaml"; 5].join(", ");
    let main = format!("service: s\ninclude: [{list}]\n");
    let report = Folder::new(&[("s.yaml", &main), ("large.yaml", &large)]).bad();
    assert!(places(&report).iter().any(|one| one.ends_with("too-many-files")), "{report}");
}
