#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures this build beside its peers on the same two devices, in turns, and prints medians, spread and paired ratios.

    sudo bench/bench.py [--bin build/release/bin] [--rounds 5] [--scale 1.0] [--size 2G] [--only accept,single,...]

Peers: Postfix on ext4 and on btrfs raid1 (-o ssd), smtp-sink (stores nothing), and a plain loop of mirrored write +
fdatasync. Needs root (loop devices, mounts) and Debian's postfix and btrfs-progs; what is missing is said and left out.
Nothing is typed in by hand: every figure on the page comes from this run. It measures and never fails a build.
"""
import argparse, json, os, random, re, resource, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

PORT, SINK_PORT, HTTP_PORT = 12525, 12526, 18025


def run(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options).stdout


def wait_port(port, seconds=20):
    until = time.time() + seconds
    while time.time() < until:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as s:
                if s.recv(3) == b"220":
                    return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"nothing answers on port {port}")


def descendants(pid):
    found = [pid]
    for p in found:
        try:
            for task in os.listdir(f"/proc/{p}/task"):
                found += [int(c) for c in open(f"/proc/{p}/task/{task}/children").read().split()]
        except OSError:
            pass
    return found


def machine_busy():
    """Seconds all CPUs were busy: user, nice, system, irq, softirq."""
    f = [int(x) for x in open("/proc/stat").readline().split()[1:]]
    return (f[0] + f[1] + f[2] + f[5] + f[6]) / os.sysconf("SC_CLK_TCK")


def device_counters(device):
    f = open(f"/sys/block/{os.path.basename(device)}/stat").read().split()
    return {"writes": int(f[4]), "bytes": int(f[6]) * 512, "flushes": int(f[15]) if len(f) > 15 else 0}


def anonymous_kib(pids):
    total = 0
    for pid in pids:
        try:
            text = open(f"/proc/{pid}/smaps_rollup").read()
        except OSError:
            continue
        total += sum(int(x) for x in re.findall(r"^(?:Anonymous|ShmemPmdMapped):\s+(\d+)", text, re.M))
    return total


class Devices:
    def __init__(self, directory, size):
        self.files, self.loops = [], []
        for name in ("one", "two"):
            path = os.path.join(directory, name)
            run("dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={size >> 20}", "conv=fsync")
            self.files.append(path)
            self.loops.append(run("losetup", "--find", "--show", "--direct-io=on", path).strip())

    def close(self):
        for loop in self.loops:
            subprocess.run(["losetup", "-d", loop])


class Ironspool:
    name = "ironspool"

    def __init__(self, binaries, devices, directory, engine="auto"):
        self.bin, self.devices, self.directory, self.engine = binaries, devices, directory, engine

    def start(self, transport):
        d = self.directory
        os.makedirs(f"{d}/state", exist_ok=True)
        members = "\n".join(f'  member "{n}" {{ path = "{p}" }}' for n, p in zip("ab", self.devices.loops))
        self.conf = f"{d}/ironspool.conf"
        with open(self.conf, "w") as f:
            f.write(f'''hostname = "bench.example.org"
state_directory = "{d}/state"
control_socket = "{d}/control.sock"
pool {{
  copies = 2
  min_copies = 2
  io_engine = "{self.engine}"
  share_disk = yes
{members}
}}
listen "mx" {{ address = "127.0.0.1"  port = {PORT} }}
http {{ address = "127.0.0.1"  port = {HTTP_PORT} }}
mynetworks = {{ "127.0.0.0/8" }}
default_transport = "{transport}"
''')
        os.chmod(d, 0o755)
        force = [f"--force={n}" for n in "ab"]
        run(f"{self.bin}/spooltool", "-c", self.conf, "pool", "create", *force)
        self.run_daemon()

    def run_daemon(self):
        self.log = open(f"{self.directory}/log", "ab")
        self.process = subprocess.Popen([f"{self.bin}/ironspoold", "-c", self.conf], stdout=self.log, stderr=self.log)
        wait_port(PORT)

    def pids(self):
        return descendants(self.process.pid)

    def kill(self):
        for pid in reversed(self.pids()):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        shutil.rmtree(f"{self.directory}/state", ignore_errors=True)

    def tool(self, *arguments):
        return run(f"{self.bin}/spooltool", "-c", self.conf, *arguments)

    def release_all(self):
        self.tool("queue", "release", "--all")


class Postfix:
    def __init__(self, devices, directory, filesystem):
        self.name = f"postfix-{filesystem}"
        self.devices, self.directory, self.filesystem = devices, directory, filesystem

    def start(self, transport):
        a, b = self.devices.loops
        self.mount = f"{self.directory}/{self.filesystem}"
        os.makedirs(self.mount, exist_ok=True)
        if self.filesystem == "ext4":
            run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", a)
            run("mount", a, self.mount)
        else:
            run("mkfs.btrfs", "-q", "-f", "-d", "raid1", "-m", "raid1", a, b)
            run("mount", "-o", f"ssd,device={a},device={b}", a, self.mount)
        self.conf = f"{self.directory}/conf-{self.filesystem}"
        queue, data = f"{self.mount}/queue", f"{self.mount}/data"
        os.makedirs(self.conf, exist_ok=True)
        os.makedirs(queue)
        os.makedirs(data)
        shutil.chown(data, "postfix")
        hold = "smtpd_client_restrictions = static:HOLD\n" if transport == "hold" else ""
        route = transport.split(":", 1)[1] if transport.startswith("smtp:") else ""
        with open(f"{self.conf}/main.cf", "w") as f:
            f.write(f"""compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = bench.example.org
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
relayhost = {route}
in_flow_delay = 0
maillog_file = /var/log/bench-postfix.log
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
default_process_limit = 300
{hold}""")
        with open("/etc/postfix/master.cf.proto" if os.path.exists("/etc/postfix/master.cf.proto")
                  else "/usr/share/postfix/master.cf.dist") as f:
            master = f.read()
        master = re.sub(r"^smtp\s+inet.*smtpd$", f"127.0.0.1:{PORT} inet n - n - - smtpd", master, flags=re.M)
        master = re.sub(r"^(\S+\s+\S+\s+\S+\s+\S+\s+)y(\s)", r"\1n\2", master, flags=re.M)
        with open(f"{self.conf}/master.cf", "w") as f:
            f.write(master)
        run("postfix", "-c", self.conf, "start")
        wait_port(PORT)

    def pids(self):
        master = int(open(f"{self.mount}/queue/pid/master.pid").read())
        return descendants(master)

    def stop(self):
        subprocess.run(["postfix", "-c", self.conf, "stop"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1)
        subprocess.run(["umount", self.mount])

    def release_all(self):
        run("postsuper", "-c", self.conf, "-H", "ALL")
        run("postqueue", "-c", self.conf, "-f")


class Sink:
    """smtp-sink in the place of a server: what the driver itself can do."""
    name = "smtp-sink"

    def start(self, transport):
        self.process = subprocess.Popen(["smtp-sink", "-u", "nobody", f"127.0.0.1:{PORT}", "1000"])
        wait_port(PORT)

    def pids(self):
        return [self.process.pid]

    def stop(self):
        self.process.kill()
        self.process.wait()


def driver_source(sessions, messages, size):
    """smtp-source -d; returns (rate, CPU seconds of the driver)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.monotonic()
    run("smtp-source", "-d", "-s", str(sessions), "-m", str(messages), "-l", str(size), "-f", "load@example.com",
        "-t", "sink@example.net", f"127.0.0.1:{PORT}")
    seconds = time.monotonic() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return messages / seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def driver_load(binaries, sessions, messages, size, pipelined=False):
    extra = ["-p"] if pipelined else []
    return json.loads(run(f"{binaries}/smtpload", "-s", str(sessions), "-m", str(messages), "-l", str(size), *extra,
                          f"127.0.0.1:{PORT}"))


def plain_loop(devices, block, seconds=3.0):
    """Mirrored write + fdatasync, one in flight: two threads, O_DIRECT."""
    import mmap, threading
    fds = [os.open(l, os.O_RDWR | os.O_DIRECT) for l in devices.loops]
    buffer = mmap.mmap(-1, block)
    times, offset = [], 1 << 20

    def one(fd, at):
        os.pwrite(fd, buffer, at)
        os.fdatasync(fd)
    begin = time.monotonic()
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(2) as pool:
        while time.monotonic() - begin < seconds:
            t = time.monotonic()
            list(pool.map(one, fds, [offset, offset]))
            times.append(time.monotonic() - t)
            offset += block
            if offset > 256 << 20:
                offset = 1 << 20
    for fd in fds:
        os.close(fd)
    return {"rate": len(times) / (time.monotonic() - begin), "p50_ms": statistics.median(times) * 1e3}


class Results:
    def __init__(self):
        self.figures = {}

    def note(self, what, who, value):
        self.figures.setdefault(what, {}).setdefault(who, []).append(value)

    def print(self):
        for what, by in self.figures.items():
            print(f"\n{what}")
            for who, values in by.items():
                print(f"  {who:18} median {statistics.median(values):12.2f}   ({min(values):.2f} - {max(values):.2f}, n={len(values)})")
            ours = by.get("ironspool")
            for who, values in by.items():
                if ours and who != "ironspool" and len(values) == len(ours) and all(values):
                    ratios = sorted(o / v for o, v in zip(ours, values))
                    print(f"  ironspool / {who:14} median {statistics.median(ratios):6.2f}   ({ratios[0]:.2f} - {ratios[-1]:.2f}, paired)")


def measure_accept(target, args, devices, results, label, sessions, messages, size):
    messages = max(sessions, int(messages * args.scale))
    target.start("hold")
    try:
        driver_source(min(sessions, 10), max(messages // 10, sessions), size)  # warm
        counters = [device_counters(l) for l in devices.loops]
        busy = machine_busy()
        rate, driver = driver_source(sessions, messages, size)
        cpu = machine_busy() - busy - driver
        results.note(f"{label}: messages a second", target.name, rate)
        results.note(f"{label}: CPU microseconds a message, all but the driver", target.name, cpu / messages * 1e6)
        if target.name != "smtp-sink":
            grown = [{k: device_counters(l)[k] - c[k] for k in c} for l, c in zip(devices.loops, counters)]
            if target.name != "postfix-ext4":
                results.note(f"{label}: bytes written to each member per byte of mail", target.name,
                             sum(g["bytes"] for g in grown) / 2 / (messages * size))
            results.note(f"{label}: writes and flushes a message and member", target.name,
                         max(g["writes"] + g["flushes"] for g in grown) / messages)
    finally:
        target.stop()


def bench_accept(targets, args, devices, results):
    for round_ in range(args.rounds):
        for label, sessions, messages, size in (("4 KiB, 50 senders", 50, 20000, 4096), ("1 MiB, 10 senders", 10, 600, 1 << 20)):
            for target in random.sample(targets, len(targets)):
                if target.name == "smtp-sink" and size > 4096:
                    continue
                measure_accept(target, args, devices, results, label, sessions, messages, size)
        loop = plain_loop(devices, 1 << 20)
        results.note("plain loop, 1 MiB to both members, one in flight: a second", "loop", loop["rate"])


def bench_single(targets, args, devices, results):
    for round_ in range(args.rounds):
        loop = plain_loop(devices, 8192)
        results.note("4 KiB, 1 sender: ms from end of data to 250, p50", "plain loop", loop["p50_ms"])
        for target in random.sample(targets, len(targets)):
            target.start("hold")
            try:
                driver_load(args.bin, 1, 300, 4096)
                r = driver_load(args.bin, 1, max(100, int(3000 * args.scale)), 4096)
                results.note("4 KiB, 1 sender: messages a second", target.name, r["rate"])
                results.note("4 KiB, 1 sender: ms from end of data to 250, p50", target.name, r["dot_ms"]["p50"])
            finally:
                target.stop()


def bench_ceiling(targets, args, devices, results):
    for round_ in range(args.rounds):
        for target in [t for t in targets if t.name in ("ironspool", "smtp-sink")]:
            target.start("hold")
            try:
                for pipelined in (False, True):
                    driver_load(args.bin, 50, 5000, 4096, pipelined)
                    r = driver_load(args.bin, 50, max(1000, int(40000 * args.scale)), 4096, pipelined)
                    results.note(f"own driver{', pipelining' if pipelined else ''}, 4 KiB, 50 senders: messages a second",
                                 target.name, r["rate"])
            finally:
                target.stop()


def sink_count(args):
    return subprocess.Popen(["smtp-sink", "-u", "nobody", "-c", f"127.0.0.1:{SINK_PORT}", "1000"], stdout=subprocess.PIPE)


def sink_wait(sink, wanted, seconds=300):
    import select
    text, until = b"", time.time() + seconds
    while time.time() < until:
        if select.select([sink.stdout], [], [], 0.2)[0]:
            text = (text + os.read(sink.stdout.fileno(), 65536))[-64:]
        numbers = re.findall(rb"(\d+)[\r\n]", text)
        if numbers and int(numbers[-1]) >= wanted:
            return
    raise RuntimeError(f"only {text!r} of {wanted} arrived")


def bench_relay(targets, args, devices, results):
    messages = max(200, int(4000 * args.scale))
    backlog = max(500, int(10000 * args.scale))
    for round_ in range(args.rounds):
        for target in [t for t in random.sample(targets, len(targets)) if t.name != "smtp-sink"]:
            sink = sink_count(args)
            target.start(f"smtp:[127.0.0.1]:{SINK_PORT}")
            try:
                begin = time.monotonic()
                driver_source(20, messages, 4096)
                sink_wait(sink, messages)
                results.note("accept + queue + deliver, 20 senders: messages a second", target.name, messages / (time.monotonic() - begin))
            finally:
                target.stop()
                sink.kill()
                sink.wait()
        for target in [t for t in random.sample(targets, len(targets)) if t.name != "smtp-sink"]:
            sink = sink_count(args)
            target.start(f"smtp:[127.0.0.1]:{SINK_PORT}" if target.name == "ironspool" else "hold")
            try:
                if target.name == "ironspool":
                    sink.send_signal(signal.SIGSTOP)
                    sink.kill()
                    sink.wait()
                    driver_source(20, backlog, 4096)
                    sink = sink_count(args)
                    time.sleep(0.2)
                    begin = time.monotonic()
                    target.tool("queue", "retry", "--all")
                else:
                    driver_source(20, backlog, 4096)
                    with open(f"{target.conf}/main.cf", "a") as f:
                        f.write(f"\nsmtpd_client_restrictions =\nrelayhost = [127.0.0.1]:{SINK_PORT}\n")
                    run("postfix", "-c", target.conf, "reload")
                    time.sleep(1)
                    begin = time.monotonic()
                    target.release_all()
                sink_wait(sink, backlog)
                results.note(f"drain of {backlog}: messages a second", target.name, backlog / (time.monotonic() - begin))
            finally:
                target.stop()
                sink.kill()
                sink.wait()


def bench_restart(targets, args, devices, results):
    target = next(t for t in targets if t.name == "ironspool")
    queued = max(1000, int(100000 * args.scale))
    target.start("hold")
    try:
        idle = anonymous_kib(target.pids())
        results.note("anonymous memory of all processes, idle, MiB", target.name, idle / 1024)
        sockets = []
        for _ in range(200):
            s = socket.create_connection(("127.0.0.1", PORT))
            s.recv(512)
            s.sendall(b"EHLO idle.example\r\n")
            s.recv(4096)
            sockets.append(s)
        results.note("anonymous memory of all processes, 200 idle sessions, MiB", target.name, anonymous_kib(target.pids()) / 1024)
        driver_load(args.bin, 50, queued, 1024)
        time.sleep(2)
        results.note(f"anonymous memory of all processes, 200 idle sessions and {queued} queued, MiB", target.name,
                     anonymous_kib(target.pids()) / 1024)
        for s in sockets:
            s.close()
        for attempt in range(args.rounds):
            begin = time.monotonic()
            listed = target.tool("queue", "list", "--json").count("\n")
            results.note(f"queue list --json of {listed}: seconds", target.name, time.monotonic() - begin)
        for attempt in range(args.rounds):
            for lost in (False, True):
                target.kill()
                if lost:
                    shutil.rmtree(f"{target.directory}/state/index", ignore_errors=True)
                begin = time.monotonic()
                target.run_daemon()
                what = "restart after kill -9, index deleted" if lost else "restart after kill -9"
                driver_load(args.bin, 1, 1, 1024)
                results.note(f"{what}, {queued} queued: seconds until mail is accepted", target.name, time.monotonic() - begin)
                while json.loads(target.tool("status", "--json"))["queue"]["messages"] < queued:
                    time.sleep(0.05)
                    if time.monotonic() - begin > 120:
                        break
                results.note(f"{what}, {queued} queued: seconds until the index has all", target.name, time.monotonic() - begin)
    finally:
        target.stop()


BENCHES = {"accept": bench_accept, "single": bench_single, "ceiling": bench_ceiling, "relay": bench_relay, "restart": bench_restart}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", default="build/release/bin")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--size", default="2G")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--only", default=",".join(BENCHES))
    args = parser.parse_args()
    args.bin = os.path.abspath(args.bin)
    if os.geteuid() != 0:
        sys.exit("bench.py needs root for loop devices and mounts: sudo bench/bench.py")
    size = int(args.size[:-1]) << {"G": 30, "M": 20}[args.size[-1]]
    directory = tempfile.mkdtemp(prefix="ironspool-bench-", dir="/var/tmp")
    os.chmod(directory, 0o755)
    devices = Devices(directory, size)
    targets = [Ironspool(args.bin, devices, f"{directory}/ironspool", args.engine)]
    os.makedirs(targets[0].directory)
    if shutil.which("smtp-source") and shutil.which("smtp-sink"):
        targets.append(Sink())
    else:
        sys.exit("smtp-source and smtp-sink are not here: apt-get install postfix")
    if shutil.which("postfix"):
        targets.append(Postfix(devices, directory, "ext4"))
        if shutil.which("mkfs.btrfs"):
            targets.append(Postfix(devices, directory, "btrfs"))
        else:
            print("btrfs-progs is not here: no comparison with btrfs raid1")
    results = Results()
    print(f"# {time.strftime('%Y-%m-%d')}, kernel {os.uname().release}, {os.cpu_count()} CPUs, rounds {args.rounds}, scale {args.scale}")
    print("# command: " + " ".join(sys.argv))
    try:
        for name in args.only.split(","):
            BENCHES[name](targets, args, devices, results)
    except subprocess.CalledProcessError as e:
        print(f"{e}\n{e.stdout}\n{e.stderr}", file=sys.stderr)
        raise
    finally:
        results.print()
        devices.close()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
