#!/usr/bin/env python3
"""Measures a sidecar pair each of Gamut, HAProxy, nginx and Envoy on the same work, in one run, interleaved.

Every pair runs as two pods of one `gamut up` (pairs.py); between them TLS 1.3 with client certificates on P-256. Works are in
works.py. Rounds go A B C D A B C D after one that warms up, figures are medians with their spread. A run with an error in it
doesn't count, and says so.

The access log is off but in the last of works.VARIANTS, which has pods of its own.

Writes results.json, whose schema is in docs/benchmarks.md. Call it through `run`, which installs what it needs.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import kernel
import pairs
import results
import works

HERE = pathlib.Path(__file__).resolve().parent
# Connections that are kept idle while memory is read: first few, which pay for what is made once, then many more.
FEW, MORE = 50, 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gamut", required=True, help="the gamut executable (release build)")
    parser.add_argument("--sidecar", help="the gamut-proxy executable, as images hold it; without it sidecars run the gamut executable")
    parser.add_argument("--load", required=True, help="the gamut-load executable (release build)")
    parser.add_argument("--parts", help="the gamut-parts executable (release build); without it a request's parts aren't timed")
    parser.add_argument("--envoy", help="the envoy executable; without it Envoy is left out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of load, per round and work")
    parser.add_argument("--works", default=",".join(works.WORKS), help="which works, by name")
    parser.add_argument("--proxies", default="gamut,haproxy,nginx,envoy")
    parser.add_argument("--quick", action="store_true", help="everything once and briefly, to see whether it works; fails on any error")
    parser.add_argument("--out", default=str(HERE / "results.json"))
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.proxies = [p for p in arguments.proxies.split(",") if p != "envoy" or arguments.envoy]
    if arguments.quick:
        arguments.rounds, arguments.seconds = 1, 1
    if arguments.inside:
        measure(arguments)
    else:
        sys.exit(bring_up(arguments))


def bring_up(arguments: argparse.Namespace) -> int:
    """Writes the manifests and runs this script again inside `gamut up`, which takes everything down afterwards."""
    with tempfile.TemporaryDirectory(prefix="gamut-bench-") as directory:
        scratch = pathlib.Path(directory)
        scratch.chmod(0o755)
        files, manifests = scratch / "files", scratch / "manifests"
        files.mkdir()
        manifests.mkdir()
        (files / "64k").write_bytes(b"x" * 65536)
        (files / "10m").write_bytes(b"x" * 10_000_000)
        for name, text in works.scripts().items():
            (scratch / name).write_text(text)
        pairs.write(arguments.proxies, manifests, files, arguments.gamut, arguments.sidecar, arguments.envoy)
        command = [arguments.gamut, "up", "--name", f"bench-{os.getpid()}", "-f", str(manifests), "--"]
        command += [sys.executable, *sys.argv, "--inside", str(scratch)]
        return subprocess.run(command).returncode


def measure(arguments: argparse.Namespace) -> None:
    bench = Bench(arguments)
    found = {
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": kernel.machine(),
        "versions": versions(arguments),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        **bench.memory(),
    }
    found["works"], found["cannot"] = {}, {}
    for name in arguments.works.split(","):
        work = works.WORKS[name]
        able = [proxy for proxy in arguments.proxies if proxy not in work.cannot]
        if arguments.quick:  # Gamut and one of the others, in turn
            able = [able[0], able[1 + len(found["works"]) % (len(able) - 1)]] if len(able) > 1 else able
        found["cannot"].update({name: work.cannot} if work.cannot else {})
        found["works"][name] = bench.rounds(name, {proxy: (proxy, work) for proxy in able})
    if "gamut" in arguments.proxies:
        found["features"] = bench.features()
        found["first_request"] = bench.first_request()
    found["http1_cpu_us_per_request"] = {
        proxy: results.median(figures, "cpu_us") for proxy, figures in found["works"].get("http1_16", {}).items()
    }
    if arguments.parts:
        found |= parts(arguments.parts)
    if arguments.quick:
        failed = [f"{name} {proxy}" for name, of in found["works"].items() for proxy, figures in of.items() if not figures["runs"]]
        sys.exit(f"bench: errors in {', '.join(failed)}" if failed else 0)
    results.update(pathlib.Path(arguments.out), found)
    print(f"bench: written to {arguments.out}")


class Bench:
    """What is up, and how it is measured."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.scratch = arguments.inside
        self.tools = {"gamut-load": arguments.load}
        self.sides = {name: kernel.proxy_pids(name) for name in works.pairs_of(arguments.proxies)}
        for name, sides in self.sides.items():
            if not all(sides.values()):
                sys.exit(f"bench: the two proxies of {name} aren't running (found {sides})")

    def memory(self) -> dict:
        """Before any load: resident memory, and what an idle kept-alive connection adds to it."""
        idle = {name: self.rss(name) for name in self.arguments.proxies}
        per_connection = {}
        more = FEW if self.arguments.quick else MORE
        for name in self.arguments.proxies:
            few, many = self.holding(name, FEW), self.holding(name, FEW + more)
            per_connection[name] = {side: round((many[side] - few[side]) * 1024 / more, 1) for side in few}
        print(f"idle MB {idle}, KB per idle connection {per_connection}", flush=True)
        return {
            "rss_idle_mb": {name: max(sides.values()) for name, sides in idle.items()},
            "rss_idle_mb_by_side": idle,
            "rss_kb_per_idle_connection": per_connection,
        }

    def holding(self, name: str, connections: int) -> dict:
        """Resident memory while so many connections are kept, each of which has had a request."""
        held = works.load("hold", "--connections", str(connections))
        with subprocess.Popen(self.exec(name, held), stdout=subprocess.PIPE, text=True) as process:
            found = [self.rss(name) for line in process.stdout if line.startswith("held")]
        if not found:
            sys.exit(f"bench: {name} doesn't keep {connections} connections")
        return found[-1]

    def rounds(self, title: str, candidates: dict[str, tuple[str, works.Work]]) -> dict:
        """Runs candidates (name -> pair and work) in turn, some rounds; the figures of each."""
        samples: dict[str, list[dict]] = {name: [] for name in candidates}
        warm_up = 0 if self.arguments.quick else 1
        for number in range(self.arguments.rounds + warm_up):
            for name, (proxy, work) in candidates.items():
                sample = self.once(proxy, work)
                if self.arguments.quick and sample["errors"]:
                    sample = self.once(proxy, work)  # whether it works: on a busy machine one request of a second may not
                if number >= warm_up:  # the first round warms connections, caches and branch predictors
                    samples[name].append(sample)
        figures = {name: results.summary(of) for name, of in samples.items()}
        base = results.median(figures.get("haproxy"), "cpu_us")
        for name, row in figures.items():
            print(results.line(title, name, row, base), flush=True)
        return figures

    def features(self) -> dict:
        """What each feature adds to the first work: Services with one more each, all on the same pods."""
        work = works.WORKS["http1_16"]
        candidates = {}
        for variant in list(works.VARIANTS)[-2 if self.arguments.quick else 0:]:
            url = tuple(a.replace("{url}", f"http://v-{variant}/") for a in work.arguments)
            candidates[variant] = (works.LOGGED if variant == works.LOG else "gamut", works.Work(work.generator, url))
        if "haproxy" in self.sides:
            direct = tuple(a.replace("{url}", f"http://backend:{works.HTTP}/") for a in work.arguments)
            candidates["no_proxy"] = ("haproxy", works.Work(work.generator, direct))
        return self.rounds("features", candidates)

    def first_request(self) -> dict:
        """The first request to a new destination beside a later one, each on a new connection."""
        urls = [f"http://far-{number}.bench-far/" for number in range(pairs.NEW_DESTINATIONS)]
        report = self.report(subprocess.run(self.exec("gamut", works.Work("gamut-load", ("first", *urls))), capture_output=True, text=True))
        print(f"first request to a new destination: {report}", flush=True)
        return report

    def once(self, proxy: str, work: works.Work) -> dict:
        pids = [pid for side in self.sides[proxy].values() for pid in side]
        before = (kernel.cpu_seconds(pids), kernel.busy_seconds())
        done = subprocess.run(self.exec(proxy, work), capture_output=True, text=True, timeout=self.arguments.seconds + 60)
        after = (kernel.cpu_seconds(pids), kernel.busy_seconds())
        report = self.h2load(done) if work.generator == "h2load" else self.report(done)
        # Per request, or per MB of payload.
        amount = max(report.get("requests", 0), 1) * (work.payload / 1e6 if work.payload else 1)
        report["cpu_us"] = (after[0] - before[0]) * 1e6 / amount
        report["machine_us"] = (after[1] - before[1]) * 1e6 / amount
        return report

    def report(self, done: subprocess.CompletedProcess) -> dict:
        lines = [line.removeprefix("REPORT ") for line in done.stdout.splitlines() if line.startswith(("REPORT ", "{"))]
        if done.returncode != 0 or not lines:
            return {"errors": 1, "why": (done.stderr or done.stdout).strip()[-300:]}
        report = json.loads(lines[-1])
        if report["errors"]:
            report["why"] = done.stderr.strip()[-300:]
        return report

    def h2load(self, done: subprocess.CompletedProcess) -> dict:
        """h2load says nothing about percentiles, but logs each request: when it began, its status, how long it took."""
        log = pathlib.Path(self.scratch) / "h2load.log"
        if done.returncode != 0 or not log.exists():
            return {"errors": 1, "why": (done.stderr or done.stdout).strip()[-300:]}
        rows = [row.split("\t") for row in log.read_text().splitlines()]
        log.unlink()
        took = sorted(int(row[2]) for row in rows if row[1] == "200")
        if not took:
            return {"errors": max(len(rows), 1), "why": done.stdout.strip()[-300:]}
        at = {key: took[min(int(len(took) * share), len(took) - 1)] for key, share in (("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999))}
        return {"requests": len(took), "errors": len(rows) - len(took), "rate": len(took) / self.arguments.seconds, **at}

    def exec(self, proxy: str, work: works.Work) -> list[str]:
        command = work.command(proxy, self.tools, self.arguments.seconds, self.scratch)
        return [self.arguments.gamut, "exec", "-n", f"bench-{proxy}", "deploy/client", "--", *command]

    def rss(self, name: str) -> dict:
        return {side: round(kernel.rss_kb(pids) / 1024, 2) for side, pids in self.sides[name].items()}


def parts(executable: str) -> dict:
    """A request's parts by the clock; the table's size against the time of a match."""
    done = subprocess.run([executable, "time"], capture_output=True, text=True, check=True)
    times = {part["name"]: part["ns"] for part in json.loads(done.stdout.splitlines()[-1])}
    print(f"parts, ns: {times}")
    return {"parts": times, "match_ratio_1000_to_10_rules": round(times["match_1000_rules"] / times["match_10_rules"], 2)}


def versions(arguments: argparse.Namespace) -> dict:
    commands = {
        "gamut": [arguments.gamut, "--version"], "haproxy": ["haproxy", "-v"], "nginx": ["nginx", "-v"],
        "envoy": [str(arguments.envoy), "--version"], "wrk": ["wrk", "-v"], "h2load": ["h2load", "--version"], "openssl": ["openssl", "version"],
    }
    found = {}
    for name, command in commands.items():
        if name in pairs.PROXIES and name not in arguments.proxies:
            continue
        done = subprocess.run(command, capture_output=True, text=True)
        # Some begin with where they are, which means nothing elsewhere.
        found[name] = (done.stdout + done.stderr).strip().splitlines()[0].replace(command[0], name)
    return found


if __name__ == "__main__":
    main()
