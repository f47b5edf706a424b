"""The agent's service in somebody else's hands: what it gets, and what it cannot. docs/privilege-separation.md, cases S.

In the service's place stands tests/rogue/rogue_service.c, under the real supervisor, with the real channels to the
real keeper and attestor, confined by the service's own list; callers are processes of other users, whose connections it
was given, and by which the test commands it.
"""

import base64
import errno
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from cryptography import x509
from lab import wait_for
from rogue import Authority
from test_agent_processes import TD, UIDS, Agent, ended

A, B, NOBODY = 48701, 48702, 48703
ENTRIES = {"a1": f"unix:uid:{A}", "a2": f"unix:uid:{A}", "b": f"unix:uid:{B}", "c": "unix:uid:48704"}
GRANTED = {A: {"a1", "a2"}, B: {"b"}, NOBODY: set()}

CALLER = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
f = s.makefile("rw")
for line in sys.stdin:
    f.write(line)
    f.flush()
    answer = f.readline()
    if not answer:
        break
    print(answer, end="", flush=True)
"""


class Caller:
    """A process of that user, connected to the agent's socket: its lines are commands to the rogue."""

    def __init__(self, agent, uid):
        self.uid = uid
        self.p = subprocess.Popen(
            agent.lab.argv_in([sys.executable, "-c", CALLER, agent.socket], uid=uid),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.handle = self.ask("self")["handle"]

    def ask(self, *words):
        """The rogue's answer; None if it is no more."""
        try:
            self.p.stdin.write(" ".join(map(str, words)) + "\n")
            self.p.stdin.flush()
        except BrokenPipeError:
            return None
        line = self.p.stdout.readline().strip()
        return json.loads(line) if line else None

    def issued(self, handle, generation, entry):
        """(outcome, the ID in the certificate or None)"""
        answer = self.ask("issue", handle, generation, entry)
        if not answer["leaf"]:
            return answer["outcome"], None
        san = x509.load_der_x509_certificate(bytes.fromhex(answer["leaf"])).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        return answer["outcome"], san.value.get_values_for_type(x509.UniformResourceIdentifier)[0]

    def token(self, handle, generation, entry, audience="a"):
        """(outcome, the claims or None)"""
        answer = self.ask("jwt", handle, generation, entry, audience)
        claims = answer["token"].split(".")[1] if answer["token"] else None
        return answer["outcome"], claims and json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))

    def end(self):
        self.p.kill()
        self.p.wait()
        self.p.stdin.close()
        self.p.stdout.close()


@pytest.fixture
def rogue(lab, build):
    """An agent whose service is the rogue; `caller(uid)` connects somebody."""
    agent = Agent(lab, build)
    libexec = agent.dir / "libexec"
    libexec.mkdir()
    for name in ("postern-keeper", "postern-attestor", "postern-loader"):
        (libexec / name).symlink_to(build / "libexec" / name)
    (libexec / "postern-agent-service").symlink_to(build / "tests" / "rogue" / "rogue-service")
    agent.write_entries(ENTRIES)
    callers = []

    def caller(uid):
        callers.append(Caller(agent, uid))
        return callers[-1]

    def begin(kill_unlisted=True):
        if not kill_unlisted:  # as on a user's machine, where an unlisted call fails
            script = agent.dir / "postern"
            script.write_text(f'#!/bin/sh\nunset POSTERN_SANDBOX_KILL\nexec {agent.postern} "$@"\n')
            script.chmod(0o755)
            agent.postern = script
        agent.start(env={"POSTERN_LIBEXEC": str(libexec)})

    def pids():
        return {n.replace("rogue-service", "postern-agent-service"): pid for n, pid in agent.children().items()}

    agent.caller, agent.begin, agent.pids = caller, begin, pids
    yield agent
    for c in callers:
        c.end()


# --- identities --------------------------------------------------------------------------------------
def test_each_live_caller_and_no_more(rogue):
    """Every handle with every entry: a certificate exactly where the entry grants it to that live caller."""
    rogue.begin()
    callers = [rogue.caller(uid) for uid in (A, B, NOBODY)]
    voice = callers[0]
    generation = voice.ask("identity", voice.handle, 0)["generation"]
    got = {}
    for c in callers:
        for i, name in enumerate(ENTRIES):
            outcome, spiffe_id = voice.issued(c.handle, generation, i)
            assert (outcome == "ok") == (spiffe_id == f"spiffe://{TD}/{name}"), (c.uid, name, outcome, spiffe_id)
            assert outcome in ("ok", "not_entitled")
            signed, claims = voice.token(c.handle, generation, i)
            assert signed == outcome and (claims is None or claims["sub"] == spiffe_id), (c.uid, name, signed, claims)
            if outcome == "ok":
                got.setdefault(c.uid, set()).add(name)
    assert {uid: got.get(uid, set()) for uid in GRANTED} == GRANTED
    # and the keeper has said each of them, the refused ones too
    wait_for("its last word", lambda: rogue.process.err().count('"not_entitled"') >= len(ENTRIES) * len(callers) - 3)
    assert sorted(e["spiffe_id"] for e in rogue.events("issued")) == [f"spiffe://{TD}/{n}" for n in ("a1", "a2", "b")]


def test_handles_and_generations_that_are_not(rogue):
    rogue.begin()
    voice = rogue.caller(A)
    generation = voice.ask("identity", voice.handle, 0)["generation"]
    for handle in (0, voice.handle + 1, voice.handle - 1, voice.handle + 1000, 2**63, 2**64 - 1):
        assert voice.issued(handle, generation, 0) == ("no_handle", None), handle
        assert voice.token(handle, generation, 0) == ("no_handle", None), handle
        assert voice.ask("identity", handle, 0)["outcome"] == "no_handle"
        assert voice.ask("reattest", handle)["outcome"] == "gone"
    for other in (0, generation - 1, generation + 1, 2**64 - 1):
        assert voice.issued(voice.handle, other, 0) == ("stale_generation", None), other
    for entry in (len(ENTRIES), 2**31, 2**32 - 1):
        assert voice.issued(voice.handle, generation, entry) == ("not_entitled", None), entry
    assert voice.issued(voice.handle, generation, 0)[0] == "ok"


def test_a_caller_that_has_ended(rogue):
    """Whatever the service holds of it: its socket, its handle, a question that was answered before."""
    rogue.begin()
    voice, gone = rogue.caller(A), rogue.caller(B)
    generation = voice.ask("identity", voice.handle, 0)["generation"]
    assert voice.issued(gone.handle, generation, 2) == ("ok", f"spiffe://{TD}/b")
    gone.end()
    assert voice.issued(gone.handle, generation, 2) == ("no_handle", None)
    assert voice.token(gone.handle, generation, 2) == ("no_handle", None)
    assert voice.ask("reattest", gone.handle)["outcome"] == "gone"
    assert voice.issued(gone.handle, generation, 2) == ("no_handle", None)


def test_entries_taken_away(rogue):
    """A reload takes away what was granted; the old generation is no way around it."""
    rogue.begin()
    voice = rogue.caller(B)
    old = voice.ask("identity", voice.handle, 0)["generation"]
    assert voice.issued(voice.handle, old, 2)[0] == "ok"
    rogue.write_entries({k: v for k, v in ENTRIES.items() if k != "b"})
    rogue.process.send_signal(signal.SIGHUP)
    rogue.wait_event("entries_loaded", 2)
    assert voice.issued(voice.handle, old, 2) == ("stale_generation", None)
    assert voice.ask("identity", voice.handle, 0)["outcome"] == "not_entitled"
    new = rogue.events("entries_loaded")[-1]["generation"]
    for entry in range(4):
        assert voice.issued(voice.handle, new, entry) == ("not_entitled", None)


# --- messages ----------------------------------------------------------------------------------------
def message_types():
    """{name: number}, of the header itself."""
    header = (pathlib.Path(__file__).resolve().parents[2] / "include" / "postern" / "agent_ipc.h").read_text()
    body = header[header.index("enum agent_msg_type {") : header.index("AGENT_N_MSGS,")]
    code = "\n".join(line.split("/*")[0] for line in body.splitlines()[1:] if not line.lstrip().startswith("*"))
    names = [n.strip().partition("=")[0].strip() for n in code.split(",") if n.strip()]
    assert names[0] == "AGENT_MSG_NONE" and all(n.startswith("AGENT_MSG_") for n in names), names
    return {n.removeprefix("AGENT_MSG_"): i for i, n in enumerate(names)}


@pytest.mark.parametrize("order", ["ENTRY", "ATTESTED", "ISSUED", "unknown", "short", "long", "descriptor"])
@pytest.mark.parametrize("channel", ["keeper", "attestor"])
def test_a_message_that_is_not_the_services_ends_it(rogue, channel, order):
    """The channel is closed, a new service comes, and keeper and attestor go on as if nothing had been."""
    types = message_types()
    own = {"keeper": "ISSUE", "attestor": "REATTEST"}[channel]
    raw = {
        "ENTRY": (types["ENTRY"], 0, 0),
        "ATTESTED": (types["ATTESTED"], 0, 1),
        "ISSUED": (types["ISSUED"], 0, 0),
        "unknown": (100000, 0, 0),
        "short": (types[own], 17, 0),
        "long": (types[own], 60000, 0),
        "descriptor": (types[own], 0, 1),
    }[order]
    rogue.begin()
    before = rogue.pids()
    voice = rogue.caller(A)
    assert voice.ask("raw", channel, *raw)["closed"] is True
    rogue.wait_event("service_restarted")
    after = rogue.pids()
    assert after["postern-keeper"] == before["postern-keeper"]
    assert after["postern-attestor"] == before["postern-attestor"]
    again = rogue.caller(A)
    assert again.handle > voice.handle, "a handle came twice"
    generation = again.ask("identity", again.handle, 0)["generation"]
    assert again.issued(again.handle, generation, 0)[0] == "ok"
    # what the one before had is of no use to the one after
    assert again.issued(voice.handle, generation, 0) == ("no_handle", None)


def test_questions_without_end(rogue):
    """Asked and never listened to: the keeper stops reading it, and takes orders from others meanwhile."""
    rogue.begin()
    voice = rogue.caller(A)
    asked = voice.ask("deaf", 100000)["asked"]
    assert 0 < asked < 100000
    rogue.process.send_signal(signal.SIGHUP)
    rogue.wait_event("entries_loaded", 2)
    assert voice.ask("answers", asked)["answered"] == asked
    assert voice.ask("identity", voice.handle, 0)["outcome"] == "ok"


# --- the kernel --------------------------------------------------------------------------------------
# Ways out of a process. Arguments that would fail in another way where the call is allowed, so that only a filter says
# EPERM; {keeper} and {attestor} are their pids.
REFUSED = """
openat -100 s:/etc/passwd 0
openat -100 s:/proc/{keeper}/mem 2
openat -100 s:/proc/{keeper}/maps 0
openat -100 s:/proc/{attestor}/fd/3 0
openat -100 s:/tmp/made-by-the-service 0x241 0600
open s:/etc/passwd 0
openat2 -100 s:/etc/passwd 0 0
name_to_handle_at -100 s:/ 0 0 0
memfd_create s:x 0
stat s:/ 0
newfstatat -100 s:/ 0 0
statx -100 s:/ 0 0 0
readlink s:/proc/self/exe 0 0
getdents64 -1 0 0
unlink s:/none
rename s:/none s:/other
mkdir s:/made 0700
symlink s:a s:/b
link s:/a s:/b
chmod s:/none 0
chown s:/none 0 0
truncate s:/none 0
mknod s:/none 0 0
inotify_init1 0
socket 1 1 0
socket 2 1 0
socket 16 3 0
socketpair 1 1 0 0
connect -1 0 0
bind -1 0 0
listen -1 0
accept -1 0 0
setsockopt -1 0 0 0 0
kill {keeper} 9
kill {attestor} 0
kill -1 0
rt_sigqueueinfo {keeper} 9 0
pidfd_open {keeper} 0
pidfd_send_signal -1 9 0 0
process_mrelease -1 0
prlimit64 {keeper} 7 0 0
fork
vfork
clone 17 0 0 0 0
clone3 0 0
setuid 0
setresuid 0 0 0
setgroups 0 0
capset 0 0
setrlimit 7 0
seccomp 0 0 0
landlock_create_ruleset 0 0 1
shmget 0 4096 0
msgget 0 0
semget 0 1 0
mq_open s:/x 0 0 0
settimeofday 0 0
clock_settime 0 0
sethostname s:x 1
syslog 2 0 0
quotactl 0 0 0 0
acct 0
dup -1
dup2 -1 40
pipe2 0 0
ioctl -1 0 0
sendfile -1 -1 0 0
splice -1 0 -1 0 0 0
vmsplice -1 0 0 0
"""

# No honest program would ask for these: the kernel ends the process on the spot.
DEADLY = """
execve s:/bin/sh 0 0
execveat -100 s:/bin/sh 0 0 0
ptrace 16 {keeper} 0 0
process_vm_readv {keeper} 0 0 0 0 0
process_vm_writev {keeper} 0 0 0 0 0
mount s:none s:/ s:tmpfs 0 0
unshare 0x10000000
setns -1 0
chroot s:/
bpf 0 0 0
perf_event_open 0 0 0 0 0
userfaultfd 0
keyctl 0 0 0 0 0
init_module 0 0 0
open_by_handle_at -1 0 0
personality 0
pidfd_getfd -1 3 0
kcmp {keeper} {attestor} 0 0 0
process_madvise -1 0 0 0 0
io_uring_setup 1 0
"""


def calls(text, agent):
    children = agent.pids()
    filled = text.format(keeper=children["postern-keeper"], attestor=children["postern-attestor"])
    return [line.split() for line in filled.strip().splitlines()]


def test_ways_out_are_shut(rogue):
    rogue.begin(kill_unlisted=False)
    voice = rogue.caller(A)
    wrong = {}
    for call in calls(REFUSED, rogue):
        answer = voice.ask("sys", *call)
        assert answer is not None, f"{call}: the process ended"
        if not answer.get("unknown") and answer != {"ret": -1, "errno": errno.EPERM}:
            wrong[" ".join(call)] = answer
    assert not wrong, wrong
    confined = next(e for e in rogue.events("process_confined") if e["process"] == "service")
    assert confined["seccomp"] and confined["no_new_privs"] and int(confined["capabilities"], 16) == 0
    assert confined["uid"] == UIDS["postern-agent-service"]


def test_signals_that_it_may_send_do_not_arrive(rogue):
    """tgkill is libc's own (abort), for itself."""
    rogue.begin(kill_unlisted=False)
    voice = rogue.caller(A)
    children = rogue.pids()
    for name in ("postern-keeper", "postern-attestor"):
        assert voice.ask("sys", "tgkill", children[name], children[name], 9) == {"ret": -1, "errno": errno.EPERM}
    assert voice.ask("sys", "tgkill", rogue.process.pid, rogue.process.pid, 9) == {"ret": -1, "errno": errno.EPERM}


@pytest.mark.parametrize("part", range(5))
def test_what_no_service_would_ask_for_ends_it(rogue, part):
    """A few of each agent: a service that ends five times a minute ends the agent."""
    rogue.begin(kill_unlisted=False)
    keeper = rogue.pids()["postern-keeper"]
    for n, call in enumerate(calls(DEADLY, rogue)[part::5], 1):
        # between fork and exec the new service still has its parent's name
        pid = wait_for("a service", lambda: rogue.pids().get("postern-agent-service"))
        assert rogue.caller(A).ask("sys", *call) is None, f"{call} was answered"
        wait_for(f"the end by {call[0]}", lambda p=pid: ended(p))
        rogue.wait_event("service_restarted", n)
        assert rogue.pids()["postern-keeper"] == keeper


# The same without its filter: code that found a way around it is another user's still.
OUTSIDE = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
def errno_of(what, *argv):
    ctypes.set_errno(0)
    rc = libc.syscall(*[ctypes.c_long(a) for a in argv])
    return f"{what} {ctypes.get_errno() if rc == -1 else 0}"
class iovec(ctypes.Structure):
    _fields_ = [("p", ctypes.c_void_p), ("n", ctypes.c_size_t)]
buffer = ctypes.create_string_buffer(16)
mine, theirs = iovec(ctypes.addressof(buffer), 16), iovec(0x400000, 16)
CONTROL = sys.argv[1]
for pid in map(int, sys.argv[2:]):
    for f in ("mem", "maps", "environ", "auxv", "stack", "syscall", "fd/3", "exe", "cwd", "root", "map_files", "io"):
        try:
            path = f"/proc/{pid}/{f}"
            os.readlink(path) if f in ("exe", "cwd", "root") else os.listdir(path) if f == "map_files" else open(path, "rb").read(1)
            print(pid, f, 0)
        except OSError as e:
            print(pid, f, e.errno)
    print(pid, errno_of("ptrace", 101, 16, pid, 0, 0))
    print(pid, errno_of("seize", 101, 0x4206, pid, 0, 0))
    print(pid, errno_of("readv", 310, pid, ctypes.addressof(mine), 1, ctypes.addressof(theirs), 1, 0))
    print(pid, errno_of("writev", 311, pid, ctypes.addressof(mine), 1, ctypes.addressof(theirs), 1, 0))
    fd = os.pidfd_open(pid)
    print(pid, errno_of("getfd", 438, fd, 3, 0))
    print(pid, errno_of("kcmp", 312, pid, os.getpid(), 0, 3, 3))
    print(pid, errno_of("kill", 62, pid, 0))
import socket
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
    print("control", "connect", s.connect_ex(CONTROL))
"""


def test_keys_are_out_of_reach_without_the_filter_too(rogue):
    """As the service's own user, but free to call what it likes: memory, descriptors, signals of keeper and attestor, and
    the socket for root's orders.

    Its own user's processes are not dumpable: their memory is shut too, and a signal is all that gets through.
    """
    rogue.begin()
    children = rogue.pids()
    uid = UIDS["postern-agent-service"]
    pids = [children["postern-keeper"], children["postern-attestor"], children["postern-agent-service"], rogue.process.pid]
    argv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
    (control,) = rogue.state.glob("*.sock")  # root's orders: authorities, quarantine
    p = subprocess.run(
        [*argv, "/usr/bin/python3", "-c", OUTSIDE, str(control), *map(str, pids)],
        capture_output=True, text=True, timeout=60, check=False,
    )
    assert p.returncode == 0, p.stderr
    found = [line.split() for line in p.stdout.splitlines()]
    assert len(found) == 19 * len(pids) + 1, p.stdout
    own = str(children["postern-agent-service"])
    opened = [(pid, what, e) for pid, what, e in found if int(e) not in (errno.EPERM, errno.EACCES)]
    assert opened == [(own, "kill", "0")], opened


def test_root_key_is_in_no_memory_of_the_service(rogue):
    """Root may look: the private key's bytes are in the keeper, where the search does find them, and nowhere else."""
    rogue.begin()
    rogue.caller(A)
    secret = Authority.of_agent(rogue.state).key.private_numbers().private_value.to_bytes(32, "big")
    holders = {
        name for name, pid in rogue.pids().items() if any(secret in part or secret[::-1] in part for part in memory(pid))
    }
    assert holders == {"postern-keeper"}


def memory(pid):
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
            begin, _, end = line.split()[0].partition("-")
            if "rw" not in line.split()[1] or int(end, 16) - int(begin, 16) > 1 << 26:
                continue  # the sanitizer's shadow maps terabytes, of which nothing is there
            try:
                mem.seek(int(begin, 16))
                yield mem.read(int(end, 16) - int(begin, 16)) or b""
            except (OSError, OverflowError):
                continue
