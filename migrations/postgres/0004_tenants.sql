-- Tenants that live in the database (table version 1). Kamailio knows nothing of this table.

CREATE TABLE IF NOT EXISTS "portcullis_tenant" (
    "name" VARCHAR(32) COLLATE "C" PRIMARY KEY NOT NULL,
    "config" TEXT DEFAULT NULL,
    "revision" BIGINT NOT NULL,
    "changed_by" VARCHAR(255) NOT NULL,
    "changed_at" BIGINT NOT NULL
);

INSERT INTO "version" ("table_name", "table_version") VALUES ('portcullis_tenant', 1) ON CONFLICT DO NOTHING;
