#!/usr/bin/env python3
"""The README's section on jobs, word by word: `conformance/readme_jobs.py [--broker …]`.

Its blocks run in their order against the binary, in one shell; what a comment behind a command says
must be in its answer.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

from broker import Broker
from score import Score

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
HEADING = "## Jobs"
STEP_S = 60
END = "--- end of the answer ---"


def blocks():
    """Language and text of each block of the section."""
    text = (ROOT / "README.md").read_text()
    section = text[text.index(HEADING):]
    section = section[:section.index("\n## ", 1)]
    return re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)


class Shell:
    """One shell for all blocks, because each uses the variables of those before."""

    def __init__(self, folder):
        self.process = subprocess.Popen(["bash"], cwd=folder, stdin=subprocess.PIPE, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, line):
        self.process.stdin.write(f"{line}\necho\necho '{END}'\n")
        self.process.stdin.flush()
        answer = []
        for found in self.process.stdout:
            if found.rstrip("\n") == END:
                break
            answer.append(found)
        return "".join(answer).strip()


def run(broker, score, folder):
    shell = Shell(folder)
    http = broker.other_ports[0]
    for language, text in blocks():
        if language == "python":
            text = text.replace('ConnectionParameters("localhost")',
                                f'ConnectionParameters("localhost", {broker.port})')
            found = subprocess.run([sys.executable, "-c", text], timeout=STEP_S, text=True, check=False,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            score.check(found.returncode == 0, f"readme: a program in Python {found.stdout[-500:]}".rstrip())
            continue
        for line in text.splitlines():
            if line.startswith("cargo run"):
                continue  # the broker runs
            answer = shell.run(line.replace("localhost:15672", f"localhost:{http}"))
            expected = line.rpartition("# ")[2].rpartition(": ")[2] if "# " in line else None
            if expected:
                is_job = answer.startswith("{")
                holds = f'"state":"{expected}"' in answer if is_job else answer == expected
                score.check(holds, f"readme: {line.partition('#')[0].strip()} → {expected}")
                if not holds:
                    print(f"    {answer}")
    shell.process.stdin.close()
    shell.process.wait(STEP_S)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--broker", default="target/release/ferrymq", help="the binary")
    options = arguments.parse_args()
    binary = pathlib.Path(options.broker).resolve()
    score = Score()
    with tempfile.TemporaryDirectory() as folder:
        command = (f"{binary} serve --data-dir {{data}} --listen localhost:{{port}}"
                   " --listen-http localhost:{port2}")
        broker = Broker(command, pathlib.Path(folder))
        broker.start()
        try:
            run(broker, score, folder)
        finally:
            broker.stop()
    print(f"{score.passed} passed, {score.failed} failed")
    # Fewer checks than the section has would be a test that cannot fail.
    return score.failed > 0 or score.passed < 8


if __name__ == "__main__":
    sys.exit(main())
