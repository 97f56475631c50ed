#!/usr/bin/env python3
"""Jobs over HTTP while the broker is killed: `conformance/job_kills.py [--cycles 60] [--broker …]`.

Submitters, workers that lease, and SIGKILL at a random moment, again and again. In the end every
job whose submission was answered has been done: none is lost, no result that was answered for is
lost or another one, none ran again after its result was answered for, none was settled twice. What
is asked again after a crash is asked with the same id or the same lease.
"""

import argparse
import collections
import http.client
import pathlib
import random
import signal
import sys
import tempfile
import threading
import time
import urllib.parse

from base64 import b64encode
from broker import Broken, Broker
from clock_jumps import Clock
from score import Score
from wire import Client, short

QUEUE = "work"
LOGIN = {"Authorization": "Basic " + b64encode(b"guest:guest").decode()}
SUBMITTERS = 3
WORKERS = 4
DRAIN_S = 120


class Load:
    """What callers and workers know."""

    def __init__(self, port, seed):
        self.port = port
        self.seed = seed
        self.lock = threading.Lock()
        self.submitting = threading.Event()
        self.submitting.set()
        self.ending = threading.Event()
        self.accepted = set()
        self.leases = 0
        # Results that were answered for, by job; the moment before each lease was asked for.
        self.settled = collections.defaultdict(list)
        self.settled_at = {}
        self.ran_again, self.stale, self.problems = [], 0, []
        workers = [threading.Thread(target=self.work, args=(it,)) for it in range(WORKERS)]
        callers = [threading.Thread(target=self.submit, args=(it,)) for it in range(SUBMITTERS)]
        self.callers, self.workers = callers, workers

    def ask(self, connection, verb, path, body=None, headers=None):
        """Status, headers and body, and the connection for the next request. (None, …) where the
        broker went away before it answered."""
        try:
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            connection.request(verb, path, body, {**LOGIN, **(headers or {})})
            answer = connection.getresponse()
            found = answer.read()
            # Half an answer is none: http.client raises for it.
            return answer.status, answer.headers, found, connection
        except (OSError, http.client.HTTPException):
            if connection is not None:
                connection.close()
            return None, {}, b"", None

    def surprise(self, what):
        with self.lock:
            self.problems.append(what)

    def submit(self, number):
        connection, count = None, 0
        while self.submitting.is_set():
            count += 1
            name = f"{self.seed}-{number}-{count}"
            path = f"/v1/queues/{QUEUE}/jobs"
            while True:
                status, _, body, connection = self.ask(
                    connection, "POST", path, name.encode(), {"Job-Id": name})
                if status is None:
                    if self.ending.is_set():
                        return
                    time.sleep(0.01)
                    continue
                break
            if status != 202:
                self.surprise(f"submit: {status} {body[:300]!r}")
                return
            with self.lock:
                self.accepted.add(name)

    def work(self, number):
        connection, count = None, 0
        path = f"/v1/queues/{QUEUE}/leases"
        while not self.ending.is_set():
            asked_at = time.monotonic()
            status, headers, body, connection = self.ask(
                connection, "POST", path, b"", {"Prefer": "wait=1"})
            if status is None:
                time.sleep(0.01)
            elif status == 200:
                count += 1
                connection = self.run(connection, headers, body, f"{number}-{count}", asked_at)
            elif status != 204:
                self.surprise(f"lease: {status} {body[:300]!r}")
                return

    def run(self, connection, headers, body, run, asked_at):
        name = headers["Job-Id"]
        with self.lock:
            self.leases += 1
            if self.settled_at.get(name, asked_at) < asked_at:
                self.ran_again.append(name)
            if body != name.encode():
                self.problems.append(f"payload of {name}: {body[:100]!r}")
        result = f"{name} by {run}".encode()
        while not self.ending.is_set():
            status, _, answer, connection = self.ask(
                connection, "PUT", headers["Location"] + "/result", result,
                {"Content-Type": "text/plain"})
            if status is None:
                # Whether the result has arrived is not known. It is sent again: 204 says that it
                # has, 410 that it came in time before, or that the lease was lost.
                time.sleep(0.01)
                continue
            with self.lock:
                if status == 204:
                    self.settled[name].append(result)
                    self.settled_at[name] = time.monotonic()
                elif status == 410:
                    self.stale += 1
                else:
                    self.problems.append(f"result: {status} {answer[:300]!r}")
            break
        return connection

    def look(self, connection, name):
        path = f"/v1/jobs/{urllib.parse.quote(name, safe='')}/result?queue={QUEUE}"
        while True:
            status, _, body, connection = self.ask(connection, "GET", path)
            if status is not None:
                return status, body, connection
            time.sleep(0.01)


def declare(port):
    client = Client(port).login()
    arguments = short("x-jobs") + b"t\1"
    client.declare(QUEUE, arguments=arguments)
    client.close()


def drained(load):
    """Waits until each accepted job has a result; those that have none in time are returned."""
    open_jobs, found, connection = set(load.accepted), {}, None
    limit = time.monotonic() + DRAIN_S
    while open_jobs and time.monotonic() < limit:
        for name in sorted(open_jobs):
            status, body, connection = load.look(connection, name)
            if status == 200:
                found[name] = body
                open_jobs.discard(name)
            elif status != 202:
                load.surprise(f"{name}: {status} {body[:300]!r}")
                open_jobs.discard(name)
        time.sleep(0.2)
    return open_jobs, found


def kills(broker, score, cycles, seed):
    chance = random.Random(seed)
    broker.start()
    declare(broker.port)
    load = Load(broker.other_ports[0], seed)
    for it in [*load.callers, *load.workers]:
        it.start()
    for _ in range(cycles):
        time.sleep(chance.uniform(0.1, 0.6))
        broker.restart(signal.SIGKILL)
    load.submitting.clear()
    for it in load.callers:
        it.join(60)
    # A job whose lease was granted to nobody comes back when it ends, minutes from now.
    broker.stop(signal.SIGKILL)
    Clock(broker).jump("+15m")
    broker.start()
    left, found = drained(load)
    load.ending.set()
    for it in load.workers:
        it.join(90)
    answered = {name: results for name, results in load.settled.items() if results}
    other = [it for it, results in answered.items() if found.get(it) not in (None, *results)]
    lost = [it for it in answered if it not in found]
    twice = [it for it, results in answered.items() if len(results) > 1]
    for what in load.problems[:10]:
        print(f"    {what}")
    score.check(load.accepted and not load.problems,
                f"job kills: {cycles} kills, {len(load.accepted)} jobs accepted, {load.leases} leases,"
                f" {load.stale} of them lost to their workers, {len(load.problems)} surprises")
    score.check(not left, f"job kills: {len(left)} accepted jobs lost or not done {sorted(left)[:3]}")
    score.check(not lost and not other,
                f"job kills: {len(answered)} results answered for, {len(lost)} lost, {len(other)} changed")
    score.check(not load.ran_again, f"job kills: {len(load.ran_again)} ran again after they were settled")
    score.check(not twice, f"job kills: {len(twice)} settled twice {twice[:3]}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--broker", default="target/release/ferrymq", help="the binary")
    arguments.add_argument("--cycles", type=int, default=60)
    arguments.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    options = arguments.parse_args()
    print(f"seed {options.seed}", flush=True)
    binary = pathlib.Path(options.broker).resolve()
    score = Score()
    with tempfile.TemporaryDirectory() as folder:
        command = (f"{binary} serve --data-dir {{data}} --listen 127.0.0.1:{{port}}"
                   " --listen-http 127.0.0.1:{port2}")
        broker = Broker(command, pathlib.Path(folder))
        try:
            kills(broker, score, options.cycles, options.seed)
        except Broken as error:
            score.check(False, f"job kills: {error}")
        finally:
            broker.stop(signal.SIGKILL)
            if score.failed:
                print(broker.log.read_text()[-3000:])
    print(f"{score.passed} passed, {score.failed} failed")
    return score.failed > 0


if __name__ == "__main__":
    sys.exit(main())
