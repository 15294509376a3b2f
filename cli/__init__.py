"""`integrations …`: one file a command group, thin over client and storage."""
