"""A mutating webhook that adds a container to every pod, as agents of observability or of secrets do.

second_webhook.py PORT PEM: serves HTTPS with the key and the certificate of PEM, and says on standard error what it saw.
"""

import base64
import http.server
import json
import ssl
import sys

AGENT = {"name": "agent", "image": "none", "readinessProbe": {"httpGet": {"path": "/healthy", "port": 9100}}}


class Webhook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = review["request"]
        spec = request["object"]["spec"]
        sidecar = any(it["name"] == "gamut-proxy" for it in spec.get("initContainers", []))
        print("asked", "after the sidecar came" if sidecar else "without a sidecar", file=sys.stderr, flush=True)
        response = {"uid": request["uid"], "allowed": True}
        if not any(it["name"] == "agent" for it in spec["containers"]):
            patch = json.dumps([{"op": "add", "path": "/spec/containers/-", "value": AGENT}])
            response |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch.encode()).decode()}
        answer = json.dumps({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


port, pem = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pem)
server = http.server.ThreadingHTTPServer(("", int(port)), Webhook)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("listening", file=sys.stderr, flush=True)
server.serve_forever()
