//! What people see of the results, as they come.

use std::io::{self, Stdout, Write};
use std::time::Duration;

use super::client::Came;
use super::text::{cut, harmless, span};
use super::{Outcome, Verdict};

/// The most characters of an answer's body that are shown.
const BODY: usize = 2000;
/// The most lines of the node's log that are shown for a test.
const LOG_LINES: usize = 40;

/// Writes results to standard output.
pub(super) struct Report {
    out: Stdout,
    colours: bool,
}

impl Report {
    pub(super) fn new() -> Self {
        let out = io::stdout();
        Self { colours: crate::log::colours_on(&out), out }
    }

    /// One result.
    pub(super) fn outcome(&mut self, outcome: &Outcome) -> io::Result<()> {
        let (name, took) = (harmless(&outcome.test.name), span(outcome.took));
        let text = match &outcome.verdict {
            Verdict::Passed => format!("{}  {name} ({took})\n", self.coloured("ok  ", "32")),
            Verdict::NotRun => return Ok(()),
            Verdict::Failed { .. } | Verdict::Broken(_) => {
                format!("{}  {name} ({took})\n{}", self.coloured("FAIL", "1;31"), details(outcome))
            }
        };
        self.write(&text)
    }

    /// What all of them have come to.
    pub(super) fn summary(&mut self, outcomes: &[Outcome], took: Duration) -> io::Result<()> {
        let count = |wanted: fn(&Verdict) -> bool| outcomes.iter().filter(|outcome| wanted(&outcome.verdict)).count();
        let passed = count(|verdict| matches!(verdict, Verdict::Passed));
        let not_run = count(|verdict| matches!(verdict, Verdict::NotRun));
        let failed = outcomes.len() - passed - not_run;
        let mut parts = vec![format!("{passed} passed")];
        if failed > 0 {
            parts.push(format!("{failed} failed"));
        }
        if not_run > 0 {
            parts.push(format!("{not_run} not run"));
        }
        let tests = if outcomes.len() == 1 { "test" } else { "tests" };
        let colour = if passed == outcomes.len() { "32" } else { "1;31" };
        let parts = self.coloured(&parts.join(", "), colour);
        self.write(&format!("\n{} {tests}: {parts} ({})\n", outcomes.len(), span(took)))
    }

    fn coloured(&self, text: &str, colour: &str) -> String {
        match self.colours {
            true => format!("\x1b[{colour}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// At once: a terminal and a CI system show what there is so far.
    fn write(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

/// Everything about a test that failed, indented.
fn details(outcome: &Outcome) -> String {
    let test = &outcome.test;
    let mut text = format!("      {}:{}\n", test.file, test.line);
    match &outcome.verdict {
        Verdict::Failed { wrong, answer } => {
            let request = format!("{} {}", test.request.method, test.request.path);
            text.push_str(&indented(&wrong.join("\n"), 6));
            if let Some(answer) = answer {
                text.push_str(&indented(&format!("the answer to {request}:"), 6));
                text.push_str(&indented(answer, 8));
            }
        }
        Verdict::Broken(why) => text.push_str(&indented(why, 6)),
        Verdict::Passed | Verdict::NotRun => {}
    }
    if !outcome.log.is_empty() {
        text.push_str("      the log meanwhile:\n");
        let lines: Vec<_> = outcome.log.lines().collect();
        let left_out = lines.len().saturating_sub(LOG_LINES);
        if left_out > 0 {
            text.push_str(&format!("        … {left_out} lines before these\n"));
        }
        text.push_str(&indented(&lines[left_out..].join("\n"), 8));
    }
    text
}

/// Each line of a text that may be anything, so far from the left.
fn indented(text: &str, by: usize) -> String {
    let mut indented = String::new();
    for line in harmless(text).lines() {
        let line = if line.is_empty() { "\n".to_owned() } else { format!("{:by$}{line}\n", "") };
        indented.push_str(&line);
    }
    indented
}

/// An answer as it is shown: status, headers, and the beginning of the body.
pub(super) fn shown(came: &Came) -> String {
    let mut text = format!("{}\n", came.status);
    for (name, value) in &came.headers {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    match std::str::from_utf8(&came.body) {
        Ok("") => {}
        Ok(body) => text.push_str(&format!("\n{}\n", cut(body, BODY))),
        Err(_) => text.push_str(&format!("\n({} bytes that are no text)\n", came.body.len())),
    }
    text
}
