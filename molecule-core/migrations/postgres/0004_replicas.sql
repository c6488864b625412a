-- What several replicas on one database tell each other, beside what 0002 tells already. Each notice is part of the
-- change's own transaction, so that no crash can come between the two.

-- An event was recorded: by whom, so that a replica does not tell its own listeners twice, and which.
CREATE FUNCTION molecule_event_recorded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('molecule_events', 'recorded ' || current_setting('application_name') || ' ' || NEW.id::text);
    RETURN NULL;
END
$$;

CREATE TRIGGER molecule_event_recorded AFTER INSERT ON structure_events
    FOR EACH ROW EXECUTE FUNCTION molecule_event_recorded();

-- The secret that calls into a workspace present was rotated.
CREATE TRIGGER molecule_inbound_secret_changed AFTER UPDATE OF platform_inbound_secret ON workspaces
    FOR EACH ROW WHEN (OLD.platform_inbound_secret IS DISTINCT FROM NEW.platform_inbound_secret)
    EXECUTE FUNCTION molecule_workspace_changed();
