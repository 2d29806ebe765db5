//! Texts with jq programs in them: `--width={{ .width }}`, the arguments of commands.
//!
//! What a program gives becomes a part of one argument, whatever is in it: there is no shell, and nothing is split. So that a
//! value cannot become an option where the service's author did not write one, an argument that begins with a dash only
//! because of a value is refused.

use std::sync::Arc;

use super::{JqError, Program, RunError};

const OPEN: &str = "{{";
const CLOSE: &str = "}}";
/// The longest argument: what Linux takes.
const LONGEST: usize = 128 << 10;
/// So many ends of a program are tried, as `}}` may stand in it as well.
const MOST_ENDS: usize = 16;

/// A part of a template.
#[derive(Debug, Clone)]
enum Piece<T> {
    Literal(String),
    Program(T),
}

/// A text with programs in it, compiled.
#[derive(Debug, Clone)]
pub struct Template {
    pieces: Vec<Piece<Arc<Program>>>,
}

/// Why a template gave no text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A program failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The value gives a text that must not stand there.
    #[error("{0}")]
    Refused(String),
}

/// Whether a text is a template. `check` says whether a text is a program. The error's offset is one in `text`.
pub fn check(text: &str, check: &mut dyn FnMut(&str) -> Result<(), JqError>) -> Result<(), JqError> {
    parse(text, check).map(|_| ())
}

/// Whether there are programs in a text.
pub fn has_programs(text: &str) -> bool {
    text.contains(OPEN)
}

impl Template {
    /// Compiles a text.
    pub fn compile(text: &str) -> Result<Self, JqError> {
        Ok(Self { pieces: parse(text, &mut |source| Program::compile(source))? })
    }

    /// The text itself, if no program is in it.
    pub fn literal(&self) -> Option<&str> {
        match &self.pieces[..] {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The programs in it, in their order.
    pub fn programs(&self) -> impl Iterator<Item = &Arc<Program>> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Program(program) => Some(program),
            Piece::Literal(_) => None,
        })
    }

    /// The text, with what each of its programs has given as JSON: texts as they are, numbers and booleans as JSON writes them.
    pub fn fill(&self, given: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<String, RenderError> {
        let (mut text, mut given) = (String::new(), given.into_iter());
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Program(_) => {
                    if let Some(json) = given.next() {
                        text.push_str(&said(json.as_ref())?);
                    }
                }
            }
        }
        let starts_with_literal = matches!(self.pieces.first(), Some(Piece::Literal(_)));
        if text.starts_with('-') && !starts_with_literal && !self.pieces.is_empty() {
            return Err(RenderError::Refused("it begins with `-`, and would be taken for an option".into()));
        }
        if text.contains('\0') {
            return Err(RenderError::Refused("it has a NUL character".into()));
        }
        if text.len() >= LONGEST {
            return Err(RenderError::Refused(format!("it has {} bytes, and {LONGEST} are too many", text.len())));
        }
        Ok(text)
    }
}

/// What one value is in a text.
fn said(json: &[u8]) -> Result<String, RunError> {
    use serde_json::Value;
    let what = match serde_json::from_slice(json) {
        Ok(Value::String(text)) => return Ok(text),
        Ok(Value::Number(_) | Value::Bool(_)) => return Ok(String::from_utf8_lossy(json).into_owned()),
        Ok(Value::Array(_)) => "a list",
        Ok(Value::Object(_)) => "an object",
        Ok(Value::Null) => "null",
        Err(error) => return Err(RunError::Output(format!("the jq program gave no JSON: {error}"))),
    };
    Err(RunError::Output(format!("the jq program gave {what} and not a text, a number or a boolean")))
}

fn parse<T>(text: &str, compile: &mut dyn FnMut(&str) -> Result<T, JqError>) -> Result<Vec<Piece<T>>, JqError> {
    let mut pieces = Vec::new();
    let mut place = 0;
    while let Some(found) = text[place..].find(OPEN) {
        let open = place + found;
        if open > place {
            pieces.push(Piece::Literal(text[place..open].into()));
        }
        let start = open + OPEN.len();
        let (program, end) = program(text, start, compile)?;
        pieces.push(Piece::Program(program));
        place = end;
    }
    if place < text.len() {
        pieces.push(Piece::Literal(text[place..].into()));
    }
    Ok(pieces)
}

/// The program that begins at `start`, and where the text goes on behind it: at the first end that leaves a good program, since
/// objects in objects end with the same two braces.
fn program<T>(
    text: &str,
    start: usize,
    compile: &mut dyn FnMut(&str) -> Result<T, JqError>,
) -> Result<(T, usize), JqError> {
    let mut first_error = None;
    let ends = (start..text.len()).filter(|at| text.as_bytes()[*at..].starts_with(CLOSE.as_bytes()));
    for end in ends.take(MOST_ENDS) {
        match compile(&text[start..end]) {
            Ok(program) => return Ok((program, end + CLOSE.len())),
            Err(error) => _ = first_error.get_or_insert(error),
        }
    }
    Err(match first_error {
        Some(JqError { message, offset }) => JqError { message, offset: offset.map(|offset| start + offset) },
        None => {
            let message = "`{{` has no `}}`; braces themselves are written `{{ \"{{\" }}`".into();
            JqError { message, offset: Some(start - OPEN.len()) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Input, Limits};
    use super::*;

    fn render(template: &str, json: &str) -> Result<String, String> {
        let template = Template::compile(template).map_err(|error| error.to_string())?;
        let run = |program: &Arc<Program>| program.run(Input::Json(json.as_bytes()), &Limits::default());
        let given: Result<Vec<_>, _> = template.programs().map(run).collect();
        template.fill(given.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
    }

    #[test]
    fn values_become_text() {
        for (template, json, expected) in [
            ("plain", "null", "plain"),
            ("", "null", ""),
            ("--width={{ .w }}", r#"{"w": 3}"#, "--width=3"),
            ("{{.a}}-{{.b}}", r#"{"a": "x y", "b": true}"#, "x y-true"),
            ("{{ . }}", r#""$(rm) `x` é""#, "$(rm) `x` é"),
            ("{{ . }}", "1.50", "1.50"),
            ("{{ {a: {b: 7}}.a.b }}", "null", "7"),
            ("{{ {a: {b: 7}} | .a.b}}}", "null", "7}"),
            ("{{ \"}}\" }}", "null", "}}"),
            ("{{ \"{{\" }}", "null", "{{"),
            ("a } b }} c", "null", "a } b }} c"),
            ("-{{ . }}", r#""x""#, "-x"),
            ("{{ . }}", r#""""#, ""),
        ] {
            assert_eq!(render(template, json).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_must_not_stand_there_is_refused() {
        for (template, json, piece) in [
            ("{{ . }}", r#""-rf""#, "begins with `-`"),
            ("{{ . }}", "-1", "begins with `-`"),
            ("{{ .a }}{{ .b }}", r#"{"a": "", "b": "-x"}"#, "begins with `-`"),
            ("x{{ . }}", "\"\\u0000\"", "NUL"),
            ("{{ . }}", "null", "gave null and not a text"),
            ("{{ . }}", "[1]", "gave a list"),
            ("{{ . }}", "{}", "gave an object"),
            ("{{ .[] }}", "[1, 2]", "more than one value"),
            ("{{ \"x\" * 200000 }}", "null", "too many"),
        ] {
            let error = render(template, json).unwrap_err();
            assert!(error.contains(piece), "{template}: {error}");
        }
    }

    #[test]
    fn mistakes_have_a_place() {
        let error = |template: &str| Template::compile(template).unwrap_err();
        assert_eq!(error("a {{ .b").offset, Some(2));
        assert!(error("a {{ .b").message.contains("has no `}}`"));
        assert_eq!(error("ab{{ foo }}").offset, Some(5));
        assert!(error("{{ }}").message.contains("expected"));
        assert!(error("{{ .a | }} {{ .b }}").message.contains("expected"));
    }
}
