CREATE TABLE customers (
  id int PRIMARY KEY,
  full_name text NOT NULL,
  email varchar(120) UNIQUE,
  phone text,
  iban char(34),
  birth_date date,
  ssn text,
  card_number bigint,
  salary numeric(12, 2),
  ip_address inet,
  password_hash text,
  diagnosis text,
  remarks text,
  preferences jsonb,
  document json,
  contacts text[],
  api_key bytea
);
INSERT INTO customers VALUES
  (1, 'Zebulon Quackenbush', 'zebulon.quackenbush@wobbleworth.example', '+49 151 90284417', 'DE89370400440532013000',
   '1971-03-09', '536-90-4399', 4111111111111111, 83411.57, '203.0.113.77',
   '$2b$12$Q9dYxJq3Zr0vXw5T7uKpLe8mNbVcXzAsDfGhJkLqWeRtYuIoPaSdF', 'fibromyalgia xanthic',
   'call zebulon.quackenbush@wobbleworth.example or +49 151 90284417',
   '{"mail": "zebulon.quackenbush@wobbleworth.example", "nested": {"phone": "+49 151 90284417"}}',
   '{"card": "4111 1111 1111 1111"}', ARRAY['zebulon.quackenbush@wobbleworth.example', '+49 151 90284417'],
   'AKIAIOSFODNN7EXAMPLE'),
  (2, 'Philippa Featherstone', 'philippa.featherstone@grimblefax.example', '+44 7911 123456', 'GB82WEST12345698765432',
   '1984-11-23', '078-05-1120', 5500005555555559, 41277.03, '198.51.100.201',
   '$2b$12$abcdefghijklmnopqrstuuW3pYQ5ZrT1vXw5T7uKpLe8mNbVcXzAs', 'sarcoidosis umbrella',
   'mail philippa.featherstone@grimblefax.example',
   '{"mail": "philippa.featherstone@grimblefax.example"}', '{"iban": "GB82WEST12345698765432"}',
   ARRAY['philippa.featherstone@grimblefax.example'], 'AKIAI44QH8DHBEXAMPLE');
CREATE TABLE notes (id int PRIMARY KEY, customer int REFERENCES customers, body text, val bigint);
INSERT INTO notes VALUES
  (1, 1, 'wrote from zebulon.quackenbush@wobbleworth.example about card 4111 1111 1111 1111', 4111111111111111),
  (2, 2, 'IBAN GB82 WEST 1234 5698 7654 32, phone +44 7911 123456', 5500005555555559);
CREATE TABLE archive (id int, who text, how text);
CREATE VIEW people AS SELECT id, full_name AS a, email AS b, phone AS c, upper(full_name) AS d FROM customers;
CREATE VIEW people_of_people AS SELECT id, a AS x, b || '' AS y FROM people;
CREATE MATERIALIZED VIEW frozen AS SELECT id, full_name AS f, email AS g FROM customers;
CREATE TYPE pair AS (one text, two text);
CREATE DOMAIN remark AS text;
CREATE FUNCTION name_of(int) RETURNS text LANGUAGE sql AS 'SELECT full_name FROM customers WHERE id = $1';
CREATE FUNCTION mail_of(int) RETURNS text LANGUAGE plpgsql AS
  'DECLARE m text; BEGIN SELECT email INTO m FROM customers WHERE id = $1; RETURN m; END';
CREATE FUNCTION everybody() RETURNS SETOF customers LANGUAGE sql AS 'SELECT * FROM customers';
CREATE FUNCTION pairs() RETURNS TABLE (p text, q text) LANGUAGE sql AS 'SELECT full_name, email FROM customers';
CREATE FUNCTION whole(customers) RETURNS text LANGUAGE sql AS 'SELECT $1.full_name || $1.email';
CREATE FUNCTION same(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION turned(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN reverse($1); END';
CREATE FUNCTION out_of(IN i int, OUT n text, OUT m text) LANGUAGE sql AS 'SELECT full_name, email::text FROM customers WHERE id = $1';
CREATE FUNCTION told(int) RETURNS void LANGUAGE plpgsql AS
  'DECLARE r customers; BEGIN SELECT * INTO r FROM customers WHERE id = $1; RAISE NOTICE ''it is % (%)'', r.full_name, r.email; END';
CREATE FUNCTION opened() RETURNS refcursor LANGUAGE plpgsql AS
  'DECLARE c refcursor := ''opened_cursor''; BEGIN OPEN c FOR SELECT upper(full_name) AS u, email FROM customers; RETURN c; END';
CREATE AGGREGATE glued(text) (sfunc = textcat, stype = text, initcond = '');
CREATE PROCEDURE shown(INOUT n text) LANGUAGE plpgsql AS 'BEGIN SELECT full_name INTO n FROM customers WHERE id = 1; END';
ANALYZE;
