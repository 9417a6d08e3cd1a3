"""Runs a command under the system call filter of a unit, as systemd would set it: arguments are the unit's lines
`SystemCallFilter=` and `RestrictAddressFamilies=`, then `--`, then the command."""
import ctypes, os, socket, subprocess, sys

at = sys.argv.index("--")
lines, command = sys.argv[1:at], sys.argv[at + 1:]


def members(name, seen):
    if not name.startswith("@"):
        return {name}
    if name in seen:
        return set()
    seen.add(name)
    text = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True).stdout
    found = set()
    for line in text.splitlines()[1:]:
        line = line.strip()
        if line and not line.startswith("#"):
            found |= members(line, seen)
    return found


allowed, families = members("@default", set()), []
for line in lines:
    key, value = line.split("=", 1)
    if key == "SystemCallFilter":
        deny = value.startswith("~")
        for word in value.lstrip("~").split():
            named = members(word, set())
            allowed = allowed - named if deny else allowed | named
    elif key == "RestrictAddressFamilies":
        families = [getattr(socket, family) for family in value.split()]

lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
lib.seccomp_init.restype = ctypes.c_void_p
lib.seccomp_init.argtypes = [ctypes.c_uint32]
lib.seccomp_load.argtypes = [ctypes.c_void_p]
lib.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]


class Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


ALLOW, ERRNO, EQUAL = 0x7FFF0000, 0x00050000 | 1, 4
filter = lib.seccomp_init(ERRNO)
assert filter
for name in sorted(allowed):
    number = lib.seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        continue
    if name == "socket" and families:
        for family in families:
            rule = (Compare * 1)(Compare(0, EQUAL, family, 0))
            assert lib.seccomp_rule_add_array(filter, ALLOW, number, 1, rule) == 0
    else:
        assert lib.seccomp_rule_add_array(filter, ALLOW, number, 0, None) == 0, name
assert lib.seccomp_load(filter) == 0, "the filter could not be loaded"
os.execvp(command[0], command)
