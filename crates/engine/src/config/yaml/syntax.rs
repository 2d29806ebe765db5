//! Text that is not YAML, or not the YAML that a service file may use.

use saphyr_parser::{Marker, ScanError};

use crate::config::diagnostic::Diagnostic;
use crate::config::source::{Source, Span};

/// Turns the parser's lines and columns into bytes.
pub(super) struct Lines {
    /// Where each line begins, in characters.
    starts: Vec<usize>,
    /// Where each character begins, in bytes; empty if the text is ASCII and the two are the same.
    bytes: Vec<usize>,
    /// Bytes in all.
    len: usize,
}

impl Lines {
    pub(super) fn new(text: &str) -> Self {
        let breaks = text.chars().enumerate().filter(|(_, c)| *c == '\n');
        let starts = std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect();
        let bytes = match text.is_ascii() {
            true => Vec::new(),
            false => text.char_indices().map(|(at, _)| at).collect(),
        };
        Self { starts, bytes, len: text.len() }
    }

    pub(super) fn byte(&self, marker: &Marker) -> usize {
        let line = marker.line().saturating_sub(1);
        let Some(start) = self.starts.get(line) else { return self.len };
        // A column beyond its line would be the parser's mistake; it must not lead into the next.
        let end = self.starts.get(line + 1).map_or(usize::MAX, |next| next - 1);
        let character = (start + marker.col()).min(end);
        if self.bytes.is_empty() {
            return character.min(self.len);
        }
        self.bytes.get(character).copied().unwrap_or(self.len)
    }
}

/// The first characters that YAML does not allow anywhere.
pub(super) fn unprintable(source: &Source) -> Vec<Diagnostic> {
    const MOST: usize = 20;
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
        if !good && found.len() < MOST {
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
pub(super) fn failed(source: &Source, lines: &Lines, error: &ScanError) -> Diagnostic {
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
    if unquoted_path(line) {
        return Some("put a path with parameters in quotes, as in `path: \"/items/{id}\"`");
    }
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

/// Whether the line has a path with a parameter and without quotes, where braces or brackets are around it.
fn unquoted_path(line: &str) -> bool {
    let Some((before, after)) = line.split_once("path:") else { return false };
    let after = after.trim_start();
    before.contains(['{', '['])
        && after.starts_with('/')
        && after.split([',', ' ']).next().is_some_and(|p| p.contains('{'))
}
