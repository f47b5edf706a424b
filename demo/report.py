"""report: the demo's steps, for people and for machines."""


class Report:
    def __init__(self, color):
        self.color = color
        self.steps = []

    def _paint(self, code, text):
        return f"\x1b[{code}m{text}\x1b[0m" if self.color else text

    def title(self, text):
        print("\n" + self._paint("1", text), flush=True)

    def say(self, text):
        print("  " + text, flush=True)

    def step(self, name, expected, observed, ok):
        """One thing that was looked at: what should be, what was seen."""
        self.steps.append({"name": name, "expected": expected, "observed": str(observed), "ok": bool(ok)})
        mark = self._paint("32", "ok  ") if ok else self._paint("31;1", "FAIL")
        print(f"  {mark} {name}", flush=True)
        print(self._paint("2", f"         expected {expected}"))
        print(self._paint("2", f"         observed {observed}"), flush=True)
        return ok

    def document(self):
        return {"steps": self.steps}

    def status(self):
        return 0 if self.steps and all(s["ok"] for s in self.steps) else 1

    def finish(self):
        bad = sum(not s["ok"] for s in self.steps)
        text = f"{len(self.steps) - bad} of {len(self.steps)} steps as expected"
        print("\n" + self._paint("32;1" if bad == 0 else "31;1", text), flush=True)
        return self.status()
