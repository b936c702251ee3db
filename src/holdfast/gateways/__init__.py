"""Protocols in front of the store: a protocol comes in, calls of `objects` go out. Gateways do not know each other."""
