//! What a stage and a function pool have in common: their workers, and what bounds them.

use std::path::PathBuf;
use std::time::Duration;

use super::Walk;
use super::fields::{Fields, not_available};
use super::values::Kind;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{LEAST_MEMORY, MOST, MOST_WORKERS, ON_CANCEL};
use crate::config::yaml::{Entry, Node, Plain, Scalar, Value, quote};
use crate::config::{OnCancel, Workers};

/// The keys about workers, each `None` where it is left out or was reported.
pub(super) struct Workforce {
    pub(super) workers: Option<Workers>,
    pub(super) queue: Option<usize>,
    pub(super) env: Option<Vec<(String, String)>>,
    pub(super) cwd: Option<PathBuf>,
    pub(super) interpreter: Option<PathBuf>,
    pub(super) memory: Option<u64>,
    pub(super) max_jobs_per_worker: Option<u64>,
    pub(super) start_timeout: Option<Duration>,
    pub(super) grace: Option<Duration>,
    pub(super) on_cancel: Option<OnCancel>,
}

impl Walk<'_> {
    /// Reads the keys about workers out of a stage or a function pool.
    pub(super) fn workforce(&mut self, fields: &mut Fields<'_>) -> Workforce {
        Workforce {
            workers: fields.read("workers", self, |node, walk| walk.workers(node)),
            queue: fields
                .read("queue", self, |node, walk| walk.number(node, "a number of jobs", 1, MOST))
                .map(|queue| queue as usize),
            env: fields.read("env", self, |node, walk| walk.environment(node)),
            cwd: fields.read("cwd", self, |node, walk| {
                let path = walk.path(node)?;
                walk.must_exist(node, path, Kind::Folder)
            }),
            interpreter: fields.read("interpreter", self, |node, walk| walk.interpreter(node)),
            memory: fields.read("memory", self, |node, walk| walk.size(node, LEAST_MEMORY)),
            max_jobs_per_worker: fields
                .read("max_jobs_per_worker", self, |node, walk| walk.number(node, "a number of jobs", 1, MOST)),
            start_timeout: fields.read("start_timeout", self, |node, walk| walk.duration(node, false)),
            grace: fields.read("grace", self, |node, walk| walk.duration(node, true)),
            on_cancel: fields
                .read("on_cancel", self, |node, walk| walk.choice(node, ON_CANCEL))
                .map(|word| if word == "kill" { OnCancel::Kill } else { OnCancel::Tell }),
        }
    }

    fn workers(&mut self, node: &Node) -> Option<Workers> {
        const WHAT: &str = "a number of workers or `auto`";
        if let Value::Map(entries) = &node.value
            && !entries.is_empty()
            && entries.iter().all(|entry| matches!(&*entry.key, "min" | "max"))
        {
            self.found.push(not_available(node.span, "workers: {min, max}"));
            return None;
        }
        match node.scalar().map(Scalar::resolve) {
            Some(Plain::Str("auto")) => Some(Workers::Auto),
            Some(Plain::Int(_)) => {
                let count = self.number(node, "a number of workers", 0, MOST_WORKERS)?;
                Some(Workers::Count(count as u32))
            }
            _ => {
                self.expected(node, WHAT);
                None
            }
        }
    }

    /// A mapping from variables to scalars, which are taken as they are written.
    fn environment(&mut self, node: &Node) -> Option<Vec<(String, String)>> {
        let Value::Map(entries) = &node.value else {
            self.expected(node, "a mapping from variables to values");
            return None;
        };
        let mut env = Vec::with_capacity(entries.len());
        for Entry { key, key_span, value } in entries {
            if key.contains(['=', '\0']) {
                let message = format!("{} cannot be the name of a variable", quote(key));
                self.found.push(Diagnostic::error("bad-name", *key_span, message));
            }
            match value.scalar() {
                Some(scalar) if scalar.resolve() != Plain::Null && !scalar.text.contains('\0') => {
                    env.push((key.to_string(), scalar.text.to_string()));
                }
                _ => self.expected(value, "the value of a variable, `\"\"` if it is empty"),
            }
        }
        Some(env)
    }

    /// A path, or a bare command that is left for `PATH`.
    fn interpreter(&mut self, node: &Node) -> Option<PathBuf> {
        let path = self.path(node)?;
        match self.text(node, "a path") {
            Some(command) if !command.contains('/') => Some(command.into()),
            _ => self.must_exist(node, path, Kind::File),
        }
    }
}
