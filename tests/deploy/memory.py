"""Says whether a text is anywhere in the memory of a process: `memory.py PROCESS` with the text on standard input."""

import sys


def holds(process, needle):
    with open(f"/proc/{process}/maps") as maps, open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
        for line in maps:
            span, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            start, end = (int(text, 16) for text in span.split("-"))
            memory.seek(start)
            found = bytearray()
            while len(found) < end - start:
                piece = memory.read(end - start - len(found))
                if not piece:
                    break
                found += piece
            if needle in found:
                return True
    return False


print("yes" if holds(sys.argv[1], sys.stdin.buffer.read().strip()) else "no")
