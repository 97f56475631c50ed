//! The words that every room of the house shares: ids, names, values, messages, what a client may
//! ask (`Request`), what it is told (`Notice`) and why it is refused (`Refusal`). Data only: no
//! I/O, no clock, no serialisation framework, and no protocol's name.

pub mod ids;
pub mod limits;
pub mod names;
pub mod value;
pub mod properties;
pub mod message;
pub mod job;
pub mod policy;
pub mod refusal;
pub mod request;
pub mod notice;

pub use ids::{
    ChannelId, ConsumerNumber, EntryId, LogPosition, QueueId, SessionId, ShardId, Timestamp,
    VhostId,
};
pub use message::Message;
pub use names::Name;
pub use notice::{Delivery, Notice};
pub use policy::QueuePolicy;
pub use properties::Facts;
pub use refusal::{Permission, Refusal, RefusalKind, ResourceKind};
pub use request::{Outcome, Publish, Request, Settle, Subscribe};
pub use value::{Table, Value};
