#!/usr/bin/env python3
"""Measures a sidecar pair each of Gamut, HAProxy, nginx and Envoy on the same work, in one run, interleaved.

Every pair runs as two pods of one `gamut up`: a client pod with the load generator and the outbound proxy, a backend pod
with the inbound proxy and nginx as app; between them TLS 1.3 with client certificates on P-256. Gamut's pods are injected;
the others' are wired by hand (manifests/). Rounds go A B C D A B C D, figures are medians with their spread. A run with
an error in it doesn't count, and says so.

What is written to results.json is documented in README.md. Call it through `run`, which installs what it needs.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
MANIFESTS = HERE / "manifests"
TICKS = os.sysconf("SC_CLK_TCK")

# How each pair's two proxies are started inside their pods.
PROXIES = {
    "haproxy": ["haproxy", "-db", "-f", "/run/proxy/{side}.cfg"],
    "nginx": ["nginx", "-c", "/run/proxy/{side}.cfg"],
    "envoy": ["{envoy}", "--concurrency", "1", "--base-id", "{base}", "-l", "error", "-c", "/run/proxy/{side}.yaml"],
}

# name -> (load generator, its arguments, path)
WORKS = {
    "http1_16": ("wrk", ["-c16"], "/"),
    "http1_256": ("wrk", ["-c256"], "/"),
    "http1_2k": ("rate", ["--rate", "2000", "--connections", "16"], "/"),
    "http1_10k": ("rate", ["--rate", "10000", "--connections", "64"], "/"),
    "http1_connect": ("wrk", ["-c16", "-H", "Connection: close"], "/"),
    "body_64k": ("wrk", ["-c16"], "/files/64k"),
    "body_10m": ("wrk", ["-c4"], "/files/10m"),
}

WRK_REPORT = """
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'REPORT {"requests": %d, "errors": %d, "rate": %f, "p50_us": %d, "p99_us": %d, "p999_us": %d}\\n',
    summary.requests, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    summary.requests * 1e6 / summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gamut", required=True, help="the gamut executable (release build)")
    parser.add_argument("--load", required=True, help="the gamut-load executable (release build)")
    parser.add_argument("--envoy", help="the envoy executable; without it Envoy is left out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of load, per round and work")
    parser.add_argument("--works", default=",".join(WORKS), help="which works, by name")
    parser.add_argument("--proxies", default="gamut,haproxy,nginx,envoy")
    parser.add_argument("--out", default=str(HERE / "results.json"))
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.proxies = [p for p in arguments.proxies.split(",") if p != "envoy" or arguments.envoy]
    if arguments.inside:
        measure(arguments)
    else:
        sys.exit(bring_up(arguments))


# --- the mesh -------------------------------------------------------------------------------------------------------


def bring_up(arguments: argparse.Namespace) -> int:
    """Writes the manifests and runs this script again inside `gamut up`, which takes everything down afterwards."""
    with tempfile.TemporaryDirectory(prefix="gamut-bench-") as directory:
        scratch = pathlib.Path(directory)
        scratch.chmod(0o755)
        files = scratch / "files"
        files.mkdir()
        (files / "64k").write_bytes(b"x" * 65536)
        (files / "10m").write_bytes(b"x" * 10_000_000)
        (scratch / "report.lua").write_text(WRK_REPORT)
        certificates = make_certificates(scratch / "tls")
        manifests = scratch / "manifests"
        manifests.mkdir()
        for name in arguments.proxies:
            write_manifests(name, manifests, files, certificates, arguments)
        command = [arguments.gamut, "up", "--name", f"bench-{os.getpid()}", "-f", str(manifests), "--"]
        command += [sys.executable, *sys.argv, "--inside", str(scratch)]
        return subprocess.run(command).returncode


def make_certificates(directory: pathlib.Path) -> dict[str, str]:
    """A root and a leaf each for client and server, P-256 as Gamut's own; each leaf with its key in one file."""
    directory.mkdir()

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=directory, check=True, stderr=subprocess.DEVNULL)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=bench")
    for name, dns in [("server", "backend"), ("client", "client")]:
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={dns}")
        (directory / "san").write_text(f"subjectAltName=DNS:{dns}\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.crt", "-days", "2", "-extfile", "san")
        (directory / f"{name}.pem").write_text((directory / f"{name}.crt").read_text() + (directory / f"{name}.key").read_text())
    return {name: (directory / name).read_text() for name in ("ca.pem", "client.pem", "server.pem")}


def write_manifests(name, manifests, files, certificates, arguments) -> None:
    namespace = f"bench-{name}"
    app = (MANIFESTS / "app.conf.yaml.in").read_text().replace("@NAMESPACE@", namespace).replace("@FILES@", str(files))
    (manifests / f"{name}-app.yaml").write_text(app)
    if name == "gamut":
        # Nineteen rules that a request for / doesn't meet, so that the twentieth serves it.
        rules = "\n".join(
            f"    - matches:\n        - path:\n            type: PathPrefix\n            value: /api/{n}\n"
            f"          headers:\n            - name: x-user\n              value: u{n}\n"
            f"      backendRefs:\n        - name: canary\n          port: 80"
            for n in range(15)
        )
        (manifests / "gamut.yaml").write_text((MANIFESTS / "gamut.yaml").read_text().replace("@RULES@", rules))
        return
    extension = "yaml" if name == "envoy" else "cfg"
    config = {f"{side}.{extension}": (MANIFESTS / f"{name}-{side}.cfg").read_text() for side in ("in", "out")}
    pair = (MANIFESTS / "pair.yaml.in").read_text().replace("@PROXY@", name)
    for side in ("in", "out"):
        command = [w.format(side=side, envoy=arguments.envoy, base=2 if side == "in" else 3) for w in PROXIES[name]]
        pair = pair.replace(f"@{side.upper()}@", json.dumps(command))
    (manifests / f"{name}.yaml").write_text(pair)
    for kind, object_name, content in [("ConfigMap", "proxy", {"data": config}), ("Secret", "tls", {"stringData": certificates})]:
        manifest = {"apiVersion": "v1", "kind": kind, "metadata": {"name": object_name, "namespace": namespace}, **content}
        (manifests / f"{name}-{object_name}.json").write_text(json.dumps(manifest))


# --- measuring ------------------------------------------------------------------------------------------------------


def measure(arguments: argparse.Namespace) -> None:
    scratch = pathlib.Path(arguments.inside)
    pids = {name: proxy_pids(name) for name in arguments.proxies}
    for name, found in pids.items():
        if len(found) < 2:
            sys.exit(f"bench: the two proxies of {name} aren't running (found pids {found})")
    results = {
        "schema": 1,
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(arguments),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "rss_idle_mb": {name: [round(rss_kb(pid) / 1024, 1) for pid in found] for name, found in pids.items()},
        "works": {},
    }
    for work in arguments.works.split(","):
        samples = {name: [] for name in arguments.proxies}
        for round_number in range(arguments.rounds + 1):
            for name in arguments.proxies:
                sample = run_once(name, work, pids[name], arguments, scratch)
                if round_number > 0:  # the first round warms connections, caches and branch predictors
                    samples[name].append(sample)
        results["works"][work] = {name: summary(of) for name, of in samples.items()}
        show(work, results["works"][work])
    results["rss_after_mb"] = {name: [round(rss_kb(pid) / 1024, 1) for pid in found] for name, found in pids.items()}
    if "http1_16" in results["works"]:
        results["http1_cpu_us_per_request"] = {
            name: figures.get("cpu_us", {}).get("median") for name, figures in results["works"]["http1_16"].items()
        }
    pathlib.Path(arguments.out).write_text(json.dumps(results, indent=2) + "\n")
    print(f"bench: written to {arguments.out}")


def run_once(name, work, pids, arguments, scratch) -> dict:
    generator, options, path = WORKS[work]
    url = f"http://backend{path}" if name == "gamut" else f"http://127.0.0.1:8080{path}"
    if generator == "wrk":
        command = ["wrk", "-t1", f"-d{arguments.seconds}s", "-s", str(scratch / "report.lua"), *options, url]
    else:
        command = [arguments.load, "--seconds", str(arguments.seconds), *options, url]
    before = (sum(map(cpu_seconds, pids)), busy_seconds())
    done = subprocess.run(
        [arguments.gamut, "exec", "-n", f"bench-{name}", "deploy/client", "--", *command],
        capture_output=True, text=True, timeout=arguments.seconds + 60,
    )
    after = (sum(map(cpu_seconds, pids)), busy_seconds())
    lines = [line.removeprefix("REPORT ") for line in done.stdout.splitlines() if line.startswith(("REPORT ", "{"))]
    if done.returncode != 0 or not lines:
        return {"errors": 1, "why": (done.stderr or done.stdout).strip()[-300:]}
    report = json.loads(lines[-1])
    requests = max(report["requests"], 1)
    report["cpu_us"] = (after[0] - before[0]) * 1e6 / requests
    report["machine_us"] = (after[1] - before[1]) * 1e6 / requests
    return report


def summary(samples: list[dict]) -> dict:
    good = [sample for sample in samples if not sample["errors"]]
    if not good:
        return {"errors": sum(sample["errors"] for sample in samples), "why": samples[0].get("why", "") if samples else ""}
    figures = {"runs": len(good), "runs_with_errors": len(samples) - len(good)}
    for key in ("cpu_us", "machine_us", "rate", "p50_us", "p99_us", "p999_us"):
        values = sorted(sample[key] for sample in good)
        figures[key] = {"median": round(statistics.median(values), 2), "min": round(values[0], 2), "max": round(values[-1], 2)}
    return figures


def show(work: str, figures: dict) -> None:
    base = figures.get("haproxy", {}).get("cpu_us", {}).get("median")
    for name, row in figures.items():
        if "cpu_us" not in row:
            print(f"{work:14} {name:8} did not count: {row['errors']} errors {row['why']}")
            continue
        ratio = f"{row['cpu_us']['median'] / base:5.2f} x HAProxy" if base else ""
        print(f"{work:14} {name:8} cpu {row['cpu_us']['median']:8.1f} us  machine {row['machine_us']['median']:8.1f} us  "
              f"{row['rate']['median']:8.0f} req/s  p50 {row['p50_us']['median']:7.0f}  p99 {row['p99_us']['median']:7.0f} us  {ratio}",
              flush=True)


# --- what the kernel says ---------------------------------------------------------------------------------------------


def proxy_pids(name: str) -> list[int]:
    """The processes of both proxies of a pair, found by their environment; nginx, which writes over its own, by its
    command line and parent."""
    mark = b"GAMUT_POD_NAMESPACE=bench-gamut" if name == "gamut" else f"BENCH_PROXY={name}".encode()
    found, parents = [], {}
    for process in pathlib.Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            pid = int(process.name)
            parents[pid] = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
            nginx = name == "nginx" and b"nginx: master process nginx -c /run/proxy/" in (process / "cmdline").read_bytes()
            if nginx or mark in (process / "environ").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue  # it ended, or is a kernel thread
    return sorted({*found, *(pid for pid, parent in parents.items() if parent in found)})


def cpu_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def busy_seconds() -> float:
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) / TICKS


def rss_kb(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1))


def machine() -> dict:
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return {"cpus": os.cpu_count(), "model": model.group(1) if model else "unknown", "kernel": os.uname().release}


def versions(arguments: argparse.Namespace) -> dict:
    def first_line(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True)
        return (done.stdout + done.stderr).strip().splitlines()[0]

    found = {"gamut": first_line(arguments.gamut, "--version")}
    if "haproxy" in arguments.proxies:
        found["haproxy"] = first_line("haproxy", "-v")
    if "nginx" in arguments.proxies:
        found["nginx"] = first_line("nginx", "-v")
    if "envoy" in arguments.proxies:
        found["envoy"] = first_line(arguments.envoy, "--version")
    return found


if __name__ == "__main__":
    main()
