-- What the places outside gave back for checkpoints (FORMAT.md section 6).

CREATE TABLE anchors (
    sink       text        NOT NULL,
    size       bigint      NOT NULL CHECK (size > 0),
    kind       text        NOT NULL,
    root       bytea       NOT NULL CHECK (octet_length(root) = 32),
    media_type text        NOT NULL,
    evidence   bytea       NOT NULL,
    anchored   timestamptz NOT NULL DEFAULT now(),
    seq        bigint,
    PRIMARY KEY (sink, size)
);
CREATE INDEX anchors_untold ON anchors (sink, size) WHERE seq IS NULL;
CREATE INDEX anchors_size ON anchors (size);
CREATE INDEX anchors_witnessed ON anchors (size) WHERE kind = 'witness';

-- One row for each sink that fails, or that failed when it was last asked.
CREATE TABLE failing_sinks (
    sink   text        PRIMARY KEY,
    kind   text        NOT NULL,
    since  timestamptz NOT NULL,
    reason text        NOT NULL,
    seq    bigint
);

-- `seq` is entered once, when the entry that tells of it stands; nothing else changes.
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON anchors
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER told_once BEFORE UPDATE ON anchors
    FOR EACH ROW WHEN (
        OLD.seq IS NOT NULL
        OR (OLD.sink, OLD.size, OLD.kind, OLD.root, OLD.media_type, OLD.evidence, OLD.anchored)
        IS DISTINCT FROM
        (NEW.sink, NEW.size, NEW.kind, NEW.root, NEW.media_type, NEW.evidence, NEW.anchored)
    )
    EXECUTE FUNCTION refuse_change();
