//! The filters that are not written in jq: those of jaq, less those that reach out of a program, and our marks.

use jaq_core::box_iter::box_once;
use jaq_core::data::JustLut;
use jaq_core::native::{Fun, bome, v};
use jaq_core::{Error, Native};
use jaq_json::{Num, Val};

use super::meter;
use super::nesting;

pub(super) type Data = JustLut<Val>;

/// Counts a step.
pub(super) const STEP: &str = "\u{1}step";
/// Counts a step and measures the value.
pub(super) const KEEP: &str = "\u{1}keep";
/// Counts the product of two sizes as steps.
pub(super) const PRODUCT: &str = "\u{1}product";
/// Filters that end the process, read its environment or write to its terminal.
const OUTSIDE: &[&str] =
    &["halt", "env", "debug_empty", "stderr_empty", "input", "inputs", "strftime", "strflocaltime"];
/// Definitions that are written with those.
pub(super) const OUTSIDE_DEFS: &[&str] = &["halt", "halt_error", "debug", "stderr"];

pub(super) fn all() -> impl Iterator<Item = Fun<Data>> {
    let theirs = jaq_core::funs::<Data>().chain(jaq_std::funs::<Data>()).chain(jaq_json::funs::<Data>());
    let theirs = theirs.filter(|(name, args, _)| !(OUTSIDE.contains(name) || *name == "fromjson" && args.is_empty()));
    theirs.chain(marks()).chain(guarded())
}

fn marks() -> Vec<Fun<Data>> {
    let step = Native::<Data>::new(|cv| {
        meter::step();
        box_once(Ok(cv.1))
    });
    let step = step.with_paths(|cv| {
        meter::step();
        meter::path(cv.1.1.iter().take(meter::DEPTH + 1).count());
        box_once(Ok(cv.1))
    });
    let step = step.with_update(|cv, update| {
        meter::step();
        update(cv.1)
    });
    let keep = Native::<Data>::new(|cv| {
        meter::keep(&cv.1);
        box_once(Ok(cv.1))
    });
    let keep = keep.with_paths(|cv| {
        meter::keep(&cv.1.0);
        meter::path(cv.1.1.iter().take(meter::DEPTH + 1).count());
        box_once(Ok(cv.1))
    });
    let keep = keep.with_update(|cv, update| {
        meter::keep(&cv.1);
        update(cv.1)
    });
    let product = Native::<Data>::new(|mut cv| {
        let other = cv.0.pop_var();
        meter::product(&cv.1, &other);
        box_once(Ok(cv.1))
    });
    vec![(STEP, v(0), step), (KEEP, v(0), keep), (PRODUCT, v(1), product)]
}

macro_rules! math {
    ($name:literal, $guard:expr, $op:tt) => {
        ($name, v(2), Native::<Data>::new(|mut cv| {
            let right = cv.0.pop_var();
            let left = cv.0.pop_var();
            let guard: fn(&Val, &Val) = $guard;
            guard(&left, &right);
            bome(left $op right)
        }))
    };
}

fn guarded() -> Vec<Fun<Data>> {
    vec![
        math!("\u{1}add", smaller, +),
        math!("\u{1}sub", |left, right| { meter::step(); lists(left, right) }, -),
        math!("\u{1}mul", times, *),
        math!("\u{1}div", |left, right| { meter::make(8 * meter::shallow(left)); lists(left, right) }, /),
        math!("\u{1}rem", |left, right| { meter::step(); lists(left, right) }, %),
        (
            "fromjson",
            v(0),
            Native::<Data>::new(|cv| {
                let parsed = match &cv.1 {
                    Val::TStr(text) => {
                        meter::make(text.len() as u64 * 8);
                        parse(text)
                    }
                    _ => Err(Error::typ(cv.1.clone(), "string")),
                };
                bome(parsed)
            }),
        ),
    ]
}

/// Joining copies the smaller of two, mostly; a text that grows is copied now and then.
fn smaller(left: &Val, right: &Val) {
    meter::make(match (left, right) {
        (Val::Arr(_) | Val::Obj(_), _) => meter::shallow(right),
        _ => meter::shallow(left).min(meter::shallow(right)) + meter::shallow(left) / 64,
    });
}

fn parse(text: &[u8]) -> Result<Val, Error<Val>> {
    if nesting::too_deep(text) {
        return Err(Error::str("JSON that is nested too deep"));
    }
    jaq_json::read::parse_single(text).map_err(|error| Error::str(format_args!("not JSON: {error}")))
}

fn lists(left: &Val, right: &Val) {
    let big = |value: &Val| matches!(value, Val::Num(Num::BigInt(_)));
    if matches!((left, right), (Val::Arr(_), Val::Arr(_))) || big(left) || big(right) {
        meter::product(left, right);
    }
}

/// Repeating a text makes as much as its count says; multiplying large numbers takes the product of their sizes.
fn times(left: &Val, right: &Val) {
    match (left, right) {
        (Val::TStr(text) | Val::BStr(text), Val::Num(count)) | (Val::Num(count), Val::TStr(text) | Val::BStr(text)) => {
            let count = match count {
                Num::Int(count) => u64::try_from(*count).unwrap_or(0),
                Num::Float(count) => *count as u64,
                Num::BigInt(_) => u64::MAX,
                Num::Dec(digits) => digits.parse::<f64>().map_or(u64::MAX, |count| count as u64),
            };
            meter::make(count.saturating_mul(text.len() as u64));
        }
        (Val::Num(_), Val::Num(_)) => {
            meter::make(meter::shallow(left) + meter::shallow(right));
            lists(left, right);
        }
        _ => meter::product(left, right),
    }
}
