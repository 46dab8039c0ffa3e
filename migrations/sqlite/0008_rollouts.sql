-- Roll-outs of generations over all hosts, one for each seat (table version 1). Kamailio knows nothing of this table. `steps` and `gates` are JSON.
-- Times are milliseconds since 1970, by the clock of the database. `leader` is the host that moves the roll-out until `lead_until`.

CREATE TABLE IF NOT EXISTS `portcullis_rollout` (
    `seat` VARCHAR(32) PRIMARY KEY NOT NULL,
    `generation` INTEGER NOT NULL,
    `base` INTEGER NOT NULL,
    `steps` TEXT NOT NULL,
    `gates` TEXT NOT NULL,
    `step` INTEGER NOT NULL,
    `step_at` INTEGER NOT NULL,
    `reference_ns` INTEGER DEFAULT NULL,
    `reference_p99_ns` INTEGER DEFAULT NULL,
    `state` VARCHAR(16) NOT NULL,
    `why` TEXT NOT NULL,
    `revision` INTEGER NOT NULL,
    `changed_by` VARCHAR(255) NOT NULL,
    `changed_at` INTEGER NOT NULL,
    `leader` VARCHAR(128) DEFAULT NULL,
    `lead_until` INTEGER DEFAULT NULL
);

INSERT OR IGNORE INTO `version` (`table_name`, `table_version`) VALUES ('portcullis_rollout', 1);
