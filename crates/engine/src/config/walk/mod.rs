//! From the tree to a service: reads every value, looks up every name, and reports whatever is wrong.
//!
//! Reading goes on after an error as far as anything can still be said that is not a mere echo of it.

mod cors;
mod fields;
mod functions;
mod listen;
mod nearest;
mod pipeline;
mod route;
mod stage;
mod step;
mod tests;
mod trigger;
pub(crate) mod units;
mod values;
mod workforce;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fields::Fields;
use pipeline::Names;
use route::Unsaid;

use super::diagnostic::{Diagnostic, Severity};
use super::keys::{KINDS, LATER_KINDS, LEAST_HEADERS, LIMITS, MOST, SERVICE};
use super::source::Source;
use super::yaml::{Entry, Node, Value, quote};
use super::{Limits, Listener, Service, defaults};
use crate::jq::{JqError, Program};

/// Where the walk is, and what it found.
pub(crate) struct Walk<'a> {
    /// The file as it was named.
    pub(crate) file: &'a Path,
    /// The folder where relative paths start, absolute.
    pub(crate) folder: &'a Path,
    /// The texts that the tree is read from.
    pub(crate) sources: &'a [Source],
    /// The files among them, absolute; the service file first.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) found: Vec<Diagnostic>,
    /// The jq programs that are good. Compiling takes long, and tests have the same ones read again and again.
    pub(crate) programs: &'a RefCell<HashMap<String, Arc<Program>>>,
    /// Whether something goes over the file. That may switch off what leads to a stage.
    pub(crate) overlaid: bool,
}

/// What is wrong with a change that is made to a stage which is not there: an overlay that says what kind it has makes a new one.
pub(crate) fn unknown_stage(overlay: &Node, base: &Node) -> Option<Diagnostic> {
    fn stages(node: &Node) -> &[Entry] {
        match node.entry("stages").map(|entry| &entry.value.value) {
            Some(Value::Map(entries)) => entries,
            _ => &[],
        }
    }
    let known = stages(base);
    let has_kind = |node: &Node| KINDS.iter().chain(LATER_KINDS).any(|kind| node.entry(kind).is_some());
    let mut unknown = stages(overlay).iter().filter(|entry| !known.iter().any(|known| known.key == entry.key));
    let entry = unknown.find(|entry| matches!(entry.value.value, Value::Map(_)) && !has_kind(&entry.value))?;
    let message = format!("there is no stage {}", quote(&entry.key));
    let unknown = Diagnostic::error("unknown-name", entry.key_span, message);
    Some(match nearest::nearest(&entry.key, known.iter().map(|known| &*known.key)) {
        Some(near) => unknown.hint(format!("did you mean `{near}`?")),
        None => unknown.hint("one that is new needs its kind, such as `python: \"module:function\"`"),
    })
}

impl Walk<'_> {
    /// Reads a whole file. `None` if there were errors.
    pub(crate) fn service(&mut self, root: &Node) -> Option<Service> {
        let mut fields = Fields::open(root, root.span, &SERVICE, &[], self)?;
        let name =
            fields.require("service", self, |node, walk| walk.name(node, "the name of the service").map(String::from));
        let listen = fields.read("listen", self, |node, walk| walk.listen(node));

        let stage_entries =
            fields.read("stages", self, |node, walk| walk.named(node, "stages by name, a mapping")).unwrap_or_default();
        let pipeline_entries = fields
            .read("pipelines", self, |node, walk| walk.named(node, "pipelines by name, a mapping"))
            .unwrap_or_default();
        let route_nodes =
            fields.read("routes", self, |node, walk| walk.list(node, &["{path: /, pipeline: …}"])).unwrap_or_default();
        let cors = fields.read("cors", self, |node, walk| walk.cors(node));
        let compression = fields.read("compression", self, |node, walk| walk.boolean(node));
        let unsaid = Unsaid { cors: cors.flatten(), compression: compression.unwrap_or(false) };
        let pool_entries = fields.read("functions", self, |node, walk| walk.pool_entries(node)).unwrap_or_default();
        let trigger_nodes = fields
            .read("triggers", self, |node, walk| walk.list(node, &["{every: 1s, pipeline: …}"]))
            .unwrap_or_default();
        fields.require_some(self);
        let test_nodes = fields
            .read("tests", self, |node, walk| walk.list(node, &["{name: …, request: {path: /}}"]))
            .unwrap_or_default();
        // What it named is in the tree.
        fields.entry("include");

        let limits = fields.read("limits", self, |node, walk| walk.limits(node));
        let drain = fields.read("drain", self, |node, walk| walk.duration(node, true));
        let debug = fields.read("debug", self, |node, walk| walk.boolean(node));
        self.some_stages(&mut fields);
        fields.finish();

        let mut names = Names::new(stage_entries, pipeline_entries, pool_entries, &mut self.found);
        let mut stages: Vec<_> = stage_entries.iter().filter_map(|entry| self.stage(entry)).collect();
        let pipelines = self.pipelines(pipeline_entries, &mut names);
        self.gotos(stage_entries, &mut stages, &mut names);
        let routes = self.routes(route_nodes, &mut names, &unsaid);
        let triggers = self.triggers(trigger_nodes, &mut names);
        let functions: Vec<_> = pool_entries.iter().filter_map(|entry| self.function_pool(entry)).collect();
        let tests = self.tests(test_nodes);
        // What leads to a stage may be what is not wanted just now.
        if !self.overlaid {
            names.unused(stage_entries, &mut self.found);
        }

        if !self.has_errors() {
            self.variations(root, test_nodes);
        }
        if self.has_errors() {
            return None;
        }
        let mut listen = listen.unwrap_or_default();
        if listen.http.is_none() && !routes.is_empty() {
            listen.http = Listener::new(defaults::HTTP_ADDRESS).ok();
        }
        Some(Service {
            name: name?,
            file: self.file.to_path_buf(),
            files: std::mem::take(&mut self.files),
            folder: self.folder.to_path_buf(),
            listen,
            stages,
            pipelines,
            routes,
            functions,
            triggers,
            tests,
            limits: limits.unwrap_or_default(),
            drain: drain.unwrap_or(defaults::DRAIN),
            debug: debug.unwrap_or(false),
        })
    }

    fn some_stages(&mut self, fields: &mut Fields<'_>) {
        if let Some(Node { span, value: Value::Map(entries) }) = fields.entry("stages").map(|entry| &entry.value)
            && entries.is_empty()
        {
            let empty = Diagnostic::error("no-stages", *span, "a service needs at least one stage");
            self.found.push(empty.hint("a service that has `functions` may leave `stages` out"));
        }
    }

    fn has_errors(&self) -> bool {
        self.found.iter().any(|one| one.severity == Severity::Error)
    }

    /// Whether a text is a jq program.
    fn check_jq(&self, source: &str) -> Result<(), JqError> {
        if !self.programs.borrow().contains_key(source) {
            let program = Program::compile(source)?;
            self.programs.borrow_mut().insert(source.into(), program);
        }
        Ok(())
    }

    fn limits(&mut self, node: &Node) -> Option<Limits> {
        let unsaid = Limits::default();
        let mut fields = Fields::open(node, node.span, &LIMITS, &[], self)?;
        let body = fields.read("body", self, |node, walk| walk.size(node, 0));
        let queue = fields.read("queue", self, |node, walk| walk.number(node, "a number of jobs", 1, MOST));
        let memory = fields.read("memory", self, |node, walk| walk.size(node, 1));
        let connections =
            fields.read("connections", self, |node, walk| walk.number(node, "a number of connections", 1, MOST));
        let max_hops = fields.read("max_hops", self, |node, walk| walk.number(node, "a number of hops", 0, MOST));
        let headers = fields.read("headers", self, |node, walk| walk.size(node, LEAST_HEADERS));
        let header_timeout = fields.read("header_timeout", self, |node, walk| walk.duration(node, false));
        let body_timeout = fields.read("body_timeout", self, |node, walk| walk.duration(node, false));
        let idle_timeout = fields.read("idle_timeout", self, |node, walk| walk.duration(node, false));
        let limits = Limits {
            body: body.unwrap_or(unsaid.body),
            queue: queue.map_or(unsaid.queue, |queue| queue as usize),
            memory: memory.unwrap_or(unsaid.memory),
            connections: connections.map_or(unsaid.connections, |most| most as usize),
            max_hops: max_hops.map_or(unsaid.max_hops, |most| most as u32),
            headers: headers.unwrap_or(unsaid.headers),
            header_timeout: header_timeout.unwrap_or(unsaid.header_timeout),
            body_timeout: body_timeout.unwrap_or(unsaid.body_timeout),
            idle_timeout: idle_timeout.unwrap_or(unsaid.idle_timeout),
        };
        if limits.body > limits.memory {
            let message = format!(
                "a body of the allowed {} never fits into a memory of {}",
                units::show_size(limits.body),
                units::show_size(limits.memory)
            );
            let key = if body.is_some() { "body" } else { "memory" };
            self.found.push(Diagnostic::warning("body-over-memory", fields.span_of(key), message));
        }
        fields.finish();
        Some(limits)
    }
}
