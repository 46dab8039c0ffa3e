-- Policies that were pushed, and which of them decide (table versions 1). Kamailio knows nothing of these tables.

CREATE TABLE IF NOT EXISTS `portcullis_artifact` (
    `digest` CHAR(64) PRIMARY KEY NOT NULL,
    `bytes` BLOB NOT NULL,
    `created_at` INTEGER NOT NULL
);

INSERT OR IGNORE INTO `version` (`table_name`, `table_version`) VALUES ('portcullis_artifact', 1);

CREATE TABLE IF NOT EXISTS `portcullis_generation` (
    `seat` VARCHAR(32) NOT NULL,
    `number` INTEGER NOT NULL,
    `digest` CHAR(64) NOT NULL,
    `name` VARCHAR(255) NOT NULL,
    `contract` VARCHAR(64) NOT NULL,
    `author` VARCHAR(255) NOT NULL,
    `note` TEXT NOT NULL,
    `signature` VARCHAR(255) NOT NULL DEFAULT '',
    `created_at` INTEGER NOT NULL,
    PRIMARY KEY (`seat`, `number`)
);

INSERT OR IGNORE INTO `version` (`table_name`, `table_version`) VALUES ('portcullis_generation', 1);

CREATE TABLE IF NOT EXISTS `portcullis_seat` (
    `seat` VARCHAR(32) PRIMARY KEY NOT NULL,
    `last` INTEGER NOT NULL,
    `active` INTEGER DEFAULT NULL,
    `previous` INTEGER DEFAULT NULL,
    `candidate` INTEGER DEFAULT NULL,
    `share` INTEGER DEFAULT NULL,
    `mode` VARCHAR(8) DEFAULT NULL,
    `revision` INTEGER NOT NULL,
    `changed_by` VARCHAR(255) NOT NULL,
    `changed_at` INTEGER NOT NULL
);

INSERT OR IGNORE INTO `version` (`table_name`, `table_version`) VALUES ('portcullis_seat', 1);
