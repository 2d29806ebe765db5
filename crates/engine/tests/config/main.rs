//! The service file, seen from outside: texts in, services or reports out.

#![allow(clippy::unwrap_used)]

mod functions;
mod good;
mod hostile;
mod include;
mod mistakes;
mod overlay;
mod report;
mod schema;
mod tests;
mod text;
mod variables;

use std::path::Path;

use evener_engine::config::{self, Loaded, Report, Service};

/// An environment with nothing in it.
fn no_env(_: &str) -> Option<std::ffi::OsString> {
    None
}

fn parse(text: &str) -> Result<Loaded, Report> {
    config::parse("service.yaml", text, Path::new("/srv/app"), &no_env)
}

fn good(text: &str) -> Service {
    match parse(text) {
        Ok(loaded) => loaded.service,
        Err(report) => panic!("{text}\n{report}"),
    }
}

fn bad(text: &str) -> Report {
    match parse(text) {
        Ok(loaded) => panic!("accepted: {text}\n{:#?}", loaded.service),
        Err(report) => report,
    }
}

/// The codes of a report with their lines and columns, in its order.
fn codes(report: &Report) -> Vec<String> {
    let line = |one: &config::Diagnostic| match report.position(one) {
        Some((line, column)) => format!("{line}:{column} {}", one.code),
        None => one.code.to_string(),
    };
    report.diagnostics().iter().map(line).collect()
}

/// A service with one stage, one route, and more keys for the stage.
fn with_stage(keys: &str) -> String {
    format!(
        "service: s\nstages:\n  a:\n    python: m:f\n    {}\nroutes: [{{path: /, pipeline: a}}]\n",
        keys.replace('\n', "\n    ")
    )
}

/// A service with one stage and one route with more keys.
fn with_route(keys: &str) -> String {
    format!(
        "service: s\nstages: {{a: {{python: \"m:f\"}}}}\nroutes:\n  - pipeline: a\n    {}\n",
        keys.replace('\n', "\n    ")
    )
}

/// A service with one stage in a pipeline, and more keys of its own.
fn with(keys: &str) -> String {
    format!("service: s\nstages: {{a: {{python: \"m:f\"}}}}\npipelines: {{p: [a]}}\n{keys}\n")
}
