"""The ASGI process: what people and callers reach over HTTP."""
