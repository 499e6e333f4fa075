-- Written by `make grants` from the services that have migrations; not to be edited.
-- What each service may do in PostgreSQL: own its schema, and see no other's.
-- Make the roles first, with passwords that only the secret store has:
--   CREATE ROLE dialler_queue LOGIN PASSWORD '...';
-- then run this file in the suite's database, as its owner or an administrator:
--   psql --set=ON_ERROR_STOP=1 --dbname=THE_SUITE --file=deploy/sql/postgres-grants.sql
-- Migrations run as the service whose schema they change. Running it again changes nothing.
DO $$ BEGIN
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO dialler_binlog_relay', current_database());
  EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO dialler_queue', current_database());
  EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO dialler_reconciler', current_database());
  EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO dialler_user_context', current_database());
END $$;
GRANT dialler_binlog_relay TO CURRENT_USER;
CREATE SCHEMA IF NOT EXISTS binlog_relay AUTHORIZATION dialler_binlog_relay;
REVOKE dialler_binlog_relay FROM CURRENT_USER;
GRANT dialler_queue TO CURRENT_USER;
CREATE SCHEMA IF NOT EXISTS queue AUTHORIZATION dialler_queue;
REVOKE dialler_queue FROM CURRENT_USER;
GRANT dialler_reconciler TO CURRENT_USER;
CREATE SCHEMA IF NOT EXISTS reconciler AUTHORIZATION dialler_reconciler;
REVOKE dialler_reconciler FROM CURRENT_USER;
GRANT dialler_user_context TO CURRENT_USER;
CREATE SCHEMA IF NOT EXISTS user_context AUTHORIZATION dialler_user_context;
REVOKE dialler_user_context FROM CURRENT_USER;
