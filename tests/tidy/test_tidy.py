#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a reader may rely on in every file: licence lines, sizes, words, who includes whom, a page for every state.

Each check is a function whose name is the sentence it holds; it yields one complaint a line. Tables of what is agreed
stand at the top: a new exception is a line there, seen in review.
"""
import os
import re
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70
LINE_COLUMNS_MAX = 140  # aim at 100 to 120

# A third-party header is included in exactly one .c file of the product. Agreed: where one file would be too many doors.
THIRD_PARTY = {
    "liburing.h": {"spoolfs/io/io_uring.c"},
    "xxhash.h": {"spoolfs/base/digest.c"}, "xxh_x86dispatch.h": {"spoolfs/base/digest.c"},
    "lmdb.h": {"spoolfs/index/index_lmdb.c"},
    "blkid/": {"spoolfs/io/probe.c"},
    "openssl/": {"relay/tls.c"},
    "event2/": {"relay/loop.c", "relay/conn.c", "relay/tls.c", "relay/http.c", "relay/daemon/http.c"},
    "unbound.h": {"relay/dns.c"},
    "confuse.h": {"relay/daemon/config.c"},
    "seccomp.h": {"relay/daemon/sandbox.c"},
    "libsmartcols/": {"tools/out.c"},
    "jansson.h": {"tools/doc.c", "relay/daemon/json_in.c"},  # two programs, one reader each
}

# Who may include what, the first prefix that matches decides. None: everything.
RELAY_MAY = ("base/", "spoolfs/limits.h", "spoolfs/envelope.h", "spoolfs/wire.h", "spoolfs/record.h", "spoolfs/errors.def")
DIRECTION = [
    ("spoolfs/base/", ("base/", "spoolfs/errors.def", "spoolfs/limits.h")),
    ("spoolfs/include/", ("base/", "spoolfs/")),
    ("spoolfs/", ("base/", "spoolfs/")),
    ("scrubber/", ("base/", "spoolfs/", "scrubber/")),
    ("relay/daemon/", None),
    ("relay/", RELAY_MAY),
    ("tools/", None),
    ("fault-injection/", ("base/", "spoolfs/")),
]
IO_REAL_MAY = ("spoolfs/io/", "relay/daemon/", "tools/", "tests/", "bench/")

# Words of DESIGN section 3 have no synonyms; marks of unfinished work do not stay.
SYNONYMS = re.compile(r"\b(replicas?|resilver\w*|resync\w*|bad[- ]sector remap)\b", re.I)
MARKS = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK|place" r"holder)\b")
# A list's line, or a sentence; a sentence that begins with a file's name points there.
DEFINED = re.compile(r"^ \* +([A-Z]{2,7}-[0-9]+)  |\b([A-Z]{2,7}-[0-9]+):\s(?!\s*\*?\s*[a-z_]+\.[ch]\b)", re.M)
STANDARD_ROOTS = {"bin", "boot", "dev", "etc", "home", "lib", "mnt", "opt", "proc", "root", "run", "sbin", "srv", "sys",
                  "tmp", "usr", "var"}
ABSOLUTE_PATH = re.compile(r"""(?:(?<=^)|(?<=[\s"'=(`:]))/([a-z0-9_.-]+)/[A-Za-z0-9_]""")


def tracked():
    try:
        out = subprocess.run(["git", "-C", TOP, "ls-files"], capture_output=True, text=True, check=True).stdout.split("\n")
        names = [n for n in out if n and os.path.exists(os.path.join(TOP, n))]
    except (OSError, subprocess.CalledProcessError):  # a release archive has no .git
        names = []
        for folder, dirs, files in os.walk(TOP):
            dirs[:] = [d for d in dirs if d not in ("build", "var", ".git")]
            names += [os.path.relpath(os.path.join(folder, f), TOP) for f in files]
    return sorted(names)


def read(name):
    with open(os.path.join(TOP, name), encoding="utf-8", errors="replace") as f:
        return f.read()


def is_code(name):
    return name.endswith((".c", ".h", ".def"))


def is_script(name):
    return name.endswith((".py", ".sh")) or read(name).startswith("#!")


def is_text(name):
    return is_code(name) or name.endswith((".md", ".py", ".sh", ".txt", ".cmake")) or is_script(name)


FILES = tracked()
PRODUCT = [n for n in FILES if is_code(n) and not n.startswith(("tests/", "bench/"))]


def every_file_names_its_licence():
    for n in FILES:
        if (is_code(n) or is_script(n) or n.endswith("CMakeLists.txt")) and \
                not any("SPDX-License-Identifier: Apache-2.0" in line for line in read(n).split("\n")[:3]):
            yield f"{n}:1: the first lines do not say SPDX-License-Identifier: Apache-2.0"


def every_test_script_can_be_started():
    for name in FILES:
        if re.fullmatch(r"tests/(live|tidy|sim)/(test_\w+\.(py|sh)|\w+\.sh)", name) and not os.access(os.path.join(TOP, name), os.X_OK):
            yield f"{name} is not executable: git update-index --chmod=+x"


def files_and_lines_are_short():
    for n in FILES:
        if not (is_code(n) or n.endswith((".py", ".sh"))):
            continue
        lines = read(n).split("\n")
        if len(lines) - 1 > FILE_LINES_MAX:
            yield f"{n}: {len(lines) - 1} lines, the limit is {FILE_LINES_MAX}"
        for number, line in enumerate(lines, 1):
            if len(line) > LINE_COLUMNS_MAX and "http" not in line:
                yield f"{n}:{number}: {len(line)} columns, the limit is {LINE_COLUMNS_MAX}"


def functions_are_short():
    for n in FILES:
        if not n.endswith(".c"):
            continue
        start, previous = 0, ""
        for number, line in enumerate(read(n).split("\n"), 1):
            if line == "{" and previous.rstrip().endswith(")"):
                start = number
            elif line == "}" and start:
                if number - start - 1 > FUNCTION_LINES_MAX:
                    yield f"{n}:{start}: function of {number - start - 1} lines, the limit is {FUNCTION_LINES_MAX}"
                start = 0
            previous = line if line.strip() else previous


def includes(name):
    for number, line in enumerate(read(name).split("\n"), 1):
        found = re.match(r'\s*#\s*include\s+[<"]([^>"]+)[>"]', line)
        if found:
            yield number, found.group(1)


def third_party_headers_have_one_door():
    for n in PRODUCT:
        for number, header in includes(n):
            for door, allowed in THIRD_PARTY.items():
                if header.startswith(door) or header == door:
                    if n not in allowed:
                        yield f"{n}:{number}: <{header}> belongs to {', '.join(sorted(allowed))} alone"
                    break


def includes_point_one_way():
    for n in PRODUCT:
        for number, header in includes(n):
            if header == "spoolfs/io_real.h" and not n.startswith(IO_REAL_MAY):
                yield f"{n}:{number}: io_real.h is for composition roots"
            if not header.startswith(("base/", "spoolfs/", "scrubber/", "relay/", "tools/")):
                continue
            for prefix, allowed in DIRECTION:
                if n.startswith(prefix):
                    if allowed is not None and not header.startswith(allowed):
                        yield f"{n}:{number}: {prefix} may not include <{header}>"
                    break


def words_have_no_synonyms_and_nothing_is_left_open():
    for n in FILES:
        if not is_text(n) or n.startswith("tests/tidy/"):
            continue
        for number, line in enumerate(read(n).split("\n"), 1):
            for pattern in (SYNONYMS, MARKS):
                found = pattern.search(line)
                if found:
                    yield f"{n}:{number}: \"{found.group(0)}\" (see DESIGN's words in docs/STYLE.md)"


def paths_are_of_every_machine():
    for n in FILES:
        if not is_text(n):
            continue
        for number, line in enumerate(read(n).split("\n"), 1):
            if line.startswith("#!"):
                continue
            for found in ABSOLUTE_PATH.finditer(line):
                if found.group(1) not in STANDARD_ROOTS and is_machine_path(found, line):
                    yield f"{n}:{number}: {found.group(0)}... is a path of one machine"


def is_machine_path(found, line):
    """An absolute path whose first directory is here and now, on this machine, and nowhere in the standard."""
    return os.path.isdir("/" + found.group(1)) and line[found.start():].startswith("/")


def an_invariant_is_defined_in_one_file():
    """At the head of a file: "NAME-1: what holds", or "NAME-1  what holds" in a list. "NAME-1 (file.h)" and "NAME-1: file.c" point."""
    defined = {}
    for n in PRODUCT:
        head = re.split(r"^#", read(n), maxsplit=1, flags=re.M)[0]
        for found in DEFINED.finditer(head):
            defined.setdefault(found.group(1) or found.group(2), set()).add(n)
    if len(defined) < 300:
        yield "heads of files are not read any more: this check would see nothing"
    for name, files in defined.items():
        if len(files) > 1:
            yield f"{name} is defined in {' and '.join(sorted(files))}: two invariants need two names"


def table(name, macro):
    return re.findall(r"^" + macro + r'\((\w+),\s*"([^"]+)"', read(name), re.M)


def every_state_and_alarming_event_has_a_page():
    pages = {n for n in FILES if n.startswith("docs/runbooks/")}
    states = "spoolfs/include/spoolfs/states.def"
    wanted = [f"pool-{word}" for _, word in table(states, "POOL_STATE")]
    wanted += [f"member-{word}" for _, word in table(states, "MEMBER_STATE")]
    wanted += [f"event-{name}" for name, severity in
               re.findall(r"^X\((\w+),\s*(\w+)", read("spoolfs/include/spoolfs/events.def"), re.M) if severity != "info"]
    if len(wanted) < 15:
        yield "states.def or events.def is not read any more: this check would see nothing"
    for page in wanted:
        if f"docs/runbooks/{page}.md" not in pages:
            yield f"docs/runbooks/{page}.md is missing"


def every_fault_has_a_section():
    words = set(re.findall(r'^X\(\w+,\s*"([a-z-]+)"', read("fault-injection/faults.def"), re.M)) - {"none"}
    words |= set(re.findall(r'^\s*X\([A-Z_]+, "([a-z-]+)"', read("fault-injection/inject_io.h"), re.M))
    if len(words) < 30:
        yield "faults.def or inject_io.h is not read any more: this check would see nothing"
    page = "docs/FAULTS.md"
    told = set(re.findall(r"^## (.+)$", read(page), re.M))
    for word in sorted(words ^ told):
        yield f"{page}: {word}: a section for each fault, and for nothing else"


def every_metric_is_listed():
    source, page = "relay/daemon/metrics_doc.c", "docs/METRICS.md"
    if page not in FILES or source not in FILES:
        yield f"{page} and {source} belong together"
        return
    text = read(source)
    names = set(re.findall(r'\b(?:head|number|gauge|counter)\(j, "([a-z_]+)"', text))
    names |= set(re.findall(r'\{"([a-z_]+)", "(?:gauge|counter)"', text))
    if len(names) < 20:
        yield f"{source} is not read any more: this check would see nothing"
    listed = set(re.findall(r"ironspool_(\w+)", read(page)))
    for name in sorted(names - listed):
        yield f"{page}: ironspool_{name} is missing"


def main():
    checks = [f for f in globals().values() if callable(f) and getattr(f, "__module__", "") == "__main__"
              and f.__name__ not in ("tracked", "read", "is_code", "is_script", "is_text", "includes", "table",
                                     "is_machine_path", "main")]
    bad = 0
    for check in checks:
        complaints = sorted(set(check()))
        print(f"{'FAIL' if complaints else 'ok  '} {check.__name__.replace('_', ' ')}")
        for c in complaints:
            print("     " + c)
        bad += len(complaints)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
