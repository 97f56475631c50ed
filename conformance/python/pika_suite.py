"""Pika, blocking connection: the operations of the tutorials and the errors around them."""

import datetime

import pika
from pika.exceptions import ChannelClosedByBroker, UnroutableError

from checks import DEADLINE_S, URL, check, equal, unique

CLIENT = "pika"


def drain(channel, queue, count, **options):
    """The next `count` deliveries of a queue, not acked."""
    found = []
    for method, properties, body in channel.consume(queue, inactivity_timeout=DEADLINE_S, **options):
        if method is None:
            raise AssertionError(f"{len(found)} of {count} deliveries came")
        found.append((method, properties, body))
        if len(found) == count:
            break
    return found


def refused(connection, code, text, action):
    """Runs `action` on a channel of its own, which the broker must close."""
    channel = connection.channel()
    try:
        action(channel)
    except ChannelClosedByBroker as error:
        equal(code, error.reply_code)
        if text not in error.reply_text:
            raise AssertionError(f"{text!r} is not in {error.reply_text!r}")
        return
    raise AssertionError(f"the broker did not refuse with {code}")


def declare_and_publish(channel, exchange, queue):
    with check(CLIENT, "declares an exchange, a queue and a binding"):
        channel.exchange_declare(exchange, "direct", durable=True)
        equal(queue, channel.queue_declare(queue, durable=True).method.queue)
        channel.queue_bind(queue, exchange, "key")
        channel.queue_declare(queue, durable=True)
        name = channel.queue_declare("", exclusive=True).method.queue
        equal("amq.gen-", name[:8])
    with check(CLIENT, "publishes with confirms"):
        channel.confirm_delivery()
        for index in range(20):
            channel.basic_publish(exchange, "key", b"message %d" % index)
        equal(20, channel.queue_declare(queue, passive=True).method.message_count)
    with check(CLIENT, "consumes in order and acks, singly and many at once"):
        found = drain(channel, queue, 20)
        equal([b"message %d" % it for it in range(20)], [body for _, _, body in found])
        channel.basic_ack(found[0][0].delivery_tag)
        channel.basic_ack(found[-1][0].delivery_tag, multiple=True)
        channel.cancel()
        equal(0, channel.queue_declare(queue, passive=True).method.message_count)


def settle(channel, exchange, queue):
    with check(CLIENT, "nack with requeue brings the message again, marked redelivered"):
        channel.basic_publish(exchange, "key", b"again")
        first = drain(channel, queue, 1)[0][0]
        equal(False, first.redelivered)
        channel.basic_nack(first.delivery_tag, requeue=True)
        second, _, body = drain(channel, queue, 1)[0]
        equal((True, b"again"), (second.redelivered, body))
        channel.basic_ack(second.delivery_tag)
        channel.cancel()
    with check(CLIENT, "nack without requeue moves the message to the dead-letter exchange"):
        dead, grave = unique(CLIENT, "dead"), unique(CLIENT, "grave")
        channel.queue_declare(grave, exclusive=True)
        channel.queue_declare(dead, exclusive=True, arguments={
            "x-dead-letter-exchange": "", "x-dead-letter-routing-key": grave})
        channel.basic_publish("", dead, b"dead")
        method = drain(channel, dead, 1)[0][0]
        channel.basic_nack(method.delivery_tag, requeue=False)
        channel.cancel()
        method, properties, body = drain(channel, grave, 1, auto_ack=True)[0]
        equal(b"dead", body)
        death = properties.headers["x-death"][0]
        equal((dead, "rejected", 1), (death["queue"], death["reason"], death["count"]))
        channel.cancel()
    with check(CLIENT, "an expired message moves to the dead-letter exchange"):
        channel.basic_publish("", dead, b"old", pika.BasicProperties(expiration="20"))
        _, properties, body = drain(channel, grave, 1, auto_ack=True)[0]
        equal((b"old", "expired"), (body, properties.headers["x-death"][0]["reason"]))
        channel.cancel()


def get_and_purge(channel, exchange, queue):
    with check(CLIENT, "gets single messages, finds an empty queue, purges"):
        for body in (b"1", b"2", b"3"):
            channel.basic_publish(exchange, "key", body)
        method, _, body = channel.basic_get(queue, auto_ack=True)
        equal((b"1", 2), (body, method.message_count))
        equal(2, channel.queue_purge(queue).method.message_count)
        equal((None, None, None), channel.basic_get(queue))


def content(channel, exchange, queue):
    with check(CLIENT, "properties and header tables come back as they were sent"):
        when = datetime.datetime(2024, 2, 29, 12, 0, 0, tzinfo=datetime.timezone.utc)
        headers = {
            "text": "å", "long": 2**40, "negative": -7, "true": True, "bytes": b"\x00\xff",
            "when": when, "list": [1, "two", {"three": 3}], "table": {"nested": {"deep": 1}},
            "nothing": None,
        }
        sent = pika.BasicProperties(
            content_type="application/json", content_encoding="utf-8", headers=headers,
            delivery_mode=2, priority=5, correlation_id="c", reply_to="r", expiration="60000",
            message_id="m", timestamp=1700000000, type="t", user_id="guest", app_id="a")
        channel.basic_publish(exchange, "key", b"{}", sent)
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        equal(sent.__dict__, properties.__dict__)
    with check(CLIENT, "bodies of no byte and of many frames arrive whole"):
        for body in (b"", b"x", bytes(range(256)) * 4096):
            channel.basic_publish(exchange, "key", body)
            equal(body, channel.basic_get(queue, auto_ack=True)[2])


def refusals(connection, channel, exchange, queue):
    with check(CLIENT, "an unroutable mandatory message is returned"):
        try:
            channel.basic_publish(exchange, "nowhere", b"lost", mandatory=True)
        except UnroutableError as error:
            returned = error.messages[0]
            equal((312, "NO_ROUTE", b"lost"),
                  (returned.method.reply_code, returned.method.reply_text, returned.body))
        else:
            raise AssertionError("nothing was returned")
    with check(CLIENT, "a different redeclaration is refused with 406 and the connection goes on"):
        text = f"PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{queue}'"
        refused(connection, 406, text, lambda it: it.queue_declare(queue, durable=False))
        other = connection.channel()
        equal(queue, other.queue_declare(queue, durable=True).method.queue)
        other.close()
    with check(CLIENT, "unknown names are refused with 404, reserved ones with 403"):
        refused(connection, 404, "NOT_FOUND - no queue 'gone'",
                lambda it: it.queue_declare("gone", passive=True))
        refused(connection, 404, "NOT_FOUND - no exchange 'gone'",
                lambda it: it.exchange_declare("gone", passive=True))
        refused(connection, 403, "ACCESS_REFUSED", lambda it: it.queue_declare("amq.mine"))
    with check(CLIENT, "an unknown delivery tag is refused with 406"):
        def ack_twice(it):
            it.basic_ack(99)
            it.queue_declare(queue, passive=True)
        refused(connection, 406, "PRECONDITION_FAILED - unknown delivery tag 99", ack_twice)


def patterns(connection):
    with check(CLIENT, "a work queue shares its messages among consumers with prefetch 1"):
        workers = [connection.channel(), connection.channel()]
        queue = unique(CLIENT, "work")
        workers[0].queue_declare(queue, durable=True)
        taken = {0: [], 1: []}
        for index, worker in enumerate(workers):
            worker.basic_qos(prefetch_count=1)
            def work(channel, method, properties, body, index=index):
                taken[index].append(body)
                channel.basic_ack(method.delivery_tag)
            worker.basic_consume(queue, work)
        for index in range(10):
            workers[0].basic_publish("", queue, b"%d" % index)
        wait(connection, lambda: len(taken[0]) + len(taken[1]) == 10)
        equal(10, len({*taken[0], *taken[1]}))
        if not taken[0] or not taken[1]:
            raise AssertionError(f"one worker got everything: {taken}")
        workers[0].queue_delete(queue)
        for worker in workers:
            worker.close()
    with check(CLIENT, "a fanout exchange gives every queue a copy"):
        logs = unique(CLIENT, "logs")
        channel = connection.channel()
        channel.exchange_declare(logs, "fanout")
        queues = [channel.queue_declare("", exclusive=True).method.queue for _ in range(2)]
        for queue in queues:
            channel.queue_bind(queue, logs)
        channel.basic_publish(logs, "", b"news")
        for queue in queues:
            equal(b"news", drain(channel, queue, 1, auto_ack=True)[0][2])
            channel.cancel()
        channel.exchange_delete(logs)
        channel.close()
    topics(connection)


def topics(connection):
    with check(CLIENT, "a topic exchange routes by words"):
        exchange = unique(CLIENT, "topics")
        channel = connection.channel()
        channel.exchange_declare(exchange, "topic")
        expected = {"*.orange.*": ["a.orange.b"], "lazy.#": ["lazy", "lazy.x.y"], "#": None}
        keys = ["a.orange.b", "lazy", "lazy.x.y", "orange", ""]
        queues = {}
        for pattern in expected:
            queues[pattern] = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(queues[pattern], exchange, pattern)
        for key in keys:
            channel.basic_publish(exchange, key, key.encode())
        for pattern, queue in queues.items():
            wanted = keys if expected[pattern] is None else expected[pattern]
            found = drain(channel, queue, len(wanted), auto_ack=True)
            equal(wanted, [body.decode() for _, _, body in found])
            channel.cancel()
            equal(0, channel.queue_declare(queue, passive=True).method.message_count)
        channel.exchange_delete(exchange)
        channel.close()


def wait(connection, is_done):
    """Lets the connection work until something has happened, under the deadline."""
    limit = datetime.datetime.now() + datetime.timedelta(seconds=DEADLINE_S)
    while not is_done():
        if datetime.datetime.now() > limit:
            raise AssertionError("the deadline passed")
        connection.process_data_events(time_limit=0.1)


def rpc(connection):
    with check(CLIENT, "a remote call is answered through direct reply-to"):
        server, client = connection.channel(), connection.channel()
        queue = unique(CLIENT, "rpc")
        server.queue_declare(queue, exclusive=True)
        def answer(channel, method, properties, body):
            channel.basic_publish("", properties.reply_to, b"%d" % (int(body) ** 2),
                                  pika.BasicProperties(correlation_id=properties.correlation_id))
            channel.basic_ack(method.delivery_tag)
        server.basic_consume(queue, answer)
        replies = []
        client.basic_consume("amq.rabbitmq.reply-to",
                             lambda _c, _m, properties, body:
                             replies.append((properties.correlation_id, body)), auto_ack=True)
        for number in (7, 8):
            client.basic_publish("", queue, b"%d" % number, pika.BasicProperties(
                reply_to="amq.rabbitmq.reply-to", correlation_id=str(number)))
        wait(connection, lambda: len(replies) == 2)
        equal([("7", b"49"), ("8", b"64")], replies)
        server.close()
        client.close()


def transactions(connection):
    with check(CLIENT, "a transaction is visible after its commit only"):
        channel, watcher = connection.channel(), connection.channel()
        queue = unique(CLIENT, "tx")
        watcher.queue_declare(queue, durable=True)
        channel.tx_select()
        channel.basic_publish("", queue, b"no")
        channel.tx_rollback()
        channel.basic_publish("", queue, b"yes")
        equal(0, watcher.queue_declare(queue, passive=True).method.message_count)
        channel.tx_commit()
        equal(b"yes", watcher.basic_get(queue, auto_ack=True)[2])
        watcher.queue_delete(queue)
        channel.close()
        watcher.close()


def main():
    with check(CLIENT, "connects"):
        connection = pika.BlockingConnection(pika.URLParameters(URL))
        channel = connection.channel()
    exchange, queue = unique(CLIENT, "exchange"), unique(CLIENT, "queue")
    declare_and_publish(channel, exchange, queue)
    settle(channel, exchange, queue)
    get_and_purge(channel, exchange, queue)
    content(channel, exchange, queue)
    refusals(connection, channel, exchange, queue)
    patterns(connection)
    rpc(connection)
    transactions(connection)
    with check(CLIENT, "deletes and closes"):
        channel.basic_publish(exchange, "key", b"left")
        equal(1, channel.queue_delete(queue).method.message_count)
        channel.exchange_delete(exchange)
        connection.close()


main()
