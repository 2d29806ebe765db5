//! Payloads that carry the way that they came. Each stage folds itself and what it did into the number it was handed,
//! so a payload of another request, of another stage or of an earlier attempt never looks right.

use evener_core::{Code, Path, StageId, Step, Topology};

/// What a client sends with request number `request`.
pub(crate) fn start(request: u32) -> u64 {
    fold(0x5eed, u64::from(request))
}

/// What a stage hands on.
pub(crate) fn next(payload: u64, stage: StageId) -> u64 {
    fold(payload, 1 << 32 | u64::from(stage.0))
}

/// What a stage answers early.
pub(crate) fn reply(payload: u64, stage: StageId) -> u64 {
    fold(payload, 2 << 32 | u64::from(stage.0))
}

/// What a stage sends elsewhere.
pub(crate) fn goto(payload: u64, stage: StageId) -> u64 {
    fold(payload, 3 << 32 | u64::from(stage.0))
}

/// What a function raises, for its client to take.
pub(crate) fn raised(payload: u64, stage: StageId) -> u64 {
    fold(payload, 4 << 32 | u64::from(stage.0))
}

/// Element number `at` of the list that a payload is.
pub(crate) fn element(payload: u64, at: usize) -> u64 {
    fold(payload, 5 << 32 | at as u64)
}

/// Piece number `at` of an answer in chunks.
pub(crate) fn piece(payload: u64, at: u32) -> u64 {
    fold(payload, 6 << 32 | u64::from(at))
}

/// What the JSON of a fallback stands for.
pub(crate) fn constant(json: &str) -> u64 {
    json.bytes().fold(7 << 32, |folded, byte| fold(folded, u64::from(byte)))
}

/// What branches come to, in their order: each with its name, and its value or its problem. `None` if one of the values
/// cannot be put together with others.
pub(crate) fn gathered(parts: &[(&str, Result<u64, Code>)]) -> Option<u64> {
    let mut all = fold(8 << 32, parts.len() as u64);
    for (name, end) in parts {
        all = name.bytes().fold(all, |folded, byte| fold(folded, u64::from(byte)));
        all = match end {
            Ok(value) if is_single(*value) => return None,
            Ok(value) => fold(all, *value),
            Err(code) => fold(fold(all, 9 << 32), *code as u64),
        };
    }
    Some(all)
}

/// Whether a value cannot be put together with others.
pub(crate) fn is_single(value: u64) -> bool {
    value.is_multiple_of(211)
}

/// One step of SplitMix64 (Steele, Lea and Flood, 2014) over both numbers.
fn fold(payload: u64, with: u64) -> u64 {
    let mut mixed = payload.rotate_left(17) ^ with.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// A place on a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// The path.
    pub(crate) path: Path,
    /// Which of its stages, from 0.
    pub(crate) cursor: usize,
}

/// The stages along a path, which has no branches.
pub(crate) fn stages(topology: &Topology, path: Path) -> Vec<StageId> {
    let stage = |step: &Step| match step {
        Step::Stage(stage) => Some(*stage),
        Step::Scatter(_) => None,
    };
    topology.path(path).iter().filter_map(stage).collect()
}

impl Position {
    /// The stage at this place.
    pub(crate) fn stage(self, topology: &Topology) -> Option<StageId> {
        stages(topology, self.path).get(self.cursor).copied()
    }

    /// Where a goto leads: to the next such stage ahead on this path, else to the first such stage on it, else to the
    /// start of what it names; `None` if it names nothing, or a pool of functions.
    pub(crate) fn after_goto(self, topology: &Topology, target: &str) -> Option<Position> {
        let mut pools = topology.stages().iter().filter(|stage| stage.functions);
        if pools.any(|pool| pool.name == target) {
            return None;
        }
        let found = topology.find(target)?;
        let stages = stages(topology, self.path);
        let mut order = (self.cursor + 1..stages.len()).chain(0..=self.cursor);
        let on_this_path = match found {
            Path::Stage(stage) => order.find(|cursor| stages[*cursor] == stage),
            Path::Pipeline(_) => None,
        };
        Some(match on_this_path {
            Some(cursor) => Position { cursor, ..self },
            None => Position { path: found, cursor: 0 },
        })
    }
}
