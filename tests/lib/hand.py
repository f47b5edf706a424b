"""hand: a process that a test moves about, to be a workload, an honest one or not.

It connects to the agent's socket and hands the connection to the test, which speaks on it: whoever holds a socket,
the agent has to go by who connected. Run as `hand.py FD`, one JSON list an order, one an answer.
"""

import ctypes
import json
import os
import platform
import signal
import socket
import subprocess
import sys

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
PR_SET_DUMPABLE = 4
CLOCK_NANOSLEEP = {"x86_64": "230", "aarch64": "115"}[platform.machine()]
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18


def libc_call(name, *argv):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*argv) != 0:
        e = ctypes.get_errno()
        raise OSError(e, f"{name}: {os.strerror(e)}")


class Orders:
    def __init__(self, fd):
        self.sock = socket.socket(fileno=fd)

    def connect(self, path):
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        socket.send_fds(self.sock, [b'["connected"]\n'], [s.fileno()])
        s.close()  # the test has it

    def setuid(self, uid):
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        libc_call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)  # as if it had been started by that user: its /proc is its own

    def unshare(self, flags):
        libc_call("unshare", flags)

    def map_uid(self, inside, outside):
        """In a user namespace of its own."""
        with open("/proc/self/setgroups", "w") as f:
            f.write("deny")
        with open("/proc/self/uid_map", "w") as f:
            f.write(f"{inside} {outside} 1")

    def private(self):
        libc_call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)

    def bind(self, what, where):
        libc_call("mount", what.encode(), where.encode(), None, MS_BIND, None)

    def chroot(self, path):
        os.chroot(path)
        os.chdir("/")

    def write(self, path, text):
        with open(path, "w") as f:
            f.write(text)

    def leave(self):
        """To a child, which takes further orders; the process that connected ends."""
        if os.fork() != 0:
            os._exit(0)

    def exec(self, path, *argv):
        """Answers first: there is nobody to answer afterwards."""
        self.sock.sendall(b'["execs"]\n')
        os.execv(path, [path, *argv])

    def exec_memfd(self, path, *argv):
        fd = os.memfd_create("trusted", 0)
        with open(path, "rb") as f:
            os.write(fd, f.read())
        self.sock.sendall(b'["execs"]\n')
        os.execve(fd, [path, *argv], {})

    def serve(self):
        while line := self.sock.recv(65536):
            name, *argv = json.loads(line)
            try:
                getattr(self, name)(*argv)
            except OSError as e:
                self.sock.sendall(json.dumps(["failed", str(e)]).encode() + b"\n")
                continue
            if name != "connect":
                self.sock.sendall(b'["done"]\n')


class Failed(Exception):
    pass


class Hand:
    """The test's end of one. uid: what it becomes before anything else."""

    def __init__(self, uid=0, prefix=()):
        ours, theirs = socket.socketpair()
        ours.settimeout(20)
        self.sock = ours
        self.p = subprocess.Popen(
            [*map(str, prefix), "/usr/bin/python3", "-I", __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        if uid:
            self.order("setuid", uid)

    @property
    def pid(self):
        return self.p.pid

    def order(self, *words):
        self.sock.sendall(json.dumps([*words]).encode())
        data, fds, _, _ = socket.recv_fds(self.sock, 4096, 1)
        answer = json.loads(data.decode().splitlines()[0]) if data else ["ended"]
        if answer[0] == "failed":
            raise Failed(answer[1])
        return fds[0] if fds else answer[0]

    def connect(self, path):
        return socket.socket(fileno=self.order("connect", str(path)))

    def exec(self, path, how="exec"):
        """Becomes `path` (a copy of sleep), and has become it when this returns."""
        before = os.readlink(f"/proc/{self.pid}/exe")
        assert self.order(how, str(path), "1000") == "execs"
        # The link changes in the midst of exec, which may sleep itself: it is over when the program does what it is for.
        while os.readlink(f"/proc/{self.pid}/exe") == before or self._call() != CLOCK_NANOSLEEP:
            assert self.p.poll() is None, f"it ended with {self.p.returncode}"
            os.sched_yield()

    def _call(self):
        """The number of the system call that it is in, as text; "running": none."""
        with open(f"/proc/{self.pid}/syscall") as f:
            return f.read().split()[0]

    def end(self):
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGKILL)
        self.p.wait()
        self.sock.close()


if __name__ == "__main__":
    Orders(int(sys.argv[1])).serve()
