"""The tables of bench/compare, in Markdown."""

import once
import peers
from rows import COLUMNS, UPGRADE


def table(results):
    """A pair a line; columns that nobody has are left out."""
    columns = [c for c in COLUMNS if any(c[1] in r.get(c[0], {}) for r in results.values())]
    lines = ["| pair | " + " | ".join(f"{t}: {u}" for _, _, t, u, _, _ in columns) + " | errors |"]
    lines.append("|---|" + "---|" * (len(columns) + 1))
    for n, rows in results.items():
        cells = []
        for row, key, _, _, _, digits in columns:
            v = rows.get(row, {}).get(key)
            # What the proxies cost is theirs: without proxies there is nothing to say. What failed is empty.
            cells.append("" if v is None or (n == "no proxy" and "cpu" in key) else f"{v:,.{digits}f}")
        errors = sum(r.get("errors", 0) for r in rows.values())
        lines.append(f"| {n} | " + " | ".join(cells) + f" | {errors} |")
    return "\n".join(lines)


def demands(found):
    if not found:
        return []
    out = ["", "## What the design demands", "", "| pair | what | is | must be | which is | holds |", "|---|---|---|---|---|---|"]
    for d in found:
        digits = d["digits"] if d["row"] in ("upgrade", "once") else max(d["digits"], 1)
        sign = ">=" if d["more_is_better"] else "<="
        must = "" if d["must"] is None else f"{sign} {d['must']:,.{digits}f}"
        held = {True: "yes", False: "NO", None: "not known"}[d["held"]]
        out.append(f"| {d['pair']} | {d['what']} | {d['is']:,.{digits}f} | {must} | {d['of']} | {held} |")
    return out


def upgrades(results):
    found = {n: r["upgrade"] for n, r in results.items() if "upgrade" in r}
    if not found:
        return []
    out = ["", "## Upgrades under load", "",
           "New processes take the listening sockets over on either side in turn, under requests at the fixed rate on 16 kept "
           "connections and new connections one after another; the same load without upgrades beside it.", "",
           "| pair | " + " | ".join(t for _, t, _ in UPGRADE) + " |", "|---|" + "---|" * len(UPGRADE)]  # fmt: skip
    for n, u in found.items():
        out.append(f"| {n} | " + " | ".join("" if u[key] is None else f"{u[key]:,.{digits}f}" for key, _, digits in UPGRADE) + " |")
    return out


def costs(found):
    if not found:
        return []
    out = ["", "## What options cost", "", "| with | beside | what | with | without | ratio |", "|---|---|---|---|---|---|"]
    for c in found:
        d = c["digits"]
        out.append(f"| {c['pair']} | {c['base']} | {c['what']} | {c['with']:,.{d}f} | {c['without']:,.{d}f} | {c['ratio']:.2f} |")
    return out


def projection(results):
    """What a million idle connections would take, if each took what the most that were measured took."""
    out = []
    for name, rows in results.items():
        held = {int(k.split("_")[1]): v for k, v in rows.get("memory", {}).items() if k.startswith("held_")}
        if held and (name.startswith("postern") or name == "ztunnel"):
            n = max(held)
            out.append(f"| {name} | {n:,} | {held[n]:.1f} | {held[n] * 1e6 / (1 << 20):.1f} |")
    if not out:
        return []
    head = ["", "## A million idle connections", "", "| pair | measured with | kB each | GB for a million, both proxies |", "|---|---|---|---|"]
    return head + out


def markdown(doc, classes):
    m, s, bare = doc["machine"], doc["settings"], doc["openssl_bare"]
    out = [
        "# postern and its peers",
        "",
        f"{doc['date']}; {m['system']}, kernel {m['kernel']}, {m['cpus']} CPUs ({m['cpu']}); {m['haproxy']}; "
        f"{m['nginx']}; {m['openssl']}; {''.join(x + '; ' for x in m['others'].values())}{doc['postern']}.",
        "",
        f"{s['rounds']} rounds, and {s['latencies']} of the fixed rate alone, {s['seconds']} s a load, {s['workers']} workers a proxy, {peers.SUITE}, TLS 1.3, mutual "
        "authentication, full handshakes, no access log. Load generator, both proxies and the origin (nginx) share the "
        "machine. CPU is user and system time of both proxies with their helpers, memory their anonymous memory. Rates "
        "are the best of the rounds, everything else is the median; memory is measured in the first round.",
        "",
        f"Load before the run: {doc['load_before']}, at its end {doc['load_after']}, which is the run's own as well (a busy "
        f"machine measures its other work). The run took {doc['minutes']:.0f} minutes.",
        "",
        table(doc["results"]),
        "",
        f"The fixed rate is {s['rate']} requests a second over 16 connections.",
    ]
    out += [f"{name}: {c.note}." for name, c in classes.items() if c.note and name in doc["results"]]
    out += [f"{n}: left out, {why}." for n, why in doc["left_out"].items()]
    out += [f"{n}: no {row} in round {i}: {why}." for n, row, i, why in doc["troubles"]]
    out += [f"Not done: {what}." for what in doc["not_done"]]
    out += [
        "",
        f"Bare OpenSSL, both sides in memory: a handshake {bare['handshake_us']:.0f} us, a record protected and opened "
        f"{bare['record_s_per_gb']:.3f} s/GB, two idle objects {bare['held_pair_kb']:.0f} kB ({bare['library']}).",
    ]
    h = doc.get("handshake")
    if h:
        out += [
            "",
            f"The same two sides as streams of postern's: {h['postern_us']:.0f} us, where a side has met the other's chain "
            f"before; {h['forgetful_us']:.0f} us where each handshake verifies a chain that was never seen; bare "
            f"{h['bare_us']:.0f} us (`bench/micro/handshake.c`).",
        ]
    out += demands(doc["demands"])
    out += ["", "## postern by the best peer that does the same work", "", "| pair | what | best peer | ratio |", "|---|---|---|---|"]
    out += [f"| {r['pair']} | {r['what']} | {r['best']} | {r['ratio']:.2f} |" for r in doc["ratios"]]
    out += upgrades(doc["results"])
    out += once.markdown(doc)
    out += costs(doc["costs"])
    out += projection(doc["results"])
    if doc.get("scaling"):
        out += ["", "## postern tcp by workers", "", table(doc["scaling"]).replace("| pair |", "| workers |", 1)]
    out += ["", "## To reproduce", "", "```", f"sudo ./dev bench {doc['command']}".rstrip(), "```", ""]
    return "\n".join(out)
