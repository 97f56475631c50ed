"""A blocking AMQP client of which we know each octet, for checks that no library would let us make."""

import socket
import struct


def short(text):
    octets = text.encode()
    return bytes([len(octets)]) + octets


def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(channel, class_id, method_id, arguments=b""):
    return frame(1, channel, struct.pack(">HH", class_id, method_id) + arguments)


def publish(exchange, key, body, persistent=True):
    head = struct.pack(">H", 0) + short(exchange) + short(key) + b"\0"
    properties = struct.pack(">HHQH", 60, 0, len(body), 0x1000) + (b"\2" if persistent else b"\1")
    parts = [method(1, 60, 40, head), frame(2, 1, properties)]
    parts += [frame(3, 1, body[at:at + 131000]) for at in range(0, len(body), 131000)]
    return b"".join(parts)


def table(pairs=b""):
    return struct.pack(">I", len(pairs)) + pairs


def number_pair(key, value):
    return short(key) + b"l" + struct.pack(">q", value)


class Client:
    """One connection, one channel, blocking."""

    def __init__(self, port, source=None, receive_buffer=None, timeout=30):
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect(("127.0.0.1", port))
        self.buffer = b""
        self.published = 0

    def login(self, heartbeat=0):
        self.socket.sendall(b"AMQP\0\0\x09\x01")
        self.wait(10, 10)
        response = b"\0guest\0guest"
        start_ok = struct.pack(">I", 0) + short("PLAIN") + struct.pack(">I", len(response))
        self.socket.sendall(method(0, 10, 11, start_ok + response + short("en_US")))
        self.wait(10, 30)
        tune_ok = method(0, 10, 31, struct.pack(">HIH", 2047, 131072, heartbeat))
        self.socket.sendall(tune_ok + method(0, 10, 40, short("/") + b"\0\0"))
        self.wait(10, 41)
        self.ask(20, 10, b"\0", 11)
        return self

    def receive(self):
        octets = self.socket.recv(1 << 16)
        if not octets:
            raise ConnectionError("closed by the server")
        self.buffer += octets

    def next(self):
        """Kind of frame and payload."""
        while True:
            if len(self.buffer) >= 7:
                kind, _, length = struct.unpack(">BHI", self.buffer[:7])
                if len(self.buffer) >= length + 8:
                    payload = self.buffer[7:7 + length]
                    self.buffer = self.buffer[length + 8:]
                    return kind, payload
            self.receive()

    def wait(self, class_id, *method_ids):
        """Skips to one of these methods; another close is an error."""
        while True:
            kind, payload = self.next()
            if kind != 1:
                continue
            found = struct.unpack(">HH", payload[:4])
            if found[0] == class_id and found[1] in method_ids:
                return found[1], payload[4:]
            if found in ((10, 50), (20, 40)):
                raise ConnectionError(f"closed: {payload[6:80]!r}")

    def ask(self, class_id, method_id, arguments, *answers):
        self.socket.sendall(method(1, class_id, method_id, arguments))
        return self.wait(class_id, *answers)

    def declare(self, queue, passive=False, arguments=b""):
        """How many messages wait in it."""
        head = b"\0\0" + short(queue) + bytes([3 if passive else 2])
        _, answer = self.ask(50, 10, head + table(arguments), 11)
        return struct.unpack(">I", answer[1 + answer[0]:5 + answer[0]])[0]

    def bind(self, queue, exchange):
        arguments = b"\0\0" + short(queue) + short(exchange) + short("") + b"\0"
        self.ask(50, 20, arguments + struct.pack(">I", 0), 21)

    def confirms(self):
        self.ask(85, 10, b"\0", 11)

    def consume(self, queue, automatic=False):
        arguments = b"\0\0" + short(queue) + short("") + bytes([2 if automatic else 0])
        self.ask(60, 20, arguments + struct.pack(">I", 0), 21)

    def confirmed(self, outstanding):
        """Waits for a confirm, and takes what it covers out of the set of tags; returns that."""
        _, payload = self.wait(60, 80)
        tag, multiple = struct.unpack(">QB", payload[:9])
        covered = {it for it in outstanding if it <= tag} if multiple else {tag}
        outstanding -= covered
        return covered

    def publish_all(self, count, octets_of, batch=200):
        """Publishes and waits for all confirms, in batches."""
        done = 0
        while done < count:
            number = min(batch, count - done)
            self.socket.sendall(b"".join(octets_of(done + it) for it in range(number)))
            outstanding = set(range(self.published + 1, self.published + number + 1))
            self.published += number
            done += number
            while outstanding:
                self.confirmed(outstanding)

    def get(self, queue):
        """Delivery tag, redelivered and body; None when the queue is empty."""
        number, payload = self.ask(60, 70, b"\0\0" + short(queue) + b"\0", 71, 72)
        if number == 72:
            return None
        tag, redelivered = struct.unpack(">QB", payload[:9])
        length = struct.unpack(">Q", self.next()[1][4:12])[0]
        body = b""
        while len(body) < length:
            body += self.next()[1]
        return tag, bool(redelivered), body

    def ack(self, tag):
        self.socket.sendall(method(1, 60, 80, struct.pack(">QB", tag, 0)))

    def close(self):
        self.socket.close()
