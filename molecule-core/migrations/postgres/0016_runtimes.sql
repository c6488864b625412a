-- An agent whose runtime keeps its own times is not asked by schedules.
ALTER TABLE workspaces ADD COLUMN native_scheduler BOOLEAN NOT NULL DEFAULT FALSE;

-- What the runtime of an agent does by itself: each replica remembers what was said last, and an agent may go from one to
-- another and back.
CREATE TRIGGER molecule_runtime_changed AFTER UPDATE OF native_session, native_scheduler, idle_timeout_seconds ON workspaces
    FOR EACH ROW WHEN ((OLD.native_session, OLD.native_scheduler, OLD.idle_timeout_seconds)
        IS DISTINCT FROM (NEW.native_session, NEW.native_scheduler, NEW.idle_timeout_seconds))
    EXECUTE FUNCTION molecule_workspace_changed();
