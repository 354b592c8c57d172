#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The main job in one run: smtp-source sends while the spool process is killed again and again, and every message comes
out. IRONSPOOL_MESSAGES=10000 for the whole of it."""
import os
import subprocess
import unittest

import harness
from harness import wait_for

MESSAGES = int(os.environ.get("IRONSPOOL_MESSAGES", "600"))
EACH = 200  # messages of one smtp-source, and a kill in its middle


@unittest.skipUnless(os.path.exists(harness.TOOLS + "/smtp-source"), "packaging/fetch-smtp-source build/tools")
class Done(unittest.TestCase):
    def test_all_messages_come_out_however_often_the_spool_dies(self):
        with harness.Ironspool(size=256 * 1024 * 1024, extra='smtpd_client_connection_count_limit = 0\n') as relay:
            relay.start()
            wanted, kills = set(), 0
            for first in range(0, MESSAGES, EACH):
                count = min(EACH, MESSAGES - first)
                accepted = relay.status()["relay"]["accepted"]
                source = subprocess.Popen(
                    [harness.TOOLS + "/smtp-source", "-N", "-s", "10", "-m", str(count), "-l", "4096", "-f", "s@test.example",
                     "-t", "of%d@test.example" % first, "127.0.0.1:%d" % relay.port], stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT)
                wait_for("mail of this round", lambda: relay.status()["relay"]["accepted"] > accepted or source.poll() is not None)
                relay.kill("spool")
                kills += 1
                out, _ = source.communicate(timeout=harness.PATIENCE * 3)
                self.assertEqual(source.returncode, 0, out)
                relay.wait_ready()
                wanted |= {"%dof%d@test.example" % (n, first) for n in range(1, count + 1)}
            wait_for("an empty queue", relay.drained, harness.PATIENCE * 3)
            found = {a: len(os.listdir("%s/mail/%s/new" % (relay.dir, a))) for a in os.listdir(relay.dir + "/mail")}
            self.assertEqual(sorted(wanted - set(found))[:5], [], "not delivered")
            self.assertEqual(sorted(set(found) - wanted)[:5], [], "nobody sent to these")
            print("%d messages, %d kills of the spool process: all came out, %d twice" %
                  (len(wanted), kills, sum(found.values()) - len(wanted)), flush=True)
            self.assertEqual(relay.stop(), 0)
            self.assertEqual(relay.check()[0], 0)


if __name__ == "__main__":
    harness.main()
