-- Run once on each new server, source and replica alike. Not written to the binary log: it
-- would give each server transactions of its own, and on a source wait for a replica that is
-- not yet there.
SET SESSION sql_log_bin = 0;
CREATE DATABASE IF NOT EXISTS hongyan CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE USER hongyan@'%' IDENTIFIED BY 'hongyan';
GRANT ALL ON hongyan.* TO hongyan@'%';
CREATE USER repl@'%' IDENTIFIED BY 'repl';
GRANT REPLICATION SLAVE ON *.* TO repl@'%';
