"""What the kernel says: processes, their CPU and memory, the whole machine's."""

import os
import pathlib
import re

TICKS = os.sysconf("SC_CLK_TCK")


def proxy_pids(name: str) -> dict[str, list[int]]:
    """The processes of a pair's two proxies, by side: those of the client's pod (`out`) and of the backend's (`in`).

    Found by their environment; nginx, which writes over its own, by its command line and parent."""
    found: dict[str, list[int]] = {"out": [], "in": []}
    parents = {}
    for process in pathlib.Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            pid = int(process.name)
            parents[pid] = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
            command = (process / "cmdline").read_bytes()
            environment = dict(word.partition(b"=")[::2] for word in (process / "environ").read_bytes().split(b"\0"))
        except OSError:
            continue  # it ended, or is a kernel thread
        if name.startswith("gamut"):
            if environment.get(b"GAMUT_POD_NAMESPACE") == f"bench-{name}".encode():
                found["out" if environment.get(b"GAMUT_POD_NAME", b"").startswith(b"client") else "in"].append(pid)
        elif environment.get(b"BENCH_PROXY") == name.encode() or (name == "nginx" and b"nginx: master process nginx -c /run/proxy/" in command):
            found["out" if b"/run/proxy/out." in command else "in"].append(pid)
    return {side: sorted({*pids, *(pid for pid, parent in parents.items() if parent in pids)}) for side, pids in found.items()}


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of processes."""
    total = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def busy_seconds() -> float:
    """CPU time of the whole machine, interrupts included."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) / TICKS


def rss_kb(pids: list[int]) -> int:
    """Resident memory of a proxy: the processes of one side. What a master and its worker share counts twice."""
    return sum(int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) for pid in pids)


def machine() -> dict:
    info = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", info)
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return {
        "cpus": os.cpu_count(),
        "model": model.group(1) if model else "unknown",
        "kernel": os.uname().release.split("-")[0],
        "memory_gb": round(int(memory.group(1)) / 1e6) if memory else 0,
    }
