//! Workers that are made anew, one at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use evener_core::StageId;
use evener_doors::Node as _;

use super::Roster;
use crate::kit::{Kit, PlaceId};

/// Workers of one pool that are made anew.
pub(super) struct Rollout {
    pub(super) stage: StageId,
    /// What is still to be done.
    pub(super) moves: VecDeque<Move>,
    pub(super) change: Change,
}

/// A place that is to be given up, for another with that number.
#[derive(Clone, Copy)]
pub(super) struct Move {
    old: PlaceId,
    index: u32,
}

/// Where a rollout is.
pub(super) enum Change {
    /// At nothing.
    None,
    /// `new` is to come up, and then takes over from `old`.
    Starting { old: PlaceId, new: PlaceId },
    /// `old` is finishing what it does. Only then is the next one changed, so that there is one worker more at most.
    Ending { old: PlaceId },
    /// `old` is finishing what it does, and then another starts with that number. `before`: what the old one is made of.
    Stopping { old: PlaceId, index: u32, before: Option<Arc<Kit>> },
    /// `new` is to come up where another was.
    Replacing { new: PlaceId },
    /// `new` has not come up. Once it is gone, a worker starts that is made as the one before was.
    Restoring { new: PlaceId, index: u32, before: Arc<Kit> },
}

impl Change {
    /// Whether the place is to take over from another that still stays.
    pub(super) fn is_beside(&self, place: PlaceId) -> bool {
        matches!(self, Change::Starting { new, .. } if *new == place)
    }

    /// Whether one place is given up and the next one not taken yet.
    pub(super) fn is_between(&self) -> bool {
        matches!(self, Change::Stopping { .. } | Change::Restoring { .. })
    }
}

impl Roster {
    /// The numbers in the pool of a stage that are kept for somebody who does not have them yet.
    pub(super) fn reserved(&self, stage: StageId) -> impl Iterator<Item = u32> {
        let between = |change: &Change| match change {
            Change::Stopping { index, .. } | Change::Restoring { index, .. } => Some(*index),
            Change::None | Change::Starting { .. } | Change::Ending { .. } | Change::Replacing { .. } => None,
        };
        let rollouts = self.rollouts.iter().filter(move |rollout| rollout.stage == stage);
        rollouts.flat_map(move |rollout| {
            let moves = rollout.moves.iter().filter(|next| self.stays(next.old));
            moves.map(|next| next.index).chain(between(&rollout.change))
        })
    }

    /// Whether a worker of that stage is on its way, or is to be, for one that has gone before it was up.
    pub(super) fn one_is_coming(&self, stage: StageId) -> bool {
        let is_coming = |rollout: &Rollout| match rollout.change {
            Change::None | Change::Ending { .. } => false,
            Change::Starting { old, new } => !self.stays(old) && !self.node.is_up(new),
            Change::Replacing { new } => !self.node.is_up(new),
            Change::Stopping { .. } | Change::Restoring { .. } => true,
        };
        self.rollouts.iter().any(|rollout| rollout.stage == stage && is_coming(rollout))
    }

    /// Whether a worker in that place is to stay.
    fn stays(&self, id: PlaceId) -> bool {
        self.places.get(&id).is_some_and(|place| !place.leaving)
    }

    /// What becomes of a change that is under way, now that workers are to be made of `kit`: what was begun with another is given up.
    pub(super) fn carry_on(&mut self, change: Change, kit: &Kit) -> Change {
        let is_other = |place: &PlaceId| self.places.get(place).is_none_or(|place| place.kit.make != kit.make);
        match change {
            Change::Starting { new, .. } if is_other(&new) => {
                self.give_up(new);
                Change::None
            }
            // It is a worker like others now, that is not up yet.
            Change::Replacing { new } if is_other(&new) => Change::None,
            // The new one is tried instead.
            Change::Restoring { new, index, before } => Change::Stopping { old: new, index, before: Some(before) },
            change => change,
        }
    }

    /// A worker that is between two places gets a number that the pool has.
    pub(super) fn settle_index(&mut self, stage: StageId) {
        let Some(most) = self.teams.get(&stage).map(|team| team.most) else { return };
        let free = self.free_index(stage);
        let Some(rollout) = self.rollouts.iter_mut().find(|rollout| rollout.stage == stage) else { return };
        if let Change::Stopping { index, .. } | Change::Restoring { index, .. } = &mut rollout.change
            && *index >= most
            && free < most
        {
            *index = free;
        }
    }

    /// Notes which of these places are to be made anew, since they are outdated or have a number that the pool does not have. If there
    /// is nothing to do, the workers are as they are to be.
    pub(super) fn plan_moves(
        &mut self,
        stage: StageId,
        staying: &[PlaceId],
        is_outdated: impl Fn(PlaceId, &Kit) -> bool,
    ) {
        let Some(most) = self.teams.get(&stage).map(|team| team.most) else { return };
        let at = self.rollouts.iter().position(|rollout| rollout.stage == stage).unwrap_or_else(|| {
            self.rollouts.push_back(Rollout { stage, moves: VecDeque::new(), change: Change::None });
            self.rollouts.len() - 1
        });
        for old in staying {
            let Some(place) = self.places.get(old) else { continue };
            let planned = self.rollouts[at].moves.iter().any(|next| next.old == *old);
            let free = if place.index < most { place.index } else { self.free_index(stage) };
            let index = if free < most { free } else { place.index };
            if !planned && (index != place.index || is_outdated(*old, &place.kit)) {
                self.rollouts[at].moves.push_back(Move { old: *old, index });
            }
        }
        let rollout = &self.rollouts[at];
        if rollout.moves.is_empty() && matches!(rollout.change, Change::None) {
            _ = self.rollouts.remove(at);
        }
    }

    /// Whether workers of a stage are being made anew, or are to be.
    pub(super) fn is_changing(&self, stage: StageId) -> bool {
        self.rollouts.iter().any(|rollout| rollout.stage == stage)
    }

    fn set_change(&mut self, change: Change) {
        if let Some(rollout) = self.rollouts.front_mut() {
            rollout.change = change;
        }
    }

    /// The rollout at hand changes its next place, or makes way for the next one.
    pub(super) fn go_on(&mut self) {
        while let Some(rollout) = self.rollouts.front_mut().filter(|rollout| matches!(rollout.change, Change::None)) {
            let stage = rollout.stage;
            let Some(Move { old, index }) = rollout.moves.pop_front() else {
                tracing::info!(stage = self.node.stage_name(stage), "all workers of the stage are new");
                _ = self.node.change_is_made(stage);
                self.rollouts.pop_front();
                continue;
            };
            let Some(place) = self.places.get(&old).filter(|place| !place.leaving) else { continue };
            let before = if place.up { Some(place.kit.clone()) } else { place.before.clone() };
            let Some(kit) = self.teams.get(&stage).map(|team| team.kit.clone()) else { continue };
            let change = match kit.stop_first {
                true => {
                    self.give_up(old);
                    Change::Stopping { old, index, before }
                }
                false => Change::Starting { old, new: self.start(stage, index, kit, before) },
            };
            self.set_change(change);
        }
    }

    /// A place is free: the change at hand may have waited for that.
    pub(super) fn change_goes_on(&mut self, id: PlaceId) {
        let Some(rollout) = self.rollouts.front_mut() else { return };
        let stage = rollout.stage;
        match std::mem::replace(&mut rollout.change, Change::None) {
            Change::Ending { old } if old == id => {}
            // They were given up before they came up.
            Change::Starting { new, .. } | Change::Replacing { new } if new == id => {}
            Change::Stopping { old, index, before } if old == id => {
                if let Some(kit) = self.teams.get(&stage).map(|team| team.kit.clone()) {
                    let new = self.start(stage, index, kit, before);
                    self.set_change(Change::Replacing { new });
                }
            }
            Change::Restoring { new, index, before } if new == id => {
                self.start(stage, index, before, None);
                self.rollouts.pop_front();
            }
            change => return self.set_change(change),
        }
        self.go_on();
    }

    /// A worker is up: the change at hand may have waited for that.
    pub(super) fn change_came_up(&mut self, id: PlaceId) {
        match self.rollouts.front().map(|rollout| &rollout.change) {
            Some(Change::Starting { old, new }) if *new == id => {
                let old = *old;
                self.set_change(Change::Ending { old });
                self.give_up(old);
                if !self.places.contains_key(&old) {
                    // It has left by itself meanwhile.
                    self.change_goes_on(old);
                }
            }
            Some(Change::Replacing { new }) if *new == id => {
                self.set_change(Change::None);
                self.go_on();
            }
            _ => {}
        }
    }

    /// A worker did not come up. If it was to take over, the rest of the rollout is off, and what was before goes on.
    pub(super) fn change_failed(&mut self, id: PlaceId, why: &str) {
        let Some(rollout) = self.rollouts.front() else { return };
        let (stage, Some(place)) = (rollout.stage, self.places.get(&id)) else { return };
        let (index, name) = (place.index, self.node.stage_name(stage));
        match &rollout.change {
            Change::Starting { old, new } if *new == id => {
                let before = self.places.get(old).map(|old| old.kit.clone()).or_else(|| place.before.clone());
                let alone = !self.stays(*old);
                tracing::error!(
                    stage = name,
                    worker = index,
                    "the old workers go on, since the new one did not come up"
                );
                self.further_are_made_of(stage, before, id);
                self.rollouts.pop_front();
                self.give_up(id);
                if alone {
                    // The one that it was to take over from has left meanwhile, and counted on it.
                    self.start_further(stage);
                }
            }
            Change::Replacing { new } if *new == id => {
                let Some(before) = place.before.clone() else {
                    // There never was one that came up. It is tried again and again, as at the start of the node.
                    tracing::error!(stage = name, worker = index, "the new worker did not come up");
                    self.rollouts.pop_front();
                    self.node.change_has_failed(stage, why);
                    return self.go_on();
                };
                tracing::error!(
                    stage = name,
                    worker = index,
                    "one like the old worker takes over, since the new one did not come up"
                );
                self.further_are_made_of(stage, Some(before.clone()), id);
                if let Some(rollout) = self.rollouts.front_mut() {
                    rollout.moves.clear();
                    rollout.change = Change::Restoring { new: id, index, before };
                }
                self.give_up(id);
            }
            _ => return,
        }
        self.node.change_has_failed(stage, why);
        self.go_on();
    }

    /// Until the next service file, further workers are such as are known to come up. So are those that were started beside the one in
    /// place `failed`, and have not come up either.
    fn further_are_made_of(&mut self, stage: StageId, kit: Option<Arc<Kit>>, failed: PlaceId) {
        let (Some(team), Some(kit)) = (self.teams.get_mut(&stage), kit) else { return };
        team.kit = kit.clone();
        let here = self.places.iter().filter(|(id, place)| place.stage == stage && !place.leaving && **id != failed);
        let alike = here.filter(|(_, place)| !place.up && place.kit.make != kit.make);
        let alike: Vec<(PlaceId, u32)> = alike.map(|(id, place)| (*id, place.index)).collect();
        // Where there is no room for two, it goes on trying: it would have to be gone first.
        for (id, index) in alike.into_iter().filter(|_| !kit.stop_first) {
            self.give_up(id);
            self.start(stage, index, kit.clone(), None);
        }
    }
}
