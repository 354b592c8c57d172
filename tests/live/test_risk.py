#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A degraded pool gets rid of the mail in danger first: of a backlog held up by a slow destination the messages with the fewest good
images leave first, though others came before them (docs/design/0030)."""
import json
import os
import socketserver
import threading
import unittest

import harness
from harness import message, wait_for


class SlowSink(socketserver.ThreadingTCPServer):
    """Takes mail, in an order it remembers, once it is let go; until then whoever connects waits for the greeting."""
    daemon_threads = allow_reuse_address = True

    def __init__(self):
        self.go, self.taken, self.waiting = threading.Event(), [], 0
        super().__init__(("127.0.0.1", 0), Session)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self):
        self.go.set()
        self.shutdown()
        self.server_close()


class Session(socketserver.StreamRequestHandler):
    def say(self, line):
        self.wfile.write(line + b"\r\n")

    def data(self):
        subject = None
        self.say(b"354 go on")
        for line in iter(self.rfile.readline, b".\r\n"):
            if line.startswith(b"Subject: ") and subject is None:
                subject = line[9:].strip().decode()
            if not line:
                return
        self.server.taken.append(subject)
        self.say(b"250 taken")

    def handle(self):
        self.server.waiting += 1
        self.server.go.wait()
        self.say(b"220 sink.test.example")
        for line in iter(self.rfile.readline, b""):
            verb = line[:4].upper()
            if verb == b"DATA":
                self.data()
            else:
                self.say({b"QUIT": b"221 bye"}.get(verb, b"250 fine"))
            if verb == b"QUIT":
                return


class Risk(unittest.TestCase):
    def restart(self, without, **changes):
        """Again, with that member's disk out, and no rebuild: what a message has it keeps."""
        relay = self.relay
        if relay.process:
            self.assertEqual(relay.stop(), 0)
        for path in relay.paths.values():
            if os.path.exists(path + ".out"):
                os.rename(path + ".out", path)
        os.rename(relay.paths[without], relay.paths[without] + ".out")
        relay.write_config(**changes)
        relay.start(wait=False)
        wait_for("the rebuild to pause", lambda: relay.tool("rebuild", "pause")[0] == 0)
        relay.wait_ready()

    def send(self, name, count):
        """So much that no compaction moves it: a segment that is half full."""
        client = self.relay.smtp()
        for i in range(count):
            self.relay.send("s@test.example", "r@out.example", message("%s-%d" % (name, i), size=30_000), client)
        client.quit()

    def listed(self):
        code, out, err = self.relay.tool("queue", "list", "--json")
        self.assertEqual(code, 0, err)
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]

    def test_mail_in_danger_leaves_before_mail_that_came_earlier(self):
        sink = SlowSink()
        self.addCleanup(sink.close)
        self.relay = relay = harness.Ironspool(transport="hold", extra="initial_destination_concurrency = 1\n"
                                                                       "default_destination_concurrency_limit = 1\n")
        self.addCleanup(relay.close)
        self.restart(without="c")
        self.send("safe", 15)    # on a and b
        self.restart(without="b")
        self.send("danger", 15)  # on a and c
        self.restart(without="c", transport="smtp:[127.0.0.1]:%d" % sink.server_address[1])
        wait_for("a complete index", lambda: relay.status()["queue"]["index_ready"] and relay.status()["queue"]["messages"] == 30)
        self.assertEqual(relay.status()["pool"]["messages_below_copies"], 15)
        self.assertEqual(relay.tool("queue", "release", "--all")[0], 0)
        wait_for("the first connection", lambda: sink.waiting > 0)
        wait_for("the relay to have all of them", lambda: sum(m["leased"] for m in self.listed()) == 30)
        self.assertEqual(relay.status()["pool"]["messages_below_copies"], 15)
        sink.go.set()
        wait_for("an empty queue", relay.drained)
        self.assertEqual(sorted(sink.taken), sorted("%s-%d" % (n, i) for n in ("safe", "danger") for i in range(15)))
        began = sink.taken[0]  # it was under way before the others were there
        self.assertEqual([s.split("-")[0] for s in sink.taken if s != began],
                         ["danger"] * (15 - began.startswith("danger")) + ["safe"] * (15 - began.startswith("safe")), sink.taken)


if __name__ == "__main__":
    harness.main()
