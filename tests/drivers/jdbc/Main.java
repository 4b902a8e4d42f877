// pgjdbc, Java's driver. See ../behaviours.py for what a program prints.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.StringReader;
import java.security.MessageDigest;
import java.sql.Array;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyIn;
import org.postgresql.copy.CopyManager;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

public class Main {
    static final String TAG = System.getenv("TEST_TAG");
    static final String CA = System.getenv("TEST_CA");

    interface Show {
        Object run() throws Exception;
    }

    interface With {
        Object run(Connection connection) throws Exception;
    }

    interface Raises {
        void run() throws Exception;
    }

    static class Unsupported extends RuntimeException {
        Unsupported(String reason) {
            super(reason);
        }
    }

    static final Map<String, Show> behaviours = new LinkedHashMap<>();

    static Connection connect(String... options) throws SQLException {
        Properties given = new Properties();
        given.setProperty("user", System.getenv("TEST_USER"));
        given.setProperty("password", System.getenv("TEST_PASSWORD"));
        given.setProperty("sslmode", "disable");
        given.setProperty("loginTimeout", "10");
        given.setProperty("host", System.getenv("TEST_HOST"));
        for (int n = 0; n < options.length; n += 2) {
            given.setProperty(options[n], options[n + 1]);
        }
        String host = (String) given.remove("host");
        String url = "jdbc:postgresql://" + host + ":" + System.getenv("TEST_PORT") + "/" + System.getenv("TEST_DATABASE");
        return DriverManager.getConnection(url, given);
    }

    static void with(String name, With show, String... options) {
        behaviours.put(name, () -> {
            try (Connection connection = connect(options)) {
                return show.run(connection);
            }
        });
    }

    static void unsupported(String reason, String... names) {
        for (String name : names) {
            behaviours.put(name, () -> {
                throw new Unsupported(reason);
            });
        }
    }

    static List<Object> list(Object... items) {
        return new ArrayList<>(Arrays.asList(items));
    }

    static List<Object> rows(ResultSet results) throws Exception {
        List<Object> rows = new ArrayList<>();
        int columns = results.getMetaData().getColumnCount();
        while (results.next()) {
            List<Object> row = new ArrayList<>();
            for (int n = 1; n <= columns; n++) {
                Object value = results.getObject(n);
                if (value instanceof Array) {
                    value = Arrays.asList((Object[]) ((Array) value).getArray());
                } else if (value instanceof byte[]) {
                    value = digest((byte[]) value);
                }
                row.add(value);
            }
            rows.add(row);
        }
        return rows;
    }

    static Object person(ResultSet results) throws Exception {
        List<Object> types = new ArrayList<>();
        StringBuilder shown = new StringBuilder();
        while (results.next()) {
            for (int n = 1; n <= results.getMetaData().getColumnCount(); n++) {
                Object value = results.getObject(n);
                types.add(value == null ? "null" : value.getClass().getSimpleName());
                shown.append(value instanceof Array ? Arrays.toString((Object[]) ((Array) value).getArray()) : value).append('|');
            }
        }
        boolean clear = false;
        for (String value : List.of("Quackenbush", "philippa", "1980-02-29", "4111111111111111", "5100.5", "7946", "203.0.113.7")) {
            clear |= shown.indexOf(value) >= 0;
        }
        Map<String, Object> person = new LinkedHashMap<>();
        person.put("types", types);
        person.put("id", shown.toString().startsWith("4711|"));
        person.put("by_guard", !clear);
        return person;
    }

    static Object run(Connection connection, String sql, Object... parameters) throws Exception {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int n = 0; n < parameters.length; n++) {
                statement.setObject(n + 1, parameters[n]);
            }
            return statement.execute() ? rows(statement.getResultSet()) : statement.getUpdateCount();
        }
    }

    static String digest(byte[] bytes) throws Exception {
        StringBuilder hex = new StringBuilder(bytes.length + ":");
        byte[] hash = MessageDigest.getInstance("SHA-256").digest(bytes);
        for (int n = 0; n < 8; n++) {
            hex.append(String.format("%02x", hash[n]));
        }
        return hex.toString();
    }

    static Exception caught(Raises action) {
        try {
            action.run();
        } catch (Exception raised) {
            return raised;
        }
        throw new IllegalStateException("nothing was raised");
    }

    static Object error(Exception raised) {
        Map<String, Object> shown = new LinkedHashMap<>();
        shown.put("class", raised.getClass().getSimpleName());
        if (raised instanceof BatchUpdateException) {
            shown.put("counts", Arrays.toString(((BatchUpdateException) raised).getUpdateCounts()));
        }
        if (raised instanceof SQLException) {
            shown.put("sqlstate", ((SQLException) raised).getSQLState());
        }
        if (raised instanceof PSQLException && ((PSQLException) raised).getServerErrorMessage() != null) {
            ServerErrorMessage message = ((PSQLException) raised).getServerErrorMessage();
            shown.put("message", message.getMessage());
            shown.put("detail", message.getDetail());
            shown.put("position", message.getPosition());
            shown.put("table", message.getTable());
            shown.put("column", message.getColumn());
            shown.put("constraint", message.getConstraint());
            shown.put("routine", message.getRoutine());
        }
        return shown;
    }

    static Object refusal(Exception raised) {
        Map<String, Object> shown = new LinkedHashMap<>();
        shown.put("class", raised.getClass().getSimpleName());
        if (raised instanceof BatchUpdateException) {
            shown.put("counts", Arrays.toString(((BatchUpdateException) raised).getUpdateCounts()));
            raised = ((SQLException) raised).getNextException() != null ? ((SQLException) raised).getNextException() : raised;
        }
        shown.put("sqlstate", ((SQLException) raised).getSQLState());
        shown.put("by_guard", raised.getMessage().contains("refused by guard"));
        ServerErrorMessage message = raised instanceof PSQLException ? ((PSQLException) raised).getServerErrorMessage() : null;
        shown.put("hint", message != null && message.getHint() != null);
        return shown;
    }

    static Object raised(Raises action) {
        return error(caught(action));
    }

    static Object refused(Raises action) {
        return refusal(caught(action));
    }

    static Object secure(String... options) throws Exception {
        if (CA.isEmpty()) {
            throw new Unsupported("this way to the server has no TLS");
        }
        List<String> all = new ArrayList<>(List.of("host", "localhost", "sslmode", "verify-full", "sslrootcert", CA));
        all.addAll(Arrays.asList(options));
        try (Connection c = connect(all.toArray(new String[0]))) {
            return run(c, "SELECT current_user");
        }
    }

    static void define() {
        with("connects", c -> list(c.getMetaData().getDatabaseProductVersion(), c.getMetaData().getUserName(), c.getSchema(),
            run(c, "SELECT current_user").toString(), c.unwrap(PGConnection.class).getParameterStatuses().get("TimeZone"),
            run(c, "SELECT pg_backend_pid()").toString().equals("[[" + c.unwrap(PGConnection.class).getBackendPID() + "]]")));
        with("scram", c -> list(run(c, "SELECT current_user"), raised(() -> connect("password", "wrong"))));
        with("md5", c -> list(run(connect("user", System.getenv("TEST_MD5_USER")), "SELECT current_user"),
            raised(() -> connect("user", System.getenv("TEST_MD5_USER"), "password", "wrong"))));
        behaviours.put("tls", () -> secure());
        unsupported("this version of pgjdbc binds no channels", "scram_plus");
        with("simple", c -> {
            try (Statement s = c.createStatement()) {
                Object row = rows(s.executeQuery("SELECT 1, NULL::text, '', 1.50::numeric, true, ARRAY[1, 2], '\\xdead'::bytea"));
                return list(row, rows(s.executeQuery("SELECT id FROM items WHERE false")), s.execute(""));
            }
        }, "preferQueryMode", "simple");
        with("extended", c -> list(run(c, "SELECT ?::int, ?::bigint, ?::float8, ?::text, ?::text, ?::bool, ?::bytea", 1, 1L << 40, 1.5,
            "text", null, true, new byte[] {0, -1}), run(c, "UPDATE items SET name = name WHERE id = ?", 3), describe(c)));
        with("binary", c -> run(c, "SELECT 1::int2, 2::int4, 3::int8, 1.5::float8, 1.25::float4, '2020-02-29'::date, '\\xff00'::bytea, "
            + "ARRAY[1, 2], '00000000-0000-0000-0000-000000000001'::uuid"), "binaryTransfer", "true", "prepareThreshold", "-1");
        with("prepared", c -> {
            List<Object> names = new ArrayList<>();
            try (PreparedStatement s = c.prepareStatement("SELECT name FROM items WHERE id = ?")) {
                for (int n = 1; n < 20; n++) {
                    s.setInt(1, n);
                    names.add(rows(s.executeQuery()));
                }
            }
            run(c, "CREATE TEMP TABLE changing (a int)");
            Object result;
            try (PreparedStatement s = c.prepareStatement("SELECT * FROM changing")) {
                for (int n = 0; n < 6; n++) {
                    s.executeQuery();
                }
                run(c, "ALTER TABLE changing ADD b text");
                // The driver prepares it anew by itself outside a transaction.
                result = list(s.executeQuery().getMetaData().getColumnCount());
            }
            return list(names, result, run(c, "SELECT count(*) > 0 FROM pg_prepared_statements"));
        }, "prepareThreshold", "2");
        with("pipeline", c -> {
            run(c, "CREATE TEMP TABLE batch (id int PRIMARY KEY)");
            Object failed;
            int total;
            try (PreparedStatement s = c.prepareStatement("INSERT INTO batch VALUES (?)")) {
                for (int n = 0; n < 2_000; n++) {
                    s.setInt(1, n);
                    s.addBatch();
                }
                total = s.executeBatch().length;
                for (int n : new int[] {3_000, 3_001, 5, 3_002, 3_003}) {
                    s.setInt(1, n);
                    s.addBatch();
                }
                failed = raised(s::executeBatch);
            }
            return list(total, failed, run(c, "SELECT count(*) FROM batch"));
        });
        with("cursor", c -> {
            c.setAutoCommit(false);
            List<Object> seen = new ArrayList<>();
            try (PreparedStatement s = c.prepareStatement("SELECT id FROM items ORDER BY id")) {
                s.setFetchSize(37);
                long total = 0;
                try (ResultSet results = s.executeQuery()) {
                    while (results.next()) {
                        total += results.getInt(1);
                    }
                }
                seen.add(total);
                s.setMaxRows(10);
                seen.add(rows(s.executeQuery()));
            }
            try (Statement s = c.createStatement()) {
                s.setFetchSize(5);
                ResultSet early = s.executeQuery("SELECT n FROM generate_series(1, 100000) n");
                early.next();
                seen.add(early.getInt(1));
                early.close();
            }
            seen.add(run(c, "SELECT 'after'"));
            return seen;
        });
        with("copy_in", c -> {
            run(c, "CREATE TEMP TABLE copied (id int, name text)");
            StringBuilder lines = new StringBuilder();
            for (int n = 0; n < 20_000; n++) {
                lines.append(n).append("\trow ").append(n).append('\n');
            }
            long count = copies(c).copyIn("COPY copied FROM STDIN", new StringReader(lines.toString()));
            return list(count, run(c, "SELECT count(*), md5(string_agg(name, '' ORDER BY id)) FROM copied"));
        });
        with("copy_out", c -> {
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            long count = copies(c).copyOut("COPY (SELECT n, repeat('x', n % 100) FROM generate_series(1, 50000) n) TO STDOUT", out);
            return list(count, digest(out.toByteArray()));
        });
        with("copy_binary", c -> {
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            copies(c).copyOut("COPY items TO STDOUT (FORMAT binary)", out);
            run(c, "CREATE TEMP TABLE copied (LIKE items)");
            InputStream in = new ByteArrayInputStream(out.toByteArray());
            return list(digest(out.toByteArray()), copies(c).copyIn("COPY copied FROM STDIN (FORMAT binary)", in));
        });
        with("copy_failed", c -> {
            run(c, "CREATE TEMP TABLE copied (id int)");
            CopyIn given = copies(c).copyIn("COPY copied FROM STDIN");
            given.writeToCopy("1\n".getBytes(), 0, 2);
            given.cancelCopy();
            String wrong = "1\nx\n" + "3\n".repeat(50_000);
            return list(raised(() -> copies(c).copyIn("COPY copied FROM STDIN", new StringReader(wrong))),
                run(c, "SELECT count(*) FROM copied"));
        });
        with("cancel", c -> {
            Statement s = c.createStatement();
            CompletableFuture<Void> later = CompletableFuture.runAsync(() -> {
                try {
                    Thread.sleep(500);
                    s.cancel();
                } catch (Exception raised) {
                    throw new IllegalStateException(raised);
                }
            });
            Object first = raised(() -> s.execute("SELECT pg_sleep(30)"));
            later.get();
            s.setQueryTimeout(1);
            return list(first, raised(() -> s.execute("SELECT pg_sleep(30)")), run(c, "SELECT 'still there'"));
        });
        with("large_objects", c -> {
            // By the function call message, each of them.
            c.setAutoCommit(false);
            LargeObjectManager manager = c.unwrap(PGConnection.class).getLargeObjectAPI();
            long oid = manager.createLO();
            LargeObject large = manager.open(oid, LargeObjectManager.READWRITE);
            byte[] bytes = "abc".repeat(100_000).getBytes();
            large.write(bytes);
            large.seek(299_990);
            byte[] end = large.read(100);
            large.truncate(1_000);
            int size = large.size();
            large.close();
            manager.delete(oid);
            // Its message names the large object.
            String gone = ((SQLException) caught(() -> manager.open(oid, LargeObjectManager.READ))).getSQLState();
            c.rollback();
            return list(new String(end), size, gone);
        });
        with("notify", c -> {
            try (Connection speaker = connect()) {
                run(c, "LISTEN c_" + TAG);
                for (int n = 0; n < 3; n++) {
                    run(speaker, "NOTIFY c_" + TAG + ", 'payload " + n + "'");
                }
                List<Object> heard = new ArrayList<>();
                for (int n = 0; n < 100 && heard.size() < 3; n++) {
                    for (PGNotification one : c.unwrap(PGConnection.class).getNotifications(100)) {
                        heard.add(list(one.getParameter(), one.getPID() == speaker.unwrap(PGConnection.class).getBackendPID()));
                    }
                }
                return heard;
            }
        });
        with("notices", c -> {
            try (Statement s = c.createStatement()) {
                s.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING DETAIL = 'd', HINT = 'h'; END $$");
                List<Object> heard = new ArrayList<>();
                for (SQLWarning one = s.getWarnings(); one != null; one = one.getNextWarning()) {
                    heard.add(list(one.getSQLState(), one.getMessage()));
                }
                return heard;
            }
        });
        with("errors", c -> {
            List<Object> seen = new ArrayList<>();
            for (String sql : List.of("SELECT * FROM nothing", "SELECT 1 +", "SELECT 1 / 0", "INSERT INTO items VALUES (1, 'twice')",
                "INSERT INTO items VALUES (NULL, 'none')", "INSERT INTO items VALUES (5000, repeat('x', 2000))")) {
                seen.add(raised(() -> run(c, sql)));
            }
            seen.add(raised(() -> run(c, "SELECT ?::int", "no number")));
            return seen;
        });
        with("transactions", c -> {
            c.setAutoCommit(false);
            c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            Savepoint point = c.setSavepoint("s");
            Object failed = raised(() -> run(c, "SELECT 1 / 0"));
            c.rollback(point);
            Object level = run(c, "SHOW transaction_isolation");
            c.commit();
            c.setReadOnly(true);
            return list(failed, level, raised(() -> run(c, "INSERT INTO items VALUES (6000, 'x')")));
        });
        with("aborted", c -> {
            c.setAutoCommit(false);
            Object first = raised(() -> run(c, "SELECT 1 / 0"));
            Object second = raised(() -> run(c, "SELECT 1"));
            c.commit();
            return list(first, second, run(c, "SELECT 1"));
        });
        with("multi", c -> {
            List<Object> seen = new ArrayList<>();
            try (Statement s = c.createStatement()) {
                boolean results = s.execute("SELECT 1; CREATE TEMP TABLE m (a int); INSERT INTO m VALUES (1), (2); SELECT * FROM m");
                while (results || s.getUpdateCount() != -1) {
                    seen.add(results ? rows(s.getResultSet()) : s.getUpdateCount());
                    results = s.getMoreResults();
                }
                seen.add(raised(() -> s.execute("SELECT 1; SELECT 1 / 0; SELECT 2")));
            }
            return seen;
        });
        with("large_result", c -> {
            StringBuilder all = new StringBuilder();
            try (Statement s = c.createStatement()) {
                ResultSet results = s.executeQuery("SELECT repeat(md5(n::text), 30) FROM generate_series(1, 12000) n");
                while (results.next()) {
                    all.append(results.getString(1));
                }
            }
            return digest(all.toString().getBytes());
        });
        with("large_parameter", c -> run(c, "SELECT md5(?), length(?)", new byte[8 * 1024 * 1024], "parameter ".repeat(300_000)));
        with("timeout", c -> list(raised(() -> run(c, "SELECT pg_sleep(10)")), run(c, "SELECT 1")), "options", "-c statement_timeout=200");
        with("terminated", other -> {
            Connection c = connect();
            run(other, "SELECT pg_terminate_backend(?)", c.unwrap(PGConnection.class).getBackendPID());
            Thread.sleep(500);
            Object gone = raised(() -> run(c, "SELECT 1"));
            return list(gone, c.isValid(1), run(connect(), "SELECT 1"));
        });
        with("unicode", c -> run(c, "SELECT ? AS \"c\u00f6l \ud83e\udd80\", '\u65e5\u672c\u8a9e'", "\ud83e\udd80 '\"\\"));
        unsupported("pgjdbc insists on UTF-8", "encoding");
        with("settings", c -> {
            run(c, "SET TimeZone = 'Asia/Tokyo'");
            return list(run(c, "SHOW search_path"), run(c, "SHOW application_name"),
                c.unwrap(PGConnection.class).getParameterStatuses().get("TimeZone"),
                raised(() -> run(c, "SET client_encoding = 'LATIN1'")));
        }, "ApplicationName", "what is set", "options", "-c search_path=pg_catalog", "currentSchema", "pg_catalog");
        behaviours.put("many", () -> {
            ExecutorService pool = Executors.newFixedThreadPool(16);
            List<CompletableFuture<Object>> all = new ArrayList<>();
            for (int n = 0; n < 48; n++) {
                int number = n;
                all.add(CompletableFuture.supplyAsync(() -> {
                    try (Connection c = connect()) {
                        return run(c, "SELECT ?::int * 2", number);
                    } catch (Exception raised) {
                        return raised.toString();
                    }
                }, pool));
            }
            List<Object> results = new ArrayList<>();
            for (CompletableFuture<Object> one : all) {
                results.add(one.get());
            }
            pool.shutdown();
            return results;
        });
        with("masked", c -> {
            run(c, "CREATE TEMP TABLE people (id int, full_name text, email varchar(60), birth_date date, card_number bigint, "
                + "salary numeric(10,2), phones text[], profile jsonb, last_ip inet)");
            run(c, "INSERT INTO people VALUES (4711, 'Philippa Quackenbush', 'philippa@feathers.example', '1980-02-29', "
                + "4111111111111111, 5100.50, '{+44 20 7946 0958}', '{\"email\": \"philippa@feathers.example\"}', '203.0.113.7')");
            List<Object> outcomes = new ArrayList<>();
            try (PreparedStatement statement = c.prepareStatement("SELECT * FROM people")) {
                // After some runs the driver asks for values in binary.
                for (int run = 0; run < 8; run++) {
                    outcomes.add(person(statement.executeQuery()));
                }
            }
            try (Statement statement = c.createStatement()) {
                outcomes.add(person(statement.executeQuery("SELECT * FROM people")));
            }
            return outcomes;
        });
        with("refused", c -> {
            try (Statement s = c.createStatement()) {
                return list(refused(() -> s.execute("DROP TABLE guarded")), refused(() -> s.execute("SELECT 1; DROP TABLE guarded")),
                    run(c, "SELECT 'usable'"), c.isValid(1));
            }
        }, "preferQueryMode", "simple");
        with("refused_extended", c -> {
            try (PreparedStatement s = c.prepareStatement("DROP TABLE guarded")) {
                return list(refused(s::execute), refused(s::execute), refused(s::execute), run(c, "SELECT ?", "usable"));
            }
        }, "prepareThreshold", "1");
        with("refused_open", c -> {
            c.setAutoCommit(false);
            Object first = refused(() -> run(c, "DROP TABLE guarded"));
            Object second = raised(() -> run(c, "SELECT 1"));
            c.rollback();
            run(c, "SELECT 1");
            Savepoint point = c.setSavepoint();
            Object saved = refused(() -> run(c, "DROP TABLE guarded"));
            c.rollback(point);
            Object kept = run(c, "SELECT 'kept'");
            c.commit();
            return list(first, second, saved, kept);
        });
        with("refused_pipeline", c -> {
            try (Statement s = c.createStatement()) {
                for (String sql : List.of("UPDATE items SET name = name WHERE id = -1", "DROP TABLE guarded",
                    "INSERT INTO items VALUES (-2, 'must not be there')")) {
                    s.addBatch(sql);
                }
                return list(refused(s::executeBatch), run(c, "SELECT count(*) FROM items WHERE id = -2"));
            }
        });
    }

    static Object describe(Connection c) throws Exception {
        try (PreparedStatement s = c.prepareStatement("SELECT id, name, 1.5::numeric(5, 2) AS c FROM items WHERE id = ?")) {
            ResultSetMetaData shape = s.getMetaData();
            return list(shape.getColumnName(1), shape.getColumnTypeName(2), shape.getPrecision(3), s.getParameterMetaData().getParameterCount());
        }
    }

    static CopyManager copies(Connection c) throws SQLException {
        return c.unwrap(PGConnection.class).getCopyAPI();
    }

    static String json(Object value) {
        if (value == null || value instanceof Boolean || value instanceof Integer || value instanceof Long) {
            return String.valueOf(value);
        }
        StringBuilder text = new StringBuilder();
        if (value instanceof List) {
            for (Object item : (List<?>) value) {
                text.append(text.length() == 0 ? "" : ",").append(json(item));
            }
            return "[" + text + "]";
        }
        if (value instanceof Map) {
            for (Map.Entry<?, ?> entry : ((Map<?, ?>) value).entrySet()) {
                text.append(text.length() == 0 ? "" : ",").append(json(entry.getKey())).append(':').append(json(entry.getValue()));
            }
            return "{" + text + "}";
        }
        for (char c : value.toString().toCharArray()) {
            text.append(c < 0x20 || c > 0x7e || c == '"' || c == '\\' ? String.format("\\u%04x", (int) c) : String.valueOf(c));
        }
        return "\"" + text + "\"";
    }

    public static void main(String[] arguments) {
        define();
        for (String name : System.getenv("TEST_BEHAVIOURS").split(" ")) {
            Map<String, Object> line = new LinkedHashMap<>();
            line.put("behaviour", name);
            long started = System.nanoTime();
            try {
                Show show = behaviours.get(name);
                if (show == null) {
                    throw new IllegalStateException("the program does not show it");
                }
                line.put("value", show.run());
            } catch (Unsupported reason) {
                line.put("unsupported", reason.getMessage());
            } catch (Exception raised) {
                List<String> own = new ArrayList<>();
                for (StackTraceElement at : raised.getStackTrace()) {
                    if (at.getClassName().startsWith("Main")) {
                        own.add("line " + at.getLineNumber());
                    }
                }
                line.put("error", raised + " " + own);
            }
            line.put("seconds", String.format("%.2f", (System.nanoTime() - started) / 1e9));
            System.out.println(json(line));
        }
        System.out.flush();
        System.exit(0);
    }
}
