//! A broker on a disk in memory, driven by the test.

use broker::{
    Administration, Broker, BrokerOptions, Connect, Hooks, PasswordHash, Restoration, SessionHandle,
};
use model::{
    ChannelId, ConsumerNumber, Message, Name, Notice, Publish, Request, Subscribe, Table,
    Timestamp,
    job::{JobAnswer, JobAsk, JobRequest},
    properties::Properties,
    request::{DeclareExchange, DeclareQueue, SharedCredit},
};
use std::{
    sync::Arc,
    task::{Context, Waker},
};
use storage::{Log, LogOptions, MemoryDisk};

pub(crate) const CHANNEL: ChannelId = ChannelId(1);
pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);

struct Quiet;

impl Hooks for Quiet {
    fn sync_wanted(&self) {}
    fn load_wanted(&self) {}
    fn deadline_moved(&self) {}
    fn failed(&self, _why: &str) {}
    fn damaged(&self, _what: &str) {}
}

pub(crate) struct Host {
    pub(crate) broker: Broker,
    pub(crate) log: Arc<Log>,
    pub(crate) disk: MemoryDisk,
    pub(crate) restoration: Restoration,
}

impl Host {
    pub(crate) fn open(disk: MemoryDisk) -> Self {
        let options = LogOptions { segment_bytes: 64 << 10, ..LogOptions::default() };
        let shared_disk = Arc::new(disk.clone());
        let (log, recovery, restorer) =
            broker::recover(shared_disk, options.clone(), false, &|_| ()).expect("opens");
        let log = Arc::new(log);
        let broker_options = BrokerOptions {
            shards: 2,
            bodies_bytes_max: 1 << 20,
            pending_bytes_max: 1 << 20,
            orderly: recovery.orderly,
            catalog_damaged: recovery.is_log_damaged(),
            damaged_segments: Vec::new(),
            seed: [7, 11],
        };
        let spill = move || {
            let disk = Arc::new(MemoryDisk::new());
            storage::open_spill(disk, options.clone()).map_err(|it| it.to_string())
        };
        let log_too = Arc::clone(&log);
        let (broker, restoration) =
            Broker::new(broker_options, log_too, Box::new(spill), restorer, Box::new(Quiet), NOW);
        if broker.is_new() {
            let (user, vhost) = (Name::new("app"), Name::new("/"));
            let password = PasswordHash::None;
            let first = Administration::First { user, password, vhost };
            broker.administer(first).expect("administers");
        }
        let host = Self { broker, log, disk, restoration };
        host.sync();
        host
    }

    pub(crate) fn new() -> Self {
        Self::open(MemoryDisk::new())
    }

    /// What the log thread does.
    pub(crate) fn sync(&self) {
        self.log.flush(true).expect("flushes");
        self.broker.synced(NOW);
    }

    pub(crate) fn connect(&self) -> Client {
        let connect = Connect { user: "app".into(), vhost: "/".into(), peer: "test".into() };
        Client(self.broker.connect(connect).expect("connects"))
    }

    /// What is left after a crash at this moment.
    pub(crate) fn crash(self, seed: u64) -> Self {
        let disk = self.disk.crash(seed);
        drop(self);
        Self::open(disk)
    }
}

pub(crate) struct Client(pub(crate) SessionHandle);

impl Client {
    pub(crate) fn submit(&mut self, request: Request) {
        self.0.submit(&mut vec![request], NOW);
    }

    /// What has been said, as one text per notice.
    pub(crate) fn heard(&mut self) -> Vec<String> {
        self.notices().iter().map(text).collect()
    }

    pub(crate) fn notices(&mut self) -> Vec<Notice> {
        let mut notices = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        while self.0.poll_notices(&mut context, &mut notices).is_ready() {}
        notices
    }

    pub(crate) fn ask(&mut self, host: &Host, request: Request) -> Vec<String> {
        self.submit(request);
        host.sync();
        self.heard()
    }

    pub(crate) fn close(self) {
        self.0.close(NOW);
    }
}

fn text(notice: &Notice) -> String {
    let body = |message: &Message| String::from_utf8_lossy(&message.body()).into_owned();
    match notice {
        Notice::Confirmed { first, last, .. } => format!("confirmed {first}-{last}"),
        Notice::Nacked { number, .. } => format!("nacked {number}"),
        Notice::Returned { message, .. } => format!("returned {}", body(message)),
        Notice::Delivery(it) => {
            let mark = if it.redelivered { " again" } else { "" };
            format!("delivery {}{mark}", body(&it.message))
        }
        Notice::Fetched { delivery, ready, .. } => match delivery {
            Some(it) => format!("fetched {} of {}", body(&it.message), ready + 1),
            None => "fetched nothing".to_owned(),
        },
        Notice::Reply { message, .. } => format!("reply {}", body(message)),
        Notice::Declared { queue, ready, consumers, .. } => {
            format!("declared {queue} {ready} {consumers}")
        }
        Notice::Deleted { messages, .. } => format!("deleted {messages}"),
        Notice::Purged { messages, .. } => format!("purged {messages}"),
        Notice::Done { .. } => "done".to_owned(),
        Notice::Subscribed { .. } => "subscribed".to_owned(),
        Notice::Unsubscribed { .. } => "unsubscribed".to_owned(),
        Notice::Cancelled { .. } => "cancelled".to_owned(),
        Notice::ReplyOpened { .. } => "reply opened".to_owned(),
        Notice::Committed { .. } => "committed".to_owned(),
        Notice::Refused { refusal, .. } => format!("refused: {refusal}"),
        Notice::Blocked { reason } => format!("blocked: {reason}"),
        Notice::Unblocked => "unblocked".to_owned(),
        Notice::Closed { refusal } => format!("closed: {refusal}"),
        Notice::Job(it) => match &it.answer {
            JobAnswer::Refused(refusal) => format!("{} refused: {refusal}", it.number),
            other => format!("{} {other:?}", it.number),
        },
    }
}

pub(crate) fn declare(queue: &str) -> Request {
    Request::DeclareQueue(DeclareQueue {
        channel: CHANNEL,
        queue: queue.into(),
        unique: "unique".into(),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: Table::default(),
    })
}

pub(crate) fn declare_exchange(exchange: &str, kind: &str) -> Request {
    Request::DeclareExchange(DeclareExchange {
        channel: CHANNEL,
        exchange: exchange.into(),
        kind: kind.into(),
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: Table::default(),
    })
}

pub(crate) fn publish(exchange: &str, key: &str, body: &str, number: u64) -> Request {
    let properties = Properties { delivery_mode: Some(2), ..Properties::default() };
    Request::Publish(Publish {
        channel: CHANNEL,
        message: Message::new(exchange, key, &properties.encoded(), body.as_bytes()).into(),
        mandatory: true,
        confirm: Some(number),
    })
}

pub(crate) fn subscribe(consumer: u32, queue: &str, shared: Option<SharedCredit>) -> Request {
    Request::Subscribe(Subscribe {
        channel: CHANNEL,
        consumer: ConsumerNumber(consumer),
        queue: queue.into(),
        tag: "tag".into(),
        automatic: false,
        exclusive: false,
        prefetch: 0,
        shared,
        arguments: Table::default(),
    })
}

pub(crate) fn job(number: u64, ask: JobAsk) -> Request {
    Request::Job(Box::new(JobRequest { number, ask }))
}
