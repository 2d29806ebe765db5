//! Scalars, and what a plain one means in the core schema of YAML 1.2.

use std::sync::Arc;

/// A scalar as written, or as it reads once its variables are expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: Arc<str>,
    /// Without quotes, so that it may be a number or a boolean.
    pub(crate) plain: bool,
    /// Whether variables were expanded in it, so that the file does not show its text.
    pub(crate) expanded: bool,
}

/// What a scalar means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Plain<'a> {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(&'a str),
}

impl Scalar {
    /// What it means: quoted ones are text, plain ones whatever the core schema says.
    pub(crate) fn resolve(&self) -> Plain<'_> {
        let text = &*self.text;
        if !self.plain || (self.expanded && text.is_empty()) {
            return Plain::Str(text);
        }
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Plain::Null,
            "true" => Plain::Bool(true),
            "false" => Plain::Bool(false),
            _ => number(text).unwrap_or(Plain::Str(text)),
        }
    }

    pub(crate) fn describe(&self) -> String {
        let kind = match self.resolve() {
            Plain::Null => return "nothing".into(),
            Plain::Bool(_) => "the boolean",
            Plain::Int(_) | Plain::Float(_) => "the number",
            Plain::Str("") => return "an empty text".into(),
            Plain::Str(_) => "the text",
        };
        let expanded = if self.expanded { " (expanded)" } else { "" };
        format!("{kind} {}{expanded}", quote(&self.text))
    }
}

/// A text between backquotes for a message: on one line and not endless.
pub(crate) fn quote(text: &str) -> String {
    const MOST: usize = 40;
    let mut short = String::new();
    for c in text.chars().take(MOST) {
        if c.is_control() {
            short.extend(c.escape_default());
        } else {
            short.push(c);
        }
    }
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    format!("`{short}`")
}

/// Numbers of the core schema. An integer beyond 128 bits is left as a float.
fn number(text: &str) -> Option<Plain<'_>> {
    if let Some(octal) = text.strip_prefix("0o") {
        return digits(octal, |c| matches!(c, '0'..='7')).and_then(|d| i128::from_str_radix(d, 8).ok()).map(Plain::Int);
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return digits(hex, |c| c.is_ascii_hexdigit()).and_then(|d| i128::from_str_radix(d, 16).ok()).map(Plain::Int);
    }
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    match unsigned {
        ".inf" | ".Inf" | ".INF" if negative => return Some(Plain::Float(f64::NEG_INFINITY)),
        ".inf" | ".Inf" | ".INF" => return Some(Plain::Float(f64::INFINITY)),
        _ if matches!(text, ".nan" | ".NaN" | ".NAN") => return Some(Plain::Float(f64::NAN)),
        _ => {}
    }
    if digits(unsigned, |c| c.is_ascii_digit()).is_some()
        && let Ok(int) = text.parse::<i128>()
    {
        return Some(Plain::Int(int));
    }
    is_float(unsigned).then(|| text.parse().ok().map(Plain::Float))?
}

fn digits(text: &str, allowed: fn(char) -> bool) -> Option<&str> {
    (!text.is_empty() && text.chars().all(allowed)).then_some(text)
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let all = |t: &str| t.chars().all(|c| c.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let exponent_good = exponent.is_none_or(|e| {
        let unsigned = e.strip_prefix(['-', '+']).unwrap_or(e);
        !unsigned.is_empty() && all(unsigned)
    });
    let mantissa_good = match mantissa.split_once('.') {
        Some((whole, part)) => all(whole) && all(part) && !(whole.is_empty() && part.is_empty()),
        None => !mantissa.is_empty() && all(mantissa),
    };
    exponent_good && mantissa_good
}
