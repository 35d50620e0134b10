#!/usr/bin/env python3
"""Carries a session header between services, with nothing but the standard library.

    carry.py URL COUNT          asks COUNT times as one user, and prints which pod answered
    carry.py --serve PORT URL   a service in between: whoever calls it keeps their session with URL
"""

import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HEADER = "x-session"


class Session:
    """One user's session with one service: send what the last answer brought."""

    def __init__(self, token=None):
        self.token = token

    def get(self, url):
        request = urllib.request.Request(url)
        if self.token:
            request.add_header(HEADER, self.token)
        with urllib.request.urlopen(request, timeout=10) as answer:
            # Only an answer that begins or moves the session brings a token.
            self.token = answer.headers.get(HEADER) or self.token
            return answer.status, answer.read()


class Between(BaseHTTPRequestHandler):
    """Passes the caller's token on, and what comes back to the caller: the user is the caller's, not ours."""

    upstream = ""

    def do_GET(self):
        before = self.headers.get(HEADER)
        session = Session(before)
        status, body = session.get(self.upstream)
        self.send_response(status)
        if session.token != before:
            self.send_header(HEADER, session.token)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def main():
    if sys.argv[1] == "--serve":
        Between.upstream = sys.argv[3]
        ThreadingHTTPServer(("", int(sys.argv[2])), Between).serve_forever()
    session = Session()
    for _ in range(int(sys.argv[2])):
        _, body = session.get(sys.argv[1])
        print(next(line for line in body.decode().splitlines() if line.startswith("Hostname=")))


if __name__ == "__main__":
    main()
