"""R16: great numbers of channels, consumers, bindings, words and headers; what one message costs stays small."""

import statistics
import struct
import time

from wire import Client, frame, method, publish, short, table

CHANNELS = 2_047
CONSUMERS = 5_000
BINDINGS = 20_000
HEADERS = 255
PROBES = 200


def no_wait_bind(queue, exchange, key, arguments=b""):
    return method(1, 50, 20, b"\0\0" + short(queue) + short(exchange) + short(key) + b"\1" + table(arguments))


def declare_exchange(client, name, kind):
    client.ask(40, 10, b"\0\0" + short(name) + short(kind) + b"\0" + table(), 11)


def publish_ms(client, octets):
    """Median milliseconds of a publish and its confirm."""
    took = []
    for _ in range(PROBES):
        began = time.monotonic()
        client.publish_all(1, lambda _: octets)
        took.append((time.monotonic() - began) * 1000)
    return statistics.median(took)


def channels(client):
    client.socket.sendall(b"".join(method(it, 20, 10, b"\0") for it in range(2, CHANNELS + 1)))
    for _ in range(2, CHANNELS + 1):
        client.wait(20, 11)


def consumers(client, score):
    client.declare("crowded")
    per_channel = CONSUMERS // 500
    octets = []
    for channel in range(2, 502):
        for number in range(per_channel):
            tag = short(f"{channel}-{number}")
            octets.append(method(channel, 60, 20, b"\0\0" + short("crowded") + tag + b"\x02" + table()))
    client.socket.sendall(b"".join(octets))
    for _ in octets:
        client.wait(60, 21)
    began = time.monotonic()
    client.socket.sendall(b"".join(publish("", "crowded", b"x", persistent=False) for _ in range(CONSUMERS)))
    tags = set()
    for _ in range(CONSUMERS):
        _, payload = client.wait(60, 60)
        tags.add(payload[1:1 + payload[0]])
    took = time.monotonic() - began
    score.check(len(tags) == CONSUMERS and took < 20,
                f"explosion: {CONSUMERS} consumers of one queue had one message each, {took:.2f} s")


def bindings(client, score):
    client.declare("bound")
    declare_exchange(client, "topics", "topic")
    small = publish_ms(client, publish("topics", "nobody.wants.this", b"x", persistent=False))
    keys = (f"a{it}.*.#.z{it}" for it in range(BINDINGS))
    client.socket.sendall(b"".join(no_wait_bind("bound", "topics", it) for it in keys))
    client.bind("bound", "topics")
    large = publish_ms(client, publish("topics", "nobody.wants.this", b"x", persistent=False))
    score.check(large < 1 + 3 * small, f"explosion: {BINDINGS} bindings, a route takes {large:.2f} ms, {small:.2f} ms without")
    declare_exchange(client, "words", "topic")
    for pattern in ("#.#.#.#", "#.a.#.a.#.a.#", "*.#.*.#.b", ".".join(["#"] * 100)):
        client.socket.sendall(no_wait_bind("bound", "words", pattern))
    long = publish_ms(client, publish("words", ".".join(["a"] * 127), b"x", persistent=False))
    score.check(long < 20 + 3 * small, f"explosion: 127 words against patterns full of #, {long:.2f} ms")


def headers(client, score):
    declare_exchange(client, "labels", "headers")
    pairs = b"".join(short(f"header-{it}") + b"S" + struct.pack(">I", 1) + b"v" for it in range(HEADERS))
    client.socket.sendall(no_wait_bind("bound", "labels", "", short("x-match") + b"S" + struct.pack(">I", 3) + b"all" + pairs))
    head = struct.pack(">H", 0) + short("labels") + short("") + b"\0"
    properties = struct.pack(">HHQH", 60, 0, 1, 0x2000) + table(pairs)
    octets = method(1, 60, 40, head) + frame(2, 1, properties) + frame(3, 1, b"x")
    before = client.declare("bound", passive=True)
    took = publish_ms(client, octets)
    score.check(client.declare("bound", passive=True) == before + PROBES and took < 20,
                f"explosion: a message with {HEADERS} headers matches all of them, {took:.2f} ms")


def explosion(broker, score):
    broker.start()
    client = Client(broker.port, timeout=60).login()
    client.confirms()
    channels(client)
    score.check(True, f"explosion: {CHANNELS} channels on one connection")
    bindings(client, score)
    headers(client, score)
    consumers(client, score)
    client.close()
    broker.stop()
