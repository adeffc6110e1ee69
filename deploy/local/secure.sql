-- A user for trying TLS: pg_hba.conf of the local stack refuses it without.
SELECT format('CREATE ROLE %I LOGIN REPLICATION PASSWORD %L', :'secure_user', :'secure_password')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'secure_user') \gexec
