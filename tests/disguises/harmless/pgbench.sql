-- What pgbench sends, with literals in place of its variables.
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + -4096 WHERE aid = 77012;
SELECT abalance FROM pgbench_accounts WHERE aid = 77012;
UPDATE pgbench_tellers SET tbalance = tbalance + -4096 WHERE tid = 7;
UPDATE pgbench_branches SET bbalance = bbalance + -4096 WHERE bid = 1;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (7, 1, 77012, -4096, CURRENT_TIMESTAMP);
END;
UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2;
SELECT abalance FROM pgbench_accounts WHERE aid = $1;
select count(*) from pgbench_branches;
