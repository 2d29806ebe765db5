//! Making foreign text harmless on a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// The text without anything that a terminal acts on: escape sequences could move the cursor,
/// change the title or pretend to be other lines.
///
/// Colours and other attributes of letters (`ESC [ … m`) are left out, as they are common and mean
/// no harm; every other control character is spelled out, as `\x1b`. So are characters that turn
/// the direction of what follows. A tab stays.
pub fn printable(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find(acts) else { return Cow::Borrowed(text) };
    let mut shown = String::with_capacity(text.len() + 16);
    shown.push_str(&text[..first]);
    let mut rest = &text[first..];
    while let Some(next) = rest.chars().next() {
        if let Some(length) = attribute(rest) {
            rest = &rest[length..];
            continue;
        }
        match u32::from(next) {
            _ if !acts(next) => shown.push(next),
            code @ ..0x100 => _ = write!(shown, "\\x{code:02x}"),
            code => _ = write!(shown, "\\u{{{code:x}}}"),
        }
        rest = &rest[next.len_utf8()..];
    }
    Cow::Owned(shown)
}

fn acts(letter: char) -> bool {
    let turns = matches!(letter,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (letter.is_control() && letter != '\t')
}

/// The length of the sequence that the text begins with, if it only changes how letters look.
fn attribute(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|letter: char| !matches!(letter, '0'..='9' | ';' | ':'))?;
    parameters[end..].starts_with('m').then_some(2 + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_is_left() {
        assert!(matches!(printable("plain text\tcaf\u{e9} \u{1f434}"), Cow::Borrowed(_)));
        assert_eq!(printable("\x1b[1;31mred\x1b[0m!"), "red!");
        assert_eq!(printable("\x1b]0;title\x07"), "\\x1b]0;title\\x07");
        assert_eq!(printable("a\rb\x1b[2Jc\u{9b}31m"), "a\\x0db\\x1b[2Jc\\x9b31m");
        assert_eq!(printable("\x1b[31"), "\\x1b[31");
        assert_eq!(printable("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(printable("\x1b\x1b[0m[2J"), "\\x1b[2J", "what is left out leaves nothing that acts");
    }

    proptest! {
        #[test]
        fn whatever_comes_in(text in "(\\PC|\\pC|\x1b|\\[|m|[0-9;]){0,40}") {
            prop_assert!(!printable(&text).contains(acts));
        }
    }
}
