//! One stage.

mod command;

use std::time::Duration;

use super::Walk;
use super::fields::Fields;
use super::workforce::Workforce;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{
    BATCH, BATCH_WAIT, DECODE, KINDS, LATER_KINDS, MOST_RETRIES, MOST_SLOTS, NOT_OF_COMMANDS, NOT_OF_FRAMES,
    OF_COMMANDS, OF_FUNCTIONS, OF_WORKERS, PROTOCOL, RELOAD, RETRY_ON, STAGE,
};
use crate::config::source::Span;
use crate::config::yaml::{Entry, Node, Value, quote};
use crate::config::{
    Concurrency, Decode, Filter, Kind, OnCancel, PythonTarget, Replacement, RetryOn, Stage, Workers, defaults,
};

impl Walk<'_> {
    pub(super) fn stage(&mut self, entry: &Entry) -> Option<Stage> {
        let Entry { key: name, key_span, value: node } = entry;
        let kinds = self.kinds(node);
        let skip: &[&str] = if kinds.len() > 1 { LATER_KINDS } else { &[] };
        let mut fields = Fields::open(node, *key_span, &STAGE, skip, self)?;
        if kinds.is_empty() {
            fields.require_some(self);
        }
        let python = fields.read("python", self, |node, walk| walk.python(node)).map(Kind::Python);
        let filter = fields.read("jq", self, |node, walk| walk.filter(node)).map(Kind::Jq);
        let rust = fields.read("rust", self, |node, walk| walk.name(node, "the name of a Rust function"));
        let rust = rust.map(|name| Kind::Rust(name.to_string()));
        let protocol = fields.read("protocol", self, |node, walk| walk.choice(node, PROTOCOL));
        let speaks = fields.has("protocol");
        let command = fields.read("command", self, |node, walk| walk.command(node, !speaks));
        if let [(kind, _)] = kinds[..] {
            self.useless_keys(if kind == "command" && speaks { "frames" } else { kind }, node);
        }
        let output = fields.read("output", self, |node, walk| walk.choice(node, DECODE));
        let max_output = fields.read("max_output", self, |node, walk| walk.size(node, 0));
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
        let Workforce {
            workers,
            queue,
            env,
            cwd,
            interpreter,
            memory,
            max_jobs_per_worker,
            start_timeout,
            grace,
            on_cancel,
        } = self.workforce(&mut fields);
        let reload = fields.read("reload", self, |node, walk| walk.choice(node, RELOAD));
        let (concurrency, weight) = self.concurrency(&mut fields);
        // Looked up once all names are known.
        fields.entry("goto");
        let affinity = fields.read("affinity", self, |node, walk| walk.filter(node));
        if let (Some(_), Concurrency::Batch { .. }) = (&affinity, concurrency) {
            let message = "a batch goes to one worker as a whole, whatever the keys of its jobs";
            let both = Diagnostic::error("two-ways", fields.span_of("affinity"), message);
            self.found.push(both.hint("leave out `affinity` or `batch`"));
        }
        if let (Some(Workers::Range { .. }), true) = (workers, rust.is_some() || command.is_some() && !speaks) {
            let message = "only workers that stay up can be more and fewer";
            let useless = Diagnostic::error("useless-key", fields.span_of("workers"), message);
            self.found.push(useless.hint("write how many jobs are done at a time, or `auto`"));
        }
        fields.finish();
        if let Some(command) = &command {
            self.look_for(command, env.as_deref().unwrap_or_default(), node);
        }
        let command = match protocol {
            Some(_) => command.map(Kind::Frames),
            None if speaks => None,
            None => command.map(Kind::Command),
        };
        Some(Stage {
            name: name.to_string(),
            kind: python.or(filter).or(rust).or(command)?,
            workers: workers.unwrap_or(Workers::Count(defaults::WORKERS)),
            timeout: timeout.unwrap_or(defaults::STAGE_TIMEOUT),
            retries: retries.map_or(defaults::RETRIES, |retries| retries as u32),
            retry_on: retry_on.unwrap_or_default(),
            backoff,
            queue,
            env: env.unwrap_or_default(),
            cwd: cwd.unwrap_or_else(|| self.folder.to_path_buf()),
            interpreter,
            memory,
            max_jobs_per_worker,
            start_timeout: start_timeout.unwrap_or(defaults::START_TIMEOUT),
            grace: grace.unwrap_or(defaults::GRACE),
            on_cancel: on_cancel.unwrap_or(OnCancel::Tell),
            reload: if reload == Some("stop-first") { Replacement::StopFirst } else { Replacement::StartFirst },
            concurrency,
            affinity,
            weight,
            goto: None,
            output: match output {
                Some("json") => Decode::Json,
                Some("bytes") => Decode::Bytes,
                _ => Decode::Text,
            },
            max_output,
        })
    }

    /// Several jobs in one worker: in threads, as asynchronous functions, or in one call.
    fn concurrency(&mut self, fields: &mut Fields<'_>) -> (Concurrency, Option<Filter>) {
        let threads = fields.read("threads", self, |node, walk| walk.slots(node));
        let concurrency = fields.read("concurrency", self, |node, walk| walk.slots(node));
        let batch = fields.read("batch", self, |node, walk| walk.batch(node));
        let said = [("threads", threads.is_some()), ("concurrency", concurrency.is_some()), ("batch", batch.is_some())];
        let mut said = said.iter().filter(|(_, said)| *said);
        if let (Some((first, _)), Some((second, _))) = (said.next(), said.next()) {
            let message = format!("a worker does its jobs by `{first}` or by `{second}`, not by both");
            let both = Diagnostic::error("two-ways", fields.span_of(second), message);
            self.found.push(both.also(fields.span_of(first), "the other way").hint("leave one of them out"));
        }
        let concurrency = match (threads, concurrency, batch) {
            (_, _, Some(batch)) => return batch,
            (Some(threads), _, _) if threads > 1 => Concurrency::Threads(threads as u32),
            (_, Some(concurrency), _) => Concurrency::Async(concurrency as u32),
            _ => Concurrency::One,
        };
        (concurrency, None)
    }

    fn slots(&mut self, node: &Node) -> Option<u64> {
        self.number(node, "a number of jobs", 1, MOST_SLOTS)
    }

    fn batch(&mut self, node: &Node) -> Option<(Concurrency, Option<Filter>)> {
        let mut fields = Fields::open(node, node.span, &BATCH, &[], self)?;
        let max = fields.require("max", self, |node, walk| walk.slots(node));
        let (wait, idle) = fields.read("wait", self, |node, walk| walk.batch_wait(node)).unwrap_or_default();
        let weight = fields.read("weight", self, |node, walk| walk.filter(node));
        fields.finish();
        let (wait, idle) = (wait.unwrap_or(defaults::BATCH_WAIT), idle.unwrap_or_default());
        Some((Concurrency::Batch { max: max? as u32, wait, idle }, weight))
    }

    /// How long jobs may gather, or how long they may wait for others beside an idle worker.
    fn batch_wait(&mut self, node: &Node) -> Option<(Option<Duration>, Option<Duration>)> {
        match &node.value {
            Value::Map(_) => {
                let mut fields = Fields::open(node, node.span, &BATCH_WAIT, &[], self)?;
                let idle = fields.require("idle", self, |node, walk| walk.duration(node, true));
                fields.finish();
                Some((None, Some(idle?)))
            }
            Value::Seq(_) => {
                self.expected(node, "a duration such as `5ms`, or a mapping with `idle`");
                None
            }
            Value::Scalar(_) | Value::Broken => Some((Some(self.duration(node, true)?), None)),
        }
    }

    /// Where the code of stages may send values.
    pub(super) fn gotos(&mut self, entries: &[Entry], stages: &mut [Stage], names: &mut super::Names<'_>) {
        for entry in entries {
            let Value::Map(keys) = &entry.value.value else { continue };
            let Some(goto) = keys.iter().find(|key| &*key.key == "goto") else { continue };
            let Some(items) = self.list(&goto.value, &["a_stage, a_pipeline"]) else { continue };
            let targets = items.iter().filter_map(|item| self.reference(item, names)).collect();
            if let Some(stage) = stages.iter_mut().find(|stage| *stage.name == *entry.key) {
                stage.goto = Some(targets);
            }
        }
    }

    /// The kinds that a stage names; more than one is an error of its own.
    fn kinds(&mut self, node: &Node) -> Vec<(&'static str, Span)> {
        let Value::Map(entries) = &node.value else { return Vec::new() };
        let kind = |entry: &Entry| {
            let known = KINDS.iter().chain(LATER_KINDS);
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

    /// A jq program.
    pub(super) fn filter(&mut self, node: &Node) -> Option<Filter> {
        let source = self.text(node, "a jq program")?;
        let Err(error) = self.check_jq(source) else {
            return Some(Filter { source: source.into() });
        };
        // The text's place in the file is that of its beginning: it may be quoted, folded or indented.
        let place = place_in(source, error.offset).map(|place| format!("{place} of the program"));
        let found = Diagnostic::error("bad-jq", node.span, format!("this is not a jq program: {error}"));
        self.found.push(match place {
            Some(place) => found.hint(place),
            None => found,
        });
        None
    }

    /// Reports the keys that mean nothing for a stage of this kind.
    fn useless_keys(&mut self, kind: &str, node: &Node) {
        let Value::Map(entries) = &node.value else { return };
        let means_nothing = |key: &str| match kind {
            "command" => NOT_OF_COMMANDS.contains(&key),
            "frames" => NOT_OF_FRAMES.contains(&key),
            "python" => OF_COMMANDS.contains(&key) || key == "protocol",
            "rust" if OF_FUNCTIONS.contains(&key) => false,
            _ => OF_WORKERS.contains(&key) || OF_COMMANDS.contains(&key) || key == "protocol",
        };
        for entry in entries.iter().filter(|entry| means_nothing(&entry.key)) {
            let message = format!("a {kind} stage has no {}", quote(&entry.key));
            let hint = match (kind, &*entry.key) {
                (_, "output" | "max_output" | "protocol") if kind != "frames" => "that is for a `command`",
                ("frames", "output" | "max_output") => "its worker says itself what a result is",
                ("frames", "threads") => "write `concurrency`: how many jobs its worker takes at a time",
                (_, "interpreter") if kind != "jq" && kind != "rust" => {
                    "it is no Python stage; the program is the first word of `command`"
                }
                ("command", "batch") => "each job has a process; `protocol: frames` has workers that may take batches",
                ("command" | "jq", "goto") => "only code can answer with a goto",
                ("command", "threads" | "concurrency") => "each job has a process; `workers` says how many at a time",
                ("command", _) => "each job has a process of its own, and none stays; leave the key out",
                (_, "retries" | "retry_on" | "backoff") => "a jq program gives the same again: it is not tried twice",
                _ => "it runs in the node and not in workers; leave the key out",
            };
            self.found.push(Diagnostic::error("useless-key", entry.key_span, message).hint(hint));
        }
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

    fn retry_on(&mut self, node: &Node) -> RetryOn {
        let chosen = self.choices(node, RETRY_ON);
        RetryOn {
            lost: chosen.contains(&"lost"),
            timeout: chosen.contains(&"timeout"),
            error: chosen.contains(&"error"),
        }
    }
}

/// An offset in a text that has lines.
fn place_in(text: &str, offset: Option<usize>) -> Option<String> {
    let before = text.get(..offset?)?;
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    Some(format!("at line {line}, column {column}"))
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
