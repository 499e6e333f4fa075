-- Written by `make grants` from mainapp/description.yaml; not to be edited.
-- What AWS DMS may do, where it replaces binlog_relay.
-- Make the account first, with a password that only the secret store has:
--   CREATE USER 'dialler_dms'@'%' IDENTIFIED BY '...' REQUIRE SSL;
-- then run this file in the main app's database, as an administrator:
--   mysql --database=THE_MAIN_APP < deploy/sql/mysql-grants-dms.sql
-- It is valid on MySQL 8 and on MariaDB. Run it again after each release that changes it; to take
-- back what it no longer names, REVOKE ALL PRIVILEGES, GRANT OPTION FROM 'dialler_dms'@'%' before.
GRANT SELECT ON `users` TO 'dialler_dms'@'%';
GRANT SELECT ON `claims` TO 'dialler_dms'@'%';
GRANT SELECT ON `claim_requirements` TO 'dialler_dms'@'%';
GRANT SELECT ON `claim_vehicle_packages` TO 'dialler_dms'@'%';
GRANT SELECT ON `user_addresses` TO 'dialler_dms'@'%';
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'dialler_dms'@'%';
