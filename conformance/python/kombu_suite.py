"""kombu over py-amqp: what Celery stands on."""

import socket

import amqp
import kombu

from checks import DEADLINE_S, URL, check, equal, unique

CLIENT = "kombu"


def take(connection, consumer, count):
    """Runs the consumer until `count` messages came; they are not acked."""
    found = []
    consumer.callbacks = [lambda body, message: found.append((body, message))]
    with consumer:
        while len(found) < count:
            connection.drain_events(timeout=DEADLINE_S)
    return found


def basics(connection, channel, exchange, queue):
    producer = kombu.Producer(channel, exchange, routing_key="key")
    with check(CLIENT, "publishes with confirms, consumes in order, acks"):
        for index in range(20):
            producer.publish({"index": index}, delivery_mode=2)
        found = take(connection, kombu.Consumer(channel, queue, no_ack=False), 20)
        equal([{"index": it} for it in range(20)], [body for body, _ in found])
        for _, message in found:
            message.ack()
    with check(CLIENT, "requeue brings the message again, reject does not"):
        producer.publish("again")
        take(connection, kombu.Consumer(channel, queue), 1)[0][1].requeue()
        message = take(connection, kombu.Consumer(channel, queue), 1)[0][1]
        equal(True, message.delivery_info["redelivered"])
        message.reject()
        equal(None, queue.get())
    with check(CLIENT, "an unroutable mandatory message is returned"):
        returned = []
        with kombu.Connection(URL, transport_options={"confirm_publish": True}) as other:
            lost = kombu.Producer(other.channel(), exchange,
                                  on_return=lambda *arguments: returned.append(arguments))
            lost.publish("lost", routing_key="nowhere", mandatory=True)
            while not returned:
                other.drain_events(timeout=DEADLINE_S)
        error, name, key, message = returned[0]
        equal((312, "NO_ROUTE", exchange.name, "nowhere"),
              (error.reply_code, error.reply_text, name, key))


def refusals(connection, queue):
    with check(CLIENT, "a different redeclaration is refused with 406 and the connection goes on"):
        channel = connection.channel()
        try:
            channel.queue_declare(queue.name, durable=True, auto_delete=True)
        except amqp.exceptions.PreconditionFailed as error:
            equal(406, error.reply_code)
            if "inequivalent arg 'auto_delete'" not in error.reply_text:
                raise AssertionError(error.reply_text)
        else:
            raise AssertionError("the broker did not refuse")
        channel = connection.channel()
        equal(queue.name, channel.queue_declare(queue.name, durable=True, auto_delete=False).queue)
        channel.close()


def patterns(connection):
    with check(CLIENT, "a pidbox like Celery's: broadcast to transient queues, replies collected"):
        exchange = kombu.Exchange(unique(CLIENT, "pidbox"), "fanout", durable=False, auto_delete=True)
        reply = kombu.Exchange(unique(CLIENT, "reply"), "direct", durable=False, auto_delete=True)
        channel = connection.channel()
        workers = [kombu.Queue(unique(CLIENT, "pidbox"), exchange, auto_delete=True, durable=False,
                               expires=10, message_ttl=300) for _ in range(2)]
        replies = kombu.Queue(unique(CLIENT, "reply"), reply, routing_key="me", auto_delete=True,
                              durable=False, expires=10)
        for it in [*workers, replies]:
            it(channel).declare()
        kombu.Producer(channel, exchange).publish({"method": "ping"})
        for it in workers:
            body, message = take(connection, kombu.Consumer(channel, it, no_ack=True), 1)[0]
            equal({"method": "ping"}, body)
            kombu.Producer(channel, reply, routing_key="me").publish({"ok": "pong"})
        found = take(connection, kombu.Consumer(channel, replies, no_ack=True), 2)
        equal([{"ok": "pong"}] * 2, [body for body, _ in found])
        channel.close()
    with check(CLIENT, "prefetch changes while a consumer runs"):
        channel = connection.channel()
        queue = kombu.Queue(unique(CLIENT, "qos"), durable=True)(channel)
        queue.declare()
        consumer, found = kombu.Consumer(channel, queue), []
        consumer.callbacks = [lambda body, message: found.append(message)]
        consumer.qos(prefetch_count=2)
        for index in range(5):
            kombu.Producer(channel).publish(index, routing_key=queue.name)
        with consumer:
            while len(found) < 2:
                connection.drain_events(timeout=DEADLINE_S)
            found[0].ack()
            while len(found) < 3:
                connection.drain_events(timeout=DEADLINE_S)
            try:
                connection.drain_events(timeout=0.3)
            except socket.timeout:
                pass
            equal(3, len(found))
            for message in found[1:]:
                message.ack()
            while len(found) < 5:
                connection.drain_events(timeout=DEADLINE_S)
            for message in found[3:]:
                message.ack()
        queue.delete()
        channel.close()
    with check(CLIENT, "a priority queue gives the most urgent first"):
        channel = connection.channel()
        queue = kombu.Queue(unique(CLIENT, "priority"), durable=True, max_priority=9)(channel)
        queue.declare()
        producer = kombu.Producer(channel)
        for priority in (0, 5, 9, 5):
            producer.publish(priority, routing_key=queue.name, priority=priority)
        equal([9, 5, 5, 0], [queue.get(no_ack=True).payload for _ in range(4)])
        queue.delete()
        channel.close()


def rpc(connection):
    with check(CLIENT, "a remote call is answered through direct reply-to"):
        channel = connection.channel()
        queue = kombu.Queue(unique(CLIENT, "rpc"), durable=False, exclusive=True)(channel)
        queue.declare()
        producer, replies = kombu.Producer(channel), []
        channel.basic_consume("amq.rabbitmq.reply-to", no_ack=True, callback=replies.append)
        producer.publish(6, routing_key=queue.name, reply_to="amq.rabbitmq.reply-to", correlation_id="7")
        request = queue.get(no_ack=True)
        producer.publish(request.payload * 7, routing_key=request.properties["reply_to"],
                         correlation_id=request.properties["correlation_id"])
        while not replies:
            connection.drain_events(timeout=DEADLINE_S)
        equal(("7", b"42"), (replies[0].properties["correlation_id"], as_bytes(replies[0].body)))
        channel.close()


def as_bytes(body):
    return body.encode() if isinstance(body, str) else bytes(body)


def main():
    with check(CLIENT, "connects and declares"):
        connection = kombu.Connection(URL, transport_options={"confirm_publish": True})
        connection.connect()
        channel = connection.channel()
        exchange = kombu.Exchange(unique(CLIENT, "exchange"), "topic", durable=True)(channel)
        exchange.declare()
        queue = kombu.Queue(unique(CLIENT, "queue"), exchange, routing_key="#.key", durable=True)(channel)
        queue.declare()
    basics(connection, channel, exchange, queue)
    refusals(connection, queue)
    patterns(connection)
    rpc(connection)
    with check(CLIENT, "deletes and closes"):
        queue.delete()
        exchange.delete()
        connection.close()


main()
