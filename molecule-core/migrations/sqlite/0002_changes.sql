-- The Postgres twin of this file tells replicas what to forget. SQLite has one process, which knows already.
SELECT 1;
