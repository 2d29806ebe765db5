//! What a run may still use, kept beside the thread that runs it.
//!
//! A run that goes too far is ended by unwinding, which no `try` of a program can catch, from wherever it is; `metered`
//! catches it. The panic hook is not called.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use jaq_json::{Num, Val};

use super::{Limits, RunError};

/// The most bytes of stack; threads have two megabytes, and what runs between two checks needs some as well.
const STACK: usize = 768 << 10;
/// Values may be nested so deep.
pub(super) const DEPTH: usize = 256;
/// The clock is read once in so many steps. What one step may take is bounded by the largest value.
const CLOCK: u64 = 16;
/// What an element of a list takes, in bytes.
const ELEMENT: u64 = 16;

struct Meter {
    steps: u64,
    next_look: u64,
    made: u64,
    largest: u64,
    base: usize,
    until: Option<Instant>,
}

thread_local! {
    static METER: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

/// How a run that went too far is ended.
struct Stopped(RunError);

/// Runs `work` with these limits; nothing else of jq may run on this thread outside of it.
pub(super) fn metered<T>(limits: &Limits, work: impl FnOnce() -> Result<T, RunError>) -> Result<T, RunError> {
    let meter = Meter {
        steps: limits.steps,
        next_look: limits.steps,
        made: limits.made,
        largest: limits.largest,
        base: here(),
        until: limits.until,
    };
    let before = METER.replace(Some(meter));
    let done = catch_unwind(AssertUnwindSafe(work));
    METER.set(before);
    match done {
        Ok(result) => result,
        Err(panic) => match panic.downcast::<Stopped>() {
            Ok(stopped) => Err(stopped.0),
            Err(_) => Err(RunError::Failed("the jq interpreter panicked".into())),
        },
    }
}

/// About where the stack is.
#[inline(never)]
fn here() -> usize {
    let mark = 0u8;
    std::hint::black_box(&raw const mark) as usize
}

impl Meter {
    fn step(&mut self, count: u64) -> Result<(), RunError> {
        self.steps = self.steps.checked_sub(count).ok_or(RunError::Steps)?;
        if self.base.abs_diff(here()) > STACK {
            return Err(RunError::Memory);
        }
        if self.steps > self.next_look {
            return Ok(());
        }
        self.next_look = self.steps.saturating_sub(CLOCK);
        match self.until {
            Some(until) if Instant::now() >= until => Err(RunError::Time),
            _ => Ok(()),
        }
    }

    fn take(&mut self, bytes: u64) -> Result<(), RunError> {
        self.made = self.made.checked_sub(bytes).ok_or(RunError::Memory)?;
        Ok(())
    }
}

fn with(charge: impl FnOnce(&mut Meter) -> Result<(), RunError>) {
    let charged = METER.with_borrow_mut(|meter| meter.as_mut().map_or(Ok(()), charge));
    if let Err(error) = charged {
        resume_unwind(Box::new(Stopped(error)));
    }
}

/// One step.
pub(super) fn step() {
    with(|meter| meter.step(1));
}

/// A value is about to be kept or read as a whole: its size as a tree is bounded, as if nothing of it were shared.
pub(super) fn keep(value: &Val) {
    with(|meter| {
        let (nodes, bytes) = size(value, meter.largest).ok_or(RunError::Memory)?;
        meter.step(1 + nodes / 16 + bytes / 4096)?;
        if bytes > meter.largest {
            return Err(RunError::Memory);
        }
        meter.take(ELEMENT + shallow(value))
    });
}

/// An operation makes up to `bytes` out of values.
pub(super) fn make(bytes: u64) {
    with(|meter| {
        meter.step(1 + bytes / 256)?;
        meter.take(bytes)
    });
}

/// A value is about to be gone through by itself, and perhaps made again: its elements are not looked at.
pub(super) fn read(value: &Val) {
    make(match value {
        Val::TStr(_) | Val::BStr(_) => 4 * shallow(value),
        _ => shallow(value),
    });
}

/// The characters of a text are about to be counted; the elements of a list are counted already.
pub(super) fn count(value: &Val) {
    with(|meter| match value {
        Val::TStr(text) => meter.step(1 + text.len() as u64 / 1024),
        _ => meter.step(1),
    });
}

/// A value is about to be sorted, or to be what others are sorted by: each part of it may be compared so many times.
pub(super) fn sort(value: &Val) {
    const COMPARED: u64 = 16;
    with(|meter| {
        let (nodes, bytes) = size(value, meter.largest).ok_or(RunError::Memory)?;
        meter.step(1 + nodes * COMPARED / 16 + bytes * COMPARED / 4096)?;
        meter.take(ELEMENT + shallow(value))
    });
}

/// A path has so many parts; they are freed one inside of the other, so there may not be too many.
pub(super) fn path(parts: usize) {
    if parts > DEPTH {
        with(|_| Err(RunError::Memory));
    }
}

/// An operation compares each part of one value with each part of another.
pub(super) fn product(left: &Val, right: &Val) {
    with(|meter| {
        let left = size(left, meter.largest).ok_or(RunError::Memory)?;
        let right = size(right, meter.largest).ok_or(RunError::Memory)?;
        meter.step(1 + left.1.saturating_mul(right.1) / 4096)
    });
}

/// About the bytes of a value by itself, without what its elements hold.
pub(super) fn shallow(value: &Val) -> u64 {
    match value {
        Val::TStr(text) | Val::BStr(text) => text.len() as u64,
        Val::Arr(list) => ELEMENT * list.len() as u64,
        Val::Obj(map) => 4 * ELEMENT * map.len() as u64,
        _ => number(value),
    }
}

fn number(value: &Val) -> u64 {
    match value {
        Val::Num(Num::BigInt(big)) => big.bits() / 8,
        Val::Num(Num::Dec(digits)) => digits.len() as u64,
        _ => 0,
    }
}

/// Nodes and bytes of a value as a tree; `None` when it is nested too deep, or beyond `most` bytes.
fn size(value: &Val, most: u64) -> Option<(u64, u64)> {
    fn add(value: &Val, depth: usize, most: u64, sum: &mut (u64, u64)) -> Option<()> {
        sum.0 += 1;
        sum.1 += ELEMENT;
        match value {
            Val::TStr(text) | Val::BStr(text) => sum.1 += text.len() as u64,
            Val::Arr(_) | Val::Obj(_) if depth == 0 => return None,
            Val::Arr(list) => list.iter().try_for_each(|item| add(item, depth - 1, most, sum))?,
            Val::Obj(map) => {
                for (key, item) in map.iter() {
                    add(key, depth - 1, most, sum)?;
                    add(item, depth - 1, most, sum)?;
                }
            }
            _ => sum.1 += number(value),
        }
        (sum.1 <= most).then_some(())
    }
    let mut sum = (0, 0);
    add(value, DEPTH, most, &mut sum)?;
    Some(sum)
}
