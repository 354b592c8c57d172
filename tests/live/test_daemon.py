#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The daemon's own life: reload, a second one, a locked member, a pool below policy, who it is, how much it takes."""
import fcntl
import json
import os
import signal
import socket
import subprocess
import unittest
import urllib.error
import urllib.request

import harness
from harness import message, wait_for


def page(relay, path):
    """(code, text) of the status page."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:%d%s" % (relay.http_port, path), timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def healthy(relay):
    try:
        return page(relay, "/healthz")[0] == 200
    except OSError:
        return False


def ask(relay, request):
    """(header, rest) of the control socket, byte for byte."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(60)
        s.connect(relay.dir + "/control.sock")
        s.sendall(request)
        answer = b""
        while True:
            some = s.recv(65536)
            if not some:
                break
            answer += some
    head, _, rest = answer.partition(b"\n")
    return json.loads(head), rest


class Daemon(unittest.TestCase):
    def setUp(self):
        self.relay = harness.Ironspool()
        self.addCleanup(self.relay.close)

    def test_a_reload_takes_what_is_new_and_keeps_the_spool(self):
        relay = self.relay.start()
        before = relay.pid("spool"), relay.pid("relay")
        relay.change_config('minimal_backoff_time = "1s"', 'minimal_backoff_time = "1s"\nmessage_size_limit = 1M')
        relay.process.send_signal(signal.SIGHUP)
        wait_for("a new relay process", lambda: relay.pid("relay") not in (None, before[1]))
        wait_for("the page", lambda: healthy(relay))
        with relay.smtp() as client:
            client.ehlo()
            self.assertEqual(client.esmtp_features["size"], "1048576")
        self.assertEqual(relay.pid("spool"), before[0])
        relay.send("s@test.example", "d@test.example", message("after"))
        wait_for("the mail", lambda: relay.delivered("d@test.example"))

    def test_a_reload_with_a_bad_file_changes_nothing_and_says_so(self):
        relay = self.relay.start()
        before = relay.pid("spool"), relay.pid("relay")
        relay.change_config("minimal_backoff_time", "minimal_backof_time")
        relay.process.send_signal(signal.SIGHUP)
        wait_for("the refusal", lambda: "did you mean `minimal_backoff_time`?" in relay.log())
        self.assertEqual((relay.pid("spool"), relay.pid("relay")), before)
        relay.send("s@test.example", "d@test.example", message("still"))

    def test_a_change_of_the_pool_mounts_it_again(self):
        relay = self.relay.start()
        before = relay.pid("spool")
        relay.change_config('absent_wait = "2s"', 'absent_wait = "3s"')
        relay.process.send_signal(signal.SIGHUP)
        wait_for("a new spool process", lambda: relay.pid("spool") not in (None, before))
        wait_for("the page", lambda: healthy(relay))
        relay.send("s@test.example", "d@test.example", message("again"))
        wait_for("the mail", lambda: relay.delivered("d@test.example"))

    def test_two_daemons_do_not_share_a_state_directory(self):
        self.relay.start()
        second = subprocess.run([os.path.join(harness.BIN, "ironspoold"), "-c", self.relay.config], capture_output=True,
                                text=True, timeout=60, check=False)
        self.assertEqual(second.returncode, 1)
        self.assertIn("another ironspoold", self.relay.log() + second.stderr)
        self.relay.send("s@test.example", "d@test.example", message("first"))

    def test_a_member_that_somebody_else_has_joins_when_it_is_free(self):
        relay = self.relay
        with open(relay.paths["b"], "r+b") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            relay.start()
            members = {m["name"]: m for m in relay.status()["members"]}
            self.assertEqual(members["b"]["state"], "absent")
            self.assertIn("locked", members["b"]["evidence"])
            self.assertIn("joins by itself", relay.tool("diagnose")[1])
            relay.send("s@test.example", "d@test.example", message("meanwhile"))

        def serves():
            code, out, _ = relay.tool("status", "--json")  # 4 while the spool process is replaced
            return code in (0, 10, 11) and {m["name"]: m["state"] for m in json.loads(out)["members"]}["b"] == "healthy"

        wait_for("b in service", serves)
        wait_for("the mail", lambda: relay.delivered("d@test.example"))

    def test_a_pool_below_policy_says_so_everywhere_and_comes_back(self):
        relay = self.relay
        relay.write_config(min_copies=2)
        for name in "ab":
            os.rename(relay.paths[name], relay.paths[name] + ".away")
        relay.start(wait=False)
        wait_for("the page", lambda: relay.greets() and "min_copies" in page(relay, "/healthz")[1])
        self.assertEqual(page(relay, "/healthz")[0], 503)
        self.assertEqual(json.loads(page(relay, "/status")[1])["pool"]["state"], "read-only")
        self.assertIn("ironspool_pool_accepting 0", page(relay, "/metrics")[1])
        with relay.smtp() as client:
            client.ehlo()
            codes = client.mail("s@test.example")[0], client.rcpt("d@test.example")[0], client.docmd("DATA")[0]
            self.assertIn(451, codes)
        for name in "ab":
            os.rename(relay.paths[name] + ".away", relay.paths[name])
        wait_for("the pool", lambda: healthy(relay))
        relay.send("s@test.example", "d@test.example", message("back"))
        wait_for("the mail", lambda: relay.delivered("d@test.example"))

    def test_the_control_socket_answers_whatever_it_is_asked(self):
        relay = self.relay.start()
        for request in (b"\n", b"{}\n", b"[]\n", b"{\"command\":7}\n", b"\x00\xff\n", b"{\"command\":\"queue-delete\"}\n",
                        b"{\"command\":\"queue-show\",\"id\":\"x\"}\n", b"{\"command\":\"queue-list\",\"selector\":{\"ids\":[1]}}\n",
                        b"x" * 300000 + b"\n"):
            head, rest = ask(relay, request)
            self.assertIs(head["ok"], False, request[:40])
            self.assertEqual(rest, b"")
        head, rest = ask(relay, b"{\"command\":\"queue-list\"}\n")
        self.assertTrue(head["ok"])
        self.assertEqual(json.loads(rest.splitlines()[-1]), {"end": True, "count": 0})

    def test_only_the_spool_process_holds_the_members(self):
        relay = self.relay.start()
        for role, holds in (("supervisor", False), ("relay", False), ("spool", True)):
            fds = "/proc/%d/fd" % relay.pid(role)
            targets = [os.readlink(os.path.join(fds, fd)) for fd in os.listdir(fds)]
            self.assertEqual(any(t in relay.paths.values() for t in targets), holds, (role, targets))

    def test_sigterm_stops_it_cleanly(self):
        relay = self.relay.start()
        relay.send("s@test.example", "d@test.example", message("one"))
        self.assertEqual(relay.stop(), 0)
        self.assertIn("pool unmounted", relay.log())
        self.assertFalse(os.path.exists(relay.dir + "/control.sock"))

    def test_sigterm_waits_no_longer_than_its_grace_for_who_never_ends(self):
        self.relay.change_config("minimal_backoff_time", 'shutdown_grace = "2s"\nminimal_backoff_time')
        relay = self.relay.start()
        with relay.raw() as envelope, relay.raw() as content, relay.raw() as idle:
            for c in (envelope, content, idle):
                c.ask(b"EHLO client.test.example")
            for c in (envelope, content):
                c.ask(b"MAIL FROM:<s@test.example>")
                c.ask(b"RCPT TO:<d@test.example>")
            self.assertEqual(content.ask(b"DATA")[0], 354)
            content.say(b"Subject: half\r\n")
            relay.process.send_signal(signal.SIGTERM)
            for c in (idle, envelope, content):
                code, text = c.reply()
                self.assertEqual((code, text[:5]), (421, "4.3.2"))
                self.assertTrue(c.closed())
            self.assertEqual(relay.process.wait(harness.PATIENCE), 0)
        self.assertNotIn("did not stop in time", relay.log())
        self.assertIn("pool unmounted", relay.log())


if __name__ == "__main__":
    harness.main()
