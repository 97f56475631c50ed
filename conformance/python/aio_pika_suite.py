"""aio-pika: the same broker through asyncio, with publisher confirms by default."""

import asyncio

import aio_pika
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.exceptions import ChannelPreconditionFailed, DeliveryError

from checks import DEADLINE_S, URL, check, equal, unique

CLIENT = "aio-pika"


async def take(queue, count):
    """The next `count` deliveries, not acked."""
    found = []
    async with asyncio.timeout(DEADLINE_S):
        async with queue.iterator() as deliveries:
            async for delivery in deliveries:
                found.append(delivery)
                if len(found) == count:
                    return found


async def basics(channel, exchange, queue):
    with check(CLIENT, "publishes with confirms, consumes in order, acks"):
        for index in range(20):
            await exchange.publish(Message(b"%d" % index, delivery_mode=DeliveryMode.PERSISTENT), "key")
        found = await take(queue, 20)
        equal([b"%d" % it for it in range(20)], [it.body for it in found])
        for delivery in found:
            await delivery.ack()
    with check(CLIENT, "nack with requeue brings the message again, without it does not"):
        await exchange.publish(Message(b"again"), "key")
        first = (await take(queue, 1))[0]
        await first.nack(requeue=True)
        second = (await take(queue, 1))[0]
        equal((False, True), (first.redelivered, second.redelivered))
        await second.reject(requeue=False)
        equal(None, await queue.get(fail=False))
    with check(CLIENT, "an unroutable mandatory message is returned"):
        try:
            await exchange.publish(Message(b"lost"), "nowhere", mandatory=True)
        except DeliveryError as error:
            equal(b"lost", error.message.body)
        else:
            raise AssertionError("nothing was returned")
    with check(CLIENT, "headers and properties come back as they were sent"):
        sent = Message(b"{}", headers={"a": 1, "b": {"c": [1, "x"]}}, content_type="application/json",
                       correlation_id="c", message_id="m", priority=3, type="t")
        await exchange.publish(sent, "key")
        found = await queue.get(timeout=DEADLINE_S, no_ack=True)
        equal(sent.headers, dict(found.headers))
        equal(("application/json", "c", "m", 3, "t"), (found.content_type, found.correlation_id,
                                                        found.message_id, found.priority, found.type))


async def refusals(connection, queue):
    with check(CLIENT, "a different redeclaration is refused with 406 and the connection goes on"):
        channel = await connection.channel()
        try:
            await channel.declare_queue(queue.name, durable=True, arguments={"x-max-length": 5})
        except ChannelPreconditionFailed as error:
            if "inequivalent arg 'x-max-length'" not in str(error):
                raise AssertionError(str(error))
        else:
            raise AssertionError("the broker did not refuse")
        channel = await connection.channel()
        await channel.declare_queue(queue.name, durable=True)
        await channel.close()


async def work_queue(connection):
    with check(CLIENT, "a work queue shares its messages among consumers with prefetch 1"):
        name = unique(CLIENT, "work")
        taken, done = [], asyncio.Event()
        channels = [await connection.channel() for _ in range(2)]
        for index, channel in enumerate(channels):
            await channel.set_qos(prefetch_count=1)
            queue = await channel.declare_queue(name, auto_delete=True)
            async def work(delivery, index=index):
                taken.append((index, delivery.body))
                await delivery.ack()
                if len(taken) == 10:
                    done.set()
            await queue.consume(work)
        for index in range(10):
            await channels[0].default_exchange.publish(Message(b"%d" % index), name)
        await asyncio.wait_for(done.wait(), DEADLINE_S)
        equal({0, 1}, {index for index, _ in taken})
        for channel in channels:
            await channel.close()


async def patterns(channel):
    with check(CLIENT, "a fanout exchange gives every queue a copy"):
        logs = await channel.declare_exchange(unique(CLIENT, "logs"), ExchangeType.FANOUT, auto_delete=True)
        queues = [await channel.declare_queue(exclusive=True) for _ in range(2)]
        for it in queues:
            await it.bind(logs)
        await logs.publish(Message(b"news"), "")
        for it in queues:
            equal(b"news", (await it.get(timeout=DEADLINE_S, no_ack=True)).body)
    with check(CLIENT, "a topic exchange routes by words"):
        topics = await channel.declare_exchange(unique(CLIENT, "topics"), ExchangeType.TOPIC, auto_delete=True)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(topics, "*.orange.#")
        for key in ("a.orange", "orange", "a.orange.b.c", "a.b.orange"):
            await topics.publish(Message(key.encode()), key, mandatory=False)
        equal([b"a.orange", b"a.orange.b.c"], [it.body for it in await take(queue, 2)])
    with check(CLIENT, "a headers exchange routes by headers"):
        headers = await channel.declare_exchange(unique(CLIENT, "headers"), ExchangeType.HEADERS, auto_delete=True)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(headers, arguments={"x-match": "all", "colour": "red", "size": 2})
        await headers.publish(Message(b"no", headers={"colour": "red"}), "", mandatory=False)
        await headers.publish(Message(b"yes", headers={"colour": "red", "size": 2}), "")
        equal([b"yes"], [it.body for it in await take(queue, 1)])


async def rpc(channel):
    with check(CLIENT, "a remote call is answered through direct reply-to"):
        queue = await channel.declare_queue(exclusive=True)
        async def answer(delivery):
            await delivery.ack()
            reply = Message(delivery.body.upper(), correlation_id=delivery.correlation_id)
            await channel.default_exchange.publish(reply, delivery.reply_to, mandatory=False)
        await queue.consume(answer)
        replies = asyncio.get_running_loop().create_future()
        reply_to = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
        await reply_to.consume(replies.set_result, no_ack=True)
        call = Message(b"hello", reply_to="amq.rabbitmq.reply-to", correlation_id="7")
        await channel.default_exchange.publish(call, queue.name)
        reply = await asyncio.wait_for(replies, DEADLINE_S)
        equal((b"HELLO", "7"), (reply.body, reply.correlation_id))


async def main():
    with check(CLIENT, "connects and declares"):
        connection = await aio_pika.connect(URL, timeout=DEADLINE_S)
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.declare_exchange(unique(CLIENT, "exchange"), durable=True)
        queue = await channel.declare_queue(unique(CLIENT, "queue"), durable=True)
        await queue.bind(exchange, "key")
    await basics(channel, exchange, queue)
    await refusals(connection, queue)
    await work_queue(connection)
    await patterns(channel)
    await rpc(channel)
    with check(CLIENT, "deletes and closes"):
        await queue.delete(if_unused=False, if_empty=False)
        await exchange.delete()
        await connection.close()


asyncio.run(main())
