"""What is measured: each work with its load generator, and which proxies can do it.

A work's figures are per request (`per` = 1 request) or, where bytes are the matter, per MB of payload.
"""

import dataclasses

# Ports of the app: HTTP/1.1 and files (nginx), gRPC, WebSocket and HTTP/2 (the echo app), bytes (the echo app).
HTTP, GRPC, TCP, H2 = 8081, 8082, 8083, 8084
# The other proxies' ports in the client's pod, by the Service's port that a client of Gamut dials.
LISTENERS = {80: 8080, 82: 8082, 83: 8083, 84: 8084, 85: 8085, 90: 8090}


@dataclasses.dataclass(frozen=True)
class Work:
    """One kind of load. `arguments` may hold {url}, {seconds} and {scratch}."""

    generator: str
    arguments: tuple[str, ...]
    port: int = 80
    path: str = "/"
    # Bytes of payload in a request, where CPU is counted for bytes; 0 where it is counted for requests.
    payload: int = 0
    # Why a proxy can't do it.
    cannot: dict[str, str] = dataclasses.field(default_factory=dict)

    def command(self, proxy: str, tools: dict[str, str], seconds: float, scratch: str) -> list[str]:
        host = f"backend:{self.port}" if proxy.startswith("gamut") else f"127.0.0.1:{LISTENERS[self.port]}"
        filled = [a.format(url=f"http://{host}{self.path}", seconds=seconds, scratch=scratch) for a in self.arguments]
        return [tools.get(self.generator, self.generator), *filled]


def wrk(*arguments: str, script: str = "report", **more) -> Work:
    return Work("wrk", ("-t1", "-d{seconds}s", "-s", "{scratch}/" + script + ".lua", *arguments, "{url}"), **more)


def load(command: str, *arguments: str, **more) -> Work:
    return Work("gamut-load", (command, "--seconds", "{seconds}", *arguments, "{url}"), **more)


# The feature that is a pod's and no route's: it has a pair of its own.
LOG, LOGGED = "log", "gamut-logged"
NO_H2_UPSTREAM = {"nginx": "nginx 1.22 speaks HTTP/2 to backends for gRPC only"}

WORKS = {
    "http1_16": wrk("-c16"),
    "http1_256": wrk("-c256"),
    "http1_2k": load("rate", "--rate", "2000", "--connections", "16"),
    "http1_10k": load("rate", "--rate", "10000", "--connections", "64"),
    "http1_connect": wrk("-c16", "-H", "Connection: close"),
    # Not next to mtls_resumed, which calls the same port of the same pod: an ended connection's port waits for a minute (TIME_WAIT),
    # and with half of the ports waiting the kernel looks at all of these each time that it chooses one.
    "mtls_fresh": load("tcp-connect", "--connections", "8", port=85),
    "http2": Work("h2load", ("-c4", "-m16", "-D", "{seconds}", "--log-file={scratch}/h2load.log", "{url}"), 84, cannot=NO_H2_UPSTREAM),
    "grpc_unary": load("grpc", "--connections", "4", "--streams", "4", port=82, path="/bench.Echo/Unary"),
    "grpc_streaming": load("grpc-stream", "--connections", "4", "--streams", "4", port=82, path="/bench.Echo/Stream"),
    "body_64k_down": wrk("-c16", path="/files/64k", payload=65_536),
    "body_10m_down": wrk("-c4", path="/files/10m", payload=10_000_000),
    "body_64k_up": wrk("-c16", script="upload64k", path="/upload", payload=65_536),
    "body_10m_up": wrk("-c4", script="upload10m", path="/upload", payload=10_000_000),
    "tcp": load("tcp", "--connections", "4", port=83, payload=65_536),
    "websocket": load("websocket", "--connections", "16", port=90),
    "mtls_resumed": load("tcp-connect", "--connections", "8", port=83),
}

# What each feature costs: the first work again, on Services of Gamut that have more and more of them (see pairs.py).
VARIANTS = {
    "bare": "redirect, mTLS, metrics; no route",
    "table": "a table of twenty rules, of which the last matches",
    "split": "a split 90:10",
    "filters": "a header set on each request",
    "session": "a session cookie, sealed on each answer",
    LOG: "a line of access log for each request, at both ends",
}

WRK = """
{setup}
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'REPORT {{"requests": %d, "errors": %d, "rate": %f, "p50_us": %d, "p99_us": %d, "p999_us": %d}}\\n',
    summary.requests, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    summary.requests * 1e6 / summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""


def pairs_of(proxies: list[str]) -> list[str]:
    """The pairs that are brought up to measure these proxies."""
    return [*proxies, LOGGED] if "gamut" in proxies else proxies


def scripts() -> dict[str, str]:
    """wrk's scripts by file name."""
    upload = 'wrk.method = "POST"\nwrk.body = string.rep("x", {})'
    return {
        "report.lua": WRK.format(setup=""),
        "upload64k.lua": WRK.format(setup=upload.format(65_536)),
        "upload10m.lua": WRK.format(setup=upload.format(10_000_000)),
    }
