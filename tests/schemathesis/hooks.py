"""Bodies that schemathesis does not make by itself."""

import schemathesis


@schemathesis.serializer("application/wasm", "application/toml", "text/csv")
def as_it_is(context, value):
    """Sends strings and bytes as they are."""
    if isinstance(value, bytes):
        return value
    return str(value).encode()
