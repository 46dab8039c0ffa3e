"""Bodies that schemathesis does not make by itself, and keys that it uses twice."""

import schemathesis
from schemathesis.generation.meta import CoverageScenario


@schemathesis.serializer("application/wasm", "application/toml", "text/csv")
def as_it_is(context, value):
    """Sends strings and bytes as they are."""
    if isinstance(value, bytes):
        return value
    return str(value).encode()


@schemathesis.hook
def before_call(context, case, **kwargs):
    """Sends undeclared methods without the key of an earlier request: the host refuses that before it looks at the method."""
    scenario = getattr(case.meta.phase.data, "scenario", None) if case.meta else None
    if scenario == CoverageScenario.UNSPECIFIED_HTTP_METHOD:
        case.headers.pop("Idempotency-Key", None)
