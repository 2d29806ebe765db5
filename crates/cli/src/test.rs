//! `evener test`: runs the requests that a service file has under `tests`, and says what came of them.
//!
//! The service runs in this process, on a free port. Tests that want it as it is share one node, and so do those that
//! change it to the same; the nodes run one after another, and so do the tests.

mod capture;
mod client;
mod judge;
mod junit;
mod report;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use evener_engine::config::{self, Listener, Service};
use evener_engine::{Running, StartError};
use jiff::Timestamp;

use crate::log::Format;
use crate::up::{Stops, on_runtime};
use crate::{BAD_CONFIGURATION, ServiceFile, complain};
use capture::Capture;
use report::Report;

/// Stopped by Ctrl-C, as shells say it.
const INTERRUPTED: u8 = 130;
/// How often to look whether a service that is not ready yet will never be.
const LOOK: Duration = Duration::from_millis(100);
/// How long what still runs after the last test of a node may take to finish. Nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Arguments of `evener test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    #[command(flatten)]
    file: ServiceFile,
    /// Run only the tests whose name contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Write the results to this file as well, as JUnit XML.
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    junit: Option<PathBuf>,
    /// Write the node's log to standard error as it comes. Without it, the part that belongs to a failed test is shown with that.
    #[arg(long)]
    log: bool,
}

/// A service as some tests want it, and these tests.
struct Group {
    service: Service,
    tests: Vec<config::Test>,
}

/// What became of a test.
struct Outcome {
    test: config::Test,
    verdict: Verdict,
    took: Duration,
    /// What the node has logged meanwhile, unless that is written as it comes.
    log: String,
}

enum Verdict {
    Passed,
    Failed {
        /// A line for each thing that is not as expected.
        wrong: Vec<String>,
        /// The answer, as it is shown, if one came.
        answer: Option<String>,
    },
    /// The service did not start.
    Broken(String),
    /// All was stopped before it.
    NotRun,
}

impl Test {
    pub(crate) fn run(self) -> ExitCode {
        let service = match self.file.load() {
            Ok(loaded) => loaded.service,
            Err(code) => return code,
        };
        let name = service.name.clone();
        let groups = match self.groups(service) {
            Ok(groups) => groups,
            Err(code) => return code,
        };
        // A run should not end before it shows that its results cannot be kept.
        if let Some(path) = &self.junit
            && let Err(error) = write(path, "")
        {
            eprintln!("error: --junit: {error:#}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
        let capture = Capture::default();
        let guard = match self.log {
            true => Some(crate::log::start(Format::Text, "info")),
            false => {
                let capture = capture.clone();
                crate::log::start_into(move || capture.clone(), "info");
                None
            }
        };
        let (began, clock) = (Timestamp::now(), Instant::now());
        let result = on_runtime(async {
            let stops = Stops::listen().context("signals cannot be caught")?;
            let mut run = Run { stops, capture, report: Report::new(), outcomes: Vec::new(), stopped: None };
            for group in groups {
                run.group(group).await;
            }
            if run.report.summary(&run.outcomes, clock.elapsed()).is_err() {
                run.stopped = Some(ExitCode::FAILURE);
            }
            if let Some(path) = &self.junit {
                write(path, &junit::document(&name, &run.outcomes, began, clock.elapsed())).context("--junit")?;
            }
            Ok(run.exit_code())
        });
        drop(guard);
        result.unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        })
    }

    /// The tests that are to run, by the services that they want.
    fn groups(&self, mut service: Service) -> Result<Vec<Group>, ExitCode> {
        let file = self.file.service.display();
        let nothing = |why: String| {
            eprintln!("error: {file}: {why}");
            Err(ExitCode::from(BAD_CONFIGURATION))
        };
        let tests = std::mem::take(&mut service.tests);
        if tests.is_empty() {
            return nothing("it has no tests; docs/service-file.md says how `tests` looks".into());
        }
        let count = tests.len();
        let chosen = |test: &config::Test| self.filter.as_ref().is_none_or(|text| test.name.contains(text));
        let mut groups: Vec<Group> = Vec::new();
        for test in tests.into_iter().filter(chosen) {
            let changed = self.changed(&test)?;
            let wanted = changed.as_ref().unwrap_or(&service);
            match groups.iter_mut().find(|group| group.service == *wanted) {
                Some(group) => group.tests.push(test),
                None => groups.push(Group { service: wanted.clone(), tests: vec![test] }),
            }
        }
        if groups.is_empty() {
            let text = self.filter.as_deref().unwrap_or_default();
            return nothing(format!("no name of its {count} tests contains {text:?}, which `--filter` wants"));
        }
        Ok(groups)
    }

    /// The service as a test wants it, if that is not how it is.
    fn changed(&self, test: &config::Test) -> Result<Option<Service>, ExitCode> {
        let Some(with) = &test.with else { return Ok(None) };
        let mut overlays = self.file.settings.set.clone();
        overlays.push(with.clone());
        match config::load_with(&self.file.service, &overlays, &|name| std::env::var_os(name)) {
            Ok(loaded) => Ok(Some(Service { tests: Vec::new(), ..loaded.service })),
            Err(report) => {
                complain(&report);
                Err(ExitCode::from(BAD_CONFIGURATION))
            }
        }
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let made = folder.map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(path, text)).with_context(|| format!("{} cannot be written", path.display()))
}

/// The tests under way.
struct Run {
    stops: Stops,
    capture: Capture,
    report: Report,
    outcomes: Vec<Outcome>,
    /// The exit code, once something else than a test has decided it: then no further test runs.
    stopped: Option<ExitCode>,
}

impl Run {
    async fn group(&mut self, group: Group) {
        let Group { service, tests } = group;
        let running = match self.stopped {
            Some(_) => None,
            None => match start(service).await {
                Ok(running) => Some(running),
                Err(error) => {
                    let why = format!("the service did not start: {error}");
                    tests
                        .into_iter()
                        .for_each(|test| self.note(test, Verdict::Broken(why.clone()), Duration::ZERO, ""));
                    return;
                }
            },
        };
        let Some(running) = running else {
            tests.into_iter().for_each(|test| self.note(test, Verdict::NotRun, Duration::ZERO, ""));
            return;
        };
        let ready = tokio::select! {
            ready = warm(&running) => ready,
            () = self.stops.next() => self.interrupted(),
        };
        // How it started is of interest where it did not succeed.
        let log = self.capture.take();
        let log = if ready { "" } else { &log };
        for test in tests {
            self.test(&running, test, log).await;
        }
        let hurry = async {
            tokio::select! {
                () = tokio::time::sleep(PATIENCE) => false,
                () = self.stops.next() => true,
            }
        };
        let mut asked = false;
        running.drain(async { asked = hurry.await }).await;
        if asked {
            self.interrupted();
        }
        self.capture.take();
    }

    async fn test(&mut self, running: &Running, test: config::Test, log: &str) {
        if self.stopped.is_some() {
            return self.note(test, Verdict::NotRun, Duration::ZERO, "");
        }
        let began = Instant::now();
        let tried = tokio::select! {
            tried = client::send(address(running, "http"), &test.request, &test.expect) => tried,
            () = self.stops.next() => {
                self.interrupted();
                return self.note(test, Verdict::NotRun, Duration::ZERO, "");
            }
        };
        let took = tried.as_ref().map_or_else(|_| began.elapsed(), |came| came.took);
        let verdict = match tried {
            Ok(came) => match judge::judge(&test.expect, &came) {
                wrong if wrong.is_empty() => Verdict::Passed,
                wrong => Verdict::Failed { wrong, answer: Some(report::shown(&came)) },
            },
            Err(why) => Verdict::Failed { wrong: vec![why], answer: None },
        };
        self.note(test, verdict, took, log);
    }

    /// Keeps and shows what became of a test. `log` is what has been logged before it and matters to it.
    fn note(&mut self, test: config::Test, verdict: Verdict, took: Duration, log: &str) {
        let log = format!("{log}{}", self.capture.take());
        let outcome = Outcome { test, verdict, took, log };
        if self.stopped.is_none() && self.report.outcome(&outcome).is_err() {
            // Nobody reads any more.
            self.stopped = Some(ExitCode::FAILURE);
        }
        self.outcomes.push(outcome);
    }

    /// Notices a signal. Always false: nothing is ready then.
    fn interrupted(&mut self) -> bool {
        self.stopped.get_or_insert(ExitCode::from(INTERRUPTED));
        false
    }

    fn exit_code(&self) -> ExitCode {
        let passed = |outcome: &Outcome| matches!(outcome.verdict, Verdict::Passed);
        match self.stopped {
            Some(code) => code,
            None if self.outcomes.iter().all(passed) => ExitCode::SUCCESS,
            None => ExitCode::FAILURE,
        }
    }
}

/// Starts a service where it is in nobody's way: on a free port of this machine, and without TLS.
async fn start(mut service: Service) -> Result<Running, StartError> {
    service.listen.http = Listener::new("127.0.0.1:0").ok();
    service.listen.api = None;
    evener_engine::start(service, evener_engine::this_program).await
}

/// Waits until the service is ready (true), or until it shows that it will not be: what the tests then get says why.
async fn warm(running: &Running) -> bool {
    let socket = address(running, "api").trim_start_matches("unix:");
    let hopeless = async {
        loop {
            tokio::time::sleep(LOOK).await;
            let said: serde_json::Value = serde_json::from_slice(&client::readiness(socket).await).unwrap_or_default();
            if said["state"].as_str().is_some_and(|state| !matches!(state, "starting" | "ready")) {
                return;
            }
        }
    };
    tokio::select! {
        () = running.node().ready() => true,
        () = hopeless => false,
    }
}

fn address<'r>(running: &'r Running, name: &str) -> &'r str {
    running.addresses().iter().find(|address| address.name == name).map_or("", |address| &address.url)
}
