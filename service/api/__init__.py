"""The REST API: adapters and jobs over HTTP."""
