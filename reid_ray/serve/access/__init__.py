"""Access control of the search service: tokens, roles, sessions, the guard in front of the application, the audit log."""
