#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Writes the seed corpora: DIRECTORY/<name>/<what>. Seeds are made, not kept: a change of a format changes this file.
# Inputs that once brought a program down are kept, in tests/fuzz/corpus/<name>/.
import os
import struct
import sys


def put(name, what, data):
    if isinstance(data, str):
        data = data.encode("utf-8")
    os.makedirs(os.path.join(sys.argv[1], name), exist_ok=True)
    with open(os.path.join(sys.argv[1], name, what), "wb") as f:
        f.write(data)


def smtp_in():
    hello = "EHLO c.test\r\n"
    mail = hello + "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
    sessions = {
        "message": mail + "DATA\r\nSubject: x\r\nMessage-ID: <1@b>\r\n\r\nhello\r\n..dot\r\n.\r\nQUIT\r\n",
        "two": mail + "DATA\r\nA: b\r\n\r\nx\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<e@f>\r\nDATA\r\n\r\ny\r\n.\r\nQUIT\r\n",
        "pipelined": hello + "MAIL FROM:<> SIZE=7\r\nRCPT TO:<d@d>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@d>\r\nDATA\r\n.\r\n",
        "bdat": mail + "BDAT 5\r\na: b\nBDAT 4 LAST\r\n\r\nx\nRSET\r\n",
        "bdat_crlf": mail + "BDAT 6\r\na: b\r\nBDAT 5 LAST\r\n\r\nx\r\nNOOP\r\n",
        "tls": hello + "STARTTLS\r\n" + mail + "DATA\r\n\r\n.\r\n",
        "utf8": hello + "MAIL FROM:<\u00fc@b.test> SMTPUTF8 BODY=8BITMIME\r\nRCPT TO:<\"a b\"@[127.0.0.1]>\r\nRSET\r\n",
        "smuggle": mail + "DATA\r\nx\r\n\n.\r\nMAIL FROM:<evil@b>\r\n",
        "bare_cr": mail + "DATA\r\nx\r.\r\n.\r\n",
        "too_long": mail + "DATA\r\n" + "x" * 400 + "\r\n.\r\n",
        "verbs": "HELO x\r\nHELP\r\nVRFY a\r\nEXPN a\r\nNOOP x\r\nTURN\r\nDATA\r\nRCPT TO:<a@b>\r\nMAIL FROM:a\r\n",
        "long_line": "EHLO " + "a" * 3000 + "\r\nNOOP\r\n",
        "hops": mail + "DATA\r\nReceived: a\r\nReceived: b\r\n\r\n.\r\n",
    }
    for what, text in sessions.items():
        put("smtp_in", what, b"\x06\x00" + text.encode("utf-8"))
        put("smtp_in", what + "_slow", b"\x00\x03" + text.encode("utf-8"))


def smtp_out():
    hello = "220 h ready\r\n250-h\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 5000\r\n"
    one = "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 go\r\n250 2.0.0 queued\r\n"
    peers = {
        "delivered": (0, hello + one + one),
        "two_refused": (0, hello + one + "250 Ok\r\n550-5.1.1 no\r\n550 5.1.1 such user\r\n452 4.2.2 full\r\n354 go\r\n"),
        "no_pipelining": (0, "220 h\r\n250 h\r\n" + one + one),
        "helo": (0, "220 h\r\n502 no\r\n250 h\r\n" + one),
        "lmtp": (4, hello + one + "250 Ok\r\n250 Ok\r\n250 Ok\r\n354 go\r\n250 yes\r\n450 4.2.0 later\r\n"),
        "tls_may": (1, "220 h\r\n250-h\r\n250 STARTTLS\r\n220 go\r\n" + hello[13:] + one),
        "tls_refused": (2, "220 h\r\n250 h\r\n"),
        "busy": (0, "421 4.3.2 closing\r\n"),
        "closing": (0, hello + "250 Ok\r\n421 4.4.2 bye\r\n"),
        "nonsense": (0, "220 h\r\n999 what\r\nHTTP/1.1 200 OK\r\n"),
        "size": (0, "220 h\r\n250-h\r\n250 SIZE 3\r\n221 bye\r\n"),
        "mail_refused": (0, hello + "550 5.7.1 no\r\n503 5.5.1 no\r\n503 5.5.1 no\r\n250 reset\r\n" + one),
        "data_refused": (0, hello + "250 Ok\r\n250 Ok\r\n451 4.3.0 later\r\n250 reset\r\n"),
        "all_refused_354": (0, hello + "250 Ok\r\n550 no\r\n354 go\r\n554 no valid recipients\r\n"),
    }
    for what, (options, text) in peers.items():
        put("smtp_out", what, struct.pack("<HB", options | 7 << 8, 4) + text.encode("ascii"))


def route():
    tables = {
        "plain": "smtp:[h.test]:25\n# comment\nexample.test smtp:[10.0.0.1]:2525\n.example.test lmtp:unix:/run/x\n"
                 "user@example.test maildir:/srv/mail\n* error:5.1.1 no such domain\n",
        "continued": "lmtp:[::1]:24\na.test\n   smtp:relay.test\n\n# x\nb.test\thold\nc.test discard:\n",
        "extension": "hold\na+x@b.test error:4.7.1 later\na@b.test discard\n",
        "bad": "nonsense:x\nexample.test nonsense:[\n",
        "bad_port": "smtp:[h]:99999\nexample.test smtp:[h]:0\n",
        "no_value": "smtp:\nexample.test\n",
        "first_continued": "maildir:\n  example.test smtp\n",
        "utf8": "smtp\nb\u00fccher.test smtp:[x]\n",
    }
    for what, text in tables.items():
        put("route", what, text)


def alias():
    tables = {
        "plain": ("list: a@b.test, c@d.test\nowner-list: x@b.test\n", "a@v.test list@h.test\n@v.test @h.test\n", ""),
        "continued": ("# c\nlist:\n  a@b.test,\n# between\n\tc\n\"a b\": list\n", "", ""),
        "included": ("list: :include:/proc/self/fd/100, z\n", "", "# subscribers\na@b.test\nName <c@d.test>, e\n"),
        "included_bad": ("list: :include:/proc/self/fd/100\n", "", "|cmd\n"),
        "included_nested": ("list: :include:/proc/self/fd/100\n", "", ":include:/proc/self/fd/100\n"),
        "circle": ("list: b\nb: c, list\nc: list\n", "a@v.test b@v.test\nb@v.test a@v.test\n", ""),
        "itself": ("list: list, \\b, b\nb: c@d.test\n", "a@v.test a@v.test\n", ""),
        "domains": ("", "v.test anything\na@v.test b@w.test\n@w.test @v.test\nlist q@r.test\n", ""),
        "command": ("list: \"|cmd a b\"\n", "", ""),
        "file": ("list: /var/mail/x\n", "", ""),
        "long": ("list: " + "a" * 400 + "@b.test\n", "", ""),
        "many": ("list: " + ", ".join("u%d@b.test" % i for i in range(300)) + "\n", "", ""),
        "odd": ("list: (a(b)c) <a@b.test>, \"q\\\"\"@b.test,, (\n", "@ x\n", ""),
        "utf8": ("list: \u00fc@b.test\n\u00fc: a\n", "", ""),
    }
    for what, parts in tables.items():
        put("alias", what, "\0".join(parts))


def config():
    members = "".join(f'    member "{n}" {{ path = "/srv/{n}.member" failure_domain = "{n}" }}\n' for n in "abc")
    files = {
        "whole": 'hostname = "mx.example.test"\nstate_directory = "/var/lib/x"\ncontrol_socket = "/run/x.sock"\n'
                 'pool {\n    copies = 2\n    min_copies = 1\n    io_engine = "threads"\n    scrub_interval = "24h"\n'
                 '    degrade_after = "2s"\n    absent_wait = "10m"\n' + members + '}\n'
                 'listen "mx" { address = "127.0.0.1" port = 2525 }\nhttp { address = "127.0.0.1" port = 8025 }\n'
                 'mynetworks = { "127.0.0.0/8", "[::1]/128" }\nrelay_domains = { "lists.example.test" }\n'
                 'relayhost = "[127.0.0.1]:2526"\ndefault_transport = "smtp"\nfault_injection = no\n',
        "small": 'pool {\n' + members + '}\n',
        "unknown_key": 'hostnme = "x"\npool {\n' + members + '}\n',
        "bad_time": 'pool {\n    degrade_after = "2x"\n' + members + '}\n',
        "bad_network": 'mynetworks = { "127.0.0.0/99" }\npool {\n' + members + '}\n',
        "same_name": 'pool {\n    member "a" { path = "/a" }\n    member "a" { path = "/b" }\n}\n',
        "open_brace": 'pool {\n    member "a" {\n',
        "environment": 'hostname = "${HOME}"\npool {\n' + members + '}\n# comment\n// another\n/* third */\n',
        "empty": "",
        "aliases": 'mydestination = { "h.test", ".h.test" }\nalias_maps = { "/dev/null" }\n'
                   'virtual_alias_maps = { "hash:/dev/null", "/nonexistent" }\npool {\n' + members + '}\n',
    }
    for what, text in files.items():
        put("config", what, text)


def envelope():
    def encode(sender, client, helo, recipients, flags=0, origins=()):
        rows = b"".join(struct.pack("<H", len(r)) + r for r in recipients)
        tail = b"".join(struct.pack("<HHHH", f, n, len(a), len(s)) + a + s for f, n, a, s in origins)
        return (struct.pack("<IIQQIIHHHH", 2 if origins else 1, flags, 1700000000000, 1234, len(recipients), len(rows), len(sender),
                            len(client), len(helo), len(origins)) + sender + client + helo + rows + tail)

    def mark(recipient, status, until, reason):
        return struct.pack("<IHHQ", recipient, status, len(reason), until) + reason

    put("envelope", "one", b"\0" + encode(b"a@b.test", b"h[127.0.0.1]", b"h", [b"c@d.test"]))
    put("envelope", "many", b"\0" + encode(b"", b"", b"", [b"r%d@d.test" % i for i in range(20)], 3))
    put("envelope", "none", b"\0" + encode(b"", b"x", b"y", []))
    put("envelope", "long", b"\0" + encode(b"a" * 320, b"x", b"y", [b"b" * 320]))
    put("envelope", "origins", b"\0" + encode(b"a@b.test", b"x", b"y", [b"c@d.test", b"e@d.test", b"f@d.test"], 0,
                                               [(0, 2, b"l@d.test", b"owner-l@d.test"), (2, 1, b"g@d.test", b"")]))
    put("envelope", "marks", b"\1" + mark(0, 1, 0, b"") + mark(7, 2, 1700000000000, b"450 4.2.0 later") + mark(999, 4, 0, b"x"))
    put("envelope", "no_marks", b"\1")


def wire():
    put("wire", "nothing", b"\1")
    for side in (0, 1):
        for kind in range(1, 30):
            for size in (0, 8, 24, 40, 72, 80):
                put("wire", f"head_{side}_{kind}_{size}", bytes([side]) + struct.pack("<IBBH", size, kind, 0, 0) + bytes(size))


def patch(offset, what, data):
    return struct.pack("<HBB", offset, len(data), what) + data


def superblock():
    for image in (0, 1):
        kind = "image" if image else "superblock"
        put("superblock", kind + "_good", bytes([image]))
        put("superblock", kind + "_rot", bytes([image]) + patch(40, 1, b"\1"))
        put("superblock", kind + "_raw", bytes([image | 4]) + b"IRONSPL1" * 8)
        for offset in range(8 if image else 24, 160, 4):
            put("superblock", f"{kind}_forged_{offset}", bytes([image | 2]) + patch(offset, 0, b"\xff\xff\xff\xff"))
    for member in range(3):
        put("superblock", f"superblock_member_{member}", b"\2" + patch(200 + 192 * member, 1, bytes(range(1, 200))))


def frame():
    put("frame", "good", b"\0")
    put("frame", "rot", b"\0" + patch(5000, 1, b"\1"))
    for offset in range(16, 128, 4):
        put("frame", f"head_{offset}", b"\2" + patch(offset, 0, b"\xff\xff\xff\x7f"))
        put("frame", f"head_small_{offset}", b"\2" + patch(offset, 0, b"\1\0\0\0"))
    for offset in range(128 + 16, 128 + 80, 4):
        put("frame", f"record_{offset}", b"\7" + patch(offset, 0, b"\xff\xff\0\0"))
        put("frame", f"record_short_{offset}", b"\3" + patch(offset, 0, b"\0\0\0\0"))
    head = struct.pack("<QQIBBHII", 0, 0, 0x44524352, 1, 0, 0, 96, 8) + bytes(80 - 32 - 8)
    put("frame", "raw_record", b"\x08" + head + bytes(16))


def recovery():
    def damage(what, block, offset, data):
        return struct.pack("<BHHH", what, block, offset, len(data)) + data

    for member in range(3):
        put("recovery", f"whole_{member}", bytes([member]))
        put("recovery", f"rot_{member}", bytes([member | 8]) + b"".join(damage(0, b, b * 7, b"\x40") for b in range(0, 160, 3)))
        put("recovery", f"superblocks_{member}", bytes([member]) + b"".join(damage(2, b, 0, b"") for b in (0, 1, 2, 3)))
        put("recovery", f"scattered_{member}", bytes([member]) + b"".join(damage(4, b, 100, b"") for b in range(0, 600, 11)))
        put("recovery", f"misdirected_{member}", bytes([member]) + b"".join(damage(3, b, b + 1, b"") for b in range(4, 60, 3)))
        put("recovery", f"read_only_{member}", bytes([member | 4]) + b"".join(damage(1, b, 0, b"\0" * 64) for b in range(4, 200, 9)))
        for offset in (24, 28, 72, 76, 80, 96, 104, 136):
            put("recovery", f"forged_{member}_{offset}", bytes([member | 16 | 8]) + damage(1, 0, offset, b"\xff\xff\xff\x7f"))
    for member in range(3):
        put("recovery", f"indexed_{member}", bytes([member | 64 | 8]) + b"".join(damage(0, b, b * 7, b"\x40") for b in range(4, 160, 4)))
        put("recovery", f"indexed_forged_{member}", bytes([member | 64 | 16]) + damage(0, 5, 40, b"\1") + damage(2, 30, 0, b""))
    put("recovery", "unmounted", bytes([1 | 32 | 8]) + damage(0, 9, 9, b"\1"))


def admin():
    requests = {
        "status": '{"command": "status"}',
        "events": '{"command": "events", "count": 100, "follow": false}',
        "list": '{"command": "queue-list", "selector": {"all": true, "queue": "deferred", "older_than_seconds": 1e3}}',
        "ids": '{"command": "queue-hold", "selector": {"ids": ["0000000000000A0000001", 7, null, "x"]}, "dry_run": true}',
        "sender": '{"command": "queue-delete", "selector": {"sender": "", "domain": "b.test"}}',
        "odd": '{"command": 7, "selector": [1], "count": -1, "name": {"a": {"b": {"c": {"d": "e"}}}}, "id": 1e999}',
        "twice": '{"command": "a", "command": "b"}',
        "array": '[1, 2]',
        "deep": '{"a":' + "[" * 200 + "]" * 200 + "}",
        "escapes": '{"command": "\\u0000\\ud83d\\ude00", "name": "\\ud800"}',
        "fault": '{"command": "fault-add", "kind": "slow", "member": "a", "rate": 0.5, "factor": 100, "for_seconds": 60}',
        "cut": '{"command": "sta',
    }
    for what, text in requests.items():
        put("admin", what, text)


def smart():
    ata = ('{"json_format_version":[1,0],"smartctl":{"version":[7,3],"exit_status":%d,"messages":[{"string":"m","severity":"error"}]},'
           '"device":{"name":"/dev/sda","type":"sat","protocol":"ATA"},"model_name":"EXAMPLE","serial_number":"S1",'
           '"smart_status":{"passed":%s},"ata_smart_attributes":{"revision":1,"table":[{"id":5,"name":"Reallocated_Sector_Ct",'
           '"value":100,"raw":{"value":%d,"string":"0"}},{"id":197,"raw":{"value":%d}},{"id":198,"raw":{"value":0}},'
           '{"id":187,"raw":{"value":1e3}}]},"temperature":{"current":31},"power_on_time":{"hours":20000}}')
    put("smart", "ata_good", ata % (0, "true", 0, 0))
    put("smart", "ata_worn", ata % (64, "true", 8, 3))
    put("smart", "ata_failing", ata % (24, "false", 2000, 12))
    put("smart", "nvme", '{"smartctl":{"exit_status":8},"model_name":"N","smart_status":{"passed":false},'
        '"nvme_smart_health_information_log":{"critical_warning":5,"percentage_used":101,"media_errors":2,"temperature":40}}')
    put("smart", "scsi", '{"smartctl":{"exit_status":0},"scsi_model_name":"S","smart_status":{"passed":true},"scsi_grown_defect_list":4,'
        '"scsi_error_counter_log":{"read":{"total_uncorrected_errors":1},"write":{"total_uncorrected_errors":0}}}')
    put("smart", "standby", '{"smartctl":{"exit_status":0,"messages":[{"string":"Device is in STANDBY mode","severity":"info"}]}}')
    put("smart", "not_open", '{"smartctl":{"exit_status":2,"messages":[{"string":"Smartctl open device: /dev/x failed"}]}}')
    put("smart", "odd", '{"smartctl":[],"smart_status":7,"ata_smart_attributes":{"table":{"0":{}}},"model_name":null}')
    put("smart", "none", "")


def alarm():
    for i, url in enumerate(("http://a/", "https://a.example:8443/x?y=%20", "http://[::1]:80", "https://u:p@a/", "ftp://a/", "http://a:0/",
                             "http://:80/", "http://a#f", "https://" + "a" * 300 + "/")):
        put("alarm", f"url_{i}", b"\0" + url.encode())
    for i, text in enumerate(("HTTP/1.1 200 OK\r\n", "HTTP/1.0 404\r\n\r\n", "HTTP/1.1 99 x\r\n", "HTTP/2 200\r\n", "220 smtp\r\n",
                              "HTTP/1.1")):
        put("alarm", f"answer_{i}", b"\1" + text.encode())
    put("alarm", "state", b'\2{"state":{"mounted":true,"pool":"u","state":"at-risk","action":"a","refusing":"full","relay_connected":true,'
        b'"rebuild_behind":true,"messages":9,"below_copies":3,"refused":2,"late_seconds":7.5,"members":[{"name":"a","path":"/a",'
        b'"serial":"s","state":"suspect","evidence":"e"},{"name":"b","state":"absent"}]}}')
    put("alarm", "event", b'\2{"number":1,"time":"2026-11-24T22:13:59.123Z","event":"frame_corrupt","severity":"warning","member":"a",'
        b'"serial":"","text":"t","evidence":"e"}')
    put("alarm", "odd", b'\2{"state":{"members":[1,null,{"name":7}],"late_seconds":1e999},"event":"nonsense"}')


if len(sys.argv) != 2:
    sys.exit("usage: make_corpus.py DIRECTORY")
for make in (smtp_in, smtp_out, route, alias, config, envelope, wire, superblock, frame, recovery, admin, smart, alarm):
    make()
