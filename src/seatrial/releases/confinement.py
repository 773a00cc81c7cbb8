"""What is left to a process that may run anything? To compute, to read Python, and to write into one folder.

`confine` gives up the rest for good, for the calling process and all that it starts, with what Linux lets every user
do: Landlock (files: kernel.org/doc/html/latest/userspace-api/landlock.html) and a seccomp filter (system calls:
man 2 seccomp). Namespaces of its own come on top where the kernel lets this user make them; nothing rests on them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seatrial.core.errors import Failed

_NO_NEW_PRIVILEGES = 38
_NEWUSER, _NEWPID, _NEWNET, _NEWIPC = 0x10000000, 0x20000000, 0x40000000, 0x08000000

# Landlock. Rights by bit: 0 execute, 1 write, 2 read a file, 3 a folder, 4 to 12 remove and make of every kind,
# 13 refer, 14 truncate, 15 ioctl of devices; how many of them there are, by the version of the kernel's interface
_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on every machine
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_NEWEST_RIGHTS = 16
_EXECUTE, _WRITE, _READ, _READ_FOLDER, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_READABLE = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/nsswitch.conf"),
    *("/etc/passwd", "/etc/group", "/etc/os-release"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems", "/proc/sys/vm"),
    *("/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm"),
    *("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"),
)

# System calls that are refused: name, number on x86_64, number on aarch64 (-1: it has none)
_REFUSED_CALLS = """
# other processes, near or far: sockets of any kind, shared memory, signals, looking into them; and out of the group
# of processes that is ended as a whole
socket:41:198 socketpair:53:199 connect:42:203 bind:49:200 listen:50:201 accept:43:202 accept4:288:242
shmget:29:194 shmat:30:196 shmctl:31:195 semget:64:190 semop:65:193 semctl:66:191 semtimedop:220:192 msgget:68:186
msgsnd:69:189 msgrcv:70:188 msgctl:71:187 mq_open:240:180 mq_unlink:241:181 kill:62:129 tkill:200:130
rt_sigqueueinfo:129:138 rt_tgsigqueueinfo:297:240 pidfd_send_signal:424:424 pidfd_getfd:438:438 ptrace:101:117
process_vm_readv:310:270 process_vm_writev:311:271 process_madvise:440:440 kcmp:312:272 setpriority:141:140
ioprio_set:251:30 migrate_pages:256:238 move_pages:279:239 setsid:112:157 setpgid:109:154
# files of others, of which Landlock guards the content but not what is said of them
truncate:76:45 chmod:90:-1 fchmod:91:52 fchmodat:268:53 fchmodat2:452:452 chown:92:-1 fchown:93:55 lchown:94:-1
fchownat:260:54 utime:132:-1 utimes:235:-1 futimesat:261:-1 utimensat:280:88 setxattr:188:5 lsetxattr:189:6
fsetxattr:190:7 removexattr:197:14 lremovexattr:198:15 fremovexattr:199:16 setxattrat:463:463
removexattrat:466:466 file_setattr:469:469 name_to_handle_at:303:264 open_by_handle_at:304:265
fanotify_init:300:262 quotactl:179:60 quotactl_fd:443:443 openat2:437:437
# other roots and namespaces
mount:165:40 umount2:166:39 pivot_root:155:41 chroot:161:51 unshare:272:97 setns:308:268 open_tree:428:428
move_mount:429:429 fsopen:430:430 fsconfig:431:431 fsmount:432:432 fspick:433:433 mount_setattr:442:442
open_tree_attr:467:467
# the kernel itself, where its faults have been
bpf:321:280 perf_event_open:298:241 userfaultfd:323:282 io_uring_setup:425:425 io_uring_enter:426:426
io_uring_register:427:427 add_key:248:217 request_key:249:218 keyctl:250:219 init_module:175:105
finit_module:313:273 delete_module:176:106 kexec_load:246:104 kexec_file_load:320:294 reboot:169:142
swapon:167:224 swapoff:168:225 acct:163:89 settimeofday:164:170 clock_settime:227:112 sethostname:170:161
setdomainname:171:162 iopl:172:-1 ioperm:173:-1 syslog:103:116 vhangup:153:58
"""
_REFUSED = {
    name: (int(first), int(second))
    for line in _REFUSED_CALLS.splitlines()
    if not line.startswith("#")
    for name, first, second in (one.split(":") for one in line.split())
}
_LOOKED_AT = {
    "open": (2, -1),
    "openat": (257, 56),
    "ioctl": (16, 29),
    "fcntl": (72, 25),
    "prlimit64": (302, 261),
    "tgkill": (234, 131),
}
_SECCOMP = (317, 277)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*
_X32 = 0x40000000
_TERMINAL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x802C542A)  # is it one, how wide, close on exec
_OWNERS = (8, 10, 15, 1024, 1026)  # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY: signals to others

_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOTTY, _ENOSYS = 1, 25, 38


class Unconfined(Failed):
    """The kernel gives this process no way to give up what it may do."""

    code = "confinement.unavailable"


def confine(folder: Path) -> None:
    """Give up, for good, whatever else than this: to compute; to read Python, the folders that it imports from, and the
    system's libraries; to read and write in `folder`; to run programs under the same rules.

    Only a process of a single thread is confined as a whole; call it before anything that starts threads.
    Raises Unconfined, and the process is not to go on.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _MACHINES:
        raise _unconfined(f"it runs on {sys.platform} {machine}")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        raise _unconfined("it cannot give up new privileges")
    _restrict_files(libc, folder)
    _restrict_calls(libc, machine)


def leave_namespaces() -> None:
    """A network, processes and shared memory of its own for the children of this process, where the kernel lets it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "unshare"):
        wanted = _NEWNET | _NEWPID | _NEWIPC
        any(libc.unshare(flags) == 0 for flags in (wanted, wanted | _NEWUSER))


def _restrict_files(libc: Any, folder: Path) -> None:
    version = libc.syscall(_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        raise _unconfined("the kernel has no Landlock, or it is switched off")
    rights = (1 << _RIGHTS.get(version, _NEWEST_RIGHTS)) - 1
    # files; from version 4 on TCP (bind, connect), from 6 on abstract sockets and signals
    handled = struct.pack("<QQQ", rights, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = libc.syscall(_CREATE, handled, ctypes.c_size_t(len(handled)), 0)
    if rules < 0:
        raise _unconfined(f"Landlock refused its rules ({os.strerror(ctypes.get_errno())})")
    try:
        for path, allowed in (*_readable(), (folder, rights & ~_EXECUTE), (Path("/dev/null"), _READ | _WRITE)):
            _allow(libc, rules, path, allowed & rights)
        if libc.syscall(_RESTRICT, rules, 0) != 0:
            raise _unconfined(f"Landlock cannot be turned on ({os.strerror(ctypes.get_errno())})")
    finally:
        os.close(rules)


def _readable() -> Iterator[tuple[Path, int]]:
    """What is read: the system's libraries, and where Python is and imports from."""
    python = (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sys.path)
    for path in dict.fromkeys(Path(one) for one in (*_READABLE, *python) if one):
        if path.exists() and path.resolve() != Path("/"):
            yield path, _READ | _EXECUTE | (_READ_FOLDER if path.is_dir() else 0)


def _allow(libc: Any, rules: int, path: Path, allowed: int) -> None:
    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if libc.syscall(_ADD, rules, 1, struct.pack("<Qi", allowed, parent), 0) != 0:
            raise _unconfined(f"Landlock took no rule for {path} ({os.strerror(ctypes.get_errno())})")
    finally:
        os.close(parent)


def _restrict_calls(libc: Any, machine: str) -> None:
    program = _filter(machine)
    code = b"".join(struct.pack("<HBBI", *one) for one in program)
    held = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    given = Program(len(program), ctypes.addressof(held))
    number = _SECCOMP[_MACHINES[machine][0]]
    if libc.syscall(number, 1, 1, ctypes.byref(given)) != 0:  # a filter, for all threads
        raise _unconfined(f"the kernel takes no seccomp filter ({os.strerror(ctypes.get_errno())})")


def _filter(machine: str) -> list[tuple[int, int, int, int]]:
    """The filter as classic BPF: (code, jump if true, if false, value). seccomp_data has the number at 0, the machine
    at 4, and argument k at 16 + 8 k, of which the low half is looked at, as the kernel does for an int."""
    column, arch = _MACHINES[machine]
    numbers = {name: both[column] for name, both in _LOOKED_AT.items()}

    def refuse(error: int) -> tuple[int, int, int, int]:
        return (_RETURN, 0, 0, _ERRNO | error)

    allow = (_RETURN, 0, 0, _ALLOW)
    made = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":
        made += [(_AT_LEAST, 0, 1, _X32), refuse(_EPERM)]
    for name, both in _REFUSED.items():
        if both[column] >= 0:
            made += [(_EQUAL, 0, 1, both[column]), refuse(_ENOSYS if name == "openat2" else _EPERM)]

    def of(name: str, argument: int, *rules: tuple[int, int, int, int]) -> None:
        if numbers[name] >= 0:
            body = [(_LOAD, 0, 0, 16 + 8 * argument), *rules]
            made.append((_EQUAL, 0, len(body), numbers[name]))
            made.extend(body)

    # opened to read and cut to nothing: before Landlock 3 no right was asked for
    cut = [(_AND, 0, 0, os.O_TRUNC | os.O_ACCMODE), (_EQUAL, 0, 1, os.O_TRUNC | os.O_RDONLY), refuse(_EPERM), allow]
    of("open", 1, *cut)
    of("openat", 2, *cut)
    of("ioctl", 1, *[rule for one in _TERMINAL for rule in ((_EQUAL, 0, 1, one), allow)], refuse(_ENOTTY))
    of("fcntl", 1, *[rule for one in _OWNERS for rule in ((_EQUAL, 0, 1, one), refuse(_EPERM))], allow)
    of("prlimit64", 0, (_EQUAL, 0, 1, 0), allow, refuse(_EPERM))
    of("tgkill", 0, (_EQUAL, 0, 1, os.getpid()), allow, refuse(_EPERM))  # how abort() ends its own process
    return [*made, allow]


def end_first_without_memory() -> None:
    """Let the kernel end this process before others when memory runs out."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _unconfined(why: str) -> Unconfined:
    return Unconfined(
        f"this process cannot be confined: {why}.",
        expected="Linux 5.13 or newer on x86_64 or aarch64, with Landlock and seccomp, is expected.",
        next="Bring the model in on such a machine; or write it again where it was trained, in a form without code: "
        "skops.io.dump(model, 'model.skops'), or the booster's save_model.",
        state="Nothing was opened.",
    )
