"""The S3 gateway: a plain ASGI application in front of `objects`.

`create_app` makes it; `Services` is what it serves from, `Settings` what an operator can set.
"""

from holdfast.gateways.s3.app import Application, create_app
from holdfast.gateways.s3.settings import Services, Settings
from holdfast.gateways.s3.sigv4 import Credentials

__all__ = ["Application", "Credentials", "Services", "Settings", "create_app"]
