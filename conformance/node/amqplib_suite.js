// amqplib for Node: the promise interface, a confirm channel, errors that close one channel only.
'use strict';

const assert = require('node:assert/strict');
const { randomUUID } = require('node:crypto');
const { once } = require('node:events');
const amqp = require('amqplib');

const URL = process.env.AMQP_URL || 'amqp://guest:guest@127.0.0.1:5672/%2F';
const DEADLINE_MS = 20000;
const unique = (subject) => `conformance.amqplib.${subject}.${randomUUID().slice(0, 8)}`;

/** Prints `ok` or `FAIL`; the first failure ends the program. */
async function check(name, action) {
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('the deadline passed')), DEADLINE_MS);
  });
  try {
    await Promise.race([action(), deadline]);
  } catch (error) {
    console.log(`FAIL amqplib: ${name}: ${String(error.message).replaceAll('\n', ' ')}`);
    console.error(error);
    process.exit(1);
  }
  clearTimeout(timer);
  console.log(`ok amqplib: ${name}`);
}

/** The next `count` deliveries of a queue, not acked unless `noAck`. */
async function take(channel, queue, count, options = {}) {
  const found = [];
  let full;
  const isFull = new Promise((resolve) => { full = resolve; });
  const { consumerTag } = await channel.consume(queue, (message) => {
    found.push(message);
    if (found.length === count) full();
  }, options);
  await isFull;
  await channel.cancel(consumerTag);
  return found;
}

const texts = (messages) => messages.map((it) => it.content.toString());

async function basics(channel, exchange, queue) {
  await check('publishes with confirms, consumes in order, acks many at once', async () => {
    for (let index = 0; index < 20; index += 1) {
      channel.publish(exchange, 'key', Buffer.from(`${index}`), { persistent: true });
    }
    await channel.waitForConfirms();
    const found = await take(channel, queue, 20);
    assert.deepEqual(texts(found), [...Array(20).keys()].map(String));
    channel.ack(found.at(-1), true);
    assert.equal((await channel.checkQueue(queue)).messageCount, 0);
  });
  await check('nack with requeue brings the message again, without it does not', async () => {
    channel.publish(exchange, 'key', Buffer.from('again'));
    const [first] = await take(channel, queue, 1);
    assert.equal(first.fields.redelivered, false);
    channel.nack(first, false, true);
    const [second] = await take(channel, queue, 1);
    assert.equal(second.fields.redelivered, true);
    channel.nack(second, false, false);
    assert.equal(await channel.get(queue), false);
  });
  await check('an unroutable mandatory message is returned before its confirm', async () => {
    const events = [];
    channel.once('return', (message) => events.push(message));
    channel.publish(exchange, 'nowhere', Buffer.from('lost'), { mandatory: true }, () => events.push('confirmed'));
    await channel.waitForConfirms();
    assert.equal(events.length, 2);
    assert.equal(events[0].fields.replyCode, 312);
    assert.equal(events[0].fields.replyText, 'NO_ROUTE');
    assert.equal(events[1], 'confirmed');
  });
  await check('properties and headers come back as they were sent', async () => {
    const headers = { text: 'å', small: 1, large: 2 ** 40, real: 1.5, yes: true, list: [1, 'x', { y: null }] };
    const sent = { headers, contentType: 'text/plain', correlationId: 'c', messageId: 'm', priority: 2, type: 't' };
    channel.publish(exchange, 'key', Buffer.alloc(300000, 7), sent);
    await channel.waitForConfirms();
    const message = await channel.get(queue, { noAck: true });
    assert.deepEqual(message.properties.headers, headers);
    for (const key of ['contentType', 'correlationId', 'messageId', 'priority', 'type']) {
      assert.equal(message.properties[key], sent[key]);
    }
    assert.ok(message.content.equals(Buffer.alloc(300000, 7)));
  });
}

async function refused(connection, pattern, action) {
  const channel = await connection.createChannel();
  const closed = once(channel, 'error');
  await assert.rejects(action(channel), pattern);
  await closed;
}

async function refusals(connection, queue) {
  await check('a different redeclaration is refused with 406 and the connection goes on', async () => {
    await refused(connection, /406.*PRECONDITION.FAILED.*inequivalent arg 'x-message-ttl'/, (it) =>
      it.assertQueue(queue, { durable: true, messageTtl: 1000 }));
    const channel = await connection.createChannel();
    await channel.assertQueue(queue, { durable: true });
    await channel.close();
  });
  await check('checkQueue of an unknown queue closes its channel with 404', async () => {
    await refused(connection, /404.*NOT.FOUND/, (it) => it.checkQueue('gone'));
  });
}

async function workQueue(connection) {
  await check('a work queue shares its messages among consumers with prefetch 1', async () => {
    const queue = unique('work');
    const channels = [await connection.createChannel(), await connection.createChannel()];
    await channels[0].assertQueue(queue, { durable: true });
    const taken = [[], []];
    let full;
    const isFull = new Promise((resolve) => { full = resolve; });
    for (const [index, channel] of channels.entries()) {
      await channel.prefetch(1);
      await channel.consume(queue, (message) => {
        if (message === null) return; // The queue was deleted.
        taken[index].push(message.content.toString());
        channel.ack(message);
        if (taken[0].length + taken[1].length === 10) full();
      });
    }
    for (let index = 0; index < 10; index += 1) channels[0].sendToQueue(queue, Buffer.from(`${index}`));
    await isFull;
    assert.equal(new Set(taken.flat()).size, 10);
    assert.ok(taken[0].length > 0 && taken[1].length > 0, 'one worker got everything');
    await channels[0].deleteQueue(queue);
    for (const channel of channels) await channel.close();
  });
}

async function patterns(channel) {
  await check('a fanout exchange gives every queue a copy', async () => {
    const logs = unique('logs');
    await channel.assertExchange(logs, 'fanout', { durable: false });
    const queues = [await channel.assertQueue('', { exclusive: true }), await channel.assertQueue('', { exclusive: true })];
    for (const { queue } of queues) await channel.bindQueue(queue, logs, '');
    channel.publish(logs, '', Buffer.from('news'));
    for (const { queue } of queues) assert.deepEqual(texts(await take(channel, queue, 1, { noAck: true })), ['news']);
    await channel.deleteExchange(logs);
  });
  await check('a topic exchange routes by words, also from exchange to exchange', async () => {
    const [from, to] = [unique('from'), unique('to')];
    await channel.assertExchange(from, 'topic', { durable: false });
    await channel.assertExchange(to, 'topic', { durable: false });
    await channel.bindExchange(to, from, 'lazy.#');
    const { queue } = await channel.assertQueue('', { exclusive: true });
    await channel.bindQueue(queue, to, '*.*.rabbit');
    for (const key of ['lazy.brown.rabbit', 'quick.brown.rabbit', 'lazy.rabbit']) channel.publish(from, key, Buffer.from(key));
    await channel.waitForConfirms();
    assert.equal((await channel.checkQueue(queue)).messageCount, 1);
    assert.deepEqual(texts(await take(channel, queue, 1, { noAck: true })), ['lazy.brown.rabbit']);
    await channel.deleteExchange(from);
    await channel.deleteExchange(to);
  });
  await check('a remote call is answered through direct reply-to', async () => {
    const { queue } = await channel.assertQueue('', { exclusive: true });
    await channel.consume(queue, (message) => {
      const { replyTo, correlationId } = message.properties;
      channel.sendToQueue(replyTo, Buffer.from(`${Number(message.content) * 2}`), { correlationId });
      channel.ack(message);
    });
    let answer;
    const answered = new Promise((resolve) => { answer = resolve; });
    await channel.consume('amq.rabbitmq.reply-to', answer, { noAck: true });
    channel.sendToQueue(queue, Buffer.from('21'), { replyTo: 'amq.rabbitmq.reply-to', correlationId: '7' });
    const reply = await answered;
    assert.deepEqual([reply.properties.correlationId, reply.content.toString()], ['7', '42']);
  });
}

async function main() {
  let connection;
  let channel;
  const [exchange, queue] = [unique('exchange'), unique('queue')];
  await check('connects and declares', async () => {
    connection = await amqp.connect(URL);
    channel = await connection.createConfirmChannel();
    await channel.assertExchange(exchange, 'direct', { durable: true });
    await channel.assertQueue(queue, { durable: true });
    await channel.bindQueue(queue, exchange, 'key');
  });
  await basics(channel, exchange, queue);
  await refusals(connection, queue);
  await workQueue(connection);
  await patterns(channel);
  await check('deletes and closes', async () => {
    await channel.deleteQueue(queue);
    await channel.deleteExchange(exchange);
    await connection.close();
  });
}

main();
