"""The pairs: for each proxy a client pod and a backend pod, as manifests for `gamut up`.

Gamut's pods are injected, and run as users run them: redirect rules, mTLS in strict mode, tables of twenty rules, a split, a
header filter, a session, metrics. The others are wired by hand (manifests/PROXY-SIDE.cfg) to do the
same hops over the same TLS.
"""

import json
import pathlib
import subprocess

import works

MANIFESTS = pathlib.Path(__file__).resolve().parent / "manifests"

# How each pair's two proxies are started inside their pods.
PROXIES = {
    "haproxy": ["haproxy", "-db", "-f", "/run/proxy/{side}.cfg"],
    "nginx": ["nginx", "-c", "/run/proxy/{side}.cfg"],
    "envoy": ["{envoy}", "--concurrency", "1", "--base-id", "{base}", "-l", "error", "-c", "/run/proxy/{side}.yaml"],
}
# Destinations that nobody has used before, in another namespace than the client's.
NEW_DESTINATIONS = 20
TABLE = 20
# What a route can have, in the order in which it is added.
ALL = ("table", "split", "filters", "session")


def write(
    proxies: list[str], directory: pathlib.Path, files: pathlib.Path, gamut: str, sidecar: str | None, envoy: str | None
) -> None:
    """Writes the manifests of all pairs."""
    certificates = make_certificates(directory.parent / "tls")
    for name in works.pairs_of(proxies):
        app = (MANIFESTS / "app.conf.yaml.in").read_text()
        app = app.replace("@NAMESPACE@", f"bench-{name}").replace("@FILES@", str(files))
        (directory / f"{name}-app.yaml").write_text(app)
        if name == "gamut":
            objects = sidecars_of(gamut_pair(gamut), sidecar)
        elif name == works.LOGGED:
            objects = sidecars_of(logged_pair(gamut), sidecar)
        else:
            objects = other_pair(name, gamut, envoy, certificates)
        (directory / f"{name}.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


# --- Gamut ------------------------------------------------------------------------------------------------------------


def sidecars_of(objects: list[dict], sidecar: str | None) -> list[dict]:
    """The same, with a program of this machine in place of the sidecars' image."""
    for pod in (o["spec"]["template"] for o in objects if sidecar and o["kind"] == "Deployment"):
        pod["metadata"].setdefault("annotations", {})["gamut.mesh/image"] = sidecar
    return objects


def gamut_pair(gamut: str) -> list[dict]:
    namespace = "bench-gamut"
    ports = [
        port("http", 80, works.HTTP, "http"),
        port("grpc", 82, works.GRPC, "kubernetes.io/h2c"),
        port("tcp", 83, works.TCP, "tcp"),
        port("h2", 84, works.H2, "kubernetes.io/h2c"),
        port("tcp-again", 85, works.TCP, "tcp"),
        port("websocket", 90, works.GRPC, "kubernetes.io/ws"),
    ]
    objects = [
        meshed_namespace(namespace),
        service(namespace, "backend", {"app": "backend"}, ports),
        service(namespace, "canary", {"app": "backend"}, ports),
        *(route(namespace, f"backend-{number}", "backend", number, ALL) for number in (80, 84, 90)),
        grpc_route(namespace),
        deployment(namespace, "backend", app_containers(gamut), app_volumes()),
        deployment(namespace, "client", [{"name": "idle", "image": "idle", "command": ["sleep", "infinity"]}], []),
    ]
    # One Service for each feature more, on the same pods.
    features: tuple[str, ...] = ()
    for variant in ("bare", *ALL):
        features += (variant,)
        objects.append(service(namespace, f"v-{variant}", {"app": "backend"}, ports[:1]))
        if variant != "bare":
            objects.append(route(namespace, f"v-{variant}", f"v-{variant}", 80, features))
    far = "bench-far"
    objects += [meshed_namespace(far), deployment(far, "far", [{"name": "app", "image": "gamut.mesh/echo"}], [])]
    for number in range(NEW_DESTINATIONS):
        objects.append(service(far, f"far-{number}", {"app": "far"}, [port("http", 80, 8080, "http")]))
    return objects


def logged_pair(gamut: str) -> list[dict]:
    """A pair with all features, whose sidecars log each request."""
    namespace = f"bench-{works.LOGGED}"
    ports = [port("http", 80, works.HTTP, "http")]
    pods = [
        deployment(namespace, "backend", app_containers(gamut), app_volumes()),
        deployment(namespace, "client", [{"name": "idle", "image": "idle", "command": ["sleep", "infinity"]}], []),
    ]
    for pod in pods:
        pod["spec"]["template"]["metadata"]["annotations"] = {"gamut.mesh/access-log": "all"}
    name = f"v-{works.LOG}"
    services = [service(namespace, of, {"app": "backend"}, ports) for of in ("backend", "canary", name)]
    return [meshed_namespace(namespace), *services, route(namespace, name, name, 80, ALL), *pods]


def meshed_namespace(name: str) -> dict:
    metadata = {"name": name, "labels": {"gamut.mesh/inject": "enabled"}, "annotations": {"gamut.mesh/mtls": "strict"}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def route(namespace: str, name: str, parent: str, number: int, features: tuple[str, ...]) -> dict:
    """A route with these features: `table` puts nineteen rules before the one that a request meets."""
    rules = []
    if "table" in features:
        for n in range(TABLE - 1):
            match = {"path": {"type": "PathPrefix", "value": f"/api/{n}"}, "headers": [{"name": "x-user", "value": f"u{n}"}]}
            rules.append({"matches": [match], "backendRefs": [{"name": "canary", "port": number}]})
    backends = [{"name": "backend", "port": number, "weight": 90}]
    if "split" in features:
        backends.append({"name": "canary", "port": number, "weight": 10})
    rule: dict = {"name": "all", "backendRefs": backends}
    if "filters" in features:
        header = {"set": [{"name": "x-bench", "value": "1"}]}
        rule["filters"] = [{"type": "RequestHeaderModifier", "requestHeaderModifier": header}]
    if "session" in features:
        rule["sessionPersistence"] = {"type": "Cookie", "cookie": {"name": "bench"}}
    return route_object("HTTPRoute", namespace, name, parent, number, [*rules, rule])


def grpc_route(namespace: str) -> dict:
    rules: list[dict] = [
        {"matches": [{"method": {"service": f"bench.Other{n}", "method": "Call"}}], "backendRefs": [{"name": "canary", "port": 82}]}
        for n in range(TABLE - 1)
    ]
    header = {"set": [{"name": "x-bench", "value": "1"}]}
    backends = [{"name": "backend", "port": 82, "weight": 90}, {"name": "canary", "port": 82, "weight": 10}]
    filters = [{"type": "RequestHeaderModifier", "requestHeaderModifier": header}]
    session = {"type": "Cookie", "cookie": {"name": "bench"}}
    rules.append({"name": "all", "filters": filters, "backendRefs": backends, "sessionPersistence": session})
    return route_object("GRPCRoute", namespace, "backend-82", "backend", 82, rules)


def route_object(kind: str, namespace: str, name: str, parent: str, number: int, rules: list[dict]) -> dict:
    parents = [{"group": "", "kind": "Service", "name": parent, "port": number}]
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": {"parentRefs": parents, "rules": rules}}


# --- the others -------------------------------------------------------------------------------------------------------


def other_pair(name: str, gamut: str, envoy: str | None, certificates: dict[str, str]) -> list[dict]:
    namespace = f"bench-{name}"
    extension = "yaml" if name == "envoy" else "cfg"
    config = {f"{side}.{extension}": (MANIFESTS / f"{name}-{side}.cfg").read_text() for side in ("in", "out")}
    volumes = [{"name": "tls", "secret": {"secretName": "tls"}}, {"name": "config", "configMap": {"name": "proxy"}}]
    mounts = [{"name": "tls", "mountPath": "/run/tls"}, {"name": "config", "mountPath": "/run/proxy"}]

    def proxy(side: str) -> dict:
        command = [word.format(side=side, envoy=envoy, base=2 if side == "in" else 3) for word in PROXIES[name]]
        environment = [{"name": "BENCH_PROXY", "value": name}]
        return {"name": "proxy", "image": "proxy", "command": command, "env": environment, "volumeMounts": mounts}

    inbound = {**proxy("in"), "readinessProbe": {"tcpSocket": {"port": 8443}}}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        service(namespace, "backend", {"app": "backend"}, [port(f"p{n}", n, n, None) for n in (works.HTTP, *range(8443, 8448))]),
        deployment(namespace, "backend", [*app_containers(gamut), inbound], [*app_volumes(), *volumes]),
        deployment(namespace, "client", [proxy("out")], volumes),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "proxy", "namespace": namespace}, "data": config},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls", "namespace": namespace}, "stringData": certificates},
    ]


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


# --- what all have in common ------------------------------------------------------------------------------------------


def app_containers(gamut: str) -> list[dict]:
    """nginx for HTTP and files, the echo app for gRPC, WebSocket and bytes."""
    ready = {"httpGet": {"path": "/", "port": works.HTTP}}
    mount = [{"name": "app", "mountPath": "/run/app"}]
    echo = [gamut, "echo", "server", f"--port={works.GRPC}", f"--tcp={works.TCP}"]
    return [
        {"name": "app", "image": "nginx", "command": ["nginx", "-c", "/run/app/nginx.conf"], "readinessProbe": ready, "volumeMounts": mount},
        {"name": "echo", "image": "echo", "command": echo, "readinessProbe": {"tcpSocket": {"port": works.GRPC}}},
    ]


def app_volumes() -> list[dict]:
    return [{"name": "app", "configMap": {"name": "app"}}]


def port(name: str, number: int, target: int, protocol: str | None) -> dict:
    return {"name": name, "port": number, "targetPort": target, **({"appProtocol": protocol} if protocol else {})}


def service(namespace: str, name: str, selector: dict, ports: list[dict]) -> dict:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": {"selector": selector, "ports": ports}}


def deployment(namespace: str, name: str, containers: list[dict], volumes: list[dict]) -> dict:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers, "volumes": volumes}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
