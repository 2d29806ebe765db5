//! What goes over a service file: a value given on a command line, or what a test changes.

use super::diagnostic::Diagnostic;
use super::source::{Source, Span};
use super::yaml::{self, Entry, Node, Scalar, Value, quote};

/// The longest text of an overlay, in bytes.
const LONGEST: usize = 64 << 10;
/// How many keys may lead to a value.
const DEEPEST: usize = 32;
/// How many characters of an overlay's text name it in messages.
const SHOWN: usize = 80;

/// Values that go over those of a service file, like those of a file that includes it: mappings merge, and anything
/// else replaces what is in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// The text that its places are in.
    pub(super) source: Source,
    /// A mapping, whose places say that they are in the service file: whoever applies it puts that right.
    pub(super) root: Node,
}

impl Overlay {
    /// An overlay of one value: the keys that lead to it with dots between them, `=`, and the value as YAML, such as
    /// `stages.sum.workers=0` or `routes=[]`. Variables are not expanded, and nothing behind `=` is an empty text.
    ///
    /// Whether there is such a key, and whether the value is good, shows when the overlay is applied. The error says
    /// in one line or two what cannot be read.
    pub fn set(text: &str) -> Result<Self, String> {
        let Some((path, value)) = text.split_once('=') else {
            return Err(format!("{} has no `=`: write `KEY=VALUE`, such as `stages.sum.workers=0`", quote(text)));
        };
        if text.len() > LONGEST {
            return Err(format!("{} is too long: an overlay has at most {LONGEST} bytes", quote(text)));
        }
        if let Some(c) = text.chars().find(|c| *c == '\u{feff}') {
            return Err(format!("{} has the character U+{:04X}, which is not allowed", quote(text), u32::from(c)));
        }
        let keys: Vec<_> = path.split('.').collect();
        if keys.len() > DEEPEST || keys.iter().any(|key| key.is_empty() || key.contains(char::is_control)) {
            return Err(format!("{} is no path to a value: write keys with dots between them", quote(path)));
        }
        if keys[0] == "include" {
            return Err("`include` is for files; give the values themselves".into());
        }
        let at = path.len() + 1;
        let mut node = read(value).map_err(|wrong| said(text, wrong))?;
        node.each_span(&mut |span| *span = Span::new(span.start + at, span.end + at));
        let mut end = path.len();
        for key in keys.into_iter().rev() {
            let key_span = Span::new(end - key.len(), end);
            end = key_span.start.saturating_sub(1);
            let entry = Entry { key: key.into(), key_span, value: node };
            node = Node { span: key_span, value: Value::Map(vec![entry]) };
        }
        Ok(Self { source: Source::new(&name(text), text), root: node })
    }

    /// A mapping of a file, which stands in this source.
    pub(super) fn of(source: Source, node: &Node) -> Self {
        let mut root = node.clone();
        root.each_span(&mut |span| *span = span.of(0));
        Self { source, root }
    }
}

/// A value by itself.
fn read(value: &str) -> Result<Node, Diagnostic> {
    if value.trim().is_empty() {
        let scalar = Scalar { text: "".into(), plain: false, expanded: false };
        return Ok(Node { span: Span::new(0, value.len()), value: Value::Scalar(scalar) });
    }
    let mut found = Vec::new();
    let node = yaml::build(&Source::new("", value), &mut found);
    match (found.into_iter().next(), node) {
        (None, Some(node)) => Ok(node),
        (Some(wrong), _) => Err(wrong),
        (None, None) => Err(Diagnostic::file("syntax", "this is not valid YAML")),
    }
}

fn said(text: &str, wrong: Diagnostic) -> String {
    let mut line = format!("{}: {}", quote(text), wrong.message);
    if !wrong.label.is_empty() {
        line.push_str(&format!(" ({})", wrong.label));
    }
    match wrong.hint {
        Some(hint) => format!("{line}: {hint}"),
        None => line,
    }
}

/// How messages name the overlay: the option as it is given, on one line.
fn name(text: &str) -> String {
    let mut name = String::from("--set ");
    for c in text.chars().take(SHOWN) {
        match c.is_control() {
            true => name.extend(c.escape_default()),
            false => name.push(c),
        }
    }
    if text.chars().nth(SHOWN).is_some() {
        name.push('…');
    }
    name
}
