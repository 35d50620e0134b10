#!/usr/bin/env python3
"""A large cluster as a controller meets it: Services, for each an EndpointSlice, and the pods that it names.

  cluster run integration/cluster/scale.py fill SERVICES PODS_PER_SERVICE
  cluster run integration/cluster/scale.py start GAMUT [SECONDS MIB]

`fill` creates them; what is there already stays. The pods are never scheduled and have no status: they are what a controller has to
read, not what a node has to run, and kube-proxy is told to leave the Services alone. `start` runs `GAMUT controller` until it knows
everything that exists, and prints how long that took and how much memory; it fails where that is more than SECONDS or MIB. Run it inside
the cluster's namespaces, where KUBECONFIG names an admin's token.
"""
import concurrent.futures, http.client, json, os, re, ssl, subprocess, sys, threading, time

NAMESPACES = 100
# kube-proxy doesn't look at what carries this label; Gamut does.
NOT_KUBE_PROXYS = {"service.kubernetes.io/service-proxy-name": "none"}

config = open(os.environ["KUBECONFIG"]).read()
host, port = re.search(r"https://([^:]+):(\d+)", config).groups()
trust = ssl.create_default_context(cafile=re.search(r"certificate-authority: ([^}\s]+)", config).group(1))
headers = {"Authorization": "Bearer " + re.search(r"token: (\w+)", config).group(1), "Content-Type": "application/json"}
local = threading.local()


def connect():
    return http.client.HTTPSConnection(host, int(port), context=trust)


def create(path, body):
    """The object as it was created, or None if it was there already."""
    for attempt in range(5):
        try:
            if not hasattr(local, "connection"):
                local.connection = connect()
            local.connection.request("POST", path, json.dumps(body), headers)
            answer = local.connection.getresponse()
            text = answer.read()
            if answer.status in (200, 201):
                return json.loads(text)
            if answer.status == 409:
                return None
            if answer.status not in (429, 500, 503):
                sys.exit(f"{path}: {answer.status} {text[:300]}")
        except (http.client.HTTPException, OSError):
            del local.connection
        time.sleep(0.5 * (attempt + 1))
    sys.exit(f"{path}: no answer")


def create_namespaces():
    """Creates the namespaces and waits until each has its service account, without which it admits no pod."""
    missing = {f"scale-{number}" for number in range(NAMESPACES)}
    for name in missing:
        create("/api/v1/namespaces", {"metadata": {"name": name}})
    watch = connect()
    watch.request("GET", "/api/v1/serviceaccounts?watch=1&fieldSelector=metadata.name%3Ddefault", headers=headers)
    answer = watch.getresponse()
    while missing:
        missing.discard(json.loads(answer.readline())["object"]["metadata"]["namespace"])
    watch.close()


def create_service(number, pods):
    namespace, name = f"scale-{number % NAMESPACES}", f"service-{number}"
    create(f"/api/v1/namespaces/{namespace}/services", {
        "metadata": {"name": name, "labels": NOT_KUBE_PROXYS},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
    endpoints = []
    for index in range(pods):
        pod = f"{name}-{index}"
        made = create(f"/api/v1/namespaces/{namespace}/pods", {
            "metadata": {"name": pod, "labels": {"app": name, "pod-template-hash": "5d4f8c7b9"}},
            "spec": {
                "schedulerName": "none",
                "containers": [{"name": "app", "image": "example.com/app:1", "ports": [{"containerPort": 8080}],
                                "env": [{"name": f"SETTING_{n}", "value": "x" * 40} for n in range(20)]}],
            },
        })
        place = number * pods + index
        endpoints.append({
            "addresses": [f"10.{128 + place // 62500}.{place // 250 % 250}.{place % 250 + 1}"],
            "conditions": {"ready": True},
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod, **({"uid": made["metadata"]["uid"]} if made else {})},
        })
    create(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", {
        "metadata": {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name, **NOT_KUBE_PROXYS}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    })


def fill(services, pods):
    create_namespaces()
    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        for done, _ in enumerate(pool.map(lambda number: create_service(number, pods), range(services)), 1):
            if done % 1000 == 0:
                print(f"{done} Services after {time.monotonic() - begin:.0f} s", flush=True)


def start(gamut, seconds=None, mib=None):
    # It writes nothing that matters: without a CA it serves nobody.
    command = [gamut, "controller", "--kubeconfig", os.environ["KUBECONFIG"], "--ca-address", "127.0.0.1:1",
               "--listen", "127.0.0.1:15012", "--admin", "127.0.0.1:15014"]
    begin = time.monotonic()
    controller = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in controller.stderr:
        if "everything that exists is known" in line:
            break
    else:
        sys.exit(f"{gamut} ended with {controller.wait()} before it knew everything")
    took = time.monotonic() - begin
    status = open(f"/proc/{controller.pid}/status").read()
    memory = {name: int(re.search(name + r":\s*(\d+) kB", status).group(1)) / 1024 for name in ("VmRSS", "VmHWM")}
    cpu = sum(map(int, open(f"/proc/{controller.pid}/stat").read().rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")
    controller.terminate()
    controller.communicate()
    print(f"knows everything after {took:.1f} s ({cpu:.1f} s of CPU), "
          f"with {memory['VmRSS']:.0f} MiB of memory, {memory['VmHWM']:.0f} MiB at most")
    if seconds and (took > float(seconds) or memory["VmHWM"] > float(mib)):
        sys.exit(f"it may take {seconds} s and {mib} MiB")


match sys.argv[1:]:
    case ["fill", services, pods]:
        fill(int(services), int(pods))
    case ["start", gamut] | ["start", gamut, _, _]:
        start(*sys.argv[2:])
    case _:
        sys.exit(__doc__)
