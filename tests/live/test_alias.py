#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Aliases: one message in, one stored body, everybody it means gets it once; bounces go to the owner; a bad table is
refused with file and line and the old one stays; a kill between 250 and delivery loses none of them."""
import os
import re
import signal
import unittest

import harness
from harness import body_of, message, subject_of, wait_for

EXTRA = """alias_maps = {{ "{dir}/aliases" }}
virtual_alias_maps = {{ "{dir}/virtual" }}
mydestination = {{ "lists.example" }}
transport_maps = {{ "{dir}/transport" }}
"""


class Aliases(unittest.TestCase):
    def open(self, aliases, virtual="", transport="gone.example error:5.1.1 no such user\n", **changes):
        relay = harness.Ironspool(**changes)
        self.addCleanup(relay.close)
        self.relay = relay
        for name, text in (("aliases", aliases), ("virtual", virtual), ("transport", transport)):
            self.write(name, text)
        relay.write_config(extra=EXTRA.format(dir=relay.dir))
        return relay

    def write(self, name, text):
        with open(os.path.join(self.relay.dir, name), "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(os.path.join(self.relay.dir, name), 0o644)

    def test_one_message_reaches_everybody_once(self):
        relay = self.open("staff: ann@far.example, team\nteam: bob@far.example, ann@far.example, carol\ncarol: c@far.example\n",
                          "info@shop.example staff@lists.example\n@old.example @lists.example\n")
        relay.start()
        texts = {}
        for i, to in enumerate(("staff@lists.example", "Info@Shop.example", "staff@old.example")):
            texts["alias-%d" % i] = message("alias-%d" % i, size=90_000 if i == 1 else 2000)
            qid = relay.send("s@test.example", [to, "direct@far.example"], texts["alias-%d" % i])
            wait_for("an empty queue", relay.drained)
            log = relay.log()
            self.assertRegex(log, qid + r": from=<s@test\.example>, size=\d+, nrcpt=4 \(queue active\)")
            self.assertRegex(log, qid + r": to=<bob@far\.example>, orig_to=<%s>, relay=" % re.escape(to))
            self.assertRegex(log, qid + r": to=<direct@far\.example>, relay=")
        for who in ("ann", "bob", "c", "direct"):
            found = relay.delivered(who + "@far.example")
            self.assertEqual({subject_of(m): body_of(m) for m in found}, {s: body_of(t) for s, t in texts.items()})
            self.assertEqual(len(found), 3)

    def test_what_goes_wrong_on_a_list_is_told_to_its_owner(self):
        relay = self.open("list: ann@far.example, lost@gone.example\nowner-list: boss@far.example\n"
                          "plain: lost@gone.example\n")
        relay.start()
        relay.send("s@far.example", "list@lists.example", message("to-list"))
        relay.send("s@far.example", "plain@lists.example", message("to-plain"))
        relay.send("", "list@lists.example", message("null-sender"))
        wait_for("an empty queue", relay.drained)
        posts = {subject_of(m): m for m in relay.delivered("ann@far.example")}
        self.assertIn(b"Return-Path: <owner-list@lists.example>", posts["to-list"])
        self.assertIn(b"Return-Path: <>", posts["null-sender"])
        to_boss, to_sender = relay.delivered("boss@far.example"), relay.delivered("s@far.example")
        self.assertEqual(len(to_boss), 1)  # the null sender's is told to nobody
        self.assertEqual(len(to_sender), 1)
        self.assertIn(b"Original-Recipient: rfc822; list@lists.example", to_boss[0])
        self.assertIn(b"Final-Recipient: rfc822; lost@gone.example", to_boss[0])
        self.assertIn(b"Original-Recipient: rfc822; plain@lists.example", to_sender[0])

    def test_replies_name_the_trouble(self):
        relay = self.open("known: a@far.example\nround: about\nabout: round\nwide: " +
                          ", ".join("w%d@far.example" % i for i in range(999)) + "\n",
                          "shop.example anything\nin@shop.example a@far.example\n")
        relay.start()
        with relay.raw() as c:
            c.ask(b"EHLO c.example")
            c.ask(b"MAIL FROM:<s@test.example>")
            self.assertEqual(c.ask(b"RCPT TO:<known@lists.example>")[0], 250)
            self.assertEqual(c.ask(b"RCPT TO:<in@shop.example>")[0], 250)
            self.assertEqual(c.ask(b"RCPT TO:<out@shop.example>"), (550, "5.1.1 <out@shop.example>: User unknown"))
            self.assertEqual(c.ask(b"RCPT TO:<round@lists.example>"), (451, "4.6.0 Alias expansion error, try again later"))
            self.assertEqual(c.ask(b"RCPT TO:<wide@lists.example>")[0], 250)
            self.assertEqual(c.ask(b"RCPT TO:<one@more.example>"), (452, "4.5.3 Error: too many recipients"))
            self.assertEqual(c.ask(b"RSET")[0], 250)
        self.assertIn("alias expansion of <round@lists.example> refused: it goes in a circle", relay.log())

    def test_a_bad_table_is_refused_and_the_old_one_stays(self):
        relay = self.open("who: a@far.example\n")
        self.write("aliases", "who: a@far.example\npipe: \"|/bin/vacation\"\n")
        done = harness.subprocess.run([harness.BIN + "/ironspoold", "-n", "-c", relay.config], capture_output=True, text=True,
                                      check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("%s/aliases:2: mail is not piped into a command" % relay.dir, done.stderr)
        self.write("aliases", "who: a@far.example\n")
        relay.start()
        self.write("aliases", "who: b@far.example\nbox: /var/mail/box\n")
        os.kill(relay.process.pid, signal.SIGHUP)
        wait_for("the refusal in the log", lambda: "reload refused, the old configuration stays: %s/aliases:2: " % relay.dir
                 in relay.log())
        relay.send("s@test.example", "who@lists.example", message("old"))
        wait_for("mail by the old table", lambda: relay.delivered("a@far.example"))
        self.write("aliases", "who: b@far.example\n")
        before = relay.pid("relay")
        os.kill(relay.process.pid, signal.SIGHUP)
        wait_for("a new relay process", lambda: relay.pid("relay") not in (None, before))
        relay.wait_ready()
        relay.send("s@test.example", "who@lists.example", message("new"))
        wait_for("mail by the new table", lambda: relay.delivered("b@far.example"))
        self.assertEqual(len(relay.delivered("a@far.example")), 1)

    def test_a_kill_loses_no_member_of_a_list(self):
        members = ["m%d@far.example" % i for i in range(120)]
        relay = self.open("list: " + ", ".join(members) + "\nowner-list: boss@far.example\n")
        relay.start()
        sent = {}
        for i in range(12):
            sent["list-%d" % i] = message("list-%d" % i, size=3000)
            relay.send("s@test.example", "list@lists.example", sent["list-%d" % i])
            if i % 4 == 1:
                relay.kill(("spool", "relay", "supervisor")[i // 4])
                relay.wait_ready()
        wait_for("an empty queue", relay.drained)
        for m in members:
            self.assertEqual({subject_of(t): body_of(t) for t in relay.delivered(m)}, {s: body_of(t) for s, t in sent.items()})


if __name__ == "__main__":
    harness.main()
