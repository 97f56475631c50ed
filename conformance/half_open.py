"""R11: connections die without a word: from one moment on no packet passes in either direction."""

import ctypes
import os
import pathlib
import subprocess
import time

from score import until
from wire import Client, method, publish, short

HEARTBEAT_S = 1
UNSETTLED = 5
EACH = 3
CLONE_NEWNET = 0x40000000


def idle(_):
    """Nothing more is sent."""


def in_a_frame(victim):
    octets = publish("", "elsewhere", b"y" * 500)
    victim.socket.sendall(octets[:9])


def in_a_publish(victim):
    octets = publish("", "elsewhere", b"y" * 500)
    victim.socket.sendall(octets[:-400])


def before_close_ok(victim):
    victim.socket.sendall(method(0, 10, 50, b"\0\xc8" + short("bye") + b"\0\0\0\0"))


def half_open(broker, score):
    """In a network of its own, where packets may be dropped."""
    began = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False)
    if began.returncode != 0:
        print("skipped: half-open connections need a network namespace", flush=True)
        return
    child = os.fork()
    if child == 0:
        status = 1
        try:
            enter_own_network()
            failed = score.failed
            in_own_network(broker, score)
            status = 0 if score.failed == failed else 1
        except Exception as error:
            print(f"FAIL half-open: {type(error).__name__}: {error}", flush=True)
        finally:
            broker.stop(9)
            os._exit(status)
    _, status = os.waitpid(child, 0)
    score.check(status == 0, "half-open: all of it")


def enter_own_network():
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    run("ip", "link", "set", "lo", "up")
    run("nft", "add table inet half_open")
    run("nft", "add chain inet half_open arriving { type filter hook input priority 0 ; }")


def run(*command):
    subprocess.run(command, check=True, capture_output=True)


def in_own_network(broker, score):
    broker.start()
    pid = broker.process.pid
    healthy = Client(broker.port).login()
    healthy.confirms()

    def descriptors():
        return len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))

    before = descriptors()
    for moment in (idle, in_a_frame, in_a_publish, before_close_ok):
        name = moment.__name__.replace("_", " ")
        victims = []
        for number in range(EACH):
            queue = f"{moment.__name__}-{number}"
            healthy.declare(queue)
            healthy.publish_all(UNSETTLED, lambda it, queue=queue: publish("", queue, f"{it}".encode()))
            victim = Client(broker.port).login(heartbeat=HEARTBEAT_S)
            victim.consume(queue)
            for _ in range(UNSETTLED):
                victim.wait(60, 60)
            moment(victim)
            port = victim.socket.getsockname()[1]
            for side in ("sport", "dport"):
                run("nft", f"add rule inet half_open arriving tcp {side} {port} drop")
            victims.append((queue, victim))
        cut = time.monotonic()
        back = until(6 * HEARTBEAT_S, lambda victims=victims: all(
            healthy.declare(queue, passive=True) == UNSETTLED for queue, _ in victims))
        score.check(back, f"half-open: {name}: {UNSETTLED * EACH} unsettled messages are back after "
                          f"{time.monotonic() - cut:.1f} s, heartbeat {HEARTBEAT_S} s")
        found = [healthy.get(queue) for queue, _ in victims for _ in range(UNSETTLED + 1)]
        bodies = [(int(it[2]), it[1]) for it in found if it]
        score.check(bodies == [(it, True) for it in range(UNSETTLED)] * EACH,
                    f"half-open: {name}: each once, in order and flagged as redelivered")
        for _, victim in victims:
            victim.close()
    score.check(until(10, lambda: descriptors() <= before), f"half-open: {descriptors()} descriptors as before")
    healthy.close()
