#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is installed is whole: programs, unit, user, sample and manual agree with each other."""
import os, re, subprocess, tempfile, unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.dirname(os.environ.get("IRONSPOOL_BIN", f"{TOP}/build/dev/bin"))


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, **options)


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix="ironspool-install-")
        cls.root = cls.directory.name
        run("cmake", "--install", BUILD, "--prefix", "/usr", check=True, env={**os.environ, "DESTDIR": cls.root})

    @classmethod
    def tearDownClass(cls):
        cls.directory.cleanup()

    def text(self, path):
        with open(self.root + path) as f:
            return f.read()

    def test_what_the_unit_starts_is_there(self):
        unit = self.text("/usr/lib/systemd/system/ironspool.service")
        programs = re.findall(r"^Exec\w+=(/usr\S+)", unit, re.M)
        self.assertTrue(programs)
        for program in programs:
            self.assertTrue(os.access(self.root + program, os.X_OK), program)
        self.assertIn("/etc/ironspool/ironspool.conf", unit)

    def test_the_relays_user_is_the_default_of_the_configuration(self):
        self.assertRegex(self.text("/usr/lib/sysusers.d/ironspool.conf"), r"(?m)^u ironspool ")

    def test_the_sample_is_a_configuration_and_its_missing_disks_are_named(self):
        sample = self.root + "/etc/ironspool/ironspool.conf"
        good = run(self.root + "/usr/sbin/ironspoold", "-n", "-c", sample)
        self.assertEqual(good.returncode, 0, good.stderr)
        made = run(self.root + "/usr/sbin/spooltool", "-c", sample, "pool", "create", "--dry-run")
        self.assertNotEqual(made.returncode, 0)
        self.assertIn("/dev/disk/by-id/ata-EXAMPLE1", made.stdout + made.stderr)

    def test_every_document_that_is_named_is_there(self):
        self.assertIn("/usr/share/doc/ironspool/CONFIG.md", self.text("/etc/ironspool/ironspool.conf"))
        for name in ("CONFIG.md", "METRICS.md", "runbooks/README.md", "prometheus/ironspool.rules.yml", "LICENSE"):
            self.assertTrue(os.path.exists(f"{self.root}/usr/share/doc/ironspool/{name}"), name)
        for name in ("ironspoold", "spooltool", "ironspool-corrupt"):
            self.assertTrue(os.path.exists(f"{self.root}/usr/share/man/man8/{name}.8"), name)

    def test_the_scripts_of_the_package_can_be_read(self):
        for name in ("postinst", "prerm"):
            self.assertEqual(run("sh", "-n", f"{TOP}/packaging/debian/{name}").returncode, 0, name)
        completion = self.root + "/usr/share/bash-completion/completions/spooltool"
        self.assertEqual(run("bash", "-n", completion).returncode, 0)


if __name__ == "__main__":
    unittest.main()
