-- The main app's schema, as its Laravel migrations leave it: valid on MySQL 8 and MariaDB alike.
-- updated_at has no index, and none may be added.

CREATE TABLE users (
  id bigint unsigned NOT NULL AUTO_INCREMENT,
  email_address varchar(255) COLLATE utf8mb4_unicode_ci NOT NULL,
  password varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  is_enabled tinyint(1) NOT NULL DEFAULT 1,
  status varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  first_name varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  last_name varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  phone_number varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  date_of_birth date DEFAULT NULL,
  previous_name varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  current_user_address_id char(36) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  current_user_id_document_id char(36) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  current_signature_file_id char(36) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  notification_channels json DEFAULT NULL,
  third_party_claim_partner varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  introducer varchar(255) COLLATE utf8mb4_unicode_ci NOT NULL DEFAULT 'mcc',
  solicitor varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  credit_response_selection_completed tinyint(1) NOT NULL DEFAULT 0,
  checkboard_address_links_api_request json DEFAULT NULL,
  checkboard_address_links_api_response json DEFAULT NULL,
  checkboard_user_invite_api_request json DEFAULT NULL,
  checkboard_user_batch_api_request json DEFAULT NULL,
  checkboard_user_verify_otp_api_request json DEFAULT NULL,
  justcall_id varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  voluum_click_id varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  pipedrive_id varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  google_drive_link varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  last_login timestamp NULL DEFAULT NULL,
  remember_token varchar(100) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  created_at timestamp NULL DEFAULT NULL,
  updated_at timestamp NULL DEFAULT NULL,
  PRIMARY KEY (id),
  UNIQUE KEY users_email_address_unique (email_address)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE claims (
  id bigint unsigned NOT NULL AUTO_INCREMENT,
  user_id bigint unsigned NOT NULL,
  type varchar(255) COLLATE utf8mb4_unicode_ci NOT NULL,
  status varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  lender varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  solicitor varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  client_last_updated_at timestamp NULL DEFAULT NULL,
  created_at timestamp NULL DEFAULT NULL,
  updated_at timestamp NULL DEFAULT NULL,
  PRIMARY KEY (id),
  KEY claims_user_id_foreign (user_id),
  CONSTRAINT claims_user_id_foreign FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE claim_requirements (
  id char(36) COLLATE utf8mb4_unicode_ci NOT NULL,
  claim_id bigint unsigned NOT NULL,
  type varchar(255) COLLATE utf8mb4_unicode_ci NOT NULL,
  status varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  claim_requirement_reason text COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  claim_requirement_rejection_reason text COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  created_at timestamp NULL DEFAULT NULL,
  updated_at timestamp NULL DEFAULT NULL,
  PRIMARY KEY (id),
  KEY claim_requirements_claim_id_foreign (claim_id),
  CONSTRAINT claim_requirements_claim_id_foreign
    FOREIGN KEY (claim_id) REFERENCES claims (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE claim_vehicle_packages (
  id char(36) COLLATE utf8mb4_unicode_ci NOT NULL,
  claim_id bigint unsigned NOT NULL,
  vehicle_registration varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  vehicle_make varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  vehicle_model varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  dealership_name varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  monthly_payment decimal(10,2) DEFAULT NULL,
  contract_start_date date DEFAULT NULL,
  status varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  created_at timestamp NULL DEFAULT NULL,
  updated_at timestamp NULL DEFAULT NULL,
  PRIMARY KEY (id),
  KEY claim_vehicle_packages_claim_id_foreign (claim_id),
  CONSTRAINT claim_vehicle_packages_claim_id_foreign
    FOREIGN KEY (claim_id) REFERENCES claims (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

-- user_id is an int while users.id is a bigint, so no foreign key can join them.
CREATE TABLE user_addresses (
  id char(36) COLLATE utf8mb4_unicode_ci NOT NULL,
  user_id int NOT NULL,
  type varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  is_linked_address tinyint(1) NOT NULL DEFAULT 0,
  full_address text COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  address_line_1 varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  address_line_2 varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  house_number varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  street varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  building_name varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  county varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  district varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  post_code varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  post_town varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  country varchar(255) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  checkboard_raw_address json DEFAULT NULL,
  openai_matching_result json DEFAULT NULL,
  openai_matching_api_details json DEFAULT NULL,
  created_at timestamp NULL DEFAULT NULL,
  updated_at timestamp NULL DEFAULT NULL,
  PRIMARY KEY (id),
  KEY user_addresses_user_id_index (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE user_logs (
  id char(36) COLLATE utf8mb4_unicode_ci NOT NULL,
  user_id bigint unsigned NOT NULL,
  type varchar(255) COLLATE utf8mb4_unicode_ci NOT NULL,
  detail text COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  ip_address varchar(45) COLLATE utf8mb4_unicode_ci DEFAULT NULL,
  created_at timestamp NULL DEFAULT NULL,
  PRIMARY KEY (id),
  KEY user_logs_user_id_index (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
