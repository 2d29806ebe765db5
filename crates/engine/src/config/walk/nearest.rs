//! "Did you mean": the known word nearest to an unknown one.

/// After so many mistakes nobody reads hints any more, and they are left out.
pub(super) const ENOUGH: usize = 200;

/// The most candidates looked at, so that a huge file with many mistakes is still read quickly.
const MOST_CANDIDATES: usize = 500;
/// Longer words are nobody's typing errors.
const LONGEST: usize = 64;

/// The candidate with the fewest typing errors from `word`, if there are few enough of them: one in
/// three letters.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().take(LONGEST + 1).collect();
    if word.len() > LONGEST {
        return None;
    }
    let most = (word.len() / 3).max(1);
    candidates
        .into_iter()
        .take(MOST_CANDIDATES)
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| {
            let letters: Vec<char> = candidate.to_lowercase().chars().collect();
            (distance(&word, &letters), candidate)
        })
        .filter(|(errors, candidate)| *errors <= most && *errors < candidate.chars().count())
        .min_by_key(|(errors, _)| *errors)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be put in, left out, replaced, or swapped with their neighbour.
fn distance(a: &[char], b: &[char]) -> usize {
    if a.len().abs_diff(b.len()) > LONGEST / 3 {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_find_their_word() {
        let words = ["timeout", "workers", "python", "env"];
        for (typed, meant) in [
            ("timout", Some("timeout")),
            ("tiemout", Some("timeout")),
            ("Workers", Some("workers")),
            ("worker", Some("workers")),
            ("pyhton", Some("python")),
            ("evn", Some("env")),
            ("x", None),
            ("", None),
            ("completely", None),
        ] {
            assert_eq!(nearest(typed, words), meant, "{typed}");
        }
    }

    #[test]
    fn a_long_word_is_nobodys_typing_error() {
        assert_eq!(nearest(&"a".repeat(100_000), ["aaaa"]), None);
    }
}
