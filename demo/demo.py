#!/usr/bin/env python3
"""The demo mesh: run by `sudo ./dev demo`.

One node agent, three namespaces with unmodified programs, a sidecar each. Every line that is printed
comes from what was seen on the wire or asked of a process; nothing is assumed. Exit status 1 if a
step is not as expected. Cleans up after itself, also after Ctrl-C.
"""

import argparse
import json
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "lib"))

import soak  # noqa: E402
import steps  # noqa: E402
from lab import LabError  # noqa: E402
from mesh import Mesh  # noqa: E402
from report import Report  # noqa: E402


def parse_args():
    p = argparse.ArgumentParser(prog="./dev demo", description=__doc__)
    p.add_argument("--build", required=True, help=argparse.SUPPRESS)
    p.add_argument("--keep", action="store_true", help="leave the mesh running and print commands to try")
    p.add_argument("--json", metavar="FILE", help="write the steps as JSON")
    p.add_argument("--ttl", default="2m", help="life of an SVID (default 2m, at least 10s)")
    p.add_argument("--no-color", action="store_true")
    p.add_argument("--soak", type=float, metavar="MINUTES", help="traffic for so long instead of the steps")
    return p.parse_args()


def print_keep(mesh):
    ns, conf = mesh.ns, mesh.conf
    print(
        f"""
The mesh is left running in {mesh.lab.dir}. Try:
  ip netns exec {ns['frontend']} curl -i http://orders:8080/orders
  ip netns exec {ns['ledger']} curl -i http://orders:8080/orders        # denied
  ip netns exec {ns['frontend']} nc orders 7000                         # speaks first
  {mesh.postern} status --socket {mesh.admin_socket('orders')}
  vi {conf}/policy.yaml && kill -HUP {mesh.sidecar['orders'].pid}       # a new policy
  tail -f {mesh.sidecar['orders'].err_path}
Press Ctrl-C here to end it and clean up."""
    )


def main():
    args = parse_args()
    # A terminated demo cleans up as an interrupted one does.
    for s in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    report = Report(color=sys.stdout.isatty() and not args.no_color)
    mesh = Mesh(args.build, args.ttl)
    try:
        if args.soak:
            return soak.run(mesh, report, args.soak)
        steps.run(mesh, report, args.ttl)
        if args.keep:
            print_keep(mesh)
            sys.stdout.flush()
            signal.pause()
    except KeyboardInterrupt:
        print("\ninterrupted: cleaning up", flush=True)
        return 130 if not args.keep else report.status()
    except LabError as e:
        report.step("the mesh stands", "every part answers", str(e), False)
        mesh_logs(mesh)
    finally:
        mesh.lab.close()
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps(report.document(), indent=2) + "\n")
    return report.finish()


def mesh_logs(mesh):
    """The last lines of what did not come up, before its directory goes away."""
    for p in mesh.lab.processes:
        if not p.name.startswith(("agent", "sidecar")):
            continue
        print(f"--- {p.name} (exit {p.p.poll()})")
        for line in (p.out() + p.err()).splitlines()[-8:]:
            print("   ", line[:400])


if __name__ == "__main__":
    sys.exit(main())
