//! A drawing as a Mermaid flowchart.

use std::fmt::Write;

use super::drawing::{Drawing, Edge, Group, Node, Part, Shape};

/// The whole text, which ends with a newline.
pub(super) fn text(drawing: &Drawing) -> String {
    let mut text = format!("---\ntitle: \"{}\"\n---\nflowchart LR\n", drawing.title);
    parts(&drawing.parts, 1, &mut text);
    for Edge { from, to, dashed, label } in &drawing.edges {
        let arrow = if *dashed { "-.->" } else { "-->" };
        let label = if label.is_empty() { String::new() } else { format!("|\"{}\"|", escaped(label)) };
        line(&mut text, 1, format_args!("n{} {arrow}{label} n{}", from.0, to.0));
    }
    text
}

fn parts(these: &[Part], depth: usize, text: &mut String) {
    for part in these {
        match part {
            Part::Node(node) => line(text, depth, format_args!("{}", described(node))),
            Part::Group(Group { id, title, parts: inner }) => {
                line(text, depth, format_args!("subgraph g{}[\"{}\"]", id.0, escaped(title)));
                parts(inner, depth + 1, text);
                line(text, depth, format_args!("end"));
            }
        }
    }
}

fn line(text: &mut String, depth: usize, content: std::fmt::Arguments<'_>) {
    writeln!(text, "{:1$}{content}", "", 4 * depth).expect("a string takes everything");
}

fn described(node: &Node) -> String {
    let (open, close) = match node.shape {
        Shape::Outside => ("([", "])"),
        Shape::WayIn => ("[/", "/]"),
        Shape::Workers => ("[", "]"),
        Shape::InNode => ("(", ")"),
        Shape::Branching => ("{{", "}}"),
        Shape::Elsewhere => ("[[", "]]"),
        Shape::FunctionPool => ("[(", ")]"),
    };
    format!("n{}{open}\"{}\"{close}", node.id.0, escaped(&node.lines.join("\n")))
}

/// Text within quotes. Mermaid reads Markdown, HTML, formulas and settings there, so whatever could begin one of them is
/// written by its number: `#34;` is a quotation mark.
fn escaped(text: &str) -> String {
    // A line with one of these words, a colon and a number sign is taken for a style, and loses its last semicolon.
    let styled = text.contains("style") || text.contains("classDef");
    let mut escaped = String::new();
    let mut before = ' ';
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let after = characters.peek().copied().unwrap_or(' ');
        let plain = match character {
            '_' => before.is_alphanumeric() && after.is_alphanumeric(),
            ':' => !styled && after != '/',
            ']' => after != '(',
            ' ' | '.' | ',' | '/' | '-' | '+' | '=' | '?' | '!' | '|' | '\'' | '(' | ')' | '[' | '{' | '}' | '…' => {
                true
            }
            other => other.is_alphanumeric(),
        };
        match character {
            '\n' => escaped.push_str("<br/>"),
            control if control.is_control() => escaped.push(' '),
            plain_one if plain => escaped.push(plain_one),
            other => write!(escaped, "#{};", u32::from(other)).expect("a string takes everything"),
        }
        before = character;
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn what_mermaid_would_read_is_written_by_its_number() {
        for (text, expected) in [
            ("sum_of_squares", "sum_of_squares"),
            ("__init__ a_", "#95;#95;init#95;#95; a#95;"),
            ("m.n:f", "m.n:f"),
            ("restyle m:f", "restyle m#58;f"),
            ("two\nlines", "two<br/>lines"),
            ("\"<b>&#`*~$%\\;@^", "#34;#60;b#62;#38;#35;#96;#42;#126;#36;#37;#92;#59;#64;#94;"),
            ("[a](b) http://c", "[a#93;(b) http#58;//c"),
            ("/files/{*rest}", "/files/{#42;rest}"),
            ("caf\u{e9}\u{7}\u{202e}", "caf\u{e9} #8238;"),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }
}
