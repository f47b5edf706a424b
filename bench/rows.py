"""What bench/compare measures, and what is asked of it: columns, ratios to peers, demands of the design."""

import statistics

# row, key: title, unit, whether more is better, digits.
COLUMNS = (
    ("bulk_1", "mb_per_s", "bulk, 1 stream", "MB/s", True, 0),
    ("bulk_1", "cpu_s_per_gb", "bulk, 1 stream", "CPU s/GB", False, 2),
    ("bulk_16", "mb_per_s", "bulk, 16 streams", "MB/s", True, 0),
    ("bulk_16", "cpu_s_per_gb", "bulk, 16 streams", "CPU s/GB", False, 2),
    ("fresh", "per_s", "new connections", "1/s", True, 0),
    ("fresh", "cpu_us", "new connections", "CPU us each", False, 0),
    ("kept", "per_s", "requests, kept", "1/s", True, 0),
    ("kept", "cpu_us", "requests, kept", "CPU us each", False, 1),
    ("rate", "p50_ms", "at a fixed rate", "p50 ms", False, 2),
    ("rate", "p99_ms", "at a fixed rate", "p99 ms", False, 2),
    ("memory", "idle_mb", "idle memory", "MB", False, 1),
    ("memory", "process_mb", "largest process, idle", "MB", False, 2),
    ("memory", "held_1000_kb", "idle connection, of 1,000", "kB", False, 1),
    ("memory", "held_8000_kb", "idle connection, of 8,000", "kB", False, 1),
    ("memory", "held_15000_kb", "idle connection, of 15,000", "kB", False, 1),
)
# Columns of the table of upgrades: key, title, digits.
UPGRADE = (
    ("upgrades", "upgrades", 0),
    ("requests", "requests meanwhile", 0),
    ("lost", "lost", 0),
    ("start_cpu_ms", "a new process until it is in charge, CPU ms", 0),
    ("took_ms", "until it is in charge, ms", 0),
    ("cpu_us", "a request, CPU us", 1),
    ("cpu_us_without", "without upgrades", 1),
    ("longest_ms", "longest answer, ms", 1),
    ("longest_ms_without", "without upgrades", 1),
    ("p99_ms", "p99 ms", 2),
    ("p99_ms_without", "without upgrades", 2),
)
# Of one pair, or of none, once in a run: once.py.
ONCE = ("reload", "pause", "decisions")
ROWS = (*dict.fromkeys(c[0] for c in COLUMNS), "upgrade", *ONCE)


class Best:
    """The best peer's of the layer."""

    def __init__(self, factor, layer=4):
        self.factor, self.layer = factor, layer

    def find(self, more, row, key, results, bare, classes):
        theirs = {
            n: results[n][row][key]
            for n in results
            if not n.startswith("postern") and classes[n].layer == self.layer and key in results[n].get(row, {})
        }
        if not theirs:
            return None
        best = max(theirs, key=theirs.get) if more else min(theirs, key=theirs.get)
        return theirs[best] * self.factor, f"{self.factor:.3g} x {best}"


class Of:
    """A peer's, by name."""

    def __init__(self, factor, name, same_key=None):
        self.factor, self.name, self.key = factor, name, same_key

    def find(self, more, row, key, results, bare, classes):
        theirs = results.get(self.name, {}).get(row, {}).get(key)
        return None if theirs is None else (theirs * self.factor, f"{self.factor:.3g} x {self.name}")


class Bare:
    """What OpenSSL alone takes for the same, on the same machine in the same run."""

    def __init__(self, bare_key, factor=1.0, plus=0.0):
        self.bare_key, self.factor, self.plus = bare_key, factor, plus

    def find(self, more, row, key, results, bare, classes):
        plus = f" + {self.plus:g} kB" if self.plus else ""
        return bare[self.bare_key] * self.factor + self.plus, f"{self.factor:g} x bare OpenSSL{plus}"


class Number:
    def __init__(self, value):
        self.value = value

    def find(self, more, row, key, results, bare, classes):
        return self.value, f"{self.value:g}"


DIRECT, HBONE, HTTP, HTTP2 = "postern tcp", "postern hbone", "postern http", "postern http2"
# What the design demands: whose figure, and the limit. Rates are at least that, everything else at most. A CPU time a
# byte has the inverse of what is asked of the rate.
DEMANDS = tuple(
    (own, row, key, limit)
    for own, layer in ((DIRECT, 4), (HBONE, 4), (HTTP, 7))
    for row in ("bulk_1", "bulk_16")
    for key, limit in (("mb_per_s", Best(0.8, layer)), ("cpu_s_per_gb", Best(1.25, layer)))
) + (
    (DIRECT, "fresh", "cpu_us", Bare("handshake_us", 1.1)),
    (HBONE, "fresh", "cpu_us", Of(0.5, "ztunnel")),
    (DIRECT, "kept", "cpu_us", Best(0.85)),
    (HBONE, "kept", "cpu_us", Best(0.85)),
    (HTTP, "kept", "cpu_us", Of(0.8, "haproxy http")),
    (HTTP, "kept", "cpu_us", Of(1 / 3, "envoy http")),
    (HTTP2, "kept", "cpu_us", Of(0.8, "haproxy http2")),
    (HTTP2, "kept", "cpu_us", Of(1 / 3, "envoy http2")),
    *((own, "rate", key, Best(1.0, layer)) for own, layer in ((DIRECT, 4), (HBONE, 4), (HTTP, 7), (HTTP2, 8)) for key in ("p50_ms", "p99_ms")),
    *((own, "memory", "idle_mb", Of(1.0, "ztunnel")) for own in (DIRECT, HBONE, HTTP)),
    *((own, "memory", "process_mb", Number(2.0)) for own in (DIRECT, HBONE, HTTP)),
    (DIRECT, "memory", "held_8000_kb", Bare("bare_held_kb", plus=6)),
    (HBONE, "memory", "held_15000_kb", Of(0.7, "ztunnel")),
    *((own, "upgrade", "lost", Number(0)) for own in (DIRECT, HBONE, HTTP)),
)  # fmt: skip


def summed_up(rounds):
    """Of the rounds of one pair: rates their best, everything else its median."""
    out = {}
    for row, key, _, _, more, _ in COLUMNS:
        values = [r[row][key] for r in rounds if row in r and r[row].get(key) is not None]
        if values:
            out.setdefault(row, {})[key] = max(values) if more else statistics.median(values)
    for row in {r for one in rounds for r in one}:
        if row in ("upgrade", "reload"):  # measured once
            out[row] = dict(next(r[row] for r in rounds if row in r))
            continue
        errors = sum(r[row].get("errors", 0) for r in rounds if row in r)
        out.setdefault(row, {})["errors"] = errors
    return out


def rivals_of(own, row, key, results, classes):
    """Who does the same work: the peers of the same layer, but for connections those that make one each, as it does, or
    that keep them, as it does."""
    out = []
    for n in results:
        c = classes[n]
        if n.startswith("postern") or c.layer <= 0 or key not in results[n].get(row, {}):
            continue
        per_connection = row == "fresh" or key.startswith("held_")
        if c.pools == classes[own].pools if per_connection else c.layer == classes[own].layer:
            out.append(n)
    return out


def ratios(results, classes):
    """postern's figure by the best peer's that does the same work."""
    out = []
    for own in [n for n in results if n.startswith("postern") and classes[n].layer > 0]:
        for row, key, title, unit, more, _ in COLUMNS:
            mine = results[own].get(row, {}).get(key)
            theirs = {n: results[n][row][key] for n in rivals_of(own, row, key, results, classes)}
            if mine is None or not theirs:
                continue
            best = max(theirs, key=theirs.get) if more else min(theirs, key=theirs.get)
            if theirs[best] > 0:
                ratio = round(mine / theirs[best], 3)
                out.append({"pair": own, "row": row, "key": key, "what": f"{title}, {unit}", "best": best, "ratio": ratio})
    return out


def demands(results, bare, classes):
    """What the design asks, and whether it holds; what cannot be said, since somebody was not measured, with held None."""
    titles = {(row, key): (f"{title}, {unit}", more, digits) for row, key, title, unit, more, digits in COLUMNS}
    titles["upgrade", "lost"] = ("upgrades under load, requests lost", False, 0)
    out = []
    for own, row, key, limit in DEMANDS:
        mine = results.get(own, {}).get(row, {}).get(key)
        if mine is None:
            continue
        what, more, digits = titles[row, key]
        found = limit.find(more, row, key, results, bare, classes)
        most, of = found or (None, "a peer that was not measured")
        # As both are printed: a difference that no digit shows is none.
        held = None if most is None else (round(mine, digits) >= round(most, digits) if more else round(mine, digits) <= round(most, digits))
        out.append(
            {"pair": own, "row": row, "key": key, "what": what, "is": mine, "must": most, "of": of, "more_is_better": more,
             "digits": digits, "held": held}
        )  # fmt: skip
    lost = {n: sum(of_row.get("errors", 0) for of_row in results[n].values()) for n in results if n.startswith("postern")}
    out.append(
        {"pair": "postern, all pairs", "row": "errors", "key": "errors", "what": "connections and requests that failed, all rows",
         "is": sum(lost.values()), "must": 0, "of": ", ".join(n for n in lost if lost[n] > 0) or "none", "more_is_better": False,
         "digits": 0, "held": not any(lost.values())}
    )  # fmt: skip
    return out


def costs(results, classes):
    """What an option costs: the pair that has it by the pair that is the same without."""
    out = []
    for n in results:
        base = getattr(classes[n], "base", None)
        if base not in results:
            continue
        for row, key, title, unit, more, digits in COLUMNS:
            mine, theirs = results[n].get(row, {}).get(key), results[base].get(row, {}).get(key)
            if mine is not None and theirs:
                out.append({"pair": n, "base": base, "what": f"{title}, {unit}", "with": mine, "without": theirs,
                            "digits": digits, "ratio": round(mine / theirs, 3)})  # fmt: skip
    return out
