"""soak: the demo's traffic for minutes under the address sanitizer; no report, no growth."""

import os
import signal
import time

from lab import wait_for
from mesh import HTTP_PORT, TICKER_PORT, WORKLOADS
from steps import talk
from traffic import Load

SANITIZER_WORDS = ("ERROR: AddressSanitizer", "runtime error:", "ERROR: LeakSanitizer", "WARNING: ThreadSanitizer")


def anonymous_kb(pid):
    for line in open(f"/proc/{pid}/smaps_rollup"):
        if line.startswith("Anonymous:"):
            return int(line.split()[1])
    raise ValueError("no Anonymous line")


def run(mesh, report, minutes):
    mesh.ttl = "30s"
    # Freed memory waits in the sanitizer's quarantine: kept small, so that growth is the program's own.
    os.environ["ASAN_OPTIONS"] = "quarantine_size_mb=8:" + os.environ.get("ASAN_OPTIONS", "")
    report.title(f"Soak: {minutes:g} minutes")
    mesh.up()
    end = time.monotonic() + minutes * 60
    load = Load(mesh.ns["frontend"], mesh.ip4["orders"], HTTP_PORT, "/orders", mesh.marker("orders"), 100)
    rounds = 0
    bad = []
    early = None
    while time.monotonic() < end:
        for _ in range(20):
            if not talk(mesh, "frontend", mesh.ip4["orders"], TICKER_PORT).startswith("ticker ready"):
                bad.append("ticker")
        mesh.curl("ledger", "http://orders:8080/orders")
        mesh.sidecar["orders"].send_signal(signal.SIGHUP)
        rounds += 1
        if early is None and time.monotonic() > end - minutes * 60 * 0.75:
            early = {w: anonymous_kb(mesh.sidecar[w].pid) for w in WORKLOADS}
    load.stop()
    late = {w: anonymous_kb(mesh.sidecar[w].pid) for w in WORKLOADS}
    early = early or late
    report.step(
        "traffic", "no failure", f"{load.done} requests, {rounds} rounds, failed: {(load.failed + bad)[:3]}",
        load.done > 0 and not load.failed and not bad,
    )
    report.step(
        "anonymous memory between the first quarter and the end",
        "grows by less than 10% and 4 MB",
        ", ".join(f"{w} {early[w]} → {late[w]} kB" for w in WORKLOADS),
        all(late[w] < early[w] * 1.1 + 4096 for w in WORKLOADS),
    )
    codes = {}
    for w in WORKLOADS:
        codes[w] = mesh.sidecar[w].stop(timeout=60)
    codes["agent"] = mesh.agent.stop(timeout=30)
    wait_for("everything to end", lambda: not mesh.agent.alive(), timeout=10)
    reports = [p.name for p in mesh.lab.processes if any(x in p.err() for x in SANITIZER_WORDS)]
    report.step("sanitizer reports", "none", reports or "none", not reports)
    report.step("exit status of agent and sidecars", "0 each", codes, all(c == 0 for c in codes.values()))
    return report.finish()
