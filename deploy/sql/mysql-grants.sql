-- Written by `make grants` from mainapp/description.yaml; not to be edited.
-- What user_context may do in the main app's MySQL.
-- Make the account first, with a password that only the secret store has:
--   CREATE USER 'dialler'@'%' IDENTIFIED BY '...' REQUIRE SSL;
-- then run this file in the main app's database, as an administrator:
--   mysql --database=THE_MAIN_APP < deploy/sql/mysql-grants.sql
-- It is valid on MySQL 8 and on MariaDB. Run it again after each release that changes it; to take
-- back what it no longer names, REVOKE ALL PRIVILEGES, GRANT OPTION FROM 'dialler'@'%' before.
GRANT SELECT (`id`, `email_address`, `is_enabled`, `status`, `first_name`, `last_name`, `phone_number`, `date_of_birth`, `previous_name`, `current_user_address_id`, `current_user_id_document_id`, `current_signature_file_id`, `notification_channels`, `third_party_claim_partner`, `introducer`, `solicitor`, `credit_response_selection_completed`, `last_login`, `created_at`, `updated_at`)
  ON `users` TO 'dialler'@'%';
GRANT SELECT (`id`, `user_id`, `type`, `status`, `lender`, `solicitor`, `client_last_updated_at`, `created_at`, `updated_at`)
  ON `claims` TO 'dialler'@'%';
GRANT SELECT (`id`, `claim_id`, `type`, `status`, `claim_requirement_reason`, `claim_requirement_rejection_reason`, `created_at`, `updated_at`)
  ON `claim_requirements` TO 'dialler'@'%';
GRANT SELECT (`id`, `claim_id`, `vehicle_registration`, `vehicle_make`, `vehicle_model`, `dealership_name`, `monthly_payment`, `contract_start_date`, `status`, `created_at`, `updated_at`)
  ON `claim_vehicle_packages` TO 'dialler'@'%';
GRANT SELECT (`id`, `user_id`, `type`, `full_address`, `address_line_1`, `address_line_2`, `house_number`, `street`, `building_name`, `county`, `district`, `post_code`, `post_town`, `country`)
  ON `user_addresses` TO 'dialler'@'%';
GRANT /*M!100502 REPLICA MONITOR */ /*!80000 REPLICATION CLIENT */ ON *.* TO 'dialler'@'%';
