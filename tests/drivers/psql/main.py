"""psql: scripts from its standard input; what it prints and its exit code are the values."""

import os
import re
import signal
import subprocess
import tempfile
import time

from behaviours import *


def command(**options):
    given = {"host": HOST, "port": PORT, "dbname": DATABASE, "user": USER, "password": PASSWORD, "sslmode": "disable",
             "connect_timeout": 10}
    quoted = {name: str(value).replace("\\", "\\\\").replace("'", "\\'") for name, value in {**given, **options}.items()}
    words = " ".join(f"{name}='{value}'" for name, value in quoted.items())
    return ["psql", "-X", "-A", "-q", "-w", "-P", "pager=off", "-v", "VERBOSITY=verbose", words]


def run(script, arguments=(), **options):
    environment = {**os.environ, "PSQL_HISTORY": "/dev/null"}
    done = subprocess.run(command(**options) + list(arguments), input=script.encode(), capture_output=True, timeout=60,
                          env=environment)
    # Only the length of what is large, and no process ids.
    shown = [stream.decode(errors="backslashreplace") for stream in (done.stdout, done.stderr)]
    shown = [re.sub(r"(server process with PID) \d+", r"\1 N", stream) for stream in shown]
    shown = [re.sub(r"port \d+", "port N", stream) for stream in shown]
    return [done.returncode] + [stream if len(stream) < 4000 else digest(stream) for stream in shown]


def refusal(done):
    code, output, complaint = done
    first = complaint.splitlines()[0] if complaint else ""
    return {"code": code, "output": output, "sqlstate": first.split(":")[1].strip() if first.count(":") > 1 else first,
            "by_guard": "refused by guard" in complaint, "hint": "HINT:" in complaint, "errors": complaint.count("ERROR:")}


unsupported("psql has no means for it", "pipeline", "large_parameter")


@behaviour
def connects():
    return [run("SELECT current_user;\n\\encoding\n\\echo :SERVER_VERSION_NAME :USER :DBNAME\n"), run("", ["-l", "-t"])[0],
            run("\\c - - - -\nSELECT 'again';\n\\conninfo")[0]]


@behaviour
def scram():
    return [run("SELECT 1"), run("", password="wrong"), run("", password=""), run("SELECT 2", require_auth="scram-sha-256")]


@behaviour
def md5():
    return [run("SELECT current_user", user=MD5_USER), run("", user=MD5_USER, password="wrong")]


@behaviour
def tls():
    needs_tls()
    return run("SELECT current_user", host="localhost", sslmode="verify-full", sslrootcert=CA, channel_binding="disable")


@behaviour
def scram_plus():
    needs_tls()
    return run("SELECT current_user", host="localhost", sslmode="verify-full", sslrootcert=CA, channel_binding="require")


@behaviour
def simple():
    return [run("SELECT 1, NULL, '', 1.50, true, ARRAY[1,2], '\\xdead'::bytea;\n;\nSELECT id FROM items WHERE false;\n"),
            run("\\d items\n\\dt\n\\du\n\\dn\n\\df pg_catalog.lo_*\n\\d+ items\n\\sf lo_get(oid)"),
            run("\\timing off\n\\pset format wrapped\nTABLE items LIMIT 3;\n\\gdesc\nSELECT 1 AS a, 'x' AS b \\gdesc\n"),
            run("SELECT 1 AS col \\gset\n\\echo :col\n")]


@behaviour
def extended():
    described = run("SELECT 1 AS a, now() AS b, NULL::numeric(5, 2) AS c \\gdesc\nSELECT nothing \\gdesc\nSELECT 'after';\n")
    version = int(re.search(r"\d+", subprocess.run(["psql", "--version"], capture_output=True, text=True).stdout)[0])
    # The first psql with \\bind is that of 16.
    return [described, run("SELECT $1::int + $2::int \\bind 1 2 \\g\n") if version >= 16 else None]


@behaviour
def binary():
    raise Unsupported("psql asks for text; its binary COPY is under copy_binary")


@behaviour
def prepared():
    return run("PREPARE p (int) AS SELECT name FROM items WHERE id = $1;\nEXECUTE p (2);\nEXECUTE p (3);\nDEALLOCATE p;\n"
               "EXECUTE p (4);\nPREPARE q AS SELECT 1;\nDISCARD ALL;\nEXECUTE q;\n")


@behaviour
def cursor():
    return [run("BEGIN;\nDECLARE c SCROLL CURSOR FOR SELECT id FROM items ORDER BY id;\nFETCH 3 FROM c;\nMOVE 10 IN c;\n"
                "FETCH BACKWARD 2 FROM c;\nCLOSE c;\nCOMMIT;\n"),
            run("\\set FETCH_COUNT 7\nSELECT id FROM items ORDER BY id;\nSELECT 1 / (500 - id) FROM items ORDER BY id;\n")]


@behaviour
def copy_in():
    rows = "".join(f"{n}\trow {n}\n" for n in range(10_000))
    start = "CREATE TEMP TABLE copied (id int, name text);\n"
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        file.write("".join(f"{n},\"row, {n}\"\n" for n in range(20_000)))
        file.flush()
        from_file = run(f"{start}\\copy copied FROM '{file.name}' (FORMAT csv)\nSELECT count(*) FROM copied;\n")
    return [run(f"{start}COPY copied FROM STDIN;\n{rows}\\.\nSELECT count(*), md5(string_agg(name, '')) FROM copied;\n"), from_file]


@behaviour
def copy_out():
    return [run("COPY (SELECT n, repeat('x', n % 100) FROM generate_series(1, 50000) n) TO STDOUT;\nSELECT 'after';\n"),
            run("\\copy items TO STDOUT (FORMAT csv, HEADER)\n"), run("COPY items (id) TO STDOUT \\; SELECT 'and more';\n")]


@behaviour
def copy_binary():
    with tempfile.NamedTemporaryFile() as file:
        out = run(f"\\copy items TO '{file.name}' (FORMAT binary)\n")
        back = run(f"CREATE TEMP TABLE copied (LIKE items);\n\\copy copied FROM '{file.name}' (FORMAT binary)\n"
                   "SELECT count(*), md5(string_agg(name, '' ORDER BY id)) FROM copied;\n")
        return [out, digest(file.read()), back]


@behaviour
def copy_failed():
    start = "CREATE TEMP TABLE copied (id int);\n"
    wrong = start + "COPY copied FROM STDIN;\n1\nx\n" + "3\n" * 50_000 + "\\.\nSELECT count(*) FROM copied;\n"
    return [run(wrong), run(start + "COPY nowhere FROM STDIN;\nSELECT 'after';\n"),
            run("COPY (SELECT 1 / (5 - n) FROM generate_series(1, 10) n) TO STDOUT;\nSELECT 'after';\n")]


@behaviour
def cancel():
    with subprocess.Popen(command() + ["-c", "SELECT pg_sleep(30)"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as psql:
        asleep = f"SELECT count(*) > 0 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)' AND usename = '{USER}'"
        eventually(lambda: "t\n" in run(asleep, ["-t"])[1], "the statement running")
        time.sleep(0.3)
        psql.send_signal(signal.SIGINT)
        output, complaint = psql.communicate(timeout=10)
    return [psql.returncode, output.decode(), complaint.decode()]


@behaviour
def large_objects():
    with tempfile.NamedTemporaryFile() as file, tempfile.NamedTemporaryFile() as copy:
        file.write(bytes(range(256)) * 2_000)
        file.flush()
        done = run(f"\\lo_import '{file.name}' 'a comment'\n\\lo_export :LASTOID '{copy.name}'\n"
                   "SELECT length(lo_get(:LASTOID));\n\\lo_unlink :LASTOID\n\\lo_unlink 1\n")
        return [done[0], re.sub(r"\d{5,}", lambda found: found[0] if found[0] == "512000" else "N", done[1]), done[2],
                copy.read() == bytes(range(256)) * 2_000]


@behaviour
def notify():
    return re.sub(r"PID \d+", "PID N", run(f"LISTEN c_{TAG};\nNOTIFY c_{TAG}, 'payload';\nSELECT 1;\nUNLISTEN *;\n")[1]).replace(TAG, "")


@behaviour
def notices():
    return run("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING DETAIL = 'd', HINT = 'h', ERRCODE = '01234'; END $$;\n"
               "CREATE TEMP TABLE t (a int);\nCREATE TEMP TABLE IF NOT EXISTS t (a int);\n")


@behaviour
def errors():
    return run("SELECT * FROM nothing;\nSELECT 1 +;\nSELECT nonsense(1);\nSELECT 1 / 0;\nSELECT 'x'::int;\n"
               "INSERT INTO items VALUES (1, 'twice');\n\\errverbose\nSELECT name FROM items GROUP BY id HAVING nothing;\n"
               "SELECT 'after all';\n")


@behaviour
def transactions():
    return [run("BEGIN;\nSAVEPOINT s;\nSELECT 1 / 0;\nROLLBACK TO s;\nSELECT 'alive';\nCOMMIT;\nCOMMIT;\n"),
            run("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;\nSHOW transaction_isolation;\nINSERT INTO items VALUES (0, '');\nEND;\n"),
            run("\\set ON_ERROR_ROLLBACK on\nBEGIN;\nSELECT 1 / 0;\nSELECT 'alive';\nCOMMIT;\n"),
            run("\\set AUTOCOMMIT off\nSELECT 1;\n\\echo :SQLSTATE\nCOMMIT;\n")]


@behaviour
def aborted():
    return run("BEGIN;\nSELECT 1 / 0;\nSELECT 1;\nCOMMIT;\nSELECT 'after';\n")


@behaviour
def multi():
    return [run("SELECT 1 \\; SELECT 2 \\; SELECT 3;\nSELECT 4 \\; SELECT 1 / 0 \\; SELECT 5;\n"),
            run("", ["-c", "SELECT 1; SELECT 2", "-c", "SELECT 3; SELECT 1 / 0; SELECT 4"]),
            run("BEGIN \\; SELECT 1 \\; COMMIT \\; SELECT 2;\n")]


@behaviour
def large_result():
    return [run("SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 12000) n;\n"), run("SELECT repeat('0123456789', 1500000);\n")]


@behaviour
def timeout():
    return run("SET statement_timeout = 200;\nSELECT pg_sleep(10);\nSELECT 'after';\n")


@behaviour
def terminated():
    return run("SELECT pg_terminate_backend(pg_backend_pid());\nSELECT 'not run';\n")


@behaviour
def unicode():
    return run("SELECT '\u00fc\u00df \u65e5\u672c\u8a9e \U0001F980' AS \"c\u00f6l \U0001F980\", length('\U0001F980'), U&'\\+01F980';\n")


@behaviour
def encoding():
    return [run("SELECT 'stra\u00dfe', length('stra\u00dfe');\n", client_encoding="LATIN1"),
            run("\\encoding SQL_ASCII\nSELECT '\u00fc';\n\\encoding SJIS\nSELECT 'x';\nSELECT U&'\\20AC';\n"),
            run("\\encoding nonsense\nSELECT 1;\n")]


@behaviour
def settings():
    return [run("SHOW search_path;\nSHOW DateStyle;\nSHOW application_name;\n", application_name="what is set",
                options="-c search_path=pg_catalog -c datestyle=German"),
            run("SELECT 1", options="-c nonsense=1"), run("SELECT 1", dbname="nowhere"),
            run("SET ROLE nobody_here;\nSET TimeZone = 'Asia/Tokyo';\nSHOW TimeZone;\nRESET ALL;\nSHOW TimeZone;\n")]


@behaviour
def many():
    running = [subprocess.Popen(command() + ["-t", "-c", f"SELECT {n} * {n}"], stdout=subprocess.PIPE) for n in range(16)]
    return [psql.communicate(timeout=60)[0].decode().strip() for psql in running]


@behaviour
def refused():
    return [refusal(run("DROP TABLE guarded;\nSELECT 'usable';\n")),
            # guard refuses the string as a whole: not even its first statement runs, which the server would roll back.
            refusal(run("SELECT 1 \\; DROP TABLE guarded \\; SELECT 2 \\g /dev/null\nSELECT 'usable';\n")),
            refusal(run("", ["-c", "DROP TABLE guarded", "-c", "SELECT 'usable'"]))]


@behaviour
def refused_extended():
    return refusal(run("PREPARE d AS SELECT 1;\nDROP TABLE guarded;\nEXECUTE d;\n"))


@behaviour
def refused_open():
    return [refusal(run("BEGIN;\nDROP TABLE guarded;\nSELECT 1;\nCOMMIT;\nSELECT 'usable';\n")),
            refusal(run("BEGIN;\nSAVEPOINT s;\nDROP TABLE guarded;\nROLLBACK TO s;\nSELECT 'kept';\nCOMMIT;\n"))]


unsupported("psql has no means for it", "refused_pipeline")


@behaviour
def masked():
    done = run("\n".join(f"{statement};" for statement in PEOPLE) + "\n\\echo begin\nTABLE people;\nTABLE people \\gx\n")
    rows = done[1].split("begin\n")[1].splitlines()
    return [done[0], done[2], len(rows), rows[0], person([rows[1].split("|")])]


main()
