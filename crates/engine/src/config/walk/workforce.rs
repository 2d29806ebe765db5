//! What a stage and a function pool have in common: their workers, and what bounds them.

use std::path::PathBuf;
use std::time::Duration;

use super::Walk;
use super::fields::Fields;
use super::values::Kind;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{LEAST_MEMORY, MOST, MOST_WORKERS, ON_CANCEL, RANGE};
use crate::config::yaml::{Entry, Node, Plain, Scalar, Value, quote};
use crate::config::{OnCancel, Workers, defaults};

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
        const WHAT: &str = "a number of workers, `auto`, or a mapping with `min` and `max`";
        if let Value::Map(_) = &node.value {
            return self.range(node);
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

    /// A pool that sizes itself.
    fn range(&mut self, node: &Node) -> Option<Workers> {
        let mut fields = Fields::open(node, node.span, &RANGE, &[], self)?;
        let count =
            |node: &Node, walk: &mut Walk<'_>, least| walk.number(node, "a number of workers", least, MOST_WORKERS);
        let min = fields.require("min", self, |node, walk| count(node, walk, 0));
        let max = fields.require("max", self, |node, walk| count(node, walk, 1));
        let wait = fields.read("wait", self, |node, walk| walk.duration(node, true));
        let idle = fields.read("idle", self, |node, walk| walk.duration(node, false));
        let span = fields.span_of("max");
        fields.finish();
        let (min, max) = (min? as u32, max? as u32);
        if min > max {
            let message = format!("`max` is {max}, which is less than `min`");
            self.found.push(Diagnostic::error("out-of-range", span, message));
            return None;
        }
        let (wait, idle) = (wait.unwrap_or(defaults::GROW_WAIT), idle.unwrap_or(defaults::SHRINK_IDLE));
        Some(Workers::Range { min, max, wait, idle })
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
