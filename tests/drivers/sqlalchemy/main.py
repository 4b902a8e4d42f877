"""SQLAlchemy: the most used library above Python's drivers, here on psycopg with its pool, reflection and mapped classes."""

import threading
import time

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from behaviours import *

unsupported("left to the driver below it", "simple", "binary", "copy_in", "copy_out", "copy_binary", "copy_failed", "large_objects",
            "notify", "pipeline", "refused_pipeline")


def engine(drivername="postgresql+psycopg", user=USER, password=PASSWORD, host=HOST, query=None, **options):
    url = sa.URL.create(drivername, user, password, host, PORT, DATABASE, {"sslmode": "disable", **(query or {})})
    return sa.create_engine(url, **options)


def error(raised):
    cause = getattr(raised, "orig", None)
    return {"class": type(raised).__name__, "cause": type(cause).__name__, "sqlstate": getattr(cause, "sqlstate", None),
            "invalidated": getattr(raised, "connection_invalidated", None)}


def refusal(raised):
    return {**error(raised), "by_guard": "refused by guard" in str(raised), "hint": bool(raised.orig.diag.message_hint)}


def run(connection, statement, **parameters):
    result = connection.execute(sa.text(statement), parameters)
    return [list(row) for row in result] if result.returns_rows else result.rowcount


class Base(orm.DeclarativeBase):
    """Mapped classes."""


class Order(Base):
    """An order, in a temporary table."""

    __tablename__ = "mapped_orders"
    __table_args__ = {"prefixes": ["TEMPORARY"]}
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.String)
    tags = sa.Column(postgresql.ARRAY(sa.String))
    extra = sa.Column(postgresql.JSONB)


@behaviour
def connects():
    with engine().connect() as c:
        return [run(c, "SELECT current_user"), c.dialect.server_version_info[0], c.dialect.default_schema_name, c.get_isolation_level()]


@behaviour
def scram():
    return [attempt(lambda: engine(password="wrong").connect(), error), run(engine().connect(), "SELECT 1")]


@behaviour
def md5():
    return run(engine(user=MD5_USER).connect(), "SELECT current_user")


def secure(binding):
    needs_tls()
    query = {"sslmode": "verify-full", "sslrootcert": CA, "channel_binding": binding}
    return run(engine(host="localhost", query=query).connect(), "SELECT current_user")


@behaviour
def tls():
    return secure("disable")


@behaviour
def scram_plus():
    return secure("require")


@behaviour
def extended():
    with engine().begin() as c, orm.Session(c) as session:
        Base.metadata.create_all(c, checkfirst=False)
        session.add_all([Order(name=f"order {n}", tags=["a", str(n)], extra={"n": n}) for n in range(2_000)])
        session.flush()
        found = session.scalars(sa.select(Order).where(Order.extra["n"].as_integer() == 1_234)).one()
        found.name = "changed"
        session.flush()
        session.delete(session.get(Order, 5))
        session.flush()
        return [found.id, found.tags, session.scalar(sa.select(sa.func.count()).select_from(Order))]


@behaviour
def prepared():
    with engine(connect_args={"prepare_threshold": 2}).connect() as c:
        return [[run(c, "SELECT name FROM items WHERE id = :id", id=n) for n in range(1, 12)], run(c, "SELECT count(*) FROM pg_prepared_statements")]


@behaviour
def cursor():
    with engine().connect().execution_options(stream_results=True, max_row_buffer=50) as c:
        result = c.execute(sa.text("SELECT id FROM items ORDER BY id"))
        return [sum(row[0] for row in part) for part in result.partitions(100)]


@behaviour
def cancel():
    with engine().connect() as c:
        timer = threading.Timer(0.5, c.connection.dbapi_connection.cancel)
        timer.start()
        raised = attempt(lambda: run(c, "SELECT pg_sleep(30)"), error)
        timer.join()
        c.rollback()
        return [raised, run(c, "SELECT 'still there'")]


@behaviour
def notices():
    heard = []
    with engine().connect() as c:
        c.connection.dbapi_connection.add_notice_handler(lambda diag: heard.append(diag.message_primary))
        run(c, "DO $$ BEGIN RAISE NOTICE 'one'; END $$")
    return heard


@behaviour
def errors():
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        reflected = sa.inspect(c)
        return [[attempt(lambda: run(c, statement), error) for statement in
                 ["SELECT * FROM nothing", "SELECT 1 / 0", "INSERT INTO items VALUES (1, 'twice')", "INSERT INTO items VALUES (NULL, '')"]],
                reflected.get_table_names(), [column["name"] for column in reflected.get_columns("items")], reflected.get_pk_constraint("items")]


@behaviour
def transactions():
    with engine().connect() as c:
        with c.begin():
            run(c, "CREATE TEMP TABLE work (id int)")
            with c.begin_nested() as nested:
                run(c, "INSERT INTO work VALUES (1)")
                nested.rollback()
            run(c, "INSERT INTO work VALUES (2)")
        rows = run(c, "SELECT * FROM work")
    with engine(isolation_level="SERIALIZABLE").connect() as c:
        level = run(c, "SHOW transaction_isolation")
    with engine().connect() as c:
        two_phase = c.begin_twophase(f"guard-sa-{TAG}")
        run(c, "UPDATE items SET name = name WHERE id = -1")
        two_phase.prepare()
        two_phase.commit()
    return [rows, level]


@behaviour
def aborted():
    with engine().connect() as c:
        raised = [attempt(lambda: run(c, statement), error) for statement in ("SELECT 1 / 0", "SELECT 1")]
        c.rollback()
        return [raised, run(c, "SELECT 1")]


@behaviour
def multi():
    with engine().connect() as c:
        cursor = c.exec_driver_sql("SELECT 1; SELECT 2").cursor
        return [cursor.fetchall(), cursor.nextset(), cursor.fetchall()]


@behaviour
def large_result():
    with engine().connect() as c:
        return digest("".join(row[0] for row in run(c, "SELECT repeat(md5(n::text), 30) FROM generate_series(1, 12000) n")))


@behaviour
def large_parameter():
    with engine().connect() as c:
        return run(c, "SELECT md5(:words), length(:words)", words="parameter " * 500_000)


@behaviour
def timeout():
    with engine(query={"options": "-c statement_timeout=200"}).connect() as c:
        return attempt(lambda: run(c, "SELECT pg_sleep(10)"), error)


@behaviour
def terminated():
    pool = engine(pool_pre_ping=True, pool_size=1)
    with pool.connect() as c, engine().connect() as other:
        run(other, "SELECT pg_terminate_backend(:pid)", pid=c.connection.dbapi_connection.info.backend_pid)
        time.sleep(0.5)
        raised = attempt(lambda: run(c, "SELECT 1"), error)
    with pool.connect() as c:
        return [raised, run(c, "SELECT 'reconnected'")]


@behaviour
def unicode():
    with engine().connect() as c:
        return run(c, "SELECT :word, '\u65e5\u672c\u8a9e' AS \"c\u00f6l\"", word="\U0001F980 '\"\\")


@behaviour
def encoding():
    with engine(query={"client_encoding": "latin1"}).connect() as c:
        return [run(c, "SELECT 'stra\u00dfe', length(:word)", word="stra\u00dfe"), attempt(lambda: run(c, "SELECT U&'\\20AC'"), error)]


@behaviour
def settings():
    with engine(query={"application_name": "what is set", "options": "-c search_path=pg_catalog"}).connect() as c:
        return [run(c, "SHOW application_name"), run(c, "SHOW search_path")]


@behaviour
def many():
    pool, done = engine(pool_size=8, max_overflow=8), [None] * 40
    def work(n):
        with pool.connect() as c:
            done[n] = run(c, "SELECT :n * 2", n=n)
    threads = [threading.Thread(target=work, args=[n]) for n in range(len(done))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


@behaviour
def refused():
    with engine(isolation_level="AUTOCOMMIT").connect() as c:
        return [attempt(lambda: run(c, "DROP TABLE guarded"), refusal), run(c, "SELECT 'usable'")]


@behaviour
def refused_extended():
    guarded = sa.Table("guarded", sa.MetaData(), sa.Column("id", sa.Integer))
    with engine(isolation_level="AUTOCOMMIT", connect_args={"prepare_threshold": 0}).connect() as c:
        return [attempt(lambda: guarded.drop(c), refusal), run(c, "SELECT :word", word="usable")]


@behaviour
def refused_open():
    with engine().connect() as c:
        raised = attempt(lambda: run(c, "DROP TABLE guarded"), refusal)
        after = attempt(lambda: run(c, "SELECT 1"), error)
        c.rollback()
        with c.begin():
            nested = c.begin_nested()
            saved = attempt(lambda: run(c, "DROP TABLE guarded"), refusal)
            nested.rollback()
            return [raised, after, saved, run(c, "SELECT 'kept'")]


@behaviour
def masked():
    with engine().connect() as c:
        for statement in PEOPLE:
            c.exec_driver_sql(statement)
        return [person(c.exec_driver_sql("SELECT * FROM people")) for _ in range(7)]


main()
