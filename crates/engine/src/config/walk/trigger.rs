//! Triggers: what makes requests without a client.

use std::collections::HashSet;

use evener_doors::triggers::{BadSchedule, Schedule};

use super::Walk;
use super::fields::Fields;
use super::pipeline::Names;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{ON_EVENT, OVERLAP, TRIGGER};
use crate::config::yaml::{Node, quote};
use crate::config::{Overlap, Trigger, When, defaults};

impl Walk<'_> {
    pub(super) fn triggers(&mut self, nodes: &[Node], names: &mut Names<'_>) -> Vec<Trigger> {
        let mut taken = HashSet::new();
        let numbered = nodes.iter().enumerate();
        numbered.filter_map(|(number, node)| self.trigger(node, number, names, &mut taken)).collect()
    }

    fn trigger(
        &mut self,
        node: &Node,
        number: usize,
        names: &mut Names<'_>,
        taken: &mut HashSet<String>,
    ) -> Option<Trigger> {
        let mut fields = Fields::open(node, node.span, &TRIGGER, &[], self)?;
        fields.require_some(self);
        let kinds: Vec<&str> = ["every", "cron", "on"].into_iter().filter(|kind| fields.has(kind)).collect();
        if let [first, second, ..] = kinds[..] {
            let message = format!("a trigger fires at one kind of time, and this one has `{first}` and `{second}`");
            let two = Diagnostic::error("two-kinds", fields.span_of(second), message);
            self.found.push(two.also(fields.span_of(first), "the first").hint("make two triggers of it"));
        }
        let every = fields.read("every", self, |node, walk| walk.duration(node, false)).map(When::Every);
        let zone_span = fields.span_of("timezone");
        let zone =
            fields.read("timezone", self, |node, walk| walk.text(node, "the name of a time zone").map(String::from));
        let cron = fields.read("cron", self, |node, walk| {
            walk.text(node, "a cron expression").map(|text| (text.to_owned(), node.span))
        });
        if let (Some(_), false) = (&zone, kinds.contains(&"cron")) {
            let useless = Diagnostic::error("useless-key", zone_span, "`timezone` is of `cron`, and there is none");
            self.found.push(useless.hint("leave it out"));
        }
        let cron = cron.and_then(|(expression, span)| {
            let timezone = zone.unwrap_or_else(|| defaults::TIMEZONE.to_owned());
            match Schedule::new(&expression, &timezone) {
                Ok(_) => return Some(When::Cron { expression, timezone }),
                Err(BadSchedule::Expression(why)) => {
                    let message = format!("{} is no cron expression: {why}", quote(&expression));
                    let hint = "five fields: minute, hour, day of the month, month, day of the week, as in `0 3 * * *`; \
                                six begin with seconds";
                    self.found.push(Diagnostic::error("bad-cron", span, message).hint(hint));
                }
                Err(BadSchedule::Zone(why)) => {
                    let message = format!("there is no time zone {}: {why}", quote(&timezone));
                    let hint = "names are those of the IANA database: `UTC`, `Europe/Berlin`";
                    self.found.push(Diagnostic::error("bad-timezone", zone_span, message).hint(hint));
                }
            }
            None
        });
        let on = fields.read("on", self, |node, walk| walk.choice(node, ON_EVENT)).map(|on| match on {
            "startup" => When::Startup,
            _ => When::Shutdown,
        });
        let target = fields.require("pipeline", self, |node, walk| walk.reference(node, names));
        let name_span = fields.span_of("name");
        let name = fields.read("name", self, |node, walk| walk.name(node, "the name of a trigger").map(String::from));
        let input = fields.entry("input").map(|entry| self.json(&entry.value));
        let timeout = fields.read("timeout", self, |node, walk| walk.duration(node, false));
        let priority = fields.read("priority", self, |node, walk| walk.priority(node));
        let on_error = fields.read("on_error", self, |node, walk| walk.reference(node, names));
        let overlap = fields.read("overlap", self, |node, walk| walk.choice(node, OVERLAP));
        fields.finish();
        let name = name.unwrap_or_else(|| format!("trigger {}", number + 1));
        if !taken.insert(name.clone()) {
            let message = format!("there are two triggers {}", quote(&name));
            self.found.push(Diagnostic::error("duplicate-name", name_span, message).hint("name them apart"));
        }
        Some(Trigger {
            name,
            when: every.or(cron).or(on)?,
            target: target?,
            input: match input {
                Some(input) => input?,
                None => serde_json::Value::Null,
            },
            timeout: timeout.unwrap_or(defaults::ROUTE_TIMEOUT),
            priority: priority.unwrap_or(0),
            on_error,
            overlap: if overlap == Some("run") { Overlap::Run } else { Overlap::Skip },
        })
    }
}
