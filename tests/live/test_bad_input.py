#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whatever a client says, it gets an answer or is closed; the process that listens to it lives on and serves others."""
import os
import random
import socket
import threading
import time
import unittest

import harness
from harness import Raw, message, wait_for


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.relay = harness.Ironspool()
        cls.addClassCleanup(cls.relay.close)
        cls.relay.start()

    def setUp(self):
        self.pids = [self.relay.pid("relay"), self.relay.pid("spool")]

    def tearDown(self):
        address = "%s@test.example" % self._testMethodName[-40:].lower()
        self.relay.send("s@test.example", address, message("after " + self._testMethodName))
        wait_for("mail for %s" % address, lambda: self.relay.delivered(address))
        self.assertEqual([self.relay.pid("relay"), self.relay.pid("spool")], self.pids, "a process died\n" + self.relay.log()[-3000:])

    def in_data(self, client, recipient=b"bad@test.example"):
        client.ask(b"EHLO client.test.example")
        client.ask(b"MAIL FROM:<s@test.example>")
        client.ask(b"RCPT TO:<%s>" % recipient)
        self.assertEqual(client.ask(b"DATA")[0], 354)

    def test_an_oversized_command_is_refused(self):
        for size in (513, 2049, 70000, 1_000_000):
            with self.relay.raw() as c:
                try:
                    c.say(b"EHLO " + b"x" * size + b"\r\n")
                    self.assertEqual(c.reply()[0] // 100, 5, size)
                except (ConnectionError, EOFError):
                    self.assertGreater(size, 2049, "closed without an answer")

    def test_a_command_that_never_ends_is_not_gathered(self):
        with self.relay.raw() as c:
            try:
                for _ in range(500):
                    c.say(b"y" * 65536)
            except OSError:
                pass
        self.assertLess(self.resident_kib(), 512 * 1024)

    def resident_kib(self):
        with open("/proc/%d/status" % self.relay.pid("relay"), encoding="ascii") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))

    def test_binary_noise_is_survived(self):
        noise = random.Random(7)
        for _ in range(20):
            with self.relay.raw() as c:
                try:
                    c.say(noise.randbytes(50_000))
                    c.socket.shutdown(socket.SHUT_WR)
                    self.assertTrue(c.closed())
                except OSError:
                    pass

    def test_noise_between_real_commands_is_survived(self):
        noise = random.Random(8)
        for _ in range(100):
            with self.relay.raw() as c:
                try:
                    for part in (b"EHLO a\r\n", b"MAIL FROM:<", noise.randbytes(40), b">\r\nRCPT TO:<a@b>\r\n",
                                 noise.randbytes(10), b"\r\nDATA\r\n", noise.randbytes(300), b"\r\n.\r\nQUIT\r\n"):
                        c.say(part)
                    c.socket.shutdown(socket.SHUT_WR)
                    self.assertTrue(c.closed())
                except OSError:
                    pass

    def test_half_a_command_and_a_close_is_survived(self):
        for part in (b"", b"E", b"EHLO", b"EHLO x\r", b"EHLO x\r\nMAIL FROM:<a@b",
                     b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSub",
                     b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<never@test.example>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n."):
            with self.relay.raw() as c:
                c.say(part)
        self.assertEqual(self.relay.delivered("never@test.example"), [])

    def test_a_bare_line_feed_does_not_end_a_message(self):
        for smuggled in (b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r"):
            with self.relay.raw() as c:
                self.in_data(c, b"smuggle@test.example")
                c.say(b"Subject: a\r\n\r\none" + smuggled +
                      b"MAIL FROM:<evil@test.example>\r\nRCPT TO:<evil@test.example>\r\nDATA\r\n"
                      b"Subject: evil\r\n\r\nevil\r\n.\r\n")
                self.assertEqual(c.reply()[0], 521, smuggled)
                self.assertTrue(c.closed())
        time.sleep(1)
        self.assertEqual(self.relay.delivered("evil@test.example"), [])
        self.assertEqual(self.relay.delivered("smuggle@test.example"), [])

    def test_ten_thousand_recipients_meet_the_limit(self):
        with self.relay.raw() as c:
            c.ask(b"EHLO client.test.example")
            c.ask(b"MAIL FROM:<s@test.example>")
            codes = []

            def read():
                try:
                    codes.extend(c.reply()[0] for _ in range(10000))
                except (EOFError, OSError):
                    pass

            reader = threading.Thread(target=read)
            reader.start()
            try:
                for i in range(0, 10000, 100):
                    c.say(b"".join(b"RCPT TO:<r%d@limit.example>\r\n" % k for k in range(i, i + 100)))
            except OSError:
                pass
            reader.join()
            self.assertEqual(codes.count(250), 1000)
            self.assertEqual({x for x in codes if x != 250} - {452, 421}, set())

    def test_who_talks_before_the_greeting_is_answered_or_closed(self):
        c = Raw(self.relay.port, greeting=False)
        try:
            c.say(b"EHLO early\r\nMAIL FROM:<a@b>\r\nQUIT\r\n")
            c.socket.shutdown(socket.SHUT_WR)
            self.assertTrue(c.closed())
        except OSError:
            pass
        finally:
            c.close()

    def test_a_slow_client_delays_nobody(self):
        with self.relay.raw() as slow:
            for byte in b"EHLO slow.test.example\r\n":
                slow.say(bytes([byte]))
                time.sleep(0.01)
            self.assertEqual(slow.reply()[0], 250)
            self.relay.send("s@test.example", "beside@test.example", message("beside the slow one"))
            wait_for("mail beside the slow client", lambda: self.relay.delivered("beside@test.example"))
            self.assertEqual(slow.ask(b"NOOP")[0], 250)

    def test_many_idle_sessions_leave_room_for_mail(self):
        idle = [self.relay.raw() for _ in range(200)]
        try:
            self.relay.send("s@test.example", "idle@test.example", message("among idle sessions"))
            wait_for("mail among idle sessions", lambda: self.relay.delivered("idle@test.example"))
        finally:
            for c in idle:
                c.close()

    def test_a_line_over_the_limit_in_data_is_refused(self):
        with self.relay.raw() as c:
            self.in_data(c)
            try:
                c.say(b"Subject: long\r\n\r\n" + b"z" * 200_000 + b"\r\n.\r\n")
                self.assertEqual(c.reply()[0] // 100, 5)
            except OSError:
                pass

    def test_headers_without_end_are_refused(self):
        with self.relay.raw() as c:
            self.in_data(c)
            try:
                for i in range(30_000):
                    c.say(b"X-Header-%d: y\r\n" % i)
                c.say(b"\r\nbody\r\n.\r\n")
                self.assertEqual(c.reply()[0] // 100, 5)
            except OSError:
                pass

    def test_a_message_over_the_limit_is_refused_at_its_end(self):
        with self.relay.raw() as c:
            self.in_data(c, b"toolarge@test.example")
            block = (b"0123456789" * 7 + b"\r\n") * 1000
            try:
                c.say(b"Subject: too large\r\n\r\n")
                for _ in range(200):
                    c.say(block)
                c.say(b".\r\n")
                self.assertEqual(c.reply()[0], 552)
            except OSError:
                pass
        self.assertEqual(self.relay.delivered("toolarge@test.example"), [])

    def test_strange_addresses_never_leave_their_directory(self):
        for address in (b"../../escape@test.example", b"/etc/passwd@test.example", b"..@..", b"a/b/c@test.example",
                        b"x@../../up", b"\"quoted/../name\"@test.example", b"." * 60 + b"@test.example", b"%s%n@test.example"):
            with self.relay.raw() as c:
                c.ask(b"EHLO client.test.example")
                c.ask(b"MAIL FROM:<s@test.example>")
                if c.ask(b"RCPT TO:<" + address + b">")[0] == 250:
                    c.ask(b"DATA")
                    c.say(b"Subject: strange\r\n\r\nx\r\n.\r\n")
                    c.reply()
        time.sleep(1)
        outside = [n for n in os.listdir(self.relay.dir) if n not in ("state", "mail", "disks", "ironspool.conf", "log",
                                                                      "stderr", "control.sock")]
        self.assertEqual(outside, [])
        self.assertEqual([n for n in os.listdir(self.relay.dir + "/mail") if n in ("escape@test.example", "etc", "up")], [])

    def test_a_browser_is_turned_away(self):
        with self.relay.raw() as c:
            try:
                c.say(b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: y\r\n\r\n")
                self.assertEqual(c.reply()[0] // 100, 5)
            except (OSError, EOFError):
                pass

    def test_too_many_errors_end_a_session(self):
        with self.relay.raw() as c:
            c.ask(b"EHLO client.test.example")
            try:
                for _ in range(100):
                    c.ask(b"NONSENSE")
                self.fail("a hundred errors were not enough")
            except (EOFError, OSError):
                pass

    def test_noise_on_the_status_port_is_survived(self):
        noise = random.Random(9)
        for payload in (noise.randbytes(20_000), b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
                        b"POST / HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n",
                        b"GET /../../etc/passwd HTTP/1.0\r\n\r\n"):
            try:
                with socket.create_connection(("127.0.0.1", self.relay.http_port), 10) as s:
                    s.settimeout(10)
                    s.sendall(payload)
                    s.shutdown(socket.SHUT_WR)
                    answer = s.recv(65536)
                    self.assertNotIn(b"root:", answer)
                    self.assertFalse(answer.startswith(b"HTTP/1.1 200") and b"passwd" in payload)
            except OSError:
                pass


if __name__ == "__main__":
    harness.main()
