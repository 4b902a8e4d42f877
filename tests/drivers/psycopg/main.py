"""psycopg 3: the modern driver of Python, on libpq; also its asynchronous and its pipeline side."""

import asyncio
import threading
import time

import psycopg
from psycopg import pq, sql

from behaviours import *


def connect(**options):
    given = {"host": HOST, "port": PORT, "dbname": DATABASE, "user": USER, "password": PASSWORD, "sslmode": "disable",
             "connect_timeout": 10, "autocommit": True}
    return psycopg.connect(**{**given, **options})


def error(raised):
    diag = getattr(raised, "diag", None)
    names = ["severity", "sqlstate", "message_primary", "message_detail", "message_hint", "statement_position",
             "internal_query", "internal_position", "context", "schema_name", "table_name", "column_name",
             "datatype_name", "constraint_name", "source_function"]
    fields = {name: getattr(diag, name) for name in names if diag and getattr(diag, name)}
    return {"class": type(raised).__name__, **fields}


def refusal(raised):
    diag = raised.diag
    return {"class": type(raised).__name__, "sqlstate": raised.sqlstate, "severity": diag.severity_nonlocalized,
            "by_guard": (diag.message_primary or "").startswith("refused by guard"), "hint": bool(diag.message_hint)}


def one(connection, statement, *parameters):
    return connection.execute(statement, parameters or None).fetchone()[0]


@behaviour
def connects():
    with connect() as c:
        names = ["server_version", "server_encoding", "client_encoding", "is_superuser", "session_authorization", "DateStyle",
                 "IntervalStyle", "TimeZone", "integer_datetimes", "standard_conforming_strings", "application_name",
                 "in_hot_standby", "default_transaction_read_only"]
        reported = [c.info.parameter_status(name) for name in names]
        return [reported, one(c, "SELECT current_user"), c.info.backend_pid == one(c, "SELECT pg_backend_pid()"),
                c.info.transaction_status.name, c.pgconn.used_password, c.info.server_version]


@behaviour
def scram():
    with connect() as c:
        right = one(c, "SELECT current_user")
    wrong = attempt(lambda: connect(password="wrong"), lambda e: [type(e).__name__, "authentication failed" in str(e)])
    none = attempt(lambda: connect(password=""), lambda e: [type(e).__name__, "no password supplied" in str(e)])
    with connect(require_auth="scram-sha-256") as c:
        return [right, wrong, none, one(c, "SELECT 1")]


@behaviour
def md5():
    with connect(user=MD5_USER, require_auth="md5") as c:
        right = one(c, "SELECT current_user")
    return [right, attempt(lambda: connect(user=MD5_USER, password="wrong"), lambda e: type(e).__name__)]


@behaviour
def tls():
    needs_tls()
    with connect(host="localhost", sslmode="verify-full", sslrootcert=CA, channel_binding="disable") as c:
        return [c.pgconn.ssl_in_use, one(c, "SELECT current_user")]


@behaviour
def scram_plus():
    needs_tls()
    with connect(host="localhost", sslmode="verify-full", sslrootcert=CA, channel_binding="require") as c:
        return [c.pgconn.ssl_in_use, one(c, "SELECT current_user")]


@behaviour
def simple():
    with connect(cursor_factory=psycopg.ClientCursor) as c:
        rows = c.execute("SELECT 1, NULL, '', 'a', 1.50::numeric, true, ARRAY[1, 2], '2020-02-29'::date, '\\xdead'::bytea")
        none = c.execute("SELECT id FROM items WHERE false")
        empty = c.execute("")
        return [rows.fetchone(), rows.statusmessage, none.fetchall(), [d.name for d in none.description], empty.statusmessage]


@behaviour
def extended():
    with connect() as c:
        values = [1, 2**40, 1.5, "text", None, True, b"\x00\xff", [1, 2, 3], ["a", None]]
        row = c.execute("SELECT %s::int, %s::bigint, %s::float8, %s::text, %s::text, %s::bool, %s::bytea, %s::int[], %s::text[]",
                        values)
        counted = c.execute("UPDATE items SET name = name WHERE id = %s", [3])
        return [row.fetchone(), [(d.name, d.type_code) for d in row.description], counted.rowcount]


@behaviour
def binary():
    with connect() as c:
        cursor = c.cursor(binary=True)
        cursor.execute("SELECT 1::int2, 2::int4, 3::int8, 1.5::float8, 12.345::numeric, 'x'::text, '\\xff00'::bytea, "
                       "ARRAY[1, 2], '2020-02-29'::date, '00000000-0000-0000-0000-000000000001'::uuid")
        raw = cursor.pgresult
        return [cursor.fetchone(), [raw.fformat(n) for n in range(raw.nfields)], raw.get_value(0, 2)]


@behaviour
def prepared():
    with connect() as c:
        names = [c.execute("SELECT name FROM items WHERE id = %s", [n], prepare=True).fetchone()[0] for n in range(1, 30)]
        c.execute("CREATE TEMP TABLE changing (a int)")
        c.execute("INSERT INTO changing VALUES (1)")
        for _ in range(3):
            before = c.execute("SELECT * FROM changing WHERE a = %s", [1], prepare=True).fetchone()
        c.execute("ALTER TABLE changing ADD b text DEFAULT 'new'")
        after = outcome(lambda: c.execute("SELECT * FROM changing WHERE a = %s", [1], prepare=True).fetchone(), error)
        held = one(c, "SELECT count(*) FROM pg_prepared_statements")
        c.execute("DEALLOCATE ALL")
        again = one(c, "SELECT count(*) FROM pg_prepared_statements")
        c.execute("PREPARE p (int) AS SELECT name FROM items WHERE id = $1")
        by_sql = c.execute("EXECUTE p (5)").fetchone()
        return [names, before, after, held, again, by_sql]


def on_the_wire(c, failing, item):
    """What libpq says of each of three statements before one Sync, the second of which fails."""
    wire = c.pgconn
    wire.enter_pipeline_mode()
    for statement in (b"SELECT 1", failing, b"INSERT INTO items VALUES (%d, 'must not be there')" % item):
        wire.send_query_params(statement, None)
    wire.pipeline_sync()
    seen = []
    for _ in range(20):
        result = wire.get_result()
        if result is not None:
            state = result.error_field(pq.DiagnosticField.SQLSTATE)
            seen.append([pq.ExecStatus(result.status).name, state.decode() if state else None])
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                break
    wire.exit_pipeline_mode()
    return seen


@behaviour
def pipeline():
    with connect() as c:
        with c.pipeline():
            cursors = [c.execute("SELECT %s::int + 1", [n]) for n in range(200)]
            results = [cursor.fetchone()[0] for cursor in cursors]
        def failing():
            with c.pipeline():
                c.execute("SELECT 1")
                c.execute("SELECT 1 / %s", [0])
                c.execute("INSERT INTO items VALUES (-1, 'must not be there')")
        # Where the error comes up depends on how fast it comes: which it is does not.
        outcomes = [outcome(failing, error), on_the_wire(c, b"SELECT 1 / 0", -1)]
        skipped = one(c, "SELECT count(*) FROM items WHERE id = -1")
        return [results, outcomes, skipped, c.info.transaction_status.name]


@behaviour
def cursor():
    with connect(autocommit=False) as c:
        with c.cursor(name="server") as server:
            server.itersize = 37
            server.execute("SELECT id FROM items ORDER BY id")
            total = sum(row[0] for row in server)
        with c.cursor(name="scrolling", scrollable=True, withhold=True) as scrolling:
            scrolling.execute("SELECT id FROM items ORDER BY id")
            scrolling.scroll(500)
            there = scrolling.fetchone()
            scrolling.scroll(-100)
            back = scrolling.fetchmany(3)
            c.commit()
            held = scrolling.fetchone()
        with c.cursor() as client:
            streamed = [row[0] for row in client.stream("SELECT id FROM items WHERE id < 20 ORDER BY id")]
        return [total, there, back, held, streamed]


@behaviour
def copy_in():
    with connect() as c:
        c.execute("CREATE TEMP TABLE copied (id int, name text)")
        cursor = c.cursor()
        with cursor.copy("COPY copied FROM STDIN") as copy:
            for n in range(20_000):
                copy.write_row((n, f"row {n}\t\n\\" if n % 7 else None))
        return [cursor.rowcount, c.execute("SELECT count(*), count(name), md5(string_agg(name, '' ORDER BY id)) FROM copied").fetchone()]


@behaviour
def copy_out():
    with connect() as c:
        cursor = c.cursor()
        with cursor.copy("COPY (SELECT n, repeat('x', n % 100) FROM generate_series(1, 50000) n) TO STDOUT (FORMAT csv)") as copy:
            whole = b"".join(copy)
        with cursor.copy("COPY items TO STDOUT") as copy:
            rows = sum(1 for _ in copy.rows())
        return [digest(whole), rows]


@behaviour
def copy_binary():
    with connect() as c:
        c.execute("CREATE TEMP TABLE copied (id int, name text, raw bytea)")
        cursor = c.cursor()
        with cursor.copy("COPY copied FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text", "bytea"])
            for n in range(5_000):
                copy.write_row((n, f"row {n}", bytes([n % 256]) * (n % 50)))
        with cursor.copy("COPY copied TO STDOUT (FORMAT binary)") as copy:
            return digest(b"".join(copy))


@behaviour
def copy_failed():
    with connect() as c:
        c.execute("CREATE TEMP TABLE copied (id int, name text)")
        def given_up():
            with c.cursor().copy("COPY copied FROM STDIN") as copy:
                copy.write(b"1\tone\n" * 5_000)
                raise KeyError("given up")
        def wrong():
            with c.cursor().copy("COPY copied FROM STDIN") as copy:
                copy.write(b"1\tone\nx\ttwo\n" + b"3\tthree\n" * 50_000)
        def left():
            with c.cursor().copy("COPY (SELECT * FROM generate_series(1, 500000)) TO STDOUT") as copy:
                next(iter(copy))
                raise KeyError("left")
        outcomes = [attempt(function, error) for function in (given_up, wrong, left)]
        return [outcomes, one(c, "SELECT count(*) FROM copied"), c.info.transaction_status.name]


@behaviour
def cancel():
    with connect() as c:
        outcomes = []
        for cancel in (c.cancel, c.cancel_safe):
            timer = threading.Timer(0.5, cancel)
            timer.start()
            outcomes.append(attempt(lambda: c.execute("SELECT pg_sleep(30)"), error))
            timer.join()
        return [outcomes, one(c, "SELECT 'still there'")]


@behaviour
def large_objects():
    with connect(autocommit=False) as c:
        oid = one(c, "SELECT lo_from_bytea(0, %s)", b"abc" * 100_000)
        handle = one(c, "SELECT lo_open(%s, 393216)", oid)
        one(c, "SELECT lo_lseek64(%s, 299990, 0)", handle)
        end = one(c, "SELECT loread(%s, 100)", handle)
        one(c, "SELECT lowrite(%s, %s)", handle, b"the end")
        size = one(c, "SELECT length(lo_get(%s))", oid)
        one(c, "SELECT lo_unlink(%s)", oid)
        gone = attempt(lambda: one(c, "SELECT lo_get(%s)", oid), lambda e: [type(e).__name__, e.sqlstate])
        return [end, size, gone]


@behaviour
def notify():
    channel = sql.Identifier(f"channel_{TAG}")
    with connect() as listener, connect() as speaker:
        listener.execute(sql.SQL("LISTEN {}").format(channel))
        for n in range(3):
            speaker.execute("SELECT pg_notify(%s, %s)", [f"channel_{TAG}", f"payload {n} \u00fc"])
        speaker.execute(sql.SQL("NOTIFY {}").format(channel))
        heard = list(listener.notifies(timeout=10, stop_after=4))
        listener.execute(sql.SQL("NOTIFY {}, 'to myself'").format(channel))
        heard += list(listener.notifies(timeout=10, stop_after=1))
        pids = {speaker.info.backend_pid: "speaker", listener.info.backend_pid: "listener"}
        return [[n.payload, pids.get(n.pid, "unknown")] for n in heard]


@behaviour
def notices():
    heard = []
    with connect() as c:
        c.add_notice_handler(lambda diag: heard.append([diag.severity, diag.sqlstate, diag.message_primary, diag.message_detail,
                                                        diag.message_hint]))
        c.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING DETAIL = 'd', HINT = 'h', ERRCODE = '01234'; END $$")
        c.execute("SET client_min_messages = debug1")
        c.execute("CREATE TEMP TABLE IF NOT EXISTS noticed (id serial PRIMARY KEY)")
        c.execute("CREATE TEMP TABLE IF NOT EXISTS noticed (id int)")
    return [notice for notice in heard if notice[0] != "DEBUG" or "sequence" in notice[2]]


@behaviour
def errors():
    statements = ["SELECT * FROM nothing", "SELECT 1 +", "SELECT nonsense(1)", "SELECT 1 / 0", "SELECT 'x'::int",
                  "INSERT INTO items VALUES (1, 'twice')", "INSERT INTO items VALUES (NULL, 'none')",
                  "INSERT INTO items VALUES (5000, repeat('x', 2000))", "SELECT undefined_column FROM items",
                  "DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'GU001', DETAIL = 'd', HINT = 'h', TABLE = 't'; END $$",
                  "SELECT repeat('x', 1000000000) || repeat('x', 1000000000)"]
    with connect() as c:
        return [attempt(lambda: c.execute(statement), error) for statement in statements]


@behaviour
def transactions():
    with connect(autocommit=False) as c:
        states = [c.info.transaction_status.name]
        c.execute("CREATE TEMP TABLE work (id int) ON COMMIT PRESERVE ROWS")
        c.commit()
        with c.transaction():
            c.execute("INSERT INTO work VALUES (1)")
            states.append(c.info.transaction_status.name)
            raised = attempt(lambda: inner(c), error)
            c.execute("INSERT INTO work VALUES (3)")
        c.execute("INSERT INTO work VALUES (4)")
        c.rollback()
        c.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        c.read_only = True
        level = one(c, "SHOW transaction_isolation")
        refused = attempt(lambda: c.execute("INSERT INTO items VALUES (6000, 'x')"), error)
        c.rollback()
        rows = c.execute("SELECT id FROM work ORDER BY id").fetchall()
        return [states, raised, level, refused, rows]


def inner(c):
    with c.transaction("inner"):
        c.execute("INSERT INTO work VALUES (2)")
        c.execute("SELECT 1 / 0")


@behaviour
def aborted():
    with connect(autocommit=False) as c:
        first = attempt(lambda: c.execute("SELECT 1 / 0"), error)
        second = attempt(lambda: c.execute("SELECT 1"), error)
        state = c.info.transaction_status.name
        c.rollback()
        return [first, second, state, one(c, "SELECT 1"), c.info.transaction_status.name]


@behaviour
def multi():
    with connect() as c:
        cursor = c.execute("CREATE TEMP TABLE m (a int); INSERT INTO m VALUES (1), (2); SELECT * FROM m; SELECT 'last' AS word")
        results = []
        while True:
            results.append([cursor.statusmessage, cursor.fetchall() if cursor.description else None])
            if not cursor.nextset():
                break
        failed = attempt(lambda: c.execute("INSERT INTO m VALUES (3); SELECT 1 / 0; SELECT 2"), error)
        return [results, failed, one(c, "SELECT count(*) FROM m")]


@behaviour
def large_result():
    with connect() as c:
        rows = c.execute("SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 12000) n").fetchall()
        value = one(c, "SELECT repeat('0123456789', 1500000)")
        wide = c.execute("SELECT " + ", ".join(f"{n} AS c{n}" for n in range(1600))).fetchone()
        return [digest("".join(row[1] for row in rows)), digest(value), len(wide)]


@behaviour
def large_parameter():
    with connect() as c:
        raw, words = bytes(range(256)) * (32 * 1024), "parameter " * 500_000
        row = c.execute("SELECT md5(%b::bytea), length(%b::bytea), md5(%s), length(%s)", [raw, raw, words, words]).fetchone()
        many = c.execute("SELECT cardinality(%s::int[])", [list(range(100_000))]).fetchone()
        literal = one(c, "SELECT length('" + "z" * 3_000_000 + "')")
        return [row, many, literal]


@behaviour
def timeout():
    with connect(options="-c statement_timeout=300") as c:
        slow = attempt(lambda: c.execute("SELECT pg_sleep(10)"), error)
        c.execute("SET statement_timeout = 0")
        c.execute("SET idle_in_transaction_session_timeout = 300")
        c.execute("BEGIN")
        time.sleep(0.8)
        idle = attempt(lambda: c.execute("SELECT 1"), error)
        return [slow, idle, c.closed, c.broken]


@behaviour
def terminated():
    with connect() as other:
        c = connect()
        other.execute("SELECT pg_terminate_backend(%s)", [c.info.backend_pid])
        eventually(lambda: not one(other, "SELECT count(*) FROM pg_stat_activity WHERE pid = %s", c.info.backend_pid), "gone")
        time.sleep(0.2)
        gone = attempt(lambda: c.execute("SELECT 1"), error)
        return [gone, c.closed, [connect().execute("SELECT 1").fetchone() for _ in range(20)]]


@behaviour
def unicode():
    words = ["\u00fc\u00df", "\u65e5\u672c\u8a9e", "\U0001F980", "\u202e", "'\"\\;--", "a\u0301"]
    with connect() as c:
        c.execute(sql.SQL("CREATE TEMP TABLE {} ({} text)").format(sql.Identifier("t\u00e4ble \U0001F980"), sql.Identifier("c\"ol")))
        for word in words:
            c.execute(sql.SQL("INSERT INTO {} VALUES ({})").format(sql.Identifier("t\u00e4ble \U0001F980"), sql.Literal(word)))
        rows = c.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier("t\u00e4ble \U0001F980"))).fetchall()
        same = [one(c, "SELECT %s::text", word) == word for word in words]
        nul = attempt(lambda: c.execute("SELECT %s::text", ["a\0b"]), lambda e: type(e).__name__)
        return [rows, same, nul]


@behaviour
def encoding():
    with connect(client_encoding="latin1") as c:
        latin = [c.info.encoding, one(c, "SELECT 'stra\u00dfe'"), one(c, "SELECT octet_length(%s::text)", "stra\u00dfe")]
        wrong = attempt(lambda: one(c, "SELECT U&'\\20AC'"), error)
        c.execute("SET client_encoding TO 'UTF8'")
        return [latin, wrong, c.info.encoding, one(c, "SELECT U&'\\20AC'")]


@behaviour
def settings():
    options = "-c search_path=pg_catalog -c datestyle=German,DMY -c default_transaction_isolation=serializable"
    with connect(options=options, application_name="what is set") as c:
        shown = [one(c, f"SHOW {name}") for name in ("search_path", "DateStyle", "application_name", "default_transaction_isolation")]
        c.execute("SET TimeZone = 'Asia/Tokyo'")
        reported = [c.info.parameter_status("TimeZone"), c.info.parameter_status("application_name")]
        c.execute("SELECT set_config('application_name', 'changed', false)")
        reported.append(c.info.parameter_status("application_name"))
        c.execute("RESET ALL")
        reported.append(c.info.parameter_status("application_name"))
        c.execute("DISCARD ALL")
        unknown = attempt(lambda: connect(options="-c nonsense=1"), lambda e: [type(e).__name__, "nonsense" in str(e)])
        return [shown, reported, one(c, "SHOW search_path"), unknown]


@behaviour
def many():
    async def session(n):
        async with await psycopg.AsyncConnection.connect(host=HOST, port=PORT, dbname=DATABASE, user=USER, password=PASSWORD,
                                                         sslmode="disable", autocommit=True) as c:
            total = 0
            for k in range(20):
                row = await (await c.execute("SELECT %s::int * %s::int", [n, k])).fetchone()
                total += row[0]
            return total

    async def all_of_them():
        return await asyncio.gather(*(session(n) for n in range(16)))

    return asyncio.run(all_of_them())


@behaviour
def refused():
    with connect(cursor_factory=psycopg.ClientCursor) as c:
        raised = attempt(lambda: c.execute("DROP TABLE guarded"), refusal)
        in_string = attempt(lambda: c.execute("SELECT 1; DROP TABLE guarded; SELECT 2"), refusal)
        return [raised, in_string, one(c, "SELECT 'usable'"), c.info.transaction_status.name, c.closed]


@behaviour
def refused_extended():
    with connect() as c:
        outcomes = [attempt(lambda: c.execute("DROP TABLE guarded", prepare=prepare, binary=True), refusal)
                    for prepare in (False, True, True)]
        return [outcomes, one(c, "SELECT %s::text", "usable"), c.info.transaction_status.name]


@behaviour
def refused_open():
    with connect(autocommit=False) as c:
        c.execute("CREATE TEMP TABLE work (id int)")
        raised = attempt(lambda: c.execute("DROP TABLE guarded"), refusal)
        state = c.info.transaction_status.name
        after = attempt(lambda: c.execute("SELECT 1"), error)
        c.rollback()
        gone = one(c, "SELECT to_regclass('work') IS NULL")
        with c.transaction():
            saved = attempt(lambda: dropped(c), refusal)
            kept = one(c, "SELECT 'kept'")
        return [raised, state, after, gone, saved, kept, c.info.transaction_status.name]


def dropped(c):
    with c.transaction():
        c.execute("DROP TABLE guarded")


@behaviour
def refused_pipeline():
    with connect() as c:
        def refused_in_the_middle():
            with c.pipeline():
                c.execute("SELECT 1")
                c.execute("DROP TABLE guarded")
                c.execute("INSERT INTO items VALUES (-2, 'must not be there')")
        outcomes = [outcome(refused_in_the_middle, refusal), on_the_wire(c, b"DROP TABLE guarded", -2)]
        return [outcomes, one(c, "SELECT count(*) FROM items WHERE id = -2"), c.info.transaction_status.name]


@behaviour
def masked():
    with connect() as c:
        for statement in PEOPLE:
            c.execute(statement)
        outcomes = [person(c.execute("SELECT * FROM people", binary=binary, prepare=prepare).fetchall())
                    for binary in (False, True) for prepare in (False, True, True)]
        with c.transaction(), c.cursor("walk") as cursor:
            outcomes.append(person(cursor.execute("SELECT * FROM people")))
        with c.cursor().copy("COPY people TO STDOUT") as copy:
            outcomes.append(person(copy.rows()))
        return outcomes


main()
