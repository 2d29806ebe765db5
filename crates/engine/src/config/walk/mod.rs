//! From the tree to a service: reads every value, looks up every name, and reports whatever is wrong.
//!
//! Reading goes on after an error as far as anything can still be said that is not a mere echo of it.

mod fields;
mod functions;
mod listen;
mod nearest;
mod pipeline;
mod route;
mod stage;
mod step;
pub(crate) mod units;
mod values;
mod workforce;

use std::path::Path;

use fields::Fields;
use pipeline::Names;

use super::diagnostic::{Diagnostic, Severity};
use super::keys::{LEAST_HEADERS, LIMITS, MOST, SERVICE};
use super::yaml::{Node, Value};
use super::{Limits, Listener, Service, defaults};

/// Where the walk is, and what it found.
pub(crate) struct Walk<'a> {
    /// The file as it was named.
    pub(crate) file: &'a Path,
    /// The folder where relative paths start, absolute.
    pub(crate) folder: &'a Path,
    pub(crate) found: Vec<Diagnostic>,
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
        let pool_entries = fields.read("functions", self, |node, walk| walk.pool_entries(node)).unwrap_or_default();
        fields.require_some(self);

        let limits = fields.read("limits", self, |node, walk| walk.limits(node));
        let drain = fields.read("drain", self, |node, walk| walk.duration(node, true));
        let debug = fields.read("debug", self, |node, walk| walk.boolean(node));

        if let Some(Node { span, value: Value::Map(entries) }) = fields.entry("stages").map(|entry| &entry.value)
            && entries.is_empty()
        {
            let empty = Diagnostic::error("no-stages", *span, "a service needs at least one stage");
            self.found.push(empty.hint("a service that has `functions` may leave `stages` out"));
        }
        fields.finish();

        let mut names = Names::new(stage_entries, pipeline_entries, pool_entries, &mut self.found);
        let stages: Vec<_> = stage_entries.iter().filter_map(|entry| self.stage(entry)).collect();
        let pipelines = self.pipelines(pipeline_entries, &mut names);
        let routes = self.routes(route_nodes, &mut names);
        let functions: Vec<_> = pool_entries.iter().filter_map(|entry| self.function_pool(entry)).collect();
        names.unused(stage_entries, &mut self.found);

        if self.found.iter().any(|one| one.severity == Severity::Error) {
            return None;
        }
        let mut listen = listen.unwrap_or_default();
        if listen.http.is_none() && !routes.is_empty() {
            listen.http = Listener::new(defaults::HTTP_ADDRESS).ok();
        }
        Some(Service {
            name: name?,
            file: self.file.to_path_buf(),
            folder: self.folder.to_path_buf(),
            listen,
            stages,
            pipelines,
            routes,
            functions,
            limits: limits.unwrap_or_default(),
            drain: drain.unwrap_or(defaults::DRAIN),
            debug: debug.unwrap_or(false),
        })
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
