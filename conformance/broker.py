"""A broker as a child process: free port, own folder, stopped by its pid."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import time

START_S = 60
STOP_S = 30


class Broken(Exception):
    """Something beside the checks went wrong: no broker, no client."""


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for it in sockets:
            it.bind(("127.0.0.1", 0))
        return [it.getsockname()[1] for it in sockets]


def speaks(port):
    """Whether a broker answers the protocol header with connection.start."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as it:
            it.sendall(b"AMQP\x00\x00\x09\x01")
            return it.recv(1) == b"\x01"
    except OSError:
        return False


def ferrymq_command(binary):
    path = shlex.quote(os.path.abspath(binary))
    return f"{path} serve --data-dir {{data}} --listen 127.0.0.1:{{port}}"


class Broker:
    def __init__(self, command, folder):
        self.folder = folder
        self.log = folder / "broker.log"
        port, port2, port3 = free_ports(3)
        self.port = port
        self.other_ports = (port2, port3)
        values = {"data": folder / "data", "port": port, "port2": port2, "port3": port3}
        self.command = [it.format(**values) for it in shlex.split(command)]
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/%2F"
        self.process = None
        self.before = None  # runs in the child before the broker does

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True,
                                            preexec_fn=self.before)
        limit = time.monotonic() + START_S
        while not speaks(self.port):
            if self.process.poll() is not None:
                raise Broken(f"the broker ended with status {self.process.returncode}")
            if time.monotonic() > limit:
                raise Broken(f"the broker does not answer on port {self.port}")
            time.sleep(0.05)

    def stop(self, by=signal.SIGTERM):
        if self.process is None or self.process.poll() is not None:
            return
        # A broker may be a script and its child; the group is that of our own child.
        os.killpg(self.process.pid, by)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise Broken(f"the broker did not end within {STOP_S} s of SIGTERM") from None

    def restart(self, by):
        self.stop(by)
        self.start()
