-- Written by `make grants` from mainapp/description.yaml; not to be edited.
-- What binlog_relay may do in the main app's MySQL.
-- Make the account first, with a password that only the secret store has:
--   CREATE USER 'dialler_relay'@'%' IDENTIFIED BY '...' REQUIRE SSL;
-- then run this file in the main app's database, as an administrator:
--   mysql --database=THE_MAIN_APP < deploy/sql/mysql-grants-relay.sql
-- It is valid on MySQL 8 and on MariaDB. Run it again after each release that changes it; to take
-- back what it no longer names, REVOKE ALL PRIVILEGES, GRANT OPTION FROM 'dialler_relay'@'%' before.
GRANT SELECT (`id`) ON `users` TO 'dialler_relay'@'%';
GRANT SELECT (`id`) ON `claims` TO 'dialler_relay'@'%';
GRANT SELECT (`id`) ON `claim_requirements` TO 'dialler_relay'@'%';
GRANT SELECT (`id`) ON `claim_vehicle_packages` TO 'dialler_relay'@'%';
GRANT SELECT (`id`) ON `user_addresses` TO 'dialler_relay'@'%';
GRANT REPLICATION SLAVE, REPLICATION CLIENT /*M!100502 , REPLICA MONITOR */
  ON *.* TO 'dialler_relay'@'%';
