//! Results as JUnit XML, which CI systems read: one suite, and one case for each test.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;

use super::{Outcome, Verdict};

/// The whole document. `began` is when the first test did, `took` how long all of it has taken.
pub(super) fn document(service: &str, outcomes: &[Outcome], began: Timestamp, took: Duration) -> String {
    let count = |wanted: fn(&Verdict) -> bool| outcomes.iter().filter(|outcome| wanted(&outcome.verdict)).count();
    let counts = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{}\"",
        outcomes.len(),
        count(|verdict| matches!(verdict, Verdict::Failed { .. })),
        count(|verdict| matches!(verdict, Verdict::Broken(_))),
        count(|verdict| matches!(verdict, Verdict::NotRun)),
        seconds(took),
    );
    let service = escaped(service);
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(text, "<testsuites name=\"evener test\" {counts}>");
    let _ = writeln!(text, "  <testsuite name=\"{service}\" {counts} timestamp=\"{began:.0}\">");
    for outcome in outcomes {
        case(&mut text, &service, outcome);
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

fn case(text: &mut String, service: &str, outcome: &Outcome) {
    let (name, file) = (escaped(&outcome.test.name), escaped(&outcome.test.file));
    let (line, took) = (outcome.test.line, seconds(outcome.took));
    let _ = write!(
        text,
        "    <testcase name=\"{name}\" classname=\"{service}\" file=\"{file}\" line=\"{line}\" time=\"{took}\""
    );
    let mut inner = String::new();
    match &outcome.verdict {
        Verdict::Passed => {}
        Verdict::Failed { wrong, answer } => {
            let first = escaped(wrong.first().map_or("", String::as_str));
            let all = content(&format!("{}\n\n{}", wrong.join("\n"), answer.as_deref().unwrap_or_default()));
            let _ = writeln!(inner, "      <failure message=\"{first}\" type=\"expectation\">{all}</failure>");
        }
        Verdict::Broken(why) => {
            let (first, all) = (escaped(why), content(why));
            let _ = writeln!(inner, "      <error message=\"{first}\" type=\"start\">{all}</error>");
        }
        Verdict::NotRun => inner.push_str("      <skipped message=\"interrupted\"/>\n"),
    }
    if !outcome.log.is_empty() && !matches!(outcome.verdict, Verdict::Passed) {
        let _ = writeln!(inner, "      <system-err>{}</system-err>", content(&outcome.log));
    }
    match inner.is_empty() {
        true => text.push_str("/>\n"),
        false => {
            let _ = writeln!(text, ">\n{inner}    </testcase>");
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}

/// Text as it may stand in an element, with its lines as they are.
fn content(text: &str) -> String {
    escaped(text).replace("&#10;", "\n").replace("&#9;", "\t")
}

/// Text as it may stand in an attribute, where lines and tabs would be lost. Characters that XML cannot hold are written out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push_str("&#9;"),
            character if character.is_control() => escaped.extend(character.escape_default()),
            '\u{fffe}' | '\u{ffff}' => escaped.extend(character.escape_unicode()),
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_xml_can_hold() {
        assert_eq!(
            escaped("a<b>&\"c\"]]>\n\x1b\0\u{ffff}é"),
            "a&lt;b&gt;&amp;&quot;c&quot;]]&gt;&#10;\\u{1b}\\u{0}\\u{ffff}é"
        );
    }
}
