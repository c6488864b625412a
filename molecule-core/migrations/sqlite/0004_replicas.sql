-- The Postgres twin of this file is for replicas that share a database. SQLite has one process.
SELECT 1;
