//! Text that is not YAML, or not the YAML that a service file may use.

use saphyr_parser::{Marker, ScanError};

use crate::config::diagnostic::Diagnostic;
use crate::config::source::{Source, Span};

/// Where each line begins, to turn the parser's lines and columns into bytes.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self { text, starts: std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect() }
    }

    pub(super) fn byte(&self, marker: &Marker) -> usize {
        let line = marker.line().saturating_sub(1);
        let Some(&start) = self.starts.get(line) else { return self.text.len() };
        let end = self.starts.get(line + 1).copied().unwrap_or(self.text.len());
        let line = &self.text[start..end];
        // Nearly every line is ASCII, and then columns are bytes.
        if line.is_ascii() {
            return start + marker.col().min(line.len());
        }
        line.char_indices().nth(marker.col()).map_or(end, |(at, _)| start + at)
    }
}

/// Characters that YAML does not allow anywhere, all of them.
pub(super) fn unprintable(source: &Source) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut chars = source.text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let good = match c {
            '\u{feff}' => false,
            '\t' | '\n' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' => true,
            '\r' => chars.peek().is_some_and(|(_, next)| *next == '\n'),
            '\u{10000}'.. => true,
            _ => false,
        };
        if !good {
            let message = format!("the character U+{:04X} is not allowed here", u32::from(c));
            found.push(
                Diagnostic::error("syntax", Span::new(at, at + c.len_utf8()), message)
                    .hint("remove it, or write it as an escape between double quotes"),
            );
        }
    }
    found
}

/// What the parser says, at its place, with a hint for the usual reasons.
pub(super) fn failed(source: &Source, lines: &Lines<'_>, error: &ScanError) -> Diagnostic {
    let at = lines.byte(error.marker());
    let rest = &source.text[at..];
    let width = rest.chars().next().filter(|c| *c != '\n' && *c != '\r').map_or(0, char::len_utf8);
    let span = Span::new(at, at + width);
    let line = source.lines(span);
    let line = &source.text[line.range()];
    let diagnostic = Diagnostic::error("syntax", span, "this is not valid YAML")
        .label(error.info().trim_start_matches("while parsing a node, "));
    match hint(error.info(), line, rest) {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }
}

fn hint(info: &str, line: &str, rest: &str) -> Option<&'static str> {
    let indent: &str = &line[..line.len() - line.trim_start().len()];
    if info.contains("tab") || indent.contains('\t') || rest.starts_with('\t') {
        Some("indent with spaces: YAML does not allow tabs there")
    } else if info.contains("unknown anchor") {
        Some("an alias such as `*name` needs its anchor `&name` before it; quote a text that begins with `*`")
    } else if line.contains("${") {
        Some("put quotes around `${…}` between brackets or braces")
    } else if line.contains("[::") || line.contains(": [") && line.contains("]:") {
        Some("put quotes around an IPv6 address")
    } else if rest.starts_with(['@', '`', '%', '!', '&', '*']) {
        Some("put quotes around a text that begins with this character")
    } else if info.contains("mapping values are not allowed") {
        Some("put quotes around a text that contains `: `, and check the indentation")
    } else if info.contains("quoted scalar, found unexpected end") {
        Some("close the quotes")
    } else if info.contains("flow") {
        Some("close the bracket or brace, and separate its items by commas")
    } else if info.contains("did not find expected key") || info.contains("indentation") {
        Some("keys of one mapping begin in the same column")
    } else if rest.trim().is_empty() {
        Some("the file ends before this is complete")
    } else {
        None
    }
}
