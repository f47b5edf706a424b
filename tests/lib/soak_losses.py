"""soak_losses: which of the connections that a load lost had to end, by the lines that the proxies wrote about them.

A loss is a request that was sent and not answered: {at_ms, port, what, lane}. The client's side names the port in the
`source` of its line. If that side was reset by the other one, the other's lines of that moment say why; a line explains
one loss, but for a session's, which explains the streams that it carried.
"""

import bisect
import datetime
import json

NEAR_MS = 3000
# Why a connection has to end, whoever is in the middle of something: what the lifetimes (docs/lifetimes.md) say.
DEMANDED = {"certificate_expired", "policy_changed", "trust_changed", "quarantined"}
# An upgraded process has said how long it goes on.
STATED = {"drained"}
FROM_BEYOND = {"upstream_reset", "session_lost", "truncated", "stream_refused", "upstream_closed", "bad_response"}


def parse_ts(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000


def read_losses(path, lane):
    out = []
    for line in path.read_text().splitlines() if path.exists() else []:
        at, port, what = line.split(" ", 2)
        out.append({"at_ms": int(at), "port": int(port), "what": what, "lane": lane})
    return out


def read_lines(paths):
    """The lines about connections that did not simply end, in the order of time."""
    out = []
    for path in paths:
        with open(path, errors="replace") as f:
            for text in f:
                if '"event":"connection"' not in text and '"event":"request"' not in text:
                    continue
                try:
                    line = json.loads(text)
                except ValueError:
                    continue  # the last one of a process that was killed
                line["at_ms"] = parse_ts(line["ts"])
                out.append(line)
    return sorted(out, key=lambda x: x["at_ms"])


class Lines:
    def __init__(self, lines):
        self.lines, self.times, self.used = lines, [x["at_ms"] for x in lines], set()

    def near(self, at_ms):
        low = bisect.bisect_left(self.times, at_ms - NEAR_MS)
        high = bisect.bisect_right(self.times, at_ms + NEAR_MS)
        found = [(abs(self.times[i] - at_ms), i) for i in range(low, high)]
        return [i for _, i in sorted(found)]

    def own(self, loss):
        """The client side's line of just this connection."""
        end = f":{loss['port']}"
        for i in self.near(loss["at_ms"]):
            if i not in self.used and self.lines[i].get("source", "").endswith(end) and "reason" in self.lines[i]:
                self.used.add(i)
                return self.lines[i]
        return None

    def why(self, at_ms, reasons, sessions_only=False):
        """A line that says so, which explains nothing else yet; a session's may explain many."""
        for i in self.near(at_ms):
            line = self.lines[i]
            if line.get("reason") not in reasons:
                continue
            if line.get("transport") == "hbone_session" or (line.get("transport") == "hbone" and "streams" in line):
                return line
            if i not in self.used and not sessions_only:
                self.used.add(i)
                return line
        return None


def explain(loss, near, far):
    """(why, whether it had to be)"""
    line = near.own(loss)
    if line is None:
        return f"{loss['what']}, and no line about it", False
    reason = line["reason"]
    if reason in FROM_BEYOND:
        # A session that ended takes its streams along, on this side or the other.
        found = far.why(loss["at_ms"], DEMANDED | STATED) or near.why(loss["at_ms"], DEMANDED | STATED, sessions_only=True)
        if found is None:
            return reason, False
        reason = f"{found['reason']} ({found.get('expired') or 'of the other side'})"
    elif "expired" in line:
        reason = f"{reason} ({line['expired']})"
    word = reason.split(" ")[0]
    return f"{reason}", word in DEMANDED | STATED


def classify(losses, near_lines, far_lines):
    """Counts by lane, and those that nothing demanded, whole."""
    near, far = Lines(near_lines), Lines(far_lines)
    counts, undemanded = {}, []
    for loss in sorted(losses, key=lambda x: x["at_ms"]):
        why, had_to_be = explain(loss, near, far)
        key = (loss["lane"], why, had_to_be)
        counts[key] = counts.get(key, 0) + 1
        if not had_to_be:
            undemanded.append({**loss, "why": why})
    return counts, undemanded
