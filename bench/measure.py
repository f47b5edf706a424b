"""One measurement each: a load run against a pair, with the pair's CPU time and memory around it."""

import json
import os
import pathlib
import select
import statistics
import subprocess
import time

from peers import Failed

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids):
    """User and system time of all processes of a pair. One that has ended meanwhile (a helper) is left out."""
    total = 0
    for pid in pids:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def running_ms(pid):
    """CPU time of one process, finer than a tick."""
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(t.read_text().split()[0]) for t in tasks) / 1e6


def anonymous_of(pid):
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1])
    return 0


def anonymous_kb(pids):
    """Anonymous memory: what a process has made its own, without the text of its libraries."""
    return sum(anonymous_of(pid) for pid in pids)


def settled_kb(pids, seconds=10):
    """Memory when it has not changed for two seconds: some give back what they don't need, a while after."""
    end = time.monotonic() + seconds
    before, since = anonymous_kb(pids), time.monotonic()
    while time.monotonic() < end and time.monotonic() - since < 2:
        time.sleep(0.3)
        now = anonymous_kb(pids)
        if abs(now - before) > before // 500:
            before, since = now, time.monotonic()
    return before


class Load:
    """bench/load/load: connections are up when this is made; go() runs and returns what it counted."""

    def __init__(self, tool, pair, mode, path, connections=1, seconds=1.0, rate=1000):
        argv = [*pair.enter, tool, mode, "--to", f"{pair.host}:{pair.listen}", "--path", path]
        if pair.streams > 0:  # as many requests at once, on fewer connections
            connections = max(1, connections // pair.streams)
            argv += ["--streams", pair.streams]
        argv += ["--connections", connections, "--seconds", seconds, "--rate", rate]
        self.p = subprocess.Popen(
            [str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.seconds = seconds
        self.what = f"{mode} {path} over {connections} connections"
        # A handshake costs milliseconds, and there may be thousands.
        if self.line(60 + connections / 50) != "ready":
            self.failed("did not become ready")

    def line(self, seconds):
        ready, _, _ = select.select([self.p.stdout], [], [], seconds)
        return self.p.stdout.readline().strip() if ready else ""

    def failed(self, what):
        self.p.kill()
        raise Failed(f"load {self.what} {what}: {self.p.communicate()[1].strip()}")

    def begin(self):
        self.p.stdin.write("go\n")
        self.p.stdin.flush()

    def go(self):
        self.begin()
        return self.counted()

    def counted(self):
        line = self.line(self.seconds + 30)
        if not line:
            self.failed("gave no answer")
        self.close()
        counts = json.loads(line)
        if counts["requests"] == 0 and counts["bytes"] == 0:
            self.failed("got nothing through")
        return counts

    def close(self):
        self.p.stdin.close()
        self.p.wait(30)
        self.p.stdout.close()
        self.p.stderr.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait()


def run_load(tool, pair, **kw):
    """The load's counts with the pair's CPU seconds beside them."""
    with Load(tool, pair, **kw) as load:
        pids = pair.pids()
        before = cpu_seconds(pids)
        counts = load.go()
        counts["cpu_s"] = cpu_seconds(pids) - before
    return counts


def each(amount, requests):
    """Of one request; None: there was none, as with few seconds and much else to do."""
    return amount / requests if requests > 0 else None


def bulk(tool, pair, streams, seconds):
    r = run_load(tool, pair, mode="kept", path="/big", connections=streams, seconds=seconds)
    return {
        "mb_per_s": r["bytes"] / r["seconds"] / 1e6,
        "cpu_s_per_gb": r["cpu_s"] / (r["bytes"] / 1e9),
        "errors": r["errors"],
    }


def fresh(tool, pair, seconds):
    r = run_load(tool, pair, mode="fresh", path="/small", connections=8, seconds=seconds)
    return {"per_s": r["requests"] / r["seconds"], "cpu_us": each(r["cpu_s"] * 1e6, r["requests"]), "errors": r["errors"]}


def kept(tool, pair, seconds):
    r = run_load(tool, pair, mode="kept", path="/small", connections=16, seconds=seconds)
    return {"per_s": r["requests"] / r["seconds"], "cpu_us": each(r["cpu_s"] * 1e6, r["requests"]), "errors": r["errors"]}


def fixed_rate(tool, pair, seconds, rate):
    r = run_load(tool, pair, mode="rate", path="/small", connections=16, seconds=seconds, rate=rate)
    return {
        "p50_ms": r["p50_us"] / 1e3,
        "p99_ms": r["p99_us"] / 1e3,
        "cpu_us": each(r["cpu_s"] * 1e6, r["requests"]),
        "errors": r["errors"] + r["unsent"],
    }


def memory(tool, pair, counts):
    """Of a pair that was just started: idle, and what each idle connection adds."""
    with Load(tool, pair, "kept", "/small") as one:
        one.close()
    pids = pair.pids()
    idle = settled_kb(pids)
    out = {"idle_mb": idle / 1024, "process_mb": max(anonymous_of(pid) for pid in pids) / 1024}
    for n in counts:
        with Load(tool, pair, "idle", "/small", connections=n) as load:
            out[f"held_{n}_kb"] = (settled_kb(pids) - idle) / n
            load.close()
        settled_kb(pids)
    return out


def kept_and_fresh(tool, pair, seconds, rate, meanwhile):
    """Requests at a fixed rate on kept connections, and new connections one after another; meanwhile() in between."""
    with (
        Load(tool, pair, "rate", "/small", connections=16, seconds=seconds, rate=rate) as kept,
        Load(tool, pair, "fresh", "/small", connections=1, seconds=seconds) as fresh,
    ):
        pids = pair.pids()
        before = cpu_seconds(pids)
        kept.begin()
        fresh.begin()
        meanwhile()
        counts = [kept.counted(), fresh.counted()]
        requests = sum(c["requests"] for c in counts)
        # What a process has taken is not known any more when it has ended (its connections were over).
        whole = all(pathlib.Path(f"/proc/{pid}").exists() for pid in pids)
        # A request that was due and not sent by the end was never lost.
        return {
            "requests": requests,
            "lost": sum(c["errors"] for c in counts),
            "cpu_us": each((cpu_seconds(pair.pids()) - before) * 1e6, requests) if whole else None,
            "longest_ms": max(c["max_us"] for c in counts) / 1e3,
            "p99_ms": counts[0]["p99_us"] / 1e3,
        }


def upgrade(tool, pair, rate, times=2, pause_s=0.5):
    """New processes take over under load, `times` on each side in turn."""
    seconds = 2.0 * (2 * times * (pause_s + 0.5))
    without = kept_and_fresh(tool, pair, seconds / 2, rate, lambda: None)
    took, start_cpu = [], []

    def take_over():
        end = time.monotonic() + seconds
        for i in range(2 * times):
            time.sleep(pause_s)
            begun = time.monotonic()
            pid = pair.upgrade(("server", "client")[i % 2])
            took.append(time.monotonic() - begun)
            start_cpu.append(running_ms(pid))
        if time.monotonic() > end:
            raise Failed(f"{pair.name}: {2 * times} upgrades took longer than the load of {seconds:.0f} s")

    out = kept_and_fresh(tool, pair, seconds, rate, take_over)
    out |= {f"{k}_without": without[k] for k in ("cpu_us", "longest_ms", "p99_ms")}
    out["lost_without"] = without["lost"]
    return out | {"upgrades": len(took), "took_ms": max(took) * 1e3, "start_cpu_ms": statistics.median(start_cpu)}
