"""Bodies over ASGI, as every gateway that speaks HTTP needs them: in, with their length and their pace checked, and
out, while the client is there. What a request means, and how an error is told, is each gateway's own."""
