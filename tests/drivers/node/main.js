// node's `pg`, with its cursors and COPY streams. See ../behaviours.py for what a program prints.
"use strict";

const { createHash } = require("crypto");
const fs = require("fs");
const { pipeline: flow } = require("stream/promises");
const { Readable, Writable } = require("stream");
const pg = require("pg");
const Cursor = require("pg-cursor");
const copy = require("pg-copy-streams");

const { TEST_TAG: TAG, TEST_CA: CA } = process.env;
const base = {
  host: process.env.TEST_HOST,
  port: Number(process.env.TEST_PORT),
  database: process.env.TEST_DATABASE,
  user: process.env.TEST_USER,
  password: process.env.TEST_PASSWORD,
  connectionTimeoutMillis: 10_000,
  ssl: false,
};
const behaviours = {};
class Unsupported extends Error {}

const digest = (data) => {
  const bytes = Buffer.from(data);
  return `${bytes.length}:${createHash("sha256").update(bytes).digest("hex").slice(0, 16)}`;
};

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

async function eventually(condition, what) {
  for (let n = 0; n < 500; n++) {
    if (await condition()) return;
    await pause(20);
  }
  throw new Error(`not within 10 s: ${what}`);
}

async function raised(promise, describe = error) {
  let result;
  try {
    result = await promise;
  } catch (caught) {
    return describe(caught);
  }
  throw new Error(`nothing was raised; it gave ${JSON.stringify(result)}`);
}

function error(caught) {
  const fields = ["severity", "code", "detail", "hint", "position", "internalPosition", "where", "schema", "table", "column",
    "dataType", "constraint", "routine"];
  const shown = { class: caught.constructor.name, message: caught.message };
  for (const field of fields) if (caught[field] !== undefined) shown[field] = caught[field];
  return shown;
}

const refusal = (caught) => ({
  class: caught.constructor.name,
  sqlstate: caught.code,
  by_guard: caught.message.startsWith("refused by guard"),
  hint: Boolean(caught.hint),
});

async function connect(options = {}) {
  const client = new pg.Client({ ...base, ...options });
  // A session that is ended from outside must not end the program.
  client.on("error", () => {});
  await client.connect();
  return client;
}

const rows = (result) => result.rows.map((row) => Object.values(row));

// A behaviour with a connection of its own.
function behaviour(name, show) {
  behaviours[name] = async () => {
    const client = await connect();
    try {
      return await show(client);
    } finally {
      await client.end().catch(() => {});
    }
  };
}

function unsupported(reason, ...names) {
  for (const name of names) behaviours[name] = async () => { throw new Unsupported(reason); };
}

unsupported("pg has no means for it", "large_objects");
unsupported("pg speaks UTF-8 alone", "encoding");

behaviour("connects", async (c) => [c.processID === (await c.query("SELECT pg_backend_pid() AS pid")).rows[0].pid,
  rows(await c.query("SELECT current_user, current_setting('client_encoding')"))]);

behaviour("scram", async (c) => [rows(await c.query("SELECT current_user")), await raised(connect({ password: "wrong" }))]);

behaviour("md5", async () => {
  const c = await connect({ user: process.env.TEST_MD5_USER });
  const right = rows(await c.query("SELECT current_user"));
  await c.end();
  return [right, await raised(connect({ user: process.env.TEST_MD5_USER, password: "wrong" }))];
});

async function secure(enableChannelBinding) {
  if (!CA) throw new Unsupported("this way to the server has no TLS");
  const c = await connect({ host: "localhost", ssl: { ca: fs.readFileSync(CA) }, enableChannelBinding });
  const result = [c.connection.stream.authorized, c.saslSession === null, rows(await c.query("SELECT current_user"))];
  await c.end();
  return result;
}
behaviours.tls = () => secure(false);
behaviours.scram_plus = () => secure(true);

behaviour("simple", async (c) => {
  const result = await c.query({ text: "SELECT 1, NULL, '', 1.50::numeric, true, ARRAY[1, 2], '\\xdead'::bytea", rowMode: "array" });
  return [result.rows, result.fields.map((field) => [field.name, field.dataTypeID, field.format]),
    rows(await c.query("SELECT id FROM items WHERE false")), (await c.query("")).rowCount];
});

behaviour("extended", async (c) => {
  const values = [1, "1099511627776", 1.5, "text", null, true, Buffer.from([0, 255]), [1, 2], { a: [1] }];
  const result = await c.query("SELECT $1::int a, $2::bigint b, $3::float8 c, $4::text d, $5::text e, $6::bool f, $7::bytea g, " +
    "$8::int[] h, $9::jsonb i", values);
  return [rows(result), (await c.query("UPDATE items SET name = name WHERE id = $1", [3])).rowCount];
});

behaviour("binary", async (c) => rows(await c.query({
  text: "SELECT 1::int2 a, 2::int4 b, 1.5::float8 c, 'x'::text d, '\\xff00'::bytea e, true f, $1::text g", values: ["v"], binary: true })));

behaviour("prepared", async (c) => {
  const names = [];
  for (let n = 1; n < 30; n++) {
    names.push(rows(await c.query({ name: "by id", text: "SELECT name FROM items WHERE id = $1", values: [n] })));
  }
  await c.query("CREATE TEMP TABLE changing (a int)");
  const select = { name: "changing", text: "SELECT * FROM changing" };
  const before = rows(await c.query(select));
  await c.query("ALTER TABLE changing ADD b text");
  const other = { name: "by id", text: "SELECT 1" };
  return [names, before, await raised(c.query(select)), await raised(c.query(other)),
    rows(await c.query("SELECT count(*) FROM pg_prepared_statements"))];
});

behaviour("pipeline", async (c) => {
  // The client has one statement on the wire at a time; what is queued follows at once.
  const queued = Array.from({ length: 100 }, (_, n) => c.query("SELECT $1::int + 1 AS n", [n]));
  const failing = [c.query("SELECT 1 AS n"), c.query("SELECT 1 / $1::int", [0]), c.query("SELECT 2 AS n")];
  const settled = await Promise.allSettled(failing);
  return [(await Promise.all(queued)).map((result) => result.rows[0].n), settled.map((one) => one.status === "fulfilled" ? rows(one.value) : error(one.reason))];
});

behaviour("cursor", async (c) => {
  const cursor = c.query(new Cursor("SELECT id FROM items WHERE id > $1 ORDER BY id", [100]));
  const parts = [];
  for (;;) {
    const part = await cursor.read(137);
    if (part.length === 0) break;
    parts.push(part.length);
  }
  await cursor.close();
  const early = c.query(new Cursor("SELECT n FROM generate_series(1, 100000) n"));
  const first = await early.read(3);
  await early.close();
  return [parts, first, rows(await c.query("SELECT 'after'"))];
});

behaviour("copy_in", async (c) => {
  await c.query("CREATE TEMP TABLE copied (id int, name text)");
  const lines = Array.from({ length: 20_000 }, (_, n) => `${n}\trow ${n}\n`);
  await flow(Readable.from(lines), c.query(copy.from("COPY copied FROM STDIN")));
  return rows(await c.query("SELECT count(*), md5(string_agg(name, '' ORDER BY id)) FROM copied"));
});

async function gather(c, statement) {
  const parts = [];
  await flow(c.query(copy.to(statement)), new Writable({ write(part, _, done) { parts.push(part); done(); } }));
  return Buffer.concat(parts);
}

behaviour("copy_out", async (c) =>
  digest(await gather(c, "COPY (SELECT n, repeat('x', n % 100) FROM generate_series(1, 50000) n) TO STDOUT")));

behaviour("copy_binary", async (c) => {
  const out = await gather(c, "COPY items TO STDOUT (FORMAT binary)");
  await c.query("CREATE TEMP TABLE copied (LIKE items)");
  await flow(Readable.from([out]), c.query(copy.from("COPY copied FROM STDIN (FORMAT binary)")));
  return [digest(out), rows(await c.query("SELECT count(*) FROM copied"))];
});

behaviour("copy_failed", async (c) => {
  await c.query("CREATE TEMP TABLE copied (id int)");
  const wrong = flow(Readable.from(["1\nx\n", "3\n".repeat(50_000)]), c.query(copy.from("COPY copied FROM STDIN")));
  const first = await raised(wrong, (caught) => caught.code);
  return [first, rows(await c.query("SELECT count(*) FROM copied"))];
});

behaviour("cancel", async (c) => {
  const sleeping = raised(c.query("SELECT pg_sleep(30)"));
  await pause(500);
  const canceller = new pg.Connection({ ssl: false });
  canceller.connect(base.port, base.host);
  canceller.on("connect", () => canceller.cancel(c.processID, c.secretKey));
  canceller.on("error", () => {});
  return [await sleeping, rows(await c.query("SELECT 'still there'"))];
});

behaviour("notify", async (listener) => {
  const heard = [];
  const speaker = await connect();
  listener.on("notification", (n) => heard.push([n.payload, n.processId === speaker.processID]));
  await listener.query(`LISTEN c_${TAG}`);
  for (let n = 0; n < 3; n++) await speaker.query(`NOTIFY c_${TAG}, 'payload ${n}'`);
  await eventually(() => heard.length === 3, "three notifications");
  await speaker.end();
  return heard;
});

behaviour("notices", async (c) => {
  const heard = [];
  c.on("notice", (notice) => heard.push(error(notice)));
  await c.query("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING DETAIL = 'd', HINT = 'h'; END $$");
  return heard;
});

behaviour("errors", async (c) => {
  const outcomes = [];
  for (const statement of ["SELECT * FROM nothing", "SELECT 1 +", "SELECT 1 / 0", "INSERT INTO items VALUES (1, 'twice')",
    "INSERT INTO items VALUES (NULL, 'none')", "INSERT INTO items VALUES (5000, repeat('x', 2000))"]) {
    outcomes.push(await raised(c.query(statement)));
    outcomes.push(await raised(c.query({ text: statement, values: [] , queryMode: "extended" })));
  }
  return [outcomes, await raised(c.query("SELECT $1::int", ["no number"])), await raised(c.query("SELECT $1::int"))];
});

behaviour("transactions", async (c) => {
  await c.query("BEGIN ISOLATION LEVEL SERIALIZABLE");
  await c.query("SAVEPOINT s");
  const failed = await raised(c.query("SELECT 1 / 0"));
  await c.query("ROLLBACK TO s");
  const level = rows(await c.query("SHOW transaction_isolation"));
  await c.query("COMMIT");
  return [failed, level, (await c.query("COMMIT")).command];
});

behaviour("aborted", async (c) => {
  await c.query("BEGIN");
  const both = [await raised(c.query("SELECT 1 / 0")), await raised(c.query("SELECT $1::int", [1]))];
  return [both, (await c.query("COMMIT")).command, rows(await c.query("SELECT 1"))];
});

behaviour("multi", async (c) => {
  const results = await c.query("SELECT 1; CREATE TEMP TABLE m (a int); INSERT INTO m VALUES (1), (2); SELECT * FROM m");
  return [results.map((result) => [result.command, result.rowCount, rows(result)]), await raised(c.query("SELECT 1; SELECT 1 / 0; SELECT 2")),
    await raised(c.query("SELECT $1::int; SELECT 2", [1]))];
});

behaviour("large_result", async (c) => {
  const result = await c.query("SELECT repeat(md5(n::text), 30) AS t FROM generate_series(1, 12000) n");
  return [digest(result.rows.map((row) => row.t).join("")), digest((await c.query("SELECT repeat('0123456789', 1500000) AS t")).rows[0].t)];
});

behaviour("large_parameter", async (c) => rows(await c.query("SELECT md5($1::bytea) a, length($1::bytea) b, length($2) c",
  [Buffer.alloc(8 * 1024 * 1024, 7), "parameter ".repeat(300_000)])));

behaviour("timeout", async () => {
  const c = await connect({ statement_timeout: 200 });
  const outcome = [await raised(c.query("SELECT pg_sleep(10)")), rows(await c.query("SELECT 1"))];
  await c.end();
  return outcome;
});

behaviour("terminated", async (other) => {
  const c = await connect();
  const waiting = raised(c.query("SELECT pg_sleep(30)"));
  await other.query("SELECT pg_terminate_backend($1)", [c.processID]);
  const outcome = await waiting;
  const after = await raised(c.query("SELECT 1"), (caught) => caught.constructor.name);
  const next = await connect();
  const again = rows(await next.query("SELECT 1"));
  await next.end();
  return [outcome, after, again];
});

behaviour("unicode", async (c) => {
  const result = await c.query("SELECT $1::text AS \"c\u00f6l \u{1F980}\", '\u65e5\u672c\u8a9e'", ["\u{1F980} '\"\\"]);
  return [result.fields.map((field) => field.name), rows(result)];
});

behaviour("settings", async () => {
  const c = await connect({ application_name: "what is set", options: "-c search_path=pg_catalog" });
  const reported = {};
  c.connection.on("parameterStatus", (message) => { reported[message.parameterName] = message.parameterValue; });
  await c.query("SET TimeZone = 'Asia/Tokyo'");
  const outcome = [rows(await c.query("SHOW search_path")), rows(await c.query("SHOW application_name")), reported];
  await c.end();
  return outcome;
});

behaviours.many = async () => {
  const pool = new pg.Pool({ ...base, max: 16 });
  const results = await Promise.all(Array.from({ length: 200 }, (_, n) => pool.query("SELECT $1::int * 2 AS n", [n])));
  await pool.end();
  return results.map((result) => result.rows[0].n);
};

const people = ["CREATE TEMP TABLE people (id int, full_name text, email varchar(60), birth_date date, card_number bigint, salary numeric(10,2), phones text[], profile jsonb, last_ip inet)",
  "INSERT INTO people VALUES (4711, 'Philippa Quackenbush', 'philippa@feathers.example', '1980-02-29', 4111111111111111, 5100.50, '{+44 20 7946 0958}', '{\"email\": \"philippa@feathers.example\"}', '203.0.113.7')"];
const clear = ["Quackenbush", "philippa", "1980-02-29", "1980-02-28", "4111111111111111", "5100.5", "7946", "203.0.113.7"];

const person = (result) => {
  const shown = JSON.stringify(result.rows);
  return { types: rows(result).map((row) => row.map((value) => (value === null ? "null" : value.constructor.name))),
    ids: result.rows.map((row) => row.id), by_guard: !clear.some((value) => shown.includes(value)) };
};

behaviour("masked", async (c) => {
  for (const text of people) await c.query(text);
  return [person(await c.query("SELECT * FROM people")), person(await c.query("SELECT * FROM people WHERE id > $1", [0])),
    person(await c.query({ name: "p", text: "SELECT * FROM people" })), person(await c.query({ name: "p", text: "SELECT * FROM people" }))];
});

behaviour("refused", async (c) => [await raised(c.query("DROP TABLE guarded"), refusal),
  await raised(c.query("SELECT 1; DROP TABLE guarded"), refusal), rows(await c.query("SELECT 'usable'"))]);

behaviour("refused_extended", async (c) => [
  await raised(c.query({ text: "DROP TABLE guarded", queryMode: "extended" }), refusal),
  await raised(c.query({ name: "d", text: "DROP TABLE guarded" }), refusal),
  await raised(c.query({ name: "d", text: "DROP TABLE guarded" }), refusal),
  rows(await c.query("SELECT $1::text", ["usable"]))]);

behaviour("refused_open", async (c) => {
  await c.query("BEGIN");
  const first = await raised(c.query("DROP TABLE guarded"), refusal);
  const second = await raised(c.query("SELECT 1"));
  await c.query("ROLLBACK");
  await c.query("BEGIN");
  await c.query("SAVEPOINT s");
  const saved = await raised(c.query("DROP TABLE guarded"), refusal);
  await c.query("ROLLBACK TO s");
  return [first, second, saved, (await c.query("COMMIT")).command];
});

behaviour("refused_pipeline", async (c) => {
  const queued = [c.query("SELECT 1 AS n"), c.query({ text: "DROP TABLE guarded", queryMode: "extended" }), c.query("SELECT 2 AS n")];
  const settled = await Promise.allSettled(queued);
  return settled.map((one) => one.status === "fulfilled" ? rows(one.value) : refusal(one.reason));
});

async function main() {
  for (const name of process.env.TEST_BEHAVIOURS.split(" ")) {
    const started = Date.now();
    const line = { behaviour: name };
    try {
      if (!behaviours[name]) throw new Error("the program does not show it");
      line.value = await behaviours[name]();
    } catch (caught) {
      if (caught instanceof Unsupported) line.unsupported = caught.message;
      else line.error = `${caught.constructor.name}: ${caught.message} ${(caught.stack || "").split("\n").filter((at) => at.includes("main.js")).slice(0, 2)}`;
    }
    line.seconds = (Date.now() - started) / 1000;
    console.log(JSON.stringify(line));
  }
}

main().then(() => process.exit(0));
