-- The audit: actions of operators and tenants (table version 1). Kamailio knows nothing of this table. SELECT and INSERT are enough to
-- write and read it; DELETE is for the limits of `audit-rows` and `audit-age`.

CREATE TABLE IF NOT EXISTS "portcullis_audit" (
    "id" BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY NOT NULL,
    "host" VARCHAR(255) NOT NULL,
    "process" CHAR(32) COLLATE "C" NOT NULL,
    "number" BIGINT NOT NULL,
    "at" BIGINT NOT NULL,
    "author" VARCHAR(512) NOT NULL,
    "tenant" VARCHAR(32) COLLATE "C" DEFAULT NULL,
    "token" VARCHAR(255) DEFAULT NULL,
    "door" VARCHAR(16) NOT NULL,
    "command" VARCHAR(64) NOT NULL,
    "seat" VARCHAR(512) DEFAULT NULL,
    "subject" VARCHAR(512) DEFAULT NULL,
    "error" VARCHAR(512) DEFAULT NULL,
    UNIQUE ("process", "number")
);

CREATE INDEX IF NOT EXISTS "portcullis_audit_tenant" ON "portcullis_audit" ("tenant", "id");

INSERT INTO "version" ("table_name", "table_version") VALUES ('portcullis_audit', 1) ON CONFLICT DO NOTHING;
