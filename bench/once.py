"""What bench/compare measures once in a run: a reload of a large policy under load, the revocation of one identity among
thousands of connections, what a decision costs; with what is demanded of each, and their tables."""

import json
import re
import statistics
import subprocess
import time

import measure
import peers
from compare_parts import tests_python

RULES = 100_000
REVOKE = peers.HERE.parent / "tests" / "handles" / "revoke"
# key, title, digits
RELOAD = (
    ("rules", "rules", 0),
    ("reloads", "reloads", 0),
    ("requests", "requests meanwhile", 0),
    ("lost", "lost", 0),
    ("took_ms", "a reload until it is in force, ms", 0),
    ("cpu_ms", "CPU time of the side that reloads, ms each", 0),
    ("p99_ms", "p99 ms", 2),
    ("p99_ms_without", "without reloads", 2),
    ("p999_ms", "p99.9 ms", 2),
    ("p999_ms_without", "without reloads", 2),
    ("longest_ms", "longest answer, ms", 1),
    ("longest_ms_without", "without reloads", 1),
)


def reload(tool, pair, seconds, rate, rules=RULES):
    """The same load twice, behind the same policy of many rules: reloaded all the time, and not."""
    pair.reload(rules, "")
    took, cpu = [], []
    server = pair.server_pid()

    def load(meanwhile):
        with measure.Load(tool, pair, "rate", "/small", connections=16, seconds=seconds, rate=rate) as kept:
            kept.begin()
            meanwhile()
            return kept.counted()

    def again_and_again():
        end = time.monotonic() + seconds * 0.9
        while time.monotonic() < end:
            begun, before = time.monotonic(), measure.running_ms(server)
            pair.reload(rules, f"-{len(took) % 2}")
            took.append(time.monotonic() - begun)
            cpu.append(measure.running_ms(server) - before)

    without = load(lambda: None)
    with_ = load(again_and_again)
    out = {"rules": rules, "reloads": len(took), "requests": with_["requests"], "lost": with_["errors"],
           "took_ms": statistics.median(took) * 1e3, "cpu_ms": statistics.median(cpu)}  # fmt: skip
    for key, of in (("p99_ms", "p99_us"), ("p999_ms", "p999_us"), ("longest_ms", "max_us")):
        out[key], out[f"{key}_without"] = with_[of] / 1e3, without[of] / 1e3
    return out


def pause(build, connections, revoked, seconds):
    """tests/handles/revoke, as it is, with the CPU time of the workers' turns."""
    argv = [tests_python(), REVOKE, "--build", build, "--turns", build / "bench" / "libturns.so", "--connections", connections, "--revoked", revoked, "--seconds", seconds]
    r = subprocess.run([str(x) for x in argv], capture_output=True, text=True, timeout=300)
    try:
        return json.loads(r.stdout)
    except ValueError:
        said = (r.stderr or r.stdout).strip().splitlines() or ["nothing"]
        raise peers.Failed(f"revoke: {said[-1]}") from None


def decisions(build, questions):
    """Nanoseconds of CPU time by kind of rules and their number, the median of three runs."""
    found = {}
    for _ in range(3):
        for line in peers.run(build / "bench" / "bench_policy", questions).splitlines():
            m = re.match(r"(\S+)\s+(\d+) rules:\s+(\d+) ns a decision,.*compiled in\s+([\d.]+) ms", line)
            if m:
                found.setdefault(m.group(1), {}).setdefault(m.group(2), []).append((float(m.group(3)), float(m.group(4))))
    return {
        kind: {n: {"ns": statistics.median(x[0] for x in runs), "compile_ms": statistics.median(x[1] for x in runs)} for n, runs in by.items()}
        for kind, by in found.items()
    }


# --- what is demanded --------------------------------------------------------------------------


def _demand(pair, what, is_, must, of, digits):
    held = round(is_, digits) <= round(must, digits)
    return {"pair": pair, "row": "once", "key": what, "what": what, "is": is_, "must": must, "of": of, "more_is_better": False,
            "digits": digits, "held": held}  # fmt: skip


def demands(doc):
    out = []
    for name, r in doc.get("reload", {}).items():
        out.append(_demand(name, f"{r['rules']:,} rules reloaded under load, p99.9 ms", r["p999_ms"], 1.5 * r["p999_ms_without"], "1.5 x without reloads", 2))
        out.append(_demand(name, "reloads under load, requests lost", r["lost"], 0, "0", 0))
    if "pause" in doc:
        p = doc["pause"]
        what = f"{p['connections']:,} connections, {p['revoked']} revoked"
        out.append(_demand("postern gateway", f"{what}: longest ping of the others, ms", p["longest_ping_after_ms"], max(5.0, p["longest_ping_before_ms"]), "5, or what it was before", 1))
        turn = p["turns_after"]["longest_ms"]
        out.append(_demand("postern gateway", f"{what}: longest turn of a worker, CPU ms", turn, 5.0, "5", 1))
        last = p["last_cut_ms"] if p["last_cut_ms"] is not None else float("inf")
        out.append(_demand("postern gateway", f"{what}: until the last is cut, ms", last, 1000, "1000", 0))
    if doc.get("decisions"):
        few = {kind: by["10"]["ns"] for kind, by in doc["decisions"].items()}
        many = {kind: by["10000"]["ns"] / by["10"]["ns"] for kind, by in doc["decisions"].items()}
        worst, grown = max(few, key=few.get), max(many, key=many.get)
        out.append(_demand("policy", f"a decision by 10 rules, ns (the dearest kind: {worst})", few[worst], 1000, "1 us", 0))
        out.append(_demand("policy", f"a decision by 10,000 rules, by that of 10 ({grown})", many[grown], 2.0, "twice", 2))
        compiled = max(by["100000"]["compile_ms"] for by in doc["decisions"].values())
        out.append(_demand("policy", "100,000 rules compiled, CPU ms", compiled, 1000, "a second", 0))
    return out


# --- tables ------------------------------------------------------------------------------------


def markdown(doc):
    out = []
    if doc.get("reload"):
        out += ["", "## A large policy reloaded under load", "",
                "Requests at the fixed rate on 16 kept connections, while the server's side gets a changed policy again and again; the same "
                "load behind the same policy beside it.", "",
                "| pair | " + " | ".join(t for _, t, _ in RELOAD) + " |", "|---|" + "---|" * len(RELOAD)]  # fmt: skip
        out += [f"| {n} | " + " | ".join(f"{r[key]:,.{digits}f}" for key, _, digits in RELOAD) + " |" for n, r in doc["reload"].items()]
    if "pause" in doc:
        out += ["", "## One identity of many revoked", "", "```", json.dumps(doc["pause"]), "```"]
    if doc.get("decisions"):
        counts = sorted({n for by in doc["decisions"].values() for n in by}, key=int)
        out += ["", "## A decision", "", "CPU ns a decision by the number of rules, and CPU ms to compile the most of them.", "",
                "| kind | " + " | ".join(f"{int(n):,}" for n in counts) + " | compiled |", "|---|" + "---|" * (len(counts) + 1)]  # fmt: skip
        for kind, by in doc["decisions"].items():
            out.append(f"| {kind} | " + " | ".join(f"{by[n]['ns']:,.0f}" for n in counts) + f" | {by[counts[-1]]['compile_ms']:,.0f} |")
    return out
