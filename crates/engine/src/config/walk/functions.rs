//! Function pools.

use super::Walk;
use super::fields::Fields;
use super::workforce::Workforce;
use crate::config::FunctionPool;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::FUNCTION_POOL;
use crate::config::yaml::{Entry, Node, Plain, Scalar, Value, quote};

impl Walk<'_> {
    /// The entries of `functions`.
    pub(super) fn pool_entries<'n>(&mut self, node: &'n Node) -> Option<&'n [Entry]> {
        let entries = self.named(node, "function pools by name, such as `{default: {workers: auto}}`")?;
        if entries.is_empty() {
            let empty = Diagnostic::error("no-pools", node.span, "`functions` names no pool");
            self.found.push(empty.hint("write `functions: {default: {}}`; without `functions`, none are taken"));
        }
        Some(entries)
    }

    pub(super) fn function_pool(&mut self, entry: &Entry) -> Option<FunctionPool> {
        let Entry { key: name, key_span, value: node } = entry;
        // `default:` with nothing behind it stands for a pool that has every default.
        let empty = Node { span: node.span, value: Value::Map(Vec::new()) };
        let node = match node.scalar().map(Scalar::resolve) {
            Some(Plain::Null) => &empty,
            Some(Plain::Int(_) | Plain::Str("auto")) => {
                let message = format!("expected a function pool, a mapping, found {}", node.describe());
                let wrong = Diagnostic::error("wrong-type", node.span, message);
                let text = node.scalar().map_or("", |scalar| &scalar.text);
                self.found.push(wrong.hint(format!("write {}", quote(&format!("{{workers: {text}}}")))));
                return None;
            }
            _ => node,
        };
        let mut fields = Fields::open(node, *key_span, &FUNCTION_POOL, &[], self)?;
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
        let output = fields.read("output", self, |node, walk| walk.size(node, 0));
        fields.finish();
        let unsaid = FunctionPool::new(name, self.folder.to_path_buf());
        Some(FunctionPool {
            workers: workers.unwrap_or(unsaid.workers),
            queue,
            env: env.unwrap_or_default(),
            cwd: cwd.unwrap_or(unsaid.cwd),
            interpreter,
            memory,
            max_jobs_per_worker,
            start_timeout: start_timeout.unwrap_or(unsaid.start_timeout),
            grace: grace.unwrap_or(unsaid.grace),
            on_cancel: on_cancel.unwrap_or(unsaid.on_cancel),
            output: output.unwrap_or(unsaid.output),
            ..unsaid
        })
    }
}
