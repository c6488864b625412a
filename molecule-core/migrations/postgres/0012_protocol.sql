-- Which version of the protocol a message that waits is of, where its sender said so.
-- The SQLite twin of this file has the same tables, columns and nullability; a test compares them.

ALTER TABLE a2a_queue ADD COLUMN protocol TEXT;
