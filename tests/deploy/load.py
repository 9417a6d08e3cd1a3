"""Sends signed requests as fast as they are answered, and says how many were accepted and how fast.

    load.py ADDRESS PORT FOLDER CONNECTIONS

FOLDER has a file per request, as `sigilum request --dry-run` prints them: each can be sent once.
"""

import collections
import http.client
import pathlib
import sys
import threading
import time


def read(file):
    first, *lines = file.read_text().splitlines()
    method, path, _ = first.split(" ")
    return method, path, [line.split(": ", 1) for line in lines if line]


def send(address, requests, statuses):
    connection = http.client.HTTPConnection(*address, timeout=10)
    while True:
        try:
            method, path, headers = requests.pop()
        except IndexError:
            return
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)


def main(host, port, folder, connections):
    requests = collections.deque(read(file) for file in pathlib.Path(folder).iterdir())
    count, statuses = len(requests), []
    threads = [threading.Thread(target=send, args=((host, int(port)), requests, statuses)) for _ in range(int(connections))]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    accepted = statuses.count(200)
    if accepted != count:
        sys.exit(f"{accepted} of {count} accepted: {dict(collections.Counter(statuses))}")
    print(f"{count} requests on {connections} connections, {count / seconds:.0f} per second")


main(*sys.argv[1:])
