//! Empties every queue of a broker that has just been opened, and finds out what there is.

use crate::{
    body,
    client::declaration,
    history::History,
    host::{Host, USER, VHOST},
    judge::{Drained, Seen},
    world::{FANOUT, SPECS, SpecId},
};
use broker::{Connect, SessionHandle};
use model::{
    ChannelId, ConsumerNumber, Delivery, Name, Notice, Outcome, Publish, Request, Settle,
    Subscribe, Table, request::DeclareQueue,
};
use std::task::{Context, Poll, Waker};

/// Segments that may be left when everything is gone.
const SEGMENTS_MAX: usize = 8;
/// A segment is moved when nothing has changed in it for so long.
pub const RESTING_MS: u64 = 5_001;
/// Looks that reclaim may take to get there.
const LOOKS_MAX: usize = 200;

/// A session that asks one thing after the other.
pub struct Asking {
    handle: SessionHandle,
    notices: Vec<Notice>,
}

fn channel_of(spec: SpecId) -> ChannelId {
    ChannelId(u16::try_from(spec).unwrap_or(0) + 1)
}

impl Asking {
    /// Connects.
    ///
    /// # Errors
    /// A text, when the broker does not let it in.
    pub fn connect(host: &Host) -> Result<Self, String> {
        let connect = Connect { user: USER.into(), vhost: VHOST.into(), peer: String::new() };
        let handle = host.broker.connect(connect).map_err(|it| it.to_string())?;
        Ok(Self { handle, notices: Vec::new() })
    }

    /// Hands the requests over and takes what is said until nothing is left to do.
    ///
    /// # Errors
    /// A text, when the log has failed.
    pub fn ask(&mut self, host: &Host, requests: Vec<Request>) -> Result<Vec<Notice>, String> {
        self.submit(host, requests);
        host.settle_down()?;
        Ok(self.listen())
    }

    /// Hands the requests over, and no more.
    pub fn submit(&mut self, host: &Host, mut requests: Vec<Request>) {
        self.handle.submit(&mut requests, host.now);
    }

    /// What has been said.
    pub fn listen(&mut self) -> Vec<Notice> {
        let mut context = Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        while self.handle.poll_notices(&mut context, &mut self.notices) == Poll::Ready(()) {
            all.append(&mut self.notices);
        }
        all
    }

    /// Ends it.
    pub fn close(self, host: &Host) {
        self.handle.close(host.now);
    }

    /// For each queue: how many messages it says to have, if it is there.
    ///
    /// # Errors
    /// A text, when the log has failed.
    pub fn depths(&mut self, host: &Host, specs: &[SpecId]) -> Result<Vec<Option<u64>>, String> {
        let passive = |spec: &SpecId| match declaration(channel_of(*spec), *spec) {
            Request::DeclareQueue(it) => {
                Request::DeclareQueue(DeclareQueue { passive: true, ..it })
            }
            other => other,
        };
        let mut depths = vec![None; SPECS.len()];
        for notice in self.ask(host, specs.iter().map(passive).collect())? {
            match notice {
                Notice::Declared { channel, ready, .. } => {
                    depths[usize::from(channel.0) - 1] = Some(ready);
                }
                Notice::Refused { .. } | Notice::Blocked { .. } | Notice::Unblocked => {}
                other => return Err(format!("a look is answered by {other:?}")),
            }
        }
        Ok(depths)
    }
}

fn subscription(spec: SpecId) -> Request {
    Request::Subscribe(Subscribe {
        channel: channel_of(spec),
        consumer: ConsumerNumber(u32::try_from(spec).unwrap_or(0) + 1),
        queue: SPECS[spec].name.into(),
        tag: Name::default(),
        automatic: false,
        exclusive: false,
        prefetch: 0,
        shared: None,
        arguments: Table::default(),
    })
}

fn accept(delivery: &Delivery) -> Request {
    Request::Settle(Settle {
        channel: ChannelId(u16::try_from(delivery.consumer.0).unwrap_or(1)),
        queue: delivery.queue,
        consumer: Some(delivery.consumer),
        entries: std::iter::once(delivery.entry).collect(),
        outcome: Outcome::Accept,
    })
}

fn note(drained: &mut Drained, notices: Vec<Notice>, accepts: &mut Vec<Request>) {
    for notice in notices {
        let Notice::Delivery(delivery) = notice else { continue };
        accepts.push(accept(&delivery));
        let Some(queue) = &mut drained.queues[delivery.consumer.0 as usize - 1] else { continue };
        let number = body::number_of(&delivery.message.body());
        queue.seen.push(Seen { number, redelivered: delivery.redelivered });
    }
}

/// Takes everything out of every queue, and sends one message to the fanout exchange.
///
/// # Errors
/// A text: the log has failed, or what is counted is not what is found.
pub fn drain(host: &Host, history: &History, specs: &[SpecId]) -> Result<Drained, String> {
    // Letters that died at the start are on their way.
    host.settle_down()?;
    let mut asking = Asking::connect(host)?;
    let depths = asking.depths(host, specs)?;
    let mut drained = Drained::new(depths);
    let there = |it: &&SpecId| drained.queues[**it].is_some();
    let subscriptions = specs.iter().filter(there).map(|it| subscription(*it)).collect();
    let mut accepts = Vec::new();
    note(&mut drained, asking.ask(host, subscriptions)?, &mut accepts);
    drained.check_counts()?;
    let probe = history.messages.len() as u64 + 1_000_000;
    let message = body::message(FANOUT, "", probe, 20, true).into();
    let (channel, mandatory, confirm) = (ChannelId(1), false, Some(1));
    let publish = Request::Publish(Publish { channel, message, mandatory, confirm });
    let answered = asking.ask(host, vec![publish])?;
    let is_confirm = |it: &Notice| matches!(it, Notice::Confirmed { .. });
    if answered.iter().filter(|it| is_confirm(it)).count() != 1 {
        return Err(format!("the probe is not confirmed once: {answered:?}"));
    }
    note(&mut drained, answered, &mut accepts);
    for queue in drained.queues.iter_mut().flatten() {
        let before = queue.seen.len();
        queue.seen.retain(|it| it.number != Some(probe));
        queue.is_bound = queue.seen.len() < before;
    }
    note(&mut drained, asking.ask(host, accepts)?, &mut Vec::new());
    let left = asking.depths(host, specs)?;
    if left.iter().flatten().any(|it| *it != 0) {
        return Err(format!("after a drain there is something left: {left:?}"));
    }
    asking.close(host);
    host.settle_down()?;
    Ok(drained)
}

/// With nothing left in any queue, the log becomes short.
///
/// # Errors
/// A text: it does not.
pub fn check_reclaim(host: &mut Host) -> Result<(), String> {
    for _ in 0..LOOKS_MAX {
        host.pass(RESTING_MS);
        host.reclaim()?;
        host.flush(true)?;
        host.synced();
        host.prepare()?;
        if host.log.segments().len() <= SEGMENTS_MAX {
            return Ok(());
        }
    }
    Err(format!("{} segments are left for nothing", host.log.segments().len()))
}
