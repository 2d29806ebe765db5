//! Clients that take their requests back while they wait for them, and what has to come of it.

use evener_core::{Code, RequestKey, Withdrawal};

use super::{Check, Checker, ensure};
use crate::record::{Due, State};
use crate::tally::Happening;

impl Checker {
    /// The client of a request takes it back; the key to do it by, and what has to come of it.
    pub(crate) fn withdraws(&mut self, number: u32, insists: bool) -> Option<(RequestKey, Withdrawal)> {
        let record = self.records.get_mut(number)?;
        let key = record.key;
        if record.state != State::Waiting {
            self.tally.count(Happening::WithdrawnTooLate);
            return Some((key, Withdrawal::Answered));
        }
        let member = record.holder.and_then(|holder| self.crew.get_mut(&holder));
        let held = member.and_then(|member| {
            member.held.iter_mut().enumerate().find(|(_, hold)| hold.request == number && !hold.told)
        });
        // A job counts as begun if it is the oldest of its worker's, or has been so on an earlier try.
        let ahead = matches!(held, Some((at, _)) if at > 0);
        if insists {
            self.tally.count(match &held {
                None => Happening::KilledWaiting,
                Some((0, _)) => Happening::KilledRunning,
                Some(_) if record.asked => Happening::KilledWhileAsked,
                Some(_) => Happening::KilledAhead,
            });
            if let Some((_, hold)) = held {
                hold.insisted = true;
            }
            record.killed = true;
        } else if record.runs > 0 {
            self.tally.count(match held {
                Some((0, _)) => Happening::WithdrawnWhileRunning,
                _ => Happening::WithdrawnBetweenTries,
            });
            return Some((key, Withdrawal::GoesOn));
        } else if ahead {
            self.tally.count(match std::mem::replace(&mut record.asked, true) {
                false => Happening::WithdrawnAhead,
                true => Happening::WithdrawnTwice,
            });
            return Some((key, Withdrawal::Asked));
        } else {
            self.tally.count(Happening::WithdrawnWaiting);
        }
        record.due = Some(Due::Problem(Code::Cancelled));
        self.expected.insert(number);
        Some((key, Withdrawal::Done))
    }

    /// A request that was to be withdrawn goes on: it is too late for that.
    pub(super) fn saw_going_on(&mut self, key: RequestKey) -> Check {
        let number = self.waiting.iter().copied().find(|number| self.records[*number].key == key);
        let record = number.and_then(|number| self.records.get_mut(number));
        let record = record.ok_or("a request goes on that nobody waits for")?;
        ensure(record.goes_on && record.due.is_none(), || {
            format!("the client of request {} is told that it goes on for no reason", record.id)
        })?;
        record.goes_on = false;
        self.tally.count(Happening::WentOn);
        Ok(())
    }

    /// A job goes back in front of those that wait; one that did not begin and is to be withdrawn ends.
    pub(super) fn come_back(&mut self, number: u32) {
        match self.records.get_mut(number) {
            Some(record) if record.asked => {
                (record.holder, record.due) = (None, Some(Due::Problem(Code::Cancelled)));
                self.expected.insert(number);
                self.tally.count(Happening::WithdrawnLater);
            }
            _ => self.step_in_front(number),
        }
    }
}
