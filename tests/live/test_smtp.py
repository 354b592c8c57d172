#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Mail goes in by three clients that are not ours and comes out byte for byte."""
import os
import shutil
import subprocess
import unittest

import harness
from harness import body_of, message, wait_for


class Smtp(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.relay = harness.Ironspool(size="256M")  # twenty sessions at once, each may bring message_size_limit
        cls.addClassCleanup(cls.relay.close)
        cls.relay.start()

    def arrived(self, address, count=1):
        return wait_for("%d for %s" % (count, address),
                        lambda: len(self.relay.delivered(address)) >= count and self.relay.delivered(address))

    def test_a_message_arrives_as_it_was_sent(self):
        sent = message("plain", size=3000)
        self.relay.send("s@test.example", "plain@test.example", sent)
        self.assertEqual(body_of(self.arrived("plain@test.example")[0]), body_of(sent))

    def test_dots_at_the_start_of_lines_survive(self):
        sent = message("dots", b".\r\n..\r\n...dots\r\n. \r\n\r\nend\r\n")
        self.relay.send("s@test.example", "dots@test.example", sent)
        self.assertEqual(body_of(self.arrived("dots@test.example")[0]), body_of(sent))

    def test_eight_bit_bytes_survive(self):
        sent = message("bytes", bytes(range(128, 256)) * 7 + b"\r\n")
        self.relay.send("s@test.example", "bytes@test.example", sent)
        self.assertEqual(body_of(self.arrived("bytes@test.example")[0]), body_of(sent))

    def test_a_large_message_arrives_whole(self):
        sent = message("large", size=5_000_000)
        self.relay.send("s@test.example", "large@test.example", sent)
        self.assertEqual(body_of(self.arrived("large@test.example")[0]), body_of(sent))

    def test_an_empty_message_arrives(self):
        self.relay.send("s@test.example", "empty@test.example", b"\r\n")
        self.arrived("empty@test.example")

    def test_every_recipient_gets_one(self):
        people = ["many%d@test.example" % i for i in range(100)]
        self.relay.send("s@test.example", people, message("many"))
        for person in people:
            self.arrived(person)
        self.assertEqual({len(self.relay.delivered(p)) for p in people}, {1})

    def test_the_null_sender_is_a_sender(self):
        self.relay.send("", "null@test.example", message("null"))
        self.arrived("null@test.example")

    def test_several_messages_share_a_session(self):
        client = self.relay.smtp()
        ids = {self.relay.send("s@test.example", "session@test.example", message("n%d" % i), client) for i in range(20)}
        client.quit()
        self.assertEqual(len(ids), 20)
        self.arrived("session@test.example", 20)

    def test_a_whole_pipeline_is_answered_in_order(self):
        with self.relay.raw() as c:
            self.assertEqual(c.ask(b"EHLO client.test.example")[0], 250)
            c.say(b"MAIL FROM:<s@test.example>\r\nRCPT TO:<pipe@test.example>\r\nDATA\r\n")
            self.assertEqual([c.reply()[0] for _ in range(3)], [250, 250, 354])
            c.say(b"Subject: pipe\r\n\r\nx\r\n.\r\nQUIT\r\n")
            self.assertEqual([c.reply()[0] for _ in range(2)], [250, 221])
        self.arrived("pipe@test.example")

    def test_bdat_carries_bytes_as_they_are(self):
        with self.relay.raw() as c:
            c.ask(b"EHLO client.test.example")
            c.ask(b"MAIL FROM:<s@test.example>")
            c.ask(b"RCPT TO:<bdat@test.example>")
            first, last = b"Subject: bdat\r\n\r\n.\r\n", b"..two\r\n"
            c.say(b"BDAT %d\r\n" % len(first) + first)
            self.assertEqual(c.reply()[0], 250)
            c.say(b"BDAT %d LAST\r\n" % len(last) + last)
            self.assertEqual(c.reply()[0], 250)
        self.assertEqual(body_of(self.arrived("bdat@test.example")[0]), b".\r\n..two\r\n")

    def test_a_message_over_the_limit_is_refused_by_its_size(self):
        with self.relay.raw() as c:
            c.ask(b"EHLO client.test.example")
            self.assertEqual(c.ask(b"MAIL FROM:<s@test.example> SIZE=99999999999")[0], 552)

    def test_rset_forgets_the_transaction(self):
        with self.relay.raw() as c:
            c.ask(b"EHLO client.test.example")
            c.ask(b"MAIL FROM:<s@test.example>")
            c.ask(b"RCPT TO:<never@test.example>")
            self.assertEqual(c.ask(b"RSET")[0], 250)
            self.assertEqual(c.ask(b"DATA")[0] // 100, 5)

    @unittest.skipUnless(shutil.which("swaks"), "swaks is not installed")
    def test_swaks_is_served(self):
        done = subprocess.run(["swaks", "--server", "127.0.0.1:%d" % self.relay.port, "--from", "s@test.example", "--to",
                               "swaks@test.example", "--hide-all"], capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.arrived("swaks@test.example")

    @unittest.skipUnless(os.path.exists(harness.TOOLS + "/smtp-source"), "packaging/fetch-smtp-source build/tools")
    def test_smtp_source_sends_hundreds_over_twenty_sessions(self):
        done = subprocess.run([harness.TOOLS + "/smtp-source", "-s", "20", "-m", "300", "-l", "4096", "-f",
                               "s@test.example", "-t", "load@test.example", "127.0.0.1:%d" % self.relay.port],
                              capture_output=True, text=True, timeout=300, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.arrived("load@test.example", 300)
        wait_for("an empty queue", self.relay.drained)
        self.assertEqual(len(self.relay.delivered("load@test.example")), 300)

    def test_who_may_not_relay_is_told_so(self):
        with harness.Ironspool() as strict:
            strict.change_config('mynetworks = { "127.0.0.0/8" }',
                                 'mynetworks = { "192.0.2.0/24" }\nrelay_domains = { "ours.example" }')
            strict.start()
            with strict.raw() as c:
                c.ask(b"EHLO client.test.example")
                c.ask(b"MAIL FROM:<s@test.example>")
                self.assertEqual(c.ask(b"RCPT TO:<x@elsewhere.example>")[0], 554)
                self.assertEqual(c.ask(b"RCPT TO:<x@ours.example>")[0], 250)
            self.assertEqual(strict.stop(), 0)


if __name__ == "__main__":
    harness.main()
