-- The table `trusted` as Kamailio's scripts create it (table version 6).

CREATE TABLE IF NOT EXISTS "trusted" (
    "id" SERIAL PRIMARY KEY NOT NULL,
    "src_ip" VARCHAR(50) NOT NULL,
    "proto" VARCHAR(4) NOT NULL,
    "from_pattern" VARCHAR(64) DEFAULT NULL,
    "ruri_pattern" VARCHAR(64) DEFAULT NULL,
    "tag" VARCHAR(64),
    "priority" INTEGER DEFAULT 0 NOT NULL
);

CREATE INDEX ON "trusted" ("src_ip");

INSERT INTO "version" ("table_name", "table_version") VALUES ('trusted', 6) ON CONFLICT DO NOTHING;
