-- The same demo for MySQL and MariaDB: users, and a source database with two tables.
-- For an administrator; harmless when run again.

CREATE USER IF NOT EXISTS 'cdc_admin'@'127.0.0.1' IDENTIFIED BY 'cdc_admin_password';
GRANT ALL ON *.* TO 'cdc_admin'@'127.0.0.1' WITH GRANT OPTION;

-- What the connector needs: to read the tables, to see and stop writes for a moment while a snapshot
-- begins, and to read the binlog.
CREATE USER IF NOT EXISTS 'cdc_user'@'127.0.0.1' IDENTIFIED BY 'cdc_password';
GRANT SELECT, RELOAD, SHOW DATABASES, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'cdc_user'@'127.0.0.1';

CREATE DATABASE IF NOT EXISTS cdc_demo CHARACTER SET utf8mb4;
USE cdc_demo;

CREATE TABLE IF NOT EXISTS customers (
    id          bigint UNSIGNED AUTO_INCREMENT PRIMARY KEY,
    name        varchar(100) NOT NULL,
    email       varchar(255) NOT NULL UNIQUE,
    -- NULL (not asked) differs from the default, and must arrive as NULL.
    newsletter  boolean DEFAULT true,
    tier        enum('standard', 'silver', 'gold') DEFAULT 'standard',
    balance     decimal(12, 2) NOT NULL DEFAULT 0,
    birth_date  date,
    tags        set('math', 'engines', 'navy', 'film', 'new') NOT NULL DEFAULT '',
    profile     json,
    created_at  timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE IF NOT EXISTS orders (
    id           bigint UNSIGNED AUTO_INCREMENT PRIMARY KEY,
    customer_id  bigint UNSIGNED NOT NULL,
    status       enum('new', 'paid', 'shipped', 'cancelled') NOT NULL DEFAULT 'new',
    quantity     int UNSIGNED NOT NULL,
    amount       decimal(12, 2) NOT NULL,
    discount     decimal(5, 2) DEFAULT 5.50,
    weight_kg    double,
    note         varchar(200) DEFAULT 'none',
    delivery_at  datetime(6),
    created_at   timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
    FOREIGN KEY (customer_id) REFERENCES customers (id)
);

INSERT IGNORE INTO customers (id, name, email, newsletter, tier, balance, birth_date, tags, profile) VALUES
    (1, 'Ada Lovelace', 'ada@example.com', true, 'gold', 1250.00, '1985-12-10', 'math,engines', '{"language": "en", "visits": 12}'),
    (2, 'Grace Hopper', 'grace@example.com', NULL, NULL, 310.55, '1976-12-09', 'navy', '{"language": "en"}'),
    (3, 'José Ñandú', 'jose@example.com', false, 'standard', 0, NULL, '', NULL),
    (4, '李小龍', 'lee@example.com', true, 'gold', 99999999.99, '1990-11-27', 'film', '{"nested": {"list": [1, null, "x"]}}');

INSERT IGNORE INTO orders (id, customer_id, status, quantity, amount, discount, weight_kg, note, delivery_at) VALUES
    (1, 1, 'paid', 2, 149.90, 10.00, 1.25, 'leave at the door', '2026-03-01 09:30:00'),
    (2, 1, 'new', 1, 19.99, NULL, NULL, NULL, NULL),
    (3, 2, 'shipped', 10, 1200.00, 0.00, 12.5, 'fragile', '2026-03-02 14:00:00.123456'),
    (4, 4, 'paid', 3, 33.33, NULL, 0.333, 'two\nlines', '2026-03-05 00:00:00');
