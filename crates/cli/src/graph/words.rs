//! What is written in the nodes of a drawing.

use evener_engine::config::{Concurrency, FallbackOn, Kind, OnFailure, Scatter, Stage, Workers};
use serde_json::Value;

use super::drawing::Shape;

/// Programs and values are cut to so many characters.
const LONGEST: usize = 60;

/// What a stage looks like, and what is written in it.
pub(super) fn described(stage: &Stage) -> (Shape, Vec<String>) {
    let name = stage.name.clone();
    match &stage.kind {
        Kind::Python(target) => {
            let python = format!("python {}:{}", target.module, target.attribute);
            let mut lines = vec![name, python, count(stage.workers)];
            lines.extend(at_once(stage.concurrency));
            (Shape::Workers, lines)
        }
        Kind::Frames(command) => {
            let mut lines = vec![name, format!("frames {}", short(&command.argv.join(" "))), count(stage.workers)];
            lines.extend(at_once(stage.concurrency));
            (Shape::Workers, lines)
        }
        Kind::Command(command) => {
            let at_a_time = match stage.workers {
                Workers::Count(0) => "no processes".into(),
                Workers::Count(1) => "1 process at a time".into(),
                Workers::Count(count) => format!("{count} processes at a time"),
                Workers::Auto => "a process for each core at a time".into(),
                Workers::Range { max, .. } => format!("up to {max} processes at a time"),
            };
            (Shape::Workers, vec![name, format!("command {}", short(&command.argv.join(" "))), at_a_time])
        }
        Kind::Rust(function) => (Shape::InNode, vec![name, format!("rust {function}"), "in the node".into()]),
        Kind::Jq(filter) => (Shape::InNode, vec![name, format!("jq {}", short(&filter.source)), "in the node".into()]),
    }
}

pub(super) fn count(workers: Workers) -> String {
    match workers {
        Workers::Count(0) => "no workers".into(),
        Workers::Count(1) => "1 worker".into(),
        Workers::Count(count) => format!("{count} workers"),
        Workers::Auto => "a worker for each core".into(),
        Workers::Range { min, max, .. } => format!("{min} to {max} workers"),
    }
}

/// What each worker does at a time, if it is more than a job.
pub(super) fn at_once(concurrency: Concurrency) -> Option<String> {
    match concurrency {
        Concurrency::One => None,
        Concurrency::Threads(threads) => Some(format!("{threads} threads each")),
        Concurrency::Async(jobs) => Some(format!("{jobs} jobs at a time each")),
        Concurrency::Batch { max, .. } => Some(format!("batches of up to {max}")),
    }
}

/// What is written where branches come together.
pub(super) fn gathered(scatter: &Scatter) -> Vec<String> {
    let mut lines = vec!["gather".into()];
    lines.extend(scatter.timeout.map(|timeout| format!("within {timeout:?}")));
    if scatter.on_failure == OnFailure::Collect {
        lines.push("failures as well".into());
    }
    lines.extend(scatter.fallback.as_ref().map(|value| instead(value, scatter.fallback_on)));
    lines
}

/// Which failures a fallback covers, and what it is.
pub(super) fn instead(fallback: &Value, on: FallbackOn) -> String {
    let covered = [("timeout", on.timeout), ("error", on.error), ("lost", on.lost), ("unavailable", on.unavailable)];
    let covered: Vec<_> = covered.iter().filter(|(_, covered)| *covered).map(|(name, _)| *name).collect();
    format!("fallback on {}: {}", covered.join(", "), short(&fallback.to_string()))
}

/// A program or value in one line that is not too long.
pub(super) fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
