"""What is left to somebody else's code in one of our processes: docs/hardening.md, case by case.

A rogue program is built once a process with that process's own privs.c: it confines itself as the
process does, then makes the calls that it is told. The running processes are looked at from outside.
"""

import ctypes
import errno
import json
import os
import pathlib
import re
import resource
import shutil
import socket
import subprocess
import tempfile

import pytest

from lab import children_of, free_port, wait_for
from node import ALLOW_CLIENT, TD, UIDS, spiffe_id
from servers import TcpServer, echo

CLOEXEC = 0o2000000
ROLES = ["data-plane", "keeper", "attestor", "service", "kubelet", "signer", "loader"]
COUNTING = {"data-plane", "service"}


def landlock_abi():
    return max(ctypes.CDLL(None).syscall(444, None, 0, 1), 0)


# --- a rogue in each process -------------------------------------------------------------------------
class Rogue:
    def __init__(self, build, role, argument="", uid=None):
        env = {k: v for k, v in os.environ.items() if k != "POSTERN_SANDBOX_KILL"}
        argv = [str(build / "tests" / "rogue" / f"calls-{role}"), str(argument)]
        if uid is not None:
            argv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--", *argv]
        self.p = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True
        )
        first = self.p.stdout.readline()
        assert first, self.p.stderr.read()
        assert json.loads(first) == {"confined": True}

    def ask(self, *words):
        """The answer, or None if that ended it."""
        try:
            self.p.stdin.write(" ".join(map(str, words)) + "\n")
            self.p.stdin.flush()
        except BrokenPipeError:
            return None
        line = self.p.stdout.readline()
        return json.loads(line) if line else None

    def close(self):
        self.p.stdin.close()
        self.p.wait(20)
        text = self.p.stderr.read()
        self.p.stdout.close()
        self.p.stderr.close()
        assert "AddressSanitizer" not in text and "runtime error" not in text, text


PROXY = """\
kind: Proxy
level: 1
name: rogue
policy: policy.yaml
listeners:
  - name: out
    direction: outbound
    capture: explicit
    address: 127.0.0.1:{port}
    to: 127.0.0.1:{to}
    identities: [spiffe://test.example/x]
"""
POLICY = "kind: Policy\nlevel: 1\nrules: []\n"


@pytest.fixture
def rogue_of(build):
    open_ones = []
    tmp_path = pathlib.Path(tempfile.mkdtemp(prefix="postern-rogue-"))
    tmp_path.chmod(0o755)  # others have to get at it, as far as modes go
    (tmp_path / "conf").mkdir()
    (tmp_path / "writable").mkdir()
    (tmp_path / "writable").chmod(0o777)

    def start(role, to=9, **kw):
        (tmp_path / "conf" / "proxy.yaml").write_text(PROXY.format(port=free_port(), to=to))
        (tmp_path / "conf" / "policy.yaml").write_text(POLICY)
        argument = {"data-plane": tmp_path / "conf" / "proxy.yaml", "signer": tmp_path / "writable"}.get(role, "")
        open_ones.append(Rogue(build, role, argument, **kw))
        return open_ones[-1]

    start.dir = tmp_path
    yield start
    for one in open_ones:
        one.close()
    shutil.rmtree(tmp_path)


DEADLY = """
execve s:/bin/sh 0 0
execveat -100 s:/bin/sh 0 0 0
ptrace 16 1 0 0
process_vm_readv 1 0 0 0 0 0
process_vm_writev 1 0 0 0 0 0
pidfd_getfd -1 3 0
bpf 0 0 0
io_uring_setup 1 0
mount s:none s:/ s:tmpfs 0 0
umount2 s:/proc 0
move_mount -1 0 -1 0 0
fsopen s:tmpfs 0
pivot_root s:/ s:/
chroot s:/
setns -1 0
unshare 0x10000000
init_module 0 0 0
kexec_load 0 0 0 0
perf_event_open 0 0 0 0 0
userfaultfd 0
keyctl 0 0 0 0 0
open_by_handle_at -1 0 0
personality 0
"""

# No process of ours does any of these after its start.
REFUSED = """
fork
clone 17 0 0 0 0
clone 0x10000011 0 0 0 0
setuid 0
setgid 0
setgroups 0 0
setresuid 0 0 0
capset 0 0
kill 1 0
tkill 1 0
tgkill 1 1 0
bind -1 a: 16
listen -1 1
socket 16 3 0
socket 17 3 0
socket 2 3 1
socket 38 5 0
socket 40 1 0
socket 2 2 0
socket 10 2 0
mmap 0 4096 5 0x22 -1 0
mprotect a: 4096 5
mknodat -100 s:/tmp/postern-rogue 0x61b0 0
linkat -100 s:/etc/passwd -100 s:/tmp/postern-rogue 0
symlinkat s:/etc -100 s:/tmp/postern-rogue
inotify_init1 0
fanotify_init 0 0
memfd_create s:x 0
setsid
setpgid 0 0
sethostname s:x 1
settimeofday 0 0
clock_settime 0 0
prctl 4 1 0 0 0
prctl 38 0 0 0 0
syslog 2 0 0
acct 0
quotactl 0 0 0 0
shmget 0 4096 0
msgget 0 0
splice -1 0 -1 0 0 0
"""
# The module of a token is loaded under the signer's list: code has to be mapped, and any prctl goes.
SIGNER_MAY = {"mmap", "mprotect", "prctl"}


def calls(text):
    return [line.split() for line in text.strip().splitlines()]


@pytest.mark.parametrize("role", ROLES)
def test_deadly_calls(rogue_of, role):
    """Of each process's own list: the kernel ends it at once."""
    for call in calls(DEADLY):
        rogue = rogue_of(role)
        assert rogue.ask(*call) is None, f"{call} was answered"
        assert rogue.p.wait(20) == -31, call  # SIGSYS


@pytest.mark.parametrize("role", ROLES)
def test_refused_calls(rogue_of, role):
    rogue = rogue_of(role)
    wrong, refused = {}, {}
    for call in calls(REFUSED):
        if role == "signer" and call[0] in SIGNER_MAY:
            continue
        answer = rogue.ask(*call)
        assert answer is not None, f"{call}: the process ended"
        if answer != {"ret": -1, "errno": errno.EPERM} and not answer.get("unknown"):
            wrong[" ".join(call)] = answer
        elif not answer.get("unknown"):
            refused[call[0]] = refused.get(call[0], 0) + 1
    assert not wrong, wrong
    counted = rogue.ask("!refused")
    assert counted == (refused if role in COUNTING else {})
    assert not pathlib.Path("/tmp/postern-rogue").exists()


def test_threads_count_too(rogue_of):
    rogue = rogue_of("data-plane")
    assert rogue.ask("!threads") == {"ret": 0, "errno": errno.EPERM}
    assert rogue.ask("!refused") == {"getppid": 1}
    assert rogue_of("keeper").ask("!threads")["ret"] != 0


@pytest.mark.skipif(landlock_abi() < 4, reason="needs Landlock's ports")
def test_connects_to_targets_only(rogue_of):
    with socket.create_server(("127.0.0.1", 0)) as target, socket.create_server(("127.0.0.1", 0)) as other:
        rogue = rogue_of("data-plane", to=target.getsockname()[1])
        assert rogue.ask("connect-to", other.getsockname()[1]) == {"ret": -1, "errno": errno.EACCES}
        assert rogue.ask("connect-to", 53) == {"ret": -1, "errno": errno.EACCES}
        assert rogue.ask("connect-to", target.getsockname()[1]) == {"ret": 0, "errno": 0}


@pytest.mark.skipif(landlock_abi() == 0, reason="needs Landlock")
@pytest.mark.parametrize("role", ["data-plane", "loader", "signer"])
def test_files_out_of_reach(rogue_of, role):
    """Those that may open files at all; the others have no call for it."""
    rogue = rogue_of(role)
    inside = {
        "data-plane": rogue_of.dir / "conf" / "policy.yaml",
        "loader": "/etc/passwd",
        "signer": rogue_of.dir / "writable" / "made",
    }[role]
    secret = rogue_of.dir / "secret"
    secret.write_text("x")
    for path in (secret, "/etc/hostname", "/proc/self/environ", "/proc/1/environ", "/dev/kmsg", "/etc/shadow", "/"):
        assert rogue.ask("openat", -100, f"s:{path}", os.O_RDONLY, 0) == {"ret": -1, "errno": errno.EACCES}, path
    for path in (secret, rogue_of.dir / "new", inside if role != "signer" else secret, "/dev/null"):
        answer = rogue.ask("openat", -100, f"s:{path}", os.O_WRONLY | os.O_CREAT, 0o600)
        assert answer["ret"] == -1 and answer["errno"] in (errno.EACCES, errno.EPERM), (path, answer)
    assert secret.read_text() == "x" and not (rogue_of.dir / "new").exists()
    flags = os.O_RDWR | os.O_CREAT if role == "signer" else os.O_RDONLY
    assert rogue.ask("openat", -100, f"s:{inside}", flags, 0o600)["ret"] > 0


@pytest.mark.parametrize("role", ["keeper", "service", "kubelet"])
def test_no_file_at_all(rogue_of, role):
    rogue = rogue_of(role)
    for call in ("openat -100 s:/etc/passwd 0 0", "open s:/etc/passwd 0 0", "socket 1 1 0", "connect -1 a: 16"):
        answer = rogue.ask(*call.split())
        assert answer.get("unknown") or answer == {"ret": -1, "errno": errno.EPERM}, call


# --- the processes as they run -----------------------------------------------------------------------
def status_of(pid, task=None):
    path = f"/proc/{pid}/status" if task is None else f"/proc/{pid}/task/{task}/status"
    return dict(line.split(":\t", 1) for line in pathlib.Path(path).read_text().splitlines() if ":\t" in line)


def descriptors(pid):
    """fd -> what it is, whether it is close-on-exec."""
    shown = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            flags = re.search(r"^flags:\s*(\d+)", pathlib.Path(f"/proc/{pid}/fdinfo/{fd}").read_text(), re.M)
            shown[int(fd)] = (os.readlink(f"/proc/{pid}/fd/{fd}"), bool(int(flags.group(1), 8) & CLOEXEC))
        except FileNotFoundError:
            pass  # closed meanwhile
    return shown


@pytest.fixture
def mesh(node):
    """An agent and both sides of one connection."""
    node.start_agent()
    with TcpServer(node.netns, echo) as server:
        tls, plain = free_port(), free_port()
        inbound = node.server_side(tls, server.port)
        outbound = node.client_side(plain, tls)
        yield node, outbound, inbound, plain


def processes(node, *proxies):
    """name -> pid of everything that runs."""
    found = {"supervisor": node.agent.pid}
    found |= children_of(node.agent.pid)
    for p in proxies:
        found[p.process.name] = p.process.pid
    return found


KEEPS = {"supervisor": 1 << 2 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8, "postern-attestor": 1 << 19}


def test_every_process(mesh):
    """Each thread of each process: capabilities, filter, no_new_privs; core limit, dumpable, descriptors,
    environment."""
    node, outbound, inbound, _ = mesh
    running = processes(node, outbound, inbound)
    assert len(running) >= 6, running
    for name, pid in running.items():
        allowed = KEEPS.get(name, 0)
        for task in os.listdir(f"/proc/{pid}/task"):
            s = status_of(pid, task)
            for key in ("CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd"):
                if key == "CapBnd" and name in (outbound.process.name, inbound.process.name):
                    continue  # started without CAP_SETPCAP: nothing to drop it with, nothing to gain from it
                assert int(s[key], 16) & ~allowed == 0, (name, task, key, s[key])
            assert s["Seccomp"] == "2" and s["NoNewPrivs"] == "1", (name, task)
        core = re.search(r"^Max core file size +(\S+) +(\S+)", pathlib.Path(f"/proc/{pid}/limits").read_text(), re.M)
        assert core.groups() == ("0", "0"), name
        # not dumpable: what is its own in /proc belongs to root, whoever it runs as
        assert os.stat(f"/proc/{pid}/environ").st_uid == 0, name
        leaking = {
            fd: what for fd, (what, cloexec) in descriptors(pid).items() if fd > 2 and not cloexec
        }
        assert not leaking, (name, leaking)
        if name.startswith("postern-"):
            environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            names = {e.split(b"=")[0].decode() for e in environment if e}
            assert names <= {"POSTERN_SANDBOX_KILL", "ASAN_OPTIONS", "UBSAN_OPTIONS"}, (name, names)


def test_status_shows_it_as_it_is(mesh):
    node, outbound, inbound, _ = mesh
    h, pid = inbound.status()["hardening"], inbound.process.pid
    k = status_of(pid)
    sets = {"effective": "CapEff", "inheritable": "CapInh", "bounding": "CapBnd", "ambient": "CapAmb"}
    assert {n: int(v, 16) for n, v in h["capability_sets"].items()} == {n: int(k[v], 16) for n, v in sets.items()}
    assert h["uid"] == UIDS["server"] and h["core_dumps"] is False and h["dumpable"] is False
    assert h["seccomp"] == "proxy" and h["seccomp_filters"] == int(k.get("Seccomp_filters", 0)) >= 1
    assert h["locked_bytes"] == int(k["VmLck"].split()[0]) * 1024
    assert h["refused_calls"] == {} and h["weak"] == []
    if landlock_abi() >= 6:
        assert h["landlock"] == {
            "abi": landlock_abi(), "files": True, "bind": "listed", "connect": "listed", "bind_ports": 0,
            "connect_ports": 1, "abstract_sockets": "own", "signals": "own", "missing": None,
        }  # fmt: skip
    only = subprocess.run(
        [node.build / "proxy" / "postern", "status", "--socket", inbound.admin, "--hardening", "--json"],
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    assert json.loads(only.stdout)["landlock"] == h["landlock"]
    text = subprocess.run(
        [node.build / "proxy" / "postern", "status", "--socket", node.run / "agent-admin.sock", "--hardening"],
        capture_output=True, text=True, timeout=20, check=True,
    ).stdout  # fmt: skip
    for name in ("keeper", "attestor", "service", "supervisor"):
        assert re.search(rf"^ +role +{name}$", text, re.M), text
    assert re.search(r"^ +core_dumps +no$", text, re.M) and not re.search(r"^ +core_dumps +yes$", text, re.M)


def test_keys_are_locked(mesh):
    """The key heap is there, locked, used, and left out of dumps."""
    _, _, inbound, _ = mesh
    m = inbound.status()["hardening"]["key_memory"]
    assert m["locked"] is True and 0 < m["used"] < m["bytes"]
    smaps = pathlib.Path(f"/proc/{inbound.process.pid}/smaps").read_text()
    regions = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", smaps)
    locked = [r for r in regions if re.search(r"^VmFlags:.* lo\b.* dd\b", r, re.M)]
    sizes = {int(re.search(r"^Size: +(\d+)", r, re.M).group(1)) * 1024 for r in locked}
    assert m["bytes"] in sizes, sizes


def test_keys_that_cannot_be_locked(node):
    """A limit on locked memory that is too low: it goes on, and says so everywhere."""
    node.start_agent()
    soft = resource.prlimit(0, resource.RLIMIT_MEMLOCK)
    resource.prlimit(0, resource.RLIMIT_MEMLOCK, (65536, soft[1]))
    try:
        with TcpServer(node.netns, echo) as server:
            inbound = node.server_side(free_port(), server.port)
    finally:
        resource.prlimit(0, resource.RLIMIT_MEMLOCK, soft)
    h = inbound.status()["hardening"]
    assert h["key_memory"]["locked"] is False and h["weak"] == ["private keys are not in locked memory"]
    assert '"event":"hardening_degraded"' in inbound.process.err()


def test_reload_that_needs_more(mesh):
    """Another port than the sandbox lets through: refused whole, the old configuration goes on."""
    node, _, inbound, plain = mesh
    text = inbound.conf.read_text()
    to = re.search(r"to: 127\.0\.0\.1:(\d+)", text)
    inbound.conf.write_text(text.replace(to.group(0), f"to: 127.0.0.1:{free_port()}"))
    inbound.process.send_signal(1)
    wait_for("the refusal", lambda: inbound.status()["last_reload"]["error"])
    error = inbound.status()["last_reload"]["error"]
    assert "connect to port" in error and "restart" in error, error
    with node.inside():
        with socket.create_connection(("127.0.0.1", plain), timeout=10) as s:
            s.sendall(b"x")
            assert s.recv(1) == b"x"
    inbound.conf.write_text(text)
    inbound.process.send_signal(1)
    wait_for("the reload", lambda: inbound.status()["last_reload"]["ok"])


# --- any user, a read-only root, nothing to write to -------------------------------------------------
READ_ONLY = """
mount --make-rprivate /
mount -o remount,bind,ro / || {{ mount --bind / {root} && mount -o remount,bind,ro {root}; }}
for m in $(awk '{{ print $5 }}' /proc/self/mountinfo); do mount -o remount,bind,ro "$m" 2>/dev/null; done
exec setpriv --reuid=65532 --regid=65532 --clear-groups -- "$@"
"""


def test_any_uid_read_only(node):
    """Both sides as a uid that nobody knows, every mount read-only, no admin socket: mTLS traffic goes through."""
    uid = 65532
    node.write_entries(uids={"client": uid, **{k: v for k, v in UIDS.items() if k != "client"}})
    node.start_agent()
    script = node.conf / "read-only.sh"
    script.write_text(READ_ONLY.format(root=node.conf))
    with TcpServer(node.netns, echo) as server:
        tls, plain, metrics = free_port(), free_port(), free_port()
        one = (
            "kind: Proxy\nlevel: 1\nname: {name}\nidentity:\n  socket: unix:{socket}\npolicy: {name}-policy.yaml\n"
            "metrics:\n  address: 127.0.0.1:{metrics}\nlisteners:\n  - name: {name}\n    direction: {direction}\n"
            "    capture: explicit\n    address: 127.0.0.1:{listen}\n    to: 127.0.0.1:{to}\n{more}"
        )
        sides = {
            "in": {"direction": "inbound", "listen": tls, "to": server.port, "more": "", "metrics": metrics},
            "out": {
                "direction": "outbound", "listen": plain, "to": tls, "metrics": free_port(),
                "more": f"    identities: [{spiffe_id('client')}]\n",
            },
        }  # fmt: skip
        running = []
        for name, values in sides.items():
            (node.conf / f"{name}.yaml").write_text(one.format(name=name, socket=node.socket, **values))
            (node.conf / f"{name}-policy.yaml").write_text(ALLOW_CLIENT.format(td=TD))
            argv = ["unshare", "--mount", "/bin/sh", script, node.postern, "proxy", node.conf / f"{name}.yaml"]
            running.append(node.lab.start(name, argv, netns=node.netns))
        for p in running:
            wait_for(f"{p.name}'s identity", lambda p=p: '"event":"ready"' in p.err())
            s = status_of(p.pid)
            assert s["Uid"].split() == [str(uid)] * 4 and s["Seccomp"] == "2" and int(s["CapPrm"], 16) == 0
            mounts = pathlib.Path(f"/proc/{p.pid}/mountinfo").read_text().splitlines()
            seen = {m.split()[4]: m.split()[5].split(",")[0] for m in mounts}  # the upper one of two
            writable = [where for where, mode in seen.items() if mode != "ro"]
            assert writable == [], writable
            assert "hardening_degraded" not in p.err() or landlock_abi() < 6
        with node.inside():
            with socket.create_connection(("127.0.0.1", plain), timeout=10) as s:
                s.sendall(b"read-only")
                assert s.recv(20) == b"read-only"
            with socket.create_connection(("127.0.0.1", metrics), timeout=10) as s:
                s.sendall(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert b"200" in s.recv(100)
        for p in running:
            assert p.stop() == 0, p.err()[-2000:]
