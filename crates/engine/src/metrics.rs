//! What the node counts, in the OpenMetrics text format.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use evener_core::{Answer, Budget, Code, StageCounts, StageId, Topology};
use evener_doors::Answered;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

type Labels = Vec<(&'static str, String)>;

/// How much one worker has done.
pub(crate) struct WorkerCount {
    pub(crate) stage: StageId,
    /// Its number in its pool.
    pub(crate) index: u32,
    pub(crate) done: u64,
}

/// What can be read off the node at one moment.
pub(crate) struct Seen<'a> {
    pub(crate) stages: &'a [StageCounts],
    pub(crate) workers: &'a [WorkerCount],
    /// The stages whose workers are not as the service file says.
    pub(crate) failed: &'a HashSet<StageId>,
    pub(crate) budget: &'a Budget,
}

/// Counters and histograms that go up as things happen. What can be read off the core is read when asked.
pub(crate) struct Metrics {
    registry: Registry,
    served: Counter,
    fallbacks: Counter,
    cancelled: Counter,
    problems: Vec<Counter>,
    durations: Histogram,
    ran: Family<Labels, Histogram, fn() -> Histogram>,
    /// Of each stage, by its number.
    runs: RwLock<Vec<Histogram>>,
}

fn histogram() -> Histogram {
    // From 100 us to 100 s.
    Histogram::new(exponential_buckets(0.000_1, 2.0, 21))
}

impl Metrics {
    pub(crate) fn new(stages: &[&str]) -> Metrics {
        let mut registry = Registry::with_prefix("evener");
        let requests = Family::<Labels, Counter>::default();
        registry.register("requests", "Requests by what their client got", requests.clone());
        let result = |name: &str| requests.get_or_create_owned(&vec![("result", name.to_owned())]);
        let durations = histogram();
        registry.register_with_unit(
            "request_duration",
            "From a request's arrival to its answer",
            Unit::Seconds,
            durations.clone(),
        );
        let ran: Family<Labels, Histogram, fn() -> Histogram> = Family::new_with_constructor(histogram);
        registry.register_with_unit("job_run", "How long the stage's code ran for a job", Unit::Seconds, ran.clone());
        let of_stage = |stage: &&str| ran.get_or_create_owned(&vec![("stage", (*stage).to_owned())]);
        Metrics {
            served: result("ok"),
            fallbacks: result("fallback"),
            cancelled: result("cancelled"),
            problems: Code::ALL.iter().map(|code| result(code.name())).collect(),
            durations,
            runs: RwLock::new(stages.iter().map(of_stage).collect()),
            ran: ran.clone(),
            registry,
        }
    }

    /// There may be more stages now.
    pub(crate) fn extend(&self, topology: &Topology) {
        let mut runs = self.runs.write().unwrap_or_else(PoisonError::into_inner);
        for rules in topology.stages().iter().skip(runs.len()) {
            runs.push(self.ran.get_or_create_owned(&vec![("stage", rules.name.clone())]));
        }
    }

    pub(crate) fn answered(&self, answer: &Answered) {
        let counter = match answer {
            Answer::Value(_) | Answer::Reply(_) | Answer::Ended => Some(&self.served),
            Answer::Fallback(_) => Some(&self.fallbacks),
            Answer::Problem(problem) | Answer::Raised(problem, _) => {
                Code::ALL.iter().position(|code| *code == problem.code).and_then(|number| self.problems.get(number))
            }
        };
        if let Some(counter) = counter {
            counter.inc();
        }
    }

    pub(crate) fn cancelled(&self) {
        self.cancelled.inc();
    }

    pub(crate) fn took(&self, span: Duration) {
        self.durations.observe(span.as_secs_f64());
    }

    pub(crate) fn ran(&self, stage: StageId, span: Duration) {
        if let Some(histogram) = self.runs.read().unwrap_or_else(PoisonError::into_inner).get(stage.0 as usize) {
            histogram.observe(span.as_secs_f64());
        }
    }

    pub(crate) fn render(&self, topology: &Topology, seen: &Seen<'_>) -> String {
        let mut out = String::new();
        let all = text::encode_registry(&mut out, &self.registry)
            .and_then(|()| text::encode_registry(&mut out, &now(topology, seen)))
            .and_then(|()| text::encode_eof(&mut out));
        if let Err(error) = all {
            tracing::error!(%error, "the metrics could not be written");
        }
        out
    }
}

/// What can be read off the core at this moment.
fn now(topology: &Topology, seen: &Seen<'_>) -> Registry {
    let Seen { stages: counts, workers, failed, budget } = *seen;
    let mut registry = Registry::with_prefix("evener");
    let mut gauge = |name: &str, help: &str, read: &dyn Fn(&StageCounts) -> usize| {
        let family = Family::<Labels, Gauge>::default();
        for (stage, counts) in topology.stages().iter().zip(counts) {
            let labels = vec![("stage", stage.name.clone())];
            // After a reload there may be two of a name, of which one is on its way out.
            family.get_or_create_owned(&labels).inc_by(i64::try_from(read(counts)).unwrap_or(i64::MAX));
        }
        registry.register(name, help, family);
    };
    gauge("queue_depth", "Jobs that wait", &|counts| counts.queued);
    gauge("workers", "Workers that are up", &|counts| counts.workers);
    gauge("workers_idle", "Workers that are up and wait for a job", &|counts| counts.idle);
    gauge("stage_broken", "1 if the stage's workers do not start", &|counts| counts.broken.is_some().into());
    let reload_failed = Family::<Labels, Gauge>::default();
    for (stage, number) in topology.stages().iter().zip(0..) {
        let labels = vec![("stage", stage.name.clone())];
        reload_failed.get_or_create_owned(&labels).inc_by(failed.contains(&StageId(number)).into());
    }
    let help = "1 if the stage's workers are not as the service file says, since new ones did not come up";
    registry.register("stage_reload_failed", help, reload_failed);
    let mut counter = |name: &str, help: &str, read: &dyn Fn(&StageCounts) -> u64| {
        let family = Family::<Labels, Counter>::default();
        for (stage, counts) in topology.stages().iter().zip(counts) {
            family.get_or_create_owned(&vec![("stage", stage.name.clone())]).inc_by(read(counts));
        }
        registry.register(name, help, family);
    };
    counter("jobs_started", "Jobs that workers have begun, each try", &|counts| counts.started);
    counter("jobs_done", "Jobs that ended with a value, an answer or a goto", &|counts| counts.done);
    counter("jobs_failed", "Jobs that ended without one", &|counts| counts.failed);
    counter("jobs_retried", "Tries that were followed by another", &|counts| counts.retried);
    counter("workers_lost", "Workers that died", &|counts| counts.lost);
    let jobs = Family::<Labels, Counter>::default();
    for worker in workers {
        let stage = topology.stage(worker.stage).name.clone();
        let labels = vec![("stage", stage), ("worker", worker.index.to_string())];
        jobs.get_or_create_owned(&labels).inc_by(worker.done);
    }
    registry.register("worker_jobs", "Jobs of the worker that is up in each place", jobs);
    let held = Gauge::<i64>::default();
    held.set(i64::try_from(budget.used()).unwrap_or(i64::MAX));
    registry.register_with_unit("payload", "Payload held in memory", Unit::Bytes, held);
    registry
}
