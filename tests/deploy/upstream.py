"""A provider for the tests of deploy/: answers every request with what it was asked, and writes that down too."""

import http.server
import json
import sys


class Provider(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        seen = {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body}
        text = json.dumps(seen) + "\n"
        with open(sys.argv[2], "a") as log:
            log.write(text)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Provider).serve_forever()
