-- The audit: actions of operators and tenants (table version 1). Kamailio knows nothing of this table.

CREATE TABLE IF NOT EXISTS `portcullis_audit` (
    `id` INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    `host` VARCHAR(255) NOT NULL,
    `process` CHAR(32) NOT NULL,
    `number` INTEGER NOT NULL,
    `at` INTEGER NOT NULL,
    `author` VARCHAR(512) NOT NULL,
    `tenant` VARCHAR(32) DEFAULT NULL,
    `token` VARCHAR(255) DEFAULT NULL,
    `door` VARCHAR(16) NOT NULL,
    `command` VARCHAR(64) NOT NULL,
    `seat` VARCHAR(512) DEFAULT NULL,
    `subject` VARCHAR(512) DEFAULT NULL,
    `error` VARCHAR(512) DEFAULT NULL,
    UNIQUE (`process`, `number`)
);

CREATE INDEX IF NOT EXISTS `portcullis_audit_tenant` ON `portcullis_audit` (`tenant`, `id`);

INSERT OR IGNORE INTO `version` (`table_name`, `table_version`) VALUES ('portcullis_audit', 1);
