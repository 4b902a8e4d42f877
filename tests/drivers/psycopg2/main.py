"""psycopg2: the older driver of Python on libpq: simple query protocol, parameters put into the text by the client."""

import io
import select
import threading
import time

import psycopg2
from psycopg2 import extensions, extras

from behaviours import *

unsupported("psycopg2 puts parameters into the text", "extended", "prepared", "binary", "refused_extended")
unsupported("psycopg2 has no pipelines", "pipeline", "refused_pipeline")


def connect(**options):
    given = {"host": HOST, "port": PORT, "dbname": DATABASE, "user": USER, "password": PASSWORD, "sslmode": "disable",
             "connect_timeout": 10}
    autocommit = options.pop("autocommit", True)
    connection = psycopg2.connect(**{**given, **options})
    connection.autocommit = autocommit
    return connection


def run(connection, statement, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else cursor.rowcount


def error(raised):
    diag = getattr(raised, "diag", None)
    names = ["severity", "sqlstate", "message_primary", "message_detail", "message_hint", "statement_position", "context",
             "schema_name", "table_name", "column_name", "constraint_name"]
    return {"class": type(raised).__name__, **{name: getattr(diag, name) for name in names if diag and getattr(diag, name)}}


def refusal(raised):
    return {"class": type(raised).__name__, "sqlstate": raised.pgcode, "by_guard": "refused by guard" in str(raised),
            "hint": bool(raised.diag.message_hint)}


@behaviour
def connects():
    c = connect()
    return [c.server_version, c.encoding, c.get_parameter_status("TimeZone"), run(c, "SELECT current_user"), c.status,
            c.info.transaction_status, c.get_backend_pid() == run(c, "SELECT pg_backend_pid()")[0][0]]


@behaviour
def scram():
    return [run(connect(), "SELECT current_user"), attempt(lambda: connect(password="wrong"), lambda e: type(e).__name__)]


@behaviour
def md5():
    return [run(connect(user=MD5_USER), "SELECT current_user"),
            attempt(lambda: connect(user=MD5_USER, password="wrong"), lambda e: type(e).__name__)]


def secure(binding):
    needs_tls()
    c = connect(host="localhost", sslmode="verify-full", sslrootcert=CA, channel_binding=binding)
    return [c.info.ssl_in_use, run(c, "SELECT current_user")]


@behaviour
def tls():
    return secure("disable")


@behaviour
def scram_plus():
    return secure("require")


@behaviour
def simple():
    c = connect()
    return [run(c, "SELECT 1, NULL, '', %s, 1.50::numeric, true, ARRAY[1, 2], '2020-02-29'::date, %s", ["it's", b"\x00\xff"]),
            run(c, "SELECT id FROM items WHERE false"), run(c, "UPDATE items SET name = name WHERE id = 3"),
            attempt(lambda: run(c, ""), error)]


@behaviour
def cursor():
    c = connect(autocommit=False)
    with c.cursor("named") as named:
        named.itersize = 37
        named.execute("SELECT id FROM items ORDER BY id")
        total = sum(row[0] for row in named)
    with c.cursor("scrolling", scrollable=True) as scrolling:
        scrolling.execute("SELECT id FROM items ORDER BY id")
        scrolling.scroll(500)
        return [total, scrolling.fetchone(), scrolling.fetchmany(3)]


@behaviour
def copy_in():
    c = connect()
    run(c, "CREATE TEMP TABLE copied (id int, name text)")
    rows = "".join(f"{n}\trow {n}\n" for n in range(20_000))
    with c.cursor() as cursor:
        cursor.copy_expert("COPY copied FROM STDIN", io.StringIO(rows))
        cursor.copy_from(io.StringIO(rows), "copied")
    return run(c, "SELECT count(*), md5(string_agg(name, '' ORDER BY id)) FROM copied")


@behaviour
def copy_out():
    out = io.StringIO()
    with connect().cursor() as cursor:
        cursor.copy_expert("COPY (SELECT n, repeat('x', n % 100) FROM generate_series(1, 50000) n) TO STDOUT", out)
    return digest(out.getvalue())


@behaviour
def copy_binary():
    out = io.BytesIO()
    c = connect()
    with c.cursor() as cursor:
        cursor.copy_expert("COPY items TO STDOUT (FORMAT binary)", out)
        cursor.execute("CREATE TEMP TABLE copied (LIKE items)")
        out.seek(0)
        cursor.copy_expert("COPY copied FROM STDIN (FORMAT binary)", out)
    return [digest(out.getvalue()), run(c, "SELECT count(*) FROM copied")]


@behaviour
def copy_failed():
    c = connect()
    run(c, "CREATE TEMP TABLE copied (id int)")

    class Breaks:
        def read(self, size):
            raise KeyError("given up")

    def copy(source):
        with c.cursor() as cursor:
            cursor.copy_expert("COPY copied FROM STDIN", source)

    wrong = io.StringIO("1\nx\n" + "3\n" * 50_000)
    return [attempt(lambda: copy(Breaks()), error), attempt(lambda: copy(wrong), error), run(c, "SELECT count(*) FROM copied")]


@behaviour
def cancel():
    c = connect()
    timer = threading.Timer(0.5, c.cancel)
    timer.start()
    raised = attempt(lambda: run(c, "SELECT pg_sleep(30)"), error)
    timer.join()
    return [raised, run(c, "SELECT 'still there'")]


@behaviour
def large_objects():
    # The driver calls the server's functions by the function call message.
    c = connect(autocommit=False)
    large = c.lobject(0, "wb")
    large.write(b"abc" * 100_000)
    large.close()
    again = c.lobject(large.oid, "rwb")
    again.seek(299_990)
    end = again.read()
    again.truncate(1_000)
    size = again.seek(0, 2)
    again.unlink()
    gone = attempt(lambda: c.lobject(large.oid, "rb"), lambda e: type(e).__name__)
    c.rollback()
    return [end, size, gone]


@behaviour
def notify():
    listener, speaker = connect(), connect()
    run(listener, f"LISTEN c_{TAG}")
    for n in range(3):
        run(speaker, f"NOTIFY c_{TAG}, 'payload {n}'")

    def heard():
        select.select([listener], [], [], 0.1)
        listener.poll()
        return len(listener.notifies) == 3

    eventually(heard, "three notifications")
    return [[n.payload, n.pid == speaker.get_backend_pid()] for n in listener.notifies]


@behaviour
def notices():
    c = connect()
    run(c, "DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING DETAIL = 'd', HINT = 'h'; END $$")
    return c.notices


@behaviour
def errors():
    c = connect()
    return [attempt(lambda: run(c, statement), error) for statement in
            ["SELECT * FROM nothing", "SELECT 1 +", "SELECT 1 / 0", "INSERT INTO items VALUES (1, 'twice')",
             "INSERT INTO items VALUES (NULL, 'none')", "INSERT INTO items VALUES (5000, repeat('x', 2000))"]]


@behaviour
def transactions():
    c = connect(autocommit=False)
    c.set_session(isolation_level="SERIALIZABLE", readonly=True)
    level = run(c, "SHOW transaction_isolation")
    refused = attempt(lambda: run(c, "INSERT INTO items VALUES (6000, 'x')"), error)
    c.rollback()
    c.set_session(readonly=False)
    run(c, "SAVEPOINT s")
    failed = attempt(lambda: run(c, "SELECT 1 / 0"), error)
    run(c, "ROLLBACK TO s")
    two_phase = c.xid(1, f"guard-{TAG}", "x")
    c.rollback()
    c.tpc_begin(two_phase)
    run(c, "UPDATE items SET name = name WHERE id = -1")
    c.tpc_prepare()
    c.tpc_commit()
    return [level, refused, failed, c.info.transaction_status]


@behaviour
def aborted():
    c = connect(autocommit=False)
    raised = [attempt(lambda: run(c, statement), error) for statement in ("SELECT 1 / 0", "SELECT 1")]
    state = c.info.transaction_status
    c.rollback()
    return [raised, state, run(c, "SELECT 1")]


@behaviour
def multi():
    c = connect()
    return [run(c, "SELECT 1; SELECT 2; SELECT 3"), attempt(lambda: run(c, "SELECT 1; SELECT 1 / 0; SELECT 3"), error)]


@behaviour
def large_result():
    rows = run(connect(), "SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 12000) n")
    return digest("".join(row[1] for row in rows))


@behaviour
def large_parameter():
    c = connect()
    with c.cursor() as cursor:
        extras.execute_values(cursor, "SELECT count(*), sum(v) FROM (VALUES %s) AS t (v)", [(n,) for n in range(20_000)],
                              page_size=20_000)
        rows = cursor.fetchall()
    return [rows, run(c, "SELECT md5(%s), length(%s)", ["parameter " * 300_000, bytes(range(256)) * 4_000])]


@behaviour
def timeout():
    c = connect(options="-c statement_timeout=200")
    return [attempt(lambda: run(c, "SELECT pg_sleep(10)"), error), run(c, "SELECT 1")]


@behaviour
def terminated():
    c, other = connect(), connect()
    run(other, "SELECT pg_terminate_backend(%s)", [c.get_backend_pid()])
    time.sleep(0.5)
    return [attempt(lambda: run(c, "SELECT 1"), error), c.closed, run(connect(), "SELECT 1")]


@behaviour
def unicode():
    return run(connect(), "SELECT %s, '\u65e5\u672c\u8a9e' AS \"c\u00f6l \U0001F980\"", ["\U0001F980 '\"\\"])


@behaviour
def encoding():
    c = connect()
    c.set_client_encoding("LATIN1")
    latin = [c.encoding, run(c, "SELECT 'stra\u00dfe', length(%s)", ["stra\u00dfe"]), attempt(lambda: run(c, "SELECT U&'\\20AC'"), error)]
    c.set_client_encoding("UTF8")
    return [latin, run(c, "SELECT '\u20ac'")]


@behaviour
def settings():
    c = connect(options="-c search_path=pg_catalog", application_name="what is set")
    run(c, "SET TimeZone = 'Asia/Tokyo'")
    before = [run(c, "SHOW search_path"), c.get_parameter_status("application_name"), c.get_parameter_status("TimeZone")]
    c.reset()
    return [before, c.get_parameter_status("TimeZone")]


@behaviour
def many():
    connections = [connect() for _ in range(16)]
    return [run(c, "SELECT %s * 2", [n]) for n, c in enumerate(connections)]


@behaviour
def refused():
    c = connect()
    return [attempt(lambda: run(c, "DROP TABLE guarded"), refusal), run(c, "SELECT 'usable'"), c.closed, c.info.transaction_status]


@behaviour
def refused_open():
    c = connect(autocommit=False)
    raised = attempt(lambda: run(c, "DROP TABLE guarded"), refusal)
    state = c.info.transaction_status
    after = attempt(lambda: run(c, "SELECT 1"), error)
    c.rollback()
    return [raised, state, after, run(c, "SELECT 'usable'")]


@behaviour
def masked():
    c = connect()
    for statement in PEOPLE:
        run(c, statement)
    outcomes = [person(run(c, "SELECT * FROM people"))]
    c.autocommit = False
    with c.cursor("walk") as cursor:
        cursor.execute("SELECT * FROM people")
        outcomes.append(person(cursor.fetchall()))
    return outcomes


main()
