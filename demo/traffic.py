"""traffic: requests that go on in the background, counted."""

import http.client
import threading
import time

from lab import in_netns


class Load:
    """From inside a namespace: a new connection for every other request, a kept one for the rest."""

    def __init__(self, netns, host, port, path, marker, per_second=20):
        self.netns, self.host, self.port, self.path = netns, host, port, path
        self.marker = marker.encode()
        self.pause = 1 / per_second
        self.done = 0
        self.failed = []
        self.running = True
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        with in_netns(self.netns):
            kept = None
            while self.running:
                try:
                    fresh = http.client.HTTPConnection(self.host, self.port, timeout=10)
                    self._one(fresh)
                    fresh.close()
                    kept = kept or http.client.HTTPConnection(self.host, self.port, timeout=10)
                    self._one(kept)
                except (OSError, http.client.HTTPException) as e:
                    self.failed.append(f"{type(e).__name__}: {e}")
                    kept = None
                time.sleep(self.pause)  # the rate of the load, not a wait for anything

    def _one(self, connection):
        connection.request("GET", self.path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200 or self.marker not in body:
            self.failed.append(f"status {answer.status}")
        self.done += 1

    def stop(self):
        self.running = False
        self.thread.join(15)
