-- The log of one ledger and what indexes its bytes (FORMAT.md section 6).
-- Tables that must be unique over all time stand apart from `entries`, so that
-- `entries` can later be partitioned by seq and archived.

CREATE TABLE entries (
    seq     bigint  PRIMARY KEY CHECK (seq > 0),
    stream  uuid    NOT NULL,
    version bigint  NOT NULL,
    topic   text    NOT NULL,
    leaf    bytea   NOT NULL CHECK (octet_length(leaf) = 32),
    entry   bytea   NOT NULL CHECK (octet_length(entry) <= 65535)
);
CREATE INDEX entries_stream ON entries (stream, version);

-- One row: whoever moves it from the value it knows owns the next numbers.
CREATE TABLE head (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    seq      bigint  NOT NULL,
    leaf     bytea   NOT NULL,
    recorded text    NOT NULL
) WITH (fillfactor = 10);
INSERT INTO head (seq, leaf, recorded) VALUES (0, decode(repeat('00', 32), 'hex'), '');

CREATE TABLE stream_heads (
    stream  uuid   PRIMARY KEY,
    version bigint NOT NULL,
    leaf    bytea  NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE accepted (
    key bytea  PRIMARY KEY CHECK (octet_length(key) = 16),
    seq bigint NOT NULL
);

CREATE TABLE tree_nodes (
    level smallint NOT NULL CHECK (level > 0),
    idx   bigint   NOT NULL,
    hash  bytea    NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (level, idx)
);

CREATE TABLE checkpoints (
    size   bigint      PRIMARY KEY,
    note   text        NOT NULL,
    signed timestamptz NOT NULL DEFAULT now(),
    kept   boolean     NOT NULL DEFAULT false
);

-- What the digests in the entries open to. Rows here may be deleted: that is erasure.
CREATE TABLE boxes (
    seq bigint PRIMARY KEY,
    box bytea  NOT NULL
);
ALTER TABLE boxes ALTER COLUMN box SET STORAGE EXTERNAL;

CREATE TABLE identities (
    lookup  bytea   PRIMARY KEY CHECK (octet_length(lookup) = 32),
    epoch   integer NOT NULL,
    wrapped bytea   NOT NULL
);

CREATE TABLE keys (
    id       uuid    PRIMARY KEY,
    epoch    integer NOT NULL,
    wrapped  bytea   NOT NULL,
    name_box bytea
);

-- Stops accidents. The database's owner can switch it off without a trace:
-- against the owner only hashes and checkpoints held outside help.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%.% is append-only', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON tree_nodes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON accepted
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
