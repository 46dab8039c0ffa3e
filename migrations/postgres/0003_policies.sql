-- Policies that were pushed, and which of them decide (table versions 1). Kamailio knows nothing of these tables.

CREATE TABLE IF NOT EXISTS "portcullis_artifact" (
    "digest" VARCHAR(64) COLLATE "C" PRIMARY KEY NOT NULL,
    "bytes" BYTEA NOT NULL,
    "created_at" BIGINT NOT NULL
);

INSERT INTO "version" ("table_name", "table_version") VALUES ('portcullis_artifact', 1) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS "portcullis_generation" (
    "seat" VARCHAR(32) COLLATE "C" NOT NULL,
    "number" BIGINT NOT NULL,
    "digest" VARCHAR(64) COLLATE "C" NOT NULL,
    "name" VARCHAR(255) NOT NULL,
    "contract" VARCHAR(64) NOT NULL,
    "author" VARCHAR(255) NOT NULL,
    "note" TEXT NOT NULL,
    "signature" VARCHAR(255) NOT NULL DEFAULT '',
    "created_at" BIGINT NOT NULL,
    PRIMARY KEY ("seat", "number")
);

INSERT INTO "version" ("table_name", "table_version") VALUES ('portcullis_generation', 1) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS "portcullis_seat" (
    "seat" VARCHAR(32) COLLATE "C" PRIMARY KEY NOT NULL,
    "last" BIGINT NOT NULL,
    "active" BIGINT DEFAULT NULL,
    "previous" BIGINT DEFAULT NULL,
    "candidate" BIGINT DEFAULT NULL,
    "share" BIGINT DEFAULT NULL,
    "mode" VARCHAR(8) DEFAULT NULL,
    "revision" BIGINT NOT NULL,
    "changed_by" VARCHAR(255) NOT NULL,
    "changed_at" BIGINT NOT NULL
);

INSERT INTO "version" ("table_name", "table_version") VALUES ('portcullis_seat', 1) ON CONFLICT DO NOTHING;
