# SPDX-License-Identifier: Apache-2.0
"""What bench.py measures on and what it measures: loop devices, this build, Postfix, smtp-sink, and counters of the system."""
import json, os, re, shutil, signal, socket, subprocess, time

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
            time.sleep(0.005)
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


def processes_cpu(pids):
    """CPU seconds of processes with all their threads, and of children they have waited for."""
    total = 0
    for pid in pids:
        try:
            fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += sum(int(x) for x in fields[11:15])
    return total / os.sysconf("SC_CLK_TCK")


def device_counters(device):
    f = open(f"/sys/block/{os.path.basename(device)}/stat").read().split()
    return {"writes": int(f[4]), "bytes": int(f[6]) * 512, "flushes": int(f[15]) if len(f) > 15 else 0}


def memory_mib(pids):
    """Anonymous and shared memory, each page once: PSS without file pages."""
    total = 0
    for pid in pids:
        try:
            text = open(f"/proc/{pid}/smaps_rollup").read()
        except OSError:
            continue
        total += sum(int(x) for x in re.findall(r"^Pss_(?:Anon|Shmem):\s+(\d+)", text, re.M))
    return total / 1024


class Devices:
    """Two loop devices over files written in full, for members or the peer's file system; a third for the state directory."""

    def __init__(self, directory, size):
        self.files, self.loops = [], []
        for name in ("one", "two", "state"):
            path = os.path.join(directory, name)
            run("dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={min(size, 2 << 30) >> 20 if name == 'state' else size >> 20}",
                "conv=fsync")
            self.files.append(path)
            self.loops.append(run("losetup", "--find", "--show", "--direct-io=on", path).strip())
        self.state_loop = self.loops.pop()
        self.state = os.path.join(directory, "state-mount")
        os.makedirs(self.state)
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.state_loop)
        run("mount", self.state_loop, self.state)
        os.chmod(self.state, 0o755)

    def hold(self, iops, bytes_):
        """Each of the two held to so many I/Os and bytes a second and direction; 0: free. False: no blkio controller here."""
        base = "/sys/fs/cgroup/blkio/blkio.throttle."
        if not os.path.exists(base + "write_iops_device"):
            return False
        for loop in self.loops:
            number = open(f"/sys/block/{os.path.basename(loop)}/dev").read().strip()
            for kind, limit in (("iops", iops), ("bps", bytes_)):
                for way in ("read", "write"):
                    with open(f"{base}{way}_{kind}_device", "w") as f:
                        f.write(f"{number} {limit}")
        return True

    def close(self):
        self.hold(0, 0)
        subprocess.run(["umount", self.state])
        for loop in self.loops + [self.state_loop]:
            subprocess.run(["losetup", "-d", loop])


class MemoryGroup:
    """A memory cgroup the daemon is started in."""
    path = "/sys/fs/cgroup/memory/ironspool-bench"

    def __init__(self, mib):
        os.makedirs(self.path, exist_ok=True)
        self.limit(mib)

    @staticmethod
    def possible():
        return os.path.exists("/sys/fs/cgroup/memory/memory.limit_in_bytes")

    def limit(self, mib):
        with open(f"{self.path}/memory.limit_in_bytes", "w") as f:
            f.write(str(mib << 20))

    def enter(self):
        with open(f"{self.path}/cgroup.procs", "w") as f:
            f.write(str(os.getpid()))

    def kills(self):
        return int(re.search(r"oom_kill (\d+)", open(f"{self.path}/memory.oom_control").read()).group(1))

    def close(self):
        for _ in range(50):
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.1)


class Ironspool:
    name = "ironspool"

    def __init__(self, binaries, devices, directory, engine="auto"):
        self.bin, self.devices, self.directory, self.engine = binaries, devices, directory, engine
        self.state, self.group = f"{devices.state}/ironspool", None

    def start(self, transport):
        d = self.directory
        os.makedirs(self.state, exist_ok=True)
        members = "\n".join(f'  member "{n}" {{ path = "{p}" }}' for n, p in zip("ab", self.devices.loops))
        self.conf = f"{d}/ironspool.conf"
        with open(self.conf, "w") as f:
            f.write(f'''hostname = "bench.example.org"
state_directory = "{self.state}"
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
        enter = self.group.enter if self.group else None
        self.process = subprocess.Popen([f"{self.bin}/ironspoold", "-c", self.conf], stdout=self.log, stderr=self.log,
                                        preexec_fn=enter)
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
        shutil.rmtree(self.state, ignore_errors=True)

    def status(self):
        command = [f"{self.bin}/spooltool", "-c", self.conf, "status", "--json"]  # its exit code tells the pool's state
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout)

    def durable_ops(self):
        """Of the member that had most: flushes and durable writes since the start (a plain write is not one)."""
        return max(m["flushes"] for m in json.loads(self.tool("members", "--json"))["members"])

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
