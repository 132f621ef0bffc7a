"""What lies in the database, and the three questions asked of it, each of which is one statement.

Everything is in the schema `linepicker`, by its full name, so that no session state matters. A version is the store's epoch
joined with `counter`. The functions raise LP001 where the store is not the one that was expected, and LP002 where the
transaction would not see what others have committed.

How a swap is atomic at READ COMMITTED: first it takes an advisory lock on each of its keys, whether there is such a record or
not, exclusive where it writes and shared where it only checks, all in one order; then it looks, with a snapshot taken after the
last lock was had. The locks are held until the transaction's end is visible to everyone. They cost no write, unlike row
locks, so a record that every swap demands (the store's epoch is one) is no bottleneck. A swap of more than a
hundred keys locks its namespace instead, or the server's table of locks might fill up.

Limits are in milliseconds, and of the transaction: `lock_limit` for each wait, `whole_limit` (from PostgreSQL 17 on) for all of
it. `statement_timeout` can't be had so: it takes a statement before, and with it a third more time for every call.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LOOK", "MIGRATIONS", "READ", "SCAN", "SWAP"]

LOOK: Final = """
    SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
        pg_is_in_recovery() OR current_setting('transaction_read_only')::bool,
        current_setting('synchronous_commit'),
        EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'linepicker'),
        EXISTS (SELECT FROM pg_catalog.pg_tables WHERE schemaname = 'linepicker' AND tablename = 'store')
"""
"""What has to be known of a server: version, encoding, read only, when it acknowledges, and what is there of ours.

By its tables: `to_regclass` and the like may not see yet what another session has just made.
"""

SWAP: Final = """
    SELECT * FROM linepicker.swap(%s, %s, %s, %s, %s, %s, %s::text[], %s::int8[], %s::bytea[], %s::float8[],
        %s::text[], %s::int8[], %s::text[], %s::int8[])
"""
READ: Final = "SELECT * FROM linepicker.read(%s, %s, %s, %s, %s, %s, %s::text[])"
SCAN: Final = "SELECT * FROM linepicker.scan(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"

MIGRATIONS: Final = (
    """
    CREATE SEQUENCE linepicker.counter MAXVALUE 281474976710655;

    CREATE TABLE linepicker.store (version int NOT NULL, epoch bigint NOT NULL);
    INSERT INTO linepicker.store VALUES (0, {epoch});

    CREATE TABLE linepicker.record (
        namespace text COLLATE "C" NOT NULL,
        key text COLLATE "C" NOT NULL,
        counter bigint NOT NULL,
        expires double precision,
        value bytea NOT NULL,
        PRIMARY KEY (namespace, key)
    ) WITH (fillfactor = 85);
    CREATE INDEX record_expires ON linepicker.record (expires) WHERE expires IS NOT NULL;

    CREATE FUNCTION linepicker.enter(expected bigint, known bigint, lock_limit int, whole_limit int)
    RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM set_config('lock_timeout', lock_limit::text, true);
        IF whole_limit IS NOT NULL THEN
            PERFORM set_config('transaction_timeout', whole_limit::text, true);
        END IF;
        IF pg_is_in_recovery() THEN
            RAISE EXCEPTION 'a standby' USING ERRCODE = 'read_only_sql_transaction';
        END IF;
        IF NOT EXISTS (
            SELECT FROM linepicker.store s, linepicker.counter c WHERE s.epoch = expected AND c.last_value >= known
        ) THEN
            RAISE EXCEPTION 'another store' USING ERRCODE = 'LP001';
        END IF;
    END $$;

    CREATE FUNCTION linepicker.read(
        space text, expected bigint, known bigint, lock_limit int, whole_limit int, moment double precision,
        keys text[],
        OUT now double precision, OUT names text[], OUT counters bigint[], OUT contents bytea[]
    ) LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM linepicker.enter(expected, known, lock_limit, whole_limit);
        now := coalesce(moment, extract(epoch FROM clock_timestamp()));
        SELECT array_agg(r.key), array_agg(r.counter), array_agg(r.value) INTO names, counters, contents
        FROM linepicker.record r
        WHERE r.namespace = space AND r.key = ANY (keys) AND (r.expires IS NULL OR r.expires > now);
    END $$;

    CREATE FUNCTION linepicker.scan(
        space text, expected bigint, known bigint, lock_limit int, whole_limit int, moment double precision,
        lower text, upper_space text, upper text, size bigint,
        OUT now double precision, OUT names text[], OUT counters bigint[], OUT contents bytea[]
    ) LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM linepicker.enter(expected, known, lock_limit, whole_limit);
        now := coalesce(moment, extract(epoch FROM clock_timestamp()));
        SELECT array_agg(p.key), array_agg(p.counter), array_agg(p.value) INTO names, counters, contents
        FROM (
            SELECT r.key, r.counter, r.value FROM linepicker.record r
            WHERE (r.namespace, r.key) >= (space, lower) AND (r.namespace, r.key) < (upper_space, upper)
                AND (r.expires IS NULL OR r.expires > now)
            ORDER BY r.namespace, r.key LIMIT size
        ) AS p;
    END $$;

    CREATE FUNCTION linepicker.swap(
        space text, expected bigint, known bigint, lock_limit int, whole_limit int, moment double precision,
        keys text[], counters bigint[], contents bytea[], ends double precision[],
        same text[], same_counters bigint[], seen text[], seen_counters bigint[],
        OUT applied boolean, OUT now double precision,
        OUT names text[], OUT their_counters bigint[], OUT their_contents bytea[]
    ) LANGUAGE plpgsql AS $$
    DECLARE
        seed bigint := hashtextextended(space COLLATE "C", 5);
        ending int;
    BEGIN
        PERFORM linepicker.enter(expected, known, lock_limit, whole_limit);
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'not read committed' USING ERRCODE = 'LP002';
        END IF;

        IF cardinality(keys) + cardinality(same) > 100 THEN
            PERFORM pg_advisory_xact_lock(seed);
        ELSE
            PERFORM pg_advisory_xact_lock_shared(seed);
            PERFORM CASE WHEN writes THEN pg_advisory_xact_lock(id) ELSE pg_advisory_xact_lock_shared(id) END
            FROM (
                SELECT hashtextextended(k COLLATE "C", seed) AS id, bool_or(n <= cardinality(keys)) AS writes
                FROM unnest(keys || same) WITH ORDINALITY AS u(k, n) GROUP BY 1 ORDER BY 1
            ) AS locks;
        END IF;

        now := coalesce(moment, extract(epoch FROM clock_timestamp()));
        applied := NOT EXISTS (
            SELECT FROM unnest(keys || same, counters || same_counters) AS u(k, c)
            WHERE c <> coalesce((
                SELECT r.counter FROM linepicker.record r
                WHERE r.namespace = space AND r.key = k AND (r.expires IS NULL OR r.expires > now)
            ), 0)
        );
        IF NOT applied THEN
            SELECT array_agg(k), array_agg(coalesce(r.counter, 0)), array_agg(r.value)
            INTO names, their_counters, their_contents
            FROM unnest(keys || same || seen, counters || same_counters || seen_counters) AS u(k, c)
            LEFT JOIN LATERAL (
                SELECT * FROM linepicker.record r
                WHERE r.namespace = space AND r.key = k AND (r.expires IS NULL OR r.expires > now) LIMIT 1
            ) AS r ON true
            WHERE c <> coalesce(r.counter, 0);
            RETURN;
        END IF;

        WITH put AS (
            INSERT INTO linepicker.record AS r (namespace, key, counter, expires, value)
            SELECT space, k, nextval('linepicker.counter'), nullif(e, 'infinity'), v
            FROM unnest(keys, contents, ends) AS u(k, v, e) WHERE v IS NOT NULL
            ON CONFLICT ON CONSTRAINT record_pkey
            DO UPDATE SET counter = excluded.counter, expires = excluded.expires, value = excluded.value
            RETURNING r.key, r.counter, r.expires
        )
        SELECT array_agg(put.key), array_agg(put.counter), count(put.expires) INTO names, their_counters, ending FROM put;
        IF array_position(contents, NULL) IS NOT NULL THEN
            DELETE FROM linepicker.record r USING unnest(keys, contents) AS u(k, v)
            WHERE v IS NULL AND r.namespace = space AND r.key = k;
        END IF;
        IF ending > 0 THEN -- two may go for each that comes, so that they can't pile up
            DELETE FROM linepicker.record r USING (
                SELECT d.namespace, d.key FROM linepicker.record d WHERE d.expires <= now
                ORDER BY d.expires LIMIT 2 * ending FOR UPDATE SKIP LOCKED
            ) AS due
            WHERE r.namespace = due.namespace AND r.key = due.key;
        END IF;
    END $$;
    """,
)
"""What takes a database from schema version n to n + 1. `{epoch}` is drawn by who makes the store."""
