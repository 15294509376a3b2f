"""The OAuth 2.0 client's side of the protocol: values in, values out; `provider` sends."""
