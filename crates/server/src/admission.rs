//! Who may be connected: limits on connections as such, and on those that have not logged in.

use crate::{auth::AddressKey, config::Config};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many connections of one address may exist before login, served or waiting, per one that is
/// served; more are closed at once.
const PRESENT_PER_SERVED: usize = 2;

/// The limits of one server.
pub(crate) struct Admission {
    connections_max: u64,
    connections: AtomicU64,
    node: Arc<Semaphore>,
    per_address_max: usize,
    addresses: Mutex<HashMap<AddressKey, Waiting>>,
}

struct Waiting {
    served: Arc<Semaphore>,
    present: usize,
}

/// Files that connections leave to the log and everything else.
const FILES_KEPT: u64 = 1_000;

impl Admission {
    /// `files_max`: how many files the process may open.
    pub(crate) fn new(config: &Config, files_max: Option<u64>) -> Arc<Self> {
        let of_files = files_max.map_or(u64::MAX, |it| it.saturating_sub(FILES_KEPT).max(it / 2));
        Arc::new(Self {
            connections_max: config.connections_max.min(of_files),
            connections: AtomicU64::new(0),
            node: Arc::new(Semaphore::new(count(config.unauthenticated_max))),
            per_address_max: count(config.unauthenticated_per_address_max),
            addresses: Mutex::default(),
        })
    }

    /// Counts a new connection; `None` when there are too many.
    pub(crate) fn seat(self: &Arc<Self>) -> Option<Seat> {
        let seat = Seat(Arc::clone(self));
        let before = self.connections.fetch_add(1, Ordering::AcqRel);
        (before < self.connections_max).then_some(seat)
    }

    pub(crate) fn connections_max(&self) -> u64 {
        self.connections_max
    }

    /// Waits until one more connection of this address may try to log in; `None` when too many of
    /// it wait already.
    pub(crate) async fn ticket(self: &Arc<Self>, address: IpAddr) -> Option<Ticket> {
        let presence = self.presence(AddressKey::of(address))?;
        let served = {
            let addresses = self.addresses.lock();
            Arc::clone(&addresses.get(&presence.address)?.served)
        };
        let of_address = served.acquire_owned().await.ok()?;
        let of_node = Arc::clone(&self.node).acquire_owned().await.ok()?;
        Some(Ticket { _permits: [of_address, of_node], _presence: presence })
    }

    fn presence(self: &Arc<Self>, address: AddressKey) -> Option<Presence> {
        let mut addresses = self.addresses.lock();
        let waiting = addresses.entry(address).or_insert_with(|| Waiting {
            served: Arc::new(Semaphore::new(self.per_address_max)),
            present: 0,
        });
        if PRESENT_PER_SERVED * self.per_address_max <= waiting.present {
            return None;
        }
        waiting.present += 1;
        Some(Presence { admission: Arc::clone(self), address })
    }
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

/// One connection of the node, while it is held.
pub(crate) struct Seat(Arc<Admission>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The right to try to log in, given back when the client has done so or is gone.
pub(crate) struct Ticket {
    _permits: [OwnedSemaphorePermit; 2],
    _presence: Presence,
}

struct Presence {
    admission: Arc<Admission>,
    address: AddressKey,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut addresses = self.admission.addresses.lock();
        if let Some(waiting) = addresses.get_mut(&self.address) {
            waiting.present -= 1;
            if waiting.present == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};
    use std::net::Ipv4Addr;
    use std::{pin::pin, task::Context};

    fn admission(unauthenticated: u64, per_address: u64) -> Arc<Admission> {
        let mut config = load(&Sources::default()).unwrap().config;
        config.connections_max = 2;
        config.unauthenticated_max = unauthenticated;
        config.unauthenticated_per_address_max = per_address;
        Admission::new(&config, None)
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
    }

    fn is_pending<T>(future: impl Future<Output = T>) -> bool {
        let mut context = Context::from_waker(std::task::Waker::noop());
        pin!(future).as_mut().poll(&mut context).is_pending()
    }

    #[test]
    fn seats_are_counted_and_given_back() {
        let admission = admission(9, 9);
        let (first, second) = (admission.seat(), admission.seat());
        assert!(first.is_some() && second.is_some());
        assert!(admission.seat().is_none());
        drop(first);
        assert!(admission.seat().is_some());
    }

    #[test]
    fn seats_follow_the_files_of_the_process() {
        let mut config = load(&Sources::default()).unwrap().config;
        config.connections_max = 50_000;
        for (files, expected) in
            [(1_024, 512), (4_096, 3_096), (20_000, 19_000), (1_000_000, 50_000)]
        {
            assert_eq!(Admission::new(&config, Some(files)).connections_max(), expected);
        }
    }

    #[tokio::test]
    async fn an_address_waits_at_its_limit_and_others_do_not() {
        let admission = admission(9, 1);
        let first = admission.ticket(address(1)).await.unwrap();
        assert!(is_pending(admission.ticket(address(1))));
        assert!(admission.ticket(address(2)).await.is_some());
        drop(first);
        assert!(admission.ticket(address(1)).await.is_some());
        assert!(admission.addresses.lock().is_empty(), "nothing is kept of those who went");
    }

    #[tokio::test]
    async fn too_many_waiting_of_one_address_are_sent_away() {
        let admission = admission(9, 1);
        let _first = admission.ticket(address(1)).await.unwrap();
        let mut waits = pin!(admission.ticket(address(1)));
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        assert!(admission.ticket(address(1)).await.is_none());
    }

    #[tokio::test]
    async fn the_node_waits_at_its_limit() {
        let admission = admission(1, 9);
        let first = admission.ticket(address(1)).await.unwrap();
        assert!(is_pending(admission.ticket(address(2))));
        drop(first);
        assert!(admission.ticket(address(2)).await.is_some());
    }
}
