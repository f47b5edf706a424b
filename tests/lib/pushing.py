"""pushing: tests/lib/pushing_agent.c as an object: an agent that sends new SVIDs when it is told to."""

import subprocess


class PushingAgent:
    def __init__(self, build, *ids, ttl=3600, foreign=True):
        argv = [build / "tests" / "lib" / "pushing-agent", "--ttl", ttl, *(["--foreign"] if foreign else []), *ids]
        self.p = subprocess.Popen(
            [str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.socket = self.p.stdout.readline().strip()
        assert self.socket.startswith("/"), self.socket

    def tell(self, word):
        """How many streams are open after that."""
        self.p.stdin.write(word + "\n")
        self.p.stdin.flush()
        answer = self.p.stdout.readline().split()
        assert answer and answer[0] == "ok", answer
        return int(answer[1])

    def push(self):
        return self.tell("push")

    def close(self):
        if self.p.poll() is None:
            self.p.stdin.close()
            self.p.wait(10)
        self.p.stdout.close()
        assert self.p.returncode == 0, self.p.returncode

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
