//! What requests are answered, one by one.

use crate::host::{CHANNEL, Host, declare, declare_exchange, publish, subscribe};
use broker::REPLY_PREFIX;
use model::{
    ConsumerNumber, Name, Notice, Outcome, QueueId, Request, Settle, Table,
    request::{Binding, SharedCredit},
};

fn binding(exchange: &str, queue: &str, key: &str) -> Binding {
    Binding {
        channel: CHANNEL,
        source: exchange.into(),
        destination: queue.into(),
        to_exchange: false,
        routing_key: key.into(),
        arguments: Table::default(),
    }
}

#[test]
fn exchange_is_deleted_with_its_bindings_and_not_while_it_is_wanted() {
    let host = Host::new();
    let mut client = host.connect();
    assert_eq!(client.ask(&host, declare("q")), ["declared q 0 0"]);
    assert_eq!(client.ask(&host, declare_exchange("ex", "direct")), ["done"]);
    assert_eq!(client.ask(&host, Request::Bind(binding("ex", "q", "k"))), ["done"]);
    let delete =
        |if_unused| Request::DeleteExchange { channel: CHANNEL, exchange: "ex".into(), if_unused };
    let in_use = "refused: exchange 'ex' in vhost '/' in use";
    assert_eq!(client.ask(&host, delete(true)), [in_use]);
    assert_eq!(client.ask(&host, publish("ex", "k", "a", 1)), ["confirmed 1-1"]);
    assert_eq!(client.ask(&host, Request::Unbind(binding("ex", "q", "k"))), ["done"]);
    assert_eq!(client.ask(&host, publish("ex", "k", "b", 2)), ["returned b", "confirmed 2-2"]);
    assert_eq!(client.ask(&host, delete(true)), ["done"]);
    let missing = "refused: no exchange 'ex' in vhost '/'";
    assert_eq!(client.ask(&host, publish("ex", "k", "c", 3)), [missing]);
}

#[test]
fn shared_credit_holds_deliveries_back_until_it_grows_and_the_consumer_is_resumed() {
    let host = Host::new();
    let mut client = host.connect();
    client.ask(&host, declare("q"));
    for number in 1..=3 {
        client.ask(&host, publish("", "q", &number.to_string(), number));
    }
    let shared = SharedCredit::new(1);
    client.submit(subscribe(1, "q", Some(shared.clone())));
    assert_eq!(client.heard(), ["subscribed", "delivery 1"]);
    shared.add(2);
    assert_eq!(client.heard(), [""; 0]);
    let queue = QueueId(1);
    client.submit(Request::Resume { consumer: ConsumerNumber(1), queue });
    assert_eq!(client.heard(), ["delivery 2", "delivery 3"]);
}

#[test]
fn reply_address_is_open_from_its_opening_to_its_close_and_cannot_be_guessed() {
    let host = Host::new();
    let (mut requester, mut worker) = (host.connect(), host.connect());
    requester.submit(Request::OpenReply { channel: CHANNEL });
    let address = match requester.notices().pop() {
        Some(Notice::ReplyOpened { address, .. }) => format!("{REPLY_PREFIX}{address}"),
        other => panic!("expected an address, not {other:?}"),
    };
    assert_eq!(worker.ask(&host, publish("", &address, "answer", 1)), ["confirmed 1-1"]);
    assert_eq!(requester.heard(), ["reply answer"]);
    let guess = format!("{REPLY_PREFIX}gAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(worker.ask(&host, publish("", &guess, "spam", 2)), ["confirmed 2-2"]);
    assert_eq!(worker.ask(&host, declare(&address)), [format!("declared {address} 0 1")]);
    requester.submit(Request::CloseReply { channel: CHANNEL });
    assert_eq!(worker.ask(&host, publish("", &address, "late", 3)), ["confirmed 3-3"]);
    assert_eq!(requester.heard(), [""; 0]);
    let gone = format!("refused: no queue '{address}' in vhost '/'");
    assert_eq!(worker.ask(&host, declare(&address)), [gone]);
}

#[test]
fn refused_publish_ends_the_rest_of_its_channel_in_the_batch() {
    let host = Host::new();
    let mut client = host.connect();
    client.ask(&host, declare("q"));
    let mut batch =
        vec![publish("", "q", "a", 1), publish("nope", "q", "b", 2), publish("", "q", "c", 3)];
    client.0.submit(&mut batch, model::Timestamp(1_700_000_000_000));
    host.sync();
    let refused = "refused: no exchange 'nope' in vhost '/'";
    assert_eq!(client.heard(), [refused, "confirmed 1-1"]);
    assert_eq!(client.ask(&host, declare("q")), ["declared q 1 0"]);
}

#[test]
fn refused_transaction_leaves_nothing() {
    let host = Host::new();
    let mut client = host.connect();
    client.ask(&host, declare("q"));
    let requests = vec![publish("", "q", "a", 1), publish("nope", "q", "b", 2)];
    let commit = Request::Commit { channel: CHANNEL, requests };
    let refused = "refused: no exchange 'nope' in vhost '/'";
    assert_eq!(client.ask(&host, commit), [refused]);
    assert_eq!(client.ask(&host, declare("q")), ["declared q 0 0"]);
}

#[test]
fn what_a_closed_session_held_comes_back_in_its_place_and_flagged() {
    let host = Host::new();
    let (mut first, mut second) = (host.connect(), host.connect());
    first.ask(&host, declare("q"));
    for number in 1..=2 {
        first.ask(&host, publish("", "q", &number.to_string(), number));
    }
    first.submit(subscribe(1, "q", None));
    assert_eq!(first.heard(), ["subscribed", "delivery 1", "delivery 2"]);
    first.close();
    second.submit(subscribe(1, "q", None));
    assert_eq!(second.heard(), ["subscribed", "delivery 1 again", "delivery 2 again"]);
}

#[test]
fn settling_what_another_session_holds_changes_nothing() {
    let host = Host::new();
    let (mut holder, mut stranger) = (host.connect(), host.connect());
    holder.ask(&host, declare("q"));
    holder.ask(&host, publish("", "q", "a", 1));
    holder.submit(subscribe(1, "q", None));
    let Some(Notice::Delivery(delivery)) = holder.notices().pop() else {
        panic!("expected the delivery");
    };
    stranger.submit(Request::Settle(Settle {
        channel: CHANNEL,
        queue: delivery.queue,
        consumer: Some(ConsumerNumber(1)),
        entries: std::iter::once(delivery.entry).collect(),
        outcome: Outcome::Accept,
    }));
    holder.close();
    let fetch = Request::Fetch { channel: CHANNEL, queue: Name::new("q"), automatic: true };
    stranger.submit(fetch);
    assert_eq!(stranger.heard(), ["fetched a of 1"]);
}
