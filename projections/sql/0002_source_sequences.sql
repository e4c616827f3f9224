-- Is something of a source missing, and does it still speak? One row for each source and
-- instance ('' where it names none). Sums are of events, not of entries: an event about
-- several subjects counts once.
CREATE TABLE view_source_sequences (
    source               text        NOT NULL,
    instance             text        NOT NULL,
    events               bigint      NOT NULL,
    first_recorded       timestamptz NOT NULL,
    last_recorded        timestamptz NOT NULL,
    last_seq             bigint      NOT NULL,
    numbered             bigint      NOT NULL,
    first_sequence       bigint,
    last_sequence        bigint,
    latest_sequence      bigint,
    missing              bigint      NOT NULL,
    gaps                 bigint      NOT NULL,
    repeats              bigint      NOT NULL,
    last_repeat_seq      bigint,
    went_back            bigint      NOT NULL,
    last_back_seq        bigint,
    backfill             bigint      NOT NULL,
    incomplete           bigint      NOT NULL,
    timed                bigint      NOT NULL,
    late_ms              bigint      NOT NULL,
    late_max_ms          bigint      NOT NULL,
    late_minute          bigint      NOT NULL,
    late_hour            bigint      NOT NULL,
    late_day             bigint      NOT NULL,
    ahead                bigint      NOT NULL,
    reports              bigint      NOT NULL,
    reported_total       bigint      NOT NULL,
    report_seq           bigint,
    report_recorded      timestamptz,
    report_count         bigint,
    report_last_sequence bigint,
    report_until         timestamptz,
    PRIMARY KEY (source, instance)
) WITH (fillfactor = 70);

-- Runs of numbers that were not met yet, between the least and the greatest that were. In a
-- table of their own, since there can be as many of them as there are events.
CREATE TABLE view_source_sequences_gaps (
    source   text   NOT NULL,
    instance text   NOT NULL,
    first    bigint NOT NULL,
    last     bigint NOT NULL,
    PRIMARY KEY (source, instance, first)
);

CREATE TABLE view_source_sequences_tracking (
    application_name text,
    notification_id  bigint,
    PRIMARY KEY (application_name)
) WITH (fillfactor = 10);
INSERT INTO view_source_sequences_tracking VALUES ('__migration__', 1);
