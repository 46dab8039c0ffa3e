-- The hosts of a fleet: each writes its own row (table version 1). Kamailio knows nothing of this table. Times are milliseconds since 1970, by
-- the clock of the database. `wish` is what an operator asks of the process `instance`.

CREATE TABLE IF NOT EXISTS `portcullis_host` (
    `host` VARCHAR(64) PRIMARY KEY NOT NULL,
    `instance` CHAR(32) NOT NULL,
    `address` VARCHAR(255) NOT NULL,
    `version` VARCHAR(64) NOT NULL,
    `started_at` INTEGER NOT NULL,
    `seen_at` INTEGER NOT NULL,
    `state` TEXT NOT NULL,
    `wish` VARCHAR(32) DEFAULT NULL,
    `wished_by` VARCHAR(255) DEFAULT NULL,
    `wished_at` INTEGER DEFAULT NULL
);

INSERT OR IGNORE INTO `version` (`table_name`, `table_version`) VALUES ('portcullis_host', 1);
