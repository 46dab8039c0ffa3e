-- Roll-outs of generations over all hosts, one for each seat (table version 1). Kamailio knows nothing of this table. `steps` and `gates` are JSON.
-- Times are milliseconds since 1970, by the clock of the database. `leader` is the host that moves the roll-out until `lead_until`.

CREATE TABLE IF NOT EXISTS "portcullis_rollout" (
    "seat" VARCHAR(32) COLLATE "C" PRIMARY KEY NOT NULL,
    "generation" BIGINT NOT NULL,
    "base" BIGINT NOT NULL,
    "steps" TEXT NOT NULL,
    "gates" TEXT NOT NULL,
    "step" BIGINT NOT NULL,
    "step_at" BIGINT NOT NULL,
    "reference_ns" BIGINT DEFAULT NULL,
    "reference_p99_ns" BIGINT DEFAULT NULL,
    "state" VARCHAR(16) NOT NULL,
    "why" TEXT NOT NULL,
    "revision" BIGINT NOT NULL,
    "changed_by" VARCHAR(255) NOT NULL,
    "changed_at" BIGINT NOT NULL,
    "leader" VARCHAR(128) DEFAULT NULL,
    "lead_until" BIGINT DEFAULT NULL
);

INSERT INTO "version" ("table_name", "table_version") VALUES ('portcullis_rollout', 1) ON CONFLICT DO NOTHING;
