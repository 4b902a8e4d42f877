"""asyncpg: Python's own implementation of the protocol, always extended and binary, with a statement cache."""

import asyncio
import io
import ssl
import time

import asyncpg

from behaviours import *

unsupported("asyncpg has no means for it", "large_objects", "pipeline", "refused_pipeline")
unsupported("asyncpg binds no channels", "scram_plus")


async def connect(**options):
    given = {"host": HOST, "port": PORT, "database": DATABASE, "user": USER, "password": PASSWORD, "ssl": False, "timeout": 10}
    return await asyncpg.connect(**{**given, **options})


def error(raised):
    fields = raised.as_dict() if hasattr(raised, "as_dict") else {"text": str(raised)}
    hidden = ("server_source_line", "server_source_filename", "query")
    return {"class": type(raised).__name__, **{name: str(value) for name, value in fields.items() if value and name not in hidden}}


def refusal(raised):
    return {"class": type(raised).__name__, "sqlstate": raised.sqlstate, "by_guard": "refused by guard" in str(raised),
            "hint": bool(raised.hint)}


async def raised(awaitable, describe=error):
    try:
        result = await awaitable
    except Exception as caught:  # noqa: BLE001: whatever the driver raises is the result
        return describe(caught)
    raise AssertionError(f"nothing was raised; it gave {result!r}")


def plain(rows):
    return [list(row.values()) for row in rows]


def asynchronous(function):
    """A behaviour with a connection of its own."""
    async def whole():
        c = await connect()
        try:
            return await function(c)
        finally:
            c.terminate()
    def run():
        return asyncio.run(whole())
    run.__name__ = function.__name__
    return behaviour(run)


@asynchronous
async def connects(c):
    s = c.get_settings()
    return [list(c.get_server_version())[:2], s.server_encoding, s.client_encoding, s.TimeZone, await c.fetchval("SELECT current_user"),
            c.get_server_pid() == await c.fetchval("SELECT pg_backend_pid()")]


@asynchronous
async def scram(c):
    return [await c.fetchval("SELECT current_user"), await raised(connect(password="wrong"))]


@asynchronous
async def md5(c):
    other = await connect(user=MD5_USER)
    return [await other.fetchval("SELECT current_user"), await raised(connect(user=MD5_USER, password="wrong"))]


@behaviour
def tls():
    needs_tls()
    async def secure():
        c = await connect(host="localhost", ssl=ssl.create_default_context(cafile=CA))
        return await c.fetchval("SELECT current_user")
    return asyncio.run(secure())


@asynchronous
async def simple(c):
    return [await c.execute("SELECT 1; SELECT 2"), await c.execute("UPDATE items SET name = name WHERE id < 5"), await c.execute("SELECT 1;;SELECT 2;")]


@asynchronous
async def extended(c):
    row = await c.fetchrow("SELECT $1::int, $2::bigint, $3::float8, $4::text, $5::text, $6::bool, $7::bytea, $8::int[], $9::numeric, "
                           "$10::jsonb", 1, 2**40, 1.5, "text", None, True, b"\x00\xff", [1, 2], "1.50", '{"a": [1]}')
    await c.execute("CREATE TEMP TABLE w (a int, b text)")
    await c.executemany("INSERT INTO w VALUES ($1, $2)", [(n, f"row {n}") for n in range(3_000)])
    return [list(row.values()), plain(await c.fetch("SELECT count(*), max(a) FROM w")), await c.execute("UPDATE w SET a = a WHERE a < $1", 9)]


@asynchronous
async def binary(c):
    return list((await c.fetchrow("SELECT 1::int2, 1.5::float4, 12.345::numeric, '\\xff'::bytea, '2020-02-29'::date, "
                                  "'1 day'::interval, point(1, 2), int4range(1, 5), '10.0.0.0/8'::cidr, NULL::text")).values())


@asynchronous
async def prepared(c):
    statement = await c.prepare("SELECT name FROM items WHERE id = $1")
    names = [await statement.fetchval(n) for n in range(1, 30)]
    described = [[a.name, a.type.name] for a in statement.get_attributes()] + [p.name for p in statement.get_parameters()]
    await c.execute("CREATE TEMP TABLE changing (a int)")
    before = plain(await c.fetch("SELECT * FROM changing"))
    await c.execute("ALTER TABLE changing ADD b text DEFAULT 'new'")
    after = await raised_or(c.fetch("SELECT * FROM changing"))
    cached = [await c.fetchval("SELECT $1::int + " + str(n), 1) for n in range(150)]
    return [names, described, before, after, sum(cached), plain(await c.fetch("SELECT count(*) FROM pg_prepared_statements"))]


async def raised_or(awaitable):
    try:
        return plain(await awaitable)
    except Exception as caught:  # noqa: BLE001: whatever the driver raises is the result
        return error(caught)


@asynchronous
async def cursor(c):
    async with c.transaction():
        total = 0
        async for row in c.cursor("SELECT id FROM items ORDER BY id", prefetch=37):
            total += row[0]
        portal = await c.cursor("SELECT id FROM items WHERE id > $1 ORDER BY id", 100)
        first = plain(await portal.fetch(3))
        await portal.forward(10)
        return [total, first, list((await portal.fetchrow()).values())]


@asynchronous
async def copy_in(c):
    await c.execute("CREATE TEMP TABLE copied (id int, name text)")
    rows = "".join(f"{n}\trow {n}\n" for n in range(20_000)).encode()
    return [await c.copy_to_table("copied", source=io.BytesIO(rows)),
            plain(await c.fetch("SELECT count(*), md5(string_agg(name, '' ORDER BY id)) FROM copied"))]


@asynchronous
async def copy_out(c):
    out, part = io.BytesIO(), io.BytesIO()
    return [await c.copy_from_query("SELECT n, repeat('x', n % 100) FROM generate_series(1, 50000) n", output=out), digest(out.getvalue()),
            await c.copy_from_table("items", output=part, format="csv"), digest(part.getvalue())]


@asynchronous
async def copy_binary(c):
    await c.execute("CREATE TEMP TABLE copied (id int, name text)")
    done = await c.copy_records_to_table("copied", records=[(n, f"row {n}") for n in range(5_000)])
    out = io.BytesIO()
    await c.copy_from_table("copied", output=out, format="binary")
    return [done, digest(out.getvalue())]


@asynchronous
async def copy_failed(c):
    await c.execute("CREATE TEMP TABLE copied (id int)")
    async def breaks():
        yield b"1\n" * 5_000
        raise KeyError("given up")
    wrong = b"1\nx\n" + b"3\n" * 50_000
    return [await raised(c.copy_to_table("copied", source=breaks()), lambda e: type(e).__name__),
            await raised(c.copy_to_table("copied", source=io.BytesIO(wrong))), await c.fetchval("SELECT count(*) FROM copied")]


@asynchronous
async def cancel(c):
    by_limit = await raised(c.fetch("SELECT pg_sleep(30)", timeout=0.5))
    task = asyncio.create_task(c.fetch("SELECT pg_sleep(30)"))
    await asyncio.sleep(0.3)
    task.cancel()
    outcome = "none"
    try:
        await task
    except asyncio.CancelledError:
        outcome = "cancelled"
    return [by_limit["class"], outcome, await c.fetchval("SELECT 'still there'")]


@asynchronous
async def notify(c):
    heard, speaker = [], await connect()
    await c.add_listener(f"c_{TAG}", lambda _, pid, channel, payload: heard.append([payload, pid == speaker.get_server_pid()]))
    for n in range(3):
        await speaker.execute(f"NOTIFY c_{TAG}, 'payload {n}'")
    for _ in range(200):
        if len(heard) == 3:
            break
        await asyncio.sleep(0.02)
    return heard


@asynchronous
async def notices(c):
    heard = []
    c.add_log_listener(lambda _, message: heard.append(error(message)))
    await c.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING DETAIL = 'd', HINT = 'h'; END $$")
    await asyncio.sleep(0.1)
    return heard


@asynchronous
async def errors(c):
    return [await raised(c.fetch(statement)) for statement in
            ["SELECT * FROM nothing", "SELECT 1 +", "SELECT 1 / 0", "INSERT INTO items VALUES (1, 'twice')",
             "INSERT INTO items VALUES (NULL, 'none')", "INSERT INTO items VALUES (5000, repeat('x', 2000))"]] + \
        [await raised(c.fetch("SELECT $1::int", "no number"), lambda e: type(e).__name__)]


@asynchronous
async def transactions(c):
    async with c.transaction(isolation="serializable", readonly=True):
        level = await c.fetchval("SHOW transaction_isolation")
        try:
            async with c.transaction():
                await c.execute("INSERT INTO items VALUES (6000, 'x')")
        except asyncpg.PostgresError as caught:
            refused = error(caught)
        return [level, refused, await c.fetchval("SELECT 'alive'"), c.is_in_transaction()]


@asynchronous
async def aborted(c):
    await c.execute("BEGIN")
    both = [await raised(c.fetch(statement)) for statement in ("SELECT 1 / 0", "SELECT 1")]
    await c.execute("ROLLBACK")
    return [both, await c.fetchval("SELECT 1")]


@asynchronous
async def multi(c):
    return [await c.execute("SELECT 1; SELECT 2; CREATE TEMP TABLE m (a int)"), await raised(c.fetch("SELECT 1; SELECT 2")),
            await raised(c.execute("SELECT 1; SELECT 1 / 0; SELECT 2"))]


@asynchronous
async def large_result(c):
    rows = await c.fetch("SELECT n, repeat(md5(n::text), 30) AS t FROM generate_series(1, 12000) n")
    return [digest("".join(row["t"] for row in rows)), digest(await c.fetchval("SELECT repeat('0123456789', 1500000)"))]


@asynchronous
async def large_parameter(c):
    raw = bytes(range(256)) * (32 * 1024)
    return [list((await c.fetchrow("SELECT md5($1::bytea), length($1::bytea)", raw)).values()),
            await c.fetchval("SELECT cardinality($1::int[])", list(range(200_000)))]


@asynchronous
async def timeout(c):
    await c.execute("SET statement_timeout = 200")
    return [await raised(c.fetch("SELECT pg_sleep(10)")), await c.fetchval("SELECT 1")]


@asynchronous
async def terminated(c):
    other = await connect()
    await other.execute(f"SELECT pg_terminate_backend({c.get_server_pid()})")
    await asyncio.sleep(0.5)
    return [await raised(c.fetch("SELECT 1"), lambda e: type(e).__name__), c.is_closed(), await (await connect()).fetchval("SELECT 1")]


@asynchronous
async def unicode(c):
    row = await c.fetchrow("SELECT $1::text AS \"c\u00f6l \U0001F980\", '\u65e5\u672c\u8a9e'", "\U0001F980 '\"\\")
    return [list(row.keys()), list(row.values())]


@asynchronous
async def encoding(c):
    other = await connect(server_settings={"client_encoding": "latin1"})
    return [await other.fetchval("SELECT 'stra\u00dfe'"), await other.fetchval("SELECT length($1)", "stra\u00dfe"),
            await raised(other.fetch("SELECT U&'\\20AC'"))]


@asynchronous
async def settings(c):
    other = await connect(server_settings={"search_path": "pg_catalog", "application_name": "what is set"})
    before = [await other.fetchval(f"SHOW {name}") for name in ("search_path", "application_name")]
    await other.execute("SET TimeZone = 'Asia/Tokyo'")
    changed = other.get_settings().TimeZone
    await other.reset()
    return [before, changed, other.get_settings().TimeZone]


@asynchronous
async def many(c):
    async with asyncpg.create_pool(host=HOST, port=PORT, database=DATABASE, user=USER, password=PASSWORD, ssl=False, min_size=8,
                                   max_size=16) as pool:
        return await asyncio.gather(*(pool.fetchval("SELECT $1::int * 2", n) for n in range(100)))


@asynchronous
async def refused(c):
    return [await raised(c.execute("DROP TABLE guarded"), refusal), await c.fetchval("SELECT 'usable'"), c.is_closed()]


@asynchronous
async def refused_extended(c):
    many_rows = c.executemany("DELETE FROM guarded WHERE id = $1 OR $1 = 0", [(n,) for n in range(1)])
    return [await raised(c.fetch("DROP TABLE guarded"), refusal), await raised(c.fetch("DROP TABLE guarded"), refusal),
            (await raised(many_rows))["sqlstate"], await c.fetchval("SELECT $1::text", "usable")]


@asynchronous
async def refused_open(c):
    await c.execute("BEGIN")
    first = await raised(c.fetch("DROP TABLE guarded"), refusal)
    second = await raised(c.fetch("SELECT 1"))
    await c.execute("ROLLBACK")
    async with c.transaction():
        try:
            async with c.transaction():
                await c.execute("DROP TABLE guarded")
        except asyncpg.InsufficientPrivilegeError as caught:
            saved = refusal(caught)
        return [first, second, saved, await c.fetchval("SELECT 'kept'")]


@asynchronous
async def masked(c):
    for statement in PEOPLE:
        await c.execute(statement)
    outcomes = [person(plain(await c.fetch("SELECT * FROM people"))) for _ in range(3)]
    async with c.transaction():
        outcomes.append(person(plain([row async for row in c.cursor("SELECT * FROM people")])))
    return outcomes


main()
