//! How deep JSON is nested, before it is parsed: the parser would take stack for each level.

use super::meter::DEPTH;

/// Whether brackets and braces are nested deeper than values may be.
pub(super) fn too_deep(json: &[u8]) -> bool {
    let (mut depth, mut text, mut escaped) = (0usize, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            _ if text => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// How deep the brackets of a program are nested at most. Those in its texts and comments count as well.
pub(super) fn brackets(source: &str) -> usize {
    let mut depth = 0usize;
    let depths = source.bytes().map(|byte| {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth
    });
    depths.max().unwrap_or(0)
}
