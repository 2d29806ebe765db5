//! How values are shown to people.

use std::time::Duration;

/// The most characters of a value that is shown within a line.
const BRIEF: usize = 400;

/// The beginning of a text that is long.
pub(super) fn brief(text: &str) -> String {
    cut(text, BRIEF)
}

/// At most so many characters of a text, and how many bytes are left out.
pub(super) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}… ({} bytes more)", &text[..end], text.len() - end),
        None => text.to_owned(),
    }
}

/// A time as people read it: `0.4 ms`, `12 ms`, `2.003 s`.
pub(super) fn span(time: Duration) -> String {
    match time.as_secs_f64() {
        0.0 => "0 s".into(),
        seconds if seconds < 0.001 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 0.9995 => format!("{:.0} ms", seconds * 1e3),
        seconds => {
            let digits = format!("{seconds:.3}");
            format!("{} s", digits.trim_end_matches('0').trim_end_matches('.'))
        }
    }
}

/// A text that a terminal shows and does not obey: what would move the cursor, set a colour or turn the direction of
/// writing is written out. Line ends and tabs stay.
pub(super) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                shown.extend(character.escape_unicode());
            }
            character if character.is_control() => shown.extend(character.escape_default()),
            character => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let shown = [0, 400, 12_345, 999_600, 2_000_000, 2_003_400, 61_500_000].map(Duration::from_micros).map(span);
        assert_eq!(shown, ["0 s", "0.4 ms", "12 ms", "1 s", "2 s", "2.003 s", "61.5 s"]);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("größer", 6), "größer");
        assert_eq!(cut("größer", 3), "grö… (4 bytes more)");
    }

    #[test]
    fn nothing_is_obeyed() {
        assert_eq!(harmless("a\tb\n\x1b[31mc\r\u{202e}d\u{9b}"), "a\tb\n\\u{1b}[31mc\\r\\u{202e}d\\u{9b}");
    }
}
