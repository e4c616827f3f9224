-- What the log means, in tables that can be emptied and filled again at any time.
-- No personal values: only what entries hold in clear, which is codes, names of
-- fields, pseudonyms and positions.

-- What is the state of this record? `state` is the whole answer; the columns beside it
-- are for finding records.
CREATE TABLE view_record_state (
    record    uuid   PRIMARY KEY,
    status    text   NOT NULL,
    version   bigint NOT NULL,
    first_seq bigint NOT NULL,
    last_seq  bigint NOT NULL,
    state     jsonb  NOT NULL
) WITH (fillfactor = 70);

-- Who looked, and why? One row for each entry by which somebody came to know values.
CREATE TABLE view_access_history (
    seq            bigint      PRIMARY KEY,
    leaf           bytea       NOT NULL,
    record         uuid,
    type           text        NOT NULL,
    time           timestamptz NOT NULL,
    time_given     boolean     NOT NULL,
    recorded       timestamptz NOT NULL,
    actor          uuid,
    actor_kind     text        NOT NULL,
    actor_role     text,
    on_behalf_of   uuid,
    fields         text[]      NOT NULL,
    activity       text,
    purpose        text,
    legal_basis    text,
    outcome        text        NOT NULL,
    source         text        NOT NULL,
    reason_ref     text,
    recipient      text,
    recipient_kind text,
    masked         boolean,
    backfill       boolean     NOT NULL,
    incomplete     text[]      NOT NULL,
    correction     text,
    corrected_seq  bigint
);
CREATE INDEX view_access_history_record ON view_access_history (record, seq);
CREATE INDEX view_access_history_actor ON view_access_history (actor, seq);
-- Times follow positions closely, so a summary of each range of pages finds them, at no cost.
CREATE INDEX view_access_history_time ON view_access_history USING brin (time)
    WITH (autosummarize = on);

-- How far each view has come, in the shape that the event-sourcing library keeps: one row
-- an application, and one that tells the library not to convert the table.
CREATE TABLE view_record_state_tracking (
    application_name text,
    notification_id  bigint,
    PRIMARY KEY (application_name)
) WITH (fillfactor = 10);
CREATE TABLE view_access_history_tracking (
    application_name text,
    notification_id  bigint,
    PRIMARY KEY (application_name)
) WITH (fillfactor = 10);
INSERT INTO view_record_state_tracking VALUES ('__migration__', 1);
INSERT INTO view_access_history_tracking VALUES ('__migration__', 1);
