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

MESSAGES_MAX = 400
RECIPIENTS = 300


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
            self.assertGreater(relay.status()["relay"]["accept_pauses"], 0)
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
            commands = [b"MAIL FROM:<s@test.example>"]
            commands += [b"RCPT TO:<r%d.%s@test.example>" % (i, b"x" * 50) for i in range(RECIPIENTS)]
            c.say(b"\r\n".join(commands + [b"DATA", b""]))
            codes = [c.reply()[0] for _ in range(len(commands) + 1)]
            if codes[-1] != 354:
                return next(code for code in codes if code // 100 != 2)
            c.say(message("full-%d" % number) + b".\r\n")
            return c.reply()[0]

    def test_a_full_state_directory_refuses_mail_and_loses_none(self):
        relay = self.relay.start()
        taken, refused = 0, None
        while taken < MESSAGES_MAX and not refused:
            code = self.try_to_send(taken)
            taken += code == 250
            refused = code if code != 250 else None
        self.assertEqual(refused, 451, "after %d messages" % taken)
        self.assertGreater(taken, 0)
        self.assertNotEqual(relay.status()["pool"]["accepting"], "yes")
        subprocess.run(["mount", "-o", "remount,size=256m", self.state], check=True)
        wait_for("mail to be accepted again", lambda: self.try_to_send(taken) == 250)
        wait_for("all of it in the queue", lambda: relay.status()["queue"]["index_ready"] and relay.queued() == taken + 1)
        self.assertEqual(relay.stop(), 0)
        self.assertEqual(relay.check()[0], 0)


if __name__ == "__main__":
    harness.main()
