//! Stages that start programs: for each job, or as workers that stay up.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Walk;
use crate::config::CommandLine;
use crate::config::diagnostic::Diagnostic;
use crate::config::yaml::{Entry, Node, Plain, Scalar, Value, quote};
use crate::jq::template;

impl Walk<'_> {
    /// A program and its arguments. Each may be a template, but for the program, if `templates` says so.
    pub(super) fn command(&mut self, node: &Node, templates: bool) -> Option<CommandLine> {
        if let Some(Plain::Str(text)) = node.scalar().map(Scalar::resolve)
            && text.contains(char::is_whitespace)
        {
            let words: Vec<_> = text.split_whitespace().collect();
            let message = format!("expected a list of a program and its arguments, found {}", node.describe());
            let wrong = Diagnostic::error("wrong-type", node.span, message);
            self.found.push(wrong.hint(format!("no shell stands in between: write `[{}]`", words.join(", "))));
            return None;
        }
        let items = self.list(node, &["tr, a-z, A-Z"])?;
        if items.is_empty() {
            let empty = Diagnostic::error("empty-command", node.span, "a command needs a program");
            self.found.push(empty.hint("write the program and its arguments: `[tr, a-z, A-Z]`"));
            return None;
        }
        let argv: Vec<_> = items.iter().enumerate().map(|(place, item)| self.word(item, place, templates)).collect();
        argv.into_iter().collect::<Option<_>>().map(|argv| CommandLine { argv })
    }

    /// One of the words of a command, taken as it is written.
    fn word(&mut self, node: &Node, place: usize, templates: bool) -> Option<String> {
        let text = match node.scalar() {
            Some(scalar) if scalar.resolve() != Plain::Null => &*scalar.text,
            _ => {
                self.expected(node, if place == 0 { "a program" } else { "an argument, a text" });
                return None;
            }
        };
        if text.contains('\0') || (place == 0 && text.is_empty()) {
            let message = format!("{} cannot be a part of a command", quote(text));
            self.found.push(Diagnostic::error("bad-command", node.span, message));
            return None;
        }
        if !templates || !template::has_programs(text) {
            return Some(text.to_owned());
        }
        if place == 0 {
            let message = "which program runs cannot come out of a value";
            let wrong = Diagnostic::error("bad-command", node.span, message);
            self.found
                .push(wrong.hint("templates are for arguments; make a stage for each program, and choose by goto"));
            return None;
        }
        let Err(error) = template::check(text, &mut |source| self.check_jq(source)) else {
            return Some(text.to_owned());
        };
        let found = Diagnostic::error("bad-jq", node.span, format!("this is not a template: {error}"));
        self.found.push(match super::place_in(text, error.offset) {
            Some(place) => found.hint(format!("{place} of the argument")),
            None => found,
        });
        None
    }

    /// Warns of a program that is not there: it may be once the service runs.
    pub(super) fn look_for(&mut self, command: &CommandLine, env: &[(String, String)], node: &Node) {
        let program = command.program(self.folder);
        let shown = quote(command.argv.first().map_or("", String::as_str));
        let message = if Path::new(&program).is_absolute() {
            match Path::new(&program).is_file() {
                true if runs(Path::new(&program)) => return,
                true => format!("{shown} is not executable"),
                false => format!("there is no program {shown}"),
            }
        } else {
            let path = env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, path)| path.into());
            let path = path.or_else(|| std::env::var_os("PATH")).unwrap_or_default();
            if std::env::split_paths(&path).any(|folder| runs(&folder.join(&program))) {
                return;
            }
            format!("there is no program {shown} on the PATH")
        };
        let span = node.entry("command").map_or(node.span, |entry: &Entry| match &entry.value.value {
            Value::Seq(items) => items.first().map_or(entry.key_span, |item| item.span),
            _ => entry.key_span,
        });
        let hint =
            "a path with a slash starts in the folder of the service file, a bare name is looked for on the PATH";
        self.found.push(Diagnostic::warning("missing-program", span, message).hint(hint));
    }
}

/// Whether there is a file that may be run.
fn runs(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
