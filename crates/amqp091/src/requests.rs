//! What a client may ask on an open channel: each method becomes a request, or is answered at once.

use crate::{
    channel::{Around, Awaited, Channel, Mode},
    confirm::Confirms,
    method::{Method, MethodIds},
    publishing::REPLY_TO,
    reply::{Reply, ReplyCode},
    transaction::Transaction,
};
use model::{
    ConsumerNumber, Name, Outcome, Refusal, Request, ResourceKind, Subscribe,
    request::{Binding, DeclareExchange, DeclareQueue},
};

/// The ticket of `access.request`, which means nothing any more.
const TICKET: u16 = 1;

type Handled = Result<(), Reply>;

fn precondition(text: &str, ids: MethodIds) -> Reply {
    Reply::new(ReplyCode::PreconditionFailed, text, ids)
}

fn not_implemented(text: &str, ids: MethodIds) -> Reply {
    Reply::new(ReplyCode::NotImplemented, text, ids)
}

impl Channel {
    /// Carries out a method, other than those that open, close or publish.
    ///
    /// # Errors
    /// The reply that ends the channel or the connection.
    pub(crate) fn method(&mut self, method: Method, around: &mut Around<'_>) -> Handled {
        let ids = method.ids();
        match ids.0 {
            40 => self.exchange_method(method, ids, around),
            50 => self.queue_method(method, ids, around),
            60 => self.basic_method(method, ids, around),
            85 | 90 => self.mode_method(method, ids, around),
            _ => self.other_method(method, ids, around),
        }
    }

    fn other_method(&self, method: Method, ids: MethodIds, around: &mut Around<'_>) -> Handled {
        let answer = match method {
            Method::ChannelFlow { active: true } => Method::ChannelFlowOk { active: true },
            Method::ChannelFlow { active: false } => {
                return Err(not_implemented("active=false", ids));
            }
            Method::AccessRequest { .. } => Method::AccessRequestOk { ticket: TICKET },
            _ => return Err(unimplemented_method(ids)),
        };
        around.output.method(self.number, &answer);
        Ok(())
    }

    fn exchange_method(
        &mut self,
        method: Method,
        ids: MethodIds,
        around: &mut Around<'_>,
    ) -> Handled {
        let channel = self.id;
        let (request, is_silent, answer) = match method {
            Method::ExchangeDeclare {
                exchange,
                kind,
                passive,
                durable,
                auto_delete,
                internal,
                no_wait,
                arguments,
            } => {
                let declare = DeclareExchange {
                    channel,
                    exchange,
                    kind,
                    passive,
                    durable,
                    auto_delete,
                    internal,
                    arguments,
                };
                (Request::DeclareExchange(declare), no_wait, Method::ExchangeDeclareOk {})
            }
            Method::ExchangeDelete { exchange, if_unused, no_wait } => {
                let request = Request::DeleteExchange { channel, exchange, if_unused };
                (request, no_wait, Method::ExchangeDeleteOk {})
            }
            Method::ExchangeBind { destination, source, routing_key, no_wait, arguments } => {
                let to_exchange = true;
                let binding =
                    Binding { channel, source, destination, to_exchange, routing_key, arguments };
                (Request::Bind(binding), no_wait, Method::ExchangeBindOk {})
            }
            Method::ExchangeUnbind { destination, source, routing_key, no_wait, arguments } => {
                let to_exchange = true;
                let binding =
                    Binding { channel, source, destination, to_exchange, routing_key, arguments };
                (Request::Unbind(binding), no_wait, Method::ExchangeUnbindOk {})
            }
            _ => return Err(unimplemented_method(ids)),
        };
        around.requests.push(request);
        self.wait(ids, is_silent, Awaited::Done(answer));
        Ok(())
    }

    fn queue_method(&mut self, method: Method, ids: MethodIds, around: &mut Around<'_>) -> Handled {
        let channel = self.id;
        let (request, is_silent, what) = match method {
            Method::QueueDeclare { .. } => return self.declare_queue(method, ids, around),
            Method::QueueBind { queue, exchange, routing_key, no_wait, arguments } => {
                let (queue, routing_key) = self.bound(queue, routing_key, ids)?;
                let binding = Binding {
                    channel,
                    source: exchange,
                    destination: queue,
                    to_exchange: false,
                    routing_key,
                    arguments,
                };
                (Request::Bind(binding), no_wait, Awaited::Done(Method::QueueBindOk {}))
            }
            Method::QueueUnbind { queue, exchange, routing_key, arguments } => {
                let (queue, routing_key) = self.bound(queue, routing_key, ids)?;
                let binding = Binding {
                    channel,
                    source: exchange,
                    destination: queue,
                    to_exchange: false,
                    routing_key,
                    arguments,
                };
                (Request::Unbind(binding), false, Awaited::Done(Method::QueueUnbindOk {}))
            }
            Method::QueuePurge { queue, no_wait } => {
                let queue = self.queue_or_last(queue, ids)?;
                (Request::PurgeQueue { channel, queue }, no_wait, Awaited::QueuePurged)
            }
            Method::QueueDelete { queue, if_unused, if_empty, no_wait } => {
                let queue = self.queue_or_last(queue, ids)?;
                let request = Request::DeleteQueue { channel, queue, if_unused, if_empty };
                (request, no_wait, Awaited::QueueDeleted)
            }
            _ => return Err(unimplemented_method(ids)),
        };
        around.requests.push(request);
        self.wait(ids, is_silent, what);
        Ok(())
    }

    /// Queue and routing key of a binding, where either may stand for the last declared queue.
    fn bound(&self, queue: Name, routing_key: Name, ids: MethodIds) -> Result<(Name, Name), Reply> {
        let is_short = queue.is_empty() && routing_key.is_empty();
        let queue = self.queue_or_last(queue, ids)?;
        let routing_key = if is_short { queue.clone() } else { routing_key };
        Ok((queue, routing_key))
    }

    fn declare_queue(
        &mut self,
        method: Method,
        ids: MethodIds,
        around: &mut Around<'_>,
    ) -> Handled {
        let Method::QueueDeclare {
            queue,
            passive,
            durable,
            exclusive,
            auto_delete,
            no_wait,
            arguments,
        } = method
        else {
            return Err(unimplemented_method(ids));
        };
        if queue.as_str() == REPLY_TO {
            self.last_queue = Some(queue.clone());
            if !no_wait {
                let answer = Method::QueueDeclareOk { queue, message_count: 0, consumer_count: 1 };
                around.output.method(self.number, &answer);
            }
            return Ok(());
        }
        if self.reply.as_ref().is_some_and(|it| it.address == queue) {
            // The address is there for others only.
            let (kind, vhost) = (ResourceKind::Queue, around.client.vhost.clone());
            let missing = Refusal::NotFound { kind, name: queue, vhost };
            return Err(Reply::refused(&missing, ids));
        }
        let is_named = !queue.is_empty();
        around.requests.push(Request::DeclareQueue(DeclareQueue {
            channel: self.id,
            queue,
            unique: if is_named { Name::default() } else { around.naming.unique("") },
            passive,
            durable,
            exclusive,
            auto_delete,
            arguments,
        }));
        self.wait(ids, no_wait, Awaited::QueueDeclared);
        Ok(())
    }

    fn basic_method(&mut self, method: Method, ids: MethodIds, around: &mut Around<'_>) -> Handled {
        match method {
            Method::BasicQos { prefetch_size, prefetch_count, global } => {
                if prefetch_size != 0 {
                    let text = format!("prefetch_size!=0 ({prefetch_size})");
                    return Err(not_implemented(&text, ids));
                }
                self.set_prefetch(prefetch_count, global, around);
                around.output.method(self.number, &Method::BasicQosOk {});
                Ok(())
            }
            Method::BasicConsume { .. } => self.consume(method, ids, around),
            Method::BasicCancel { consumer_tag, no_wait } => {
                self.cancel(consumer_tag, no_wait, ids, around);
                Ok(())
            }
            Method::BasicGet { queue, no_ack } => self.get(queue, no_ack, ids, around),
            Method::BasicAck { delivery_tag, multiple } => {
                self.settle(ids, (delivery_tag, multiple), Outcome::Accept, around)
            }
            Method::BasicNack { delivery_tag, multiple, requeue } => {
                let outcome = match requeue {
                    true => Outcome::Requeue { failed: false },
                    false => Outcome::Reject { flagged: false },
                };
                self.settle(ids, (delivery_tag, multiple), outcome, around)
            }
            Method::BasicReject { delivery_tag, requeue } => {
                let outcome = match requeue {
                    true => Outcome::Requeue { failed: true },
                    false => Outcome::Reject { flagged: true },
                };
                self.settle(ids, (delivery_tag, false), outcome, around)
            }
            Method::BasicRecover { requeue: true } => {
                self.recover(around);
                around.output.method(self.number, &Method::BasicRecoverOk {});
                Ok(())
            }
            Method::BasicRecoverAsync { requeue: true } => {
                self.recover(around);
                Ok(())
            }
            Method::BasicRecover { .. } | Method::BasicRecoverAsync { .. } => {
                Err(not_implemented("requeue=false", ids))
            }
            _ => Err(unimplemented_method(ids)),
        }
    }

    fn recover(&mut self, around: &mut Around<'_>) {
        let consumed = self.requeue_all(false, around.requests);
        self.give_credit(consumed, around);
    }

    fn set_prefetch(&mut self, prefetch: u16, global: bool, around: &mut Around<'_>) {
        if global {
            if self.limit.set(prefetch) {
                self.resume(around);
            }
            return;
        }
        self.prefetch = prefetch;
        if !around.client.changes_prefetch_live {
            return;
        }
        for &consumer in &self.consumers {
            if around.consumers.get(consumer).is_some_and(|it| !it.automatic)
                && let Some((queue, false)) = around.consumers.place(consumer)
            {
                let prefetch = prefetch.into();
                around.requests.push(Request::Prefetch { consumer, queue, prefetch });
            }
        }
    }

    fn get(
        &mut self,
        queue: Name,
        automatic: bool,
        ids: MethodIds,
        around: &mut Around<'_>,
    ) -> Handled {
        let queue = self.queue_or_last(queue, ids)?;
        if !automatic && model::limits::CHANNEL_UNSETTLED_MAX <= self.unsettled.len() {
            let text = "too many deliveries are not settled";
            return Err(Reply::new(ReplyCode::ResourceError, text, ids));
        }
        around.requests.push(Request::Fetch { channel: self.id, queue, automatic });
        self.wait(ids, false, Awaited::Fetched);
        Ok(())
    }

    fn consumer_of(&self, tag: &str, around: &mut Around<'_>) -> Option<ConsumerNumber> {
        let is_it = |number: &&ConsumerNumber| {
            around.consumers.get(**number).is_some_and(|it| it.tag.as_str() == tag)
        };
        self.consumers.iter().find(is_it).copied()
    }

    fn consume(&mut self, method: Method, ids: MethodIds, around: &mut Around<'_>) -> Handled {
        let Method::BasicConsume {
            queue,
            consumer_tag,
            no_local: _,
            no_ack,
            exclusive,
            no_wait,
            arguments,
        } = method
        else {
            return Err(unimplemented_method(ids));
        };
        let tag = match consumer_tag.is_empty() {
            true => around.naming.unique("amq.ctag-"),
            false => consumer_tag,
        };
        let is_reply_tag = self.reply.as_ref().is_some_and(|it| it.tag == tag);
        if is_reply_tag || self.consumer_of(&tag, around).is_some() {
            let text = format!("attempt to reuse consumer tag '{tag}'");
            return Err(Reply::new(ReplyCode::NotAllowed, &text, ids));
        }
        if queue.as_str() == REPLY_TO {
            return self.consume_replies(tag, no_ack, no_wait, ids, around);
        }
        let queue = self.queue_or_last(queue, ids)?;
        self.check_consumers(ids, around)?;
        let number = around.consumers.add(self.number, self.id, tag.clone(), no_ack);
        let Some(consumer) = number else {
            let text = "consumer numbers of the connection are used up";
            return Err(Reply::new(ReplyCode::ResourceError, text, ids));
        };
        self.consumers.push(consumer);
        around.requests.push(Request::Subscribe(Subscribe {
            channel: self.id,
            consumer,
            queue,
            tag,
            automatic: no_ack,
            exclusive,
            prefetch: if no_ack { 0 } else { self.prefetch.into() },
            shared: (!no_ack).then(|| self.limit.credit()),
            arguments,
        }));
        self.wait(ids, no_wait, Awaited::Subscribed(consumer));
        Ok(())
    }

    fn check_consumers(&self, ids: MethodIds, around: &Around<'_>) -> Handled {
        let max = around.config.consumers_per_channel_max;
        if max <= self.consumers.len() {
            return Err(Reply::refused(&Refusal::ConsumerLimit(max as u64), ids));
        }
        let max = around.config.consumers_per_connection_max;
        if max <= around.consumers.len() {
            let text = format!("reached maximum ({max}) of consumers per connection");
            return Err(Reply::new(ReplyCode::NotAllowed, &text, ids));
        }
        Ok(())
    }

    fn consume_replies(
        &mut self,
        tag: Name,
        no_ack: bool,
        no_wait: bool,
        ids: MethodIds,
        around: &mut Around<'_>,
    ) -> Handled {
        if self.reply.is_some() {
            return Err(precondition("reply consumer already set", ids));
        }
        if !no_ack {
            return Err(precondition("reply consumer cannot acknowledge", ids));
        }
        around.requests.push(Request::OpenReply { channel: self.id });
        self.wait(ids, no_wait, Awaited::ReplyOpened { tag });
        Ok(())
    }

    fn cancel(&mut self, tag: Name, no_wait: bool, ids: MethodIds, around: &mut Around<'_>) {
        let channel = self.id;
        let found = self.consumer_of(&tag, around);
        if let Some(consumer) = found
            && let Some((queue, _)) = around.consumers.place(consumer)
        {
            around.requests.push(Request::Unsubscribe { channel, consumer, queue });
            self.wait(ids, no_wait, Awaited::Unsubscribed(consumer, tag));
            return;
        }
        if self.reply.as_ref().is_some_and(|it| it.tag == tag) {
            self.reply = None;
            around.requests.push(Request::CloseReply { channel });
        }
        if !no_wait {
            around.output.method(self.number, &Method::BasicCancelOk { consumer_tag: tag });
        }
    }

    fn mode_method(&mut self, method: Method, ids: MethodIds, around: &mut Around<'_>) -> Handled {
        match method {
            Method::ConfirmSelect { no_wait } => {
                match &self.mode {
                    Mode::Plain => self.mode = Mode::Confirm(Confirms::new()),
                    Mode::Confirm(_) => {}
                    Mode::Transaction(_) => {
                        return Err(precondition("cannot switch from tx to confirm mode", ids));
                    }
                }
                if !no_wait {
                    around.output.method(self.number, &Method::ConfirmSelectOk {});
                }
                Ok(())
            }
            Method::TxSelect {} => {
                match &self.mode {
                    Mode::Plain => self.mode = Mode::Transaction(Transaction::default()),
                    Mode::Transaction(_) => {}
                    Mode::Confirm(_) => {
                        return Err(precondition("cannot switch from confirm to tx mode", ids));
                    }
                }
                around.output.method(self.number, &Method::TxSelectOk {});
                Ok(())
            }
            Method::TxCommit {} => self.commit(ids, around),
            Method::TxRollback {} => self.rollback(ids, around),
            _ => Err(unimplemented_method(ids)),
        }
    }

    fn commit(&mut self, ids: MethodIds, around: &mut Around<'_>) -> Handled {
        let Mode::Transaction(transaction) = &mut self.mode else {
            return Err(precondition("channel is not transactional", ids));
        };
        let (requests, settled) = transaction.take();
        if requests.is_empty() {
            around.output.method(self.number, &Method::TxCommitOk {});
        } else {
            around.requests.push(Request::Commit { channel: self.id, requests });
            self.wait(ids, false, Awaited::Committed(settled));
        }
        Ok(())
    }

    fn rollback(&mut self, ids: MethodIds, around: &mut Around<'_>) -> Handled {
        let Mode::Transaction(transaction) = &mut self.mode else {
            return Err(precondition("channel is not transactional", ids));
        };
        let (_, settled) = transaction.take();
        self.unsettled.restore(settled);
        around.output.method(self.number, &Method::TxRollbackOk {});
        Ok(())
    }
}

/// The client sent what only the broker sends, or what does not belong on this channel.
pub(crate) fn unimplemented_method(ids: MethodIds) -> Reply {
    Reply::new(ReplyCode::CommandInvalid, "unimplemented method", ids)
}
