"""Hostile workloads against a whole agent: who connected is what counts, and what that process is *now*.

docs/attestation.md and docs/privilege-separation.md, cases H. What the attestor makes of each fact is in its unit tests;
here the question is what the workload is given in the end. Each case runs with SO_PEERPIDFD and again as on a kernel
without it.
"""

import contextlib
import ctypes
import os
import pathlib
import secrets
import shutil
import signal

import hand
import pytest
from h2.exceptions import ProtocolError
from hand import Hand
from lab import run, wait_for
from rawgrpc import Ended, Raw
from spiffe._proto import workload_pb2
from test_agent_processes import TD, Agent

SVID = "/SpiffeWorkloadAPI/FetchX509SVID"
A, B, NOBODY = 48801, 48802, 48803
CONTAINER = "c0ffee" * 10 + "0123"
UNIT = f"postern-{secrets.token_hex(4)}.service"


@pytest.fixture(params=["pidfd", "fallback"])
def agent(request, lab, build):
    one = Agent(lab, build)
    bin_dir = lab.private_dir("bin")
    one.trusted, one.other = bin_dir / "trusted", bin_dir / "other"
    for program in (one.trusted, one.other):
        shutil.copy(shutil.which("sleep"), program)
        program.chmod(0o755)
    one.write_entries(
        {
            "a-trusted": f'unix:uid:{A}", "unix:path:{one.trusted}',
            "b": f"unix:uid:{B}",
            "root": "unix:uid:0",
            "container": f"container:id:{CONTAINER}",
            "unit": f"systemd:id:{UNIT}",
        }
    )
    one.start(argv=["--attest-fallback"] if request.param == "fallback" else [])
    one.fallback = request.param == "fallback"
    return one


@pytest.fixture
def hands():
    """Makes hands, and ends them."""
    made = []

    def make(uid=0, **kw):
        made.append(Hand(uid, **kw))
        return made[-1]

    make.end = lambda: [h.end() for h in made]
    yield make
    make.end()


def names(message):
    r = workload_pb2.X509SVIDResponse()
    r.ParseFromString(message)
    return [s.spiffe_id.rpartition("/")[2] for s in r.svids]


class Held:
    """A connection that some process made and the test holds."""

    def __init__(self, sock):
        try:
            self.raw = Raw(None, sock=sock)
        except Ended:
            self.raw = None

    def ask(self):
        """The names of the identities; [] if there are none, or the agent has closed the connection."""
        if self.raw is None:
            return []
        try:
            stream = self.raw.open(SVID)
            while not stream.messages and not stream.ended:
                assert self.raw.pump(15), "no answer"
        except (Ended, ProtocolError):  # the second one is h2's, on a connection that was ended before
            return []
        if stream.messages:
            return names(stream.messages[0])
        assert stream.status == 7 or stream.reset is not None, (stream.status, stream.text)
        return []


# --- becoming something else -------------------------------------------------------------------------
def test_exec_after_the_connection(agent, hands):
    """What it is when it asks: before, then the trusted program, then another one, on one connection."""
    h = hands(A)
    held = Held(h.connect(agent.socket))
    assert held.ask() == []
    h.exec(agent.trusted)
    assert held.ask() == ["a-trusted"]
    second = hands(A)
    held = Held(second.connect(agent.socket))
    second.exec(agent.other)
    assert held.ask() == []


def test_another_user_after_the_connection(agent, hands):
    h = hands()
    held = Held(h.connect(agent.socket))
    assert held.ask() == ["root"]
    h.order("setuid", B)
    assert held.ask() == ["b"]
    h = hands()
    held = Held(h.connect(agent.socket))
    h.order("setuid", NOBODY)
    assert held.ask() == []


def test_exec_under_a_stream(agent, hands):
    """A push is due to a trusted program that has become another one meanwhile: the stream ends without it."""
    h = hands(B)
    held = Held(h.connect(agent.socket))
    agent.write_entries({"a-trusted": f'unix:uid:{B}", "unix:path:{agent.trusted}'})
    agent.process.send_signal(signal.SIGHUP)
    agent.wait_event("entries_loaded", 2)
    script = agent.lab.dir / "bin" / "go-on"
    os.mkfifo(script)
    os.chmod(script, 0o666)
    # a shell under the trusted name, which execs the other program when it is told to
    shutil.copy(os.path.realpath("/bin/sh"), agent.trusted)
    assert h.order("exec", str(agent.trusted), "-c", f"read x <{script}; exec {agent.other} 1000") == "execs"
    wait_for("the shell", lambda: os.readlink(f"/proc/{h.pid}/exe") == str(agent.trusted))
    stream = held.raw.open(SVID)
    assert names(stream.next()) == ["a-trusted"]
    script.write_text("x\n")
    wait_for("the other program", lambda: os.readlink(f"/proc/{h.pid}/exe") == str(agent.other))
    agent.write_entries({"a-trusted": f'unix:uid:{B}", "unix:path:{agent.trusted}', "more": "unix:uid:0"})
    agent.process.send_signal(signal.SIGHUP)
    stream.wait_end()
    assert stream.status == 7 and not stream.messages


def test_stream_of_a_process_that_changed(agent, hands):
    """An entry changes, and with it a push is due: it goes by what the process is by then."""
    h = hands()
    held = Held(h.connect(agent.socket))
    stream = held.raw.open(SVID)
    assert names(stream.next()) == ["root"]
    h.order("setuid", NOBODY)
    agent.write_entries({"root": "unix:uid:0", "more": "unix:uid:0"})
    agent.process.send_signal(signal.SIGHUP)
    stream.wait_end()
    assert stream.status == 7 and not stream.messages


# --- whose socket it is ------------------------------------------------------------------------------
def test_socket_in_other_hands(agent, hands):
    """It is the connecting process's while that lives, whoever holds it (documented); then nobody's."""
    h = hands(B)
    held = Held(h.connect(agent.socket))
    assert held.ask() == ["b"]
    h.order("leave")  # a child of it goes on
    h.p.wait()
    assert held.ask() == []


def test_entitled_process_holds_a_strangers_socket(agent, hands):
    """To hold a connection is not to have made it."""
    stranger, entitled = hands(NOBODY), hands(B)
    held = Held(stranger.connect(agent.socket))  # and the test, uid 0 and entitled itself, asks
    assert held.ask() == [] and Held(entitled.connect(agent.socket)).ask() == ["b"]


class CloneArgs(ctypes.Structure):
    _fields_ = [(n, ctypes.c_uint64) for n in ("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack",
                                               "stack_size", "tls", "set_tid", "set_tid_size", "cgroup")]  # fmt: skip


def process_under_the_number(pid, uid, program):
    """A process of that user and program whose pid is the given one, which must be free."""
    tid = ctypes.c_int32(pid)
    args = CloneArgs(exit_signal=signal.SIGCHLD, set_tid=ctypes.addressof(tid), set_tid_size=1)
    libc = ctypes.CDLL(None, use_errno=True)
    made = libc.syscall(435, ctypes.byref(args), ctypes.sizeof(args))
    if made == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.execv(program, [str(program), "1000"])
        finally:
            os._exit(99)
    assert made == pid, f"clone3: {os.strerror(ctypes.get_errno())}"


@pytest.mark.parametrize("when", ["before the first call", "between two calls"])
def test_pid_reuse(agent, hands, when):
    """The number comes again, under an entitled user and program: the connection is not theirs."""
    h = hands(B if when == "between two calls" else NOBODY)
    held = Held(h.connect(agent.socket))
    if when == "between two calls":
        assert held.ask() == ["b"]
    else:
        assert held.ask() == []
    pid = h.pid
    h.end()
    process_under_the_number(pid, A, agent.trusted)
    try:
        wait_for("its program", lambda: os.readlink(f"/proc/{pid}/exe") == str(agent.trusted))
        for _ in range(3):
            assert held.ask() == []
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# --- paths -------------------------------------------------------------------------------------------
def test_trusted_path(agent, hands):
    """The control of the cases below."""
    h = hands(A)
    held = Held(h.connect(agent.socket))
    h.exec(agent.trusted)
    assert held.ask() == ["a-trusted"]


def test_mount_over_the_trusted_path(agent, hands):
    """In a mount namespace of its own, made by nobody with privileges in a user namespace, another program is there."""
    h = hands(A)
    try:
        h.order("unshare", hand.CLONE_NEWUSER | hand.CLONE_NEWNS)
        h.order("map_uid", A, A)
    except hand.Failed as e:
        pytest.skip(f"no user namespaces here: {e}")
    h.order("bind", str(agent.other), str(agent.trusted))
    held = Held(h.connect(agent.socket))
    h.exec(agent.trusted)
    assert os.readlink(f"/proc/{h.pid}/exe") == str(agent.trusted), "the lie is not there"
    assert held.ask() == []


def test_mount_namespace_by_root(agent, hands):
    """The same with a mount namespace alone, made before it gives up being root."""
    h = hands()
    h.order("unshare", hand.CLONE_NEWNS)
    h.order("private")
    h.order("bind", str(agent.other), str(agent.trusted))
    h.order("setuid", A)
    held = Held(h.connect(agent.socket))
    h.exec(agent.trusted)
    assert held.ask() == []


def test_chroot(agent, hands):
    """A directory in which the trusted path exists too."""
    jail = agent.lab.private_dir("jail")
    inside = jail / agent.trusted.relative_to("/")
    inside.parent.mkdir(parents=True)
    shutil.copy(agent.other, inside)
    for line in run("ldd", agent.other).stdout.splitlines():
        for word in line.split():
            if word.startswith("/"):
                to = jail / word.lstrip("/")
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(word, to)
    h = hands()
    held = Held(h.connect(agent.socket))
    h.order("chroot", str(jail))
    h.order("setuid", A)
    h.exec(agent.trusted)
    assert held.ask() == []


def test_links_and_copies(agent, hands):
    """Another name of the same file, a name that looks deleted, a copy in memory: none is the trusted path."""
    hard = agent.trusted.parent / "hard"
    os.link(agent.trusted, hard)
    marked = agent.trusted.parent / "trusted (deleted)"
    shutil.copy(agent.other, marked)
    for path, how in ((hard, "exec"), (marked, "exec"), (agent.trusted, "exec_memfd")):
        h = hands(A)
        held = Held(h.connect(agent.socket))
        h.exec(path, how)
        assert held.ask() == [], (path, how)


def test_trusted_program_that_was_deleted(agent, hands):
    """Whoever may delete it may have put anything there: no path any more."""
    h = hands(A)
    held = Held(h.connect(agent.socket))
    h.exec(agent.trusted)
    assert held.ask() == ["a-trusted"]
    agent.trusted.unlink()
    shutil.copy(agent.other, agent.trusted)
    assert held.ask() == []


# --- users -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("inside", [0, B])
def test_user_namespace(agent, hands, inside):
    """Nobody in particular, who in a namespace of its own is root, or an entitled user."""
    h = hands(NOBODY)
    try:
        h.order("unshare", hand.CLONE_NEWUSER)
        h.order("map_uid", inside, NOBODY)
    except hand.Failed as e:
        pytest.skip(f"no user namespaces here: {e}")
    assert Held(h.connect(agent.socket)).ask() == []


# --- control groups ----------------------------------------------------------------------------------
def group_roots():
    """Where groups can be made: the unified hierarchy, and systemd's own one of version 1."""
    for d in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup"):
        if (pathlib.Path(d) / "cgroup.procs").exists():
            yield pathlib.Path(d)


@pytest.fixture(params=["cgroup2", "cgroup1"])
def groups(request, lab, hands):
    """Makes groups below a hierarchy's root and removes them, after whoever is in them."""
    v2 = [d for d in group_roots() if (d / "cgroup.controllers").exists() == (request.param == "cgroup2")]
    if not v2:
        pytest.skip(f"no {request.param} here")
    made = []

    def make(path):
        d = v2[0]
        for part in pathlib.PurePath(path).parts:
            d = d / part
            with contextlib.suppress(FileExistsError):
                d.mkdir()
                made.append(d)
        return d / "cgroup.procs"

    try:
        make(f"postern-{lab.prefix}")
    except OSError as e:
        pytest.skip(f"groups cannot be made here: {e}")
    yield make
    hands.end()
    for d in reversed(made):
        # somebody else may have put something below meanwhile; who was in ours has ended
        def removed(d=d):
            try:
                d.rmdir()
            except OSError as e:
                return e.errno != 16 or any(x.is_dir() for x in d.iterdir())
            return True

        wait_for(f"{d} to be empty", removed)


POD = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
FORMS = {
    "kubelet, systemd": f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD.replace('-', '_')}.slice/"
    f"cri-containerd-{CONTAINER}.scope",
    "kubelet, cgroupfs": f"kubepods/besteffort/pod{POD}/{CONTAINER}",
    "Docker": f"system.slice/docker-{CONTAINER}.scope",
    "Podman": f"machine.slice/libpod-{CONTAINER}.scope",
    "unit": f"system.slice/{UNIT}",
}


@pytest.mark.parametrize("form", FORMS)
def test_names_below_its_own_group(agent, hands, groups, form):
    """The group that a workload may write to, and below it whatever it likes to be."""
    for own in (f"postern-{agent.lab.prefix}", f"user.slice/user-{NOBODY}.slice/postern-{agent.lab.prefix}"):
        procs = groups(f"{own}/{FORMS[form]}")
        h = hands()
        h.order("write", str(procs), str(h.pid))
        h.order("setuid", NOBODY)
        assert Held(h.connect(agent.socket)).ask() == []


@pytest.mark.parametrize("form", ["Docker", "unit"])
def test_names_at_their_own_place(agent, hands, groups, form):
    """The control of the case above; and what is contained gets nothing by its uid alone."""
    h = hands()
    for d in pathlib.Path("/sys/fs/cgroup").glob("*/cgroup.procs"):
        h.order("write", str(d), str(h.pid))  # no other hierarchy may name anything else
    h.order("write", str(groups(FORMS[form])), str(h.pid))
    h.order("setuid", B)
    assert Held(h.connect(agent.socket)).ask() == (["container"] if form == "Docker" else ["b", "unit"])


def test_group_left_after_the_connection(agent, hands, groups):
    """Out of the container's group, and into one of its own making: read again at the next call. It is root."""
    h = hands()
    h.order("write", str(groups(FORMS["Docker"])), str(h.pid))
    held = Held(h.connect(agent.socket))
    assert held.ask() == ["container"]
    h.order("write", str(groups(f"postern-{agent.lab.prefix}/{FORMS['Docker']}")), str(h.pid))
    assert held.ask() == ["root"]
