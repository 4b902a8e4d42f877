"""pgbench: its scripts in each protocol; how many transactions ended how is the value."""

import os
import re
import subprocess
import tempfile

from behaviours import *

unsupported("pgbench shows nothing of it", "simple", "binary", "cursor", "copy_in", "copy_out", "copy_binary", "copy_failed", "cancel",
            "large_objects", "notify", "notices", "unicode", "encoding", "large_result", "large_parameter", "terminated", "settings", "masked")


def pgbench(script, protocol="simple", clients=1, transactions=20, **options):
    given = {"host": HOST, "port": PORT, "dbname": DATABASE, "user": USER, "password": PASSWORD, "sslmode": "disable"}
    quoted = {name: str(value).replace("\\", "\\\\").replace("'", "\\'") for name, value in {**given, **options}.items()}
    words = " ".join(f"{name}='{value}'" for name, value in quoted.items())
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(["pgbench", "-n", "-f", file.name, "-M", protocol, "-c", str(clients), "-j", "2", "-t",
                               str(transactions), "-r", words], capture_output=True, timeout=60, text=True)
    processed = re.findall(r"transactions actually processed: (\S+)", done.stdout)
    failed = re.findall(r"number of failed transactions: (\S+)", done.stdout)
    said = re.findall(r"(?:ERROR|FATAL|client \d+ aborted): .*", done.stderr)
    return [done.returncode, processed, failed, [re.sub(r"port \d+|client \d+", "", line) for line in said][:5], len(said)]


def refusal(done):
    complaint = " ".join(done[3])
    return {"code": done[0], "processed": done[1], "by_guard": "refused by guard" in complaint,
            "hint": "refused by guard" in complaint, "aborted": "aborted" in complaint}


ORDINARY = """\\set id random(1, 1000)
BEGIN;
SELECT name FROM items WHERE id = :id;
UPDATE items SET name = name WHERE id = 0 - :id;
SELECT count(*) FROM items WHERE id < :id \\gset
END;
"""
PIPELINE = """\\startpipeline
SELECT 1;
SELECT name FROM items WHERE id = 5;
SELECT 2;
\\endpipeline
"""


@behaviour
def connects():
    return pgbench("SELECT 1;\n")


@behaviour
def scram():
    return [pgbench("SELECT 1;\n"), pgbench("SELECT 1;\n", password="wrong")]


@behaviour
def md5():
    return pgbench("SELECT 1;\n", user=MD5_USER)


@behaviour
def tls():
    needs_tls()
    return pgbench("SELECT 1;\n", host="localhost", sslmode="verify-full", sslrootcert=CA, channel_binding="disable")


@behaviour
def scram_plus():
    needs_tls()
    return pgbench("SELECT 1;\n", host="localhost", sslmode="verify-full", sslrootcert=CA, channel_binding="require")


@behaviour
def extended():
    return pgbench(ORDINARY, "extended", clients=4)


@behaviour
def prepared():
    return pgbench(ORDINARY, "prepared", clients=4)


@behaviour
def pipeline():
    return [pgbench(PIPELINE, protocol, clients=2) for protocol in ("extended", "prepared")]


@behaviour
def errors():
    return [pgbench("SELECT 1 / 0;\n", protocol) for protocol in ("simple", "extended", "prepared")]


@behaviour
def transactions():
    return pgbench(ORDINARY, "simple", clients=4)


@behaviour
def aborted():
    return pgbench("BEGIN;\nSELECT * FROM nothing;\nEND;\n")


@behaviour
def multi():
    return pgbench("SELECT 1 \\; SELECT 2 \\; SELECT 3 \\gset\n")


@behaviour
def timeout():
    return pgbench("SET statement_timeout = 200;\nSELECT pg_sleep(10);\n")


@behaviour
def many():
    return pgbench(ORDINARY, "prepared", clients=24, transactions=5)


@behaviour
def refused():
    return refusal(pgbench("SELECT 1;\nDROP TABLE guarded;\n"))


@behaviour
def refused_extended():
    return [refusal(pgbench("DROP TABLE guarded;\n", protocol)) for protocol in ("extended", "prepared")]


@behaviour
def refused_open():
    return refusal(pgbench("BEGIN;\nDROP TABLE guarded;\nEND;\n"))


@behaviour
def refused_pipeline():
    return refusal(pgbench("\\startpipeline\nSELECT 1;\nDROP TABLE guarded;\nSELECT 2;\n\\endpipeline\n", "extended"))


main()
