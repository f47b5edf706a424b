"""soak_growth: does what processes hold grow? A line through the samples after a warm-up says how much over the run."""

import pathlib


def held(pids):
    """(anonymous kB, descriptors) of these processes; those that have just ended count nothing."""
    kb = fds = 0
    for pid in pids:
        try:
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Anonymous:"):
                    kb += int(line.split()[1])
            fds += len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))
        except OSError:
            continue
    return kb, fds


def slope(points):
    """Least squares: units of y for each of x."""
    n = len(points)
    mx, my = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mx) ** 2 for x, _ in points)
    return sum((x - mx) * (y - my) for x, y in points) / spread if spread else 0.0


def judge(points, part, plus):
    """Of [(seconds, held)] behind the warm-up: whether it has grown by more than `part` of its mean and `plus`."""
    if len(points) < 8:
        return {"samples": len(points), "ok": False, "why": "too few samples"}
    mean = sum(y for _, y in points) / len(points)
    span = points[-1][0] - points[0][0]
    each = slope(points)
    growth, bound = each * span, part * mean + plus
    return {
        "samples": len(points),
        "first": points[0][1],
        "mean": round(mean, 1),
        "most": max(y for _, y in points),
        "last": points[-1][1],
        "per_hour": round(each * 3600, 1),
        "growth": round(growth, 1),
        "bound": round(bound, 1),
        "ok": growth <= bound,
    }
