//! What is wrong with a service file, and how it is shown.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::source::{Source, Span};

/// The most diagnostics that one rendering shows; the count at its end covers the rest.
const SHOWN: usize = 200;

/// The longest piece of text that is shown, in bytes.
const LONGEST_PIECE: usize = 16 << 10;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The service cannot run.
    Error,
    /// The service can run and probably does not do what its author wanted.
    Warning,
}

/// One thing to say about a service file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name in kebab case, such as `unknown-key`.
    pub code: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    /// Where; `None` where the file as a whole is meant.
    pub span: Option<Span>,
    /// What to write under the place, or nothing.
    pub label: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Other places that belong to it, each with its label.
    pub secondary: Vec<(Span, String)>,
}

impl Diagnostic {
    pub(crate) fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            span: Some(span),
            label: String::new(),
            hint: None,
            secondary: Vec::new(),
        }
    }

    pub(crate) fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, message) }
    }

    /// An error about the file as a whole.
    pub(crate) fn file(code: &'static str, message: impl Into<String>) -> Self {
        Self { span: None, ..Self::error(code, Span::default(), message) }
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.secondary.push((span, label.into()));
        self
    }
}

/// All there is to say about one service file and what it includes, by position.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    /// The service file, then whatever else it is read from.
    sources: Vec<Source>,
    diagnostics: Vec<Diagnostic>,
    files: Vec<PathBuf>,
}

impl Report {
    /// The first source is the service file.
    pub(crate) fn new(sources: Vec<Source>, mut diagnostics: Vec<Diagnostic>) -> Self {
        // An alias brings the same place in more than once.
        let mut seen = HashSet::new();
        diagnostics.retain(|one| seen.insert(one.clone()));
        diagnostics.sort_by_key(|one| one.span);
        Self { sources, diagnostics, files: Vec::new() }
    }

    pub(crate) fn with_files(self, files: Vec<PathBuf>) -> Self {
        Self { files, ..self }
    }

    /// The files that were read, or were to be, absolute: the service file, and those that it includes. Empty for a text.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The diagnostics, in the order of the file.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// The line and column, both from 1, where a diagnostic begins; `None` for the file as a whole.
    /// Columns count characters.
    pub fn position(&self, diagnostic: &Diagnostic) -> Option<(usize, usize)> {
        diagnostic.span.map(|span| self.source(span).position(span.start))
    }

    /// The name of the file that a diagnostic is about, as messages show it; `--set KEY=VALUE` for an overlay.
    pub fn name(&self, diagnostic: &Diagnostic) -> &str {
        &self.source(diagnostic.span.unwrap_or_default()).name
    }

    fn source(&self, span: Span) -> &Source {
        // A diagnostic of another report may name a source that is not here.
        self.sources.get(span.source as usize).unwrap_or(&self.sources[0])
    }

    /// How many diagnostics have this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|one| one.severity == severity).count()
    }

    /// The text to show to people: each diagnostic with its line as it stands in the file, and a count
    /// at the end. Empty for an empty report. `color` adds ANSI escapes.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for one in self.diagnostics.iter().take(SHOWN) {
            text.push_str(&renderer.render(&[self.group(one)]));
            text.push_str("\n\n");
        }
        if !self.diagnostics.is_empty() {
            text.push_str(&self.summary());
        }
        text
    }

    /// `3 errors and 1 warning in primes.yaml`.
    fn summary(&self) -> String {
        let mut parts = Vec::new();
        for (severity, word) in [(Severity::Error, "error"), (Severity::Warning, "warning")] {
            match self.count(severity) {
                0 => {}
                1 => parts.push(format!("1 {word}")),
                n => parts.push(format!("{n} {word}s")),
            }
        }
        let mut line = format!("{} in {}", parts.join(" and "), self.names());
        if self.diagnostics.len() > SHOWN {
            line.push_str(&format!(", of which the first {SHOWN} are shown"));
        }
        line.push('\n');
        line
    }

    /// The files that there is something to say about.
    fn names(&self) -> String {
        let mut all: Vec<&str> = Vec::new();
        for one in &self.diagnostics {
            let name = self.name(one);
            if !all.contains(&name) {
                all.push(name);
            }
        }
        match &all[..] {
            [] => self.sources[0].name.to_string(),
            [first, others @ ..] if others.len() > 3 => format!("{first} and {} other files", others.len()),
            [others @ .., last] if !others.is_empty() => format!("{} and {last}", others.join(", ")),
            _ => all.join(""),
        }
    }

    fn group<'a>(&'a self, one: &'a Diagnostic) -> Group<'a> {
        let level = match one.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&*one.message).id(one.code);
        let mut group = title.elements(Vec::<Origin<'_>>::new());
        match one.span {
            None => group = group.element(Origin::path(&*self.sources[0].name)),
            Some(primary) => {
                let mut marks = vec![(primary, AnnotationKind::Primary, &*one.label)];
                let others = one.secondary.iter();
                marks.extend(others.map(|(s, label)| (*s, AnnotationKind::Context, &**label)));
                // Each file has its own piece, that of the primary mark first.
                marks.sort_by_key(|(span, ..)| (span.source != primary.source, span.source));
                for marks in marks.chunk_by(|a, b| a.0.source == b.0.source) {
                    group = self.show(group, marks);
                }
            }
        }
        match &one.hint {
            Some(hint) => group.element(Level::HELP.message(&**hint)),
            None => group,
        }
    }

    /// All marks of one file in one piece of its text, whose untouched lines the renderer folds. Marks that are far
    /// from each other get a piece each, and one in an endless line is named only.
    fn show<'a>(&'a self, group: Group<'a>, marks: &[Mark<'a>]) -> Group<'a> {
        let source = self.source(marks[0].0);
        let lines = marks.iter().map(|(span, ..)| source.lines(*span));
        let from = lines.clone().map(|span| span.start).min().unwrap_or(0);
        let to = lines.map(|span| span.end).max().unwrap_or(0);
        if to - from > LONGEST_PIECE {
            return match marks {
                [(span, ..)] => {
                    let (line, column) = source.position(span.start);
                    let origin = Origin::path(&*source.name);
                    group.element(origin.line(line).char_column(column))
                }
                marks => marks.chunks(1).fold(group, |group, mark| self.show(group, mark)),
            };
        }
        let annotations = marks.iter().map(|(span, kind, label)| {
            let annotation = kind.span((span.start - from)..(span.end - from));
            if label.is_empty() { annotation } else { annotation.label(*label) }
        });
        group.element(
            Snippet::source(&source.text[from..to])
                .line_start(source.position(from).0)
                .path(&*source.name)
                .annotations(annotations),
        )
    }
}

/// A place, its rank, and what is written under it.
type Mark<'a> = (Span, AnnotationKind, &'a str);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::error::Error for Report {}
