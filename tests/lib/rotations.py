"""rotations: many changes of one set under readers' eyes, with the daemon killed at random moments."""

import json
import os
import random
import signal
import subprocess
import time

from pushing import PushingAgent
from rotation_readers import Reader

STALL_S = 60

CONF = """kind: Rotate
level: 1
identity: {{socket: 'unix:{socket}'}}
renew: {{at: 50%, jitter: 10%}}
outputs:
  - name: web
    directory: {directory}
    files:
      - {{name: tls.crt, what: chain}}
      - {{name: tls.key, what: key}}
      - {{name: site.pem, what: combined}}
      - {{name: ca.crt, what: bundle}}
"""


class Rotations:
    def __init__(self, build, work, rotations, kill_every, seed):
        self.build, self.work, self.rotations, self.kill_every = build, work, rotations, kill_every
        self.rng = random.Random(seed)
        self.seed = seed
        self.directory = work / "set"
        self.conf = work / "rotate.yaml"
        self.log = open(work / "rotate.log", "ab")
        self.env = {**os.environ, "POSTERN_SANDBOX_KILL": "1"}
        self.daemon = None
        self.kills = 0

    def start(self):
        argv = [str(self.build / "proxy" / "postern"), "rotate", str(self.conf)]
        self.daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=self.env)

    def log_text(self):
        return (self.work / "rotate.log").read_text(errors="replace")

    def generation(self):
        try:
            return int(os.readlink(self.directory / "..data").split("-")[1])
        except FileNotFoundError:
            return 0

    def wait_beyond(self, generation, agent):
        """The next generation. A push that found nobody is sent again."""
        end = time.monotonic() + STALL_S
        again = time.monotonic() + 1
        while self.generation() <= generation:
            if self.daemon.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.daemon.returncode}: {self.log_text()[-3000:]}")
            now = time.monotonic()
            if now > end:
                raise AssertionError(f"no change for {STALL_S} s at {generation}: {self.log_text()[-3000:]}")
            if now > again:
                agent.push()
                again = now + 1
            time.sleep(0.0005)

    def kill(self):
        """At a moment that nobody chose: within the time that a change takes."""
        time.sleep(self.rng.random() * 0.02)
        self.daemon.send_signal(signal.SIGKILL)
        self.daemon.wait()
        self.kills += 1
        self.start()

    def rotate(self, agent):
        while (generation := self.generation()) < self.rotations:
            agent.push()
            if self.kill_every and self.rng.randrange(self.kill_every) == 0:
                self.kill()
            self.wait_beyond(generation, agent)

    def run(self):
        readers = []
        began = time.monotonic()
        with PushingAgent(self.build, "spiffe://example.org/web") as agent:
            self.conf.write_text(CONF.format(socket=agent.socket, directory=self.directory))
            try:
                self.start()
                self.wait_beyond(0, agent)
                while not (self.directory / "site.pem").exists():
                    time.sleep(0.01)
                readers = [Reader(how, self.directory, self.seed) for how in ("held", "combined")]
                self.rotate(agent)
                held, combined = (r.end() for r in readers)
                return self.judge(held, combined, time.monotonic() - began)
            finally:
                for r in readers:
                    r.kill()
                if self.daemon.poll() is None:
                    self.daemon.terminate()
                    self.daemon.wait(20)
                self.log.close()

    def judge(self, held, combined, seconds):
        argv = [str(self.build / "proxy" / "postern"), "rotate", "--status", "--json", str(self.conf)]
        status = json.loads(subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout)
        names = os.listdir(self.directory)
        return {
            "seed": self.seed,
            "rotations": self.generation(),
            "kills": self.kills,
            "seconds": round(seconds, 1),
            "held": held,
            "combined": combined,
            "state": status["state"],
            "left_over": [n for n in names if n.startswith("..new")],
            "generations_kept": len([n for n in names if n.startswith("..gen-")]),
            "ok": held["n_torn"] == 0
            and combined["n_torn"] == 0
            and status["state"] == "fresh"
            and self.generation() >= self.rotations
            and not [n for n in names if n.startswith("..new")],
        }
