"""A receiver of traces that isn't ours: gRPC's own server, and the protocol's messages as OpenTelemetry publishes them.

    receiver.py [ADDRESS GRPC_PORT HTTP_PORT]

It listens on two ports of the address, of the loopback address and free ones if nothing is said, and prints them, as a line of JSON:
{"grpc": PORT, "http": PORT}. Each export is a line more: {"export": the message, "unknown": the fields in it that the protocol doesn't
have}. It ends when its standard input does.
"""

import base64
import json
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service


def say(line):
    print(json.dumps(line), flush=True)


def unknown(message, path):
    """The fields of a message that it has on the wire and not in its definition; of another wire type is another field."""
    found = [f"{path}.{field.field_number}" for field in UnknownFieldSet(message)]
    for field, value in message.ListFields():
        for inner in [value] if isinstance(value, Message) else value if field.message_type else []:
            found += unknown(inner, f"{path}.{field.name}")
    return found


def readable(message):
    """A message as JSON, with ids in hexadecimal: OTLP has them so, where protobuf's JSON has base64."""
    export = MessageToDict(message)
    scopes = [scope for resource in export["resourceSpans"] for scope in resource["scopeSpans"]]
    for span in [span for scope in scopes for span in scope["spans"]]:
        for name in span.keys() & {"traceId", "spanId", "parentSpanId"}:
            span[name] = base64.b64decode(span[name]).hex()
    return export


def take(message):
    say({"export": readable(message), "unknown": unknown(message, "request")})
    return trace.ExportTraceServiceResponse()


class OverGrpc(service.TraceServiceServicer):
    def Export(self, request, context):
        return take(request)


class OverHttp(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        right = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
        answer = take(trace.ExportTraceServiceRequest.FromString(body)).SerializeToString() if right else b""
        self.send_response(200 if right else 404)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


address, grpc_port, http_port = sys.argv[1:] or ("127.0.0.1", 0, 0)
over_grpc = grpc.server(futures.ThreadPoolExecutor(1))
service.add_TraceServiceServicer_to_server(OverGrpc(), over_grpc)
over_http = HTTPServer((address, int(http_port)), OverHttp)
threading.Thread(target=over_http.serve_forever, daemon=True).start()
port = over_grpc.add_insecure_port(f"{address}:{grpc_port}")
over_grpc.start()
say({"grpc": port, "http": over_http.server_port})
sys.stdin.read()
