"""A SPIRE server and agent for bench/agent: binaries that are given, a data directory of the run, nothing else.

Registered by the server's batch API through its command line; the agent joins by token. What it serves is its cache:
entries are made before the load, and a change is an update of every entry.
"""

import json
import os
import pathlib
import subprocess
import time

FIRST_UID = 53000
TD = "bench.example"


class Spire:
    name = "spire"

    def __init__(self, where, directory, workloads):
        self.dir, self.workloads, self.bin = directory, workloads, pathlib.Path(where) / "bin"
        self.socket = directory / "agent.sock"
        self.api = directory / "server.sock"
        (directory / "server.conf").write_text(
            'server { bind_address = "127.0.0.1" bind_port = "18081" trust_domain = "%s" data_dir = "%s/server"\n'
            '  socket_path = "%s" log_level = "WARN" ratelimit { attestation = false signing = false } }\n'
            'plugins { DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "%s/db.sqlite3" } }\n'
            '  NodeAttestor "join_token" { plugin_data {} }\n  KeyManager "memory" { plugin_data {} } }\n'
            % (TD, directory, self.api, directory)
        )
        (directory / "agent.conf").write_text(
            'agent { data_dir = "%s/agent" log_level = "WARN" server_address = "127.0.0.1" server_port = "18081"\n'
            '  socket_path = "%s" trust_domain = "%s" insecure_bootstrap = true\n'
            '  x509_svid_cache_max_size = 4000 }\n'
            'plugins { NodeAttestor "join_token" { plugin_data {} }\n  KeyManager "memory" { plugin_data {} }\n'
            '  WorkloadAttestor "unix" { plugin_data {} } }\n' % (directory, self.socket, TD)
        )
        self.log = open(directory / "spire.log", "wb")
        self.server = self.run("spire-server", "server.conf")
        self.wait(lambda: self.ask("healthcheck") is not None)
        token = self.ask("token", "generate", "-spiffeID", f"spiffe://{TD}/node").split()[1]
        self.agent = self.run("spire-agent", "agent.conf", "-joinToken", token)
        self.wait(self.socket.exists)
        self.known = 0
        self.change()

    def run(self, binary, conf, *more):
        argv = [self.bin / binary, "run", "-config", self.dir / conf, *more]
        return subprocess.Popen([str(a) for a in argv], stdout=self.log, stderr=self.log)

    def ask(self, *argv):
        p = subprocess.run(
            [str(self.bin / "spire-server"), *argv, "-socketPath", str(self.api)], capture_output=True, text=True, check=False
        )
        return p.stdout if p.returncode == 0 else None

    def wait(self, condition, seconds=120):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise SystemExit((self.dir / "spire.log").read_text()[-2000:])
            time.sleep(0.1)

    def serves(self):
        argv = [self.bin / "spire-agent", "api", "fetch", "x509", "-socketPath", self.socket]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    def entry(self, name, path, uid):
        return {
            "entry_id": name,
            "parent_id": f"spiffe://{TD}/node",
            "spiffe_id": f"spiffe://{TD}/{path}",
            "selectors": [{"type": "unix", "value": f"uid:{uid}"}],
        }

    def change(self, own=1, path="", wait=True):
        """So many identities for uid 0, and one for each workload; the agent learns of it by itself."""
        entries = [self.entry(f"own{i}", f"own/{i}", 0) for i in range(own)]
        entries += [self.entry(f"w{i}", f"workload/{i}{path}", FIRST_UID + i) for i in range(self.workloads)]
        for e in range(own, self.known):
            self.ask("entry", "delete", "-entryID", f"own{e}")
        data = self.dir / "entries.json"
        data.write_text(json.dumps({"entries": entries}))
        if self.known > 0:
            self.ask("entry", "update", "-data", str(data))
        self.ask("entry", "create", "-data", str(data))
        self.known = own
        if wait:
            time.sleep(15)  # it synchronises every 5 s and signs what is new in batches
            self.wait(self.serves)

    def processes(self):
        return {"server": self.server.pid, "agent": self.agent.pid}

    def close(self):
        for p in (self.agent, self.server):
            p.terminate()
            p.wait(30)
        self.log.close()
        os.sync()
