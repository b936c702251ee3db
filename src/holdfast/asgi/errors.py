"""What can go wrong between a client and us, told apart as far as gateways answer it differently.

IncompleteBody      the body is shorter than was announced
└── ClientGone      there is nobody left to answer
InvalidRequest      the body is longer than was announced, or than whoever reads it takes
Timeout
└── SenderSilent    nothing came for too long
"""

from holdfast.core.errors import Timeout
from holdfast.objects.errors import IncompleteBody


class ClientGone(IncompleteBody):
    """The connection ended, or the client takes nothing any more. There is nobody to answer."""

    code = "client_gone"


class SenderSilent(Timeout):
    """Nothing came for too long."""

    code = "sender_silent"
