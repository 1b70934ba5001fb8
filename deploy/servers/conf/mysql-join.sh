#!/bin/sh
# mysql-join.sh HOST PORT: the SQL that makes a server the replica of the one at HOST:PORT.
# Read-only is persisted, so that a replica that was promoted (STOP REPLICA; RESET REPLICA ALL;
# SET PERSIST super_read_only = OFF; SET PERSIST read_only = OFF) stays so after a restart.
cat <<SQL
STOP REPLICA;
CHANGE REPLICATION SOURCE TO SOURCE_HOST = '$1', SOURCE_PORT = $2, SOURCE_USER = 'repl', SOURCE_PASSWORD = 'repl',
	SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1, SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = 0;
START REPLICA;
SET PERSIST super_read_only = ON;
SQL
