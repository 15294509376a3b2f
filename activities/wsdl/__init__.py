"""WSDL: its documents, read when a definition is registered, and the model that requests and answers follow."""
