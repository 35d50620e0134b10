#!/usr/bin/env python3
"""Fills a test cluster: Services, and for each an EndpointSlice and the pods that it names.

  cluster run integration/cluster/scale.py SERVICES PODS_PER_SERVICE

The pods are never scheduled and have no status: they are what a controller has to read, not what a node has to run.
Run it inside the cluster's namespaces, where KUBECONFIG names an admin's token.
"""
import concurrent.futures, http.client, json, os, re, ssl, sys, threading, time

services, pods_each = int(sys.argv[1]), int(sys.argv[2])
config = open(os.environ["KUBECONFIG"]).read()
host, port = re.search(r"https://([^:]+):(\d+)", config).groups()
token = re.search(r"token: (\w+)", config).group(1)
trust = ssl.create_default_context(cafile=re.search(r"certificate-authority: ([^}\s]+)", config).group(1))
local = threading.local()


def create(path, body):
    for attempt in range(5):
        try:
            if not hasattr(local, "connection"):
                local.connection = http.client.HTTPSConnection(host, int(port), context=trust)
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            local.connection.request("POST", path, json.dumps(body), headers)
            answer = local.connection.getresponse()
            text = answer.read()
            if answer.status in (200, 201, 409):
                return json.loads(text) if answer.status != 409 else None
            if answer.status not in (429, 500, 503):
                sys.exit(f"{path}: {answer.status} {text[:300]}")
        except (http.client.HTTPException, OSError):
            del local.connection
        time.sleep(0.5 * (attempt + 1))
    sys.exit(f"{path}: no answer")


def fill(number):
    namespace, name = f"scale-{number % 100}", f"service-{number}"
    create(f"/api/v1/namespaces/{namespace}/services", {
        "metadata": {"name": name},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
    endpoints = []
    for index in range(pods_each):
        pod = f"{name}-{index}"
        made = create(f"/api/v1/namespaces/{namespace}/pods", {
            "metadata": {"name": pod, "labels": {"app": name, "pod-template-hash": "5d4f8c7b9"}},
            "spec": {
                "schedulerName": "none",
                "containers": [{"name": "app", "image": "example.com/app:1", "ports": [{"containerPort": 8080}],
                                "env": [{"name": f"SETTING_{n}", "value": "x" * 40} for n in range(20)]}],
            },
        })
        place = number * pods_each + index
        endpoints.append({
            "addresses": [f"10.{128 + place // 62500}.{place // 250 % 250}.{place % 250 + 1}"],
            "conditions": {"ready": True},
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod, **({"uid": made["metadata"]["uid"]} if made else {})},
        })
    create(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", {
        "metadata": {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    })


for namespace in range(100):
    create("/api/v1/namespaces", {"metadata": {"name": f"scale-{namespace}"}})
time.sleep(2)  # every namespace gets its default service account first
start = time.monotonic()
with concurrent.futures.ThreadPoolExecutor(24) as pool:
    for done, _ in enumerate(pool.map(fill, range(services)), 1):
        if done % 1000 == 0:
            print(f"{done} Services after {time.monotonic() - start:.0f} s", flush=True)
