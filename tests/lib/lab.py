"""lab: network namespaces, processes and conditions for tests and the demo.

Everything a Lab makes carries its own random prefix and is removed by close(), in reverse order, also
when only half of it was made: processes are ended by the pid that was recorded, namespaces by name.
Nothing here sleeps for a fixed time: wait_for() polls a condition up to a deadline.
"""

import contextlib
import json
import os
import pathlib
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time


ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


# What must come is waited for so long at least, whatever a caller thinks enough: a shorter wait makes no test
# stricter, it only fails on a machine with more to do. (That something does not come is seen by another way.)
PATIENCE_S = 60


class LabError(Exception):
    pass


def wait_for(what, condition, timeout=PATIENCE_S, interval=0.02):
    """Returns the condition's first true value; says what was waited for when time is up."""
    timeout = max(timeout, PATIENCE_S)
    end = time.monotonic() + timeout
    last = None
    while True:
        try:
            value = condition()
            if value:
                return value
        except (OSError, ValueError, KeyError) as e:
            last = e
        if time.monotonic() > end:
            raise LabError(f"waited {timeout:.0f} s for {what}" + (f" ({last})" if last else ""))
        time.sleep(interval)


def log_events(text, event, **want):
    """The lines of a JSON log with this event and these values."""
    found = []
    for line in text.splitlines():
        try:
            o = json.loads(line)
        except ValueError:
            continue
        if o.get("event") == event and all(o.get(k) == v for k, v in want.items()):
            found.append(o)
    return found


def run(*argv, check=True, timeout=PATIENCE_S, **kw):
    timeout = max(timeout, PATIENCE_S)
    p = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=timeout, check=False, **kw)
    if check and p.returncode != 0:
        raise LabError(f"{' '.join(map(str, argv))}: exit {p.returncode}: {p.stderr.strip() or p.stdout.strip()}")
    return p


class Child(subprocess.Popen):
    def wait(self, timeout=None):
        return super().wait(None if timeout is None else max(timeout, PATIENCE_S))


class Process:
    """One child with its output in files; ended by its own pid only."""

    def __init__(self, name, argv, log_dir, **kw):
        self.name = name
        self.argv = [str(a) for a in argv]
        self.out_path = log_dir / f"{name}.out"
        self.err_path = log_dir / f"{name}.err"
        with open(self.out_path, "ab") as out, open(self.err_path, "ab") as err:
            self.p = Child(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True, **kw
            )
        self.pid = self.p.pid

    def alive(self):
        return self.p.poll() is None

    def err(self):
        return self.err_path.read_text(errors="replace")

    def out(self):
        return self.out_path.read_text(errors="replace")

    def send_signal(self, signo):
        if self.alive():
            os.kill(self.pid, signo)

    def stop(self, signo=signal.SIGTERM, timeout=PATIENCE_S):
        """Ends it and returns its exit status; SIGKILL if it does not go."""
        if self.alive():
            os.kill(self.pid, signo)
            try:
                self.p.wait(timeout)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                self.p.wait(PATIENCE_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return self.p.returncode


class Lab:
    def __init__(self, tag="t", base_dir=None):
        self.prefix = f"{tag}{secrets.token_hex(3)}"
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"postern-{self.prefix}-", dir=base_dir))
        self.dir.chmod(0o755)
        self.log_dir = self.dir / "logs"
        self.log_dir.mkdir()
        self.processes = []
        self.namespaces = []
        self.etc_dirs = []

    # --- namespaces ---
    def netns(self, name, hosts=None):
        full = f"{self.prefix}-{name}"
        run("ip", "netns", "add", full)
        self.namespaces.append(full)
        run("ip", "-n", full, "link", "set", "lo", "up")
        if hosts:
            etc = pathlib.Path("/etc/netns") / full
            etc.mkdir(parents=True)
            self.etc_dirs.append(etc)
            (etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n" + hosts)
        return full

    def bridge_net(self, name, members, net4="10.77.0", net6="fd77:77::"):
        """A switch in a namespace of its own, one leg a member: member i has net4.(i+1) and net6(i+1).

        Returns {member: (v4, v6)}. The link is inside namespaces only; the machine's own network is
        not touched."""
        switch = self.netns(name)
        run("ip", "-n", switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        run("ip", "-n", switch, "addr", "add", f"{net4}.254/24", "dev", "br0")
        run("ip", "-n", switch, "-6", "addr", "add", f"{net6}fe/64", "dev", "br0", "nodad")
        run("ip", "-n", switch, "link", "set", "br0", "up")
        result = {}
        for i, member in enumerate(members, 1):
            port = f"p{i}"
            run("ip", "-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", member)
            run("ip", "-n", switch, "link", "set", port, "master", "br0", "up")
            run("ip", "-n", member, "addr", "add", f"{net4}.{i}/24", "dev", "eth0")
            run("ip", "-n", member, "-6", "addr", "add", f"{net6}{i:x}/64", "dev", "eth0", "nodad")
            run("ip", "-n", member, "link", "set", "eth0", "up")
            run("ip", "-n", member, "route", "add", "default", "via", f"{net4}.254")
            result[member] = (f"{net4}.{i}", f"{net6}{i:x}")
        return switch, result

    # --- processes ---
    def argv_in(self, argv, netns=None, uid=None, with_hosts=False):
        """argv entered into a namespace (by nsenter, which keeps /sys and cgroups as they are; by
        `ip netns exec` where the namespace's own hosts file matters) and under a uid."""
        argv = [str(a) for a in argv]
        if uid is not None:
            argv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--", *argv]
        if netns is not None:
            if with_hosts:
                argv = ["ip", "netns", "exec", netns, *argv]
            else:
                argv = ["nsenter", f"--net=/run/netns/{netns}", "--", *argv]
        return argv

    def start(self, name, argv, netns=None, uid=None, with_hosts=False, **kw):
        p = Process(name, self.argv_in(argv, netns, uid, with_hosts), self.log_dir, **kw)
        self.processes.append(p)
        return p

    def run_in(self, argv, netns=None, uid=None, with_hosts=True, check=False, timeout=PATIENCE_S, **kw):
        return run(*self.argv_in(argv, netns, uid, with_hosts), check=check, timeout=timeout, **kw)

    def private_dir(self, name, uid=0, mode=0o755):
        d = self.dir / name
        d.mkdir(exist_ok=True)
        os.chown(d, uid, uid)
        d.chmod(mode)
        return d

    # --- the end ---
    def close(self, keep_dir=False):
        for p in reversed(self.processes):
            with contextlib.suppress(Exception):
                p.stop()
        for ns in reversed(self.namespaces):
            run("ip", "netns", "del", ns, check=False)
        for d in self.etc_dirs:
            shutil.rmtree(d, ignore_errors=True)
        if not keep_dir:
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


@contextlib.contextmanager
def in_netns(netns):
    """Runs the block (this thread only) in another network namespace: sockets opened there stay there."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(there)
        yield
    finally:
        _setns(here)
        os.close(there)
        os.close(here)


def _setns(fd):
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "setns")


PORTS = range(20000, 32768)  # below those that the kernel gives to whoever connects
_given = set()


def own_ports():
    """What of them is for this process alone, where several run tests at once."""
    n = max(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")), 1)
    mine = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return PORTS[mine % n :: n]


def free_port(host="127.0.0.1"):
    """Free, and given to nobody before it is bound, which may be long after: to no other test, and to no connection
    as its own end."""
    for port in random.sample(own_ports(), len(own_ports())):
        if port in _given:
            continue
        with socket.socket() as s:
            try:
                s.bind((host, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise LabError("no port is free")


def children_of(pid):
    """{executable's name: pid} of what a process has started; a child is there under its own name once it runs it."""
    found = {}
    for d in pathlib.Path("/proc").iterdir():
        if not d.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if int((d / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found[pathlib.Path(os.readlink(d / "exe")).name] = int(d.name)
    return found


def admin_ask(path, request, timeout=20.0):
    """One request on an admin socket: the document that it answers."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(timeout)
        s.connect(str(path))
        s.sendall(f"GET {request}\n".encode())
        data = b""
        while chunk := s.recv(65536):
            data += chunk
    return data.decode()
