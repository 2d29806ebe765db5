//! The node's clock.

use std::time::{Instant, SystemTime};

use evener_core::{RequestId, Time};

/// Monotonic time since the node began, and ids made of the time of day.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { origin: Instant::now() }
    }

    pub(crate) fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    /// A UUIDv7 whose last bits are zero, for the numbers of its jobs.
    pub(crate) fn request_id(&self) -> RequestId {
        let millis = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let mut random = [0; 10];
        fastrand::fill(&mut random);
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().as_u128();
        RequestId(id >> RequestId::JOB_BITS << RequestId::JOB_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_of_version_7_and_sort_by_time() {
        let clock = Clock::start();
        let ids: Vec<RequestId> = (0..100).map(|_| clock.request_id()).collect();
        for id in &ids {
            let uuid: uuid::Uuid = id.to_string().parse().expect("a UUID");
            assert_eq!(uuid.get_version_num(), 7);
            assert_eq!(uuid.as_u128() & 0xf_ffff, 0);
        }
        assert!(ids[0].0 >> 80 <= ids[99].0 >> 80);
        assert_ne!(ids[0], ids[1]);
    }
}
