"""postern rotate: commands, signals and the supervised child after a change. docs/rotation-actions.md, cases I."""

import json
import os
import pathlib
import pty
import shutil
import signal
import socket
import time

import pytest
from lab import wait_for
from rotating import Rotating, root_agent


@pytest.fixture
def rooted(node):
    root_agent(node)
    return node


def script(rot, name, text):
    path = rot.dir / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def lines(rot, **want):
    return [e["line"] for e in rot.events("action_output", **want) if "line" in e]


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- commands --------------------------------------------------------------------------------------


def test_no_shell(rooted):
    rot = Rotating(
        rooted,
        "  layout: separate\n  after:\n"
        "  - command: [/usr/bin/printf, '%s\\n', '$(id)', '`id`', 'a;b', '*', '>DIR/x', \"q'\\\"q\", '$HOME']\n",
    ).start()
    rot.wait_event("action", state="done")
    assert lines(rot) == ["$(id)", "`id`", "a;b", "*", f">{rot.dir}/x", "q'\"q", "$HOME"]
    assert not (rot.dir / "x").exists()


def test_command_surroundings(rooted):
    rot = Rotating(rooted, "")
    look = script(
        rot, "look", "env; echo fds=$(ls /proc/self/fd | tr '\\n' ' '); grep -E 'NoNewPrivs|Groups|Uid|Cap' /proc/self/status\n"
        "pwd; cat; echo err >&2\n"
    )  # fmt: skip
    rot.write(f"  layout: separate\n  after:\n  - {{command: [{look}], user: nobody}}\n")
    os.environ["SECRET_OF_OURS"] = "x"
    try:
        rot.start()
        rot.wait_event("action", state="done")
    finally:
        del os.environ["SECRET_OF_OURS"]
    said = lines(rot)
    env = sorted(x.split("=")[0] for x in said if "=" in x and not x.startswith("fds="))
    assert env == ["HOME", "LANG", "PATH", "POSTERN_DIRECTORY", "POSTERN_GENERATION", "POSTERN_OUTPUT", "PWD"]
    assert "POSTERN_OUTPUT=web" in said and f"POSTERN_DIRECTORY={rot.files}" in said
    assert "POSTERN_GENERATION=1" in said and "HOME=/nonexistent" in said
    # ls has a descriptor of its own for the directory.
    assert "fds=0 1 2 3 " in [x + (" " if not x.endswith(" ") else "") for x in said if x.startswith("fds=")]
    assert "NoNewPrivs:\t1" in said and "/" in said and "err" in said
    assert any(x.startswith("Uid:\t65534\t65534") for x in said)
    assert any(x.startswith("Groups:") and x.split() == ["Groups:"] for x in said)
    assert "CapEff:\t0000000000000000" in said and "CapPrm:\t0000000000000000" in said


def test_command_that_hangs(rooted):
    """Ignores SIGTERM and has a child: both go, and the next action comes, and the next rotation."""
    rot = Rotating(rooted, "")
    hang = script(
        rot, "hang", f"trap '' TERM\necho $$ >>{rot.dir}/pids\n(trap '' TERM; exec sleep 1000) &\necho $! >>{rot.dir}/pids\n"
        "wait\nsleep 1000\n"
    )  # fmt: skip
    rot.write(
        "  layout: separate\n  after:\n"
        f"  - {{command: [{hang}], timeout: 200ms, attempts: 1, if_failed: continue}}\n  - command: [/bin/echo, next]\n"
    )
    rot.start()
    e = rot.wait_event("action", state="timed_out")
    assert e["attempt"] == 1
    rot.wait_event("action", state="done")
    assert lines(rot) == ["next"]
    pids = [int(x) for x in (rot.dir / "pids").read_text().split()]
    assert len(pids) == 2
    wait_for("the hanging ones to be gone", lambda: not any(alive(p) for p in pids))
    rot.renew()
    rot.wait_event("action", state="timed_out", at_least=2)
    rot.wait_event("action", state="done", at_least=2)


def test_command_with_descendants(rooted):
    """Somebody in the background keeps the output open: the action ends with the program."""
    rot = Rotating(rooted, "")
    leave = script(rot, "leave", f"(exec sleep 1000) &\necho $! >{rot.dir}/pid\necho left\n")
    rot.write(f"  layout: separate\n  after:\n  - {{command: [{leave}], timeout: 60s}}\n")
    rot.start()
    rot.wait_event("action", state="done", timeout=20)
    pid = int((rot.dir / "pid").read_text())
    assert lines(rot) == ["left"] and alive(pid)
    os.kill(pid, signal.SIGKILL)
    # It was handed to the runner, which does not leave it unreaped.
    wait_for("its end to be noticed", lambda: not pathlib.Path(f"/proc/{pid}").exists())


def test_command_output_bounded(rooted):
    rot = Rotating(rooted, "")
    flood = script(
        rot, "flood", "printf 'a\\tb\\033[31m\\n'\nhead -c 5000 /dev/zero | tr '\\0' x; echo\nseq 1 5000\n"
    )
    rot.write(f"  layout: separate\n  after:\n  - command: [{flood}]\n")
    rot.start()
    rot.wait_event("action", state="done")
    said = lines(rot)
    assert said[0] == "a\tb\x1b[31m" and "\x1b" not in rot.process.err()
    assert said[1].startswith("xxxx") and len(said[1]) <= 1027
    lost = [e["lost"] for e in rot.events("action_output") if "lost" in e]
    assert len(said) <= 100 and lost == [5002 - len(said)]


def test_failures_are_tried_again(rooted):
    rot = Rotating(rooted, "")
    third = script(rot, "third", f"echo x >>{rot.dir}/n\ntest $(wc -l <{rot.dir}/n) -ge 3\n")
    rot.write(
        f"  layout: separate\n  after:\n  - {{command: [{third}], backoff: 20ms}}\n"
        "  - {command: [/bin/false], attempts: 2, backoff: 20ms}\n  - {command: [/bin/echo, never]}\n"
    )
    rot.start()
    rot.wait_event("action", state="skipped")
    states = [(e["target"].split("/")[-1], e["state"], e["attempt"]) for e in rot.events("action")]
    assert states == [
        ("third", "waiting", 1), ("third", "waiting", 2), ("third", "done", 3),
        ("false", "waiting", 1), ("false", "failed", 2), ("echo", "skipped", 0),
    ]  # fmt: skip
    after = rot.status()["after"]
    assert [a["state"] for a in after] == ["done", "failed", "skipped"] and after[1]["error"] == "exit status 1"
    m = rot.metrics()
    assert 'postern_rotate_actions_total{output="web",state="failed"} 1' in m
    assert 'postern_rotate_actions_total{output="web",state="done"} 1' in m
    p = rot.run("--status")
    assert p.returncode == 1 and "after command /bin/false failed: exit status 1" in p.stdout, p.stdout
    assert json.loads(rot.run("--status", "--json").stdout)["outputs"][0]["after"][1]["state"] == "failed"


def test_status_of_failing_actions(rooted):
    """A failed try counts before the last one; a text is escaped once; a daemon that does not answer says
    nothing, and so does --status."""
    rot = Rotating(
        rooted,
        "  layout: separate\n  after:\n  - {command: ['/nowhere/\"a'], attempts: 1, if_failed: continue}\n"
        "  - {command: [/bin/false], backoff: 60s}\n",
    ).start()
    rot.wait_event("action", state="waiting")
    first, second = rot.status()["after"]
    assert '"a' in first["error"] and "\\" not in first["error"] and second["state"] == "waiting"
    p = rot.run("--status")
    assert p.returncode == 1 and "after command /bin/false waiting" in p.stdout, p.stdout
    rot.write("  layout: separate\n  after:\n  - {command: [/bin/false], backoff: 60s}\n")
    rot.renew()
    rot.wait_event("action", state="waiting", at_least=2)
    assert [a["state"] for a in rot.status()["after"]] == ["waiting"]
    p = rot.run("--status")
    assert p.returncode == 1, p.stdout
    rot.process.stop()
    p = rot.run("--status")
    assert p.returncode == 1 and "after and verify: not known" in p.stdout, p.stdout
    out = json.loads(rot.run("--status", "--json").stdout)["outputs"][0]
    assert out["outcome_known"] is False and out["after"] is None and out["state"] == "fresh"


def test_once(rooted):
    rot = Rotating(rooted, "  layout: separate\n  after:\n  - command: [/bin/echo, once]\n")
    p = rot.run("--once")
    assert p.returncode == 0 and '"line":"once"' in p.stderr, p.stderr
    rot.write("  layout: separate\n  after:\n  - {command: [/bin/false], attempts: 2, backoff: 10ms}\n")
    p = rot.run("--once")
    assert p.returncode == 1 and '"state":"failed"' in p.stderr, p.stderr


def test_unprivileged(rooted):
    """Without root a command runs as whoever started the daemon, and as nobody else."""
    d = rooted.lab.private_dir("mine", 48101)
    conf = d / "rotate.yaml"

    def write(extra):
        conf.write_text(
            f"kind: Rotate\nlevel: 1\nidentity: {{socket: 'unix:{rooted.socket}'}}\noutputs:\n- name: web\n"
            f"  directory: {d}/out\n  layout: separate\n  after:\n  - {{command: [/usr/bin/id, -u], attempts: 1{extra}}}\n"
        )

    write("")
    p = rooted.lab.run_in([rooted.postern, "rotate", "--once", conf], uid=48101)
    assert p.returncode == 0 and '"line":"48101"' in p.stderr, p.stderr
    write(", user: root")
    p = rooted.lab.run_in([rooted.postern, "rotate", "--once", conf], uid=48101)
    assert p.returncode == 1 and "Operation not permitted" in p.stderr, p.stderr


def test_unprivileged_signal(rooted):
    """Its own processes; another user's with CAP_SYS_PTRACE, to see what it runs, and CAP_KILL."""
    d = rooted.lab.private_dir("mine", 48101)
    exe = d / "server"
    shutil.copy("/bin/sleep", exe)
    own = rooted.lab.start("own", [exe, "1000"], uid=48101)
    roots = rooted.lab.start("roots", [exe, "1000"])
    conf = d / "rotate.yaml"

    def once(pid, caps):
        (d / "pid").unlink(missing_ok=True)
        (d / "pid").write_text(f"{pid}\n")
        conf.write_text(
            f"kind: Rotate\nlevel: 1\nidentity: {{socket: 'unix:{rooted.socket}'}}\noutputs:\n- name: web\n"
            f"  directory: {d}/out\n  layout: separate\n  after:\n"
            f"  - {{signal: {{pid_file: {d}/pid, executable: {exe}}}, attempts: 1}}\n"
        )
        argv = ["setpriv", "--reuid=48101", "--regid=48101", "--clear-groups", f"--inh-caps={caps}",
                f"--ambient-caps={caps}", "--", rooted.postern, "rotate", "--once", conf]  # fmt: skip
        return rooted.lab.run_in(argv, with_hosts=False)

    p = once(own.pid, "-all")
    assert p.returncode == 0, p.stderr
    assert own.p.wait(10) == -signal.SIGHUP
    p = once(roots.pid, "-all")
    assert p.returncode == 1 and "cannot be seen" in p.stderr, p.stderr
    p = once(roots.pid, "+sys_ptrace")
    assert p.returncode == 1 and "Operation not permitted" in p.stderr, p.stderr
    p = once(roots.pid, "+sys_ptrace,+kill")
    assert p.returncode == 0, p.stderr
    assert roots.p.wait(10) == -signal.SIGHUP


def test_systemd(rooted):
    """systemctl, played by a program that shows how it was called."""
    rot = Rotating(rooted, "")
    fake = script(rot, "systemctl", 'for a in "$@"; do echo "[$a]"; done\n')
    rot.write(
        "  layout: separate\n  after:\n"
        f"  - systemd: {{try-reload-or-restart: 'web@1.service', systemctl: {fake}}}\n"
    )
    rot.start()
    rot.wait_event("action", state="done", action="systemd", target="web@1.service")
    assert lines(rot) == ["[--no-ask-password]", "[try-reload-or-restart]", "[--]", "[web@1.service]"]


# --- signals ---------------------------------------------------------------------------------------


def test_signal_by_pid_file(rooted):
    rot = Rotating(rooted, "")
    exe = rot.dir / "server"
    shutil.copy("/bin/sleep", exe)
    victim = rooted.lab.start("victim", [exe, "1000"])
    (rot.dir / "pid").write_text(f"{victim.pid}\n")
    rot.write(
        "  layout: separate\n  after:\n"
        f"  - {{signal: {{pid_file: DIR/pid, signal: USR1, executable: {exe}}}, attempts: 1}}\n"
    )
    rot.start()
    rot.wait_event("action", state="done", action="signal")
    assert victim.p.wait(10) == -signal.SIGUSR1
    rot.renew()
    assert "there is no such process" in rot.wait_event("action", state="refused")["message"]


# --- reload ----------------------------------------------------------------------------------------


def test_reload(rooted):
    rot = Rotating(rooted, "  layout: separate\n  after: [{command: [/bin/echo, one]}]\n").start()
    rot.wait_event("action", state="done")
    rot.write("  layout: separate\n  after: [{command: [/bin/echo, two]}]\n")
    rot.renew()
    rot.wait_event("action", state="done", at_least=2)
    assert lines(rot) == ["one", "two"]
    # Everybody may write to it by now: it would say which programs root runs.
    rot.write("  layout: separate\n  after: [{command: [/bin/echo, three]}]\n")
    rot.conf.chmod(0o666)
    rot.process.send_signal(signal.SIGHUP)
    assert "others may write to it" in rot.wait_event("reload_failed")["error"]
    rot.conf.chmod(0o644)
    rot.renew()
    rot.wait_event("action", state="done", at_least=3)
    assert lines(rot) == ["one", "two", "three"]


def test_start_with_a_file_that_others_write(rooted):
    rot = Rotating(rooted, "  layout: separate\n  after: [{command: [/bin/echo, one]}]\n")
    rot.conf.chmod(0o664)
    p = rot.run("--once")
    assert p.returncode == 1 and "others may write to it (mode 0664)" in p.stderr


def test_actions_that_come_later(rooted):
    rot = Rotating(rooted, "  layout: separate\n").start()
    rot.wait_event("ready")
    rot.write("  layout: separate\n  after: [{command: [/bin/echo, late]}]\n")
    rot.process.send_signal(signal.SIGHUP)
    assert "restart it" in rot.wait_event("reload_failed")["advice"]


# --- the child -------------------------------------------------------------------------------------

CHILD = """
test -s OUT/tls.crt && test -s OUT/tls.key || exit 90
trap 'echo hup' HUP; trap 'echo usr1' USR1; trap 'echo term; exit 7' TERM
echo "started as $SECRET in $PWD with <$NOTIFY_SOCKET>"
while :; do sleep 0.05; done
"""


def start_child(rot, text=CHILD, **kw):
    path = script(rot, "child", text.replace("OUT", str(rot.files)))
    rot.start(path, **kw)
    rot.wait_event("child_started")
    return rot


def test_child(rooted):
    rot = Rotating(rooted, "  layout: separate\n  after: [{signal: {child: true, signal: USR1}}]\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{rot.dir}/notify")
        start_child(rot, env={**os.environ, "SECRET": "x", "NOTIFY_SOCKET": f"{rot.dir}/notify"}, cwd=rot.dir)
    wait_for("its first line", lambda: f"started as x in {rot.dir} with <>" in rot.process.out())
    # The first files are what it started with: no signal for them.
    assert [e["state"] for e in rot.events("action")] == ["skipped"]
    rot.renew()
    wait_for("SIGUSR1", lambda: "usr1" in rot.process.out())
    wait_for("SIGHUP", lambda: "hup" in rot.process.out())
    rot.process.send_signal(signal.SIGTERM)
    assert rot.process.p.wait(20) == 7
    assert rot.process.out().splitlines()[-1] == "term"
    assert rot.events("child_ended", exit_status=7)


@pytest.mark.parametrize("how, status", [("exit 0", 0), ("exit 42", 42), ("kill -KILL $$", 137), ("kill -SEGV $$", 139)])
def test_child_status(rooted, how, status):
    rot = Rotating(rooted, "  layout: separate\n")
    start_child(rot, how + "\n")
    assert rot.process.p.wait(20) == status


def test_child_that_cannot_start(rooted):
    rot = Rotating(rooted, "  layout: separate\n").start("/nowhere/program")
    assert rot.process.p.wait(20) == 127
    assert "No such file" in rot.events("child_ended")[0]["message"]


def test_child_by_path(rooted):
    rot = Rotating(rooted, "  layout: separate\n").start("sh", "-c", "echo by path; exit 3")
    assert rot.process.p.wait(20) == 3 and "by path" in rot.process.out()


def test_child_outlives_the_agent(rooted):
    """Rotation that fails is no end of the child."""
    rot = Rotating(rooted, "  layout: separate\n")
    start_child(rot)
    rooted.agent.stop()
    rot.wait_event("rotation", notice="agent_away")
    assert rot.process.alive()
    rot.process.send_signal(signal.SIGTERM)
    assert rot.process.p.wait(20) == 7


def runner_of(rot):
    pid = rot.process.pid
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        children = (task / "children").read_text().split()
        for c in children:
            if "postern-rotate-run" in pathlib.Path(f"/proc/{c}/cmdline").read_text():
                return int(c)
    raise AssertionError("no runner")


def test_killed(rooted):
    rot = Rotating(rooted, "  layout: separate\n")
    start_child(rot)
    runner, child = runner_of(rot), rot.events("child_started")[0]["pid"]
    wait_for("its first line", lambda: "started" in rot.process.out())
    os.kill(rot.process.pid, signal.SIGKILL)
    wait_for("the child to be ended in order", lambda: rot.process.out().splitlines()[-1] == "term")
    wait_for("all of them to be gone", lambda: not alive(runner) and not alive(child))
    rot = Rotating(rooted, "  layout: separate\n", name="second")
    start_child(rot)
    runner, child = runner_of(rot), rot.events("child_started")[0]["pid"]
    os.kill(runner, signal.SIGKILL)
    assert rot.process.p.wait(20) == 1
    wait_for("the child to be gone", lambda: not alive(child))
    assert rot.events("runner_gone")


def test_orphans_as_process_one(node):
    """In a container: the child's orphans are reaped, and its status is the container's. The agent is in
    it as well, since nobody's uid alone counts across pid namespaces."""
    node.write_entries(uids={"root": 0})
    node.write_agent()
    rot = Rotating(node, "  layout: separate\n")
    # Some leave one behind that ends; then the dead are counted.
    child = script(
        rot, "child", "for i in 1 2 3; do (sh -c 'sleep 0.1 & exec true' &); done\nsleep 1\n"
        "cat /proc/[0-9]*/status | grep -c '^State:.Z'\nexit 5\n"
    )  # fmt: skip
    argv = " ".join(map(str, rot.argv(child)))
    rot.process = node.lab.start(
        "rot",
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
         f"{node.postern} agent {node.conf}/agent.yaml 2>{rot.dir}/agent.log & exec {argv}"],
    )  # fmt: skip
    assert rot.process.p.wait(60) == 5, rot.process.err()[-3000:]
    assert rot.process.out().split() == ["0"]


def test_terminal(rooted):
    """The child has the terminal: what is typed reaches it, and Ctrl-C once."""
    rot = Rotating(rooted, "  layout: separate\n")
    child = script(rot, "child", "trap 'echo int; exit 9' INT\nread line\necho got $line\nwhile :; do sleep 0.05; done\n")
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(str(rooted.postern), [str(a) for a in rot.argv(child)])
    seen = b""

    def read_until(word):
        nonlocal seen

        def more():
            nonlocal seen
            try:
                seen += os.read(fd, 65536)
            except OSError:
                pass
            return word in seen

        wait_for(f"{word} in {seen[-500:]}", more)

    read_until(b"child_started")
    os.write(fd, b"hello\n")
    read_until(b"got hello")
    os.write(fd, b"\x03")
    read_until(b"int")
    _, status = os.waitpid(pid, 0)
    os.close(fd)
    assert os.waitstatus_to_exitcode(status) == 9 and seen.count(b"int\r") == 1


# --- the daemon's own surroundings -----------------------------------------------------------------


def test_daemon_runs_nothing_itself(rooted):
    """What is started is the runner's; the daemon has its filter, and no descriptor is the command's."""
    rot = Rotating(rooted, "  layout: separate\n  after: [{command: [/bin/sh, -c, 'echo $PPID']}]\n").start()
    rot.wait_event("action", state="done")
    assert int(lines(rot)[0]) == runner_of(rot)
    text = pathlib.Path(f"/proc/{rot.process.pid}/status").read_text()
    assert "Seccomp:\t2" in text and "NoNewPrivs:\t1" in text
    assert rot.process.stop(signal.SIGTERM) == 0


def test_end_while_a_command_runs(rooted):
    rot = Rotating(rooted, "")
    slow = script(rot, "slow", f"echo $$ >{rot.dir}/pid\nexec sleep 1000\n")
    rot.write(f"  layout: separate\n  after: [{{command: [{slow}], timeout: 1h}}]\n")
    rot.start()
    pid = int(wait_for("it to run", lambda: (rot.dir / "pid").read_text().strip()))
    begun = time.monotonic()
    assert rot.process.stop(signal.SIGTERM) == 0
    assert time.monotonic() - begun < 15
    wait_for("it to be gone", lambda: not alive(pid))
