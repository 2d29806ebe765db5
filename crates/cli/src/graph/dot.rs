//! A drawing in Graphviz's DOT.

use std::fmt::Write;

use super::drawing::{Drawing, Edge, Group, Node, Part, Shape};

/// The whole text, which ends with a newline.
pub(super) fn text(drawing: &Drawing) -> String {
    let mut text = String::new();
    line(&mut text, 0, format_args!("digraph {} {{", quoted(&drawing.title)));
    line(&mut text, 1, format_args!("label={};", quoted(&drawing.title)));
    for setting in ["labelloc=t;", "rankdir=LR;", "node [shape=box];"] {
        line(&mut text, 1, format_args!("{setting}"));
    }
    parts(&drawing.parts, 1, &mut text);
    for Edge { from, to, dashed, label } in &drawing.edges {
        let label = (!label.is_empty()).then(|| format!("label={}", quoted(label)));
        let style = dashed.then(|| "style=dashed".to_owned());
        let attributes: Vec<_> = label.into_iter().chain(style).collect();
        let attributes = if attributes.is_empty() { String::new() } else { format!(" [{}]", attributes.join(", ")) };
        line(&mut text, 1, format_args!("n{} -> n{}{attributes};", from.0, to.0));
    }
    line(&mut text, 0, format_args!("}}"));
    text
}

fn parts(these: &[Part], depth: usize, text: &mut String) {
    for part in these {
        match part {
            Part::Node(Node { id, shape, lines }) => {
                let label = quoted(&lines.join("\n"));
                line(text, depth, format_args!("n{} [label={label}{}];", id.0, look(*shape)));
            }
            Part::Group(Group { id, title, parts: inner }) => {
                line(text, depth, format_args!("subgraph cluster_{} {{", id.0));
                line(text, depth + 1, format_args!("label={};", quoted(title)));
                parts(inner, depth + 1, text);
                line(text, depth, format_args!("}}"));
            }
        }
    }
}

fn line(text: &mut String, depth: usize, content: std::fmt::Arguments<'_>) {
    writeln!(text, "{:1$}{content}", "", 4 * depth).expect("a string takes everything");
}

fn look(shape: Shape) -> &'static str {
    match shape {
        Shape::Outside => ", shape=oval",
        Shape::WayIn => ", shape=cds",
        Shape::Workers => "",
        Shape::InNode => ", style=rounded",
        Shape::Branching => ", shape=hexagon",
        Shape::Elsewhere => ", peripheries=2",
        Shape::FunctionPool => ", shape=cylinder",
    }
}

/// A string of DOT. Backslashes begin Graphviz's own sequences, and ampersands those of HTML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '\n' => quoted.push_str("\\n"),
            '"' | '\\' => quoted.extend(['\\', character]),
            '&' => quoted.push_str("&amp;"),
            control if control.is_control() => quoted.push(' '),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn strings_stay_strings() {
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        assert_eq!(quoted(r#"say "\N" & <b>"#), r#""say \"\\N\" &amp; <b>""#);
        assert_eq!(quoted("\\"), r#""\\""#);
        assert_eq!(quoted("bell\u{7}"), "\"bell \"");
    }
}
