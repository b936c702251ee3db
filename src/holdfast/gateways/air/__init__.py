"""The air gateway: put, get, list and delete by plain paths and JSON, as docs/air.md has them.

`Air` is the ASGI application; `Services` is what it serves from.
"""

from holdfast.gateways.air.access import MissingToken, parse_token
from holdfast.gateways.air.app import Air, Services

__all__ = ["Air", "MissingToken", "Services", "parse_token"]
