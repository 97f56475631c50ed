"""What the checks of the real binary have in common: a score, and figures of a process."""

import pathlib
import time

from broker import Broken


class Score:
    passed = failed = 0

    def check(self, holds, text):
        if holds:
            self.passed += 1
        else:
            self.failed += 1
        print(f"{'ok' if holds else 'FAIL'} {text}", flush=True)


def of_process(pid, key):
    """A figure of /proc/PID/status, in octets."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise Broken(f"no {key}")


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def until(seconds, condition):
    """Whether the condition comes true within the seconds."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if condition():
            return True
        time.sleep(0.05)
    return condition()
