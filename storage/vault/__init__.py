"""Secrets at rest and on their way: envelope encryption under a keyring, and HPKE seals."""
