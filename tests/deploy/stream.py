"""A provider for the pods of tests/deploy: answers every request with what it was asked; `…/stream` with a piece at once and
another when the file of the second argument is there."""

import http.server
import json
import os
import sys
import time


class Provider(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        if self.path.endswith("/stream"):
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.piece(b"first\n")
            while not os.path.exists(sys.argv[2]):
                time.sleep(0.05)
            self.piece(b"last\n")
            self.piece(b"")
            return
        text = json.dumps({"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def piece(self, text):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        self.wfile.flush()

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Provider).serve_forever()
