-- Run once, by --initialize-sql-file. With asynchronous commit or one-phase commit this storage
-- lost acknowledged rows when it was killed.
SET GLOBAL tidb_enable_async_commit = OFF;
SET GLOBAL tidb_enable_1pc = OFF;
SET GLOBAL transaction_isolation = 'READ-COMMITTED';
SET GLOBAL time_zone = '+00:00';
CREATE DATABASE IF NOT EXISTS hongyan CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE USER IF NOT EXISTS hongyan@'%' IDENTIFIED BY 'hongyan';
GRANT ALL ON hongyan.* TO hongyan@'%';
