#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""No descriptor left, no room for the index: mail waits at the door, nothing is lost, and it goes on by itself when there
is room again."""
import os
import resource
import socket
import subprocess
import unittest

import harness
from harness import message, wait_for

MESSAGES = 1000  # far more than the small file system below has room for
RECIPIENTS = 300
DOMAIN = b".".join([b"x" * 60] * 3 + [b"example"])  # long: the index holds envelopes


class Descriptors(unittest.TestCase):
    def test_without_descriptors_accepting_pauses_and_goes_on(self):
        with harness.Ironspool(extra="smtpd_client_connection_count_limit = 0\n") as relay:
            relay.start()
            pid = relay.pid("relay")
            usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            used = max(int(fd) for fd in os.listdir("/proc/%d/fd" % pid)) + 1
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 8, usual[1]))
            held = [socket.create_connection(("127.0.0.1", relay.port), 10) for _ in range(30)]
            wait_for("the pause in the log", lambda: "accept: Too many open files; pausing" in relay.log())
            for s in held:
                s.close()
            relay.send("s@test.example", "next@test.example", message("next"))  # waits in the listen queue until then
            resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
            wait_for("the next client's mail", lambda: relay.delivered("next@test.example"))
            self.assertEqual(relay.pid("relay"), pid)


@unittest.skipUnless(os.getuid() == 0, "mounts a small file system")
class StateDirectory(unittest.TestCase):
    def setUp(self):
        self.relay = harness.Ironspool(transport="hold", size=128 * 1024 * 1024)
        self.addCleanup(self.relay.close)
        self.state = self.relay.dir + "/state"
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", self.state], check=False,
                          capture_output=True).returncode != 0:
            self.skipTest("no file system may be mounted here")
        self.addCleanup(subprocess.run, ["umount", "-l", self.state], check=False)

    def try_to_send(self, number):
        """The reply's code, of whichever command was refused."""
        with self.relay.raw() as c:
            c.ask(b"EHLO client.test.example")
            code = c.ask(b"MAIL FROM:<s@test.example>")[0]
            if code != 250:
                return code
            commands = [b"RCPT TO:<r%d@%s>" % (i, DOMAIN) for i in range(RECIPIENTS)]
            c.say(b"\r\n".join(commands + [b"DATA", b""]))
            codes = [c.reply()[0] for _ in range(len(commands) + 1)]
            if codes[-1] != 354:
                return next(code for code in codes if code // 100 != 2)
            c.say(message("full-%d" % number) + b".\r\n")
            return c.reply()[0]

    def test_a_full_state_directory_refuses_loses_nothing_and_is_caught_up_with(self):
        relay = self.relay.start()
        taken = self.until_refused()
        self.assertGreater(taken, 0)
        self.assertLess(self.free(), 65536)
        self.wait_for_451_at_mail()
        self.assertIn("state_directory", relay.status()["pool"]["accepting"])
        self.assertIn("index_full", relay.tool("events")[1])
        code, _, err = relay.tool("queue", "list")
        self.assertEqual(code, 1)
        self.assertIn("state_directory", err)
        report = relay.tool("doctor")[1]
        self.assertRegex(report, r"(?m)^state_directory +attention ")
        self.assertRegex(report, r"(?m)^daemon +attention .*spooltool diagnose")
        subprocess.run(["mount", "-o", "remount,size=256m", self.state], check=True)
        wait_for("all of it in the queue", lambda: relay.status()["queue"]["index_ready"] and relay.queued() == taken)
        wait_for("mail being taken", lambda: self.try_to_send(MESSAGES) == 250)
        wait_for("one more", lambda: relay.queued() == taken + 1)
        self.assertEqual(relay.stop(), 0)
        self.assertEqual(relay.check()[0], 0)

    def test_without_room_to_start_nothing_is_taken_until_there_is_some(self):
        relay = self.relay.start()
        self.assertEqual(self.try_to_send(0), 250)
        self.assertEqual(relay.stop(), 0)
        os.unlink(self.state + "/index/index.mdb")
        with open(self.state + "/else", "wb", buffering=0) as f:
            while self.free():
                f.write(bytes(min(self.free(), 65536)))
        relay.start(wait=False)
        wait_for("the reason", lambda: relay.greets() and relay.tool("status")[0] != 4 and
                 "state_directory" in relay.status()["pool"]["accepting"])
        self.wait_for_451_at_mail()
        os.unlink(self.state + "/else")
        wait_for("mail being taken", lambda: self.try_to_send(1) == 250)
        wait_for("both", lambda: relay.status()["queue"]["index_ready"] and relay.queued() == 2)

    def until_refused(self):
        """How many were taken before the file system was full and the first was refused."""
        for number in range(MESSAGES):
            code = self.try_to_send(number)
            if code == 451:
                return number
            self.assertEqual(code, 250)
        self.fail("%d messages were taken" % MESSAGES)

    def wait_for_451_at_mail(self):
        """The relay hears a moment after the spool that nothing is taken."""
        with self.relay.raw() as c:
            c.ask(b"EHLO client.test.example")
            answer = wait_for("a refusal of MAIL", lambda: next((a for a in [c.ask(b"MAIL FROM:<s@test.example>")] if a[0] != 250 or
                                                                c.ask(b"RSET")[0] != 250), None))
        self.assertEqual((answer[0], answer[1][:5]), (451, "4.3.0"))

    def free(self):
        return os.statvfs(self.state).f_bavail * os.statvfs(self.state).f_frsize


if __name__ == "__main__":
    harness.main()
