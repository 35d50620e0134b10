#!/usr/bin/env python3
"""What grows with a cluster, and what doesn't.

Two parts. The swarm (gamut-swarm): many sidecars' subscriptions to a real controller, clusters of several sizes, endpoint changes at
several rates, a rolling restart of everything, everybody reconnecting at once, a controller that is killed. Then one real
sidecar in `gamut up`, whose workload talks to the same three Services while the cluster around it grows tenfold, and shrinks again.

Writes the section `scale` of results.json, and `propagation_p99_ms` and `sidecar_start_ms` from it. Call it through `scale`.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import kernel
import results

HERE = pathlib.Path(__file__).resolve().parent
# Services and subscribers of each cluster; the largest is the one that all is done to.
SIZES = [(100, 100), (300, 300), (1000, 1000)]
# The same number of subscribers in a cluster of another size: which of the two does memory follow?
LOPSIDED = [(1000, 100)]
RATES = [10, 50, 100, 200]
# Services around the one real sidecar, one step after the other; the first once more at the end tells what growth does from what time does.
GROWTH = [100, 300, 1000, 100]
USED = 3
# Requests a second to each of the Services that are used, all the while; a step's figures are of so many seconds.
RATE, WINDOW = 300, 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=pathlib.Path, help="where the executables are (release build)")
    parser.add_argument("--quick", action="store_true", help="small clusters, to see whether it works; nothing is written")
    parser.add_argument("--out", default=str(HERE / "results.json"))
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.bin = arguments.bin.resolve()  # pods run what is in there, from another directory
    if arguments.inside:
        print("GROWTH " + json.dumps(measure_growth(arguments)))
        return
    found = {
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": kernel.machine(),
        "swarm": swarm(arguments),
        "growth": growth(arguments),
    }
    if arguments.quick:
        return
    largest = found["swarm"][-1]
    at_100 = next((rate for rate in largest["changes"] if rate["per_second"] == 100), largest["changes"][0])
    summary = {
        "propagation_p99_ms": at_100["last_proxy_ms"]["p99"],
        "sidecar_start_ms": largest["sidecar"]["start_to_ready_ms"]["median"],
        "sidecar_rss_ready_mb": largest["sidecar"]["rss_mb"],
        "scale": found,
    }
    results.update(pathlib.Path(arguments.out), summary)
    print(f"scale: written to {arguments.out}")


# --- the swarm --------------------------------------------------------------------------------------------------------


def swarm(arguments: argparse.Namespace) -> list[dict]:
    def once(services: int, proxies: int, *more: str) -> dict:
        print(f"scale: {services} Services, {services * 10} endpoints, {proxies} sidecars", flush=True)
        command = [str(arguments.bin / "gamut-swarm"), "--gamut", str(arguments.bin / "gamut"), "--services", str(services)]
        command += ["--proxies", str(proxies), *more]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300)
        if done.returncode != 0:
            sys.exit("scale: the swarm failed")
        report = json.loads(done.stdout.splitlines()[-1])
        for rate in report["changes"]:
            print(f"  {rate['per_second']:5} changes/s: last proxy p50 {rate['last_proxy_ms']['p50']} ms, p99 {rate['last_proxy_ms']['p99']} ms, "
                  f"controller {rate['controller_cpu_percent']} % of a CPU, {rate['controller']['rss_mb']} MB", flush=True)
        return report

    if arguments.quick:
        return [once(60, 20, "--rates", "50", "--seconds", "2", "--upheavals", "--starts", "2")]
    small = [once(services, proxies, "--rates", "100", "--seconds", "5") for services, proxies in [*LOPSIDED, *SIZES[:-1]]]
    services, proxies = SIZES[-1]
    rates = ",".join(map(str, RATES))
    return [*small, once(services, proxies, "--rates", rates, "--seconds", "8", "--upheavals", "--starts", "11")]


# --- one sidecar in a growing cluster ---------------------------------------------------------------------------------


def growth(arguments: argparse.Namespace) -> list[dict]:
    """Brings up a client and three Services, and others around them that only exist as objects."""
    with tempfile.TemporaryDirectory(prefix="gamut-scale-") as directory:
        scratch = pathlib.Path(directory)
        scratch.chmod(0o755)
        manifests = scratch / "manifests"
        manifests.mkdir()
        (manifests / "workload.json").write_text(json.dumps(workload()))
        write_others(manifests, sizes(arguments)[0])
        command = [str(arguments.bin / "gamut"), "up", "--name", f"scale-{os.getpid()}", "-f", str(manifests), "--"]
        command += [sys.executable, *sys.argv, "--inside", str(manifests)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300)
        lines = [line for line in done.stdout.splitlines() if line.startswith("GROWTH ")]
        if done.returncode != 0 or not lines:
            print(done.stdout)
            sys.exit("scale: the growing cluster failed")
        return json.loads(lines[-1].removeprefix("GROWTH "))


def measure_growth(arguments: argparse.Namespace) -> list[dict]:
    """The sidecar's CPU and memory at each size of the cluster, under a load that never stops."""
    manifests = pathlib.Path(arguments.inside)
    pids = sidecar()
    window = 1 if arguments.quick else WINDOW
    seconds = len(sizes(arguments)) * (window + (2 if arguments.quick else 5))
    clients = load(arguments, seconds)
    begin = time.monotonic()
    found = []
    for services in sizes(arguments):
        there = found[-1]["services"] - USED if found else services
        written = time.monotonic()
        write_others(manifests, services)
        until_known(arguments, services, there)
        in_effect = time.monotonic() - written
        before = kernel.cpu_seconds(pids), time.monotonic()
        time.sleep(window)
        cpu, took = kernel.cpu_seconds(pids) - before[0], time.monotonic() - before[1]
        found.append({
            "services": services + USED,
            "in_effect_s": round(in_effect, 2),
            "rss_mb": round(kernel.rss_kb(pids) / 1024, 2),
            "cpu_us_per_request": round(cpu * 1e6 / (took * RATE * USED), 1),
        })
        print(found[-1], file=sys.stderr, flush=True)
    if time.monotonic() - begin > seconds:
        sys.exit("scale: the load ended before the last step did: the cluster grew too slowly")
    reports = [json.loads(client.communicate()[0].splitlines()[-1]) for client in clients]
    if any(report["errors"] or report["requests"] < 0.98 * RATE * seconds for report in reports):
        sys.exit(f"scale: requests failed or came late: {reports}")
    if not arguments.quick and (moved := grows(found)):
        sys.exit(f"scale: the sidecar's {moved} with the cluster: {found}")
    return found


def grows(found: list[dict]) -> str | None:
    """What of a sidecar grew with the cluster around it: memory by more than a megabyte, or CPU by more than a fifth."""
    *grown, again = found
    largest = grown[-1]
    if largest["rss_mb"] - grown[0]["rss_mb"] > 1:
        return "memory grows"
    if largest["cpu_us_per_request"] > 1.2 * max(grown[0]["cpu_us_per_request"], again["cpu_us_per_request"]):
        return "CPU for a request grows"
    return None


def load(arguments: argparse.Namespace, seconds: int) -> list[subprocess.Popen]:
    """Clients that call all three Services at a fixed rate, which have begun."""
    clients = []
    for number in range(USED):
        command = [str(arguments.bin / "gamut"), "exec", "-n", "shop", "deploy/client", "--", str(arguments.bin / "gamut-load")]
        command += ["rate", "--rate", str(RATE), "--connections", "4", "--seconds", str(seconds), f"http://web-{number}/"]
        clients.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    return clients


def until_known(arguments: argparse.Namespace, services: int, before: int) -> None:
    """Waits until the newest of the others has a name that leads somewhere, or the oldest that has gone has none any more."""
    last = max(services, before) - 1
    gone = services < before
    command = [str(arguments.bin / "gamut"), "exec", "-n", "shop", "deploy/client", "--", "getent", "hosts", f"other-{last}.rest-{last // 20}"]
    deadline = time.monotonic() + 60
    while (subprocess.run(command, capture_output=True).returncode != 0) != gone:
        if time.monotonic() > deadline:
            sys.exit(f"scale: after a minute the node doesn't know that there are {services} Services")
        time.sleep(0.05)


def sidecar() -> list[int]:
    found = []
    for process in pathlib.Path("/proc").iterdir():
        try:
            environment = (process / "environ").read_bytes().split(b"\0") if process.name.isdigit() else []
        except OSError:
            continue
        if b"GAMUT_POD_NAMESPACE=shop" in environment and any(e.startswith(b"GAMUT_POD_NAME=client") for e in environment):
            found.append(int(process.name))
    if not found:
        sys.exit("scale: the client's sidecar isn't running")
    return found


def sizes(arguments: argparse.Namespace) -> list[int]:
    return [10, 100, 10] if arguments.quick else GROWTH


def workload() -> dict:
    """A client and the three Services that it uses, meshed."""
    def deployment(name: str, container: dict) -> dict:
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        spec = {"selector": {"matchLabels": labels}, "template": template}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}

    ports = [{"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"}]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"gamut.mesh/inject": "enabled"}}}
    services = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"web-{n}", "namespace": "shop"}, "spec": {"selector": {"app": "web"}, "ports": ports}}
        for n in range(USED)
    ]
    pods = [
        deployment("web", {"name": "app", "image": "gamut.mesh/echo"}),
        deployment("client", {"name": "idle", "image": "idle", "command": ["sleep", "infinity"]}),
    ]
    return {"apiVersion": "v1", "kind": "List", "items": [namespace, *services, *pods]}


def write_others(manifests: pathlib.Path, count: int) -> None:
    """Services of other teams, ten endpoints each, without pods: for the controller they are like all others."""
    items: list[dict] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"rest-{n}"}} for n in range((count + 19) // 20)]
    for n in range(count):
        metadata = {"name": f"other-{n}", "namespace": f"rest-{n // 20}"}
        ports = [{"name": "http", "port": 80, "targetPort": 8080}]
        items.append({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}})
        endpoints = [{"addresses": [f"10.200.{n // 25}.{n % 25 * 10 + e}"], "conditions": {"ready": True}} for e in range(10)]
        items.append({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {**metadata, "name": f"other-{n}-1", "labels": {"kubernetes.io/service-name": f"other-{n}"}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
        })
    beside = manifests / ".others"
    beside.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    beside.rename(manifests / "others.json")


if __name__ == "__main__":
    main()
