//! A session's handle: requests go in by the batch, notices come out by the batch. Everything that
//! a client of any protocol does goes through here.

use crate::{
    broker::{Broker, Connected, Touched},
    gate::{Admitted, Gate, Publisher},
    hand_over::{After, HandOver, Published, Queues, ShardCommand},
    ledger::Ledger,
    mailbox::{Mailbox, Pressure},
    shared,
};
use catalog::{Catalog, Vhost, Who};
use engine::{
    JobCommand, Place,
    record::{MessageRecord, Target},
};
use model::{
    ChannelId, LogPosition, Message, Name, Notice, Publish, Refusal, Request, SessionId, Timestamp,
    job::JOB_PREFIX,
};
use smallvec::SmallVec;
use std::{
    ops::Range,
    sync::Arc,
    task::{Context, Poll},
};
use stdx::seeded::{Seeded, is_sown};
use storage::{Log, LogError};

/// Octets in the log's backlog at which it is written although nobody waits.
const WRITE_AHEAD_BYTES: u64 = 1 << 20;

/// Who connects.
#[derive(Clone, Debug)]
pub struct Connect {
    pub user: Name,
    pub vhost: Name,
    /// For listings and logs.
    pub peer: String,
}

/// A connected session. Dropping it without [`SessionHandle::close`] leaves its unsettled
/// deliveries with nobody, so close it.
pub struct SessionHandle {
    pub(crate) broker: Broker,
    pub(crate) session: SessionId,
    pub(crate) user: Name,
    pub(crate) vhost: Name,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) ledger: Ledger,
    gate: Gate,
    /// What the publishes of a batch are decided on; between batches none is held.
    snapshot: Option<Snapshot>,
    /// Commands for each shard, handed over at the end of a batch.
    pub(crate) outgoing: Vec<Vec<ShardCommand>>,
    /// Shards that have ever got something from this session.
    pub(crate) known: Touched,
    pub(crate) stores: Vec<Store>,
    pub(crate) fronts: Vec<u8>,
    /// Channels that were refused something in this batch.
    pub(crate) refused: SmallVec<[ChannelId; 2]>,
    /// A batch that waits for room on the disk.
    stalled: Vec<Request>,
    last_now: Timestamp,
}

/// The newest catalog at one time, and the session's virtual host in it.
struct Snapshot {
    catalog: Arc<Catalog>,
    vhost: Arc<Vhost>,
}

/// A message that is to be written before it is handed over.
pub(crate) struct Store {
    pub(crate) message: Arc<Message>,
    pub(crate) front: Range<usize>,
    /// Whose commands wait for its place: shard and index.
    pub(crate) commands: SmallVec<[(usize, usize); 2]>,
    pub(crate) keep: bool,
    pub(crate) spill: bool,
}

impl Broker {
    /// Lets a user into a virtual host.
    ///
    /// # Errors
    /// [`Refusal`]: no such virtual host, no permission in it, or a limit is reached.
    pub fn connect(&self, connect: Connect) -> Result<SessionHandle, Refusal> {
        let Connect { user, vhost, .. } = connect;
        self.may_connect(&user, &vhost)?;
        let session = self.next_session();
        let mailbox = Arc::new(Mailbox::default());
        let connected =
            Connected { mailbox: Arc::clone(&mailbox), user: user.clone(), vhost: vhost.clone() };
        self.sessions().lock().insert(session, connected);
        if let Some(reason) = self.blocked() {
            mailbox.push(Notice::Blocked { reason });
        }
        Ok(SessionHandle {
            gate: Gate::new(self.seed() ^ session.0),
            snapshot: None,
            broker: self.clone(),
            session,
            user,
            vhost,
            mailbox,
            ledger: Ledger::default(),
            outgoing: self.shards().iter().map(|_| Vec::new()).collect(),
            known: 0,
            stores: Vec::new(),
            fronts: Vec::new(),
            refused: SmallVec::new(),
            stalled: Vec::new(),
            last_now: Timestamp::default(),
        })
    }

    fn may_connect(&self, user: &Name, vhost: &Name) -> Result<(), Refusal> {
        let catalog = self.shared().catalog.load();
        let Some(found) = catalog.vhost(vhost) else {
            return Err(Refusal::NoVhost(vhost.clone()));
        };
        catalog.authorize_vhost(user, vhost)?;
        let sessions = self.sessions().lock();
        if let Some(limit) = found.facts().limits.connections_max {
            let open = sessions.values().filter(|it| it.vhost == *vhost).count() as u64;
            if limit <= open {
                let (vhost, user) = (vhost.clone(), user.clone());
                return Err(Refusal::VhostConnectionLimit { vhost, user, limit });
            }
        }
        let record = catalog.user(user);
        if let Some(limit) = record.and_then(|it| it.limits.connections_max) {
            let open = sessions.values().filter(|it| it.user == *user).count() as u64;
            if limit <= open {
                return Err(Refusal::UserConnectionLimit { user: user.clone(), limit });
            }
        }
        Ok(())
    }
}

impl SessionHandle {
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Carries out a batch in order. What it is answered comes as notices.
    pub fn submit(&mut self, requests: &mut Vec<Request>, now: Timestamp) {
        self.last_now = now;
        if self.broker.shared().has_failed() {
            requests.clear();
            return;
        }
        if self.stalls(requests) {
            self.stalled.append(requests);
            return;
        }
        let broker = self.broker.clone();
        let _world = broker.world().read();
        self.refused.clear();
        for request in requests.drain(..) {
            self.request(request, now);
        }
        self.snapshot = None;
        self.hand_over(now);
    }

    /// While the disk is full nothing of a publisher goes on, so that nothing of it is lost.
    fn stalls(&self, requests: &[Request]) -> bool {
        let publishes =
            || requests.iter().any(|it| matches!(it, Request::Publish(_) | Request::Commit { .. }));
        self.broker.blocked().is_some() && (!self.stalled.is_empty() || publishes())
    }

    /// Writes what is to be written, gives each shard its batch and turns them.
    pub(crate) fn hand_over(&mut self, now: Timestamp) {
        if let Err(error) = self.store(false) {
            self.broker.shared().fail(&error);
        }
        if self.broker.shared().has_failed() {
            // Nothing of this batch may be confirmed, and what the log has of it must not come
            // again: the process is about to end.
            return self.forget_batch();
        }
        let mut touched: Touched = 0;
        for (index, commands) in self.outgoing.iter_mut().enumerate() {
            if commands.is_empty() {
                continue;
            }
            touched |= 1 << index;
            let capacity = commands.len();
            let commands = std::mem::replace(commands, Vec::with_capacity(capacity));
            let (session, mailbox) = (self.session, Some(Arc::clone(&self.mailbox)));
            self.broker.shards()[index].hand_over(HandOver { session, mailbox, commands });
        }
        self.known |= touched;
        self.broker.turn_shards(touched, now);
    }

    fn request(&mut self, request: Request, now: Timestamp) {
        match request {
            Request::Publish(publish) => self.publish(publish, now),
            other => {
                self.snapshot = None;
                self.other_request(other, now);
            }
        }
    }

    fn publish(&mut self, publish: Publish, now: Timestamp) {
        if self.refused.contains(&publish.channel) {
            return;
        }
        let channel = publish.channel;
        if let Err(refusal) = self.admit(publish, now) {
            self.refuse(channel, refusal, true);
        }
    }

    /// Taken once per batch unless a request of the batch changes the catalog.
    fn snapshot(&mut self) -> Result<Snapshot, Refusal> {
        if let Some(snapshot) = self.snapshot.take() {
            return Ok(snapshot);
        }
        let catalog = self.broker.shared().catalog.load_full();
        match catalog.vhost(&self.vhost).cloned() {
            Some(vhost) => Ok(Snapshot { catalog, vhost }),
            None => Err(Refusal::NoVhost(self.vhost.clone())),
        }
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.broker.shared().catalog.load_full()
    }

    fn who(&self) -> (Name, Name) {
        (self.user.clone(), self.vhost.clone())
    }

    /// Runs a decision for this session on a snapshot.
    pub(crate) fn decide<T>(
        &self,
        catalog: &Catalog,
        decision: impl FnOnce(&Catalog, &Who<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let (user, vhost) = self.who();
        let who = Who { user: &user, vhost: &vhost, session: self.session, client_id: None };
        decision(catalog, &who)
    }

    /// Admits one publish and prepares its commands.
    pub(crate) fn admit(&mut self, publish: Publish, now: Timestamp) -> Result<(), Refusal> {
        let Publish { channel, message, mandatory, confirm } = publish;
        let confirm = confirm.map(|number| (channel, number));
        let snapshot = self.snapshot()?;
        let who =
            Who { user: &self.user, vhost: &self.vhost, session: self.session, client_id: None };
        let publisher = Publisher { catalog: &snapshot.catalog, vhost: &snapshot.vhost, who };
        let admitted = self.gate.admit(publisher, message);
        self.snapshot = Some(snapshot);
        let Admitted { message, destinations } = admitted?;
        if destinations.is_reply {
            self.reply(message, confirm);
            return Ok(());
        }
        if destinations.queues.is_empty() {
            if mandatory && !is_sown(Seeded::NotReturned) {
                self.mailbox.push(Notice::Returned { channel, message });
            }
            confirm_at_once(&self.mailbox, confirm);
            return Ok(());
        }
        if 1 < destinations.shards.len()
            && let Some((channel, number)) = confirm
        {
            self.ledger.open(channel, number, destinations.shards.len());
        }
        let room = self.broker.shared().budget.has_room();
        let keep = destinations.keeps(message.persistent);
        let spill = !room && destinations.passes(message.persistent);
        if keep || spill {
            let commands = destinations.shards.iter().map(|(shard, _)| {
                let outgoing = usize::from(shard.0) % self.outgoing.len();
                (outgoing, self.outgoing[outgoing].len())
            });
            let commands = commands.collect();
            let mut targets = SmallVec::new();
            for it in destinations.queues.iter().filter(|it| it.keeps(message.persistent)) {
                targets.push(Target { queue: it.queue, ..Target::default() });
            }
            let front = MessageRecord { arrived: now, targets, replaces: SmallVec::new() };
            let start = self.fronts.len();
            front.encode(&message, &mut self.fronts);
            let front = start..self.fronts.len();
            let message = Arc::clone(&message);
            self.stores.push(Store { message, front, commands, keep, spill });
        }
        let command = |message, queues: &Queues| {
            ShardCommand::Publish(Published {
                message,
                place: Place::Memory,
                spilled: Place::Memory,
                room,
                redelivered: false,
                queues: queues.clone(),
                confirm,
            })
        };
        let Some(((last, queues), rest)) = destinations.shards.split_last() else { return Ok(()) };
        let shards = self.outgoing.len();
        for (shard, queues) in rest {
            let command = command(Arc::clone(&message), queues);
            self.outgoing[usize::from(shard.0) % shards].push(command);
        }
        self.outgoing[usize::from(last.0) % shards].push(command(message, queues));
        Ok(())
    }

    pub(crate) fn refuse(&mut self, channel: ChannelId, refusal: Refusal, publish: bool) {
        self.refused.push(channel);
        self.mailbox.push(Notice::Refused { channel, refusal: refusal.into(), publish });
    }

    /// Drops what a refused transaction has prepared.
    pub(crate) fn forget_batch(&mut self) {
        self.outgoing.iter_mut().for_each(Vec::clear);
        self.stores.clear();
        self.fronts.clear();
    }

    /// Writes the messages of this batch in one go and puts their places into the commands.
    pub(crate) fn store(&mut self, atomic: bool) -> Result<(), LogError> {
        if self.stores.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.broker.shared().log);
        if self.stores.iter().any(|it| it.keep) {
            self.write(&shared, atomic, true)?;
        }
        if self.stores.iter().any(|it| it.spill)
            && let Some(spill) = self.broker.shared().spill().cloned()
        {
            self.write(&spill, false, false)?;
        }
        self.stores.clear();
        self.fronts.clear();
        if WRITE_AHEAD_BYTES <= shared.pending_bytes() {
            self.broker.shared().hooks.sync_wanted();
        }
        Ok(())
    }

    /// A message that goes past every queue, to a requester or to the attempt at a job.
    #[inline(never)]
    fn reply(&mut self, message: Arc<Message>, confirm: Option<(ChannelId, u64)>) {
        if message.routing_key().starts_with(JOB_PREFIX) {
            return self.answer_for_job(message, confirm);
        }
        // A requester that has gone wants no reply: it is dropped, and not returned.
        if let Some(requester) = self.broker.replies().requester(message.routing_key()) {
            requester.reply(message);
        }
        confirm_at_once(&self.mailbox, confirm);
    }

    fn write(&mut self, log: &Log, atomic: bool, keep: bool) -> Result<(), LogError> {
        let mut appender = log.begin()?;
        if atomic {
            appender.atomic();
        }
        for it in self.stores.iter().filter(|it| if keep { it.keep } else { it.spill }) {
            let front = &self.fronts[it.front.clone()];
            let (position, end) = shared::append(&mut appender, front, &it.message)?;
            let place = place(position, end, keep);
            for (shard, index) in &it.commands {
                match &mut self.outgoing[*shard][*index] {
                    ShardCommand::Publish(published) => {
                        *if keep { &mut published.place } else { &mut published.spilled } = place;
                    }
                    ShardCommand::Job { command, .. } => {
                        if let JobCommand::Submit { enqueue, .. } = &mut **command {
                            enqueue.place = place;
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Takes what the broker says, or is woken when it says something.
    pub fn poll_notices(&mut self, context: &mut Context<'_>, out: &mut Vec<Notice>) -> Poll<()> {
        loop {
            let before = out.len();
            if self.mailbox.poll(context, out).is_pending() {
                return Poll::Pending;
            }
            if before == 0 {
                self.ledger.settle(out);
            } else {
                let mut fresh = out.split_off(before);
                self.ledger.settle(&mut fresh);
                out.append(&mut fresh);
            }
            // A first half of a confirm is nothing to tell.
            if before < out.len() {
                return Poll::Ready(());
            }
        }
    }

    /// Ready when the log can take more; until then the session is to bring nothing.
    pub fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.stalled.is_empty() {
            if self.broker.poll_unblocked(context).is_pending() {
                return Poll::Pending;
            }
            let mut stalled = std::mem::take(&mut self.stalled);
            let now = self.last_now;
            self.submit(&mut stalled, now);
        }
        self.broker.shared().poll_room(context)
    }

    /// Its publishes, kept in memory only, come faster than the consumers of their queue take them:
    /// the session does well to pause, but not for long, because consumers may have stopped. Tells
    /// it once.
    pub fn take_pressure(&self) -> Option<Pressure> {
        self.mailbox.take_pressure()
    }

    /// Whether memory for bodies has room.
    pub fn has_room(&self) -> bool {
        self.broker.shared().budget.has_room()
    }

    /// Ends the session in order: what it holds goes back, what belongs to it alone goes. Its
    /// client has said goodbye, or the broker has.
    pub fn close(self, now: Timestamp) {
        self.end(true, now);
    }

    /// The same for one whose client is gone without a word: attempts at jobs that it held are
    /// lost.
    pub fn lose(self, now: Timestamp) {
        self.end(false, now);
    }

    fn end(mut self, is_orderly: bool, now: Timestamp) {
        self.broker.sessions().lock().remove(&self.session);
        self.broker.replies().close(self.session, None);
        let broker = self.broker.clone();
        let _world = broker.world().read();
        self.return_leases();
        let known = self.known;
        for (index, commands) in self.outgoing.iter_mut().enumerate() {
            if known & 1 << index != 0 {
                commands.push(ShardCommand::EndSession { is_orderly });
            }
        }
        self.delete_exclusive();
        self.hand_over(now);
    }

    /// Says it on this channel once everything that every shard got before is done.
    pub(crate) fn join(&mut self, channel: ChannelId, notice: &Notice, after: After) {
        let shards = (0..self.outgoing.len())
            .filter(|it| self.known & 1 << it != 0 || !self.outgoing[*it].is_empty());
        let mut shards: SmallVec<[usize; 4]> = shards.collect();
        if shards.is_empty() {
            shards.push(0);
        }
        self.ledger.join(channel, shards.len());
        for shard in shards {
            let notice = notice.clone();
            self.outgoing[shard].push(ShardCommand::Tell { notice, after });
        }
    }
}

fn confirm_at_once(mailbox: &Mailbox, confirm: Option<(ChannelId, u64)>) {
    if let Some((channel, number)) = confirm {
        mailbox.push(Notice::Confirmed { channel, first: number, last: number });
    }
}

fn place(position: LogPosition, end: LogPosition, keep: bool) -> Place {
    if keep { Place::Log { position, end } } else { Place::Spill { position } }
}
