# SPDX-License-Identifier: Apache-2.0
"""A whole Ironspool on files in a directory of its own: make the pool, start the daemon, talk to it, hurt it, look.

Nothing here asserts how long something takes; waits have a patience after which a test fails with what the daemon said.
"""
import email.utils
import json
import os
import pwd
import random
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("IRONSPOOL_BIN", os.path.join(TOP, "build/dev/bin"))
TOOLS = os.path.join(TOP, "build/tools")  # smtp-source, smtp-sink: packaging/fetch-smtp-source
PATIENCE = float(os.environ.get("IRONSPOOL_PATIENCE", "60"))
MEMBERS = ("a", "b", "c")
MEMBER_BYTES = 64 * 1024 * 1024

CONFIG = """hostname = "mx.test.example"
state_directory = "{dir}/state"
control_socket = "{dir}/control.sock"
user = "{user}"
log_file = "{dir}/log"
pool {{
    copies = {copies}
    min_copies = {min_copies}
    share_disk = yes
    io_engine = "{io_engine}"
    absent_wait = "{absent_wait}"
{members}
}}
listen "test" {{ address = "127.0.0.1"  port = {port} }}
http {{ address = "127.0.0.1"  port = {http} }}
mynetworks = {{ "127.0.0.0/8" }}
default_transport = "{transport}"
minimal_backoff_time = "1s"
maximal_backoff_time = "2s"
{extra}
"""


def free_port():
    """Below what the kernel gives to connections, so that none of those takes it before it is used."""
    while True:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            port = random.SystemRandom().randrange(20000, 32768)
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def wait_for(what, look, patience=PATIENCE):
    """Calls look() until it returns something true, and returns that."""
    end = time.monotonic() + patience
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError("waited %.0f s in vain for: %s" % (patience, what))
        time.sleep(0.05)


class Ironspool:
    def __init__(self, **changes):
        self.dir = tempfile.mkdtemp(prefix="ironspool-live-")
        os.chmod(self.dir, 0o755)
        for name in ("state", "mail", "disks"):
            os.mkdir(os.path.join(self.dir, name))
        self.port, self.http_port = free_port(), free_port()
        self.paths = {m: os.path.join(self.dir, "disks", m + ".member") for m in MEMBERS}
        self.member_keys = {}  # more keys of single members
        self.settings = {"copies": 2, "min_copies": 1, "absent_wait": "2s", "extra": "", "io_engine": "auto",
                         "transport": "maildir:%s/mail" % self.dir}
        self.settings.update(changes)
        self.config = os.path.join(self.dir, "ironspool.conf")
        self.process = None
        self.through = []  # a command that starts the daemon
        self.write_config()
        code, out, err = self.tool("pool", "create", "--size", str(self.settings.pop("size", MEMBER_BYTES)))
        if code != 0:
            raise AssertionError("pool create: %d\n%s%s" % (code, out, err))

    # --- configuration and life ---

    def write_config(self, **changes):
        self.settings.update(changes)
        members = "\n".join('    member "%s" { path = "%s"  failure_domain = "shelf-%s"%s }' %
                            (m, p, m, self.member_keys.get(m, "")) for m, p in self.paths.items())
        members += self.settings.get("pool_keys", "")
        values = {k: v for k, v in self.settings.items() if k not in ("size", "pool_keys")}
        with open(self.config, "w", encoding="ascii") as f:
            f.write(CONFIG.format(dir=self.dir, port=self.port, http=self.http_port, members=members,
                                  user=pwd.getpwuid(os.getuid()).pw_name, **values))

    def start(self, wait=True):
        with open(os.path.join(self.dir, "stderr"), "ab") as err:
            self.process = subprocess.Popen(self.through + [os.path.join(BIN, "ironspoold"), "-c", self.config], stdout=err, stderr=err,
                                            start_new_session=True)
        if wait:
            self.wait_ready()
        return self

    def accepts(self):
        if self.process.poll() is not None:
            raise AssertionError("the daemon ended with %s:\n%s" % (self.process.returncode, self.log()[-4000:]))
        code, out, _ = self.tool("status", "--json")
        if code not in (0, 10, 11, 12):
            return False
        status = json.loads(out)
        return status["relay"]["connected"] and status["pool"]["accepting"] == "yes" and self.greets()

    def greets(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as s:
                s.settimeout(5)
                return s.recv(512).startswith(b"220")
        except OSError:
            return False

    def wait_ready(self):
        try:
            wait_for("mail to be accepted on port %d" % self.port, self.accepts)
        except AssertionError as e:
            raise AssertionError("%s\n%s\n%s" % (e, self.tool("status"), self.log()[-4000:])) from None

    def stop(self):
        """Asks it to stop and returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError("SIGTERM did not end it:\n" + self.log()[-4000:]) from None
        return code

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if os.environ.get("IRONSPOOL_KEEP"):
            print("kept: " + self.dir, file=sys.stderr)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is not None:
            print("--- end of the log ---\n" + self.log()[-6000:], file=sys.stderr)
        self.close()

    def log(self):
        text = ""
        for name in ("stderr", "log"):
            try:
                with open(os.path.join(self.dir, name), encoding="utf-8", errors="replace") as f:
                    text += f.read()
            except OSError:
                pass
        return text

    # --- its processes ---

    def change_config(self, old, new):
        text = contents(self.config).decode()
        assert old in text, old
        with open(self.config, "w", encoding="ascii") as f:
            f.write(text.replace(old, new))

    def pid(self, role):
        """Of "supervisor", "spool" or "relay"; None when there is none."""
        if role == "supervisor":
            return self.process.pid
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                with open("/proc/%s/stat" % name, encoding="ascii", errors="replace") as f:
                    pid, comm, state, parent = re.match(r"(\d+) \((.*)\) (\S) (\d+)", f.read()).groups()
            except (OSError, AttributeError):
                continue
            if int(parent) == self.process.pid and comm == "ironspool-" + role and state != "Z":
                return int(pid)
        return None

    def kill(self, role):
        """kill -9; a supervisor takes its children along, and is started again."""
        pid = wait_for("a %s process" % role, lambda: self.pid(role))
        os.kill(pid, signal.SIGKILL)
        if role == "supervisor":
            self.process.wait()
            self.start(wait=False)
        else:
            wait_for("the end of %s %d" % (role, pid), lambda: self.pid(role) != pid)

    # --- asking it ---

    def tool(self, *words):
        """(exit code, stdout, stderr) of spooltool."""
        done = subprocess.run([os.path.join(BIN, "spooltool"), "-c", self.config, *words], capture_output=True,
                              text=True, errors="replace", timeout=300, check=False)
        return done.returncode, done.stdout, done.stderr

    def status(self):
        """The status document; while the spool process is being replaced it is asked again."""
        code, out, err = wait_for("an answer", lambda: next((x for x in [self.tool("status", "--json")] if x[0] != 4), None))
        if code not in (0, 10, 11, 12):
            raise AssertionError("status: %d %s" % (code, err))
        return json.loads(out)

    def queued(self):
        return self.status()["queue"]["messages"]

    def drained(self):
        """Nothing waits, and the index knows it."""
        queue = self.status()["queue"]
        return queue["index_ready"] and queue["messages"] == 0

    def check(self):
        """pool check with the daemon down: (exit code, report)."""
        code, out, err = self.tool("pool", "check", "--json")
        if code not in (0, 11, 12):
            raise AssertionError("pool check: %d\n%s%s" % (code, out, err))
        return code, json.loads(out)

    # --- mail ---

    def smtp(self, **arguments):
        return smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.test.example", timeout=PATIENCE, **arguments)

    def raw(self):
        return Raw(self.port)

    def send(self, sender, recipients, message, client=None):
        """One message; returns the queue id of the 250."""
        own = client is None
        client = client or self.smtp()
        if isinstance(recipients, str):
            recipients = [recipients]
        try:
            client.ehlo_or_helo_if_needed()
            for verb, answer in [("MAIL", client.mail(sender))] + [("RCPT", client.rcpt(r)) for r in recipients]:
                if answer[0] != 250:
                    raise smtplib.SMTPResponseException(answer[0], verb.encode() + b": " + answer[1])
            code, text = client.data(message)
            if code != 250:
                raise smtplib.SMTPResponseException(code, text)
            return re.search(rb"queued as (\w+)", text).group(1).decode()
        finally:
            if own:
                client.close()

    def delivered(self, address):
        """Contents of the new messages in the Maildir of an address."""
        found = []
        for folder in (address, address.lower()):
            new = os.path.join(self.dir, "mail", folder, "new")
            if os.path.isdir(new):
                for name in sorted(os.listdir(new)):
                    with open(os.path.join(new, name), "rb") as f:
                        found.append(f.read())
                break
        return found

    def all_delivered(self):
        """address -> contents."""
        root = os.path.join(self.dir, "mail")
        return {a: self.delivered(a) for a in os.listdir(root)}


class Raw:
    """A socket that says what it is told, byte for byte."""

    def __init__(self, port, greeting=True):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.settimeout(PATIENCE)
        self.buffer = b""
        self.greeting = self.reply() if greeting else None

    def say(self, data):
        self.socket.sendall(data)

    def line(self):
        while b"\n" not in self.buffer:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError("closed after %r" % self.buffer)
            self.buffer += more
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line + b"\n"

    def reply(self):
        """The last line of the next reply, as (code, text)."""
        while True:
            line = self.line()
            if len(line) < 4 or line[3:4] != b"-":
                return int(line[:3]), line[4:].strip().decode("utf-8", "replace")

    def ask(self, command):
        self.say(command + b"\r\n")
        return self.reply()

    def closed(self):
        """Reads to the end; True when the other side closes or resets."""
        try:
            while self.socket.recv(65536):
                pass
            return True
        except ConnectionResetError:
            return True
        except socket.timeout:
            return False

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def contents(path, size=-1):
    with open(path, "rb") as f:
        return f.read(size)


def message(subject, body=b"", size=0, seed=None):
    """Header and body with CRLF; with size a body of that many random printable bytes in lines of 76."""
    if size:
        letters = random.Random(seed if seed is not None else subject)
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789. "
        line = 76
        text = "".join(letters.choices(alphabet, k=size)).encode()
        body = b"\r\n".join(text[i:i + line] for i in range(0, len(text), line)) + b"\r\n"
    head = "From: sender@test.example\r\nSubject: %s\r\nDate: %s\r\n\r\n" % (subject, email.utils.formatdate(0))
    return head.encode() + body


def body_of(stored):
    """Body of a stored message, line ends as on the wire."""
    text = stored.replace(b"\r\n", b"\n")
    return text.split(b"\n\n", 1)[1].replace(b"\n", b"\r\n")


def subject_of(stored):
    found = re.search(rb"^Subject: (.*?)\r?$", stored, re.M)
    return found.group(1).decode() if found else ""


def main():
    unittest.main(verbosity=2, warnings="ignore")  # sockets are closed by their end
