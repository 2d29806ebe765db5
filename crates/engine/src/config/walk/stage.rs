//! One stage.

use super::Walk;
use super::fields::{Fields, not_available};
use super::values::Kind;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{LATER_KINDS, LEAST_MEMORY, MOST, MOST_RETRIES, MOST_WORKERS, ON_CANCEL, RETRY_ON, STAGE};
use crate::config::source::Span;
use crate::config::yaml::{Entry, Node, Plain, Scalar, Value, quote};
use crate::config::{OnCancel, PythonTarget, RetryOn, Stage, Workers, defaults};

impl Walk<'_> {
    pub(super) fn stage(&mut self, entry: &Entry) -> Option<Stage> {
        let Entry { key: name, key_span, value: node } = entry;
        let kinds = self.kinds(node);
        let skip: &[&str] = if kinds.len() > 1 { LATER_KINDS } else { &[] };
        let mut fields = Fields::open(node, *key_span, &STAGE, skip, self)?;
        let python = match kinds.iter().any(|(kind, _)| *kind != "python") {
            // Another kind was reported; that this one is missing says nothing new.
            true => fields.read("python", self, |node, walk| walk.python(node)),
            false => fields.require("python", self, |node, walk| walk.python(node)),
        };
        let workers = fields.read("workers", self, |node, walk| walk.workers(node));
        let timeout = fields.read("timeout", self, |node, walk| walk.duration(node, false));
        let retries =
            fields.read("retries", self, |node, walk| walk.number(node, "a number of retries", 0, MOST_RETRIES));
        let retry_on = fields.read("retry_on", self, |node, walk| Some(walk.retry_on(node)));
        if retries == Some(0) && retry_on.is_some_and(|on| on.lost || on.timeout || on.error) {
            let message = "`retry_on` says nothing, since `retries` is 0";
            let useless = Diagnostic::warning("useless-key", fields.span_of("retry_on"), message);
            self.found.push(useless.also(fields.span_of("retries"), "no retries"));
        }
        let backoff = fields.read("backoff", self, |node, walk| walk.duration(node, true));
        let queue = fields.read("queue", self, |node, walk| walk.number(node, "a number of jobs", 1, MOST));
        let env = fields.read("env", self, |node, walk| walk.environment(node));
        let cwd = fields.read("cwd", self, |node, walk| {
            let path = walk.path(node)?;
            walk.must_exist(node, path, Kind::Folder)
        });
        let interpreter = fields.read("interpreter", self, |node, walk| walk.interpreter(node));
        let memory = fields.read("memory", self, |node, walk| walk.size(node, LEAST_MEMORY));
        let max_jobs_per_worker =
            fields.read("max_jobs_per_worker", self, |node, walk| walk.number(node, "a number of jobs", 1, MOST));
        let start_timeout = fields.read("start_timeout", self, |node, walk| walk.duration(node, false));
        let grace = fields.read("grace", self, |node, walk| walk.duration(node, true));
        let on_cancel = fields.read("on_cancel", self, |node, walk| walk.choice(node, ON_CANCEL));
        fields.finish();
        Some(Stage {
            name: name.to_string(),
            python: python?,
            workers: workers.unwrap_or(Workers::Count(defaults::WORKERS)),
            timeout: timeout.unwrap_or(defaults::STAGE_TIMEOUT),
            retries: retries.map_or(defaults::RETRIES, |retries| retries as u32),
            retry_on: retry_on.unwrap_or_default(),
            backoff,
            queue: queue.map(|queue| queue as usize),
            env: env.unwrap_or_default(),
            cwd: cwd.unwrap_or_else(|| self.folder.to_path_buf()),
            interpreter,
            memory,
            max_jobs_per_worker,
            start_timeout: start_timeout.unwrap_or(defaults::START_TIMEOUT),
            grace: grace.unwrap_or(defaults::GRACE),
            on_cancel: match on_cancel {
                Some("kill") => OnCancel::Kill,
                _ => OnCancel::Tell,
            },
        })
    }

    /// The kinds that a stage names; more than one is an error of its own.
    fn kinds(&mut self, node: &Node) -> Vec<(&'static str, Span)> {
        let Value::Map(entries) = &node.value else { return Vec::new() };
        let kind = |entry: &Entry| {
            let known = ["python"].iter().chain(LATER_KINDS);
            known.copied().find(|kind| **kind == *entry.key).map(|kind| (kind, entry.key_span))
        };
        let kinds: Vec<_> = entries.iter().filter_map(kind).collect();
        if let [(first, first_span), (second, second_span), ..] = kinds[..] {
            let message = format!("a stage has one kind, and this one is `{first}` and `{second}`");
            let two = Diagnostic::error("two-kinds", second_span, message);
            self.found.push(two.also(first_span, "the first kind").hint("make two stages of it"));
        }
        kinds
    }

    /// `module:attribute`.
    fn python(&mut self, node: &Node) -> Option<PythonTarget> {
        let text = self.text(node, "a function or class as `module:attribute`")?;
        let Err((message, hint)) = target(text) else {
            let (module, attribute) = text.split_once(':')?;
            return Some(PythonTarget { module: module.into(), attribute: attribute.into() });
        };
        self.found.push(Diagnostic::error("bad-python", node.span, message).hint(hint));
        None
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

    fn retry_on(&mut self, node: &Node) -> RetryOn {
        let chosen = self.choices(node, RETRY_ON);
        RetryOn {
            lost: chosen.contains(&"lost"),
            timeout: chosen.contains(&"timeout"),
            error: chosen.contains(&"error"),
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
    fn interpreter(&mut self, node: &Node) -> Option<std::path::PathBuf> {
        let path = self.path(node)?;
        match self.text(node, "a path") {
            Some(command) if !command.contains('/') => Some(command.into()),
            _ => self.must_exist(node, path, Kind::File),
        }
    }
}

/// Why a text is no `module:attribute`, and what to write.
fn target(text: &str) -> Result<(), (String, String)> {
    let shown = quote(text);
    let Some((module, attribute)) = text.split_once(':') else {
        let hint = match text.rsplit_once('.') {
            Some((module, attribute)) if identifiers(module) && identifiers(attribute) => {
                format!("write `{module}:{attribute}`")
            }
            _ => "write the module, a colon, and the function or class: `primes:compute`".into(),
        };
        return Err((format!("{shown} does not say what to take from the module"), hint));
    };
    if module.contains(['/', '\\']) || module.ends_with(".py") {
        let name = module.trim_start_matches("./").trim_end_matches(".py").replace(['/', '\\'], ".");
        let hint = format!("name the module as Python imports it: `{name}:{attribute}`");
        return Err((format!("{} is a file and not a module", quote(module)), hint));
    }
    for (part, what) in [(module, "module"), (attribute, "function or class")] {
        if !identifiers(part) {
            let message = format!("{} in {shown} is not the name of a {what}", quote(part));
            return Err((message, "names are Python identifiers, joined by dots".into()));
        }
    }
    Ok(())
}

/// Whether this is a dotted path of Python identifiers.
fn identifiers(path: &str) -> bool {
    let identifier = |name: &str| {
        name.starts_with(|c: char| c == '_' || c.is_alphabetic())
            && name.chars().all(|c| c == '_' || c.is_alphanumeric())
    };
    path.split('.').all(identifier)
}
