#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Mail leaves by SMTP, LMTP and TLS as it came; what a destination refuses comes back to its sender; what a destination
can not take now waits and is tried again."""
import os
import ssl
import subprocess
import tempfile
import time
import unittest

import harness
from harness import body_of, message, subject_of, wait_for


class Sink:
    """Postfix's smtp-sink: one file for every message it takes."""

    def __init__(self, *options, port=None):
        self.port = port or harness.free_port()
        self.dir = tempfile.mkdtemp(prefix="ironspool-sink-")
        self.process = subprocess.Popen(
            [harness.TOOLS + "/smtp-sink", "-u", harness.pwd.getpwuid(os.getuid()).pw_name, *options, "-d",
             self.dir + "/%s.", "127.0.0.1:%d" % self.port, "100"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("smtp-sink", self.listens)

    def listens(self):
        try:
            harness.socket.create_connection(("127.0.0.1", self.port), 5).close()
            return True
        except OSError:
            return False

    def messages(self):
        found = []
        for name in sorted(os.listdir(self.dir)):
            with open(os.path.join(self.dir, name), "rb") as f:
                text = f.read()
            if text.endswith(b"\n") and b"\nSubject:" in text:
                found.append(text)
        return found

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.stop()
        harness.shutil.rmtree(self.dir, ignore_errors=True)


def sink_body(stored):
    """smtp-sink puts its own X- lines and a Received line before what it got, and ends lines with LF."""
    return body_of(stored)


@unittest.skipUnless(os.path.exists(harness.TOOLS + "/smtp-sink"), "packaging/fetch-smtp-source build/tools")
class Delivery(unittest.TestCase):
    def relay_to(self, sink, **changes):
        relay = harness.Ironspool(transport="smtp:[127.0.0.1]:%d" % sink.port, **changes)
        self.addCleanup(relay.close)
        return relay.start()

    def sink(self, *options, port=None):
        sink = Sink(*options, port=port)
        self.addCleanup(sink.close)
        return sink

    def test_smtp_carries_bytes_as_they_came(self):
        sink = self.sink()
        relay = self.relay_to(sink)
        sent = {}
        for i, size in enumerate((1, 100, 5000, 70_000, 1_500_000)):
            text = message("out-%d" % i, size=size)
            relay.send("s@test.example", "r@out.example", text)
            sent["out-%d" % i] = body_of(text)
        relay.send("s@test.example", "r@out.example", message("out-dots", b".\r\n..x\r\n.\r\n"))
        sent["out-dots"] = b".\r\n..x\r\n.\r\n"
        wait_for("an empty queue", relay.drained)
        found = wait_for("six messages", lambda: len(sink.messages()) == 6 and sink.messages())
        self.assertEqual({subject_of(m): sink_body(m).rstrip(b"\r\n") for m in found},
                         {s: b.rstrip(b"\r\n") for s, b in sent.items()})

    def test_a_destination_that_was_down_gets_its_mail_when_it_is_up(self):
        port = harness.free_port()
        sink = self.sink(port=port)
        sink.stop()
        relay = self.relay_to(sink)
        for i in range(30):
            relay.send("s@test.example", "r%d@down.example" % i, message("down-%d" % i))
        wait_for("deferred mail", lambda: relay.status()["queue"]["deferred"] == 30)
        again = self.sink(port=port)
        wait_for("an empty queue", relay.drained)
        self.assertEqual({subject_of(m) for m in again.messages()}, {"down-%d" % i for i in range(30)})

    def test_a_soft_refusal_defers_and_says_why(self):
        relay = self.relay_to(self.sink("-r", "rcpt"))
        qid = relay.send("s@test.example", "r@soft.example", message("soft"))
        wait_for("deferred mail", lambda: relay.status()["queue"]["deferred"] == 1)
        self.assertIn("45", relay.tool("queue", "list")[1])
        self.assertIn(qid, relay.tool("queue", "list")[1])

    def test_a_hard_refusal_goes_back_to_the_sender(self):
        sink = self.sink("-f", "rcpt")
        table = tempfile.NamedTemporaryFile("w", suffix=".transport", delete=False)
        self.addCleanup(os.unlink, table.name)
        relay = harness.Ironspool()
        self.addCleanup(relay.close)
        with table as f:
            f.write("hard.example smtp:[127.0.0.1]:%d\n" % sink.port)
        os.chmod(table.name, 0o644)
        relay.write_config(extra='transport_maps = { "%s" }\n' % table.name)
        relay.start()
        relay.send("sender@home.example", "nobody@hard.example", message("hard"))
        back = wait_for("a bounce", lambda: relay.delivered("sender@home.example"))[0]
        self.assertIn(b"nobody@hard.example", back)
        self.assertIn(b"multipart/report", back)
        self.assertIn(b"Action: failed", back)
        wait_for("an empty queue", relay.drained)

    def test_a_bounce_is_never_bounced(self):
        relay = self.relay_to(self.sink("-f", "rcpt"))
        relay.send("", "nobody@hard.example", message("null"))
        wait_for("an empty queue", relay.drained)

    def test_lmtp_has_an_answer_for_every_recipient(self):
        sink = self.sink("-L")
        relay = harness.Ironspool(transport="lmtp:[127.0.0.1]:%d" % sink.port)
        self.addCleanup(relay.close)
        relay.start()
        relay.send("s@test.example", ["a@l.example", "b@l.example", "c@l.example"], message("lmtp", size=4000))
        wait_for("an empty queue", relay.drained)
        self.assertGreaterEqual(len(sink.messages()), 1)

    def test_kills_while_delivering_lose_nothing(self):
        sink = self.sink()
        relay = self.relay_to(sink)
        for i in range(150):
            relay.send("s@test.example", "r@out.example", message("kill-%d" % i, size=3000))
            if i % 50 == 25:
                relay.kill("relay" if i < 60 else "spool")
                relay.wait_ready()
        wait_for("an empty queue", relay.drained)
        self.assertEqual({subject_of(m) for m in sink.messages()}, {"kill-%d" % i for i in range(150)})

    def test_mail_that_waited_leaves_after_a_restart(self):
        port = harness.free_port()
        sink = self.sink(port=port)
        sink.stop()
        relay = self.relay_to(sink)
        for i in range(20):
            relay.send("s@test.example", "r@later.example", message("later-%d" % i))
        self.assertEqual(relay.stop(), 0)
        again = self.sink(port=port)
        relay.start()
        wait_for("an empty queue", relay.drained)
        self.assertEqual({subject_of(m) for m in again.messages()}, {"later-%d" % i for i in range(20)})


class Tls(unittest.TestCase):
    def test_starttls_is_offered_and_carries_mail(self):
        relay = harness.Ironspool()
        self.addCleanup(relay.close)
        key, certificate = relay.dir + "/key.pem", relay.dir + "/cert.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days",
                        "2", "-subj", "/CN=mx.test.example"], check=True, capture_output=True)
        os.chmod(key, 0o644)
        relay.write_config(extra='smtpd_tls_security_level = "may"\nsmtpd_tls_cert_file = "%s"\nsmtpd_tls_key_file = "%s"\n'
                           % (certificate, key))
        relay.start()
        client = relay.smtp()
        client.ehlo()
        self.assertTrue(client.has_extn("starttls"))
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.assertEqual(client.starttls(context=context)[0], 220)
        client.ehlo()
        self.assertFalse(client.has_extn("starttls"))
        text = message("tls", size=300_000)
        relay.send("s@test.example", "tls@test.example", text, client)
        client.quit()
        found = wait_for("mail", lambda: relay.delivered("tls@test.example"))
        self.assertEqual(body_of(found[0]), body_of(text))

    def test_plain_text_before_the_handshake_is_not_believed(self):
        relay = harness.Ironspool()
        self.addCleanup(relay.close)
        key, certificate = relay.dir + "/key.pem", relay.dir + "/cert.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days",
                        "2", "-subj", "/CN=mx.test.example"], check=True, capture_output=True)
        os.chmod(key, 0o644)
        relay.write_config(extra='smtpd_tls_security_level = "may"\nsmtpd_tls_cert_file = "%s"\nsmtpd_tls_key_file = "%s"\n'
                           % (certificate, key))
        relay.start()
        with relay.raw() as c:
            c.ask(b"EHLO client.test.example")
            c.say(b"STARTTLS\r\nMAIL FROM:<s@test.example>\r\nRCPT TO:<injected@test.example>\r\nDATA\r\n"
                  b"Subject: injected\r\n\r\nx\r\n.\r\n")
            c.closed()
        time.sleep(1)
        self.assertEqual(relay.delivered("injected@test.example"), [])


if __name__ == "__main__":
    harness.main()
