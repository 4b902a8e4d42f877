"""What the Python programs of this folder share.

A program writes one function per behaviour of behaviours.txt. It prints one JSON line for each: what came out, that the
driver has no such thing, or what went wrong. Values must not depend on process ids, ports or time.
"""

import hashlib
import json
import os
import sys
import time
import traceback

HOST = os.environ["TEST_HOST"]
PORT = int(os.environ["TEST_PORT"])
DATABASE = os.environ["TEST_DATABASE"]
USER = os.environ["TEST_USER"]
PASSWORD = os.environ["TEST_PASSWORD"]
MD5_USER = os.environ["TEST_MD5_USER"]
# Differs between programs that run at the same time.
TAG = os.environ["TEST_TAG"]
# The certificate that signed the server's; empty where it speaks no TLS.
CA = os.environ["TEST_CA"]
MEGABYTE = 1024 * 1024

_behaviours = {}


class Unsupported(Exception):
    """The driver has no such thing."""


def behaviour(function):
    """Marks what shows the behaviour of this name."""
    _behaviours[function.__name__] = function
    return function


def unsupported(reason, *names):
    """Says of behaviours that the driver does not have them."""
    for name in names:
        _behaviours[name] = lambda reason=reason: (_ for _ in ()).throw(Unsupported(reason))


def needs_tls():
    """Ends a behaviour that needs TLS where there is none."""
    if not CA:
        raise Unsupported("this way to the server has no TLS")


# A table of a person, whose columns tell by their names what they hold.
PEOPLE = ["CREATE TEMP TABLE people (id int, full_name text, email varchar(60), birth_date date, card_number bigint, "
          "salary numeric(10,2), phones text[], profile jsonb, last_ip inet)",
          "INSERT INTO people VALUES (4711, 'Philippa Quackenbush', 'philippa@feathers.example', '1980-02-29', 4111111111111111, "
          "5100.50, '{+44 20 7946 0958}', '{\"email\": \"philippa@feathers.example\"}', '203.0.113.7')"]
CLEAR = ["Quackenbush", "philippa", "1980-02-29", "1980, 2, 29", "4111111111111111", "5100.5", "7946", "203.0.113.7"]


def person(rows):
    """The types of people's values, and whether guard has masked all of them; what is nobody's stays."""
    rows = [list(row) for row in rows]
    shown = repr(rows)
    return {"types": [[type(value).__name__ for value in row] for row in rows], "nulls": [row.count(None) for row in rows],
            "ids": [row[0] for row in rows], "by_guard": not any(value in shown for value in CLEAR)}


def digest(data):
    """A large value in a few characters."""
    data = data.encode() if isinstance(data, str) else bytes(data)
    return f"{len(data)}:{hashlib.sha256(data).hexdigest()[:16]}"


def attempt(function, describe):
    """What `function` raises, as `describe` puts it; an error where it raises nothing."""
    try:
        result = function()
    except Exception as error:  # noqa: BLE001: whatever the driver raises is the result
        return describe(error)
    raise AssertionError(f"nothing was raised; it gave {result!r}")


def outcome(function, describe):
    """What `function` gives, or raises."""
    try:
        return function()
    except Exception as error:  # noqa: BLE001: whatever the driver raises is the result
        return describe(error)


def eventually(condition, what, seconds=10):
    """Waits until `condition` gives something true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


def text(value):
    """A JSON value for whatever a driver gives."""
    if isinstance(value, (list, tuple)):
        return [text(item) for item in value]
    if isinstance(value, dict):
        return {str(key): text(item) for key, item in value.items()}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "bytes " + bytes(value).hex()
    return f"{type(value).__name__} {value}"


def main():
    """Runs the behaviours that are asked for."""
    for name in os.environ["TEST_BEHAVIOURS"].split():
        line, started = {"behaviour": name}, time.monotonic()
        try:
            if name not in _behaviours:
                raise AssertionError("the program does not show it")
            line["value"] = text(_behaviours[name]())
        except Unsupported as reason:
            line["unsupported"] = str(reason)
        except Exception as error:  # noqa: BLE001: the runner shows it
            place = traceback.extract_tb(error.__traceback__)
            own = [entry.lineno for entry in place if entry.filename == sys.argv[0]]
            line["error"] = f"{type(error).__name__}: {error} (lines {own})"
        line["seconds"] = round(time.monotonic() - started, 2)
        print(json.dumps(line), flush=True)
