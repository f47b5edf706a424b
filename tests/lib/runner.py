"""runner: postern-rotate-run with a test in the daemon's place (include/postern/actions_wire.h)."""

import os
import pathlib
import select
import socket
import struct
import subprocess
import time

RUN, VERIFY, CANCEL, RELOAD, CHILD_START, CHILD_SIGNAL, LOADED, OUTPUT, DONE, CHILD_STARTED, CHILD_ENDED = range(1, 12)
OUTCOMES = ["done", "failed", "timed_out", "refused", "cancelled", "no_child"]
VERDICTS = ["served", "old", "other", "unreachable"]


class Gone(Exception):
    pass


class Runner:
    def __init__(self, build, config, child=None, env=None, **kw):
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = pathlib.Path(build) / "libexec" / "postern-rotate-run"
        # Out of the way of the number that it becomes.
        high = os.dup2(theirs.fileno(), 200)
        argv = [str(path), str(config)] + (["--", *child] if child else [])

        def take_channel():
            os.dup2(high, 3)

        self.p = subprocess.Popen(
            argv,
            preexec_fn=take_channel,
            close_fds=False,
            env={**os.environ, "POSTERN_SANDBOX_KILL": "1", "POSTERN_LIBEXEC": str(path.parent), **(env or {})},
            **kw,
        )
        os.close(high)
        theirs.close()
        self.job = 0
        self.lines = {}
        self.lost = {}
        self.child = None
        self.child_status = None
        self.loaded = self.expect(LOADED)
        self.digest = struct.unpack_from("<Q", self.loaded, 8)[0]

    def receive(self, timeout=30):
        ready, _, _ = select.select([self.sock], [], [], timeout)
        if not ready:
            raise TimeoutError("the runner says nothing")
        m = self.sock.recv(65536)
        if not m:
            raise Gone()
        return struct.unpack_from("<I", m)[0], m

    def _note(self, kind, m):
        if kind == OUTPUT:
            job, length, lost = struct.unpack_from("<QII", m, 8)
            if lost:
                self.lost[job] = lost
            else:
                self.lines.setdefault(job, []).append(m[24 : 24 + length])
        elif kind == CHILD_STARTED:
            self.child = struct.unpack_from("<i", m, 8)[0]
        elif kind == CHILD_ENDED:
            self.child_status = struct.unpack_from("<i", m, 8)[0]

    def expect(self, want, timeout=30):
        end = time.monotonic() + timeout
        while True:
            kind, m = self.receive(max(0.01, end - time.monotonic()))
            self._note(kind, m)
            if kind == want:
                return m

    def run(self, output, action, generation=1):
        self.job += 1
        self.sock.send(struct.pack("<IIQQQII", RUN, 40, self.job, generation, self.digest, output, action))
        return self.job

    def verify(self, output, want, old=None):
        self.job += 1
        self.sock.send(
            struct.pack("<IIQQII", VERIFY, 96, self.job, self.digest, output, 1 if old else 0) + want + (old or bytes(32))
        )
        return self.job

    def cancel(self, job):
        self.sock.send(struct.pack("<IIQ", CANCEL, 16, job))

    def done(self, job, timeout=30):
        """The end of a job as a dictionary; what else comes meanwhile is noted."""
        while True:
            m = self.expect(DONE, timeout)
            got, outcome, verdict, status, http, tries, has_seen = struct.unpack_from("<QIIiIII", m, 8)
            seen = m[40:72]
            (length,) = struct.unpack_from("<I", m, 72)
            if got == job:
                return {
                    "outcome": OUTCOMES[outcome],
                    "verdict": VERDICTS[verdict],
                    "exit_status": status,
                    "http_status": http,
                    "tries": tries,
                    "seen": seen if has_seen else None,
                    "text": m[76 : 76 + length].decode(errors="replace"),
                }

    def start_child(self):
        self.sock.send(struct.pack("<II", CHILD_START, 8))

    def signal_child(self, signo):
        self.sock.send(struct.pack("<IIII", CHILD_SIGNAL, 16, signo, 0))

    def end(self, timeout=30):
        self.sock.close()
        try:
            return self.p.wait(timeout)
        finally:
            if self.p.poll() is None:
                self.p.kill()
                self.p.wait(5)
