-- What is known of all ledgers of one service: names, credentials.
-- A ledger's own history of these is in its log, so that it can be moved whole.

CREATE TABLE ledgers (
    name    text        PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_]{0,39}$'),
    origin  text        NOT NULL UNIQUE,
    created timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE credentials (
    id         text        PRIMARY KEY,
    ledger     text        NOT NULL,
    role       text        NOT NULL CHECK (role IN ('emitter', 'reader')),
    label      text        NOT NULL,
    hash       bytea       NOT NULL CHECK (octet_length(hash) = 32),
    sources    text[]      NOT NULL,
    namespaces text[]      NOT NULL,
    types      text[]      NOT NULL,
    created    timestamptz NOT NULL DEFAULT now(),
    revoked    timestamptz
);
