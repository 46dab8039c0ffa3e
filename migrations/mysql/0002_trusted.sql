-- The table `trusted` as Kamailio's scripts create it (table version 6).

CREATE TABLE IF NOT EXISTS `trusted` (
    `id` INT(10) UNSIGNED AUTO_INCREMENT PRIMARY KEY NOT NULL,
    `src_ip` VARCHAR(50) NOT NULL,
    `proto` VARCHAR(4) NOT NULL,
    `from_pattern` VARCHAR(64) DEFAULT NULL,
    `ruri_pattern` VARCHAR(64) DEFAULT NULL,
    `tag` VARCHAR(64),
    `priority` INT DEFAULT 0 NOT NULL,
    KEY peer_idx (`src_ip`)
);

INSERT IGNORE INTO `version` (`table_name`, `table_version`) VALUES ('trusted', 6);
