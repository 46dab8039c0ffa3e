-- The tables `version` and `address` as Kamailio's scripts create them (table versions 1 and 6).

CREATE TABLE IF NOT EXISTS "version" (
    "id" SERIAL PRIMARY KEY NOT NULL,
    "table_name" VARCHAR(32) NOT NULL,
    "table_version" INTEGER DEFAULT 0 NOT NULL,
    UNIQUE ("table_name")
);

INSERT INTO "version" ("table_name", "table_version") VALUES ('version', 1) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS "address" (
    "id" SERIAL PRIMARY KEY NOT NULL,
    "grp" INTEGER DEFAULT 1 NOT NULL,
    "ip_addr" VARCHAR(50) NOT NULL,
    "mask" INTEGER DEFAULT 32 NOT NULL,
    "port" SMALLINT DEFAULT 0 NOT NULL,
    "tag" VARCHAR(64)
);

INSERT INTO "version" ("table_name", "table_version") VALUES ('address', 6) ON CONFLICT DO NOTHING;
