"""Plays admin, authz or Envoy for the supervisor's tests, and writes down what it is told.

Its working directory is the run folder. Files there steer it: `exit-<role>` holds an exit code to end
with at once, `exit-once-<role>` does so one time, `leave-<role>` later; `in-flight` the number of requests Envoy says it has, `stubborn-<role>` makes it ignore
SIGTERM. What happens goes to `events`, a line each.
"""
import http.server, json, os, signal, socketserver, sys, threading, time

role = sys.argv[2] if sys.argv[1] == "gateway" else "envoy"


def event(text):
    with open("events", "a") as file:
        file.write(f"{role} {text}\n")


def read(name, default):
    try:
        with open(name) as file:
            return file.read().strip()
    except FileNotFoundError:
        return default


def end(text, code):
    event(text)
    os._exit(code)


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.split("?")[0]
        body, status = b"", 200
        if path == "/stats":
            body = f"http.ingress.downstream_rq_active: {read('in-flight', '0')}\n".encode()
        if path in ("/health/ready", "/health/startup") and not os.path.exists("authz-up"):
            status = 503
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        event(f"asked {self.path}")
        self.do_GET()

    def address_string(self):
        return "somebody"

    def log_message(self, *arguments):
        pass


class Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True


class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    pass


def serve(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def leave():
    name = f"leave-{role}"
    while True:
        code = read(name, "")
        if code:
            os.remove(name)
            end(f"left with {code}", int(code))
        time.sleep(0.02)


for name in [f"exit-{role}", f"exit-once-{role}"]:
    code = read(name, "")
    if code:
        if "once" in name:
            os.remove(name)
        print("this is why", file=sys.stderr, flush=True)
        sys.exit(int(code))

if not os.path.exists(f"stubborn-{role}"):
    signal.signal(signal.SIGTERM, lambda *_: end("term", 0))
else:
    signal.signal(signal.SIGTERM, lambda *_: event("term ignored"))

settings = json.loads(read("envoy-settings.json", ""))["settings"]
event(f"start environment={','.join(sorted(os.environ))} group={os.getpgid(0) == os.getpid()} held_back={'--held-back' in sys.argv}")
threading.Thread(target=leave, daemon=True).start()
if role == "admin":
    if os.path.exists("authz-up"):
        os.remove("authz-up")
    serve(Tcp(address(settings["admin"][0]), Answer))
elif role == "authz":
    open("authz-up", "w").close()
else:
    serve(Unix("envoy-admin.sock", Answer))
    serve(Tcp(address(settings["ingress"][0]), Answer))

if role == "envoy":
    while True:
        time.sleep(60)
for line in sys.stdin:
    event(f"told {line.strip()}")
end("end of input", 0)
