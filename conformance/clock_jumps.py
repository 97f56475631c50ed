"""R9: the machine's clock jumps while messages, queues and connections have deadlines."""

import os
import pathlib
import time

from broker import Broken
from score import until
from wire import Client, number_pair, publish

LIFE_S = 6
MESSAGES = 50
DAY = 86_400
JUMPS = ["+1h", "-1h", "+3d", "-3d", "@1970-01-02 00:00:00", "@2038-01-19 03:14:05", "@2016-12-31 23:59:58",
         "+0", "+10y", "-10y", *(f"{'+' if it % 2 else '-'}{it * 7}" for it in range(1, 11))]


class Clock:
    """The clock of the broker's process: libfaketime reads it from a file at each call."""

    def __init__(self, broker):
        library = next(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
        if library is None:
            raise Broken("no libfaketime: apt-get install faketime")
        self.file = broker.folder / "clock"
        self.jump("+0")
        broker.command = ["env", f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={self.file}",
                          "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", *broker.command]

    def jump(self, to):
        beside = self.file.with_suffix(".new")
        beside.write_text(to + "\n")
        os.replace(beside, self.file)


def clock_jumps(broker, score):
    clock = Clock(broker)
    broker.start()
    client = Client(broker.port).login(heartbeat=4)
    client.confirms()
    client.declare("lived", arguments=number_pair("x-message-ttl", LIFE_S * 1000))
    client.declare("leased", arguments=number_pair("x-expires", LIFE_S * 1000))
    client.declare("kept")
    client.declare("long-lived", arguments=number_pair("x-message-ttl", 2 * DAY * 1000))
    began = time.monotonic()
    for queue in ("lived", "kept", "long-lived"):
        client.publish_all(MESSAGES, lambda it, queue=queue: publish("", queue, b"x" * 100, it % 2 == 0))
    early = []
    for jump in JUMPS:
        clock.jump(jump)
        exists(broker, "kept")
        time.sleep(0.2)
        if client.declare("lived", passive=True) != MESSAGES:
            early.append(jump)
    held = time.monotonic() - began
    score.check(not early and held < LIFE_S, f"clock: {len(JUMPS)} jumps in {held:.1f} s, nothing expired early {early}")
    score.check("1970-01-02T00:00:0" in broker.log.read_text(), "clock: the log shows that the jumps were seen")
    score.check(until(LIFE_S, lambda: client.declare("lived", passive=True) == 0),
                "clock: what was to live for some seconds is gone in time all the same")
    score.check(until(LIFE_S, lambda: not exists(broker, "leased")), "clock: and the queue that nobody used")
    score.check(client.declare("kept", passive=True) == MESSAGES, "clock: the connection with a heartbeat has seen it all")
    client.close()
    clock.jump("-3d")
    broker.restart(15)
    client = Client(broker.port).login()
    left = [client.declare(queue, passive=True) for queue in ("kept", "long-lived")]
    score.check(left == [MESSAGES // 2] * 2, f"clock: three days back after a restart, {left} persistent messages are there")
    client.close()
    broker.stop()


def exists(broker, queue):
    client = Client(broker.port).login()
    try:
        client.declare(queue, passive=True)
        return True
    except ConnectionError:
        return False
    finally:
        client.close()
